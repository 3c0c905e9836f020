"""What a data set is like in numbers: those by which spectrograms are normalised, and how long clips are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.data import DataLoader

from ...errors import DatasetError, ShapeError
from .dataset import ClassificationDataset

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


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
    dataset: ClassificationDataset,
    features: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    *,
    time_axis: int = -1,
    batch_size: int = 16,
) -> Statistics:
    """Mean, deviation and range of what a model sees of a data set, over its valid columns only.

    Args:
        dataset: one of `prepared` is fast.
        features: of waveforms `(batch, samples)` and their lengths `(batch,)`, the values, and their lengths in
            columns; None there says that all columns are valid. `model.features` is one.
        time_axis: which axis of the values has the columns: the last of `(batch, mels, columns)`, 1 of
            `(batch, frames, mels)`.
        batch_size: clips at once.

    Raises:
        DatasetError: no clip can be used.
        ShapeError: more valid columns than there are.
    """
    count, mean, squares, lowest, highest = 0, 0.0, 0.0, math.inf, -math.inf
    lengths: list[Tensor] = []
    with torch.no_grad():
        for batch in DataLoader(dataset, batch_size, collate_fn=dataset.collate):
            if not len(batch.length):
                continue
            values, columns = features(batch.waveform, batch.length)[:2]
            lengths.append(batch.length)
            kept = values.movedim(time_axis, 1)
            kept = (kept if columns is None else kept[_valid(columns, kept)]).double().flatten()
            if not len(kept):
                continue
            # Joined batch by batch, since a sum of squares minus a square of sums loses what is small.
            step, both = kept.mean().item() - mean, count + len(kept)
            squares += (kept - kept.mean()).square().sum().item() + step**2 * count * len(kept) / both
            mean, count = mean + step * len(kept) / both, both
            lowest, highest = min(lowest, kept.min().item()), max(highest, kept.max().item())
    if not count:
        raise DatasetError("items", "none can be used", advice=dataset.report())
    std = math.sqrt(squares / (count - 1)) if count > 1 else 0.0
    seconds = torch.cat(lengths).double() / dataset.sample_rate
    spread = torch.quantile(seconds, torch.tensor(_QUANTILES, dtype=torch.float64)).tolist()
    return Statistics(mean, std, lowest, highest, dict(zip(_QUANTILES, spread, strict=True)), len(seconds))


def _valid(lengths: Tensor, values: Tensor) -> Bool[Tensor, "batch columns"]:
    """Which columns of `(batch, columns, ...)` are sound."""
    if int(lengths.max()) > values.shape[1]:
        expected = "lengths in columns, along `time_axis`"
        raise ShapeError("features", f"{values.shape[1]} columns, and lengths up to {int(lengths.max())}", expected)
    return torch.arange(values.shape[1], device=values.device) < lengths.to(values.device)[:, None]
