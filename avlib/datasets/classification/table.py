"""Recordings of a table or of folders; targets, words and ages as numbers."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...clips.speech import AGES
from ...errors import DatasetError, ParameterError, check_choice, did_you_mean
from ...workers import POLICIES
from ..sources import SOUND_SUFFIXES, VIDEO_SUFFIXES, existing, files_in, read_table

OPTIONAL = ("word", "age", "speaker")  # columns that are read where they are, and not missed elsewhere
TASKS = ("classification", "regression")


@dataclass(frozen=True)
class Recording:
    """One clip of a table; "" and None are unknown."""

    path: Path
    target: str  # class or number, as the table has it
    word: str = ""
    age: float | int | None = None  # of the speaker, in years
    speaker: str = ""
    group: str = ""  # whose clips stay in one part of the data; the speaker, unless another column was named
    split: str = ""  # its part, if the table names it
    row: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # all columns, as text
    name: str = field(default="", repr=False, compare=False)  # path from the table's folder, which may be moved

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
    on_error: str = "raise",
) -> list[Recording]:
    """Read the recordings of a table, in its order, or of a folder of classes, sorted by path.

    - A `.csv` (or `.tsv`) in UTF-8 with a header: `path`, the target, and other columns. Cells are separated by commas,
      semicolons or tabs, whichever the header has most of; with semicolons 0,5 is read as 0.5. NaN counts as empty.
    - A folder: its sounds and videos are labelled with the sub-folder that they are in, however deep; columns are
      `path` and `label`.

    `word`, `age` (in years) and `speaker` name columns, "" none; a missing one is refused unless it has its default
    name. Clips with one value in the column `group` are kept together when the data is divided: "" takes the speaker's,
    unless that is the target, "path" each clip alone. Relative paths begin at the folder of the table.
    `on_error="skip"` keeps missing files in the list, for the data set to leave out and report.
    """
    check_choice("on_error", on_error, POLICIES)
    path = existing(path)
    columns, rows = _in_folder(path) if path.is_dir() else _listed(path)
    if not rows:
        raise DatasetError(path, "nothing in it", "at least one recording")
    named = {"target": target, "word": word, "age": age, "speaker": speaker, "group": group}
    for name, column in {"path": "path", **named}.items():
        if column and column not in columns:
            if name != column or name not in OPTIONAL:
                expected = f"one of {', '.join(map(repr, columns))}"
                advice = "" if name == "path" else f"Name the column by {argument(name)}."
                raise DatasetError(path, f"no column {column!r}", expected, did_you_mean(column, columns, 3) or advice)
            named[name] = ""
    if not group and speaker != target:  # speakers as classes are in every part
        named["group"] = named["speaker"]
    for column in filter(None, ("path", target, named["group"] if group else "")):
        lines = [line for line, row in rows if not row[column]]
        if lines:
            found = f"{len(lines)} of {len(rows)} rows have nothing in {column!r}, or NaN (line {first_three(lines)})"
            raise DatasetError(path, found, "a value in each", "Fill them in, or take these rows out of the table.")
    base = path if path.is_dir() else path.parent
    recordings = []
    for line, row in rows:
        known = {name: row[column] if column else "" for name, column in named.items()}
        years = _number(known["age"])
        if known["age"] and (years is None or years < 0):
            found, expected = f"{known['age']!r} in {named['age']!r}", "an age in years, or nothing"
            raise DatasetError(f"{path}, line {line}", found, expected, "Write 4;6 as 4.5.")
        file, inside = base / row["path"], base.absolute()
        name = (file.absolute().relative_to(inside) if file.absolute().is_relative_to(inside) else file).as_posix()
        recordings.append(Recording(file, split=row.get("split", ""), row=row, name=name, **known | {"age": years}))
    files = Counter(recording.path.resolve() for recording in recordings)  # sub/../a.wav and links are the same clip
    twice = [file for file, count in files.items() if count > 1]
    if twice:
        expected = "each clip once: else it could be both trained and tested on"
        raise DatasetError(path, f"{len(twice)} clips are listed more than once: {first_three(twice)}", expected)
    missing = [recording for recording in recordings if not os.path.isfile(recording.path)]  # noqa: PTH113 - a name may be too long
    if missing and on_error == "raise":
        found = f"{len(missing)} of {len(recordings)} files are missing: {first_three(missing)}"
        advice = 'Paths are looked up from the folder of the table; on_error="skip" leaves missing ones out.'
        raise DatasetError(path, found, "a file for each row", advice)
    return recordings


def filter_words(recordings: Sequence[Recording], words: str | Iterable[str]) -> list[Recording]:
    """Return the recordings of these words; of all, if none is named. A word without clips is refused."""
    words = [word for word in ([words] if isinstance(words, str) else words) if word]
    there = set(word_list(recordings))
    for word in words:
        if word not in there:
            advice = did_you_mean(word, there, 3) if there else f"Name their column by {argument('word')}."
            expected = f"one of {first_three(sorted(there))}" if there else "a word of the table"
            raise DatasetError("words", f"no clip of {word!r}", expected, advice)
    return [recording for recording in recordings if not words or recording.word in words]


def word_list(recordings: Iterable[Recording]) -> tuple[str, ...]:
    """Return all words, sorted; the number of a word is its place."""
    return tuple(sorted({recording.word for recording in recordings} - {""}))


@dataclass(frozen=True)
class Labels:
    """Targets of a table as numbers."""

    names: tuple[str, ...]  # classes by number; in a regression steps from 0 to 1, or () where targets are numbers
    task: str = "classification"  # or "regression"

    def __post_init__(self):
        check_choice("task", self.task, TASKS)

    @classmethod
    def of(cls, recordings: Iterable[Recording], task: str = "classification", order: Sequence[str] = ()) -> Labels:
        """Find the labels of recordings.

        Classes are sorted, as numbers if all are. Targets of a regression are numbers; if none is one, or with `order`,
        they are steps of equal size, i / (K - 1) for the i-th of K. One value only is refused.
        """
        recordings = list(recordings)
        there = {recording.target for recording in recordings}
        others = [recording for recording in recordings if _number(recording.target) is None]
        numeric = not others
        if order:
            names = tuple(order)
            if not there <= set(names):
                found = f"{first_three(sorted(there - set(names)))} in the table"
                raise DatasetError("order", found, f"one of {', '.join(names)}")
        elif task == "regression" and numeric and there:
            return cls((), task)
        elif task == "regression" and any(_number(name.replace(",", ".")) is not None for name in there):
            found = f"{len(others)} of {len(recordings)} are no finite numbers: "
            found += first_three(f"{recording.target!r} ({recording})" for recording in others)
            advice = "Correct them (0.5, not 0,5), or give `order` where they are steps with names."
            raise DatasetError("target", found, "a number for each clip", advice)
        else:
            names = tuple(sorted(there, key=lambda name: (_number(name), name) if numeric else name))
            if task == "regression" and len(names) > 1:
                message = f"targets are taken as steps from 0 to 1 in this order: {', '.join(names)}"
                warnings.warn(f"{message}; give `order` for another one", UserWarning, stacklevel=2)
        labels = cls(names, task)
        if len(names) < 2:
            advice = "Another column may be meant as target, or a word filter left one class only."
            raise DatasetError("target", f"one value only: {first_three(names) or 'none'}", "at least two", advice)
        return labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; () of a regression."""
        return self.names if self.task == "classification" else ()

    def number(self, recording: Recording) -> int | float:
        """Return the class number of a recording, or the target of a regression; an unknown one is refused."""
        if not self.names:
            number = _number(recording.target)
            if number is None:
                raise DatasetError(recording, f"target {recording.target!r}", "a finite number")
            return number
        if recording.target not in self.names:
            expected = f"one of {', '.join(self.names)}"
            raise DatasetError(recording, f"target {recording.target!r}", expected, "The model knows no others.")
        place = self.names.index(recording.target)
        return place if self.task == "classification" else place / (len(self.names) - 1)


