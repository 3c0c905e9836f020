"""Runs of a model at any size, which leave it unchanged."""

from __future__ import annotations

import collections
import copy
import functools
import inspect
import math
import sys
import time
import traceback
import types
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from . import fake
from .fake import Fake
from .formula import Formula, sizes
from .keeping import called
from .preserving import State, modules_of, preserved, referred
from .recorder import Event, Place, Recorder, own_frame, parts_of, raised_at, tensors_in

Sizes = Mapping[str, Any]  # a number for each name, or a symbol
Slot = tuple[tuple, int, str, int]  # key of a row, 0 for input and 1 for output, path of the tensor, axis


@functools.lru_cache(maxsize=512)
def parameter_names(function: Any) -> tuple[str, ...]:
    """Return the names of positional parameters; a last `*args` keeps its star."""
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
    """Replace the position in a path, `[0].x`, by its name: `wav.x`."""
    place, bracket, rest = path[1:].partition("]")
    if not path.startswith("[") or not bracket or not place.isdigit():
        return path
    plain = names[:-1] if names and names[-1].startswith("*") else names
    if int(place) < len(plain):
        return plain[int(place)] + rest
    return path if plain == names else f"{names[-1][1:]}[{int(place) - len(plain)}]{rest}"


class Inputs:
    """The arguments of a call, with names for their sizes.

    Args:
        dims: names by argument: `{"wav": "B T"}`, `{0: "B T 80"}`, `{"batch": {"audio": "B T"}}` or
            `{"batch.audio": "B T"}`. A number must match, `_` is no name, `...` stands for any axes, and a formula
            follows from names: `{"wav": "B T", "mask": "B (T-400)//320+1"}`. A name alone for an argument that is a
            whole number names that number. Text alone is for the first argument.

    Raises:
        ParameterError: a name for a missing argument, too many or too few axes, or one name with two sizes.
    """

    def __init__(self, fn: Any, args: tuple, kwargs: Mapping[str, Any], dims: Any = None):
        self.args, self.kwargs = args, dict(kwargs)
        target = fn.forward if isinstance(fn, nn.Module) and not hasattr(fn, "_orig_mod") else fn
        target = target if isinstance(target, Hashable) else target.__call__  # a dataclass, say
        self.names = parameter_names(target)
        self.sizes: dict[str, int] = {}
        self.axes: dict[int, dict[int, Formula]] = {}  # of each tensor
        self.numbers: dict[int | str, str] = {}  # arguments that are sizes themselves
        self._tensors = {}  # by path, from the argument's name
        for key, value in (*enumerate(args), *self.kwargs.items()):
            self._tensors.update(tensors_in(value, self.name(key)))
        derived = []
        for path, text in dict(self._specs(dims)).items() if isinstance(dims, Tensor) or dims else ():
            derived += self._named(path, text)
        for path, axis, formula, size in derived:  # what follows from names, now that all are known
            if len(free := set(formula.names) - self.sizes.keys()) == 1:  # "8*H" names H
                (name,) = free
                self.sizes[name] = bisect_left(
                    range(size + 1), size, key=lambda n: _at(formula, {**self.sizes, name: n})
                )
            if formula.evaluate(**self.sizes) != size:
                found = f"axis {axis} of {path!r} has size {size}"
                raise ParameterError("dims", found, f"{formula} = {formula.evaluate(**self.sizes)}")

    def name(self, key: int | str) -> str:
        """Return the name of an argument by its position or name."""
        return key if isinstance(key, str) else named_path(f"[{key}]", self.names)

    def _specs(self, dims: Any, path: str = "") -> Iterator[tuple[str, str]]:
        if isinstance(dims, str):
            yield path or self.name(0 if self.args else next(iter(self.kwargs), 0)), dims
        elif isinstance(dims, Mapping):
            for key, value in dims.items():
                inner = self.name(key) if not path else f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
                yield from self._specs(value, inner)
        elif isinstance(dims, tuple | list):
            for i, value in enumerate(dims):
                if value is not None:
                    yield from self._specs(value, self.name(i) if not path else f"{path}[{i}]")
        else:
            found = repr(dims) if not isinstance(dims, Tensor) else "a tensor"
            raise ParameterError("dims", found, "names by argument", 'For example dims={"wav": "B T"}.')

    def _named(self, path: str, text: str) -> list[tuple[str, int, Formula, int]]:
        """Take the names in one argument's text; return its formulas."""
        tensor = self._tensors.get(path)
        if tensor is None:
            return self._number_named(path, text)
        derived, named = [], self.axes.setdefault(id(tensor), {})
        for axis, formula in _axes(text, path, fake.shape_of(tensor)).items():
            size = fake.shape_of(tensor)[axis]
            if formula.is_name:
                self._take(str(formula), path, size)
            else:
                derived.append((path, axis, formula, size))
            if formula.constant is None:
                named[axis] = formula
        return derived

    def _number_named(self, path: str, text: str) -> list:
        given = {self.name(i): (i, value) for i, value in enumerate(self.args)}
        given |= {name: (name, value) for name, value in self.kwargs.items()}
        key, value = given.get(path, (None, None))
        name = text.strip()
        if not isinstance(value, int) or isinstance(value, bool) or not name.isidentifier():
            tensors = ", ".join(self._tensors) or "none"
            raise ParameterError("dims", f"{path!r}, which is no tensor that was given", f"one of {tensors}")
        self.numbers[key] = name
        self._take(name, path, value)
        return []

    def _take(self, name: str, path: str, size: int) -> None:
        if self.sizes.setdefault(name, size) != size:
            found = f"{name} is {size} in {path!r} and {self.sizes[name]} elsewhere"
            raise ParameterError("dims", found, "one size for each name", "Give another name, or another input.")

    def are_strided(self, named: bool = False) -> bool:
        """Return False if an input, or one with named axes, is jagged or sparse: it keeps its sizes."""
        tensors = [tensor for tensor in self._tensors.values() if not named or self.axes.get(id(tensor))]
        return all(tensor.layout is torch.strided and not tensor.is_nested for tensor in tensors)

    def hold_numbers(self) -> bool:
        """Return True if an input holds whole numbers, as lengths are."""
        kinds = {tensor.dtype for tensor in self._tensors.values()}
        return any(not (kind.is_floating_point or kind.is_complex or kind is torch.bool) for kind in kinds)

    def possible(self, new: Mapping[str, int]) -> bool:
        """Return True if no axis has a negative size, and no tensor more elements than torch can count."""
        lengths = {key: [_at(formula, new) for formula in axes.values()] for key, axes in self.axes.items()}
        found = [(tensor, lengths.get(id(tensor), ())) for tensor in self._tensors.values()]
        return all(min(new, default=0) >= 0 and math.prod(new) * max(1, t.numel()) < 2**58 for t, new in found)

    def made(self, new: Sizes, make: Callable[[Tensor, dict[int, Any]], Tensor]) -> tuple[tuple, dict[str, Any]]:
        """Return the arguments at other sizes, with tensors by `make`."""
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


