"""The FLOPs of an operation, and the statistics of a tensor.

A multiply-add is two FLOPs. Counted are products of matrices, convolutions, attention, recurrent networks and Fourier
transforms (5 n log2 n for n complex values, half of that for real ones). As in `torch.utils.flop_counter`, element-wise
work (sums, norms, activations, copies) counts as 0. An unknown number is None, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from .fake import is_fake
from .rows import Statistics

Shape = tuple[int, ...]
Work = Callable[[Sequence[Shape], Sequence[Shape]], "int | None"]

# Operations whose work no rule here gives, by a word of their names: whole, or how it begins.
UNKNOWN = re.compile(
    r"(?:^|_)(?:(?:linalg|fft|qr|lu|bilinear|sparse|kron)(?:_|$)|svd|cholesky|eig|lstsq|pinverse|matrix_exp|lobpcg|geqrf|orgqr|ormqr|fbgemm"
    r"|triangular_solve|cdist|pdist|trilinear|chain_matmul|ctc_loss|transformer_encoder|native_multi_head|lfilter)"
)


def work_of(function: Any, name: str, args: tuple, kwargs: Mapping[str, Any], paths: Sequence[str]) -> Work | None:
    """Return a function from shapes to FLOPs; None if they are unknown.

    `name` is the name of its row, `paths` are the paths of its tensors; numbers and text among the arguments are kept.
    """
    if hasattr(function, "_schema") or hasattr(function, "overloads"):  # torch.ops.*: custom operations too
        packet = getattr(function, "overloadpacket", function)
        if packet in flop_registry:
            return partial(_registered, packet, tuple(paths), len(args))
        if not str(packet).startswith("aten."):
            return None
    else:
        module = getattr(function, "__module__", None)
        if module is not None and module != "torch" and not module.startswith(("torch.", "builtins")):
            return None
    name = name.rstrip("_") if not name.startswith("__") else name
    if name in RULES:
        given = {key: args[i] if i < len(args) else kwargs.get(key) for key, i in CONSTANTS.get(name, {}).items()}
        constants = {key: int(value) if isinstance(value, torch.SymInt) else value for key, value in given.items()}
        return partial(_by_rule, partial(RULES[name], **constants), tuple(paths))
    return None if UNKNOWN.search(name) else no_work


def no_work(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Return 0, as for element-wise work."""
    return 0


