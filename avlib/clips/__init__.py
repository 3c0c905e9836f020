"""The built-in clips: scenes whose sound and picture belong together, with their truth, rendered to real files.

What moves, when it strikes, how large it is, where it is and of what colour decides what is heard. `speech` has words
spoken by speakers of different age, without a picture.
"""

from . import speech
from .kinds import KINDS
from .rendering import Clip, render
from .scene import Scene, Truth, scenes, truth_table

__all__ = ["KINDS", "Clip", "Scene", "Truth", "render", "scenes", "speech", "truth_table"]
