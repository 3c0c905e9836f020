"""The two stages of singing-voice conversion: a recogniser whose posteriors are units, then the diffusion model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ... import training
from ...datasets import svc
from ...datasets.sampling import LengthBuckets
from ...datasets.svc import Batch, Split, SVCDataset
from ...datasets.voices import Voices
from ...errors import CheckpointError, ParameterError
from ...extract.units import ContentEncoder, KMeans, content_encoder, fit_kmeans, recognizer_encoder
from ...features import SVC_HOP, SVC_SAMPLE_RATE, compare_ranges, harmonics, spectrogram_range, svc_log_mel
from ...features.singing import SVC_HERTZ
from ...models.diffusion_svc import HIGHEST, LOWEST, PITCHES, DiffusionSVC
from ...models.recognizer import Config as RecognizerConfig
from ...models.recognizer import Recognizer
from ...models.source_filter import SourceFilterVocoder
from ...once import done_once, written
from ...settings import recipe
from ...training.recognition import recognizer_step
from .. import Stage, Trained, device_of, fitted_to, trained_by
from .project import Project, Voice, give_name
from .settings import Settings, tiny

Numbers = Int64[Tensor, " batch"]


def encoding(settings: Settings, **how: Any) -> ContentEncoder:
    """Return the content encoder of the settings; "recognizer" trains the first stage, or takes it from the cache."""
    own = settings.diffusion
    if own.encoder == "recognizer":
        return recognizer_encoder(trained(replace(settings, stage="recognizer"), **how).model.cpu())
    if own.encoder == "none":
        return ContentEncoder("none", _Nothing(), 1, pad=None)
    if own.encoder == "kmeans" and not own.encoder_path:
        return content_encoder("kmeans", _clusters(settings, how.get("progress", True)))
    return content_encoder(own.encoder, own.encoder_path or None, width=own.encoder_width or None)


def _clusters(settings: Settings, progress: bool) -> Path:
    """The folder of k-means on the mel of the training files, from the cache or computed now."""
    paths, count = [source.path for source in svc.sources(settings.data, progress)[0]], settings.diffusion.clusters
    return done_once(
        "arrays", "svc-kmeans", [count, written(paths)], lambda _: fit_kmeans(paths, count), KMeans.save,
        source=fit_kmeans.__module__,
    )  # fmt: skip


class _Nothing(nn.Module):
    """Units that say nothing."""

    def forward(self, sound: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch units 1"]:
        return sound.new_zeros(len(sound), sound.shape[1] // svc.UNIT, 1)


def split(settings: Settings, **how: Any) -> Split:
    """Return the pieces to train on and the held-out ones, with the units of the settings' encoder."""
    seed = settings.diffusion.training.seed
    return svc.split_songs(settings.data, encoding(settings, **how), seed, progress=how.get("progress", True))


def data(settings: Settings, *, progress: bool = True) -> Voices | SVCDataset:
    """Return what the stage of the settings trains on."""
    if settings.stage == "recognizer":
        return voices(settings)
    return split(settings, progress=progress).train


def voices(settings: Settings, seed: int | None = None) -> Voices:
    """Return the labelled sound of the first stage; for figures, by a seed of other voices and melodies."""
    own = settings.recognizer
    chosen = own.voice_seed if seed is None else seed
    return svc.labelled_voices(own.target, own.voices, own.phrases, chosen, own.window, own.training.seed)


def build(settings: Settings, **how: Any) -> nn.Module:
    """Return the untrained model of the stage; its random weights follow from the seed.

    A `checkpoint` must fit the data, and have the range of the settings.
    """
    if _recipe(settings) is None:
        expected = '"recognizer", whose units it makes'
        raise ParameterError("encoder", f"{settings.diffusion.encoder!r}", expected, "Or train stage=diffusion.")
    if settings.stage == "recognizer":
        own, classes = settings.recognizer, svc.classes(settings.recognizer.target)
        with torch.random.fork_rng():
            torch.manual_seed(own.training.seed)
            return Recognizer(RecognizerConfig(classes, width=own.width, layers=own.layers))
    own, dataset = settings.diffusion, split(settings, **how).train
    singers = len(dataset.singers) if len(dataset.singers) > 1 else 0
    if own.checkpoint:
        return _begun(settings, dataset.unit_size, singers)
    low, high = spectrogram_range(piece.mel for piece in dataset.pieces)
    given = {"mels": settings.data.mels, "unit_size": dataset.unit_size, "singers": singers}
    with torch.random.fork_rng():
        torch.manual_seed(own.training.seed)
        model = DiffusionSVC(replace(own.network, **given), _edge(own.spec_min, low), _edge(own.spec_max, high))
        if own.begin == "balanced":
            _balance(model)
    return model


