"""Backbones of classifiers, and the settings of a classifier."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ...errors import ParameterError, check_choice
from ...features import SAMPLE_RATE, WHISPER_HOP, WHISPER_N_FFT, resnet_hop_length
from ...features.spectrograms import BEATS_MELS, RESNET_N_FFT, RESNET_SIZE, WHISPER_MELS
from ...settings import BelowOne, Count, Number, Positive, settings

SMALL_LAYERS = 2  # of a small transformer


@dataclass(frozen=True)
class Facts:
    """Published sizes of a backbone, its input, and where its weights are."""

    family: str
    width: int
    layers: int
    heads: int
    rows: int  # of the spectrogram that it takes; 0: it takes the waveform
    norm: str  # of its first convolutions; "group" normalises over time, padding included
    published: str  # on the Hugging Face hub

    @property
    def takes(self) -> str:
        """`data_type` in the notes' README."""
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
KINDS = ("row", "one_hot_rows", "embedding", "film", "heads")


@settings
class Config:
    """Choices for an `AudioClassifier`.

    Args:
        small: a network of the same layout that a CPU trains in a minute.
        word: conditioning on the number of the word: "row" (a constant row under the mel rows, as in the notes'
            README), "one_hot_rows" (a row for each word), "embedding" (a learned vector beside the pooled features, and
            a non-linear layer over both), "film" (a learned scale and shift of the pooled features), "heads" (an output
            layer for each word); "" none. "auto", in a training: "heads" where the table has several words.
        age: likewise for the number of the speaker's age.
        n_mels: mel rows. None: as many as the backbone takes, less the rows of conditions. More are cut to that, with
            a warning. Rows that are left are filled with the age.
        hop_length: samples per column. None: 160 for Whisper; for ResNet the hop that makes 224 columns.
        n_fft: None: 400 for Whisper, 1024 for ResNet.
        mel: filters, "whisper" (what Whisper was trained on) or "torchaudio" (its defaults); "": the backbone's own.
        pooling: over frames, "mean" or "attention" (attentive statistics: weighted mean and deviation).
        layer_sum: a learned weighted sum of all layers in place of the last one.
        projection: width of the embedding between pooling and output.
        activation: after the projection; "" as published, so that the head is one linear map.
        dropout: of the embedding, in training.
        age_momentum, word_scale: factors of the rows of age and word.
        min_max: scale each spectrogram to 0 to 1, before rows are added. ResNet's include the padding.
        standardize: bring each mel row to the mean 0 and deviation 1 that it has over the training part; for networks
            that are trained from random weights. Spectrograms only.
        freeze: "" nothing, "all" the backbone, "features" its first convolutions, n these and the first n layers.
        norm: of the first convolutions of a small Wav2Vec2 or HuBERT; "": as the full one has.
    """

    backbone: Literal[*BACKBONES] = "wav2vec2-base"
    small: bool = False
    word: str = ""
    age: Literal["", *KINDS] = ""
    n_mels: Count | None = None
    hop_length: Count | None = None
    n_fft: Annotated[int, Field(ge=2)] | None = None
    mel: Literal["", "whisper", "torchaudio"] = ""
    pooling: Literal["mean", "attention"] = "mean"
    layer_sum: bool = False
    projection: Count = 256
    activation: Literal["", "gelu", "relu"] = ""
    dropout: BelowOne = 0.0
    age_momentum: Number = 1.0
    word_scale: Number = 1.0
    min_max: bool = False
    standardize: bool = False
    freeze: str | int = ""
    norm: Literal["", "group", "layer"] = ""

    def __post_init__(self):
        if self.word not in (ways := ("", "auto", *KINDS)):
            advice = "To train on some words only, give `words`."
            raise ParameterError("word", repr(self.word), f"one of {', '.join(map(repr, ways))}", advice)
        if isinstance(self.freeze, str) and self.freeze.strip().isdigit():  # text from the command line
            self._set("freeze", int(self.freeze))

    @property
    def facts(self) -> Facts:
        return BACKBONES[self.backbone]

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


