"""Targets, words and ages as the numbers that a model takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...clips.speech import AGES
from ...errors import DatasetError, ParameterError, check_choice
from .table import Recording, first_three, such_as

TASKS = ("classification", "regression")


@dataclass(frozen=True)
class Labels:
    """What the targets of a table mean in numbers.

    names: the classes, each at its number; in a regression the steps from 0 to 1; () where targets are numbers.
    task: "classification" or "regression".
    """

    names: tuple[str, ...]
    task: str = "classification"

    def __post_init__(self):
        check_choice("task", self.task, TASKS)

    @classmethod
    def of(cls, recordings: Iterable[Recording], task: str = "classification", order: Sequence[str] = ()) -> Labels:
        """Those of a table.

        Classes are sorted, by number if all are numbers. The targets of a regression are taken as they are if all are
        numbers; if none is, or with `order`, they are steps of equal size, i / (K - 1) for the i-th of K.

        Args:
            recordings: with all targets that there will be.
            task: "classification" or "regression".
            order: the classes or steps in their order, if it is another one.

        Raises:
            DatasetError: fewer than two classes or steps, a target that is not in `order`; in a regression some that
                are finite numbers and some that are not, or have a comma for the point.
            ParameterError: another task.
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

    def number(self, recording: Recording) -> int | float:
        """The class of a recording, or the number that a regression is to give.

        Raises:
            DatasetError: a target that is none of them.
        """
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
    """The place of a clip's word; -1 where no words are asked for, or the clip has none.

    Raises:
        DatasetError: a word that is not among them; it names the nearest.
    """
    if not words or not recording.word:
        return -1
    if recording.word not in words:
        found = f"its word {recording.word!r} is none of the {len(words)} that the model learns or has learnt"
        raise DatasetError(recording, found, such_as(recording.word, words), "Leave it out, or train with it.")
    return words.index(recording.word)


def age_index(age: float | int, ages: Sequence[float | int] = AGES) -> int:
    """The place of the listed age that is nearest, the younger of two.

    Args:
        age: in years.
        ages: in years, ascending.

    Raises:
        DatasetError: an age beyond the first or the last by more than half the step that is next to it.
        ParameterError: no ages, or not ascending.
    """
    if not len(ages) or any(later <= earlier for earlier, later in pairwise(ages)):
        raise ParameterError("ages", f"{list(ages)}", "at least one age, each older than the one before")
    steps = [later - earlier for earlier, later in pairwise(ages)] or [0]
    if not ages[0] - steps[0] / 2 <= age <= ages[-1] + steps[-1] / 2:
        advice = "Give the ages that there are as `ages`, or none if no model is told the age."
        raise DatasetError("age", f"{age:g} years", f"from {ages[0]:g} to {ages[-1]:g}", advice)
    return min(range(len(ages)), key=lambda place: abs(ages[place] - age))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
