"""What fused attention saves: a full-size pretraining step of CAV-MAE with it, and with an explicit softmax.

    .venv/bin/python tests/bench/attention.py

Both ways run in one process, in turn, on the same model and input; medians are compared. Writes JSON with --json.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch
from timm.layers import Attention

from avlib.models.cav_mae import CAVMAE


def step(model: CAVMAE, clips: dict[str, torch.Tensor], fused: bool) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and loss of forward and backward."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.fused_attn = fused
    model.zero_grad()
    torch.manual_seed(0)  # the same masks each time
    wall, cpu = time.perf_counter(), time.process_time()
    loss = model(**clips).loss
    loss.backward()
    return time.perf_counter() - wall, time.process_time() - cpu, loss.item()


def main() -> None:
    """Print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = CAVMAE(norm_pix_loss=True)
    clips = {"audio": torch.randn(options.batch, 1024, 128), "image": torch.randn(options.batch, 3, 224, 224)}
    spent: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for _ in range(options.rounds + 1):
        for fused, steps in spent.items():
            steps.append(step(model, clips, fused))
    (wall, cpu, loss), (slow_wall, slow_cpu, slow_loss) = (
        [median(column) for column in zip(*steps[1:], strict=True)]
        for steps in spent.values()  # the first warms up
    )
    figures = {
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "fused (s)": round(wall, 2),
        "explicit (s)": round(slow_wall, 2),
        "explicit / fused": round(slow_wall / wall, 2),
        "explicit / fused, CPU time": round(slow_cpu / cpu, 2),
        "difference of losses": abs(loss - slow_loss),
    }
    print(*(f"{name:<28} {value}" for name, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
