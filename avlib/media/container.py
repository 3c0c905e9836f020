"""Opening a file and finding out what it holds, without decoding it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition

from ..errors import MediaError, ParameterError
from .integrity import declared_size, opening

# Seconds that may lack at the end where a header says how long a stream is. In mp4, encoders round to their own frames.
_TOLERATED_LOSS = {"mov": 0.5, "asf": 0.5, "avi": 0.02} | dict.fromkeys(
    ("flac", "aiff", "au", "mp3", "tta", "wv"), 1e-4
)

# Seconds up to which everything is decoded and counted, and from which a part of a file is sought. Only counting is
# exact: times are rounded to milliseconds in some formats, and seeks go astray in others.
COUNTED = 60.0
PREROLL = 1  # whole seconds decoded before a wanted moment, in which resampling filters and overlapping codecs settle

_TEXT = ("tty", "bin", "xbin", "adf", "idf")  # what FFmpeg draws as pictures of text

_WITHOUT = {
    "audio": 'Give a clip with sound, or pass audio="silence" where that is offered.',
    "video": "Give a clip with pictures.",
}
BROKEN = "It may be truncated, or something else under this name: fetch it again, or see whether a player plays it."


@dataclass(frozen=True)
class AudioStream:
    """A sound stream; `start` and `seconds` follow its packets, not the header."""

    codec: str
    sample_rate: int
    channels: int
    layout: str
    start: float
    seconds: float


@dataclass(frozen=True)
class VideoStream:
    """A video stream.

    `frames` counts the pictures that are shown; `header_frames` those of the header (0: not given), with pictures that
    an edit list hides. `rotation` is in degrees counter-clockwise, `flipped` is True if a mirror image (left to right)
    is shown after it; `width` and `height` are as shown.
    `frame_rate` is the nominal one in Hz; `constant_rate` is True if all intervals are equal.
    """

    codec: str
    width: int
    height: int
    rotation: int
    flipped: bool
    frame_rate: float
    constant_rate: bool
    frames: int
    header_frames: int
    start: float
    seconds: float


@dataclass(frozen=True)
class MediaInfo:
    """Streams of a file; `seconds` is what the container claims, or where that is wrong, what its packets last."""

    path: Path
    format: str
    seconds: float
    audio: AudioStream | None
    video: VideoStream | None


def probe(path: str | Path) -> MediaInfo:
    """Describe a file's streams from all its packets, decoding only the first picture."""
    with opened(path) as container:
        audio, video = (
            require_stream(container, path, kind) if best_stream(container, kind) else None for kind in _WITHOUT
        )
        if not audio and not video:
            raise _missing(container, path, "audio or video")
        spans = scan(container, [stream for stream in (audio, video) if stream])
        claimed, end = (container.duration or 0) / av.time_base, max(span.end for span in spans.values())
        return MediaInfo(
            path=Path(path),
            format=container.format.name,
            seconds=claimed if abs(claimed - end) < 0.1 else end,
            audio=_describe_audio(audio, spans[audio.index]) if audio else None,
            video=_describe_video(path, video, spans[video.index]) if video else None,
        )


def _describe_audio(stream: av.AudioStream, span: Span) -> AudioStream:
    codec, layout = stream.codec_context.name, stream.layout.name
    return AudioStream(codec, stream.rate, stream.channels, layout, span.start, span.end - span.start)


def _describe_video(path: str | Path, stream: av.VideoStream, span: Span) -> VideoStream:
    # Rotation is a property of pictures. The file is opened anew, since not every format can be wound back.
    with opened(path) as container:
        frame = next(container.decode(require_stream(container, path, "video")), None)
        (a, b), (c, d) = np.eye(2) if frame is None else orientation(frame)
    flipped = bool(a * d < b * c)
    rotation = round(math.degrees(math.atan2(-b, -a if flipped else a)))
    intervals = [after - before for before, after in pairwise(sorted(span.times))]
    width, height = (stream.height, stream.width) if rotation % 180 else (stream.width, stream.height)
    return VideoStream(
        codec=stream.codec_context.name,
        width=width,
        height=height,
        rotation=rotation,
        flipped=flipped,
        frame_rate=frame_rate_of(stream),
        # containers that count in milliseconds alternate between, say, 33 and 34
        constant_rate=not intervals or max(intervals) - min(intervals) < 1.5e-3,
        frames=len(span.times),
        header_frames=stream.frames,
        start=span.start,
        seconds=span.end - span.start,
    )


