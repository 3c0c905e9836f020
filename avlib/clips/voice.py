"""Source-filter synthesis: harmonics and noise, both shaped by moving formants.

The voice is a sum of harmonics, each with the amplitude and phase of the filter at its frequency, so that pitch and
formants are exact at any sample; pulses would have to fall on whole samples. Noise is filtered in short overlapping
pieces in the frequency domain.

Source of the filter: Klatt, "Software for a cascade/parallel formant synthesizer", JASA 67 (1980), eq. 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

SAMPLE_RATE = 16000  # Hz
HOP = 80  # samples in a frame of the tracks: 5 ms
FRAME_RATE = SAMPLE_RATE // HOP  # Hz
NOSE = 280.0  # resonance of an adult's nose in Hz; undone by a zero of the same frequency when it is shut
_UPPER = (3500.0, 4500.0)  # F4 and F5 of an adult, in Hz; they do not move
_BANDWIDTHS = (70.0, 90.0, 130.0, 200.0, 300.0)  # Hz, of F1 to F5 of an adult
_NOSE_BANDWIDTH = 100.0  # Hz
_GLOTTIS = 130.0  # Hz; above it the larynx alone falls by 12 dB in an octave
_VOICE_GAIN = 0.5  # makes the voice of a vowel about as loud as noise of level 1
_PIECE = 256  # samples in the Fourier transform of a piece of noise


@dataclass(frozen=True)
class Tracks:
    """Parameters of the synthesiser every 5 ms; the first frame is at time 0.

    f0: in Hz, also where nothing is voiced; formants: F1 to F3 in Hz; zero: of the nose, in Hz.
    voice, breath, hiss: levels of the three sources; centre, width: of the spectrum of the hiss, in Hz.
    """

    f0: Float64[np.ndarray, " frames"]
    formants: Float64[np.ndarray, "frames 3"]
    zero: Float64[np.ndarray, " frames"]
    voice: Float64[np.ndarray, " frames"]
    breath: Float64[np.ndarray, " frames"]
    hiss: Float64[np.ndarray, " frames"]
    centre: Float64[np.ndarray, " frames"]
    width: Float64[np.ndarray, " frames"]

    @property
    def times(self) -> Float64[np.ndarray, " frames"]:
        return np.arange(len(self.f0)) / FRAME_RATE


def smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    """Average a track `(frames,)` with a Hann window of that length, its ends extended."""
    half = round(seconds * FRAME_RATE / 2)
    window = 0.5 + 0.5 * np.cos(np.pi * np.arange(-half, half + 1) / (half + 1))
    return np.convolve(np.pad(track, half, mode="edge"), window / window.sum(), "valid")


def speak(tracks: Tracks, tract: float, tilt: float, dice: np.random.Generator) -> Float64[np.ndarray, " samples"]:
    """Synthesise tracks of `frames` frames at 16 kHz: float64 `((frames - 1) * 80,)`.

    `tract` is the factor of upper formants and bandwidths against an adult's; `tilt` the frequency in Hz above which
    the voice falls by 6 dB in an octave more, low for a soft voice.
    """
    return _voiced(tracks, tract, tilt) + _noisy(tracks, tract, dice)


def _resonance(z: np.ndarray, frequency: np.ndarray | float, bandwidth: float) -> np.ndarray:
    """A two-pole resonator of gain 1 at 0 Hz, at the points `z` = exp(-i 2 pi f / sample rate)."""
    radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
    first = -2 * radius * np.cos(2 * np.pi * frequency / SAMPLE_RATE)
    second = radius * radius
    return (1 + first + second) / (1 + (first + second * z) * z)


def _tract(frequencies: np.ndarray, tracks: Tracks, tract: float) -> np.ndarray:
    """The filter at frequencies `(frames, points)` or `(1, points)` in Hz: complex (frames, points)."""
    z = np.exp(-2j * np.pi * frequencies / SAMPLE_RATE)
    response = _resonance(z, NOSE * tract, _NOSE_BANDWIDTH) / _resonance(z, tracks.zero[:, None], _NOSE_BANDWIDTH)
    for number, bandwidth in enumerate(_BANDWIDTHS):
        moving = tracks.formants[:, number, None] if number < 3 else _UPPER[number - 3] * tract
        response = response * _resonance(z, moving, bandwidth * tract)
    return response


def _voiced(tracks: Tracks, tract: float, tilt: float) -> np.ndarray:
    nyquist = SAMPLE_RATE / 2
    f0 = tracks.f0[:, None]
    frequencies = f0 * np.arange(1, int(nyquist / tracks.f0.min()) + 1)
    source = 1j * frequencies / _GLOTTIS / (1 + 1j * frequencies / _GLOTTIS) ** 2 / (1 + 1j * frequencies / tilt)
    below = np.clip((nyquist - frequencies) / 400, 0, 1)  # a harmonic that rises above half the rate fades out
    # Each harmonic carries f0 of the power in its surroundings: loudness does not depend on the pitch.
    level = _VOICE_GAIN * np.sqrt(f0 / 100) * tracks.voice[:, None] * below
    sizes = level * source * _tract(frequencies, tracks, tract)
    pitch = _between(tracks.f0)
    turns = np.cumsum(pitch) - (pitch + pitch[0]) / 2  # by trapezoids
    turning = np.exp(2j * np.pi / SAMPLE_RATE * turns)
    total = np.zeros_like(turning)
    for harmonic in sizes.T[::-1]:  # Horner's scheme for the sum of size_k(t) exp(i k phase(t))
        total += _between(harmonic)
        total *= turning
    return total.real


def _noisy(tracks: Tracks, tract: float, dice: np.random.Generator) -> np.ndarray:
    frames = len(tracks.f0)
    noise = np.sqrt(12) * (dice.random((frames + 1) * HOP) - 0.5)  # unit power
    pieces = np.lib.stride_tricks.sliding_window_view(noise, 2 * HOP)[::HOP]
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * HOP) / HOP)  # neighbours add up to 1
    spectra = np.fft.rfft(pieces * window, _PIECE)
    frequencies = np.fft.rfftfreq(_PIECE, 1 / SAMPLE_RATE)[None]
    offset = (frequencies - tracks.centre[:, None]) / tracks.width[:, None]
    mouth = 1 / (1 + offset * offset)
    mouth *= frequencies / (frequencies + 300)  # the mouth radiates low sounds badly
    mouth /= np.sqrt((mouth * mouth).mean(axis=1, keepdims=True))
    throat = _tract(frequencies, tracks, tract) * (frequencies / (frequencies + 1500))
    spectra *= tracks.hiss[:, None] * mouth + tracks.breath[:, None] * throat
    shaped = np.fft.irfft(spectra, _PIECE)
    total = np.zeros((frames + 3, HOP))
    shaped = np.pad(shaped, ((0, 0), (0, -_PIECE % HOP))).reshape(frames, -1, HOP)
    for part in range(shaped.shape[1]):
        total[part : part + frames] += shaped[:, part]
    return total.ravel()[HOP : HOP * frames]  # the middle of the first piece is time 0


def _between(track: np.ndarray) -> np.ndarray:
    """Interpolate a track `(frames,)` linearly to every sample: `((frames - 1) * 80,)`."""
    share = np.arange(HOP) / HOP
    return (track[:-1, None] + np.diff(track)[:, None] * share).ravel()
