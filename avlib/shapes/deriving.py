"""Formulas for every size of a run, each compared with other runs.

1. A run with symbols for the named sizes gives an expression for each size, exact unless the model converts a symbol to
   a number.
2. Runs at other sizes, odd ones among them, check every expression; without values they cost next to nothing.
3. If a size disagrees (a loop over the batch, `int(T*0.7)`, a number computed from a length), its formula is fitted to
   the runs and put in place of the number, and the symbolic run is repeated, so that later sizes follow.
4. A size that no formula fits has none. Relations between sizes without which the model raises are requirements.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from .fitting import fit
from .formula import Formula
from .probing import Probes, Relation, first_line
from .recorder import at_line, file_name
from .rows import Requirement
from .running import Model, Run, Slot

MOST_OVERRIDES = 40  # operations whose sizes are fitted before later sizes are derived again
MOST_PASSES = 4  # symbolic runs before anything is fitted
ELSEWHERE = (5, 37, 1009, 20_011, 5_000_011)  # steps to sizes that fitting did not use

Candidates = dict[Slot, Formula | None]

_lock = threading.RLock()  # probing puts names into modules for a moment; one thread at a time


class Derivation:
    """The formulas of a run, its requirements, the sizes checked, and the names of sizes that depend on data."""

    def __init__(self, model: Model, base: Run):
        self.base, self.probes = base, Probes(model, base)
        self.sizes = self.probes.sizes
        self.formulas: dict[Slot, Formula] = {}
        self.requires: list[Requirement] = []
        self.unknown: dict[str, str] = {}
        self._by_values: set[Slot] = set()
        self._known: list[Formula] = []  # of other sizes
        self._fits: dict[tuple, Formula] = {}  # by the sizes that were seen
        self._values: dict[str, tuple[Formula, dict[int, int | None]]] = {}  # of formulas in each run
        with _lock:
            self._derive()
        whole = [sizes for sizes, run in self.probes.points() if run.error is None]
        self.checked = {name: tuple(sorted({sizes[name] for sizes in whole})) for name in self.sizes}
        self.notes = self.probes.notes

    def _derive(self) -> None:
        probes = self.probes
        start = probes.at(self.sizes)
        if not probes.real and not probes.as_expected(start):
            probes.fall_back(start.error)
        probes.find_steps()
        symbolic, again, passes = None, not probes.real, 0
        while again and passes < MOST_PASSES:
            (symbolic, again), passes = probes.symbolic(), passes + 1
        probes.explore()
        if probes.real:
            self._by_values = probes.by_values()
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

    def _read(self, run: Run) -> Candidates:
        """The expressions of a symbolic run."""
        formula = self.probes.model.fake.formula
        return {slot: formula(size) for slot, size in run.sizes.items() if slot in self.base.sizes}

    # checking

    def _holds(self, slot: Slot, formula: Formula | None) -> bool:
        """Whether a formula agrees with every run that has this size, and with at least one at other sizes."""
        if formula is None or slot in self._by_values or not self._is_of_names(formula):
            return False
        compared = False
        for i, (sizes, run) in enumerate(self.probes.points()):
            seen = run.sizes.get(slot)
            if seen is None:
                if i == 0 or slot[:3] in run.ranks:  # the tensor is there, with fewer axes
                    return False
                continue
            if not isinstance(seen, int) or seen != self._value(formula, i, sizes):
                return False  # a symbol stands for a size that depends on values
            compared = compared or i > 0
        return compared

    def _value(self, formula: Formula, i: int, sizes: Mapping[str, int]) -> int | None:
        """The value of a formula in the run with that number."""
        _, values = self._values.setdefault(formula._key, (formula, {}))
        if i not in values:
            values[i] = formula.value_at(sizes)
        return values[i]

    def _is_of_names(self, formula: Formula) -> bool:
        return self.sizes.keys() >= set(formula.names)

    def _seen(self, slot: Slot) -> tuple[int | None, ...]:
        """A size in each run."""
        sizes = (run.sizes.get(slot) for _, run in self.probes.points())
        return tuple(size if isinstance(size, int) else None for size in sizes)

    def _keep(self, candidates: Candidates) -> None:
        """Keep the formulas that hold; a size that no run at another size of a name reached is a number."""
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

    # fitting

    def _replace_wrong(self, candidates: Candidates) -> None:
        """Fit the outputs of the operations at which wrong sizes begin, and repeat the symbolic run with them."""
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
                slots = sorted(slot for slot in wrong if slot[0] == key and slot[1])
                fits = {slot[2:]: self._fit(slot, candidates.get(slot)) for slot in slots}
                overrides[key] = {place: formula for place, formula in fits.items() if formula is not None}
            if not any(overrides[key] for key in new):
                return
            candidates |= self._read(self.probes.symbolic(overrides)[0])

    def _fit_the_rest(self, candidates: Candidates) -> None:
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
        """Whether a formula also holds in new runs, steps away and at edges of its window."""
        if formula is None:
            return False
        for step in steps:
            self.probes.moved(step)
        for sizes in self._edges(formula) if edges else ():
            self.probes.at(sizes)
        return self._holds(slot, formula)

    def _padded(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """The formula for all sizes: `8*((T - 1)//8) + 8`, from `8*(T//8) + 8` for sizes padded to a multiple."""
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
        """A number, a name or the formula of another size; a multiple of it, or its sum with a number."""
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
        """Sizes at which one more window just fits: float lengths are exact when short, rounded when long."""
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
        """Name sizes that depend on data u0, u1 and so on in the order of rows, and note where they come from."""
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

    # requirements

    def _find_requirements(self) -> None:
        """Find the model's comparisons of sizes without which a run raises."""
        kept: list[Relation] = []
        for guard, need in self.probes.relations():
            if not (guard.direct or " == " in need.text) or any(need.text == other.text for other in kept):
                continue  # torch's kernels compare sizes often, mostly without consequences
            if " != " in need.text:
                continue
            broken = self._broken(need, kept)
            if broken is not None and broken.error is not None:
                kept.append(need)
                self.requires.append(Requirement(need.text, file_name(guard.file), guard.line, _reason(broken)))
        texts = " ".join(need.text for need in kept)
        for name, run in self.probes.fixed.items():
            if f"{name} ==" not in texts and run.raised_at is not None:
                file, line = run.raised_at
                self.requires.append(Requirement(f"{name} == {self.sizes[name]}", file_name(file), line, _reason(run)))

    def _broken(self, need: Relation, kept: list[Relation]) -> Run | None:
        """A run at sizes that break only this relation, with all other names unchanged."""
        for sizes, run in self.probes.points():
            others = all(sizes[name] == size for name, size in self.sizes.items() if name not in need.names)
            if others and not need.holds(sizes) and all(other.holds(sizes) for other in kept):
                return run
        return None

    def _note_other_paths(self) -> None:
        """Note the names on which the rows depend."""
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


def _reason(run: Run) -> str:
    return f"{type(run.error).__name__}: {first_line(run.error)}"
