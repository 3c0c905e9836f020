"""One spoken word: who says it, how, and what is true of its sound."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64

from ...errors import ParameterError, check_choice
from .given import check_number, check_whole, dice
from .phones import PARTNER, PHONES, WORDS, Phone
from .speaker import Speaker
from .voice import FRAME_RATE, NOSE, SAMPLE_RATE, Tracks, smooth, speak

PRONUNCIATIONS = ("normal", "abnormal")
DEFAULT_SNR = 10.0  # dB
SNR_LIMITS = (-40.0, 100.0)

# How far one take, or one phone of it, is from the mean of the speaker.
_FORMANTS, _SECONDS, _F0 = 0.04, 0.2, 0.05
_LOUDEST = 0.98


@dataclass(frozen=True)
class Truth:
    """What is true of a spoken word.

    word, pronunciation, speaker, age, snr, seed, seconds: which one it is.
    said: the word whose phones are heard; it is `word` when the pronunciation is normal.
    phones, starts, ends: what is heard, and from when to when, in seconds. A stop begins with its closure.
    f0: mean pitch in Hz of what is voiced.
    tract: how much higher the speaker's formants are than a grown-up's.
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
        """The same as plain JSON values; no noise is null, as JSON has no infinity."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        plain["formants"] = [list(triple) for triple in self.formants]
        plain["snr"] = self.snr if math.isfinite(self.snr) else None
        return plain


@dataclass(frozen=True)
class Spoken:
    """A word said by someone, with known truth. Making one decides everything and renders nothing.

    An abnormal pronunciation takes one phone for another, so that the word becomes its partner in `PAIRS`: "ring" is
    heard as "wing", and "wing" as "ring". What is drawn depends on the pair, the speaker and the seed alone. So an
    abnormal "ring" is, sample by sample, the normal "wing" of the same seed: nothing in the sound tells the label to
    one who does not know the word. And both pronunciations of one seed last equally long, phone by phone.

    Args:
        word: one of `WORDS`.
        speaker: who says it.
        pronunciation: "normal" or "abnormal".
        seed: which take; any whole number that is not negative.
        snr: power of the word over that of white noise, in dB, from -40 to 100; `math.inf` for no noise.

    Raises:
        ParameterError: one of them is unknown, of the wrong type, or out of range.
    """

    word: str
    speaker: Speaker
    pronunciation: str = "normal"
    seed: int = 0
    snr: float | int = DEFAULT_SNR

    def __post_init__(self):
        check_choice("word", self.word, tuple(WORDS))
        check_choice("pronunciation", self.pronunciation, PRONUNCIATIONS)
        if not isinstance(self.speaker, Speaker):
            raise ParameterError("speaker", f"{self.speaker!r}", "a Speaker", "Give Speaker(seed=...).")
        check_whole("seed", self.seed, 0)
        object.__setattr__(self, "seed", int(self.seed))
        if self.snr != math.inf:
            check_number("snr", self.snr, *SNR_LIMITS)
        object.__setattr__(self, "snr", float(self.snr))

    @property
    def said(self) -> str:
        """The word that is heard."""
        return self.word if self.pronunciation == "normal" else PARTNER[self.word]

    @property
    def seconds(self) -> float:
        """The duration of the clip."""
        return (len(self.tracks.f0) - 1) / FRAME_RATE

    @cached_property
    def tracks(self) -> Tracks:
        """Pitch, formants and loudness every 5 ms."""
        bounds, tract = self._times, self.speaker.tract
        times = np.arange(math.ceil(self._end * FRAME_RATE) + 1) / FRAME_RATE
        parts, targets, ends = [], [], []
        for phone, start, end, factors in zip(self._phones, bounds[:-1], bounds[1:], self._factors, strict=True):
            parts += phone.parts
            targets += [factors * part.formants for part in phone.parts]
            ends += (start + (end - start) * np.cumsum([part.share for part in phone.parts])).tolist()
        at = np.minimum(np.searchsorted(ends, times, "right"), len(parts) - 1)  # the part at each frame
        heard = (times >= bounds[0]) & (times < bounds[-1])
        voice, breath, hiss, centre, width, zero = (
            np.array([getattr(part, name) or 0.0 for part in parts])[at]
            for name in ("voice", "breath", "hiss", "centre", "width", "zero")
        )
        # A hiss fades in and out with its own spectrum: frames without one take that of the nearest frame with one.
        hissing = np.flatnonzero(centre)
        if len(hissing):
            nearest = hissing[np.abs(np.arange(len(times))[:, None] - hissing).argmin(axis=1)]
            centre, width = centre[nearest], width[nearest]
        return Tracks(
            f0=self._pitch(times),
            formants=np.stack([smooth(track, 0.05) for track in np.stack(targets)[at].T], axis=1),
            zero=smooth(np.where(zero, zero, NOSE) * tract, 0.03),
            voice=smooth(voice * heard, 0.02),
            breath=smooth((breath + self.speaker._voice[1] * voice) * heard, 0.02),
            hiss=smooth(hiss * heard, 0.01),
            centre=np.minimum(centre * tract, 7000.0),
            width=np.maximum(width * tract, 1.0),
        )

    @cached_property
    def truth(self) -> Truth:
        """What is true of it."""
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
        """The word in its noise.

        Returns:
            float32 (samples,), at 16 kHz, in [-1, 1) and on the grid of 16-bit files (multiples of 1/32768).
        """
        word, noise = self.layers()
        return (np.rint(np.clip((word + noise) * 32768, -32768, 32767)) / 32768).astype(np.float32)

    def layers(self) -> tuple[Float64[np.ndarray, " samples"], Float64[np.ndarray, " samples"]]:
        """What `sound` adds up: the word alone and the noise alone, float64 (samples,) each."""
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

    # What is drawn: from the pair, the speaker and the take, never from the pronunciation

    def _dice(self, purpose: str) -> np.random.Generator:
        return dice(" ".join(sorted((self.word, PARTNER[self.word]))), self.speaker.seed, self.seed, purpose)

    @cached_property
    def _times(self) -> np.ndarray:
        """When the phones begin, and when the last one ends, in seconds: (phones + 1,)."""
        draws = self._dice("times").random(len(WORDS[self.word]) + 1)
        usual = [  # of both words, so that the duration does not tell which of them is said
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
        """What the formants of a grown-up are multiplied by, phone by phone: (phones, 3)."""
        draws = self._dice("formants").random((len(WORDS[self.word]), 3))
        return self.speaker.tract * self.speaker._voice[0] * (1 + _FORMANTS * (2 * draws - 1))

    def _pitch(self, times: np.ndarray) -> np.ndarray:
        """Pitch in Hz at each time: it falls, as at the end of a sentence, and is never quite steady."""
        stream = self._dice("pitch")
        mean, start, end = stream.random(3)
        top, bottom = 1.02 + 0.1 * start, 0.86 + 0.08 * end
        along = np.interp(times, self._times[[0, -1]], (top, bottom))
        unsteady = 1 + 0.02 * smooth(2 * stream.random(len(times)) - 1, 0.03)
        return self.speaker.f0 * (1 + _F0 * (2 * mean - 1)) * along * unsteady
