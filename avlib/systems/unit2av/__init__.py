"""Units to speech and a talking face: settings, data, training, and figures on held-out words.

settings = changed(tiny, {"pitch.steps": 300})
vocoder = trained(settings).model                                  # a recogniser, and then the vocoder of its units
units = extractor(settings)(waveform, 16000)                       # 50 a second
vocoder(units[None], embedder(settings)(waveform)).waveform        # (1, 1, 320 N)
infer("units.txt", load("unit_av_renderer.pt"), "dubbed.mp4", video="video.mp4", boxes="boxes.json")
"""

from __future__ import annotations

from .. import changed
from .command import unit2av_command
from .evaluation import assess, duration_errors, griffin_lim, held_out, judges, periodicity, pieces_of, scored, spoken
from .inference import Speech, at_full_rate, infer, load, speak, speaker_vector
from .settings import Settings, full, tiny
from .stages import build, data, embedder, extractor, fitted, split, stages, trained

TITLE = "Units to speech and face"
ROW = 5
HELP = "stage=recognizer, vocoder, adversarial, pitch, sync or face"
COMMANDS = {"unit2av": "speech and a talking face from units: manifest, train, infer"}
