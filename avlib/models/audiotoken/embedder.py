"""From what BEATs hears to one word: two linear layers, and attention that picks what to listen to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checkpoints
from ...errors import ParameterError, ShapeError

DROPOUT = 0.5


class Unary(nn.Module):
    """How much a token matters by itself: two linear layers for each token, written as convolutions of width 1."""

    def __init__(self, width: int):
        super().__init__()
        self.embed, self.feature_reduce = nn.Conv1d(width, width, 1), nn.Conv1d(width, 1, 1)

    def forward(self, a: Float[Tensor, "batch width tokens"], drop: bool) -> Float[Tensor, "batch 1 tokens"]:
        return self.feature_reduce(F.dropout(F.relu(self.embed(a)), DROPOUT, training=drop))


class Pairwise(nn.Module):
    """How much a token matters by what it has in common with the others.

    That is the mean over all tokens j of cos(X_i, Y_j), where X and Y are two linear layers of the tokens. A mean of
    products with one X_i is the product with the mean: there is no need for the table of all pairs.
    """

    def __init__(self, width: int):
        super().__init__()
        self.embed_X, self.embed_Y = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)

    def forward(
        self, a: Float[Tensor, "batch width tokens"], valid: Bool[Tensor, "batch 1 tokens"] | None
    ) -> Float[Tensor, "batch 1 tokens"]:
        x, y = (F.normalize(embed(a), dim=1) for embed in (self.embed_X, self.embed_Y))  # (B, 768, N), each of length 1
        if valid is None:
            mean = y.mean(dim=2, keepdim=True)  # (B, 768, 1)
        else:
            mean = y.masked_fill(~valid, 0).sum(dim=2, keepdim=True) / valid.sum(dim=2, keepdim=True)
        return (x * mean).sum(dim=1, keepdim=True)


class Pooling(nn.Module):
    """Weights of tokens, of two potentials. Published: `Atten`, from factor graph attention (Schwartz et al., 2019)."""

    def __init__(self, width: int):
        super().__init__()
        self.un_models = nn.ModuleList([Unary(width)])
        self.pp_models = nn.ModuleList([Pairwise(width)])
        self.reduce_potentials = nn.ModuleList([nn.Conv1d(2, 1, 1, bias=False)])

    def forward(
        self, a: Float[Tensor, "batch width tokens"], mask: Bool[Tensor, "batch tokens"] | None, drop: bool
    ) -> Float[Tensor, "batch tokens"]:
        # Where nothing is valid, all is: finite, and no more.
        valid = None if mask is None else (mask | ~mask.any(dim=1, keepdim=True))[:, None]  # (B, 1, N)
        potentials = torch.cat([self.un_models[0](a, drop), self.pp_models[0](a, valid)], dim=1)  # (B, 2, N)
        potential = self.reduce_potentials[0](potentials)  # (B, 1, N)
        if valid is not None:
            potential = potential.masked_fill(~valid, -math.inf)
        return potential.squeeze(1).softmax(dim=1)


class AudioTokenEmbedder(nn.Module):
    """One token from the features of a sound: 8,853,507 parameters, all that AudioToken trains. Published:
    `FGAEmbedder`.

    The order of tokens does not matter: what is heard is pooled as a set.

    Args:
        in_width: of the features: three layers of BEATs, 2,304.
        width: of the token: that of the text encoder, 768 for Stable Diffusion 1.x.
        reference_dropout: drop half of the unary potential's channels in evaluation too, as published, where a sound
            therefore gives another token each time unless torch is seeded.

    Raises:
        ParameterError: a width that is not positive.
    """

    def __init__(self, in_width: int = 2304, width: int = 768, reference_dropout: bool = False):
        super().__init__()
        for name, value in (("in_width", in_width), ("width", width)):
            if value < 1:
                raise ParameterError(name, f"{value}", "1 or more")
        self.in_width, self.width, self.reference_dropout = in_width, width, reference_dropout
        self.fc1, self.fc2 = nn.Linear(in_width, in_width), nn.Linear(in_width, width)
        self.fga = Pooling(width)

    def forward(
        self, features: Float[Tensor, "batch tokens values"], mask: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch width"]:
        """The token of each sound.

        Args:
            features: `(B, 496, 2304)`, of `BEATs.features`.
            mask: `(B, 496)`, True = valid, of `BEATs.token_mask`; None: all are.

        Returns:
            `(B, 768)`.

        Raises:
            ShapeError: features of another width.
            ParameterError: a mask of another shape.
        """
        a, weights = self._attend(features, mask)
        return (weights[:, None] @ a).squeeze(1)

    def weights(
        self, features: Float[Tensor, "batch tokens values"], mask: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens"]:
        """How much of each token is in the result; the weights of a sound sum to 1, those of padding are 0.

        Arguments and errors are those of `forward`.
        """
        return self._attend(features, mask)[1]

    def _attend(
        self, features: Tensor, mask: Tensor | None
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch tokens"]]:
        if features.shape[-1] != self.in_width:
            advice = "Take as many layers of BEATs, of the same width, as the embedder was trained with."
            raise ShapeError("features", f"{features.shape[-1]} wide", f"{self.in_width}, as the embedder", advice)
        if mask is not None and mask.shape != features.shape[:2]:
            expected = f"{tuple(features.shape[:2])}, a value for each token"
            raise ParameterError("mask", f"shape {tuple(mask.shape)}", expected)
        if mask is not None:
            features = features.masked_fill(~mask[..., None], 0)  # whatever is there: 0 times NaN is NaN
        a = self.fc2(F.gelu(self.fc1(features)))  # (B, 496, 768)
        return a, self.fga(a.transpose(1, 2), mask, self.training or self.reference_dropout)

    def save(self, path: Path | str) -> None:
        """Write weights and settings, of which `from_checkpoint` makes the same model; see `checkpoints.save`."""
        names = ("in_width", "width", "reference_dropout")
        settings = {name: getattr(self, name) for name in names}
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "settings": settings})

    @classmethod
    def from_checkpoint(cls, path: Path | str, *, reference_dropout: bool | None = None) -> AudioTokenEmbedder:
        """Build a model from the published file, or from a folder that `save` wrote. Every parameter must fit.

        Args:
            path: `embedder_learned_embeds.bin`, a flat PyTorch file; or a folder.
            reference_dropout: see the class. None: as saved, or off.

        Raises:
            CheckpointError: the file cannot be read or does not fit.
        """
        tensors, config = checkpoints.read(path)
        saved = config.get("settings")
        if not isinstance(saved, Mapping):
            saved = {}
        if reference_dropout is None:
            reference_dropout = saved.get("reference_dropout") is True
        model = cls(**_widths(tensors), reference_dropout=reference_dropout)
        checkpoints.load(model, path, tensors)
        return model


def _widths(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Those that shapes tell, if they explain the file better than the published ones do: a single odd tensor is
    reported as such, not taken for a width.
    """

    def misfit(widths: dict[str, int]) -> int:
        with torch.device("meta"):
            return sum(map(len, checkpoints.differences(AudioTokenEmbedder(**widths).state_dict(), tensors)))

    fc1, fc2 = tensors.get("fc1.weight"), tensors.get("fc2.weight")
    if fc1 is None or fc2 is None or fc1.ndim != 2 or fc2.ndim != 2:
        return {}
    return min({}, {"in_width": fc1.shape[1], "width": fc2.shape[0]}, key=misfit)
