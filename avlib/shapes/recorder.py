"""The record of one run: modules, operations, and lines of own code."""

from __future__ import annotations

import dataclasses
import linecache
import math
import os
import re
import sys
import sysconfig
import threading
import time
import weakref
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from . import fake
from .measuring import Work, no_work, repeated, statistics_of, work_of
from .rows import Source, relative
from .shortcuts import Stopped, shortcut

Place = tuple[str, int] | None  # file and line

# A tensor at the moment of recording. `shape` may hold symbols; `identity` is the same number for the same tensor.
Leaf = namedtuple("Leaf", "path shape dtype device statistics identity")

DEPTH = 6  # how deep an object of an unknown class is searched for tensors
VIEWS = {"T", "H", "mT", "mH", "real", "imag"}  # attributes that are operations
QUESTIONS = {"__bool__", "equal", "allclose", "is_nonzero", "__contains__", "item", "__float__"}  # about values
SILENT = {"requires_grad_", "_set_grad_enabled", "register_hook", "retain_grad"}
_nothing = nullcontext()
_PLAIN = (type(None), bool, int, float, complex, str, bytes, slice, type(...))
_TORCHS = (torch.dtype, torch.device, torch.Size, torch.SymInt, torch.SymFloat, torch.SymBool, torch.Generator)
ATOMS = (*_PLAIN, *_TORCHS)  # classes that hold no tensors
_CLOSED = (*ATOMS, nn.Module, type)  # classes whose attributes are not searched


class Limit(namedtuple("Limit", "until bytes")):
    """The process time at which a run ends, and the most bytes of one output."""

    def check(self, outputs: Sequence[Leaf]) -> None:
        if time.process_time() > self.until:
            raise Stopped("it took too long")
        if self.bytes and bytes_of(outputs) > self.bytes:
            raise Stopped("it took too much memory")


def bytes_of(leaves: Sequence[Leaf]) -> int:
    """Return the bytes of the largest of some tensors."""
    whole = [leaf for leaf in leaves if all(isinstance(size, int) for size in leaf.shape)]
    return max((math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in whole), default=0)


class Event:
    """One recorded module call or operation."""

    # fmt: off
    __slots__ = (
        "call", "depth", "error", "fresh", "function", "index", "inputs", "kind", "module", "name", "outputs", "parent",
        "path", "place", "seconds", "started", "weights", "work",
    )
    # fmt: on

    def __init__(self, kind: str, path: str, call: int, name: str, parent: Event | None, index: int):
        self.kind, self.path, self.call, self.name, self.parent, self.index = kind, path, call, name, parent, index
        self.depth = 0 if parent is None else parent.depth + 1
        self.place: Place = None
        self.inputs: list[Leaf] = []
        self.outputs: list[Leaf] = []
        self.module: nn.Module | None = None
        self.function: Any = None  # of an operation
        self.work: Work | None = None
        self.weights: list[nn.Parameter] = []  # of the module, or taken by an operation
        self.fresh = True
        self.seconds = self.started = None
        self.error: str | None = None


def fields_of(value: Any) -> list[str]:
    """Return the attributes of an object that may hold tensors."""
    if isinstance(value, _CLOSED) or callable(value):
        return []
    if dataclasses.is_dataclass(value) and (names := [f.name for f in dataclasses.fields(value)]):
        return names
    return [name for name in getattr(value, "__dict__", ()) if not name.startswith("__")]


