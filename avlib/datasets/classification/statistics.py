"""What a data set is like in numbers: those by which spectrograms are normalised, and how long clips are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from ...errors import DatasetError, ShapeError
from ...features import Moments, valid_mask
from ..sources import SAMPLE_RATE
from .dataset import ClassificationDataset

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BATCH_SIZE = 16


class Statistics(NamedTuple):
    """Of all values of all clips, without padding.

    mean, std, minimum, maximum: std with one value fewer than there are as divisor.
    seconds: of sound in the items, after cropping, by quantile: 0 is the shortest, 0.5 the median, 1 the longest.
    clips: how many were used.
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    seconds: dict[float, float]
    clips: int


def statistics(
    dataset: ClassificationDataset, features: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
) -> Statistics:
    """Mean, deviation and range of what a model sees of a data set, over its valid columns only.

    Args:
        dataset: one of `prepared` is fast.
        features: of waveforms `(batch, samples)` and their lengths `(batch,)`, the values `(batch, ..., columns)`, and
            their lengths in columns; None there says that all columns are valid. `model.features` is one.

    Raises:
        DatasetError: no clip can be used.
        ShapeError: more valid columns than there are.
    """
    moments, lowest, highest = Moments(), math.inf, -math.inf
    lengths: list[Tensor] = []
    with torch.no_grad():
        for batch in DataLoader(dataset, _BATCH_SIZE, collate_fn=dataset.collate):
            if not len(batch.length):
                continue
            values, columns = features(batch.waveform, batch.length)[:2]
            lengths.append(batch.length)
            kept = values.flatten() if columns is None else _valid(values, columns)
            moments.add(kept)
            if len(kept):
                lowest, highest = min(lowest, kept.min().item()), max(highest, kept.max().item())
    if not moments.count:
        raise DatasetError("items", "none can be used", advice=dataset.report())
    std = moments.std(correction=1).item() if moments.count > 1 else 0.0
    seconds = torch.cat(lengths).double() / SAMPLE_RATE
    spread = torch.quantile(seconds, torch.tensor(_QUANTILES, dtype=torch.float64)).tolist()
    return Statistics(
        moments.mean.item(), std, lowest, highest, dict(zip(_QUANTILES, spread, strict=True)), len(seconds)
    )


def _valid(values: Float[Tensor, "batch ... columns"], lengths: Tensor) -> Float[Tensor, " values"]:
    """The values of those columns that are sound."""
    if int(lengths.max()) > values.shape[-1]:
        found = f"{values.shape[-1]} columns, and lengths up to {int(lengths.max())}"
        raise ShapeError("features", found, "lengths in columns, which are the last axis")
    return values.movedim(-1, 1)[valid_mask(lengths.to(values.device), values.shape[-1])].flatten()
