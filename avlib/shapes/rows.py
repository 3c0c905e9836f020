"""What a trace holds: a row for each call of a module and for each operation, with what went in and what came out."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import ParameterError
from .formula import Formula

if TYPE_CHECKING:
    import pandas

    from .compare import Diff

Shape = tuple[int | None, ...]  # None where a size is not known
Nest = Any  # tuples, lists and dicts of TensorInfo; None for what is no tensor


class Source(NamedTuple):
    """Where something was written: the line of the reader's own file, or of the model's, that led to an operation."""

    file: str
    line: int
    code: str = ""  # that line, without indentation

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the values of a tensor are like; the first four are of its finite values, and None where there are none."""

    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    nan: int = 0  # how many are not a number
    inf: int = 0  # how many are infinite
    first_bad: tuple[int, ...] | None = None  # index of the first value that is not finite

    @property
    def finite(self) -> bool:
        return self.first_bad is None


@dataclass(frozen=True, slots=True)
class Picture:
    """A tensor made small enough to look at: at most 64 x 64 values from 0 to 255, the first row at the top.

    `kind` is what it shows: "curve" (one row), "spectrogram" (time from left to right, first bin at the bottom),
    "feature maps" (up to four channels, side by side), "attention" (rows attend to columns) or "matrix".
    """

    kind: Literal["curve", "spectrogram", "feature maps", "attention", "matrix"]
    values: tuple[bytes, ...]
    low: float  # what 0 stands for
    high: float  # what 255 stands for

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.values), len(self.values[0]) if self.values else 0


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor that went in or came out, without its values.

    `path` says where in the nest it was: "hidden_states[3]", "[0]", "" for a tensor by itself; the path of an input
    begins with the name of the argument. `formulas` has a formula for each axis, or None where none is verified; it is
    None as a whole in a trace without named sizes. `axes` has for each axis the names that its size follows, "" where
    it is fixed or not known.
    """

    path: str
    shape: Shape
    dtype: str  # "float32"
    device: str  # "cpu", "cuda:0", "meta"
    formulas: tuple[Formula | None, ...] | None = None
    bytes: int | None = 0
    statistics: Statistics | None = None
    picture: Picture | None = None
    identity: int | None = None  # in one trace, the same number is the same tensor; None where it was not followed

    @property
    def axes(self) -> tuple[str, ...]:
        if self.formulas is None:
            return ("",) * len(self.shape)
        return tuple(" ".join(formula.names) if formula is not None else "" for formula in self.formulas)

    @property
    def formula(self) -> str:
        """All axes: `(B, 8*((T - 2800)//2560 + 1), 768)`; `?` where nothing fits. Numbers where no size is named."""
        if self.formulas is None:
            parts = ["?" if size is None else str(size) for size in self.shape]
        else:
            parts = ["?" if formula is None else str(formula) for formula in self.formulas]
        return f"({', '.join(parts)}{',' * (len(parts) == 1)})"

    def at(self, sizes: Mapping[str, int]) -> TensorInfo:
        """The same tensor at other sizes, from its formulas; nothing is known of its values there."""
        if self.formulas is None:
            return self
        shape = tuple(None if formula is None else _size(formula, sizes) for formula in self.formulas)
        known = self.bytes is not None and None not in (*shape, *self.shape)
        count, elements = _elements(shape), _elements(self.shape)
        size = None if not known else self.bytes // elements * count if elements else 0
        return replace(self, shape=shape, bytes=size, statistics=None, picture=None)


@dataclass(slots=True)
class Row:
    """One call of a module, or one operation.

    The first module of a trace, or a callable that is no module, is the first row, with path "". Rows are in the order
    in which they began; the rows inside a call follow it, one deeper.
    """

    index: int
    path: str  # of the module; of an operation, that of the module which it is in
    call: int  # which call of this module, from 1; of an operation, of the module which it is in
    kind: Literal["module", "op"]
    name: str  # class of the module, or name of the operation
    parent: int | None  # index of the row that this one is in
    depth: int  # 0 for the first row
    source: Source | None = None
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    parameters: int = 0  # numbers in the module's own parameters, not its children's, that no row before counted
    shared: int = 0  # and that a row before has counted: the module was called before, or its weights are tied
    flops: int | None = 0  # two for each multiplication with addition; of a module: of all inside; None is unknown
    flops_at_least: int = 0  # those that are known
    bytes: int | None = 0  # of new memory in the outputs; of a module: of all inside. Views and changes in place: 0
    seconds: float | None = None
    error: str | None = None  # what ended it before it had an output
    work: Callable[[Sequence[Shape], Sequence[Shape]], int | None] | None = field(default=None, repr=False)  # to flops
    fresh: bool = field(default=True, repr=False)  # an operation whose outputs are in new memory

    @property
    def open(self) -> bool:
        """Whether an error left it without an output."""
        return self.error is not None

    @property
    def label(self) -> str:
        """`encoder.layers.3` or, of a later call, `encoder.layers.3 #2`; of an operation, its name."""
        if self.kind == "op":
            return self.name
        return (self.path or self.name) + (f" #{self.call}" if self.call > 1 else "")


class Requirement(NamedTuple):
    """What must hold for the formulas: because the model raises where it does not, or takes another way there."""

    formula: str  # "T == 3000", "H % 16 == 0"
    file: str
    line: int
    reason: str = ""  # what the model raises where it does not hold, or what is different there

    def __str__(self) -> str:
        return f"{self.formula} @ {self.file}:{self.line}" + (f" ({self.reason})" if self.reason else "")


@dataclass
class Trace:
    """What a model or function did with its inputs: rows, sizes, formulas. Made by `shapes.trace` and `explain`.

    `trace["encoder.layers.3"]` is the first row of that module, `trace["encoder.layers.3", 2]` that of its second call,
    `trace[17]` the row with that index.
    """

    rows: list[Row] = field(default_factory=list)
    name: str = ""  # of the class or function
    dims: dict[str, int] = field(default_factory=dict)  # the named sizes, as they were, or those given to `at`
    requires: tuple[Requirement, ...] = ()  # why a size is fixed, or for which the formulas hold
    notes: list[str] = field(default_factory=list)  # what the reader should know: a fallback, a limit, an unknown
    checked: dict[str, tuple[int, ...]] = field(default_factory=dict)  # sizes at which the formulas were compared
    unknown: dict[str, str] = field(default_factory=dict)  # names of sizes that depend on data, and what they count
    output: Nest = None  # the output's nesting, a TensorInfo in the place of each tensor
    fake: bool = False  # run without values
    parameters: int = 0  # of the whole model, each counted once, called or not
    error: str | None = None

    def __getitem__(self, key: int | str | tuple[str, int]) -> Row:
        if isinstance(key, int):
            return self.rows[key]
        path, call = key if isinstance(key, tuple) else (key, 1)
        found = self._modules.get((path, call))
        if found is None:
            paths = [known for known, _ in self._modules]
            near = [known for known in paths if path.rsplit(".", 1)[-1] in known] or paths
            found = f"no call {call} of a module {path!r}"
            raise ParameterError("path", found, "one that was called", f"Near: {', '.join(near[:4])}.")
        return found

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _modules(self) -> dict[tuple[str, int], Row]:
        return {(row.path, row.call): row for row in self.rows if row.kind == "module"}

    @property
    def modules(self) -> list[Row]:
        return [row for row in self.rows if row.kind == "module"]

    def ops(self, pattern: str = "") -> list[Row]:
        """Operations whose name a regular expression finds: `ops("cat|gather|einsum")`."""
        wanted = re.compile(pattern)
        return [row for row in self.rows if row.kind == "op" and wanted.search(row.name)]

    def children(self, row: Row) -> list[Row]:
        """The rows right inside a row, in order."""
        return [other for other in self.within(row) if other.parent == row.index]

    def within(self, row: Row) -> list[Row]:
        """All rows inside a row, in order."""
        end = row.index + 1
        while end < len(self.rows) and self.rows[end].depth > row.depth:
            end += 1
        return self.rows[row.index + 1 : end]

    @property
    def root(self) -> Row:
        """The row of what was traced. Hooks that the user put before a module run, and are listed, before it."""
        return next((row for row in self.rows if row.parent is None and row.kind != "op"), self.rows[0])

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self.root.inputs if self.rows else ()

    @property
    def flops(self) -> int | None:
        """Of the whole run; None where those of some operation are unknown."""
        return self.root.flops if self.rows else 0

    @property
    def output_shape(self) -> Nest:
        """The output's nesting with a tuple of int for each tensor; a size that is not known is None."""
        return _mapped(self.output, lambda info: info.shape)

    @property
    def first_bad(self) -> Row | None:
        """The first operation or module with an output that is not finite; needs `stats=True`."""
        bad = (row for row in self.rows if any(o.statistics and not o.statistics.finite for o in row.outputs))
        # A module begins before the operations in it, but its output comes from one of them.
        found = list(bad)
        return next((row for row in found if row.kind == "op"), found[0] if found else None)

    def formulas(self) -> dict[str, str]:
        """The formulas of each module's outputs, by path (`encoder`, `encoder #2`, `encoder.hidden_states[3]`)."""
        found = {}
        for row in self.modules:
            for info in row.outputs:
                name = row.path + (f" #{row.call}" if row.call > 1 else "")
                found[name + (info.path if info.path.startswith("[") else f".{info.path}" if info.path else "")] = (
                    info.formula
                )
        return found

    def at(self, **dims: int) -> Trace:
        """The same table at other sizes, from the formulas; sizes that are not given stay.

        Raises:
            ParameterError: a name that the trace does not have, or a size that is not a positive whole number.
        """
        for name, size in dims.items():
            if name not in self.dims:
                raise ParameterError(name, "not a named size of this trace", f"one of {', '.join(self.dims) or 'none'}")
            if not isinstance(size, int) or size < 1:
                raise ParameterError(name, repr(size), "a whole number, 1 or more")
        sizes = {**self.dims, **dims}
        other = copy.copy(self)
        other.__dict__.pop("_modules", None)
        other.dims, other.notes, other.output = sizes, list(self.notes), _mapped(self.output, lambda i: i.at(sizes))
        other.rows = [_row_at(row, sizes) for row in self.rows]
        total(other.rows)
        broken = [str(need) for need in self.requires if not _holds(need.formula, sizes)]
        other.notes += [f"These sizes break what the formulas require: {need}" for need in broken]
        return other

    # shown and compared elsewhere

    def table(self, depth: int | None = None, columns: Sequence[str] | None = None, ops: bool | None = None) -> str:
        """A table for a terminal; see `avlib.shapes.table`."""
        from . import table

        return table.text(self, depth=depth, columns=columns, ops=ops)

    def diff(self, other: Trace) -> Diff:
        """What is different in another trace; see `avlib.shapes.compare`."""
        from . import compare

        return compare.diff(self, other)

    def check(self, expected: Mapping[Any, Any]) -> None:
        """Raise ShapeError where a module's output is not as expected; see `avlib.shapes.compare`."""
        from . import compare

        compare.check(self, expected)

    def to_json(self, path: Any = None) -> str:
        from . import export

        return export.to_json(self, path)

    def to_csv(self, path: Any = None) -> str:
        from . import export

        return export.to_csv(self, path)

    def to_markdown(self, path: Any = None, depth: int | None = None) -> str:
        from . import export

        return export.to_markdown(self, path, depth=depth)

    def to_pandas(self) -> pandas.DataFrame:
        from . import export

        return export.to_pandas(self)

    def to_svg(self, depth: int = 1) -> str:
        """A picture of the flow; see `avlib.shapes.flow`."""
        from . import flow

        return flow.svg(self, depth=depth)

    def _repr_html_(self) -> str:
        from . import page

        return page.html(self)

    def __repr__(self) -> str:
        from . import table

        return table.text(self)


