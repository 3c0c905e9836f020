"""A bell swings below a beam; at each end of the swing the clapper strikes its rim.

It is a pendulum: the longer the rod on which it hangs, the slower it swings.
"""

import math

from ..colours import BRASS, CREAM, DARK_WOOD, INK, NIGHT, STEEL, WHITE, WOOD, lit, mix
from ..picture import bar, block, disc, join, oval, wedge
from ..sound import ring

LOWEST, DECAY, LOOSENESS, STEPS = 260.0, (0.25, 1.3), 0.08, (1.0,)
PARTIALS = (0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 3.01, 4.08)  # hum, prime, tierce, quint, nominal, and above
BEAM = 0.93  # its height on the stage


def note(scene, pitch, dice, sample_rate):
    """Inharmonic partials as founders tune them, the hum soft and long, the high ones bright and short."""
    dark = 0.25 + 0.5 * scene.hue
    levels = [0.12, 1.0, *(0.75 * dark ** (0.5 + 0.5 * n) for n in range(len(PARTIALS) - 2))]
    return ring(pitch, PARTIALS, levels, [scene.decay / (0.6 + 0.4 * ratio) for ratio in PARTIALS], sample_rate)


def draw(canvas, scene, time):
    """The beam with its posts, the rod, the clapper, and the bell in front of it."""
    x, size, wide = canvas.place(scene.position), 0.37 * scene.scale, canvas.half_width
    for side in (-1, 1):
        canvas.fill(block(0.05, BEAM - 0.05, 0.01), (WOOD, DARK_WOOD), side * (wide - 0.03), (BEAM + 0.05) / 2)
    canvas.fill(block(2 * wide, 0.03), NIGHT, 0, BEAM - 0.045, opacity=0.25, soft=0.04)
    canvas.fill(block(2 * wide + 0.1, 0.06, 0.012), (WOOD, DARK_WOOD), 0, BEAM)
    canvas.shadow(0.45 * size, x, 0.10, 0.25)

    number, since, until = scene.since(time)
    swing = math.cos(math.pi * since / (since + until)) * (1 if number % 2 else -1)
    rod = (0.35 / scene.tempo - 0.04) / size
    pen = canvas.at(x, BEAM - 0.03, size, turn=0.08 * swing / (size * (rod + 0.7)))
    pen.fill(bar(0, 0, 0, -rod, 0.04), (STEEL, INK))
    reach = 0.27 * swing  # at the end of the swing it is at the rim
    pen.fill(bar(0, -0.5, reach, -0.98, 0.025), INK, y=-rod)
    pen.fill(disc(0.09), lit(STEEL, 1.3), reach, -1.02 - rod)
    dome = join(
        oval(0.25, 0.34).at(0, -0.33),
        wedge((-0.30, -0.8), (0.30, -0.8), (0.2, -0.3), (-0.2, -0.3)),
        block(0.86, 0.10, 0.05).at(0, -0.89),
        melt=0.22,
    )
    light, dark = lit(scene.colour, 1.2)
    pen.fill(dome, (light, dark), y=-rod)
    pen.fill(dome & oval(0.2, 0.7).at(0.36, -0.55, 0.12), dark, y=-rod, opacity=0.5, soft=0.2)
    pen.fill(oval(0.05, 0.26).at(-0.13, -0.42, -0.1), WHITE, y=-rod, opacity=0.45, soft=0.06)
    pen.fill(block(0.66, 0.035).at(0, -0.74), mix(scene.colour, CREAM, 0.4), y=-rod)
    pen.fill(disc(0.075), lit(BRASS), y=-rod)
