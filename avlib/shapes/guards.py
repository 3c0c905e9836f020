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
        return formula.value(sizes)
    except (ZeroDivisionError, KeyError):
        return None


def _sides(guard: Guard, fake: Fake | None) -> tuple[str, Formula, Formula] | None:
    relation = guard.relation
    sign = SIGNS.get(type(relation).__name__)
    if sign is None or fake is None:
        return None
    left, right = fake.read(relation.lhs), fake.read(relation.rhs)
    return None if left is None or right is None else (sign, left, right)


def relation_of(guard: Guard, fake: Fake | None) -> Relation | None:
    """A guard as text, its names, and a test of it; None of one that is not between formulas."""
    sides = _sides(guard, fake)
    if sides is None:
        return None
    sign, left, right = sides
    if left.constant is not None:
        left, right, sign = right, left, sign.translate(str.maketrans("<>", "><"))
    text = f"{left} {sign} {right}"
    multiple = modulus(guard, left.names[0], fake) if len(left.names) == 1 else 0
    if multiple:
        text = f"{left.names[0]} % {multiple} {sign} 0"

    def holds(sizes: Mapping[str, int]) -> bool:
        a, b = value_of(left, sizes), value_of(right, sizes)
        if a is None or b is None:
            return True
        return {"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign]

    return Relation(text, frozenset((*left.names, *right.names)), holds)


def modulus(guard: Guard, name: str, fake: Fake | None) -> int:
    """Of which number a name must be a multiple, or must not be; 0 where the guard says something else."""
    found = divided(guard, fake)
    return found[1] if found is not None and found[0] == Formula(name) else 0


def divided(guard: Guard, fake: Fake | None) -> tuple[Formula, int] | None:
    """What is a multiple of which number, or is not, where the guard says so: `x % m == 0`."""
    sides = _sides(guard, fake)
    if sides is None or sides[0] not in ("==", "!="):
        return None
    gap = sides[1] - sides[2]
    for atoms, factor in gap.terms.items():
        hop = atoms[0].hop if len(atoms) == 1 and not isinstance(atoms[0], str) else 0
        number = abs(factor)
        if not hop or hop % number:
            continue
        floor = Formula.of_atom(atoms[0])
        whole = gap + number * floor if factor < 0 else number * floor - gap
        if whole // number == floor:  # gap is whole - number*(whole//number)
            return whole, number
    return None
