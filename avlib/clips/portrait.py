"""Drawn heads: a friendly face whose mouth opens and whose head moves slowly.

A head's own unit is half the height of its face; x runs to the right, y upwards, and the origin lies in its middle.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from ..settings import Natural, Share, settings
from .drawing import INK, WHITE, Canvas, Colour, Shape, bar, block, disc, hue_colour, join, lit, mix, oval
from .sound import dice

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels; the last row and column lie outside

STYLES = ("short", "long", "curly", "bun", "bald")
_SKINS = ((0.98, 0.86, 0.76), (0.93, 0.73, 0.58), (0.74, 0.52, 0.37), (0.47, 0.31, 0.23))
_HAIRS = ((0.11, 0.09, 0.10), (0.32, 0.20, 0.13), (0.62, 0.34, 0.17), (0.90, 0.76, 0.46), (0.80, 0.80, 0.82))
_IRISES = ((0.30, 0.18, 0.11), (0.24, 0.42, 0.30), (0.22, 0.40, 0.62))
_LIPS, _THROAT, _TONGUE, _BLUSH = (0.72, 0.20, 0.28), (0.17, 0.02, 0.06), (0.58, 0.10, 0.16), (0.95, 0.40, 0.38)
_TOP, _BOTTOM, _SIDE = 1.03, 1.13, 0.94  # of the box around face and ears, with the jaw down and the head tilted
_LIP = -0.43  # height of the upper edge of the mouth, which stays; the lower one moves
_WIDEST, _HIGHEST, _JAW = 0.29, 0.36, 0.1  # half width and height of the mouth, way of the chin


class Pose(NamedTuple):
    """Middle of the head on the stage, tilt in radians, and turn to the side, in head units."""

    x: float
    y: float
    tilt: float
    turn: float


@settings
class Head:
    """A drawn head.

    seed: number of the head; whatever is not given is drawn from it.
    skin: from light to dark. style: of the hair. shade: its colour, from black over brown and blond to grey.
    size: from small to large. x, y: position, from the left and from the bottom.
    glasses: whether it wears them.
    """

    seed: Natural = 0
    skin: Share | None = None
    style: Literal["short", "long", "curly", "bun", "bald"] | None = None
    shade: Share | None = None
    size: Share | None = None
    x: Share | None = None
    y: Share | None = None
    glasses: bool | None = None

    def __post_init__(self):
        draws = dice("head", self.seed).random(8).tolist()
        drawn = {
            "skin": draws[0], "style": STYLES[int(len(STYLES) * draws[1])], "shade": draws[2], "size": draws[3],
            "x": draws[4], "y": draws[5], "glasses": draws[6] < 0.25,
        }  # fmt: skip
        for name, value in drawn.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Name in the table."""
        return f"h{self.seed}"

    @property
    def scale(self) -> float:
        """Half the height of the face, on the stage."""
        return 0.3 + 0.06 * self.size

    def pose(self, seconds: float, seed: int) -> Pose:
        """Return the pose at a time; `seed` decides the way of the head."""
        draws = dice("motion", seed).random(8).tolist()
        waves = [
            math.sin(2 * math.pi * ((0.08 + 0.22 * pace) * seconds + start))
            for pace, start in zip(draws[::2], draws[1::2], strict=True)
        ]
        x = 0.16 * (self.x - 0.5) + 0.1 * self.scale * waves[0]
        y = 0.42 + 0.06 * self.y + 0.06 * self.scale * waves[1]
        return Pose(x, y, 0.07 * waves[2], 0.07 * waves[3])

    def box(self, pose: Pose, size: tuple[int, int]) -> Box:
        """Return the box around face and ears, in a picture of `size` (height, width); it leaves no part out."""
        height, width = size
        unit = min(size)
        column, row = width / 2 + pose.x * unit, (0.5 - pose.y) * unit + height / 2
        reach = self.scale * unit
        left, right = math.floor(column - _SIDE * reach), math.ceil(column + _SIDE * reach)
        upper, lower = math.floor(row - _TOP * reach), math.ceil(row + _BOTTOM * reach)
        return max(left, 0), max(upper, 0), min(right, width), min(lower, height)

    def paint(self, canvas: Canvas, pose: Pose, opening: float, width: float, shut: bool = False) -> None:
        """Paint the head.

        Args:
            canvas: with the background.
            pose: of the head.
            opening: of the mouth, from 0 (closed) to 1.
            width: of the mouth; 1 is at rest.
            shut: whether the eyes are shut.
        """
        skin, hair = _between(_SKINS, self.skin), _between(_HAIRS, self.shade)
        clothes = mix(hue_colour(dice("clothes", self.seed).random()), WHITE, 0.1)
        body = canvas.at(0.6 * pose.x, 0.44 + 0.3 * (pose.y - 0.45), self.scale)
        head = canvas.at(pose.x, pose.y, self.scale, turn=pose.tilt)
        if self.style == "long":
            head.fill(block(1.86, 2.1, 0.6), lit(hair, 0.6), 0, -0.02)
        elif self.style == "bun":
            head.fill(disc(0.32), lit(hair, 0.6), 0, 1.1)
        body.fill(oval(1.5, 1.25), lit(clothes, 0.6), 0, -2.1)
        head.fill(
            block(0.92, 0.8, 0.2), lit(mix(clothes, INK, 0.25), 0.5), 0, -1.12
        )  # a collar: no skin below the chin
        for side in (-1, 1):
            head.fill(oval(0.13, 0.2), lit(mix(skin, INK, 0.08), 0.5), side * 0.77 - 0.4 * pose.turn, -0.02)
        chin = oval(0.5, 0.42).at(0.3 * pose.turn, -0.58 - _JAW * opening)
        head.fill(join(oval(0.75, 0.97).at(0, 0.03), chin, melt=0.12), lit(skin, 0.6))
        self._hair(head, lit(hair, 0.6))
        self._eyes(head, pose.turn, skin, mix(hair, INK, 0.4), shut)
        head.fill(oval(0.1, 0.085), mix(skin, INK, 0.3), 1.2 * pose.turn, -0.2, soft=0.05)
        head.fill(oval(0.1, 0.085), mix(skin, WHITE, 0.14), 1.2 * pose.turn, -0.17, soft=0.03)
        for side in (-1, 1):
            head.fill(oval(0.17, 0.12), _BLUSH, side * 0.45 + pose.turn, -0.26, opacity=0.25, soft=0.14)
        _mouth(head, pose.turn, mix(skin, _LIPS, 0.6), opening, width)

    def _hair(self, head: Canvas, paint) -> None:
        if self.style == "bald":
            return
        cap, face = oval(0.84, 0.96).at(0, 0.16), oval(0.68, 0.74).at(0.12, -0.14)
        above = block(2.0, 2.0).at(0, 1.0)
        shapes = [_without(cap & above, face)]
        if self.style == "curly":
            angles = [math.pi * (0.02 + 0.16 * i) for i in range(7)]
            shapes += [disc(0.27).at(0.72 * math.cos(a), 0.3 + 0.68 * math.sin(a)) for a in angles]
        for shape in shapes:
            head.fill(shape, paint)

    def _eyes(self, head: Canvas, turn: float, skin: Colour, brow: Colour, shut: bool) -> None:
        iris = _IRISES[int(3 * dice("iris", self.seed).random())]
        for side in (-1, 1):
            x = side * 0.3 + turn
            if shut:
                head.fill(bar(-0.13, 0, 0.13, 0, 0.022), mix(skin, INK, 0.7), x, 0.09)
            else:
                head.fill(oval(0.15, 0.135), WHITE, x, 0.12)
                head.fill(disc(0.11), iris, x, 0.12)
                head.fill(disc(0.06), INK, x, 0.12)
                head.fill(disc(0.032), WHITE, x + 0.035, 0.16)
            head.fill(
                join(bar(-side * 0.14, -0.02, 0, 0.03, 0.026), bar(0, 0.03, side * 0.16, -0.035, 0.028, 0.018)),
                brow,
                x,
                0.35,
            )
            if self.glasses:
                head.fill(oval(0.23, 0.2).outline(0.035), INK, x, 0.11)
        if self.glasses:
            head.fill(bar(-0.07, 0, 0.07, 0, 0.018), INK, turn, 0.13)


