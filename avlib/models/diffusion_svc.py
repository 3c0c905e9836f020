"""Diff-SVC: a singing voice's mel spectrogram from content units and pitch, by diffusion.

    units (B, U, 256), hertz (B, T), mel2ph (B, T) -> encode -> condition (B, 256, T)
    noise (B, 1, 128, T), condition -> denoise, some hundred times -> log10 mel (B, T, 128)

Source: prophesier/diff-svc, after Liu et al., "DiffSinger: Singing Voice Synthesis via Shallow Diffusion Mechanism",
AAAI 2022, arXiv 2105.02446. The denoiser is the WaveNet of DiffWave (Kong et al., 2021, arXiv 2009.09761).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, ParameterError, ShapeError, check_choice
from ..features.lengths import all_hold, valid_mask
from ..settings import Count, Natural, Number, recipe, settings
from . import sizes_that_fit
from .samplers import linear_betas, sample_with

PITCHES = 300  # rows of the table; 1 to 255 are used
LOWEST, HIGHEST = 40, 1100  # hertz of the first and the last
DEAD = ("fs2.mel_out.", "fs2.pitch_predictor.")  # published parameters that nothing reads
LOUDEST, QUIETEST = 0.0, -5.0  # log10 mel of a range that is not given


@settings
class Config:
    """Sizes of a `DiffusionSVC`; the defaults are the published ones.

    Args:
        mels: bins of the spectrogram.
        unit_size: width of the units. Another than `condition_size` adds a linear layer, which is trained.
        condition_size: width of the condition.
        channels: of the denoiser.
        layers: of the denoiser.
        cycle: dilations are 1, 2, 4, ..., 2^(cycle - 1), over and over.
        steps: number of diffusion times.
        max_beta: noise that the last of them adds.
        predicts: "noise" (published) or "x0", the clean spectrogram.
        singers: number of voices in the model; 0: one voice without a table, as published.
        clip_notes: a note above 1100 Hz counts as 1100 Hz; False: as 1 Hz, as published after a key shift.
    """

    mels: Count = 128
    unit_size: Count = 256
    condition_size: Count = 256
    channels: Annotated[int, Field(ge=4, lt=2**31, multiple_of=2)] = 384
    layers: Count = 20
    cycle: Annotated[int, Field(ge=1, le=16)] = 4
    steps: Annotated[int, Field(ge=2, lt=2**31)] = 1000
    max_beta: Annotated[Number, Field(gt=0, lt=1)] = 0.02
    predicts: Literal["noise", "x0"] = "noise"
    singers: Natural = 0
    clip_notes: bool = True


def pitch_ids(hertz: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Rows of the pitch table, 1 to 255: equal steps of mel, 1127 ln(1 + f / 700), from 40 to 1100 Hz."""
    hertz = hertz if hertz.dtype == torch.float64 else hertz.float()
    low, high = (1127 * math.log(1 + edge / 700) for edge in (LOWEST, HIGHEST))
    mel = (1127 * (1 + hertz / 700).log() - low) * 254 / (high - low) + 1
    return (mel.clamp(1, 255) + 0.5).long()


class Encoder(nn.Module):
    """The one table of the condition. Published: `fs2`, with layers that `no_fs2` leaves unused."""

    def __init__(self, size: int):
        super().__init__()
        self.pitch_embed = nn.Embedding(PITCHES, size, padding_idx=0)
        nn.init.normal_(self.pitch_embed.weight, std=size**-0.5)


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

    def forward(
        self,
        x: Float[Tensor, "batch channels frames"],
        step: Float[Tensor, "batch channels"],
        condition: Float[Tensor, "batch gates frames"],
        valid: Bool[Tensor, "batch 1 frames"] | None,
    ) -> tuple[Float[Tensor, "batch channels frames"], Float[Tensor, "batch channels frames"]]:
        y = x + self.diffusion_projection(step)[:, :, None]  # (B, 384, T)
        if valid is not None:
            # After the step is added, since a single item is padded with zeros here.
            y = y.masked_fill(~valid, 0)
        gate, filtered = (self.dilated_conv(y) + condition).chunk(2, dim=1)  # (B, 768, T), halved
        residual, skip = self.output_projection(gate.sigmoid() * filtered.tanh()).chunk(2, dim=1)
        return (x + residual) / math.sqrt(2), skip


