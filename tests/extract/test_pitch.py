"""Pitch beside the truth of songs, and of tones and glides that are made here."""

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfiltfilt

from avlib.clips.song import SINGERS, Song
from avlib.errors import ParameterError, TooShortError
from avlib.extract import CONTEXT, Level, fill_unvoiced, pitch, sound_level

RATE = 44100


def voice(hertz, rate=RATE, harmonics=12):
    """A tone of many harmonics below half the sample rate, with a pitch for each sample."""
    turns = torch.cumsum(hertz.double(), 0) / rate
    return (
        sum(
            torch.sin(2 * torch.pi * k * turns) * (k * hertz < 0.45 * rate) / k for k in range(1, harmonics + 1)
        ).float()
        * 0.2
    )


def steady(hertz, seconds=1.0, rate=RATE):
    return voice(torch.full((round(seconds * rate),), float(hertz)), rate)


def cents(found, expected):
    return 1200 * np.log2(np.asarray(found) / np.asarray(expected))


@pytest.fixture(scope="module")
def songs():
    return [Song(singer, seed=seed) for seed, singer in enumerate(SINGERS)]


@pytest.mark.parametrize("method", ["autocorrelation", "pyin"])
def test_pitch_of_songs(songs, method):
    errors, false, unvoiced = [], 0, 0
    for song in songs:
        truth, found = song.truth, pitch(torch.from_numpy(song.sound()).float(), RATE, method=method)
        np.testing.assert_allclose(found.times, (np.arange(len(truth.hertz)) + 0.5) * 512 / RATE)
        voiced = found.voiced.numpy()
        errors.append(cents(found.hertz, truth.hertz)[voiced & truth.voiced])
        false, unvoiced = false + (voiced & ~truth.voiced).sum(), unvoiced + (~truth.voiced).sum()
        assert voiced[truth.sung].mean() > (0.99 if method == "autocorrelation" else 0.95)
        assert found.octave is None and not found.remarks
    errors = np.concatenate(errors)
    gross = np.abs(errors) > 100
    assert np.sqrt((errors[~gross] ** 2).mean()) < 6
    assert gross.mean() <= (0 if method == "autocorrelation" else 0.03)  # pyin takes the octave of an "i" at times
    assert false < (0.02 if method == "autocorrelation" else 0.05) * unvoiced


def test_a_strong_formant_is_no_pitch():
    """Of a low "i" the harmonics around 2.8 kHz may be louder than the fundamental."""
    song = Song("otto", seed=0)
    found = pitch(torch.from_numpy(song.sound()).float(), RATE)
    both = found.voiced.numpy() & song.truth.voiced
    assert np.abs(cents(found.hertz, song.truth.hertz)[both]).max() < 100 and not found.clipped.any()


def test_the_cross_check_finds_octave_errors(songs):
    time = torch.arange(3 * RATE, dtype=torch.float64) / RATE
    hertz = 200 * 2 ** ((2 * torch.sin(2.5 * time) + 0.4 * torch.sin(34 * time)) / 12)
    turns = torch.cumsum(hertz, 0) / RATE
    weak = 0.1 * (time > 1.6) + (time < 1.4)  # after a rest its odd harmonics are weak: pyin takes the octave
    parts = [torch.sin(2 * torch.pi * k * turns) / k * (weak if k % 2 else weak > 0) for k in range(1, 9)]
    wrong = pitch(0.1 * sum(parts).float(), RATE, method="pyin", check="autocorrelation")
    error = (wrong.hertz / hertz[256::512][: len(wrong)]).log2().abs() > 100 / 1200
    error &= wrong.voiced
    assert error.sum() > 80 and (wrong.octave & error).sum() > 0.95 * error.sum() and not (wrong.octave & ~error).any()
    assert "two estimators differ" in " ".join(wrong.remarks)
    assert not pitch(torch.from_numpy(songs[0].sound()).float(), RATE, check="pyin").octave.any()


