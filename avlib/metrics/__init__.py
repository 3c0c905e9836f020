"""How good a model is: does a sound find its picture, is the right class or number named, is a made picture what it
should be.

Tensors may be on any device; figures are plain floats.
"""

from __future__ import annotations

from .classifying import (
    Calibration,
    GroupTable,
    Interval,
    auroc,
    average_precision,
    balanced_accuracy,
    bootstrap_interval,
    calibration,
    classification_figures,
    concordance,
    confusion,
    group_table,
    recalls,
    regression_figures,
    sensitivity_at_specificity,
)
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
    "Calibration",
    "ClassTable",
    "Content",
    "GroupTable",
    "Interval",
    "Ranking",
    "Retrieval",
    "Similarity",
    "accuracy",
    "audio_image_content",
    "audio_image_similarity",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "bootstrap_interval",
    "calibration",
    "classification_figures",
    "concordance",
    "confusion",
    "correct",
    "d_prime",
    "ensemble",
    "frechet_distance",
    "group_table",
    "image_image_similarity",
    "lower_bound",
    "mean_average_precision",
    "per_class",
    "ranking",
    "ranks",
    "recalls",
    "regression_figures",
    "retrieval",
    "sensitivity_at_specificity",
]
