"""The loop: what a run gives follows from its settings and data, whoever stops it and however it is shared out."""

import dataclasses
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from avlib import checkpoints, training
from avlib.errors import CacheError, CheckpointError, ParameterError, TrainingError
from avlib.training import Settings, chosen_device

RUNS = Path(__file__).with_name("training_runs.py")  # what is trained in processes of its own
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


class Batch(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


class Line(torch.utils.data.Dataset):
    """y = 2 x, in one dimension, by item; `lost` are left out."""

    def __init__(self, items=32, lost=()):
        self.x, self.lost, self.epochs, self.asked = torch.linspace(-1, 1, items)[:, None], set(lost), [], []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.asked.append(index)
        return None if index in self.lost else Batch(self.x[index], 2 * self.x[index])

    def collate(self, items):
        items = [item for item in items if item is not None]
        x = torch.stack([item.x for item in items]) if items else torch.zeros(0, 1)
        return Batch(x, 2 * x)

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def report(self):
        return f"{len(self.lost)} were lost"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.mlp_head, self.dead = nn.Linear(1, 4), nn.Linear(4, 1), nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x):
        return self.mlp_head(self.dropout(self.body(x).tanh()))


def step(model, batch):
    error = (model(batch.x) - batch.y).square().mean()
    return error, {"error": error, "twice": 2 * error}


def fit(settings=None, model=None, dataset=None, taken=step, **how):
    model = Net() if model is None else model
    settings = settings or quick()
    if "evaluate" in how and settings.monitor:
        how = {"better": {"valid loss": "lower", "valid MAE": "lower", "valid UAR": "higher"}} | how
    history = training.fit(model, taken, Line() if dataset is None else dataset, settings, progress=False, **how)
    return model, history


def quick(**changed):
    return Settings(
        **{"steps": 10, "batch_size": 8, "learning_rate": 0.05, "warmup": 2, "weight_decay": 0.0, **changed}
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# What a step is


def test_it_is_the_loop_that_one_would_write():
    settings = quick(clip=0.5, weight_decay=0.1, steps=12)
    model, history = fit(settings)
    by_hand, data, losses = Net(), Line(), []
    optimizer = torch.optim.AdamW(by_hand.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for number in range(12):
        epoch, place = divmod(number, 4)
        order = np.random.default_rng([0, epoch]).permutation(32)[8 * place : 8 * place + 8]
        optimizer.param_groups[0]["lr"] = 0.05 * settings.rate(number)
        loss, _ = step(by_hand, data.collate([data[i] for i in order]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert same(model, by_hand)
    assert history.series("loss") == (list(range(1, 13)), losses)
    assert history.series("twice")[1] == [2 * loss for loss in losses]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluation_leaves_modes_as_they_were():
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(1)))
    model[1].eval()
    with pytest.raises(KeyError), training.evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, False, False]


def test_it_learns():
    _, history = fit(quick(steps=100))
    assert history.rows[-1]["loss"] < 0.02 * history.rows[0]["loss"]


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_a_batch_weigh_as_their_items_do(parts):
    whole, history = fit(quick())
    model, in_parts = fit(quick(accumulate=parts))  # 8 items in 3 parts: 2, 3 and 3
    assert in_parts.series("loss")[1] == pytest.approx(history.series("loss")[1], rel=1e-5)
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_items_that_are_left_out_weigh_nothing():
    lost = Line(lost=range(5))
    _, history = fit(quick(steps=4, learning_rate=1e-12), dataset=lost)
    _, in_parts = fit(quick(steps=4, learning_rate=1e-12, accumulate=8), dataset=Line(lost=range(5)))  # some are empty
    assert in_parts.series("loss")[1] == pytest.approx(history.series("loss")[1], rel=1e-5)
    with pytest.raises(TrainingError, match=r"step 1: no item of the batch can be used. 32 were lost"):
        fit(dataset=Line(lost=range(32)))


def test_uniform_is_by_place_in_the_batch():
    drawn = []

    def noting(model, batch):
        drawn.append((batch.x, training.uniform(len(batch.x), 3), training.uniform(len(batch.x))))
        return step(model, batch)

    fit(quick(steps=2), taken=noting)
    fit(quick(steps=2, accumulate=4), taken=noting)
    for number in range(2):
        pieces = zip(*drawn[2 + 4 * number : 6 + 4 * number], strict=True)
        for whole, parts in zip(drawn[number], pieces, strict=True):
            assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(drawn[0][1], drawn[1][1]) and not torch.equal(drawn[0][1][:, 0], drawn[0][2])
    torch.manual_seed(3)
    expected = torch.rand(2, 5)
    torch.manual_seed(3)
    assert torch.equal(training.uniform(2, 5), expected)  # outside, what a seed gives anywhere


@pytest.mark.parametrize("device", [None, "auto", "cpu"])
def test_bf16_and_back(device):
    seen = []

    def noting(model, batch):
        seen.append(model(batch.x).dtype)
        return step(model, batch)

    for precision in ("bf16", "no"):
        model, history = fit(quick(steps=2, precision=precision), taken=noting, device=device)
        assert math.isfinite(history.rows[-1]["loss"]) and next(model.parameters()).dtype == torch.float32
    kept = torch.float32
    assert seen == [torch.bfloat16] * 2 + [kept] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ParameterError, match='device: "cuda" is not available; use "auto" or "cpu"'):
        fit(device="cuda")
    with pytest.raises(ParameterError, match="fp16 needs a GPU"):
        fit(quick(precision="fp16"))


