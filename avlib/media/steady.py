"""Pictures of a video at a constant rate."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import av
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..errors import MediaError, ParameterError
from .container import BROKEN, PREROLL, check_complete, decode, frame_rate_of, opened, require_stream, time_of, zero_of
from .video import check_sizes, upright

Picture = UInt8[Tensor, "height width 3"]
_ROUNDING = 1e-3  # seconds to which some formats round the time of a picture
_BLOCK = 32_000_000  # bytes of pictures that are held where a video is read backwards


class SteadyVideo:
    """Pictures of a video at ticks of a constant rate, by their time stamps: repeated, or left out, where needed.

    The file is decoded once at first, to know all times, and is read anew by `pictures`.

    Args:
        frame_rate: of the ticks, in Hz.

    Attributes:
        times: of all pictures of the file, in seconds.
        sources: for each tick the index of the picture that is on the screen; before the first one, the first.
        size: height and width in pixels.

    Raises:
        MediaError: no such file, no video in it, a broken or truncated stream.
    """

    def __init__(self, path: str | Path, frame_rate: float = 25.0):
        if not frame_rate > 0:
            raise ParameterError("frame_rate", f"{frame_rate}", "more than 0 Hz")
        self.path, self.times, end = path, [], 0.0
        self._timed = True  # whether the file says when its pictures are shown
        with opened(path) as container:
            stream = require_stream(container, path, "video")
            for position, frame in enumerate(container.decode(stream)):
                time = time_of(frame, stream, position)
                seconds = float((frame.duration or 0) * (frame.time_base or 0)) or 1 / frame_rate_of(stream)
                end = max(end, time + seconds)
                if not self.times:
                    first, self.size = frame, upright(frame).shape[:2]
                check_sizes(path, [(first.height, first.width), (frame.height, frame.width)])
                self.times.append(time)
                self._timed = self._timed and frame.pts is not None
            if not self.times:
                raise MediaError(path, "no pictures", "at least one", BROKEN)
            check_complete(path, stream, end, None)
        ticks = max(1, round(end * frame_rate))
        self.sources = [max(1, bisect_right(self.times, k / frame_rate + _ROUNDING)) - 1 for k in range(ticks)]

    def __len__(self) -> int:
        return len(self.sources)

    def pictures(self, order: Iterable[int] | None = None) -> Iterator[Picture]:
        """Yield the pictures at ticks in any order, uint8 RGB; all of them if None.

        Forwards nothing but the picture is held; backwards, a block of pictures at a time is.
        """
        held: dict[int, Picture] = {}
        rest, position, before = iter(()), len(self.times), 0  # `position` is the next picture of `rest`
        block = max(2, _BLOCK // (3 * self.size[0] * self.size[1]))
        for source in (self.sources[tick] for tick in (range(len(self)) if order is None else order)):
            if source not in held:
                backwards = source < before
                first = max(0, source + 1 - block) if backwards else source
                if backwards or first < position:
                    rest, position = self._frames(first), first
                found = enumerate(islice(rest, source + 1 - position), position)
                held, position = dict(deque(found, maxlen=block if backwards else 1)), source + 1
            if source not in held:
                raise MediaError(self.path, f"no picture {source} at {self.times[source]:.3f} s", "it again", BROKEN)
            before = source
            yield held[source]

    def _frames(self, first: int, seek: bool = True) -> Iterator[Picture]:
        """Decode from the picture `first` on, from the very beginning where a seek misses it."""
        begin, position = self.times[first] - PREROLL if seek and self._timed else 0.0, -1
        with opened(self.path) as container:
            stream = require_stream(container, self.path, "video")
            if begin > 0:
                container.seek(int((begin + zero_of(container)) * av.time_base))
            packets = (decode(packet, lenient=begin > 0 > position) for packet in container.demux(stream))
            for frame in chain.from_iterable(packets):
                if position < first:
                    time = time_of(frame, stream, position + 1)
                    position = bisect_left(self.times, time - _ROUNDING / 10) if begin > 0 else position + 1
                if position > first:
                    break
                if position == first:
                    yield torch.from_numpy(upright(frame))
        if position != first and begin > 0:
            yield from self._frames(first, seek=False)
