"""Speech as unit vocoders learn it: units, a speaker vector, and the waveform that both belong to.

    a talk, a file, or a line of a manifest -> Piece -> 28 units and 8960 samples from a random place -> Batch

Source: choijeongsoo/av2av, `unit2av/dataset.py`, whose rules for an item are kept: both are cut to the shorter one, the
largest sample is 0.95, and what is shorter than a segment is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from ... import checkpoints, media
from ...clips import heads
from ...clips.heads import UNIT, Talk
from ...errors import AvlibError, DatasetError, MediaError, ParameterError, TooShortError
from ...extract import pitch
from ...features import SAMPLE_RATE
from ...once import done_once, written
from ...settings import Count, Natural, settings
from ...workers import describe
from ..items import ItemDataset, each_usable
from ..sources import SOUND_SUFFIXES, existing, files_in
from ..voices import Voices
from .manifests import Pair, read_manifest, warn_if_shared

HELD_OUT_WORDS = tuple(heads.WORDS)[::6]  # each phone of theirs is in words that are trained on
KNOWN_WORDS = tuple(word for word in heads.WORDS if word not in HELD_OUT_WORDS)
PEAK = 0.95
NOISE = 1e-3  # deviation: no room is silent, and the log-mel of digital zeros would outweigh the speech in a loss
_SILENT = 1e-4

Embed = Callable[[Float[Tensor, " samples"]], Float[Tensor, " values"]]
Extract = Callable[[Float[Tensor, " samples"], int], Int64[Tensor, " units"]]


@settings
class Data:
    """Speech, and how it is prepared.

    data: a manifest, see `read_manifest`; a folder of sound files, whose units are extracted; "" takes built-in talks.
    validation: a manifest of other recordings; "" validates on held-out talks, or holds out a tenth of the user's.
    """

    FREE: ClassVar = ("on_error",)

    data: str = ""
    validation: str = ""
    root: str = ""  # folder that no path of a manifest may leave; "" allows any
    unit_offset: Natural = 0  # the first unit in the files of a manifest; 4 for indices of a fairseq dictionary
    talks: Count = 180  # built-in ones to train on
    held_out: Count = 24  # built-in ones of words that are not trained on
    speakers: Count = 24  # of the built-in talks
    heads: Count = 12  # of the built-in talks
    segment: Count = 28  # units of an item
    seed: Annotated[int, Field(ge=0, le=1000)] = 0  # of the built-in talks
    on_error: Literal["raise", "skip"] = "raise"  # what is done about files that cannot be used


class Piece(NamedTuple):
    """One recording: N units of 20 ms, and all that belongs to them."""

    units: Int64[Tensor, " units"]
    speaker: Float[Tensor, " values"]
    waveform: Float[Tensor, " samples"]  # 320 N, the largest sample is 0.95
    hertz: Float[Tensor, " units"]  # through unvoiced units too
    voiced: Bool[Tensor, " units"]
    name: str = ""


class Batch(NamedTuple):
    """Segments of recordings."""

    units: Int64[Tensor, "*batch units"]
    speaker: Float[Tensor, "*batch values"]
    waveform: Float[Tensor, "*batch samples"]
    hertz: Float[Tensor, "*batch units"]
    voiced: Bool[Tensor, "*batch units"]


class UnitDataset(ItemDataset):
    """Segments from random places of recordings in memory; `notes` are remarks on files."""

    def __init__(self, pieces: Sequence[Piece], segment: int = 28, seed: int = 0, notes: str = ""):
        super().__init__(pieces, seed, "raise")
        self.pieces, self.segment, self.notes = list(pieces), segment, notes

    def __getitem__(self, index: int) -> Batch:
        piece = repeated(self.pieces[index], self.segment)
        start = int(self._dice(index).integers(len(piece.units) - self.segment + 1))
        kept = slice(start, start + self.segment)
        sound = piece.waveform[start * UNIT : (start + self.segment) * UNIT]
        return Batch(piece.units[kept], piece.speaker, sound, piece.hertz[kept], piece.voiced[kept])

    def report(self) -> str:
        """Return the number of recordings, their length, and remarks on files."""
        seconds = sum(len(piece.units) for piece in self.pieces) * UNIT / SAMPLE_RATE
        return f"{len(self)} recordings, {seconds:.0f} s. {self.notes}".strip()


def repeated(piece: Piece, segment: int) -> Piece:
    """Join a piece with itself until it has a segment, as published."""
    while len(piece.units) < segment:
        doubled = {name: getattr(piece, name).repeat(2) for name in ("units", "waveform", "hertz", "voiced")}
        piece = piece._replace(**doubled)
    return piece


def piece_of(
    waveform: Float[Tensor, " samples"], units: Int64[Tensor, " units"], speaker: Float[Tensor, " values"],
    name: str = "",
) -> Piece:  # fmt: skip
    """Align a waveform at 16 kHz with its units, cut both to the shorter one, and scale its largest sample to 0.95.

    Raises:
        TooShortError: not one unit. MediaError: silence.
    """
    count = min(len(waveform) // UNIT, len(units))
    if not count:
        raise TooShortError(name or "waveform", f"{len(waveform)} samples", f"at least {UNIT}, one unit of 20 ms")
    waveform = waveform[: count * UNIT]
    peak = float(waveform.abs().max())
    if peak < _SILENT:
        raise MediaError(name or "waveform", "is silent", "speech", "Leave that file out.")
    waveform = waveform * (PEAK / peak)
    track = pitch(waveform, SAMPLE_RATE, hop_length=UNIT)
    return Piece(units[:count], speaker.float(), waveform, track.hertz.float(), track.voiced, name)


# Parts


def talks(data: Data, held_out: bool = False, count: int | None = None, seed: int = 0, **options: object) -> list[Talk]:
    """Return the built-in talks: of known words, or of held-out ones by the same speakers.

    `seed` gives another timing and order; `options` are of `avlib.clips.heads.talks`, such as other speakers and heads.
    """
    words = HELD_OUT_WORDS if held_out else KNOWN_WORDS
    wanted = (data.held_out if held_out else data.talks) if count is None else count
    number = 10 * data.seed + 2 * seed + held_out
    return heads.talks(wanted, words, **({"speakers": data.speakers, "heads": data.heads, "seed": number} | options))


def sound_of(talk: Talk) -> Float[Tensor, " samples"]:
    """Return the sound of a built-in talk, in slight noise."""
    waveform = torch.from_numpy(talk.sound())
    return waveform + NOISE * torch.randn(len(waveform), generator=torch.Generator().manual_seed(talk.seed))


def piece_of_talk(talk: Talk, extract: Extract, embed: Embed) -> Piece:
    """Return a built-in talk with extracted units; its pitch is the true one."""
    waveform = sound_of(talk)
    made = piece_of(waveform, extract(waveform, SAMPLE_RATE), embed(waveform), " ".join(talk.words))
    hertz, voiced = (torch.from_numpy(track)[: len(made.units)] for track in (talk.truth.hertz, talk.truth.voiced))
    return made._replace(hertz=hertz.float(), voiced=voiced)


def _piece_of_pair(pair: Pair, data: Data, vocabulary: int, embed: Embed) -> Piece:
    file = pair.read(data.unit_offset, vocabulary)
    waveform = media.read_audio(pair.audio, SAMPLE_RATE)
    speaker = _embedded(waveform, embed, pair.audio) if file.speaker is None else file.speaker
    if not speaker.isfinite().all() or not speaker.any():
        raise DatasetError(pair.line, "a speaker vector of NaN, infinity or zeros", "a vector of the voice")
    return piece_of(waveform, file.units, speaker, str(pair.audio))


def _piece_of_file(path: Path, extract: Extract, embed: Embed) -> Piece:
    waveform = media.read_audio(path, SAMPLE_RATE)
    if len(waveform) < UNIT:
        raise TooShortError(path, f"{len(waveform)} samples", f"at least {UNIT}, one unit of 20 ms")
    return piece_of(waveform, extract(waveform, SAMPLE_RATE), _embedded(waveform, embed, path), str(path))


def _embedded(waveform: Tensor, embed: Embed, path: Path) -> Tensor:
    try:
        return embed(waveform)
    except ParameterError as error:  # of one file, which may be left out
        raise MediaError(path, f"has {error.found}", error.expected, error.advice) from error


def is_manifest(data: str) -> bool:
    """Return whether data are lines of a manifest, whose units are given."""
    return bool(data) and existing(data).is_file() and existing(data).suffix.lower() not in SOUND_SUFFIXES


def sound_files(data: str) -> list[Path]:
    """List the user's sound files: of a manifest, of a folder, or the one."""
    if is_manifest(data):
        return [pair.audio for pair in read_manifest(data)]
    path = existing(data)
    return [path] if path.is_file() else [file for file, _ in files_in(path, SOUND_SUFFIXES)]


