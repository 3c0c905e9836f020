"""Chosen pictures of a video, in one pass through the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..errors import MediaError, ParameterError
from .container import BROKEN, COUNTED, PREROLL, decode, frame_rate_of, opened, scan, time_of, video_stream, zero_of


def read_frames(
    path: str | Path,
    indices: Sequence[int] | Callable[[int, float], Sequence[int]] | None = None,
    *,
    times: Sequence[float] | None = None,
) -> UInt8[Tensor, "frames 3 height width"]:
    """Read chosen pictures of a video in one pass, turned upright as players show them.

    Args:
        path: any file that FFmpeg reads.
        indices: which pictures, counted from 0 in the order in which they are shown; any order, repeats allowed. Or a
            rule that makes them from the number of pictures and the frame rate in Hz, for example
            `avlib.features.cav_mae_frame_indices`.
        times: or at which seconds: the picture that is on the screen then (before the first one, the first).

    Returns:
        `(frames, 3, height, width)`, uint8 RGB, in the order asked for.

    Raises:
        MediaError: no such file, no video in it, a broken stream, or it ends before a wanted picture.
        ParameterError: neither or both of `indices` and `times`, an empty list, or a negative number.
    """
    if (indices is None) == (times is None):
        raise ParameterError("indices, times", "neither or both are given", "one of them")
    if callable(indices):
        with opened(path) as container:
            stream = video_stream(container, path)
            indices = indices(len(scan(container, [stream])[stream.index].times), frame_rate_of(stream))
    wanted = list(times if indices is None else indices)
    if not wanted or not min(wanted) >= 0:
        name = "times" if indices is None else "indices"
        raise ParameterError(name, str(wanted), "one or more numbers from 0 up")
    if times is None:
        return _collect(path, Pictures, wanted).stacked(path)
    if min(wanted) > COUNTED:
        pictures = _collect(path, _TimedPictures, wanted, start=min(wanted) - PREROLL)
        if pictures.first <= min(wanted):  # else the seek went too far
            return pictures.stacked(path)
    return _collect(path, _TimedPictures, wanted).stacked(path)


def iterate_frames(path: str | Path) -> Iterator[tuple[float, UInt8[Tensor, "3 height width"]]]:
    """All pictures of a video, each with its time in seconds, one in memory at a time.

    Raises:
        MediaError: no such file, no video in it, or a broken stream.
    """
    with opened(path) as container:
        stream = video_stream(container, path)
        for position, frame in enumerate(container.decode(stream)):
            yield time_of(frame, stream, position), torch.from_numpy(_upright(frame)).permute(2, 0, 1)


class Pictures:
    """Collects the pictures at wanted indices from frames that come in order; the others are never converted."""

    def __init__(self, stream: av.VideoStream, wanted: list[int]):
        self.stream, self.wanted = stream, wanted
        self.position = 0  # the index of the next frame
        self.found: dict[int, np.ndarray] = {}
        self.times: dict[int, float] = {}
        self._missing = set(wanted)

    @property
    def complete(self) -> bool:
        return not self._missing

    def take(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            if self.position in self._missing:
                self._missing.discard(self.position)
                self.found[self.position] = _upright(frame)
                self.times[self.position] = time_of(frame, self.stream, self.position)
            self.position += 1

    def stacked(self, path: str | Path) -> UInt8[Tensor, "frames 3 height width"]:
        if self._missing:
            raise MediaError(path, f"only {self.position} frames", f"frames up to {max(self.wanted)}, counted from 0")
        return _stack([self.found[index] for index in self.wanted])


class _TimedPictures:
    """Collects the pictures that are on the screen at wanted times."""

    def __init__(self, stream: av.VideoStream, wanted: list[float]):
        self.stream, self.wanted = stream, wanted
        self.position = 0
        self.found: dict[float, np.ndarray] = {}
        self._waiting = sorted(set(wanted), reverse=True)
        self._shown: av.VideoFrame | None = None
        self._end = 0.0  # when it leaves the screen, as far as it says so itself
        self.first = math.inf  # when the first picture that came is shown

    @property
    def complete(self) -> bool:
        return not self._waiting

    def take(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            time = time_of(frame, self.stream, self.position)
            self.first = min(self.first, time)
            self._keep_before(time)
            self._shown, self._end = frame, time + float((frame.duration or 0) * (frame.time_base or 0))
            self.position += 1

    def stacked(self, path: str | Path) -> UInt8[Tensor, "frames 3 height width"]:
        if self._shown is None:
            raise MediaError(path, "no pictures", "at least one", BROKEN)
        self._keep_before(self._end)
        if not self.complete:
            raise MediaError(path, f"its pictures end at {self._end:.2f} s", f"a picture at {max(self.wanted)} s")
        return _stack([self.found[time] for time in self.wanted])

    def _keep_before(self, end: float) -> None:
        """What has been on the screen until now answers all wanted times before `end`."""
        while self._shown is not None and self._waiting and self._waiting[-1] < end:
            self.found[self._waiting.pop()] = _upright(self._shown)


def _collect(path: str | Path, kind: type, wanted: list, start: float = 0.0) -> Pictures | _TimedPictures:
    """Hand the frames of a video to a collector of this kind until it has all that is wanted."""
    with opened(path) as container:
        stream = video_stream(container, path)
        pictures = kind(stream, wanted)
        if start:
            container.seek(int((start + zero_of(container)) * av.time_base))
        for packet in container.demux(stream):
            pictures.take(decode(packet, lenient=bool(start) and not pictures.position))
            if pictures.complete:
                break
    return pictures


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """A picture as players show it, `(height, width, 3)`, uint8 RGB: phones store it lying on its side."""
    picture = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _stack(pictures: list[np.ndarray]) -> UInt8[Tensor, "frames 3 height width"]:
    # Colours last in memory, as decoders and plots have them; torch calls this layout channels_last.
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
