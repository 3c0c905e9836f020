"""Where in a clip an answer comes from: its parts exactly, where the head is linear; or what changes when they go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import training
from ...datasets.classification import Labels
from ...datasets.sources import SAMPLE_RATE
from ...errors import ParameterError
from .. import device_of
from .predicting import Sound, listen, told

_N_FFT, _HOP = 512, 128  # of the spectrum in which parts are silenced: 32 ms, every 8 ms


class Evidence(NamedTuple):
    """What each part of a clip says for a class: above 0 for it, below 0 against it.

    values: `(bands, times)`, low bands first.
    times: `(times + 1,)`, where parts begin and end, in seconds.
    hertz: `(bands + 1,)`, between which frequencies bands are, equally wide in mel; what a network sees around a part
        enters into it as well.
    score: of the class: its logit minus the mean of the others (of two classes, the logarithm of the odds); of a
        regression, the number.
    rest: of the score, what belongs to no part. Of exact contributions, `values.sum() + rest` is the score; of
        occlusion it is NaN, since parts need not add up.
    label: the class; "" of a regression.
    seconds: where the clip ends; what comes after is padding.
    method: "contributions" or "occlusion".
    """

    values: Float[np.ndarray, "bands times"]
    times: Float[np.ndarray, " edges"]
    hertz: Float[np.ndarray, " limits"]
    score: float
    rest: float
    label: str
    seconds: float
    method: str


def contributions(model: nn.Module, sound: Sound, samples: int, labels: Labels, number: int | None = None) -> Evidence:
    """What each frame adds to the score, exactly. A frame of a transformer has heard the others: it is a share of the
    answer, not of the cause.

    Args:
        model: an `AudioClassifier` whose head is linear.
        sound: a clip, no longer than a window.
        samples: of a window.
        labels: of the model's answers.
        number: of the class; None for the one that the model names.

    Raises:
        ParameterError: the head is not linear.
    """
    waveform = F.pad(sound.waveform, (0, samples - len(sound.waveform)))[None].to(device_of(model))
    length = torch.tensor([len(sound.waveform)], device=waveform.device)
    with torch.no_grad(), training.evaluating(model):
        features = model.features(waveform, length)
        given = {name: torch.tensor([value]) for name, value in told(model, sound).items()}
        found = model.contributions(features, **given)
    values, constant = found.values[0].double().cpu(), found.constant[0].double().cpu()  # (C, bands, times), (C,)
    logits = values.sum(dim=(1, 2)) + constant
    number = _chosen(logits, labels, number)
    parts, rest = _score(values, number), float(_score(constant, number))
    times = np.linspace(0, max(samples, model.shortest) / SAMPLE_RATE, parts.shape[1] + 1)
    hertz = _mel_edges(len(parts), "slaney" if model.config["mel"] == "whisper" else "htk")
    return Evidence(
        parts.numpy(), times, hertz, float(parts.sum()) + rest, rest, _name(labels, number),
        len(sound.waveform) / SAMPLE_RATE, "contributions",
    )  # fmt: skip


def occlusion(
    model: nn.Module,
    sound: Sound,
    samples: int,
    labels: Labels,
    number: int | None = None,
    *,
    width: float | int = 0.2,
    steps: int = 2,
    bands: int = 1,
    batch_size: int = 16,
) -> Evidence:
    """By how much the score falls when a part of the clip is silent, for any model.

    Parts are silenced in the spectrum (STFT), without clicks. They overlap: a value is the mean over all that cover it.
    Parts that say the same stand in for each other: then neither seems to matter.

    Args:
        model: an `AudioClassifier`.
        sound: see `contributions`.
        samples: of a window.
        labels: of the model's answers.
        number: see `contributions`.
        width: of a part, in seconds.
        steps: into how many values a part is divided; `steps - 1` of them are covered by the next part again.
        bands: how many parts there are in frequency, equally wide in mel; 1 silences all frequencies.
        batch_size: how many clips at once.

    Raises:
        ParameterError: a width of less than a step of the spectrum (8 ms) for each value, or a number below 1.
    """
    if not width * SAMPLE_RATE / max(steps, 1) >= _HOP:
        raise ParameterError("width", f"{width} s in {steps} steps", f"{_HOP / SAMPLE_RATE:g} s or more for each")
    if min(steps, bands, batch_size) < 1:
        raise ParameterError("steps, bands, batch_size", f"{steps}, {bands}, {batch_size}", "1 or more")
    waveform = sound.waveform[:samples]
    step = round(width * SAMPLE_RATE / steps)
    cells = math.ceil(len(waveform) / step)
    hertz = _mel_edges(bands, "htk")
    parts = [(first, band) for band in range(bands) for first in range(1 - steps, cells)]

    def sounds() -> Iterator[Sound]:
        yield sound._replace(waveform=waveform)
        spectrum = _spectrum(waveform)
        for first, band in parts:
            span = (first * step, (first + steps) * step)
            yield sound._replace(waveform=_silenced(spectrum, span, hertz[band : band + 2], len(waveform)))

    said = listen(model, sounds(), samples=samples, batch_size=batch_size)
    logits = torch.stack([heard.logits[0] for heard in said]).double()  # (1 + parts, C)
    number = _chosen(logits[0], labels, number)
    whole, *without = _score(logits.T, number).tolist()
    falls = whole - np.array(without).reshape(bands, cells + steps - 1)
    values = np.stack([falls[:, cell : cell + steps].mean(axis=1) for cell in range(cells)], axis=1)
    times = np.minimum(np.arange(cells + 1) * step, len(waveform)) / SAMPLE_RATE
    name = _name(labels, number)
    return Evidence(values, times, hertz, whole, math.nan, name, len(waveform) / SAMPLE_RATE, "occlusion")


def _spectrum(waveform: Float[Tensor, " samples"]) -> Tensor:
    """Complex, `(bins, frames)`; frame `j` is centred on sample `128 j`. A clip of less than a window is padded."""
    padded = F.pad(waveform, (0, max(0, _N_FFT - len(waveform))))
    return torch.stft(padded, _N_FFT, _HOP, window=torch.hann_window(_N_FFT), return_complex=True)


def _silenced(
    spectrum: Tensor, span: tuple[int, int], hertz: Float[np.ndarray, " 2"], samples: int
) -> Float[Tensor, " samples"]:
    """The sound without the frames centred in a span of samples, as far as the bins lie in a band."""
    place = torch.arange(spectrum.shape[1]) * _HOP
    bins = torch.arange(spectrum.shape[0]) * SAMPLE_RATE / _N_FFT
    top = math.inf if hertz[1] >= SAMPLE_RATE / 2 else hertz[1]  # the last bin belongs to the last band
    hidden = ((bins >= hertz[0]) & (bins < top))[:, None] & ((place >= span[0]) & (place < span[1]))[None]
    silent = spectrum.masked_fill(hidden, 0)
    length = max(samples, _N_FFT)
    return torch.istft(silent, _N_FFT, _HOP, window=torch.hann_window(_N_FFT), length=length)[:samples]


def _mel_edges(bands: int, scale: str) -> Float[np.ndarray, " edges"]:
    """Limits of so many bands from 0 to 8 kHz."""
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz

    return mel_to_hertz(np.linspace(0.0, hertz_to_mel(SAMPLE_RATE / 2, scale), bands + 1), scale)


def _chosen(logits: Tensor, labels: Labels, number: int | None) -> int:
    """The class that is meant."""
    return 0 if labels.task == "regression" else int(logits.argmax()) if number is None else number


def _score(rows: Float[Tensor, "outputs ..."], number: int) -> Float[Tensor, ...]:
    """Of one output itself; of several, that of the class minus the mean of the others."""
    count = len(rows)
    return rows[0] if count == 1 else rows[number] - (rows.sum(dim=0) - rows[number]) / (count - 1)


def _name(labels: Labels, number: int) -> str:
    return "" if labels.task == "regression" else labels.names[number]
