"""Stopping and going on: checkpoints, random states, the best evaluation, Ctrl-C."""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import cache, checkpoints
from ..errors import CacheError, CheckpointError, ParameterError
from .history import History
from .settings import Settings

_AVERAGE = "average"  # key of a parameter's moving average, beside those of the optimiser
_TRAINING = "training"  # beside a checkpoint's weights: tensors of the optimiser, and all else in their config

_MAY_CHANGE = ("workers", "evaluate_every", "save_every", "log_every", "keep")  # when a run goes on


def saved(folder: Path | str) -> list[Path]:
    """Return the checkpoints that `fit` wrote to a folder, oldest first; `checkpoints.read` takes each."""
    return sorted(Path(folder).glob("step-*"))


def average(paths: Sequence[Path | str]) -> dict[str, Tensor]:
    """Return the mean of each tensor over checkpoints of equal names and shapes, as published for CAV-MAE."""
    if not paths:
        raise ParameterError("paths", "none", "at least one checkpoint")
    first = checkpoints.read(paths[0]).tensors
    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in first.items()}
    for path in paths:
        tensors = checkpoints.read(path).tensors
        checkpoints.require_fit(path, first, tensors)
        for name, tensor in tensors.items():
            total[name] += tensor
    return {name: (tensor / len(paths)).to(first[name].dtype) for name, tensor in total.items()}


