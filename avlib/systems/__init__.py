"""The systems, one module each, with `tiny`, `full`, the stages of a training, `trained` and `assess`.

stages = {"vocoder": Stage(data, build, step, recipe), "diffusion": Stage(..., after=("vocoder",))}
trained = trained_by(stages, __name__)
trained(tiny)  # from the cache, or trained now

A module in this folder is a system; nothing else lists it. It may bring commands of its own, see `commands`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import ParameterError
from ..once import done_once, is_first, processes, written
from ..settings import changed, names_in, own_names

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .. import training


DATA_NOTE = "data.txt"  # beside the weights: how many items they were trained on, and what was left out


def names() -> list[str]:
    """Return the names of all systems."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def described(system: str) -> dict[str, Any]:
    """Return the constants in which a system describes itself, read from its source: to import it takes seconds.

    TITLE: its name in tables.
    ROW: its place in the table of systems by stages, from 1.
    HELP: lines for `avlib train --help`.
    COMMANDS: see `commands`.
    """
    spec = next(module for module in pkgutil.iter_modules(__path__) if module.name == system)
    source = Path(spec.module_finder.find_spec(system).origin).read_text(encoding="utf-8")
    found = {"TITLE": system, "ROW": 0, "HELP": "", "COMMANDS": {}}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in found:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def commands() -> dict[str, tuple[str, str]]:
    """Return the commands that systems bring, by name: the system and one line of help.

    A system with the constant `COMMANDS = {"convert": "convert a song to another voice"}` and a function
    `convert_command(arguments: list[str]) -> int` adds `avlib convert` to the command line.
    """
    return {name: (system, text) for system in names() for name, text in described(system)["COMMANDS"].items()}


def chosen(name: str, *sources: Mapping[str, Any]) -> tuple[Any, Any, str, str | None]:
    """Return a system, the settings that values choose, and the values of `size` and `device`.

    Raises:
        ParameterError: an unknown system or setting, or a value that is refused.
    """
    if name not in names():
        raise ParameterError("SYSTEM", f"{name!r} is unknown", f"one of {', '.join(names())}")
    of_run = {"size": "tiny", "device": None}
    for values in sources:
        of_run |= {key: value for key, value in values.items() if key in of_run}
    if of_run["size"] not in ("tiny", "full"):
        raise ParameterError("size", f"{of_run['size']!r}", '"tiny" or "full"')
    system = importlib.import_module(f"{__name__}.{name}")
    own = [{key: value for key, value in values.items() if key not in of_run} for values in sources]
    return system, changed(getattr(system, of_run["size"]), *own), of_run["size"], of_run["device"]


class Figure(NamedTuple):
    """A measured number beside one that needs no model.

    value: the number.
    reference: that of chance, or of a trivial model.
    meaning: what the reference is.
    low: the lower end of its 95 % interval, over queries or over speakers; None where that is not known.
    """

    value: float
    reference: float
    meaning: str
    low: float | None = None

    @classmethod
    def of_share(cls, hits: Any, reference: float, meaning: str) -> Figure:
        """Return the share of queries that are right, from 0 or 1 for each: `(queries,)`."""
        from .. import metrics

        return cls(float(hits.float().mean()), reference, meaning, metrics.lower_bound(hits))

    def __str__(self) -> str:
        low = "" if self.low is None else f"(at least {self.low:.3f})"
        return f"{self.value:7.3f}  {low:<16}  {self.meaning}: {self.reference:.3f}"


class Report(NamedTuple):
    """Figures of a trained model on clips that it was not trained on, by name, and remarks on them.

    files: by name, functions that write a file with the details to a path.
    """

    figures: dict[str, Figure]
    remarks: str = ""
    files: Mapping[str, Callable[[Path], None]] = {}


class Trained(NamedTuple):
    """A trained model in evaluation mode, the history of its training, and the folder with its weights."""

    model: nn.Module
    history: training.History
    folder: Path


