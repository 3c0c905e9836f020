"""The background of a scene and silent movers, independent of the kind.

All colours here are pale or greyish; only the sounding thing is brightly coloured.
"""

from __future__ import annotations

import math

import numpy as np

from .drawing import WHITE, Canvas, Colour, Shape, bar, block, disc, join, lit, mix, oval, wedge

# sky above, sky below, far, near, ground behind, ground in front
_PALETTES = (
    ((.56, .74, .84), (.95, .94, .86), (.66, .77, .77), (.50, .66, .61), (.78, .79, .63), (.60, .61, .46)),
    ((.44, .48, .66), (.97, .82, .74), (.68, .59, .68), (.50, .46, .58), (.70, .62, .61), (.46, .42, .49)),
    ((.64, .82, .82), (.96, .96, .87), (.62, .76, .66), (.47, .63, .51), (.69, .77, .57), (.49, .58, .41)),
    ((.24, .31, .45), (.57, .60, .68), (.37, .43, .53), (.27, .34, .44), (.42, .48, .51), (.26, .31, .36)),
    ((.90, .80, .72), (.98, .94, .86), (.84, .73, .66), (.71, .60, .54), (.83, .75, .65), (.62, .54, .48)),
    ((.50, .66, .71), (.84, .90, .88), (.52, .66, .69), (.38, .53, .57), (.61, .69, .65), (.40, .49, .48)),
)  # fmt: skip


class Backdrop:
    """The background of one scene, drawn from `dice`."""

    def __init__(self, dice: np.random.Generator):
        bright = 0.88 + 0.16 * dice.random()
        palette = _PALETTES[int(dice.random() * len(_PALETTES))]
        self.palette = [tuple(bright * part for part in colour) for colour in palette]
        self.paint = (_hills, _sea, _room, _town)[int(dice.random() * 4)]
        self.horizon = 0.33 + 0.1 * dice.random()
        self.draws = dice.random(24).tolist()
        things = (_butterfly, _pinwheel, _balloon, _balloon if self.paint is _room else _cloud)
        count = 1 + int(dice.random() * 2.5)
        self.moving = [(things[int(dice.random() * 4)], dice.random(5).tolist()) for _ in range(count)]

    def still(self, size: tuple[int, int]) -> Canvas:
        """Paint the still part on a canvas of `size` (height, width) in pixels."""
        canvas = Canvas(size)
        above, below, _, _, behind, front = (np.array(colour, np.float32)[:, None, None] for colour in self.palette)
        sky = np.minimum(np.maximum((canvas.y - self.horizon) / (1 - self.horizon), 0), 1)
        ground = np.minimum(np.maximum((self.horizon - canvas.y) / self.horizon, 0), 1)
        high, low = below + (above - below) * sky, behind + (front - behind) * ground
        canvas.pixels[:] = np.where(canvas.y > self.horizon, high, low)
        self.paint(canvas, self)
        across = canvas.x / canvas.half_width
        canvas.pixels *= 1.02 - (0.10 * across * across + 0.16 * (canvas.y - 0.55) * (canvas.y - 0.55))
        return canvas

    def move(self, canvas: Canvas, time: float) -> None:
        """Paint the moving things at `time` (seconds)."""
        for thing, draws in self.moving:
            thing(canvas, self, draws, time)


def _ridge(canvas: Canvas, bumps: list[tuple[float, float, float]], base: float, paint) -> None:
    """Paint a skyline: the highest of smooth bumps (centre, half width, height) above `base`."""
    rise = np.full_like(canvas.x, base)
    for centre, half, height in bumps:
        slope = (canvas.x - centre) / half
        slope = np.maximum(1 - slope * slope, 0)
        rise = np.maximum(rise, base + height * slope * slope)
    box = (-canvas.half_width, canvas.half_width, base, base + max(height for _, _, height in bumps))
    canvas.fill(Shape(box, lambda x, y: np.maximum(y - rise[: len(x)], base - y)), paint)


def _hills(canvas: Canvas, place: Backdrop) -> None:
    _, below, far, near, _, _ = place.palette
    _sun(canvas, place)
    _tufts(canvas, place)
    for row, (colour, height) in enumerate(((mix(far, below, 0.35), 0.27), (near, 0.15))):
        bumps = []
        for i, draw in enumerate(place.draws[4 * row : 4 * row + 4]):
            centre = (0.5 * i - 1 + 0.4 * draw) * canvas.half_width
            bumps.append((centre, 0.55 + 0.3 * place.draws[8 + i], height * (0.6 + 0.4 * draw)))
        _ridge(canvas, bumps, place.horizon, (colour, mix(colour, below, 0.45)))


