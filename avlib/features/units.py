"""Speech units: whole numbers from 0 to K - 1, 50 in a second."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import ParameterError
from .lengths import all_hold

UNIT_RATE = 50.0  # in a second; one unit is 320 samples at 16 kHz, two are a picture at 25 Hz


def run_lengths(units: Int[Tensor, " units"]) -> tuple[Int[Tensor, " runs"], Int[Tensor, " runs"]]:
    """Return the unit of each run, and its length: 7 7 3 is 7 3 and 2 1. `repeat_interleave` is the inverse."""
    return torch.unique_consecutive(units, return_counts=True)


def deduplicate(units: Int[Tensor, " units"]) -> Int[Tensor, " runs"]:
    """Return the unit of each run."""
    return run_lengths(units)[0]


def check_units(
    units: Int[Tensor, "*shape"], vocabulary: int | None, name_of: Callable[[int], str] = "position {}".format
) -> None:
    """Refuse units that are not in a table of K rows; None refuses negative units alone.

    The message names the first one, K, and the place that `name_of` gives for its index in the flattened units.
    """
    beyond = ((units < 0) if vocabulary is None else (units < 0) | (units >= vocabulary)).flatten()
    if not all_hold(~beyond):
        index = int(beyond.int().argmax())
        shifted = vocabulary is not None and units.min() >= 4 and units.max() - 4 < vocabulary
        advice = "Take the model of these units, or a larger table."
        if shifted:
            advice = "They may be numbered from 4, after the special symbols of a dictionary: read with unit_offset=4."
        expected = f"0 to {vocabulary - 1}, as the vocabulary has K = {vocabulary} units" if vocabulary else "0 or more"
        raise ParameterError("units", f"{int(units.flatten()[index])} at {name_of(index)}", expected, advice)
