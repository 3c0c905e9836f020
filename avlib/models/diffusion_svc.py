"""Diff-SVC: a singing voice's mel spectrogram from content units and pitch, by diffusion.

    units (B, U, 256), hertz (B, T), mel2ph (B, T) -> encode -> condition (B, 256, T)
    noise (B, 1, 128, T), condition -> denoise, some hundred times -> log10 mel (B, T, 128)

Source: prophesier/diff-svc, after Liu et al., "DiffSinger: Singing Voice Synthesis via Shallow Diffusion Mechanism",
AAAI 2022, arXiv 2105.02446. The denoiser is in `avlib.models.wavenet`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, ParameterError, ShapeError, check_choice, check_whole
from ..features.lengths import all_hold, valid_mask
from ..settings import Count, Natural, Number, recipe, settings
from .diffusion_svc_weights import DEAD, HIGHEST, LOWEST, compare, read_svc
from .samplers import linear_betas, sample_with, schedule
from .wavenet import WaveNet, masked

PITCHES = 300  # rows of the table; 1 to 255 are used

Noisy = Float[Tensor, "batch 1 mels frames"]
Mel = Float[Tensor, "batch frames mels"]
Condition = Float[Tensor, "batch size frames"]
Lengths = Int[Tensor, " _"]  # valid frames of each item
Times = Int[Tensor, " _"] | Float[Tensor, " _"]
Edge = Float[Tensor, " bins"] | Sequence[float]


@settings
class Config:
    """Sizes of a `DiffusionSVC`; the defaults are the published ones."""

    mels: Count = 128  # bins of the spectrogram
    unit_size: Count = 256  # width of the units; another than `condition_size` adds a linear layer, which is trained
    condition_size: Count = 256
    channels: Annotated[int, Field(ge=4, lt=2**31, multiple_of=2)] = 384  # of the denoiser
    layers: Count = 20  # of the denoiser
    cycle: Annotated[int, Field(ge=1, le=16)] = 4  # dilations are 1, 2, 4, ..., 2^(cycle - 1), over and over
    timesteps: Annotated[int, Field(ge=2, lt=2**31)] = 1000
    max_beta: Annotated[Number, Field(gt=0, lt=1)] = 0.02  # noise that the last time adds
    predicts: Literal["noise", "x0"] = "noise"  # "x0" is the clean spectrogram
    singers: Natural = 0  # voices in the model; 0: one voice without a table, as published
    clip_notes: bool = True  # a note above 1100 Hz counts as 1100 Hz; False: as 1 Hz, as published after a key shift


def pitch_ids(hertz: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Rows of the pitch table, 1 to 255: equal steps of mel, 1127 ln(1 + f / 700), from 40 to 1100 Hz."""
    hertz = hertz if hertz.dtype == torch.float64 else hertz.float()
    low, high = (1127 * math.log(1 + edge / 700) for edge in (LOWEST, HIGHEST))
    mel = (1127 * (1 + hertz / 700).log() - low) * 254 / (high - low) + 1
    return (mel.clamp(1, 255) + 0.5).long()


def _table(rows: int, size: int) -> nn.Embedding:
    table = nn.Embedding(rows, size)
    nn.init.normal_(table.weight, std=size**-0.5)
    return table


