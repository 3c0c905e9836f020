"""Items as CAV-MAE sees them: a spectrogram, an image and soft labels, augmented for training or plain.

The published loader is `src/dataloader.py`. Where it puts constants in the place of what cannot be read, this one
raises or leaves the item out; where it takes the image of a mixup partner from the folder of the first clip, this one
takes the partner's own; and labels of mixed clips are mixed, not added up (`avlib.features.mix`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.utils.data import default_collate

from ... import features
from ...errors import DatasetError, MediaError, ParameterError
from ...settings import BelowOne, Count, Natural, Number, Positive, Share, settings
from ..items import ItemDataset
from ..sources import SAMPLE_RATE
from .items import Item, LabelTable, Reading

HELD_OUT = 1000  # built-in scenes of this seed and above are never trained on
MOST_HELD_OUT = 320  # unless another number is given
_MIX = 10.0  # both parameters of the Beta distribution of a mixup's share


@settings
class Augmentation:
    """Changes that training makes to an item; by default only the frame is drawn.

    mixup: share of the items into which another one is mixed.
    label_smoothing: see `avlib.features.soft_labels`.
    freq_mask, time_mask: see `avlib.features.mask_bands`.
    noise: see `avlib.features.add_noise`.
    roll: see `avlib.features.roll_time`.
    """

    mixup: Share = 0.0
    label_smoothing: BelowOne = 0.0
    freq_mask: Natural = 0
    time_mask: Natural = 0
    noise: bool = False
    roll: bool = False


PRETRAINING = Augmentation(noise=True, roll=True)
FINE_TUNING = Augmentation(mixup=0.5, label_smoothing=0.1, freq_mask=48, time_mask=192, noise=True, roll=True)


@settings
class Data:
    """Clips to learn from.

    data: a folder of clips, or a table or list that names them (`read_items`); "" takes built-in scenes.
    folder: where the paths in `data` begin, such as AudioSet's clips; "" for the folder of the table.
    labels: the table of the classes; "" takes the labels that the items have.
    held_out: clips for evaluation: in `data` those of the part "test", at most so many, or if there is none, drawn
        from all; scenes besides those that are trained on. None: 320; drawn from all a quarter, if that is less.
    clips, seconds: number and duration of the scenes that are trained on.
    clips_seed: chooses these scenes; with `data`, the clips that are held out.
    frames: parts in which a clip shows its pictures; of scenes in training `training_frames`.
    mean, std: normalise spectrograms.
    align: sound and pictures of a file on one clock; False as published, see `media.read_clip`.
    in_memory: read everything before the first step.
    on_error: "raise" or "skip", for clips that cannot be used.
    """

    @property
    def FREE(self) -> tuple[str, ...]:
        of_scenes = ("clips", "seconds", "training_frames")
        return ("in_memory", *(of_scenes if self.data else ("folder", "labels", "held_out", "frames", "align")))

    data: str = ""
    folder: str = ""
    labels: str = ""
    held_out: Natural | None = None
    clips: Count = 4096
    seconds: Positive = 10.0
    clips_seed: Annotated[int, Field(ge=0, lt=HELD_OUT)] = 0
    frames: Count = 10
    training_frames: Count = 10
    mean: Number = features.CAV_MAE_MEAN
    std: Positive = features.CAV_MAE_STD
    align: bool = True
    in_memory: bool = False
    on_error: Literal["raise", "skip"] = "raise"


class Sample(NamedTuple):
    """One item, or a batch of them."""

    fbank: Float[Tensor, "*batch frames mels"]
    image: Float[Tensor, "*batch 3 size size"]
    labels: Float[Tensor, "*batch classes"]


class CAVMAEDataset(ItemDataset):
    """Clips as CAV-MAE sees them.

    All that is random about an item follows from (seed, epoch, index), in any process. Use it with any DataLoader and
    `collate_fn=dataset.collate`.

    Args:
        table: the classes; None takes the labels that the items have.
        augmentation: for training, such as `PRETRAINING` and `FINE_TUNING`, the published settings. None is for
            evaluation: nothing is random.
        frame: which frame evaluation sees, or the next lower one that exists; None is the middle one, number 5 of 10.
            Training draws among all that exist.
        total_frames: parts of a clip that give a frame each; 10 as published.
        target_length: frames of the spectrogram, each 10 ms.
        mean, std: normalise the spectrogram; AudioSet's as published. See `statistics`.
        channel: of the sound; None averages all, 0 takes the first as the published extraction does.
        align: sound and pictures of a file on one clock; False as published, see `media.read_clip`.
        on_error: "raise", or "skip" to leave out unusable items and `report` them.

    Raises:
        DatasetError: no items, or a label that is not in the table.
    """

    ragged = ("sounds",)

    def __init__(
        self,
        items: Sequence[Item],
        table: LabelTable | None = None,
        augmentation: Augmentation | None = None,
        *,
        frame: int | None = None,
        total_frames: int = 10,
        image_size: int = 224,
        target_length: int = features.CAV_MAE_FRAMES,
        n_mels: int = features.CAV_MAE_MELS,
        mean: float = features.CAV_MAE_MEAN,
        std: float = features.CAV_MAE_STD,
        channel: int | None = None,
        align: bool = True,
        seed: int = 0,
        on_error: str = "raise",
    ):
        self.reading = Reading(total_frames, image_size, channel, align)
        self.frame = total_frames // 2 if frame is None else frame
        self.augmentation = augmentation
        for name, value, low, high in (
            ("target_length", target_length, 1, math.inf),
            ("n_mels", n_mels, 1, math.inf),
            ("frame", self.frame, 0, total_frames - 1),
            ("freq_mask", augmentation.freq_mask if augmentation else 0, 0, n_mels),
            ("time_mask", augmentation.time_mask if augmentation else 0, 0, target_length),
        ):
            if not low <= value <= high:
                raise ParameterError(name, f"{value}", f"{low} to {high}" if high < math.inf else f"{low} or more")
        if not std > 0:
            raise ParameterError("std", f"{std}", "more than 0")
        super().__init__(items, seed, on_error)
        self.table = LabelTable.of(items) if table is None else table
        self.target_length, self.n_mels, self.mean, self.std = target_length, n_mels, mean, std
        for index in range(len(items)):
            self._attempt(self._classes, index)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample | None:
        """One item; None when it is left out. (index, n) is its n-th draw in an epoch, see `BalancedSampler`."""
        index, draw = index if isinstance(index, tuple) else (index, 0)
        return self._attempt(partial(self._sample, draw=draw), index)

    def collate(self, samples: list[Sample | None]) -> Sample:
        """Put the items that are not left out into a batch; an empty one, if all are."""
        kept = [sample for sample in samples if sample is not None]
        if kept:
            return default_collate(kept)
        size = self.reading.image_size
        shapes = (self.target_length, self.n_mels), (3, size, size), (len(self.table),)
        return Sample(*(torch.empty(0, *shape) for shape in shapes))

    def at_frame(self, frame: int) -> CAVMAEDataset:
        """Return the data set for evaluation on another frame."""
        if not 0 <= frame < self.reading.total_frames:
            raise ParameterError("frame", f"{frame}", f"0 to {self.reading.total_frames - 1}")
        other = copy.copy(self)
        other.frame = frame
        return other

    def statistics(self, jobs: int | None = None, progress: bool = True) -> tuple[float, float]:
        """Return mean and standard deviation of all log energies; as published, padding counts."""
        rows = self._survey(self._moments, "measuring", jobs, progress)
        means, deviations = torch.tensor([row for _, row in rows], dtype=torch.float64).reshape(-1, 2).unbind(1)
        if not len(means):
            raise DatasetError("items", "none can be used", advice=self.report())
        count = self.target_length * self.n_mels
        mean = means.mean()
        squares = deviations.sum() + count * (means - mean).square().sum()
        return mean.item(), (squares / (count * len(means) - 1)).sqrt().item()

    def contents(self, index: int) -> dict[str, np.ndarray]:
        """Spectrogram (not normalised), frames, and the sound for mixup: 10 s take 2 MB, and 0.6 MB."""
        item, total = self.items[index], self.reading.total_frames
        self._classes(index)
        self._first_there(index, self._wanted(np.random.default_rng(0)))
        there = np.array([item.has(frame) for frame in range(total)])
        waveform, shown = item.read(there.nonzero()[0].tolist(), self.reading)
        pictures = np.zeros((total, *shown.shape[1:]), np.uint8)
        pictures[there] = shown.numpy()
        mixed = self.augmentation is not None and self.augmentation.mixup > 0
        fbank, sound = self._fbank(waveform), waveform if mixed else waveform[:0]
        return {"fbanks": fbank.numpy(), "pictures": pictures, "there": there, "sounds": sound.numpy()}

    def _sample(self, index: int, draw: int) -> Sample:
        augment = self.augmentation or Augmentation()
        dice = self._dice(index, draw)
        generator = torch.Generator().manual_seed(int(dice.integers(2**63)))

        waveform, fbank, image, labels = self._load(index, self._wanted(dice))
        if dice.random() < augment.mixup:
            share = float(dice.beta(_MIX, _MIX))
            others, _, other_image, other_labels = self._partner(dice)
            fbank = self._fbank(features.mix_waveforms(waveform, others, share))
            image = features.mix(image, other_image, share)
            labels = features.mix(labels, other_labels, share)

        fbank = fbank if fbank is not None else self._fbank(waveform)
        fbank = features.mask_bands(fbank, augment.freq_mask, augment.time_mask, generator)
        fbank = (fbank - self.mean) / self.std
        if augment.noise:
            fbank = features.add_noise(fbank, generator)
        if augment.roll:
            fbank = features.roll_time(fbank, generator)
        return Sample(fbank, image, labels)

    def _partner(self, dice: np.random.Generator) -> tuple:
        """Another item to mix with; unusable ones are drawn again."""
        while True:
            index, wanted = int(dice.integers(len(self))), self._wanted(dice)
            loaded = self._attempt(partial(self._load, wanted=wanted), index)
            if loaded is not None:
                return loaded

    def _wanted(self, dice: np.random.Generator) -> list[int]:
        """Frames in the order of preference: the first one that exists will be seen."""
        if self.augmentation:
            return dice.permutation(self.reading.total_frames).tolist()
        return list(range(self.frame, -1, -1))  # as the published loader looks for another one

    def _load(self, index: int, wanted: list[int]) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        """Sound, fbank if it is in memory, normalised image and labels."""
        smoothing = self.augmentation.label_smoothing if self.augmentation else 0.0
        labels = features.soft_labels(self._classes(index), len(self.table), smoothing)
        frame = self._first_there(index, wanted)
        if self.memory is None:
            waveform, (picture,) = self.items[index].read([frame], self.reading)
            fbank = None
        else:
            fbank, picture = self.memory["fbanks"][index], self.memory["pictures"][index, frame]
            waveform = self.memory["sounds"][index] if "sounds" in self.memory else None
        return waveform, fbank, features.normalize_pictures(picture), labels

    def _first_there(self, index: int, wanted: list[int]) -> int:
        has = self.items[index].has if self.memory is None else self.memory["there"][index].__getitem__
        frame = next((frame for frame in wanted if has(frame)), None)
        if frame is None:
            found = f"has none of the frames {sorted(wanted)}"
            raise MediaError(self.items[index], found, "at least one of them", "Extract the clip again.")
        return frame

    def _fbank(self, waveform: Float[Tensor, " samples"]) -> Float[Tensor, "frames mels"]:
        shape = {"target_length": self.target_length, "n_mels": self.n_mels}
        return features.cav_mae_fbank(waveform, SAMPLE_RATE, normalize=False, **shape)

    def _classes(self, index: int) -> list[int]:
        return self.table.indices(self.items[index])

    def _moments(self, index: int) -> tuple[float, float]:
        self._classes(index)
        in_memory = self.memory is not None
        fbank = self.memory["fbanks"][index] if in_memory else self._fbank(self.items[index].read([], self.reading)[0])
        mean = fbank.double().mean()
        return mean.item(), (fbank.double() - mean).square().sum().item()
