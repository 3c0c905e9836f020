"""What happened in training: as a table, and as a curve while it happens."""

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
    """What happened in training: `rows`, one dict for each logged step.

    Each has `step` (counted from 1), `epoch` (from 0), `seconds` spent until then, `lr`, `gradient` (norm before
    clipping), `loss`, its parts, and where there was an evaluation, what that gave. Losses are means over the whole
    batch. A notebook shows it as a table.
    """

    def __init__(self, rows: Sequence[dict] = ()):
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def series(self, name: str) -> tuple[list[int], list[float | int]]:
        """Steps at which something was noted, and its values: a curve."""
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def to_csv(self, path: Path | str) -> None:
        with cache.publishing(Path(path)) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def _repr_html_(self) -> str:
        """Ten rows at most, evenly spaced, the first and the last among them."""
        chosen = np.unique(np.linspace(0, len(self.rows) - 1, min(10, len(self.rows))).round().astype(int))
        return html_table({name: [self.rows[i].get(name, "") for i in chosen] for name in self.columns}, ".4g")


class Picture:
    """The loss so far, in a notebook's output, drawn again at most once a second."""

    def __init__(self, shown: bool):
        self.shown, self.handle, self.drawn = shown, None, -math.inf

    def draw(self, history: History, at_once: bool = False) -> None:
        if not self.shown or (time.monotonic() - self.drawn < 1 and not at_once):
            return
        from IPython.display import Image, display
        from matplotlib.figure import Figure

        figure, file = Figure(figsize=(6, 2.2), layout="constrained"), BytesIO()
        axes = figure.subplots()
        axes.plot(*history.series("loss"))
        axes.set(xlabel="step", ylabel="loss")
        figure.savefig(file, format="png")
        image = Image(file.getvalue())
        if self.handle is None:
            self.handle = display(image, display_id=True)
        else:
            self.handle.update(image)
        self.drawn = time.monotonic()