class DiffusionSVC(nn.Module):
    """Diff-SVC's acoustic model.

    33,708,675 parameters published: 31,956,224 in the denoiser, 76,800 in the pitch table, the rest dead. `lengths`
    are valid frames `(B,)`, None for all; a padded batch gives the values and gradients of its single items. The range
    and the noise schedule are buffers, and stay in float32 in a model of another dtype.

    Args:
        spec_min: quietest log10 mel of each bin in the training data, `(128,)`; it becomes -1. None: -5.
        spec_max: loudest, which becomes +1. None: 0. A maximum that is not above its minimum is refused.
    """

    def __init__(self, config: Config | None = None, spec_min: Edge | None = None, spec_max: Edge | None = None):
        super().__init__()
        self.config = config = config or Config()
        self.ignored: tuple[str, ...] = ()  # names in a published file that nothing reads
        self.fs2 = nn.ModuleDict({"pitch_embed": _table(PITCHES, config.condition_size)})
        dilations = [2 ** (layer % config.cycle) for layer in range(config.layers)]
        self.denoise_fn = WaveNet(config.mels, config.channels, config.condition_size, dilations)
        mapped = config.unit_size != config.condition_size
        self.unit_projection = nn.Linear(config.unit_size, config.condition_size) if mapped else None
        self.speaker_embed = _table(config.singers, config.condition_size) if config.singers else None
        for name, values in schedule(linear_betas(config.timesteps, config.max_beta)).items():
            self.register_buffer(name, values)
        for name, values, default in (("spec_min", spec_min, -5.0), ("spec_max", spec_max, 0.0)):
            values = [default] * config.mels if values is None else values
            values = torch.as_tensor(values, dtype=torch.float32).flatten()
            if len(values) != config.mels:
                raise ParameterError(name, f"{len(values)} values", f"{config.mels}, one for each bin")
            self.register_buffer(name, values.clone()[None, None])  # (1, 1, 128)
        if spec_min is not None or spec_max is not None:
            self._check_range()

    def encode(
        self, units: Float[Tensor, "batch units values"], hertz: Float[Tensor, "_ frames"], mel2ph: Int[Tensor, "_ _"],
        lengths: Lengths | None = None, singers: Int[Tensor, " _"] | Float[Tensor, "_ voices"] | None = None,
    ) -> Condition:  # fmt: skip
        """Condition of each frame, `(B, 256, T)`: its unit, its pitch and its singer, added up; 0 in padding.

        Args:
            hertz: `(B, T)`, continuous through unvoiced frames.
            mel2ph: `(B, T)`, the number of each frame's unit from 1; 0 is padding.
            singers: `(B,)` numbers from 0, or `(B, S)` weights of a mixture of all singers.

        Raises:
            ShapeError: units of another width, or sizes that do not go together.
            ParameterError: lengths, mel2ph, hertz or singers out of range; NaN in a valid frame.
        """
        batch, count, width = units.shape
        if width != self.config.unit_size:
            advice = f"Take the content encoder of this model, or train one with unit_size={width}."
            raise ShapeError("units", f"{width} wide", f"{self.config.unit_size}, as this model's", advice)
        if len(mel2ph) != batch or hertz.shape != mel2ph.shape:
            found = f"{tuple(units.shape)} with hertz {tuple(hertz.shape)} and mel2ph {tuple(mel2ph.shape)}"
            raise ShapeError("units", found, "(B, U, values) with (B, T) and (B, T)")
        valid, within = mel2ph != 0, _mask(lengths, *mel2ph.shape)  # (B, T), (B, 1, T)
        valid = valid if within is None else valid & within[:, 0]
        numbers, hertz = mel2ph.masked_fill(~valid, 0), hertz.masked_fill(~valid, LOWEST)
        if not all_hold((numbers >= 0) & (numbers <= count)):
            found = f"{int(numbers.min())} to {int(numbers.max())}"
            raise ParameterError("mel2ph", found, f"0 to {count}, the number of units", "Align with mel2ph(T, U).")
        if not all_hold(hertz.isfinite() & (hertz >= 0)):
            raise ParameterError("hertz", "NaN, infinite or negative values", "0 or more in all valid frames")
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
        self, x: Noisy, t: Times, condition: Float[Tensor, "_ size _"], lengths: Lengths | None = None,
        cache: Sequence[Float[Tensor, "batch gates frames"]] | None = None,
    ) -> Noisy:  # fmt: skip
        """Predict the noise, or the clean spectrogram, `(B, 1, 128, T)`.

        `x` is noisy, `t` are times from 0, `condition` is of `encode`. Frames beyond the lengths are not read, and 0 in
        the result. `cache` is of `project`, where one condition serves many times.
        """
        batch, _, mels, frames = x.shape
        sizes, expected = (mels, *t.shape), (self.config.mels, batch)
        if sizes != expected or condition.shape != (batch, self.config.condition_size, frames):
            found = f"{tuple(x.shape)} with t {tuple(t.shape)} and condition {tuple(condition.shape)}"
            expected = f"(B, 1, {self.config.mels}, T) with (B,) and (B, {self.config.condition_size}, T)"
            raise ShapeError("x", found, expected)
        valid = _mask(lengths, batch, frames)
        conditions = self.project(masked(condition, valid)) if cache is None else cache
        return masked(self.denoise_fn(masked(x[:, 0], valid), t, conditions, valid), valid)[:, None]

    forward = denoise

    def project(self, condition: Condition) -> list[Float[Tensor, "batch gates frames"]]:
        """Condition as each layer adds it, `(B, 768, T)`; the same at all times."""
        return [layer.conditioner_projection(condition) for layer in self.denoise_fn.residual_layers]

    @torch.no_grad()
    def sample(
        self,
        condition: Condition, steps: int = 100, sampler: str = "plms", noise: Float[Tensor, "_ 1 _ _"] | None = None,
        lengths: Lengths | None = None, *, start: Float[Tensor, "_ _ _"] | None = None, depth: int | None = None,
        seed: int | None = None, progress: Callable[[int, int], object] | None = None,
    ) -> Mel:  # fmt: skip
        """Log10 mel spectrograms, `(B, T, 128)`; beyond its length an item is the floor of the range.

        Args:
            steps: 100 is the published speed-up of 10; see `sample_with`, also for `sampler` and `progress`.
            noise: `(B, 1, 128, T)`, normal; None: random.
            start: log10 mel `(B, T, 128)`, which with the noise of time `depth - 1` takes the place of noise alone.
            depth: number of times, out of 1000, to go through from there.
            seed: of random numbers, which are the same on all devices; None: torch's own state.

        Raises:
            ParameterError, ShapeError: see `sample_with`; another shape; NaN in a valid frame; `start` without `depth`.
        """
        batch, _, frames = condition.shape
        mels, valid = self.config.mels, _mask(lengths, batch, frames)  # (B, 1, T)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        if noise is None:
            noise = torch.randn(batch, 1, mels, frames, generator=generator)
        if (start is None) != (depth is None):
            given, other = ("depth", "start") if start is None else ("start", "depth")
            raise ParameterError(given, f"given without {other}", "both or neither", f"Hand over {other}= too.")
        shapes = {"noise": (noise, (batch, 1, mels, frames)), "start": (start, (batch, frames, mels))}
        for name, (tensor, shape) in shapes.items():
            if tensor is not None and tensor.shape != shape:
                raise ShapeError(name, f"{tuple(tensor.shape)}", f"{shape}, for condition {tuple(condition.shape)}")
        x = noise.to(condition)
        if start is not None:
            check_whole("depth", depth, 2, self.config.timesteps)
            x = self.add_noise(self.normalize(start.to(x)), torch.full((batch,), depth - 1, device=x.device), x)
        x, condition = masked(x[:, 0], valid)[:, None], masked(condition, valid)
        for name, tensor in (("noise or start", x), ("condition", condition)):
            if not all_hold(tensor.isfinite()):
                raise ParameterError(name, "NaN or infinite", "finite values in valid frames")
        cache = self.project(condition)
        x = sample_with(
            lambda x, t: self.denoise(x, t, condition, lengths, cache), x, steps, sampler, betas=self.betas,
            predicts=self.config.predicts, depth=depth, generator=generator, progress=progress,
        )  # fmt: skip
        mel = self.denormalize(x)
        return mel if valid is None else mel.where(valid.transpose(1, 2), self.spec_min.to(mel.dtype))

    def loss(
        self, mel: Mel, condition: Condition, lengths: Lengths | None, t: Int[Tensor, " batch"], noise: Noisy,
        kind: str = "l2",
    ) -> Float[Tensor, ""]:  # fmt: skip
        """Mean error of a prediction over valid elements, squared ("l2") or absolute ("l1").

        Hence the loss of a batch, and its gradient, is the mean of those of its items, weighted by their lengths. The
        published code takes the mean over padding too. `mel` is log10, `condition` is of `encode`, `t` from 0 to 999.
        """
        check_choice("kind", kind, ("l2", "l1"))
        batch, frames, mels = mel.shape
        valid = _mask(lengths, batch, frames)
        clean = masked(self.normalize(mel)[:, 0], valid)[:, None]
        noise = masked(noise[:, 0], valid)[:, None]
        predicted = self.denoise(self.add_noise(clean, t, noise).to(condition.dtype), t, condition, lengths)
        error = predicted.to(clean.dtype) - (noise if self.config.predicts == "noise" else clean)  # 0 in padding
        count = batch * frames if valid is None else valid.sum()
        return (error.square() if kind == "l2" else error.abs()).sum() / (count * mels)

    def add_noise(self, clean: Noisy, t: Int[Tensor, " batch"], noise: Float[Tensor, "batch ..."]) -> Noisy:
        """Return sqrt(a_t) x + sqrt(1 - a_t) noise; a_t is `alphas_cumprod[t]`."""
        signal, rest = self.sqrt_alphas_cumprod[t], self.sqrt_one_minus_alphas_cumprod[t]
        return signal.to(clean)[:, None, None, None] * clean + rest.to(clean)[:, None, None, None] * noise

    def normalize(self, mel: Mel) -> Noisy:
        """Map log10 mel `(B, T, 128)` to `(B, 1, 128, T)`, within the range to [-1, 1]."""
        x = (mel - self.spec_min) / (self.spec_max - self.spec_min) * 2 - 1
        return x.transpose(1, 2)[:, None]

    def denormalize(self, x: Noisy) -> Mel:
        """Invert `normalize`, in the dtype of `x`."""
        mel = (x[:, 0].transpose(1, 2) + 1) / 2 * (self.spec_max - self.spec_min) + self.spec_min
        return mel.to(x.dtype)

    @property
    def receptive_field(self) -> int:
        """Frames to each side that a prediction depends on: 75 published."""
        return sum(layer.dilated_conv.dilation[0] for layer in self.denoise_fn.residual_layers)

    def save(self, folder: Path | str) -> None:
        content = {"model": type(self).__name__, "settings": recipe(self.config)}
        checkpoints.save(Path(folder), self.state_dict(), content)

    @classmethod
    def from_checkpoint(cls, path: Path | str, *, cycle: int | None = None) -> DiffusionSVC:
        """Build a model from the published `.ckpt`, or from a folder of `save`.

        Names of dead parameters in the file are in `.ignored` afterwards; all others must fit. `config.yaml` beside the
        file gives the dilation cycle (4 without it), and must agree with the weights; with `cycle` it is not read.

        Raises:
            CheckpointError: the file cannot be read; a parameter does not fit; weights and configuration disagree.
        """
        path = Path(path)
        tensors, found, beside = read_svc(path, cycle, lambda **sizes: cls(Config(**sizes)))
        try:
            model = cls(Config(**found))
        except (ParameterError, TypeError) as error:
            raise CheckpointError(path, f"its settings: {error}", f"those of a {cls.__name__}") from error
        checkpoints.load(model, path, tensors, ignored=DEAD)
        model.ignored = tuple(name for name in tensors if name.startswith(DEAD))
        model._check_range(path)
        compare(model, path.with_name("config.yaml"), beside)
        return model

    load = from_checkpoint

    def _check_range(self, path: Path | None = None) -> None:
        if self.spec_min.is_meta:
            return
        low, high = self.spec_min.flatten(), self.spec_max.flatten()
        wrong = ~((high > low) & (high - low).isfinite())
        if wrong.any():
            where = int(wrong.nonzero()[0])
            found = f"{float(low[where]):g} to {float(high[where]):g} in bin {where}"
            kind = ParameterError if path is None else CheckpointError
            raise kind(path or "spec_max", f"range {found}", "finite, with each maximum above its minimum")

    def _singer(self, singers: Tensor | None, batch: int) -> Tensor | float:
        """Vector of each item's singer, `(B, 1, 256)`, or 0."""
        count = self.config.singers
        if self.speaker_embed is None:
            if singers is None:
                return 0.0
            raise ParameterError("singers", "given", "None: this model has one voice", "Train with Config(singers=).")
        expected = f"({batch},) numbers from 0 to {count - 1}, or ({batch}, {count}) weights"
        if singers is None and count > 1:
            raise ParameterError("singers", "None", expected)
        table = self.speaker_embed.weight
        singers = torch.zeros(batch, dtype=torch.long, device=table.device) if singers is None else singers
        mixed = singers.is_floating_point()
        fitting = singers.shape == ((batch, count) if mixed else (batch,))
        if not fitting or not all_hold(singers.isfinite() if mixed else (singers >= 0) & (singers < count)):
            raise ParameterError("singers", f"{singers.tolist()}", expected)
        return (singers.to(table.dtype) @ table if mixed else self.speaker_embed(singers))[:, None]

    def _apply(self, fn: Callable, recurse: bool = True) -> DiffusionSVC:
        """Move; change the dtype of all but range and schedule."""
        buffers = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, moved in dict(self.named_buffers(recurse=False)).items():
            if moved.dtype != buffers[name].dtype:
                setattr(self, name, buffers[name].to(moved.device))
        return self


def _mask(lengths: Lengths | None, batch: int, frames: int) -> Bool[Tensor, "batch 1 frames"] | None:
    """Mask of valid frames, True = valid; None if all are."""
    if lengths is None:
        return None
    if lengths.shape != (batch,) or not all_hold((lengths >= 1) & (lengths <= frames)):
        expected = f"{batch} numbers from 1 to {frames}, the valid frames of each item"
        raise ParameterError("lengths", f"{lengths.tolist()}", expected)
    return valid_mask(lengths, frames)[:, None]
