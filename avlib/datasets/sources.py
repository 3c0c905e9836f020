"""Where clips come from, whatever the system: files in folders, and the tables that list them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from .. import features
from ..errors import DatasetError

SAMPLE_RATE = features.SAMPLE_RATE  # every sound is brought to it
VIDEO_SUFFIXES = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
SOUND_SUFFIXES = {".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"}


def existing(path: str | Path) -> Path:
    """The path, if there is something.

    Raises:
        DatasetError: there is nothing.
    """
    path = Path(path)
    if not path.exists():
        advice = "Check the name and the folder from which it is given."
        raise DatasetError(path, "no such file or folder", advice=advice)
    return path


def files_in(folder: Path, suffixes: set[str]) -> Iterator[tuple[Path, str]]:
    """The files with these endings in a folder, however deep, sorted; hidden ones are left out.

    Each with the name of the sub-folder of `folder` that it is in, which labels it; "" beside the sub-folders.
    """
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.suffix.lower() in suffixes and not hidden and not path.is_dir():
            yield path, parts[0] if len(parts) > 1 else ""


def segments(path: Path) -> Iterator[tuple[str, float, str, str]]:
    """The lines of AudioSet's or VGGSound's list of pieces of videos: id, start in seconds, and two more columns.

    Raises:
        DatasetError: there is no such file, or a line is not of that form.
    """
    with existing(path).open(newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file, skipinitialspace=True):
            if row and not row[0].startswith("# "):
                try:
                    name, start, third, fourth = row
                    yield name, float(start), third, fourth
                except ValueError as error:
                    expected = "four columns, the second a number of seconds"
                    raise DatasetError(path, f"the line {','.join(row)!r}", expected) from error
