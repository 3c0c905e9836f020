"""A trace as text: a table for a terminal, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import CacheError, ParameterError
from .outline import COLUMNS, Column, Node, facts, headline, hidden_in, shortened, troubles, useful_columns
from .rows import Nest, Recording, Row, TensorInfo, plural, width

WIDTH = 120  # columns of a terminal
LINES = 90  # the most rows of a table if no depth is given
FORMAT = "avlib.shapes 1"
NAME = Column("", lambda node: [], 24)


def text(
    trace: Recording, depth: int | None = None, columns: Sequence[str] | None = None, ops: bool | None = None
) -> str:
    """Return a table of at most 120 columns, modules indented by depth.

    Args:
        trace: the trace.
        depth: the deepest level; the first row has depth 0. By default as deep as some 90 lines allow.
        columns: some of `COLUMNS`; by default those in which the rows have something to show.
        ops: show operations; by default only if there are no modules.

    Raises:
        ParameterError: an unknown column, or a negative depth.
    """
    for name in columns or ():
        if name not in COLUMNS:
            raise ParameterError("columns", repr(name), f"some of {', '.join(COLUMNS)}")
    chosen = useful_columns(trace) if columns is None else list(columns)
    if depth is not None and depth < 0:
        raise ParameterError("depth", str(depth), "0 or more")
    if ops is None:
        ops = not any(row.kind == "module" for row in trace.rows[1:])
    nodes, level = shortened(trace, LINES, depth, ops)
    flat = [inner for node in nodes for inner in node.walk()]
    head = f"{trace.name or 'trace'}: {headline(trace)}"
    for name in ("dtype", "device"):
        values = {getattr(info, name) for row in trace.rows for info in row.outputs}
        if len(values) == 1 and name not in chosen:
            head += f" · {values.pop()}"
    lines = wrapped(head)
    for title, fact in facts(trace):
        lines += wrapped(f"{title} {fact}")
    if flat:
        lines += ["", *_grid(flat, [NAME, *(COLUMNS[name] for name in chosen)])]
    if hidden := hidden_in(nodes):
        deeper = f"what is deeper than {level}" if level < max(row.depth for row in trace.rows) else ""
        kinds = " and ".join(filter(None, ["operations" * (not ops), deeper]))
        left_out = f"Not shown: {plural(hidden, 'row')}{f' ({kinds})' if kinds else ''}."
        lines += ["", f"{left_out} table(depth=..., ops=True) has them."]
    if any(node.alike for node in flat):
        lines += ["", "Rows that are alike share one line, with the figures of one of them."]
    for number, sentence in enumerate(troubles(trace)):
        lines += textwrap.wrap(f"{' ' if number else '✗'} {sentence}", WIDTH)
    return "\n".join(line.rstrip() for line in lines)


def wrapped(text: str) -> list[str]:
    """Break a text into lines of a terminal, the later ones indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ")


def _grid(flat: list[Node], columns: list[Column]) -> list[str]:
    """Entries in columns; texts that are too wide are wrapped or cut."""
    first = min(node.row.depth for node in flat)
    cells = []
    for node in flat:
        name = "  " * (node.row.depth - first) + ("✗ " if node.row.open else "") + _name(node)
        cells.append([[name], *(column.lines(node) for column in columns[1:])])
    widths = [
        max([width(column.title), *(width(line) for row in cells for line in row[i])])
        for i, column in enumerate(columns)
    ]
    gaps = 2 * (len(columns) - 1)
    flexible = [i for i, column in enumerate(columns) if column.least is not None]
    while sum(widths) + gaps > WIDTH:
        # The column that is furthest above its smallest width is narrowed first
        widest = max(flexible, key=lambda i: widths[i] - columns[i].least)
        if widths[widest] <= columns[widest].least:
            break
        widths[widest] -= 1

    def joined(texts: Sequence[str]) -> str:
        padded = []
        for text, column, size in zip(texts, columns, widths, strict=True):
            space = " " * max(0, size - width(text))
            padded.append(space + text if column.least is None else text + space)
        return "  ".join(padded).rstrip()

    lines = [joined([column.title for column in columns]), "─" * min(WIDTH, sum(widths) + gaps)]
    for node, row in zip(flat, cells, strict=True):
        if node.skipped:
            lines.append(f"{'  ' * (node.row.depth - first)}… {plural(node.skipped, 'row')} …")
        for texts in zip_longest(*row):  # the k-th output of each column starts on the same line
            parts = [
                [] if text is None else _fitted(text, size, column)
                for text, size, column in zip(texts, widths, columns, strict=True)
            ]
            lines += [joined(line) for line in zip_longest(*parts, fillvalue="")]
    return lines


def _name(node: Node) -> str:
    """The label, with the class if the name alone says nothing: `0 Conv1d`."""
    plain = node.row.kind == "module" and node.name.partition(" ")[0].isdigit()
    return f"{node.label} {node.row.name}" if plain else node.label


