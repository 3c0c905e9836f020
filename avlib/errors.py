"""Exceptions for invalid user input, one class per kind of input, and common checks.

Every message has four parts, which are attributes too: the file or parameter, what was found, what was expected, and
what to do.
"""

from __future__ import annotations

import difflib
import math
import re
import traceback
from collections.abc import Iterable
from numbers import Integral, Real

# Of a terminal, of the direction of writing, and halves of characters, which no file takes.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class AvlibError(Exception):
    """Invalid user input.

    Args:
        subject: the file, parameter or notebook that is wrong.
        found: what was found there. Empty when `subject` is a whole message, as torch passes on errors from the
            workers of a DataLoader.
        expected: what was expected instead.
        advice: what to do about it, as a sentence.
    """

    def __init__(self, subject: object, found: str = "", expected: str = "", advice: str = ""):
        super().__init__(str(subject), found, expected, advice)  # these four survive pickling between processes
        self.subject, self.found, self.expected, self.advice = self.args

    def __str__(self) -> str:
        if not self.found:
            return plain(str(self.subject))
        message = f"{self.subject}: {self.found}"
        if self.expected:
            message += f"; expected {self.expected}"
        return plain(f"{message}. {self.advice}" if self.advice else f"{message}.")

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the lines of the reader's cells, and the message."""
        frames = traceback.extract_tb(self.__traceback__)
        cells = [frame for frame in frames if "ipykernel_" in frame.filename or "<ipython-input" in frame.filename]
        return [*(f"line {frame.lineno}: {frame.line}" for frame in cells), f"{type(self).__name__}: {self}"]


class MediaError(AvlibError):
    """A sound or video file is missing, broken, or lacks a stream."""


class TooShortError(MediaError):
    """A clip is too short for one frame of a feature."""


class ParameterError(AvlibError, ValueError):
    """A parameter is unknown, of the wrong type, or outside its range or choices."""


class DatasetError(AvlibError):
    """A table, folder or item of a data set cannot be used."""


class CacheError(AvlibError):
    """The cache or the output folder cannot be written."""


class NotebookError(AvlibError):
    """A notebook is missing, not in the workbook's form, or failed."""


class CheckpointError(AvlibError):
    """A file of weights is missing, damaged, unsafe, or does not fit."""


class TrainingError(AvlibError):
    """Training cannot go on: a loss is not finite, or a batch is empty."""


class WorkerError(AvlibError):
    """A process that shared the work was ended from outside."""


class ShapeError(AvlibError):
    """A tensor does not have the expected shape."""


def check_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise a ParameterError for a value that is not one of the choices."""
    # Their type is not annotated: beartype would check one at random, with a number from the stream of masks.
    choices = tuple(choices)
    if value not in choices:
        expected = f"one of {', '.join(map(repr, choices))}"
        raise ParameterError(name, shown(value), expected, did_you_mean(value, choices))


def check_number(name: str, value: object, lowest: float | int, highest: float | int) -> None:
    """Raise a ParameterError unless `value` is a number from `lowest` to `highest`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not lowest <= value <= highest:
        raise ParameterError(name, f"{value!r}", f"a number from {lowest:g} to {highest:g}", "Give another value.")


def check_whole(name: str, value: object, lowest: int, highest: float | int = math.inf) -> None:
    """Raise a ParameterError unless `value` is a whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not lowest <= value <= highest:
        expected = f"a whole number from {lowest}" + (f" to {highest}" if math.isfinite(highest) else "")
        raise ParameterError(name, f"{value!r}", expected, "Give another value.")


def did_you_mean(name: object, known: Iterable, count: int = 1) -> str:
    """Suggest up to `count` similar known names; "" if none is similar."""
    near = difflib.get_close_matches(shown(name).strip("'"), [each for each in known if isinstance(each, str)], count)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


def plain(text: str) -> str:
    """Return text whose control characters, but tabs and ends of lines, are written out."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown(value: object) -> str:
    """Return `repr(value)` within 200 characters, also of a number with more digits than Python prints."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"<{type(value).__name__} that is too large to show>"
    return text if len(text) <= 200 else f"{text[:150]} ... {text[-45:]}"


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON as a table, for `object_pairs_hook`; raise ValueError for a name that comes twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError(f"a name comes twice in {shown([name for name, _ in pairs])}")
    return table


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def too_large(value: object) -> bool:
    """Return True for a whole number, or a list with one, beyond the 64 bits of tensors and files."""
    if isinstance(value, list | tuple):
        return any(map(too_large, value))
    return isinstance(value, int) and value.bit_length() > 63