@contextmanager
def opened(path: str | Path) -> Iterator[InputContainer]:
    """Open a file for reading; errors of FFmpeg, then or later, become MediaErrors."""
    _check_file(path)
    try:
        # Tags may be in any encoding, and nobody reads them. A playlist must not fetch from the network.
        with av.open(**opening(path), metadata_errors="replace") as container:
            if container.format.name in _TEXT:
                raise MediaError(path, f"is text ({container.format.name})", "a sound or video file", BROKEN)
            for stream in (*container.streams.video, *container.streams.audio):
                if stream.codec_context and stream.type == "video":
                    stream.thread_type = "AUTO"
                elif stream.codec_context:
                    stream.codec_context.options = {"err_detect": "crccheck+explode"}
            yield container
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except av.error.FFmpegError as error:
        raise MediaError(path, f"cannot be decoded ({error.strerror})", "sound or video", BROKEN) from error


def _check_file(path: str | Path) -> None:
    """Raise a MediaError for what is no readable file with content."""
    file = Path(path)
    try:
        status = file.stat()
        if S_ISDIR(status.st_mode):
            found = "is a folder" if any(file.iterdir()) else "is an empty folder"
            raise MediaError(path, found, "a sound or video file", "Give one file.")
    except (FileNotFoundError, NotADirectoryError):
        advice = "Check the name and the folder from which it is given."
        raise MediaError(path, "no such file", "a sound or video file", advice) from None
    except (OSError, ValueError) as error:  # no permission, a name that is too long or has a NUL
        raise _unreadable(path, error) from error
    if not S_ISREG(status.st_mode):
        raise MediaError(path, "is a device or a pipe", "a sound or video file", "Save it as a file first.")
    if not status.st_size:
        raise MediaError(path, "is empty (0 bytes)", "a sound or video file", "Fetch or record it again.")


def _unreadable(path: str | Path, error: Exception) -> MediaError:
    found = f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    return MediaError(path, found, "a file that may be read", "Check its name and the permissions of its folder.")


def check_reading(start: float, seconds: float | None, sample_rate: int | None) -> None:
    """Refuse a negative start, and a length or sample rate that is not positive."""
    if not 0 <= start < math.inf:
        raise ParameterError("start", f"{start}", "0 or more seconds")
    if seconds is not None and not seconds > 0:
        raise ParameterError("seconds", f"{seconds}", "more than 0, or None for all")
    if sample_rate is not None and sample_rate < 1:
        raise ParameterError("sample_rate", f"{sample_rate}", "1 or more Hz, or None for the file's own")


def best_stream(container: InputContainer, kind: str) -> av.AudioStream | av.VideoStream | None:
    """Return the stream that players choose; a cover picture is no video."""
    stream = container.streams.best(kind)
    return None if stream is None or stream.disposition & Disposition.attached_pic else stream


def require_stream(container: InputContainer, path: str | Path, kind: str) -> av.AudioStream | av.VideoStream:
    """Return the best "audio" or "video" stream, or raise a MediaError that lists the streams."""
    stream = best_stream(container, kind)
    if stream is None:
        raise _missing(container, path, kind)
    if stream.codec_context is None:
        found = f"its {kind} is in a format that FFmpeg {av.ffmpeg_version_info} does not know"
        raise MediaError(path, found, "a format that it decodes", "Convert it with the program that made it.")
    return stream


def _missing(container: InputContainer, path: str | Path, kind: str) -> MediaError:
    each = [(stream.type, stream.codec_context) for stream in container.streams]
    streams = ", ".join(f"{name} {codec.name if codec else 'unknown'}" for name, codec in each) or "none"
    return MediaError(path, f"no {kind} stream (streams: {streams})", advice=_WITHOUT.get(kind, BROKEN))


@dataclass
class Span:
    """Times of one stream's packets, and the end of the last.

    packets: of video, in the order of the file: time in ticks, None if it has none or is hidden, and `starts_anew`.
    """

    times: list[float] = field(default_factory=list)
    end: float = 0.0
    packets: list[tuple[int | None, bool]] = field(default_factory=list)

    @property
    def start(self) -> float:
        return min(self.times, default=0.0)


