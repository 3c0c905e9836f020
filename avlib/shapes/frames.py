"""Which line of the reader's, or of a model's own code is running."""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType, TracebackType

import torch

from .rows import Source

# Code between a model and torch: what it does is done for the line that called it.
HELPERS = {
    "accelerate",
    "beartype",
    "einops",
    "jaxtyping",
    "lightning",
    "opt_einsum",
    "peft",
    "pytorch_lightning",
    "torch",
    "typeguard",
}
_PACKAGES = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(torch.__file__).parents[1])}
_LIBRARY = sysconfig.get_path("stdlib")
_HERE = str(Path(__file__).parent)
_CELL = re.compile(r"ipykernel_\d+[\\/][^\\/]+\.py$|\bipython-input-(?P<number>\d+)-")
_known: dict[str, bool] = {}


def is_own(code: CodeType) -> bool:
    """Whether code is the reader's or a model's: not torch, no helper, not Python's library, not this package."""
    own = _known.get(code.co_filename)
    if own is None:
        own = _known[code.co_filename] = _is_own(code.co_filename)
    return own


def _is_own(file: str) -> bool:
    if file.startswith((_HERE + os.sep, "<frozen ", "<@beartype")):
        return False
    for folder in _PACKAGES:
        if file.startswith(folder + os.sep):
            package = file[len(folder) + 1 :].split(os.sep, 1)[0].removesuffix(".py")
            return package not in HELPERS
    return not file.startswith(_LIBRARY + os.sep)


def own_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of own code, from a frame outwards."""
    while frame is not None and not is_own(frame.f_code):
        frame = frame.f_back
    return frame


def place(depth: int = 2) -> tuple[str, int] | None:
    """File and line of the own code that called."""
    frame = own_frame(sys._getframe(depth))
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def source(place: tuple[str, int] | None) -> Source | None:
    """A place with the text of its line, as it is now: a notebook's cell may be gone later."""
    return None if place is None else Source(shown(place[0]), place[1], linecache.getline(*place).strip())


def shown(file: str) -> str:
    """What a reader calls a file: a notebook's cell, which has a file for the kernel alone, is `cell [3]`.

    The number is that of its last run; `<cell>` where the kernel does not tell.
    """
    found = _CELL.search(file)
    if found is None:
        return file
    number = found["number"]
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    formatted = getattr(getattr(ipython, "compile", None), "format_code_name", lambda file: None)(file)
    if formatted and (told := re.search(r"In ?\[(\d+)\]", formatted[1])):  # as tracebacks have it: ("Cell", "In[3]")
        number = told[1]
    return f"cell [{number}]" if number else "<cell>"


def raised_at(trace: TracebackType | None) -> tuple[str, int] | None:
    """The innermost own line that an error went through."""
    frame = raising(trace)
    return None if frame is None else (frame.tb_frame.f_code.co_filename, frame.tb_lineno)


def told(place: tuple[str, int] | None) -> str:
    """` at net.py:3`; empty of no place."""
    return f" at {shown(place[0])}:{place[1]}" if place is not None else ""


def raising(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that is of the innermost own code."""
    found = None
    while trace is not None:
        if is_own(trace.tb_frame.f_code):
            found = trace
        trace = trace.tb_next
    return found
