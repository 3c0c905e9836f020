"""The symbols of a run: sizes that are formulas, in the place of torch's sizes.

Torch keeps symbols in sympy, and takes most of a run to simplify them. A `Node` holds a `Formula`, which is canonical
after each operation; for torch's own questions it has an opaque symbol of sympy.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import sympy
import torch
from torch.fx.experimental import sym_node
from torch.fx.experimental.sym_node import METHOD_TO_OPERATOR, SymNode
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
    ShapeEnv,
    eval_is_non_overlapping_and_dense,
)

from ..errors import ParameterError
from . import keeping
from .dividing import reduced
from .formula import Formula, Relation
from .notation import Real, combined

SEVERAL = 7  # the value assumed for a number that depends on data
BUDGET = 5.0  # seconds of a run; sizes that are made later have no formula from it
MOST = 1500  # letters of a formula; longer ones are not followed
_SIGNS = {"eq": "==", "ne": "!=", "le": "<=", "lt": "<", "ge": ">=", "gt": ">"}


class Guard(NamedTuple):
    """A fact about sizes that a symbolic run assumed, and its line."""

    relation: Relation
    file: str
    line: int
    scope: dict[str, Any]  # the globals of that line
    direct: bool  # the line itself compared sizes; otherwise torch did, in an operation that it called


class Env(ShapeEnv):
    """Makes symbols, decides their comparisons by the hints, and lists them.

    Torch's own would prove each answer, which takes ten times as long as the rest, and learn from it: a symbol that was
    compared with 1000, to see whether it is long enough, would be 1000 from there on.
    """

    def __init__(self, user_frame: Callable[[FrameType | None], FrameType | None]):
        super().__init__()
        self.user_frame = user_frame
        self.mode: Any = None  # the mode of fake tensors that it belongs to
        self.several, self.leaked = SEVERAL, False  # was it taken for a number
        self.deciding = False  # a tensor is being converted to a truth value
        self.begin({})

    def begin(self, steps: Mapping[str, int]) -> None:
        """Forget what an earlier run assumed; the sizes of names are multiples of `steps`."""
        self.steps, self.until, self.late = steps, time.process_time() + BUDGET, False
        self.results: dict[tuple, Any] = {}  # of operations, by method and operands
        self.assumed: list[Guard] = []
        self.converted: list[Real] = []  # to numbers
        self.answered: set[tuple] = set()
        self.symbols: dict[Any, sympy.Symbol] = {}  # opaque ones, by formula
        self.nodes: dict[sympy.Symbol, Node] = {}

    def opaque(self, node: Node) -> sympy.Symbol:
        """A symbol of sympy for a node, the same for equal formulas."""
        key = node.what._key if isinstance(node.what, Formula) else id(node)
        if key not in self.symbols:
            name = f"{'s' if node.backed else 'u'}_{len(self.symbols)}"
            made = self.symbols[key] = sympy.Symbol(name, integer=True if node.pytype is int else None)
            self.nodes[made] = node
            if node.backed:
                self.backed_var_to_val[made] = sympy.sympify(node.value)
        return self.symbols[key]

    def symbol(self, name: str, hint: int) -> torch.SymInt:
        return torch.SymInt(Node(self, hint, Formula.of_atom(name)))

    def unbacked(self, value: Any, symbol: Any) -> Node:
        """A number that depends on data; torch's cache of operations would lose what it is."""
        self.mode.cache_enabled = False
        return Node(self, value, Formula.of_atom(str(symbol)) if type(value) is int else None, False, symbol)

    def create_unbacked_symint(self, source: Any = None) -> torch.SymInt:
        return torch.SymInt(self.unbacked(self.several, super().create_unbacked_symint(source).node._expr))

    def create_unbacked_symfloat(self) -> torch.SymFloat:
        return torch.SymFloat(self.unbacked(float(SEVERAL), super().create_unbacked_symfloat().node._expr))

    def create_unbacked_symbool(self) -> torch.SymBool:
        return torch.SymBool(self.unbacked(True, super().create_unbacked_symbool().node._expr))

    def evaluate_sym_node(self, node, size_oblivious=False, fallback_value=None):
        return node.decided(fallback_value) if isinstance(node, Node) else self.evaluate_expr(node.expr)

    def evaluate_expr(self, orig_expr, hint=None, *args, **kwargs):
        """Evaluate what torch made itself of opaque symbols, as for its cache."""
        if orig_expr in self.nodes:
            return self.nodes[orig_expr].decided()
        return orig_expr.xreplace(
            {s: sympy.sympify(self.nodes[s].value if s in self.nodes else SEVERAL) for s in orig_expr.free_symbols}
        )

    def asked_by(self, user: FrameType | None) -> bool:
        """Return True if own code, not torch, converted a symbol."""
        frame, before = sys._getframe(1), None
        while frame is not None and frame is not user:
            frame, before = frame.f_back, frame
        return before is not None and before.f_code.co_filename in (torch.__file__, keeping.__file__)

    def decide(self, node: Node, fallback: bool | None) -> Any:
        """Answer a question by the hints, and note the fact that this assumes.

        The number of True in a mask is unknown. Torch asks whether it is 1, or enough: several is assumed. A question
        of the model itself about data has no assumed answer: it would choose one of two paths.
        """
        relation = node.what
        if isinstance(relation, Formula):
            relation = Relation("==", relation, Formula(node.value))
        if isinstance(relation, Real) and node.backed:
            self.converted.append(relation)
        for part in node.parts if node.backed else ():
            part.decided()
        key = None if not isinstance(relation, Relation) else (relation.sign, relation.left._key, relation.right._key)
        if node.backed:
            if key is not None and key not in self.answered and (user := self.user_frame(sys._getframe(1))):
                self.answered.add(key)
                relation = relation if node.value is not False else relation.negated()
                place = user.f_code.co_filename, user.f_lineno, user.f_globals
                self.assumed.append(Guard(relation, *place, self.asked_by(user)))
        elif fallback is not None:
            return fallback
        elif self.deciding or self.asked_by(self.user_frame(sys._getframe(1))):
            raise GuardOnDataDependentSymNode(node.expr, f"{node.what} depends on data")
        else:
            self.leaked |= node.pytype is not bool
        return node.value


