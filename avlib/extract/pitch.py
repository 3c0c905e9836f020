"""Pitch and voicing of an isolated voice, one value per mel frame.

`pitch` takes mono sound of any rate and length. All methods answer at the centres of the mel frames,
`(k + 0.5) * hop_length / rate` s, and say voicing apart from pitch.

Sources: Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound", 1993; Mauch and Dixon, "pYIN", ICASSP 2014, in librosa; torchfcpe; swift-f0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ..errors import ParameterError, TooShortError, check_choice, check_number, check_whole
from ..features import check_sound

METHODS = ("autocorrelation", "pyin", "torchfcpe", "swift-f0")
RANGE = (60.0, 1400.0)  # Hz that are searched
MODEL_HIGHEST = 1100.0  # Hz, the end of the published model's pitch ids
CONTEXT = 1.0  # seconds of sound around a piece, after which its pitch is that of the whole

# Boersma's settings, as tried on synthetic and real song; costs are per 10 ms
CANDIDATES, VOICING, SILENCE, OCTAVE_COST, JUMP_COST, VOICING_COST = 15, 0.45, 0.03, 0.01, 0.35, 0.14
GATE = -25.0  # dB below the loud frames; quieter ones are reverberation or breath
ANALYSIS_RATE = 16000  # Hz, about
_FRAMES = 1024  # in memory at once
_SILENT = 1e-6  # a peak below it is digital silence


@dataclass(frozen=True)
class Level:
    """The loudness that silence is measured against: `peak` and `rms` of the loud parts, `offset` from zero."""

    peak: float
    rms: float
    offset: float = 0.0


@dataclass(frozen=True)
class Pitch:
    """Pitch of T frames.

    Args:
        hertz: `(T,)`; continuous through unvoiced frames (interpolated in log2, ends held), 0 if nothing is voiced.
        voiced: `(T,)`; the frames whose pitch was measured.
        times: `(T,)`, seconds; the centres of the frames.
        above: `(T,)`; voiced above 1100 Hz, where the published model's pitch ids end.
        clipped: `(T,)`; voiced above the searched range, `hertz` is its upper limit.
        below: number of frames below the range, which count as unvoiced (hum).
        octave: `(T,)`; frames where the cross-check differs by more than 100 cents, None without one.
        method: that measured them.
        range: Hz, as searched.
        level: of the sound.
    """

    hertz: Float[Tensor, " frames"]
    voiced: Bool[Tensor, " frames"]
    times: Float64[Tensor, " frames"]
    above: Bool[Tensor, " frames"]
    clipped: Bool[Tensor, " frames"]
    below: int
    octave: Bool[Tensor, " frames"] | None
    method: str
    range: tuple[float | int, float | int]
    level: Level

    def __len__(self) -> int:
        return len(self.hertz)

    @property
    def median(self) -> float:
        """Median of the voiced frames in Hz; 0 if nothing is voiced."""
        return float(self.hertz[self.voiced].median()) if self.voiced.any() else 0.0

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what a reader must know; none if all is well."""
        total, (low, high), said = int(self.voiced.sum()), self.range, []
        if not total:
            said.append("No frame is voiced: silence, noise or whisper. The pitch is 0 everywhere.")
        if count := int(self.above.sum()):
            said.append(
                f"{count} of {total} voiced frames lie above {MODEL_HIGHEST:g} Hz, the end of the published "
                "model's pitch ids; it sings them as that note."
            )
        if count := int(self.clipped.sum()):
            said.append(f"{count} of {total} voiced frames lie above {high:g} Hz and were clipped to it.")
        if self.below:
            said.append(
                f"{self.below} frames lie below {low:g} Hz and count as unvoiced. For a very low voice give lowest=40."
            )
        if self.octave is not None and (count := int(self.octave.sum())):
            said.append(f"In {count} of {total} voiced frames the two methods differ by more than 100 cents.")
        return tuple(said)


