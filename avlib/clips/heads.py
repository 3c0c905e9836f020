"""Built-in talking heads: drawn faces whose mouth follows the vowels and the loudness of our synthetic voices.

    words, speaker, head, seed -> `Talk(words, speaker, head)` -> its `truth`, its `sound()`, its `frames()`
    `talks(count, words, speakers, heads)` -> many of them, in turns -> `render` -> mp4 files and their table

The voice is that of `speech`, by speakers with the pitch and the vocal tract of adults; no recordings are in it, and
nobody's voice or face is imitated. Phones last as their neighbours and the speaking rate demand: vowels are shorter
before voiceless consonants and longer before a pause, as in Klatt, "Linguistic uses of segmental duration in English",
JASA 59 (1976).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import chain, islice
from itertools import count as numbers
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from pydantic import Field

from .. import cache
from ..errors import ParameterError, check_choice, check_whole
from ..settings import Natural, Number, Share, settings
from . import spoken
from .backdrop import Backdrop
from .drawing import Canvas
from .portrait import STYLES, Box, Head, mouth_opening
from .rendering import place, publish, render_missing, write_table
from .sound import dice
from .spoken import PHONES, Part, Phone, Speaker, tracks_of
from .voice import FRAME_RATE, SAMPLE_RATE, Tracks, smooth, speak

__all__ = [
    "CLASSES", "COLUMNS", "SAMPLE_RATE", "STYLES", "UNIT", "VOICELESS", "VOWELS", "WORDS", "Head", "Speaker", "Talk",
    "Truth", "mouth_opening", "render", "speaker_of", "talks",
]  # fmt: skip

UNIT = 320  # samples in a unit: 20 ms; two units last as long as a picture at 25 Hz
VOWELS = ("iy", "ih", "ae", "ah", "aa", "uw", "ey")
VOICELESS = ("s", "sh", "f", "th", "p", "t", "k")
CLASSES = ("sil", *PHONES)  # of `Truth.units`; "sil" is silence
COLUMNS = ("path", "audio", "boxes", "words", "speaker", "head", "seed", "seconds")

# Every phone is in three words or more, so that words can be held out.
WORDS = spoken.WORDS | {
    word: tuple(phones.split())
    for word, phones in {
        "cat": "k ae t", "day": "d ey", "dad": "d ae d", "dog": "d aa g", "duck": "d ah k", "face": "f ey s",
        "feet": "f iy t", "food": "f uw d", "gap": "g ae p", "goose": "g uw s", "gum": "g ah m", "king": "k ih ng",
        "lake": "l ey k", "map": "m ae p", "path": "p ae th", "pool": "p uw l", "rain": "r ey n", "rough": "r ah f",
        "see": "s iy", "shade": "sh ey d", "shop": "sh aa p", "sheep": "sh iy p", "teeth": "t iy th",
        "thing": "th ih ng", "two": "t uw", "wash": "w aa sh", "week": "w iy k", "wig": "w ih g",
    }.items()
}  # fmt: skip

# Opening and width of the mouth, by phone; it is shut and 1 wide in silence.
_MOUTHS = {
    "iy": (0.34, 1.15), "ih": (0.42, 1.08), "ae": (0.88, 1.1), "ah": (0.7, 1.0), "aa": (1.0, 0.95), "uw": (0.3, 0.6),
    "ey": (0.55, 1.1), "w": (0.14, 0.55), "r": (0.26, 0.78), "l": (0.36, 0.98), "m": (0.0, 0.95), "n": (0.2, 1.0),
    "ng": (0.28, 1.0), "s": (0.12, 1.1), "sh": (0.18, 0.7), "f": (0.05, 1.0), "th": (0.16, 1.0), "p": (0.0, 0.95),
    "t": (0.14, 1.02), "k": (0.26, 1.0), "d": (0.16, 1.02), "g": (0.26, 1.0), "sil": (0.0, 1.0),
}  # fmt: skip
_SILENCE = Phone(0.1, (Part(1, (500, 1500, 2500)),))
_GRID = 0.04  # seconds; a clip lasts a whole number of them
_JITTER = 0.06  # spread of durations that nothing explains
_LOUDNESS, _LOUDEST = 0.07, 0.98  # RMS of what is said; greatest sample
_VOICED = 0.05  # level of the voice from which a unit counts as voiced
_BLINK = 0.13  # seconds


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of a talk.

    words, word_starts, word_ends: in seconds. levels: loudness of each word, from 0.4 to 1.
    phones, starts, ends: in seconds, silences ("sil") too. A stop begins with its closure.
    units: numbers of `CLASSES`, for each 20 ms, in its middle; hertz: pitch there, also where nothing is voiced;
        voiced: the vocal cords vibrate there.
    opening: of the mouth in each frame, from 0 (shut) to 1. Frame `i` shows the time `(i + 0.5) / frame_rate`.
    boxes: around the face in each frame, x1, y1, x2, y2 in pixels; None where there is no face.
    """

    speaker: str
    head: str
    seed: int
    seconds: float
    frame_rate: float
    words: tuple[str, ...]
    word_starts: tuple[float, ...]
    word_ends: tuple[float, ...]
    levels: tuple[float, ...]
    phones: tuple[str, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    units: Int64[np.ndarray, " units"]
    hertz: Float64[np.ndarray, " units"]
    voiced: Bool[np.ndarray, " units"]
    opening: Float64[np.ndarray, " frames"]
    boxes: tuple[Box | None, ...]

    def to_dict(self) -> dict:
        """Convert to plain JSON values."""
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}
        return plain | {"classes": CLASSES}


