"""Media files with known content, made for tests: each picture carries its own number, each sound its own tone."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import torch

from avlib import media

SIZE = 64  # of each picture, in pixels


def numbered(number: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """A picture that says `number` in eight black or white stripes, which survive lossy coding, rotation aside."""
    stripes = [255 * (number >> bit & 1) for bit in range(8)]
    row = np.repeat(np.array(stripes, np.uint8), -(-width // 8))[:width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def numbers(frames: torch.Tensor) -> list[int]:
    """What `numbered` wrote, read from the middle row of each picture of `(n, 3, height, width)`."""
    height, width = frames.shape[-2:]
    columns = [(2 * bit + 1) * width // 16 for bit in range(8)]
    bits = frames[:, 0, height // 2, columns] > 127
    return (bits * 2 ** torch.arange(8)).sum(dim=1).tolist()


def tone(seconds: float, rate: int, hertz: float = 440.0, channels: int = 1) -> torch.Tensor:
    """A sine in each of `(channels, samples)`; channel k is an octave above the one before."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    pitches = hertz * 2.0 ** torch.arange(channels)[:, None]
    return (0.5 * torch.sin(2 * torch.pi * pitches * time)).float()


def write_clip(
    path: Path, *, frames: int = 50, rate: float = 25.0, sound_rate: int = 44100, channels: int = 2, **options
):
    """An mp4 with numbered pictures and tones of the same length."""
    waveform = tone(frames / rate, sound_rate, channels=channels)
    media.write_video(path, map(numbered, range(frames)), rate, waveform, sound_rate, **options)
    return path


def write_wav(path: Path, samples: torch.Tensor, rate: int, subtype: str = "FLOAT") -> Path:
    """`(channels, samples)` as they are, also what no recorder would write."""
    soundfile.write(path, samples.numpy().T, rate, subtype, format="WAV")
    return path


def write_pictures(
    path: Path, times: list[int], ticks_per_second: int = 1000, *, rotation: int = 0, codec: str = "libx264", options=()
):
    """Numbered pictures at given ticks: uneven intervals, a start before zero (hidden by an edit list), a rotation."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE // 2, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, ticks_per_second)
        stream.options = dict(options)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, SIZE // 2), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, ticks_per_second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_container(path: Path, video: str, audio: str, seconds: int = 6) -> Path:
    """Numbered pictures at 25 Hz and a rising tone, in the container that the name asks for, with these codecs."""
    rate = 48000
    time = torch.arange(seconds * rate, dtype=torch.float64) / rate
    samples = (0.5 * torch.sin(2 * torch.pi * (200 + 100 * time) * time)).float()[None].expand(2, -1)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video, rate=25)
        pictures.width = pictures.height = SIZE
        pictures.pix_fmt, pictures.bit_rate = "yuv420p", 2_000_000
        sound = container.add_stream(audio, rate=rate, layout="stereo")
        sound.bit_rate = 128_000
        resampler = av.AudioResampler(sound.format, sound.layout, rate, sound.frame_size or 1024)
        for number in range(25 * seconds):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
            piece = samples[:, number * rate // 25 : (number + 1) * rate // 25].contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(piece, "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, number * rate // 25, Fraction(1, rate)
            for resampled in resampler.resample(frame):
                container.mux(sound.encode(resampled))
        for resampled in resampler.resample(None):
            container.mux(sound.encode(resampled))
        for stream in (pictures, sound):
            container.mux(stream.encode(None))
    return path
