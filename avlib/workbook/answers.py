"""The sentences of the notes, and the notebooks that answer them.

The sentences are in `notebooks/notes.yaml`. A claim answers some by `workbook.claim(..., note="1.4 1.5")`, a prose cell
by its metadata: `"avlib": {"note": "1.6", "verdict": "explained"}`. Both are read from the notebooks; nothing is run.
The verdicts of claims come from an executed run, and stay in the file until another run replaces them.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import NotebookError
from .notebooks import Notebook, discover, folder

Place = tuple[str, str, str]  # of a verdict: id of the sentence, number of the notebook, section
UNKNOWN = "not run yet"
_DESCRIPTION = """\
Write notebooks/answers.md: each sentence of the notes (notebooks/notes.yaml), the notebook and section that answer it,
and the verdict. Verdicts of claims are kept from the file, or taken from a run with default parameters.
"""


@dataclass(frozen=True)
class Home:
    """A cell that answers a sentence; `verdict` is empty for a claim."""

    sentence: str
    notebook: Notebook
    section: str
    cell: str
    verdict: str = ""

    @property
    def place(self) -> Place:
        """The key of its verdict."""
        return self.sentence, self.notebook.number, self.section


def read_notes() -> dict[str, dict]:
    """Return the notes by the number of their row."""
    import yaml

    path = folder() / "notes.yaml"
    try:
        notes = yaml.safe_load(path.read_text(encoding="utf-8"))
        ids = [sentence["id"] for note in notes.values() for sentence in note["sentences"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise NotebookError(path, f"cannot be read: {error}", "notes with their sentences") from None
    if twice := {each for each in ids if ids.count(each) > 1}:
        raise NotebookError(path, f"ids used twice: {', '.join(sorted(twice))}")
    return notes


def homes() -> list[Home]:
    """Return the cells that answer sentences, in the order of the notebooks.

    Raises:
        NotebookError: a cell names an unknown sentence, or its metadata lack a note or a verdict.
    """
    known = {sentence["id"] for note in read_notes().values() for sentence in note["sentences"]}
    found = [home for notebook in discover() for home in _homes_in(notebook)]
    for home in found:
        if home.sentence not in known:
            raise NotebookError(
                home.notebook.path, f"cell {home.cell} answers {home.sentence!r}", "an id of notes.yaml"
            )
    return found


def _homes_in(notebook: Notebook) -> Iterator[Home]:
    section = ""
    for cell in notebook.cells:
        name = cell.get("id", "")
        if cell["cell_type"] == "code":
            for each in dict.fromkeys(_notes_of_claims(notebook, cell["source"])):
                yield Home(each, notebook, section, name)
            continue
        if headings := re.findall(r"^##+ +(.*)$", cell["source"], re.MULTILINE):
            section = headings[-1]
        if tags := cell["metadata"].get("avlib"):
            if not isinstance(tags, dict) or not tags.get("note") or not tags.get("verdict"):
                raise NotebookError(notebook.path, f"metadata avlib of cell {name}: {tags}", "a note and a verdict")
            for each in tags["note"].split():
                yield Home(each, notebook, section, name, tags["verdict"])


def _notes_of_claims(notebook: Notebook, source: str) -> Iterator[str]:
    """Ids in the `note` of each claim of a cell."""
    if "workbook.claim(" not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "workbook.claim":
            for keyword in node.keywords:
                if keyword.arg == "note":
                    if not isinstance(keyword.value, ast.Constant):
                        found = f"note={ast.unparse(keyword.value)} in a claim"
                        raise NotebookError(notebook.path, found, "a plain text, which can be read without a run")
                    yield from keyword.value.value.split()


def verdicts(claims: Iterable[Mapping[str, object]]) -> dict[Place, str]:
    """Return the verdicts of claims, as in a run's `claims.json`, by place."""
    places = {(home.sentence, home.notebook.number, home.cell): home.place for home in homes() if not home.verdict}
    found: dict[Place, dict[str, None]] = {}
    for claim in claims:
        for sentence in claim.get("note", "").split():
            if place := places.get((sentence, claim["notebook"], claim["cell"])):
                found.setdefault(place, {})[claim["verdict"]] = None
    return {place: "; ".join(each) for place, each in found.items()}


