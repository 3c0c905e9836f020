"""Built-in clips with known truth, rendered to real files.

In a scene, the kind, rhythm, size, position and colour of what moves decide its sound. `speech` has spoken words by
speakers of different age, and `song` melodies by singers, both without a picture. `heads` has drawn talking heads.
"""

from . import heads, song, speech
from .kinds import KINDS
from .rendering import Clip, render
from .scene import Scene, Truth, scenes

__all__ = ["KINDS", "Clip", "Scene", "Truth", "heads", "render", "scenes", "song", "speech"]
