"""What is in one thing: a tensor, a batch, an output; shapes, ranges, what is not finite, a small picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from . import internals, wording
from .drawing import image
from .page import framed, statistics
from .recorder import tensors_in
from .rows import TensorInfo
from .values import Look

SHOWN = 200  # tensors that are listed
_TITLES = ("name", "shape", "dtype", "device", "range", "mean", "std", "NaN, Inf")


@dataclass(frozen=True)
class Summary:
    """What `summary` found; `tensors` has all of it."""

    name: str  # of the class of what was summed up
    tensors: tuple[TensorInfo, ...]
    others: int = 0  # entries that are no tensors
    why: tuple[str, ...] = ()  # for each tensor, why nothing is said of its values, or ""

    def __getitem__(self, path: str) -> TensorInfo:
        return next(info for info in self.tensors if info.path == path)

    @property
    def finite(self) -> bool:
        """Whether nothing was found that is NaN or infinite."""
        return all(info.statistics is None or info.statistics.finite for info in self.tensors)

    @property
    def _headline(self) -> str:
        size = sum(info.bytes or 0 for info in self.tensors)
        told = f"{wording.many(len(self.tensors), 'tensor')}, {wording.memory(size)}"
        return f"{self.name}: {told}" + (f", {wording.many(self.others, 'other')}" if self.others else "")

    def __str__(self) -> str:
        if not self.tensors:
            return self._headline
        rows = [_TITLES, *(_cells(info, why) for info, why in self._listed)]
        keep = [i for i, title in enumerate(_TITLES) if any(row[i] for row in rows[1:]) or title in ("shape", "dtype")]
        widths = [max(wording.width(row[i]) for row in rows) for i in keep]
        lines = [
            "  ".join(row[i] + " " * (w - wording.width(row[i])) for i, w in zip(keep, widths, strict=True)).rstrip()
            for row in rows
        ]
        more = [f"… and {len(self.tensors) - SHOWN:,} more"] if len(self.tensors) > SHOWN else []
        bad = [_first_bad(info) for info in self.tensors if info.statistics and not info.statistics.finite]
        return "\n".join([self._headline, "", *lines, *more, *bad[:8]])

    __repr__ = __str__

    @property
    def _listed(self) -> Iterator[tuple[TensorInfo, str]]:
        return zip(self.tensors[:SHOWN], self.why[:SHOWN], strict=True)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(info.path)}</td><td>{escape(wording.shape(info.shape))}</td>"
            f"<td>{escape(info.dtype)}</td><td>{escape(info.device)}</td>"
            f"<td>{statistics(info.statistics) if info.statistics else escape(why)}</td>"
            f"<td>{image(info.picture) if info.picture else ''}</td></tr>"
            for info, why in self._listed
        )
        more = f"<p>and {len(self.tensors) - SHOWN:,} more</p>" if len(self.tensors) > SHOWN else ""
        titles = "".join(f"<th>{title}</th>" for title in ("name", "shape", "dtype", "device", "values", ""))
        table = f'<table class="s"><tr>{titles}</tr>{rows}</table>{more}' if rows else ""
        return framed(f"<h4>{escape(self._headline)}</h4>{table}")


def summary(x: Any) -> Summary:
    """What is in a tensor, or in a dict, list, dataclass or output of a model, nested as it may be.

    Nothing is changed or copied as a whole. Of values that are not there, of meta and fake tensors, of sparse and of
    quantised ones, only shapes are said; of complex ones, the magnitudes.

    Args:
        x: anything; arrays of numpy count as tensors.

    Returns:
        What prints as a table, and shows itself with pictures in a notebook.
    """
    with internals.unseen():
        found = list(tensors_in(_with_tensors(x)))
        look = Look(stats=True, pictures=True)
        tensors, why = [], []
        for path, tensor in found:
            info, reason = _info(path, tensor, look)
            tensors.append(info)
            why.append(reason)
    return Summary(type(x).__name__, tuple(tensors), _leaves(x) - len(found), tuple(why))


def _info(path: str, tensor: Tensor, look: Look) -> tuple[TensorInfo, str]:
    if tensor.is_nested:  # it has no shape of its own
        shape = (tensor.size(0), *[None] * (tensor.dim() - 1))
    else:
        shape = tuple(size if isinstance(size, int) else None for size in tensor.shape)
    size = None if None in shape else tensor.numel() * tensor.element_size()
    looked = None
    if tensor.is_nested:
        why = "nested"
    elif tensor.is_quantized:
        why = "quantised"
    elif tensor.device.type == "meta" or internals.is_fake(tensor):
        why = "no values"
    elif tensor.layout is not torch.strided:
        why = str(tensor.layout).removeprefix("torch.")
    elif tensor.numel() == 0:
        why = "empty"
    else:
        looked = look(tensor)
        why = "" if looked else "values cannot be read"
    dtype, device = (str(value).removeprefix("torch.") for value in (tensor.dtype, tensor.device))
    statistics = looked.statistics if looked else None
    return TensorInfo(path, shape, dtype, device, None, size, statistics, looked.picture if looked else None), why


def _with_tensors(x: Any, depth: int = 0) -> Any:
    """With arrays of numpy in dicts, lists and tuples as tensors that share their memory."""
    if type(x).__module__ == "numpy" and type(x).__name__ == "ndarray":
        return _from_numpy(x)
    if depth > 6 or isinstance(x, Tensor):
        return x
    if type(x) is dict:
        return {key: _with_tensors(value, depth + 1) for key, value in x.items()}
    if type(x) in (list, tuple):
        return type(x)(_with_tensors(value, depth + 1) for value in x)
    return x


def _from_numpy(array: Any) -> Any:
    try:
        return torch.from_numpy(array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy())
    except (TypeError, ValueError):  # text, objects, byte orders of other machines
        return array


def _leaves(x: Any, depth: int = 0) -> int:
    """How many things there are that hold nothing else."""
    if depth > 6 or isinstance(x, Tensor):
        return 1
    if isinstance(x, Mapping):
        return sum(_leaves(value, depth + 1) for value in x.values())
    if isinstance(x, tuple | list):
        return sum(_leaves(value, depth + 1) for value in x)
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return sum(_leaves(getattr(x, f.name, None), depth + 1) for f in dataclasses.fields(x))
    return 1


def _cells(info: TensorInfo, why: str) -> tuple[str, ...]:
    values = info.statistics
    span = mean = std = bad = ""
    if values is None:
        span = why
    elif values.min is None:
        span = "no finite value"
    else:
        span = f"{wording.number(values.min)} … {wording.number(values.max)}"
        mean, std = wording.number(values.mean), wording.number(values.std)
    if values is not None:
        bad = " ".join(f"{n:,} {kind}" for n, kind in ((values.nan, "NaN"), (values.inf, "Inf")) if n)
    return info.path, wording.shape(info.shape), info.dtype, info.device, span, mean, std, bad


def _first_bad(info: TensorInfo) -> str:
    return f"first value that is not finite{f' in {info.path}' if info.path else ''}: at {info.statistics.first_bad}"
