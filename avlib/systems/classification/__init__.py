"""Classification and regression of recordings put together: data, the training step, training done once, its figures.

settings = changed(tiny, {"data": "table.csv", "backbone": "resnet50", "loss": "focal"})
model, history, folder = trained(settings)             # an AudioClassifier, and a folder that `Classifier.load` reads
evaluate(model, settings)["UAR"]                       # on clips that no training saw, beside chance and baselines
cross_validated(changed(settings, {"k_fold": 5})).table
Classifier.load(folder).predict(["clip.wav"])
"""

from __future__ import annotations

from .. import Figure, Trained, changed
from .assessing import CrossValidation, assess, cross_validated
from .baselines import baseline_predictions
from .data import Parts, parts
from .evaluation import evaluate, evaluated, figures, fold_figures, group_figures, what_it_proves
from .inference import Classifier
from .learning import build, plan, shapes, step, trained, validation
from .names import ALIASES, LOSSES, choices
from .objective import augmented, contrast_of, loss_of, loss_weights, sampler_of
from .predicting import NOT_TOLD, Predictions, Sound, answers, joined, listen, predictions, told, vote
from .probabilities import calibration, temperature, thresholds
from .settings import Augment, Data, Loss, Model, Settings, full, tiny

TITLE = "Classification"
ROW = 3
HELP = """
Takes a table (CSV: path, label, and word, age, speaker where they are known) or a folder with one sub-folder for each
class; -p backbone=, loss=, optimizer=, schedule= and k_fold= choose (train classification --help lists the choices).
-p test=true -p checkpoint=DIR evaluates a trained model. The names of its README work too (data_length, lr, ...).
"""

__all__ = [
    "ALIASES",
    "LOSSES",
    "NOT_TOLD",
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
    "Sound",
    "Trained",
    "answers",
    "assess",
    "augmented",
    "baseline_predictions",
    "build",
    "calibration",
    "changed",
    "choices",
    "contrast_of",
    "cross_validated",
    "evaluate",
    "evaluated",
    "figures",
    "fold_figures",
    "full",
    "group_figures",
    "joined",
    "listen",
    "loss_of",
    "loss_weights",
    "parts",
    "plan",
    "predictions",
    "sampler_of",
    "shapes",
    "step",
    "temperature",
    "thresholds",
    "tiny",
    "told",
    "trained",
    "validation",
    "vote",
    "what_it_proves",
]
