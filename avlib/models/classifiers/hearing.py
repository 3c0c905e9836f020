"""What all backbones have in common: from a waveform to features, and from these to frames."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .settings import SMALL_LAYERS, Config

SMALL_WIDTH, SMALL_HEADS = 64, 4


class Features(NamedTuple):
    """What a network takes: `values` are spectrograms `(B, rows, T)`, low bands first, or waveforms `(B, samples)`;
    `lengths` `(B,)` counts their valid columns, or samples.
    """

    values: Float[Tensor, "batch ..."]
    lengths: Int[Tensor, " batch"]


class Layers(NamedTuple):
    """Hidden states of layers, `(B, N, d)` each, and which frames are of the clip, `(B, N)`, True = valid."""

    states: list[Float[Tensor, "batch frames width"]]
    mask: Bool[Tensor, "batch frames"]


class Backbone(nn.Module):
    """A network with what it needs around it. Frames are ordered by time and then from low to high bands, of which only
    networks of patches and of pictures have more than one.

    `network` is the published class, under whose names weights are; `width` that of its frames; `bands` how many
    frames there are for one time.
    """

    bands = 1

    def __init__(self, config: Config, network: nn.Module, width: int):
        super().__init__()
        self.config, self.network, self.width = config, network, width

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip that it hears; one that is shorter is padded with zeros to that."""
        raise NotImplementedError

    def features(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"]) -> Features:
        """Of waveforms that are zero beyond their lengths, and at least `shortest` long."""
        raise NotImplementedError

    def hear(self, features: Features) -> Layers:
        """The last layer, or with `layer_sum` all of them."""
        raise NotImplementedError

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Its first convolutions, and its layers: what can be frozen by itself."""
        raise NotImplementedError

    @property
    def num_states(self) -> int:
        """How many states `hear` gives with `layer_sum`: what leaves each layer, and mostly what enters the first."""
        return len(self.parts()[1]) + 1

    def _chosen(self, states: list[Tensor]) -> list[Tensor]:
        return states if self.config.layer_sum else states[-1:]


def sizes(config: Config) -> tuple[int, int, int, int]:
    """Width, layers, heads and hidden width of a transformer."""
    facts = config.facts
    if config.small:
        return SMALL_WIDTH, SMALL_LAYERS, SMALL_HEADS, 4 * SMALL_WIDTH
    return facts.width, facts.layers, facts.heads, 4 * facts.width
