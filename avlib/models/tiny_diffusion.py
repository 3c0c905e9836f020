"""Parts of a tiny text-to-image model, for the built-in scenes: an autoencoder, a text encoder, and a judge of images.

PatchPCA                           in place of Stable Diffusion's autoencoder, with its interface
small_tokenizer, small_text_encoder   CLIP's classes, for a few words
Judge                              in place of the classifier and of CLIP with Wav2CLIP, which measure published models
"""

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
from ..features import BEATS_MELS, beats_fbank
from .patches import patch_grid, patchify, unpatchify


class PatchPCA(ModelMixin, ConfigMixin):
    """Patches of a picture as their principal components, and back.

    Args:
        in_channels: of the pictures.
        latent_channels: how many components are kept.
        block_out_channels: of no meaning but its length, from which diffusers takes that a latent is
            2^(length - 1) pixels wide: here the side of a patch.
        scaling_factor: by which latents are multiplied before a diffusion model sees them; `fitted` sets it.

    Raises:
        ParameterError: more components than a patch has values.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 12,
        block_out_channels: Sequence[int] = (12, 12, 12),
        scaling_factor: float = 1.0,
    ):
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
        cls,
        pictures: Float[Tensor, "batch channels height width"],
        latent_channels: int = 12,
        patch: int = 4,
        whitening: float | int = 0.0,
    ) -> PatchPCA:
        """The components of these pictures, in closed form, and the scale that gives latents a variance of 1.

        Args:
            pictures: `(B, 3, H, W)` in [-1, 1].
            latent_channels: how many components are kept.
            patch: side of a patch in pixels, a power of two that divides height and width.
            whitening: by which power of its deviation each component is divided. 0 leaves them as they are; with 1 all
                vary alike. Between, what matters little for the error of pixels, such as the colour of a small thing,
                has some weight with a diffusion model.
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
        """Latents as a distribution without width, `.latent_dist`: `(B, latent_channels, H / patch, W / patch)`."""
        grid = patch_grid("pictures", tuple(x.shape[2:]), self.patch)
        latents = (
            (patchify(x, self.patch) - self.mean) @ self.components / self.deviations
        )  # (B, h * w, latent_channels)
        latents = latents.transpose(1, 2).unflatten(2, grid)
        moments = torch.cat([latents, torch.zeros_like(latents)], dim=1)
        distribution = DiagonalGaussianDistribution(moments, deterministic=True)
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    def decode(
        self, z: Float[Tensor, "batch latents height width"], return_dict: bool = True, generator: object = None
    ):
        """Pictures of latents, `.sample`: `(B, 3, h * patch, w * patch)`. `generator` is there for the interface."""
        patches = (z.flatten(2).transpose(1, 2) * self.deviations) @ self.components.T + self.mean
        pictures = unpatchify(patches, tuple(z.shape[2:]), self.patch)
        return DecoderOutput(sample=pictures) if return_dict else (pictures,)

    def forward(self, sample: Float[Tensor, "batch channels height width"]) -> Tensor:
        """There and back: what is left of a picture."""
        return self.decode(self.encode(sample).latent_dist.mean).sample


_END = "</w>"  # how CLIP marks the last piece of a word


def small_tokenizer(words: Sequence[str], length: int = 77) -> CLIPTokenizer:
    """A tokenizer with one token for each of these words, and other words spelt by their letters.

    Args:
        words: in lower case.
        length: tokens in a prompt, with its first and its last.
    """
    learned = Tokenizer(models.BPE(end_of_word_suffix=_END))
    learned.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=1 << 20, min_frequency=0, end_of_word_suffix=_END, show_progress=False)
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
    """A text encoder with random weights for this tokenizer.

    Args:
        tokenizer: whose words it reads.
        width: of its hidden states.
        layers: how many.
        heads: of each layer.
        word_scale: by which the vectors of words are larger than usual.
    """
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


class Judge(nn.Module):
    """A classifier of pictures by several attributes, and vectors of pictures and of sounds.

    Args:
        classes: how many there are, by the attribute's name, such as {"kind": 8, "size": 2}.
        width: channels of the first layer.
        embedding: width of the vectors.
    """

    def __init__(self, classes: Mapping[str, int], width: int = 16, embedding: int = 32):
        super().__init__()
        self.settings = {"classes": dict(classes), "width": width, "embedding": embedding}
        self.image_encoder = nn.Sequential(
            _block(3, width, 1), _block(width, 2 * width, 2), _block(2 * width, 4 * width, 2),
            _block(4 * width, 4 * width, 2), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(64 * width, 4 * width), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(4 * width, count) for name, count in classes.items()})
        self.image_projection = nn.Linear(4 * width, embedding)
        self.audio_encoder = nn.Sequential(
            nn.LayerNorm(2 * BEATS_MELS), nn.Linear(2 * BEATS_MELS, 4 * width), nn.ReLU()
        )
        self.audio_projection = nn.Linear(4 * width, embedding)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Float[Tensor, "batch classes"]]:
        """Logits of each attribute, by its name. Pictures are in [-1, 1]."""
        seen = self.image_encoder(images)
        return {name: head(seen) for name, head in self.heads.items()}

    def embed_images(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch values"]:
        """A vector of length 1 for each picture, in [-1, 1]; near that of the sound that belongs to it."""
        return F.normalize(self.image_projection(self.image_encoder(images)), dim=-1)

    def embed_audio(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch values"]:
        """A vector of length 1 for each sound, 16 kHz, mono; see `embed_fbank`."""
        return self.embed_fbank(beats_fbank(waveform))

    def embed_fbank(self, fbank: Float[Tensor, "batch frames mels"]) -> Float[Tensor, "batch values"]:
        """A vector of length 1 for each sound, by its `beats_fbank`: how strong each mel band is, and how it varies."""
        heard = torch.cat([fbank.mean(dim=1), fbank.std(dim=1)], dim=-1)  # (B, 256)
        return F.normalize(self.audio_projection(self.audio_encoder(heard)), dim=-1)

    def save(self, path: Path | str) -> None:
        """Write weights and settings, of which `from_checkpoint` makes the same model; see `checkpoints.save`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "settings": self.settings})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> Judge:
        """Build a model from a folder that `save` wrote.

        Raises:
            CheckpointError: it cannot be read or does not fit.
        """
        tensors, config = checkpoints.read(path)
        settings = config.get("settings")
        if config.get("model") != cls.__name__ or not isinstance(settings, Mapping):
            raise CheckpointError(path, "is not a judge of pictures", "a folder that Judge.save wrote")
        model = cls(**settings)
        checkpoints.load(model, path, tensors)
        return model


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
