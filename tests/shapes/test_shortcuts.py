"""Shapes that are found without torch, against those that torch gives."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avlib.shapes.fake import Fake
from avlib.shapes.recorder import own_frame
from avlib.shapes.shortcuts import shortcut

X = torch.randn(2, 6, 8)
PICTURE = torch.randn(2, 6, 9, 10)
MASK = torch.zeros(6, 8).bool()
CASES = [
    (torch.Tensor.view, (X, 2, -1, 4), {}),
    (torch.Tensor.view, (X, (12, 8)), {}),
    (torch.Tensor.reshape, (X, -1), {}),
    (torch.flatten, (PICTURE, 1), {}),
    (torch.flatten, (PICTURE,), {"start_dim": 2, "end_dim": -1}),
    (torch.Tensor.permute, (PICTURE, 0, 2, -1, 1), {}),
    (torch.transpose, (X, -1, 1), {}),
    (torch.unsqueeze, (X, -1), {}),
    (torch.unbind, (X, 1), {}),
    (torch.chunk, (X, 2), {"dim": -1}),
    (torch.Tensor.__getitem__, (X, (..., None, 2)), {}),
    (torch.Tensor.__getitem__, (X, (slice(None), -1)), {}),
    (torch.Tensor.__getitem__, (X, (slice(1), slice(-20, -1, 2), slice(5, 3))), {}),
    (torch.Tensor.reshape_as, (X, torch.zeros(4, 24)), {}),
    (torch.split, (X, [1, 3, 2]), {"dim": 1}),
    (torch.Tensor.add_, (X.clone(), torch.randn(8)), {"alpha": 2}),
    (torch.pow, (X, 2), {}),
    (torch.clamp, (X,), {"min": 0.0}),
    (F.hardtanh, (X, 0.0, 6.0), {}),
    (F.max_pool2d, (PICTURE, 3, 2), {"padding": 1}),
    (F.interpolate, (PICTURE, (4, 7)), {"mode": "bilinear", "align_corners": False}),
    (F.interpolate, (X,), {"scale_factor": 2.0}),
    (torch.einsum, ("bij, bjk -> kbi", X, torch.randn(2, 8, 3)), {}),
    (torch.Tensor.__getitem__, (X, torch.zeros(3, 4).long()), {}),
    (torch.cat, ([X, X[:, :2]],), {"dim": 1}),
    (torch.cat, ((X, X, X), -1), {}),
    (torch.mean, (PICTURE,), {"dim": (2, 3), "keepdim": True}),
    (torch.sum, (X, -1), {}),
    (F.pad, (X, (1, 2, 3, 0)), {}),
    (torch.roll, (PICTURE, (1, 2), (2, 3)), {}),
    (torch.add, (X, torch.randn(6, 1)), {}),
    (torch.Tensor.__mul__, (X, 2.5), {}),
    (torch.matmul, (torch.randn(3, 1, 5, 6), torch.randn(4, 6, 7)), {}),
    (F.linear, (X, torch.randn(3, 8), torch.randn(3)), {}),
    (F.layer_norm, (X, (6, 8)), {}),
    (F.group_norm, (PICTURE, 3), {"weight": torch.ones(6)}),
    (F.conv2d, (PICTURE, torch.randn(4, 3, 3, 2)), {"stride": (2, 1), "padding": 1, "dilation": 2, "groups": 2}),
    (F.conv1d, (X, torch.randn(5, 6, 3), None, 2), {}),
    (F.embedding, (torch.zeros(2, 5).long(), torch.randn(7, 4)), {}),
    (torch.cdist, (X, torch.randn(1, 5, 8)), {}),
    (F.elu, (X,), {"alpha": 0.5}),
    (F.softmax, (X,), {"dim": -1}),
    (F.dropout, (X, 0.5, False), {}),
    (torch.Tensor.masked_fill, (X, MASK, 0.0), {}),
    (F.scaled_dot_product_attention, (X[:, None], X[:, None, :3], torch.randn(2, 1, 3, 5)), {}),
]


def shapes_of(output):
    return [(tuple(t.shape), t.dtype) for t in (output if isinstance(output, tuple | list) else [output])]


def found(function, args, kwargs):
    """The output of a shortcut for tensors without values; None if there is none."""
    world = Fake(own_frame)

    def without_values(value):
        if isinstance(value, tuple | list):
            return type(value)(map(without_values, value))
        return world.like(value, {}) if isinstance(value, Tensor) else value

    args, kwargs = without_values(args), {key: without_values(value) for key, value in kwargs.items()}
    with torch.no_grad():
        do = shortcut(world, function.__name__, args, kwargs)
        return None if do is None else do(*args, **kwargs)


@pytest.mark.parametrize(("function", "args", "kwargs"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_a_shortcut_has_the_shape_and_dtype_of_torch(function, args, kwargs):
    assert shapes_of(found(function, args, kwargs)) == shapes_of(function(*args, **kwargs))


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (torch.add, (X, torch.randn(5, 8)), {}),  # sizes that do not fit: torch says so
        (F.linear, (X, torch.randn(3, 7)), {}),
        (torch.Tensor.view, (X, 5, -1), {}),
        (torch.Tensor.view, (X.transpose(1, 2), 2, 48), {}),
        (torch.cat, ([X, X[:, :, :2]],), {"dim": 1}),
        (torch.Tensor.__getitem__, (X, MASK), {}),  # depends on values
        (torch.Tensor.__getitem__, (X, (slice(None), 6)), {}),
        (torch.add, (X, torch.ones(8).int()), {}),  # a dtype of both
        (F.pad, (X, (1, 1)), {"mode": "reflect"}),
        (F.dropout, (X, 0.5, True), {}),
        (torch.unbind, (X, 3), {}),
        (torch.split, (X, [1, 3]), {"dim": 1}),
        (torch.Tensor.add_, (X[:, :1], X), {}),
        (F.max_pool2d, (PICTURE, 3, 2), {"ceil_mode": True}),
        (F.interpolate, (PICTURE,), {"scale_factor": 0.5}),
        (F.interpolate, (PICTURE, 4), {"mode": "linear"}),
        (torch.einsum, ("bij,bjk->bik", X, X), {}),
    ],
)
def test_what_is_unusual_is_left_to_torch(function, args, kwargs):
    assert found(function, args, kwargs) is None


@pytest.mark.parametrize(("function", "args", "kwargs"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_a_shortcut_agrees_with_torch_at_any_sizes(function, args, kwargs):
    """Where torch raises, so does a shortcut, or there is none."""
    draw = random.Random(0)

    def resized(value):
        if isinstance(value, tuple | list):
            return type(value)(map(resized, value))
        if not isinstance(value, Tensor):
            return value
        return value.new_zeros([draw.choice((size, size, size, 1, 2, 3)) for size in value.shape])

    def outcome(run, *given, **named):
        try:
            output = run(*given, **named)
            return None if output is None else shapes_of(output)
        except (RuntimeError, ValueError, IndexError):
            return None

    for _ in range(40):
        given, named = resized(args), {key: resized(value) for key, value in kwargs.items()}
        short = outcome(found, function, given, named)
        assert short is None or short == outcome(function, *given, **named), given
