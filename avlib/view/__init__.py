"""Figures, players and inspectors for notebooks: the same colours and the same axes everywhere.

Time runs from left to right, low frequencies are at the bottom. A function that draws takes the axes to draw on and
returns nothing; it adds no title, since the notebook says what a figure shows. Players and inspectors stand after a
static figure and can be left out.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backend_bases import DrawEvent
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .. import media
from ..errors import ParameterError, check_whole
from ..shapes import palette
from ..shapes.widget import Widget, embedded, widget
from .inspectors import attend, inspect, spectrogram, tokens

_PREVIEW_HEIGHT, _PREVIEW_RATE = 240, 12.5  # pixels, Hz
_STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": palette.PAPER,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": palette.INK,
    "axes.labelcolor": palette.INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "image.interpolation": "nearest",
    "legend.frameon": False,
}


def figure(rows: int = 1, columns: int = 1, *, height: float = 2.2, **options) -> tuple[Figure, Axes | np.ndarray]:
    """`plt.subplots` in the workbook's style, 9 inches wide, `height` inches per row."""
    plt.rcParams.update(_STYLE)  # for good, since later drawing into the figure looks up its style then
    plt.rcParams["font.family"] = ["DejaVu Sans", *_asian_fonts()]
    warnings.filterwarnings("ignore", "Glyph .* missing from")  # one for each letter; `_say_missing` says it once
    made = plt.subplots(rows, columns, figsize=(9, height * rows), FigureClass=_Described, **options)
    made[0].canvas.mpl_connect("draw_event", _say_missing)
    return made


class _Described(Figure):
    """A figure that names its panels, axes and legends for screen readers."""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict, dict]:
        texts = {}
        for axes in self.axes:
            over = " over ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
            parts = axes.get_title("left"), over, ", ".join(axes.get_legend_handles_labels()[1])
            texts[": ".join(filter(None, parts))] = None
        return {}, {"image/png": {"alt": "; ".join(filter(None, texts))}}


@functools.cache
def _asian_fonts() -> list[str]:
    """Names of an installed font with Hangul, and of one with Han and kana; none where none is installed."""
    found = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.weight != 400, entry.name)):
        missing = [letter for letter in "가語あ" if letter not in found]
        if not missing or entry.name.startswith("Last Resort"):  # which draws boxes
            continue
        with suppress(OSError, RuntimeError):  # a damaged font
            letters = font_manager.get_font(entry.fname).get_charmap()
            found |= {letter: entry.name for letter in missing if ord(letter) in letters}
    return list(dict.fromkeys(found.values()))


def _say_missing(event: DrawEvent) -> None:
    """Print once which letters of figures no installed font has."""
    fonts = map(font_manager.findfont, plt.rcParams["font.family"])
    there = set().union(*(font_manager.get_font(font).get_charmap() for font in fonts))
    shown = "".join(text.get_text() for text in event.canvas.figure.findobj(Text))
    missing = sorted({letter for letter in shown if letter.isprintable() and ord(letter) not in there})
    if missing and not _SAID:
        _SAID.append(missing)
        print(f"No installed font has {''.join(missing[:8])}: figures show boxes. env/setup says how to get one.")


_SAID: list[list[str]] = []


def plot_waveform(
    axes: Axes, waveform: Float[Tensor, " samples"], sample_rate: int, *, color: str = palette.AUDIO, label: str = ""
) -> None:
    """Plot amplitude over seconds; of many samples the range within each pixel."""
    samples = waveform.detach().cpu().float().numpy()
    columns = 2000
    if len(samples) > 2 * columns:
        edges = np.linspace(0, len(samples), columns + 1).astype(int)[:-1]
        low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
        axes.fill_between(edges / sample_rate, low, high, color=color, linewidth=0.4, label=label)
    else:
        axes.plot(np.arange(len(samples)) / sample_rate, samples, color=color, linewidth=0.8, label=label)
    axes.set_xlim(0, len(samples) / sample_rate)
    axes.set_ylabel("amplitude")


def plot_spectrogram(
    axes: Axes,
    values: Float[Tensor, "time frequency"],
    hop_seconds: float = 0.01,
    *,
    label: str = "log energy",
    frequency: str = "mel bin",
    limits: tuple[float, float] | None = None,
    cmap: str = palette.SPECTROGRAM,
) -> AxesImage:
    """Plot a spectrogram `(time, frequency)` with a colour bar."""
    picture = values.detach().cpu().float().numpy().T
    low, high = limits or (picture.min(), picture.max())
    extent = (0, picture.shape[1] * hop_seconds, 0, picture.shape[0])
    image = axes.imshow(picture, origin="lower", aspect="auto", extent=extent, cmap=cmap, vmin=low, vmax=high)
    axes.set_ylabel(frequency)
    axes.figure.colorbar(image, ax=axes, label=label, pad=0.01)
    return image


