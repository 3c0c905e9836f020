"""Formulas from samples and pixels to what the models see. Nothing here opens a file.

CAV-MAE's two inputs are built from steps that can be called, and drawn, one by one:

    frames -> minus their mean -> pre-emphasis -> window -> power spectrum -> mel filters -> log    (`kaldi_fbank`)
    fbank -> padded or cut -> normalised                                                            (`cav_mae_fbank`)
    video -> ten frames (`cav_mae_frame_indices`) -> resized, cropped (`crop_pictures`)
          -> normalised (`normalize_pictures`)                                                      (`cav_mae_image`)

BEATs, with which AudioToken listens, takes the same fbank with another window, on the scale of 16-bit samples:
`beats_fbank`.

Classifiers of sounds take `whisper_log_mel`, as Whisper was trained on it, or `resnet_log_mel`, as a picture of 224 x
224: other filters, and columns as close together as the clip's length asks (`resnet_hop_length`).

What training changes about them: `mix_waveforms` before the fbank, `mask_bands` on it, `add_noise` and `roll_time` on
the normalised one, `soft_labels` and `mix` on what is to be predicted.

Sources: Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023, and its code (YuanGongND/cav-mae,
`src/dataloader.py`, `src/preprocess`); Chen et al., "BEATs", ICML 2023, and its code (microsoft/unilm, `beats`);
Kaldi's `compute-fbank-feats` as torchaudio reproduces it; Radford et al., "Robust Speech Recognition via Large-Scale
Weak Supervision", ICML 2023, as transformers' WhisperFeatureExtractor has its features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from .errors import ParameterError, TooShortError

# Kaldi's geometry: a window of 25 ms every 10 ms.
WINDOW_SECONDS = Fraction(25, 1000)
HOP_SECONDS = Fraction(10, 1000)

# Kaldi takes the log of no less than this, float32's epsilon: digital silence becomes LOG_FLOOR in every bin.
POWER_FLOOR = 2.0**-23
LOG_FLOOR = math.log(POWER_FLOOR)  # -15.94

# CAV-MAE: 1,024 frames of 128 mel bins, normalised by the mean and deviation of AudioSet's fbanks.
CAV_MAE_FRAMES = 1024
CAV_MAE_MELS = 128
CAV_MAE_MEAN = -5.081
CAV_MAE_STD = 4.4849

# BEATs: samples as 16-bit integers would hold them, 128 mel bins at 16 kHz, normalised by twice AudioSet's deviation.
BEATS_SAMPLE_RATE = 16000
BEATS_SCALE = 2.0**15
BEATS_MELS = 128
BEATS_MEAN = 15.41663
BEATS_STD = 6.55582
BEATS_SHORTEST = 2800  # samples of its first tokens: 16 frames of 25 ms, 10 ms apart

# Whisper: a window of 25 ms every 10 ms at 16 kHz, mel bins up to 8 kHz. ResNet50: rows and columns of its pictures,
# and an FFT that is long enough for each of so many filters to have a bin; with Whisper's 400, 30 of 224 have none.
WHISPER_SAMPLE_RATE = 16000
WHISPER_N_FFT = 400
WHISPER_HOP = 160
WHISPER_MELS = 80
RESNET_SIZE = 224
RESNET_N_FFT = 1024

# ImageNet's colour statistics, RGB, of pixels in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def frame_geometry(sample_rate: int) -> tuple[int, int, int]:
    """Window, hop and FFT length in samples: 400, 160 and 512 at 16 kHz. The FFT takes the next power of two."""
    window, hop = int(sample_rate * WINDOW_SECONDS), int(sample_rate * HOP_SECONDS)
    if hop < 1:
        raise ParameterError("sample_rate", f"{sample_rate}", "100 Hz or more")
    return window, hop, 1 << (window - 1).bit_length()


def cut_frames(
    waveform: Float[Tensor, "*batch samples"], window: int, hop: int
) -> Float[Tensor, "*batch frames window"]:
    """Overlapping frames, `(samples - window) // hop + 1` of them: only those that the samples fill completely.

    Raises:
        TooShortError: the samples do not fill one frame.
    """
    samples = waveform.shape[-1]
    if samples < window:
        raise TooShortError(
            "waveform", f"{samples} samples", f"at least {window}, one analysis window", "Give a longer clip."
        )
    return waveform.unfold(-1, window, hop)


def remove_mean(frames: Float[Tensor, "*batch window"]) -> Float[Tensor, "*batch window"]:
    """Each frame minus its own mean: no constant offset reaches the spectrum."""
    return frames - frames.mean(dim=-1, keepdim=True)


def preemphasize(frames: Float[Tensor, "*batch window"], amount: float = 0.97) -> Float[Tensor, "*batch window"]:
    """Each sample minus `amount` times the one before it, which tilts the spectrum towards high frequencies.

    The first sample of a frame stands in for the one before it, as in Kaldi.
    """
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    return frames - amount * before


def window_function(
    name: str, length: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Float[Tensor, " length"]:
    """A symmetric window, zero at both ends where it is one: "hanning" (CAV-MAE), "povey" (BEATs) or "hamming".

    Raises:
        ParameterError: another name.
    """
    if name == "hamming":
        return torch.hamming_window(length, periodic=False, dtype=dtype, device=device)
    if name not in ("hanning", "povey"):
        raise ParameterError("window", repr(name), '"hanning", "povey" or "hamming"')
    window = torch.hann_window(length, periodic=False, dtype=dtype, device=device)
    return window if name == "hanning" else window.pow(0.85)


def power_spectrum(frames: Float[Tensor, "*batch window"], n_fft: int) -> Float[Tensor, "*batch bins"]:
    """Squared magnitude of the FFT of each frame, padded with zeros to `n_fft`; `n_fft // 2 + 1` bins."""
    return torch.fft.rfft(frames, n_fft).abs().square()


def mel_filters(
    n_mels: int,
    n_fft: int,
    sample_rate: int,
    low: float = 20.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "mels bins"]:
    """Kaldi's triangles, equally wide in mel (1127 ln(1 + f / 700)), from `low` Hz to half the sample rate.

    They overlap by half, peak at 1 and are not normalised by area. The last FFT bin has weight 0 in each.
    """
    from torchaudio.compliance.kaldi import get_mel_banks

    filters, _ = get_mel_banks(n_mels, n_fft, float(sample_rate), low, 0.0, 100.0, -500.0, 1.0)
    return F.pad(filters, (0, 1)).to(device, dtype)


def floored_log(power: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Natural logarithm of `power`, but of no less than `POWER_FLOOR`, so that silence is finite."""
    return power.clamp(min=POWER_FLOOR).log()


