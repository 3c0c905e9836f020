"""Runs on tensors without values, by torch's private parts.

Torch changes these parts without notice. Where they are missing or behave otherwise, `AVAILABLE` is False or a run
fails, and formulas come from runs at several sizes alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import operator
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from .formula import Formula
from .notation import rounded32

try:
    from torch._dispatch.python import enable_python_dispatcher
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

    from .symbols import Env, Guard, Node

    AVAILABLE = True
except ImportError:  # pragma: no cover
    AVAILABLE = False
    FakeTensor, FakeTensorMode, Env, Guard = (), None, object, object

# A function mode sees attributes too; inside this context nothing does. Public in torch's notes on extending it.
unseen = torch._C.DisableTorchFunction

_IN_PLACE = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
# Errors of a run that needs values, by class and by message.
_KINDS = ("DataDependent", "DynamicOutputShape", "UnsupportedFakeTensor", "UnsupportedOperator", "MetadataMismatch")
_MESSAGES = ("numpy() is not supported", "data pointer", "Cannot copy out of meta", "item() cannot be called on meta")


class Fake:
    """A context of tensors without values, whose sizes may be symbols.

    `user_frame` finds, from a frame outwards, the frame of the user's or the model's own code.
    """

    def __init__(self, user_frame: Callable[[FrameType | None], FrameType | None]):
        if not AVAILABLE:
            raise ParameterError("fake", f"not possible with torch {torch.__version__}", "fake=False")
        self.env = Env(user_frame)
        self.mode = self.env.mode = FakeTensorMode(
            shape_env=self.env, allow_non_fake_inputs=True, allow_fallback_kernels=False
        )
        self.scalars = Scalars()
        self.views = True  # may the output of a view be a tensor of its own

    @contextlib.contextmanager
    def running(self, symbolic: bool = False) -> Iterator[None]:
        """Make tensors fake; with `symbolic`, composite operations keep symbols too."""
        loggers = [logging.getLogger(f"torch.{name}") for name in ("_subclasses.fake_tensor", "fx.experimental")]
        loggers += [logging.getLogger(f"torch.fx.experimental.{name}") for name in ("symbolic_shapes", "recording")]
        before = [logger.disabled for logger in loggers]
        for logger in loggers:
            logger.disabled = True  # a failed run is expected, and reported by us
        self.mode.cache_enabled = not symbolic
        self.scalars.clear()
        try:
            with enable_python_dispatcher() if symbolic else contextlib.nullcontext(), unchecked(), self.mode:
                yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled

    @contextlib.contextmanager
    def doing(self, name: str) -> Iterator[None]:
        """Run an operation; a truth value of a tensor is not assumed."""
        self.env.deciding = name == "__bool__"
        try:
            yield
        finally:
            self.env.deciding = False

    @staticmethod
    def keep_real(function: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any], Any] | None:
        """Keep an operation from changing a real tensor; None if none changes.

        Only the shape of such a tensor matters. Returns arguments, keywords, and the output of an operation that
        must not run.
        """
        if kwargs.get("out") is not None and not _all_fake(kwargs["out"]):
            return args, {name: value for name, value in kwargs.items() if name != "out"}, None
        name = getattr(function, "__name__", "")
        changes = name == "__setitem__" or (name.startswith("__i") and name[3:-2] in _IN_PLACE)
        changes = changes or (name.endswith("_") and not name.endswith("__"))
        if name == "__set__":
            changes = getattr(function.__self__, "__name__", "") == "data"
        changed = args[0] if args else kwargs.get("tensor")
        if not changes or name in ("requires_grad_", "retain_grad_") or not isinstance(changed, Tensor):
            return None
        return None if _all_fake(changed) else (args, kwargs, changed)

    @staticmethod
    def lacks_values(error: BaseException) -> bool:
        """Return True if a run failed for lack of values."""
        return any(kind in type(error).__name__ for kind in _KINDS) or any(text in str(error) for text in _MESSAGES)

    @staticmethod
    def formula(size: int | torch.SymInt) -> Formula | None:
        """Return the formula of a size; None if there is none."""
        return Formula(size) if isinstance(size, int) else getattr(size.node, "what", None)

    def like(self, tensor: Tensor, sizes: Mapping[int, int | torch.SymInt]) -> Tensor:
        """Return a fake tensor like a real one, with other sizes."""
        with unseen():
            order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))  # channels last stays so
            shape = [sizes.get(axis, tensor.shape[axis]) for axis in order]
            with self.mode:
                made = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
                back = sorted(range(len(order)), key=order.__getitem__)
                return made.permute(back).requires_grad_(tensor.requires_grad)


def _all_fake(value: Any) -> bool:
    return all(isinstance(item, FakeTensor) for item in (value if isinstance(value, tuple | list) else (value,)))


def is_fake(tensor: Tensor) -> bool:
    """Return True if a tensor has no values."""
    return isinstance(tensor, FakeTensor) or tensor.is_meta


class _WhileAny:
    """A process-wide setting that is restored when no thread needs it."""

    def __init__(self, changed: Callable[[], contextlib.AbstractContextManager]):
        self.changed, self.lock, self.inside, self.stack = changed, threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.stack.enter_context(self.changed())
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if self.inside == 0:
                    self.stack.close()


def _eager() -> contextlib.AbstractContextManager:
    # Unless something has loaded the compiler nothing is compiled, and asking would load it.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def _unchecked() -> Iterator[None]:
    config = getattr(sys.modules.get("jaxtyping"), "config", None)
    before = getattr(config, "jaxtyping_disable", None)
    if before is not None:
        config.jaxtyping_disable = True
    try:
        yield
    finally:
        if before is not None:
            config.jaxtyping_disable = before


uncompiled = _WhileAny(_eager)  # inside a compiled graph nothing can be seen
unchecked = _WhileAny(_unchecked)  # type checkers refuse a symbol for an `int`


def memory(tensor: Tensor) -> int:
    """Return a key of the memory of a tensor."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def shape_of(tensor: Tensor) -> tuple[Any, ...]:
    """Return the sizes of a tensor; None where a nested one has several."""
    if tensor.is_nested and tensor.layout is torch.strided:
        return tensor.size(0), *[None] * (tensor.dim() - 1)
    return tuple(tensor.shape)


