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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby, zip_longest
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2

from ..errors import CacheError, ParameterError
from . import palette
from .outline import (
    COLUMNS,
    Column,
    Node,
    facts,
    headline,
    hidden_in,
    meanings,
    shortened,
    summed,
    troubles,
    useful_columns,
)
from .rows import (
    Nest,
    Recording,
    Requirement,
    Row,
    Source,
    TensorInfo,
    plural,
    relative,
    together,
    width,
    without_folders,
)

WIDTH = 120  # columns of a terminal
LINES = 90  # the most rows of a table if no depth is given
ENTRIES = 1500  # the most rows of a page
OPEN = 30  # the most rows that are seen at first
MEANINGS = 60  # the most formulas that are explained
OUTPUTS = 8  # the most tensors that a row lists
ASIDE = ("dtype", "device", "range", "bad")  # columns of the table that a page has in the rows

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
        for texts in zip_longest(*row, fillvalue=""):  # the k-th output of each column starts on the same line
            parts = map(_fitted, texts, widths, columns)
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
    glued = re.sub(r" ([-+]) ", " \\1\u00a0", text)  # an operator begins a line
    lines = textwrap.wrap(glued, size, subsequent_indent=" ")
    return [cut(line.replace("\u00a0", " "), size) for line in lines]


def cut(text: str, size: int = WIDTH) -> str:
    """Cut a text to a width, with … at its end."""
    return text if width(text) <= size else f"{text[: size - 1]}…"


@cache
def template(name: str) -> jinja2.Template:
    """Return a template that lies beside this file."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["palette"] = palette
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
    flat = [inner for node in nodes for inner in node.walk()]
    columns = [COLUMNS[name] for name in useful_columns(trace) if name not in ASIDE]
    longest = (max((len(line) for node in flat for line in column.lines(node)), default=0) for column in columns)
    sizes = [min(15.5, max(5, round(0.62 * letters, 1))) for letters in longest]  # in em
    # The tree is open as deep as it can be seen at once
    depths = [node.row.depth for node in flat if node.row.kind == "module"] or [node.row.depth for node in flat]
    opened = max(depths, default=0)
    while opened > 1 and sum(depth <= opened for depth in depths) > OPEN:
        opened -= 1
    hidden = hidden_in(nodes)
    return report(
        trace.name or "trace",
        [headline(trace), *meanings(trace)],
        facts=[(title, text) for title, text in facts(trace) if title != "with"],
        troubles=troubles(trace),
        tree=_grouped(nodes, trace.first_bad),
        opened=opened,
        bad=trace.first_bad,
        columns=columns,
        mixed=[name for name in ASIDE if name in useful_columns(trace)],
        widths=" ".join(["minmax(0,1fr)", *(f"{size:g}em" for size in sizes)]),
        minimum=f"{16 + sum(size + 0.8 for size in sizes):g}",
        lines=lambda node: zip_longest(*(column.lines(node) for column in columns), fillvalue=""),
        explained=_explained,
        several=lambda infos: "; ".join(f"{path} {info.size}".strip() for path, info in together(infos)[:OUTPUTS]),
        plural=plural,
        without_folders=without_folders,
        left_out=[
            *["Rows that are alike share one line, with the figures of one of them."] * any(n.alike for n in flat),
            *[f"Not shown: {plural(hidden, 'row')}; to_json() and table(depth=...) have them."] * bool(hidden),
        ],
        tables=[_meanings(trace)],
        id=f"av-{uuid.uuid4().hex[:10]}",
    )


def _grouped(nodes: list[Node], bad: Row | None) -> list[Node]:
    """Entries in order; several operations in a row share one."""
    modules = any(node.row.kind == "module" for node in nodes)
    found = []
    for aside, group in groupby(
        nodes, lambda n: modules and n.row.kind == "op" and not (n.row.open or n.skipped or n.row is bad)
    ):
        several = list(group)
        if aside and len(several) > 2:
            last = several[-1].row  # its first output is what the next module is given
            row = summed([row for node in several for row in node.alike or [node.row]])
            row.name = plural(sum(node.times for node in several), "operation")
            row.kind, row.depth, row.outputs = "op", last.depth, last.outputs[:1]
            several = [Node(row, f"{several[0].name} … {several[-1].name}", several, names=several[0].names)]
        else:
            several = [replace(node, inner=_grouped(node.inner, bad)) for node in several]
        found += several
    return found


def _explained(column: Column, node: Node) -> str:
    """A text that is seen over a cell: formulas in words, the folder of a line."""
    if column is COLUMNS["source"]:
        return str(node.row.source or "")
    if column is not COLUMNS["formula"] or not node.row.outputs:
        return ""
    info = node.row.outputs[0]
    pairs = zip(info.formulas or (), info.shape, strict=False)
    return "; ".join(dict.fromkeys(f"{f}: {f.meaning() or f'{size} here'}" for f, size in pairs if f and f.names))


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
    def each(infos: Sequence[TensorInfo], text: Callable[[TensorInfo], str]) -> str:
        return "; ".join(map(text, infos))

    def named(info: TensorInfo) -> str:
        return f"{info.path} {info.size}".strip()

    plain = {name: getattr(row, name) for name in ("index", "path", "call", "kind", "name", "parent", "depth")}
    tensors = {"inputs": each(row.inputs, named), "outputs": each(row.outputs, named)}
    texts = {"formulas": "formula", "dtypes": "dtype", "devices": "device"}
    tensors |= {title: each(row.outputs, attrgetter(name)) for title, name in texts.items()}
    work = ("parameters", "shared", "flops", "flops_at_least", "bytes", "seconds")
    source = {"file": relative(row.source.file), "line": row.source.line} if row.source else {"file": "", "line": ""}
    return (
        plain
        | tensors
        | {name: getattr(row, name) for name in work}
        | source
        | {"error": without_folders(row.error or "")}
    )


def to_json(trace: Recording, path: str | Path | None = None) -> str:
    """Return a trace as JSON, without how FLOPs follow from other sizes.

    The keys are those of `Trace`, `Row`, `Source`, `Requirement`, `TensorInfo` and `Statistics`. An unknown size is
    null, formulas are text; `output` nests `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": [[key, value], ...]}` and
    `{"tensor": {...}}`.
    """
    content = {"format": "avlib.shapes 1"} | _plain(trace) | {"output": _nest(trace.output)}
    return _saved(json.dumps(content, ensure_ascii=False, allow_nan=False), path)


def _plain(value: Any) -> Any:
    """A value of a trace in terms of JSON, without folders of this machine."""
    if isinstance(value, str):
        return without_folders(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no NaN and no infinity
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in ("work", "output")}
    elif isinstance(value, Source | Requirement):
        value = value._replace(file=relative(value.file))._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(map(_plain, value)) if isinstance(value, tuple | list) else str(value)


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
