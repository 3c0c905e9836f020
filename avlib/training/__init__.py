"""One training loop, for every system: batches to losses to weights, on a laptop's CPU or on many GPUs.

history = training.fit(model, step, dataset, training.Settings(steps=300), folder="here")

What a run gives follows from its settings and data alone. The order of items comes from (seed, epoch), so that neither
workers nor processes change it; a run that was stopped goes on from its newest checkpoint as if it had not been. With
`torchrun --nproc_per_node 2` each process takes its share of each batch. (`accelerate launch --cpu` starts one process,
whatever it is asked for.)
"""

from __future__ import annotations

from .history import History
from .loop import chosen_device, evaluating, fit, uniform
from .settings import OPTIMIZERS, PRECISIONS, SCHEDULES, Settings, build_optimizer, parameter_groups
from .sharpness import perturbed
from .stopping import average, saved

__all__ = [
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "History",
    "Settings",
    "average",
    "build_optimizer",
    "chosen_device",
    "evaluating",
    "fit",
    "parameter_groups",
    "perturbed",
    "saved",
    "uniform",
]
