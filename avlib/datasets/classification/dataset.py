"""Data settings, recordings as waveforms of one length, and their statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ...clips.speech import AGES
from ...errors import DatasetError, MediaError, ParameterError, ShapeError, check_choice
from ...features import Moments, valid_mask
from ...settings import BelowOne, Natural, Number, Positive, settings
from ..items import ItemDataset
from ..sources import SAMPLE_RATE, FileReader, from_int16, read_window, to_int16
from .table import Labels, Recording, age_index, word_index

UNKNOWN = -1  # number of a word or an age that is not known
CROPS = ("start", "centre", "random")
_WHOLE = 30.0  # seconds; in memory, longer clips stay in their files if crops are random
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@settings
class Data:
    """Clips, their division and their form.

    data: a table of recordings (`read_recordings`), or a folder with a sub-folder for each class; "" takes the built-in
        corpus.
    target: column of the target; "" is "label", or of a folder its sub-folders.
    order: classes, or steps of a regression, in their order; empty sorts them.
    word_column, age_column, speaker_column: columns of the table, if it has them; see `read_recordings`.
    group: column whose clips stay in one part; "" is the speaker.
    words: only clips of these words; empty for all.
    filter_dataset: as in the README: whether there are such words. None: follows from `words`.
    train_file, valid_file, test_file: tables of given parts; `valid_file` may be left out.
    splitted_data_files: as in the README: whether they are given. None: follows from these.
    test_size, valid_size: shares of all clips. 0: no such part.
    k_fold: number of folds of what is not in the test part, for `cross_validated`; 0: no folds.
    fold: number of the fold that validates, from 0; `valid_size` is not used then.
    shuffle: off keeps the order of the table, in the division and in training.
    split_seed: of the division; None: the training's seed.
    seconds: longest part of a clip that is used.
    crop: part of a longer clip: "start", "centre", or "random", anew in each epoch of training ("centre" elsewhere).
    pad: "full": zeros up to `seconds`; "longest": up to the longest clip, if that is shorter.
    ages: in years; a clip's age is the nearest of them.
    on_error: "raise" or "skip", for clips that cannot be used.
    num_words, speakers, takes, abnormal, snr, clips_seed: of the built-in corpus, see `avlib.clips.speech.corpus`.
    """

    data: str = ""
    target: str = ""
    order: Sequence[str] = ()
    word_column: str = "word"
    age_column: str = "age"
    speaker_column: str = "speaker"
    group: str = ""
    words: Sequence[str] = ()
    filter_dataset: bool | None = None
    train_file: str = ""
    valid_file: str = ""
    test_file: str = ""
    splitted_data_files: bool | None = None
    test_size: BelowOne = 0.3
    valid_size: BelowOne = 0.2
    k_fold: Natural = 0
    fold: Natural = 0
    shuffle: bool = True
    split_seed: int | None = None
    seconds: Positive = 3.0
    crop: Literal[*CROPS] = "start"
    pad: Literal["full", "longest"] = "full"
    ages: Sequence[Number] = AGES
    on_error: Literal["raise", "skip"] = "raise"
    num_words: int = 8
    speakers: int = 48
    takes: int = 2
    abnormal: Number = 0.5
    snr: Sequence[Number] = (5.0, 20.0)
    clips_seed: int = 0

    def __post_init__(self):
        given = bool(self.train_file and self.test_file)
        for switch, what, on in (
            ("filter_dataset", "words", bool(self.words)),
            ("splitted_data_files", "train_file and test_file", given),
        ):
            if getattr(self, switch) not in (None, on):
                found = f"{str(not on).lower()}, where {what} {'are' if on else 'are not'} given"
                raise ParameterError(switch, found, "true, or neither" if on else f"{what} as well")
            object.__setattr__(self, switch, None)  # one that agrees says nothing
        if self.test_size + self.valid_size >= 1:
            found = f"{self.test_size} and {self.valid_size}"
            raise ParameterError("test_size, valid_size", found, "less than 1 together", "The rest is trained on.")
        if self.k_fold == 1:
            raise ParameterError("k_fold", f"{self.k_fold}", "2 or more, or 0 for none")
        if self.fold >= max(1, self.k_fold):
            raise ParameterError("fold", f"{self.fold}", f"0 to {max(1, self.k_fold) - 1}")
        if bool(self.train_file) != bool(self.test_file):
            lacking = "test_file" if self.train_file else "train_file"
            raise ParameterError(lacking, "none is given", "both train_file and test_file, or none of the two")
        if self.valid_file and not given:
            raise ParameterError("train_file", "none is given", "a training part, where valid_file is given")
        if given and self.k_fold:
            raise ParameterError("k_fold", f"{self.k_fold}, where train_file and test_file are given", "0")
        if given and self.data:
            raise ParameterError("data", "given together with train_file", "one of the two")


class Example(NamedTuple):
    """One item, or a batch of them; numbers are -1 where they are not known or not needed."""

    waveform: Float[Tensor, "*batch samples"]  # mono, 16 kHz, right-padded with zeros
    length: int | Int64[Tensor, " batch"]  # valid samples
    target: int | float | Int64[Tensor, " batch"] | Float[Tensor, " batch"] = -1  # class, or target of a regression
    word: int | Int64[Tensor, " batch"] = UNKNOWN
    age: int | Int64[Tensor, " batch"] = UNKNOWN  # its place in the list of ages
    index: int | Int64[Tensor, " batch"] = -1  # of the item in the data set


class ClassificationDataset(ItemDataset):
    """Recordings as waveforms of one length, mono at 16 kHz, with numbers.

    Random crops follow from (seed, epoch, index) alone, in any process. Use any DataLoader, with
    `collate_fn=dataset.collate`.

    Args:
        labels: targets as numbers; None for inference without targets.
        crop, ages, on_error: see `Data`; ages of () take any clip.
        words: of the model, in the order of their numbers; () takes any clip.

    Raises:
        DatasetError: no recordings; with `on_error="raise"` also an unknown target or word, or an age beyond `ages`.
    """

    ragged = ("sounds",)

    def __init__(
        self,
        recordings: Sequence[Recording],
        labels: Labels | None,
        *,
        seconds: float | int = 3.0,
        crop: str = "start",
        words: Sequence[str] = (),
        ages: Sequence[float | int] = AGES,
        seed: int = 0,
        on_error: str = "raise",
    ):
        super().__init__(recordings, seed, on_error)
        if not 1 / SAMPLE_RATE <= seconds < float("inf"):
            raise ParameterError("seconds", f"{seconds}", "at least one sample")
        check_choice("crop", crop, CROPS)
        self.labels, self.words, self.ages = labels, tuple(words), tuple(ages)
        self.seconds, self.crop = float(seconds), crop
        self.samples = round(self.seconds * SAMPLE_RATE)  # of every item
        for index in range(len(recordings)):
            self._attempt(self._numbers, index)

    def __getitem__(self, index: int) -> Example | None:
        return self._attempt(self._example, index)

    def collate(self, examples: list[Example | None]) -> Example:
        """Return a batch of the items that are not left out; numbers are int64, targets of a regression float32."""
        kept = [example for example in examples if example is not None]
        waveform = torch.stack([example.waveform for example in kept]) if kept else torch.empty(0, self.samples)
        length, target, word, age, index = ([example[place] for example in kept] for place in range(1, 6))
        rest = (torch.tensor(column, dtype=torch.int64) for column in (word, age, index))
        return Example(waveform, torch.tensor(length, dtype=torch.int64), self._targets(target), *rest)

    @property
    def recordings(self) -> list[Recording]:
        return list(self.items)

    @property
    def targets(self) -> Int64[Tensor, " items"] | Float[Tensor, " items"]:
        """Targets of all items; with `on_error="skip"` only after `prepared` or `usable`."""
        return self._targets([self._numbers(index)[0] for index in range(len(self))])

    @property
    def word_numbers(self) -> Int64[Tensor, " items"]:
        """Numbers of the words of all items; -1 where there is none."""
        return torch.tensor([self._numbers(index)[1] for index in range(len(self))], dtype=torch.int64)

    def contents(self, index: int) -> dict[str, np.ndarray]:
        """Samples for any epoch; none of a long clip that stays in its file."""
        self._numbers(index)
        reader = FileReader(self.items[index].path)
        if self.crop != "random":
            return {"sounds": to_int16(self._sound(index))}
        if reader.seconds > _WHOLE:
            self._sound(index)  # it can be read
            return {"sounds": np.empty(0, np.int16)}
        return {"sounds": to_int16(reader.sound())}

    def _targets(self, numbers: list[int | float]) -> Tensor:
        regression = self.labels is not None and self.labels.task == "regression"
        return torch.tensor(numbers, dtype=torch.float32 if regression else torch.int64)

    def _numbers(self, index: int) -> tuple[int | float, int, int]:
        recording: Recording = self.items[index]
        target = -1 if self.labels is None else self.labels.number(recording)
        return target, word_index(recording, self.words), age_index(recording, self.ages)

    def _example(self, index: int) -> Example:
        target, word, age = self._numbers(index)
        waveform = self._sound(index)[: self.samples]
        padded = F.pad(waveform, (0, self.samples - len(waveform)))
        return Example(padded, len(waveform), target, word, age, index)

    def _sound(self, index: int) -> Float[Tensor, " samples"]:
        """The part of a clip that is used, without padding."""
        held = self.memory["sounds"][index] if self.memory is not None else []
        if len(held) and self.crop != "random":
            return from_int16(held)
        reader = FileReader(self.items[index].path)

        def begin(samples: int) -> int:
            room = max(samples - self.samples, 0)
            return room // 2 if self.crop == "centre" else int(self._dice(index).integers(room + 1))

        if len(held):
            return from_int16(held)[begin(len(held)) :][: self.samples]
        if self.crop == "start":
            return reader.sound(seconds=self.seconds)
        if not reader.seconds:
            raise MediaError(reader, "no audio stream", "a clip with sound", "Leave it out.")
        return read_window(reader, self.seconds, begin)[0]


class Statistics(NamedTuple):
    """Statistics over all valid values of all clips."""

    mean: float
    std: float  # with n - 1 as divisor
    minimum: float
    maximum: float
    seconds: dict[float, float]  # of the items, after cropping, by quantile: 0.5 is the median
    clips: int


def statistics(
    dataset: ClassificationDataset, features: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
) -> Statistics:
    """Measure mean, deviation and range of a data set's features over valid columns.

    `features`, as `model.features`, takes waveforms `(batch, samples)` and lengths `(batch,)`; it returns values
    `(batch, ..., columns)` and their lengths in columns, or None if all columns are valid.
    """
    moments, lowest, highest = Moments(), math.inf, -math.inf
    lengths: list[Tensor] = []
    with torch.no_grad():
        for batch in DataLoader(dataset, 16, collate_fn=dataset.collate):
            if not len(batch.length):
                continue
            values, columns = features(batch.waveform, batch.length)[:2]
            lengths.append(batch.length)
            if columns is not None:
                if int(columns.max()) > values.shape[-1]:
                    found = f"{values.shape[-1]} columns, and lengths up to {int(columns.max())}"
                    raise ShapeError("features", found, "lengths in columns, which are the last axis")
                values = values.movedim(-1, 1)[valid_mask(columns.to(values.device), values.shape[-1])]
            moments.add(values.flatten())
            if values.numel():
                lowest, highest = min(lowest, values.min().item()), max(highest, values.max().item())
    if not moments.count:
        raise DatasetError("items", "none can be used", advice=dataset.report())
    std = moments.std(correction=1).item() if moments.count > 1 else 0.0
    seconds = torch.cat(lengths).double() / SAMPLE_RATE
    spread = torch.quantile(seconds, torch.tensor(_QUANTILES, dtype=torch.float64)).tolist()
    return Statistics(
        moments.mean.item(), std, lowest, highest, dict(zip(_QUANTILES, spread, strict=True)), len(seconds)
    )
