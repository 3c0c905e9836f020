"""Requirements on sizes, each with a run that raises without it."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch

from .formula import Formula, Relation
from .probing import Probes, Unlike
from .recorder import Place, error_text, file_name
from .rows import Requirement
from .running import Run, Slot

# Operations that raise at some indices, with the axes of their tables if not all.
TABLES = {"embedding": (1,), "one_hot": (-1, None)}
LOOKUPS = {*TABLES, "__getitem__", "__setitem__", "gather", "index_select", "scatter", "take", "take_along_dim"}
MOST_LOOKUPS, FARTHEST = 6, 2**24
LOOKUP = 1.5  # seconds of a run with values that shows whether indices are in a table


def boundary(
    probes: Probes, name: str, within: int, outside: int, differs: Callable[..., bool], at: Callable | None = None
) -> tuple[int, int]:
    """Return the two neighbouring sizes between which a run begins to differ."""
    while abs(outside - within) > probes.steps[name]:
        middle = probes.moved_alone(name, (within + outside) // 2)
        run = (at or probes.at)(middle)
        if run is None or middle[name] in (within, outside):
            break
        within, outside = (within, middle[name]) if differs(middle, run) else (middle[name], outside)
    return within, outside


class Requirements:
    """The conditions on sizes without which a run raises, or beyond which other formulas hold."""

    def __init__(self, probes: Probes, found: list[Requirement]):
        self.probes, self.sizes, self.found = probes, probes.sizes, found

    def find(self, formulas: Mapping[Slot, Formula]) -> None:
        """Find the conditions on sizes without which a run raises."""
        kept: list[Relation] = []
        guards, apart = list(self.probes.of_names()), []
        for guard in guards:
            need = guard.relation
            minor = need.sign == "!=" or not (guard.direct or need.sign == "==" or len(need.names) > 1)
            minor = minor or (not guard.direct and ("min(" in need.text or "max(" in need.text))
            if minor or any(need.text == other.text for other in kept):
                continue  # torch's kernels compare sizes often, mostly without consequences
            ran = [sizes for sizes, run in self.probes.points() if run.error is None and not need.holds(sizes)]
            if any(need.left.value_at(sizes) != 1 for sizes in ran):  # 1 is spread to any size
                like = [other for other in apart if other.right == need.right]  # a square need not be 8 by 8
                guards += [guard._replace(relation=Relation("==", need.left, other.left)) for other in like]
                apart += [need] * (need.sign == "==" and need.right.constant is not None)
            elif (broken := self._broken(need, kept)) is not None:
                kept.append(need)
                self._require(need.text, (guard.file, guard.line), broken)
        for name, step in self.probes.multiples.items():  # formulas were reduced for them
            between = [{**self.sizes, name: self.sizes[name] + more} for more in (step // 2, 1)]
            run = next((self.probes.at(at) for at in between if all(need.holds(at) for need in kept)), None)
            if run is not None and run.raised_at is not None:
                self._require(f"{name} % {step} == 0", run.raised_at, run)
        texts = " ".join(need.text for need in kept)
        for name, run in self.probes.fixed.items():
            tied = self.probes.tied.get(name)
            if tied is not None:
                self._require(f"{name} == {tied}", run.raised_at, run)
            elif name not in self.probes.steps and f"{name} ==" not in texts and run.raised_at is not None:
                self._require(f"{name} == {self.sizes[name]}", run.raised_at, run)
        for name, run in self.probes.stopped.items():
            size, step = self.sizes[name], self.probes.steps[name]
            if 1 < step < size and run.error is not None and all(n.holds({**self.sizes, name: size + 1}) for n in kept):
                self._require(f"{name} % {step} == {size % step}", run.raised_at, run)
        for name in self.probes.steps:
            for way in (-1, 1):
                self._bound(name, way, kept)
        for lookup in itertools.islice(dict.fromkeys(self._lookups(formulas)), MOST_LOOKUPS):
            self._look_up(*lookup)
        self._compare_with_values()

    def limit(self) -> None:
        """Tell the sizes beyond which other formulas hold."""
        for name, limits in self.probes.limits.items():
            signs = (">=", "<=") if limits[0] < limits[1] else ("==",)
            for sign, limit in zip(signs, limits, strict=False):
                if 0 < limit < math.inf:
                    self.found.append(Requirement(f"{name} {sign} {limit}", "", 0, "beyond, other formulas hold"))

    def _bound(self, name: str, way: int, kept: list[Relation]) -> None:
        """Find the smallest or the largest size of a name, before the nearest that raises."""
        start, step = self.sizes[name], self.probes.steps[name]
        runs = [(sizes[name], run) for sizes, run in self.probes.alone(name) if all(need.holds(sizes) for need in kept)]
        beyond = [n for n, run in runs if run.error is not None and (n - start) * way > 0 and not (n - start) % step]
        for outside in sorted(beyond, key=lambda size: size * way)[:3] if name not in self.probes.fixed else ():
            near = [way * size for size, run in runs if run.error is None and (outside - size) * way > 0]
            within = way * max(near, default=way * start)
            within, outside = boundary(self.probes, name, within, outside, lambda _, run: run.error is not None)
            within = within if abs(outside - within) <= step else outside - way  # the time is up
            if (run := self._evidence(self.probes.moved_alone(name, outside))) is not None:
                return self._require(f"{name} {'>=' if way < 0 else '<='} {within}", run.raised_at, run)

    def _lookups(self, formulas: Mapping[Slot, Formula]) -> Iterator[tuple[str, Formula, int]]:
        """Yield names with the length of a tensor of indices that depends on them, and of the table they are for."""
        base = self.probes.base
        given = {leaf.identity for leaf in base.events[0].inputs}
        for key, event in zip(base.keys, base.events, strict=True):
            if event.kind != "op" or not {event.name, event.name.rstrip("_")} & LOOKUPS:
                continue
            table = (event.outputs if event.name == "one_hot" else event.inputs[event.name == "embedding" :])[:1]
            numbers = {size for leaf in table for size in leaf.shape[slice(*TABLES.get(event.name, (None,)))]}
            for leaf in event.inputs:
                if leaf.dtype in (torch.int64, torch.int32) and leaf.identity not in given and leaf not in table:
                    lengths = (formulas.get((key, 0, leaf.path, axis)) for axis in range(len(leaf.shape)))
                    for length, number in itertools.product(lengths, numbers):
                        names = self.probes.steps.keys() & (length.names if length is not None else ())
                        yield from ((name, length, number) for name in names)

    def _look_up(self, name: str, length: Formula, number: int) -> None:
        """Find the largest size at which all indices are in a table, which runs with values alone show."""
        sizes, run = self.sizes, None
        for most in (4 * number, 2 * number, number, (number + 1) // 2):  # as steps of 1/4, 1/2, 1 and both ways
            size = bisect_left(range(FARTHEST), most + 1, key=lambda n: length.value_at({**self.sizes, name: n}) or 0)
            sizes = self.probes.moved_alone(name, size + self.probes.steps[name] - 1)
            if sizes[name] > self.sizes[name] and (run := self.probes.with_values(sizes, LOOKUP)) is not None:
                break
        self._bound_values(name, sizes, run)

    def _compare_with_values(self) -> None:
        """Find sizes at which runs with values alone raise: at the smallest that ran without, and at larger ones."""
        ran = [sizes for sizes, run in self.probes.points()[1:] if run.error is None and not run.real]
        small = min(ran, key=lambda sizes: math.prod(sizes.values()), default=self.sizes)
        for sizes in (small, self.probes.sizes_of(1)) if not self.probes.model.inputs.hold_numbers() else ():
            without = self.probes.at(sizes)
            fine = without is not None and without.error is None and not without.real
            run = self.probes.with_values(sizes) if fine else None
            for name in self.probes.steps if run is not None and run.error is not None else ():
                alone = self.probes.moved_alone(name, sizes[name])
                self._bound_values(name, alone, self.probes.with_values(alone))

    def _bound_values(self, name: str, sizes: Mapping[str, int], run: Run | None) -> None:
        """Find the size next to the given one at which runs with values raise, as this one did."""
        if run is None or run.error is None or any(not need.holds(sizes) for need in self.found):
            return
        at, size = partial(self.probes.with_values, most=LOOKUP), self.sizes[name]
        way = "<=" if sizes[name] > size else ">="
        within, outside = boundary(self.probes, name, size, sizes[name], lambda _, run: run.error is not None, at)
        if (run := at(self.probes.moved_alone(name, outside))) is not None and not self.probes.ran_otherwise(sizes):
            self._require(f"{name} {way} {within}", run.raised_at, run)

    def _require(self, text: str, place: Place, broken: Run) -> None:
        file, line = place or ("", 0)
        if all(text != need.formula for need in self.found):
            self.found.append(Requirement(text, file_name(file), line, error_text(broken.error)[:160]))

    def _broken(self, need: Relation, kept: list[Relation]) -> Run | None:
        """The run nearest to the given sizes that breaks only this relation."""

        def far(sizes: Mapping[str, int]) -> float:
            return sum(abs(math.log((size + 1) / (self.sizes[name] + 1))) for name, size in sizes.items())

        points = [sizes for sizes, _ in self.probes.points()] + list(self.probes.edges(need))
        for sizes in sorted(points, key=far):
            others = all(sizes[name] == size for name, size in self.sizes.items() if name not in need.names)
            if others and not need.holds(sizes) and all(other.holds(sizes) for other in kept):
                return self._evidence(sizes)
        return None

    def _evidence(self, sizes: Mapping[str, int]) -> Run | None:
        """A run that raises at these sizes, whatever the values of the inputs."""
        try:
            run = self.probes.confirmed(sizes)
        except Unlike:
            return None
        return run if run is not None and run.error is not None and not self.probes.ran_otherwise(sizes) else None
