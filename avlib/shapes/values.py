"""What the values of a tensor are like: statistics, and pictures small enough to look at."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import internals
from .rows import Picture, Statistics

SIDE = 64  # the most rows and columns of a picture


class Looked(NamedTuple):
    """What was found in a tensor."""

    statistics: Statistics | None
    picture: Picture | None


class Look:
    """Finds out what is wanted of each tensor."""

    def __init__(self, stats: bool = False, pictures: bool = False):
        self.stats, self.pictures = stats, pictures

    def __call__(self, tensor: Tensor) -> Looked | None:
        if tensor.layout is not torch.strided or internals.is_fake(tensor) or tensor.numel() == 0:
            return None
        try:
            values = tensor.detach()
            return Looked(statistics(values) if self.stats else None, picture(values) if self.pictures else None)
        except (RuntimeError, NotImplementedError):  # of a tensor without values of its own, as under vmap
            return None


@torch.no_grad()
def statistics(values: Tensor) -> Statistics:
    """Range, mean, deviation, and what is not finite.

    Args:
        values: of any shape and dtype; of complex ones the magnitudes count.
    """
    values = values.abs() if values.is_complex() else values
    numbers = values.reshape(-1).to(torch.float64)
    finite = numbers.isfinite()
    if bool(finite.all()):
        return Statistics(*_of(numbers))
    first = int((~finite).to(torch.uint8).argmax())
    nan = int(numbers.isnan().sum())
    bad = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), values.shape))
    return Statistics(*_of(numbers[finite]), nan, int((~finite).sum()) - nan, bad)


def _of(numbers: Tensor) -> tuple[float | None, ...]:
    if not numbers.numel():
        return None, None, None, None
    low, high = numbers.aminmax()
    std, mean = torch.std_mean(numbers, correction=0)
    return float(low), float(high), float(mean), float(std)


@torch.no_grad()
def picture(values: Tensor) -> Picture | None:
    """A picture of a tensor, by its axes; None of numbers that have none.

    `(..., time)` with one axis, or two of which the first is short, is a curve; `(B, heads, N, N)` is attention, of the
    first head; `(B, C, H, W)` is feature maps, of the first four channels; other tensors are the matrix of their last
    two axes, with the longer from left to right: time, as a rule.
    """
    if values.dtype is torch.bool or values.is_complex():
        values = values.abs() if values.is_complex() else values.to(torch.float32)
    if values.dim() == 0 or values.numel() < 2:
        return None
    values = values.to(torch.float32)
    shape = values.shape
    if values.dim() == 1 or (values.dim() == 2 and shape[0] <= 4 < shape[1]):
        return _picture("curve", values.reshape(-1, shape[-1])[:1])
    if values.dim() == 4:
        first = values[0]
        square = shape[-1] == shape[-2] and bool((values[0, 0].sum(dim=-1) - 1).abs().max() < 1e-3)
        if square and bool(values.min() >= 0):
            return _picture("attention", first[0])
        maps = first[: min(4, len(first))]
        height, width = _pooled_size(maps.shape[-2], SIDE), _pooled_size(maps.shape[-1], SIDE // len(maps))
        return _picture("feature maps", torch.cat([_pooled(each, height, width) for each in maps], dim=1))
    plane = values.reshape(-1, *shape[-2:])[0]
    if values.dim() == 3:
        plane = plane if plane.shape[1] >= plane.shape[0] else plane.T
        return _picture("spectrogram", plane.flip(0))
    return _picture("matrix", plane)


def _pooled_size(size: int, most: int) -> int:
    return max(1, min(size, most))


def _pooled(plane: Tensor, height: int, width: int) -> Tensor:
    """Smaller by means; what is not finite spreads to its neighbours, as it should be seen."""
    return torch.nn.functional.adaptive_avg_pool2d(plane[None], (height, width))[0]


def _picture(kind: str, plane: Tensor) -> Picture:
    plane = _pooled(plane, _pooled_size(plane.shape[0], SIDE), _pooled_size(plane.shape[1], SIDE))
    finite = plane[plane.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (math.nan, math.nan)
    scale = 255 / (high - low) if high > low else 0.0
    levels = ((plane - low) * scale).nan_to_num(0.0, 255.0, 0.0).clamp(0, 255).round().to(torch.uint8)
    return Picture(kind, tuple(bytes(row) for row in levels.tolist()), low, high)
