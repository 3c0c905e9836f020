"""Songs: what is heard is what the truth says, measured with formulas and libraries that avlib does not use."""

import csv
import hashlib
import json
import pickle
import subprocess
import sys
import wave
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import butter, resample_poly, sosfilt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avlib.clips import singing, song
from avlib.clips.song import CLASSES, CONSONANTS, SINGERS, VOWELS, Note, Singer, Song
from avlib.errors import ParameterError

GOLDEN = Path(__file__).with_name("golden_song.json")
RATE, HOP = 44100, 512
LOW = Singer("low", tract=1.0, lowest=80, vibrato=0, jitter=0, shimmer=0, breath=0)


def sketch(name: str) -> dict:
    """Enough of a song to notice that its recipe has changed."""
    one = Song(name, 4, 1.5)
    return {"truth": one.truth.to_dict(), "sound": np.rint(one.sound()[::501] * 32768).astype(int).tolist()}


def flat(truth: dict) -> dict:
    """The truth with a list of numbers or a text under each name."""
    notes = {f"notes {key}": [note[key] for note in truth["notes"]] for key in truth["notes"][0]}
    plain = {name: value for name, value in truth.items() if name != "notes"} | notes
    return {
        name: " ".join(value) if isinstance(value, list) and isinstance(value[0], str) else value
        for name, value in plain.items()
    }


