"""Extraction of clips to disk, with tables, in the published layout.

    target/wav/ID.wav                     16 kHz, mono, 16 bit
    target/frame_0/ID.jpg ... frame_9     224 x 224
    target/data.json                      video_id, wav, video_path, labels
    target/data_labels.csv                index, mid, display_name
    target/data_weight.csv                how often to draw each item
    target/done/ID.json                   which file this clip was made from

Sources: `src/preprocess/extract_audio.py`, `extract_video_frame.py`, `create_json_as.py`, `gen_weight_file.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ... import cache, media
from ...errors import AvlibError, CacheError, DatasetError
from ...workers import describe
from ..items import each_usable
from ..sources import SAMPLE_RATE
from .items import ClipItem, LabelTable, Reading


@dataclass(frozen=True)
class Extraction:
    """Files that `extract` wrote, and clips that it left out.

    table: the json file; `read_items` reads it.
    labels: the csv file; `LabelTable.read` reads it.
    weights: one number in each line, in the order of the json file.
    skipped: why clips were left out.
    report: how many that were, of how many, and why; a text of several lines.
    """

    table: Path
    labels: Path
    weights: Path
    skipped: list[AvlibError]
    report: str


def extract(
    items: Sequence[ClipItem],
    target: str | Path,
    table: LabelTable | None = None,
    *,
    name: str = "data",
    channel: int | None = None,
    align: bool = True,
    image_size: int = 224,
    total_frames: int = 10,
    jobs: int | None = None,
    on_error: str = "raise",
    progress: bool = True,
) -> Extraction:
    """Extract sound and pictures of clips, in parallel, and write the tables.

    An interrupted run goes on where it was: files appear whole or not at all, and a clip is done when a note of its
    source exists. A clip that changed since is done again. A mark tells clips of one name from several folders apart.

    Args:
        table: the classes; None takes the labels that the items have.
        channel, align: as `Reading` has them; the published extraction is channel=0, align=False.
        name: of the json file, for several lists in one folder ("train", "eval").

    Raises:
        MediaError, TooShortError: a clip cannot be used.
        DatasetError: an unknown label, a clip that comes twice, or another clip of the same name in the target.
        CacheError: the target cannot be written, for example because the disk is full.
    """
    target = Path(target).absolute()
    table = LabelTable.of(items) if table is None else table
    if on_error == "raise":
        for item in items:
            table.indices(item)  # refuses an unknown label before hours have passed
    reading = Reading(total_frames, image_size, channel, align)
    folders = [target / "wav", target / "done", *(target / f"frame_{frame}" for frame in range(total_frames))]
    with _writing(target):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        with cache.locked(target / "done"):
            for folder in folders:
                cache.remove_unfinished(folder)
            clips = list(zip(items, _names(items), strict=True))
            task = partial(_extract, target=target, table=table, reading=reading)
            outcomes = each_usable(task, clips, on_error, jobs, progress)
            skipped = [outcome for outcome in outcomes if outcome is not None]
            kept = [clip for clip, outcome in zip(clips, outcomes, strict=True) if outcome is None]
            entries, path = [_entry(*clip, target, table) for clip in kept], target / f"{name}.json"
            labels, weights = _write_tables(path, lambda: entries, table)
            return Extraction(path, labels, weights, skipped, describe(skipped, len(clips)))


def _names(items: Sequence[ClipItem]) -> list[str]:
    """A name of its own for each file: the published one, with a mark where another file has it too."""
    paths = [item.path.absolute() for item in items]
    often = Counter(path.stem.casefold() for path in set(paths))  # some file systems take Dog and dog for one

    def mark(path: Path) -> str:
        return f"-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}" if often[path.stem.casefold()] > 1 else ""

    return [path.stem + mark(path) for path in paths]


def _extract(clip: tuple[ClipItem, str], *, target: Path, table: LabelTable, reading: Reading) -> None:
    """Extract one clip, unless that is done."""
    from PIL import Image

    item, name = clip
    table.indices(item)
    source = item.path.absolute()
    note = {"source": str(source), "made": asdict(reading)}
    if source.exists():  # else reading says what is wrong
        note |= {"size": source.stat().st_size, "modified": source.stat().st_mtime_ns}
    done = target / "done" / f"{name}.json"
    wav = target / "wav" / f"{name}.wav"
    pictures = [target / f"frame_{frame}" / f"{name}.jpg" for frame in range(reading.total_frames)]
    if done.exists():
        found = json.loads(done.read_text())
        if found["source"] != note["source"]:
            advice = "Give another target, or one list of all clips, where equal names are told apart."
            raise DatasetError(item, f"{target} has a clip {name} already, made from {found['source']}", advice=advice)
        if found == note and all(path.exists() for path in (wav, *pictures)):
            return
    waveform, frames = item.read(range(reading.total_frames), reading)
    with _writing(target):
        done.unlink(missing_ok=True)
        with cache.publishing(wav) as unfinished:
            media.write_wav(unfinished, waveform, SAMPLE_RATE)
        for path, frame in zip(pictures, frames, strict=True):
            with cache.publishing(path) as unfinished:
                Image.fromarray(frame.permute(1, 2, 0).numpy()).save(unfinished)  # quality 75, as published
        _write_text(done, json.dumps(note))


def _entry(item: ClipItem, name: str, target: Path, table: LabelTable) -> dict[str, str]:
    mids = ",".join(table.mids[index] for index in table.indices(item))
    entry = {"video_id": name, "wav": str(target / "wav" / f"{name}.wav"), "video_path": str(target), "labels": mids}
    return entry | ({"split": item.split} if item.split else {})


def _write_tables(path: Path, entries: Callable[[], Iterable[dict]], table: LabelTable) -> tuple[Path, Path]:
    """Write the tables of entries, which are read twice; return the paths of labels and weights."""
    labels, weights = (path.with_name(path.stem + ending) for ending in ("_labels.csv", "_weight.csv"))
    often = Counter()
    with (
        cache.publishing(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        file.write('{"data": [')
        for place, entry in enumerate(entries()):
            file.write("," * (place > 0) + "\n" + json.dumps(entry, ensure_ascii=False))
            often.update(filter(None, entry["labels"].split(",")))
        file.write("\n]}\n")
    with cache.publishing(labels) as unfinished:
        table.write(unfinished)
    with cache.publishing(weights) as unfinished, unfinished.open("w") as file:
        for entry in entries():
            mids = filter(None, entry["labels"].split(","))
            file.write(f"{sum(1000 / (often[mid] + 0.01) for mid in mids):.18e}\n")
    return labels, weights


def _write_text(path: Path, text: str) -> None:
    with cache.publishing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Return the error of a failed write, with advice that fits."""
    try:
        yield
    except (CacheError, OSError) as error:
        subject, found = (error.subject, error.found) if isinstance(error, CacheError) else (target, str(error))
        advice = "Free some space, or give another target."
        raise CacheError(subject, found, "a folder that can be written", advice) from error
