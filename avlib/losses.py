"""Training objectives, and how much each item of a batch counts in them.

All are computed in float32, or float64 if their input is that. A weight says how much an item counts: means are over
the items of a batch, not over the sum of their weights, so that a weight keeps its meaning in a batch of one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from .errors import ParameterError, check_choice

Vectors = Float[Tensor, "batch width"]
Patches = Float[Tensor, "batch patches values"]
Logits = Float[Tensor, "batch classes"]
Numbers = Int[Tensor, " batch"]  # of labels or words
Flags = Bool[Tensor, " batch"]
Loss = Float[Tensor, ""]

FOCAL_FORMS = ("softmax", "sigmoid")
CLASS_BALANCED_FORMS = ("softmax", "sigmoid", "focal")
BALANCING_FORMS = ("balanced", "inverse")
_EASIEST, _HARDEST = 2, 11  # the scores between which weights go from one end to the other, as in the notes' README
_TINY = 1e-30  # a power below 1 has no slope at 0, where a model is wholly sure: the gradient would be NaN


def normalize_patches(patches: Patches) -> Patches:
    """Subtract each patch's mean and divide by its unbiased standard deviation, as published."""
    mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6) ** 0.5


def masked_patch_error(prediction: Patches, target: Patches, removed: Float[Tensor, "batch patches"]) -> Loss:
    """Mean squared error over removed (1) patches; CAV-MAE's `forward_mae_loss`, equation 7."""
    error = (prediction - target).square().mean(dim=-1)  # (batch, patches)
    return (error * removed).sum() / removed.sum()


def contrastive_loss(
    audio: Vectors, image: Vectors, *, temperature: float = 0.05, both_directions: bool = False, gather: bool = True
) -> tuple[Loss, Loss]:
    """InfoNCE on cosines: each picture picks its own sound.

    For picture j, loss = -log(exp(s_jj / t) / sum_i exp(s_ij / t)), s_ij the cosine between sound i and picture j, t
    the temperature, 0.05 as published. Source: CAV-MAE, `forward_contrastive`.

    Args:
        both_directions: average with the loss of sounds that pick pictures. The published trainings do not.
        gather: over all processes of `torch.distributed`, which must call with batches of one size: loss and (averaged)
            gradients are those of one process with the whole batch. False is the published form.

    Returns:
        The loss, and the share of pictures whose own sound is the most similar (averaged over directions).

    Raises:
        ParameterError: a batch of one, which has no negatives.
    """
    audio, image = _unit(audio), _unit(image)
    if gather:
        audio, image = _gathered(audio), _gathered(image)
    if len(audio) < 2:
        expected = "two or more, since contrast compares clips"
        raise ParameterError("batch", "a single clip", expected, "Or set contrast_weight=0.")
    with torch.autocast(audio.device.type, enabled=False):  # bfloat16 would round s / t, which reaches 20, to 0.06
        similarity = audio @ image.T / temperature  # (clips, clips): a row for each sound, a column for each picture
    own = torch.arange(len(audio), device=audio.device)
    ways = [similarity.T, similarity] if both_directions else [similarity.T]
    losses = [F.cross_entropy(way, own) for way in ways]
    hits = [(way.argmax(dim=1) == own).to(audio.dtype).mean() for way in ways]
    return torch.stack(losses).mean(), torch.stack(hits).mean()


def supervised_contrastive_loss(
    embeddings: Vectors, labels: Numbers, temperature: float | int = 0.07, words: Numbers | None = None, *,
    gather: bool = True,
) -> Loss:  # fmt: skip
    """Contrast each item with the batch; its label's items are positives.

    For item i, with s the cosines over the temperature, P the other items of its label, A all other items:
    -1 / |P| sum over p of log(exp(s_ip) / sum over a of exp(s_ia)); the mean over items that have a P, or 0.
    Khosla et al., arXiv:2004.11362, equation 2 (L_out), which sums over items; temperature 0.07 as in its code. With
    `words`, P and A are limited to the item's word; batches for it: `avlib.datasets.sampling`.
    """
    if not temperature > 0:
        raise ParameterError("temperature", f"{temperature}", "more than 0")
    embeddings = _unit(embeddings)
    if gather:
        embeddings, labels = _gathered(embeddings), _gathered(labels)
        words = None if words is None else _gathered(words)
    with torch.autocast(embeddings.device.type, enabled=False):  # bfloat16 would round s, which reaches 14, to 0.06
        similarity = embeddings @ embeddings.T / temperature  # (batch, batch)
    rivals = _comparable(words, labels)
    positives = rivals & _equal(labels)
    count = positives.sum(dim=1)
    anchors = count > 0
    # Rows without positives stay unmasked: the slope of log(sum of nothing), times 0, is NaN.
    total = similarity.masked_fill(~rivals & anchors[:, None], -torch.inf).logsumexp(dim=1, keepdim=True)
    summed = (similarity - total).where(positives, 0.0).sum(dim=1)
    return -(summed / count.clamp(min=1)).sum() / anchors.sum().clamp(min=1)