@pytest.mark.parametrize(("kind", "count"), [("cuda", 2), ("mps", 1), (None, 0)])
def test_devices_by_name_and_index(kind, count, monkeypatch):
    here = kind and torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: here)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    assert chosen_device("auto") == chosen_device(None) == (here or torch.device("cpu"))
    assert chosen_device("cpu") == torch.device("cpu")
    for index in range(count):
        assert chosen_device(f"{kind}:{index}") == torch.device(kind, index)
    for name in {"cuda", "mps"} - {kind} | {f"{kind or 'cuda'}:{count}", "cpu:1", "cpu:x", "gpu"}:
        with pytest.raises(ParameterError, match=f"device: .*{name}.*auto.*cpu.*{kind or ''}"):
            chosen_device(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_on_a_gpu(precision, tmp_path):
    reference, _ = fit(quick(), device="cpu")
    model, history = fit(quick(precision=precision, accumulate=2), folder=tmp_path)
    assert next(model.parameters()).is_cuda and history.rows[-1]["loss"] < history.rows[0]["loss"]
    for a, b in zip(reference.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b.cpu(), atol=1e-4 if precision == "no" else 0.1)
    again, restored = fit(quick(precision=precision, accumulate=2), folder=tmp_path)
    assert same(again.cpu(), model.cpu()) and restored.rows == history.rows


# Data


def test_the_order_is_of_seed_and_epoch_alone():
    asked = {}
    for name, how in {"plain": {}, "parts": {"accumulate": 2}, "seed": {"seed": 1}}.items():
        dataset = Line(34)
        fit(quick(steps=8, **how), dataset=dataset)
        asked[name] = dataset.asked
        assert dataset.epochs == [0, 1]
        assert len(set(dataset.asked[:32])) == 32  # each item once; the two that fill no batch are left out
    assert asked["plain"] == asked["parts"] != asked["seed"]
    assert asked["plain"][:32] != asked["plain"][32:]


def test_workers_change_nothing():
    alone, _ = fit(quick(steps=6))
    helped, _ = fit(quick(steps=6, workers=2))
    assert same(alone, helped)


def test_a_sampler_decides():
    class Sampler:
        def set_epoch(self, epoch):
            self.epoch = epoch

        def __len__(self):
            return 16

        def __iter__(self):
            return iter([self.epoch] * 16)

    dataset = Line()
    fit(quick(steps=4), dataset=dataset, sampler=Sampler())
    assert dataset.asked == [0] * 16 + [1] * 16


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    def numbers():
        return np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    def seeded():  # Python's own are looked at by training_runs.py: here beartype draws from them
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    model = Net()
    seeded()
    expected = numbers()
    seeded()
    fit(model=model, folder=tmp_path)
    assert numbers() == expected


# Settings


def rates(**changed):
    settings = Settings(**{"steps": 100, "warmup": 0, **changed})
    return [settings.rate(number, number // 10) for number in range(100)]


def test_schedules():
    assert rates(schedule="constant") == [1.0] * 100
    assert rates(schedule="linear")[50] == pytest.approx(0.5) and rates(schedule="linear")[99] == pytest.approx(0.01)
    cosine = rates(warmup=20)
    assert cosine[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert cosine[60] == pytest.approx(0.5) and 0 < cosine[99] < 0.001
    assert max(rates(steps=2, warmup=50)[:2]) == pytest.approx(2 / 50)  # a short run of what was meant to be longer


def test_multistep_is_the_published_schedule():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(range(3, 1000, 2)), gamma=0.5)
    expected = []
    for _ in range(10):  # epochs of ten steps; stepped at the end of each
        expected += [optimizer.param_groups[0]["lr"]] * 10
        optimizer.step()
        schedule.step()
    assert rates(schedule="multistep", milestones=range(3, 1000, 2), gamma=0.5) == expected


def test_multistep_by_steps_is_torchs_step_lr():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 30, gamma=0.5)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(schedule="multistep", decay_steps=30, gamma=0.5) == expected


def test_adam_as_published():
    model, _ = fit(
        quick(optimizer="adam", betas=[0.95, 0.999], weight_decay=0.1, schedule="constant", warmup=0, clip=0)
    )
    by_hand, data = Net(), Line()
    optimizer = torch.optim.Adam(by_hand.parameters(), 0.05, (0.95, 0.999), weight_decay=0.1)
    for number in range(10):
        order = np.random.default_rng([0, number // 4]).permutation(32)[number % 4 * 8 :][:8]
        optimizer.zero_grad()
        step(by_hand, data.collate([data[i] for i in order]))[0].backward()
        optimizer.step()
    for a, b in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_parameter_groups():
    model = Net()
    model.body.weight.requires_grad_(False)
    groups = training.parameter_groups(model, quick(group_rates={"mlp_head": 100.0, "mlp_head.bias": 2}))
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {group["name"]: ([named[id(p)] for p in group["params"]], group["lr"]) for group in groups}
    assert found == {
        "all others": (["body.bias", "dead.weight", "dead.bias"], pytest.approx(0.05)),
        "mlp_head": (["mlp_head.weight"], pytest.approx(5.0)),
        "mlp_head.bias": (["mlp_head.bias"], pytest.approx(0.1)),
    }
    with pytest.raises(ParameterError, match="group_rates: 'mlp'"):
        training.parameter_groups(model, quick(group_rates={"mlp": 2.0}))
    with pytest.raises(ParameterError, match="no parameter requires gradients"):
        training.parameter_groups(model.requires_grad_(False), quick())


def test_frozen_parts_stay_and_the_head_goes_faster():
    begun, model = Net(), Net()
    model.body.requires_grad_(False)
    fit(quick(steps=1, warmup=0, learning_rate=1e-3, group_rates={"mlp_head": 10.0}), model=model)
    assert torch.equal(model.body.weight, begun.body.weight) and torch.equal(model.dead.weight, begun.dead.weight)
    moved = (model.mlp_head.weight - begun.mlp_head.weight).abs()
    assert torch.allclose(moved, torch.full_like(moved, 1e-2), rtol=1e-3)  # Adam's first step has the size of the rate


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch_size": 0}, {"learning_rate": 0}, {"learning_rate": math.nan}, {"betas": (0.9,)},
        {"betas": (0.9, 1.0)}, {"optimizer": "lion"}, {"schedule": "step"}, {"precision": "fp8"}, {"clip": -1},
        {"group_rates": {"mlp_head": 0}}, {"seed": -1}, {"accumulate": 0}, {"warmup": -1},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Settings(**wrong)


def test_batches_that_cannot_be():
    with pytest.raises(ParameterError, match=r"batch_size: 64; .* at most the items, 32"):
        fit(quick(batch_size=64))
    with pytest.raises(ParameterError, match="batch_size: 8; expected at least 9"):
        fit(quick(accumulate=9))


# Evaluation and history


def test_evaluation_and_history(tmp_path):
    model, modes, drawn = Net(), [], []

    def evaluate(net):
        modes.append((net.training, torch.is_grad_enabled()))
        drawn.append(torch.rand(1).item())
        return {"right": torch.tensor(0.5), "share": 1}

    model.dropout.p = 0.5  # so that training draws random numbers, which evaluation must not take from it
    _, history = fit(quick(steps=7, evaluate_every=3), model=model, evaluate=evaluate)
    assert modes == [(False, False)] * 3 and len(set(drawn)) == 1
    assert history.series("right") == ([3, 6, 7], [0.5] * 3)
    plain = Net()
    plain.dropout.p = 0.5
    fit(quick(steps=7), model=plain)
    assert same(model, plain)

    assert history.columns == ["step", "epoch", "seconds", "lr", "loss", "error", "twice", "gradient", "right", "share"]
    history.to_csv(tmp_path / "history.csv")
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == ",".join(history.columns) and len(lines) == 8
    assert "<td>7</td>" in history._repr_html_() and "<table>" in training.History()._repr_html_()
    assert [row["seconds"] for row in history.rows] == sorted(row["seconds"] for row in history.rows)

    _, sparse = fit(quick(steps=7, log_every=5, evaluate_every=2), evaluate=evaluate)
    assert sparse.series("step")[0] == [2, 4, 5, 6, 7]


def test_the_live_curve_is_redrawn_in_place(monkeypatch):
    shown = []

    class Handle:
        def update(self, image):
            shown.append(image)

    def display(image, display_id):
        shown.append(image)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    fit(live=True)
    assert 2 <= len(shown) <= 3 and shown[0].data.startswith(b"\x89PNG")


# Stopping and going on


def test_going_on_in_the_middle_of_an_epoch(tmp_path):
    def droppy():
        model = Net()
        model.dropout.p = 0.5
        return model

    settings = quick(steps=11, save_every=3, keep=(6,))
    whole, history = fit(settings, droppy(), folder=tmp_path / "whole")
    assert [path.name for path in training.saved(tmp_path / "whole")] == ["step-00000006", "step-00000011"]

    calls = []

    def failing(model, batch):
        calls.append(None)
        if len(calls) == 8:
            raise RuntimeError("as if killed")
        return step(model, batch)

    with pytest.raises(RuntimeError, match="as if killed"):
        fit(settings, droppy(), taken=failing, folder=tmp_path / "stopped")
    assert [path.name for path in training.saved(tmp_path / "stopped")] == ["step-00000006"]
    gone_on, later = fit(settings, droppy(), folder=tmp_path / "stopped")
    assert same(whole, gone_on)
    assert [{**row, "seconds": 0} for row in later.rows] == [{**row, "seconds": 0} for row in history.rows]

    again, finished = fit(settings, Net(), folder=tmp_path / "stopped")  # there is nothing left to do
    assert same(whole, again) and finished.rows == later.rows


def test_other_settings_are_another_run(tmp_path):
    fit(quick(schedule="constant"), folder=tmp_path)
    with pytest.raises(
        ParameterError, match=r"settings: learning_rate 0.1; expected learning_rate 0.05, as in .*step-"
    ):
        fit(quick(schedule="constant", learning_rate=0.1), folder=tmp_path)
    with pytest.raises(ParameterError, match=r"items 24; expected items 32"):
        fit(quick(schedule="constant"), dataset=Line(24), folder=tmp_path)
    _, longer = fit(quick(schedule="constant", steps=14, workers=1), folder=tmp_path)
    assert len(longer) == 14
    with pytest.raises(ParameterError, match="steps"):
        fit(quick(steps=12), folder=tmp_path)
    _, anew = fit(quick(steps=3), folder=tmp_path, resume=False)
    assert len(anew) == 3 and [path.name for path in training.saved(tmp_path)] == ["step-00000003"]


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    whole, _ = fit(quick(keep=(4, 8)), folder=tmp_path)
    newest = training.saved(tmp_path)[-1] / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-8])
    with pytest.warns(UserWarning, match=r"is damaged: .* from the checkpoint before it"):
        model, history = fit(quick(keep=(4, 8)), folder=tmp_path)
    assert same(whole, model) and len(history) == 10
    checkpoints.read(newest)  # written again


def test_a_checkpoint_of_another_model(tmp_path):
    fit(folder=tmp_path)
    other = Net()
    other.body = nn.Linear(1, 4, bias=False)
    other.more = nn.Parameter(torch.zeros(1))
    with pytest.raises(CheckpointError, match=r"1 missing \(more\); 1 unexpected \(body.bias\)"):
        fit(model=other, folder=tmp_path)


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path):
    fit(folder=tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    parts = ["SHA256SUMS", "config.json", "model.safetensors"]
    parts += [f"training/{part}" for part in parts]
    assert files == [f"step-00000010/{part}" for part in parts]
    read = checkpoints.read(tmp_path / "step-00000010")
    assert read.tensors.keys() == Net().state_dict().keys() and read.config == {"model": "Net"}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    class Growing(Net):
        def save(self, path):
            limit = (
                2**30 if not training.saved(tmp_path) else 600
            )  # bytes that a file may have: the second does not fit
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            checkpoints.save(path, self.state_dict(), {})

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(
            CacheError, match=r"step-00000006: File too large; .* last whole checkpoint is step-00000003"
        ):
            fit(quick(save_every=3), Growing(), folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    model, _ = fit(quick(save_every=3), folder=tmp_path)
    whole, _ = fit(quick(save_every=3))
    assert same(model, whole)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interruption_finishes_the_step_and_saves(tmp_path, number, raised):
    calls = []

    def interrupting(model, batch):
        calls.append(None)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return step(model, batch)

    def leave(*_):
        raise SystemExit

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(raised) as stopped:
            fit(taken=interrupting, folder=tmp_path)
        if raised is KeyboardInterrupt:  # all that a notebook shows
            assert stopped.value._render_traceback_() == ["Stopped at step 5 of 10, kept. Run it again to go on."]
        assert (
            signal.getsignal(signal.SIGTERM) is leave and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path.name for path in training.saved(tmp_path)] == ["step-00000005"]
    assert same(fit(folder=tmp_path)[0], fit()[0])


def test_a_second_interruption_is_at_once(tmp_path):
    calls = []

    def impatient(model, batch):
        calls.append(None)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return step(model, batch)

    with pytest.raises(KeyboardInterrupt):
        fit(taken=impatient, folder=tmp_path)
    assert len(calls) == 1 and not training.saved(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_it_does_harm(value, tmp_path):
    calls, before = [], {}

    def breaking(model, batch):
        calls.append(None)
        loss, _ = step(model, batch)
        if len(calls) == 4:
            before.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return loss * value, {"error": loss, "contrast": loss * value}
        return loss, {"error": loss, "contrast": loss}

    model = Net()
    with pytest.raises(TrainingError, match=rf"step 4: loss is {value}, contrast is {value}; expected finite"):
        fit(quick(save_every=3), model, taken=breaking, folder=tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [path.name for path in training.saved(tmp_path)] == ["step-00000003"]


def test_a_gradient_that_is_no_number_stops_too():
    def breaking(model, batch):
        return (model(batch.x) * 0).abs().sqrt().sum(), {}  # sqrt has no slope at 0

    with pytest.raises(TrainingError, match=r"step 1: the gradient's norm is nan, though the loss is 0"):
        fit(taken=breaking)


def test_average(tmp_path):
    fit(quick(keep=(4, 8)), folder=tmp_path)
    paths = training.saved(tmp_path)
    states = [checkpoints.read(path).tensors for path in paths]
    for name, mean in training.average(paths).items():
        assert torch.allclose(mean, sum(state[name] for state in states) / 3)
        assert mean.dtype == torch.float32
    assert torch.equal(training.average(paths[:1])["body.bias"], states[0]["body.bias"])
    checkpoints.save(tmp_path / "other", {"body.bias": torch.zeros(4)}, {})
    with pytest.raises(CheckpointError, match="missing"):
        training.average([*paths, tmp_path / "other"])
    with pytest.raises(ParameterError, match="paths"):
        training.average([])


# In processes of their own


def run(*command, **environment):
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*command],
        env={**os.environ, **quiet, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def trained(folder):
    path = training.saved(folder)[-1]
    return checkpoints.read(path).tensors, checkpoints.read(path / "training").config["rows"]


def test_killed_and_gone_on_is_as_if_never_killed(tmp_path):
    """The tiny CAV-MAE with masks from torch, rolls from Python, noise from NumPy; killed in its second epoch."""
    whole = run(sys.executable, RUNS, "killed", tmp_path / "whole", "never")
    killed = run(sys.executable, RUNS, "killed", tmp_path / "killed", "7")
    said, _ = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, said
    assert [path.name for path in training.saved(tmp_path / "killed")] == ["step-00000006"]
    (tmp_path / "killed" / ".unfinished-1-step-00000007").mkdir()  # as if it had been writing
    finish(run(sys.executable, RUNS, "killed", tmp_path / "killed", "never"))
    finish(whole)
    (expected, rows), (found, later) = trained(tmp_path / "whole"), trained(tmp_path / "killed")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [row["loss"] for row in later] == [row["loss"] for row in rows] and len(rows) == 12
    assert not list((tmp_path / "killed").glob(".unfinished*"))


def test_two_processes_give_what_one_does(tmp_path):
    """In float64, so that only mistakes are larger than rounding."""
    one, two = run(sys.executable, RUNS, "shared", tmp_path / "one"), run(*TORCHRUN, RUNS, "shared", tmp_path / "two")
    assert "1 process" in finish(one) and "2 processes" in finish(two)
    for how in ("whole", "parts", "uneven", "sharp"):
        (expected, rows), (found, shared) = trained(tmp_path / "one" / how), trained(tmp_path / "two" / how)
        assert max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items()) < 1e-9, how
        for name in ("loss", "mae_audio", "mae_image", "contrast", "gradient"):
            assert [row[name] for row in shared] == pytest.approx([row[name] for row in rows], rel=1e-6), (how, name)


def test_settings_are_plain_values():
    settings = Settings(milestones=range(3, 10, 2), keep=[1])
    assert settings.milestones == (3, 5, 7, 9) and settings.keep == (1,)
    assert Settings(**json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


# Stopping early, and the best weights

CURVE = [5.0, 3.0, 4.0, 2.0, 2.0 - 1e-9, 2.5, 2.2, 1.0]  # what evaluations say, one after each step


def on_a_curve(name="valid loss", sign=1, curve=CURVE):
    """An evaluation that says what the curve has, one after the other, and a list of what it said."""
    said = []

    def evaluate(model):
        said.append(sign * curve[model.evaluations])
        model.evaluations += 1
        return {name: said[-1]}

    return evaluate, said


class Counting(Net):
    """Knows how often it was evaluated."""

    def __init__(self, evaluations=0):
        super().__init__()
        self.evaluations = evaluations


def watched(**changed):
    return quick(**{"steps": 8, "evaluate_every": 1, "monitor": "valid loss", "min_delta": 1e-6, **changed})


def weights_after(steps):
    """Those that a run of eight steps has after fewer."""
    seen, model = {}, Net()

    def noting(model, batch):
        seen[len(seen)] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return step(model, batch)

    fit(quick(steps=8), model, taken=noting)
    return seen[steps]


@pytest.mark.parametrize(("patience", "steps"), [(0, 8), (2, 6), (1, 3), (4, 8)])
def test_patience_counts_evaluations_that_are_not_better_by_min_delta(patience, steps):
    evaluate, said = on_a_curve()
    _, history = fit(watched(patience=patience), Counting(), evaluate=evaluate)
    assert len(history) == steps == len(said), "the fifth is lower by less than min_delta, and counts as not better"


@pytest.mark.parametrize(("name", "sign"), [("valid loss", 1), ("valid MAE", 1), ("valid UAR", -1)])
@pytest.mark.parametrize("kept_in", ["memory", "folder"])
def test_the_best_weights_are_kept(tmp_path, kept_in, name, sign):
    evaluate, _ = on_a_curve(name, sign, [5, 3, 4, 2, 6, 7, 8, 9])
    folder = tmp_path if kept_in == "folder" else None
    settings = watched(monitor=name, best=True)
    model, _ = fit(settings, Counting(), evaluate=evaluate, folder=folder)
    expected = weights_after(4)
    assert all(torch.equal(tensor, expected[n]) for n, tensor in model.state_dict().items())
    if folder:
        assert [path.name for path in training.saved(folder)] == ["step-00000004", "step-00000008"]
        again, history = fit(settings, Counting(), evaluate=evaluate, folder=folder)
        assert same(again, model) and len(history) == 8, "a run that is over gives its best weights again"


def test_a_run_that_went_on_stops_and_chooses_as_if_it_had_not_been_stopped(tmp_path):
    curve, settings = [5, 2, 3, 1, 4, 4, 4, 0], watched(patience=3, best=True)
    straight, history = fit(settings, Counting(), evaluate=on_a_curve(curve=curve)[0])
    for stopped_in in (2, 5):
        folder, calls = tmp_path / str(stopped_in), []

        def failing(model, batch, stopped_in=stopped_in, calls=calls):
            calls.append(1)
            if len(calls) == stopped_in:
                raise KeyboardInterrupt
            return step(model, batch)

        with pytest.raises(KeyboardInterrupt):
            how = dataclasses.replace(settings, save_every=1)
            fit(how, Counting(), taken=failing, evaluate=on_a_curve(curve=curve)[0], folder=folder)
        done = int(training.saved(folder)[-1].name[-2:])
        model, later = fit(settings, Counting(done), evaluate=on_a_curve(curve=curve)[0], folder=folder)
        assert same(model, straight) and [row["step"] for row in later.rows] == [1, 2, 3, 4, 5, 6, 7]
        assert later.series("valid loss") == history.series("valid loss")


def test_what_is_monitored_has_to_be_there():
    with pytest.raises(ParameterError, match="monitor"):
        Settings(patience=2)
    with pytest.raises(ParameterError, match="evaluation"):
        fit(watched(best=True))
    model = Counting()
    with pytest.raises(ParameterError, match=r"'valid los'; expected one of 'valid loss'.*Did you mean 'valid loss'"):
        fit(watched(best=True, monitor="valid los"), model, evaluate=on_a_curve()[0])
    assert same(model, Net()), "refused before training"


# Several networks, each with an optimiser


class Pair(nn.Module):
    """A generator and its critic."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.generator, self.critic = Net(), nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))


def critic_step(pair, batch):
    with torch.no_grad():
        fake = pair.generator(batch.x + training.normal(len(batch.x), 1))
    real_loss, fake_loss = (pair.critic(batch.y) - 1).square().mean(), pair.critic(fake).square().mean()
    return real_loss + fake_loss, {"critic on fakes": fake_loss}


def generator_step(pair, batch):
    fake = pair.generator(batch.x + training.normal(len(batch.x), 1))
    adversarial = (pair.critic(fake) - 1).square().mean()
    return adversarial + (fake - batch.y).abs().mean(), {"adversarial": adversarial}


GAN = {"critic": critic_step, "generator": generator_step}


def test_two_networks_learn_as_in_the_loop_that_one_would_write():
    noise = []

    def noting(pair, batch):
        noise.append(training.normal(len(batch.x), 1))
        return critic_step_with(pair, batch, noise[-1])

    def critic_step_with(pair, batch, drawn):
        with torch.no_grad():
            fake = pair.generator(batch.x + drawn)
        return (pair.critic(batch.y) - 1).square().mean() + pair.critic(fake).square().mean(), {}

    settings = quick(clip=0.5, steps=6, group_rates={"critic": 0.5})
    model, history = fit(settings, Pair(), taken={"critic": noting, "generator": generator_step})
    pair, data = Pair(), Line()
    optimizers = {name: torch.optim.AdamW(getattr(pair, name).parameters(), betas=(0.9, 0.95), weight_decay=0.0)
                  for name in GAN}  # fmt: skip
    losses = {name: [] for name in GAN}
    for number in range(6):
        epoch, place = divmod(number, 4)
        order = np.random.default_rng([0, epoch]).permutation(32)[8 * place : 8 * place + 8]
        batch = data.collate([data[i] for i in order])
        for name, optimizer in optimizers.items():
            rate = 0.05 * settings.rate(number) * (0.5 if name == "critic" else 1)
            optimizer.param_groups[0]["lr"] = rate
            if name == "critic":
                loss, _ = critic_step_with(pair, batch, noise[number])
            else:  # the same noise in both steps
                fake = pair.generator(batch.x + noise[number])
                loss = (pair.critic(fake) - 1).square().mean() + (fake - batch.y).abs().mean()
            pair.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(getattr(pair, name).parameters(), 0.5)
            optimizer.step()
            losses[name].append(loss.item())
    assert same(model, pair)
    assert {name: history.series(f"{name} loss")[1] for name in GAN} == losses
    assert "critic gradient" in history.columns and all(each.requires_grad for each in model.parameters())


def test_two_networks_and_their_average_go_on_from_a_checkpoint(tmp_path):
    settings = quick(ema=0.9, save_every=3)
    straight, history = fit(settings, Pair(), taken=GAN)
    calls = []

    def failing(pair, batch):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return generator_step(pair, batch)

    with pytest.raises(KeyboardInterrupt):
        fit(settings, Pair(), taken={"critic": critic_step, "generator": failing}, folder=tmp_path)
    assert [path.name for path in training.saved(tmp_path)] == ["step-00000006"]
    for _ in range(2):  # the second time it is over already
        again, later = fit(settings, Pair(), taken=GAN, folder=tmp_path)
        assert same(again, straight) and later.series("generator loss") == history.series("generator loss")


def test_parts_of_a_batch_share_the_noise_of_two_networks():
    _, whole = fit(quick(), Pair(), taken=GAN)
    _, parts = fit(quick(accumulate=4), Pair(), taken=GAN)
    for name in GAN:
        assert parts.series(f"{name} loss")[1] == pytest.approx(whole.series(f"{name} loss")[1], rel=1e-4)


def test_a_step_of_a_network_that_is_not_there():
    with pytest.raises(ParameterError, match="step: 'judge'; expected names of networks in the model: generator, cri"):
        fit(quick(), Pair(), taken={"judge": critic_step})


# A moving average of the weights


def test_the_model_ends_with_the_average_of_its_weights_and_is_evaluated_with_it():
    seen, evaluated = [], []

    def noting(model, batch):
        seen.append([each.detach().clone() for each in model.parameters()])
        return step(model, batch)

    def evaluate(model):
        evaluated.append([each.detach().clone() for each in model.parameters()])
        return {"valid loss": 0.0}

    plain, _ = fit(quick(steps=5))
    model, _ = fit(quick(steps=5, ema=0.8, evaluate_every=5), taken=noting, evaluate=evaluate)
    weights = [*seen[1:], list(plain.parameters())]  # after each step
    average = [each.clone() for each in weights[0]]
    for number, now in enumerate(weights):
        decay = min(0.8, (1 + number) / (10 + number)) if number else 0.0
        average = [decay * old + (1 - decay) * new for old, new in zip(average, now, strict=True)]
    for got, at_evaluation, expected in zip(model.parameters(), evaluated[0], average, strict=True):
        assert torch.allclose(got, expected, atol=1e-6) and torch.equal(got, at_evaluation)


@pytest.mark.parametrize("kept_in", ["memory", "folder"])
def test_the_best_average_is_kept(tmp_path, kept_in):
    evaluated = []

    def evaluate(model):
        evaluated.append([each.detach().clone() for each in model.parameters()])
        return {"valid loss": [5, 3, 4, 2, 6, 7, 8, 9][len(evaluated) - 1]}

    model, _ = fit(watched(best=True, ema=0.9), evaluate=evaluate, folder=tmp_path if kept_in == "folder" else None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), evaluated[3], strict=True))
