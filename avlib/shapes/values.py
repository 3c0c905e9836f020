"""Statistics of a tensor's values, and small pictures of them."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from .fake import is_fake
from .rows import Picture, Statistics

SIDE = 64  # the most rows and columns of a picture
LEVELS = 16  # colours of a PNG: four bits each

# Eight colours from dark to light, and seven from blue over grey to red: the colour maps that palette names.
_MAGMA = ("000004", "231151", "5f187f", "982d80", "d3436e", "f8765c", "febb81", "fcfdbf")
_SIGNED = ("053061", "2166ac", "67a9cf", "f7f7f7", "ef8a62", "b2182b", "67001f")


class Looked(NamedTuple):
    """Statistics and picture of a tensor."""

    statistics: Statistics | None
    picture: Picture | None


class Look:
    """Computes statistics, pictures or both of tensors that have values."""

    def __init__(self, stats: bool = False, pictures: bool = False):
        self.stats, self.pictures = stats, pictures

    def __call__(self, tensor: Tensor) -> Looked | None:
        if tensor.layout is not torch.strided or is_fake(tensor) or tensor.numel() == 0:
            return None
        try:
            values = tensor.detach()
            return Looked(statistics(values) if self.stats else None, picture(values) if self.pictures else None)
        except (RuntimeError, NotImplementedError):  # a tensor without values of its own, as under vmap
            return None


@torch.no_grad()
def statistics(values: Tensor) -> Statistics:
    """Return range, mean, deviation, and what is not finite.

    Args:
        values: any shape and dtype; of complex values the magnitudes count.
    """
    values = values.abs() if values.is_complex() else values
    numbers = values.reshape(-1).to(torch.float64)
    bad = ~numbers.isfinite()
    nan = int(numbers.isnan().sum())
    first = None
    if bool(bad.any()):
        place = bad.to(torch.uint8).argmax()
        first = tuple(int(i) for i in torch.unravel_index(place, values.shape))
    counts = nan, int(bad.sum()) - nan, first
    numbers = numbers if first is None else numbers[~bad]
    if not numbers.numel():
        return Statistics(None, None, None, None, *counts)
    low, high = numbers.aminmax()
    std, mean = torch.std_mean(numbers, correction=0)
    return Statistics(float(low), float(high), float(mean), float(std), *counts)


@torch.no_grad()
def picture(values: Tensor) -> Picture | None:
    """Return a picture of a tensor by its axes; None for fewer than two values.

    `(..., time)` with one axis, or two of which the first is short, is a curve; `(B, heads, N, N)` is attention, of the
    first head; `(B, C, H, W)` is feature maps, of the first four channels; other tensors are the matrix of their last
    two axes, with the longer one, time as a rule, from left to right.
    """
    values = (values.abs() if values.is_complex() else values).to(torch.float32)
    if values.dim() == 0 or values.numel() < 2:
        return None
    shape = values.shape
    if values.dim() == 1 or (values.dim() == 2 and shape[0] <= 4 < shape[1]):
        return _picture("curve", values.reshape(-1, shape[-1])[:1])
    if values.dim() == 4:
        first = values[0]
        square = shape[-1] == shape[-2] and bool((first[0].sum(dim=-1) - 1).abs().max() < 1e-3)
        if square and bool(values.min() >= 0):
            return _picture("attention", first[0])
        maps = first[:4]
        return _picture("feature maps", torch.cat([_pooled(each, SIDE, SIDE // len(maps)) for each in maps], dim=1))
    plane = values.reshape(-1, *shape[-2:])[0]
    if values.dim() == 3:
        plane = plane if plane.shape[1] >= plane.shape[0] else plane.T
        return _picture("spectrogram", plane.flip(0))
    return _picture("matrix", plane)


def _pooled(plane: Tensor, height: int, width: int) -> Tensor:
    """Average down to at most a size; what is not finite spreads to its neighbours, so that it is seen."""
    size = max(1, min(plane.shape[0], height)), max(1, min(plane.shape[1], width))
    return torch.nn.functional.adaptive_avg_pool2d(plane[None], size)[0]


def _picture(kind: str, plane: Tensor) -> Picture:
    plane = _pooled(plane, SIDE, SIDE)
    finite = plane[plane.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (math.nan, math.nan)
    scale = 255 / (high - low) if high > low else 0.0
    levels = ((plane - low) * scale).nan_to_num(0.0, 255.0, 0.0).clamp(0, 255).round().to(torch.uint8)
    return Picture(kind, tuple(bytes(row) for row in levels.tolist()), low, high)


def png(picture: Picture) -> bytes:
    """Return a PNG of 16 colours, one pixel per value; values on both sides of zero are blue and red."""
    height, width = picture.size
    signed = picture.low < 0 < picture.high and picture.kind in ("matrix", "feature maps")
    if signed:  # zero has the colour in the middle
        reach = max(-picture.low, picture.high)
        values = (picture.low + (picture.high - picture.low) * value / 255 for value in range(256))
        scale = bytes(min(LEVELS - 1, int((value / reach + 1) / 2 * LEVELS)) for value in values)
    else:
        scale = bytes(value * LEVELS >> 8 for value in range(256))
    raw = bytearray()
    for row in picture.values:
        levels = row.translate(scale) + b"\0" * (width % 2)
        raw.append(0)  # no filter
        raw += bytes(left << 4 | right for left, right in zip(levels[::2], levels[1::2], strict=True))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0))
        + _chunk(b"PLTE", _colours(_SIGNED if signed else _MAGMA))
        + _chunk(b"IDAT", zlib.compress(bytes(raw), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def _colours(anchors: Sequence[str]) -> bytes:
    """The palette of a PNG: a colour for each level, interpolated between the anchors."""
    found = bytearray()
    for level in range(LEVELS):
        place = level / (LEVELS - 1) * (len(anchors) - 1)
        left = min(int(place), len(anchors) - 2)
        ends = (bytes.fromhex(anchors[left]), bytes.fromhex(anchors[left + 1]))
        found += bytes(round(a + (b - a) * (place - left)) for a, b in zip(*ends, strict=True))
    return bytes(found)
