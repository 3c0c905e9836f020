"""A trace as a picture of its flow, with shapes between stages.

Arrows follow the tensors themselves: a stage is drawn below the stage that made its input. Operations between stages
are named on the arrows, and drawn as blocks where streams meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import check_whole
from . import layout
from .layout import Arrow, Box, texts_of
from .outline import outline, parameters_of, walked
from .rows import Recording, Row, TensorInfo, count, together

STAGES = 60  # the most blocks of a picture
WIDEST = 2 * 864  # of a picture: twice 9 inches, the width of a page; a wider one is shown less deep
LABEL = 56  # letters of a name; of a longer one the end is shown
PERIOD = 100  # the most blocks of one turn of a loop

_AUDIO = re.compile(r"wav|audio|sound|speech|mel|fbank|spec|pitch|f0|voice|input_values|input_features", re.IGNORECASE)
_IMAGE = re.compile(r"image|img|pixel|frame|video|face|picture", re.IGNORECASE)
_NAMES = {"__getitem__": "index", "__add__": "add", "__mul__": "mul", "__sub__": "sub", "__matmul__": "matmul"}


def svg(trace: Recording, depth: int = 1) -> str:
    """Return the flow of a trace as SVG.

    Sound is blue, pictures are vermilion, and what comes of both is green, by the names of the inputs. Equal stages in
    a row, and the turns of a loop, share one block.

    Args:
        depth: how deep modules are taken apart; 1 shows those directly inside the whole. A function without modules is
            shown by its operations that change a shape. More than 60 stages are shown less deep.
    """
    check_whole("depth", depth, 0)
    for level in range(depth, -1, -1):
        graph = _Graph(trace, level)
        if level and sum(box.kind in ("stage", "join") for box in graph.boxes) > STAGES:
            continue
        boxes = graph.boxes or [Box("output", [("nothing was called", "name")])]
        text, width = layout.svg(trace.name or "a trace", boxes, list(graph.arrows.values()))
        if width <= WIDEST:
            break
    return text


class _Graph:
    """The blocks and arrows of a trace, to a depth."""

    def __init__(self, trace: Recording, depth: int):
        self.boxes: list[Box] = []
        self.arrows: dict[tuple[Box, Box], Arrow] = {}  # by their text and end
        self.labels: dict[tuple, Box] = {}  # the texts of arrows, by the box above and their lines
        self.made: dict[int, list[tuple[Box, tuple[str, ...]]]] = {}  # origins of a tensor, with the operations since
        self.trace, self.parameters = trace, parameters_of(trace)
        self.first: dict[int, int] = {}  # of each row, the one whose block it shares
        self.drawn: dict[int, Box] = {}  # the block of that one
        for node in walked(outline(trace, depth, ops=True, period=PERIOD)):
            rows = [node.row, *trace.within(node.row)]
            for other in node.rows[1:]:
                pairs = zip([other, *trace.within(other)], rows, strict=True)
                self.first |= {one.index: first.index for one, first in pairs}
        roots = [row for row in trace.rows if row.parent is None]  # explain may see several
        ops_alone = depth > 0 and not any(row.kind == "module" and row.parent is not None for row in trace.rows)
        for root in roots:
            if root.kind == "op":
                self.operation(root, len(roots) == len(trace.rows))
                continue
            for info in root.inputs:
                if info.identity not in self.made:
                    box = self.add(Box("input", [(_called(info.path, "input"), "name")], streams=_streams(info)))
                    self.join(box, (), [info])
            if depth == 0 or not trace.children(root):
                self.stage(root)
            else:
                self.inside(root, depth, ops_alone)
        for name, info in together(roots[-1].outputs, short=True) if roots else ():
            same = [other for other in roots[-1].outputs if other.kind == info.kind]
            if any(other.identity in self.made for other in same):
                self.join(self.add(Box("output", [(_called(name, "output"), "name")])), same, ())
        for box in self.boxes:
            box.lines = box.lines or _described(box)
        for start, _, end, _ in sorted(self.arrows.values(), key=lambda arrow: arrow.end.place):
            end.streams |= start.streams

    def inside(self, row: Row, depth: int, ops_alone: bool) -> None:
        for inner in self.trace.children(row):
            given = {info.identity for info in inner.inputs} - {None}
            if inner.kind == "module" and not self.trace.within(inner) and {i.identity for i in inner.outputs} <= given:
                continue  # an identity: it returns its inputs
            if inner.kind == "op":
                self.operation(inner, ops_alone)
            elif inner.depth < depth and any(other.kind == "module" for other in self.trace.children(inner)):
                self.inside(inner, depth, ops_alone)
            else:
                self.stage(inner)

    def stage(self, row: Row, kind: str = "stage") -> None:
        """Add a block, or let the row share that of an equal one before it."""
        index = row.index
        while index in self.first:
            index = self.first[index]
        if index not in self.drawn:
            self.drawn[index] = self.add(Box(kind))
        box = self.drawn[index]
        box.rows.append(row)
        box.parameters += self.parameters[row.index]
        self.join(box, row.inputs, row.outputs)

    def operation(self, row: Row, alone: bool) -> None:
        """Add an operation: a block where streams meet, otherwise a word."""
        sources: dict[Box, tuple[str, ...]] = {}
        for info in row.inputs:
            for box, trail in self.made.get(info.identity, ()):
                sources.setdefault(box, trail)
        if re.fullmatch(r"new_\w+|\w+_like", row.name):
            return  # it uses a size, and no values
        before = {info.shape for info in row.inputs}
        changes = any(info.shape not in before for info in row.outputs)
        if row.open or (alone and (changes or len(sources) > 1)):
            self.stage(row)
        elif len(sources) > 1:
            self.stage(row, "join")
        else:
            since = [(box, (*trail, _NAMES.get(row.name, row.name))) for box, trail in sources.items()]
            self.made |= {info.identity: since for info in row.outputs if info.identity is not None and since}

    def add(self, box: Box) -> Box:
        box.place = len(self.boxes)
        self.boxes.append(box)
        return box

    def join(self, box: Box, inputs: Iterable[TensorInfo], outputs: Iterable[TensorInfo]) -> None:
        """Draw arrows to a block, without those back to an earlier turn of a loop; its outputs come from it."""
        for info in inputs:
            for source, trail in self.made.get(info.identity, ()):
                lines = texts_of(info, trail)
                label = self.labels.setdefault((source, *lines), Box("label", lines))
                if source.place < box.place:
                    self.arrows.setdefault((label, box), Arrow(source, label, box, info))
        self.made |= {info.identity: [(box, ())] for info in outputs if info.identity is not None}


def _described(box: Box) -> list[tuple[str, str]]:
    """The lines of a block: its name, its class and parameters."""
    first, last = box.rows[0], box.rows[-1]
    if box.kind == "join":
        return [(_NAMES.get(first.name, first.name), "join")]
    label = last.path if last.kind == "module" and last.path else last.name
    facts = [last.name] * (label != last.name)
    if first is not last:
        facts = [f"{len(box.rows)} × {last.name}"]
        label = label if first.path == last.path else f"{first.path} … {label}"
    elif first.call > 1 and first.kind == "module":
        label += f" #{first.call}"
    if len(label) > LABEL and first is not last:  # layers.0…11.mlp
        ends = iter(re.findall(r"\d+", last.path))
        label = re.sub(r"\d+", lambda n: n[0] if n[0] == (end := next(ends)) else f"{n[0]}…{end}", first.path)
    facts += [f"{count(box.parameters)} parameters"] * (box.parameters > 0)
    lines = [(label if len(label) <= LABEL else f"…{label[1 - LABEL :]}", "name")]
    return lines + [(" · ".join(facts), "kind")] * bool(facts) + [("failed", "failed")] * last.open


def _called(path: str, what: str) -> str:
    """`tokens`, `output`, `output 0`."""
    return re.sub(r"^\[(\d+)\]", rf"{what} \1", path) or what


def _streams(info: TensorInfo) -> frozenset[str]:
    """The stream of an input, sound or picture, by its name."""
    if info.dtype == "bool" or "mask" in info.path:
        return frozenset()
    if _AUDIO.search(info.path):
        return frozenset(["audio"])
    if _IMAGE.search(info.path) or (len(info.shape) in (4, 5) and info.shape[-3] == 3):
        return frozenset(["image"])
    return frozenset()
