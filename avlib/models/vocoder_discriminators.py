"""HiFi-GAN's discriminators and losses.

`MultiPeriod` folds the waveform into rows of 2, 3, 5, 7 and 11 samples; `MultiScale` takes it at three sample rates.

Source: Kong et al., "HiFi-GAN", NeurIPS 2020, equations 1 to 6, and its code (jik876/hifi-gan); the multi-scale part is
of Kumar et al., "MelGAN", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from ..features import vocoder_log_mel
from .hifigan import SLOPE, Conv1d, Conv2d

MEL_WEIGHT, FEATURE_WEIGHT = 45, 2  # of the generator's losses, as published

Wave = Float[Tensor, "batch 1 samples"]
Scores = list[Tensor]  # of each discriminator, (batch, places)
Maps = list[list[Tensor]]  # of each discriminator, the outputs of its layers


class Discriminator(nn.Module):
    """Convolutions that return scores `(batch, places)` and the output of each layer."""

    def __init__(self, convs: Sequence[nn.Module], conv_post: nn.Module):
        super().__init__()
        self.convs, self.conv_post = nn.ModuleList(convs), conv_post

    def forward(self, x: Float[Tensor, "batch 1 *places"]) -> tuple[Float[Tensor, "batch scores"], list[Tensor]]:
        maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            maps.append(x)
        x = self.conv_post(x)
        return x.flatten(1), [*maps, x]


class _Discriminators(nn.Module):
    """Discriminators that each score a real and a generated waveform."""

    discriminators: nn.ModuleList

    def forward(self, real: Wave, fake: Wave) -> tuple[Scores, Scores, Maps, Maps]:
        """Return scores of real and fake, and maps of real and fake, each a list over discriminators."""
        results = []
        for discriminator, a, b in zip(self.discriminators, self.inputs(real), self.inputs(fake), strict=True):
            results.append((*discriminator(a), *discriminator(b)))  # in turn: each run is a step of spectral norm
        scores_real, maps_real, scores_fake, maps_fake = map(list, zip(*results, strict=True))
        return scores_real, scores_fake, maps_real, maps_fake


class MultiPeriod(_Discriminators):
    """Discriminators of periods in samples; 41,105,770 parameters. Layers but the last keep every third row."""

    def __init__(self, periods: Sequence[int] = (2, 3, 5, 7, 11), channels: Sequence[int] = (32, 128, 512, 1024, 1024)):
        super().__init__()
        self.periods = tuple(periods)
        strides = [3] * (len(channels) - 1) + [1]
        layers = list(zip((1, *channels[:-1]), channels, strides, strict=True))
        self.discriminators = nn.ModuleList()
        for _ in periods:
            convs = [Conv2d(a, b, (5, 1), (stride, 1), (2, 0)) for a, b, stride in layers]
            self.discriminators.append(Discriminator(convs, Conv2d(channels[-1], 1, (3, 1), padding=(1, 0))))

    def inputs(self, x: Wave) -> list[Float[Tensor, "batch 1 _ _"]]:
        """Return the waveform folded by each period, its end mirrored to fill the last row."""
        padded = [F.pad(x, (0, -x.shape[2] % period), "reflect") for period in self.periods]
        return [each.unflatten(2, (-1, period)) for each, period in zip(padded, self.periods, strict=True)]


class MultiScale(_Discriminators):
    """Discriminators of several sample rates, each half of the one before; 29,618,821 parameters as published.

    The first of the `scales` has spectral norm, the others weight norm. Each has seven layers of these `channels`.
    """

    def __init__(
        self, scales: int = 3, channels: Sequence[int] = (128, 128, 256, 512, 1024, 1024, 1024),
        groups: Sequence[int] = (1, 4, 16, 16, 16, 16, 1),
    ):  # fmt: skip
        super().__init__()
        kernels, strides = (15, 41, 41, 41, 41, 41, 5), (1, 2, 2, 4, 4, 1, 1)
        layers = list(zip((1, *channels[:-1]), channels, kernels, strides, groups, strict=True))
        self.discriminators = nn.ModuleList()
        for conv in [lambda *sizes, **how: spectral_norm(nn.Conv1d(*sizes, **how))] + [Conv1d] * (scales - 1):
            convs = [conv(a, b, k, stride, k // 2, groups=group) for a, b, k, stride, group in layers]
            self.discriminators.append(Discriminator(convs, conv(channels[-1], 1, 3, padding=1)))

    def inputs(self, x: Wave) -> list[Float[Tensor, "batch 1 _"]]:
        """Return the waveform at each sample rate, averaged over four samples."""
        inputs = [x]
        for _ in self.discriminators[1:]:
            inputs.append(F.avg_pool1d(inputs[-1], 4, 2, padding=2))
        return inputs


def discriminator_loss(scores_real: Scores, scores_fake: Scores) -> Float[Tensor, ""]:
    """Least squares: real towards 1, generated towards 0, summed over discriminators; equation 1."""
    pairs = zip(scores_real, scores_fake, strict=True)
    return torch.stack([(1 - real).square().mean() + fake.square().mean() for real, fake in pairs]).sum()


def adversarial_loss(scores_fake: Scores) -> Float[Tensor, ""]:
    """Least squares: generated towards 1, summed over discriminators; equation 2."""
    return torch.stack([(1 - fake).square().mean() for fake in scores_fake]).sum()


def feature_loss(maps_real: Maps, maps_fake: Maps) -> Float[Tensor, ""]:
    """Twice the mean absolute difference of each map, summed over maps and discriminators; equation 4."""
    layers = [zip(real, fake, strict=True) for real, fake in zip(maps_real, maps_fake, strict=True)]
    return FEATURE_WEIGHT * torch.stack([F.l1_loss(b, a.detach()) for pairs in layers for a, b in pairs]).sum()


def mel_loss(real: Wave, fake: Wave) -> Float[Tensor, ""]:
    """45 times the mean absolute difference of the log-mel spectrograms; equation 3."""
    return MEL_WEIGHT * F.l1_loss(vocoder_log_mel(fake.squeeze(1)), vocoder_log_mel(real.squeeze(1)))
