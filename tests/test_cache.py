"""The cache: whole files or none, wherever it is and whoever is killed."""

import os
import subprocess
import sys
import time

import pytest

from avlib import cache
from avlib.errors import CacheError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AVLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_folder_is_made_where_the_user_wants_it(folder):
    assert cache.folder() == folder and folder.is_dir()
    assert cache.folder("clips", "a") == folder / "clips" / "a"


def test_without_a_wish_it_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("AVLIB_CACHE")
    monkeypatch.setattr(cache, "user_cache_path", lambda name: tmp_path / "user" / name)
    assert cache.folder("clips") == tmp_path / "user" / "avlib" / "clips"


def test_a_folder_that_cannot_be_made(folder, monkeypatch):
    folder.write_text("a file is in the way")
    with pytest.raises(CacheError, match=r"cache: .* AVLIB_CACHE"):
        cache.folder()
    monkeypatch.setenv("AVLIB_CACHE", "/proc/nothing")
    with pytest.raises(CacheError, match="/proc/nothing"):
        cache.folder()


def test_publishing_is_all_or_nothing(folder):
    target = cache.folder() / "clip.mp4"
    with cache.publishing(target) as unfinished:
        assert unfinished.suffix == ".mp4"
        unfinished.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    with pytest.raises(RuntimeError), cache.publishing(target) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert target.read_text() == "whole" and [path.name for path in folder.iterdir()] == ["clip.mp4"]


def test_a_full_disk_is_said(folder):
    target = cache.folder() / "clip.mp4"
    with pytest.raises(CacheError, match="No space left"), cache.publishing(target) as unfinished:
        unfinished.touch()
        raise OSError(28, os.strerror(28))
    assert not list(folder.iterdir())


HOLD = """
import sys, time
from pathlib import Path
from avlib import cache
path = cache.folder() / "model"
with cache.locked(path), cache.publishing(path) as unfinished:
    unfinished.write_text("half")
    print("holding", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_lock_and_no_half(folder):
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "holding\n"
    holder.kill()
    holder.communicate()
    begun = time.monotonic()
    path = cache.folder() / "model"
    with cache.locked(path):
        assert not path.exists()
        cache.remove_unfinished(folder)
        assert not list(folder.glob(".unfinished*"))
    assert time.monotonic() - begun < 30  # it did not wait for the minute that the dead process meant to sleep


def test_contents_and_clearing(folder):
    assert cache.contents() == []
    (cache.folder("clips") / "a.mp4").write_bytes(b"12345")
    (cache.folder() / "b").write_bytes(b"1")
    assert cache.contents() == [("b", 1), ("clips/a.mp4", 5)]
    assert cache.clear() == 6 and cache.contents() == []
