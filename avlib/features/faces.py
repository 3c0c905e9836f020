"""Faces in the frames of a video: boxes, crops for a network, and crops pasted back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError, check_choice

FACE_SIDE = 96  # of a crop, in pixels
MISSING = ("keep", "fill")

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Place = tuple[int, int, int, int]  # a box in whole pixels, of which at least one is in the picture
Picture = UInt8[Tensor, "height width 3"]  # RGB
Crop = UInt8[Tensor, "3 side side"]  # 96 x 96; blue, green, red


def check_boxes(boxes: Any, count: int | None = None, subject: object = "boxes") -> list[Box | None]:
    """Return boxes as numbers, x1, y1, x2, y2 in pixels, None for a frame without a face; refuse all else."""
    if isinstance(boxes, str | bytes | Mapping) or not hasattr(boxes, "__len__"):
        raise ParameterError(subject, f"{boxes!r}"[:80], "a list with [x1, y1, x2, y2] or None for each frame")
    if count is not None and len(boxes) != count:
        advice = "Give None (null in JSON) for a frame without a face."
        raise ParameterError(subject, f"{len(boxes)} boxes", f"{count}, one for each frame", advice)
    return [None if box is None else _edges(box, f"{subject}[{index}]") for index, box in enumerate(boxes)]


def _edges(box: Any, subject: str) -> Box:
    try:
        edges = np.asarray(box)
    except (TypeError, ValueError):  # of other lengths, or on another device
        edges = np.empty(0)
    if edges.shape != (4,) or edges.dtype.kind not in "iuf" or not np.isfinite(edges).all():
        raise ParameterError(subject, f"{box!r}"[:80], "four finite numbers x1, y1, x2, y2, or None")
    return tuple(map(float, edges))


def face_places(boxes: Sequence, height: int, width: int, missing: str = "keep") -> list[Place | None]:
    """Return the pixels of each box that lie in the picture; None if there are none.

    With `missing` "fill" a frame without a face takes the place of the one before, and at the beginning that of the
    first face; there must be one.
    """
    check_choice("missing", missing, MISSING)
    places = [box and _inside(box, height, width) for box in boxes]
    latest = next((place for place in places if place), None)
    if missing == "keep":
        return places
    if latest is None:
        found = f"no face in {len(places)} pictures of {width} x {height}"
        raise ParameterError("boxes", found, 'at least one for missing="fill"', 'Give a box, or missing="keep".')
    return [latest := place or latest for place in places]


def _inside(box: Box, height: int, width: int) -> Place | None:
    left, top, right, bottom = (max(0, int(edge)) for edge in box)  # cut towards zero, as published
    right, bottom = min(right, width), min(bottom, height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def ping_pong(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` frames from `count`: forwards, backwards, and so on; an end is not shown twice in a row."""
    turn = max(1, 2 * (count - 1))
    return [min(index % turn, turn - index % turn) for index in range(wanted)]


def crop_face(picture: Picture, place: Place) -> Crop:
    """Return a face as OpenCV's bilinear `resize` gives it, to one grey level."""
    left, top, right, bottom = place
    return _resized(picture[top:bottom, left:right].permute(2, 0, 1).flip(0), (FACE_SIDE, FACE_SIDE)).to(torch.uint8)


def paste_face(picture: Picture, face: Crop, place: Place, feather: float | int = 0.0) -> Picture:
    """Return a copy of a picture with a face at its place.

    `feather` is the share of the face's height and width over which it fades in from each edge; 0 gives a hard edge.
    """
    left, top, right, bottom = place
    size = bottom - top, right - left
    pasted = _resized(face.to(picture.device), size).flip(0).permute(1, 2, 0)
    if feather:
        ramps = [(torch.arange(n) + 0.5) / (feather * n) for n in size]
        down, across = (torch.minimum(ramp, ramp.flip(0)).clamp(max=1).to(picture.device) for ramp in ramps)
        weight = (down[:, None] * across)[..., None]
        pasted = (weight * pasted + (1 - weight) * picture[top:bottom, left:right]).round()
    picture = picture.clone()
    picture[top:bottom, left:right] = pasted.to(torch.uint8)
    return picture


def _resized(face: UInt8[Tensor, "3 high wide"], size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    return F.interpolate(face[None].float(), size, mode="bilinear", align_corners=False)[0].round()
