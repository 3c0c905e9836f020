"""Speech from units: what the vocoders of units have in common.

Units are repeated as often as predicted, or given at full rate; a vocoder makes 320 samples of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .. import checkpoints
from ..errors import ParameterError, ShapeError
from ..features import check_units
from ..features.lengths import all_hold, valid_mask
from .durations import process_duration, scale_durations

LONGEST = 3000  # units that one is repeated, a minute: a predictor that asks for more is none

Units = Int[Tensor, "batch units"]
Lengths = Int[Tensor, " batch"]  # valid units
Speaker = Float[Tensor, "*speakers width"]
Total = int | Int[Tensor, " batch"]  # units of the waveform


@dataclass(frozen=True)
class UnitVocoderOutput:
    """Speech of a batch of units.

    `units` are those of the waveform, padded with 0; `durations` are units for each input unit, 1 at full rate and 0
    beyond `lengths`; `lengths` counts samples; `duration_loss` is None in evaluation and without a predictor.
    """

    waveform: Float[Tensor, "batch 1 samples"]
    units: Int[Tensor, "batch repeated"]
    durations: Int[Tensor, "batch units"]
    lengths: Int[Tensor, " batch"]
    duration_loss: Float[Tensor, ""] | None


class UnitSpeech(nn.Module):
    """Base of vocoders of units: they have `dict`, `spkr`, perhaps a `dur_predictor`, and `_generate`.

    `context` counts the units that a piece needs on each side, so that its middle is that of the whole.
    """

    config: Any
    context: int

    def forward(
        self, units: Units, speaker: Speaker, predict_durations: bool = False, lengths: Lengths | None = None,
        total: Total | None = None,
    ) -> UnitVocoderOutput:  # fmt: skip
        """Speak units.

        Args:
            units: `(B, N)`, 0 to K - 1: 50 a second, or without repeats if durations are predicted. Repeats are not
                removed here; see `features.deduplicate`.
            speaker: `(B, 256)`, of `SpeakerEncoder`; or `(256,)` for all, or `(B, 1, 256)` as published.
            predict_durations: repeat each unit as often as predicted. Not in training, where units are at full rate.
            lengths: `(B,)`, valid units of each row of a right-padded batch; a row then gives what it gives alone.
            total: units of the waveform, for all rows or each: predicted durations are scaled by `scale_durations`.

        Raises:
            ParameterError: units outside the table; a speaker vector that is not finite, or zero; durations predicted
                in training or without a predictor; a total without predicted durations, or below the units of a row.
        """
        units, lengths = self._check_units(units, lengths)
        speaker = self._check_speaker(speaker, len(units))
        if predict_durations:
            durations = self.predict_durations(units, lengths, total)
            places = pad_sequence([torch.repeat_interleave(row) for row in durations], batch_first=True)  # (B, N')
            counts = durations.sum(dim=1)
            spoken = units.gather(1, places).where(valid_mask(counts, places.shape[1]), 0)
            waveform = self._generate(spoken, speaker, counts if len(units) > 1 else None)
        elif total is None:
            durations = torch.ones_like(units) if lengths is None else valid_mask(lengths, units.shape[1]).long()
            spoken, counts = units, durations.sum(dim=1)
            waveform = self._generate(spoken, speaker, lengths)
        else:
            advice = "Set predict_durations=True."
            raise ParameterError("total", f"{total} without predicted durations", "None at full rate", advice)
        loss = self.duration_loss(units, lengths) if self.training and self.dur_predictor else None
        return UnitVocoderOutput(waveform, spoken, durations, counts * self.config.code_hop_size, loss)

    def published(
        self, code: Units, spkr: Speaker, dur_prediction: bool = False
    ) -> tuple[Float[Tensor, "batch 1 samples"], Tensor]:
        """Return the published pair: the waveform, and one of three things.

        That is the duration loss in training; with `dur_prediction` the repeated units of all rows in one row; else
        the given units.
        """
        out = self(code, spkr, dur_prediction)
        if out.duration_loss is not None:
            return out.waveform, out.duration_loss
        return out.waveform, code.flatten().repeat_interleave(out.durations.flatten()) if dur_prediction else code

    def predict_durations(self, units: Units, lengths: Lengths | None = None, total: Total | None = None) -> Units:
        """Number of repeats of each unit, 1 or more, and 0 beyond the lengths; see `forward`."""
        if self.training or not self.dur_predictor:
            found = f"True {'in training' if self.training else 'without a duration predictor'}"
            advice = "Switch to evaluation mode first." if self.training else "Give units at full rate."
            raise ParameterError("predict_durations", found, "False, with units at full rate", advice)
        valid = torch.ones_like(units, dtype=torch.bool) if lengths is None else valid_mask(lengths, units.shape[1])
        log = self.dur_predictor(self.dict(units), None if lengths is None else valid)
        durations = (log.float().exp() - 1).round().clamp(min=1).where(valid, 0)
        if not all_hold(durations <= LONGEST):  # NaN too
            found, advice = f"{float(durations.max()):g} units for one", "Train it, or give units at full rate."
            raise ParameterError("predict_durations", found, f"durations of at most {LONGEST} units", advice)
        durations = durations.long()
        if total is None:
            return durations
        totals = torch.as_tensor(total).expand(len(units)).tolist()
        rows = [scale_durations(row[keep], each) for row, keep, each in zip(durations, valid, totals, strict=True)]
        return durations.masked_scatter(valid, torch.cat(rows))

    def duration_loss(self, units: Units, lengths: Lengths | None = None) -> Float[Tensor, ""]:
        """Mean squared error of log(1 + duration), over the runs of `process_duration`."""
        features, mask, durations = process_duration(units, self.dict(units), lengths)
        return F.mse_loss(self.dur_predictor(features)[mask].float(), (durations + 1).log())

    def pieces(
        self, units: Int[Tensor, " units"], speaker: Speaker, size: int = 500
    ) -> Iterator[Float[Tensor, " samples"]]:
        """Yield the waveform of units at full rate, `size` units at a time; together the whole, to 1e-5."""
        units, hop = self._check_units(units[None], None)[0], self.config.code_hop_size
        part = self._parts(units, self._check_speaker(speaker, 1))
        for start in range(0, units.shape[1], size):
            first, stop = max(0, start - self.context), min(units.shape[1], start + size)
            with torch.no_grad():
                waveform = part(first, stop + self.context)[0, 0]
            yield waveform[(start - first) * hop : (stop - first) * hop]

    def _parts(self, units: Tensor, speaker: Tensor) -> Callable[[int, int], Tensor]:
        """Function that makes the waveform of some of the units."""
        return lambda first, last: self._generate(units[:, first:last], speaker, None)

    def save(self, path: Path | str) -> None:
        """Write a folder for `from_checkpoint`; see `checkpoints.save`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "config": asdict(self.config)})

    def _check_units(self, units: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse units and lengths that do not fit; return units with 0 as padding, and lengths on their device."""
        if units.ndim != 2 or units.is_floating_point() or not units.numel():
            found = f"{tuple(units.shape)}, {units.dtype}"
            raise ParameterError("units", found, "whole numbers (batch, units), one or more in each row")
        B, N = units.shape
        units = units.long()
        if lengths is not None:
            lengths = lengths.to(units.device)
            if lengths.shape != (B,) or not all_hold((lengths >= 1) & (lengths <= N)):
                raise ParameterError("lengths", f"{lengths.tolist()}", f"1 to {N} for each of {B} rows")
            units = units.where(valid_mask(lengths, N), 0)
        check_units(units, self.config.num_embeddings, lambda index: f"row {index // N}, position {index % N}")
        return units, lengths

    def _check_speaker(self, speaker: Tensor, batch: int) -> Float[Tensor, "batch width"]:
        width = self.config.embedder_dim
        if speaker.shape[-1:] != (width,) or speaker.numel() not in (width, batch * width):
            expected = f"({batch}, {width}), or ({width},) for all rows"
            raise ShapeError("speaker", f"{tuple(speaker.shape)}", expected, "Take that of SpeakerEncoder.embed.")
        speaker = speaker.reshape(-1, width).to(self.spkr.weight)
        if not all_hold(speaker.isfinite().all(dim=1) & speaker.any(dim=1)):
            expected = "finite numbers that are not all 0"
            raise ParameterError("speaker", "a vector of NaN, infinity or zeros", expected, "Embed that voice again.")
        return speaker.expand(batch, -1)