class Split(NamedTuple):
    """Recordings to train on, and held-out ones."""

    train: UnitDataset
    held_out: UnitDataset


def split_speech(
    data: Data, vocabulary: int, extract: Extract | None, embed: Embed, seed: int = 0, *, given: Any = None,
    progress: bool = True,
) -> Split:  # fmt: skip
    """Return the recordings to train on and held-out ones, from the cache or prepared now.

    Args:
        vocabulary: K; units of a manifest from K up are refused.
        extract: makes the units of talks and sound files; a manifest needs none.
        embed: makes speaker vectors where files of units have none.
        given: what the results of `extract` and `embed` follow from.

    Raises:
        MediaError, DatasetError: see `read_manifest` and `media.read_audio`; with `on_error="skip"` only if nothing is
            left.
        ParameterError: a unit beyond the vocabulary.
    """
    lists = _sources(data)
    if data.validation:
        warn_if_shared(*lists)
    files = [each for part in lists for each in part if not isinstance(each, Talk)]
    files = [path for each in files for path in (each[:2] if isinstance(each, Pair) else [each]) if path]
    how = [asdict(data), vocabulary, given, written(files)]

    def made(_: Path) -> tuple[list[list[Piece]], str]:
        if not data.data:
            return [[piece_of_talk(talk, extract, embed) for talk in part] for part in lists], ""
        task = partial(_piece_of_file, extract=extract, embed=embed)
        if is_manifest(data.data):
            task = partial(_piece_of_pair, data=data, vocabulary=vocabulary, embed=embed)
        found = [each_usable(task, part, data.on_error, None, progress) for part in lists]
        errors = [each for part in found for each in part if isinstance(each, AvlibError)]
        notes = describe(errors, sum(map(len, lists))) if errors else ""
        parts = [[each for each in part if isinstance(each, Piece)] for part in found]
        if not data.validation:  # every tenth is held out; of a single one, itself
            (pieces,) = parts
            parts = [[each for n, each in enumerate(pieces) if n % 10 or len(pieces) == 1], pieces[::10]]
        return parts, notes

    def save(result: tuple[list[list[Piece]], str], folder: Path) -> None:
        parts, notes = result
        pairs = [(f"{n}.{i}.{name}", getattr(piece, name)) for n, part in enumerate(parts)
                 for i, piece in enumerate(part) for name in _ARRAYS]  # fmt: skip
        names = [[piece.name for piece in part] for part in parts]
        checkpoints.save(folder, dict(pairs), {"names": names, "notes": notes})

    tensors, kept = checkpoints.read(done_once("arrays", "unit2av-speech", how, made, save, source=__name__))
    parts = [
        [Piece(*(tensors[f"{n}.{i}.{array}"] for array in _ARRAYS), name) for i, name in enumerate(part)]
        for n, part in enumerate(kept["names"])
    ]
    return Split(*(UnitDataset(part, data.segment, seed, kept["notes"]) for part in parts))


_ARRAYS = Piece._fields[:5]


def _sources(data: Data) -> list[list]:
    """Talks, pairs or files to train on, and held-out ones if they are listed apart."""
    if not data.data:
        return [talks(data, held_out) for held_out in (False, True)]
    listed = partial(read_manifest, root=data.root or None)
    only = listed(data.data) if is_manifest(data.data) else sound_files(data.data)
    return [only, listed(data.validation)] if data.validation else [only]


# Labelled sound, for recognisers


def labelled(talks: Sequence[Talk], labels: Sequence[Int64[Tensor, " _"]], window: int, seed: int = 0) -> Voices:
    """Return windows of the sound of talks, with a class for each unit."""
    sounds = [torch.from_numpy((talk.sound() * 2**15).astype("int16")) for talk in talks]
    return Voices(list(zip(sounds, labels, strict=True)), window, seed)