@settings
class ResolvedConfig(Config):
    """All settings of an `AudioClassifier`; what was left open (None, "") is decided.

    Args:
        num_outputs: classes; None is 2. A regressor has 1.
        num_words, num_ages: numbers that a condition knows; 14 half years in the notes' README.
        seconds: length to which clips are padded; ResNet's columns depend on it.
        condition_width: of an embedded condition.
        masked: leave padding out where `lengths` are given, as far as the backbone can.
    """

    num_outputs: Count | None = None
    task: Literal["classification", "regression"] = "classification"
    num_words: Count = 80
    num_ages: Count = 14
    seconds: Positive = 3.0
    condition_width: Count = 64
    masked: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not round(self.seconds * SAMPLE_RATE) >= 1:
            raise ParameterError("seconds", f"{self.seconds}", "at least one sample")
        if self.num_outputs is None:
            self._set("num_outputs", 1 if self.task == "regression" else 2)
        if self.task == "regression" and self.num_outputs != 1:
            raise ParameterError("num_outputs", f"{self.num_outputs}", "1 for a regression")
        for name, kind in self.conditions.items():
            check_choice(name, kind, KINDS)
            if kind in ("row", "one_hot_rows") and not self.facts.rows:
                found = f"{kind!r} with {self.backbone}, which takes the waveform"
                raise ParameterError(name, found, "embedding, film or heads", "It has no rows.")
        self._refuse_foreign()
        if self.facts.rows:
            self._resolve_rows()
        if (family := self.facts.family) in ("whisper", "resnet"):
            whisper = family == "whisper"
            hop = WHISPER_HOP if whisper else resnet_hop_length(round(self.seconds * SAMPLE_RATE))
            self._set("hop_length", self.hop_length or hop)
            self._set("n_fft", self.n_fft or (WHISPER_N_FFT if whisper else RESNET_N_FFT))
            self._set("mel", self.mel or ("whisper" if whisper else "torchaudio"))
        elif family in ("wav2vec2", "hubert"):
            if self.norm not in ("", self.facts.norm) and not self.small:
                found, expected = f"{self.norm!r} with {self.backbone}", f"{self.facts.norm!r}, as published"
                raise ParameterError("norm", found, expected, "Only a small one can choose.")
            self._set("norm", self.norm or self.facts.norm)
        depth = SMALL_LAYERS if self.small and self.facts.family != "resnet" else self.facts.layers
        known = 0 <= self.freeze <= depth if isinstance(self.freeze, int) else self.freeze in ("", "all", "features")
        if not known:
            expected = f'"", "all", "features" or a number of layers from 0 to {depth}'
            raise ParameterError("freeze", repr(self.freeze), expected)
        if self.layer_sum and self.facts.family == "resnet":
            raise ParameterError("layer_sum", "True with resnet50", "False: its stages have different shapes")

    @property
    def conditions(self) -> dict[str, str]:
        """The kind of each condition, of "age" and "word"."""
        return {name: getattr(self, name) for name in ("age", "word") if getattr(self, name)}

    @property
    def needs(self) -> tuple[str, ...]:
        """Inputs besides the sound, of "word" and "age"."""
        return tuple(name for name in ("word", "age") if name in self.conditions or (name == "age" and self.fill_rows))

    @property
    def fill_rows(self) -> int:
        """Rows that neither mel bins nor conditions take; the age fills them."""
        return self.facts.rows and self.facts.rows - self.n_mels - self._condition_rows()

    def count(self, condition: str) -> int:
        return self.num_words if condition == "word" else self.num_ages

    def _condition_rows(self) -> int:
        kinds = self.conditions.items()
        return sum({"row": 1, "one_hot_rows": self.count(name)}.get(kind, 0) for name, kind in kinds)

    def _refuse_foreign(self) -> None:
        """Refuse settings that the backbone does not have."""
        family, takes = self.facts.family, "spectrogram" if self.facts.rows else "waveform"
        names = () if family in ("whisper", "resnet") else ("hop_length", "n_fft", "mel")
        names += () if family in ("wav2vec2", "hubert") else ("norm",)
        names += () if self.facts.rows else ("n_mels", "min_max", "standardize")
        for name in names:
            if value := getattr(self, name):
                found = f"{value!r} with {self.backbone}, which takes the {takes}"
                raise ParameterError(name, found, "nothing", "Leave it out, or take another backbone.")

    def _resolve_rows(self) -> None:
        """Mel rows and rows of conditions together are as many as the backbone takes."""
        rows, extra = self.facts.rows, self._condition_rows()
        if extra >= rows:
            found, expected = f"{extra} rows of words and ages", f"fewer than the {rows} rows of {self.backbone}"
            raise ParameterError("word, age", found, expected, "Take fewer words, or another kind of condition.")
        if self.n_mels is None:
            self._set("n_mels", rows - extra)
        elif self.n_mels > rows:
            found = f"n_mels {self.n_mels} is more than the {rows} rows of {self.backbone}"
            warnings.warn(f"{found}; {rows - extra} are used", UserWarning, stacklevel=2)
            self._set("n_mels", rows - extra)
        both = {"row", "one_hot_rows"}.issuperset((self.word, self.age))
        if self.n_mels + extra > rows or (both and self.n_mels + extra < rows):
            found = f"{self.n_mels} mel rows and {extra} rows of conditions are {self.n_mels + extra}"
            expected = f"together the {rows} of {self.backbone}"
            raise ParameterError("n_mels", found, expected, f"Set n_mels={rows - extra}.")
