"""Unit2AV's files: units, manifests, boxes of faces, and videos with new sound and mouths."""

from __future__ import annotations

from .boxes import detect_boxes, read_boxes, write_boxes
from .dubbing import SYNTHETIC, Dubbed, boxes_at_ticks, dub
from .manifests import Pair, UnitFile, manifest, parse_units, read_manifest, read_units, warn_if_shared, write_units
