"""Formulas of sizes: whole-number arithmetic on named sizes.

A formula is a sum of products of names and calls such as floors, `8*((T - 2800)//2560 + 1)`. Nested floors collapse
into one, exactly, so that the effect of ten layers on a length reads as one window and one hop.
"""

from __future__ import annotations

import math
import operator
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from itertools import product
from typing import Any, NamedTuple

import torch

from ..errors import ParameterError
from .dividing import floor, least
from .notation import Reader, Real, bracketed, order, three_digits, written, written_time

Atom = "str | Call"  # a factor of a term: a name, or a call with a whole value
ROUNDINGS = {"int": math.trunc, "floor": math.floor, "ceil": math.ceil, "round": round}  # of one argument
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
    """An atom that is no name: `floor`, `max`, `min` or `int`."""

    __slots__ = ("__dict__", "arguments", "function", "hop", "key")

    def __init__(self, function: str, *arguments: Formula | Real):
        self.function, self.arguments = function, arguments
        keys = (a._key if isinstance(a, Formula) else str(a) for a in arguments)
        self.key = f"{function}({'; '.join(keys)})"
        self.hop = 0 if function != "floor" or self.rounds else arguments[1].constant or 0  # of a floor by a number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def evaluate(self, sizes: Mapping[str, Any]) -> Any:
        first, *rest = (a.value(sizes) for a in self.arguments)
        if self.rounds:
            return ROUNDINGS[self.function](first)
        if self.function == "floor":
            return first // rest[0]
        symbolic = not all(isinstance(value, int) for value in (first, *rest))
        either = {"max": (max, torch.sym_max), "min": (min, torch.sym_min)}[self.function][symbolic]
        return reduce(either, rest, first)

    def rebuilt(self, change: Callable[[Formula], Formula]) -> Formula:
        """Apply the same function to changed arguments."""
        first, *rest = (change(a) if isinstance(a, Formula) else a.rebuilt(change) for a in self.arguments)
        if self.rounds:
            return Formula.rounded(self.function, first)
        return first // rest[0] if self.function == "floor" else Formula.extreme(self.function, [first, *rest])

    @property
    def rounds(self) -> bool:
        """True for what rounds a floating-point number."""
        return isinstance(self.arguments[0], Real)

    @cached_property
    def least(self) -> int | None:
        """A lower bound; None if none is known."""
        if self.rounds:
            return self.arguments[0].least
        lowest = [argument.least for argument in self.arguments]
        if self.function == "max":
            return max((low for low in lowest if low is not None), default=None)
        if None in lowest:
            return None
        if self.function == "min":
            return min(lowest)
        return lowest[0] // self.hop if self.hop else 0 if min(lowest) >= 0 else None


