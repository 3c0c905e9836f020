"""Harmonic source: a sum of sines that are multiples of a moving pitch.

    pitch, amplitudes of frames -> phase of the fundamental at each sample (`turns`) -> sum of sines (`harmonics`)

Amplitudes are linear between the centres of frames, and so is the frequency; its integral is exact. It is the source of
Engel et al., "DDSP", ICLR 2020, eq. 3 to 5, with the sum by Horner's scheme instead of one sine for each harmonic.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import ParameterError, check_whole
from .lengths import all_hold

FADED = 0.95  # of half the sample rate: harmonics fade out from here
_PIECE = 1 << 14  # samples that are summed at a time: they stay in the processor's cache

Track = Float[Tensor, "batch frames"]


def turns(
    hertz: Track, sample_rate: int, hop_length: int, phase: float | int | Float[Tensor, " batch"] = 0.0
) -> Float[Tensor, "batch samples"]:
    """Phase of the fundamental at each sample, in turns; float64, not reduced to [0, 1).

    A song made in pieces continues where `phase`, the turns at sample 0, is that of `phases`. Half a frame at both ends
    of a piece has the pitch of its outermost frame, so that pieces share a frame or more.

    Args:
        hertz: pitch at `(k + 0.5) * hop_length` samples, linear between and constant beyond these; continuous through
            unvoiced frames, since a zero makes the pitch glide there. Neither NaN nor negative.
    """
    return _cropped(_angles(hertz, sample_rate, hop_length, phase), hertz.shape[1], hop_length)


def phases(hertz: Track, sample_rate: int, hop_length: int) -> Track:
    """Turns of the fundamental at the start of each frame, for the `phase` of a piece that begins there."""
    half = hertz.double() * (hop_length / 2 / sample_rate)  # turns in half a frame
    return (half[:, :1] + F.pad(half[:, 1:] + half[:, :-1], (1, 0)).cumsum(1) - half) % 1


def harmonics(
    hertz: Track, amplitudes: Float[Tensor, "batch frames harmonics"] | Complex[Tensor, "batch frames harmonics"],
    sample_rate: int, hop_length: int, phase: float | int | Float[Tensor, " batch"] = 0.0,
) -> Float[Tensor, "batch samples"]:  # fmt: skip
    """Sum of harmonics `amplitude_k * sin(2 pi k turns)`, differentiable.

    Amplitudes are of harmonics 1, 2, ... at the times of `hertz`; for the other arguments see `turns`. The angle of a
    complex one is added to that of its sine: the response of a filter at the frequencies of the harmonics makes it
    filter them. Harmonics fade out below half the sample rate, and are silent above. Memory does not grow with their
    number, apart from that of the amplitudes, also for gradients. The result is of the dtype of `hertz`.
    """
    if amplitudes.shape[:2] != hertz.shape or hertz.ndim != 2:
        found = f"shapes {tuple(hertz.shape)} and {tuple(amplitudes.shape)}"
        raise ParameterError("hertz, amplitudes", found, "(batch, frames) and (batch, frames, harmonics)")
    angles = _angles(hertz, sample_rate, hop_length, phase)
    numbers = torch.arange(1, amplitudes.shape[2] + 1, device=hertz.device)
    fade = ((1 - hertz[..., None] * numbers * (2 / sample_rate)) / (1 - FADED)).clamp(0, 1)
    left, right = _ends(amplitudes * fade)
    audible = torch.maximum(*_ends((fade > 0).sum(2))).amax(0).tolist()  # harmonics in each span
    needs_gradient = torch.is_grad_enabled() and (angles.requires_grad or left.requires_grad)
    step = max(1, _PIECE // (len(hertz) * hop_length))
    pieces = []
    for at in range(0, len(audible), step):
        cut = slice(at, at + step)
        given = angles[:, cut], left[:, cut], right[:, cut], max(audible[cut])
        pieces.append(checkpoint(_summed, *given, use_reentrant=False) if needs_gradient else _summed(*given))
    return _cropped(torch.cat(pieces, 1), hertz.shape[1], hop_length).to(hertz.dtype)


# A span is the samples between the centres of two frames: half a span before the first frame, and after the last one.


def _angles(hertz: Tensor, sample_rate: int, hop_length: int, phase: float | Tensor) -> Tensor:
    """Turns at the samples of each span, (batch, frames + 1, hop)."""
    check_whole("sample_rate", sample_rate, 1)
    check_whole("hop_length", hop_length, 1)
    if hertz.ndim != 2 or not hertz.shape[1]:
        raise ParameterError("hertz", f"shape {tuple(hertz.shape)}", "(batch, frames), at least one frame")
    if not all_hold(hertz.isfinite() & (hertz >= 0)):
        raise ParameterError("hertz", "NaN, infinite or negative values", "a pitch in Hz", "Interpolate missing ones.")
    left, right = (end[..., None] * (hop_length / sample_rate) for end in _ends(hertz.double()))
    share = _share(hertz, hop_length)
    within = left * share + (right - left) * share**2 / 2
    before = ((left + right) / 2).cumsum(1) - (left + right) / 2 - left[:, :1] / 2  # sample 0 is half a span in
    return before + within + torch.as_tensor(phase, dtype=torch.float64, device=hertz.device).reshape(-1, 1, 1)


def _summed(angles: Tensor, left: Tensor, right: Tensor, count: int) -> Tensor:
    turning = torch.polar(torch.ones_like(angles), 2 * torch.pi * (angles % 1))
    left, change = left.to(turning.dtype)[..., None], (right - left).to(turning.dtype)[..., None]
    share = _share(angles, angles.shape[2]).to(turning.dtype)
    total = torch.zeros_like(turning)
    for k in reversed(range(count)):  # Horner's scheme for the sum of amplitude_k exp(i k angle)
        total = torch.addcmul(torch.addcmul(left[:, :, k], change[:, :, k], share), total, turning)
    return (total * turning).imag


def _ends(track: Tensor) -> tuple[Tensor, Tensor]:
    """Values at both ends of each span, (batch, frames + 1, ...)."""
    track = torch.cat([track[:, :1], track, track[:, -1:]], 1)
    return track[:, :-1], track[:, 1:]


def _share(like: Tensor, hop_length: int) -> Tensor:
    """Position of the samples of a span, from 0 to 1; centres of odd frames lie between samples."""
    return (torch.arange(hop_length, device=like.device, dtype=torch.float64) + hop_length % 2 / 2) / hop_length


def _cropped(spans: Tensor, frames: int, hop_length: int) -> Tensor:
    return spans.flatten(1)[:, hop_length // 2 :][:, : frames * hop_length]
