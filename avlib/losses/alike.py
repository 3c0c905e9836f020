"""Contrast between labels: embeddings of one label become alike, those of another do not.

In a word's clips, what differs between a normal and an abnormal pronunciation is small beside what differs between
words. So both losses can be told to compare within a word only; batches that hold such clips come from
`avlib.datasets.sampling`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError
from .self_supervised import of_all_processes


class Partners(NamedTuple):
    """For each item, another of its word and label (`same`), and one of its word with another label (`other`).

    Each `(batch,)`, numbers of items. Where there is none, the number is the item's own and `has_...` is False.
    """

    same: Int[Tensor, " batch"]
    other: Int[Tensor, " batch"]
    has_same: Bool[Tensor, " batch"]
    has_other: Bool[Tensor, " batch"]


def supervised_contrastive_loss(
    embeddings: Float[Tensor, "batch width"],
    labels: Int[Tensor, " batch"],
    temperature: float | int = 0.07,
    words: Int[Tensor, " batch"] | None = None,
    *,
    gather: bool = True,
) -> Float[Tensor, ""]:
    """How well each item finds those of its label among all others of the batch, by cosine.

    For item i, with s the cosines over the temperature, P the other items of its label, A all other items:
    -1 / |P| sum over p of log(exp(s_ip) / sum over a of exp(s_ia)); the mean over items that have a P. Khosla et al.,
    "Supervised Contrastive Learning", arXiv:2004.11362, equation 2 (L_out), which sums over items.

    Args:
        embeddings: `(batch, width)`, of any length.
        labels: `(batch,)`.
        temperature: 0.07 as published in the code.
        words: `(batch,)`; if given, P and A are of the item's word only.
        gather: where `torch.distributed` runs several processes, compare the items of all of them, as
            `contrastive_loss` does. All processes must call, with batches of one size.

    Returns:
        A scalar; 0 where no item has another one of its label. In float32, or float64 if the
        embeddings are that.

    Raises:
        ParameterError: a temperature that is not positive.
    """
    if not temperature > 0:
        raise ParameterError("temperature", f"{temperature}", "more than 0")
    embeddings = _unit(embeddings)
    if gather:
        embeddings, labels = of_all_processes(embeddings), of_all_processes(labels)
        words = None if words is None else of_all_processes(words)
    with torch.autocast(embeddings.device.type, enabled=False):  # bfloat16 would round s, which reaches 14, to 0.06
        similarity = embeddings @ embeddings.T / temperature  # (batch, batch)
    rivals = ~torch.eye(len(labels), dtype=torch.bool, device=embeddings.device)
    if words is not None:
        rivals = rivals & _equal(words)
    positives = rivals & _equal(labels)
    count = positives.sum(dim=1)
    anchors = count > 0
    # An item without positives does not count. Nothing is masked in its row, since the slope of log(sum of nothing),
    # times 0, is NaN.
    total = similarity.masked_fill(~rivals & anchors[:, None], -torch.inf).logsumexp(dim=1, keepdim=True)
    summed = (similarity - total).where(positives, 0.0).sum(dim=1)
    return -(summed / count.clamp(min=1)).sum() / anchors.sum().clamp(min=1)


def pair_contrastive_loss(
    anchor: Float[Tensor, "batch width"],
    positive: Float[Tensor, "batch width"],
    negative: Float[Tensor, "batch width"],
    margin: float | int = 0.0,
    has_positive: Bool[Tensor, " batch"] | None = None,
    has_negative: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """1 minus the cosine to a partner of the same label, plus the cosine to one of another label above a margin.

    Each is a mean over the items that have that partner, `torch.nn.CosineEmbeddingLoss` on each side. Gradients reach
    the partners too.

    Args:
        anchor: `(batch, width)`.
        positive: `(batch, width)`, of the same word and label: `anchor[partners.same]`, see `draw_partners`.
        negative: `(batch, width)`, of the same word and another label.
        margin: cosines to the negative below it cost nothing.
        has_positive: `(batch,)`, True where there is such a partner; None if there is everywhere.
        has_negative: likewise.

    Returns:
        A scalar; where nobody has a partner, that part is 0. In float32, or float64 if the embeddings are that.

    Raises:
        ParameterError: a margin outside [-1, 1).
    """
    if not -1 <= margin < 1:
        raise ParameterError("margin", f"{margin}", "-1 or more, and less than 1, as cosines are")
    anchor, positive, negative = (_unit(vectors) for vectors in (anchor, positive, negative))
    apart = 1 - (anchor * positive).sum(dim=-1)
    close = ((anchor * negative).sum(dim=-1) - margin).clamp(min=0)
    return _mean_over(apart, has_positive) + _mean_over(close, has_negative)


def draw_partners(
    labels: Int[Tensor, " batch"],
    words: Int[Tensor, " batch"] | None = None,
    noise: Float[Tensor, "batch batch"] | None = None,
) -> Partners:
    """For each item of a batch, draw one partner of its word and label, and one of its word with another label.

    Args:
        labels: `(batch,)`.
        words: `(batch,)`; None where all items may be compared.
        noise: `(batch, batch)`, uniform, which decides: the highest in an item's row wins. None draws it. In training,
            `training.uniform(batch, batch)` lets it follow from the seed and the step.
    """
    count = len(labels)
    noise = torch.rand(count, count) if noise is None else noise
    noise = noise.to(labels.device)
    comparable = ~torch.eye(count, dtype=torch.bool, device=labels.device)
    if words is not None:
        comparable = comparable & _equal(words)
    alike, own = _equal(labels), torch.arange(count, device=labels.device)
    drawn = []
    for allowed in (comparable & alike, comparable & ~alike):
        found = allowed.any(dim=1)
        drawn.append((noise.masked_fill(~allowed, -1).argmax(dim=1).where(found, own), found))
    (same, has_same), (other, has_other) = drawn
    return Partners(same, other, has_same, has_other)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def _equal(numbers: Tensor) -> Bool[Tensor, "batch batch"]:
    return numbers[:, None] == numbers


def _mean_over(values: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return values.mean()
    return (values * valid).sum() / valid.sum().clamp(min=1)
