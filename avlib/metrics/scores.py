"""Does a sound find its picture, and are the right classes named.

Source: CAV-MAE, `retrieval.py` and `utilities/stats.py`, whose numbers these give, except where two are equal, a class
has no positives, or something is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError, check_choice
from ..tables import html_table

TASKS = ("multi-label", "single-label")

# Retrieval


class Ranking(NamedTuple):
    """Where in its list of candidates each query finds its own, over all queries.

    `better` is `(queries,)`, how many others are more similar; `equal`, how many others are as similar as its own.
    """

    better: Float[Tensor, " queries"]
    equal: Float[Tensor, " queries"]

    @property
    def ranks(self) -> Float[Tensor, " queries"]:
        """1 is the best; among equals the mean of the ranks that they share, which is what a random order gives."""
        return 1 + self.better + self.equal / 2

    def hits(self, k: int = 1) -> Float[Tensor, " queries"]:
        """Whether a query finds its own among the first k, 1 or 0; among equals, in how many of their orders."""
        return ((k - self.better) / (self.equal + 1)).clamp(0, 1)

    def recall(self, k: int = 1) -> float:
        """R@k: the share of queries that find their own among the first k."""
        return float(self.hits(k).mean())

    @property
    def median_rank(self) -> float:
        """Of an even number of queries, between the two in the middle."""
        return float(np.median(self.ranks.cpu()))

    def figures(self) -> dict[str, float]:
        return {**{f"R@{k}": self.recall(k) for k in (1, 5, 10)}, "median rank": self.median_rank}


class Retrieval(NamedTuple):
    """Both directions of search between sounds and pictures.

    `similarity` is `(sounds, pictures)`, cosines. `of_images` ranks pictures for each sound, `of_audio` sounds for each
    picture.
    """

    similarity: Float[Tensor, "sounds pictures"]
    of_images: Ranking
    of_audio: Ranking

    def figures(self) -> dict[str, float]:
        """R@1, R@5, R@10 and median rank of both directions, by name, as an evaluation gives them."""
        ways = {"sound -> picture": self.of_images, "picture -> sound": self.of_audio}
        return {f"{name} {way}": value for way, found in ways.items() for name, value in found.figures().items()}


def retrieval(audio: Float[Tensor, "clips width"], image: Float[Tensor, "clips width"]) -> Retrieval:
    """Search for each sound's picture among all pictures, and the reverse, by the cosine of their vectors.

    Args:
        audio: `(clips, width)`, one vector for each clip's sound, of any length.
        image: `(clips, width)`, one for its picture.

    Raises:
        ParameterError: no clips, not as many of both, or a vector that is not finite.
    """
    if audio.shape != image.shape or not len(audio):
        found = f"{tuple(audio.shape)} and {tuple(image.shape)}"
        raise ParameterError("audio, image", found, "one vector of each for every clip")
    for name, vectors in (("audio", audio), ("image", image)):
        require_finite(name, vectors)
    audio, image = (F.normalize(vectors.float(), dim=-1) for vectors in (audio, image))
    with torch.autocast(audio.device.type, enabled=False):
        similarity = audio @ image.T
    return Retrieval(similarity, ranking(similarity), ranking(similarity.T))


def ranking(
    similarity: Float[Tensor, "queries candidates"],
    tolerance: float = 1e-6,
    own: Int[Tensor, " queries"] | None = None,
) -> Ranking:
    """Rank candidates for each query; its own has the query's number, unless another is given.

    Equal ones are counted fairly: where all are, R@1 is chance. The published code sorts, and so gives a query every
    rank at which its own similarity stands: of equal vectors it says R@1 = 1.

    Args:
        similarity: `(queries, candidates)`; at least as many candidates as queries where `own` is not given.
        tolerance: how far apart two similarities are still equal. A matrix product in float32 differs by so much where
            vectors do not differ at all.
        own: `(queries,)`, the number of each query's own candidate, as for classes, which several queries share.

    Raises:
        ParameterError: no queries, fewer candidates than queries, a number that no candidate has, or a similarity
            that is not finite. (The published code drops a query with NaN, and so counts the easier rest.)
    """
    queries, candidates = similarity.shape
    if own is None:
        if not 0 < queries <= candidates:
            found = f"{queries} queries, {candidates} candidates"
            raise ParameterError("similarity", found, "at least one of its own each")
        own = torch.arange(queries)
    elif not queries or not ((own >= 0) & (own < candidates)).all():
        raise ParameterError("own", f"{own.tolist()[:5]}", f"numbers from 0 to {candidates - 1}, of one query or more")
    require_finite("similarity", similarity)
    difference = similarity - similarity.gather(1, own.long().to(similarity.device)[:, None])
    better, equal = (difference > tolerance).sum(dim=1), (difference.abs() <= tolerance).sum(dim=1)
    return Ranking(better.float(), equal.float() - 1)  # its own is equal to itself


def ranks(similarity: Float[Tensor, "queries candidates"]) -> Float[Tensor, " queries"]:
    """The rank of each query's own candidate, from 1; see `ranking`."""
    return ranking(similarity).ranks


def lower_bound(hits: Tensor | Sequence[float | int] | np.ndarray, confidence: float | int = 0.95) -> float:
    """The lower end of Wilson's interval for a share, from what each of a sample of queries gave, 0 to 1.

    Queries are taken to be independent. Those of one gallery are not wholly so: they have the same candidates.

    Args:
        hits: one for each query, as `Ranking.hits` gives them.
        confidence: that the true share is in the interval, of which half of the rest lies below.

    Raises:
        ParameterError: no hits, one outside 0 to 1, or a confidence outside.
    """
    from scipy.stats import norm

    values = torch.as_tensor(hits).double().flatten()
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ParameterError("hits", f"{len(values)} values", "one or more, each from 0 to 1")
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"{confidence}", "between 0 and 1")
    n, share, z = len(values), float(values.mean()), float(norm.ppf((1 + confidence) / 2))
    middle, width = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, (middle - width) / (1 + z**2 / n))


