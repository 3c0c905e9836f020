"""Tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape


def html_table(columns: Mapping[str, Iterable], fractions: str = ".3f") -> str:
    """A table of columns by name. Text is escaped; `fractions` says how numbers that are not whole are written."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = zip(*columns.values(), strict=True)
    lines = ("".join(f"<td>{_cell(value, fractions)}</td>" for value in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: object, fractions: str) -> str:
    return f"{value:{fractions}}" if isinstance(value, float) else escape(str(value))
