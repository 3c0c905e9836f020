"""Unit2AV's files: units, manifests, boxes of faces, and videos with new sound and mouths."""

from __future__ import annotations

from .boxes import detect_boxes, read_boxes, write_boxes
from .dubbing import SYNTHETIC, Dubbed, boxes_at_ticks, dub
from .manifests import Manifest, Pair, manifest, read_manifest, warn_if_shared
from .units import UnitFile, parse_units, read_units, write_units
