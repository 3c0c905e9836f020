"""Floors and bounds of formulas, exact for positive whole sizes.

Nothing here knows the class of formulas: it is reached through the formulas that are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from itertools import combinations
from typing import Any

from .notation import order

DEEP = 8  # floors that are replaced by their bounds, one after another
LONG = 24  # terms; no bounds of longer formulas


def floor(top: Any, bottom: Any) -> Any:
    """Return `top // bottom`, with what can be taken out of the floor outside."""
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
    outside, inside = top.of_terms(whole), top.of_terms(rest)
    varying = {atoms: factor for atoms, factor in inside.terms.items() if atoms}
    if not varying:
        return outside  # what is left is a number below the divisor

    common = math.gcd(divisor, *varying.values())
    if common > 1:  # (2*x + 3)//4 is (x + 1)//2
        inside = top.of_terms({atoms: factor // common for atoms, factor in inside.terms.items()})
        return outside + floor(inside, bottom.of_terms({(): divisor // common}))
    lead = min(varying, key=lambda atoms: [order(atom)[::-1] for atom in atoms])
    if varying[lead] < 0:  # -x//d is -((x + d - 1)//d)
        return outside - floor(divisor - 1 - inside, bottom.of_terms({(): divisor}))
    for atoms, factor in varying.items():
        inner = atoms[0]
        if factor == 1 and len(atoms) == 1 and not isinstance(inner, str) and inner.hop:
            # (x//e + y)//d is (x + e*y)//(e*d), since y is whole
            others = inside - top.of_atom(inner)
            return outside + floor(inner.arguments[0] + others * inner.hop, bottom.of_terms({(): divisor * inner.hop}))
    if _between(inside, divisor):
        return outside
    return outside + top.of_call("floor", inside, bottom.of_terms({(): divisor}))


def _between(inside: Any, divisor: Any) -> bool:
    """True if a formula is surely at least 0 and below a divisor."""
    if all(isinstance(atom, str) for atom in inside._atoms) or (low := inside.least) is None or low < 0:
        return False
    above = (divisor - 1 - inside).least
    return above is not None and above >= 0


def _floor_by_formula(top: Any, bottom: Any) -> Any:
    """`top // bottom` for a positive divisor that depends on sizes."""
    outside, top = divided(top, bottom)
    if not top.terms:
        return outside
    if (shared := _shared(top, bottom)).terms.keys() != {()} or shared.constant != 1:
        return outside + divided(top, shared)[0] // divided(bottom, shared)[0]
    if (low := top.least) is not None and low >= 0 and (gap := (bottom - 1 - top).least) is not None and gap >= 0:
        return outside
    return outside + top.of_call("floor", top, bottom)


def divided(top: Any, bottom: Any) -> tuple[Any, Any]:
    """Return quotient and rest of a division of polynomials; the rest is 0, or cannot be divided further."""
    lead = max(bottom.terms, key=lambda atoms: (len(atoms), [order(atom) for atom in atoms]))
    quotient, rest = top.of_terms({}), top
    for _ in range(len(top.terms) + 1):
        found = next((term for atoms, n in rest.terms.items() if (term := _ratio(atoms, n, lead, bottom))), None)
        if found is None:
            break
        quotient, rest = quotient + found, rest - found * bottom
    if rest.terms and len(bottom.terms) > 1:
        return top.of_terms({}), top
    return quotient, rest


def _ratio(atoms: tuple, factor: int, lead: tuple, bottom: Any) -> Any:
    left = list(atoms)
    if factor % bottom.terms[lead] or not all(atom in left and not left.remove(atom) for atom in lead):
        return None
    return bottom.of_terms({tuple(left): factor // bottom.terms[lead]})


def _shared(top: Any, bottom: Any) -> Any:
    """The largest product that divides all terms of two formulas."""
    terms = [*top.terms.items(), *bottom.terms.items()]
    shared = list(terms[0][0])
    for atoms, _ in terms[1:]:
        left = list(atoms)
        shared = [atom for atom in shared if atom in left and not left.remove(atom)]
    return top.of_terms({tuple(shared): math.gcd(*(factor for _, factor in terms))})


def least(formula: Any, deep: int = DEEP) -> int | None:
    """Return a lower bound for sizes of at least 1; None if none is known.

    A floor is at least `(top - hop + 1)/hop` and at most `top/hop`; what is left is a polynomial.
    """
    found = _polynomial_least(formula.terms)
    calls = [atom for atom in formula._atoms if not isinstance(atom, str)]
    if not calls or not deep or len(formula.terms) > LONG:
        return found
    call = max(calls, key=lambda atom: len(atom.key))
    for new, scale in _replacements(formula, call):
        if (low := least(new, deep - 1)) is not None:
            low = -(-low // scale)
            found = low if found is None else max(found, low)
    return found


def _replacements(formula: Any, call: Any) -> list[tuple[Any, int]]:
    """Formulas without a call that are smaller than `scale` times this one."""
    have = {atoms: factor for atoms, factor in formula.terms.items() if call in atoms}
    rest = formula - formula.of_terms(have)
    others = {}
    for atoms, factor in have.items():
        left = list(atoms)
        left.remove(call)
        others[tuple(left)] = factor
        if any(not isinstance(atom, str) and (atom.least is None or atom.least < 0) for atom in left):
            return []
    ups, downs = ({a: n for a, n in others.items() if (n > 0) is sign} for sign in (True, False))
    first = call.arguments[0]
    if call.hop:
        low = first - call.hop + 1
        return [(rest * call.hop + formula.of_terms(ups) * low + formula.of_terms(downs) * first, call.hop)]
    if (call.function == "max" and not downs) or (call.function == "min" and not ups):
        return [(rest + formula.of_terms(others) * argument, 1) for argument in call.arguments]
    return []


def _polynomial_least(terms: Mapping[tuple, int]) -> int | None:
    """The value where all atoms are smallest, if it only grows from there."""
    shifted: dict[tuple, int] = {}
    for atoms, factor in terms.items():
        lows = [1 if isinstance(atom, str) else atom.least for atom in atoms]
        if None in lows or len(atoms) > DEEP:
            return None
        for count in range(len(atoms) + 1):
            for kept in combinations(range(len(atoms)), count):  # each atom is its least plus something
                key = tuple(atoms[i] for i in kept)
                low = math.prod(lows[i] for i in range(len(atoms)) if i not in kept)
                shifted[key] = shifted.get(key, 0) + factor * low
    constant = shifted.pop((), 0)
    return constant if all(factor >= 0 for factor in shifted.values()) else None


def _simple(atom: Any, factor: int, steps: Mapping[str, int]) -> bool:
    """True for a name, or a floor that says what it is: the patches of `8*(T//16)`, but not `16*(T//16)`."""
    if isinstance(atom, str) or not atom.hop:
        return isinstance(atom, str)
    ((name, *more), slope), *others = atom.arguments[0].terms.items()
    whole = not others and not more and slope == 1 and steps.get(name, 1) % atom.hop == 0
    return whole and factor % atom.hop != 0


def reduced(formula: Any, steps: Mapping[str, int]) -> Any:
    """Return a formula for sizes that are multiples: `8*(H//8)` is H where H is one of 8, `(H - 1)//2 + 1` is H//2."""
    units = {f"{name}/{step}": (name, step) for name, step in steps.items() if name in formula.names}
    names = [n for term in formula.terms for a in term if not isinstance(a, str) for n in formula.of_atom(a).names]
    simple = all(_simple(atom, factor, steps) for term, factor in formula.terms.items() for atom in term)
    if not units or (simple and len(set(names)) == len(names)):  # H//4 - 8*(H//32) is reduced
        return formula
    total = formula.of_terms({})
    for atoms, factor in formula.substitute(
        **{name: step * formula.of_atom(unit) for unit, (name, step) in units.items()}
    ).terms.items():
        term, left = formula.of_terms({(): 1}), [atom for atom in atoms if atom in units]
        for atom in atoms:
            if atom in units:  # a factor is shared evenly: 4096*h*w is (H//4)*(W//4) for multiples of 256
                name, step = units[atom]
                most = round(abs(factor) ** (1 / len(left))) if len(left) > 1 else step
                part = max(d for d in range(1, step + 1) if step % d == 0 and factor % d == 0 and d <= max(most, 1))
                left.pop()
                factor, term = factor // part, term * (formula.of_atom(name) // (step // part))
            else:
                whole = {unit: formula.of_atom(name) // step for unit, (name, step) in units.items()}
                term = term * formula.of_atom(atom).substitute(**whole)
        total = total + factor * term
    return total
