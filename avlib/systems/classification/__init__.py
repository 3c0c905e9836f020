"""Classification and regression of recordings: data, the training step, trained models, figures.

settings = changed(tiny, {"data": "table.csv", "backbone": "resnet50", "loss": "focal"})
model, history, folder = trained(settings)             # an AudioClassifier, and a folder that `Classifier.load` reads
evaluate(model, settings)["UAR"]                       # on held-out clips, beside chance and baselines
cross_validated(changed(settings, {"k_fold": 5})).table
Classifier.load(folder).predict(["clip.wav"]).labels
"""

from ...settings import changed
from .data import fitted, parts
from .evaluation import (
    assess,
    calibration,
    cross_validated,
    describe_sample,
    evaluate,
    figures,
    group_figures,
    temperature,
    thresholds,
)
from .inference import Classifier
from .learning import augmented, build, contrast_of, loss_weights, plan, sampler_of, shapes, step, trained, validation
from .predicting import baseline_predictions, conditions_of, predict, predict_windows
from .settings import LOSSES, Augment, Settings, choices, full, tiny

TITLE = "Classification"
ROW = 3
HELP = """
Takes a table (CSV: path, label, and word, age, speaker where they are known) or a folder with one sub-folder for each
class; -p backbone=, loss=, optimizer=, schedule= and k_fold= choose (train classification --help lists the choices).
-p test=true -p checkpoint=DIR evaluates a trained model. The names of its README work too (data_length, lr, ...).
"""
