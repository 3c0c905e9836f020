"""Kaldi's filterbank energies, step by step, and Whisper's log-mel spectrograms."""

from __future__ import annotations

import math
import warnings
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError, TooShortError, check_choice, check_whole
from .lengths import check_lengths, check_sound, valid_mask, without_padding

SAMPLE_RATE = 16000  # Hz, of the sound that all these models take

# Kaldi takes the log of no less than this, float32's epsilon: digital silence becomes LOG_FLOOR in every bin.
POWER_FLOOR = 2.0**-23
LOG_FLOOR = math.log(POWER_FLOOR)  # -15.94

# CAV-MAE: 1,024 frames of 128 mel bins, normalised by the mean and deviation of AudioSet's fbanks.
CAV_MAE_FRAMES = 1024
CAV_MAE_MELS = 128
CAV_MAE_MEAN = -5.081
CAV_MAE_STD = 4.4849

# BEATs: samples as 16-bit integers would hold them, 128 mel bins at 16 kHz, normalised by twice AudioSet's deviation.
BEATS_SAMPLE_RATE = SAMPLE_RATE
BEATS_SCALE = 2.0**15
BEATS_MELS = 128
BEATS_MEAN = 15.41663
BEATS_STD = 6.55582
BEATS_SHORTEST = 2800  # samples of its first tokens: 16 frames of 25 ms, 10 ms apart

# Whisper: a window of 25 ms every 10 ms at 16 kHz, mel bins up to 8 kHz. ResNet50: rows and columns of its pictures,
# and an FFT that is long enough for each of so many filters to have a bin; with Whisper's 400, 30 of 224 have none.
WHISPER_SAMPLE_RATE = SAMPLE_RATE
WHISPER_N_FFT = 400
WHISPER_HOP = 160
WHISPER_MELS = 80
RESNET_SIZE = 224
RESNET_N_FFT = 1024

# HiFi-GAN on units at 16 kHz: the mel of its loss. Speaker encoder: the mel of its input.
VOCODER_N_FFT = 1024
VOCODER_HOP = 256
VOCODER_MELS = 80
SPEAKER_MELS = 40

Waveform = Float[Tensor, "*batch samples"]
Frames = Float[Tensor, "*batch window"]
Fbank = Float[Tensor, "*batch frames mels"]
LogMel = Float[Tensor, "*batch mels frames"]


def _exact(waveform: Tensor, loudest: float = 10.0) -> Tensor:
    """Check a sound; return it in float32, or float64 if it is that: half precision has no FFT on a CPU."""
    check_sound(waveform, loudest=loudest)
    return waveform.to(torch.promote_types(waveform.dtype, torch.float32))


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b` as without autocast, in which powers on the scale of 16 bits overflow and others lose digits."""
    if a.is_meta:  # which has no autocast
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def frame_geometry(sample_rate: int) -> tuple[int, int, int]:
    """Kaldi's window, hop and FFT length in samples: 400, 160, 512 at 16 kHz."""
    window, hop = sample_rate * 25 // 1000, sample_rate // 100  # 25 ms every 10 ms
    if hop < 1:
        raise ParameterError("sample_rate", f"{sample_rate}", "100 Hz or more")
    return window, hop, 1 << (window - 1).bit_length()


def cut_frames(waveform: Waveform, window: int, hop: int) -> Float[Tensor, "*batch frames window"]:
    """Cut into overlapping frames, `(samples - window) // hop + 1`, without partial ones."""
    samples = waveform.shape[-1]
    if samples < window:
        expected = f"at least {window}, one analysis window"
        raise TooShortError("waveform", f"{samples} samples", expected, "Give a longer clip.")
    return waveform.unfold(-1, window, hop)


def remove_mean(frames: Frames) -> Frames:
    """Subtract each frame's mean, so that no constant offset reaches the spectrum."""
    return frames - frames.mean(dim=-1, keepdim=True)


def preemphasize(frames: Frames) -> Frames:
    """Subtract 0.97 times the sample before, which raises high frequencies.

    The first sample of a frame stands in for the one before it, as in Kaldi.
    """
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    return frames - 0.97 * before