def tensors_in(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a nest with their paths: "hidden_states[3]"."""
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
    else:
        for name in fields_of(value):
            yield from tensors_in(getattr(value, name, None), f"{path}.{name}" if path else name, depth + 1)


def parts_of(module: nn.Module, name: str = "", seen: set | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules in a module with their paths; it may have attributes that hide torch's own methods."""
    seen = set() if seen is None else seen
    if id(module) not in seen:
        seen.add(id(module))
        yield name, module
        for inner, part in module._modules.items():
            if part is not None:
                yield from parts_of(part, f"{name}.{inner}" if name else inner, seen)


def _weights_of(module: nn.Module) -> Iterator[nn.Parameter]:
    """Its own parameters, with those of lists of parameters, and of all that a script hides."""
    yield from (value for value in module._parameters.values() if value is not None)
    for part in module._modules.values():
        if fake.is_script(module) or isinstance(part, nn.ParameterList | nn.ParameterDict):
            yield from _weights_of(part)


class Recorder:
    """Records the modules and operations of one thread without changing them.

    Args:
        modules: the modules to hook, by name; others are found when they are called, without their keyword arguments.
        timed: measure the seconds of each row.
        replace: in symbolic runs, returns the tensor that takes the place of an operation's output.
        light: record shapes and places alone, neither weights and work nor which outputs are new.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        stats: bool = False,
        timed: bool = False,
        replace: Callable[[Event, Any], Any] | None = None,
        world: fake.Fake | None = None,
        limit: Limit | None = None,
        answer: Callable[[str, Any], Any] | None = None,
        light: bool = False,
    ):
        self.events: list[Event] = []
        self.stats, self.timed, self.replace, self.world, self.limit = stats, timed, replace, world, limit
        self.light = light
        self.answer = answer  # takes a name and a number or truth that is read from values
        self.paths: dict[int, str] = {}
        self.held: list[nn.Module] = []  # kept alive, so that no id is used twice
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
        self._thread = threading.get_ident()
        try:
            # A compiled module warns of hooks on all modules; its own modules are known anyway.
            if not any("_orig_mod" in part._modules for module in self._first.values() for _, part in parts_of(module)):
                self._handles.append(register_module_forward_pre_hook(self._unknown_begins))
                self._handles.append(register_module_forward_hook(self._script_ends, always_call=True))
            for name, module in self._first.items():
                self.adopt(module, name)
            with fake.uncompiled(), self._mode:
                yield self
        finally:
            while self._handles:
                self._handles.pop().remove()
            while self._open:
                self._open.pop().error = "not finished"

    def adopt(self, module: nn.Module, name: str) -> None:
        for inner, part in parts_of(module, name):
            if id(part) in self.paths:
                continue
            self.paths[id(part)] = ".".join(word for word in inner.split(".") if word != "_orig_mod")
            self.held.append(part)
            if fake.is_script(part):
                continue  # it takes no hooks of its own; the hook on all modules sees it
            self._handles.append(part.register_forward_pre_hook(self._begins, with_kwargs=True))
            self._handles.append(part.register_forward_hook(self._ends, always_call=True))

    @property
    def inside(self) -> Event | None:
        return self._open[-1] if self._open else None

    def _unknown_begins(self, module: nn.Module, args: tuple) -> None:
        if threading.get_ident() != self._thread or (id(module) in self.paths and not fake.is_script(module)):
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
        with fake.unseen():
            self._calls[id(module)] += 1
            path = self.paths[id(module)]
            event = self._begun("module", path, self._calls[id(module)], type(module).__name__)
            event.module = module
            if not self.light:
                event.work = no_work if not fake.is_script(module) else None
                event.weights = list(_weights_of(module))
            event.place = calling_line(3)
            event.inputs = self._leaves((*((f"[{i}]", value) for i, value in enumerate(args)), *kwargs.items()))
            self._open.append(event)
            event.error = sys.exc_info()[1]  # an exception that is being handled already is no error of this module
            event.started = self._now()

    def _script_ends(self, module: nn.Module, args: tuple, output: Any) -> None:
        if fake.is_script(module):
            self._ends(module, args, output)

    def _ends(self, module: nn.Module, args: tuple, output: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        place = next((i for i in reversed(range(len(self._open))) if self._open[i].module is module), None)
        if place is None:
            return
        with fake.unseen():
            raised = sys.exc_info()[1]
            while len(self._open) > place:
                event = self._open.pop()
                before, event.error = event.error, None
                if raised is not None and raised is not before:
                    event.error = error_text(raised)  # a hook that always runs sees None instead of an output
            if event.error is None:
                event.outputs = self._leaves((("", output),))
            self._stop(event)

    def call(self, name: str, run: Callable[[], Any], inputs: Sequence[tuple[str, Any]]) -> Any:
        """Run a callable that is no module, and record it as one."""
        with fake.unseen():
            event = self._begun("module", "", 1, name)
            event.work = no_work
            event.inputs = self._leaves(inputs)
            self._open.append(event)
            event.started = self._now()
        try:
            output = run()
            with fake.unseen():
                event.outputs = self._leaves((("", output),))
            return output
        except BaseException as error:
            event.error = error_text(error)
            raise
        finally:
            while event in self._open:
                self._open.pop()
            self._stop(event)

    def operation(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run an operation, and record it if it concerns shapes."""
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
            with fake.unseen():
                do, given, named = self.world.scalars.prepared(function, name, args, kwargs)
                if do is function:
                    do = fake.recurrent(name, given) or shortcut(self.world, name, given, named) or do
        try:
            with self.world.doing(name) if self.world is not None else _nothing:
                output = do(*given, **named)
        except Exception as error:
            if self.world is not None and name == "__setitem__" and self.world.lacks_values(error):
                return None  # it changes no shape
            with fake.unseen():
                event = self._operation(function, name, args, kwargs)
                event.error = error_text(error)
            raise
        if not isinstance(output, Tensor | tuple | list) and name != "__setitem__":
            read = self.answer is not None and (name in QUESTIONS and isinstance(output, bool | float))
            return self.answer(name, output) if read else output  # a size, a flag, a number
        with fake.unseen():
            outputs = self._leaves((("", output),))
            if not outputs and name != "__setitem__":
                return output
            event = self._operation(function, name, args, kwargs)
            event.outputs = outputs
            if self.limit is not None:
                self.limit.check(outputs)
            event.fresh = self.light or self._is_fresh(output, args, kwargs)
            if started is not None:
                event.started = started
                self._stop(event)
            if self.replace is not None:
                output = self.replace(event, output)
        return output

    def _operation(self, function: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Event:
        inside = self.inside
        path, call = (inside.path, inside.call) if inside is not None else ("", 1)
        event = self._begun("op", path, call, name)
        event.function = function
        event.place = calling_line(3)
        event.inputs = self._leaves((*((f"[{i}]", value) for i, value in enumerate(args)), *kwargs.items()))
        if not self.light:
            event.work = work_of(function, name, args, kwargs, [leaf.path for leaf in event.inputs])
            event.weights = [value for value in (*args, *kwargs.values()) if isinstance(value, nn.Parameter)]
        if hidden := fake.hidden_axes((*args, *kwargs.values())):
            event.inputs.append(Leaf("vmap", hidden, torch.int64, torch.device("cpu"), None, None))
            event.work = partial(repeated, event.work) if not self.light else None
        return event

    def _begun(self, kind: str, path: str, call: int, name: str) -> Event:
        event = Event(kind, path, call, name, self.inside, len(self.events))
        self.events.append(event)
        return event

    def _leaves(self, values: Sequence[tuple[str, Any]]) -> list[Leaf]:
        found = []
        for path, value in values:
            if isinstance(value, Tensor):
                found.append(self._leaf(path, value))
            elif not isinstance(value, ATOMS):
                found.extend(self._leaf(inner, tensor) for inner, tensor in tensors_in(value, path))
        return found

    def _leaf(self, path: str, tensor: Tensor) -> Leaf:
        if self.light:
            return Leaf(path, fake.shape_of(tensor), tensor.dtype, None, None, None)
        known = self._tensors.get(id(tensor))
        if known is None or known[0]() is not tensor:  # a tensor that is gone may have had the same id
            self._numbered += 1
            known = self._tensors[id(tensor)] = weakref.ref(tensor), self._numbered
        statistics = statistics_of(tensor) if self.stats else None
        return Leaf(path, fake.shape_of(tensor), tensor.dtype, tensor.device, statistics, known[1])

    @staticmethod
    def _is_fresh(output: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
        if isinstance(output, Tensor) and output._base is None and not output.is_inference():
            return not any(output is value for value in args)  # no view at all: the usual case, and fast
        made = {fake.memory(tensor) for _, tensor in tensors_in(output)}
        return made.isdisjoint(fake.memory(tensor) for _, tensor in tensors_in((args, kwargs)))

    def _now(self) -> float | None:
        if not self.timed:
            return None
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _stop(self, event: Event) -> None:
        if event.started is not None:
            event.seconds = self._now() - event.started


class _Mode(TorchFunctionMode):
    """Passes operations to a recorder."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.recorder.operation(func, args, kwargs or {})


def error_text(error: BaseException) -> str:
    """Return the class and the first line of the message."""
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _name_of(function: Any) -> str:
    """The name of a row; empty for what is no operation."""
    name = getattr(function, "__name__", None) or str(function)
    if name == "__get__":
        attribute = getattr(function.__self__, "__name__", "")
        return attribute if attribute in VIEWS else ""
    return "" if name in SILENT or name in ("__set__", "__delete__") else name


def _attribute_of(parent: nn.Module, module: nn.Module) -> str | None:
    """The attribute that holds a module which is not registered: `layers[2]`."""
    for name, value in vars(parent).items():
        if value is module:
            return name
        if isinstance(value, dict | list | tuple) and not name.startswith("_"):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if item is module:
                    return f"{name}[{key!r}]"
    return None


# Packages between a model and torch: what they do counts for the line that called them.
HELPERS = {
    *("accelerate", "beartype", "einops", "jaxtyping", "lightning", "opt_einsum", "peft", "pytorch_lightning"),
    *("torch", "typeguard"),
}
_PACKAGES = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(torch.__file__).parents[1])}
_LIBRARY = sysconfig.get_path("stdlib")
_HERE = str(Path(__file__).parent)
_CELL = re.compile(r"ipykernel_\d+[\\/][^\\/]+\.py$|\bipython-input-(?P<number>\d+)-")
_known: dict[str, bool] = {}


def is_own(code: CodeType) -> bool:
    """Return True for code of the user or a model."""
    own = _known.get(code.co_filename)
    if own is None:
        own = _known[code.co_filename] = _is_own(code.co_filename)
    return own


def _is_own(file: str) -> bool:
    if file.startswith((_HERE + os.sep, "<frozen ", "<@beartype")):
        return False
    for folder in _PACKAGES:
        if file.startswith(folder + os.sep):
            package = file[len(folder) + 1 :].split(os.sep, 1)[0].removesuffix(".py")
            return package not in HELPERS
    return not file.startswith(_LIBRARY + os.sep)


def own_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of own code, from a frame outwards."""
    while frame is not None and not is_own(frame.f_code):
        frame = frame.f_back
    return frame


def calling_line(depth: int = 2) -> Place:
    """Return file and line of the own code that called."""
    frame = own_frame(sys._getframe(depth))
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def source_of(place: Place) -> Source | None:
    """Return a place with the present text of its line."""
    return None if place is None else Source(file_name(place[0]), place[1], linecache.getline(*place).strip())


def file_name(file: str) -> str:
    """Return the name of a file; a notebook's cell is `cell [3]`."""
    found = _CELL.search(file)
    if found is None:
        return file
    number = found["number"]
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    formatted = getattr(getattr(ipython, "compile", None), "format_code_name", lambda file: None)(file)
    if formatted and (label := re.search(r"In ?\[(\d+)\]", formatted[1])):  # as in tracebacks: ("Cell", "In[3]")
        number = label[1]
    return f"cell [{number}]" if number else "<cell>"


def at_line(place: Place) -> str:
    """Return ` at net.py:3`; empty without a place."""
    return f" at {relative(file_name(place[0]))}:{place[1]}" if place is not None else ""


def raised_at(trace: TracebackType | None) -> Place:
    """Return the innermost own line that an error went through."""
    part = raising(trace)
    return None if part is None else (part.tb_frame.f_code.co_filename, part.tb_lineno)


def raising(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback's part in the innermost own code."""
    found = None
    while trace is not None:
        if is_own(trace.tb_frame.f_code):
            found = trace
        trace = trace.tb_next
    return found
