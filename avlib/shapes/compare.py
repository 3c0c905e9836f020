"""Two traces beside one another, and a trace beside what is expected of it."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

from ..errors import ParameterError, ShapeError
from . import wording
from .formula import Formula, sizes
from .page import framed
from .rows import Row, Statistics, TensorInfo, Trace
from .table import WIDTH

SHOWN = 40  # changes that are listed
ALIGNED = 400  # operations of one call that are aligned by their longest common order; more, by counting each name
CLOSE = 1e-5  # how far values may be apart, relative to the larger one

# what has changed


class Difference(NamedTuple):
    """One thing that is different in a row.

    `what` is "size", where both follow the same formula; "shape", "formula", "dtype", "device", "class", "parameters",
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
    """A row that is different; without a `row` it was added, without an `other` it is missing."""

    row: Row | None
    other: Row | None
    differences: tuple[Difference, ...]
    inside: int = 0  # rows inside that are missing or added with it

    @property
    def label(self) -> str:
        return wording.where(self.row or self.other)

    def __str__(self) -> str:
        more = f" (with {wording.many(self.inside, 'row')} inside)" if self.inside else ""
        return f"{self.label}: {'; '.join(map(str, self.differences))}{more}"


@dataclass
class Diff:
    """What is different between two traces, row by row, in the order in which it was run."""

    names: tuple[str, str]
    dims: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)  # named sizes that are not the same
    changes: list[Change] = field(default_factory=list)
    rows: int = 0  # that both have
    first: Change | None = None  # what was done first with another outcome
    first_bad: tuple[Row | None, Row | None] = (None, None)  # first outputs that are not finite

    @property
    def same(self) -> bool:
        return not self.changes and not self.dims

    @property
    def missing(self) -> list[Row]:
        """Rows of the first trace that the second does not have; without those inside them."""
        return [change.row for change in self.changes if change.other is None]

    @property
    def added(self) -> list[Row]:
        """Rows of the second trace that the first does not have; without those inside them."""
        return [change.other for change in self.changes if change.row is None]

    def of(self, what: str) -> list[Change]:
        """Changes of one kind: "shape", "dtype", "formula", ..."""
        return [change for change in self.changes if any(d.what == what for d in change.differences)]

    @property
    def _sentences(self) -> list[str]:
        told = [
            f"{name} {'–' if before is None else before} → {'–' if after is None else after}"
            for name, (before, after) in self.dims.items()
        ]
        found = [f"sizes: {', '.join(told)}"] if told else []
        if self.same:
            found.append(f"no difference in {wording.many(self.rows, 'row')}")
        if self.changes:
            kinds = Counter(d.what for change in self.changes for d in dict.fromkeys(change.differences))
            words = {"size": "in size, as the same formula says"}
            parts = ", ".join(f"{count:,} {words.get(kind, kind)}" for kind, count in kinds.most_common())
            found.append(
                f"{wording.many(len(self.changes), 'change')}, {wording.many(self.rows, 'row')} in both: {parts}"
            )
        if self.first:
            found.append(f"first difference: {self.first}")
        for name, bad, which in zip(self.names, self.first_bad, ("first", "second"), strict=True):
            if bad is not None:
                at = f" at {wording.place(bad.source)}" if bad.source else ""
                found.append(f"first value that is not finite in the {which}, {name}: {bad.label}{at}")
        return found

    @property
    def _listed(self) -> list[tuple[str, Change]]:
        """Modules, and those operations whose module says nothing of them; those that changed alike are one entry."""
        told = {change.row.index for change in self.changes if change.row and change.row.kind == "module"}
        found: dict[tuple, tuple[list[str], Change]] = {}
        for change in self.changes:
            row = change.row or change.other
            both = change.row is not None and change.other is not None
            if row.kind == "module" or not both or row.parent not in told:
                key = re.sub(r"\d+", "#", change.label), change.differences, change.inside
                found.setdefault(key, ([], change))[0].append(change.label)
        return [
            (labels[0] + (f" … {labels[-1]} ({len(labels)} alike)" if len(labels) > 1 else ""), change)
            for labels, change in found.values()
        ]

    def __str__(self) -> str:
        lines = [f"{self.names[0]} against {self.names[1]}"]
        for sentence in self._sentences:
            lines += textwrap.wrap(sentence, WIDTH, subsequent_indent="    ")
        listed = self._listed
        lines += [""] * bool(listed)
        room = min(WIDTH // 2, max((wording.width(label) for label, _ in listed[:SHOWN]), default=0))
        for label, change in listed[:SHOWN]:
            told = [str(difference) for difference in change.differences]
            if wording.width(label) <= room:
                label += " " * (room - wording.width(label)) + f"  {told.pop(0)}"
            lines += [_cut(label), *(_cut(" " * (room + 2) + difference) for difference in told)]
        lines += [f"… and {len(listed) - SHOWN:,} more"] if len(listed) > SHOWN else []
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = f"<h4>{escape(self.names[0])} against {escape(self.names[1])}</h4>"
        told = "".join(f"<p>{escape(sentence)}</p>" for sentence in self._sentences)
        listed = self._listed
        rows = "".join(
            f'<tr><td style="white-space:normal">{escape(label)}</td>'
            f"<td>{'<br>'.join(escape(d.what) for d in change.differences)}</td>"
            f"<td>{'<br>'.join(escape(d.before) for d in change.differences)}</td>"
            f"<td>{'<br>'.join(escape(d.after) for d in change.differences)}</td></tr>"
            for label, change in listed[:SHOWN]
        )
        more = f"<p>and {len(listed) - SHOWN:,} more</p>" if len(listed) > SHOWN else ""
        titles = "".join(f"<th>{title}</th>" for title in ("row", "what", "first", "second"))
        return framed(head + told + (f"<table><tr>{titles}</tr>{rows}</table>{more}" if rows else ""))


def _cut(text: str) -> str:
    return text if wording.width(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def diff(a: Trace, b: Trace) -> Diff:
    """What is different in `b`: two lengths, with and without padding or a mask, two checkpoints.

    Modules are aligned by path and call number, the operations inside one call by their order. Values are compared
    where both traces have statistics. Times, lines and files are not compared.
    """
    names = list(dict.fromkeys([*a.dims, *b.dims]))
    found = Diff((a.name or "trace", b.name or "trace"))
    found.dims = {n: (a.dims.get(n), b.dims.get(n)) for n in names if a.dims.get(n) != b.dims.get(n)}
    found.first_bad = (a.first_bad, b.first_bad)
    alignment = _Alignment(a, b)
    changed: list[tuple[int, Change]] = []
    for pair in alignment.pairs:
        if pair.row is None:
            differences = (Difference("added", "", _gist(pair.other)),)
        elif pair.other is None:
            differences = (Difference("missing", _gist(pair.row), ""),)
        else:
            found.rows += 1
            differences = tuple(_differences(pair.row, pair.other))
        if differences:
            changed.append((pair.done, Change(pair.row, pair.other, differences, pair.inside)))
    found.changes = [change for _, change in changed]
    found.first = min(changed, key=lambda entry: entry[0], default=(0, None))[1]
    return found


@dataclass(slots=True)
class _Pair:
    row: Row | None
    other: Row | None
    inside: int = 0  # rows inside, where one of the two is None
    done: int = 0  # when its outcome was there, among all pairs


class _Alignment:
    """Which row of one trace is which of the other, in the order in which they began."""

    def __init__(self, a: Trace, b: Trace):
        self.a, self.b = a, b
        self.inner = tuple(_inner(trace) for trace in (a, b))
        # A module that is called elsewhere, or in another order, is still the same call
        self.calls = tuple(
            {(r.path, r.call): r for r in t.rows if r.kind == "module" and r.parent is not None} for t in (a, b)
        )
        self.taken: set[int] = set()  # rows of the second that have their partner
        self.pairs: list[_Pair] = []
        self.done = 0
        self.align(self.inner[0][None], self.inner[1][None])

    def align(self, rows: list[Row], others: list[Row]) -> None:
        for row, other in _in_order(rows, others):
            if row is not None and other is None and row.kind == "module":
                found = self.calls[1].get((row.path, row.call))
                other = found if found is not None and found.index not in self.taken else None
            if other is not None and other.index in self.taken:
                continue
            if row is None and other.kind == "module" and (other.path, other.call) in self.calls[0]:
                continue  # it comes when its partner does
            pair = _Pair(row, other)
            self.pairs.append(pair)
            if row is None:
                pair.inside = len(self.b.within(other))
            elif other is None:
                pair.inside = len(self.a.within(row))
            else:
                self.taken.add(other.index)
                self.align(self.inner[0].get(row.index, []), self.inner[1].get(other.index, []))
            self.done += 1
            pair.done = self.done


def _inner(trace: Trace) -> dict[int | None, list[Row]]:
    """The rows right inside each row."""
    found: dict[int | None, list[Row]] = defaultdict(list)
    for row in trace.rows:
        found[row.parent].append(row)
    return found


def _in_order(rows: list[Row], others: list[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """Siblings side by side, by what they are and by their order."""
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
    """The first `add` with the first `add`, the second with the second: less exact, and quick at any number."""
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
    return ", ".join(wording.tensor(info) for _, info in wording.together(row.outputs)[:3])


def _differences(row: Row, other: Row) -> Iterator[Difference]:
    if row.kind == "module" and row.name != other.name:
        yield Difference("class", row.name, other.name)
    if (row.parameters, row.shared) != (other.parameters, other.shared):
        yield Difference("parameters", wording.count(row.parameters), wording.count(other.parameters))
    if row.error != other.error:
        yield Difference("error", row.error or "none", other.error or "none")
    if [info.path for info in row.outputs] != [info.path for info in other.outputs]:
        yield Difference("outputs", _gist(row) or "none", _gist(other) or "none")
        return
    for info, its in zip(row.outputs, other.outputs, strict=True):
        yield from _differences_of(info, its)


def _differences_of(info: TensorInfo, its: TensorInfo) -> Iterator[Difference]:
    name = f"{info.path} " if info.path else ""
    if info.shape != its.shape:
        what = "size" if _follows(info, its) else "shape"
        yield Difference(what, name + wording.shape(info.shape), wording.shape(its.shape))
    if info.formulas is not None and its.formulas is not None and info.formula != its.formula:
        yield Difference("formula", name + info.formula, its.formula)
    for what in ("dtype", "device"):
        if getattr(info, what) != getattr(its, what):
            yield Difference(what, name + getattr(info, what), getattr(its, what))
    known = info.statistics is not None and its.statistics is not None and info.shape == its.shape
    if known and _apart(info.statistics, its.statistics):
        yield Difference("values", name + _values(info.statistics), _values(its.statistics))


def _follows(info: TensorInfo, its: TensorInfo) -> bool:
    """Whether two shapes are those of the same formulas at other sizes."""
    known = info.formulas is not None and info.formulas == its.formulas
    return known and all(f is not None or a == b for f, a, b in zip(info.formulas, info.shape, its.shape, strict=True))


def _apart(one: Statistics, other: Statistics) -> bool:
    if (one.nan, one.inf, one.first_bad) != (other.nan, other.inf, other.first_bad):
        return True
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("min", "max", "mean", "std")]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    scale = max((abs(value) for pair in known for value in pair), default=0.0)
    return len(known) < sum(a is not None or b is not None for a, b in pairs) or any(
        abs(a - b) > CLOSE * scale for a, b in known
    )


def _values(values: Statistics) -> str:
    if values.min is None:
        return "no finite value"
    told = f"{wording.number(values.min)} … {wording.number(values.max)}, mean {wording.number(values.mean)}"
    bad = values.nan + values.inf
    return told + (f", {bad:,} not finite" if bad else "")


# what is expected

Expected = Any  # "B 8*((T-2800)//2560+1) 768", (2, "T//160", ..., 768), 768, a formula


def check(trace: Trace, expected: Mapping[Any, Expected]) -> None:
    """Raise ShapeError where a module's output is not as expected; meant for tests.

        check(trace, {"encoder": "B 8*((T-2800)//2560+1) 768", "head": (2, "_", 10), ("cell", 3): "... 64"})

    A number is compared with the size in this trace. A formula is compared with the formula, at every size; where the
    trace has no named sizes, with the size. A name that is none of the trace's sizes stands for whatever is found where
    it is first used, and has to be the same everywhere else. `_` is any size, `...` any number of them.

    Args:
        trace: what is checked.
        expected: for paths, as in `Trace.formulas()` (`"encoder"`, `"encoder #2"`, `"encoder.hidden_states[3]"`, `""`
            for the whole), or for pairs of path and call number, the shape: text, a tuple of numbers, names, formulas,
            `"_"` or None, and `...`, or one of these alone for a tensor of one axis. A path with several outputs stands
            for the first of them.

    Raises:
        ShapeError: a module was not called, or has another shape; it names the nearest.
        ParameterError: what is expected is no shape.
    """
    outputs = _outputs(trace)
    bound: dict[str, Formula | int | None] = {}
    wrong: list[tuple[str, str, str, str]] = []
    for key, value in expected.items():
        name = (
            f"{key[0]} #{key[1]}"
            if isinstance(key, tuple) and key[1] > 1
            else key[0]
            if isinstance(key, tuple)
            else key
        )
        axes = _axes(value)
        text = "(" + ", ".join("..." if axis is ... else "_" if axis is None else str(axis) for axis in axes) + ")"
        info = outputs.get(name)
        if info is None:
            row = next((row for row in trace.rows if row.kind == "module" and _name(row) == name), None)
            found = "no module of this path was called" if row is None else "it gave no tensor"
            wrong.append((name, found, text, _near_paths(name, outputs)))
            continue
        reason = _mismatch(axes, info, trace, dict(bound), bound)
        if reason:
            size = wording.shape(info.shape)
            known = f"{info.formula} = {size}" if info.formula != size else size
            wrong.append((name or trace.name, f"{known}: {reason}", text, _near_shapes(axes, name, outputs, trace)))
    if wrong:
        (name, found, text, near), *others = wrong
        also = "".join(f" Also {n or 'the whole'}: {f}; expected {t}." for n, f, t, _ in others[:10])
        raise ShapeError(name or "the whole", found, text, (near + also).strip())


def _name(row: Row) -> str:
    return row.path + (f" #{row.call}" if row.call > 1 else "")


def _outputs(trace: Trace) -> dict[str, TensorInfo]:
    """Outputs of modules by path, with and without the name of the output."""
    found: dict[str, TensorInfo] = {}
    for row in trace.modules:
        for info in row.outputs:
            found.setdefault(_name(row), info)
            inner = info.path if info.path.startswith("[") or not _name(row) else f".{info.path}"
            found.setdefault(_name(row) + inner if info.path else _name(row), info)
    return found


def _axes(value: Expected) -> list[Any]:
    """What is expected, as a list of formulas, None for any size and `...` for any number of them."""
    if isinstance(value, str):
        try:
            parsed = sizes(value.replace("...", " ELLIPSIS "))
        except SyntaxError:
            raise ParameterError("expected", repr(value), "sizes, parted by spaces") from None
        axes: list[Any] = [... if axis is not None and axis.names == ("ELLIPSIS",) else axis for axis in parsed]
    elif isinstance(value, tuple | list):
        axes = [axis for part in value for axis in (_axes(part) if not isinstance(part, tuple | list) else [part])]
    elif value is None or value is ...:
        axes = [value]
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
    axes: Sequence[Any], info: TensorInfo, trace: Trace, trial: dict[str, Any], bound: dict[str, Any] | None = None
) -> str:
    """Why a tensor is not as expected; empty where it is. What new names stand for is then added to `bound`."""
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
    axis: Formula, formula: Formula | None, size: int | None, named: bool, trace: Trace, bound: dict[str, Any]
) -> str:
    name = str(axis)
    if axis.constant is not None:
        return "" if size == axis.constant else f"is {'not known' if size is None else size}, not {axis}"
    if name not in trace.dims and name in axis.names and name.isidentifier():
        here = formula if formula is not None else size
        if here is None:
            return "is not known"
        return "" if bound.setdefault(name, here) == here else f"is {here}, and {name} is {bound[name]}"
    axis = axis.substitute(**{key: value for key, value in bound.items() if key in axis.names})
    unknown = [key for key in axis.names if key not in trace.dims]
    if unknown:
        return f"cannot be compared with {axis}: {', '.join(unknown)} is no size of the trace, nor used alone before"
    here = axis.evaluate(**trace.dims)
    if size != here:
        return f"is {'not known' if size is None else size}, and {axis} is {here} here"
    if named and formula is None:
        return f"is {size} here, as {axis} is, but no formula is verified for it; give the number, or _"
    if formula is not None and formula != axis:
        return f"is {size} here, as {axis} is, but follows {formula}"
    return ""


def _near_paths(name: str, outputs: Mapping[str, TensorInfo]) -> str:
    last = name.rsplit(".", 1)[-1].lower()
    close = difflib.get_close_matches(name, outputs, 3, 0.6) or [
        path for path in outputs if last and last in path.lower()
    ]
    return (
        f"Nearest: {'; '.join(_told(path, outputs[path]) for path in (close or list(outputs))[:3])}." if outputs else ""
    )


def _near_shapes(axes: Sequence[Any], name: str, outputs: Mapping[str, TensorInfo], trace: Trace) -> str:
    """Other modules that have the shape; otherwise those that stand around this one."""
    seen: set[int] = set()
    fitting = [path for path, info in outputs.items() if path != name and not _mismatch(axes, info, trace, {})]
    paths = list(outputs)
    around = paths[max(0, paths.index(name) - 1) : paths.index(name) + 2]
    told = []
    for path in fitting or [path for path in around if path != name]:
        if id(outputs[path]) not in seen:
            seen.add(id(outputs[path]))
            told.append(_told(path, outputs[path]))
    if not told:
        return ""
    return f"{'This shape is that of' if fitting else 'Nearest'}: {'; '.join(told[:3])}."


def _told(path: str, info: TensorInfo) -> str:
    size = wording.shape(info.shape)
    return f"{path or 'the whole'} {info.formula}" + (f" = {size}" if info.formula != size else "")
