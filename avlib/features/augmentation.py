"""Augmentation of waveforms, fbanks and labels in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError, check_number
from .lengths import check_sound

Waveform = Float[Tensor, " samples"]
Fbank = Float[Tensor, "frames mels"]


def mix(first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"], share: float) -> Float[Tensor, "*shape"]:
    """Mixup: `share` of the first and the rest of the second.

    CAV-MAE draws `share` from Beta(10, 10). Its code adds up the labels of the two clips instead of mixing them, so
    that a label that both clips have ends at 1 - s + s / N (s: the smoothing of `soft_labels`), where an unmixed clip
    has 1 - s. Mixed, it stays at 1 - s.
    """
    return share * first + (1 - share) * second


def mix_waveforms(first: Waveform, second: Float[Tensor, " others"], share: float) -> Waveform:
    """Mixup of two sounds, each minus its mean; the second is padded or cut.

    As in the published `_wav2fbank`, where the mix then loses its mean once more, as in `cav_mae_fbank`.
    """
    check_sound(first)
    check_sound(second)
    first, second = first - first.mean(), second - second.mean()
    second = F.pad(second, (0, max(0, len(first) - len(second))))[: len(first)]
    return mix(first, second, share)


def mask_bands(
    fbank: Float[Tensor, "*batch frames mels"], freq_width: int = 0, time_width: int = 0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch frames mels"]:  # fmt: skip
    """SpecAugment as in torchaudio: zero a band of bins and of frames, 48 and 192 in the published fine-tuning.

    The width of each is uniform from 0 to below the given one, its start uniform where it fits, the same for the whole
    batch; of width 0 nothing is masked or drawn. CAV-MAE masks before it normalises, so the bands end up at the level
    of the padding, +1.13. The generator is on the CPU.
    """
    for axis, width in ((-1, freq_width), (-2, time_width)):
        size = fbank.shape[axis]
        check_number("freq_width" if axis == -1 else "time_width", width, 0, size)
        if width:
            drawn = torch.rand(2, generator=generator).double()
            band = random_band(drawn, width, torch.tensor(size), size).to(fbank.device)
            fbank = fbank.masked_fill(band if axis == -1 else band[:, None], 0.0)
    return fbank


def random_band(
    drawn: Float[Tensor, "*batch 2"], width: int, valid: Int[Tensor, "*batch"], size: int
) -> Bool[Tensor, "*batch size"]:
    """One band of SpecAugment as torchaudio places it, True = hidden.

    `drawn` is uniform in [0, 1), for the band's width, which is below `width` and `valid`, and for its start; the first
    `valid` positions may be hidden.
    """
    hidden = drawn[..., 0] * valid.clamp(max=width)
    start = (drawn[..., 1] * (valid - hidden)).long()[..., None]
    place = torch.arange(size, device=drawn.device)
    return (place >= start) & (place < start + hidden.long()[..., None])


def add_noise(fbank: Fbank, generator: torch.Generator | None = None) -> Fbank:
    """Add CAV-MAE's noise: uniform per bin, times a uniform number over 10."""
    noise = torch.rand(fbank.shape, generator=generator) * torch.rand(1, generator=generator) / 10
    return fbank + noise.to(fbank)


def roll_time(fbank: Fbank, generator: torch.Generator | None = None) -> Fbank:
    """Roll the fbank by a number of frames that is uniform in [-frames, frames)."""
    frames = len(fbank)
    return fbank.roll(int(torch.randint(-frames, frames, (1,), generator=generator)), 0)


def soft_labels(positives: Sequence[int], num_classes: int, smoothing: float = 0.0) -> Float[Tensor, " classes"]:
    """Smooth one clip's labels as published: s / N, but 1 - s at positives."""
    if not 0 <= smoothing < 1:
        raise ParameterError("smoothing", f"{smoothing}", "0 or more, and less than 1; 0.1 is published")
    if not all(0 <= index < num_classes for index in positives):
        raise ParameterError("positives", f"{list(positives)}", f"0 to {num_classes - 1}")
    labels = torch.full((num_classes,), smoothing / max(1, num_classes))
    labels[list(positives)] = 1 - smoothing
    return labels
