"""From the frames of a clip to one vector, without its padding."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class MeanPooling(nn.Module):
    """The mean of valid frames."""

    def __init__(self, width: int):
        super().__init__()
        self.out_width = width

    def forward(
        self, frames: Float[Tensor, "batch frames width"], mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch width"]:
        return (frames * self.weights(mask).to(frames)[..., None]).sum(dim=1)

    @staticmethod
    def weights(mask: Bool[Tensor, "batch frames"]) -> Float[Tensor, "batch frames"]:
        """What each frame counts: 1 over the number of valid ones, or 0."""
        return mask / mask.sum(dim=1, keepdim=True)


class AttentivePooling(nn.Module):
    """Attentive statistics: mean and standard deviation of valid frames, weighted by a learned attention.

    Source: Okabe et al., "Attentive Statistics Pooling for Deep Speaker Embedding", Interspeech 2018.
    """

    def __init__(self, width: int, hidden: int = 64):
        super().__init__()
        self.out_width = 2 * width
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(
        self, frames: Float[Tensor, "batch frames width"], mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch both"]:
        score = self.score(frames).squeeze(-1).masked_fill(~mask, -math.inf)
        weights = score.softmax(dim=1)[..., None]  # (B, N, 1)
        frames = frames.masked_fill(~mask[..., None], 0)
        mean = (weights * frames).sum(dim=1)
        variance = (weights * (frames - mean[:, None]).square()).sum(dim=1)
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)  # the root has no slope at 0


POOLINGS = {"mean": MeanPooling, "attention": AttentivePooling}


class LayerSum(nn.Module):
    """A weighted sum of layers; the weights are a softmax of learned numbers, at first equal (SUPERB, 2021)."""

    def __init__(self, layers: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))

    def forward(self, states: list[Float[Tensor, "batch frames width"]]) -> Float[Tensor, "batch frames width"]:
        return sum(weight * state for weight, state in zip(self.scores.softmax(dim=0), states, strict=True))