class Partners(NamedTuple):
    """Partners of each item with the same and another label.

    `same` has its word and label, `other` its word and another label: indices `(batch,)`. Without such a partner, it is
    the item's own and `has_...` is False.
    """

    same: Numbers
    other: Numbers
    has_same: Flags
    has_other: Flags


def draw_partners(
    labels: Numbers, words: Numbers | None = None, noise: Float[Tensor, "batch batch"] | None = None
) -> Partners:
    """Draw partners of each item with the same and another label.

    Without `words`, all items may be compared. The highest `noise` in an item's row wins; it is uniform, by default
    drawn here, in training by `training.uniform(batch, batch)`, so that it follows from the seed and the step.
    """
    count = len(labels)
    noise = (torch.rand(count, count) if noise is None else noise).to(labels.device)
    comparable, alike = _comparable(words, labels), _equal(labels)
    own = torch.arange(count, device=labels.device)
    drawn = []
    for allowed in (comparable & alike, comparable & ~alike):
        found = allowed.any(dim=1)
        drawn.append((noise.masked_fill(~allowed, -1).argmax(dim=1).where(found, own), found))
    (same, has_same), (other, has_other) = drawn
    return Partners(same, other, has_same, has_other)


def pair_contrastive_loss(
    anchor: Vectors, positive: Vectors, negative: Vectors, margin: float | int = 0.0,
    has_positive: Flags | None = None, has_negative: Flags | None = None,
) -> Loss:  # fmt: skip
    """1 - cosine to a positive + cosine to a negative above a margin.

    Each is a mean over the items that have that partner (None: all), or 0. Gradients reach the partners too:
    `anchor[partners.same]` and `anchor[partners.other]` of `draw_partners`.
    """
    if not -1 <= margin < 1:
        raise ParameterError("margin", f"{margin}", "-1 or more, and less than 1, as cosines are")
    anchor, positive, negative = (_unit(vectors) for vectors in (anchor, positive, negative))
    apart = 1 - (anchor * positive).sum(dim=-1)
    close = ((anchor * negative).sum(dim=-1) - margin).clamp(min=0)
    return _mean(apart, has_positive) + _mean(close, has_negative)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    return values.mean() if valid is None else (values * valid).sum() / valid.sum().clamp(min=1)


def _equal(numbers: Tensor) -> Bool[Tensor, "batch batch"]:
    return numbers[:, None] == numbers


def _comparable(words: Tensor | None, labels: Tensor) -> Bool[Tensor, "batch batch"]:
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return others if words is None else others & _equal(words)


def _gathered(rows: Tensor) -> Tensor:
    return _GatherRows.apply(rows) if dist.is_available() and dist.is_initialized() else rows


class _GatherRows(torch.autograd.Function):
    """Rows of all processes, in order of rank. PyTorch's own gather with gradients is deprecated."""

    @staticmethod
    def forward(ctx, rows):
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def cross_entropy_loss(
    logits: Logits, target: Tensor, weights: Tensor | None = None, label_smoothing: float | int = 0.0
) -> Loss:
    """Cross entropy times the weight of each item.

    `F.cross_entropy` with class weights divides by their sum over the batch; this divides by the number of items.

    Args:
        target: `(batch,)`, class indices.
        weights: `(batch,)`, such as `class_balanced_weights(counts)[target]`.
        label_smoothing: this share of the target is spread over all classes.
    """
    losses = F.cross_entropy(*_checked(logits, target), reduction="none", label_smoothing=label_smoothing)
    if weights is None:
        return losses.mean()
    if weights.shape != losses.shape:
        raise ParameterError("weights", f"{tuple(weights.shape)}", f"{tuple(losses.shape)}, one for each item")
    return (losses * weights.to(losses)).mean()


