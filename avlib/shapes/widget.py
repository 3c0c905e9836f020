"""Interactive HTML in one output: a still picture, data, and a script that brings it to life.

A script finds its output by itself and reads its data from JSON, so its text is the same in every output: a page can
allow these scripts by their hashes, and no others. Nothing is fetched, and no kernel is asked.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {  # the scripts, besides the core
    name: HERE.parent / f"view/{name}.js" for name in ("inspect", "spectrogram", "maps")
}
DATA = '<script type="application/json">'
HINT = "Not interactive here: this notebook is not trusted. Run the cell, or choose Trust Notebook in the menu."


@dataclass(frozen=True, repr=False)
class Widget:
    """Interactive HTML for notebooks, and one line of text for terminals."""

    markup: str
    text: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.text


def widget(kind: str, data: dict[str, object], *, text: str, still: str = "") -> Widget:
    """Return a widget: `still` is HTML that is seen until the script runs, `text` its one line."""
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    style = (HERE / "core.css").read_text(encoding="utf-8")
    markup = (
        f'<div class="av-widget" role="group" aria-label="{html.escape(text)}"><style>{style}</style>'
        f'<p class="av-hint">{HINT}</p>{still}{DATA}{content}</script><script>{script(kind)}</script></div>'
    )
    return Widget(markup, text)


@cache
def script(kind: str) -> str:
    """Return the script of a kind of widget, with the core."""
    core, own = ((path.read_text(encoding="utf-8")) for path in (HERE / "core.js", KINDS[kind]))
    return f"(() => {{\n{core}{own}}})()"


@cache
def allowed() -> dict[str, str]:
    """Return all scripts with their hashes, as a content security policy names them."""
    texts = map(script, KINDS)
    return {text: f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}" for text in texts}


def embedded(content: bytes, media_type: str) -> str:
    """Return bytes as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