def repeated(work: Work | None, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """Return the FLOPs of an operation under vmap; its last input is the shape of the axes that are not seen."""
    once = None if work is None else work(inputs[:-1], outputs)
    return None if once is None else once * math.prod(inputs[-1])


def _by_rule(rule: Callable, paths: Sequence[str], inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    return rule(dict(zip(paths, inputs, strict=True)), outputs)


def _registered(packet, paths, count, inputs, outputs) -> int | None:
    named = dict(zip(paths, inputs, strict=True))
    try:
        by_place = [named.get(f"[{i}]") for i in range(count)]
        by_name = {path: shape for path, shape in named.items() if not path.startswith("[")}
        return flop_registry[packet](*by_place, **by_name, out_val=outputs[0] if len(outputs) == 1 else tuple(outputs))
    except Exception:  # a registered formula may expect tensors where it gets shapes
        return None


def _argument(named: Mapping[str, Shape], place: int, *names: str) -> Shape:
    return next(named[key] for key in (f"[{place}]", *names) if key in named)


def _product(named, outputs, place: int = 0, names: Sequence[str] = ("input", "self")) -> int:
    """A product of matrices, by its output and one operand."""
    return 2 * math.prod(outputs[0]) * _argument(named, place, *names)[-1]


def _added_product(named, outputs) -> int:
    left = _argument(named, 1, "batch1", "mat1", "mat")
    batches = left[0] if len(left) == 3 and len(outputs[0]) == 2 else 1  # addbmm sums over them
    return 2 * math.prod(outputs[0]) * left[-1] * batches


def _contraction(named, outputs) -> int:
    """Products summed over lost axes: `dot`, `tensordot`."""
    left, right = list(named.values())[:2]
    ratio = math.prod(left) * math.prod(right) // max(1, math.prod(outputs[0]))
    return 2 * math.prod(outputs[0]) * math.isqrt(ratio)


def _convolution(named, outputs, transposed: bool = False) -> int:
    weight = _argument(named, 1, "weight")
    moved = _argument(named, 0, "input") if transposed else outputs[0]
    return 2 * math.prod(moved) * math.prod(weight[1:])


def _attention(named, outputs) -> int:
    query, key, value = (_argument(named, i, name) for i, name in enumerate(("query", "key", "value")))
    pairs = math.prod(query[:-1]) * key[-2]  # kernels may or may not use that a causal mask leaves out half of them
    return 2 * pairs * (query[-1] + value[-1])


def _multi_head_attention(named, outputs) -> int:
    query, key, value = (_argument(named, i, name) for i, name in enumerate(("query", "key", "value")))
    batch, width = (query[1] if len(query) == 3 else 1), query[-1]
    projected = (2 * math.prod(query) + math.prod(key) + math.prod(value)) * width
    return 2 * (projected + 2 * batch * query[0] * key[0] * width)


def _recurrent(named, outputs) -> int:
    """Each step multiplies by every matrix of the weights, the second or third argument."""
    weights = [shape for path, shape in named.items() if path[:3] in ("[2]", "[3]") and len(shape) == 2]
    return 2 * math.prod(named["[0]"][:-1]) * sum(map(math.prod, weights))


def _einsum(named, outputs, equation: Any) -> int | None:
    operands = list(named.values())
    if len(operands) == 1:
        return 0  # a sum or a transposition
    if not isinstance(equation, str) or len(operands) > 2:
        return None  # the order of three or more products is the library's choice
    size: dict[str, int] = {}
    for side, shape in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=True):
        before, dots, after = side.partition("...")
        more = range(len(shape) - len(before) - len(after), 0, -1) if dots else ()
        for name, length in zip([*before, *map(str, more), *after], shape, strict=True):
            size[name] = max(length, size.get(name, 1))
    return 2 * math.prod(size.values())


def _transform(named, outputs, factor: float, n: int | None = None, dim: int | None = None) -> int:
    inside, outside, dim = next(iter(named.values())), outputs[0], -1 if dim is None else dim
    n = n or max(inside[dim], outside[dim])
    rows = math.prod(outside) // max(1, outside[dim])
    return int(rows * factor * n * math.log2(n)) if n > 1 else 0


def _stft(named, outputs, n_fft: int, inverse: bool = False) -> int:
    spectrum = next(iter(named.values())) if inverse else outputs[0]
    if not inverse and spectrum[-1] == 2 and len(spectrum) > 3:  # real and imaginary part
        spectrum = spectrum[:-1]
    return int(math.prod(spectrum) // (n_fft // 2 + 1) * 2.5 * n_fft * math.log2(n_fft))


RULES: dict[str, Callable] = {
    "linear": partial(_product, place=1, names=("weight",)),
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm", "mv", "_int_mm"), _product),
    "__rmatmul__": partial(_product, place=1),
    **dict.fromkeys(("addmm", "addbmm", "baddbmm", "addmv"), _added_product),
    **dict.fromkeys(("dot", "vdot", "inner", "tensordot"), _contraction),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "conv_tbc"), _convolution),
    **{f"conv_transpose{d}d": partial(_convolution, transposed=True) for d in (1, 2, 3)},
    **dict.fromkeys(("scaled_dot_product_attention", "flex_attention"), _attention),
    "multi_head_attention_forward": _multi_head_attention,
    **{name + cell: _recurrent for name in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")},
    "einsum": _einsum,
    **dict.fromkeys(("fft_fft", "fft_ifft"), partial(_transform, factor=5.0)),
    **dict.fromkeys(("fft_rfft", "fft_irfft"), partial(_transform, factor=2.5)),
    "stft": _stft,
    "istft": partial(_stft, inverse=True),
}

# Arguments that a rule needs beside the shapes, by their places.
CONSTANTS: dict[str, dict[str, int]] = {
    "einsum": {"equation": 0},
    **{name: {"n_fft": 1} for name in ("stft", "istft")},
    **{name: {"n": 1, "dim": 2} for name in ("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft")},
}


@torch.no_grad()
def statistics_of(tensor: Tensor) -> Statistics | None:
    """Return statistics of a tensor; None if it has no values."""
    if tensor.layout is not torch.strided or is_fake(tensor) or tensor.numel() == 0:
        return None
    try:
        values = tensor.detach()
        numbers = (values.abs() if values.is_complex() else values).reshape(-1).to(torch.float64)
        bad = ~numbers.isfinite()
        nan, first = int(numbers.isnan().sum()), None
        if bool(bad.any()):
            first = tuple(int(i) for i in torch.unravel_index(bad.to(torch.uint8).argmax(), values.shape))
            numbers = numbers[~bad]
        counts = nan, int(bad.sum()) - nan, first
        if not numbers.numel():
            return Statistics(None, None, None, None, *counts)
        low, high = numbers.aminmax()
        std, mean = torch.std_mean(numbers, correction=0)
        return Statistics(float(low), float(high), float(mean), float(std), *counts)
    except (RuntimeError, NotImplementedError):  # a tensor without values of its own, as under vmap
        return None
