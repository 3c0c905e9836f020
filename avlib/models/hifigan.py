"""HiFi-GAN's generator and its parts: convolutions with weight norm, the residual block, a check of its sizes.

PyTorch's own weight norm is deprecated, or names its parameters otherwise. Here they have the names of published files,
`weight_g` and `weight_v`, and a layer can be copied.

Source: Kong et al., "HiFi-GAN", NeurIPS 2020, and its code (jik876/hifi-gan); Salimans and Kingma, "Weight
Normalization", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ParameterError

SLOPE = 0.1  # of the leaky ReLUs

Signal = Float[Tensor, "batch channels time"]
Mask = Float[Tensor, "batch 1 time"]  # ones and zeros


class WeightNorm:
    """Mixin for a convolution of weight g v / |v|, with a norm for each entry of its first axis.

    That axis is the output channel of a convolution, and the input channel of a transposed one.
    """

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        weight = self._parameters.pop("weight")
        self.weight_g, self.weight_v = nn.Parameter(_norm(weight.detach())), weight

    def forward(self, x: Float[Tensor, "batch channels *places"]) -> Float[Tensor, "batch outputs *frames"]:
        return self._conv_forward(x, self.effective_weight(), self.bias)

    def effective_weight(self) -> Tensor:
        """Return g v / |v|, or the plain weight after `remove_weight_norm`."""
        if "weight" in self._parameters:
            return self.weight
        return self.weight_v * (self.weight_g / _norm(self.weight_v))

    def remove_weight_norm(self) -> None:
        """Replace g and v by the weight, which is then not computed in each run."""
        if "weight" not in self._parameters:
            weight = nn.Parameter(self.effective_weight().detach(), self.weight_v.requires_grad)
            del self.weight_g, self.weight_v
            self.weight = weight


class Conv1d(WeightNorm, nn.Conv1d):
    """Convolution over time with weight norm."""


class Conv2d(WeightNorm, nn.Conv2d):
    """Convolution over two axes with weight norm."""


class ConvTranspose1d(WeightNorm, nn.ConvTranspose1d):
    """Transposed convolution over time with weight norm."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose1d(x, weight, bias, self.stride, self.padding)


class ResBlock(nn.Module):
    """HiFi-GAN's residual block "1": three pairs of convolutions, the first of each pair dilated."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int] = (1, 3, 5)):
        super().__init__()

        def conv(dilation: int) -> Conv1d:
            padding = (kernel_size - 1) * dilation // 2
            return Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)

        self.convs1 = nn.ModuleList(map(conv, dilations))
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Signal, mask: Mask | None = None) -> Signal:
        """Return x with three residuals added; a mask of ones and zeros is applied before each convolution."""
        for first, second in zip(self.convs1, self.convs2, strict=True):
            y = first(masked(F.leaky_relu(x, SLOPE), mask))
            y = second(masked(F.leaky_relu(y, SLOPE, inplace=True), mask))
            x = y.add_(x)
        return x


class Generator(nn.Module):
    """Generator of HiFi-GAN: each transposed convolution is followed by the mean of its residual blocks.

    `config` has the published sizes, see `check_sizes`.
    """

    config: Any

    def _add_layers(self, inputs: int) -> None:
        config, C = self.config, self.config.upsample_initial_channel
        self.conv_pre = Conv1d(inputs, C, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.ups.append(ConvTranspose1d(C, C // 2, kernel, rate, padding=(kernel - rate) // 2))
            C //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResBlock(C, size, dilations))
        self.conv_post = Conv1d(C, 1, 7, padding=3)

    @property
    def context(self) -> int:
        """Positions that a piece needs on each side, so that its middle is that of the whole."""
        stages = zip(self.config.upsample_rates, self.config.upsample_kernel_sizes, strict=True)
        blocks = zip(self.config.resblock_kernel_sizes, self.config.resblock_dilation_sizes, strict=True)
        widest = max((size // 2) * sum(dilation + 1 for dilation in dilations) for size, dilations in blocks)
        reach = 3
        for rate, kernel in reversed(list(stages)):
            reach = -(-(reach + widest + (kernel + rate) // 2 - 1) // rate)
        return reach + 3

    def _sounding(
        self, x: Signal, mask: Mask | None = None, sources: Iterable[Tensor] = ()
    ) -> Float[Tensor, "batch 1 samples"]:
        """Waveform of input channels; beyond the mask every convolution sees zeros. Sources are added at each stage."""
        x, sources, kinds = self.conv_pre(masked(x, mask)), iter(sources), len(self.config.resblock_kernel_sizes)
        for stage, (up, rate) in enumerate(zip(self.ups, self.config.upsample_rates, strict=True)):
            x = up(masked(F.leaky_relu(x, SLOPE, inplace=True), mask))  # (B, 256, 5 N), ..., (B, 16, 320 N)
            if (source := next(sources, None)) is not None:
                x = x + source
            mask = None if mask is None else mask.repeat_interleave(rate, dim=2)
            first, *others = self.resblocks[stage * kinds : (stage + 1) * kinds]
            summed = first(x, mask)
            for block in others:
                summed = summed.add_(block(x, mask))
            x = summed.div_(kinds)
        x = self.conv_post(masked(F.leaky_relu(x, inplace=True), mask))  # here the slope is 0.01, as published
        return masked(x.tanh(), mask)

    def remove_weight_norm(self) -> Generator:
        """Replace weight norm by plain weights, which changes no result and saves its computation."""
        for layer in self.modules():
            if isinstance(layer, WeightNorm):
                layer.remove_weight_norm()
        return self


def check_sizes(config: Any, hop: str) -> None:
    """Raise a ParameterError if published sizes contradict each other; `hop` names the samples of a position."""
    rates, kernels, blocks = config.upsample_rates, config.upsample_kernel_sizes, config.resblock_kernel_sizes
    product, halvings = math.prod(rates), 2 ** len(rates)
    even = all(k >= rate and (k - rate) % 2 == 0 for k, rate in zip(kernels, rates, strict=False))
    for name, fits, expected in (
        ("upsample_kernel_sizes", even and len(kernels) == len(rates), f"{list(rates)}, each plus an even number"),
        ("upsample_initial_channel", config.upsample_initial_channel % halvings == 0, f"a multiple of {halvings}"),
        ("resblock_kernel_sizes", all(k % 2 for k in blocks), "odd numbers"),
        ("resblock_dilation_sizes", 0 < len(blocks) == len(config.resblock_dilation_sizes), "a list for each kernel"),
        (hop, getattr(config, hop) == product, f"{product}, the product of upsample_rates {list(rates)}"),
    ):
        if not fits:
            raise ParameterError(name, f"{getattr(config, name)}", expected)


def masked(x: Signal, mask: Mask | None) -> Tensor:
    """Set positions outside the mask to zero; None keeps all."""
    return x if mask is None else x * mask


def _norm(weight: Tensor) -> Tensor:
    """Norm over all axes but the first, which stay with size 1."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
