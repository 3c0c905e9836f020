"""Files of speech units: numbers from 0 to K - 1 at 50 Hz, as text or as PyTorch saves them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ... import checkpoints
from ...cache import publishing
from ...errors import CheckpointError, DatasetError
from ...features import check_units
from ..sources import existing

_WHOLE = re.compile(r"-?[0-9]{1,9}")
_SUFFIXES = (".pt", ".pth")


class UnitFile(NamedTuple):
    """Units `(n,)`, int64, and the speaker vector of the file or None."""

    units: Int[Tensor, " units"]
    speaker: Float[Tensor, " values"] | None = None


def read_units(path: str | Path, unit_offset: int = 0, num_embeddings: int | None = None) -> UnitFile:
    """Read units from a text or .pt file.

    - Text: whole numbers between spaces, on any number of lines.
    - .pt: a tensor `(n,)` or `(1, n)`, or a table with it under "code", and perhaps a speaker vector under "spkr".
      Nothing in it is executed.

    Args:
        path: of the file.
        unit_offset: number of the first unit in the file, which is subtracted: 4 for indices of a fairseq dictionary,
            which begins with four special symbols.
        num_embeddings: K, to refuse units from K up; None refuses negative ones alone.

    Raises:
        DatasetError: no such file, no units in it, or something else.
        ParameterError: a unit outside the vocabulary; its line is named.
    """
    path = existing(path)
    if path.suffix.lower() not in _SUFFIXES:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(path, f"cannot be read ({error})", "text: whole numbers between spaces") from error
        return UnitFile(parse_units(text, path, unit_offset, num_embeddings))
    expected = 'whole numbers as a tensor (n,) or (1, n), or a table with it under "code"'
    try:
        content = checkpoints.contents(path)
    except CheckpointError as error:
        raise DatasetError(path, error.found, expected, error.advice) from error
    speaker = content.get("spkr") if isinstance(content, Mapping) else None
    code = content.get("code") if isinstance(content, Mapping) else content
    whole = isinstance(code, Tensor) and not (code.is_floating_point() or code.is_complex() or code.dtype == torch.bool)
    if not whole or not code.numel() or code.ndim not in (1, 2) or code.numel() != code.shape[-1]:
        found = f"{code.dtype} of shape {tuple(code.shape)}" if isinstance(code, Tensor) else f"{type(code).__name__}"
        raise DatasetError(path, f"units as {found}", expected)
    units = code.flatten().long() - unit_offset
    check_units(units, num_embeddings, lambda index: f"position {index} of {path}")
    if speaker is None:
        return UnitFile(units)
    if not isinstance(speaker, Tensor) or speaker.numel() != max(speaker.shape, default=0):
        raise DatasetError(path, "a speaker that is no vector", "one vector, (256,) or (1, 1, 256)")
    return UnitFile(units, speaker.flatten().float())


def parse_units(
    text: str, source: object = "units", unit_offset: int = 0, num_embeddings: int | None = None
) -> Int[Tensor, " units"]:
    """Return the units of a text; see `read_units`. `source` names it in messages."""
    words = [(word, line) for line, words in enumerate(text.splitlines(), 1) for word in words.split()]
    for word, line in words:
        if not _WHOLE.fullmatch(word):
            raise DatasetError(source, f"{word[:40]!r} in line {line}", "whole numbers between spaces")
    if not words:
        raise DatasetError(source, "no units", "whole numbers between spaces")
    units = torch.tensor([int(word) for word, _ in words]) - unit_offset
    check_units(units, num_embeddings, lambda index: f"line {words[index][1]} of {source}")
    return units


def write_units(
    path: str | Path, units: Int[Tensor, " units"], speaker: Float[Tensor, " values"] | None = None
) -> None:
    """Write units as one line of text, or as a .pt file in the published form, where a speaker can be added."""
    path = Path(path)
    with publishing(path) as unfinished:
        if path.suffix.lower() in _SUFFIXES:
            table = {"code": units[None].long().cpu(), "dur_prediction": False}
            torch.save(table | ({} if speaker is None else {"spkr": speaker.view(1, 1, -1).cpu()}), unfinished)
        else:
            unfinished.write_text(" ".join(map(str, units.tolist())) + "\n")