def _sea(canvas: Canvas, place: Backdrop) -> None:
    above, below, far, near, behind, _ = place.palette
    _sun(canvas, place)
    wide = 2 * canvas.half_width
    island = ((place.draws[4] - 0.5) * wide, 0.3 + 0.2 * place.draws[5], 0.09)
    _ridge(canvas, [island], place.horizon, mix(far, below, 0.3))
    canvas.fill(block(wide, 0.13), (mix(above, near, 0.35), mix(far, WHITE, 0.25)), 0, place.horizon - 0.06)
    for i in range(5):
        x, length = (place.draws[6 + i] - 0.5) * wide, 0.05 + 0.08 * place.draws[12 + i]
        canvas.fill(bar(-length, 0, length, 0, 0.003), WHITE, x, place.horizon - 0.02 - 0.018 * i, opacity=0.45)
    canvas.fill(bar(-wide, 0, wide, 0, 0.008), mix(behind, WHITE, 0.5), 0, place.horizon - 0.125, opacity=0.7)


def _room(canvas: Canvas, place: Backdrop) -> None:
    above, below, far, near, behind, front = place.palette
    draws, wide, horizon = place.draws, 2 * canvas.half_width, place.horizon
    wall = mix(mix(far, below, 0.6), WHITE, 0.1)
    canvas.fill(block(wide, canvas.top - horizon), (wall, mix(wall, far, 0.35)), 0, (canvas.top + horizon) / 2)
    x, y = (0.16 + 0.2 * draws[0]) * wide * (1 if draws[1] < 0.5 else -1), 0.72 + 0.04 * draws[2]
    canvas.fill(block(0.36, 0.40, 0.02), mix(WHITE, below, 0.3), x, y)
    canvas.fill(block(0.31, 0.35, 0.01), (mix(above, WHITE, 0.2), mix(below, WHITE, 0.2)), x, y)
    canvas.fill(oval(0.16, 0.09).at(0, -0.13), mix(near, below, 0.4), x, y)
    canvas.fill(join(block(0.015, 0.36), block(0.32, 0.015)), mix(WHITE, below, 0.3), x, y)
    canvas.fill(block(0.40, 0.025, 0.01), mix(WHITE, below, 0.2), x, y - 0.21)
    frame = 0.10 + 0.06 * draws[3]
    canvas.fill(block(frame + 0.03, frame * 1.3, 0.008), mix(near, behind, 0.3), -x * 0.9, y)
    canvas.fill(block(frame, frame * 1.3 - 0.03), (mix(below, WHITE, 0.4), far), -x * 0.9, y)
    canvas.fill(block(wide + 0.1, 0.035), mix(wall, WHITE, 0.35), 0, horizon + 0.015)
    for i in range(-6, 7):  # floorboards run towards a point behind the wall
        foot = i * 0.36
        canvas.fill(bar(0.45 * foot, 0, foot, -horizon - 0.02, 0.002, 0.005), front, 0, horizon - 0.01, opacity=0.35)
    light = wedge((-0.05, 0), (-0.25, -0.2), (0.14, -0.2), (0.25, 0))
    canvas.fill(light, WHITE, x, horizon - 0.04, opacity=0.16, soft=0.04)


def _town(canvas: Canvas, place: Backdrop) -> None:
    _, below, far, near, _, _ = place.palette
    _sun(canvas, place)
    _tufts(canvas, place)
    wide, count = 2 * canvas.half_width, 7
    for row, colour in enumerate((mix(far, below, 0.5), mix(near, below, 0.3))):
        for i in range(count):
            draw = place.draws[(5 * row + i) % 20 + 2]
            x, width = ((i + 0.5 * row + 0.3 * draw) / count - 0.5) * wide, (0.07 + 0.07 * draw) * wide
            height = (0.24, 0.13)[row] * (0.5 + place.draws[(7 * i + row) % 24])
            canvas.fill(block(width, height), (colour, mix(colour, below, 0.4)), x, place.horizon + height / 2)
            if i % 2 == row:
                roof = wedge((-width / 2, 0), (width / 2, 0), (0, 0.05))
                canvas.fill(roof, colour, x, place.horizon + height)


def _tufts(canvas: Canvas, place: Backdrop) -> None:
    colour = mix(place.palette[3], place.palette[5], 0.6)
    for i in range(7):
        x, away = (place.draws[3 * i] - 0.5) * 2 * canvas.half_width, 0.05 + 0.8 * place.draws[3 * i + 1]
        y = away * (place.horizon - 0.05)
        tall = 0.045 * (1.3 - y / place.horizon)
        for lean in (-0.5, 0.0, 0.5):
            canvas.fill(bar(0, 0, lean * tall, tall * (1 - 0.3 * abs(lean)), 0.006, 0.001), colour, x, y, opacity=0.7)


