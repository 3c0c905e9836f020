"""The encoder that pretraining and fine-tuning share."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from timm.layers import Attention, Mlp, PatchEmbed
from torch import Tensor, nn

from ... import checkpoints
from ...errors import ParameterError, check_choice
from ...features.lengths import check_sound
from ..patches import POSITION_FITS, Positions, fit_positions, patch_grid, sincos_positions
from .weights import Sizes, settings_of

NAMES = {"a": "audio", "v": "image"}

Audio = Float[Tensor, "batch frames mels"]
Image = Float[Tensor, "batch channels height width"]
Picture = Float[Tensor, "batch channels rows columns"]
Tokens = Float[Tensor, "batch tokens width"]


class Block(nn.Module):
    """A pre-norm transformer block, whose norms the modality selects.

    The pairs `_a` and `_v` act in `blocks_u` alone. Published checkpoints have them in all blocks, where they get no
    gradient (167,936 parameters): DistributedDataParallel needs `find_unused_parameters=True`.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.norm1, self.norm1_a, self.norm1_v = (nn.LayerNorm(width) for _ in range(3))
        self.attn = Attention(width, heads, qkv_bias=True)  # timm's, through scaled_dot_product_attention
        self.norm2, self.norm2_a, self.norm2_v = (nn.LayerNorm(width) for _ in range(3))
        self.mlp = Mlp(width, width * mlp_ratio)

    def forward(self, x: Tokens, modality: str | None = None) -> Tokens:
        norm1, norm2 = self.norm1, self.norm2
        if modality == "a":
            norm1, norm2 = self.norm1_a, self.norm2_a
        elif modality == "v":
            norm1, norm2 = self.norm1_v, self.norm2_v
        x = x + self.attn(norm1(x))
        return x + self.mlp(norm2(x))


