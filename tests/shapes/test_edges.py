"""Lengths that are computed in floating point: right for short inputs, rounded for long ones."""

import pytest
import torch
from torch import nn
from torchaudio.functional import resample

from avlib import shapes
from avlib.errors import ParameterError


def found(samples: int) -> shapes.Trace:
    return shapes.trace(lambda wav: resample(wav, 44100, 16000), torch.zeros(samples), dims="N")


def test_a_length_that_is_rounded_in_float32_has_a_formula_that_rounds():
    assert len(resample(torch.zeros(20_060), 44100, 16000)) == 7279 == -(-20_060 * 160 // 441)
    trace = found(441_000)  # torchaudio rounds here: (160*N - 4)//441 + 1 fits all around, and gives 7278 at 20,060
    assert trace.output.formula == "(ceil(float32((160*N)/441)),)" and trace.output_shape == (160_000,)
    assert trace.at(N=20_060).output_shape == (7279,) and trace.at(N=180_697).output_shape == (65_559,)
    assert len(resample(torch.zeros(180_697), 44100, 16000)) == 65_559 == -(-180_697 * 160 // 441) - 1


def test_a_hook_of_the_user_before_the_model_is_not_taken_for_it():
    model = nn.Linear(4, 3)
    with model.register_forward_pre_hook(lambda _, args: (args[0] * 2,)):
        found = shapes.trace(model, torch.zeros(2, 4))
    assert found.output.shape == (2, 3) and found.inputs[0].shape == (2, 4) and found.flops == 2 * 2 * 3 * 4


class Positions(nn.Module):
    """Adds the rows of a table: one per position, or one per distance of two."""

    def __init__(self, rows: int, relative: bool):
        super().__init__()
        self.table, self.relative = nn.Embedding(rows, 8), relative

    def forward(self, x):
        places = torch.arange(x.shape[1])
        if self.relative:
            return x + self.table.weight[places[:, None] - places + x.shape[1] - 1].mean(0)
        return x + self.table(places)


@pytest.mark.parametrize(("rows", "relative", "most"), [(128, False, 128), (255, True, 128), (100, False, 100)])
def test_a_table_that_is_too_short_limits_a_length(rows, relative, most):
    trace = shapes.trace(Positions(rows, relative), torch.zeros(2, 100, 8), dims="B T 8")
    assert [need.formula for need in trace.requires] == [f"T <= {most}"]
    assert "out of" in trace.requires[0].reason
    with pytest.raises(ParameterError, match=f"T <= {most}"):
        trace.at(T=most + 1)
    assert trace.at(T=most).output_shape == (2, most, 8)


def test_runs_with_values_show_what_others_do_not():
    """Strides of a batch of one, and the number of draws, matter to values alone."""
    trace = shapes.trace(lambda x: x.transpose(0, 1).view(-1), torch.zeros(1, 20), dims="B T")
    assert trace.output.formula == "(B*T,)" and [need.formula for need in trace.requires] == ["B <= 1"]
    trace = shapes.trace(lambda x: torch.multinomial(x, 5), torch.ones(2, 20), dims="B T")
    assert trace.output.formula == "(B, 5)" and [need.formula for need in trace.requires] == ["T >= 5"]
