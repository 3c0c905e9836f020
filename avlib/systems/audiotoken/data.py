"""Clips to train on, and others that no training sees."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ... import checkpoints
from ...clips import KINDS
from ...datasets.audiotoken import (
    COLOURS,
    SIZES,
    AudioTokenDataset,
    Clip,
    SceneClip,
    attributes,
    phrase,
    read_clips,
    scene_clips,
    select,
)
from ...datasets.sources import SAMPLE_RATE, split
from ...features import beats_fbank
from ...models.audiotoken import PLACEHOLDER
from ...workers import each
from .. import done_once
from .settings import HELD_OUT, Settings

CLASSES = {"kind": KINDS, "size": SIZES, "colour": COLOURS}  # what a picture is judged by
_HOP = 160  # samples from one frame of an fbank to the next
_FEW = 128  # scenes for which no processes are started


class Example(NamedTuple):
    """One scene, or a batch of them.

    waveform: 16 kHz, mono.
    fbank: of it, by `beats_fbank`; computed once, since that takes as long as the tiny BEATs that hears it.
    image: in [-1, 1].
    classes: number of kind, size and colour, in the order of `CLASSES`.
    label: the kind.
    prompt: with the caption, or some of its words.
    """

    waveform: Float[Tensor, "*batch samples"]
    fbank: Float[Tensor, "*batch frames mels"]
    image: Float[Tensor, "*batch 3 height width"]
    classes: Integer[Tensor, "*batch attributes"]
    label: str | list[str]
    prompt: str | list[str]


class Scenes(Dataset):
    """Built-in scenes in memory.

    Args:
        clips: of `scene_clips`.
        sounds: `(N, samples)`, int16.
        fbanks: `(N, frames, mels)`, of BEATs.
        pictures: `(N, moments, 3, H, W)`, uint8.
        settings: how words are left out; with `augment` alone.
        augment: for training: a moment and words are drawn, and sounds begin anywhere. Else the moment is the middle
            one, and the caption whole. What is drawn follows from (seed, epoch, index).
    """

    def __init__(
        self,
        clips: list[Clip],
        sounds: Tensor,
        fbanks: Tensor,
        pictures: Tensor,
        settings: Settings,
        augment: bool,
    ):
        self.clips, self.sounds, self.fbanks, self.pictures = clips, sounds, fbanks, pictures
        self.settings, self.augment = settings, augment
        self.words = [attributes(clip.scene.truth) for clip in clips]
        self.classes = torch.tensor([[CLASSES[n].index(words[n]) for n in CLASSES] for words in self.words])
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Example:
        words, moments = self.words[index], self.pictures.shape[1]
        caption, moment, shift = phrase(words["kind"], words["size"], words["colour"]), moments // 2, 0
        if self.augment:
            dice = np.random.default_rng([self.settings.now.training.seed, int(self._epoch), index])
            moment, shift = int(dice.integers(moments)), int(dice.integers(self.fbanks.shape[1]))
            caption = self._some_words(words, dice.random(4))
        waveform = self.sounds[index].roll(shift * _HOP).float() / 2**15
        fbank = self.fbanks[index].roll(shift, 0)  # but for the seam, that of the waveform
        image = self.pictures[index, moment].float() / 127.5 - 1
        prompt = self.settings.embedder.prompt.replace(PLACEHOLDER, caption) if caption else ""
        return Example(waveform, fbank, image, self.classes[index], words["kind"], prompt)

    def _some_words(self, words: dict[str, str], drawn: np.ndarray) -> str:
        how = self.settings.diffusion
        size, colour, article, any_ = drawn >= [*[how.word_dropout] * 3, how.caption_dropout]
        caption = phrase(words["kind"], words["size"] if size else "", words["colour"] if colour else "")
        return (caption if article else caption.removeprefix("a ")) if any_ else ""

    def collate(self, examples: list[Example]) -> Example:
        """A batch; labels and prompts as lists."""
        tensors = default_collate([example[:4] for example in examples])
        return Example(*tensors, *map(list, zip(*(example[4:] for example in examples), strict=True)))

    def batch(self, first: int = 0, count: int | None = None) -> Example:
        """Some of them at once, from the `first` on; all when `count` is None."""
        end = len(self) if count is None else min(len(self), first + count)
        return self.collate([self[index] for index in range(first, end)])


def data(settings: Settings, *, progress: bool = True) -> Scenes | AudioTokenDataset:
    """What the stage of the settings trains on: built-in scenes, or for the embedder the user's clips."""
    own = settings.data
    if own.data and settings.stage == "embedder":
        clips = _own(settings)[0]
        return AudioTokenDataset(
            clips, own.seconds, tuple(own.image_size), seed=settings.now.training.seed, on_error=own.on_error
        )
    return _scenes(settings, scene_clips(own.clips, own.clips_seed, own.seconds), True, progress)