class Encoder(nn.Module):
    """Everything from the inputs to `norm`, `norm_a` and `norm_v`.

    Args:
        tr_pos: train the positional embeddings, which begin as sines and cosines; otherwise they stay these.
        positions: how they are fitted to an input of another size than in `sizes`, "interpolate" or "cut"; see
            `fit_positions`.
    """

    options: ClassVar[tuple[str, ...]] = ("tr_pos", "positions")  # settings besides sizes that are saved

    def __init__(self, sizes: Sizes, tr_pos: bool, positions: str):
        super().__init__()
        check_choice("positions", positions, POSITION_FITS)
        self.sizes, self.tr_pos, self.positions = sizes, tr_pos, positions
        D, H = sizes.width, sizes.heads
        # In the published order, since each part draws its initial weights when it is made.
        self.patch_embed_a = PatchEmbed(None, sizes.audio_patch, 1, D)
        self.modality_a = nn.Parameter(torch.zeros(1, 1, D))
        self.pos_embed_a = self._positions("a", D)
        self.patch_embed_v = PatchEmbed(None, sizes.image_patch, sizes.image_channels, D)
        self.modality_v = nn.Parameter(torch.zeros(1, 1, D))
        self.pos_embed_v = self._positions("v", D)
        self.blocks_a = self._blocks(sizes.modality_depth, D, H)
        self.blocks_v = self._blocks(sizes.modality_depth, D, H)
        self.blocks_u = self._blocks(sizes.shared_depth, D, H)
        self.norm_a, self.norm_v, self.norm = nn.LayerNorm(D), nn.LayerNorm(D), nn.LayerNorm(D)

    def _blocks(self, depth: int, width: int, heads: int) -> nn.ModuleList:
        return nn.ModuleList(Block(width, heads, self.sizes.mlp_ratio) for _ in range(depth))

    def _positions(self, m: str, width: int) -> nn.Parameter:
        return nn.Parameter(sincos_positions(width, self.sizes.grids[m]), requires_grad=self.tr_pos)

    def _initialize(self) -> None:
        """Draw the weights as published: Xavier, and normal for learned tokens."""
        for patch_embed in (self.patch_embed_a, self.patch_embed_v):
            nn.init.xavier_uniform_(patch_embed.proj.weight.detach().flatten(1))
        for name, parameter in self.named_parameters(recurse=False):
            if "pos_embed" not in name:
                nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def pictures(self, audio: Audio | None, image: Image | None) -> dict[str, Float[Tensor, "_ _ _ _"]]:
        """Inputs as pictures, by modality; rows of audio are mel bins."""
        pictures = {"a": None if audio is None else audio.transpose(1, 2).unsqueeze(1), "v": image}
        pictures = {m: picture for m, picture in pictures.items() if picture is not None}
        if not pictures:
            raise ParameterError("audio, image", "neither is given", "at least one")
        for m, picture in pictures.items():
            self.grid(m, picture)
        return pictures  # (B, 1, 128, 1024), (B, 3, 224, 224)

    def grid(self, m: str, picture: Picture) -> tuple[int, int]:
        """Rows and columns of patches in a picture of any size."""
        return patch_grid(NAMES[m], tuple(picture.shape[-2:]), self.sizes.patches[m])

    def place(self, positions: Positions, m: str, grid: tuple[int, int]) -> Float[Tensor, "1 fitted width"]:
        """Positional embeddings of a modality, fitted to the grid of an input."""
        return fit_positions(positions, self.sizes.grids[m], grid, self.positions)

    def embed(self, m: str, picture: Picture) -> Tokens:
        """Patches as tokens, with position and modality (paper equations 2 and 3)."""
        grid = self.grid(m, picture)
        if m == "a":
            x = self.patch_embed_a(picture)  # (B, 512, 768)
            return x + self.place(self.pos_embed_a, m, grid) + self.modality_a
        x = self.patch_embed_v(picture)  # (B, 196, 768)
        return x + self.place(self.pos_embed_v, m, grid) + self.modality_v

    def specific(self, m: str, x: Tokens) -> Tokens:
        for block in self.blocks_a if m == "a" else self.blocks_v:
            x = block(x)
        return x

    def shared(self, m: str | None, x: Tokens) -> Tokens:
        """The shared blocks, with a modality's norms or (None) the joint ones.

        Several shared blocks feed each other. The published pretraining gives each the same input and keeps the last
        output; with one block, as in the published models, there is no difference.
        """
        for block in self.blocks_u:
            x = block(x, m)
        if m is None:
            return self.norm(x)
        return self.norm_a(x) if m == "a" else self.norm_v(x)

    def encode(
        self, audio: Audio | None = None, image: Image | None = None
    ) -> tuple[Float[Tensor, "batch audio_tokens D"] | None, Float[Tensor, "batch image_tokens D"] | None]:
        """Unmasked tokens of each modality, `(B, 512, 768)` and `(B, 196, 768)`, for retrieval; None if not given.

        Inputs are those of pretraining. Published: `forward_feat`.
        """
        for name, given in (("audio", audio), ("image", image)):
            if given is not None:
                check_sound(given, name, math.inf)
        pictures = self.pictures(audio, image)
        tokens = {m: self.shared(m, self.specific(m, self.embed(m, picture))) for m, picture in pictures.items()}
        return tokens.get("a"), tokens.get("v")

    def save(self, path: Path | str) -> None:
        settings = asdict(self.sizes) | {name: getattr(self, name) for name in self.options}
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "settings": settings})

    @classmethod
    def from_checkpoint(cls, path: Path | str, **settings) -> Encoder:
        """Build a model from published weights or a folder of `save`.

        `settings` are as the class takes them; sizes that are not given are read from the file.

        Raises:
            ParameterError: the number of attention heads is needed, which weights do not show.
        """
        tensors, config = checkpoints.read(path)
        model = cls(**settings_of(cls, tensors, config, cls.options, settings))
        checkpoints.load(model, path, tensors)
        return model
