"""Outputs of common operations on tensors without values, found without torch.

Torch takes a tenth of a millisecond to find that a normalisation keeps the shape, and several with symbols. Where
anything is unusual, or a size does not fit, there is no shortcut, and torch says so itself. Outputs are contiguous, and
share no memory: the shapes of later operations do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager
except ImportError:  # pragma: no cover
    FakeTensor, in_kernel_invocation_manager = (), None

Size = int | torch.SymInt
MOST_PIECES = 1000  # of one tensor
_NUMBERS = int | float | torch.SymInt | torch.SymFloat


class Stopped(Exception):
    """A run took more time or memory than it may."""


def shortcut(world: Any, name: str, args: tuple, kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return a function for the output of an operation; None if torch must find it.

    Where `world.views` is False, an output that shares the memory of an input has no shortcut.
    """
    known = _MAKING.get(name) or (_VIEWS.get(name) if world.views else None)
    if known is None or not args or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return None
    if name == "einsum":
        args = (*args[1:], args[0])
    several = args[0] if type(args[0]) in (tuple, list) else args[:1]
    tensors = [value for value in (*several, *args[1:], *kwargs.values()) if isinstance(value, Tensor)]
    first = tensors[0] if tensors else None
    if first is None or first is not several[0] or (name in _MAKING and not first.is_floating_point()):
        return None
    for tensor in tensors:
        if tensor.layout is not torch.strided or tensor.device != first.device:
            return None
        if tensor.dtype is not first.dtype and tensor.dtype is not _OTHERS.get(known):
            return None
        if getattr(tensor, "constant", None) is not None or (tensor.requires_grad and torch.is_grad_enabled()):
            return None
    try:
        found = known(*args, **kwargs)
    except TypeError:  # arguments that the rule does not know
        return None
    if found is None or isinstance(found, Tensor):
        return None if found is None else lambda *_, **__: found
    first = args[1] if known is _embedded else first
    if found and isinstance(found[0], tuple):  # several outputs
        return lambda *_, **__: tuple(_made(world.mode, first, shape) for shape in found)
    return lambda *_, **__: _made(world.mode, first, found)


def _made(mode: Any, like: Tensor, shape: Sequence[Size]) -> Tensor:
    with in_kernel_invocation_manager(mode):
        new = torch.empty(shape, dtype=like.dtype, device="meta")
    return FakeTensor(mode, new, like.device)


def alike(one: Any, other: Any) -> bool:
    """Return True if two sizes are the same at every size of the input, as far as is known without a question."""
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    whats = [getattr(getattr(size, "node", None), "what", None) for size in (one, other)]
    return None not in whats and whats[0]._key == whats[1]._key


def _all_alike(one: Sequence[Size], other: Sequence[Size]) -> bool:
    return len(one) == len(other) and all(map(alike, one, other))


def _broadcast(*shapes: Sequence[Size]) -> list[Size] | None:
    found: list[Size] = []
    for place in range(1, max(map(len, shapes)) + 1):
        sizes = [shape[-place] for shape in shapes if len(shape) >= place]
        size = next((size for size in sizes if not alike(size, 1)), 1)
        if not all(alike(other, 1) or alike(other, size) for other in sizes):
            return None
        found.insert(0, size)
    return found


def _axis(x: Tensor, dim: Any, more: int = 0) -> int | None:
    """A place from the front; None outside the tensor."""
    rank = x.dim() + more
    return dim % rank if type(dim) is int and -rank <= dim < rank else None


def _same(x: Tensor, *rest: Any, inplace: bool = False, dtype: Any = None, **options: Any) -> Any:
    if rest[-1:] == (True,):  # as `hardtanh` is called
        rest, inplace = rest[:-1], True
    rest = (*rest, *(value for key, value in options.items() if key in ("min", "max")))
    harmless = options.keys() <= _HARMLESS and dtype is None
    known = harmless and not any(isinstance(v, Tensor | torch.dtype) for v in rest)
    return None if not known else x if inplace else x.shape


_HARMLESS = {"dim", "approximate", "negative_slope", "alpha", "beta", "threshold", "min", "max", "_stacklevel"}


