"""What a model says of clips: of one as long as the training's, and of a longer one by windows that slide over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from ... import media, training
from ...datasets.classification import ClassificationDataset, Example, Recording
from ...datasets.sources import SAMPLE_RATE
from ...errors import DatasetError, ParameterError
from .. import device_of
from .tables import write_columns

NOT_TOLD = -1  # the number of a word, or of an age, that nobody said

# Windows


class Sound(NamedTuple):
    """A clip for a model: `(samples,)`, 16 kHz, without padding; and the number of its word and of its age."""

    waveform: Float[Tensor, " samples"]
    word: int = NOT_TOLD
    age: int = NOT_TOLD


class Heard(NamedTuple):
    """What a model says of one clip.

    logits: `(windows, outputs)`; of a regression `(windows, 1)`.
    embeddings: `(windows, width)`, after the projection.
    starts: `(windows,)`, the first sample of each window.
    """

    logits: Float[Tensor, "windows outputs"]
    embeddings: Float[Tensor, "windows width"]
    starts: Int[Tensor, " windows"]


class Vote(NamedTuple):
    """One answer for a clip, and the answers of its windows, of which it is the mean.

    values: `(classes,)` probabilities; of a regression `(1,)`, the number.
    windows: `(windows, classes)` likewise.
    starts: `(windows,)`, where each begins, in seconds.
    """

    values: Float[Tensor, " classes"]
    windows: Float[Tensor, "windows classes"]
    starts: Float[Tensor, " windows"]


def window_starts(samples: int, width: int, hop: int) -> list[int]:
    """The first sample of each window over a clip: every `hop`, and one more that ends where the clip does.

    So no window has padding, unless the clip is shorter than one, and nothing of the clip is left out.

    Args:
        samples: of the clip.
        width: of a window.
        hop: from one window to the next; 0 for the first window alone.

    Raises:
        ParameterError: a width below 1, or a hop below 0 or above the width, which would leave parts unheard.
    """
    if width < 1 or not 0 <= hop <= width:
        raise ParameterError("hop", f"{hop} samples for windows of {width}", "0, or from 1 to the width of a window")
    if samples <= width or not hop:
        return [0]
    last = samples - width
    return [*range(0, last, hop), last]


def listen(
    model: nn.Module, sounds: Iterable[Sound], *, samples: int, hop: int = 0, batch_size: int = 16
) -> Iterator[Heard]:
    """What a model says of each clip, in their order; windows of several clips go through the model together.

    A window is padded with zeros to `samples`, as in training, and the model is told its true length.

    Args:
        model: an `AudioClassifier`; its mode does not matter, and stays.
        sounds: read as they are needed.
        samples: of a window.
        hop: see `window_starts`.
        batch_size: how many windows at once.

    Raises:
        ParameterError: a batch size below 1, or what `window_starts` refuses.
    """
    if batch_size < 1:
        raise ParameterError("batch_size", f"{batch_size}", "1 or more")
    clips: deque[tuple[list[int], list]] = deque()  # the windows of each, and what was said of them until now
    waiting: list[tuple[Sound, Tensor, list]] = []
    for sound in sounds:
        starts, said = window_starts(len(sound.waveform), samples, hop), []
        clips.append((starts, said))
        waiting += [(sound, sound.waveform[start : start + samples], said) for start in starts]
        while len(waiting) >= batch_size:
            _say(model, waiting[:batch_size], samples)
            del waiting[:batch_size]
        while clips and len(clips[0][0]) == len(clips[0][1]):
            yield _heard(*clips.popleft())
    if waiting:
        _say(model, waiting, samples)
    for clip in clips:
        yield _heard(*clip)


@torch.no_grad()
def _say(model: nn.Module, windows: Sequence[tuple[Sound, Tensor, list]], samples: int) -> None:
    """Append to the list of each window the pair of its logits and its embedding."""
    device = device_of(model)
    waveform = torch.stack([F.pad(window, (0, samples - len(window))) for _, window, _ in windows]).to(device)
    lengths = torch.tensor([len(window) for _, window, _ in windows], device=device)
    numbers = {name: torch.tensor([getattr(s, name) for s, _, _ in windows], device=device) for name in model.needs}
    with training.evaluating(model):
        out = model.read(model.features(waveform, lengths), **numbers)
    logits = out.logits.float().cpu().reshape(len(windows), -1)
    for (_, _, found), *pair in zip(windows, logits, out.embedding.float().cpu(), strict=True):
        found.append(pair)


def told(model: nn.Module, of: Example | Sound) -> dict[str, Any]:
    """The numbers that this model needs to be told of a batch or a clip, of word and age."""
    return {name: getattr(of, name) for name in model.needs}


def _heard(starts: list[int], said: list) -> Heard:
    return Heard(*(torch.stack(part) for part in zip(*said, strict=True)), torch.tensor(starts))


def answers(logits: Float[Tensor, "clips outputs"]) -> Float[Tensor, "clips outputs"]:
    """Probabilities of classes; of one output, a regression, the number itself."""
    return logits if logits.shape[1] == 1 else logits.softmax(dim=1)


def vote(
    model: nn.Module,
    waveform: Float[Tensor, " samples"],
    seconds: float | int | None = None,
    hop: float | int | None = None,
    *,
    word: int = NOT_TOLD,
    age: int = NOT_TOLD,
    batch_size: int = 16,
) -> Vote:
    """The mean answer of windows that slide over a clip: of probabilities, or of the numbers of a regression.

    Args:
        model: an `AudioClassifier`.
        waveform: `(samples,)`, 16 kHz.
        seconds: of a window; None for what the model was built for.
        hop: from one window to the next, in seconds; None for half a window, 0 for the first window alone.
        word: its number, where the model is told one.
        age: likewise.
        batch_size: how many windows at once.

    Raises:
        ParameterError: see `window_starts`.
    """
    seconds = model.config["seconds"] if seconds is None else seconds
    samples, step = in_samples(seconds, hop)
    sound = Sound(waveform, word, age)
    heard = next(listen(model, [sound], samples=samples, hop=step, batch_size=batch_size))
    windows = answers(heard.logits)
    return Vote(windows.mean(dim=0), windows, heard.starts / SAMPLE_RATE)


def in_samples(seconds: float | int, hop: float | int | None) -> tuple[int, int]:
    """A window and a hop in samples; None for a hop of half a window."""
    return round(seconds * SAMPLE_RATE), round((seconds / 2 if hop is None else hop) * SAMPLE_RATE)


# A whole data set


@dataclass(frozen=True)
class Predictions:
    """What a model says of each clip of a data set, and what is known of the clips, all in one order.

    logits: `(clips, classes)`; of a regression `(clips, 1)`, the number.
    targets: `(clips,)`, numbers of classes, or numbers.
    embeddings: `(clips, width)`.
    seconds: `(clips,)`, of the sound that the model heard.
    paths, words, ages, speakers: of each clip; "" and None where nothing is said of it.
    groups: what clips are drawn by when an interval is wanted: what was kept together when they were divided, speakers
        unless another column was named; their paths where that is not known of all.
    """

    logits: Float[Tensor, "clips outputs"]
    targets: Num[Tensor, " clips"]
    embeddings: Float[Tensor, "clips width"]
    seconds: Float[Tensor, " clips"]
    paths: tuple[str, ...]
    words: tuple[str, ...]
    ages: tuple[float | None, ...]
    speakers: tuple[str, ...]
    groups: tuple[str, ...]

    @classmethod
    def of(
        cls, clips: Sequence[Recording], logits: Tensor, targets: Tensor, embeddings: Tensor, seconds: Tensor
    ) -> Predictions:
        """These tensors with what is known of the clips."""
        paths = tuple(str(clip.path) for clip in clips)
        known = (tuple(getattr(clip, name) for clip in clips) for name in ("word", "age", "speaker"))
        groups = tuple(clip.group for clip in clips)
        return cls(logits, targets, embeddings, seconds, paths, *known, groups if all(groups) else paths)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def task(self) -> str:
        return "regression" if self.logits.shape[1] == 1 else "classification"

    @property
    def probabilities(self) -> Float[Tensor, "clips outputs"]:
        """Of classes, in float64; see `answers`."""
        return answers(self.logits.double())

    @property
    def predicted(self) -> Num[Tensor, " clips"]:
        """The number of the class of the highest logit; of a regression, the number."""
        return self.logits[:, 0] if self.task == "regression" else self.logits.argmax(dim=1)

    def at(self, places: Sequence[int]) -> Predictions:
        """Those of some clips only, in this order."""
        rows = torch.tensor(places, dtype=torch.int64)
        tensors = (getattr(self, name)[rows] for name in ("logits", "targets", "embeddings", "seconds"))
        texts = (tuple(getattr(self, name)[place] for place in places) for name in _TEXTS)
        return Predictions(*tensors, *texts)

    def to_csv(self, path: str | Path, names: Sequence[str] = ()) -> None:
        """A row for each clip: what is known of it, its target, what was said, and the probability of each class.

        Args:
            path: of the file, in UTF-8, which appears whole or not at all.
            names: of the classes, for targets and columns; numbers if there are none.

        Raises:
            CacheError: it cannot be written.
        """
        regression = self.task == "regression"
        names = list(names) or [str(number) for number in range(self.logits.shape[1])]
        said = [number if regression else names[number] for number in self.predicted.tolist()]
        targets = [number if regression else names[number] for number in self.targets.tolist()]
        columns = {name.removesuffix("s"): getattr(self, name) for name in _KNOWN} | {"seconds": self.seconds.tolist()}
        columns |= {"target": targets, "prediction": said}
        if not regression:
            columns |= {f"p({name})": self.probabilities[:, number].tolist() for number, name in enumerate(names)}
        write_columns(path, columns)


_KNOWN = ("paths", "words", "ages", "speakers")
_TEXTS = (*_KNOWN, "groups")


def predictions(
    model: nn.Module, dataset: ClassificationDataset, *, hop: float | int = 0.0, batch_size: int = 16,
    progress: bool = False,
) -> Predictions:  # fmt: skip
    """What a model says of every clip of a data set; those that are left out (`on_error="skip"`) are not among them.

    Args:
        model: an `AudioClassifier`; its mode does not matter, and stays.
        dataset: crops and pads as it does for training.
        hop: above 0, whole clips are read and heard in windows so far apart, in seconds; the mean probability of the
            windows stands for the clip, and is in `logits` as its logarithm.
        batch_size: how many windows at once.
        progress: whether a bar is shown.

    Raises:
        MediaError, DatasetError: a clip cannot be used, and the data set raises then.
        DatasetError: none can be used.
        ParameterError: see `listen`.
    """
    from tqdm.auto import tqdm

    kept, targets, lengths = [], [], []

    def sounds() -> Iterator[Sound]:
        for index in tqdm(range(len(dataset)), desc="listening", disable=not progress):
            example = dataset[index]
            if example is None:
                continue
            waveform = example.waveform[: int(example.length)]
            if hop and len(waveform) == dataset.samples:  # there may be more of it
                waveform = media.read_audio(dataset.items[index].path, SAMPLE_RATE)
            kept.append(dataset.items[index])
            targets.append(example.target)
            lengths.append(len(waveform))
            yield Sound(waveform, int(example.word), int(example.age))

    samples, step = in_samples(dataset.samples / SAMPLE_RATE, hop)
    heard = list(listen(model, sounds(), samples=samples, hop=step, batch_size=batch_size))
    if not kept:
        raise DatasetError("items", "none can be used", "at least one", dataset.report())
    logits = torch.stack([_one(each.logits) for each in heard])
    embeddings = torch.stack([each.embeddings.mean(dim=0) for each in heard])
    return Predictions.of(kept, logits, torch.tensor(targets), embeddings, torch.tensor(lengths) / SAMPLE_RATE)


def _one(logits: Float[Tensor, "windows outputs"]) -> Float[Tensor, " outputs"]:
    """Logits of the clip: of one window its own, of several those whose softmax is the mean of theirs."""
    if len(logits) == 1:
        return logits[0]
    mean = answers(logits.double()).mean(dim=0)
    return (mean if logits.shape[1] == 1 else mean.clamp(min=torch.finfo(torch.float32).tiny).log()).float()


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several parts as one: of the held-out parts of all folds, the out-of-fold predictions.

    Raises:
        ParameterError: no parts, other classes, or a clip that is in two of them, which would count twice.
    """
    if not parts or len({part.logits.shape[1] for part in parts}) > 1:
        raise ParameterError("parts", f"{len(parts)}", "one or more, all of the same classes")
    paths = [path for part in parts for path in part.paths]
    if len(set(paths)) < len(paths):
        twice = next(path for place, path in enumerate(paths) if path in paths[:place])
        advice = "Out-of-fold predictions are those of each fold's held-out part, not of the test part that all share."
        raise ParameterError("parts", f"{twice} in two of them", "each clip in one", advice)
    tensors = (torch.cat([getattr(p, name) for p in parts]) for name in ("logits", "targets", "embeddings", "seconds"))
    texts = (tuple(text for part in parts for text in getattr(part, name)) for name in _TEXTS)
    return Predictions(*tensors, *texts)
