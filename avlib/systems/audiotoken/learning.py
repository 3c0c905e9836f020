"""The models, the only training steps, and training that is done once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ... import training
from ...datasets.audiotoken import Batch, read_clips, vocabulary
from ...errors import ParameterError
from ...losses import contrastive_loss
from ...models.audiotoken import PLACEHOLDER, AudioTokenEmbedder, load_lora, lora_parameters, save_lora, token_width
from ...models.beats import BEATs
from ...models.text_to_image import TextToImage
from ...models.tiny_diffusion import Judge, PatchPCA, small_text_encoder, small_tokenizer
from .. import Trained, device_of, trained_once, written
from .data import CLASSES, Example, data, held_out, pictures_of
from .model import AudioToken, heard_layers
from .settings import Sampling, Settings, full, tiny

NOISE_STEPS = 1000  # of Stable Diffusion's training

# The models of the stages, untrained


def build(settings: Settings, *, device: Any = None, progress: bool = True) -> nn.Module:
    """The model that the stage of the settings trains; its random weights follow from the seed.

    The stages before are trained, or taken from the cache, where it needs them: "diffusion" the pictures for its
    autoencoder, "embedder" a BEATs and a text-to-image model.
    """
    _require_small(settings)
    with torch.random.fork_rng():
        torch.manual_seed(settings.now.training.seed)
        if settings.stage == "classifier":
            return BEATs(settings.classifier.network)
        if settings.stage == "judge":
            classes = {name: len(values) for name, values in CLASSES.items()}
            return Judge(classes, settings.judge.width, settings.judge.embedding)
    if settings.stage == "diffusion":
        return _painter(settings, progress)
    beats, painter = (
        listener(settings, device=device, progress=progress),
        text_to_image(settings, device=device, progress=progress),
    )
    width = len(heard_layers(beats)) * beats.config.encoder_embed_dim
    with torch.random.fork_rng():
        torch.manual_seed(settings.embedder.training.seed)
        embedder = AudioTokenEmbedder(width, token_width(painter.text_encoder))
        return AudioToken(beats, embedder, painter, settings.embedder.lora_rank, _sampling(settings))


def _require_small(settings: Settings) -> None:
    """Refuse to train what only others could."""
    classes, kinds = settings.classifier.network.predictor_class, len(CLASSES["kind"])
    if settings.stage == "classifier" and classes != kinds:
        found, advice = f"none is given, and a BEATs of {classes} classes is not trained here", "Or take size=tiny."
        raise ParameterError("checkpoint", found, "the file of a published BEATs", advice)
    if settings.stage == "diffusion" and not settings.diffusion.channels:
        expected = "a Stable Diffusion, as a folder in diffusers' layout or a hub id: CompVis/stable-diffusion-v1-4"
        raise ParameterError("folder", "none is given, and no sizes to train one of", expected, "Or take size=tiny.")


def _painter(settings: Settings, progress: bool) -> TextToImage:
    from diffusers import UNet2DConditionModel, UniPCMultistepScheduler

    how, size = settings.diffusion, settings.data.image_size
    pictures = pictures_of(data(settings, progress=progress))
    words = [*vocabulary(), *settings.embedder.prompt.replace(PLACEHOLDER, " ").lower().split()]
    with torch.random.fork_rng():
        torch.manual_seed(how.training.seed)
        tokenizer = small_tokenizer(sorted(set(words)), how.words)
        text_encoder = small_text_encoder(tokenizer, how.text_width, how.text_layers, word_scale=how.word_scale)
        levels = len(how.channels)
        unet = UNet2DConditionModel(
            sample_size=tuple(side // how.patch for side in size),
            in_channels=how.latent_channels, out_channels=how.latent_channels,
            block_out_channels=tuple(how.channels), layers_per_block=how.blocks,
            # To the words in the middle, and at the end, where a thing has its place and lacks its colour.
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=(*("UpBlock2D",) * (levels - 1), "CrossAttnUpBlock2D"),
            cross_attention_dim=how.text_width, attention_head_dim=2, norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text", addition_embed_type_num_heads=4,  # all words together, beside the time
        )  # fmt: skip
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=NOISE_STEPS, prediction_type="sample", beta_schedule=how.beta_schedule, steps_offset=1
    )
    vae = PatchPCA.fitted(pictures, how.latent_channels, how.patch, how.whitening)
    return TextToImage(unet, vae, text_encoder, tokenizer, scheduler)


# The training steps


def classifier_step(model: BEATs, batch: Example, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """The kind of a sound, as one of several: cross-entropy, and the share that is right."""
    kinds = batch.classes[:, 0]
    logits = model.logits(batch.fbank)
    return F.cross_entropy(logits, kinds), {"right": (logits.argmax(dim=1) == kinds).float().mean()}


def judge_step(model: Judge, batch: Example, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """What a picture shows, cross-entropy of each attribute; and which sound of the batch belongs to it."""
    noisy = batch.image + 0.1 * training.uniform(len(batch.image), 1, 1, 1, device=batch.image.device) * _normal(
        batch.image
    )
    logits = model(noisy)
    parts = {name: F.cross_entropy(logits[name], batch.classes[:, index]) for index, name in enumerate(CLASSES)}
    pictures, sounds = model.embed_images(noisy), model.embed_fbank(batch.fbank)
    parts["contrast"], _ = contrastive_loss(sounds, pictures, temperature=0.1, both_directions=True)
    return sum(parts.values()), parts


def diffusion_step(model: TextToImage, batch: Example, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures from their captions: the error of the UNet's prediction at random steps of noise."""
    return denoising_error(model, batch.image, model.encode_prompts(batch.prompt)), {}


