"""Checks of the form that all notebooks share."""

from __future__ import annotations

import itertools
import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from avlib.errors import NotebookError
from avlib.workbook.notebooks import FRONT, Notebook, table_rows

MOST_PARAMETERS = 12
LONGEST_CELL = 25
CODE_CELLS = (20, 45)
USUAL_CELL = 8  # lines, the median of visible cells
EXERCISES = 2


def verify_form(path: str | os.PathLike[str]) -> list[str]:
    """Return a sentence for each departure of a notebook from the form."""
    notebook = Notebook(Path(path))
    return [
        *_opening(notebook),
        *_parameters(notebook),
        *_cells(notebook),
        *_ending(notebook),
        *_exercises(notebook),
        *_file(notebook),
    ]


def verify_lesson(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return a sentence for each part of a lesson that a notebook lacks, by the part's name."""
    notebook = Notebook(Path(path))
    prose = [cell["source"] for cell in notebook.cells if cell["cell_type"] == "markdown"]
    first = next((place for place, cell in enumerate(notebook.cells) if "parameters" in _tags(cell)), 0)
    opening = [cell["source"] for cell in notebook.cells[:first] if cell["cell_type"] == "markdown"]
    exercises = sum("exercise" in _tags(cell) for cell in notebook.cells)
    visible = [len(cell["source"].splitlines()) for cell in _code(notebook) if not _is_folded(cell)]
    usual = statistics.median(visible or [0])
    parts = {
        "links": ("\n".join(opening).count("](http"), "the cells before the parameters link to no paper"),
        "formula": ("\n".join(prose).count("$$") > 1, "no formula in LaTeX between $$ and $$"),
        "summary": (re.search(r"^#+ Summary$", "\n".join(prose), re.MULTILINE), "no heading Summary"),
        "reading": ("urther reading" in "\n".join(prose), "no further reading"),
        "exercises": (exercises >= EXERCISES, f"{exercises} exercises with a check; at least {EXERCISES}"),
        "cells": (usual <= USUAL_CELL, f"visible code cells have a median of {usual:g} lines; at most {USUAL_CELL}"),
    }
    return {name: sentence for name, (there, sentence) in parts.items() if not there}


def _opening(notebook: Notebook) -> Iterator[str]:
    first = notebook.cells[0] if notebook.cells else {"cell_type": "nothing", "source": ""}
    if first["cell_type"] != "markdown" or not re.match(r"# \S.*\n+\w.*[.!?]", first["source"]):
        yield "the first cell is not a title followed by a sentence"
    code = _code(notebook)
    if not code or "workbook.versions(" not in code[0]["source"]:
        yield "the first code cell does not call workbook.versions"


def _parameters(notebook: Notebook) -> Iterator[str]:
    try:
        parameters = notebook.parameters
    except NotebookError as error:
        yield str(error)
        return
    if len(parameters) > MOST_PARAMETERS:
        yield f"{len(parameters)} parameters; at most {MOST_PARAMETERS}"
    code = _code(notebook)
    place = next(place for place, cell in enumerate(code) if "parameters" in cell["metadata"].get("tags", []))
    if place + 1 == len(code) or "workbook.check(globals()" not in code[place + 1]["source"]:
        yield "the code cell after the parameters does not call workbook.check(globals())"
    folder = notebook.path.parent.name
    rows = [f"{digit}_{name}" for digit, (name, _) in table_rows().items()]
    if notebook.system and folder in rows and notebook.system != folder.partition("_")[2]:
        yield f"declares the system {notebook.system}; its folder is {folder}"


def _cells(notebook: Notebook) -> Iterator[str]:
    code = _code(notebook)
    prose = sum(cell["cell_type"] == "markdown" for cell in notebook.cells)
    fewest, most = (1 if notebook.number in FRONT else CODE_CELLS[0]), CODE_CELLS[1]
    if not fewest <= len(code) <= most:
        yield f"{len(code)} code cells; {fewest} to {most}"
    if 2 * prose < len(code):
        yield f"{prose} prose cells beside {len(code)} code cells; at least half as many"
    for place, cell in enumerate(code, start=1):
        lines = len(cell["source"].splitlines())
        if lines > LONGEST_CELL and not _is_folded(cell):
            yield f"code cell {place} has {lines} lines; at most {LONGEST_CELL}"
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"code cell {place} keeps an output or a prompt number"


def _ending(notebook: Notebook) -> Iterator[str]:
    prose = [cell["source"] for cell in notebook.cells if cell["cell_type"] == "markdown"]
    headings = re.findall(r"^#+ +(.*)$", "\n".join(prose), re.MULTILINE)
    if not any("Exercises" in heading for heading in headings[-2:]):
        yield "neither the last heading nor the one before it is Exercises"
    if not prose or not re.search(r"\]\([^)]+\.ipynb\)", prose[-1]):
        yield "the last prose cell has no link to a neighbour"


def _exercises(notebook: Notebook) -> Iterator[str]:
    for cell, following in itertools.pairwise([{"metadata": {}}, *notebook.cells, {"metadata": {}}]):
        name = f"the exercise {cell.get('id')}"
        if "exercise" in _tags(cell):
            if not re.search(r"workbook\.exercise\(.*\.\.\.", cell["source"], re.DOTALL):
                yield f"{name} does not call workbook.exercise with `...` as the answer"
            if "solution" not in _tags(following) or ".solution(" not in following["source"]:
                yield f"{name} is not followed by a cell with the tag solution that calls .solution"
            elif not _is_folded(following):
                yield f"the solution of {name} is not folded (metadata jupyter.source_hidden)"
        elif "solution" in _tags(following):
            yield f"the solution {following.get('id')} does not follow a cell with the tag exercise"


def _file(notebook: Notebook) -> Iterator[str]:
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "a cell has no id of its own"
    kernel = notebook.content["metadata"].get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"the kernel is {kernel}; python3"


def _tags(cell: dict) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def _is_folded(cell: dict) -> bool:
    return bool(cell["metadata"].get("jupyter", {}).get("source_hidden"))


def _code(notebook: Notebook) -> list[dict]:
    return [cell for cell in notebook.cells if cell["cell_type"] == "code"]
