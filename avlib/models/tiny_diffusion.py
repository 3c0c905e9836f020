"""Parts of a tiny text-to-image model, and a classifier of its images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .. import checkpoints
from ..errors import CheckpointError, ParameterError
from ..features.spectrograms import BEATS_MELS, beats_fbank
from .patches import patch_grid, patchify, unpatchify

Latents = Float[Tensor, "batch latents height width"]


class PatchPCA(ModelMixin, ConfigMixin):
    """An autoencoder of images: the principal components of their patches.

    Its interface is that of diffusers' AutoencoderKL, so that a StableDiffusionPipeline takes it for its `vae`. It is
    computed in a second, where Stable Diffusion's autoencoder is learned from millions of images.

    Of `block_out_channels` only the length counts: a latent is 2^(length - 1) pixels wide, the side of a patch.
    `scaling_factor` is of latents for a diffusion model; `fitted` sets it.
    """

    @register_to_config
    def __init__(
        self, in_channels: int = 3, latent_channels: int = 12, block_out_channels: Sequence[int] = (12, 12, 12),
        scaling_factor: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.patch = 2 ** (len(block_out_channels) - 1)
        values = in_channels * self.patch**2
        if latent_channels > values:
            raise ParameterError("latent_channels", f"{latent_channels}", f"at most {values}, the values of a patch")
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("components", torch.eye(values)[:, :latent_channels].contiguous())
        self.register_buffer("deviations", torch.ones(latent_channels))  # by which components are divided

    @classmethod
    def fitted(
        cls, pictures: Float[Tensor, "batch channels height width"], latent_channels: int = 12, patch: int = 4,
        whitening: float | int = 0.0,
    ) -> PatchPCA:  # fmt: skip
        """Fit the components to images, and scale latents to variance 1.

        Args:
            pictures: `(B, 3, H, W)` in [-1, 1].
            patch: side of a patch in pixels, a power of two that divides height and width.
            whitening: power of its deviation by which each component is divided: 0 for none, 1 for equal variances.
                Values between give small details, such as the colour of a small object, some weight in a diffusion
                model's loss.
        """
        levels = patch.bit_length()
        if patch != 2 ** (levels - 1):
            raise ParameterError("patch", f"{patch}", "a power of two")
        model = cls(pictures.shape[1], latent_channels, (latent_channels,) * levels)
        patches = patchify(pictures, patch).flatten(0, 1).double()  # (B * h * w, values)
        model.mean.copy_(patches.mean(dim=0))
        variances, vectors = torch.linalg.eigh(torch.cov(patches.T))  # from the least to the most important
        model.components.copy_(vectors.flip(1)[:, :latent_channels])
        model.deviations.copy_(variances.flip(0)[:latent_channels].clamp(min=1e-8) ** (whitening / 2))
        deviation = model.encode(pictures).latent_dist.mean.std()
        model.register_to_config(scaling_factor=float(1 / deviation))
        return model

    def encode(self, x: Float[Tensor, "batch channels height width"], return_dict: bool = True):
        """Latents `(B, C, H / patch, W / patch)`, without variance, in `.latent_dist`."""
        grid = patch_grid("pictures", tuple(x.shape[2:]), self.patch)
        latents = (patchify(x, self.patch) - self.mean) @ self.components / self.deviations  # (B, h * w, C)
        latents = latents.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
        moments = torch.cat([latents, torch.zeros_like(latents)], dim=1)
        distribution = DiagonalGaussianDistribution(moments, deterministic=True)
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    def decode(self, z: Latents, return_dict: bool = True, generator: object = None):
        """Images `(B, 3, H, W)`, in `.sample`; `generator` is unused."""
        patches = (z.flatten(2).transpose(1, 2) * self.deviations) @ self.components.T + self.mean
        pictures = unpatchify(patches, tuple(z.shape[2:]), self.patch)
        return DecoderOutput(sample=pictures) if return_dict else (pictures,)

    def forward(self, sample: Float[Tensor, "batch channels height width"]) -> Tensor:
        return self.decode(self.encode(sample).latent_dist.mean).sample


_END = "</w>"  # how CLIP marks the last piece of a word


def small_tokenizer(words: Sequence[str], length: int = 77) -> CLIPTokenizer:
    """Make a tokenizer with one token per (lower-case) word; others are spelt."""
    learned = Tokenizer(models.BPE(end_of_word_suffix=_END))
    learned.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = sorted({word[-1] + _END for word in " ".join(words).split()})  # numbered here, or ties are at random
    trainer = trainers.BpeTrainer(
        vocab_size=1 << 20, min_frequency=0, special_tokens=ends, end_of_word_suffix=_END, show_progress=False
    )
    learned.train_from_iterator([" ".join(words)], trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + _END for letter in letters), *map("".join, merges)]
    pieces = dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"])  # in CLIP's order
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def small_text_encoder(
    tokenizer: CLIPTokenizer, width: int = 64, layers: int = 2, heads: int = 4, word_scale: float = 1.0
) -> CLIPTextModel:
    """Make a random text encoder, with word embeddings scaled by `word_scale`."""
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, projection_dim=width,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(word_scale)
    return model


class ImageClassifier(nn.Module):
    """A classifier of images, with joint embeddings of images and audio.

    Published figures use a classifier, and CLIP with Wav2CLIP, trained on photographs. This one takes their place for
    the built-in scenes. `classes` is their number for each attribute, such as {"kind": 8, "size": 2}.
    """

    def __init__(self, classes: Mapping[str, int], width: int = 16, embedding: int = 32):
        super().__init__()
        self.settings = {"classes": dict(classes), "width": width, "embedding": embedding}
        self.image_encoder = nn.Sequential(
            nn.AdaptiveAvgPool2d(32), _block(3, width, 1), _block(width, 2 * width, 2), _block(2 * width, 4 * width, 2),
            _block(4 * width, 4 * width, 2), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(64 * width, 4 * width), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(4 * width, count) for name, count in classes.items()})
        self.image_projection = nn.Linear(4 * width, embedding)
        values = 2 * BEATS_MELS
        self.audio_encoder = nn.Sequential(nn.LayerNorm(values), nn.Linear(values, 4 * width), nn.ReLU())
        self.audio_projection = nn.Linear(4 * width, embedding)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Float[Tensor, "batch classes"]]:
        """Logits of each attribute, by its name. Images are in [-1, 1]."""
        features = self.image_encoder(images)  # (B, 4 * width)
        return {name: head(features) for name, head in self.heads.items()}

    def embed_images(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch values"]:
        """Unit embeddings of images in [-1, 1]."""
        return F.normalize(self.image_projection(self.image_encoder(images)), dim=-1)

    def embed_audio(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch values"]:
        """Unit embeddings of audio, 16 kHz, mono."""
        return self.embed_fbank(beats_fbank(waveform))

    def embed_fbank(self, fbank: Float[Tensor, "batch frames mels"]) -> Float[Tensor, "batch values"]:
        """Unit embeddings of audio, from mean and deviation of `beats_fbank`."""
        statistics = torch.cat([fbank.mean(dim=1), fbank.std(dim=1)], dim=-1)  # (B, 256)
        return F.normalize(self.audio_projection(self.audio_encoder(statistics)), dim=-1)

    def save(self, path: Path | str) -> None:
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "settings": self.settings})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> ImageClassifier:
        """Build a model from a folder that `save` wrote."""
        tensors, config = checkpoints.read(path)
        settings = config.get("settings")
        if config.get("model") != cls.__name__ or not isinstance(settings, Mapping):
            raise CheckpointError(path, "is not an image classifier", "a folder that ImageClassifier.save wrote")
        model = cls(**settings)
        checkpoints.load(model, path, tensors)
        return model


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