class WaveNet(nn.Module):
    """The denoiser. Published: `DiffNet`."""

    def __init__(self, config: Config):
        super().__init__()
        channels = config.channels
        self.input_projection = _conv(config.mels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.Mish(), nn.Linear(4 * channels, channels))
        self.residual_layers = nn.ModuleList(
            ResidualLayer(channels, config.condition_size, 2 ** (layer % config.cycle))
            for layer in range(config.layers)
        )
        self.skip_projection = _conv(channels, channels)
        self.output_projection = _conv(channels, config.mels)
        nn.init.zeros_(self.output_projection.weight)

    def forward(
        self,
        x: Float[Tensor, "batch mels frames"],
        t: Int[Tensor, " batch"] | Float[Tensor, " batch"],
        conditions: Sequence[Float[Tensor, "batch gates frames"]],
        valid: Bool[Tensor, "batch 1 frames"] | None,
    ) -> Float[Tensor, "batch mels frames"]:
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


class DiffusionSVC(nn.Module):
    """Diff-SVC's acoustic model.

    33,708,675 parameters published, of which 31,956,224 are the denoiser's, 76,800 the pitch table's, and the rest
    dead. Everywhere `lengths` are valid frames `(B,)`; a padded batch gives the values and gradients of its single
    items. The range and the schedule of the noise are buffers, and stay in float32 in a model of another dtype.

    Args:
        config: sizes.
        spec_min: quietest log10 mel of each bin in the training data, `(128,)`; it becomes -1. None: -5.
        spec_max: loudest, which becomes +1. None: 0.

    Raises:
        ParameterError: a range of another size, not finite, or with a maximum that is not above its minimum.
    """

    def __init__(
        self,
        config: Config | None = None,
        spec_min: Float[Tensor, " bins"] | Sequence[float] | None = None,
        spec_max: Float[Tensor, " bins"] | Sequence[float] | None = None,
    ):
        super().__init__()
        self.config = config = config or Config()
        self.ignored: tuple[str, ...] = ()  # names in the file that `from_checkpoint` read without using them
        self.fs2 = Encoder(config.condition_size)
        self.denoise_fn = WaveNet(config)
        mapped = config.unit_size != config.condition_size
        self.unit_projection = nn.Linear(config.unit_size, config.condition_size) if mapped else None
        self.speaker_embed = nn.Embedding(config.singers, config.condition_size) if config.singers else None
        if self.speaker_embed is not None:
            nn.init.normal_(self.speaker_embed.weight, std=config.condition_size**-0.5)
        for name, value in _schedule(linear_betas(config.steps, config.max_beta)).items():
            self.register_buffer(name, value)
        self.register_buffer("spec_min", self._edge("spec_min", spec_min, QUIETEST))
        self.register_buffer("spec_max", self._edge("spec_max", spec_max, LOUDEST))
        if not self.spec_min.is_meta:
            self._check_range()

    def encode(
        self,
        units: Float[Tensor, "batch units values"],
        hertz: Float[Tensor, "batch frames"],
        mel2ph: Int[Tensor, "batch frames"],
        lengths: Int[Tensor, " items"] | None = None,
        singers: Int[Tensor, " items"] | Float[Tensor, "items voices"] | None = None,
    ) -> Float[Tensor, "batch values_out frames"]:
        """Condition of each frame: its unit, its pitch and its singer, added up.

        Args:
            units: `(B, U, 256)`.
            hertz: `(B, T)`, continuous through unvoiced frames.
            mel2ph: `(B, T)`, the number of each frame's unit from 1; 0 is padding.
            lengths: `(B,)` valid frames; None: all.
            singers: `(B,)` numbers from 0, or `(B, S)` weights of a mixture of all singers.

        Returns:
            `(B, 256, T)`, 0 in padding.

        Raises:
            ShapeError: units of another width, or sizes that do not go together.
            ParameterError: lengths, mel2ph, hertz or singers out of range; NaN in a valid frame.
        """
        batch, count, width = units.shape
        if width != self.config.unit_size:
            advice = f"Take the content encoder of this model, or train one with Config(unit_size={width})."
            raise ShapeError("units", f"{width} wide", f"{self.config.unit_size}, as this model's", advice)
        if not batch == len(hertz) == len(mel2ph) or hertz.shape != mel2ph.shape:
            found = f"{tuple(units.shape)} with hertz {tuple(hertz.shape)} and mel2ph {tuple(mel2ph.shape)}"
            raise ShapeError("units", found, "(B, U, values) with (B, T) and (B, T)")
        valid = mel2ph != 0  # (B, T)
        if lengths is not None:
            valid = valid & valid_mask(self._checked(lengths, batch, mel2ph.shape[1]), mel2ph.shape[1])
        numbers = mel2ph.masked_fill(~valid, 0)
        if not all_hold((numbers >= 0) & (numbers <= count)):
            found = f"{int(numbers.min())} to {int(numbers.max())}"
            raise ParameterError("mel2ph", found, f"0 to {count}, the number of units", "Align with mel2ph(T, U).")
        hertz = hertz.masked_fill(~valid, LOWEST)
        if not all_hold(hertz.isfinite() & (hertz >= 0)):
            advice = "Let avlib.extract.pitch estimate it."
            raise ParameterError("hertz", "NaN, infinite or negative values", "0 or more in all valid frames", advice)
        if not self.config.clip_notes:
            hertz = hertz.where(hertz <= HIGHEST, 1.0)

        units = F.pad(units, (0, 0, 1, 0))  # number 0 is a row of zeros: (B, U + 1, 256)
        condition = units.gather(1, numbers[:, :, None].expand(-1, -1, width))  # (B, T, 256)
        if self.unit_projection is not None:
            condition = self.unit_projection(condition)
        condition = condition + self.fs2.pitch_embed(pitch_ids(hertz)) + self._singer(singers, batch)
        condition = condition.masked_fill(~valid[:, :, None], 0)
        if not all_hold(condition.isfinite()):
            raise ParameterError("units", "NaN or infinite values in valid frames", "finite ones", "Check the sound.")
        return condition.transpose(1, 2)

    def denoise(
        self,
        x: Float[Tensor, "batch 1 mels frames"],
        t: Int[Tensor, " items"] | Float[Tensor, " items"],
        condition: Float[Tensor, "batch values frames_of_condition"],
        lengths: Int[Tensor, " items"] | None = None,
        cache: Sequence[Float[Tensor, "batch gates frames"]] | None = None,
    ) -> Float[Tensor, "batch 1 mels frames"]:
        """Predict the noise, or the clean spectrogram, `(B, 1, 128, T)`.

        Args:
            x: noisy spectrogram.
            t: `(B,)`, times from 0.
            condition: `(B, 256, T)`, of `encode`.
            lengths: `(B,)` valid frames; None: all. What is beyond is neither read nor returned: it is 0.
            cache: of `project`, where one condition serves many times.
        """
        if x.shape[2] != self.config.mels or t.shape != x.shape[:1]:
            expected = f"(B, 1, {self.config.mels}, T) and (B,)"
            raise ShapeError("x", f"{tuple(x.shape)} with t {tuple(t.shape)}", expected)
        expected = (len(x), self.config.condition_size, x.shape[3])
        if condition.shape != expected:
            raise ShapeError("condition", f"{tuple(condition.shape)}", f"{expected} for x {tuple(x.shape)}")
        valid, spectrogram = None, x[:, 0]  # (B, 128, T)
        if lengths is not None:
            valid = valid_mask(self._checked(lengths, len(x), x.shape[3]), x.shape[3])[:, None]  # (B, 1, T)
            spectrogram = spectrogram.masked_fill(~valid, 0)
        conditions = self.project(condition, lengths) if cache is None else cache
        output = self.denoise_fn(spectrogram, t, conditions, valid)
        return (output if valid is None else output.masked_fill(~valid, 0))[:, None]

    forward = denoise

    def project(
        self,
        condition: Float[Tensor, "batch values frames"],
        lengths: Int[Tensor, " items"] | None = None,
    ) -> list[Float[Tensor, "batch gates frames"]]:
        """Condition as each layer adds it, `(B, 768, T)`; the same at all times."""
        if lengths is not None:
            frames = condition.shape[2]
            valid = valid_mask(self._checked(lengths, len(condition), frames), frames)[:, None]
            condition = condition.masked_fill(~valid, 0)
        return [layer.conditioner_projection(condition) for layer in self.denoise_fn.residual_layers]

    @torch.no_grad()
    def sample(
        self,
        condition: Float[Tensor, "batch values frames"],
        steps: int = 100,
        sampler: str = "plms",
        noise: Float[Tensor, "batch_of_noise 1 mels frames_of_noise"] | None = None,
        lengths: Int[Tensor, " items"] | None = None,
        *,
        start: Float[Tensor, "batch_of_start frames_of_start mels"] | None = None,
        depth: int | None = None,
        seed: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Float[Tensor, "batch frames mels"]:
        """Log10 mel spectrograms, `(B, T, 128)`; beyond its length an item is the floor of the range.

        Args:
            condition: `(B, 256, T)`, of `encode`.
            steps: 100 is the published speed-up of 10; see `sample_with`.
            sampler: one of `SAMPLERS`.
            noise: `(B, 1, 128, T)`, normal; None: random.
            lengths: `(B,)` valid frames; None: all.
            start: log10 mel `(B, T, 128)` to begin from, with the noise of time `depth - 1`, in place of noise alone.
            depth: number of times, out of 1000, to go through from there.
            seed: of random numbers; None: torch's own state.
            progress: is called with the number of evaluations done and their total.

        Raises:
            ParameterError: see `sample_with`; `start` without `depth`, or `depth` without `start`; NaN.
            ShapeError: noise or start of another shape.
        """
        shape = (len(condition), 1, self.config.mels, condition.shape[2])
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        if noise is None:
            noise = torch.randn(shape, generator=generator).to(condition)  # drawn on the CPU: the same on all devices
        if noise.shape != shape:
            raise ShapeError("noise", f"{tuple(noise.shape)}", f"{shape}, as the condition")
        if (start is None) != (depth is None):
            given, other = ("depth", "start") if start is None else ("start", "depth")
            raise ParameterError(given, f"given without {other}", "both or neither", f"Hand over {other}= too.")
        x = noise
        if start is not None:
            if start.shape != (shape[0], shape[3], shape[2]):
                raise ShapeError("start", f"{tuple(start.shape)}", f"{(shape[0], shape[3], shape[2])}, log10 mel")
            times = torch.full((len(x),), depth - 1, device=x.device)
            x = self.add_noise(self.normalize(start.to(x)), times, noise)
        beyond = None
        if lengths is not None:
            beyond = ~valid_mask(self._checked(lengths, shape[0], shape[3]), shape[3])  # (B, T)
            x = x.masked_fill(beyond[:, None, None], 0)
            condition = condition.masked_fill(beyond[:, None], 0)
        if not all_hold(x.isfinite()) or not all_hold(condition.isfinite()):
            raise ParameterError("condition", "NaN or infinite, or the noise or start is", "finite values")
        cache = self.project(condition)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return self.denoise(x, t, condition, lengths, cache)

        x = sample_with(
            predict, x, steps, sampler, betas=self.betas, predicts=self.config.predicts, depth=depth,
            generator=generator, progress=progress,
        )  # fmt: skip
        mel = self.denormalize(x)
        if beyond is not None:
            mel = torch.where(beyond[:, :, None], self.spec_min[0].to(mel.dtype), mel)
        return mel

    def loss(
        self,
        mel: Float[Tensor, "batch frames mels"],
        condition: Float[Tensor, "batch values frames"],
        lengths: Int[Tensor, " items"] | None,
        t: Int[Tensor, " batch"],
        noise: Float[Tensor, "batch 1 mels frames"],
        kind: Literal["l2", "l1"] = "l2",
    ) -> Float[Tensor, ""]:
        """Mean error of a prediction over valid elements.

        Hence the loss of a batch, and its gradient, is the mean of those of its items, weighted by their lengths. The
        published code takes the mean over padding too.

        Args:
            mel: log10 mel `(B, T, 128)`.
            condition: `(B, 256, T)`, of `encode`.
            lengths: `(B,)` valid frames; None: all.
            t: `(B,)`, times from 0 to 999.
            noise: `(B, 1, 128, T)`, normal.
            kind: "l2" (squared error) or "l1" (absolute).
        """
        check_choice("kind", kind, ("l2", "l1"))
        clean = self.normalize(mel)
        valid = clean.new_ones(len(clean), 1, 1, clean.shape[3], dtype=torch.bool)
        if lengths is not None:
            valid = valid_mask(self._checked(lengths, len(mel), mel.shape[1]), mel.shape[1])[:, None, None]
            clean, noise = clean.masked_fill(~valid, 0), noise.masked_fill(~valid, 0)
        predicted = self.denoise(self.add_noise(clean, t, noise).to(condition.dtype), t, condition, lengths)
        target = noise if self.config.predicts == "noise" else clean
        error = predicted.to(clean.dtype) - target
        error = error.square() if kind == "l2" else error.abs()  # 0 in padding, where all are 0
        return error.sum() / (valid.sum() * self.config.mels)

    def add_noise(
        self, clean: Float[Tensor, "batch 1 mels frames"], t: Int[Tensor, " batch"], noise: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "batch 1 mels frames"]:
        """Return sqrt(a_t) x + sqrt(1 - a_t) noise; a_t is `alphas_cumprod[t]`."""
        signal, rest = (
            table[t].to(clean.dtype)[:, None, None, None]
            for table in (self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod)
        )
        return signal * clean + rest * noise

    def normalize(self, mel: Float[Tensor, "batch frames mels"]) -> Float[Tensor, "batch 1 mels frames"]:
        """Map log10 mel `(B, T, 128)` to `(B, 1, 128, T)`, in [-1, 1] within the range."""
        x = (mel - self.spec_min) / (self.spec_max - self.spec_min) * 2 - 1
        return x.transpose(1, 2)[:, None]

    def denormalize(self, x: Float[Tensor, "batch 1 mels frames"]) -> Float[Tensor, "batch frames mels"]:
        """Invert `normalize`, in the dtype of `x`."""
        mel = x[:, 0].transpose(1, 2)
        return ((mel + 1) / 2 * (self.spec_max - self.spec_min) + self.spec_min).to(x.dtype)

    @property
    def receptive_field(self) -> int:
        """Frames to each side that a prediction depends on: 75 published."""
        return sum(layer.dilated_conv.dilation[0] for layer in self.denoise_fn.residual_layers)

    def save(self, folder: Path | str) -> None:
        """Write a folder for `from_checkpoint`; see `checkpoints.save`."""
        checkpoints.save(
            Path(folder), self.state_dict(), {"model": type(self).__name__, "settings": recipe(self.config)}
        )

    @classmethod
    def from_checkpoint(cls, path: Path | str, *, cycle: int | None = None) -> DiffusionSVC:
        """Build a model from the published `.ckpt` or a folder of `save`.

        Args:
            path: the file. `config.yaml` beside it gives the dilation cycle, and must agree with the weights.
            cycle: read no `config.yaml`, and dilate in this cycle. None: as there, or 4 without the file.

        Raises:
            CheckpointError: the file cannot be read; a parameter does not fit, or weights and configuration disagree.
        """
        path = Path(path)
        tensors, content = checkpoints.read(path)
        if path.is_dir():
            return cls._loaded(path, tensors, content)
        if any(name.startswith("model.") for name in tensors):
            tensors = {name.removeprefix("model."): tensors[name] for name in tensors if name.startswith("model.")}
        sizes = sizes_that_fit(lambda **sizes: cls(Config(**sizes)), _sizes(tensors), tensors)
        beside = _read_yaml(path.with_name("config.yaml")) if cycle is None else {}
        cycle = beside.get("dilation_cycle_length", 4) if cycle is None else cycle
        try:
            model = cls(Config(**sizes, cycle=cycle))
        except ParameterError as error:
            raise CheckpointError(path, f"its sizes: {error}", "those of Diff-SVC") from error
        for name in ("spec_min", "spec_max"):  # one number for all bins, as in the template of the configuration
            if name in tensors and tensors[name].shape == (1, 1, 1):
                tensors[name] = tensors[name].expand(1, 1, model.config.mels)
        checkpoints.load(model, path, tensors, ignored=DEAD)
        model.ignored = tuple(name for name in tensors if name.startswith(DEAD))
        model._check_range(path)
        model._compare(path.with_name("config.yaml"), beside)
        return model

    load = from_checkpoint

    @classmethod
    def _loaded(cls, folder: Path, tensors: dict[str, Tensor], content: Mapping) -> DiffusionSVC:
        try:
            if content.get("model") != cls.__name__:
                raise ParameterError("model", f"{content.get('model')!r}", f"{cls.__name__!r}")
            model = cls(Config(**content.get("settings", {})))
        except (ParameterError, TypeError) as error:
            raise CheckpointError(folder, f"its settings: {error}", "those of a DiffusionSVC") from error
        checkpoints.load(model, folder, tensors)
        model._check_range(folder)
        return model

    def _compare(self, path: Path, beside: Mapping) -> None:
        """Refuse a configuration that disagrees with the weights."""
        config = self.config
        own = {
            "audio_num_mel_bins": config.mels, "hidden_size": config.condition_size,
            "residual_channels": config.channels, "residual_layers": config.layers, "timesteps": config.steps,
            "K_step": config.steps, "max_beta": config.max_beta, "no_fs2": True,
            "spec_min": self.spec_min.flatten(), "spec_max": self.spec_max.flatten(),
        }  # fmt: skip
        if beside.get("schedule_type", "linear") != "linear":
            del own["max_beta"]
        for name in own.keys() & beside.keys():
            try:
                there = torch.tensor(beside[name], dtype=torch.float64)
                equal = torch.allclose(there, torch.as_tensor(own[name], dtype=torch.float64), atol=1e-4)
            except (TypeError, ValueError, RuntimeError):
                there, equal = beside[name], False
            if not equal:
                values = (str(each.tolist()) if isinstance(each, Tensor) else repr(each) for each in (there, own[name]))
                there, here = (text if len(text) < 60 else f"{text[:50]} ...]" for text in values)
                advice = "Use the configuration of this model; with cycle= the weights are read without one."
                raise CheckpointError(path, f"{name} is {there}", f"{here}, as in the weights", advice)

    def _edge(self, name: str, values: object, default: float) -> Float[Tensor, "1 1 mels"]:
        """A buffer of the published shape."""
        if values is None:
            return torch.full((1, 1, self.config.mels), default)
        values = torch.as_tensor(values, dtype=torch.float32).flatten()
        if len(values) != self.config.mels:
            raise ParameterError(name, f"{len(values)} values", f"{self.config.mels}, one for each bin")
        return values.clone()[None, None]

    def _check_range(self, path: Path | None = None) -> None:
        wrong = ~((self.spec_max > self.spec_min) & (self.spec_max - self.spec_min).isfinite()).flatten()
        if wrong.any():
            where = int(wrong.nonzero()[0])
            found = f"{float(self.spec_min[0, 0, where]):g} to {float(self.spec_max[0, 0, where]):g} in bin {where}"
            expected = "finite, with each maximum above its minimum"
            raise (
                CheckpointError(path, f"its range is {found}", expected)
                if path
                else ParameterError("spec_max", found, expected)
            )

    def _checked(self, lengths: Tensor, batch: int, frames: int) -> Tensor:
        if lengths.shape != (batch,) or not all_hold((lengths >= 1) & (lengths <= frames)):
            expected = f"{batch} numbers from 1 to {frames}, the valid frames of each item"
            raise ParameterError("lengths", f"{lengths.tolist()}", expected)
        return lengths

    def _singer(self, singers: Tensor | None, batch: int) -> Tensor | float:
        """Vector of each item's singer, `(B, 1, 256)`, or 0."""
        count = self.config.singers
        if self.speaker_embed is None:
            if singers is not None:
                raise ParameterError("singers", "given", "None: this model has one voice", "See Config(singers=).")
            return 0.0
        if singers is None:
            if count > 1:
                expected = f"a number from 0 to {count - 1}, or {count} weights, for each item"
                raise ParameterError("singers", "None", expected)
            singers = torch.zeros(batch, dtype=torch.long, device=self.spec_min.device)
        weights = singers.is_floating_point()
        if singers.shape != ((batch, count) if weights else (batch,)):
            raise ParameterError("singers", f"{tuple(singers.shape)}", f"({batch},), or weights ({batch}, {count})")
        table = self.speaker_embed.weight
        if weights:
            return (singers.to(table.dtype) @ table)[:, None]
        if not all_hold((singers >= 0) & (singers < count)):
            raise ParameterError("singers", f"{singers.tolist()}", f"numbers from 0 to {count - 1}")
        return self.speaker_embed(singers)[:, None]

    def _apply(self, fn: Callable, recurse: bool = True) -> DiffusionSVC:
        """Move, and change the dtype of all but range and schedule."""
        buffers = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, moved in dict(self.named_buffers(recurse=False)).items():
            if moved.dtype != buffers[name].dtype:
                setattr(self, name, buffers[name].to(moved.device))
        return self


def _schedule(betas: Float[Tensor, " steps"]) -> dict[str, Float[Tensor, " steps"]]:
    """The published tables: computed in float64, kept in float32."""
    alphas = 1 - betas
    kept = alphas.cumprod(0)
    before = F.pad(kept[:-1], (1, 0), value=1.0)
    variance = betas * (1 - before) / (1 - kept)
    tables = {
        "betas": betas,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - kept),
        "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - kept),
    }
    return {name: table.float() for name, table in tables.items()}


def _sizes(tensors: Mapping[str, Tensor]) -> dict:
    """Sizes of a published model, from its tensors; {} if they are not there."""
    try:
        channels, mels, _ = tensors["denoise_fn.input_projection.weight"].shape
        width = tensors["fs2.pitch_embed.weight"].shape[1]
        layers = {name.split(".")[2] for name in tensors if name.startswith("denoise_fn.residual_layers.")}
        betas = tensors["betas"]
        return {
            "mels": mels, "channels": channels, "unit_size": width, "condition_size": width, "layers": len(layers),
            "steps": len(betas), "max_beta": round(float(betas[-1]), 6),
        }  # fmt: skip
    except (KeyError, ValueError, IndexError, TypeError):
        return {}


def _read_yaml(path: Path) -> dict:
    import yaml

    try:
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(
            path, f"cannot be read ({str(error).splitlines()[0]})", "Diff-SVC's config.yaml"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(path, f"holds a {type(content).__name__}", "Diff-SVC's config.yaml, names and values")
    return content
