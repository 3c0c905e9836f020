"""HTML tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape


def html_table(columns: Mapping[str, Iterable], fractions: str = ".3f") -> str:
    """Make an HTML table from columns by name; `fractions` is the format of floats."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = zip(*columns.values(), strict=True)
    lines = ("".join(f"<td>{_cell(value, fractions)}</td>" for value in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: object, fractions: str) -> str:
    return f"{value:{fractions}}" if isinstance(value, float) else escape(str(value))
