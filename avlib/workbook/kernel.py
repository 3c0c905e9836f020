"""Functions that a notebook calls: versions, parameters, claims, figures and refusals.

Each shows HTML, for light and dark pages, and plain text. The same output carries a record of its own media type, which
the runner collects; a refusal is only printed. The notebook needs no runner.
"""

from __future__ import annotations

import html
import importlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import random
import re
import sys
import textwrap
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsFloat

from .. import __version__
from ..errors import AvlibError, NotebookError, ParameterError
from .parameters import injected_names, is_parameters_cell, parse, resolve, system_settings

if TYPE_CHECKING:
    import torch

MEDIA_TYPE = "application/vnd.avlib.{}+json"  # of the records: versions, parameters, claim, measured
COLOURS = {"holds": "#0072b2", "partly": "#8a6100", "not": "#c04a00"}  # told apart without red and green
SIGNS = {"holds": "✓", "partly": "◐", "not": "✗"}
_FOLDERS = re.compile(r"(?<![\w/.])/(?:[^\s/:;,'\"]+/)+(?=[^\s/])")  # of an absolute path
_URL = re.compile(r"https?://(?:[^\s<>\"'&]|&amp;)*[\w/]")  # in escaped text


@dataclass(frozen=True)
class Checked:
    """The device, the parameters, and the system's settings from the settings file."""

    device: torch.device | None
    values: dict[str, object]
    settings: dict[str, object]

    def _ipython_display_(self) -> None:
        """Show nothing: `check` has shown the table already."""


def versions(*packages: str) -> None:
    """Show the machine and the versions of Python, avlib and packages on PyPI."""
    found = {"python": platform.python_version(), "avlib": __version__}
    found |= {name: _version(name) for name in packages}
    machine = {"system": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count()}
    place = f"{machine['system']}, {machine['cpus']} CPU cores"
    if "torch" in packages and importlib.util.find_spec("torch"):  # nothing else can tell
        machine["gpu"] = _gpu()
        place += f", {machine['gpu'] or 'no GPU'}"
    text = "   ".join(f"{name} {version}" for name, version in found.items())
    pairs = " &nbsp; ".join(f"{html.escape(name)} <b>{html.escape(version)}</b>" for name, version in found.items())
    show("versions", {"versions": found, **machine}, f"{text}\n{place}", f"<p>{pairs}<br>{html.escape(place)}</p>")


def check(namespace: MutableMapping[str, object], *, system: str = "") -> Checked:
    """Check the notebook's parameters, seed random numbers, and choose the device.

    The cell after the parameters cell calls `workbook.check(globals())`. The parameters cell and papermill's injected
    cell are found in IPython's history, so that cells can be run again in any order. The final values are written back
    to the namespace: those of a `settings` file are taken over, and whole numbers become floats where declared so.

    Args:
        system: the system whose settings the file `settings` may hold besides, as in "cav_mae".

    Raises:
        ParameterError: a parameter is unknown, of the wrong type or not allowed, or its file or device is missing.
        CacheError: `out_dir` cannot be created or written.
        NotebookError: no parameters cell was run, or a line of it is malformed.
    """
    declared, passed = _history(namespace)
    present = {name: namespace[name] for name in declared if name in namespace}
    given = {name: namespace[name] for name in passed if name in namespace}
    values = resolve(declared, given, present, system=system)
    namespace.update(values)
    if "seed" in values:
        seed_everything(values["seed"])
    device = None
    if "device" in values:
        from ..training import chosen_device  # with torch, which not every notebook needs

        device = chosen_device(values["device"])
    settings = system_settings(declared, str(values.get("settings", "")), system)
    rows = []
    for name, parameter in declared.items():
        value = f"{values[name]!r} → {device}" if name == "device" and values[name] == "auto" else repr(values[name])
        changed = f"● default {parameter.default!r}" if values[name] != parameter.default else ""
        rows.append((name, value, changed, parameter.help))
    rows += [(name, repr(value), "● from the file", "a setting of the system") for name, value in settings.items()]
    text = "\n".join(f"{name:<12} {value}  {changed}".rstrip() for name, value, changed, _ in rows)
    record = {"parameters": values} | ({"settings": settings} if settings else {})
    if "torch" in sys.modules:
        record |= {"device": str(device or ""), "threads": sys.modules["torch"].get_num_threads(), "gpu": _gpu()}
    show("parameters", record, text, _table(rows))
    return Checked(device, values, settings)


def claim(statement: str, *, source: str, measured: str, holds: object, when: str = "", note: str = "") -> None:
    """Show a statement, its source, what was measured, and the verdict.

    Args:
        statement: the claim, in the words of its source or translated.
        source: a short citation; an address in it becomes a link.
        measured: the finding, with the numbers that the cell computed.
        holds: the verdict, computed in the cell: a truth value of Python, numpy or torch.
        when: the condition of the verdict, if it does not always hold.
        note: ids of the sentences in `notebooks/notes.yaml` that the statement renders, separated by blanks.

    Raises:
        ParameterError: `holds` is not a truth value.
    """
    holds = _plain(holds)
    if not isinstance(holds, bool):
        raise ParameterError("holds", f"found {type(holds).__name__} {holds!r}", "True or False, computed in the cell")
    kind = ("partly" if when else "holds") if holds else "not"
    verdict = ("holds" if holds else "does not hold") + (f" when {when.removeprefix('when ')}" if when else "")
    record = {"statement": statement, "source": source, "measured": measured, "holds": holds, "when": when}
    text = f"Claim     {statement}\nSource    {source}\nMeasured  {measured}\nVerdict   {SIGNS[kind]} {verdict}"
    show("claim", record | {"verdict": verdict, "kind": kind, "note": note}, text, claim_html(record, kind, verdict))


