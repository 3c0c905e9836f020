"""How to train: numbers and choices, and what follows from them alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError

# The last two take two passes for each step, and step as `Settings.sharp_base` says.
BASES = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
OPTIMIZERS = (*BASES, "sam", "asam")
SCHEDULES = ("constant", "linear", "cosine", "multistep")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Settings:
    """How to train.

    steps: of the optimiser, in all.
    batch_size: items in one step, over all processes and parts. The end of an epoch that does not fill a batch is
        left out, as published.
    learning_rate: at its highest.
    weight_decay: on all parameters; decoupled in "adamw", added to the gradient in the others.
    decay_vectors: False spares parameters of one axis or none: biases, and the scales of norms.
    betas: of "adamw" and "adam".
    momentum: of "sgd".
    optimizer: "adamw", "adam" as CAV-MAE published it, "sgd", or "sam" or "asam", sharpness-aware minimisation: twice
        the work for each step, the second time where the loss is highest nearby, and what is clipped is the gradient
        there. Losses in the history are those of the first time.
    sharp_base: what steps in "sam" and "asam": "sgd" as published, "adamw" or "adam".
    rho: how far "nearby" reaches in these two; 0.05 published for "sam", ten times that and more for "asam".
    schedule: what becomes of the learning rate after the warm-up: "constant"; "linear" or "cosine" down to
        `min_learning_rate`; or "multistep": times `gamma` when as many epochs are done as each of `milestones` says.
        Published for CAV-MAE: range(start, 1000, step), no warm-up.
    min_learning_rate: where "linear" and "cosine" end.
    cycles: how often "cosine" goes down, each time from the top, in equal parts of the steps after the warm-up; and
        each time from `gamma` times the top before.
    warmup: steps in which the rate rises in a line; in all schedules. The i-th of W, from 0, has (i + 1) / W of it, not
        i / W as elsewhere: there the first step would change nothing.
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
    monitor: a figure of `evaluate`, by which models are compared: the lowest is best if "loss" or "error" is in its
        name, else the highest.
    patience: after how many evaluations without a better one training stops; 0: never.
    min_delta: by how much a figure must be better to count.
    best: whether the model ends with the weights of the best evaluation; else with the last ones.

    Raises:
        ParameterError: a number out of range, or an unknown choice.
    """

    steps: int = 300
    batch_size: int = 64
    learning_rate: float | int = 2e-3
    weight_decay: float | int = 0.01
    decay_vectors: bool = True
    betas: Sequence[float | int] = (0.9, 0.95)
    momentum: float | int = 0.9
    optimizer: str = "adamw"
    sharp_base: str = "sgd"
    rho: float | int = 0.05
    schedule: str = "cosine"
    min_learning_rate: float | int = 0.0
    cycles: int = 1
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
    monitor: str = ""
    patience: int = 0
    min_delta: float | int = 0.0
    best: bool = False

    def __post_init__(self):
        for name in ("betas", "milestones", "keep"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a range, or a list from a file
        least = dict.fromkeys(("steps", "batch_size", "accumulate", "log_every", "cycles"), 1)
        least |= dict.fromkeys(("warmup", "workers", "evaluate_every", "save_every", "seed", "clip", "weight_decay"), 0)
        least |= dict.fromkeys(("patience", "min_delta"), 0)
        for name, lowest in least.items():
            if not lowest <= getattr(self, name) < 2**31:
                raise ParameterError(name, f"{getattr(self, name)}", f"{lowest} or more")
        rates = {"learning_rate": self.learning_rate, "gamma": self.gamma, "rho": self.rho}
        rates |= {f"group_rates[{prefix!r}]": rate for prefix, rate in self.group_rates.items()}
        for name, rate in rates.items():
            if not 0 < rate < math.inf:
                raise ParameterError(name, f"{rate}", "more than 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ParameterError("betas", f"{self.betas}", "two numbers from 0 to less than 1")
        if not 0 <= self.momentum < 1:
            raise ParameterError("momentum", f"{self.momentum}", "0 or more, and less than 1")
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            expected = f"0 to the learning_rate, {self.learning_rate}"
            raise ParameterError("min_learning_rate", f"{self.min_learning_rate}", expected)
        choices = {"optimizer": OPTIMIZERS, "sharp_base": BASES, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ParameterError(name, repr(getattr(self, name)), f"one of {', '.join(known)}")
        if (self.patience or self.best) and not self.monitor:
            found = "none is given, with " + ("patience" if self.patience else "best")
            raise ParameterError("monitor", found, "the name of a figure that `evaluate` gives")
        if self.sharp and self.precision == "fp16":
            found = f"fp16 with {self.optimizer}, whose first gradient would be scaled"
            raise ParameterError("precision", found, '"no" or "bf16"')

    @property
    def sharp(self) -> bool:
        """Whether each step takes two passes."""
        return self.optimizer in ("sam", "asam")

    def rate(self, step: int, epoch: int = 0) -> float:
        """Share of the learning rate in a step, counted from 0, of an epoch, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        past, rest = max(0, step - self.warmup), max(1, self.steps - self.warmup)
        done, turns = min(1.0, past / rest), min(self.cycles, past * self.cycles / rest)
        least = self.min_learning_rate / self.learning_rate
        cycle = min(int(turns), self.cycles - 1)
        top = max(least, self.gamma**cycle)
        after = {
            "constant": 1.0,
            "linear": least + (1 - least) * (1 - done),
            "cosine": least + (top - least) * (1 + math.cos(math.pi * (turns - cycle))) / 2,
            "multistep": self.gamma ** sum(epoch >= milestone for milestone in self.milestones),
        }
        return rise * after[self.schedule]


def parameter_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """What is trained, and at which rate: an optimiser's groups, of parameters that require gradients.

    A parameter belongs to the longest of `settings.group_rates` that its name begins with. Without `decay_vectors` each
    group has its parameters of one axis or none in another one, without weight decay.

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
    return chosen if settings.decay_vectors else [part for group in chosen for part in _spared(group)]


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """What changes the weights in each step; of "sam" and "asam", that of `sharp_base`.

    Raises:
        ParameterError: see `parameter_groups`.
    """
    name = settings.sharp_base if settings.sharp else settings.optimizer
    own = {"momentum": settings.momentum} if name == "sgd" else {"betas": settings.betas}
    groups = parameter_groups(model, settings)
    return BASES[name](groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, **own)


def _spared(group: dict[str, Any]) -> list[dict[str, Any]]:
    """A group in two: what decays, and its vectors, which do not; either may be empty, and is left out."""
    decaying = [parameter for parameter in group["params"] if parameter.ndim > 1]
    vectors = [parameter for parameter in group["params"] if parameter.ndim <= 1]
    spared = {**group, "params": vectors, "weight_decay": 0.0, "name": f"{group['name']}, no decay"}
    return [part for part in ({**group, "params": decaying}, spared) if part["params"]]


def _begins(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")
