"""The clips of a data set as one table, a row for each: there is no second list that could be longer or shorter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ... import clips
from .captions import caption


@dataclass(frozen=True)
class Clip:
    """One clip.

    name: its id in the tables of the data set.
    path: the video; None where there is none.
    wav: the file that its sound is in; None takes that of the video.
    label: its class, "" where it is not known.
    split: the part of the data set that it belongs to, such as "train" or "test"; "" where that is not known.
    """

    name: str
    path: Path | None = None
    wav: Path | None = None
    label: str = ""
    split: str = ""

    def __str__(self) -> str:
        return str(self.path or self.wav or self.name)


@dataclass(frozen=True)
class SceneClip(Clip):
    """A built-in scene, computed whenever it is read; its label is its kind."""

    scene: clips.Scene = field(kw_only=True)

    @property
    def caption(self) -> str:
        """What it shows, in words."""
        return caption(self.scene.truth)


def scene_clips(count: int, seed: int = 0, seconds: float | int = 10.0, split: str = "") -> list[Clip]:
    """Built-in scenes, their eight kinds in turn, labelled by kind. Another seed gives scenes that share nothing.

    Raises:
        ParameterError: what `avlib.clips.scenes` refuses.
    """
    return [
        SceneClip(f"{scene.kind} {scene.seed}", label=scene.kind, split=split, scene=scene)
        for scene in clips.scenes(count, seed, seconds)
    ]
