"""A row of one file, which nothing else names, is listed, trained, cached, assessed, resumed and shared out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avlib import checkpoints, systems
from avlib.__main__ import main

ROWS = str(Path(__file__).parents[1] / "rows")

RUN = f"""
import os, signal, sys
import torch
from avlib import systems
systems.__path__.append({ROWS!r})
from avlib.__main__ import main

left = int(os.environ.get("STEPS_TO_LIVE", 0))
if left:
    plain = torch.optim.AdamW.step
    def step(self, *arguments, **how):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *arguments, **how)
    torch.optim.AdamW.step = step
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setattr(systems, "__path__", [*systems.__path__, ROWS])
    yield
    sys.modules.pop("avlib.systems.toy", None)


def run(tmp_path, *launcher, steps_to_live=0, cache="cache"):
    """Train the row in a process of its own and return its exit code; "out" below the cache then has the weights."""
    script, folder = tmp_path / "run.py", tmp_path / cache
    script.write_text(RUN)
    command = [
        sys.executable,
        *launcher,
        str(script),
        "train",
        "toy",
        "-p",
        "save_every=2",
        "--out",
        str(folder / "out"),
    ]
    environment = os.environ | {"AVLIB_CACHE": str(folder), "STEPS_TO_LIVE": str(steps_to_live), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def weights(tmp_path, cache="cache"):
    return checkpoints.read(tmp_path / cache / "out").tensors


def test_the_row_is_listed_with_its_title_and_command(capsys):
    assert "toy" in systems.names() and systems.described("toy")["TITLE"] == "Toy"
    assert systems.commands()["draw_line"] == ("toy", "print the points of a line")
    assert main(["draw_line", "2"]) == 0 and capsys.readouterr().out == "-1,-2 -0.935484,-1.87097\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert "draw_line" in printed and "print the points of a line" in printed
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "toy" in capsys.readouterr().out


def test_the_row_is_trained_cached_and_assessed(tmp_path, capsys):
    assert main(["train", "toy", "--out", str(tmp_path / "out")]) == 0
    assert "slope" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out/history.json").read_text())
    assert len(rows) == 8 and {"critic loss", "generator loss", "critic gradient"} <= rows[0].keys()
    assert json.loads((tmp_path / "out/figures.json").read_text())["slope"]["meaning"] == "a flat line"
    from avlib.systems import toy

    before = toy.trained(toy.tiny, progress=False).folder
    slower = systems.changed(toy.tiny, {"workers": 1, "log_every": 3})
    assert toy.trained(slower, progress=False).folder == before, "neither changes the weights"
    assert toy.trained(systems.changed(toy.tiny, {"seed": 1}), progress=False).folder != before
    assert toy.trained(systems.changed(toy.tiny, {"stage": "line"}), progress=False).folder != before


def test_killed_and_resumed_is_bit_equal(tmp_path):
    assert run(tmp_path, cache="straight").returncode == 0
    # 8 steps of the first stage, then two in each step of the second: killed in its sixth step, after a checkpoint
    assert run(tmp_path, steps_to_live=8 + 11).returncode == -9
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    expected = weights(tmp_path, "straight")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path).items())


def test_two_processes_equal_one(tmp_path):
    assert run(tmp_path, cache="one").returncode == 0
    shared = run(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", cache="two")
    assert shared.returncode == 0, shared.stderr
    expected = weights(tmp_path, "one")
    for name, tensor in weights(tmp_path, "two").items():
        assert torch.allclose(tensor, expected[name], atol=1e-10), name
