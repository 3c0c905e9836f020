"""Losses on labels, for classes that are rare, easy or unevenly spread over words.

A weight says how much an item counts. Means are over the items of a batch, not over the sum of their weights, so that
a weight keeps its meaning in a batch that has one class alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError, check_choice

FOCAL_FORMS = ("softmax", "sigmoid")
CLASS_BALANCED_FORMS = ("softmax", "sigmoid", "focal")
BALANCING_FORMS = ("balanced", "inverse")
REDUCTIONS = ("mean", "sum", "none")
TINY = 1e-30  # a power below 1 has no slope at 0, where a model is wholly sure: the gradient would be NaN


def cross_entropy_loss(
    logits: Float[Tensor, "batch classes"],
    target: Tensor,
    weights: Tensor | None = None,
    label_smoothing: float | int = 0.0,
    reduction: str = "mean",
) -> Float[Tensor, "*batch"]:
    """-log of the probability of the right class, times the weight of each item.

    `F.cross_entropy` with class weights divides by their sum over the batch; this divides by the number of items.

    Args:
        logits: `(batch, classes)`.
        target: `(batch,)`, numbers of classes; or `(batch, classes)`, probabilities.
        weights: `(batch,)`, one for each item: `class_balanced_weights(counts)[target]`,
            `balancing_weights(counts)[word, target]` or `difficulty_weights(difficulty, target)`.
        label_smoothing: this share of the target is spread over all classes.
        reduction: "mean" over the batch, "sum" over it, or "none", `(batch,)`.

    Returns:
        In float32, or float64 if the logits are that.

    Raises:
        ParameterError: shapes that do not fit, a class that there is not, or another reduction.
    """
    logits, target = _checked(logits, target)
    losses = F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)
    return _reduced(losses, weights, reduction)


def focal_loss(
    logits: Float[Tensor, "batch ..."],
    target: Tensor,
    gamma: float | int = 2.0,
    alpha: float | int | Sequence[float | int] | Tensor | None = None,
    form: str = "softmax",
    reduction: str = "mean",
) -> Float[Tensor, "*batch"]:
    """Cross entropy that counts an item less, the surer the model is of its class already.

    With "softmax", (1 - p_y)^gamma times -log p_y. With "sigmoid", each class is a question of its own, and the sum
    over classes of -a (1 - pt)^gamma log pt is taken, where pt is what the model gives to the right answer: Lin et
    al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, equation 5; published with gamma 2 and alpha 0.25.

    Args:
        logits: `(batch, classes)`; with "sigmoid" also `(batch,)`, one question.
        target: `(batch,)`, numbers of classes; or of the shape of the logits: probabilities with "softmax", with
            "sigmoid" 1 where the answer is yes, or anything from 0 to 1.
        gamma: 0 is cross entropy.
        alpha: None weighs all alike. With "softmax" a weight for each class; of two classes, a number is the weight of
            the second, and 1 minus it that of the first. With "sigmoid" a number: a is alpha where the answer is yes,
            and 1 - alpha where it is no.
        form: "softmax" or "sigmoid".
        reduction: "mean", "sum" over the batch, or "none", `(batch,)`. The mean is over items with "softmax"; with
            "sigmoid" the sum is divided by how many answers are yes, as published, or by 1 if fewer.

    Returns:
        In float32, or float64 if the logits are that.

    Raises:
        ParameterError: shapes that do not fit, a class that there is not, another form or reduction, a negative gamma,
            or an `alpha` that does not go with the form.
    """
    check_choice("form", form, FOCAL_FORMS)
    if not gamma >= 0:
        raise ParameterError("gamma", f"{gamma}", "0 or more")
    if form == "sigmoid":
        answers = _answers(logits, target)
        losses = _sigmoid_focal(logits, answers, gamma, alpha)
        return _reduced(losses, None, reduction, answers.sum().clamp(min=1))
    logits, target = _checked(logits, target)
    log_p = logits.log_softmax(dim=-1)
    if target.ndim == 1:
        target = F.one_hot(target, logits.shape[1])
    wrong = (-log_p.expm1()).clamp(min=TINY)
    terms = target * wrong**gamma * -log_p * _class_weights(alpha, logits)
    return _reduced(terms.sum(dim=-1), None, reduction)


def class_balanced_weights(
    counts: Int[Tensor, " classes"] | Float[Tensor, " classes"] | Sequence[int], beta: float | int = 0.999
) -> Float[Tensor, " classes"]:
    """A weight for each class, one over its effective number of examples: (1 - beta) / (1 - beta^n).

    Scaled to sum to the number of classes. Between 0, where all weigh 1, and 1, towards which they approach 1 / n.
    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", arXiv:1901.05555, equation 2.

    Args:
        counts: `(classes,)`, how often each is in the training split.
        beta: 0.9, 0.99, 0.999 and 0.9999 in the paper.

    Returns:
        `(classes,)`, float32.

    Raises:
        ParameterError: a class without examples, no classes, or a `beta` outside [0, 1).
    """
    counts = torch.as_tensor(counts)
    if not 0 <= beta < 1:
        raise ParameterError("beta", f"{beta}", "0 or more, and less than 1")
    if not len(counts) or not (counts >= 1).all():
        raise ParameterError("counts", f"{counts.tolist()}", "1 or more of each class", "Leave out what has none.")
    effective = (1 - torch.as_tensor(beta, dtype=torch.float64) ** counts.cpu().double()) / (1 - beta)
    weights = len(counts) * (1 / effective) / (1 / effective).sum()
    return weights.float().to(counts.device)


def class_balanced_loss(
    logits: Float[Tensor, "batch classes"],
    target: Int[Tensor, " batch"],
    weights: Tensor,
    form: str = "softmax",
    gamma: float | int = 1.0,
    reduction: str = "mean",
) -> Float[Tensor, "*batch"]:
    """A loss times the weight of each item's class; arXiv:1901.05555, section 3.3.

    Args:
        logits: `(batch, classes)`.
        target: `(batch,)`, numbers of classes.
        weights: `(classes,)`, of `class_balanced_weights`.
        form: "softmax" is cross entropy, "sigmoid" the sum of the binary ones of all classes, "focal" that sum with
            the focal factor.
        gamma: of that factor; 0.5, 1 and 2 in the paper.
        reduction: "mean" over the batch, "sum" over it, or "none", `(batch,)`. The published code takes the mean over
            classes too in the form "sigmoid"; the paper's formula, and this, the sum.

    Raises:
        ParameterError: shapes that do not fit, a class that there is not, or another form or reduction.
    """
    check_choice("form", form, CLASS_BALANCED_FORMS)
    if weights.shape != logits.shape[1:]:
        raise ParameterError("weights", f"{len(weights)}", f"one for each of {logits.shape[1]} classes")
    if form == "softmax":
        losses = cross_entropy_loss(logits, target, reduction="none")
    else:
        losses = focal_loss(logits, target, gamma if form == "focal" else 0.0, form="sigmoid", reduction="none")
    return _reduced(losses, weights.to(losses)[target.long()], reduction)


def count_table(
    rows: Int[Tensor, " items"] | Sequence[int],
    columns: Int[Tensor, " items"] | Sequence[int],
    num_rows: int,
    num_columns: int,
) -> Int[Tensor, "rows columns"]:
    """How often each word (row) goes with each label (column); what `balancing_weights` takes.

    Raises:
        ParameterError: not as many of both, or a number that is out of range.
    """
    rows, columns = torch.as_tensor(rows).long(), torch.as_tensor(columns).long()
    if rows.shape != columns.shape:
        raise ParameterError("columns", f"{len(columns)} numbers", f"as many as rows, {len(rows)}")
    for name, numbers, size in (("rows", rows, num_rows), ("columns", columns, num_columns)):
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < size:
            raise ParameterError(name, f"{int(numbers.min())} to {int(numbers.max())}", f"0 to {size - 1}")
    return torch.bincount(rows * num_columns + columns, minlength=num_rows * num_columns).view(num_rows, num_columns)


def balancing_weights(
    counts: Int[Tensor, "words classes"] | Float[Tensor, "words classes"] | Sequence[Sequence[int]],
    form: str = "balanced",
    laplace: float | int = 0,
    cap: float | int | None = 10.0,
) -> Float[Tensor, "words classes"]:
    """A weight for each word and class, so that the classes of a word count alike.

    With N_wy clips of word w and class y, N_w of word w, and K_w classes that this word has: N_w / (K_w N_wy) in the
    form "balanced", whose mean over the clips of a word is 1; N_w / N_wy in the form "inverse", that of the notes'
    README.

    Args:
        counts: `(words, classes)`, of the training split; see `count_table`.
        form: "balanced" or "inverse".
        laplace: is added to each count; 1 keeps the weights of rare cells lower.
        cap: no weight is above it; None for no cap.

    Returns:
        `(words, classes)`, float32; 1 where there are no clips, and `laplace` is 0.

    Raises:
        ParameterError: a negative count, another form, a negative `laplace`, a `cap` that is not positive.
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
    weights = weights.where(table > 0, 1.0)  # a cell without clips weighs no clip; 1 is there for those to come
    return (weights if cap is None else weights.clamp(max=cap)).float()


