"""Boxes and arrows, laid out in layers and drawn as SVG.

The texts on the arrows are laid out like blocks, in layers between those of the blocks, so that no text covers another.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from .palette import AUDIO, IMAGE, JOINT, OTHER, PAPER
from .rendering import template
from .rows import Row, TensorInfo

LINE = 16  # height of a line of text
SIZES = {"name": 13, "kind": 11, "failed": 11, "join": 12, "size": 12, "formula": 12, "way": 11}  # of a style of text
LONGEST = 46  # letters of a line of a formula
GAP = 28  # between neighbours
MARGIN = 14
STACK = 6  # offset of the last block of a stack behind the first
ROUNDS = 100  # of moving boxes towards their neighbours above and below
PADDING = {"stage": (28, 16), "input": (32, 10), "output": (32, 10), "join": (20, 8), "label": (8, 4)}  # both sides
STREAMS = {"audio": AUDIO, "image": IMAGE}

# Advances of DejaVu Sans, the widest of the usual fonts, in thousandths of its size; bold ones are at most 1.12 of it.
_ADVANCES = {
    **dict.fromkeys("ijlI'|", 340),
    **dict.fromkeys("ft.,:;()[]/\\! ", 430),
    **dict.fromkeys("rs-*", 535),
    **dict.fromkeys("mwMW%@", 1000),
    **dict.fromkeys("+=<>~#_&^ABCDEGHKNOPQRTUVXYZ", 840),
}
_ADVANCE = 0.603  # of the widest usual monospaced font, in its size


def text_width(text: str, size: float | int, mono: bool = False, bold: bool = False) -> float:
    """Return the largest width of a line in the usual fonts."""
    total = 0.0
    for sign in text:
        if unicodedata.east_asian_width(sign) in "WF":
            total += 1
        elif not unicodedata.combining(sign):
            total += _ADVANCE if mono else _ADVANCES.get(sign, 640 if sign.isascii() else 1000) / 1000
    return total * size * (1.12 if bold and not mono else 1)


@dataclass(slots=True, eq=False)
class Box:
    """A block, a text on an arrow, or a point of it."""

    kind: str  # "stage", "input", "output", "join" where streams meet; "label", "passing"
    lines: list[tuple[str, str]] = field(default_factory=list)  # text and style
    rows: list[Row] = field(default_factory=list)  # that it stands for
    place: int = 0  # among the boxes of a picture
    parameters: int = 0
    streams: frozenset[str] = frozenset()
    above: list[Box] = field(default_factory=list)
    below: list[Box] = field(default_factory=list)
    line: list[Box] = field(default_factory=list)  # boxes that stand straight below one another
    layer: int = 0
    x: float = 0.0  # of the middle
    y: float = 0.0  # of the top
    width: float = 0.0
    height: float = 0.0

    @property
    def stack(self) -> int:
        """The space for the blocks behind it, if it stands for several stages."""
        return STACK * (self.kind == "stage" and len(self.rows) > 1)

    @property
    def failed(self) -> bool:
        return any(row.open for row in self.rows)

    @property
    def ways(self) -> Iterator[tuple[float, Box]]:
        """The boxes below, each with the place at which the line to it ends."""
        for below in self.below:
            entries = sorted(below.above, key=lambda other: other.x)
            step = min(22.0, below.width / (len(entries) + 1)) * (below.kind not in ("label", "passing"))
            yield below.x + (entries.index(self) - (len(entries) - 1) / 2) * step, below

    @property
    def colour(self) -> str:
        """The colour of a block, and of the arrows from it."""
        if self.kind in ("label", "passing"):
            return self.above[0].colour
        if self.failed:
            return IMAGE
        return JOINT if len(self.streams) > 1 else STREAMS.get(next(iter(self.streams), ""), OTHER)


class Arrow(NamedTuple):
    """A tensor on its way from one box to another; arrows from one box can share their text."""

    start: Box
    label: Box
    end: Box
    info: TensorInfo

    def __str__(self) -> str:
        return f"{self.start.lines[0][0]} to {self.end.lines[0][0]}: {self.info.size} {self.info.formula}"


def texts_of(info: TensorInfo, trail: Iterable[str]) -> list[tuple[str, str]]:
    """Return the lines on an arrow: operations on the way, size and formula."""
    way = list(dict.fromkeys(trail))
    found = [(", ".join(way[:3]) + ", …" * (len(way) > 3), "way")] * bool(way) + [(info.size, "size")]
    if info.formula != info.size:
        glued = re.sub(r"(?<!,) ", "\u00a0", info.formula)  # lines end at commas alone
        lines = textwrap.wrap(glued, LONGEST, break_long_words=False, break_on_hyphens=False)
        found += [(line.replace("\u00a0", " "), "formula") for line in lines]
    return found


def _laid_out(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[list[Box]]:
    """Place every box; return layers of blocks and arrow texts in turn."""
    for arrow in sorted(arrows, key=lambda arrow: arrow.end.place):  # as far up as possible
        arrow.end.layer = max(arrow.end.layer, arrow.start.layer + 2)
    deepest = max((box.layer for box in boxes), default=0)
    for box in boxes:
        below = [arrow.end.layer for arrow in arrows if arrow.start is box]
        if box.kind == "input" and below:  # directly above its first use
            box.layer = min(below) - 2
        elif box.kind == "output":
            box.layer = deepest
    layers: list[list[Box]] = [[] for _ in range(deepest + 1)]
    for box in boxes:
        layers[box.layer].append(box)
    for start, label, end, _ in arrows:
        steps = [label, *(Box("passing") for _ in range(start.layer + 2, end.layer))]
        for layer, box in enumerate(steps, start.layer + 1):
            if box not in layers[layer]:
                layers[layer].append(box)
        for above, below in pairwise([start, *steps, end]):
            if below not in above.below:
                above.below.append(below)
                below.above.append(above)
    for box in (box for layer in layers for box in layer):
        _measure(box)
    _order(layers)
    _place(layers)
    return layers


def _measure(box: Box) -> None:
    widths = (
        text_width(text, SIZES[style], mono=style in ("size", "formula"), bold=style == "name")
        for text, style in box.lines
    )
    across, down = PADDING.get(box.kind, (0, 0))
    box.width = max(max(widths, default=0) + across, 120 * (box.kind == "stage")) + box.stack
    box.height = LINE * len(box.lines) + down + box.stack


def _order(layers: list[list[Box]]) -> None:
    """Order the boxes of each layer such that few arrows cross."""
    place: dict[Box, float] = {}
    for turn in range(-1, 8):  # before the first turn they are only numbered
        for layer in reversed(layers) if turn % 2 else layers:
            if turn >= 0:
                near = {box: (box.below if turn % 2 else box.above) or [box] for box in layer}
                layer.sort(key=lambda box: sum(place[other] for other in near[box]) / len(near[box]))
            place |= {box: i - (len(layer) - 1) / 2 for i, box in enumerate(layer)}


def _place(layers: list[list[Box]]) -> None:
    """Set the coordinates, as near to neighbours above and below as possible."""
    for box in (box for layer in layers for box in layer):  # what follows one box alone stays below it
        alone = len(box.above) == 1 == len(box.above[0].below)
        box.line = box.above[0].line if alone else []
        box.line.append(box)
    for turn in range(ROUNDS):
        for layer in layers[:: -1 if turn % 2 else 1]:
            ends = turn < ROUNDS / 2  # then each line is made straight
            near = ([*box.line, *(box.line[0].above + box.line[-1].below) * ends] for box in layer)
            _spread(layer, [fmean(box.x for box in boxes) for boxes in near])
    left = min((box.x - box.width / 2 for layer in layers for box in layer), default=0)
    for box in (box for layer in layers for box in layer):
        box.x += MARGIN - left
    y = float(MARGIN)
    for number, layer in enumerate(layers):
        height = max((box.height for box in layer), default=0)
        for box in layer:
            box.height = height if box.kind == "passing" else box.height
            box.y = y + (height - box.height) / 2
        bend = max((abs(below.x - box.x) for box in layer for below in box.below), default=0)
        y += height + min(44, 14 + bend * 0.15) + (6 if number % 2 else 0)  # above a block there is an arrowhead, too


def _spread(layer: list[Box], wanted: Sequence[float]) -> None:
    """Move boxes to the places nearest to the wanted ones at which neighbours keep their distance."""
    starts, groups = [0.0], []  # boxes that touch move together: the sum of their wanted shifts, their mass and number
    for left, right in pairwise(layer):
        starts.append(starts[-1] + (left.width + right.width) / 2 + GAP)
    for box, start, want in zip(layer, starts, wanted, strict=True):
        mass = len(box.line)
        groups.append((mass * (want - start), mass, 1))
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            groups.append(tuple(map(sum, zip(groups.pop(), groups.pop(), strict=True))))
    shifts = [shift / mass for shift, mass, boxes in groups for _ in range(boxes)]
    for box, start, shift in zip(layer, starts, shifts, strict=True):
        box.x = start + shift


def svg(name: str, boxes: Sequence[Box], arrows: Sequence[Arrow]) -> tuple[str, float]:
    """Return a picture and its width; a box must come after those above it."""
    boxes = [box for layer in _laid_out(boxes, arrows) for box in layer]
    width = max((box.x + box.width / 2 for box in boxes), default=240) + MARGIN
    height = max((box.y + box.height for box in boxes), default=20) + MARGIN
    more = {"sizes": SIZES, "step": LINE, "tint": _tint, "width": round(width), "height": round(height)}
    return template("flow.svg.j2").render(name=name, arrows=arrows, boxes=boxes, **more), width


def _tint(colour: str) -> str:
    """A colour that is mostly paper."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(PAPER[1:]), strict=True)
    return "#" + "".join(f"{round(a * 0.13 + b * 0.87):02x}" for a, b in pairs)
