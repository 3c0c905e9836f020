"""Figures of merit: retrieval, classification and regression, generated pictures. All are plain floats.

Figures are over a whole split at once; the mean of R2 or CCC over batches has no meaning. Tensors may be on any device.
"""

# isort: off
from .classification import Calibration, GroupTable, accuracy, balanced_accuracy, bootstrap_interval, calibration
from .classification import classification_figures, concordance, confusion, correct, ensemble, group_table
from .classification import mean_average_precision, regression_figures, sensitivity_at_specificity
from .retrieval import Ranking, audio_image_content, audio_image_similarity, image_image_similarity, lower_bound
from .retrieval import ranking, retrieval
