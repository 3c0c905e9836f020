"""Log-mel spectrograms around each hop: Whisper's, and those that are as wide as a picture."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ParameterError, TooShortError, check_choice
from .kaldi import SAMPLE_RATE

# Whisper: a window of 25 ms every 10 ms at 16 kHz, mel bins up to 8 kHz. ResNet50: rows and columns of its pictures,
# and an FFT that is long enough for each of so many filters to have a bin; with Whisper's 400, 30 of 224 have none.
WHISPER_SAMPLE_RATE = SAMPLE_RATE
WHISPER_N_FFT = 400
WHISPER_HOP = 160
WHISPER_MELS = 80
RESNET_SIZE = 224
RESNET_N_FFT = 1024

FILTERS = ("whisper", "torchaudio")


def whisper_log_mel(
    waveform: Float[Tensor, "*batch samples"],
    n_mels: int = WHISPER_MELS,
    *,
    hop_length: int = WHISPER_HOP,
    n_fft: int = WHISPER_N_FFT,
) -> Float[Tensor, "*batch mels frames"]:
    """The published input of Whisper, of a clip as long as it is: WhisperFeatureExtractor without padding to 30 s.

    Power spectrum in Hann windows around each hop, the clip mirrored at its ends; mel filters as librosa makes them
    (Slaney's scale and norm); log10; what is more than 8 below the clip's maximum is raised to there; plus 4, over 4.
    The last column is dropped, as published: it is centred on the end of the clip.

    Args:
        waveform: `(..., samples)`, mono, 16 kHz; another sample rate has to be resampled before. Each row by itself;
            one that is padded with zeros gives what the extractor gives for it.
        n_mels: 80, or 128 as in large-v3; any other number for a model of one's own.
        hop_length: samples from one column to the next.
        n_fft: samples of the window, and of the FFT.

    Returns:
        `(..., n_mels, samples // hop_length)`: mel, time; about -1 to 1.5. On the device and in the dtype of the
        waveform.

    Raises:
        TooShortError: not even one column, or not more than half a window, which cannot be mirrored.
        ParameterError: a number below 1.
    """
    filters = _checked_filters("whisper", n_mels, n_fft, hop_length)
    power = _centred_power(waveform, n_fft, hop_length)[..., :-1]
    if not power.shape[-1]:
        raise TooShortError("waveform", f"{waveform.shape[-1]} samples", f"at least a hop, {hop_length}")
    return _compressed(filters.to(power) @ power).to(waveform.dtype)


def resnet_log_mel(
    waveform: Float[Tensor, "*batch samples"],
    n_mels: int = RESNET_SIZE,
    *,
    columns: int = RESNET_SIZE,
    hop_length: int | None = None,
    n_fft: int = RESNET_N_FFT,
) -> Float[Tensor, "*batch mels columns"]:
    """A spectrogram of as many columns as a picture has, whatever the clip's length, with torchaudio's default filters.

    These are triangles on the HTK scale that are not normalised: not what Whisper was trained on. The logarithm is
    Whisper's: log10, no more than 8 below the clip's maximum, plus 4, over 4.

    Args:
        waveform: `(..., samples)`, mono, 16 kHz. Clips of one length: another length is another hop.
        n_mels: rows; 224 for ResNet50.
        columns: likewise.
        hop_length: samples from one column to the next; None takes `resnet_hop_length`, and the first `columns`.
            With a hop of one's own all of `samples // hop_length + 1` are returned.
        n_fft: samples of the window, and of the FFT.

    Returns:
        `(..., n_mels, columns)`: mel, time. On the device and in the dtype of the waveform.

    Raises:
        TooShortError: not more than half a window, or fewer samples than columns.
        ParameterError: a number below 1.
    """
    samples = waveform.shape[-1]
    hop = resnet_hop_length(samples, columns) if hop_length is None else hop_length
    filters = _checked_filters("torchaudio", n_mels, n_fft, hop)
    power = _centred_power(waveform, n_fft, hop)
    if hop_length is None:
        power = power[..., :columns]
    return _compressed(filters.to(power) @ power).to(waveform.dtype)


def resnet_hop_length(samples: int, columns: int = RESNET_SIZE) -> int:
    """The largest hop that gives at least `columns` columns, of which there are `samples // hop + 1`.

    215 for 3 s at 16 kHz.

    Raises:
        TooShortError: even with a hop of one sample there are fewer.
        ParameterError: `columns` below 1.
    """
    if columns < 1:
        raise ParameterError("columns", f"{columns}", "1 or more")
    if samples < columns - 1:
        raise TooShortError("waveform", f"{samples} samples", f"at least {columns - 1}, for {columns} columns")
    return max(1, samples // (columns - 1)) if columns > 1 else max(1, samples)


def spectrogram_filters(kind: str, n_mels: int, n_fft: int) -> Float[Tensor, "mels bins"]:
    """Mel filters from 0 to 8 kHz for sound at 16 kHz: Slaney's scale and norm ("whisper"), or HTK's scale and none
    ("torchaudio"). float64.

    A filter that is narrower than the distance of two FFT bins may have none: see `empty_filters`.

    Raises:
        ParameterError: another kind, or a number below 1.
    """
    return _checked_filters(kind, n_mels, n_fft, 1).clone()


def empty_filters(filters: Float[Tensor, "mels bins"]) -> list[int]:
    """Numbers of the filters that no FFT bin falls into: rows of a spectrogram that are constant, whatever is heard."""
    return (~filters.any(dim=1)).nonzero().flatten().tolist()


def _checked_filters(kind: str, n_mels: int, n_fft: int, hop_length: int) -> Tensor:
    check_choice("kind", kind, FILTERS)
    for name, value in {"n_mels": n_mels, "n_fft": n_fft, "hop_length": hop_length}.items():
        if value < 1:
            raise ParameterError(name, f"{value}", "1 or more")
    return torch.from_numpy(_filters(kind, n_mels, n_fft))


@cache
def _filters(kind: str, n_mels: int, n_fft: int) -> np.ndarray:  # a tensor made in a trace would stay without values
    from transformers.audio_utils import mel_filter_bank  # in float64; torchaudio's differ by its rounding

    scale, norm = ("slaney", "slaney") if kind == "whisper" else ("htk", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty filters, which `empty_filters` tells of
        bank = mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, WHISPER_SAMPLE_RATE / 2, WHISPER_SAMPLE_RATE, norm, scale)
    return np.ascontiguousarray(bank.T)


def _centred_power(waveform: Tensor, n_fft: int, hop: int) -> Float[Tensor, "*batch bins frames"]:
    """Squared magnitudes in Hann windows centred on 0, `hop`, ...: `samples // hop + 1` of them."""
    samples = waveform.shape[-1]
    if samples <= n_fft // 2:
        expected = f"more than half a window, {n_fft // 2}"
        raise TooShortError("waveform", f"{samples} samples", expected, "Give a longer clip, or pad it.")
    exact = waveform if waveform.dtype == torch.float64 else waveform.float()  # half precision has no FFT on a CPU
    if not waveform.numel():  # torch.stft takes no batch of none
        return exact.new_zeros(*waveform.shape[:-1], n_fft // 2 + 1, samples // hop + 1)
    window = torch.hann_window(n_fft, dtype=exact.dtype, device=exact.device)
    spectrum = torch.stft(exact.reshape(-1, samples), n_fft, hop, window=window, return_complex=True)
    return spectrum.abs().square().reshape(*waveform.shape[:-1], *spectrum.shape[-2:])


def _compressed(power: Float[Tensor, "*batch mels frames"]) -> Float[Tensor, "*batch mels frames"]:
    """Whisper's logarithm, over a range of 80 dB below each clip's maximum."""
    log = power.clamp(min=1e-10).log10()
    return (log.maximum(log.amax(dim=(-2, -1), keepdim=True) - 8) + 4) / 4
