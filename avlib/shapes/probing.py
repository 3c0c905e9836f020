"""Runs of a model at other sizes and with symbols."""

from __future__ import annotations

import builtins
import collections
import contextlib
import linecache
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import fake
from .fake import Guard
from .formula import Formula
from .recorder import Event, at_line, error_text, raised_at, raising
from .rows import COMPARISONS
from .running import Model, Run, Slot, event_key

MOST_RUNS = 200  # at other sizes
SECONDS, REAL_SECONDS = 10.0, 2.0  # the most time for runs, without values and with them
SLOW = 1.0  # seconds; a run that would take longer is left out
LEAP = 128  # the largest factor by which a size may exceed all sizes before it
MOST_GUARDS = 12  # comparisons of a model that are also tried with the other answer
MOST_TRIED = 5000  # consecutive sizes among which one may meet a condition, such as a multiple of 8
POWERS = (2, 4, 8, 16, 32, 64)  # steps that show a multiple, since all smaller ones failed
LATE = "The run with symbols took too long: formulas of its later sizes are fitted to runs, or unknown."
FEW = 41  # the most steps of a name that adds rows: a loop over it is as long

Overrides = Mapping[tuple, Mapping[tuple[str, int], Formula]]  # of rows: by path and axis of an output


class Relation(NamedTuple):
    """A comparison as text, `T % 16 == 0`, with a test of it."""

    text: str
    names: frozenset[str]
    holds: Callable[[Mapping[str, int]], bool]


def relation_of(guard: Guard) -> Relation:
    """Return a guard as a relation of sizes."""
    sign, left, right = guard.relation
    if left.constant is not None:
        left, right, sign = right, left, sign.translate(str.maketrans("<>", "><"))
    text = f"{left} {sign} {right}"
    multiple = modulus(guard, left.names[0]) if len(left.names) == 1 else 0
    if multiple:
        text = f"{left.names[0]} % {multiple} {sign} 0"

    def holds(sizes: Mapping[str, int]) -> bool:
        a, b = left.value_at(sizes), right.value_at(sizes)
        return a is None or b is None or COMPARISONS[sign](a, b)

    return Relation(text, frozenset((*left.names, *right.names)), holds)


def modulus(guard: Guard, name: str) -> int:
    """Return m of a guard `name % m == 0` or `!= 0`, otherwise 0."""
    found = divided(guard)
    return found[1] if found is not None and found[0] == Formula(name) else 0


def divided(guard: Guard) -> tuple[Formula, int] | None:
    """Return x and m of a guard `x % m == 0` or `!= 0`, otherwise None."""
    sign, left, right = guard.relation
    if sign not in ("==", "!="):
        return None
    gap = left - right
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