def focal_loss(
    logits: Logits, target: Tensor, gamma: float | int = 2.0,
    alpha: float | int | Sequence[float | int] | Tensor | None = None, form: str = "softmax",
) -> Loss:  # fmt: skip
    """Cross entropy that counts confidently correct items less.

    With "softmax", (1 - p_y)^gamma times -log p_y. With "sigmoid", the sum over classes, each a question of its own,
    of -a (1 - pt)^gamma log pt, where pt is the probability of the right answer: Lin et al., "Focal Loss for Dense
    Object Detection", arXiv:1708.02002, equation 5; published with gamma 2 and alpha 0.25.

    Args:
        target: `(batch,)`, class indices.
        gamma: 0 is cross entropy.
        alpha: None weighs all alike. With "softmax" a weight for each class; of two, a number weighs the second, and 1
            minus it the first. With "sigmoid" a number: a is alpha where the answer is yes, else 1 - alpha.
    """
    check_choice("form", form, FOCAL_FORMS)
    if not gamma >= 0:
        raise ParameterError("gamma", f"{gamma}", "0 or more")
    logits, target = _checked(logits, target)
    if form == "sigmoid":
        return _sigmoid_focal(logits, target, gamma, alpha).mean()
    weights = logits.new_ones(logits.shape[1]) if alpha is None else torch.as_tensor(alpha).to(logits)
    if weights.ndim == 0 and logits.shape[1] == 2:
        weights = torch.stack([1 - weights, weights])
    if weights.shape != logits.shape[1:]:
        found = f"of shape {tuple(weights.shape)}" if weights.ndim else f"{float(weights)}"
        raise ParameterError("alpha", found, f"a weight for each of {logits.shape[1]} classes")
    log_p = -F.cross_entropy(logits, target, reduction="none")
    wrong = (-log_p.expm1()).clamp(min=_TINY)
    return (weights[target] * wrong**gamma * -log_p).mean()


def class_balanced_loss(
    logits: Logits, target: Numbers, weights: Tensor, form: str = "softmax", gamma: float | int = 1.0
) -> Loss:
    """A loss times the weight of each item's class; arXiv:1901.05555, section 3.3.

    Args:
        weights: `(classes,)`, of `class_balanced_weights`.
        form: "softmax" is cross entropy, "sigmoid" the sum of the binary ones of all classes (the published code takes
            their mean), "focal" that sum with the focal factor.
        gamma: of that factor; 0.5, 1 and 2 in the paper.
    """
    check_choice("form", form, CLASS_BALANCED_FORMS)
    if weights.shape != logits.shape[1:]:
        raise ParameterError("weights", f"{len(weights)}", f"one for each of {logits.shape[1]} classes")
    if form == "softmax":
        return cross_entropy_loss(logits, target, weights.to(target.device)[target.long()])
    logits, target = _checked(logits, target)
    losses = _sigmoid_focal(logits, target, gamma if form == "focal" else 0.0)
    return (losses * weights.to(losses)[target]).mean()


def _checked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float32 at least; targets as int64 class indices."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.ndim != 2 or target.shape != logits.shape[:1] or target.is_floating_point():
        found = f"{tuple(target.shape)}, {target.dtype}, for logits {tuple(logits.shape)}"
        raise ParameterError("target", found, "whole numbers of classes (batch,), for logits (batch, classes)")
    if not target.is_cuda and len(target) and not 0 <= int(target.min()) <= int(target.max()) < logits.shape[1]:
        # On a GPU this would wait for the device; there torch itself stops.
        raise ParameterError("target", f"{int(target.min())} to {int(target.max())}", f"0 to {logits.shape[1] - 1}")
    return logits, target.long()


def _sigmoid_focal(logits: Tensor, target: Tensor, gamma: float, alpha: object = None) -> Float[Tensor, " batch"]:
    if alpha is not None and not (isinstance(alpha, float | int) and 0 <= alpha <= 1):
        advice = 'Weights of classes go with form="softmax", or with class_balanced_loss.'
        raise ParameterError("alpha", f"{alpha}", 'a number from 0 to 1 in the form "sigmoid"', advice)
    answers = F.one_hot(target, logits.shape[1]).to(logits)
    # torchvision.ops.sigmoid_focal_loss has the same formula, but takes the power of 1 - pt, which rounds to 0.
    wrong = (logits * (1 - 2 * answers)).sigmoid().clamp(min=_TINY)
    losses = wrong**gamma * F.binary_cross_entropy_with_logits(logits, answers, reduction="none")
    if alpha is not None:
        losses = losses * (alpha * answers + (1 - alpha) * (1 - answers))
    return losses.sum(dim=1)


