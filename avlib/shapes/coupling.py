"""Do lengths that belong together stay together? Answered for every length, or with the first at which they part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError
from .formula import Call, Formula
from .page import report
from .rows import Recording, Row, TensorInfo

LIMIT = 2**25  # the longest length that is tried, of whatever the name counts
CHUNK = 2**16
NEAR = Fraction(1, 50)  # a ratio this near to a whole number is meant to be one


@dataclass(frozen=True)
class Pair:
    """How one length follows the first.

    `ratio` is how many of the first go with one of this. `parts` says, for 0, 1, 2, ... whole frames, the first length
    at which this one is further than that from where the first wants it; None at no length.
    """

    name: str
    formula: Formula
    ratio: Fraction
    parts: tuple[int | None, ...]
    proven: bool  # for every length; otherwise for those up to the limit

    @property
    def agrees(self) -> bool:
        return self.parts[0] is None


@dataclass(frozen=True)
class Coupling:
    """Whether several lengths stay compatible. True where all do, at every length."""

    of: str  # the name that all follow; empty where all are numbers
    first: tuple[str, Formula]
    pairs: tuple[Pair, ...]
    start: int  # the shortest length at which each has at least one frame
    tolerance: int = 0
    sample_rate: float | int | None = None
    limit: int = LIMIT

    @property
    def compatible(self) -> bool:
        return all(pair.parts[self.tolerance] is None for pair in self.pairs)

    def __bool__(self) -> bool:
        return self.compatible

    @property
    def parts_at(self) -> int | None:
        """The first length at which one of them is further away than is tolerated."""
        return min((p for pair in self.pairs if (p := pair.parts[self.tolerance]) is not None), default=None)

    def at(self, size: int) -> dict[str, int]:
        """All lengths at one size."""
        both = (self.first, *((pair.name, pair.formula) for pair in self.pairs))
        return {name: formula.evaluate(**{self.of or "_": size}) for name, formula in both}

    @property
    def _sentences(self) -> list[str]:
        name, formula = self.first
        told = [f"{n}: {f}" for n, f in ((name, formula), *((pair.name, pair.formula) for pair in self.pairs))]
        found = [", ".join(told)]
        same = [pair.name for pair in self.pairs if pair.agrees and pair.ratio == 1]
        if same:
            span = "at every length" if all(p.proven for p in self.pairs if p.name in same) else self._up_to
            found.append(f"{_listed([name, *same])} agree {span if self.of else ''}".rstrip())
        return found + [self._told(pair) for pair in self.pairs if pair.name not in same]

    @property
    def _up_to(self) -> str:
        return f"at every length that was tried, up to {self._long(self.limit)}"

    def _told(self, pair: Pair) -> str:
        name = self.first[0]
        told = f"{pair.name}: {_ratio(pair.ratio, name)}"
        if pair.agrees:
            return f"{told}, {'at every length' if pair.proven else self._up_to}" if self.of else told
        at = pair.parts[0]
        lengths = self.at(at)
        wanted = lengths[name] * pair.ratio.denominator // pair.ratio.numerator
        here = f"{name} has {lengths[name]:,}, {pair.name} {lengths[pair.name]:,}, not {wanted:,}"
        if not self.of:
            return f"{told}? No: {here}"
        told += f" up to {self._long(at - 1)}" if at > self.start else "? No"
        told += f"; they first differ at {self._long(at)}: {here}"
        if None in pair.parts:
            tried = "" if pair.proven else f", as far as was tried, {self._long(self.limit)}"
            return f"{told}; they are never more than {pair.parts.index(None)} apart{tried}"
        last = len(pair.parts) - 1
        return f"{told}; they drift: more than {last} apart at {self._long(pair.parts[last])}"

    def _long(self, size: int) -> str:
        told = f"{self.of} = {size:,}"
        return told + (f" ({size / self.sample_rate:.4g} s)" if self.sample_rate else "")

    def __str__(self) -> str:
        answer = "yes" if self.compatible else "no"
        if self.tolerance:
            answer += f", with {self.tolerance} of tolerance"
        return "\n".join([f"compatible: {answer}", *self._sentences])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *told = str(self).splitlines()
        return report(head, told)


def couple(
    *lengths: Any, tolerance: int = 0, sample_rate: float | int | None = None, limit: int = LIMIT, **named: Any
) -> Coupling:
    """Whether lengths stay compatible, whatever the length of what they come from.

        couple(mel="T//160", pitch="T//160", units="(T - 400)//320 + 1", sample_rate=16000)

    Each is compared with the first: they are compatible if the other is the first, divided by their ratio and rounded
    down. The ratio is that of their growth; one that is within 2 % of a whole number, or of one divided by it, is taken
    to be meant as that. Each must have at least one frame.

    Args:
        lengths: formulas, text, numbers; traces, rows or tensors of a trace, whose one axis that varies is meant.
        tolerance: by how many frames they may differ; at most 3.
        sample_rate: how many of what they follow make a second, for the words.
        limit: how far to look where there is no proof.
        named: the same, by name.

    Raises:
        ParameterError: fewer than two lengths, one that is unknown, or lengths that follow different names.
    """
    if not 0 <= tolerance <= 3:
        raise ParameterError("tolerance", str(tolerance), "0, 1, 2 or 3")
    if limit < 1:
        raise ParameterError("limit", str(limit), "1 or more")
    given = [*_named(lengths, named.keys()), *((name, _length(value, name)) for name, value in named.items())]
    if len(given) < 2:
        raise ParameterError("lengths", f"{len(given)} given", "two or more")
    followed = sorted({name for _, formula in given for name in formula.names})
    if len(followed) > 1:
        told = "; ".join(f"{name}: {formula}" for name, formula in given)
        raise ParameterError(
            "lengths", told, "lengths of one name", "Express one by the other with Formula.substitute."
        )
    of = followed[0] if followed else ""
    first, *others = given
    start = _start([formula for _, formula in given], of, limit)
    end = limit if of else 1
    pairs = tuple(_pair(first[1], name, formula, of, start, end) for name, formula in others)
    return Coupling(of, first, pairs, start, tolerance, sample_rate, limit)


def _named(lengths: Iterable[Any], taken: Iterable[str]) -> Iterator[tuple[str, Formula]]:
    used = set(taken)
    for number, value in enumerate(lengths, 1):
        if isinstance(value, Recording | Row):
            name = value.name if isinstance(value, Recording) else value.label
        elif isinstance(value, TensorInfo):
            name = value.path
        else:
            name = ""
        name = name or f"length {number}"
        while name in used:
            name = f"{name}'"
        used.add(name)
        yield name, _length(value, name)


def _length(value: Any, name: str) -> Formula:
    """The formula that is meant."""
    if isinstance(value, bool) or not isinstance(value, int | str | Formula | Recording | Row | TensorInfo):
        raise ParameterError(name, f"a {type(value).__name__}", "a formula, a number, a trace, a row or a tensor of it")
    if isinstance(value, int | str | Formula):
        return Formula(value)
    if isinstance(value, Recording | Row):
        outputs = (
            (value.root if value.rows else Row(0, "", 1, "op", "", None, 0)).outputs
            if isinstance(value, Recording)
            else value.outputs
        )
        if not outputs:
            raise ParameterError(name, "it has no output", "one with a named size")
        value = outputs[0]
    known = [formula for formula in value.formulas or () if formula is not None and formula.names]
    plain = [formula for formula in known if not str(formula).isidentifier()]
    chosen = plain or [formula for formula in known if str(formula) != "B"]
    if len({str(formula) for formula in chosen}) != 1:
        told = (
            f"{value.formula}, in which {len(chosen)} axes vary"
            if chosen
            else f"{value.formula}, in which no length varies"
        )
        raise ParameterError(
            name, told, "one", "Give the formula of the axis: trace.rows[i].outputs[0].formulas[axis]."
        )
    return chosen[0]


def _values(formula: Formula, of: str, sizes: range) -> Tensor:
    """At many lengths, `(lengths,)` of int64."""
    at = torch.arange(sizes.start, sizes.stop)

    def value(part: Formula) -> Tensor:
        total = torch.zeros_like(at)
        for atoms, factor in part.terms.items():
            term = torch.full_like(at, factor)
            for atom in atoms:
                term = term * (at if isinstance(atom, str) else call(atom))
            total += term
        return total

    def call(atom: Call) -> Tensor:
        first, *rest = atom.arguments
        if atom.function == "int":
            return (first * value(rest[0]).double()).long()
        others = [value(argument) for argument in rest]
        if atom.function == "floor":
            return value(first).div(others[0], rounding_mode="floor")
        return reduce(torch.maximum if atom.function == "max" else torch.minimum, others, value(first))

    return value(formula)


def _start(formulas: list[Formula], of: str, limit: int) -> int:
    """The shortest length at which each has at least one frame."""
    for begin in range(1, limit + 1, CHUNK):
        chunk = range(begin, min(begin + CHUNK, limit + 1))
        enough = torch.stack([_values(formula, of, chunk) for formula in formulas]).amin(dim=0) >= 1
        if bool(enough.any()):
            return chunk[int(enough.to(torch.uint8).argmax())]
    raise ParameterError("lengths", f"one of them has no frame up to {of} = {limit:,}", "lengths of at least one")


def _growth(formula: Formula, of: str) -> Fraction:
    """How much it grows with each of the name, in the long run."""
    far = 2**40
    period = 2**4 * 3**3 * 5**4 * 7**2 * 11 * 13
    low, high = (formula.evaluate(**{of or "_": size}) for size in (far, far + far * period))
    return Fraction(high - low, far * period).limit_denominator(10**7)


def _pair(first: Formula, name: str, formula: Formula, of: str, start: int, limit: int) -> Pair:
    mine, other = _growth(first, of), _growth(formula, of)
    if mine == 0 or other == 0:
        ratio = _meant(Fraction(first.constant or 1, formula.constant or 1))
        ratio = ratio if 1 in (ratio.numerator, ratio.denominator) else Fraction(1)
    else:
        ratio = _meant(mine / other)
    wanted = (first * ratio.denominator) // ratio.numerator
    gap = formula - wanted
    if not gap.terms:
        return Pair(name, formula, ratio, (None,) * 5, True)
    parts: list[int | None] = [None] * 5
    # The gap repeats after a whole period of all floors, if it does not drift
    period, _ = gap.period
    steady = mine == other * ratio
    end = min(limit, start + period - 1) if steady and period else limit
    for begin in range(start, end + 1, CHUNK):
        chunk = range(begin, min(begin + CHUNK, end + 1))
        values = _values(gap, of, chunk).abs()
        for k, found in enumerate(parts):
            if found is None and bool((values > k).any()):
                parts[k] = chunk[int((values > k).to(torch.uint8).argmax())]
        if None not in parts:
            break
    proven = bool(steady and period and start + period - 1 <= limit)
    return Pair(name, formula, ratio, tuple(parts), proven)


def _meant(ratio: Fraction) -> Fraction:
    """The whole number, or one divided by it, that a ratio is near to; otherwise the ratio itself."""
    for turned in (ratio, 1 / ratio):
        near = Fraction(round(turned))
        if near and abs(turned / near - 1) <= NEAR:
            return near if turned is ratio else 1 / near
    return ratio


def _ratio(ratio: Fraction, name: str) -> str:
    if ratio == 1:
        return f"one frame per frame of {name}"
    if ratio.denominator == 1:
        return f"one frame per {ratio.numerator} of {name}"
    if ratio.numerator == 1:
        return f"{ratio.denominator} frames per frame of {name}"
    return f"{ratio.denominator} frames per {ratio.numerator} of {name}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