class Probes:
    """The runs of a model at other sizes than those of `base`.

    Attributes:
        runs: by sizes, in the order of their names.
        steps: the smallest change of each name at which the model still runs.
        fixed: names that cannot change, and a run that shows it.
        guards: comparisons of sizes in the last symbolic run.
        real: run with values, since the model needs them, as `notes` says.
    """

    def __init__(self, model: Model, base: Run):
        self.model, self.base = model, base
        self.sizes = dict(model.inputs.sizes)
        self.runs: dict[tuple[int, ...], Run] = {}
        self.steps: dict[str, int] = {}
        self.fixed: dict[str, Run] = {}
        self.guards: list[Guard] = []
        self.real = not fake.AVAILABLE or not model.inputs.are_strided()
        self.notes: list[str] = []
        self.exhausted = False
        self._grows: set[str] = set()  # names on which the number of rows depends
        # Globals of modules in which `int` and such must keep symbols: at first, of those that called operations.
        files = {event.place[0] for event in base.events if event.place is not None}
        modules = [module for module in list(sys.modules.values()) if getattr(module, "__file__", None) in files]
        self._scopes = {id(vars(module)): vars(module) for module in modules if _makes_numbers(module.__file__)}
        self._spent: dict[tuple[int, ...], float] = {}  # seconds of each run
        self._most = MOST_RUNS

    def at(self, sizes: Mapping[str, int]) -> Run | None:
        """Return the run at these sizes; None if too long."""
        point = tuple(sizes[name] for name in self.sizes)
        if point in self.runs:
            return self.runs[point]
        if len(self.runs) >= self._most:
            self.exhausted = True
            return None
        if self.real and any(size > self.limit(name) for name, size in sizes.items()):
            return None
        for i, name in enumerate(self.sizes):
            largest = max((other[i] for other in self.runs), default=sizes[name]) or 1
            if sizes[name] > LEAP * largest:  # a nearer size first, which shows whether time grows with size
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
        with _shims(self._scopes.values()):
            run = self.model.at(sizes, real=self.real)
        self._spent[point] = time.process_time() - begun
        return run

    def _would_take(self, point: tuple[int, ...], same: float = 0.0) -> float:
        """The extra seconds of a run, from smaller ones that took longer."""
        usual = median(self._spent.values()) if len(self._spent) > 3 else float("inf")
        longest = 0.0
        for other, spent in self._spent.items():
            if all(a < 8 * b for a, b in zip(other, self.sizes.values(), strict=True)):
                continue  # at so near a size a longer time is chance
            larger = [a / max(b, 1) for a, b in zip(point, other, strict=True) if a > b]
            if spent > 1.5 * usual + 0.03:
                longest = max(longest, (spent - usual) * max(larger, default=same if point == other else 0.0))
        return longest

    def moved(self, steps: int) -> Run | None:
        """Return the run with every name moved by so many steps."""
        return self.at(self._sizes_of(steps))

    def _sizes_of(self, steps: int) -> dict[str, int]:
        sizes = dict(self.sizes)
        for i, (name, step) in enumerate(self.steps.items()):
            away = steps % FEW if name in self._grows else steps
            sizes[name] = max(self.sizes[name] + (away + 2 * i) * step, self.sizes[name] % step or step)
        return sizes

    def limit(self, name: str) -> int:
        """Return the largest size for a run with values."""
        return max(4 * self.sizes[name], 64)

    @property
    def far(self) -> dict[str, tuple[int, ...]]:
        """Distances in steps for names whose reach is limited."""
        found = {name: (48, 24) for name in self._grows}
        for name, step in self.steps.items() if self.real else ():
            most = (self.limit(name) - self.sizes[name]) // step
            found[name] = tuple(sorted({most, most // 2, min(most, 48)}, reverse=True))
        return found

    def points(self) -> Iterator[tuple[dict[str, int], Run]]:
        """Yield all runs with their sizes, the given run first."""
        yield self.sizes, self.base
        for point, run in self.runs.items():
            yield dict(zip(self.sizes, point, strict=True)), run

    def alone(self, name: str) -> Iterator[tuple[dict[str, int], Run]]:
        """Yield the runs in which only this name changed."""
        for sizes, run in self.points():
            if sizes[name] != self.sizes[name] and all(sizes[n] == self.sizes[n] for n in sizes if n != name):
                yield sizes, run

    def reached(self, name: str) -> set[Slot]:
        """Return the slots that were seen at another size of a name."""
        return {slot for sizes, run in self.points() if sizes[name] != self.sizes[name] for slot in run.sizes}

    def find_steps(self) -> None:
        start = self.at(self.sizes)
        for name, size in self.sizes.items():
            for step in (1, *POWERS, size or 128):
                run = self.at({**self.sizes, name: size + step})
                if run is not None and run.error is None:
                    self.steps[name] = step
                    if start is not None and len(run.events) != len(start.events):
                        self._grows.add(name)  # until a run shows that it does not
                    break
                if run is not None:
                    self.fixed.setdefault(name, run)
            for step in (1, 2, 16, size // 2) if name not in self.steps else ():  # it may be the largest possible size
                run = self.at({**self.sizes, name: size - step}) if size > step > 0 else None
                if run is not None and run.error is None:
                    self.steps[name] = step
                    break
            if name in self.steps:
                self.fixed.pop(name, None)

    def explore(self) -> None:
        """Run at varied sizes, and at other answers to comparisons."""
        for name, step in self.steps.items():
            multiples = {modulus(guard, name) for guard in self.guards}
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
            self._grows.clear()  # rows differ only at the size that the model was built for
        self._answer_otherwise()

    @property
    def multiples(self) -> dict[str, int]:
        """The numbers of which names must be multiples, as far as sizes between failed."""
        return {name: step for name, step in self.steps.items() if step in POWERS and self.sizes[name] % step == 0}

    def relations(self) -> Iterator[tuple[Guard, Relation]]:
        """Yield the guards that are relations of named sizes alone."""
        for guard in self.guards:
            relation = relation_of(guard)
            if relation.names <= self.sizes.keys():
                yield guard, relation

    def paddings(self) -> Iterator[tuple[Formula, int]]:
        """Yield x and m of the model's own tests `x % m == 0`, each once."""
        seen = set()
        for guard in self.guards:
            found = divided(guard) if guard.direct else None
            if found is not None and (key := (found[0]._key, found[1])) not in seen:
                seen.add(key)
                yield found

    def _answer_otherwise(self) -> None:
        """Run at sizes at which the model's own comparisons have another result."""
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

    def symbolic(self, overrides: Overrides | None = None) -> tuple[Run, bool]:
        """Run with symbols, with formulas in place of some sizes.

        Returns the run, and whether another would find more: it replaces `int` and such where this one met them.
        """
        world = self.model.enter_fake()
        world.env.begin(self.multiples)
        symbols = {name: world.env.symbol(name, hint) for name, hint in self._generic().items()}
        counts: collections.Counter[tuple] = collections.Counter()

        def replace(event: Event, output: Any) -> Any:
            changed = (overrides or {}).get(event_key(event, counts))
            return _replaced(event, output, changed, symbols, world) if changed else output

        with _shims(self._scopes.values()):
            run = self.model.at(symbols, replace=replace)
        self.guards = list(world.env.assumed)
        if world.env.late and LATE not in self.notes:
            self.notes.append(LATE)
        places = [(guard.file, guard.line, guard.scope) for guard in self.guards]
        if run.error is not None and (part := raising(run.error.__traceback__)) is not None:
            places.append((part.tb_frame.f_code.co_filename, part.tb_lineno, part.tb_frame.f_globals))
        scopes = {id(scope): scope for file, line, scope in places if _makes_numbers(file, line)}
        new = scopes.keys() - self._scopes.keys()
        self._scopes |= scopes
        return run, bool(new)

    def _generic(self) -> dict[str, int]:
        """The values of symbols where a model must decide something."""
        runs = {steps: self.moved(steps) for steps in (7, 12)}
        ran = [steps for steps, run in runs.items() if run is not None and run.error is None]
        if not ran and (run := self.moved(1)) is not None and run.error is None:
            ran, runs = [1], {1: run}
        if ran:
            return self._sizes_of(max(ran, key=lambda steps: len(runs[steps].events)))
        return {name: size if size > 1 else 3 for name, size in self.sizes.items()}

    def fall_back(self, error: BaseException) -> None:
        self.real = True
        self.runs.clear()
        where = f"{at_line(raised_at(error.__traceback__))} ({error_text(error)[:160]})"
        self.notes.append(f"The model looks at values{where}, so runs at other sizes had real ones.")

    def by_values(self) -> set[Slot]:
        """Return the sizes that depend on the values of the inputs."""
        run = self.model.at(self.sizes, real=True, other_values=True)
        if run.error is not None:
            return set()
        return {slot for slot, size in self.base.sizes.items() if run.sizes.get(slot, size) != size}


def _replaced(event: Event, output: Any, changed: Mapping[tuple[str, int], Formula], symbols: dict, world: Any) -> Any:
    """An output with formulas in place of sizes that had become numbers."""
    if not isinstance(output, Tensor):
        return output
    axes = {axis: formula.value(symbols) for (path, axis), formula in changed.items() if path == ""}
    with contextlib.nullcontext() if output.requires_grad else torch.no_grad():
        new = world.like(output, axes)
    event.outputs = [leaf._replace(shape=tuple(new.shape)) if leaf.path == "" else leaf for leaf in event.outputs]
    return new


def _keeping(plain: type, convert: Callable) -> type:
    """A class that behaves as `int` or `float`, but keeps symbols."""

    class Meta(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, plain)

        def __subclasscheck__(cls, kind: type) -> bool:
            return issubclass(kind, plain)

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if len(args) == 1 and isinstance(args[0], torch.SymInt | torch.SymFloat):
                return convert(args[0])
            return plain(*args, **kwargs)

    return Meta(plain.__name__, (plain,), {})


def _len(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt):
        return value.shape[0]
    return builtins.len(value)


def _extreme(symbolic: Callable, plain: Callable) -> Callable:
    def either(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 2 and any(isinstance(value, torch.SymInt) for value in args) and not kwargs:
            return symbolic(*args)
        return plain(*args, **kwargs)

    return either


SHIMS = {
    "len": _len,
    "int": _keeping(int, torch.sym_int),
    "float": _keeping(float, torch.sym_float),
    "max": _extreme(torch.sym_max, max),
    "min": _extreme(torch.sym_min, min),
}
_CALLS = re.compile(rf"\b({'|'.join(SHIMS)})\(")


def _makes_numbers(file: str, line: int | None = None) -> bool:
    """True if a line, or a file, calls one of these functions."""
    lines = linecache.getlines(file) if line is None else [linecache.getline(file, line)]
    return any(_CALLS.search(code) for code in lines)


@contextlib.contextmanager
def _shims(scopes: Any) -> Iterator[None]:
    """Put these functions into modules, given by their globals."""
    changed = []
    try:
        for scope in list(scopes):
            for name, shim in SHIMS.items():
                if name not in scope:
                    scope[name] = shim
                    changed.append((scope, name))
        yield
    finally:
        for scope, name in changed:
            scope.pop(name, None)
