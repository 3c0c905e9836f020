"""Where a row is put together: one module for each system, with `tiny`, `full`, `build`, `step`, `trained`, `assess`.

This file holds what they share: a place in the cache where each piece of work is done once; and `changing`, how a
notebook, a file or the command line sets their settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import pkgutil
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cache as remembered
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .. import cache
from ..settings import changed, own_names

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .. import training

__all__ = [
    "Figure",
    "Report",
    "Trained",
    "changed",
    "device_of",
    "done_once",
    "is_first",
    "names",
    "own_names",
    "processes",
    "sources",
    "trained_once",
    "written",
]

_Result = TypeVar("_Result")

# The parts of avlib whose source decides what scenes are, and those that decide how anything learns.
_SCENES = ("clips", "datasets/items", "datasets/sources", "features", "media")
_LEARNING = ("losses", "systems/__init__", "training")


def sources(system: str, what: str = "learning", more: Sequence[str] = ()) -> tuple[str, ...]:
    """The parts of avlib that a system's arrays ("data") or weights ("learning") follow from, for `done_once`.

    Not among them is what another system alone uses, nor how a system is measured: to change these trains nothing anew.

    Args:
        system: its name.
        what: "data" or "learning".
        more: further parts: its networks, and what it shares with others.
    """
    data = (*_SCENES, f"datasets/{system}", f"systems/{system}/data")
    if what == "data":
        return (*data, *more)
    return (*data, *_LEARNING, f"systems/{system}/learning", f"systems/{system}/settings", *more)


def names() -> list[str]:
    """The systems that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


# Figures


class Figure(NamedTuple):
    """A measured number, and what it is to be compared with.

    value: the number.
    reference: what needs no model, or no more than a trivial one.
    meaning: which one that is.
    low: the lower end of its 95 % interval, over queries or over speakers; None where that is not known.
    """

    value: float
    reference: float
    meaning: str
    low: float | None = None

    @classmethod
    def of_share(cls, hits: Any, reference: float, meaning: str) -> Figure:
        """The share of queries that are right, of what each gave, 0 to 1: `(queries,)`."""
        from .. import metrics

        return cls(float(hits.float().mean()), reference, meaning, metrics.lower_bound(hits))

    def __str__(self) -> str:
        low = "" if self.low is None else f"(at least {self.low:.3f})"
        return f"{self.value:7.3f}  {low:<16}  {self.meaning}: {self.reference:.3f}"


class Report(NamedTuple):
    """What is said of a trained model: figures on what it was not trained on, by name, and remarks on them.

    files: by name, what writes a file of that path with all that figures do not say.
    """

    figures: dict[str, Figure]
    remarks: str = ""
    files: Mapping[str, Callable[[Path], None]] = {}


# Training that is done once


class Trained(NamedTuple):
    """A trained model in evaluation mode, what happened in training, and the folder with its weights."""

    model: nn.Module
    history: training.History
    folder: Path


def trained_once(
    name: str,
    recipe: Any,
    make: Callable[[Path], tuple[_Result, training.History]],
    save: Callable[[_Result, Path], None],
    *,
    settings: Any,
    source: Sequence[str],
) -> tuple[training.History, Path]:
    """What happened in a training, and the folder with its weights: from the cache, or trained now. See `done_once`.

    Args:
        name: as there.
        recipe: as there.
        make: trains, in a folder that outlives a killed process; gives the model and what happened.
        save: writes the model's weights into a folder of that name.
        settings: a dataclass that is written beside the weights.
        source: as there.
    """
    from .. import training

    def write(made: tuple[_Result, training.History], path: Path) -> None:
        model, history = made
        save(model, path)
        (path / "history.json").write_text(json.dumps(history.rows))
        (path / "settings.json").write_text(json.dumps(asdict(settings), indent=1))

    folder = done_once("trained", name, recipe, make, write, source=source, together=True)
    return training.History(json.loads((folder / "history.json").read_text())), folder


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters lie."""
    return next(model.parameters()).device


def written(paths: Iterable[str | Path]) -> list[tuple[str, int, int]]:
    """A user's files, their sizes and when each was written: in a recipe, so that a changed file is not taken for the
    old one. Of a folder all that is in it; of "", of a name on the hub and of what is missing, nothing.
    """
    there = [Path(path) for path in paths if str(path)]
    files = [file for path in there for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    facts = [(str(file), file.stat()) for file in files if file.is_file()]
    return [(name, fact.st_size, fact.st_mtime_ns) for name, fact in facts]


# Work that is done once


def done_once(
    group: str,
    name: str,
    recipe: Any,
    make: Callable[[Path], _Result],
    write: Callable[[_Result, Path], None],
    *,
    source: Sequence[str],
    together: bool = False,
) -> Path:
    """Where in the cache a result lies, whole, made now if no process made it before. One that makes it at the same
    time is waited for; where one was killed, `make` can go on from what that left.

    Args:
        group: a folder of the cache.
        name: what the folder below it begins with; a mark of all that the result depends on follows.
        recipe: what that is: values that JSON can hold, or whose `repr` tells them apart.
        make: called with a folder that outlives a killed process.
        write: called with the result and a name, under which it writes a file or a folder.
        source: parts of avlib whose source the result depends on as well.
        together: where several processes were started (torchrun), whether all of them make the result, of which the
            first writes its own; otherwise the first makes it alone.

    Raises:
        CacheError: the cache cannot be written.
    """
    text = json.dumps(recipe, sort_keys=True, default=repr)
    mark = hashlib.sha256(f"{_digest(tuple(source))} {text}".encode()).hexdigest()[:12]
    folder = cache.folder(group, f"{name}-{mark}")
    result, progress, first = folder / "result", folder / "progress", is_first()
    with cache.locked(result) if first else nullcontext():
        if not _of_the_first(result.exists()):
            if first:
                cache.remove_unfinished(folder)  # of a killed process; nobody else writes here
                progress.mkdir(exist_ok=True)
            made = make(progress) if first or together else None
            if first:
                with cache.publishing(result) as unfinished:
                    write(made, unfinished)
                shutil.rmtree(progress, ignore_errors=True)
        _of_the_first(True)  # whose result is there now
    return result


@remembered
def _digest(parts: tuple[str, ...]) -> str:
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for part in parts:
        files = sorted([*root.glob(f"{part}.py"), *root.glob(f"{part}/**/*.py")])
        if not files:
            raise FileNotFoundError(f"avlib has no part {part}")  # which is renamed, and would decide nothing
        for path in files:
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def is_first() -> bool:
    """Whether this is the only process, or the one of several (torchrun) that prints and writes."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def processes() -> Iterator[None]:
    """Within, the processes that torchrun started know of each other; afterwards they may end one by one."""
    try:
        yield
    finally:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()


def _of_the_first(value: bool) -> bool:
    """What the first process says; until it does, the others wait."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return value
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group()  # gloo for the CPU, and NCCL for GPUs where there are any
    said = [value]
    distributed.broadcast_object_list(said, device="cpu")
    return said[0]
