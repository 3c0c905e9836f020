"""Singing voice: harmonics and breath, shaped by the resonances of a vocal tract.

The tract is a tube, closed at the glottis, with resonances at 500, 1500, 2500, ... Hz; the first five of them are moved
to the formants. So there is sound up to half the sample rate, and it falls there as that of a voice does. Amplitudes of
harmonics follow the tract, their phases stay: the truth of the pitch is exact.

Sources: Fant, "Acoustic Theory of Speech Production", 1960 (tube and formants); Doval, d'Alessandro & Henrich, "The
spectrum of glottal flow models", Acta Acustica 92, 2006 (glottal formant and tilt); Sundberg, "The Science of the
Singing Voice", 1987 (vibrato, cluster of the third to fifth formant, first formant at high pitch).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from ..errors import check_number, check_whole
from ..settings import Number, Share, settings
from .sound import dice

SAMPLE_RATE = 44100  # Hz
HOP = 128  # samples in a frame of the tracks, 2.9 ms; its centre is at (k + 0.5) * HOP
NOSE = 270.0  # Hz, of an adult's nose; undone by a zero of the same frequency when it is shut
_TUBE = 1000.0  # Hz between the resonances of an adult's tract
_BLOCK = 2048  # frames that are synthesised at a time: memory does not grow with the song
_NOISE_HOP, _PIECE = 2 * HOP, 1024  # samples between pieces of noise, and in their Fourier transform


_Factor = Annotated[Number, Field(ge=0.7, le=1.5)]
_Seconds = Annotated[Number, Field(ge=0.02, le=2)]
_Hertz = Annotated[Number, Field(ge=50, le=2000)]
_DRAWN = {  # of a random singer: lowest and highest value
    "tract": (0.88, 1.26), "first": (0.94, 1.06), "second": (0.94, 1.06), "third": (0.94, 1.06), "ring": (0, 1),
    "tilt": (800, 5000), "opening": (0.5, 1.3), "breath": (0.02, 0.22), "vibrato": (15, 65), "rate": (4.9, 6.4),
    "delay": (0.2, 0.45), "glide": (0.06, 0.14), "jitter": (3, 7), "shimmer": (0.2, 0.6), "attack": (0.05, 0.12),
}  # fmt: skip


@settings
class Singer:
    """A voice, and its way to sing.

    tilt: Hz above which the source falls by 6 dB in an octave more, at full loudness; low for a soft voice.
    """

    name: str  # in tables and titles
    tract: _Factor = 1.0  # factor of all formants against an adult man's
    first: _Factor = 1.0  # own factor of F1
    second: _Factor = 1.0  # of F2
    third: _Factor = 1.0  # of F3
    ring: Share = 0.5  # how near the fourth and fifth formant come to the third
    tilt: Annotated[Number, Field(ge=300, le=20000)] = 2500.0
    opening: Annotated[Number, Field(ge=0.3, le=3)] = 1.0  # glottal formant, in pitches; low: breathy
    breath: Share = 0.04  # level of the air in the voice, against the voice
    lowest: _Hertz = 110.0  # pitch in Hz
    highest: _Hertz = 440.0  # likewise
    vibrato: Annotated[Number, Field(ge=0, le=300)] = 45.0  # its depth in cents to both sides
    rate: Annotated[Number, Field(ge=2, le=12)] = 5.6  # of the vibrato, in Hz
    delay: _Seconds = 0.3  # seconds of a note before the vibrato sets in
    glide: _Seconds = 0.09  # seconds from one note to the next
    jitter: Annotated[Number, Field(ge=0, le=50)] = 5.0  # unsteadiness of the pitch in cents, RMS
    shimmer: Annotated[Number, Field(ge=0, le=6)] = 0.4  # of the loudness in dB, RMS
    attack: _Seconds = 0.08  # seconds in which the voice sets in after a rest

    def __post_init__(self):
        check_number("highest", self.highest, 1.5 * self.lowest, 2000)  # there is room for a melody

    @classmethod
    def random(cls, seed: int) -> Singer:
        """Draw a singer, for recognisers that should know many voices; a small one has a high voice."""
        check_whole("seed", seed, 0)
        draws = dice("singer", seed).random(len(_DRAWN) + 1).tolist()
        values = {name: low + (high - low) * draw for (name, (low, high)), draw in zip(_DRAWN.items(), draws)}  # noqa: B905 - one more draw
        lowest = 95 * (values["tract"] / 0.88) ** 1.5 * (1 + 0.2 * draws[-1])
        return cls(f"random{seed}", lowest=lowest, highest=3.7 * lowest, **values)


@dataclass(frozen=True)
class Tracks:
    """Parameters of the voice in each frame; levels are against a vowel's voice."""

    hertz: Float64[np.ndarray, " frames"]  # pitch, also where nothing is voiced
    formants: Float64[np.ndarray, "frames 3"]  # Hz of an adult man
    zero: Float64[np.ndarray, " frames"]  # of the nose, in Hz
    voice: Float64[np.ndarray, " frames"]
    breath: Float64[np.ndarray, " frames"]
    hiss: Float64[np.ndarray, " frames"]
    effort: Float64[np.ndarray, " frames"]  # loudness that brightens the voice
    centre: Float64[np.ndarray, " frames"]  # of the spectrum of the hiss, in Hz
    width: Float64[np.ndarray, " frames"]


def smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    """Average a track `(frames,)` with a Hann window of that length, its ends extended."""
    window = _window(seconds)
    return np.convolve(np.pad(track, len(window) // 2, mode="edge"), window / window.sum(), "valid")


def unsteady(stream: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """Noise of unit power, slower than `seconds`; (frames,)."""
    window = _window(seconds)
    noise = np.sqrt(12) * (stream.random(frames + len(window) - 1) - 0.5)
    return np.convolve(noise, window / math.sqrt(window @ window), "valid")


def _window(seconds: float) -> np.ndarray:
    half = max(1, round(seconds * SAMPLE_RATE / HOP / 2))
    return 0.5 + 0.5 * np.cos(np.pi * np.arange(-half, half + 1) / (half + 1))


def sing(tracks: Tracks, singer: Singer, stream: np.random.Generator) -> Float64[np.ndarray, " samples"]:
    """Synthesise tracks of `frames` frames at 44.1 kHz, with noise from `stream`: float64 (frames * 128,)."""
    import torch

    from ..features.harmonics import harmonics, turns

    frames, lead = len(tracks.hertz), _PIECE // 2
    total = np.zeros(lead + frames * HOP + 2 * _PIECE)
    tail, phase = np.zeros((2, _NOISE_HOP)), 0.0
    for start in range(0, frames, _BLOCK):
        stop = min(start + _BLOCK, frames)
        cut = slice(max(start - 1, 0), min(stop + 1, frames))  # neighbours share a frame on both sides
        here = slice((start - cut.start) * HOP, (stop - cut.start) * HOP)
        hertz = torch.from_numpy(tracks.hertz[cut])[None]
        angles = turns(hertz, SAMPLE_RATE, HOP)[0]
        angles += phase - angles[here.start]
        sizes = torch.from_numpy(_harmonics(tracks, singer, cut))[None]
        voiced = harmonics(hertz, sizes, SAMPLE_RATE, HOP, angles[:1])[0, here].numpy()
        total[lead + start * HOP : lead + stop * HOP] += voiced
        phase = float(angles[here.stop]) % 1 if stop < frames else 0.0
        # Air flows in puffs while the glottis vibrates.
        noise = np.sqrt(12) * (stream.random((len(voiced), 2)).T - 0.5)
        puffs = 0.7 * np.cos(2 * np.pi * (angles[here].numpy() % 1))
        noise[0] *= 1 + np.repeat(np.minimum(tracks.voice[start:stop], 1), HOP) * puffs
        noise = np.concatenate([tail, noise, np.zeros((2, -len(voiced) % _NOISE_HOP))], 1)
        tail = noise[:, -_NOISE_HOP:]
        pieces = np.lib.stride_tricks.sliding_window_view(noise, 2 * _NOISE_HOP, axis=1)[:, ::_NOISE_HOP]
        shaped = _shaped(pieces, tracks, singer, np.clip(start - 1 + 2 * np.arange(pieces.shape[1]), 0, frames - 1))
        for part in range(0, _PIECE, _NOISE_HOP):  # overlaps
            at = start * HOP + part
            total[at : at + len(shaped) * _NOISE_HOP] += shaped[:, part : part + _NOISE_HOP].ravel()
    return total[lead : lead + frames * HOP]


def _harmonics(tracks: Tracks, singer: Singer, cut: slice) -> np.ndarray:
    """Amplitudes and phases of the harmonics: complex (frames, harmonics)."""
    hertz = tracks.hertz[cut, None]
    numbers = np.arange(1, int(SAMPLE_RATE / 2 / hertz.min()) + 1)
    frequencies, x = hertz * numbers, numbers / singer.opening
    source = x / np.sqrt((1 - x * x) ** 2 + (x / 0.8) ** 2)
    corner = singer.tilt * tracks.effort[cut, None] ** 0.4
    level = tracks.voice[cut, None] * np.sqrt(hertz / 200) / np.sqrt(1 + (frequencies / corner) ** 2)
    # Phases of a dispersed pulse spread its energy over the period.
    return level * source * _tract(frequencies, tracks, singer, cut) * np.exp(-1.5j * np.pi * np.sqrt(numbers))


def _shaped(pieces: np.ndarray, tracks: Tracks, singer: Singer, at: np.ndarray) -> np.ndarray:
    """Breath through the tract and hiss at the mouth, from noise (2, pieces, size): (pieces, 1024), centred."""
    size = pieces.shape[2]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)  # neighbours add up to 1
    breath, hiss = np.fft.rfft(pieces * window, _PIECE)
    frequencies = np.fft.rfftfreq(_PIECE, 1 / SAMPLE_RATE)[None]
    mouth = 1 / (1 + ((frequencies - tracks.centre[at, None]) / tracks.width[at, None]) ** 2)
    mouth *= frequencies / (frequencies + 400)  # the mouth radiates low sounds badly
    mouth /= np.sqrt((mouth * mouth).mean(axis=1, keepdims=True))
    throat = frequencies / (frequencies + 1500) / (1 + frequencies / 6000)
    breath = breath * throat * tracks.breath[at, None] * _tract(frequencies, tracks, singer, at)
    # The filters have no phase: there is sound before and after a piece, which is put in the middle.
    return np.roll(np.fft.irfft(breath + hiss * mouth * tracks.hiss[at, None], _PIECE), (_PIECE - size) // 2, 1)


def _tract(frequencies: np.ndarray, tracks: Tracks, singer: Singer, cut: slice | np.ndarray) -> np.ndarray:
    """Gain of the tract at frequencies `(frames, points)` or `(1, points)` in Hz: (frames, points)."""
    squares = frequencies * frequencies
    bandwidths = 55 + squares / 55e3  # Hz: 73 at 1 kHz, 304 at 3.7 kHz
    losses = squares * bandwidths**2

    def resonance(frequency: np.ndarray | float, damping: np.ndarray = losses) -> np.ndarray:
        return frequency**4 / ((frequency**2 - squares) ** 2 + damping)

    tube = _TUBE * singer.tract
    power = 1 / (np.sinh(np.pi / 2 * bandwidths / tube) ** 2 + np.cos(np.pi * frequencies / tube) ** 2)
    formants = tracks.formants[cut] * (singer.tract * np.array([singer.first, singer.second, singer.third]))
    # A singer lets the first formant rise with the pitch, rather than lose the fundamental.
    formants[:, 0] = (formants[:, 0] ** 6 + (0.85 * tracks.hertz[cut]) ** 6) ** (1 / 6)
    fourth, fifth = (3550 - 250 * singer.ring) * singer.tract, (4500 - 750 * singer.ring) * singer.tract
    for number, frequency in enumerate((*formants.T[..., None], fourth, fifth)):
        power = power * (resonance(frequency) / resonance(tube * (number + 0.5)))
    nose = NOSE * singer.tract
    return np.sqrt(power * (resonance(nose, losses * 3) / resonance(tracks.zero[cut, None], losses * 3)))
