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
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float64

from ..errors import check_number
from .sound import dice

SAMPLE_RATE = 44100  # Hz
HOP = 128  # samples in a frame of the tracks, 2.9 ms; its centre is at (k + 0.5) * HOP
NOSE = 270.0  # Hz, of an adult's nose; undone by a zero of the same frequency when it is shut
_TUBE = 1000.0  # Hz between the resonances of an adult's tract
_BLOCK = 2048  # frames that are summed at a time: memory does not grow with the song
_NOISE_HOP, _PIECE = 2 * HOP, 1024  # samples between pieces of noise, and in their Fourier transform

_LIMITS = {
    "tract": (0.7, 1.5), "first": (0.8, 1.2), "second": (0.8, 1.2), "third": (0.8, 1.2), "ring": (0.0, 1.0),
    "tilt": (300.0, 20000.0), "opening": (0.3, 3.0), "breath": (0.0, 1.0), "lowest": (50.0, 1000.0),
    "highest": (100.0, 2000.0), "vibrato": (0.0, 300.0), "rate": (2.0, 12.0), "delay": (0.0, 2.0),
    "glide": (0.02, 1.0), "jitter": (0.0, 50.0), "shimmer": (0.0, 6.0), "attack": (0.01, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Singer:
    """A voice, and its way to sing.

    Args:
        name: in tables and titles.
        tract: factor of all formants against an adult man's; the voice's size.
        first, second, third: own factors of F1, F2 and F3.
        ring: from 0 to 1, how near the fourth and fifth formant come to the third.
        tilt: Hz above which the source falls by 6 dB in an octave more, at full loudness; low for a soft voice.
        opening: frequency of the glottal formant against the pitch; low for a breathy voice.
        breath: level of the air in the voice, against the voice.
        lowest, highest: pitch in Hz.
        vibrato: its depth in cents to both sides; rate: in Hz; delay: seconds of a note before it sets in.
        glide: seconds from one note to the next.
        jitter: unsteadiness of the pitch in cents (RMS); shimmer: of the loudness in dB (RMS).
        attack: seconds in which a voice that was silent sets in.
    """

    name: str
    tract: float | int = 1.0
    first: float | int = 1.0
    second: float | int = 1.0
    third: float | int = 1.0
    ring: float | int = 0.5
    tilt: float | int = 2500.0
    opening: float | int = 1.0
    breath: float | int = 0.04
    lowest: float | int = 110.0
    highest: float | int = 440.0
    vibrato: float | int = 45.0
    rate: float | int = 5.6
    delay: float | int = 0.3
    glide: float | int = 0.09
    jitter: float | int = 5.0
    shimmer: float | int = 0.4
    attack: float | int = 0.08

    def __post_init__(self):
        for name, limits in _LIMITS.items():
            check_number(name, getattr(self, name), *limits)
        check_number("highest", self.highest, 1.5 * self.lowest, _LIMITS["highest"][1])  # there is room for a melody

    @classmethod
    def random(cls, seed: int) -> Singer:
        """Draw a singer, for recognisers that should know many voices."""
        draw = dict(zip((field.name for field in fields(cls)), dice("singer", seed).random(32).tolist(), strict=False))

        def between(name: str, low: float, high: float) -> float:
            return low + (high - low) * draw[name]

        tract = between("tract", 0.9, 1.28)
        lowest = 110 * (tract / 0.9) ** 1.6 * between("lowest", 0.9, 1.1)
        return cls(
            f"random{seed}", tract, between("first", 0.94, 1.06), between("second", 0.94, 1.06),
            between("third", 0.94, 1.06), between("ring", 0, 1), 1200 * 4 ** draw["tilt"],
            between("opening", 0.7, 1.5), 0.015 * 6 ** draw["breath"], lowest, lowest * between("highest", 3.4, 4.0),
            between("vibrato", 15, 65), between("rate", 4.9, 6.4), between("delay", 0.2, 0.45),
            between("glide", 0.06, 0.14), between("jitter", 3, 7), between("shimmer", 0.2, 0.6),
            between("attack", 0.05, 0.12),
        )  # fmt: skip


@dataclass(frozen=True)
class Tracks:
    """Parameters of the voice in each frame.

    hertz: pitch, also where nothing is voiced; formants: F1 to F3 in Hz of an adult man; zero: of the nose, in Hz.
    voice, breath, hiss: levels of the three sources; a vowel's voice is 1. effort: loudness that brightens the voice.
    centre, width: of the spectrum of the hiss, in Hz.
    """

    hertz: Float64[np.ndarray, " frames"]
    formants: Float64[np.ndarray, "frames 3"]
    zero: Float64[np.ndarray, " frames"]
    voice: Float64[np.ndarray, " frames"]
    breath: Float64[np.ndarray, " frames"]
    hiss: Float64[np.ndarray, " frames"]
    effort: Float64[np.ndarray, " frames"]
    centre: Float64[np.ndarray, " frames"]
    width: Float64[np.ndarray, " frames"]


def smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    """Average a track `(frames,)` with a Hann window of that length, its ends extended."""
    half = max(1, round(seconds * SAMPLE_RATE / HOP / 2))
    window = 0.5 + 0.5 * np.cos(np.pi * np.arange(-half, half + 1) / (half + 1))
    return np.convolve(np.pad(track, half, mode="edge"), window / window.sum(), "valid")


def unsteady(stream: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """Noise of unit power, slower than `seconds`; (frames,)."""
    half = max(1, round(seconds * SAMPLE_RATE / HOP / 2))
    window = 0.5 + 0.5 * np.cos(np.pi * np.arange(-half, half + 1) / (half + 1))
    noise = np.sqrt(12) * (stream.random(frames + 2 * half) - 0.5)
    return np.convolve(noise, window / math.sqrt(window @ window), "valid")


def sing(tracks: Tracks, singer: Singer, stream: np.random.Generator) -> Float64[np.ndarray, " samples"]:
    """Synthesise tracks.

    Args:
        tracks: of `frames` frames.
        singer: of the voice.
        stream: random numbers of the noise.

    Returns:
        float64 (samples,), `frames * 128` of them, at 44.1 kHz.
    """
    import torch

    from ..features import harmonics, turns

    frames = len(tracks.hertz)
    hertz = torch.from_numpy(tracks.hertz)[None]
    angles = turns(hertz, SAMPLE_RATE, HOP)
    voiced = np.empty(frames * HOP)
    for start in range(0, frames, _BLOCK):
        stop = min(start + _BLOCK, frames)
        cut = slice(max(start - 1, 0), min(stop + 1, frames))  # neighbours share a frame on both sides
        skip = (start - cut.start) * HOP
        phase = angles[:, start * HOP] - turns(hertz[:, cut], SAMPLE_RATE, HOP)[:, skip]
        sizes = torch.from_numpy(_harmonics(tracks, singer, cut))[None]
        piece = harmonics(hertz[:, cut], sizes, SAMPLE_RATE, HOP, phase)[0, skip : skip + (stop - start) * HOP]
        voiced[start * HOP : stop * HOP] = piece.numpy()
    # Air flows in puffs while the glottis vibrates.
    puffs = 1 + 0.7 * torch.cos(2 * torch.pi * (angles[0] % 1)).numpy() * np.repeat(np.minimum(tracks.voice, 1), HOP)
    return voiced + _noise(tracks, singer, stream, puffs)


def _tract(frequencies: np.ndarray, tracks: Tracks, singer: Singer, cut: slice) -> np.ndarray:
    """Gain of the tract at frequencies `(frames, points)` or `(1, points)` in Hz: (frames, points)."""
    squares = frequencies * frequencies
    bandwidths = 55 + squares / 55e3  # Hz: 75 at 1 kHz, 300 at 3.7 kHz
    losses = squares * bandwidths**2

    def resonance(frequency: np.ndarray | float, damping: np.ndarray = losses) -> np.ndarray:
        return frequency**4 / ((frequency**2 - squares) ** 2 + damping)

    tube = _TUBE * singer.tract
    power = 1 / (np.sinh(np.pi / 2 * bandwidths / tube) ** 2 + np.cos(np.pi * frequencies / tube) ** 2)
    own = np.array([singer.first, singer.second, singer.third]) * singer.tract
    formants = tracks.formants[cut] * own
    # A singer lets the first formant rise with the pitch, rather than lose the fundamental.
    first = (formants[:, 0] ** 6 + (0.85 * tracks.hertz[cut]) ** 6) ** (1 / 6)
    fourth, fifth = (3550 - 250 * singer.ring) * singer.tract, (4500 - 750 * singer.ring) * singer.tract
    moved = (first[:, None], formants[:, 1, None], formants[:, 2, None], fourth, fifth)
    for number, frequency in enumerate(moved):
        power = power * (resonance(frequency) / resonance(tube * (number + 0.5)))
    nose = NOSE * singer.tract
    return np.sqrt(power * (resonance(nose, losses * 3) / resonance(tracks.zero[cut, None], losses * 3)))


def _harmonics(tracks: Tracks, singer: Singer, cut: slice) -> np.ndarray:
    """Amplitudes and phases of the harmonics: complex (frames, harmonics)."""
    hertz = tracks.hertz[cut, None]
    numbers = np.arange(1, int(SAMPLE_RATE / 2 / hertz.min()) + 1)
    frequencies = hertz * numbers
    x = numbers / singer.opening
    source = x / np.sqrt((1 - x * x) ** 2 + (x / 0.8) ** 2)
    corner = singer.tilt * tracks.effort[cut, None] ** 0.8
    level = tracks.voice[cut, None] * np.sqrt(hertz / 200) / np.sqrt(1 + (frequencies / corner) ** 2)
    # The phases of a pulse in a tube spread its energy over the period; they do not move with the pitch.
    phases = np.exp(-0.5j * np.pi * np.sqrt(numbers) * 3)
    return level * source * _tract(frequencies, tracks, singer, cut) * phases


def _noise(tracks: Tracks, singer: Singer, stream: np.random.Generator, puffs: np.ndarray) -> np.ndarray:
    """Breath through the tract, and hiss of consonants at the mouth: (samples,)."""
    samples, size = len(puffs), 2 * _NOISE_HOP
    count = samples // _NOISE_HOP + 2
    frequencies = np.fft.rfftfreq(_PIECE, 1 / SAMPLE_RATE)[None]
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(size) / _NOISE_HOP)  # neighbours add up to 1
    total = np.zeros((count + 3) * _NOISE_HOP)
    noise = np.sqrt(12) * (stream.random(((count + 1) * _NOISE_HOP, 2)) - 0.5)
    noise[_NOISE_HOP : _NOISE_HOP + samples, 0] *= puffs
    for start in range(0, count, _BLOCK // 2):  # piece k is centred on sample k * _NOISE_HOP
        pieces = np.arange(start, min(start + _BLOCK // 2, count))
        spans = pieces[:, None] * _NOISE_HOP + np.arange(size)
        spectra = np.fft.rfft(noise[spans] * window[:, None], _PIECE, axis=1)
        at = np.clip(2 * pieces - 1, 0, len(tracks.hertz) - 1)
        mouth = 1 / (1 + ((frequencies - tracks.centre[at, None]) / tracks.width[at, None]) ** 2)
        mouth *= frequencies / (frequencies + 400)  # the mouth radiates low sounds badly
        mouth /= np.sqrt((mouth * mouth).mean(axis=1, keepdims=True))
        throat = _tract(frequencies, tracks, singer, at) * (frequencies / (frequencies + 1500))
        throat /= 1 + frequencies / 6000
        shaped = tracks.breath[at, None] * throat * spectra[..., 0] + tracks.hiss[at, None] * mouth * spectra[..., 1]
        # The filters have no phase: sound comes before and after its piece, which is put in the middle.
        for piece, waveform in zip(pieces, np.roll(np.fft.irfft(shaped, _PIECE, axis=1), size // 2, 1), strict=True):
            total[piece * _NOISE_HOP : piece * _NOISE_HOP + _PIECE] += waveform
    return total[size : size + samples]
