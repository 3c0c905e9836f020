"""The notebook files, and the table of five systems by five stages."""

from __future__ import annotations

import functools
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import NotebookError
from .parameters import Parameter, parse

FRONT = {"00": ("start_here", "Start here"), "01": ("shapes_side_by_side", "Shapes side by side")}
STAGES = ("preprocessing", "shapes", "training", "masking", "inference")  # the second digit
PASSED, FAILED, INTERRUPTED, NOT_RUN = "passed", "failed", "interrupted", "not run"


@dataclass(frozen=True)
class Notebook:
    """A notebook file, read as data."""

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its suffix, as in `11_cav_mae_preprocessing`."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The two digits that begin its name, or the whole name."""
        match = re.match(r"\d\d(?=_|$)", self.name)
        return match[0] if match else self.name

    @functools.cached_property
    def content(self) -> dict:
        """The notebook as JSON, each cell's source as one string."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8-sig"))
            for part in (content, *content["cells"]):
                part["metadata"] = {
                    name: value for name, value in (part.get("metadata") or {}).items() if value is not None
                }
            for cell in content["cells"]:
                cell["source"] = "".join(cell["source"][:])  # of a table no slice can be taken
                cell["metadata"]["tags"] = [str(tag) for tag in cell["metadata"].get("tags", [])]
                if cell["cell_type"] not in ("code", "markdown", "raw"):
                    raise ValueError
        except OSError as error:
            raise NotebookError(self.path, error.strerror or "cannot be read") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise NotebookError(self.path, "not a notebook", "the JSON of nbformat 4") from None
        return content

    @property
    def cells(self) -> list[dict]:
        return self.content["cells"]

    @property
    def title(self) -> str:
        """Its first heading without markup and number, or the file's name."""
        prose = "\n".join(cell["source"] for cell in self.cells if cell["cell_type"] == "markdown")
        heading = re.search(r"^#+\s+(.+)$", prose, re.MULTILINE)
        text = re.sub(r"[*`]", "", heading[1].rstrip("# \t")) if heading else self.name
        return re.sub(rf"^{re.escape(self.number)}\W+", "", text)

    @functools.cached_property
    def parameters(self) -> dict[str, Parameter]:
        tagged = [cell["source"] for cell in self.cells if "parameters" in cell["metadata"].get("tags", [])]
        if len(tagged) != 1:
            raise NotebookError(self.path, f"{len(tagged)} cells have the tag `parameters`", "exactly one")
        return parse(tagged[0], self.path)

    @functools.cached_property
    def system(self) -> str:
        """The system in its `workbook.check(globals(), system=...)`, if any."""
        sources = (cell["source"] for cell in self.cells if cell["cell_type"] == "code")
        declared = (re.search(r'workbook\.check\(globals\(\), system="(\w+)"\)', source) for source in sources)
        return next((found[1] for found in declared if found), "")


@dataclass
class Result:
    """The result of executing one notebook, in plain values for JSON."""

    number: str
    title: str
    notebook: str
    output: str
    state: str = NOT_RUN
    seconds: float = 0.0
    reason: str = ""  # exception, kernel died, timeout, interrupted, or runner for anything else
    message: str = ""
    cell: int = 0  # the prompt of the cell that failed, as in `In [7]`
    cell_id: str = ""
    source: str = ""
    traceback: str = ""
    parameters: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    claims: list = field(default_factory=list)
    measured: list = field(default_factory=list)


def folder() -> Path:
    """Return the folder of the notebooks: `$AVLIB_NOTEBOOKS`, or `notebooks` in the checkout, if there is one."""
    path = Path(os.environ.get("AVLIB_NOTEBOOKS") or Path(__file__).parents[2] / "notebooks").absolute()
    if os.environ.get("AVLIB_NOTEBOOKS") and not path.is_dir():
        raise NotebookError(path, "no such folder", "the notebooks", "Set AVLIB_NOTEBOOKS to where they are.")
    return path


