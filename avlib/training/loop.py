"""The loop: batches shared out over parts and processes, losses, optimiser steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from os import environ
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import ParameterError, TrainingError, did_you_mean
from .history import History, Picture
from .settings import Settings, build_optimizer
from .sharpness import as_before, perturbed
from .stopping import Checkpoints, Interruptions, Watch, leave_to_main, random_numbers_apart, random_state

Step = Callable[[nn.Module, Any], tuple[Tensor, Mapping[str, Tensor]]]


@random_numbers_apart()
def fit(
    model: nn.Module, step: Step | Mapping[str, Step], dataset: Dataset, settings: Settings, *,
    folder: Path | str | None = None, evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    better: Mapping[str, Literal["lower", "higher"]] | None = None, device: torch.device | str | None = None,
    progress: bool = True, live: bool = False, resume: bool = True, sampler: Any = None,
) -> History:  # fmt: skip
    """Train a model in place.

    Ctrl-C stops after the current step, and leaves a checkpoint to go on from if there is a folder; so does SIGTERM. A
    second Ctrl-C stops at once. The caller's random state is restored when this returns.

    Args:
        model: moved to the device. Parameters that do not require gradients are left alone.
        step: takes model and batch, and returns the loss, an average over the items of the batch, and its parts by
            name, which are only noted. Random numbers that must not depend on how a batch is shared out are drawn by
            `uniform` or `normal`. "sam" and "asam" call it twice for each batch, with the same random numbers.
            A table of steps trains several networks, each by its own optimiser, one after another on each batch: the
            names are those of the model's children, as in {"discriminator": ..., "generator": ...}. Each step draws
            the same random numbers from `uniform` and `normal`; the other networks get no gradient.
        dataset: its `collate`, if it has one, makes batches, whose first tensor's first axis counts items. Its
            `set_epoch` is called before each epoch. What is random about an item must follow from its index and the
            epoch, so that neither workers nor interruptions matter.
        settings: with `patience` training may end early; with `best` the model ends as at its best evaluation.
        folder: for checkpoints: folders `step-...`, each with the weights as `model.save` writes them, if the model
            can. They are written at the end, as `settings` say, and when training is interrupted.
        evaluate: returns figures by name. It is called with the model in evaluation mode, without gradients, with the
            same random numbers each time; by every process, each of which evaluates everything.
        better: for the figures of `evaluate`, whether "lower" or "higher" is better. Needed for `settings.monitor`.
        device: None or "auto" takes a GPU if there is one, for each process its own.
        live: draw the loss while it falls, in a notebook; at most once a second.
        resume: go on from the newest checkpoint in the folder. False removes those that are there.
        sampler: yields an epoch's indices in order, with `set_epoch`, alike in all processes:
            `BalancedSampler(weights, seed)`. None takes each item once, in random order.

    Returns:
        The history, with the rows from before an interruption.

    Raises:
        TrainingError: a loss or gradient is not finite, or no item of a batch can be used. The optimiser has not
            stepped on it.
        ParameterError: settings that do not go with the model, the data, the device, or the run to go on from.
        CheckpointError: the checkpoint does not fit the model.
        CacheError: a checkpoint cannot be written; the ones before are still there.
    """
    from accelerate.utils import set_seed

    from ..progress import Bar

    if settings.chooses and settings.monitor not in (better or {}):
        expected = f"one of {', '.join(map(repr, better))}" if better else "an evaluation that returns it"
        raise ParameterError("monitor", repr(settings.monitor), expected, did_you_mean(settings.monitor, better or {}))
    accelerator = _accelerator(settings, device, progress)
    main = accelerator.is_main_process
    size, shares = settings.batch_size, settings.accumulate * accelerator.num_processes
    per_epoch = len(dataset if sampler is None else sampler) // size
    if not per_epoch or size < shares:
        expected = f"at least {shares}, one for each process and part, and at most the items, {len(dataset)}"
        raise ParameterError("batch_size", f"{size}", expected)

    set_seed(settings.seed, device_specific=True)
    steps = step if isinstance(step, Mapping) else {"": step}
    steppers = [_Stepper(model, name, one, dataset, settings, accelerator) for name, one in steps.items()]
    average = _average(model, settings)
    folder = Path(folder) if folder else None
    optimizers = [stepper.plain for stepper in steppers]
    kept = Checkpoints(folder, model, optimizers, average, accelerator, settings, len(dataset))
    done, before, history = kept.restore(resume)

    model.train()
    losses = [stepper.loss for stepper in steppers]
    begun, picture = time.monotonic() - before, Picture(live and main, losses)
    watch = Watch(kept, settings, history, (better or {}).get(settings.monitor) == "lower")
    bar = Bar(total=settings.steps, initial=done, desc="training", unit="step", disable=not (progress and main))
    with bar, Interruptions() as interruptions:
        while done < settings.steps and not watch.over:
            epoch, first = divmod(done, per_epoch)
            order = _order(dataset, sampler, settings.seed, epoch)
            for parts in _batches(dataset, order, settings, accelerator, first):
                rate = settings.rate(done, epoch)
                noted, stop = {}, False
                for stepper in steppers:
                    of_one, told = stepper.take(done, rate, parts, interruptions)
                    noted, stop = noted | of_one, stop or told
                if average:
                    average.step(kept.trained)
                done += 1

                row = {"step": done, "epoch": epoch, "seconds": time.monotonic() - begun}
                row |= {"lr": settings.learning_rate * rate, **noted}
                evaluated = evaluate and _due(done, settings.evaluate_every, settings.steps)
                if evaluated:
                    with kept.averaged():
                        row |= watch.agreed(_evaluation(model, evaluate, settings.seed))
                if evaluated or _due(done, settings.log_every, settings.steps):
                    history.rows.append(row)
                    picture.draw(history)
                improved = evaluated and watch.look(done)
                bar.set_postfix({name: f"{value:.3g}" for name, value in noted.items()}, refresh=False)
                bar.update()
                due = _due(done, settings.save_every, settings.steps) or done in settings.keep
                if stop or due or improved or watch.over:
                    kept.save(done, time.monotonic() - begun, history)
                if stop:
                    kept_or_not = "kept. Run it again to go on" if folder else "not kept: no folder was given"
                    interruptions.stop(f"Stopped at step {done} of {settings.steps}, {kept_or_not}.")
                if done == settings.steps or watch.over:
                    break
    watch.finish(done)
    picture.draw(history, at_once=True)
    return history


def chosen_device(wanted: torch.device | str | None) -> torch.device:
    """Return a device by its name; for None or "auto" a GPU if available."""
    here = torch.accelerator.current_accelerator(check_available=True)
    if wanted in (None, "auto"):
        return here or torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:  # torch knows no device of that name
        device = None
    count = {"cpu": 1} | ({here.type: torch.accelerator.device_count()} if here else {})
    if device is None or not (device.index or 0) < count.get(device.type, 0):
        there = '"auto" or "cpu"' if not here else f'"auto", "cpu" or "{here.type}"'
        raise ParameterError("device", f'"{wanted}" is not available; use {there}')
    return device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; on exit restore the mode of each of its modules."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def uniform(count: int, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "*shape"]:
    """Return random numbers in [0, 1) for the items of a batch, `(count, *shape)`.

    While `fit` trains they follow from its seed, the step, and an item's place in the whole batch, not from how the
    batch is shared out over processes and parts. Elsewhere they are `torch.rand`.
    """
    place = _PLACE.get()
    if place is None:
        return torch.rand(count, *shape, device=device)
    generator, batch_size, start = place
    return torch.rand(batch_size, *shape, generator=generator)[start : start + count].to(device)


def normal(count: int, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "*shape"]:
    """Return standard normal noise for the `count` items of a batch, drawn by `uniform`: `(count, *shape)`."""
    return torch.special.ndtri(uniform(count, *shape, device=device).clamp(min=2.0**-25))


class _Objective(nn.Module):
    """The step as a module, so that what is wrapped around it (DDP, autocast) sees all of the step's work."""

    def __init__(self, model: nn.Module, step: Step):
        super().__init__()
        self.model, self.step = model, step

    def forward(self, batch):
        loss, parts = self.step(self.model, batch)
        return loss, {name: value.detach() for name, value in parts.items()}


