"""Talking heads: the truth is measured again in sound and pixels, by means that know nothing of how they were made."""

import csv
import json
import subprocess
import sys
import wave
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from avlib import media
from avlib.clips import heads
from avlib.clips.heads import CLASSES, PHONES, STYLES, VOWELS, WORDS, Head, Talk
from avlib.errors import ParameterError

GOLDEN = Path(__file__).with_name("golden_heads.json")
RATE = 16000


EXAMPLES = {
    "two words": Talk("key moon", 3, 5, seed=7),
    "absent": Talk("dog", 1, 2, seed=3, absent=0.3, frame_rate=12),
}


def sketch(name: str) -> dict:
    """Enough of a talk to notice that its recipe has changed."""
    talk = EXAMPLES[name]
    pixels = [talk.frame(i)[3::11, 5::11].tolist() for i in range(0, talk.frame_count, 9)]
    sound = np.rint(talk.sound()[::101] * 32768).astype(int).tolist()
    return {"truth": talk.truth.to_dict(), "sound": sound, "pixels": pixels}


def crops(talk: Talk, frames: Iterable[int] | None = None) -> list[np.ndarray]:
    """The faces in their boxes; nothing where there is none."""
    chosen = [(talk.frame(i), talk.truth.boxes[i]) for i in (range(talk.frame_count) if frames is None else frames)]
    return [frame[box[1] : box[3], box[0] : box[2]] for frame, box in chosen if box]


def mouth_height(face: np.ndarray) -> float:
    """Share of the face's height that is nearly black or red, in the middle of its lower half."""
    red, green, _ = (face[..., i].astype(float) for i in range(3))
    height, width = green.shape
    skin = np.median(green[round(0.55 * height) : round(0.65 * height), round(0.3 * width) : round(0.7 * width)])
    zone = slice(round(0.6 * height), round(0.9 * height)), slice(round(0.3 * width), round(0.7 * width))
    throat = np.clip(1.1 - 1.7 * green[zone] / skin, 0, 1) * (red[zone] < 1.2 * skin + 60)
    return float(np.sort(throat.sum(0))[-3:].mean()) / height


