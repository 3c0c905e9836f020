"""Predictions for clips, data sets and sliding windows; simple baselines."""

from __future__ import annotations

import csv
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from ... import features, training
from ...cache import publishing
from ...datasets.classification import ClassificationDataset, Example, Recording
from ...datasets.sources import SAMPLE_RATE
from ...errors import AvlibError, DatasetError, ParameterError, check_whole
from ...tables import html_table
from ...workers import describe
from .. import device_of


class Windows(NamedTuple):
    """Outputs of a model for the windows of one clip."""

    logits: Float[Tensor, "windows outputs"]  # of a regression one output
    embeddings: Float[Tensor, "windows width"]  # after the projection
    starts: Int[Tensor, " windows"]  # in samples


def window_starts(samples: int, width: int, hop: int) -> list[int]:
    """Return the first sample of each window over a clip; all in samples.

    One begins at every `hop`, and one more ends where the clip does: the whole clip is covered without padding. A hop
    of 0 gives the first window alone; one above the width, which would leave gaps, is refused.
    """
    if width < 1 or not 0 <= hop <= width:
        raise ParameterError("hop", f"{hop} samples for windows of {width}", "0, or from 1 to the width of a window")
    if samples <= width or not hop:
        return [0]
    last = samples - width
    return [*range(0, last, hop), last]


def predict_windows(
    model: nn.Module, clips: Iterable[Example], *, samples: int, hop: int = 0, batch_size: int = 16
) -> Iterator[Windows]:
    """Predict windows of clips, clip by clip, in batches over several clips.

    A window is padded with zeros to `samples`, as in training, and its true length is passed on; `hop` is that of
    `window_starts`. Clips of any length are read as they are needed. The model's mode is kept.
    """
    check_whole("batch_size", batch_size, 1)
    starts: deque[list[int]] = deque()  # of clips whose windows are not all predicted yet

    def pieces() -> Iterator[tuple[Example, Tensor]]:
        for clip in clips:
            starts.append(window_starts(clip.length, samples, hop))
            for start in starts[-1]:
                yield clip, clip.waveform[start : min(start + samples, clip.length)]

    windows, pairs = pieces(), []
    while batch := list(itertools.islice(windows, batch_size)):
        for pair in _predict_batch(model, batch, samples):
            pairs.append(pair)
            if len(pairs) == len(starts[0]):
                outputs = (torch.stack(part) for part in zip(*pairs, strict=True))
                yield Windows(*outputs, torch.tensor(starts.popleft()))
                pairs = []


@torch.no_grad()
def _predict_batch(model: nn.Module, windows: Sequence[tuple[Example, Tensor]], samples: int) -> Iterable:
    device = device_of(model)
    waveform = torch.stack([F.pad(window, (0, samples - len(window))) for _, window in windows]).to(device)
    lengths = torch.tensor([len(window) for _, window in windows], device=device)
    numbers = {name: torch.tensor([getattr(clip, name) for clip, _ in windows], device=device) for name in model.needs}
    with training.evaluating(model):
        out = model.read(model.features(waveform, lengths), **numbers)
    logits = out.logits.float().cpu().reshape(len(windows), -1)
    return zip(logits, out.embedding.float().cpu(), strict=True)


def conditions_of(model: nn.Module, batch: Example) -> dict[str, Any]:
    """Return the numbers of words and ages that the model is conditioned on."""
    return {name: getattr(batch, name) for name in model.needs}


def probabilities(logits: Float[Tensor, "clips outputs"]) -> Float[Tensor, "clips outputs"]:
    """Return probabilities of classes; of one output, a regression, the number itself."""
    return logits if logits.shape[1] == 1 else logits.softmax(dim=1)


