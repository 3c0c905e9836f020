"""The history of a training: a table, and a curve while it runs."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from .. import cache
from ..tables import html_table


class History:
    """The history of a training: `rows`, one dict for each logged step.

    Each has `step` (counted from 1), `epoch` (from 0), `seconds` spent until then, `lr`, `gradient` (norm before
    clipping), `loss`, its parts, and the figures of an evaluation. Of several networks each has its own, as in
    "generator loss". Losses are means over the whole batch. A notebook shows it as a table.
    """

    def __init__(self, rows: Sequence[dict] = ()):
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def series(self, name: str) -> tuple[list[int], list[float | int]]:
        """Return the steps that have a value of this name, and the values."""
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def to_csv(self, path: Path | str) -> None:
        with cache.publishing(Path(path)) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def _repr_html_(self) -> str:
        """Show ten rows at most, evenly spaced, with the first and the last."""
        chosen = np.unique(np.linspace(0, len(self.rows) - 1, min(10, len(self.rows))).round().astype(int))
        return html_table({name: [self.rows[i].get(name, "") for i in chosen] for name in self.columns}, ".4g")


class Picture:
    """The losses so far, in a notebook's output, drawn again at most once a second."""

    def __init__(self, shown: bool, losses: Sequence[str]):
        self.shown, self.losses, self.handle, self.drawn = shown, losses, None, -math.inf

    def draw(self, history: History, at_once: bool = False) -> None:
        if not self.shown or (time.monotonic() - self.drawn < 1 and not at_once):
            return
        from IPython.display import Image, display
        from matplotlib.figure import Figure

        figure, file = Figure(figsize=(6, 2.2), layout="constrained"), BytesIO()
        axes = figure.subplots()
        for name in self.losses:
            axes.plot(*history.series(name), label=name)
        axes.set(xlabel="step", ylabel="loss")
        if len(self.losses) > 1:
            axes.legend()
        figure.savefig(file, format="png")
        image = Image(file.getvalue())
        if self.handle is None:
            self.handle = display(image, display_id=True)
        else:
            self.handle.update(image)
        self.drawn = time.monotonic()
