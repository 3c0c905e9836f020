"""Sees every call of a module and every operation while a model runs, and changes nothing about either."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
import weakref
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from . import frames, internals
from .flops import Work, work_of
from .shims import recurrent
from .values import Look

# A tensor at the moment when it was seen. `shape` may hold symbols; `look` is what was asked about its values.
# `identity` is the same number for the same tensor.
Leaf = namedtuple("Leaf", "path shape dtype device look identity")

DEPTH = 6  # how deep an object of an unknown class is searched for tensors
VIEWS = {"T", "H", "mT", "mH", "real", "imag"}  # attributes that are operations
SILENT = {"requires_grad_", "_set_grad_enabled", "register_hook", "retain_grad"}
_nothing = nullcontext()
_PLAIN = (type(None), bool, int, float, complex, str, bytes, slice, type(...))
_TORCHS = (torch.dtype, torch.device, torch.Size, torch.SymInt, torch.SymFloat, torch.SymBool, torch.Generator)
ATOMS = (*_PLAIN, *_TORCHS)  # what holds no tensors


class Event:
    """One call of a module, or one operation, as it was recorded."""

    # fmt: off
    __slots__ = (
        "call", "depth", "error", "fresh", "function", "index", "inputs", "kind", "module", "name", "outputs", "parent",
        "path", "place", "seconds", "started", "work",
    )
    # fmt: on

    def __init__(self, kind: str, path: str, call: int, name: str, parent: Event | None, index: int):
        self.kind, self.path, self.call, self.name, self.parent, self.index = kind, path, call, name, parent, index
        self.depth = 0 if parent is None else parent.depth + 1
        self.place: tuple[str, int] | None = None
        self.inputs: list[Leaf] = []
        self.outputs: list[Leaf] = []
        self.module: nn.Module | None = None
        self.function: Any = None  # of an operation
        self.work: Work | None = None
        self.fresh = True
        self.seconds = self.started = None
        self.error: str | None = None


def tensors_in(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nest, each with its path: "hidden_states[3]", "batch.audio", "" for a tensor by itself."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, ATOMS) or depth > DEPTH:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            yield from tensors_in(item, inner if isinstance(key, str) else f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        for i, item in enumerate(value):
            inner = f"[{i}]" if names is None else f".{names[i]}" if path else names[i]
            yield from tensors_in(item, path + inner, depth + 1)
    elif not isinstance(value, nn.Module | type) and not callable(value):
        fields = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else ()
        for name in fields or [name for name in getattr(value, "__dict__", ()) if not name.startswith("__")]:
            yield from tensors_in(getattr(value, name, None), f"{path}.{name}" if path else name, depth + 1)


class Recorder:
    """Records the modules and operations of one thread between `start` and `stop`.

    Args:
        modules: which to hook before they are called, by name. Others are found when they are called; of these the
            arguments that are given by name are not seen the first time.
        look: what to find out of the values of each tensor.
        timed: measure the seconds of each row.
        replace: for runs with symbols: may give another tensor in the place of an operation's output.
        world: of fake tensors, that the run is in.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        look: Look | None = None,
        timed: bool = False,
        replace: Callable[[Event, Any], Any] | None = None,
        world: internals.Fake | None = None,
    ):
        self.events: list[Event] = []
        self.look, self.timed, self.replace, self.world = look, timed, replace, world
        self.paths: dict[int, str] = {}
        self.held: list[nn.Module] = []  # so that no id is given to another module meanwhile
        self._calls: Counter[int] = Counter()
        self._open: list[Event] = []
        self._handles: list[Any] = []
        self._names: dict[Any, str] = {}
        self._tensors: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._numbered = 0
        self._thread = 0
        self._mode = _Mode(self)
        self._first = dict(modules)

    @contextmanager
    def running(self) -> Iterator[Recorder]:
        """Record what is done inside."""
        self._thread = threading.get_ident()
        try:
            # A compiled module warns of hooks on all modules; those in it are known anyway.
            if not any("_orig_mod" in part._modules for module in self._first.values() for part in module.modules()):
                self._handles.append(register_module_forward_pre_hook(self._unknown_begins))
            for name, module in self._first.items():
                self.adopt(module, name)
            with internals.uncompiled(), self._mode:
                yield self
        finally:
            while self._handles:
                self._handles.pop().remove()
            while self._open:
                self._open.pop().error = "not finished"

    def adopt(self, module: nn.Module, name: str) -> None:
        """Hook a module and all in it."""
        for inner, part in module.named_modules(prefix=name):
            if id(part) in self.paths:
                continue
            self.paths[id(part)] = ".".join(word for word in inner.split(".") if word != "_orig_mod")
            self.held.append(part)
            if internals.is_script(part):
                continue  # takes no hooks of its own; that on all modules sees it
            self._handles.append(part.register_forward_pre_hook(self._begins, with_kwargs=True))
            self._handles.append(part.register_forward_hook(self._ends, always_call=True))

    @property
    def inside(self) -> Event | None:
        return self._open[-1] if self._open else None

    # modules

    def _unknown_begins(self, module: nn.Module, args: tuple) -> None:
        if threading.get_ident() != self._thread or (id(module) in self.paths and not internals.is_script(module)):
            return
        inside = self.inside
        name = type(module).__name__
        if inside is not None and inside.module is not None:
            name = ".".join(filter(None, (inside.path, _attribute_of(inside.module, module) or name)))
        self.adopt(module, name)
        self._begins(module, args, {})  # its own hook is too late for this call

    def _begins(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        with internals.unseen():
            self._calls[id(module)] += 1
            path = self.paths[id(module)]
            event = self._begun("module", path, self._calls[id(module)], type(module).__name__)
            event.module, event.work = module, _no_work if not internals.is_script(module) else None
            event.place = frames.place(3)
            event.inputs = self._leaves((*((f"[{i}]", value) for i, value in enumerate(args)), *kwargs.items()))
            self._open.append(event)
            event.error = sys.exc_info()[1]  # what is being handled already is no error of this module
            event.started = self._now(event.inputs)

    def _ends(self, module: nn.Module, args: tuple, output: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        place = next((i for i in reversed(range(len(self._open))) if self._open[i].module is module), None)
        if place is None:
            return
        with internals.unseen():
            raised = sys.exc_info()[1]
            while len(self._open) > place:
                event = self._open.pop()
                before, event.error = event.error, None
                if raised is not None and raised is not before:
                    event.error = _told(raised)  # a hook that always runs sees None instead of an output
            if event.error is None:
                event.outputs = self._leaves((("", output),))
            self._timed(event)

    @contextmanager
    def calling(self, name: str, args: tuple, kwargs: Mapping[str, Any], names: Sequence[str]) -> Iterator[Event]:
        """A row for a callable that is no module; its output is to be given to `returned`."""
        with internals.unseen():
            event = self._begun("module", "", 1, name)
            event.work = _no_work
            event.inputs = self._leaves((*zip(names, args, strict=True), *kwargs.items()))
            self._open.append(event)
            event.started = self._now(event.inputs)
        try:
            yield event
        except BaseException as error:
            event.error = _told(error)
            raise
        finally:
            while event in self._open:
                self._open.pop()
            self._timed(event)

    def returned(self, event: Event, output: Any) -> None:
        with internals.unseen():
            event.outputs = self._leaves((("", output),))

    # operations

    def operation(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Do an operation, and record it where it takes or gives tensors that have a shape of their own."""
        if self.world is not None and (kept := self.world.keep_real(function, args, kwargs)) is not None:
            args, kwargs, output = kept
            if output is not None:
                return output
        name = self._names.get(function)
        if name is None:
            name = self._names[function] = _name_of(function)
        if not name:
            return function(*args, **kwargs)
        started = self._now() if self.timed else None
        do, given, named = function, args, kwargs
        if self.world is not None:
            with internals.unseen():
                do, given, named = self.world.scalars.prepared(function, name, args, kwargs)
                do = recurrent(name, args) or do
        try:
            with self.world.doing(name) if self.world is not None else _nothing:
                output = do(*given, **named)
        except Exception as error:
            if self.world is not None and name == "__setitem__" and self.world.lacks_values(error):
                return None  # it changes no shape
            with internals.unseen():
                event = self._operation(function, name, args, kwargs)
                event.error = _told(error)
            raise
        if not isinstance(output, Tensor | tuple | list) and name != "__setitem__":
            return output  # a size, a flag, a number
        with internals.unseen():
            outputs = self._leaves((("", output),))
            if not outputs and name != "__setitem__":
                return output
            event = self._operation(function, name, args, kwargs)
            event.outputs = outputs
            event.fresh = self._is_fresh(output, args, kwargs)
            if started is not None:
                event.started = started
                self._timed(event)
            if self.replace is not None:
                output = self.replace(event, output)
        return output

    def _operation(self, function: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Event:
        inside = self.inside
        path, call = (inside.path, inside.call) if inside is not None else ("", 1)
        event = self._begun("op", path, call, name)
        event.function = function
        event.place = frames.place(3)
        event.inputs = self._leaves((*((f"[{i}]", value) for i, value in enumerate(args)), *kwargs.items()))
        event.work = work_of(function, name, args, kwargs, [leaf.path for leaf in event.inputs])
        return event

    # both

    def _begun(self, kind: str, path: str, call: int, name: str) -> Event:
        event = Event(kind, path, call, name, self.inside, len(self.events))
        self.events.append(event)
        return event

    def _leaves(self, values: tuple[tuple[str, Any], ...]) -> list[Leaf]:
        found = []
        for path, value in values:
            if isinstance(value, Tensor):
                found.append(self._leaf(path, value))
            elif not isinstance(value, ATOMS):
                found.extend(self._leaf(inner, tensor) for inner, tensor in tensors_in(value, path))
        return found

    def _leaf(self, path: str, tensor: Tensor) -> Leaf:
        shape = tuple(tensor.shape)
        look = self.look(tensor) if self.look else None
        return Leaf(path, shape, tensor.dtype, tensor.device, look, self._identity(tensor))

    def _identity(self, tensor: Tensor) -> int:
        known = self._tensors.get(id(tensor))
        if known is None or known[0]() is not tensor:  # the id of one that is gone may be that of another
            self._numbered += 1
            known = self._tensors[id(tensor)] = weakref.ref(tensor), self._numbered
        return known[1]

    @staticmethod
    def _is_fresh(output: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
        """Whether an operation made new memory: its output is neither an input nor a view of one."""
        if isinstance(output, Tensor) and output._base is None and not output.is_inference():
            return not any(output is value for value in args)  # no view at all; the usual case is a quick one
        made = {internals.memory(tensor) for _, tensor in tensors_in(output)}
        return made.isdisjoint(internals.memory(tensor) for _, tensor in tensors_in((args, kwargs)))

    def _now(self, leaves: list[Leaf] | None = None) -> float | None:
        if not self.timed:
            return None
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _timed(self, event: Event) -> None:
        if event.started is not None:
            event.seconds = self._now() - event.started


class _Mode(TorchFunctionMode):
    """Shows operations to a recorder."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.recorder.operation(func, args, kwargs or {})


def _no_work(inputs, outputs) -> int:
    """Modules do nothing beside the operations inside them."""
    return 0


def _told(error: BaseException) -> str:
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _name_of(function: Any) -> str:
    """What a row is called; empty for what is no operation."""
    name = getattr(function, "__name__", None) or str(function)
    if name == "__get__":
        attribute = getattr(function.__self__, "__name__", "")
        return attribute if attribute in VIEWS else ""
    if name in SILENT or name in ("__set__", "__delete__"):
        return ""
    return name


def _attribute_of(parent: nn.Module, module: nn.Module) -> str | None:
    """Under which attribute a module that is not registered hangs: `layers[2]`."""
    for name, value in vars(parent).items():
        if value is module:
            return name
        if isinstance(value, dict | list | tuple) and not name.startswith("_"):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if item is module:
                    return f"{name}[{key!r}]"
    return None
