"""An autoencoder of pictures that is computed, not trained: the principal components of their patches.

It has the interface of diffusers' AutoencoderKL, so that a StableDiffusionPipeline takes it for its `vae`. What Stable
Diffusion's autoencoder learns with millions of pictures, it does in a second for small ones: as many numbers for a
patch as matter, so that a text-to-image model of few parameters need not care about the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor

from ..errors import ParameterError
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
