"""The encoder of CAV-MAE, from inputs to tokens, which pretraining and fine-tuning share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from timm.layers import Attention, Mlp, PatchEmbed
from torch import Tensor, nn

from ... import checkpoints
from ...errors import ParameterError
from ..patches import fit_positions, patch_grid, sincos_positions
from .sizes import Sizes, settings_of

NAMES = {"a": "audio", "v": "image"}


class Block(nn.Module):
    """A pre-norm transformer block: one attention, one MLP, and three pairs of norms of which the modality picks one.

    The pairs `_a` and `_v` act in `blocks_u` alone. Elsewhere they are in the published checkpoints too, and get no
    gradient (167,936 parameters): DistributedDataParallel needs `find_unused_parameters=True`.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.norm1, self.norm1_a, self.norm1_v = (nn.LayerNorm(width) for _ in range(3))
        self.attn = Attention(width, heads, qkv_bias=True)  # timm's, through scaled_dot_product_attention
        self.norm2, self.norm2_a, self.norm2_v = (nn.LayerNorm(width) for _ in range(3))
        self.mlp = Mlp(width, width * mlp_ratio)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], modality: str | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        pair = f"_{modality}" if modality else ""
        x = x + self.attn(getattr(self, f"norm1{pair}")(x))
        return x + self.mlp(getattr(self, f"norm2{pair}")(x))


