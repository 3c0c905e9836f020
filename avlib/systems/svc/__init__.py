"""Singing-voice conversion: settings, data, training, and figures on held-out phrases beside the true parallel.

settings = changed(tiny, {"diffusion.steps": 300})
model, history, folder = trained(settings)                         # a recogniser, and then the diffusion model
sounds = converted(model, settings, [sound], singer=1)             # from nothing but the samples
scored(sounds, songs, "otto", judges(settings)).figures()
"""

from __future__ import annotations

from ...datasets.svc import SINGERS, Batch, Data, LengthBuckets, Piece, SVCDataset, cut
from .. import Figure, Report, Trained, changed
from .evaluation import Judges, Scores, converted, held_out_songs, judges, scored, sound_of, vocoded
from .settings import ENCODERS, STAGES, Settings, full, tiny
from .stages import build, data, encoding, noise_of, recognizer_step, split, stages, step, trained, validation, voices

TITLE = "Singing-voice conversion"
HELP = "stage=recognizer or diffusion"
