"""A trained classifier for files; evidence of parts of a clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import media, training
from ...datasets.classification import Example, Labels, Recording, age_index, read_recordings, word_index
from ...datasets.sources import SAMPLE_RATE, SOUND_SUFFIXES, VIDEO_SUFFIXES, existing, files_in
from ...errors import DatasetError, MediaError, ParameterError, check_choice, check_whole
from ...models.classifiers import AudioClassifier
from ...workers import POLICIES, describe
from .. import device_of
from .data import Card
from .predicting import Prediction, conditions_of, predict_windows

Files = str | Path | Recording | Sequence[str | Path | Recording]

_TABLES = (".csv", ".tsv")
_N_FFT, _HOP = 512, 128  # of the spectrum in which parts are silenced: 32 ms, every 8 ms


class Classifier:
    """A trained model with its card; the model's mode is kept."""

    def __init__(self, model: nn.Module, card: Card, folder: str | Path = ""):
        card.require_model(model, folder)
        self.model, self.card, self.folder = model, card, Path(folder)
        self.samples = round(card.seconds * SAMPLE_RATE)  # of a window
        self.classes = card.labels.classes

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        labels: Labels | None = None,
        settings: Any = None,
        splits: Any = None,
        device: torch.device | str | None = None,
    ) -> Classifier:
        """Read a folder that `save` or a training wrote; see `Card.require`."""
        card = Card.read(folder)
        card.require(folder, labels, settings, splits)
        return cls(AudioClassifier.from_checkpoint(folder).to(training.chosen_device(device)).eval(), card, folder)

    def save(self, folder: str | Path) -> None:
        """Write model and card for `load`."""
        self.card.save(self.model, folder)

    def predict(
        self,
        files: Files,
        *,
        word: str | Sequence[str] = "",
        age: float | int | Sequence[float | int] | None = None,
        hop: float | int | None = None,
        on_error: str = "raise",
    ) -> Prediction:
        """Predict files.

        Args:
            files: a sound or video, a folder of them (however deep), a table (`.csv` with `path`, and `word`, `age`
                where they are needed), recordings, or several files.
            word: of all clips, or of each, where the model is conditioned on it; it wins over the table's.
            hop: a clip longer than a window is predicted in windows so many seconds apart, whose probabilities are
                averaged; None is half a window, 0 uses only the part that training would have used.
            on_error: "raise", or "skip" for clips that cannot be read, or whose word or age in the table is unknown to
                the model; see `Prediction.skipped`. A word or age that is given here has to be known.
        """
        check_choice("on_error", on_error, POLICIES)
        recordings = self._recordings(files, on_error)
        given = zip(*(_for_each(*pair, len(recordings)) for pair in (("word", word), ("age", age))), strict=True)
        kept, seconds, skipped = [], [], []
        step = round((self.card.seconds / 2 if hop is None else hop) * SAMPLE_RATE)

        def attempt(task: Callable, *values: Any) -> Any:
            try:
                return task(*values)
            except (MediaError, DatasetError) as error:
                if on_error == "raise":
                    raise
                skipped.append(error)
                return None

        # All words and ages before the first sound: an error in them shows at once.
        known = [attempt(self._numbers, recording, *pair) for recording, pair in zip(recordings, given, strict=True)]

        def clips() -> Iterator[Example]:
            for recording, numbers in zip(recordings, known, strict=True):
                clip = attempt(self._clip, recording, numbers, step > 0) if numbers is not None else None
                if clip is not None:
                    kept.append(recording)
                    seconds.append(clip.length / SAMPLE_RATE)
                    yield clip

        windows = list(predict_windows(self.model, clips(), samples=self.samples, hop=step))
        if not windows:
            raise DatasetError("files", "none can be used", "at least one", describe(skipped, len(recordings)))
        return Prediction.of_windows(kept, self.classes, windows, seconds, skipped=tuple(skipped))

    def evidence(
        self,
        file: str | Path | Recording,
        *,
        word: str = "",
        age: float | int | None = None,
        label: str = "",
        method: str = "auto",
        **parts: float | int,
    ) -> Evidence:
        """Find which parts of a clip speak for a class, by default the predicted one.

        `method` is "contributions", exact for a linear head; "occlusion", for any model, with its `parts` (`width`,
        `steps`, `bands`); or "auto": the first where the head is linear. `word` and `age` are those of `predict`.
        """
        check_choice("method", method, ("auto", "contributions", "occlusion"))
        if method == "auto":
            method = "occlusion" if self.model.nonlinear else "contributions"
        if parts and method == "contributions":
            found = "given for contributions, whose parts are the model's frames"
            raise ParameterError(", ".join(parts), found, "nothing of that sort", 'Or method="occlusion".')
        if label and label not in self.classes:
            raise ParameterError("label", repr(label), ", ".join(self.classes) or '"": a regression has none')
        recordings = self._recordings(file)
        if len(recordings) != 1:
            raise ParameterError("file", f"{len(recordings)} recordings in {file}", "one", "`predict` takes several.")
        numbers = self._numbers(recordings[0], word, age)
        clip, number = self._clip(recordings[0], numbers, False), self.classes.index(label) if label else None
        asked = (self.model, clip, self.samples, self.card.labels, number)
        return contributions(*asked) if method == "contributions" else occlusion(*asked, **parts)

    def _recordings(self, files: Files, on_error: str = "raise") -> list[Recording]:
        if isinstance(files, Recording):
            return [files]
        if isinstance(files, Sequence) and not isinstance(files, str):
            found = [recording for each in files for recording in self._recordings(each, on_error)]
        else:
            if not str(files):  # as a path that would be the current folder
                raise ParameterError("files", "none is named", "a sound or video, a folder or a table")
            if on_error == "skip" and not Path(files).exists():
                return [Recording(Path(files), "")]  # left out when it is to be read
            path = existing(files)
            if path.suffix.lower() in _TABLES:
                return read_recordings(path, target="path", on_error="skip")  # a missing file is an error of its own
            names = [name for name, _ in files_in(path, SOUND_SUFFIXES | VIDEO_SUFFIXES)] if path.is_dir() else [path]
            found = [Recording(name, "") for name in names]
        if not found:
            raise DatasetError(files or "files", "no sound or video in it", "at least one")
        return found

    def _numbers(self, recording: Recording, word: str, age: float | int | None) -> dict[str, int]:
        """Numbers of the word and age of a clip, as far as the model needs them; given ones win over the table's."""
        given = {name: value for name, value in (("word", word), ("age", age)) if value not in ("", None)}
        row, numbers = replace(recording, **given), {}
        expected = {
            "word": f"one that the model knows, such as {', '.join(self.card.words[:8])}",
            "age": "one in years",
        }
        for name in self.model.needs:
            if getattr(row, name) in ("", None):
                raise ParameterError(name, f"none for {recording}", expected[name], "The model is conditioned on it.")
            try:
                numbers[name] = word_index(row, self.card.words) if name == "word" else age_index(row, self.card.ages)
            except DatasetError as error:
                if name not in given:
                    raise
                raise ParameterError(name, error.found, error.expected, error.advice) from error
        return numbers

    def _clip(self, recording: Recording, numbers: dict[str, int], whole: bool) -> Example:
        """The clip, whole or the part that training would have used ("random": the middle)."""
        if whole:
            waveform = media.read_audio(recording.path, SAMPLE_RATE)
        elif self.card.crop == "start":
            waveform = media.read_audio(recording.path, SAMPLE_RATE, seconds=self.card.seconds)
        else:
            waveform = media.read_audio(recording.path, SAMPLE_RATE)
            waveform = waveform[max(0, len(waveform) - self.samples) // 2 :][: self.samples]
        return Example(waveform, len(waveform), **numbers)


def _for_each(name: str, value: Any, count: int) -> Sequence:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ParameterError(name, f"{len(value)}", f"one, or one for each of {count} files")
    return value


class Evidence(NamedTuple):
    """Evidence of each part of a clip for (above 0) or against a class.

    score: of the class: its logit minus the mean of the others (of two classes, the log odds); of a regression, the
        number.
    rest: of the score, what belongs to no part. With exact contributions `values.sum() + rest` is the score; with
        occlusion it is NaN, since parts need not add up.
    """

    values: Float[np.ndarray, "bands times"]  # low bands first
    times: Float[np.ndarray, " edges"]  # of the parts, in seconds
    hertz: Float[np.ndarray, " limits"]  # edges of the bands, equally wide in mel; a network also sees around a part
    score: float
    rest: float
    label: str  # "" of a regression
    seconds: float  # of the clip, without padding
    method: str  # "contributions" or "occlusion"


def contributions(model: nn.Module, clip: Example, samples: int, labels: Labels, number: int | None = None) -> Evidence:
    """Split the score exactly over the frames, for a linear head.

    The clip is no longer than a window of so many samples. A `number` of None takes the predicted class.
    """
    waveform = F.pad(clip.waveform, (0, samples - clip.length))[None].to(device_of(model))
    with torch.no_grad(), training.evaluating(model):
        features = model.features(waveform, torch.tensor([clip.length], device=waveform.device))
        given = {name: torch.tensor([value]) for name, value in conditions_of(model, clip).items()}
        found = model.contributions(features, **given)
    values, constant = found.values[0].double().cpu(), found.constant[0].double().cpu()  # (C, bands, times), (C,)
    number, label = _class(values.sum(dim=(1, 2)) + constant, labels, number)
    parts, rest = _score(values, number), float(_score(constant, number))
    times = np.linspace(0, max(samples, model.min_samples) / SAMPLE_RATE, parts.shape[1] + 1)
    hertz = _mel_edges(len(parts), "slaney" if model.config["mel"] == "whisper" else "htk")
    score, seconds = float(parts.sum()) + rest, clip.length / SAMPLE_RATE
    return Evidence(parts.numpy(), times, hertz, score, rest, label, seconds, "contributions")


def occlusion(
    model: nn.Module,
    clip: Example,
    samples: int,
    labels: Labels,
    number: int | None = None,
    *,
    width: float | int = 0.2,
    steps: int = 2,
    bands: int = 1,
) -> Evidence:
    """Measure how much the score falls when a part is silent, for any model.

    Parts are silenced in the spectrum (STFT), without clicks. They overlap: a value is the mean over all that cover it.
    Parts with the same evidence replace each other: then neither seems to matter. A part has `width` seconds and
    `steps` values, and is one of `bands`, equally wide in mel. Other arguments are those of `contributions`.
    """
    if not width * SAMPLE_RATE / max(steps, 1) >= _HOP:
        raise ParameterError("width", f"{width} s in {steps} steps", f"{_HOP / SAMPLE_RATE:g} s or more for each")
    check_whole("steps", steps, 1)
    check_whole("bands", bands, 1)
    waveform = clip.waveform[: min(samples, clip.length)]
    count, step = len(waveform), round(width * SAMPLE_RATE / steps)
    cells = math.ceil(count / step)
    hertz = _mel_edges(bands, "htk")
    how = {"n_fft": _N_FFT, "hop_length": _HOP, "window": torch.hann_window(_N_FFT)}
    # Complex, (bins, frames); frame j is centred on sample 128 j.
    spectrum = torch.stft(F.pad(waveform, (0, max(0, _N_FFT - count))), **how, return_complex=True)
    place, bins = torch.arange(spectrum.shape[1]) * _HOP, torch.arange(spectrum.shape[0]) * SAMPLE_RATE / _N_FFT

    def silenced() -> Iterator[Example]:
        """The clip, and the clip without each part."""
        yield clip._replace(waveform=waveform, length=count)
        for band in range(bands):
            top = math.inf if band == bands - 1 else hertz[band + 1]  # the last bin belongs to the last band
            inside = ((bins >= hertz[band]) & (bins < top))[:, None]
            for first in range(1 - steps, cells):
                hidden = inside & ((place >= first * step) & (place < (first + steps) * step))[None]
                sound = torch.istft(spectrum.masked_fill(hidden, 0), **how, length=max(count, _N_FFT))
                yield clip._replace(waveform=sound[:count], length=count)

    found = predict_windows(model, silenced(), samples=samples)
    logits = torch.stack([each.logits[0] for each in found]).double()  # (1 + parts, C)
    number, label = _class(logits[0], labels, number)
    whole, *without = _score(logits.T, number).tolist()
    falls = whole - np.array(without).reshape(bands, cells + steps - 1)
    values = np.stack([falls[:, cell : cell + steps].mean(axis=1) for cell in range(cells)], axis=1)
    times = np.minimum(np.arange(cells + 1) * step, count) / SAMPLE_RATE
    return Evidence(values, times, hertz, whole, math.nan, label, count / SAMPLE_RATE, "occlusion")


def _mel_edges(bands: int, scale: str) -> Float[np.ndarray, " edges"]:
    """Edges of so many bands from 0 to 8 kHz."""
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz

    return mel_to_hertz(np.linspace(0.0, hertz_to_mel(SAMPLE_RATE / 2, scale), bands + 1), scale)


def _class(logits: Tensor, labels: Labels, number: int | None) -> tuple[int, str]:
    if labels.task == "regression":
        return 0, ""
    number = int(logits.argmax()) if number is None else number
    return number, labels.names[number]


def _score(rows: Float[Tensor, "outputs ..."], number: int) -> Float[Tensor, ...]:
    """One output itself; of several, the class's minus the mean of the others."""
    count = len(rows)
    return rows[0] if count == 1 else rows[number] - (rows.sum(dim=0) - rows[number]) / (count - 1)
