"""Tensors to files that other programs play."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from jaxtyping import Float
from torch import Tensor

from ..errors import ParameterError


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray | Tensor],
    frame_rate: float,
    waveform: Float[Tensor, "channels samples"] | None = None,
    sample_rate: int = 48000,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write pictures and sound as mp4 (h264, aac) that browsers play.

    Args:
        frames: uint8 RGB pictures of one size, each an array `(height, width, 3)` or a tensor `(3, height, width)`. An
            odd height or width is made even, as the codec wants, by repeating the last row or column.
        waveform: `(channels, samples)`, one or two channels in [-1, 1].
        metadata: tags such as title and comment.
    """
    if waveform is not None and (waveform.ndim != 2 or waveform.shape[0] not in (1, 2)):
        raise ParameterError("waveform", f"shape {tuple(waveform.shape)}", "(1 or 2 channels, samples)")
    pictures = (_even(_as_array(frame)) for frame in frames)
    first = next(pictures, None)
    if first is None:
        raise ParameterError("frames", "none", "at least one picture")
    with av.open(str(Path(path).absolute()), "w", options={"movflags": "faststart"}) as container:
        container.metadata.update(metadata or {})
        video = container.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(1001))
        video.height, video.width, _ = first.shape
        video.pix_fmt = "yuv420p"
        video.options = {"crf": "20", "preset": "veryfast"}
        sound = None if waveform is None else _SoundWriter(container, waveform, sample_rate)
        for index, picture in enumerate(chain([first], pictures)):
            if picture.shape != first.shape:
                raise ParameterError(f"frames[{index}]", f"shape {picture.shape}", f"{first.shape} as the first")
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if sound:
                sound.write((index + 1) / frame_rate)
        container.mux(video.encode(None))
        if sound:
            sound.finish()


def write_wav(
    path: str | Path,
    waveform: Float[Tensor, "*channels samples"] | Iterable[Float[Tensor, "*channels samples"]],
    sample_rate: int,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write sound as a 16-bit PCM wav file; values beyond [-1, 1] are clipped.

    Args:
        waveform: `(samples,)` or `(channels, samples)`, or pieces of it, one after another.
        metadata: tags that the format knows: title, comment, artist, software, date.
    """
    import soundfile

    pieces = iter([waveform] if isinstance(waveform, Tensor) else waveform)
    first = next(pieces)
    try:
        with soundfile.SoundFile(path, "w", sample_rate, first[..., 0].numel(), "PCM_16", format="WAV") as file:
            for name, value in (metadata or {}).items():
                setattr(file, name, value)
            for piece in chain([first], pieces):
                file.write(piece.detach().cpu().float().numpy().T)
    except soundfile.LibsndfileError as error:
        raise OSError(f"{path}: {error.error_string}") from error


class _SoundWriter:
    """Encodes a waveform piece by piece, so that sound and pictures are interleaved."""

    def __init__(self, container: OutputContainer, waveform: Tensor, sample_rate: int):
        self.layout = "mono" if len(waveform) == 1 else "stereo"
        self.container, self.sample_rate = container, sample_rate
        self.samples = waveform.detach().cpu().float().numpy()
        self.stream = container.add_stream("aac", rate=sample_rate, layout=self.layout)
        self.stream.bit_rate = 128_000
        self.written = 0

    def write(self, until: float) -> None:
        stop = min(round(until * self.sample_rate), self.samples.shape[1])
        if stop <= self.written:
            return
        piece = np.ascontiguousarray(self.samples[:, self.written : stop])
        frame = av.AudioFrame.from_ndarray(piece, "fltp", self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.sample_rate, self.written, Fraction(1, self.sample_rate)
        self.container.mux(self.stream.encode(frame))
        self.written = stop

    def finish(self) -> None:
        self.write(self.samples.shape[1] / self.sample_rate)
        self.container.mux(self.stream.encode(None))


def _as_array(frame: np.ndarray | Tensor) -> np.ndarray:
    array = frame.detach().cpu().permute(1, 2, 0).numpy() if isinstance(frame, Tensor) else np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ParameterError("frames", f"{array.dtype} of shape {array.shape}", "uint8 of shape (height, width, 3)")
    return array


def _even(picture: np.ndarray) -> np.ndarray:
    height, width, _ = picture.shape
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
