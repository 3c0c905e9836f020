"""What can be played and moved: sound, video, sliders. Each stands beside a static figure and can be left out."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .. import media

_PREVIEW_HEIGHT = 240
_PREVIEW_RATE = 12.5


def play(waveform: Float[Tensor, "*channels samples"], sample_rate: int):
    """A player for `(samples,)` or `(channels, samples)`, at the loudness that the samples have; 16-bit, embedded."""
    import soundfile
    from IPython.display import Audio

    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.detach().cpu().float().clamp(-1, 1).numpy().T, sample_rate, "PCM_16", format="WAV")
    return Audio(buffer.getvalue())


def play_video(path: str | Path, *, seconds: float = 10.0, embed_limit: int = 1_000_000):
    """A player for a video file, embedded in the notebook.

    An mp4 of up to `embed_limit` bytes is embedded as it is; of anything else, a small copy of the first `seconds`
    (240 rows, at most 12.5 pictures a second) that every browser plays.

    Raises:
        MediaError: the file cannot be read as video.
    """
    from IPython.display import Video

    path = Path(path)
    if path.suffix.lower() == ".mp4" and path.stat().st_size <= embed_limit:
        content = path.read_bytes()
    else:
        with TemporaryDirectory() as folder:
            preview = Path(folder) / "preview.mp4"
            _write_preview(path, preview, seconds)
            content = preview.read_bytes()
    return Video(content, embed=True, mimetype="video/mp4", height=_PREVIEW_HEIGHT)


def slide(draw: Callable[[int], None], *, low: int, high: int, start: int, label: str):
    """A slider that redraws a figure, once per move; `draw` is called with its value.

    It is an extra: draw the figure for one value in a cell of its own first, since saved pages keep no sliders.
    """
    import ipywidgets

    slider = ipywidgets.IntSlider(start, low, high, description=label, continuous_update=False)
    return ipywidgets.VBox([slider, ipywidgets.interactive_output(draw, {label: slider})])


def _write_preview(path: Path, target: Path, seconds: float) -> None:
    info = media.probe(path)
    rate = min(_PREVIEW_RATE, info.video.frame_rate) if info.video else _PREVIEW_RATE
    waveform = media.read_audio(path, 32000, seconds=seconds)[None] if info.audio else None

    def small_frames():
        due = 0.0  # when the next picture of the copy is wanted
        for time, frame in media.iterate_frames(path):
            if time >= seconds:
                return
            while due <= time:
                height, width = frame.shape[-2:]
                size = (_PREVIEW_HEIGHT, max(2, round(width * _PREVIEW_HEIGHT / height)))
                yield F.interpolate(frame[None].float(), size, mode="area")[0].round().to(torch.uint8)
                due += 1 / rate

    media.write_video(target, small_frames(), rate, waveform, 32000)
