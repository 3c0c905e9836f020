"""A trace as an outline: modules in modules, and one entry for siblings that are equal.

Siblings are put together only where everything that a table says of them is equal, and everything inside them: sizes,
formulas, dtypes, parameters, FLOPs, bytes and source lines; but for numbers in names of tensors, and for how many of
a kind they are given. Times and the statistics of values are never equal; where those are shown, they are of the first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .rows import Row, TensorInfo, Trace
from .wording import kind, local

PERIOD = 8  # how many siblings may repeat as one group


@dataclass(slots=True)
class Node:
    """A row, with those that it stands for and those inside it."""

    row: Row
    name: str  # below its parent: `layers.0`
    inner: list[Node] = field(default_factory=list)
    alike: list[Row] = field(default_factory=list)  # all that it stands for, itself included; empty for one alone
    last: str = ""  # name of the last of them
    every: int = 1  # they are every so-manieth of their siblings
    hidden: int = 0  # how many rows inside are not shown
    skipped: int = 0  # how many siblings before it are not shown
    parameters: int = 0  # of the module and of all inside it that was not counted before

    @property
    def label(self) -> str:
        """`layers.0 … layers.11 (12 alike)`."""
        if not self.alike:
            return self.name
        turn = f", every {self.every}{ {2: 'nd', 3: 'rd'}.get(self.every, 'th') }" if self.every > 1 else ""
        name = self.name if self.last == self.name else f"{self.name} … {self.last}"
        return f"{name} ({len(self.alike)} alike{turn})"

    @property
    def times(self) -> int:
        return len(self.alike) or 1

    def walk(self) -> Iterator[Node]:
        yield self
        for node in self.inner:
            yield from node.walk()


def outline(trace: Trace, depth: int | None = None, ops: bool = False, fold: bool = True) -> list[Node]:
    """The outermost rows of a trace, each with what is inside it.

    Args:
        trace: what is shown.
        depth: how deep; the first row has depth 0. None for everything.
        ops: with operations; one that failed is there in any case.
        fold: put equal siblings together.
    """
    nodes: dict[int, Node] = {}
    roots: list[Node] = []
    for row in trace.rows:
        parent = None if row.parent is None else trace.rows[row.parent]
        hidden = (depth is not None and row.depth > depth) or (row.kind == "op" and not ops and row.parent is not None)
        if hidden and not row.open:
            outer = row
            while outer.parent is not None and outer.index not in nodes:
                outer = trace.rows[outer.parent]
            if outer.index in nodes:
                nodes[outer.index].hidden += 1
            continue
        node = nodes[row.index] = Node(row, local(row, parent))
        outer = None if parent is None else nodes.get(parent.index)
        (roots if outer is None else outer.inner).append(node)
    _count_parameters(trace, nodes)
    if not fold:
        return roots
    kinds = kinds_of(trace)
    for node in reversed(nodes.values()):
        node.inner = _folded(node.inner, kinds)
    return _folded(roots, kinds)


def hidden_in(nodes: list[Node]) -> int:
    """How many rows an outline leaves out, those in alike ones counted for each."""
    return sum(node.skipped + node.times * (node.hidden + hidden_in(node.inner)) for node in nodes)


def _count_parameters(trace: Trace, nodes: dict[int, Node]) -> None:
    counts = [row.parameters for row in trace.rows]
    for row in reversed(trace.rows):
        if row.parent is not None:
            counts[row.parent] += counts[row.index]
    for index, node in nodes.items():
        node.parameters = counts[index]


def fitting(
    trace: Trace, most: int, depth: int | None = None, ops: bool = False, fold: bool = True
) -> tuple[list[Node], int]:
    """The outline down to the depth at which it has at most so many entries, and that depth.

    Where the rows right inside the outermost are more, the first and the last of them are kept. With a depth,
    everything down to there.
    """
    nodes = outline(trace, depth, ops, fold)
    if depth is not None:
        return nodes, depth
    counts = Counter(node.row.depth for root in nodes for node in root.walk())
    deepest = max(counts, default=0)
    fits = max((level for level in counts if sum(counts[i] for i in range(level + 1)) <= most), default=0)
    fits = max(fits, min(deepest, 1))
    if fits < deepest:
        nodes = outline(trace, fits, ops, fold)
    return [_shortened(node, most) for node in _kept(nodes, most)], fits


def _shortened(node: Node, most: int) -> Node:
    node.inner = [_shortened(inner, most) for inner in _kept(node.inner, most)]
    return node


def _kept(nodes: list[Node], most: int) -> list[Node]:
    """The first and the last of too many."""
    if len(nodes) <= most:
        return nodes
    head, tail = nodes[: most * 2 // 3], nodes[len(nodes) - most // 3 :]
    tail[0].skipped = sum(
        node.times * (1 + hidden_in(node.inner) + _size(node.inner)) for node in nodes[len(head) : -len(tail)]
    )
    return head + tail


def _size(nodes: list[Node]) -> int:
    return sum(node.times * (1 + _size(node.inner)) for node in nodes)


def _folded(nodes: list[Node], kinds: dict[int, int]) -> list[Node]:
    """Siblings, with those put together that repeat."""
    found: list[Node] = []
    names = (re.sub(r"\d+", "#", node.name.partition(" #")[0]) for node in nodes)
    keys = [(kinds[node.row.index], name, bool(node.inner)) for node, name in zip(nodes, names, strict=True)]
    start = 0
    while start < len(nodes):
        period, times, most = 1, 1, 0
        for step in range(1, min(PERIOD, (len(nodes) - start) // 2) + 1):
            end = start + step
            while end < len(nodes) and keys[end] == keys[end - step]:
                end += 1
            repeats = (end - start) // step
            saved = (repeats - 1) * step
            if repeats > 1 and saved > most and (saved > 1 or nodes[start].inner):
                period, times, most = step, repeats, saved
        for offset in range(period):
            node = nodes[start + offset]
            if times > 1:
                same = nodes[start + offset : start + period * times : period]
                node.alike, node.last, node.every = [other.row for other in same], same[-1].name, period
            found.append(node)
        start += period * times
    return found


def kinds_of(trace: Trace) -> dict[int, int]:
    """A number for each row, the same for rows that are equal with all that is inside them."""
    numbers: dict[tuple, int] = {}
    tensors: dict[int, tuple] = {}
    inside: dict[int, list[tuple]] = {}
    kinds: dict[int, int] = {}

    def of(info: TensorInfo) -> tuple:
        found = tensors.get(id(info))
        if found is None:
            finite = info.statistics is None or info.statistics.finite
            found = tensors[id(info)] = (*kind(info), finite)
        return found

    for row in reversed(trace.rows):  # what is inside comes later, so it has its number first
        parent = None if row.parent is None else trace.rows[row.parent]
        key = (
            *(row.kind, row.name, row.source, row.parameters, row.shared, row.flops, row.flops_at_least, row.bytes),
            row.error,
            # A cache that grows from layer to layer makes them no less alike: what is read of it is inside
            frozenset(map(of, row.inputs)) if row.kind == "module" else tuple(map(of, row.inputs)),
            tuple(map(of, row.outputs)),
            tuple(inside.pop(row.index, ())),
        )
        kinds[row.index] = numbers.setdefault(key, len(numbers))
        if parent is not None:
            name = local(row, parent).partition(" #")[0]  # the third call of a cell is like the second
            inside.setdefault(parent.index, []).append((name, kinds[row.index]))
    return kinds
