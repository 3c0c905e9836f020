"""Clips to what AudioToken sees: a window of sound at 16 kHz and one picture of it.

The published loader reads what it finds: sound at any rate as if it were 16 kHz, of several channels the first. This
one resamples and mixes down, and says on the item what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from ... import media
from ...errors import DatasetError, MediaError, ParameterError, TooShortError
from ...features import BEATS_SHORTEST
from ..policy import ItemDataset
from ..sources import SAMPLE_RATE
from .table import Clip, SceneClip

_WINDOW = 400  # samples of one frame
_WHOLE = 60.0  # seconds up to which a file is read whole, and so checked whole, whatever the window
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
        reader = _SceneReader(clip) if isinstance(clip, SceneClip) else _FileReader(clip, self.images)
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
        self, clip: Clip, reader: _FileReader | _SceneReader, dice: np.random.Generator
    ) -> tuple[Float[Tensor, " samples"], float, list[str]]:
        """The window, as far as the clip goes unless it is repeated; where it begins; what was done."""
        notes = reader.notes(self.channel)
        if reader.seconds > _WHOLE and self.seconds is not None:
            wanted = round(self.seconds * SAMPLE_RATE)
            start = self._start(dice, int(reader.seconds * SAMPLE_RATE), reader)
            part = reader.sound(self.channel, start / SAMPLE_RATE, self.seconds)
            missing = wanted - len(part)  # packets may promise some samples more than there are
            if 0 < missing <= start:
                start -= missing
                part = reader.sound(self.channel, start / SAMPLE_RATE, self.seconds)
            return part, start / SAMPLE_RATE, notes
        waveform = reader.sound(self.channel)
        if self.seconds is None:
            return waveform, 0.0, notes
        wanted = round((_PUBLISHED if self.window == "published" else self.seconds) * SAMPLE_RATE)
        if self.tile and _WINDOW <= len(waveform) < wanted:
            notes.append(f"repeated from {len(waveform) / SAMPLE_RATE:.3f} s to {wanted / SAMPLE_RATE:g} s")
            waveform = waveform.repeat(ceil(wanted / len(waveform)))[:wanted]
        start = self._start(dice, len(waveform), reader)
        if start >= len(waveform):
            found = f"its sound ends at {len(waveform) / SAMPLE_RATE:.2f} s"
            raise MediaError(clip, found, f"a window at {self.window} s", "Let the window begin earlier.")
        return waveform[start : start + round(self.seconds * SAMPLE_RATE)], start / SAMPLE_RATE, notes

    def _start(self, dice: np.random.Generator, samples: int, reader: _FileReader | _SceneReader) -> int:
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
        self, reader: _FileReader | _SceneReader, dice: np.random.Generator, start: float, end: float
    ) -> tuple[Float[Tensor, "3 height width"], list[str]]:
        if self.frame == "published":

            def rule(count: int, rate: float) -> list[int]:
                per_second = count // int(_PUBLISHED)
                low, high = int(start * per_second), int((start + (self.seconds or _PUBLISHED)) * per_second)
                return [min(int(dice.integers(low, high + 1)), count - 1)]  # published: may be one past the last

            return self._fitted(reader.picture_by(rule, self.image_size)), []
        time = self.frame
        if not isinstance(time, Real):
            end = max(start, min(end, reader.pictures_end))
            time = (start + end) / 2 if time == "middle" else dice.uniform(start, end)
        notes = []
        if time > reader.pictures_end:
            notes.append(f"its pictures end at {reader.pictures_end:.2f} s: the last one is shown")
        return self._fitted(reader.picture(min(float(time), reader.last_picture), self.image_size)), notes

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


class _FileReader:
    """Sound and pictures of a clip on disk.

    Attributes:
        seconds: of sound, by its packets.
        pictures_end: when the last picture leaves the screen, in seconds.
        last_picture: a moment at which it is shown.
    """

    def __init__(self, clip: Clip, images: bool):
        self.source = clip.wav or clip.path
        if self.source is None:
            raise DatasetError(clip, "neither a video nor a sound", "at least one of them")
        self.path = clip.path
        found = media.probe(self.source)
        self.audio = found.audio
        self.seconds = found.audio.seconds if found.audio else 0.0  # reading says what is wrong
        self.pictures_end = self.last_picture = 0.0
        if images:
            if clip.path is None:
                advice = "Pass images=False to take the sound alone."
                raise MediaError(clip, "no video beside the sound", "a picture of each clip", advice)
            video = (found if clip.path == self.source else media.probe(clip.path)).video
            if video:
                self.pictures_end = video.start + video.seconds
                self.last_picture = max(0.0, self.pictures_end - 0.5 / video.frame_rate)

    def notes(self, channel: int | None) -> list[str]:
        if self.audio is None:
            return []
        notes = []
        if self.audio.sample_rate != SAMPLE_RATE:
            notes.append(f"resampled from {self.audio.sample_rate} Hz to {SAMPLE_RATE} Hz")
        if self.audio.channels > 1:
            notes.append(_mixed(self.audio.channels, channel))
        return notes

    def sound(self, channel: int | None, start: float = 0.0, seconds: float | None = None) -> Float[Tensor, " samples"]:
        return media.read_audio(self.source, SAMPLE_RATE, channel=channel, start=start, seconds=seconds)

    def picture(self, time: float, size: tuple[int, int]) -> UInt8[Tensor, "3 height width"]:
        return media.read_frames(self.path, times=[time])[0]

    def picture_by(self, rule, size: tuple[int, int]) -> UInt8[Tensor, "3 height width"]:
        return media.read_frames(self.path, rule)[0]


class _SceneReader:
    """Sound and pictures of a built-in scene, computed, without the losses of a file; a picture has the wanted size."""

    RATE = 25.0  # pictures in a second that it is thought to have, as `avlib.clips.render` gives it

    def __init__(self, clip: SceneClip):
        self.scene = clip.scene
        self.seconds = self.pictures_end = self.last_picture = float(clip.scene.seconds)

    def notes(self, channel: int | None) -> list[str]:
        return [_mixed(2, channel)]

    def sound(self, channel: int | None, start: float = 0.0, seconds: float | None = None) -> Float[Tensor, " samples"]:
        sound = torch.from_numpy(self.scene.sound(SAMPLE_RATE))
        if channel is not None and channel >= len(sound):
            raise ParameterError("channel", f"{channel}", f"0 to {len(sound) - 1}, or None for the average")
        return sound.mean(0) if channel is None else sound[channel]

    def picture(self, time: float, size: tuple[int, int]) -> UInt8[Tensor, "3 height width"]:
        return torch.from_numpy(self.scene.frame(time, size)).permute(2, 0, 1)

    def picture_by(self, rule, size: tuple[int, int]) -> UInt8[Tensor, "3 height width"]:
        (index,) = rule(max(1, int(self.scene.seconds * self.RATE + 1e-6)), self.RATE)
        return self.picture(index / self.RATE, size)


def _mixed(channels: int, channel: int | None) -> str:
    return f"{channels} channels averaged" if channel is None else f"channel {channel} of {channels} taken"
