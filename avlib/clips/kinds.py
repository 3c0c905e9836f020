"""The eight kinds of event: their sounds and their pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .drawing import (
    BRASS,
    CREAM,
    DARK_WOOD,
    FLOOR,
    INK,
    NIGHT,
    STEEL,
    WHITE,
    WOOD,
    bar,
    block,
    disc,
    join,
    lit,
    mix,
    oval,
    wedge,
)
from .sound import faded, glide, hiss, ring


class Kind(NamedTuple):
    """Sound and picture of one kind of event."""

    lowest: float  # pitch of its largest one, in Hz
    decay: tuple[float, float]  # seconds that the dullest and the brightest ring
    looseness: float  # how uneven its rhythm is, from 0 to 1
    steps: tuple[float, ...]  # its notes, as ratios to the lowest
    note: Callable[..., np.ndarray]  # (scene, pitch, dice, sample_rate) to one note, mono float64 from its onset on
    draw: Callable[..., None]  # (canvas, scene, time) paints it at a moment


# A rubber ball bounces on the ground, below the bar of a hoop at its greatest height. The wait between two impacts is
# the flight under gravity: the longer, the higher and the harder.

_GRAVITY = 8 * 0.35  # stage units / s^2: at one bounce a second it flies 0.35 high


def _ball_note(scene, pitch, dice, sample_rate):
    """A hollow knock: few, nearly harmonic partials that are soon gone."""
    levels = [(0.22 + 0.5 * scene.hue) ** n for n in range(5)]
    decays = [scene.decay / (1 + 0.5 * n) for n in range(5)]
    return ring(pitch, (1, 2.02, 3.08, 4.17, 5.3), levels, decays, sample_rate)


def _draw_ball(canvas, scene, time):
    radius = 0.16 * scene.scale
    pen = canvas.at(canvas.place(scene.position), FLOOR, radius)
    _, since, until = scene.since(time)
    flight = _GRAVITY / 2 * since * until / radius
    high = 2.2 + _GRAVITY / 8 * (1.25 / scene.tempo) ** 2 / radius
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


# A bell swings below a beam; at each end of the swing the clapper strikes its rim. The slower the swing, the longer the
# rod on which it hangs.

_PARTIALS = (0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 3.01, 4.08)  # hum, prime, tierce, quint, nominal, and above
_BEAM = 0.93  # its height on the stage


def _bell_note(scene, pitch, dice, sample_rate):
    """Inharmonic partials as founders tune them, the hum soft and long, the high ones bright and short."""
    dark = 0.25 + 0.5 * scene.hue
    levels = [0.12, 1.0, *(0.75 * dark ** (0.5 + 0.5 * n) for n in range(len(_PARTIALS) - 2))]
    return ring(pitch, _PARTIALS, levels, [scene.decay / (0.6 + 0.4 * ratio) for ratio in _PARTIALS], sample_rate)


def _draw_bell(canvas, scene, time):
    x, size, wide = canvas.place(scene.position), 0.37 * scene.scale, canvas.half_width
    for side in (-1, 1):
        canvas.fill(block(0.05, _BEAM - 0.05, 0.01), (WOOD, DARK_WOOD), side * (wide - 0.03), (_BEAM + 0.05) / 2)
    canvas.fill(block(2 * wide, 0.03), NIGHT, 0, _BEAM - 0.045, opacity=0.25, soft=0.04)
    canvas.fill(block(2 * wide + 0.1, 0.06, 0.012), (WOOD, DARK_WOOD), 0, _BEAM)
    canvas.shadow(0.45 * size, x, 0.10, 0.25)

    number, since, until = scene.since(time)
    swing = math.cos(math.pi * since / (since + until)) * (1 if number % 2 else -1)
    rod = (0.35 / scene.tempo - 0.04) / size
    pen = canvas.at(x, _BEAM - 0.03, size, turn=0.08 * swing / (size * (rod + 0.7)))
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


# A bird on a post opens its beak and chirps; each chirp leaves a note that rises, all at one speed: the quicker it
# sings, the closer they are.

_BEAK, _PERCH = (0.98, 0.72, 0.42), FLOOR + 0.20


def _bird_note(scene, pitch, dice, sample_rate):
    """A chirp: a quick rise onto the note, which is held for a moment, then a fall while it fades."""
    time = np.arange(int((0.05 + 5 * scene.decay) * sample_rate)) / sample_rate
    fading = np.maximum(time - 0.05, 0)
    frequency = pitch * (1 - 0.25 * np.exp(-time / 0.006) - 0.2 * np.minimum(fading / (4 * scene.decay), 1) ** 2)
    overtones = (1, 0.05 + 0.4 * scene.hue, 0.3 * scene.hue**2)
    return faded(glide(frequency, np.exp(-fading / scene.decay), overtones, sample_rate), sample_rate, 0.003, 0.02)


def _draw_bird(canvas, scene, time):
    x, size, facing = canvas.place(scene.position), 0.36 * scene.scale, scene.facing
    canvas.shadow(0.09, x, FLOOR)
    canvas.fill(block(0.09, _PERCH - FLOOR + 0.02, 0.012), (WOOD, DARK_WOOD), x, (_PERCH + FLOOR) / 2)
    canvas.fill(oval(0.052, 0.016), mix(WOOD, CREAM, 0.4), x, _PERCH + 0.01)
    for number, age in scene.around(time, 1.5, 0.0):
        fade = 0.9 * min(1.0, 8 * age) * min(1.0, 2.2 - 1.4 * age)
        drift = facing * (0.5 * size + 0.10 * math.sin(2.2 * age + 0.8 * (number % 3)))
        sign = canvas.at(x + drift, _PERCH + 0.85 * size + 0.30 * age, turn=0.2 * math.sin(3 * age))
        stem, flag = bar(0.022, 0.005, 0.022, 0.085, 0.006), bar(0.022, 0.085, 0.045, 0.065, 0.007)
        sign.fill(join(oval(0.026, 0.020).at(0, 0, 0.4), stem, flag), INK, opacity=fade)

    _, since, _ = scene.since(time)
    sings = max(0.0, 1 - since / (0.08 + 1.5 * scene.decay))
    pen, (light, dark) = canvas.at(x, _PERCH + 0.012 + 0.04 * size * sings, size, facing), lit(scene.colour, 1.1)
    for foot in (-0.06, 0.07):
        pen.fill(bar(foot, 0, foot, 0.12, 0.018), mix(_BEAK, INK, 0.35))
    pen.fill(bar(-0.30, 0.28, -0.68, 0.10, 0.085, 0.05), (scene.colour, dark))
    head = 0.70 + 0.03 * sings
    for turn, colour in ((0.35 * sings, _BEAK), (-0.4 * sings, mix(_BEAK, INK, 0.25))):
        pen.fill(wedge((0, -0.035), (0.24, 0), (0, 0.075), rounding=0.012), colour, 0.37, head, turn + 0.1)
    body = join(oval(0.40, 0.285).at(0, 0.36, 0.12 + 0.1 * sings), disc(0.215).at(0.25, head), melt=0.16)
    pen.fill(body, (light, dark))
    belly = body & oval(0.27, 0.20).at(0.17, 0.25, 0.5)
    pen.fill(belly, mix(scene.colour, CREAM, 0.62), opacity=0.9, soft=0.05)
    wing = join(oval(0.25, 0.135).at(-0.12, 0.38, 0.35), bar(-0.2, 0.33, -0.4, 0.2, 0.07, 0.02), melt=0.05)
    pen.fill(wing, (mix(scene.colour, dark, 0.35), mix(dark, INK, 0.25)), angle=0.12 * sings)
    for radius, colour, dx, dy in ((0.058, WHITE, 0.30, 0.055), (0.04, INK, 0.312, 0.055), (0.014, WHITE, 0.30, 0.07)):
        pen.fill(disc(radius), colour, dx, head + dy)


# Two mallets take turns on a drum, even strokes on the left. The quicker the rhythm, the shorter the sticks; a hard
# stroke is lifted high.

_MEMBRANE = (1.0, 1.594, 2.136, 2.296, 2.653, 2.918, 3.5)  # zeros of Bessel functions: a round skin
_REST = 0.38  # the slope of a mallet that lies on the skin, in radians


def _drum_note(scene, pitch, dice, sample_rate):
    """The modes of a round skin and the short slap of the mallet."""
    levels = [1.0, *(0.7 * (0.3 + 0.5 * scene.hue) ** n for n in range(1, len(_MEMBRANE)))]
    waveform = ring(pitch, _MEMBRANE, levels, [scene.decay / ratio**0.7 for ratio in _MEMBRANE], sample_rate)
    slap = faded(hiss(dice, 0.04, 5 * pitch, 3 * pitch, sample_rate), sample_rate, 0.001, 0.038)
    waveform[: len(slap)] += (0.1 + 0.25 * scene.hue) * slap[: len(waveform)]
    return waveform


def _draw_drum(canvas, scene, time):
    x, size = canvas.place(scene.position), 0.42 * scene.scale
    half, high, rim = 0.44, 0.56, 0.13  # of the drum, in units of its size
    top = FLOOR + 0.05 + high * size
    pen, (light, dark) = canvas.at(x, top, size), lit(scene.colour, 1.1)
    pen.shadow(0.55, y=-high - 0.1, strength=0.5)
    shell = join(block(2 * half, high).at(0, -high / 2), oval(half, rim).at(0, -high))
    pen.fill(shell, (light, dark))
    pen.fill(shell & oval(0.22, high).at(half, -high / 2), dark, opacity=0.45, soft=0.2)
    pen.fill(block(0.05, 0.4, 0.02), WHITE, -0.27, -0.28, opacity=0.35, soft=0.1)
    for i in range(4):  # the cords, in a zigzag
        foot = (i - 1.5) * 0.207
        for end in (-0.1035, 0.1035):
            pen.fill(bar(foot, -1.1 * high, foot + end, -0.16 * high, 0.02), mix(scene.colour, CREAM, 0.75))
    for y in (-high, 0.0):
        band = oval(1.05 * half, 1.2 * rim).at(0, y - 0.05) & block(3 * half, 2 * rim).at(0, y - 0.05 - rim)
        pen.fill(band, lit(BRASS))
    pen.fill(oval(1.05 * half, 1.15 * rim), lit(BRASS, 1.3))
    pen.fill(oval(0.96 * half, rim), (CREAM, mix(CREAM, DARK_WOOD, 0.25)))

    number, _, _ = scene.since(time)
    times, loudness, _ = scene.beats
    stick, head = 0.13 + 0.25 / scene.tempo, 0.032 + 0.05 * size
    for side in (-1, 1):
        last = number if (number % 2 == 0) == (side < 0) else number - 1  # of this mallet's strokes
        age, way = time - times[last], (time - times[last]) / (times[last + 2] - times[last])
        lift = (0.3 + 0.8 * loudness[last + 2]) * 4 * way * (1 - way)
        spot = side * 0.38 * half
        if age < 0.16:  # the skin trembles
            wave = oval(half * (0.12 + 2.2 * age), rim * (0.12 + 2.2 * age))
            pen.fill(wave, mix(DARK_WOOD, CREAM, 0.4), spot, opacity=0.6 * (1 - age / 0.16), soft=0.07)
        hand_x, hand_y = side * stick * math.cos(_REST), stick * math.sin(_REST)
        tip_x, tip_y = hand_x - side * stick * math.cos(lift - _REST), hand_y + stick * math.sin(lift - _REST)
        mallet = canvas.at(x + spot * size, top + head)
        shade = oval(head, head * 0.4).at(tip_x, -head)
        mallet.fill(shade, DARK_WOOD, opacity=0.4 * max(0.0, 1 - 2 * lift), soft=0.02)
        mallet.fill(bar(tip_x, tip_y, hand_x, hand_y, 0.011, 0.014), (mix(WOOD, CREAM, 0.5), WOOD))
        mallet.fill(disc(head), lit(mix(CREAM, WOOD, 0.25), 1.2), tip_x, tip_y)


# A small steam engine runs in place on its rails; each half turn of its wheels is a puff. The smoke drifts at one
# speed: the quicker, the closer the puffs.

_WHEELS = ((-0.32, 0.155), (0.02, 0.155), (0.33, 0.105))  # where, and their radius


def _engine_note(scene, pitch, dice, sample_rate):
    """A gust of steam through a pipe: noise in which the pipe's note and its overtones ring."""
    levels = [(0.2 + 0.45 * scene.hue) ** n for n in range(4)]
    pipe = ring(pitch, (1, 2, 3, 4), levels, [1.3 * scene.decay] * 4, sample_rate)
    bright = 1 + 3 * scene.hue
    gust = hiss(dice, 1.5, pitch * (bright + 0.5), pitch * bright, sample_rate)[: len(pipe)]
    gust *= np.exp(np.arange(len(gust)) / (-scene.decay * sample_rate))
    return faded(pipe + 0.45 * gust, sample_rate, 0.002, 0.02)


