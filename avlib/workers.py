"""One task for many things, in several processes, in order, with a progress bar."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cache
from .errors import AvlibError, ParameterError, WorkerError

_WORTH_PROCESSES = 30.0  # seconds of work; a process takes several to import torch
_LISTED = 50  # errors in a report
POLICIES = ("raise", "skip")  # choices of `on_error`, for an item that cannot be used


def each(
    task: Callable[[Any], Any], things: Sequence, *, jobs: int | None = None, progress: bool = True, doing: str = ""
) -> Iterator:
    """Yield `task(thing)` for each of `things`, in their order.

    With more than one job, new processes do the work; they end when this one is killed. A script must then guard its
    call by `if __name__ == "__main__":`; a notebook need not.

    Args:
        task: can be pickled. An error that it raises is raised here, in its own class.
        things: can be pickled as well.
        jobs: number of processes. None works here, and shares the rest with a process per core if it takes long.
        doing: text of the bar.

    Raises:
        WorkerError: a process was ended from outside.
    """
    from .progress import Bar

    if jobs is not None and jobs < 1:
        raise ParameterError("jobs", f"{jobs}", "1 or more, or None for as many as pay")
    results = _results(task, things, jobs)
    for result in Bar(results, desc=doing, total=len(things), disable=not (progress and len(things))):
        if isinstance(result, _Raised):
            results.close()  # ends the processes now; an error would keep them alive with this frame
            raise result.error
        yield result


def _results(task: Callable[[Any], Any], things: Sequence, jobs: int | None) -> Iterator:
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        begun, done = time.monotonic(), 0
        for done, thing in enumerate(things, 1):
            yield task(thing)
            spent = time.monotonic() - begun
            if jobs > 1 and spent > 1 and spent / done * (len(things) - done) > _WORTH_PROCESSES:
                break
        things = things[done:]
    jobs = min(jobs, len(things))
    if jobs > 1:
        from torch.utils.data import DataLoader  # its workers end with their parent, and hand tensors over cheaply

        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # inherited: see env/setup
        spawn = {"num_workers": jobs, "multiprocessing_context": "spawn", "prefetch_factor": 4}
        with cache.temporary() as folder:
            # Through a file: a pipe to a process that dies as it starts would block this one for ever.
            (folder / "work").write_bytes(pickle.dumps((task, things)))
            tasks = _Tasks(folder / "work", len(things))
            try:
                yield from DataLoader(tasks, batch_size=None, collate_fn=_identity, **spawn)
            except Exception as error:  # raised by a signal's handler, whichever line was running
                told: BaseException | None = error
                while told and "DataLoader worker" not in str(told):
                    told = told.__cause__ or told.__context__
                if not told:
                    raise
                advice = "Something ended it, perhaps for want of memory. Try again, with jobs=1 if memory is short."
                raise WorkerError("a process", "ended before its work was done", advice=advice) from error
    else:
        yield from map(task, things)


def describe(skipped: Sequence[AvlibError], count: int) -> str:
    """Report how many of `count` items were left out, and why, one per line."""
    lines = [f"{type(error).__name__}: {error}" for error in skipped[:_LISTED]]
    lines += [f"and {len(skipped) - _LISTED} more"] * (len(skipped) > _LISTED)
    return "\n  ".join([f"{len(skipped)} of {count} items left out", *lines])


@dataclass
class _Raised:
    error: AvlibError


class _Tasks:
    """Data set for a DataLoader, whose work each process reads from a file."""

    def __init__(self, path: Path, count: int):
        self.path, self.count, self.work = path, count, None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        task, things = self.work = self.work or pickle.loads(self.path.read_bytes())  # noqa: S301  written above
        try:
            return task(things[index])
        except AvlibError as error:  # returned, since a DataLoader would wrap it in another traceback
            return _Raised(error)


def _identity(result):
    return result