def total(rows: list[Row]) -> None:
    """Give modules the sums of FLOPs and bytes of the operations inside them, in place."""
    for row in reversed(rows):  # what is inside comes later, so each row is whole before its parent takes it
        if row.parent is None:
            continue
        outer = rows[row.parent]
        outer.flops = None if outer.flops is None or row.flops is None else outer.flops + row.flops
        outer.flops_at_least += row.flops_at_least
        outer.bytes = None if outer.bytes is None or row.bytes is None else outer.bytes + row.bytes


def _row_at(row: Row, sizes: Mapping[str, int]) -> Row:
    """A row at other sizes; what is summed over a module's inside is left at 0."""
    inputs, outputs = (tuple(info.at(sizes) for info in infos) for infos in (row.inputs, row.outputs))
    flops, size = 0, 0
    if row.kind == "op":
        flops = _flops(row, inputs, outputs)
        sums = [info.bytes for info in outputs] if row.fresh else []
        size = None if None in sums else sum(sums)
    elif row.work is not None:
        flops = _flops(row, inputs, outputs)
    return replace(
        row, inputs=inputs, outputs=outputs, flops=flops, flops_at_least=flops or 0, bytes=size, seconds=None
    )


def _flops(row: Row, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> int | None:
    shapes = [info.shape for info in inputs], [info.shape for info in outputs]
    if row.work is None or any(None in shape for side in shapes for shape in side):
        return row.flops if row.work is None else None
    return row.work(*shapes)


def _size(formula: Formula, sizes: Mapping[str, int]) -> int | None:
    """What a size is; None where it depends on data, or would be below 0 since the input is too short."""
    if set(formula.names) - set(sizes):
        return None
    try:
        size = formula.evaluate(**sizes)
    except ParameterError:  # a division by 0
        return None
    return size if size >= 0 else None


def _holds(requirement: str, sizes: Mapping[str, int]) -> bool:
    """Whether a requirement such as `T % 16 == 0` holds; one that is not of that form counts as held."""
    parts = re.split(r" (==|!=|<=|>=|<|>) ", requirement)
    try:
        left, sign, right = parts
        a, b = Formula(left).evaluate(**sizes), Formula(right).evaluate(**sizes)
    except (ParameterError, ValueError):
        return True
    return {"==": a == b, "!=": a != b, "<=": a <= b, ">=": a >= b, "<": a < b, ">": a > b}[sign]


def _elements(shape: Shape) -> int:
    count = 1
    for size in shape:
        count *= size or 0
    return count


def _mapped(nest: Nest, change: Callable[[TensorInfo], Any]) -> Nest:
    """A nest with each TensorInfo changed."""
    if isinstance(nest, TensorInfo):
        return change(nest)
    if isinstance(nest, dict):
        return {key: _mapped(value, change) for key, value in nest.items()}
    if isinstance(nest, tuple | list):
        return type(nest)(_mapped(value, change) for value in nest)
    return None
