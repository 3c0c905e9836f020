"""Formulas as text: how a size is written, and what a written one says."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ParameterError
from .formula import DYADIC, Atom, Call, Formula, extreme, order, truncated_product

if TYPE_CHECKING:
    import sympy

# writing


def written(formula: Formula) -> str:
    """As a sum of products; atoms that are only ever multiplied with others share a product."""
    terms = dict(formula.terms)
    constant = terms.pop((), 0)
    parts: list[str] = []
    groups = _groups(terms)
    for group in groups:
        text, constant = _group_written(group, constant, alone=len(groups) == 1)
        parts.append(text)
    if constant or not parts:
        parts.append(str(constant))
    parts.sort(key=lambda part: part.startswith("-"))
    return " + ".join(parts).replace(" + -", " - ")


def _groups(terms: Mapping[tuple, int]) -> list[dict[tuple, int]]:
    """Terms that share an atom, or a name with the floor of it, in groups; the widest term of a group first."""
    groups: list[tuple[set, dict]] = []
    for atoms, factor in sorted(terms.items(), key=lambda term: (-len(term[0]), [order(atom) for atom in term[0]])):
        found, held = set(atoms), {atoms: factor}
        for group in [group for group in groups if group[0] & found]:
            groups.remove(group)
            found, held = found | group[0], {**group[1], **held}
        groups.append((found, held))
    # (3*T)//2 is held as T + T//2; it is one thing again where the factors fit
    merged: list[dict[tuple, int]] = []
    lines = {atoms: factor for _, held in groups if len(held) == 1 for atoms, factor in held.items() if len(atoms) == 1}
    used = set()
    for _, held in groups:
        (first, factor), floor = next(iter(held.items())), next(iter(held))[0]
        if len(held) == 1 and len(first) == 1 and isinstance(floor, Call) and floor.hop:
            for atoms in floor.arguments[0].terms:
                if atoms in lines and atoms not in used and len(lines) > 1 and lines[atoms] % factor == 0:
                    held = {**held, atoms: lines[atoms]}
                    used.add(atoms)
        merged.append(held)
    return [held for held in merged if not (len(held) == 1 and next(iter(held)) in used)]


def _group_written(group: Mapping[tuple, int], constant: int, alone: bool) -> tuple[str, int]:
    """One group, and what it leaves of the constant."""
    lead, factor = max(group.items(), key=lambda term: len(term[0]))
    if len(lead) == 1:
        (floor,), factor = next(iter(group.items()))
        if not (isinstance(floor, Call) and floor.hop):
            return _product(factor, [_atom_written(floor)]), constant
        top = floor.arguments[0]
        for atoms, more in group.items():
            if atoms != (floor,):
                top = top + Formula.of_terms({atoms: more // factor * floor.hop})
        return _floor_written(top, floor.hop, factor, constant, alone)
    if len(set(lead)) == len(lead):
        shifts = [group.get(tuple(a for a in lead if a != atom), 0) for atom in lead]
        if all(shift % factor == 0 for shift in shifts):
            shifts = [shift // factor for shift in shifts]
            grown = reduce(
                lambda total, pair: total * (Formula.of_atom(pair[0]) + pair[1]),
                zip(lead, shifts, strict=True),
                Formula(factor),
            )
            left = Formula.of_terms(group) - grown
            if left.constant is not None:
                texts = [_shifted(atom, shift) for atom, shift in zip(lead, shifts, strict=True)]
                return _product(factor, texts), constant + left.constant
    terms = [_product(n, [_atom_written(atom) for atom in atoms]) for atoms, n in group.items()]
    return " + ".join(terms).replace(" + -", " - "), constant


def _shifted(atom: Atom, shift: int) -> str:
    """An atom plus a number, as a factor in a product."""
    if isinstance(atom, Call) and atom.hop:
        text, left = _floor_written(atom.arguments[0], atom.hop, 1, shift, alone=True)
        text = text if not left else f"{text} {'+' if left > 0 else '-'} {abs(left)}"
        return f"({text})"
    text = _atom_written(atom)
    return f"({text} {'+' if shift > 0 else '-'} {abs(shift)})" if shift else text


def _floor_written(top: Formula, hop: int, factor: int, constant: int, alone: bool) -> tuple[str, int]:
    """`factor*(top//hop)`, in window form where the constant allows it, and what is left of the constant."""
    start = top.terms.get((), 0)
    steps, rest = divmod(constant, factor)
    length = hop - start - steps * hop  # of the window: factor*((x - length)//hop + 1)
    if alone and not rest and length > 0 and length != hop:
        text = f"{_bracketed(top - start - length)}//{hop} + 1"
        return _product(factor, [text]), 0
    if alone and not rest and length == hop:
        return _product(factor, [f"{_bracketed(top - start)}//{hop}"]), 0
    if 2 * start > hop:  # the number that is closer to 0
        top, constant = top - hop, constant + factor
    return _product(factor, [f"{_bracketed(top)}//{hop}"]), constant


def _product(factor: int, texts: list[str]) -> str:
    """Factors, with brackets around each that has an operator outside of brackets."""
    counted = {text: texts.count(text) for text in texts}
    if len(counted) == 1 and factor == 1 and len(texts) == 1:
        return texts[0]
    written = [
        (text if _is_simple(text) else f"({text})") + (f"**{times}" if times > 1 else "")
        for text, times in counted.items()
    ]
    written.sort(key=lambda text: not text.isidentifier())  # B*(T//2)
    head = [] if abs(factor) == 1 else [str(abs(factor))]
    return "-" * (factor < 0) + "*".join([*head, *written])


def _is_simple(text: str) -> bool:
    """Whether a text can stand in a product as it is."""
    if text.isidentifier() or text.isdigit():
        return True
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and place < len(text) - 1 and sign not in "abcdefghijklmnopqrstuvwxyz":
            return False
    return True


def _bracketed(formula: Formula) -> str:
    text = str(formula)
    return text if _is_simple(text) else f"({text})"


def _atom_written(atom: Atom) -> str:
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


# reading


class _Real(NamedTuple):
    """`factor*of` before it is made whole: what stands in `int(0.3*T)` or `ceil(T/2)`."""

    factor: float | Fraction
    of: Formula

    def truncated(self) -> Formula:
        if isinstance(self.factor, Fraction):
            return (self.of * self.factor.numerator) // self.factor.denominator
        return truncated_product(self.factor, self.of)

    def ceiling(self) -> Formula:
        if Fraction(self.factor).denominator > DYADIC:
            raise _no_formula(f"ceil of {self.factor}")
        exact = Fraction(self.factor)
        return -(-self.of * exact.numerator // exact.denominator)

    def times(self, other: _Real) -> _Real:
        exact = isinstance(self.factor, Fraction) and isinstance(other.factor, Fraction)
        factor = self.factor * other.factor if exact else float(self.factor) * float(other.factor)
        return _Real(factor, self.of * other.of)


def _no_formula(what: object) -> ParameterError:
    return ParameterError("formula", str(what), "sums, products, //, %, max, min and int of sizes")


def parsed(text: str) -> Formula:
    """Of text as Python would write it; nothing of it is executed."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _whole(_read(tree), text)
    except (SyntaxError, RecursionError):
        raise _no_formula(repr(text)) from None
    except ZeroDivisionError:
        raise _no_formula(f"{text!r}, which divides by 0") from None


