"""A trace as a table for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from ..errors import ParameterError
from . import wording
from .outline import Node, fitting, hidden_in
from .rows import TensorInfo, Trace

WIDTH = 120  # columns of a terminal that a table fits into
MOST = 12  # kinds of outputs of one row that are listed
LINES = 90  # rows that a table has where no depth is given


class Column(NamedTuple):
    """A column: its title, its text for an entry, and how narrow it can be made."""

    title: str
    text: Callable[[Node], list[str]]  # lines
    least: int | None = None  # None is a column of figures, which is never narrowed
    cut_left: bool = False  # keep the end of a text that does not fit


def _outputs(node: Node) -> list[str]:
    row = node.row
    if not row.outputs:
        return ["failed" if row.open else "no tensor"]
    named = len(row.outputs) > 1
    texts = (
        (name if named else "", wording.shape(info.shape))
        for name, info in wording.together(row.outputs, short=True)[:MOST]
    )
    more = len(wording.together(row.outputs)) - MOST
    return [" ".join(filter(None, text)) for text in texts] + [f"and {more} more"] * (more > 0)


def _each(text: Callable[[TensorInfo], str]) -> Callable[[Node], list[str]]:
    """A line for each output; one line where all are the same."""

    def lines(node: Node) -> list[str]:
        found = [text(info) for _, info in wording.together(node.row.outputs)[:MOST]]
        return found[:1] if len(set(found)) == 1 else found

    return lines


def _statistic(name: str) -> Callable[[Node], list[str]]:
    def text(info: TensorInfo) -> str:
        return wording.number(getattr(info.statistics, name)) if info.statistics else ""

    return _each(text)


def _range(info: TensorInfo) -> str:
    known = info.statistics and info.statistics.min is not None
    return f"{wording.number(info.statistics.min)} … {wording.number(info.statistics.max)}" if known else ""


def _bad(info: TensorInfo) -> str:
    if info.statistics is None:
        return ""
    return " ".join(f"{n:,} {kind}" for n, kind in ((info.statistics.nan, "NaN"), (info.statistics.inf, "Inf")) if n)


COLUMNS = {
    "input": Column("input", lambda node: [wording.tensor(info) for info in node.row.inputs] or ["no tensor"], 14),
    "output": Column("output", _outputs, 20),
    "formula": Column("formula", _each(lambda info: info.formula), 30),
    "class": Column("class", lambda node: [node.row.name if node.row.kind == "module" else ""], 10),
    "dtype": Column("dtype", _each(lambda info: info.dtype), 7),
    "device": Column("device", _each(lambda info: info.device), 6),
    "parameters": Column("params", lambda node: [parameters(node)]),
    "flops": Column("FLOPs", lambda node: [wording.flops(node.row)]),
    "memory": Column("memory", lambda node: [wording.memory(node.row.bytes)]),
    "seconds": Column("time", lambda node: [wording.seconds(node.row.seconds)]),
    "range": Column("range", _each(_range), 12),
    "mean": Column("mean", _statistic("mean")),
    "std": Column("std", _statistic("std")),
    "bad": Column("NaN, Inf", _each(_bad), 8),
    "source": Column("source", lambda node: [wording.place(node.row.source)], 12, cut_left=True),
}


def text(trace: Trace, depth: int | None = None, columns: Sequence[str] | None = None, ops: bool | None = None) -> str:
    """A trace as a table of at most 120 columns, modules indented by depth.

    Args:
        trace: what is shown.
        depth: how deep; the first row has depth 0. Without it, as deep as some 90 lines allow.
        columns: of "input", "output", "formula", "class", "dtype", "device", "parameters", "flops", "memory",
            "seconds", "range", "mean", "std", "bad", "source". Without it, those that have something to tell.
        ops: with operations, too. Without it, where there are no modules.

    Raises:
        ParameterError: there is no such column, or the depth is negative.
    """
    chosen = _chosen(trace, columns)
    if depth is not None and depth < 0:
        raise ParameterError("depth", str(depth), "0 or more")
    if ops is None:
        ops = not any(row.kind == "module" for row in trace.rows[1:])
    nodes, level = fitting(trace, LINES, depth, ops)
    flat = [inner for node in nodes for inner in node.walk()]
    lines = [f"{trace.name or 'trace'}: {wording.headline(trace)}"]
    for title, fact in wording.facts(trace):
        lines += textwrap.wrap(f"{title} {fact}", WIDTH, subsequent_indent="    ")
    for name in ("dtype", "device"):
        values = {getattr(info, name) for row in trace.rows for info in row.outputs}
        if len(values) == 1 and name not in chosen:
            lines[0] += f" · {values.pop()}"
    lines[:1] = textwrap.wrap(lines[0], WIDTH, subsequent_indent="    ")
    if flat:
        lines += ["", *_grid(flat, [COLUMNS[name] for name in chosen])]
    if hidden := hidden_in(nodes):
        deeper = f"what is deeper than {level}" if level < max(row.depth for row in trace.rows) else ""
        what = " and ".join(filter(None, ["operations" * (not ops), deeper]))
        left = f"Not shown: {wording.many(hidden, 'row')}{f' ({what})' if what else ''}."
        lines += ["", f"{left} table(depth=..., ops=True) has them."]
    if any(node.alike for node in flat):
        lines += ["", "Rows that are alike share one line, with the figures of one of them."]
    trouble = wording.troubles(trace)
    for sentence in trouble:
        lines += textwrap.wrap(f"✗ {sentence}" if sentence == trouble[0] else f"  {sentence}", WIDTH)
    return "\n".join(line.rstrip() for line in lines)


def _chosen(trace: Trace, columns: Sequence[str] | None) -> list[str]:
    if columns is not None:
        for name in columns:
            if name not in COLUMNS:
                raise ParameterError("columns", repr(name), f"some of {', '.join(COLUMNS)}")
        return list(columns)
    outputs = [info for row in trace.rows for info in row.outputs]
    modules = trace.parameters or any(row.parameters for row in trace.rows)
    told = {
        "output": True,
        "formula": any(info.formulas is not None for info in outputs),
        "dtype": len({info.dtype for info in outputs}) > 1,
        "device": len({info.device for info in outputs}) > 1,
        "parameters": modules,
        "flops": any(row.flops != 0 for row in trace.rows),
        "memory": any(row.bytes != 0 for row in trace.rows),
        "seconds": any(row.seconds is not None for row in trace.rows),
        "range": any(info.statistics for info in outputs),
        "bad": any(info.statistics and not info.statistics.finite for info in outputs),
        "source": any(row.source for row in trace.rows),
    }
    return [name for name, tells in told.items() if tells]


def parameters(node: Node) -> str:
    """Of a module with all inside it; `shared` where all have been counted before."""
    if node.row.kind == "op" or not (node.parameters or node.row.shared):
        return ""
    return wording.count(node.parameters) if node.parameters else "shared"


def _grid(flat: list[Node], columns: list[Column]) -> list[str]:
    """The table: texts in columns, those that are too wide wrapped or cut."""
    first = min(node.row.depth for node in flat)
    cells = []
    for node in flat:
        name = "  " * (node.row.depth - first) + ("✗ " if node.row.open else "") + _name(node)
        cells.append([[name], *(column.text(node) for column in columns)])
    everything = [Column("", lambda node: [], 24), *columns]
    widths = [
        max([wording.width(column.title), *(wording.width(line) for row in cells for line in row[i])])
        for i, column in enumerate(everything)
    ]
    gaps = 2 * len(columns)
    flexible = [i for i, column in enumerate(everything) if column.least is not None]
    while sum(widths) + gaps > WIDTH:
        # The column that is furthest above its least width gives way first
        widest = max(flexible, key=lambda i: widths[i] - everything[i].least)
        if widths[widest] <= everything[widest].least:
            break
        widths[widest] -= 1
    right = [column.least is None for column in everything]
    header = "  ".join(_padded(column.title, w, r) for column, w, r in zip(everything, widths, right, strict=True))
    lines = [header, "─" * min(WIDTH, sum(widths) + gaps)]
    for node, row in zip(flat, cells, strict=True):
        if node.skipped:
            lines.append(f"{'  ' * (node.row.depth - first)}… {wording.many(node.skipped, 'row')} …")
        for k in range(max(map(len, row))):  # the k-th output of each column on the same line, however they wrap
            wrapped = [
                _wrapped(texts[k], widths[i], everything[i], indent=i == 0) if k < len(texts) else []
                for i, texts in enumerate(row)
            ]
            for parts in zip_longest(*wrapped, fillvalue=""):
                padded = (_padded(part, w, r) for part, w, r in zip(parts, widths, right, strict=True))
                lines.append("  ".join(padded).rstrip())
    return lines


def _name(node: Node) -> str:
    """The label, with the class where the name alone says nothing: `0 Conv1d`."""
    row = node.row
    if row.kind == "module" and node.name.partition(" ")[0].isdigit():
        return f"{node.label} {row.name}"
    return node.label


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * max(0, width - wording.width(text))
    return space + text if right else text + space


def _wrapped(text: str, width: int, column: Column, indent: bool) -> list[str]:
    """A text in lines of a width: parted behind commas where that is enough, cut with … where it is not."""
    if wording.width(text) <= width:
        return [text]
    if column.cut_left:
        return [f"…{text[len(text) - width + 1 :]}"]
    if indent:  # a name: its beginning says where it is, its end what it is; how many are alike has its own line
        name, bracket, alike = text.partition(" (")
        keep, space = width - 1, " " * (len(text) - len(text.lstrip()) + 2)
        if wording.width(name) > width:
            name = f"{name[: keep - keep // 2]}…{name[len(name) - keep // 2 :]}"
        return [name, f"{space}({alike}"] if bracket else [name]
    lines, line = [], ""
    for part in _parts(text, width):
        if line and wording.width(line + part.rstrip()) > width:
            lines.append(line.rstrip())
            line = " "
        line += part
    lines.append(line.rstrip())
    return [line if wording.width(line) <= width else f"{line[: width - 1]}…" for line in lines]


def _parts(text: str, width: int) -> list[str]:
    """A text in parts that may stand on lines of their own: behind commas, and before `+` and `-` outside of brackets.

    Where such a part is wider than a line, before every `+` and `-`.
    """
    for deepest in (1, len(text)):
        parts, depth = [""], 0
        for word in re.split(r"(?<= )", text):
            operator = word in ("+ ", "- ") and depth <= deepest
            if operator or parts[-1].endswith(", "):
                parts.append("")
            parts[-1] += word
            depth += word.count("(") - word.count(")")
        if max(map(len, parts)) < width:
            break
    return parts
