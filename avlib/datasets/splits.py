"""Items to learn from, and others to measure with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from ..errors import ParameterError

_Item = TypeVar("_Item")


def split(
    items: Sequence[_Item], held_out: int, seed: int = 0, by: Callable[[_Item], Any] = attrgetter("labels")
) -> tuple[list[_Item], list[_Item]]:
    """Items to train on and `held_out` others, by the seed; both in the order of `items`.

    Args:
        items: of any kind.
        held_out: how many.
        seed: of the draw.
        by: gives an item's label or labels, each of which is held out in proportion, to within one item.

    Raises:
        ParameterError: there are not that many.
    """
    if not 0 <= held_out <= len(items):
        raise ParameterError("held_out", f"{held_out}", f"0 to {len(items)}, which is all")
    shuffled = np.random.default_rng(seed).permutation(len(items))
    alike = sorted(shuffled.tolist(), key=lambda index: by(items[index]))
    taken = {alike[int((number + 0.5) * len(items) / held_out)] for number in range(held_out)}
    train = [item for index, item in enumerate(items) if index not in taken]
    return train, [items[index] for index in sorted(taken)]
