"""What an error says when a model is traced or explained."""

import pytest
import torch
from torch import nn

from avlib import shapes
from avlib.errors import ParameterError
from avlib.shapes import fake


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 24)
        self.b = nn.Sequential(nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x):
        y = self.a(x)
        return self.b(y)  # does not fit


def hooks_of(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_a_mismatch_is_told_with_operands_line_and_rows():
    model, x = Net(), torch.randn(2, 5, 12)
    with pytest.raises(RuntimeError, match="cannot be multiplied") as caught, shapes.explain(model) as trace:
        model(x)
    (note,) = caught.value.__notes__
    assert "linear failed with (2, 5, 24) float32, (4, 12) float32, (4,) float32" in note
    assert "in module b.1" in note and f"{__file__}:" in note and "return self.b(y)  # does not fit" in note
    assert "a: (2, 5, 12) -> (2, 5, 24)" in note and "b.1: (2, 5, 24) -> not finished" in note
    assert caught.value.trace is trace and trace.error.startswith("RuntimeError")
    assert [row.label for row in trace if row.open] == ["Net", "b", "b.1", "linear"]
    assert trace["b.0"].outputs[0].shape == (2, 5, 24) and trace[-1].outputs == ()
    assert hooks_of(model) == 0


def test_the_class_of_an_error_stays_what_it_was():
    class Refuses(nn.Module):
        def forward(self, x):
            raise KeyError("colour")

    with pytest.raises(KeyError) as caught:
        shapes.trace(Refuses(), torch.randn(2))
    assert "Refuses failed with x (2,) float32" in caught.value.__notes__[0] and len(caught.value.trace) == 1
    with pytest.raises(KeyboardInterrupt), shapes.explain() as trace:
        torch.ones(3).add(1)
        raise KeyboardInterrupt
    assert [row.name for row in trace] == ["ones", "add"] and trace.error == "KeyboardInterrupt: "


def test_an_error_that_the_model_handles_is_no_failure():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad, self.good = nn.Linear(3, 3), nn.Linear(4, 2)

        def forward(self, x):
            try:
                return self.bad(x)
            except RuntimeError:
                return self.good(x)

    trace = shapes.trace(Tries(), torch.randn(2, 4))
    assert trace["bad"].open and not trace["good"].open and not trace[0].open and trace.output_shape == (2, 2)
    assert trace.error is None


def test_inside_a_handler_nothing_counts_as_an_error():
    try:
        raise ValueError
    except ValueError:
        trace = shapes.trace(nn.Sequential(nn.Linear(3, 2)), torch.randn(2, 3))
    assert not any(row.open for row in trace) and trace.output_shape == (2, 2)


def test_many_rows_are_cut():
    def forward(x):
        for _ in range(50):
            x = x + 1
        return x @ x

    with pytest.raises(RuntimeError) as caught:
        shapes.trace(forward, torch.randn(2, 3))
    assert "... 40 rows before" in caught.value.__notes__[0] and caught.value.__notes__[0].count("\n") < 20


def test_traces_in_each_other_tell_once():
    model = Net()
    with pytest.raises(RuntimeError) as caught, shapes.explain(model):
        shapes.trace(model, torch.randn(2, 5, 12))
    assert len(caught.value.__notes__) == 1


def test_a_model_that_raises_only_at_other_sizes():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.positions = nn.Conv1d(1, 4, 16, 16), nn.Parameter(torch.zeros(1, 4, 64))

        def forward(self, x):
            return self.conv(x) + self.positions

    trace = shapes.trace(Fixed(), torch.randn(2, 1, 1024), dims={0: "B 1 T"})
    assert trace["conv"].outputs[0].formula == "(B, 4, T//16)" and trace[0].outputs[0].formula == "(B, 4, 64)"
    (need,) = trace.requires
    assert need.formula == "T//16 == 64" and need.file == __file__ and "RuntimeError" in need.reason
    with pytest.raises(ParameterError, match="T//16 == 64"):
        trace.at(T=2048)


def test_the_largest_size_that_a_model_takes_is_no_fixed_size():
    class Limited(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions, self.conv = nn.Parameter(torch.zeros(1, 64, 8)), nn.Conv1d(8, 8, 3, 2)

        def forward(self, x):
            return self.conv((x + self.positions[:, : x.shape[1]]).transpose(1, 2))

    trace = shapes.trace(Limited(), torch.randn(2, 64, 8), dims={0: "B T 8"})
    assert trace[0].outputs[0].formula == "(B, 8, (T - 3)//2 + 1)"
    assert [need.formula for need in trace.requires] == ["T >= 3", "T <= 64"]


def test_without_torchs_private_parts_models_are_run_at_other_sizes(monkeypatch):
    monkeypatch.setattr(fake, "AVAILABLE", False)
    model = nn.Sequential(nn.Conv1d(1, 4, 10, 5), nn.ReLU(), nn.Conv1d(4, 8, 3, 2))
    trace = shapes.trace(model, torch.randn(2, 1, 400), dims={0: "B 1 T"})
    assert trace[0].outputs[0].formula == "(B, 8, (T - 20)//10 + 1)"
    with pytest.raises(ParameterError, match="not possible"):
        shapes.trace(model, torch.randn(2, 1, 400), fake=True)
