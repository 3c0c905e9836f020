"""The models, the only training steps, and training that is done once."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import training
from ...datasets.cav_mae import LabelTable, Sample, read_items
from ...models.cav_mae import CAVMAE, OBJECTIVES, CAVMAEClassifier
from .. import Trained, trained_once, written
from .data import data
from .settings import STAGES, Data, Settings, tiny


def build(settings: Settings) -> CAVMAE:
    """The model to pretrain; its random weights follow from the seed."""
    stage = settings.pretraining
    with torch.random.fork_rng():
        torch.manual_seed(stage.training.seed)
        return CAVMAE(
            norm_pix_loss=stage.norm_pix_loss,
            both_directions=stage.both_directions,
            gather_negatives=stage.gather_negatives,
            **asdict(settings.sizes),
        )


def classifier(settings: Settings, pretrained: Path | str, num_classes: int) -> CAVMAEClassifier:
    """The model to fine-tune: pretrained weights and a head with random ones, which follow from the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.fine_tuning.training.seed)
        model = CAVMAEClassifier.from_pretraining(pretrained, num_classes)
    if settings.fine_tuning.frozen:
        model.requires_grad_(False).mlp_head.requires_grad_(True)
    return model


def step(model: nn.Module, batch: Sample, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """The training step of pretraining: hide patches, and give the loss and its parts (those that are computed).

    Masks come from `training.uniform`, so that a batch which several processes share is masked as one.
    """
    stage = settings.pretraining
    inputs = inputs_of(batch, stage.objective)
    weights = {name: inputs[name] and getattr(stage, name) for name in ("mae_weight", "contrast_weight")}
    noise = {
        f"noise_{name}": training.uniform(len(batch.fbank), count, device=batch.fbank.device)
        for name, count in zip(("audio", "image"), patch_counts(settings), strict=True)
    }
    ratios = {"mask_ratio_audio": stage.mask_ratio_audio, "mask_ratio_image": stage.mask_ratio_image}
    output = model(**{**inputs, **weights, **noise, **ratios}, mask_mode=stage.mask_mode)
    parts = {f"mae_{name}": inputs[name] is not None and weights["mae_weight"] for name in ("audio", "image")}
    parts |= dict.fromkeys(("contrast", "contrast_accuracy"), weights["contrast_weight"])
    return output.loss, {name: getattr(output, name) for name, computed in parts.items() if computed}


def fine_tuning_step(model: nn.Module, batch: Sample, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """The training step of fine-tuning: the loss of the logits against soft labels, and the share that is right."""
    logits = model(batch.fbank, batch.image, mode=settings.fine_tuning.mode)
    loss = {"bce": F.binary_cross_entropy_with_logits, "ce": F.cross_entropy}[settings.fine_tuning.loss]
    right = batch.labels.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1) == batch.labels.amax(dim=1)
    return loss(logits, batch.labels), {"right": right.float().mean()}


def inputs_of(batch: Sample, objective: str) -> dict[str, Any]:
    """What the model is given: an objective may leave a modality out, and says with weight 0 what it does not ask."""
    return {"audio": batch.fbank, "image": batch.image} | OBJECTIVES[objective]


def patch_counts(settings: Settings) -> list[int]:
    """How many patches a sound and a picture have."""
    return [rows * columns for rows, columns in settings.sizes.grids.values()]


def trained(
    settings: Settings = tiny,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
    live: bool = False,
) -> Trained:
    """The model that these settings give: from the cache if it was ever trained, otherwise trained now.

    The cache knows it by the settings, the source of avlib and the user's files. A training that was killed goes on
    from its last checkpoint; one that is under way in another process is waited for.

    Args:
        settings: what to train. Stage "fine_tuning" begins with what "pretraining" gives.
        device: None or "auto" takes a GPU if there is one.
        progress: whether bars are shown.
        live: draw the loss while it falls, in a notebook.

    Raises:
        TrainingError, DatasetError, ParameterError, CacheError: see `training.fit`, `CAVMAEDataset` and `done_once`.
    """
    how = {"device": device, "progress": progress, "live": live}
    tuning = settings.stage == "fine_tuning"
    pretrained = trained(replace(settings, stage="pretraining"), **how).folder if tuning else None
    recipe = {name: getattr(settings, name) for name in ("stage", "sizes", "data", *STAGES[: 1 + tuning])}
    recipe["files"] = _files(settings.data)

    def make(progress_folder: Path) -> tuple[nn.Module, training.History]:
        dataset = data(settings, progress=progress)
        model = classifier(settings, pretrained, len(dataset.table)) if tuning else build(settings)
        used = fine_tuning_step if tuning else step
        history = training.fit(
            model, partial(used, settings=settings), dataset, settings.now.training, folder=progress_folder, **how
        )
        # Fine-tuned models are published as the mean over epochs; a training that ends before these has no mean
        kept = [path for path in training.saved(progress_folder) if _step(path) in settings.now.training.keep]
        if kept:
            model.load_state_dict(training.average(kept))
        return model, history

    history, folder = trained_once(
        f"cav_mae-{settings.stage}", recipe, make, lambda model, path: model.save(path), settings=settings,
        source=__name__,
    )  # fmt: skip
    model = (CAVMAEClassifier if tuning else CAVMAE).from_checkpoint(folder).to(training.chosen_device(device)).eval()
    return Trained(model, history, folder)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _files(data: Data) -> list:
    """The clips of the user and when each was written, so that a changed clip or table is not taken for the old one."""
    if not data.data:
        return []
    table = repr(LabelTable.read(data.labels)) if data.labels else ""
    items = read_items(data.data)
    return [table, list(map(repr, items)), written(getattr(item, "path", None) or item.wav for item in items)]
