"""Spoken words: what is heard is what the truth says, measured with formulas and libraries that avlib does not use."""

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import resample_poly

from avlib.clips import speech
from avlib.clips.speech import Speaker, Spoken
from avlib.errors import ParameterError

GOLDEN = Path(__file__).with_name("golden_speech.json")
RATE = 16000
LOW = Speaker(5, age=16, f0=100, tract=1.0)  # so low a voice has many harmonics under each formant


def sketch(word: str) -> dict:
    """Enough of a clip to notice that its recipe has changed."""
    spoken = Spoken(word, Speaker(3), seed=11)
    return {"truth": spoken.truth.to_dict(), "sound": np.rint(spoken.sound()[::101] * 32768).astype(int).tolist()}


def digest(word: str) -> str:
    spoken = Spoken(word, Speaker(3), "abnormal", 2)
    return hashlib.sha256(json.dumps(spoken.truth.to_dict()).encode() + spoken.sound().tobytes()).hexdigest()


def piece(spoken: Spoken, phone: int, first: float = 0.0, last: float = 1.0) -> np.ndarray:
    """A part of one phone, from and to a share of its duration, without noise."""
    start, end = spoken.truth.starts[phone], spoken.truth.ends[phone]
    word, _ = spoken.layers()
    return word[round((start + first * (end - start)) * RATE) : round((start + last * (end - start)) * RATE)]


