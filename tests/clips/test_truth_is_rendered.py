"""The truth, found again in the rendered arrays by means that know nothing of how they were made."""

from dataclasses import replace

import numpy as np
import pytest

from avlib import clips
from avlib.clips.drawing import HUES

RATE = 16000
each_kind = pytest.mark.parametrize("kind", clips.KINDS)


def mono(scene: clips.Scene, rate: int = RATE) -> np.ndarray:
    return scene.sound(rate).mean(0).astype(np.float64)


def novelty(waveform: np.ndarray) -> np.ndarray:
    """How many times more energy follows each sample than precedes it (log, 4 ms on both sides), in low and high."""
    span, total = RATE // 250, 0
    for order in (0, 1, 2):
        energy = np.diff(waveform, order, prepend=np.zeros(order)) ** 2
        energy = np.convolve(energy, np.hanning(span), "same")
        level = np.log(energy + 0.02 * np.sort(energy)[-200] + 1e-12)
        total = total + np.pad(level[span:] - level[:-span], (span // 2, span - span // 2))
    return total


def peak_frequency(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 17))
    frequencies = np.fft.rfftfreq(1 << 17, 1 / RATE)
    return float(frequencies[np.argmax(spectrum * (frequencies > 60))])


def bright(frame: np.ndarray) -> np.ndarray:
    """Where the picture is strongly coloured, which only the sounding thing is."""
    most, least = frame.max(-1).astype(int), frame.min(-1).astype(int)
    return (most - least > 60) & (most - least > 0.42 * most)


def coloured(scene: clips.Scene, time: float, side: int = 128) -> np.ndarray:
    """Where the picture depends on the hue."""
    dark, light = (replace(scene, hue=hue).frame(time, (side, side)).astype(int) for hue in (0.0, 1.0))
    return np.abs(dark - light).max(-1) > 40


def rank_correlation(first: list[float], second: list[float]) -> float:
    ranks = np.argsort(np.argsort([first, second], axis=1), axis=1)
    return float(np.corrcoef(ranks)[0, 1])


@each_kind
def test_pitch_is_the_strongest_frequency(kind):
    errors = []
    for seed in range(5):
        scene = clips.Scene(kind, seed, 4.0)
        waveform, truth = mono(scene), scene.truth
        ends = np.minimum((*truth.onsets[1:], 4.0), np.array(truth.onsets) + 0.3)
        for start, end, pitch in zip(truth.onsets, ends, truth.pitches, strict=True):
            if end - start > 0.1:
                note = waveform[round((start + 0.01) * RATE) : round(end * RATE)]
                errors.append(abs(peak_frequency(note) / pitch - 1))
    assert len(errors) > 20
    assert max(errors) < 0.02


@each_kind
def test_onsets_are_where_the_energy_rises(kind):
    errors, found, expected = [], 0, 0
    for seed in range(5):
        scene = clips.Scene(kind, seed, 6.0)
        rise = novelty(mono(scene))
        for onset in scene.truth.onsets:
            start = max(round((onset - 0.03) * RATE), 0)
            errors.append((start + int(np.argmax(rise[start : start + round(0.06 * RATE)]))) / RATE - onset)
        peaks = (rise[1:-1] > rise[:-2]) & (rise[1:-1] >= rise[2:]) & (rise[1:-1] > 4.5)
        times = np.flatnonzero(peaks) / RATE
        found += 1 + int(np.sum(np.diff(times) > 0.06))
        expected += len(scene.truth.onsets)
    assert abs(np.median(errors)) < 0.0025
    assert np.quantile(np.abs(errors), 0.95) < 0.006
    assert abs(found / expected - 1) < 0.1


@each_kind
def test_tempo_is_the_rhythm(kind):
    for seed in range(4):
        scene = clips.Scene(kind, seed, 30.0)
        onsets = scene.truth.onsets
        assert scene.tempo == 4**scene.rate
        assert (len(onsets) - 1) / (onsets[-1] - onsets[0]) == pytest.approx(scene.tempo, rel=0.1)


@each_kind
def test_brightness_and_decay_rise_with_the_hue(kind):
    scene = clips.Scene(kind, 3, 3.0, size=0.5, rate=0.0)
    centroids, lengths = [], []
    for hue in (0.0, 0.25, 0.5, 0.75, 1.0):
        waveform, onset = mono(replace(scene, hue=hue)), scene.truth.onsets[0]
        end = scene.truth.onsets[1] - 0.02
        note = waveform[round(onset * RATE) : round(end * RATE)]
        power = np.abs(np.fft.rfft(note)) ** 2
        centroids.append(float(power @ np.arange(len(power)) / power.sum()))
        energy = np.cumsum(note**2)
        lengths.append(float(np.searchsorted(energy, 0.9 * energy[-1])))
    assert centroids == sorted(centroids) and centroids[-1] > 1.03 * centroids[0]
    assert lengths == sorted(lengths) and lengths[-1] > 1.1 * lengths[0]
    assert replace(scene, hue=1.0).decay > 2.5 * replace(scene, hue=0.0).decay


@each_kind
def test_a_louder_onset_is_louder(kind):
    levels, loudness = [], []
    scene = clips.Scene(kind, 1, 12.0, rate=0.1)
    waveform, truth = mono(scene), scene.truth
    for onset, strength, pitch in zip(truth.onsets[:-1], truth.loudness, truth.pitches, strict=False):
        if pitch == scene.pitch:
            levels.append(float(np.abs(waveform[round(onset * RATE) :][: RATE // 8]).max()))
            loudness.append(strength)
    assert np.corrcoef(levels, loudness)[0, 1] > 0.9


@each_kind
def test_position_is_heard_and_seen(kind):
    heard, seen, true = [], [], []
    for seed in range(8):
        scene = clips.Scene(kind, seed, 3.0)
        onset = round(scene.truth.onsets[0] * RATE)
        left, right = np.sqrt(np.mean(scene.sound(RATE)[:, onset : onset + RATE // 20] ** 2, axis=1))
        heard.append((np.arctan2(right, left) / (np.pi / 2) - 0.08) / 0.84)
        columns = np.nonzero(bright(scene.frame(1.5, (128, 128))))[1]
        seen.append((columns.mean() / 128 - 0.2) / 0.6)
        true.append(scene.position)
    assert np.max(np.abs(np.subtract(heard, true))) < 0.1
    assert np.max(np.abs(np.subtract(seen, true))) < 0.2  # a bell swings, a drop falls at the side
    assert np.corrcoef(seen, true)[0, 1] > (0.9 if kind == "bell" else 0.97)


def test_first_channel_and_average_differ():
    scene = clips.Scene("bell", 0, 2.0, position=0.9)
    left, right = scene.sound(RATE)
    assert np.mean(left**2) < 0.3 * np.mean(((left + right) / 2) ** 2)


@each_kind
def test_size_is_seen_and_colour_tells_the_hue(kind):
    areas, sizes, hues, seen = [], [], [], []
    for seed in range(8):
        scene = clips.Scene(kind, seed, 3.0)
        areas.append(float(coloured(scene, 1.5).sum()))
        sizes.append(scene.size)
        frame = scene.frame(1.5, (128, 128))
        pixels = frame[bright(frame)] / 255
        ramp = np.array(
            [[np.interp(h, np.linspace(0, 1, 5), band) for band in np.transpose(HUES)] for h in np.linspace(0, 1, 41)]
        )
        chroma = np.median(pixels - pixels.mean(1, keepdims=True), axis=0)
        distance = np.linalg.norm(ramp - ramp.mean(1, keepdims=True) - chroma, axis=1)
        seen.append(float(np.argmin(distance)) / 40)
        hues.append(scene.hue)
    assert rank_correlation(areas, sizes) > (0.8 if kind == "rain" else 0.9)  # many drops are larger than few
    assert np.max(np.abs(np.subtract(seen, hues))) < 0.2


@each_kind
@pytest.mark.parametrize("name", ["size", "hue", "rate", "position"])
def test_each_attribute_shows_in_one_small_frame_and_in_the_sound(kind, name):
    """Also at the moment of an onset, when least of the rate is to be seen."""
    scene = clips.Scene(kind, 5, 3.0, position=0.4, size=0.5, hue=0.5, rate=0.5)
    low, high = replace(scene, **{name: 0.15}), replace(scene, **{name: 0.85})
    pictures = [each.frame(each.truth.onsets[0], (64, 64)).astype(float) for each in (low, high)]
    assert np.sum(np.abs(np.subtract(*pictures)).max(-1) > 20) > 60  # of 4,096 pixels
    bands = [
        np.log(np.abs(np.fft.rfft(each.sound(RATE)))[:, : RATE // 4 * 3].reshape(2, 60, -1).mean(2) + 1e-2)
        for each in (low, high)
    ]
    if name == "position":
        assert np.max(np.abs(bands[0] - bands[1])) > 1.0
    elif name == "rate":
        assert len(high.truth.onsets) > 1.6 * len(low.truth.onsets)
    else:
        assert np.max(np.abs((bands[0] - bands[1]).mean(0))) > 0.7


def test_something_new_is_seen_exactly_at_the_onset():
    """A puff, a splash, a plucked string, an open beak: the picture jumps at the onset, and at no other time."""
    for kind in ("bird", "engine", "kettle", "rain", "string"):
        for seed in (0, 3):
            scene = clips.Scene(kind, seed, 4.0)

            def jump(time, scene=scene):
                before, after = scene.frames([time - 0.002, time + 0.002], (96, 96)).astype(float)
                return np.sort(np.abs(after - before).max(-1).ravel())[-12:].mean()

            onsets = [onset for onset in scene.truth.onsets if onset > 0.01][:4]
            waits = [onset - 0.012 for onset in onsets if onset > 0.02]
            assert np.median([jump(t) for t in onsets]) > 2 * np.median([jump(t) for t in waits]), (kind, seed)


def test_mallet_turns_back_at_the_onset():
    """Shortly before and after a stroke it is at the same height, and lower in between; in mid-air it just moves on."""
    for seed in range(4):
        scene = clips.Scene("drum", seed, 6.0)

        def turning(time, scene=scene):
            before, now, after = (scene.frame(time + dt, (128, 128)).astype(float) for dt in (-0.03, 0.0, 0.03))
            return np.abs(before - after).mean() / np.abs(before - now).mean()

        onsets = scene.truth.onsets[1:5]
        assert np.median([turning(t) for t in onsets]) < 0.8 * np.median([turning(t - 0.06) for t in onsets])


def test_ball_touches_the_ground_and_bell_turns_round_at_the_onset():
    for seed in range(4):
        scene = clips.Scene("ball", seed, 4.0, rate=0.3)
        onset, after = scene.truth.onsets[1:3]
        feet = [
            np.nonzero(coloured(scene, t))[0].max() for t in (onset, (onset + after) / 2, onset - 0.02, onset + 0.02)
        ]
        assert feet[0] == max(feet) and feet[1] < feet[0] - 8
        scene = clips.Scene("bell", seed, 4.0, rate=0.3)
        onset = scene.truth.onsets[1]
        middles = [np.nonzero(coloured(scene, onset + dt))[1].mean() for dt in (-0.15, 0.0, 0.15)]
        assert (middles[1] - middles[0]) * (middles[1] - middles[2]) > 0  # the end of a swing


def test_constants_do_not_tell_the_kind():
    """A nearest-mean classifier on what a model could cheat by is right about as often as chance, 1 in 8.

    The bound of 0.25 is twice chance; on 80 held-out clips chance alone stays below 0.22 in 99 of 100 draws.
    """
    features, labels = [], np.repeat(np.arange(8), 20)
    for kind in clips.KINDS:
        for seed in range(20):
            scene = clips.Scene(kind, seed, 2.0)
            frame, level = scene.frame(1.0, (64, 64)) / 255, np.sqrt(np.mean(scene.sound(8000) ** 2))
            corner = frame[2:12, :3].mean((0, 1))
            features.append((*frame.mean((0, 1)), *corner, np.log(level + 1e-9)))
    features = np.array(features)
    features = (features - features.mean(0)) / features.std(0)
    learn = np.arange(len(labels)) % 2 == 0
    for columns in (slice(0, 3), slice(3, 6), slice(6, 7)):
        means = np.stack([features[learn & (labels == kind), columns].mean(0) for kind in range(8)])
        distances = np.linalg.norm(features[~learn, None, columns] - means, axis=2)
        assert np.mean(np.argmin(distances, axis=1) == labels[~learn]) < 0.25


def test_constants_do_not_tell_the_attributes():
    scenes = clips.scenes(120, seed=7, seconds=2.0)
    brightness = [scene.frame(1.0, (32, 32)).mean() for scene in scenes]
    level = [float(np.sqrt(np.mean(scene.sound(8000) ** 2))) for scene in scenes]
    for name in ("position", "size", "hue", "rate"):
        values = [getattr(scene, name) for scene in scenes]
        assert abs(rank_correlation(brightness, values)) < 0.3
        assert abs(rank_correlation(level, values)) < 0.3