# Classification


class ClassTable(NamedTuple):
    """Each class by itself; NaN where a figure has no meaning. A notebook shows it as a table.

    A class without positives has neither figure, one without negatives no AUC. These are left out of the means; the
    published code gives a class without positives AUC -1, which enters its mean.
    """

    positives: np.ndarray  # (classes,), how many items have the class
    average_precision: np.ndarray
    auc: np.ndarray
    names: tuple[str, ...]

    @property
    def left_out(self) -> list[str]:
        """Names of the classes without positives."""
        return [self.names[index] for index in np.flatnonzero(self.positives == 0)]

    @property
    def mean_average_precision(self) -> float:
        return _mean(self.average_precision)

    @property
    def mean_auc(self) -> float:
        return _mean(self.auc)

    def figures(self) -> dict[str, float]:
        """mAP, mean AUC, d' and how many classes they are means over."""
        counted = int((self.positives > 0).sum())
        auc = self.mean_auc
        return {"mAP": self.mean_average_precision, "AUC": auc, "d'": d_prime(auc), "classes": counted}

    def _repr_html_(self) -> str:
        figures = {"average precision": self.average_precision, "AUC": self.auc}
        return html_table({"class": self.names, "positives": self.positives, **figures})


def per_class(
    scores: Float[Tensor, "items classes"], targets: Tensor, names: Sequence[str] | None = None
) -> ClassTable:
    """Average precision and area under the ROC curve of each class.

    Args:
        scores: `(items, classes)`, higher is more likely: logits, or probabilities.
        targets: `(items, classes)`, 1 where an item has a class and 0 elsewhere.
        names: of the classes; their numbers otherwise.

    Raises:
        ParameterError: no items, unequal shapes, scores that are not finite, targets other than 0 and 1.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if scores.shape != targets.shape or not len(scores):
        raise ParameterError("targets", f"{tuple(targets.shape)}", f"the shape of scores, {tuple(scores.shape)}, not 0")
    require_finite("scores", scores)
    if not ((targets == 0) | (targets == 1)).all():
        raise ParameterError("targets", "other values than 0 and 1", "labels without smoothing or mixing")
    names = tuple(names) if names is not None else tuple(map(str, range(scores.shape[1])))
    found, true = scores.detach().double().cpu().numpy(), targets.cpu().numpy().astype(bool)
    positives = true.sum(axis=0)
    precision, auc = np.full((2, len(positives)), np.nan)
    for index in np.flatnonzero(positives):
        precision[index] = average_precision_score(true[:, index], found[:, index])
        if positives[index] < len(true):
            auc[index] = roc_auc_score(true[:, index], found[:, index])
    return ClassTable(positives, precision, auc, names)


def mean_average_precision(scores: Float[Tensor, "items classes"], targets: Tensor) -> float:
    """Mean over the classes with positives; see `per_class`. NaN if none has any."""
    return per_class(scores, targets).mean_average_precision


def d_prime(auc: float) -> float:
    """How many deviations apart two normal distributions of equal width are that have this AUC: sqrt(2) ppf(AUC)."""
    from scipy.stats import norm

    return float(math.sqrt(2) * norm.ppf(auc))


def accuracy(scores: Float[Tensor, "items classes"], targets: Tensor) -> float:
    """The share of items whose highest score is at their class; an item may have several, if equally much.

    Of equal highest scores each counts in part, so that a model that says nothing is at chance.

    Args:
        scores: `(items, classes)`.
        targets: `(items, classes)`, of which the largest are right; or `(items,)`, the number of the class.

    Raises:
        ParameterError: no items, unequal shapes, or scores that are not finite.
    """
    return float(correct(scores, targets).mean())


def correct(scores: Float[Tensor, "items classes"], targets: Tensor) -> Float[Tensor, " items"]:
    """Whether each item's class is right, 1 or 0; see `accuracy`. What `lower_bound` takes."""
    if not len(scores) or targets.shape not in (scores.shape, scores.shape[:1]):
        found = f"{tuple(targets.shape)} for scores {tuple(scores.shape)}"
        raise ParameterError("targets", found, "a row, or a class, for each of one or more items")
    require_finite("scores", scores)
    if targets.ndim == 1:
        targets = F.one_hot(targets.long(), scores.shape[1])
    highest, right = (values == values.amax(dim=1, keepdim=True) for values in (scores, targets))
    return (highest & right).sum(dim=1).float() / highest.sum(dim=1)


def ensemble(
    logits: Float[Tensor, "frames items classes"], task: str = "multi-label"
) -> Float[Tensor, "items classes"]:
    """One score from several frames of each item: the mean of their probabilities, as published.

    Args:
        logits: `(frames, items, classes)`.
        task: "multi-label" takes sigmoids (AudioSet, scored by mAP), "single-label" softmaxes (VGGSound, by accuracy).

    Raises:
        ParameterError: no frames, or another task.
    """
    check_choice("task", task, TASKS)
    if not len(logits):
        raise ParameterError("logits", "of no frame", "of at least one")
    return (logits.sigmoid() if task == "multi-label" else logits.softmax(dim=-1)).mean(dim=0)


def _mean(values: np.ndarray) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else math.nan


def require_finite(name: str, rows: Float[Tensor, "rows columns"]) -> None:
    """Refuse rows with NaN or infinity, and say which."""
    wrong = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise ParameterError(name, f"{len(wrong)} of {len(rows)} rows are not finite ({listed})", "numbers throughout")
