"""Spoken words: phones, speakers, and words with the truth of their sound.

Formants of vowels are the means of men by Peterson & Barney, "Control Methods Used in a Study of the Vowels", JASA 24
(1952), table II, rounded to 10 Hz; those of consonants are chosen by ear and by spectrogram around the usual
descriptions of English (r has a low third formant, w a low second one, velars have the second near the third, ...).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32, Float64
from pydantic import Field

from ..errors import check_number
from ..settings import Number, settings
from .sound import dice
from .voice import FRAME_RATE, NOSE, SAMPLE_RATE, Tracks, smooth, speak

Formants = tuple[float | int, float | int, float | int]  # F1, F2, F3 in Hz


@dataclass(frozen=True)
class Part:
    """A steady part of a phone; neighbours blend.

    voice, breath: levels of the larynx and of the air from it, both through the formants. A vowel's voice is 1.
    """

    share: float | int  # of the phone's duration
    formants: Formants
    voice: float | int = 0.0
    breath: float | int = 0.0
    hiss: float | int = 0.0  # level of the noise from the mouth
    centre: float | int = 0.0  # of its spectrum, in Hz
    width: float | int = 0.0  # likewise
    zero: float | int | None = None  # frequency in Hz that the open nose removes; None when it is shut


@dataclass(frozen=True)
class Phone:
    """A sound of speech: its usual duration in seconds, and its parts."""

    seconds: float
    parts: tuple[Part, ...]


def _vowel(*formants: Formants, seconds: float = 0.2) -> Phone:
    return Phone(seconds, tuple(Part(1 / len(formants), target, voice=1) for target in formants))


def _glide(formants: Formants) -> Phone:
    return Phone(0.13, (Part(1, formants, voice=0.8),))


def _nasal(formants: Formants) -> Phone:
    return Phone(0.11, (Part(1, formants, voice=0.7, zero=480),))


def _fricative(formants: Formants, hiss: float, centre: int, width: int) -> Phone:
    return Phone(0.13, (Part(1, formants, hiss=hiss, centre=centre, width=width),))


def _stop(formants: Formants, voiced: bool, hiss: float, centre: int, width: int) -> Phone:
    """A closure, a burst, then breath or the voice until the vowel."""
    closure = Part(0.5, formants, voice=0.12 if voiced else 0)
    burst = Part(0.18, formants, hiss=hiss, centre=centre, width=width, voice=0.15 if voiced else 0)
    after = Part(0.32, formants, voice=0.6) if voiced else Part(0.32, formants, breath=0.1)
    return Phone(0.12, (closure, burst, after))


PHONES = {
    "iy": _vowel((270, 2290, 3010)),
    "ih": _vowel((390, 1990, 2550), seconds=0.17),
    "ae": _vowel((660, 1720, 2410)),
    "ah": _vowel((640, 1190, 2390), seconds=0.17),
    "aa": _vowel((730, 1090, 2440)),
    "uw": _vowel((300, 870, 2240)),
    "ey": _vowel((500, 1850, 2500), (350, 2150, 2750), seconds=0.22),
    "w": _glide((300, 620, 2250)),
    "r": _glide((330, 1100, 1500)),
    "l": _glide((350, 1250, 2900)),
    "m": _nasal((450, 1050, 2150)),
    "n": _nasal((450, 1650, 2650)),
    "ng": _nasal((450, 2150, 2650)),
    "s": _fricative((320, 1500, 2600), 0.22, 5000, 800),
    "sh": _fricative((320, 1850, 2500), 0.26, 2750, 600),
    "f": _fricative((320, 1000, 2150), 0.05, 5500, 4000),
    "th": _fricative((320, 1350, 2550), 0.06, 5000, 3000),
    "p": _stop((300, 850, 2150), False, 0.16, 700, 700),
    "t": _stop((300, 1750, 2700), False, 0.28, 3900, 1200),
    "k": _stop((300, 2000, 2400), False, 0.28, 1900, 350),
    "d": _stop((280, 1750, 2700), True, 0.22, 3900, 1200),
    "g": _stop((280, 2000, 2400), True, 0.22, 1900, 350),
}

# Two words that differ in one phone: exchanging it, in either word, gives the other word.
PAIRS = (
    ("ring", "wing"), ("key", "tea"), ("sip", "ship"), ("thumb", "sum"),
    ("gate", "date"), ("fan", "pan"), ("moon", "noon"), ("lock", "rock"),
)  # fmt: skip

WORDS = {
    "ring": ("r", "ih", "ng"), "wing": ("w", "ih", "ng"), "key": ("k", "iy"), "tea": ("t", "iy"),
    "sip": ("s", "ih", "p"), "ship": ("sh", "ih", "p"), "fan": ("f", "ae", "n"), "pan": ("p", "ae", "n"),
    "thumb": ("th", "ah", "m"), "sum": ("s", "ah", "m"), "lock": ("l", "aa", "k"), "rock": ("r", "aa", "k"),
    "moon": ("m", "uw", "n"), "noon": ("n", "uw", "n"), "gate": ("g", "ey", "t"), "date": ("d", "ey", "t"),
}  # fmt: skip

PARTNER = {word: other for pair in PAIRS for word, other in (pair, pair[::-1])}

# Half years while much changes, then whole ones.
AGES = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 9.0, 10.0)
YOUNGEST, OLDEST = 2, 16  # years; at the older age the vocal tract is a grown-up's

# Spread of speakers around the mean of their age: tract, f0 and pace; and of each formant.
_SPREADS, _VOICE_SPREAD = (0.04, 0.10, 0.12), 0.03


@settings
class Speaker:
    """A speaker, whose age is audible.

    Older children have longer vocal tracts, lower voices and faster speech. `Speaker(seed, age=...)` is, for the same
    seed, the same speaker at another age.

    seed: number of the speaker.
    age: in years; by default one of `AGES`, drawn from the seed.
    tract: factor of an adult's formants; by default 1.35 - 0.025 (age - 2), within 4 %.
    f0: the mean pitch in Hz; by default 330 - 9 (age - 2), within 10 %.
    pace: factor of an adult's durations; by default 1.3 - 0.02 (age - 2), within 12 %.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    age: Annotated[Number, Field(ge=YOUNGEST, le=OLDEST)] | None = None
    tract: Annotated[Number, Field(ge=0.8, le=1.6)] | None = None
    f0: Annotated[Number, Field(ge=60, le=500)] | None = None
    pace: Annotated[Number, Field(ge=0.5, le=2)] | None = None

    def __post_init__(self):
        first, *draws = dice("speaker", self.seed).random(4).tolist()
        drawn = {"age": AGES[int(first * len(AGES))]}
        since = (drawn["age"] if self.age is None else self.age) - YOUNGEST
        means = {"tract": 1.35 - 0.025 * since, "f0": 330 - 9 * since, "pace": 1.3 - 0.02 * since}
        for (name, mean), spread, draw in zip(means.items(), _SPREADS, draws, strict=True):
            drawn[name] = mean * (1 + spread * (2 * draw - 1))
        for name, value in drawn.items():
            given = getattr(self, name)
            object.__setattr__(self, name, value if given is None else float(given))

    @property
    def name(self) -> str:
        return f"s{self.seed}"

    @cached_property
    def _voice(self) -> tuple[np.ndarray, float, float]:
        """The speaker's own factors of F1 to F3 `(3,)`, breath (against a voice of 1), and tilt (Hz)."""
        draws = dice("voice", self.seed).random(5)
        return 1 + _VOICE_SPREAD * (2 * draws[:3] - 1), float(0.02 + 0.08 * draws[3]), float(2000 * 2 ** draws[4])


