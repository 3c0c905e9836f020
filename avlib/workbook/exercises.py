"""Exercises: a question, a check that explains mistakes, and a folded solution.

The reader replaces the `...` in a cell with the tag `exercise`:

    frames = workbook.exercise(
        "How many frames are 3 s?",
        answer=...,
        check={"Count whole windows only.": lambda count: count == fbank_of(3).shape[0]},
    )

The next cell has the tag `solution` and hidden source. It runs on every run, and fails if the check refuses it:

    frames.solution((48000 - 400) // 160 + 1, "A window of 400 samples moves by 160.")
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable, Mapping

from ..errors import ParameterError
from .kernel import COLOURS, SIGNS, box, inline, show

Check = Callable[[object], str | None] | Mapping[str, Callable[[object], object]]


class Exercise:
    """A question with its check."""

    def __init__(self, question: str, check: Check):
        self.question, self.check = question, check

    def problem(self, answer: object) -> str:
        """Return what is wrong with an answer; empty if it is right.

        Raises:
            ParameterError: the check is a function that returns something other than text or None.
        """
        try:
            if callable(self.check):
                message = self.check(answer)
            else:
                message = next((hint for hint, holds in self.check.items() if not holds(answer)), "")
        except Exception as error:  # an answer of any type may be given
            return f"{_short(answer)} does not fit the question ({type(error).__name__}: {error})."
        if not isinstance(message, str | None):
            found = f"found {type(message).__name__} {message!r}"
            raise ParameterError("check", found, "a function that returns what is wrong as text, or None")
        return message or ""

    def solution(self, answer: object, why: str = "") -> None:
        """Show a right answer and the reason (code in backticks), folded."""
        if message := self.problem(answer):
            raise AssertionError(f"the check refuses the solution {_short(answer)}: {message}")
        shown = [] if callable(answer) else [_short(answer)]
        lines = [*shown, *([why] if why else [])]
        parts = "<br>".join([*(f"<code>{html.escape(part)}</code>" for part in shown), *([inline(why)] if why else [])])
        markup = f"<details><summary>Solution</summary>{box('#808080', parts)}</details>"
        show("solution", {"question": self.question, "why": why}, f"Solution  {'. '.join(lines)}", markup)

    def _ipython_display_(self) -> None:
        """Show nothing: `exercise` has shown the question already."""


def exercise(question: str, *, answer: object = ..., check: Check) -> Exercise:
    """Show a question and, once answered, what is wrong with the answer.

    Args:
        question: plain text; code in backticks.
        answer: the reader's answer. `...` means not answered yet, also as an item of a tuple or list.
        check: a function that returns what is wrong with an answer (None if nothing is), or hints with the
            conditions that a right answer meets; the hint of the first that fails is shown.
    """
    asked = Exercise(question, check)
    open_ = answer is ... or (isinstance(answer, list | tuple) and any(item is ... for item in answer))
    message = "" if open_ else asked.problem(answer)
    if open_:
        state, colour, reply = "open", "#808080", "Write your answer in the place of `...` and run the cell again."
    elif message:
        state, colour, reply = "wrong", COLOURS["not"], f"{SIGNS['not']} Not yet. {message}"
    else:
        state, colour, reply = "right", COLOURS["holds"], f"{SIGNS['holds']} {_short(answer)} is right."
    record = {"question": question, "state": state, "message": message}
    markup = box(colour, f'<div style="font-weight:600">{inline(question)}</div><div>{inline(reply)}</div>')
    show("exercise", record, f"Exercise  {question}\n          {reply}", markup)
    return asked


def _short(answer: object) -> str:
    return "Your function" if callable(answer) else textwrap.shorten(repr(answer), 80, placeholder=" …")
