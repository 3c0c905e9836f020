"""The denoiser of Diff-SVC: a WaveNet that sees both sides.

Source: DiffWave (Kong et al., 2021, arXiv 2009.09761), as in prophesier/diff-svc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


def masked(x: Float[Tensor, "batch values frames"], valid: Tensor | None) -> Float[Tensor, "batch values frames"]:
    """Set padding to 0, also NaN, which times 0 is NaN."""
    return x if valid is None else x.masked_fill(~valid, 0)


def _conv(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Conv1d:
    layer = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel // 2))
    nn.init.kaiming_normal_(layer.weight)
    return layer


class ResidualLayer(nn.Module):
    """A dilated convolution with gates."""

    def __init__(self, channels: int, condition_size: int, dilation: int):
        super().__init__()
        self.dilated_conv = _conv(channels, 2 * channels, 3, dilation)
        self.diffusion_projection = nn.Linear(channels, channels)
        self.conditioner_projection = _conv(condition_size, 2 * channels)
        self.output_projection = _conv(channels, 2 * channels)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        y = x + self.diffusion_projection(step)[:, :, None]  # (B, 384, T)
        y = masked(y, valid)  # after the step is added: a single item is padded with zeros here
        gate, filtered = (self.dilated_conv(y) + condition).chunk(2, dim=1)  # (B, 768, T), halved
        residual, skip = self.output_projection(gate.sigmoid() * filtered.tanh()).chunk(2, dim=1)
        return (x + residual) / math.sqrt(2), skip


class WaveNet(nn.Module):
    """Diff-SVC's denoiser, a layer for each of the dilations. Published: `DiffNet`."""

    def __init__(self, mels: int, channels: int, condition_size: int, dilations: Sequence[int]):
        super().__init__()
        self.input_projection = _conv(mels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.Mish(), nn.Linear(4 * channels, channels))
        self.residual_layers = nn.ModuleList(ResidualLayer(channels, condition_size, d) for d in dilations)
        self.skip_projection = _conv(channels, channels)
        self.output_projection = _conv(channels, mels)
        nn.init.zeros_(self.output_projection.weight)

    def forward(
        self, x: Float[Tensor, "batch mels frames"], t: Int[Tensor, " batch"] | Float[Tensor, " batch"],
        conditions: Sequence[Float[Tensor, "batch gates frames"]], valid: Bool[Tensor, "batch 1 frames"] | None,
    ) -> Float[Tensor, "batch mels frames"]:  # fmt: skip
        """Prediction `(B, 128, T)` from the projected condition of each layer."""
        x = F.relu(self.input_projection(x))  # (B, 384, T)
        step = self.mlp(time_embedding(t, x.shape[1]).to(x.dtype))  # (B, 384)
        total = 0
        for layer, condition in zip(self.residual_layers, conditions, strict=True):
            x, skip = layer(x, step, condition, valid)
            total = total + skip
        x = total / math.sqrt(len(self.residual_layers))
        return self.output_projection(F.relu(self.skip_projection(x)))  # (B, 128, T)


def time_embedding(t: Int[Tensor, " batch"] | Float[Tensor, " batch"], size: int) -> Float[Tensor, "batch size"]:
    """Sines and cosines of times, not divided by their number."""
    t = t if t.dtype == torch.float64 else t.float()
    rates = torch.exp(torch.arange(size // 2, device=t.device, dtype=t.dtype) * (-math.log(1e4) / (size // 2 - 1)))
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
