"""Shapes as signed distances, painted from back to front onto a canvas.

The stage is one unit high and wide (the shorter side of the frame); x runs from the middle to the right, y from the
bottom upwards. Per pixel only + - * / sqrt, comparisons, minimum and maximum are used, which every machine rounds
alike, so that the same scene gives the same picture everywhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Length = float | int  # in stage units
FLOOR = 0.13  # height on the stage at which things stand

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]
Paint = tuple[Colour, Colour]  # where the light falls (upper left), where it does not (lower right)

# From dark blue to yellow; lightness rises all the way, so that it reads without seeing red or green.
HUES = ((0.13, 0.18, 0.56), (0.42, 0.17, 0.66), (0.78, 0.23, 0.50), (0.93, 0.47, 0.25), (0.99, 0.83, 0.22))
WOOD, DARK_WOOD, BRASS = (0.60, 0.52, 0.45), (0.42, 0.36, 0.33), (0.74, 0.68, 0.58)
INK, STEEL, CREAM, WHITE = (0.20, 0.20, 0.25), (0.50, 0.52, 0.57), (0.95, 0.91, 0.84), (1.0, 1.0, 1.0)
NIGHT = (0.12, 0.11, 0.20)


def mix(first: Colour, second: Colour, share: float | int) -> Colour:
    """Interpolate from `first` to `second`."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def hue_colour(hue: float | int) -> Colour:
    """Colour of a hue in [0, 1]: dark blue, violet, rose, orange, yellow."""
    step = min(int(hue * (len(HUES) - 1)), len(HUES) - 2)
    return mix(HUES[step], HUES[step + 1], hue * (len(HUES) - 1) - step)


def lit(colour: Colour, depth: float | int = 1.0) -> Paint:
    """A soft shade: warm light above, cool shadow below, `depth` apart."""
    return mix(colour, (1.0, 0.96, 0.86), 0.22 * depth), mix(colour, (0.14, 0.12, 0.30), 0.30 * depth)


class Shape(NamedTuple):
    """An outline around its own origin.

    box: left, right, bottom, top.
    distance: function of x and y (arrays that broadcast) to the distance from the outline, negative inside.
    """

    box: tuple[Length, Length, Length, Length]
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def at(self, x: Length, y: Length, angle: Length = 0.0) -> Shape:
        """Turn by `angle` (radians, counter-clockwise) and move to (x, y)."""
        left, right, bottom, top = self.box
        if not angle:
            box = (left + x, right + x, bottom + y, top + y)
            return Shape(box, lambda stage_x, stage_y: self.distance(stage_x - x, stage_y - y))
        cos, sin = math.cos(angle), math.sin(angle)
        middle_x, middle_y, across, up = (left + right) / 2, (bottom + top) / 2, (right - left) / 2, (top - bottom) / 2
        centre_x, centre_y = x + cos * middle_x - sin * middle_y, y + sin * middle_x + cos * middle_y
        wide, high = abs(cos) * across + abs(sin) * up, abs(sin) * across + abs(cos) * up

        def distance(stage_x, stage_y):
            stage_x, stage_y = stage_x - x, stage_y - y
            return self.distance(cos * stage_x + sin * stage_y, cos * stage_y - sin * stage_x)

        return Shape((centre_x - wide, centre_x + wide, centre_y - high, centre_y + high), distance)

    def __and__(self, other: Shape) -> Shape:
        """Intersect with `other`."""
        a, b = self.box, other.box
        box = (max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3]))
        return Shape(box, lambda x, y: np.maximum(self.distance(x, y), other.distance(x, y)))

    def outline(self, thickness: Length) -> Shape:
        """The edge of the shape as a line of this thickness."""
        left, right, bottom, top = self.box
        half = thickness / 2
        box = (left - half, right + half, bottom - half, top + half)
        return Shape(box, lambda x, y: np.abs(self.distance(x, y)) - half)


