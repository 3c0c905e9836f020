"""A trace as a table, a page, CSV and JSON.

The page is one string of HTML that reads without scripts, on a light and on a dark page.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import textwrap
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import jinja2

from ..errors import CacheError, ParameterError
from .outline import (
    COLUMNS,
    Column,
    Node,
    facts,
    formulas_of,
    headline,
    hidden_in,
    meanings,
    shared_formulas,
    shortened,
    troubles,
    useful_columns,
)
from .palette import PAPER
from .rows import Nest, Recording, Row, TensorInfo, plural, together, width

WIDTH = 120  # columns of a terminal
LINES = 90  # the most rows of a table if no depth is given
ENTRIES = 1500  # the most rows of a page
OPEN = 30  # the most rows that are seen at first
MEANINGS = 60  # the most formulas that are explained
OUTPUTS = 8  # the most tensors that a row lists

NAME = Column("", lambda node: [], 24)


def table(trace: Recording, depth: int | None = None, ops: bool | None = None) -> str:
    """Return a table of at most 120 columns, modules indented by depth.

    Args:
        depth: the deepest level; the first row has depth 0. By default as deep as some 90 lines allow.
        ops: show operations; by default only if there are no modules.
    """
    if depth is not None and depth < 0:
        raise ParameterError("depth", str(depth), "0 or more")
    if ops is None:
        ops = not any(row.kind == "module" for row in trace.rows[1:])
    nodes, level = shortened(trace, LINES, depth, ops)
    flat = [inner for node in nodes for inner in node.walk()]
    chosen = useful_columns(trace)
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
    """A text in lines of a width, wrapped or cut."""
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
    """A text in parts: after commas, before `+` and `-` outside brackets."""
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


@cache
def template(name: str) -> jinja2.Template:
    """Return a template that lies beside this file."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["paper"] = PAPER
    return environment.get_template(name)


def report(title: str, sentences: Iterable[str], **more: Any) -> str:
    """Return HTML with its own colours: a title, sentences, tables."""
    return template("page.html.j2").render(title=title, sentences=sentences, **more)


def html(trace: Recording) -> str:
    """Return a trace as HTML: a tree that folds, with formulas.

    Nothing is fetched, and only the search box needs a script. Equal siblings share one entry.
    """
    # Rows with statistics are shown one by one, unless that is too much
    values = any(info.statistics for row in trace.rows for info in row.outputs)
    nodes, _ = shortened(trace, ENTRIES, ops=True, fold=not values or len(trace.rows) > ENTRIES)
    tree = _Tree(trace, nodes)
    left_out = []
    if any(inner.alike for node in nodes for inner in node.walk()):
        left_out.append("Rows that are alike share one line, with the figures of one of them.")
    if hidden := hidden_in(nodes):
        left_out.append(f"Not shown: {plural(hidden, 'row')}; to_json() and table(depth=...) have them.")
    return report(
        trace.name or "trace",
        [headline(trace), *meanings(trace)],
        facts=[(title, text) for title, text in facts(trace) if title != "with"],
        troubles=troubles(trace),
        tree=tree.entries,
        head=[_cell(COLUMNS[name].title, "h" if COLUMNS[name].least is None else "") for name in tree.columns],
        widths=" ".join(["minmax(0,1fr)", *(f"{size:g}em" for size in tree.columns.values())]),
        minimum=f"{11.5 + sum(size + 0.8 for size in tree.columns.values()):g}",
        left_out=left_out,
        tables=[_meanings(trace)],
        id=f"av-{uuid.uuid4().hex[:10]}",
    )


