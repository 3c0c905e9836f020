"""Clips to what AudioToken sees: a window of sound at 16 kHz and one picture of it.

The published loader reads what it finds: sound at any rate as if it were 16 kHz, of several channels the first. This
one resamples and mixes down, and says on the item what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from ...errors import ParameterError, TooShortError
from ...features import BEATS_SHORTEST
from ..items import ItemDataset
from ..sources import SAMPLE_RATE, FileReader, read_window
from .table import Clip

_WINDOW = 400  # samples of one frame
_PUBLISHED = 10.0  # seconds that the published loader takes every clip for


class Sample(NamedTuple):
    """One item.

    waveform: 16 kHz, mono.
    length: how many of its samples are sound; zeros follow where the clip ended.
    image: in [-1, 1]; None where none is wanted.
    label: its class, "" where it is not known.
    name: of the clip.
    start: where in the clip the window begins, in seconds.
    caption: what it shows, in words; "" where nobody said.
    notes: what was done to the sound and the picture, in words.
    """

    waveform: Float[Tensor, " samples"]
    length: int
    image: Float[Tensor, "3 height width"] | None
    label: str
    name: str
    start: float
    caption: str = ""
    notes: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Several of them; `lengths` is what BEATs takes to mask what is no sound."""

    waveform: Float[Tensor, "batch samples"]
    lengths: Int64[Tensor, " batch"]
    image: Float[Tensor, "batch 3 height width"] | None
    label: list[str]
    name: list[str]
    start: list[float]
    caption: list[str]
    notes: list[tuple[str, ...]]


