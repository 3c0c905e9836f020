"""Durations of units: their predictor, what it learns from, and durations that fill a given time."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..errors import ParameterError, check_whole
from ..features import run_lengths, valid_mask
from ..settings import BelowOne, Count, settings
from .hifigan import masked

Embedded = Float[Tensor, "batch units width"]


@settings
class DurationConfig:
    """Settings of the predictor, under their published names."""

    encoder_embed_dim: Count = 128
    var_pred_hidden_dim: Count = 128
    var_pred_kernel_size: Count = 3
    var_pred_dropout: BelowOne = 0.5

    def __post_init__(self):
        if self.var_pred_kernel_size != 3:
            raise ParameterError("var_pred_kernel_size", f"{self.var_pred_kernel_size}", "3, since the padding is 1")


class DurationPredictor(nn.Module):
    """Two convolutions that predict log(1 + duration) of each unit. Published: `VariancePredictor`."""

    def __init__(self, config: DurationConfig):
        super().__init__()
        width, hidden = config.encoder_embed_dim, config.var_pred_hidden_dim
        self.conv1 = nn.Sequential(nn.Conv1d(width, hidden, 3, padding=1), nn.ReLU())
        self.ln1 = nn.LayerNorm(hidden)
        self.conv2 = nn.Sequential(nn.Conv1d(hidden, hidden, 3, padding=1), nn.ReLU())
        self.ln2 = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(config.var_pred_dropout)

    def forward(self, x: Embedded, mask: Bool[Tensor, "batch units"] | None = None) -> Float[Tensor, "batch units"]:
        """Return log(1 + duration); positions outside the mask do not influence the others."""
        keep = None if mask is None else mask[:, None].to(x.dtype)  # (B, 1, N)
        x = self.conv1(masked(x.transpose(1, 2), keep)).transpose(1, 2)  # (B, N, 128)
        x = self.dropout(self.ln1(x))
        x = self.conv2(masked(x.transpose(1, 2), keep)).transpose(1, 2)
        return self.proj(self.dropout(self.ln2(x))).squeeze(2)


def kept_runs(units: Int[Tensor, " units"]) -> tuple[Int[Tensor, " runs"], Int[Tensor, " runs"]]:
    """Place and duration of each run that the duration loss counts.

    Of more than two runs the first and the last are left out, since a cut may have shortened them; a run's place is
    its first unit. Of one or two both are kept, and a run's place is its last unit.
    """
    durations = run_lengths(units)[1]
    ends = durations.cumsum(0)
    if len(durations) > 2:
        return ends[:-2], durations[1:-1]
    return ends - 1, durations


def process_duration(
    units: Int[Tensor, "batch units"], features: Embedded, lengths: Int[Tensor, " batch"] | None = None
) -> tuple[Float[Tensor, "batch runs width"], Bool[Tensor, "batch runs"], Float[Tensor, " kept"]]:
    """Features and durations of the runs that the duration loss counts; see `kept_runs`.

    Features, such as an embedding of units at full rate, come back for each run, padded with zeros; then a mask of
    them, True = valid; and the durations of all rows, joined.
    """
    ends = [units.shape[1]] * len(units) if lengths is None else lengths.tolist()
    kept = [kept_runs(row[:end]) for row, end in zip(units, ends, strict=True)]
    padded = pad_sequence([row[places] for row, (places, _) in zip(features, kept, strict=True)], batch_first=True)
    counts = torch.tensor([len(places) for places, _ in kept], device=units.device)
    return padded, valid_mask(counts, padded.shape[1]), torch.cat([durations for _, durations in kept]).float()


def scale_durations(durations: Int[Tensor, " units"], total: int) -> Int[Tensor, " units"]:
    """Scale durations to a sum, none below 1.

    Each gets its quota d * total / sum(d). Quotas below 1 become 1, and the others are computed again from what is left
    until none is. They are rounded down; the largest remainders get one more, earlier ones first. A total below the
    number of durations is refused.
    """
    check_whole("total", total, 1)
    d = durations.tolist()
    if total < len(d):
        raise ParameterError("total", f"{total}", f"at least {len(d)}, one for each unit", "Give a longer total.")
    scaled, free, left = [1] * len(d), list(range(len(d))), total
    whole = sum(d)
    while low := {i for i in free if d[i] * left < whole}:  # whole numbers, so that equal quotas stay equal
        free, left = [i for i in free if i not in low], left - len(low)
        whole = sum(d[i] for i in free)
    remainders = {}
    for i in free:
        scaled[i], remainders[i] = divmod(d[i] * left, whole)
    for i in sorted(free, key=lambda i: -remainders[i])[: total - sum(scaled)]:  # sorting keeps the order of equals
        scaled[i] += 1
    return durations.new_tensor(scaled)
