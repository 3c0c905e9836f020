"""The corpus: balanced by construction, the label hidden from who does not know the word, files and table."""

import csv
import io
import json
import math
import os
import wave
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avlib import media, view
from avlib.clips import speech
from avlib.clips.speech import Speaker, Spoken
from avlib.errors import CacheError, ParameterError


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVLIB_CACHE", str(tmp_path))
    return tmp_path


def rows_of(table: Path) -> list[dict]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


# The list


def test_default_is_balanced_in_every_way():
    spoken = speech.corpus()
    assert len(spoken) == 8 * 48 * 2
    assert set(Counter((one.word, one.pronunciation) for one in spoken).values()) == {48}
    assert set(Counter((one.speaker, one.word, one.pronunciation) for one in spoken).values()) == {1}
    assert set(Counter((one.said, one.pronunciation) for one in spoken).values()) == {48}
    assert len({one.seed for one in spoken}) == len(spoken)  # no take twice


@pytest.mark.parametrize("abnormal", [0, 0.1, 0.15, 1 / 3, 0.5, 0.75, 1])
@pytest.mark.parametrize(("speakers", "takes"), [(7, 1), (20, 3)])
def test_a_share_of_abnormal_ones_is_the_same_for_both_words(abnormal, speakers, takes):
    spoken = speech.corpus(4, speakers, takes, abnormal=abnormal, seed=3)
    assert len(spoken) == 4 * speakers * takes
    count = Counter(one.word for one in spoken if one.pronunciation == "abnormal")
    for one, other in speech.PAIRS[:2]:
        assert count[one] == count[other] and abs(count[one] - abnormal * speakers * takes) < 1
    heard = Counter((one.speaker, one.said, one.pronunciation) for one in spoken)
    for (speaker, said, pronunciation), number in heard.items():
        assert heard[speaker, speech.PARTNER[said], pronunciation] == number


def test_more_speakers_only_add_at_the_end_and_seeds_share_nothing():
    few, many = speech.corpus(6, 5), speech.corpus(6, 9)
    assert many[: len(few)] == few
    others = speech.corpus(6, 5, seed=1)
    assert not {one.seed for one in few} & {one.seed for one in others}
    assert not {one.speaker.seed for one in few} & {one.speaker.seed for one in others}


def test_ages_take_turns():
    ages = Counter({one.speaker: one.speaker.age for one in speech.corpus(2, 28)}.values())
    assert ages == dict.fromkeys(speech.AGES, 2)
    assert {one.speaker.age for one in speech.corpus(2, 5, ages=[4, 7.5])} == {4, 7.5}


def test_words_and_noise_can_be_chosen():
    spoken = speech.corpus(["rock", "lock"], 2, 2, snr=math.inf)
    assert [one.word for one in spoken[:4]] == ["rock", "rock", "lock", "lock"]
    assert {one.snr for one in spoken} == {math.inf}
    assert {one.snr for one in speech.corpus(2, 2, snr=7)} == {7.0}


def test_noise_is_drawn_within_its_range_and_tells_nothing():
    spoken = speech.corpus(16, 30, snr=(-3, 9))
    snr = np.array([one.snr for one in spoken])
    assert np.abs(np.sort(snr) - np.linspace(-3, 9, len(snr))).max() < 0.06 * 12  # uniform: Kolmogorov and Smirnov
    assert 0.44 < roc_auc_score([one.pronunciation == "abnormal" for one in spoken], snr) < 0.56
    assert (min(speech.SNR_RANGE), max(speech.SNR_RANGE)) == speech.SNR_RANGE
    assert all(speech.SNR_RANGE[0] <= one.snr < speech.SNR_RANGE[1] for one in speech.corpus(2, 3))


# What the sound tells of the label


def test_duration_tells_nothing():
    spoken = speech.corpus(16, 24)
    seconds = np.array([one.seconds for one in spoken])
    abnormal = np.array([one.pronunciation == "abnormal" for one in spoken])
    words = np.array([one.word for one in spoken])
    assert 0.4 < roc_auc_score(abnormal, seconds) < 0.6
    centred = seconds.copy()
    for word in set(words):  # to one who knows the word, either
        centred[words == word] -= seconds[words == word].mean()
    assert 0.44 < roc_auc_score(abnormal, centred) < 0.56


