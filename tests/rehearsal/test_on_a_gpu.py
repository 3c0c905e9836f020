"""On a GPU that is there: each row's steps with their gradients, and tests/bench/gpu.json with what they cost.

Of each stage and precision: seconds of a step, the most memory, and MFU, here the share of the speed that a large
matrix product reaches on the same device in the same precision. Of models as small as these it is low.
"""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from pretending import autocast
from small_rows import ALL, prepared
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

OUT = Path(__file__).parents[1] / "bench" / "gpu.json"
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: see the rehearsal beside it")


def fastest(dtype, size=4096):
    """Operations of a matrix product in a second."""
    x = torch.ones(size, size, device="cuda", dtype=dtype or torch.float32)
    for _ in range(3):
        x @ x
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(10):
        x @ x
    torch.cuda.synchronize()
    return 20 * size**3 / (time.perf_counter() - begun)


@pytest.mark.parametrize(("row", "stage"), ALL)
def test_steps_with_gradients(row, stage):
    own = prepared(row, stage)
    batch = own.dataset.collate([own.dataset[index] for index in range(min(8, len(own.dataset)))])
    batch = tree_map_only(torch.Tensor, lambda tensor: tensor.cuda(), batch)
    noted = json.loads(OUT.read_text()) if OUT.exists() else {}
    for precision, dtype in PRECISIONS.items():
        model = own.stage.build(own.settings, progress=False, device="cpu").cuda().train()
        for name, step in own.steps.items():

            def stepped(model=model, step=step, dtype=dtype):
                model.zero_grad()
                with autocast(dtype):
                    loss, _ = step(model, batch)
                loss.backward()
                return loss.item()

            with FlopCounterMode(display=False) as counter:
                assert math.isfinite(stepped())
            torch.cuda.reset_peak_memory_stats()
            begun = time.perf_counter()
            for _ in range(5):
                stepped()
            torch.cuda.synchronize()
            seconds = (time.perf_counter() - begun) / 5
            noted[f"{row} {stage} {name} {precision}".replace("  ", " ")] = {
                "seconds": seconds,
                "MiB": torch.cuda.max_memory_allocated() / 2**20,
                "MFU": counter.get_total_flops() / seconds / fastest(dtype),
            }
    OUT.write_text(json.dumps({"device": torch.cuda.get_device_name()} | noted, indent=1))