def kaldi_fbank(
    waveform: Float[Tensor, "*batch samples"],
    sample_rate: int = 16000,
    n_mels: int = CAV_MAE_MELS,
    window: str = "hanning",
) -> Float[Tensor, "*batch frames mels"]:
    """Log-mel filterbank energies as `torchaudio.compliance.kaldi.fbank` computes them, without dither, and batched.

    Args:
        waveform: `(..., samples)`. Computed in float32, or float64 if it is that.
        sample_rate: in Hz.
        n_mels: number of mel bins.
        window: see `window_function`.

    Returns:
        `(..., (samples - window) // hop + 1, n_mels)`, on the device and in the dtype of the waveform.

    Raises:
        TooShortError: less than 25 ms of sound.
        ParameterError: an unknown window.
    """
    length, hop, n_fft = frame_geometry(sample_rate)
    exact = waveform if waveform.dtype == torch.float64 else waveform.float()  # half precision has no FFT on a CPU
    shape = window_function(window, length, exact.dtype, exact.device)
    filters = mel_filters(n_mels, n_fft, sample_rate, dtype=exact.dtype, device=exact.device)

    frames = cut_frames(exact, length, hop)  # (..., frames, 400)
    frames = preemphasize(remove_mean(frames)) * shape
    power = power_spectrum(frames, n_fft)  # (..., frames, 257)
    return floored_log(power @ filters.T).to(waveform.dtype)  # (..., frames, 128)


