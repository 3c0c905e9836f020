"""Everything that an AudioToken follows from: data, and the stages of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ... import training
from ...errors import ParameterError, check_choice
from ...models.audiotoken import PLACEHOLDER
from ...models.beats import Config

STAGES = ("classifier", "judge", "diffusion", "embedder")
HELD_OUT = 1000  # scenes of this seed and above are never trained on


@dataclass(frozen=True)
class Data:
    """What is learned from.

    data: a folder of clips, or a table that lists them (`read_clips`); "" takes built-in scenes.
    csv: the table of a folder in VGGSound's layout.
    exclude: plain text lists of clips to leave out.
    seconds: of the sound that is heard.
    image_size: height and width of a picture.
    clips, frames: number of the scenes that are trained on, and in how many moments each is seen.
    held_out: how many clips are for evaluation; of the user's own data those of the split "test", at most so many,
        or where there is none, up to a quarter.
    clips_seed: which scenes are trained on; which of the user's own clips are held out.
    on_error: "raise" or "skip", for clips that cannot be used.
    """

    data: str = ""
    csv: str = ""
    exclude: Sequence[str] = ()
    seconds: float | int = 5.0
    image_size: Sequence[int] = (320, 512)
    clips: int = 2048
    frames: int = 3
    held_out: int = 128
    clips_seed: int = 0
    on_error: str = "raise"

    def __post_init__(self):
        if not 0 <= self.clips_seed < HELD_OUT:
            raise ParameterError("clips_seed", f"{self.clips_seed}", f"0 to {HELD_OUT - 1}; others are held out")
        for name in ("clips", "frames", "held_out"):
            if getattr(self, name) < 1:
                raise ParameterError(name, f"{getattr(self, name)}", "1 or more")
        if len(self.image_size) != 2:
            raise ParameterError("image_size", f"{self.image_size}", "height and width")


@dataclass(frozen=True)
class Classifier:
    """The first stage: a BEATs that tells kinds of sounds, as the published one tells AudioSet's.

    checkpoint: a file of a trained BEATs to take in its place; then nothing is trained.
    network: its sizes otherwise.
    """

    checkpoint: str = ""
    network: Config = field(default_factory=Config)
    training: training.Settings = field(default_factory=training.Settings)


@dataclass(frozen=True)
class Judge:
    """What says whether a picture is right; nothing else is made with it. See `avlib.models.tiny_diffusion`.

    width: channels of its first layer.
    embedding: width of the vectors in which pictures and sounds are compared.
    """

    width: int = 16
    embedding: int = 32
    training: training.Settings = field(default_factory=training.Settings)


@dataclass(frozen=True)
class Diffusion:
    """The second stage: pictures from words.

    folder: a trained model to take in its place, as a folder in diffusers' layout or a hub id.
    patch, latent_channels, whitening: pixels along the side of a latent, how many numbers it has, and how much those
        that vary little are enlarged; see `PatchPCA`.
    channels, blocks: of the UNet at each resolution, and how many blocks there are. Without channels none is built.
    text_width, text_layers, words: of the text encoder; how many tokens a prompt has.
    word_scale: by which the first word vectors are larger than usual: so they differ enough to be told apart soon.
    word_dropout: how often size, colour or article is left out of a caption.
    caption_dropout: how often a picture has no caption, which guidance needs.
    beta_schedule: of the noise; see diffusers' schedulers.
    """

    folder: str = ""
    patch: int = 4
    latent_channels: int = 12
    whitening: float | int = 0.5
    channels: Sequence[int] = ()
    blocks: int = 1
    text_width: int = 64
    text_layers: int = 2
    words: int = 16
    word_scale: float | int = 5.0
    word_dropout: float | int = 0.15
    caption_dropout: float | int = 0.1
    beta_schedule: str = "squaredcos_cap_v2"
    training: training.Settings = field(default_factory=training.Settings)


@dataclass(frozen=True)
class Embedder:
    """The last stage, the published training: everything frozen but the embedder, and LoRA if there is any.

    prompt: with the placeholder, in whose place the sound is.
    lambda_a, lambda_b: weights of the mean of the token's absolute values, and of its squared length.
    cosine_loss, lambda_c: whether the token is drawn to the word of the clip's label, and how strongly. Published as
        part of the method, and off in the released settings. It needs labels.
    lowest: the least noisy step that is trained at, of 1,000.
    lora_rank: of LoRA in the UNet, 4 as published; 0 for none.
    """

    prompt: str = f"a photo of {PLACEHOLDER}"
    lambda_a: float | int = 0.01
    lambda_b: float | int = 0.0
    cosine_loss: bool = False
    lambda_c: float | int = 0.01
    lowest: int = 0
    lora_rank: int = 0
    training: training.Settings = field(default_factory=training.Settings)

    def __post_init__(self):
        if not 0 <= self.lowest < 1000:
            raise ParameterError("lowest", f"{self.lowest}", "0 to 999")


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn. steps: of the sampler; guidance: how much the prompt is exaggerated, 1 for not at all."""

    inference_steps: int = 50
    guidance: float | int = 7.5