def tracks_of(
    phones: Sequence[Phone], bounds: Float64[np.ndarray, " bounds"], factors: Float64[np.ndarray, "phones 3"],
    hertz: Float64[np.ndarray, " frames"], speaker: Speaker, levels: Float64[np.ndarray, " phones"] | None = None,
) -> Tracks:  # fmt: skip
    """Parameters of the voice for phones in a row.

    Args:
        bounds: their starts and the end of the last one, in seconds.
        factors: of an adult's F1 to F3, phone by phone.
        hertz: pitch every 5 ms; it decides the number of frames.
        levels: loudness of each phone; None for 1.
    """
    times, tract = np.arange(len(hertz)) / FRAME_RATE, speaker.tract
    parts, targets, ends = [], [], []
    for phone, start, end, factor in zip(phones, bounds[:-1], bounds[1:], factors, strict=True):
        parts += phone.parts
        targets += [factor * part.formants for part in phone.parts]
        ends += (start + (end - start) * np.cumsum([part.share for part in phone.parts])).tolist()
    at = np.minimum(np.searchsorted(ends, times, "right"), len(parts) - 1)  # the part at each frame
    sounding = ((times >= bounds[0]) & (times < bounds[-1])).astype(float)
    if levels is not None:
        sounding *= np.repeat(levels, [len(phone.parts) for phone in phones])[at]
    names = ("voice", "breath", "hiss", "centre", "width", "zero")
    values = np.array([[getattr(part, name) or 0.0 for part in parts] for name in names])
    voice, breath, hiss, centre, width, zero = values[:, at]
    # A hiss fades in and out with its own spectrum: frames without one take that of the nearest frame with one.
    hissing = np.flatnonzero(centre)
    if len(hissing):
        nearest = hissing[np.abs(np.arange(len(times))[:, None] - hissing).argmin(axis=1)]
        centre, width = centre[nearest], width[nearest]
    return Tracks(
        f0=hertz,
        formants=np.stack([smooth(track, 0.05) for track in np.stack(targets)[at].T], axis=1),
        zero=smooth(np.where(zero, zero, NOSE) * tract, 0.03),
        voice=smooth(voice * sounding, 0.02),
        breath=smooth((breath + speaker._voice[1] * voice) * sounding, 0.02),
        hiss=smooth(hiss * sounding, 0.01),
        centre=np.minimum(centre * tract, 7000.0),
        width=np.maximum(width * tract, 1.0),
    )