def test_without_the_word_the_label_is_not_there_and_with_it_it_is():
    """Means and deviations of mel bands, logistic regression, a third of the speakers held out."""
    spoken = speech.corpus(["sip", "ship", "key", "tea"], 36, 2, snr=30)
    bands = np.geomspace(200, 7900, 21)
    frequency = np.fft.rfftfreq(400, 1 / 16000)
    filters = np.array([(frequency >= low) & (frequency < high) for low, high in pairwise(bands)])
    features = []
    for one in spoken:
        frames = np.lib.stride_tricks.sliding_window_view(one.sound(), 400)[::160] * np.hanning(400)
        log = np.log(np.abs(np.fft.rfft(frames)) ** 2 @ filters.T.astype(float) + 1e-9)
        features.append([*log.mean(0), *log.std(0)])
    features = np.array(features)
    label = np.array([one.pronunciation == "abnormal" for one in spoken])
    word = np.array([one.word for one in spoken])
    held_out = np.array([one.speaker.seed % 3 == 0 for one in spoken])

    def recall(which):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        model.fit(features[which & ~held_out], label[which & ~held_out])
        return balanced_accuracy_score(label[which & held_out], model.predict(features[which & held_out]))

    assert 0.35 < recall(word != "") < 0.65
    assert np.mean([recall(word == one) for one in set(word)]) > 0.9


# The files


def test_files_and_table_hold_what_was_asked_for(own_cache):
    spoken = [*speech.corpus(2, 2, snr=20), Spoken("moon", Speaker(4, age=3.5), seed=1, snr=math.inf)]
    table = speech.render(spoken, jobs=1, progress=False)
    rows = rows_of(table)
    assert table.is_relative_to(own_cache) and tuple(rows[0]) == speech.COLUMNS and len(rows) == len(spoken)
    for row, one in zip(rows, spoken, strict=True):
        assert (row["label"], row["word"], row["speaker"]) == (one.pronunciation, one.word, one.speaker.name)
        assert (float(row["age"]), float(row["snr"])) == (one.speaker.age, one.snr)
        with wave.open(row["path"]) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            assert file.getnframes() / 16000 == float(row["seconds"])
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.array_equal(samples, one.sound() * 32768)
        assert np.array_equal(media.read_audio(row["path"]).numpy(), one.sound())
        assert json.loads(Path(row["path"]).with_suffix(".json").read_text()) == one.truth.to_dict()


def test_metadata_says_that_it_is_synthetic(own_cache):
    import av

    (row,) = rows_of(speech.render([Spoken("sum", Speaker(1), "abnormal")], progress=False))
    with av.open(row["path"]) as container:
        assert "synthetic" in container.metadata["title"] and "sum" in container.metadata["title"]
        assert json.loads(container.metadata["comment"])["said"] == "thumb"


def test_rendered_once_and_only_what_is_missing(own_cache):
    spoken = speech.corpus(2, 3)
    table = speech.render(spoken, jobs=1, progress=False)
    paths = [Path(row["path"]) for row in rows_of(table)]
    born = [path.stat().st_mtime_ns for path in paths]
    before = paths[4].read_bytes()
    paths[4].unlink()
    (paths[4].parent / ".unfinished-1-left.wav").write_text("by a process that was killed")
    assert speech.render([*spoken, spoken[0]], jobs=1, progress=False) != table
    assert speech.render(spoken, jobs=1, progress=False) == table
    again = [path.stat().st_mtime_ns for path in paths]
    assert again[:4] + again[5:] == born[:4] + born[5:] and paths[4].read_bytes() == before
    assert not list(own_cache.rglob(".unfinished-*"))


def test_each_setting_has_its_own_file(own_cache):
    def path(**changed):
        (row,) = rows_of(speech.render([Spoken(**{"word": "key", "speaker": Speaker(1)} | changed)], progress=False))
        return row["path"]

    others = [{"snr": 3}, {"seed": 1}, {"pronunciation": "abnormal"}, {"speaker": Speaker(1, age=9.0, f0=300)}]
    assert len({path(), *(path(**other) for other in others)}) == 5


