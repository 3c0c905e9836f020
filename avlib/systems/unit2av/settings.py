"""Settings of units to speech and face: data, and the stages of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from ... import training
from ...datasets.unit2av.dataset import Data
from ...errors import ParameterError
from ...models import face_renderer, lip_sync, unit_source, unit_vocoder
from ...models.durations import DurationConfig
from ...settings import Count, Natural, NonNegative, Positive, settings

STAGES = ("recognizer", "vocoder", "adversarial", "pitch", "sync", "face")
ENCODERS = ("recognizer", "hubert-soft", "contentvec", "wav2vec2")


@settings
class RecognizerStage:
    """A recogniser of phones in many voices, whose hidden frames are clustered to units; or another encoder's are."""

    target: Literal["phones", "words", "speakers"] = "phones"  # words and built-in speakers are for judges
    words: Literal["known", "all"] = "known"  # those of training; or all, for a judge
    voices: Count = 40  # random speakers
    talks: Count = 120  # by all of them
    seed: Natural = 7  # of the talks
    window: Count = 64  # units of a training item
    width: Count = 96  # of the network
    layers: Count = 4  # of the network
    encoder: Literal[ENCODERS] = "recognizer"  # of clustered frames; "recognizer": the hidden layer of this stage
    encoder_path: str = ""  # weights of another encoder; see `avlib.extract.units.content_encoder`
    encoder_layer: Natural = 0  # of "contentvec" or "wav2vec2", from 1; 0: its own choice
    clusters: Count = 50  # units, K
    training: training.Settings = field(default_factory=training.Settings)


@settings
class VocoderStage:
    """The published generator with mel and duration losses alone."""

    # The number of units is that of the extractor, or as given for a manifest.
    network: unit_vocoder.Config = field(default_factory=unit_vocoder.Config)
    checkpoint: str = ""  # trained weights to begin with; see `UnitVocoder.from_checkpoint`
    language: str = "en"  # of the generator in a checkpoint with several
    speaker: str = "auto"  # what makes speaker vectors; see `avlib.extract.speakers.embedder`
    duration_weight: NonNegative = 1.0  # of the duration loss
    training: training.Settings = field(default_factory=training.Settings)


@settings
class AdversarialStage:
    """The published training: against discriminators, with all losses.

    begin: "vocoder" continues from that stage; "random" begins with random weights, or the stage's checkpoint.
    """

    begin: Literal["vocoder", "random"] = "random"
    periods: Sequence[Count] = (2, 3, 5, 7, 11)  # of the multi-period discriminators
    period_channels: Sequence[Count] = (32, 128, 512, 1024, 1024)  # likewise
    scales: Count = 3  # number of multi-scale discriminators
    scale_channels: Sequence[Count] = ()  # widths of these; none: the published ones
    training: training.Settings = field(default_factory=training.Settings)


@settings
class PitchStage:
    """A source-driven vocoder, which is not published; see `avlib.models.unit_source`."""

    network: unit_source.Config = field(default_factory=unit_source.Config)
    pitch_weight: Positive = 3.0  # of the error of log pitch in voiced units
    training: training.Settings = field(default_factory=training.Settings)


@settings
class SyncStage:
    """A judge of lips for the sync loss: whether mouths and units are of one moment. It sees the faces of FaceStage.

    network: sizes; the number of units is that of the extractor.
    """

    network: lip_sync.Config = field(default_factory=lip_sync.Config)
    training: training.Settings = field(default_factory=training.Settings)


