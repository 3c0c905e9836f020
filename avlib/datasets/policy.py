"""What a data set does about items that cannot be used: it raises, or leaves them out and reports it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset

from ..errors import AvlibError, DatasetError, MediaError, ParameterError, check_choice
from ..workers import POLICIES, describe, each

_UNUSABLE = (MediaError, DatasetError)  # what is wrong with one item; a wrong parameter is wrong for all
_Items = TypeVar("_Items", bound="ItemDataset")


class ItemDataset(Dataset):
    """Items that are read one by one, each in whatever process.

    A subclass says how: `__getitem__` through `_attempt`, and `_check_whole`, which reads all that is ever read of one.

    Args:
        items: what it is made of; `str` of one says which it is.
        seed: of all that is random about it.
        on_error: "raise", or "skip" to leave out what cannot be used; `report` says what that was.

    Raises:
        DatasetError: no items.
        ParameterError: a negative seed, or another policy.
    """

    def __init__(self, items: Sequence, seed: int, on_error: str):
        if seed < 0:
            raise ParameterError("seed", f"{seed}", "0 or more")
        check_choice("on_error", on_error, POLICIES)
        if not len(items):
            raise DatasetError("items", "none", "at least one")
        self.items, self.seed, self.on_error = items, seed, on_error
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
        """Another epoch draws anew. Call it before a DataLoader is iterated."""
        self._epoch.fill_(epoch)

    def usable(self: _Items, jobs: int | None = None, progress: bool = True) -> _Items:
        """The data set without what cannot be used, found out by reading every item, whole, once.

        Do that where batches must all be of one size, as between processes that share their negatives. With
        `on_error="raise"` this raises at the first item that cannot be used.
        """
        return self._of([index for index, _ in self._survey(self._check_whole, "checking", jobs, progress)])

    def skipped(self, gather: bool = False) -> list[AvlibError]:
        """Why items were left out until now, by this process and the workers of its DataLoaders.

        With `gather`, by all processes of torch.distributed together: then each of them has to call it.
        """
        marked = set(self._unusable.nonzero().flatten().tolist())
        if gather and torch.distributed.is_initialized():
            everyone: list = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, marked)
            marked = set().union(*everyone)
        return [*self._left_out, *map(self._reason, sorted(marked))]

    def report(self, gather: bool = False) -> str:
        """How many items were left out until now, and why; see `skipped`."""
        return describe(self.skipped(gather), len(self) + len(self._left_out))

    def _check_whole(self, index: int) -> bool:
        raise NotImplementedError

    def _attempt(self, task: Callable[[int], Any], index: int) -> Any:
        """What the task makes of an item, or None when that is left out, now or before."""
        if self._unusable[index]:
            return None
        try:
            return task(index)
        except _UNUSABLE:
            if self.on_error == "raise":
                raise
            self._unusable[index] = True
            return None

    def _survey(self, task: Callable[[int], Any], doing: str, jobs: int | None, progress: bool) -> Iterator:
        """Pairs of index and what the task makes of it, for all items that are not left out."""
        results = each(partial(self._attempt, task), range(len(self)), jobs=jobs, progress=progress, doing=doing)
        return ((index, result) for index, result in enumerate(results) if result is not None)

    def _reason(self, index: int) -> AvlibError:
        try:
            self._check_whole(index)
        except _UNUSABLE as error:
            # What its traceback holds on to are open files and the threads of their decoders: a process that is
            # forked while they live waits for ever when it frees them, since it has the handles and not the threads.
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
