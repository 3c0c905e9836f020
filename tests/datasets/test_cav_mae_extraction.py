"""Extraction: the published files bit for bit where that can be, resumable after a kill, nothing overwritten."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from conftest import ROOT, recording
from making import numbered, tone, write_clip
from PIL import Image
from torchvision import transforms as T
from torchvision.utils import save_image

from avlib import media
from avlib.datasets import cav_mae
from avlib.errors import CacheError, DatasetError, MediaError, ParameterError

QUIET = {"jobs": 1, "progress": False}


def clip(path: Path, *labels: str, number: int = 0) -> cav_mae.ClipItem:
    """A second of twelve pictures that count from `number`, and a tone that goes with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = tone(1.0, 16000, 300.0 + 10 * number, channels=2)
    media.write_video(path, (numbered(number + i) for i in range(12)), 12.0, waveform, 16000)
    return cav_mae.ClipItem(labels, path)


def content(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["00W1lcxW-WU_40.000.mp4", "KlsG1EnBEjc_000361.mp4", "made.mp4"])
def test_it_reads_back_as_the_published_pipeline_gives_it(tmp_path, name):
    path = write_clip(tmp_path / name, frames=260) if name == "made.mp4" else recording(name)
    target = tmp_path / "out"
    extraction = cav_mae.extract([cav_mae.ClipItem(("dog",), path)], target, channel=0, **QUIET)
    (entry,) = json.loads(extraction.table.read_text())["data"]
    video_id = name.removesuffix(".mp4")
    assert entry == {
        "video_id": video_id,
        "wav": str(target / "wav" / f"{video_id}.wav"),
        "video_path": str(target),
        "labels": "dog",
    }

    # ffmpeg -ar 16000, then the first channel; 16 bit, mono
    wav = soundfile.info(entry["wav"])
    assert (wav.samplerate, wav.channels, wav.subtype) == (16000, 1, "PCM_16")
    samples = torch.from_numpy(soundfile.read(entry["wav"], dtype="float32")[0])
    first = media.read_audio(path, 16000, channel=0).clamp(-1, 1)
    assert samples.shape == first.shape and (samples - first).abs().max() <= 1.01 / 32768

    # ten frames: RGB -> Resize(224) -> CenterCrop(224) -> ToTensor -> save_image
    count = {"00W1lcxW-WU_40.000.mp4": 125, "made.mp4": 250, "KlsG1EnBEjc_000361.mp4": 299}[name]  # of ten seconds
    steps = T.Compose([T.Resize(224), T.CenterCrop(224), T.ToTensor()])
    seeks = [max(0, int(i * (count / 10)) - 1) for i in range(10)]
    for i, frame in enumerate(media.read_frames(path, seeks)):
        save_image(steps(T.ToPILImage()(frame)), tmp_path / "published.jpg")
        assert (target / f"frame_{i}" / f"{video_id}.jpg").read_bytes() == (tmp_path / "published.jpg").read_bytes()

    # and read back: what the published loader makes of these files
    table = cav_mae.LabelTable.read(extraction.labels)
    fbank, image, labels = cav_mae.CAVMAEDataset(cav_mae.read_items(extraction.table), table)[0]
    kaldi = torchaudio.compliance.kaldi.fbank(
        (samples - samples.mean())[None], htk_compat=True, sample_frequency=16000, use_energy=False,
        window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip
    padded = torch.nn.functional.pad(kaldi, (0, 0, 0, max(0, 1024 - len(kaldi))))[:1024]
    torch.testing.assert_close(fbank, (padded + 5.081) / 4.4849, atol=2e-4, rtol=1e-4)
    steps = [T.Resize(224, T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor()]
    steps += [T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    expected = T.Compose(steps)(Image.open(target / "frame_5" / f"{video_id}.jpg"))
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=1e-5)
    assert labels.tolist() == [1.0]


def test_channels_are_averaged_unless_one_is_asked_for(tmp_path):
    item = cav_mae.ClipItem((), write_clip(tmp_path / "x.mp4", sound_rate=16000))
    for channel in (None, 0, 1):
        cav_mae.extract([item], tmp_path / "out", channel=channel, **QUIET)
        samples = soundfile.read(tmp_path / "out" / "wav" / "x.wav", dtype="float32")[0]
        expected = media.read_audio(item.path, 16000, channel=channel)
        assert np.abs(samples - expected.numpy()).max() <= 1.01 / 32768  # done again, as the setting is another


def test_tables_and_weights(tmp_path):
    names = ["#1, a dog.mp4", "a.b.c.mp4", "two  spaces .mp4"]
    table = cav_mae.LabelTable(("/m/1", "/m/2", "/m/3"), ("dog", "Bark, loud", "bell"))
    labels = [("dog", "Bark, loud"), ("/m/1",), ()]
    items = [clip(tmp_path / name, *mids, number=i) for i, (name, mids) in enumerate(zip(names, labels, strict=True))]
    extraction = cav_mae.extract(items, tmp_path / "out", table, name="train", **QUIET)
    assert extraction.table.name == "train.json" and extraction.weights.name == "train_weight.csv"
    entries = json.loads(extraction.table.read_text())["data"]
    assert [entry["video_id"] for entry in entries] == [name.removesuffix(".mp4") for name in names]
    assert [entry["labels"] for entry in entries] == ["/m/1,/m/2", "/m/1", ""]
    assert cav_mae.LabelTable.read(extraction.labels) == table
    weights = np.loadtxt(extraction.weights)
    assert weights.tolist() == pytest.approx([1000 / 2.01 + 1000 / 1.01, 1000 / 2.01, 0])
    dataset = cav_mae.CAVMAEDataset(cav_mae.read_items(extraction.table), cav_mae.LabelTable.read(extraction.labels))
    assert [dataset[index].labels.tolist() for index in range(3)] == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert not extraction.skipped and extraction.report == "0 of 3 items left out"


def test_a_list_of_one_line_is_extracted(tmp_path):
    clip(tmp_path / "#1, x.mp4")
    (tmp_path / "list.txt").write_text("#1, x.mp4\n")
    extraction = cav_mae.extract(cav_mae.read_items(tmp_path / "list.txt"), tmp_path / "out", **QUIET)
    assert len(cav_mae.read_items(extraction.table)) == 1


def test_equal_names_in_two_folders_stay_apart(tmp_path):
    items = [clip(tmp_path / folder / "x.mp4", folder, number=i) for i, folder in enumerate(["bell", "dog"])]
    items.append(clip(tmp_path / "dog" / "y.mp4", "dog", number=2))
    extraction = cav_mae.extract(cav_mae.read_items(tmp_path), tmp_path / "out", **QUIET)
    found = cav_mae.read_items(extraction.table)
    assert len({item.video_id for item in found}) == 3 and found[2].video_id == "y"
    assert all(item.video_id.startswith("x-") for item in found[:2])
    for item, source in zip(found, items, strict=True):
        assert item.labels == source.labels
        samples = soundfile.read(item.wav, dtype="float32")[0]
        assert np.abs(samples - media.read_audio(source.path, 16000).numpy()).max() <= 1.01 / 32768
    before = content(tmp_path / "out")
    cav_mae.extract(list(reversed(items)), tmp_path / "out", **QUIET)  # the names do not follow from the order
    after = content(tmp_path / "out")
    assert {name: after[name] for name in before if "/" in name} == {n: before[n] for n in before if "/" in n}


def test_equal_names_in_two_runs_are_refused(tmp_path):
    one, other = clip(tmp_path / "1" / "x.mp4"), clip(tmp_path / "2" / "x.mp4", number=5)
    cav_mae.extract([one], tmp_path / "out", **QUIET)
    before = content(tmp_path / "out")
    with pytest.raises(DatasetError, match=r"has a clip x already, made from .*1/x\.mp4"):
        cav_mae.extract([other], tmp_path / "out", **QUIET)
    assert content(tmp_path / "out") == before


def test_what_is_done_is_not_done_again(tmp_path):
    items = [clip(tmp_path / "a.mp4"), clip(tmp_path / "b.mp4", number=1)]
    cav_mae.extract(items, tmp_path / "out", **QUIET)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("frame_*/*")}
    clip(tmp_path / "b.mp4", number=2)  # changed
    os.utime(tmp_path / "b.mp4", ns=(1, 1))
    cav_mae.extract(items, tmp_path / "out", **QUIET)
    again = {path.stem for path, before in times.items() if path.stat().st_mtime_ns != before}
    assert again == {"b"}
    (tmp_path / "out" / "frame_3" / "a.jpg").unlink()
    cav_mae.extract(items, tmp_path / "out", **QUIET)
    assert (tmp_path / "out" / "frame_3" / "a.jpg").exists()


def test_a_clip_without_sound_under_both_policies(tmp_path):
    good = [clip(tmp_path / "a.mp4", "x"), clip(tmp_path / "c.mp4", "y", number=1)]
    media.write_video(tmp_path / "b.mp4", map(numbered, range(12)), 12.0)
    silent, gone = cav_mae.ClipItem(("x",), tmp_path / "b.mp4"), cav_mae.ClipItem(("y",), tmp_path / "gone.mp4")
    everything = [good[0], silent, gone, good[1]]
    with pytest.raises(MediaError, match=r"b\.mp4: no audio stream"):
        cav_mae.extract(everything, tmp_path / "out", **QUIET)
    assert not (tmp_path / "out" / "data.json").exists()
    extraction = cav_mae.extract(everything, tmp_path / "out", on_error="skip", **QUIET)
    assert [item.video_id for item in cav_mae.read_items(extraction.table)] == ["a", "c"]
    assert [type(error) for error in extraction.skipped] == [MediaError, MediaError]
    first, *reasons = extraction.report.splitlines()
    assert first == "2 of 4 items left out"
    assert "b.mp4: no audio stream" in reasons[0] and "gone.mp4: no such file" in reasons[1]
    assert not list((tmp_path / "out").glob("*/b.*"))
    assert len(np.loadtxt(extraction.weights)) == 2


def test_an_unknown_label_stops_before_anything_is_done(tmp_path):
    items = [clip(tmp_path / "a.mp4", "dog"), clip(tmp_path / "b.mp4", "cat")]
    table = cav_mae.LabelTable(("dog",), ("dog",))
    with pytest.raises(DatasetError, match=r"b\.mp4: unknown label 'cat'"):
        cav_mae.extract(items, tmp_path / "out", table, **QUIET)
    assert not (tmp_path / "out").exists()
    extraction = cav_mae.extract(items, tmp_path / "out", table, on_error="skip", **QUIET)
    assert "1 of 2 items left out\n  DatasetError: " in extraction.report
    with pytest.raises(ParameterError, match="on_error"):
        cav_mae.extract(items, tmp_path / "out", table, on_error="zeros", **QUIET)


EXTRACT = """
import sys
from avlib.datasets import cav_mae
if __name__ == "__main__":
    cav_mae.extract(cav_mae.read_items(sys.argv[1]), sys.argv[2], jobs=2)
"""


def test_killed_in_the_middle_and_resumed(tmp_path, capfd):
    clips, target, whole = tmp_path / "clips", tmp_path / "out", tmp_path / "whole"
    clips.mkdir()
    for number in range(24):
        write_clip(clips / f"{number:02}.mp4", frames=20)
    script = tmp_path / "script.py"
    script.write_text(EXTRACT)
    command, environment = (
        [sys.executable, str(script), str(clips), str(target)],
        {**os.environ, "PYTHONPATH": str(ROOT)},
    )
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while len(list((target / "done").glob("*.json"))) < 5:
        assert killed.poll() is None
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = {path: path.stat().st_mtime_ns for path in (target / "done").glob("[!.]*.json")}
    assert 5 <= len(done) < 24 and not (target / "data.json").exists()
    for path in target.glob("frame_*/[!.]*.jpg"):
        Image.open(path).load()  # what is there is whole
    (target / "wav" / ".unfinished-1-23.wav").write_bytes(b"half")  # as a kill at another moment leaves it

    resumed = cav_mae.extract(cav_mae.read_items(clips), target, jobs=1)
    assert resumed.report == "0 of 24 items left out" and "extracting" in capfd.readouterr().err
    again = [path.name for path, before in done.items() if path.stat().st_mtime_ns != before]
    assert not again
    assert not list(target.rglob(".unfinished-*"))

    cav_mae.extract(cav_mae.read_items(clips), whole, **QUIET)
    ours, expected = content(target), content(whole)
    files = [name for name in expected if name.startswith(("wav", "frame_"))]
    assert len(files) == 24 * 11 and all(ours[name] == expected[name] for name in files)
    assert len(cav_mae.read_items(target / "data.json")) == 24


def test_where_it_cannot_write(tmp_path, monkeypatch):
    item = clip(tmp_path / "a.mp4")
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="give another target"):
        cav_mae.extract([item], tmp_path / "file" / "out", **QUIET)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(CacheError, match=r"No space left on device.*Free some space, or give another target"):
        cav_mae.extract([item], tmp_path / "out", on_error="skip", **QUIET)  # no fault of the clip
    assert not list((tmp_path / "out").rglob("*.jpg")) and not list((tmp_path / "out" / "done").glob("*.json"))
