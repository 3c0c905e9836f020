"""Runs of a model at other sizes: which can change and by how much, what is seen there, and what symbols say."""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from . import frames
from .formula import Formula
from .guards import Relation, divided, modulus, relation_of
from .internals import AVAILABLE, Fake, Guard
from .recorder import Event
from .running import Model, Run, Slot
from .shims import makes_numbers, shims

MOST_RUNS = 200  # at other sizes, in all
SECONDS, REAL_SECONDS = 10.0, 2.0  # to spend on runs at most, without values and with them
SLOW = 1.0  # seconds; what would take longer is not run
LEAP = 128  # by which factor a size may at most be larger than any before
MOST_GUARDS = 12  # questions of a model about sizes that are answered the other way too
MOST_TRIED = 5000  # sizes in a row of which one may be what a model asks for, as a multiple of 8
FEW = 41  # the most steps of a name that makes rows: a loop over it is as long

Overrides = Mapping[tuple, Mapping[tuple[str, int], Formula]]  # of rows: by path and axis of an output


class Probes:
    """What is seen of a model at other sizes than those that were given.

    Args:
        model: what is run.
        base: the run at the sizes that were given.

    Attributes:
        runs: by sizes, in the order of their names.
        steps: by how much each name can change.
        fixed: names that cannot change, and a run that shows it.
        guards: what the model asked about sizes in the last run with symbols.
        real: run with values, since without them the model cannot be run.
        notes: why.
    """

    def __init__(self, model: Model, base: Run):
        self.model, self.base = model, base
        self.sizes = dict(model.inputs.sizes)
        self.runs: dict[tuple[int, ...], Run] = {}
        self.steps: dict[str, int] = {}
        self.fixed: dict[str, Run] = {}
        self.guards: list[Guard] = []
        self.real = not AVAILABLE
        self.notes: list[str] = []
        self.exhausted = False
        self._grows: set[str] = set()  # names that rows depend on
        # Modules in which `int` and its like are to keep symbols: to begin with, those that called operations.
        files = {event.place[0] for event in base.events if event.place is not None}
        modules = [module for module in list(sys.modules.values()) if getattr(module, "__file__", None) in files]
        self._scopes = {id(vars(module)): vars(module) for module in modules if makes_numbers(module.__file__)}
        self._spent: dict[tuple[int, ...], float] = {}  # seconds of each run
        self._most = MOST_RUNS

    # with numbers

    def at(self, sizes: Mapping[str, int]) -> Run | None:
        """The run at some sizes; None where it would take too much."""
        point = tuple(sizes[name] for name in self.sizes)
        if point in self.runs:
            return self.runs[point]
        if len(self.runs) >= self._most:
            self.exhausted = True
            return None
        if self.real and any(size > self.limit(name) for name, size in sizes.items()):
            return None
        for i, name in enumerate(self.sizes):
            largest = max((other[i] for other in self.runs), default=sizes[name])
            if sizes[name] > LEAP * largest:  # not at one go, so as to see whether it takes long
                step = self.steps.get(name, 1)
                nearer = self.sizes[name] + (sizes[name] - self.sizes[name]) // (LEAP // 2 * step) * step
                self.at({**sizes, name: nearer})
        if self._would_take(point) > SLOW:
            return None
        self.runs[point] = self._timed(point, sizes)
        if self._would_take(point, 1.0) > 0:  # it took longer than others, perhaps by chance
            first = self._spent[point]
            self._timed(point, sizes)
            self._spent[point] = min(first, self._spent[point])
        usual = max(median(self._spent.values()), 1e-3)
        self._most = min(MOST_RUNS, max(12, int((REAL_SECONDS if self.real else SECONDS) / usual)))
        return self.runs[point]

    def _timed(self, point: tuple[int, ...], sizes: Mapping[str, int]) -> Run:
        begun = time.process_time()
        with shims(self._scopes.values()):
            run = self.model.at(sizes, real=self.real)
        self._spent[point] = time.process_time() - begun
        return run

    def moved(self, steps: int) -> Run | None:
        """The run with every name so many steps away, and a few more for each."""
        return self.at(self._sizes_of(steps))

    def _sizes_of(self, steps: int) -> dict[str, int]:
        sizes = dict(self.sizes)
        for i, (name, step) in enumerate(self.steps.items()):
            away = steps % FEW if name in self._grows else steps
            sizes[name] = max(self.sizes[name] + (away + 2 * i) * step, self.sizes[name] % step or step)
        return sizes

    def limit(self, name: str) -> int:
        """How large a size may be in a run with values."""
        return max(4 * self.sizes[name], 64)

    @property
    def far(self) -> dict[str, tuple[int, ...]]:
        """How many steps away to look, for names whose reach is limited."""
        found = {name: (48, 24) for name in self._grows}
        for name, step in self.steps.items() if self.real else ():
            most = (self.limit(name) - self.sizes[name]) // step
            found[name] = tuple(sorted({most, most // 2, min(most, 48)}, reverse=True))
        return found

    def points(self) -> Iterator[tuple[dict[str, int], Run]]:
        """All that was seen, the run at the given sizes first."""
        yield self.sizes, self.base
        for point, run in self.runs.items():
            yield dict(zip(self.sizes, point, strict=True)), run

    def alone(self, name: str) -> Iterator[tuple[dict[str, int], Run]]:
        """What was seen where no name but this one changed."""
        for sizes, run in self.points():
            if sizes[name] != self.sizes[name] and all(sizes[n] == self.sizes[n] for n in sizes if n != name):
                yield sizes, run

    def reached(self, name: str) -> set[Slot]:
        """What was seen at another size of a name, whatever the others were."""
        found: set[Slot] = set()
        for sizes, run in self.points():
            if sizes[name] != self.sizes[name]:
                found.update(run.sizes)
        return found

    def find_steps(self) -> None:
        """By how much each size can change so that the model still runs."""
        start = self.at(self.sizes)
        for name, size in self.sizes.items():
            for step in (1, 2, 4, 8, 16, 32, 64, size):
                run = self.at({**self.sizes, name: size + step})
                if run is not None and run.error is None:
                    self.steps[name] = step
                    if start is not None and len(run.events) != len(start.events):
                        self._grows.add(name)  # until it is seen that it does not
                    break
                if run is not None:
                    self.fixed.setdefault(name, run)
            for step in (1, 2, 16, size // 2) if name not in self.steps else ():  # it may be the largest that is taken
                run = self.at({**self.sizes, name: size - step}) if size > step > 0 else None
                if run is not None and run.error is None:
                    self.steps[name] = step
                    break
            if name in self.steps:
                self.fixed.pop(name, None)

    def explore(self) -> None:
        """Look at each size smaller and larger, odd and even, alone and with the others, and beyond what was asked."""
        for name, step in self.steps.items():
            multiples = {modulus(guard, name, self.model.fake) for guard in self.guards}
            for multiple in sorted(m for m in multiples if 0 < m < step):
                run = self.at({**self.sizes, name: self.sizes[name] + multiple})
                if run is not None and run.error is None:
                    self.steps[name] = multiple
                    break
        for name, step in self.steps.items() if len(self.steps) < 3 else ():
            for away in (self.sizes[name] // (2 * step) | 1, -(self.sizes[name] // (3 * step) | 1)):
                if self.sizes[name] + away * step > 0:
                    self.at({**self.sizes, name: self.sizes[name] + away * step})
        half = min((self.sizes[name] // (4 * step) for name, step in self.steps.items()), default=0)
        few, more, _ = self.moved(7), self.moved(12), self.moved(-half)
        if few is not None and more is not None and len(few.events) == len(more.events):
            self._grows.clear()  # rows differ at the size that the model was built for, and nowhere else
        self._answer_otherwise()

    def relations(self) -> Iterator[tuple[Guard, Relation]]:
        """What the model asked, as far as it can be read and is about named sizes alone."""
        for guard in self.guards:
            relation = relation_of(guard, self.model.fake)
            if relation is not None and relation.names <= self.sizes.keys():
                yield guard, relation

    def paddings(self) -> Iterator[tuple[Formula, int]]:
        """Of what the model asked whether it is a multiple of which number, each once."""
        seen = set()
        for guard in self.guards:
            found = divided(guard, self.model.fake) if guard.direct else None
            if found is not None and (key := (found[0]._key, found[1])) not in seen:
                seen.add(key)
                yield found

    def _answer_otherwise(self) -> None:
        """Runs at sizes at which what the model itself asked about sizes would have another answer."""
        asked = [need for guard, need in self.relations() if guard.direct and need.names <= self.steps.keys()]
        for need in asked[:MOST_GUARDS]:
            for name in need.names:
                step, size = self.steps[name], self.sizes[name]
                larger = [size + step * 2**i for i in range(20)]
                smaller = [size - step * (size // step) // 2**i for i in range(6)]
                if " != " in need.text:
                    larger = range(size, size + step * MOST_TRIED, step)
                away = (n for n in (*larger, *smaller) if n > 0 and not need.holds({**self.sizes, name: n}))
                if (other := next(away, None)) is not None:
                    self.at({**self.sizes, name: other})

    def _would_take(self, point: tuple[int, ...], same: float = 0.0) -> float:
        """Seconds that a run might take: one without values takes as long at any size, unless it counts in Python.

        `same` is by how much a run at the same sizes counts.
        """
        usual = median(self._spent.values()) if len(self._spent) > 3 else float("inf")
        longest = 0.0
        for other, spent in self._spent.items():
            if all(a < 8 * b for a, b in zip(other, self.sizes.values(), strict=True)):
                continue  # so near, a longer time is chance
            larger = [a / b for a, b in zip(point, other, strict=True) if a > b]
            if spent > 1.5 * usual + 0.03:
                longest = max(longest, (spent - usual) * max(larger, default=same if point == other else 0.0))
        return longest

    # with symbols, and with other values

    def symbolic(self, overrides: Overrides | None = None) -> tuple[Run, bool]:
        """The run with symbols, in which some sizes are replaced by formulas; it may end early.

        Returns:
            The run, and whether another would say more: where this one came to `len`, `int` or their like, the next one
            has others in their places, which leave symbols what they are.
        """
        fake = self.model.enter_fake()
        hints = self._generic()
        symbols = {name: fake.symbol(name, hint) for name, hint in hints.items()}
        del fake.env.assumed[:]
        counts: collections.Counter[tuple] = collections.Counter()

        def replace(event: Event, output: Any) -> Any:
            key = (event.kind, event.path, event.call, event.name, event.place)
            counts[key] += 1
            changed = (overrides or {}).get((*key, counts[key]))
            return _replaced(event, output, changed, symbols, fake) if changed else output

        with shims(self._scopes.values()):
            run = self.model.at(symbols, replace=replace)
        self.guards = list(fake.env.assumed)
        places = [(guard.file, guard.line, guard.scope) for guard in self.guards]
        if run.error is not None and (part := frames.raising(run.error.__traceback__)) is not None:
            places.append((part.tb_frame.f_code.co_filename, part.tb_lineno, part.tb_frame.f_globals))
        scopes = {id(scope): scope for file, line, scope in places if makes_numbers(file, line)}
        new = scopes.keys() - self._scopes.keys()
        self._scopes |= scopes
        return run, bool(new)

    def _generic(self) -> dict[str, int]:
        """What symbols are where a model must decide something about them.

        Not the sizes that were given, which may be special: those that the model was built for, or a batch of 1, which
        would be stretched. Nor those at which it does less than at others, as where nothing is to be padded.
        """
        runs = {steps: self.moved(steps) for steps in (7, 12)}
        ran = [steps for steps, run in runs.items() if run is not None and run.error is None]
        if not ran and (run := self.moved(1)) is not None and run.error is None:
            ran, runs = [1], {1: run}
        if ran:
            return self._sizes_of(max(ran, key=lambda steps: len(runs[steps].events)))
        return {name: size if size > 1 else 3 for name, size in self.sizes.items()}

    def as_expected(self, run: Run) -> bool:
        """Whether a run went as far as the one that was asked for."""
        return run.error is None or type(run.error) is type(self.base.error)

    def fall_back(self, error: BaseException) -> None:
        """Go on with real tensors, and say why."""
        self.real = True
        self.runs.clear()
        at = frames.told(frames.raised_at(error.__traceback__))
        told = f"{type(error).__name__}: {first_line(error)}"
        self.notes.append(f"The model looks at values{at} ({told}), so runs at other sizes had real ones.")

    def by_values(self) -> set[Slot]:
        """Sizes that are others when the values of the inputs are others, which a run with values does not tell."""
        run = self.model.at(self.sizes, real=True, other_values=True)
        if run.error is not None:
            return set()
        return {slot for slot, size in self.base.sizes.items() if run.sizes.get(slot, size) != size}


def first_line(error: BaseException, most: int = 160) -> str:
    """The beginning of a message."""
    return str(error).strip().partition("\n")[0][:most]


def _replaced(event: Event, output: Any, changed: Mapping[tuple[str, int], Formula], symbols: dict, fake: Fake) -> Any:
    """An output in which some sizes are formulas instead of the numbers that they were when it was made."""
    if not isinstance(output, Tensor):
        return output
    axes = {axis: formula.value(symbols) for (path, axis), formula in changed.items() if path == ""}
    with contextlib.nullcontext() if output.requires_grad else torch.no_grad():
        new = fake.like(output, axes)
    event.outputs = [leaf._replace(shape=tuple(new.shape)) if leaf.path == "" else leaf for leaf in event.outputs]
    return new
