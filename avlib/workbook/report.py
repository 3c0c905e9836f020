"""The files of a run: a page for each notebook, an index, claims and figures.

Pages need no network. Formulas are MathML, which browsers draw themselves, and media are inside the page. The only
scripts are those of avlib's own inspectors, known by their hashes; a content security policy forbids everything else,
whatever a notebook or a user's file has printed.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import functools
import hashlib
import html
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from urllib.parse import quote, unquote

import jinja2
import latex2mathml.converter
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from .. import __version__
from ..cache import publishing
from ..shapes import widget
from .kernel import SIGNS, inline
from .notebooks import FAILED, INTERRUPTED, NOT_RUN, PASSED, STAGES, Notebook, Result, table

_SIGNS = {PASSED: "✓", FAILED: "✗", INTERRUPTED: "✗", NOT_RUN: "–", "not built yet": ""}
_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain")


def write_page(executed, result: Result, neighbours: list[Notebook], away: Mapping[str, str] | None = None) -> Path:
    """Write an executed notebook (of nbformat) as a page beside it; return its path.

    Links to `neighbours`, the notebooks of this run, lead to their pages; there are none for a single page.

    Args:
        away: addresses for links to other files, by their names, on a site; notebooks that it lacks lead home.
    """
    page, source = Path(result.output).with_suffix(".html"), Path(result.notebook)
    paths = [notebook.path for notebook in neighbours]
    stems = [None, *(path.stem for path in paths), None]
    place = 1 + paths.index(source) if paths else 0
    shown = copy.deepcopy(executed)
    for cell in shown.cells:
        outputs = [output for output in cell.get("outputs", []) if not _is_widget(output)]
        for data in (output.get("data", {}) for output in outputs):
            if "text/html" in data:
                data["text/html"] = _offline(data["text/html"])
        cell.update({"outputs": outputs} if cell.cell_type == "code" else {})
    body, _ = _Exporter().from_notebook_node(shown, {"metadata": {"path": str(source.parent)}})
    text = (
        templates()
        .get_template("page.html.j2")
        .render(
            result=result,
            body=Markup(body),  # noqa: S704  nbconvert escapes, and the page's policy forbids scripts
            contents=headings(body),
            highlighting=Markup(_highlighting()),  # noqa: S704  of pygments
            numbered=bool(paths),
            before=stems[place - 1] if paths else None,
            after=stems[place + 1] if paths else None,
        )
    )

    def relink(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / unquote(html.unescape(match[1]))))
        if target in paths:
            to = f"{target.stem}.html"
        elif away is not None:
            to = away.get(target.name, "index.html")
        else:
            to = Path(os.path.relpath(target, page.parent)).as_posix()
        return f'href="{html.escape(quote(to))}{match[2] or ""}"'

    write(page, re.sub(r'href="([^":#?]+\.(?:ipynb|md))(#[^"]*)?"', relink, text))
    return page


def headings(markup: str) -> list[tuple[int, str, str]]:
    """Return level, anchor and text of the headings in HTML."""
    found = re.findall(r'<h([1-3])[^>]*? id="([^"]+)"[^>]*>(.*?)(?:<a class="anchor-link"|</h\1>)', markup, re.DOTALL)
    return [
        (int(level), html.unescape(anchor), html.unescape(re.sub("<[^>]*>", "", text))) for level, anchor, text in found
    ]


def markdown(source: str, **how) -> str:
    """Return Markdown as HTML with nothing from elsewhere."""
    return MarkdownWithMath(renderer=_Renderer(escape=False, **how)).render(source)


def write_report(folder: Path, results: list[Result], facts: dict[str, object]) -> Path:
    """Write `run.json`, `claims.json`, `measured.json` and `index.html`; return the last path.

    `results` has each notebook, also those that have not run; `facts` go into `run.json` and the index.
    """
    notebooks = [dataclasses.asdict(result) for result in results]
    claims = [claim for notebook in notebooks for claim in notebook.pop("claims")]
    figures = [figure for notebook in notebooks for figure in notebook.pop("measured")]
    for name, content in (("run", facts | {"notebooks": notebooks}), ("claims", claims), ("measured", figures)):
        write(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write(folder / "index.html", index(results, facts))
    return folder / "index.html"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; halves of characters, which UTF-8 lacks, are written out."""
    with publishing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def script(name: str) -> dict[str, Markup]:
    """Return a script of the templates as `script`, and what allows it in a page's policy as `scripts`."""
    text = (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "scripts": Markup(f"'sha256-{allowed}'")}  # noqa: S704  ours


def machine() -> dict[str, object]:
    """Return Python's version, the machine, the packages and the commit."""
    versions = {dist.name: dist.version for dist in importlib.metadata.distributions() if dist.name}
    return {
        "avlib": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": dict(sorted(versions.items(), key=lambda item: item[0].lower())),
    }


