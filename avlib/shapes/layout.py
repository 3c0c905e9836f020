"""Boxes and arrows, laid out in layers and drawn as SVG.

The texts on the arrows are laid out like blocks, in layers between those of the blocks, so that no text covers another.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from .palette import AUDIO, IMAGE, INK, JOINT, OTHER, PAPER
from .rendering import template
from .rows import Row, TensorInfo

WIDTH = 864  # 9 inches, as wide as a page
SANS, MONO = "Helvetica,Arial,'DejaVu Sans',sans-serif", "Menlo,Consolas,'DejaVu Sans Mono',monospace"
SOFT = "#5b6570"
LINE = 16  # height of a line of text
LONGEST = 46  # letters of a line of a formula
GAP = 28  # between neighbours
MARGIN = 14
STACK = 6  # offset of the last block of a stack behind the first
ROUNDS = 100  # of moving boxes towards their neighbours above and below

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
    colour: str = ""

    @property
    def stack(self) -> int:
        """The space for the blocks behind it, if it stands for several stages."""
        return STACK * (self.kind == "stage" and len(self.rows) > 1)

    @property
    def failed(self) -> bool:
        return any(row.open for row in self.rows)


@dataclass(slots=True)
class Arrow:
    """A tensor on its way from one box to another."""

    start: Box
    end: Box
    info: TensorInfo
    trail: tuple[str, ...]  # operations on the way

    @property
    def lines(self) -> list[tuple[str, str]]:
        on_way = list(dict.fromkeys(self.trail))
        text = ", ".join(on_way[:3]) + (", …" if len(on_way) > 3 else "")
        size, formula = self.info.size, self.info.formula
        found = [(text, "way")] if text else []
        found.append((size, "size"))
        if formula != size:
            glued = re.sub(r"(?<!,) ", "\u00a0", formula)  # lines end at commas alone
            lines = textwrap.wrap(glued, LONGEST, break_long_words=False, break_on_hyphens=False)
            found += [(line.replace("\u00a0", " "), "formula") for line in lines]
        return found


def _laid_out(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[list[Box]]:
    """Place every box; return layers of blocks and arrow texts in turn."""
    for box in boxes:  # as far up as possible
        box.layer = max((above.layer + 1 for above in box.above), default=0)
    deepest = max((box.layer for box in boxes), default=0)
    for box in boxes:
        if box.kind == "input" and box.below:  # directly above its first use
            box.layer = min(below.layer for below in box.below) - 1
        elif box.kind == "output":
            box.layer = deepest
    layers: list[list[Box]] = [[] for _ in range(2 * max((box.layer for box in boxes), default=0) + 1)]
    for box in boxes:
        box.layer *= 2
        box.above, box.below = [], []
        layers[box.layer].append(box)
    labels: dict[tuple, Box] = {}
    for arrow in arrows:
        key = (arrow.start, tuple(arrow.lines))
        label = labels.get(key)
        if label is None:
            label = labels[key] = Box("label", arrow.lines)
            label.layer = arrow.start.layer + 1
            layers[label.layer].append(label)
            _join(arrow.start, label)
        last = label
        for layer in range(label.layer + 1, arrow.end.layer):
            passing = Box("passing", layer=layer)
            layers[layer].append(passing)
            _join(last, passing)
            last = passing
        _join(last, arrow.end)
    for box in (box for layer in layers for box in layer):
        _measure(box)
    _order(layers)
    _place(layers)
    return layers


def _join(above: Box, below: Box) -> None:
    above.below.append(below)
    below.above.append(above)


_STYLES = {  # of a text: its size, and how it is drawn
    "name": (13, f'font-weight="600" fill="{INK}"'),
    "kind": (11, f'fill="{SOFT}"'),
    "failed": (11, f'fill="{IMAGE}"'),
    "join": (12, f'fill="{SOFT}"'),
    "size": (12, f'font-family="{MONO}" fill="{INK}"'),
    "formula": (12, f'font-family="{MONO}" fill="{SOFT}"'),
    "way": (11, f'font-style="italic" fill="{SOFT}"'),
}


def _measure(box: Box) -> None:
    widths = [
        text_width(text, _STYLES[style][0], mono=style in ("size", "formula"), bold=style == "name")
        for text, style in box.lines
    ]
    wide = {"stage": 28, "input": 32, "output": 32, "join": 20, "label": 8}.get(box.kind, 0)
    box.width = max(widths, default=0) + wide
    if box.kind == "stage":
        box.width = max(box.width, 120)
    box.width += box.stack
    tall = {"stage": 16, "input": 10, "output": 10, "join": 8, "label": 4}.get(box.kind, 0)
    box.height = LINE * len(box.lines) + tall + box.stack


def _order(layers: list[list[Box]]) -> None:
    """Order the boxes of each layer such that few arrows cross."""
    place: dict[Box, float] = {}

    def number(layer: list[Box]) -> None:
        for i, box in enumerate(layer):
            place[box] = i - (len(layer) - 1) / 2

    for layer in layers:
        number(layer)
    for turn in range(8):
        down = turn % 2 == 0
        for layer in layers if down else reversed(layers):
            wanted = {}
            for box in layer:
                others = box.above if down else box.below
                wanted[box] = sum(place[other] for other in others) / len(others) if others else place[box]
            layer.sort(key=wanted.__getitem__)
            number(layer)


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
    texts = (f"{a.start.lines[0][0]} to {a.end.lines[0][0]}: {a.info.size} {a.info.formula}" for a in arrows)
    described = "; ".join(texts)
    boxes = [box for layer in _laid_out(boxes, arrows) for box in layer]
    width = max((box.x + box.width / 2 for box in boxes), default=240) + MARGIN
    height = max((box.y + box.height for box in boxes), default=20) + MARGIN
    for box in boxes:
        box.colour = _edge(box)
    text = template("flow.svg.j2").render(
        **{"name": name, "described": described, "width": round(width), "height": round(height), "boxes": boxes},
        **{"curves": [curve for box in boxes for curve in _curves(box)], "tint": _tint, "styles": _STYLES},
        **{"sans": SANS, "step": LINE},
    )
    return text, width


def _edge(box: Box) -> str:
    """The colour of a block, and of the arrows from it."""
    while box.kind in ("label", "passing"):
        box = box.above[0]
    if box.failed:
        return IMAGE
    if len(box.streams) > 1:
        return JOINT
    return {"audio": AUDIO, "image": IMAGE}.get(next(iter(box.streams), ""), OTHER)


def _tint(colour: str) -> str:
    """A colour that is mostly paper."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(PAPER[1:]), strict=True)
    return "#" + "".join(f"{round(a * 0.13 + b * 0.87):02x}" for a, b in pairs)


def _curves(box: Box) -> Iterator[tuple[str, str, str]]:
    """The line through a passing box, and lines to boxes below: path, colour and points of the arrowhead."""
    if box.kind == "passing":
        yield f"M{box.x:.1f} {box.y:.1f}V{box.y + box.height:.1f}", box.colour, ""
    for below in box.below:
        head = 0 if below.kind in ("label", "passing") else 7
        entries = sorted(below.above, key=lambda other: other.x)
        step = min(22.0, below.width / (len(entries) + 1))
        end = below.x + (entries.index(box) - (len(entries) - 1) / 2) * step if head else below.x
        top, bottom = box.y + box.height, below.y
        middle = (top + bottom - head) / 2
        curve = f"C{box.x:.1f} {middle:.1f} {end:.1f} {middle:.1f} {end:.1f} {bottom - head:.1f}"
        path = f"V{bottom - head:.1f}" if abs(end - box.x) < 0.5 else curve
        points = f"{end:.1f},{bottom:.1f} {end - 4.5:.1f},{bottom - 8:.1f} {end + 4.5:.1f},{bottom - 8:.1f}"
        yield f"M{box.x:.1f} {top:.1f}{path}", box.colour, points if head else ""
