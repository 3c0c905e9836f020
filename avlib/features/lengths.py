"""Masks, checks and statistics for right-padded batches."""

from __future__ import annotations

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


def check_finite(waveform: Waveform) -> None:
    """Raise a ParameterError that lists rows with NaN or infinite samples."""
    finite = waveform.isfinite().all(dim=1)
    if not all_hold(finite):
        rows = ", ".join(map(str, (~finite).nonzero().flatten().tolist()))
        raise ParameterError("waveform", f"NaN or infinite samples in row {rows}", "finite ones", "Leave it out.")


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
