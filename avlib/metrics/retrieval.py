"""Retrieval between sounds and pictures, and how well generated pictures fit their sounds.

Source: CAV-MAE, `retrieval.py`, whose numbers these give, except where two are equal or something is NaN. AudioToken
(Yariv et al., Interspeech 2023) names AIC, AIS and IIS, but its repository has code for none of them. Whether the paper
counts raw cosines or ranks could not be found out, so both are given. A cosine means little by itself, since those of
unrelated pairs are far from 0 in most encoders: beside each stands that of the wrong pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError

_TOLERANCE = 1e-6  # by which cosines of equal vectors differ in float32


class Ranking(NamedTuple):
    """The place of each query's own candidate among all candidates."""

    better: Float[Tensor, " queries"]  # how many others are more similar
    equal: Float[Tensor, " queries"]  # how many others are as similar as its own

    @property
    def ranks(self) -> Float[Tensor, " queries"]:
        """Rank of each query's own from 1; the mean rank among equals."""
        return 1 + self.better + self.equal / 2

    def hits(self, k: int = 1) -> Float[Tensor, " queries"]:
        """1 if a query's own is among the first k; fractions among equals."""
        return ((k - self.better) / (self.equal + 1)).clamp(0, 1)

    def recall(self, k: int = 1) -> float:
        """R@k: the share of queries that find their own among the first k."""
        return float(self.hits(k).mean())

    @property
    def median_rank(self) -> float:
        """Median rank; of an even number of queries, between the two in the middle."""
        return float(np.median(self.ranks.cpu()))


class Retrieval(NamedTuple):
    """Search in both directions between sounds and pictures."""

    similarity: Float[Tensor, "sounds pictures"]  # cosines
    of_images: Ranking  # pictures for each sound
    of_audio: Ranking  # sounds for each picture


def retrieval(audio: Float[Tensor, "clips width"], image: Float[Tensor, "clips width"]) -> Retrieval:
    """Search for each sound's picture among all pictures, and the reverse, by cosine of embeddings."""
    if audio.shape != image.shape or not len(audio):
        found = f"{tuple(audio.shape)} and {tuple(image.shape)}"
        raise ParameterError("audio, image", found, "one vector of each for every clip")
    for name, vectors in (("audio", audio), ("image", image)):
        require_finite(name, vectors)
    audio, image = (F.normalize(vectors.float(), dim=-1) for vectors in (audio, image))
    with torch.autocast(audio.device.type, enabled=False):
        similarity = audio @ image.T
    return Retrieval(similarity, ranking(similarity), ranking(similarity.T))