def hidden_axes(values: Any) -> tuple[int | torch.SymInt, ...]:
    """Return the sizes of the axes that vmap hides from an operation on these values."""
    functorch, found = torch._C._functorch, {}
    if functorch.peek_interpreter_stack() is None:
        return ()
    for value in _leaves(values):
        while isinstance(value, Tensor) and functorch.is_functorch_wrapped_tensor(value):
            level, inner = functorch.maybe_get_level(value), functorch.get_unwrapped(value)
            if functorch.is_batchedtensor(value):
                found[level] = inner.shape[functorch.maybe_get_bdim(value)]
            value = inner
    return tuple(found[level] for level in sorted(found))


def is_script(module: nn.Module) -> bool:
    """Return True if a module runs outside Python, where nothing is seen."""
    return isinstance(module, torch.jit.ScriptModule)


def recurrent(name: str, args: tuple) -> Callable[..., Any] | None:
    """Return a function for the shapes of a recurrent network, or None."""
    if name not in ("lstm", "gru", "rnn_tanh", "rnn_relu") or len(args) != 9:
        return None

    def shaped(x: Tensor, state: Any, *rest: Any) -> tuple[Tensor, ...]:
        states = state if isinstance(state, tuple | list) else (state,)
        size = states[0].shape[-1] * (2 if rest[5] else 1)
        return x.new_empty((*x.shape[:-1], size)), *(x.new_empty(each.shape) for each in states)

    return shaped if isinstance(args[2], tuple | list) and isinstance(args[0], Tensor) else None


def _quotient(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    return {None: operator.truediv, "floor": operator.floordiv}[rounding_mode](a, b)


_SAME = ("clone", "detach", "contiguous", "squeeze", "to", "int", "long", "float", "double", "type", "cpu", "item")
_ROUNDED = {"ceil": math.ceil, "floor": math.floor, "trunc": math.trunc}
_OPERATORS: dict[str, Callable] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "neg")},
    **{"div": _quotient, "maximum": torch.sym_max, "minimum": torch.sym_min, "max": torch.sym_max},
    **{"min": torch.sym_min, "subtract": operator.sub, "multiply": operator.mul, "divide": _quotient},
    **{"true_divide": operator.truediv, "floor_divide": operator.floordiv, "remainder": operator.mod},
    "negative": operator.neg,
}
_COMPARED = {"eq", "ne", "lt", "le", "gt", "ge", "bool", "index", "abs", "clamp", "pow", "round", "sqrt", "fmod"}
_KNOWN = {*_SAME, *_ROUNDED, *_OPERATORS, *_COMPARED, *(f"r{name}" for name in (*_OPERATORS, "pow"))}
_MADE = {"tensor", "as_tensor", "scalar_tensor"}
SMALL = 64  # tensors of at most so many numbers are read one by one, such as the strides of layers


