"""Single numbers that models hold in tensors, in runs without values: a stride, a kernel size, a length made of them.

What is computed of such numbers alone is computed as numbers; where a size that is a symbol takes part, the symbol goes
along. So a padding that a model finds with `torch.ceil(length / self.stride)` has a value at every size, and a formula.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

Symbol = "torch.SymInt | torch.SymFloat"


def _quotient(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    return {None: operator.truediv, "floor": operator.floordiv}[rounding_mode](a, b)


_SAME = ("clone", "detach", "contiguous", "squeeze", "to", "int", "long", "float", "double", "type", "cpu", "item")
_ROUNDED = {"ceil": math.ceil, "floor": math.floor, "trunc": math.trunc}
_SIGNS: dict[str, Callable] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _quotient,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "maximum": torch.sym_max,
    "minimum": torch.sym_min,
    "max": torch.sym_max,
    "min": torch.sym_min,
    "neg": operator.neg,
}
_ALIKE = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "truediv", "floor_divide": "floordiv"}
_ALIKE |= {"remainder": "mod", "negative": "neg"}
_COMPARED = {"eq", "ne", "lt", "le", "gt", "ge", "bool", "index", "abs", "clamp", "pow", "round", "sqrt", "fmod"}
SMALL = 64  # numbers that are looked at one by one, such as the strides of layers
EXACT = 16  # the largest divisor by which quotients are to be exact
_MADE = {"tensor", "as_tensor", "scalar_tensor"}
_KNOWN = {*_SAME, *_ROUNDED, *_SIGNS, *_ALIKE, *_COMPARED, *(f"r{name}" for name in (*_SIGNS, *_ALIKE, "pow"))}


class Scalars:
    """Computes with single numbers in a world of fake tensors.

    Args:
        outside: a context in which tensors have values.
        fakes: the class of fake tensors; one that is made of a number knows it as its `constant`.
    """

    def __init__(self, outside: Callable[[], AbstractContextManager], fakes: type):
        self.outside, self.fakes = outside, fakes
        self._symbols: dict[int, tuple[Tensor, Any]] = {}  # of fake tensors, which are held so that no id is used twice

    def clear(self) -> None:
        self._symbols.clear()

    def prepared(
        self, function: Callable, name: str, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[Callable, tuple, dict[str, Any]]:
        """What to do instead of an operation, where it takes such numbers; otherwise the operation as it is."""
        leaves = list(_leaves((*args, *kwargs.values())))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        symbolic = any(isinstance(leaf, torch.SymInt | torch.SymFloat) for leaf in leaves)
        # No quotient of Python's: as a tensor it is rounded, and what follows from it would be told too exactly.
        if symbolic and not tensors and name in _MADE and isinstance(args[0], torch.SymInt):
            return lambda *_, **__: self._made_of(function, args, kwargs), args, kwargs
        if name == "__getitem__" and isinstance(args[1], int) and self._is_known(args[0], SMALL):
            return lambda *_, **__: self._computed(function, "item", args, kwargs), args, kwargs
        if not any(map(self._is_known, tensors)):
            return function, args, kwargs
        plain = name.strip("_")
        if plain != name and id(args[0]) in self._symbols and not name.startswith("__"):
            del self._symbols[id(args[0])]  # changed in place
        elif plain in _KNOWN and (name.startswith("__") or plain == name) and all(map(self._is_known, tensors)):
            return lambda *_, **__: self._computed(function, plain, args, kwargs), args, kwargs
        inner = {key: value for key, value in kwargs.items() if isinstance(value, tuple | list)}
        if name not in ("stack", "cat", "concat", "hstack", "vstack"):
            args = tuple(self._within(value) if isinstance(value, tuple | list | slice) else value for value in args)
            kwargs = {**kwargs, **{key: self._within(value) for key, value in inner.items()}}
        return function, args, kwargs

    def _is_known(self, tensor: Tensor, most: int = 1) -> bool:
        """Whether a tensor is so few numbers that are known, and are not learned."""
        if isinstance(tensor, self.fakes):
            return tensor.constant is not None and tensor.numel() == 1
        plain = type(tensor) in (Tensor, nn.Buffer) and tensor.device.type == "cpu"
        return plain and 0 < tensor.numel() <= most and not tensor.requires_grad

    def _number(self, leaf: Any) -> Any:
        """A real tensor for a tensor, and what a symbol is at its hint."""
        if isinstance(leaf, self.fakes):
            return leaf.constant
        return _hint(leaf)

    def _symbol(self, leaf: Any) -> Any:
        """A symbol where there is one, otherwise a number."""
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) in self._symbols:
            return self._symbols[id(leaf)][1]
        with self.outside():
            return self._number(leaf).item()

    def _within(self, value: Any) -> Any:
        """A list, tuple or slice of sizes, with numbers in the places of tensors."""
        if isinstance(value, slice):
            return slice(*map(self._within, (value.start, value.stop, value.step)))
        if type(value) in (tuple, list):
            return type(value)(map(self._within, value))
        known = isinstance(value, Tensor) and value.dim() == 0 and not value.is_floating_point()
        return self._symbol(value) if known and value.dtype is not torch.bool and self._is_known(value) else value

    def _made_of(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        made = function(_hint(args[0]), *args[1:], **kwargs)
        self._symbols[id(made)] = made, args[0]
        return made

    def _computed(self, function: Callable, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        with self.outside():
            numbers = [self._number(value) for value in args]
            result = function(*numbers, **{key: self._number(value) for key, value in kwargs.items()})
            if isinstance(result, Tensor) and result.numel() == 1:
                number, dtype, shape = result.item(), result.dtype, result.shape
        symbol = self._symbolic(name, args, kwargs)
        if not isinstance(result, Tensor) or result.numel() != 1:
            wanted = name == "item" and isinstance(symbol, torch.SymInt | torch.SymFloat)
            return symbol if wanted else result
        made = torch.tensor(number, dtype=dtype)
        made = made.reshape(shape) if shape else made
        rounded = dtype.is_floating_point and abs(number) * EXACT >= 2**24  # so a quotient may be, in float32
        if isinstance(symbol, torch.SymInt | torch.SymFloat) and not rounded:
            whole = isinstance(symbol, torch.SymFloat) and not dtype.is_floating_point
            self._symbols[id(made)] = made, torch.sym_int(symbol) if whole else symbol
        return made

    def _symbolic(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The same with symbols; None where none takes part, or it cannot be said."""
        leaves = [*args, *kwargs.values()]
        if not any(isinstance(leaf, torch.SymInt | torch.SymFloat) or id(leaf) in self._symbols for leaf in leaves):
            return None
        if name in _SAME:
            return self._symbol(args[0])
        values = [self._symbol(value) for value in args]
        if name in _ROUNDED:
            return _ROUNDED[name](values[0])
        reverse, plain = (True, name[1:]) if name not in _SIGNS and name not in _ALIKE else (False, name)
        sign = _SIGNS.get(_ALIKE.get(plain, plain))
        if sign is None or not kwargs.keys() <= {"rounding_mode"} or kwargs.get("rounding_mode") == "trunc":
            return None
        return sign(*(values[::-1] if reverse else values), **kwargs)


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _leaves(value)
        elif isinstance(value, slice):
            yield from (value.start, value.stop, value.step)
        else:
            yield value


def _hint(value: Any) -> Any:
    if isinstance(value, torch.SymInt):
        return int(value)
    return float(value) if isinstance(value, torch.SymFloat) else value