def step(model: AudioToken, batch: Example | Batch, settings: Settings = tiny) -> tuple[Tensor, dict[str, Tensor]]:
    """The training step of AudioToken: the published loss, and its parts before they are weighted.

    The error of the UNet's prediction with the sound in the prompt, plus lambda_a mean |token| + lambda_b mean
    |token|^2 (the squared length), plus with `cosine_loss` lambda_c (1 - mean cosine of token and label's word)^2.
    """
    how = settings.embedder
    heard = isinstance(batch, Example)
    tokens = model.token_of(batch.fbank) if heard else model.token(batch.waveform, batch.lengths)  # (B, 768)
    parts = {
        "error": denoising_error(model.painter, batch.image, model.read(how.prompt, tokens), how.lowest),
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
    """Mean squared error of what the UNet predicts of noisy latents: noise, velocity or the latents themselves.

    Which of these is the scheduler's `prediction_type`. Noise and steps come from `training.uniform`, so that a batch
    which several processes share is as noisy as one.

    Args:
        model: the parts of a Stable Diffusion.
        images: `(B, 3, H, W)` in [-1, 1].
        hidden: prompts that were read.
        lowest: the least noisy step, of 1,000.
    """
    scheduler = model.noise_scheduler
    with torch.no_grad():
        latents = model.encode(images)
    drawn = training.uniform(len(latents), device=latents.device)
    steps = scheduler.config.num_train_timesteps
    times = lowest + (drawn * (steps - lowest)).long()
    noise = _normal(latents)
    predicted = model.unet(scheduler.add_noise(latents, noise, times), times, hidden).sample
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        target = scheduler.get_velocity(latents, noise, times)
    else:
        target = {"epsilon": noise, "sample": latents}[kind]
    return F.mse_loss(predicted.float(), target.float())


def label_words(model: TextToImage, labels: list[str]) -> Float[Tensor, "batch values"]:
    """What stands for each label in the text encoder's table: the mean over its sub-words.

    Raises:
        ParameterError: a clip has no label.
    """
    if not all(labels):
        raise ParameterError("cosine_loss", "a clip without a label", "labels of all clips", "Set cosine_loss=false.")
    table = model.text_encoder.get_input_embeddings().weight
    ids = model.tokenizer(list(labels), add_special_tokens=False).input_ids
    return torch.stack([table[torch.tensor(each, device=table.device)].mean(dim=0) for each in ids])


def _normal(like: Tensor) -> Tensor:
    """Normal noise of the shape of a batch, which follows from an item's place in the whole batch; see `uniform`."""
    drawn = training.uniform(len(like), *like.shape[1:], device=like.device)
    return torch.special.ndtri(drawn.clamp(min=2.0**-25)).to(like.dtype)


# Training that is done once


_STEPS: dict[str, Callable] = {
    "classifier": classifier_step, "judge": judge_step, "diffusion": diffusion_step, "embedder": step
}  # fmt: skip


def trained(
    settings: Settings = tiny,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
    live: bool = False,
) -> Trained:
    """The model that these settings give: from the cache if it was ever trained, otherwise trained now.

    Stage "classifier" gives a BEATs, "judge" a Judge, "diffusion" a TextToImage, "embedder" the whole AudioToken.

    The cache knows it by the settings of what it follows from, the source of avlib and the user's files. A training
    that was killed goes on from its last checkpoint; one that is under way in another process is waited for.

    Args:
        settings: what to train. Stage "embedder" begins with what "classifier" and "diffusion" give, or with the
            published models where `classifier.checkpoint` and `diffusion.folder` name them.
        device: None or "auto" takes a GPU if there is one.
        progress: whether bars are shown.
        live: draw the loss while it falls, in a notebook.

    Raises:
        TrainingError, DatasetError, ParameterError, CacheError: see `training.fit`, `AudioTokenDataset`, `done_once`.
        CheckpointError: a given model cannot be read or does not fit.
    """
    how = {"device": device, "progress": progress, "live": live}
    stage = settings.stage
    if stage == "embedder":  # before its own, so that two processes never wait for each other
        listener(settings, **how), text_to_image(settings, **how)
    used = partial(_STEPS[stage], settings=settings)

    def make(progress_folder: Path) -> tuple[nn.Module, training.History]:
        model, dataset = build(settings, device=device, progress=progress), data(settings, progress=progress)
        history = training.fit(
            model, used, dataset, settings.now.training, folder=progress_folder,
            evaluate=partial(validation, settings=settings), **how,
        )  # fmt: skip
        return model, history

    history, folder = trained_once(
        f"audiotoken-{stage}", _recipe(settings), make, _save, settings=settings,
        source=__name__,
    )  # fmt: skip
    return Trained(_load(settings, folder, how), history, folder)


def listener(settings: Settings, **how: Any) -> BEATs:
    """The BEATs of these settings: the given file, or the trained stage "classifier"."""
    if settings.classifier.checkpoint:
        device = training.chosen_device(how.get("device"))
        return BEATs.from_checkpoint(settings.classifier.checkpoint).to(device).eval()
    return trained(replace(settings, stage="classifier"), **how).model


def text_to_image(settings: Settings, **how: Any) -> TextToImage:
    """The text-to-image model of these settings: the given folder, or the trained stage "diffusion"."""
    if settings.diffusion.folder:
        return TextToImage.from_pretrained(settings.diffusion.folder).to(training.chosen_device(how.get("device")))
    return trained(replace(settings, stage="diffusion"), **how).model


def judge(settings: Settings, **how: Any) -> Judge:
    """What looks at the pictures: the trained stage "judge"."""
    return trained(replace(settings, stage="judge"), **how).model


@torch.no_grad()
def validation(model: nn.Module, settings: Settings) -> dict[str, float]:
    """The loss on held-out clips, at most 64 of them; for `training.fit`."""
    dataset = held_out(settings, progress=False)
    kept = range(min(64, len(dataset)))
    batch = dataset.collate([dataset[index] for index in kept])
    device = device_of(model)
    moved = batch._replace(
        **{name: value.to(device) for name, value in batch._asdict().items() if isinstance(value, Tensor)}
    )
    loss, _ = _STEPS[settings.stage](model, moved, settings)
    return {"held-out loss": float(loss)}


def _recipe(settings: Settings) -> dict:
    """What a stage follows from, and no more: another embedder needs no other text-to-image model."""
    stage, own = settings.stage, settings.data
    scenes = {name: getattr(own, name) for name in ("seconds", "clips", "frames", "clips_seed", "held_out")}
    recipe: dict[str, Any] = {"stage": stage, "scenes": scenes, "image_size": list(own.image_size)}
    recipe |= {
        name: getattr(settings, name)
        for name in (("classifier", "diffusion", stage) if stage == "embedder" else (stage,))
    }
    if stage == "diffusion":
        recipe["prompt"] = settings.embedder.prompt
    if stage == "embedder":
        recipe |= {"data": own, "files": _files(settings)}
    return recipe


def _files(settings: Settings) -> list:
    """The user's clips and models and when each was written, so that a changed one is not taken for the old one."""
    own = settings.data
    files = written((settings.classifier.checkpoint, settings.diffusion.folder))
    if not own.data:
        return files
    clips = read_clips(own.data, own.csv)
    paths = [path for clip in clips for path in (clip.path, clip.wav) if path is not None]
    return [*files, list(map(repr, clips)), written(paths), [Path(listed).read_text() for listed in own.exclude]]


def _save(model: nn.Module, path: Path) -> None:
    """Each model in its own format; of an AudioToken what was trained."""
    if isinstance(model, TextToImage):
        model.save_pretrained(path)
    elif isinstance(model, AudioToken):
        path.mkdir()
        model.embedder.save(path / "embedder")
        if lora_parameters(model.painter.unet):
            save_lora(model.painter.unet, path / "lora")
    else:
        model.save(path)


def _load(settings: Settings, folder: Path, how: Mapping[str, Any]) -> nn.Module:
    readers = {
        "classifier": BEATs.from_checkpoint,
        "judge": Judge.from_checkpoint,
        "diffusion": TextToImage.from_pretrained,
    }
    if settings.stage in readers:
        model = readers[settings.stage](folder)
    else:
        beats, painter = listener(settings, **how), text_to_image(settings, **how)
        if (folder / "lora").exists():
            load_lora(painter.unet, folder / "lora")
        embedder = AudioTokenEmbedder.from_checkpoint(folder / "embedder")
        model = AudioToken(beats, embedder, painter, sampling=_sampling(settings))
    return model.to(training.chosen_device(how.get("device"))).eval()


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
    """The whole system for inference: the published models where they are given, else those of the settings.

    Args:
        settings: which models to train, or take from the cache, in the place of those that are not given.
        checkpoint: a file of a BEATs.
        embedder: the published flat file, or a folder that `AudioTokenEmbedder.save` wrote.
        diffusion: a Stable Diffusion, as a folder in diffusers' layout or a hub id, which alone fetches anything.
        lora: a file of LoRA for its UNet, in the format of 2023 or today's.
        device: None or "auto" takes a GPU if there is one.
        progress: whether bars are shown.

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
        model = trained(replace(settings, stage="embedder"), **how).model
        if lora:
            load_lora(model.painter.unet, lora)
        return model
    heard = AudioTokenEmbedder.from_checkpoint(embedder)
    beats, painter = listener(settings, **how), text_to_image(settings, **how)
    if lora:
        load_lora(painter.unet, lora)
    return AudioToken(beats, heard, painter, sampling=_sampling(settings)).to(training.chosen_device(device))


def _sampling(settings: Settings) -> Sampling:
    """As the settings say; but a given Stable Diffusion is not sampled as the tiny model is."""
    given = settings.diffusion.folder and settings.sampling == tiny.sampling
    return full.sampling if given else settings.sampling