@dataclass(frozen=True)
class Stage:
    """One training of a system: its data, its untrained model, and its training step.

    `how` below stands for device=, progress= and live=, as `trained` takes them.

    data: (settings, progress=) -> the data set.
    build: (settings, **how) -> the untrained model, whose random weights follow from the seed. For a GAN it has a child
        for each network.
    step: (model, batch, settings) -> the loss and its parts; for a GAN a table of steps by network, see `training.fit`.
    recipe: (settings) -> all values that the weights follow from besides the code; None: this stage is not trained, as
        its weights are given.
    after: stages that this one builds on.
    load: (folder, settings, **how) -> the model that `save` wrote there; by default what `build` returns, with these
        weights.
    save: (model, folder, settings) -> None; by default `model.save`, or all weights where a model has none.
    plan: (settings) -> how to train; by default `settings.now.training`, or `settings.training`.
    validate: (model, settings) -> figures on held-out clips.
    better: for figures of `validate`, "lower" or "higher".
    sampler: (settings, data set) -> the order of items, see `training.fit`.
    finish: (model, checkpoints' folder, settings) -> None; called when training has ended.
    check: (settings) -> None; refuses given parts that do not fit, before this stage or one of `after` is trained.
    """

    data: Callable[..., Any]
    build: Callable[..., nn.Module]
    step: Callable[..., tuple[torch.Tensor, Mapping[str, torch.Tensor]]] | Mapping[str, Callable[..., Any]]
    recipe: Callable[[Any], Any]
    after: tuple[str, ...] = ()
    load: Callable[..., nn.Module] | None = None
    save: Callable[..., None] | None = None
    plan: Callable[[Any], training.Settings] = lambda settings: getattr(settings, "now", settings).training
    validate: Callable[..., Mapping[str, float]] | None = None
    better: Mapping[str, Literal["lower", "higher"]] | None = None
    sampler: Callable[[Any, Any], Any] = lambda settings, dataset: None
    finish: Callable[..., None] = lambda model, folder, settings: None
    check: Callable[[Any], object] = lambda settings: None

    def trained(self, settings: Any, folder: Path, **how: Any) -> tuple[nn.Module, training.History, str]:
        """Train, with checkpoints in a folder; return the model, its history, and a note on its data."""
        from .. import training

        def of(function: Callable[..., Any]) -> Callable[..., Any]:
            return functools.partial(function, settings=settings)

        several = isinstance(self.step, Mapping)
        step = {name: of(one) for name, one in self.step.items()} if several else of(self.step)
        dataset, plan = self.data(settings, progress=how["progress"]), self.plan(settings)
        model, sampler = self.build(settings, **how), self.sampler(settings, dataset)
        note = dataset.counts() if hasattr(dataset, "counts") else f"{len(dataset)} items to train on."
        count = len(dataset if sampler is None else sampler)
        if plan.batch_size > count:
            note = f"{note}\nA batch has all {count}: {plan.batch_size}, its size, is more."
            plan = replace(plan, batch_size=count, accumulate=min(plan.accumulate, count))
        if how["progress"] and is_first() and "\n" in note:
            print(note, file=sys.stderr)
        history = training.fit(
            model, step, dataset, plan, folder=folder, evaluate=self.validate and of(self.validate),
            better=self.better, sampler=sampler, **how,
        )  # fmt: skip
        self.finish(model, folder, settings)
        return model, history, note

    def write(self, model: nn.Module, folder: Path, settings: Any) -> None:
        """Write a model's weights by `save`."""
        from .. import checkpoints

        if self.save:
            self.save(model, folder, settings)
        elif hasattr(model, "save"):
            model.save(folder)
        else:
            checkpoints.save(folder, model.state_dict(), {"model": type(model).__name__})

    def read(self, folder: Path, settings: Any, **how: Any) -> nn.Module:
        """Return the model that `write` wrote."""
        from .. import checkpoints

        if self.load:
            return self.load(folder, settings, **how)
        model = self.build(settings, **how)
        checkpoints.load(model, folder, checkpoints.read(folder).tensors)
        return model


