"""SGD and sharpness-aware minimisation, schedules and groups, against loops that one would write."""

import json
import math

import numpy as np
import pytest
import torch
from test_training import Line, Net, fit, quick, rates, same, step
from torch import nn
from transformers import get_cosine_with_hard_restarts_schedule_with_warmup as restarts
from transformers import get_linear_schedule_with_warmup as linearly

from avlib import training
from avlib.errors import ParameterError, TrainingError
from avlib.training import Settings


class Bumpy(Net):
    """With dropout, which draws, and BatchNorm, which remembers."""

    def __init__(self):
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.mlp_head(self.dropout(self.norm(self.body(x).tanh())))


class Exact(Line):
    """In float64: AdamW makes much of a small gradient, and so of its rounding."""

    def __init__(self):
        super().__init__()
        self.x = self.x.double()


def by_hand(model, optimizer, settings, rho, adaptive=False, clip=0.0):
    """Two passes for each step, of whole batches, with the same dropout and one look at the statistics."""
    torch.manual_seed(settings.seed)
    data, losses = Exact(), []
    for number in range(settings.steps):
        epoch, place = divmod(number, 4)
        batch = data.collate(
            [data[i] for i in np.random.default_rng([0, epoch]).permutation(32)[8 * place : 8 * place + 8]]
        )
        optimizer.param_groups[0]["lr"] = settings.learning_rate * settings.rate(number)
        optimizer.zero_grad()
        drawn = torch.get_rng_state()
        loss, _ = step(model, batch)
        loss.backward()
        losses.append(loss.item())
        weights = [p for p in model.parameters() if p.grad is not None]
        before = [p.detach().clone() for p in weights]
        scale = [w.abs() if adaptive else torch.ones_like(w) for w in before]
        length = math.sqrt(sum(float((s * p.grad).square().sum()) for s, p in zip(scale, weights, strict=True)))
        with torch.no_grad():
            for p, s in zip(weights, scale, strict=True):
                p += rho * s * s * p.grad / (length + 1e-12)
        statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
        optimizer.zero_grad()
        torch.set_rng_state(drawn)
        step(model, batch)[0].backward()
        with torch.no_grad():
            for p, w in zip(weights, before, strict=True):
                p.copy_(w)
            for name, buffer in model.named_buffers():
                buffer.copy_(statistics[name])
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return losses