def word_index(recording: Recording, words: Sequence[str]) -> int:
    """Return the number of a clip's word, -1 without one; a word that is not among them is refused."""
    if not words or not recording.word:
        return -1
    if recording.word not in words:
        found = f"its word {recording.word!r} is none of the {len(words)} words of the model"
        advice = f"{did_you_mean(recording.word, words, 3)} Leave it out, or train with it.".lstrip()
        raise DatasetError(recording, found, f"one of {first_three(words)}", advice)
    return words.index(recording.word)


def age_index(recording: Recording, ages: Sequence[float | int] = AGES) -> int:
    """Return the number of the age nearest to a clip's, the younger of two; -1 without one.

    An age beyond the first or the last by more than half a step is refused.
    """
    if recording.age is None or not ages:
        return -1
    steps = [later - earlier for earlier, later in itertools.pairwise(ages)] or [0]
    if any(later <= earlier for earlier, later in itertools.pairwise(ages)):
        raise ParameterError("ages", f"{list(ages)}", "each older than the one before")
    if not ages[0] - steps[0] / 2 <= recording.age <= ages[-1] + steps[-1] / 2:
        found = f"its age, {recording.age:g} years, is beyond those listed"
        advice = "Give the ages of the table as `ages`, or none if the model is not conditioned on the age."
        raise DatasetError(recording, found, f"from {ages[0]:g} to {ages[-1]:g}", advice)
    return min(range(len(ages)), key=lambda place: abs(ages[place] - recording.age))


def first_three(things: Iterable[object]) -> str:
    """List the first three in words, and count the rest."""
    things = list(things)
    more = f" and {len(things) - 3} more" if len(things) > 3 else ""
    return ", ".join(map(str, things[:3])) + more


def argument(column: str) -> str:
    """Name the argument and the setting of a column, for messages."""
    return f"`{column}` (setting: {column}_column)" if column in OPTIONAL else f"`{column}`"


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
    form = "a table in UTF-8 (.csv), or a folder with a sub-folder for each class"
    if path.suffix.lower() in VIDEO_SUFFIXES | SOUND_SUFFIXES:
        raise DatasetError(path, "is a clip", form)
    columns, rows = read_table(path, form)
    for _, row in rows:
        row.update({column: "" for column, cell in row.items() if cell.lower() == "nan"})
    return columns, rows


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
