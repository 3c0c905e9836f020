"""Whisper's encoder at any length, and with a mask. The published one takes 30 s and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ParameterError, ShapeError, TooShortError
from ...features.lengths import all_hold, valid_mask


def encode_whisper(
    encoder: nn.Module,
    log_mel: Float[Tensor, "batch mels columns"],
    lengths: Int[Tensor, " clips"] | Sequence[int] | None = None,
) -> Float[Tensor, "batch positions width"]:
    """The last hidden states of a Whisper encoder, for as many columns as there are.

    Positions are those of the encoder's own table. A shorter input takes the beginning of it, a longer one has it
    continued by Whisper's sinusoids, of which it is made.

    Args:
        encoder: any WhisperEncoder of transformers; it is not changed.
        log_mel: `(B, 80, T)`, of `features.whisper_log_mel`; T may be odd.
        lengths: `(B,)`, the number of valid columns in each row of a batch that was padded at its end. Then the
            padding is as if it were not there: zero before each convolution, as the padding of a convolution is, and
            nobody attends to it. Each clip gets the values of its run alone. None: all columns are valid.

    Returns:
        `(B, ceil(T / 2), d)`. In rows that are padded, what stands beyond `ceil(length / 2)` means nothing.

    Raises:
        ShapeError: other mel rows than the encoder was made for.
        TooShortError: no column at all.
        ParameterError: lengths that do not fit the batch.
    """
    return whisper_layers(encoder, log_mel, lengths)[-1]


def whisper_layers(
    encoder: nn.Module,
    log_mel: Float[Tensor, "batch mels columns"],
    lengths: Int[Tensor, " clips"] | Sequence[int] | None = None,
) -> list[Float[Tensor, "batch positions width"]]:
    """All hidden states of `encode_whisper`: what enters the first layer, and what leaves each.

    The last one is normalised, as published. Arguments and errors are those of `encode_whisper`.
    """
    lengths = None if lengths is None else torch.as_tensor(lengths)
    _check(encoder, log_mel, lengths)
    columns = log_mel.shape[-1]
    valid = mask = None
    if lengths is not None:
        lengths = lengths.to(log_mel.device)
        valid = valid_mask(lengths, columns)  # (B, T)
        mask = whisper_mask(columns, lengths)  # (B, T / 2)
        log_mel = log_mel.where(valid[:, None], log_mel.new_zeros(()))

    x = F.gelu(encoder.conv1(log_mel))  # (B, d, T)
    if valid is not None:
        x = x.masked_fill(~valid[:, None], 0)
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)  # (B, T / 2, d)
    x = x + positions(encoder, x.shape[1])
    x = F.dropout(x, encoder.dropout, encoder.training)

    bias = None
    if mask is not None:  # additive: every kind of attention in transformers understands it
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        bias = bias.masked_fill(~mask, torch.finfo(x.dtype).min)[:, None, None]  # (B, 1, 1, T / 2)
    states = [x]
    for layer in encoder.layers:
        if not (encoder.training and encoder.layerdrop > 0 and torch.rand([]) < encoder.layerdrop):
            x = layer(x, bias)
        states.append(x)
    return [*states[:-1], encoder.layer_norm(x)]


def whisper_mask(columns: int, lengths: Int[Tensor, " batch"]) -> Bool[Tensor, "batch positions"]:
    """Which positions are of the clip, True = valid: `ceil(length / 2)` of `ceil(columns / 2)`."""
    return valid_mask((lengths + 1) // 2, (columns + 1) // 2)


def positions(encoder: nn.Module, count: int) -> Float[Tensor, "count width"]:
    """The first rows of the encoder's table, continued where it ends."""
    table = encoder.embed_positions.weight
    if count <= len(table):
        return table[:count]
    from transformers.models.whisper.modeling_whisper import sinusoids

    return torch.cat([table, sinusoids(count, table.shape[1])[len(table) :].to(table)])


def _check(encoder: nn.Module, log_mel: Tensor, lengths: Tensor | None) -> None:
    batch, rows, columns = log_mel.shape
    expected = encoder.conv1.in_channels
    if rows != expected:
        advice = "Make the spectrogram with so many mel bins, or fill it up with rows of conditions."
        raise ShapeError("log_mel", f"{rows} rows", f"{expected}, as the encoder was made for", advice)
    if columns < 1:
        raise TooShortError("log_mel", "no column", "at least one", "Give a longer clip.")
    if lengths is None:
        return
    if lengths.shape != (batch,):
        raise ParameterError("lengths", f"shape {tuple(lengths.shape)}", f"({batch},), one number for each clip")
    if not all_hold((lengths >= 1) & (lengths <= columns)):
        found = f"{int(lengths.min())} to {int(lengths.max())} columns"
        raise ParameterError("lengths", found, f"1 to {columns}, those of log_mel")