class Node(SymNode):
    """A number of a symbolic run, with its formula if it has one.

    Args:
        value: at the hints; several is assumed for what depends on data.
        what: the `Formula` of a size; `Real`, formula or number of a float; `Relation` of a truth value; or None.
        backed: its value is known, and does not depend on data.
    """

    def __init__(self, env: Env, value: Any, what: Any = None, backed: bool = True, symbol: Any = None):
        self.shape_env, self.value, self.what, self.backed = env, value, what, backed
        self.pytype = type(value)
        self.fx_node = None
        self.parts: tuple[Node, ...] = ()  # of what joins several truth values
        self._symbol = symbol
        self.constant = None
        if isinstance(what, bool):
            self.value = self.constant = what
        elif isinstance(what, float) or (isinstance(what, Formula) and what.constant is not None):
            self.constant = value

    @property
    def _hint(self) -> Any:
        return self.value if self.backed or self.constant is not None else None

    @property
    def _expr(self) -> Any:
        if self.constant is not None:
            return sympy.sympify(self.constant)
        if self._symbol is None:
            self._symbol = self.shape_env.opaque(self)
        return self._symbol

    expr = _expr

    def maybe_as_int(self) -> int | None:
        return self.constant

    maybe_as_float = maybe_as_bool = maybe_as_int

    def wrap_int(self, num: Any) -> Node:
        return Node(self.shape_env, num, _constant(num))

    wrap_float = wrap_bool = wrap_int

    def str(self) -> str:
        return f"{self.what}"

    def decided(self, fallback: bool | None = None) -> Any:
        return self.value if self.constant is not None else self.shape_env.decide(self, fallback)

    def evaluate(self, size_oblivious: bool = False) -> Any:
        return self.decided()

    def expect_true(self, file: str, line: int) -> bool:
        return self.decided(True)

    def statically_known_true(self, file: str, line: int) -> bool:
        return bool(self.constant)

    def guard_size_oblivious(self, file: str, line: int) -> bool:
        return self.value  # it is asked by torch alone, where the answer changes no shape

    def round(self, ndigits: int | None = None) -> Node:
        what = Formula.rounded("round", self.what) if not ndigits and self.what is not None else None
        return Node(self.shape_env, round(self.value, ndigits), what, self.backed)

    def sym_sum(self, args: list[Node]) -> Node:
        total = args[0]
        for other in args[1:]:
            total = total.add(other)
        return total