def _itself(x: Tensor, *rest: Any) -> Any:
    kept = all((value is x.dtype) if isinstance(value, torch.dtype) else value is None for value in rest)
    return None if not kept else x if x.is_contiguous() else x.shape


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
    return None if training else x


def _layer_norm(x: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Any:
    sizes = tuple(normalized_shape)
    fits = 0 < len(sizes) <= x.dim() and _all_alike(x.shape[x.dim() - len(sizes) :], sizes)
    return x.shape if fits and all(part is None or tuple(part.shape) == sizes for part in (weight, bias)) else None


def _channels_fit(x: Tensor, *parts: Any) -> bool:
    return x.dim() > 1 and all(part is None or (part.dim() == 1 and alike(part.shape[0], x.shape[1])) for part in parts)


def _batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=0.0, *_: Any) -> Any:
    known = training is False and mean is not None and var is not None
    return x.shape if known and _channels_fit(x, mean, var, weight, bias) else None


def _group_norm(x: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Any:
    whole = x.dim() > 2 and isinstance(x.shape[1], int) and x.shape[1] % num_groups == 0
    if type(values := math.prod(x.shape) // num_groups) is int and values < 2:
        return None  # torch refuses a single value per group
    return x.shape if whole and _channels_fit(x, weight, bias) else None


def _linear(x: Tensor, weight: Tensor, bias: Any = None) -> Any:
    fits = weight.dim() == 2 and x.dim() > 1 and alike(x.shape[-1], weight.shape[1])
    return (*x.shape[:-1], weight.shape[0]) if fits and (bias is None or bias.shape == weight.shape[:1]) else None


def _products(x: Tensor, other: Tensor) -> Any:
    return _product(x, other) if x.dim() == other.dim() == 3 and alike(x.shape[0], other.shape[0]) else None


def _product(x: Tensor, other: Any) -> Any:
    if not isinstance(other, Tensor) or min(x.dim(), other.dim()) < 2 or not alike(x.shape[-1], other.shape[-2]):
        return None
    batch = _broadcast(x.shape[:-2], other.shape[:-2])
    return None if batch is None else (*batch, x.shape[-2], other.shape[-1])


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Any:
    ranks = query.dim() == key.dim() == value.dim() and query.dim() > 2 and not enable_gqa
    fits = ranks and alike(query.shape[-1], key.shape[-1]) and alike(key.shape[-2], value.shape[-2])
    if not fits or not all(_all_alike(query.shape[:-2], other.shape[:-2]) for other in (key, value)):
        return None
    scores = (*query.shape[:-1], key.shape[-2])
    if attn_mask is not None:
        spread = _broadcast(scores, attn_mask.shape) if attn_mask.dim() > 1 and not is_causal else None
        if spread is None or not _all_alike(spread, scores):
            return None
    return (*query.shape[:-1], value.shape[-1])


def _filled(x: Tensor, mask: Tensor, value: Any) -> Any:
    known = isinstance(mask, Tensor) and not isinstance(value, Tensor)
    return _broadcast(x.shape, mask.shape) if known else None


def _elementwise(x: Tensor, other: Any, alpha: Any = 1) -> Any:
    if isinstance(other, _NUMBERS) and not isinstance(other, bool):
        return x.shape
    return _broadcast(x.shape, other.shape) if isinstance(other, Tensor) else None


def _changed(x: Tensor, other: Any, **options: Any) -> Tensor | None:
    """The tensor itself, after a change in place."""
    shape = _elementwise(x, other, **options)
    return x if shape is not None and _all_alike(shape, x.shape) else None


def _windows(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[Size] | None:
    """`(length + 2*padding - dilation*(kernel - 1) - 1)//stride + 1` along each axis."""
    found, axes = [], x.dim() - 2
    given = (kernel, stride, padding, dilation)
    spread = zip(*((value,) * axes if isinstance(value, int) else tuple(value) for value in given), strict=False)
    for length, (k, s, p, d) in zip(x.shape[2:], spread, strict=False):
        room = length + 2 * p - d * (k - 1) - 1
        if alike(length, 0) or not room >= 0 or not isinstance(s, int) or s < 1:
            return None
        found.append(room // s + 1)
    return found if len(found) == axes else None


def _convolution(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Any:
    if weight.dim() != x.dim() or isinstance(padding, str) or not isinstance(groups, int):
        return None
    if type(weight.shape[0]) is int and weight.shape[0] % groups:
        return None
    if not alike(x.shape[1], weight.shape[1] * groups) or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    found = _windows(x, weight.shape[2:], stride, padding, dilation)
    return None if found is None else (x.shape[0], weight.shape[0], *found)


def _pooled(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False) -> Any:
    if x.dim() != 4 or type(kernel_size) is not int or type(padding) is not int or 2 * padding > kernel_size:
        return None
    plain = ceil_mode is False and return_indices is False
    found = _windows(x, kernel_size, stride or kernel_size, padding, dilation) if plain else None
    return None if found is None else (*x.shape[:2], *found)


def _resized(x, size=None, scale_factor=None, mode="nearest", align_corners=None, *rest: Any, **options: Any) -> Any:
    axes, smooth = x.dim() - 2, {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
    if smooth.get(mode, axes) != axes or axes < 1 or any(rest) or any(options.values()):
        return None
    if (align_corners is not None and mode not in smooth) or (size is None) is (scale_factor is None):
        return None
    if size is None:
        whole = isinstance(scale_factor, int | float) and scale_factor >= 1 and scale_factor == int(scale_factor)
        size = [length * int(scale_factor) for length in x.shape[2:]] if whole else []
    sizes = [size] * axes if isinstance(size, Size) else list(size)
    fits = len(sizes) == axes and all(isinstance(n, Size) and n > 0 for n in (*sizes, *x.shape[2:]))
    return (*x.shape[:2], *sizes) if fits else None


def _contracted(*args: Any) -> Any:
    """The output of `einsum`, whose equation comes last here."""
    *operands, equation = args
    operands = operands if isinstance(operands[0], Tensor) else operands[0]
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    sides = inputs.split(",")
    if not arrow or "." in equation or [len(side) for side in sides] != [x.dim() for x in operands]:
        return None
    sizes: dict[str, Size] = {}
    pairs = [pair for side, x in zip(sides, operands, strict=True) for pair in zip(side, x.shape, strict=True)]
    if not all(alike(sizes.setdefault(letter, size), size) for letter, size in pairs):
        return None
    return (
        [sizes[letter] for letter in output]
        if sizes.keys() >= set(output) and len(set(output)) == len(output)
        else None
    )


def _reduced(x: Tensor, dim: Any, keepdim: bool = False) -> Any:
    axes = [_axis(x, one) for one in (dim if isinstance(dim, tuple | list) else [dim])]
    if None in axes or not axes:
        return None
    return [1 if i in axes else size for i, size in enumerate(x.shape) if keepdim or i not in axes]


def _embedded(ids: Tensor, weight: Tensor, *rest: Any, max_norm: Any = None, **options: Any) -> Any:
    return (*ids.shape, weight.shape[1]) if weight.dim() == 2 and max_norm is None and not any(rest[1:]) else None


def _distances(x: Tensor, other: Tensor, *rest: Any, **options: Any) -> Any:
    fits = x.dim() == other.dim() > 1 and alike(x.shape[-1], other.shape[-1])
    batch = _broadcast(x.shape[:-2], other.shape[:-2]) if fits else None
    return None if batch is None else (*batch, x.shape[-2], other.shape[-2])


def _padded(x: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    if mode != "constant" or len(pad) % 2 or len(pad) > 2 * x.dim() or not all(type(p) is int and p >= 0 for p in pad):
        return None
    sums = [before + after for before, after in zip(pad[::2], pad[1::2], strict=True)]
    sums = [0] * (x.dim() - len(sums)) + sums[::-1]
    return [size + more if more else size for size, more in zip(x.shape, sums, strict=True)]


def _joined(tensors: Any, dim: int = 0) -> Any:
    first, axis = tensors[0], _axis(tensors[0], dim)
    others = [[size for i, size in enumerate(t.shape) if i != axis] for t in tensors]
    if axis is None or any(t.dim() != first.dim() or t.dtype is not first.dtype for t in tensors):
        return None
    if not all(_all_alike(others[0], other) for other in others):
        return None
    return [sum(t.shape[axis] for t in tensors[1:]) + size if i == axis else size for i, size in enumerate(first.shape)]


def _unshuffled(x: Tensor, factor: int) -> Any:
    if x.dim() < 3 or type(factor) is not int:
        return None
    *batch, channels, height, width = x.shape
    if height % factor != 0 or width % factor != 0:  # torch's own, without values, cuts off what is left
        raise RuntimeError(f"pixel_unshuffle expects height and width to be divisible by {factor}")
    return *batch, channels * factor**2, height // factor, width // factor


def _sizes(sizes: tuple) -> tuple:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes


def _viewed(x: Tensor, *sizes: Any) -> Any:
    sizes, rest = _sizes(sizes), list(x.shape)
    if not all(isinstance(size, Size) for size in sizes) or not x.is_contiguous():
        return None
    numbers = [size for size in (*sizes, *rest) if type(size) is int]
    if numbers.count(-1) > 1 or any(size == 0 or size < -1 for size in numbers):
        return None
    known: Size = 1  # the product of sizes that are not simply kept
    for size in sizes:
        place = next((i for i, other in enumerate(rest) if alike(size, other)), None)
        if place is not None:
            rest.pop(place)
        elif type(size) is not int or size != -1:
            known = known * size
    left = math.prod(rest)
    if -1 not in numbers:
        backed = all(getattr(getattr(size, "node", None), "backed", True) for size in (left, known))
        return sizes if alike(left, known) or (backed and bool(left == known)) else None  # torch would divide
    fits = alike(known, 1) or alike(left // known * known, left)  # otherwise torch asks for the rest
    return [left // known if type(size) is int and size == -1 else size for size in sizes] if fits else None


def _flattened(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Any:
    first, last = _axis(x, start_dim), _axis(x, end_dim)
    if first is None or last is None or first > last:
        return None
    return (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])


def _permuted(x: Tensor, *dims: Any) -> Any:
    axes = [_axis(x, dim) for dim in _sizes(dims)]
    return [x.shape[axis] for axis in axes] if sorted(axes, key=str) == sorted(range(x.dim()), key=str) else None


def _transposed(x: Tensor, dim0: int, dim1: int) -> Any:
    one, other, axes = _axis(x, dim0), _axis(x, dim1), list(range(x.dim()))
    if one is None or other is None:
        return None
    axes[one], axes[other] = other, one
    return [x.shape[axis] for axis in axes]


def _unsqueezed(x: Tensor, dim: int) -> Any:
    axis = _axis(x, dim, 1)
    return None if axis is None else (*x.shape[:axis], 1, *x.shape[axis:])


def _unfolded(x: Tensor, dimension: int, size: Size, step: Size) -> Any:
    axis = _axis(x, dimension)
    if axis is None or not (0 < size <= x.shape[axis] and step > 0):
        return None
    return *x.shape[:axis], (x.shape[axis] - size) // step + 1, *x.shape[axis + 1 :], size


def _counted(count: Size) -> int:
    """A number of pieces, each of which takes time."""
    if count > MOST_PIECES:
        raise Stopped("it took too long")
    return int(count)


def _unbound(x: Tensor, dim: int = 0) -> Any:
    axis = _axis(x, dim)
    whole = axis is not None and isinstance(x.shape[axis], int) and x.shape[axis] > 0
    return [(*x.shape[:axis], *x.shape[axis + 1 :])] * _counted(x.shape[axis]) if whole else None


def _iterated(x: Tensor) -> None:
    if x.dim() and isinstance(x.shape[0], int):
        _counted(x.shape[0])


def _split(x: Tensor, split_size: Any, dim: int = 0) -> Any:
    axis = _axis(x, dim)
    if axis is None or alike(x.shape[axis], 0):
        return None
    if type(split_size) is int and split_size > 0:
        count = _counted((x.shape[axis] + split_size - 1) // split_size)
        sizes = [split_size] * (count - 1) + [x.shape[axis] - split_size * (count - 1)]
    elif not isinstance(split_size, tuple | list) or not alike(sum(sizes := split_size), x.shape[axis]):
        return None
    return [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]


def _chunked(x: Tensor, chunks: int, dim: int = 0) -> Any:
    axis = _axis(x, dim)
    if axis is None or type(chunks) is not int or chunks < 1 or alike(x.shape[axis], 0):
        return None
    length, size = x.shape[axis], (x.shape[axis] + chunks - 1) // chunks
    count = _counted((length + size - 1) // size)
    sizes = [size] + [torch.sym_min(size, length - i * size) for i in range(1, count)]
    return [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]


def _indexed(x: Tensor, index: Any) -> Any:
    """New axes, parts of axes, and places in axes of known sizes."""
    index = index if isinstance(index, tuple) else (index,)
    for item in index:
        if not (isinstance(item, slice) or item is None or item is ... or type(item) is int):
            rows = isinstance(item, Tensor) and len(index) == 1 and x.dim() and not alike(x.shape[0], 0)
            return (*item.shape, *x.shape[1:]) if rows else None
    used = sum(item is not None and item is not ... for item in index)
    if used > x.dim() or sum(item is ... for item in index) > 1:
        return None
    found, sizes = [], list(x.shape)
    for item in index:
        if item is None:
            found.append(1)
        elif item is ...:
            keep = x.dim() - used
            found, sizes = found + sizes[:keep], sizes[keep:]
        elif type(item) is int:
            size = sizes.pop(0)
            if not isinstance(size, int) or not -size <= item < size:
                return None
        else:
            size, ends = sizes.pop(0), (item.start, item.stop, item.step)
            if ends != (None, None, None):
                known = isinstance(size, int) and all(end is None or type(end) is int for end in ends)
                if not known or (item.step or 1) < 0:
                    return None
                size = len(range(*item.indices(size)))
            found.append(size)
    return [*found, *sizes] if found or sizes else None


_PLAIN = "gelu relu silu sigmoid tanh hardswish hardsigmoid relu6 elu mish softmax exp cos sin rsqrt sqrt softplus"
_IN_PLACE = "add_ mul_ sub_ div_ __iadd__ __imul__ __isub__ __itruediv__"
_BINARY = "add mul sub div pow __pow__ __add__ __mul__ __sub__ __truediv__ __radd__ __rmul__ __rsub__ __rtruediv__"
_MAKING: dict[str, Callable] = {
    **dict.fromkeys((_PLAIN + " clamp hardtanh leaky_relu log_softmax neg __neg__ abs square").split(), _same),
    **dict.fromkeys(_BINARY.split(), _elementwise),
    **dict.fromkeys(_IN_PLACE.split(), _changed),
    **{"max_pool2d": _pooled, "interpolate": _resized, "einsum": _contracted},
    **{"layer_norm": _layer_norm, "batch_norm": _batch_norm, "group_norm": _group_norm, "linear": _linear},
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **{"matmul": _product, "__matmul__": _product, "bmm": _products},
    **{"mean": _reduced, "sum": _reduced, "scaled_dot_product_attention": _attention, "pad": _padded},
    "pixel_unshuffle": _unshuffled,
    **{"cdist": _distances, "masked_fill": _filled, "roll": lambda x, shifts, dims=None: x.shape},
}
_VIEWS: dict[str, Callable] = {
    **{"dropout": _dropout, "contiguous": _itself, "to": _itself, "float": lambda x: _itself(x, torch.float32)},
    **{"view": _viewed, "reshape": _viewed, "flatten": _flattened, "permute": _permuted, "transpose": _transposed},
    **{"unsqueeze": _unsqueezed, "unbind": _unbound, "chunk": _chunked, "__getitem__": _indexed},
    **dict.fromkeys(("view_as", "reshape_as"), lambda x, other: _viewed(x, tuple(other.shape))),
    **{"split": _split, "__iter__": _iterated, "unfold": _unfolded},
    **{"cat": _joined, "concat": _joined, "embedding": _embedded},
}
_OTHERS = {
    _attention: torch.bool,
    _filled: torch.bool,
    _indexed: torch.int64,
    _embedded: torch.float32,
}  # dtypes of what is no first input
