"""Settings of a training; names of the notes' README; `tiny` and `full`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import ClassVar, Literal

from ... import losses, training
from ...datasets.classification import Data
from ...errors import ParameterError
from ...models.classifiers import BACKBONES, Config
from ...settings import BelowOne, Count, Natural, NonNegative, Number, Share, settings

LOSSES = {
    "cross_entropy": "-log of the target class's probability; of a regression mse is taken",
    "mse": "squared error, of a regression",
    "bce": "binary cross entropy of each class, their mean; in class_balanced, with cb_form=sigmoid, their sum",
    "focal": "less weight for clips of which the model is sure: focal_gamma, focal_alpha, focal_form",
    "class_balanced": "weight of a class by its effective number of clips: beta, cb_form, cb_gamma",
    "balancing": "equal weight for the classes of each word: balancing_form, laplace, cap",
    "difficulty": "weight by the difficulty of the word: difficulty_strength, difficulty_table, normal_label",
    "contrastive": "cross entropy, and clips of one word and label alike: contrastive_weight, temperature",
    "pair_contrastive": "cross entropy, and pairs of clips of one word: contrastive_weight, margin",
}
OPTIMIZERS = {
    "adamw": "Adam, with weight decay apart from the gradient",
    "adam": "Adam, with weight decay in the gradient",
    "sgd": "the gradient with momentum",
    "sam": "a second gradient, where the loss is highest nearby: rho; it steps as sharp_base says",
    "asam": "the same, where nearby is measured by the size of each weight",
}
SCHEDULES = {
    "constant": "constant after the warm-up",
    "linear": "after the warm-up in a line down to min_learning_rate",
    "cosine": "as a cosine, `cycles` times, each from gamma times the top before",
    "multistep": "times gamma after each epoch of milestones",
}

# Arguments of the README that have another name here. Its --word is `words`, since `word` says how a model is
# conditioned on the word; beside --filter_dataset it is what it is there.
ALIASES = {
    "data_length": "seconds",
    "model_name": "backbone",
    "model_embedding": "age",
    "model_text_embedding": "word",
    "filter_dataset": {"word": "words"},
    "train_filename": "train_file",
    "valid_filename": "valid_file",
    "test_filename": "test_file",
    "no_shuffle": "shuffle",
    "test_best_model": "best",
    "lr": "learning_rate",
    "max_lr": "learning_rate",
    "scheduler": "schedule",
    "loss_fn": "loss",
    "scaling": "min_max",
    "num_cycles": "cycles",
    "min_lr": "min_learning_rate",
}
# Values as the README and its code call them, in lower case, by our names or by an alias that means the contrary.
_ROW = {"true": "row", "false": ""}
_LOSS = {"ce": "cross_entropy", "bce_logit": "bce", "cb": "class_balanced", "class balanced": "class_balanced"}
_BACKBONE = {"whisper": "whisper-base", "wav2vec2": "wav2vec2-base", "resnet": "resnet50"}
VALUES = {
    "age": _ROW,
    "word": _ROW,
    "no_shuffle": {"true": "false", "false": "true"},
    "optimizer": {name: name for name in OPTIMIZERS},
    "schedule": {"cosine_annealing": "cosine", **{name: name for name in SCHEDULES}},
    "backbone": {**_BACKBONE, **{name: name for name in BACKBONES}},
    "loss": {**_LOSS, **{name: name for name in LOSSES}},
}
_MASK = 10  # largest width of a mask in the README, in mel rows or columns


def choices() -> dict[str, dict[str, str]]:
    """Describe what can be chosen, by setting: losses, optimisers, schedules and backbones."""
    backbones = {
        name: f"{facts.takes}, width {facts.width}, {facts.published or 'no weights on the hub'}"
        for name, facts in BACKBONES.items()
    }
    return {"loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "backbone": backbones}


@settings
class Loss:
    """The loss; weights and counts come from the training part. `LOSSES` says which loss has which settings.

    label_smoothing: of cross entropy, also where it is weighted.
    focal_alpha: one number, or one for each class.
    cap: None: none.
    difficulty_table: its scores win over the rule.
    normal_label: the class of correct pronunciations.
    contrastive_weight: share of the contrastive loss; the rest is that of cross entropy.
    words_per_batch, clips_per_label: of contrastive batches, whose size they set. `words_per_batch` 0: as many as fit
        into the batch size, at most all words.
    """

    loss: Literal[*LOSSES] = "cross_entropy"
    label_smoothing: BelowOne = 0.0
    focal_gamma: NonNegative = 2.0
    focal_alpha: Number | Sequence[Number] | None = None
    focal_form: Literal[*losses.FOCAL_FORMS] = "softmax"
    beta: BelowOne = 0.999
    cb_form: Literal[*losses.CLASS_BALANCED_FORMS] = "softmax"
    cb_gamma: NonNegative = 1.0
    balancing_form: Literal[*losses.BALANCING_FORMS] = "balanced"
    laplace: NonNegative = 0.0
    cap: Number | None = 10.0
    difficulty_strength: Number = 1.0
    difficulty_table: Mapping[str, Number] = field(default_factory=dict)
    normal_label: str = "normal"
    contrastive_weight: Share = 0.2
    temperature: Number = 0.07
    margin: Number = 0.0
    words_per_batch: Natural = 0
    clips_per_label: Count = 2

    @property
    def contrasts(self) -> bool:
        """True if clips of a batch are compared with each other."""
        return self.loss in ("contrastive", "pair_contrastive")


@settings
class Augment:
    """SpecAugment on mel rows in training; masks take the mean of the clip.

    transform: both masks, of the README's width, unless a width is given.
    time_mask, freq_mask: limit of a mask's width in columns or mel rows; 0 for none. True: the README's width.
    time_masks, freq_masks: number of masks.
    """

    transform: bool = False
    time_mask: Natural | bool = 0
    freq_mask: Natural | bool = 0
    time_masks: Natural = 1
    freq_masks: Natural = 1

    def __post_init__(self):
        wanted = self.transform and not (self.time_mask or self.freq_mask)
        for name in ("time_mask", "freq_mask"):
            if wanted or getattr(self, name) is True:
                object.__setattr__(self, name, _MASK)

    @property
    def on(self) -> bool:
        return bool(self.time_mask and self.time_masks) or bool(self.freq_mask and self.freq_masks)


@settings
class Settings:
    """Everything that a training follows from.

    `ALIASES` are the README's names. Steps that are given alone win over epochs that were set, and a warm-up in steps
    over its share (`INSTEAD`).

    task: "classification" or "regression".
    model: the network. Its words, ages and outputs follow from the data.
    weights: a file, folder or hub id with the backbone's published weights; "": random ones.
    data_type: "wave" or "spectrogram", which follows from the backbone; another one is ignored with a warning.
    epochs: passes over all clips, in whole batches of which the last goes on with the next pass; but no more steps than
        `steps` if both are given. 0: as many steps as these. Contrastive batches that are not whole are left out.
        With an `evaluate_every` of 0 there is an evaluation after each pass.
    warmup_ratio: share of all steps in which the rate rises; None: the training's `warmup`, which it wins over.
    checkpoint: a folder, to which the trained model is written; with `test`, the model that is read.
    test: evaluate `checkpoint` without training.
    debug: a few clips, a few steps, and the shapes of all tensors printed.
    """

    ALIASES: ClassVar[Mapping[str, str | Mapping[str, str]]] = ALIASES
    VALUES: ClassVar[Mapping[str, Mapping[str, object]]] = VALUES
    INSTEAD: ClassVar[Mapping[str, Mapping[str, object]]] = {"steps": {"epochs": 0}, "warmup": {"warmup_ratio": None}}

    FREE: ClassVar[tuple[str, ...]] = ("checkpoint", "test", "data_type")  # change no weights

    task: Literal["classification", "regression"] = "classification"
    data: Data = field(default_factory=Data)
    model: Config = field(default_factory=Config)
    loss: Loss = field(default_factory=Loss)
    augment: Augment = field(default_factory=Augment)
    training: training.Settings = field(default_factory=training.Settings)
    weights: str = ""
    data_type: Literal["", "wave", "spectrogram"] = ""
    epochs: Natural = 0
    warmup_ratio: BelowOne | None = None
    checkpoint: str = ""
    test: bool = False
    debug: bool = False

    def __post_init__(self):
        if self.test and not self.checkpoint:
            raise ParameterError("checkpoint", "none is given", "the folder of a trained model, where test is on")
        loss, regression = self.loss.loss, self.task == "regression"
        if regression and loss not in ("cross_entropy", "mse"):  # the first is the default, and means mse there
            raise ParameterError("loss", repr(loss), '"mse" where task is "regression"')
        if not regression and loss == "mse":
            raise ParameterError("loss", repr(loss), "another one, or task=regression")
        if self.augment.on and not self.model.facts.rows:
            found, advice = f"with {self.model.backbone}, which takes waveforms", "Leave out transform and masks."
            raise ParameterError("time_mask, freq_mask", found, "a backbone of spectrograms", advice)


# The README's defaults: Wav2Vec2 base, ten epochs, with its learning rate and schedule.
full = Settings(
    epochs=10,
    warmup_ratio=0.1,
    training=training.Settings(
        batch_size=16, learning_rate=3e-5, schedule="linear", seed=42, betas=(0.9, 0.999), decay_vectors=False,
        steps=1_000_000, monitor="valid loss", min_delta=1e-6, workers=4,
    ),
)  # fmt: skip

# Half a minute on two CPU cores: words of the built-in corpus, pronounced normally or not, in noise as loud as the
# voice or less: so that some are predicted wrongly (UAR about 0.83).
tiny = Settings(
    data=Data(pad="longest", snr=(-5.0, 10.0)),
    model=Config(backbone="whisper-base", small=True, word="auto", standardize=True),
    epochs=30,
    warmup_ratio=0.1,
    training=training.Settings(
        batch_size=32, learning_rate=2e-3, schedule="cosine", betas=(0.9, 0.98), decay_vectors=False,
        steps=3000, monitor="valid loss", min_delta=1e-6, save_every=200,
    ),
)  # fmt: skip