@torch.no_grad()
def _balance(model: DiffusionSVC) -> None:
    table = harmonic_table()[:, : model.config.condition_size]
    model.fs2.pitch_embed.weight[:, : table.shape[1]] = table
    model.denoise_fn.input_projection.weight *= 0.3
    if model.unit_projection is not None:
        model.unit_projection.weight *= 4
    if model.speaker_embed is not None:
        model.speaker_embed.weight *= model.config.condition_size**0.5


def harmonic_table() -> Float[Tensor, "rows mels"]:
    """Return the log10 mel of harmonics of one size at the pitch of each row, around 0 with deviation 1."""
    low, high = (1127 * math.log1p(hertz / 700) for hertz in (LOWEST, HIGHEST))
    rows = torch.arange(PITCHES).clamp(1, 255).double()
    hertz = 700 * torch.expm1((low + (rows - 1) * (high - low) / 254) / 1127)
    sizes = torch.full((PITCHES, 5, round(SVC_HERTZ[1] / LOWEST)), 0.01, dtype=torch.float64)
    sound = harmonics(hertz[:, None].expand(-1, 5), sizes, SVC_SAMPLE_RATE, SVC_HOP)
    mel = svc_log_mel(sound)[:, 2].clamp(min=-3)  # the middle one of five frames
    mel = mel - mel.mean(dim=1, keepdim=True)
    return (mel / mel.std()).float()


def _edge(given: tuple[float, ...], found: Tensor) -> Tensor:
    return torch.tensor(given, dtype=torch.float32).expand_as(found) if given else found


def _begun(settings: Settings, unit_size: int, singers: int) -> DiffusionSVC:
    """The model of `checkpoint`, whose range is kept."""
    own, model = settings.diffusion, DiffusionSVC.from_checkpoint(settings.diffusion.checkpoint)
    wanted = {"mels": settings.data.mels, "unit_size": unit_size, "singers": singers}
    there = {name: getattr(model.config, name) for name in wanted}
    if there != wanted:
        wrong = [f"{name} {there[name]}" for name in wanted if there[name] != wanted[name]]
        expected = ", ".join(f"{name} {wanted[name]}" for name in wanted if there[name] != wanted[name])
        advice = "Take the content encoder and as many singers as it was trained with."
        raise CheckpointError(own.checkpoint, ", ".join(wrong), f"{expected}, as the data has", advice)
    for name in ("spec_min", "spec_max"):
        kept = getattr(model, name).flatten()
        if (given := getattr(own, name)) and not torch.allclose(_edge(given, kept), kept, atol=1e-4):
            ends = (model.spec_min.flatten(), model.spec_max.flatten())
            other = (_edge(own.spec_min, ends[0]), _edge(own.spec_max, ends[1]))
            advice = f"Leave {name} out. {compare_ranges(ends, other).sentence}"
            raise CheckpointError(own.checkpoint, f"another {name} is given", "the range of the weights", advice)
    return model


def _check(settings: Settings) -> None:
    """Refuse a checkpoint of other units or singers before the recogniser is trained and songs are prepared."""
    if settings.diffusion.checkpoint:
        own, names = settings.diffusion, set(settings.data.only or svc.SINGERS)
        if settings.data.data:
            names = {source.singer for source in svc.read_sources(settings.data.data, settings.data.only)}
        counted = {
            "recognizer": len(svc.classes(settings.recognizer.target)),
            "kmeans": not own.encoder_path and own.clusters,
        }
        _begun(settings, counted.get(own.encoder) or encoding(settings).width, len(names) if len(names) > 1 else 0)


