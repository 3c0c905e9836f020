"""Runs of a model at other sizes and with symbols."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from . import fake
from .fake import Guard
from .formula import Formula, Relation
from .keeping import called, functions_in, shims
from .recorder import Event, Limit, at_line, bytes_of, calling_line, error_text, raised_at, raising
from .running import Model, Run, Slot, event_key
from .shortcuts import Stopped

MOST_RUNS = 160  # at other sizes
SECONDS, REAL_SECONDS = 4.0, 4.0  # the most time for runs, without values and with them
BOUNDS_SECONDS = 2.0  # for the sides of the bounds that one symbolic run shows, the nearest first
AGREED_SECONDS = 0.4  # the same, while each run has the expected sizes
FIRST = 2.0  # expected of the first run, which loads parts of torch
SYMBOLIC_SECONDS = 4.0  # for all symbolic runs
REAL_BYTES = 2**21  # a run with values may have larger outputs only if the given one has
SLOW = 0.5  # seconds; a run that takes much longer than others is stopped
MOST_BOUNDS = 10  # sizes of one name at which a comparison changes
MOST_QUESTIONS = 8  # of a model about values, that are answered otherwise
MOST_TRIED = 1500  # consecutive sizes among which one may meet a condition, such as a multiple of 8
MOST_ELEMENTS = 2**52  # torch counts bytes in 64 bits
POWERS = (2, 4, 8, 16, 32, 64, 128, 256)  # steps that show a multiple, since all smaller ones failed
LATE = "The run with symbols took too long: formulas of its later sizes are fitted to runs, or unknown."
FEW, MOST_ADDED = 41, 64  # the most steps of a name that adds rows: a loop over it is as long

Agrees = Callable[[Mapping[str, int], Run], bool]  # True if a run has the sizes that are expected
Overrides = Mapping[tuple, Mapping[tuple[str, int], Formula]]  # of rows: by path and axis of an output


class Unlike(Exception):
    """A run without values raised, and the same with values did not."""


class Probes:
    """The runs of a model at other sizes than those of `base`.

    Attributes:
        runs: by sizes, in the order of their names.
        steps: the smallest change of each name at which the model still runs.
        fixed: names that cannot change, and a run that shows it.
        stopped: names that cannot change by 1, and a run that shows it.
        tied: names that change only with another one.
        multiples: numbers of which names must be multiples.
        guards: comparisons of sizes in the last symbolic run.
        real: run with values, since the model needs them, as `notes` says.
    """

    def __init__(self, model: Model, base: Run):
        self.model, self.base = model, base
        self.sizes = dict(model.inputs.sizes)
        self.runs: dict[tuple[int, ...], Run] = {}
        self.steps: dict[str, int] = {}
        self.fixed: dict[str, Run] = {}
        self.stopped: dict[str, Run] = {}
        self.tied: dict[str, str] = {}
        self.multiples: dict[str, int] = {}
        self.guards: list[Guard] = []
        self.real = not fake.AVAILABLE or not model.inputs.are_strided()
        self.notes: list[str] = []
        self.exhausted, self.reserve = False, 0  # runs that are left for later
        self._grows: set[str] = set()  # names on which the number of rows depends
        # Globals of modules in which `int` and such must keep symbols: at first, of those that called operations.
        files = {event.place[0] for event in base.events if event.place is not None}
        modules = [module for module in list(sys.modules.values()) if getattr(module, "__file__", None) in files]
        self._scopes = model.scopes
        self._scopes.update((id(vars(module)), vars(module)) for module in modules)
        self._find_functions()
        self._spent: dict[tuple[int, ...], float] = {}  # seconds of each run
        self._began = time.process_time()
        self._symbolic = 0.0  # seconds of symbolic runs
        self._repeated: dict[tuple, Run | None] = {}  # runs with values, by what a run without them raised
        self.limits: dict[str, tuple[float, float]] = {}  # sizes between which the formulas hold
        self._listed: tuple = (None, [])  # the runs, and the state in which they were listed
        self._failures: set[tuple] = set()  # of runs in which each name alone fails too
        self._crossed: set[tuple[str, int]] = set()
        self._changed: dict[tuple[str, str], list[int]] = {}  # where relations change, by text and name
        self._largest = max((bytes_of(event.outputs) for event in base.events), default=0)
        self._bytes = max(REAL_BYTES, 2 * self._largest)

    def at(self, sizes: Mapping[str, int]) -> Run | None:
        """Return the run at these sizes; None if too long."""
        point = tuple(sizes[name] for name in self.sizes)
        if point in self.runs:
            return self._whole(point)
        left = (REAL_SECONDS if self.real else SECONDS) + self._symbolic - (time.process_time() - self._began)
        if len(self.runs) >= MOST_RUNS - self.reserve or (left < 0 and self.runs):
            self.exhausted = True
            return None
        if (
            math.prod(point) > MOST_ELEMENTS
            or not self.model.inputs.possible(sizes)
            or (self.real and not self._affordable(sizes))
        ):
            return None
        if any(isinstance(run.error, Stopped) and _within(other, point) for other, run in self.runs.items()):
            return None  # a smaller run took too long
        if any(sizes[name] - self.sizes[name] > MOST_ADDED * self.steps.get(name, 1) for name in self._grows):
            return None
        self.runs[point] = self._timed(point, sizes)
        return self._whole(point)

    def _whole(self, point: tuple[int, ...]) -> Run | None:
        run = self.runs[point]
        if isinstance(run.error, Stopped):
            self.exhausted = True
            return None
        return run

    def _timed(self, point: tuple[int, ...], sizes: Mapping[str, int]) -> Run:
        real = self.real or self._is_cheap(sizes)
        with contextlib.nullcontext() if real else shims(self._functions):
            run = self.model.at(sizes, real=real, limit=self._limit(real))
        if real is self.real:
            self._spent[point] = run.seconds
        if not run.real and run.error is None and self._becomes_empty(run):
            run = self.with_values(sizes) or run  # without them, operations treat tensors of nothing otherwise
        self._forget_between(point, run)
        return run

    def _becomes_empty(self, run: Run) -> bool:
        return any(0 in shape and 0 not in self.base.shapes.get(place, (0,)) for place, shape in run.shapes.items())

    def with_values(self, sizes: Mapping[str, int], most: float = SLOW) -> Run | None:
        """Return a run with values; None if it is not possible, or may take more seconds, or much memory."""
        grown = self._grown(sizes)
        if not self.base.real or self._trains or grown * self._largest > self._bytes:
            return None
        run = self._real_run(sizes) if self.base.seconds * grown**1.5 < most else None
        return None if run is None or isinstance(run.error, Stopped) else run

    @property
    def _trains(self) -> bool:
        """True for a function that uses modules: it may change them."""
        return bool(self.model.known) and not isinstance(self.model.fn, torch.nn.Module)

    def _is_cheap(self, sizes: Mapping[str, int]) -> bool:
        """Return True if a run with values takes less time than one without."""
        whole = isinstance(self.model.fn, torch.nn.Module) and self.base.real  # a function may train, say
        if not whole or not self.runs or not self._affordable(sizes):
            return False
        return self.base.seconds * self._grown(sizes) ** 1.5 < min(next(iter(self.runs.values())).seconds, SLOW)

    def _limit(self, real: bool) -> Limit:
        usual = median(self._spent.values()) if self._spent else FIRST
        return Limit(time.process_time() + SLOW + 4 * usual, self._bytes if real else 0)

    def moved(self, steps: int) -> Run | None:
        """Return the run with every name moved by so many steps."""
        return self.at(self.sizes_of(steps))

    def sizes_of(self, steps: int) -> dict[str, int]:
        """Return sizes of which every name is moved by so many steps."""
        sizes = dict(self.sizes)
        order = list(self.steps)
        for name, step in self.steps.items():
            i = order.index(self.tied.get(name, name))
            away = steps % FEW if name in self._grows else steps
            sizes[name] = max(self.sizes[name] + (away + 2 * i) * step, self.sizes[name] % step or step)
        return sizes

    def limit(self, name: str) -> int:
        """Return the largest size for a run with values."""
        return min(max(4 * self.sizes[name], 64), self.sizes[name] * self._bytes // max(1, self._largest))

    @property
    def far(self) -> dict[str, tuple[int, ...]]:
        """Distances in steps for names whose reach is limited."""
        found = {name: (48, 24) for name in self._grows}
        for name, step in self.steps.items() if self.real else ():
            most = (self.limit(name) - self.sizes[name]) // step
            found[name] = tuple(sorted({most, most // 2, min(most, 48)}, reverse=True))
        return found

    def points(self) -> list[tuple[dict[str, int], Run]]:
        """Return all runs with their sizes, the given run first, within the limits of the formulas."""
        if (state := (len(self.runs), *self.limits.items())) != self._listed[0]:
            runs = [(dict(zip(self.sizes, point, strict=True)), run) for point, run in self.runs.items()]
            limits = self.limits.items()
            within = [(s, r) for s, r in runs if all(low <= s[name] <= high for name, (low, high) in limits)]
            self._listed = state, [(self.sizes, self.base), *within]
        return self._listed[1]

    def alone(self, name: str) -> Iterator[tuple[dict[str, int], Run]]:
        """Yield the runs in which only this name changed."""
        for sizes, run in self.points():
            changed = {self.tied.get(n, n) for n in sizes if sizes[n] != self.sizes[n]}
            if changed == {self.tied.get(name, name)}:
                yield sizes, run

    def find_steps(self) -> None:
        start, base = self.at(self.sizes), self.base
        for name, size in self.sizes.items():

            def runs(step: int, name: str = name, size: int = size) -> bool:
                run = self.confirmed({**self.sizes, name: size + step})
                if run is not None and run.error is None:
                    self.steps[name] = step
                    if start is not None and len(run.keys) != len((base if run.real else start).keys):
                        self._grows.add(name)  # until a run shows that it does not
                elif run is not None:
                    self.fixed.setdefault(name, run)
                return run is not None and run.error is None

            if not runs(1) and (first := bisect_left(POWERS, True, key=runs)) < len(POWERS):
                self.steps[name] = POWERS[first]
            elif name not in self.steps:
                any(map(runs, (*POWERS, size or 128)))
            for step in (1, 2, 16, size // 2) if name not in self.steps else ():  # it may be the largest possible size
                run = self.at({**self.sizes, name: size - step}) if size > step > 0 else None
                if run is not None and run.error is None:
                    self.steps[name] = step
                    break
            if name in self.steps and name in self.fixed:
                self.stopped[name] = self.fixed.pop(name)
        for name, other in itertools.combinations(self.fixed, 2):  # a square picture, two streams of one length
            if self.sizes[name] == self.sizes[other] and other not in self.steps:
                for step in (1, 2, 4, 8, 16, 32, 64, self.sizes[name]):
                    run = self.at({**self.sizes, name: self.sizes[name] + step, other: self.sizes[other] + step})
                    if run is not None and run.error is None:
                        self.steps |= {name: step, other: step}
                        self.tied[other] = name
                        break
        self._find_multiples()

    def confirmed(self, sizes: Mapping[str, int]) -> Run | None:
        """The run at these sizes. One that raises is repeated with values, lest the world without them is at fault."""
        run = self.at(sizes)
        if run is None or run.error is None or run.real or not self.base.real or self._trains:
            return run
        place = type(run.error), run.raised_at
        if place not in self._repeated:
            self._repeated[place] = self._real_run(sizes) if self._affordable(sizes) else None
        real = self._repeated[place]
        if real is not None and real.error is None:
            raise Unlike(run.error)
        return run

    def ran_otherwise(self, sizes: Mapping[str, int]) -> bool:
        """Return True if the model runs at these sizes with other numbers, such as smaller lengths, in its inputs."""
        counts = self.model.inputs.hold_numbers() and self.base.real and self._affordable(sizes)
        return counts and self._real_run(sizes, other_values=True).error is None

    def _real_run(self, sizes: Mapping[str, int], **options: Any) -> Run:
        limit = Limit(time.process_time() + REAL_SECONDS, self._bytes)
        return self.model.at(sizes, real=True, limit=limit, **options)

    def _affordable(self, sizes: Mapping[str, int]) -> bool:
        within = all(size <= self.limit(name) for name, size in sizes.items())
        return self._grown(sizes) * self._largest <= self._bytes and within

    def _grown(self, sizes: Mapping[str, int]) -> float:
        return math.prod(max(1.0, size / max(1, self.sizes[name])) for name, size in sizes.items())

    def explore(self, agrees: Agrees) -> None:
        """Run at varied sizes, on both sides of bounds, and at other answers to comparisons."""
        shares = (1.5, 0.65, 0.35, 0.18, 0.06, 0.0)
        self._spread({name: [int(self.sizes[name] * share) for share in shares] for name in self.steps}, agrees)
        for name in self.steps:
            for size in (1, 2, 3):  # two that are too small together may run, -1 times -1
                self.at(self.moved_alone(name, size))
        half = min((self.sizes[name] // (4 * step) for name, step in self.steps.items()), default=0)
        few, more, _ = self.moved(7), self.moved(12), self.moved(-half)
        if few is not None and more is not None and len(few.keys) == len(more.keys):
            self._grows.clear()  # rows differ only at the size that the model was built for
        self.cross_bounds(agrees)

    def _spread(self, wanted: Mapping[str, list[int]], agrees: Agrees) -> None:
        """Run at sizes of all names together; at those of each name alone where something is not as expected."""
        names, begun, agreed = [n for n in wanted if n not in self.tied], time.process_time(), True
        for values in itertools.zip_longest(*(wanted[name] for name in names)):
            if time.process_time() - begun > (AGREED_SECONDS if agreed else BOUNDS_SECONDS):
                break
            alone = [self.moved_alone(name, size) for name, size in zip(names, values, strict=True) if size is not None]
            together = {n: next((s[n] for s in alone if s[n] != size), size) for n, size in self.sizes.items()}
            run = self.at(together if len(alone) > 1 else alone[0])
            if run is None or run.error is not None or not agrees(together, run):
                agreed, larger = False, [together[name] > self.sizes[name] for name in names]
                failure = None if run is None or run.error is None else (type(run.error), run.raised_at, *larger)
                runs = [self.at(sizes) for sizes in alone if failure is None or failure not in self._failures]
                if runs and all(run is not None and run.error is not None for run in runs):
                    self._failures.add(failure)  # the next ones would fail too

    def moved_alone(self, name: str, size: int) -> dict[str, int]:
        """Return sizes of which only one name, and those tied to it, is about this large."""
        step, start = self.steps[name], self.sizes[name]
        near = max(start + (size - start) // step * step, start % step or step)
        leader = self.tied.get(name, name)
        tied = {name, leader, *(other for other, to in self.tied.items() if to == leader)}
        return {**self.sizes, **dict.fromkeys(tied, near)}

    def cross_bounds(self, agrees: Agrees) -> None:
        """Run at both sides of the sizes at which a comparison of the last symbolic run changes."""
        bounds = {name: set() for name in self.steps}
        for guard in self.of_names():
            need = guard.relation
            for name in need.names & bounds.keys():
                bounds[name].update(self._changes(need, name))
        wanted = {}
        for name, found in bounds.items():
            size, step = self.sizes[name], self.steps[name]
            new = [bound for bound in found if (name, bound) not in self._crossed]
            new.sort(key=lambda bound, size=size: abs(math.log(bound / max(size, 1))))
            self._crossed.update((name, bound) for bound in new[:MOST_BOUNDS])
            wanted[name] = [2 * max(new) + 7 * step] if new else []  # what changes there may show only far beyond
            wanted[name] += [bound + more * step for bound in new[:MOST_BOUNDS] for more in (0, 1)]
        self._spread(wanted, agrees)

    def _changes(self, need: Relation, name: str) -> list[int]:
        """The sizes of a name after which a relation changes."""
        if (need.text, name) in self._changed:
            return self._changed[need.text, name]

        found, size, step = self._changed.setdefault((need.text, name), []), max(1, self.sizes[name]), self.steps[name]
        period = (need.left - need.right).period[0] if need.sign in ("==", "!=") else 1
        bound = Relation(">=", need.left, need.right) if need.sign == "!=" and period == 1 else need

        def holds(size: int) -> bool:
            return bound.holds({**self.sizes, name: size})

        if period > 1:
            most = min(period, MOST_TRIED) + 1
            for near in (range(size, size + most * step, step), range(size, 0, -step)[:most]):
                found += itertools.islice((n for n in near if holds(n) != holds(size)), 1)
            return found
        grid = sorted({*(2**i for i in range(24)), size})
        answers = [holds(size) for size in grid]
        for (low, before), (high, after) in itertools.pairwise(zip(grid, answers, strict=True)):
            if before != after:
                found.append(low + bisect_left(range(low + 1, high + 1), True, key=lambda n: holds(n) == after))
        return found

    def edges(self, need: Relation) -> Iterator[dict[str, int]]:
        """Yield the sizes of one name on both sides of the places where a relation changes."""
        for name in need.names & self.steps.keys():
            for size in self._changes(need, name):
                yield from (self.moved_alone(name, size + more * self.steps[name]) for more in (0, 1))

    def _find_multiples(self) -> None:
        """Make steps as small as they can be, and find the numbers of which names must be multiples."""
        for name, step in self.steps.items() if not self.real else ():
            for prime in (2, 3, 5, 7, 11, 13) if step not in (1, *POWERS) else ():
                while step % prime == 0 and (run := self.at({**self.sizes, name: self.sizes[name] + step // prime})):
                    if run.error is not None:
                        break
                    self.steps[name] = step = step // prime
        self.multiples = {n: step for n, step in self.steps.items() if step > 1 and self.sizes[n] % step == 0}
        for point, run in self.runs.items():
            self._forget_between(point, run)

    def _forget_between(self, point: tuple[int, ...], run: Run) -> None:
        """Forget the rows of a run that raised between multiples: formulas need not hold there."""
        sizes = dict(zip(self.sizes, point, strict=True))
        if run.error is not None and any(sizes[name] % step for name, step in self.multiples.items()):
            run.forget_rows()

    def of_names(self) -> list[Guard]:
        """Return the guards that compare named sizes alone."""
        named = (guard for guard in self.guards if guard.relation.names <= self.sizes.keys())
        return [guard._replace(relation=part) for guard in named for part in guard.relation.factors()]

    def turns(self) -> Iterator[Formula]:
        """Yield what the last symbolic run converted to numbers, such as the turns of loops."""
        for guard in self.guards:
            if guard.relation.sign == "==" and (guard.relation.right.constant or 0) > 1:
                yield guard.relation.left
        for real in dict.fromkeys(self.model.fake.env.converted) if self.model.fake else ():
            yield from (Formula.rounded(function, real) for function in ("int", "round", "ceil"))

    def paddings(self) -> Iterator[tuple[Formula, int]]:
        """Yield x and m of the model's own tests `x % m == 0`, each once."""
        found = (guard.relation.division for guard in self.guards if guard.direct)
        yield from {(whole._key, number): (whole, number) for whole, number in filter(None, found)}.values()

    def symbolic(self, overrides: Overrides | None = None, sizes: Mapping[str, int] | None = None) -> tuple[Run, bool]:
        """Run with symbols, with formulas in place of some sizes; the model decides as at `sizes`.

        Returns the run, and whether another would find more: it replaces `int` and such where this one met them.
        """
        world = self.model.enter_fake()
        world.env.begin(self.multiples)
        hints = sizes or self._generic()
        symbols = {name: world.env.symbol(name, hint) for name, hint in hints.items()}
        counts: collections.Counter[tuple] = collections.Counter()

        def replace(event: Event, output: Any) -> Any:
            changed = (overrides or {}).get(event_key(event, counts))
            return _replaced(event, output, changed, symbols, world) if changed else output

        with shims(self._functions):
            begun = time.process_time()
            run = self.model.at(symbols, replace=replace, limit=Limit(begun + SYMBOLIC_SECONDS - self._symbolic, 0))
        self._symbolic += time.process_time() - begun
        self.guards = list(world.env.assumed)
        if world.env.late and LATE not in self.notes:
            self.notes.append(LATE)
        scopes = [guard.scope for guard in self.guards]
        if run.error is not None and (part := raising(run.error.__traceback__)) is not None:
            scopes.append(part.tb_frame.f_globals)
        known = len(self._functions), len(self._scopes)
        self._scopes.update((id(scope), scope) for scope in scopes)
        if len(self._scopes) > known[1]:
            self._find_functions()
        return run, len(self._functions) > known[0]

    def _find_functions(self) -> None:
        values = [value for scope in self._scopes.values() for value in list(scope.values())]
        values += [kind for module in self.model.known for kind in type(module).__mro__]
        self._functions = list(functions_in([*called(self.model.fn), *values], self._scopes.keys(), set()))

    def _generic(self) -> dict[str, int]:
        """The values of symbols where a model must decide something."""
        runs = {steps: self.moved(steps) for steps in (7, 12)}
        ran = [steps for steps, run in runs.items() if run is not None and run.error is None]
        if not ran and (run := self.moved(1)) is not None and run.error is None:
            ran, runs = [1], {1: run}
        if ran:
            return self.sizes_of(max(ran, key=lambda steps: len(runs[steps].keys)))
        return {name: size if size > 1 else 3 for name, size in self.sizes.items()}

    def fall_back(self, error: BaseException) -> None:
        self.real = True
        for known in (self.runs, self.steps, self.fixed, self.stopped, self.tied, self.multiples, self._spent):
            known.clear()
        self._began = time.process_time() - self._symbolic
        where = f"{at_line(raised_at(error.__traceback__))} ({error_text(error)[:160]})"
        self.notes.append(f"The model looks at values{where}, so runs at other sizes had real ones.")

    def by_values(self) -> dict[Slot, str]:
        """Return the sizes that depend on the values of the inputs, with the reason."""
        questions: dict[tuple, Any] = {}

        def asked(name: str, answer: Any) -> Any:
            questions.setdefault((name, calling_line(3)), answer)
            return answer

        def otherwise(place: tuple) -> Callable[[str, Any], Any]:
            return lambda name, answer: _other(answer) if (name, calling_line(3)) == place else answer

        found: dict[Slot, str] = {}
        self._compare(found, "given values", answer=asked)
        self._compare(found, "the values of the inputs", other_values=True)
        for place in list(questions)[:MOST_QUESTIONS]:
            self._compare(found, f"a condition on values{at_line(place[1])}", answer=otherwise(place))
        return found

    def _compare(self, found: dict[Slot, str], reason: str, **options: Any) -> None:
        """Add the sizes that differ in a run with values."""
        run = self.model.at(self.sizes, real=True, limit=self._limit(True), **options)
        for slot, size in self.base.sizes.items() if run.error is None else ():
            if run.sizes.get(slot, size) != size:
                found.setdefault(slot, reason)


def _replaced(event: Event, output: Any, changed: Mapping[tuple[str, int], Formula], symbols: dict, world: Any) -> Any:
    """An output with formulas in place of sizes that had become numbers."""
    if not isinstance(output, Tensor):
        return output
    axes = {axis: formula.value(symbols) for (path, axis), formula in changed.items() if path == ""}
    with contextlib.nullcontext() if output.requires_grad else torch.no_grad():
        new = world.like(output, axes)
    event.outputs = [leaf._replace(shape=tuple(new.shape)) if leaf.path == "" else leaf for leaf in event.outputs]
    return new


def _within(point: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(point, other, strict=True))


def _other(answer: Any) -> Any:
    """The other answer to a condition on values."""
    if isinstance(answer, bool):
        return not answer
    return -1e4 if isinstance(answer, float) and answer > -1e3 else 1e4 if isinstance(answer, float) else answer