def disc(radius: Length) -> Shape:
    """A circle."""
    return Shape((-radius, radius, -radius, radius), lambda x, y: np.sqrt(x * x + y * y) - radius)


def oval(across: Length, up: Length) -> Shape:
    """An ellipse with half axes `across` and `up`, exact near the outline."""

    def distance(x, y):
        x, y = x * (1 / across), y * (1 / up)
        x2, y2 = x * x, y * y
        inside = x2 + y2
        slope = np.sqrt(x2 * (1 / across**2) + y2 * (1 / up**2)) + 1e-6
        return (inside - np.sqrt(inside)) / slope

    return Shape((-across, across, -up, up), distance)


def bar(x0: Length, y0: Length, x1: Length, y1: Length, start: Length, end: Length | None = None) -> Shape:
    """A round-ended line, its half width from `start` to `end`."""
    end = start if end is None else end
    along, rise = x1 - x0, y1 - y0
    scale = 1 / max(along * along + rise * rise, 1e-12)
    wide = max(start, end)

    def distance(x, y):
        x, y = x - x0, y - y0
        way = np.minimum(np.maximum(x * (along * scale) + y * (rise * scale), 0), 1)
        x, y = x - along * way, y - rise * way
        return np.sqrt(x * x + y * y) - (start + (end - start) * way)

    return Shape((min(x0, x1) - wide, max(x0, x1) + wide, min(y0, y1) - wide, max(y0, y1) + wide), distance)


def block(width: Length, height: Length, rounding: Length = 0.0) -> Shape:
    """A rectangle around the origin with rounded corners."""
    across, up = width / 2, height / 2

    def distance(x, y):
        x, y = np.abs(x) - (across - rounding), np.abs(y) - (up - rounding)
        beyond_x, beyond_y = np.maximum(x, 0), np.maximum(y, 0)
        corner = np.sqrt(beyond_x * beyond_x + beyond_y * beyond_y)
        return corner + np.minimum(np.maximum(x, y), 0) - rounding

    return Shape((-across, across, -up, up), distance)


def wedge(*points: tuple[Length, Length], rounding: Length = 0.0) -> Shape:
    """A convex polygon, its corners given counter-clockwise, grown by `rounding`."""
    edges = []
    for (x0, y0), (x1, y1) in zip(points, (*points[1:], points[0]), strict=True):
        length = math.hypot(x1 - x0, y1 - y0)
        across, up = (y1 - y0) / length, (x0 - x1) / length
        edges.append((across, up, across * x0 + up * y0 + rounding))

    def distance(x, y):
        across, up, offset = edges[0]
        most = x * across + (y * up - offset)
        for across, up, offset in edges[1:]:
            most = np.maximum(most, x * across + (y * up - offset))
        return most

    xs, ys = zip(*points, strict=True)
    return Shape((min(xs) - rounding, max(xs) + rounding, min(ys) - rounding, max(ys) + rounding), distance)


def join(*shapes: Shape, melt: Length = 0.0) -> Shape:
    """Unite shapes, with joints rounded over the length `melt`."""

    def distance(x, y):
        nearest = shapes[0].distance(x, y)
        for shape in shapes[1:]:
            other = shape.distance(x, y)
            closeness = np.maximum(melt - np.abs(nearest - other), 0) if melt else 0.0
            nearest = np.minimum(nearest, other)
            if melt:
                nearest = nearest - closeness * closeness * (0.25 / melt)
        return nearest

    lefts, rights, bottoms, tops = zip(*(shape.box for shape in shapes), strict=True)
    return Shape((min(lefts), max(rights), min(bottoms), max(tops)), distance)


