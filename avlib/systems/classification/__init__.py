"""Classification and regression of recordings put together: data, the training step, training done once, its figures.

settings = changed(tiny, {"data": "table.csv", "backbone": "resnet50", "loss": "focal"})
model, history, folder = trained(settings)             # an AudioClassifier, and a folder that `Classifier.load` reads
evaluate(model, settings)["UAR"]                       # on clips that no training saw, beside chance and baselines
cross_validated(changed(settings, {"k_fold": 5})).table
Classifier.load(folder).predict(["clip.wav"])
"""

from __future__ import annotations

from .. import Figure, Trained, changed
from .baselines import baseline_predictions
from .data import Parts, parts
from .evaluation import evaluate, what_it_proves
from .inference import Classifier
from .learning import CrossValidation, build, cross_validated, plan, remarks, shapes, step, told, trained, validation
from .names import ALIASES, LOSSES, choices
from .objective import augmented, contrast_of, loss_of, loss_weights, sampler_of
from .predicting import Predictions, joined, predictions, vote
from .settings import Augment, Data, Loss, Model, Settings, full, tiny

__all__ = [
    "ALIASES",
    "LOSSES",
    "Augment",
    "Classifier",
    "CrossValidation",
    "Data",
    "Figure",
    "Loss",
    "Model",
    "Parts",
    "Predictions",
    "Settings",
    "Trained",
    "augmented",
    "baseline_predictions",
    "build",
    "changed",
    "choices",
    "contrast_of",
    "cross_validated",
    "evaluate",
    "full",
    "joined",
    "loss_of",
    "loss_weights",
    "parts",
    "plan",
    "predictions",
    "remarks",
    "sampler_of",
    "shapes",
    "step",
    "tiny",
    "told",
    "trained",
    "validation",
    "vote",
    "what_it_proves",
]
