"""Settings of AudioToken: data, and the four stages of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from ... import training
from ...datasets.audiotoken import Data
from ...models.audiotoken import PLACEHOLDER
from ...models.beats import Config
from ...settings import Count, Natural, NonNegative, Share, settings
from .model import Sampling

STAGES = ("classifier", "image_classifier", "diffusion", "embedder")
NOISE_STEPS = 1000  # of Stable Diffusion's training


@settings
class ClassifierStage:
    """The first stage: a BEATs that tells kinds of sounds, as the published one tells AudioSet's.

    checkpoint: a file of a trained BEATs to take instead; then nothing is trained.
    network: its sizes otherwise.
    """

    checkpoint: str = ""
    network: Config = field(default_factory=Config)
    training: training.Settings = field(default_factory=training.Settings)


@settings
class ImageClassifierStage:
    """The image classifier, used for figures alone. See `avlib.models.tiny_diffusion.ImageClassifier`.

    width: channels of its first layer.
    embedding: width of the vectors in which pictures and sounds are compared.
    """

    width: Count = 16
    embedding: Count = 32
    training: training.Settings = field(default_factory=training.Settings)


@settings
class DiffusionStage:
    """The second stage: pictures from words.

    folder: a trained model to take instead, as a folder in diffusers' layout or a hub id.
    patch, latent_channels: pixels along the side of a latent, and its numbers; see `PatchPCA`.
    channels: of the UNet at each resolution. Without any none is built.
    text_width, text_layers: of the text encoder.
    word_dropout: how often size, colour or article is left out of a caption.
    caption_dropout: how often a picture has no caption, which guidance needs.
    """

    folder: str = ""
    patch: Count = 4
    latent_channels: Count = 12
    channels: Sequence[Count] = ()
    text_width: Count = 64
    text_layers: Count = 2
    word_dropout: Share = 0.15
    caption_dropout: Share = 0.1
    training: training.Settings = field(default_factory=training.Settings)


@settings
class EmbedderStage:
    """The last stage, the published training: everything frozen but the embedder, and LoRA if there is any.

    prompt: with the placeholder, which the sound takes.
    lambda_a, lambda_b: weights of the mean of the token's absolute values, and of its squared length.
    cosine_loss, lambda_c: whether the token is drawn to the word of the clip's label, and how strongly. Published as
        part of the method, and off in the released settings. It needs labels.
    lowest: the least noisy step that is trained at, of 1,000.
    lora_rank: of LoRA in the UNet, 4 as published; 0 for none.
    """

    prompt: str = f"a photo of {PLACEHOLDER}"
    lambda_a: NonNegative = 0.01
    lambda_b: NonNegative = 0.0
    cosine_loss: bool = False
    lambda_c: NonNegative = 0.01
    lowest: Annotated[int, Field(ge=0, lt=NOISE_STEPS)] = 0
    lora_rank: Natural = 0
    training: training.Settings = field(default_factory=training.Settings)


@settings
class Settings:
    """Everything that a training follows from. `stage` is the last one that is trained. See `changed`."""

    stage: Literal[STAGES] = "embedder"
    data: Data = field(default_factory=Data)
    classifier: ClassifierStage = field(default_factory=ClassifierStage)
    image_classifier: ImageClassifierStage = field(default_factory=ImageClassifierStage)
    diffusion: DiffusionStage = field(default_factory=DiffusionStage)
    embedder: EmbedderStage = field(default_factory=EmbedderStage)
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def now(self) -> ClassifierStage | ImageClassifierStage | DiffusionStage | EmbedderStage:
        return getattr(self, self.stage)


# The published training: VGGSound, 5 s, 30,000 steps as its README says (60,000 by default). The README's learning rate
# is 1e-5 times a batch of four, times four such batches in each step: 1.6e-4. With the parser's defaults, one batch in
# each step, it is 4e-5.
# BEATs and Stable Diffusion are not trained: give `checkpoint`, `folder` and `data`.
full = Settings(
    embedder=EmbedderStage(
        training=training.Settings(
            steps=30_000, batch_size=16, accumulate=4, learning_rate=1.6e-4, weight_decay=0.01, betas=(0.9, 0.999),
            schedule="constant", warmup=0, clip=0.0, workers=4, save_every=1000, log_every=10,
        ),
    ),
)  # fmt: skip

# What two CPU cores learn in five minutes: sounds of two seconds, pictures of 64 x 64.
tiny = Settings(
    data=Data(seconds=1.94, image_size=(64, 64)),
    classifier=ClassifierStage(
        network=Config(
            encoder_layers=3, encoder_embed_dim=64, encoder_ffn_embed_dim=128, encoder_attention_heads=4, conv_pos=16,
            conv_pos_groups=4, embed_dim=64, predictor_class=8, encoder_layerdrop=0.0,
            layer_wise_gradient_decay_ratio=1.0,
        ),
        training=training.Settings(steps=250, batch_size=32, learning_rate=2e-3, warmup=30, save_every=100),
    ),
    image_classifier=ImageClassifierStage(
        training=training.Settings(steps=250, batch_size=64, learning_rate=3e-3, warmup=30, weight_decay=0.05),
    ),
    diffusion=DiffusionStage(
        patch=8,
        latent_channels=32,
        channels=(64, 128),
        training=training.Settings(
            steps=800, batch_size=32, learning_rate=3e-3, betas=(0.9, 0.99), warmup=50, save_every=200
        ),
    ),
    embedder=EmbedderStage(
        lowest=200,
        lambda_c=0.1,
        training=training.Settings(
            steps=250, batch_size=32, learning_rate=3e-3, betas=(0.9, 0.999), warmup=20, save_every=100
        ),
    ),
    sampling=Sampling(inference_steps=15, guidance=2.0),
)  # fmt: skip
