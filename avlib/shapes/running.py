"""Runs a model without leaving a trace of it: what it was called with, at any size, with or without values."""

from __future__ import annotations

import collections
import functools
import operator
import random
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import frames
from .inputs import Inputs, Sizes, resized, revalued
from .internals import Fake
from .recorder import Event, Recorder
from .values import Look

Slot = tuple[tuple, int, str, int]  # key of a row, 0 in and 1 out, path of the tensor, axis


@dataclass
class Run:
    """What was seen of one run."""

    events: list[Event]
    modules: list[nn.Module] = field(default_factory=list)
    output: Any = None
    error: BaseException | None = None

    @functools.cached_property
    def keys(self) -> list[tuple]:
        """What tells each row from the others, in a way that holds at other sizes too."""
        counts: collections.Counter[tuple] = collections.Counter()
        keys = []
        for event in self.events:
            key = (event.kind, event.path, event.call, event.name, event.place)
            counts[key] += 1
            keys.append((*key, counts[key]))
        return keys

    @functools.cached_property
    def sizes(self) -> dict[Slot, Any]:
        """Every size of every tensor."""
        found = {}
        for key, event in zip(self.keys, self.events, strict=True):
            for side, leaves in enumerate((event.inputs, event.outputs)):
                for leaf in leaves:
                    for axis, size in enumerate(leaf.shape):
                        found[key, side, leaf.path, axis] = size
        return found

    @functools.cached_property
    def ranks(self) -> dict[tuple, int]:
        """How many axes each tensor has."""
        pairs = zip(self.keys, self.events, strict=True)
        return {
            (key, side, leaf.path): len(leaf.shape)
            for key, event in pairs
            for side, leaves in enumerate((event.inputs, event.outputs))
            for leaf in leaves
        }

    @property
    def raised_at(self) -> tuple[str, int] | None:
        return None if self.error is None else frames.raised_at(self.error.__traceback__)


class Model:
    """A callable with its inputs, to be run as often as needed.

    Args:
        fn: any module or callable.
        inputs: what it is called with.
        builder: makes `fn` anew, in a world of fake tensors; then `fn` itself is not used.
    """

    def __init__(self, fn: Callable | None, inputs: Inputs, builder: Callable[[], Callable] | None = None):
        self.fn, self.inputs, self.builder = fn, inputs, builder
        self.modules = modules_of(fn, inputs.args, inputs.kwargs) if fn is not None else {}
        self.fake: Fake | None = None
        self.known: list[nn.Module] = [part for module in self.modules.values() for part in module.modules()]

    @property
    def name(self) -> str:
        return type(self.fn).__name__ if isinstance(self.fn, nn.Module) else getattr(self.fn, "__name__", str(self.fn))

    @property
    def is_lazy(self) -> bool:
        """Whether some weights have no shape yet."""
        return any(nn.parameter.is_lazy(p) for module in self.known for p in module._parameters.values())

    def enter_fake(self) -> Fake:
        """The world of fake tensors of this model, which is built in it where it has to be."""
        if self.fake is None:
            self.fake = Fake(frames.own_frame)
            if self.builder is not None:
                with self.fake.running():
                    self.fn = self.builder()
                self.modules = modules_of(self.fn, (), {})
        return self.fake

    def as_given(self, look: Look | None, timed: bool) -> Run:
        """With the very inputs that were given."""
        return self._recorded(self.inputs.args, self.inputs.kwargs, Recorder(self.modules, look, timed))

    def at(
        self,
        sizes: Sizes,
        real: bool = False,
        replace: Callable[[Event, Any], Any] | None = None,
        other_values: bool = False,
    ) -> Run:
        """At other sizes, or with symbols for them; the model and the world are left as they were."""
        symbolic = any(not isinstance(size, int) for size in sizes.values())
        fake = None if real else self.enter_fake()
        with preserved(self.known, values=real):
            args, kwargs = self.inputs.made(sizes, (revalued if other_values else resized) if real else fake.like)
            with nullcontext() if real else fake.running(symbolic):
                return self._recorded(args, kwargs, Recorder(self.modules, replace=replace, world=fake))

    def _recorded(self, args: tuple, kwargs: Mapping[str, Any], recorder: Recorder) -> Run:
        run = Run(recorder.events)
        with recorder.running():
            try:
                run.output = self._call(args, kwargs, recorder)
            except Exception as error:
                run.error = error
        run.modules = recorder.held
        known = set(map(id, self.known))
        self.known += [module for module in recorder.held if id(module) not in known]
        return run

    def _call(self, args: tuple, kwargs: Mapping[str, Any], recorder: Recorder) -> Any:
        if isinstance(self.fn, nn.Module):
            return _drawn(self.fn(*args, **kwargs))
        with recorder.calling(self.name, args, kwargs, self.inputs.called(len(args))) as event:
            output = _drawn(self.fn(*args, **kwargs))
            recorder.returned(event, output)
        return output


