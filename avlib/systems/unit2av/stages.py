"""The stages of units to speech: a recogniser whose hidden frames are units, and the vocoders that speak them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checkpoints, media, training
from ...clips.heads import CLASSES, WORDS, Talk, talks
from ...datasets.items import each_usable
from ...datasets.sampling import LengthBuckets
from ...datasets.unit2av import dataset as speech
from ...datasets.unit2av.dataset import Batch, Split, UnitDataset, is_manifest, sound_files
from ...datasets.unit2av.faces import FaceBatch, FaceDataset, face_files
from ...datasets.unit2av.manifests import read_manifest
from ...datasets.voices import UNKNOWN, Voices
from ...errors import ParameterError
from ...extract import speakers
from ...extract.discrete import UnitExtractor, fit_units
from ...extract.units import ContentEncoder, content_encoder, recognizer_encoder
from ...features import SAMPLE_RATE, vocoder_log_mel
from ...models import vocoder_discriminators as gan
from ...models.face_renderer import FaceRenderer
from ...models.lip_sync import LipSync
from ...models.recognizer import Config as RecognizerConfig
from ...models.recognizer import Recognizer
from ...models.unit_source import UnitSource
from ...models.unit_speech import UnitVocoderOutput
from ...models.unit_vocoder import UnitVocoder
from ...once import done_once, written
from ...settings import recipe
from ...training.recognition import recognizer_step
from .. import Stage, device_of, fitted_to, trained_by
from .faces import build_face, face_data, face_recipe, face_step, sync_step
from .settings import Settings, tiny

FACES = ("sync", "face")  # stages of pictures

# Units, speakers, data


def encoder(settings: Settings, **how: Any) -> ContentEncoder:
    """Return the encoder whose frames are clustered; "recognizer" trains the first stage if needed."""
    own = settings.recognizer
    if own.encoder == "recognizer":
        model = trained(replace(settings, stage="recognizer"), **how).model.cpu()
        return recognizer_encoder(model, hidden=True)
    return content_encoder(own.encoder, own.encoder_path or None, layer=own.encoder_layer or None)


def extractor(settings: Settings, **how: Any) -> UnitExtractor:
    """Return what makes units of sound, from the cache or clustered now on the sound that is trained on."""
    frames, own = encoder(settings, **how), settings.recognizer
    files = sound_files(settings.data.data) if settings.data.data else []

    def made(_: Any) -> UnitExtractor:
        if files:
            read = partial(media.read_audio, sample_rate=SAMPLE_RATE)
            found = each_usable(read, files, settings.data.on_error, 1, how.get("progress", True))
            sounds = ((sound, SAMPLE_RATE) for sound in found if isinstance(sound, Tensor))
        else:
            sounds = ((speech.sound_of(talk), SAMPLE_RATE) for talk in speech.talks(settings.data))
        return fit_units(frames, sounds, own.clusters)

    def save(done: UnitExtractor, folder: Path) -> None:
        checkpoints.save(folder, {"centroids": done.centroids}, {})

    given = [own.clusters, frames.recipe, recipe(settings)["data"] if not files else written(files)]
    path = done_once("arrays", "unit2av-units", given, made, save, source=__name__)
    return UnitExtractor(frames, checkpoints.read(path).tensors["centroids"], own.encoder_path)


def embedder(settings: Settings) -> Callable[[Float[Tensor, " samples"]], Float[Tensor, " values"]]:
    """Return what makes the speaker vector of a waveform at 16 kHz."""
    return speakers.embedder(settings.vocoder.speaker)[0]


def split(settings: Settings, **how: Any) -> Split:
    """Return the recordings to train on and the held-out ones; units of a manifest are taken as they are."""
    made = None if is_manifest(settings.data.data) else extractor(settings, **how)
    vocabulary = settings.vocoder.network.num_embeddings if made is None else made.vocabulary
    embed, name = speakers.embedder(settings.vocoder.speaker)
    given = [made and made.recipe, name, written([settings.vocoder.speaker])]
    seed, progress = settings.now.training.seed, how.get("progress", True)
    return speech.split_speech(settings.data, vocabulary, made, embed, seed, given=given, progress=progress)


def data(settings: Settings, *, progress: bool = True) -> Voices | UnitDataset | FaceDataset:
    """Return what the stage of the settings trains on."""
    if settings.stage == "recognizer":
        return voices(settings)
    if settings.stage not in FACES:
        return split(settings, progress=progress).train
    if settings.stage == "face" and settings.face.sync_weight:
        _expert(settings, progress=progress)  # trained now, and not within a training
    return face_data(settings, extractor(settings, progress=progress), progress=progress)


def voices(settings: Settings) -> Voices:
    """Return the labelled sound of the recogniser's stage; see `RecognizerStage.words`."""
    own = settings.recognizer
    words = speech.KNOWN_WORDS if own.words == "known" else tuple(WORDS)
    first, built_in = 1000 * own.seed, own.target == "speakers"
    speakers = range(settings.data.speakers) if built_in else range(first, first + own.voices)
    found = talks(own.talks, words, speakers, 1, seed=own.seed)
    labels = [labels_of(talk, own.target, classes(settings)) for talk in found]
    return speech.labelled(found, labels, own.window, own.training.seed)


