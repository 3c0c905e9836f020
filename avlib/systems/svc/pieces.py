"""Songs of any length in pieces that together give what the whole gives.

    condition, noise of a part -> `sampled`: mel of the pieces, faded inside their context
    mel of the pieces          -> `vocoded`: sound, in which the phase continues and the noise follows from the position

No step looks further than its context, and all that is random follows from its place in the song, so that where a song
is cut changes nothing. Published diff-svc cuts at pauses, without context, and has no longest piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...errors import ParameterError
from ...features.singing import SVC_HOP, SVC_MELS, log10_to_ln
from ...models.nsf_hifigan import SINES, NSFHiFiGAN

FADE = 16  # frames
LONGEST = 2584  # frames of a piece, 30 s: there the context costs about a tenth
SOUNDED = 512  # frames that the vocoder takes at once
_BLOCK = 256  # frames of noise that are drawn from one seed
_SHARE = 0.25  # of the free memory that a piece may take


class Piece(NamedTuple):
    """Frames that a piece gives, `start` to `stop`, and those that it is computed from, `first` to `last`."""

    start: int
    stop: int
    first: int
    last: int


def pieces(frames: int, length: int, context: int) -> list[Piece]:
    """Cut frames into equal pieces of at most `length`, each with `context` frames of its neighbours."""
    if min(frames, length) < 1 or context < 0:
        found = f"{frames} frames in pieces of {length}, context {context}"
        raise ParameterError("frames, length, context", found, "at least 1, 1 and 0")
    count = -(-frames // length)
    edges = [frames * number // count for number in range(count + 1)]
    return [Piece(start, stop, max(0, start - context), min(frames, stop + context)) for start, stop in pairwise(edges)]


def with_context(parts: Iterable[Tensor], context: int) -> Iterator[tuple[Tensor, int, int]]:
    """Yield rows of a stream with up to `context` more on each side, and where the new ones begin and end in them."""
    rows, begin = None, 0
    for part in parts:
        rows = part if rows is None else torch.cat([rows, part])
        end = len(rows) - context
        if end > begin:
            yield rows, begin, end
            rows, begin = rows[max(0, end - context) :], min(end, context)
    if rows is not None and begin < len(rows):
        yield rows, begin, len(rows)


def noise_at(first: int, last: int, width: int, seed: int) -> Float[Tensor, "frames width"]:
    """Return standard normal noise of some frames of a song, a part of what the whole song has."""
    start = first // _BLOCK
    dice = [torch.Generator().manual_seed((seed << 24) + block) for block in range(start, -(-last // _BLOCK))]
    drawn = torch.cat([torch.randn(_BLOCK, width, generator=each) for each in dice])
    return drawn[first - start * _BLOCK : last - start * _BLOCK]


def mel_noise(first: int, last: int, seed: int = 0) -> Float[Tensor, "1 1 mels frames"]:
    """Return the noise that sampling begins with in some frames of a song."""
    return noise_at(first, last, SVC_MELS, 2 * seed).T[None, None].contiguous()


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device, within the limit of a container."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(0, free)


def piece_length(model: nn.Module, free: int) -> int:
    """Return the frames of a piece for which so many bytes suffice, `LONGEST` at most."""
    config = model.config
    numbers = 2 * config.layers * config.channels + 16 * config.channels + 12 * SVC_MELS  # for each frame
    return int(min(LONGEST, max(4 * FADE, free * _SHARE / (8 * numbers) - 2 * context_of(model))))


def context_of(model: nn.Module) -> int:
    """Return the frames of context that a sampled piece needs on each side, the fade included.

    One evaluation reaches as far as the receptive field. Several reach further, but what they pass on falls off: on the
    small trained model, whose reach is 18, 36 frames leave a difference of 5e-3, 52 of 1e-4, and 72 of 1e-6.
    """
    return max(2 * model.receptive_field, 80) + FADE


def sampled(
    model: nn.Module, condition: Callable[[int, int], Float[Tensor, "1 values frames"]], frames: int, *,
    length: int = LONGEST, context: int | None = None,
    noise: Callable[[int, int], Float[Tensor, "1 1 mels frames"]] = mel_noise, **sampling: Any,
) -> Iterator[Tensor]:  # fmt: skip
    """Sample the log10 mel (frames, 128) of a song piece by piece, in order.

    Args:
        condition, noise: return those of the frames from one to another.
        length: most frames of a piece.
        context: frames on each side that a piece is computed with and that are dropped; by default `context_of(model)`.
            In the first `FADE` frames of a piece, the piece before fades out.
    """
    tail = None
    for piece in pieces(frames, length, context_of(model) if context is None else context):
        with torch.no_grad():  # not around the generator, whose caller would lose gradients
            given = condition(piece.first, piece.last)
            start = noise(piece.first, piece.last).to(given)
            mel = model.sample(given, noise=start, **sampling)[0]
        own = mel[piece.start - piece.first : piece.stop - piece.first]
        if tail is not None:
            count = min(len(tail), len(own))
            share = (torch.arange(1, count + 1, device=mel.device) / (count + 1))[:, None]
            own = torch.cat([torch.lerp(tail[:count], own[:count], share), own[count:]])
        tail = mel[piece.stop - piece.first :][:FADE].clone()
        yield own


def vocoded(
    vocoder: nn.Module, mels: Iterable[Tensor], hertz: Float[Tensor, " frames"], voiced: Bool[Tensor, " frames"],
    seed: int = 0,
) -> Iterator[Tensor]:  # fmt: skip
    """Make sound (frames, 512) of the log10 mel (frames, 128) of a song, a part after another.

    `hertz` is the pitch of all frames, continuous through unvoiced ones; `voiced` is for a SourceFilterVocoder.
    """
    neural = isinstance(vocoder, NSFHiFiGAN)
    starts = {"generator": torch.Generator().manual_seed(seed)} if neural else {}  # random ones of overtones
    aligned, sines = ({"noise": False}, (SINES,)) if neural else ({}, ())
    at, turns = 0, vocoder.phases(hertz[None], **starts)  # of the whole song, where each frame begins
    for rows, begin, end in with_context((part for mel in mels for part in mel.split(SOUNDED)), vocoder.context):
        first, last = at - begin, at - begin + len(rows)
        pitch = hertz[None, first:last]
        noise = noise_at(first, last, SVC_HOP * math.prod(sines), 2 * seed + 1).reshape(1, -1, *sines)
        phase = turns[:, at] - vocoder.phases(pitch, **aligned)[:, begin]  # there both see the pitch on both sides
        more = {} if neural else {"voiced": voiced[None, first:last].to(rows.device)}
        pitch, noise, phase = (tensor.to(rows.device) for tensor in (pitch, noise, phase))
        with torch.no_grad():
            sound = vocoder(log10_to_ln(rows).T[None].contiguous(), pitch, noise=noise, phase=phase, **more)
        at += end - begin
        yield sound.reshape(-1, SVC_HOP)[begin:end]