def _draw_engine(canvas, scene, time):
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
    for place, radius in _WHEELS:
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
    for place, _ in _WHEELS[:2]:
        pen.fill(disc(0.026), INK, place + crank_x, crank_y)


# A kettle whistles in toots; each lifts the lid and pushes a puff of steam out of the spout. The steam rises at one
# speed: the quicker it toots, the closer the puffs.

_STOVE, _SPOUT = FLOOR + 0.09, (0.60, 0.66)


def _kettle_note(scene, pitch, dice, sample_rate):
    """A breathy whistle, held for a third of the wait, then falling a little while the pressure goes."""
    held = 0.35 / scene.tempo
    time = np.arange(int((held + 6 * scene.decay) * sample_rate)) / sample_rate
    fading = np.maximum(time - held, 0)
    level = np.exp(-fading / scene.decay) * (1 + 0.15 * np.sin(2 * math.pi * 23 * time))
    frequency = pitch * (1 - 0.12 * np.exp(-time / 0.008) - 0.05 * np.minimum(fading / 0.3, 1))
    waveform = glide(frequency, level, (1, 0.04 + 0.45 * scene.hue, 0.4 * scene.hue**2), sample_rate)
    breath = hiss(dice, 1.5, pitch * (1 + 2 * scene.hue), 0.6 * pitch, sample_rate)[: len(level)]
    return faded(waveform + 0.12 * breath * level, sample_rate, 0.004, 0.02)


