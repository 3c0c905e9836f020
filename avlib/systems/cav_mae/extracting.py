"""Extraction of any number of clips on a Dask cluster, in the layout of `avlib.datasets.cav_mae.extraction`.

The list of clips is a table on disk, some chunks of it are in flight, and a chunk that is done has a file that says
what came of it: memory grows with the number of classes, not with that of clips.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

from ... import cache, cluster, features
from ...datasets.cav_mae import CAVMAEDataset, ClipItem, ExtractedItem, LabelTable, extraction, read_items
from ...datasets.cav_mae.items import Reading
from ...datasets.sources import VIDEO_SUFFIXES, existing
from ...errors import DatasetError, MediaError, WorkerError
from ...progress import Bar

_CHUNK = 64  # clips
_TOLD = 50  # clips that are left out and named; the files in chunks/ name all


def extract_many(
    clips: Path, target: Path, table: LabelTable | None, reading: Reading, options: argparse.Namespace
) -> tuple[str, float, float]:
    """Extract clips and write the tables; return a report, and mean and deviation of all log energies.

    Raises:
        DatasetError, MediaError: a clip cannot be used, unless `options.on_error` is "skip".
        CacheError: the target cannot be written.
        WorkerError: workers cannot be used, or were lost again and again.
    """
    folders = [
        target / name for name in ("wav", "done", "chunks", *(f"frame_{i}" for i in range(reading.total_frames)))
    ]
    with extraction._writing(target):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    with cache.locked(target / "done"), cache.temporary() as place, closing(sqlite3.connect(place / "clips")) as plan:
        count, twice = _planned(plan, _clips(clips, options.folder))
        if not count:
            raise DatasetError(
                clips, "nothing in it", f"clips ({', '.join(sorted(VIDEO_SUFFIXES))}), or lines of paths"
            )
        if table is None:
            labels = plan.execute("SELECT DISTINCT labels FROM clips")
            table = LabelTable.of([ClipItem(tuple(json.loads(text)), clips) for (text,) in labels])
        task = functools.partial(_chunk, target=target, table=table, reading=reading, on_error=options.on_error)
        made, bar = {}, Bar(total=count, desc="extracting", unit="clip")
        with ExitStack() as stack:
            completed, _ = stack.enter_context(cluster.connected(options, target))
            stack.enter_context(cache.without_leftovers(*folders))
            stack.enter_context(bar)
            for (number, rows), outcome, _ in stack.enter_context(closing(completed(task, _chunks(plan)))):
                if isinstance(outcome, WorkerError):
                    advice = "The same command goes on with the others; leave out those that end a process."
                    raise WorkerError(f"{rows[0][0]} and the {len(rows) - 1} clips after it", str(outcome), "", advice)
                made[number] = target / "chunks" / outcome
                bar.update(len(rows))
        with extraction._writing(target):
            return _tables(target / f"{options.name}.json", [made[number] for number in sorted(made)], table, twice)


def _clips(path: Path, folder: str) -> Iterator[ClipItem]:
    """The clips of a folder or a list, one by one; of another table at once."""
    if existing(path).is_dir():
        for place, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            labels = Path(place).relative_to(path).parts[:1]
            for name in sorted(names):
                if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                    yield ClipItem(labels, Path(place, name))
    elif path.suffix.lower() in (".csv", ".json"):
        yield from read_items(path, folder)
    else:
        try:
            with path.open(encoding="utf-8-sig") as lines:
                yield from (
                    ClipItem((), Path(folder or path.parent, line.rstrip("\n"))) for line in lines if line.strip()
                )
        except ValueError as error:
            raise DatasetError(path, f"is no text ({error})", "a folder, a table, or a list of paths") from error


def _planned(plan: sqlite3.Connection, clips: Iterable[ClipItem]) -> tuple[int, int]:
    """Write the list of clips, each path once; return how many there are, and how many came again."""
    plan.execute("CREATE TABLE clips (path BLOB PRIMARY KEY, stem BLOB, labels TEXT, split TEXT)")
    given = 0
    for item in clips:
        given += 1
        path = item.path.absolute()
        row = os.fsencode(path), os.fsencode(path.stem.casefold()), json.dumps(item.labels), item.split
        plan.execute("INSERT OR IGNORE INTO clips VALUES (?, ?, ?, ?)", row)
    plan.execute("CREATE INDEX stems ON clips (stem)")
    ((count,),) = plan.execute("SELECT count(*) FROM clips")
    return count, given - count


def _chunks(plan: sqlite3.Connection) -> Iterator[tuple[int, list]]:
    """Chunks by number: path, name of the files, labels and part of each clip. Equal names get a mark of their path."""
    often = "(SELECT count(*) FROM clips AS other WHERE other.stem = clips.stem)"
    rows = plan.execute(f"SELECT path, labels, split, {often} FROM clips ORDER BY rowid")  # noqa: S608  fixed words
    for number in itertools.count():
        if not (part := rows.fetchmany(_CHUNK)):
            return
        found = []
        for path, labels, split, count in part:
            mark = f"-{hashlib.sha256(path).hexdigest()[:8]}" if count > 1 else ""
            found.append((os.fsdecode(path), Path(os.fsdecode(path)).stem + mark, json.loads(labels), split))
        yield number, found


def _chunk(part: tuple[int, list], *, target: Path, table: LabelTable, reading: Reading, on_error: str) -> str:
    """Extract a chunk unless that is done; return the name of the file that says what came of it."""
    stats = [Path(path).stat() if Path(path).exists() else None for path, *_ in part[1]]
    recipe = [part[1], asdict(reading), [stat and (stat.st_size, stat.st_mtime_ns) for stat in stats], table.mids]
    made = target / "chunks" / f"{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]}.json"
    if made.exists() and (on_error == "skip" or not json.loads(made.read_text(encoding="utf-8"))["left"]):
        return made.name
    entries, items, left = [], [], []
    for path, name, labels, split in part[1]:
        item = ClipItem(tuple(labels), Path(path), split=split)
        try:
            extraction._extract((item, name), target=target, table=table, reading=reading)
        except (MediaError, DatasetError) as error:
            if on_error == "raise":
                raise
            left.append(f"{type(error).__name__}: {error}")
            continue
        entries.append(extraction._entry(item, name, target, table))
        items.append(ExtractedItem(item.labels, name, target / "wav" / f"{name}.wav", target))
    mean, std = CAVMAEDataset(items, table).statistics(1, progress=False) if items else (0.0, 0.0)
    extraction._write_text(made, json.dumps({"entries": entries, "left": left, "mean": mean, "std": std}))
    return made.name


def _tables(path: Path, chunks: list[Path], table: LabelTable, twice: int) -> tuple[str, float, float]:
    """Write the published tables from the files of chunks; return a report, and mean and deviation."""

    def each() -> Iterator[dict]:
        return (json.loads(chunk.read_text(encoding="utf-8")) for chunk in chunks)

    left, told, sums, within = 0, [], [0, 0.0, 0.0], 0.0  # clips, means, squares of means
    values = features.CAV_MAE_FRAMES * features.CAV_MAE_MELS
    for chunk in each():
        count, mean = len(chunk["entries"]), chunk["mean"]
        sums = [have + new for have, new in zip(sums, (count, count * mean, count * mean**2), strict=True)]
        within += max(0, count * values - 1) * chunk["std"] ** 2
        left, told = left + len(chunk["left"]), (told + chunk["left"])[:_TOLD]
    if not sums[0]:
        raise DatasetError(path, "none of the clips can be used", advice=told[0])
    extraction._write_tables(path, lambda: (entry for chunk in each() for entry in chunk["entries"]), table)
    mean = sums[1] / sums[0]
    std = math.sqrt((within + values * (sums[2] - sums[0] * mean**2)) / (sums[0] * values - 1))
    lines = [f"{left} of {sums[0] + left} items left out", *told, f"and {left - _TOLD} more"][: 1 + left][: _TOLD + 2]
    again = f"\n{twice} were listed twice, and taken once" if twice else ""
    return "\n  ".join(lines) + again, mean, std
