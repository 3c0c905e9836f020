"""NSF-HiFiGAN: the neural vocoder of diff-svc, which sings the pitch that it is given.

    pitch (B, T) -> nine sines of it, and noise -> source (B, 1, 512 T)
    ln mel (B, 128, T) -> five stages, 8 x 8 x 2 x 2 x 2 longer, to each of which the source is added -> (B, 1, 512 T)

Source: prophesier/diff-svc (`modules/nsf_hifigan`), after openvpi/vocoders; Wang et al., "Neural Source-Filter Waveform
Models", TASLP 2020; Kong et al., "HiFi-GAN", NeurIPS 2020.
"""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import checkpoints
from ..errors import CheckpointError, ParameterError, ShapeError, check_choice
from ..features.lengths import all_hold
from ..features.singing import LN_OF_10, SVC_FLOOR
from ..settings import Count, NonNegative, Positive, settings
from .hifigan import Generator, check_sizes

SINES = 9  # the fundamental and eight overtones
AMPLITUDE, VOICED_NOISE = 0.1, 0.003  # of the sines, and of the noise beside them; without pitch it is AMPLITUDE / 3

Track = Float[Tensor, "batch frames"]
Sines = Float[Tensor, "batch samples sines"]


@settings
class Config:
    """Sizes, as `config.json` names them. The mel is that of the same file."""

    sampling_rate: Count = 44100
    hop_size: Count = 512
    n_fft: Count = 2048
    win_size: Count = 2048
    num_mels: Count = 128
    fmin: NonNegative = 40
    fmax: Positive = 16000
    upsample_rates: tuple[Count, ...] = (8, 8, 2, 2, 2)
    upsample_kernel_sizes: tuple[Count, ...] = (16, 16, 4, 4, 4)
    upsample_initial_channel: Count = 512
    resblock_kernel_sizes: tuple[Count, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[Count, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    def __post_init__(self):
        check_sizes(self, "hop_size")


class NSFHiFiGAN(Generator):
    """Vocoder from ln mel and pitch, with the published parameters: 303 tensors, 14,178,956 numbers."""

    description = "NSF-HiFiGAN: a neural vocoder, driven by sines of the pitch."

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        self.sample_rate, self.hop_length, self.mels = config.sampling_rate, config.hop_size, config.num_mels
        self.m_source = nn.ModuleDict({"l_linear": nn.Linear(SINES, 1)})
        self._add_layers(config.num_mels)
        self.noise_convs = nn.ModuleList()
        for i, up in enumerate(self.ups):
            stride = math.prod(config.upsample_rates[i + 1 :])  # samples of the source in one of this stage
            wide = {"kernel_size": 2 * stride, "stride": stride, "padding": stride // 2}
            self.noise_convs.append(nn.Conv1d(1, up.out_channels, **(wide if stride > 1 else {"kernel_size": 1})))

    def forward(
        self, mel: Float[Tensor, "batch mels frames"], f0: Track, noise: bool | Sines = True,
        generator: torch.Generator | None = None, phase: float | int | Float[Tensor, "*batch"] | None = None, *,
        base: float | int = math.e,
    ) -> Float[Tensor, "batch 1 samples"]:  # fmt: skip
        """Sound of a mel and a pitch, `(B, 1, 512 T)`.

        Args:
            mel: ln mel.
            f0: Hz; 0 is unvoiced.
            noise: True draws noise and the start of each overtone, in the published order; False leaves both out. A
                tensor of `draw` is taken as it is, so that pieces of a longer sound can share it.
            phase: None adds up the phase as published, in float32, whose rounding moves overtones by up to a thousandth
                of a turn in 6 s. Else turns before the first sample, of the fundamental, `(B,)` or a number, or of each
                sine, `(B, 9)`, as `phases` gives them for a piece; then added up in float64.
            base: of the mel's logarithm: e, or 10, which is converted.

        Raises:
            ShapeError: another number of mel bins, or of frames in `f0`.
            ParameterError: another base; values that are not finite; a mel with the floor of log10 given as ln.
        """
        mel = self.checked(mel, f0, base)
        sines = self.sines(f0, noise, generator, phase).to(mel.dtype)
        source = self.m_source.l_linear(sines).tanh().transpose(1, 2)  # (B, 1, 512 T)
        return self._sounding(mel, sources=(conv(source) for conv in self.noise_convs))

    def sines(
        self, f0: Track, noise: bool | Sines, generator: torch.Generator | None = None,
        phase: float | int | Float[Tensor, "*batch"] | None = None,
    ) -> Sines:  # fmt: skip
        """Sines of the pitch and its overtones with noise, `(B, 512 T, 9)`, before they are mixed."""
        numbers = torch.arange(1, SINES + 1, device=f0.device)
        starts = self._starts(f0, noise, generator) if phase is None or isinstance(phase, float | int) else None
        f0 = f0.float().repeat_interleave(self.hop_length, 1)[..., None]  # (B, 512 T, 1)
        if phase is None:
            steps = (f0 * numbers / self.sample_rate) % 1
            steps[:, 0] += starts
            # The sum stays small where each whole turn is taken off at the sample that completes it.
            completed = torch.diff(steps.cumsum(1) % 1, dim=1) < 0
            steps[:, 1:] -= completed.float()
            turns = steps.cumsum(1)
        else:
            at = starts + phase * numbers if starts is not None else phase.double()
            at = at if at.ndim == 2 else at[:, None] * numbers
            turns = (at[:, None] + (f0.double() * numbers / self.sample_rate).cumsum(1)) % 1
        sines = (turns * 2 * math.pi).sin().float() * AMPLITUDE * (f0 > 0)
        if noise is False:
            return sines
        drawn = noise if isinstance(noise, Tensor) else self.draw(*f0.shape[:2], generator, f0.device)
        return sines + torch.where(f0 > 0, VOICED_NOISE, AMPLITUDE / 3) * drawn

    def _starts(self, f0: Tensor, noise: bool | Tensor, generator: torch.Generator | None) -> Tensor:
        """Turns of each sine before the first sample, `(B, 9)`: random for overtones, drawn before the noise."""
        if noise is False:
            return torch.zeros(len(f0), SINES, device=f0.device)
        on = generator.device if generator else f0.device
        starts = torch.rand(len(f0), SINES, generator=generator, device=on).to(f0.device)
        return starts * (torch.arange(SINES, device=f0.device) > 0)

    def phases(
        self, f0: Track, noise: bool = True, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch frames sines"]:
        """Turns of each sine before each frame, for the `phase` of a piece that begins there, `(B, T, 9)`."""
        numbers = torch.arange(1, SINES + 1, device=f0.device)
        steps = f0.double()[..., None] * numbers * (self.hop_length / self.sample_rate)
        return (self._starts(f0, noise, generator)[:, None] + steps.cumsum(1) - steps) % 1

    def draw(
        self, batch: int, samples: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Sines:
        """Noise of unit variance for each sine, for `noise`."""
        on = generator.device if generator else device
        return torch.randn(batch, samples, SINES, generator=generator, device=on).to(device)

    def checked(self, mel: Tensor, f0: Tensor, base: float | int = math.e) -> Tensor:
        """Return ln mel, or refuse what this vocoder was not made for; see `forward`."""
        if mel.shape[1] != self.mels or f0.shape != (len(mel), mel.shape[2]):
            found = f"shapes {tuple(mel.shape)} and {tuple(f0.shape)}"
            raise ShapeError("mel, f0", found, f"(batch, {self.mels}, frames) and (batch, frames)")
        check_choice("base", base, (math.e, 10))
        if not all_hold(mel.isfinite()) or not all_hold(f0.isfinite() & (f0 >= 0)):
            raise ParameterError("mel, f0", "NaN, infinite values or a negative pitch", "ln mel, and Hz or 0")
        if base == 10:
            return mel * LN_OF_10
        floor = (mel - SVC_FLOOR).abs() < 1e-5
        if mel.numel() and bool((mel >= SVC_FLOOR - 1e-5).all()) and float(floor.float().mean()) > 0.01:
            found = f"{int(floor.sum())} values are {SVC_FLOOR:.4f}, the floor of log10, and none is below"
            raise ParameterError("mel", found, "the natural logarithm", "Give base=10, or the mel times 2.30259.")
        return mel

    def require(self, **facts: float | int) -> None:
        """Refuse a mel of another kind than the vocoder was trained on, by facts as `config.json` names them."""
        for name, value in facts.items():
            if value != getattr(self.config, name):
                expected = f"{getattr(self.config, name)}, as the vocoder was trained with"
                raise ParameterError(name, f"{value}", expected, "Take the vocoder that belongs to this mel.")

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> NSFHiFiGAN:
        """Build the vocoder from the published folder.

        It has `config.json` and the file `model`, which may be named instead, by any name. Weights may be normalised or
        plain.
        """
        path = Path(path)
        path = path / "model" if path.is_dir() else path
        if not (path.is_file() and (path.parent / checkpoints.CONFIG).is_file()):
            expected = f"the file {path.name!r} of an NSF-HiFiGAN and {checkpoints.CONFIG} beside it"
            raise CheckpointError(path.parent, "lacks one of its two files", expected)
        tensors = checkpoints.read(path).tensors
        model = cls(_config_of(path.parent / checkpoints.CONFIG))
        if not any(name.endswith("weight_g") for name in tensors):
            model.remove_weight_norm()
        checkpoints.load(model, path, tensors)
        return model.eval()


def _config_of(path: Path) -> Config:
    """Sizes in a published `config.json`; settings of its training are ignored."""
    found = checkpoints.read_config(path)
    names = [field.name for field in fields(Config)]
    missing = [name for name in names if name not in found]
    if missing:
        raise CheckpointError(path, f"lacks {', '.join(missing)}", "the configuration of an NSF-HiFiGAN")
    kind = "mini_nsf" if found.get("mini_nsf") else f"resblock {found.get('resblock', '1')}"
    if kind != "resblock 1":
        raise CheckpointError(path, f"is of another network ({kind})", 'resblock "1", as of diff-svc')
    try:
        nested = {"resblock_dilation_sizes": tuple(map(tuple, found["resblock_dilation_sizes"]))}
        return Config(**{name: found[name] for name in names} | nested)
    except (ParameterError, TypeError) as error:
        raise CheckpointError(path, f"contradicts itself ({error})", "the configuration of an NSF-HiFiGAN") from error
