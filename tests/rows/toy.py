"""A row in one file: a line is learned first, then a generator learns to make it, against a critic."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from avlib import training
from avlib.settings import Count, recipe, settings
from avlib.systems import Figure, Report, Stage, changed, trained_by

TITLE = "Toy"
COMMANDS = {"draw_line": "print the points of a line"}


@settings
class Settings:
    stage: Literal["line", "gan"] = "gan"
    points: Count = 32
    training: training.Settings = field(default_factory=lambda: training.Settings(steps=8, batch_size=8, ema=0.5))


tiny = full = Settings()


def data(settings: Settings, *, progress: bool = True) -> Dataset:
    return TensorDataset(x := torch.linspace(-1, 1, settings.points, dtype=torch.float64)[:, None], 2 * x)


def build(settings: Settings, **how: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(settings.training.seed)
        networks = [nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double() for _ in range(2)]
    pair = nn.ModuleDict({"generator": networks[0], "critic": networks[1]})
    if settings.stage == "gan":
        pair["generator"] = trained(changed(settings, {"stage": "line"}), **how).model.train()
    return pair if settings.stage == "gan" else pair["generator"]


def line_step(model: nn.Module, batch: Any, settings: Settings) -> tuple[torch.Tensor, dict]:
    return (model(batch[0]) - batch[1]).square().mean(), {}


def generated(model: nn.ModuleDict, batch: Any) -> torch.Tensor:
    return model["generator"](batch[0] + training.normal(len(batch[0]), 1).double())


def critic_step(model: nn.ModuleDict, batch: Any, settings: Settings) -> tuple[torch.Tensor, dict]:
    fake = generated(model, batch).detach()
    return (model["critic"](batch[1]) - 1).square().mean() + model["critic"](fake).square().mean(), {}


def generator_step(model: nn.ModuleDict, batch: Any, settings: Settings) -> tuple[torch.Tensor, dict]:
    fake = generated(model, batch)
    return (model["critic"](fake) - 1).square().mean() + (fake - batch[1]).abs().mean(), {}


stages = {
    "line": Stage(data, build, line_step, recipe),
    "gan": Stage(data, build, {"critic": critic_step, "generator": generator_step}, recipe, ("line",)),
}
trained = trained_by(stages, __name__)


def assess(model: nn.Module, settings: Settings, **how: Any) -> Report:
    return Report({"slope": Figure(model["generator"](torch.ones(1, 1).double()).item(), 0.0, "a flat line")})


def draw_line_command(arguments: list[str]) -> int:
    print(*(f"{float(x):g},{float(y):g}" for x, y in list(data(tiny))[: int(arguments[0])]))
    return 0
