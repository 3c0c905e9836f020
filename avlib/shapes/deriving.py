"""Finds the formula of every size of a run, and says only what other runs agree with.

1. A run with symbols for the named sizes gives an expression for each size, exact as far as the model looked at no
   symbol as a number.
2. Runs at other sizes, odd ones among them, check every one; without values they cost next to nothing.
3. Where a size went another way (a loop over the batch, `int(T*0.7)`, a number made of a length), its formula is fitted
   to what runs show, put in the place of the number, and the run with symbols repeated: what comes after follows.
4. What no formula fits has none. Relations between sizes that the model raises without are requirements.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from . import frames
from .fitting import fit
from .formula import Formula
from .guards import Relation, value_of
from .probing import Probes, first_line
from .rows import Requirement
from .running import Model, Run, Slot

MOST_OVERRIDES = 40  # operations whose sizes are fitted, before what follows from them is derived
MOST_PASSES = 4  # with symbols, before anything is fitted

Candidates = dict[Slot, Formula | None]

_lock = threading.RLock()  # names are put into modules for a moment; one at a time


class Derivation:
    """The formulas of a run.

    Args:
        model: what was run.
        base: the run at the sizes that were given; its sizes are the truth.

    Attributes:
        formulas: for each size of `base`, its formula; sizes that have none are absent.
        requires: what must hold for them.
        notes: what else the reader should know.
        checked: the sizes at which they were compared, for each name.
        unknown: names of sizes that depend on data, and where they come from.
    """

    def __init__(self, model: Model, base: Run):
        self.base, self.probes = base, Probes(model, base)
        self.sizes = self.probes.sizes
        self.formulas: dict[Slot, Formula] = {}
        self.requires: list[Requirement] = []
        self.unknown: dict[str, str] = {}
        self._by_values: set[Slot] = set()
        self._known: list[Formula] = []  # of other sizes
        self._fits: dict[tuple, Formula] = {}  # by what was seen
        self._told: dict[str, tuple[Formula, dict[int, int | None]]] = {}  # what formulas are in each run
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
        symbolic = self._with_symbols()
        probes.explore()
        if probes.real:
            self._by_values = probes.by_values()
            if self._by_values:
                probes.notes.append("Some sizes depend on values, as lengths or masks do: they have no formula.")
        candidates = self._read(symbolic)
        if symbolic is not None:
            self._replace_what_is_wrong(candidates)
        self._keep(candidates)
        self._fit_what_is_left(candidates)
        self._number_unknowns()
        self._find_requirements()
        self._note_other_ways()

    def _with_symbols(self) -> Run | None:
        """The run with symbols that says the most."""
        run, again = None, not self.probes.real
        for _ in range(MOST_PASSES):
            if again:
                run, again = self.probes.symbolic()
        return run

    def _read(self, run: Run | None) -> Candidates:
        """What a run with symbols says about each size."""
        if run is None:
            return {}
        formula = self.probes.model.fake.formula
        return {slot: formula(size) for slot, size in run.sizes.items() if slot in self.base.sizes}

    # what holds

    def _holds(self, slot: Slot, formula: Formula | None) -> bool:
        """Whether a formula agrees with every run that has this size, and with one at other sizes at least."""
        if formula is None or slot in self._by_values or not self._is_about_names(formula):
            return False
        compared = False
        for i, (sizes, run) in enumerate(self.probes.points()):
            seen = run.sizes.get(slot)
            if seen is None:
                if i == 0 or slot[:3] in run.ranks:  # the tensor is there, with fewer axes
                    return False
                continue
            if not isinstance(seen, int) or seen != self._value(formula, i, sizes):
                return False  # a symbol stands for what depends on values
            compared = compared or i > 0
        return compared

    def _value(self, formula: Formula, i: int, sizes: Mapping[str, int]) -> int | None:
        """What a formula is in the run with that number."""
        _, told = self._told.setdefault(formula._key, (formula, {}))
        if i not in told:
            told[i] = value_of(formula, sizes)
        return told[i]

    def _is_about_names(self, formula: Formula) -> bool:
        return self.sizes.keys() >= set(formula.names)

    def _seen(self, slot: Slot) -> tuple[int | None, ...]:
        """What a size was in each run."""
        sizes = (run.sizes.get(slot) for _, run in self.probes.points())
        return tuple(size if isinstance(size, int) else None for size in sizes)

    def _keep(self, candidates: Candidates) -> None:
        """Take what holds. Of a name that cannot change, sizes that no other run reached are numbers."""
        fixed = {name: self.sizes[name] for name in self.probes.fixed}
        reached = {name: self.probes.reached(name) for name in self.sizes}
        for slot, size in self.base.sizes.items():
            formula = candidates.get(slot)
            if formula is not None and not self._is_about_names(formula):
                if formula.names == (str(formula),):  # what is computed from it could not be checked
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

    # what is fitted

    def _replace_what_is_wrong(self, candidates: Candidates) -> None:
        """Fit the outputs of operations with which wrong sizes begin, and let symbols say what follows from them."""
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
            again, _ = self.probes.symbolic(overrides)
            candidates |= self._read(again)

    def _fit_what_is_left(self, candidates: Candidates) -> None:
        """Sizes that no run with symbols explains, alike ones together."""
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
        """A formula that agrees with all runs, found from more of them."""
        found = self._fits.get(self._seen(slot))
        if not self._holds(slot, found):
            found = self._padded(slot, candidate) or self._like_another(slot) or self._fit_anew(slot, candidate)
        if found is not None:
            self._fits[self._seen(slot)] = found
        return found

    def _padded(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """The formula for all sizes, where one holds for those that the model pads to a multiple.

        `8*(T//8) + 8` is the next multiple of 8, unless T is one: `8*((T - 1)//8) + 8` is it always.
        """
        if candidate is None or not self._is_about_names(candidate):
            return None
        for whole, number in self.probes.paddings():
            earlier = [candidate.with_floor(whole // number, (whole - 1) // number)]
            earlier += [
                candidate.substitute(**{name: Formula(name) - 1}) for name in whole.names if whole == Formula(name)
            ]
            for formula in earlier:
                if self._holds(slot, formula):
                    for steps in (1009, 20_011):
                        self.probes.moved(steps)
                    for sizes in self._edges(formula):
                        self.probes.at(sizes)
                    if self._holds(slot, formula):
                        return formula
        return None

    def _like_another(self, slot: Slot) -> Formula | None:
        """A number, a name or the formula of another size, a multiple of it, or it and a number."""
        size = self.base.sizes[slot]
        for formula in (Formula(size), *map(Formula, self.sizes), *self._known):
            here = value_of(formula, self.sizes) if self._is_about_names(formula) else None
            if here is None:
                continue
            multiple = [formula * (size // here)] if here and not size % here else []
            for like in (formula, *multiple, formula + (size - here)):
                if self._holds(slot, like):
                    for steps in (1009, 20_011):  # where nothing was looked at
                        self.probes.moved(steps)
                    if self._holds(slot, like):
                        return like
        return None

    def _fit_anew(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """Of what runs show at sizes that the fit asks for."""

        def seen(sizes: Mapping[str, int]) -> int | None:
            run = self.base if sizes == self.sizes else self.probes.at(sizes)
            size = None if run is None else run.sizes.get(slot)
            return size if isinstance(size, int) else None

        known = {}
        if candidate is not None and self._is_about_names(candidate):
            for name in self.probes.steps:  # what symbols say about one name may hold where they fail for another
                alone = candidate.substitute(**{n: size for n, size in self.sizes.items() if n != name})
                pairs = [(run.sizes.get(slot), value_of(alone, sizes)) for sizes, run in self.probes.alone(name)]
                pairs = [(size, told) for size, told in pairs if size is not None]
                if len(pairs) > 1 and all(size == told for size, told in pairs):
                    known[name] = alone
        found = fit(seen, self.sizes, self.probes.steps, known, self.probes.far)
        if found is not None:
            for steps in (5, 37, 1009, 20_011, 5_000_011):  # where fitting did not look
                self.probes.moved(steps)
            for sizes in self._edges(found):
                self.probes.at(sizes)
        return found if self._holds(slot, found) else None

    def _edges(self, formula: Formula) -> Iterator[dict[str, int]]:
        """Sizes up to the one at hand at which one more window just fits, or just does not.

        A length that a model computes in floating point is exact for short inputs and rounded for long ones: what is
        found at a long one may be wrong by one for some of the short, and only there.
        """
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
        """Sizes that depend on data are u0, u1 and so on, in the order of rows, and it is said where they come from."""
        events = dict(zip(self.base.keys, self.base.events, strict=True))
        slots = [slot for slot, formula in self.formulas.items() if not self._is_about_names(formula)]
        names: dict[str, str] = {}
        for slot in sorted(slots, key=lambda slot: (events[slot[0]].kind != "op", events[slot[0]].index)):
            old = str(self.formulas[slot])
            if old not in names:
                names[old] = f"u{len(names)}"
                event = events[slot[0]]
                self.unknown[names[old]] = f"depends on values: given by {event.name}{frames.told(event.place)}"
            self.formulas[slot] = Formula(names[old])

    # what must hold

    def _find_requirements(self) -> None:
        """What the model asked about sizes, where a run at sizes that break it raises."""
        kept: list[Relation] = []
        for guard, need in self.probes.relations():
            if not (guard.direct or " == " in need.text) or any(need.text == other.text for other in kept):
                continue  # torch's kernels ask much about sizes that is of no interest
            if " != " in need.text:
                continue
            broken = self._broken(need, kept)
            if broken is not None and broken.error is not None:
                kept.append(need)
                self.requires.append(Requirement(need.text, frames.shown(guard.file), guard.line, _reason(broken)))
        told = " ".join(need.text for need in kept)
        for name, run in self.probes.fixed.items():
            if f"{name} ==" not in told and run.raised_at is not None:
                file, line = run.raised_at
                told_by = frames.shown(file), line, _reason(run)
                self.requires.append(Requirement(f"{name} == {self.sizes[name]}", *told_by))

    def _broken(self, need: Relation, kept: list[Relation]) -> Run | None:
        """A run at sizes at which this does not hold, though all that was kept before does; no other name changes."""
        for sizes, run in self.probes.points():
            others = all(sizes[name] == size for name, size in self.sizes.items() if name not in need.names)
            if others and not need.holds(sizes) and all(other.holds(sizes) for other in kept):
                return run
        return None

    def _note_other_ways(self) -> None:
        """Say where rows are others at other sizes."""
        start = self.probes.at(self.sizes)  # without values a model may take another way than with them
        rows = set(start.keys) if start is not None and start.error is None else None
        for name in self.probes.steps if rows is not None else ():
            for sizes, run in self.probes.alone(name):
                more, fewer = len(set(run.keys) - rows), len(rows - set(run.keys))
                if run.error is None and (more or fewer):
                    told = f"at {name}={sizes[name]} {more} rows more, {fewer} fewer"
                    self.probes.notes.append(f"The flow depends on {name}: {told}.")
                    break


def _distinct(formulas: Any) -> list[Formula]:
    return list({formula._key: formula for formula in formulas if formula is not None}.values())


def _reason(run: Run) -> str:
    return f"{type(run.error).__name__}: {first_line(run.error)}"