class Encoder(nn.Module):
    """What pretraining and fine-tuning share: everything from the inputs to `norm`, `norm_a` and `norm_v`.

    Args:
        sizes: of the network.
        tr_pos: train the positions, which begin as sines and cosines; otherwise they stay these.
        positions: what is done to them when an input is larger or smaller than `sizes` say, "interpolate" or "cut";
            see `fit_positions`.
    """

    modalities: ClassVar[str] = "av"
    options: ClassVar[tuple[str, ...]] = ("tr_pos", "positions")  # settings besides sizes that are saved

    def __init__(self, sizes: Sizes, tr_pos: bool, positions: str):
        super().__init__()
        self.sizes, self.tr_pos, self.positions = sizes, tr_pos, positions
        D = sizes.width
        # In the published order, so that a seed gives the published initial weights.
        for m in self.modalities:
            setattr(self, f"patch_embed_{m}", PatchEmbed(None, sizes.patches[m], sizes.channels[m], D))
            setattr(self, f"modality_{m}", nn.Parameter(torch.zeros(1, 1, D)))
            setattr(self, f"pos_embed_{m}", self._positions(m, D))
        for m in self.modalities:
            setattr(self, f"blocks_{m}", self._blocks(sizes.modality_depth, D, sizes.heads))
        self.blocks_u = self._blocks(sizes.shared_depth, D, sizes.heads)
        for m in self.modalities:
            setattr(self, f"norm_{m}", nn.LayerNorm(D))
        self.norm = nn.LayerNorm(D)

    def _blocks(self, depth: int, width: int, heads: int) -> nn.ModuleList:
        return nn.ModuleList(Block(width, heads, self.sizes.mlp_ratio) for _ in range(depth))

    def _positions(self, m: str, width: int) -> nn.Parameter:
        return nn.Parameter(sincos_positions(width, self.sizes.grids[m]), requires_grad=self.tr_pos)

    def _initialize(self) -> None:
        """As published: Xavier for patches and linear layers, a small normal for the learned tokens."""
        for m in self.modalities:
            nn.init.xavier_uniform_(getattr(self, f"patch_embed_{m}").proj.weight.detach().flatten(1))
        for name, parameter in self.named_parameters(recurse=False):
            if "pos_embed" not in name:
                nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def pictures(
        self,
        audio: Float[Tensor, "batch frames mels"] | None,
        image: Float[Tensor, "batch channels height width"] | None,
    ) -> dict[str, Float[Tensor, "_ _ _ _"]]:
        """The inputs that are there, as pictures to cut into patches: an fbank gets mel as rows and time as columns.

        Raises:
            ParameterError: no input, or one whose sides are not multiples of the patch.
        """
        pictures = {"a": None if audio is None else audio.transpose(1, 2).unsqueeze(1), "v": image}
        pictures = {m: picture for m, picture in pictures.items() if picture is not None}
        if not pictures:
            raise ParameterError("audio, image", "neither is given", "at least one")
        for m, picture in pictures.items():
            self.grid(m, picture)
        return pictures  # (B, 1, 128, 1024), (B, 3, 224, 224)

    def grid(self, m: str, picture: Float[Tensor, "batch channels rows columns"]) -> tuple[int, int]:
        """Rows and columns of patches in a picture, whatever size the model was built for."""
        return patch_grid(NAMES[m], tuple(picture.shape[-2:]), self.sizes.patches[m])

    def place(self, name: str, m: str, grid: tuple[int, int]) -> Float[Tensor, "1 patches width"]:
        """What tells a token its place and modality: positions (`name` = "pos_embed") fitted to the grid."""
        return fit_positions(getattr(self, f"{name}_{m}"), self.sizes.grids[m], grid, self.positions)

    def embed(self, m: str, picture: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch tokens D"]:
        """Patches as tokens that know their place and their modality (paper equations 2 and 3)."""
        tokens = getattr(self, f"patch_embed_{m}")(picture)  # (B, 512, 768)
        return tokens + self.place("pos_embed", m, self.grid(m, picture)) + getattr(self, f"modality_{m}")

    def specific(self, m: str, tokens: Float[Tensor, "batch tokens D"]) -> Float[Tensor, "batch tokens D"]:
        """The blocks of one modality."""
        for block in getattr(self, f"blocks_{m}"):
            tokens = block(tokens)
        return tokens

    def shared(self, m: str | None, tokens: Float[Tensor, "batch tokens D"]) -> Float[Tensor, "batch tokens D"]:
        """The blocks that both modalities share, with the norms of one of them, or (None) those of both together.

        Several shared blocks feed each other. The published pretraining gives each the same input and keeps the last
        output, in effect one block; with the one that published models have, there is no difference.
        """
        for block in self.blocks_u:
            tokens = block(tokens, m)
        return getattr(self, f"norm_{m}" if m else "norm")(tokens)

    def encode(
        self,
        audio: Float[Tensor, "batch frames mels"] | None = None,
        image: Float[Tensor, "batch channels height width"] | None = None,
    ) -> tuple[Float[Tensor, "batch audio_tokens D"] | None, Float[Tensor, "batch image_tokens D"] | None]:
        """Tokens of each modality by itself, nothing hidden: what retrieval compares (published: `forward_feat`).

        Args:
            audio: `(B, 1024, 128)`, normalised fbank, or None.
            image: `(B, 3, 224, 224)`, normalised pixels, or None.

        Returns:
            `(B, 512, 768)` and `(B, 196, 768)`; None for what was not given.

        Raises:
            ParameterError: no input, or one whose sides are not multiples of the patch.
        """
        pictures = self.pictures(audio, image)
        tokens = {m: self.shared(m, self.specific(m, self.embed(m, picture))) for m, picture in pictures.items()}
        return tokens.get("a"), tokens.get("v")

    def save(self, path: Path | str) -> None:
        """Write weights and settings, of which `from_checkpoint` makes the same model; see `checkpoints.save`."""
        settings = asdict(self.sizes) | {name: getattr(self, name) for name in self.options}
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "settings": settings})

    @classmethod
    def from_checkpoint(cls, path: Path | str, **settings) -> Self:
        """Build a model from published weights, or from a folder that `save` wrote. Every parameter must fit.

        Args:
            path: `.pth` or safetensors, names with or without the prefix `module.`; or a folder.
            settings: as the class takes them. Sizes that are not given are read from the file.

        Raises:
            CheckpointError: the file cannot be read or does not fit.
            ParameterError: a number of attention heads is needed, which weights do not tell.
        """
        tensors, config = checkpoints.read(path)
        model = cls(**settings_of(cls, tensors, config, cls.options, settings))
        checkpoints.load(model, path, tensors)
        return model
