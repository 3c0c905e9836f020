import itertools
import json
import re
import subprocess

import nbformat
import pytest
from conftest import ROOT
from notebook_form import verify_form, verify_lesson
from small_notebooks import CHECK, write

from avlib.errors import NotebookError
from avlib.workbook import discover
from avlib.workbook.notebooks import Notebook

# The parts of a lesson (the names in `verify_lesson`) that a notebook still lacks: take out what you have mended.
# The blank lines let two people change neighbours at the same time.
STILL_LACKS = """
"""
# Cells that state results in prose, by their ids: likewise.
STILL_TYPED = """
11 steps-text steps-seen log-text broken-published

13 data-seen b1a3c005 b1a3c015

14 norm-text

15 b1a5c010

21 heard-seen window-seen map-seen

25 sweep-text defaults-text
"""
VERSIONS = "from avlib import workbook\n\nworkbook.versions()"
END = "#md\n## Exercises\n\n1. Why?\n\nNext: [12](12_b.ipynb)"


def in_form(path):
    """A notebook in form: the versions cell goes before the parameters."""
    prose = [f"#md\nStep {step}." for step in range(12)]
    write(path, CHECK, *[f"x{step} = {step}" for step in range(20)], *prose, END)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(VERSIONS))
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("notebook", discover(), ids=lambda notebook: notebook.name)
def test_the_workbook_is_in_form(notebook):
    problems = verify_form(notebook.path)
    assert [each for each in problems if "keeps an output" not in each] == []  # a reader may have executed it


def listed_in(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}


@pytest.mark.parametrize("notebook", discover(), ids=lambda notebook: notebook.name)
def test_a_notebook_is_a_lesson(notebook):
    lacks, listed = verify_lesson(notebook.path), listed_in(STILL_LACKS).get(notebook.number, [])
    assert {name: lacks[name] for name in lacks if name not in listed} == {}
    assert [name for name in listed if name not in lacks] == [], "mended: take it out of STILL_LACKS"


# What is no statement about a run, to the figures and words in prose behind a result.
NO_PROSE = re.compile(
    r"<details>.*?</details>|```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\[[^\]]*\]\([^)]*\)|https?://\S+"
    r"|[Ss]ection [\d.]+",
    re.DOTALL,
)
TYPED = re.compile(
    r"(?<![\w.])\d*\.\d+(?!\w|\.\d|\s*(?:k?Hz|ms|s|[MG]i?B|million|billion)\b)"
    r"|\b(?:a little|slightly|rather(?! than))\b"
)


def typed_results(notebook):
    """Ids of the cells that follow a code cell and state decimals, "a little", "slightly" or "rather" in prose.

    What follows **Predict** or a heading is about what comes next.
    """
    return [
        cell["id"]
        for before, cell in itertools.pairwise(notebook.cells)
        if (before["cell_type"], cell["cell_type"]) == ("code", "markdown")
        and TYPED.search(NO_PROSE.sub("", re.split(r"\*\*Predict|^#", cell["source"], flags=re.MULTILINE)[0]))
    ]


@pytest.mark.parametrize("notebook", discover(), ids=lambda notebook: notebook.name)
def test_results_are_not_typed(notebook):
    found, listed = typed_results(notebook), listed_in(STILL_TYPED).get(notebook.number, [])
    assert [cell for cell in found if cell not in listed] == [], "write it with workbook.finding, from measured values"
    assert [cell for cell in listed if cell not in found] == [], "mended: take it out of STILL_TYPED"


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("It falls to 0.93.", True),
        ("This helps a little.", True),
        ("Rather than that, 1024 frames at 44.1 kHz, of 2.5 s.", False),
        ("`0.5` and $0.5$ of [v1.5](a_1.5.md).", False),
        ("**Predict** whether it is above 0.5.", False),
        ("Version 2.2.1 has it.", False),
    ],
)
def test_typed_results_are_found(tmp_path, prose, found):
    path = write(tmp_path / "11_a.ipynb", "x = 1", f"#md\n{prose}")
    assert bool(typed_results(Notebook(path))) == found
    path = write(tmp_path / "11_b.ipynb", "#md\nA text.", f"#md\n{prose}", "x = 1")
    assert typed_results(Notebook(path)) == []


def lesson(path):
    asked = ["x = workbook.exercise(answer=...)", "y = workbook.exercise(answer=...)"]
    write(path, *asked, *["a\n" * 8] * 2, "#md\n$$\nx = 1\n$$", "#md\n## Summary\n\nFurther reading: none.")
    content = json.loads(path.read_text())
    for cell in content["cells"][2:4]:
        cell["metadata"]["tags"] = ["exercise"]
    content["cells"][0]["source"] = "# A title\n\nAfter [a paper](https://arxiv.org/abs/2210.07839)."
    path.write_text(json.dumps(content))
    return path


