"""The log-mel spectrogram of diff-svc, its clocks and ranges.

One mono signal has four clocks: samples at 44.1 kHz, mel and pitch frames every 512 samples, units every 20 ms. A frame
`k` is centred at `(k + 0.5) * 512 / 44100` s and unit `j` at `(j + 0.5) * 0.02` s; `mel2ph` says which unit a frame
takes.

Source: prophesier/diff-svc (`preprocessing`, `network/vocoders/nsf_hifigan.py`, `modules/fastspeech/tts_modules.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ParameterError, ShapeError, check_whole
from .spectrograms import _exact, exact_product, mirrored_magnitude

SVC_SAMPLE_RATE = 44100  # Hz
SVC_HOP = 512
SVC_N_FFT = 2048
SVC_MELS = 128
SVC_HERTZ = (40.0, 16000.0)  # of the filters
UNIT_SAMPLE_RATE, UNIT_HOP = 16000, 320  # of content encoders: 50 units a second
LOG10_OF_E, LN_OF_10 = 0.434294, 2.30259  # as published: their product is 1.000002
SVC_POWER_FLOOR = 1e-5
SVC_FLOOR = math.log(SVC_POWER_FLOOR) * LOG10_OF_E  # -4.99999475, digital silence
VOCODER_RANGE = (-6.0, 1.5)  # log10 mel that the vocoder takes

Edge = Float[Tensor, " mels"]  # lowest or highest value of each bin


def svc_log_mel(waveform: Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch frames mels"]:
    """The published log10 mel spectrogram of diff-svc, 128 bins at 44.1 kHz.

    768 samples are mirrored at both ends; Hann windows of 2,048 every 512 samples; magnitudes (not powers) through
    librosa's mel filters, 40 Hz to 16 kHz, Slaney's scale and norm; the natural logarithm, floored at 1e-5, times
    0.434294. In the precision of the waveform: float32, as published, is off by up to 0.01 in bins 100 dB below others.

    Mono in [-1, 1] at 44.1 kHz gives `(..., samples // 512, 128)`: time, mel; from -5 (silence) to about 2.

    Raises:
        ParameterError: integers, NaN, or samples far outside [-1, 1].
        TooShortError: 768 samples or less, which cannot be mirrored.
    """
    magnitude = mirrored_magnitude(_exact(waveform), SVC_N_FFT, SVC_HOP)  # (..., 1025, frames)
    mel = exact_product(torch.from_numpy(_filters()).to(magnitude), magnitude).mT  # (..., frames, 128)
    return (mel.clamp(min=SVC_POWER_FLOOR).log() * LOG10_OF_E).to(waveform.dtype)


@cache
def _filters() -> np.ndarray:
    from librosa.filters import mel

    low, high = SVC_HERTZ
    return mel(sr=SVC_SAMPLE_RATE, n_fft=SVC_N_FFT, n_mels=SVC_MELS, fmin=low, fmax=high, dtype=np.float64)


def log10_to_ln(mel: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert log10 mel to the vocoder's ln mel as published: clip to -6 to 1.5, times 2.30259."""
    return mel.clamp(*VOCODER_RANGE) * LN_OF_10


def svc_frames(samples: int) -> int:
    """The number of mel and pitch frames of sound at 44.1 kHz, `samples // 512`."""
    check_whole("samples", samples, 0)
    return samples // SVC_HOP


def svc_units(samples: int, sample_rate: int = SVC_SAMPLE_RATE) -> int:
    """The number of content units of a sound, 50 a second: one for 320 of `ceil(samples * 16000 / sample_rate)`."""
    check_whole("samples", samples, 0)
    check_whole("sample_rate", sample_rate, 1)
    return -(-samples * UNIT_SAMPLE_RATE // sample_rate) // UNIT_HOP


def mel2ph(frames: int, units: int) -> Int[Tensor, " frames"]:
    """The published alignment (`get_align`): the unit that each mel frame takes, from 1.

    Unit i ends with frame `int((i - 1) * d + d + 0.5)`, inclusive, where d = frames / units in float64; the order of
    the operations matters. So a unit lies about 9 ms before its frame's centre, and the first one owns one frame more.
    `(T,)`, 1 to U; 0 is kept for padding.
    """
    check_whole("frames", frames, 1)
    check_whole("units", units, 1)
    step = frames / units
    ends = (torch.arange(units, dtype=torch.float64) * step + step + 0.5).long()  # of units 1 to U
    return torch.searchsorted(ends, torch.arange(frames)) + 1


def mel2ph_nearest(frames: int, units: int) -> Int[Tensor, " frames"]:
    """The alternative to `mel2ph`: the unit whose 20 ms hold the frame's centre, from 1.

    Their centres differ by at most 10 ms, 0 on average. A frame after the last unit takes that one.
    """
    check_whole("frames", frames, 1)
    check_whole("units", units, 1)
    # (k + 0.5) * 512 / 44100 s over 320 / 16000 s, in whole numbers
    centres = (2 * torch.arange(frames) + 1) * (SVC_HOP * UNIT_SAMPLE_RATE)
    return (centres // (2 * SVC_SAMPLE_RATE * UNIT_HOP)).clamp(max=units - 1) + 1


def spectrogram_range(mels: Iterable[Float[Tensor, "_ mels"]]) -> tuple[Edge, Edge]:
    """Lowest and highest value of each bin over mel spectrograms of any lengths, without padding.

    The published `spec_min` and `spec_max`, of the training items alone.
    """
    ends = [(mel.amin(dim=0), mel.amax(dim=0)) for mel in mels]
    if not ends:
        raise ParameterError("mels", "none", "at least one mel spectrogram", "Give those that the model trains on.")
    low, high = map(torch.stack, zip(*ends, strict=True))
    return low.amin(dim=0), high.amax(dim=0)


class RangeComparison(NamedTuple):
    """Two spectrogram ranges beside each other: `b` minus `a` in dB."""

    minima: Edge
    maxima: Edge
    gain: float  # median of the maxima
    alike: int  # bins whose maxima differ by it, within 0.01 dB
    sentence: str


def compare_ranges(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> RangeComparison:
    """Compare two ranges of log10 mel, as `spectrogram_range` or a checkpoint gives them.

    A gain of g dB moves every maximum by g / 20, so equal differences mean the same recording at another loudness.
    """
    a, b = ([end.detach().double().flatten().cpu() for end in ends] for ends in (a, b))
    if len(sizes := {len(end) for end in (*a, *b)}) > 1:
        raise ShapeError("range", f"{sorted(sizes)} mel bins", "as many in all four")
    minima, maxima = (20 * (after - before) for before, after in zip(a, b, strict=True))
    gain = float(maxima.median())
    alike = int(((maxima - gain).abs() <= 0.01).sum())
    if max(float(minima.abs().max()), float(maxima.abs().max())) <= 1e-4:
        sentence = "The two ranges are equal."
    elif alike >= 0.9 * len(maxima):
        factor = f"{gain:+.3f} dB (a factor of {10 ** (gain / 20):.4f})"
        sentence = f"{alike} of {len(maxima)} maxima differ by {factor}: the same sound at another loudness."
    else:
        ends = f"{float(maxima.min()):+.1f} to {float(maxima.max()):+.1f} dB, {gain:+.1f} in the middle"
        sentence = f"The maxima differ by {ends}: other sound. A model only works with the range of its training."
    return RangeComparison(minima, maxima, gain, alike, sentence)
