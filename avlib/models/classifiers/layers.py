"""Layers of a classifier's head: conditions (word, age) and pooling."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ParameterError
from ...features.lengths import all_hold
from .config import ResolvedConfig

# Conditions


def word_keys(count: int) -> Float[Tensor, " count"]:
    """Return the README's keys of words: `2 j / (count - 1) - 1`, to three decimals."""
    if count == 1:
        return torch.zeros(1)
    return torch.tensor([round(2 * j / (count - 1) - 1, 3) for j in range(count)])


def age_values(count: int, momentum: float | int = 1.0) -> Float[Tensor, " count"]:
    """Return the README's values of ages: `i / (count - 1)` times the momentum."""
    return torch.tensor([i / max(1, count - 1) * momentum for i in range(count)])


def check_numbers(
    given: Mapping[str, Tensor | None], config: ResolvedConfig, batch: int, device: torch.device
) -> dict[str, Int[Tensor, " batch"]]:
    """Return the numbers of words and ages that the settings need, checked."""
    found = {}
    for name in config.needs:
        numbers, count = given[name], config.count(name)
        if numbers is None:
            kind = config.conditions.get(name, "rows that no mel bin fills")
            advice = f"Hand over {name}=, a number from 0 to {count - 1} for each clip."
            raise ParameterError(name, "not given", f"the {name} of each clip, for {kind!r}", advice)
        if numbers.shape != (batch,):
            raise ParameterError(name, f"shape {tuple(numbers.shape)}", f"({batch},), one number for each clip")
        numbers = numbers.to(device)
        if not all_hold((numbers >= 0) & (numbers < count)):
            wrong = numbers[(numbers < 0) | (numbers >= count)].unique().tolist()
            advice = f"-1 stands for an unknown one. Leave these clips out, or set num_{name}s."
            raise ParameterError(name, f"{wrong}", f"numbers from 0 to {count - 1}", advice)
        found[name] = numbers
    return found


class Rows(nn.Module):
    """Rows under a spectrogram: from the bottom the word's, the age's, the age again."""

    def __init__(self, config: ResolvedConfig):
        super().__init__()
        self.config = config
        self.register_buffer("word_keys", config.word_scale * word_keys(config.num_words), persistent=False)
        self.register_buffer("age_values", age_values(config.num_ages, config.age_momentum), persistent=False)

    def forward(
        self, values: Float[Tensor, "batch mels columns"], numbers: Mapping[str, Int[Tensor, " batch"]]
    ) -> Float[Tensor, "batch rows columns"]:
        rows = []
        if self.config.fill_rows:
            rows.append(self.age_values[numbers["age"]][:, None].expand(-1, self.config.fill_rows))
        scales = {"age": self.config.age_momentum, "word": self.config.word_scale}
        for name, keys in (("age", self.age_values), ("word", self.word_keys)):
            kind = self.config.conditions.get(name)
            if kind == "row":
                rows.append(keys[numbers[name]][:, None])
            elif kind == "one_hot_rows":
                rows.append(scales[name] * F.one_hot(numbers[name], self.config.count(name)))
        if not rows:
            return values
        below = torch.cat([row.to(values) for row in rows], dim=1)  # (B, rows)
        return torch.cat([values, below[..., None].expand(-1, -1, values.shape[-1])], dim=1)


class Film(nn.Module):
    """Feature-wise linear modulation (Perez et al., 2018): `(1 + scale) x + shift`."""

    def __init__(self, count: int, width: int, condition_width: int):
        super().__init__()
        self.table, self.terms_of = nn.Embedding(count, condition_width), nn.Linear(condition_width, 2 * width)

    def terms(self, number: Int[Tensor, " batch"]) -> tuple[Float[Tensor, "batch width"], Float[Tensor, "batch width"]]:
        """Factor and shift of the features."""
        scale, shift = self.terms_of(self.table(number)).chunk(2, dim=1)
        return 1 + scale, shift

    def forward(self, x: Float[Tensor, "batch width"], number: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        scale, shift = self.terms(number)
        return scale * x + shift


class Joined(nn.Module):
    """Learned vectors beside the features, and a layer with GELU over both.

    Without that layer a vector could only shift the logits: in a linear head no word could turn the meaning of a sound
    around.
    """

    def __init__(self, width: int, counts: Mapping[str, int], condition_width: int):
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(count, condition_width) for name, count in counts.items()})
        self.mix = nn.Linear(width + len(counts) * condition_width, width)

    def forward(
        self, x: Float[Tensor, "batch width"], numbers: Mapping[str, Int[Tensor, " batch"]]
    ) -> Float[Tensor, "batch width"]:
        vectors = [table(numbers[name]) for name, table in self.tables.items()]
        return F.gelu(self.mix(torch.cat([x, *vectors], dim=1)))


class Heads(nn.Module):
    """An output layer for each word or age, with weights `(count, outputs, width)`."""

    def __init__(self, count: int, width: int, outputs: int):
        super().__init__()
        bound = width**-0.5  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(count, outputs, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "batch width"], number: Int[Tensor, " batch"]) -> Float[Tensor, "batch outputs"]:
        return torch.einsum("bow,bw->bo", self.weight[number], x) + self.bias[number]


# Pooling of layers and frames


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
        """Weight of each frame: 1 over the number of valid ones, or 0."""
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


class LayerSum(nn.Module):
    """A sum of layers, weighted by a softmax of learned scores (SUPERB, 2021)."""

    def __init__(self, layers: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))

    def forward(self, states: list[Float[Tensor, "batch frames width"]]) -> Float[Tensor, "batch frames width"]:
        return sum(weight * state for weight, state in zip(self.scores.softmax(dim=0), states, strict=True))