def _draw_kettle(canvas, scene, time):
    x, size = canvas.place(scene.position), 0.40 * scene.scale
    canvas.shadow(0.42 * size + 0.06, x, FLOOR)
    hob = canvas.at(x, FLOOR)
    hob.fill(block(0.8 * size + 0.06, 0.09, 0.02), (mix(STEEL, CREAM, 0.25), mix(INK, STEEL, 0.4)), y=0.045)
    hob.fill(block(0.86 * size + 0.08, 0.022, 0.01), (mix(INK, STEEL, 0.3), INK), y=0.09)
    hob.fill(block(0.45 * size, 0.03, 0.015), (0.98, 0.80, 0.58), y=0.045, opacity=0.8, soft=0.015)
    for _, age in reversed(scene.around(time, 1.5, 0.0)):
        radius = (0.022 + 0.06 * math.sqrt(age)) * (0.6 + 0.4 * scene.scale)
        drift = scene.facing * (_SPOUT[0] * size + 0.03 + 0.10 * (1 - math.exp(-4 * age)))
        steam = canvas.at(x + drift, _STOVE + _SPOUT[1] * size + 0.05 + 0.26 * age, radius, scene.facing, 0.5 * age)
        puff = join(disc(1.0), disc(0.65).at(-0.6, 0.4), melt=0.5)
        steam.fill(puff, (WHITE, (0.66, 0.68, 0.77)), opacity=0.92 * min(1.0, 1.5 - age), soft=0.4)

    _, since, _ = scene.since(time)
    push = max(0.0, 1 - since / (0.35 / scene.tempo + scene.decay))
    pen, (light, dark) = canvas.at(x, _STOVE + 0.01, size, scene.facing), lit(scene.colour, 1.15)
    pen.fill(oval(0.33, 0.36).outline(0.05) & block(1, 1).at(0, 0.5), (mix(INK, STEEL, 0.3), INK), y=0.56)
    pen.fill(bar(-0.1, 0.93, 0.1, 0.93, 0.04), lit(DARK_WOOD))
    pen.fill(bar(0.28, 0.25, *_SPOUT, 0.12, 0.05), (light, dark))
    pen.fill(bar(-0.03, 0, 0.03, 0.035, 0.055), lit(BRASS), *_SPOUT)
    body = join(oval(0.42, 0.36).at(0, 0.34), block(0.68, 0.2, 0.06).at(0, 0.1), melt=0.1)
    pen.fill(block(0.36, 0.12, 0.05), INK, y=0.64)
    pen.fill(oval(0.22, 0.12) & block(1, 1).at(0, 0.49), (light, scene.colour), 0, 0.66 + 0.1 * push, 0.1 * push)
    pen.fill(disc(0.05), lit(DARK_WOOD), -0.014 * push, 0.80 + 0.1 * push)
    pen.fill(body, (light, dark))
    pen.fill(body & oval(0.25, 0.4).at(0.38, 0.25), dark, opacity=0.45, soft=0.25)
    pen.fill(body & block(1, 0.04).at(0, 0.16), mix(scene.colour, CREAM, 0.55))
    pen.fill(oval(0.06, 0.13).at(-0.22, 0.44, -0.3), WHITE, opacity=0.5, soft=0.07)


