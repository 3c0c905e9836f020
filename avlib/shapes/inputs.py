"""What a model is called with, which of its sizes have names, and the same inputs at other sizes."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from .formula import Formula, sizes
from .recorder import tensors_in

Sizes = Mapping[str, Any]  # a number for each name, or a symbol
Make = Callable[[Tensor, dict[int, Any]], Tensor]  # a tensor like another, with other sizes on some axes


@functools.lru_cache(maxsize=512)
def parameter_names(function: Any) -> tuple[str, ...]:
    """Names of the parameters that can be given by position; that of all further ones with its star, `*args`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    names = []
    for parameter in parameters:
        if parameter.kind == parameter.VAR_POSITIONAL:
            names.append(f"*{parameter.name}")
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        names.append(parameter.name)
    return tuple(names)


def named_path(path: str, names: tuple[str, ...]) -> str:
    """A path that begins with a position, `[0].x`, with the name of that parameter: `wav.x`."""
    place, bracket, rest = path[1:].partition("]")
    if not path.startswith("[") or not bracket or not place.isdigit():
        return path
    plain = names[:-1] if names and names[-1].startswith("*") else names
    if int(place) < len(plain):
        return plain[int(place)] + rest
    return path if plain == names else f"{names[-1][1:]}[{int(place) - len(plain)}]{rest}"


class Inputs:
    """Arguments of a call, and names for their sizes.

    Args:
        fn: what is called.
        args, kwargs: with what.
        dims: names by argument: `{"wav": "B T"}`, `{0: "B T 80"}`, `{"batch": {"audio": "B T"}}` or
            `{"batch.audio": "B T"}`. A number must be met, `_` is no name, `...` stands for any axes, and a formula
            follows from names: `{"wav": "B T", "mask": "B (T-400)//320+1"}`. A name alone for an argument that is a
            whole number names that number. Text alone is for the first argument.

    Raises:
        ParameterError: a name for what is not there, too many or too few axes, or one name with two sizes.
    """

    def __init__(self, fn: Any, args: tuple, kwargs: Mapping[str, Any], dims: Any = None):
        self.args, self.kwargs = args, dict(kwargs)
        target = fn.forward if isinstance(fn, nn.Module) and not hasattr(fn, "_orig_mod") else fn
        self.names = parameter_names(target)
        self.sizes: dict[str, int] = {}
        self.axes: dict[int, dict[int, Formula]] = {}  # of each tensor
        self.numbers: dict[int | str, str] = {}  # arguments that are sizes themselves
        self._tensors = {}  # by path, from the argument's name
        for key, value in (*enumerate(args), *self.kwargs.items()):
            self._tensors.update(tensors_in(value, self._name(key)))
        specs = dict(self._specs(dims)) if dims else {}
        derived = []
        for path, text in specs.items():
            derived += self._named(path, text)
        for path, axis, formula, size in derived:
            self._check(path, axis, formula, size)

    def _name(self, key: int | str) -> str:
        return key if isinstance(key, str) else named_path(f"[{key}]", self.names)

    def called(self, count: int) -> list[str]:
        """What the first arguments are called."""
        return [self._name(i) for i in range(count)]

    def _specs(self, dims: Any, path: str = "") -> Iterator[tuple[str, str]]:
        """Text for each path."""
        if isinstance(dims, str):
            yield path or self._name(0 if self.args else next(iter(self.kwargs), 0)), dims
        elif isinstance(dims, Mapping):
            for key, value in dims.items():
                inner = self._name(key) if not path else f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
                yield from self._specs(value, inner)
        elif isinstance(dims, tuple | list):
            for i, value in enumerate(dims):
                if value is not None:
                    yield from self._specs(value, self._name(i) if not path else f"{path}[{i}]")
        else:
            raise ParameterError("dims", repr(dims), "names by argument", 'For example dims={"wav": "B T"}.')

    def _named(self, path: str, text: str) -> list[tuple[str, int, Formula, int]]:
        """Take names from one argument's text; what follows from names is checked when all are known."""
        tensor = self._tensors.get(path)
        if tensor is None:
            return self._number_named(path, text)
        parts = _axes(text, tensor.dim(), path, tuple(tensor.shape))
        derived, named = [], self.axes.setdefault(id(tensor), {})
        for axis, formula in parts.items():
            size = tensor.shape[axis]
            if str(formula).isidentifier():
                if self.sizes.setdefault(str(formula), size) != size:
                    raise self._two_sizes(str(formula), path, size)
            else:
                derived.append((path, axis, formula, size))
            if formula.constant is None:
                named[axis] = formula
        return derived

    def _number_named(self, path: str, text: str) -> list:
        given = {self._name(i): (i, value) for i, value in enumerate(self.args)}
        given |= {name: (name, value) for name, value in self.kwargs.items()}
        key, value = given.get(path, (None, None))
        name = text.strip()
        if not isinstance(value, int) or isinstance(value, bool) or not name.isidentifier():
            tensors = ", ".join(self._tensors) or "none"
            raise ParameterError("dims", f"{path!r}, which is no tensor that was given", f"one of {tensors}")
        self.numbers[key] = name
        if self.sizes.setdefault(name, value) != value:
            raise self._two_sizes(name, path, value)
        return []

    def _two_sizes(self, name: str, path: str, size: int) -> ParameterError:
        found = f"{name} is {size} in {path!r} and {self.sizes[name]} elsewhere"
        return ParameterError("dims", found, "one size for each name", "Give another name, or another input.")

    def _check(self, path: str, axis: int, formula: Formula, size: int) -> None:
        if formula.evaluate(**self.sizes) != size:
            found = f"axis {axis} of {path!r} has size {size}"
            raise ParameterError("dims", found, f"{formula} = {formula.evaluate(**self.sizes)}")

    def made(self, new: Sizes, make: Make) -> tuple[tuple, dict[str, Any]]:
        """The same arguments at other sizes: every tensor made anew, everything else copied.

        Raises:
            ParameterError: there is something that cannot be copied, as a generator.
        """
        memo: dict[int, Any] = {}
        for tensor in self._tensors.values():
            axes = {axis: formula.value(new) for axis, formula in self.axes.get(id(tensor), {}).items()}
            memo.setdefault(id(tensor), make(tensor, axes))
        for module in _modules_in((self.args, self.kwargs)):
            memo[id(module)] = module
        try:
            args, kwargs = copy.deepcopy((self.args, self.kwargs), memo)
        except Exception as error:
            raise ParameterError("inputs", f"cannot be copied ({error})", "tensors and plain containers") from error
        args = tuple(new[self.numbers[i]] if i in self.numbers else value for i, value in enumerate(args))
        return args, {key: new[self.numbers[key]] if key in self.numbers else v for key, v in kwargs.items()}


