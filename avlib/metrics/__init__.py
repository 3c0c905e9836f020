"""How good a model is: does a sound find its picture, is the right class named, is a made picture what it should be.

Tensors may be on any device; figures are plain floats.
"""

from __future__ import annotations

from .pictures import (
    Content,
    Similarity,
    audio_image_content,
    audio_image_similarity,
    frechet_distance,
    image_image_similarity,
)
from .scores import (
    TASKS,
    ClassTable,
    Ranking,
    Retrieval,
    accuracy,
    correct,
    d_prime,
    ensemble,
    lower_bound,
    mean_average_precision,
    per_class,
    ranking,
    ranks,
    retrieval,
)

__all__ = [
    "TASKS",
    "ClassTable",
    "Content",
    "Ranking",
    "Retrieval",
    "Similarity",
    "accuracy",
    "audio_image_content",
    "audio_image_similarity",
    "correct",
    "d_prime",
    "ensemble",
    "frechet_distance",
    "image_image_similarity",
    "lower_bound",
    "mean_average_precision",
    "per_class",
    "ranking",
    "ranks",
    "retrieval",
]
