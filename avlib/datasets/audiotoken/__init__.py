"""AudioToken's data: clips in folders and tables, and built-in scenes, to a window of sound and one picture."""

from __future__ import annotations

from .captions import COLOURS, PLACES, SIZES, attributes, caption, phrase, vocabulary
from .table import Clip, SceneClip, scene_clips

__all__ = [
    "COLOURS",
    "PLACES",
    "SIZES",
    "Clip",
    "SceneClip",
    "attributes",
    "caption",
    "phrase",
    "scene_clips",
    "vocabulary",
]