def discover() -> list[Notebook]:
    """Return the numbered notebooks in order, without copies; refuse two of the same number.

    A copy lies beside its original and has a longer name, such as `11_cav_mae_preprocessing-Copy1`.
    """
    paths = [path for path in folder().rglob("[0-9][0-9]_*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    found: list[Notebook] = []
    for path in sorted(paths, key=lambda path: path.stem):
        notebook, before = Notebook(path), found[-1] if found else None
        if before is None or before.number != notebook.number:
            found.append(notebook)
        elif not (path.parent == before.path.parent and re.match(re.escape(before.name) + r"\W", path.stem + ".")):
            raise NotebookError(path, f"has the number of {before.path.name}", "one notebook to each number")
    return found


def choose(names: list[str]) -> list[Notebook]:
    """Return notebooks by number (`11`), row (`1`) or path; all if none is named."""
    found = {notebook.number: notebook for notebook in discover()}
    if not found and not all(name.endswith(".ipynb") for name in names or [""]):
        advice = "Set AVLIB_NOTEBOOKS to the folder `notebooks` of a checkout."
        raise NotebookError(folder(), "no notebooks", "files like 11_cav_mae_preprocessing.ipynb", advice)
    chosen = [] if names else list(found.values())
    for name in names:
        if name.endswith(".ipynb"):
            if not Path(name).is_file():
                raise NotebookError(name, "no such file", "a notebook")
            path = Path(name).absolute()
            chosen.append(next((known for known in found.values() if known.path == path), Notebook(path)))
            continue
        meant = [found[number] for number in found if number == name or (len(name) == 1 and number[0] == name)]
        if not meant:
            state = "is not built yet" if name in {slot.number for slot in table().slots} else "means no notebook"
            raise NotebookError(
                name, state, f"one of {', '.join(found) or 'none: the folder is empty'}, or a row's digit"
            )
        chosen += meant
    chosen = list(dict.fromkeys(chosen))
    for name, count in Counter(notebook.name for notebook in chosen).items():
        if count > 1:  # their outputs would have one name
            raise NotebookError(name, f"{count} notebooks of this name", "one")
    return chosen


@dataclass(frozen=True)
class Slot:
    """A place in the table, for a notebook that exists or is planned."""

    number: str
    title: str
    path: Path
    exists: bool


@dataclass(frozen=True)
class Table:
    """The table of the workbook: two notebooks in front, and five rows of five stages."""

    front: tuple[Slot, ...]
    rows: dict[str, tuple[Slot, ...]]
    base: Path

    @property
    def slots(self) -> list[Slot]:
        return [*self.front, *(slot for row in self.rows.values() for slot in row)]

    def link(self, slot: Slot) -> str:
        """Return the notebook's path relative to `base`, with forward slashes."""
        return Path(os.path.relpath(slot.path, self.base)).as_posix()

    def markdown(self) -> str:
        """Return the table as Markdown; notebooks that are not built have no link."""

        def cell(slot: Slot, text: str) -> str:
            return f"[{text}]({self.link(slot)})" if slot.exists else text

        lines = [" · ".join(cell(slot, f"{slot.number} {slot.title}") for slot in self.front), ""]
        lines += ["| | " + " | ".join(STAGES) + " |", "|---" * (1 + len(STAGES)) + "|"]
        for system, row in self.rows.items():
            lines.append(f"| **{system}** | " + " | ".join(cell(slot, slot.number) for slot in row) + " |")
        return "\n".join(lines) + "\n"

    _repr_markdown_ = markdown


def table_rows() -> dict[int, tuple[str, str]]:
    """Return name and title of each row of the table by its number, as the systems declare them."""
    from .. import systems

    described = {name: systems.described(name) for name in systems.names()}
    return dict(sorted((about["ROW"], (name, about["TITLE"])) for name, about in described.items() if about["ROW"]))


def table(base: str | os.PathLike[str] | None = None) -> Table:
    """Return the table, with links relative to `base` (by default the notebooks' folder)."""
    found = {notebook.number: notebook.path for notebook in discover()}

    def slot(number: str, title: str, planned: str) -> Slot:
        return Slot(number, title, found.get(number, folder() / planned), number in found)

    front = tuple(slot(number, title, f"{number}_{name}.ipynb") for number, (name, title) in FRONT.items())
    rows = {}
    for digit, (name, system) in table_rows().items():
        directory = f"{digit}_{name}"
        rows[system] = tuple(
            slot(f"{digit}{place}", f"{system}: {stage}", f"{directory}/{digit}{place}_{name}_{stage}.ipynb")
            for place, stage in enumerate(STAGES, start=1)
        )
    return Table(front, rows, Path(base).absolute() if base is not None else folder())
