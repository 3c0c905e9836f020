"""One training loop for every system, on a laptop's CPU or on many GPUs.

history = training.fit(model, step, dataset, training.Settings(steps=300), folder="here")

The result of a run follows from its settings and data alone. The order of items comes from (seed, epoch), so that
neither workers nor processes change it; a stopped run goes on from its newest checkpoint as if it had not been. With
`torchrun --nproc_per_node 2` each process takes its share of each batch. (`accelerate launch --cpu` starts one
process, whatever it is asked for.)
"""

from .history import History
from .loop import bf16_cost, chosen_device, evaluating, fit, normal, uniform
from .settings import OPTIMIZERS, SCHEDULES, Settings, build_optimizer, parameter_groups
from .sharpness import perturbed
from .stopping import average, saved
