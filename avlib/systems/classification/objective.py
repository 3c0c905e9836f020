"""What is made small: the loss of these settings, the weights that it needs, and who comes together in a batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ... import losses, training
from ...datasets.classification import Example
from ...datasets.sampling import WordLabelSampler
from ...errors import ParameterError
from ...features import random_band, valid_mask, word_difficulty
from ...models.classifiers import Features, Output
from .settings import Augment, Loss, Settings

if TYPE_CHECKING:
    from .data import Parts


def loss_weights(parts: Parts, settings: Settings) -> Float[Tensor, "words classes"] | None:
    """What a clip counts in these settings' loss, by word and class, from the training part; None: all alike.

    One row, for all words, where the weight is of the class alone ("class_balanced").

    Raises:
        ParameterError: the loss needs words, and the table has none; "difficulty" with other than two classes, or none
            that is called `normal_label`; or a list for `focal_alpha` that is not of the classes.
    """
    how, train, classes = settings.loss, parts.train, len(parts.labels.names)
    if how.loss == "focal" and isinstance(how.focal_alpha, Sequence) and len(how.focal_alpha) != classes:
        found, expected = f"{len(how.focal_alpha)} numbers", f"one, or one for each of {classes} classes"
        raise ParameterError("focal_alpha", found, expected)
    if how.loss == "class_balanced":
        counts = torch.bincount(train.targets, minlength=classes)
        return losses.class_balanced_weights(counts, how.beta)[None]
    if how.loss not in ("balancing", "difficulty"):
        return None
    if not parts.words:
        raise ParameterError("loss", repr(how.loss), "a table with a column `word`", "Or take another loss.")
    if how.loss == "balancing":
        known = train.word_numbers >= 0
        table = losses.count_table(train.word_numbers[known], train.targets[known], len(parts.words), classes)
        return losses.balancing_weights(table, how.balancing_form, how.laplace, how.cap)
    if classes != 2:
        raise ParameterError("loss", f"'difficulty' of {classes} classes", "two, a normal and an abnormal one")
    if how.normal_label not in parts.labels.names:
        advice = "The others are the abnormal ones, whose weights are the other way round."
        raise ParameterError("normal_label", repr(how.normal_label), f"one of {', '.join(parts.labels.names)}", advice)
    normal = parts.labels.names.index(how.normal_label)
    scores = torch.tensor([word_difficulty(word, how.difficulty_table) for word in parts.words])
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
    """The loss of answers, without what compares clips with each other.

    Args:
        logits: `(B, classes)`; of a regression `(B,)`.
        target: `(B,)`.
        word: `(B,)`, -1 where it is not known: then a clip weighs 1 in a loss with a weight for each word.
        settings: which loss.
        weights: of `loss_weights`.

    Raises:
        ParameterError: the loss needs weights, and there are none.
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
    """How alike embeddings of one word and label are, and how unlike those of one word and another label."""
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
    """SpecAugment: of each spectrogram some columns and mel rows become its mean.

    A mask is of uniform width from 0 to below the given one, where it fits into the clip's own columns, as
    torchaudio's; that masks all clips of a batch alike unless told otherwise, and with 0, which is the mean of a
    spectrogram that was normalised. What is drawn follows from the seed, the step and a clip's place in the batch.

    Args:
        features: of spectrograms, `(B, mels, T)`, without rows of conditions.
        how: widths and numbers of masks.
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
    """All items in each round, round after round: shuffled, or in the order of the table.

    An epoch is the whole batches that hold a round, and begins where the one before ended: whatever the batch size, in
    the end no item was taken more than once more often than another.
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
        """Where to begin."""
        self.epoch = epoch

    def _round(self, number: int) -> Sequence[int]:
        dice = np.random.default_rng([self.seed, number])
        return dice.permutation(self.items).tolist() if self.shuffle else range(self.items)


def sampler_of(parts: Parts, settings: Settings) -> WordLabelSampler | Rounds:
    """Which clips come together in a batch.

    Raises:
        ParameterError, DatasetError: see `WordLabelSampler`.
    """
    how, train = settings.loss, parts.train
    size, seed = min(settings.training.batch_size, len(train)), settings.training.seed
    if not how.contrasts:
        return Rounds(len(train), size, seed, settings.data.shuffle)
    words, labels = train.word_numbers, train.targets  # -1, no word, is one of its own, as in the loss
    of_a_word = how.clips_per_label * len(np.unique(labels))
    there = len(np.unique(words))
    wanted = how.words_per_batch or max(1, min(there, size // of_a_word))
    return WordLabelSampler(words, labels, wanted, how.clips_per_label, seed)
