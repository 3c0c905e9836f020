"""The face's training: a renderer whose mouths follow units, a lip-sync expert, and figures of the mouth.

No training of the published renderer is published. Wav2Lip's is the base: the lower half of the picture is hidden, and
the reference is of another moment of the video, so that its mouth cannot be copied. L1 is weighted on the mouth here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import training
from ...clips.heads import SAMPLE_RATE, Talk, mouth_opening
from ...datasets.unit2av.dataset import Extract, talks
from ...datasets.unit2av.faces import FaceBatch, FaceDataset, face_files, faces_in, faces_of, network_input
from ...features.faces import FACE_SIDE, check_boxes, crop_face, face_places, ping_pong
from ...models import lip_sync
from ...models.face_renderer import FRAMES, FaceRenderer, Reference, render
from ...models.lip_sync import LipSync, sync_loss
from ...once import written
from ...settings import recipe
from .settings import Settings, tiny

MOUTH = (slice(54, 90), slice(24, 72))  # rows and columns of a face in which its mouth is
_CHEEKS = (slice(56, 68), slice(12, 22))
NEW_HEADS, NEW_VOICES = range(80_000, 80_012), range(90_000, 90_006)  # whom no training has

# Data and models


def face_data(settings: Settings, extract: Extract, *, progress: bool = True) -> FaceDataset:
    """Return the faces that the stages "face" and "sync" train on: built-in talks of known words, or the user's videos.

    `extract` makes units of sound.
    """
    own = settings.face
    if own.data:
        faces, notes = faces_in(own.data, extract, settings.data.on_error, progress)
    else:
        chosen = talks(settings.data, count=own.talks, heads=own.heads)
        faces, notes = faces_of(tuple(chosen), extract), ""
    reference = "same" if own.network.reference == "same" and settings.stage == "face" else "other"
    return FaceDataset(faces, reference, own.rows, settings.now.training.seed, notes)


def build_face(settings: Settings, vocabulary: int) -> FaceRenderer | LipSync:
    """Return the untrained network of the stage "face" or "sync", for so many units."""
    own = settings.now
    with torch.random.fork_rng():
        torch.manual_seed(own.training.seed)
        network = replace(own.network, num_embeddings=vocabulary)
        if settings.stage == "sync":
            return LipSync(network)
        model = FaceRenderer(network)
    if own.begin == "balanced":
        _balance(model)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def _balance(model: FaceRenderer) -> None:
    """Let units count for more at first than what the encoder hands over."""
    blocks = list(model.face_decoder_blocks)
    for before, block in pairwise(blocks[:-1]):
        block[0].conv_block[0].weight[before[0].conv_block[0].out_channels :] *= 0.1  # (in, out, 3, 3)
    for module in model.unit2lip.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def face_recipe(settings: Settings) -> dict[str, Any]:
    """Return settings and files that the weights of "face" or "sync" follow from, besides the units'."""
    values, own = recipe(settings), settings.face
    kept = {"data": values["data"], "files": written(face_files(own.data)) if own.data else []}
    shared = {name: values["face"][name] for name in ("data", "talks", "heads", "rows")}
    kept |= {"faces": shared, settings.stage: values[settings.stage]}
    return kept | ({"sync": values["sync"]} if own.sync_weight and settings.stage == "face" else {})


# The training steps