class _Stepper:
    """One optimiser and its step: the model behind DDP and autocast, the optimiser behind the scaler of fp16."""

    def __init__(self, model: nn.Module, network: str, step: Step, dataset: Dataset, settings: Settings, accelerator):
        self.network, self.loss, self.gradient = network, f"{network} loss".strip(), f"{network} gradient".strip()
        own = set(_network(model, network).parameters())
        self.others = [each for each in model.parameters() if each.requires_grad and each not in own]
        with self._alone():
            self.objective = accelerator.prepare_model(_Objective(model, step))
            self.plain = build_optimizer(model, settings)
        self.highest = [group["lr"] for group in self.plain.param_groups]
        self.trained = [parameter for group in self.plain.param_groups for parameter in group["params"]]
        self.optimizer = accelerator.prepare_optimizer(self.plain)
        self.dataset, self.settings, self.accelerator = dataset, settings, accelerator

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep gradients from the other networks."""
        for parameter in self.others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.others:
                parameter.requires_grad_(True)

    def take(self, done: int, rate: float, parts: Sequence[tuple], interruptions: Interruptions) -> tuple[dict, bool]:
        """Step once; return what to note of it, and whether any process was told to stop."""
        from accelerate.utils import find_batch_size

        accelerator, device = self.accelerator, self.accelerator.device
        counts = [find_batch_size(batch) for batch, _ in parts]  # `collate` may have left items out
        items = self._items(done, counts)
        self.optimizer.zero_grad()
        for group, highest in zip(self.plain.param_groups, self.highest, strict=True):
            group["lr"] = highest * rate

        sharp = self.settings.sharp
        drawn = random_state() if sharp else {}
        with self._alone():
            summed, names = self._backward(done, parts, counts, items)
            if sharp:
                with perturbed(self.trained, self.settings.rho, self.settings.optimizer == "asam"):
                    self.optimizer.zero_grad()
                    with as_before(self.objective, drawn):
                        self._backward(done, parts, counts, items)
        norm = accelerator.clip_grad_norm_(self.trained, self.settings.clip or math.inf)

        # The step's one wait for the device. Processes agree to stop by adding up who was told to.
        told = torch.tensor([float(interruptions.received is not None)], device=device)
        summed = accelerator.reduce(torch.cat([summed, told]), "sum")
        *losses, told, norm = torch.cat([summed, norm.float()[None]]).tolist()
        losses = dict(zip([self.loss, *names], losses, strict=True))
        self._require_finite(done, losses, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses | {self.gradient: norm}, told > 0

    def _backward(self, done: int, parts: Sequence[tuple], counts: list[int], items: int) -> tuple[Tensor, list[str]]:
        """Add up the gradients of all parts; return this process's share of the losses, and their names."""
        from accelerate.utils import send_to_device

        accelerator, device = self.accelerator, self.accelerator.device
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
        return summed, list(noted)

    def _items(self, done: int, counts: list[int]) -> int:
        """Count the items of the batch, over all parts and processes."""
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(torch.tensor(counts, device=self.accelerator.device)).tolist()
        if not any(counts) or (self.accelerator.num_processes > 1 and not all(counts)):
            found = "a process has no item that can be used" if any(counts) else "no item of the batch can be used"
            raise TrainingError(f"step {done + 1}", found, advice=getattr(self.dataset, "report", str)())
        return sum(counts)

    def _require_finite(self, done: int, losses: Mapping[str, float], norm: float) -> None:
        wrong = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
        scaled = self.accelerator.scaler is not None  # such gradients may overflow; then a step is left out
        if not wrong and not scaled and not math.isfinite(norm):
            wrong = [f"the gradient's norm is {norm}, though the loss is {losses[self.loss]:.4g}"]
        if wrong:
            advice = "The weights are those before it. Look at the data, or try a lower learning_rate, a longer warmup."
            raise TrainingError(f"step {done + 1}", ", ".join(wrong), "finite numbers", advice)


