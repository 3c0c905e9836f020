import json
import re

import nbformat
import pytest
from small_notebooks import CHECK, write

from avlib.__main__ import main
from avlib.errors import NotebookError
from avlib.workbook import answers, discover
from avlib.workbook.notebooks import folder

COMMITTED = folder() / "answers.md"
UNFINISHED = set()  # notes of which a sentence has no home yet
NOTES = """\
"1":
  name: the blog
  row: 1_cav_mae
  title: "A | B"
  address: "https://example.org"
  sentences:
  - {id: "1.1", place: "0", text: "가 *나* | 다", english: "A `*` b"}
  - {id: "1.2", place: "0", text: "second"}
  - {id: "1.3", place: "0", text: "third"}
"""
CLAIM = 'workbook.claim("A", source="the blog", note="1.1 1.2", measured="1", holds=True)'


def rows(path):
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in path.read_text().splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in row] for row in cells]


def test_the_committed_file_is_what_the_command_writes():
    assert COMMITTED.read_text(encoding="utf-8") == answers.markdown(answers.recorded())


def test_each_home_that_the_committed_file_names_is_there():
    sections = {}
    for notebook in discover():
        prose = "\n".join(cell["source"] for cell in notebook.cells if cell["cell_type"] == "markdown")
        sections[notebook.path] = re.findall(r"^##+ +(.*)$", prose, re.MULTILINE)
    for sentence, _, link, section, verdict in rows(COMMITTED):
        if verdict == "without a home":
            assert not link and not section
        else:
            path = COMMITTED.parent / re.fullmatch(r"\[\d\d\]\((.+)\)", link)[1]
            assert section in sections[path], sentence
            assert verdict and verdict != answers.UNKNOWN, f"{sentence}: run the notebook and `avlib answers RUN`"


@pytest.mark.parametrize("note", ["1", "2", "3", "4", "5"])
def test_no_sentence_is_without_a_home(note):
    answered = {home.sentence for home in answers.homes()}
    sentences = [sentence["id"] for sentence in answers.read_notes()[note]["sentences"]]
    assert sentences
    missing = [each for each in sentences if each not in answered]
    assert bool(missing) == (note in UNFINISHED), missing or f"finished: take {note} out of UNFINISHED"


def test_each_sentence_has_an_id_of_its_note_and_a_translation():
    notes = answers.read_notes()
    assert list(notes) == ["1", "2", "3", "4", "5"]
    for number, note in notes.items():
        for sentence in note["sentences"]:
            assert re.fullmatch(rf"{number}\.\d+", sentence["id"]) and sentence["place"]
            assert "english" in sentence or not re.search("[가-힣]", sentence["text"]), sentence


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Two notebooks: one answers by a claim and by prose, the other by a claim."""
    path = tmp_path / "notebooks"
    write(path / "1_cav_mae/11_a.ipynb", CHECK, "#md\n## 1 One | two", CLAIM, "#md\nSo it is.")
    write(path / "1_cav_mae/12_b.ipynb", CHECK, "#md\n## 2 Two", CLAIM.replace("1.1 1.2", "1.2"))
    (path / "notes.yaml").write_text(NOTES)
    tag(path / "1_cav_mae/11_a.ipynb", {"note": "1.2", "verdict": "explained"})
    monkeypatch.setenv("AVLIB_NOTEBOOKS", str(path))
    return path


def tag(path, metadata):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].metadata["avlib"] = metadata
    nbformat.write(notebook, path)


def a_run(folder, *verdicts, given=None, state="passed"):
    """What a run of notebook 11 leaves: the records of its claims."""
    cell = next(each.cell for each in answers.homes() if each.sentence == "1.1")
    folder.mkdir()
    claims = [{"notebook": "11", "cell": cell, "note": "1.1", "verdict": verdict} for verdict in verdicts]
    (folder / "claims.json").write_text(json.dumps(claims))
    facts = {"given": given or {}, "notebooks": [{"number": "11", "state": state}]}
    (folder / "run.json").write_text(json.dumps(facts))
    return str(folder)


def test_homes_and_sentences_without_one(notebooks):
    assert main(["answers"]) == 0
    first, second, third, fourth = rows(notebooks / "answers.md")
    assert first == [
        "1.1", r"가 \*나\* \| 다<br>*A `*` b*", "[11](1_cav_mae/11_a.ipynb)", r"1 One \| two", answers.UNKNOWN
    ]  # fmt: skip
    assert second[:3] == ["1.2", "second", "[11](1_cav_mae/11_a.ipynb)"]
    assert third == ["1.2", "", "[12](1_cav_mae/12_b.ipynb)", "2 Two", answers.UNKNOWN]
    assert fourth == ["1.3", "third", "", "", "without a home"]
    assert "3 sentences, 2 with a home." in (notebooks / "answers.md").read_text()


def test_verdicts_of_a_run_are_entered_and_kept(notebooks, tmp_path):
    assert main(["answers", a_run(tmp_path / "run", "holds when *x* | y", "does not hold")]) == 0
    for _ in range(2):
        assert rows(notebooks / "answers.md")[0][-1] == r"holds when \*x\* \| y; does not hold"
        assert main(["answers"]) == 0
    assert main(["answers", a_run(tmp_path / "failed", "holds", state="failed")]) == 0
    assert rows(notebooks / "answers.md")[0][-1] == r"holds when \*x\* \| y; does not hold"


@pytest.mark.parametrize("given", [{"seconds": "5"}, None])
def test_a_run_with_parameters_or_without_records_is_refused(notebooks, tmp_path, capsys, given):
    run = a_run(tmp_path / "run", "holds", given=given) if given else str(tmp_path / "none")
    assert main(["answers", run]) == 2
    said = capsys.readouterr().err
    assert ("a run with -p seconds=5" if given else "a folder that `python -m avlib run` wrote") in said
    assert not (notebooks / "answers.md").exists()


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"note": "1.9", "verdict": "holds"}, "answers '1.9'; expected an id of notes.yaml"),
        ({"note": "1.3"}, "a note and a verdict"),
        ("1.3", "a note and a verdict"),
    ],
)
def test_a_home_that_says_too_little_is_refused(notebooks, metadata, problem):
    path = notebooks / "1_cav_mae/12_b.ipynb"
    write(path, CHECK, "#md\nSo.")
    tag(path, metadata)
    with pytest.raises(NotebookError, match=re.escape(problem)):
        answers.homes()


def test_a_note_that_only_a_run_could_know_is_refused(notebooks):
    write(notebooks / "1_cav_mae/13_c.ipynb", CHECK, CLAIM.replace('"1.1 1.2"', "name"))
    with pytest.raises(NotebookError, match="note=name in a claim; expected a plain text"):
        answers.homes()


def test_damaged_notes_are_refused(notebooks):
    (notebooks / "notes.yaml").write_text(NOTES.replace("1.3", "1.2"))
    with pytest.raises(NotebookError, match=r"ids used twice: 1\.2"):
        answers.read_notes()
    (notebooks / "notes.yaml").write_text("[")
    with pytest.raises(NotebookError, match="cannot be read"):
        answers.read_notes()
