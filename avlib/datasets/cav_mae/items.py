"""What a data set is made of: clips, extracted clips and built-in scenes, and the tables that list them.

Each kind of item reads itself, sound and pictures, at the sizes that are asked for. Nothing is read before.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ... import clips, media
from ...errors import DatasetError, MediaError, TooShortError
from ...features import cav_mae_frame_indices, crop_pictures, frame_geometry
from ..sources import SAMPLE_RATE, VIDEO_SUFFIXES, FileReader, SceneReader, existing, files_in, segments


@dataclass(frozen=True)
class Reading:
    """How items are read.

    total_frames: into how many parts the pictures are divided; one of each can be had. 10 as published.
    image_size: height and width of the pictures.
    channel: None averages those of a sound, 0 takes the first as the published pipeline does.
    """

    total_frames: int = 10
    image_size: int = 224
    channel: int | None = None


@dataclass(frozen=True)
class Item:
    """One clip of a data set: its labels as the table of the user spells them. The subclasses say what is read."""

    labels: tuple[str, ...]

    def has(self, frame: int) -> bool:
        """Whether there is a picture of this part; a video has one of each part, however short it is."""
        return True

    def read(
        self, frames: Sequence[int], reading: Reading
    ) -> tuple[Float[Tensor, " samples"], UInt8[Tensor, "frames 3 size size"]]:
        """The sound at `SAMPLE_RATE` and the pictures of these parts, cropped to squares.

        Raises:
            MediaError: a file is missing or broken.
            TooShortError: the sound has less than one analysis window.
        """
        waveform, pictures = self._read(frames, reading)
        window, _, _ = frame_geometry(SAMPLE_RATE)
        if len(waveform) < window:
            found = f"its sound has {len(waveform)} samples at {SAMPLE_RATE} Hz"
            raise TooShortError(self, found, f"at least {window}, which is 25 ms", "Leave that clip out.")
        return waveform, pictures

    def _read(self, frames: Sequence[int], reading: Reading) -> tuple[Tensor, Tensor]:
        reader, size = self._reader(), (reading.image_size, reading.image_size)
        if not frames:
            return reader.sound(reading.channel), torch.empty(0, 3, *size, dtype=torch.uint8)

        def rule(count: int, rate: float) -> list[int]:
            indices = cav_mae_frame_indices(count, rate, total_frames=reading.total_frames)
            return [indices[frame] for frame in frames]

        waveform, pictures = reader.both(rule, reading.channel, size)
        return waveform, crop_pictures(pictures, reading.image_size)

    def _reader(self) -> FileReader:
        raise NotImplementedError


@dataclass(frozen=True)
class ClipItem(Item):
    """A video file with sound, decoded whenever it is read."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def video_id(self) -> str:
        """The name of the file without its last ending, as published."""
        return self.path.stem

    def _reader(self) -> FileReader:
        return FileReader(self.path)


@dataclass(frozen=True)
class ExtractedItem(Item):
    """A clip in the published layout: a wav file, and the pictures `video_path/frame_{i}/video_id.jpg`."""

    video_id: str
    wav: Path
    video_path: Path

    def __str__(self) -> str:
        return self.video_id

    def picture(self, frame: int) -> Path:
        return self.video_path / f"frame_{frame}" / f"{self.video_id}.jpg"

    def has(self, frame: int) -> bool:
        return self.picture(frame).exists()

    def _read(self, frames: Sequence[int], reading: Reading) -> tuple[Tensor, Tensor]:
        pictures = torch.empty(len(frames), 3, reading.image_size, reading.image_size, dtype=torch.uint8)
        for row, frame in enumerate(frames):
            picture = torch.from_numpy(_read_picture(self.picture(frame))).permute(2, 0, 1)
            pictures[row] = crop_pictures(picture[None], reading.image_size, interpolation="bicubic")[0]
        return media.read_audio(self.wav, SAMPLE_RATE, channel=reading.channel), pictures


@dataclass(frozen=True)
class SceneItem(Item):
    """A built-in scene, computed at the wanted size whenever it is read, without the losses of a file."""

    scene: clips.Scene

    def __str__(self) -> str:
        return f"scene {self.scene.kind} {self.scene.seed}"

    def _reader(self) -> FileReader:
        return SceneReader(self.scene)


def scene_items(count: int, seed: int = 0, seconds: float = 10.0) -> list[Item]:
    """Built-in scenes, their eight kinds in turn, labelled by kind. Another seed gives scenes that share nothing."""
    return [SceneItem((scene.kind,), scene) for scene in clips.scenes(count, seed, seconds)]


