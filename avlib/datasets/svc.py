"""Songs as diff-svc learns them: mel, pitch and content units of one mono signal.

    a file -> pieces between pauses -> mel (T, 128), hertz (T,), units (U, D), mel2ph (T,) -> `collate` -> Batch

T = samples // 512 at 44.1 kHz, and U = samples // 320 at 16 kHz: `mel2ph` aligns each piece by itself, and only then
are pieces padded. Source: prophesier/diff-svc, `preprocessing/` and `training/task/SVC_task.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import soxr
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import checkpoints, extract, features, media
from ..clips import song
from ..errors import AvlibError, DatasetError, MediaError, TooShortError
from ..extract.slicing import slices
from ..extract.units import ContentEncoder
from ..features.singing import SVC_FLOOR, SVC_HOP, SVC_MELS, SVC_SAMPLE_RATE, mel2ph, svc_log_mel
from ..once import done_once
from ..settings import Count, Natural, Positive, settings
from ..workers import describe
from .items import ItemDataset, each_usable
from .sources import SAMPLE_RATE, SOUND_SUFFIXES, existing, files_in, read_table
from .sources import split as divided
from .voices import UNIT, UNKNOWN, Voices

SINGERS = ("mira", "otto")  # of the built-in song
SHORTEST = 8192  # samples of a piece, 0.19 s
_SILENT = 1e-4  # peak of a file that holds nothing
_NARROW = 32000  # Hz: below, the upper bins of the mel are empty, and a model learns to leave them out


@settings
class Data:
    """Songs, and how they are prepared.

    data: a folder with a sub-folder of sound files for each singer, a folder of one singer's files, a file, or a table
        (.csv) with the columns path and singer; "" takes the built-in song.
    """

    FREE: ClassVar = ("on_error",)

    data: str = ""
    only: Sequence[str] = ()  # singers to take; empty for all
    phrases: Count = 32  # of the built-in song, by each singer
    held_out: Natural = 12  # phrases that are not trained on; of the user's sound pieces, at most a fifth
    song_seed: Annotated[int, Field(ge=0, le=400)] = 0  # of the built-in melodies
    longest: Positive = 15.0  # seconds of a piece; a longer passage without a pause is cut into equal parts
    crop: Natural = 128  # frames of a training item, from a random place in its piece; 0 takes whole pieces
    mels: Literal[128, 64, 32, 16] = SVC_MELS  # bins; fewer than 128 are means over neighbours, for comparisons
    pitch: Literal["autocorrelation", "pyin", "torchfcpe", "swift-f0"] = "autocorrelation"  # of `avlib.extract.pitch`
    on_error: Literal["raise", "skip"] = "raise"  # what is done about files that cannot be used


class Source(NamedTuple):
    """A file of sound and its singer."""

    path: Path
    singer: str


class Piece(NamedTuple):
    """A piece of song: T frames of 512 samples at 44.1 kHz, U units of 20 ms."""

    mel: Float[Tensor, "frames mels"]  # log10
    hertz: Float[Tensor, " frames"]  # through unvoiced frames too
    voiced: Bool[Tensor, " frames"]
    units: Float[Tensor, "units values"]
    mel2ph: Int64[Tensor, " frames"]  # for each frame its unit, from 1
    singer: int = 0
    name: str = ""

    def part(self, start: int, frames: int) -> Piece:
        """Return some frames, with the units that they refer to."""
        tracks = (self.mel, self.hertz, self.voiced, self.mel2ph)
        mel, hertz, voiced, ids = (track[start : start + frames] for track in tracks)
        units = self.units[int(ids[0]) - 1 : int(ids[-1])]
        return Piece(mel, hertz, voiced, units, ids - ids[0] + 1, self.singer, self.name)


class Batch(NamedTuple):
    """Pieces padded at their ends: mel with the floor, everything else with 0."""

    mel: Float[Tensor, "batch frames mels"]
    hertz: Float[Tensor, "batch frames"]
    voiced: Bool[Tensor, "batch frames"]
    units: Float[Tensor, "batch units values"]
    mel2ph: Int64[Tensor, "batch frames"]  # 0 in the padding
    lengths: Int64[Tensor, " batch"]  # frames
    unit_lengths: Int64[Tensor, " batch"]
    singers: Int64[Tensor, " batch"]

    @property
    def mask(self) -> Bool[Tensor, "batch frames"]:
        return features.valid_mask(self.lengths, self.mel.shape[1])


def read_sources(data: str, only: Sequence[str] = ()) -> list[Source]:
    """List the files of sound and their singers; see `Data.data`. There must be one of each singer in `only`."""
    path = existing(data)
    if path.is_dir():
        found = [Source(file, singer or path.name) for file, singer in files_in(path, SOUND_SUFFIXES)]
    elif path.suffix.lower() == ".csv":
        columns, rows = read_table(path)
        if not rows or not {"path", "singer"} <= set(columns):
            raise DatasetError(path, f"{len(rows)} rows, of columns {', '.join(columns)}", "path and singer")
        if lines := [line for line, row in rows if not (row["path"] and row["singer"])]:
            raise DatasetError(f"{path}, line {lines[0]}", "no path or no singer", "both in each row")
        found = [Source(path.parent / row["path"], row["singer"]) for _, row in rows]
    else:
        found = [Source(path, path.stem)]
    there = sorted({source.singer for source in found})
    if missing := [name for name in only if name not in there]:
        raise DatasetError(path, f"no sound of {', '.join(missing)}", f"one of {', '.join(there) or 'no singers'}")
    found = [source for source in found if not only or source.singer in only]
    if not found:
        raise DatasetError(path, "no sound files", f"files of {', '.join(sorted(SOUND_SUFFIXES))}")
    return found


def cut(waveform: Float[Tensor, " samples"], method: str, encoder: ContentEncoder) -> Piece:
    """Compute mel, pitch, units and their alignment from a mono sound at 44.1 kHz."""
    mel = svc_log_mel(waveform[None])[0]
    track = extract.pitch(waveform, SVC_SAMPLE_RATE, method=method)
    units = encoder(waveform, SVC_SAMPLE_RATE).float()
    return Piece(mel, track.hertz.float(), track.voiced, units, mel2ph(len(mel), len(units)))


def prepared(source: Source, data: Data, encoder: ContentEncoder) -> list[Piece]:
    """Return the sung pieces of a file, from the cache or computed now.

    The cache knows them by the content of the file, so that it may be moved, and by how they are computed.

    Raises:
        MediaError: the file cannot be read, is silent, or nobody sings in it; TooShortError: shorter than 0.19 s.
    """
    try:
        with source.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(source.path, error.strerror or "cannot be read") from error

    def save(pieces: Sequence[Piece], folder: Path) -> None:
        tensors = {f"{name}.{n}": getattr(piece, name) for n, piece in enumerate(pieces) for name in _ARRAYS}
        checkpoints.save(folder, tensors, {"pieces": len(pieces)})

    how = [content, data.longest, data.pitch, encoder.recipe]
    path = done_once("arrays", "svc", how, lambda _: _computed(source, data, encoder), save, source=__name__)
    tensors, config = checkpoints.read(path)
    return [Piece(*(tensors[f"{name}.{n}"] for name in _ARRAYS)) for n in range(config["pieces"])]


_ARRAYS = Piece._fields[:5]


def _computed(source: Source, data: Data, encoder: ContentEncoder) -> list[Piece]:
    waveform = media.read_audio(source.path, SVC_SAMPLE_RATE)
    if len(waveform) < SHORTEST:
        found = f"{len(waveform) / SVC_SAMPLE_RATE:.3f} s of sound"
        raise TooShortError(source.path, found, f"at least {SHORTEST / SVC_SAMPLE_RATE:.2f} s", "Leave that file out.")
    if float(waveform.abs().max()) < _SILENT:
        raise MediaError(source.path, "is silent", "a singer's voice", "Leave that file out.")
    parts = slices(waveform, SVC_SAMPLE_RATE, longest=data.longest)
    sung = [part for part in parts if not part.silent and part.stop - part.start >= SHORTEST]
    pieces = [cut(waveform[part.start : part.stop], data.pitch, encoder) for part in sung]
    pieces = [piece for piece in pieces if piece.voiced.any()]  # published too: nothing to learn a pitch from
    if not pieces:
        raise MediaError(source.path, "nothing in it is voiced", "a singer's voice", "Leave that file out.")
    return pieces


class SVCDataset(ItemDataset):
    """Pieces of song in memory; `singers` are in the order of their numbers."""

    def __init__(self, pieces: Sequence[Piece], singers: Sequence[str], crop: int = 0, seed: int = 0, notes: str = ""):
        super().__init__(pieces, seed, "raise")
        self.pieces, self.singers, self.crop, self.notes = list(pieces), tuple(singers), crop, notes

    def __getitem__(self, index: int) -> Piece:
        piece = self.pieces[index]
        room = len(piece.mel) - self.crop
        if not self.crop or room <= 0:
            return piece
        return piece.part(int(self._dice(index).integers(room + 1)), self.crop)

    @property
    def lengths(self) -> list[int]:
        return [min(len(piece.mel), self.crop or len(piece.mel)) for piece in self.pieces]

    @property
    def unit_size(self) -> int:
        return self.pieces[0].units.shape[1]

    @staticmethod
    def collate(pieces: Sequence[Piece]) -> Batch:
        """Pad pieces, each aligned already, to the longest of a batch."""

        def padded(name: str, value: float = 0.0) -> Tensor:
            return pad_sequence([getattr(piece, name) for piece in pieces], batch_first=True, padding_value=value)

        counts = torch.tensor([[len(piece.mel), len(piece.units), piece.singer] for piece in pieces])
        return Batch(padded("mel", SVC_FLOOR), *map(padded, _ARRAYS[1:]), *counts.unbind(1))

    def report(self) -> str:
        """Return the number of pieces, their singers, and remarks on files."""
        seconds = sum(len(piece.mel) for piece in self.pieces) * SVC_HOP / SVC_SAMPLE_RATE
        return f"{len(self)} pieces, {seconds:.0f} s, by {', '.join(self.singers)}. {self.notes}".strip()


class Split(NamedTuple):
    """Pieces to train on, and held-out ones; None where none are."""

    train: SVCDataset
    held_out: SVCDataset | None


def melodies(data: Data, singer: str, held_out: bool = False) -> list[song.Song]:
    """Return the built-in phrases of a singer.

    Three of four, and all held-out ones, have a range that all singers share: were that of each singer another, a model
    would learn to know singers by their pitch.
    """
    seed = 15_000 + 10 * data.song_seed + list(song.SINGERS).index(singer)
    if held_out:
        return song.phrases(data.held_out, singer, seed + 5, span=song.SHARED)
    own, shared = (song.phrases(data.phrases, singer, seed, span=span) for span in (None, song.SHARED))
    return [(own if place % 4 == 3 else shared)[place] for place in range(data.phrases)]


def sources(data: Data, progress: bool = True) -> tuple[list[Source], list[Source]]:
    """Return the files to train on, and held-out ones; the built-in song is rendered first."""
    if data.data:
        return read_sources(data.data, data.only), []
    parts = []
    for held_out in (False, True)[: 1 + bool(data.held_out)]:
        songs = [each for name in data.only or SINGERS for each in melodies(data, name, held_out)]
        _, rows = read_table(song.render(songs, 1, progress))
        parts.append([Source(Path(row["path"]), row["singer"]) for _, row in rows])
    return parts[0], parts[1] if data.held_out else []


def split_songs(data: Data, encoder: ContentEncoder, seed: int = 0, *, progress: bool = True) -> Split:
    """Prepare all files, and divide their pieces; `seed` is that of crops, and of the division of the user's pieces.

    Raises:
        MediaError, DatasetError: see `read_sources` and `prepared`; with `on_error="skip"` only if nothing is left.
    """
    parts = sources(data, progress)
    singers = sorted({source.singer for source in parts[0]})
    task = partial(prepared, data=data, encoder=encoder)
    pieces, errors, notes = ([], []), [], []
    jobs = None if data.data else 1  # for the short built-in song no process pays
    for found, part in zip(pieces, parts, strict=True):
        for source, result in zip(part, each_usable(task, part, data.on_error, jobs, progress), strict=True):
            if isinstance(result, AvlibError):
                errors.append(result)
                continue
            if (rate := media.probe(source.path).audio.sample_rate) < _NARROW:
                notes.append(f"{source.path} has {rate} Hz, and so nothing above {rate // 2} Hz.")
            number = singers.index(source.singer)
            found += [binned(piece, data.mels)._replace(singer=number, name=source.path.name) for piece in result]
    train, held_out = pieces
    count = min(data.held_out, len(train) // 5)
    if data.data and count:
        train, held_out = divided(train, count, seed, attrgetter("singer"))
    notes = " ".join([describe(errors, sum(map(len, parts)))] * bool(errors) + notes)
    return Split(*(SVCDataset(part, singers, data.crop, seed, notes) if part else None for part in (train, held_out)))


def binned(piece: Piece, mels: int) -> Piece:
    """Return a piece whose mel bins are means of neighbours."""
    return piece._replace(mel=piece.mel.unflatten(1, (mels, -1)).mean(2)) if mels < SVC_MELS else piece


def classes(target: str) -> tuple[str, ...]:
    """Return the classes of labelled sound: vowels, consonants and rest, or the built-in singers."""
    return song.CLASSES if target == "vowels" else SINGERS


def labelled_voices(target: str, singers: int, count: int, seed: int, window: int, crop_seed: int = 0) -> Voices:
    """Return labelled sound, `count` phrases of each singer, from the cache or rendered now.

    The target is "vowels", of so many random singers; or "singers", the built-in ones, where they sing. `seed` is of
    singers and melodies; `crop_seed` of the windows, of so many units.
    """
    how = [target, singers, count, seed]

    def save(made: dict[str, Tensor], folder: Path) -> None:
        checkpoints.save(folder, made, {})

    path = done_once("arrays", f"svc-{target}", how, lambda _: _labelled(*how), save, source=__name__)
    made = checkpoints.read(path).tensors
    return Voices([(made[f"sound.{n}"], made[f"labels.{n}"]) for n in range(len(made) // 2)], window, crop_seed)


def _labelled(target: str, singers: int, count: int, seed: int) -> dict[str, Tensor]:
    made = {}
    voices = [song.Singer.random(1000 * seed + n) for n in range(singers)] if target == "vowels" else SINGERS
    for place, voice in enumerate(voices):
        for each in song.phrases(count, voice, 100 * seed + place):
            sound = soxr.resample(each.sound(), SVC_SAMPLE_RATE, SAMPLE_RATE)
            made[f"sound.{len(made) // 2}"] = torch.from_numpy((sound * 2**15).round().astype(np.int16))
            made[f"labels.{len(made) // 2}"] = labels_of(each.truth, target, len(sound) // UNIT)
    return made


def labels_of(truth: song.Truth, target: str, units: int) -> Int64[Tensor, " units"]:
    """Return the class of each unit, by the frame of the truth that it is centred in."""
    times = (np.arange(units) + 0.5) * UNIT / SAMPLE_RATE
    frames = np.minimum((times * SVC_SAMPLE_RATE / SVC_HOP).astype(int), len(truth.vowels) - 1)
    if target == "vowels":
        return torch.from_numpy(truth.vowels[frames])
    return torch.from_numpy(np.where(truth.sung[frames], SINGERS.index(truth.singer), UNKNOWN))