def mouth_opening(faces: UInt8[np.ndarray, "n height width 3"]) -> Float64[np.ndarray, " n"]:
    """Measure the opening of the mouth in faces that were cut out along their boxes.

    The mouth is dark in green, the skin around it is not: the greatest height of the dark region is measured, with
    fractions of pixels.

    Returns:
        A share of the height of the box; it rises linearly with `Truth.opening`.
    """
    green = faces[..., 1].astype(np.float64)
    _, height, width = green.shape
    rows, columns = (slice(round(a * n), round(b * n)) for a, b, n in ((0.6, 0.9, height), (0.3, 0.7, width)))
    cheeks = green[:, round(0.58 * height) : round(0.68 * height), round(0.2 * width) : round(0.8 * width)]
    skin = np.quantile(cheeks, 0.7, axis=(1, 2))[:, None, None]
    dark = np.clip((0.62 * skin - green[:, rows, columns]) / (0.25 * skin), 0, 1).sum(1)
    across = max(round(0.06 * width), 1)
    sums = np.cumsum(np.pad(dark, ((0, 0), (1, 0))), axis=1)
    return (sums[:, across:] - sums[:, :-across]).max(1) / (across * height)


def _mouth(head: Canvas, x: float, lips: Colour, opening: float, width: float) -> None:
    across, up = _WIDEST * width, max(0.5 * _HIGHEST * opening, 0.008)
    y = _LIP - up
    for side in (-1, 1):  # a smile
        head.fill(bar(0, 0, side * 0.08, 0.075, 0.024, 0.015), mix(lips, INK, 0.3), x + side * (across + 0.02), y)
    head.fill(oval(across + 0.055, up + 0.06), lit(lips, 0.4), x, y)
    inside = oval(across, up)
    head.fill(inside, _THROAT, x, y)
    if up > 0.06:
        head.fill(oval(0.62 * across, 0.5 * up).at(0, -0.6 * up) & inside, _TONGUE, x, y)


def _between(colours: tuple[Colour, ...], share: float) -> Colour:
    step = min(int(share * (len(colours) - 1)), len(colours) - 2)
    return mix(colours[step], colours[step + 1], share * (len(colours) - 1) - step)


def _without(shape: Shape, other: Shape) -> Shape:
    return Shape(shape.box, lambda x, y: np.maximum(shape.distance(x, y), -other.distance(x, y)))
