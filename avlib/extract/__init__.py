"""Learned and measured features of sound: pitch, slices between pauses, content units."""

from .pitch import CONTEXT, METHODS, MODEL_HIGHEST, Level, Pitch, fill_unvoiced, pitch, sound_level
from .slicing import Slice, slices
from .units import ENCODERS, ContentEncoder, KMeans, content_encoder, fit_kmeans, recognizer_encoder
