"""What a run leaves behind: a page for each notebook, an index, and the claims and figures as JSON.

The pages need no network and run no script: formulas are MathML, which browsers draw themselves, media are inside the
page, and a content security policy forbids everything else, whatever a notebook or a user's file may have printed.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import html
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import quote, unquote

import jinja2
import latex2mathml.converter
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from .. import __version__
from . import style
from .kernel import SIGNS, inline
from .notebooks import STAGES, Notebook, Slot, table
from .run import FAILED, INTERRUPTED, NOT_RUN, PASSED, Result

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:;
 media-src data:; font-src data:; frame-src data:">
<style>{style}</style></head>
"""
_TEMPLATE = """
{%- extends 'basic/index.html.j2' -%}
{%- block header -%}{{ resources.avlib.head }}<body>{{ resources.avlib.navigation }}<main>
{{- resources.avlib.banner }}{%- endblock -%}
{%- block footer -%}</main></body></html>{%- endblock -%}
{%- block in_prompt -%}<div class="prompt">{{ cell.execution_count or "" }}</div>{%- endblock -%}
{%- block empty_in_prompt -%}{%- endblock -%}
{%- block output_area_prompt -%}{%- endblock -%}
{%- block data_latex -%}{{ output.data['text/latex'] | markdown2html }}{%- endblock -%}
"""
_SIGNS = {PASSED: "✓", FAILED: "✗", INTERRUPTED: "✗", NOT_RUN: "–", "not built yet": ""}
_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain")


def write_page(executed, result: Result, neighbours: list[Notebook]) -> Path:
    """Write an executed notebook as a page beside it, and say where.

    Args:
        executed: the notebook with its outputs, as nbformat has it.
        result: what came of it.
        neighbours: the notebooks of this run, whose pages links lead to; none for a page that stands alone.

    Raises:
        OSError: it cannot be written.
    """
    page, source = Path(result.output).with_suffix(".html"), Path(result.notebook)
    paths = [notebook.path for notebook in neighbours]
    navigation = ""
    if paths:
        links = ["", *(f'<a href="{quote(path.stem)}.html">{html.escape(path.stem)}</a>' for path in paths), ""]
        place = 1 + paths.index(source)
        before, after = links[place - 1] and f"← {links[place - 1]}", links[place + 1] and f"{links[place + 1]} →"
        navigation = f'<nav><div><span>{before}</span><a href="index.html">index</a><span>{after}</span></div></nav>'
    banner = ""
    if result.message:
        cell = f'<a href="#cell-id={html.escape(result.cell_id)}">cell {result.cell}</a>' if result.cell else ""
        banner = f'<p class="banner"><b>{_SIGNS[FAILED]} {result.state}</b> {cell}<br>{html.escape(result.message)}</p>'
    shown = copy.deepcopy(executed)
    for cell in shown.cells:
        outputs = [output for output in cell.get("outputs", []) if not _is_widget(output)]
        for data in (output.get("data", {}) for output in outputs):
            if "text/html" in data:
                data["text/html"] = _offline(data["text/html"])
        cell.update({"outputs": outputs} if cell.cell_type == "code" else {})
    head = _HEAD.format(title=html.escape(f"{result.number} {result.title}"), style=style.PAGE + _highlighting())
    resources = {
        "avlib": {"head": head, "navigation": navigation, "banner": banner},
        "metadata": {"path": str(source.parent)},
    }
    text, _ = _Exporter().from_notebook_node(shown, resources)

    def relink(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / unquote(html.unescape(match[1]))))
        away = f"{target.stem}.html" if target in paths else Path(os.path.relpath(target, page.parent)).as_posix()
        return f'href="{html.escape(quote(away))}{match[2] or ""}"'

    page.write_text(re.sub(r'href="([^":#?]+\.ipynb)(#[^"]*)?"', relink, text), encoding="utf-8")
    return page


def write_report(folder: Path, results: list[Result], facts: dict[str, object]) -> Path:
    """Write `run.json`, `claims.json`, `measured.json` and `index.html`, and say where the last one is.

    Args:
        folder: the folder of the run.
        results: what came of each notebook, also of those that have not run.
        facts: what else the run should remember.

    Raises:
        OSError: they cannot be written.
    """
    notebooks = [dataclasses.asdict(result) for result in results]
    claims = [claim for notebook in notebooks for claim in notebook.pop("claims")]
    figures = [figure for notebook in notebooks for figure in notebook.pop("measured")]
    for name, content in (("run", facts | {"notebooks": notebooks}), ("claims", claims), ("measured", figures)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    index = folder / "index.html"
    index.write_text(_index(results, facts), encoding="utf-8")
    return index


def machine() -> dict[str, object]:
    """What a run should remember of where it ran: Python, the machine, the packages, the commit."""
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
    """A LaTeX formula as MathML; as code where latex2mathml does not know a part of it.

    Args:
        formula: LaTeX without dollar signs.
        display: "inline" or "block".
    """
    source = re.sub(r"{(align|aligned|gathered)}", "{align*}", formula)  # which has no numbers, as in Jupyter
    try:
        markup = latex2mathml.converter.convert(source, display=display)
    except Exception:  # it raises a dozen classes of its own, and IndexError and others on what it does not expect
        markup = ""
    # What it does not know it passes on as text, and text it does not escape: a command, an &, a tag that is no MathML.
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

    def image(self, text: str, url: str, title: str | None = None) -> str:
        remote = re.match(r"(https?:)?//", url)
        return self.link(text or url, url) if remote else super().image(text, url, title)


class _Exporter(HTMLExporter):
    raw_template = _TEMPLATE
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
        renderer = _Renderer(escape=False, attachments=attachments, embed_images=True, path=path)
        return MarkdownWithMath(renderer=renderer).render(source)


@functools.cache
def _highlighting() -> str:
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("friendly", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none }}"


