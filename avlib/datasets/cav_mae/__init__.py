"""CAV-MAE's data: clips on disk, extracted ones and built-in scenes to batches; extraction; class balance.

items = read_items("clips/")                                    # or a .csv, the published .json, a list of paths
table = LabelTable.read("class_labels_indices.csv")             # or LabelTable.of(items)
dataset = CAVMAEDataset(items, table, FINE_TUNING)
fbank, image, labels = dataset[0]                               # (1024, 128), (3, 224, 224), (classes,)
"""

from .dataset import FINE_TUNING, HELD_OUT, MOST_HELD_OUT, PRETRAINING, Augmentation, CAVMAEDataset, Data, Sample
from .extraction import Extraction, extract
from .items import ClipItem, ExtractedItem, Item, LabelTable, SceneItem, balanced_weights, read_items, scene_items