def step(model: DiffusionSVC, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the training step's loss: the error of the prediction at a random time, over valid elements.

    Times and the seed of each item's noise come from `training.uniform`, so that neither padding nor the other items of
    a batch change an item's noise.
    """
    drawn = training.uniform(len(batch.mel), 2, device="cpu").double()
    t = (drawn[:, 0] * model.config.timesteps).long().to(batch.mel.device)
    noise = noise_of((drawn[:, 1] * 2**53).long(), batch.lengths, model.config.mels).to(batch.mel)
    singers = batch.singers if model.config.singers else None
    condition = model.encode(batch.units, batch.hertz, batch.mel2ph, batch.lengths, singers)
    return model.loss(batch.mel, condition, batch.lengths, t, noise, settings.diffusion.loss), {}


def noise_of(seeds: Numbers, lengths: Numbers, mels: int) -> Float[Tensor, "batch 1 mels frames"]:
    """Return normal noise of each item, which follows from its seed; 0 beyond its length."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
    drawn = [torch.randn(n, mels, generator=g) for n, g in zip(lengths.tolist(), generators, strict=True)]
    return pad_sequence(drawn, batch_first=True).transpose(1, 2)[:, None]


def fitted(settings: Settings, *given: Mapping[str, Any]) -> Settings:
    """Return settings that fit the user's songs; see `systems.fitted_to`."""
    if not settings.data.data:
        return settings
    return fitted_to(
        settings, lambda own: [source.path for source in svc.sources(own.data)[0]], given, highest=SVC_HERTZ[1]
    )


def _recipe(settings: Settings) -> dict[str, Any] | None:
    """Settings and files that a stage's weights follow from; None for a recogniser that no units come from."""
    values, own = recipe(settings), settings.diffusion
    if settings.stage == "recognizer":
        return {"recognizer": values["recognizer"]} if own.encoder == "recognizer" else None
    kept = {name: values[name] for name in ("data", "diffusion", *(["recognizer"] * (own.encoder == "recognizer")))}
    kept["files"] = written([own.encoder_path, own.checkpoint])
    if settings.data.data:
        found = svc.read_sources(settings.data.data, settings.data.only)
        kept["files"] += [list(map(repr, found)), written(source.path for source in found)]
    return kept


@torch.no_grad()
def validation(model: DiffusionSVC, settings: Settings) -> dict[str, float]:
    """Return the loss on held-out pieces, with the same noise each time; for `training.fit`."""
    from accelerate.utils import send_to_device

    held_out = split(settings, progress=False).held_out
    if held_out is None:
        return {}
    batch = send_to_device(held_out.batch(0, 16), device_of(model))
    return {"held-out loss": float(step(model, batch, settings)[0])}


def _save(model: DiffusionSVC, folder: Path, settings: Settings) -> None:
    """Write a model with all that converts to its singers."""
    own, train = settings.diffusion, split(settings, progress=False).train
    if own.encoder == "none":
        return model.save(folder)
    sung = [torch.cat([p.hertz[p.voiced] for p in train.pieces if p.singer == n]) for n in range(len(train.singers))]
    voices = dict(zip(train.singers, map(Voice.of, sung), strict=True))
    how = ("unipc", 10) if own.network.predicts == "x0" else ("plms", 100)
    encoder = encoding(settings, device="cpu", progress=False)
    made = Project(model, encoder, SourceFilterVocoder(), own.encoder_path, voices, *how)
    made.save(folder)


def _sampler(settings: Settings, dataset: SVCDataset) -> LengthBuckets:
    how = settings.diffusion.training
    return LengthBuckets(dataset.lengths, how.batch_size, how.seed)


stages: Mapping[str, Stage] = {
    "recognizer": Stage(
        data, build, recognizer_step, _recipe,
        load=lambda folder, settings, **how: Recognizer.from_checkpoint(folder),
    ),
    "diffusion": Stage(
        data, build, step, _recipe, ("recognizer",),
        load=lambda folder, settings, **how: DiffusionSVC.from_checkpoint(folder), save=_save,
        validate=validation, better={"held-out loss": "lower"}, sampler=_sampler, check=_check,
    ),
}  # fmt: skip
_trained = trained_by(stages, __name__)


def trained(settings: Settings, **how: Any) -> Trained:
    """Return the model of these settings, which its project's name finds from now on; see `trained_by`."""
    result = _trained(settings, **how)
    if settings.project and settings.stage == "diffusion":
        give_name(settings.project, result.folder)
    return result
