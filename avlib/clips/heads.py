"""Built-in talking heads: drawn faces whose mouth follows the vowels and the loudness of our synthetic voices.

    words, speaker, head, seed -> `Talk(words, speaker, head)` -> its `truth`, its `sound()`, its `frame(i)`
    `talks(count, words, speakers, heads)` -> many of them, in turns -> `render` -> mp4 files and their table

The voice is that of `speech`, by adults. Vowels are shorter before voiceless consonants and longer before a pause
(Klatt, "Linguistic uses of segmental duration in English", JASA 59, 1976).
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
from types import SimpleNamespace
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
from .portrait import STYLES, Box, Head, Pose, mouth_opening
from .rendering import place, publish, render_missing, write_table
from .sound import dice
from .spoken import PHONES, Part, Phone, Speaker, tracks_of
from .voice import FRAME_RATE, SAMPLE_RATE, Tracks, smooth, speak

__all__ = [
    "CLASSES", "COLUMNS", "SAMPLE_RATE", "STYLES", "UNIT", "VOWELS", "WORDS", "Head", "Speaker", "Talk", "Truth",
    "mouth_opening", "render", "speaker_of", "talks",
]  # fmt: skip

UNIT = 320  # samples in a unit: 20 ms; two units last as long as a picture at 25 Hz
VOWELS = ("iy", "ih", "ae", "ah", "aa", "uw", "ey")
_VOICELESS = ("s", "sh", "f", "th", "p", "t", "k")
CLASSES = ("sil", *PHONES)  # of `Truth.units`; "sil" is silence
COLUMNS = ("path", "audio", "boxes", "words", "speaker", "head", "seed", "seconds")

# Every phone is in three words or more, so that words can be held out.
_MORE = """
    cat k ae t, day d ey, dad d ae d, dog d aa g, duck d ah k, face f ey s, feet f iy t, food f uw d, gap g ae p,
    goose g uw s, gum g ah m, king k ih ng, lake l ey k, map m ae p, path p ae th, pool p uw l, rain r ey n,
    rough r ah f, see s iy, shade sh ey d, shop sh aa p, sheep sh iy p, teeth t iy th, thing th ih ng, two t uw,
    wash w aa sh, week w iy k, wig w ih g
