"""Precision "auto" is chosen by a measured product, and what is slow is said."""

import pytest
import torch
from torch import nn

from avlib import training
from avlib.training import loop


@pytest.mark.parametrize(
    ("wanted", "cost", "dtype", "said"),
    [
        ("auto", 12.0, torch.float32, "Training in float32: a matrix product in bfloat16 takes 12 times as long"),
        ("auto", 0.5, torch.bfloat16, "Training in bfloat16: a matrix product in bfloat16 takes 0.5 times as long"),
        ("bf16", 12.0, torch.bfloat16, 'measured. precision="no" is faster here.'),
        ("bf16", 0.5, torch.bfloat16, ""),
        ("no", 12.0, torch.float32, ""),
    ],
)
def test_choice(wanted, cost, dtype, said, monkeypatch, capsys):
    seen, model = set(), nn.Linear(2, 2)
    monkeypatch.setattr(loop, "bf16_cost", lambda device: cost)

    def step(model, batch):
        out = model(batch[0])
        seen.add(out.dtype)
        return out.float().square().mean(), {}

    data = torch.utils.data.TensorDataset(torch.ones(8, 2))
    training.fit(model, step, data, training.Settings(steps=1, batch_size=4, precision=wanted), device="cpu")
    printed = capsys.readouterr().err
    assert seen == {dtype} and said in printed
    assert ("Training in" in printed) == bool(said)


def test_the_cost_is_measured_once():
    training.bf16_cost.cache_clear()
    cost = training.bf16_cost("cpu")
    assert 0.01 < cost < 1000 and training.bf16_cost("cpu") == cost
    assert training.bf16_cost.cache_info().misses == 1
