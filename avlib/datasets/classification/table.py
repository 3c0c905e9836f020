"""Recordings with what is known of them: a table, or folders that are named after classes."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DatasetError, check_choice, did_you_mean
from ...workers import POLICIES
from ..sources import SOUND_SUFFIXES, VIDEO_SUFFIXES, existing, files_in

DEFAULT_COLUMNS = {"word": "word", "age": "age", "speaker": "speaker"}  # read where they are, not missed elsewhere
_DECIMAL = re.compile(r"^([+-]?\d*),(\d+)$")


@dataclass(frozen=True)
class Recording:
    """One clip.

    path: of its file.
    target: what a model is to say of it, as the table has it.
    word: that is said in it; "" where that is not known.
    age: of the speaker, in years; None where that is not known.
    speaker: "" where that is not known.
    group: clips of one group never come into two parts of the data; the speaker, unless another column was named.
    split: the part that the table puts it in; "" where it says nothing.
    row: all columns of the table, as text.
    name: by which its table knows it, wherever the folder of that lies: its path from there, if it is in there; ""
        takes `path`.
    """

    path: Path
    target: str
    word: str = ""
    age: float | None = None
    speaker: str = ""
    group: str = ""
    split: str = ""
    row: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    name: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return str(self.path)


def read_recordings(
    path: str | Path,
    target: str = "label",
    *,
    word: str = "word",
    age: str = "age",
    speaker: str = "speaker",
    group: str = "",
    folder: str | Path = "",
    on_error: str = "raise",
) -> list[Recording]:
    """The recordings of a table, or of a folder with a sub-folder for each class.

    - A `.csv` (or `.tsv`) in UTF-8 with a header: `path`, the target, and whatever else there is. Cells are separated
      by commas, semicolons or tabs, whichever the header has most of; with semicolons 0,5 is read as 0.5.
    - A folder: its sounds and videos, however deep, are labelled with the sub-folder that they are in; columns are
      `path` and `label`.

    Args:
        path: one of these.
        target: the column of what a model is to say.
        word: the column of the word; likewise `age` (years) and `speaker`. Under these three names a column may be
            missing; one of any other name has to be there. "" reads none.
        age: see `word`.
        speaker: see `word`. NaN in one of these columns is as nothing there.
        group: the column whose clips are kept together when the data is divided; "" takes the speaker's, unless that is
            the target; "path" takes each clip for itself.
        folder: from which paths of the table that are not absolute are looked up; "" takes the folder of the table.
        on_error: "raise"; "skip" leaves files that are missing in the list, for the data set to leave out and report.

    Returns:
        A recording for each row, in the order of the table; of a folder, sorted by path.

    Raises:
        DatasetError: no such table or folder, nothing in it, another form, no such column (it names the nearest), a row
            with nothing or NaN for the path, target or `group`, an age that is no number, a file that is missing, or
            listed twice.
    """
    check_choice("on_error", on_error, POLICIES)
    path = existing(path)
    columns, rows = _in_folder(path) if path.is_dir() else _listed(path)
    if not rows:
        raise DatasetError(path, "nothing in it", "at least one recording")
    named = {"target": target, "word": word, "age": age, "speaker": speaker, "group": group}
    for name, column in {"path": "path", **named}.items():
        if column and column not in columns:
            if DEFAULT_COLUMNS.get(name) != column:
                raise _no_column(path, column, columns, name)
            named[name] = ""
    if not group and speaker != target:  # who is to be told apart cannot be kept apart
        named["group"] = named["speaker"]
    _refuse_without(path, rows, target, named["group"] if group else "")
    base = Path(folder) if folder else path if path.is_dir() else path.parent
    recordings = []
    for line, row in rows:
        known = {name: row[column] if column and not _is_nan(row[column]) else "" for name, column in named.items()}
        known["age"] = _years(known["age"], f"{path}, line {line}", named["age"])
        file = base / row["path"]
        recordings.append(Recording(file, split=row.get("split", ""), row=row, name=_name(file, base), **known))
    _refuse_repeated(path, recordings)
    if on_error == "raise":
        _refuse_missing(path, recordings)
    return recordings


def filter_words(recordings: Sequence[Recording], words: str | Iterable[str]) -> list[Recording]:
    """The recordings of these words alone; all of them where no word is named. It comes before any split.

    Raises:
        DatasetError: no clip has one of the words; it names the nearest that there are.
    """
    words = [words] if isinstance(words, str) else list(words)
    words = [word for word in words if word]
    there = set(word_list(recordings))
    for word in words:
        if word not in there:
            advice = f"Name their column by {argument('word')}." if not there else ""
            raise DatasetError("words", f"no clip of {word!r}", such_as(word, there) or "a word of the table", advice)
    return [recording for recording in recordings if not words or recording.word in words]


def word_list(recordings: Iterable[Recording]) -> tuple[str, ...]:
    """The words that are there, sorted: the number of a word is its place."""
    return tuple(sorted({recording.word for recording in recordings} - {""}))


def first_three(things: Iterable[object]) -> str:
    """As many as a message has room for, and how many more there are."""
    things = list(things)
    more = f" and {len(things) - 3} more" if len(things) > 3 else ""
    return ", ".join(map(str, things[:3])) + more


def argument(column: str) -> str:
    """By what `read_recordings` is told the name of a column, and a system that reads a table."""
    return f"`{column}` (setting: {column}_column)" if column in DEFAULT_COLUMNS else f"`{column}`"


def such_as(wanted: str, there: Iterable[str]) -> str:
    """What could have been meant, in words: the nearest, or what there is."""
    there = sorted(there)
    near = difflib.get_close_matches(wanted, there, 3, cutoff=0.5)
    return f"one that is there, such as {', '.join(map(repr, near or there[:10]))}" if there else ""


def _no_column(path: Path, column: str, columns: Sequence[str], name: str) -> DatasetError:
    expected = f"one of {', '.join(map(repr, columns))}"
    advice = did_you_mean(column, columns, 3) or ("" if name == "path" else f"Name the column by {argument(name)}.")
    return DatasetError(path, f"no column {column!r}", expected, advice)


def _in_folder(folder: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    found = list(files_in(folder, VIDEO_SUFFIXES | SOUND_SUFFIXES))
    beside = [file.name for file, label in found if not label]
    advice = "Put each into the sub-folder of its class, or write a table with `path` and `label`."
    if beside:
        expected = "a sub-folder for each class"
        raise DatasetError(folder, f"{len(beside)} clips in no sub-folder: {first_three(beside)}", expected, advice)
    if not found:
        raise DatasetError(folder, "no sound or video in it", "a sub-folder of clips for each class", advice)
    rows = [{"path": str(file.relative_to(folder)), "label": label} for file, label in found]
    return ["path", "label"], list(enumerate(rows, start=1))


def _listed(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table, and its rows, each with the number of its line."""
    form = "a table in UTF-8 (.csv), or a folder with a sub-folder for each class"
    if path.suffix.lower() in VIDEO_SUFFIXES | SOUND_SUFFIXES:
        raise DatasetError(path, "is a clip", form)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(filter(str.strip, file), "")
            separator = max(",;\t", key=header.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(path, f"cannot be read as a table ({error})", form, "Save it as CSV in UTF-8.") from error
    if not lines:
        raise DatasetError(path, "nothing in it", "a header with `path` and `label`, and a row for each clip")
    (_, columns), *rows = lines
    twice = [column for column, count in Counter(columns).items() if column and count > 1]
    if twice:
        raise DatasetError(path, f"the column {twice[0]!r} comes twice", "each name once")
    for line, cells in rows:
        if len(cells) > len(columns):
            advice = f"Quote what has {separator!r} in it."
            raise DatasetError(f"{path}, line {line}", f"{len(cells)} cells", f"{len(columns)}, as the header", advice)
    if separator == ";":  # as spreadsheets write it where a number has a comma
        rows = [(line, [_DECIMAL.sub(r"\1.\2", cell) for cell in cells]) for line, cells in rows]
    filled = [(line, cells + [""] * (len(columns) - len(cells))) for line, cells in rows]
    return columns, [(line, dict(zip(columns, cells, strict=True))) for line, cells in filled]


def _refuse_without(path: Path, rows: list[tuple[int, dict[str, str]]], target: str, group: str) -> None:
    """What no clip can do without, by column, with what is wrong in it."""
    for column in filter(None, ("path", target, group)):
        lines = [line for line, row in rows if not row[column] or _is_nan(row[column])]
        if lines:
            found = f"{len(lines)} of {len(rows)} rows have nothing in {column!r}, or NaN (line {first_three(lines)})"
            raise DatasetError(path, found, "a value in each", "Fill them in, or take these rows out of the table.")


def _refuse_repeated(path: Path, recordings: list[Recording]) -> None:
    files = Counter(recording.path.resolve() for recording in recordings)  # sub/../a.wav and links are the same clip
    twice = [file for file, count in files.items() if count > 1]
    if twice:
        expected = "each clip once: else it could be both trained and tested on"
        raise DatasetError(path, f"{len(twice)} clips are listed more than once: {first_three(twice)}", expected)


def _refuse_missing(path: Path, recordings: list[Recording]) -> None:
    missing = [recording for recording in recordings if not recording.path.is_file()]
    if missing:
        found = f"{len(missing)} of {len(recordings)} files are missing: {first_three(missing)}"
        advice = 'Paths are looked up from the folder of the table; on_error="skip" leaves missing ones out.'
        raise DatasetError(path, found, "a file for each row", advice)


def _name(file: Path, base: Path) -> str:
    inside, whole = base.absolute(), file.absolute()
    return (whole.relative_to(inside) if whole.is_relative_to(inside) else file).as_posix()


def _years(text: str, where: str, column: str) -> float | None:
    if not text:
        return None
    try:
        years = float(text)
    except ValueError:
        years = math.nan
    if not 0 <= years < math.inf:
        raise DatasetError(where, f"{text!r} in {column!r}", "an age in years, or nothing", "Write 4;6 as 4.5.")
    return years


def _is_nan(text: str) -> bool:
    try:
        return math.isnan(float(text))
    except ValueError:
        return False
