"""Built-in songs: melodies by singers of our own, with known pitch, voicing, vowels and onsets.

    singer and seed -> `Song(singer, seed)` -> its `notes`, its `truth`, its `sound()`
    `song.by(other)` -> the same melody, timing and pitch by another voice: a parallel, to score a conversion with
    `phrases(count, singer)` -> many of them -> `render` -> wav files and their table

The voices are our own source-filter synthesiser (`singing`); no recordings are in it, and nobody's voice is imitated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import Field

from ..errors import ParameterError, check_choice, check_number, check_whole
from ..settings import NonNegative, Number, Positive, settings
from .rendering import place, publish_sound, render_missing, write_table
from .singing import HOP, NOSE, SAMPLE_RATE, Singer, Tracks, sing, smooth, unsteady
from .sound import dice
from .spoken import PHONES, Part

FRAME = 512  # samples in a frame of the truth; its centre is at (k + 0.5) * FRAME
SINGERS = {
    "mira": Singer(  # light and breathy
        "mira", tract=1.21, first=1.03, second=0.98, ring=0.1, tilt=900, opening=0.6, breath=0.2, lowest=147,
        highest=700, vibrato=42, rate=5.9, delay=0.32, glide=0.1, jitter=4.5, attack=0.09,
    ),
    "otto": Singer(  # dark and ringing
        "otto", tract=0.93, first=0.97, second=1.02, ring=0.8, tilt=4500, opening=1.0, breath=0.08, lowest=110,
        highest=440, vibrato=55, rate=5.3, delay=0.26, glide=0.08, jitter=4, attack=0.07,
    ),
    "kaya": Singer(  # clear and thin
        "kaya", tract=1.07, first=1.05, second=1.06, ring=0.4, tilt=1500, opening=1.1, breath=0.05, lowest=130,
        highest=560, vibrato=22, rate=5.0, delay=0.45, glide=0.13, jitter=6, attack=0.12,
    ),
}  # fmt: skip
SHARED = (147.0, 392.0)  # Hz, sung by all of them

# Formants of an adult man's sung vowels in Hz, chosen around the usual descriptions so that voices keep them apart.
VOWELS = {
    "a": (800, 1350, 2550), "e": (510, 1760, 2500), "i": (290, 2350, 3100), "o": (450, 850, 2450),
    "u": (300, 600, 2250),
}  # fmt: skip
CONSONANTS = ("m", "n", "l", "w", "s", "sh", "f", "t", "k", "d")  # of `spoken.PHONES`
CLASSES = ("rest", *VOWELS, *CONSONANTS, "breath")  # of `Truth.vowels`
COLUMNS = ("path", "singer", "melody", "seed", "seconds")

_VOICED, _SUNG = 0.02, 0.3  # levels of the voice from which a frame counts as voiced, and as sung
_BRIGHT, _BROAD = 1.3, 2.0  # factors of the hiss of speech at 16 kHz
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))  # major, minor, pentatonic
_STEPS = (-3, -2, -1, -1, -1, 0, 1, 1, 1, 2, 3)
_BEATS = (0.5, 0.5, 0.5, 0.75, 1.0, 1.0, 1.0, 1.5)
_LOUDNESS, _INHALED = 0.08, 0.02  # RMS of what is sung; level of a breath in a rest
_REST, _RELEASE = 0.25, 0.14  # seconds from which a gap is a rest; in which a voice fades before it


@settings
class Note:
    """A note of a melody.

    start, end: of the vowel, in seconds. The next note follows at once, or after a rest.
    pitch: in semitones, 69 is 440 Hz. consonant: before the start; "" for none.
    """

    start: NonNegative
    end: Positive
    pitch: Annotated[Number, Field(ge=31, le=96)]
    vowel: Literal["a", "e", "i", "o", "u"] = "a"
    consonant: Literal["", "m", "n", "l", "w", "s", "sh", "f", "t", "k", "d"] = ""


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of a song, frame by frame: at `(k + 0.5) * 512 / 44100` seconds.

    hertz: pitch, also through what is not voiced; voiced: the vocal cords vibrate.
    vowels: numbers of `CLASSES`: rests, consonants and breath too. sung: a vowel sounds, neither fading in nor out.
    onsets: of the vowels, in seconds.
    """

    singer: str
    seed: int
    seconds: float
    hertz: Float64[np.ndarray, " frames"]
    voiced: Bool[np.ndarray, " frames"]
    vowels: Int64[np.ndarray, " frames"]
    sung: Bool[np.ndarray, " frames"]
    onsets: tuple[float, ...]
    notes: tuple[Note, ...]

    def to_dict(self) -> dict:
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}
        return plain | {"notes": [asdict(note) for note in self.notes], "classes": CLASSES}


