"""Outputs of common operations on tensors without values, found without torch.

Torch takes a millisecond to find that a normalisation keeps the shape. Where anything is unusual, or a size does not
fit, there is no shortcut, and torch says so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_PLAIN = {"gelu", "relu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "relu6", "elu", "mish", "softmax"}
_PLAIN |= {"exp", "cos", "sin", "rsqrt", "sqrt", "softplus", "leaky_relu", "log_softmax"}
_HARMLESS = {"approximate", "dim", "_stacklevel", "eps", "negative_slope"}


def shortcut(name: str, args: tuple, kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return a function for the output of an operation; None if torch must find it."""
    known = _CHECKS.get(name) or (_same if name in _PLAIN else None)
    if known is None or not args or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return None
    tensors = [value for value in args if isinstance(value, Tensor)]
    first = args[0]
    if not tensors or first is not tensors[0] or not first.is_floating_point() or first.layout is not torch.strided:
        return None
    if any(tensor.dtype is not first.dtype or tensor.device != first.device for tensor in tensors):
        return None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return None
    if not all(key in _HARMLESS or (key == "inplace" and not value) for key, value in kwargs.items()):
        return None
    shape = known(*args)
    if shape is None or not (known in (_linear, _product) or first.dim() < 2 or first.is_contiguous()):
        return None  # the output has the strides of the input
    return lambda *_, **__: first.new_empty(shape)


def alike(one: Any, other: Any) -> bool:
    """Return True if two sizes are the same at every size of the input, as far as is known without a question."""
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    whats = [getattr(getattr(size, "node", None), "what", None) for size in (one, other)]
    return None not in whats and whats[0]._key == whats[1]._key


def _same(x: Tensor, *rest: Any) -> Any:
    return None if any(value is True or isinstance(value, Tensor | torch.dtype) for value in rest) else x.shape


def _layer_norm(x: Tensor, normalized: Any, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Any:
    sizes = tuple(normalized)
    fits = len(sizes) <= x.dim() and all(map(alike, x.shape[x.dim() - len(sizes) :], sizes))
    return x.shape if fits and all(part is None or tuple(part.shape) == sizes for part in (weight, bias)) else None


def _channels_fit(x: Tensor, *parts: Any) -> bool:
    return x.dim() > 1 and all(part is None or (part.dim() == 1 and alike(part.shape[0], x.shape[1])) for part in parts)


def _batch_norm(x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: Any = False, *_: Any):
    known = training is False and mean is not None and var is not None
    return x.shape if known and _channels_fit(x, mean, var, weight, bias) else None


def _group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Any:
    whole = x.dim() > 2 and isinstance(x.shape[1], int) and x.shape[1] % groups == 0
    return x.shape if whole and _channels_fit(x, weight, bias) else None


def _linear(x: Tensor, weight: Tensor, bias: Any = None) -> Any:
    fits = weight.dim() == 2 and x.dim() > 1 and alike(x.shape[-1], weight.shape[1])
    return (*x.shape[:-1], weight.shape[0]) if fits and (bias is None or bias.shape == weight.shape[:1]) else None


def _product(x: Tensor, other: Any) -> Any:
    if not isinstance(other, Tensor) or x.dim() != other.dim() or x.dim() < 2:
        return None
    fits = alike(x.shape[-1], other.shape[-2]) and all(map(alike, x.shape[:-2], other.shape[:-2]))
    return (*x.shape[:-1], other.shape[-1]) if fits else None


def _elementwise(x: Tensor, other: Any) -> Any:
    if isinstance(other, int | float) and not isinstance(other, bool):
        return x.shape
    fits = isinstance(other, Tensor) and x.dim() == other.dim() and all(map(alike, x.shape, other.shape))
    return x.shape if fits and (x.dim() < 2 or other.is_contiguous()) else None


def _convolution(x: Tensor, weight: Tensor, bias: Any = None, *options: Any) -> Any:
    """`(length + 2*padding - dilation*(kernel - 1) - 1)//stride + 1` along each axis."""
    axes = x.dim() - 2
    stride, padding, dilation, groups = (*options, *(1, 0, 1, 1)[len(options) :])
    if weight.dim() != x.dim() or not weight.is_contiguous() or isinstance(padding, str) or not isinstance(groups, int):
        return None
    if not alike(x.shape[1], weight.shape[1] * groups) or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    found = []
    spread = ((value,) * axes if isinstance(value, int) else tuple(value) for value in (stride, padding, dilation))
    for length, kernel, (s, p, d) in zip(x.shape[2:], weight.shape[2:], zip(*spread, strict=True), strict=True):
        room = length + 2 * p - d * (kernel - 1) - 1
        if not room >= 0 or not isinstance(s, int) or s < 1:
            return None
        found.append(room // s + 1)
    return x.shape[0], weight.shape[0], *found


_CHECKS: dict[str, Callable] = {
    **{"layer_norm": _layer_norm, "batch_norm": _batch_norm, "group_norm": _group_norm, "linear": _linear},
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("matmul", "__matmul__", "bmm"), _product),
    **dict.fromkeys(("add", "__add__", "mul", "__mul__", "sub", "__sub__", "__truediv__"), _elementwise),
}
