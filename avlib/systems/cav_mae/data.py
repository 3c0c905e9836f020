"""Clips to train on, and others that no training sees."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ... import checkpoints
from ...datasets.cav_mae import (
    HELD_OUT,
    Augmentation,
    CAVMAEDataset,
    Item,
    LabelTable,
    Sample,
    read_items,
    scene_items,
)
from ...datasets.sources import split
from .. import done_once
from .settings import GALLERY, Settings


def data(settings: Settings, *, progress: bool = True) -> CAVMAEDataset:
    """What the stage of the settings trains on, augmented as it says."""
    items, table = _items(settings, None)
    labelled = settings.fine_tuning.labelled
    if settings.stage == "fine_tuning" and 0 < labelled < len(items):
        items = split(items, labelled, settings.data.clips_seed)[1]  # of each class in proportion
    return _dataset(settings, items, table, settings.now.augmentation, progress)


def held_out(settings: Settings, seed: int = 0, *, progress: bool = True) -> CAVMAEDataset:
    """Clips that no training sees, nothing about them random.

    Args:
        settings: what clips are like.
        seed: another one gives other scenes. The user's own data has one set of held-out clips.
        progress: whether bars are shown.
    """
    return _dataset(settings, *_items(settings, seed), None, progress)


def galleries(settings: Settings, seed: int = 0, *, progress: bool = True) -> list[Sample]:
    """The held-out clips in batches to search in: five of 64 by default, of built-in scenes with eight of each kind."""
    return batches(held_out(settings, seed, progress=progress))


def batches(dataset: CAVMAEDataset) -> list[Sample]:
    """A data set in batches of `GALLERY`, or in one if it is smaller. A rest, easier to search, is left out."""
    size = min(GALLERY, len(dataset))
    firsts = range(0, len(dataset) - size + 1, size)
    return [dataset.collate([dataset[index] for index in range(first, first + size)]) for first in firsts]


def means(
    settings: Settings, *, count: int = 512, progress: bool = True
) -> tuple[Float[Tensor, "frames mels"], Float[Tensor, "3 size size"]]:
    """What one would predict who has seen many clips, and nothing of this one.

    Over the first `count` training clips: the mean of each mel row, the same at all times, and of each pixel.
    """
    dataset = _dataset(settings, *_items(settings, None), Augmentation(), progress)
    fbanks, images, _ = dataset.collate([dataset[index] for index in range(min(count, len(dataset)))])
    return fbanks.mean(dim=(0, 1)).expand(fbanks.shape[1:]), images.mean(dim=0)


def _items(settings: Settings, held_out_seed: int | None) -> tuple[list[Item], LabelTable]:
    """The items to train on, or (with a seed) held-out ones, and the classes of all."""
    data = settings.data
    if data.data:
        items = read_items(data.data)
        table = LabelTable.read(data.labels) if data.labels else LabelTable.of(items)
        return split(items, data.held_out, data.clips_seed)[held_out_seed is not None], table
    if held_out_seed is None:
        items = scene_items(data.clips, data.clips_seed, data.seconds)
    else:
        items = scene_items(data.held_out, HELD_OUT + held_out_seed, data.seconds)
    return items, LabelTable.of(scene_items(GALLERY))


def _dataset(
    settings: Settings, items: list[Item], table: LabelTable, augmentation: Augmentation | None, progress: bool
) -> CAVMAEDataset:
    data, sizes = settings.data, settings.sizes
    frames = data.frames if augmentation is None or data.data else data.training_frames
    dataset = CAVMAEDataset(
        items, table, augmentation, total_frames=frames, image_size=sizes.image_size,
        target_length=sizes.audio_length, n_mels=sizes.mel_bins, mean=data.mean, std=data.std, on_error=data.on_error,
        seed=settings.now.training.seed,
    )  # fmt: skip
    jobs = 1 if len(items) < 2 * GALLERY else None  # to start processes takes seconds
    mixed = augmentation is not None and augmentation.mixup > 0  # mixes sounds, which are not worth their space on disk
    if not data.in_memory:
        return dataset.usable(jobs, progress) if data.on_error == "skip" else dataset
    if data.data or mixed:
        return dataset.prepared(jobs, progress)

    def write(prepared: CAVMAEDataset, path: Path) -> None:
        checkpoints.save(path, {name: prepared.memory[name] for name in ("fbanks", "pictures", "there")}, {})

    recipe = [frames, sizes.image_size, sizes.audio_length, sizes.mel_bins, list(map(repr, items))]
    path = done_once(
        "arrays",
        "cav_mae",
        recipe,
        lambda _: dataset.prepared(jobs, progress),
        write,
        source=__name__,
    )
    no_sounds = [torch.empty(0)] * len(items)
    return dataset.with_memory(checkpoints.read(path).tensors | {"sounds": no_sounds})
