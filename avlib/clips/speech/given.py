"""What is refused, and what is drawn where nothing is given."""

from __future__ import annotations

import hashlib
from numbers import Integral, Real

import numpy as np

from ...errors import ParameterError


def dice(*purpose: object) -> np.random.Generator:
    """A stream of random numbers of its own for each purpose. Only its `random` is used, which never changes."""
    digest = hashlib.sha256(" ".join(map(str, purpose)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def check_whole(name: str, value: object, lowest: int) -> None:
    """Refuse what is not a whole number from `lowest`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
        raise ParameterError(name, f"{value!r}", f"a whole number from {lowest}", "Give another one.")


def check_number(name: str, value: object, lowest: float, highest: float) -> None:
    """Refuse what is not a number from `lowest` to `highest`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not lowest <= value <= highest:
        raise ParameterError(name, f"{value!r}", f"a number from {lowest:g} to {highest:g}", "Give another value.")