def close(a, b, atol=1e-6):
    return all(
        torch.allclose(x.double(), y.double(), atol=atol)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_sgd_has_momentum():
    model, _ = fit(quick(optimizer="sgd", momentum=0.8, weight_decay=0.1, schedule="constant", warmup=0, clip=0))
    expected, data, speed = Net(), Line(), {}
    for number in range(10):
        order = np.random.default_rng([0, number // 4]).permutation(32)[number % 4 * 8 :][:8]
        expected.zero_grad()
        step(expected, data.collate([data[i] for i in order]))[0].backward()
        with torch.no_grad():
            for name, p in expected.named_parameters():
                if p.grad is not None:
                    speed[name] = 0.8 * speed.get(name, 0) + p.grad + 0.1 * p
                    p -= 0.05 * speed[name]
    assert close(model, expected)


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize(("optimizer", "rho"), [("sam", 0.05), ("asam", 0.5)])
def test_sharpness_by_hand(optimizer, rho, base):
    settings = quick(optimizer=optimizer, rho=rho, sharp_base=base, clip=0.5, steps=9, weight_decay=0.01)
    model, history = fit(settings, Bumpy().double(), Exact())
    expected = Bumpy().double()
    plain = {
        "sgd": lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.01),
        "adamw": lambda p: torch.optim.AdamW(p, betas=(0.9, 0.95), weight_decay=0.01),
    }[base](expected.parameters())
    losses = by_hand(expected, plain, settings, rho, optimizer == "asam", clip=0.5)
    assert close(model, expected, atol=1e-9)
    assert model.norm.num_batches_tracked == 9
    assert history.series("loss")[1] == pytest.approx(losses, rel=1e-5)
    without, _ = fit(quick(optimizer=base, clip=0.5, steps=9, weight_decay=0.01), Bumpy().double(), Exact())
    assert not close(without, expected, atol=1e-3)


def test_one_step_of_sharpness_on_a_parabola():
    """f = w^2 a / 2 has its gradient at w + rho: a (w + rho)."""

    class Weight(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([2.0]))

    def parabola(model, batch):
        return (1.5 * model.w**2).mean(), {}

    how = {"steps": 1, "warmup": 0, "momentum": 0.0, "learning_rate": 0.1, "schedule": "constant", "clip": 0}
    for optimizer, moved in (("sgd", 0.0), ("sam", 0.25), ("asam", 0.25 * 2)):  # e = rho w^2 g / |w g| = rho |w|
        model, history = fit(quick(optimizer=optimizer, rho=0.25, **how), Weight(), taken=parabola)
        assert model.w.item() == pytest.approx(2 - 0.1 * 3 * (2 + moved), rel=1e-6)
        assert history.rows[0]["gradient"] == pytest.approx(3 * (2 + moved), rel=1e-6)
        assert history.rows[0]["loss"] == pytest.approx(6)


@pytest.mark.parametrize("parts", [2, 3])
def test_sharpness_is_of_the_whole_batch(parts):
    whole, _ = fit(quick(optimizer="sam", rho=0.3))
    in_parts, _ = fit(quick(optimizer="sam", rho=0.3, accumulate=parts))
    assert close(whole, in_parts, atol=1e-5)


def test_sharpness_goes_on_from_a_checkpoint(tmp_path):
    settings = quick(optimizer="sam", save_every=4)
    whole, _ = fit(settings, Bumpy())
    calls = []

    def failing(model, batch):
        calls.append(None)
        if len(calls) == 12:  # the second pass of the sixth step
            raise RuntimeError("as if killed")
        return step(model, batch)

    model = Bumpy()
    with pytest.raises(RuntimeError, match="as if killed"):
        fit(settings, model, taken=failing, folder=tmp_path)
    assert all(module.track_running_stats for module in [model.norm])
    again, _ = fit(settings, Bumpy(), folder=tmp_path)
    assert same(whole, again)


def test_a_first_gradient_that_is_no_number_does_no_harm():
    model, calls = Net(), []

    def breaking(model, batch):
        calls.append(None)
        return ((model(batch.x) * 0).abs().sqrt().sum() if len(calls) == 1 else step(model, batch)[0]), {}

    with pytest.raises(TrainingError, match="step 1: the gradient's norm is nan"):
        fit(quick(optimizer="sam"), model, taken=breaking)
    assert same(model, Net())


def test_a_floor_and_cycles():
    how = {"learning_rate": 0.5, "min_learning_rate": 0.05}
    linear, cosine = rates(schedule="linear", **how), rates(warmup=20, **how)
    assert linear == pytest.approx([0.1 + 0.9 * (1 - i / 100) for i in range(100)])
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * (i - 20) / 80)) / 2 for i in range(20, 100)]
    assert cosine[20:] == pytest.approx(expected) and cosine[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    cycles = rates(warmup=10, cycles=3, gamma=0.6, **how)
    for number, cycle in enumerate((cycles[10:40], cycles[40:70], cycles[70:])):
        top = 0.6**number
        assert cycle == pytest.approx([0.1 + (top - 0.1) * (1 + math.cos(math.pi * i / 30)) / 2 for i in range(30)])
    assert min(rates(cycles=20, gamma=0.1, **how)) == pytest.approx(0.1)  # tops below the floor stay on it
    assert Settings(steps=100, warmup=0, cycles=4, **how).rate(100) == pytest.approx(0.1)


def test_schedules_are_those_of_transformers():
    """One step later: theirs begins with a rate of 0, which changes nothing."""
    for theirs, ours in (
        (lambda o: restarts(o, 20, 100, 4), rates(warmup=20, cycles=4, gamma=1.0)),
        (lambda o: linearly(o, 20, 100), rates(warmup=20, schedule="linear")),
    ):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule, found = theirs(optimizer), []
        for _ in range(100):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert ours[20:] == pytest.approx(found[20:]) and ours[:19] == pytest.approx(found[1:20])


def test_vectors_are_spared():
    model = Net()
    groups = training.parameter_groups(model, quick(group_rates={"mlp_head": 10.0}, decay_vectors=False))
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {group["name"]: ([named[id(p)] for p in group["params"]], group.get("weight_decay")) for group in groups}
    assert found == {
        "all others": (["body.weight", "dead.weight"], None),
        "all others, no decay": (["body.bias", "dead.bias"], 0.0),
        "mlp_head": (["mlp_head.weight"], None),
        "mlp_head, no decay": (["mlp_head.bias"], 0.0),
    }
    assert [group["lr"] for group in groups] == pytest.approx([0.05, 0.05, 0.5, 0.5])

    def nothing(model, batch):
        return 0 * sum(parameter.sum() for parameter in model.parameters()), {}

    for optimizer in ("adamw", "sgd"):
        begun, model = Net(), Net()
        fit(quick(optimizer=optimizer, weight_decay=0.5, decay_vectors=False, steps=1), model, taken=nothing)
        assert torch.equal(model.body.bias, begun.body.bias)
        assert (model.body.weight.abs() < begun.body.weight.abs()).all()


def test_a_checkpoint_from_before_these_settings(tmp_path):
    fit(quick(save_every=5, steps=5, schedule="constant"), folder=tmp_path)
    path = training.saved(tmp_path)[0] / "training" / "config.json"
    config = json.loads(path.read_text())
    for name in ("momentum", "sharp_base", "rho", "cycles", "min_learning_rate", "decay_vectors"):
        del config["same"][name]
    path.write_text(json.dumps(config))
    again, _ = fit(quick(save_every=5, schedule="constant"), folder=tmp_path)
    assert same(again, fit(quick(schedule="constant"))[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "lion"}, "optimizer: 'lion'; expected one of 'adamw', 'adam', 'sgd', 'sam', 'asam'"),
        ({"sharp_base": "sam"}, "sharp_base: 'sam'; expected one of 'adamw', 'adam', 'sgd'"),
        ({"rho": 0}, "rho: 0"),
        ({"momentum": 1}, "momentum: 1"),
        ({"cycles": 0}, "cycles: 0"),
        ({"min_learning_rate": 1.0}, "min_learning_rate: 1.0; expected 0 to the learning_rate"),
        ({"optimizer": "asam", "precision": "fp16"}, "precision: fp16 with asam"),
    ],
)
def test_settings_that_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        Settings(**wrong)