def measured(name: str, value: SupportsFloat, unit: str = "") -> None:
    """Show and record a number (Python's, numpy's or torch's) that a text states.

    Raises:
        ParameterError: the value is not a finite number.
    """
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ParameterError(name, f"measured {value!r}", "a finite number")
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    line = f"{name}: {text} {unit}".rstrip()
    markup = f"<p>{html.escape(name)} <b>{html.escape(f'{text} {unit}'.rstrip())}</b></p>"
    show("measured", {"name": name, "value": value, "unit": unit}, line, markup)


def finding(sentence: str) -> None:
    """Show a sentence that the cell made from measured values (an f-string; backticks become code)."""
    show("finding", {"sentence": sentence}, sentence, box("#009e73", inline(sentence)))


def versus(value: SupportsFloat, other: SupportsFloat, words: str = "below|about the same as|above", within=0.0) -> str:
    """Return the word of three that says how two numbers compare.

    Args:
        words: for a smaller, an equal and a larger `value`, separated by `|`.
        within: the difference up to which the two count as equal.

    Raises:
        ParameterError: a value is not a finite number, or there are not three words.
    """
    value, other, choices = _plain(value), _plain(other), words.split("|")
    if not (math.isfinite(value) and math.isfinite(other)):
        raise ParameterError("value", f"compared {value!r} with {other!r}", "two finite numbers")
    if len(choices) != 3:
        raise ParameterError("words", f"found {words!r}", 'three, as in "below|the same as|above"')
    return choices[1] if abs(value - other) <= within else choices[2 * (value > other)]


def refused(task: Callable[..., object], /, *args: object, **kwargs: object) -> AvlibError:
    """Call a function that must refuse its input; print and return the error.

    Paths are printed without their folders, which differ between machines.

    Raises:
        AssertionError: the input was accepted. Errors other than AvlibError pass through.
    """
    try:
        task(*args, **kwargs)
    except AvlibError as error:
        message = _FOLDERS.sub("", f"{type(error).__name__}: {error}")
        print(textwrap.fill(message, 96, subsequent_indent="    "))
        return error
    raise AssertionError("was accepted, and should have been refused")


def box(colour: str, content: str) -> str:
    """HTML in a box with a coloured bar, styled in place."""
    return (
        f'<div class="av-box" style="border-left:4px solid {colour};background:rgba(128,128,128,.09);'
        f'padding:8px 14px;margin:6px 0;max-width:52em;line-height:1.5">{content}</div>'
    )


def claim_html(record: dict[str, object], kind: str, verdict: str) -> str:
    """Return a claim as HTML, with its verdict as a chip."""
    chip = (
        f'<span style="background:{COLOURS[kind]};color:#fff;border-radius:3px;padding:1px 8px;'
        f'font-weight:600;display:inline-block">{SIGNS[kind]} {html.escape(verdict)}</span>'
    )
    return box(
        COLOURS[kind],
        f'<div style="font-weight:600">{inline(record["statement"])}</div>'
        f'<div style="opacity:.75;font-size:90%">{inline(record["source"])}</div>'
        f'<div style="margin-top:4px">{inline(record["measured"])} &nbsp; {chip}</div>',
    )


def inline(text: str) -> str:
    """Return text as HTML: addresses become links, backticks become code."""
    markup = html.escape(text, quote=False)
    markup = re.sub(r"`([^`]+)`", r"<code>\1</code>", markup)
    return _URL.sub(r'<a href="\g<0>">\g<0></a>', markup)


def seed_everything(seed: int) -> None:
    """Seed Python's random numbers, and numpy's and torch's if installed.

    Raises:
        ParameterError: the seed is outside the range that numpy takes.
    """
    if not 0 <= seed < 2**32:
        raise ParameterError("seed", f"found {seed}", "0 to 4294967295")
    random.seed(seed)
    if importlib.util.find_spec("numpy"):
        importlib.import_module("numpy").random.seed(seed)
    if importlib.util.find_spec("torch"):
        importlib.import_module("torch").manual_seed(seed)


def _history(namespace: MutableMapping[str, object]) -> tuple[dict, list[str]]:
    """The declared parameters, and the names that papermill passed."""
    cells = namespace.get("In")
    if not isinstance(cells, list):
        raise NotebookError("check", "no history of cells (In)", "the globals() of a notebook", "Run it in Jupyter.")
    places = [place for place, source in enumerate(cells) if is_parameters_cell(source)]
    if not places:
        expected = "lines `name: type = default  # help` and nothing else"
        raise NotebookError("check", "no parameters cell was run", expected, "Run the cell above first.")
    passed = [name for source in cells[places[-1] + 1 :] for name in injected_names(source)]
    return parse(cells[places[-1]]), passed


def _plain(value: object) -> object:
    """A number or truth value of numpy or torch as Python's own."""
    return value.item() if hasattr(value, "item") else value


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    """The name of torch's first GPU; empty if there is none."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "Apple GPU" if torch.backends.mps.is_available() else ""


def _table(rows: list[tuple[str, ...]]) -> str:
    cell = '<td style="text-align:left;padding:1px 14px 1px 0;vertical-align:top">{}</td>'
    lines = ("".join(cell.format(html.escape(part)) for part in row) for row in rows)
    return f'<table class="av-parameters">{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def show(kind: str, record: dict[str, object], text: str, markup: str) -> None:
    """Display the record with its HTML in a notebook; print the text elsewhere."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()) is not None:
        data = {"text/plain": text, "text/html": markup, MEDIA_TYPE.format(kind): record}
        shell.display_pub.publish(data)
    else:
        print(text)