@settings
class Song:
    """A melody by a singer, with known truth, rendered on demand."""

    singer: str | Singer = "mira"  # one of `SINGERS`, or a Singer
    seed: Annotated[int, Field(ge=0)] = 0  # of the melody, its timing and everything that is drawn
    seconds: Annotated[Number, Field(ge=0.5, le=900)] = 6.0  # of the recording, from 0.5 to 900
    span: tuple[Number, Number] | None = None  # lowest and highest pitch in Hz; by default those of the melody's singer
    melody: str | Singer | None = None  # whose range, vibrato and glides the melody has; by default the singer's
    notes: tuple[Note, ...] | None = None  # the melody, in order; by default it is composed

    def __post_init__(self):
        for name, singer in (("singer", self.singer), ("melody", self.melody or self.singer)):
            if isinstance(singer, str):
                check_choice(name, singer, tuple(SINGERS))
            object.__setattr__(self, name, SINGERS[singer] if isinstance(singer, str) else singer)
        low, high = self.span or (self.melody.lowest, self.melody.highest)
        check_number("span[0]", low, 50, 1400)
        check_number("span[1]", high, low, 1400)
        object.__setattr__(self, "span", (low, high))
        object.__setattr__(self, "notes", tuple(self._composed()) if self.notes is None else self.notes)
        if not self.notes:
            raise ParameterError("notes", "none", "at least one Note", "Leave it out for a composed melody.")
        before = 0.0
        for i, note in enumerate(self.notes):
            check_number(f"notes[{i}].start", note.start, before, self.seconds)
            check_number(f"notes[{i}].end", note.end, note.start + 0.05, self.seconds)
            before = note.end

    def by(self, singer: str | Singer) -> Song:
        """Return the parallel by another singer: the same melody, timing and pitch, another voice."""
        return replace(self, singer=singer)

    @property
    def samples(self) -> int:
        return round(self.seconds * SAMPLE_RATE)

    @cached_property
    def tracks(self) -> Tracks:
        """Parameters of the voice every 2.9 ms."""
        times, singer, (level, loudness, inhaled) = self._times, self.singer, self._shape
        names = ("breath", "hiss", "centre", "width", "zero", "formants")
        breath, hiss, centre, width, zero, formants = (self._track(name, times) for name in names)
        # A hiss fades with its own spectrum: frames without one take that of the nearest frame with one.
        hissing = np.flatnonzero(centre)
        if len(hissing):
            middles = (hissing[1:] + hissing[:-1]) / 2
            nearest = hissing[np.searchsorted(middles, np.arange(len(times)))]
            centre, width = centre[nearest], width[nearest]
        wobble = 10 ** (singer.shimmer * unsteady(self._dice("shimmer"), len(times), 0.05) / 20)
        return Tracks(
            hertz=self._pitch(),
            formants=np.stack([smooth(track, 0.075) for track in formants.T], axis=1),
            zero=smooth(np.where(zero, zero, NOSE), 0.04) * singer.tract,
            voice=level * loudness * wobble,
            breath=smooth(breath, 0.02) + singer.breath * level * loudness**0.5 + inhaled,
            hiss=smooth(0.55 * hiss**0.6, 0.02),  # sung consonants are clear, weak ones too
            effort=np.maximum(loudness * level, 0.05),
            centre=np.maximum(centre, 1000.0) * (_BRIGHT * singer.tract),
            width=np.maximum(width, 1.0) * _BROAD,
        )

    @cached_property
    def truth(self) -> Truth:
        times = (np.arange(self.samples // FRAME) + 0.5) * (FRAME / SAMPLE_RATE)
        level, hertz = (np.interp(times, self._times, track) for track in (self._shape[0], self.tracks.hertz))
        vowels = self._track("class", times)
        vowels[np.interp(times, self._times, self._shape[2]) > 0.1 * _INHALED] = CLASSES.index("breath")
        sung = (level > _SUNG) & (vowels > 0) & (vowels <= len(VOWELS))
        onsets = tuple(float(note.start) for note in self.notes)
        name, seconds = self.singer.name, float(self.seconds)
        return Truth(name, self.seed, seconds, hertz, level > _VOICED, vowels, sung, onsets, self.notes)

    def sound(self) -> Float64[np.ndarray, " samples"]:
        """Render the song: float64 (samples,), mono at 44.1 kHz, on the grid of 16-bit files, 1/32768."""
        waveform = sing(self.tracks, self.singer, self._dice("noise", self.singer.name))[: self.samples]
        sung = np.repeat(self.truth.sung, FRAME)
        waveform *= _LOUDNESS / math.sqrt(float((waveform[: len(sung)][sung] ** 2).mean()) if sung.any() else 1.0)
        waveform *= min(1.0, 0.98 / float(np.abs(waveform).max()))
        return np.rint(waveform * 32768) / 32768

    def _dice(self, *purpose: object) -> np.random.Generator:
        return dice("song", self.seed, *purpose)

    @property
    def _times(self) -> np.ndarray:
        """Centres of the frames of the tracks, in seconds."""
        return (np.arange(-(-self.samples // HOP)) + 0.5) * (HOP / SAMPLE_RATE)

    @cached_property
    def _plan(self) -> tuple[list[tuple[Part, int, float]], list[float], list[tuple[int, int]]]:
        """Steady parts with class and end in seconds, begins of notes, and first and last note of each breath.

        A note begins with its consonant, which fills a gap that is no rest.
        """
        parts, begins, groups, before = [], [], [], 0.0
        for i, note in enumerate(self.notes):
            phone, gap = PHONES.get(note.consonant), note.start - before
            begin = note.start - min(0.8 * phone.seconds if phone else 0, gap)
            begin = before if phone and i and gap < _REST else begin
            vowel = Part(1, VOWELS[note.vowel], voice=1)
            if begin > before:
                parts.append((Part(1, phone.parts[0].formants if phone else vowel.formants), 0, begin))
            if begin > before or not i:
                groups.append(i)
            end = begin
            for part in phone.parts if phone else ():
                end += part.share * (note.start - begin)
                parts.append((part, CLASSES.index(note.consonant), end))
            parts.append((vowel, CLASSES.index(note.vowel), note.end))
            begins.append(begin)
            before = note.end
        parts.append((Part(1, vowel.formants), 0, self.seconds + 1.0))
        return parts, begins, [(first, last - 1) for first, last in pairwise([*groups, len(self.notes)])]

    def _track(self, name: str, times: np.ndarray) -> np.ndarray:
        """A property of the part that sounds at each time."""
        parts = self._plan[0]
        at = np.searchsorted([end for _, _, end in parts], times, "right").clip(0, len(parts) - 1)
        return np.array([number if name == "class" else getattr(part, name) or 0.0 for part, number, _ in parts])[at]

    @cached_property
    def _shape(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Level of the voice (a vowel's is 1), loudness (about 1), and the breath that is taken in rests."""
        times, notes, begins = self._times, self.notes, self._plan[1]
        draws = self._dice("loudness").random((len(notes), 2)) - 0.5
        middle = sum(note.pitch for note in notes) / len(notes)
        envelope, breath, before, knots, decibels = np.zeros_like(times), np.zeros_like(times), -0.05, [], []
        for first, last in self._plan[2]:
            begin, end = begins[first], notes[last].end
            inside = slice(*np.searchsorted(times, (begin, end)))
            rise = np.clip((times[inside] - begin) / min(self.melody.attack, (end - begin) / 3), 0, 1)
            fall = np.clip((end - times[inside]) / min(_RELEASE, (end - begin) / 3), 0, 1)
            envelope[inside] = np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2
            start, stop = max(begin - 0.5, before + 0.08), begin - 0.05
            if stop - start > 0.15:
                inside = slice(*np.searchsorted(times, (start, stop)))
                breath[inside] = np.sin(np.pi * (times[inside] - start) / (stop - start)) ** 2
            for i in range(first, last + 1):  # a group swells and fades, and high notes are louder
                arch = 1.5 * math.sin(math.pi * (i - first + 0.5) / (last - first + 1)) - 1
                knots += [notes[i].start, (notes[i].start + 2 * notes[i].end) / 3]
                decibels += [arch + 0.2 * (notes[i].pitch - middle) + change for change in np.cumsum(draws[i])]
            before = end
        level = smooth(self._track("voice", times), 0.05) * envelope
        return level, 10 ** (smooth(np.interp(times, knots, decibels), 0.15) / 20), _INHALED * breath

    def _pitch(self) -> np.ndarray:
        """Pitch in Hz, continuous through what is not voiced."""
        times, melody, draw = self._times, self.melody, self._dice("pitch")
        (_, begins, groups), notes = self._plan, self.notes
        firsts = {first for first, _ in groups}
        steps = [begins[i] - 0.05 if i in firsts else (begins[i] + notes[i].start) / 2 for i in range(1, len(notes))]
        pitch = np.array([note.pitch for note in notes], dtype=float)[np.searchsorted(steps, times, "right")]
        pitch = smooth(pitch, 2 * melody.glide)
        rate = melody.rate * (1 + 0.04 * unsteady(draw, len(times), 0.6))
        wave = np.sin(2 * np.pi * np.cumsum(rate) * HOP / SAMPLE_RATE)
        jitter, drift = unsteady(draw, len(times), 0.1), unsteady(draw, len(times), 1.0)
        pitch += (melody.jitter * jitter + 6 * drift) / 100
        for first, last in groups:  # it comes from below, and sinks at the end
            scoop, fall = draw.random(2)
            inside = slice(*np.searchsorted(times, (begins[first], begins[first] + 0.7)))
            pitch[inside] -= (0.2 + 0.8 * scoop) * np.exp(-(times[inside] - begins[first]) / 0.07)
            inside = slice(*np.searchsorted(times, (notes[last].end - 0.2, notes[last].end + 0.05)))
            pitch[inside] -= 0.8 * fall * ((times[inside] - notes[last].end + 0.2) / 0.2) ** 2
        for note, depth in zip(notes, draw.random(len(notes)), strict=True):
            inside = slice(*np.searchsorted(times, (note.start + melody.delay, note.end)))
            since, until = times[inside] - note.start - melody.delay, note.end - times[inside]
            size = melody.vibrato * (0.7 + 0.6 * depth) / 100
            pitch[inside] += size * np.clip(since / 0.35, 0, 1) * np.clip(until / 0.1, 0, 1) * wave[inside]
        return np.clip(440 * 2 ** ((pitch - 69) / 12), 45, 2000)

    def _composed(self) -> list[Note]:
        """Compose a melody: phrases of a scale, with a rest after each."""
        draw = self._dice("melody")
        low, high = (69 + 12 * math.log2(hertz / 440) for hertz in self.span)
        width = min(high - low, 15.0)
        low += (high - low - width) * draw.random()
        scale = _SCALES[int(draw.random() * len(_SCALES))]
        ladder = [low + degree + 12 * octave for octave in range(3) for degree in scale]
        ladder = [pitch for pitch in ladder if pitch <= low + width + 1e-9]
        beat = 60 / (72 + 48 * draw.random())
        place, notes, consonant = int(draw.random() * len(ladder)), [], ""
        time = min(0.15 + 0.25 * draw.random(), 0.1 * self.seconds)
        stop = self.seconds - min(0.1 + 0.25 * draw.random(), 0.1 * self.seconds)
        left = 3 + int(5 * draw.random())  # notes of the phrase
        while not notes or time < stop - 0.25:
            picks = draw.random(5).tolist()
            consonant = CONSONANTS[int(picks[0] * len(CONSONANTS))] if picks[1] < 0.85 else ""
            gap = (0.65 + 0.3 * picks[2]) * PHONES[consonant].seconds if consonant else 0.0
            gap = gap if gap < (stop - time) / 2 else 0.0
            step = _STEPS[int(picks[3] * len(_STEPS))]
            place = place + step if 0 <= place + step < len(ladder) else max(0, min(place - step, len(ladder) - 1))
            left -= 1
            beats = _BEATS[int(picks[4] * len(_BEATS))] if left else 2.0
            start, end = time + gap, time + beat * beats
            if end > stop - 0.3 - (0 if left else beat) and stop - end < 1.5:
                end = stop
            vowel = tuple(VOWELS)[int(draw.random() * len(VOWELS))]
            notes.append(Note(start, min(max(end, start + 0.12), stop), ladder[place], vowel, consonant))
            time = notes[-1].end
            if not left:
                left = 3 + int(5 * draw.random())
                time += 0.35 + 0.4 * draw.random()
        return notes


def phrases(
    count: int, singer: str | Singer = "mira", seed: int = 0,
    seconds: float | int | Sequence[float | int] = (3.0, 7.0), span: tuple[float | int, float | int] | None = None,
) -> list[Song]:  # fmt: skip
    """Compose songs by a singer; more of them only add songs at the end, and those of different seeds share nothing.

    `seconds` may be a range from which they are drawn. For the span see `Song`; `SHARED` is that of all named singers.
    """
    check_whole("count", count, 1, 99999)
    check_whole("seed", seed, 0)
    low, high = seconds if isinstance(seconds, Sequence) else (seconds, seconds)
    drawn = dice("seconds", seed)
    lengths = [round(low + (high - low) * float(drawn.random()), 2) for _ in range(count)]
    return [Song(singer, int(seed) * 100_000 + i, length, span) for i, length in enumerate(lengths)]


def render(songs: Iterable[Song], jobs: int | None = None, progress: bool = True) -> Path:
    """Render songs to 44.1 kHz, 16-bit mono wav files, in `jobs` processes; those in the cache are kept.

    Returns the table, a CSV file in the cache with a row of `COLUMNS` for each song, in their order; the melody is
    named by whose it is. The truth is beside each file, as `.json`.
    """
    songs = list(songs)
    if not songs:
        raise ParameterError("songs", "nothing", "at least one song", "Give what `phrases` returns.")
    rows = [(song.singer.name, song.melody.name, song.seed, song.seconds) for song in songs]
    names = ["-".join(map(str, row[:3])) for row in rows]
    paths = [place("songs", name, astuple(song), ".wav") for name, song in zip(names, songs, strict=True)]
    render_missing(_render, paths, songs, jobs, progress)
    return write_table("songs", COLUMNS, [[path, *row] for path, row in zip(paths, rows, strict=True)])


def _render(missing: tuple[Path, Song]) -> None:
    path, song = missing
    title = f"song {song.seed} by {song.singer.name} (synthetic)"
    comment = f"synthetic: rendered by avlib.clips.song; truth in {path.with_suffix('.json').name}"
    publish_sound(path, song.truth.to_dict(), song.sound, SAMPLE_RATE, title, comment)