def units_of(waveform: np.ndarray) -> np.ndarray:
    return waveform[: len(waveform) // 320 * 320].reshape(-1, 320)


def pitch_of(waveform: np.ndarray, near: float) -> float:
    """Hz of the best correlation of two stretches around the middle, within a fifth of `near`."""
    middle, half, lags = len(waveform) // 2, 200, np.arange(int(RATE / near / 1.2), int(RATE / near * 1.2) + 2)
    pairs = [(middle - lag // 2 - half, middle - lag // 2 - half + lag) for lag in lags]
    similar = [np.corrcoef(waveform[a : a + 2 * half], waveform[b : b + 2 * half])[0, 1] for a, b in pairs]
    best = min(max(int(np.argmax(similar)), 1), len(lags) - 2)
    a, b, c = similar[best - 1 : best + 2]
    return RATE / (lags[best] + (a - c) / (2 * (a - 2 * b + c)))


# What is drawn


@pytest.mark.parametrize("name", EXAMPLES)
def test_same_as_ever(name):
    """The golden file is written anew by `python tests/clips/test_heads.py` where a recipe is changed on purpose."""
    then, now = json.loads(GOLDEN.read_text())[name], json.loads(json.dumps(sketch(name)))
    for key, value in then["truth"].items():
        exact = isinstance(value, str) or key in ("words", "phones", "classes", "boxes", "voiced")
        assert now["truth"][key] == (value if exact else pytest.approx(np.array(value), abs=1e-6)), key
    assert np.abs(np.subtract(then["sound"], now["sound"])).max() <= 2
    assert np.abs(np.subtract(then["pixels"], now["pixels"])).max() <= 2


def test_same_in_another_process():
    script = "import zlib; from avlib.clips.heads import Talk; talk = Talk('two gum', 4, 9, seed=5); "
    script += "print(zlib.crc32(talk.sound().tobytes() + talk.frame(9).tobytes()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    talk = Talk("two gum", 4, 9, seed=5)
    assert int(done.stdout) == zlib.crc32(talk.sound().tobytes() + talk.frame(9).tobytes())


def test_every_phone_is_in_three_words():
    spoken = Counter(phone for phones in WORDS.values() for phone in set(phones))
    assert set(spoken) == set(PHONES) and min(spoken.values()) >= 3
    assert ("sil", *PHONES) == CLASSES and len(WORDS) == len(set(WORDS.values())) == 44
    assert all(sum(phone in VOWELS for phone in phones) == 1 for phones in WORDS.values())


def test_words_speakers_and_heads_take_turns_and_can_be_held_out():
    words, voices = sorted(WORDS)[:9], range(20, 24)
    some = heads.talks(18, words, voices, heads=[Head(3, skin=0.2), 7, 9], length=2, seed=1, size=(64, 64))
    assert Counter(word for talk in some for word in talk.words) == dict.fromkeys(words, 4)
    assert set(Counter(talk.speaker.seed for talk in some).values()) == {4, 5}
    assert Counter(talk.head.seed for talk in some) == {3: 6, 7: 6, 9: 6}
    assert {talk.size for talk in some} == {(64, 64)} and len({talk.seed for talk in some}) == 18
    assert {talk.speaker.seed for talk in some} == set(voices) and {talk.head.skin for talk in some} >= {0.2}
    assert heads.talks(5, words, voices, heads=[Head(3, skin=0.2), 7, 9], length=2, seed=1, size=(64, 64)) == some[:5]
    assert {len(talk.words) for talk in heads.talks(2, length=1)} == {1}


def test_speakers_and_heads_differ():
    voices = [heads.speaker_of(seed) for seed in range(40)]
    assert np.corrcoef([v.f0 for v in voices], [v.tract for v in voices])[0, 1] > 0.7
    assert min(v.f0 for v in voices) < 115 and max(v.f0 for v in voices) > 210
    drawn = [Head(seed) for seed in range(40)]
    assert {head.style for head in drawn} == set(STYLES)
    assert len({head.skin for head in drawn}) == len({head.size for head in drawn}) == 40


# What is heard


def test_durations_follow_from_context_and_rate():
    """The neighbours of a phone tell its duration better than the phone alone, at one pace of speech."""
    seconds, near = defaultdict(list), defaultdict(list)
    for talk in heads.talks(80, speakers=[replace(heads.speaker_of(0), pace=1.0)], length=4):
        phones, starts, ends = talk.truth.phones, talk.truth.starts, talk.truth.ends
        for i in range(1, len(phones) - 1):
            if phones[i] != "sil":
                key = (phones[i], phones[i + 1], phones[i + 2 : i + 3] if phones[i] in VOWELS else ())
                seconds[phones[i]].append(ends[i] - starts[i])
                near[key].append(ends[i] - starts[i])
    plain, known = (sum(np.abs(np.subtract(v, np.mean(v))).sum() for v in table.values()) for table in (seconds, near))
    assert known < 0.5 * plain
    before = {
        coda: np.mean([np.mean(v) for (phone, after, _), v in near.items() if (phone, after) == ("ae", coda)])
        for coda in "tnp"
    }
    assert before["n"] > 1.2 * before["t"] and before["n"] > 1.2 * before["p"]
    slow, quick = (Talk("see a cat".replace("a ", ""), 0, 0, 1, rate=rate).truth for rate in (0.7, 1.4))
    said = [np.subtract(truth.word_ends, truth.word_starts) for truth in (slow, quick)]
    assert said[0] / said[1] == pytest.approx(2)


def test_loudness_is_heard_and_seen():
    """One word many times: its loudness is that of its vowel, and the mouth opens wider where it is louder."""
    talk = Talk(("dog",) * 12, 2, 4, seed=1)
    truth, sound = talk.truth, talk.sound()
    vowels = [(a, b) for phone, a, b in zip(truth.phones, truth.starts, truth.ends, strict=True) if phone == "aa"]
    parts = [sound[round((0.7 * a + 0.3 * b) * RATE) : round((0.3 * a + 0.7 * b) * RATE)] for a, b in vowels]
    heard = [np.sqrt(np.mean(part.astype(float) ** 2)) for part in parts]
    assert np.corrcoef(heard, truth.levels)[0, 1] > 0.85 and 0.4 <= min(truth.levels) < max(truth.levels) <= 1
    middles = [int((a + b) / 2 * talk.frame_rate) for a, b in vowels]
    seen = [mouth_height(face) for face in crops(talk, middles)]
    assert np.corrcoef(seen, truth.levels)[0, 1] > 0.95


def test_pitch_and_voicing_are_the_truth():
    for talk in heads.talks(4, length=3, seed=2):
        truth, sound = talk.truth, talk.sound().astype(float)
        assert len(truth.units) == len(truth.hertz) == len(truth.voiced) == len(sound) // 320 == talk.seconds / 0.02
        names = np.array(CLASSES)[truth.units]
        inner = np.isin(names, VOWELS) & np.isin(np.roll(names, 1), VOWELS) & np.isin(np.roll(names, -1), VOWELS)
        found = [pitch_of(sound[k * 320 - 480 : k * 320 + 800], truth.hertz[k]) for k in np.flatnonzero(inner)]
        assert truth.voiced[inner].all() and len(found) > 10
        assert np.quantile(np.abs(np.array(found) / truth.hertz[inner] - 1), 0.9) < 0.02
        assert not truth.voiced[np.isin(names, ("s", "sh")) & np.isin(np.roll(names, 1), ("s", "sh", "sil"))].any()


def test_units_are_the_phones():
    for talk in (Talk("see face", 0, seed=1), Talk("sum pool", 5, seed=2), Talk("goose dog", 9, seed=3)):
        truth, sound = talk.truth, talk.sound().astype(float)
        names = np.array(CLASSES)[truth.units]
        power = (units_of(sound) ** 2).mean(1)
        quiet = (names == "sil") & (np.roll(names, 1) == "sil") & (np.roll(names, -1) == "sil")
        assert quiet.sum() > 4 and power[quiet].max() < 1e-4 * power.max()
        assert power[np.isin(names, VOWELS)].min() > 1e-3 * power.max()
        spectrum = np.abs(np.fft.rfft(units_of(sound) * np.hanning(320))) ** 2
        high = spectrum[:, 60:].sum(1) / (spectrum.sum(1) + 1e-12)  # above 3 kHz
        hissing = (names == "s") & (np.roll(names, -1) == "s") & (np.roll(names, 1) == "s")
        assert hissing.sum() > 2 and high[hissing].min() > 0.6
        assert (high[np.isin(names, VOWELS) & np.isin(np.roll(names, 1), VOWELS)] < 0.5).mean() > 0.9
        spoken = [phone for phone in truth.phones if phone != "sil"]
        assert spoken == [phone for word in talk.words for phone in WORDS[word]]
        assert truth.starts[0] == 0 and truth.starts[1:] == truth.ends[:-1]
        assert truth.ends[-1] == pytest.approx(talk.seconds)
        assert np.array_equal(sound, np.rint(sound * 32768) / 32768) and 0.1 < np.abs(sound).max() < 0.99


def test_everything_else_is_the_same_with_another_head_or_without_one():
    talk = Talk("face map", 3, 1, seed=2)
    other = replace(talk, head=Head(9, skin=0.9), absent=0.5)
    assert np.array_equal(talk.sound(), other.sound()) and np.array_equal(talk.truth.opening, other.truth.opening)
    voice = replace(talk, speaker=heads.speaker_of(8))
    assert (
        voice.truth.levels == talk.truth.levels and abs(voice.truth.hertz.mean() / talk.truth.hertz.mean() - 1) > 0.02
    )


# What is seen


@pytest.mark.parametrize("seed", range(5))
def test_opening_is_measured_in_the_pixels(seed):
    side, head = (96, 128)[seed % 2], Head(seed, skin=seed / 4, style=STYLES[seed])
    talk = Talk("two cat map", seed, head, seed, size=(side, side), frame_rate=8)
    opening, faces = talk.truth.opening, crops(talk)
    assert opening.max() > 0.55 and opening.min() < 0.02
    assert np.corrcoef([mouth_height(face) for face in faces], opening)[0, 1] > 0.995
    measured = [float(heads.mouth_opening(face[None])[0]) for face in faces]
    assert np.corrcoef(measured, opening)[0, 1] > 0.995


def test_mouth_is_shut_for_lips_and_open_for_vowels():
    opening = defaultdict(list)
    for talk in heads.talks(40, length=3, seed=5):
        truth = talk.truth
        for i, value in enumerate(truth.opening):
            if truth.boxes[i]:
                opening[CLASSES[truth.units[2 * i]]].append(value)
    mean = {name: np.mean(values) for name, values in opening.items()}
    assert (
        max(mean["sil"], mean["m"], mean["p"]) < 0.15 < mean["uw"] < mean["iy"] < mean["ih"] < mean["ah"] < mean["aa"]
    )


@pytest.mark.parametrize("size", [(128, 128), (97, 141), (150, 80)])
def test_boxes_contain_the_face_tightly(size):
    """The face is what changes with the colour of the skin."""
    for seed in range(2):
        talk = Talk("cat", 0, Head(seed, skin=0.0, style="bald"), seed, size=size, frame_rate=4)
        dark, unit = replace(talk, head=replace(talk.head, skin=1.0)), min(size)
        for i, (left, upper, right, lower) in enumerate(talk.truth.boxes):
            changed = np.abs(talk.frame(i).astype(int) - dark.frame(i)).max(-1) > 12
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            margins = (columns[0] - left, rows[0] - upper, right - 1 - columns[-1], lower - 1 - rows[-1])
            assert min(margins) >= 0 and max(margins) < 0.09 * unit
            assert 0 <= left < right <= size[1] and 0 <= upper < lower <= size[0]
            assert lower - upper > 0.55 * unit


def test_head_moves_slowly():
    for seed in range(3):
        talk = Talk(tuple(WORDS)[:12], 0, seed, seed)
        middles = np.array([(box[0] + box[2], box[1] + box[3]) for box in talk.truth.boxes]) / 2
        assert np.abs(np.diff(middles, axis=0)).max() <= 2 and np.ptp(middles, axis=0).min() >= 2


def test_frames_without_a_face():
    talk = Talk("food king", 0, 3, seed=6, absent=0.25)
    gaps = [i for i, box in enumerate(talk.truth.boxes) if box is None]
    assert len(gaps) == round(0.25 * talk.frame_count) and gaps == list(range(gaps[0], gaps[0] + len(gaps)))
    empty = talk.frame(gaps[0])
    assert np.array_equal(empty, talk.frame(gaps[-1]))
    outside = next(i for i in range(talk.frame_count) if i not in gaps)
    assert (np.abs(talk.frame(outside).astype(int) - empty).max(-1) > 20).mean() > 0.2
    assert set(Talk("see", absent=1.0).truth.boxes) == {None}


@pytest.mark.parametrize("frame_rate", [12, 23.976, 25, 30, 60])
def test_frames_end_with_the_sound(frame_rate):
    talk = Talk("lake", 0, 0, frame_rate=frame_rate)
    truth = talk.truth
    assert len(talk.sound()) % 640 == 0 and len(truth.opening) == len(truth.boxes) == talk.frame_count
    assert 0 <= len(talk.sound()) / RATE - talk.frame_count / frame_rate < 1 / frame_rate


# Files


def test_files(tmp_path, monkeypatch):
    monkeypatch.setenv("AVLIB_CACHE", str(tmp_path))
    some = [Talk("two", 0, 1, 2, absent=0.3, size=(96, 96)), Talk("pan", 5, 2, 3, size=(80, 97), frame_rate=12)]
    table = heads.render(some, jobs=1, progress=False)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["words"] for row in rows] == ["two", "pan"] and tuple(rows[0]) == heads.COLUMNS
    for talk, row in zip(some, rows, strict=True):
        path = Path(row["path"])
        info = media.probe(path)
        assert json.loads(path.with_suffix(".json").read_text()) == json.loads(json.dumps(talk.truth.to_dict()))
        assert json.loads(Path(row["boxes"]).read_text()) == json.loads(json.dumps(talk.truth.boxes))
        with wave.open(row["audio"]) as file:
            samples = np.frombuffer(file.readframes(10**9), "<i2")
        assert np.array_equal(samples, np.rint(talk.sound() * 32768))
        assert info.video.frames == talk.frame_count and info.audio.sample_rate == RATE
        read = media.read_clip(path, lambda count, rate: list(range(count)), sample_rate=RATE)
        pictures = read.frames.permute(0, 2, 3, 1).numpy()
        height, width = talk.size
        assert pictures.shape == (talk.frame_count, height, width + width % 2, 3)  # h264 wants even sizes
        seen = [i for i, box in enumerate(talk.truth.boxes) if box]
        faces = [pictures[i, a[1] : a[3], a[0] : a[2]] for i in seen for a in [talk.truth.boxes[i]]]
        opening = [float(heads.mouth_opening(face[None])[0]) for face in faces]
        assert np.corrcoef(opening, talk.truth.opening[seen])[0, 1] > 0.97
        with av.open(str(path)) as container:
            assert "synthetic" in container.metadata["title"] and "synthetic" in container.metadata["comment"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert heads.render(some, jobs=1, progress=False) == table
    assert all(path.stat().st_mtime_ns == before[path] for path in before if path.suffix in (".mp4", ".wav"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Talk("catt"), ("words", "'catt'", "cat")),
        (lambda: Talk(""), ("words", "0 of them")),
        (lambda: Talk(("cat",) * 41), ("words",)),
        (lambda: Talk("cat", -1), ("speaker", "-1")),
        (lambda: Talk("cat", head="bald"), ("head", "bald")),
        (lambda: Talk("cat", rate=3), ("rate", "3", "0.5 to 2")),
        (lambda: Talk("cat", absent=1.1), ("absent", "1.1")),
        (lambda: Talk("cat", size=(16, 16)), ("size[0]", "16")),
        (lambda: Talk("cat", frame_rate=0), ("frame_rate", "0")),
        (lambda: Talk("cat").frame(10_000), ("index", "10000")),
        (lambda: Head(style="punk"), ("style", "punk")),
        (lambda: heads.talks(0), ("count", "0")),
        (lambda: heads.talks(3, words=()), ("words", "none")),
        (lambda: heads.talks(3, heads=0), ("heads", "0")),
        (lambda: heads.render([]), ("talks", "nothing")),
    ],
)
def test_what_is_wrong_is_said(call, words):
    with pytest.raises(ParameterError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: sketch(name) for name in EXAMPLES}))
