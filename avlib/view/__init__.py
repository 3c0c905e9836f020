"""Pictures and players for notebooks: the same colours and the same axes everywhere.

Time runs from left to right, low frequencies are at the bottom. A function that draws takes the axes to draw on and
returns nothing; it adds no title, since what a figure shows is said by the notebook.
"""

from __future__ import annotations

from .players import play, play_video, slide
from .plots import (
    cover,
    figure,
    patch_grid,
    pictures,
    plot_curve,
    plot_picture,
    plot_similarity,
    plot_spectrogram,
    plot_waveform,
    show,
    time_axis,
)

__all__ = [
    "cover",
    "figure",
    "patch_grid",
    "pictures",
    "play",
    "play_video",
    "plot_curve",
    "plot_picture",
    "plot_similarity",
    "plot_spectrogram",
    "plot_waveform",
    "show",
    "slide",
    "time_axis",
]