def test_several_jobs_make_the_same_files(own_cache, monkeypatch):
    spoken = speech.corpus(2, 2)
    one = [Path(row["path"]) for row in rows_of(speech.render(spoken, jobs=1, progress=False))]
    monkeypatch.setenv("AVLIB_CACHE", str(own_cache / "other"))
    two = [Path(row["path"]) for row in rows_of(speech.render(spoken, jobs=2, progress=False))]
    assert [path.name for path in one] == [path.name for path in two]
    assert all(a != b and a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AVLIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match="AVLIB_CACHE"):
        speech.render(speech.corpus(2, 1), progress=False)


# espeak-ng, where it is


def fake_espeak(folder: Path, script: str) -> None:
    program = folder / "espeak-ng"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_without_espeak_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not speech.has_espeak()
    with pytest.raises(ParameterError, match=r"espeak-ng: is not on this machine.*apt install espeak-ng"):
        speech.espeak("ring")


def test_espeak_is_asked_for_the_word_that_is_heard(tmp_path, monkeypatch):
    with wave.open(str(tmp_path / "spoken.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(np.zeros(22050, "<i2").tobytes())
    fake_espeak(tmp_path, f'echo "$@" > {tmp_path}/asked; cp {tmp_path}/spoken.wav "$8"')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert speech.has_espeak()
    waveform, rate = said = speech.espeak("ring", "abnormal")
    assert waveform.shape == (1, 16000) and rate == 16000  # a second, brought to 16 kHz
    with wave.open(io.BytesIO(view.play(*said).content)) as player:
        assert (player.getnchannels(), player.getframerate(), player.getnframes()) == (1, 16000, 16000)
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:6] == ["-v", "en-us", "-p", "70", "-s", "130"] and asked[-2:] == ["--", "wing"]


def test_espeak_that_fails(tmp_path, monkeypatch):
    fake_espeak(tmp_path, "echo 'no such voice' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ParameterError, match="no such voice"):
        speech.espeak("ring")


# What is refused


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: speech.corpus(3), ("words", "3", "an even number from 2 to 16")),
        (lambda: speech.corpus(18), ("words", "18")),
        (lambda: speech.corpus(["ring"]), ("words", "'ring' without 'wing'")),
        (lambda: speech.corpus("ring"), ("words", "'ring' without 'wing'")),
        (lambda: speech.corpus(["ring", "wingg"]), ("words", "'ring' without 'wing'")),
        (lambda: speech.corpus(["wingg", "ring"]), ("words", "Did you mean 'wing'")),
        (lambda: speech.corpus([]), ("words", "each once")),
        (lambda: speech.corpus(["key", "tea", "key"]), ("words", "each once")),
        (lambda: speech.corpus(speakers=0), ("speakers", "0")),
        (lambda: speech.corpus(takes=0), ("takes", "0")),
        (lambda: speech.corpus(abnormal=1.2), ("abnormal", "1.2", "from 0 to 1")),
        (lambda: speech.corpus(seed=-1), ("seed", "-1")),
        (lambda: speech.corpus(ages=[]), ("ages", "none")),
        (lambda: speech.corpus(2, 1, ages=[40]), ("age", "40")),
        (lambda: speech.corpus(2, 1, snr=200), ("snr", "200")),
        (lambda: speech.corpus(2, 1, snr=(9, 3)), ("snr", "3", "from 9 to 100")),
        (lambda: speech.corpus(2, 1, snr=[5]), ("snr", "[5]", "the lowest and the highest")),
        (lambda: speech.corpus(2, 1, snr=(0, math.inf)), ("snr", "inf")),
        (lambda: speech.corpus(2, 1, snr=(-90, 10)), ("snr", "from -40 to 100")),
        (lambda: speech.render([]), ("spoken", "nothing")),
        (lambda: speech.render(speech.corpus(2, 1), jobs=0), ("jobs", "0")),
        (lambda: speech.espeak("rong"), ("word", "Did you mean 'ring'")),
        (lambda: speech.espeak("ring", "odd"), ("pronunciation", "'normal', 'abnormal'")),
    ],
)
def test_what_is_wrong_with_a_corpus_is_said(call, words):
    with pytest.raises(ParameterError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
