"""CAV-MAE's visual input: choice of frames, resizing, normalisation."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import ParameterError, check_choice

Frames = UInt8[Tensor, "frames 3 height width"]  # RGB
Cropped = UInt8[Tensor, "frames 3 size size"]

# ImageNet's colour statistics, RGB, of pixels in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def cav_mae_frame_indices(
    frame_count: int, frame_rate: float, *, total_frames: int = 10, max_seconds: float = 10.0
) -> list[int]:
    """Indices of the frames that CAV-MAE's extraction takes (`src/preprocess/extract_video_frame.py`).

    It divides the first `max_seconds` of a clip, or all of a shorter one, into `total_frames` equal parts and takes
    the frame *before* the first of each part, since OpenCV is sent to index `k - 1` and reads from there. Of a clip
    with fewer frames, some come twice.
    """
    if frame_count < 1 or not frame_rate > 0 or total_frames < 1 or not max_seconds > 0:
        found = f"{frame_count} frames at {frame_rate} Hz, {total_frames} wanted from {max_seconds} s"
        raise ParameterError("frames", found, "positive numbers")
    usable = max(1, min(frame_count, int(frame_rate * max_seconds)))
    return [max(0, int(i * (usable / total_frames)) - 1) for i in range(total_frames)]


def cav_mae_image(frames: Frames, size: int = 224, *, normalize: bool = True) -> Float[Tensor, "frames 3 size size"]:
    """The published input of CAV-MAE's visual branch: resized, centre cropped, normalised.

    The published pipeline stores each picture as JPEG in between; that loss is not imitated here. Without `normalize`
    pixels are in [0, 1].
    """
    pictures = crop_pictures(frames, size)
    return normalize_pictures(pictures) if normalize else pictures.float() / 255


def crop_pictures(frames: Frames, size: int = 224, *, interpolation: str = "bilinear") -> Cropped:
    """Resize the shorter side to `size` by Pillow, with anti-aliasing, and crop the centre.

    `interpolation` is "bilinear" as the published extraction, or "bicubic" as its loader, which changes nothing on
    pictures that have that size already.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as T

    check_choice("interpolation", interpolation, ("bilinear", "bicubic"))
    mode = InterpolationMode(interpolation)
    pictures = [T.resize(T.to_pil_image(frame.cpu()), size, mode) for frame in frames]
    return torch.stack([T.pil_to_tensor(T.center_crop(picture, size)) for picture in pictures]).to(frames.device)


def normalize_pictures(pictures: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
    """Normalise uint8 pixels, scaled to [0, 1], by ImageNet's mean and deviation; float32."""
    if pictures.dtype != torch.uint8:
        raise ParameterError("pictures", f"{pictures.dtype}", "torch.uint8, 0 to 255", "Scale and round others first.")
    mean, std = _colour_statistics(pictures)
    return (pictures.float() / 255 - mean) / std


def denormalize_pictures(images: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
    """Undo `normalize_pictures` for display, clipped to [0, 1]."""
    mean, std = _colour_statistics(images)
    return (images * std + mean).clamp(0, 1)


def _colour_statistics(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(pictures.new_tensor(c, dtype=torch.float32)[:, None, None] for c in (IMAGE_MEAN, IMAGE_STD))