def _network(model: nn.Module, name: str) -> nn.Module:
    """The part of a model that one step trains; all of it without a name."""
    children = dict(model.named_children())
    if name and name not in children:
        raise ParameterError("step", repr(name), f"names of networks in the model: {', '.join(children)}")
    return children[name] if name else model


def _average(model: nn.Module, settings: Settings) -> Any:
    """The moving average of the trained parameters, or None."""
    if not settings.ema:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel([each for each in model.parameters() if each.requires_grad], decay=settings.ema, foreach=True)


def _accelerator(settings: Settings, device: torch.device | str | None, progress: bool):
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    found = chosen_device(device).type
    if settings.precision == "fp16" and found == "cpu":
        raise ParameterError("precision", '"fp16" on a CPU', '"no", "bf16" or "auto"', "fp16 needs a GPU.")
    # Accelerate remembers device and precision of an earlier training in this process, and would refuse others.
    AcceleratorState._reset_state(reset_partial_state=True)
    precision = _precision(settings.precision, found, progress and PartialState(cpu=found == "cpu").is_main_process)
    # Published models have parameters that never get a gradient: without this, DDP waits for those.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=found == "cpu", mixed_precision=precision, kwargs_handlers=[unused])
    if accelerator.num_processes != int(environ.get("WORLD_SIZE", 1)):
        raise ParameterError("WORLD_SIZE", environ["WORLD_SIZE"], f"{accelerator.num_processes}", "Use torchrun.")
    return accelerator


