"""How to train: numbers and choices, and what follows from them alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = ("constant", "linear", "cosine", "multistep")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Settings:
    """How to train.

    steps: of the optimiser, in all.
    batch_size: items in one step, over all processes and parts. The end of an epoch that does not fill a batch is
        left out, as published.
    learning_rate: at its highest.
    weight_decay: on all parameters; decoupled in "adamw", added to the gradient in "adam".
    betas: of both optimisers.
    optimizer: "adamw", or "adam" as CAV-MAE published it.
    schedule: what becomes of the learning rate after the warm-up: "constant", "linear" or "cosine" down to zero, or
        "multistep": times `gamma` when as many epochs are done as each of `milestones` says. Published for CAV-MAE:
        range(start, 1000, step), no warm-up.
    warmup: steps in which the rate rises in a line; in all schedules.
    clip: the gradient's norm at most; 0 lets it be.
    accumulate: in how many parts, one after another, a process works through its share of a batch, to save memory.
        An average over items is the same; contrast is among the items of a part.
    precision: "no", "bf16", or "fp16" with scaled losses, on GPUs.
    group_rates: by the beginning of parameters' names, what their rate is multiplied with: {"mlp_head": 100}.
    seed: of the order of items and of all that is drawn while training.
    workers: processes that load data, for each process that trains.
    evaluate_every, save_every: in steps; 0 is at the end only.
    log_every: steps from one row of the history to the next.
    keep: steps whose checkpoints are written and stay, for `average`; of the others only the newest does.

    Raises:
        ParameterError: a number out of range, or an unknown choice.
    """

    steps: int = 300
    batch_size: int = 64
    learning_rate: float | int = 2e-3
    weight_decay: float | int = 0.01
    betas: Sequence[float | int] = (0.9, 0.95)
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: int = 50
    milestones: Sequence[int] = ()
    gamma: float | int = 0.5
    clip: float | int = 1.0
    accumulate: int = 1
    precision: str = "no"
    group_rates: Mapping[str, float | int] = field(default_factory=dict)
    seed: int = 0
    workers: int = 0
    evaluate_every: int = 0
    save_every: int = 0
    log_every: int = 1
    keep: Sequence[int] = ()

    def __post_init__(self):
        for name in ("betas", "milestones", "keep"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a range, or a list from a file
        least = {"steps": 1, "batch_size": 1, "accumulate": 1, "log_every": 1}
        least |= dict.fromkeys(("warmup", "workers", "evaluate_every", "save_every", "seed", "clip", "weight_decay"), 0)
        for name, lowest in least.items():
            if not lowest <= getattr(self, name) < 2**31:
                raise ParameterError(name, f"{getattr(self, name)}", f"{lowest} or more")
        rates = {"learning_rate": self.learning_rate, "gamma": self.gamma}
        rates |= {f"group_rates[{prefix!r}]": rate for prefix, rate in self.group_rates.items()}
        for name, rate in rates.items():
            if not 0 < rate < math.inf:
                raise ParameterError(name, f"{rate}", "more than 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ParameterError("betas", f"{self.betas}", "two numbers from 0 to less than 1")
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ParameterError(name, repr(getattr(self, name)), f"one of {', '.join(known)}")

    def rate(self, step: int, epoch: int = 0) -> float:
        """Share of the learning rate in a step, counted from 0, of an epoch, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = min(1.0, max(0, step - self.warmup) / max(1, self.steps - self.warmup))
        after = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "multistep": self.gamma ** sum(epoch >= milestone for milestone in self.milestones),
        }
        return rise * after[self.schedule]


def parameter_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """What is trained, and at which rate: an optimiser's groups, of parameters that require gradients.

    A parameter belongs to the longest of `settings.group_rates` that its name begins with.

    Raises:
        ParameterError: no parameter has a name that begins so, or none requires gradients.
    """
    groups = {prefix: [] for prefix in ("", *settings.group_rates)}
    named = dict(model.named_parameters())
    for prefix in settings.group_rates:
        if not any(_begins(name, prefix) for name in named):
            raise ParameterError("group_rates", repr(prefix), "the beginning of a parameter's name")
    for name, parameter in named.items():
        if parameter.requires_grad:
            groups[max((prefix for prefix in groups if _begins(name, prefix)), key=len)].append(parameter)
    rates = {"": 1.0, **settings.group_rates}
    chosen = [
        {"params": parameters, "lr": settings.learning_rate * rates[prefix], "name": prefix or "all others"}
        for prefix, parameters in groups.items()
        if parameters
    ]
    if not chosen:
        raise ParameterError("model", "no parameter requires gradients", "at least one")
    return chosen


def _begins(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")