class Formula:
    """A whole number that depends on named, positive whole sizes.

    Formulas can be added, subtracted, multiplied, divided with `//` and `%`, and compared: `==` tests whether two give
    the same number at every size, whatever their form.

    Args:
        of: a number, a name, text as in Python (`+ - * // % **`, `max`, `min`, `int(0.3*T)`, `ceil(T/2)`).

    Raises:
        ParameterError: anything else.
    """

    __slots__ = ("__dict__", "terms")

    def __init__(self, of: Any = 0):
        if isinstance(of, Formula):
            self.terms = of.terms
        elif isinstance(of, int):
            self.terms = {(): int(of)} if of else {}
        else:
            if not isinstance(of, str):
                raise ParameterError("formula", repr(of), "text, a whole number or a formula")
            self.terms = _reader.text(of).terms

    @classmethod
    def of_terms(cls, terms: Mapping[tuple, int]) -> Formula:
        made = cls.__new__(cls)
        made.terms = {atoms: factor for atoms, factor in terms.items() if factor}
        return made

    @classmethod
    def of_atom(cls, atom: Atom) -> Formula:
        return cls.of_terms({(atom,): 1})

    @classmethod
    def of_call(cls, function: str, *arguments: Formula) -> Formula:
        return cls.of_atom(Call(function, *arguments))

    @classmethod
    def extreme(cls, function: str, items: Iterable[Formula]) -> Formula:
        """Return the `max` or `min` of formulas, without those never reached."""
        kept: list[Formula] = []
        sign = 1 if function == "max" else -1
        for item in items:
            gaps = [((item - other) * sign).least for other in kept]
            if any((least := ((other - item) * sign).least) is not None and least >= 0 for other in kept):
                continue
            kept = [other for other, gap in zip(kept, gaps, strict=True) if gap is None or gap < 0]
            kept.append(item)
        if len(kept) == 1:
            return kept[0]
        return cls.of_atom(Call(function, *sorted(kept, key=lambda item: item._key)))

    @classmethod
    def rounded(cls, function: str, of: Any) -> Formula:
        """`int`, `ceil` or `round` of a `Real`; a floor if that is the same at every size."""
        if isinstance(of, Formula):
            return of
        if isinstance(of, float):
            return cls(ROUNDINGS[function](of))
        exact = of.exact() if function != "round" else None
        if exact is None or (function == "int" and (exact[0].least is None or exact[0].least < 0)):
            return cls.of_atom(Call(function, of))
        return -(-exact[0] // exact[1]) if function == "ceil" else exact[0] // exact[1]

    @cached_property
    def _key(self) -> str:
        """The same text for formulas of the same form."""
        terms = ([*(a if isinstance(a, str) else a.key for a in atoms), str(n)] for atoms, n in self.terms.items())
        return " + ".join(sorted(map("*".join, terms))) or "0"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sizes that it depends on, in alphabetical order."""
        found: set[str] = set()
        for atom in self._atoms:
            if isinstance(atom, str):
                found.add(atom)
            else:
                found.update(name for argument in atom.arguments for name in argument.names)
        return tuple(sorted(found))

    @property
    def constant(self) -> int | None:
        """Its value, if it depends on no size."""
        return None if any(self.terms) else self.terms.get((), 0)

    @property
    def is_name(self) -> bool:
        return str(self).isidentifier()

    @cached_property
    def least(self) -> int | None:
        """A lower bound for sizes of at least 1, or None."""
        return least(self)

    @property
    def _atoms(self) -> set[Atom]:
        return {atom for atoms in self.terms for atom in atoms}

    def evaluate(self, **sizes: int) -> int:
        """Return its value at these sizes; other names are ignored.

        Raises:
            ParameterError: a size is missing, or a divisor is 0 there.
        """
        if missing := ", ".join(name for name in self.names if name not in sizes):
            raise ParameterError("sizes", f"{missing} not given", f"a number for each of {', '.join(self.names)}")
        try:
            return self.value(sizes)
        except ZeroDivisionError:
            raise ParameterError("sizes", f"{self} divides by 0 at {sizes}", "larger sizes") from None

    def value(self, sizes: Mapping[str, Any]) -> Any:
        """Return its value at sizes, which may be torch's symbols."""
        total = 0
        for atoms, factor in self.terms.items():
            for atom in atoms:
                factor *= sizes[atom] if isinstance(atom, str) else atom.evaluate(sizes)
            total += factor
        return total

    def value_at(self, sizes: Mapping[str, int]) -> int | None:
        """Return its value; None without a size, for division by 0, and for the root of a negative number."""
        try:
            return self.value(sizes)
        except (ZeroDivisionError, KeyError, TypeError):
            return None

    def rebuilt(self, change: Callable[[Atom], Formula]) -> Formula:
        total = Formula(0)
        for atoms, factor in self.terms.items():
            term = Formula(factor)
            for atom in atoms:
                term = term * change(atom)
            total = total + term
        return total

    def substitute(self, **sizes: int | str | Formula) -> Formula:
        new = {name: Formula(size) for name, size in sizes.items()}

        def change(atom: Atom) -> Formula:
            if isinstance(atom, str):
                return new.get(atom, Formula.of_atom(atom))
            return atom.rebuilt(lambda argument: argument.substitute(**new))

        return self.rebuilt(change) if new.keys() & set(self.names) else self

    def with_floor(self, old: Formula, new: Formula) -> Formula:
        """Replace one floor by another wherever it is a factor by itself."""
        floors = [atoms[0] for atoms in old.terms if len(atoms) == 1 and isinstance(atoms[0], Call)]
        if not floors or len(old.terms) > 1:
            return self
        return self.rebuilt(lambda atom: new if atom == floors[0] else Formula.of_atom(atom))

    def __add__(self, other: int | Formula) -> Formula:
        terms = dict(self.terms)
        for atoms, factor in _formula(other).terms.items():
            terms[atoms] = terms.get(atoms, 0) + factor
        return Formula.of_terms(terms)

    def __mul__(self, other: int | Formula) -> Formula:
        terms: dict[tuple, int] = {}
        for (left, a), (right, b) in product(self.terms.items(), _formula(other).terms.items()):
            atoms = tuple(sorted(left + right, key=order)) if left and right else left or right
            terms[atoms] = terms.get(atoms, 0) + a * b
        return Formula.of_terms(terms)

    def __floordiv__(self, other: int | Formula) -> Formula:
        return floor(self, _formula(other))

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

    def __eq__(self, other: object) -> bool:
        """Compare at every size of a period, or at thousands."""
        if not isinstance(other, int | Formula):
            return NotImplemented
        difference = self - other
        return difference._vanishes() if difference.names else not difference.terms

    def __hash__(self) -> int:
        """Hash the values at a few sizes, whatever the form."""
        if self.constant is not None:
            return hash(self.constant)
        return hash(tuple(self._at_points(range(3))))

    def _at_points(self, numbers: range) -> Iterable[int | None]:
        """Values at pseudo-random sizes, the same in every process."""
        for i in numbers:
            most = 50 if i % 4 == 0 else 5_000 if i % 4 < 3 else 5_000_000
            yield self.value_at({name: 2 + zlib.crc32(f"{name}{i}".encode()) % most for name in self.names})

    def _vanishes(self) -> bool:
        """True if it is 0 at every size."""
        if any(self._at_points(range(32))):
            return False
        period, degree = self.period
        if len(self.names) == 1 and period and period * (degree + 1) <= PROOF:
            (name,) = self.names
            return not any(self.value({name: size}) for size in range(1, period * (degree + 1) + 1))
        return not any(self._at_points(range(32, 2032)))

    @property
    def period(self) -> tuple[int, int]:
        """The period of the floors, 0 if unknown; and the degree."""
        period, degree = 1, 0
        for atoms in self.terms:
            degree = max(degree, len(atoms))
            for atom in atoms:
                if isinstance(atom, Call):
                    inner, below = atom.arguments[0].period if atom.hop else (0, 0)
                    period, degree = math.lcm(period, inner * atom.hop), max(degree, len(atoms) * below)
        return period, degree

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return written(self)

    def __repr__(self) -> str:
        return f"Formula({str(self)!r})"

    @cached_property
    def window(self) -> Window | None:
        """The window that moves along one name, or None."""
        atoms = self._atoms
        if len(self.names) != 1 or any(len(term) > 1 for term in self.terms) or len(atoms) > 2:
            return None
        (name,), constant = self.names, self.terms.get((), 0)
        whole = self.terms.get((name,), 0)
        floors = [atom for atom in atoms if isinstance(atom, Call)]
        if not floors:
            return Window(name, whole, 1, 1, 1, constant)
        if len(floors) > 1:
            return None
        (floor,) = floors
        top, hop, count = floor.arguments[0], floor.hop, self.terms[(floor,)]
        if not hop or count < 1 or whole % count or not top.terms.keys() <= {(name,), ()}:
            return None
        factor = top.terms[(name,)] + whole // count * hop  # (3*T)//2 is stored as T + T//2
        length = hop - top.terms.get((), 0)
        steps, more = divmod(constant, count)
        if not more and length > steps * hop:  # count*((factor*T - length)//hop + 1), and the first needs something
            return Window(name, count, length - steps * hop, hop, factor)
        return Window(name, count, length, hop, factor, constant)

    def meaning(self, sample_rate: float | int | None = None, unit: str = "token") -> str:
        """Describe the window in time as a sentence; empty without one.

        At 16 kHz `(T - 400)//320 + 1` is "one token per 20 ms; the first needs 25 ms; ...".

        Args:
            sample_rate: how many of the name make a second; without it, they are counted.
            unit: what is counted, in the singular.
        """
        if self.window is None or self.window.count < 1 or self.window.hop < 1:
            return ""
        name, count, length, hop, factor, more = self.window

        def long(size: Fraction) -> str:
            return written_time(float(size) / sample_rate) if sample_rate else f"{three_digits(float(size))} of {name}"

        subject = f"one {unit}" if count == 1 else f"{count} {unit}s"
        parts = [f"{subject} per {long(Fraction(hop, factor))}"]
        if more > 0:
            parts.append(f"{more} more at any length")
        elif length > 1 or hop > 1:
            parts.append(f"the first need{'s' if count == 1 else ''} {long(Fraction(-(-length // factor)))}")
        if hop > factor and length >= hop and more == 0:
            parts.append(f"up to {long(Fraction((hop - 1) // factor))} at the end are dropped")
        elif 0 < length < hop and more == 0:
            parts.append("what is left at the end is filled up")
        return "; ".join(parts)


@dataclass(frozen=True)
class Relation:
    """A comparison of two formulas, such as `T >= 400`."""

    sign: str
    left: Formula
    right: Formula

    @classmethod
    def read(cls, text: str) -> Relation:
        """Read a comparison; ValueError for any other text."""
        left, sign, right = re.split(f" ({'|'.join(OPPOSITES)}) ", text)
        return cls(sign, Formula(left), Formula(right))

    @property
    def names(self) -> set[str]:
        return {*self.left.names, *self.right.names}

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return True if it holds at these sizes, or has no value there."""
        left, right = self.left.value_at(sizes), self.right.value_at(sizes)
        return left is None or right is None or COMPARISONS[self.sign](left, right)

    def negated(self) -> Relation:
        return Relation(OPPOSITES[self.sign], self.left, self.right)

    def proven(self) -> bool | None:
        """Return the answer at every size, or None."""
        sign, gap = self.sign, self.left - self.right
        if gap.constant is not None:
            return COMPARISONS[sign](gap.constant, 0)
        above, below = gap.least, (-gap).least
        if sign in ("==", "!="):
            apart = any(least is not None and least > 0 for least in (above, below))
            return (sign == "!=") if apart else None
        if sign in ("<", "<="):
            above, below = below, above
        strict = sign in ("<", ">")
        if above is not None and above >= strict:
            return True
        return False if below is not None and below >= (not strict) else None

    @cached_property
    def division(self) -> tuple[Formula, int] | None:
        """Numerator and divisor of `x % m == 0` or `!= 0`, otherwise None."""
        gap = self.left - self.right
        for atoms, factor in gap.terms.items() if self.sign in ("==", "!=") else ():
            hop = atoms[0].hop if len(atoms) == 1 and not isinstance(atoms[0], str) else 0
            number = abs(factor)
            if not hop or hop % number:
                continue
            floor = Formula.of_atom(atoms[0])
            whole = gap + number * floor if factor < 0 else number * floor - gap
            if whole // number == floor:  # gap is whole - number*(whole//number)
                return whole, number
        return None

    def factors(self) -> list[Relation]:
        """Return `a == m*(a//m)` for each factor of a product that says so of all; otherwise itself alone."""
        if self.sign != "==" or len(self.left.terms) != 1 or len(self.right.terms) != 1:
            return [self]
        ((whole, number),), ((floors, most),) = self.left.terms.items(), self.right.terms.items()
        found, left = [], [atom for atom in floors if atom not in whole]
        for atom in (atom for atom in whole if atom not in floors):
            hop = 1 if isinstance(atom, str) else atom.hop
            near = [floor for floor in left if hop and not isinstance(floor, str) and floor.hop % hop == 0]
            pairs = [(floor.hop // hop, floor) for floor in near if floor.hop]
            part = Formula.of_atom(atom)
            step = next(((m, floor) for m, floor in pairs if part // m == Formula.of_atom(floor)), None)
            if step is None:
                return [self]
            left.remove(step[1])
            number *= step[0]
            found.append(Relation("==", part, step[0] * Formula.of_atom(step[1])))
        return found if not left and number == most else [self]

    @cached_property
    def text(self) -> str:
        """The comparison with a number on the right: `T % 16 == 0`."""
        sign, left, right = self.sign, self.left, self.right
        if left.constant is not None:
            left, right, sign = right, left, sign.translate(str.maketrans("<>", "><"))
        if self.division is not None and len(self.division[0].terms) == len(left.names) == 1:
            return f"{bracketed(self.division[0])} % {self.division[1]} {sign} 0"
        return f"{left} {sign} {right}"


COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<=": operator.le, ">=": operator.ge}
COMPARISONS |= {"<": operator.lt, ">": operator.gt}
OPPOSITES = {"==": "!=", "!=": "==", "<=": ">", ">=": "<", ">": "<=", "<": ">="}
_reader = Reader(Formula)
sizes = _reader.shape


def _formula(value: object) -> Formula:
    if not isinstance(value, int | Formula):
        raise TypeError(f"{value!r} is neither a formula nor a whole number")
    return value if isinstance(value, Formula) else Formula(value)
