"""The four stages of AudioToken's training: data, models, steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import training
from ...datasets import audiotoken
from ...datasets.audiotoken import CLASSES, MOST_HELD_OUT, AudioTokenDataset, Batch, Clip, read_clips, select
from ...datasets.items import remembered
from ...datasets.sources import number_to_hold_out, split
from ...errors import ParameterError
from ...losses import contrastive_loss
from ...models.audiotoken import PLACEHOLDER, AudioTokenEmbedder, token_width
from ...models.beats import BEATs
from ...models.text_to_image import TextToImage, load_lora, lora_parameters, save_lora
from ...models.tiny_diffusion import ImageClassifier, PatchPCA, small_text_encoder, small_tokenizer
from ...settings import recipe
from .. import Stage, device_of, fitted_to, trained_by, written
from .model import AudioToken, Sampling, require_fit
from .settings import NOISE_STEPS, Settings, full, tiny


def data(settings: Settings, *, progress: bool = True) -> AudioTokenDataset:
    """Return the clips that a stage trains on: scenes, or the user's own."""
    own = settings.data
    if _users(settings):
        return _own(settings, 0, progress, window="random", frame="random")
    return _scenes(settings, own.clips, own.clips_seed, own.frames, "random", progress)


def held_out(settings: Settings, seed: int = 0, *, progress: bool = True) -> AudioTokenDataset:
    """Return clips that no training sees, nothing about them random.

    Another seed gives other scenes. The user's own data has one set of held-out clips: its part "test", or without one
    up to a quarter of the clips, by `clips_seed`. Of one clip alone, that one.
    """
    own = settings.data
    if _users(settings):
        return _own(settings, 1, progress, window="middle", frame="middle")
    return _scenes(settings, own.held_out or MOST_HELD_OUT, audiotoken.HELD_OUT + seed, 1, "middle", progress)


def _users(settings: Settings) -> bool:
    """Return whether a stage trains on the user's own clips."""
    return bool(settings.data.data) and settings.stage == "embedder"


def own_clips(settings: Settings) -> tuple[list[Clip], list[Clip]]:
    """Return the user's clips to train on, and those to measure with."""
    own = settings.data
    table, most = read_clips(own.data, own.csv), own.held_out or MOST_HELD_OUT
    clips = select(table, "train" if any(clip.split for clip in table) else "", own.exclude)
    if any(clip.split == "test" for clip in table):
        return clips, select(table, "test", own.exclude)[:most]
    count = number_to_hold_out(own.held_out, len(clips), most)
    train, held = split(clips, count, own.clips_seed, by=lambda clip: clip.label)
    return train, held or train


def _own(settings: Settings, part: int, progress: bool, **how: str) -> AudioTokenDataset:
    own, clips = settings.data, own_clips(settings)[part]
    options = how | {"seconds": own.seconds, "image_size": tuple(own.image_size), "on_error": own.on_error}
    options["align"] = own.align
    dataset = AudioTokenDataset(clips, **options, **_drawn(settings))
    if own.on_error == "raise":
        return dataset
    key = repr([list(map(repr, clips)), options, written(file for clip in clips for file in _files(clip))])
    return dataset.like(remembered(key, lambda: dataset.usable(progress=progress)))


def _files(clip: Clip) -> list[Path]:
    """Files of a clip, that of its sound first."""
    return [path for path in (clip.wav, clip.path) if path is not None]


def fitted(settings: Settings, *given: Mapping[str, Any]) -> Settings:
    """Return settings that fit the user's clips; see `systems.fitted_to`."""
    if not _users(settings):
        return settings
    return fitted_to(settings, lambda own: [_files(clip)[0] for clip in own_clips(own)[0]], given, "embedder")


