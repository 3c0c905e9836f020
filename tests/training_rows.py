"""What tests/test_rows_in_parts.py trains in other processes: `training_rows.py FOLDER KILLED_IN_STEP ROW-STAGE ...`.

Each stage of a row with small settings and its own loop's options, in float64 where it is compared. KILLED_IN_STEP
"never" trains to the end; "0:4" kills the process of rank 0 in its fourth call of a step.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from small_rows import prepared
from torch.utils._pytree import tree_map_only

from avlib import training
from avlib.models.audiotoken import AudioTokenEmbedder

STEPS = 4
BY_UNITS = {"vocoder", "adversarial", "pitch"}  # parts of their losses are means over units, which items differ in


def exact(tensor):
    """In float64, pictures too; not whole numbers that count."""
    return tensor.double() if tensor.is_floating_point() or tensor.dtype == torch.uint8 else tensor


class Exact(torch.utils.data.Dataset):
    """A data set whose batches are float64, on the CPU of this process."""

    def __init__(self, dataset, alike=False):
        self.dataset, self.alike = dataset, alike
        if hasattr(dataset, "set_epoch"):
            self.set_epoch = dataset.set_epoch

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[0 if self.alike else index]

    def collate(self, items):
        batch = self.dataset.collate(items)
        return tree_map_only(torch.Tensor, exact, batch)


def frozen(model):
    """Without what depends on how a batch is shared out: dropout, and statistics of a batch."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm | AudioTokenEmbedder):
            module.eval().train = lambda mode=True, module=module: module
    return model


def train(row, stage, folder, killed):
    own = prepared(row, stage)
    torch.manual_seed(0)
    model = frozen(own.stage.build(own.settings, progress=False, device="cpu").double())
    # Where a gradient is nothing but rounding, Adam would make steps of it.
    plan = replace(
        own.stage.plan(own.settings), steps=STEPS, batch_size=4, accumulate=1, warmup=1, ema=0.5, save_every=1,
        evaluate_every=0, log_every=1, schedule="constant", optimizer="sgd", learning_rate=1e-3,
    )  # fmt: skip
    steps, calls = own.steps, []
    rank, _, number = killed.partition(":")

    def counted(step):
        def run(model, batch):
            calls.append(None)
            if rank == os.environ.get("RANK", "0") and len(calls) == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            return step(model, batch)

        return run

    steps = {name: counted(step) for name, step in steps.items()}
    steps = steps.get("", steps)
    sampler = own.stage.sampler(own.settings, own.dataset)
    training.fit(
        model,
        steps,
        Exact(own.dataset, stage in BY_UNITS),
        plan,
        folder=folder,
        sampler=sampler,
        progress=False,
        device="cpu",
    )


if __name__ == "__main__":
    folder, killed, *stages = sys.argv[1:]
    for each in stages:
        row, _, stage = each.partition("-")
        train(row, stage, Path(folder) / each, killed)
    print(f"{torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1} done")
