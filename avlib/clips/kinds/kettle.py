"""A kettle on its stove whistles in toots; each toot lifts the lid and pushes a puff of steam out of the spout.

The steam rises at one speed: the quicker it toots, the closer the puffs.
"""

import math

import numpy as np

from ..colours import BRASS, CREAM, DARK_WOOD, INK, STEEL, WHITE, lit, mix
from ..picture import FLOOR, bar, block, disc, join, oval
from ..sound import faded, glide, hiss

LOWEST, DECAY, LOOSENESS, STEPS = 560.0, (0.03, 0.16), 0.2, (1.0,)
STOVE, SPOUT = FLOOR + 0.09, (0.60, 0.66)


def note(scene, pitch, dice, sample_rate):
    """A breathy whistle, held for a third of the wait, then falling a little while the pressure goes."""
    held = 0.35 / scene.tempo
    time = np.arange(int((held + 6 * scene.decay) * sample_rate)) / sample_rate
    fading = np.maximum(time - held, 0)
    level = np.exp(-fading / scene.decay) * (1 + 0.15 * np.sin(2 * math.pi * 23 * time))
    frequency = pitch * (1 - 0.12 * np.exp(-time / 0.008) - 0.05 * np.minimum(fading / 0.3, 1))
    waveform = glide(frequency, level, (1, 0.04 + 0.45 * scene.hue, 0.4 * scene.hue**2), sample_rate)
    breath = hiss(dice, 1.5, pitch * (1 + 2 * scene.hue), 0.6 * pitch, sample_rate)[: len(level)]
    return faded(waveform + 0.12 * breath * level, sample_rate, 0.004, 0.02)


def draw(canvas, scene, time):
    """The stove, the steam, and the kettle, its lid in the air while it toots."""
    x, size = canvas.place(scene.position), 0.40 * scene.scale
    canvas.shadow(0.42 * size + 0.06, x, FLOOR)
    hob = canvas.at(x, FLOOR)
    hob.fill(block(0.8 * size + 0.06, 0.09, 0.02), (mix(STEEL, CREAM, 0.25), mix(INK, STEEL, 0.4)), y=0.045)
    hob.fill(block(0.86 * size + 0.08, 0.022, 0.01), (mix(INK, STEEL, 0.3), INK), y=0.09)
    hob.fill(block(0.45 * size, 0.03, 0.015), (0.98, 0.80, 0.58), y=0.045, opacity=0.8, soft=0.015)
    for _, age in reversed(scene.around(time, 1.5, 0.0)):
        radius = (0.022 + 0.06 * math.sqrt(age)) * (0.6 + 0.4 * scene.scale)
        drift = scene.facing * (SPOUT[0] * size + 0.03 + 0.10 * (1 - math.exp(-4 * age)))
        steam = canvas.at(x + drift, STOVE + SPOUT[1] * size + 0.05 + 0.26 * age, radius, scene.facing, 0.5 * age)
        puff = join(disc(1.0), disc(0.65).at(-0.6, 0.4), melt=0.5)
        steam.fill(puff, (WHITE, (0.66, 0.68, 0.77)), opacity=0.92 * min(1.0, 1.5 - age), soft=0.4)

    _, since, _ = scene.since(time)
    push = max(0.0, 1 - since / (0.35 / scene.tempo + scene.decay))
    pen, (light, dark) = canvas.at(x, STOVE + 0.01, size, scene.facing), lit(scene.colour, 1.15)
    pen.fill(oval(0.33, 0.36).outline(0.05) & block(1, 1).at(0, 0.5), (mix(INK, STEEL, 0.3), INK), y=0.56)
    pen.fill(bar(-0.1, 0.93, 0.1, 0.93, 0.04), lit(DARK_WOOD))
    pen.fill(bar(0.28, 0.25, *SPOUT, 0.12, 0.05), (light, dark))
    pen.fill(bar(-0.03, 0, 0.03, 0.035, 0.055), lit(BRASS), *SPOUT)
    body = join(oval(0.42, 0.36).at(0, 0.34), block(0.68, 0.2, 0.06).at(0, 0.1), melt=0.1)
    pen.fill(block(0.36, 0.12, 0.05), INK, y=0.64)
    pen.fill(oval(0.22, 0.12) & block(1, 1).at(0, 0.49), (light, scene.colour), 0, 0.66 + 0.1 * push, 0.1 * push)
    pen.fill(disc(0.05), lit(DARK_WOOD), -0.014 * push, 0.80 + 0.1 * push)
    pen.fill(body, (light, dark))
    pen.fill(body & oval(0.25, 0.4).at(0.38, 0.25), dark, opacity=0.45, soft=0.25)
    pen.fill(body & block(1, 0.04).at(0, 0.16), mix(scene.colour, CREAM, 0.55))
    pen.fill(oval(0.06, 0.13).at(-0.22, 0.44, -0.3), WHITE, opacity=0.5, soft=0.07)
