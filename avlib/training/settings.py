"""Settings of a training: schedule of the rate, groups of parameters, optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import nn

from ..errors import ParameterError
from ..settings import BelowOne, Count, Natural, NonNegative, Positive, settings

_BASES = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
_Optimizer = Literal["adamw", "adam", "sgd", "sam", "asam"]
_Schedule = Literal["constant", "linear", "cosine", "multistep"]
OPTIMIZERS, SCHEDULES = get_args(_Optimizer), get_args(_Schedule)


@settings
class Settings:
    """Settings of a training.

    batch_size: items in one step, over all processes and parts. The end of an epoch that does not fill a batch is
        left out, as published.
    optimizer: "adamw", "adam" (as CAV-MAE published it), "sgd", or "sam" or "asam" (sharpness-aware minimisation: two
        passes for each step; the second takes the gradient where the loss is highest nearby, and that one is clipped;
        losses in the history are those of the first).
    schedule: of the learning rate after the warm-up: "constant"; "linear" or "cosine" down to `min_learning_rate`; or
        "multistep", times `gamma` at each epoch in `milestones`, and after every `decay_steps` steps. CAV-MAE:
        range(start, 1000, step), no warm-up; diff-svc: 40,000 steps.
    cycles: number of cosine cycles, in equal parts of the steps after the warm-up; each starts from `gamma` times the
        top of the one before.
    warmup: steps in which the rate rises linearly, for all schedules. Step i of W, from 0, has (i + 1) / W of it, not
        i / W as elsewhere: there the first step would change nothing.
    accumulate: parts in which a process works through its share of a batch, one after another, to save memory. The
        average over items is the same; contrastive losses see the items of one part.
    precision: "auto" is "bf16" where a matrix product in it is no slower than in float32, which is measured (see
        `avlib.training.bf16_cost`), else "no": the weights then depend on the machine.
    group_rates: factors of the learning rate by prefix of parameter names: {"mlp_head": 100}. Of several networks, a
        prefix is the name of one: {"discriminator": 0.5}.
    ema: decay of an exponential moving average of the trained weights, which evaluations see and the model ends with;
        0 is off. Early steps average less: min(ema, (1 + step) / (10 + step)).
    """

    FREE: ClassVar = ("workers", "log_every", "save_every")  # change no weights; see `avlib.settings.recipe`

    steps: Count = 300  # of the optimiser, in all
    batch_size: Count = 64
    learning_rate: Positive = 2e-3  # the highest of the schedule
    weight_decay: NonNegative = 0.01  # on all parameters; decoupled in "adamw", added to the gradient in the others
    decay_vectors: bool = True  # whether parameters with one axis or none (biases, scales of norms) decay too
    betas: Annotated[Sequence[BelowOne], Field(min_length=2, max_length=2)] = (0.9, 0.95)  # of "adam", "adamw"
    momentum: BelowOne = 0.9  # of "sgd"
    optimizer: _Optimizer = "adamw"
    sharp_base: Literal["adamw", "adam", "sgd"] = "sgd"  # the optimiser that steps in "sam" and "asam"
    rho: Positive = 0.05  # radius of "nearby" in these; published 0.05 for "sam", ten times that and more for "asam"
    schedule: _Schedule = "cosine"
    min_learning_rate: NonNegative = 0.0  # the end of "linear" and "cosine"
    cycles: Count = 1
    warmup: Natural = 50
    milestones: Sequence[int] = ()
    decay_steps: Natural = 0
    gamma: Positive = 0.5
    clip: NonNegative = 1.0  # largest norm of the gradient; 0 does not clip
    accumulate: Count = 1
    precision: Literal["no", "bf16", "fp16", "auto"] = "no"  # "fp16" with scaled losses, on GPUs; see above for "auto"
    group_rates: Mapping[str, Positive] = field(default_factory=dict)
    ema: BelowOne = 0.0
    seed: Natural = 0  # of the order of items and of all random numbers of the training
    workers: Natural = 0  # processes that load data, for each process that trains
    evaluate_every: Natural = 0  # in steps; 0 is at the end only
    save_every: Natural = 0  # likewise
    log_every: Count = 1  # steps from one row of the history to the next
    keep: Sequence[int] = ()  # steps whose checkpoints stay, for `average`; of the others only the newest does
    monitor: str = ""  # the figure of `evaluate` that decides which weights are best; see `better` of `fit`
    patience: Natural = 0  # evaluations without a better one after which training stops; 0 is never
    min_delta: NonNegative = 0.0  # smallest difference that counts as better
    best: bool = False  # whether the model ends with the weights of the best evaluation; else with the last ones

    def __post_init__(self):
        if self.min_learning_rate > self.learning_rate:
            expected = f"0 to the learning_rate, {self.learning_rate}"
            raise ParameterError("min_learning_rate", f"{self.min_learning_rate}", expected)
        if self.chooses and not self.monitor:
            found = "none is given, with " + ("patience" if self.patience else "best")
            raise ParameterError("monitor", found, "the name of a figure that `evaluate` returns")
        if self.sharp and self.precision == "fp16":
            found = f"fp16 with {self.optimizer}, whose first gradient would be scaled"
            raise ParameterError("precision", found, '"no" or "bf16"')

    @property
    def chooses(self) -> bool:
        """True if evaluations decide when training ends or which weights it keeps."""
        return bool(self.patience or self.best)

    @property
    def sharp(self) -> bool:
        return self.optimizer in ("sam", "asam")

    def rate(self, step: int, epoch: int = 0) -> float:
        """Return the share of the learning rate in a step of an epoch, both counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        past, rest = max(0, step - self.warmup), max(1, self.steps - self.warmup)
        done, turns = min(1.0, past / rest), min(self.cycles, past * self.cycles / rest)
        least = self.min_learning_rate / self.learning_rate
        cycle = min(int(turns), self.cycles - 1)
        top = max(least, self.gamma**cycle)
        decays = step // self.decay_steps if self.decay_steps else 0
        after = {
            "constant": 1.0,
            "linear": least + (1 - least) * (1 - done),
            "cosine": least + (top - least) * (1 + math.cos(math.pi * (turns - cycle))) / 2,
            "multistep": self.gamma ** (sum(epoch >= milestone for milestone in self.milestones) + decays),
        }
        return rise * after[self.schedule]


def parameter_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Return an optimiser's groups of the parameters that require gradients.

    A parameter belongs to the longest prefix in `settings.group_rates` that its name begins with; each must fit one.
    Without `decay_vectors` parameters with one axis or none are a group of their own, without weight decay.
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
    """Return the optimiser of a model; for "sam" and "asam" that of `sharp_base`."""
    name = settings.sharp_base if settings.sharp else settings.optimizer
    own = {"momentum": settings.momentum} if name == "sgd" else {"betas": settings.betas}
    groups = parameter_groups(model, settings)
    return _BASES[name](groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, **own)


def _spared(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a group into what decays and its vectors, which do not; an empty part is left out."""
    decaying = [parameter for parameter in group["params"] if parameter.ndim > 1]
    vectors = [parameter for parameter in group["params"] if parameter.ndim <= 1]
    spared = {**group, "params": vectors, "weight_decay": 0.0, "name": f"{group['name']}, no decay"}
    return [part for part in ({**group, "params": decaying}, spared) if part["params"]]


def _begins(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")
