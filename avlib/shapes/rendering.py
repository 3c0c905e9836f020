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

from ..errors import CacheError, check_whole
from . import outline, palette
from .outline import COLUMNS, Column, Node
from .rows import Nest, Recording, Requirement, Row, Source, TensorInfo, plural, portable, relative, together, width

WIDTH = 120  # columns of a terminal
LINES = 90  # the most rows of a table if no depth is given
ENTRIES = 1500  # the most rows of a page
OPEN = 30  # the most rows that are seen at first
MEANINGS = 60  # the most formulas that are explained
ALIKE = "Rows that are alike share one line, with the figures of one of them."
ASIDE = ("dtype", "device", "range", "bad")  # columns of the table that a page has in the rows


def table(trace: Recording, depth: int | None = None, ops: bool | None = None) -> str:
    """Return a table of at most 120 columns, modules indented by depth.

    Args:
        depth: the deepest level; the first row has depth 0. By default as deep as some 90 lines allow.
        ops: show operations; by default only if there are no modules.
    """
    check_whole("depth", 0 if depth is None else depth, 0)
    if ops is None:
        ops = not any(row.kind == "module" for row in trace.rows[1:])
    nodes, level, hidden = outline.shortened(trace, LINES, depth, ops)
    flat = list(outline.walked(nodes))
    lines = wrapped(f"{trace.name or 'trace'}: {outline.headline(trace)}")
    for title, fact in outline.facts(trace):
        lines += wrapped(f"{title} {fact}")
    if flat:
        columns = [NAME, *outline.useful_columns(trace, flat).values()]
        entries = []
        for node in flat:
            skipped = f"{'  ' * node.row.depth}… {plural(node.skipped, 'row')} …"
            entries += [[[skipped], *[[]] * (len(columns) - 1)]] * bool(node.skipped)
            entries.append([column.lines(node) for column in columns])
        lines += ["", *grid(columns, entries)]
    if hidden:
        deeper = f"what is deeper than {level}" if level < max(row.depth for row in trace.rows) else ""
        kinds = " and ".join(filter(None, ["operations" * (not ops), deeper]))
        left_out = f"Not shown: {plural(hidden, 'row')}{f' ({kinds})' if kinds else ''}."
        lines += ["", f"{left_out} table(depth=..., ops=True) has them."]
    lines += ["", ALIKE] * any(node.alike for node in flat)
    for number, sentence in enumerate(outline.troubles(trace)):
        lines += textwrap.wrap(f"{' ' if number else '✗'} {sentence}", WIDTH)
    return "\n".join(line.rstrip() for line in lines)


