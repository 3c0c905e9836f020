"""The compatibility of lengths at every size of their input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from html import escape
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, check_whole
from .formula import Call, Formula
from .rendering import report
from .steering import nested
from .widget import Widget, widget

LIMIT = 2**25  # the largest size that is tried
CHUNK = 2**16
NEAR = Fraction(1, 50)  # a ratio this near to a whole number is meant to be one
GAPS = 5  # differences of 0, 1, ... whole frames whose first length is found


@dataclass(frozen=True)
class Pair:
    """A length beside the first, at a `ratio` of frames to one.

    `parts` has, for 0, 1, 2, ... frames, the first size at which they differ by more; None if they never do.
    """

    name: str
    formula: Formula
    ratio: Fraction
    parts: tuple[int | None, ...]
    proven: bool  # for every size; otherwise for those up to the limit

    @property
    def agrees(self) -> bool:
        return self.parts[0] is None


@dataclass(frozen=True, repr=False)
class Coupling:
    """Lengths with their compatibility. True if all are compatible at every size."""

    of: str  # the name in all formulas; empty if all are numbers
    lengths: dict[str, Formula]
    pairs: tuple[Pair, ...]
    start: int  # the smallest size at which each has at least one frame
    sample_rate: float | int | None = None
    limit: int = LIMIT

    def __bool__(self) -> bool:
        return all(pair.agrees for pair in self.pairs)

    @property
    def parts_at(self) -> int | None:
        """The first size at which one of them differs."""
        return min((pair.parts[0] for pair in self.pairs if not pair.agrees), default=None)

    def at(self, size: int) -> dict[str, int]:
        return {name: formula.evaluate(**{self.of or "_": size}) for name, formula in self.lengths.items()}

    @property
    def _sentences(self) -> list[str]:
        found = [", ".join(f"{name}: {formula}" for name, formula in self.lengths.items())]
        if same := [pair for pair in self.pairs if pair.agrees and pair.ratio == 1]:
            names = [next(iter(self.lengths)), *(pair.name for pair in same)]
            reach = self._reach(all(pair.proven for pair in same)) if self.of else ""
            found.append(f"{', '.join(names[:-1])} and {names[-1]} agree {reach}".rstrip())
        return found + [self._sentence(pair) for pair in self.pairs if pair not in same]

    def _reach(self, proven: bool) -> str:
        return "at every length" if proven else f"at every length that was tried, up to {self._long(self.limit)}"

    def _sentence(self, pair: Pair) -> str:
        name, (top, bottom) = next(iter(self.lengths)), pair.ratio.as_integer_ratio()
        frames = "one frame" if bottom == 1 else f"{bottom} frames"
        text = f"{pair.name}: {frames} per {f'{top} of' if top > 1 else 'frame of'} {name}"
        if pair.agrees:
            return f"{text}, {self._reach(pair.proven)}" if self.of else text
        at = pair.parts[0]
        lengths = self.at(at)
        wanted = lengths[name] * bottom // top
        here = f"{name} has {lengths[name]:,}, {pair.name} {lengths[pair.name]:,}, not {wanted:,}"
        if not self.of:
            return f"{text}? No: {here}"
        text += f" up to {self._long(at - 1)}" if at > self.start else "? No"
        text += f"; they first differ at {self._long(at)}: {here}"
        if None in pair.parts:
            tried = "" if pair.proven else f", as far as was tried, {self._long(self.limit)}"
            return f"{text}; they are never more than {pair.parts.index(None)} apart{tried}"
        return f"{text}; they drift: more than {GAPS - 1} apart at {self._long(pair.parts[-1])}"

    def _long(self, size: int) -> str:
        return f"{self.of} = {size:,}" + (f" ({size / self.sample_rate:.4g} s)" if self.sample_rate else "")

    def __repr__(self) -> str:
        return "\n".join([f"compatible: {'yes' if self else 'no'}", *self._sentences])

    def steer(self) -> Widget:
        """Show the lengths under one slider, with where they part."""
        start, rate = self.parts_at or self.start, self.sample_rate
        ratios = [Fraction(1), *(pair.ratio for pair in self.pairs)]
        lengths = [
            [name, str(formula), nested(formula), *ratio.as_integer_ratio()]
            for (name, formula), ratio in zip(self.lengths.items(), ratios, strict=True)
        ]
        slider = [self.of, start, self.start, max(4 * start, 30 * int(rate or 0)), rate]
        data = {"lengths": lengths, "sliders": [slider]}
        still = f"<pre>{escape(repr(self), False)}</pre>"
        return widget("steer", data, text=f"lengths at any {self.of}", still=still)

    def _repr_html_(self) -> str:
        return report(f"compatible: {'yes' if self else 'no'}", self._sentences)


def couple(*lengths: Any, sample_rate: float | int | None = None, limit: int = LIMIT, **named: Any) -> Coupling:
    """Compare lengths at every size of their input.

        couple(mel="T//160", pitch="T//160", units="(T - 400)//320 + 1", sample_rate=16000)

    Each is compared with the first, divided by their ratio and rounded down. The ratio is that of their growth; within
    2 % of a whole number, or of one divided by it, it is taken for that. Each must have at least one frame.

    Args:
        sample_rate: how many of their name make a second, for the sentences.
        limit: the largest size that is tried if there is no proof.

    Raises:
        ParameterError: fewer than two lengths, no formula, one that grows as a square, or lengths of different names.
    """
    check_whole("limit", limit, 1)
    given = {f"length {number}": value for number, value in enumerate(lengths, 1)} | named
    if len(given) < 2:
        raise ParameterError("lengths", f"{len(given)} given", "two or more")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | str | Formula):
            raise ParameterError(name, f"a {type(value).__name__}", "a formula, text or a number")
    formulas = {name: Formula(value) for name, value in given.items()}
    for name, formula in formulas.items():
        if formula.period[1] > 1:
            raise ParameterError(name, str(formula), "a length that grows in proportion to its name")
    names = sorted({name for formula in formulas.values() for name in formula.names})
    if len(names) > 1:
        found = "; ".join(f"{name}: {formula}" for name, formula in formulas.items())
        hint = "Express one by the other with Formula.substitute."
        raise ParameterError("lengths", found, "lengths of one name", hint)
    of = names[0] if names else ""
    fewest = Formula.extreme("min", formulas.values())
    if (start := _first(Formula.extreme("max", [fewest, Formula(0)]), 0, 1, limit)) is None:
        found = f"one of them has no frame up to {of} = {limit:,}"
        raise ParameterError("lengths", found, "lengths of at least one")
    end = limit if of else 1
    first, *others = formulas.items()
    pairs = tuple(_pair(first[1], name, formula, of, start, end) for name, formula in others)
    return Coupling(of, formulas, pairs, start, sample_rate, limit)


def _values(of: Formula | Call | str, at: Tensor) -> Tensor:
    """A formula of one name at many sizes, `(sizes,)` of int64."""
    if isinstance(of, str):
        return at
    if isinstance(of, Formula):
        each = (math.prod((_values(atom, at) for atom in atoms), start=factor) for atoms, factor in of.terms.items())
        return sum(each, torch.zeros_like(at))
    if of.rounds:
        (real,) = of.arguments
        rounding = torch.trunc if of.function == "int" else getattr(torch, of.function)
        return rounding(real.value({name: at.double() for name in real.names})).long()
    step = {"floor": torch.floor_divide, "max": torch.maximum, "min": torch.minimum}[of.function]
    return reduce(step, (_values(argument, at) for argument in of.arguments))


def _first(formula: Formula, above: int, start: int, end: int) -> int | None:
    """The first size, from one to another, at which a formula is further from 0 than a number."""
    for begin in range(start, end + 1, CHUNK):
        found = _values(formula, torch.arange(begin, min(begin + CHUNK, end + 1))).abs() > above
        if bool(found.any()):
            return begin + int(found.to(torch.uint8).argmax())
    return None


def _growth(formula: Formula, of: str) -> Fraction:
    """The growth per unit of the name, in the long run."""
    far = 2**40
    period = 2**4 * 3**3 * 5**4 * 7**2 * 11 * 13
    low, high = (formula.evaluate(**{of or "_": size}) for size in (far, far + far * period))
    return Fraction(high - low, far * period).limit_denominator(10**7)


def _pair(first: Formula, name: str, formula: Formula, of: str, start: int, limit: int) -> Pair:
    mine, other = _growth(first, of), _growth(formula, of)
    if mine == 0 or other == 0:
        ratio = _rounded(Fraction(first.constant or 1, formula.constant or 1))
        ratio = ratio if 1 in (ratio.numerator, ratio.denominator) else Fraction(1)
    else:
        ratio = _rounded(mine / other)
    gap = formula - (first * ratio.denominator) // ratio.numerator
    if not gap.terms:
        return Pair(name, formula, ratio, (None,) * GAPS, True)
    # Unless it drifts, the gap repeats after a whole period of all floors
    period = gap.period[0] if mine == other * ratio else 0
    proven = bool(period) and start + period - 1 <= limit
    end = start + period - 1 if proven else limit
    parts: list[int | None] = []
    for apart in range(GAPS):  # it passes each on its way to the next
        begin = parts[-1] if parts else start
        parts.append(None if begin is None else _first(gap, apart, begin, end))
    return Pair(name, formula, ratio, tuple(parts), proven)


def _rounded(ratio: Fraction) -> Fraction:
    """The whole number, or one divided by it, nearest to a ratio."""
    for turned in (ratio, 1 / ratio):
        near = Fraction(round(turned))
        if near and abs(turned / near - 1) <= NEAR:
            return near if turned is ratio else 1 / near
    return ratio
