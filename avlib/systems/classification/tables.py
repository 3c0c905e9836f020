"""What comes out for files, as tables that a notebook shows and that are written."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ...cache import publishing
from ...errors import AvlibError, ParameterError
from ...tables import html_table
from ...workers import describe


@dataclass(frozen=True)
class Table:
    """An answer for each clip. A notebook shows it as a table.

    paths: of the clips that could be used.
    predicted: the name of the most probable class; of a regression, the number.
    values: `(clips, classes)` probabilities; of a regression `(clips, 1)`. Of a long clip the mean over its windows.
    names: of the classes; () of a regression.
    seconds: `(clips,)`, of the sound that was heard.
    windows: `(clips,)`, how many were heard.
    skipped: why others were left out.
    """

    paths: tuple[str, ...]
    predicted: tuple[str | float, ...]
    values: Float[np.ndarray, "clips outputs"]
    names: tuple[str, ...]
    seconds: Float[np.ndarray, " clips"]
    windows: Int[np.ndarray, " clips"]
    skipped: tuple[AvlibError, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def columns(self) -> dict[str, list]:
        columns = {"path": list(self.paths), "prediction": list(self.predicted)}
        columns |= {f"p({name})": self.values[:, number].tolist() for number, name in enumerate(self.names)}
        return columns | {"seconds": self.seconds.tolist(), "windows": self.windows.tolist()}

    @property
    def report(self) -> str:
        """How many clips were left out, and why."""
        return describe(self.skipped, len(self) + len(self.skipped))

    def to_csv(self, path: str | Path) -> None:
        """Write the table, in UTF-8.

        Raises:
            CacheError: it cannot be written.
        """
        write_columns(path, self.columns)

    def _repr_html_(self) -> str:
        return html_table(self.columns) + (f"<pre>{escape(self.report)}</pre>" if self.skipped else "")


@dataclass(frozen=True)
class Embeddings:
    """A vector for each clip, `(clips, width)`: what the model makes of it before its last layer.

    paths: of the clips that could be used.
    values: `(clips, width)`; of a long clip the mean over its windows.
    skipped: why others were left out.
    """

    paths: tuple[str, ...]
    values: Float[np.ndarray, "clips width"]
    skipped: tuple[AvlibError, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def save(self, path: str | Path) -> None:
        """Write a `.npz` with the arrays "paths" and "embeddings", or a `.csv` with a column for each dimension.

        Raises:
            ParameterError: another ending.
            CacheError: it cannot be written.
        """
        path = Path(path)
        if path.suffix == ".csv":
            width = range(self.values.shape[1])
            write_columns(path, {"path": self.paths} | {f"e{place}": self.values[:, place].tolist() for place in width})
        elif path.suffix == ".npz":
            with publishing(path) as unfinished:
                np.savez(unfinished, paths=np.array(self.paths), embeddings=self.values)
        else:
            raise ParameterError("path", f"{path}", "a name that ends in .npz or .csv")


def write_columns(path: str | Path, columns: Mapping[str, Sequence]) -> None:
    """A CSV file with these columns, in UTF-8, which appears whole or not at all.

    Raises:
        CacheError: it cannot be written.
    """
    with publishing(Path(path)) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
