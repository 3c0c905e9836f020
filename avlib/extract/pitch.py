"""Pitch and voicing of an isolated voice, one value per mel frame.

Sources: Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound", 1993; Mauch and Dixon, "pYIN", ICASSP 2014, in librosa; torchfcpe; swift-f0.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np
import soxr
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ..errors import ParameterError, TooShortError, check_choice, check_number, check_whole
from ..features import check_sound

METHODS = ("autocorrelation", "pyin", "torchfcpe", "swift-f0")
RANGE = (60.0, 1400.0)  # Hz that are searched
MODEL_HIGHEST = 1100.0  # Hz, the end of the published model's pitch ids
CONTEXT = 1.0  # seconds of sound around a piece, after which its pitch is that of the whole

# Boersma's settings, as tried on synthetic and real song; costs are per 10 ms.
CANDIDATES, VOICING, SILENCE, OCTAVE_COST, JUMP_COST, VOICING_COST = 15, 0.45, 0.03, 0.01, 0.35, 0.14
TONE = 0.97  # correlation of a tone above the range; a formant there has less
# Of the RMS of loud frames; at -25 dB a soft "i" is lost, and reverberation has 6 % fewer voiced frames.
GATE = 10 ** (-30 / 20)
ANALYSIS_RATE = 16000  # Hz, about
_FRAMES = 256  # in memory at once: they stay in the processor's cache
_SILENT = 1e-6  # a peak below it is digital silence

Sound = Float[Tensor, " samples"] | Iterable[Float[Tensor, " samples"]]  # whole, or its pieces


@dataclass(frozen=True)
class Level:
    """The peak and RMS of the loud parts of a sound, which silence is measured against."""

    peak: float
    rms: float


@dataclass(frozen=True)
class Pitch:
    """Pitch of T frames; `hertz` is continuous through unvoiced frames, and 0 if nothing is voiced."""

    hertz: Float[Tensor, " frames"]
    voiced: Bool[Tensor, " frames"]  # the pitch was measured
    times: Float64[Tensor, " frames"]  # seconds; the centres of the frames
    above: Bool[Tensor, " frames"]  # voiced above 1100 Hz, where the published model's pitch ids end
    clipped: Bool[Tensor, " frames"]  # voiced above the searched range: `hertz` is its upper end
    below: int  # frames below the range, such as hum; they count as unvoiced
    octave: Bool[Tensor, " frames"] | None  # the cross-check differs by more than 100 cents; None without one
    method: str
    range: tuple[float | int, float | int]  # Hz that were searched
    level: Level

    def __len__(self) -> int:
        return len(self.hertz)

    @property
    def median(self) -> float:
        """Median of the voiced frames in Hz; 0 if nothing is voiced."""
        return float(self.hertz[self.voiced].median()) if self.voiced.any() else 0.0

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about unusual frames; none if all is well."""
        of, (low, high), found = f"of {int(self.voiced.sum())} voiced frames", self.range, []
        if not self.voiced.any():
            found.append("No frame is voiced: silence, noise or whisper. The pitch is 0 everywhere.")
        if count := int(self.above.sum()):
            ids = "the end of the published model's pitch ids; it sings them as that note"
            found.append(f"{count} {of} lie above {MODEL_HIGHEST:g} Hz, {ids}.")
        if count := int(self.clipped.sum()):
            found.append(f"{count} {of} lie above {high:g} Hz and were clipped to it.")
        if self.below:
            advice = "For a very low voice give lowest=40."
            found.append(f"{self.below} frames below {low:g} Hz count as unvoiced. {advice}")
        if self.octave is not None and (count := int(self.octave.sum())):
            found.append(f"In {count} {of} two estimators differ by more than 100 cents.")
        return tuple(found)