def _constant(number: Any) -> Any:
    if isinstance(number, bool):
        return number
    return Formula(number) if isinstance(number, int) else number


def _power(of: Formula, power: Formula) -> Formula | None:
    return of**power.constant if power.constant is not None and 0 <= power.constant <= 16 else None


def _absolute(of: Formula) -> Formula:
    return of if of.least is not None and of.least >= 0 else Formula.extreme("max", [of, -of])


def _arithmetic(sign: str, operate: Callable) -> Callable:
    """Sizes are computed as formulas; floats in their order, since each operation rounds."""

    def apply(a: Any, b: Any) -> Any:
        return operate(a, b) if isinstance(a, Formula) and isinstance(b, Formula) else combined(sign, a, b)

    return apply


def _quotient(a: Any, b: Any) -> Any:
    return combined("/", a, Formula(int(b)) if isinstance(b, float) and b.is_integer() else b)


_ROUNDED = {"floor": "floor", "trunc": "int", "sym_int": "int", "ceil": "ceil"}
_RULES: dict[str, Callable] = {
    **{name: _arithmetic(sign, getattr(operator, name)) for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*"))},
    **{"mod": operator.mod, "pos": operator.pos, "neg": lambda a: _arithmetic("*", operator.mul)(Formula(-1), a)},
    **{name: partial(Formula.rounded, function) for name, function in _ROUNDED.items()},
    **{"int_floordiv": operator.floordiv, "pow_by_natural": _power, "abs": _absolute, "sym_not": Relation.negated},
    **{
        f"sym_{name}": _arithmetic(name, lambda a, b, name=name: Formula.extreme(name, [a, b]))
        for name in ("max", "min")
    },
    **{"int_truediv": _quotient, "float_truediv": _quotient, "float_pow": partial(combined, "**")},
    "sym_float": lambda a: a,
}


def _made(method: str, operands: tuple[Node, ...]) -> Any:
    """The formula of a result; None if it has none."""
    whats = [node.what for node in operands]
    if method == "sym_ite" and isinstance(whats[0], bool):
        return whats[1] if whats[0] else whats[2]
    if any(what is None or isinstance(what, bool) for what in whats):
        return None
    if method in _SIGNS:
        if not all(isinstance(what, Formula) for what in whats):
            return None
        relation = Relation(_SIGNS[method], *whats)
        proven = relation.proven() if all(node.backed for node in operands) else None
        return relation if proven is None else proven
    try:
        made = _RULES[method](*whats) if method in _RULES else None
        return None if isinstance(made, Formula) and len(made._key) > MOST else made
    except (ParameterError, ZeroDivisionError, TypeError, AttributeError):
        return None


def _operation(method: str, operate: Callable) -> Callable:
    def apply(*operands: SymNode) -> Node:
        env = next(node.shape_env for node in operands if isinstance(node, Node))
        nodes = tuple(node if isinstance(node, Node) else Node(env, SEVERAL, None, False) for node in operands)
        value = operate(*(node.value for node in nodes))
        key = None
        if all(isinstance(node.what, Formula) for node in nodes):
            key = (method, *(node.what._key for node in nodes))
        what = env.results.get(key) if key is not None else None
        if what is None:
            env.late = env.late or time.process_time() > env.until
            what = None if env.late else _made(method, nodes)
            if env.steps and isinstance(what, Formula) and not (method == "mod" and nodes[0].what.is_name):
                what = reduced(what, env.steps)  # unless the model asks for multiples
            env.results[key] = what
        made = Node(env, value, what, all(node.backed for node in nodes))
        if made.pytype is bool and what is None and nodes[0].pytype is bool:
            made.parts = nodes
        return made

    return apply


def _layout(method: str) -> Callable:
    """A question on strides, answered by the hints."""
    answer = getattr(sym_node, method, eval_is_non_overlapping_and_dense)

    def layout(self: Node, sizes: list[Node], strides: list[Node]) -> Node:
        return self.wrap_int(answer([node.value for node in sizes], [node.value for node in strides]))

    return layout


_BY_NAME = {"and": "and_", "or": "or_"}
for _method, _operate in {**METHOD_TO_OPERATOR, "sym_int": int, "sym_float": float}.items():
    if _method != "round":
        setattr(Node, _BY_NAME.get(_method, _method), _operation(_method, _operate))
for _method in sym_node.sizes_strides_methods:
    setattr(Node, _method, _layout(_method))
