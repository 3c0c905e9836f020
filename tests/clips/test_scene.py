"""What a scene promises beyond its truth: the same everywhere, any size, rate and duration, clear errors."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from avlib import clips
from avlib.errors import ParameterError

GOLDEN = Path(__file__).with_name("golden.json")
ATTRIBUTES = ("position", "size", "hue", "rate")


def digest(kind: str) -> str:
    scene = clips.Scene(kind, 4, 1.5)
    parts = (
        json.dumps(scene.truth.to_dict()).encode(),
        scene.sound(16000).tobytes(),
        scene.frame(0.7, (63, 97)).tobytes(),
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()


def sketch(kind: str) -> dict:
    """Enough of a scene to notice that its recipe has changed."""
    scene = clips.Scene(kind, 11, 2.0)
    return {
        "truth": {
            key: np.round(value, 9).tolist() if key not in ("kind", "seed") else value
            for key, value in scene.truth.to_dict().items()
        },
        "frame": scene.frame(1.0, (64, 64))[4::8, 4::8].tolist(),
        "sound": np.rint(scene.sound(16000)[:, ::801] * 32768).astype(int).tolist(),
    }


def test_there_are_eight_kinds():
    assert len(clips.KINDS) == len(set(clips.KINDS)) == 8
    assert all(kind.isalpha() and kind.islower() for kind in clips.KINDS)


@pytest.mark.parametrize("kind", clips.KINDS)
def test_same_as_ever(kind):
    """The golden file is written anew by `python tests/clips/test_scene.py` where a recipe is changed on purpose."""
    then, now = json.loads(GOLDEN.read_text())[kind], sketch(kind)
    for key, value in then["truth"].items():
        assert now["truth"][key] == (value if key == "kind" else pytest.approx(value, abs=1e-8)), key
    assert np.abs(np.subtract(then["frame"], now["frame"])).max() <= 2
    assert np.abs(np.subtract(then["sound"], now["sound"])).max() <= 2


def test_same_in_another_process():
    script = "import sys; sys.path.insert(0, 'tests/clips'); import test_scene as t; "
    script += "print([t.digest(kind) for kind in t.clips.KINDS])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([digest(kind) for kind in clips.KINDS])


@pytest.mark.parametrize("kind", clips.KINDS)
@pytest.mark.parametrize("size", [(16, 16), (63, 97), (97, 63), (64, 64), (720, 1280)])
def test_any_frame_size(kind, size):
    frame = clips.Scene(kind, 2).frame(3.3, size)
    assert frame.shape == (*size, 3) and frame.dtype == np.uint8 and frame.flags.c_contiguous
    assert frame.std() > 10


@pytest.mark.parametrize("kind", clips.KINDS)
@pytest.mark.parametrize("seconds", [0.1, 2.0, 30.0])
def test_any_duration(kind, seconds):
    scene = clips.Scene(kind, 6, seconds)
    sound = scene.sound(8000)
    assert sound.shape == (2, round(8000 * seconds)) and sound.dtype == np.float32
    assert scene.frame(seconds, (32, 32)).shape == (32, 32, 3)
    longest = clips.Scene(kind, 6, 30.0).truth
    assert scene.truth.onsets == tuple(onset for onset in longest.onsets if onset < seconds)
    assert [getattr(longest, name) for name in ATTRIBUTES] == [getattr(scene, name) for name in ATTRIBUTES]


def test_a_large_picture_is_a_small_one_with_more_detail():
    scene = clips.Scene("engine", 1)
    large, small = scene.frame(2.0, (256, 256)).astype(float), scene.frame(2.0, (64, 64))
    assert np.abs(large.reshape(64, 4, 64, 4, 3).mean((1, 3)) - small).mean() < 3


@pytest.mark.parametrize("kind", clips.KINDS)
def test_a_low_sample_rate_only_lacks_the_high_frequencies(kind):
    scene = clips.Scene(kind, 3, 2.0)
    high, low = (np.fft.rfft(scene.sound(rate)[0].astype(np.float64))[:12000] / rate for rate in (48000, 16000))
    assert np.linalg.norm(high - low) < 0.1 * np.linalg.norm(low)  # up to 6 kHz, two seconds long
    for rate in (11025, 22050, 44100):
        assert scene.sound(rate).shape == (2, 2 * rate)


@pytest.mark.parametrize("kind", clips.KINDS)
def test_sound_is_well_behaved(kind):
    for seed in range(5):
        sound = clips.Scene(kind, seed, 6.0).sound(48000)
        assert np.array_equal(sound, np.rint(sound * 32768) / 32768)
        assert 0.05 < np.abs(sound).max() < 0.9  # neither faint nor clipped
        assert np.abs(sound.mean(1)).max() < 0.003  # no constant part
        step = np.abs(np.diff(sound, 2)).max()
        assert step < 0.06  # no clicks: a jump of a tenth of full scale within one sample would be one


@pytest.mark.parametrize("kind", clips.KINDS)
def test_truth_is_plain_and_in_range(kind):
    truth = clips.Scene(kind, 9, 5.0).truth
    row = truth.to_dict()
    assert json.loads(json.dumps(row)) == row
    assert all(0 <= row[name] < 1 for name in ATTRIBUTES)
    assert len(row["onsets"]) == len(row["loudness"]) == len(row["pitches"]) > 2
    assert row["onsets"] == sorted(row["onsets"]) and row["onsets"][0] >= 0 and row["onsets"][-1] < 5
    assert min(row["loudness"]) >= 0.6 and max(row["loudness"]) <= 1 and min(row["pitches"]) >= row["pitch"]


def test_attributes_are_uniform_and_independent():
    drawn = np.array([[getattr(scene, name) for name in ATTRIBUTES] for scene in clips.scenes(4000, seed=1)])
    assert np.abs(np.sort(drawn, axis=0) - np.linspace(0, 1, 4000)[:, None]).max() < 0.035  # Kolmogorov and Smirnov
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.06


def test_size_spans_two_octaves():
    for kind in clips.KINDS:
        low, high = (clips.Scene(kind, 0, 1.0, size=size).pitch for size in (1.0, 0.0))
        assert high / low == pytest.approx(4)


def test_scenes_are_balanced_distinct_and_derived_from_the_seed():
    first, second = clips.scenes(24, seed=0, seconds=2.0), clips.scenes(24, seed=1, seconds=2.0)
    assert [scene.kind for scene in first] == list(clips.KINDS) * 3
    assert len({scene.seed for scene in (*first, *second)}) == 48
    assert clips.scenes(5, seed=0, seconds=2.0) == first[:5] and clips.scenes(0) == []
    assert {scene.kind for scene in clips.scenes(4, kinds=("bell", "bird"))} == {"bell", "bird"}
    frames = [scene.frame(0.0, (16, 16)).astype(float) for scene in first]
    assert all(np.abs(a - b).mean() > 1 for a, b in combinations(frames, 2))


def test_one_thing_can_be_changed():
    scene = clips.Scene("drum", 5, 2.0)
    other = replace(scene, hue=0.9)
    assert other.truth.onsets == scene.truth.onsets and other.pitch == scene.pitch and other.hue == 0.9
    assert replace(scene, hue=scene.hue) == scene == clips.Scene("drum", 5, 2.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clips.Scene("bel"), ("kind", "'bel'", "Did you mean 'bell'")),
        (lambda: clips.Scene("symphony"), ("kind", "one of 'ball'")),
        (lambda: clips.Scene("bell", -1), ("seed", "-1")),
        (lambda: clips.Scene("bell", 0, 0.0), ("seconds", "more than 0 and at most 30")),
        (lambda: clips.Scene("bell", 0, 31.0), ("seconds", "31.0")),
        (lambda: clips.Scene("bell", 0, float("nan")), ("seconds", "nan")),
        (lambda: clips.Scene("bell", hue=1.5), ("hue", "0 to 1")),
        (lambda: clips.Scene("bell").sound(4000), ("sample_rate", "8000 to 192000")),
        (lambda: clips.Scene("bell").frame(11.0), ("time", "from 0 to 10")),
        (lambda: clips.Scene("bell").frame(1.0, (15, 64)), ("size", "15", "from 16 to 4096")),
        (lambda: clips.scenes(-1), ("count", "-1")),
        (lambda: clips.scenes(2, seed=-3), ("seed", "-3")),
        (lambda: clips.scenes(2, kinds=()), ("kinds", "no kind")),
        (lambda: clips.render([clips.Scene("bell")], frame_rate=0.5), ("frame_rate", "0.5")),
        (lambda: clips.render([clips.Scene("bell")], jobs=0), ("jobs", "0")),
        (lambda: clips.render([clips.Scene("bell")], size=(8, 8)), ("size", "8")),
    ],
)
def test_what_is_wrong_is_said(call, words):
    with pytest.raises(ParameterError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({kind: sketch(kind) for kind in clips.KINDS}))