class Checkpoints:
    """The checkpoints of one run, in one folder or (None) nowhere. All processes call, the first one writes.

    A checkpoint is a folder `step-...` that appears whole or not at all, without a pickle in it.
    """

    def __init__(
        self, folder: Path | None, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], average: Any,
        accelerator, settings: Settings, items: int,
    ):  # fmt: skip
        self.folder, self.model, self.optimizers, self.accelerator = folder, model, optimizers, accelerator
        self.average, self.settings, self.best = average, settings, 0
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        self.trained = [parameter for parameter in self.names if parameter.requires_grad]
        # What must be as it was for a run to go on from a checkpoint, as JSON has it.
        same = {name: value for name, value in asdict(settings).items() if name not in _MAY_CHANGE}
        if settings.schedule in ("constant", "multistep"):
            del same["steps"]  # no rate depends on it, so that a run can be made longer
        self.same = json.loads(json.dumps({**same, "items": items, "trained parameters": len(self.trained)}))

    def save(self, done: int, seconds: float, history: History) -> None:
        """Publish a checkpoint, then remove older ones that are not to be kept."""
        from accelerate.utils import gather_object

        if self.folder is None:
            return
        config = {"same": self.same, "done": done, "seconds": seconds, "rows": history.rows}
        config["random"] = gather_object([random_state()])  # of each process
        config["scaler"] = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        if self.accelerator.is_main_process:
            path = self._path(done)
            self._publish(path, config)
            staying = {done, self.best or done, *self.settings.keep}
            for older in saved(self.folder):
                if int(older.name.removeprefix("step-")) not in staying:
                    shutil.rmtree(older)
        self.accelerator.wait_for_everyone()

    def load_weights(self, done: int) -> None:
        """Load the weights of a step, and their average, from its checkpoint."""
        path = self._path(done)
        checkpoints.load(self.model, path, checkpoints.read(path).tensors)
        if self.average:
            self._load_average(checkpoints.read(path / _TRAINING).tensors, done)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model the average of its weights; on exit its own."""
        if not self.average:
            yield
            return
        self.average.store(self.trained)
        self.average.copy_to(self.trained)
        try:
            yield
        finally:
            self.average.restore(self.trained)

    def _path(self, done: int) -> Path:
        return self.folder / f"step-{done:08d}"

    def _publish(self, path: Path, config: Mapping) -> None:
        states = [pair for optimizer in self.optimizers for pair in optimizer.state.items()]
        tensors = {f"{self.names[p]}:{key}": value for p, state in states for key, value in state.items()}
        if self.average:
            shadows = zip(self.trained, self.average.shadow_params, strict=True)
            tensors |= {f"{self.names[parameter]}:{_AVERAGE}": value for parameter, value in shadows}
        try:
            with cache.publishing(path) as unfinished:
                if hasattr(self.model, "save"):
                    self.model.save(unfinished)
                else:
                    checkpoints.save(unfinished, self.model.state_dict(), {"model": type(self.model).__name__})
                checkpoints.save(unfinished / _TRAINING, tensors, config)
                if path.exists():  # a damaged one, or that of a run that was longer
                    shutil.rmtree(path)
        except CacheError as error:
            last = saved(self.folder)
            advice = f"The last whole checkpoint is {last[-1].name}." if last else "There is no checkpoint yet."
            advice += " Free some space and go on from it."
            raise CacheError(path, error.found, error.expected, advice) from error

    def restore(self, resume: bool) -> tuple[int, float, History]:
        """Load the newest readable checkpoint; return steps done, seconds spent and the history."""
        if self.folder is None:
            return 0, 0.0, History()
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            cache.remove_unfinished(self.folder)
            for path in [] if resume else saved(self.folder):
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()
        for path in reversed(saved(self.folder)):
            try:
                weights, (tensors, config) = checkpoints.read(path).tensors, checkpoints.read(path / _TRAINING)
            except CheckpointError as error:
                warnings.warn(f"{error} Training goes on from the checkpoint before it, if any.", stacklevel=3)
                continue
            self._require_same(path, config["same"])
            checkpoints.load(self.model, path, weights)
            self._load_optimizers(tensors)
            if self.average:
                self._load_average(tensors, config["done"])
            if config["scaler"]:
                self.accelerator.scaler.load_state_dict(config["scaler"])
            rank = self.accelerator.process_index
            if rank < len(config["random"]):  # there may be more processes than there were
                set_random_state(config["random"][rank])
            return config["done"], config["seconds"], History(config["rows"])
        return 0, 0.0, History()

    def _load_optimizers(self, tensors: Mapping[str, Tensor]) -> None:
        states = defaultdict(dict)
        for label, tensor in tensors.items():
            name, _, key = label.rpartition(":")
            if key != _AVERAGE:
                states[name][key] = tensor
        for optimizer in self.optimizers:
            names = [self.names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
            state = {place: states[name] for place, name in enumerate(names) if name in states}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _load_average(self, tensors: Mapping[str, Tensor], done: int) -> None:
        self.average.optimization_step = done
        for parameter, shadow in zip(self.trained, self.average.shadow_params, strict=True):
            shadow.copy_(tensors[f"{self.names[parameter]}:{_AVERAGE}"])

    def _require_same(self, path: Path, before: Mapping) -> None:
        before = json.loads(json.dumps(asdict(Settings()))) | dict(before)  # one that it did not know had no effect
        changed = [name for name, value in self.same.items() if value != before.get(name)]
        if changed:
            now, then = (", ".join(f"{name} {of.get(name)}" for name in changed) for of in (self.same, before))
            advice = "Give another folder, or resume=False to begin anew in this one."
            raise ParameterError("settings", now, f"{then}, as in the checkpoint {path}", advice)


class Watch:
    """The best evaluation so far, and whether `patience` ends the training."""

    def __init__(self, kept: Checkpoints, settings: Settings, history: History, lower: bool):
        self.kept, self.settings, self.history, self.lower = kept, settings, history, lower
        self.weights: dict[str, Tensor] = {}  # of the best evaluation, where there are no checkpoints
        self._compare()

    def _compare(self) -> None:
        """Find the best evaluation in the history alone, so that a stopped run goes on as if it had not been."""
        sign = 1 if self.lower else -1
        steps, figures = self.history.series(self.settings.monitor)
        best, self.best, self.since = math.inf, 0, 0  # figure; step, 0 before the first; evaluations since
        for step, figure in zip(steps, figures, strict=True):
            better = sign * figure < best - self.settings.min_delta
            best, self.best, self.since = (sign * figure, step, 0) if better else (best, self.best, self.since + 1)
        self.kept.best = self.best if self.settings.best else 0

    @property
    def over(self) -> bool:
        return bool(self.settings.patience) and self.since >= self.settings.patience

    def agreed(self, figures: dict[str, float]) -> dict[str, float]:
        """Return the first process's figures where something depends on them: devices may differ in the last digit."""
        if not self.settings.chooses:
            return figures
        if self.settings.monitor not in figures:
            raise ParameterError("monitor", repr(self.settings.monitor), f"one of {', '.join(map(repr, figures))}")
        if self.kept.accelerator.num_processes == 1:
            return figures
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([figures])[0]

    def look(self, done: int) -> bool:
        """Take note of an evaluation; return whether its weights are to be kept as the best so far."""
        self._compare()
        improved = self.settings.best and self.best == done
        if improved and self.kept.folder is None:
            with self.kept.averaged():
                self.weights = {name: tensor.clone() for name, tensor in self.kept.model.state_dict().items()}
        return improved

    def finish(self, done: int) -> None:
        """Leave the model with the weights that it ends with: the last or the best ones, averaged if asked for."""
        take_best = self.settings.best and self.best not in (0, done)
        if take_best and self.kept.folder is None:
            self.kept.model.load_state_dict(self.weights)
            return
        if take_best:
            self.kept.load_weights(self.best)
        if self.kept.average:
            self.kept.average.copy_to(self.kept.trained)


def random_state() -> dict:
    """Return the state of all generators that training draws from by default, for JSON."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,
    }


def set_random_state(state: Mapping) -> None:
    """Restore a `random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


@contextmanager
def random_numbers_apart() -> Iterator[None]:
    """Restore all random states on exit."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


class Stopped(KeyboardInterrupt):
    """Training was interrupted between two steps."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]  # all that a notebook shows


class Interruptions:
    """Note Ctrl-C and SIGTERM, so that training can stop between two steps; a second one acts."""

    def __enter__(self):
        self.received, self._before = None, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, _):
        if self.received is not None:
            self.stop()
        self.received = number

    def stop(self, message: str = ""):
        """Act on the signal as before; where that is a KeyboardInterrupt, and in other processes, raise Stopped."""
        self.__exit__()
        with suppress(KeyboardInterrupt):
            signal.raise_signal(self.received or signal.SIGINT)
        raise Stopped(message)

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


def leave_to_main(worker: int) -> None:
    """Ignore Ctrl-C in a worker that loads data: the current step still needs it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