def read_items(path: str | Path) -> list[Item]:
    """The items that a folder or a table lists, in the order in which it does; a folder sorted by name.

    - a folder of clips: those in a sub-folder, however deep, are labelled with its name, those beside it not at all;
    - `.csv` with a header: `path`, and where there are labels either `label` (one, as it stands) or `labels` (several,
      joined by commas);
    - `.json` as published: `{"data": [{"video_id", "wav", "video_path", "labels"}]}`;
    - any other file: one path in each line, as the published extraction takes it, but whatever its characters and
      even if there is one line only.

    A path that is not absolute is looked up from the folder of the table.

    Raises:
        DatasetError: there is no such file, nothing in it, or an entry lacks what it must have.
    """
    path = existing(path)
    try:
        if path.is_dir():
            items = list(_folder_items(path))
        else:
            readers = {".csv": _csv_items, ".json": _json_items}
            items = list(readers.get(path.suffix.lower(), _list_items)(path))
    except UnicodeDecodeError as error:
        expected = "a folder, a .csv or .json table, or a list of paths in UTF-8"
        raise DatasetError(path, "is no text", expected, "A single clip is given by a list of one line.") from error
    if not items:
        expected = f"clips ({', '.join(sorted(VIDEO_SUFFIXES))})" if path.is_dir() else "at least one entry"
        raise DatasetError(path, "nothing in it", expected)
    return items


def read_audioset(path: str | Path, folder: str | Path, suffix: str = ".mp4") -> list[Item]:
    """The clips of an AudioSet list (`eval_segments.csv` and the like: id, start, end, quoted mids) in a folder.

    The clip from 40 s of video `00W1lcxW-WU` is `00W1lcxW-WU_40.000.mp4`. Whether it is there is seen when it is read:
    many videos of the list are no longer to be had, which is what `on_error="skip"` is for.
    """
    rows = segments(Path(path))
    return [ClipItem(_mids(mids), Path(folder) / f"{name}_{start:.3f}{suffix}") for name, start, _, mids in rows]


def read_vggsound(path: str | Path, folder: str | Path, split: str = "", suffix: str = ".mp4") -> list[Item]:
    """The clips of VGGSound's list (id, start, label, train or test) in a folder; `split` takes only those of one.

    The clip from 361 s of video `KlsG1EnBEjc` is `KlsG1EnBEjc_000361.mp4`. As for `read_audioset`, it may be missing.
    """
    rows = [row for row in segments(Path(path)) if split in ("", row[3])]
    return [ClipItem((label,), Path(folder) / f"{name}_{int(start):06d}{suffix}") for name, start, label, _ in rows]


def _folder_items(folder: Path) -> Iterator[Item]:
    return (ClipItem((label,) if label else (), path) for path, label in files_in(folder, VIDEO_SUFFIXES))


def _csv_items(path: Path) -> Iterator[Item]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "path" not in (rows.fieldnames or ()):
            expected = "a header with `path`, and `label` or `labels`"
            raise DatasetError(path, f"its first line is {','.join(rows.fieldnames or ())!r}", expected)
        for row in rows:
            if not row["path"]:
                raise DatasetError(f"{path}, line {rows.line_num}", "no path")
            label = row.get("label") or ""
            yield ClipItem((label,) if label else _mids(row.get("labels") or ""), path.parent / row["path"])


def _json_items(path: Path) -> Iterator[Item]:
    expected = '{"data": [{"video_id", "wav", "video_path", "labels"}]}'
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["data"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DatasetError(path, "is not in the published form", expected) from error
    for number, entry in enumerate(entries):
        try:
            name, wav, pictures, mids = (entry[key] for key in ("video_id", "wav", "video_path", "labels"))
            item = ExtractedItem(_mids(mids), name, path.parent / wav, path.parent / pictures)
        except KeyError as error:
            raise DatasetError(f"{path}, entry {number}", f"lacks {error}", expected) from error
        except (TypeError, AttributeError) as error:
            raise DatasetError(
                f"{path}, entry {number}", f"not all of its values are text: {entry}", expected
            ) from error
        yield item


def _list_items(path: Path) -> Iterator[Item]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return (ClipItem((), path.parent / line.removesuffix("\r")) for line in lines if line.strip())


def _mids(joined: str) -> tuple[str, ...]:
    return tuple(mid.strip() for mid in joined.split(",") if mid.strip())


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))  # some are stored in shades of grey
    except FileNotFoundError as error:
        raise MediaError(path, "no such picture", advice="Extract the clip again.") from error
    except (OSError, SyntaxError) as error:  # what Pillow raises for broken files
        raise MediaError(path, f"cannot be decoded ({error})", "a picture", "Extract the clip again.") from error
