"""The same task for many things, in several processes, in order, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import AvlibError, ParameterError

POLICIES = ("raise", "skip")  # what becomes of an item that cannot be used: `on_error`


def each(
    task: Callable[[Any], Any], things: Sequence, *, jobs: int | None = None, progress: bool = True, doing: str = ""
) -> Iterator:
    """What `task` returns for each of `things`, in their order.

    With more than one job the things are shared out to new processes, which end when this one is killed. A script
    that asks for that does so under `if __name__ == "__main__":`, as Python asks of everything that starts processes;
    a notebook need not.

    Args:
        task: can be pickled. An error that it raises is raised here, in its own class.
        things: can be pickled as well.
        jobs: how many processes work at once; as many as there are cores when it is None.
        progress: whether a progress bar is shown.
        doing: what the bar says.
    """
    from tqdm.auto import tqdm

    if jobs is not None and jobs < 1:
        raise ParameterError("jobs", f"{jobs}", "1 or more, or None for as many as there are cores")
    jobs = min(jobs or _cores(), len(things))
    if jobs > 1:
        from torch.utils.data import DataLoader  # its workers end with their parent, and hand tensors over cheaply

        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # inherited: see env/setup
        spawn = {"num_workers": jobs, "multiprocessing_context": "spawn", "prefetch_factor": 4}
        results: Iterable = DataLoader(_Tasks(task, things), batch_size=None, collate_fn=_as_it_is, **spawn)
    else:
        results = map(task, things)
    results = iter(results)  # once only: tqdm would start a second set of processes for itself
    raised = None
    for result in tqdm(results, desc=doing, total=len(things), disable=not (progress and len(things))):
        if isinstance(result, _Raised):
            raised = result.error
            break
        yield result
    del results  # ends the processes now; an error holds on to what there is here, and would keep them waiting
    if raised:
        raise raised


def describe(skipped: Sequence[AvlibError], count: int) -> str:
    """How many of `count` items were left out, and why, one in each line."""
    lines = [f"{type(error).__name__}: {error}" for error in skipped]
    return "\n  ".join([f"{len(skipped)} of {count} items left out", *lines])


@dataclass
class _Raised:
    error: AvlibError


class _Tasks:
    """What a DataLoader takes for a data set."""

    def __init__(self, task: Callable, things: Sequence):
        self.task, self.things = task, things

    def __len__(self) -> int:
        return len(self.things)

    def __getitem__(self, index: int):
        try:
            return self.task(self.things[index])
        except AvlibError as error:  # handed over as it is, without the traceback of another process
            return _Raised(error)


def _as_it_is(result):
    return result


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
