"""AudioToken's clips as one table: what a folder or a table lists, labels, captions, and sounds written to disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ... import cache, clips, media
from ...clips.backdrop import Backdrop
from ...errors import AvlibError, CacheError, DatasetError
from ...workers import describe
from .. import sources
from ..items import each_usable
from ..sources import SAMPLE_RATE, SOUND_SUFFIXES, VIDEO_SUFFIXES, FileReader, SceneReader, existing, files_in

SIZES = ("small", "large")  # below and above the middle of all sizes
COLOURS = ("blue", "purple", "pink", "orange", "yellow")  # the nearest of the five on the ramp of hues
PLACES = ("on the left", "in the middle", "on the right")  # thirds of where the thing may stand
CLASSES = {"kind": clips.KINDS, "size": SIZES, "colour": COLOURS}  # what a picture is judged by
_THINGS = {kind: kind for kind in clips.KINDS} | {"rain": "bowl in the rain", "string": "lute with a string"}

_YTID = 11  # characters of a YouTube id, with which the published names of files begin
_VGGSOUND = {"video": "path", "audio": "wav"}  # the folders of the published layout
_HEADERS = "a header with `ytid`, `set` and `class`, with `name`, `split` and `label`, or with `path` or `wav`"


@dataclass(frozen=True)
class Clip:
    """One clip.

    name: of its file, without the ending.
    path: the video; None where there is none.
    wav: the file of its sound; None takes that of the video.
    label: its class, "" where it is not known.
    split: the part of the data set, such as "train" or "test"; "" where it is not known.
    caption: what it shows, in words; "" where it is not known.
    ytid: the first 11 characters of the name, where the data set goes by them as VGGSound does; "" elsewhere.
    """

    name: str
    path: Path | None = None
    wav: Path | None = None
    label: str = ""
    split: str = ""
    caption: str = ""
    ytid: str = ""

    classes: ClassVar[tuple[int, ...]] = (-1,) * len(CLASSES)  # by `CLASSES`; not known

    def __str__(self) -> str:
        return str(self.path or self.wav or self.name)

    def reader(self, align: bool = True) -> FileReader:
        """The reader of its sound and pictures, on one clock or not."""
        if self.path is None and self.wav is None:
            raise DatasetError(self, "neither a video nor a sound", "at least one of them")
        return FileReader(self.path, self.wav, align)


@dataclass(frozen=True)
class PlainScene(clips.Scene):
    """A scene drawn in the middle of one plain backdrop, since a mono sound tells neither place nor backdrop."""

    _backdrop = Backdrop(np.random.default_rng(1))
    _backdrop.moving.clear()

    def frame(self, time: float | int, size: tuple[int, int] = (256, 256)) -> UInt8[np.ndarray, "height width 3"]:
        return super(PlainScene, replace(self, position=0.5)).frame(time, size)


@dataclass(frozen=True)
class SceneClip(Clip):
    """A built-in scene, computed whenever it is read; its label is its kind."""

    scene: clips.Scene = field(kw_only=True)

    def reader(self, align: bool = True) -> FileReader:
        return SceneReader(self.scene)

    @cached_property
    def attributes(self) -> dict[str, str]:
        return attributes(self.scene.truth)

    @cached_property
    def classes(self) -> tuple[int, ...]:
        return tuple(words.index(self.attributes[name]) for name, words in CLASSES.items())


# Captions of scenes. Only what a single frame shows is in them, so the rate is not. By default it can be heard as well:
# the kind, the size by the pitch, the colour by how long and how bright a note rings. A mono sound has no place.


def attributes(truth: clips.Truth) -> dict[str, str]:
    """Return kind, size, colour and place of a scene as words."""
    return {
        "kind": truth.kind,
        "size": _nearest(SIZES, truth.size * len(SIZES)),
        "colour": _nearest(COLOURS, truth.hue * (len(COLOURS) - 1) + 0.5),
        "place": _nearest(PLACES, truth.position * len(PLACES)),
    }


def caption(truth: clips.Truth, place: bool = False) -> str:
    """A scene in words: "a small blue ball", "a large pink bowl in the rain"; `place` adds "on the left"."""
    words = attributes(truth)
    return phrase(words["kind"], words["size"], words["colour"], words["place"] if place else "")


def phrase(kind: str, size: str, colour: str, place: str = "") -> str:
    """The caption of these attributes."""
    return " ".join(filter(None, ("a", size, colour, _THINGS[kind], place)))


def vocabulary() -> list[str]:
    """Every word that a caption can have, sorted; 25 of them."""
    phrases = [phrase(kind, SIZES[0], COLOURS[0]) for kind in clips.KINDS]
    return sorted({word for text in (*phrases, *SIZES, *COLOURS, *PLACES) for word in text.split()})


def _nearest(words: tuple[str, ...], step: float | int) -> str:
    return words[min(int(step), len(words) - 1)]


def scene_clips(count: int, seed: int = 0, seconds: float | int = 10.0, split: str = "") -> list[Clip]:
    """Return built-in scenes with labels and captions; see `avlib.clips.scenes`."""
    return [
        SceneClip(f"{scene.kind} {scene.seed}", None, None, scene.kind, split, caption(scene.truth), scene=scene)
        for scene in (PlainScene(each.kind, each.seed, seconds) for each in clips.scenes(count, seed, seconds))
    ]


def read_clips(path: str | Path, csv: str | Path = "") -> list[Clip]:
    """Read the clips of a folder or a table.

    - A folder in the published layout, `video/` and `audio/`: files of one name are one clip. Either may be missing.
    - Any other folder: clips in a sub-folder, however deep, are labelled with its name; `a.mp4` and `a.wav` in one
      folder are one clip. (Published: only names that are in both folders.)
    - A `.csv` with `path`, `wav` or both, and `name`, `label`, `split` and `caption` where they are known. Paths begin
      at the folder of the table.
    - One sound or video file.

    Args:
        csv: for a folder, the table of labels and parts: with the columns `ytid`, `set` and `class` as AudioToken's,
            VGGSound's own (no header; id, start, class, part), or `name`, `label` and `split`. A `ytid` is the first
            11 characters of a clip's name. Clips that are not in the table have neither label nor part.

    Raises:
        DatasetError: no such file or folder, nothing in it, a table in another form, or one that contradicts itself.
    """
    path = existing(path)
    if path.is_dir():
        found = list(_in_folder(path))
    elif path.suffix.lower() == ".csv":
        found = list(_listed(path))
    elif path.suffix.lower() in VIDEO_SUFFIXES | SOUND_SUFFIXES:
        found = [_clip(path.stem, [path])]
    else:
        raise DatasetError(path, "is no clip and no table", "a folder, a .csv, or a sound or video file")
    if not found:
        expected = f"clips ({', '.join(sorted(VIDEO_SUFFIXES | SOUND_SUFFIXES))})" if path.is_dir() else "some rows"
        raise DatasetError(path, "nothing in it", expected)
    return _with_labels(found, existing(csv)) if csv else found


def select(table: Sequence[Clip], split: str = "", exclude: Iterable[str | Path] = ()) -> list[Clip]:
    """Return the clips of one part of the data set, except listed ones.

    Args:
        split: such as "train" or "test"; "" takes all.
        exclude: text files with one id or name in each line; # begins a comment. The published filters are such lists,
            but pickled, which is refused: to open one can run any program.

    Raises:
        DatasetError: nothing is left, or a list cannot be read.
    """
    names = set().union(*map(_names_in, exclude))
    listed = {clip for clip in table if names & {clip.name, clip.ytid}}
    chosen = [clip for clip in table if clip not in listed and split in ("", clip.split)]
    if not chosen:
        labelled = sum(bool(clip.label) for clip in table)
        inside = sum(split in ("", clip.split) for clip in table)
        found = f"{len(table)} clips found, {labelled} labelled, {inside} in set {split or 'any'}"
        if names:
            found += f", {len(listed)} excluded"
        sets = Counter(clip.split or "none" for clip in table)
        there = ", ".join(f"{name}: {count}" for name, count in sorted(sets.items()))
        raise DatasetError("clips", found, "at least one that is left", f"Clips by set: {there or 'no clips'}.")
    return chosen


def _in_folder(folder: Path) -> Iterator[Clip]:
    inside = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if inside & set(_VGGSOUND) and (inside >= set(_VGGSOUND) or inside <= set(_VGGSOUND)):
        pairs = [*files_in(folder / "video", VIDEO_SUFFIXES), *files_in(folder / "audio", SOUND_SUFFIXES)]
        for name, files in _grouped((path.stem, path) for path, _ in pairs).items():
            yield _clip(name, files, ytid=name[:_YTID])
        return
    pairs = list(files_in(folder, VIDEO_SUFFIXES | SOUND_SUFFIXES))
    labels = dict(pairs)
    for place, files in _grouped((path.with_suffix(""), path) for path, _ in pairs).items():
        yield _clip(place.name, files, label=labels[files[0]])


def _grouped(pairs: Iterable[tuple]) -> dict:
    groups: dict = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _clip(name: str, files: list[Path], **known: str) -> Clip:
    """One clip of a video, a sound, or both."""
    by_column: dict[str, Path] = {}
    for file in files:
        column = "path" if file.suffix.lower() in VIDEO_SUFFIXES else "wav"
        if column in by_column:
            found = f"the same clip as {by_column[column]}"
            raise DatasetError(file, found, "one video and one sound for a name", "Rename or remove one of them.")
        by_column[column] = file
    return Clip(name, **by_column, **known)


def _rows(path: Path) -> tuple[list[str], list[tuple[int, Mapping[str, str]]]]:
    columns, rows = sources.read_table(path)
    if set(columns) & {"ytid", "name", "path", "wav"}:
        return columns, rows
    if not sources.is_segments(path):
        raise DatasetError(path, f"its first line is {','.join(columns)!r}", _HEADERS)
    lines = enumerate(sources.segments(path), start=1)
    return ["ytid", "class", "set"], [(n, {"ytid": i, "class": what, "set": part}) for n, (i, _, what, part) in lines]


def _listed(path: Path) -> Iterator[Clip]:
    columns, rows = _rows(path)
    if not {"path", "wav"} & set(columns):
        advice = "Give the folder of the clips as `path`, and this table as `csv`."
        raise DatasetError(path, f"no column `path` or `wav` in {','.join(columns)!r}", _HEADERS, advice)
    for line, row in rows:
        files = {column: path.parent / row[column] for column in ("path", "wav") if row.get(column)}
        if not files:
            raise DatasetError(f"{path}, line {line}", "neither path nor wav", "at least one of them")
        if "wav" not in files and files["path"].suffix.lower() in SOUND_SUFFIXES:
            files = {"wav": files["path"]}  # `path` of a table of sounds
        name = row.get("name") or next(iter(files.values())).stem
        known = {column: row.get(column, "") for column in ("label", "split", "caption", "ytid")}
        yield Clip(name, **files, **known)


def _with_labels(found: list[Clip], path: Path) -> list[Clip]:
    columns, rows = _rows(path)
    by_ytid = "ytid" in columns
    wanted = ("ytid", "class", "set") if by_ytid else ("name", "label", "split")
    missing = sorted(set(wanted) - set(columns))
    if missing:
        raise DatasetError(path, f"no column {', '.join(missing)} in {','.join(columns)!r}", _HEADERS)
    known: dict[str, tuple[str, str]] = {}
    for line, row in rows:
        name, *what = (row[column] for column in wanted)
        if known.setdefault(name, tuple(what)) != tuple(what):
            both = " and ".join(f"{label!r} in set {split!r}" for label, split in (known[name], what))
            raise DatasetError(f"{path}, line {line}", f"{name} is {both}", "one class and one set for a clip")
    labelled = []
    for clip in found:
        ytid = clip.name[:_YTID] if by_ytid else clip.ytid
        label, split = known.get(ytid if by_ytid else clip.name, ("", ""))
        labelled.append(replace(clip, label=label or clip.label, split=split, ytid=ytid))
    return labelled


def _names_in(path: str | Path) -> set[str]:
    path = existing(path)
    advice = "Write the ids to a text file, one in each line; a pickle is not opened, since it can run any program."
    with path.open("rb") as file:
        beginning = file.read(16)
    if path.suffix.lower() in (".pkl", ".pickle") or beginning.startswith((b"\x80", b"(lp", b"(dp", b"c__")):
        raise DatasetError(path, "is a pickled list", "plain text", advice)
    lines = [line.strip() for line in sources.read_text(path, "one id in each line, in UTF-8").split("\n")]
    return {line for line in lines if line and not line.startswith("#")}


class Extracted(NamedTuple):
    """A table with its new files, errors of clips left out, a report."""

    clips: list[Clip]
    skipped: list[AvlibError]
    report: str


def extract_audio(
    clips: Sequence[Clip],
    folder: str | Path,
    *,
    channel: int | None = None,
    align: bool = True,
    jobs: int | None = None,
    on_error: str = "raise",
    progress: bool = True,
) -> Extracted:
    """Write the sound of every clip that has no wav as `folder/name.wav`: 16 kHz, mono, 16 bit.

    It begins with the video; align=False begins it with the first sample, as published, see `media.read_audio`.
    Files that exist are kept, so that an interrupted run goes on. In the published layout the folder is `audio`.

    Raises:
        MediaError: a clip without sound, or a broken one.
        DatasetError: two clips of one name.
    """
    for clip in clips:
        if clip.wav is None and clip.path is None:
            raise DatasetError(clip, "no video to take the sound of", "a clip on disk")
    missing, folder = [clip for clip in clips if clip.wav is None], Path(folder)
    if len({clip.name.casefold() for clip in missing}) < len(missing):  # some file systems take Dog and dog for one
        raise DatasetError(folder, "two clips of one name", "a name for each", "Extract them to two folders.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(folder, str(error), "a folder that can be written", "Give another folder.") from error
    task = partial(_extract, folder=folder, channel=channel, align=align)
    done = each_usable(task, missing, on_error, jobs, progress)
    made = {clip.name: outcome for clip, outcome in zip(missing, done, strict=True)}
    table = [clip if clip.wav else made[clip.name] for clip in clips]
    skipped = [outcome for outcome in done if not isinstance(outcome, Clip)]
    return Extracted([clip for clip in table if isinstance(clip, Clip)], skipped, describe(skipped, len(clips)))


def _extract(clip: Clip, *, folder: Path, channel: int | None, align: bool) -> Clip:
    target = folder / f"{clip.name}.wav"
    if not target.exists():
        waveform = media.read_audio(clip.path, SAMPLE_RATE, channel=channel, align=align)
        with cache.publishing(target) as unfinished:
            media.write_wav(unfinished, waveform, SAMPLE_RATE)
    return replace(clip, wav=target)