def plot_picture(axes: Axes, picture: Float[Tensor, "3 height width"]) -> None:
    """Plot a picture, its pixels in [0, 1], without axes."""
    height, width = picture.shape[-2:]
    axes.set_axis_off()
    axes.imshow(picture.detach().cpu().permute(1, 2, 0).numpy(), extent=(0, width, height, 0))


def plot_similarity(
    axes: Axes,
    values: Float[Tensor, "rows columns"],
    rows: str = "audio",
    columns: str = "image",
    *,
    limits: tuple[float, float] = (-1, 1),
    label: str = "cosine similarity",
) -> None:
    """Plot a similarity matrix with a colour bar, the first row at the top."""
    low, high = limits
    image = axes.imshow(values.detach().cpu().float().numpy(), cmap=palette.SIGNED, vmin=low, vmax=high)
    axes.set(xlabel=columns, ylabel=rows)
    axes.figure.colorbar(image, ax=axes, label=label, pad=0.01)


def cover(axes: Axes, removed: Float[Tensor, "rows columns"]) -> None:
    """Paint removed patches (1) grey in the last picture or spectrogram on `axes`.

    `removed` is on the grid of the patches, whose first row is the lowest frequency, or the top of the picture.
    """
    below = axes.get_images()[-1]
    grey = np.ones((*removed.shape, 4)) * to_rgba(palette.MASKED)
    grey[..., 3] = removed.detach().cpu().numpy()
    axes.imshow(grey, extent=below.get_extent(), origin=below.origin, aspect=axes.get_aspect())


def patch_grid(axes: Axes, width: float, height: float, patch_width: float, patch_height: float) -> None:
    """Draw the borders of patches, in the units of the axes."""
    lines = {"color": palette.PAPER, "linewidth": 0.4, "alpha": 0.7}
    axes.vlines(np.arange(patch_width, width, patch_width), 0, height, **lines)
    axes.hlines(np.arange(patch_height, height, patch_height), 0, width, **lines)