def _checked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float32 at least; targets as class numbers in int64, or as probabilities in the dtype of the logits."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.ndim != 2 or target.shape not in (logits.shape, logits.shape[:1]):
        found = f"{tuple(target.shape)} for logits {tuple(logits.shape)}"
        raise ParameterError("target", found, "(batch,) or (batch, classes), for logits (batch, classes)")
    if target.ndim == 2:
        return logits, target.to(logits)
    if target.is_floating_point():
        raise ParameterError("target", f"{target.dtype}", "whole numbers of classes, or (batch, classes)")
    if not target.is_cuda and len(target) and not 0 <= int(target.min()) <= int(target.max()) < logits.shape[1]:
        # On a GPU this would wait for the device; there torch itself stops.
        raise ParameterError("target", f"{int(target.min())} to {int(target.max())}", f"0 to {logits.shape[1] - 1}")
    return logits, target.long()


def _answers(logits: Tensor, target: Tensor) -> Tensor:
    """What the right answer to each question is, in the shape of the logits."""
    if target.shape == logits.shape:
        return target.to(logits)
    if logits.ndim == 2 and logits.shape[1] == 1 and target.shape == logits.shape[:1]:
        return target[:, None].to(logits)  # one question: the class is its answer
    _, target = _checked(logits, target)
    return F.one_hot(target, logits.shape[1]).to(logits)


