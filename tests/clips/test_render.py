"""Scenes as files: whole or absent, rendered once, with their truth, whoever is killed and however many work."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from avlib import clips, media
from avlib.errors import CacheError

SIZE = (64, 64)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVLIB_CACHE", str(tmp_path))
    return tmp_path


def start(script: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_files_hold_the_scene(own_cache):
    scenes = clips.scenes(2, seed=3, seconds=1.2, kinds=("ball", "bird"))
    rendered = clips.render(scenes, SIZE, jobs=1, progress=False)
    assert [clip.scene for clip in rendered] == scenes
    for clip in rendered:
        assert clip.path.is_relative_to(own_cache) and clip.path.name.startswith(
            f"{clip.scene.kind}-{clip.scene.seed}-"
        )
        info = media.probe(clip.path)
        assert info.video.frames == 30 and (info.video.height, info.video.width) == SIZE
        assert info.audio.channels == 2 and info.audio.sample_rate == 48000
        assert json.loads(clip.path.with_suffix(".json").read_text()) == clip.scene.truth.to_dict()
        read = media.read_clip(clip.path, lambda count, rate: [10], sample_rate=48000, channel=0)
        picture = read.frames[0].permute(1, 2, 0).numpy()
        assert np.abs(picture - clip.scene.frame(10 / 25, SIZE).astype(float)).mean() < 6  # h264 loses a little
        sound, heard = clip.scene.sound(48000)[0], read.waveform.numpy()
        assert np.corrcoef(sound, heard[: len(sound)])[0, 1] > 0.95


def test_metadata_says_that_it_is_synthetic(own_cache):
    import av

    (clip,) = clips.render([clips.Scene("kettle", 1, 0.5)], SIZE, progress=False)
    with av.open(str(clip.path)) as container:
        assert "synthetic" in container.metadata["title"]
        assert json.loads(container.metadata["comment"]) == clip.scene.truth.to_dict()


def test_rendered_once_and_anew_for_each_setting(own_cache, monkeypatch):
    scene = clips.Scene("rain", 0, 0.2)
    (first,) = clips.render([scene], SIZE, progress=False)
    born = first.path.stat().st_mtime_ns
    again = clips.render([scene, scene], SIZE, progress=False)
    assert [clip.path for clip in again] == [first.path] * 2 and first.path.stat().st_mtime_ns == born
    others = clips.render([scene], (48, 64), 12.5, progress=False) + clips.render(
        [clips.Scene("rain", 0, 0.2, hue=0.1)], SIZE, progress=False
    )
    assert len({first.path, *(clip.path for clip in others)}) == 3
    monkeypatch.setattr("avlib.clips.rendering.source_mark", lambda _: "another recipe")
    assert clips.render([scene], SIZE, progress=False)[0].path != first.path


def test_killed_while_rendering_leaves_nothing_half_done(own_cache):
    script = (
        "from avlib import clips\n"
        "if __name__ == '__main__':\n"
        f"    clips.render(clips.scenes(3, seconds=3.0), {SIZE}, jobs=1, progress=False)"
    )
    process = start(script)
    deadline = time.monotonic() + 60
    while not any(own_cache.rglob(".unfinished-*.mp4")) or not any(own_cache.rglob("[a-z]*.mp4")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(own_cache.rglob(".unfinished-*"))
    rendered = clips.render(clips.scenes(3, seconds=3.0), SIZE, jobs=1, progress=False)
    assert not list(own_cache.rglob(".unfinished-*"))
    assert [media.probe(clip.path).video.frames for clip in rendered] == [75] * 3


def test_two_processes_at_once_render_each_clip_once(own_cache):
    script = (
        "from avlib import clips, media\n"
        "write = media.write_video\n"
        "def counted(path, *rest):\n"
        "    print(path.name, flush=True)\n"
        "    write(path, *rest)\n"
        "media.write_video = counted\n"
        f"clips.render(clips.scenes(6, seed=9, seconds=2.0), {SIZE}, jobs=1, progress=False)"
    )
    processes = [start(script), start(script)]
    written = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], written
    names = [line.split("-", 2)[2] for out, _ in written for line in out.split()]
    assert len(names) == len(set(names)) == 6
    assert not list(own_cache.rglob(".unfinished-*"))


def test_several_jobs(own_cache):
    rendered = clips.render(clips.scenes(3, seconds=0.5), SIZE, jobs=2, progress=False)
    assert all(media.probe(clip.path).video.frames == 12 for clip in rendered)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AVLIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match="AVLIB_CACHE"):
        clips.render([clips.Scene("bell", 0, 0.2)], SIZE, progress=False)
