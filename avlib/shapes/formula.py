"""Sizes as formulas: whole-number arithmetic that prints as a reader would write it.

A size is a sum of products of names and of floors, `8*((T - 2800)//2560 + 1)`. Floors of floors are collapsed into one,
exactly, so that what ten layers do to a length reads as one window and one hop.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cached_property, reduce
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ParameterError

if TYPE_CHECKING:
    import sympy

Atom = "str | Call"  # what is multiplied in a term: a name, or a call whose value is a whole number
DYADIC = 2**20  # a factor with at most this power of two below the line is exact in floating point
PROOF = 200_000  # sizes that are tried one by one, to prove two formulas of one name equal


class Window(NamedTuple):
    """`count*((factor*name - length)//hop + 1) + more`: a window of `length` that moves by `hop`."""

    name: str
    count: int
    length: int
    hop: int
    factor: int = 1
    more: int = 0


class Call:
    """An atom that is not a name: `floor` of a quotient, `max` and `min`, `int` of a float times a formula."""

    __slots__ = ("arguments", "function", "key")

    def __init__(self, function: str, *arguments: Formula | float):
        self.function, self.arguments = function, arguments
        keys = (a._key if isinstance(a, Formula) else repr(a) for a in arguments)
        self.key = f"{function}({'; '.join(keys)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def evaluate(self, sizes: Mapping[str, Any]) -> Any:
        first, *rest = (a._value(sizes) if isinstance(a, Formula) else a for a in self.arguments)
        match self.function:
            case "floor":
                return first // rest[0]
            case "int":
                return int(first * rest[0])  # the float first, as Python rounds a product of the two
            case _:
                return (max if self.function == "max" else min)(first, *rest)

    def rebuilt(self, change: Callable[[Formula], Formula]) -> Formula:
        """The same call of other arguments."""
        first, *rest = (change(a) if isinstance(a, Formula) else a for a in self.arguments)
        match self.function:
            case "floor":
                return first // rest[0]
            case "int":
                return truncated_product(first, rest[0])
            case _:
                return extreme(self.function, [first, *rest])

    @property
    def hop(self) -> int:
        """By what a floor divides, where that is a number; otherwise 0."""
        return (self.arguments[1].constant or 0) if self.function == "floor" else 0


def order(atom: Atom) -> tuple[bool, str]:
    """Calls before names, each by what is written."""
    return (True, atom) if isinstance(atom, str) else (False, atom.key)


class Formula:
    """A whole number that depends on named sizes, which are positive whole numbers.

    Formulas can be added, subtracted, multiplied, divided with `//` and `%`, and compared: `==` asks whether two are
    the same number at every size, however they are written.

    Args:
        of: a number, a name, text as Python would write it (`+ - * // % **`, `max`, `min`, `int(0.3*T)`,
            `ceil(T/2)`), or an expression of sympy, with torch's own functions.

    Raises:
        ParameterError: anything else, or text that says something else.
    """

    __slots__ = ("__dict__", "terms")

    def __init__(self, of: int | str | Formula | sympy.Expr = 0):
        if isinstance(of, Formula):
            self.terms = of.terms
        elif isinstance(of, int):
            self.terms = {(): int(of)} if of else {}
        else:
            from . import notation  # which is made of formulas

            self.terms = (notation.parsed(of) if isinstance(of, str) else notation.from_sympy(of)).terms

    @classmethod
    def of_terms(cls, terms: Mapping[tuple, int]) -> Formula:
        made = cls.__new__(cls)
        made.terms = {atoms: factor for atoms, factor in terms.items() if factor}
        return made

    @classmethod
    def of_atom(cls, atom: Atom) -> Formula:
        return cls.of_terms({(atom,): 1})

    @cached_property
    def _key(self) -> str:
        """The same for formulas that are written in the same way."""
        terms = ([*(a if isinstance(a, str) else a.key for a in atoms), str(n)] for atoms, n in self.terms.items())
        return " + ".join(sorted(map("*".join, terms))) or "0"

    # what it holds

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sizes that it depends on, in alphabetical order."""
        found: set[str] = set()
        for atom in self._atoms:
            if isinstance(atom, str):
                found.add(atom)
            else:
                found.update(name for a in atom.arguments if isinstance(a, Formula) for name in a.names)
        return tuple(sorted(found))

    @property
    def constant(self) -> int | None:
        """Its value, where it depends on nothing."""
        return None if any(self.terms) else self.terms.get((), 0)

    @property
    def _atoms(self) -> set[Atom]:
        return {atom for atoms in self.terms for atom in atoms}

    def evaluate(self, **sizes: int) -> int:
        """Its value at these sizes; sizes that it does not depend on are ignored.

        Raises:
            ParameterError: a size is missing, or a divisor is 0 there.
        """
        missing = [name for name in self.names if name not in sizes]
        if missing:
            raise ParameterError(
                "sizes", f"{', '.join(missing)} not given", f"a number for each of {', '.join(self.names)}"
            )
        try:
            return self._value(sizes)
        except ZeroDivisionError:
            raise ParameterError("sizes", f"{self} divides by 0 at {sizes}", "larger sizes") from None

    def _value(self, sizes: Mapping[str, Any]) -> Any:  # of int, or of symbols that stand for one
        total = 0
        for atoms, factor in self.terms.items():
            for atom in atoms:
                factor *= sizes[atom] if isinstance(atom, str) else atom.evaluate(sizes)
            total += factor
        return total

    def substitute(self, **sizes: int | str | Formula) -> Formula:
        """With some names replaced, by numbers, names or formulas."""
        new = {name: Formula(size) for name, size in sizes.items()}
        if not new.keys() & set(self.names):
            return self
        total = Formula(0)
        for atoms, factor in self.terms.items():
            term = Formula(factor)
            for atom in atoms:
                if isinstance(atom, str):
                    term = term * new.get(atom, Formula.of_atom(atom))
                else:
                    term = term * atom.rebuilt(lambda argument: argument.substitute(**new))
            total = total + term
        return total

    def with_floor(self, old: Formula, new: Formula) -> Formula:
        """With one floor replaced by another, wherever it is a factor by itself."""
        if len(old.terms) != 1 or len(next(iter(old.terms))) != 1 or isinstance(next(iter(old.terms))[0], str):
            return self
        (floor,) = next(iter(old.terms))
        total = Formula(0)
        for atoms, factor in self.terms.items():
            term = Formula(factor)
            for atom in atoms:
                term = term * (new if atom == floor else Formula.of_atom(atom))
            total = total + term
        return total

    # arithmetic

    def __add__(self, other: int | Formula) -> Formula:
        other = _formula(other)
        if other is NotImplemented:
            return other
        terms = dict(self.terms)
        for atoms, factor in other.terms.items():
            terms[atoms] = terms.get(atoms, 0) + factor
        return Formula.of_terms(terms)

    def __mul__(self, other: int | Formula) -> Formula:
        other = _formula(other)
        if other is NotImplemented:
            return other
        terms: dict[tuple, int] = {}
        for (left, a), (right, b) in product(self.terms.items(), other.terms.items()):
            atoms = tuple(sorted(left + right, key=order)) if left and right else left or right
            terms[atoms] = terms.get(atoms, 0) + a * b
        return Formula.of_terms(terms)

    def __floordiv__(self, other: int | Formula) -> Formula:
        other = _formula(other)
        return other if other is NotImplemented else _floor(self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Formula:
        return Formula.of_terms({atoms: -factor for atoms, factor in self.terms.items()})

    def __sub__(self, other: int | Formula) -> Formula:
        return self + -_formula(other)

    def __rsub__(self, other: int | Formula) -> Formula:
        return -self + other

    def __rfloordiv__(self, other: int | Formula) -> Formula:
        return _formula(other) // self

    def __mod__(self, other: int | Formula) -> Formula:
        return self - (self // other) * other

    def __pow__(self, power: int) -> Formula:
        return reduce(lambda total, _: total * self, range(power), Formula(1))

    # comparison

    def __eq__(self, other: object) -> bool:
        """Whether both are the same number at every size.

        Formulas of one name whose floors divide by numbers are compared at every size of a whole period, which is a
        proof; where that is too much, at some thousand sizes.
        """
        if not isinstance(other, int | Formula):
            return NotImplemented
        difference = self - other
        if not difference.names:
            return not difference.terms
        return _vanishes(difference)

    def __hash__(self) -> int:
        """That of its values at a few sizes, since equal formulas may be written differently."""
        if self.constant is not None:
            return hash(self.constant)
        return hash(tuple(_safely(self, {name: _spread(name, i) for name in self.names}) for i in range(3)))

    # words

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        from .notation import written

        return written(self)

    def __repr__(self) -> str:
        return f"Formula({str(self)!r})"

    @cached_property
    def window(self) -> Window | None:
        """The window that moves along one name, where the formula is that; a plain name is a window of 1."""
        atoms = self._atoms
        if len(self.names) != 1 or any(len(term) > 1 for term in self.terms) or len(atoms) > 2:
            return None
        floors = [atom for atom in atoms if isinstance(atom, Call)]
        if len(floors) != 1:
            return Window(self.names[0], *self._line) if not floors else None
        (floor,), (name,) = floors, self.names
        top, hop, count = floor.arguments[0], floor.hop, self.terms[(floor,)]
        whole, constant = self.terms.get((name,), 0), self.terms.get((), 0)
        if not hop or count < 1 or whole % count or not top.terms.keys() <= {(name,), ()}:
            return None
        factor = top.terms[(name,)] + whole // count * hop  # (3*T)//2 is held as T + T//2
        length = hop - top.terms.get((), 0)
        steps, more = divmod(constant, count)
        if not more and length > steps * hop:  # count*((factor*T - length)//hop + 1), and the first needs something
            return Window(name, count, length - steps * hop, hop, factor)
        return Window(name, count, length, hop, factor, constant)

    @property
    def _line(self) -> tuple[int, int, int, int, int]:
        """Count, length, hop, factor and the rest of a formula without floors: each sample gives `count`."""
        (name,) = self.names
        return self.terms.get((name,), 0), 1, 1, 1, self.terms.get((), 0)

    def meaning(self, sample_rate: float | int | None = None, unit: str = "token") -> str:
        """What a window form says about time, as a sentence.

        `8*((T - 2800)//2560 + 1)` at 16 kHz: "8 tokens per 160 ms; the first need 175 ms; up to 159 ms at the end are
        dropped". Empty where the formula is no such window.

        Args:
            sample_rate: how many of the name make a second; without it, they are counted.
            unit: what is counted, in the singular.
        """
        if self.window is None or self.window.count < 1 or self.window.hop < 1:
            return ""
        name, count, length, hop, factor, more = self.window

        def long(size: Fraction) -> str:
            return _time(float(size) / sample_rate) if sample_rate else f"{_short(float(size))} of {name}"

        subject = f"one {unit}" if count == 1 else f"{count} {unit}s"
        told = [f"{subject} per {long(Fraction(hop, factor))}"]
        if more > 0:
            told.append(f"{more} more at any length")
        elif length > 1 or hop > 1:
            told.append(f"the first need{'s' if count == 1 else ''} {long(Fraction(-(-length // factor)))}")
        if hop > factor and length >= hop and more == 0:
            told.append(f"up to {long(Fraction((hop - 1) // factor))} at the end are dropped")
        elif 0 < length < hop and more == 0:
            told.append("what is left at the end is filled up")
        return "; ".join(told)


def sizes(text: str) -> tuple[Formula | None, ...]:
    """The formulas of a whole shape, `"B 8*((T - 2800)//2560 + 1) 768"`; None for `_` or `?`.

    Sizes are parted by spaces or commas; a space inside brackets parts nothing.

    Raises:
        ParameterError: a size is no formula.
    """
    text = re.sub(r"\s*([-+*/%])\s*", r"\1", text.strip())  # a space around an operator parts nothing either
    parts, depth = [""], 0
    for sign in text[1:-1] if text == "()" or _is_bracketed(text) else text:
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and sign in " ,":
            parts.append("")
        else:
            parts[-1] += sign
    return tuple(None if part in ("_", "?") else Formula(part) for part in parts if part)


def _is_bracketed(text: str) -> bool:
    """Whether one pair of brackets holds a list of sizes, as in `(B, T, 768)`."""
    depths, depth = [], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        depths.append((depth, sign))
    first_close = next((i for i, (depth, _) in enumerate(depths) if depth == 0), -1)
    return text.startswith("(") and first_close == len(text) - 1 and any(d == 1 and s == "," for d, s in depths)


def _formula(value: object) -> Formula:
    return value if isinstance(value, Formula) else Formula(value) if isinstance(value, int) else NotImplemented


# simplification


def _floor(top: Formula, bottom: Formula) -> Formula:
    """`top // bottom`, with everything taken out of the floor that can be."""
    divisor = bottom.constant
    if divisor is None:
        return _floor_by_formula(top, bottom)
    if divisor == 0:
        raise ZeroDivisionError(f"{top} // 0")
    if divisor < 0:
        top, divisor = -top, -divisor

    whole, rest = {}, {}
    for atoms, factor in top.terms.items():
        # Towards zero for what varies, so that -T stays -T; downwards for the number, so that it is in [0, divisor).
        quotient = int(Fraction(factor, divisor)) if atoms else factor // divisor
        whole[atoms], rest[atoms] = quotient, factor - quotient * divisor
    outside, inside = Formula.of_terms(whole), Formula.of_terms(rest)
    varying = {atoms: factor for atoms, factor in inside.terms.items() if atoms}
    if not varying:
        return outside  # what is left is a number below the divisor

    common = math.gcd(divisor, *varying.values())
    if common > 1:  # (2*x + 3)//4 is (x + 1)//2
        inside = Formula.of_terms({atoms: factor // common for atoms, factor in inside.terms.items()})
        return outside + _floor(inside, Formula(divisor // common))
    lead = min(varying, key=lambda atoms: [order(atom)[::-1] for atom in atoms])
    if varying[lead] < 0:  # -x//d is -((x + d - 1)//d)
        return outside - _floor(divisor - 1 - inside, Formula(divisor))
    for atoms, factor in varying.items():
        inner = atoms[0]
        if factor == 1 and len(atoms) == 1 and isinstance(inner, Call) and inner.hop:
            # (x//e + y)//d is (x + e*y)//(e*d), since y is whole
            others = inside - Formula.of_atom(inner)
            return outside + _floor(inner.arguments[0] + others * inner.hop, Formula(divisor * inner.hop))
    return outside + Formula.of_atom(Call("floor", inside, Formula(divisor)))


def _floor_by_formula(top: Formula, bottom: Formula) -> Formula:
    """`top // bottom`, where the divisor depends on sizes and is positive: what it divides exactly is taken out."""
    if len(bottom.terms) == 1:
        ((below, divisor),) = bottom.terms.items()
        whole, rest = {}, {}
        for atoms, factor in top.terms.items():
            left = list(atoms)
            if factor % divisor == 0 and all(atom in left and not left.remove(atom) for atom in below):
                whole[tuple(left)] = factor // divisor
            else:
                rest[atoms] = factor
        outside, top = Formula.of_terms(whole), Formula.of_terms(rest)
    else:
        lead, divisor = next(iter(bottom.terms.items()))
        times = top.terms.get(lead, 0) // divisor
        outside, top = (Formula(times), Formula(0)) if top._key == (bottom * times)._key else (Formula(0), top)
    if not top.terms:
        return outside
    return outside + Formula.of_atom(Call("floor", top, bottom))


def extreme(function: str, items: Iterable[Formula]) -> Formula:
    """The largest or the smallest of several, without those that are known to be neither."""
    kept: list[Formula] = []
    sign = 1 if function == "max" else -1
    for item in items:
        gaps = [_least((item - other) * sign) for other in kept]
        if any((least := _least((other - item) * sign)) is not None and least >= 0 for other in kept):
            continue
        kept = [other for other, gap in zip(kept, gaps, strict=True) if gap is None or gap < 0]
        kept.append(item)
    if len(kept) == 1:
        return kept[0]
    return Formula.of_atom(Call(function, *sorted(kept, key=lambda item: item._key)))


def _least(formula: Formula) -> int | None:
    """A number that the formula is never below, as sizes are at least 1; None where that is not seen."""
    total = 0
    for atoms, factor in formula.terms.items():
        lowest = [_least_of(atom) for atom in atoms]
        if atoms and (factor < 0 or any(low is None or low < 0 for low in lowest)):
            return None
        total += factor * math.prod(lowest)
    return total


def _least_of(atom: Atom) -> int | None:
    if isinstance(atom, str):
        return 1
    if atom.function == "int":
        return 0
    lowest = [_least(argument) for argument in atom.arguments]
    known = [low for low in lowest if low is not None]
    if atom.function == "max":
        return max(known, default=None)
    if None in lowest:
        return None
    return min(lowest) if atom.function == "min" else lowest[0] // lowest[1] if atom.hop else None


def truncated_product(factor: float, of: Formula) -> Formula:
    """`int(factor*of)`; exact as a floor where the factor is a short sum of powers of two."""
    exact = Fraction(factor)
    if exact.denominator <= DYADIC and exact > 0:
        return (of * exact.numerator) // exact.denominator
    return Formula.of_atom(Call("int", factor, of)) if of.constant is None else Formula(int(factor * of.constant))


# equality


def _spread(name: str, i: int) -> int:
    """A size for trying out, another for each name and i."""
    return 2 + zlib.crc32(f"{name}{i}".encode()) % (50 if i % 4 == 0 else 5_000 if i % 4 < 3 else 5_000_000)


def _safely(formula: Formula, sizes: Mapping[str, int]) -> int | None:
    try:
        return formula._value(sizes)
    except ZeroDivisionError:
        return None


def _vanishes(difference: Formula) -> bool:
    """Whether a formula is 0 at every size."""
    points = ({name: _spread(name, i) for name in difference.names} for i in range(32))
    if any(_safely(difference, point) for point in points):
        return False
    period, degree = _period(difference)
    if len(difference.names) == 1 and period and period * (degree + 1) <= PROOF:
        (name,) = difference.names
        return not any(difference._value({name: size}) for size in range(1, period * (degree + 1) + 1))
    points = ({name: _spread(name, i) for name in difference.names} for i in range(32, 2032))
    return not any(_safely(difference, point) for point in points)


def _period(formula: Formula) -> tuple[int, int]:
    """After how many sizes the floors repeat, and the degree; a period of 0 is one that is not known."""
    period, degree = 1, 0
    for atoms in formula.terms:
        degree = max(degree, len(atoms))
        for atom in atoms:
            if isinstance(atom, Call):
                inner, below = _period(atom.arguments[0]) if atom.hop else (0, 0)
                period, degree = math.lcm(period, inner * atom.hop), max(degree, len(atoms) * below)
    return period, degree


# words


def _short(number: float) -> str:
    """Three digits, cut off rather than rounded, so that a limit is not overstated."""
    if number >= 100 or number == int(number):
        return str(int(number))
    digits = 2 - math.floor(math.log10(number))
    return f"{math.floor(number * 10**digits) / 10**digits:g}"


def _time(seconds: float) -> str:
    # Ratios of whole numbers: a hair below 20 ms is 20 ms
    milliseconds = round(1000 * seconds, 6)
    return f"{_short(milliseconds)} ms" if milliseconds < 1000 else f"{_short(milliseconds / 1000)} s"