def face_step(
    model: FaceRenderer, batch: FaceBatch, settings: Settings = tiny, expert: LipSync | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return L1 of the faces, weighted on the mouth, and with an expert the sync loss.

    Of each row `frames` pictures from a random place are drawn; attention sees the units of all ten.
    """
    own, device = settings.face, batch.units.device
    first = (training.uniform(len(batch.units), device=device) * (FRAMES - own.frames + 1)).long()
    faces, references = (_window(each, first, own.frames) for each in (batch.faces, batch.references))
    lips = _window(model.lips(batch.units), first, own.frames)  # (B, frames, D)
    drawn = model.draw(lips.flatten(0, 1), network_input(faces, references).flatten(0, 1))
    weight = drawn.new_ones(FACE_SIDE, FACE_SIDE)
    weight[MOUTH] = own.mouth_weight
    true = faces.flatten(0, 1) / 255  # (B frames, 3, 96, 96)
    loss = (F.smooth_l1_loss(drawn, true, beta=own.smooth, reduction="none") * weight).mean() / weight.mean()
    parts = {"mouth": (drawn - true)[..., MOUTH[0], MOUTH[1]].abs().mean()}
    if expert is not None:
        mouths = drawn.unflatten(0, (-1, own.frames))[:, : lip_sync.FRAMES]
        parts["sync"] = sync_loss(expert(_window(batch.units, 2 * first, lip_sync.UNITS), mouths), 1.0)
        loss = loss + own.sync_weight * parts["sync"]
    return loss, parts


def sync_step(model: LipSync, batch: FaceBatch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the cross-entropy of the cosine for units of the pictures and of another moment, and the share right."""
    drawn = training.uniform(len(batch.units), device=batch.units.device)
    first = (drawn * (FRAMES - lip_sync.FRAMES + 1)).long()
    faces = _window(batch.faces, first, lip_sync.FRAMES) / 255
    cosines = [model(_window(units, 2 * first, lip_sync.UNITS), faces) for units in (batch.units, batch.elsewhere)]
    loss = (sync_loss(cosines[0], 1.0) + sync_loss(cosines[1], 0.0)) / 2
    return loss, {"right": (cosines[0] > cosines[1]).float().mean()}


def _window(values: Tensor, first: Tensor, count: int) -> Tensor:
    """Some of the values of each row, from a place of its own: `(B, n, ...)` -> `(B, count, ...)`."""
    rows, places = torch.arange(len(values), device=first.device)[:, None], torch.arange(count, device=first.device)
    return values[rows, first[:, None] + places]


# Figures


class MouthScores(NamedTuple):
    """Movement of mouths over all rendered frames."""

    follows: float  # correlation of their measured opening with the true one of the sound
    copies: float  # with the true one of the video that was dubbed, before; the same on its own video
    cheek: float  # mean absolute error of the colour of the cheeks, from 0 to 1


def new_talks(settings: Settings = tiny, count: int = 12, seed: int = 0) -> list[Talk]:
    """Return talks whose words, voices and heads are all new to the training."""
    return talks(settings.data, True, count, seed, speakers=NEW_VOICES, heads=NEW_HEADS)


def mouth_scores(
    renderer: FaceRenderer, extract: Extract | None, talks: Sequence[Talk], dubbed: Sequence[Talk] | None = None,
    reference: Reference = None,
) -> MouthScores:  # fmt: skip
    """Render the mouths of talks and measure how far they open, see `MouthScores`.

    Args:
        extract: makes units of sound; None takes the phones of the truth.
        talks: whose sound is said.
        dubbed: talks over whose video it is said, one for each; None: over its own.
        reference: see `avlib.models.face_renderer.render_frames`.
    """
    pairs = zip(talks, talks if dubbed is None else dubbed, strict=True)
    columns = zip(*(_measured(renderer, extract, *pair, reference) for pair in pairs), strict=True)
    opening, new, old, cheek = map(np.concatenate, columns)
    with np.errstate(invalid="ignore"):  # mouths that do not move at all have no correlation
        follows, copies = (float(np.nan_to_num(np.corrcoef(opening, true)[0, 1])) for true in (new, old))
    return MouthScores(follows, copies, float(cheek.mean()))


def _measured(renderer: FaceRenderer, extract: Extract | None, talk: Talk, video: Talk, reference: Any) -> tuple:
    """Opening of the rendered mouths, true ones of the sound and of the video, and errors of the cheeks' colour."""
    sound = torch.from_numpy(talk.sound())
    units = torch.from_numpy(talk.truth.units) if extract is None else extract(sound, SAMPLE_RATE)
    frames = torch.stack([torch.from_numpy(video.frame(index)) for index in range(video.frame_count)])
    made = render(renderer, frames, video.truth.boxes, units, reference=reference)
    order = ping_pong(video.frame_count, len(made))
    places = face_places(check_boxes([video.truth.boxes[index] for index in order]), *video.size)
    seen = [index for index, place in enumerate(places) if place]

    def cropped(pictures: Tensor) -> Tensor:
        return torch.stack([crop_face(pictures[i], places[i]) for i in seen]).permute(0, 2, 3, 1).flip(-1)

    faces, true = cropped(made), cropped(frames[order])
    colours = [each[:, _CHEEKS[0], _CHEEKS[1]].float().mean((1, 2)) / 255 for each in (faces, true)]
    openings = talk.truth.opening[: len(made)][seen], video.truth.opening[order][seen]
    return mouth_opening(faces.numpy()), *openings, (colours[0] - colours[1]).abs().mean(1).numpy()
