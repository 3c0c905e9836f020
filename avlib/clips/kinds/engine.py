"""A small steam engine runs in place on its rails and puffs; each puff is a chuff.

Half a turn of its wheels makes one chuff, and the smoke drifts at one speed: the quicker, the closer the puffs.
"""

import math

import numpy as np

from ..colours import BRASS, CREAM, DARK_WOOD, INK, STEEL, WHITE, lit, mix
from ..picture import FLOOR, bar, block, disc, join, wedge
from ..sound import faded, hiss, ring

LOWEST, DECAY, LOOSENESS, STEPS = 120.0, (0.045, 0.14), 0.08, (1.0,)
WHEELS = ((-0.32, 0.155), (0.02, 0.155), (0.33, 0.105))  # where, and their radius


def note(scene, pitch, dice, sample_rate):
    """A gust of steam through a pipe: noise in which the pipe's note and its overtones ring."""
    levels = [(0.2 + 0.45 * scene.hue) ** n for n in range(4)]
    pipe = ring(pitch, (1, 2, 3, 4), levels, [1.3 * scene.decay] * 4, sample_rate)
    bright = 1 + 3 * scene.hue
    gust = hiss(dice, 1.5, pitch * (bright + 0.5), pitch * bright, sample_rate)[: len(pipe)]
    gust *= np.exp(np.arange(len(gust)) / (-scene.decay * sample_rate))
    return faded(pipe + 0.45 * gust, sample_rate, 0.002, 0.02)


def draw(canvas, scene, time):
    """The rails, the smoke that drifts back, and the engine."""
    x, size, wide = canvas.place(scene.position), 0.48 * scene.scale, canvas.half_width
    for i in range(int(2 * wide / 0.14) + 1):
        canvas.fill(block(0.06, 0.022, 0.006), DARK_WOOD, 0.05 + 0.14 * i - wide, FLOOR - 0.028)
    canvas.fill(block(2 * wide + 0.1, 0.014), (STEEL, INK), 0, FLOOR - 0.012)
    number, since, until = scene.since(time)
    pen = canvas.at(x, FLOOR + 0.012 * size * max(0.0, 1 - since / 0.08), size, scene.facing)
    pen.shadow(0.5, y=-0.06)
    for _, age in reversed(scene.around(time, 1.7, 0.0)):
        radius = (0.035 + 0.075 * math.sqrt(age)) * (0.6 + 0.4 * scene.scale)
        drift = scene.facing * (0.33 * size - 0.05 * age - 0.10 * age * age)
        smoke = canvas.at(x + drift, FLOOR + 0.80 * size + 0.24 * age, radius, scene.facing, 0.3 * age)
        puff = join(disc(1.0), disc(0.7).at(0.7, -0.3), melt=0.5)
        smoke.fill(puff, (WHITE, (0.68, 0.67, 0.74)), opacity=0.92 * min(1.0, 1.7 - age), soft=0.3)

    paint, iron = lit(scene.colour, 1.1), (mix(INK, STEEL, 0.4), INK)
    pen.fill(wedge((-0.035, 0), (0.035, 0), (0.065, 0.2), (-0.065, 0.2)), iron, 0.33, 0.58)  # the chimney
    pen.fill(block(0.15, 0.035, 0.015), lit(BRASS), 0.33, 0.78)
    pen.fill(block(0.36, 0.40, 0.04), paint, -0.30, 0.45)  # the cab
    pen.fill(block(0.46, 0.05, 0.025), iron, -0.30, 0.675)
    pen.fill(block(0.20, 0.16, 0.04), (mix(CREAM, WHITE, 0.5), mix(CREAM, STEEL, 0.5)), -0.31, 0.52)
    pen.fill(disc(0.07), lit(BRASS), 0.05, 0.58)  # the dome, and the boiler in front of it
    pen.fill(block(0.62, 0.31, 0.12), paint, 0.16, 0.44)
    pen.fill(block(0.5, 0.04, 0.02), WHITE, 0.14, 0.535, opacity=0.7, soft=0.03)
    for band in (-0.08, 0.24):
        pen.fill(block(0.03, 0.305), lit(BRASS), band, 0.44)
    pen.fill(disc(0.05), lit(CREAM), 0.46, 0.47)
    pen.fill(block(0.98, 0.07, 0.02), (mix(scene.colour, INK, 0.45), mix(paint[1], INK, 0.5)), 0.0, 0.26)
    pen.fill(wedge((0, 0), (0.15, 0), (0, 0.14)), (STEEL, INK), 0.44, 0.06)
    turn, spoke = -math.pi * (number + since / (since + until)), mix(scene.colour, CREAM, 0.35)
    for place, radius in WHEELS:
        pen.fill(disc(radius), iron, place, radius)
        pen.fill(disc(0.72 * radius).outline(0.03), spoke, place, radius)
        for i in range(3):
            way = turn * 0.155 / radius + i * math.pi / 3
            pen.fill(bar(-0.7 * radius, 0, 0.7 * radius, 0, 0.01), spoke, place, radius, way)
        pen.fill(disc(0.035), BRASS, place, radius)
    crank_x, crank_y = 0.08 * math.cos(turn), 0.155 + 0.08 * math.sin(turn)
    pen.fill(bar(-0.32, 0, 0.02, 0, 0.02), (CREAM, STEEL), crank_x, crank_y)
    pen.fill(bar(crank_x + 0.02, crank_y, 0.34, 0.2, 0.016), (CREAM, STEEL))
    pen.fill(block(0.16, 0.10, 0.02), (STEEL, INK), 0.36, 0.2)
    for place, _ in WHEELS[:2]:
        pen.fill(disc(0.026), INK, place + crank_x, crank_y)
