"""Extraction on a Dask cluster: the files of the extraction in one process, each clip once, in bounded memory."""

import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT
from making import write_clip

from avlib.__main__ import main
from avlib.datasets import cav_mae
from avlib.systems.cav_mae import extracting


@pytest.fixture(scope="module")
def scheduler():
    from distributed import LocalCluster

    how = {"processes": False, "protocol": "tcp", "dashboard_address": None, "memory_limit": None}
    with LocalCluster(n_workers=1, threads_per_worker=1, **how) as local:
        yield local.scheduler_address


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six clips in two folders, two of them of one name, and a file that is no video."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_clip(path, frames=20 + number)
    write_clip(folder / "cat/1.mp4", frames=30)
    (folder / "dog/broken.mp4").write_bytes(b"no video")
    return folder


def files(target: Path) -> dict[str, bytes]:
    names = [path for path in target.rglob("*") if path.is_file() and path.parent.name.startswith(("wav", "frame_"))]
    return {str(path.relative_to(target)): path.read_bytes() for path in names}


def test_it_makes_what_one_process_makes(clips, scheduler, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extracting, "_CHUNK", 2)
    words = ["extract", "cav_mae", str(clips), "--out", str(tmp_path / "out"), "--scheduler", scheduler]
    assert main(words) == 2 and "broken.mp4: cannot be decoded" in capsys.readouterr().err
    assert not (tmp_path / "out/data.json").exists()
    assert main([*words, "--on-error", "skip"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 of 7 items left out\n  MediaError: ") and f"{clips}/dog/broken.mp4" in said
    one = cav_mae.extract(cav_mae.read_items(clips), tmp_path / "one", on_error="skip", jobs=1, progress=False)
    expected = files(tmp_path / "one")
    assert len(expected) == 6 * 11 and files(tmp_path / "out") == expected
    for name in ("data_labels.csv", "data_weight.csv"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "one" / name).read_text()
    entries, ours = (json.loads((tmp_path / name / "data.json").read_text()) for name in ("one", "out"))
    assert json.loads(json.dumps(entries).replace(f"{tmp_path}/one", f"{tmp_path}/out")) == ours
    dataset = cav_mae.CAVMAEDataset(cav_mae.read_items(one.table), cav_mae.LabelTable.read(one.labels))
    mean, std = dataset.statistics(1, progress=False)
    assert said.splitlines()[-1].endswith(f"-p mean={mean:.4f} -p std={std:.4f}")
    assert len(list((tmp_path / "out/chunks").glob("*.json"))) == 4

    # What is done is not done again; a clip that changed is.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*.json")}
    os.utime(clips / "cat/2.mp4")
    monkeypatch.setattr(extracting.extraction, "_extract", counting := Counting(extracting.extraction._extract))
    assert main([*words, "--on-error", "skip"]) == 0
    assert [name for name in counting.names if name == "2"] == ["2"] and len(counting.names) == 2  # its chunk
    changed = {path.name for path, before in times.items() if path.stat().st_mtime_ns != before}
    assert changed == {"2.json"}


class Counting:
    def __init__(self, task):
        self.task, self.names = task, []

    def __call__(self, clip, **how):
        self.names.append(clip[1])
        return self.task(clip, **how)


def test_a_list_in_which_clips_come_twice(clips, scheduler, tmp_path, capsys):
    lines = [f"{clips}/cat/0.mp4", f"{clips}/dog/3.mp4", "", f"{clips}/cat/0.mp4", f"{clips}/gone.mp4"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    words = ["extract", "cav_mae", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out")]
    assert main([*words, "--scheduler", scheduler, "--on-error", "skip"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 of 3 items left out\n") and "gone.mp4: no such file" in said
    assert "\n1 were listed twice, and taken once\n" in said
    entries = json.loads((tmp_path / "out/data.json").read_text())["data"]
    assert [entry["video_id"] for entry in entries] == ["0", "3"] and not entries[0]["labels"]
    assert np.loadtxt(tmp_path / "out/data_weight.csv").tolist() == [0, 0]


@pytest.mark.parametrize("made", ["folder", "list"])
def test_nothing_to_extract(made, scheduler, tmp_path, capsys):
    path = tmp_path / "clips"
    path.mkdir() if made == "folder" else path.write_text("\n\n")
    assert main(["extract", "cav_mae", str(path), "--out", str(tmp_path / "out"), "--scheduler", scheduler]) == 2
    assert "nothing in it" in capsys.readouterr().err
    assert main(["extract", "cav_mae", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_clips_are_listed_and_taken_one_by_one(tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{number % 7}/{number}.mp4\n" for number in range(3000)))
    alive = []

    def watched():
        for number, item in enumerate(extracting._clips(tmp_path / "list.txt", "/clips")):
            if number % 500 == 499:
                alive.append(sum(type(each) is cav_mae.ClipItem for each in gc.get_objects()))
            yield item

    before = sum(type(each) is cav_mae.ClipItem for each in gc.get_objects())
    with closing(sqlite3.connect(tmp_path / "plan")) as plan:
        assert extracting._planned(plan, watched()) == (3000, 0)
        chunks = extracting._chunks(plan)
        assert next(chunks) == (0, [(f"/clips/{n % 7}/{n}.mp4", str(n), [], "") for n in range(64)])
        assert sum(len(rows) for _, rows in chunks) == 3000 - 64
    assert len(alive) == 6 and max(alive) - before <= 2


@pytest.mark.long
def test_twenty_workers_killed_while_they_extract(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    write_clip(clips / "0.mp4", frames=40)
    for number in range(1, 300):
        shutil.copy(clips / "0.mp4", clips / f"{number}.mp4")
    words = ["extract", "cav_mae", str(clips), "--out", str(out), "--jobs", "2", "--retries", "50"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "avlib", *words], env=environment, stderr=subprocess.DEVNULL)
    killed = set()
    while len(killed) < 20:
        assert process.poll() is None
        done = len(list(out.glob("wav/[!.]*.wav")))
        pids = {int(path.name.split("-")[1]) for path in out.glob("wav/.unfinished-*")} - killed
        if pids and done >= 10 * (len(killed) + 1):  # between two kills some clips must end
            worker = psutil.Process(pids.pop())
            assert process.pid in [parent.pid for parent in worker.parents()]
            worker.kill()
            killed.add(worker.pid)
        time.sleep(0.01)
    assert process.wait() == 0
    entries = json.loads((out / "data.json").read_text())["data"]
    assert sorted(int(entry["video_id"]) for entry in entries) == list(range(300))
    assert len(files(out)) == 300 * 11 and len(set(files(out).values())) == 11
    assert not list(out.rglob(".unfinished-*"))