def _is_widget(output) -> bool:
    """Whether it is the view of a widget, which without a kernel is the text `VBox(children=...`."""
    return any("jupyter.widget-view" in kind for kind in output.get("data", {}))


def _offline(markup: str) -> str:
    """HTML without scripts and without what would be fetched from elsewhere."""
    markup = re.sub(r"<script\b.*?</script\s*>|<link\b[^>]*>", "", markup, flags=re.DOTALL | re.IGNORECASE)
    return re.sub(r"\b(src|srcset|poster)(\s*=\s*[\"']?\s*(?:https?:)?//)", r"data-\1\2", markup, flags=re.IGNORECASE)


def _commit() -> str:
    """The commit of the checkout, with `-dirty` when files differ from it; empty where there is none."""
    root, git = Path(__file__).parents[2], shutil.which("git")
    if not git or not (root / ".git").exists():
        return ""
    command = [git, "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603  fixed words
    return done.stdout.strip()


def _index(results: list[Result], facts: dict[str, object]) -> str:
    by_number = {result.number: result for result in results}
    slots = table()

    def cell(slot: Slot, name: str) -> str:
        result = by_number.get(slot.number)
        state = result.state if result else (NOT_RUN if slot.exists else "not built yet")
        ran = result and result.state in (PASSED, FAILED, INTERRUPTED)
        label = f"<b>{html.escape(name)}</b>"
        label = f'<a href="{_page(result)}">{label}</a>' if ran else label
        seconds = f'<span class="seconds">{result.seconds:.1f} s</span>' if ran else ""
        label += f'<span class="state">{_SIGNS[state]} {state}</span>'
        return f'<td class="{state.replace(" ", "-")}">{seconds}{label}</td>'

    front = "".join(cell(slot, f"{slot.number} {slot.title}") for slot in slots.front)
    stages = "".join(f"<th>{stage}</th>" for stage in STAGES)
    rows = "".join(
        f"<tr><th>{html.escape(system)}</th>{''.join(cell(slot, slot.number) for slot in row)}</tr>"
        for system, row in slots.rows.items()
    )
    known = {slot.number for slot in slots.slots}
    others = [result for result in results if result.number not in known]
    extra = "".join(cell(Slot(result.number, "", Path(), True), result.number) for result in others)
    counts = Counter(result.state for result in results)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    failures = "".join(
        f'<div class="banner"><b>{_SIGNS[FAILED]} {html.escape(result.number)} {html.escape(result.title)}</b>, '
        f"{_place(result, {'cell': result.cell_id}, f'cell {result.cell}')}<br>{html.escape(result.message)}</div>"
        for result in results
        if result.message
    )
    return (
        _HEAD.format(title="The workbook, executed", style=style.PAGE + style.INDEX)
        + f'<body><main><h1>The workbook, executed</h1><p class="lead">{html.escape(str(facts.get("started", "")))}: '
        f"{html.escape(summary)}, {facts.get('seconds', 0):.1f} s in all.</p>"
        f'<table class="grid front"><tbody><tr>{front}</tr></tbody></table>'
        f'<div class="scroll"><table class="grid"><thead><tr><th></th>{stages}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + (f'<h2>Other notebooks</h2><table class="grid"><tbody><tr>{extra}</tr></tbody></table>' if extra else "")
        + failures
        + "<h2>Claims</h2>"
        + ("".join(_claims(result) for result in results if result.claims) or "<p>None was checked.</p>")
        + _measured(results)
        + _environment(results, facts)
        + "</main></body></html>\n"
    )


def _page(result: Result) -> str:
    return quote(Path(result.output).with_suffix(".html").name)


def _claims(result: Result) -> str:
    rows = "".join(
        f'<tr><td><span class="chip {claim["kind"]}">{SIGNS[claim["kind"]]} {html.escape(claim["verdict"])}</span></td>'
        f"<td>{_place(result, claim, claim['statement'])}<br>{inline(claim['measured'])}<br>"
        f"<small>{inline(claim['source'])}</small></td></tr>"
        for claim in result.claims
    )
    return f'<h3>{html.escape(f"{result.number} {result.title}")}</h3><table class="claims">{rows}</table>'


def _place(result: Result, record: dict[str, object], text: str) -> str:
    """A link to the cell that a record comes from."""
    return f'<a href="{_page(result)}#cell-id={html.escape(str(record["cell"]))}">{inline(text)}</a>'


def _measured(results: list[Result]) -> str:
    rows = "".join(
        f"<tr><td>{_place(result, figure, figure['name'])}</td><td>{figure['value']:,.6g} "
        f"{html.escape(figure['unit'])}</td><td>{html.escape(result.number)}</td></tr>"
        for result in results
        for figure in result.measured
    )
    return f'<h2>Measured</h2><table class="facts">{rows}</table>' if rows else ""


def _environment(results: list[Result], facts: dict[str, object]) -> str:
    shown = {name: value for name, value in facts.items() if name != "versions" and value not in ("", None, {})}
    for name in ("device", "gpu", "threads"):
        if values := sorted({str(result.environment[name]) for result in results if result.environment.get(name)}):
            shown[name] = ", ".join(values)
    seeds = sorted({result.parameters["seed"] for result in results if "seed" in result.parameters})
    shown |= {"seed": ", ".join(map(str, seeds))} if seeds else {}
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in shown.items()
    )
    versions = "".join(f"{html.escape(name)} {html.escape(v)}<br>" for name, v in facts.get("versions", {}).items())
    return (
        f'<h2>Environment</h2><table class="facts">{rows}</table>'
        f'<details><summary>Versions of all packages</summary><p class="versions">{versions}</p></details>'
    )