def pitch_of(waveform: np.ndarray) -> float:
    """Hz of the highest peak of the autocorrelation between 70 and 500 Hz, found between samples by a parabola."""
    waveform = waveform - waveform.mean()
    lags = np.arange(RATE // 500, RATE // 70)
    similar = np.array([np.corrcoef(waveform[:-lag], waveform[lag:])[0, 1] for lag in lags])
    best = int(np.argmax(similar > 0.97 * similar.max()))  # the first of the multiples of the period
    best += int(np.argmax(similar[best : best + 8]))
    a, b, c = similar[best - 1 : best + 2]
    return RATE / (lags[best] + (a - c) / (2 * (a - 2 * b + c)))


def formants_of(waveform: np.ndarray) -> list[float]:
    """Hz of the narrow resonances up to 4 kHz by linear prediction, at 10 kHz, after pre-emphasis, lowest first."""
    waveform = resample_poly(waveform, 5, 8)
    waveform = np.append(waveform[0], waveform[1:] - 0.97 * waveform[:-1]) * np.hamming(len(waveform))
    similar = np.correlate(waveform, waveform, "full")[len(waveform) - 1 :][:13]
    roots = np.roots([1, *-solve_toeplitz(similar[:-1], similar[1:])])
    frequency, width = np.angle(roots) * 5000 / np.pi, -np.log(np.abs(roots)) * 10000 / np.pi
    return sorted(frequency[(frequency > 150) & (frequency < 4000) & (width < 400)].tolist())


def energy(waveform: np.ndarray, low: float, high: float) -> float:
    """Power between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(power[(frequency >= low) & (frequency < high)].sum())


# What is drawn


def test_words_are_pairs_that_differ_in_one_phone():
    assert sorted(speech.WORDS) == sorted(word for pair in speech.PAIRS for word in pair)
    for one, other in speech.PAIRS:
        assert speech.PARTNER[one] == other and speech.PARTNER[other] == one
        phones = speech.WORDS[one], speech.WORDS[other]
        assert len(phones[0]) == len(phones[1]) and sum(a != b for a, b in zip(*phones, strict=True)) == 1
    assert {phone for phones in speech.WORDS.values() for phone in phones} == set(speech.PHONES)
    for phone in speech.PHONES.values():
        assert sum(part.share for part in phone.parts) == pytest.approx(1)


@pytest.mark.parametrize("word", speech.WORDS)
def test_same_as_ever(word):
    """The golden file is written anew by `python tests/clips/test_speech.py` where a recipe is changed on purpose."""
    then, now = json.loads(GOLDEN.read_text())[word], sketch(word)
    for key, value in then["truth"].items():
        same = value if isinstance(value, str) or key == "phones" else pytest.approx(np.array(value), abs=1e-6)
        assert now["truth"][key] == same, key
    assert np.abs(np.subtract(then["sound"], now["sound"])).max() <= 2


def test_same_in_another_process():
    script = "import sys; sys.path.insert(0, 'tests/clips'); import test_speech as t; "
    script += "print([t.digest(word) for word in t.speech.WORDS])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([digest(word) for word in speech.WORDS])


@pytest.mark.parametrize("word", speech.WORDS)
def test_an_error_in_one_word_is_the_other_word_sample_by_sample(word):
    for seed in range(3):
        wrong = Spoken(word, Speaker(seed), "abnormal", seed, 5)
        right = Spoken(speech.PARTNER[word], Speaker(seed), "normal", seed, 5)
        assert np.array_equal(wrong.sound(), right.sound())
        assert wrong.truth == replace(right.truth, word=word, pronunciation="abnormal")
        assert wrong.truth.said == right.word and wrong.truth.phones == speech.WORDS[right.word]


@pytest.mark.parametrize("word", speech.WORDS)
def test_both_pronunciations_last_equally_long_phone_by_phone(word):
    right, wrong = (Spoken(word, Speaker(1), how, 4).truth for how in speech.PRONUNCIATIONS)
    assert (right.seconds, right.starts, right.ends) == (wrong.seconds, wrong.starts, wrong.ends)
    assert right.phones != wrong.phones


def test_takes_and_speakers_differ():
    takes = [Spoken("rock", Speaker(s), seed=k) for s in range(3) for k in range(3)]
    assert len({take.seconds for take in takes}) > 5 and len({take.truth.f0 for take in takes}) == 9
    levels = [20 * math.log10(np.sqrt(np.mean(take.layers()[0] ** 2))) for take in takes]
    assert np.std(levels) > 0.5
    voices = {take.speaker.f0 for take in takes}
    assert len(voices) == 3


# What is heard


@pytest.mark.parametrize("word", speech.WORDS)
def test_truth_and_sound_are_in_range(word):
    spoken = Spoken(word, Speaker(8), "abnormal", 7)
    truth, sound = spoken.truth, spoken.sound()
    assert sound.dtype == np.float32 and len(sound) == round(spoken.seconds * RATE) == spoken.truth.seconds * RATE
    assert np.array_equal(sound, np.rint(sound * 32768) / 32768) and 0.05 < np.abs(sound).max() < 1
    assert truth.starts[1:] == truth.ends[:-1] and 0.05 < truth.starts[0] < truth.ends[-1] < truth.seconds - 0.05
    assert len(truth.phones) == len(truth.starts) == len(truth.formants)
    assert json.loads(json.dumps(truth.to_dict())) == truth.to_dict()
    assert all(100 < f1 < f2 < f3 < 6000 for f1, f2, f3 in truth.formants)
    word, _ = spoken.layers()
    outside = np.concatenate(
        [word[: round((truth.starts[0] - 0.02) * RATE)], word[round((truth.ends[-1] + 0.02) * RATE) :]]
    )
    assert np.abs(outside).max() < 0.02 * np.abs(word).max()  # nothing is said before and after


@pytest.mark.parametrize("snr", [-10, 0, 12.5, 40, math.inf])
def test_noise_is_as_loud_as_is_said(snr):
    spoken = Spoken("ship", Speaker(2), seed=1, snr=snr)
    word, noise = spoken.layers()
    assert np.abs(spoken.sound() - (word + noise)).max() <= 0.51 / 32768
    heard = word[round(spoken.truth.starts[0] * RATE) : round(spoken.truth.ends[-1] * RATE)]
    if snr == math.inf:
        assert not noise.any() and spoken.truth.to_dict()["snr"] is None
        return
    assert 10 * math.log10(np.mean(heard**2) / np.mean(noise**2)) == pytest.approx(snr, abs=1e-9)
    assert energy(noise, 0, 4000) == pytest.approx(energy(noise, 4000, 8001), rel=0.1)  # white
    quiet = Spoken("ship", Speaker(2), seed=1, snr=math.inf).layers()[0]
    assert np.corrcoef(quiet, word)[0, 1] == pytest.approx(1)  # the word is the same in any noise


@pytest.mark.parametrize("age", [2, 6, 10, 16])
@pytest.mark.parametrize("word", ["moon", "fan", "key"])
def test_pitch_is_the_truth(age, word):
    spoken = Spoken(word, Speaker(4, age=age), seed=3)
    vowel = speech.WORDS[word].index({"moon": "uw", "fan": "ae", "key": "iy"}[word])
    start, end = spoken.truth.starts[vowel], spoken.truth.ends[vowel]
    middle = (start + end) / 2
    window = np.abs(spoken.tracks.times - middle) < 0.02
    word, _ = spoken.layers()
    measured = pitch_of(word[round((middle - 0.02) * RATE) : round((middle + 0.02) * RATE)])
    assert measured == pytest.approx(spoken.tracks.f0[window].mean(), rel=0.02)
    assert spoken.truth.f0 == pytest.approx(spoken.speaker.f0, rel=0.12)


@pytest.mark.parametrize(("word", "phone"), [("ring", 1), ("key", 1), ("fan", 1), ("sum", 1), ("rock", 1), ("moon", 1)])
@pytest.mark.parametrize("tract", [1.0, 1.15])
def test_formants_of_vowels_are_the_truth(word, phone, tract):
    """Each resonance of the truth is found by linear prediction, as well as harmonics 100 Hz apart show it."""
    spoken = Spoken(word, replace(LOW, tract=tract), seed=6)
    found = formants_of(piece(spoken, phone, 0.3, 0.9))
    for expected in spoken.truth.formants[phone]:
        nearest = min(found, key=lambda frequency: abs(frequency - expected))
        assert nearest == pytest.approx(expected, rel=0.08, abs=50), (found, spoken.truth.formants[phone])


def test_targets_are_those_of_the_phones():
    """Over many speakers and takes the formants are those of the table, times the length of the tract."""
    for word, phone in (("key", 1), ("rock", 1), ("ring", 0), ("wing", 0), ("lock", 0)):
        drawn = [Spoken(word, Speaker(i, age=9), seed=i).truth for i in range(40)]
        relative = np.mean([np.array(truth.formants[phone]) / truth.tract for truth in drawn], axis=0)
        assert relative == pytest.approx(np.array(speech.PHONES[speech.WORDS[word][phone]].parts[0].formants), rel=0.05)


def test_age_is_heard():
    f0, tract, seconds, means = [], [], [], []
    for age in (2, 6, 10):
        clips = [Spoken("noon", Speaker(i, age=age), seed=i) for i in range(8)]
        f0.append(np.mean([pitch_of(piece(clip, 1, 0.4, 0.6)) for clip in clips]))
        tract.append(np.mean([clip.speaker.tract for clip in clips]))
        seconds.append(np.mean([clip.truth.ends[-1] - clip.truth.starts[0] for clip in clips]))
        high = [piece(replace(clip, word="sum"), 0) for clip in clips]
        means.append(np.mean([energy(s, 6000, 8000) / energy(s, 3000, 6000) for s in high]))
    assert f0 == pytest.approx([330, 294, 258], rel=0.06)
    assert tract == pytest.approx([1.35, 1.25, 1.15], rel=0.02)
    assert seconds[0] > seconds[1] > seconds[2] and means[0] > means[1] > means[2]
    assert Speaker(7, age=3).f0 / Speaker(7, age=9).f0 == pytest.approx((330 - 9) / (330 - 63))


def test_fricatives_have_their_own_spectra():
    s, sh = (piece(Spoken(word, LOW, seed=2), 0, 0.2, 0.8) for word in ("sip", "ship"))
    assert energy(s, 4000, 6500) > 5 * energy(s, 1500, 4000) and energy(sh, 1800, 4000) > 5 * energy(sh, 4000, 6500)
    th, loud = (np.mean(piece(Spoken(word, LOW, seed=2), 0, 0.2, 0.8) ** 2) for word in ("thumb", "sum"))
    assert 5 < 10 * math.log10(loud / th) < 20  # th is the weak one


def test_liquids_and_nasals_have_their_own_formants():
    r, light = (piece(Spoken(word, LOW, seed=2), 0, 0.2, 0.7) for word in ("rock", "lock"))
    assert energy(r, 1300, 1800) / energy(r, 2500, 3300) > 20 * energy(light, 1300, 1800) / energy(light, 2500, 3300)
    m, n = (piece(Spoken(word, LOW, seed=2), 0, 0.2, 0.7) for word in ("moon", "noon"))
    assert energy(n, 1500, 1900) / energy(n, 850, 1200) > 4 * energy(m, 1500, 1900) / energy(m, 850, 1200)
    w = piece(Spoken("wing", LOW, seed=2), 0, 0.2, 0.7)
    assert energy(w, 0, 900) > 30 * energy(w, 900, 8000)


@pytest.mark.parametrize(("word", "low", "high"), [("key", 1500, 2500), ("tea", 3000, 5000), ("pan", 100, 1500)])
def test_stops_are_a_silence_and_a_burst(word, low, high):
    spoken = Spoken(word, LOW, seed=2)
    closure, burst = piece(spoken, 0, 0.05, 0.4), piece(spoken, 0, 0.52, 0.66)
    assert np.mean(burst**2) > 1000 * np.mean(closure**2)
    assert energy(burst, low, high) > 0.4 * energy(burst, 0, 8001)


def test_only_voiced_stops_are_voiced_in_their_closure():
    for word, voiced in (("date", True), ("gate", True), ("tea", False), ("key", False)):
        closure = piece(Spoken(word, LOW, seed=2), 0, 0.1, 0.4)
        vowel = piece(Spoken(word, LOW, seed=2), 1, 0.3, 0.7)
        assert (np.mean(closure**2) > 1e-4 * np.mean(vowel**2)) == voiced


def test_no_clicks_and_no_constant_part():
    """Where phones meet, nothing is rougher than inside of them."""
    for word in ("ring", "wing", "moon", "noon"):  # without bursts
        for seed in range(3):
            spoken = Spoken(word, Speaker(seed), seed=seed, snr=math.inf)
            clean, _ = spoken.layers()
            assert abs(clean.mean()) < 0.01 * np.abs(clean).max()
            rough = np.abs(np.diff(clean, 2))
            bounds = [round(time * RATE) for time in (*spoken.truth.starts, spoken.truth.ends[-1])]
            meeting = np.concatenate([rough[bound - 160 : bound + 160] for bound in bounds])
            inside = np.concatenate([rough[a + 160 : b - 160] for a, b in pairwise(bounds)])
            assert meeting.max() < 1.1 * inside.max()


# What is refused


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Spoken("rang", Speaker()), ("word", "'rang'", "Did you mean 'ring'")),
        (lambda: Spoken("ring", Speaker(), "wrong"), ("pronunciation", "'normal', 'abnormal'")),
        (lambda: Spoken("ring", 3), ("speaker", "int 3", "expected Speaker")),
        (lambda: Spoken("ring", Speaker(), seed=-1), ("seed", "-1")),
        (lambda: Spoken("ring", Speaker(), snr=math.nan), ("snr", "nan", "from -40 to 100")),
        (lambda: Spoken("ring", Speaker(), snr=-math.inf), ("snr", "-inf")),
        (lambda: Speaker(-3), ("seed", "-3")),
        (lambda: Speaker(0, age=1.5), ("age", "1.5", "2 to 16")),
        (lambda: Speaker(0, age=math.nan), ("age", "nan")),
        (lambda: Speaker(0, f0=20), ("f0", "20", "60 to 500")),
        (lambda: Speaker(0, tract=3.0), ("tract", "3.0")),
        (lambda: Speaker(0, pace=0), ("pace", "0")),
    ],
)
def test_what_is_wrong_is_said(call, words):
    with pytest.raises(ParameterError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({word: sketch(word) for word in speech.WORDS}))
