"""One training loop, for every system: batches to losses to weights, on a laptop's CPU or on many GPUs.

history = training.fit(model, step, dataset, training.Settings(steps=300), folder=cache.folder("mine"))

What a run gives follows from its settings and data alone. The order of items comes from (seed, epoch), so that neither
workers nor processes change it; a run that was stopped goes on from its newest checkpoint as if it had not been. With
`torchrun --nproc_per_node 2` each process takes its share of each batch. (`accelerate launch --cpu` starts one process,
whatever it is asked for.)
"""

from __future__ import annotations

import csv
import json
import math
import random
import shutil
import signal
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from html import escape
from io import BytesIO
from os import environ
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from . import cache, checkpoints
from .errors import CacheError, CheckpointError, ParameterError, TrainingError

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = ("constant", "linear", "cosine", "multistep")
PRECISIONS = ("no", "bf16", "fp16")

# What a run that goes on may do otherwise than it did before.
_FREE = ("workers", "evaluate_every", "save_every", "log_every", "keep")

_TRAINING = "training"  # beside a checkpoint's weights: the optimiser's tensors, and everything else in its config


@dataclass(frozen=True)
class Settings:
    """How to train.

    steps: of the optimiser, in all.
    batch_size: items in one step, over all processes and parts. The end of an epoch that does not fill a batch is
        left out, as published.
    learning_rate: at its highest.
    weight_decay: on all parameters; decoupled in "adamw", added to the gradient in "adam".
    betas: of both optimisers.
    optimizer: "adamw", or "adam" as CAV-MAE published it.
    schedule: what becomes of the learning rate after the warm-up: "constant", "linear" or "cosine" down to zero, or
        "multistep": times `gamma` when as many epochs are done as each of `milestones` says. Published for CAV-MAE:
        range(start, 1000, step), no warm-up.
    warmup: steps in which the rate rises in a line; in all schedules.
    clip: the gradient's norm at most; 0 lets it be.
    accumulate: in how many parts, one after another, a process works through its share of a batch, to save memory.
        An average over items is the same; contrast is among the items of a part.
    precision: "no", "bf16", or "fp16" with scaled losses, on GPUs.
    group_rates: by the beginning of parameters' names, what their rate is multiplied with: {"mlp_head": 100}.
    seed: of the order of items and of all that is drawn while training.
    workers: processes that load data, for each process that trains.
    evaluate_every, save_every: in steps; 0 is at the end only.
    log_every: steps from one row of the history to the next.
    keep: steps whose checkpoints are written and stay, for `average`; of the others only the newest does.

    Raises:
        ParameterError: a number out of range, or an unknown choice.
    """

    steps: int = 300
    batch_size: int = 64
    learning_rate: float | int = 2e-3
    weight_decay: float | int = 0.01
    betas: Sequence[float | int] = (0.9, 0.95)
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: int = 50
    milestones: Sequence[int] = ()
    gamma: float | int = 0.5
    clip: float | int = 1.0
    accumulate: int = 1
    precision: str = "no"
    group_rates: Mapping[str, float | int] = field(default_factory=dict)
    seed: int = 0
    workers: int = 0
    evaluate_every: int = 0
    save_every: int = 0
    log_every: int = 1
    keep: Sequence[int] = ()

    def __post_init__(self):
        for name in ("betas", "milestones", "keep"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a range, or a list from a file
        least = {"steps": 1, "batch_size": 1, "accumulate": 1, "log_every": 1}
        least |= dict.fromkeys(("warmup", "workers", "evaluate_every", "save_every", "seed", "clip", "weight_decay"), 0)
        for name, lowest in least.items():
            if not lowest <= getattr(self, name) < 2**31:
                raise ParameterError(name, f"{getattr(self, name)}", f"{lowest} or more")
        rates = {"learning_rate": self.learning_rate, "gamma": self.gamma}
        rates |= {f"group_rates[{prefix!r}]": rate for prefix, rate in self.group_rates.items()}
        for name, rate in rates.items():
            if not 0 < rate < math.inf:
                raise ParameterError(name, f"{rate}", "more than 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ParameterError("betas", f"{self.betas}", "two numbers from 0 to less than 1")
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ParameterError(name, repr(getattr(self, name)), f"one of {', '.join(known)}")

    def rate(self, step: int, epoch: int = 0) -> float:
        """Share of the learning rate in a step, counted from 0, of an epoch, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = min(1.0, max(0, step - self.warmup) / max(1, self.steps - self.warmup))
        after = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "multistep": self.gamma ** sum(epoch >= milestone for milestone in self.milestones),
        }
        return rise * after[self.schedule]


class History:
    """What happened in training: `rows`, one dict for each logged step.

    Each has `step` (counted from 1), `epoch` (from 0), `seconds` spent until then, `lr`, `gradient` (norm before
    clipping), `loss`, its parts, and where there was an evaluation, what that gave. Losses are means over the whole
    batch. A notebook shows it as a table.
    """

    def __init__(self, rows: Sequence[dict] = ()):
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps at which something was noted, and its values: a curve."""
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def to_csv(self, path: Path | str) -> None:
        with cache.publishing(Path(path)) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def _repr_html_(self) -> str:
        """Ten rows at most, evenly spaced, the first and the last among them."""
        chosen = np.unique(np.linspace(0, len(self.rows) - 1, min(10, len(self.rows))).round().astype(int))
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        rows = ([self.rows[index].get(name, "") for name in self.columns] for index in chosen)
        cells = ("".join(f"<td>{v:.4g}</td>" if isinstance(v, float) else f"<td>{v}</td>" for v in row) for row in rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def fit(
    model: nn.Module,
    step: Callable[[nn.Module, Any], tuple[Tensor, Mapping[str, Tensor]]],
    dataset: Dataset,
    settings: Settings,
    *,
    folder: Path | str | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    live: bool = False,
    resume: bool = True,
    sampler: Any = None,
) -> History:
    """Train a model in place.

    Ctrl-C stops after the step that is under way, and leaves a checkpoint to go on from if there is a folder; so does
    SIGTERM. A second Ctrl-C stops at once. The caller's random numbers are as they were when this returns.

    Args:
        model: is moved to the device. Parameters that do not require gradients are left alone.
        step: of model and batch; gives the loss, an average over the items of the batch, and its parts by name, which
            are only noted. It sees the model itself, whatever is wrapped around it. Random numbers that should not
            depend on how a batch is shared out are drawn by `uniform`.
        dataset: batches are what its `collate` makes, if it has one; their first tensor's first axis counts items. Its
            `set_epoch` is called before each epoch. What is random about an item must follow from its index and the
            epoch, as in CAVMAEDataset, for workers and stopping not to matter.
        settings: how to train.
        folder: where checkpoints go: folders `step-...`, each with the weights as `model.save` writes them, if the
            model can. They are written at the end, as `settings` say, and when training is interrupted.
        evaluate: gives figures by name. It is called with the model in evaluation mode, without gradients, with the
            same random numbers each time; by every process, each of which evaluates everything.
        device: None or "auto" takes a GPU if there is one, for each process its own.
        progress: whether a progress bar is shown.
        live: draw the loss while it falls, in a notebook; at most once a second.
        resume: go on from the newest checkpoint in the folder. False removes those that are there.
        sampler: gives an epoch's indices in order, with `set_epoch`, alike in all processes:
            `BalancedSampler(weights, seed, num_replicas=1)`. None takes each item once, in random order.

    Returns:
        What happened, before an interruption too.

    Raises:
        TrainingError: a loss or gradient is not finite, or no item of a batch can be used. Weights are those before
            that step.
        ParameterError: settings that do not go with the model, the data, the device, or the run to go on from.
        CheckpointError: the checkpoint does not fit the model.
        CacheError: a checkpoint cannot be written; the ones before are still there.
    """
    from accelerate.utils import set_seed

    accelerator = _accelerator(settings, device)
    main = accelerator.is_main_process
    size, shares = settings.batch_size, settings.accumulate * accelerator.num_processes
    per_epoch = len(dataset if sampler is None else sampler) // size
    if not per_epoch or size < shares:
        expected = f"at least {shares}, one for each process and part, and at most the items, {len(dataset)}"
        raise ParameterError("batch_size", f"{size}", expected)

    with _random_numbers_apart():
        set_seed(settings.seed, device_specific=True)
        run = _Run(model, step, dataset, settings, accelerator, Path(folder) if folder else None)
        history, done, before = run.restore(resume)
        begun, picture = time.monotonic() - before, _Picture(live and main)
        model.train()
        with _bar(settings.steps, done, progress and main) as bar, _Interruptions() as interruptions:
            while done < settings.steps:
                epoch, first = divmod(done, per_epoch)
                order = _order(dataset, sampler, settings.seed, epoch)
                for parts in _batches(dataset, order, settings, accelerator, first):
                    rate = settings.rate(done, epoch)
                    noted, stop = run.step(done, rate, parts, interruptions.received is not None)
                    done += 1

                    row = {"step": done, "epoch": epoch, "seconds": time.monotonic() - begun}
                    row |= {"lr": settings.learning_rate * rate, **noted}
                    evaluated = evaluate and _due(done, settings.evaluate_every, settings.steps)
                    if evaluated:
                        row |= _evaluation(model, evaluate, settings.seed)
                    if evaluated or _due(done, settings.log_every, settings.steps):
                        history.rows.append(row)
                        picture.draw(history)
                    bar.set_postfix({name: f"{value:.3g}" for name, value in noted.items()}, refresh=False)
                    bar.update()
                    if stop or _due(done, settings.save_every, settings.steps) or done in settings.keep:
                        run.save(history, done, time.monotonic() - begun)
                    if stop:
                        interruptions.stop()
                    if done == settings.steps:
                        break
        picture.draw(history, at_once=True)
    return history


def uniform(count: int, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "*shape"]:
    """Random numbers in [0, 1) for the `count` items of a batch, `(count, *shape)`: the noise that decides a mask.

    While `fit` trains they follow from its seed, the step, and an item's place in the whole batch, so that they are the
    same however the batch is shared out over processes and parts. Elsewhere they are `torch.rand`.
    """
    place = _PLACE.get()
    if place is None:
        return torch.rand(count, *shape, device=device)
    generator, batch_size, start = place
    return torch.rand(batch_size, *shape, generator=generator)[start : start + count].to(device)


def parameter_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """What is trained, and at which rate: an optimiser's groups, of parameters that require gradients.

    A parameter belongs to the longest of `settings.group_rates` that its name begins with.

    Raises:
        ParameterError: no parameter has a name that begins so, or none requires gradients.
    """
    groups = {prefix: [] for prefix in ("", *settings.group_rates)}
    named = dict(model.named_parameters())
    for prefix in settings.group_rates:
        if not any(_begins(name, prefix) for name in named):
            raise ParameterError("group_rates", repr(prefix), "the beginning of a parameter's name")
    for name, parameter in named.items():
        if parameter.requires_grad:
            groups[max((prefix for prefix in groups if _begins(name, prefix)), key=len)].append(parameter)
    rates = {"": 1.0, **settings.group_rates}
    chosen = [
        {"params": parameters, "lr": settings.learning_rate * rates[prefix], "name": prefix or "all others"}
        for prefix, parameters in groups.items()
        if parameters
    ]
    if not chosen:
        raise ParameterError("model", "no parameter requires gradients", "at least one")
    return chosen


def average(paths: Sequence[Path | str]) -> dict[str, Tensor]:
    """The plain mean of each tensor over several checkpoints, as published for CAV-MAE's fine-tuned models.

    Raises:
        ParameterError: no paths.
        CheckpointError: one cannot be read, or differs from the first in names or shapes.
    """
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


def saved(folder: Path | str) -> list[Path]:
    """Checkpoints that `fit` wrote to a folder, oldest first; each can be read by `checkpoints.read`."""
    return sorted(Path(folder).glob("step-*"))


# A run: what there is to a step, and to going on from one


class _Objective(nn.Module):
    """The step as a module, so that what is wrapped around it (DDP, autocast) sees all of the step's work."""

    def __init__(self, model: nn.Module, step: Callable):
        super().__init__()
        self.model, self.step = model, step

    def forward(self, batch):
        loss, parts = self.step(self.model, batch)
        return loss, {name: value.detach() for name, value in parts.items()}


class _Run:
    def __init__(self, model, step, dataset, settings: Settings, accelerator, folder: Path | None):
        groups = parameter_groups(model, settings)
        self.rates = [group["lr"] for group in groups]
        self.trained = [parameter for group in groups for parameter in group["params"]]
        self.objective = accelerator.prepare_model(_Objective(model, step))
        options = {"betas": settings.betas, "weight_decay": settings.weight_decay}
        self.adam = OPTIMIZERS[settings.optimizer](groups, lr=settings.learning_rate, **options)
        self.optimizer = accelerator.prepare_optimizer(self.adam)  # the same, behind the scaler of fp16
        self.model, self.dataset, self.settings = model, dataset, settings
        self.accelerator, self.folder = accelerator, folder
        self.names = {parameter: name for name, parameter in model.named_parameters()}

    def step(self, done: int, rate: float, parts: Sequence[tuple], stop: bool) -> tuple[dict[str, float], bool]:
        """Change the weights once. Gives what is noted of it, and whether any process wants to stop."""
        from accelerate.utils import find_batch_size, send_to_device

        accelerator, device = self.accelerator, self.accelerator.device
        counts = [find_batch_size(batch) for batch, _ in parts]  # `collate` may have left items out
        items = self._items(done, counts)
        self.optimizer.zero_grad()
        for group, highest in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = highest * rate

        summed = 0
        for number, ((batch, start), count) in enumerate(zip(parts, counts, strict=True)):
            if not count:
                continue
            last = number == len(parts) - 1  # with it DDP averages the gradients of processes
            with _place(self.settings, done, start), nullcontext() if last else accelerator.no_sync(self.objective):
                loss, noted = self.objective(send_to_device(batch, device, non_blocking=True))
                share = count / items  # weighted by these, the means over parts add up to that over the batch
                accelerator.backward(loss * (share * accelerator.num_processes))
            summed = summed + share * torch.stack([value.detach().float() for value in (loss, *noted.values())])
        norm = accelerator.clip_grad_norm_(self.trained, self.settings.clip or math.inf)

        # The step's one wait for the device. Processes agree to stop by adding up who wants to.
        summed = accelerator.reduce(torch.cat([summed, torch.tensor([float(stop)], device=device)]), "sum")
        *losses, stop, norm = torch.cat([summed, norm.float()[None]]).tolist()
        losses = dict(zip(["loss", *noted], losses, strict=True))
        _require_finite(done, losses, norm, scaled=accelerator.scaler is not None)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses | {"gradient": norm}, stop > 0

    def _items(self, done: int, counts: list[int]) -> int:
        """How many items of the batch there are, over all parts and processes."""
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(torch.tensor(counts, device=self.accelerator.device)).tolist()
        if not any(counts) or (self.accelerator.num_processes > 1 and not all(counts)):
            found = "a process has no item that can be used" if any(counts) else "no item of the batch can be used"
            raise TrainingError(f"step {done + 1}", found, advice=getattr(self.dataset, "report", str)())
        return sum(counts)

    def save(self, history: History, done: int, seconds: float) -> None:
        """Publish a checkpoint, then remove the ones that it replaces."""
        from accelerate.utils import gather_object

        if self.folder is None:
            return
        random_states = gather_object([_random_state()])  # one of each process
        if self.accelerator.is_main_process:
            path = self.folder / f"step-{done:08d}"
            tensors = {f"{self.names[p]}:{k}": v for p, state in self.adam.state.items() for k, v in state.items()}
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
            config = {"same": self._same(), "done": done, "seconds": seconds, "rows": history.rows}
            config |= {"random": random_states, "scaler": scaler}
            try:
                with cache.publishing(path) as unfinished:
                    if hasattr(self.model, "save"):
                        self.model.save(unfinished)
                    else:
                        checkpoints.save(unfinished, self.model.state_dict(), {"model": type(self.model).__name__})
                    checkpoints.save(unfinished / _TRAINING, tensors, config)
                    if path.exists():
                        shutil.rmtree(path)
            except CacheError as error:
                last = ", ".join(older.name for older in saved(self.folder)[-1:]) or "none"
                advice = f"{error.advice} Training can go on from the last whole checkpoint: {last}."
                raise CacheError(path, error.found, error.expected, advice) from error
            for older in saved(self.folder):
                if older != path and int(older.name.removeprefix("step-")) not in self.settings.keep:
                    shutil.rmtree(older)
        self.accelerator.wait_for_everyone()

    def restore(self, resume: bool) -> tuple[History, int, float]:
        """Go on from the newest checkpoint that can be read: history, steps done and seconds spent until then."""
        if self.folder is None:
            return History(), 0, 0.0
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
                warnings.warn(f"{error} Training goes on from an older checkpoint, if there is one.", stacklevel=3)
                continue
            self._require_same(path, config["same"])
            checkpoints.load(self.model, path, weights)
            self._load_optimizer(tensors)
            if config["scaler"]:
                self.accelerator.scaler.load_state_dict(config["scaler"])
            if self.accelerator.process_index < len(config["random"]):
                _set_random_state(config["random"][self.accelerator.process_index])
            return History(config["rows"]), config["done"], config["seconds"]
        return History(), 0, 0.0

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        places = {self.names[parameter]: index for index, parameter in enumerate(self.trained)}
        state = defaultdict(dict)
        for label, tensor in tensors.items():
            name, _, key = label.rpartition(":")
            state[places[name]][key] = tensor
        self.adam.load_state_dict({"state": dict(state), "param_groups": self.adam.state_dict()["param_groups"]})

    def _same(self) -> dict:
        """What must not have changed when a run goes on, as JSON has it."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in _FREE}
        if self.settings.schedule in ("constant", "multistep"):
            del settings["steps"]  # no rate depends on it, so that a run can be made longer
        same = {**settings, "items": len(self.dataset), "trained parameters": len(self.trained)}
        return json.loads(json.dumps(same))

    def _require_same(self, path: Path, before: Mapping) -> None:
        now = self._same()
        changed = [f"{name} {now.get(name)}" for name in now if now[name] != before.get(name)]
        if changed:
            was = ", ".join(f"{name} {before.get(name)}" for name in now if now[name] != before.get(name))
            raise ParameterError("settings", ", ".join(changed), f"{was}, as in {path}", "Or give another folder.")


def _accelerator(settings: Settings, device: torch.device | str | None):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    wanted = torch.device(device).type if device not in (None, "auto") else None
    here = torch.accelerator.current_accelerator(check_available=True)
    found = here.type if here and wanted != "cpu" else "cpu"
    if wanted not in (None, found):
        raise ParameterError("device", f"{device}", f'"auto" or "{found}", which is what there is')
    if settings.precision == "fp16" and found == "cpu":
        raise ParameterError("precision", '"fp16" on a CPU', '"no" or "bf16"', "fp16 needs a GPU.")
    # Accelerate remembers device and precision of an earlier training in this process, and would refuse others.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Published models have parameters that never get a gradient: without this, DDP waits for those.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=found == "cpu", mixed_precision=settings.precision, kwargs_handlers=[unused])
    if accelerator.num_processes != int(environ.get("WORLD_SIZE", 1)):
        raise ParameterError("WORLD_SIZE", environ["WORLD_SIZE"], f"{accelerator.num_processes}", "Use torchrun.")
    return accelerator


def _order(dataset: Dataset, sampler: Any, seed: int, epoch: int) -> list:
    """Of an epoch, the indices."""
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    if sampler is None:
        return np.random.default_rng([seed, epoch]).permutation(len(dataset)).tolist()
    sampler.set_epoch(epoch)
    return list(sampler)


def _batches(dataset: Dataset, order: list, settings: Settings, accelerator, first: int) -> Iterator[list]:
    """For each step of an epoch from the `first` on, what this process works through: parts, and where they begin.

    A batch is cut into parts, and each part into shares, one for each process: together they always work on
    neighbouring items, and one process sees the same parts as several do.
    """
    shares, size = settings.accumulate * accelerator.num_processes, settings.batch_size
    edges = [size * share // shares for share in range(shares + 1)]
    mine = range(accelerator.process_index, shares, accelerator.num_processes)
    batches = range(first * size, len(order) - size + 1, size)
    loader = DataLoader(
        dataset,
        batch_sampler=[order[begin + edges[share] : begin + edges[share + 1]] for begin in batches for share in mine],
        num_workers=settings.workers,
        collate_fn=getattr(dataset, "collate", None),
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=_let_signals_be,
        generator=torch.Generator().manual_seed(settings.seed),  # so that loading draws nothing from training's numbers
    )
    parts = iter(loader)
    for _ in batches:
        yield [(next(parts), edges[share]) for share in mine]


def _let_signals_be(worker: int) -> None:
    """Ctrl-C reaches workers too, which should go on until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_PLACE: ContextVar[tuple[torch.Generator, int, int] | None] = ContextVar("place", default=None)


@contextmanager
def _place(settings: Settings, step: int, start: int) -> Iterator[None]:
    """Within, `uniform` knows which items of which batch it draws for."""
    seed = int(np.random.default_rng([settings.seed, step, 1]).integers(2**63))
    token = _PLACE.set((torch.Generator().manual_seed(seed), settings.batch_size, start))
    try:
        yield
    finally:
        _PLACE.reset(token)


def _require_finite(step: int, losses: Mapping[str, float], norm: float, scaled: bool) -> None:
    wrong = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if not wrong and not scaled and not math.isfinite(norm):  # scaled gradients may overflow; then a step is left out
        wrong = [f"the gradient's norm is {norm}, though the loss is {losses['loss']:.4g}"]
    if wrong:
        advice = "The weights are those before it. Look at the data; a lower learning_rate or a longer warmup may help."
        raise TrainingError(f"step {step + 1}", ", ".join(wrong), "finite numbers", advice)


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or bool(every and step % every == 0)


def _begins(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def _evaluation(model: nn.Module, evaluate: Callable, seed: int) -> dict[str, float]:
    from accelerate.utils import set_seed

    model.eval()
    with _random_numbers_apart(), torch.no_grad():
        set_seed(seed)
        figures = {name: float(value) for name, value in evaluate(model).items()}
    model.train()
    return figures


# What surrounds a run


def _random_state() -> dict:
    """All generators that training draws from by default, as JSON can hold them."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}
    state["torch"] = torch.get_rng_state().tolist()
    state["cuda"] = torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None
    return state


def _set_random_state(state: Mapping) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


@contextmanager
def _random_numbers_apart() -> Iterator[None]:
    """What is drawn within does not change what is drawn after."""
    state = _random_state()
    try:
        yield
    finally:
        _set_random_state(state)


class _Interruptions:
    """Within, Ctrl-C and SIGTERM are only noted, so that training stops between two steps; a second one acts."""

    def __enter__(self):
        self.received, self.before = None, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        if self.received is not None:
            self.stop()
        self.received = number

    def stop(self):
        self.__exit__()
        signal.raise_signal(self.received or signal.SIGINT)
        raise KeyboardInterrupt

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _bar(steps: int, done: int, shown: bool):
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=done, desc="training", unit="step", disable=not shown)


class _Picture:
    """The loss so far, in a notebook's output, drawn again at most once a second."""

    def __init__(self, shown: bool):
        self.shown, self.handle, self.drawn = shown, None, -math.inf

    def draw(self, history: History, at_once: bool = False) -> None:
        if not self.shown or (time.monotonic() - self.drawn < 1 and not at_once):
            return
        from IPython.display import Image, display
        from matplotlib.figure import Figure

        figure, file = Figure(figsize=(6, 2.2), layout="constrained"), BytesIO()
        axes = figure.subplots()
        axes.plot(*history.series("loss"))
        axes.set(xlabel="step", ylabel="loss")
        figure.savefig(file, format="png")
        image = Image(file.getvalue())
        self.handle = self.handle.update(image) or self.handle if self.handle else display(image, display_id=True)
        self.drawn = time.monotonic()
