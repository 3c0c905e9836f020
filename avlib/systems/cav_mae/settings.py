"""Settings of CAV-MAE: sizes, data, and the two stages of its training."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from ... import training
from ...datasets.cav_mae import FINE_TUNING, PRETRAINING, Augmentation, Data
from ...masking import MASK_MODES
from ...models.cav_mae import CLASSIFIER_MODES, OBJECTIVES, Sizes
from ...settings import Natural, NonNegative, Share, settings

STAGES = ("pretraining", "fine_tuning")
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
    mode: what the model sees of a clip; "audioonly" trains the audio half by itself.
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
    def now(self) -> Pretraining | FineTuning:
        """The stage that is trained."""
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