def test_a_lesson_has_all_its_parts(tmp_path):
    assert verify_lesson(lesson(tmp_path / "11_a.ipynb")) == {}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda cells: cells[0].update(source="# A title"), "links"),
        (lambda cells: cells.insert(2, cells.pop(0)), "links"),
        (lambda cells: cells[6].update(source="$x = 1$"), "formula"),
        (lambda cells: cells[7].update(source="The Summary. Further reading."), "summary"),
        (lambda cells: cells[7].update(source="## Summary"), "reading"),
        (lambda cells: cells[2]["metadata"].update(tags=[]), "exercises"),
        (lambda cells: [cell.update(source="a\n" * 9) for cell in cells[1:5]], "cells"),
    ],
)
def test_each_part_that_a_lesson_lacks_is_found(tmp_path, change, part):
    path = lesson(tmp_path / "11_a.ipynb")
    content = json.loads(path.read_text())
    change(content["cells"])
    path.write_text(json.dumps(content))
    assert list(verify_lesson(path)) == [part]


def test_folded_cells_do_not_count_in_the_median(tmp_path):
    path = lesson(tmp_path / "11_a.ipynb")
    content = json.loads(path.read_text())
    for cell in content["cells"][1:5]:
        cell.update(source="a\n" * 9)
        cell["metadata"]["jupyter"] = {"source_hidden": True}
    path.write_text(json.dumps(content))
    assert verify_lesson(path) == {}


def test_git_has_the_notebooks_without_outputs(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    for notebook in discover():
        name = notebook.path.relative_to(ROOT).as_posix()
        stored = subprocess.run(["git", "show", f":{name}"], cwd=ROOT, capture_output=True, check=True).stdout
        (tmp_path / notebook.path.name).write_bytes(stored)
        assert not [each for each in verify_form(tmp_path / notebook.path.name) if "keeps an output" in each]


def test_a_notebook_in_form(tmp_path):
    assert verify_form(in_form(tmp_path / "11_a.ipynb")) == []


def test_a_folded_cell_may_be_long(tmp_path):
    path = in_form(tmp_path / "11_a.ipynb")
    content = json.loads(path.read_text())
    content["cells"][5].update(source="x = 1\n" * 31, metadata={"jupyter": {"source_hidden": True}})
    path.write_text(json.dumps(content))
    assert verify_form(path) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda cells: cells[0].update(source="No title."), "title"),
        (lambda cells: cells[0].update(source="# Only a title"), "title"),
        (lambda cells: cells.pop(1), "workbook.versions"),
        (lambda cells: cells.pop(2), "0 cells have the tag"),
        (lambda cells: cells[4]["metadata"].update(tags=["parameters"]), "2 cells have the tag"),
        (lambda cells: cells[2].update(source="x = 1"), "line 1"),
        (lambda cells: cells[2].update(source="\n".join(f"x{i}: int = 1  # a" for i in range(13))), "13 parameters"),
        (lambda cells: cells.insert(3, dict(cells[4], id="new")), "workbook.check"),
        (lambda cells: cells[5].update(source="x = 1\n" * 31), "31 lines"),
        (lambda cells: cells[5].update(execution_count=3), "prompt number"),
        (lambda cells: cells[5].update(outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}]), "output"),
        (lambda cells: [cells.pop(4) for _ in range(10)], "code cells; 20 to 45"),
        (lambda cells: [cells.pop(-2) for _ in range(12)], "prose cells"),
        (lambda cells: cells[-1].update(source="## Exercises\nnone"), "no link"),
        (lambda cells: cells[-1].update(source="## A\n## B\n[12](12_b.ipynb)"), "Exercises"),
        (lambda cells: cells[5].update(id=cells[6]["id"]), "id of its own"),
        (lambda cells: cells[5].pop("id"), "id of its own"),
    ],
)
def test_each_departure_is_found(tmp_path, change, problem):
    path = in_form(tmp_path / "11_a.ipynb")
    content = json.loads(path.read_text())
    change(content["cells"])
    path.write_text(json.dumps(content))
    assert any(problem in departure for departure in verify_form(path))


def test_the_declared_system_is_that_of_the_folder(tmp_path):
    path = tmp_path / "1_cav_mae/13_a.ipynb"
    write(path, CHECK.replace("globals()", 'globals(), system="audiotoken"'), END)
    assert "declares the system audiotoken; its folder is 1_cav_mae" in verify_form(path)


def test_kernel_name_and_front_notebooks(tmp_path):
    path = write(tmp_path / "00_start.ipynb", CHECK, END)
    assert not any("code cells" in departure for departure in verify_form(path))
    path.write_text(path.read_text().replace('"python3"', '"myenv"'))
    assert "the kernel is myenv; python3" in verify_form(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": [1]}', "\x00"])
def test_what_is_no_notebook(tmp_path, text):
    (tmp_path / "11_a.ipynb").write_text(text)
    with pytest.raises(NotebookError, match="not a notebook"):
        verify_form(tmp_path / "11_a.ipynb")
    with pytest.raises(NotebookError, match="No such file"):
        verify_form(tmp_path / "12_b.ipynb")
