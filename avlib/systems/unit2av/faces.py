"""The face's training: a renderer whose mouths follow units, a judge of lips, and figures of the mouth.

No training of the published renderer is published. Wav2Lip's is the base: the frame without its lower half, and a
reference from another moment of the video, so that the mouth cannot be copied; L1, here weighted on the mouth.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ... import training
from ...clips import heads
from ...clips.heads import Talk, mouth_opening
from ...datasets.unit2av.faces import Extractor, Face, FaceBatch, FaceDataset, faces_in, faces_of, network_input
from ...errors import ParameterError
from ...features import FACE_SIDE, crop_face, face_places, ping_pong
from ...models import lip_sync
from ...models.face_renderer import FRAMES, ROW, Config, FaceRenderer, render
from ...models.lip_sync import LipSync, sync_loss
from ...settings import Count, NonNegative, Positive, settings

MOUTH = (slice(54, 90), slice(24, 72))  # rows and columns of a face in which its mouth is


@settings
class FaceStage:
    network: Config = field(default_factory=Config)
    data: str = ""
    talks: Count = 96
    speakers: Count = 24
    faces: Count = 96
    mouth_weight: Positive = 10.0
    frames: Count = FRAMES
    sync_weight: NonNegative = 0.0
    training: training.Settings = field(default_factory=training.Settings)


def build_face(settings, vocabulary: int) -> FaceRenderer:
    own = settings.face
    with torch.random.fork_rng():
        torch.manual_seed(own.training.seed)
        model = FaceRenderer(replace(own.network, num_embeddings=vocabulary))
    return model.to(memory_format=torch.channels_last)


def _window(tensor: Tensor, first: Tensor, count: int) -> Tensor:
    places = first[:, None] + torch.arange(count, device=first.device)  # (B, count)
    return tensor[torch.arange(len(tensor), device=first.device)[:, None], places]


def face_step(model: FaceRenderer, batch: FaceBatch, settings, expert: LipSync | None = None):
    own = settings.face
    first = (training.uniform(len(batch.units), device=batch.units.device) * (FRAMES - own.frames + 1)).long()
    faces, references = (_window(each, first, own.frames) for each in (batch.faces, batch.references))
    lips = _window(model.lips(batch.units), first, own.frames)
    drawn = model.draw(lips.flatten(0, 1), network_input(faces, references).flatten(0, 1))
    weight = drawn.new_ones(FACE_SIDE, FACE_SIDE)
    weight[MOUTH] = own.mouth_weight
    off = (drawn - faces.flatten(0, 1) / 255).abs()
    loss = (off * weight).mean() / weight.mean()
    parts = {"mouth": off[(..., *MOUTH)].mean()}
    if expert is not None:
        units = _window(batch.units, 2 * first, lip_sync.UNITS)
        mouths = drawn.unflatten(0, (-1, own.frames))[:, : lip_sync.FRAMES]
        parts["sync"] = sync_loss(expert(units, mouths), 1.0)
        loss = loss + own.sync_weight * parts["sync"]
    return loss, parts


class MouthScores(NamedTuple):
    r: float
    old: float
    cheek: float


def mouth_scores(renderer, extractor, talks, dubbed=None, reference=None) -> MouthScores:
    rows = []
    for talk, video in zip(talks, dubbed or talks, strict=True):
        sound = torch.from_numpy(talk.sound())
        units = extractor(sound, heads.SAMPLE_RATE) if extractor else torch.from_numpy(talk.truth.units)
        frames = np.stack([video.frame(i) for i in range(video.frame_count)])
        made = render(renderer, frames, video.truth.boxes, units, reference=reference)
        order = ping_pong(video.frame_count, len(made))
        places = face_places([video.truth.boxes[i] for i in order], *video.size)
        seen = [i for i, place in enumerate(places) if place]
        faces, true = (
            torch.stack([crop_face(picture[i], places[i]) for i in seen]).permute(0, 2, 3, 1).flip(-1)
            for picture in (made, torch.from_numpy(frames)[order])
        )
        cheeks = [each[:, 56:68, 12:22].float().mean((1, 2)) / 255 for each in (faces, true)]
        rows.append((mouth_opening(faces.numpy()), talk.truth.opening[: len(made)][seen],
                     video.truth.opening[order][seen], (cheeks[0] - cheeks[1]).abs().mean(1).numpy()))
    made, new, old, cheek = (np.concatenate(c) for c in zip(*rows))
    return MouthScores(np.corrcoef(made, new)[0, 1], np.corrcoef(made, old)[0, 1], cheek.mean())