def pictures(frames: UInt8[Tensor, "frames 3 height width"], labels: Sequence[str], *, columns: int = 5) -> Figure:
    """Draw labelled pictures in rows; values in [0, 1] or uint8."""
    rows = -(-len(frames) // columns)
    height, width = frames.shape[-2:]
    drawn, grid = figure(rows, columns, height=9 / columns * height / width + 0.25, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, frame, label in zip(grid.flat, frames, labels, strict=False):
        axes.imshow(frame.permute(1, 2, 0).cpu().numpy())
        axes.set_title(label, fontsize=8)
    return drawn


def pipeline(*stages: str, current: str) -> None:
    """Show the stages of a system as boxes in a row, with arrows; `current` is marked."""
    if current not in stages:
        raise ParameterError("current", repr(current), f"one of {', '.join(map(repr, stages))}")
    labels = [textwrap.fill(stage, max(8, 90 // len(stages))) for stage in stages]
    drawn, axes = figure(height=0.4 + 0.16 * max(label.count("\n") + 1 for label in labels))
    half = 0.4  # of a box's width, in places
    for place, (stage, label) in enumerate(zip(stages, labels, strict=True)):
        fill, edge = (palette.CHOSEN, palette.INK) if stage == current else ("#EEEEEE", palette.MASKED)
        axes.add_patch(Rectangle((place - half, -0.95), 2 * half, 1.9, facecolor=fill, edgecolor=edge))
        axes.text(place, 0, label, ha="center", va="center", color=palette.INK)
        if place:
            arrow = {"arrowstyle": "->", "color": palette.INK, "shrinkA": 1, "shrinkB": 1}
            axes.annotate("", (place - half, 0), (place - 1 + half, 0), arrowprops=arrow)
    axes.set(xlim=(-half - 0.01, len(stages) - 0.99 + half), ylim=(-1, 1))
    axes.set_axis_off()
    show(drawn, f"{' → '.join(stages)}; this notebook: {current}")


def show(drawn: Figure, alt: str = "") -> None:
    """Display a figure at once, with a text for screen readers."""
    from IPython.display import display

    display(drawn, metadata={"image/png": {"alt": alt}} if alt else None)
    plt.close(drawn)


def time_axis(axes: Axes, seconds: float) -> None:
    """Label the time axis and limit it to `seconds`."""
    axes.set_xlim(0, seconds)
    axes.set_xlabel("time (s)")


@dataclass(frozen=True)
class Player:
    """Sound or video inside the page, with the browser's controls."""

    tag: str
    kind: str
    content: bytes
    label: str

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def _repr_html_(self) -> str:
        size = f' height="{_PREVIEW_HEIGHT}"' if self.tag == "video" else ""
        source = f"data:{self.kind};base64,{base64.b64encode(self.content).decode()}"
        # On the tag, since JupyterLab removes the address of a <source> in a notebook that it does not trust.
        return f'<{self.tag} controls{size} aria-label="{html.escape(self.label)}" src="{source}"></{self.tag}>'


def play(waveform: Float[Tensor, "*channels samples"], sample_rate: int):
    """An embedded player for `(samples,)` or `(channels, samples)`, not normalised."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.detach().cpu().float().clamp(-1, 1).numpy().T, sample_rate, "PCM_16", format="WAV")
    seconds = waveform.shape[-1] / sample_rate
    return Player("audio", "audio/wav", buffer.getvalue(), f"sound, {seconds:.2f} s at {sample_rate} Hz")


def play_video(path: str | Path, *, seconds: float = 10.0, embed_limit: int = 1_000_000):
    """An embedded player for a video file.

    An mp4 of up to `embed_limit` bytes is embedded as it is; of anything else, a small copy of the first `seconds`
    (240 rows, at most 12.5 pictures a second) that every browser plays.

    Raises:
        MediaError: the file cannot be read as video.
    """
    path = Path(path)
    if path.suffix.lower() == ".mp4" and path.stat().st_size <= embed_limit:
        content = path.read_bytes()
    else:
        with TemporaryDirectory() as folder:
            preview = Path(folder) / "preview.mp4"
            _write_preview(path, preview, seconds)
            content = preview.read_bytes()
    return Player("video", "video/mp4", content, f"video {path.name}")


def steer(draw: Callable[..., Figure], saved: int = 7, budget: int = 1_500_000, **sliders: Sequence) -> Widget:
    """Show a figure with sliders; figures drawn ahead need no kernel.

    `draw` takes a value for each slider, by name, and returns a figure. A slider is `(low, high)` or `(low, high,
    start)` in whole numbers, or texts to choose from. Drawn ahead are `saved` values of the first slider with each
    choice of text; of other numbers only the start. Of what takes more than `budget` characters every second value
    is kept. `.live()` of what is returned draws any value, with a kernel.
    """
    check_whole("saved", saved, 2)
    values, start = {}, {}
    for name, given in sliders.items():
        texts = all(isinstance(each, str) for each in given)
        if not given or not (texts or (len(given) in (2, 3) and given[0] <= given[-1] <= given[1])):
            raise ParameterError(name, repr(given), "(low, high), (low, high, start) or texts to choose from")
        start[name] = given[2] if len(given) == 3 and not texts else given[0]
        values[name] = list(given) if texts else [start[name]]
        if not texts and len(values) == 1:
            values[name] = sorted({start[name], *map(round, np.linspace(*given[:2], saved).tolist())})
    frames = {chosen: _frame(draw(**dict(zip(values, chosen, strict=True)))) for chosen in product(*values.values())}
    first = next(iter(values), "")
    while sum(map(len, frames.values())) > budget and len(values[first]) > 2 and not isinstance(start[first], str):
        values[first] = values[first][values[first].index(start[first]) % 2 :: 2]  # the start stays
        frames = {chosen: frame for chosen, frame in frames.items() if chosen[0] in values[first]}
    data = {"names": list(values), "values": list(values.values()), "frames": list(frames.values())}
    data["start"] = [values[name].index(start[name]) for name in values]
    text = f"{len(frames)} figures, by {' and '.join(values)}"
    still = f'<img alt="{text}" src="{frames[tuple(start.values())]}">'
    return widget("frames", data, text, still, partial(_live, draw, sliders, start))


def _live(draw: Callable[..., Figure], sliders: dict[str, Sequence], start: dict[str, int | str]):
    import ipywidgets

    made = {name: list(sliders[name]) for name in start}  # texts become a menu
    for name, value in start.items():
        if not isinstance(value, str):
            made[name] = ipywidgets.IntSlider(value, *sliders[name][:2], continuous_update=False)
    return ipywidgets.interactive(lambda **chosen: show(draw(**chosen)), **made)


def _frame(drawn: Figure) -> str:
    """A figure as a PNG of few colours, in a data URL."""
    content, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(content, format="png", dpi=85)
    plt.close(drawn)
    Image.open(content).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return embedded(small.getvalue(), "image/png")


def _write_preview(path: Path, target: Path, seconds: float) -> None:
    info = media.probe(path)
    rate = min(_PREVIEW_RATE, info.video.frame_rate) if info.video else _PREVIEW_RATE
    waveform = media.read_audio(path, 32000, seconds=seconds, align=True)[None] if info.audio else None

    def small_frames():
        due = 0.0  # when the next picture of the copy is wanted
        for moment, frame in media.iterate_frames(path):
            if moment >= seconds:
                return
            while due <= moment:
                height, width = frame.shape[-2:]
                size = (_PREVIEW_HEIGHT, max(2, round(width * _PREVIEW_HEIGHT / height)))
                yield F.interpolate(frame[None].float(), size, mode="area")[0].round().to(torch.uint8)
                due += 1 / rate

    media.write_video(target, small_frames(), rate, waveform, 32000)
