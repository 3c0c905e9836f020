"""Loss, SpecAugment and training step; training through the shared loop and cache."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ... import losses, metrics, training
from ...datasets.classification import UNKNOWN, ClassificationDataset, Example, statistics
from ...datasets.sampling import WordLabelSampler
from ...errors import CacheError, ParameterError
from ...features import valid_mask, word_difficulty
from ...features.augmentation import random_band
from ...models.classifiers import BACKBONES, AudioClassifier, Features, Output
from ...settings import recipe
from .. import Stage, Trained, device_of, is_first, trained_by, written
from .data import Card, Parts, parts
from .predicting import conditions_of, predict
from .settings import Augment, Loss, Settings, tiny

_DEBUG_STEPS = 2
_CLIPS = 256  # of which the mel rows are measured, to standardize them
BETTER = {  # whether lower or higher figures of `validation` are better
    "classification": {"valid loss": "lower", "valid accuracy": "higher", "valid UAR": "higher"},
    "regression": {"valid loss": "lower", "valid MAE": "lower", "valid CCC": "higher"},
}


def build(settings: Settings, own: Parts | None = None, *, progress: bool = True) -> AudioClassifier:
    """Build the untrained model; its random weights follow from the seed."""
    own = parts(settings, progress=progress) if own is None else own
    backbone = settings.model.backbone
    takes = BACKBONES[backbone].takes
    if settings.data_type not in ("", takes):
        warnings.warn(f"data_type={settings.data_type} is ignored: {backbone} takes a {takes}", stacklevel=2)
    with torch.random.fork_rng():
        torch.manual_seed(settings.training.seed)
        model = AudioClassifier(**asdict(own.config))
    if settings.weights:
        model.load_backbone(settings.weights)
    if model.settings.standardize:
        model.standardize(_some(own.train))
    return model


def _some(dataset: ClassificationDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of clips from all over a data set."""
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
    """Compute the loss of a batch, and its parts.

    SpecAugment acts on a model in training mode, if it is on. `weights` are those of `loss_weights`.
    """
    features = model.features(batch.waveform, batch.length)
    if model.training and settings.augment.on:
        features = augmented(features, settings.augment)
    output = model.read(features, **conditions_of(model, batch))
    loss = loss_of(output.logits, batch.target, batch.word, settings, weights)
    if settings.task == "regression":
        return loss, {}
    noted = {"right": (output.logits.argmax(dim=1) == batch.target).float().mean()}
    if not settings.loss.contrasts:
        return loss, noted
    contrast, share = contrast_of(output, batch, settings.loss), settings.loss.contrastive_weight
    return (1 - share) * loss + share * contrast, {"cross entropy": loss, "contrast": contrast, **noted}


def loss_weights(own: Parts, settings: Settings) -> Float[Tensor, "words classes"] | None:
    """Return weights of clips in the loss by word and class, or None.

    One row, for all words, where the weight is of the class alone ("class_balanced"). Refuse a loss that does not fit
    the table.
    """
    how, train, classes = settings.loss, own.train, len(own.labels.names)
    if how.loss == "focal" and isinstance(how.focal_alpha, Sequence) and len(how.focal_alpha) != classes:
        found, expected = f"{len(how.focal_alpha)} numbers", f"one, or one for each of {classes} classes"
        raise ParameterError("focal_alpha", found, expected)
    if how.loss == "class_balanced":
        counts = torch.bincount(train.targets, minlength=classes)
        return losses.class_balanced_weights(counts, how.beta)[None]
    if how.loss not in ("balancing", "difficulty"):
        return None
    if not own.words:
        raise ParameterError("loss", repr(how.loss), "a table with a column `word`", "Or take another loss.")
    if how.loss == "balancing":
        known = train.word_numbers >= 0
        table = losses.count_table(train.word_numbers[known], train.targets[known], len(own.words), classes)
        return losses.balancing_weights(table, how.balancing_form, how.laplace, how.cap)
    if classes != 2:
        raise ParameterError("loss", f"'difficulty' of {classes} classes", "two, a normal and an abnormal one")
    if how.normal_label not in own.labels.names:
        advice = "The other class is the abnormal one, whose weights are the other way round."
        raise ParameterError("normal_label", repr(how.normal_label), f"one of {', '.join(own.labels.names)}", advice)
    normal = own.labels.names.index(how.normal_label)
    scores = torch.tensor([word_difficulty(word, how.difficulty_table) for word in own.words])
    columns = [
        losses.difficulty_weights(scores, torch.full((len(scores),), int(label != normal)), how.difficulty_strength)
        for label in range(classes)
    ]
    return torch.stack(columns, dim=1)


