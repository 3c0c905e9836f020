"""Speech as unit vocoders learn it: units, a speaker vector, and the waveform that both belong to.

    a talk, a file, or a line of a manifest -> Piece -> 28 units and 8960 samples from a random place -> Batch

Source: choijeongsoo/av2av, `unit2av/dataset.py`, whose rules for an item are kept: both are cut to the shorter one, the
largest sample is 0.95, and what is shorter than a segment is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from ... import media
from ...clips import heads
from ...clips.heads import UNIT, Talk
from ...errors import AvlibError, MediaError, TooShortError
from ...extract import pitch
from ...features import SAMPLE_RATE
from ...settings import Count, Natural, settings
from ...workers import describe
from ..items import ItemDataset, each_usable
from ..sources import SOUND_SUFFIXES, existing, files_in
from ..voices import Voices
from .manifests import Pair, read_manifest, warn_if_shared

HELD_OUT_WORDS = tuple(heads.WORDS)[::6]  # each phone of theirs is in words that are trained on
KNOWN_WORDS = tuple(word for word in heads.WORDS if word not in HELD_OUT_WORDS)
PEAK = 0.95
_SILENT = 1e-4

Embed = Callable[[Float[Tensor, " samples"]], Float[Tensor, " values"]]
Extract = Callable[[Float[Tensor, " samples"], int], Int64[Tensor, " units"]]


@settings
class Data:
    """Speech, and how it is prepared.

    data: a manifest, see `read_manifest`; a folder of sound files, whose units are extracted; "" takes built-in talks.
    validation: a manifest of other recordings; "" validates on held-out talks, or holds out a tenth of the user's.
    root: folder that no path of a manifest may leave; "" allows any.
    unit_offset: number of the first unit in the files of a manifest; 4 for indices of a fairseq dictionary.
    talks: built-in ones to train on.
    held_out: built-in ones of words that are not trained on.
    speakers: of the built-in talks.
    heads: likewise.
    segment: units of an item.
    seed: of the built-in talks.
    on_error: "raise" or "skip", for files that cannot be used.
    """

    FREE: ClassVar = ("on_error",)

    data: str = ""
    validation: str = ""
    root: str = ""
    unit_offset: Natural = 0
    talks: Count = 120
    held_out: Count = 12
    speakers: Count = 24
    heads: Count = 12
    segment: Count = 28
    seed: Annotated[int, Field(ge=0, le=1000)] = 0
    on_error: Literal["raise", "skip"] = "raise"


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

    def batch(self) -> Batch:
        """Return all items at once."""
        return Batch(*(torch.stack(column) for column in zip(*map(self.__getitem__, range(len(self))), strict=True)))

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
    waveform: Float[Tensor, " samples"],
    units: Int64[Tensor, " units"],
    speaker: Float[Tensor, " values"],
    name: str = "",
) -> Piece:
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
    """Return the built-in talks: of known words, or of held-out ones.

    Args:
        data: number of talks, speakers and heads.
        held_out: words that are not trained on, by the same speakers.
        count: of talks; None takes that of the data.
        seed: of other timing and order.
        options: of `avlib.clips.heads.talks`; `speakers` and `heads` may be others.
    """
    words = HELD_OUT_WORDS if held_out else KNOWN_WORDS
    wanted = (data.held_out if held_out else data.talks) if count is None else count
    number = 10 * data.seed + 2 * seed + held_out
    return heads.talks(wanted, words, **({"speakers": data.speakers, "heads": data.heads, "seed": number} | options))


def piece_of_talk(talk: Talk, extract: Extract, embed: Embed) -> Piece:
    """Return a built-in talk with extracted units; its pitch is the true one."""
    waveform = torch.from_numpy(talk.sound())
    made = piece_of(waveform, extract(waveform, SAMPLE_RATE), embed(waveform), " ".join(talk.words))
    truth, count = talk.truth, len(made.units)
    return made._replace(
        hertz=torch.from_numpy(truth.hertz)[:count].float(), voiced=torch.from_numpy(truth.voiced)[:count]
    )


def _piece_of_pair(pair: Pair, data: Data, vocabulary: int, embed: Embed) -> Piece:
    file = pair.read(data.unit_offset, vocabulary)
    waveform = media.read_audio(pair.audio, SAMPLE_RATE)
    speaker = embed(waveform) if file.speaker is None else file.speaker
    return piece_of(waveform, file.units, speaker, pair.audio.name)


def _piece_of_file(path: Path, extract: Extract, embed: Embed) -> Piece:
    waveform = media.read_audio(path, SAMPLE_RATE)
    return piece_of(waveform, extract(waveform, SAMPLE_RATE), embed(waveform), path.name)


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
    data: Data, vocabulary: int, extract: Extract | None, embed: Embed, seed: int = 0, *, progress: bool = True
) -> Split:
    """Prepare all recordings, and divide them.

    Args:
        data: what to read.
        vocabulary: K; units of a manifest from K up are refused.
        extract: makes the units of talks and sound files; a manifest needs none.
        embed: makes speaker vectors where files of units have none.
        seed: of segments.
        progress: whether to show a bar.

    Raises:
        MediaError, DatasetError: see `read_manifest` and `media.read_audio`; with `on_error="skip"` only if nothing is
            left.
        ParameterError: a unit beyond the vocabulary.
    """
    if not data.data:
        parts = [[piece_of_talk(talk, extract, embed) for talk in talks(data, held_out)] for held_out in (False, True)]
        return Split(*(UnitDataset(part, data.segment, seed) for part in parts))
    root = data.root or None
    if is_manifest(data.data):
        lists = [read_manifest(data.data, root)]
        if data.validation:
            lists.append(read_manifest(data.validation, root))
            warn_if_shared(*lists)
        task = partial(_piece_of_pair, data=data, vocabulary=vocabulary, embed=embed)
    else:
        lists, task = [sound_files(data.data)], partial(_piece_of_file, extract=extract, embed=embed)
    if len(lists) == 1:  # every tenth is held out; of a single one, itself
        only = lists[0]
        lists = [[each for n, each in enumerate(only) if n % 10 or len(only) == 1], only[::10]]
    parts, errors = [], []
    for part in lists:
        results = each_usable(task, part, data.on_error, 1, progress)
        errors += [result for result in results if isinstance(result, AvlibError)]
        parts.append([result for result in results if isinstance(result, Piece)])
    notes = describe(errors, sum(map(len, lists))) if errors else ""
    return Split(*(UnitDataset(part, data.segment, seed, notes) for part in parts))


# Labelled sound, for recognisers


def labelled(talks: Sequence[Talk], labels: Sequence[Int64[Tensor, " units"]], window: int, seed: int = 0) -> Voices:
    """Return windows of the sound of talks, with a class for each unit."""
    sounds = [torch.from_numpy((talk.sound() * 2**15).astype("int16")) for talk in talks]
    return Voices(list(zip(sounds, labels, strict=True)), window, seed)
