"""Which backbones there are, and the settings of a classifier."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from torch import nn

from ...errors import ParameterError, check_choice, did_you_mean
from ...features import (
    BEATS_MELS,
    FILTERS,
    RESNET_N_FFT,
    RESNET_SIZE,
    SAMPLE_RATE,
    WHISPER_HOP,
    WHISPER_MELS,
    WHISPER_N_FFT,
    resnet_hop_length,
)
from .pooling import POOLINGS

SMALL_LAYERS = 2  # of a small transformer


@dataclass(frozen=True)
class Facts:
    """What a backbone is: sizes as published, what it takes, and where its weights are."""

    family: str
    width: int
    layers: int
    heads: int
    rows: int  # of the spectrogram that it takes; 0: it takes the waveform
    norm: str  # what its first convolutions normalise by; "group" runs over time, and so over the padding
    published: str  # on the Hugging Face hub

    @property
    def takes(self) -> str:
        """What the notes' README calls `data_type`."""
        return "spectrogram" if self.rows else "wave"


BACKBONES = {
    "whisper-tiny": Facts("whisper", 384, 4, 6, WHISPER_MELS, "", "openai/whisper-tiny"),
    "whisper-base": Facts("whisper", 512, 6, 8, WHISPER_MELS, "", "openai/whisper-base"),
    "whisper-small": Facts("whisper", 768, 12, 12, WHISPER_MELS, "", "openai/whisper-small"),
    "whisper-medium": Facts("whisper", 1024, 24, 16, WHISPER_MELS, "", "openai/whisper-medium"),
    "whisper-large-v3": Facts("whisper", 1280, 32, 20, 128, "", "openai/whisper-large-v3"),
    "wav2vec2-base": Facts("wav2vec2", 768, 12, 12, 0, "group", "facebook/wav2vec2-base"),
    "wav2vec2-large-lv60": Facts("wav2vec2", 1024, 24, 16, 0, "layer", "facebook/wav2vec2-large-lv60"),
    "hubert-base": Facts("hubert", 768, 12, 12, 0, "group", "facebook/hubert-base-ls960"),
    "hubert-large": Facts("hubert", 1024, 24, 16, 0, "layer", "facebook/hubert-large-ll60k"),
    "resnet50": Facts("resnet", 2048, 4, 0, RESNET_SIZE, "batch", "timm/resnet50.a1_in1k"),
    "ast": Facts("ast", 768, 12, 12, 128, "", "MIT/ast-finetuned-audioset-10-10-0.4593"),
    "beats": Facts("beats", 768, 12, 12, BEATS_MELS, "", ""),  # not on the hub: see this project's README
}

