"""Sliders over formulas: a script gets them as nested lists, so that a saved page evaluates them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from html import escape
from typing import Any

from ..errors import ParameterError, check_choice, check_whole
from .formula import Formula, Relation
from .notation import Real
from .outline import Node, shortened
from .rows import Recording, Row, count
from .widget import Widget, widget

ENTRIES = 120  # of a tree
Sizes = Mapping[str, int]


def steer(
    trace: Recording, seconds: Sizes | None = None, low: Sizes | None = None, high: Sizes | None = None
) -> Widget:
    """Show a trace with a slider per named size: sizes, memory and FLOPs follow.

    A requirement that does not hold turns red, with the nearest size at which all hold. `seconds` has how many of a
    name make a second; `low` and `high` are the ends of the sliders, by default 1 and four times the traced size.
    """
    if not trace.dims:
        raise ParameterError("trace", "no named sizes", "a trace made with dims=, as in dims={0: 'B T'}")
    for name in (*(seconds or {}), *(low or {}), *(high or {})):
        check_choice("name", name, tuple(trace.dims))
    sliders, known, needs = [], {}, []
    for name, size in trace.dims.items():
        ends = (low or {}).get(name, 1), (high or {}).get(name, 4 * size)
        check_whole(f"low[{name!r}]", ends[0], 1, size)
        check_whole(f"high[{name!r}]", ends[1], size)
        sliders.append([name, size, *ends, (seconds or {}).get(name)])
    costs = _costs(trace)

    def place(size: Formula | int | None) -> int | None:
        """The place of a formula among all."""
        return None if size is None else known.setdefault(str(Formula(size)), (len(known), nested(Formula(size))))[0]

    def entry(node: Node) -> list:
        shape = node.row.outputs[0].formulas or node.row.outputs[0].shape if node.row.outputs else ()
        memory, work = ([place(total), unknown] for total, unknown in costs[node.row.index])
        return [node.label, [place(size) for size in shape], memory, work, list(map(entry, node.inner))]

    tree = list(map(entry, shortened(trace, ENTRIES)[0]))
    for need in trace.requires:
        with suppress(ParameterError, ValueError):  # a sentence
            relation = Relation.read(need.formula)
            needs.append([place(relation.left), relation.sign, place(relation.right), str(need._replace(reason=""))])
    formulas = [[text if len(text) < 80 else "", terms] for text, (_, terms) in known.items()]
    text = f"{trace.name}: {count(trace.parameters)} parameters, with a slider for {', '.join(trace.dims)}"
    data = {"sliders": sliders, "tree": tree, "needs": needs, "formulas": formulas}
    return widget("steer", data, text=text, still=f"<pre>{escape(text, False)}</pre>")


def nested(formula: Any) -> Any:
    """Return a formula as lists: its terms, each a factor and its atoms; floating-point steps have a sign."""
    if isinstance(formula, Real):
        return {"sign": formula.sign, "sides": [nested(formula.left), nested(formula.right)]}
    if not isinstance(formula, Formula):
        return formula
    calls = [
        [a if isinstance(a, str) else [a.function, *map(nested, a.arguments)] for a in term] for term in formula.terms
    ]
    return [[factor, atoms] for factor, atoms in zip(formula.terms.values(), calls, strict=True)]


def _costs(trace: Recording) -> list:
    """New bytes and FLOPs of each row with all inside: formulas, each with True if a part is unknown."""
    costs = [[[Formula(0), False], [Formula(0), False]] for _ in trace.rows]
    for row in reversed(trace.rows):
        if row.kind == "op":
            found = _cost(row, partial(_memory, row)), _cost(row, row.work)
            costs[row.index] = [[cost or Formula(0), cost is None] for cost in found]
        for outer, mine in zip(costs[row.parent] if row.parent is not None else [], costs[row.index], strict=False):
            outer[:] = outer[0] + mine[0], outer[1] or mine[1]
    return costs


def _cost(row: Row, find: Any) -> Formula | None:
    try:
        return Formula(find(*([info.formulas or info.shape for info in infos] for infos in (row.inputs, row.outputs))))
    except (TypeError, ParameterError):  # unknown work, a rule that compares sizes, or a size without a formula
        return None


def _memory(row: Row, inputs: list, outputs: list) -> Any:
    new = zip(row.outputs if row.fresh and not row.open else (), outputs, strict=False)
    return sum(math.prod(shape) * (info.bytes // max(1, math.prod(info.shape))) for info, shape in new)
