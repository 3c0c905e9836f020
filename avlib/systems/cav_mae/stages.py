"""CAV-MAE's settings, and the two stages of its training: data, models, steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import training
from ...datasets.cav_mae import (
    FINE_TUNING,
    HELD_OUT,
    MOST_HELD_OUT,
    PRETRAINING,
    Augmentation,
    CAVMAEDataset,
    Data,
    Item,
    LabelTable,
    Sample,
    SceneItem,
    balanced_weights,
    read_items,
    scene_items,
)
from ...datasets.items import remembered
from ...datasets.sampling import BalancedSampler
from ...datasets.sources import number_to_hold_out, split
from ...masking import MASK_MODES
from ...models.cav_mae import CAVMAE, CLASSIFIER_MODES, OBJECTIVES, CAVMAEClassifier, Sizes
from ...settings import Natural, NonNegative, Share, changed, recipe, settings
from .. import Stage, fitted_to, trained_by, written

GALLERY = 64  # held-out clips are searched in galleries of so many; of built-in scenes each has eight of a kind


@settings
class Pretraining:
    """The first stage.

    objective: one of the model's `OBJECTIVES`; what that leaves out, no weight brings back.
    initialize: a MAE of images with its decoder (`mae_pretrain_vit_base_full.pth`) to begin with, as published; ""
        begins with random weights.
    """

    objective: Literal[tuple(OBJECTIVES)] = "CAV-MAE"
    mae_weight: NonNegative = 1.0
    contrast_weight: NonNegative = 0.01
    both_directions: bool = False
    gather_negatives: bool = False
    norm_pix_loss: bool = True
    mask_ratio_audio: Share = 0.75
    mask_ratio_image: Share = 0.75
    mask_mode: Literal[MASK_MODES] = "unstructured"
    initialize: str = ""
    augmentation: Augmentation = PRETRAINING
    training: training.Settings = field(default_factory=training.Settings)


@settings
class FineTuning:
    """The second stage, which begins with the pretrained weights.

    labelled: training clips that have labels; 0 for all.
    balanced: draw clips so that rare classes are seen as often as common ones, as published for AudioSet-2M and
        VGGSound.
    loss: "bce" for several labels of a clip (AudioSet), "ce" for one (VGGSound).
    mode: the input; "audioonly" trains the audio half by itself.
    frozen: train the head alone.
    """

    labelled: Natural = 0
    balanced: bool = False
    loss: Literal["bce", "ce"] = "bce"
    mode: Literal[tuple(CLASSIFIER_MODES)] = "multimodal"
    frozen: bool = False
    augmentation: Augmentation = FINE_TUNING
    training: training.Settings = field(default_factory=training.Settings)


@settings
class Settings:
    """Everything that a training follows from. `stage` is the last one that is trained. See `changed`."""

    stage: Literal["pretraining", "fine_tuning"] = "pretraining"
    sizes: Sizes = field(default_factory=Sizes)
    data: Data = field(default_factory=Data)
    pretraining: Pretraining = field(default_factory=Pretraining)
    fine_tuning: FineTuning = field(default_factory=FineTuning)

    @property
    def FREE(self) -> tuple[str, ...]:
        return ("fine_tuning",) if self.stage == "pretraining" else ()

    @property
    def now(self) -> Pretraining | FineTuning:
        return getattr(self, self.stage)


# The published trainings: the first on AudioSet-2M (1,772,023 clips) with the paper's batch, the second on AudioSet-20K
# (18,691). They ran in fp16, which a CPU cannot; on GPUs set precision to "bf16" or "fp16".
_ADAM = {"optimizer": "adam", "betas": (0.95, 0.999), "weight_decay": 5e-7, "warmup": 0, "clip": 0.0, "workers": 4}
_EPOCH, _SHORT_EPOCH = 1_772_023 // 108, 18_691 // 36
full = Settings(
    pretraining=Pretraining(
        training=training.Settings(
            steps=25 * _EPOCH, batch_size=108, learning_rate=1e-4, save_every=2000, log_every=50,
            schedule="multistep", milestones=range(10, 25, 5), gamma=0.5, **_ADAM,
        ),
    ),
    fine_tuning=FineTuning(
        training=training.Settings(
            steps=15 * _SHORT_EPOCH, batch_size=36, learning_rate=5e-5, group_rates={"mlp_head": 100.0}, log_every=10,
            schedule="multistep", milestones=range(5, 15), gamma=0.5, save_every=_SHORT_EPOCH,
            keep=range(3 * _SHORT_EPOCH, 15 * _SHORT_EPOCH + 1, _SHORT_EPOCH), **_ADAM,
        ),
    ),
)  # fmt: skip

# What two CPU cores learn in a minute: clips of two seconds (192 frames), pictures of 64 x 64. The contrast weighs as
# much as the reconstruction and goes both ways, and less is hidden: in a few hundred steps the published balance,
# `PUBLISHED`, hardly learns to tell clips of one kind apart. One block of width 64 for each modality is enough: given
# the same time for training, two blocks of width 128 find fewer partners.
tiny = Settings(
    sizes=Sizes(
        audio_length=192, image_size=64, image_patch=8, width=64, heads=4, modality_depth=1,
        decoder_width=64, decoder_heads=4, decoder_depth=1,
    ),
    data=Data(clips=2048, seconds=1.94, training_frames=4, mean=-9.48, std=3.15, in_memory=True),
    pretraining=Pretraining(
        contrast_weight=1.0, both_directions=True, gather_negatives=True, mask_ratio_audio=0.5, mask_ratio_image=0.5,
        training=training.Settings(steps=360, batch_size=64, learning_rate=3e-3, warmup=40, save_every=100),
    ),
    fine_tuning=FineTuning(
        labelled=256, loss="ce",
        augmentation=Augmentation(label_smoothing=0.1, freq_mask=24, time_mask=36, noise=True, roll=True),
        training=training.Settings(
            steps=100, batch_size=32, learning_rate=5e-4, warmup=10, group_rates={"mlp_head": 10.0}
        ),
    ),
)  # fmt: skip

# For `changed`: where `tiny` departs from the published balance.
PUBLISHED = {
    name: getattr(full.pretraining, name)
    for name in ("contrast_weight", "both_directions", "mask_ratio_audio", "mask_ratio_image")
}


def data(settings: Settings, *, progress: bool = True) -> CAVMAEDataset:
    """Return the clips that a stage trains on, augmented by its settings."""
    items, table = items_of(settings, None)
    labelled = settings.fine_tuning.labelled
    if settings.stage == "fine_tuning" and 0 < labelled < len(items):
        items = split(items, labelled, settings.data.clips_seed)[1]  # of each class in proportion
    return _dataset(settings, items, table, settings.now.augmentation, progress)


def held_out(settings: Settings, seed: int = 0, *, progress: bool = True) -> CAVMAEDataset:
    """Return clips that no training sees, nothing about them random.

    Another seed gives other scenes. The user's own data has one set of held-out clips.
    """
    return _dataset(settings, *items_of(settings, seed), None, progress)


def galleries(settings: Settings, seed: int = 0, *, progress: bool = True) -> list[Sample]:
    """Return the held-out clips in batches to search in. Of 64 built-in scenes eight are of each kind."""
    return batches(held_out(settings, seed, progress=progress))


def batches(dataset: CAVMAEDataset) -> list[Sample]:
    """Cut a data set into full batches of `GALLERY`, or one smaller batch."""
    size = min(GALLERY, len(dataset))
    firsts = range(0, len(dataset) - size + 1, size)
    return [dataset.collate([dataset[index] for index in range(first, first + size)]) for first in firsts]


def means(
    settings: Settings, *, count: int = 512, progress: bool = True
) -> tuple[Float[Tensor, "frames mels"], Float[Tensor, "3 size size"]]:
    """Return means of each mel row and each pixel over `count` training clips."""
    dataset = _dataset(settings, *items_of(settings, None), Augmentation(), progress)
    fbanks, images, _ = dataset.collate([dataset[index] for index in range(min(count, len(dataset)))])
    return fbanks.mean(dim=(0, 1)).expand(fbanks.shape[1:]), images.mean(dim=0)


def items_of(settings: Settings, held_out_seed: int | None) -> tuple[list[Item], LabelTable]:
    """Training items, or with a seed held-out ones, and all classes."""
    own = settings.data
    most = MOST_HELD_OUT if own.held_out is None else own.held_out
    if own.data:
        items = read_items(own.data, own.folder)
        table = LabelTable.read(own.labels) if own.labels else LabelTable.of(items)
        test = [item for item in items if item.split == "test"]
        others = [item for item in items if item.split in ("train", "")]
        if test:
            return (others, test[:most])[held_out_seed is not None], table
        count = number_to_hold_out(own.held_out, len(others), most)
        return split(others, count, own.clips_seed)[held_out_seed is not None], table
    if held_out_seed is None:
        items = scene_items(own.clips, own.clips_seed, own.seconds)
    else:
        items = scene_items(most, HELD_OUT + held_out_seed, own.seconds)
    return items, LabelTable.of(scene_items(GALLERY))


def _dataset(
    settings: Settings, items: list[Item], table: LabelTable, augmentation: Augmentation | None, progress: bool
) -> CAVMAEDataset:
    own, sizes = settings.data, settings.sizes
    frames = own.frames if augmentation is None or own.data else own.training_frames
    dataset = CAVMAEDataset(
        items, table, augmentation, total_frames=frames, image_size=sizes.image_size,
        target_length=sizes.audio_length, n_mels=sizes.mel_bins, mean=own.mean, std=own.std, align=own.align,
        on_error=own.on_error, seed=settings.now.training.seed,
    )  # fmt: skip
    if not own.in_memory and own.on_error == "raise":
        return dataset
    mixup = bool(augmentation and augmentation.mixup)
    values = [frames, sizes.image_size, sizes.audio_length, sizes.mel_bins, list(map(repr, items))]
    if own.in_memory and not own.data and not mixup:  # sounds, which mixup mixes, are not worth space on disk
        return dataset.stored("cav_mae", values, progress=progress)
    read = dataset.prepared if own.in_memory else dataset.usable
    key = repr([values, mixup, own.in_memory, own.on_error, repr(table), written(_files(items))])
    return dataset.like(remembered(key, lambda: read(progress=progress)))


def build(settings: Settings, **how: Any) -> CAVMAE:
    """Build the model to pretrain; its random weights follow from the seed."""
    stage = settings.pretraining
    options = {name: getattr(stage, name) for name in ("norm_pix_loss", "both_directions", "gather_negatives")}
    with torch.random.fork_rng():
        torch.manual_seed(stage.training.seed)
        if stage.initialize:
            return CAVMAE.from_vit_mae(stage.initialize, **options, **asdict(settings.sizes))
        return CAVMAE(**options, **asdict(settings.sizes))


def classifier(settings: Settings, pretrained: Path | str, num_classes: int) -> CAVMAEClassifier:
    """Build the model to fine-tune: pretrained weights, and a random head that follows from the seed."""
    how = settings.fine_tuning
    with torch.random.fork_rng():
        torch.manual_seed(how.training.seed)
        model = CAVMAEClassifier.from_pretraining(pretrained, num_classes, audio_only=how.mode == "audioonly")
    if how.frozen:
        model.requires_grad_(False).mlp_head.requires_grad_(True)
    return model


def step(model: nn.Module, batch: Sample, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of pretraining and its computed parts. Masks come from `training.uniform`."""
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
    """Return the loss against soft labels, and the share of right classes."""
    logits = model(batch.fbank, batch.image, mode=settings.fine_tuning.mode)
    loss = {"bce": F.binary_cross_entropy_with_logits, "ce": F.cross_entropy}[settings.fine_tuning.loss]
    right = batch.labels.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1) == batch.labels.amax(dim=1)
    return loss(logits, batch.labels), {"right": right.float().mean()}