def _whole(value: Formula | _Real, text: object) -> Formula:
    if isinstance(value, _Real):
        raise _no_formula(f"{text}, which is not a whole number")
    return value


def _real(value: Formula | _Real) -> _Real:
    if isinstance(value, _Real):
        return value
    return _Real(Fraction(1), value)


def _sum(parts: list[Formula | _Real], text: object) -> Formula | _Real:
    """A sum, over one divisor where there are several: `T/2 + 1` is `(T + 2)/2`."""
    if all(isinstance(part, Formula) for part in parts):
        return reduce(lambda a, b: a + b, parts)
    reals = [(Fraction(part.factor), part.of) for part in map(_real, parts)]
    bottom = math.lcm(*(factor.denominator for factor, _ in reals))
    if any(isinstance(part, _Real) and isinstance(part.factor, float) for part in parts) and bottom > DYADIC:
        raise _no_formula(text)  # how such a sum is rounded cannot be told
    top = reduce(lambda a, b: a + b, (of * int(factor * bottom) for factor, of in reals))
    return _Real(Fraction(1, bottom), top)


def _read(node: ast.expr) -> Formula | _Real:
    match node:
        case ast.Constant(value=bool()):
            raise _no_formula(node.value)
        case ast.Constant(value=int(number)):
            return Formula(number)
        case ast.Constant(value=float(number)):
            return _Real(number, Formula(1))
        case ast.Name(id=name):
            return Formula.of_atom(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_whole(_read(operand), ast.unparse(node))
        case ast.BinOp(left=left, op=op, right=right):
            return _read_operation(_read(left), op, _read(right), ast.unparse(node))
        case ast.Call(func=ast.Name(id="max" | "min" as function), args=[_, _, *_] as items, keywords=[]):
            return extreme(function, [_whole(_read(item), ast.unparse(item)) for item in items])
        case ast.Call(func=ast.Name(id="int" | "floor"), args=[of], keywords=[]):
            return _real(_read(of)).truncated()
        case ast.Call(func=ast.Name(id="ceil"), args=[of], keywords=[]):
            return _real(_read(of)).ceiling()
    raise _no_formula(ast.unparse(node))


def _read_operation(left: Formula | _Real, op: ast.operator, right: Formula | _Real, text: str) -> Formula | _Real:
    match op:
        case ast.Mult() if isinstance(left, _Real) or isinstance(right, _Real):
            return _real(left).times(_real(right))
        case ast.Div():
            divisor = _whole(right, text).constant
            if divisor is None:
                raise _no_formula(text)
            return _real(left).times(_Real(Fraction(1, divisor), Formula(1)))
        case ast.Sub() if isinstance(right, _Real) and right.of.constant == 1:  # 1 - 0.7
            first = left.constant if isinstance(left, Formula) else float(left.factor)
            if first is None:
                raise _no_formula(text)
            return _Real(first - float(right.factor), Formula(1))
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


def from_sympy(expression: sympy.Expr) -> Formula:
    """Of an expression of sympy; torch's functions are known by their names, so that none of them is imported."""
    return _whole(_read_sympy(expression), expression)


def _read_sympy(e: sympy.Expr) -> Formula | _Real:
    kind = type(e).__name__
    if getattr(e, "is_Integer", False):
        return Formula(int(e))
    if getattr(e, "is_Symbol", False):
        return Formula.of_atom(str(e))
    if getattr(e, "is_Rational", False):
        return _Real(Fraction(int(e.p), int(e.q)), Formula(1))
    if getattr(e, "is_Float", False):
        return _Real(float(e), Formula(1))
    parts = [_read_sympy(part) for part in getattr(e, "args", ())]
    match kind:
        case "Add":
            return _sum(parts, e)
        case "Mul":
            if any(isinstance(part, _Real) for part in parts):
                return reduce(lambda a, b: a.times(b), map(_real, parts))
            return reduce(lambda a, b: a * b, parts)
        case "Pow" | "PowByNatural" if isinstance(parts[1], Formula) and (parts[1].constant or -1) > 0:
            return _whole(parts[0], e) ** parts[1].constant
        case "FloorDiv" | "CleanDiv" | "PythonMod" | "Mod":
            top, bottom = (_whole(part, e) for part in parts)
            return top % bottom if kind.endswith("Mod") else top // bottom
        case "ToFloat" | "Identity":
            return _real(parts[0]) if kind == "ToFloat" else parts[0]
        case "IntTrueDiv" if isinstance(parts[1], Formula) and parts[1].constant:
            return _real(parts[0]).times(_Real(Fraction(1, parts[1].constant), Formula(1)))
        case "TruncToInt" | "FloorToInt" | "floor" | "TruncToFloat":
            return _real(parts[0]).truncated()
        case "CeilToInt" | "ceiling":
            return _real(parts[0]).ceiling()
        case "Max" | "Min":
            return extreme(kind.lower(), [_whole(part, e) for part in parts])
    raise _no_formula(e)