def cav_mae_fbank(
    waveform: Float[Tensor, "*batch samples"],
    sample_rate: int = 16000,
    *,
    lengths: Int[Tensor, " batch"] | None = None,
    target_length: int = CAV_MAE_FRAMES,
    n_mels: int = CAV_MAE_MELS,
    normalize: bool = True,
    mean: float = CAV_MAE_MEAN,
    std: float = CAV_MAE_STD,
) -> Float[Tensor, "*batch frames mels"]:
    """The published input of CAV-MAE's audio branch (`src/dataloader.py`, `_wav2fbank`).

    The waveform loses its mean; its fbank is padded with zeros at the end, or cut, to `target_length`; and all of that
    is normalised. The padding is put in before the normalisation, as published, so it ends up at (0 - mean) / std =
    +1.13, louder than most sounds, while digital silence is at -2.42.

    Args:
        waveform: `(samples,)` or `(batch, samples)`, mono.
        sample_rate: in Hz; 16 kHz as published.
        lengths: `(batch,)`, the number of valid samples in each row of a batch that was padded; each row then gives
            what it gives alone.
        target_length: frames of the result; 1,024 as published, which is 10.24 s.
        n_mels: mel bins of the result.
        normalize: False returns log energies, for computing `mean` and `std` of another data set.
        mean: of the data set's log energies; AudioSet's as published.
        std: their standard deviation.

    Returns:
        `(1024, 128)` or `(batch, 1024, 128)`: time, mel. On the device and in the dtype of the waveform.

    Raises:
        TooShortError: less than 25 ms of sound, in any row.
        ParameterError: `lengths` does not fit the batch, or `std` is not positive.
    """
    if not std > 0:
        raise ParameterError("std", f"{std}", "more than 0")
    window, hop, _ = frame_geometry(sample_rate)
    exact = waveform if waveform.dtype == torch.float64 else waveform.float()
    if lengths is None:
        fbank = kaldi_fbank(exact - exact.mean(dim=-1, keepdim=True), sample_rate, n_mels)
    else:
        lengths = _checked_lengths(lengths, exact, window)
        valid = torch.arange(exact.shape[-1], device=exact.device) < lengths  # (batch, samples)
        total = exact.where(valid, exact.new_zeros(())).sum(dim=-1, keepdim=True)
        fbank = kaldi_fbank(exact - total / lengths, sample_rate, n_mels)
        frames = (lengths - window) // hop + 1
        kept = torch.arange(fbank.shape[-2], device=exact.device) < frames  # (batch, frames)
        fbank = fbank.where(kept[..., None], fbank.new_zeros(()))
    fbank = F.pad(fbank, (0, 0, 0, max(0, target_length - fbank.shape[-2])))[..., :target_length, :]
    if normalize:
        fbank = (fbank - mean) / std
    return fbank.to(waveform.dtype)


