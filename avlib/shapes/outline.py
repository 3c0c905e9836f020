"""A trace as an outline, and its entries as columns of text.

Siblings share an entry only if everything about them is equal, and everything inside them: sizes, formulas, dtypes,
parameters, FLOPs, bytes and source lines; except for numbers in names, and the number of similar tensors they are
given. Times and statistics are not compared; they are shown of the first.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple

from .dividing import divided
from .formula import Formula
from .rows import Recording, Row, TensorInfo, bracketed, count, memory, plural, portable, seconds, together, total

PERIOD = 8  # the most siblings that repeat as one group
LONG = 8  # letters of a formula that may get a name
SHARED, SHARE = 5, 0.1  # rows, and part of all rows, that have such a formula
MOST = 12  # groups of outputs of one row that are listed


@dataclass(slots=True)
class Node:
    """A row, with equal siblings and the rows inside it."""

    row: Row
    name: str  # relative to its parent: `layers.0`
    inner: list[Node] = field(default_factory=list)
    alike: list[Node] = field(default_factory=list)  # all that it stands for, with itself; empty for one alone
    every: int = 1  # their distance among the siblings
    skipped: int = 0  # rows before it that are not shown
    parameters: int = 0  # of the module and everything inside that was not counted before
    names: dict[str, Formula] = field(default_factory=dict)  # of formulas that many rows share

    @property
    def label(self) -> str:
        """`layers.0 … layers.11 (12 alike)`."""
        if not self.alike:
            return self.name
        turn = f", every {self.every}{ {2: 'nd', 3: 'rd'}.get(self.every, 'th') }" if self.every > 1 else ""
        ends = dict.fromkeys((self.name, self.alike[-1].name))
        return f"{' … '.join(ends)} ({len(self.alike)} alike{turn})"

    @property
    def rows(self) -> list[Row]:
        """All rows that it stands for."""
        return [node.row for node in self.alike] or [self.row]

    @property
    def outputs(self) -> list[tuple[str, TensorInfo]]:
        return together(self.row.outputs, short=True)[:MOST]


def walked(nodes: list[Node]) -> Iterator[Node]:
    """Yield entries, each before those inside it."""
    for node in nodes:
        yield node
        yield from walked(node.inner)


def outline(trace: Recording, depth: int | None = None, ops: bool = False, period: int = PERIOD) -> list[Node]:
    """Return the outermost rows, each with the rows inside it.

    `depth` is the deepest level; `ops` adds operations (a failed one is always there). Equal siblings share an entry,
    also if up to `period` of them repeat in turn; 0 shows each.
    """
    nodes: dict[int | None, Node] = {}
    roots: list[Node] = []
    names, counts = shared_formulas(trace), parameters_of(trace)
    for row in trace.rows:
        hidden = (depth is not None and row.depth > depth) or (row.kind == "op" and not ops and row.parent is not None)
        if row.open or not hidden:
            parent = None if row.parent is None else trace.rows[row.parent]
            node = Node(row, row.inside(parent), parameters=counts[row.index], names=names)
            (nodes[row.parent].inner if row.parent in nodes else roots).append(node)
            nodes[row.index] = node
    kinds = kinds_of(trace)
    for node in reversed(nodes.values()):
        node.inner = _folded(node.inner, kinds, period)
    return _folded(roots, kinds, period)


def parameters_of(trace: Recording) -> list[int]:
    """Return the parameters of each row with everything inside."""
    counts = [row.parameters for row in trace.rows]
    for row in reversed(trace.rows):
        if row.parent is not None:
            counts[row.parent] += counts[row.index]
    return counts


def shortened(
    trace: Recording, most: int, depth: int | None = None, ops: bool = False, period: int = PERIOD
) -> tuple[list[Node], int, int]:
    """Return an outline of at most so many entries, its depth, and the number of rows left out.

    If the rows directly inside the outermost are more, the first and the last are kept. A depth keeps everything.
    """
    nodes = outline(trace, depth, ops, period)
    if (level := depth) is None:
        depths = [node.row.depth for node in walked(nodes)]
        if (level := fitting(depths, most)) < max(depths, default=0):
            nodes = outline(trace, level, ops, period)
        nodes = _kept(trace, nodes, most)
        for node in walked(nodes):
            node.inner = _kept(trace, node.inner, most)
    return nodes, level, len(trace.rows) - _shown(nodes)


def fitting(depths: Iterable[int], most: int) -> int:
    """Return the level down to which there are at most so many entries, but 1 if there is one."""
    counts = Counter(depths)
    fits = (level for level in counts if sum(n for depth, n in counts.items() if depth <= level) <= most)
    return max(*fits, min(max(counts, default=0), 1), 0)


def _kept(trace: Recording, nodes: list[Node], most: int) -> list[Node]:
    if len(nodes) <= most:
        return nodes
    head, left_out, tail = nodes[: most * 2 // 3], nodes[most * 2 // 3 : -(most // 3)], nodes[-(most // 3) :]
    tail[0].skipped = sum(1 + len(trace.within(row)) for node in left_out for row in node.rows)
    return head + tail


def _shown(nodes: list[Node]) -> int:
    return sum(len(node.rows) * (1 + _shown(node.inner)) for node in nodes)


def _folded(nodes: list[Node], kinds: dict[int, int], longest: int) -> list[Node]:
    found: list[Node] = []
    names = (re.sub(r"\d+", "#", node.name.partition(" #")[0]) for node in nodes)
    keys = [(kinds[node.row.index], name, bool(node.inner)) for node, name in zip(nodes, names, strict=True)]
    start = 0
    while start < len(nodes):
        period, saved = 1, 0
        for step in range(1, min(longest, (len(nodes) - start) // 2) + 1):
            end = start + step
            while end < len(nodes) and keys[end] == keys[end - step]:
                end += 1
            spared = (end - start) // step * step - step
            if spared > saved and (spared > 1 or nodes[start].inner):
                period, saved = step, spared
        end = start + period + saved
        for first in range(start, start + period):
            if saved:
                nodes[first].alike, nodes[first].every = nodes[first:end:period], period
            found.append(nodes[first])
        start = end
    return found


def kinds_of(trace: Recording) -> dict[int, int]:
    """Return a number for each row, the same for equal ones."""
    numbers: dict[tuple, int] = {}
    inside: defaultdict[int | None, list[tuple]] = defaultdict(list)
    kinds: dict[int, int] = {}
    for row in reversed(trace.rows):  # rows inside come later, so they have their numbers first
        given, made = ([info.kind for info in infos] for infos in (row.inputs, row.outputs))
        key = (
            *(row.kind, row.name, row.source, row.parameters, row.shared, row.flops, row.flops_at_least, row.bytes),
            # Layers that are given a growing cache are equal: what they read of it is inside
            *(row.error, frozenset(given) if row.kind == "module" else tuple(given), tuple(made)),
            *inside[row.index],
        )
        kinds[row.index] = numbers.setdefault(key, len(numbers))
        parent = None if row.parent is None else trace.rows[row.parent]
        name = row.inside(parent).partition(" #")[0]  # the third call of a cell is like the second
        inside[row.parent].append((name, kinds[row.index]))
    return kinds


class Column(NamedTuple):
    """A column: its title, its lines for an entry, its least width."""

    title: str
    lines: Callable[[Node], list[str]] | None
    least: int | None = None  # the smallest width; None is a column of numbers, which is never narrowed
    tail: float | None = None  # the part of a text that does not fit which is its end; None is wrapped


def _outputs(node: Node) -> list[str]:
    if not node.row.outputs:
        return ["failed" if node.row.open else "no tensor"]
    named = len(node.row.outputs) > 1
    more = len(together(node.row.outputs)) - MOST
    lines = [f"{name} {info.size}".strip() if named else info.size for name, info in node.outputs]
    return lines + [f"and {more} more"] * (more > 0)


def shared_formulas(trace: Recording) -> dict[str, Formula]:
    """Return short names for the formulas that many rows share: F for `(T - 400)//320 + 1`."""
    uses: Counter[str] = Counter()
    known: dict[str, Formula] = {}
    for row in trace.rows:
        found = {f._key: f for info in row.outputs for f in info.formulas or () if f is not None and f.names}
        known |= found
        uses.update(found.keys())
    letters = [letter for letter in "FNLMKPQ" if letter not in trace.dims]
    names: dict[str, Formula] = {}
    for key, times in uses.most_common():
        many = times >= max(SHARED, SHARE * len(trace.rows)) and letters
        if many and len(str(known[key])) >= LONG and brief(known[key], names) == str(known[key]):
            letter = letters[0] if known[key].window or "N" not in letters else "N"
            letters.remove(letter)
            names[letter] = known[key]
    return names


def brief(formula: Formula | None, names: Mapping[str, Formula]) -> str:
    """Write a formula with names for what it shares: `B*F`, `N + 1`."""
    for name, shared in names.items() if formula is not None and len(str(formula)) >= LONG else ():
        for more in (0, 1, -1, 2):
            quotient, rest = divided(formula - more, shared)
            if not rest.terms and quotient.terms:
                return str(quotient * Formula(name) + more)
    return "?" if formula is None else str(formula)


def meanings(trace: Recording) -> list[str]:
    """Return a sentence on each named formula: its size here, its hop and its field."""
    found = []
    for name, formula in shared_formulas(trace).items():
        window, text = formula.window, f"{name} = {formula} = {formula.value_at(trace.dims)}"
        if window is not None and window.hop > 1:
            rate, lengths = trace.rates.get(window.name), {"hop": window.hop, "field": window.length}
            sizes = {title: Fraction(length, window.factor) for title, length in lengths.items() if length > 0}
            parts = (f"{title} {f'{float(1000 * n / rate):.4g} ms' if rate else n}" for title, n in sizes.items())
            text += f": {', '.join(parts)}" + ("" if rate else f" of {window.name}")
        found.append(text)
    return found


def formulas_of(info: TensorInfo, names: Mapping[str, Formula]) -> str:
    """The formulas of a tensor with their short names; empty if it has none."""
    return "" if info.formulas is None else bracketed(brief(formula, names) for formula in info.formulas)


def _each(text: Callable[[TensorInfo, Mapping[str, Formula]], str]) -> Callable[[Node], list[str]]:
    """A line for each output; one line if all are the same."""

    def lines(node: Node) -> list[str]:
        found = [text(info, node.names) for _, info in node.outputs]
        return found[:1] if len(set(found)) == 1 else found

    return lines


def _parameters(node: Node) -> str:
    """The parameters with everything inside; `shared` if counted before."""
    if node.row.kind == "op" or not (node.parameters or node.row.shared):
        return ""
    return count(node.parameters) if node.parameters else "shared"


COLUMNS = {
    "output": Column("output", _outputs, 20),
    "formula": Column("formula", _each(formulas_of), 30),
    "dtype": Column("dtype", _each(lambda info, _: info.dtype), 7),
    "device": Column("device", _each(lambda info, _: info.device), 6),
    "parameters": Column("params", lambda node: [_parameters(node)]),
    "flops": Column("FLOPs", lambda node: [node.row.flops_text]),
    "memory": Column("memory", lambda node: [memory(node.row.bytes)]),
    "seconds": Column("time", lambda node: [seconds(node.row.seconds)]),
    "range": Column("range", _each(lambda info, _: info.statistics.range if info.statistics else ""), 12),
    "bad": Column("NaN, Inf", _each(lambda info, _: info.statistics.bad if info.statistics else ""), 8),
    "source": Column("source", lambda node: [node.row.source.short if node.row.source else ""], 12, tail=1.0),
}


def useful_columns(trace: Recording, shown: list[Node]) -> dict[str, Column]:
    """Return the columns that say something about the entries shown, by name."""
    texts = {name: {text for node in shown for text in column.lines(node)} for name, column in COLUMNS.items()}
    same = [name for name in ("dtype", "device") if len(_values(trace, name)) < 2]  # the headline has it
    return {name: column for name, column in COLUMNS.items() if name not in same and texts[name] - {"", "0", "0 B"}}


def _values(trace: Recording, name: str) -> set[str]:
    return {getattr(info, name) for row in trace.rows for info in row.outputs}


def summed(rows: list[Row]) -> Row:
    """Return one row with the FLOPs and bytes of several."""
    whole = Row(0, "", 1, "module", "", None, 0)
    total([whole, *(replace(row, parent=0) for row in rows)])
    return whole


def headline(trace: Recording) -> str:
    """Return one line on the whole run: parameters, FLOPs, bytes, operations, dtype, device."""
    ops = sum(row.kind == "op" for row in trace.rows)
    parts = [f"{count(trace.parameters)} parameters"] if trace.parameters else []
    whole = summed([row for row in trace.rows if row.parent is None])  # explain may record several
    parts += [f"{whole.flops_text} FLOPs"] if whole.flops != 0 else []
    parts += [f"{memory(whole.bytes)} of activations"] if whole.bytes != 0 else []
    counts = f"{plural(len(trace.rows) - ops, 'module call')}, {plural(ops, 'operation')}"
    parts += [counts if trace.rows else "nothing was called"]
    parts += ["run without values"] if trace.fake else []
    parts += [value for name in ("dtype", "device") if len(values := _values(trace, name)) == 1 for value in values]
    return " · ".join(parts)


def facts(trace: Recording) -> list[tuple[str, str]]:
    """Return titles and texts on sizes, conditions and notes."""
    found = [("sizes", ", ".join(f"{name} = {size}" for name, size in trace.dims.items()))] if trace.dims else []
    found += [("with", meaning) for meaning in meanings(trace)]
    if trace.checked:
        texts = (f"{name} = {', '.join(map(str, sizes))}" for name, sizes in trace.checked.items())
        found.append(("formulas checked at", "; ".join(texts)))
    found += [("valid when", str(need)) for need in trace.requires]
    found += [(f"{name} is", meaning) for name, meaning in trace.unknown.items()]
    found += [("note", note) for note in trace.notes]
    return [(title, portable(" ".join(text.split()))) for title, text in found]


def troubles(trace: Recording) -> list[str]:
    """Return sentences on the failure and the first non-finite value."""
    found = []
    if failed := [row for row in trace.rows if row.open]:
        row = failed[-1]  # the innermost; those around it are open because of it
        at = f" at {row.source}" if row.source else ""
        found.append(f"{row.where} failed{at}: {' '.join(str(row.error).split())}")
        found += [f"its inputs: {'; '.join(map(str, row.inputs))}"] if row.inputs else []
    elif trace.error:
        found.append(f"failed: {' '.join(trace.error.split())}")
    if (bad := trace.first_bad) is not None:
        values = next(o.statistics for o in bad.outputs if o.statistics and not o.statistics.finite)
        at = f", {bad.source.short}" if bad.source else ""
        kinds = f"{values.nan:,} NaN, {values.inf:,} infinite"
        found.append(f"first value that is not finite: {bad.where}{at}, at {values.first_bad} ({kinds})")
    return list(map(portable, found))
