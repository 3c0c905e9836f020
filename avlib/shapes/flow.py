"""A trace as a picture of its flow, with shapes between stages.

Arrows follow the tensors themselves: a stage is drawn below the stage that made its input. Operations between stages
are named on the arrows, and drawn as blocks where streams meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..errors import ParameterError
from . import layout
from .layout import Arrow, Box
from .outline import kinds_of, outline
from .rows import Recording, Row, TensorInfo, count, together

STAGES = 60  # the most blocks of a picture
WIDEST = 2 * layout.WIDTH  # of a picture; a wider one is shown less deep
LABEL = 56  # letters of a name; of a longer one the end is shown
PERIOD = 32  # the most blocks of one turn of a loop

_AUDIO = re.compile(r"wav|audio|sound|speech|mel|fbank|spec|pitch|f0|voice|input_values|input_features", re.IGNORECASE)
_IMAGE = re.compile(r"image|img|pixel|frame|video|face|picture", re.IGNORECASE)
_NAMES = {"__getitem__": "index", "__add__": "add", "__mul__": "mul", "__sub__": "sub", "__matmul__": "matmul"}


def svg(trace: Recording, depth: int = 1) -> str:
    """Return the flow of a trace as SVG.

    Sound is blue, pictures are vermilion, and what comes of both is green, by the names of the inputs. Equal stages in
    a row share one block.

    Args:
        depth: how deep modules are taken apart; 1 shows those directly inside the whole. A function without modules is
            shown by its operations that change a shape. More than 60 stages are shown less deep.
    """
    if depth < 0:
        raise ParameterError("depth", str(depth), "0 or more")
    for level in range(depth, -1, -1):
        graph = _Graph(trace, level)
        if level and sum(box.kind in ("stage", "join") for box in graph.boxes) > STAGES:
            continue
        boxes = graph.boxes or [Box("output", [("nothing was called", "name")])]
        text, width = layout.svg(trace.name or "a trace", boxes, graph.arrows)
        if width <= WIDEST:
            break
    return text


class _Graph:
    """The blocks and arrows of a trace, to a depth."""

    def __init__(self, trace: Recording, depth: int):
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self.known: set[tuple] = set()
        self.made: dict[int, list[tuple[Box, tuple[str, ...]]]] = {}  # origins of a tensor, with the operations since
        self.trace = trace
        if not trace.rows:
            return
        self.nodes = {node.row.index: node for root in outline(trace, depth, fold=False) for node in root.walk()}
        self.kinds = kinds_of(trace)
        roots = [row for row in trace.rows if row.parent is None]  # explain may see several
        ops_alone = depth > 0 and not any(row.kind == "module" and row.parent is not None for row in trace.rows)
        for root in roots:
            if root.kind == "op":
                self.operation(root, len(roots) == len(trace.rows))
                continue
            for info in root.inputs:
                if info.identity not in self.made:
                    box = Box("input", [(_called(info.path, "input"), "name")], streams=_streams(info))
                    self.boxes.append(box)
                    self.makes(box, [info])
            if depth == 0 or not trace.children(root):
                self.stage(root)
            else:
                self.inside(root, depth, ops_alone)
        for name, info in together(roots[-1].outputs):
            box = Box("output", [(_called(name, "output"), "name")])
            self.takes(box, [other for other in roots[-1].outputs if other.kind == info.kind])
            self.boxes += [box] * bool(box.above)
        self.repeat()
        self.contract()
        for box in self.boxes:  # each box comes after those above it
            (label, style), *facts = box.lines
            box.lines = [(label if len(label) <= LABEL else f"…{label[1 - LABEL :]}", style), *facts]
            box.streams = box.streams.union(*(above.streams for above in box.above))

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

    def stage(self, row: Row) -> None:
        box = Box("stage", row=row, alike=(re.sub(r"\d+", "#", row.path), self.kinds[row.index]))
        label = row.path if row.kind == "module" and row.path else row.name
        box.parameters = self.nodes[row.index].parameters if row.index in self.nodes else 0
        facts = [row.name] * (label != row.name) + _parameters(box.parameters)
        label += f" #{row.call}" if row.kind == "module" and row.call > 1 else ""
        box.lines = [(label, "name")] + [(" · ".join(facts), "kind")] * bool(facts)
        if row.open:
            box.lines.append(("failed", "failed"))
        self.boxes.append(box)
        self.takes(box, row.inputs)
        self.makes(box, row.outputs)

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
            box = Box("join", [(_NAMES.get(row.name, row.name), "join")], row)
            self.boxes.append(box)
            self.takes(box, row.inputs)
            self.makes(box, row.outputs)
        else:
            for info in row.outputs:
                if info.identity is not None and sources:
                    name = _NAMES.get(row.name, row.name)
                    self.made[info.identity] = [(box, (*trail, name)) for box, trail in sources.items()]

    def makes(self, box: Box, infos: Iterable[TensorInfo]) -> None:
        for info in infos:
            if info.identity is not None:
                self.made[info.identity] = [(box, ())]

    def takes(self, box: Box, infos: Sequence[TensorInfo]) -> None:
        for info in infos:
            for source, trail in self.made.get(info.identity, ()):
                self.connect(Arrow(source, box, info, trail))

    def connect(self, arrow: Arrow) -> None:
        if arrow.start is arrow.end:
            return
        key = arrow.start, arrow.end, tuple(arrow.lines)
        if key in self.known:
            return
        self.known.add(key)
        self.arrows.append(arrow)
        arrow.start.below.append(arrow.end)
        arrow.end.above.append(arrow.start)

    def repeat(self) -> None:
        """Let the turns of a loop, or blocks of several stages each, share the blocks of the first."""
        boxes = [box for box in self.boxes if box.kind in ("stage", "join")]
        keys = [
            (box.kind, re.sub(r"\d+", "#", b.path), b.name, *(i.shape for i in b.outputs))
            for box, b in ((box, box.row) for box in boxes)
        ]
        into: dict[Box, Box] = {}
        start = 0
        while start < len(boxes):
            best, most = 1, 1
            for period in range(2, min(PERIOD, (len(boxes) - start) // 3) + 1):
                end = start + period
                while end < len(boxes) and keys[end] == keys[end - period]:
                    end += 1
                turns = (end - start) // period
                if turns > 2 and turns * period > best * most and len(set(keys[start : start + period])) > 1:
                    best, most = period, turns
            for place in range(start + best, start + best * most):
                into[boxes[place]] = boxes[start + (place - start) % best]
            start += best * most
        for box in dict.fromkeys(into.values()):
            self.share(box, [box, *(other for other, first in into.items() if first is box)])
        self.merge(into)

    def contract(self) -> None:
        """Let equal stages that follow one another directly share a block."""
        into: dict[Box, Box] = {}
        for box in self.boxes:
            if box.kind != "stage" or box in into:
                continue
            chain = [box]
            while True:
                below = {other for other in chain[-1].below if other.kind != "output"}
                following = [o for o in below if o.kind == "stage" and o.alike == box.alike and o not in into]
                if len(following) != 1:
                    break
                (other,) = following
                # Their other inputs and outputs are the same, as those of the steps of a loop
                above = {a for a in other.above if a is not chain[-1]}
                if not (below - {other} <= set(box.below) and above <= set(box.above)):
                    break
                into[other] = box
                chain.append(other)
            if len(chain) > 1:
                self.share(box, chain)
        self.merge(into)

    def share(self, box: Box, boxes: list[Box]) -> None:
        """Let a box stand for several."""
        box.times, box.parameters = sum(b.times for b in boxes), sum(b.parameters for b in boxes)
        (first, style), last = box.lines[0], boxes[-1].lines[0][0]
        name = f"{first} … {last}"
        if len(name) > LABEL:  # layers.0 … 11.mlp
            head = _alike(first, last).rstrip("0123456789")
            tail = _alike(first[::-1][: -len(head) or None], last[::-1])[::-1].lstrip("0123456789")
            name = f"{first.removesuffix(tail)} … {last.removeprefix(head)}"
        facts = " · ".join([f"{box.times} × {box.row.name}", *_parameters(box.parameters)])
        failed = [line for line in boxes[-1].lines if line[1] == "failed"]
        name = first if first == last.partition(" #")[0] or box.kind == "join" else name
        box.lines = [(name, style), *([] if box.kind == "join" else [(facts, "kind")]), *failed]

    def merge(self, into: Mapping[Box, Box]) -> None:
        """Draw the arrows of boxes that share one from and to that one, those back to an earlier turn left out."""
        arrows, self.arrows, self.known = self.arrows, [], set()
        self.boxes = [box for box in self.boxes if box not in into]
        place = {box: i for i, box in enumerate(self.boxes)}
        for box in self.boxes:
            box.above, box.below = [], []
        for arrow in arrows:
            arrow.start, arrow.end = into.get(arrow.start, arrow.start), into.get(arrow.end, arrow.end)
            if place[arrow.start] < place[arrow.end]:
                self.connect(arrow)


def _alike(one: str, other: str) -> str:
    """The beginning that two texts share."""
    return one[: next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)]


def _parameters(number: int) -> list[str]:
    return [f"{count(number)} parameters"] if number else []


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
