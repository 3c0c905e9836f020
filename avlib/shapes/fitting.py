"""Formulas that are fitted to the sizes of runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from .formula import Formula

FAR = (2**12, 2**22, 2**9, 2**7, 48, 2**24, 2**16)  # steps; some models take no more, some round at more
NEAR = (1, 2, 3, 5, -1, -2, 11)
IN_A_ROW = 64  # steps that are tried to find a floor of a floor

Seen = Callable[[int], "int | None"]  # a size after a number of steps; None if it cannot be


def fit(
    seen: Callable[[Mapping[str, int]], int | None],
    base: Mapping[str, int],
    steps: Mapping[str, int],
    known: Mapping[str, Formula] | None = None,
    far: Mapping[str, Sequence[int]] | None = None,
) -> Formula | None:
    """Return the formula of a size that depends on several names.

    `seen` gives the size at other sizes of the names, from `base` in whole `steps`; `known` are formulas along one
    name, `far` the distances at which to look. Along one name `k*((p*n + c)//s) + m` or a floor of a floor is sought,
    for several names a sum or product of what each does alone.
    """
    start = seen(base)
    if start is None:
        return None
    found, names = Formula(start), []

    def along(name: str, j: int) -> int | None:
        size = base[name] + j * steps[name]
        return seen({**base, name: size}) if size > 0 else None

    if any(along(name, 1) == along(name, -1) != start for name in steps):
        return None  # the base alone differs: none of the forms below does that
    for name, step in steps.items():
        alone = (known or {}).get(name)
        if alone is None:
            alone = fit_one(partial(along, name), (far or {}).get(name, FAR))
            alone = _squared(partial(along, name)) if alone is None else alone
            if alone is None:
                return None
            alone = _stretched(alone, Formula(name) - base[name], step)
        if alone.constant is not None:
            continue
        found = _joined(seen, base, {n: steps[n] for n in [*names, name]}, found, alone, start) if names else alone
        if found is None:
            return None
        names.append(name)
    return found


def fit_one(seen: Seen, far: Sequence[int] = FAR, deeper: bool = True) -> Formula | None:
    """Return the formula of a size after `j` steps."""
    values = {j: value for j in (0, *NEAR) if (value := seen(j)) is not None}
    if 0 not in values or len(values) < 3:
        return None
    limits: dict[int, int] = {}  # equal values far away, unless they are those of the start
    for distance in far:
        places = distance, distance + 1, distance * 3 // 5, distance * 2 // 7, distance // 2 + 1
        apart = {j: value for j in places if (value := seen(j)) is not None}
        if distance not in apart:
            continue
        if len(set(apart.values())) == 1 and apart[distance] != values[0]:
            limits |= apart
            continue
        values |= apart
        if not limits and len(set(values.values())) == 1 and len(values) > len(NEAR) + 6:
            return Formula(values[0])
        close = {j: values[j] for j in values if j in NEAR} | {0: values[0]} | apart if limits else values
        common = math.gcd(*(value - values[0] for value in close.values()))
        # What all differences share may be more than k by chance
        for k in sorted((d for d in range(1, min(common, 4096) + 1) if common % d == 0), reverse=True)[:8]:
            found = _limited(_line(seen, close, distance, k), values, limits)
            if found is not None:
                return found
    if not limits and len(set(values.values())) == 1:
        return Formula(values[0])
    return _two_floors(seen, far) if deeper and not limits else None


def _squared(seen: Seen) -> Formula | None:
    """`(a*j*j + b*j)//2 + c` through the values; it is compared with others later."""
    values = [seen(j) for j in range(4)]
    if None in values:
        return None
    first = [b - a for a, b in itertools.pairwise(values)]
    a, j = first[1] - first[0], Formula("j")
    return None if a != first[2] - first[1] else (a * j * j + (2 * first[0] - a) * j) // 2 + values[0]


def _limited(found: Formula | None, values: Mapping[int, int], limits: Mapping[int, int]) -> Formula | None:
    """A formula with its limit far away, if that explains all values."""
    if found is None or len(set(limits.values())) > 1:
        return None
    if limits:
        limit = next(iter(limits.values()))
        found = Formula(f"{'min' if limit > values[0] else 'max'}({found}, {limit})")
    return found if all(found.value({"j": j}) == value for j, value in {**values, **limits}.items()) else None


def _line(seen: Seen, values: dict[int, int], distance: int, k: int) -> Formula | None:
    """`k*((p*j + c)//s) + start` through the values."""
    start = values[0]
    if values[distance] < start:
        k = -k

    def floor(j: int) -> int | None:
        value = seen(j)
        return None if value is None or (value - start) % k else (value - start) // k

    slope = _slope(floor, distance)
    if slope is None or slope <= 0:
        return None
    p, s = slope.numerator, slope.denominator
    low, high = 0, s  # c is in [low, high), so that the floor is 0 at the start
    asked = {j: floor(j) for j in values}
    while None not in asked.values():
        for j, steps in asked.items():
            low, high = max(low, s * steps - p * j), min(high, s * (steps + 1) - p * j)
        if low >= high:
            return None
        if high - low == 1:
            return k * ((p * Formula("j") + low) // s) + start
        middle = (low + high) // 2
        j = (s - middle) * pow(p, -1, s) % s  # where the floor steps up exactly if c is at least `middle`
        asked = next(({i: steps} for i in (j, j - s, j + s) if (steps := floor(i)) is not None), {j: None})
    return None


def _slope(floor: Seen, distance: int) -> Fraction | None:
    """The mean step as the simplest fraction that a far value allows."""
    grown = floor(distance)
    if grown is None:
        return None
    slope = _sure(Fraction(grown - 1, distance), Fraction(grown + 1, distance))
    if slope is not None or grown < 3:
        return slope
    first, last = _step_after(floor, 0, distance), _step_after(floor, distance, 0)
    if first is None or last is None or last <= first:
        return None
    count, gap = floor(last) - floor(first), last - first
    return _sure(Fraction(count, gap + 1), Fraction(count, gap - 1)) if count > 0 and gap > 1 else None


def _sure(low: Fraction, high: Fraction) -> Fraction | None:
    """The simplest fraction between two, None if it may be chance."""
    found = _simplest(low, high)
    return found if 4 * found.denominator**2 * (high - low) < 1 else None


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction with the smallest denominator strictly between two; 0 below 0."""
    if low < 0:
        return Fraction(0)
    whole = math.floor(low)
    if whole + 1 < high:
        return Fraction(whole + 1)
    if low == whole:  # whole + 1/n with the smallest n that is below `high`
        return whole + Fraction(1, math.floor(1 / (high - whole)) + 1)
    return whole + 1 / _simplest(1 / (high - whole), 1 / (low - whole))