def loss_of(
    logits: Float[Tensor, "batch ..."],
    target: Tensor,
    word: Int[Tensor, " batch"],
    settings: Settings,
    weights: Float[Tensor, "words classes"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the loss of logits, `(B, classes)` or `(B,)`, without contrastive losses.

    A clip without a word, -1, has weight 1 in a loss with a weight for each word.
    """
    how = settings.loss
    if settings.task == "regression":
        return F.mse_loss(logits, target.to(logits))
    if how.loss in ("class_balanced", "balancing", "difficulty") and weights is None:
        raise ParameterError("weights", "none are given", f"those of loss_weights, for {how.loss!r}")
    if how.loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(target, logits.shape[1]).to(logits))
    if how.loss == "focal":
        return losses.focal_loss(logits, target, how.focal_gamma, how.focal_alpha, how.focal_form)
    if how.loss == "class_balanced":
        return losses.class_balanced_loss(logits, target, weights[0].to(logits), how.cb_form, how.cb_gamma)
    items = None
    if weights is not None:
        items = weights.to(logits.device)[word.clamp(min=0), target].where(word >= 0, 1.0)
    return losses.cross_entropy_loss(logits, target, items, how.label_smoothing)


def contrast_of(output: Output, batch: Example, how: Loss) -> Float[Tensor, ""]:
    """Compute the contrastive loss of embeddings, among clips of one word."""
    words = batch.word  # all -1 where there are none: then all are compared
    if how.loss == "contrastive":
        return losses.supervised_contrastive_loss(output.embedding, batch.target, how.temperature, words)
    noise = training.uniform(len(words), len(words), device=words.device)
    partners = losses.draw_partners(batch.target, words, noise)
    same, other = output.embedding[partners.same], output.embedding[partners.other]
    return losses.pair_contrastive_loss(
        output.embedding, same, other, how.margin, partners.has_same, partners.has_other
    )


def augmented(features: Features, how: Augment) -> Features:
    """Apply SpecAugment: some columns and mel rows of each spectrogram become its mean.

    A mask has a uniform width from 0 to below the given one, where it fits into the clip's own columns. torchaudio by
    default masks all clips of a batch alike, and with 0. Rows of conditions are not yet there.
    """
    values, lengths = features
    count, rows, columns = values.shape
    valid = valid_mask(lengths, columns)[:, None]  # (B, 1, T)
    mean = (values * valid).sum(dim=(1, 2), keepdim=True) / (valid.sum(dim=(1, 2), keepdim=True) * rows)
    for axis, width, masks, sizes in (
        (1, how.freq_mask, how.freq_masks, torch.full_like(lengths, rows)),
        (2, how.time_mask, how.time_masks, lengths),
    ):
        for _ in range(masks if width else 0):
            drawn = training.uniform(count, 2, device=values.device)
            band = random_band(drawn, int(width), sizes, values.shape[axis]).unsqueeze(3 - axis)
            values = torch.where(band, mean.to(values), values)
    return Features(values, lengths)


class Rounds:
    """Sampler of all items, round after round, shuffled or in order.

    An epoch is the whole batches that hold a round, and begins where the one before ended: with any batch size no item
    is taken more than once more often than another.
    """

    def __init__(self, items: int, batch_size: int, seed: int, shuffle: bool):
        self.items, self.batch_size, self.seed, self.shuffle, self.epoch = items, batch_size, seed, shuffle, 0

    def __len__(self) -> int:
        return -(-self.items // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        begun, taken = divmod(self.epoch * len(self), self.items)
        rounds = itertools.chain.from_iterable(map(self._round, itertools.count(begun)))
        return itertools.islice(rounds, taken, taken + len(self))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def _round(self, number: int) -> Sequence[int]:
        rng = np.random.default_rng([self.seed, number])
        return rng.permutation(self.items).tolist() if self.shuffle else range(self.items)


def sampler_of(own: Parts, settings: Settings) -> WordLabelSampler | Rounds:
    """Build the sampler of the training part."""
    how, train = settings.loss, own.train
    size, seed = min(settings.training.batch_size, len(train)), settings.training.seed
    if not how.contrasts:
        return Rounds(len(train), size, seed, settings.data.shuffle)
    words, labels = train.word_numbers, train.targets  # -1, no word, is a group of its own, as in the loss
    of_a_word = how.clips_per_label * len(np.unique(labels))
    wanted = how.words_per_batch or max(1, min(len(np.unique(words)), size // of_a_word))
    return WordLabelSampler(words, labels, wanted, how.clips_per_label, seed)


def plan(settings: Settings, own: Parts, sampler: WordLabelSampler | Rounds | None = None) -> training.Settings:
    """Return the loop's settings in steps, from epochs and the warm-up's share."""
    how, sampler = settings.training, sampler_of(own, settings) if sampler is None else sampler
    size, per_epoch = sampler.batch_size, len(sampler) // sampler.batch_size
    steps = min(how.steps, settings.epochs * per_epoch) if settings.epochs else how.steps
    if settings.debug:
        steps = min(steps, _DEBUG_STEPS)
    ratio = settings.warmup_ratio
    warmup = min(how.warmup, steps) if ratio is None else round(ratio * steps)
    return replace(how, steps=steps, batch_size=size, warmup=warmup, evaluate_every=how.evaluate_every or per_epoch)


def trained(
    settings: Settings = tiny, *, device: torch.device | str | None = None, progress: bool = True, live: bool = False
) -> Trained:
    """Train once, or return the model from the cache or `checkpoint`.

    See `systems.trained_by`. With `checkpoint` the result is copied there. With `progress` decisions are printed too.
    """
    device = training.chosen_device(device)
    if settings.test:
        return _saved(settings, device, progress)
    if settings.checkpoint:
        _make_free(Path(settings.checkpoint))
    own = parts(settings, progress=progress, check=lambda own: (sampler_of(own, settings), loss_weights(own, settings)))
    sampler, weights = sampler_of(own, settings), loss_weights(own, settings)
    how = plan(settings, own, sampler)

    def say(text: str) -> None:
        if progress and text:
            print(text, file=sys.stderr)

    def started(settings: Settings, **_) -> AudioClassifier:
        model = build(settings, own)
        if settings.debug:
            say(shapes(model, own, how.batch_size))
        return model

    say("\n".join(_summary(settings, own, how)))
    stage = Stage(
        data=lambda settings, progress: own.train,
        build=started,
        step=partial(step, weights=weights),
        recipe=partial(_recipe, own=own),
        load=lambda folder, settings, **_: AudioClassifier.from_checkpoint(folder),
        save=partial(save, own=own),
        plan=lambda settings: how,
        validate=partial(validation, own=own, weights=weights) if own.valid else None,
        better=BETTER[settings.task] if own.valid else None,
        sampler=lambda settings, dataset: sampler,
    )
    result = trained_by({"classification": stage}, __name__)(settings, device=device, progress=progress, live=live)
    if settings.checkpoint and is_first():
        shutil.copytree(result.folder, settings.checkpoint, dirs_exist_ok=True)
    return result


def save(model: AudioClassifier, folder: Path, settings: Settings, own: Parts) -> None:
    """Write a model and its card."""
    with training.evaluating(model):
        device = device_of(model)
        found = statistics(own.train, lambda waveform, lengths: model.features(waveform.to(device), lengths))
    card = Card(
        own.labels.names, own.labels.task, own.seconds, settings.data.crop, own.words, settings.data.ages,
        settings.data.target or "label", found._asdict(), own.splits.hashes, asdict(settings),
    )  # fmt: skip
    card.save(model, folder)


def validation(
    model: AudioClassifier, own: Parts, settings: Settings, weights: Float[Tensor, "words classes"] | None = None
) -> dict[str, float]:
    """Compute figures of the whole validation part: the loss without contrastive losses, and others."""
    found = predict(model, own.valid, batch_size=settings.training.batch_size)
    logits = found.logits[:, 0] if settings.task == "regression" else found.logits
    word = torch.tensor([own.words.index(each) if each in own.words else UNKNOWN for each in found.words])
    figures = {"valid loss": float(loss_of(logits, found.targets, word, settings, weights))}
    if settings.task == "regression":
        others = metrics.regression_figures(logits, found.targets)
        return figures | {f"valid {name}": others[name] for name in ("MAE", "CCC")}
    figures["valid accuracy"] = float((found.predicted == found.targets).float().mean())
    return figures | {"valid UAR": metrics.balanced_accuracy(found.predicted, found.targets)}


def shapes(model: AudioClassifier, own: Parts, batch_size: int) -> str:
    """Describe the shapes of a batch on its way through the model."""
    batch = own.train.collate([own.train[index] for index in range(min(len(own.train), batch_size))])
    with torch.no_grad(), training.evaluating(model):
        features = model.features(batch.waveform, batch.length)
        output = model.read(features, **conditions_of(model, batch))
    tensors = {
        "waveform (clips, samples)": batch.waveform,
        "features": features.values,
        "frames (clips, frames, width)": output.frames,
        "embedding (clips, width)": output.embedding,
        "logits": output.logits,
        "target (clips)": batch.target,
    }
    return "\n".join(f"  {name:<30} {tuple(tensor.shape)}" for name, tensor in tensors.items())


def _summary(settings: Settings, own: Parts, how: training.Settings) -> list[str]:
    """Lines on the training that is about to begin."""
    made, model = (own.train, own.valid, own.test), settings.model
    count = [len(part) if part else 0 for part in made]
    lines = [
        f"{count[0]} clips to train on, {count[1]} to validate, {count[2]} to test; "
        f"{how.steps} steps of {how.batch_size}, {how.warmup} of them warm-up.",
        own.note,
    ]
    if not settings.weights:
        lines.append(f"The weights of {model.backbone}{', small,' if model.small else ''} are random at first.")
    if settings.data.k_fold:
        lines.append(f"Fold {settings.data.fold} of {settings.data.k_fold} validates; valid_size is not used.")
    if not settings.data.shuffle:
        lines.append("Clips come in the order of the table: models often learn badly so.")
    return lines + [part.report() for part in made[1:] if part and part.skipped()]


def _recipe(settings: Settings, own: Parts) -> list:
    files = written([settings.weights])
    if settings.data.data or settings.data.train_file:
        clips = list(map(repr, own.recordings))
        files = [files, own.splits.hashes, clips, written(recording.path for recording in own.recordings)]
    return [recipe(settings), files]


def _make_free(folder: Path) -> None:
    """Make the folder of a model that is not trained yet; refuse one with files."""
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
    card, own = Card.read(folder), parts(settings, progress=progress)
    card.require(folder, own.labels, settings, own.splits)
    model = AudioClassifier.from_checkpoint(folder).to(device).eval()
    noted = folder / "history.json"
    return Trained(model, training.History(json.loads(noted.read_text()) if noted.exists() else []), folder)