def beats_fbank(waveform: Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch frames mels"]:
    """The published input of BEATs (`BEATs.preprocess`), and so of AudioToken.

    Kaldi's fbank with the window "povey", of the samples times 2^15, minus `BEATS_MEAN`, over twice `BEATS_STD`.
    Digital silence is at -2.39. Each row by itself: the two channels of a stereo sound are two clips here, and have
    to be mixed down before.

    Args:
        waveform: `(..., samples)`, mono, 16 kHz, in [-1, 1]; another sample rate has to be resampled before.

    Returns:
        `(..., (samples - 400) // 160 + 1, 128)`: time, mel. On the device and in the dtype of the waveform.

    Raises:
        TooShortError: less than 25 ms of sound, 400 samples.
    """
    exact = waveform if waveform.dtype == torch.float64 else waveform.float()
    fbank = kaldi_fbank(exact * BEATS_SCALE, BEATS_SAMPLE_RATE, BEATS_MELS, "povey")
    return ((fbank - BEATS_MEAN) / (2 * BEATS_STD)).to(waveform.dtype)


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
    if kind not in ("whisper", "torchaudio"):
        raise ParameterError("kind", repr(kind), '"whisper" or "torchaudio"')
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

    if interpolation not in ("bilinear", "bicubic"):
        raise ParameterError("interpolation", repr(interpolation), '"bilinear" or "bicubic"')
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


def mix(first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"], share: float) -> Float[Tensor, "*shape"]:
    """`share` of the first and the rest of the second: mixup of two normalised images, or of two soft labels.

    CAV-MAE draws `share` from Beta(10, 10). Its code adds up the labels of the two clips instead of mixing them, so
    that the floor of `soft_labels` counts in full under each positive: a label that both clips have ends at
    1 - s + s / N, where an unmixed clip has 1 - s. Mixed, it stays at 1 - s.
    """
    return share * first + (1 - share) * second


def mix_waveforms(
    first: Float[Tensor, " samples"], second: Float[Tensor, " others"], share: float
) -> Float[Tensor, " samples"]:
    """Mixup of two sounds, each minus its mean; the second is padded with zeros at its end, or cut, to the first.

    As in the published `_wav2fbank`, where the mix then loses its mean once more, as `cav_mae_fbank` does.
    """
    first, second = first - first.mean(), second - second.mean()
    second = F.pad(second, (0, max(0, len(first) - len(second))))[: len(first)]
    return mix(first, second, share)


def mask_bands(
    fbank: Float[Tensor, "*batch frames mels"],
    freq_width: int = 0,
    time_width: int = 0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch frames mels"]:
    """SpecAugment as torchaudio does it: one band of mel bins and one of frames become 0.

    The width of each is uniform from 0 to below the given one, its place uniform where it fits; all of a batch share
    them. CAV-MAE masks before it normalises, so that the bands end up at the level of the padding, +1.13.

    Args:
        fbank: `(..., frames, mels)`, not normalised.
        freq_width: mel bins; 48 in the published fine-tuning. 0 masks none, and draws nothing.
        time_width: frames; 192 there.
        generator: where to draw from, on the CPU.

    Raises:
        ParameterError: a width is negative, or larger than the fbank.
    """
    for axis, width in ((-1, freq_width), (-2, time_width)):
        size = fbank.shape[axis]
        if not 0 <= width <= size:
            raise ParameterError("freq_width" if axis == -1 else "time_width", f"{width}", f"0 to {size}")
        if width:
            drawn = float(torch.rand(1, generator=generator)) * width
            start = int(float(torch.rand(1, generator=generator)) * (size - drawn))
            position = torch.arange(size, device=fbank.device)
            band = (position >= start) & (position < start + int(drawn))
            fbank = fbank.masked_fill(band if axis == -1 else band[:, None], 0.0)
    return fbank


def add_noise(
    fbank: Float[Tensor, "frames mels"], generator: torch.Generator | None = None
) -> Float[Tensor, "frames mels"]:
    """CAV-MAE's noise on a normalised fbank: uniform in [0, 1) in each bin, times one uniform number over 10."""
    noise = torch.rand(fbank.shape, generator=generator) * torch.rand(1, generator=generator) / 10
    return fbank + noise.to(fbank)


def roll_time(
    fbank: Float[Tensor, "frames mels"], generator: torch.Generator | None = None
) -> Float[Tensor, "frames mels"]:
    """The fbank shifted around by a number of frames that is uniform in [-frames, frames).

    So that in CAV-MAE's training nothing tells when in the sound the picture was seen.
    """
    frames = len(fbank)
    return fbank.roll(int(torch.randint(-frames, frames, (1,), generator=generator)), 0)


def soft_labels(positives: Sequence[int], num_classes: int, smoothing: float = 0.0) -> Float[Tensor, " classes"]:
    """Labels of one clip, smoothed as published: s / N everywhere, but 1 - s at what is there (s: `smoothing`).

    Raises:
        ParameterError: `smoothing` outside [0, 1), or a positive outside the classes.
    """
    if not 0 <= smoothing < 1:
        raise ParameterError("smoothing", f"{smoothing}", "0 or more, and less than 1; 0.1 is published")
    if not all(0 <= index < num_classes for index in positives):
        raise ParameterError("positives", f"{list(positives)}", f"0 to {num_classes - 1}")
    labels = torch.full((num_classes,), smoothing / max(1, num_classes))
    labels[list(positives)] = 1 - smoothing
    return labels


def _checked_lengths(lengths: Tensor, waveform: Tensor, window: int) -> Int[Tensor, "batch 1"]:
    if waveform.ndim != 2 or lengths.shape != waveform.shape[:1]:
        found = f"shape {tuple(lengths.shape)} for a waveform of shape {tuple(waveform.shape)}"
        raise ParameterError("lengths", found, "(batch,) for (batch, samples)")
    shortest, longest = int(lengths.min()), int(lengths.max())
    if longest > waveform.shape[1]:
        raise ParameterError("lengths", f"{longest} samples", f"at most {waveform.shape[1]}, those of the waveform")
    if shortest < window:
        raise TooShortError("waveform", f"a row of {shortest} samples", f"at least {window}", "Leave that clip out.")
    return lengths.to(waveform.device)[:, None]