# Drops fall from a cloud into a bowl of water; where one lands, rings run out and it plinks. Each is in the air for a
# second and a half: the quicker the rain, the more drops.

_FALL, _CLOUD = 1.5, 0.86  # seconds; height on the stage


def _rain_note(scene, pitch, dice, sample_rate):
    """A bubble rings: one tone that rises as the bubble nears the surface, and brighter ones for a bright bowl."""
    time = np.arange(int(7 * scene.decay * sample_rate)) / sample_rate
    frequency = pitch * (1 + 0.12 * np.maximum(time / scene.decay - 1, 0))
    overtones = (1, 0.05 + 0.5 * scene.hue, 0.5 * scene.hue**2, 0.3 * scene.hue**2)
    return faded(glide(frequency, np.exp(-time / scene.decay), overtones, sample_rate), sample_rate, 0.002, 0.02)


def _draw_rain(canvas, scene, time):
    x, size = canvas.place(scene.position), 0.50 * scene.scale
    half, high, rim, drop_size = 0.44, 0.42, 0.13, 0.085  # of the bowl and of a drop, in units of the size
    water = FLOOR + 0.02 + high * size

    def spot(number):  # where in the bowl a drop lands: spread evenly, never twice in a row at one place
        return (number * 0.618034 % 1 - 0.5) * 1.2 * half, (number * 0.381966 % 1 - 0.5) * 0.7 * rim

    pen, (light, dark) = canvas.at(x, water, size), lit(scene.colour, 1.1)
    pen.shadow(0.4, y=-high - 0.02, strength=0.5)
    pen.fill(wedge((-0.2, 0), (0.2, 0), (0.13, 0.1), (-0.13, 0.1), rounding=0.02), (scene.colour, dark), y=-high - 0.03)
    bowl = oval(1.04 * half, high) & wedge((-1, -1), (1, -1), (1, 0), (-1, 0))
    pen.fill(bowl, (light, dark))
    pen.fill(bowl & oval(0.5 * half, high).at(0.35, -0.04, -0.4), dark, opacity=0.45, soft=0.25)
    pen.fill(oval(0.04, 0.125).at(-0.27, -0.18, 0.45), WHITE, opacity=0.45, soft=0.08)
    pen.fill(oval(1.04 * half, 1.12 * rim), (mix(light, WHITE, 0.35), scene.colour))
    bright, pool = mix(scene.colour, (0.86, 0.93, 0.96), 0.62), oval(0.93 * half, 0.92 * rim)
    pen.fill(pool, (mix(bright, WHITE, 0.2), mix(scene.colour, bright, 0.4)))
    for number, age in scene.around(time, 0.9, 0.0):
        dx, dy = spot(number)
        for late in (0.0, 0.18):
            reach = 0.1 + 0.75 * (age - late)
            wave = oval(reach * half, reach * rim).at(dx, dy).outline(0.025) if age > late else None
            if wave:
                pen.fill(pool & wave, WHITE, opacity=0.85 * max(0.0, 1 - (age - late) / 0.72))
        if age < 0.28:
            jump = 4 * (age / 0.28) * (1 - age / 0.28)
            for side in (-1, 0, 1):
                away, up = side * (0.4 + 3.6 * age) * drop_size, (1.8 + 1.0 * (side == 0)) * jump * drop_size
                pen.fill(disc(0.36 * drop_size), (mix(bright, WHITE, 0.5), scene.colour), dx + away, dy + up)
    tear = join(disc(1.0), wedge((-0.8, 0.55), (0.8, 0.55), (0, 2.3)), melt=0.5)
    for number, age in scene.around(time, 0.0, _FALL):
        dx, dy = spot(number)
        way = 1 + age / _FALL
        fallen = way * (0.5 + 0.5 * way)  # 1 at the moment of contact
        y = _CLOUD + (water + (dy + 0.8 * drop_size) * size - _CLOUD) * fallen
        drop = canvas.at(x + dx * size, y, drop_size * size)
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
    canvas.fill(cloud, ((0.97, 0.97, 0.98), (0.62, 0.65, 0.72)), x + 0.006 * math.sin(1.1 * time), _CLOUD)


