"""Sound and pictures of a clip together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import ParameterError
from .container import audio_stream, best_stream, check_span, check_whole, frame_rate_of, opened, scan, video_stream
from .pictures import Pictures
from .sound import SoundReader


@dataclass(frozen=True)
class Clip:
    """Sound and chosen pictures of one file.

    Attributes:
        path: where they come from.
        waveform: `(samples,)`, float32, mono; in [-1, 1] unless the file itself goes beyond.
        sample_rate: of the waveform, in Hz.
        frames: `(frames, 3, height, width)`, uint8 RGB.
        frame_indices: which pictures these are, counted from 0 in the order in which they are shown.
        frame_times: when they appear, in seconds.
        frame_rate: of the whole video, in Hz.
        frame_count: how many frames they were chosen from.
    """

    path: Path
    waveform: Float[Tensor, " samples"]
    sample_rate: int
    frames: UInt8[Tensor, "frames 3 height width"]
    frame_indices: list[int]
    frame_times: list[float]
    frame_rate: float
    frame_count: int


def read_clip(
    path: str | Path,
    frame_rule: Callable[[int, float], Sequence[int]],
    *,
    sample_rate: int | None = 16000,
    channel: int | None = None,
    seconds: float | None = None,
    audio: str = "required",
) -> Clip:
    """Read the sound and chosen pictures of a clip in one decoding pass.

    Args:
        path: any file that FFmpeg reads.
        frame_rule: from the number of frames and the frame rate in Hz to the wanted indices, for example
            `avlib.features.cav_mae_frame_indices`. It is told the number of frames that begin within `seconds`.
        sample_rate: of the waveform, in Hz; None keeps the file's own rate.
        channel: as in `read_audio`.
        seconds: use at most the first so many seconds; None uses all.
        audio: "required", or "silence" to give a video without sound as many zeros as its pictures last.

    Raises:
        MediaError: no such file, a missing stream, a broken or truncated one, or samples that are not finite.
        ParameterError: a wrong choice or number.
    """
    check_span(0.0, seconds)
    if audio not in ("required", "silence"):
        raise ParameterError("audio", repr(audio), '"required" or "silence"')
    with opened(path) as container:
        video, heard = video_stream(container, path), best_stream(container, "audio")
        if audio == "required":
            heard = audio_stream(container, path)
        spans = scan(container, [stream for stream in (video, heard) if stream], seconds)
        for stream in (video, heard):
            if stream:
                check_whole(path, stream, spans[stream.index].end, seconds)
        frame_rate, frame_count = frame_rate_of(video), len(spans[video.index].times)
        indices = list(frame_rule(frame_count, frame_rate))

    # Opened again rather than wound back: winding back to zero would skip what lies before, which decoders warm up on.
    with opened(path) as container:
        video = video_stream(container, path)
        pictures = Pictures(video, indices)
        sound = SoundReader(container, path, sample_rate, channel, 0.0, seconds) if heard else None
        streams = [video, sound.stream] if sound else [video]
        samples: list[np.ndarray] = []
        for packet in container.demux(streams):
            if packet.stream is not video:
                samples += sound.decode(packet)
            elif not pictures.complete:
                pictures.take(packet.decode())
            if pictures.complete and (sound is None or sound.complete):
                break
        if sound:
            sound.check_end()

    if not pictures.complete and 0 < pictures.position < frame_count:
        # Some codecs (VP8) store pictures that are never shown as packets of their own: choose again from what came.
        def rule(_: int, rate: float) -> Sequence[int]:
            return frame_rule(pictures.position, rate)

        return read_clip(path, rule, sample_rate=sample_rate, channel=channel, seconds=seconds, audio=audio)
    if sound:
        rate, waveform = sound.sample_rate, torch.from_numpy(np.concatenate(samples))
    else:
        rate = sample_rate or 16000
        waveform = torch.zeros(round(frame_count / frame_rate * rate))
    return Clip(
        path=Path(path),
        waveform=waveform,
        sample_rate=rate,
        frames=pictures.stacked(path),
        frame_indices=indices,
        frame_times=[pictures.times[index] for index in indices],
        frame_rate=frame_rate,
        frame_count=frame_count,
    )
