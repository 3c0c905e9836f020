"""Boxes and arrows, laid out in layers and drawn as SVG.

The texts on the arrows are laid out like blocks, in layers between those of the blocks, so that no text covers another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from .palette import AUDIO, IMAGE, INK, JOINT, OTHER, PAPER
from .rendering import template
from .rows import Row, TensorInfo

WIDTH = 864  # 9 inches; a wider picture is scaled down, as far as its text can be read
SMALLEST = 0.75  # scale
SANS, MONO = "Helvetica,Arial,'DejaVu Sans',sans-serif", "Menlo,Consolas,'DejaVu Sans Mono',monospace"
SOFT = "#5b6570"
LINE = 16  # height of a line of text
GAP = 28  # between neighbours
MARGIN = 14
STACK = 6  # offset of the last block of a stack behind the first
ROUNDS = 150  # of moving boxes towards their neighbours above and below

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
    row: Row | None = None
    alike: object = None  # a key, the same for equal stages
    times: int = 1
    parameters: int = 0
    streams: frozenset[str] = frozenset()
    above: list[Box] = field(default_factory=list)
    below: list[Box] = field(default_factory=list)
    layer: int = 0
    x: float = 0.0  # of the middle
    y: float = 0.0  # of the top
    width: float = 0.0
    height: float = 0.0


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
            found += [(part, "formula") for part in _broken(formula)]
        return found


def _broken(text: str, most: int = 46) -> list[str]:
    """A formula in lines of a length, broken at commas."""
    lines = [""]
    for part in re.findall(r"[^,]+,?\s*", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > most:
            lines.append("")
        lines[-1] += part
    return [line.strip() for line in lines]


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


_SIZES = {"name": 13, "kind": 11, "failed": 11, "join": 12, "size": 12, "formula": 12, "way": 11}


def _measure(box: Box) -> None:
    widths = [
        text_width(text, _SIZES[style], mono=style in ("size", "formula"), bold=style == "name")
        for text, style in box.lines
    ]
    wide = {"stage": 28, "input": 32, "output": 32, "join": 20, "label": 8}.get(box.kind, 0)
    box.width = max(widths, default=0) + wide
    if box.kind == "stage":
        box.width = max(box.width, 120)
    box.width += STACK * (box.times > 1)
    tall = {"stage": 16, "input": 10, "output": 10, "join": 8, "label": 4}.get(box.kind, 0)
    box.height = LINE * len(box.lines) + tall + STACK * (box.times > 1)


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
    lines, bounds = _lines(layers)
    number = {box: i for i, line in enumerate(lines) for box in line}
    tied = [
        [number[other] for box in line for other in (*box.above, *box.below) if number[other] != i]
        for i, line in enumerate(lines)
    ]
    mass = [len(line) for line in lines]
    places = [0.0] * len(lines)
    _keep_apart(places, mass, bounds, exactly=True)
    for _ in range(ROUNDS):
        wanted = [
            sum(places[j] for j in others) / len(others) if others else x
            for x, others in zip(places, tied, strict=True)
        ]
        places = [x + (want - x) / 2 for x, want in zip(places, wanted, strict=True)]
        for _ in range(3):
            _keep_apart(places, mass, bounds)
    _keep_apart(places, mass, bounds, exactly=True)
    for box, line in number.items():
        box.x = places[line]
    left = min((box.x - box.width / 2 for layer in layers for box in layer), default=0)
    for box in (box for layer in layers for box in layer):
        box.x += MARGIN - left
    y = float(MARGIN)
    for number, layer in enumerate(layers):
        height = max((box.height for box in layer), default=0)
        for box in layer:
            box.y = y + (0 if box.kind == "passing" else (height - box.height) / 2)
            if box.kind == "passing":
                box.height = height
        y += height
        if number + 1 < len(layers):
            bend = max((abs(below.x - box.x) for box in layer for below in box.below), default=0)
            y += min(44, 14 + bend * 0.15) + (6 if number % 2 else 0)  # above a block there is an arrowhead, too


def _lines(layers: list[list[Box]]) -> tuple[list[list[Box]], list[tuple[int, int, float]]]:
    """Straight lines of boxes, and the least distances of neighbours."""
    lines: list[list[Box]] = []
    of: dict[Box, list[Box]] = {}
    for box in (box for layer in layers for box in layer):
        if len(box.above) == 1 == len(box.above[0].below):
            of[box] = of[box.above[0]]
        else:
            of[box] = []
            lines.append(of[box])
        of[box].append(box)
    while True:
        number = {box: i for i, line in enumerate(lines) for box in line}
        bounds = [
            (number[left], number[right], (left.width + right.width) / 2 + GAP)
            for layer in layers
            for left, right in pairwise(layer)
        ]
        after: dict[int, list[int]] = {i: [] for i in range(len(lines))}
        for left, right, _ in bounds:
            after[right].append(left)
        try:
            rank = {line: i for i, line in enumerate(TopologicalSorter(after).static_order())}
            return lines, sorted(bounds, key=lambda bound: rank[bound[0]])
        except CycleError as error:  # some lines are both left and right of another
            longest = max(error.args[1], key=lambda i: len(lines[i]))
        half = len(lines[longest]) // 2
        lines.append(lines[longest][half:])
        del lines[longest][half:]


def _keep_apart(
    places: list[float], mass: Sequence[int], bounds: Sequence[tuple[int, int, float]], exactly: bool = False
) -> None:
    """Move apart neighbours; `exactly` moves only the right one."""
    for left, right, distance in bounds:
        lacks = distance - (places[right] - places[left])
        if lacks > 0:
            share = 1.0 if exactly else mass[left] / (mass[left] + mass[right])
            places[right] += lacks * share
            places[left] -= lacks * (1 - share)


_STYLES = {
    "name": f'font-weight="600" fill="{INK}"',
    "size": f'font-family="{MONO}" fill="{INK}"',
    "formula": f'font-family="{MONO}" fill="{SOFT}"',
    "way": f'font-style="italic" fill="{SOFT}"',
    "failed": f'fill="{IMAGE}"',
    **dict.fromkeys(("kind", "join"), f'fill="{SOFT}"'),
}


def svg(name: str, boxes: Sequence[Box], arrows: Sequence[Arrow]) -> tuple[str, float]:
    """Return a picture and its width; a box must come after those above it."""
    texts = (f"{a.start.lines[0][0]} to {a.end.lines[0][0]}: {a.info.size} {a.info.formula}" for a in arrows)
    described = "; ".join(texts)
    boxes = [box for layer in _laid_out(boxes, arrows) for box in layer]
    width = max((box.x + box.width / 2 for box in boxes), default=240) + MARGIN
    height = max((box.y + box.height for box in boxes), default=20) + MARGIN
    scale = max(SMALLEST, min(1.0, WIDTH / width))
    text = template("flow.svg.j2").render(
        name=name,
        described=described,
        width=round(width),
        height=round(height),
        shown=(round(width * scale), round(height * scale)),
        lines=[line for box in boxes for line in _lines_below(box)],
        blocks=[_block(box) for box in boxes if box.kind != "passing"],
        styles=_STYLES,
        sans=SANS,
    )
    return text, width * scale


def _edge(box: Box) -> str:
    """The colour of a block, and of the arrows from it."""
    while box.kind in ("label", "passing"):
        box = box.above[0]
    if box.row is not None and box.row.open:
        return IMAGE
    if len(box.streams) > 1:
        return JOINT
    return {"audio": AUDIO, "image": IMAGE}.get(next(iter(box.streams), ""), OTHER)


def _lines_below(box: Box) -> Iterator[dict]:
    """The line through a passing box, and lines to boxes below."""
    colour = _edge(box)
    if box.kind == "passing":
        yield {"path": f"M{box.x:.1f} {box.y:.1f}V{box.y + box.height:.1f}", "colour": colour}
    for below in box.below:
        head = 7 if below.kind not in ("label", "passing") else 0
        entries = sorted(below.above, key=lambda other: other.x)
        step = min(22.0, below.width / (len(entries) + 1))
        end = below.x + (entries.index(box) - (len(entries) - 1) / 2) * step if head else below.x
        top, bottom = box.y + box.height, below.y
        middle = (top + bottom - head) / 2
        curve = f"C{box.x:.1f} {middle:.1f} {end:.1f} {middle:.1f} {end:.1f} {bottom - head:.1f}"
        path = f"V{bottom - head:.1f}" if abs(end - box.x) < 0.5 else curve
        points = (end, bottom), (end - 4.5, bottom - 8), (end + 4.5, bottom - 8)
        yield {
            "path": f"M{box.x:.1f} {top:.1f}{path}",
            "colour": colour,
            "head": " ".join(f"{x:.1f},{y:.1f}" for x, y in points) if head else "",
        }


def _block(box: Box) -> dict:
    edge = _edge(box)
    failed = box.row is not None and box.row.open
    stack = STACK * (box.times > 1)
    height = box.height - stack
    pairs = zip(bytes.fromhex(edge[1:]), bytes.fromhex(PAPER[1:]), strict=True)
    y = box.y + (height - LINE * len(box.lines)) / 2 - 4
    return {
        "edge": edge,
        "inside": PAPER if failed else "#" + "".join(f"{round(a * 0.13 + b * 0.87):02x}" for a, b in pairs),
        "failed": failed,
        "shifts": () if box.kind == "label" else (stack, stack / 2, 0) if stack else (0,),
        "left": box.x - box.width / 2,
        "top": box.y,
        "width": f"{box.width - stack:.1f}",
        "height": f"{height:.1f}",
        "radius": f"{5 if box.kind == 'stage' else height / 2:g}",
        "middle": f"{box.x - stack / 2:.1f}",
        "texts": [
            {"text": text, "style": style, "size": _SIZES[style], "y": f"{y + LINE * (i + 1):.1f}"}
            for i, (text, style) in enumerate(box.lines)
        ],
    }
