"""A trace as a picture of its flow, with shapes between stages.

Arrows follow the tensors themselves: a stage is drawn below the stage that made its input. Operations between stages
are named on the arrows, and drawn as blocks where streams meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..errors import ParameterError
from . import layout
from .layout import Arrow, Box
from .outline import kinds_of, outline
from .rows import Recording, Row, TensorInfo, count, together

STAGES = 60  # the most blocks of a picture

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
    graph = _Graph(trace, depth)
    while sum(box.kind in ("stage", "join") for box in graph.boxes) > STAGES and depth > 0:
        depth -= 1
        graph = _Graph(trace, depth)
    boxes = graph.boxes or [Box("output", [("nothing was called", "name")])]
    return layout.svg(trace.name or "a trace", boxes, graph.arrows)


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
            self.takes(box, [info])
            self.boxes += [box] * bool(box.above)
        self.contract()
        for box in self.boxes:  # each box comes after those above it
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

    def contract(self) -> None:
        """Let equal stages that follow one another directly share a block."""
        into: dict[Box, Box] = {}
        for box in self.boxes:
            if box.kind != "stage" or box in into:
                continue
            last = box
            while True:
                below = {other for other in last.below if other.kind != "output"}
                following = [o for o in below if o.kind == "stage" and o.alike == box.alike and o not in into]
                if len(following) != 1:
                    break
                (other,) = following
                # Their other inputs and outputs are the same, as those of the steps of a loop
                if not (
                    below - {other} <= set(box.below) and {a for a in other.above if a is not last} <= set(box.above)
                ):
                    break
                into[other] = box
                box.times += 1
                box.parameters += other.parameters
                last = other
            if last is not box:
                facts = [f"{box.times} × {box.row.name}", *_parameters(box.parameters)]
                failed = [line for line in last.lines if line[1] == "failed"]
                name = f"{box.lines[0][0]} … {last.lines[0][0]}"
                box.lines = [(name, "name"), (" · ".join(facts), "kind"), *failed]
        arrows, self.arrows, self.known = self.arrows, [], set()
        self.boxes = [box for box in self.boxes if box not in into]
        for box in self.boxes:
            box.above, box.below = [], []
        for arrow in arrows:
            if arrow.end not in into:  # arrows between stages that share a block go
                arrow.start = into.get(arrow.start, arrow.start)
                self.connect(arrow)


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