def inputs_of(batch: Sample, objective: str) -> dict[str, Any]:
    """Return the model's inputs. An objective may leave a modality out, or give a part of the loss weight 0."""
    return {"audio": batch.fbank, "image": batch.image} | OBJECTIVES[objective]


def patch_counts(settings: Settings) -> list[int]:
    """Return the numbers of patches of a sound and of a picture."""
    return [rows * columns for rows, columns in settings.sizes.grids.values()]


def _tuned(settings: Settings, **how: Any) -> CAVMAEClassifier:
    pretrained = trained(changed(settings, {"stage": "pretraining"}), **how).folder
    return classifier(settings, pretrained, len(items_of(settings, None)[1]))


def _sampler(settings: Settings, dataset: CAVMAEDataset) -> BalancedSampler | None:
    if not settings.fine_tuning.balanced:
        return None
    return BalancedSampler(balanced_weights(dataset.items, dataset.table), settings.fine_tuning.training.seed)


def _average(model: nn.Module, folder: Path, settings: Settings) -> None:
    """Fine-tuned models are published as the mean over epochs; a training that ends before these has no mean."""
    kept = [path for path in training.saved(folder) if int(path.name.split("-")[-1]) in settings.now.training.keep]
    if kept:
        model.load_state_dict(training.average(kept))


