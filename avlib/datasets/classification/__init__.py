"""Data of classification: recordings of a table or of folders, divided, as waveforms.

recordings = read_recordings("table.csv", target="label")       # path, label; word, age, speaker where known
recordings = filter_words(recordings, ["rake"])                 # if only some words are wanted
labels = Labels.of(recordings)
splits = split(recordings, test_size=0.3, valid_size=0.2)       # by speaker; folds, given_splits, splits_of_column
dataset = ClassificationDataset(recordings, labels, seconds=3.0)
waveform, length, target, word, age, index = dataset[0]         # (48000,), then numbers
"""

from ...clips.speech import AGES
from .dataset import UNKNOWN, ClassificationDataset, Data, Example, Statistics, statistics
from .splits import PARTS, Splits, folds, given_splits, split, splits_of_column
from .table import TASKS, Labels, Recording, age_index, filter_words, read_recordings, word_index, word_list
