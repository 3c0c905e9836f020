"""Clips as files in the cache, each rendered once, with its truth.

`render` is for scenes; `place`, `render_missing`, `publish` and `write_table` are for clips of any sort.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .. import cache
from ..errors import check_number
from ..once import source_mark
from ..workers import each
from .scene import Scene


@dataclass(frozen=True)
class Clip:
    """A rendered scene; the truth is in its metadata and a `.json` beside it."""

    path: Path
    scene: Scene


def render(
    scenes: Iterable[Scene], size: tuple[int, int] = (256, 256), frame_rate: float | int = 25.0,
    jobs: int | None = None, progress: bool = True,
) -> list[Clip]:  # fmt: skip
    """Render scenes to mp4 files in the cache, with 48 kHz stereo sound; for `jobs` see `avlib.workers.each`.

    `size` is height and width in pixels, `frame_rate` from 1 to 120 Hz.
    """
    scenes = list(scenes)
    check_number("frame_rate", frame_rate, 1, 120)
    for scene in scenes[:1]:
        scene.frame(0.0, size)  # refuses a wrong size before anything starts
    paths = [_path(scene, size, frame_rate) for scene in scenes]
    render_missing(partial(_render, size=size, frame_rate=frame_rate), paths, scenes, jobs, progress)
    return [Clip(path, scene) for path, scene in zip(paths, scenes, strict=True)]


def place(sort: str, name: str, recipe: tuple, ending: str) -> Path:
    """Return the path of a clip in a folder of the cache's `sort`, named by its recipe.

    The recipe holds all settings of the clip; the code of this package and of its imports is added.
    """
    mark = hashlib.sha256(f"{source_mark(('avlib.clips',))} {' '.join(map(str, recipe))}".encode()).hexdigest()[:10]
    return cache.folder(sort, f"{name}-{mark}") / f"{name}-{mark}{ending}"


def render_missing(task: Callable, paths: Sequence[Path], things: Sequence, jobs: int | None, progress: bool) -> None:
    """Call `task((path, thing))` once for each missing file; see `avlib.workers.each`."""
    missing = {path: thing for path, thing in zip(paths, things, strict=True) if not path.exists()}
    for _ in each(task, list(missing.items()), jobs=jobs, progress=progress, doing="rendering clips"):
        pass  # the task writes the file


def publish(path: Path, truth: dict, write: Callable[[Path, str], None]) -> None:
    """Write the truth as `.json`, then the clip, unless another process was quicker.

    `write` is called with a temporary path of the same suffix as `path` (from `place`), and the truth as JSON.
    """
    with cache.locked(path):
        if path.exists():
            return
        cache.remove_unfinished(path.parent)
        text = json.dumps(truth)
        with cache.publishing(path.with_suffix(".json")) as unfinished:
            unfinished.write_text(text)
        with cache.publishing(path) as unfinished:
            write(unfinished, text)


def publish_sound(
    path: Path, truth: dict, sound: Callable[[], np.ndarray], sample_rate: int, title: str, comment: str = ""
) -> None:
    """Publish a wav file; by default its comment is the truth."""

    def write(unfinished: Path, text: str) -> None:
        import torch

        from .. import media

        waveform = torch.from_numpy(sound())
        media.write_wav(unfinished, waveform, sample_rate, {"title": title, "comment": comment or text})

    publish(path, truth, write)


def write_table(sort: str, columns: Sequence[str], rows: Sequence[Sequence]) -> Path:
    """Write a CSV file to the cache's `sort`, named by its content, and return its path."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    mark = hashlib.sha256(text.getvalue().encode()).hexdigest()[:10]
    table = cache.folder(sort) / f"table-{len(rows)}-{mark}.csv"
    with cache.publishing(table) as unfinished:
        unfinished.write_text(text.getvalue(), newline="")
    return table


def _render(missing: tuple[Path, Scene], size: tuple[int, int], frame_rate: float | int) -> None:
    path, scene = missing

    def write(unfinished: Path, truth: str) -> None:
        import torch

        from .. import media

        frames = (scene.frame(i / frame_rate, size) for i in range(max(1, int(scene.seconds * frame_rate + 1e-6))))
        waveform = torch.from_numpy(scene.sound(48000))
        metadata = {"title": f"{scene.kind} {scene.seed} (synthetic)", "comment": truth}
        media.write_video(unfinished, frames, frame_rate, waveform, 48000, metadata)

    publish(path, scene.truth.to_dict(), write)


def _path(scene: Scene, size: Sequence[int], frame_rate: float | int) -> Path:
    height, width = size
    name = f"{scene.kind}-{scene.seed}-{scene.seconds:g}s-{height}x{width}-{frame_rate:g}fps"
    return place("clips", name, (astuple(scene), height, width, frame_rate), ".mp4")
