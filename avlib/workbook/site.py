"""A run as a static site: a home with the table, pages, a search without a server, the answers to the notes."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from ..errors import NotebookError
from .notebooks import NOT_RUN, STAGES, Notebook, Result, folder, table
from .report import headings, index, markdown, script, templates, write, write_page

_UNREAD = re.compile(
    r'<(script|style|svg)\b.*?</\1>|<a class="anchor-link".*?</a>|<p class="av-hint">.*?</p>'
    r"|</?(?:span|code|a|b|i|em|m\w+)\b[^>]*>",  # which part no words
    re.DOTALL,
)
_LONGEST = 20_000  # characters of a section that can be found


def newest() -> Path:
    """Return the newest run below outputs/."""
    runs = sorted(Path("outputs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise NotebookError("outputs", "holds no run", "a folder that `avlib run` wrote", "Name it, or run first.")
    return runs[-1].parent


def build(run: Path, out: Path) -> Path:
    """Write the site of a run to a folder, and return its home."""
    import nbformat

    results, facts = _read(run)
    ran = [result for result in results if result.state != NOT_RUN and (run / Path(result.output).name).is_file()]
    if not ran:
        raise NotebookError(run, "no notebook of it has run", "a run with notebooks")
    notebooks = [Notebook(Path(result.notebook)) for result in ran]
    away = {"answers.md": "answers.html", "README.md": "index.html"}
    sections, pictures = [], {}
    for result in ran:
        executed = nbformat.read(run / Path(result.output).name, as_version=4)
        page = write_page(executed, replace(result, output=str(out / Path(result.output).name)), notebooks, away)
        sections += _sections(page, f"{result.number} {result.title}")
        pictures.setdefault(result.number[0], _picture(executed))
    by_number = {result.number: result for result in ran}
    sizes = {result.number: (out / Path(result.output).with_suffix(".html").name).stat().st_size for result in ran}
    picture = base64.b64encode((folder() / "overview.svg").read_bytes()).decode()
    shown = {"slots": table(), "stages": STAGES, "by_number": by_number, "sizes": sizes, "pictures": pictures}
    _write(out / "index.html", "home.html.j2", **shown, overview=picture, facts=facts)
    write(out / "report.html", index(results, facts))
    answers = folder() / "answers.md"
    if answers.is_file():
        there = "|".join(re.escape(notebook.name) for notebook in notebooks)
        text = re.sub(rf"\(\S*?({there})\.ipynb", r"(\1.html", answers.read_text(encoding="utf-8"))
        body = markdown(
            re.sub(r"\[([^]]+)\]\([^)]+\.(?:ipynb|yaml)[^)]*\)", r"\1", text)
        )  # no link to what is not there
        _write(out / "answers.html", "text.html.j2", title="Answers to the notes", body=Markup(body))  # noqa: S704  ours
    data = json.dumps(sections, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    _write(out / "search.html", "search.html.j2", data=Markup(data), **script("search.js"))  # noqa: S704
    return out / "index.html"


def _read(run: Path) -> tuple[list[Result], dict[str, object]]:
    try:
        facts, *records = (
            json.loads((run / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "claims", "measured")
        )
        results = []
        for each in facts.pop("notebooks"):
            claims, measured = ([one for one in of if one["notebook"] == each["number"]] for of in records)
            results.append(Result(**each, claims=claims, measured=measured))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(run, f"cannot be read: {error}", "a folder that `avlib run` wrote") from None
    return results, facts


def _write(path: Path, template: str, **content) -> None:
    write(path, templates().get_template(template).render(**content))


def _sections(page: Path, title: str) -> list[tuple[str, str, str, str]]:
    """The page, anchor, title and text of each section of a page."""
    text = page.read_text(encoding="utf-8")
    text = text[text.index("<main>") :]
    starts = [match.start() for match in re.finditer(r'<h[1-3][^>]*? id="[^"]', text)]
    parts = zip(headings(text), starts, [*starts[1:], len(text)], strict=True)
    return [
        (page.name, anchor, f"{title}: {heading}" if place else title, _words(text[start:end]))
        for place, ((_, anchor, heading), start, end) in enumerate(parts)
    ]


def _words(markup: str) -> str:
    text = html.unescape(re.sub("<[^>]*>", " ", _UNREAD.sub("", markup)))
    return re.sub(r"\s+", " ", text).strip()[:_LONGEST]


def _picture(executed) -> str:
    """The first picture of a notebook, as base64; empty if it has none."""
    outputs = (output for cell in executed.cells for output in cell.get("outputs", []))
    found = (output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {}))
    return "".join(next(found, "")).replace("\n", "")
