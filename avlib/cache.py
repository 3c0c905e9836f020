"""The cache folder, for rendered clips and trained models.

A file in it is either whole or absent, also when a process is killed or two work at once: it is written under another
name and moved into place.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from .errors import CacheError, ParameterError

_UNFINISHED = ".unfinished-"
_MARKER = "CACHEDIR.TAG"  # of bford.info/cachedir, by which backups leave a cache out too
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of avlib; `avlib cache --clear` removes it.\n"
_GROUPS = {"arrays", "clips", "heads", "projects", "songs", "speech", "trained"}  # of caches without a marker
_FOLDER = re.compile(r".+-[0-9a-f]{10,12}")
_FILE = re.compile(r"(table-\d+-[0-9a-f]{10}\.csv|[0-9a-f]{16}\.json)(\.lock)?")


def folder(*parts: str) -> Path:
    """Return the cache folder, or one below it, created if needed.

    `$AVLIB_CACHE` where that is set, else the user's cache folder of the operating system.

    Raises:
        CacheError: it cannot be created or written.
    """
    root = Path(os.environ.get("AVLIB_CACHE") or user_cache_path("avlib")).expanduser().absolute()
    path = root.joinpath(*parts)
    try:
        fresh = not root.exists() or not any(root.iterdir())
        path.mkdir(parents=True, exist_ok=True)
        if fresh:
            (root / _MARKER).write_text(_TAG)
    except OSError as error:
        raise _not_writable(path, error.strerror) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _not_writable(path, "no permission to write")
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`; other processes wait. A process that dies releases it."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire()
    except OSError as error:
        raise _not_writable(path.parent, error.strerror) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a temporary name that is renamed to `path` when the block succeeds.

    It keeps the suffix of `path`, by which writers choose a format. It may become a file or a folder.

    Raises:
        CacheError: the disk is full or the folder cannot be written.
    """
    unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        if error.errno is None and shutil.disk_usage(path.parent).free > 1e6:  # raised by a library
            raise
        raise _not_writable(path, error.strerror or "no space is left on the disk") from error
    finally:
        _remove(unfinished)


@contextmanager
def temporary() -> Iterator[Path]:
    """Yield a temporary folder; remove first those of killed processes, whose locks nobody holds."""
    for lock in Path(tempfile.gettempdir()).glob("avlib-*/lock"):
        with suppress(OSError), FileLock(lock, timeout=0):  # not of a process that works, nor of another user
            shutil.rmtree(lock.parent)
    folder = tempfile.TemporaryDirectory(prefix="avlib-", ignore_cleanup_errors=True)
    with folder as name, FileLock(Path(name, "new")):
        Path(name, "new").rename(Path(name, "lock"))  # held as soon as another process sees it
        yield Path(name)


def output(path: Path, *sources: object) -> Path:
    """Return the path of a file to write, in a folder that exists; a file among `sources` is refused."""
    for source in sources:
        if isinstance(source, str | Path) and path.exists() and Path(source).exists() and path.samefile(source):
            raise ParameterError("out", f"{path}, which is read", "another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path.parent, error.strerror) from error
    return path


def contents() -> list[tuple[str, int]]:
    """List name and size in bytes of each file that avlib made in the cache, without locks; links to groups count."""
    files = []
    for group in filter(_is_own, folder().iterdir()):
        found = [path for path in group.resolve().rglob("*") if path.is_file() and path.suffix != ".lock"]
        files += [(f"{group.name}/{path.relative_to(group.resolve())}", path.stat().st_size) for path in found]
    return sorted(files)


def clear() -> int:
    """Remove what avlib made in the cache and return the number of bytes freed; of a linked group, the link goes.

    Raises:
        CacheError: the folder holds anything else, and nothing was removed; or a file cannot be removed.
    """
    root, freed = folder(), 0
    if foreign := sorted(path.name for path in root.iterdir() if not _is_own(path)):
        found = f"holds what avlib did not make: {', '.join(foreign[:5])}{', ...' if foreign[5:] else ''}"
        own = ", ".join(sorted(path.name for path in root.iterdir() if _is_own(path))) or "nothing"
        advice = f"Nothing was removed; of this folder {own} would go. Move the rest, or set AVLIB_CACHE."
        raise CacheError(root, found, "a folder with a cache alone", advice)
    for path in sorted(root.iterdir()):
        if not path.is_symlink():
            freed += sum(each.stat().st_size for each in path.rglob("*") if each.is_file() and each.suffix != ".lock")
        try:
            _remove(path)
        except OSError as error:
            raise CacheError(path, f"cannot be removed ({error.strerror}: {error.filename})") from error
    return freed


def _is_own(path: Path) -> bool:
    """True for the marker and for a group that holds only what avlib makes."""
    marked = (path.parent / _MARKER).is_file() and (path.parent / _MARKER).read_text(errors="replace") == _TAG
    if path.name == _MARKER:
        return marked
    if not (marked or path.name in _GROUPS) or not path.is_dir():
        return path.is_symlink() and path.name in _GROUPS  # whose target is gone
    entries = list(path.iterdir())
    return all(map(_is_result, entries)) and bool(entries or path.name in _GROUPS)


def _is_result(path: Path) -> bool:
    """True for an entry of a group: named by a hash, as are the files below it."""
    if path.name.startswith(_UNFINISHED):
        return True
    if not path.is_dir():
        return bool(_FILE.fullmatch(path.name))
    beginnings = (path.name, "result", "progress", _UNFINISHED)
    return bool(_FOLDER.fullmatch(path.name)) and all(each.name.startswith(beginnings) for each in path.iterdir())


def remove_unfinished(directory: Path) -> None:
    """Remove leftovers of killed processes in `directory`; hold its lock meanwhile."""
    for path in directory.glob(f"{_UNFINISHED}*"):
        _remove(path)


@contextmanager
def without_leftovers(*directories: Path) -> Iterator[None]:
    """Remove leftovers of killed processes before and after; work that goes on in one then finds its file gone."""
    for directory in directories:
        remove_unfinished(directory)
    try:
        yield
    finally:
        for directory in directories:
            remove_unfinished(directory)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _not_writable(path: Path, reason: str | None) -> CacheError:
    advice = "Free some space or use another folder (for the cache, set AVLIB_CACHE)."
    return CacheError(path, reason or "cannot be written", "a folder that can be written", advice)