def resized(tensor: Tensor, axes: dict[int, int]) -> Tensor:
    """A real tensor of other sizes: its values repeated, or its first ones, so that they stay plausible."""
    with torch.no_grad():
        new = tensor.detach()
        for axis, size in axes.items():
            index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
            new = new.index_select(axis, index)
        new = new.clone() if not axes else new
    return new.requires_grad_(tensor.requires_grad)


def revalued(tensor: Tensor, axes: dict[int, int]) -> Tensor:
    """A real tensor of other values, as plausible: random ones, half of whole numbers, the opposite of truths."""
    with torch.no_grad():
        if tensor.dtype is torch.bool:
            new = ~tensor
        elif tensor.is_floating_point() or tensor.is_complex():
            new = torch.randn_like(tensor)
        else:
            new = (tensor + 1) // 2
    return new.requires_grad_(tensor.requires_grad)


def _axes(text: str, rank: int, path: str, shape: tuple[int, ...]) -> dict[int, Formula]:
    """A formula for each axis that has one."""
    before, dots, after = text.partition("...")
    first, last = sizes(before), sizes(after)
    if len(first) + len(last) > rank or (not dots and len(first) != rank):
        raise ParameterError("dims", f"{text!r} for {path!r} of shape {shape}", f"{rank} names, numbers or _")
    found = {**dict(enumerate(first)), **{rank - len(last) + i: formula for i, formula in enumerate(last)}}
    return {axis: formula for axis, formula in found.items() if formula is not None}


def _modules_in(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _modules_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _modules_in(item)