def classes(settings: Settings) -> tuple[str, ...]:
    """Return what the recogniser's stage tells apart."""
    named = {"phones": CLASSES, "words": tuple(WORDS)}
    return named.get(settings.recognizer.target) or tuple(f"s{n}" for n in range(settings.data.speakers))


def labels_of(talk: Talk, target: str, names: Sequence[str]) -> Tensor:
    """Return the phone of each unit, or its word or speaker, by their place in `names`; `UNKNOWN` between words."""
    truth = talk.truth
    if target == "phones":
        return torch.from_numpy(truth.units)
    times, labels = (torch.arange(len(truth.units)) + 0.5) * 0.02, torch.full((len(truth.units),), UNKNOWN)
    for word, start, end in zip(truth.words, truth.word_starts, truth.word_ends, strict=True):
        labels[(times >= start) & (times < end)] = names.index(word if target == "words" else truth.speaker)
    return labels


# Models


def build(settings: Settings, **how: Any) -> nn.Module:
    """Return the untrained model of the stage; its random weights follow from the seed.

    That of "adversarial" has a child for each network, "generator" and "discriminators".
    """
    own = settings.now
    if settings.stage in FACES:
        return build_face(settings, extractor(settings, **how).vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(own.training.seed)
        if settings.stage == "recognizer":
            if own.encoder != "recognizer":
                raise ParameterError("encoder", f"{own.encoder!r}", '"recognizer", whose frames it makes')
            return Recognizer(RecognizerConfig(classes(settings), width=own.width, layers=own.layers))
        if settings.stage == "pitch":
            return UnitSource(replace(own.network, num_embeddings=_vocabulary(settings, **how)))
        if settings.stage == "adversarial" and own.begin == "vocoder":
            folder = trained(replace(settings, stage="vocoder"), **how).folder
            generator = UnitVocoder.from_checkpoint(folder, weight_norm=True)
        elif settings.vocoder.checkpoint:
            generator = _begun(settings, _vocabulary(settings, **how))
        else:
            generator = UnitVocoder(replace(settings.vocoder.network, num_embeddings=_vocabulary(settings, **how)))
        generator.train()
        if settings.stage == "vocoder":
            return generator
        widths = [tuple(own.scale_channels)] * bool(own.scale_channels)
        judges = {"msd": gan.MultiScale(own.scales, *widths), "mpd": gan.MultiPeriod(own.periods, own.period_channels)}
        return nn.ModuleDict({"generator": generator, "discriminators": nn.ModuleDict(judges)})


def _vocabulary(settings: Settings, **how: Any) -> int:
    if is_manifest(settings.data.data):
        return settings.vocoder.network.num_embeddings
    return extractor(settings, **how).vocabulary


def _begun(settings: Settings, vocabulary: int) -> UnitVocoder:
    """The generator of `checkpoint`, whose units must be those of the data."""
    own = settings.vocoder
    model = UnitVocoder.from_checkpoint(own.checkpoint, own.language, weight_norm=True)
    if model.config.num_embeddings != vocabulary:
        found = f"{model.config.num_embeddings} units in {own.checkpoint}"
        raise ParameterError("checkpoint", found, f"{vocabulary}, those of the data", "Set network.num_embeddings.")
    return model


# The training steps


def vocoder_step(model: UnitVocoder, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mel loss plus the duration loss, and both.

    The duration loss is a mean over runs of units, of which items have different numbers: where a batch is shared out
    over parts or processes, it is that of each, weighted by items, which differs a little from that of the whole batch.
    """
    return _reconstruction(model(batch.units, batch.speaker), batch, settings)


def _reconstruction(out: UnitVocoderOutput, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    mel = gan.mel_loss(batch.waveform[:, None], out.waveform)
    if out.duration_loss is None:  # without a predictor
        return mel, {"mel": mel}
    loss = mel + settings.vocoder.duration_weight * out.duration_loss
    return loss, {"mel": mel, "duration": out.duration_loss}


def discriminator_step(model: nn.Module, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the discriminators' loss on real and generated waveforms."""
    with torch.no_grad():
        fake = model["generator"](batch.units, batch.speaker).waveform
    losses = [gan.discriminator_loss(*judge(batch.waveform[:, None], fake)[:2]) for judge in _judges(model)]
    return sum(losses), {}


def generator_step(model: nn.Module, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the adversarial, feature, mel and duration losses, and each of them."""
    out = model["generator"](batch.units, batch.speaker)
    loss, parts = _reconstruction(out, batch, settings)
    seen = [judge(batch.waveform[:, None], out.waveform) for judge in _judges(model)]
    adversarial = sum(gan.adversarial_loss(scores) for _, scores, _, _ in seen)
    feature = sum(gan.feature_loss(maps_real, maps_fake) for _, _, maps_real, maps_fake in seen)
    return loss + adversarial + feature, parts | {"adversarial": adversarial, "feature": feature}


def _judges(model: nn.Module) -> list[nn.Module]:
    return list(model["discriminators"].values())


def pitch_step(model: UnitSource, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the losses of mel, two spectrograms, pitch and durations, of a waveform of the true pitch."""
    noise = training.normal(*batch.waveform.shape, device=batch.waveform.device)
    waveform, hertz = model.synthesize(batch.units, batch.speaker, batch.hertz, noise)
    made = waveform.squeeze(1)
    mel = F.l1_loss(vocoder_log_mel(made), vocoder_log_mel(batch.waveform))
    spectra = sum(F.l1_loss(_log_spectrum(made, n), _log_spectrum(batch.waveform, n)) for n in (256, 1024))
    off = ((hertz / batch.hertz).log().abs() * batch.voiced).sum() / batch.voiced.sum().clamp(min=1)
    duration = model.duration_loss(batch.units) if model.dur_predictor else waveform.new_zeros(())
    loss = mel + 0.5 * spectra + settings.pitch.pitch_weight * off + 0.1 * duration
    return loss, {"mel": mel, "spectra": spectra, "pitch": off, "duration": duration}


def _log_spectrum(waveform: Tensor, size: int) -> Tensor:
    window = torch.hann_window(size, device=waveform.device)
    return torch.stft(waveform, size, size // 4, window=window, return_complex=True).abs().clamp(min=1e-3).log()


def _face_step(model: FaceRenderer, batch: FaceBatch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    expert = _expert(settings).to(batch.units.device) if settings.face.sync_weight else None
    return face_step(model, batch, settings, expert)


_EXPERTS: dict[str, LipSync] = {}  # the last one


def _expert(settings: Settings, **how: Any) -> LipSync:
    """Return the trained lip-sync expert, frozen."""
    settings = replace(settings, stage="sync")
    if (key := repr(settings)) not in _EXPERTS:
        _EXPERTS.clear()
        _EXPERTS[key] = trained(settings, **how).model.requires_grad_(False)
    return _EXPERTS[key]


# Stages


@torch.no_grad()
def validation(model: nn.Module, settings: Settings) -> dict[str, float]:
    """Return mel L1 (not times 45) and duration loss on segments of held-out recordings; for `training.fit`."""
    model = model["generator"] if isinstance(model, nn.ModuleDict) else model
    held_out, rows = split(settings, progress=False).held_out, []
    for first in range(0, len(held_out), _AT_ONCE):
        batch = Batch(*(tensor.to(device_of(model)) for tensor in held_out.batch(first, _AT_ONCE)))
        made = vocoder_log_mel(model(batch.units, batch.speaker).waveform[:, 0])
        losses = [F.l1_loss(made, vocoder_log_mel(batch.waveform))]
        losses += [model.duration_loss(batch.units)] * bool(model.dur_predictor)
        rows.append(torch.stack([*losses, losses[0].new_ones(())]) * len(batch.units))
    sums = torch.stack(rows).sum(0)
    return dict(zip(("mel L1", "duration loss"), (sums[:-1] / sums[-1]).tolist(), strict=False))


_AT_ONCE = 16


def fitted(settings: Settings, *given: Mapping[str, Any]) -> Settings:
    """Return settings that fit the user's recordings or videos; see `systems.fitted_to`."""
    own, listed = (settings.face, face_files) if settings.stage in FACES else (settings.data, sound_files)
    return fitted_to(settings, lambda _: listed(own.data), given) if own.data else settings


def _recipe(settings: Settings) -> dict[str, Any] | None:
    """Settings and files that a stage's weights follow from; None for a recogniser that no units come from."""
    values, own = recipe(settings), settings.recognizer
    needs_units = not is_manifest(settings.data.data)
    if settings.stage == "recognizer":
        if own.encoder != "recognizer" or not needs_units:
            return None
        kept = {name: value for name, value in values["recognizer"].items() if name != "clusters"}
        return {"recognizer": kept} | ({"speakers": settings.data.speakers} if own.target == "speakers" else {})
    if settings.stage in FACES:
        files = written(sound_files(settings.data.data)) if settings.data.data else []
        return {"recognizer": values["recognizer"], "sound": files} | face_recipe(settings)
    kept = {name: values[name] for name in ("data", "vocoder", *(["recognizer"] * needs_units))}
    kept |= {"speaker": speakers.embedder(settings.vocoder.speaker)[1]}
    if settings.stage == "pitch":
        kept["vocoder"] = values["vocoder"]["speaker"]
    if settings.stage != "vocoder":
        kept[settings.stage] = values[settings.stage]
    given = [settings.vocoder.checkpoint, own.encoder_path, settings.data.data, settings.data.validation]
    kept["files"] = written([each for each in given if each and Path(each).is_file()])
    if settings.data.data:
        kept["files"] += written(sound_files(settings.data.data))
        pairs = read_manifest(settings.data.data) if is_manifest(settings.data.data) else []
        kept["files"] += written(pair.unit_path for pair in pairs if pair.unit_path)
    return kept


def _save(model: nn.Module, folder: Path, settings: Settings) -> None:
    """Write a vocoder, and beside it what makes its units, and the name of what makes its speaker vectors."""
    (model["generator"] if isinstance(model, nn.ModuleDict) else model).save(folder)
    (folder / "speaker.json").write_text(json.dumps({"speaker": speakers.embedder(settings.vocoder.speaker)[1]}))
    if not is_manifest(settings.data.data):
        extractor(settings, progress=False).save(folder / "units")


def _stage(step: Any, after: tuple[str, ...], network: type, **options: Any) -> Stage:
    def load(folder: Any, settings: Settings, **how: Any) -> nn.Module:
        return network.from_checkpoint(folder)

    return Stage(data, build, step, _recipe, after, load=load, **options)


def _sampler(settings: Settings, dataset: UnitDataset) -> LengthBuckets | None:
    how = settings.now.training
    return LengthBuckets([1] * len(dataset), how.batch_size, how.seed) if len(dataset) < how.batch_size else None


def _check(settings: Settings) -> None:
    """Refuse a checkpoint of other units before these are made."""
    if settings.vocoder.checkpoint and settings.stage != "pitch":
        given = is_manifest(settings.data.data)
        _begun(settings, settings.vocoder.network.num_embeddings if given else settings.recognizer.clusters)


_VOCODER = {"check": _check, "save": _save, "sampler": _sampler, "validate": validation}
_VOCODER |= {"better": {"mel L1": "lower", "duration loss": "lower"}}
stages: Mapping[str, Stage] = {
    "recognizer": _stage(recognizer_step, (), Recognizer),
    "vocoder": _stage(vocoder_step, ("recognizer",), UnitVocoder, **_VOCODER),
    "adversarial": _stage(
        {"discriminators": discriminator_step, "generator": generator_step}, ("recognizer",), UnitVocoder, **_VOCODER,
    ),
    "pitch": _stage(pitch_step, ("recognizer",), UnitSource, **_VOCODER),
    "sync": _stage(sync_step, ("recognizer",), LipSync),
    "face": _stage(_face_step, ("recognizer",), FaceRenderer),
}  # fmt: skip
trained = trained_by(stages, __name__)