def _sigmoid_focal(logits: Tensor, answers: Tensor, gamma: float, alpha: object) -> Float[Tensor, " batch"]:
    if alpha is not None and not (isinstance(alpha, float | int) and 0 <= alpha <= 1):
        advice = 'Weights of classes go with form="softmax", or with class_balanced_loss.'
        raise ParameterError("alpha", f"{alpha}", 'a number from 0 to 1 in the form "sigmoid"', advice)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    answers = answers.to(logits)
    # torchvision.ops.sigmoid_focal_loss has the same formula, but takes the power of 1 - pt, which rounds to 0.
    wrong = (logits.sigmoid() * (1 - answers) + (-logits).sigmoid() * answers).clamp(min=TINY)
    losses = wrong**gamma * F.binary_cross_entropy_with_logits(logits, answers, reduction="none")
    if alpha is not None:
        losses = losses * (alpha * answers + (1 - alpha) * (1 - answers))
    return losses.flatten(1).sum(dim=1) if losses.ndim > 1 else losses


def _class_weights(alpha: object, logits: Tensor) -> Tensor:
    classes = logits.shape[1]
    if alpha is None:
        return logits.new_ones(classes)
    weights = torch.as_tensor(alpha).to(logits)
    if weights.ndim == 0 and classes == 2:
        weights = torch.stack([1 - weights, weights])
    if weights.shape != (classes,):
        found = f"of shape {tuple(weights.shape)}" if weights.ndim else f"{float(weights)}"
        raise ParameterError("alpha", found, f"a weight for each of {classes} classes")
    return weights


def _reduced(losses: Tensor, weights: Tensor | None, reduction: str, count: Tensor | None = None) -> Tensor:
    check_choice("reduction", reduction, REDUCTIONS)
    if weights is not None:
        if weights.shape != losses.shape:
            raise ParameterError("weights", f"{tuple(weights.shape)}", f"{tuple(losses.shape)}, one for each item")
        losses = losses * weights.to(losses)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / (len(losses) if count is None else count)
