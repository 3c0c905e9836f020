"""What CAV-MAE sees of a video."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import ParameterError, check_choice

# ImageNet's colour statistics, RGB, of pixels in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def cav_mae_frame_indices(
    frame_count: int, frame_rate: float, *, total_frames: int = 10, max_seconds: float = 10.0
) -> list[int]:
    """Which pictures of a video the published CAV-MAE extraction takes (`src/preprocess/extract_video_frame.py`).

    It divides the first `max_seconds` of a clip, or all of a shorter one, into `total_frames` equal parts and takes
    the picture *before* the first of each part: OpenCV is told to go to index `k - 1` and reads from there. So the
    first part gives picture 0, and the last part is only seen at its beginning.

    Args:
        frame_count: pictures in the clip.
        frame_rate: in Hz.
        total_frames: how many to take; 10 as published.
        max_seconds: what lies beyond is never looked at; 10 as published.

    Returns:
        `total_frames` indices from 0 up; with fewer pictures than that, some come twice.

    Raises:
        ParameterError: no pictures, or a number that is not positive.
    """
    if frame_count < 1 or not frame_rate > 0 or total_frames < 1 or not max_seconds > 0:
        found = f"{frame_count} frames at {frame_rate} Hz, {total_frames} wanted from {max_seconds} s"
        raise ParameterError("frames", found, "positive numbers")
    usable = max(1, min(frame_count, int(frame_rate * max_seconds)))
    return [max(0, int(i * (usable / total_frames)) - 1) for i in range(total_frames)]


def cav_mae_image(
    frames: UInt8[Tensor, "frames 3 height width"], size: int = 224, *, normalize: bool = True
) -> Float[Tensor, "frames 3 size size"]:
    """The published input of CAV-MAE's visual branch: shorter side to `size`, centre cropped, normalised.

    Resizing is Pillow's (bilinear, with anti-aliasing), as published. The published pipeline then stores each picture
    as JPEG and reads it back; that loss is not imitated here.

    Args:
        frames: `(frames, 3, height, width)`, uint8 RGB, on any device; resized on the CPU.
        size: height and width of the result.
        normalize: by ImageNet's mean and deviation; False leaves pixels in [0, 1].

    Returns:
        `(frames, 3, size, size)`, float32, on the device of `frames`.
    """
    pictures = crop_pictures(frames, size)
    return normalize_pictures(pictures) if normalize else pictures.float() / 255


def crop_pictures(
    frames: UInt8[Tensor, "frames 3 height width"], size: int = 224, *, interpolation: str = "bilinear"
) -> UInt8[Tensor, "frames 3 size size"]:
    """Pictures with their shorter side resized to `size` by Pillow, with anti-aliasing, and their centre cropped.

    Args:
        frames: `(frames, 3, height, width)`, uint8 RGB, on any device; resized on the CPU.
        size: height and width of the result.
        interpolation: "bilinear" as the published extraction resizes, or "bicubic" as its loader does afterwards,
            which changes nothing where the extracted pictures are of that size already.

    Returns:
        `(frames, 3, size, size)`, uint8, on the device of `frames`.

    Raises:
        ParameterError: another interpolation.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as T

    check_choice("interpolation", interpolation, ("bilinear", "bicubic"))
    mode = InterpolationMode(interpolation)
    pictures = [T.resize(T.to_pil_image(frame.cpu()), size, mode) for frame in frames]
    return torch.stack([T.pil_to_tensor(T.center_crop(picture, size)) for picture in pictures]).to(frames.device)


def normalize_pictures(pictures: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
    """Pixels in [0, 1] minus ImageNet's mean, over its deviation, colour by colour; float32."""
    mean, std = _colour_statistics(pictures)
    return (pictures.float() / 255 - mean) / std


def denormalize_pictures(images: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
    """Back to pixels in [0, 1], to be looked at; what a model predicts beyond black and white is cut off there."""
    mean, std = _colour_statistics(images)
    return (images * std + mean).clamp(0, 1)


def _colour_statistics(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(pictures.new_tensor(c, dtype=torch.float32)[:, None, None] for c in (IMAGE_MEAN, IMAGE_STD))
