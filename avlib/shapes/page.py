"""A trace as a page: one string of HTML that reads without scripts, on a light and on a dark page."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from .outline import COLUMNS, Node, facts, headline, hidden_in, shortened, troubles, useful_columns
from .palette import PAPER
from .rows import Recording, Row, TensorInfo, plural, together

ENTRIES = 1500  # the most rows of a page
OPEN = 30  # the most rows that are seen at first
MEANINGS = 60  # the most formulas that are explained
OUTPUTS = 8  # the most tensors that a row lists


@cache
def template(name: str) -> jinja2.Template:
    """Return a template that lies beside this file."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["paper"] = PAPER
    return environment.get_template(name)


def report(title: str, sentences: Iterable[str], **more: Any) -> str:
    """Return a block of HTML with its own colours, light and dark: a title, sentences, and tables.

    Args:
        title: the heading.
        sentences: the paragraphs.
        more: further variables of the template, such as `tables` of `titles`, `rows` of cells of lines, and `more`.
    """
    return template("page.html.j2").render(title=title, sentences=sentences, **more)


def html(trace: Recording) -> str:
    """Return a trace as HTML: a tree that folds, with sizes beside formulas, and what they need and mean.

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
        [headline(trace)],
        facts=facts(trace),
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
        self.bad = trace.first_bad
        outputs = [info for row in trace.rows for info in row.outputs]
        self.mixed = [name for name in ("dtype", "device") if len({getattr(info, name) for info in outputs}) > 1]
        sizes = {  # widths in em, such that most texts fit on one line
            "output": _width((info.size for info in outputs), 6, 20),
            "formula": _width((info.formula for info in outputs), 10, 19),
            **{"parameters": 5.5, "flops": 5, "memory": 5.5, "seconds": 5},
            "source": _width((row.source.short for row in trace.rows if row.source), 6, 11.5),
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
        """Entries in order; more than two operations in a row between modules share one that opens."""
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
        """Whether it is an operation without an error."""
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
        """Size and, if the page has formulas, formula with its meaning as a title."""
        if "formula" not in self.columns:
            return [_cell(info.size)]
        meanings = [
            f"{f}: {f.meaning()}" for f in info.formulas or () if f and f.names and not f.is_name and f.meaning()
        ]
        return [_cell(info.size), _cell(info.formula, title="; ".join(dict.fromkeys(meanings)))]

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


def _width(texts: Iterable[str], least: float | int, most: float | int) -> float | int:
    return min(most, max(least, round(0.62 * max(map(len, texts), default=0), 1)))


def _meanings(trace: Recording) -> Mapping[str, Any]:
    """A table of each formula with its size here, its meaning, and where it is first seen."""
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
