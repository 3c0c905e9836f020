"""Labelled sound, from which recognisers learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .items import ItemDataset

UNIT = 320  # samples of a unit at 16 kHz
UNKNOWN = -1  # label of a unit without one


class VoiceBatch(NamedTuple):
    """Sound at 16 kHz, and a class for each unit of 20 ms; `UNKNOWN` where there is none."""

    waveform: Float[Tensor, "*batch samples"]
    labels: Int64[Tensor, "*batch units"]


class Voices(ItemDataset):
    """Windows of labelled sound: pairs of `(samples,)`, int16 at 16 kHz, and labels `(samples // 320,)`."""

    def __init__(self, items: Sequence[tuple[Tensor, Tensor]], window: int, seed: int = 0):
        super().__init__(items, seed, "raise")
        self.window = window

    def __getitem__(self, index: int) -> VoiceBatch:
        (sound, labels), window = self.items[index], self.window
        start = int(self._dice(index).integers(max(1, len(labels) - window + 1)))
        sound = sound[start * UNIT : (start + window) * UNIT].float() / 2**15
        return VoiceBatch(sound, labels[start : start + window])

    @staticmethod
    def collate(items: Sequence[VoiceBatch]) -> VoiceBatch:
        """Pad sound with zeros, and labels with `UNKNOWN`."""
        sounds, labels = zip(*items, strict=True)
        return VoiceBatch(pad_sequence(sounds, True), pad_sequence(labels, True, UNKNOWN))