def frames(waveform: np.ndarray) -> np.ndarray:
    """Whole frames of the truth, (frames, 512)."""
    return waveform[: len(waveform) // HOP * HOP].reshape(-1, HOP)


def level(waveform: np.ndarray) -> np.ndarray:
    """RMS in dB of each frame of the truth."""
    return 10 * np.log10((frames(waveform) ** 2).mean(1) + 1e-12)


def pitch_of(waveform: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Hz in each frame: highest peak of the correlation of two stretches around its centre, within a fifth of `near`.

    Their distance is the period; at the edges, where there is no room for them, it is NaN.
    """
    found = np.full(len(near), np.nan)
    for k, hertz in enumerate(near):
        if np.isnan(hertz):
            continue
        period, centre, half = RATE / hertz, (k + 0.5) * HOP, 700
        lags = np.arange(int(period / 1.5), int(period * 1.5) + 2)
        starts = np.rint(centre - lags / 2).astype(int) - half // 2
        if starts.min() < 0 or starts.max() + half + lags[-1] >= len(waveform):
            continue
        similar = np.array(
            [
                np.corrcoef(waveform[a : a + half], waveform[a + lag : a + lag + half])[0, 1]
                for a, lag in zip(starts, lags, strict=True)
            ]
        )
        best = int(np.argmax(similar[1:-1])) + 1
        a, b, c = similar[best - 1 : best + 2]
        found[k] = RATE / (lags[best] + (a - c) / (2 * (a - 2 * b + c)))
    return found


def formants_of(waveform: np.ndarray) -> list[float]:
    """Hz of the narrow resonances up to 4 kHz by linear prediction, at 11 kHz, after pre-emphasis, lowest first."""
    waveform = resample_poly(waveform, 1, 4)
    waveform = np.append(waveform[0], waveform[1:] - 0.97 * waveform[:-1]) * np.hamming(len(waveform))
    similar = np.correlate(waveform, waveform, "full")[len(waveform) - 1 :][:15]
    roots = np.roots([1, *-solve_toeplitz(similar[:-1], similar[1:])])
    frequency, width = np.angle(roots) * 11025 / 2 / np.pi, -np.log(np.abs(roots)) * 11025 / np.pi
    return sorted(frequency[(frequency > 150) & (frequency < 4000) & (width < 500)].tolist())


def mel(waveform: np.ndarray) -> np.ndarray:
    """log10 mel (frames, 64) around the centres of the truth's frames."""
    import librosa

    padded = np.pad(waveform, (768, 768), mode="reflect")
    power = librosa.feature.melspectrogram(
        y=padded, sr=RATE, n_fft=2048, hop_length=HOP, n_mels=64, fmax=8000, center=False
    )
    return np.log10(power + 1e-7).T[: len(waveform) // HOP]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVLIB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def songs() -> list[Song]:
    return [one for name in SINGERS for one in song.phrases(2, name, seed=5, seconds=4.0)]


@pytest.fixture(scope="module")
def sounds(songs) -> list[np.ndarray]:
    return [one.sound() for one in songs]


@pytest.mark.parametrize("name", SINGERS)
def test_same_as_ever(name):
    """The golden file is written anew by `python tests/clips/test_song.py` where a recipe is changed on purpose."""
    then, now = json.loads(GOLDEN.read_text())[name], json.loads(json.dumps(sketch(name)))
    for key, value in flat(then["truth"]).items():
        same = value if isinstance(value, str) else pytest.approx(value, abs=1e-3)
        assert flat(now["truth"])[key] == same, key
    assert np.abs(np.subtract(then["sound"], now["sound"])).max() <= 2


def test_same_in_another_process():
    code = """
import sys
from avlib.clips import song
assert not {"torch", "librosa"} & set(sys.modules), "importing clips must be cheap"
import hashlib
print(hashlib.sha256(song.Song("kaya", 2, 1.0).sound().tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == hashlib.sha256(Song("kaya", 2, 1.0).sound().tobytes()).hexdigest()


def test_pitch_is_that_of_the_sound(songs, sounds):
    """In steady notes, vibrato and glides, at the centres of the frames: not a millisecond before or after."""
    errors, slopes = [], []
    for one, waveform in list(zip(songs, sounds, strict=True))[::2]:
        truth = one.truth
        measured = truth.sung & (np.arange(len(truth.sung)) % 3 == 0)
        cents = 1200 * np.log2(pitch_of(waveform, np.where(measured, truth.hertz, np.nan)) / truth.hertz)
        errors.append(cents[np.isfinite(cents)])
        slopes.append(np.gradient(1200 * np.log2(truth.hertz), HOP / RATE)[np.isfinite(cents)])
    errors, slopes = np.concatenate(errors), np.concatenate(slopes)
    assert len(errors) > 150 and np.abs(errors).max() < 50
    assert np.sqrt((errors**2).mean()) < 5 and abs(np.median(errors)) < 0.5
    assert abs(errors @ slopes / (slopes @ slopes)) < 0.001  # seconds


def test_notes_are_what_is_sung(songs):
    for one in songs:
        truth = one.truth
        times = (np.arange(len(truth.hertz)) + 0.5) * HOP / RATE
        low, high = one.span
        for note in one.notes:
            inside = (times > note.start + 0.15) & (times < note.end - 0.2)
            if inside.sum() > 10:
                cents = 100 * (69 + 12 * np.log2(truth.hertz[inside] / 440) - note.pitch)
                assert abs(np.median(cents)) < 35
            assert low * 0.999 <= 440 * 2 ** ((note.pitch - 69) / 12) <= high * 1.001


def test_voicing_is_that_of_the_sound(songs, sounds):
    """Rests are silent but for a breath; what is voiced has its power below 1 kHz in harmonics of the pitch."""
    for one, waveform in zip(songs, sounds, strict=True):
        truth, loud = one.truth, level(waveform)
        rest, breath = (truth.vowels == 0) & ~truth.voiced, truth.vowels == CLASSES.index("breath")
        assert not truth.voiced[breath].any() and np.median(loud[breath]) > np.median(loud[rest]) + 10
        assert rest.sum() > 5 and loud[rest].max() < loud[truth.sung].mean() - 25
        assert truth.sung[truth.voiced].mean() > 0.7 and not truth.sung[~truth.voiced].any()
        hiss = np.isin(truth.vowels, [CLASSES.index(name) for name in ("s", "sh", "f")]) & ~truth.voiced
        low = level(sosfilt(butter(6, 1000, fs=RATE, output="sos"), waveform))
        assert (low[truth.sung] > loud[truth.sung] - 8).mean() > 0.95
        if hiss.any():
            assert np.median(low[hiss] - loud[hiss]) < -8


@pytest.mark.parametrize("vowel", VOWELS)
def test_vowels_have_their_formants(vowel):
    one = Song(LOW, 0, 1.0, notes=(Note(0.1, 0.9, 45, vowel),))  # 110 Hz: many harmonics under each formant
    found = formants_of(one.sound()[RATE // 3 : RATE * 2 // 3])
    for expected in VOWELS[vowel][:2]:
        assert min(abs(np.log(each / expected)) for each in found) < np.log(1.13), (found, expected)
    large = formants_of(Song(replace(LOW, tract=1.2), 0, 1.0, notes=one.notes).sound()[RATE // 3 : RATE * 2 // 3])
    second = VOWELS[vowel][1] * 1.2
    assert min(abs(np.log(each / second)) for each in large) < np.log(1.13)


def test_consonants_sound_as_they_should():
    def part(consonant: str) -> tuple[np.ndarray, np.ndarray]:
        one = Song(LOW, 1, 1.2, notes=(Note(0.1, 0.5, 50), Note(0.6, 1.0, 50, "a", consonant)))
        inside = slice(round(0.52 * RATE), round(0.58 * RATE))
        assert CLASSES[one.truth.vowels[int(0.55 * RATE / HOP)]] == consonant
        power = np.abs(np.fft.rfft(one.sound()[inside] * np.hanning(inside.stop - inside.start))) ** 2
        return power, np.fft.rfftfreq(inside.stop - inside.start, 1 / RATE)

    def share(consonant: str, low: float, high: float) -> float:
        power, frequency = part(consonant)
        return power[(frequency >= low) & (frequency < high)].sum() / power.sum()

    assert share("s", 4500, 22050) > 0.7 and share("sh", 2000, 6000) > 0.7
    assert share("m", 0, 700) > 0.8 and share("l", 0, 1000) > 0.7
    assert part("t")[0].sum() < 0.05 * part("n")[0].sum() + part("s")[0].sum()


def test_onsets_are_where_the_voice_sets_in():
    """After a silence or a voiceless consonant, the sound below 1.5 kHz rises around the onset."""
    errors = []
    for name in SINGERS:
        for one in song.phrases(2, name, seed=8, seconds=5.0):
            low = sosfilt(butter(4, 1500, fs=RATE, output="sos"), one.sound())
            smooth = np.sqrt(np.convolve(low**2, np.hanning(441) / 220, "same"))
            for note in one.notes:
                at = round(note.start * RATE)
                if note.consonant in ("s", "sh", "f", "t", "k") and at > RATE // 5:
                    after = smooth[at - RATE // 25 : at + RATE // 7]
                    errors.append((int(np.argmax(after > 0.5 * after[-1])) - RATE // 25) / RATE)
    assert len(errors) > 10
    assert abs(np.median(errors)) < 0.02 and np.quantile(np.abs(errors), 0.9) < 0.05


def test_vibrato_sets_in_late_and_has_its_rate():
    singer = replace(SINGERS["otto"], jitter=0)
    one = Song(singer, 3, 3.0, notes=(Note(0.2, 2.8, 57, "a"),))
    cents = 1200 * np.log2(one.truth.hertz / 220)
    early, late = (
        cents[int(0.32 * RATE / HOP) : int(0.44 * RATE / HOP)],
        cents[int(1.2 * RATE / HOP) : int(2.5 * RATE / HOP)],
    )
    assert np.ptp(early) < 0.5 * np.ptp(late) and 60 < np.ptp(late) < 180
    late = late - np.convolve(late, np.ones(33) / 33, "same")
    spectrum = np.abs(np.fft.rfft(late[16:-16] * np.hanning(len(late) - 32), 4096))
    assert np.argmax(spectrum) * RATE / HOP / 4096 == pytest.approx(singer.rate, rel=0.12)


def test_a_parallel_has_the_same_song_in_another_voice(songs):
    for one in songs[:1]:
        for name in SINGERS:
            other = one.by(name)
            for key in ("hertz", "voiced", "vowels", "sung"):
                np.testing.assert_array_equal(getattr(one.truth, key), getattr(other.truth, key))
            assert other.notes == one.notes and other.truth.singer == name and other.melody == one.melody
    one = songs[0]
    assert one.by(one.singer) == one and np.array_equal(one.by("mira").sound(), one.sound())
    distances = [np.abs(mel(one.sound()) - mel(one.by(name).sound()))[one.truth.sung].mean() for name in SINGERS]
    assert distances[0] == 0 and min(distances[1:]) > 0.2


def probe(items: list[tuple[Song, object]], held_out: list[tuple[Song, object]]) -> float:
    """Accuracy of a linear classifier of single frames that are sung; labels: of a song, or "vowels"."""

    def rows(pairs):
        features, labels = [], []
        for one, label in pairs:
            sung = one.truth.sung
            features.append(mel(one.sound())[sung])
            labels.append(one.truth.vowels[sung] if label == "vowels" else np.full(sung.sum(), label))
        return np.concatenate(features), np.concatenate(labels)

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1))
    return model.fit(*rows(items)).score(*rows(held_out))


def test_singers_can_be_told_apart():
    items, held_out = (
        [(one, i) for i, name in enumerate(SINGERS) for one in song.phrases(count, name, seed, 3.0, song.SHARED)]
        for count, seed in ((5, 1), (2, 2))
    )
    assert probe(items, held_out) > 0.9  # of single frames, by a line; chance is 1 in 3


def test_vowels_can_be_told_apart_in_voices_that_were_not_heard():
    items = [(Song(Singer.random(i), i, 2.0), "vowels") for i in range(24)]
    held_out = [(one, "vowels") for name in SINGERS for one in song.phrases(1, name, 3, 3.0)]
    assert probe(items, held_out) > 0.75  # of single frames, by a line; chance is 1 in 5


def test_sound_is_of_16_bits_with_room_to_the_ends(songs, sounds):
    for one, waveform in zip(songs, sounds, strict=True):
        assert waveform.shape == (one.samples,) == (round(one.seconds * RATE),) and waveform.dtype == np.float64
        assert len(one.truth.hertz) == one.samples // HOP
        assert np.array_equal(np.rint(waveform * 32768), waveform * 32768) and 0.1 < np.abs(waveform).max() <= 0.98
        assert abs(waveform.mean()) < 1e-3 and not waveform[:200].any() and not waveform[-200:].any()
        sung = frames(waveform)[one.truth.sung]
        assert np.sqrt((sung**2).mean()) == pytest.approx(0.08, rel=0.02)


def test_blocks_do_not_show(monkeypatch):
    whole = Song("kaya", 3, 2.0).sound()
    monkeypatch.setattr(singing, "_BLOCK", 64)
    assert np.abs(Song("kaya", 3, 2.0).sound() - whole).max() < 1.5 / 32768


def test_melodies_use_all_vowels_and_consonants_and_stay_in_their_range():
    for seconds in (0.5, 0.6, 1.0, 2.5, 30.0):
        for seed in range(6):
            one = Song("otto", seed, seconds)
            assert one.notes[0].start >= 0 and one.notes[-1].end <= seconds
            assert seconds < 1.5 or one.notes[-1].end > seconds - 1.6
    notes = [note for seed in range(6) for note in Song("otto", seed, 30.0).notes]
    assert {note.vowel for note in notes} == set(VOWELS) and {note.consonant for note in notes} == {"", *CONSONANTS}
    hertz = 440 * 2 ** ((np.array([note.pitch for note in notes]) - 69) / 12)
    assert hertz.min() > 109 and hertz.max() < 441 and hertz.max() / hertz.min() > 3
    narrow = Song("mira", 1, 10.0, span=song.SHARED)
    pitches = [440 * 2 ** ((note.pitch - 69) / 12) for note in narrow.notes]
    assert song.SHARED[0] * 0.999 < min(pitches) and max(pitches) < song.SHARED[1] * 1.001
    gaps = [after.start - before.end for before, after in pairwise(notes)]
    assert sum(gap > 0.3 for gap in gaps) > 10


def test_phrases_begin_alike_and_seeds_differ():
    few, many = song.phrases(2, "otto", seed=1), song.phrases(4, "otto", seed=1)
    assert many[:2] == few and len({one.seconds for one in many}) > 2 and all(3 <= one.seconds <= 7 for one in many)
    assert song.phrases(1, "otto", seed=2)[0].notes != few[0].notes
    assert pickle.loads(pickle.dumps(few[0])) == few[0]
    assert Singer.random(3) == Singer.random(3) != Singer.random(4)
    tracts = [Singer.random(i).tract for i in range(40)]
    assert min(tracts) < 0.95 and max(tracts) > 1.2


def test_rendered_files_are_the_sound_with_their_truth(own_cache):
    import av

    songs = [Song("mira", 1, 1.0), Song("mira", 1, 1.0).by("otto"), Song(Singer.random(1), 2, 0.8)]
    table = song.render(songs, jobs=1, progress=False)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["singer"] for row in rows] == ["mira", "otto", "random1"] and rows[1]["melody"] == "mira"
    for row, one in zip(rows, songs, strict=True):
        with wave.open(row["path"]) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (44100, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.array_equal(samples, one.sound() * 32768) and float(row["seconds"]) == one.seconds
        truth = json.loads(Path(row["path"]).with_suffix(".json").read_text())
        assert truth == json.loads(json.dumps(one.truth.to_dict())) and truth["classes"] == list(CLASSES)
        with av.open(row["path"]) as container:
            assert "synthetic" in container.metadata["title"] and "synthetic" in container.metadata["comment"]
    assert song.render(songs, jobs=1, progress=False) == table


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Song("mirra"), ("singer", "Did you mean 'mira'")),
        (lambda: Song("mira").by("x"), ("singer", "'otto'")),
        (lambda: Song(seed=-1), ("seed", "-1")),
        (lambda: Song(seconds=0.2), ("seconds", "0.2")),
        (lambda: Song(span=(300, 200)), ("span", "200", "from 300")),
        (lambda: Song(notes=()), ("notes", "at least one Note")),
        (lambda: Song(notes=(Note(0.1, 0.5, 60), Note(0.4, 0.9, 60))), ("notes[1].start", "from 0.5")),
        (lambda: Song(seconds=1, notes=(Note(0.1, 1.5, 60),)), ("notes[0].end", "to 1")),
        (lambda: Note(0, 1, 60, "y"), ("vowel", "'y'")),
        (lambda: Note(0, 1, 200), ("pitch", "200")),
        (lambda: Singer("x", tract=3.0), ("tract", "3.0")),
        (lambda: Singer("x", lowest=400, highest=450), ("highest", "450")),
        (lambda: Singer.random(-1), ("seed", "-1")),
        (lambda: song.phrases(0), ("count", "0")),
        (lambda: song.render([]), ("songs", "nothing")),
    ],
)
def test_what_is_wrong_is_said(call, words):
    with pytest.raises(ParameterError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: sketch(name) for name in SINGERS}))
