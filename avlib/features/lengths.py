"""Masks, checks and statistics for right-padded batches."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import ParameterError, TooShortError

Waveform = Float[Tensor, "batch samples"]


def valid_mask(lengths: Int[Tensor, " batch"], size: int) -> Bool[Tensor, "batch places"]:
    """Mask of the first `lengths` of `size` positions in each row, True = valid."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def without_padding(waveform: Waveform, lengths: Int[Tensor, " batch"]) -> Waveform:
    """Set samples beyond the lengths to zero."""
    return waveform.where(valid_mask(lengths, waveform.shape[1]), waveform.new_zeros(()))


def check_lengths(lengths: Tensor | None, shape: tuple, shortest: int = 1, note: str = "") -> None:
    """Refuse lengths that do not fit waveforms of a shape `(batch, samples)`, and too short clips; None: all are valid.

    `note` is appended to the shortest length in the message.
    """
    if lengths is None:
        enough = shape[-1] >= shortest
    else:
        if len(shape) != 2 or lengths.shape != shape[:1]:
            found = f"shape {tuple(lengths.shape)} for a waveform of shape {tuple(shape)}"
            raise ParameterError("lengths", found, "(batch,) for (batch, samples)")
        if not all_hold(lengths <= shape[1]):
            expected = f"at most {shape[1]}, those of the waveform"
            raise ParameterError("lengths", f"{int(lengths.max())} samples", expected)
        enough = all_hold(lengths >= shortest)
    if not enough:
        found = f"{shape[-1] if lengths is None else int(lengths.min())} samples"
        raise TooShortError("waveform", found, f"at least {shortest}{note}", "Leave that clip out, or take more of it.")


def check_sound(waveform: Any, name: str = "waveform", loudest: float = 10.0) -> None:
    """Refuse anything but a tensor of finite floating point samples in about [-1, 1].

    Values of traced tensors, and of what has a gradient, are not looked at. `loudest` may be infinite, for inputs of
    any scale.
    """
    if not isinstance(waveform, Tensor):
        advice = "Use torch.from_numpy(...).float()."
        if isinstance(waveform, tuple):
            advice = "Give the samples alone, at the rate that is expected."
        raise ParameterError(name, f"{type(waveform).__name__}", "a torch tensor", advice)
    if not waveform.is_floating_point():
        advice = "Divide 16-bit samples by 32768."
        raise ParameterError(
            name, f"{waveform.dtype}", "floating point numbers" + " in [-1, 1]" * (loudest <= 10), advice
        )
    if type(waveform) is not Tensor or waveform.requires_grad or torch.compiler.is_compiling():
        return
    if not all_hold(waveform.abs() <= min(loudest, torch.finfo(waveform.dtype).max)):
        check_finite(waveform.reshape(-1, waveform.shape[-1]) if waveform.ndim else waveform[None, None], name)
        found = f"samples up to {float(waveform.abs().max()):g}"
        raise ParameterError(name, found, "samples in [-1, 1]", "Divide 16-bit samples by 32768.")


def check_finite(waveform: Waveform, name: str = "waveform") -> None:
    """Raise a ParameterError that lists rows with NaN or infinite samples."""
    finite = waveform.isfinite().all(dim=1)
    if not all_hold(finite):
        rows = ", ".join(map(str, (~finite).nonzero().flatten().tolist()))
        raise ParameterError(name, f"NaN or infinite samples in row {rows}", "finite ones", "Leave it out.")


def all_hold(conditions: Bool[Tensor, "*shape"]) -> bool:
    """True if all are true; traces with symbolic sizes assume it."""
    holds = conditions.all().item()
    try:
        torch._check(holds)
    except RuntimeError:
        return False
    return True


class Moments:
    """Running mean and standard deviation in float64, over the first axis of each part.

    A sum of squares minus the square of a sum would lose small deviations. Source: Chan, Golub and LeVeque, "Updating
    Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.

    `count` is the number of values, `mean` their mean, `squares` the sum of their squared distances from it.
    """

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Float[Tensor, "values ..."]) -> None:
        """Add a part, `(values, ...)`."""
        if len(values):
            values, both = values.double(), self.count + len(values)
            mean = values.mean(dim=0)
            step = mean - self.mean
            self.squares = self.squares + (values - mean).square().sum(dim=0)
            self.squares = self.squares + step.square() * (self.count * len(values) / both)
            self.mean, self.count = self.mean + step * (len(values) / both), both

    def std(self, correction: int = 0) -> Tensor:
        """Standard deviation, with `count - correction` as divisor."""
        return (self.squares / (self.count - correction)).sqrt()
