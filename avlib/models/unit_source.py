"""Speech from units by a source and a filter: predicted pitch drives pulses, and a network shapes them and noise.

    units (B, N), speaker (B, 256) -> hertz (B, N) -> pulses (B, 320 N), one in each period
                                   -> hidden (B, 144, N) -> gains of 48 bands every 5 ms, of pulses and of noise
    both sources -> transform of 20 ms -> times gains -> sum -> waveform (B, 1, 320 N), 16 kHz

A generator that sees units alone has to invent when each period of the voice begins, which no loss on magnitudes can
teach: it whispers. Here the periods are given. Source and filter are Fant's model (1960); gains by a network are those
of Engel et al., "DDSP", ICLR 2020, and Wang et al., "Neural Source-Filter Waveform Models", TASLP 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError
from ..features import SAMPLE_RATE, valid_mask
from ..features.harmonics import phases, turns
from ..settings import Count, settings
from .durations import DurationConfig, DurationPredictor
from .hifigan import masked
from .recognizer import ResidualLayer
from .unit_speech import UnitSpeech

FRAME, HOP = 320, 80  # samples of a transform, and from one to the next: four in a unit
HIGHEST = 7600.0  # Hz, of harmonics
LOUDEST = 4.0  # of the logarithm of a gain
_MEAN, _RANGE = 150.0, (40.0, 600.0)  # Hz, of the pitch
_SMOOTH = 11  # units
_BLOCK = 50  # units whose noise is drawn at once

Units = Int[Tensor, "batch units"]
Hertz = Float[Tensor, "batch units"]  # pitch in the middle of each unit
Waveform = Float[Tensor, "batch 1 samples"]


@settings
class Config:
    """Sizes of the network."""

    num_embeddings: Count = 1000  # K, the number of units
    embedding_dim: Count = 128
    embedder_dim: Count = 256  # of the speaker vector
    width: Count = 144
    layers: Count = 5  # residual convolutions over five units each
    bands: Count = 48
    pitch_width: Count = 64
    code_hop_size: Count = 320  # samples of a unit
    dur_predictor_params: DurationConfig | None = DurationConfig()


class PitchPredictor(nn.Module):
    """Pitch of units at full rate, from five layers over five units each."""

    def __init__(self, config: Config):
        super().__init__()
        width = config.pitch_width
        self.dict, self.spkr = nn.Embedding(config.num_embeddings, width), nn.Linear(config.embedder_dim, width)
        self.layers = nn.ModuleList([ResidualLayer(width) for _ in range(config.layers)])
        self.out = nn.Linear(width, 1)

    def forward(
        self, units: Units, speaker: Float[Tensor, "batch width"], mask: Bool[Tensor, "batch 1 units"] | None = None
    ) -> Hertz:
        """Return hertz in the middle of each unit."""
        x = (self.dict(units) + self.spkr(speaker)[:, None]).transpose(1, 2)  # (B, 64, N)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.out(x.transpose(1, 2)).transpose(1, 2)  # (B, 1, N)
        return (_MEAN * _smooth(x, mask).squeeze(1).exp()).clamp(*_RANGE)


class UnitSource(UnitSpeech):
    """See the module; it is called as `UnitVocoder` is, and its parameters have names of their own."""

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        D, W = config.embedding_dim, config.width
        self.dict = nn.Embedding(config.num_embeddings, D)
        self.spkr = nn.Linear(config.embedder_dim, D)
        self.dur_predictor = config.dur_predictor_params and DurationPredictor(config.dur_predictor_params)
        self.first = nn.Conv1d(2 * D, W, 1)
        self.layers = nn.ModuleList([ResidualLayer(W) for _ in range(config.layers)])
        self.pitch = PitchPredictor(config)
        self.up = nn.ConvTranspose1d(W, W, 2 * (config.code_hop_size // HOP), config.code_hop_size // HOP, padding=2)
        self.gains = nn.Conv1d(W, 2 * config.bands, 3, padding=1)
        with torch.no_grad():  # begin with pulses louder than noise: from equal ones, some trainings keep to noise
            self.gains.bias.copy_(torch.tensor([-1.0, -4.0]).repeat_interleave(config.bands))
        self.register_buffer("bands", _bands(config.bands), persistent=False)  # (bands, 161)
        self.register_buffer("window", torch.hann_window(FRAME), persistent=False)
        self.context = 2 * config.layers + 9

    def synthesize(
        self, units: Units, speaker: Float[Tensor, "batch width"], hertz: Hertz,
        noise: Float[Tensor, "batch samples"] | None = None, lengths: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Waveform, Hertz]:  # fmt: skip
        """Speak units at a given pitch, as in training; return the pitch that the network predicts, too.

        Args:
            units: `(B, N)`, at full rate.
            hertz: pitch in the middle of each unit, through unvoiced ones too.
            noise: `(B, 320 N)`, of variance 1; None: always the same.
            lengths: `(B,)`, valid units.
        """
        x, mask = self._hidden(units, speaker, lengths)
        return self._shaped(x, mask, hertz, noise, lengths), self.pitch(units, speaker, mask)

    def hertz(self, units: Units, speaker: Float[Tensor, "*speakers width"]) -> Hertz:
        """Predict the pitch in the middle of each unit at full rate, in Hz."""
        units, _ = self._check_units(units, None)
        return self._hertz(units, self._check_speaker(speaker, len(units)))

    def _generate(self, units: Tensor, speaker: Tensor, lengths: Tensor | None) -> Waveform:
        x, mask = self._hidden(units, speaker, lengths)
        return self._shaped(x, mask, self._hertz(units, speaker, mask), None, lengths)

    def _parts(self, units: Tensor, speaker: Tensor) -> Callable[[int, int], Tensor]:
        """Function that makes the waveform of some of the units, with the phase and the noise of the whole."""
        with torch.no_grad():
            hertz = self._hertz(units, speaker)  # (1, N)
        begins = phases(hertz, SAMPLE_RATE, self.config.code_hop_size)

        def part(first: int, last: int) -> Tensor:
            x, _ = self._hidden(units[:, first:last], speaker, None)
            return self._shaped(x, None, hertz[:, first:last], None, None, begins[:, first], first)

        return part

    def _hidden(self, units: Tensor, speaker: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Hidden values `(B, W, N)`, and a mask `(B, 1, N)` of valid units or None."""
        mask = None if lengths is None else valid_mask(lengths, units.shape[1])[:, None]
        x = self.dict(units).transpose(1, 2)  # (B, D, N)
        x = self.first(torch.cat([x, self.spkr(speaker)[..., None].expand_as(x)], dim=1))  # (B, W, N)
        for layer in self.layers:
            x = layer(x, mask)
        return x, mask

    def _hertz(self, units: Tensor, speaker: Tensor, mask: Tensor | None = None) -> Hertz:
        """Predicted pitch in float64: the phase sums it up over seconds, and harmonics multiply what is off."""
        weights = {name: weight.double() for name, weight in self.pitch.named_parameters()}
        return functional_call(self.pitch, weights, (units, speaker.double(), mask))

    def _shaped(
        self, x: Tensor, mask: Tensor | None, hertz: Tensor, noise: Tensor | None, lengths: Tensor | None,
        phase: float | Tensor = 0.0, start: int = 0,
    ) -> Waveform:  # fmt: skip
        """Pulses and noise, shaped by the gains of hidden values."""
        hop, count = self.config.code_hop_size, x.shape[2]
        if lengths is not None:  # units beyond the last valid one repeat its pitch, so that it ends as it would alone
            hertz = hertz.gather(1, torch.arange(count, device=x.device).minimum(lengths[:, None] - 1))
        keep = None if mask is None else mask.to(x.dtype)
        frames = self.up(masked(x, keep))  # (B, W, 4 N)
        keep = None if keep is None else keep.repeat_interleave(hop // HOP, dim=2)
        gains = self.gains(masked(F.gelu(frames), keep)).clamp(max=LOUDEST)  # (B, 2 * bands, 4 N)
        # Transforms begin a frame before the first sample, and end one after the last: gains at the ends are repeated.
        edge = FRAME // HOP
        at = torch.arange(edge // 2 - edge, gains.shape[2] + edge // 2 + 1, device=x.device)
        last = gains.shape[2] if lengths is None else lengths[:, None] * (hop // HOP)
        at = at.expand(len(x), -1).clamp(min=0).minimum(torch.as_tensor(last, device=x.device) - 1)
        gains = gains.gather(2, at[:, None].expand(-1, gains.shape[1], -1)).unflatten(1, (2, -1))
        gains = torch.einsum("bgkt,kf->bgft", gains, self.bands.to(gains)).exp()  # (B, 2, 161, frames)
        exact = torch.promote_types(x.dtype, torch.float32)  # a GPU transforms no 320 values in half precision
        noise = (self._noise(start, count)[None] if noise is None else noise).to(x.device, exact)
        sources = torch.stack([pulses(hertz, hop, phase).to(exact), noise.expand(len(x), -1)], 1)  # (B, 2, 320 N)
        if mask is not None:
            sources = sources * mask.repeat_interleave(hop, dim=2)
        spectra = F.pad(sources, (FRAME, FRAME)).unfold(2, FRAME, HOP) * self.window.to(exact)  # (B, 2, frames, 320)
        spectrum = (torch.fft.rfft(spectra).transpose(2, 3) * gains).sum(1)  # (B, 161, frames)
        pieces = torch.fft.irfft(spectrum, dim=1) * (self.window.to(exact)[:, None] / 1.5)  # Hann squared sums to 1.5
        size = (1, (count * hop) + 2 * FRAME)
        waveform = F.fold(pieces, size, (1, FRAME), stride=(1, HOP))[:, 0, :, FRAME:-FRAME].tanh()
        return waveform if mask is None else waveform * mask.repeat_interleave(hop, dim=2)

    def _noise(self, first: int, count: int) -> Float[Tensor, " samples"]:
        """Noise of some units, the same wherever a piece begins."""
        hop, blocks = self.config.code_hop_size, range(first // _BLOCK, -(-(first + count) // _BLOCK))
        drawn = [torch.randn(_BLOCK * hop, generator=torch.Generator().manual_seed(block)) for block in blocks]
        return torch.cat(drawn)[(first % _BLOCK) * hop :][: count * hop]

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> UnitSource:
        """Build a vocoder, in evaluation mode, from a folder that `save` wrote."""
        tensors, saved = checkpoints.read(path)
        if saved.get("model") != cls.__name__ or not isinstance(saved.get("config"), Mapping):
            raise CheckpointError(path, f"is {checkpoints.seems_to_be(tensors)}", "a folder that UnitSource.save wrote")
        values = dict(saved["config"])
        predictor = values.pop("dur_predictor_params", None)
        model = cls(Config(**values, dur_predictor_params=predictor and DurationConfig(**predictor)))
        checkpoints.load(model, path, tensors)
        return model.eval()


def pulses(
    hertz: Float[Tensor, "batch units"], hop_length: int, phase: float | int | Float[Tensor, " batch"] = 0.0
) -> Float[Tensor, "batch samples"]:
    """Sum of cosines of all harmonics up to 7600 Hz, of variance 1, whose period is that of a moving pitch.

    It is `(sin((K + 1/2) x) / sin(x / 2) - 1) / 2` for K harmonics of the angle x.
    """
    angles = 2 * math.pi * (turns(hertz, SAMPLE_RATE, hop_length, phase) % 1)
    count = (HIGHEST / hertz).floor().clamp(min=1).repeat_interleave(hop_length, dim=1)  # K at each sample
    low = (angles / 2).sin()
    ratio = ((count + 0.5) * angles).sin() / low.where(low.abs() > 1e-9, 1.0)
    return ((ratio.where(low.abs() > 1e-9, 2 * count + 1) - 1) / 2) * (2 / count).sqrt()


def _smooth(x: Float[Tensor, "batch 1 units"], mask: Bool[Tensor, "batch 1 units"] | None) -> Tensor:
    """Means over 180 ms, as pitch moves slowly; near an end, over the units that are there."""
    weights = torch.hann_window(_SMOOTH, periodic=False, dtype=x.dtype, device=x.device)[None, None]
    keep = torch.ones_like(x) if mask is None else mask.to(x.dtype)
    total, weight = (F.conv1d(track, weights, padding=_SMOOTH // 2) for track in (x * keep, keep))
    return total / weight.clamp(min=1e-6)


def _bands(count: int) -> Float[Tensor, "bands bins"]:
    """Triangles that are linear between bands, spaced evenly on the mel scale."""
    mel = 1127 * torch.log1p(torch.linspace(0, SAMPLE_RATE / 2, FRAME // 2 + 1) / 700)
    place = mel / mel[-1] * (count - 1)
    return (1 - (place - torch.arange(count)[:, None]).abs()).clamp(min=0)
