"""A bird on a post opens its beak and chirps; each chirp leaves a note that floats away.

The notes rise at one speed: the quicker it sings, the closer they follow each other.
"""

import math

import numpy as np

from ..colours import CREAM, DARK_WOOD, INK, WHITE, WOOD, lit, mix
from ..picture import FLOOR, bar, block, disc, join, oval, wedge
from ..sound import faded, glide

LOWEST, DECAY, LOOSENESS, STEPS = 850.0, (0.035, 0.11), 0.5, (1.0, 1.0, 1.26)
BEAK, PERCH = (0.98, 0.72, 0.42), FLOOR + 0.20


def note(scene, pitch, dice, sample_rate):
    """A chirp: a quick rise onto the note, which is held for a moment, then a fall while it fades."""
    time = np.arange(int((0.05 + 5 * scene.decay) * sample_rate)) / sample_rate
    fading = np.maximum(time - 0.05, 0)
    frequency = pitch * (1 - 0.25 * np.exp(-time / 0.006) - 0.2 * np.minimum(fading / (4 * scene.decay), 1) ** 2)
    overtones = (1, 0.05 + 0.4 * scene.hue, 0.3 * scene.hue**2)
    return faded(glide(frequency, np.exp(-fading / scene.decay), overtones, sample_rate), sample_rate, 0.003, 0.02)


def draw(canvas, scene, time):
    """The post, the notes in the air, and the bird, which lifts its head to sing."""
    x, size, facing = canvas.place(scene.position), 0.36 * scene.scale, scene.facing
    canvas.shadow(0.09, x, FLOOR)
    canvas.fill(block(0.09, PERCH - FLOOR + 0.02, 0.012), (WOOD, DARK_WOOD), x, (PERCH + FLOOR) / 2)
    canvas.fill(oval(0.052, 0.016), mix(WOOD, CREAM, 0.4), x, PERCH + 0.01)
    for number, age in scene.around(time, 1.5, 0.0):
        fade = 0.9 * min(1.0, 8 * age) * min(1.0, 2.2 - 1.4 * age)
        drift = facing * (0.5 * size + 0.10 * math.sin(2.2 * age + 0.8 * (number % 3)))
        sign = canvas.at(x + drift, PERCH + 0.85 * size + 0.30 * age, turn=0.2 * math.sin(3 * age))
        stem, flag = bar(0.022, 0.005, 0.022, 0.085, 0.006), bar(0.022, 0.085, 0.045, 0.065, 0.007)
        sign.fill(join(oval(0.026, 0.020).at(0, 0, 0.4), stem, flag), INK, opacity=fade)

    _, since, _ = scene.since(time)
    sings = max(0.0, 1 - since / (0.08 + 1.5 * scene.decay))
    pen, (light, dark) = canvas.at(x, PERCH + 0.012 + 0.04 * size * sings, size, facing), lit(scene.colour, 1.1)
    for foot in (-0.06, 0.07):
        pen.fill(bar(foot, 0, foot, 0.12, 0.018), mix(BEAK, INK, 0.35))
    pen.fill(bar(-0.30, 0.28, -0.68, 0.10, 0.085, 0.05), (scene.colour, dark))
    head = 0.70 + 0.03 * sings
    for turn, colour in ((0.35 * sings, BEAK), (-0.4 * sings, mix(BEAK, INK, 0.25))):
        pen.fill(wedge((0, -0.035), (0.24, 0), (0, 0.075), rounding=0.012), colour, 0.37, head, turn + 0.1)
    body = join(oval(0.40, 0.285).at(0, 0.36, 0.12 + 0.1 * sings), disc(0.215).at(0.25, head), melt=0.16)
    pen.fill(body, (light, dark))
    belly = body & oval(0.27, 0.20).at(0.17, 0.25, 0.5)
    pen.fill(belly, mix(scene.colour, CREAM, 0.62), opacity=0.9, soft=0.05)
    wing = join(oval(0.25, 0.135).at(-0.12, 0.38, 0.35), bar(-0.2, 0.33, -0.4, 0.2, 0.07, 0.02), melt=0.05)
    pen.fill(wing, (mix(scene.colour, dark, 0.35), mix(dark, INK, 0.25)), angle=0.12 * sings)
    for radius, colour, dx, dy in ((0.058, WHITE, 0.30, 0.055), (0.04, INK, 0.312, 0.055), (0.014, WHITE, 0.30, 0.07)):
        pen.fill(disc(radius), colour, dx, head + dy)