def _files(items: list[Item]) -> list[Path]:
    """The file of each of the user's clips, or that of its sound."""
    return [getattr(item, "path", None) or item.wav for item in items if not isinstance(item, SceneItem)]


def fitted(settings: Settings, *given: Mapping[str, Any]) -> Settings:
    """Return settings that fit the user's clips; see `systems.fitted_to`."""
    if not settings.data.data:
        return settings
    return fitted_to(settings, lambda own: _files(items_of(own, None)[0]), given, "pretraining", "fine_tuning")


def _recipe(settings: Settings) -> dict[str, Any]:
    """Settings that the weights follow from, with the user's files."""
    own, files = settings.data, written([settings.pretraining.initialize])
    if own.data:
        items = read_items(own.data, own.folder)
        files += written(_files(items))
        files += [list(map(repr, items)), repr(LabelTable.read(own.labels)) if own.labels else ""]
    return recipe(settings) | {"files": files}


stages = {
    "pretraining": Stage(
        data, build, step, _recipe, load=lambda folder, settings, **how: CAVMAE.from_checkpoint(folder), finish=_average
    ),
    "fine_tuning": Stage(
        data, _tuned, fine_tuning_step, _recipe, after=("pretraining",), sampler=_sampler, finish=_average,
        load=lambda folder, settings, **how: CAVMAEClassifier.from_checkpoint(folder),
    ),
}  # fmt: skip
trained = trained_by(stages, __name__)
