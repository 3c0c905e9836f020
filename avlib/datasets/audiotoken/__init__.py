"""AudioToken's data: clips in folders and tables, and built-in scenes, to a window of sound and one picture.

clips = read_clips("vggsound/", csv="vggsound.csv")             # or any folder, a .csv table, one file
clips = select(clips, split="train", exclude=["low_quality.txt"])
dataset = AudioTokenDataset(clips, seconds=5.0)
waveform, length, image, *_ = dataset[0]                        # (80000,), 80000, (3, 320, 512)
"""

from .dataset import HELD_OUT, MOST_HELD_OUT, AudioTokenDataset, Batch, Data, Sample
from .table import CLASSES, Clip, extract_audio, read_clips, scene_clips, select, vocabulary
