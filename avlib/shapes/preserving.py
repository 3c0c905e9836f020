"""Modules that a callable reaches, and their state, which a further run leaves as it was."""

from __future__ import annotations

import collections
import functools
import operator
import random
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from .recorder import is_own

MOST_SHARED = 1000  # items of a global container that is restored
_CONTAINERS = (dict, list, set, collections.OrderedDict, collections.defaultdict)


def modules_of(fn: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, nn.Module]:
    """Return the modules that a callable is, holds or refers to."""
    if isinstance(fn, nn.Module):
        return {"": fn}
    found: dict[str, nn.Module] = {}

    def take(name: str, value: Any, depth: int = 0) -> None:
        if isinstance(value, nn.Module):
            if not any(value is module for module in found.values()):
                found.setdefault(name, value)
            return
        for key, item in referred(name, value, depth) if depth < 3 else ():
            take(key, item, depth + 1)

    wrapped = fn
    while hasattr(wrapped, "__wrapped__") and isinstance(wrapped, types.FunctionType):
        take("", wrapped)
        wrapped = wrapped.__wrapped__
    take("", wrapped)
    for key, value in (*enumerate(args), *(kwargs or {}).items()):
        take(str(key), value)
    return found


def referred(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """The objects that a callable or container refers to, with names."""
    if isinstance(value, functools.partial):
        yield name, value.func
        yield from ((str(key), item) for key, item in (*enumerate(value.args), *value.keywords.items()))
    elif isinstance(value, types.MethodType):
        yield name, value.__func__
        yield "self", value.__self__
    elif isinstance(value, types.FunctionType) and (depth == 0 or is_own(value.__code__)):
        for key, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with suppress(ValueError):  # a cell that is still empty
                yield key, cell.cell_contents
        yield from ((key, value.__globals__.get(key)) for key in value.__code__.co_names)
        yield from ((str(key), item) for key, item in enumerate(value.__defaults__ or ()))
    elif isinstance(value, list | tuple | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield f"{name}[{key!r}]" if name else str(key), item
    elif hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType):
        yield from list(vars(value).items())


@contextmanager
def preserved(state: State) -> Iterator[None]:
    """Restore attributes, gradients and buffers of modules, global containers, and all random states.

    Models count, cache and build things while they run; an extra run must leave none of that, least of all a tensor
    without values.
    """
    numpy = sys.modules.get("numpy")
    python, torchs = random.getstate(), torch.get_rng_state()
    numpys = numpy.random.get_state() if numpy is not None else None
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()
    cudas = [torch.cuda.get_rng_state(device) for device in devices]
    try:
        yield
    finally:
        state.restore()
        random.setstate(python)
        torch.set_rng_state(torchs)
        if numpys is not None:
            numpy.random.set_state(numpys)
        for device, before in zip(devices, cudas, strict=True):
            torch.cuda.set_rng_state(before, device)


class State:
    """The contents of modules, of their containers and of those in `scopes`, the globals of functions, at one time.

    `values` restores the values of buffers too, which only a run with values can change.
    """

    def __init__(self, modules: list[nn.Module], values: bool, scopes: Iterable[dict[str, Any]] = ()):
        self.classes = [(module, type(module)) for module in modules]
        self.held: dict[int, tuple[Any, Any]] = {}  # containers with a copy of each; attributes too
        self.gradients: list[tuple[Tensor, Tensor | None, bool]] = []
        self.buffers: list[tuple[Tensor, Tensor]] = []
        kinds = dict.fromkeys(kind for module in modules for kind in type(module).__mro__)
        for holder in (*scopes, *map(vars, kinds)):
            for name, value in holder.items():
                if not name.startswith("__") and isinstance(value, dict | list | set) and len(value) < MOST_SHARED:
                    self._hold(value)
        for module in modules:
            self._hold(module.__dict__)
            for name, value in module.__dict__.items():
                if name.endswith("_hooks") or "_hooks_" in name:
                    continue  # another thread may trace the same model, and remove its hooks meanwhile
                if isinstance(value, dict | list | set):
                    self._hold(value)
                elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | Tensor | type | Callable):
                    self._hold(value.__dict__)
            parameters = [p for p in module._parameters.values() if p is not None and p.is_leaf]
            self.gradients += [(p, p.grad, p.requires_grad) for p in parameters]
            if values:
                tensors = [v for v in (*module._buffers.values(), *module.__dict__.values()) if isinstance(v, Tensor)]
                self.buffers += [(tensor, tensor.detach().clone()) for tensor in tensors]

    def _hold(self, container: dict | list | set) -> None:
        if id(container) not in self.held and type(container) in _CONTAINERS:
            copied = dict(container) if isinstance(container, dict) else list(container)
            self.held[id(container)] = container, copied

    def restore(self) -> None:
        for container, before in self.held.values():
            if isinstance(container, dict):
                same = list(container) == list(before) and all(map(operator.is_, container.values(), before.values()))
            elif isinstance(container, list):
                same = len(container) == len(before) and all(map(operator.is_, container, before))
            else:
                same = container == set(before)
            if not same:
                container.clear()
                container.extend(before) if isinstance(container, list) else container.update(before)
        for module, kind in self.classes:
            if type(module) is not kind:
                module.__class__ = kind  # a lazy module that had become a real one
        for parameter, gradient, required in self.gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient
            if parameter.requires_grad is not required:
                parameter.requires_grad_(required)
        for buffer, before in self.buffers:
            with torch.no_grad(), torch.inference_mode(buffer.is_inference()):
                buffer.copy_(before)
