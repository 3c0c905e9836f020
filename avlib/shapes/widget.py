"""Interactive HTML in one output: a still picture, data, and a script that brings it to life.

A script finds its output by itself and reads its data from JSON, so its text is the same in every output: a page can
allow these scripts by their hashes, and no others. Nothing is fetched, and no kernel is asked.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = [HERE / "steer.js", *(HERE.parent / f"view/{n}.js" for n in ("inspect", "spectrogram", "maps", "frames"))]
DATA = '<script type="application/json">'
HINT = "Not interactive here: this notebook is not trusted. Run the cell, or choose Trust Notebook in the menu."


@dataclass(frozen=True, repr=False)
class Widget:
    """Interactive HTML for notebooks, and one line of text for terminals."""

    markup: str
    text: str
    live: Callable | None = None  # of figures drawn ahead: returns ipywidgets that draw any other, with a kernel

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.text


def widget(kind: str, data: dict[str, object], text: str, still: str, live: Callable | None = None) -> Widget:
    """Return a widget: `still` is HTML that is seen until the script runs, `text` its one line."""
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    style = (HERE / "core.css").read_text(encoding="utf-8")
    markup = (
        f'<div class="av-widget" role="group" aria-label="{html.escape(text)}"><style>{style}</style>'
        f'<p class="av-hint">{HINT}</p>{still}{DATA}{content}</script><script>{scripts()[kind]}</script></div>'
    )
    return Widget(markup, text, live)


@cache
def scripts() -> dict[str, str]:
    """Return the script of each kind of widget."""
    core = (HERE / "core.js").read_text(encoding="utf-8")
    return {path.stem: f"(() => {{\n{core}{path.read_text(encoding='utf-8')}}})()" for path in SCRIPTS}


def policy() -> str:
    """Return the sources of a content security policy that allow these scripts."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts().values())
    return " ".join(f"'sha256-{found}'" for found in hashes)


def embedded(content: bytes, media_type: str) -> str:
    """Return bytes as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
