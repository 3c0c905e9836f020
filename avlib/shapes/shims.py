"""Functions of Python that make numbers of symbols, and others in their places that leave symbols what they are."""

from __future__ import annotations

import builtins
import contextlib
import linecache
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def makes_numbers(file: str, line: int | None = None) -> bool:
    """Whether a line, or any in a file, has one of the functions that make numbers of symbols."""
    lines = linecache.getlines(file) if line is None else [linecache.getline(file, line)]
    return any(_CALLS.search(code) for code in lines)


class _IntMeta(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.int)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, builtins.int)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.SymInt | torch.SymFloat):
            return torch.sym_int(args[0])
        return builtins.int(*args, **kwargs)


class _Int(builtins.int, metaclass=_IntMeta):
    """`int` that leaves a symbol a symbol, in code that is looked at."""


class _FloatMeta(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.float)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, builtins.float)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.SymInt | torch.SymFloat):
            return torch.sym_float(args[0])
        return builtins.float(*args, **kwargs)


class _Float(builtins.float, metaclass=_FloatMeta):
    """`float` that leaves a symbol a symbol."""


def _len(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt):
        return value.shape[0]
    return builtins.len(value)


def _of_symbols(symbolic: Callable, plain: Callable) -> Callable:
    def either(*args: Any, **kwargs: Any) -> Any:
        if builtins.len(args) == 2 and any(isinstance(value, torch.SymInt) for value in args) and not kwargs:
            return symbolic(*args)
        return plain(*args, **kwargs)

    return either


def recurrent(name: str, args: tuple) -> Callable[..., Any] | None:
    """What gives the shapes of a recurrent network without a step for each frame, which sizes would be counted by.

    None of another operation, and of packed sequences.
    """
    if name not in ("lstm", "gru", "rnn_tanh", "rnn_relu") or builtins.len(args) != 9:
        return None

    def shaped(x: Tensor, state: Any, *rest: Any) -> tuple[Tensor, ...]:
        states = state if isinstance(state, tuple | list) else (state,)
        width = states[0].shape[-1] * (2 if rest[5] else 1)
        return x.new_empty((*x.shape[:-1], width)), *(x.new_empty(each.shape) for each in states)

    return shaped if isinstance(args[2], tuple | list) and isinstance(args[0], Tensor) else None


SHIMS = {
    "len": _len,
    "int": _Int,
    "float": _Float,
    "max": _of_symbols(torch.sym_max, builtins.max),
    "min": _of_symbols(torch.sym_min, builtins.min),
}


_CALLS = re.compile(rf"\b({'|'.join(SHIMS)})\(")


@contextlib.contextmanager
def shims(scopes: Any) -> Iterator[None]:
    """Within these modules, `len`, `int` and their like leave symbols what they are; for all else they are Python's."""
    changed = []
    try:
        for scope in list(scopes):
            for name, shim in SHIMS.items():
                if name not in scope:
                    scope[name] = shim
                    changed.append((scope, name))
        yield
    finally:
        for scope, name in changed:
            scope.pop(name, None)
