"""Clips of every row: the files and tables that list them, and one reader for media files and built-in scenes."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .. import clips, features, media
from ..errors import AvlibError, DatasetError, MediaError, ParameterError, shown

SAMPLE_RATE = features.SAMPLE_RATE  # every sound is brought to it
SCENE_RATE = 25.0  # pictures in a second of a built-in scene, as `clips.render` writes them
VIDEO_SUFFIXES = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
SOUND_SUFFIXES = {".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"}
_WHOLE = 60.0  # seconds up to which a file is read whole, and so checked whole, whatever the window
_Item = TypeVar("_Item")
_FrameRule = Callable[[int, float], Sequence[int]]


class FileReader:
    """Sound and pictures of a clip on disk.

    Args:
        path: the video, or a sound file; None where there is none.
        wav: the file to take the sound from; None takes that of `path`.
        align: sound and pictures are on one clock; see `media.read_clip`.

    Attributes:
        seconds: of sound, by the packets of its file; 0 without sound, which `sound` refuses.
        pictures_end: when the last picture leaves the screen, in seconds; 0 without pictures.
        last_time: a moment at which the last picture is shown.
    """

    def __init__(self, path: Path | str | None, wav: Path | str | None = None, align: bool = False):
        self.path, self.source, self.align = path, wav or path, align

    def __str__(self) -> str:
        return str(self.source)

    @cached_property
    def _audio(self) -> media.AudioStream | None:
        return media.probe(self.source).audio

    @cached_property
    def _video(self) -> media.VideoStream | None:
        return media.probe(self.path).video if self.path else None

    @property
    def seconds(self) -> float:
        return self._audio.seconds + self.align * self._audio.start if self._audio else 0.0

    @property
    def pictures_end(self) -> float:
        return self._video.start + self._video.seconds if self._video else 0.0

    @property
    def last_time(self) -> float:
        return max(0.0, self.pictures_end - 0.5 / self._video.frame_rate) if self._video else 0.0

    def notes(self, channel: int | None) -> list[str]:
        """Changes that reading makes to the sound, in words."""
        if self._audio is None:
            return []
        rate, channels = self._audio.sample_rate, self._audio.channels
        resampled = [f"resampled from {rate} Hz to {SAMPLE_RATE} Hz"] if rate != SAMPLE_RATE else []
        return resampled + ([_mixed(channels, channel)] if channels > 1 else [])

    def sound(
        self, channel: int | None = None, start: float = 0.0, seconds: float | None = None
    ) -> Float[Tensor, " samples"]:
        """The sound at `SAMPLE_RATE`, mono: the average of all channels, or one of them. See `media.read_audio`."""
        options = {"channel": channel, "start": start, "seconds": seconds, "align": self.align}
        return media.read_audio(self.source, SAMPLE_RATE, **options)

    def pictures(
        self, rule: _FrameRule | None = None, *, times: Sequence[float] | None = None, size: tuple[int, int]
    ) -> UInt8[Tensor, "pictures 3 height width"]:
        """Pictures by a rule or at times, see `media.read_frames`; those of a file have its own size, not `size`."""
        if self.path is None:
            advice = "Give a video, or images=False to take the sound alone."
            raise MediaError(self, "no video beside the sound", "a picture of each clip", advice)
        return media.read_frames(self.path, rule, times=times)

    def both(
        self, rule: _FrameRule, channel: int | None, size: tuple[int, int]
    ) -> tuple[Float[Tensor, " samples"], UInt8[Tensor, "pictures 3 height width"]]:
        """Sound and pictures by a rule, decoded in one pass."""
        clip = media.read_clip(self.path, rule, sample_rate=SAMPLE_RATE, channel=channel, align=self.align)
        return clip.waveform, clip.frames


class SceneReader(FileReader):
    """Sound and pictures of a built-in scene, computed in the wanted size."""

    def __init__(self, scene: clips.Scene):
        self.scene, self.source = scene, f"scene {scene.kind} {scene.seed}"

    @property
    def seconds(self) -> float:
        return float(self.scene.seconds)

    pictures_end = last_time = seconds

    def notes(self, channel: int | None) -> list[str]:
        return [_mixed(2, channel)]

    def sound(
        self, channel: int | None = None, start: float = 0.0, seconds: float | None = None
    ) -> Float[Tensor, " samples"]:
        sound = torch.from_numpy(self.scene.sound(SAMPLE_RATE))
        if channel is not None and channel >= len(sound):
            raise ParameterError("channel", f"{channel}", f"0 to {len(sound) - 1}, or None for the average")
        first = round(start * SAMPLE_RATE)
        sound = sound[:, first:] if seconds is None else sound[:, first : first + round(seconds * SAMPLE_RATE)]
        return sound.mean(0) if channel is None else sound[channel]

    def pictures(
        self, rule: _FrameRule | None = None, *, times: Sequence[float] | None = None, size: tuple[int, int]
    ) -> UInt8[Tensor, "pictures 3 height width"]:
        if times is None:
            count = max(1, int(self.scene.seconds * SCENE_RATE + 1e-6))
            times = [index / SCENE_RATE for index in rule(count, SCENE_RATE)]
        return torch.from_numpy(self.scene.frames(times, size)).permute(0, 3, 1, 2)

    def both(
        self, rule: _FrameRule, channel: int | None, size: tuple[int, int]
    ) -> tuple[Float[Tensor, " samples"], UInt8[Tensor, "pictures 3 height width"]]:
        return self.sound(channel), self.pictures(rule, size=size)


def read_window(
    reader: FileReader,
    seconds: float,
    begin: Callable[[int], int],
    channel: int | None = None,
    change: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, " samples"], int]:
    """Read a window of a sound, as far as the clip goes. Clips above a minute are read in part.

    Args:
        begin: maps the number of samples of the clip to the first sample of the window.
        change: applied to a sound that is read whole, before the window is taken.

    Returns:
        `(samples,)`, and its first sample in the clip.

    Raises:
        MediaError: the clip ends before the window begins, or cannot be read.
    """
    wanted = round(seconds * SAMPLE_RATE)
    if reader.seconds <= _WHOLE:
        waveform = reader.sound(channel)
        waveform = change(waveform) if change else waveform
        start = begin(len(waveform))
        if start >= len(waveform):
            found = f"its sound ends at {len(waveform) / SAMPLE_RATE:.2f} s"
            raise MediaError(reader, found, f"a window at {start / SAMPLE_RATE} s", "Let the window begin earlier.")
        return waveform[start : start + wanted], start
    start = begin(int(reader.seconds * SAMPLE_RATE))
    part = reader.sound(channel, start / SAMPLE_RATE, seconds)
    missing = wanted - len(part)  # packets may promise some samples more than there are
    if 0 < missing <= start:
        start -= missing
        part = reader.sound(channel, start / SAMPLE_RATE, seconds)
    return part, start


def to_int16(waveform: Float[Tensor, " samples"]) -> np.ndarray:
    """Convert a sound to int16 where that is lossless; else return it as it is."""
    scaled = waveform.numpy() * np.float32(2**15)
    exact = np.abs(scaled).max(initial=0) < 2**15 and np.array_equal(scaled, np.rint(scaled))
    return scaled.astype(np.int16) if exact else waveform.numpy()


def from_int16(samples: Tensor) -> Float[Tensor, " samples"]:
    """The waveform that `to_int16` was given."""
    return samples.float() / 2**15 if samples.dtype == torch.int16 else samples


def _mixed(channels: int, channel: int | None) -> str:
    return f"{channels} channels averaged" if channel is None else f"channel {channel} of {channels} taken"


def existing(path: str | Path) -> Path:
    """Return a path that exists, or raise DatasetError."""
    path = Path(path)
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for a name that is too long
        advice = "Check the name and the folder from which it is given."
        raise DatasetError(path, "no such file or folder", advice=advice)
    return path


def files_in(folder: Path, suffixes: set[str]) -> Iterator[tuple[Path, str]]:
    """Yield the files with these endings below a folder, sorted, none hidden.

    Each comes with the name of its sub-folder of `folder`, which labels it; "" beside the sub-folders.
    """
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.suffix.lower() in suffixes and not hidden and not path.is_dir():
            yield path, parts[0] if len(parts) > 1 else ""


def read_text(path: str | Path, form: str = "text") -> str:
    r"""Return the text of a file in UTF-8, with \n at its ends of lines; refuse what is no text.

    Args:
        form: what is expected, for messages.
    """
    try:
        text = existing(path).read_text(encoding="utf-8-sig")
        if strange := _NO_TEXT.search(text):
            raise ValueError(f"it holds the control character {strange[0]!r}")
    except OSError as error:
        raise DatasetError(path, error.strerror or "cannot be read", form) from error
    except ValueError as error:
        raise DatasetError(path, f"is no text ({error})", form, "Save it in UTF-8.") from error
    return text


_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_DECIMAL = re.compile(r"^([+-]?\d*),(\d+)$")


def read_table(path: Path, form: str = "a table in UTF-8 (.csv)") -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns of a table, and its rows with their line numbers.

    Cells are separated by commas, semicolons or tabs, whichever the header has most of; with semicolons 0,5 is read as
    0.5. Missing cells are empty.

    Args:
        form: what is expected, for messages.

    Raises:
        DatasetError: no text in UTF-8, no header, a column that comes twice, or a row with more cells.
    """
    text = read_text(path, form)
    separator = max(",;\t", key=text.strip().partition("\n")[0].count)
    lines = [
        (line, [cell.strip() for cell in cells]) for line, cells in _rows(path, io.StringIO(text), form, separator)
    ]
    if not lines:
        raise DatasetError(path, "nothing in it", f"{form}, with a header and a row for each clip")
    (_, columns), *rows = lines
    twice = [column for column, count in Counter(columns).items() if column and count > 1]
    if twice:
        raise DatasetError(path, f"the column {twice[0]!r} comes twice", "each name once")
    for line, cells in rows:
        if len(cells) > len(columns):
            advice = f"Quote what has {separator!r} in it."
            raise DatasetError(f"{path}, line {line}", f"{len(cells)} cells", f"{len(columns)}, as the header", advice)
    if separator == ";":  # as spreadsheets write it where a number has a comma
        rows = [(line, [_DECIMAL.sub(r"\1.\2", cell) for cell in cells]) for line, cells in rows]
    return columns, [(line, dict(zip_longest(columns, cells, fillvalue=""))) for line, cells in rows]