def held_out(settings: Settings, seed: int = 0, *, progress: bool = True) -> Scenes | AudioTokenDataset:
    """Clips that no training sees, nothing about them random.

    Args:
        settings: what clips are like.
        seed: another one gives other scenes. The user's own data has one set of held-out clips: its part "test";
            without such a part, up to a quarter of the clips, by `clips_seed`. Of one clip alone, that one.
        progress: whether bars are shown.
    """
    own = settings.data
    if own.data and settings.stage == "embedder":
        clips = _own(settings)[1]
        return AudioTokenDataset(
            clips, own.seconds, tuple(own.image_size), window="middle", frame="middle", on_error=own.on_error
        )
    return _scenes(settings, scene_clips(own.held_out, HELD_OUT + seed, own.seconds), False, progress)


def pictures_of(dataset: Scenes) -> Float[Tensor, "pictures 3 height width"]:
    """All pictures of scenes, in [-1, 1]."""
    return dataset.pictures.flatten(0, 1).float() / 127.5 - 1


def _own(settings: Settings) -> tuple[list[Clip], list[Clip]]:
    """The user's clips to train on, and those to measure with."""
    own = settings.data
    table = read_clips(own.data, own.csv)
    parts = {clip.split for clip in table}
    clips = select(table, "" if parts == {""} else "train", own.exclude)
    if "test" in parts:
        return clips, select(table, "test", own.exclude)[: own.held_out]
    count = min(own.held_out, max(min(2, len(clips) // 2), len(clips) // 4))
    train, held = split(clips, count, own.clips_seed, by=lambda clip: clip.label)
    return train, held or train


def _scenes(settings: Settings, clips: list[Clip], augment: bool, progress: bool) -> Scenes:
    own = settings.data
    moments = own.frames if augment else 1
    task = partial(_computed, moments=moments, size=tuple(own.image_size))
    jobs = 1 if len(clips) < _FEW else None  # to start processes takes seconds

    def make(_: Path) -> dict[str, Tensor]:
        computed = each(task, clips, jobs=jobs, progress=progress, doing="preparing")
        columns = zip(*computed, strict=True)
        return {
            name: torch.from_numpy(np.stack(rows))
            for name, rows in zip(("sounds", "fbanks", "pictures"), columns, strict=True)
        }

    def write(arrays: dict[str, Tensor], path: Path) -> None:
        checkpoints.save(path, arrays, {})

    recipe = [moments, list(own.image_size), [repr(clip.scene) for clip in clips]]
    path = done_once("arrays", "audiotoken", recipe, make, write, source=__name__)
    return Scenes(clips, **checkpoints.read(path).tensors, settings=settings, augment=augment)


def _computed(clip: SceneClip, moments: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scene's sound, the fbank of that, and its pictures in the middles of so many parts; as arrays, which pass
    cheaply between processes.
    """
    scene = clip.scene
    times = (np.arange(moments) + 0.5) / moments * scene.seconds
    sound = np.rint(scene.sound(SAMPLE_RATE).mean(axis=0) * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    fbank = beats_fbank(torch.from_numpy(sound).float() / 2**15).numpy()
    return sound, fbank, np.ascontiguousarray(scene.frames(times, size).transpose(0, 3, 1, 2))
