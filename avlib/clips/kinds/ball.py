"""A rubber ball bounces on the ground, below the bar of a hoop that is as high as it may fly.

The wait between two impacts is the flight, and gravity makes the flight: the longer, the higher and the harder.
"""

import math

from ..colours import BRASS, DARK_WOOD, WHITE, lit, mix
from ..picture import FLOOR, bar, oval
from ..sound import ring

LOWEST, DECAY, LOOSENESS, STEPS = 130.0, (0.035, 0.16), 0.5, (1.0,)
GRAVITY = 8 * 0.35  # stage units / s^2: at one bounce a second it flies 0.35 high


def note(scene, pitch, dice, sample_rate):
    """A hollow knock: few, nearly harmonic partials that are soon gone."""
    levels = [(0.22 + 0.5 * scene.hue) ** n for n in range(5)]
    decays = [scene.decay / (1 + 0.5 * n) for n in range(5)]
    return ring(pitch, (1, 2.02, 3.08, 4.17, 5.3), levels, decays, sample_rate)


def draw(canvas, scene, time):
    """The hoop, the shadow below the ball, and the ball, squashed while it touches the ground."""
    radius = 0.16 * scene.scale
    pen = canvas.at(canvas.place(scene.position), FLOOR, radius)
    _, since, until = scene.since(time)
    flight = GRAVITY / 2 * since * until / radius
    high = 2.2 + GRAVITY / 8 * (1.25 / scene.tempo) ** 2 / radius
    for side in (-1.22, 1.22):
        pen.shadow(0.35, side, strength=0.3)
        pen.fill(bar(0, 0, 0, high, 0.08), (BRASS, DARK_WOOD), side)
    squash = 0.24 * max(0.0, 1 - min(since, until) / 0.045)
    across, up = 1 + 0.6 * squash, 1 - squash
    pen.shadow(across + 0.05 * flight, strength=0.5 / (1 + 0.4 * flight))
    y, (light, dark) = up + flight, lit(scene.colour, 1.2)
    body = oval(across, up)
    pen.fill(body, (light, dark), y=y)
    stripe = body & oval(0.3 * across, 1.3 * up).at(0.12, 0.0, 0.5 * math.sin(0.7 * time))
    pen.fill(stripe, (mix(light, WHITE, 0.6), mix(scene.colour, WHITE, 0.45)), y=y)
    pen.fill(body & oval(1.25, 1.25).at(0.3, 0.35).outline(0.35), dark, y=y, opacity=0.35, soft=0.4)
    pen.fill(oval(0.3, 0.2).at(-0.38 * across, 0.42 * up, 0.6), WHITE, y=y, opacity=0.6, soft=0.3)
    pen.fill(bar(-1.22, 0, 1.22, 0, 0.10), lit(BRASS), y=high)
