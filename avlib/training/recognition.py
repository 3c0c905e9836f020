"""Training step of a recogniser of sounds."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .loop import normal, uniform

_UNKNOWN = -1  # label of units that do not count


def recognizer_step(model: nn.Module, batch: Any, settings: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the cross-entropy of the units' classes, at a random gain and with random noise, and the share right.

    The batch has `waveform` and `labels`, see `avlib.datasets.voices`.
    """
    drawn = uniform(len(batch.labels), 2, device=batch.labels.device)
    gain = 10 ** (1.5 * drawn[:, :1] - 1)  # -20 to 10 dB
    noise = normal(*batch.waveform.shape, device=batch.labels.device) * 10 ** (-5 + 2.5 * drawn[:, 1:])
    logits = model(batch.waveform * gain + noise).transpose(1, 2)  # (B, classes, U)
    known = batch.labels != _UNKNOWN
    right = (logits.argmax(1) == batch.labels)[known].float().mean()
    return F.cross_entropy(logits, batch.labels, ignore_index=_UNKNOWN), {"right": right}
