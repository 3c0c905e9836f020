"""Slices of sound in its pauses."""

from itertools import pairwise

import pytest
import torch

from avlib.errors import ParameterError
from avlib.extract import Slice, slices

RATE = 44100


def sound(seconds, *pauses):
    """Noise with pauses (from, to, level)."""
    waveform = 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(0))
    for start, stop, level in pauses:
        waveform[round(start * RATE) : round(stop * RATE)] *= level
    return waveform


def seconds(parts):
    return [(round(part.start / RATE, 2), round(part.stop / RATE, 2), part.silent) for part in parts]


def test_pauses_are_cut_near_their_ends():
    waveform = sound(40, (6, 7, 1e-3), (20, 22, 1e-3), (38, 40, 0))
    waveform[round(6.3 * RATE) : round(6.35 * RATE)] = 0  # the quietest place before the middle
    found = slices(waveform, RATE)
    assert found[0].start == 0 and found[-1].stop == len(waveform)
    assert all(before.stop == after.start for before, after in pairwise(found))
    assert [part.silent for part in found] == [False, True, False, True, False, True]
    assert 6.28 <= found[1].start / RATE <= 6.35 and 6.5 <= found[1].stop / RATE <= 7
    assert 20 <= found[3].start / RATE <= 20.5 and 21.5 <= found[3].stop / RATE <= 22
    assert slices(waveform.split(12345), RATE) == found
    assert slices(waveform + 0.2, RATE) == found  # an offset is no sound


def test_short_pauses_and_short_sound_are_left():
    assert seconds(slices(sound(20, (8, 8.25, 0)), RATE)) == [(0, 20, False)]  # less than 300 ms
    assert len(slices(sound(20, (6, 7, 0), (9, 10, 0)), RATE)) == 3  # 2 s after the one before
    assert len(slices(sound(20, (6, 7, 0), (9, 10, 0)), RATE, shortest=1)) == 5
    assert len(slices(sound(20, (6, 7, 0.05)), RATE)) == 1  # above -40 dB
    assert len(slices(sound(20, (6, 7, 0.05)), RATE, threshold=-20)) == 3


def test_short_files_stay_whole():
    assert seconds(slices(sound(5, (2, 3, 0)), RATE)) == [(0, 5, False)]
    assert len(slices(sound(5.1, (2, 3, 0)), RATE)) == 3


def test_long_sound_is_bounded():
    waveform = sound(60, (17.5, 17.7, 0.5))
    assert len(slices(waveform, RATE)) == 1
    found = slices(waveform, RATE, longest=20)
    assert max(part.stop - part.start for part in found) <= 20 * RATE and found[-1].stop == len(waveform)
    assert 17.5 <= found[0].stop / RATE <= 17.7


def test_silence_and_next_to_nothing():
    assert slices(torch.zeros(RATE), RATE) == [Slice(0, RATE, True)]
    assert slices(torch.zeros(100), RATE) == [Slice(0, 100, True)]
    assert slices(sound(0.1), RATE) == [Slice(0, 4410, False)]
    assert slices(torch.zeros(0), RATE) == []


@pytest.mark.parametrize(
    "options, name",
    [({"threshold": 3}, "threshold"), ({"shortest": -1}, "shortest"), ({"longest": 0}, "longest")],
)
def test_settings_are_checked(options, name):
    with pytest.raises(ParameterError, match=name):
        slices(torch.zeros(RATE), RATE, **options)


def test_only_mono_sound_is_cut(unchecked):
    with pytest.raises(ParameterError, match="mean"):
        slices(torch.zeros(2, RATE), RATE)
