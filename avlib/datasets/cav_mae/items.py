"""CAV-MAE's clips and built-in scenes, their tables and classes.

Nothing is read before an item is asked for its sound and pictures.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from ... import clips, media
from ...errors import DatasetError, MediaError, TooShortError, shown, unique
from ...features import cav_mae_frame_indices, crop_pictures, frame_geometry
from ...settings import Count, Natural, settings
from ..sources import (
    SAMPLE_RATE,
    VIDEO_SUFFIXES,
    FileReader,
    SceneReader,
    existing,
    files_in,
    is_segments,
    read_table,
    read_text,
    segments,
)

_HEADER = ["index", "mid", "display_name"]


@settings
class Reading:
    """Sizes in which items are read.

    total_frames: parts of equal length, of each of which one picture is taken; 10 as published.
    image_size: height and width of the pictures.
    channel: None averages those of a sound, 0 takes the first as the published pipeline does.
    align: sound and pictures on one clock; False as published, see `media.read_clip`.
    """

    total_frames: Count = 10
    image_size: Count = 224
    channel: Natural | None = None
    align: bool = True


@dataclass(frozen=True)
class Item:
    """One clip: its labels as the user's table spells them, and the part of the data set it belongs to, if known."""

    labels: tuple[str, ...]
    split: str = field(default="", kw_only=True)

    def has(self, frame: int) -> bool:
        """Return whether there is a picture of this part; a video has one of each."""
        return True

    def read(
        self, frames: Sequence[int], reading: Reading
    ) -> tuple[Float[Tensor, " samples"], UInt8[Tensor, "frames 3 size size"]]:
        """Read the sound at 16 kHz and the pictures of these parts, as squares.

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
        reader, size = self._reader(reading.align), (reading.image_size, reading.image_size)
        if not frames:
            return reader.sound(reading.channel), torch.empty(0, 3, *size, dtype=torch.uint8)

        def rule(count: int, rate: float) -> list[int]:
            indices = cav_mae_frame_indices(count, rate, total_frames=reading.total_frames)
            return [indices[frame] for frame in frames]

        waveform, pictures = reader.both(rule, reading.channel, size)
        return waveform, crop_pictures(pictures, reading.image_size)

    def _reader(self, align: bool) -> FileReader:
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

    def _reader(self, align: bool) -> FileReader:
        return FileReader(self.path, align=align)


@dataclass(frozen=True)
class SceneItem(Item):
    """A built-in scene, computed whenever it is read."""

    scene: clips.Scene

    def __str__(self) -> str:
        return f"scene {self.scene.kind} {self.scene.seed}"

    def _reader(self, align: bool) -> FileReader:
        return SceneReader(self.scene)


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


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))  # some are stored in shades of grey
    except FileNotFoundError as error:
        raise MediaError(path, "no such picture", advice="Extract the clip again.") from error
    except (OSError, SyntaxError) as error:  # of Pillow, for broken files
        raise MediaError(path, f"cannot be decoded ({error})", "a picture", "Extract the clip again.") from error


def scene_items(count: int, seed: int = 0, seconds: float = 10.0) -> list[Item]:
    """Built-in scenes, their eight kinds in turn, labelled by kind. Scenes of another seed share nothing with these."""
    return [SceneItem((scene.kind,), scene) for scene in clips.scenes(count, seed, seconds)]


def read_items(path: str | Path, folder: str | Path = "") -> list[Item]:
    """Read which items a folder or a table lists, in its order; a folder sorted by name.

    - A folder of clips: a sub-folder labels those below it; clips beside it have no label.
    - A `.csv` with a header: `path`, and where they are known `split` and either `label` (one, as it stands) or
      `labels` (several, joined by commas).
    - AudioSet's list (`eval_segments.csv`: id, start, end, quoted mids) or VGGSound's (id, start, label, train or
      test). The clip from 40 s of AudioSet's `00W1lcxW-WU` is `00W1lcxW-WU_40.000.mp4`, that from 361 s of
      VGGSound's `KlsG1EnBEjc` is `KlsG1EnBEjc_000361.mp4`. Many of these videos no longer exist; `on_error="skip"`
      leaves them out.
    - A `.json` as published: `{"data": [{"video_id", "wav", "video_path", "labels"}]}`.
    - Any other file: one path in each line, with any characters in it.

    Args:
        folder: where paths that are not absolute begin; "" for the folder of the table.

    Raises:
        DatasetError: no such file, nothing in it, or an entry that lacks something.
    """
    path = existing(path)
    base = Path(folder) if folder else path.parent
    if path.is_dir():
        items = [ClipItem((label,) if label else (), clip) for clip, label in files_in(path, VIDEO_SUFFIXES)]
    elif is_segments(path):
        items = list(_segment_items(path, base))
    else:
        readers: dict[str, Callable] = {".csv": _csv_items, ".json": _json_items}
        items = list(readers.get(path.suffix.lower(), _list_items)(path, base))
    if not items:
        expected = f"clips ({', '.join(sorted(VIDEO_SUFFIXES))})" if path.is_dir() else "at least one entry"
        raise DatasetError(path, "nothing in it", expected)
    return items


def _segment_items(path: Path, base: Path) -> Iterator[Item]:
    for name, start, third, fourth in segments(path):
        try:
            float(third)
        except ValueError:  # VGGSound
            yield ClipItem((third,), base / f"{name}_{int(start):06d}.mp4", split=fourth)
        else:
            yield ClipItem(_mids(fourth), base / f"{name}_{start:.3f}.mp4")


def _csv_items(path: Path, base: Path) -> Iterator[Item]:
    columns, rows = read_table(path)
    if "path" not in columns:
        expected = "a header with `path`, and `label` or `labels`, or a list of AudioSet or VGGSound"
        raise DatasetError(path, f"its first line is {','.join(columns)!r}", expected)
    for line, row in rows:
        if not row["path"]:
            raise DatasetError(f"{path}, line {line}", "no path")
        labels = (row["label"],) if row.get("label") else _mids(row.get("labels", ""))
        yield ClipItem(labels, base / row["path"], split=row.get("split", ""))


def _json_items(path: Path, base: Path) -> Iterator[Item]:
    expected = '{"data": [{"video_id", "wav", "video_path", "labels"}]}'
    try:
        entries = json.loads(read_text(path, expected), object_pairs_hook=unique)["data"]
        if not isinstance(entries, list):
            raise TypeError(f"data is {shown(entries)}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(path, f"is not in the published form ({error})", expected) from error
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        try:
            name, wav, pictures, mids = (entry[key] for key in ("video_id", "wav", "video_path", "labels"))
            split = entry.get("split", "")
        except KeyError as error:
            raise DatasetError(where, f"lacks {error}", expected) from error
        except (TypeError, AttributeError) as error:
            raise DatasetError(where, f"is {shown(entry)}", expected) from error
        if not all(isinstance(each, str) for each in (name, wav, pictures, mids, split)) or not (wav and pictures):
            raise DatasetError(where, f"not all of its values are text: {shown(entry)}", expected)
        yield ExtractedItem(_mids(mids), name, base / wav, base / pictures, split=split)


def _list_items(path: Path, base: Path) -> Iterator[Item]:
    form = "a folder, a .csv or .json table, or a list of paths in UTF-8, also of a single clip"
    return (ClipItem((), base / line) for line in read_text(path, form).split("\n") if line.strip())


def _mids(joined: str) -> tuple[str, ...]:
    return tuple(mid.strip() for mid in joined.split(",") if mid.strip())


@dataclass(frozen=True)
class LabelTable:
    """The classes in the order of their indices: the key of each (`mid`, as Freebase calls it) and its name."""

    mids: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: str | Path) -> LabelTable:
        """Read the published form: a csv with the header `index,mid,display_name`, 527 rows for AudioSet.

        Raises:
            DatasetError: no such file, another header, or indices other than 0, 1, 2, ...
        """
        path = existing(path)
        columns, rows = read_table(path)
        if columns != _HEADER:
            raise DatasetError(path, f"its first line is {','.join(columns)!r}", ",".join(_HEADER))
        by_index = {row["index"]: row for _, row in rows}
        ordered = [by_index.get(str(index)) for index in range(len(rows))]
        if None in ordered:
            raise DatasetError(path, "its indices have gaps or come twice", f"each of 0 to {len(ordered) - 1} once")
        table = cls(tuple(row["mid"] for row in ordered), tuple(row["display_name"] for row in ordered))
        if not rows or not all(table.mids + table.names):
            raise DatasetError(path, "a class without mid or name, or no class at all", "all three in each line")
        if len(set(table.mids)) < len(table):
            raise DatasetError(path, f"the mid {Counter(table.mids).most_common(1)[0][0]!r} comes twice")
        return table

    @classmethod
    def of(cls, items: Iterable[Item]) -> LabelTable:
        """Make a table of the labels that items have, sorted. A mid has no comma, which joins published mids."""
        names = tuple(sorted({label for item in items for label in item.labels}))
        return cls(tuple(name.replace(",", ";") for name in names), names)

    def write(self, path: str | Path) -> None:
        """Write the published form."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_HEADER, *zip(range(len(self)), self.mids, self.names, strict=True)])

    def __len__(self) -> int:
        return len(self.mids)

    @cached_property
    def _lookup(self) -> dict[str, int]:
        often = Counter(self.names)
        names = {name: index for index, name in enumerate(self.names) if often[name] == 1}
        return names | {mid: index for index, mid in enumerate(self.mids)}

    def indices(self, item: Item) -> list[int]:
        """Return the classes of an item, each once; its labels may be mids or names.

        Raises:
            DatasetError: a label that is not in the table; names the item and the label.
        """
        try:
            return list(dict.fromkeys(self._lookup[label] for label in item.labels))
        except KeyError as error:
            expected = f"a mid or a name of the {len(self)} in the label table"
            advice = "Give the label table that belongs to this data set, or correct the label."
            raise DatasetError(item, f"unknown label {error}", expected, advice) from error


def balanced_weights(items: Sequence[Item], table: LabelTable) -> Float64[Tensor, " items"]:
    """Return weights for `BalancedSampler` that balance the classes.

    The published rule (`gen_weight_file.py`): a class that c items have weighs 1000 / (c + 0.01), an item as much as
    its classes together. An item without labels weighs nothing.

    Raises:
        DatasetError: a label that is not in the table.
    """
    classes = [table.indices(item) for item in items]
    counts = Counter(index for indices in classes for index in indices)
    weights = [sum(1000 / (counts[index] + 0.01) for index in indices) for indices in classes]
    return torch.tensor(weights, dtype=torch.float64)