TASKS = ("classification", "regression")
KINDS = ("row", "one_hot_rows", "embedding", "film", "heads")
ROW_KINDS = ("row", "one_hot_rows")
ACTIVATIONS = {"": nn.Identity, "gelu": nn.GELU, "relu": nn.ReLU}
_CHOICES = {
    "backbone": BACKBONES,
    "task": TASKS,
    "pooling": POOLINGS,
    "activation": ACTIVATIONS,
    "mel": ("", *FILTERS),
    "norm": ("", "group", "layer"),
}
_LEAST = {
    "num_words": 1, "num_ages": 1, "n_mels": 1, "hop_length": 1, "n_fft": 2, "projection": 1, "condition_width": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings of an `AudioClassifier`. What is left open (None, "") is decided here, and then stands in it.

    Args:
        backbone: one of `BACKBONES`.
        num_outputs: classes; None is 2. A regressor has 1.
        task: "classification" or "regression".
        conditions: of "word" and "age", in which way the model is told of it: "row" (as in the notes' README: a
            constant row under the mel rows), "one_hot_rows" (a row for each word or age, 1 in that of the clip),
            "embedding" (a learned vector beside the pooled features, and a non-linear layer over both), "film" (a
            learned scale and shift of the pooled features), "heads" (an output layer of its own for each).
        small: a network of the same layout that a CPU trains in a minute.
        num_words: how many words a condition knows.
        num_ages: how many ages; 14 half years as in the notes' README.
        n_mels: mel rows. None: as many as the backbone takes, less the rows of conditions. More than it takes are cut
            to that, with a warning. Where rows are left, they are filled with the age.
        hop_length: samples from one column to the next. None: 160 for Whisper; for ResNet the hop that makes 224
            columns of `seconds`. Backbones other than these two have their own.
        n_fft: likewise; None: 400 for Whisper, 1024 for ResNet.
        mel: filters, "whisper" or "torchaudio". "": Whisper's own for Whisper, torchaudio's for ResNet.
        seconds: the length to which clips are padded for ResNet, whose columns depend on it.
        pooling: of frames: "mean", or "attention" (attentive statistics: weighted mean and deviation).
        layer_sum: a learned weighted sum of all layers instead of the last one.
        projection: width of the embedding between pooling and output.
        activation: after the projection; "" is none, as in the notes' README, whose two layers are one linear map.
        dropout: of the embedding, in training.
        condition_width: of an embedded condition.
        age_momentum: what the age's row, or rows, are multiplied by.
        word_scale: what the word's row, or rows, are multiplied by.
        min_max: scale each clip's spectrogram to 0 to 1, before rows are added; of ResNet padding counts.
        standardize: bring each mel row to the mean 0 and the deviation 1 that it has over many clips, which
            `AudioClassifier.standardize` is given; for networks that are trained from nothing.
        freeze: "" nothing, "all" the backbone, "features" its first convolutions, n these and the first n layers.
        masked: leave padding out where `lengths` are given, as far as the backbone can.
        norm: of the first convolutions of a small Wav2Vec2 or HuBERT; "": as the full one has.

    Raises:
        ParameterError: an unknown value, numbers out of range, or settings that do not go together.
    """

    backbone: str = "whisper-base"
    num_outputs: int | None = None
    task: str = "classification"
    conditions: Mapping[str, str] = field(default_factory=dict)
    small: bool = False
    num_words: int = 80
    num_ages: int = 14
    n_mels: int | None = None
    hop_length: int | None = None
    n_fft: int | None = None
    mel: str = ""
    seconds: float | int = 3.0
    pooling: str = "mean"
    layer_sum: bool = False
    projection: int = 256
    activation: str = ""
    dropout: float | int = 0.0
    condition_width: int = 64
    age_momentum: float | int = 1.0
    word_scale: float | int = 1.0
    min_max: bool = False
    standardize: bool = False
    freeze: str | int = ""
    masked: bool = True
    norm: str = ""

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ParameterError(name, f"{value}", f"{least} or more")
        if not 0 <= self.dropout < 1:
            raise ParameterError("dropout", f"{self.dropout}", "0 or more, and less than 1")
        if not round(self.seconds * SAMPLE_RATE) >= 1:
            raise ParameterError("seconds", f"{self.seconds}", "at least one sample")
        self._decide("conditions", dict(self.conditions))
        self._settle_outputs()
        self._settle_conditions()
        self._settle_features()
        self._settle_norm()
        self._check_freeze()
        if self.layer_sum and self.facts.family == "resnet":
            raise ParameterError("layer_sum", "True with resnet50", "False: its stages have different shapes")

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Config:
        """The same from names and values, of which an unknown one is an error that names the nearest."""
        known = [f.name for f in fields(cls)]
        for name in settings:
            if name not in known:
                advice = did_you_mean(name, known, 3) or f"There are {', '.join(known)}."
                raise ParameterError(name, "no such setting of AudioClassifier", "one of its settings", advice)
        return cls(**settings)

    @property
    def facts(self) -> Facts:
        return BACKBONES[self.backbone]

    def count(self, condition: str) -> int:
        """How many words, or ages, there are."""
        return self.num_words if condition == "word" else self.num_ages

    def rows_of(self, condition: str) -> int:
        """Rows of the spectrogram that a condition takes."""
        return {"row": 1, "one_hot_rows": self.count(condition)}.get(self.conditions.get(condition, ""), 0)

    @property
    def fill_rows(self) -> int:
        """Rows that neither mel bins nor conditions take: the age fills them."""
        if not self.facts.rows:
            return 0
        return self.facts.rows - self.n_mels - self.rows_of("word") - self.rows_of("age")

    @property
    def needs(self) -> tuple[str, ...]:
        """What has to be handed over beside the sound, of "word" and "age"."""
        return tuple(name for name in ("word", "age") if name in self.conditions or (name == "age" and self.fill_rows))

    def _decide(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _settle_outputs(self) -> None:
        regression = self.task == "regression"
        if self.num_outputs is None:
            self._decide("num_outputs", 1 if regression else 2)
        if self.num_outputs < 1 or (regression and self.num_outputs != 1):
            raise ParameterError("num_outputs", f"{self.num_outputs}", "1 for a regression" if regression else ">= 1")

    def _settle_conditions(self) -> None:
        for name, kind in self.conditions.items():
            check_choice("conditions", name, ("word", "age"))
            check_choice(f'conditions["{name}"]', kind, KINDS)
            if kind in ROW_KINDS and not self.facts.rows:
                found = f"{kind!r} with {self.backbone}, which takes the waveform"
                raise ParameterError(f'conditions["{name}"]', found, "embedding, film or heads", "It has no rows.")

    def _settle_features(self) -> None:
        facts = self.facts
        own_columns = facts.family in ("whisper", "resnet")
        for name in ("hop_length", "n_fft", "mel"):
            if getattr(self, name) and not own_columns:
                found = f"{getattr(self, name)!r} with {self.backbone}"
                raise ParameterError(name, found, "nothing: this backbone has its own", "Leave it out.")
        if not facts.rows:
            for name in ("n_mels", "min_max", "standardize"):
                if getattr(self, name):
                    found = f"{getattr(self, name)} with {self.backbone}, which takes the waveform"
                    raise ParameterError(name, found, "nothing", "Leave it out, or take another backbone.")
            return
        self._settle_rows()
        if own_columns:
            whisper = facts.family == "whisper"
            samples = round(self.seconds * SAMPLE_RATE)
            hop = self.hop_length or (WHISPER_HOP if whisper else resnet_hop_length(samples))
            self._decide("hop_length", hop)
            self._decide("n_fft", self.n_fft or (WHISPER_N_FFT if whisper else RESNET_N_FFT))
            self._decide("mel", self.mel or ("whisper" if whisper else "torchaudio"))

    def _settle_rows(self) -> None:
        """Mel rows, and those of conditions, are together as many as the backbone takes."""
        rows, extra = self.facts.rows, self.rows_of("word") + self.rows_of("age")
        if extra >= rows:
            raise ParameterError(
                "conditions", f"{extra} rows of words and ages", f"fewer than the {rows} rows of {self.backbone}",
                "Take fewer words, or another kind of condition.",
            )  # fmt: skip
        if self.n_mels is None:
            self._decide("n_mels", rows - extra)
        elif self.n_mels > rows:
            found = f"n_mels {self.n_mels} is more than the {rows} rows of {self.backbone}"
            warnings.warn(f"{found}; {rows - extra} are used", UserWarning, stacklevel=7)
            self._decide("n_mels", rows - extra)
        both = self.rows_of("word") and self.rows_of("age")
        if self.n_mels + extra > rows or (both and self.n_mels + extra < rows):
            found = f"{self.n_mels} mel rows and {extra} rows of conditions are {self.n_mels + extra}"
            raise ParameterError(
                "n_mels", found, f"together the {rows} of {self.backbone}", f"Set n_mels={rows - extra}."
            )

    def _settle_norm(self) -> None:
        if self.facts.family not in ("wav2vec2", "hubert"):
            if self.norm:
                raise ParameterError("norm", f"{self.norm!r} with {self.backbone}", "nothing: it has no such choice")
            return
        if self.norm not in ("", self.facts.norm) and not self.small:
            found = f"{self.norm!r} with {self.backbone}"
            raise ParameterError("norm", found, f"{self.facts.norm!r}, as published", "Only a small one can choose.")
        self._decide("norm", self.norm or self.facts.norm)

    def _check_freeze(self) -> None:
        depth = SMALL_LAYERS if self.small and self.facts.family != "resnet" else self.facts.layers
        fits = 0 <= self.freeze <= depth if isinstance(self.freeze, int) else self.freeze in ("", "all", "features")
        if not fits or isinstance(self.freeze, bool):
            expected = f'"", "all", "features" or a number of layers from 0 to {depth}'
            raise ParameterError("freeze", repr(self.freeze), expected)
