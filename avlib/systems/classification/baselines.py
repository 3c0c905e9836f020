"""What needs no network: how far one comes with the clip's duration alone, and with the mean spectrum.

A figure of a model says little without them. Where labels leak into durations, as when an abnormal pronunciation drops
a sound, duration alone is well above chance; where classes differ by microphone or language, the mean spectrum is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ... import features
from ...datasets.classification import ClassificationDataset
from ...datasets.sources import SAMPLE_RATE
from ...errors import DatasetError
from .predicting import Predictions

BASELINES = {"duration alone": slice(0, 1), "mel statistics": slice(1, None)}  # which values of `simple_values`

_LOWEST = 1e-12  # probability, whose logarithm is finite


def simple_values(waveform: Float[Tensor, " samples"], n_mels: int = features.WHISPER_MELS) -> Float[Tensor, " values"]:
    """The duration in seconds, the mean over time of each mel row, and the standard deviation of each.

    Args:
        waveform: `(samples,)`, 16 kHz, without padding.
        n_mels: rows of `features.whisper_log_mel`.

    Returns:
        `(1 + 2 n_mels,)`.
    """
    shortest = max(features.WHISPER_N_FFT // 2 + 1, features.WHISPER_HOP)  # what the spectrum's first window mirrors
    padded = torch.nn.functional.pad(waveform, (0, max(0, shortest - len(waveform))))
    mel = features.whisper_log_mel(padded, n_mels)
    seconds = torch.tensor([len(waveform) / SAMPLE_RATE], dtype=waveform.dtype)
    return torch.cat([seconds, mel.mean(dim=1), mel.std(dim=1, correction=0)])


def baseline_predictions(
    train: ClassificationDataset, test: ClassificationDataset, *, n_mels: int = features.WHISPER_MELS
) -> dict[str, Predictions]:
    """What logistic regression (of numbers: ridge regression) says of the test part, by what it is given.

    As scikit-learn has both, with its default strength, on values of mean 0 and deviation 1 over the training part.
    Classes weigh the same, however many clips they have: otherwise a rare class would never be named, and UAR be
    easily beaten. Values are of the clip as the data set crops it, without padding.

    Args:
        train: what to learn from.
        test: what is to be said something of.
        n_mels: see `simple_values`.

    Returns:
        By the names of `BASELINES`; their logits are logarithms of probabilities, their embeddings the values.

    Raises:
        DatasetError: the training part has one class only, or clips cannot be used.
        MediaError: likewise.
    """
    (values, _, targets), (asked, kept, truth) = (_read(dataset, n_mels) for dataset in (train, test))
    regression = train.labels.task == "regression"
    if not regression and len(np.unique(targets)) < 2:
        raise DatasetError("training part", "clips of one class", "two classes or more", "Give other sizes of splits.")
    answer = _ridge if regression else partial(_logistic, classes=len(train.labels.names))
    items = [test.items[index] for index in kept]
    return {
        name: Predictions.of(
            items,
            torch.from_numpy(answer(values[:, part], targets, asked[:, part])).float(),
            torch.from_numpy(truth),
            torch.from_numpy(asked[:, part]).float(),
            torch.from_numpy(asked[:, 0]).float(),
        )
        for name, part in BASELINES.items()
    }


def _read(dataset: ClassificationDataset, n_mels: int) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Values, numbers and targets of the clips that can be used."""
    rows, kept, targets = [], [], []
    for index in range(len(dataset)):
        example = dataset[index]
        if example is not None:
            rows.append(simple_values(example.waveform[: int(example.length)], n_mels).double().numpy())
            targets.append(example.target)
            kept.append(index)
    if not kept:
        raise DatasetError("items", "none can be used", "at least one", dataset.report())
    return np.stack(rows), kept, np.asarray(targets)


def _logistic(values: np.ndarray, targets: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """Logarithms of probabilities `(clips, classes)`; of a class that training lacks, the lowest."""
    from sklearn.linear_model import LogisticRegression

    model = _scaled(LogisticRegression(class_weight="balanced", max_iter=5000)).fit(values, targets)
    probabilities = np.full((len(asked), classes), _LOWEST)
    probabilities[:, model.classes_.astype(int)] = model.predict_proba(asked)
    return np.log(probabilities.clip(min=_LOWEST))


def _ridge(values: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Numbers, `(clips, 1)`."""
    from sklearn.linear_model import Ridge

    return _scaled(Ridge()).fit(values, targets).predict(asked)[:, None]


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)
