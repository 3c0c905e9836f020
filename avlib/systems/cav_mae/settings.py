"""Everything that a CAV-MAE follows from: sizes, data, and the two stages of its training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ... import training
from ...datasets.cav_mae import FINE_TUNING, PRETRAINING, Augmentation
from ...errors import ParameterError
from ...masking import MASK_MODES
from ...models.cav_mae import CLASSIFIER_MODES, OBJECTIVES, Sizes

STAGES = ("pretraining", "fine_tuning")
GALLERY = 64  # held-out clips are searched in galleries of so many; of built-in scenes each has eight of a kind
HELD_OUT = 1000  # scenes of this seed and above are never trained on


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ParameterError(name, repr(value), f"one of {', '.join(map(repr, choices))}")


@dataclass(frozen=True)
class Data:
    """What is learned from.

    data: a folder of clips, or a .csv or .json that lists them (`read_items`); "" takes built-in scenes.
    labels: the table of the classes; "" takes the labels that the items have.
    held_out: how many clips are for evaluation: of those in `data`, or scenes besides those that are trained on.
    clips, seconds: number and duration of the scenes that are trained on.
    clips_seed: which scenes these are; with `data`, which clips are held out.
    frames: in how many parts a clip shows its pictures; in training `training_frames`.
    mean, std: by which spectrograms are normalised.
    in_memory: whether everything is read before the first step.
    on_error: "raise" or "skip", for clips that cannot be used.
    """

    data: str = ""
    labels: str = ""
    held_out: int = 5 * GALLERY
    clips: int = 4096
    seconds: float | int = 10.0
    clips_seed: int = 0
    frames: int = 10
    training_frames: int = 10
    mean: float | int = -5.081
    std: float | int = 4.4849
    in_memory: bool = False
    on_error: str = "raise"

    def __post_init__(self):
        if not 0 <= self.clips_seed < HELD_OUT:
            raise ParameterError("clips_seed", f"{self.clips_seed}", f"0 to {HELD_OUT - 1}; others are held out")


@dataclass(frozen=True)
class Pretraining:
    """The first stage. `objective` is one of the model's `OBJECTIVES`; what that leaves out, no weight brings back."""

    objective: str = "CAV-MAE"
    mae_weight: float | int = 1.0
    contrast_weight: float | int = 0.01
    both_directions: bool = False
    gather_negatives: bool = False
    norm_pix_loss: bool = True
    mask_ratio_audio: float | int = 0.75
    mask_ratio_image: float | int = 0.75
    mask_mode: str = "unstructured"
    augmentation: Augmentation = PRETRAINING
    training: training.Settings = field(default_factory=training.Settings)

    def __post_init__(self):
        _check_choice("objective", self.objective, OBJECTIVES)
        _check_choice("mask_mode", self.mask_mode, MASK_MODES)


@dataclass(frozen=True)
class FineTuning:
    """The second stage, which begins with the pretrained weights.

    labelled: how many of the training clips have labels; 0 for all.
    loss: "bce" for several labels of a clip (AudioSet), "ce" for one (VGGSound).
    mode: what of a clip the model sees.
    frozen: train the head alone.
    """

    labelled: int = 0
    loss: str = "bce"
    mode: str = "multimodal"
    frozen: bool = False
    augmentation: Augmentation = FINE_TUNING
    training: training.Settings = field(default_factory=training.Settings)

    def __post_init__(self):
        _check_choice("loss", self.loss, ("bce", "ce"))
        _check_choice("mode", self.mode, CLASSIFIER_MODES)


@dataclass(frozen=True)
class Settings:
    """Everything that a training follows from. `stage` is the last one that is trained. See `changed`."""

    stage: str = "pretraining"
    sizes: Sizes = field(default_factory=Sizes)
    data: Data = field(default_factory=Data)
    pretraining: Pretraining = field(default_factory=Pretraining)
    fine_tuning: FineTuning = field(default_factory=FineTuning)

    def __post_init__(self):
        _check_choice("stage", self.stage, STAGES)

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
