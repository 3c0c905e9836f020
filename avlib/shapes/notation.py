"""The text form of formulas: writing and reading.

Nothing here knows the class of formulas: `written` takes one, and a `Reader` is given the class it makes.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import struct
from collections.abc import Mapping
from fractions import Fraction
from functools import partial, reduce
from typing import Any, NamedTuple

from ..errors import ParameterError

EXACT = 16  # the largest divisor by which quotients in float32 count as exact
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
        if factor < 0 and max(top.terms.items(), key=lambda term: len(term[0]))[1] < 0:
            top, factor = floor.hop - 1 - top, -factor  # T - T//2 is (T + 1)//2
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
        shifted = f"{bracketed(top - start - (length if length != hop else 0))}//{hop}"
        return _product(factor, [shifted if length == hop else f"{shifted} + 1"]), 0
    if 2 * start > hop:  # the number that is closer to 0
        top, constant = top - hop, constant + factor
    return _product(factor, [f"{bracketed(top)}//{hop}"]), constant


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


def bracketed(formula: Any) -> str:
    """Write a formula as a factor of a product."""
    return _factor(str(formula))


def _atom_written(atom: Any) -> str:
    if isinstance(atom, str):
        return atom
    if atom.function == "floor" and not atom.rounds:
        if atom.hop:
            return _floor_written(atom.arguments[0], atom.hop, 1, 0, alone=True)[0]
        return f"{bracketed(atom.arguments[0])}//{bracketed(atom.arguments[1])}"
    return f"{atom.function}({', '.join(map(str, atom.arguments))})"


_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow}
_OPERATIONS |= {"min": min, "max": max}


class Real(NamedTuple):
    """Float arithmetic in the order that Python computes it: `T/16000*50`. Sides are formulas, numbers or such."""

    sign: str
    left: Any
    right: Any

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for side in (self.left, self.right) for name in getattr(side, "names", ()))

    def value(self, sizes: Mapping[str, Any]) -> Any:
        if self.sign == "float32":
            return _float32(self.left.value(sizes))
        sides = (side if isinstance(side, float) else side.value(sizes) for side in (self.left, self.right))
        return _OPERATIONS[self.sign](*sides)

    def rebuilt(self, change: Any) -> Any:
        if self.sign == "float32":
            return rounded32(change(self.left) if hasattr(self.left, "terms") else self.left.rebuilt(change))
        sides = (
            change(s) if hasattr(s, "terms") else s.rebuilt(change) if isinstance(s, Real) else s for s in self[1:]
        )
        return combined(self.sign, *sides)

    @property
    def least(self) -> int | None:
        """0 if it is never negative, otherwise None."""
        lowest = [side if isinstance(side, float) else side.least for side in self[1:]]
        return 0 if self.sign != "-" and all(low is not None and low >= 0 for low in lowest) else None

    def exact(self) -> tuple[Any, int] | None:
        """The fraction, top and bottom, that rounding to a whole number sees; None if it may see another one."""
        left, right = map(_exact, (self.left, self.right))
        if self.sign == "float32":
            return left if left is not None and left[1] <= EXACT else None
        if left is None or right is None:
            return None
        (a, b), (c, d) = left, right
        whole = [not bottom & (bottom - 1) for bottom in (b, d)]  # a power of two, so that nothing was rounded yet
        match self.sign:
            case "*" if all(whole) or -1 in (a.constant, c.constant):
                return a * c, b * d
            case "/" if all(whole) and (c.constant or 0) > 0:
                return a * d, b * c.constant
            case "+" | "-" if any(whole):
                bottom = math.lcm(b, d)
                return _OPERATIONS[self.sign](a * (bottom // b), c * (bottom // d)), bottom
        return None

    def __str__(self) -> str:
        left, right = (
            _number_written(side) if isinstance(side, float) else str(side) for side in (self.left, self.right)
        )
        if self.sign == "float32":
            return f"float32({left})"
        if self.sign in ("min", "max"):
            return f"{self.sign}({left}, {right})"
        if self.sign in "+-":
            bare = self.sign == "+" or isinstance(self.right, float)
            return f"{left} {self.sign} {right if bare else _factor(right)}"
        product = isinstance(self.left, Real) and self.left.sign in "*/" and self.sign in "*/"
        left = left if product or isinstance(self.left, float) else _factor(left)
        return f"{left}{self.sign}{right if isinstance(self.right, float) else _factor(right)}"


def rounded32(of: Any) -> Any:
    """A number in the precision of a tensor."""
    return _float32(of) if isinstance(of, float) else Real("float32", of, 1.0)


def _float32(value: Any) -> Any:
    return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, int | float) else value.float().double()


def _exact(side: Any) -> tuple[Any, int] | None:
    if isinstance(side, Real):
        return side.exact()
    if not isinstance(side, float):
        return side, 1
    exact = Fraction(side)
    return (_Whole(exact.numerator), exact.denominator) if exact.denominator <= DYADIC else None


class _Whole(int):
    """A number that answers as a formula does."""

    @property
    def constant(self) -> int:
        return int(self)


def combined(sign: str, left: Any, right: Any) -> Any:
    """Return a number if both sides are numbers, otherwise what has to be computed."""
    sides = [side if isinstance(side, float) else getattr(side, "constant", None) for side in (left, right)]
    if None not in sides:
        return float(_OPERATIONS[sign](*sides))
    number = isinstance(left, float), isinstance(right, float)
    if (sign == "*" and number[1] and not isinstance(left, Real)) or (
        isinstance(right, Real) and number[0] and sign in "+*"
    ):
        left, right = right, left  # 0.3*T, T/16000*50
    if sign == "+" and isinstance(right, float) and right < 0:
        sign, right = "-", -right
    if sign in "+-" and right == 0.0 and isinstance(right, float):
        return left
    return Real(sign, left, right)


def _number_written(number: float) -> str:
    rest = round(1 - number, 6)
    # int(L*(1 - 0.7)) is not int(0.3*L) in floating point: 1 - 0.7 is 0.30000000000000004
    if len(repr(number)) > 9 and 1 - rest == number:
        return f"(1 - {rest})"
    return str(int(number)) if number.is_integer() else repr(number)


def three_digits(number: float) -> str:
    """Write three digits, cut off so that a limit is not overstated."""
    if number >= 100 or number == int(number):
        return str(int(number))
    digits = 2 - math.floor(math.log10(number))
    return f"{math.floor(number * 10**digits) / 10**digits:g}"


def written_time(seconds: float) -> str:
    """Write a time in milliseconds, or in seconds from 1 s on."""
    milliseconds = round(1000 * seconds, 6)  # a hair below 20 ms is 20 ms
    return f"{three_digits(milliseconds)} ms" if milliseconds < 1000 else f"{three_digits(milliseconds / 1000)} s"


def _no_formula(found: object) -> ParameterError:
    return ParameterError("formula", str(found), "sums, products, //, %, max, min and int of sizes")


def _whole(value: Any, text: object) -> Any:
    if isinstance(value, Real | float):
        raise _no_formula(f"{text}, which is not a whole number")
    return value


_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


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

    def shape(self, text: str) -> tuple:
        """Return the formulas of a shape, `"B 8*((T - 2800)//2560 + 1) 768"`; None for `_` or `?`.

        Sizes are separated by spaces or commas outside brackets.

        Raises:
            ParameterError: a size is no formula.
        """
        text = re.sub(r"\s*([-+*/%])\s*", r"\1", text.strip())  # a space around an operator separates nothing
        depths, depth = [], 0
        for sign in text:
            depth += (sign == "(") - (sign == ")")
            depths.append(depth)
        listed = any(d == 1 and sign == "," for d, sign in zip(depths, text, strict=True))  # as in (B, T, 768)
        if text == "()" or (text.startswith("(") and text.endswith(")") and 0 not in depths[:-1] and listed):
            text, depths = text[1:-1], [d - 1 for d in depths[1:-1]]
        parts = [""]
        for sign, depth in zip(text, depths, strict=True):
            if depth == 0 and sign in " ,":
                parts.append("")
            else:
                parts[-1] += sign
        return tuple(None if part in ("_", "?") else self.text(part) for part in parts if part)

    def _read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool()):
                raise _no_formula(node.value)
            case ast.Constant(value=int(number)):
                return self.kind(number)
            case ast.Constant(value=float(number)):
                return number
            case ast.Name(id=name):
                return self.kind.of_atom(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self._read(operand)
                return combined("*", -1.0, value) if isinstance(value, Real | float) else -value
            case ast.BinOp(left=left, op=op, right=right):
                return self._operation(self._read(left), op, self._read(right), ast.unparse(node))
            case ast.Call(func=ast.Name(id="max" | "min" as function), args=[_, _, *_] as items, keywords=[]):
                read = [self._read(item) for item in items]
                if any(isinstance(item, Real | float) for item in read):
                    return reduce(partial(combined, function), read)
                return self.kind.extreme(function, read)
            case ast.Call(func=ast.Name(id="float32"), args=[of], keywords=[]):
                return rounded32(self._read(of))
            case ast.Call(func=ast.Name(id="int" | "floor" | "ceil" | "round" as function), args=[of], keywords=[]):
                return self.kind.rounded(function, self._read(of))
        raise _no_formula(ast.unparse(node))

    def _operation(self, left: Any, op: ast.operator, right: Any, text: str) -> Any:
        match op:
            case ast.Div() | ast.Mult() | ast.Add() | ast.Sub() | ast.Pow():
                if isinstance(op, ast.Div) or isinstance(left, Real | float) or isinstance(right, Real | float):
                    return combined(_SIGNS[type(op)], left, right)
        left, right = _whole(left, text), _whole(right, text)
        match op:
            case ast.Add():
                return left + right
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
