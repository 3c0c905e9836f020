"""Questions to values that a tracer of shapes, which has no values, can pass."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor


def all_hold(conditions: Bool[Tensor, "*shape"]) -> bool:
    """Whether all are true.

    An `if` on values ends a trace with symbolic sizes. This form does not: there it is taken for granted that they are.
    """
    holds = conditions.all().item()
    try:
        torch._check(holds)
    except RuntimeError:
        return False
    return True