def ranking(similarity: Float[Tensor, "queries candidates"], own: Int[Tensor, " queries"] | None = None) -> Ranking:
    """Rank the candidates of each query; its own is at its index, or given by number, as for classes.

    Equal ones, no further apart than the rounding of a matrix product, are counted fairly: where all are, R@1 is
    chance. The published code sorts, and so gives a query every rank at which its own similarity stands: of equal
    vectors it says R@1 = 1.

    Raises:
        ParameterError: among others, a similarity that is not finite. (The published code drops a query with NaN, and
            so counts the easier rest.)
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
    better, equal = (difference > _TOLERANCE).sum(dim=1), (difference.abs() <= _TOLERANCE).sum(dim=1)
    return Ranking(better.float(), equal.float() - 1)  # its own is equal to itself


def lower_bound(hits: Tensor | Sequence[float | int] | np.ndarray, confidence: float | int = 0.95) -> float:
    """The lower end of Wilson's interval for a share of hits.

    Queries are taken to be independent, though those of one gallery have the same candidates. `hits` are from 0 to 1,
    as `Ranking.hits` gives them; half of what `confidence` leaves lies below the interval.
    """
    from scipy.stats import norm  # its binomtest has this interval for whole numbers of hits alone

    values = torch.as_tensor(hits).double().flatten()
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ParameterError("hits", f"{len(values)} values", "one or more, each from 0 to 1")
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"{confidence}", "between 0 and 1")
    n, share, z = len(values), float(values.mean()), float(norm.ppf((1 + confidence) / 2))
    middle, width = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, (middle - width) / (1 + z**2 / n))


def require_finite(name: str, rows: Float[Tensor, "rows columns"]) -> None:
    """Refuse rows with NaN or infinity, and list them."""
    wrong = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise ParameterError(name, f"{len(wrong)} of {len(rows)} rows are not finite ({listed})", "numbers throughout")


class Similarity(NamedTuple):
    """Cosines of pairs beside those of the wrong pairs."""

    pairs: Float[Tensor, " pairs"]
    others: Float[Tensor, " pairs"]  # mean cosine of each first with all other seconds; NaN of a single pair
    ranking: Ranking  # of each first's own second among all

    @property
    def mean(self) -> float:
        return float(self.pairs.mean())

    @property
    def baseline(self) -> float:
        return float(self.others.mean())


class Content(NamedTuple):
    """Agreement of pictures with the labels of their sounds.

    `similarity` is of the predicted class with the label, of each picture with the labels of the others as wrong pairs;
    None without embeddings of the names.
    """

    ranking: Ranking  # of each label among the classes
    classes: int
    constant: float  # share of the most frequent label, which a model gets that always paints the same
    similarity: Similarity | None

    @property
    def share(self) -> float:
        """The share of pictures whose label comes first; equals count in part."""
        return self.ranking.recall(1)

    @property
    def chance(self) -> float:
        return 1 / self.classes


def audio_image_content(
    pictures: Float[Tensor, "pictures 3 height width"], labels: Int[Tensor, " sounds"],
    classify: Callable[[Tensor], Tensor], class_vectors: Float[Tensor, "classes features"] | None = None,
    label_vectors: Float[Tensor, "labels same_features"] | None = None,
) -> Content:  # fmt: skip
    """AIC: how often a classifier of pictures predicts the label of their sounds.

    Without vectors, labels are classes of the classifier, and are ranked by its logits. With them, the classifier may
    know other classes, as one of ImageNet does: the class that it predicts is compared with the names of the labels by
    the cosine of their vectors, such as CLIP's text encoder gives, and labels are ranked by that.

    Args:
        pictures: in [0, 1].
        labels: the number of the label of each picture's sound.
        classify: pictures to logits `(pictures, classes)`.
        class_vectors: of the names of the classifier's classes.
        label_vectors: of the names of the labels; None where they are the classifier's classes.
    """
    _check_pictures("pictures", pictures)
    if labels.shape != pictures.shape[:1]:
        raise ParameterError("labels", f"{len(labels)}", f"one for each of {len(pictures)} pictures")
    if label_vectors is not None and class_vectors is None:
        raise ParameterError("class_vectors", "none", "those of the classifier's classes beside those of the labels")
    scores = _applied("classify", classify, pictures)
    similarity = None
    if class_vectors is not None:
        label_vectors = class_vectors if label_vectors is None else label_vectors
        for name, vectors in (("class_vectors", class_vectors), ("label_vectors", label_vectors)):
            require_finite(name, vectors)
        if len(class_vectors) != scores.shape[1] or class_vectors.shape[1] != label_vectors.shape[1]:
            found = f"{tuple(class_vectors.shape)} and {tuple(label_vectors.shape)}"
            raise ParameterError("class_vectors, label_vectors", found, f"{scores.shape[1]} classes and equal widths")
        predicted = F.normalize(class_vectors, dim=1)[scores.argmax(dim=1).to(class_vectors.device)]
        scores = predicted @ F.normalize(label_vectors, dim=1).T
    places = ranking(scores, own=labels)  # refuses a label that is no class
    labels = labels.long().to(scores.device)
    if class_vectors is not None:
        similarity = _similarity(scores[:, labels])
    constant = float(labels.bincount().max()) / len(labels)
    return Content(places, scores.shape[1], constant, similarity)


def audio_image_similarity(sounds: Float[Tensor, "pairs width"], pictures: Float[Tensor, "pairs width"]) -> Similarity:
    """AIS: cosines of sounds with the pictures made from them, embedded by an encoder of both (Wav2CLIP with CLIP)."""
    return _similarity(retrieval(sounds, pictures).similarity)


def image_image_similarity(
    generated: Float[Tensor, "pairs 3 height width"],
    true: Float[Tensor, "frames 3 true_height true_width"],
    encode: Callable[[Tensor], Tensor],
) -> Similarity:
    """IIS: cosines of generated pictures with the frames of their clips, of any size, both in [0, 1].

    `encode` turns pictures into embeddings `(pairs, width)`; CLIP's in the paper.
    """
    if len(generated) != len(true):
        raise ParameterError("generated, true", f"{len(generated)} and {len(true)}", "one of each for every clip")
    _check_pictures("generated", generated)
    _check_pictures("true", true)
    vectors = (_applied("encode", encode, pictures) for pictures in (generated, true))
    return _similarity(retrieval(*vectors).similarity)


def _similarity(matrix: Float[Tensor, "pairs pairs"]) -> Similarity:
    own, count = matrix.diagonal(), len(matrix)
    others = (matrix.sum(dim=1) - own) / (count - 1)  # 0 / 0 of one pair, which is NaN
    return Similarity(own, others, ranking(matrix))


def _applied(name: str, function: Callable[[Tensor], Tensor], pictures: Tensor) -> Float[Tensor, "pictures width"]:
    """The rows that a classifier or encoder of the caller gives, checked."""
    with torch.no_grad():
        rows = function(pictures)
    if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(pictures):
        found = f"gives {tuple(rows.shape)}" if isinstance(rows, Tensor) else f"gives a {type(rows).__name__}"
        raise ParameterError(name, found, f"a tensor with a row for each of {len(pictures)} pictures")
    require_finite(name, rows)
    return rows.float()


def _check_pictures(name: str, pictures: Tensor) -> None:
    if not len(pictures):
        raise ParameterError(name, "none", "at least one picture")
    require_finite(name, pictures.flatten(1))
    if pictures.min() < 0 or pictures.max() > 1:
        found, advice = f"{pictures.min():.2f} to {pictures.max():.2f}", "Of [-1, 1] give (pictures + 1) / 2."
        raise ParameterError(name, found, "pixels from 0 to 1", advice)
