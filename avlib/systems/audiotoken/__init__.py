"""AudioToken: settings, data, training, and figures on held-out scenes beside chance.

settings = changed(tiny, {"embedder.steps": 300})
model, history, folder = trained(settings)                    # a BEATs, a text-to-image model, and then the embedder
tokens = model.token(waveform)                                # (B, samples) -> (B, width)
model.pictures("a photo of <*>", tokens)                      # (B, 3, H, W) in [0, 1]
evaluate(model, settings)["kind right, from audio"]
assembled(checkpoint="BEATs.pt", embedder="embedder.bin", diffusion="stable-diffusion-v1-4/")     # the published ones
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import metrics, training
from ...datasets.audiotoken import CLASSES, AudioTokenDataset, Batch, extract_audio, read_clips
from ...features import beats_fbank
from ...models.beats import BEATs
from ...models.text_to_image import TextToImage
from ...models.tiny_diffusion import ImageClassifier
from ...workers import POLICIES
from .. import Figure, Report, Trained, changed, device_of
from .model import AudioToken, feature_layers, windows
from .settings import Settings, full, tiny
from .stages import assembled, build, data, denoising_error, fitted, held_out, image_classifier, stages, step, trained

TITLE = "AudioToken"
ROW = 2
HELP = "stage=classifier, image_classifier, diffusion or embedder"
COMMANDS = {"extract_audio": "write the sound of videos to wav files, as AudioToken trains on them"}

_AT_ONCE = 64  # pictures


def evaluate(
    model: nn.Module,
    settings: Settings,
    seed: int = 0,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> dict[str, Figure]:
    """Return all figures of a trained model, by name.

    - a BEATs: the fraction of right kinds;
    - an ImageClassifier: the fractions of right kinds, sizes and colours of true images; recall of images from audio;
    - a TextToImage: the fractions of right kinds, sizes and colours that are predicted from images of captions;
    - an AudioToken: the same for images from audio, and from the audio of other scenes; AIS and IIS (see
      `avlib.metrics`), by the image classifier's embeddings.

    With the user's own clips, which the image classifier does not know, the loss alone, with each clip's own audio and
    with another's; of one clip alone, with silence.

    Args:
        device: for the image classifier, if it is not trained yet.
    """
    dataset = held_out(settings, seed, progress=progress)
    if not dataset.moments:  # the user's clips
        return _losses(model, settings, dataset)
    batch = dataset.batch()
    if isinstance(model, BEATs):
        logits = _in_parts(model.logits, model, batch.fbank)
        return _shares("audio", {"kind": metrics.correct(logits, batch.classes[:, 0])}, batch)
    classifier = model if isinstance(model, ImageClassifier) else None
    classifier = classifier or image_classifier(settings, device=device, progress=progress)

    def right(what: str, images: Tensor) -> dict[str, Figure]:
        return _shares(what, correct_attributes(classifier, images, batch), batch)

    truth = right("true image", batch.image)
    if isinstance(model, ImageClassifier):
        audio = _in_parts(model.embed_fbank, model, batch.fbank)
        hits = metrics.retrieval(audio, _in_parts(model.embed_images, model, batch.image)).of_images.hits(10)
        return truth | {"R@10 audio -> image": Figure.of_share(hits, min(1.0, 10 / len(hits)), "chance")}
    figures = dict(list(truth.items())[:1])  # the kind
    painter = model if isinstance(model, TextToImage) else model.painter
    hidden = _in_parts(painter.encode_prompts, painter, batch.prompt)
    figures |= right("from captions", generate(painter, hidden, settings))
    if isinstance(model, TextToImage):
        return figures
    hidden = encode_prompts(model, batch.waveform, settings)
    drawn = generate(model.painter, hidden, settings)
    figures |= right("from audio", drawn) | _similarities(classifier, drawn, batch)
    other = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(seed))
    return figures | right("from other audio", generate(model.painter, hidden[other], settings))


def assess(
    model: nn.Module, settings: Settings, *, device: torch.device | str | None = None, progress: bool = True
) -> Report:
    """Return the report of the command line; see `evaluate`."""
    figures = evaluate(model, settings, device=device, progress=progress)
    own = settings.data.data and settings.stage == "embedder"
    return Report(figures, held_out(settings, progress=progress).counts("held out") if own else "")


def encode_prompts(
    model: AudioToken, waveform: Float[Tensor, "clips samples"], settings: Settings
) -> Float[Tensor, "clips words values"]:
    """Encode the prompt of the settings with each sound in it."""
    return _in_parts(lambda part: model.encode_prompts(settings.embedder.prompt, model.token(part)), model, waveform)


def generate(
    model: TextToImage, hidden: Float[Tensor, "clips words values"], settings: Settings
) -> Float[Tensor, "clips 3 height width"]:
    """Generate pictures in [-1, 1] of encoded prompts, clip number n from noise number n.

    From one noise for all, a figure would say as much about that noise as about the model.
    """
    how, first, parts = settings.sampling, 0, []
    for part in hidden.split(_AT_ONCE):
        seeds = range(first, first + len(part))
        drawn = model.generate(part.to(model.unet.device), seeds, how.inference_steps, how.guidance)
        parts.append(drawn.float().cpu())
        first += len(part)
    return torch.cat(parts) * 2 - 1


def correct_attributes(
    model: ImageClassifier, images: Float[Tensor, "clips 3 height width"], batch: Batch
) -> dict[str, Float[Tensor, " clips"]]:
    """Return 1 for each attribute that is predicted right from an image, else 0."""
    logits = _in_parts(lambda part: torch.cat(list(model(part).values()), dim=1), model, images)
    split = logits.split([len(values) for values in CLASSES.values()], dim=1)
    return {
        name: metrics.correct(each, batch.classes[:, index])
        for index, (name, each) in enumerate(zip(CLASSES, split, strict=True))
    }


def _similarities(model: ImageClassifier, images: Tensor, batch: Batch) -> dict[str, Figure]:
    """AIS and IIS: cosines of audio and of true images with the images that were generated."""

    def encode(pixels: Tensor) -> Tensor:
        return _in_parts(model.embed_images, model, pixels * 2 - 1)

    drawn, true = (((each + 1) / 2).clamp(0, 1) for each in (images, batch.image))
    audio = _in_parts(model.embed_fbank, model, batch.fbank)
    found = {
        "AIS": metrics.audio_image_similarity(audio, encode(drawn)),
        "IIS": metrics.image_image_similarity(drawn, true, encode),
    }
    return {name: Figure(each.mean, each.baseline, "of wrong pairs") for name, each in found.items()}


def _shares(what: str, hits: dict[str, Tensor], batch: Batch) -> dict[str, Figure]:
    """Beside each share that of always saying what is commonest; of kinds, that is chance."""
    figures = {}
    for name, right in hits.items():
        often = float(batch.classes[:, list(CLASSES).index(name)].bincount().max()) / len(right)
        figures[f"{name} right, {what}"] = Figure.of_share(right, often, "always the commonest")
    return figures


@torch.no_grad()
def _losses(model: AudioToken, settings: Settings, dataset: AudioTokenDataset) -> dict[str, Figure]:
    """The error on held-out clips with their own sounds, and with others."""
    from accelerate.utils import send_to_device

    how = settings.embedder.training
    count, most = len(dataset), max(1, how.batch_size // how.accumulate)  # as many at a time as training has
    errors = [0.0, 0.0]
    for first in range(0, count, most):
        indices = range(first, min(first + most, count))
        own, others = (dataset.collate([dataset[(i + shift) % count] for i in indices]) for shift in (0, 1))
        if count == 1:
            silence = torch.zeros_like(own.waveform)
            others = own._replace(waveform=silence, fbank=beats_fbank(silence))
        for shift, sounds in enumerate((own, others)):
            batch = own._replace(waveform=sounds.waveform, lengths=sounds.lengths, fbank=sounds.fbank)
            with torch.random.fork_rng(), training.evaluating(model):
                torch.manual_seed(first)  # the same noise for both
                loss = step(model, send_to_device(batch, device_of(model)), settings)[1]["error"]
                errors[shift] += len(indices) / count * float(loss)
    return {"error": Figure(*errors, "with the audio of another clip" if count > 1 else "with silence")}


@torch.no_grad()
def _in_parts(task: Callable, model: nn.Module, rows: Tensor | list) -> Tensor:
    """Apply a task to all rows, some at a time, on the model's device."""
    device = device_of(model)
    parts = (rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE))
    with training.evaluating(model):
        return torch.cat([task(part.to(device) if isinstance(part, Tensor) else part).float().cpu() for part in parts])


def extract_audio_command(arguments: list[str]) -> int:
    """Run `avlib extract_audio`."""
    parser = argparse.ArgumentParser("avlib extract_audio", description="Write the sound of videos to disk, once.")
    parser.add_argument("--data", required=True, metavar="PATH", help="a folder of videos, or a table that lists them")
    parser.add_argument("--out", required=True, metavar="DIR", help="`audio` beside the folder `video`, as published")
    parser.add_argument("--channel", type=int, help="of the sound; without it all are averaged")
    parser.add_argument("--unaligned", dest="align", action="store_false", help="sound begins with its first sample")
    parser.add_argument("--jobs", type=int, help="processes at a time")
    parser.add_argument("--on-error", choices=POLICIES, default="raise", help="what to do with unusable clips")
    options = vars(parser.parse_args(arguments))
    print(extract_audio(read_clips(options.pop("data")), options.pop("out"), **options).report)
    return 0
