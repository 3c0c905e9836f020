"""Sound of a file to mono waveforms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer
from jaxtyping import Float
from torch import Tensor

from ..errors import MediaError, ParameterError
from .container import BROKEN, COUNTED, PREROLL, check_complete, check_reading, decode, opened, require_stream, zero_of

# Samples that the resampler hands out at once: calling Python for each frame of a codec would cost as much as decoding.
_CHUNK = 16384
_JITTER = 0.05  # seconds by which time stamps may differ from counting; less than the eye and ear notice
_OVERLAP = 1.0  # seconds up to which sound that comes twice is cut; stamps that go back further have begun anew
_LONGEST_SILENCE = 600  # seconds; longer ones come from damaged time stamps


def read_audio(
    path: str | Path,
    sample_rate: int | None = 16000,
    *,
    channel: int | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    align: bool = False,
) -> Float[Tensor, " samples"]:
    """Read the sound of an audio or video file as mono.

    Args:
        sample_rate: resampled to this many Hz; None keeps the file's own rate.
        channel: None averages all channels; 0 keeps the first one only, as the published CAV-MAE pipeline does.
        start: skip this many seconds of the sound. Up to a minute the samples are those of a reading from the
            beginning; further on, the file's own times say where the part begins, to a millisecond in some formats.
        seconds: read at most this much; None reads to the end. A shorter file gives what it has.
        align: False begins with the first sample and joins what gaps in the time stamps separate. True counts time as
            the pictures of the file do, with zeros for sound that is not there.

    Returns:
        `(samples,)`, float32.

    Raises:
        MediaError: no such file, no sound in it, nothing after `start`, a broken or truncated stream, or samples that
            are not finite.
        ParameterError: there is no such channel, or a time or rate is out of range.
    """
    pieces = iterate_audio(path, sample_rate, channel=channel, start=start, seconds=seconds, align=align)
    return torch.from_numpy(np.concatenate(list(pieces)))


def iterate_audio(path: str | Path, sample_rate: int | None = 16000, **part: Any) -> Iterator[np.ndarray]:
    """Yield what `read_audio` returns for the same arguments, in pieces of varying length."""
    with opened(path) as container:
        sound = SoundReader(container, path, sample_rate, **part)
        for packet in container.demux(sound.stream):
            yield from sound.decode(packet)
            if sound.complete:
                break
        sound.check_end()


class SoundReader:
    """Decodes part of a sound stream to mono at one sample rate.

    Attributes:
        first: when the first decoded sample is heard, in seconds since `zero`; None before it is decoded.
        gaps: beginnings and lengths of gaps in the time stamps, in seconds since `zero`.
    """

    def __init__(
        self,
        container: InputContainer,
        path: str | Path,
        sample_rate: int | None,
        channel: int | None = None,
        start: float = 0.0,
        seconds: float | None = None,
        align: bool = False,
    ):
        check_reading(start, seconds, sample_rate)
        self.path, self.channel, self.start, self.align = path, channel, start, align
        self.stream = require_stream(container, path, "audio")
        self.sample_rate = self.stream.rate if sample_rate is None else sample_rate
        if channel is not None and not 0 <= channel < self.stream.channels:
            raise ParameterError("channel", f"{channel}", f"0 to {self.stream.channels - 1}, or None for the average")
        # Decoding starts at a whole second, where the samples of any two rates coincide: so the resampled ones are
        # those of a reading from the very start.
        self.origin = max(0, math.floor(start) - PREROLL)
        self.zero = zero_of(container) if align else float((self.stream.start_time or 0) * self.stream.time_base)
        self.sought = self.origin > COUNTED
        if self.sought:
            container.seek(int((self.origin + self.zero) * av.time_base))
        self.skip = round((start - self.origin) * self.sample_rate)
        self.wanted = math.inf if seconds is None or math.isinf(seconds) else round(seconds * self.sample_rate)
        self.made = self.taken = 0  # samples after resampling, and those of them that are returned
        self.first: float | None = None
        self.gaps: list[tuple[float, float]] = []
        self.end = 0.0  # of what has been decoded, by its time stamps
        self.clock = 0.0  # when the next sample is heard, by counting from the first one or the last gap
        self.timed = align or self.sought  # whether gaps count
        self.glued = 0.0  # seconds of gaps that do not count
        self.resampler: av.AudioResampler | None = None
        self.source: tuple | None = None

    @property
    def complete(self) -> bool:
        return self.taken >= self.wanted

    def decode(self, packet: av.Packet) -> list[np.ndarray]:
        """Decode a packet to float32 pieces `(samples,)`; the last packet flushes the resampler."""
        if self.complete:
            return []
        frames = decode(packet, lenient=self.sought and self.first is None)
        pieces = [piece for frame in frames for piece in self._placed(frame)]
        if not packet.size:
            pieces += self._flushed()
        return [piece for piece in map(self._trim, pieces) if len(piece)]

    def check_end(self) -> None:
        """Raise if there are no samples, or fewer than the header promises."""
        if not self.complete:
            check_complete(self.path, self.stream, self.end + self.zero - zero_of(self.stream.container), None)
        if not self.taken:
            found = f"no sound after {self.start} s; it ends at {self.end:.2f} s" if self.start else "no sound samples"
            raise MediaError(self.path, found, "at least one sample", BROKEN)

    def _placed(self, frame: av.AudioFrame) -> list[np.ndarray]:
        """Resample a frame, and put silence before it where nothing was."""
        begin, keep, pause = self._times(frame)
        frame = _cut_before(frame, round((max(self.origin, keep) - begin) * frame.sample_rate))
        if frame is None:
            return []
        pieces = []
        source = (frame.sample_rate, frame.layout.name, frame.format.name)
        if source != self.source or pause:  # some streams change in the middle, for example after an advertisement
            pieces = self._flushed()
            self.source, self.resampler = source, av.AudioResampler("flt", frame.layout, self.sample_rate, _CHUNK)
        if pause:
            pieces.append(self._silence(begin))
        return pieces + [self._mono(out) for out in self.resampler.resample(frame)]

    def _times(self, frame: av.AudioFrame) -> tuple[float, float, bool]:
        """When a frame begins; from when on it is new; and whether nothing was before it."""
        stamp = self.clock if frame.pts is None else float(frame.pts * frame.time_base) - self.zero
        if begins := self.first is None:
            self.first = self.clock = stamp
            self.glued = 0.0 if self.timed else stamp
        keep, late = self.clock, stamp - self.clock
        if late > 1e-3 and self.stream.container.format.name in ("flac", "ogg"):  # a damaged piece
            found = f"{late:.3f} s of its sound are missing at {self.clock:.3f} s"
            raise MediaError(self.path, found, "sound without gaps, as its own numbers say", BROKEN)
        if late > _JITTER:
            self.gaps.append((self.clock, late))
            self.glued += 0.0 if self.timed else late
            keep = self.clock = stamp
        elif self.align and -_OVERLAP < late < -_JITTER:
            self.clock = stamp
        begin, seconds = self.clock - self.glued, frame.samples / frame.sample_rate
        self.clock = max(keep, self.clock + seconds)
        self.end = max(self.end, stamp + seconds)
        return begin, keep - self.glued, self.align and (begins or late > _JITTER)

    def _silence(self, end: float) -> np.ndarray:
        missing = max(0, round((end - self.origin) * self.sample_rate) - self.made)
        missing = min(missing, self.skip + self.wanted - self.taken)
        if missing > _LONGEST_SILENCE * self.sample_rate:
            found = f"its sound pauses for {missing / self.sample_rate:.0f} s, by its time stamps"
            raise MediaError(self.path, found, f"at most {_LONGEST_SILENCE} s", "Read without pauses: align=False.")
        self.made += missing
        return np.zeros(missing, np.float32)

    def _flushed(self) -> list[np.ndarray]:
        return [self._mono(frame) for frame in self.resampler.resample(None)] if self.resampler else []

    def _mono(self, frame: av.AudioFrame) -> np.ndarray:
        # Packed samples, since PyAV reads past the pointers of a frame with eight planes or more.
        channels = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T  # (channels, samples)
        self.made += channels.shape[1]
        return channels.copy().mean(axis=0) if self.channel is None else channels[self.channel].copy()

    def _trim(self, samples: np.ndarray) -> np.ndarray:
        skipped = min(self.skip, len(samples))
        self.skip -= skipped
        samples = samples[skipped:]
        if not math.isinf(self.wanted):
            samples = samples[: self.wanted - self.taken]
        finite = np.isfinite(samples)
        if not finite.all():
            time = self.start + (self.taken + int(finite.argmin())) / self.sample_rate
            found = f"its sound is not a number at {time:.3f} s"
            advice = "Find out what wrote it; features of such a sound would be NaN throughout."
            raise MediaError(self.path, found, "finite samples", advice)
        self.taken += len(samples)
        return samples


def _cut_before(frame: av.AudioFrame, count: int) -> av.AudioFrame | None:
    """`frame` without its first `count` samples; None when nothing is left."""
    if count <= 0:
        return frame
    if count >= frame.samples:
        return None
    packed = _converted(frame, frame.format.packed.name)  # see SoundReader._mono
    samples = np.ascontiguousarray(packed.to_ndarray()[:, count * frame.layout.nb_channels :])
    rest = av.AudioFrame.from_ndarray(samples, packed.format.name, frame.layout.name)
    rest.sample_rate = frame.sample_rate
    return _converted(rest, frame.format.name)


def _converted(frame: av.AudioFrame, kind: str) -> av.AudioFrame:
    return av.AudioResampler(kind, frame.layout, frame.sample_rate).resample(frame)[0]
