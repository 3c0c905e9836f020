"""Learned and measured features of sound: pitch, slices between pauses."""

from __future__ import annotations

from .pitch import CONTEXT, METHODS, Level, Pitch, fill_unvoiced, pitch, sound_level

__all__ = ["CONTEXT", "METHODS", "Level", "Pitch", "fill_unvoiced", "pitch", "sound_level"]
