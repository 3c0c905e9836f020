"""Which classes there are, how often each comes, and who is drawn how often because of it."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.utils.data import Sampler

from ...errors import DatasetError, ParameterError
from ..sources import existing
from .items import Item

_HEADER = ["index", "mid", "display_name"]


@dataclass(frozen=True)
class LabelTable:
    """The classes in the order of their indices: the key of each (`mid`, as Freebase calls it) and its name."""

    mids: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: str | Path) -> LabelTable:
        """Read the published form: a csv with the header `index,mid,display_name`, 527 rows for AudioSet.

        Raises:
            DatasetError: there is no such file, its header is another, or the indices are not 0, 1, 2, ...
        """
        path = existing(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != _HEADER:
                raise DatasetError(path, f"its first line is {','.join(reader.fieldnames or ())!r}", ",".join(_HEADER))
            rows = list(reader)
        by_index = {row["index"]: row for row in rows}
        ordered = [by_index.get(str(index)) for index in range(len(rows))]
        if None in ordered:
            raise DatasetError(path, "its indices have gaps or come twice", f"each of 0 to {len(ordered) - 1} once")
        table = cls(tuple(row["mid"] for row in ordered), tuple(row["display_name"] for row in ordered))
        if len(set(table.mids)) < len(table):
            raise DatasetError(path, f"the mid {Counter(table.mids).most_common(1)[0][0]!r} comes twice")
        return table

    @classmethod
    def of(cls, items: Iterable[Item]) -> LabelTable:
        """A table of the labels that items have, sorted. A mid has no comma, which joins mids in the published form."""
        names = tuple(sorted({label for item in items for label in item.labels}))
        return cls(tuple(name.replace(",", ";") for name in names), names)

    def write(self, path: str | Path) -> None:
        """Write the published form."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_HEADER, *zip(range(len(self)), self.mids, self.names, strict=True)])

    def __len__(self) -> int:
        return len(self.mids)

    @cached_property
    def _lookup(self) -> dict[str, int]:
        often = Counter(self.names)
        names = {name: index for index, name in enumerate(self.names) if often[name] == 1}
        return names | {mid: index for index, mid in enumerate(self.mids)}

    def indices(self, item: Item) -> list[int]:
        """The classes of an item, each once; its labels may be mids or names.

        Raises:
            DatasetError: a label that is not in the table; it names the item and the label.
        """
        try:
            return list(dict.fromkeys(self._lookup[label] for label in item.labels))
        except KeyError as error:
            expected = f"a mid or a name of the {len(self)} in the label table"
            advice = "Give the label table that belongs to this data set, or correct the label."
            raise DatasetError(item, f"unknown label {error}", expected, advice) from error


def balanced_weights(items: Sequence[Item], table: LabelTable) -> Float64[Tensor, " items"]:
    """How often to draw each item so that rare classes are seen as often as common ones.

    The published rule (`gen_weight_file.py`): a class that c items have weighs 1000 / (c + 0.01), an item as much as
    its classes together. An item without labels weighs nothing.

    Raises:
        DatasetError: a label that is not in the table.
    """
    classes = [table.indices(item) for item in items]
    counts = Counter(index for indices in classes for index in indices)
    weights = [sum(1000 / (counts[index] + 0.01) for index in indices) for indices in classes]
    return torch.tensor(weights, dtype=torch.float64)


class BalancedSampler(Sampler[tuple[int, int]]):
    """Draws items by weight, with replacement, over one or several processes.

    It gives pairs (index, number of times that this index was drawn before in this epoch), which `CAVMAEDataset`
    takes like an index: so an item that is drawn often is augmented in another way each time.

    Args:
        weights: `(items,)`, how often to draw each; `balanced_weights` gives those for balanced classes.
        seed: of the draws; the same on all processes.
        num_replicas: how many processes share one epoch; None asks torch.distributed. Give 1 where something else
            shares the batches out, as Accelerate does.
        rank: which of them this is; None asks torch.distributed.

    Raises:
        DatasetError: no item has a weight.
        ParameterError: a weight is negative or not finite, or the rank is not below `num_replicas`.
    """

    def __init__(
        self,
        weights: Float64[Tensor, " items"],
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ):
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if num_replicas is None:
            num_replicas = torch.distributed.get_world_size() if distributed else 1
        if rank is None:
            rank = torch.distributed.get_rank() if distributed and num_replicas > 1 else 0
        if not 0 <= rank < num_replicas:
            raise ParameterError("rank", f"{rank}", f"0 to {num_replicas - 1}")
        if not (weights.isfinite().all() and (weights >= 0).all()):
            raise ParameterError("weights", "a negative one, or one that is not finite", "finite, 0 or more")
        if not weights.any():
            raise DatasetError("weights", "no item weighs anything", advice="Balance needs items with labels.")
        self.weights, self.seed, self.num_replicas, self.rank = weights, seed, num_replicas, rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch draws others."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.weights) / self.num_replicas)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        dice = np.random.default_rng([self.seed, self.epoch])
        generator = torch.Generator().manual_seed(int(dice.integers(2**63)))
        total = len(self) * self.num_replicas
        drawn = torch.multinomial(self.weights, total, replacement=True, generator=generator).tolist()
        before: Counter[int] = Counter()
        for number, index in enumerate(drawn):
            if number % self.num_replicas == self.rank:
                yield index, before[index]
            before[index] += 1
