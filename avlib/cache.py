"""The cache folder, for rendered clips and trained models.

A file in it is either whole or absent, also when a process is killed or two work at once: it is written under another
name and moved into place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from .errors import CacheError

_UNFINISHED = ".unfinished-"


def folder(*parts: str) -> Path:
    """Return the cache folder, or one below it, created if needed.

    `$AVLIB_CACHE` where that is set, else the user's cache folder of the operating system.

    Raises:
        CacheError: it cannot be created or written.
    """
    root = os.environ.get("AVLIB_CACHE") or user_cache_path("avlib")
    path = Path(root).expanduser().absolute().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error.strerror) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _not_writable(path, "no permission to write")
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`; other processes wait. A process that dies releases it.

    Raises:
        CacheError: the lock file cannot be written.
    """
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
        if error.errno is None:  # raised by a library, not by the operating system
            raise
        raise _not_writable(path, error.strerror) from error
    finally:
        _remove(unfinished)


def contents() -> list[tuple[str, int]]:
    """List name and size in bytes of each file in the cache, without locks."""
    root = folder()
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted((str(path.relative_to(root)), path.stat().st_size) for path in files)


def clear() -> int:
    """Remove everything in the cache and return the number of bytes freed."""
    freed = sum(size for _, size in contents())
    for path in folder().iterdir():
        _remove(path)
    return freed


def remove_unfinished(directory: Path) -> None:
    """Remove leftovers of killed processes in `directory`; hold its lock meanwhile."""
    for path in directory.glob(f"{_UNFINISHED}*"):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _not_writable(path: Path, reason: str | None) -> CacheError:
    advice = "Free some space or set AVLIB_CACHE to another folder."
    return CacheError(path, reason or "cannot be written", "a folder that can be written", advice)
