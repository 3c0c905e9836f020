"""Settings of singing-voice conversion: data, and the two stages of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from ... import training
from ...datasets.svc import Data
from ...models.diffusion_svc import Config
from ...settings import Count, Number, settings

STAGES = ("recognizer", "diffusion")
ENCODERS = ("recognizer", "hubert-soft", "contentvec", "wav2vec2", "kmeans", "none")


@settings
class RecognizerStage:
    """The first stage: a recogniser of vowels in many random voices, whose posteriors are the content units."""

    target: Literal["vowels", "singers"] = "vowels"  # or the built-in singers, for a judge
    voices: Count = 20  # random singers
    phrases: Count = 2  # by each random singer; of a judge of singers, by each built-in one
    voice_seed: Annotated[int, Field(ge=0, le=140)] = 0  # of voices and melodies
    window: Count = 64  # units of a training item
    width: Count = 96  # of the network
    layers: Count = 4  # of the network
    training: training.Settings = field(default_factory=training.Settings)


@settings
class DiffusionStage:
    """The second stage, the published training: mel from units, pitch and singer.

    encoder: of the content units. "recognizer" takes the first stage's posteriors; "kmeans" clusters mel frames of the
        training files; "none" hands over no content.
    encoder_path: weights of an encoder that has published ones; see `avlib.extract.units.content_encoder`.
    encoder_width: of "contentvec", 256 or 768; 0: as its weights have it.
    clusters: of "kmeans".
    begin: random weights as "published"; "balanced" for short trainings: rows of the pitch table begin with the mel of
        their harmonics, which need not be learned then, units and singers are as large, and noise counts for less.
    network: sizes; the width of the units, the number of mel bins and of singers follow from the data.
    spec_min, spec_max: range of the log10 mel, one number or one for each bin; empty: of the training pieces, or of
        `checkpoint`.
    checkpoint: trained weights to begin with, a file as published or a folder of `DiffusionSVC.save`.
    loss: "l2", or "l1".
    training: with the published rate, halved every 40,000 steps.
    """

    encoder: Literal[ENCODERS] = "recognizer"
    encoder_path: str = ""
    encoder_width: Literal[0, 256, 768] = 0
    clusters: Count = 100
    begin: Literal["published", "balanced"] = "published"
    network: Config = field(default_factory=Config)
    spec_min: Sequence[Number] = ()
    spec_max: Sequence[Number] = ()
    checkpoint: str = ""
    loss: Literal["l2", "l1"] = "l2"
    training: training.Settings = field(default_factory=training.Settings)


@settings
class Settings:
    """Everything that a training follows from. See `changed`."""

    stage: Literal[STAGES] = "diffusion"  # the last one that is trained
    project: str = ""  # a name by which `avlib convert` finds the trained model
    data: Data = field(default_factory=Data)
    recognizer: RecognizerStage = field(default_factory=RecognizerStage)
    diffusion: DiffusionStage = field(default_factory=DiffusionStage)

    @property
    def now(self) -> RecognizerStage | DiffusionStage:
        return getattr(self, self.stage)


# The published training (`training/config_nsf.yaml`): whole pieces, 88 of similar length in a batch, at most 42,000
# frames each. Give `data`, and an `encoder_path`.
full = Settings(
    data=Data(crop=0, longest=15.0, held_out=5),
    diffusion=DiffusionStage(
        encoder="hubert-soft",
        training=training.Settings(
            steps=300_000, batch_size=88, learning_rate=8e-4, weight_decay=0.0, betas=(0.9, 0.98), warmup=0, clip=1.0,
            schedule="multistep", gamma=0.5, decay_steps=40_000, workers=4, save_every=2000, log_every=10,
        ),
    ),
)  # fmt: skip

# What one CPU core learns in two and a half minutes. x0 instead of noise: see 43.
tiny = Settings(
    recognizer=RecognizerStage(
        training=training.Settings(steps=350, batch_size=16, learning_rate=3e-3, warmup=20, log_every=10),
    ),
    diffusion=DiffusionStage(
        begin="balanced",
        network=Config(channels=96, layers=6, condition_size=128, predicts="x0"),
        training=training.Settings(
            steps=900, batch_size=12, learning_rate=3e-3, weight_decay=0.0, betas=(0.9, 0.98), warmup=20, ema=0.995,
            log_every=10, save_every=200,
        ),
    ),
)  # fmt: skip
