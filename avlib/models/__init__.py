"""Networks, one module each, whose parameters have the published names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..checkpoints import differences
from ..errors import ParameterError


def sizes_that_fit(build: Callable[..., nn.Module], sizes: dict[str, int], tensors: Mapping[str, Tensor]) -> dict:
    """Return sizes read from a file, unless the defaults fit it better.

    Thus a single odd tensor is reported as such, and not taken for a size.
    """

    def misfits(sizes: dict[str, int]) -> float | int:
        try:
            with torch.device("meta"):
                expected = build(**sizes).state_dict()
        except ParameterError:
            return math.inf
        return sum(map(len, differences(expected, tensors)))

    return min({}, sizes, key=misfits)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bars and notes on each file."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
