"""Networks, one module each, whose parameters have the published names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import differences
from ..errors import CheckpointError, ParameterError, first_line


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


def fetched(source: str, layout: str, patterns: list[str], ignored: list[str] | None = None) -> Path:
    """Return the folder of a Hugging Face hub id, of which the files of some patterns are downloaded."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise CheckpointError(source, "no such file or folder", f"{layout}, or a hub id: owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=patterns, ignore_patterns=ignored))
    except Exception as error:  # of any class: of the network, or of the hub
        found = f"is no file or folder, and cannot be fetched ({first_line(error)})"
        raise CheckpointError(source, found, f"{layout}, or a hub id") from error


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
