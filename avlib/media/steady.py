"""Pictures of a video at a constant rate."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import av
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..errors import MediaError, ParameterError
from .container import (
    BROKEN,
    PREROLL,
    check_complete,
    decode,
    frame_rate_of,
    opened,
    require_stream,
    time_of,
    zero_of,
)
from .video import upright

_ROUNDING = 1e-3  # seconds to which some formats round the time of a picture
_BLOCK = 64_000_000  # bytes of pictures that are held where a video is read backwards


class SteadyVideo:
    """Pictures of a video at ticks of a constant rate, by their time stamps: repeated, or left out, where needed.

    The file is decoded once at first, to know all times, and is read anew by `pictures`.

    Args:
        path: any file that FFmpeg reads.
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
        self.path, self.frame_rate, self.times, end = path, frame_rate, [], 0.0
        self._timed = True  # whether the file says when its pictures are shown
        with opened(path) as container:
            stream = require_stream(container, path, "video")
            for position, frame in enumerate(container.decode(stream)):
                time = time_of(frame, stream, position)
                seconds = float((frame.duration or 0) * (frame.time_base or 0)) or 1 / frame_rate_of(stream)
                end = max(end, time + seconds)
                if not self.times:
                    self.size = upright(frame).shape[:2]
                self.times.append(time)
                self._timed = self._timed and frame.pts is not None
            if not self.times:
                raise MediaError(path, "no pictures", "at least one", BROKEN)
            check_complete(path, stream, end, None)
        ticks = max(1, round(end * frame_rate))
        found = (bisect_right(self.times, tick / frame_rate + _ROUNDING) - 1 for tick in range(ticks))
        self.sources = [max(0, index) for index in found]

    def __len__(self) -> int:
        return len(self.sources)

    def pictures(self, order: Iterable[int] | None = None) -> Iterator[UInt8[Tensor, "height width 3"]]:
        """Yield the pictures at ticks in any order, uint8 RGB; all of them if None.

        Forwards nothing but the picture is held; backwards, a block of pictures at a time is.
        """
        held: dict[int, Tensor] = {}
        rest, position, before = iter(()), len(self.times), 0  # `position` is the next picture of `rest`
        block = max(2, _BLOCK // (3 * self.size[0] * self.size[1]))
        for source in (self.sources[tick] for tick in (range(len(self)) if order is None else order)):
            if source not in held and source < before:
                first = max(0, source + 1 - block)
                found = islice(self._frames(first), source + 1 - first)
                held, position = {first + i: _tensor(frame) for i, frame in enumerate(found)}, len(self.times)
            elif source not in held:
                if source < position:
                    rest, position = self._frames(source), source
                frame = next(islice(rest, source - position, None), None)
                held, position = ({} if frame is None else {source: _tensor(frame)}), source + 1
            if source not in held:
                raise MediaError(self.path, f"no picture {source} at {self.times[source]:.3f} s", "it again", BROKEN)
            before = source
            yield held[source]

    def _frames(self, first: int) -> Iterator[av.VideoFrame]:
        """Decode from the picture `first` on; from the very beginning where a seek misses it."""
        start = self.times[first] - PREROLL if self._timed else 0.0
        for begin in (start, 0.0) if start > 0 else (0.0,):
            reached = False
            for position, frame in self._decoded(begin):
                if not reached and position > first:
                    break
                reached = reached or position == first
                if reached:
                    yield frame
            if reached:
                return

    def _decoded(self, begin: float) -> Iterator[tuple[int, av.VideoFrame]]:
        """Pictures from a key frame before `begin` on, with their indices."""
        count = 0
        with opened(self.path) as container:
            stream = require_stream(container, self.path, "video")
            if begin:
                container.seek(int((begin + zero_of(container)) * av.time_base))
            for packet in container.demux(stream):
                for frame in decode(packet, lenient=bool(begin) and not count):
                    time = time_of(frame, stream, count)
                    yield (bisect_left(self.times, time - _ROUNDING / 10) if begin else count), frame
                    count += 1


def _tensor(frame: av.VideoFrame) -> UInt8[Tensor, "height width 3"]:
    return torch.from_numpy(upright(frame))
