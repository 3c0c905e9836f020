"""How many floating-point operations a call makes: two for each multiplication with addition.

Counted are products of matrices, convolutions, attention, recurrent networks and Fourier transforms (5 n log2 n for n
complex values, half of that for real ones). As in `torch.utils.flop_counter`, whatever is done value by value (sums,
norms, activations, copies) counts as 0. Where the number is not known, it is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

Shape = tuple[int, ...]
Work = Callable[[Sequence[Shape], Sequence[Shape]], "int | None"]
Rule = Callable[[Mapping[str, Shape], Sequence[Shape]], "int | None"]  # inputs by path, outputs

aten = torch.ops.aten

# Known to be work, of an amount that no rule here tells.
UNKNOWN = (  # parts of names
    *("linalg_", "fft_", "svd", "qr", "lu_", "cholesky", "eig", "lstsq", "pinverse", "matrix_exp", "lobpcg", "geqrf"),
    *("triangular_solve", "cdist", "pdist", "bilinear", "_trilinear", "chain_matmul", "kron", "sparse", "ctc_loss"),
    *("_transformer_encoder", "_native_multi_head", "flex_attention", "lfilter"),
)


def work_of(function: Any, name: str, args: tuple, kwargs: Mapping[str, Any], paths: Sequence[str]) -> Work | None:
    """What counts the operations of a call from the shapes of its tensors; None where nothing is known to.

    Args:
        function: what was called.
        name: what its row is called.
        args: with what; only numbers and text are kept.
        kwargs: likewise.
        paths: of the tensors among them, as they are recorded.
    """
    if hasattr(function, "_schema") or hasattr(function, "overloads"):  # torch.ops.*: custom operations too
        packet = getattr(function, "overloadpacket", function)
        if packet in flop_registry:
            return partial(_registered, packet, tuple(paths), len(args))
        if not str(packet).startswith("aten."):
            return None
    elif not _is_torchs(function):
        return None
    name = name.rstrip("_") if not name.startswith("__") else name
    if name in RULES:
        rule = RULES[name]
        keep = CONSTANTS.get(name)
        constants = keep(args, kwargs) if keep else {}
        return partial(_by_rule, rule, tuple(paths), tuple(constants.items()))
    if any(part in name for part in UNKNOWN):
        return None
    return _none_needed


def _is_torchs(function: Any) -> bool:
    module = getattr(function, "__module__", None)
    return module is None or module == "torch" or module.startswith(("torch.", "builtins"))


def _none_needed(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 0


def _by_rule(rule, paths, constants, inputs, outputs) -> int | None:
    return rule(dict(zip(paths, inputs, strict=True)), outputs, **dict(constants))


def _registered(packet, paths, count, inputs, outputs) -> int | None:
    """By a formula that torch, or the author of a custom operation, registered for shapes."""
    named = dict(zip(paths, inputs, strict=True))
    try:
        by_place = [named.get(f"[{i}]") for i in range(count)]
        by_name = {path: shape for path, shape in named.items() if not path.startswith("[")}
        return flop_registry[packet](*by_place, **by_name, out_val=outputs[0] if len(outputs) == 1 else tuple(outputs))
    except Exception:  # whatever a formula of others does with shapes where it wants tensors
        return None


# rules


def _argument(named: Mapping[str, Shape], place: int, name: str) -> Shape:
    return named[f"[{place}]"] if f"[{place}]" in named else named[name]


def _linear(named, outputs) -> int:
    return 2 * math.prod(outputs[0]) * _argument(named, 1, "weight")[-1]


def _matmul(named, outputs) -> int:
    left = _argument(named, 0, "input" if "input" in named else "self")
    return 2 * math.prod(outputs[0]) * left[-1]


def _added_matmul(named, outputs) -> int:
    names = ("batch1", "batch2") if "batch1" in named else ("mat1", "mat2")
    left = _argument(named, 1, names[0])
    batches = left[0] if len(left) == 3 and len(outputs[0]) == 2 else 1  # addbmm sums over them
    return 2 * math.prod(outputs[0]) * left[-1] * batches


def _rmatmul(named, outputs) -> int:
    return 2 * math.prod(outputs[0]) * named["[1]"][-1]


def _outer_free(named, outputs) -> int:
    """Sums of products over what the output no longer has: `dot`, `tensordot`."""
    left, right = list(named.values())[:2]
    ratio = math.prod(left) * math.prod(right) // max(1, math.prod(outputs[0]))
    return 2 * math.prod(outputs[0]) * math.isqrt(ratio)


def _convolution(named, outputs, transposed: bool = False) -> int:
    weight = _argument(named, 1, "weight")
    moved = _argument(named, 0, "input") if transposed else outputs[0]
    return 2 * math.prod(moved) * math.prod(weight[1:])


def _attention(named, outputs) -> int:
    query, key, value = (_argument(named, i, name) for i, name in enumerate(("query", "key", "value")))
    pairs = math.prod(query[:-1]) * key[-2]  # a causal mask leaves out half of them, which kernels may use or not
    return 2 * pairs * (query[-1] + value[-1])


def _multi_head_attention(named, outputs) -> int:
    query, key, value = (_argument(named, i, name) for i, name in enumerate(("query", "key", "value")))
    batch, width = (query[1] if len(query) == 3 else 1), query[-1]
    projected = math.prod(query) * width + math.prod(key) * width + math.prod(value) * width
    mixed = 2 * batch * query[0] * key[0] * width
    return 2 * (projected + mixed + math.prod(query) * width)


def _recurrent(named, outputs) -> int:
    """Each step multiplies with every matrix; the weights are the only list of matrices."""
    packed = len(named["[1]"]) == 1 if "[1]" in named else False  # the second argument is `batch_sizes`
    weights = [s for path, s in named.items() if path.startswith("[3][" if packed else "[2][") and len(s) == 2]
    return 2 * math.prod(named["[0]"][:-1]) * sum(map(math.prod, weights))


def _recurrent_cell(named, outputs) -> int:
    first = named["[0]"]
    weights = [shape for path, shape in named.items() if path in ("[2]", "[3]")]
    return 2 * math.prod(first[:-1]) * sum(map(math.prod, weights))


def _einsum(named, outputs, equation: str | None = None) -> int | None:
    operands = list(named.values())
    if len(operands) == 1:
        return 0  # a sum or a transposition
    if equation is None or len(operands) > 2:
        return None  # the order of three or more products is the library's choice
    size: dict[str, int] = {}
    for side, shape in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=True):
        before, dots, after = side.partition("...")
        more = range(len(shape) - len(before) - len(after), 0, -1) if dots else ()
        for name, length in zip([*before, *map(str, more), *after], shape, strict=True):
            size[name] = max(length, size.get(name, 1))
    return 2 * math.prod(size.values())


def _transform(real: bool, named, outputs, n: int | None = None, dim: int = -1) -> int:
    inside, outside = next(iter(named.values())), outputs[0]
    n = n or max(inside[dim], outside[dim])
    rows = math.prod(outside) // max(1, outside[dim])
    return int(rows * (2.5 if real else 5) * n * math.log2(n)) if n > 1 else 0


def _stft(named, outputs, n_fft: int = 0) -> int:
    size = outputs[0][:-1] if outputs[0][-1] == 2 and len(outputs[0]) > 3 else outputs[0]
    rows = math.prod(size) // (n_fft // 2 + 1)
    return int(rows * 2.5 * n_fft * math.log2(n_fft))


def _istft(named, outputs, n_fft: int = 0) -> int:
    spectrum = next(iter(named.values()))
    return int(math.prod(spectrum) // (n_fft // 2 + 1) * 2.5 * n_fft * math.log2(n_fft))


def _equation(args: tuple, kwargs: Mapping) -> dict[str, str | None]:
    first = args[0] if args else kwargs.get("equation")
    return {"equation": first if isinstance(first, str) else None}


def _n_fft(args: tuple, kwargs: Mapping) -> dict[str, int]:
    return {"n_fft": int(args[1] if len(args) > 1 else kwargs["n_fft"])}


def _length_and_axis(args: tuple, kwargs: Mapping) -> dict[str, int | None]:
    n = args[1] if len(args) > 1 else kwargs.get("n")
    dim = args[2] if len(args) > 2 else kwargs.get("dim", -1)
    return {"n": n if n is None else int(n), "dim": -1 if dim is None else int(dim)}


RULES: dict[str, Rule] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm", "mv", "_int_mm"), _matmul),
    "__rmatmul__": _rmatmul,
    **dict.fromkeys(("addmm", "addbmm", "baddbmm", "addmv"), _added_matmul),
    **dict.fromkeys(("dot", "vdot", "inner", "tensordot"), _outer_free),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "conv_tbc"), _convolution),
    **{f"conv_transpose{d}d": partial(_convolution, transposed=True) for d in (1, 2, 3)},
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head_attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _recurrent_cell),
    "einsum": _einsum,
    **dict.fromkeys(("fft_fft", "fft_ifft"), partial(_transform, False)),
    **dict.fromkeys(("fft_rfft", "fft_irfft"), partial(_transform, True)),
    "stft": _stft,
    "istft": _istft,
}
CONSTANTS: dict[str, Callable[[tuple, Mapping], dict[str, Any]]] = {
    "einsum": _equation,
    "stft": _n_fft,
    "istft": _n_fft,
    **dict.fromkeys(("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"), _length_and_axis),
}