def _scenes(settings: Settings, count: int, seed: int, moments: int, window: str, progress: bool) -> AudioTokenDataset:
    clips, size = audiotoken.scene_clips(count, seed, settings.data.seconds), tuple(settings.data.image_size)
    dataset = AudioTokenDataset(
        clips, settings.data.seconds, size, moments=moments, window=window, **_drawn(settings),
        word_dropout=settings.diffusion.word_dropout, caption_dropout=settings.diffusion.caption_dropout,
    )  # fmt: skip
    return dataset.stored("audiotoken", [moments, size, [repr(clip.scene) for clip in clips]], progress=progress)


def _drawn(settings: Settings) -> dict[str, Any]:
    return {"seed": settings.now.training.seed, "prompt": settings.embedder.prompt.replace(PLACEHOLDER, "{}")}


def build(settings: Settings, **how: Any) -> nn.Module:
    """The model that the stage of the settings trains; its random weights follow from the seed.

    The stages before are trained, or taken from the cache, where it needs them: "diffusion" the pictures for its
    autoencoder, "embedder" a BEATs and a text-to-image model.
    """
    _require_trainable(settings)
    with torch.random.fork_rng():
        torch.manual_seed(settings.now.training.seed)
        if settings.stage == "classifier":
            return BEATs(settings.classifier.network)
        if settings.stage == "image_classifier":
            classes = {name: len(values) for name, values in CLASSES.items()}
            return ImageClassifier(classes, settings.image_classifier.width, settings.image_classifier.embedding)
    if settings.stage == "diffusion":
        return _painter(settings, how.get("progress", True))
    beats, painter = trained_beats(settings, **how), text_to_image(settings, **how)
    width = 3 * beats.config.encoder_embed_dim
    with torch.random.fork_rng():
        torch.manual_seed(settings.embedder.training.seed)
        embedder = AudioTokenEmbedder(width, token_width(painter.text_encoder))
        return AudioToken(beats, embedder, painter, settings.embedder.lora_rank, _sampling(settings))


def _painter(settings: Settings, progress: bool) -> TextToImage:
    from diffusers import UNet2DConditionModel, UniPCMultistepScheduler

    how, size = settings.diffusion, settings.data.image_size
    pictures = data(settings, progress=progress).memory["pictures"].flatten(0, 1).float() / 127.5 - 1
    words = [*audiotoken.vocabulary(), *settings.embedder.prompt.replace(PLACEHOLDER, " ").lower().split()]
    with torch.random.fork_rng():
        torch.manual_seed(how.training.seed)
        tokenizer = small_tokenizer(sorted(set(words)), 16)
        # The first word vectors are larger, by which they differ enough to be told apart soon.
        text_encoder = small_text_encoder(tokenizer, how.text_width, how.text_layers, word_scale=5.0)
        levels = len(how.channels)
        unet = UNet2DConditionModel(
            sample_size=tuple(side // how.patch for side in size),
            in_channels=how.latent_channels, out_channels=how.latent_channels,
            block_out_channels=tuple(how.channels), layers_per_block=1,
            # To the words in the middle, and at the end, where a thing has its place and lacks its colour.
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=(*("UpBlock2D",) * (levels - 1), "CrossAttnUpBlock2D"),
            cross_attention_dim=how.text_width, attention_head_dim=2, norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text", addition_embed_type_num_heads=4,  # all words together, beside the time
        )  # fmt: skip
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=NOISE_STEPS, prediction_type="sample", beta_schedule="squaredcos_cap_v2", steps_offset=1
    )
    vae = PatchPCA.fitted(pictures, how.latent_channels, how.patch, whitening=0.5)
    return TextToImage(unet, vae, text_encoder, tokenizer, scheduler)


