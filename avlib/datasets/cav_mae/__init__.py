"""CAV-MAE's data: clips on disk, extracted ones and built-in scenes to batches; extraction; class balance.

items = read_items("clips/")                                    # or a .csv, the published .json, a list of paths
table = LabelTable.read("class_labels_indices.csv")             # or LabelTable.of(items)
dataset = CAVMAEDataset(items, table, FINE_TUNING)
fbank, image, labels = dataset[0]                               # (1024, 128), (3, 224, 224), (classes,)
"""

from __future__ import annotations

from ..sources import split
from .dataset import FINE_TUNING, PRETRAINING, Augmentation, CAVMAEDataset, Sample
from .extraction import Extraction, extract
from .items import (
    ClipItem,
    ExtractedItem,
    Item,
    SceneItem,
    read_audioset,
    read_items,
    read_vggsound,
    scene_items,
)
from .labels import BalancedSampler, LabelTable, balanced_weights

__all__ = [
    "FINE_TUNING",
    "PRETRAINING",
    "Augmentation",
    "BalancedSampler",
    "CAVMAEDataset",
    "ClipItem",
    "ExtractedItem",
    "Extraction",
    "Item",
    "LabelTable",
    "Sample",
    "SceneItem",
    "balanced_weights",
    "extract",
    "read_audioset",
    "read_items",
    "read_vggsound",
    "scene_items",
    "split",
]