def pitch(
    waveform: Float[Tensor, " samples"],
    rate: int,
    hop_length: int = 512,
    method: str = "autocorrelation",
    *,
    check: str | None = None,
    lowest: float | int = RANGE[0],
    highest: float | int = RANGE[1],
    level: Level | None = None,
) -> Pitch:
    """Pitch and voicing of an isolated voice, at the centres of the mel frames.

    Memory does not grow with the length, apart from the result and 130 bytes a frame. A long file may be taken in
    pieces too: cut at multiples of `hop_length`, with `CONTEXT` seconds more on both sides, and with the `level` of the
    whole (`sound_level`), the inner frames equal those of the whole.

    Args:
        waveform: `(samples,)`, mono, in [-1, 1]. One voice alone: an accompaniment is followed as well.
        rate: in Hz.
        hop_length: samples from one frame to the next.
        method: "autocorrelation" (Boersma 1993), "pyin", or, where they are installed, "torchfcpe" and "swift-f0".
        check: another method; where it differs by more than 100 cents `octave` is set. "pyin" finds octave errors.
        lowest: Hz. What is lower counts as unvoiced.
        highest: Hz. What is higher is clipped to it.
        level: see `sound_level`; None measures it.

    Returns:
        Pitch of `samples // hop_length` frames, frame k at `(k + 0.5) * hop_length / rate` s, on the waveform's device.

    Raises:
        ParameterError: stereo, integers or NaN, an unknown method, or one whose package is missing.
        TooShortError: less than a hop.
    """
    samples, frames = _checked(waveform, rate, hop_length)
    check_choice("method", method, METHODS)
    if check is not None:
        check_choice("check", check, [name for name in METHODS if name != method])
    check_number("lowest", lowest, 20, 500)
    check_number("highest", highest, 2 * lowest, rate / 4)
    level = sound_level(waveform, rate) if level is None else level
    take = _Take(samples, rate, hop_length, frames, float(lowest), float(highest), level)
    found = _estimate(method, take)
    voiced = found >= lowest
    octave = None
    if check is not None:
        other = _estimate(check, take)
        both = voiced & (other >= lowest) & (found <= highest)
        ratio = np.divide(other, found, out=np.ones_like(found), where=both)
        octave = np.abs(np.log2(ratio)) > 100 / 1200
    hertz = fill_unvoiced(torch.from_numpy(found.clip(0, highest)).float(), torch.from_numpy(voiced))
    device = waveform.device
    return Pitch(
        hertz.to(device),
        torch.from_numpy(voiced).to(device),
        ((torch.arange(frames, dtype=torch.float64) + 0.5) * hop_length / rate).to(device),
        torch.from_numpy(voiced & (found > MODEL_HIGHEST)).to(device),
        torch.from_numpy(voiced & (found > highest)).to(device),
        int(((found > 0) & ~voiced).sum()),
        None if octave is None else torch.from_numpy(octave).to(device),
        method,
        (lowest, highest),
        level,
    )


