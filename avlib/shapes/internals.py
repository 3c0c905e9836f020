"""All that is used of torch's private parts: fake tensors, and sizes that are symbols.

Torch changes these without notice. Where they are missing or behave otherwise, `AVAILABLE` is False or a run fails, and
formulas come from running the model at several sizes alone.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from .formula import Formula
from .scalars import Scalars

try:
    import sympy
    from torch._dispatch.python import enable_python_dispatcher
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
    from torch.fx.experimental.symbolic_shapes import DimDynamic, GuardOnDataDependentSymNode, ShapeEnv

    AVAILABLE = True
except ImportError:  # pragma: no cover
    AVAILABLE = False
    FakeTensor, FakeTensorMode, ShapeEnv = (), None, object

# A function mode sees attributes too; inside this context nothing does. Public in torch's notes on extending it.
unseen = torch._C.DisableTorchFunction

_SIGNS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
IN_PLACE = {"__setitem__", *(f"__i{sign}__" for sign in _SIGNS)}  # beside all names that end in one underscore
SEVERAL = 7  # what a number that depends on data is taken for


class Guard(NamedTuple):
    """What a symbolic run took for granted about sizes, and which line made it do so."""

    relation: Any  # of sympy
    file: str
    line: int
    scope: dict[str, Any]  # the globals of that line
    direct: bool  # the line itself compared sizes; otherwise torch did, in an operation that it called


class _Env(ShapeEnv):
    """Sizes that stay symbols, whatever a model compares them with, and a list of what it compared."""

    def __init__(self, user_frame: Callable[[FrameType | None], FrameType | None]):
        super().__init__()
        self.user_frame = user_frame
        self.assumed: list[Guard] = []
        self.deciding = False  # a tensor is being made a truth
        self._answers: dict[Any, Any] = {}

    @staticmethod
    def _asked_by(user: FrameType | None) -> bool:
        """Whether own code, not torch, made a truth or a number of a symbol: by a method of `torch.SymInt` and such."""
        frame, before = sys._getframe(1), None
        while frame is not None and frame is not user:
            frame, before = frame.f_back, frame
        return before is not None and before.f_code.co_filename == torch.__file__

    def evaluate_expr(self, orig_expr, hint=None, *args, **kwargs):
        """What an expression is at the hints.

        Torch would first try to prove it from all that it knows, which takes ten times as long as the rest, and then
        learn from the answer: a symbol that was compared with 1000, only to see whether it is long enough, would be
        1000 from there on. Here nothing is learned, and the question is noted.
        """
        if orig_expr in self._answers:
            return self._answers[orig_expr]
        if orig_expr.is_number or orig_expr in (sympy.true, sympy.false):
            return orig_expr
        user = self.user_frame(sys._getframe(1))
        backed = orig_expr.free_symbols <= self.backed_var_to_val.keys()
        if not backed:
            try:
                return super().evaluate_expr(orig_expr, hint, *args, **kwargs)
            except GuardOnDataDependentSymNode:
                # How many are True in a mask is not known. Torch asks whether it is 1, or enough; it is taken for what
                # it mostly is, several. What a model itself asks about data is another matter: it goes one of two ways.
                if self.deciding or self._asked_by(user):
                    raise
        known = {symbol: self.backed_var_to_val.get(symbol, SEVERAL) for symbol in orig_expr.free_symbols}
        answer = self._answers[orig_expr] = orig_expr.xreplace(known)
        if backed and user is not None:
            relation = orig_expr if answer is sympy.true else sympy.Not(orig_expr) if answer is sympy.false else None
            relation = sympy.Eq(orig_expr, answer) if relation is None else relation
            place = user.f_code.co_filename, user.f_lineno
            self.assumed.append(Guard(relation, *place, user.f_globals, self._asked_by(user)))
        return answer


class Fake:
    """A world in which tensors have sizes and no values; sizes may be symbols.

    Args:
        user_frame: finds, from a frame, the frame of the reader's or the model's own code.

    Raises:
        ParameterError: this torch has no such world that is known here.
    """

    def __init__(self, user_frame: Callable[[FrameType | None], FrameType | None]):
        if not AVAILABLE:
            raise ParameterError("fake", f"not possible with torch {torch.__version__}", "fake=False")
        self.env = _Env(user_frame)
        self.mode = FakeTensorMode(shape_env=self.env, allow_non_fake_inputs=True)
        self.scalars = Scalars(unset_fake_temporarily, FakeTensor)
        self.names: dict[str, str] = {}  # of torch's symbols
        self._read: dict[Any, Formula | None] = {}

    @contextlib.contextmanager
    def running(self, symbolic: bool = False) -> Iterator[None]:
        """Tensors that are made here are fake; with `symbolic`, operations made of others keep symbols too."""
        loggers = [logging.getLogger(f"torch.{name}") for name in ("_subclasses.fake_tensor", "fx.experimental")]
        loggers += [logging.getLogger(f"torch.fx.experimental.{name}") for name in ("symbolic_shapes", "recording")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # a failed run is expected, and reported by us
        self.mode.cache_enabled = not symbolic
        self.scalars.clear()
        try:
            with enable_python_dispatcher() if symbolic else contextlib.nullcontext(), unchecked(), self.mode:
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

    @contextlib.contextmanager
    def doing(self, name: str) -> Iterator[None]:
        """An operation; where it makes a truth of a tensor, no answer is made up."""
        self.env.deciding = name == "__bool__"
        try:
            yield
        finally:
            self.env.deciding = False

    @staticmethod
    def keep_real(function: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any], Any] | None:
        """How to do an operation so that no tensor with values is changed; None where it would change none.

        Models change buffers in place, and give tensors new data. Of a tensor that belongs to the model only the shape
        is wanted here, and that a change in place leaves as it is.

        Returns:
            Arguments, keywords, and the output where the operation is not to be done at all.
        """
        if kwargs.get("out") is not None and not _all_fake(kwargs["out"]):
            return args, {name: value for name, value in kwargs.items() if name != "out"}, None
        name = getattr(function, "__name__", "")
        changes = (name.endswith("_") and not name.endswith("__")) or name in IN_PLACE
        if name == "__set__":
            changes = getattr(function.__self__, "__name__", "") == "data"
        changed = args[0] if args else kwargs.get("tensor")
        if not changes or name in ("requires_grad_", "retain_grad_") or not isinstance(changed, Tensor):
            return None
        return None if _all_fake(changed) else (args, kwargs, changed)

    @staticmethod
    def lacks_values(error: BaseException) -> bool:
        """Whether a run failed for want of values, not for what it was given."""
        kinds = (
            "DataDependent",
            "DynamicOutputShape",
            "UnsupportedFakeTensor",
            "UnsupportedOperator",
            "MetadataMismatch",
        )
        told = str(error)
        signs = (
            "numpy() is not supported",
            "data pointer",
            "Cannot copy out of meta",
            "item() cannot be called on meta",
        )
        return any(kind in type(error).__name__ for kind in kinds) or any(sign in told for sign in signs)

    def symbol(self, name: str, hint: int) -> torch.SymInt:
        """A size that stays a symbol, and is `hint` where a model must decide something."""
        source = ConstantSource(f"size_{name}")
        made = self.env.create_symbol(hint, source, dynamic_dim=DimDynamic.DYNAMIC)
        self.names[str(made)] = name
        return self.env.create_symintnode(made, hint=hint, source=source)

    def formula(self, size: int | torch.SymInt) -> Formula | None:
        """What a size is made of; None where it is no formula. Sizes that depend on data are names such as `u0`."""
        if isinstance(size, int):
            return Formula(size)
        return self.read(size.node._expr)  # as it was made, before anything was learned about its symbols

    def read(self, expression: Any) -> Formula | None:
        """An expression of sympy as a formula of names."""
        if expression not in self._read:
            try:
                found = Formula(expression)
            except (ParameterError, ZeroDivisionError):
                found = None
            names = {name: self.names[name] for name in found.names if name in self.names} if found is not None else {}
            self._read[expression] = found.substitute(**names) if names else found
        return self._read[expression]

    def like(self, tensor: Tensor, sizes: Mapping[int, int | torch.SymInt]) -> Tensor:
        """A fake tensor like a real one, with other sizes on some axes."""
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
    """Whether a tensor has no values."""
    return isinstance(tensor, FakeTensor) or tensor.is_meta


class _WhileAny:
    """A setting of the whole process that is changed while any thread needs it: by the first, and back by the last."""

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
    # Where nothing has loaded the compiler nothing is compiled, and to ask it would load it.
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
unchecked = _WhileAny(_unchecked)  # annotations that are checked say `int`, and refuse a symbol


def memory(tensor: Tensor) -> int:
    """What tells the memory of one tensor from that of another, where it has one."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def is_script(module: nn.Module) -> bool:
    """Whether a module runs outside of Python, where nothing can be seen."""
    return isinstance(module, torch.jit.ScriptModule)
