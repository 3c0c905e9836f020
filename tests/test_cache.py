"""The cache: whole files or none, wherever it is and whoever is killed."""

import os
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest

from avlib import cache
from avlib.errors import CacheError

MARKER = "CACHEDIR.TAG"
CLIP = "scene-0-2s-0123456789"


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
    assert target.read_text() == "whole" and {path.name for path in folder.iterdir()} == {MARKER, "clip.mp4"}


def test_a_full_disk_is_said(folder, monkeypatch):
    target = cache.folder() / "clip.mp4"
    with pytest.raises(OSError, match=r"System error\."), cache.publishing(target):
        raise OSError("clip.mp4: System error.")  # as libsndfile has it, whatever was wrong
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(CacheError, match="no space is left on the disk"), cache.publishing(target):
        raise OSError("clip.mp4: System error.")
    with pytest.raises(CacheError, match="No space left"), cache.publishing(target) as unfinished:
        unfinished.touch()
        raise OSError(28, os.strerror(28))
    assert [path.name for path in folder.iterdir()] == [MARKER]


HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
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


def made(root):
    """A cache of each kind of entry, 12 bytes in all besides locks and the marker."""
    for name in (
        f"clips/{CLIP}/{CLIP}.mp4",
        f"clips/{CLIP}/{CLIP}.mp4.lock",
        "trained/svc-012345abcdef/result/model",
        "trained/svc-012345abcdef/.unfinished-7-result/model",
        "speech/table-3-0123456789.csv",
        "projects/0123456789abcdef.json",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"123" if "unfinished" not in name else b"")
    return 12


@pytest.mark.parametrize("marked", [True, False])
def test_contents_and_clearing(folder, marked):
    assert cache.contents() == [] and (folder / MARKER).read_text().startswith("Signature: 8a477f597d28d17")
    if not marked:  # a cache of an older avlib
        (folder / MARKER).unlink()
    size = made(folder)
    assert (f"clips/{CLIP}/{CLIP}.mp4", 3) in cache.contents() and len(cache.contents()) == 5
    assert cache.clear() == size and not list(folder.iterdir())


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize(
    "name",
    ["notes.txt", "film/a.mp4", "clips/VID-1700000000.mp4", f"clips/{CLIP}/mine.mp4", "trained/mine/result", "empty/"],
)
def test_a_folder_with_other_things_is_not_cleared(folder, marked, name):
    folder.mkdir()
    if marked:
        cache.folder()
    made(folder)
    path = folder / name
    path.mkdir() if name.endswith("/") else (path.parent.mkdir(exist_ok=True), path.write_text("mine"))
    before = sorted(folder.rglob("*"))
    with pytest.raises(CacheError, match=rf"did not make: {name.split('/')[0]};.*Nothing was removed.*would go"):
        cache.clear()
    assert sorted(folder.rglob("*")) == before
    assert all(not found.startswith(f"{name.split('/')[0]}/") for found, _ in cache.contents())


def test_a_linked_group_is_shown_and_cleared_but_its_target_stays(folder, tmp_path):
    target = tmp_path / "big" / "trained"
    made(target.parent)
    folder.mkdir()
    (folder / "trained").symlink_to(target)
    (folder / "clips").symlink_to(tmp_path / "gone")
    before = sorted(target.rglob("*"))
    assert cache.contents() == [
        ("trained/svc-012345abcdef/.unfinished-7-result/model", 0),
        ("trained/svc-012345abcdef/result/model", 3),
    ]
    assert cache.clear() == 0
    assert not list(folder.iterdir()) and sorted(target.rglob("*")) == before


def test_a_new_group_is_known_by_the_marker(folder):
    (cache.folder("newer", "a-0123456789") / "result").write_text("x")
    assert cache.contents() == [("newer/a-0123456789/result", 1)] and cache.clear() == 1


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "avlib-dead").mkdir()
    (tmp_path / "avlib-dead" / "lock").touch()
    (tmp_path / "avlib-mine").mkdir()  # nothing says that avlib made it
    with cache.temporary() as one, cache.temporary() as other:
        assert {path.name for path in tmp_path.iterdir()} == {"avlib-mine", one.name, other.name}
        assert (one / "lock").exists() and (other / "lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["avlib-mine"]
