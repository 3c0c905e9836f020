"""Singing-voice conversion: settings, data, training, and figures on held-out phrases beside the true parallel.

settings = changed(tiny, {"diffusion.steps": 300})
model, history, folder = trained(settings)                         # a recogniser, and then the diffusion model
sounds = converted(load(folder), [sound], "otto")                  # from nothing but the samples
scored(sounds, songs, "otto", judges(settings)).figures()
convert("song.wav", load(folder), key=3, singer="otto", out="converted/")      # of any length, to a file
"""

from ...datasets.sampling import LengthBuckets
from ...datasets.svc import SINGERS, SVCDataset, cut
from .. import changed
from .command import convert_command
from .conversion import analyse, convert
from .evaluation import Judges, assess, converted, generated, held_out_songs, judges, mel_ratio, scored, sound_of
from .project import load, vocoder_of
from .settings import ENCODERS, Settings, full, tiny
from .stages import build, data, encoding, fitted, noise_of, split, stages, step, trained

TITLE = "Singing-voice conversion"
ROW = 4
HELP = "stage=recognizer or diffusion; project=NAME, by which `avlib convert` finds the model"
COMMANDS = {"convert": "convert songs to the voice of a trained singer"}
