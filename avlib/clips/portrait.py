"""Drawn heads: a friendly face whose mouth opens and whose head moves slowly.

A head's own unit is half the height of its face; x runs to the right, y upwards, and the origin lies in its middle.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8

from ..settings import Natural, Share, settings
from .drawing import INK, WHITE, Canvas, Colour, Paint, Shape, bar, block, disc, hue_colour, join, lit, mix, oval
from .sound import dice

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels; the last row and column lie outside
Pose = tuple[float, float, float, float]  # x and y on the stage, tilt in radians, turn to the side in head units
STYLES = ("short", "long", "curly", "bun", "bald")
_SKINS = ((0.98, 0.86, 0.76), (0.93, 0.73, 0.58), (0.74, 0.52, 0.37), (0.47, 0.31, 0.23))
_HAIRS = ((0.11, 0.09, 0.10), (0.32, 0.20, 0.13), (0.62, 0.34, 0.17), (0.90, 0.76, 0.46), (0.80, 0.80, 0.82))
_IRISES = ((0.30, 0.18, 0.11), (0.24, 0.42, 0.30), (0.22, 0.40, 0.62))
_LIPS, _THROAT, _TONGUE, _BLUSH = (0.72, 0.20, 0.28), (0.17, 0.02, 0.06), (0.54, 0.06, 0.13), (0.95, 0.40, 0.38)
_TOP, _BOTTOM, _SIDE = 1.03, 1.13, 0.94  # of the box around face and ears, with the jaw down and the head tilted
# Upper edge of the mouth, which stays; half its width and its whole height, open; way of the chin.
_LIP, _WIDEST, _HIGHEST, _JAW = -0.43, 0.29, 0.36, 0.1


@settings
class Head:
    """A drawn head.

    seed: number of the head; whatever is not given is drawn from it.
    skin: from light to dark. style: of the hair. shade: its colour, from black over brown and blond to grey.
    size: from small to large. x, y: position, from the left and from the bottom.
    """

    seed: Natural = 0
    skin: Share | None = None
    style: Literal["short", "long", "curly", "bun", "bald"] | None = None
    shade: Share | None = None
    size: Share | None = None
    x: Share | None = None
    y: Share | None = None

    def __post_init__(self):
        style, *draws = dice("head", self.seed).random(6).tolist()
        drawn = zip(("style", "skin", "shade", "size", "x", "y"), (STYLES[int(5 * style)], *draws), strict=True)
        for name, value in drawn:
            object.__setattr__(self, name, value if getattr(self, name) is None else getattr(self, name))

    @property
    def scale(self) -> float:
        """Half the height of the face, on the stage."""
        return 0.3 + 0.06 * self.size

    def pose(self, seconds: float, seed: int) -> Pose:
        """Return the pose at a time; `seed` decides the way of the head."""
        draws = dice("motion", seed).random((4, 2)).tolist()
        waves = [math.sin(2 * math.pi * ((0.08 + 0.22 * pace) * seconds + start)) for pace, start in draws]
        x = 0.16 * (self.x - 0.5) + 0.1 * self.scale * waves[0]
        y = 0.42 + 0.06 * self.y + 0.06 * self.scale * waves[1]
        return x, y, 0.07 * waves[2], 0.07 * waves[3]

    def box(self, pose: Pose, size: tuple[int, int]) -> Box:
        """Return the box around face and ears, in a picture of `size` (height, width); it leaves no part out."""
        height, width = size
        reach = self.scale * min(size)
        column, row = width / 2 + pose[0] * min(size), height / 2 + (0.5 - pose[1]) * min(size)
        left, right = math.floor(column - _SIDE * reach), math.ceil(column + _SIDE * reach)
        upper, lower = math.floor(row - _TOP * reach), math.ceil(row + _BOTTOM * reach)
        return max(left, 0), max(upper, 0), min(right, width), min(lower, height)

    def paint(self, canvas: Canvas, pose: Pose, opening: float, width: float, shut: bool = False) -> None:
        """Paint the head, its mouth so far open (0 to 1) and so wide (1 at rest), its eyes shut or not."""
        skin, hair = _between(_SKINS, self.skin), _between(_HAIRS, self.shade)
        clothes = mix(hue_colour(dice("clothes", self.seed).random()), WHITE, 0.1)
        x, y, tilt, turn = pose
        body = canvas.at(0.6 * x, 0.44 + 0.3 * (y - 0.45), self.scale)
        head = canvas.at(x, y, self.scale, turn=tilt)
        if self.style == "long":
            head.fill(block(1.86, 2.1, 0.6), lit(hair, 0.6), 0, -0.02)
        elif self.style == "bun":
            head.fill(disc(0.32), lit(hair, 0.6), 0, 1.1)
        body.fill(oval(1.5, 1.25), lit(clothes, 0.6), 0, -2.1)
        collar = mix(clothes, INK, 0.25)  # a high one: no skin outside of the box
        head.fill(block(0.92, 0.8, 0.2), lit(collar, 0.5), 0, -1.12)
        for side in (-1, 1):
            head.fill(oval(0.13, 0.2), lit(mix(skin, INK, 0.08), 0.5), side * 0.77 - 0.4 * turn, -0.02)
        chin = oval(0.5, 0.42).at(0.3 * turn, -0.58 - _JAW * opening)
        head.fill(join(oval(0.75, 0.97).at(0, 0.03), chin, melt=0.12), lit(skin, 0.6))
        self._hair(head, lit(hair, 0.6))
        self._eyes(head, turn, skin, mix(hair, INK, 0.4), shut)
        head.fill(oval(0.1, 0.085), mix(skin, INK, 0.3), 1.2 * turn, -0.2, soft=0.05)
        head.fill(oval(0.1, 0.085), mix(skin, WHITE, 0.14), 1.2 * turn, -0.17, soft=0.03)
        for side in (-1, 1):
            head.fill(oval(0.17, 0.12), _BLUSH, side * 0.45 + turn, -0.26, opacity=0.25, soft=0.14)
        _mouth(head, turn, mix(skin, _LIPS, 0.45), opening, width)

    def _hair(self, head: Canvas, paint: Paint) -> None:
        if self.style == "bald":
            return
        cap, face = oval(0.84, 0.96).at(0, 0.16) & block(2, 2).at(0, 1), oval(0.68, 0.74).at(0.12, -0.14)
        head.fill(Shape(cap.box, lambda x, y: np.maximum(cap.distance(x, y), -face.distance(x, y))), paint)
        if self.style == "curly":
            for angle in (math.pi * (0.02 + 0.16 * i) for i in range(7)):
                head.fill(disc(0.27), paint, 0.72 * math.cos(angle), 0.3 + 0.68 * math.sin(angle))

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
            arch = join(bar(side * -0.14, -0.02, 0, 0.03, 0.026), bar(0, 0.03, side * 0.16, -0.035, 0.028, 0.018))
            head.fill(arch, brow, x, 0.35)


def mouth_opening(faces: UInt8[np.ndarray, "n height width 3"]) -> Float64[np.ndarray, " n"]:
    """Measure the opening of the mouth in faces that were cut out along their boxes.

    The mouth is dark in green, the skin around it is not. The greatest height of the dark region is returned, as a
    share of the height of the face; it rises linearly with `Truth.opening`.
    """
    green = faces[..., 1].astype(np.float64)
    _, height, width = green.shape
    rows, columns = (slice(round(a * n), round(b * n)) for a, b, n in ((0.6, 0.9, height), (0.3, 0.7, width)))
    cheeks = green[:, round(0.58 * height) : round(0.68 * height), round(0.2 * width) : round(0.8 * width)]
    skin = np.quantile(cheeks, 0.7, axis=(1, 2))[:, None, None]
    dark = np.clip((0.62 * skin - green[:, rows, columns]) / (0.55 * skin), 0, 1).sum(1)
    return np.sort(dark, axis=1)[:, -max(round(0.06 * width), 1) :].mean(1) / height


def _mouth(head: Canvas, x: float, lips: Colour, opening: float, width: float) -> None:
    across, up = _WIDEST * width, 0.5 * _HIGHEST * opening
    drawn = max(up, 0.5 / (head.unit * head.scale))  # one that is less than a pixel high is drawn paler instead
    inside, y = oval(across, drawn), _LIP - up
    for side in (-1, 1):  # a smile
        head.fill(bar(0, 0, side * 0.08, 0.075, 0.024, 0.015), mix(lips, INK, 0.3), x + side * (across + 0.02), y)
    head.fill(oval(across + 0.055, up + 0.06), lit(lips, 0.4), x, y)
    head.fill(inside, _THROAT, x, y, opacity=up / drawn)
    if up > 0.06:
        head.fill(oval(0.62 * across, 0.5 * up).at(0, -0.6 * up) & inside, _TONGUE, x, y)


def _between(colours: tuple[Colour, ...], share: float) -> Colour:
    step = min(int(share * (len(colours) - 1)), len(colours) - 2)
    return mix(colours[step], colours[step + 1], share * (len(colours) - 1) - step)
