"""Activations that are replaced while a model is traced."""

import pytest
import torch
from torch import nn

from avlib import shapes
from avlib.errors import ParameterError


class Net(nn.Module):
    """Two layers that add 1 and double."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=True), nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.first.weight)
        nn.init.ones_(self.first.bias)
        nn.init.eye_(self.second.weight)
        with torch.no_grad():
            self.second.weight *= 2

    def forward(self, x):
        return self.second(self.first(x))


def mean_of(trace, path):
    return trace[path].outputs[0].statistics.mean


def test_what_follows_from_a_replaced_activation():
    net, x = Net(), torch.full((2, 3), 4.0)
    before = shapes.trace(net, x, stats=True)
    after = shapes.trace(net, x, stats=True, replace={"first": lambda y: y - 3})
    assert (mean_of(before, "first"), mean_of(before, "second")) == (5, 10)
    assert (mean_of(after, "first"), mean_of(after, "second")) == (2, 4)
    assert torch.equal(net(x), torch.full((2, 3), 10.0)), "the model is as it was"


def test_a_replaced_size_has_its_formula():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.keep = nn.Identity()

        def forward(self, x):
            return self.keep(x).cumsum(0)

    found = shapes.trace(Pooled(), torch.zeros(10, 3), dims={0: "T 3"}, replace={"keep": lambda y: y[::2]})
    assert found.output.formulas[0] == shapes.Formula("(T + 1)//2")


def test_hooks_are_gone_after_an_error():
    net = Net()
    with pytest.raises(RuntimeError):
        shapes.trace(net, torch.zeros(1, 3), replace={"first": lambda y: y[:, :2]})
    assert not net.first._forward_hooks and net(torch.zeros(1, 3)).shape == (1, 3)


@pytest.mark.parametrize(("fn", "expected"), [(Net(), "first"), (torch.relu, "a module with submodules")])
def test_an_unknown_name_is_refused(fn, expected):
    with pytest.raises(ParameterError, match=f"no submodule 'frist'.*{expected}"):
        shapes.trace(fn, torch.zeros(1, 3), replace={"frist": torch.zeros_like})
