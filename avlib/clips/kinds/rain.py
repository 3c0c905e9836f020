"""Drops fall from a small cloud into a bowl of water; where one lands, rings run out and it plinks.

Each drop is in the air for a second and a half: the quicker the rain, the more of them are.
"""

import math

import numpy as np

from ..colours import WHITE, lit, mix
from ..picture import FLOOR, disc, join, oval, wedge
from ..sound import faded, glide

LOWEST, DECAY, LOOSENESS, STEPS = 330.0, (0.03, 0.13), 0.8, (1.0, 1.0, 1.125)
FALL, CLOUD = 1.5, 0.86  # seconds; height on the stage
HALF, HIGH, RIM, DROP = 0.44, 0.42, 0.13, 0.085  # of the bowl and of a drop, in units of the size


def note(scene, pitch, dice, sample_rate):
    """A bubble rings: one tone that rises as the bubble nears the surface, and brighter ones for a bright bowl."""
    time = np.arange(int(7 * scene.decay * sample_rate)) / sample_rate
    frequency = pitch * (1 + 0.12 * np.maximum(time / scene.decay - 1, 0))
    overtones = (1, 0.05 + 0.5 * scene.hue, 0.5 * scene.hue**2, 0.3 * scene.hue**2)
    return faded(glide(frequency, np.exp(-time / scene.decay), overtones, sample_rate), sample_rate, 0.002, 0.02)


def spot(number):
    """Where in the bowl a drop lands: spread evenly, never twice in a row at one place."""
    return (number * 0.618034 % 1 - 0.5) * 1.2 * HALF, (number * 0.381966 % 1 - 0.5) * 0.7 * RIM


def draw(canvas, scene, time):
    """The bowl and its water, rings and splashes, the drops, and the cloud in front of where they start."""
    x, size = canvas.place(scene.position), 0.50 * scene.scale
    water = FLOOR + 0.02 + HIGH * size
    pen, (light, dark) = canvas.at(x, water, size), lit(scene.colour, 1.1)
    pen.shadow(0.4, y=-HIGH - 0.02, strength=0.5)
    pen.fill(wedge((-0.2, 0), (0.2, 0), (0.13, 0.1), (-0.13, 0.1), rounding=0.02), (scene.colour, dark), y=-HIGH - 0.03)
    bowl = oval(1.04 * HALF, HIGH) & wedge((-1, -1), (1, -1), (1, 0), (-1, 0))
    pen.fill(bowl, (light, dark))
    pen.fill(bowl & oval(0.5 * HALF, HIGH).at(0.35, -0.04, -0.4), dark, opacity=0.45, soft=0.25)
    pen.fill(oval(0.04, 0.125).at(-0.27, -0.18, 0.45), WHITE, opacity=0.45, soft=0.08)
    pen.fill(oval(1.04 * HALF, 1.12 * RIM), (mix(light, WHITE, 0.35), scene.colour))
    bright, pool = mix(scene.colour, (0.86, 0.93, 0.96), 0.62), oval(0.93 * HALF, 0.92 * RIM)
    pen.fill(pool, (mix(bright, WHITE, 0.2), mix(scene.colour, bright, 0.4)))
    for number, age in scene.around(time, 0.9, 0.0):
        dx, dy = spot(number)
        for late in (0.0, 0.18):
            reach = 0.1 + 0.75 * (age - late)
            wave = oval(reach * HALF, reach * RIM).at(dx, dy).outline(0.025) if age > late else None
            if wave:
                pen.fill(pool & wave, WHITE, opacity=0.85 * max(0.0, 1 - (age - late) / 0.72))
        if age < 0.28:
            jump = 4 * (age / 0.28) * (1 - age / 0.28)
            for side in (-1, 0, 1):
                away, up = side * (0.4 + 3.6 * age) * DROP, (1.8 + 1.0 * (side == 0)) * jump * DROP
                pen.fill(disc(0.36 * DROP), (mix(bright, WHITE, 0.5), scene.colour), dx + away, dy + up)
    tear = join(disc(1.0), wedge((-0.8, 0.55), (0.8, 0.55), (0, 2.3)), melt=0.5)
    for number, age in scene.around(time, 0.0, FALL):
        dx, dy = spot(number)
        way = 1 + age / FALL
        fallen = way * (0.5 + 0.5 * way)  # 1 at the moment of contact
        y = CLOUD + (water + (dy + 0.8 * DROP) * size - CLOUD) * fallen
        drop = canvas.at(x + dx * size, y, DROP * size)
        drop.fill(tear, (mix(light, WHITE, 0.25), scene.colour))
        drop.fill(disc(0.28), WHITE, -0.35, 0.15, opacity=0.8)
    wide = 0.30 + 0.22 * size
    cloud = join(
        oval(0.52 * wide, 0.042).at(0, -0.02),
        *(
            disc(radius).at(dx * wide, dy)
            for radius, dx, dy in ((0.075, -0.2, 0.03), (0.095, 0.08, 0.05), (0.06, 0.3, 0.015))
        ),
        melt=0.05,
    )
    canvas.fill(cloud, ((0.97, 0.97, 0.98), (0.62, 0.65, 0.72)), x + 0.006 * math.sin(1.1 * time), CLOUD)