def pitch(
    waveform: Float[Tensor, " samples"], rate: int, hop_length: int = 512, method: str = "autocorrelation", *,
    check: str | None = None, lowest: float | int = RANGE[0], highest: float | int = RANGE[1],
    level: Level | None = None,
) -> Pitch:  # fmt: skip
    """Pitch and voicing of an isolated voice, at the centres of the mel frames, `(k + 0.5) * hop_length / rate` s.

    Memory does not grow with the length, apart from the result and 150 bytes a frame. A long sound may be taken in
    pieces: cut at multiples of `hop_length`, with `CONTEXT` seconds more on both sides and the `level` of the whole, a
    piece's inner frames are those of the whole. Join the pieces, then fill rests that are longer than the context by
    `fill_unvoiced`.

    Args:
        waveform: mono, in [-1, 1]; one voice alone, as an accompaniment would be followed too.
        method: "autocorrelation" (Boersma 1993), "pyin", or, where installed, "torchfcpe" and "swift-f0".
        check: another method, "pyin" to find octave errors: `octave` is set where it differs by more than 100 cents.
        lowest: Hz; what is lower counts as unvoiced.
        highest: Hz; what is higher is clipped to it.

    Raises:
        ParameterError: stereo, integers or NaN, or a method whose package is missing.
        TooShortError: less than a hop.
    """
    check_whole("rate", rate, 4000, 1_000_000)
    check_whole("hop_length", hop_length, 1)
    check_choice("method", method, METHODS)
    check_choice("check", check, [None, *METHODS])
    check_number("lowest", lowest, 20, 500)
    check_number("highest", highest, 2 * lowest, max(RANGE[1], rate / 8))
    level = sound_level(waveform, rate) if level is None else level
    frames = len(waveform) // hop_length
    if not frames:
        found, expected = f"{len(waveform)} samples", f"at least {hop_length}, one hop"
        raise TooShortError("waveform", found, expected, "Give a longer clip, or append silence.")
    samples, device = waveform.detach().float().cpu().numpy(), waveform.device
    take = _Take(samples, rate, hop_length, frames, float(lowest), float(highest), level)
    found, octave = torch.from_numpy(take.estimated(method)).to(device), None
    voiced = found >= lowest
    if check is not None:
        other = torch.from_numpy(take.estimated(check)).to(device)
        apart = (other.clamp(min=1) / found.clamp(min=1)).log2().abs() > 100 / 1200
        octave = voiced & (found <= highest) & (other >= lowest) & apart
    hertz = fill_unvoiced(found.clamp(max=highest).float(), voiced)
    times = (torch.arange(frames, dtype=torch.float64, device=device) + 0.5) * hop_length / rate
    above, clipped, below = found > MODEL_HIGHEST, found > highest, int(((found > 0) & ~voiced).sum())
    return Pitch(hertz, voiced, times, above, clipped, below, octave, method, (lowest, highest), level)


