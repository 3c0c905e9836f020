"""The differences of two traces, and of a trace from expected shapes."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import ParameterError, ShapeError
from .formula import Formula, sizes
from .rendering import WIDTH, cut, report, wrapped
from .rows import Recording, Row, Statistics, TensorInfo, count, plural, together, width

SHOWN = 40  # changes that are listed
ALIGNED = 400  # operations of one call that are aligned by their longest common order; more, by counting each name
CLOSE = 1e-5  # the tolerance of values, relative to the larger one


class Difference(NamedTuple):
    """One difference of a row.

    `what` is "size" for the same formula at other sizes; "shape", "formula", "dtype", "device", "class", "parameters",
    "outputs", "values", "error", "missing" or "added".
    """

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.what in ("missing", "added"):
            return f"{self.what} {self.before or self.after}".strip()
        return f"{self.what} {self.before} → {self.after}"


@dataclass(frozen=True, slots=True)
class Change:
    """A changed row, with None for `row` or `other` if missing there."""

    row: Row | None
    other: Row | None
    differences: tuple[Difference, ...]
    inside: int = 0  # rows inside that are missing or added with it

    @property
    def label(self) -> str:
        return (self.row or self.other).where

    def __str__(self) -> str:
        more = f" (with {plural(self.inside, 'row')} inside)" if self.inside else ""
        return f"{self.label}: {'; '.join(map(str, self.differences))}{more}"


@dataclass(repr=False)
class Diff:
    """The differences of two traces in the order of the run."""

    names: tuple[str, str]
    dims: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)  # named sizes that differ
    changes: list[Change] = field(default_factory=list)
    rows: int = 0  # in both
    first: Change | None = None  # the first row with another outcome
    first_bad: tuple[Row | None, Row | None] = (None, None)  # first outputs that are not finite

    @property
    def same(self) -> bool:
        return not self.changes and not self.dims

    @property
    def missing(self) -> list[Row]:
        """Rows of the first trace alone, without those inside them."""
        return [change.row for change in self.changes if change.other is None]

    @property
    def added(self) -> list[Row]:
        """Rows of the second trace alone, without those inside them."""
        return [change.other for change in self.changes if change.row is None]

    def of(self, what: str) -> list[Change]:
        """Return the changes of one kind: "shape", "dtype", "formula", ..."""
        return [change for change in self.changes if any(d.what == what for d in change.differences)]

    @property
    def _sentences(self) -> list[str]:
        pairs = {name: ["–" if size is None else size for size in pair] for name, pair in self.dims.items()}
        moved = ", ".join(f"{name} {before} → {after}" for name, (before, after) in pairs.items())
        found = [f"sizes: {moved}"] if moved else []
        if self.same:
            found.append(f"no difference in {plural(self.rows, 'row')}")
        if self.changes:
            kinds = Counter(d.what for change in self.changes for d in dict.fromkeys(change.differences))
            words = {"size": "in size, as the same formula says"}
            parts = ", ".join(f"{number:,} {words.get(kind, kind)}" for kind, number in kinds.most_common())
            found.append(f"{plural(len(self.changes), 'change')}, {plural(self.rows, 'row')} in both: {parts}")
        if self.first:
            found.append(f"first difference: {self.first}")
        for name, bad, which in zip(self.names, self.first_bad, ("first", "second"), strict=True):
            if bad is not None:
                at = f" at {bad.source.short}" if bad.source else ""
                found.append(f"first value that is not finite in the {which}, {name}: {bad.label}{at}")
        return found

    @property
    def _listed(self) -> list[tuple[str, Change]]:
        """Changed modules, and operations outside them; similar changes share an entry."""
        modules = {change.row.index for change in self.changes if change.row and change.row.kind == "module"}
        found: dict[tuple, tuple[list[str], Change]] = {}
        for change in self.changes:
            row = change.row or change.other
            both = change.row is not None and change.other is not None
            if row.kind == "module" or not both or row.parent not in modules:
                key = re.sub(r"\d+", "#", change.label), change.differences, change.inside
                found.setdefault(key, ([], change))[0].append(change.label)
        return [
            (labels[0] + (f" … {labels[-1]} ({len(labels)} alike)" if len(labels) > 1 else ""), change)
            for labels, change in found.values()
        ]

    def __repr__(self) -> str:
        lines = [f"{self.names[0]} against {self.names[1]}"]
        for sentence in self._sentences:
            lines += wrapped(sentence)
        listed = self._listed
        lines += [""] * bool(listed)
        room = min(WIDTH // 2, max((width(label) for label, _ in listed[:SHOWN]), default=0))
        for label, change in listed[:SHOWN]:
            texts = [str(difference) for difference in change.differences]
            if width(label) <= room:
                label += " " * (room - width(label)) + f"  {texts.pop(0)}"
            lines += map(cut, [label, *(" " * (room + 2) + text for text in texts)])
        lines += [f"… and {len(listed) - SHOWN:,} more"] if len(listed) > SHOWN else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        listed = self._listed
        rows = [[[label], *zip(*change.differences, strict=True)] for label, change in listed[:SHOWN]]
        table = {"titles": ["row", "what", "first", "second"], "rows": rows, "more": max(0, len(listed) - SHOWN)}
        return report(f"{self.names[0]} against {self.names[1]}", self._sentences, tables=[table])


def diff(a: Recording, b: Recording) -> Diff:
    """Return the differences of `b` from `a`.

    Modules are aligned by path and call number, the operations inside one call by their order. Values are compared if
    both traces have statistics. Times, lines and files are not compared.
    """
    names = list(dict.fromkeys([*a.dims, *b.dims]))
    found = Diff((a.name or "trace", b.name or "trace"))
    found.dims = {n: (a.dims.get(n), b.dims.get(n)) for n in names if a.dims.get(n) != b.dims.get(n)}
    found.first_bad = (a.first_bad, b.first_bad)
    alignment = _Alignment(a, b)
    changes: dict[int, Change] = {}
    for number, (row, other) in enumerate(alignment.pairs):
        inside = 0
        if row is None:
            differences, inside = (Difference("added", "", _gist(other)),), len(b.within(other))
        elif other is None:
            differences, inside = (Difference("missing", _gist(row), ""),), len(a.within(row))
        else:
            found.rows += 1
            differences = tuple(_differences(row, other))
        if differences:
            changes[number] = Change(row, other, differences, inside)
    found.changes = list(changes.values())
    found.first = next((changes[number] for number in alignment.done if number in changes), None)
    return found


class _Alignment:
    """Pairs of rows of two traces, in the order of their beginnings."""

    def __init__(self, a: Recording, b: Recording):
        self.inner: tuple[dict, dict] = defaultdict(list), defaultdict(list)  # the rows directly inside each row
        for trace, inner in zip((a, b), self.inner, strict=True):
            for row in trace.rows:
                inner[row.parent].append(row)
        # A module that is called elsewhere, or in another order, is still the same call
        self.calls = tuple({(r.path, r.call): r for r in t.modules if r.parent is not None} for t in (a, b))
        self.taken: set[int] = set()  # rows of the second that have their partner
        self.pairs: list[tuple[Row | None, Row | None]] = []
        self.done: list[int] = []  # indices of the pairs, in the order of their ends
        self.align(None, None)

    def align(self, parent: int | None, other_parent: int | None) -> None:
        for row, other in _in_order(self.inner[0][parent], self.inner[1][other_parent]):
            if row is not None and other is None and row.kind == "module":
                found = self.calls[1].get((row.path, row.call))
                other = found if found is not None and found.index not in self.taken else None
            if other is not None and other.index in self.taken:
                continue
            if row is None and other.kind == "module" and (other.path, other.call) in self.calls[0]:
                continue  # it comes when its partner does
            number = len(self.pairs)
            self.pairs.append((row, other))
            if row is not None and other is not None:
                self.taken.add(other.index)
                self.align(row.index, other.index)
            self.done.append(number)


def _in_order(rows: list[Row], others: list[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    keys, other_keys = ([_key(row) for row in side] for side in (rows, others))
    if keys == other_keys:
        yield from zip(rows, others, strict=True)
    elif max(len(keys), len(other_keys)) > ALIGNED:
        yield from _in_turn(rows, others)
    else:
        matcher = difflib.SequenceMatcher(None, keys, other_keys, autojunk=False)
        for what, start, end, other_start, other_end in matcher.get_opcodes():
            if what == "equal":
                yield from zip(rows[start:end], others[other_start:other_end], strict=True)
            else:
                yield from ((row, None) for row in rows[start:end])
                yield from ((None, other) for other in others[other_start:other_end])


def _in_turn(rows: list[Row], others: list[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """Pair siblings of the same name by count: less exact, but fast."""
    waiting: dict[tuple, list[Row]] = defaultdict(list)
    for other in reversed(others):
        waiting[_key(other)].append(other)
    for row in rows:
        queue = waiting[_key(row)]
        yield row, queue.pop() if queue else None
    left = {other.index for queue in waiting.values() for other in queue}
    yield from ((None, other) for other in others if other.index in left)


def _key(row: Row) -> tuple:
    if row.parent is None:
        return ("root",)
    return ("op", row.name) if row.kind == "op" else ("module", row.path, row.call)


def _gist(row: Row) -> str:
    return ", ".join(str(info) for _, info in together(row.outputs)[:3])


def _differences(row: Row, other: Row) -> Iterator[Difference]:
    if row.kind == "module" and row.name != other.name:
        yield Difference("class", row.name, other.name)
    if (row.parameters, row.shared) != (other.parameters, other.shared):
        yield Difference("parameters", count(row.parameters), count(other.parameters))
    if row.error != other.error:
        yield Difference("error", row.error or "none", other.error or "none")
    if [info.path for info in row.outputs] != [info.path for info in other.outputs]:
        yield Difference("outputs", _gist(row) or "none", _gist(other) or "none")
        return
    for one, two in zip(row.outputs, other.outputs, strict=True):
        name = f"{one.path} " if one.path else ""
        if one.shape != two.shape:
            yield Difference("size" if _follows(one, two) else "shape", name + one.size, two.size)
        if one.formulas is not None and two.formulas is not None and one.formula != two.formula:
            yield Difference("formula", name + one.formula, two.formula)
        for what in ("dtype", "device"):
            if getattr(one, what) != getattr(two, what):
                yield Difference(what, name + getattr(one, what), getattr(two, what))
        known = one.statistics is not None and two.statistics is not None and one.shape == two.shape
        if known and _apart(one.statistics, two.statistics):
            yield Difference("values", name + str(one.statistics), str(two.statistics))


def _follows(one: TensorInfo, two: TensorInfo) -> bool:
    """Return True if two shapes follow the same formulas at other sizes."""
    known = one.formulas is not None and one.formulas == two.formulas
    return known and all(f is not None or a == b for f, a, b in zip(one.formulas, one.shape, two.shape, strict=True))


def _apart(one: Statistics, two: Statistics) -> bool:
    if (one.nan, one.inf, one.first_bad) != (two.nan, two.inf, two.first_bad) or (one.min is None) != (two.min is None):
        return True
    pairs = [(getattr(one, name), getattr(two, name)) for name in ("min", "max", "mean", "std")]
    known = [(a, b) for a, b in pairs if a is not None]
    scale = max((abs(value) for pair in known for value in pair), default=0.0)
    return any(abs(a - b) > CLOSE * scale for a, b in known)


def check(trace: Recording, expected: Mapping[Any, Any]) -> None:
    """Raise ShapeError if a module's output is not as expected; for tests.

        check(trace, {"encoder": "B 8*((T-2800)//2560+1) 768", "head": (2, "_", 10), ("cell", 3): "... 64"})

    A number is compared with the size in this trace. A formula is compared with the formula, at every size; if the
    trace has no named sizes, with the size. A name that is none of the trace's sizes stands for the size where it is
    first used, and must be the same everywhere else. `_` is any size, `...` any number of sizes.

    Args:
        expected: for paths, as in `Trace.formulas()` (`"encoder"`, `"encoder #2"`, `"encoder.hidden_states[3]"`, `""`
            for the whole), or for pairs of path and call number, the shape: text, a tuple of numbers, names, formulas,
            `"_"` or None, and `...`, or one of these alone for a tensor of one axis. A path with several outputs means
            the first of them.

    Raises:
        ShapeError: a module was not called, or has another shape; the message names the nearest.
        ParameterError: the expected value is no shape.
    """
    outputs: dict[str, TensorInfo] = {}
    for row, path, info in trace.named_outputs():
        outputs.setdefault(row.full_path, info)
        outputs.setdefault(path.removeprefix("."), info)
    bound: dict[str, Formula | int | None] = {}
    wrong: list[tuple[str, str, str, str]] = []
    for key, value in expected.items():
        path, call = key if isinstance(key, tuple) else (key, 1)
        name = f"{path} #{call}" if call > 1 else path
        axes = _axes(value)
        text = f"({', '.join('...' if axis is ... else '_' if axis is None else str(axis) for axis in axes)})"
        info = outputs.get(name)
        if info is None:
            called = any(row.full_path == name for row in trace.modules)
            found = "it gave no tensor" if called else "no module of this path was called"
        elif reason := _mismatch(axes, info, trace, dict(bound), bound):
            found = f"{_described(info)}: {reason}"
        else:
            continue
        shown = name if info is None else name or trace.name
        wrong.append((shown, found, text, _nearest(axes, name, outputs, trace)))
    if wrong:
        (name, found, text, near), *others = wrong
        also = "".join(f" Also {n or 'the whole'}: {f}; expected {t}." for n, f, t, _ in others[:10])
        raise ShapeError(name or "the whole", found, text, (near + also).strip())


def _axes(value: Any) -> list[Any]:
    """The expected sizes: formulas, None for any size, `...` for any number."""
    if isinstance(value, str):
        try:
            parsed = sizes(value.replace("...", " ELLIPSIS "))
        except SyntaxError:
            raise ParameterError("expected", repr(value), "sizes, separated by spaces") from None
        axes: list[Any] = [... if axis is not None and axis.names == ("ELLIPSIS",) else axis for axis in parsed]
    elif isinstance(value, tuple | list):
        axes = [axis for part in value for axis in (_axes(part) if not isinstance(part, tuple | list) else [part])]
    elif isinstance(value, int | Formula) and not isinstance(value, bool):
        axes = [Formula(value)]
    else:
        axes = [value]
    for axis in axes:
        if axis is not None and axis is not ... and not isinstance(axis, Formula):
            raise ParameterError("expected", repr(axis), "a size: a number, a formula, _ or ...")
    if axes.count(...) > 1:
        raise ParameterError("expected", repr(value), "at most one ...")
    return axes


def _mismatch(
    axes: Sequence[Any], info: TensorInfo, trace: Recording, trial: dict[str, Any], bound: dict[str, Any] | None = None
) -> str:
    """The reason for a mismatch, empty without one; extends `bound`."""
    count = len(info.shape)
    if ... in axes:
        at = axes.index(...)
        if len(axes) - 1 > count:
            return f"it has {count} axes"
        axes = [*axes[:at], *[None] * (count - len(axes) + 1), *axes[at + 1 :]]
    if len(axes) != count:
        return f"it has {count} axes, not {len(axes)}"
    formulas = info.formulas or (None,) * count
    for number, (axis, formula, size) in enumerate(zip(axes, formulas, info.shape, strict=True)):
        if axis is None:
            continue
        reason = _axis_mismatch(axis, formula, size, info.formulas is not None, trace, trial)
        if reason:
            return f"axis {number} {reason}"
    if bound is not None:
        bound.update(trial)
    return ""


def _axis_mismatch(
    axis: Formula, formula: Formula | None, size: int | None, named: bool, trace: Recording, bound: dict[str, Any]
) -> str:
    name, shown = str(axis), "not known" if size is None else size
    if axis.constant is not None:
        return "" if size == axis.constant else f"is {shown}, not {axis}"
    if name not in trace.dims and axis.is_name:
        here = formula if formula is not None else size
        if here is None:
            return "is not known"
        return "" if bound.setdefault(name, here) == here else f"is {here}, and {name} is {bound[name]}"
    axis = axis.substitute(**{key: value for key, value in bound.items() if key in axis.names})
    if unknown := [key for key in axis.names if key not in trace.dims]:
        return f"cannot be compared with {axis}: {', '.join(unknown)} is no size of the trace, nor used alone before"
    here = axis.evaluate(**trace.dims)
    if size != here:
        return f"is {shown}, and {axis} is {here} here"
    if named and formula is None:
        return f"is {size} here, as {axis} is, but no formula is verified for it; give the number, or _"
    if formula is not None and formula != axis:
        return f"is {size} here, as {axis} is, but follows {formula}"
    return ""


def _described(info: TensorInfo) -> str:
    return info.formula + (f" = {info.size}" if info.formula != info.size else "")


def _nearest(axes: Sequence[Any], name: str, outputs: Mapping[str, TensorInfo], trace: Recording) -> str:
    """Other modules with the expected shape, or close by."""
    fitting, paths = [], list(outputs)
    if name in outputs:
        fitting = [path for path, info in outputs.items() if path != name and not _mismatch(axes, info, trace, {})]
        at = paths.index(name)
        near = [path for path in paths[max(0, at - 1) : at + 2] if path != name]
    else:
        last = name.rsplit(".", 1)[-1].lower()
        near = difflib.get_close_matches(name, paths, 3, 0.6)
        near = near or [path for path in paths if last and last in path.lower()] or paths
    distinct: dict[int, str] = {}
    for path in fitting or near:
        distinct.setdefault(id(outputs[path]), path)
    texts = [f"{path or 'the whole'} {_described(outputs[path])}" for path in list(distinct.values())[:3]]
    title = "This shape is that of" if fitting else "Nearest"
    return f"{title}: {'; '.join(texts)}." if texts else ""