def _rows(path: Path, text: Iterable[str], form: str, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The lines with anything in their cells, by number."""
    reader = csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if any(cells))
    except csv.Error as error:
        found = f"cannot be read as a table ({error})"
        raise DatasetError(
            f"{path}, line {reader.line_num}", found, form, "Look for a quote that is not closed."
        ) from error


def is_segments(path: Path) -> bool:
    """Return whether a file is a list of AudioSet or VGGSound: four columns, the second a number, and no header."""
    if path.suffix.lower() != ".csv":
        return False
    first = next((line for line in read_text(path).split("\n") if line and not line.startswith("# ")), "").split(",")
    return len(first) >= 4 and _SECONDS.fullmatch(first[1].strip()) is not None


_SECONDS = re.compile(r"[0-9]{1,7}(\.[0-9]+)?")


def segments(path: Path) -> Iterator[tuple[str, float, str, str]]:
    """Read AudioSet's or VGGSound's list of pieces of videos: id, start in seconds, and two more columns.

    Raises:
        DatasetError: no such file, or a line in another form.
    """
    expected = "four columns, the second a number of seconds"
    lines = ("\n" if line.startswith("# ") else line for line in io.StringIO(read_text(path)))
    for line, row in _rows(path, lines, expected):
        if len(row) != 4 or not _SECONDS.fullmatch(row[1]):
            raise DatasetError(f"{path}, line {line}", shown(",".join(row)), expected)
        yield row[0], float(row[1]), row[2], row[3]


def narrow_bands(files: Sequence[Path], highest: float = SAMPLE_RATE / 2) -> str:
    """Return which recordings lack the upper part of a model's band, and what to do; "" if none does.

    At most 24 files are looked at, 5 s of each. Above the edge of a band no bin is within 80 dB of the largest.

    Args:
        highest: frequency that the model sees, in Hz.
    """
    rates, edges, window = Counter(), [], torch.hann_window(1024)
    for file in files[:: -(-len(files) // 24) or 1]:
        with suppress(AvlibError):
            sound, rate = media.read_audio(file, round(2 * highest), seconds=5.0), media.probe(file).audio.sample_rate
            if len(sound) > 1024 and sound.any():
                power = torch.stft(sound, 1024, window=window, center=False, return_complex=True).abs().square().mean(1)
                edge = int((power > 1e-8 * power.max()).nonzero().max()) * highest / 512
                edges.append(min(edge, rate / 2))
                rates[rate] += 1
    narrow = [edge / 1000 for edge in edges if edge < 0.8 * highest]
    if not narrow:
        return ""
    found = ", ".join(f"{count} of {rate} Hz" for rate, count in sorted(rates.items()))
    return (
        f"{len(narrow)} of {len(edges)} recordings looked at ({found}) have nothing above {max(narrow):.1f} kHz, and "
        f"the model sees up to {highest / 1000:g} kHz. Noise up there, in other recordings, misleads it, more so if "
        f"only some classes lack it. Record all alike; or low-pass all at {min(narrow):.1f} kHz, in training and later."
    )


def number_to_hold_out(wanted: int | None, count: int, most: int) -> int:
    """Return how many of `count` clips to hold out: as wanted; of None a quarter, at most `most`."""
    return min(most, max(count // 4, min(2, count // 2))) if wanted is None else wanted


def split(
    items: Sequence[_Item], held_out: int, seed: int = 0, by: Callable[[_Item], Any] = attrgetter("labels")
) -> tuple[list[_Item], list[_Item]]:
    """Draw items to train on and `held_out` others, in their order.

    Args:
        by: gives an item's label or labels; each is held out in proportion, to within one item.

    Raises:
        ParameterError: fewer items.
    """
    if not 0 <= held_out <= len(items):
        raise ParameterError("held_out", f"{held_out}", f"0 to {len(items)}, which is all")
    shuffled = np.random.default_rng(seed).permutation(len(items))
    alike = sorted(shuffled.tolist(), key=lambda index: by(items[index]))
    taken = {alike[int((number + 0.5) * len(items) / held_out)] for number in range(held_out)}
    train = [item for index, item in enumerate(items) if index not in taken]
    return train, [items[index] for index in sorted(taken)]
