"""Formulas for every size of a run, each compared with other runs.

A run with symbols for the named sizes gives expressions, exact unless the model converts a symbol to a number; runs at
other sizes, without values if possible, check each. A size that disagrees (`int(T*0.7)`, a loop over the batch) is
fitted to the runs, and the symbolic run repeated with its formula, so that later sizes follow.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ParameterError
from .fitting import fit
from .formula import Formula
from .notation import combined
from .probing import Probes, Unlike
from .recorder import at_line, error_text, raised_at
from .requiring import Requirements, boundary
from .rows import Requirement, plural
from .running import Model, Run, Slot
from .shortcuts import Stopped

MOST_OVERRIDES = 40  # operations whose sizes are fitted before later sizes are derived again
MOST_HOP = 30  # of a fitted window that is checked at each size along two hops
RESERVE = 40  # runs that a fit leaves for the search for limits
MOST_WINDOWS = 8  # that are tried where one more just fits
MOST_SIDES = 4  # symbolic runs at sizes where a model decides otherwise
UNKNOWN = "`?` stands for them"
MOST_PASSES = 4  # symbolic runs before anything is fitted
ELSEWHERE = (5, 37, 1009, 20_011, 5_000_011)  # steps to sizes that fitting did not use

_lock = threading.RLock()  # probing puts names into modules for a moment; one thread at a time


class Derivation:
    """The formulas of a run, with their requirements and unknown sizes."""

    def __init__(self, model: Model, base: Run):
        self.base, self.probes = base, Probes(model, base)
        self.sizes = self.probes.sizes
        self.formulas: dict[Slot, Formula] = {}
        self.requires: list[Requirement] = []
        self._requirements = Requirements(self.probes, self.requires)
        self.unknown: dict[str, str] = {}
        self._known: list[Formula] = []  # of other sizes
        self._guesses: list[Formula] = []
        self._turns: list[Formula] = []  # converted to numbers, such as the turns of loops
        self._fits: dict[tuple, Formula] = {}  # by the sizes that were seen
        self._outputs = {s for s in base.sizes if s[:2] == (base.keys[0], 1)}
        self._sides: list[dict[Slot, Formula | None]] = []  # formulas where the model decides otherwise
        self._looked: list[Mapping[str, int]] = []
        self._pads = False  # the model tests for multiples
        self._refuted = False  # one of the candidates that the search for bounds starts with
        self._points: list = []  # the runs to which these belong
        self._columns: dict[Slot, tuple] = {}
        self._held: dict[tuple, bool] = {}
        self._by_values: dict[Slot, str] = {}
        self._values: dict[str, dict[tuple, int | None]] = {}  # of each formula in each run
        try:
            with _lock, _frozen():
                self._derive()
        except ParameterError:
            raise
        except Exception as error:  # what is known remains
            self.probes.notes.append(
                f"The search for formulas ended early{at_line(raised_at(error.__traceback__))}: "
                f"{error_text(error)[:160]}."
            )
        self._requirements.limit()
        whole = [sizes for sizes, run in self.probes.points() if run.error is None]
        self.checked = {name: tuple(sorted({sizes[name] for sizes in whole})) for name in self.sizes}
        self.notes = self.probes.notes

    def _derive(self) -> None:
        probes = self.probes
        start = probes.at(self.sizes)
        if start is None:
            self.probes.notes.append("A second run took too much time or memory, so sizes have no formulas.")
            return
        if not probes.real and start.error is not None and type(start.error) is not type(self.base.error):
            probes.fall_back(start.error)
        try:
            probes.find_steps()
        except Unlike as error:
            probes.fall_back(error.args[0])
            probes.find_steps()
        symbolic, again, passes = None, not probes.real, 0
        while again and passes < MOST_PASSES:
            (symbolic, again), passes = probes.symbolic(), passes + 1
        candidates = self._read(symbolic) if symbolic is not None else {}
        self._try_edges(candidates)
        probes.explore(lambda sizes, run: self._agrees([candidates], sizes, run))
        self._by_values = probes.by_values() if probes.real else {}
        for reason in dict.fromkeys(self._by_values.values()):
            slots = [slot for slot, other in self._by_values.items() if other == reason]
            probes.notes.append(f"Depends on {reason}: {plural(len(slots), 'size')}; {UNKNOWN}.")
        if symbolic is not None:
            self._replace_wrong(candidates)
            self._try_edges(candidates)
        self._keep(candidates)
        self._limit_parts()
        self._fit_the_rest(candidates)
        self._number_unknowns()
        self._requirements.find(self.formulas)
        self._note_other_paths()

    def _try_edges(self, candidates: dict[Slot, Formula | None]) -> None:
        """If a model pads, run where one more window just fits: formulas may be wrong there alone."""
        steps = self.probes.multiples  # a model that raises between multiples does not pad
        self._pads = any(any(steps.get(n, 1) % number for n in whole.names) for whole, number in self.probes.paddings())
        atoms = {atom for f in candidates.values() if f is not None for atom in f._atoms if not isinstance(atom, str)}
        floors = sorted((atom for atom in atoms if atom.hop and self._pads), key=lambda atom: (-atom.hop, atom.key))
        for floor in [floor for floor in floors if Formula.of_atom(floor).window][:MOST_WINDOWS]:
            runs = [self.probes.at(sizes) for sizes in list(self._edges(Formula.of_atom(floor)))[-2:]]
            if None in runs and self.probes.exhausted:
                unsure = [slot for slot, f in candidates.items() if f is not None and floor in f._atoms]
                candidates.update(dict.fromkeys(unsure))

    def _read(self, run: Run) -> dict[Slot, Formula | None]:
        formula = self.probes.model.fake.formula
        return {slot: formula(size) for slot, size in run.sizes.items() if slot in self.base.sizes}

    def _holds(self, slot: Slot, formula: Formula | None) -> bool:
        """Return True if a formula agrees with all runs and several sizes."""
        if formula is None or slot in self._by_values or not self._is_of_names(formula):
            return False
        column = self._column(slot)
        key = column, formula._key
        if key not in self._held:
            self._held[key] = self._agrees_with(column, formula)
        return self._held[key]

    def _agrees_with(self, column: tuple, formula: Formula) -> bool:
        if column[0] is None:
            return False
        changed = {*self.probes.fixed, *(name for name, (low, high) in self.probes.limits.items() if low == high)}
        for (sizes, run), seen in zip(self._points, column, strict=True):
            if seen is None:
                continue
            if seen != self._value(formula, sizes):
                if run.error is None or isinstance(run.error, Stopped):
                    return False
                continue  # the model does not run there
            changed.update(name for name, size in sizes.items() if size != self.sizes[name])
        return changed >= self.sizes.keys()  # a number is one only if no name changes it

    def _value(self, formula: Formula, sizes: Mapping[str, int]) -> int | None:
        values, point = self._values.setdefault(formula._key, {}), tuple(sizes.values())
        if point not in values:
            values[point] = formula.value_at(sizes)
        return values[point]

    def _column(self, slot: Slot) -> tuple:
        """The size in all runs; None if there is no such tensor, -1 if it depends on values or has other axes."""
        if (points := self.probes.points()) is not self._points:
            self._points, self._columns, self._held = points, {}, {}
        if slot not in self._columns:
            place, rank = slot[:3], len(self.base.shapes[slot[:3]])
            shapes = [run.shapes.get(place) for _, run in points]
            whole = [(None,) * rank if s is None else _numbers(s) if len(s) == rank else (-1,) * rank for s in shapes]
            for axis, column in enumerate(zip(*whole, strict=True)):
                if column[1:] and column[1] not in (None, column[0]):  # the same sizes; other values than none
                    pairs = zip(points, column, strict=True)
                    column = tuple(size if run is self.base or run.real else None for (_, run), size in pairs)
                self._columns[*place, axis] = column
        return self._columns[slot]

    def _agrees(self, known: list[dict[Slot, Formula | None]], sizes: Mapping[str, int], run: Run) -> bool:
        """Return True if no run so far refutes the known formulas."""
        self._refuted = self._refuted or not known[0] or self._has_other_parts(sizes, run)
        for place, shape in self.base.shapes.items() if not self._refuted else ():
            seen = run.shapes.get(place)
            for axis in range(len(shape)) if seen is not None else ():
                formulas = [f for side in known if (f := side.get((*place, axis))) is not None and self._is_of_names(f)]
                size = seen[axis] if len(seen) == len(shape) else -1
                if formulas and all(self._value(formula, sizes) != size for formula in formulas):
                    self._refuted = True
                    return False
        return not self._refuted

    def _size(self, run: Run, slot: Slot) -> Any:
        """The size in one run, as in a column."""
        shape = run.shapes.get(slot[:3])
        return None if shape is None else shape[slot[3]] if len(shape) == len(self.base.shapes[slot[:3]]) else -1

    def _has_other_parts(self, sizes: Mapping[str, int], run: Run | None) -> bool:
        """Return True if the output has more, fewer or other parts than the given run's."""
        root = self.base.keys[0]
        parts, given = (itertools.takewhile(lambda p: p[0] == root, r.shapes) for r in (run or self.base, self.base))
        return run is not None and run.error is None and set(parts) != set(given)

    def _limit_parts(self) -> None:
        """Limit each name to the sizes at which the output has the same parts."""
        found = {}
        for name, size in self.sizes.items() if self.base.keys else ():
            others = [s[name] for s, run in self.probes.alone(name) if self._has_other_parts(s, run)]
            outside = max((n for n in others if n < size), default=0), min((n for n in others if n > size), default=0)
            edges = [end and boundary(self.probes, name, size, end, self._has_other_parts)[0] for end in outside]
            found[name] = edges[0], edges[1] or math.inf
        self.probes.limits |= {name: limits for name, limits in found.items() if limits != (0, math.inf)}

    def _is_of_names(self, formula: Formula) -> bool:
        return self.sizes.keys() >= set(formula.names)

    def _seen(self, slot: Slot) -> tuple[int | None, ...]:
        return tuple(None if size == -1 else size for size in self._column(slot))

    def _keep(self, candidates: dict[Slot, Formula | None]) -> None:
        """Keep the formulas that hold; unreached sizes are numbers."""
        fixed = {name: self.sizes[name] for name in self.probes.fixed}
        points = self.probes.points()
        changed = {n: [i for i, (at, _) in enumerate(points) if at[n] != size] for n, size in self.sizes.items()}
        for slot, size in self.base.sizes.items():
            formula, column = candidates.get(slot), self._column(slot)
            reached = {name for name, places in changed.items() if any(column[i] is not None for i in places)}
            if formula is not None and not self._is_of_names(formula):
                if formula.is_name:  # a formula of such a name could not be checked
                    self.formulas[slot] = formula
                continue
            if formula is not None:
                unseen = set(formula.names) - reached
                if unseen - fixed.keys():
                    continue
                formula = formula.substitute(**{name: fixed[name] for name in unseen}) if unseen else formula
            if self._holds(slot, formula):
                self.formulas[slot] = formula
            elif isinstance(size, int) and not self.probes.steps and not reached:
                self.formulas[slot] = Formula(size)

    def _replace_wrong(self, candidates: dict[Slot, Formula | None]) -> None:
        """Fit operations at which wrong sizes begin, and derive later sizes again."""
        overrides: dict[tuple, dict[tuple[str, int], Formula]] = {}
        self._turns = _distinct(self.probes.turns())
        names, turns = list(map(Formula, self.sizes)), self._turns[:6]
        self._guesses = [
            *names,
            *(Formula.extreme(which, pair) for pair in itertools.combinations(names, 2) for which in ("min", "max")),
            *(Formula.rounded(which, combined("**", formula, 0.5)) for formula in turns for which in ("int", "ceil")),
            *(a * b for a, b in itertools.combinations(turns, 2)),
        ]
        while len(overrides) < MOST_OVERRIDES:
            self._known = sorted(_distinct([*candidates.values(), *self._turns]), key=lambda f: len(f._key))
            wrong = {slot for slot in self.base.sizes if not self._holds(slot, candidates.get(slot))}
            self._look_beyond(wrong, candidates)
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
        self._known = sorted(_distinct([*self.formulas.values(), *self._turns]), key=lambda f: len(f._key))
        groups: dict[tuple, list[Slot]] = {}
        for slot, size in self.base.sizes.items() if self.probes.steps else ():
            if slot not in self.formulas and slot not in self._by_values and isinstance(size, int):
                groups.setdefault(self._seen(slot), []).append(slot)
        once = sum(len(groups.pop(seen)) for seen in list(groups) if set(seen[1:]) == {None})
        if once:
            self.probes.notes.append(f"{plural(once, 'size')} in rows that no other run has: {UNKNOWN}.")
        for slots in groups.values():
            formula = self._fit(slots[0], candidates.get(slots[0]))
            self.formulas.update((slot, formula) for slot in slots if self._holds(slot, formula))
        left = sum(slot not in self.formulas for slots in groups.values() for slot in slots)
        if left:
            why = "in the time that was left" if self.probes.exhausted else "that holds at all of them"
            runs = plural(len(self.probes.runs), "run")
            self.probes.notes.append(f"{plural(left, 'size')} without a formula {why}, after {runs}: {UNKNOWN}.")

    def _fit(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """A formula that agrees with all runs and with further ones."""
        if not isinstance(self.base.sizes[slot], int) or (self._pads and self.probes.exhausted):
            return None  # without values it depends on data; what is not tried where padding ends may be wrong there
        candidate = candidate if candidate is not None and self._is_of_names(candidate) else None
        found = self._fits.get(self._seen(slot))
        if not self._holds(slot, found):
            found = (
                self._pieced(slot, candidate)
                or (candidate and self._padded(slot, candidate))
                or self._within_limits(slot, candidate)
                or self._like_another(slot)
                or (candidate and self._by_turns(slot, candidate))
                or self._fit_anew(slot, candidate)
                or self._within_limits(slot, candidate, both=True)
            )
        if found is not None:
            self._fits[self._seen(slot)] = found
        return found

    def _holds_elsewhere(self, slot: Slot, formula: Formula | None, steps: tuple[int, ...], edges: bool) -> bool:
        """Return True if a formula also holds in new runs."""
        for step in steps:
            self.probes.moved(step)
        for sizes in self._edges(formula) if edges else ():
            self.probes.at(sizes)
        return self._holds(slot, formula)

    def _look_beyond(self, wrong: set[Slot], candidates: dict[Slot, Formula | None]) -> None:
        """Run with symbols at sizes where the model decides otherwise, and at both sides of the bounds there."""
        self._refuted = False
        for _ in range(MOST_SIDES - len(self._sides)):
            slots, known = itertools.islice(wrong, 200), [candidates, *self._sides]
            found = {slot: _distinct(side.get(slot) for side in known) for slot in slots}
            # a size that is another number in each run has become one
            found = {slot: own for slot, own in found.items() if len(own) < 2 or any(f.names for f in own)}
            runs = [(s, r) for s, r in self.probes.points()[1:] if r.error is None and s not in self._looked]
            sizes = next((sizes for sizes, run in runs if self._differ(found, sizes, run)), None)
            if sizes is None:
                return
            self._looked.append(sizes)
            guards = self.probes.guards
            known.append(self._read(self.probes.symbolic(sizes=sizes)[0]))
            self._sides.append(known[-1])
            self.probes.cross_bounds(lambda sizes, run, known=known: self._agrees(known, sizes, run))
            self.probes.guards = guards

    def _differ(self, found: dict[Slot, list[Formula]], sizes: Mapping[str, int], run: Run) -> bool:
        """Return True if one of the sizes in a run is that of none of its formulas."""
        pairs = ((self._size(run, slot), own) for slot, own in found.items())
        return any(isinstance(n, int) and all(f.value_at(sizes) != n for f in own) for n, own in pairs)

    def _pieced(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """The smaller or larger of the formulas on both sides of a bound."""
        return next((formula for formula in self._pieces(slot, candidate) if self._holds(slot, formula)), None)

    def _pieces(self, slot: Slot, candidate: Formula | None) -> list[Formula]:
        found = _distinct([candidate, *(side.get(slot) for side in self._sides)])
        found = [formula for formula in found if self._is_of_names(formula)]
        sets = [[formula] for formula in found] + [list(pair) for pair in itertools.combinations(found, 2)] + [found]
        pieces = [Formula.extreme(which, items) for items in sets if items for which in ("min", "max")]
        both = itertools.product(found, pieces) if len(found) == 3 else ()  # max(0, min(a, b))
        return _distinct([*pieces, *(Formula.extreme(which, pair) for pair in both for which in ("min", "max"))])

    def _within_limits(self, slot: Slot, candidate: Formula | None, both: bool = False) -> Formula | None:
        """One of the formulas, with limits of names beyond which the model does something else."""
        pieces = self._pieces(slot, candidate)
        return next((formula for formula in pieces if self._limited(slot, formula, both)), None)

    def _limited(self, slot: Slot, candidate: Formula, both: bool) -> bool:
        """Find the limits within which a formula holds; of one name, `both` or one."""

        def differs(sizes: Mapping[str, int], run: Run | None) -> bool:
            return run is not None and self._size(run, slot) not in (None, candidate.value_at(sizes))

        whole, before, new = slot in self._outputs, self.probes.limits, dict(self.probes.limits)
        for name in self.probes.steps:
            bad = [sizes[name] for sizes, run in self.probes.alone(name) if differs(sizes, run)]
            size = self.sizes[name]
            low, high = new.get(name, (0, math.inf))
            if bad and min(bad) < size < max(bad) and not both:
                return False
            if below := [n for n in bad if n < size]:
                edge = boundary(self.probes, name, size, max(below), differs)[0]
                low = max(low, edge) if whole or 4 * edge <= max(size, 32) else low
            if whole and (above := [n for n in bad if n > size]):
                high = min(high, boundary(self.probes, name, size, min(above), differs)[0])
            new[name] = low, high
        self.probes.limits = {name: limits for name, limits in new.items() if limits != (0, math.inf)}
        if self.probes.limits != before and self._holds(slot, candidate):
            return True
        self.probes.limits = before
        return False

    def _padded(self, slot: Slot, candidate: Formula) -> Formula | None:
        """The formula for all sizes, from one for padded sizes."""
        for whole, number in self.probes.paddings():
            earlier = [candidate.with_floor(whole // number, (whole - 1) // number)]
            earlier += [candidate.substitute(**{n: Formula(n) - 1}) for n in whole.names if whole == Formula(n)]
            for formula in earlier:
                if self._holds(slot, formula) and self._holds_elsewhere(slot, formula, ELSEWHERE[2:4], True):
                    return formula
        return None

    def _like_another(self, slot: Slot) -> Formula | None:
        """A formula that another size has, or a multiple of it, or so much more."""
        size = self.base.sizes[slot]
        for formula in (Formula(size), *self._guesses, *self._known):
            here = formula.value_at(self.sizes) if self._is_of_names(formula) else None
            if here is None:
                continue
            multiple = [formula * (size // here)] if here and not size % here else []
            for like in (formula, *multiple, formula + (size - here)):
                if self._holds(slot, like) and self._holds_elsewhere(slot, like, ELSEWHERE[2:4], False):
                    return like
        return None

    def _by_turns(self, slot: Slot, candidate: Formula) -> Formula | None:
        """The formula, with a multiple of what the model converted to a number: the last piece of a split."""
        for turns in self._turns:
            gaps = {
                self._value(turns, sizes): seen - (self._value(candidate, sizes) or 0)
                for (sizes, _), seen in zip(self._points, self._column(slot), strict=True)
                if isinstance(seen, int) and self._is_of_names(turns)
            }
            (first, gap), *more = gaps.items() or ((None, None),)
            for other, apart in more[:1] if None not in gaps else ():
                slope, rest = divmod(apart - gap, other - first)
                found = candidate + slope * turns + (gap - slope * first)
                if not rest and self._holds(slot, found) and self._holds_elsewhere(slot, found, ELSEWHERE[1:3], True):
                    return found
        return None

    def _fit_anew(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """A formula fitted to runs at sizes that the fit asks for."""

        def seen(sizes: Mapping[str, int]) -> int | None:
            run = self.base if sizes == self.sizes else self.probes.at(sizes)
            size = -1 if run is None else self._size(run, slot)
            return size if isinstance(size, int) and size >= 0 else None

        known = {}
        if candidate is not None:
            for name in self.probes.steps:  # the symbolic formula may be right for one name and wrong for another
                alone = candidate.substitute(**{n: size for n, size in self.sizes.items() if n != name})
                pairs = [(self._size(run, slot), alone.value_at(sizes)) for sizes, run in self.probes.alone(name)]
                pairs = [(size, value) for size, value in pairs if size is not None]
                if len(pairs) > 1 and all(size == value for size, value in pairs):
                    known[name] = alone
        self.probes.reserve = RESERVE
        found = fit(seen, self.sizes, self.probes.steps, known, self.probes.far)
        self.probes.reserve = 0
        if found is None or self._holds_elsewhere(slot, found, ELSEWHERE, True):
            return found
        window = found.window
        near = range(2 * window.hop if window is not None and window.hop <= MOST_HOP else 0)
        sizes = [{**self.sizes, window.name: self.sizes[window.name] + more} for more in near]
        whole = near and all(self.probes.at(point) is not None for point in sizes)  # a refuted one needs more evidence
        return found if whole and self._limited(slot, found, False) else None

    def _edges(self, formula: Formula) -> Iterator[dict[str, int]]:
        """Sizes at which one more window just fits, or just does not."""
        window = formula.window
        if window is None or self.probes.steps.get(window.name) != 1:
            return
        for share in (20, 3, 1):
            start = max(window.length, self.sizes[window.name] // share)
            for rest in {0, window.hop - 1}:
                for size in range(start, start + (2 if share == 1 else 1) * window.hop):  # halves round to even numbers
                    if (window.factor * size - window.length) % window.hop == rest:
                        yield {**self.sizes, window.name: size}

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

    def _note_other_paths(self) -> None:
        start = self.probes.at(self.sizes)  # without values a model may take another path than with them
        for name in self.probes.steps if start is not None and start.error is None else ():
            for sizes, run in self.probes.alone(name):
                rows = set((self.base if run.real else start).keys)
                more, fewer = len(set(run.keys) - rows), len(rows - set(run.keys))
                if run.error is None and (more or fewer):
                    change = f"at {name}={sizes[name]} {more} rows more, {fewer} fewer"
                    self.probes.notes.append(f"The flow depends on {name}: {change}.")
                    break


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Let garbage collection see new objects alone: it would search all modules again and again."""
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def _numbers(shape: tuple) -> tuple:
    """A shape with -1 for what depends on values."""
    return tuple(size if size is None or isinstance(size, int) else -1 for size in shape)


def _distinct(formulas: Any) -> list[Formula]:
    return list({formula._key: formula for formula in formulas if formula is not None}.values())
