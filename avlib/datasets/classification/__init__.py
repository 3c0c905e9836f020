"""Classification's data: a table of recordings, or folders of classes, to waveforms of one length with numbers.

recordings = read_recordings("table.csv", target="label")       # path, label; word, age, speaker where known
recordings = filter_words(recordings, ["rake"])                 # if only some words are wanted
labels = Labels.of(recordings)
splits = split(recordings, test_size=0.3, valid_size=0.2)       # by speaker; folds, given_splits, splits_of_column
dataset = ClassificationDataset(recordings, labels, seconds=3.0)
waveform, length, target, word, age, index = dataset[0]         # (48000,), then numbers
"""

from __future__ import annotations

from ...clips.speech import AGES
from .dataset import CROPS, PADS, ClassificationDataset, Example
from .draws import PARTS
from .labels import TASKS, Labels, age_index, word_index
from .splits import Splits, folds, given_splits, split, splits_of_column
from .statistics import Statistics, statistics
from .table import Recording, filter_words, read_recordings, word_list

__all__ = [
    "AGES",
    "CROPS",
    "PADS",
    "PARTS",
    "TASKS",
    "ClassificationDataset",
    "Example",
    "Labels",
    "Recording",
    "Splits",
    "Statistics",
    "age_index",
    "filter_words",
    "folds",
    "given_splits",
    "read_recordings",
    "split",
    "splits_of_column",
    "statistics",
    "word_index",
    "word_list",
]
