"""Chosen pictures of a video, alone or with its sound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import MediaError, ParameterError, check_choice
from .container import (
    BROKEN,
    COUNTED,
    PREROLL,
    best_stream,
    check_complete,
    check_reading,
    decode,
    frame_rate_of,
    opened,
    orientation,
    require_stream,
    scan,
    time_of,
    zero_of,
)
from .sound import SoundReader


@dataclass(frozen=True)
class Clip:
    """Sound and chosen pictures of one file.

    waveform: `(samples,)`, float32, mono; in [-1, 1] unless the file itself goes beyond.
    frames: `(frames, 3, height, width)`, uint8 RGB.
    frame_indices, frame_times: of these pictures: counted from 0 as they are shown, and in seconds.
    frame_rate, frame_count: of the whole video: in Hz, and the frames to choose from.
    audio_start, video_start: when the first sample is heard and the first picture is shown, in seconds since the file's
        beginning; with `align` the waveform has zeros before. None without sound.
    audio_gaps: beginning and length in seconds of each gap in the sound's time stamps; with `align` filled with zeros.
    """

    path: Path
    waveform: Float[Tensor, " samples"]
    sample_rate: int
    frames: UInt8[Tensor, "frames 3 height width"]
    frame_indices: list[int]
    frame_times: list[float]
    frame_rate: float
    frame_count: int
    audio_start: float | None
    video_start: float
    audio_gaps: list[tuple[float, float]]


def read_clip(
    path: str | Path,
    frame_rule: Callable[[int, float], Sequence[int]],
    *,
    sample_rate: int | None = 16000,
    channel: int | None = None,
    seconds: float | None = None,
    audio: str = "required",
    align: bool = True,
) -> Clip:
    """Read the sound and chosen pictures of a clip in one decoding pass, on one clock.

    Args:
        frame_rule: from the number of frames (that begin within `seconds`) and the frame rate in Hz to the wanted
            indices, for example `avlib.features.cav_mae_frame_indices`.
        sample_rate: of the waveform, in Hz; None keeps the file's own rate.
        seconds: use at most the first so many seconds; None uses all.
        align: the waveform begins with the file, and has zeros where no sound is. False begins it with the first
            sample, wherever the pictures begin, and joins what gaps separate, as published pipelines do.
        audio: "required", or "silence" to give a video without sound as many zeros as its pictures last.

    Raises:
        MediaError: no such file, a missing stream, a broken or truncated one, or samples that are not finite.
    """
    check_reading(0.0, seconds, sample_rate)
    check_choice("audio", audio, ("required", "silence"))
    with opened(path) as container:
        video, track = require_stream(container, path, "video"), best_stream(container, "audio")
        if audio == "required":
            track = require_stream(container, path, "audio")
        streams = [stream for stream in (video, track) if stream]
        spans = scan(container, streams, seconds)
        for stream in streams:
            check_complete(path, stream, spans[stream.index].end, seconds)
        frame_rate, frame_count = frame_rate_of(video), len(spans[video.index].times)
        zero, video_start = zero_of(container), spans[video.index].start
        indices = list(frame_rule(frame_count, frame_rate))
        packets = spans[video.index].packets

    # Opened again rather than wound back: winding back to zero would skip what lies before, which decoders warm up on.
    with opened(path) as container:
        video = require_stream(container, path, "video")
        pictures = _Pictures(video, indices, packets)
        sound = SoundReader(container, path, sample_rate, channel, 0.0, seconds, align) if track else None
        samples: list[np.ndarray] = []
        for packet in container.demux([video, sound.stream] if sound else [video]):
            if packet.stream is not video:
                samples += sound.decode(packet)
            elif not pictures.complete:
                pictures.take(pictures.decode(packet))
            if pictures.complete and (sound is None or sound.complete):
                break
        if sound:
            sound.check_end()

    if not pictures.complete and 0 < pictures.position < frame_count:
        # Some codecs (VP8) store pictures that are never shown as packets of their own: choose again from what came.
        options = {"sample_rate": sample_rate, "channel": channel, "seconds": seconds, "audio": audio, "align": align}
        return read_clip(path, lambda _, rate: frame_rule(pictures.position, rate), **options)
    start, gaps = None, []
    if sound:
        sample_rate, waveform = sound.sample_rate, torch.from_numpy(np.concatenate(samples))
        shift = sound.zero - zero
        start, gaps = sound.first + shift, [(begin + shift, length) for begin, length in sound.gaps]
    else:
        sample_rate = 16000 if sample_rate is None else sample_rate
        waveform = torch.zeros(round(frame_count / frame_rate * sample_rate))
    frames, times = pictures.stacked(path), [pictures.times[index] for index in indices]
    shown = (frames, indices, times, frame_rate, frame_count)
    return Clip(Path(path), waveform, sample_rate, *shown, start, video_start, gaps)


def read_frames(
    path: str | Path,
    indices: Sequence[int] | Callable[[int, float], Sequence[int]] | None = None,
    *,
    times: Sequence[float] | None = None,
) -> UInt8[Tensor, "frames 3 height width"]:
    """Read chosen pictures of a video in one pass, turned upright.

    Args:
        indices: of the pictures, counted from 0 in the order in which they are shown; any order, repeats allowed. Or a
            rule as in `read_clip`.
        times: or the seconds: the picture that is on the screen then (before the first one, the first).

    Returns:
        `(frames, 3, height, width)`, uint8 RGB, in the order asked for.

    Raises:
        MediaError: no such file, no video in it, a broken stream, or it ends before a wanted picture.
        ParameterError: neither or both of `indices` and `times`, an empty list, or a negative number.
    """
    if (indices is None) == (times is None):
        raise ParameterError("indices, times", "neither or both are given", "one of them")
    packets = []
    if callable(indices):
        with opened(path) as container:
            stream = require_stream(container, path, "video")
            span = scan(container, [stream])[stream.index]
            check_complete(path, stream, span.end, None)
            indices, packets = indices(len(span.times), frame_rate_of(stream)), span.packets
    wanted = list(times if indices is None else indices)
    if not wanted or not min(wanted) >= 0:
        name = "times" if indices is None else "indices"
        raise ParameterError(name, str(wanted), "one or more numbers from 0 up")
    if times is None:
        return _collect(path, partial(_Pictures, packets=packets), wanted).stacked(path)
    if min(wanted) > COUNTED:
        pictures = _collect(path, _TimedPictures, wanted, start=min(wanted) - PREROLL)
        if pictures.first <= min(wanted):  # else the seek went too far
            return pictures.stacked(path)
    return _collect(path, _TimedPictures, wanted).stacked(path)


def iterate_frames(path: str | Path) -> Iterator[tuple[float, UInt8[Tensor, "3 height width"]]]:
    """Iterate over all pictures of a video with their times in seconds."""
    with opened(path) as container:
        stream = require_stream(container, path, "video")
        for position, frame in enumerate(container.decode(stream)):
            yield time_of(frame, stream, position), torch.from_numpy(upright(frame)).permute(2, 0, 1)


class _Pictures:
    """Collects the pictures at wanted indices from frames that come in order; the others are never converted.

    With the `packets` of a scan, those that no wanted picture needs are not decoded.
    """

    def __init__(self, stream: av.VideoStream, wanted: list[int], packets: Sequence[tuple[int | None, bool]] = ()):
        self.stream, self.wanted = stream, wanted
        self.plan = _Plan.of(stream, wanted, packets)
        self.position = 0  # the index of the next frame
        self.found: dict[int, np.ndarray] = {}
        self.times: dict[int, float] = {}
        self._missing = set(wanted)

    @property
    def complete(self) -> bool:
        return not self._missing

    def decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        return self.plan.decode(packet) if self.plan else decode(packet)

    def take(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            if self.plan:
                self.position = self.plan.numbers.get(frame.pts, self.position)
            if self.position in self._missing:
                self._missing.discard(self.position)
                self.found[self.position] = upright(frame)
                self.times[self.position] = time_of(frame, self.stream, self.position)
            self.position += 1

    def stacked(self, path: str | Path) -> UInt8[Tensor, "frames 3 height width"]:
        if self._missing:
            raise MediaError(path, f"only {self.position} frames", f"frames up to {max(self.wanted)}, counted from 0")
        return _stack(path, [self.found[index] for index in self.wanted])


class _Plan:
    """Packets that wanted pictures need: from the last fresh start before each, and none that only others need.

    numbers: the index of each picture by its time in ticks.
    """

    def __init__(self, stream: av.VideoStream, wanted: list[int], packets: Sequence[tuple[int, bool]]):
        self.stream, self.position = stream, 0
        shown = sorted(ticks for ticks, _ in packets)
        self.numbers = {ticks: number for number, ticks in enumerate(shown)}
        self.wanted, self.needed = {shown[index] for index in wanted}, set()
        starts = [(place, ticks) for place, (ticks, fresh) in enumerate(packets) if fresh]
        for place, (ticks, _) in enumerate(packets):
            if ticks in self.wanted:
                begin = max((at for at, first in starts if at <= place and first <= ticks), default=0)
                self.needed.update(range(begin, place + 1))

    @classmethod
    def of(cls, stream: av.VideoStream, wanted: list[int], packets: Sequence[tuple[int | None, bool]]) -> _Plan | None:
        """Return a plan, or None where packets and pictures may not go together: then all is decoded and counted."""
        times = {ticks for ticks, _ in packets}
        known = stream.codec_context.name in ("h264", "hevc") and None not in times and len(times) == len(packets)
        return cls(stream, wanted, packets) if known and max(wanted, default=0) < len(packets) else None

    def decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        """Decode the next packet if it is needed; at the end of a stretch, return all that the decoder holds back."""
        context, place = self.stream.codec_context, self.position
        self.position += 1
        if place not in self.needed:
            return []
        context.skip_frame = "DEFAULT" if packet.pts in self.wanted else "NONREF"
        frames = decode(packet)
        if place + 1 not in self.needed:
            frames += context.decode(None)
            context.flush_buffers()
        for frame in frames:
            frame.time_base = self.stream.time_base
        return frames


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

    decode = staticmethod(decode)

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
        return _stack(path, [self.found[time] for time in self.wanted])

    def _keep_before(self, end: float) -> None:
        while self._shown is not None and self._waiting and self._waiting[-1] < end:
            self.found[self._waiting.pop()] = upright(self._shown)


def _collect(path: str | Path, kind: Callable, wanted: list, start: float = 0.0) -> _Pictures | _TimedPictures:
    with opened(path) as container:
        stream = require_stream(container, path, "video")
        pictures = kind(stream, wanted)
        if start:
            container.seek(int((start + zero_of(container)) * av.time_base))
        for packet in container.demux(stream):
            lenient = bool(start) and not pictures.position
            pictures.take(decode(packet, lenient=True) if lenient else pictures.decode(packet))
            if pictures.complete:
                break
    return pictures


def check_sizes(path: str | Path, sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse pictures of several sizes (height, width)."""
    if len(set(sizes)) > 1:
        found = ", then ".join(f"{width} x {height}" for height, width in dict.fromkeys(sizes))
        advice = "Scale them to one size with an editor, or choose pictures of one size."
        raise MediaError(path, f"its pictures change their size: {found}", "one size", advice)


def upright(frame: av.VideoFrame) -> np.ndarray:
    """`(height, width, 3)`, uint8 RGB, turned as players do: phones store pictures lying on their side."""
    # One thread: those of a frame that a forked process collects would never end.
    picture, (right, down) = frame.to_ndarray(format="rgb24", threads=1), orientation(frame)
    if right[1]:  # the picture's rows are shown as columns
        picture, right, down = picture.transpose(1, 0, 2), down, right
    return np.ascontiguousarray(picture[:: int(down[1]), :: int(right[0])])


def _stack(path: str | Path, pictures: list[np.ndarray]) -> UInt8[Tensor, "frames 3 height width"]:
    check_sizes(path, [picture.shape[:2] for picture in pictures])
    # Colours last in memory, as decoders and plots have them; torch calls this layout channels_last.
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