def _fitted(text: str, size: int, column: Column) -> list[str]:
    """A text in lines of a width: broken after commas if that is enough, otherwise cut with …."""
    if width(text) <= size:
        return [text]
    if column.cut_left:
        return [f"…{text[len(text) - size + 1 :]}"]
    if column is NAME:  # its beginning says where it is, its end what it is; the number of equals has its own line
        name, bracket, alike = text.partition(" (")
        keep, space = size - 1, " " * (len(text) - len(text.lstrip()) + 2)
        if width(name) > size:
            name = f"{name[: keep - keep // 2]}…{name[len(name) - keep // 2 :]}"
        return [name, f"{space}({alike}"] if bracket else [name]
    lines, line = [], ""
    for part in _parts(text, size):
        if line and width(line + part.rstrip()) > size:
            lines.append(line.rstrip())
            line = " "
        line += part
    return [cut(line, size) for line in [*lines, line.rstrip()]]


def cut(text: str, size: int = WIDTH) -> str:
    """Cut a text to a width, with … at its end."""
    return text if width(text) <= size else f"{text[: size - 1]}…"


def _parts(text: str, size: int) -> list[str]:
    """A text in parts: broken after commas, and before `+` and `-` outside brackets.

    If such a part is wider than a line, before every `+` and `-`.
    """
    for deepest in (1, len(text)):
        parts, depth = [""], 0
        for word in re.split(r"(?<= )", text):
            operator = word in ("+ ", "- ") and depth <= deepest
            if operator or parts[-1].endswith(", "):
                parts.append("")
            parts[-1] += word
            depth += word.count("(") - word.count(")")
        if max(map(len, parts)) < size:
            break
    return parts


# CSV and JSON


def to_csv(trace: Recording, path: str | Path | None = None) -> str:
    """Return a trace as CSV, one line per row; tensors are separated by semicolons, unknown values are empty.

    Args:
        trace: the trace.
        path: a file to write to as well.

    Raises:
        CacheError: the file cannot be written.
    """
    found = io.StringIO()
    writer = csv.DictWriter(found, list(_record(Row(0, "", 1, "op", "", None, 0))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_record, trace.rows))
    return _saved(found.getvalue(), path)


def _record(row: Row) -> dict[str, Any]:
    def each(infos: Sequence[TensorInfo], name: str) -> str:
        return "; ".join(getattr(info, name) for info in infos)

    def sizes(infos: Sequence[TensorInfo]) -> str:
        return "; ".join(f"{info.path} {info.size}".strip() for info in infos)

    plain = {name: getattr(row, name) for name in ("index", "path", "call", "kind", "name", "parent", "depth")}
    tensors = {"inputs": sizes(row.inputs), "outputs": sizes(row.outputs), "formulas": each(row.outputs, "formula")}
    tensors |= {"dtypes": each(row.outputs, "dtype"), "devices": each(row.outputs, "device")}
    work = ("parameters", "shared", "flops", "flops_at_least", "bytes", "seconds")
    source = {"file": row.source.file, "line": row.source.line} if row.source else {"file": None, "line": None}
    return plain | tensors | {name: getattr(row, name) for name in work} | source | {"error": row.error}


def to_json(trace: Recording, path: str | Path | None = None) -> str:
    """Return a trace as JSON, without how FLOPs follow from other sizes.

    The keys are those of `Trace`, `Row`, `Source`, `Requirement`, `TensorInfo` and `Statistics`. An unknown size is
    null, formulas are text; `output` nests `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": [[key, value], ...]}` and
    `{"tensor": {...}}`.

    Args:
        trace: the trace.
        path: a file to write to as well.

    Raises:
        CacheError: the file cannot be written.
    """
    content = {"format": FORMAT} | _fields(trace) | {"output": _nest(trace.output)}
    return _saved(json.dumps(content, ensure_ascii=False, allow_nan=False), path)


def _fields(value: Any) -> dict[str, Any]:
    names = (f.name for f in dataclasses.fields(value) if f.name not in ("work", "output"))
    return {name: _plain(getattr(value, name)) for name in names}


def _plain(value: Any) -> Any:
    """A value of a trace in terms of JSON."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no NaN and no infinity
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, tuple | list):
        return list(map(_plain, value))
    return _fields(value) if dataclasses.is_dataclass(value) else str(value)


def _nest(nest: Nest) -> Any:
    if isinstance(nest, TensorInfo):
        return {"tensor": _plain(nest)}
    if isinstance(nest, dict):
        keys = str | int | float | None
        return {"dict": [[key if isinstance(key, keys) else repr(key), _nest(value)] for key, value in nest.items()]}
    if isinstance(nest, tuple | list):
        return {"tuple" if isinstance(nest, tuple) else "list": [_nest(value) for value in nest]}
    return None


def _saved(text: str, path: str | Path | None) -> str:
    if path is not None:
        try:
            Path(path).write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise CacheError(path, error.strerror or str(error), "a file that can be written") from error
    return text
