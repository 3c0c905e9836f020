"""The data of a trace: rows, tensors, and their short texts."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from ..errors import ParameterError, check_whole
from .formula import Formula, Relation

Shape = tuple[int | None, ...]  # None for an unknown size
Nest = Any  # tuples, lists and dicts of TensorInfo; None in the place of anything that is no tensor

COUNTS = (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")
BYTES = (2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")
TIMES = (1, "s"), (1e-3, "ms"), (1e-6, "µs")


def count(number: int | None) -> str:
    """Format a count: `94.4 M`, `9,999`, or `unknown` for None."""
    if number is None:
        return "unknown"
    return f"{number:,}" if number < 10_000 else _scaled(number, COUNTS)


def plural(number: int, noun: str) -> str:
    """Format a number with its noun: `1 row`, `2,500 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def memory(size: int | None) -> str:
    """Format bytes: `512 B`, `1.46 MiB`, or `unknown` for None."""
    if size is None:
        return "unknown"
    return f"{size} B" if size < 1024 else _scaled(size, BYTES)


def seconds(value: float | int | None) -> str:
    """Format a time: `2.3 ms`; empty for None."""
    return "" if value is None else _scaled(value, TIMES)


def _scaled(value: float | int, units: Sequence[tuple[float | int, str]]) -> str:
    """Three digits in the largest unit that is not above a value."""
    step, unit = next((pair for pair in units if value >= pair[0] * 0.9995), units[-1])
    return f"{value / step:{'.3g' if value / step < 999.5 else ',.0f'}} {unit}"


def bracketed(parts: Iterable[Any]) -> str:
    """Format a shape as Python writes a tuple: `(2, 496, 768)`, `?` for None."""
    texts = ["?" if part is None else str(part) for part in parts]
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"


def width(text: str) -> int:
    """Return the number of terminal columns that a text takes."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a tensor, the first four of its finite values."""

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

    @property
    def range(self) -> str:
        return "no finite value" if self.min is None else f"{self.min:.4g} … {self.max:.4g}"

    @property
    def bad(self) -> str:
        """The counts of values that are not finite: `3 NaN 1 Inf`."""
        return " ".join(f"{n:,} {kind}" for n, kind in ((self.nan, "NaN"), (self.inf, "Inf")) if n)

    def __str__(self) -> str:
        parts = [self.range] if self.min is None else [self.range, f"mean {self.mean:.4g}", f"std {self.std:.4g}"]
        return ", ".join(parts + [f"{self.bad}, the first at {self.first_bad}"] * (not self.finite))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output tensor, without its values.

    `path` is its place in the nest: "hidden_states[3]", "[0]", "" for a tensor by itself; for inputs it begins with the
    argument. `formulas` has None for an axis without a verified formula; it is None in a trace without named sizes.
    """

    path: str
    shape: Shape
    dtype: str  # "float32"
    device: str  # "cpu", "cuda:0", "meta"
    formulas: tuple[Formula | None, ...] | None = None
    bytes: int | None = 0
    statistics: Statistics | None = None
    identity: int | None = None  # the same number for the same tensor of one trace; None if it was not followed

    @property
    def size(self) -> str:
        """The shape as text: `(2, 496, 768)`, `?` for an unknown size."""
        return bracketed(self.shape)

    @property
    def formula(self) -> str:
        """The formulas as text: `(B, 8*((T - 2800)//2560 + 1), 768)`; the shape if no size is named."""
        return self.size if self.formulas is None else bracketed(self.formulas)

    @property
    def named(self) -> str:
        """`mask (2, 100)`."""
        return f"{self.path} {self.size}".strip()

    def __str__(self) -> str:
        """`mask (2, 100) bool`; float32 is left out."""
        return self.named + ("" if self.dtype == "float32" else f" {self.dtype}")

    @property
    def kind(self) -> tuple:
        """A key of similar tensors: all but the numbers in paths and the values, as long as all are finite."""
        finite = self.statistics is None or self.statistics.finite
        return re.sub(r"\d+", "#", self.path), self.shape, self.dtype, self.device, self.formula, finite

    def at(self, sizes: Mapping[str, int]) -> TensorInfo:
        """Return the tensor at other sizes, from its formulas."""
        if self.formulas is None:
            return self
        values = [None if formula is None else formula.value_at(sizes) for formula in self.formulas]
        shape = tuple(None if value is None or value < 0 else value for value in values)  # below 0: too short an input
        known = self.bytes is not None and None not in (*shape, *self.shape)
        size = self.bytes * math.prod(shape) // max(1, math.prod(self.shape)) if known else None
        return replace(self, shape=shape, bytes=size, statistics=None)


def together(infos: Iterable[TensorInfo], short: bool = False) -> list[tuple[str, TensorInfo]]:
    """Group tensors that differ only in the numbers of their paths."""
    groups: dict[tuple, list[TensorInfo]] = {}
    for info in infos:
        groups.setdefault(info.kind, []).append(info)
    found = []
    for first, *others in groups.values():
        name = f"…{first.path[-19:]}" if short and len(first.path) > 20 else first.path
        if others:
            name += f" ×{len(others) + 1}" if short else f" … {others[-1].path}"
        found.append((name, first))
    return found


def relative(file: str) -> str:
    """Return a path from its package on, `timm/layers/drop.py`; of other files, the name."""
    parts = PurePath(file).parts
    at = max((i for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")), default=None)
    return PurePath(file).name if at is None else "/".join(parts[at + 1 :])


def portable(text: str) -> str:
    """Return a text in which absolute paths are names of files, as in an exception that names one."""
    return re.sub(r"(?<![\w.:/])(?:/[^\s/'\"()]+)+/(?=[^\s/])", "", text)


class Source(NamedTuple):
    """The line of own code that led to an operation."""

    file: str
    line: int
    code: str = ""  # that line, without indentation

    def __str__(self) -> str:
        return f"{relative(self.file)}:{self.line}"

    @property
    def short(self) -> str:
        """`model.py:12`, without folders."""
        return f"{PurePath(self.file).name}:{self.line}"


@dataclass(slots=True)
class Row:
    """One call of a module, or one operation.

    The first module of a trace, or a callable that is no module, is the first row, with path "". Rows are in the order
    in which they began; the rows inside a call follow it, one level deeper.
    """

    index: int
    path: str  # of the module; of an operation, that of the module around it
    call: int  # number of the call of this module, from 1; of an operation, of the module around it
    kind: Literal["module", "op"]
    name: str  # class of the module, or name of the operation
    parent: int | None  # index of the row around it
    depth: int  # 0 for the first row
    source: Source | None = None
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    parameters: int = 0  # elements of the module's own parameters, without children and those counted before
    shared: int = 0  # elements that were counted before: the module was called before, or its weights are tied
    flops: int | None = 0  # two per multiply-add; of a module: of everything inside; None is unknown
    flops_at_least: int = 0  # the known part
    bytes: int | None = 0  # of new memory in the outputs; of a module: of everything inside; 0 for views
    seconds: float | None = None
    error: str | None = None  # the exception that ended it before it had an output
    work: Callable[[Sequence[Shape], Sequence[Shape]], int | None] | None = field(default=None, repr=False)  # FLOPs
    fresh: bool = field(default=True, repr=False)  # an operation whose outputs are in new memory

    @property
    def open(self) -> bool:
        """True if an error left it without an output."""
        return self.error is not None

    @property
    def label(self) -> str:
        """`encoder.layers.3`, `encoder.layers.3 #2` for a later call; of an operation, its name."""
        return self.name if self.kind == "op" else (self.path or self.name) + self._later

    @property
    def full_path(self) -> str:
        """`encoder.layers.3 #2`, empty for the outermost module."""
        return self.path + self._later

    @property
    def _later(self) -> str:
        return f" #{self.call}" if self.call > 1 else ""

    @property
    def where(self) -> str:
        """`encoder.layers.3 #2`, `add in encoder.layers.3`."""
        return f"{self.name} in {self.path}" if self.kind == "op" and self.path else self.label

    def inside(self, parent: Row | None) -> str:
        """Return its label relative to the row around it: `layers.0` in `encoder`."""
        within = parent is not None and parent.path and self.path.startswith(f"{parent.path}.")
        return self.label.removeprefix(f"{parent.path}.") if within and self.kind == "module" else self.label

    @property
    def flops_text(self) -> str:
        """The known FLOPs: all, `≥ 6,200`, or `unknown`; never 0 for unknown work."""
        return f"≥ {count(self.flops_at_least)}" if self.flops is None and self.flops_at_least else count(self.flops)

    def measure(self) -> None:
        """Set its own FLOPs and bytes from the shapes, in place."""
        shapes = [info.shape for info in self.inputs], [info.shape for info in self.outputs]
        if self.open:
            self.flops = 0
        elif self.work is None:
            self.flops = self.flops if self.kind == "op" or self.flops is None else 0
        else:
            self.flops = None if any(None in shape for side in shapes for shape in side) else self.work(*shapes)
        self.flops_at_least = self.flops or 0
        new = [info.bytes for info in self.outputs] if self.kind == "op" and self.fresh and not self.open else []
        self.bytes = None if None in new else sum(new)


def total(rows: Sequence[Row]) -> None:
    """Add FLOPs and bytes of inner rows to modules, in place."""
    for row in reversed(rows):  # rows inside come later, so each row is complete before its parent takes it
        if row.parent is None:
            continue
        outer = rows[row.parent]
        outer.flops = None if outer.flops is None or row.flops is None else outer.flops + row.flops
        outer.flops_at_least += row.flops_at_least
        outer.bytes = None if outer.bytes is None or row.bytes is None else outer.bytes + row.bytes


class Requirement(NamedTuple):
    """A condition of the formulas; elsewhere the model differs or raises."""

    formula: str  # "T == 3000", "H % 16 == 0"
    file: str
    line: int
    reason: str = ""  # the exception where it does not hold

    def __str__(self) -> str:
        place = f" @ {relative(self.file)}:{self.line}" if self.file else ""
        return self.formula + place + (f" ({self.reason})" if self.reason else "")

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return True if it holds at these sizes, or cannot be read."""
        try:
            return Relation.read(self.formula).holds(sizes)
        except (ParameterError, ValueError):  # a sentence
            return True


@dataclass(repr=False)
class Recording:
    """The rows of a run, with named sizes and their requirements.

    `trace["encoder.layers.3"]` is the first row of that module, `trace["encoder.layers.3", 2]` that of its second call,
    `trace[17]` the row with that index.
    """

    rows: list[Row] = field(default_factory=list)
    name: str = ""  # of the class or function
    dims: dict[str, int] = field(default_factory=dict)  # the named sizes, as they were, or those given to `at`
    requires: tuple[Requirement, ...] = ()  # why a size is fixed, or for which sizes the formulas hold
    notes: list[str] = field(default_factory=list)  # a fallback, a limit, an unknown
    checked: dict[str, tuple[int, ...]] = field(default_factory=dict)  # sizes at which the formulas were compared
    unknown: dict[str, str] = field(default_factory=dict)  # names of sizes that depend on data, and their meaning
    output: Nest = None  # the nesting of the output, a TensorInfo in the place of each tensor
    fake: bool = False  # run without values
    parameters: int = 0  # of the whole model, each counted once, called or not
    error: str | None = None
    rates: dict[str, int] = field(default_factory=dict)  # how many of a named size make a second, if a model says so

    def __getitem__(self, key: int | str | tuple[str, int]) -> Row:
        if isinstance(key, int):
            return self.rows[key]
        path, call = key if isinstance(key, tuple) else (key, 1)
        if (path, call) not in self._modules:
            paths = [known for known, _ in self._modules]
            near = [known for known in paths if path.rsplit(".", 1)[-1] in known] or paths
            found = f"no call {call} of a module {path!r}"
            raise ParameterError("path", found, "one that was called", f"Near: {', '.join(near[:4])}.")
        return self._modules[path, call]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _modules(self) -> dict[tuple[str, int], Row]:
        return {(row.path, row.call): row for row in self.modules}

    @property
    def modules(self) -> list[Row]:
        return [row for row in self.rows if row.kind == "module"]

    def ops(self, pattern: str = "") -> list[Row]:
        """Return the operations whose name a regular expression finds: `ops("cat|gather|einsum")`."""
        wanted = re.compile(pattern)
        return [row for row in self.rows if row.kind == "op" and wanted.search(row.name)]

    def children(self, row: Row) -> list[Row]:
        """Return the rows directly inside a row, in order."""
        return [other for other in self.within(row) if other.parent == row.index]

    def within(self, row: Row) -> list[Row]:
        end = row.index + 1
        while end < len(self.rows) and self.rows[end].depth > row.depth:
            end += 1
        return self.rows[row.index + 1 : end]

    @property
    def root(self) -> Row:
        return next((row for row in self.rows if row.parent is None and row.kind != "op"), self.rows[0])

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self.root.inputs if self.rows else ()

    @property
    def flops(self) -> int | None:
        """FLOPs of the whole run; None if some are unknown."""
        return self.root.flops if self.rows else 0

    @property
    def output_shape(self) -> Nest:
        """The nesting of the output with a tuple for each tensor."""
        return _mapped(self.output, lambda info: info.shape)

    @property
    def first_bad(self) -> Row | None:
        """The first row with a non-finite output; needs `stats=True`."""
        found = [row for row in self.rows if any(o.statistics and not o.statistics.finite for o in row.outputs)]
        # A module begins before the operations in it, but its output comes from one of them.
        return next((row for row in found if row.kind == "op"), found[0] if found else None)

    def named_outputs(self) -> Iterator[tuple[Row, str, TensorInfo]]:
        """Yield the outputs of modules with their paths (`encoder`, `encoder #2`, `encoder.hidden_states[3]`)."""
        paths = {row.full_path for row in self.modules}
        for row in self.modules:
            for info in row.outputs:
                path = row.full_path + (f".{info.path}" if info.path[:1] not in ("", "[") else info.path)
                yield row, path if path not in paths or not info.path else f"{row.full_path}[{info.path!r}]", info

    def formulas(self) -> dict[str, str]:
        """Return the formulas of each module's outputs, by path."""
        return {path: info.formula for _, path, info in self.named_outputs()}

    def at(self, **dims: int) -> Recording:
        """Return the same table at other sizes, from the formulas.

        Raises:
            ParameterError: an unknown name, a size that is not a positive whole number, or one that the model refuses.
        """
        for name, size in dims.items():
            if name not in self.dims:
                raise ParameterError(name, "not a named size of this trace", f"one of {', '.join(self.dims) or 'none'}")
            check_whole(name, size, 1)
        sizes = {**self.dims, **dims}
        if broken := [str(need) for need in self.requires if not need.holds(sizes)]:
            raise ParameterError("sizes", ", ".join(f"{n} = {size}" for n, size in sizes.items()), "; ".join(broken))
        rows = []
        for row in self.rows:
            inputs, outputs = (tuple(info.at(sizes) for info in infos) for infos in (row.inputs, row.outputs))
            rows.append(replace(row, inputs=inputs, outputs=outputs, seconds=None))
            rows[-1].measure()
        total(rows)
        return replace(self, rows=rows, dims=sizes, output=_mapped(self.output, lambda info: info.at(sizes)))


def _mapped(nest: Nest, change: Callable[[TensorInfo], Any]) -> Nest:
    if isinstance(nest, TensorInfo):
        return change(nest)
    if isinstance(nest, dict):
        return {key: _mapped(value, change) for key, value in nest.items()}
    if isinstance(nest, tuple | list):
        return type(nest)(_mapped(value, change) for value in nest)
    return None
