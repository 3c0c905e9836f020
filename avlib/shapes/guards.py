"""What a model took for granted about sizes, as text and as a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .formula import Formula
from .internals import Fake, Guard

SIGNS = {  # by sympy's names
    "Equality": "==",
    "Unequality": "!=",
    "StrictLessThan": "<",
    "LessThan": "<=",
    "StrictGreaterThan": ">",
    "GreaterThan": ">=",
}


class Relation(NamedTuple):
    """`T % 16 == 0`: a guard that can be read, and tried at other sizes."""

    text: str
    names: frozenset[str]
    holds: Callable[[Mapping[str, int]], bool]


def value_of(formula: Formula, sizes: Mapping[str, int]) -> int | None:
    """What a formula is at some sizes; None where it divides by 0 or a size is missing."""
    try:
        return formula._value(sizes)
    except (ZeroDivisionError, KeyError):
        return None


def _sides(guard: Guard, fake: Fake | None) -> tuple[str, Formula, Formula] | None:
    relation = guard.relation
    sign = SIGNS.get(type(relation).__name__)
    if sign is None or fake is None:
        return None
    left, right = fake._formula(relation.lhs), fake._formula(relation.rhs)
    return None if left is None or right is None else (sign, left, right)


def relation_of(guard: Guard, fake: Fake | None) -> Relation | None:
    """A guard as text, its names, and a test of it; None of one that is not between formulas, or says `!=`."""
    sides = _sides(guard, fake)
    if sides is None or sides[0] == "!=":
        return None
    sign, left, right = sides
    if left.constant is not None:
        left, right, sign = right, left, sign.translate(str.maketrans("<>", "><"))
    text = f"{left} {sign} {right}"
    multiple = modulus(guard, left.names[0], fake) if len(left.names) == 1 else 0
    if multiple:
        text = f"{left.names[0]} % {multiple} == 0"

    def holds(sizes: Mapping[str, int]) -> bool:
        a, b = value_of(left, sizes), value_of(right, sizes)
        if a is None or b is None:
            return True
        return {"==": a == b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign]

    return Relation(text, frozenset((*left.names, *right.names)), holds)


def modulus(guard: Guard, name: str, fake: Fake | None) -> int:
    """Of which number a name must be a multiple, where the guard says so; otherwise 0."""
    sides = _sides(guard, fake)
    if sides is None or sides[0] != "==":
        return 0
    gap = sides[1] - sides[2]
    hops = [atom.hop for atoms in gap.terms for atom in atoms if not isinstance(atom, str)]
    if len(hops) != 1 or not hops[0] or gap.names != (name,):
        return 0
    hop = hops[0]
    multiple = Formula(name) - hop * (Formula(name) // hop)
    return hop if gap in (multiple, -multiple) else 0