class Canvas:
    """A picture of `size` (height, width) in pixels, with a coordinate system."""

    def __init__(self, size: tuple[int, int]):
        height, width = size
        self.unit = float(min(size))
        self.half_width = width / self.unit / 2
        self.top = 0.5 + height / self.unit / 2
        self.x = ((np.arange(width) + 0.5) / self.unit - self.half_width).astype(np.float32)  # (width,)
        self.y = (self.top - (np.arange(height) + 0.5) / self.unit).astype(np.float32)[:, None]  # (height, 1)
        self.pixels = np.empty((3, height, width), np.float32)
        self.origin, self.scale, self.facing, self.turn = (0.0, 0.0), 1.0, 1, 0.0

    def copy(self) -> Canvas:
        other = copy.copy(self)
        other.pixels = self.pixels.copy()
        return other

    def at(self, x: Length, y: Length, scale: Length = 1.0, facing: int = 1, turn: Length = 0.0) -> Canvas:
        """The same canvas with origin (x, y) and unit `scale`.

        Shapes are turned by `turn` (radians, counter-clockwise), then mirrored if `facing` is -1.
        """
        other = copy.copy(self)
        other.origin, other.scale, other.facing, other.turn = (x, y), scale, facing, turn
        return other

    def place(self, position: Length) -> float:
        """Stage x of a position in [0, 1], a fifth from both sides."""
        return (position - 0.5) * 0.6 * (2 * self.half_width)

    def fill(self, shape: Shape, paint: Colour | Paint, x=0.0, y=0.0, angle=0.0, opacity=1.0, soft=0.0) -> None:
        """Paint a shape with its origin at (x, y), turned by an angle in radians, counter-clockwise.

        Args:
            paint: one colour, or the pair of a shade, which runs over the shape's box from the upper left.
            soft: the width of a blurred edge; 0 is a sharp edge, smoothed over one pixel.
        """
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        scale, facing = self.scale, self.facing
        middle_x = self.origin[0] + facing * scale * (cos * x - sin * y)
        middle_y = self.origin[1] + scale * (sin * x + cos * y)
        if angle + self.turn:
            shape = shape.at(0.0, 0.0, angle + self.turn)
        left, right, bottom, top = (scale * side for side in shape.box)
        left, right = (left, right) if facing > 0 else (-right, -left)
        left, right, bottom, top = left + middle_x, right + middle_x, bottom + middle_y, top + middle_y
        blur = max(soft * scale, 1 / self.unit)
        _, height, width = self.pixels.shape
        first = max(int((left - blur + self.half_width) * self.unit), 0)
        last = min(int((right + blur + self.half_width) * self.unit) + 1, width)
        upper = max(int((self.top - top - blur) * self.unit), 0)
        lower = min(int((self.top - bottom + blur) * self.unit) + 1, height)
        if first >= last or upper >= lower or opacity <= 0:
            return
        stage_x, stage_y = self.x[first:last], self.y[upper:lower]
        cover = shape.distance((stage_x - middle_x) * (facing / scale), (stage_y - middle_y) * (1 / scale))
        cover = np.minimum(np.maximum(0.5 - cover * (scale / blur), 0), 1)
        if soft:
            cover = cover * cover * (3 - 2 * cover)
        if opacity < 1:
            cover = cover * opacity
        if isinstance(paint[0], tuple):
            light, dark = np.array(paint, np.float32)[:, :, None, None]
            share = (right - stage_x) * (0.35 / (right - left)) + (stage_y - bottom) * (0.65 / (top - bottom))
            tint = dark + (light - dark) * share
        else:
            tint = np.array(paint, np.float32)[:, None, None]
        region = self.pixels[:, upper:lower, first:last]
        region += (tint - region) * cover

    def shadow(self, across: Length, x=0.0, y=0.0, strength=0.45) -> None:
        """Paint a soft shadow on the ground, about 2 `across` wide."""
        self.fill(oval(across, across * 0.16), NIGHT, x + across * 0.12, y, opacity=strength, soft=across * 0.3)

    def array(self) -> np.ndarray:
        """The picture as uint8 (height, width, 3)."""
        counts = np.minimum(np.maximum(self.pixels * 255 + 0.5, 0), 255).astype(np.uint8)
        return np.ascontiguousarray(counts.transpose(1, 2, 0))
