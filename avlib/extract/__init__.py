"""Learned and measured features of sound: pitch, slices between pauses, content units."""

from __future__ import annotations

from .pitch import CONTEXT, METHODS, Level, Pitch, fill_unvoiced, pitch, sound_level
from .units import ENCODERS, ContentEncoder, KMeans, content_encoder, fit_kmeans, kmeans_encoder, recognizer_encoder

__all__ = [
    "CONTEXT",
    "ENCODERS",
    "METHODS",
    "ContentEncoder",
    "KMeans",
    "Level",
    "Pitch",
    "content_encoder",
    "fill_unvoiced",
    "fit_kmeans",
    "kmeans_encoder",
    "pitch",
    "recognizer_encoder",
    "sound_level",
]