def recorded() -> dict[Place, str]:
    """Return the verdicts in the present `answers.md`, if there is one."""
    path = folder() / "answers.md"
    if not path.exists():
        return {}
    rows = (re.split(r"(?<!\\)\|", line)[1:-1] for line in path.read_text(encoding="utf-8").splitlines())
    cells = ([_plain(cell) for cell in row] for row in rows if len(row) == 5)
    return {(row[0], row[2], row[3]): row[4] for row in cells if re.fullmatch(r"\d+\.\w+", row[0])}


def markdown(known: Mapping[Place, str]) -> str:
    """Return the text of `answers.md` from verdicts of claims by place."""
    by_sentence: dict[str, dict[Place, Home]] = {}
    for home in homes():
        by_sentence.setdefault(home.sentence, {}).setdefault(home.place, home)
    lines = ["# Answers to the notes", "", *_INTRODUCTION.splitlines()]
    for number, note in read_notes().items():
        sentences = note["sentences"]
        count = sum(sentence["id"] in by_sentence for sentence in sentences)
        address = f", <{note['address']}>" if note["address"] else ""
        lines += ["", f"## {number} {note['name'][0].upper()}{note['name'][1:]}", "", f"{note['title']}{address}", ""]
        lines += [f"{len(sentences)} sentences, {count} with a home.", ""]
        lines += ["| id | sentence | notebook | section | verdict |", "| --- | --- | --- | --- | --- |"]
        for sentence in sentences:
            english = f"<br>*{_escaped(sentence['english'])}*" if "english" in sentence else ""
            text = f"{_escaped(sentence['text'])}{english}"
            for place, home in by_sentence.get(sentence["id"], {}).items():
                verdict = home.verdict or known.get(place, UNKNOWN)
                link = Path(os.path.relpath(home.notebook.path, folder())).as_posix()
                section, verdict = _escaped(home.section), _escaped(verdict)
                lines.append(
                    f"| {sentence['id']} | {text} | [{home.notebook.number}]({link}) | {section} | {verdict} |"
                )
                text = ""  # the next home of the same sentence
            if sentence["id"] not in by_sentence:
                lines.append(f"| {sentence['id']} | {text} | | | without a home |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
Each sentence, question and claim of the five notes that concerns the systems, in the note's own words; where it is
answered; and the verdict. Written by `python -m avlib answers`: the sentences are in [notes.yaml](notes.yaml), the
notebooks say which of them they answer, and verdicts come from an executed run. A sentence that no notebook answers is
listed as without a home."""


def _escaped(text: str) -> str:
    """Text for a cell of a Markdown table; backticks keep their meaning."""
    parts = re.split(r"(`[^`]+`)", text.replace("|", r"\|"))
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts)


def _plain(cell: str) -> str:
    """The text of a cell without links and escapes."""
    return re.sub(r"\\([*<|])", r"\1", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell)).strip()


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `answers` to the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "answers", help="list the sentences of the notes and their answers", description=_DESCRIPTION,
        formatter_class=form,
    )  # fmt: skip
    parser.add_argument("run", nargs="?", metavar="RUN", help="a folder that `run` wrote, to take verdicts from")


def command(options: argparse.Namespace) -> int:
    """Write `answers.md` and print its path."""
    known = recorded()
    if options.run:
        known |= verdicts(_claims_of_run(Path(options.run)))
    path = folder() / "answers.md"
    path.write_text(markdown(known), encoding="utf-8")
    print(path)
    return 0


def _claims_of_run(run: Path) -> list[dict[str, object]]:
    """The claims of the notebooks that passed in a run with default parameters."""
    try:
        facts, claims = (json.loads((run / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "claims"))
        passed = {each["number"] for each in facts["notebooks"] if each["state"] == "passed"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotebookError(run, f"cannot be read: {error}", "a folder that `python -m avlib run` wrote") from None
    if facts.get("given"):
        given = ", ".join(f"{name}={value}" for name, value in facts["given"].items())
        raise NotebookError(run, f"a run with -p {given}", "a run with the default parameters")
    return [claim for claim in claims if claim["notebook"] in passed]