class AudioTokenDataset(ItemDataset):
    """Clips as AudioToken sees them.

    What is random about an item follows from (seed, epoch, index) alone, in whatever process it is made. Use it with
    any DataLoader and `collate_fn=dataset.collate`.

    Args:
        clips: from `read_clips`, `select` or `scene_clips`.
        seconds: of the window; published 5 for training, 10 for inference. None takes every clip whole, and pads a
            batch to its longest.
        image_size: height and width of the picture. The whole picture is fitted to it, whatever its own shape, as
            published; 16:9 becomes 8:5 by the default.
        window: where it begins: "random" is anywhere from the start to the last place where it fits, into the
            pictures too if they are read; "middle"; a number of seconds; or "published", a whole second below
            10 - `seconds`, so never the last one.
        frame: which picture: "random" among those on the screen during the window, or "middle" of it; a number is
            the second of the clip; "published" divides the pictures by 10 for the rate, as if all clips had 10 s.
        crop: whether to take the square in the centre of the picture before it is fitted.
        tile: whether a clip that is shorter than the window is repeated to fill it, as published, where every clip is
            repeated to 10 s (`window="published"` does so). If not, zeros follow, and `length` says how many samples
            are sound: then nothing is heard that was not there, and a mask can leave the rest out.
        images: False reads no picture, and needs no video.
        channel: of the sound; None averages all, 0 takes the first as published.
        seed: of the windows and frames.
        on_error: "raise", or "skip" to leave out what cannot be used; `report` says what that was.

    Raises:
        DatasetError: no clips.
        ParameterError: a number or choice out of range.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        seconds: float | int | None = 5.0,
        image_size: tuple[int, int] = (320, 512),
        *,
        window: str | float | int = "random",
        frame: str | float | int = "random",
        crop: bool = False,
        tile: bool = False,
        images: bool = True,
        channel: int | None = None,
        seed: int = 0,
        on_error: str = "raise",
    ):
        super().__init__(clips, seed, on_error)
        if seconds is not None and not BEATS_SHORTEST / SAMPLE_RATE <= seconds < float("inf"):
            expected = f"at least {BEATS_SHORTEST / SAMPLE_RATE} s, for the first tokens of BEATs, or None for all"
            raise ParameterError("seconds", f"{seconds}", expected)
        if min(image_size) < 1:
            raise ParameterError("image_size", f"{image_size}", "height and width, each 1 or more")
        for name, choice in (("window", window), ("frame", frame)):
            if choice not in ("random", "middle", "published") and not (isinstance(choice, Real) and choice >= 0):
                raise ParameterError(name, repr(choice), '"random", "middle", "published" or a number of seconds')
        if window == "published" and (seconds is None or seconds > _PUBLISHED):
            raise ParameterError("seconds", f"{seconds}", f"at most {_PUBLISHED:g} with the published window")
        if channel is not None and channel < 0:
            raise ParameterError("channel", f"{channel}", "0 or more, or None for the average")
        self.seconds, self.image_size = None if seconds is None else float(seconds), tuple(image_size)
        self.window, self.frame = window, frame
        self.crop, self.tile, self.images, self.channel = crop, tile, images, channel

    def __getitem__(self, index: int) -> Sample | None:
        """One item; None when it is left out."""
        return self._attempt(self._sample, range(len(self))[index])

    def collate(self, samples: list[Sample | None]) -> Batch:
        """A batch of those items that are not left out, padded to the longest; of none, if all are."""
        kept = [sample for sample in samples if sample is not None]
        longest = max((len(sample.waveform) for sample in kept), default=round((self.seconds or 0) * SAMPLE_RATE))
        waveform, image = torch.zeros(len(kept), longest), torch.zeros(len(kept), 3, *self.image_size)
        for row, sample in enumerate(kept):
            waveform[row, : len(sample.waveform)] = sample.waveform
            if self.images:
                image[row] = sample.image
        _, lengths, _, *rest = map(list, zip(*kept, strict=True)) if kept else ([] for _ in Sample._fields)
        return Batch(waveform, torch.tensor(lengths, dtype=torch.int64), image if self.images else None, *rest)

    def _sample(self, index: int) -> Sample:
        clip: Clip = self.items[index]
        dice = np.random.default_rng([self.seed, int(self._epoch), index])
        reader = clip.reader()
        waveform, start, notes = self._sound(clip, reader, dice)
        length, wanted = len(waveform), round((self.seconds or 0) * SAMPLE_RATE)
        if length < wanted:
            notes.append(f"{length / SAMPLE_RATE:.3f} s of sound, then zeros")
            waveform = F.pad(waveform, (0, wanted - length))
        shortest = _WINDOW if wanted else BEATS_SHORTEST
        if length < shortest:
            found = f"its sound has {length} samples at {SAMPLE_RATE} Hz"
            expected = f"at least {shortest}, which is {shortest / SAMPLE_RATE} s"
            padded = "" if wanted or length < _WINDOW else ", or give a number of seconds, up to which zeros follow"
            raise TooShortError(clip, found, expected, f"Leave that clip out{padded}.")
        if not waveform.any():
            notes.append("digital silence")
        image = None
        if self.images:
            image, note = self._image(reader, dice, start, start + length / SAMPLE_RATE)
            notes += note
        return Sample(waveform, length, image, clip.label, clip.name, start, clip.caption, tuple(notes))

    def _sound(
        self, clip: Clip, reader: FileReader, dice: np.random.Generator
    ) -> tuple[Float[Tensor, " samples"], float, list[str]]:
        """The window, as far as the clip goes unless it is repeated; where it begins; what was done."""
        notes = reader.notes(self.channel)
        if self.seconds is None:
            return reader.sound(self.channel), 0.0, notes
        whole = round((_PUBLISHED if self.window == "published" else self.seconds) * SAMPLE_RATE)

        def repeated(waveform: Tensor) -> Tensor:
            if not _WINDOW <= len(waveform) < whole:
                return waveform
            notes.append(f"repeated from {len(waveform) / SAMPLE_RATE:.3f} s to {whole / SAMPLE_RATE:g} s")
            return waveform.repeat(ceil(whole / len(waveform)))[:whole]

        begin = partial(self._start, dice, reader)
        waveform, start = read_window(reader, self.seconds, begin, self.channel, repeated if self.tile else None)
        return waveform, start / SAMPLE_RATE, notes

    def _start(self, dice: np.random.Generator, reader: FileReader, samples: int) -> int:
        """The first sample of the window, of a clip that has so many."""
        wanted = round(self.seconds * SAMPLE_RATE)
        if self.window == "published":
            last = min(max(ceil(_PUBLISHED - self.seconds), 1) - 1, max(samples - wanted, 0) // SAMPLE_RATE)
            return int(dice.integers(last + 1)) * SAMPLE_RATE
        if isinstance(self.window, Real):
            return round(self.window * SAMPLE_RATE)
        if self.images:  # some videos end before their sound: there would be nothing to see
            samples = min(samples, int(reader.pictures_end * SAMPLE_RATE))
        room = max(samples - wanted, 0)
        return room // 2 if self.window == "middle" else int(dice.integers(room + 1))

    def _image(
        self, reader: FileReader, dice: np.random.Generator, start: float, end: float
    ) -> tuple[Float[Tensor, "3 height width"], list[str]]:
        if self.frame == "published":

            def rule(count: int, rate: float) -> list[int]:
                per_second = count // int(_PUBLISHED)
                low, high = int(start * per_second), int((start + (self.seconds or _PUBLISHED)) * per_second)
                return [min(int(dice.integers(low, high + 1)), count - 1)]  # published: may be one past the last

            return self._fitted(reader.pictures(rule, size=self.image_size)[0]), []
        time = self.frame
        if not isinstance(time, Real):
            end = max(start, min(end, reader.pictures_end))
            time = (start + end) / 2 if time == "middle" else dice.uniform(start, end)
        notes = []
        if time > reader.pictures_end:
            notes.append(f"its pictures end at {reader.pictures_end:.2f} s: the last one is shown")
        shown = reader.pictures(times=[min(float(time), reader.last_time)], size=self.image_size)
        return self._fitted(shown[0]), notes

    def _fitted(self, picture: UInt8[Tensor, "3 shown_height shown_width"]) -> Float[Tensor, "3 height width"]:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as T

        if tuple(picture.shape[1:]) != self.image_size or self.crop:
            image = T.to_pil_image(picture)
            if self.crop:
                image = T.center_crop(image, min(image.size))
            picture = T.pil_to_tensor(T.resize(image, list(self.image_size), InterpolationMode.BICUBIC))
        return picture.float() / 127.5 - 1

    def _check_whole(self, index: int) -> bool:
        self._sample(index)
        return True
