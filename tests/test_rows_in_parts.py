"""Each row and stage by torchrun: two processes give what one does, and a killed one ends the other and goes on.

What is trained is in training_rows.py: small models in float64, without dropout and statistics of batches, which depend
on how a batch is shared out, and by SGD, since Adam makes whole steps of gradients that are only rounding.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_rows import ALL

from avlib import checkpoints, training

RUN = Path(__file__).with_name("training_rows.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
NAMES = [f"{row}-{stage}" for row, stage in ALL]
QUICK = [
    "audiotoken-image_classifier",
    "classification-classification",
    "svc-diffusion",
    "unit2av-adversarial",
]  # row 1: elsewhere


def run(folder, *stages, launcher=(sys.executable,), killed="never"):
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{RUN.parent}", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launcher, str(RUN), str(folder), killed, *stages]
    return subprocess.Popen(
        command, env=os.environ | quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    return said


def kept(folder):
    """The weights, the optimisers' state and averages, and the losses."""
    path = training.saved(folder)[-1]
    tensors = {f"model {name}": tensor for name, tensor in checkpoints.read(path).tensors.items()}
    beside = checkpoints.read(path / "training")
    tensors |= {name: tensor for name, tensor in beside.tensors.items() if tensor.is_floating_point()}
    losses = [{name: value for name, value in row.items() if "loss" in name} for row in beside.config["rows"]]
    return tensors, losses


def compared(tmp_path, stages):
    one = run(tmp_path / "one", *stages)
    two = run(tmp_path / "two", *stages, launcher=TORCHRUN)
    assert "1 done" in finish(one) and "2 done" in finish(two)
    for stage in stages:
        (expected, losses), (found, shared) = kept(tmp_path / "one" / stage), kept(tmp_path / "two" / stage)
        assert expected.keys() == found.keys() and len(losses) == len(shared) == 4
        assert max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items()) < 1e-9, stage
        assert shared == [pytest.approx(row, rel=1e-5) for row in losses], stage  # losses are noted in float32


def test_a_stage_of_each_row_in_two_processes(tmp_path):
    compared(tmp_path, QUICK)


@pytest.mark.long
def test_all_other_stages_in_two_processes(tmp_path):
    compared(tmp_path, [name for name in NAMES if name not in QUICK])


@pytest.mark.long
@pytest.mark.parametrize("stage", ["cav_mae-pretraining", *QUICK])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_goes_on_bit_for_bit(stage, rank, tmp_path):
    """torchrun names the process that was killed; what goes on from the checkpoint equals what was never killed."""
    whole = run(tmp_path / "whole", stage, launcher=TORCHRUN)
    finish(whole)
    stopped = run(tmp_path / "stopped", stage, launcher=TORCHRUN, killed=f"{rank}:3")
    said, _ = stopped.communicate(timeout=500)
    assert stopped.returncode and "Root Cause" in said and f"rank      : {rank}" in said.split("Root Cause")[1]
    assert f"exitcode  : -{signal.SIGKILL.value}" in said
    assert 1 <= len(checkpoints.read(training.saved(tmp_path / "stopped" / stage)[-1] / "training").config["rows"]) < 4
    finish(run(tmp_path / "stopped", stage, launcher=TORCHRUN))
    (expected, losses), (found, later) = kept(tmp_path / "whole" / stage), kept(tmp_path / "stopped" / stage)
    assert all(bool((found[name] == tensor).all()) for name, tensor in expected.items()) and later == losses