class _Tree:
    """The entries of a page as data for the template."""

    def __init__(self, trace: Recording, nodes: list[Node]):
        self.bad, self.names = trace.first_bad, shared_formulas(trace)
        outputs = [info for row in trace.rows for info in row.outputs]
        self.mixed = [name for name in ("dtype", "device") if len({getattr(info, name) for info in outputs}) > 1]
        sizes = {  # widths in em, such that most texts fit on one line
            "output": _em((info.size for info in outputs), 6, 20),
            "formula": _em((info.formula for info in outputs), 10, 19),
            **{"parameters": 5.5, "flops": 5, "memory": 5.5, "seconds": 5},
            "source": _em((row.source.short for row in trace.rows if row.source), 6, 11.5),
        }
        useful = useful_columns(trace)
        self.columns = {name: size for name, size in sizes.items() if name in useful}
        # The tree is open as deep as it can be seen at once
        rows = [inner.row for node in nodes for inner in node.walk()]
        depths = [row.depth for row in rows if row.kind == "module"] or [row.depth for row in rows]
        self.opened = max(depths, default=0)
        while self.opened > 1 and sum(depth <= self.opened for depth in depths) > OPEN:
            self.opened -= 1
        self.entries = self.listed(nodes)

    def listed(self, nodes: list[Node]) -> list[dict]:
        """Entries in order; several operations in a row share one."""
        modules = any(node.row.kind == "module" for node in nodes)
        found = []
        for aside, group in groupby(nodes, lambda node: modules and self.is_aside(node)):
            several = list(group)
            entries = [self.entry(node) for node in several]
            if aside and len(several) > 2:
                label = f"{several[0].name} … {several[-1].name}"
                small = plural(sum(node.times for node in several), "operation")
                last = several[-1].row.outputs[:1]  # what the next module is given
                cells = [cell for info in last for cell in self.tensor_cells(info)]
                entries = [{"css": "o", "label": label, "small": small, "cells": cells, "inner": entries}]
            found += entries
        return found

    def is_aside(self, node: Node) -> bool:
        """True for an operation without an error."""
        return node.row.kind == "op" and not node.row.open and node.row is not self.bad and not node.skipped

    def entry(self, node: Node) -> dict:
        row = node.row
        kinds = ["o"] * (row.kind == "op") + ["e"] * (row.open or row is self.bad)
        values = [f"{info.path} {info.statistics}".strip() for info in row.outputs[:OUTPUTS] if info.statistics]
        module = row.kind == "module"
        return {
            "css": " ".join(kinds),
            "paths": " ".join(other.path for other in node.alike) if module else "",
            "open": row.depth < self.opened and bool(node.inner),
            "skipped": plural(node.skipped, "row") if node.skipped else "",
            "label": node.label,
            "small": row.name if module and row.name != node.name else "",
            "cells": self.cells(node),
            "parts": self.parts(node),
            "whose": f"values of {node.name}: " if node.alike else "",
            "looks": values,
            "inner": self.listed(node.inner),
        }

    def cells(self, node: Node) -> list[dict]:
        first, *others = [info for _, info in together(node.row.outputs)] or [None]
        found = []
        for name in self.columns:
            column = COLUMNS[name]
            if name == "formula":
                found += self.tensor_cells(first)[1:] if first else [_cell("")]
            elif name == "output":
                found += self.tensor_cells(first)[:1] if first else [_cell(column.lines(node)[0])]
            else:
                (text,) = column.lines(node)
                source = str(node.row.source or "") if name == "source" else ""
                found.append(_cell(text, "w" if name == "source" else "f", source))
        for info in others:  # each on a line of its own
            size, *formula = self.tensor_cells(info)
            found += [size | {"css": "n"}, *(formula or [_cell("")])]
        return found

    def tensor_cells(self, info: TensorInfo) -> list[dict]:
        """Size and, if the page has formulas, formula."""
        if "formula" not in self.columns:
            return [_cell(info.size)]
        pairs = zip(info.formulas or (), info.shape, strict=False)
        words = {f"{f}: {f.meaning() or f'{size} here'}": 0 for f, size in pairs if f and f.names}
        return [_cell(info.size), _cell(formulas_of(info, self.names), title="; ".join(words))]

    def parts(self, node: Node) -> list[tuple[str, str, str]]:
        """The further facts of a row: text before, tag, text."""
        row = node.row
        found = [("", "code", row.full_path)] if row.full_path and row.kind == "module" else []
        if row.inputs:
            given = "; ".join(str(info) for _, info in together(row.inputs)[:OUTPUTS])
            found.append(("from ", "b", given))
        if len(row.outputs) > 1 or any(info.path for info in row.outputs):
            outputs = "; ".join(f"{name} {info.size}" for name, info in together(row.outputs)[:OUTPUTS])
            found.append(("gives ", "b", outputs))
        kinds = [", ".join(dict.fromkeys(getattr(info, name) for info in row.outputs)) for name in self.mixed]
        found += [("", "", kind) for kind in kinds if kind]
        if row.source and row.source.code:
            found.append(("", "b", row.source.code))
        return found + ([("failed: ", "", row.error)] if row.error else [])


def _cell(text: str, css: str = "", title: str = "") -> dict[str, str]:
    return {"text": text, "css": css, "title": title}


def _em(texts: Iterable[str], least: float | int, most: float | int) -> float | int:
    return min(most, max(least, round(0.62 * max(map(len, texts), default=0), 1)))


def _meanings(trace: Recording) -> Mapping[str, Any]:
    """A table of each formula with its size and meaning."""
    found: dict[str, tuple[Any, int | None, Row]] = {}
    for row in trace.rows:
        for info in row.outputs:
            for formula, size in zip(info.formulas or (), info.shape, strict=False):
                if formula is not None and formula.names and not formula.is_name:
                    found.setdefault(str(formula), (formula, size, row))
    rows = [
        [[text], ["?" if size is None else size], [formula.meaning()], [row.where]]
        for text, (formula, size, row) in list(found.items())[:MEANINGS]
    ]
    titles = ["formula", "here", "in words", "first in"]
    more = max(0, len(found) - MEANINGS)
    return {"summary": "What the formulas mean", "titles": titles, "rows": rows, "more": more}


def to_csv(trace: Recording, path: str | Path | None = None) -> str:
    """Return a trace as CSV, one line per row."""
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
    """
    content = {"format": "avlib.shapes 1"} | _fields(trace) | {"output": _nest(trace.output)}
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
