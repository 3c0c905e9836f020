"""Formulas for every size of a run, each compared with other runs.

A run with symbols for the named sizes gives expressions, exact unless the model converts a symbol to a number; runs at
other sizes, without values if possible, check each. A size that disagrees (`int(T*0.7)`, a loop over the batch) is
fitted to the runs, and the symbolic run repeated with its formula, so that later sizes follow.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from .formula import Formula
from .probing import Probes, Relation
from .recorder import at_line, error_text, file_name
from .rows import Requirement
from .running import Model, Run, Slot

MOST_OVERRIDES = 40  # operations whose sizes are fitted before later sizes are derived again
MOST_PASSES = 4  # symbolic runs before anything is fitted
ELSEWHERE = (5, 37, 1009, 20_011, 5_000_011)  # steps to sizes that fitting did not use
FAR = (2**12, 2**22, 2**9, 2**7, 48, 2**24, 2**16)  # steps; some models take no more, some round at more
NEAR = (1, 2, 3, 5, -1, -2, 11)
IN_A_ROW = 64  # steps that are tried to find a floor of a floor

Seen = Callable[[int], "int | None"]  # a size after a number of steps; None if it cannot be

_lock = threading.RLock()  # probing puts names into modules for a moment; one thread at a time


class Derivation:
    """The formulas of a run, with their requirements and unknown sizes."""

    def __init__(self, model: Model, base: Run):
        self.base, self.probes = base, Probes(model, base)
        self.sizes = self.probes.sizes
        self.formulas: dict[Slot, Formula] = {}
        self.requires: list[Requirement] = []
        self.unknown: dict[str, str] = {}
        self._known: list[Formula] = []  # of other sizes
        self._fits: dict[tuple, Formula] = {}  # by the sizes that were seen
        self._values: dict[str, dict[int, int | None]] = {}  # of each formula in each run
        with _lock:
            self._derive()
        whole = [sizes for sizes, run in self.probes.points() if run.error is None]
        self.checked = {name: tuple(sorted({sizes[name] for sizes in whole})) for name in self.sizes}
        self.notes = self.probes.notes

    def _derive(self) -> None:
        probes = self.probes
        start = probes.at(self.sizes)
        if not probes.real and start.error is not None and type(start.error) is not type(self.base.error):
            probes.fall_back(start.error)
        probes.find_steps()
        symbolic, again, passes = None, not probes.real, 0
        while again and passes < MOST_PASSES:
            (symbolic, again), passes = probes.symbolic(), passes + 1
        probes.explore()
        self._by_values = probes.by_values() if probes.real else set()
        if self._by_values:
            probes.notes.append("Some sizes depend on values, as lengths or masks do: they have no formula.")
        candidates = self._read(symbolic) if symbolic is not None else {}
        if symbolic is not None:
            self._replace_wrong(candidates)
        self._keep(candidates)
        self._fit_the_rest(candidates)
        self._number_unknowns()
        self._find_requirements()
        self._note_other_paths()

    def _read(self, run: Run) -> dict[Slot, Formula | None]:
        formula = self.probes.model.fake.formula
        return {slot: formula(size) for slot, size in run.sizes.items() if slot in self.base.sizes}

    def _holds(self, slot: Slot, formula: Formula | None) -> bool:
        """Return True if a formula agrees with all runs and several sizes."""
        if formula is None or slot in self._by_values or not self._is_of_names(formula):
            return False
        compared, values = False, self._values.setdefault(formula._key, {})
        for i, (sizes, run) in enumerate(self.probes.points()):
            seen = run.sizes.get(slot)
            if seen is None:
                if i == 0 or slot[:3] in run.ranks:  # the tensor is there, with fewer axes
                    return False
                continue
            if i not in values:
                values[i] = formula.value_at(sizes)
            if not isinstance(seen, int) or seen != values[i]:
                return False  # a symbol stands for a size that depends on values
            compared = compared or i > 0
        return compared

    def _is_of_names(self, formula: Formula) -> bool:
        return self.sizes.keys() >= set(formula.names)

    def _seen(self, slot: Slot) -> tuple[int | None, ...]:
        sizes = (run.sizes.get(slot) for _, run in self.probes.points())
        return tuple(size if isinstance(size, int) else None for size in sizes)

    def _keep(self, candidates: dict[Slot, Formula | None]) -> None:
        """Keep the formulas that hold; unreached sizes are numbers."""
        fixed = {name: self.sizes[name] for name in self.probes.fixed}
        reached = {name: self.probes.reached(name) for name in self.sizes}
        for slot, size in self.base.sizes.items():
            formula = candidates.get(slot)
            if formula is not None and not self._is_of_names(formula):
                if formula.is_name:  # a formula of such a name could not be checked
                    self.formulas[slot] = formula
                continue
            if formula is not None:
                unseen = {name for name in formula.names if slot not in reached[name]}
                if unseen - fixed.keys():
                    continue
                formula = formula.substitute(**{name: fixed[name] for name in unseen}) if unseen else formula
            if self._holds(slot, formula):
                self.formulas[slot] = formula
            elif isinstance(size, int) and not self.probes.steps and not any(slot in seen for seen in reached.values()):
                self.formulas[slot] = Formula(size)

    def _replace_wrong(self, candidates: dict[Slot, Formula | None]) -> None:
        """Fit operations at which wrong sizes begin, and derive later sizes again."""
        overrides: dict[tuple, dict[tuple[str, int], Formula]] = {}
        while len(overrides) < MOST_OVERRIDES:
            self._known = _distinct(candidates.values())
            wrong = {slot for slot in self.base.sizes if not self._holds(slot, candidates.get(slot))}
            inputs = {slot[0] for slot in wrong if not slot[1]}
            outputs = {slot[0] for slot in wrong if slot[1]}
            pairs = zip(self.base.keys, self.base.events, strict=True)
            begun = [key for key, event in pairs if event.kind == "op" and key in outputs - inputs]
            new = [key for key in begun if key not in overrides][:MOST_OVERRIDES]
            for key in new:
                slots = sorted(s for s in wrong if s[0] == key and s[1] and isinstance(self.base.sizes[s], int))
                fits = {slot[2:]: self._fit(slot, candidates.get(slot)) for slot in slots}
                overrides[key] = {place: formula for place, formula in fits.items() if formula is not None}
            if not any(overrides[key] for key in new):
                return
            candidates |= self._read(self.probes.symbolic(overrides)[0])

    def _fit_the_rest(self, candidates: dict[Slot, Formula | None]) -> None:
        """Fit the sizes that no symbolic run explains, equal ones together."""
        self._known = _distinct(self.formulas.values())
        groups: dict[tuple, list[Slot]] = {}
        for slot, size in self.base.sizes.items() if self.probes.steps else ():
            if slot not in self.formulas and slot not in self._by_values and isinstance(size, int):
                seen = self._seen(slot)
                if any(value is not None for value in seen[1:]):
                    groups.setdefault(seen, []).append(slot)
        for slots in groups.values():
            formula = self._fit(slots[0], candidates.get(slots[0]))
            self.formulas.update((slot, formula) for slot in slots if self._holds(slot, formula))
        left = sum(slot not in self.formulas for slots in groups.values() for slot in slots)
        if left and self.probes.exhausted:
            self.probes.notes.append(f"{left} sizes have no formula after {len(self.probes.runs)} runs at other sizes.")

    def _fit(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """A formula that agrees with all runs and with further ones."""
        found = self._fits.get(self._seen(slot))
        if not self._holds(slot, found):
            found = self._padded(slot, candidate) or self._like_another(slot) or self._fit_anew(slot, candidate)
        if found is not None:
            self._fits[self._seen(slot)] = found
        return found

    def _holds_elsewhere(self, slot: Slot, formula: Formula | None, steps: tuple[int, ...], edges: bool) -> bool:
        """Return True if a formula also holds in new runs."""
        if formula is None:
            return False
        for step in steps:
            self.probes.moved(step)
        for sizes in self._edges(formula) if edges else ():
            self.probes.at(sizes)
        return self._holds(slot, formula)

    def _padded(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """The formula for all sizes, from one for padded sizes."""
        if candidate is None or not self._is_of_names(candidate):
            return None
        for whole, number in self.probes.paddings():
            earlier = [candidate.with_floor(whole // number, (whole - 1) // number)]
            earlier += [candidate.substitute(**{n: Formula(n) - 1}) for n in whole.names if whole == Formula(n)]
            for formula in earlier:
                if self._holds(slot, formula) and self._holds_elsewhere(slot, formula, ELSEWHERE[2:4], True):
                    return formula
        return None

    def _like_another(self, slot: Slot) -> Formula | None:
        size = self.base.sizes[slot]
        for formula in (Formula(size), *map(Formula, self.sizes), *self._known):
            here = formula.value_at(self.sizes) if self._is_of_names(formula) else None
            if here is None:
                continue
            multiple = [formula * (size // here)] if here and not size % here else []
            for like in (formula, *multiple, formula + (size - here)):
                if self._holds(slot, like) and self._holds_elsewhere(slot, like, ELSEWHERE[2:4], False):
                    return like
        return None

    def _fit_anew(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """A formula fitted to runs at sizes that the fit asks for."""

        def seen(sizes: Mapping[str, int]) -> int | None:
            run = self.base if sizes == self.sizes else self.probes.at(sizes)
            size = None if run is None else run.sizes.get(slot)
            return size if isinstance(size, int) else None

        known = {}
        if candidate is not None and self._is_of_names(candidate):
            for name in self.probes.steps:  # the symbolic formula may be right for one name and wrong for another
                alone = candidate.substitute(**{n: size for n, size in self.sizes.items() if n != name})
                pairs = [(run.sizes.get(slot), alone.value_at(sizes)) for sizes, run in self.probes.alone(name)]
                pairs = [(size, value) for size, value in pairs if size is not None]
                if len(pairs) > 1 and all(size == value for size, value in pairs):
                    known[name] = alone
        found = fit(seen, self.sizes, self.probes.steps, known, self.probes.far)
        return found if self._holds_elsewhere(slot, found, ELSEWHERE, True) else None

    def _edges(self, formula: Formula) -> Iterator[dict[str, int]]:
        """Sizes at which one more window just fits, or just does not."""
        window = formula.window
        if window is None or self.probes.steps.get(window.name) != 1:
            return
        for share in (20, 3, 1):
            start = max(window.length, self.sizes[window.name] // share)
            for rest in {0, window.hop - 1}:
                for size in range(start, start + window.hop):
                    if (window.factor * size - window.length) % window.hop == rest:
                        yield {**self.sizes, window.name: size}
                        break

    def _number_unknowns(self) -> None:
        """Name sizes that depend on data u0, u1 and so on."""
        events = dict(zip(self.base.keys, self.base.events, strict=True))
        slots = [slot for slot, formula in self.formulas.items() if not self._is_of_names(formula)]
        names: dict[str, str] = {}
        for slot in sorted(slots, key=lambda slot: (events[slot[0]].kind != "op", events[slot[0]].index)):
            old = str(self.formulas[slot])
            if old not in names:
                names[old] = f"u{len(names)}"
                event = events[slot[0]]
                self.unknown[names[old]] = f"depends on values: given by {event.name}{at_line(event.place)}"
            self.formulas[slot] = Formula(names[old])

    def _find_requirements(self) -> None:
        """Find the model's comparisons of sizes without which a run raises."""
        kept: list[Relation] = []
        for guard, need in self.probes.relations():
            minor = " != " in need.text or not (guard.direct or " == " in need.text)
            if minor or any(need.text == other.text for other in kept):
                continue  # torch's kernels compare sizes often, mostly without consequences
            broken = self._broken(need, kept)
            if broken is not None and broken.error is not None:
                kept.append(need)
                self._require(need.text, (guard.file, guard.line), broken)
        for name, step in self.probes.multiples.items():  # formulas were reduced for them
            between = {**self.sizes, name: self.sizes[name] + step // 2}
            run = self.probes.at(between) if all(need.holds(between) for need in kept) else None
            if run is not None and run.raised_at is not None:
                self._require(f"{name} % {step} == 0", run.raised_at, run)
        texts = " ".join(need.text for need in kept)
        for name, run in self.probes.fixed.items():
            if f"{name} ==" not in texts and run.raised_at is not None:
                self._require(f"{name} == {self.sizes[name]}", run.raised_at, run)

    def _require(self, text: str, place: tuple[str, int], broken: Run) -> None:
        self.requires.append(Requirement(text, file_name(place[0]), place[1], error_text(broken.error)[:160]))

    def _broken(self, need: Relation, kept: list[Relation]) -> Run | None:
        """A run at sizes that break only this relation."""
        for sizes, run in self.probes.points():
            others = all(sizes[name] == size for name, size in self.sizes.items() if name not in need.names)
            if others and not need.holds(sizes) and all(other.holds(sizes) for other in kept):
                return run
        return None

    def _note_other_paths(self) -> None:
        start = self.probes.at(self.sizes)  # without values a model may take another path than with them
        rows = set(start.keys) if start is not None and start.error is None else None
        for name in self.probes.steps if rows is not None else ():
            for sizes, run in self.probes.alone(name):
                more, fewer = len(set(run.keys) - rows), len(rows - set(run.keys))
                if run.error is None and (more or fewer):
                    change = f"at {name}={sizes[name]} {more} rows more, {fewer} fewer"
                    self.probes.notes.append(f"The flow depends on {name}: {change}.")
                    break


def _distinct(formulas: Any) -> list[Formula]:
    return list({formula._key: formula for formula in formulas if formula is not None}.values())


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
    for name, step in steps.items():

        def along(j: int, name: str = name, step: int = step) -> int | None:
            return seen({**base, name: base[name] + j * step}) if base[name] + j * step > 0 else None

        alone = (known or {}).get(name)
        if alone is None:
            alone = fit_one(along, (far or {}).get(name, FAR))
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
    outer = fit_one(lambda n: seen(first + s * n), [max(1, distance // s) for distance in far], deeper=False)
    return None if outer is None else outer.substitute(j=(Formula("j") - first) // s)


def _stretched(formula: Formula, line: Formula, step: int) -> Formula:
    """A formula of `j = line/step`: `(p*j + c)//s` is `(p*line + c*step)//(s*step)`."""

    def change(atom: Any) -> Formula:
        if not isinstance(atom, str) and atom.function != "floor":
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