def _sun(canvas: Canvas, place: Backdrop) -> None:
    x, y = (place.draws[20] - 0.5) * 1.5 * canvas.half_width, 0.68 + 0.2 * place.draws[21]
    glow = mix(place.palette[1], WHITE, 0.5)
    canvas.fill(disc(0.13), glow, x, y, opacity=0.35, soft=0.12)
    canvas.fill(disc(0.055), mix(glow, WHITE, 0.4), x, y, opacity=0.9)


def _greyish(place: Backdrop, draw: float) -> Colour:
    tint = ((0.66, 0.52, 0.49), (0.50, 0.58, 0.62), (0.56, 0.60, 0.50), (0.83, 0.78, 0.70))[int(draw * 4)]
    return mix(tint, place.palette[1], 0.15)


def _cloud(canvas: Canvas, place: Backdrop, draws: list[float], time: float) -> None:
    wide = 2 * canvas.half_width + 0.5
    x = (draws[0] * wide + (0.03 + 0.06 * draws[1]) * time) % wide - wide / 2
    puff = join(oval(0.15, 0.035).at(0, -0.01), disc(0.055).at(-0.03, 0.02), disc(0.04).at(0.05, 0.01), melt=0.03)
    canvas.fill(puff, (WHITE, mix(place.palette[1], WHITE, 0.4)), x, 0.78 + 0.14 * draws[2], opacity=0.75)


def _butterfly(canvas: Canvas, place: Backdrop, draws: list[float], time: float) -> None:
    turn = 2 * math.pi * (draws[0] + (0.05 + 0.05 * draws[1]) * time)
    x = canvas.half_width * (0.75 * math.sin(turn) + 0.12 * math.sin(3.1 * turn))
    y = 0.58 + 0.14 * math.sin(1.7 * turn + 6 * draws[2]) + 0.05 * math.sin(9 * turn)
    spread = 0.35 + 0.65 * abs(math.sin(2 * math.pi * (2.5 + 2 * draws[1]) * time + draws[4]))
    colour = _greyish(place, draws[3])
    fore, hind = oval(0.030 * spread, 0.030), oval(0.02 * spread, 0.02)
    for side in (-1, 1):
        wing = join(fore.at(side * 0.026 * spread, 0.014), hind.at(side * 0.02 * spread, -0.022))
        canvas.fill(wing, lit(colour), x, y, 0.25)
    canvas.fill(bar(0, -0.03, 0, 0.03, 0.004), (0.25, 0.24, 0.28), x, y, 0.25)


def _balloon(canvas: Canvas, place: Backdrop, draws: list[float], time: float) -> None:
    high = canvas.top - 0.3 + 0.5
    y = 0.25 + (draws[0] * high + (0.03 + 0.05 * draws[1]) * time) % high
    x = (draws[2] - 0.5) * 1.8 * canvas.half_width + 0.03 * math.sin(1.3 * time + 6 * draws[1])
    canvas.fill(bar(0, -0.06, 0.012 * math.sin(2 * time), -0.17, 0.003), (0.45, 0.43, 0.45), x, y)
    balloon = join(oval(0.05, 0.06), wedge((-0.01, -0.07), (0.01, -0.07), (0, -0.05)), melt=0.01)
    canvas.fill(balloon, lit(_greyish(place, draws[3])), x, y)
    canvas.fill(oval(0.014, 0.01), WHITE, x - 0.02, y + 0.025, 0.6, opacity=0.5, soft=0.014)


def _pinwheel(canvas: Canvas, place: Backdrop, draws: list[float], time: float) -> None:
    x, y = (draws[0] - 0.5) * 1.8 * canvas.half_width, place.horizon + 0.1 + 0.08 * draws[1]
    canvas.fill(bar(0, 0, 0, place.horizon - 0.1 - y, 0.006), (0.55, 0.50, 0.47), x, y)
    colour, turn = _greyish(place, draws[2]), 6.3 * draws[3] + (1.5 + 3 * draws[4]) * time
    sail = wedge((0, 0), (0.075, 0.0), (0.05, 0.045))
    for i in range(4):
        canvas.fill(sail, lit(mix(colour, WHITE, 0.3 * (i % 2))), x, y, turn + i * math.pi / 2)
    canvas.fill(disc(0.011), (0.35, 0.33, 0.36), x, y)
