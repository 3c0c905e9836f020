"""The text form of formulas: writing and reading.

Nothing here knows the class of formulas: `written` takes one, and a `Reader` is given the class it makes.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

from ..errors import ParameterError

DYADIC = 2**20  # a factor whose denominator is at most this power of two is exact in floating point


def order(atom: Any) -> tuple[bool, str]:
    """Sort key of an atom: calls before names, each by its text."""
    return (True, atom) if isinstance(atom, str) else (False, atom.key)


def written(formula: Any) -> str:
    """Write a formula as a sum of products, factored by shared atoms."""
    terms = dict(formula.terms)
    constant = terms.pop((), 0)
    parts: list[str] = []
    groups = _groups(terms)
    for group in groups:
        text, constant = _group_written(formula, group, constant, alone=len(groups) == 1)
        parts.append(text)
    if constant or not parts:
        parts.append(str(constant))
    parts.sort(key=lambda part: part.startswith("-"))
    return _sum_written(parts)


def _sum_written(parts: list[str]) -> str:
    return " + ".join(parts).replace(" + -", " - ")


def _is_floor(atom: Any) -> bool:
    return not isinstance(atom, str) and bool(atom.hop)


def _groups(terms: Mapping[tuple, int]) -> list[dict[tuple, int]]:
    """Group terms that share an atom, or a name and its floor."""
    groups: list[tuple[set, dict]] = []
    for atoms, factor in sorted(terms.items(), key=lambda term: (-len(term[0]), [order(atom) for atom in term[0]])):
        found, held = set(atoms), {atoms: factor}
        for group in [group for group in groups if group[0] & found]:
            groups.remove(group)
            found, held = found | group[0], {**group[1], **held}
        groups.append((found, held))
    # (3*T)//2 is stored as T + T//2; it is written as one floor where the factors allow it
    merged: list[dict[tuple, int]] = []
    lines = {atoms: factor for _, held in groups if len(held) == 1 for atoms, factor in held.items() if len(atoms) == 1}
    used = set()
    for _, held in groups:
        first, factor = next(iter(held.items()))
        if len(held) == 1 and len(first) == 1 and _is_floor(first[0]):
            for atoms in first[0].arguments[0].terms:
                if atoms in lines and atoms not in used and len(lines) > 1 and lines[atoms] % factor == 0:
                    held = {**held, atoms: lines[atoms]}
                    used.add(atoms)
        merged.append(held)
    return [held for held in merged if not (len(held) == 1 and next(iter(held)) in used)]


def _group_written(formula: Any, group: Mapping[tuple, int], constant: int, alone: bool) -> tuple[str, int]:
    """Write one group; also return the part of the constant that remains."""
    lead, factor = max(group.items(), key=lambda term: len(term[0]))
    if len(lead) == 1:
        (floor,), factor = next(iter(group.items()))
        if not _is_floor(floor):
            return _product(factor, [_atom_written(floor)]), constant
        top = floor.arguments[0]
        for atoms, more in group.items():
            if atoms != (floor,):
                top = top + formula.of_terms({atoms: more // factor * floor.hop})
        return _floor_written(top, floor.hop, factor, constant, alone)
    if len(set(lead)) == len(lead):
        shifts = [group.get(tuple(a for a in lead if a != atom), 0) for atom in lead]
        if all(shift % factor == 0 for shift in shifts):
            shifts = [shift // factor for shift in shifts]
            grown = formula.of_terms({(): factor})
            for atom, shift in zip(lead, shifts, strict=True):
                grown = grown * (formula.of_atom(atom) + shift)
            left = formula.of_terms(group) - grown
            if left.constant is not None:
                texts = [_shifted(atom, shift) for atom, shift in zip(lead, shifts, strict=True)]
                return _product(factor, texts), constant + left.constant
    return _sum_written([_product(n, [_atom_written(atom) for atom in atoms]) for atoms, n in group.items()]), constant


def _shifted(atom: Any, shift: int) -> str:
    """Write an atom plus a number, as a factor of a product."""
    if _is_floor(atom):
        text, shift = _floor_written(atom.arguments[0], atom.hop, 1, shift, alone=True)
    else:
        text = _atom_written(atom)
        if not shift:
            return text
    return f"({text} {'+' if shift > 0 else '-'} {abs(shift)})" if shift else f"({text})"


def _floor_written(top: Any, hop: int, factor: int, constant: int, alone: bool) -> tuple[str, int]:
    """Write `factor*(top//hop)`; also return the rest of the constant."""
    start = top.terms.get((), 0)
    steps, rest = divmod(constant, factor)
    length = hop - start - steps * hop  # of the window: factor*((x - length)//hop + 1)
    if alone and not rest and length > 0:
        shifted = f"{_bracketed(top - start - (length if length != hop else 0))}//{hop}"
        return _product(factor, [shifted if length == hop else f"{shifted} + 1"]), 0
    if 2 * start > hop:  # the number that is closer to 0
        top, constant = top - hop, constant + factor
    return _product(factor, [f"{_bracketed(top)}//{hop}"]), constant


def _product(factor: int, texts: list[str]) -> str:
    if len(texts) == 1 and factor == 1:
        return texts[0]
    powers = [
        _factor(text) + (f"**{times}" if (times := texts.count(text)) > 1 else "") for text in dict.fromkeys(texts)
    ]
    powers.sort(key=lambda text: not text.isidentifier())  # B*(T//2)
    head = [] if abs(factor) == 1 else [str(abs(factor))]
    return "-" * (factor < 0) + "*".join([*head, *powers])


def _factor(text: str) -> str:
    """Put brackets around a text if a product needs them."""
    depth = 0
    for place, sign in enumerate(text if not (text.isidentifier() or text.isdigit()) else ""):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and place < len(text) - 1 and sign not in "abcdefghijklmnopqrstuvwxyz":
            return f"({text})"
    return text


def _bracketed(formula: Any) -> str:
    return _factor(str(formula))


def _atom_written(atom: Any) -> str:
    if isinstance(atom, str):
        return atom
    if atom.function == "floor":
        if atom.hop:
            return _floor_written(atom.arguments[0], atom.hop, 1, 0, alone=True)[0]
        return f"{_bracketed(atom.arguments[0])}//{_bracketed(atom.arguments[1])}"
    if atom.function == "int":
        factor, of = atom.arguments
        rest = round(1 - factor, 6)
        # int(L*(1 - 0.7)) is not int(0.3*L) in floating point: 1 - 0.7 is 0.30000000000000004
        short = f"(1 - {rest})" if len(repr(factor)) > 9 and 1 - rest == factor else repr(factor)
        return f"int({short}*{_bracketed(of)})"
    return f"{atom.function}({', '.join(map(str, atom.arguments))})"


class Real(NamedTuple):
    """`factor*of` before rounding: the argument of `int(0.3*T)` or `ceil(T/2)`."""

    factor: float | Fraction
    of: Any

    def truncated(self) -> Any:
        if isinstance(self.factor, Fraction):
            return (self.of * self.factor.numerator) // self.factor.denominator
        return self.of.truncated_product(self.factor)

    def ceiling(self) -> Any:
        exact = Fraction(self.factor)
        if exact.denominator > DYADIC:
            raise _no_formula(f"ceil of {self.factor}")
        return -(-self.of * exact.numerator // exact.denominator)

    @classmethod
    def of_size(cls, size: Any) -> Real:
        return size if isinstance(size, cls) else cls(Fraction(1), size)

    def times(self, other: Real) -> Real:
        exact = isinstance(self.factor, Fraction) and isinstance(other.factor, Fraction)
        factor = self.factor * other.factor if exact else float(self.factor) * float(other.factor)
        return Real(factor, self.of * other.of)

    def quotient(self: Any, other: Any) -> Real:
        """`self / other` for floats or sizes, by a number."""
        divisor = Real.of_size(other)
        number = Fraction(divisor.factor) * (divisor.of.constant or 0)
        if number.denominator > DYADIC or not number:
            raise _no_formula(f"a quotient by {divisor}")
        return Real.of_size(self).times(Real(1 / number, divisor.of**0))

    def __add__(self, other: Real) -> Real:
        return _sum([self, other], "a sum of floats")

    def __sub__(self, other: Real) -> Real:
        return self + -other

    def __mul__(self, other: Real) -> Real:
        return self.times(other)

    def __neg__(self) -> Real:
        return self._replace(of=-self.of)


def _no_formula(found: object) -> ParameterError:
    return ParameterError("formula", str(found), "sums, products, //, %, max, min and int of sizes")


def _whole(value: Any, text: object) -> Any:
    if isinstance(value, Real):
        raise _no_formula(f"{text}, which is not a whole number")
    return value


def _sum(parts: list[Any], text: object) -> Any:
    """Add over a common divisor: `T/2 + 1` is `(T + 2)/2`."""
    if not any(isinstance(part, Real) for part in parts):
        return reduce(lambda a, b: a + b, parts)
    reals = [(Fraction(part.factor), part.of) for part in map(Real.of_size, parts)]
    bottom = math.lcm(*(factor.denominator for factor, _ in reals))
    if any(isinstance(part, Real) and isinstance(part.factor, float) for part in parts) and bottom > DYADIC:
        raise _no_formula(text)  # the rounding of such a sum is unknown
    top = reduce(lambda a, b: a + b, (of * int(factor * bottom) for factor, of in reals))
    return Real(Fraction(1, bottom), top)


class Reader:
    """Reads formulas of a class from text."""

    def __init__(self, kind: type):
        self.kind = kind

    def text(self, text: str) -> Any:
        """Read text that is written as in Python; nothing is executed."""
        try:
            tree = ast.parse(text.strip(), mode="eval").body
            return _whole(self._read(tree), text)
        except (SyntaxError, RecursionError):
            raise _no_formula(repr(text)) from None
        except ZeroDivisionError:
            raise _no_formula(f"{text!r}, which divides by 0") from None

    def _read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool()):
                raise _no_formula(node.value)
            case ast.Constant(value=int(number)):
                return self.kind(number)
            case ast.Constant(value=float(number)):
                return Real(number, self.kind(1))
            case ast.Name(id=name):
                return self.kind.of_atom(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -_whole(self._read(operand), ast.unparse(node))
            case ast.BinOp(left=left, op=op, right=right):
                return self._operation(self._read(left), op, self._read(right), ast.unparse(node))
            case ast.Call(func=ast.Name(id="max" | "min" as function), args=[_, _, *_] as items, keywords=[]):
                return self.kind.extreme(function, [_whole(self._read(item), ast.unparse(item)) for item in items])
            case ast.Call(func=ast.Name(id="int" | "floor"), args=[of], keywords=[]):
                return Real.of_size(self._read(of)).truncated()
            case ast.Call(func=ast.Name(id="ceil"), args=[of], keywords=[]):
                return Real.of_size(self._read(of)).ceiling()
        raise _no_formula(ast.unparse(node))

    def _operation(self, left: Any, op: ast.operator, right: Any, text: str) -> Any:
        match op:
            case ast.Mult() if isinstance(left, Real) or isinstance(right, Real):
                return Real.of_size(left).times(Real.of_size(right))
            case ast.Div():
                divisor = _whole(right, text).constant
                if divisor is None:
                    raise _no_formula(text)
                return Real.of_size(left).times(Real(Fraction(1, divisor), self.kind(1)))
            case ast.Sub() if isinstance(right, Real) and right.of.constant == 1:  # 1 - 0.7
                first = float(left.factor) if isinstance(left, Real) else left.constant
                if first is None:
                    raise _no_formula(text)
                return Real(first - float(right.factor), self.kind(1))
            case ast.Add():
                return _sum([left, right], text)
        left, right = _whole(left, text), _whole(right, text)
        match op:
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.FloorDiv():
                return left // right
            case ast.Mod():
                return left % right
            case ast.Pow() if right.constant is not None and 0 <= right.constant <= 16:
                return left**right.constant
        raise _no_formula(text)
