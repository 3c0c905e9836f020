import json

import nbformat
import pytest
from notebook_form import verify_form
from small_notebooks import CHECK, write

from avlib import workbook
from avlib.errors import ParameterError
from avlib.workbook import report

HINTS = {
    "It is an even number.": lambda answer: answer % 2 == 0,
    "It is `above` 3.": lambda answer: answer > 3,
}


def by_function(answer):
    if answer != 4:
        return f"{answer} is {abs(answer - 4)} off."


@pytest.mark.parametrize("answer", [..., (..., ...), [1, ...]])
def test_without_an_answer_the_question_is_shown_and_nothing_checked(capsys, answer):
    workbook.exercise("How many?", answer=answer, check=HINTS)
    out = capsys.readouterr().out
    assert "How many?" in out and "in the place of `...`" in out and "Not yet" not in out


@pytest.mark.parametrize(
    ("answer", "check", "hint"),
    [
        (5, HINTS, "✗ Not yet. It is an even number."),
        (2, HINTS, "✗ Not yet. It is `above` 3."),
        (7, by_function, "✗ Not yet. 7 is 3 off."),
        ("four", HINTS, "✗ Not yet. 'four' does not fit the question (TypeError"),
        (None, by_function, "✗ Not yet. None does not fit the question"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(capsys, answer, check, hint):
    workbook.exercise("How many?", answer=answer, check=check)
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize("check", [HINTS, by_function])
def test_a_right_answer(capsys, check):
    workbook.exercise("How many?", answer=4, check=check)
    assert "✓ 4 is right" in capsys.readouterr().out


def test_a_check_must_say_what_is_wrong():
    with pytest.raises(ParameterError, match="returns what is wrong as text"):
        workbook.exercise("How many?", answer=4, check=lambda answer: answer == 4)


def test_a_solution_passes_its_own_check(capsys):
    asked = workbook.exercise("How many?", check=HINTS)
    asked.solution(4, "Since `2 + 2`.")
    assert "Solution  4. Since `2 + 2`." in capsys.readouterr().out
    with pytest.raises(AssertionError, match=r"refuses the solution 2: It is `above` 3\."):
        asked.solution(2)


ASK = 'asked = workbook.exercise("A <b>question</b>?", answer=..., check={"More.": lambda answer: answer > 3})'


def exercise(path, source=ASK, solution='asked.solution(4, "So & so.")', folded=True):
    """A front notebook with one exercise and its solution."""
    write(path, CHECK, "#md\n## Exercises", source, solution, "#md\n## Next\n\n[12](12_b.ipynb)")
    notebook = nbformat.read(path, as_version=4)
    asked, solved = notebook.cells[4:6]
    asked.metadata["tags"], solved.metadata["tags"] = ["exercise"], ["solution"]
    solved.metadata["jupyter"] = {"source_hidden": folded}
    nbformat.write(notebook, path)
    return path


def test_a_run_fills_the_solution_in_and_the_page_folds_it(tmp_path):
    result = workbook.run_one(exercise(tmp_path / "00_a.ipynb"), {}, tmp_path / "o/00_a.ipynb")
    assert result.state == "passed", result.message
    outputs = [output for cell in json.loads((tmp_path / "o/00_a.ipynb").read_text())["cells"][4:6]
               for output in cell["outputs"]]  # fmt: skip
    states = [output["data"].get("application/vnd.avlib.exercise+json", {}).get("state") for output in outputs]
    assert states == ["open", None]
    page = (tmp_path / "o/00_a.html").read_text()
    assert "<summary>Solution, as code</summary>" in page and "<details><summary>Solution</summary>" in page
    assert "A &lt;b&gt;question&lt;/b&gt;?" in page and "So &amp; so." in page


def test_a_folded_answer_stays_folded_in_a_page():
    folded = "**Predict.** What?\n\n<details><summary>Answer</summary>\n\nIt is *so*.\n\n</details>\n\nThe end."
    page = report.markdown(folded, attachments={}, embed_images=True, path="")
    parts = ("</summary>", "It is <em>so</em>.", "</details>", "The end.")
    places = [page.index(part) for part in parts]
    assert places == sorted(places) and page.count("</details>") == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"source": ASK.replace("answer=...", "answer=4")}, "does not call workbook.exercise with `...` as the answer"),
        ({"source": "asked = ..."}, "does not call workbook.exercise"),
        ({"solution": "4"}, "is not followed by a cell with the tag solution that calls .solution"),
        ({"folded": False}, "is not folded"),
    ],
)
def test_the_form_of_an_exercise(tmp_path, changes, problem):
    found = [line for line in verify_form(exercise(tmp_path / "00_a.ipynb", **changes)) if "exercise" in line]
    assert len(found) == bool(problem) and all(problem in line for line in found)


def test_a_solution_without_an_exercise_is_a_departure(tmp_path):
    path = exercise(tmp_path / "00_a.ipynb")
    path.write_text(path.read_text().replace('"exercise"', '"else"'))
    assert any("does not follow a cell with the tag exercise" in line for line in verify_form(path))
