"""Clips as AudioToken sees them: a window of sound at 16 kHz and one picture of it.

The published loader takes sound of any rate for 16 kHz, and of several channels the first. This one resamples and
averages, and notes on the item what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from numbers import Real
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ...errors import ParameterError, TooShortError
from ...features.spectrograms import BEATS_MELS, BEATS_SHORTEST, beats_fbank
from ...settings import Count, Positive, settings
from ..items import ItemDataset
from ..sources import SAMPLE_RATE, FileReader, read_window
from .table import CLASSES, Clip, SceneClip, phrase

HELD_OUT = 1000  # built-in scenes of this seed and above are never trained on
MOST_HELD_OUT = 128  # unless another number is given
_WINDOW = 400  # samples of one frame
_HOP = 160  # samples from one frame of an fbank to the next
_PUBLISHED = 10.0  # seconds that the published loader assumes of every clip


@settings
class Data:
    """Clips to learn from.

    data: a folder of clips, or a table that lists them (`read_clips`); "" takes built-in scenes.
    csv: the table of a folder in VGGSound's layout.
    exclude: plain text lists of clips to leave out.
    seconds: of sound.
    image_size: height and width of a picture.
    align: sound and pictures of a file on one clock; False as published, see `media.read_clip`.
    clips, frames: number of the scenes that are trained on, and moments at which each is seen.
    held_out: clips for evaluation; of the user's own those of the split "test", at most so many, or where there is
        none, drawn from all. None: 128; drawn from all a quarter, if that is less.
    clips_seed: chooses the scenes that are trained on, and which of the user's own clips are held out.
    on_error: "raise" or "skip", for clips that cannot be used.
    """

    @property
    def FREE(self) -> tuple[str, ...]:
        return ("clips", "frames") if self.data else ("csv", "exclude", "held_out", "on_error", "align")

    data: str = ""
    csv: str = ""
    exclude: Sequence[str] = ()
    seconds: Positive = 5.0
    image_size: Annotated[Sequence[Count], Field(min_length=2, max_length=2)] = (320, 512)
    align: bool = True
    clips: Count = 2048
    frames: Count = 3
    held_out: Count | None = None
    clips_seed: Annotated[int, Field(ge=0, lt=HELD_OUT)] = 0
    on_error: Literal["raise", "skip"] = "raise"


class Sample(NamedTuple):
    """One item.

    waveform: 16 kHz, mono.
    length: samples that are sound; zeros follow where the clip ended.
    fbank: of the waveform, by `beats_fbank`; None where `collate` computes it.
    image: in [-1, 1]; None where none is wanted.
    classes: numbers of kind, size and colour, in the order of `CLASSES`; -1 where they are not known.
    label: its class, "" where it is not known.
    prompt: the caption, or some of its words, as the data set's `prompt` has it; "" without a caption.
    name: of the clip.
    start: of the window in the clip, in seconds.
    notes: changes that were made to the sound and the picture, in words.
    """

    waveform: Float[Tensor, " samples"]
    length: int
    fbank: Float[Tensor, "frames mels"] | None
    image: Float[Tensor, "3 height width"] | None
    classes: tuple[int, ...]
    label: str
    prompt: str
    name: str
    start: float
    notes: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Several items; BEATs takes `lengths` to mask what is no sound."""

    waveform: Float[Tensor, "batch samples"]
    lengths: Int64[Tensor, " batch"]
    fbank: Float[Tensor, "batch frames mels"]
    image: Float[Tensor, "batch 3 height width"] | None
    classes: Int64[Tensor, "batch attributes"]
    label: list[str]
    prompt: list[str]
    name: list[str]
    start: list[float]
    notes: list[tuple[str, ...]]