class Scalars:
    """Single numbers that models hold in tensors, and the symbols behind them.

    So a padding from `torch.ceil(length / self.stride)` has a value at every size, and a formula.
    """

    def __init__(self):
        self._symbols: dict[int, tuple[Tensor, Any]] = {}  # of fake tensors, kept alive so that no id is used twice

    def clear(self) -> None:
        self._symbols.clear()

    def prepared(
        self, function: Callable, name: str, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[Callable, tuple, dict[str, Any]]:
        """Return the operation and arguments to run on such numbers."""
        leaves = list(_leaves((*args, *kwargs.values())))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        symbolic = any(isinstance(leaf, torch.SymInt | torch.SymFloat) for leaf in leaves)
        if symbolic and not tensors and name in _MADE and isinstance(args[0], torch.SymInt | torch.SymFloat):
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
        if name not in ("stack", "cat", "concat", "hstack", "vstack"):
            args = tuple(self._within(value) if isinstance(value, tuple | list | slice) else value for value in args)
            kwargs = {
                key: self._within(value) if isinstance(value, tuple | list) else value for key, value in kwargs.items()
            }
        return function, args, kwargs

    @staticmethod
    def _is_known(tensor: Tensor, most: int = 1) -> bool:
        """Return True for a tensor of a few known, unlearned numbers."""
        if isinstance(tensor, FakeTensor):
            return tensor.constant is not None and tensor.numel() == 1
        plain = type(tensor) in (Tensor, nn.Buffer) and tensor.device.type == "cpu"
        return plain and 0 < tensor.numel() <= most and not tensor.requires_grad

    @staticmethod
    def _number(leaf: Any) -> Any:
        """A real tensor for a tensor, the hint for a symbol."""
        return leaf.constant if isinstance(leaf, FakeTensor) else _hint(leaf)

    def _symbol(self, leaf: Any) -> Any:
        """The symbol of a leaf if it has one, otherwise its number."""
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) in self._symbols:
            return self._symbols[id(leaf)][1]
        with unset_fake_temporarily():
            return self._number(leaf).item()

    def _within(self, value: Any) -> Any:
        """A nest of sizes with numbers in place of tensors."""
        if isinstance(value, slice):
            return slice(*map(self._within, (value.start, value.stop, value.step)))
        if type(value) in (tuple, list):
            return type(value)(map(self._within, value))
        known = isinstance(value, Tensor) and value.dim() == 0 and not value.is_floating_point()
        return self._symbol(value) if known and value.dtype is not torch.bool and self._is_known(value) else value

    def _made_of(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        made = function(_hint(args[0]), *args[1:], **kwargs)
        self._symbols[id(made)] = made, _rounded(args[0], made.dtype)
        return made

    def _computed(self, function: Callable, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        with unset_fake_temporarily():
            numbers = [self._number(value) for value in args]
            result = function(*numbers, **{key: self._number(value) for key, value in kwargs.items()})
            single = isinstance(result, Tensor) and result.numel() == 1
            number = result.item() if single else None
        symbol = self._symbolic(name, args, kwargs)
        is_symbol = isinstance(symbol, torch.SymInt | torch.SymFloat)
        if not single:
            return symbol if name == "item" and is_symbol else result
        made = torch.tensor(number, dtype=result.dtype)
        made = made.reshape(result.shape) if result.shape else made
        if is_symbol:
            self._symbols[id(made)] = made, _rounded(symbol, result.dtype)
        return made

    def _symbolic(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The result with symbols; None if none takes part."""
        leaves = [*args, *kwargs.values()]
        if not any(isinstance(leaf, torch.SymInt | torch.SymFloat) or id(leaf) in self._symbols for leaf in leaves):
            return None
        if name in _SAME:
            return self._symbol(args[0])
        values = [self._symbol(value) for value in args]
        if name in _ROUNDED:
            return _ROUNDED[name](values[0])
        reverse, plain = (False, name) if name in _OPERATORS else (True, name[1:])
        if plain not in _OPERATORS or not kwargs.keys() <= {"rounding_mode"} or kwargs.get("rounding_mode") == "trunc":
            return None
        return _OPERATORS[plain](*(values[::-1] if reverse else values), **kwargs)


def _rounded(symbol: Any, dtype: torch.dtype) -> Any:
    """A symbol as a tensor of a type holds it."""
    if isinstance(symbol, torch.SymInt):
        return symbol
    if not dtype.is_floating_point:
        return torch.sym_int(symbol)
    node = symbol.node
    if dtype is not torch.float32 or node.what is None:
        return symbol
    return torch.SymFloat(Node(node.shape_env, node.value, rounded32(node.what), node.backed))


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
