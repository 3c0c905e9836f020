"""The differences of two traces, and of a trace from expected shapes."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import count, pairwise
from typing import Any, NamedTuple

from ..errors import ParameterError, ShapeError
from .formula import Formula, sizes
from .outline import Column
from .rendering import grid, report, wrapped
from .rows import Recording, Row, Statistics, TensorInfo, bracketed, plural, together
from .rows import count as amount

SHOWN = 40  # changes that are listed
COLUMNS = [Column("row", None, 24, tail=0.5), *(Column(title, None, 24) for title in ("what", "first", "second"))]
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


class Change(NamedTuple):
    """A changed row, with None for `row` or `other` if missing there."""

    row: Row | None
    other: Row | None
    differences: tuple[Difference, ...]
    inside: int = 0  # rows inside that are missing or added with it

    @property
    def either(self) -> Row:
        return self.row or self.other

    def __str__(self) -> str:
        more = f" (with {plural(self.inside, 'row')} inside)" if self.inside else ""
        return f"{self.either.where}: {'; '.join(map(str, self.differences))}{more}"


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
        moved = ", ".join(f"{name} {before or '–'} → {after or '–'}" for name, (before, after) in self.dims.items())
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
    def _table(self) -> dict[str, Any]:
        """Changed modules, and operations outside them; similar changes share a row."""
        modules = {change.row.index for change in self.changes if change.row and change.row.kind == "module"}
        found: dict[tuple, list[Change]] = {}
        for change in self.changes:
            if change.either.kind == "module" or None in change[:2] or change.row.parent not in modules:
                key = re.sub(r"\d+", "#", change.either.where), *change[2:]
                found.setdefault(key, []).append(change)
        ends = ((alike[0].either.where, alike[-1].either.where, len(alike), alike[0]) for alike in found.values())
        labels = ((f"{a} … {b} ({n} alike)" if n > 1 else a, change.differences) for a, b, n, change in ends)
        rows = [[[label], *zip(*differences, strict=True)] for label, differences in labels]
        return {"titles": [column.title for column in COLUMNS], "rows": rows[:SHOWN], "more": max(0, len(rows) - SHOWN)}

    def __repr__(self) -> str:
        lines, found = [f"{self.names[0]} against {self.names[1]}"], self._table
        for sentence in self._sentences:
            lines += wrapped(sentence)
        lines += ["", *grid(COLUMNS, found["rows"])] if found["rows"] else []
        lines += [f"… and {found['more']:,} more"] if found["more"] else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return report(f"{self.names[0]} against {self.names[1]}", self._sentences, tables=[self._table])


def diff(a: Recording, b: Recording) -> Diff:
    """Return the differences of `b` from `a`.

    Modules are aligned by path and call number, the operations inside one call by their order. Values are compared if
    both traces have statistics. Times, lines and files are not compared.
    """
    found = Diff((a.name or "trace", b.name or "trace"))
    found.dims = {n: (a.dims.get(n), b.dims.get(n)) for n in a.dims | b.dims if a.dims.get(n) != b.dims.get(n)}
    found.first_bad = (a.first_bad, b.first_bad)
    for row, other in _paired(a, b):
        inside = 0
        if row is None:
            differences, inside = (Difference("added", "", _gist(other)),), len(b.within(other))
        elif other is None:
            differences, inside = (Difference("missing", _gist(row), ""),), len(a.within(row))
        else:
            found.rows += 1
            differences = tuple(_differences(row, other))
        if differences:
            found.changes.append(Change(row, other, differences, inside))
    # A module begins before what is inside it, and ends after it
    ended = (change for change, after in pairwise(found.changes) if after.either.depth <= change.either.depth)
    found.first = next(ended, found.changes[-1] if found.changes else None)
    return found


def _paired(a: Recording, b: Recording) -> list[tuple[Row | None, Row | None]]:
    """Pairs of rows in the order of their beginnings, without rows inside those that one trace alone has."""
    groups: dict[Any, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for side, trace in enumerate((a, b)):
        for row in trace.rows:
            # A module that is called elsewhere, or in another order, is still the same call
            groups[row.kind, row.full_path][side].append(row)
    partners: dict[int, Row] = {}
    for (kind, _), sides in groups.items():
        keys = [[row.name if kind == "op" else "" for row in rows] for rows in sides]
        if max(map(len, keys)) > ALIGNED:
            # Equal names are numbered, and aligned by that: less exact, but fast
            seen = [defaultdict(count) for _ in keys]
            keys = [[(name, next(of[name])) for name in names] for names, of in zip(keys, seen, strict=True)]
        for start, other, length in difflib.SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks():
            partners |= {sides[0][start + i].index: sides[1][other + i] for i in range(length)}
    taken = {row.index: index for index, row in partners.items()}
    paired, others = {None, *partners}, {None, *taken}
    found = [(row.index, 0, row, partners.get(row.index)) for row in a.rows if row.parent in paired]
    place = -1
    for row in b.rows:
        place = max(place, taken.get(row.index, -1))
        if row.index not in taken and row.parent in others:
            found.append((place, row.index + 1, None, row))
    return [(row, other) for _, _, row, other in sorted(found, key=lambda entry: entry[:2])]


def _gist(row: Row) -> str:
    return ", ".join(str(info) for _, info in together(row.outputs)[:3])


def _differences(row: Row, other: Row) -> Iterator[Difference]:
    if row.kind == "module" and row.name != other.name:
        yield Difference("class", row.name, other.name)
    if (row.parameters, row.shared) != (other.parameters, other.shared):
        yield Difference("parameters", amount(row.parameters), amount(other.parameters))
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
    mine, other = astuple(one), astuple(two)
    if mine[4:] != other[4:] or None in (one.min, two.min):  # counts of values that are not finite
        return mine != other
    scale = max(map(abs, mine[:4] + other[:4]))
    return any(abs(a - b) > CLOSE * scale for a, b in zip(mine[:4], other[:4], strict=True))


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
        axes, trial, info = _axes(value), dict(bound), outputs.get(name)
        if info is None:
            called = any(row.full_path == name for row in trace.modules)
            found = "it gave no tensor" if called else "no module of this path was called"
        elif reason := _mismatch(axes, info, trace, trial):
            found = f"{_described(info)}: {reason}"
        else:
            bound = trial
            continue
        text = bracketed({None: "_", ...: "..."}.get(axis, axis) for axis in axes)
        wrong.append((name or trace.name or "the whole", found, text, _nearest(axes, name, outputs, trace)))
    if wrong:
        (name, found, text, near), *others = wrong
        also = "".join(f" Also {n}: {f}; expected {t}." for n, f, t, _ in others[:10])
        raise ShapeError(name, found, text, (near + also).strip())


def _axes(value: Any) -> list[Any]:
    """The expected sizes: formulas, None for any size, `...` for any number."""
    axes: list[Any] = []
    for part in value if isinstance(value, tuple | list) else (value,):
        if isinstance(part, str):
            parsed = sizes(part.replace("...", " ELLIPSIS "))
            axes += [... if axis is not None and axis.names == ("ELLIPSIS",) else axis for axis in parsed]
        elif part is None or part is ...:
            axes.append(part)
        elif isinstance(part, int | Formula) and not isinstance(part, bool):
            axes.append(Formula(part))
        else:
            raise ParameterError("expected", repr(part), "a size: a number, a formula, _ or ...")
    if axes.count(...) > 1:
        raise ParameterError("expected", repr(value), "at most one ...")
    return axes


def _mismatch(axes: Sequence[Any], info: TensorInfo, trace: Recording, bound: dict[str, Any]) -> str:
    """The reason for a mismatch, empty without one; binds free names."""
    count = len(info.shape)
    if ... in axes:
        at = axes.index(...)
        if len(axes) - 1 > count:
            return f"it has {count} axes"
        axes = [*axes[:at], *[None] * (count - len(axes) + 1), *axes[at + 1 :]]
    if len(axes) != count:
        return f"it has {count} axes, not {len(axes)}"
    for number, axis in enumerate(axes):
        if axis is not None and (reason := _axis_mismatch(axis, info, number, trace, bound)):
            return f"axis {number} {reason}"
    return ""


def _axis_mismatch(axis: Formula, info: TensorInfo, number: int, trace: Recording, bound: dict[str, Any]) -> str:
    size, formula = info.shape[number], info.formulas[number] if info.formulas else None
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
    if info.formulas and formula != axis:
        other = f"follows {formula}" if formula else "no formula is verified for it; give the number, or _"
        return f"is {size} here, as {axis} is, but {other}"
    return ""


def _described(info: TensorInfo) -> str:
    return info.formula + (f" = {info.size}" if info.formula != info.size else "")


def _nearest(axes: Sequence[Any], name: str, outputs: Mapping[str, TensorInfo], trace: Recording) -> str:
    """Other modules with the expected shape, or close by."""
    others = {path: info for path, info in outputs.items() if path != name}
    near = [path for path, info in others.items() if name in outputs and not _mismatch(axes, info, trace, {})]
    title = "This shape is that of" if near else "Nearest"
    near = near or difflib.get_close_matches(name, others, 3, 0.6)
    last = name.rsplit(".", 1)[-1].lower()
    near = near or [path for path in others if last and last in path.lower()] or list(others)
    distinct = {id(outputs[path]): path for path in reversed(near)}
    texts = [f"{path or 'the whole'} {_described(outputs[path])}" for path in reversed(distinct.values())]
    return f"{title}: {'; '.join(texts[:3])}." if texts else ""
