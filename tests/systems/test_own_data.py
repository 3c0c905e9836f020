"""Trainings on the user's files: what is chosen to fit them, counted, left out and refused."""

import shutil

import numpy as np
import pytest
import soundfile
import soxr

from avlib import clips
from avlib.__main__ import main
from avlib.datasets import sources
from avlib.systems import audiotoken, cav_mae, changed, classification, svc, unit2av

SMALL = ["-p", "width=32", "-p", "decoder_width=32", "-p", "frames=2", "-p", "steps=1", "-p", "warmup=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 clips in folders of kinds, two of them damaged."""
    root = tmp_path_factory.mktemp("clips")
    for n, clip in enumerate(clips.render(clips.scenes(12, 7, 0.5), size=(64, 64), jobs=1, progress=False)):
        (root / clip.scene.kind).mkdir(exist_ok=True)
        shutil.copy(clip.path, root / clip.scene.kind / f"{n}.mp4")
    files = sorted(root.rglob("*.mp4"))
    files[1].write_bytes(b"no video")
    files[6].write_bytes(files[6].read_bytes()[:900])
    return root


def test_a_quarter_is_held_out_unless_a_number_is_given():
    assert [sources.number_to_hold_out(None, count, 320) for count in (1, 2, 3, 4, 50, 4000)] == [0, 1, 1, 2, 12, 320]
    assert sources.number_to_hold_out(49, 50, 320) == 49 and sources.number_to_hold_out(0, 50, 320) == 0


def test_the_command_trains_on_a_small_damaged_folder_at_the_first_try(folder, capsys):
    assert main(["train", "cav_mae", "--data", str(folder), *SMALL]) == 0
    printed = capsys.readouterr()
    assert "9 clips to train on" in printed.out and "4 instead of 64 for pretraining" in printed.out
    counts = [line for line in printed.out.splitlines() if "items " in line]
    trained, held_out = (int(line.split()[0]) for line in counts)
    left = [int(line.split(". ")[1].split()[0]) for line in counts]
    assert trained + held_out + sum(left) == 12 and sum(left) == 2, "ten of twelve clips are whole"
    assert printed.err.count("MediaError") + printed.out.count("MediaError") == 2


def test_what_cannot_work_is_refused_before_anything_is_read(folder, capsys, monkeypatch):
    monkeypatch.setattr("avlib.media.read_clip", lambda *given, **how: pytest.fail("a clip is read"))
    for chosen, found in {
        "batch_size=10": "batch_size: 10; expected at most 9",
        "held_out=12": "held_out: 12, which leaves no clip to train on",
        "held_out=13": "held_out: 13; expected 0 to 12",
    }.items():
        assert main(["train", "cav_mae", "--data", str(folder), *SMALL, "-p", chosen]) == 2
        assert found in capsys.readouterr().err


def test_given_values_and_built_in_data_are_left_alone(folder):
    own = {"data": str(folder), "embedder.batch_size": 9, "on_error": "raise"}
    fitted = audiotoken.fitted(changed(audiotoken.tiny, own), own)
    assert (fitted.embedder.training.batch_size, fitted.data.on_error) == (9, "raise")
    other = audiotoken.fitted(changed(audiotoken.tiny, {"data": str(folder)}))
    assert (other.embedder.training.batch_size, other.classifier.training.batch_size) == (4, 32)
    for row in (audiotoken, cav_mae, classification, svc, unit2av):
        assert row.fitted(row.tiny) == row.tiny


def test_a_folder_of_each_row_skips_what_is_damaged(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file in "abcdef":
            soundfile.write(tmp_path / name / f"{file}.wav", np.zeros(8000), 16000)
    for row in (classification, svc, unit2av):
        settings = changed(row.tiny, {"data.data": str(tmp_path)})
        assert (settings.data.on_error, row.fitted(settings).data.on_error) == ("raise", "skip")


def test_the_largest_batch_is_what_is_left(folder):
    values = {"data": str(folder), "on_error": "skip", "batch_size": 9, "steps": 1, "width": 32, "frames": 2}
    settings = changed(cav_mae.tiny, values | {"decoder_width": 32, "warmup": 1})
    result = cav_mae.trained(settings, progress=False)
    note = (result.folder / "data.txt").read_text()
    count = len(cav_mae.data(settings, progress=False))
    assert note.startswith(f"{count} items to train on. {9 - count} of 9 items left out") and count < 9
    assert f"A batch has all {count}: 9, its size, is more." in note


def test_clips_are_prepared_once(folder, monkeypatch):
    from avlib.datasets.cav_mae import CAVMAEDataset

    read = []
    contents = CAVMAEDataset.contents
    monkeypatch.setattr(CAVMAEDataset, "contents", lambda self, n: read.append(str(self.items[n])) or contents(self, n))
    settings = changed(cav_mae.tiny, {"data": str(folder), "on_error": "skip", "frames": 3, "image_size": 32})
    for _ in range(2):
        whole = cav_mae.data(settings, progress=False)
        cav_mae.held_out(settings, progress=False), cav_mae.means(settings, progress=False)
        tuning = cav_mae.data(changed(settings, {"stage": "fine_tuning"}), progress=False)
    assert tuning.augmentation == settings.fine_tuning.augmentation and whole.memory is tuning.memory
    left = len(cav_mae.items_of(settings, None)[0]) - len(whole)
    assert len(read) <= 12 + 2 and len(set(read)) == 12 and left in (0, 1, 2), "a second time to say why"


def test_classification_keeps_the_best_pass_and_prints_each_class(tmp_path, capsys):
    dice = np.random.default_rng(0)
    lines = ["path,label,speaker"]
    for n in range(24):
        tone = np.sin(np.arange(8000) * (0.1, 0.6)[n % 2]) * 0.3 + 0.01 * dice.standard_normal(8000)
        soundfile.write(tmp_path / f"{n}.wav", tone, 16000)
        lines.append(f"{n}.wav,{('낮음', '높음')[n % 2]},s{n // 2}")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    (tmp_path / "table.csv").write_text("\n".join([*lines, "empty.wav,낮음,s0"]), encoding="utf-8")
    given = {"data": str(tmp_path / "table.csv")}
    settings = classification.fitted(changed(classification.tiny, given), given)
    assert settings.training.best and settings.training.monitor == "valid loss"
    for values in ({"best": False}, {"k_fold": 2}, {"valid_size": 0}):
        assert not classification.fitted(changed(classification.tiny, given | values), given | values).training.best
    assert main(["train", "classification", "--data", given["data"], "-p", "steps=4"]) == 0
    printed = capsys.readouterr()
    report = next(line for line in printed.out.splitlines() if line.split()[:1] == ["낮음"]).split()
    rows = [line.split() for line in printed.out.splitlines() if line.split()[1:2] in (["낮음"], ["높음"])]
    counts = np.array([row[2:] for row in rows], dtype=int)
    assert counts.shape == (2, 2) and counts.sum(axis=1).tolist() == [int(report[-1])] * 2
    assert float(report[2]) == pytest.approx(counts[0, 0] / counts[0].sum(), abs=0.005), "recall"
    assert "items left out" in printed.out + printed.err and "empty.wav" in printed.out + printed.err


def test_recordings_of_a_narrow_band_are_reported(tmp_path, capsys):
    dice = np.random.default_rng(0)
    for n in range(6):
        noise = 0.1 * dice.standard_normal(8000)
        soundfile.write(tmp_path / f"wide{n}.wav", 0.1 * dice.standard_normal(16000), 16000)
        soundfile.write(tmp_path / f"narrow{n}.wav", noise, 8000)
        soundfile.write(tmp_path / f"upsampled{n}.wav", soxr.resample(noise, 8000, 16000), 16000)
    kinds = {kind: sorted(tmp_path.glob(f"{kind}*")) for kind in ("wide", "narrow", "upsampled")}
    assert sources.narrow_bands(kinds["wide"]) == sources.narrow_bands([]) == ""
    said = sources.narrow_bands(kinds["narrow"])
    assert "6 of 6 recordings looked at (6 of 8000 Hz) have nothing above 4.0 kHz" in said and "to 8 kHz" in said
    said = sources.narrow_bands([*kinds["wide"], *kinds["upsampled"], tmp_path / "gone.wav"])
    assert "6 of 12 recordings looked at (12 of 16000 Hz) have nothing above" in said
    edge = float(said.split("above ")[1].split(" kHz")[0])
    assert 3.6 < edge < 4.2, "soxr keeps up to 0.91 of 4 kHz"
    assert "2 of 4" in sources.narrow_bands([*kinds["wide"][:2], *kinds["narrow"][:2]])
    unit2av.fitted(changed(unit2av.tiny, {"data.data": str(tmp_path)}))
    assert "12 of 18 recordings looked at (6 of 8000 Hz, 12 of 16000 Hz)" in capsys.readouterr().out
