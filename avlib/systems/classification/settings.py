"""Everything that a classifier or regressor of recordings follows from: data, model, loss, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ... import losses, training
from ...clips.speech import AGES
from ...datasets.classification import CROPS, PADS
from ...errors import ParameterError, check_choice
from ...models.classifiers import BACKBONES, KINDS, TASKS
from ...workers import POLICIES
from .names import ALIASES, LOSSES, VALUES

_MASK = 10  # mel rows, and columns, that a mask of the README hides at most


def _share(name: str, value: float | int, below: float | int = 1.0) -> None:
    if not 0 <= value < below:
        raise ParameterError(name, f"{value}", f"0 or more, and less than {below:g}")


def _least(of: object, least: Mapping[str, float | int]) -> None:
    for name, lowest in least.items():
        if not getattr(of, name) >= lowest:
            raise ParameterError(name, f"{getattr(of, name)}", f"{lowest} or more")


@dataclass(frozen=True)
class Data:
    """What is learned from.

    data: a table of recordings (`read_recordings`), or a folder with one sub-folder for each class; "" takes the
        built-in corpus.
    target: the column to be told; "" is "label", or of a folder its sub-folders.
    order: the classes, or the steps of a regression, in their order; empty sorts them.
    word_column, age_column, speaker_column: where the table has them, if it has; see `read_recordings`.
    group: the column whose clips stay together when they are split; "" is the speaker.
    words: only clips of these words; empty for all.
    filter_dataset: of the README: whether there are such words. None: as they say.
    train_file, valid_file, test_file: tables of parts that are given; `valid_file` may be left out.
    splitted_data_files: of the README: whether they are given. None: as they say.
    test_size, valid_size: shares of all clips. 0: no such part.
    k_fold: how many folds what is not in the test part is cut into, for `cross_validated`; 0: no folds.
    fold: which of them is for validation, from 0; `valid_size` is not used then.
    shuffle: off leaves clips in the order of the table, in the split and in training.
    split_seed: of the split; None: the training's seed.
    seconds: what is heard of a clip at most.
    crop: where of a longer clip: "start", "centre", or "random", anew in each epoch of training ("centre" elsewhere).
    pad: "full": silence up to `seconds`; "longest": up to the longest clip, if that is shorter.
    ages: in years; a clip's age is that of them which is nearest.
    on_error: "raise" or "skip", for clips that cannot be used.
    num_words, speakers, takes, abnormal, snr, clips_seed: of the built-in corpus, see `avlib.clips.speech.corpus`.
    """

    data: str = ""
    target: str = ""
    order: Sequence[str] = ()
    word_column: str = "word"
    age_column: str = "age"
    speaker_column: str = "speaker"
    group: str = ""
    words: Sequence[str] = ()
    filter_dataset: bool | None = None
    train_file: str = ""
    valid_file: str = ""
    test_file: str = ""
    splitted_data_files: bool | None = None
    test_size: float | int = 0.3
    valid_size: float | int = 0.2
    k_fold: int = 0
    fold: int = 0
    shuffle: bool = True
    split_seed: int | None = None
    seconds: float | int = 3.0
    crop: str = "start"
    pad: str = "full"
    ages: Sequence[float | int] = AGES
    on_error: str = "raise"
    num_words: int = 8
    speakers: int = 48
    takes: int = 2
    abnormal: float | int = 0.5
    snr: Sequence[float | int] = (5.0, 20.0)
    clips_seed: int = 0

    def __post_init__(self):
        check_choice("crop", self.crop, CROPS)
        check_choice("pad", self.pad, PADS)
        check_choice("on_error", self.on_error, POLICIES)
        self._agree("filter_dataset", "words", bool(self.words))
        self._agree("splitted_data_files", "train_file and test_file", bool(self.train_file and self.test_file))
        for name in ("test_size", "valid_size"):
            _share(name, getattr(self, name))
        if not self.test_size + self.valid_size < 1:
            found = f"{self.test_size} and {self.valid_size}"
            raise ParameterError("test_size, valid_size", found, "less than 1 together", "The rest is trained on.")
        if not self.seconds > 0:
            raise ParameterError("seconds", f"{self.seconds}", "more than 0")
        if self.k_fold < 0 or self.k_fold == 1:
            raise ParameterError("k_fold", f"{self.k_fold}", "2 or more, or 0 for none")
        if not 0 <= self.fold < max(1, self.k_fold):
            raise ParameterError("fold", f"{self.fold}", f"0 to {max(1, self.k_fold) - 1}")
        if bool(self.train_file) != bool(self.test_file):
            lacking = "test_file" if self.train_file else "train_file"
            raise ParameterError(lacking, "none is given", "both train_file and test_file, or none of the two")
        if self.valid_file and not self.train_file:
            raise ParameterError("train_file", "none is given", "what is trained on, where valid_file is given")
        if self.train_file and self.k_fold:
            raise ParameterError("k_fold", f"{self.k_fold}, where train_file and test_file are given", "0")
        if self.train_file and self.data:
            raise ParameterError("data", "given together with train_file", "one of the two")

    def _agree(self, switch: str, what: str, given: bool) -> None:
        """Refuse a switch of the README that says otherwise than what goes with it; one that agrees says nothing."""
        on = getattr(self, switch)
        if on not in (None, given):
            found = f"{str(on).lower()}, where {what} {'are' if given else 'are not'} given"
            raise ParameterError(switch, found, f"{what} as well" if on else "true, or neither")
        object.__setattr__(self, switch, None)


@dataclass(frozen=True)
class Model:
    """The network; see `AudioClassifier`, whose names these are.

    backbone: see `choices`.
    small: sizes that a CPU trains in a minute; off: the published ones.
    word, age: how the model is told the word that is said and the speaker's age: "" not at all; "row", "one_hot_rows"
        (of spectrograms), "embedding", "film" or "heads". "auto": "heads" where there are several words.
    n_mels, hop_length, n_fft: of the spectrogram; None: the backbone's own.
    mel: "whisper", what Whisper was trained on, or "torchaudio", that package's defaults; "": the backbone's own.
    pooling: "mean" or "attention" over time.
    layer_sum: a learned mean of all layers in the place of the last one.
    projection: width between pooling and the last layer.
    activation: behind the projection: "", "gelu" or "relu". Published: none.
    dropout: of the projection's input.
    age_momentum, word_scale: what the values in rows are multiplied with.
    min_max: each spectrogram from 0 to 1, before rows are added.
    standardize: each mel row to the mean 0 and deviation 1 that it has over the training part; of spectrograms alone.
    freeze: "" nothing, "features" what is before the transformer, "all" the whole backbone, or a number of layers.
    weights: a file, folder or hub id with the backbone's published weights; "": random ones.
    norm: "group" or "layer", of a small Wav2Vec2 or HuBERT; "": as the full one has.
    data_type: "wave" or "spectrogram", which follows from the backbone; another one is warned of, and not heeded.
    """

    backbone: str = "wav2vec2-base"
    small: bool = False
    word: str = ""
    age: str = ""
    n_mels: int | None = None
    hop_length: int | None = None
    n_fft: int | None = None
    mel: str = ""
    pooling: str = "mean"
    layer_sum: bool = False
    projection: int = 256
    activation: str = ""
    dropout: float | int = 0.0
    age_momentum: float | int = 1.0
    word_scale: float | int = 1.0
    min_max: bool = False
    standardize: bool = False
    freeze: str | int = ""
    weights: str = ""
    norm: str = ""
    data_type: str = ""

    def __post_init__(self):
        check_choice("backbone", self.backbone, BACKBONES)
        if self.word not in (ways := ("", "auto", *KINDS)):
            advice = "To train on some words only, give `words`."
            raise ParameterError("word", repr(self.word), f"one of {', '.join(map(repr, ways))}", advice)
        check_choice("age", self.age, ("", *KINDS))
        check_choice("data_type", self.data_type, ("", "wave", "spectrogram"))
        if isinstance(self.freeze, str) and self.freeze.strip().isdigit():
            object.__setattr__(self, "freeze", int(self.freeze))  # text from the command line


@dataclass(frozen=True)
class Loss:
    """What is made small; weights and counts come from the training part.

    loss: see `choices`. "contrastive" and "pair_contrastive" are added to cross entropy, and have their own sampler.
    label_smoothing: of cross entropy, also where it is weighted.
    focal_gamma, focal_alpha, focal_form: see `focal_loss`. `focal_alpha` is one number, or one for each class.
    beta, cb_form, cb_gamma: see `class_balanced_weights` and `class_balanced_loss`.
    balancing_form, laplace, cap: see `balancing_weights`; `cap` None: none.
    difficulty_strength, difficulty_table: see `difficulty_weights`; scores by word win over the rule.
    normal_label: of "difficulty", the class that is said rightly; the other one is not.
    contrastive_weight: share of the contrastive loss; the rest is that of cross entropy.
    temperature: of "contrastive"; margin: of "pair_contrastive".
    words_per_batch, clips_per_label: of the batches that contrast needs, which set the batch size. `words_per_batch`
        0: as many as make the batch size, at most all words.
    """

    loss: str = "cross_entropy"
    label_smoothing: float | int = 0.0
    focal_gamma: float | int = 2.0
    focal_alpha: float | int | Sequence[float | int] | None = None
    focal_form: str = "softmax"
    beta: float | int = 0.999
    cb_form: str = "softmax"
    cb_gamma: float | int = 1.0
    balancing_form: str = "balanced"
    laplace: float | int = 0.0
    cap: float | int | None = 10.0
    difficulty_strength: float | int = 1.0
    difficulty_table: Mapping[str, float | int] = field(default_factory=dict)
    normal_label: str = "normal"
    contrastive_weight: float | int = 0.2
    temperature: float | int = 0.07
    margin: float | int = 0.0
    words_per_batch: int = 0
    clips_per_label: int = 2

    def __post_init__(self):
        check_choice("loss", self.loss, LOSSES)
        check_choice("focal_form", self.focal_form, losses.FOCAL_FORMS)
        check_choice("cb_form", self.cb_form, losses.CLASS_BALANCED_FORMS)
        check_choice("balancing_form", self.balancing_form, losses.BALANCING_FORMS)
        _share("label_smoothing", self.label_smoothing)
        _share("beta", self.beta)
        if not 0 <= self.contrastive_weight <= 1:
            raise ParameterError("contrastive_weight", f"{self.contrastive_weight}", "0 to 1")
        _least(self, {"focal_gamma": 0, "cb_gamma": 0, "laplace": 0, "words_per_batch": 0, "clips_per_label": 1})

    @property
    def contrasts(self) -> bool:
        """Whether clips of a batch are compared with each other."""
        return self.loss in ("contrastive", "pair_contrastive")


@dataclass(frozen=True)
class Augment:
    """SpecAugment, on the mel rows of spectrograms, in training alone; what is masked becomes the mean of the clip.

    transform: both masks, of the README's width, unless a width is given.
    time_mask, freq_mask: how many columns or mel rows a mask hides at most; 0 for none. True: the README's width.
    time_masks, freq_masks: how many masks there are.
    """

    transform: bool = False
    time_mask: int | bool = 0
    freq_mask: int | bool = 0
    time_masks: int = 1
    freq_masks: int = 1

    def __post_init__(self):
        _least(self, dict.fromkeys(("time_mask", "freq_mask", "time_masks", "freq_masks"), 0))
        wanted = self.transform and not (self.time_mask or self.freq_mask)
        for name in ("time_mask", "freq_mask"):
            if wanted or getattr(self, name) is True:
                object.__setattr__(self, name, _MASK)

    @property
    def on(self) -> bool:
        return bool(self.time_mask and self.time_masks) or bool(self.freq_mask and self.freq_masks)


@dataclass(frozen=True)
class Settings:
    """Everything that a training follows from. See `changed`; `ALIASES` are the README's names, and by `INSTEAD` who
    gives steps alone means these, not the epochs that were set; likewise a warm-up in steps.

    task: "classification" or "regression".
    epochs: how often each clip is trained on at least, in whole batches of which the last goes on with the next round;
        but no more steps than `steps` where both are given. 0: as these say. For contrast, batches that would not be
        whole are left out.
    warmup_ratio: of all steps, while the rate rises; None: the training's `warmup`, which it wins over.
    checkpoint: a folder. Where the trained model is written; with `test`, the model that is read.
    test: nothing is trained, `checkpoint` is evaluated.
    debug: a few clips, a few steps, and the shapes of all tensors printed.
    """

    ALIASES: ClassVar[Mapping[str, str | Mapping[str, str]]] = ALIASES
    VALUES: ClassVar[Mapping[str, Mapping[str, object]]] = VALUES

    INSTEAD: ClassVar[Mapping[str, Mapping[str, object]]] = {"steps": {"epochs": 0}, "warmup": {"warmup_ratio": None}}

    task: str = "classification"
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    augment: Augment = field(default_factory=Augment)
    training: training.Settings = field(default_factory=training.Settings)
    epochs: int = 0
    warmup_ratio: float | int | None = None
    checkpoint: str = ""
    test: bool = False
    debug: bool = False

    def __post_init__(self):
        check_choice("task", self.task, TASKS)
        _least(self, {"epochs": 0})
        if self.warmup_ratio is not None:
            _share("warmup_ratio", self.warmup_ratio)
        if self.test and not self.checkpoint:
            raise ParameterError("checkpoint", "none is given", "the folder of a trained model, where test is on")
        loss, regression = self.loss, self.task == "regression"
        if regression and loss.loss not in ("cross_entropy", "mse"):  # the first is the default, and means mse there
            raise ParameterError("loss", repr(loss.loss), '"mse" where task is "regression"')
        if not regression and loss.loss == "mse":
            raise ParameterError("loss", repr(loss.loss), "another one, or task=regression")
        if self.augment.on and not BACKBONES[self.model.backbone].rows:
            found, advice = f"with {self.model.backbone}, which hears waveforms", "Leave out transform and masks."
            raise ParameterError("time_mask, freq_mask", found, "a backbone of spectrograms", advice)


# What the README says by default: Wav2Vec2 base, ten times all clips, with its learning rate and schedule.
full = Settings(
    epochs=10,
    warmup_ratio=0.1,
    training=training.Settings(
        batch_size=16, learning_rate=3e-5, schedule="linear", seed=42, betas=(0.9, 0.999), decay_vectors=False,
        steps=1_000_000, monitor="valid loss", min_delta=1e-6, workers=4,
    ),
)  # fmt: skip

# What two CPU cores learn in half a minute: words of the built-in corpus, said rightly or wrongly.
tiny = Settings(
    data=Data(pad="longest"),
    model=Model(backbone="whisper-base", small=True, word="auto", standardize=True),
    epochs=30,
    warmup_ratio=0.1,
    training=training.Settings(
        batch_size=32, learning_rate=2e-3, schedule="cosine", betas=(0.9, 0.98), decay_vectors=False,
        steps=3000, monitor="valid loss", min_delta=1e-6, save_every=200,
    ),
)  # fmt: skip
