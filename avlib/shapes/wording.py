"""Numbers, shapes and places as short text, the same in tables, pages and pictures."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from .rows import Row, Shape, Source, TensorInfo, Trace, total

_STEPS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(number: int | None) -> str:
    """`94.4 M`; a number of up to four digits in full; `unknown` for None."""
    if number is None:
        return "unknown"
    if number < 10_000:
        return f"{number:,}"
    step, sign = next((step, sign) for step, sign in _STEPS if number >= step * 0.9995)
    return f"{_three(number / step)} {sign}"


def flops(row: Row) -> str:
    """What is known of a row's FLOPs: all, at least so many, or `unknown`; never 0 for what is not known."""
    if row.flops is None and row.flops_at_least:
        return f"≥ {count(row.flops_at_least)}"
    return count(row.flops)


def many(number: int, what: str) -> str:
    """`1 row`, `2,500 rows`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def memory(size: int | None) -> str:
    """Bytes as `512 B`, `1.46 MiB`; `unknown` for None."""
    if size is None:
        return "unknown"
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.5:
            return f"{size} B" if unit == "B" else f"{_three(value)} {unit}"
        value /= 1024
    return f"{_three(value)} TiB"


def seconds(value: float | int | None) -> str:
    """`2.3 ms`; empty where no time was taken."""
    if value is None:
        return ""
    for step, unit in ((1, "s"), (1e-3, "ms")):
        if value >= step * 0.9995:
            return f"{_three(value / step)} {unit}"
    return f"{_three(value / 1e-6)} µs"


def number(value: float | int | None) -> str:
    """A value of a tensor with four digits."""
    return "" if value is None else f"{value:.4g}"


def _three(value: float | int) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def shape(sizes: Shape) -> str:
    """`(2, 496, 768)`, with `?` where a size is not known."""
    parts = ["?" if size is None else str(size) for size in sizes]
    return f"({', '.join(parts)}{',' * (len(parts) == 1)})"


def place(source: Source | None) -> str:
    """`model.py:12`, without folders."""
    return "" if source is None else f"{PurePath(source.file).name}:{source.line}"


def sizes(values: Mapping[str, int | Sequence[int]]) -> str:
    """`B = 2, T = 160000`; of several sizes, `T = 160000, 228572`, parted by semicolons."""
    several = any(not isinstance(value, int) for value in values.values())
    texts = (f"{k} = {v if isinstance(v, int) else ', '.join(map(str, v))}" for k, v in values.items())
    return ("; " if several else ", ").join(texts)


def local(row: Row, parent: Row | None) -> str:
    """The name of a row below its parent: `layers.0` in `encoder`; with its call number from the second call on."""
    if row.kind == "op":
        return row.name
    inside = parent is not None and parent.path and row.path.startswith(f"{parent.path}.")
    name = row.path[len(parent.path) + 1 :] if inside else row.path
    return (name or row.name) + (f" #{row.call}" if row.call > 1 else "")


def where(row: Row) -> str:
    """`encoder.layers.3 #2`, `add in encoder.layers.3`."""
    return f"{row.name} in {row.path}" if row.kind == "op" and row.path else row.label


def headline(trace: Trace) -> str:
    """One line on the whole run: parameters, FLOPs, bytes, operations."""
    ops = sum(row.kind == "op" for row in trace.rows)
    parts = [f"{count(trace.parameters)} parameters"] if trace.parameters else []
    whole = Row(0, "", 1, "module", "", None, 0)  # explain may see several that are inside nothing
    total([whole, *(replace(row, parent=0) for row in trace.rows if row.parent is None)])
    parts += [f"{flops(whole)} FLOPs"] if whole.flops != 0 else []
    parts += [f"{memory(whole.bytes)} of activations"] if whole.bytes != 0 else []
    counts = f"{many(len(trace.rows) - ops, 'module call')}, {many(ops, 'operation')}"
    parts += [counts if trace.rows else "nothing was called"]
    parts += ["run without values"] if trace.fake else []
    return " · ".join(parts)


def facts(trace: Trace) -> list[tuple[str, str]]:
    """What is said above a table: sizes, where formulas were checked, when they are valid, notes; with their titles."""
    found = [("sizes", sizes(trace.dims))] if trace.dims else []
    if trace.checked:
        found.append(("formulas checked at", sizes(trace.checked)))
    for need in trace.requires:
        reason = f" ({need.reason})" if need.reason else ""
        found.append(("valid when", f"{need.formula} @ {PurePath(need.file).name}:{need.line}{reason}"))
    found += [(f"{name} is", meaning) for name, meaning in trace.unknown.items()]
    found += [("note", note) for note in trace.notes]
    return [(title, " ".join(text.split())) for title, text in found]


def troubles(trace: Trace) -> list[str]:
    """What went wrong, in sentences: the row that failed with its operands, the first value that is not finite."""
    found = []
    failed = [row for row in trace.rows if row.open]
    if failed:
        row = failed[-1]  # the innermost; those around it are open because of it
        given = "; ".join(tensor(info) for info in row.inputs)
        at = f" at {row.source}" if row.source else ""
        found.append(f"{where(row)} failed{at}: {' '.join(str(row.error).split())}")
        found += [f"its inputs: {given}"] if given else []
    elif trace.error:
        found.append(f"failed: {' '.join(trace.error.split())}")
    bad = trace.first_bad
    if bad is not None:
        info = next(o for o in bad.outputs if o.statistics and not o.statistics.finite)
        at = f", {place(bad.source)}" if bad.source else ""
        kinds = f"{info.statistics.nan:,} NaN, {info.statistics.inf:,} infinite"
        found.append(f"first value that is not finite: {where(bad)}{at}, at {info.statistics.first_bad} ({kinds})")
    return found


def tensor(info: TensorInfo) -> str:
    """`mask (2, 100) bool`; a dtype that is float32 goes without saying."""
    kind = "" if info.dtype == "float32" else f" {info.dtype}"
    return f"{info.path} {shape(info.shape)}{kind}".strip()


def together(infos: Iterable[TensorInfo], short: bool = False) -> list[tuple[str, TensorInfo]]:
    """Tensors with what to call them; those that are alike but for numbers in their paths share one entry.

    `layers[0].keys … layers[31].keys`; or, where it is to be short, `layers[0].keys ×32`, cut off at the left.
    """
    groups: dict[tuple, list[TensorInfo]] = {}
    for info in infos:
        groups.setdefault(kind(info), []).append(info)
    found = []
    for group in groups.values():
        first, last = group[0].path, group[-1].path
        if short:
            first = f"…{first[-19:]}" if len(first) > 20 else first
            name = first if len(group) == 1 else f"{first} ×{len(group)}"
        else:
            name = first if len(group) == 1 else f"{first} … {last}"
        found.append((name, group[0]))
    return found


def kind(info: TensorInfo) -> tuple:
    """What tensors have in common that are alike but for numbers in their paths."""
    return re.sub(r"\d+", "#", info.path), info.shape, info.dtype, info.device, info.formula


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )
