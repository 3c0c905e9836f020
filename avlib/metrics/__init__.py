"""Figures of merit: retrieval, classification and regression, generated pictures. All are plain floats.

Figures are over a whole split at once; the mean of R2 or CCC over batches has no meaning. Tensors may be on any device.
"""

from .classification import (
    Calibration,
    GroupTable,
    accuracy,
    balanced_accuracy,
    bootstrap_interval,
    calibration,
    classification_figures,
    concordance,
    confusion,
    correct,
    ensemble,
    group_table,
    mean_average_precision,
    regression_figures,
    sensitivity_at_specificity,
)
from .retrieval import (
    Ranking,
    audio_image_content,
    audio_image_similarity,
    image_image_similarity,
    lower_bound,
    ranking,
    retrieval,
)