def _drawn(output: Any) -> Any:
    """What a generator gives, as a list: nobody else will draw from it."""
    return list(output) if isinstance(output, types.GeneratorType) else output


def modules_of(fn: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, nn.Module]:
    """The modules that a callable is, holds or refers to, by the names that it has for them."""
    if isinstance(fn, nn.Module):
        return {"": fn}
    found: dict[str, nn.Module] = {}

    def take(name: str, value: Any, depth: int = 0) -> None:
        if isinstance(value, nn.Module):
            if not any(value is module for module in found.values()):
                found.setdefault(name, value)
        elif depth < 3:
            if isinstance(value, functools.partial):
                take(name, value.func, depth + 1)
                for key, item in (*enumerate(value.args), *value.keywords.items()):
                    take(str(key), item, depth + 1)
            elif isinstance(value, types.MethodType):
                take(name, value.__func__, depth + 1)
                take("self", value.__self__, depth + 1)
            elif isinstance(value, types.FunctionType) and (depth == 0 or frames.is_own(value.__code__)):
                for key, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                    with suppress(ValueError):  # a cell that is still empty
                        take(key, cell.cell_contents, depth + 1)
                for key in value.__code__.co_names:
                    take(key, value.__globals__.get(key), depth + 1)
                for key, item in enumerate(value.__defaults__ or ()):
                    take(str(key), item, depth + 1)
            elif isinstance(value, list | tuple | dict):
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    take(f"{name}[{key!r}]" if name else str(key), item, depth + 1)
            elif hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType):
                for key, item in list(vars(value).items()):
                    take(key, item, depth + 1)

    wrapped = fn
    while hasattr(wrapped, "__wrapped__") and isinstance(wrapped, types.FunctionType):
        take("", wrapped)
        wrapped = wrapped.__wrapped__
    take("", wrapped)
    for key, value in (*enumerate(args), *(kwargs or {}).items()):
        take(str(key), value)
    return found


@contextmanager
def preserved(modules: list[nn.Module], values: bool = False) -> Iterator[None]:
    """Whatever is run inside, modules keep their attributes, gradients and buffers, and random numbers go on as before.

    Models count, cache and build things while they run, `num_batches_tracked` or the positions of the last length. In a
    run that nobody asked for this must not happen; least of all may a tensor without values stay in a model. `values`
    keeps the values of buffers too, which only a run with values can change.
    """
    state = _State(modules, values)
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


class _State:
    """What modules, and the containers and objects that hang at them, held at one time."""

    def __init__(self, modules: list[nn.Module], values: bool):
        self.classes = [(module, type(module)) for module in modules]
        self.held: dict[int, tuple[Any, Any]] = {}  # containers, and a copy of each; those of attributes too
        self.gradients: list[tuple[Tensor, Tensor | None, bool]] = []
        self.buffers: list[tuple[Tensor, Tensor]] = []
        for module in modules:
            self._hold(module.__dict__)
            for name, value in module.__dict__.items():
                if name.endswith("_hooks") or "_hooks_" in name:
                    continue  # another thread may trace the same model, and take its hooks away meanwhile
                if isinstance(value, dict | list | set):
                    self._hold(value)
                elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | Tensor | type | Callable):
                    self._hold(value.__dict__)
            parameters = [p for p in module._parameters.values() if p is not None and p.is_leaf]
            self.gradients += [(p, p.grad, p.requires_grad) for p in parameters]
            if values:
                self.buffers += [(b, b.detach().clone()) for b in module._buffers.values() if b is not None]

    def _hold(self, container: dict | list | set) -> None:
        if id(container) not in self.held and type(container) in (dict, list, set, collections.OrderedDict):
            copied = dict(container) if isinstance(container, dict) else list(container)
            self.held[id(container)] = container, copied

    def restore(self) -> None:
        for container, before in self.held.values():
            if isinstance(container, dict):
                same = len(container) == len(before) and all(container.get(k, self) is v for k, v in before.items())
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
