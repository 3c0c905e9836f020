"""Recordings to what a classifier hears: the same number of samples of each, and how many of them are sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ... import media
from ...clips.speech import AGES
from ...errors import DatasetError, MediaError, ParameterError, check_choice
from ..items import ItemDataset
from ..sources import SAMPLE_RATE
from .labels import Labels, age_index, word_index
from .table import Recording

CROPS = ("start", "centre", "random")
PADS = ("full", "longest")
_WHOLE = 30.0  # seconds up to which a file is read whole where the middle or any part of it may be wanted
_INT16 = 32768.0


class Example(NamedTuple):
    """One item, or a batch of them.

    waveform: mono; zeros follow at the right where the clip ended.
    length: how many of its samples are sound.
    target: number of the class, or what a regression is to give; -1 where the data set has no labels.
    word: number of the word; -1 where it is not known, or no words are asked for.
    age: number of the age in the list of ages; -1 likewise.
    index: of the item in the data set.
    """

    waveform: Float[Tensor, "*batch samples"]
    length: int | Int64[Tensor, " batch"]
    target: int | float | Int64[Tensor, " batch"] | Float[Tensor, " batch"]
    word: int | Int64[Tensor, " batch"]
    age: int | Int64[Tensor, " batch"]
    index: int | Int64[Tensor, " batch"]


class ClassificationDataset(ItemDataset):
    """Recordings as a classifier hears them: mono, at 16 kHz, cut or padded to one length.

    Channels are averaged after resampling, which is linear: averaging before would give the same. What is random about
    an item follows from (seed, epoch, index) alone, in whatever process it is made. Use it with any DataLoader and
    `collate_fn=dataset.collate`.

    Args:
        recordings: from `read_recordings`.
        labels: what targets mean in numbers; None where there are none, as for inference.
        seconds: at most so much of each clip.
        crop: which part of a longer clip: "start" as published; "centre"; or "random", anywhere, for training.
        pad: "full" makes every item `seconds` long; "longest" as long as the longest clip of the data set, but no
            longer than `seconds`.
        words: those that a model learns or has learnt, in the order of their numbers; () asks for none, and any clip
            will do.
        ages: in years, ascending, to which ages are rounded; () asks for none.
        seed: of random crops.
        on_error: "raise", or "skip" to leave out what cannot be used; `report` says what that was.

    Raises:
        DatasetError: no recordings; with `on_error="raise"` also an unknown target or word, or an age beyond `ages`.
        ParameterError: a number or choice out of range.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        labels: Labels | None,
        *,
        seconds: float | int = 3.0,
        crop: str = "start",
        pad: str = "full",
        words: Sequence[str] = (),
        ages: Sequence[float | int] = AGES,
        seed: int = 0,
        on_error: str = "raise",
    ):
        super().__init__(recordings, seed, on_error)
        if not 1 / SAMPLE_RATE <= seconds < float("inf"):
            raise ParameterError("seconds", f"{seconds}", "at least one sample")
        check_choice("crop", crop, CROPS)
        check_choice("pad", pad, PADS)
        self.labels, self.words, self.ages = labels, tuple(words), tuple(ages)
        self.seconds, self.crop, self.pad = float(seconds), crop, pad
        self._memory: list[np.ndarray | None] | None = None
        self._samples = round(self.seconds * SAMPLE_RATE) if pad == "full" else 0
        for index in range(len(recordings)):
            self._attempt(self._numbers, index)

    def __getitem__(self, index: int) -> Example | None:
        """One item; None when it is left out."""
        return self._attempt(self._example, range(len(self))[index])

    @property
    def samples(self) -> int:
        """How many samples every item has. With `pad="longest"` all clips are read once for it."""
        if not self._samples:
            lengths = [length for _, length in self._survey(self._length, "measuring", 1, False)]
            if not lengths:
                raise DatasetError("items", "none can be used", advice=self.report())
            self._samples = max(lengths)
        return self._samples

    def collate(self, examples: list[Example | None]) -> Example:
        """A batch of those items that are not left out; of none, if all are.

        `(batch, samples)` and five of `(batch,)`, int64 apart from the target of a regression, which is float32.
        """
        kept = [example for example in examples if example is not None]
        waveform = torch.stack([example.waveform for example in kept]) if kept else torch.empty(0, self.samples)
        numbers = [[example[place] for example in kept] for place in range(1, len(Example._fields))]
        length, target, word, age, index = numbers
        rest = (torch.tensor(column, dtype=torch.int64) for column in (word, age, index))
        kind = torch.float32 if self._regression else torch.int64
        return Example(waveform, torch.tensor(length, dtype=torch.int64), torch.tensor(target, dtype=kind), *rest)

    # What is known without reading a sound

    @property
    def recordings(self) -> list[Recording]:
        return list(self.items)

    @property
    def targets(self) -> Int64[Tensor, " items"] | Float[Tensor, " items"]:
        """Of all items, as in a batch; with `on_error="skip"` only after `prepared` or `usable`."""
        return torch.tensor(self._column(0), dtype=torch.float32 if self._regression else torch.int64)

    @property
    def word_numbers(self) -> Int64[Tensor, " items"]:
        """Likewise, the words; -1 where there is none."""
        return torch.tensor(self._column(1), dtype=torch.int64)

    # Passes over the whole data set

    def usable(self, jobs: int | None = None, progress: bool = True) -> ClassificationDataset:
        """See `ItemDataset.usable`; in memory there is nothing else."""
        return self if self._memory is not None else super().usable(jobs, progress)

    def prepared(self, jobs: int | None = None, progress: bool = True) -> ClassificationDataset:
        """The data set in memory, without what cannot be used: read once, in several processes, then fast.

        The items are the same. A second takes 32 kB where 16 bit hold it without loss (16 bit, mono, 16 kHz in the
        file), 64 kB elsewhere. Random crops need whole clips: those above 30 s stay in their files.
        """
        if self._memory is not None:
            return self
        pairs = list(self._survey(self._held, "reading", jobs, progress))
        other = self._of([index for index, _ in pairs])
        other._memory = [sound if len(sound) else None for _, sound in pairs]
        return other

    # One item

    @property
    def _regression(self) -> bool:
        return self.labels is not None and self.labels.task == "regression"

    def _column(self, place: int) -> list[int | float]:
        return [self._numbers(index)[place] for index in range(len(self))]

    def _numbers(self, index: int) -> tuple[int | float, int, int]:
        """Of target, word and age."""
        recording: Recording = self.items[index]
        target = -1 if self.labels is None else self.labels.number(recording)
        age = -1
        if recording.age is not None and self.ages:
            try:
                age = age_index(recording.age, self.ages)
            except DatasetError as error:
                found = f"its age, {error.found}, is beyond those listed"
                raise DatasetError(recording, found, error.expected, error.advice) from error
        return target, word_index(recording, self.words), age

    def _example(self, index: int) -> Example:
        target, word, age = self._numbers(index)
        waveform = self._sound(index)[: self.samples]
        padded = F.pad(waveform, (0, self.samples - len(waveform)))
        return Example(padded, len(waveform), target, word, age, index)

    def _sound(self, index: int) -> Float[Tensor, " samples"]:
        """The part of a clip that is heard, without padding."""
        held = self._memory[index] if self._memory is not None else None
        if held is not None and held.dtype == np.int16:
            held = held.astype(np.float32) / np.float32(_INT16)
        path = self.items[index].path
        if self.crop == "start":
            return self._read(path, 0.0, self.seconds) if held is None else torch.from_numpy(held)
        wanted = round(self.seconds * SAMPLE_RATE)
        if held is None and (seconds := self._seconds(path)) > _WHOLE:
            start = self._start(index, int(seconds * SAMPLE_RATE), wanted)
            return self._read(path, start / SAMPLE_RATE, self.seconds)
        waveform = self._read(path) if held is None else torch.from_numpy(held)
        start = self._start(index, len(waveform), wanted)
        return waveform[start : start + wanted]

    def _start(self, index: int, samples: int, wanted: int) -> int:
        room = max(samples - wanted, 0)
        if self.crop == "centre":
            return room // 2
        return int(np.random.default_rng([self.seed, int(self._epoch), index]).integers(room + 1))

    def _held(self, index: int) -> np.ndarray:
        """What memory keeps of a clip: all that any epoch needs; nothing of one that stays in its file."""
        self._numbers(index)
        if self.crop == "random":
            path = self.items[index].path
            if self._seconds(path) > _WHOLE:
                self._sound(index)
                return np.empty(0, np.int16)
            sound = self._read(path).numpy()
        else:
            sound = self._sound(index).numpy()
        scaled = sound * np.float32(_INT16)
        exact = np.abs(scaled).max() < _INT16 and np.array_equal(scaled, np.rint(scaled))
        return scaled.astype(np.int16) if exact else sound

    def _read(self, path, start: float = 0.0, seconds: float | None = None) -> Float[Tensor, " samples"]:
        return media.read_audio(path, SAMPLE_RATE, start=start, seconds=seconds)

    def _seconds(self, path) -> float:
        sound = media.probe(path).audio
        if sound is None:
            raise MediaError(path, "no audio stream", "a clip with sound", "Leave it out.")
        return sound.seconds

    def _length(self, index: int) -> int:
        return len(self._sound(index))

    def _check_whole(self, index: int) -> bool:
        self._numbers(index)
        self._sound(index)
        return True