def fill_unvoiced(hertz: Float[Tensor, " frames"], voiced: Bool[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """Interpolate unvoiced frames in log2 between voiced ones, and hold the ends; 0 if nothing is voiced."""
    if not voiced.any():
        return torch.zeros_like(hertz)
    octaves = hertz[voiced].double().log2().cpu().numpy()
    filled = np.exp2(np.interp(np.arange(len(hertz)), voiced.nonzero()[:, 0].cpu().numpy(), octaves))
    return torch.where(voiced, hertz, torch.from_numpy(filled).to(hertz))


def sound_level(waveform: Sound, rate: int) -> Level:
    """Measure the level of a sound, or of all its pieces.

    The 99th percentile of the peaks and the 95th of the RMS in 20 ms, so that a click does not count; without offset.
    """
    peaks, rms, _ = block_levels(waveform, max(1, rate // 50))
    return Level(float(np.percentile(peaks, 99)), float(np.percentile(rms, 95))) if len(peaks) else Level(0.0, 0.0)


def block_levels(waveform: Sound, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Half the range, and the deviation, of every `size` samples (the last may have fewer), and the number of samples.

    Checks the sound, in pieces of constant memory.
    """
    levels, rest, samples = [np.zeros((2, 0))], torch.zeros(0), 0
    for piece in [waveform] if isinstance(waveform, Tensor | np.ndarray) else waveform:
        check_sound(piece[:0])
        if piece.ndim != 1:
            advice = "Average the channels first: waveform.mean(dim=0)."
            raise ParameterError("waveform", f"shape {tuple(piece.shape)}", "mono, (samples,)", advice)
        for part in piece.detach().split(size * 2048):
            check_sound(part)
            samples += len(part)
            part = torch.cat([rest, part.float().cpu()])
            whole = len(part) // size * size
            if whole:
                levels.append(_levels(part[:whole].reshape(-1, size)))
            rest = part[whole:]
    if len(rest):
        levels.append(_levels(rest[None]))
    peaks, deviations = np.concatenate(levels, axis=1)
    return peaks, deviations, samples


def _levels(rows: Tensor) -> np.ndarray:
    return torch.stack([(rows.amax(1) - rows.amin(1)) / 2, rows.std(1, correction=0)]).double().numpy()


@dataclass(frozen=True)
class _Take:
    """A sound and the settings of its analysis, at about 16 kHz, where a hop is a whole number of samples."""

    samples: np.ndarray
    rate: int
    hop: int
    frames: int
    lowest: float
    highest: float
    level: Level

    @property
    def step(self) -> int:
        return max(1, round(self.hop * ANALYSIS_RATE / self.rate))

    @property
    def analysis_rate(self) -> float:
        return self.rate * self.step / self.hop

    def estimated(self, method: str) -> np.ndarray:
        """Hz of each frame, 0 where it is unvoiced; not clipped."""
        if self.level.peak < _SILENT:
            return np.zeros(self.frames)
        if method == "autocorrelation":
            return _best_path(self, *_candidates(self))
        found = {"pyin": _pyin, "torchfcpe": _fcpe, "swift-f0": _swift}[method](self)
        for first, last, ratio, _, rms in _correlations(self):
            found[first:last][rms < GATE * self.level.rms] = 0
            if method == "pyin":
                found[first:last] = _refined(found[first:last], ratio, 2 * self.analysis_rate)
        return found

    def blocks(self, size: int, seconds: float, to_rate: float | int) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Blocks of frames with context: first, last, hops before the first, samples at another rate."""
        around = math.ceil(seconds * self.rate / self.hop)
        for first in range(0, self.frames, size):
            last = min(self.frames, first + size)
            start = (first - around) * self.hop
            sound = np.pad(self.samples[max(0, start) : (last + around) * self.hop], (max(0, -start), 0))
            yield first, last, around, soxr.resample(sound, self.rate, to_rate) if to_rate != self.rate else sound


def _correlations(take: _Take) -> Iterator[tuple[int, int, Tensor, np.ndarray, np.ndarray]]:
    """Blocks of frames: first, last, normalised autocorrelation at half samples, peaks and RMS."""
    step, rate = take.step, take.analysis_rate
    length = 2 * round(1.5 / take.lowest * rate) + 1 - step % 2  # of three periods, symmetric around the hop's centre
    longest = math.ceil(1.25 * rate / take.lowest)
    window = torch.hann_window(length + 2, periodic=False)[1:-1]
    half = round(rate / take.lowest / 2)
    near = slice(length // 2 - half, length // 2 + half + 1)  # a longest period, in which Boersma looks for the peak
    for first, last, around, sound in take.blocks(_FRAMES, (length / 2 + 200) / rate, rate):
        count, start = last - first, ((2 * around + 1) * step + 1 - length) // 2
        sound = torch.from_numpy(np.pad(sound[start:], (0, length + count * step)))
        frames, weights = sound.unfold(0, length, step)[:count], window[None]
        if first < around or last + around > take.frames:  # only what lies inside of the sound counts
            places = torch.arange(length) + start + (torch.arange(count)[:, None] + first - around) * step
            inside = (places >= 0) & (places < len(take.samples) * step / take.hop)
            frames = (frames - (frames * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True)) * inside
            weights = window * inside
        else:
            frames = frames - frames.mean(1, keepdim=True)
        power, norm = _autocorrelation(frames * window, longest), _autocorrelation(weights, longest)
        rms = (power[:, 0] / norm[:, 0]).clamp(min=0).sqrt()
        norm = norm / norm[:, :1]
        norm = norm.reciprocal().where(norm > 0.1, norm.new_zeros(()))  # else too little of the frame overlaps
        ratio = power / power[:, :1].clamp(min=1e-20) * norm
        yield first, last, ratio, frames[:, near].abs().amax(1).numpy(), rms.numpy()


def _autocorrelation(frames: Tensor, longest: int) -> Tensor:
    """Autocorrelation at lags 0, 0.5, 1, ...: the power spectrum is padded with zeros."""
    size = 1 << (frames.shape[1] + longest).bit_length()
    spectrum = torch.fft.rfft(frames, size)
    return torch.fft.irfft(spectrum.real.square() + spectrum.imag.square(), 2 * size)[:, : 2 * longest + 2]


def _vertex(ratio: Tensor, lags: Tensor) -> tuple[Tensor, Tensor]:
    """Place and height of the parabolas through lags and their neighbours."""
    before, here, after = (ratio.gather(1, lags + by) for by in (-1, 0, 1))
    offset = (0.5 * (after - before) / (2 * here - before - after).clamp(min=1e-9)).clamp(-1, 1)
    return lags + offset, here + 0.25 * (after - before) * offset


def _candidates(take: _Take) -> tuple[np.ndarray, np.ndarray]:
    """Hz and strength of each frame's 15 candidates and of "unvoiced" (0 Hz), both `(T, 16)`."""
    hertz = np.zeros((take.frames, CANDIDATES + 1), np.float32)
    strength = np.zeros_like(hertz)
    rate = 2 * take.analysis_rate
    # A tone above the range, but no hiss, is searched an octave up: else it would be found an octave down.
    shortest = max(2, int(rate / (2 * take.highest)))
    for first, last, ratio, peaks, rms in _correlations(take):
        inner = ratio[:, shortest:-1]
        is_peak = (inner > ratio[:, shortest - 1 : -2]) & (inner >= ratio[:, shortest + 1 :]) & (inner > VOICING / 2)
        bonus = OCTAVE_COST * torch.log2(rate / take.lowest / torch.arange(shortest, ratio.shape[1] - 1))
        score, places = torch.where(is_peak, inner + bonus, -torch.inf).topk(CANDIDATES, dim=1)
        lag, height = _vertex(ratio, places + shortest)
        hertz[first:last, :-1] = rate / lag
        usable = score.isfinite() & ((rate / lag <= take.highest) | (height > TONE))
        height = torch.where(height > 1, 1 / height, height) + OCTAVE_COST * torch.log2(rate / lag / take.lowest)
        strength[first:last, :-1] = torch.where(usable, height, -1e6)
        silence = np.maximum(0, 2 - peaks / take.level.peak * (1 + VOICING) / SILENCE)
        strength[first:last, -1] = np.where(rms < GATE * take.level.rms, 10, VOICING + silence)
    return hertz, strength


def _best_path(take: _Take, hertz: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Hz along the path of highest strength less the costs of its steps (Viterbi)."""
    per_step = 0.01 * take.rate / take.hop
    octaves = np.log2(np.maximum(hertz, 1))
    back = np.zeros(hertz.shape, np.int8)
    columns, score = np.arange(CANDIDATES + 1), strength[0].astype(np.float64)
    for first in range(1, take.frames, _FRAMES):
        last = min(take.frames, first + _FRAMES)
        cost = JUMP_COST * per_step * np.abs(octaves[first - 1 : last - 1, :, None] - octaves[first:last, None])
        cost[:, -1] = cost[:, :, -1] = VOICING_COST * per_step
        cost[:, -1, -1] = 0
        for k in range(first, last):
            total = score[:, None] - cost[k - first]
            back[k] = total.argmax(0)
            score = total[back[k], columns] + strength[k]
    path = np.full(take.frames, score.argmax())
    for k in range(take.frames - 1, 0, -1):
        path[k - 1] = back[k, path[k]]
    return hertz[np.arange(take.frames), path].astype(np.float64)


def _pyin(take: _Take) -> np.ndarray:
    from librosa import pyin

    found, rate, step = np.zeros(take.frames), take.analysis_rate, take.step
    for first, last, around, sound in take.blocks(4096, CONTEXT, rate):
        sound = np.pad(sound[step // 2 :], (0, 1024))  # librosa's frame k is centred at k hops
        how = {"sr": rate, "frame_length": 1024, "hop_length": step, "resolution": 0.2}
        hertz, voiced, _ = pyin(sound, fmin=40, fmax=take.highest, **how)
        found[first:last] = np.where(voiced, hertz, 0)[around : around + last - first]
    return found


def _refined(hertz: np.ndarray, ratio: Tensor, rate: float) -> np.ndarray:
    """The nearest peak of the autocorrelation within 6 % of the period, where there is one."""
    period = torch.from_numpy(rate / np.maximum(hertz, 1))[:, None]
    lags = torch.arange(ratio.shape[1])
    near = ((lags - period).abs() <= 0.06 * period) & (lags > 0) & (lags < len(lags) - 1)
    lag, _ = _vertex(ratio, torch.where(near, ratio, -torch.inf).argmax(1, keepdim=True).clamp(1, len(lags) - 2))
    return np.where((hertz > 0) & near.any(1).numpy(), rate / lag[:, 0].clamp(min=1).numpy(), hertz)


def _fcpe(take: _Take) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its settings
        model = _package("torchfcpe", "torchfcpe").spawn_bundled_infer_model("cpu")

    def infer(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        options = {"decoder_mode": "local_argmax", "threshold": 0.05, "f0_min": 40, "f0_max": take.highest}
        with torch.no_grad():
            hertz = model.infer(torch.from_numpy(sound)[None, :, None], sr=ANALYSIS_RATE, interp_uv=False, **options)
        return 0.01 * np.arange(hertz.shape[1]), hertz.flatten().numpy()

    return _by_network(take, infer)


def _swift(take: _Take) -> np.ndarray:
    network = _package("swift_f0", "'swift-f0>=0.3'").SwiftF0(threads=1)

    def infer(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = network.detect(sound, ANALYSIS_RATE, fmax=take.highest)
        return result.timestamps, np.where(result.confidence >= 0.5, result.pitch_hz, 0)

    return _by_network(take, infer)


def _package(name: str, install: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        found = f"{name} cannot be imported ({error})"
        raise ParameterError("method", found, "an installed package", f"Run: pip install {install}") from error


def _by_network(take: _Take, infer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Read a network's times (s) and Hz at the centres of the frames, from sound at one level."""
    found = np.zeros(take.frames)
    for first, last, around, sound in take.blocks(2048, CONTEXT, ANALYSIS_RATE):
        times, hertz = infer((sound * np.float32(0.5 / take.level.peak)).clip(-1, 1))
        centres = (np.arange(last - first) + around + 0.5) * take.hop / take.rate
        nearest = np.searchsorted((times[1:] + times[:-1]) / 2, centres)
        if (hertz > 0).any():
            octaves = np.interp(centres, times[hertz > 0], np.log2(hertz[hertz > 0]))
            found[first:last] = np.where(hertz[nearest] > 0, np.exp2(octaves), 0)
    return found