# A belt of pins runs past an upright lute, and each pin that passes its one thick string plucks it. The belt runs at
# one speed: the quicker the rhythm, the closer its pins.

_SPEED, _BELT = 0.32, FLOOR + 0.045  # stage units / s; height on the stage


def _string_note(scene, pitch, dice, sample_rate):
    """Many harmonics, a little sharp as those of a stiff string are, the high ones soon gone."""
    numbers = range(1, 19)
    ratios = [n * math.sqrt(1 + 2e-4 * n * n) for n in numbers]
    levels = [abs(math.sin(math.pi * n * 0.36)) * (0.45 + 0.45 * scene.hue) ** n / n**0.8 for n in numbers]
    return ring(pitch, ratios, levels, [scene.decay / n**0.6 for n in numbers], sample_rate)


def _draw_string(canvas, scene, time):
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

    canvas.fill(block(2 * wide + 0.1, 0.03), NIGHT, 0, _BELT - 0.03, opacity=0.25, soft=0.04)
    canvas.fill(block(2 * wide + 0.1, 0.045), (mix(INK, STEEL, 0.5), INK), 0, _BELT)
    canvas.fill(block(2 * wide + 0.1, 0.008), mix(STEEL, WHITE, 0.3), 0, _BELT + 0.019)
    pin = join(wedge((-0.022, 0), (0.022, 0), (0.006, 0.085), (-0.006, 0.085)), disc(0.017).at(0, 0.08), melt=0.015)
    for _, age in scene.around(time, (wide - x) / _SPEED + 0.1, (wide + x) / _SPEED + 0.1):
        canvas.fill(pin, lit(BRASS, 1.3), x + _SPEED * age, _BELT + 0.015)


BY_NAME = {
    "ball": Kind(130.0, (0.035, 0.16), 0.5, (1.0,), _ball_note, _draw_ball),
    "bell": Kind(260.0, (0.25, 1.3), 0.08, (1.0,), _bell_note, _draw_bell),
    "bird": Kind(850.0, (0.035, 0.11), 0.5, (1.0, 1.0, 1.26), _bird_note, _draw_bird),
    "drum": Kind(85.0, (0.06, 0.28), 0.3, (1.0,), _drum_note, _draw_drum),
    "engine": Kind(120.0, (0.045, 0.14), 0.08, (1.0,), _engine_note, _draw_engine),
    "kettle": Kind(560.0, (0.03, 0.16), 0.2, (1.0,), _kettle_note, _draw_kettle),
    "rain": Kind(330.0, (0.03, 0.13), 0.8, (1.0, 1.0, 1.125), _rain_note, _draw_rain),
    "string": Kind(98.0, (0.18, 0.9), 0.15, (1.0,), _string_note, _draw_string),
}
KINDS = tuple(BY_NAME)