def wrapped(text: str) -> list[str]:
    """Break a text into lines of a terminal, the later ones indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ")


def _name(node: Node) -> list[str]:
    """The label, with the class if the name alone says nothing: `0 Conv1d`."""
    plain = node.row.kind == "module" and node.name.partition(" ")[0].isdigit()
    label = f"{node.label} {node.row.name}" if plain else node.label
    return ["  " * node.row.depth + "✗ " * node.row.open + label]


NAME = Column("", _name, 24, tail=0.5)  # its beginning says where it is, its end what it is


def grid(columns: Sequence[Column], entries: Iterable[Sequence[Sequence[str]]]) -> list[str]:
    """Return entries in columns, each with lines for a column; texts that are too wide are wrapped or cut."""
    rows = [texts for cells in entries for texts in zip_longest(*cells, fillvalue="")]
    titles = [column.title for column in columns]
    widths = [max(map(width, texts)) for texts in zip(titles, *rows, strict=True)]
    gaps = 2 * (len(columns) - 1)

    def spare(i: int) -> int:
        return 0 if columns[i].least is None else widths[i] - columns[i].least

    # The column that is furthest above its smallest width is narrowed first
    while sum(widths) + gaps > WIDTH and spare(widest := max(range(len(columns)), key=spare)) > 0:
        widths[widest] -= 1

    def joined(texts: Sequence[str]) -> str:
        spaces = [" " * max(0, size - width(text)) for text, size in zip(texts, widths, strict=True)]
        sides = zip(texts, spaces, columns, strict=True)
        return "  ".join(space + text if c.least is None else text + space for text, space, c in sides).rstrip()

    lines = [joined(titles), "─" * min(WIDTH, sum(widths) + gaps)]
    for texts in rows:
        lines += map(joined, zip_longest(*map(_fitted, texts, widths, columns), fillvalue=""))
    return lines


def _fitted(text: str, size: int, column: Column) -> list[str]:
    """A text in lines of a width, wrapped or cut."""
    if width(text) <= size:
        return [text]
    if column.tail is None:
        glued = re.sub(r" ([-+]) ", " \\1\u00a0", text)  # an operator begins a line
        return [_cut(line.replace("\u00a0", " "), size) for line in textwrap.wrap(glued, size, subsequent_indent=" ")]
    name, bracket, alike = text.partition(" (")  # the number of equals has its own line
    space = " " * (len(text) - len(text.lstrip()) + 2)
    return [_cut(name, size, column.tail), *[f"{space}({alike}"] * bool(bracket)]


def _cut(text: str, size: int, tail: float = 0.0) -> str:
    """Cut a text to a width, with … for what is left out before the part `tail` of it."""
    end = int((size - 1) * tail)
    return text if width(text) <= size else f"{text[: size - 1 - end]}…{text[len(text) - end :]}"


@cache
def template(name: str) -> jinja2.Template:
    """Return a template that lies beside this file."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"palette": palette, "zipped": zip_longest, "explained": _explained, "alike_rows": ALIKE}
    environment.globals |= {"plural": plural, "together": together, "portable": portable}
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
    period = 0 if values and len(trace.rows) <= ENTRIES else outline.PERIOD
    nodes, _, hidden = outline.shortened(trace, ENTRIES, ops=True, period=period)
    flat = list(outline.walked(nodes))
    useful = outline.useful_columns(trace, flat)
    columns = [column for name, column in useful.items() if name not in ASIDE]
    longest = (max((len(line) for node in flat for line in column.lines(node)), default=0) for column in columns)
    depths = [node.row.depth for node in flat if node.row.kind == "module"] or [node.row.depth for node in flat]
    return report(
        trace.name or "trace",
        [outline.headline(trace), *outline.meanings(trace)],
        facts=[(title, text) for title, text in outline.facts(trace) if title != "with"],
        troubles=outline.troubles(trace),
        tree=_grouped(nodes, trace.first_bad),
        opened=outline.fitting(depths, OPEN),
        bad=trace.first_bad,
        columns=columns,
        mixed=[name for name in ("dtype", "device") if name in useful],
        sizes=[min(15.5, max(5, round(0.62 * letters, 1))) for letters in longest],  # in em
        alike=any(node.alike for node in flat),
        hidden=hidden,
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
            rows = [row for node in several for row in node.rows]
            last = several[-1].row  # its first output is what the next module is given
            row = outline.summed(rows)
            row.name, row.kind, row.depth = plural(len(rows), "operation"), "op", last.depth
            row.outputs = last.outputs[:1]
            found.append(Node(row, f"{several[0].name} … {several[-1].name}", several, names=several[0].names))
        else:
            found += [replace(node, inner=_grouped(node.inner, bad)) for node in several]
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
    found: dict[str, list[list[Any]]] = {}
    for row in trace.rows:
        for info in row.outputs:
            for formula, size in zip(info.formulas or (), info.shape, strict=False):
                if formula is not None and formula.names and not formula.is_name and str(formula) not in found:
                    here = "?" if size is None else size
                    found[str(formula)] = [[formula], [here], [formula.meaning()], [row.where]]
    titles, rows = ["formula", "here", "in words", "first in"], list(found.values())
    more = max(0, len(rows) - MEANINGS)
    return {"summary": "What the formulas mean", "titles": titles, "rows": rows[:MEANINGS], "more": more}


def _joined(side: str, text: str) -> Callable[[Row], str]:
    return lambda row: "; ".join(getattr(info, text) for info in getattr(row, side))


CSV: dict[str, Callable[[Row], Any]] = {
    **{name: attrgetter(name) for name in ("index", "path", "call", "kind", "name", "parent", "depth")},
    **{name: _joined(name, "named") for name in ("inputs", "outputs")},
    **{f"{name}s": _joined("outputs", name) for name in ("formula", "dtype", "device")},
    **{name: attrgetter(name) for name in ("parameters", "shared", "flops", "flops_at_least", "bytes", "seconds")},
    "file": lambda row: relative(row.source.file) if row.source else "",
    "line": lambda row: row.source.line if row.source else "",
    "error": lambda row: portable(row.error or ""),
}


def to_csv(trace: Recording, path: str | Path | None = None) -> str:
    """Return a trace as CSV, one line per row."""
    found = io.StringIO()
    rows = ([value(row) for value in CSV.values()] for row in trace.rows)
    csv.writer(found, lineterminator="\n").writerows([CSV, *rows])
    return _saved(found.getvalue(), path)


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
        return portable(value)
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