@pytest.mark.parametrize("rate, hop", [(RATE, 512), (RATE, 441), (16000, 160), (8000, 100), (48000, 512), (RATE, 77)])
def test_frames_are_read_at_their_centre(rate, hop):
    seconds = 0.8
    time = torch.arange(round(seconds * rate)) / rate
    waveform = voice(150 * 2 ** (2 * time), rate)  # a hop of 11.6 ms is 28 cents
    found = pitch(waveform, rate, hop)
    assert len(found) == len(waveform) // hop and found.voiced.all()
    expected = 150 * 2 ** (2 * (np.arange(len(found)) + 0.5) * hop / rate)
    inner = (found.times > 0.05) & (found.times < seconds - 0.05)
    assert np.abs(cents(found.hertz, expected)[inner]).max() < 2


def test_a_glide_of_a_minute_and_a_tone_of_half_a_minute():
    time = torch.arange(60 * RATE) / RATE
    found = pitch(voice(100 * 2 ** (time / 20)), RATE)
    error = cents(found.hertz, 100 * 2 ** (found.times / 20))
    assert found.voiced.all() and np.abs(error[3:-3]).max() < 2 and np.abs(error).max() < 10
    found = pitch(steady(220, 30), RATE)
    assert np.abs(cents(found.hertz, 220)).max() < 2


@pytest.mark.parametrize("gain", [10 ** (-50 / 20), 4.0])
def test_the_level_does_not_matter(songs, gain):
    waveform = torch.from_numpy(songs[0].sound()).float()
    whole, other = pitch(waveform, RATE), pitch(waveform * gain, RATE)
    assert torch.equal(whole.voiced, other.voiced)
    torch.testing.assert_close(whole.hertz, other.hertz, rtol=1e-4, atol=0)
    disturbed = 0.05 * waveform + 0.3  # an offset, and a click
    disturbed[20000] = 1.0
    assert (pitch(disturbed, RATE).voiced == whole.voiced).float().mean() > 0.97


@pytest.mark.parametrize("hertz", [61, 65.4, 98, 130.8, 261.6, 1046.5])
def test_low_and_high_notes(hertz):
    found = pitch(steady(hertz), RATE)
    assert found.voiced.all() and np.abs(cents(found.hertz, hertz)).max() < 10 and not found.above.any()


def test_notes_out_of_range_are_clipped_and_said():
    found = pitch(steady(1200), RATE)
    assert found.above.all() and not found.clipped.any() and np.abs(cents(found.hertz, 1200)).max() < 10
    assert "86 of 86 voiced frames lie above 1100 Hz" in found.remarks[0]
    found = pitch(steady(1700), RATE)
    assert found.clipped.all() and (found.hertz == 1400).all() and "clipped" in found.remarks[1]
    found = pitch(torch.cat([steady(50), steady(200)]), RATE)
    assert not found.voiced[:80].any() and found.voiced[90:].all() and found.below > 75
    assert np.abs(cents(found.hertz, 200)).max() < 10 and "count as unvoiced" in found.remarks[0]
    assert pitch(steady(50), RATE, lowest=40).median == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize("kind", ["silence", "noise", "whisper"])
def test_nothing_voiced(kind):
    waveform = 0.1 * torch.randn(3 * RATE, generator=torch.Generator().manual_seed(1))
    if kind == "whisper":  # noise with formants
        waveform = torch.from_numpy(
            sosfiltfilt(butter(2, [400, 3000], "band", fs=RATE, output="sos"), waveform).copy()
        ).float()
    found = pitch(waveform * (kind != "silence"), RATE)
    assert not found.voiced.any() and (found.hertz == 0).all() and found.median == 0
    assert "No frame is voiced" in found.remarks[0]


@pytest.mark.parametrize("samples", [512, 513, 1023, 1024, 2205, 8820])
def test_short_sound(samples):
    found = pitch(steady(220, samples / RATE), RATE)
    assert len(found) == samples // 512 and found.voiced.all()
    assert np.abs(cents(found.hertz, 220)).max() < 15