PRONUNCIATIONS = ("normal", "abnormal")
DEFAULT_SNR = 10.0  # dB
SNR_LIMITS = (-40.0, 100.0)

# Spread of takes, and of their phones, around the mean of the speaker.
_FORMANTS, _SECONDS, _F0 = 0.04, 0.2, 0.05
_LOUDEST = 0.98


@dataclass(frozen=True)
class Truth:
    """The truth of a spoken word.

    word, pronunciation, speaker, age, snr, seed, seconds: of the recording.
    said: the word whose phones sound; it is `word` when the pronunciation is normal.
    phones, starts, ends: of these phones, in seconds. A stop begins with its closure.
    f0: mean pitch in Hz of the voiced part.
    tract: factor of the speaker's formants against an adult's.
    formants: F1, F2 and F3 in Hz in the middle of each phone.
    """

    word: str
    pronunciation: str
    said: str
    speaker: str
    age: float
    snr: float
    seed: int
    seconds: float
    phones: tuple[str, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    f0: float
    tract: float
    formants: tuple[tuple[float, float, float], ...]

    def to_dict(self) -> dict:
        """Convert to plain JSON values; an infinite SNR is null."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        plain["formants"] = [list(triple) for triple in self.formants]
        plain["snr"] = self.snr if math.isfinite(self.snr) else None
        return plain


@settings
class Spoken:
    """A word by a speaker with known truth, rendered on demand.

    An abnormal pronunciation takes one phone for another, so that the word becomes its partner in `PAIRS`: "ring"
    sounds as "wing", and "wing" as "ring". Random draws depend on the pair, the speaker and the seed alone. So an
    abnormal "ring" is, sample by sample, the normal "wing" of the same seed: without the word, nothing in the sound
    tells the label. Both pronunciations of one seed have the same durations, phone by phone.

    seed: number of the take.
    snr: power of the word over that of white noise, in dB; `math.inf` for no noise.
    """

    word: Literal[tuple(WORDS)]
    speaker: Speaker
    pronunciation: Literal[PRONUNCIATIONS] = "normal"
    seed: Annotated[int, Field(ge=0)] = 0
    snr: Number = DEFAULT_SNR

    def __post_init__(self):
        if self.snr != math.inf:
            check_number("snr", self.snr, *SNR_LIMITS)
        object.__setattr__(self, "snr", float(self.snr))

    @property
    def said(self) -> str:
        return self.word if self.pronunciation == "normal" else PARTNER[self.word]

    @property
    def seconds(self) -> float:
        return (len(self.tracks.f0) - 1) / FRAME_RATE

    @cached_property
    def tracks(self) -> Tracks:
        """Pitch, formants and loudness every 5 ms."""
        times = np.arange(math.ceil(self._end * FRAME_RATE) + 1) / FRAME_RATE
        return tracks_of(self._phones, self._times, self._factors, self._pitch(times), self.speaker)

    @cached_property
    def truth(self) -> Truth:
        tracks, bounds = self.tracks, self._times
        middles = np.rint((bounds[:-1] + bounds[1:]) / 2 * FRAME_RATE).astype(int)
        voiced = tracks.voice > 0.1
        return Truth(
            self.word, self.pronunciation, self.said, self.speaker.name, self.speaker.age, self.snr, self.seed,
            self.seconds, WORDS[self.said], tuple(bounds[:-1].tolist()), tuple(bounds[1:].tolist()),
            float(tracks.f0[voiced].mean()), self.speaker.tract,
            tuple(tuple(row) for row in tracks.formants[middles].tolist()),
        )  # fmt: skip

    def sound(self) -> Float32[np.ndarray, " samples"]:
        """Render the word in its noise, at 16 kHz, in [-1, 1) on the grid of 16-bit files, 1/32768."""
        word, noise = self.layers()
        return (np.rint(np.clip((word + noise) * 32768, -32768, 32767)) / 32768).astype(np.float32)

    def layers(self) -> tuple[Float64[np.ndarray, " samples"], Float64[np.ndarray, " samples"]]:
        """The word alone and the noise alone, float64 (samples,) each; `sound` is their sum."""
        _, _, tilt = self.speaker._voice
        word = speak(self.tracks, self.speaker.tract, tilt, self._dice("sources"))
        first, last = (round(time * SAMPLE_RATE) for time in self._times[[0, -1]])
        level = 0.03 * 2.5 ** self._dice("level").random()  # drawn, so that it tells nothing
        word *= level / math.sqrt(float((word[first:last] ** 2).mean()))
        noise = self._dice("noise").random(len(word)) - 0.5
        power = float((word[first:last] ** 2).mean()) / 10 ** (self.snr / 10)
        noise *= math.sqrt(power / float((noise * noise).mean()))
        quiet = min(1.0, _LOUDEST / float(np.abs(word + noise).max()))
        return quiet * word, quiet * noise

    @property
    def _phones(self) -> list[Phone]:
        return [PHONES[name] for name in WORDS[self.said]]

    # Draws depend on the pair, the speaker and the take, never on the pronunciation.

    def _dice(self, purpose: str) -> np.random.Generator:
        return dice(" ".join(sorted((self.word, PARTNER[self.word]))), self.speaker.seed, self.seed, purpose)

    @cached_property
    def _times(self) -> np.ndarray:
        """Starts of the phones and the end of the last one, in seconds: (phones + 1,)."""
        draws = self._dice("times").random(len(WORDS[self.word]) + 1)
        usual = [  # of both words, so that the duration does not tell them apart
            (PHONES[one].seconds + PHONES[other].seconds) / 2
            for one, other in zip(WORDS[self.word], WORDS[PARTNER[self.word]], strict=True)
        ]
        lengths = self.speaker.pace * np.array(usual) * (1 + _SECONDS * (2 * draws[1:] - 1))
        return 0.06 + 0.14 * draws[0] + np.concatenate([[0.0], np.cumsum(lengths)])

    @cached_property
    def _end(self) -> float:
        return self._times[-1] + 0.08 + 0.14 * float(self._dice("end").random())

    @cached_property
    def _factors(self) -> np.ndarray:
        """Factors of an adult's formants, phone by phone: (phones, 3)."""
        draws = self._dice("formants").random((len(WORDS[self.word]), 3))
        return self.speaker.tract * self.speaker._voice[0] * (1 + _FORMANTS * (2 * draws - 1))

    def _pitch(self, times: np.ndarray) -> np.ndarray:
        """Pitch in Hz at each time: it falls, as at the end of a sentence, and is unsteady."""
        stream = self._dice("pitch")
        mean, start, end = stream.random(3)
        top, bottom = 1.02 + 0.1 * start, 0.86 + 0.08 * end
        along = np.interp(times, self._times[[0, -1]], (top, bottom))
        unsteady = 1 + 0.02 * smooth(2 * stream.random(len(times)) - 1, 0.03)
        return self.speaker.f0 * (1 + _F0 * (2 * mean - 1)) * along * unsteady