def fill_unvoiced(hertz: Float[Tensor, " frames"], voiced: Bool[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """Interpolate unvoiced frames in log2 between voiced ones, and hold the ends; 0 if nothing is voiced."""
    if not voiced.any():
        return torch.zeros_like(hertz)
    places = voiced.nonzero()[:, 0].cpu().numpy()
    known = hertz[voiced].double().log2().cpu().numpy()
    filled = torch.from_numpy(np.exp2(np.interp(np.arange(len(hertz)), places, known)))
    return torch.where(voiced, hertz, filled.to(hertz))


def sound_level(waveform: Float[Tensor, " samples"] | Iterable[Float[Tensor, " samples"]], rate: int) -> Level:
    """Measure the loudness of the loud parts of a sound, or of all its pieces.

    The 99th percentile of the peaks and the 95th of the RMS of 10 ms, so that a click does not count.
    """
    size = max(1, rate // 100)
    blocks = []
    for piece in [waveform] if isinstance(waveform, Tensor) else waveform:
        for part in piece.split(size * 4096):
            check_sound(part)
            whole = part[: max(size, len(part) // size * size)].detach().float().cpu()
            rows = whole.reshape(-1, min(size, len(whole))) if len(whole) else whole[None, :0]
            if rows.numel():
                rows = rows.double()
                blocks.append(torch.stack([rows.mean(1), rows.square().mean(1), rows.amin(1), rows.amax(1)]))
    if not blocks:
        raise TooShortError("waveform", "no samples", "some sound")
    mean, square, low, high = torch.cat(blocks, dim=1).numpy()
    offset = mean.mean()
    rms = np.sqrt((square - 2 * offset * mean + offset**2).clip(0))
    peak = np.maximum(high - offset, offset - low)
    return Level(float(np.percentile(peak, 99)), float(np.percentile(rms, 95)), float(offset))


def _checked(waveform: Tensor, rate: int, hop_length: int) -> tuple[np.ndarray, int]:
    """The samples in float32, and the number of frames."""
    check_whole("rate", rate, 1000, 1_000_000)
    check_whole("hop_length", hop_length, 1)
    if isinstance(waveform, Tensor) and waveform.ndim != 1:
        advice = "Average the channels first: waveform.mean(dim=0)."
        raise ParameterError("waveform", f"shape {tuple(waveform.shape)}", "mono, (samples,)", advice)
    check_sound(waveform[:0])
    frames = len(waveform) // hop_length
    if not frames:
        found, expected = f"{len(waveform)} samples", f"at least {hop_length}, one hop"
        raise TooShortError("waveform", found, expected, "Give a longer clip, or append silence.")
    for part in waveform.split(1 << 20):
        check_sound(part)
    return waveform.detach().float().cpu().numpy(), frames


@dataclass(frozen=True)
class _Take:
    """A sound, and how it is analysed: resampled so that a hop is a whole number of samples."""

    samples: np.ndarray
    rate: int
    hop: int
    frames: int
    lowest: float
    highest: float
    level: Level

    @property
    def step(self) -> int:
        """Samples of a hop at the rate of the analysis."""
        return max(1, round(self.hop * ANALYSIS_RATE / self.rate))

    @property
    def analysis_rate(self) -> float:
        return self.rate * self.step / self.hop

    def cut(self, first: int, last: int) -> np.ndarray:
        """The samples of frames `first` to `last` (exclusive), with zeros outside of the sound."""
        start, stop = first * self.hop, last * self.hop
        inside = self.samples[max(0, start) : max(0, stop)]
        return np.pad(inside, (max(0, -start), 0))[: stop - start] if start < 0 else inside

    def blocks(self, size: int, seconds: float) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Blocks of frames: first, last, the hops of context before them, and their samples."""
        around = math.ceil(seconds * self.rate / self.hop)
        for first in range(0, self.frames, size):
            last = min(self.frames, first + size)
            yield first, last, around, self.cut(first - around, last + around)


def _estimate(method: str, take: _Take) -> np.ndarray:
    """Hz of each frame, 0 where it is unvoiced; not yet clipped."""
    if take.level.peak < _SILENT:
        return np.zeros(take.frames)
    return {"autocorrelation": _boersma, "pyin": _pyin, "torchfcpe": _fcpe, "swift-f0": _swift}[method](take)


# Autocorrelation


def _correlations(take: _Take) -> Iterator[tuple[int, int, Tensor, np.ndarray, np.ndarray, float]]:
    """Normalised autocorrelation of each block's frames, at half samples, with peaks, RMS and the lags' rate.

    The spectrum of the power is padded with zeros, which gives the values between two lags.
    """
    step, rate = take.step, take.analysis_rate
    length = 2 * round(1.5 / take.lowest * rate) + 1 - step % 2  # symmetric around the centre of a hop
    longest = math.ceil(1.25 * rate / take.lowest)
    size = 1 << (length + longest).bit_length()
    window = torch.hann_window(length + 2, periodic=False)[1:-1]
    # Half of the longest period around the centre, in which Boersma looks for the peak
    near = slice(max(0, length // 2 - round(rate / take.lowest / 2)), length // 2 + round(rate / take.lowest / 2) + 1)
    for first, last, around, sound in take.blocks(_FRAMES, (length / 2 + 200) / rate):
        sound = _resampled(sound, take.hop, step)
        start = (
            (2 * around + 1) * step // 2 - length // 2 if length % 2 else ((2 * around + 1) * step - length + 1) // 2
        )
        count = last - first
        sound = np.pad(sound, (0, max(0, start + (count - 1) * step + length - len(sound))))
        frames = torch.from_numpy(sound[start:]).unfold(0, length, step)[:count]  # (count, length)
        times = torch.arange(length) + start + (torch.arange(count)[:, None] + first - around) * step
        inside = (times >= 0) & (times < len(take.samples) * step / take.hop)
        weights = window * inside
        frames = frames - (frames * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True)
        powers = _autocorrelation(frames * weights, size, longest)
        full = inside.all(1)
        norms = _autocorrelation(window[None], size, longest).expand(count, -1)
        if not full.all():
            norms = norms.clone()
            norms[~full] = _autocorrelation(weights[~full], size, longest)
        rms = (powers[:, 0].clamp(min=0) / norms[:, 0]).sqrt()
        shape = norms / norms[:, :1]
        ratio = powers / powers[:, :1].clamp(min=1e-20) / shape.clamp(min=0.05)
        ratio = ratio.where(shape > 0.1, ratio.new_zeros(()))  # too little of the frame overlaps
        peaks = (frames[:, near] * inside[:, near]).abs().amax(1)
        yield first, last, ratio, peaks.numpy(), rms.numpy(), 2 * rate


def _autocorrelation(frames: Tensor, size: int, longest: int) -> Tensor:
    spectrum = torch.fft.rfft(frames, size)
    return torch.fft.irfft(spectrum.real.square() + spectrum.imag.square(), 2 * size)[:, : 2 * longest + 2]


def _resampled(sound: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    import soxr

    return sound if from_rate == to_rate else soxr.resample(sound, from_rate, to_rate)


def _vertex(ratio: Tensor, lags: Tensor) -> tuple[Tensor, Tensor]:
    """Place and height of the parabola through each lag and its neighbours."""
    before, here, after = (ratio.gather(1, lags + by) for by in (-1, 0, 1))
    bend = (2 * here - before - after).clamp(min=1e-9)
    offset = (0.5 * (after - before) / bend).clamp(-1, 1)
    return lags + offset, here + 0.25 * (after - before) * offset


def _candidates(take: _Take) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hz and strength of each frame's candidates, `(T, 15)`, and the strength of "unvoiced", `(T,)`."""
    hertz = np.zeros((take.frames, CANDIDATES), np.float32)
    strength = np.full((take.frames, CANDIDATES), -np.inf, np.float32)
    unvoiced = np.zeros(take.frames, np.float32)
    for first, last, ratio, peaks, rms, rate in _correlations(take):
        # An octave above the range is searched too: a note there would else be found an octave down.
        shortest = max(2, int(rate / (2 * take.highest)))
        inner = ratio[:, shortest:-1]
        is_peak = (inner > ratio[:, shortest - 1 : -2]) & (inner >= ratio[:, shortest + 1 :]) & (inner > VOICING / 2)
        lags = torch.arange(shortest, ratio.shape[1] - 1)
        bonus = OCTAVE_COST * torch.log2(rate / lags / take.lowest)
        scores, places = torch.where(is_peak, inner + bonus, -torch.inf).topk(CANDIDATES, dim=1)
        lag, height = _vertex(ratio, places + shortest)
        height = torch.where(height > 1, 1 / height, height)
        found = rate / lag
        hertz[first:last] = found
        score = height + OCTAVE_COST * torch.log2(found / take.lowest)
        strength[first:last] = torch.where(scores.isfinite(), score, -torch.inf)
        quiet = peaks / take.level.peak / (SILENCE / (1 + VOICING))
        unvoiced[first:last] = VOICING + np.maximum(0, 2 - quiet)
        unvoiced[first:last][rms < take.level.rms * 10 ** (GATE / 20)] = 10  # whatever is periodic in it
    return hertz, strength, unvoiced


def _boersma(take: _Take) -> np.ndarray:
    """The path of highest strength through the candidates."""
    hertz, strength, unvoiced = _candidates(take)
    per_step = 0.01 * take.rate / take.hop  # the costs are meant for steps of 10 ms
    strength = np.concatenate([np.maximum(strength, -1e6), unvoiced[:, None]], axis=1)
    octaves = np.log2(np.maximum(hertz, 1))
    states = CANDIDATES + 1
    back = np.zeros((take.frames, states), np.int8)
    columns, score = np.arange(states), strength[0].astype(np.float64)
    for first in range(1, take.frames, _FRAMES):
        last = min(take.frames, first + _FRAMES)
        cost = np.full((last - first, states, states), VOICING_COST * per_step, np.float32)
        jump = np.abs(octaves[first - 1 : last - 1, :, None] - octaves[first:last, None, :])
        cost[:, :-1, :-1] = JUMP_COST * per_step * jump
        cost[:, -1, -1] = 0
        for k in range(first, last):
            total = score[:, None] - cost[k - first]
            back[k] = total.argmax(0)
            score = total[back[k], columns] + strength[k]
    path = np.empty(take.frames, np.int64)
    path[-1] = score.argmax()
    for k in range(take.frames - 1, 0, -1):
        path[k - 1] = back[k, path[k]]
    chosen = np.concatenate([hertz, np.zeros_like(hertz[:, :1])], axis=1)
    return chosen[np.arange(take.frames), path].astype(np.float64)


# The others


def _pyin(take: _Take) -> np.ndarray:
    """Voicing of pyin, and its pitch moved to the nearest peak of the autocorrelation."""
    from librosa import pyin

    found, step = np.zeros(take.frames), take.step
    for first, last, around, sound in take.blocks(4 * _FRAMES, CONTEXT):
        sound = _resampled(sound, take.hop, step)[step // 2 :]  # librosa's frames are centred at k hops
        sound = np.pad(sound, (0, max(0, 1024 - len(sound))))
        hertz, voiced, _ = pyin(
            sound, fmin=40.0, fmax=take.highest, sr=take.analysis_rate, frame_length=1024, hop_length=step,
            resolution=0.2, fill_na=0.0,
        )  # fmt: skip
        found[first:last] = np.where(voiced, hertz, 0)[around : around + last - first]
    for first, last, ratio, _, rms, rate in _correlations(take):
        block = found[first:last]
        block[rms < take.level.rms * 10 ** (GATE / 20)] = 0
        period = torch.from_numpy(rate / np.maximum(block, 1))[:, None]
        lags = torch.arange(ratio.shape[1])
        near = ((lags - period).abs() <= 0.06 * period) & (lags > 1) & (lags < ratio.shape[1] - 1)
        usable = near.any(1).numpy() & (block >= take.lowest)
        lag, _ = _vertex(ratio, torch.where(near, ratio, -torch.inf).argmax(1, keepdim=True).clamp(1, len(lags) - 2))
        block[usable] = rate / lag[:, 0].numpy()[usable]
    return found


def _fcpe(take: _Take) -> np.ndarray:
    model = _package("torchfcpe", "torchfcpe").spawn_bundled_infer_model("cpu")

    def infer(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            hertz = model.infer(
                torch.from_numpy(sound)[None, :, None], sr=ANALYSIS_RATE, decoder_mode="local_argmax", threshold=0.05,
                f0_min=40, f0_max=take.highest, interp_uv=False,
            ).flatten().numpy()  # fmt: skip
        return np.arange(len(hertz)) * 0.01, hertz

    return _by_network(take, infer)


def _swift(take: _Take) -> np.ndarray:
    swift = _package("swift_f0", "swift-f0 onnxruntime").SwiftF0(
        confidence_threshold=0.5, fmin=max(46.875, take.lowest), fmax=take.highest
    )

    def infer(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = swift.detect_from_array(sound, ANALYSIS_RATE)
        return result.timestamps, np.where(result.voicing, result.pitch_hz, 0)

    return _by_network(take, infer)


def _package(name: str, install: str):
    try:
        return import_module(name)
    except ImportError as error:
        found = f"{name} cannot be imported ({error})"
        raise ParameterError("method", found, "an installed package", f"Run: pip install {install}") from error


def _by_network(take: _Take, infer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Read a network's pitch (times in s, Hz) at the centres of the frames, from sound at one level."""
    found = np.zeros(take.frames)
    for first, last, around, sound in take.blocks(2 * _FRAMES, CONTEXT):
        sound = ((sound - take.level.offset) * (0.5 / take.level.peak)).clip(-1, 1)
        times, hertz = infer(_resampled(sound, take.rate, ANALYSIS_RATE).astype(np.float32))
        centres = (np.arange(last - first) + around + 0.5) * take.hop / take.rate
        octaves = np.log2(np.maximum(hertz, 1))
        after = np.searchsorted(times, centres).clip(1, len(times) - 1)
        nearest = np.where(centres - times[after - 1] < times[after] - centres, after - 1, after)
        both = (hertz[after - 1] > 0) & (hertz[after] > 0) & (np.abs(octaves[after] - octaves[after - 1]) < 0.25)
        between = np.exp2(np.interp(centres, times, octaves))
        found[first:last] = np.where(both, between, hertz[nearest])
    return _gated(found, take)


def _gated(found: np.ndarray, take: _Take) -> np.ndarray:
    """Zero in frames that are far quieter than the loud ones."""
    for first, last, _, _, rms, _ in _correlations(take):
        found[first:last][rms < take.level.rms * 10 ** (GATE / 20)] = 0
    return found