def mathml(formula: str, display: str) -> str:
    """Return LaTeX without dollar signs as "inline" or "block" MathML; code if unreadable."""
    source = re.sub(r"{(align|aligned|gathered)}", "{align*}", formula)  # which has no numbers, as in Jupyter
    try:
        markup = latex2mathml.converter.convert(source, display=display)
    except Exception:  # it raises a dozen classes of its own, and others such as IndexError
        markup = ""
    # Unknown parts pass through as unescaped text: a command, an &, a tag that is no MathML.
    if not markup or re.search(r"\\[a-zA-Z]|&(?!#x?\w+;)|<(?!/?m)", markup):
        return f'<code class="formula">{html.escape(formula.strip())}</code>'
    return markup


class _Renderer(IPythonRenderer):
    """Markdown with formulas as MathML and nothing from elsewhere."""

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def block_html(self, html: str) -> str:
        return _offline(super().block_html(html))

    def inline_html(self, html: str) -> str:
        return _offline(super().inline_html(html))

    def _html_embed_images(self, html: str) -> str:  # which closes what a piece leaves open, such as <details>
        return super()._html_embed_images(html) if "<img" in html.lower() else html

    def image(self, text: str, url: str, title: str | None = None) -> str:
        remote = re.match(r"(https?:)?//", url)
        return self.link(text or url, url) if remote else super().image(text, url, title)


class _Exporter(HTMLExporter):
    raw_template = (resources.files(__package__) / "templates/cells.html.j2").read_text(encoding="utf-8")
    template_name = "basic"

    @property
    def default_config(self) -> Config:
        config = super().default_config.copy()
        config.merge({"NbConvertBase": {"display_data_priority": list(_SHOWN)}})
        return config

    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        path = context["resources"]["metadata"]["path"]
        return markdown(source, attachments=attachments, embed_images=True, path=path)


@functools.cache
def templates() -> jinja2.Environment:
    """Return the templates of pages, which escape what they are given."""
    loader = jinja2.PackageLoader(__package__)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = lambda text: Markup(inline(text))  # noqa: S704  it escapes
    environment.filters["page"] = lambda result: quote(Path(result.output).with_suffix(".html").name)
    environment.globals |= {"signs": _SIGNS, "claim_signs": SIGNS, "scripts": Markup(widget.policy())}  # noqa: S704  hashes
    return environment


@functools.cache
def _highlighting() -> str:
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("friendly", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none }}"


def _is_widget(output) -> bool:
    """True for a widget, whose view without a kernel is the text `VBox(children=...`."""
    return any("jupyter.widget-view" in kind for kind in output.get("data", {}))


def _offline(markup: str) -> str:
    """HTML without remote resources, and without scripts other than those of avlib's inspectors."""

    def kept(match: re.Match[str]) -> str:
        tag, text = (match[1] or "").lower(), match[2] or ""
        ours = (tag == "<script>" and text in widget.scripts().values()) or (tag == widget.DATA and "<" not in text)
        return f"{tag}{text}</script>" if ours else ""

    markup = re.sub(r"(<script\b[^>]*>)(.*?)</script\s*>|<link\b[^>]*>", kept, markup, flags=re.DOTALL | re.IGNORECASE)
    return re.sub(r"\b(src|srcset|poster)(\s*=\s*[\"']?\s*(?:https?:)?//)", r"data-\1\2", markup, flags=re.IGNORECASE)


def _commit() -> str:
    """The commit of the checkout, with `-dirty` if files differ; empty if there is none."""
    root, git = Path(__file__).parents[2], shutil.which("git")
    if not git or not (root / ".git").exists():
        return ""
    command = [git, "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603  fixed words
    return done.stdout.strip()


def index(results: list[Result], facts: dict[str, object]) -> str:
    """Return a page with the state, the claims and the figures of a run."""
    slots = table()
    known = {slot.number for slot in slots.slots}
    counts = Counter(result.state for result in results)
    return (
        templates()
        .get_template("index.html.j2")
        .render(
            facts=facts,
            slots=slots,
            stages=STAGES,
            results=results,
            by_number={result.number: result for result in results},
            others=[result for result in results if result.number not in known],
            summary=", ".join(f"{count} {state}" for state, count in counts.items()),
            environment=_environment(results, facts),
        )
    )


def _environment(results: list[Result], facts: dict[str, object]) -> dict[str, object]:
    shown = {name: value for name, value in facts.items() if name != "versions" and value not in ("", None, {})}
    for name in ("device", "gpu", "threads"):
        if values := sorted({str(result.environment[name]) for result in results if result.environment.get(name)}):
            shown[name] = ", ".join(values)
    seeds = sorted({str(result.parameters["seed"]) for result in results if "seed" in result.parameters})
    return shown | ({"seed": ", ".join(seeds)} if seeds else {})
