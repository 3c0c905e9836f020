"""CAV-MAE put together: settings, data, the training steps, training that is done once, and what came of it.

settings = changed(tiny, {"steps": 300, "fine_tuning.labelled": 128})
model, history, folder = trained(settings)                                  # pretraining
tuned = trained(changed(settings, {"stage": "fine_tuning"})).model          # which begins with that model
evaluate(model, settings)["R@1 sound -> picture"]                           # on clips that no training sees
"""

from __future__ import annotations

from .. import Figure, changed
from .data import batches, data, galleries, held_out, means
from .evaluation import assess, classification, embeddings, evaluate, reconstruction, retrieval
from .learning import Trained, build, classifier, fine_tuning_step, step, trained
from .settings import PUBLISHED, Data, FineTuning, Pretraining, Settings, full, tiny

TITLE = "CAV-MAE"
ROW = 1
HELP = "stage=pretraining or fine_tuning"

__all__ = [
    "PUBLISHED",
    "Data",
    "Figure",
    "FineTuning",
    "Pretraining",
    "Settings",
    "Trained",
    "assess",
    "batches",
    "build",
    "changed",
    "classification",
    "classifier",
    "data",
    "embeddings",
    "evaluate",
    "fine_tuning_step",
    "full",
    "galleries",
    "held_out",
    "means",
    "reconstruction",
    "retrieval",
    "step",
    "tiny",
    "trained",
]