def class_balanced_weights(counts: Tensor | Sequence[int], beta: float | int = 0.999) -> Float[Tensor, " classes"]:
    """A weight for each class by its effective number of examples.

    (1 - beta) / (1 - beta^n), scaled to sum to the classes; `counts` n are of the training split. With `beta` 0 all
    weigh 1, near 1 they approach 1 / n. Cui et al., arXiv:1901.05555, equation 2; there `beta` is from 0.9 to 0.9999.
    A class without examples is refused.
    """
    counts = torch.as_tensor(counts)
    if not 0 <= beta < 1:
        raise ParameterError("beta", f"{beta}", "0 or more, and less than 1")
    if not len(counts) or not (counts >= 1).all():
        raise ParameterError("counts", f"{counts.tolist()}", "1 or more of each class", "Leave out what has none.")
    effective = (1 - torch.as_tensor(beta, dtype=torch.float64) ** counts.cpu().double()) / (1 - beta)
    weights = len(counts) * (1 / effective) / (1 / effective).sum()
    return weights.float().to(counts.device)


def count_table(
    rows: Numbers | Sequence[int], columns: Numbers | Sequence[int], num_rows: int, num_columns: int
) -> Int[Tensor, "rows columns"]:
    """Count how often each word (row) goes with each label (column), for `balancing_weights`."""
    rows, columns = torch.as_tensor(rows).long(), torch.as_tensor(columns).long()
    if rows.shape != columns.shape:
        raise ParameterError("columns", f"{len(columns)} numbers", f"as many as rows, {len(rows)}")
    for name, numbers, size in (("rows", rows, num_rows), ("columns", columns, num_columns)):
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < size:
            raise ParameterError(name, f"{int(numbers.min())} to {int(numbers.max())}", f"0 to {size - 1}")
    return torch.bincount(rows * num_columns + columns, minlength=num_rows * num_columns).view(num_rows, num_columns)


def balancing_weights(
    counts: Int[Tensor, "words classes"] | Float[Tensor, "words classes"] | Sequence[Sequence[int]],
    form: str = "balanced", laplace: float | int = 0, cap: float | int | None = 10.0,
) -> Float[Tensor, "words classes"]:  # fmt: skip
    """Weights of words and classes that balance the classes of a word.

    With N_wy clips of word w and class y, N_w of word w, and K_w classes that this word has: N_w / (K_w N_wy) in the
    form "balanced", whose mean over the clips of a word is 1; N_w / N_wy in the form "inverse" of the notes' README.

    Args:
        counts: `(words, classes)`, of the training split; see `count_table`.
        laplace: is added to each count; 1 keeps the weights of rare cells lower.
        cap: no weight is above it; None for no cap.
    """
    counts = torch.as_tensor(counts)
    check_choice("form", form, BALANCING_FORMS)
    if not laplace >= 0 or not (cap is None or cap > 0):
        raise ParameterError("laplace, cap", f"{laplace}, {cap}", "0 or more, and more than 0 or None")
    if not (counts >= 0).all():
        raise ParameterError("counts", "a negative or NaN one", "0 or more")
    table = counts.double() + laplace
    weights = table.sum(dim=1, keepdim=True) / table
    if form == "balanced":
        weights = weights / (table > 0).sum(dim=1, keepdim=True)
    weights = weights.where(table > 0, 1.0)  # cells without clips, for clips to come
    return (weights if cap is None else weights.clamp(max=cap)).float()


def difficulty_weights(
    difficulty: Float[Tensor, " batch"] | Numbers | Sequence[float | int], labels: Numbers | Sequence[int],
    strength: float | int = 1.0,
) -> Float[Tensor, " batch"]:  # fmt: skip
    """Weights of clips by label and difficulty of their words.

    1 + s (d - 1/2) if normal (label 0), 1 - s (d - 1/2) if abnormal (1); s is `strength`, from 0 to 2; d the difficulty
    of its word (`features.word_difficulty`), from 0 (a score of 2 or less) to 1 (11 or more).
    """
    labels = torch.as_tensor(labels)
    difficulty = torch.as_tensor(difficulty).to(labels.device)
    difficulty = difficulty.to(torch.promote_types(difficulty.dtype, torch.float32))
    if not 0 <= strength <= 2:
        raise ParameterError("strength", f"{strength}", "0 to 2")
    if difficulty.shape != labels.shape or difficulty.isnan().any():
        raise ParameterError("difficulty", f"{difficulty.tolist()[:5]}", f"a number for each of {len(labels)} clips")
    if not ((labels == 0) | (labels == 1)).all():
        raise ParameterError("labels", "other values than 0 and 1", "0 for normal, 1 for abnormal")
    away = ((difficulty - _EASIEST) / (_HARDEST - _EASIEST)).clamp(0, 1) - 0.5
    return 1 + strength * away * (1 - 2 * labels)