@settings
class FaceStage:
    """The face renderer, whose training is not published.

    network: sizes; its `reference` is what it sees in training and, unless it is told otherwise, in inference: "same",
        as in published inference, lets it copy the mouth of the video; "other" and "still" are trained alike.
    data: a folder of videos with their boxes, or a table, see `avlib.datasets.unit2av.faces.read_videos`; "" takes
        built-in talks.
    talks, heads: number of built-in talks and heads, by the speakers of `Data`.
    rows: windows of ten pictures of each video in an epoch.
    frames: pictures that are drawn of each row, next to each other; at least 5 with a sync loss.
    begin: random weights as "published"; "balanced" for short trainings: units count for more at first, and attention
        has no dropout.
    mouth_weight: of the error in the mouth, relative to the rest.
    smooth: errors below it count by their square, so that a moving mouth counts for more than noise; 0: plain L1.
    sync_weight: of the sync loss; above 0 the stage "sync" is trained first. Wav2Lip: 0.03.
    """

    network: face_renderer.Config = field(default_factory=lambda: face_renderer.Config(reference="other"))
    data: str = ""
    talks: Count = 96
    heads: Count = 96
    rows: Count = 4
    frames: Annotated[int, Field(ge=1, le=face_renderer.FRAMES)] = face_renderer.FRAMES
    begin: Literal["published", "balanced"] = "published"
    mouth_weight: Positive = 10.0
    smooth: NonNegative = 0.0
    sync_weight: NonNegative = 0.0
    training: training.Settings = field(default_factory=training.Settings)

    def __post_init__(self):
        if self.sync_weight and self.frames < lip_sync.FRAMES:
            found = f"{self.frames} with a sync loss"
            raise ParameterError("frames", found, f"at least {lip_sync.FRAMES}, which it sees at once")


@settings
class Settings:
    """Everything that a training follows from. See `changed`."""

    stage: Literal[STAGES] = "pitch"  # the last one that is trained
    data: Data = field(default_factory=Data)
    recognizer: RecognizerStage = field(default_factory=RecognizerStage)
    vocoder: VocoderStage = field(default_factory=VocoderStage)
    adversarial: AdversarialStage = field(default_factory=AdversarialStage)
    pitch: PitchStage = field(default_factory=PitchStage)
    sync: SyncStage = field(default_factory=SyncStage)
    face: FaceStage = field(default_factory=FaceStage)

    @property
    def now(self) -> RecognizerStage | VocoderStage | AdversarialStage | PitchStage | SyncStage | FaceStage:
        """The stage that is trained."""
        return getattr(self, self.stage)


# The published training (`unit2av/config.json`): 16 segments, AdamW at 2e-4, times 0.999 after each epoch.
full = Settings(
    stage="adversarial",
    adversarial=AdversarialStage(
        training=training.Settings(
            steps=500_000, batch_size=16, learning_rate=2e-4, betas=(0.8, 0.99), warmup=0, clip=0.0, seed=1234,
            schedule="multistep", gamma=0.999, milestones=tuple(range(1, 2000)), workers=4, evaluate_every=5000,
            save_every=5000, log_every=5, best=True, monitor="mel L1",
        ),
    ),
)  # fmt: skip

_NARROW = unit_vocoder.Config(
    upsample_initial_channel=128, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),),
    dur_predictor_params=DurationConfig(var_pred_dropout=0.25),
)  # fmt: skip


def _quick(steps: int, batch_size: int = 16, rate: float = 3e-3, **options: object) -> training.Settings:
    given = {"betas": (0.8, 0.99), "warmup": 20, "clip": 1.0, "log_every": 10, "save_every": 100} | options
    return training.Settings(steps=steps, batch_size=batch_size, learning_rate=rate, **given)


# What one CPU core learns in four minutes.
tiny = Settings(
    recognizer=RecognizerStage(training=_quick(300, betas=(0.9, 0.95), save_every=0)),
    vocoder=VocoderStage(network=_NARROW, training=_quick(1000, 8)),
    adversarial=AdversarialStage(
        begin="vocoder", periods=(5,), period_channels=(8, 16, 32, 32), scales=1,
        scale_channels=(8, 16, 32, 32, 32, 32, 32), training=_quick(100, 8, 5e-4),
    ),
    pitch=PitchStage(
        network=unit_source.Config(
            embedding_dim=64, dur_predictor_params=DurationConfig(64, var_pred_dropout=0.3),
        ),
        training=_quick(360),
    ),
    sync=SyncStage(training=_quick(150)),
    face=FaceStage(
        network=face_renderer.Config(
            encoder_widths=(4, 8, 16, 32, 48, 64), decoder_widths=(64, 64, 48, 32, 16, 8), feedforward=128,
            output_width=8, reference="other",
        ),
        frames=1, begin="balanced", smooth=0.3, training=_quick(420, 8, 6e-3, betas=(0.9, 0.95)),
    ),
)  # fmt: skip
