"""Sounds of scenes: notes, noise in a band, and a small room.

Everything is a function of time in seconds. A lower sample rate gives the same sound without the frequencies above half
of it: such partials are left out, and noise is made in the frequency domain.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

Numbers = Sequence[float | int]
GRID = 8000  # onsets and echoes lie on this grid (Hz): a whole sample at 8, 16, 24, 32 and 48 kHz
_ECHOES = (  # delays and gains, first of both channels, then of the left and of the right
    ((0.009, 0.55), (0.021, -0.42), (0.034, 0.30)),
    (((0.013, -0.6), (0.029, 0.5), (0.061, -0.36)), ((0.017, 0.6), (0.037, -0.5), (0.053, -0.36))),
)


def dice(*purpose: object) -> np.random.Generator:
    """A random stream for a purpose; use only `random`, which never changes."""
    digest = hashlib.sha256(" ".join(map(str, purpose)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def ring(pitch: float, ratios: Numbers, levels: Numbers, decays: Numbers, sample_rate: int) -> np.ndarray:
    """Sines at `pitch * ratios` (Hz) that fall to 1/e in `decays` seconds, as long as audible, at most 4 s."""
    partials = [p for p in zip(ratios, levels, decays, strict=True) if pitch * p[0] < sample_rate / 2]
    ratios, levels, decays = (np.array(column)[:, None] for column in zip(*partials, strict=True))
    samples = int(min(4.0, 7 * decays.max()) * sample_rate)
    # exp(z (64 i + j)) = exp(z 64 i) exp(z j) needs few exponentials; einsum, as a matrix product would start threads
    growth = (2j * math.pi * pitch * ratios - 1 / decays) / sample_rate
    coarse = levels * np.exp(growth * 64 * np.arange(samples // 64 + 1))
    fine = np.exp(growth * np.arange(64))
    sines = np.einsum("pi,pj->ij", coarse.imag, fine.real) + np.einsum("pi,pj->ij", coarse.real, fine.imag)
    waveform = sines.ravel()[:samples]
    return faded(waveform, sample_rate, 0.001, 0.02)


def glide(frequency: np.ndarray, level: np.ndarray, overtones: Numbers, sample_rate: int) -> np.ndarray:
    """A tone with frequency (Hz) and level per sample, and levels of harmonics."""
    turns = np.cumsum(frequency) - (frequency + frequency[0]) / 2  # by trapezoids: the same at every sample rate
    phase = turns * (2 * math.pi / sample_rate)
    waveform = np.zeros_like(phase)
    for number, strength in enumerate(overtones, start=1):
        waveform += np.where(number * frequency < sample_rate / 2, strength, 0) * np.sin(number * phase)
    return waveform * level


def hiss(dice: np.random.Generator, seconds: float, centre: float, width: float, sample_rate: int) -> np.ndarray:
    """Noise around `centre` (Hz), its power halved `width` away, of unit power; float64 (samples,)."""
    knots = round(16000 * seconds)
    spectrum = np.fft.rfft(dice.random(knots) - 0.5)
    offset = (np.arange(len(spectrum)) / seconds - centre) / width
    spectrum /= 1 + offset * offset
    spectrum[0] = 0
    spectrum /= math.sqrt(2 * float(np.sum(spectrum.real**2 + spectrum.imag**2))) + 1e-12
    samples = round(sample_rate * seconds)
    return np.fft.irfft(spectrum[: samples // 2 + 1], samples) * samples


def faded(waveform: np.ndarray, sample_rate: int, rise: float, fall: float) -> np.ndarray:
    """Fade the waveform in and out over `rise` and `fall` seconds, in place."""
    for end, seconds in ((waveform, rise), (waveform[::-1], fall)):
        ramp = np.linspace(0, 1, min(round(seconds * sample_rate), len(end)) + 1)[:-1]
        end[: len(ramp)] *= ramp * ramp * (3 - 2 * ramp)
    return waveform


def place(notes: Sequence[np.ndarray], times: Numbers, loudness: Numbers, samples: int, sample_rate: int) -> np.ndarray:
    """Place notes at times (seconds); each ends the one before. Returns float64 (samples,)."""
    waveform = np.zeros(samples)
    starts = [round(time * sample_rate) for time in times]
    for note, start, end, strength in zip(notes, starts, [*starts, samples][1:], loudness, strict=True):
        part = strength * note[: end - start]
        waveform[start : start + len(part)] = faded(part, sample_rate, 0.0, 0.015)
    return waveform


def room(waveform: np.ndarray, position: float, sample_rate: int) -> np.ndarray:
    """Pan to a position in [0, 1] with a short reverberation; float64 (2, samples)."""
    angle = (0.08 + 0.84 * position) * math.pi / 2
    early, sides = _ECHOES
    walls = _echoed(waveform, early, sample_rate)
    wet = np.stack([_echoed(_echoed(walls, side, sample_rate), side[::-1], sample_rate) for side in sides])
    return np.array([[math.cos(angle)], [math.sin(angle)]]) * waveform + 0.06 * (wet - waveform)


def bed(dice: np.random.Generator, seconds: float, sample_rate: int) -> np.ndarray:
    """A soft wind, unrelated to the scene, of about unit power; float64 (2, samples)."""
    memory, pace, start = 0.5 + 0.45 * dice.random(), 0.1 + 0.3 * dice.random(), dice.random()
    knots = int(seconds * 4000) + 2
    kernel = memory ** np.arange(64)
    kernel -= kernel.mean()  # no constant part
    noise = dice.random(2 * (knots + 63)).reshape(-1, 2) - 0.5  # pairs, so that a longer wind begins like a short one
    noise = np.stack([np.convolve(channel, kernel, "valid") for channel in noise.T])
    noise *= 1 + 0.5 * np.sin(2 * math.pi * (pace / 4000 * np.arange(knots) + start))
    noise *= 3.3 / math.sqrt(float(kernel @ kernel))
    at = np.arange(round(seconds * sample_rate)) * (4000 / sample_rate)
    before = at.astype(np.int64)
    share = at - before
    left = np.take(noise, before, axis=1)
    return left + (np.take(noise, before + 1, axis=1) - left) * share


def _echoed(waveform: np.ndarray, echoes: Sequence[tuple[float, float]], sample_rate: int) -> np.ndarray:
    total = waveform.copy()
    for delay, gain in echoes:
        lag = round(delay * sample_rate)
        total[lag:] += gain * waveform[: max(len(waveform) - lag, 0)]
    return total