def test_pieces_are_those_of_the_whole(songs):
    waveform = torch.cat([torch.from_numpy(song.sound()).float() for song in songs])
    whole, level = pitch(waveform, RATE), sound_level(waveform, RATE)
    around, size = math.ceil(CONTEXT * RATE / 512), 200
    assert whole.level == level == sound_level(waveform.split(882 * 50), RATE)
    for first in range(0, len(whole), size):
        start, last = max(0, first - around), min(len(whole), first + size)
        part = pitch(waveform[start * 512 : (last + around) * 512], RATE, level=level)
        here = slice(first - start, last - start)
        voiced = part.voiced[here]
        assert torch.equal(voiced, whole.voiced[first:last])
        np.testing.assert_allclose(part.hertz[here][voiced], whole.hertz[first:last][voiced], rtol=1e-5)


def test_unvoiced_frames_are_filled():
    voiced = torch.tensor([False, True, False, False, True, False])
    hertz = torch.tensor([0.0, 100, 0, 0, 800, 0])
    torch.testing.assert_close(fill_unvoiced(hertz, voiced), torch.tensor([100.0, 100, 200, 400, 800, 800]))
    assert not fill_unvoiced(hertz, torch.zeros(6, dtype=bool)).any()


def fake_network(times_and_hertz):
    """Stands for torchfcpe: its frames are centred at k * 10 ms."""

    def infer(waveform, sr, **options):
        assert waveform.shape[0] == waveform.shape[2] == 1 and sr == 16000 and waveform.abs().max() > 0.3
        return times_and_hertz(0.01 * torch.arange(waveform.shape[1] // 160 + 1))[None, :, None]

    module = ModuleType("torchfcpe")
    module.spawn_bundled_infer_model = lambda device: SimpleNamespace(infer=infer)
    return module


def test_a_network_is_read_at_the_centres(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchfcpe", fake_network(lambda time: 100 * 2**time))
    found = pitch(steady(200, 2) / 1000, RATE, method="torchfcpe")
    before = math.ceil(CONTEXT * RATE / 512) * 512 / RATE  # the network's times begin with the context
    np.testing.assert_allclose(cents(found.hertz, 100 * 2 ** (found.times + before)), 0, atol=0.1)


def test_a_missing_package_is_named(monkeypatch):
    for method, module in (("torchfcpe", "torchfcpe"), ("swift-f0", "swift_f0")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ParameterError, match=f"method: {module} cannot be imported.*pip install"):
            pitch(steady(200), RATE, method=method)


@pytest.mark.parametrize(
    "waveform, options, error, message",
    [
        (torch.full((RATE,), torch.nan), {}, ParameterError, "NaN"),
        (torch.zeros(511), {}, TooShortError, "511 samples; expected at least 512"),
        (torch.zeros(0), {}, TooShortError, "0 samples"),
        (torch.zeros(RATE), {"method": "crepe"}, ParameterError, "method: 'crepe'"),
        (torch.zeros(RATE), {"check": "crepe"}, ParameterError, "check: 'crepe'"),
        (torch.zeros(RATE), {"hop_length": 0}, ParameterError, "hop_length"),
        (torch.zeros(RATE), {"lowest": 5}, ParameterError, "lowest"),
        (torch.zeros(RATE), {"highest": 100}, ParameterError, "highest"),
    ],
)
def test_bad_input(waveform, options, error, message):
    with pytest.raises(error, match=message):
        pitch(waveform, RATE, **options)


def test_stereo_whole_numbers_and_arrays_are_refused(unchecked):
    with pytest.raises(ParameterError, match=r"shape \(2, 9000\).*mean"):
        pitch(torch.zeros(2, 9000), RATE)
    with pytest.raises(ParameterError, match=r"int16.*Divide"):
        pitch(torch.zeros(9000, dtype=torch.int16), RATE)
    with pytest.raises(ParameterError, match="ndarray"):
        pitch(np.zeros(9000), RATE)
    assert sound_level(torch.zeros(0), RATE) == Level(0.0, 0.0)
