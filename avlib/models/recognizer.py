"""A small recogniser of sounds: a class every 20 ms, from a log-mel spectrogram by convolutions.

    waveform (B, N) at 16 kHz -> log-mel (B, N // 160, 40) -> hidden (B, U, width) -> logits (B, U, classes)

U = N // 320: unit j is centred at (j + .5) * 20 ms, as HuBERT's are. Trained on vowels of many voices, its posteriors
stand in for HuBERT's units; trained on voices, it judges who sings. Nothing is normalised over time, so that a part of
a sound gives what the whole gives, `context` units away from its ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, TooShortError
from ..features import SAMPLE_RATE, kaldi_fbank, valid_mask, without_padding
from ..settings import Count, Natural, settings

UNIT = 320  # samples from one unit to the next: 20 ms
_EDGE = 120  # samples on each side, by which frame k of 25 ms is centred at (k + .5) * 10 ms
Waveform = Float[Tensor, "batch samples"]
Lengths = Int[Tensor, " batch"]
Hidden = Float[Tensor, "batch width units"]
_LEVEL, _SPREAD = -9.0, 4.0  # mean and deviation of log energies of a sung or spoken voice, roughly


@settings
class Config:
    """Sizes of a recogniser; `classes` are names, in the order of the logits."""

    classes: Annotated[Sequence[str], Field(min_length=1)]
    mels: Count = 40
    width: Count = 96  # channels of all layers
    layers: Natural = 4  # residual convolutions over five units each


class Recognizer(nn.Module):
    """See the module; `context` counts the units on each side that a unit depends on."""

    sample_rate, hop_length = SAMPLE_RATE, UNIT

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.classes, self.width = config, tuple(config.classes), config.width
        self.first = nn.Conv1d(config.mels, config.width, 4, stride=2, padding=1)
        self.layers = nn.ModuleList([ResidualLayer(config.width) for _ in range(config.layers)])
        self.head = nn.Linear(config.width, len(config.classes))
        self.context = 2 + 2 * config.layers

    def log_mel(self, waveform: Waveform) -> Float[Tensor, "batch frames mels"]:
        """Kaldi's log energies of 10 ms frames, `(B, samples // 160, mels)`, scaled to about -2 to 2."""
        if waveform.shape[1] < UNIT:
            raise TooShortError("waveform", f"{waveform.shape[1]} samples", f"at least {UNIT}, one unit of 20 ms")
        fbank = kaldi_fbank(F.pad(waveform, (_EDGE, _EDGE)), SAMPLE_RATE, self.config.mels)
        return (fbank - _LEVEL) / _SPREAD

    def hidden(self, waveform: Waveform, lengths: Lengths | None = None) -> Float[Tensor, "batch units width"]:
        """The last layer's values for each unit of a waveform at 16 kHz.

        With `lengths`, valid samples, a row gives in its first `lengths // 320` what it gives alone.
        """
        if lengths is not None:
            waveform = without_padding(waveform, lengths)
        fbank = self.log_mel(waveform).transpose(1, 2)  # (B, mels, 2 U)
        frames, mask = fbank.shape[2] // 2, None
        if lengths is not None:
            fbank = fbank.masked_fill(~valid_mask(lengths // 160, fbank.shape[2])[:, None], 0.0)
            mask = valid_mask(lengths // UNIT, frames)[:, None]  # (B, 1, U)
        x = self.first(fbank)[..., :frames]  # (B, width, U)
        for layer in self.layers:
            x = layer(x, mask)
        return x.transpose(1, 2)

    def forward(self, waveform: Waveform, lengths: Lengths | None = None) -> Float[Tensor, "batch units classes"]:
        """Logits of each unit; see `hidden`."""
        return self.head(self.hidden(waveform, lengths))

    def save(self, path: Path | str) -> None:
        """Write a folder for `from_checkpoint`; see `checkpoints.save`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "config": asdict(self.config)})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> Recognizer:
        """Build a recogniser from a folder that `save` wrote."""
        tensors, config = checkpoints.read(path)
        if config.get("model") != cls.__name__ or not isinstance(config.get("config"), Mapping):
            raise CheckpointError(path, "is not a recogniser", "a folder that Recognizer.save wrote")
        model = cls(Config(**config["config"]))
        checkpoints.load(model, path, tensors)
        return model


class ResidualLayer(nn.Module):
    """A residual convolution over five units, and a norm over the channels of each."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(width), nn.Conv1d(width, width, 5, padding=2)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: Hidden, mask: Bool[Tensor, "batch 1 units"] | None) -> Hidden:
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        y = y if mask is None else y.masked_fill(~mask, 0.0)  # an unpadded row has zeros beyond its end too
        return x + self.out(F.gelu(self.conv(y)))
