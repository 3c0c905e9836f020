"""A belt of pins runs past an upright lute, and each pin that passes its one thick string plucks it.

The belt always runs at one speed: the quicker the rhythm, the closer its pins.
"""

import math

from ..colours import BRASS, CREAM, DARK_WOOD, INK, NIGHT, STEEL, WHITE, WOOD, lit, mix
from ..picture import FLOOR, bar, block, disc, join, oval, wedge
from ..sound import ring

LOWEST, DECAY, LOOSENESS, STEPS = 98.0, (0.18, 0.9), 0.15, (1.0,)
SPEED, BELT = 0.32, FLOOR + 0.045  # stage units / s; height on the stage


def note(scene, pitch, dice, sample_rate):
    """Many harmonics, a little sharp as those of a stiff string are, the high ones soon gone."""
    numbers = range(1, 19)
    ratios = [n * math.sqrt(1 + 2e-4 * n * n) for n in numbers]
    levels = [abs(math.sin(math.pi * n * 0.36)) * (0.45 + 0.45 * scene.hue) ** n / n**0.8 for n in numbers]
    return ring(pitch, ratios, levels, [scene.decay / n**0.6 for n in numbers], sample_rate)


def draw(canvas, scene, time):
    """The lute, its string, blurred as wide as it vibrates, and the belt in front."""
    x, wide = canvas.place(scene.position), canvas.half_width
    pen, (light, dark) = canvas.at(x, FLOOR - 0.01, 0.70 * scene.scale), lit(scene.colour, 1.1)
    pen.shadow(0.26, y=-0.01, strength=0.5)
    pen.fill(block(0.085, 0.62, 0.015), (mix(WOOD, CREAM, 0.15), DARK_WOOD), y=0.75)
    pegs = wedge((-0.06, 0), (0.06, 0), (0.085, 0.13), (-0.085, 0.13), rounding=0.015)
    pen.fill(pegs, (scene.colour, dark), y=1.03)
    pen.fill(bar(-0.13, 1.1, 0.13, 1.1, 0.014), lit(BRASS))
    body = join(oval(0.29, 0.26).at(0, 0.25), oval(0.20, 0.17).at(0, 0.50), melt=0.10)
    pen.fill(body, (light, dark))
    pen.fill(body & oval(0.17, 0.4).at(0.27, 0.25), dark, opacity=0.4, soft=0.15)
    pen.fill(oval(0.035, 0.12).at(-0.19, 0.30, -0.2), WHITE, opacity=0.4, soft=0.07)
    pen.fill(disc(0.085), mix(scene.colour, CREAM, 0.6), y=0.43)
    pen.fill(disc(0.068), (INK, mix(INK, scene.colour, 0.3)), y=0.43)
    pen.fill(block(0.2, 0.035, 0.01), lit(DARK_WOOD), y=0.14)

    number, since, _ = scene.since(time)
    sway = 0.045 * scene.beats[1][number] * math.exp(-since / (0.25 + 0.5 * scene.decay))
    pen.fill(oval(sway + 0.008, 0.455), CREAM, y=0.595, opacity=0.55)
    for side in (-0.9, 0.9):
        for end in (0.14, 1.05):
            pen.fill(bar(0, end, side * sway, 0.595, 0.007), WHITE, opacity=0.6)
    pen.fill(bar(0, 0.14, 0, 1.05, 0.009), (WHITE, CREAM))

    canvas.fill(block(2 * wide + 0.1, 0.03), NIGHT, 0, BELT - 0.03, opacity=0.25, soft=0.04)
    canvas.fill(block(2 * wide + 0.1, 0.045), (mix(INK, STEEL, 0.5), INK), 0, BELT)
    canvas.fill(block(2 * wide + 0.1, 0.008), mix(STEEL, WHITE, 0.3), 0, BELT + 0.019)
    pin = join(wedge((-0.022, 0), (0.022, 0), (0.006, 0.085), (-0.006, 0.085)), disc(0.017).at(0, 0.08), melt=0.015)
    for _, age in scene.around(time, (wide - x) / SPEED + 0.1, (wide + x) / SPEED + 0.1):
        canvas.fill(pin, lit(BRASS, 1.3), x + SPEED * age, BELT + 0.015)
