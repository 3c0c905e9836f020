"""The model, the only training step, and training that is done once."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ... import metrics, training
from ...datasets.classification import ClassificationDataset, Example, statistics
from ...errors import CacheError
from ...models.classifiers import BACKBONES, AudioClassifier
from .. import Trained, device_of, is_first, trained_once
from .data import Parts, files, network, parts, say
from .objective import augmented, contrast_of, loss_of, loss_weights, sampler_of
from .predicting import NOT_TOLD, predictions, told
from .saving import read_card, save_classifier
from .settings import Settings, tiny

_SHARED = ("datasets/sampling", "metrics", "models/beats", "models/classifiers")
_OWN = ("objective", "predicting", "saving")
_DEBUG_STEPS = 2
_CLIPS = 256  # whose spectrograms say what the rows of all are like


# For the figures of `validation`, whether lower or higher is better.
BETTER = {
    "classification": {"valid loss": "lower", "valid accuracy": "higher", "valid UAR": "higher"},
    "regression": {"valid loss": "lower", "valid MAE": "lower", "valid CCC": "higher"},
}


def build(settings: Settings, own: Parts | None = None, *, progress: bool = True) -> AudioClassifier:
    """The model of these settings and data, untrained; its random weights follow from the seed.

    Args:
        settings: which.
        own: the data, of which the model takes the number of classes, words and ages, and the length of clips; None
            makes it now.
        progress: whether bars are shown.

    Raises:
        ParameterError: settings that do not go together.
        CheckpointError: published weights that cannot be read or do not fit.
    """
    own = parts(settings, progress=progress) if own is None else own
    wanted = settings.model
    takes = BACKBONES[wanted.backbone].takes
    if wanted.data_type not in ("", takes):
        warnings.warn(f"data_type={wanted.data_type} is not heeded: {wanted.backbone} takes a {takes}", stacklevel=2)
    with torch.random.fork_rng():
        torch.manual_seed(settings.training.seed)
        model = AudioClassifier(**network(settings, own.labels, own.words, own.conditions, own.seconds))
    if wanted.weights:
        model.load_backbone(wanted.weights)
    if model.settings.standardize:
        model.standardize(_some(own.train))
    return model


def _some(dataset: ClassificationDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Clips from all over a data set, as many as statistics of their spectrograms need."""
    indices = range(0, len(dataset), -(-len(dataset) // _CLIPS))
    for first in range(0, len(indices), 16):
        batch = dataset.collate([dataset[index] for index in indices[first : first + 16]])
        if len(batch.length):
            yield batch.waveform, batch.length


def step(
    model: AudioClassifier,
    batch: Example,
    settings: Settings = tiny,
    weights: Float[Tensor, "words classes"] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The training step: the loss of these settings, and its parts.

    Args:
        model: in training mode SpecAugment acts, if it is on.
        batch: of `ClassificationDataset.collate`.
        settings: which loss, and what is masked.
        weights: of `loss_weights`, where the loss needs them.
    """
    features = model.features(batch.waveform, batch.length)
    if model.training and settings.augment.on:
        features = augmented(features, settings.augment)
    output = model.read(features, **told(model, batch))
    loss = loss_of(output.logits, batch.target, batch.word, settings, weights)
    if settings.task == "regression":
        return loss, {}
    noted = {"right": (output.logits.argmax(dim=1) == batch.target).float().mean()}
    if not settings.loss.contrasts:
        return loss, noted
    contrast, share = contrast_of(output, batch, settings.loss), settings.loss.contrastive_weight
    return (1 - share) * loss + share * contrast, {"cross entropy": loss, "contrast": contrast, **noted}


def plan(settings: Settings, own: Parts) -> training.Settings:
    """How to train, in steps: from epochs, the warm-up's share and how many clips there are."""
    how, sampler = settings.training, sampler_of(own, settings)
    size, per_epoch = sampler.batch_size, len(sampler) // sampler.batch_size
    steps = min(how.steps, settings.epochs * per_epoch or how.steps)
    if settings.debug:
        steps = min(steps, _DEBUG_STEPS)
    ratio = settings.warmup_ratio
    warmup = min(how.warmup, steps) if ratio is None else round(ratio * steps)
    return replace(how, steps=steps, batch_size=size, warmup=warmup, evaluate_every=how.evaluate_every or per_epoch)


def trained(
    settings: Settings = tiny, *, device: torch.device | str | None = None, progress: bool = True, live: bool = False
) -> Trained:
    """The model that these settings give: from the cache if it was ever trained, otherwise trained now.

    The cache knows it by the settings, the source of avlib and the user's files. A training that was killed goes on
    from its last checkpoint; one that is under way in another process is waited for.

    Args:
        settings: what to train; with `test`, which saved model to read.
        device: None or "auto" takes a GPU if there is one.
        progress: whether bars are shown, and what is decided is said.
        live: draw the loss while it falls, in a notebook.

    Raises:
        TrainingError, DatasetError, ParameterError, CacheError: see `training.fit`, `parts` and `done_once`. A device
            that is not there is refused first.
        CheckpointError: weights that cannot be read or do not fit; with `test` a model of other labels, settings or
            clips.
    """
    device = training.chosen_device(device)
    if settings.test:
        return _saved(settings, device, progress)
    if settings.checkpoint:
        _make_free(Path(settings.checkpoint))
    own = parts(settings, progress=progress, check=lambda own: (sampler_of(own, settings), loss_weights(own, settings)))
    for text in _beginning(settings, own):
        say(text, progress)

    def make(progress_folder: Path) -> tuple[AudioClassifier, training.History]:
        model, weights = build(settings, own), loss_weights(own, settings)
        if settings.debug:
            say(shapes(model, own, settings), progress)
        watched = partial(validation, own=own, settings=settings, weights=weights) if own.valid else None
        history = training.fit(
            model, partial(step, settings=settings, weights=weights), own.train, plan(settings, own),
            folder=progress_folder, evaluate=watched, device=device, progress=progress, live=live,
            sampler=sampler_of(own, settings), better=BETTER[settings.task] if own.valid else None,
        )  # fmt: skip
        return model, history

    history, folder = trained_once(
        "classification", _recipe(settings), make, partial(save, own=own, settings=settings), settings=settings,
        source=__name__,
    )  # fmt: skip
    if settings.checkpoint and is_first():
        shutil.copytree(folder, settings.checkpoint, dirs_exist_ok=True)
    return Trained(AudioClassifier.from_checkpoint(folder).to(device).eval(), history, folder)


def save(model: AudioClassifier, folder: Path, own: Parts, settings: Settings) -> None:
    """Write a model with all that is needed to know what it says; see `save_classifier`."""
    with training.evaluating(model):
        device = device_of(model)
        found = statistics(own.train, lambda waveform, lengths: model.features(waveform.to(device), lengths))
    save_classifier(
        folder, model, own.labels, seconds=own.seconds, crop=settings.data.crop, words=own.words,
        ages=settings.data.ages, target=settings.data.target or "label", statistics=found, splits=own.splits,
        settings=settings,
    )  # fmt: skip


def validation(
    model: AudioClassifier, own: Parts, settings: Settings, weights: Float[Tensor, "words classes"] | None = None
) -> dict[str, float]:
    """Figures of the whole validation part, for `training.fit`: the loss without contrast, and others."""
    said = predictions(model, own.valid, batch_size=settings.training.batch_size)
    logits = said.logits[:, 0] if settings.task == "regression" else said.logits
    word = torch.tensor([own.words.index(each) if each in own.words else NOT_TOLD for each in said.words])
    found = {"valid loss": float(loss_of(logits, said.targets, word, settings, weights))}
    if settings.task == "regression":
        figures = metrics.regression_figures(logits, said.targets)
        return found | {f"valid {name}": figures[name] for name in ("MAE", "CCC")}
    found["valid accuracy"] = float((said.predicted == said.targets).float().mean())
    return found | {"valid UAR": metrics.balanced_accuracy(said.predicted, said.targets)}


# What is said, and what is refused


def shapes(model: AudioClassifier, own: Parts, settings: Settings) -> str:
    """The shapes of a batch on its way through the model, a line for each."""
    size = min(len(own.train), plan(settings, own).batch_size)
    batch = own.train.collate([own.train[index] for index in range(size)])
    with torch.no_grad(), training.evaluating(model):
        features = model.features(batch.waveform, batch.length)
        output = model.read(features, **told(model, batch))
    tensors = {
        "waveform (clips, samples)": batch.waveform,
        "features": features.values,
        "frames (clips, frames, width)": output.frames,
        "embedding (clips, width)": output.embedding,
        "logits": output.logits,
        "target (clips)": batch.target,
    }
    return "\n".join(f"  {name:<30} {tuple(tensor.shape)}" for name, tensor in tensors.items())


def _beginning(settings: Settings, own: Parts) -> list[str]:
    """What a user should know before a training begins."""
    how, model = plan(settings, own), settings.model
    count = [len(part) if part else 0 for part in (own.train, own.valid, own.test)]
    lines = [
        f"{count[0]} clips to train on, {count[1]} to validate, {count[2]} to test; "
        f"{how.steps} steps of {how.batch_size}, {how.warmup} of them warm-up.",
        own.note,
    ]
    if not model.weights:
        lines.append(f"The weights of {model.backbone}{', small,' if model.small else ''} are random to begin with.")
    if settings.data.k_fold:
        lines.append(f"Fold {settings.data.fold} of {settings.data.k_fold} validates; valid_size is not used.")
    if not settings.data.shuffle:
        lines.append("Clips come in the order of the table: models often learn badly so.")
    if settings.data.on_error == "skip":
        lines += [part.report() for part in (own.train, own.valid, own.test) if part and part.skipped()]
    return lines


def _recipe(settings: Settings) -> list:
    """All that the weights follow from."""
    return [asdict(replace(settings, checkpoint="")), files(settings)]


def _make_free(folder: Path) -> None:
    """Make the folder of a model that is not trained yet; refuse to write over what is there."""
    expected = "an empty or a new folder for the trained model"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        advice = "With test=true the model in it is evaluated; give another name to train one."
        raise CacheError(folder, "holds files already", expected, advice)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(folder, error.strerror or "cannot be made", expected) from error
    if not os.access(folder, os.W_OK):
        raise CacheError(folder, "cannot be written", expected)


def _saved(settings: Settings, device: torch.device, progress: bool) -> Trained:
    """The model in `checkpoint`, if it is one of these settings and data."""
    folder = Path(settings.checkpoint)
    card, own = read_card(folder), parts(settings, progress=progress)
    card.require_labels(own.labels, folder)
    card.require_settings(settings, folder)
    card.require_splits(own.splits, folder)
    model = AudioClassifier.from_checkpoint(folder).to(device).eval()
    noted = folder / "history.json"
    rows = json.loads(noted.read_text()) if noted.exists() else []
    return Trained(model, training.History(rows), folder)