def _axes(text: str, path: str, shape: tuple) -> dict[int, Formula]:
    """A formula for each axis that has one."""
    before, dots, after = text.partition("...")
    first, last, rank = sizes(before), sizes(after), len(shape)
    if len(first) + len(last) > rank or (not dots and len(first) != rank):
        raise ParameterError("dims", f"{text!r} for {path!r} of shape {shape}", f"{rank} names, numbers or _")
    found = {**dict(enumerate(first)), **{rank - len(last) + i: formula for i, formula in enumerate(last)}}
    return {axis: formula for axis, formula in found.items() if formula is not None}


def _at(formula: Formula, sizes: Mapping[str, int]) -> int:
    value = formula.value_at(sizes)
    return -1 if value is None else value


def _modules_in(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _modules_in(item)


def resized(tensor: Tensor, axes: dict[int, int]) -> Tensor:
    """Return a real tensor of other sizes, its values repeated or cut."""
    with torch.no_grad():
        new = tensor.detach()
        for axis, size in axes.items():
            if tensor.shape[axis]:
                new = new.index_select(axis, torch.arange(size, device=tensor.device) % tensor.shape[axis])
            else:
                new = new.new_zeros((*new.shape[:axis], size, *new.shape[axis + 1 :]))
        new = new.clone() if not axes else new
    return new.requires_grad_(tensor.requires_grad)


def revalued(tensor: Tensor, axes: dict[int, int]) -> Tensor:
    """Return a real tensor of other plausible values."""
    with torch.no_grad():
        if tensor.layout is not torch.strided or tensor.is_nested:
            new = tensor.detach().clone()
        elif tensor.dtype is torch.bool:
            new = ~resized(tensor, axes)
        elif tensor.is_floating_point() or tensor.is_complex():
            new = torch.randn_like(resized(tensor, axes))
        else:
            new = (resized(tensor, axes) + 1) // 2
    return new.requires_grad_(tensor.requires_grad)


@dataclass
class Run:
    """The record of one run."""

    events: list[Event]
    modules: list[nn.Module] = field(default_factory=list)
    output: Any = None
    error: BaseException | None = None
    seconds: float = 0.0  # of the processor
    real: bool = False  # with values

    @functools.cached_property
    def keys(self) -> list[tuple]:
        """A key for each row that holds at other sizes too."""
        counts: collections.Counter[tuple] = collections.Counter()
        return [event_key(event, counts) for event in self.events]

    @functools.cached_property
    def shapes(self) -> dict[tuple, tuple]:
        """The shape of each tensor, by row, side and path."""
        return {
            (key, side, leaf.path): leaf.shape
            for key, event in zip(self.keys, self.events, strict=True)
            for side, leaves in enumerate((event.inputs, event.outputs))
            for leaf in leaves
        }

    @functools.cached_property
    def sizes(self) -> dict[Slot, Any]:
        return {(*place, axis): size for place, shape in self.shapes.items() for axis, size in enumerate(shape)}

    def forget(self, other: Run) -> None:
        """Make the sizes unknown in which another run differs."""
        sizes = other.sizes
        for key, event in zip(self.keys, self.events, strict=True):
            for side, leaves in enumerate((event.inputs, event.outputs)):
                for i, leaf in enumerate(leaves):
                    seen = (sizes.get((key, side, leaf.path, axis), size) for axis, size in enumerate(leaf.shape))
                    shape = tuple(a if a is b or a == b else None for a, b in zip(leaf.shape, seen, strict=True))
                    leaves[i] = leaf._replace(shape=shape)

    def kept(self, keys: dict[tuple, tuple]) -> Run:
        """Keep the shapes alone, no tensors; `keys`, of rows, tensors and shapes, are shared by all runs."""
        self.keys = [keys.setdefault(key, key) for key in self.keys]
        plain = all(type(size) is int for shape in self.shapes.values() for size in shape)
        shapes = self.shapes.items()
        self.shapes = {keys.setdefault(p, p): keys.setdefault(s, s) if plain else s for p, s in shapes}
        self.events, self.output = [], None
        error = self.error
        while error is not None and error is not sys.exc_info()[1]:  # an error that the caller handles stays whole
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
        return self

    def forget_rows(self) -> None:
        self.keys, self.shapes = [], {}

    @property
    def raised_at(self) -> Place:
        return None if self.error is None else raised_at(self.error.__traceback__)


def event_key(event: Event, counts: collections.Counter[tuple]) -> tuple:
    """Return the key of the next event of a run."""
    key = (event.kind, event.path, event.call, event.name, event.place)
    counts[key] += 1
    return *key, counts[key]


class Model:
    """A callable with its inputs, to be run repeatedly."""

    def __init__(self, fn: Callable | None, inputs: Inputs, builder: Callable[[], Callable] | None = None):
        self.fn, self.inputs, self.builder = fn, inputs, builder
        self.modules = modules_of(fn, inputs.args, inputs.kwargs) if fn is not None else {}
        self.fake: Fake | None = None
        self.given: Run | None = None
        holders = [(f.__globals__, dict(referred("", f, 0)), dict(vars(type(fn)))) for f in called(fn)]
        self.scopes = {id(scope): scope for scopes in holders for scope in scopes}
        self._held: tuple[tuple[int, int], State] | None = None
        self._keys: dict[tuple, tuple] = {}
        self.without_grad = True  # further runs need no gradients, which take time
        self.known: list[nn.Module] = [part for module in self.modules.values() for _, part in parts_of(module)]

    @property
    def name(self) -> str:
        return type(self.fn).__name__ if isinstance(self.fn, nn.Module) else getattr(self.fn, "__name__", str(self.fn))

    @property
    def is_lazy(self) -> bool:
        return any(nn.parameter.is_lazy(p) for module in self.known for p in module._parameters.values())

    def enter_fake(self) -> Fake:
        """Return the fake context of this model, built if needed."""
        if self.fake is None:
            self.fake = Fake(own_frame)
            if self.builder is not None:
                with self.fake.running():
                    self.fn = self.builder()
                self.modules = modules_of(self.fn, (), {})
        return self.fake

    def as_given(self, stats: bool, timed: bool) -> Run:
        self.given = self._recorded(self.inputs.args, self.inputs.kwargs, Recorder(self.modules, stats, timed))
        return self.given

    def at(
        self,
        sizes: Sizes,
        real: bool = False,
        other_values: bool = False,
        light: bool = True,
        **options: Any,
    ) -> Run:
        """Run at other sizes or with symbols; restore the model. See `Recorder` for `light` and `options`."""
        symbolic = any(not isinstance(size, int) for size in sizes.values())
        fake = None if real else self.enter_fake()
        with preserved(self._state(real)):
            args, kwargs = self.inputs.made(sizes, (revalued if other_values else resized) if real else fake.like)
            quiet = self.without_grad and torch.is_grad_enabled() and not real
            with nullcontext() if real else fake.running(symbolic), torch.no_grad() if quiet else nullcontext():
                run = self._recorded(args, kwargs, Recorder(self.modules, world=fake, light=light, **options))
        if quiet and not symbolic and self.given and sizes == self.inputs.sizes and run.keys != self.given.keys:
            self.without_grad = False  # it takes another path, or fails
            return self.at(sizes, real, other_values, light, **options)
        return run.kept(self._keys) if light else run

    def _state(self, values: bool) -> State:
        """The contents of the modules, which each further run leaves as they are."""
        if values:
            return State(self.known, values, self.scopes.values())
        count = len(self.known), len(self.scopes)
        if self._held is None or self._held[0] != count:
            self._held = count, State(self.known, values, self.scopes.values())
        return self._held[1]

    def _recorded(self, args: tuple, kwargs: Mapping[str, Any], recorder: Recorder) -> Run:
        run, begun = Run(recorder.events, real=recorder.world is None), time.process_time()
        with recorder.running():
            try:
                if isinstance(self.fn, nn.Module):
                    run.output = _drawn(self.fn(*args, **kwargs))
                else:
                    inputs = [(self.inputs.name(i), value) for i, value in enumerate(args)]
                    call = functools.partial(self.fn, *args, **kwargs)
                    run.output = recorder.call(self.name, lambda: _drawn(call()), [*inputs, *kwargs.items()])
            except Exception as error:
                run.error = error
        run.modules, run.seconds = recorder.held, time.process_time() - begun
        known = set(map(id, self.known))
        self.known += [module for module in recorder.held if id(module) not in known]
        return run


def _drawn(output: Any) -> Any:
    """The items of a generator as a list."""
    return list(output) if isinstance(output, types.GeneratorType) else output