def classifier_step(model: BEATs, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """The kind of a sound, as one of several: cross-entropy, and the share that is right."""
    kinds = batch.classes[:, 0]
    logits = model.logits(batch.fbank)
    return F.cross_entropy(logits, kinds), {"right": (logits.argmax(dim=1) == kinds).float().mean()}


def image_step(model: ImageClassifier, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of the image classifier: attributes, and the contrast with audio."""
    shape, device = batch.image.shape, batch.image.device
    strength = 0.1 * training.uniform(len(batch.image), 1, 1, 1, device=device)
    noisy = batch.image + strength * training.normal(*shape, device=device)
    logits = model(noisy)
    parts = {name: F.cross_entropy(logits[name], batch.classes[:, index]) for index, name in enumerate(CLASSES)}
    pictures, sounds = model.embed_images(noisy), model.embed_fbank(batch.fbank)
    parts["contrast"], _ = contrastive_loss(sounds, pictures, temperature=0.1, both_directions=True)
    return sum(parts.values()), parts


def diffusion_step(model: TextToImage, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures from their captions: the error of the UNet's prediction at random steps of noise."""
    return denoising_error(model, batch.image, model.encode_prompts(batch.prompt)), {}


def step(model: AudioToken, batch: Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """The training step of AudioToken: the published loss, and its parts before they are weighted.

    The error of the UNet's prediction with the sound in the prompt, plus lambda_a mean |token| + lambda_b mean
    |token|^2 (the squared length), plus with `cosine_loss` lambda_c (1 - mean cosine of token and label's word)^2.
    """
    how = settings.embedder
    tokens = model.token_of(batch.fbank, model.token_mask(batch.waveform.shape[1], batch.lengths))  # (B, 768)
    parts = {
        "error": denoising_error(model.painter, batch.image, model.encode_prompts(how.prompt, tokens), how.lowest),
        "absolute": tokens.abs().mean(),
        "squared": tokens.square().sum(dim=1).mean(),
    }
    loss = parts["error"] + how.lambda_a * parts["absolute"] + how.lambda_b * parts["squared"]
    if how.cosine_loss:
        parts["cosine"] = F.cosine_similarity(tokens, label_words(model.painter, batch.label)).mean()
        loss = loss + how.lambda_c * (1 - parts["cosine"]).square()
    return loss, parts


def denoising_error(
    model: TextToImage,
    images: Float[Tensor, "batch 3 height width"],
    hidden: Float[Tensor, "batch words values"],
    lowest: int = 0,
) -> Float[Tensor, ""]:
    """Return the mean squared error of the UNet's prediction from noisy latents.

    It predicts noise, velocity or the latents, by the scheduler's `prediction_type`. Noise and steps come from
    `training.uniform`.

    Args:
        images: `(B, 3, H, W)` in [-1, 1].
        lowest: the least noisy step, of 1,000.
    """
    scheduler = model.noise_scheduler
    with torch.no_grad():
        latents = model.encode(images)
    drawn = training.uniform(len(latents), device=latents.device)
    steps = scheduler.config.num_train_timesteps
    times = lowest + (drawn * (steps - lowest)).long()
    noise = training.normal(*latents.shape, device=latents.device).to(latents.dtype)
    predicted = model.unet(scheduler.add_noise(latents, noise, times), times, hidden).sample
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        target = scheduler.get_velocity(latents, noise, times)
    else:
        target = {"epsilon": noise, "sample": latents}[kind]
    return F.mse_loss(predicted.float(), target.float())


def label_words(model: TextToImage, labels: list[str]) -> Float[Tensor, "batch values"]:
    """Return each label's word vector, the mean over its sub-words.

    Raises:
        ParameterError: a clip has no label.
    """
    if not all(labels):
        raise ParameterError("cosine_loss", "a clip without a label", "labels of all clips", "Set cosine_loss=false.")
    table = model.text_encoder.get_input_embeddings().weight
    ids = model.tokenizer(list(labels), add_special_tokens=False).input_ids
    return torch.stack([table[torch.tensor(each, device=table.device)].mean(dim=0) for each in ids])


@torch.no_grad()
def validation(model: nn.Module, settings: Settings) -> dict[str, float]:
    """The loss on at most 64 held-out clips; for `training.fit`."""
    from accelerate.utils import send_to_device

    batch = send_to_device(held_out(settings, progress=False).batch(0, 64), device_of(model))
    return {"held-out loss": float(stages[settings.stage].step(model, batch, settings)[0])}


def _recipe(settings: Settings) -> dict[str, Any] | None:
    """Settings and files that a stage's weights follow from; None if it is given."""
    stage, own = settings.stage, settings.data
    if (settings.classifier.checkpoint and stage == "classifier") or (
        settings.diffusion.folder and stage == "diffusion"
    ):
        return None
    values = recipe(settings)
    kept = {name: values[name] for name in (("classifier", "diffusion", stage) if stage == "embedder" else (stage,))}
    kept |= {"stage": stage, "data": recipe(own if _users(settings) else replace(own, data=""))}
    if settings.now.training.chooses:  # by the loss on these
        kept["held_out"] = own.held_out
    if stage == "diffusion":
        kept["prompt"] = settings.embedder.prompt
    if stage == "embedder":
        kept["files"] = written((settings.classifier.checkpoint, settings.diffusion.folder))
    if _users(settings):
        clips = read_clips(own.data, own.csv)
        kept["files"] += written(path for clip in clips for path in _files(clip))
        kept["files"] += [list(map(repr, clips)), [Path(listed).read_text() for listed in own.exclude]]
    return kept


def _save(model: AudioToken, path: Path, settings: Settings) -> None:
    """Write what was trained of an AudioToken."""
    path.mkdir()
    model.embedder.save(path / "embedder")
    if lora_parameters(model.painter.unet):
        save_lora(model.painter.unet, path / "lora")


def _load(folder: Path, settings: Settings, **how: Any) -> AudioToken:
    lora = folder / "lora"
    return _assembled(settings, folder / "embedder", lora if lora.exists() else "", **how)


def _require_trainable(settings: Settings) -> None:
    """Refuse a stage whose model is given, or can only be given."""
    if _recipe(settings) is None:
        raise ParameterError("stage", f"{settings.stage!r}, whose model is given", "a stage that is trained")
    classes = settings.classifier.network.predictor_class
    if settings.stage == "classifier" and classes != len(CLASSES["kind"]):
        found = f"none is given, and a BEATs of {classes} classes is not trained here"
        raise ParameterError("checkpoint", found, "the file of a published BEATs", "Or take size=tiny.")
    if settings.stage == "diffusion" and not settings.diffusion.channels:
        expected = "a Stable Diffusion, as a folder in diffusers' layout or a hub id: CompVis/stable-diffusion-v1-4"
        raise ParameterError("folder", "none is given, and no sizes to train one of", expected, "Or take size=tiny.")


def _check(settings: Settings) -> None:
    """Refuse what cannot be trained before any clip is made; read a given model before the other one is trained."""
    _require_trainable(settings)
    if settings.stage == "embedder" and bool(settings.classifier.checkpoint) != bool(settings.diffusion.folder):
        _given(settings)


def _given(settings: Settings) -> tuple[BEATs | None, TextToImage | None]:
    """The models that are given, or None."""
    own, painter = settings.classifier.checkpoint, settings.diffusion.folder
    beats = BEATs.from_checkpoint(own) if own else None
    return beats, TextToImage.from_pretrained(painter) if painter else None


def _stage(step: Callable, load: Callable, save: Callable | None = None, after: tuple[str, ...] = ()) -> Stage:
    better = {"held-out loss": "lower"}
    how = {"validate": validation, "better": better, "check": _check}
    return Stage(data, build, step, _recipe, after, load, save, **how)


stages: Mapping[str, Stage] = {
    "classifier": _stage(classifier_step, lambda folder, settings, **how: BEATs.from_checkpoint(folder)),
    "image_classifier": _stage(image_step, lambda folder, settings, **how: ImageClassifier.from_checkpoint(folder)),
    "diffusion": _stage(
        diffusion_step,
        lambda folder, settings, **how: TextToImage.from_pretrained(folder),
        lambda model, folder, settings: model.save_pretrained(folder),
    ),
    "embedder": _stage(step, _load, _save, ("classifier", "diffusion")),
}
trained = trained_by(stages, __name__)


def trained_beats(settings: Settings, given: BEATs | None = None, **how: Any) -> BEATs:
    """The BEATs of these settings: the given one, that of the file, or the trained stage "classifier"."""
    if given or settings.classifier.checkpoint:
        found = given or BEATs.from_checkpoint(settings.classifier.checkpoint)
        return found.to(training.chosen_device(how.get("device"))).eval()
    return trained(replace(settings, stage="classifier"), **how).model


def text_to_image(settings: Settings, given: TextToImage | None = None, **how: Any) -> TextToImage:
    """The text-to-image model of these settings: the given one, that of the folder, or the stage "diffusion"."""
    if given or settings.diffusion.folder:
        found = given or TextToImage.from_pretrained(settings.diffusion.folder)
        return found.to(training.chosen_device(how.get("device")))
    return trained(replace(settings, stage="diffusion"), **how).model


def image_classifier(settings: Settings, **how: Any) -> ImageClassifier:
    """Return the trained image classifier."""
    return trained(replace(settings, stage="image_classifier"), **how).model


def assembled(
    settings: Settings = tiny,
    checkpoint: Path | str = "",
    embedder: Path | str = "",
    diffusion: Path | str = "",
    lora: Path | str = "",
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> AudioToken:
    """Assemble the system for inference, with published models where they are given.

    Args:
        settings: of the models that are not given, which are trained or taken from the cache.
        embedder: the published flat file, or a folder that `AudioTokenEmbedder.save` wrote.
        diffusion: a Stable Diffusion, as a folder in diffusers' layout or a hub id, which alone fetches anything.
        lora: a file of LoRA for its UNet, in the format of 2023 or today's.

    Raises:
        ParameterError: a BEATs or Stable Diffusion is given without the embedder that was trained for both.
        CheckpointError: a file cannot be read, a folder lacks a part, or the parts do not fit each other.
    """
    how = {"device": device, "progress": progress}
    given = {"classifier": ("checkpoint", checkpoint), "diffusion": ("folder", diffusion)}
    for stage, (name, path) in given.items():
        if path:
            settings = replace(settings, **{stage: replace(getattr(settings, stage), **{name: str(path)})})
    if not embedder:
        if checkpoint or diffusion:
            advice = 'Give its file; or train one: trained(changed(settings, {"checkpoint": ..., "folder": ...})).'
            raise ParameterError("embedder", "none is given", "the one that was trained for these models", advice)
        if lora:  # refused before the embedder is trained
            load_lora(text_to_image(settings, **how).unet, lora)
        model = trained(replace(settings, stage="embedder"), **how).model
        if lora:
            load_lora(model.painter.unet, lora)
        return model
    return _assembled(settings, embedder, lora, **how).to(training.chosen_device(device))


def _assembled(settings: Settings, embedder: Path | str, lora: Path | str, **how: Any) -> AudioToken:
    read, (beats, painter) = AudioTokenEmbedder.from_checkpoint(embedder), _given(settings)
    words = token_width(painter.text_encoder) if painter else settings.diffusion.text_width
    require_fit(read, beats.config if beats else settings.classifier.network, words)  # before anything is trained
    painter = text_to_image(settings, painter, **how)
    if lora:
        load_lora(painter.unet, lora)
    return AudioToken(trained_beats(settings, beats, **how), read, painter, sampling=_sampling(settings))


def _sampling(settings: Settings) -> Sampling:
    """As the settings say; but a given Stable Diffusion is not sampled as the tiny model is."""
    given = settings.diffusion.folder and settings.sampling == tiny.sampling
    return full.sampling if given else settings.sampling