def speaker_of(seed: int) -> Speaker:
    """Draw an adult speaker; a short vocal tract has a high voice."""
    tract, pitch, pace = dice("adult", seed).random(3).tolist()
    f0 = (105 + 110 * tract) * (0.88 + 0.24 * pitch)
    return Speaker(seed, 16.0, tract=0.94 + 0.26 * tract, f0=f0, pace=0.88 + 0.24 * pace)


@settings
class Talk:
    """Words said by a drawn head with known truth, rendered on demand.

    `dataclasses.replace(talk, head=...)` says the same in the same voice, `replace(talk, speaker=...)` in another one.

    words: of `WORDS`, in a row, as a text ("key moon") or one by one; at most 40.
    speaker: a Speaker, or the seed of an adult one (`speaker_of`).
    head: a Head, or its seed.
    seed: of timing, loudness, melody and motion.
    rate: speaking rate; 2 is twice as quick.
    absent: share of the frames without a face, in one piece; the sound goes on.
    size: height and width of the pictures in pixels, from 32 to 1024.
    frame_rate: in Hz.
    """

    words: str | Annotated[tuple[str, ...], Field(max_length=40)]
    speaker: Speaker | Natural = 0
    head: Head | Natural = 0
    seed: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[Number, Field(ge=0.5, le=2)] = 1.0
    absent: Share = 0.0
    size: tuple[int, int] = (128, 128)
    frame_rate: Annotated[Number, Field(ge=1, le=120)] = 25.0

    def __post_init__(self):
        words = tuple(self.words.split()) if isinstance(self.words, str) else self.words
        if not 1 <= len(words) <= 40:
            raise ParameterError("words", f"{len(words)} of them", "1 to 40 words of avlib.clips.heads.WORDS")
        for word in words:
            check_choice("words", word, tuple(WORDS))
        for name, side in zip(("size[0]", "size[1]"), self.size, strict=True):
            check_whole(name, side, 32, 1024)
        object.__setattr__(self, "words", words)
        if not isinstance(self.speaker, Speaker):
            object.__setattr__(self, "speaker", speaker_of(self.speaker))
        if not isinstance(self.head, Head):
            object.__setattr__(self, "head", Head(self.head))

    @property
    def seconds(self) -> float:
        """Duration, a multiple of 40 ms: a whole number of frames at 25 Hz, and an even number of units."""
        return round(float(self._plan.bounds[-1]) / _GRID) * _GRID

    @property
    def frame_count(self) -> int:
        """The number of frames that begin and end within the sound, at least one."""
        return max(int(self.seconds * self.frame_rate + 1e-6), 1)

    @cached_property
    def tracks(self) -> Tracks:
        """Pitch, formants and loudness every 5 ms."""
        plan = self._plan
        draws = self._dice("formants").random((len(plan.names), 3))
        factors = self.speaker.tract * self.speaker._voice[0] * (1 + 0.03 * (2 * draws - 1))
        phones = [PHONES.get(name, _SILENCE) for name in plan.names]
        return tracks_of(phones, plan.bounds, factors, self._pitch(), self.speaker, plan.levels)

    @cached_property
    def mouth(self) -> tuple[Float64[np.ndarray, " ticks"], Float64[np.ndarray, " ticks"]]:
        """Opening and width of the mouth every 5 ms. A vowel that is half as loud opens it three quarters as far."""
        plan = self._plan
        opening, width = np.array([_MOUTHS[name] for name in plan.names])[self._at(self._ticks)].T
        loudness = 0.5 + 0.5 * plan.levels[self._at(self._ticks)]
        return smooth(opening * loudness, 0.1), smooth(width, 0.12)

    @cached_property
    def truth(self) -> Truth:
        """The truth of sound and pictures."""
        plan, units = self._plan, (np.arange(round(self.seconds * SAMPLE_RATE) // UNIT) + 0.5) * (UNIT / SAMPLE_RATE)
        hertz, voice = (np.interp(units, self._ticks, track) for track in (self.tracks.f0, self.tracks.voice))
        bounds = plan.bounds.tolist()
        return Truth(
            self.speaker.name, self.head.name, self.seed, self.seconds, float(self.frame_rate), self.words,
            tuple(bounds[first] for first, _ in plan.spans), tuple(bounds[last] for _, last in plan.spans),
            tuple(float(plan.levels[first]) for first, _ in plan.spans), plan.names, tuple(bounds[:-1]),
            tuple(bounds[1:]), np.array([CLASSES.index(name) for name in plan.names])[self._at(units)], hertz,
            voice > _VOICED, np.interp(self._times, self._ticks, self.mouth[0]),
            tuple(self._box(i) for i in range(self.frame_count)),
        )  # fmt: skip

    def sound(self) -> Float32[np.ndarray, " samples"]:
        """Render the voice.

        Returns:
            float32 (samples,), at 16 kHz, in [-1, 1) and on the grid of 16-bit files (multiples of 1/32768).
        """
        voice = speak(self.tracks, self.speaker.tract, self.speaker._voice[2], self._dice("sources"))
        said = np.repeat(self._plan.levels[self._at(self._ticks[:-1])] > 0, SAMPLE_RATE // FRAME_RATE)
        voice *= _LOUDNESS / math.sqrt(float((voice[said] ** 2).mean()))
        voice *= min(1.0, _LOUDEST / float(np.abs(voice).max()))
        return (np.rint(voice * 32768) / 32768).astype(np.float32)

    def frame(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Render frame `index`, RGB."""
        check_whole("index", index, 0, self.frame_count - 1)
        time = float(self._times[index])
        canvas = self._background.copy()
        if index not in self._gap:
            opening, width = (float(np.interp(time, self._ticks, track)) for track in self.mouth)
            shut = any(start <= time < start + _BLINK for start in self._blinks)
            self.head.paint(canvas, self.head.pose(time, self.seed), opening, width, shut)
        return canvas.array()

    def frames(self) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Render all frames, one after the other."""
        return map(self.frame, range(self.frame_count))

    def _dice(self, purpose: str) -> np.random.Generator:
        return dice("talk", self.seed, purpose)

    @cached_property
    def _plan(self) -> _Plan:
        return _plan(self.words, self.speaker.pace / self.rate, self._dice("times"), self._dice("levels"))

    @property
    def _ticks(self) -> np.ndarray:
        """Times of the tracks, in seconds."""
        return np.arange(round(self.seconds * FRAME_RATE) + 1) / FRAME_RATE

    @cached_property
    def _times(self) -> np.ndarray:
        """Times that the frames show, in seconds."""
        return (np.arange(self.frame_count) + 0.5) / float(self.frame_rate)

    def _at(self, times: np.ndarray) -> np.ndarray:
        """Index of the phone at each time."""
        plan = self._plan
        return np.minimum(np.searchsorted(plan.bounds[1:], times, "right"), len(plan.names) - 1)

    def _pitch(self) -> np.ndarray:
        """Pitch in Hz every 5 ms: it falls, rises on loud vowels, and is unsteady."""
        stream, ticks, plan = self._dice("pitch"), self._ticks, self._plan
        mean, start, end = stream.random(3).tolist()
        along = np.interp(ticks, plan.bounds[[1, -2]], (1.02 + 0.1 * start, 0.82 + 0.08 * end))
        vowel = np.array([level * (name in VOWELS) for name, level in zip(plan.names, plan.levels, strict=True)])
        accent = 1 + 0.14 * smooth(vowel[self._at(ticks)], 0.2)
        unsteady = 1 + 0.02 * smooth(2 * stream.random(len(ticks)) - 1, 0.03)
        return self.speaker.f0 * (0.96 + 0.08 * mean) * along * accent * unsteady

    @cached_property
    def _background(self) -> Canvas:
        return Backdrop(self._dice("backdrop")).still(self.size)

    @cached_property
    def _gap(self) -> range:
        """Frames without a face."""
        length = round(self.absent * self.frame_count)
        start = int(float(self._dice("absent").random()) * (self.frame_count - length + 1))
        return range(start, start + length)

    @cached_property
    def _blinks(self) -> tuple[float, ...]:
        waits = 1.5 + 3.5 * self._dice("blinks").random(int(self.seconds) + 1)
        return tuple((np.cumsum(waits) - 1.2).tolist())

    def _box(self, index: int) -> Box | None:
        if index in self._gap:
            return None
        return self.head.box(self.head.pose(float(self._times[index]), self.seed), self.size)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Phones with their bounds in seconds and levels; of each word its first phone, and the one after its last."""

    names: tuple[str, ...]
    bounds: np.ndarray
    levels: np.ndarray
    spans: tuple[tuple[int, int], ...]


def _plan(words: Sequence[str], pace: float, times: np.random.Generator, loudness: np.random.Generator) -> _Plan:
    """Plan a talk; the draws of a word do not depend on the words before it."""
    names, lengths, levels, spans = ["sil"], [0.1 + 0.1 * times.random()], [0.0], []
    for i, word in enumerate(words):
        phones, draws, level = WORDS[word], times.random(8).tolist(), 0.4 + 0.6 * loudness.random()
        last = i == len(words) - 1
        pause = last or draws[0] < 0.5
        spans.append((len(names), len(names) + len(phones)))
        nucleus = next(j for j, phone in enumerate(phones) if phone in VOWELS)
        for j, phone in enumerate(phones):
            length = PHONES[phone].seconds * pace * (1 + _JITTER * (2 * draws[2 + j] - 1))
            if j == nucleus:
                following = phones[j + 1 : j + 2]
                length *= 1.15 if not following else 0.78 if following[0] in VOICELESS else 1.1
            if j >= nucleus:
                length *= 1.3 if pause else 0.88
            names.append(phone)
            lengths.append(length)
            levels.append(level)
        if pause and not last:
            names.append("sil")
            lengths.append((0.08 + 0.2 * draws[1]) * pace)
            levels.append(0.0)
    names.append("sil")
    said = sum(lengths)
    lengths.append(math.ceil((said + 0.1 + 0.1 * times.random()) / _GRID) * _GRID - said)
    levels.append(0.0)
    return _Plan(tuple(names), np.concatenate([[0.0], np.cumsum(lengths)]), np.array(levels), tuple(spans))


def talks(
    count: int,
    words: Sequence[str] = tuple(WORDS),
    speakers: int | Sequence[int | Speaker] = 8,
    heads: int | Sequence[int | Head] = 12,
    *,
    length: int = 3,
    seed: int = 0,
    **options: Any,
) -> list[Talk]:
    """Talks in which words, speakers and heads take turns, independently of each other.

    Args:
        count: their number. More talks only add talks at the end.
        words: to choose from; each is said equally often, but for the rest of the last turn.
        speakers: their number, or the speakers, to hold others out.
        heads: likewise.
        length: words in a talk.
        seed: talks of different seeds share no seed of a talk.
        options: of each `Talk`: rate, absent, size, frame_rate.
    """
    check_whole("count", count, 1, 99_999)
    check_whole("length", length, 1, 40)
    check_whole("seed", seed, 0)
    said = _turns("words", seed, (words.split() if isinstance(words, str) else words))
    voices, faces = _turns("speakers", seed, speakers), _turns("heads", seed, heads)
    return [
        Talk(tuple(islice(said, length)), next(voices), next(faces), int(seed) * 100_000 + i, **options)
        for i in range(count)
    ]


def _turns(name: str, seed: int, choices: int | Sequence) -> Iterator:
    """Endless rounds through the choices, each in an order of its own."""
    if not isinstance(choices, Sequence):
        check_whole(name, choices, 1, 99_999)
        choices = range(choices)
    if not choices:
        raise ParameterError(name, "none", "at least one", "Leave it out for the usual ones.")
    orders = (np.argsort(dice("turns", name, seed, i).random(len(choices)), kind="stable") for i in numbers())
    return (choices[k] for k in chain.from_iterable(orders))


def render(talks: Iterable[Talk], jobs: int | None = None, progress: bool = True) -> Path:
    """Render talks to mp4 files with 16 kHz sound.

    Beside each video lie its sound (`.wav`, 16 kHz, 16 bit), its boxes (`.boxes.json`, null without a face) and its
    truth (`.json`).

    Args:
        talks: those in the cache are kept.
        jobs: number of processes, see `avlib.workers.each`; None is the number of cores.
        progress: show a progress bar.

    Returns:
        The table, a CSV file in the cache: a row for each talk, in their order, with path, audio, boxes, words,
        speaker, head, seed and seconds.
    """
    talks = list(talks)
    if not talks:
        raise ParameterError("talks", "nothing", "at least one Talk", "Give what `talks` returns.")
    paths = [
        place("heads", f"{talk.speaker.name}-{talk.head.name}-{talk.seed}", astuple(talk), ".mp4") for talk in talks
    ]
    render_missing(_render, paths, talks, jobs, progress)
    rows = [
        (
            path, path.with_suffix(".wav"), path.with_suffix(".boxes.json"), " ".join(talk.words), talk.speaker.name,
            talk.head.name, talk.seed, talk.seconds,
        )
        for path, talk in zip(paths, talks, strict=True)
    ]  # fmt: skip
    return write_table("heads", COLUMNS, rows)


def _render(missing: tuple[Path, Talk]) -> None:
    path, talk = missing

    def write(unfinished: Path, truth: str) -> None:
        import torch

        from .. import media

        waveform = torch.from_numpy(talk.sound())
        metadata = {
            "title": f"{' '.join(talk.words)} by {talk.speaker.name} and {talk.head.name} (synthetic)",
            "comment": f"synthetic: rendered by avlib.clips.heads; truth in {path.with_suffix('.json').name}",
        }
        with cache.publishing(path.with_suffix(".wav")) as sound:
            media.write_wav(sound, waveform, SAMPLE_RATE, metadata)
        with cache.publishing(path.with_suffix(".boxes.json")) as boxes:
            boxes.write_text(json.dumps(talk.truth.boxes))
        media.write_video(unfinished, talk.frames(), float(talk.frame_rate), waveform[None], SAMPLE_RATE, metadata)

    publish(path, talk.truth.to_dict(), write)