@dataclass(frozen=True)
class Settings:
    """Everything that a training follows from. `stage` is the last one that is trained. See `changed`."""

    stage: str = "embedder"
    data: Data = field(default_factory=Data)
    classifier: Classifier = field(default_factory=Classifier)
    judge: Judge = field(default_factory=Judge)
    diffusion: Diffusion = field(default_factory=Diffusion)
    embedder: Embedder = field(default_factory=Embedder)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self):
        check_choice("stage", self.stage, STAGES)

    @property
    def now(self) -> Classifier | Judge | Diffusion | Embedder:
        """The stage that is trained."""
        return getattr(self, self.stage)


# The published training: VGGSound, 5 s, 30,000 steps as its README says (60,000 by default). The README's learning rate
# is 1e-5 times a batch of four, times four such batches in each step: 1.6e-4. With the parser's defaults, one batch in
# each step, it is 4e-5.
# BEATs and Stable Diffusion are not trained: give `checkpoint`, `folder` and `data`.
full = Settings(
    embedder=Embedder(
        training=training.Settings(
            steps=30_000, batch_size=16, accumulate=4, learning_rate=1.6e-4, weight_decay=0.01, betas=(0.9, 0.999),
            schedule="constant", warmup=0, clip=0.0, workers=4, save_every=1000, log_every=10,
        ),
    ),
)  # fmt: skip

# What two CPU cores learn in five minutes: sounds of two seconds, pictures of 32 x 32.
tiny = Settings(
    data=Data(seconds=1.94, image_size=(32, 32)),
    classifier=Classifier(
        network=Config(
            encoder_layers=3, encoder_embed_dim=64, encoder_ffn_embed_dim=128, encoder_attention_heads=4, conv_pos=16,
            conv_pos_groups=4, embed_dim=64, predictor_class=8, encoder_layerdrop=0.0,
            layer_wise_gradient_decay_ratio=1.0,
        ),
        training=training.Settings(steps=250, batch_size=32, learning_rate=2e-3, warmup=30, save_every=100),
    ),
    judge=Judge(
        training=training.Settings(steps=250, batch_size=64, learning_rate=3e-3, warmup=30, weight_decay=0.05),
    ),
    diffusion=Diffusion(
        channels=(64, 128),
        training=training.Settings(
            steps=800, batch_size=32, learning_rate=3e-3, betas=(0.9, 0.99), warmup=50, save_every=200
        ),
    ),
    embedder=Embedder(
        lowest=200,
        lambda_c=0.1,
        training=training.Settings(
            steps=250, batch_size=32, learning_rate=3e-3, betas=(0.9, 0.999), warmup=20, save_every=100
        ),
    ),
    sampling=Sampling(inference_steps=15, guidance=2.0),
)  # fmt: skip

# For `changed`: where `tiny` departs from the published loss.
PUBLISHED = {
    name: getattr(full.embedder, name) for name in ("lambda_a", "lambda_b", "cosine_loss", "lambda_c", "lowest")
}