def trained_by(stages: Mapping[str, Stage], module: str) -> Callable[..., Trained]:
    """Return the function `trained` of a system.

    Args:
        stages: by name; `settings.stage` names the last one to train. Of a single stage the settings need no such
            field.
        module: `__name__` of the module that has the stages: the trained weights follow from its code and all that it
            imports. Its name after "avlib.systems." begins the name of the result in the cache.
    """
    system = module.removeprefix(f"{__name__}.").partition(".")[0]

    def trained(
        settings: Any, *, device: torch.device | str | None = None, progress: bool = True, live: bool = False
    ) -> Trained:
        """Return the model of these settings, from the cache if it was ever trained, otherwise trained now.

        The cache knows it by the settings, the code of avlib and the user's files. A training that was killed goes on
        from its last checkpoint; one that another process is at is waited for.

        Args:
            settings: what to train; `settings.stage` is the last stage.
            live: draw the loss while it falls, in a notebook.

        Raises:
            TrainingError, DatasetError, ParameterError, CacheError, CheckpointError: see `training.fit`, `done_once`
                and the system's data set.
        """
        from .. import training

        how = {"device": training.chosen_device(device), "progress": progress, "live": live}
        name = getattr(settings, "stage", next(iter(stages)))
        stage = stages[name]
        stage.check(settings)
        for earlier in stage.after:  # before its own lock, so that two processes never wait for each other
            if stages[earlier].recipe(replace(settings, stage=earlier)) is not None:
                trained(replace(settings, stage=earlier), **how)

        def write(made: tuple[nn.Module, training.History, str], path: Path) -> None:
            model, history, note = made
            stage.write(model, path, settings)
            (path / "history.json").write_text(json.dumps(history.rows))
            (path / DATA_NOTE).write_text(f"{note}\n", encoding="utf-8")
            (path / "settings.json").write_text(json.dumps(asdict(settings), indent=1))

        folder = done_once(
            "trained", f"{system}-{name}" if len(stages) > 1 else system, stage.recipe(settings),
            lambda progress_folder: stage.trained(settings, progress_folder, **how), write,
            source=(module, training.__name__), together=True,
        )  # fmt: skip
        model = stage.read(folder, settings, **how).to(how["device"]).eval()
        return Trained(model, training.History(json.loads((folder / "history.json").read_text())), folder)

    trained.__module__ = module
    return trained


def fitted_to(
    settings: Any,
    files: Callable[[Any], Sequence[Path]],
    given: Sequence[Mapping[str, Any]],
    *stages: str,
    highest: float = 8000.0,
) -> Any:
    """Return settings that fit the user's files, and print what was found and chosen.

    Unusable files are left out, unless `on_error` is among what is given. No file is read whole.

    Args:
        files: (settings) -> those with the sound that is trained on.
        given: what the user chose.
        stages: those that train on these files, one item of each.
        highest: frequency that the model sees, in Hz, to tell recordings of a narrower band.

    Raises:
        ParameterError: the chosen batch_size is larger than the data.
    """
    from ..datasets import sources

    names, lines, changes = names_in(*given), [], {}
    if not any(name.rpartition(".")[2] == "on_error" for name in names):
        settings = changed(settings, {"on_error": "skip"})
    there = files(settings)
    if not there:
        found = f"{getattr(settings.data, 'held_out', 0)}, which leaves no clip to train on"
        raise ParameterError("held_out", found, advice="Leave it out, and one is chosen.")
    for stage in stages:
        plan, half = getattr(settings, stage).training, max(1, len(there) // 2)
        chosen = names & {"batch_size", "training.batch_size", f"{stage}.batch_size", f"{stage}.training.batch_size"}
        if chosen and plan.batch_size > len(there):
            expected, advice = f"at most {len(there)}, the clips to train on", "Leave it out, and one is chosen."
            raise ParameterError(min(chosen), f"{plan.batch_size}", expected, advice)
        if not chosen and plan.batch_size > half:
            lines.append(f"{half} instead of {plan.batch_size} for {stage}")
            changes |= {f"{stage}.batch_size": half, f"{stage}.accumulate": min(plan.accumulate, half)}
    if lines and is_first():
        print(f"{len(there)} clips to train on. The batch size is chosen to fit them: {', '.join(lines)}.")
    if is_first() and (narrow := sources.narrow_bands(there, highest)):
        print(narrow)
    return changed(settings, changes)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters."""
    return next(model.parameters()).device
