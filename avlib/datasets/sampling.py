"""Samplers: which items an epoch has, and in which order. For `training.fit(sampler=...)`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.utils.data import Sampler

from ..errors import DatasetError, ParameterError, check_whole

Numbers = Sequence[int] | np.ndarray | Tensor  # one for each item


class WordLabelSampler(Sampler[int]):
    """Batches of some words, each with as many clips of every label: whom contrastive losses compare is there.

    It gives the indices of an epoch one after the other, `batch_size` for each batch, word by word and in a word label
    by label. So `training.fit(..., sampler=sampler)` with that batch size has whole batches, and whole words in each
    part if `accumulate` times the processes divides `words_per_batch`. What it gives follows from (seed, epoch).

    Words come equally often, and so do the labels of a word, whatever their numbers: in an epoch, which is as long as
    there are clips for, some clips of frequent words do not come, and those of rare ones come several times. A label
    with fewer than `clips_per_label` clips of a word is filled up with the same ones; where a word lacks a label, its
    other labels fill the places, and it has nothing to be compared with.

    `words` and `labels` are numbers for each item; words are all 0 where there is one word, or any may be compared with
    any. Fewer items or words than a batch has are refused. `clips_per_label` is 2 or more for a loss that needs another
    clip of the same label.
    """

    def __init__(
        self, words: Numbers, labels: Numbers, words_per_batch: int = 4, clips_per_label: int = 2, seed: int = 0
    ):
        words, labels = (np.asarray(numbers).tolist() for numbers in (words, labels))
        if len(words) != len(labels):
            raise ParameterError("labels", f"{len(labels)}", f"{len(words)}, as many as words")
        check_whole("words_per_batch", words_per_batch, 1)
        check_whole("clips_per_label", clips_per_label, 1)
        check_whole("seed", seed, 0)
        self.cells: dict[int, dict[int, list[int]]] = defaultdict(dict)  # by word and label, the clips
        for index, (word, label) in enumerate(zip(words, labels, strict=True)):
            self.cells[word].setdefault(label, []).append(index)
        self.labels, self.items = sorted(set(labels)), len(words)
        self.words_per_batch, self.clips_per_label, self.seed, self.epoch = words_per_batch, clips_per_label, seed, 0
        self.batch_size = words_per_batch * len(self.labels) * clips_per_label
        if self.items and words_per_batch > len(self.cells):
            raise ParameterError("words_per_batch", f"{words_per_batch}", f"at most the words, {len(self.cells)}")
        if not self.items or self.items < self.batch_size:
            advice = "Take fewer words_per_batch or clips_per_label."
            raise DatasetError("items", f"{self.items}", f"at least a batch, {max(1, self.batch_size)}", advice)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        """Indices in an epoch: those of whole batches."""
        return self.items // self.batch_size * self.batch_size

    def __iter__(self) -> Iterator[int]:
        dice = np.random.default_rng([self.seed, self.epoch])
        waiting: dict[tuple[int, int], list[int]] = defaultdict(list)  # by word and label, what comes next
        rounds: list[int] = []
        for _ in range(len(self) // self.batch_size):
            if len(rounds) < self.words_per_batch:
                rounds = dice.permutation(sorted(self.cells)).tolist()
            chosen, rounds = rounds[: self.words_per_batch], rounds[self.words_per_batch :]
            for word in chosen:
                for label, count in self._places(word).items():
                    yield from self._draw(waiting[word, label], self.cells[word][label], count, dice)

    def _places(self, word: int) -> Counter[int]:
        """Number of clips that a batch takes of each label of a word."""
        there = sorted(self.cells[word])
        wanted = [there[place % len(there)] for place in range(len(self.labels))]
        return Counter({label: wanted.count(label) * self.clips_per_label for label in there})

    @staticmethod
    def _draw(waiting: list[int], clips: list[int], count: int, dice: np.random.Generator) -> list[int]:
        """The next `count` clips; when too few are left, all are shuffled anew."""
        if len(waiting) < count:
            waiting[:] = [clip for _ in range(-(-count // len(clips))) for clip in dice.permutation(clips).tolist()]
        drawn, waiting[:] = waiting[:count], waiting[count:]
        return drawn


class BalancedSampler(Sampler[tuple[int, int]]):
    """Draws items by weight, with replacement.

    It gives pairs (index, number of times that this index was drawn before in this epoch), which `CAVMAEDataset`
    takes like an index, so that an item which is drawn often is augmented in another way each time. What it gives
    follows from (seed, epoch), and from weights such as `cav_mae.balanced_weights`, not all 0.
    """

    def __init__(self, weights: Float64[Tensor, " items"], seed: int = 0):
        if not (weights.isfinite().all() and (weights >= 0).all()):
            raise ParameterError("weights", "a negative one, or one that is not finite", "finite, 0 or more")
        if not weights.any():
            raise DatasetError("weights", "no item weighs anything", advice="Balance needs items with labels.")
        self.weights, self.seed, self.epoch = weights, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        dice = np.random.default_rng([self.seed, self.epoch])
        generator = torch.Generator().manual_seed(int(dice.integers(2**63)))
        before: Counter[int] = Counter()
        for index in torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist():
            yield index, before[index]
            before[index] += 1


class LengthBuckets(Sampler[int]):
    """Batches of items of similar length, in random order.

    Items are shuffled, sorted by length within pools of `pool` batches, and cut into batches, which are shuffled: in an
    epoch each item comes once; of fewer items than a batch has, some come again. Published: sorted once, so that every
    epoch has the same batches. Draws follow from (seed, epoch).
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int = 0, pool: int = 8):
        self.lengths, self.batch_size, self.seed, self.pool, self.epoch = list(lengths), batch_size, seed, pool, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return max(len(self.lengths), self.batch_size)

    def __iter__(self) -> Iterator[int]:
        dice = np.random.default_rng([self.seed, self.epoch])
        order, size = (dice.permutation(len(self)) % len(self.lengths)).tolist(), self.batch_size * self.pool
        pools = [sorted(order[i : i + size], key=self.lengths.__getitem__) for i in range(0, len(order), size)]
        flat = [index for pool in pools for index in pool]
        batches = [flat[i : i + self.batch_size] for i in range(0, len(flat), self.batch_size)]
        whole, rest = len(flat) // self.batch_size, batches[len(flat) // self.batch_size :]
        for batch in [*(batches[n] for n in dice.permutation(whole)), *rest]:
            yield from batch