def window_function(
    name: str, length: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Float[Tensor, " length"]:
    """A symmetric window: "hanning" (CAV-MAE), "povey" (BEATs) or "hamming"."""
    check_choice("window", name, ("hanning", "povey", "hamming"))
    if name == "hamming":
        return torch.hamming_window(length, periodic=False, dtype=dtype, device=device)
    window = torch.hann_window(length, periodic=False, dtype=dtype, device=device)
    return window if name == "hanning" else window.pow(0.85)


def power_spectrum(frames: Frames, n_fft: int) -> Float[Tensor, "*batch bins"]:
    """Squared magnitude of each frame's FFT, `n_fft // 2 + 1` bins."""
    return torch.fft.rfft(frames, n_fft).abs().square()


def mel_filters(
    n_mels: int, n_fft: int, sample_rate: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Float[Tensor, "mels bins"]:
    """Kaldi's mel filters from 20 Hz to half the sample rate.

    Triangles of equal width in mel, 1127 ln(1 + f / 700), that overlap by half, peak at 1 and are not normalised by
    area. The last FFT bin has weight 0 in each.
    """
    from torchaudio.compliance.kaldi import get_mel_banks

    filters, _ = get_mel_banks(n_mels, n_fft, float(sample_rate), 20.0, 0.0, 100.0, -500.0, 1.0)
    return F.pad(filters, (0, 1)).to(device, dtype)


def floored_log(power: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Natural logarithm of `power`, floored at `POWER_FLOOR`."""
    return power.clamp(min=POWER_FLOOR).log()


def kaldi_fbank(
    waveform: Waveform, sample_rate: int = SAMPLE_RATE, n_mels: int = CAV_MAE_MELS, window: str = "hanning"
) -> Fbank:
    """Log-mel filterbank energies of `torchaudio.compliance.kaldi.fbank`, without dither, batched.

    `(..., (samples - window) // hop + 1, n_mels)`, computed in float32, or float64 if the waveform is that.

    Raises:
        TooShortError: less than 25 ms of sound.
    """
    length, hop, n_fft = frame_geometry(sample_rate)
    exact = _exact(waveform, math.inf)
    shape = window_function(window, length, exact.dtype, exact.device)
    filters = mel_filters(n_mels, n_fft, sample_rate, dtype=exact.dtype, device=exact.device)

    frames = cut_frames(exact, length, hop)  # (..., frames, 400)
    frames = preemphasize(remove_mean(frames)) * shape
    power = power_spectrum(frames, n_fft)  # (..., frames, 257)
    return floored_log(exact_product(power, filters.T)).to(waveform.dtype)  # (..., frames, 128)


def cav_mae_fbank(
    waveform: Waveform, sample_rate: int = SAMPLE_RATE, *, lengths: Int[Tensor, " batch"] | None = None,
    target_length: int = CAV_MAE_FRAMES, n_mels: int = CAV_MAE_MELS, normalize: bool = True,
    mean: float = CAV_MAE_MEAN, std: float = CAV_MAE_STD,
) -> Fbank:  # fmt: skip
    """The published input of CAV-MAE's audio branch (`src/dataloader.py`, `_wav2fbank`).

    The waveform loses its mean; its fbank is padded with zeros at the end, or cut, to `target_length`, then normalised.
    So the padding ends up at (0 - mean) / std = +1.13, louder than most sounds, while digital silence is at -2.42.

    Args:
        waveform: `(samples,)` or `(batch, samples)`, mono.
        lengths: `(batch,)`, valid samples of each row of a padded batch; a row then gives what it gives alone.
        target_length: frames of the result; 1,024 as published, which is 10.24 s.
        normalize: False returns log energies, for computing `mean` and `std` of another data set than AudioSet.

    Raises:
        TooShortError: less than 25 ms of sound, in any row.
    """
    if not std > 0:
        raise ParameterError("std", f"{std}", "more than 0")
    window, hop, _ = frame_geometry(sample_rate)
    exact = _exact(waveform)
    if lengths is None:
        seen = exact[..., : (target_length - 1) * hop + window]  # later samples only count in the mean
        fbank = kaldi_fbank(seen - exact.mean(dim=-1, keepdim=True), sample_rate, n_mels)
    else:
        lengths = lengths.to(exact.device)
        check_lengths(lengths, exact.shape, window)
        total = without_padding(exact, lengths).sum(dim=-1, keepdim=True)
        fbank = kaldi_fbank(exact - total / lengths[:, None], sample_rate, n_mels)
        kept = valid_mask((lengths - window) // hop + 1, fbank.shape[-2])  # (batch, frames)
        fbank = fbank.where(kept[..., None], fbank.new_zeros(()))
    fbank = F.pad(fbank, (0, 0, 0, max(0, target_length - fbank.shape[-2])))[..., :target_length, :]
    if normalize:
        fbank = (fbank - mean) / std
    return fbank.to(waveform.dtype)


def beats_fbank(waveform: Waveform) -> Fbank:
    """The published input of BEATs (`BEATs.preprocess`), and so of AudioToken.

    Kaldi's fbank with the window "povey", of the samples (in [-1, 1], 16 kHz) times 2^15, minus `BEATS_MEAN`, over
    twice `BEATS_STD`: `(..., (samples - 400) // 160 + 1, 128)`. Digital silence is at -2.39.
    """
    exact = _exact(waveform)
    fbank = kaldi_fbank(exact * BEATS_SCALE, BEATS_SAMPLE_RATE, BEATS_MELS, "povey")
    return ((fbank - BEATS_MEAN) / (2 * BEATS_STD)).to(waveform.dtype)


def whisper_log_mel(
    waveform: Waveform, n_mels: int = WHISPER_MELS, *, hop_length: int = WHISPER_HOP, n_fft: int = WHISPER_N_FFT
) -> LogMel:
    """The published input of Whisper: WhisperFeatureExtractor without padding to 30 s.

    Power spectrum in Hann windows around each hop, the clip mirrored at its ends; librosa's mel filters (Slaney's scale
    and norm), 80, or 128 as in large-v3; log10, clipped to 8 below the clip's maximum; plus 4, over 4. The last column,
    centred on the end of the clip, is dropped, as published: `(..., n_mels, samples // hop_length)`, about -1 to 1.5.

    Raises:
        TooShortError: less than a column, or not more than half a window, which cannot be mirrored.
    """
    return _log_mel("whisper", waveform, n_mels, n_fft, hop_length, -1)


def resnet_log_mel(
    waveform: Waveform, n_mels: int = RESNET_SIZE, *, columns: int = RESNET_SIZE, hop_length: int | None = None,
    n_fft: int = RESNET_N_FFT,
) -> Float[Tensor, "*batch mels columns"]:  # fmt: skip
    """Log-mel spectrogram with a fixed number of columns, whatever the clip's length.

    torchaudio's default filters, triangles on the HTK scale that are not normalised, with Whisper's logarithm. Without
    `hop_length` it is `resnet_hop_length`, another for each length of clips, and the first `columns` are returned; else
    all `samples // hop_length + 1`.

    Raises:
        TooShortError: not more than half a window, or fewer samples than columns.
    """
    check_sound(waveform)
    if hop_length is None:
        hop = resnet_hop_length(waveform.shape[-1], columns)
        return _log_mel("torchaudio", waveform, n_mels, n_fft, hop, columns)
    return _log_mel("torchaudio", waveform, n_mels, n_fft, hop_length)


def mirrored_magnitude(waveform: Waveform, n_fft: int, hop_length: int) -> Float[Tensor, "*batch bins frames"]:
    """HiFi-GAN's spectrogram, `samples // hop_length` frames.

    Root of power + 1e-9 in Hann windows, after (n_fft - hop_length) / 2 samples are mirrored at both ends.

    Raises:
        TooShortError: too few samples to be mirrored.
    """
    samples, pad = waveform.shape[-1], (n_fft - hop_length) // 2
    if samples <= pad:
        expected = f"at least {pad + 1}, as {pad} are mirrored at both ends"
        raise TooShortError("waveform", f"{samples} samples", expected, "Give a longer clip, or append silence.")
    window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    padded = F.pad(waveform.reshape(-1, 1, samples), (pad, pad), "reflect")[:, 0]
    spectrum = torch.stft(padded, n_fft, hop_length, window=window, center=False, return_complex=True)
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    return magnitude.reshape(*waveform.shape[:-1], *magnitude.shape[1:])


def vocoder_log_mel(waveform: Waveform) -> LogMel:
    """The published mel of the unit vocoder's loss: ln of `mirrored_magnitude` in 80 mel bins, no less than ln 1e-5.

    Windows of 1,024 samples every 256; Slaney's scale and norm, 0 to 8 kHz. More than 384 samples at
    16 kHz give `(..., 80, samples // 256)`: 35 frames of 8,960.
    """
    exact = _exact(waveform)
    filters = torch.from_numpy(_filters("whisper", VOCODER_MELS, VOCODER_N_FFT)).to(exact)
    mel = exact_product(filters, mirrored_magnitude(exact, VOCODER_N_FFT, VOCODER_HOP))
    return mel.clamp(min=1e-5).log().to(waveform.dtype)


def speaker_mel(waveform: Float[Tensor, " samples"]) -> Float[Tensor, "frames mels"]:
    """The published input of the speaker encoder: power, not its logarithm, in 40 mel bins every 10 ms.

    Windows of 400 samples around each hop, the clip mirrored at its ends; Slaney's filters.
    `(samples // 160 + 1, 40)`, in float32 at least.
    """
    exact = _exact(waveform)
    window = torch.hann_window(WHISPER_N_FFT, dtype=exact.dtype, device=exact.device)
    spectrum = torch.stft(exact, WHISPER_N_FFT, WHISPER_HOP, window=window, return_complex=True)
    filters = torch.from_numpy(_filters("whisper", SPEAKER_MELS, WHISPER_N_FFT)).to(exact)
    return exact_product(filters, spectrum.abs().square()).T


def resnet_hop_length(samples: int, columns: int = RESNET_SIZE) -> int:
    """The largest hop that gives `columns` columns; 215 for 3 s."""
    if columns < 1:
        raise ParameterError("columns", f"{columns}", "1 or more")
    if samples < columns - 1:
        raise TooShortError("waveform", f"{samples} samples", f"at least {columns - 1}, for {columns} columns")
    return max(1, samples // (columns - 1)) if columns > 1 else max(1, samples)


def spectrogram_filters(kind: str, n_mels: int, n_fft: int) -> Float[Tensor, "mels bins"]:
    """Mel filters from 0 to 8 kHz for sound at 16 kHz, float64.

    Slaney's scale and norm ("whisper"), or HTK's scale and none ("torchaudio"). A filter that is narrower than the
    distance of two FFT bins may be empty: see `empty_filters`.
    """
    return torch.from_numpy(_filters(kind, n_mels, n_fft)).clone()


def empty_filters(filters: Float[Tensor, "mels bins"]) -> list[int]:
    """Indices of filters without any FFT bin: constant rows of a spectrogram."""
    return (~filters.any(dim=1)).nonzero().flatten().tolist()


@cache
def _filters(kind: str, n_mels: int, n_fft: int) -> np.ndarray:  # a tensor made in a trace would stay without values
    from transformers.audio_utils import mel_filter_bank  # in float64; torchaudio's differ by its rounding

    check_choice("kind", kind, ("whisper", "torchaudio"))
    check_whole("n_mels", n_mels, 1)
    check_whole("n_fft", n_fft, 1)
    scale, norm = ("slaney", "slaney") if kind == "whisper" else ("htk", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty filters, see `empty_filters`
        bank = mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, WHISPER_SAMPLE_RATE / 2, WHISPER_SAMPLE_RATE, norm, scale)
    return np.ascontiguousarray(bank.T)


def _log_mel(kind: str, waveform: Tensor, n_mels: int, n_fft: int, hop: int, end: int | None = None) -> LogMel:
    """Mel energies in Hann windows centred on 0, `hop`, ..., in a range of 80 dB below the maximum."""
    exact = _exact(waveform)
    filters, samples = torch.from_numpy(_filters(kind, n_mels, n_fft)), waveform.shape[-1]
    if hop < 1:
        raise ParameterError("hop_length", f"{hop}", "1 or more")
    if samples <= n_fft // 2:
        expected = f"more than half a window, {n_fft // 2}"
        raise TooShortError("waveform", f"{samples} samples", expected, "Give a longer clip, or pad it.")
    if waveform.numel():
        window = torch.hann_window(n_fft, dtype=exact.dtype, device=exact.device)
        spectrum = torch.stft(exact.reshape(-1, samples), n_fft, hop, window=window, return_complex=True)
        power = spectrum.abs().square().reshape(*waveform.shape[:-1], *spectrum.shape[-2:])
    else:  # torch.stft takes no batch of none
        power = exact.new_zeros(*waveform.shape[:-1], n_fft // 2 + 1, samples // hop + 1)
    power = power if end is None else power[..., :end]
    if not power.shape[-1]:
        raise TooShortError("waveform", f"{samples} samples", f"at least a hop, {hop}")
    log = exact_product(filters.to(power), power).clamp(min=1e-10).log10()
    log = log.maximum(log.amax(dim=(-2, -1), keepdim=True) - 8)
    return ((log + 4) / 4).to(waveform.dtype)
