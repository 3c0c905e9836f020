"""Talking faces in memory: crops at 25 Hz with their units, and windows of ten pictures to train a renderer on.

a talk, or a video and its boxes -> faces (T, 3, 96, 96), units (2 T,) -> rows of 20 units and 10 pictures
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ... import media
from ...clips.heads import SAMPLE_RATE, Talk
from ...errors import AvlibError, DatasetError, check_choice
from ...features.faces import FACE_SIDE, check_boxes, crop_face, face_places
from ...models.face_renderer import FRAMES, ROW
from ...workers import describe
from ..items import ItemDataset, each_usable
from ..sources import VIDEO_SUFFIXES, existing, files_in, read_table
from .boxes import detect_boxes, read_boxes
from .dataset import Extract
from .dubbing import boxes_at_ticks

_RATE = 25.0  # pictures in a second

Faces = UInt8[Tensor, "*frames 3 side side"]


class Face(NamedTuple):
    """T faces at 25 Hz, blue, green, red; whether each is seen; and two units for each."""

    faces: UInt8[Tensor, "frames 3 side side"]
    shown: Bool[Tensor, " frames"]
    units: Int64[Tensor, " units"]
    name: str = ""

    @property
    def starts(self) -> Int64[Tensor, " starts"]:
        """First frames of the windows in which each picture has a face."""
        return self.shown.unfold(0, FRAMES, 1).all(1).nonzero()[:, 0]


class FaceBatch(NamedTuple):
    """Rows of 20 units and their 10 faces; a reference for each; and units of another place of the same video."""

    units: Int64[Tensor, "*batch units"]
    faces: UInt8[Tensor, "*batch frames 3 side side"]
    references: UInt8[Tensor, "*batch frames 3 side side"]
    elsewhere: Int64[Tensor, "*batch units"]


def network_input(faces: Faces, references: Faces) -> Float[Tensor, "*frames 6 side side"]:
    """Return what the renderer sees: faces with the lower half black, and references, in [0, 1]."""
    hidden = faces.clone()
    hidden[..., FACE_SIDE // 2 :, :] = 0
    return torch.cat([hidden, references], dim=-3) / 255


class FaceDataset(ItemDataset):
    """Windows of ten faces, `per_video` of each video in an epoch.

    `reference` "other" shows the network a face of another moment of the video; "same" the picture itself, as in
    published inference. `notes` are remarks on files, in words, for `report`.
    """

    def __init__(
        self, faces: Sequence[Face], reference: str = "other", per_video: int = 1, seed: int = 0, notes: str = ""
    ):
        super().__init__(faces, seed, "raise")
        check_choice("reference", reference, ("other", "same"))
        self.reference, self.per_video, self.notes = reference, per_video, notes

    def __len__(self) -> int:
        return self.per_video * len(self.items)

    def __getitem__(self, index: int) -> FaceBatch:
        video, dice = self.items[index % len(self.items)], self._dice(index)
        starts = video.starts
        first = int(starts[dice.integers(len(starts))])
        apart = starts[(starts - first).abs() >= FRAMES]
        far = apart if len(apart) else starts
        other = int(far[dice.integers(len(far))])
        faces = video.faces[first : first + FRAMES]
        references = faces if self.reference == "same" else video.faces[other].expand_as(faces)
        units = (video.units[2 * start : 2 * start + ROW] for start in (first, other))
        return FaceBatch(next(units), faces, references, next(units))

    def report(self) -> str:
        """Return the number of videos, their pictures, and remarks on files."""
        shown = sum(int(video.shown.sum()) for video in self.items)
        return f"{len(self.items)} videos with {shown} faces. {self.notes}".strip()


# Reading


def read_videos(data: str | Path) -> list[tuple[Path, Path, Path]]:
    """List videos with the files of their sound and of their boxes.

    `data` is a folder, where the boxes of `a.mp4` are in `a.boxes.json` beside it; or a table (.csv) with the column
    path, and perhaps audio and boxes.
    """
    path = existing(data)
    if path.suffix.lower() == ".csv":
        columns, lines = read_table(path)
        if "path" not in columns:
            raise DatasetError(path, f"columns {', '.join(columns)}", "path, and perhaps audio and boxes")
        rows = [{name: path.parent / text for name, text in line.items() if name and text} for _, line in lines]
    else:
        rows = [{"path": video} for video, _ in files_in(path, VIDEO_SUFFIXES)]
    if not rows or not all("path" in row for row in rows):
        raise DatasetError(path, "no videos", f"files of {', '.join(sorted(VIDEO_SUFFIXES))}")
    rows = [{"audio": row["path"], "boxes": row["path"].with_suffix(".boxes.json"), **row} for row in rows]
    return [(row["path"], row["audio"], row["boxes"]) for row in rows]


def face_files(data: str | Path) -> list[Path]:
    """List all files of `read_videos`."""
    return [file for files in read_videos(data) for file in files if file.exists()]


def read_face(files: tuple[Path, Path, Path], extract: Extract) -> Face:
    """Read a video at 25 Hz, with units of its sound; see `read_videos`. Without a file of boxes a detector finds them.

    Raises:
        MediaError, DatasetError, ParameterError: a file is missing or damaged, no detector is installed, there are
            fewer than ten pictures with a face in a row, or there is less sound than that.
    """
    path, sound, boxes = files
    steady = media.SteadyVideo(path, _RATE)
    track = read_boxes(boxes) if boxes.exists() else next(iter(detect_boxes(path)), [None] * len(steady.times))
    places = face_places(boxes_at_ticks(steady, track), *steady.size)
    units = extract(media.read_audio(sound, SAMPLE_RATE, align=True), SAMPLE_RATE)
    return _face(steady.pictures(), places, units, str(path))


@lru_cache(maxsize=2)
def faces_of(talks: tuple[Talk, ...], extract: Extract | None = None) -> list[Face]:
    """Return the faces of built-in talks; without `extract` their units are the phones of the truth."""
    return [_of_talk(talk, extract) for talk in talks]


def _of_talk(talk: Talk, extract: Extract | None) -> Face:
    truth = talk.truth
    places = face_places(check_boxes(truth.boxes), *talk.size)
    pictures = (torch.from_numpy(talk.frame(index)) for index in range(talk.frame_count))
    sound = torch.from_numpy(talk.sound())
    units = extract(sound, SAMPLE_RATE) if extract else torch.from_numpy(truth.units)
    return _face(pictures, places, units, f"{' '.join(talk.words)} by {truth.speaker}")


def _face(pictures: Iterable[Tensor], places: Sequence, units: Tensor, name: str) -> Face:
    nothing = torch.zeros(3, FACE_SIDE, FACE_SIDE, dtype=torch.uint8)
    faces = [crop_face(picture, place) if place else nothing for picture, place in zip(pictures, places, strict=True)]
    count = min(len(faces), len(units) // 2)
    face = Face(torch.stack(faces[:count]), torch.tensor([bool(p) for p in places[:count]]), units[: 2 * count], name)
    if count < FRAMES or not len(face.starts):
        found = f"{int(face.shown.sum())} pictures with a face and sound, of {count}"
        raise DatasetError(name, found, f"{FRAMES} in a row", "Leave that video out.")
    return face


def faces_in(
    data: str | Path, extract: Extract, on_error: str = "raise", progress: bool = True
) -> tuple[list[Face], str]:
    """Return the faces of the user's videos, see `read_videos`, and how many were left out and why."""
    videos = read_videos(data)
    results = each_usable(partial(read_face, extract=extract), videos, on_error, 1, progress)
    errors = [each for each in results if isinstance(each, AvlibError)]
    if len(errors) == len(results):
        raise DatasetError(data, "no video can be used", advice=describe(errors, len(videos)))
    notes = describe(errors, len(videos)) if errors else ""
    return [each for each in results if not isinstance(each, AvlibError)], notes