@dataclass(frozen=True)
class Prediction:
    """Predictions for clips, one row each. A notebook shows them as a table.

    logits: of a regression the number; of several windows the logarithm of the mean of their probabilities.
    groups: units of the bootstrap: groups that the division kept together, speakers unless another column was named;
        paths if they are not known of all clips.
    """

    names: tuple[str, ...]  # of the classes; () of a regression
    logits: Float[Tensor, "clips outputs"]
    embeddings: Float[Tensor, "clips width"]  # the mean over windows
    seconds: Float[Tensor, " clips"]  # of sound that was used
    paths: tuple[str, ...]
    words: tuple[str, ...]  # "" if unknown
    ages: tuple[float | None, ...]
    speakers: tuple[str, ...]
    groups: tuple[str, ...]
    targets: Num[Tensor, " clips"] | None = None  # numbers of classes, or numbers
    windows: tuple[Windows, ...] = ()
    skipped: tuple[AvlibError, ...] = ()  # errors of clips that were left out

    @classmethod
    def of(
        cls, clips: Sequence[Recording], names: Sequence[str], logits: Tensor, embeddings: Tensor, seconds: Tensor,
        **more: Any,
    ) -> Prediction:  # fmt: skip
        """Put outputs together with what is known of the clips."""
        paths = tuple(str(clip.path) for clip in clips)
        known = (tuple(getattr(clip, name) for clip in clips) for name in ("word", "age", "speaker"))
        groups = tuple(clip.group for clip in clips)
        groups = groups if all(groups) else paths
        return cls(tuple(names), logits, embeddings, seconds, paths, *known, groups, **more)

    @classmethod
    def of_windows(
        cls, clips: Sequence[Recording], names: Sequence[str], windows: Sequence[Windows], seconds: Sequence[float],
        **more: Any,
    ) -> Prediction:  # fmt: skip
        logits = torch.stack([_mean(each.logits) for each in windows])
        embeddings = torch.stack([each.embeddings.mean(dim=0) for each in windows])
        return cls.of(clips, names, logits, embeddings, torch.tensor(seconds), windows=tuple(windows), **more)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def task(self) -> str:
        return "regression" if self.logits.shape[1] == 1 else "classification"

    @property
    def probabilities(self) -> Float[Tensor, "clips outputs"]:
        """Probabilities of classes, in float64; of a regression, the numbers."""
        return probabilities(self.logits.double())

    @property
    def predicted(self) -> Num[Tensor, " clips"]:
        """The class of the highest logit; of a regression, the number."""
        return self.logits[:, 0] if self.task == "regression" else self.logits.argmax(dim=1)

    @property
    def labels(self) -> list[str | float]:
        """The name of the predicted class, or the number, of each clip."""
        return self._named(self.predicted)

    def window_probabilities(self, clip: int = 0) -> Float[Tensor, "windows outputs"]:
        return probabilities(self.windows[clip].logits)

    @property
    def columns(self) -> dict[str, list]:
        """All that is known, by column."""
        columns: dict[str, list] = {"path": list(self.paths)}
        for name in ("words", "ages", "speakers"):
            if any(value not in ("", None) for value in getattr(self, name)):
                columns[name.removesuffix("s")] = list(getattr(self, name))
        columns["seconds"] = self.seconds.tolist()
        if self.windows:
            columns["windows"] = [len(each.logits) for each in self.windows]
        if self.targets is not None:
            columns["target"] = self._named(self.targets)
        columns["prediction"] = self.labels
        shares = self.probabilities.T.tolist() if self.task == "classification" else []
        return columns | {f"p({name})": values for name, values in zip(self.names, shares, strict=True)}

    @property
    def report(self) -> str:
        """Number of clips that were left out, and the reasons."""
        return describe(self.skipped, len(self) + len(self.skipped))

    def to_csv(self, path: str | Path) -> None:
        """Write the columns, in UTF-8."""
        with publishing(Path(path)) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows(zip(*self.columns.values(), strict=True))

    def save_embeddings(self, path: str | Path) -> None:
        """Write a `.npz` with the arrays "paths" and "embeddings"."""
        with publishing(Path(path)) as unfinished:
            np.savez(unfinished, paths=np.array(self.paths), embeddings=self.embeddings.numpy())

    def _named(self, numbers: Tensor) -> list[str | float]:
        return [self.names[number] if self.names else number for number in numbers.tolist()]

    def _repr_html_(self) -> str:
        return html_table(self.columns) + (f"<pre>{escape(self.report)}</pre>" if self.skipped else "")


def predict(
    model: nn.Module, dataset: ClassificationDataset, *, batch_size: int = 16, progress: bool = False
) -> Prediction:
    """Predict every clip of a data set, without those that it leaves out (`on_error="skip"`)."""
    from ...progress import Bar

    kept, targets, seconds = [], [], []

    def clips() -> Iterator[Example]:
        for index in Bar(range(len(dataset)), desc="predicting", disable=not progress):
            example = dataset[index]
            if example is not None:
                kept.append(dataset.items[index])
                targets.append(example.target)
                seconds.append(example.length / SAMPLE_RATE)
                yield example

    windows = list(predict_windows(model, clips(), samples=dataset.samples, batch_size=batch_size))
    if not kept:
        raise DatasetError("items", "none can be used", "at least one", dataset.report())
    names = dataset.labels.classes if dataset.labels else ()
    return Prediction.of_windows(kept, names, windows, seconds, targets=torch.tensor(targets))


