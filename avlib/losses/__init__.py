"""What models are trained to make small, and by how much each item counts in it."""

from __future__ import annotations

from .alike import draw_partners, pair_contrastive_loss, supervised_contrastive_loss
from .difficulty import difficulty_weights, word_difficulty
from .labels import (
    BALANCING_FORMS,
    CLASS_BALANCED_FORMS,
    FOCAL_FORMS,
    balancing_weights,
    class_balanced_loss,
    class_balanced_weights,
    count_table,
    cross_entropy_loss,
    focal_loss,
)
from .self_supervised import contrastive_loss, masked_patch_error, normalize_patches

__all__ = [
    "BALANCING_FORMS",
    "CLASS_BALANCED_FORMS",
    "FOCAL_FORMS",
    "balancing_weights",
    "class_balanced_loss",
    "class_balanced_weights",
    "contrastive_loss",
    "count_table",
    "cross_entropy_loss",
    "difficulty_weights",
    "draw_partners",
    "focal_loss",
    "masked_patch_error",
    "normalize_patches",
    "pair_contrastive_loss",
    "supervised_contrastive_loss",
    "word_difficulty",
]