def _precision(wanted: str, device: str, say: bool) -> str:
    """The precision to train in, the same in all processes; say what was measured."""
    from accelerate.utils import broadcast_object_list

    if wanted in ("no", "fp16"):
        return wanted
    cost = broadcast_object_list([bf16_cost(device)])[0]
    chosen = "no" if wanted == "auto" and cost > 1 else "bf16"
    if say and (wanted == "auto" or cost > 1):
        name = {"no": "float32", "bf16": "bfloat16"}[chosen]
        advice = ' precision="no" is faster here.' if chosen == "bf16" and cost > 1 else ""
        measured = (
            f"a matrix product in bfloat16 takes {cost:.2g} times as long as in float32 on this {device}, measured"
        )
        print(f"Training in {name}: {measured}.{advice}", file=sys.stderr)
    return chosen


@cache
def bf16_cost(device: str = "cpu") -> float:
    """Return the time of a matrix product in bfloat16 over that in float32, measured once in a process.

    Below 1 on GPUs and on CPUs with instructions for it, 10 or more on others.
    """
    spent = []
    for dtype in (torch.bfloat16, torch.float32):
        x, times = torch.ones(256, 256, dtype=dtype, device=device), []
        for _ in range(6):  # the first warms up
            begun = time.perf_counter()
            (x @ x)[0, 0].item()
            times.append(time.perf_counter() - begun)
        spent.append(min(times[1:]))
    return spent[0] / spent[1]


def _order(dataset: Dataset, sampler: Any, seed: int, epoch: int) -> list:
    """Return the indices of an epoch in order."""
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    if sampler is None:
        return np.random.default_rng([seed, epoch]).permutation(len(dataset)).tolist()
    sampler.set_epoch(epoch)
    return list(sampler)


def _batches(dataset: Dataset, order: list, settings: Settings, accelerator, first: int) -> Iterator[list]:
    """Yield, for each step of an epoch from the `first` on, this process's parts and where they begin.

    A batch is cut into parts, and each part into shares, one for each process: together they always work on
    neighbouring items, and one process sees the same parts as several do.
    """
    shares, size = settings.accumulate * accelerator.num_processes, settings.batch_size
    edges = [size * share // shares for share in range(shares + 1)]
    mine = range(accelerator.process_index, shares, accelerator.num_processes)
    batches = range(first * size, len(order) - size + 1, size)
    loader = DataLoader(
        dataset, num_workers=settings.workers, collate_fn=getattr(dataset, "collate", None),
        batch_sampler=[order[begin + edges[share] : begin + edges[share + 1]] for begin in batches for share in mine],
        pin_memory=accelerator.device.type == "cuda", worker_init_fn=leave_to_main,
        generator=torch.Generator().manual_seed(settings.seed),  # so that loading draws nothing from training's numbers
    )  # fmt: skip
    parts = iter(loader)
    for _ in batches:
        yield [(next(parts), edges[share]) for share in mine]


_PLACE: ContextVar[tuple[torch.Generator, int, int] | None] = ContextVar("place", default=None)


@contextmanager
def _place(settings: Settings, step: int, start: int) -> Iterator[None]:
    """Tell `uniform` which items of which batch it draws for."""
    seed = int(np.random.default_rng([settings.seed, step, 1]).integers(2**63))
    token = _PLACE.set((torch.Generator().manual_seed(seed), settings.batch_size, start))
    try:
        yield
    finally:
        _PLACE.reset(token)


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or bool(every and step % every == 0)


def _evaluation(model: nn.Module, evaluate: Callable, seed: int) -> dict[str, float]:
    from accelerate.utils import set_seed

    with evaluating(model), random_numbers_apart(), torch.no_grad():
        set_seed(seed)
        return {name: float(value) for name, value in evaluate(model).items()}
