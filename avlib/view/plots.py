"""Static figures, on matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from ..shapes import palette

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
    """A figure in the style of the workbook, 9 inches wide and `height` inches per row; `plt.subplots` otherwise."""
    plt.rcParams.update(_STYLE)  # for good: what is drawn into the figure later looks up its style then
    return plt.subplots(rows, columns, figsize=(9, height * rows), **options)


def plot_waveform(
    axes: Axes, waveform: Float[Tensor, " samples"], sample_rate: int, *, color: str = palette.AUDIO, label: str = ""
) -> None:
    """Amplitude over seconds. Of many samples the range within each pixel is drawn, so that no peak is lost."""
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
    """Time to the right, frequency upwards, with a colour bar. `values` is `(time, frequency)`, as models take it."""
    picture = values.detach().cpu().float().numpy().T
    low, high = limits or (picture.min(), picture.max())
    extent = (0, picture.shape[1] * hop_seconds, 0, picture.shape[0])
    image = axes.imshow(picture, origin="lower", aspect="auto", extent=extent, cmap=cmap, vmin=low, vmax=high)
    axes.set_ylabel(frequency)
    axes.figure.colorbar(image, ax=axes, label=label, pad=0.01)
    return image


def plot_curve(axes: Axes, values: Float[Tensor, " points"], *, color: str = palette.AUDIO, label: str = "") -> None:
    """One value per index."""
    axes.plot(values.detach().cpu().float().numpy(), color=color, linewidth=1.0, label=label)
    axes.set_xlim(0, len(values) - 1)


def plot_picture(axes: Axes, picture: Float[Tensor, "3 height width"]) -> None:
    """A picture, its pixels in [0, 1], without axes."""
    height, width = picture.shape[-2:]
    axes.set_axis_off()
    axes.imshow(picture.detach().cpu().permute(1, 2, 0).numpy(), extent=(0, width, height, 0))


def plot_similarity(
    axes: Axes,
    values: Float[Tensor, "rows columns"],
    rows: str = "sound",
    columns: str = "picture",
    *,
    limits: tuple[float, float] = (-1, 1),
    label: str = "cosine similarity",
) -> None:
    """How alike two lists of things are: a row for each of the first, downwards; a column for each of the second."""
    low, high = limits
    image = axes.imshow(values.detach().cpu().float().numpy(), cmap=palette.SIGNED, vmin=low, vmax=high)
    axes.set(xlabel=columns, ylabel=rows)
    axes.figure.colorbar(image, ax=axes, label=label, pad=0.01)


def cover(axes: Axes, removed: Float[Tensor, "rows columns"]) -> None:
    """Grey over the patches that are removed (1) in what was drawn on `axes` last, a picture or a spectrogram.

    `removed` is on the grid of the patches, whose first row is the lowest frequency, or the top of the picture.
    """
    below = axes.get_images()[-1]
    grey = np.ones((*removed.shape, 4)) * to_rgba(palette.MASKED)
    grey[..., 3] = removed.detach().cpu().numpy()
    axes.imshow(grey, extent=below.get_extent(), origin=below.origin, aspect=axes.get_aspect())


def patch_grid(axes: Axes, width: float, height: float, patch_width: float, patch_height: float) -> None:
    """The borders of the patches into which a model cuts what is drawn on `axes`, in the units of those axes."""
    lines = {"color": palette.PAPER, "linewidth": 0.4, "alpha": 0.7}
    axes.vlines(np.arange(patch_width, width, patch_width), 0, height, **lines)
    axes.hlines(np.arange(patch_height, height, patch_height), 0, width, **lines)


def pictures(frames: UInt8[Tensor, "frames 3 height width"], labels: Sequence[str], *, columns: int = 5) -> Figure:
    """Pictures in rows, each with its label above; values in [0, 1] or uint8."""
    rows = -(-len(frames) // columns)
    height, width = frames.shape[-2:]
    drawn, grid = figure(rows, columns, height=9 / columns * height / width + 0.25, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, frame, label in zip(grid.flat, frames, labels, strict=False):
        axes.imshow(frame.permute(1, 2, 0).cpu().numpy())
        axes.set_title(label, fontsize=8)
    return drawn


def show(drawn: Figure) -> None:
    """Show a figure now, not at the end of the cell: for the callback of a slider."""
    from IPython.display import display

    display(drawn)
    plt.close(drawn)


def time_axis(axes: Axes, seconds: float) -> None:
    """Label the time axis and cut it to `seconds`; several axes of one figure then stand in line."""
    axes.set_xlim(0, seconds)
    axes.set_xlabel("time (s)")