def _mean(logits: Float[Tensor, "windows outputs"]) -> Float[Tensor, " outputs"]:
    """Logits of the clip: of one window its own, of several those whose softmax is the mean of theirs."""
    if len(logits) == 1:
        return logits[0]
    mean = probabilities(logits.double()).mean(dim=0)
    return (mean if logits.shape[1] == 1 else mean.clamp(min=torch.finfo(torch.float32).tiny).log()).float()


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Concatenate predictions of different clips, as of the held-out parts of all folds."""
    if not parts or len({part.logits.shape[1] for part in parts}) > 1:
        raise ParameterError("parts", f"{len(parts)}", "one or more, all of the same classes")
    paths = [path for part in parts for path in part.paths]
    if len(set(paths)) < len(paths):
        twice = next(path for place, path in enumerate(paths) if path in paths[:place])
        advice = "Out-of-fold predictions are those of each fold's held-out part, not of the test part that all share."
        raise ParameterError("parts", f"{twice} in two of them", "each clip in one", advice)
    tensors = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("logits", "embeddings", "seconds", "targets")
    }
    texts = {
        name: tuple(value for part in parts for value in getattr(part, name))
        for name in ("paths", "words", "ages", "speakers", "groups", "windows")
    }
    return Prediction(parts[0].names, **tensors, **texts)


# Baselines: the clip's duration alone, and the mean spectrum. Where labels leak into durations, as when an abnormal
# pronunciation drops a sound, duration alone is well above chance; where classes differ by microphone or language, the
# mean spectrum is.

_LOWEST = 1e-12  # probability, whose logarithm is finite
BASELINES = {"duration alone": slice(0, 1), "mel statistics": slice(1, None)}  # values of `baseline_features`


def baseline_features(waveform: Float[Tensor, " samples"]) -> Float[Tensor, " values"]:
    """Return the duration, and mean and deviation of each of 80 mel rows, of 16 kHz without padding."""
    shortest = max(features.WHISPER_N_FFT // 2 + 1, features.WHISPER_HOP)  # the first window mirrors so many samples
    mel = features.whisper_log_mel(F.pad(waveform, (0, max(0, shortest - len(waveform)))))
    seconds = torch.tensor([len(waveform) / SAMPLE_RATE], dtype=waveform.dtype)
    return torch.cat([seconds, mel.mean(dim=1), mel.std(dim=1, correction=0)])


def baseline_predictions(train: ClassificationDataset, test: ClassificationDataset) -> dict[str, Prediction]:
    """Predict the test part by logistic regression (of numbers: ridge regression) on simple features.

    scikit-learn's, with default strength, on standardised features of the clip as the data set crops it. Classes have
    equal weight: otherwise a rare class would never be predicted. Returned by the names of `BASELINES`; logits are
    logarithms of probabilities, embeddings the features.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, _, y), (asked, kept, truth) = (_features(dataset) for dataset in (train, test))
    names = train.labels.classes
    if names and len(np.unique(y)) < 2:
        raise DatasetError("training part", "clips of one class", "two classes or more", "Give other sizes of splits.")
    items, result = [test.items[index] for index in kept], {}
    for name, part in BASELINES.items():
        head = LogisticRegression(class_weight="balanced", max_iter=5000) if names else Ridge()
        model = make_pipeline(StandardScaler(), head).fit(x[:, part], y)
        if names:
            shares = np.full((len(asked), len(names)), _LOWEST)  # of a class that training lacks
            shares[:, model.classes_.astype(int)] = model.predict_proba(asked[:, part])
            logits = np.log(shares.clip(min=_LOWEST))
        else:
            logits = model.predict(asked[:, part])[:, None]
        outputs = (torch.from_numpy(each).float() for each in (logits, asked[:, part], asked[:, 0]))
        result[name] = Prediction.of(items, names, *outputs, targets=torch.from_numpy(truth))
    return result


def _features(dataset: ClassificationDataset) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Features, indices and targets of the clips that can be used."""
    rows, kept, targets = [], [], []
    for index in range(len(dataset)):
        example = dataset[index]
        if example is not None:
            rows.append(baseline_features(example.waveform[: example.length]).double().numpy())
            targets.append(example.target)
            kept.append(index)
    if not kept:
        raise DatasetError("items", "none can be used", "at least one", dataset.report())
    return np.stack(rows), kept, np.asarray(targets)
