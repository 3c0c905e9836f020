"""Lengths that are computed in floating point: right for short inputs, rounded for long ones."""

import torch
from torch import nn
from torchaudio.functional import resample

from avlib import shapes


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
