"""Two mallets take turns on a drum; what they strike sounds at once.

A long mallet takes its time: the quicker the rhythm, the shorter the sticks. A hard stroke is lifted high.
"""

import math

from ..colours import BRASS, CREAM, DARK_WOOD, WHITE, WOOD, lit, mix
from ..picture import FLOOR, bar, block, disc, join, oval
from ..sound import faded, hiss, ring

LOWEST, DECAY, LOOSENESS, STEPS = 85.0, (0.06, 0.28), 0.3, (1.0,)
MEMBRANE = (1.0, 1.594, 2.136, 2.296, 2.653, 2.918, 3.5)  # zeros of Bessel functions: a round skin
HALF, HIGH, RIM = 0.44, 0.56, 0.13  # of the drum, in units of its size
REST = 0.38  # the slope of a mallet that lies on the skin, in radians


def note(scene, pitch, dice, sample_rate):
    """The modes of a round skin and the short slap of the mallet."""
    levels = [1.0, *(0.7 * (0.3 + 0.5 * scene.hue) ** n for n in range(1, len(MEMBRANE)))]
    waveform = ring(pitch, MEMBRANE, levels, [scene.decay / ratio**0.7 for ratio in MEMBRANE], sample_rate)
    slap = faded(hiss(dice, 0.04, 5 * pitch, 3 * pitch, sample_rate), sample_rate, 0.001, 0.038)
    waveform[: len(slap)] += (0.1 + 0.25 * scene.hue) * slap[: len(waveform)]
    return waveform


def draw(canvas, scene, time):
    """The drum, its skin, and one mallet on each side; even strokes are the left one's."""
    x, size = canvas.place(scene.position), 0.42 * scene.scale
    top = FLOOR + 0.05 + HIGH * size
    pen, (light, dark) = canvas.at(x, top, size), lit(scene.colour, 1.1)
    pen.shadow(0.55, y=-HIGH - 0.1, strength=0.5)
    shell = join(block(2 * HALF, HIGH).at(0, -HIGH / 2), oval(HALF, RIM).at(0, -HIGH))
    pen.fill(shell, (light, dark))
    pen.fill(shell & oval(0.22, HIGH).at(HALF, -HIGH / 2), dark, opacity=0.45, soft=0.2)
    pen.fill(block(0.05, 0.4, 0.02), WHITE, -0.27, -0.28, opacity=0.35, soft=0.1)
    for i in range(4):  # the cords, in a zigzag
        foot = (i - 1.5) * 0.207
        for end in (-0.1035, 0.1035):
            pen.fill(bar(foot, -1.1 * HIGH, foot + end, -0.16 * HIGH, 0.02), mix(scene.colour, CREAM, 0.75))
    for y in (-HIGH, 0.0):
        band = oval(1.05 * HALF, 1.2 * RIM).at(0, y - 0.05) & block(3 * HALF, 2 * RIM).at(0, y - 0.05 - RIM)
        pen.fill(band, lit(BRASS))
    pen.fill(oval(1.05 * HALF, 1.15 * RIM), lit(BRASS, 1.3))
    pen.fill(oval(0.96 * HALF, RIM), (CREAM, mix(CREAM, DARK_WOOD, 0.25)))

    number, _, _ = scene.since(time)
    times, loudness, _ = scene.beats
    stick, head = 0.13 + 0.25 / scene.tempo, 0.032 + 0.05 * size
    for side in (-1, 1):
        last = number if (number % 2 == 0) == (side < 0) else number - 1  # of this mallet's strokes
        age, way = time - times[last], (time - times[last]) / (times[last + 2] - times[last])
        lift = (0.3 + 0.8 * loudness[last + 2]) * 4 * way * (1 - way)
        spot = side * 0.38 * HALF
        if age < 0.16:  # the skin trembles
            wave = oval(HALF * (0.12 + 2.2 * age), RIM * (0.12 + 2.2 * age))
            pen.fill(wave, mix(DARK_WOOD, CREAM, 0.4), spot, opacity=0.6 * (1 - age / 0.16), soft=0.07)
        hand_x, hand_y = side * stick * math.cos(REST), stick * math.sin(REST)
        tip_x, tip_y = hand_x - side * stick * math.cos(lift - REST), hand_y + stick * math.sin(lift - REST)
        mallet = canvas.at(x + spot * size, top + head)
        shade = oval(head, head * 0.4).at(tip_x, -head)
        mallet.fill(shade, DARK_WOOD, opacity=0.4 * max(0.0, 1 - 2 * lift), soft=0.02)
        mallet.fill(bar(tip_x, tip_y, hand_x, hand_y, 0.011, 0.014), (mix(WOOD, CREAM, 0.5), WOOD))
        mallet.fill(disc(head), lit(mix(CREAM, WOOD, 0.25), 1.2), tip_x, tip_y)
