"""Data sets of clips: items are read one by one, or held in memory; unusable ones are refused, or left out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .. import checkpoints
from ..errors import AvlibError, DatasetError, MediaError, ParameterError, check_choice
from ..once import done_once
from ..workers import POLICIES, describe, each

_UNUSABLE = (MediaError, DatasetError)  # something is wrong with one item; a wrong parameter is wrong for all
_Items = TypeVar("_Items", bound="ItemDataset")
Memory = dict[str, Tensor | list[Tensor]]


class ItemDataset(Dataset):
    """Items that are read one by one or held in memory.

    A subclass defines `__getitem__` through `_attempt`, and `contents`.

    `str` of an item names it. `on_error` is "raise", or "skip" to leave out unusable items and `report` them. `memory`
    has the `contents` of all items by name, row by row; None while items are read from their files.
    """

    ragged: ClassVar[tuple[str, ...]] = ()  # contents whose size differs between items: in memory a list, not a tensor

    def __init__(self, items: Sequence, seed: int, on_error: str):
        if seed < 0:
            raise ParameterError("seed", f"{seed}", "0 or more")
        check_choice("on_error", on_error, POLICIES)
        if not len(items):
            raise DatasetError("items", "none", "at least one")
        self.items, self.seed, self.on_error = items, seed, on_error
        self.memory: Memory | None = None
        self._left_out: list[AvlibError] = []
        # Shared with the processes of a DataLoader, also with those that stay alive from one epoch to the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._unusable = torch.zeros(len(items), dtype=torch.bool).share_memory_()

    def __setstate__(self, state: dict):
        self.__dict__.update(state)
        self._epoch, self._unusable = self._epoch.share_memory_(), self._unusable.share_memory_()

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from which all that is random follows. Call it before a DataLoader is iterated."""
        self._epoch.fill_(epoch)

    def _dice(self, *place: int) -> np.random.Generator:
        """Return random numbers for an item, by seed and epoch."""
        return np.random.default_rng([self.seed, int(self._epoch), *place])

    @staticmethod
    def collate(items: Sequence[tuple[Tensor, ...]]) -> Any:
        """Stack named tuples of tensors."""
        return type(items[0])(*map(torch.stack, zip(*items, strict=True)))

    def batch(self, first: int = 0, count: int | None = None) -> Any:
        """Return some items at once, from the `first` on; all when `count` is None."""
        end = len(self) if count is None else min(len(self), first + count)
        return self.collate([self[index] for index in range(first, end)])

    def contents(self, index: int) -> dict[str, np.ndarray]:
        """Read an item whole, as arrays, which pass quickly between processes."""
        raise NotImplementedError

    def _attempt(self, task: Callable[[int], Any], index: int) -> Any:
        """Apply a task to an item. None when the item is left out, now or before."""
        index = range(len(self))[index]
        if self._unusable[index]:
            return None
        try:
            return task(index)
        except _UNUSABLE:
            if self.on_error == "raise":
                raise
            self._unusable[index] = True
            return None

    def _survey(
        self, task: Callable[[int], Any], doing: str, jobs: int | None = None, progress: bool = True
    ) -> Iterator[tuple[int, Any]]:
        """Apply a task to all items; yields index and result of those that are not left out. See `workers.each`."""
        jobs = jobs if self.memory is None else 1
        results = each(partial(self._attempt, task), range(len(self)), jobs=jobs, progress=progress, doing=doing)
        for index, result in enumerate(results):
            if result is None:
                self._unusable[index] = True  # other processes may work on a copy
            else:
                yield index, result

    def usable(self: _Items, jobs: int | None = None, progress: bool = True) -> _Items:
        """Return the data set without unusable items, after reading all items once.

        Needed where all batches must have one size, as between processes that share their negatives.
        """
        if self.memory is not None:
            return self
        return self._of([index for index, _ in self._survey(self._check_whole, "checking", jobs, progress)])

    def prepared(self: _Items, jobs: int | None = None, progress: bool = True) -> _Items:
        """Return the data set with the `contents` of all usable items in memory."""
        if self.memory is not None:
            return self
        memory: Memory = {}
        kept = []
        for index, arrays in self._survey(self.contents, "preparing", jobs, progress):
            for name, array in arrays.items():
                tensor = torch.from_numpy(array)
                if name not in memory:
                    memory[name] = [] if name in self.ragged else tensor.new_empty(len(self), *tensor.shape)
                if name in self.ragged:
                    memory[name].append(tensor)
                else:
                    memory[name][len(kept)] = tensor
            kept.append(index)
        return self._of(kept).with_memory({name: rows[: len(kept)] for name, rows in memory.items()})

    def stored(self: _Items, name: str, recipe: Any, jobs: int | None = None, progress: bool = True) -> _Items:
        """Return the data set in memory, from the cache or prepared now. For items that are all usable.

        `recipe` has the values that `contents` follow from, besides the code; see `done_once`.
        """

        def make(_: Path) -> Memory:
            return self.prepared(jobs, progress).memory

        def write(memory: Memory, path: Path) -> None:
            checkpoints.save(path, {name: rows for name, rows in memory.items() if name not in self.ragged}, {})

        path = done_once("arrays", name, recipe, make, write, source=type(self).__module__)
        return self.with_memory(checkpoints.read(path).tensors)

    def with_memory(self: _Items, memory: Mapping[str, Tensor | list[Tensor]]) -> _Items:
        """Return the data set with a given memory of its items."""
        other = copy.copy(self)
        other.memory = dict(memory)
        return other

    def like(self: _Items, other: _Items) -> _Items:
        """Return this data set with the items and the memory of another one of the same items."""
        made = copy.copy(self)
        for name in ("items", "memory", "_left_out", "_unusable"):
            setattr(made, name, getattr(other, name))
        return made

    def skipped(self) -> list[AvlibError]:
        """Return the errors of items left out by this process and its workers."""
        return [*self._left_out, *map(self._reason, self._unusable.nonzero().flatten().tolist())]

    def report(self) -> str:
        """Return how many items were left out so far, and why."""
        return describe(self.skipped(), len(self) + len(self._left_out))

    def counts(self, use: str = "to train on") -> str:
        """Return how many items there are for a use, how many were left out, and why."""
        return f"{len(self) - int(self._unusable.sum())} items {use}. {self.report()}"

    def _check_whole(self, index: int) -> bool:
        """Read all that is ever read of an item."""
        self.contents(index)
        return True

    def _reason(self, index: int) -> AvlibError:
        try:
            self._check_whole(index)
        except _UNUSABLE as error:
            # Its traceback holds on to open files and the threads of their decoders. A process that is forked while
            # they live waits for ever when it frees them, since it has the handles and not the threads.
            for raised in (error, error.__cause__, error.__context__):
                if raised is not None:
                    raised.__traceback__ = None
            return error
        return DatasetError(self.items[index], "could not be read before, though it can be now")

    def _of(self: _Items, kept: list[int]) -> _Items:
        """The data set of these items only."""
        if not kept:
            raise DatasetError("items", "none can be used", advice=self.report())
        other = copy.copy(self)
        other._left_out = self.skipped()
        other.items = [self.items[index] for index in kept]
        other._unusable = torch.zeros(len(kept), dtype=torch.bool).share_memory_()
        return other


def remembered(key: str, make: Callable[[], _Items]) -> _Items:
    """Return the data set that `make` returned for this key before, or make it; the last four are kept."""
    _MADE[key] = _MADE.pop(key) if key in _MADE else make()
    for oldest in list(_MADE)[:-4]:
        del _MADE[oldest]
    return _MADE[key]


_MADE: dict[str, Any] = {}


def each_usable(task: Callable, things: Sequence, on_error: str, jobs: int | None, progress: bool) -> list[Any]:
    """Apply a task to all things, see `workers.each`; an unusable one is refused, or its error stands for it."""
    check_choice("on_error", on_error, POLICIES)
    return list(each(partial(_result, task, on_error), things, jobs=jobs, progress=progress, doing="extracting"))


def _result(task: Callable[[Any], Any], on_error: str, thing: Any) -> Any | AvlibError:
    try:
        return task(thing)
    except _UNUSABLE as error:
        if on_error == "raise":
            raise
        return error
