"""Sharpness-aware minimisation: step by the gradient where the loss is highest nearby.

Each step costs two passes. Sources: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving
Generalization", arXiv:2010.01412, algorithm 1; Kwon et al., "ASAM", arXiv:2102.11600, where "nearby" is measured in
shares of each weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .stopping import set_random_state


@contextmanager
def perturbed(parameters: Sequence[nn.Parameter], rho: float, adaptive: bool = False) -> Iterator[None]:
    """Move the weights w to w + e; on exit restore w to the bit.

    e = rho g / ||g|| with the parameters' gradients g, or rho w^2 g / ||w g|| if `adaptive`; the norm is over all of
    them.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    before = [parameter.detach().clone() for parameter in moved]
    with torch.no_grad():
        scaled = [w.abs() * p.grad if adaptive else p.grad for p, w in zip(moved, before, strict=True)]
        # The device is not waited for: a gradient of zero moves nothing, one that is no number shows in the second.
        length = rho / (torch.nn.utils.get_total_norm(scaled) + 1e-12)
        for parameter, w, g in zip(moved, before, scaled, strict=True):
            parameter.add_((w.abs() * g if adaptive else g) * length)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, w in zip(moved, before, strict=True):
                parameter.copy_(w)


@contextmanager
def as_before(model: nn.Module, state: dict) -> Iterator[None]:
    """Make a second pass like the first: same random numbers, and BatchNorm's running statistics stay."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    set_random_state(state)
    for module in norms:
        module.track_running_stats = False  # in training, a batch is normalised by its own statistics all the same
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True