def _step_after(floor: Seen, place: int, end: int) -> int | None:
    """The first j on a way at which the floor steps up."""
    way = 1 if end > place else -1
    here, reach = floor(place), 1
    while reach <= abs(end - place) and (there := floor(place + way * reach)) == here:
        reach *= 2
    if reach > abs(end - place) or there is None:
        return None
    near, far = reach // 2, reach  # the value changes between these
    while far - near > 1:
        middle = (near + far) // 2
        there = floor(place + way * middle)
        if there is None:
            return None
        near, far = (middle, far) if there == here else (near, middle)
    return place + far if way > 0 else place - near


def _two_floors(seen: Seen, far: Sequence[int]) -> Formula | None:
    """`outer(inner)` with `inner = (j + r)//s`: steps come only every s."""
    values = [seen(j) for j in range(IN_A_ROW)]
    jumps = [j for j in range(1, IN_A_ROW) if values[j] != values[j - 1]]
    if None in values or len(jumps) < 3:
        return None
    s = math.gcd(*(b - a for a, b in itertools.pairwise(jumps)))
    if s == 1:
        return None
    first = jumps[0] % s  # the inner floor steps up here, and every s after
    heights = {values[j] - values[j - 1] for j in jumps}
    if len(heights) == 1 and len(jumps) == (IN_A_ROW - 1 - jumps[0]) // s + 1:
        return heights.pop() * ((Formula("j") - jumps[0]) // s + 1) + values[0]
    outer = fit_one(lambda n: seen(first + s * n), [max(1, distance // s) for distance in far], deeper=False)
    return None if outer is None else outer.substitute(j=(Formula("j") - first) // s)


def _stretched(formula: Formula, line: Formula, step: int) -> Formula:
    """A formula of `j = line/step`: `(p*j + c)//s` is `(p*line + c*step)//(s*step)`."""

    def change(atom: Any) -> Formula:
        if not isinstance(atom, str) and not atom.hop:
            return atom.rebuilt(lambda argument: _stretched(argument, line, step))
        top, bottom = (Formula("j"), Formula(1)) if isinstance(atom, str) else atom.arguments
        slope, start = top.terms.get(("j",), 0), top.terms.get((), 0)
        rest = top - slope * Formula("j") - start  # floors of j
        return (slope * line + (start + _stretched(rest, line, step)) * step) // (bottom * step)

    return formula.rebuilt(change)


def _joined(seen, base, steps, left: Formula, right: Formula, start: int) -> Formula | None:
    """A sum or product of the formulas of two sets of names."""
    corners = []  # where both differ from the start
    for factor in (1, 3, 8, 64, 391, 1021, 4099):
        point = {n: base[n] + factor * steps[n] if n in steps else base[n] for n in base}
        a, b = left.value(point), right.value(point)
        if a != start != b and (corner := seen(point)) is not None:
            corners.append((point, corner, a, b))
    if not corners:
        return None
    candidates = [left + right - start]
    _, corner, a, b = corners[0]
    if corner + start != a + b:
        # (corner - m)*(start - m) = (a - m)*(b - m)
        m, rest = divmod(corner * start - a * b, corner + start - a - b)
        if not rest and start != m:
            product = (left - m) * (right - m)
            if not any(factor % (start - m) for factor in product.terms.values()):
                whole = Formula.of_terms({atoms: factor // (start - m) for atoms, factor in product.terms.items()})
                candidates.append(whole + m)
    return next((c for c in candidates if all(c.value(point) == corner for point, corner, _, _ in corners)), None)