"""
WORDS = spoken.WORDS | {word: tuple(phones) for word, *phones in map(str.split, _MORE.split(","))}

# Opening and width of the mouth, by phone; it is shut and 1 wide in silence.
_MOUTHS = {
    "iy": (0.34, 1.15), "ih": (0.42, 1.08), "ae": (0.88, 1.1), "ah": (0.7, 1.0), "aa": (1.0, 0.95), "uw": (0.3, 0.6),
    "ey": (0.55, 1.1), "w": (0.14, 0.55), "r": (0.26, 0.78), "l": (0.36, 0.98), "m": (0.0, 0.95), "n": (0.2, 1.0),
    "ng": (0.28, 1.0), "s": (0.12, 1.1), "sh": (0.18, 0.7), "f": (0.05, 1.0), "th": (0.16, 1.0), "p": (0.0, 0.95),
    "t": (0.14, 1.02), "k": (0.26, 1.0), "d": (0.16, 1.02), "g": (0.26, 1.0), "sil": (0.0, 1.0),
}  # fmt: skip
_SILENCE = Phone(0.1, (Part(1, (500, 1500, 2500)),))
_GRID, _JITTER = 0.04, 0.06  # seconds of which a clip is a multiple; spread of durations that nothing explains
_LOUDNESS, _LOUDEST, _VOICED = 0.07, 0.98, 0.05  # RMS of what is said; greatest sample; voice of a voiced unit


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of a talk.

    words, word_starts, word_ends: in seconds. levels: loudness of each word, from 0.4 to 1.
    phones, starts, ends: in seconds, silences ("sil") too. A stop begins with its closure.
    units: numbers of `CLASSES` in the middle of each 20 ms; hertz: pitch there, also where it is not voiced.
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
    """

    words: str | tuple[str, ...]  # of `WORDS`, in a row, as a text ("key moon") or one by one; at most 40
    speaker: Speaker | Natural = 0  # a Speaker, or the seed of an adult one (`speaker_of`)
    head: Head | Natural = 0  # a Head, or its seed
    seed: Annotated[int, Field(ge=0)] = 0  # of timing, loudness, melody and motion
    rate: Annotated[Number, Field(ge=0.5, le=2)] = 1.0  # of speech; 2 is twice as quick
    absent: Share = 0.0  # share of the frames without a face, in one piece; the sound goes on
    size: tuple[int, int] = (128, 128)  # height and width of the pictures in pixels, from 32 to 1024
    frame_rate: Annotated[Number, Field(ge=1, le=120)] = 25.0  # in Hz

    def __post_init__(self):
        words = tuple(self.words.split()) if isinstance(self.words, str) else self.words
        if not 1 <= len(words) <= 40:
            raise ParameterError("words", f"{len(words)} of them", "1 to 40 words of avlib.clips.heads.WORDS")
        for word in words:
            check_choice("words", word, tuple(WORDS))
        for name, side in zip(("size[0]", "size[1]"), self.size, strict=True):
            check_whole(name, side, 32, 1024)
        speaker = self.speaker if isinstance(self.speaker, Speaker) else speaker_of(self.speaker)
        head = self.head if isinstance(self.head, Head) else Head(self.head)
        for name, value in (("words", words), ("speaker", speaker), ("head", head)):
            object.__setattr__(self, name, value)

    @property
    def seconds(self) -> float:
        """Duration, a multiple of 40 ms: whole frames at 25 Hz, and an even number of units."""
        return round(float(self._plan.bounds[-1]) / _GRID) * _GRID

    @property
    def frame_count(self) -> int:
        """The number of frames that begin and end within the sound, at least one."""
        return max(int(self.seconds * self.frame_rate + 1e-6), 1)

    @cached_property
    def tracks(self) -> Tracks:
        """Pitch, formants and loudness every 5 ms. The pitch falls, rises on loud vowels, and is unsteady."""
        plan, stream, ticks = self._plan, self._dice("pitch"), np.arange(round(self.seconds * FRAME_RATE) + 1)
        mean, start, end = stream.random(3).tolist()
        falling = np.interp(ticks / FRAME_RATE, plan.bounds[[1, -2]], (1.02 + 0.1 * start, 0.82 + 0.08 * end))
        vowels = plan.levels * [name in VOWELS for name in plan.names]
        accents = 1 + 0.14 * smooth(vowels[self._at(ticks / FRAME_RATE)], 0.2)
        unsteady = 1 + 0.02 * smooth(2 * stream.random(len(ticks)) - 1, 0.03)
        hertz = self.speaker.f0 * (0.96 + 0.08 * mean) * falling * accents * unsteady
        spread = 0.97 + 0.06 * self._dice("formants").random((len(plan.names), 3))
        factors = self.speaker.tract * self.speaker._voice[0] * spread
        phones = [PHONES.get(name, _SILENCE) for name in plan.names]
        return tracks_of(phones, plan.bounds, factors, hertz, self.speaker, plan.levels)

    @cached_property
    def mouth(self) -> tuple[Float64[np.ndarray, " ticks"], Float64[np.ndarray, " ticks"]]:
        """Opening and width of the mouth every 5 ms. A vowel that is half as loud opens it three quarters as far."""
        at = self._at(self.tracks.times)
        opening, width = np.array([_MOUTHS[name] for name in self._plan.names])[at].T
        return smooth(opening * (0.5 + 0.5 * self._plan.levels[at]), 0.1), smooth(width, 0.12)

    @cached_property
    def truth(self) -> Truth:
        """The truth of sound and pictures."""
        plan, units = self._plan, (np.arange(round(self.seconds * SAMPLE_RATE) // UNIT) + 0.5) * (UNIT / SAMPLE_RATE)
        hertz, voice = (np.interp(units, self.tracks.times, track) for track in (self.tracks.f0, self.tracks.voice))
        bounds, times = plan.bounds.tolist(), (np.arange(self.frame_count) + 0.5) / float(self.frame_rate)
        return Truth(
            self.speaker.name, f"h{self.head.seed}", self.seed, self.seconds, float(self.frame_rate), self.words,
            tuple(bounds[first] for first, _ in plan.spans), tuple(bounds[last] for _, last in plan.spans),
            tuple(float(plan.levels[first]) for first, _ in plan.spans), plan.names, tuple(bounds[:-1]),
            tuple(bounds[1:]), np.array([CLASSES.index(name) for name in plan.names])[self._at(units)], hertz,
            voice > _VOICED, np.interp(times, self.tracks.times, self.mouth[0]),
            tuple(None if i in self._gap else self.head.box(self._pose(i), self.size) for i in range(self.frame_count)),
        )  # fmt: skip

    def sound(self) -> Float32[np.ndarray, " samples"]:
        """The voice at 16 kHz, in [-1, 1), on the grid of 16-bit files (multiples of 1/32768)."""
        voice = speak(self.tracks, self.speaker.tract, self.speaker._voice[2], self._dice("sources"))
        said = np.repeat(self._plan.levels[self._at(self.tracks.times[:-1])] > 0, SAMPLE_RATE // FRAME_RATE)
        voice *= _LOUDNESS / math.sqrt(float((voice[said] ** 2).mean()))
        voice *= min(1.0, _LOUDEST / float(np.abs(voice).max()))
        return (np.rint(voice * 32768) / 32768).astype(np.float32)

    def frame(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Render frame `index`, RGB."""
        check_whole("index", index, 0, self.frame_count - 1)
        canvas, time = self._background.copy(), (index + 0.5) / self.frame_rate
        if index not in self._gap:
            opening, width = (float(np.interp(time, self.tracks.times, track)) for track in self.mouth)
            every, start = self._dice("blinks").random(2).tolist()
            blinks = (time / (2.5 + 2 * every) + start) % 1 < 0.04
            self.head.paint(canvas, self._pose(index), opening, width, blinks)
        return canvas.array()

    def _dice(self, purpose: str) -> np.random.Generator:
        return dice("talk", self.seed, purpose)

    @cached_property
    def _plan(self) -> SimpleNamespace:
        """Names, bounds (s) and levels of phones; the first phone of each word, and the one after its last."""
        times, loudness, pace = self._dice("times"), self._dice("levels"), self.speaker.pace / self.rate
        rows, spans = [("sil", 0.1 + 0.1 * times.random(), 0.0)], []
        for i, word in enumerate(self.words, 1):
            phones, draws, level = WORDS[word], times.random(8).tolist(), 0.4 + 0.6 * loudness.random()
            pause = i == len(self.words) or draws[0] < 0.5
            spans.append((len(rows), len(rows) + len(phones)))
            nucleus = next(j for j, phone in enumerate(phones) if phone in VOWELS)
            for j, phone in enumerate(phones):
                seconds = PHONES[phone].seconds * pace * (1 + _JITTER * (2 * draws[2 + j] - 1))
                if j == nucleus:
                    seconds *= 1.15 if j == len(phones) - 1 else 0.78 if phones[j + 1] in _VOICELESS else 1.1
                if j >= nucleus:
                    seconds *= 1.3 if pause else 0.88
                rows.append((phone, seconds, level))
            if pause and i < len(self.words):
                rows.append(("sil", (0.08 + 0.2 * draws[1]) * pace, 0.0))
        said = sum(seconds for _, seconds, _ in rows)
        rows.append(("sil", math.ceil((said + 0.1 + 0.1 * times.random()) / _GRID) * _GRID - said, 0.0))
        names, lengths, levels = zip(*rows, strict=True)
        bounds, levels = np.cumsum((0.0, *lengths)), np.array(levels)
        return SimpleNamespace(names=names, bounds=bounds, levels=levels, spans=spans)

    def _at(self, times: np.ndarray) -> np.ndarray:
        """Index of the phone at each time."""
        return np.minimum(np.searchsorted(self._plan.bounds[1:], times, "right"), len(self._plan.names) - 1)

    @cached_property
    def _background(self) -> Canvas:
        return Backdrop(self._dice("backdrop")).still(self.size)

    @cached_property
    def _gap(self) -> range:
        length = round(self.absent * self.frame_count)
        start = int(float(self._dice("absent").random()) * (self.frame_count - length + 1))
        return range(start, start + length)

    def _pose(self, index: int) -> Pose:
        return self.head.pose((index + 0.5) / self.frame_rate, self.seed)


def talks(
    count: int, words: Sequence[str] = tuple(WORDS), speakers: int | Sequence[int | Speaker] = 8,
    heads: int | Sequence[int | Head] = 12, *, length: int = 3, seed: int = 0, **options: Any,
) -> list[Talk]:  # fmt: skip
    """Talks in which words, speakers and heads take turns, independently of each other.

    More talks only add talks at the end; those of different seeds share no seed of a talk.

    Args:
        words: to choose from; each is said equally often, but for the rest of the last turn.
        speakers, heads: their number, or which, to hold others out.
        length: words in a talk.
        options: of each `Talk`: rate, absent, size, frame_rate.
    """
    check_whole("count", count, 1, 99_999)
    check_whole("length", length, 1, 40)
    check_whole("seed", seed, 0)
    said = _turns("words", seed, (words.split() if isinstance(words, str) else words))
    voices, faces = _turns("speakers", seed, speakers), _turns("heads", seed, heads)
    seeds = range(int(seed) * 100_000, int(seed) * 100_000 + count)
    return [Talk(tuple(islice(said, length)), next(voices), next(faces), each, **options) for each in seeds]


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
    """Render talks to mp4 files; their sound (`.wav`), boxes (`.boxes.json`) and truth (`.json`) lie beside them.

    Those in the cache are kept; for `jobs` see `avlib.workers.each`. Returns the table, a CSV file in the cache with a
    row of `COLUMNS` for each talk, in their order.
    """
    talks = list(talks)
    if not talks:
        raise ParameterError("talks", "nothing", "at least one Talk", "Give what `talks` returns.")
    rows = [(" ".join(talk.words), talk.truth.speaker, talk.truth.head, talk.seed, talk.seconds) for talk in talks]
    names = ["-".join(map(str, row[1:4])) for row in rows]
    paths = [place("heads", name, astuple(talk), ".mp4") for name, talk in zip(names, talks, strict=True)]
    render_missing(_render, paths, talks, jobs, progress)
    files = [(path, path.with_suffix(".wav"), path.with_suffix(".boxes.json")) for path in paths]
    return write_table("heads", COLUMNS, [[*row[0], *row[1]] for row in zip(files, rows, strict=True)])


def _render(missing: tuple[Path, Talk]) -> None:
    path, talk = missing

    def write(unfinished: Path, truth: str) -> None:
        import torch

        from .. import media

        waveform = torch.from_numpy(talk.sound())
        comment = f"synthetic: rendered by avlib.clips.heads; truth in {path.with_suffix('.json').name}"
        metadata = {"title": f"{' '.join(talk.words)} by {talk.speaker.name} (synthetic)", "comment": comment}
        with cache.publishing(path.with_suffix(".wav")) as sound:
            media.write_wav(sound, waveform, SAMPLE_RATE, metadata)
        with cache.publishing(path.with_suffix(".boxes.json")) as boxes:
            boxes.write_text(json.dumps(talk.truth.boxes))
        frames = map(talk.frame, range(talk.frame_count))
        media.write_video(unfinished, frames, float(talk.frame_rate), waveform[None], SAMPLE_RATE, metadata)

    publish(path, talk.truth.to_dict(), write)