class AudioTokenDataset(ItemDataset):
    """Clips as AudioToken sees them.

    All that is random about an item follows from (seed, epoch, index), in any process. Use it with any DataLoader and
    `collate_fn=dataset.collate`.

    Args:
        seconds: of the window; published 5 for training, 10 for inference. None takes every clip whole, and pads a
            batch to its longest.
        image_size: height and width. The whole picture is fitted to it, whatever its own shape, as published; 16:9
            becomes 8:5 by the default.
        window: its beginning: "random" is anywhere from the start to the last place where it fits, into the pictures
            too if they are read; "middle"; a number of seconds; or "published", a whole second below 10 - `seconds`, so
            never the last one.
        frame: the picture: "random" among those on the screen during the window, or "middle" of it; a number is the
            second of the clip; "published" divides the pictures by 10 for the rate, as if all clips had 10 s.
        moments: 0 reads windows and pictures anew each time. Otherwise the data set consists of the middle window of
            each clip and its pictures at so many moments, for `prepared` to hold; with `window="random"` one moment is
            drawn, and the sound begins anywhere, its beginning following its end.
        prompt: a text in which "{}" stands for a caption.
        word_dropout: with random windows of `moments`, how often size, colour or article of a scene's caption is left
            out.
        caption_dropout: likewise, the whole caption.
        crop: take the square in the centre of the picture before it is fitted.
        tile: repeat a clip that is shorter than the window to fill it, as published, where every clip is repeated to
            10 s (`window="published"` does so). If not, zeros follow, and `length` counts the samples that are sound.
        images: False reads no picture, and needs no video.
        channel: of the sound; None averages all, 0 takes the first as published.
        align: sound and pictures of a file on one clock; False as published, see `media.read_clip`.
        on_error: "raise", or "skip" to leave out unusable clips and `report` them.

    Raises:
        DatasetError: no clips.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        seconds: float | int | None = 5.0,
        image_size: tuple[int, int] = (320, 512),
        *,
        window: str | float | int = "random",
        frame: str | float | int = "random",
        moments: int = 0,
        prompt: str = "{}",
        word_dropout: float = 0.0,
        caption_dropout: float = 0.0,
        crop: bool = False,
        tile: bool = False,
        images: bool = True,
        channel: int | None = None,
        align: bool = True,
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
        self.window, self.frame, self.moments, self.channel = window, frame, moments, channel
        self.prompt, self.word_dropout, self.caption_dropout = prompt, word_dropout, caption_dropout
        self.crop, self.tile, self.images, self.align = crop, tile, images, align

    def __getitem__(self, index: int) -> Sample | None:
        return self._attempt(self._held if self.moments else self._sample, index)

    def collate(self, samples: list[Sample | None]) -> Batch:
        """Put items into a batch, padded to the longest, without those left out."""
        kept = [sample for sample in samples if sample is not None]
        longest = max((len(sample.waveform) for sample in kept), default=round((self.seconds or 0) * SAMPLE_RATE))
        waveform = torch.zeros(len(kept), longest)
        for row, sample in zip(waveform, kept, strict=True):
            row[: len(sample.waveform)] = sample.waveform
        columns = zip(*kept, strict=True) if kept else ([] for _ in Sample._fields)
        _, lengths, fbanks, images, classes, *rest = map(list, columns)
        if kept:
            fbank = torch.stack(fbanks) if self.moments else beats_fbank(waveform)
        else:
            fbank = torch.empty(0, max(0, (longest - _WINDOW) // _HOP + 1), BEATS_MELS)
        image = torch.stack(images) if kept and self.images else torch.empty(0, 3, *self.image_size)
        numbers = torch.tensor(classes, dtype=torch.int64).reshape(len(kept), len(CLASSES))
        lengths = torch.tensor(lengths, dtype=torch.int64)
        return Batch(waveform, lengths, fbank, image if self.images else None, numbers, *rest)

    def contents(self, index: int) -> dict[str, np.ndarray]:
        """Read the middle window of a clip, its fbank, and pictures at `moments`.

        Raises:
            TooShortError: the clip does not fill the window.
        """
        clip: Clip = self.items[index]
        reader, wanted = clip.reader(self.align), round(self.seconds * SAMPLE_RATE)
        begin = partial(self._start, "middle", None, reader)
        waveform, start = read_window(reader, self.seconds, begin, self.channel)
        if len(waveform) < wanted:
            raise TooShortError(clip, f"{len(waveform) / SAMPLE_RATE:.2f} s", f"{self.seconds:g} s, the window")
        sound = (waveform.numpy() * 2**15).round().clip(-(2**15), 2**15 - 1).astype(np.int16)
        times = start / SAMPLE_RATE + (np.arange(self.moments) + 0.5) / self.moments * self.seconds
        shown = reader.pictures(times=[min(time, reader.last_time) for time in times.tolist()], size=self.image_size)
        fbank = beats_fbank(torch.from_numpy(sound).float() / 2**15)
        pictures = torch.stack([self._fitted(picture) for picture in shown])
        return {"sounds": sound, "fbanks": fbank.numpy(), "pictures": pictures.numpy()}

    def _held(self, index: int) -> Sample:
        clip: Clip = self.items[index]
        if self.memory is None:
            held = {name: torch.from_numpy(array) for name, array in self.contents(index).items()}
        else:
            held = {name: rows[index] for name, rows in self.memory.items()}
        moment, shift, caption = self.moments // 2, 0, clip.caption
        if self.window == "random":
            dice = self._dice(index)
            moment, shift = int(dice.integers(self.moments)), int(dice.integers(len(held["fbanks"])))
            caption = self._some_words(clip, dice.random(4))
        waveform = held["sounds"].roll(shift * _HOP).float() / 2**15
        fbank = held["fbanks"].roll(shift, 0)  # but for the seam, that of the waveform
        image = held["pictures"][moment].float() / 127.5 - 1
        return Sample(waveform, len(waveform), fbank, image, *self._known(clip, caption), 0.0)

    def _some_words(self, clip: Clip, drawn: np.ndarray) -> str:
        size, colour, article, any_ = drawn >= [*[self.word_dropout] * 3, self.caption_dropout]
        if not any_ or not isinstance(clip, SceneClip):
            return clip.caption if any_ else ""
        words = clip.attributes
        caption = phrase(words["kind"], words["size"] if size else "", words["colour"] if colour else "")
        return caption if article else caption.removeprefix("a ")

    def _known(self, clip: Clip, caption: str) -> tuple[tuple[int, ...], str, str, str]:
        prompt = self.prompt.replace("{}", caption) if caption else ""
        return clip.classes, clip.label, prompt, clip.name

    def _sample(self, index: int) -> Sample:
        clip: Clip = self.items[index]
        dice, reader = self._dice(index), clip.reader(self.align)
        waveform, start, notes = self._sound(reader, dice)
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
            picture, note = self._picture(reader, dice, start, start + length / SAMPLE_RATE)
            image, notes = self._fitted(picture).float() / 127.5 - 1, notes + note
        return Sample(waveform, length, None, image, *self._known(clip, clip.caption), start, tuple(notes))

    def _sound(self, reader: FileReader, dice: np.random.Generator) -> tuple[Tensor, float, list[str]]:
        """The window, as far as the clip goes unless it is repeated; its start in seconds; notes."""
        notes = reader.notes(self.channel)
        if self.seconds is None:
            return reader.sound(self.channel), 0.0, notes
        whole = round((_PUBLISHED if self.window == "published" else self.seconds) * SAMPLE_RATE)

        def repeated(waveform: Tensor) -> Tensor:
            if not _WINDOW <= len(waveform) < whole:
                return waveform
            notes.append(f"repeated from {len(waveform) / SAMPLE_RATE:.3f} s to {whole / SAMPLE_RATE:g} s")
            return waveform.repeat(ceil(whole / len(waveform)))[:whole]

        begin = partial(self._start, self.window, dice, reader)
        waveform, start = read_window(reader, self.seconds, begin, self.channel, repeated if self.tile else None)
        return waveform, start / SAMPLE_RATE, notes

    def _start(self, window: str | float, dice: np.random.Generator | None, reader: FileReader, samples: int) -> int:
        """First sample of the window in a clip of so many samples."""
        wanted = round(self.seconds * SAMPLE_RATE)
        if window == "published":
            last = min(max(ceil(_PUBLISHED - self.seconds), 1) - 1, max(samples - wanted, 0) // SAMPLE_RATE)
            return int(dice.integers(last + 1)) * SAMPLE_RATE
        if isinstance(window, Real):
            return round(window * SAMPLE_RATE)
        if self.images:  # some videos end before their sound: there would be nothing to see
            samples = min(samples, int(reader.pictures_end * SAMPLE_RATE))
        room = max(samples - wanted, 0)
        return room // 2 if window == "middle" else int(dice.integers(room + 1))

    def _picture(
        self, reader: FileReader, dice: np.random.Generator, start: float, end: float
    ) -> tuple[UInt8[Tensor, "3 shown_height shown_width"], list[str]]:
        if self.frame == "published":

            def rule(count: int, rate: float) -> list[int]:
                per_second = count // int(_PUBLISHED)
                low, high = int(start * per_second), int((start + (self.seconds or _PUBLISHED)) * per_second)
                return [min(int(dice.integers(low, high + 1)), count - 1)]  # published: may be one past the last

            return reader.pictures(rule, size=self.image_size)[0], []
        time, notes = self.frame, []
        if not isinstance(time, Real):
            end = max(start, min(end, reader.pictures_end))
            time = (start + end) / 2 if time == "middle" else dice.uniform(start, end)
        if time > reader.pictures_end:
            notes.append(f"its pictures end at {reader.pictures_end:.2f} s: the last one is shown")
        return reader.pictures(times=[min(float(time), reader.last_time)], size=self.image_size)[0], notes

    def _fitted(self, picture: UInt8[Tensor, "3 shown_height shown_width"]) -> UInt8[Tensor, "3 height width"]:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as T

        if tuple(picture.shape[1:]) == self.image_size and not self.crop:
            return picture
        image = T.to_pil_image(picture)
        if self.crop:
            image = T.center_crop(image, min(image.size))
        return T.pil_to_tensor(T.resize(image, list(self.image_size), InterpolationMode.BICUBIC))

    def _check_whole(self, index: int) -> bool:
        (self._held if self.moments else self._sample)(index)
        return True
