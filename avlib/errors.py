"""What can be wrong with what a user hands over: one class for each kind of input.

Every message is put together from the same four parts: the file or parameter, what was found, what was expected, and
what to do. A caller that wants to react to one of them catches the class and reads the attributes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real


class AvlibError(Exception):
    """Something that the user handed over cannot be used as it is.

    Args:
        subject: the file, parameter or notebook that is wrong.
        found: what was found there. Empty when `subject` is a whole message: so does torch hand on, in the same
            class, what was raised in a worker process of a DataLoader.
        expected: what was expected instead.
        advice: what to do about it, as a sentence.
    """

    def __init__(self, subject: object, found: str = "", expected: str = "", advice: str = ""):
        super().__init__(str(subject), found, expected, advice)  # these four survive pickling between processes
        self.subject, self.found, self.expected, self.advice = self.args

    def __str__(self) -> str:
        if not self.found:
            return str(self.subject)
        message = f"{self.subject}: {self.found}"
        if self.expected:
            message += f"; expected {self.expected}"
        return f"{message}. {self.advice}" if self.advice else f"{message}."


class MediaError(AvlibError):
    """A sound or video file is missing, broken, or lacks the stream that is asked for."""


class TooShortError(MediaError):
    """A clip is too short for even one frame of the feature that is asked for."""


class ParameterError(AvlibError, ValueError):
    """A parameter is unknown, of the wrong type, or outside its range or choices."""


class DatasetError(AvlibError):
    """A table or folder of a data set, or one item of it, cannot be used."""


class CacheError(AvlibError):
    """The cache or the output folder cannot be written."""


class NotebookError(AvlibError):
    """A notebook is missing, is not in the form of the workbook, or failed while it ran."""


class CheckpointError(AvlibError):
    """A file of weights is missing, damaged, unsafe, or does not fit the model."""


class TrainingError(AvlibError):
    """Training cannot go on: a loss is not finite, or a batch has nothing left in it."""


class ShapeError(AvlibError):
    """A tensor does not have the shape that is expected of it."""


def check_choice(name: str, value: object, choices: Iterable) -> None:
    """Refuse what is not one of the choices.

    Raises:
        ParameterError: it is none of them; names the nearest.
    """
    # What they are of is not annotated: a check of annotations looks at one of them at random, and would take a number
    # out of the stream that masks are drawn from.
    choices = tuple(choices)
    if value not in choices:
        expected = f"one of {', '.join(map(repr, choices))}"
        raise ParameterError(name, repr(value), expected, did_you_mean(value, choices))


def check_number(name: str, value: object, lowest: float | int, highest: float | int) -> None:
    """Refuse what is not a number from `lowest` to `highest`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not lowest <= value <= highest:
        raise ParameterError(name, f"{value!r}", f"a number from {lowest:g} to {highest:g}", "Give another value.")


def check_whole(name: str, value: object, lowest: int, highest: float | int = math.inf) -> None:
    """Refuse what is not a whole number from `lowest` to `highest`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not lowest <= value <= highest:
        expected = f"a whole number from {lowest}" + (f" to {highest}" if math.isfinite(highest) else "")
        raise ParameterError(name, f"{value!r}", expected, "Give another value.")


def did_you_mean(name: object, known: Iterable, count: int = 1) -> str:
    """Advice that names the nearest of what there is, `count` at most; "" where nothing is near."""
    near = difflib.get_close_matches(str(name), list(known), count)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
