"""Finds the formula of every size of a run, and says only what other runs agree with.

1. A run with symbols for the named sizes gives an expression for each size, exact as far as the model looked at no
   symbol as a number.
2. Runs at other sizes, odd ones among them, check every one; without values they cost next to nothing.
3. Where a size went another way (a loop over the batch, `int(T*0.7)`, a number made of a length), its formula is fitted
   to what runs show, put in the place of the number, and the run with symbols repeated: what comes after follows.
4. What no formula fits is None. Names of sizes at which the model raises are requirements.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import linecache
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from . import frames
from .fitting import fit
from .formula import Formula
from .internals import AVAILABLE, Fake, Guard
from .recorder import Event
from .rows import Requirement
from .running import Model, Run, Slot

MOST_OVERRIDES = 40  # operations whose sizes are fitted, before what follows from them is derived
MOST_RUNS = 120  # at other sizes, in all
REAL_SECONDS = 2.0  # to spend on runs with values
MOST_GUARDS = 12
MOST_PASSES = 5  # with symbols, before anything is fitted
SLOW = 1.0  # seconds; what would take longer is not run

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
        unknown: names of sizes that depend on data, and what they count.
    """

    def __init__(self, model: Model, base: Run):
        self.model, self.base = model, base
        self.sizes = dict(model.inputs.sizes)
        self.formulas: dict[Slot, Formula] = {}
        self.requires: list[Requirement] = []
        self.notes: list[str] = []
        self.unknown: dict[str, str] = {}
        self.steps: dict[str, int] = {}  # by how much each name can change
        self.fixed: dict[str, Run] = {}  # names that cannot, and a run that shows it
        # Where a model must decide something with symbols. A size of 1 would be taken for one that is stretched.
        self._hints = {name: size if size > 1 else 3 for name, size in self.sizes.items()}
        self._hinted = dict(self._hints)
        self._again, self._passes = False, 0
        self.guards: list[Guard] = []
        self.by_data: set[Slot] = set()
        self._runs: dict[tuple[int, ...], Run] = {}
        self._real = not AVAILABLE
        self._tried, self._most = 0, MOST_RUNS
        self._scopes: dict[int, dict[str, Any]] = {}  # modules in which `int` and its like are to keep symbols
        self._spent: dict[tuple[int, ...], float] = {}  # seconds of each run
        self._fits: dict[tuple, Formula] = {}
        self._pool: list[Formula] = []  # what was found for other sizes
        self._grows: set[str] = set()  # names that rows depend on
        with _lock:
            self._derive()

    @property
    def checked(self) -> dict[str, tuple[int, ...]]:
        whole = [dict(zip(self.sizes, point, strict=True)) for point, run in self._runs.items() if run.error is None]
        return {name: tuple(sorted({point[name] for point in whole})) for name in self.sizes}

    def _derive(self) -> None:
        symbolic = None if self._real else self._symbolic({})
        while self._again and self._passes < MOST_PASSES:
            symbolic = self._symbolic({})
        if symbolic is not None and not self._as_expected(symbolic):
            start = self._run(self.sizes)
            if not self._as_expected(start):
                self._fall_back(start.error)
                symbolic = None
        for name in self.sizes:
            self._find_step(name)
        self._look_around()
        self._break_guards()
        if self._real:
            self._find_data_dependent()
        if symbolic is not None:
            self._hints |= self._special()
            while (self._again or self._hints != self._hinted) and self._passes < MOST_PASSES:
                symbolic = self._symbolic({})
        candidates = self._read(symbolic)
        overrides: dict[tuple, dict[tuple[str, int], Formula]] = {}
        while symbolic is not None and len(overrides) < MOST_OVERRIDES:
            self._pool = list({id(formula): formula for formula in candidates.values() if formula is not None}.values())
            wrong = self._wrong(candidates)
            origins = [key for key in self._origins(wrong) if key not in overrides]
            if not origins:
                break
            for key in origins[:MOST_OVERRIDES]:
                overrides[key] = self._fitted({slot for slot in wrong if slot[0] == key and slot[1]}, candidates)
            if not any(overrides[key] for key in origins[:MOST_OVERRIDES]):
                break
            candidates |= self._read(self._symbolic(overrides))
        self._keep(candidates)
        self._pool = list({id(formula): formula for formula in self.formulas.values()}.values())
        self._fit_what_is_left(candidates)
        self._find_requirements()

    # runs

    def _fall_back(self, error: BaseException) -> None:
        self._real = True
        where = frames.raised_at(error.__traceback__)
        at = f" at {where[0]}:{where[1]}" if where else ""
        told = str(error).strip().partition("\n")[0][:160]
        self.notes.append(
            f"The model looks at values{at} ({type(error).__name__}: {told}), so it was run with real ones at other sizes."
        )

    def _run(self, sizes: Mapping[str, int]) -> Run | None:
        """The run at some sizes; None where no more are allowed."""
        point = tuple(sizes[name] for name in self.sizes)
        if point not in self._runs:
            if self._tried >= self._most:
                return None
            if self._real and any(size > self._limit(name) for name, size in sizes.items()):
                return None
            if self._would_take(point) > SLOW:
                return None
            self._tried += 1
            begun = time.process_time()
            with shims(self._scopes.values()):
                self._runs[point] = self.model.at(sizes, real=self._real)
            spent = time.process_time() - begun
            if self._real:
                self._most = min(self._most, max(12, int(REAL_SECONDS / max(spent, 1e-3))))
            self._spent[point] = spent
        return self._runs[point]

    def _would_take(self, point: tuple[int, ...]) -> float:
        """Seconds that a run might take: one without values takes as long at any size, unless it counts in Python."""
        usual = median(self._spent.values()) if len(self._spent) > 3 else 1e9
        longest = 0.0
        for other, spent in self._spent.items():
            larger = [a / b for a, b in zip(point, other, strict=True) if a > b]
            if larger and spent > 1.3 * usual + 0.01:
                longest = max(longest, (spent - usual) * max(larger))
        return longest

    def _limit(self, name: str) -> int:
        """How large a size may be in a run with values."""
        return max(4 * self.sizes[name], 64)

    def _symbolic(self, overrides: Mapping[tuple, Mapping[tuple[str, int], Formula]]) -> Run:
        """The run with symbols, in which some sizes are replaced by formulas; it may end early."""
        fake = self.model.enter_fake()
        symbols = {name: fake.symbol(name, hint) for name, hint in self._hints.items()}
        del fake.env.assumed[:]
        counts: collections.Counter[tuple] = collections.Counter()

        def replace(event: Event, output: Any) -> Any:
            key = (event.kind, event.path, event.call, event.name, event.place)
            counts[key] += 1
            changed = overrides.get((*key, counts[key]))
            return _replaced(event, output, changed, symbols, fake) if changed else output

        with shims(self._scopes.values()):
            run = self.model.at(symbols, replace=replace)
        self._passes += 1
        self.guards = list(fake.env.assumed)
        places = [(guard.file, guard.line, guard.scope) for guard in self.guards]
        if run.error is not None and (part := frames.raising(run.error.__traceback__)) is not None:
            places.append((part.tb_frame.f_code.co_filename, part.tb_lineno, part.tb_frame.f_globals))
        scopes = {id(scope): scope for file, line, scope in places if _makes_numbers(file, line)}
        # Once more, with `len` and `int` that leave symbols what they are, or where the model was not built for.
        self._again = bool(scopes.keys() - self._scopes.keys())
        self._scopes |= scopes
        self._hinted = dict(self._hints)
        return run

    def _as_expected(self, run: Run) -> bool:
        """Whether a run went as far as the one that was asked for."""
        return run.error is None or type(run.error) is type(self.base.error)

    def _find_step(self, name: str) -> None:
        """By how much a size can change so that the model still runs."""
        size = self.sizes[name]
        multiples = [m for guard in self.guards if (m := _modulus(guard, name, self.model.fake))]
        failed, start = None, self._run(self.sizes)
        for step in (1, *sorted(set(multiples)), 2, 4, 8, 16, 32, 64, size):
            run = self._run({**self.sizes, name: size + step})
            if run is not None and run.error is None:
                self.steps[name] = step
                if start is not None and len(run.events) != len(start.events):
                    self._grows.add(name)  # until it is seen that it does not
                return
            failed = failed or run
        if failed is not None:
            self.fixed[name] = failed

    def _look_around(self) -> None:
        """Runs to compare with: each name smaller and larger, odd and even, alone and with the others."""
        for name, step in self.steps.items() if len(self.steps) < 3 else ():
            for away in (self.sizes[name] // (2 * step) | 1, -(self.sizes[name] // (3 * step) | 1)):
                if self.sizes[name] + away * step > 0:
                    self._run({**self.sizes, name: self.sizes[name] + away * step})
        half = {name: -(self.sizes[name] // (2 * step)) // 2 for name, step in self.steps.items()}
        few, more, _ = (
            self._run(self._moved(ways)) for ways in (dict.fromkeys(self.steps, 3), dict.fromkeys(self.steps, 13), half)
        )
        if few is not None and more is not None and len(few.events) == len(more.events):
            self._grows.clear()  # rows differ at the sizes that the model was built for, and nowhere else

    def _moved(self, ways: Mapping[str, int]) -> dict[str, int]:
        """All sizes that can change, each by another number of steps."""
        far = {name: way + 2 * i for i, (name, way) in enumerate(ways.items())}
        moved = {name: size + far.get(name, 0) * self.steps.get(name, 0) for name, size in self.sizes.items()}
        return {name: size if size > 0 else self.sizes[name] for name, size in moved.items()}

    def _special(self) -> dict[str, int]:
        """Sizes that are not special to the model, for names whose own size it asked for: the one it was built for."""
        asked: set[str] = set()
        for guard in self.guards:
            need = _relation(guard, self.model.fake) if guard.direct else None
            if need is not None and " == " in need[0] and " % " not in need[0]:
                asked |= need[1] & self.steps.keys()
        for point, run in self._runs.items() if asked else ():
            sizes = dict(zip(self.sizes, point, strict=True))
            if run.error is None and all((sizes[n] != self.sizes[n]) == (n in asked) and sizes[n] > 1 for n in asked):
                return {name: sizes[name] for name in asked}
        return {name: self.sizes[name] + 7 * self.steps[name] for name in asked}

    def _break_guards(self) -> None:
        """Runs at sizes at which what the model itself asked about sizes would have another answer."""
        broken = 0
        for guard in self.guards:
            need = _relation(guard, self.model.fake) if guard.direct and broken < MOST_GUARDS else None
            if need is None or not need[1] <= self.steps.keys():
                continue
            for name in need[1]:
                step, size = self.steps[name], self.sizes[name]
                away = [size + step * 2**i for i in range(20)] + [
                    size - step * (size // step) // 2**i for i in range(6)
                ]
                point = next((n for n in away if n > 0 and not need[2]({**self.sizes, name: n})), None)
                if point is not None:
                    self._run({**self.sizes, name: point})
                    broken += 1

    def _find_data_dependent(self) -> None:
        """With real tensors, a size may be what it is because of values: with other values it is another."""
        run = self.model.at(self.sizes, real=True, other_values=True)
        if run.error is None:
            seen = run.sizes
            self.by_data = {slot for slot, size in self.base.sizes.items() if seen.get(slot, size) != size}
        if self.by_data:
            self.notes.append("Some sizes depend on values, as lengths or masks: they have no formula.")

    # formulas

    def _read(self, run: Run | None) -> dict[Slot, Formula | None]:
        """What a run with symbols says about each size."""
        if run is None:
            return {}
        fake = self.model.fake
        return {slot: fake.formula(size) for slot, size in run.sizes.items() if slot in self.base.sizes}

    def _holds(self, slot: Slot, formula: Formula | None, cache: dict) -> bool:
        """Whether a formula agrees with every run that has this size."""
        if formula is None or slot in self.by_data or set(formula.names) - self.sizes.keys():
            return False
        compared = False
        for point, run in self._points():
            seen = run.sizes.get(slot)
            if seen is None:
                if run is self.base or run.ranks.get(slot[:3]) is not None:  # there, with fewer axes
                    return False
                continue
            told = cache.get((id(formula), point))
            if told is None:
                told = cache[id(formula), point] = _value(formula, dict(zip(self.sizes, point, strict=True)))
            if not isinstance(seen, int) or told != seen:  # a symbol stands for what depends on values
                return False
            compared = compared or run is not self.base
        return compared

    def _points(self) -> Iterator[tuple[tuple[int, ...], Run]]:
        yield tuple(self.sizes.values()), self.base
        yield from self._runs.items()

    def _wrong(self, candidates: Mapping[Slot, Formula | None]) -> set[Slot]:
        cache: dict = {}
        return {slot for slot in self.base.sizes if not self._holds(slot, candidates.get(slot), cache)}

    def _origins(self, wrong: set[Slot]) -> Iterator[tuple]:
        """Operations whose outputs go wrong although their inputs are right, in order; then the others."""
        outputs = {slot[0] for slot in wrong if slot[1]}
        inputs = {slot[0] for slot in wrong if not slot[1]}
        pairs = list(zip(self.base.keys, self.base.events, strict=True))
        keys = [key for key, event in pairs if event.kind == "op" and key in outputs]
        yield from (key for key in keys if key not in inputs)

    def _fitted(self, slots: set[Slot], candidates: Mapping[Slot, Formula | None]) -> dict[tuple[str, int], Formula]:
        found = {}
        for slot in sorted(slots, key=lambda slot: (slot[2], slot[3])):
            formula = self._fit(slot, candidates.get(slot))
            if formula is not None:
                found[slot[2], slot[3]] = formula
        return found

    def _fit(self, slot: Slot, candidate: Formula | None) -> Formula | None:
        """A formula that agrees with all runs, found from more of them."""
        alike = tuple(
            run.sizes.get(slot) if isinstance(run.sizes.get(slot), int) else None for _, run in self._points()
        )
        if alike in self._fits and self._holds(slot, self._fits[alike], {}):
            return self._fits[alike]
        found = self._known_elsewhere(slot) or self._fit_anew(slot, candidate)
        if found is not None:
            alike = tuple(
                run.sizes.get(slot) if isinstance(run.sizes.get(slot), int) else None for _, run in self._points()
            )
            self._fits[alike] = found
        return found

    def _known_elsewhere(self, slot: Slot) -> Formula | None:
        """A formula of another size that this one agrees with in all runs, or a name alone."""
        size = self.base.sizes[slot]
        for formula in (Formula(size), *map(Formula, self.sizes), *self._pool):
            here = _value(formula, self.sizes)
            if here is None:
                continue
            multiple = [formula * (size // here)] if here and not size % here else []
            for like in (formula, formula + (size - here), *multiple):
                if self._holds(slot, like, {}):
                    for way in (1009, 20_011):
                        self._run(self._moved({name: way % 41 if name in self._grows else way for name in self.steps}))
                    if self._holds(slot, like, {}):
                        return like
        return None

    def _fit_anew(self, slot: Slot, candidate: Formula | None) -> Formula | None:

        def seen(sizes: Mapping[str, int]) -> int | None:
            if all(sizes[name] == size for name, size in self.sizes.items()):
                value = self.base.sizes.get(slot)
            else:
                run = self._run(sizes)
                value = None if run is None else run.sizes.get(slot)
            return value if isinstance(value, int) else None

        known = {}
        if candidate is not None and not set(candidate.names) - self.sizes.keys():
            for name in self.steps:  # what the symbols say about one name alone may hold where they fail for another
                alone = candidate.substitute(**{n: size for n, size in self.sizes.items() if n != name})
                if self._holds_alone(slot, alone, name):
                    known[name] = alone
        far = {name: (48, 24) for name in self._grows}
        if self._real:
            room = {name: (self._limit(name) - self.sizes[name]) // step for name, step in self.steps.items()}
            far = {name: tuple(sorted({most, most // 2, min(most, 48)}, reverse=True)) for name, most in room.items()}
        found = fit(seen, self.sizes, self.steps, known, far)
        if found is None:
            return None
        for way in (5, 37, 1009, *(() if self._real else (20_011, 5_000_011))):  # sizes that fitting did not see
            ways = {name: way if name not in self._grows else way % 31 for name in self.steps}
            self._run(self._moved(ways))
        return found if self._holds(slot, found, {}) else None

    def _holds_alone(self, slot: Slot, formula: Formula, name: str) -> bool:
        told = 0
        for point, run in self._points():
            sizes = dict(zip(self.sizes, point, strict=True))
            others_same = all(sizes[n] == size for n, size in self.sizes.items() if n != name)
            seen = run.sizes.get(slot)
            if others_same and isinstance(seen, int):
                if _value(formula, sizes) != seen:
                    return False
                told += sizes[name] != self.sizes[name]
        return told > 1

    def _keep(self, candidates: Mapping[Slot, Formula | None]) -> None:
        """Take what holds. Of a name that cannot change, sizes that no other run reached are numbers."""
        cache: dict = {}
        pinned = {name: self.sizes[name] for name in self.fixed}
        reached = {name: self._reached(name) for name in self.sizes}
        for slot, size in self.base.sizes.items():
            formula = candidates.get(slot)
            if formula is not None and set(formula.names) - self.sizes.keys():
                self._keep_unknown(slot, formula)
                continue
            if formula is not None:
                unseen = [name for name in formula.names if slot not in reached[name]]
                if set(unseen) - pinned.keys():
                    continue
                formula = formula.substitute(**{name: pinned[name] for name in unseen})
            if isinstance(size, int) and not self.steps and not any(slot in seen for seen in reached.values()):
                self.formulas[slot] = Formula(size)  # at other sizes the model does not get there
            elif self._holds(slot, formula, cache):
                self.formulas[slot] = formula

    def _reached(self, name: str) -> set[Slot]:
        """Sizes that were seen at another value of a name."""
        place = list(self.sizes).index(name)
        found: set[Slot] = set()
        for point, run in self._runs.items():
            if point[place] != self.sizes[name]:
                found.update(run.sizes)
        return found

    def _keep_unknown(self, slot: Slot, formula: Formula) -> None:
        """A size that depends on data is a name of its own; what is computed from it could not be checked."""
        if formula.names != (str(formula),):
            return
        name, (kind, _, _, call, place, _) = str(formula), slot[0]
        self.formulas[slot] = formula
        if name not in self.unknown and kind == "op":
            where = f" at {place[0]}:{place[1]}" if place else ""
            self.unknown[name] = f"depends on values: given by {call}{where}"

    def _fit_what_is_left(self, candidates: Mapping[Slot, Formula | None]) -> None:
        """Sizes that no run with symbols explains, alike ones together."""
        if not self.steps:
            return
        groups: dict[tuple, list[Slot]] = {}
        for slot, size in self.base.sizes.items():
            if slot not in self.formulas and slot not in self.by_data and isinstance(size, int):
                seen = tuple(
                    run.sizes.get(slot) if isinstance(run.sizes.get(slot), int) else None for _, run in self._points()
                )
                if any(value is not None for value in seen[1:]):
                    groups.setdefault(seen, []).append(slot)
        for slots in groups.values():
            formula = self._fit(slots[0], candidates.get(slots[0]))
            if formula is not None:
                cache: dict = {}
                self.formulas.update((slot, formula) for slot in slots if self._holds(slot, formula, cache))
        if self._tried >= self._most and any(slot not in self.formulas for slots in groups.values() for slot in slots):
            self.notes.append(f"Some sizes have no formula after {self._tried} runs at other sizes.")

    # requirements

    def _find_requirements(self) -> None:
        """Guards that a run at a size which breaks them confirms."""
        told, pinned = set(), set()
        for guard in self.guards:
            need = _relation(guard, self.model.fake)
            if need is None:
                continue
            text, names, holds = need
            if text in told or not names <= self.sizes.keys() or not (guard.direct or " == " in text):
                continue
            if names & pinned:  # what follows from a size that cannot change is no news
                continue
            told.add(text)
            broken = self._breaking(names, holds)
            if broken is not None:
                self.requires.append(Requirement(text, guard.file, guard.line, broken))
                pinned |= {name for name in names if text == f"{name} == {self.sizes[name]}"}
        for name, run in self.fixed.items():
            if not any(need.formula.startswith(f"{name} ==") for need in self.requires) and run.raised_at:
                reason = _reason(run)
                self.requires.append(Requirement(f"{name} == {self.sizes[name]}", *run.raised_at, reason))
        self._note_other_ways()

    def _breaking(self, names: set[str], holds: Callable[[Mapping[str, int]], bool]) -> str | None:
        """What the model says at sizes that break a guard; None where it runs, or no such sizes are known."""
        for point, run in list(self._runs.items()):
            sizes = dict(zip(self.sizes, point, strict=True))
            only = all(sizes[n] == self.sizes[n] for n in sizes if n not in names)
            if only and not holds(sizes):
                return _reason(run) if run.error is not None else None
        return None

    def _note_other_ways(self) -> None:
        start = self._run(self.sizes)  # without values a model may take another way than with them
        if start is None or start.error is not None:
            return
        rows = set(start.keys)
        for name in self.steps:
            place = list(self.sizes).index(name)
            for point, run in self._runs.items():
                alone = all(
                    a == b or i == place for i, (a, b) in enumerate(zip(point, self.sizes.values(), strict=True))
                )
                if run.error is None and alone and set(run.keys) != rows:
                    more, fewer = len(set(run.keys) - rows), len(rows - set(run.keys))
                    at = f"{name}={point[place]}"
                    self.notes.append(f"The flow depends on {name}: at {at} {more} rows more, {fewer} fewer.")
                    break


def _value(formula: Formula, sizes: Mapping[str, int]) -> int | None:
    try:
        return formula._value(sizes)
    except (ZeroDivisionError, KeyError):
        return None


def _reason(run: Run) -> str:
    message = str(run.error).strip().partition("\n")[0]
    return f"{type(run.error).__name__}: {message}"[:200]


def _replaced(event: Event, output: Any, changed: Mapping[tuple[str, int], Formula], symbols: dict, fake: Fake) -> Any:
    """An output in which some sizes are formulas instead of the numbers that they were when it was made."""
    if not isinstance(output, Tensor):
        return output
    axes = {axis: formula._value(symbols) for (path, axis), formula in changed.items() if path == ""}
    with torch.no_grad() if not output.requires_grad else contextlib.nullcontext():
        new = fake.like(output, axes)
    event.outputs = [leaf._replace(shape=tuple(new.shape)) if leaf.path == "" else leaf for leaf in event.outputs]
    return new


# guards


def _makes_numbers(file: str, line: int) -> bool:
    """Whether a line has one of the functions that make numbers of symbols."""
    code = linecache.getline(file, line)
    return any(f"{name}(" in code for name in _SHIMS)


def _sides(guard: Guard, fake: Fake | None) -> tuple[str, Formula, Formula] | None:
    relation = guard.relation
    sign = {"Equality": "==", "Unequality": "!=", "StrictLessThan": "<", "LessThan": "<="}.get(type(relation).__name__)
    sign = sign or {"StrictGreaterThan": ">", "GreaterThan": ">="}.get(type(relation).__name__)
    if sign is None or fake is None:
        return None
    left, right = fake._formula(relation.lhs), fake._formula(relation.rhs)
    return None if left is None or right is None else (sign, left, right)


def _relation(guard: Guard, fake: Fake | None) -> tuple[str, set[str], Callable[[Mapping[str, int]], bool]] | None:
    """A guard as text, its names, and a test of it."""
    sides = _sides(guard, fake)
    if sides is None or sides[0] == "!=":
        return None
    sign, left, right = sides
    if left.constant is not None:
        left, right, sign = right, left, sign.translate(str.maketrans("<>", "><"))
    text = f"{left} {sign} {right}"
    multiple = _modulus(guard, left.names[0], fake) if len(left.names) == 1 else 0
    if multiple:
        text = f"{left.names[0]} % {multiple} == 0"

    def holds(sizes: Mapping[str, int]) -> bool:
        a, b = _value(left, sizes), _value(right, sizes)
        if a is None or b is None:
            return True
        return {"==": a == b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign]

    return text, {*left.names, *right.names}, holds


def _modulus(guard: Guard, name: str, fake: Fake | None) -> int:
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


# functions of Python that would make numbers of symbols


class _IntMeta(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.int)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, builtins.int)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.SymInt | torch.SymFloat):
            return torch.sym_int(args[0])
        return builtins.int(*args, **kwargs)


class _Int(builtins.int, metaclass=_IntMeta):
    """`int` that leaves a symbol a symbol, in code that is looked at."""


class _FloatMeta(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.float)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, builtins.float)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.SymInt | torch.SymFloat):
            return torch.sym_float(args[0])
        return builtins.float(*args, **kwargs)


class _Float(builtins.float, metaclass=_FloatMeta):
    """`float` that leaves a symbol a symbol."""


def _len(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt):
        return value.shape[0]
    return builtins.len(value)


def _of_symbols(symbolic: Callable, plain: Callable) -> Callable:
    def either(*args: Any, **kwargs: Any) -> Any:
        if builtins.len(args) == 2 and any(isinstance(value, torch.SymInt) for value in args) and not kwargs:
            return symbolic(*args)
        return plain(*args, **kwargs)

    return either


_SHIMS = {
    "len": _len,
    "int": _Int,
    "float": _Float,
    "max": _of_symbols(torch.sym_max, builtins.max),
    "min": _of_symbols(torch.sym_min, builtins.min),
}


@contextlib.contextmanager
def shims(scopes: Any) -> Iterator[None]:
    """Within these modules, `len`, `int` and their like leave symbols what they are; for all else they are Python's."""
    changed = []
    try:
        for scope in list(scopes):
            for name, shim in _SHIMS.items():
                if name not in scope:
                    scope[name] = shim
                    changed.append((scope, name))
        yield
    finally:
        for scope, name in changed:
            scope.pop(name, None)
