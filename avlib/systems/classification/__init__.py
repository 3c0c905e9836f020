"""Classification and regression of recordings put together: settings, data, the training step, and what came of it."""

from __future__ import annotations

from .. import changed
from .names import ALIASES, LOSSES
from .settings import Augment, Data, Loss, Model, Settings, full, tiny

__all__ = ["ALIASES", "LOSSES", "Augment", "Data", "Loss", "Model", "Settings", "changed", "full", "tiny"]