def scan(container: InputContainer, streams: list, seconds: float | None = None) -> dict[int, Span]:
    """Walk over the packets of `streams`, a hundred times faster than decoding.

    Packets that an edit list hides carry a mark and are left out, so this count is right where a header's is not. With
    `seconds`, packets that begin later are left out, and the walk ends when all streams are past it.
    """
    limit, zero = math.inf if seconds is None else seconds, zero_of(container)
    spans = {stream.index: Span() for stream in streams}
    running = set(spans)
    for packet in container.demux(streams):
        if not packet.size:  # the empty packet that ends a stream
            continue
        index, tick = packet.stream_index, float(packet.stream.time_base)
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is not None:
            time = ticks * tick - zero
        elif packet.stream.type == "video":  # a bare stream, such as .h264, has no times
            time = len(spans[index].times) / frame_rate_of(packet.stream)
        else:
            time = spans[index].end
        if packet.stream.type == "video":
            spans[index].packets.append((None if packet.is_discard else packet.pts, starts_anew(packet)))
        if time < limit and not packet.is_discard:
            spans[index].times.append(time)
            duration = packet.duration or 0  # that of some vorbis is negative, but without the sign
            spans[index].end = max(spans[index].end, time + (duration - (duration >> 31 << 32)) * tick)
        if (time if packet.dts is None else packet.dts * tick - zero) >= limit:
            running.discard(index)
            if not running:
                break
    return spans


def starts_anew(packet: av.Packet) -> bool:
    """Return True if what is shown from this picture on needs none before it.

    In H.264 a key frame may also begin a gradual refresh: only an IDR picture (NAL unit of type 5) forgets all.
    """
    context = packet.stream.codec_context
    if not packet.is_keyframe or context is None or context.name != "h264":
        return packet.is_keyframe
    data, header = bytes(packet), context.extradata or b""
    if header[:1] != b"\1":  # units after start codes, not after their sizes
        return re.search(rb"\x00\x00\x01[\x25\x45\x65]", data) is not None
    at, width = 0, (header[4] & 3) + 1
    while at + width < len(data):
        if data[at + width] & 31 == 5:
            return True
        at += width + int.from_bytes(data[at : at + width], "big")
    return False


def check_complete(path: str | Path, stream: av.stream.Stream, end: float, seconds: float | None) -> None:
    """Refuse a file that is damaged, or a stream that ends before its header promises, or before `seconds`."""
    if end >= (math.inf if seconds is None else seconds):
        return
    kind, size, declared = stream.container.format.name.split(",")[0], Path(path).stat().st_size, declared_size(path)
    promised = end * declared / size if declared > size else 0.0
    known = kind in _TOLERATED_LOSS and stream.duration is not None
    # FFmpeg estimates the length of an mp3 that does not count its frames, hardly ever to a whole number of samples.
    if known and kind == "mp3":  # the count comes with the delay of the encoder
        known = stream.start_time and (stream.duration * stream.time_base * stream.rate).denominator == 1
    if known:
        empty = max(0, stream.frames - len(stream.index_entries)) if kind == "avi" else 0  # chunks that hold nothing
        last = float((stream.duration - empty + (stream.start_time or 0)) * stream.time_base) - zero_of(
            stream.container
        )
        promised = max(promised, last if end < last - _TOLERATED_LOSS[kind] else 0.0)
    if promised:
        expected = f"{promised:.2f} s as its header says" if promised < math.inf else "more, and a mark of its end"
        advice = f"It is truncated: fetch it again, or pass seconds={math.floor(end * 100) / 100} to use what is there."
        raise MediaError(path, f"its {stream.type} ends at {end:.2f} s", expected, advice)


def decode(packet: av.Packet, *, lenient: bool = False) -> list:
    """Decode a packet; a tag between two sounds gives no frames, nor does a broken packet with `lenient`."""
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        if lenient or bytes(packet)[:3] in (b"ID3", b"TAG", b"APE"):
            return []
        raise


def zero_of(container: InputContainer) -> float:
    """The file's own time at its beginning, in seconds: recordings of broadcasts begin anywhere."""
    return (container.start_time or 0) / av.time_base


def time_of(frame: av.VideoFrame, stream: av.VideoStream, position: int) -> float:
    """Seconds from the beginning to a picture, by its time or position."""
    if frame.pts is None:
        return position / frame_rate_of(stream)
    return float(frame.pts * frame.time_base) - zero_of(stream.container)


def orientation(frame: av.VideoFrame) -> np.ndarray:
    """`(2, 2)`, where a picture's axes (right, down) point to when it is shown: of 1, 0 and -1."""
    data = frame.side_data.get("DISPLAYMATRIX")
    matrix = np.eye(2) if data is None else np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].astype(float)
    straight, turned = matrix * np.eye(2), matrix * (1 - np.eye(2))
    nearest = np.sign(straight if abs(straight).sum() >= abs(turned).sum() else turned)
    return nearest if abs(nearest).sum() == 2 else np.eye(2)  # a matrix of zeros says nothing


def frame_rate_of(stream: av.VideoStream) -> float:
    """The nominal rate in Hz, as guessed by FFmpeg; OpenCV's CAP_PROP_FPS."""
    return float(stream.guessed_rate or stream.average_rate or 1 / stream.time_base)
