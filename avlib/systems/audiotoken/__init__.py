"""AudioToken put together: settings, data, the training steps, training that is done once, and what came of it.

settings = changed(tiny, {"embedder.steps": 300})
model, history, folder = trained(settings)                    # a BEATs, a text-to-image model, and then the embedder
tokens = model.token(waveform)                                # (B, samples) -> (B, width)
model.pictures("a photo of <*>", tokens)                      # (B, 3, H, W) in [0, 1]
evaluate(model, settings)["sound's kind right"]               # on scenes that no training sees
assembled(checkpoint="BEATs.pt", embedder="embedder.bin", diffusion="stable-diffusion-v1-4/")     # the published ones
"""

from __future__ import annotations

from .. import Figure, changed
from .data import CLASSES, Example, Scenes, data, held_out
from .evaluation import assess, draw, evaluate, judged, read
from .learning import (
    Trained,
    assembled,
    build,
    classifier_step,
    denoising_error,
    diffusion_step,
    judge,
    judge_step,
    label_words,
    listener,
    step,
    text_to_image,
    trained,
    validation,
)
from .model import AudioToken, Windows, heard_layers, windows
from .settings import PUBLISHED, STAGES, Data, Settings, full, tiny

TITLE = "AudioToken"
ROW = 2
HELP = "stage=classifier, judge, diffusion or embedder"

__all__ = [
    "CLASSES",
    "PUBLISHED",
    "STAGES",
    "AudioToken",
    "Data",
    "Example",
    "Figure",
    "Scenes",
    "Settings",
    "Trained",
    "Windows",
    "assembled",
    "assess",
    "build",
    "changed",
    "classifier_step",
    "data",
    "denoising_error",
    "diffusion_step",
    "draw",
    "evaluate",
    "full",
    "heard_layers",
    "held_out",
    "judge",
    "judge_step",
    "judged",
    "label_words",
    "listener",
    "read",
    "step",
    "text_to_image",
    "tiny",
    "trained",
    "validation",
    "windows",
]
