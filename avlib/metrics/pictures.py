"""Are pictures that were made from sounds what they should be: by any classifier and any encoder.

AudioToken (Yariv et al., Interspeech 2023) names three such figures, and its repository has code for none of them: AIC
by a classifier of images and CLIP, AIS by Wav2CLIP, IIS by CLIP. Whether the paper counts raw cosines or ranks could
not be found out, so both are given here. A cosine means little by itself, since those of unrelated pairs are far from
0 in most encoders: beside each stands that of the wrong pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError
from .scores import Ranking, lower_bound, ranking, require_finite, retrieval


class Similarity(NamedTuple):
    """How alike the two of each pair are, and how alike the wrong pairs.

    `pairs` is `(pairs,)`, the cosine of each. `others` is `(pairs,)`, the mean cosine of its first with the seconds of
    all other pairs; NaN where there is one pair only. `ranking` says where each first finds its own second among all.
    """

    pairs: Float[Tensor, " pairs"]
    others: Float[Tensor, " pairs"]
    ranking: Ranking

    @property
    def mean(self) -> float:
        return float(self.pairs.mean())

    @property
    def baseline(self) -> float:
        """The mean of the wrong pairs."""
        return float(self.others.mean())

    def margin(self, confidence: float | int = 0.95) -> tuple[float, float, float]:
        """By how much the mean exceeds the baseline, and both ends of its interval, by Student's t over the pairs.

        Pairs are taken to be independent, though they have the same candidates. Of one pair, all are NaN.

        Raises:
            ParameterError: a confidence outside 0 to 1.
        """
        from scipy.stats import t

        if not 0 < confidence < 1:
            raise ParameterError("confidence", f"{confidence}", "between 0 and 1")
        margins = (self.pairs - self.others).double()
        count, middle = len(margins), float(margins.mean())
        if count < 2:
            return math.nan, math.nan, math.nan
        half = float(t.ppf((1 + confidence) / 2, count - 1)) * float(margins.std()) / math.sqrt(count)
        return middle, middle - half, middle + half

    def figures(self) -> dict[str, float]:
        """Mean cosine, that of the wrong pairs, R@1 with its lower bound and chance, and the median rank."""
        count = len(self.pairs)
        return {
            "cosine": self.mean,
            "cosine of wrong pairs": self.baseline,
            "R@1": self.ranking.recall(1),
            "R@1 at least": lower_bound(self.ranking.hits(1)),
            "R@1 by chance": 1 / count,
            "median rank": self.ranking.median_rank,
        }


class Content(NamedTuple):
    """Whether pictures show what is heard.

    `ranking` says where each label stands among the `classes`. `constant` is the share of the most frequent label:
    what a model gets that always paints the same. `similarity` is of the named class with the label, of each picture
    with the labels of the others as wrong pairs; None where no vectors of the names are given.
    """

    ranking: Ranking
    classes: int
    constant: float
    similarity: Similarity | None

    @property
    def share(self) -> float:
        """Of the pictures, those whose label comes first; equals count in part."""
        return self.ranking.recall(1)

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval of the share; see `lower_bound`."""
        return lower_bound(self.ranking.hits(1))

    @property
    def chance(self) -> float:
        return 1 / self.classes

    def figures(self) -> dict[str, float]:
        """The share with its lower bound, chance and the constant answer, the median rank; cosines if there are any."""
        found = {
            "AIC": self.share,
            "AIC at least": self.low,
            "AIC by chance": self.chance,
            "AIC of a constant": self.constant,
            "median rank": self.ranking.median_rank,
        }
        if self.similarity:
            found |= {"AIC cosine": self.similarity.mean, "AIC cosine of wrong pairs": self.similarity.baseline}
        return found


def audio_image_content(
    pictures: Float[Tensor, "pictures 3 height width"],
    labels: Int[Tensor, " sounds"],
    classify: Callable[[Tensor], Tensor],
    class_vectors: Float[Tensor, "classes features"] | None = None,
    label_vectors: Float[Tensor, "labels same_features"] | None = None,
) -> Content:
    """AIC: how often a classifier of pictures names what the sound is labelled with.

    Without vectors, labels are classes of the classifier, and are ranked by its logits. With them, the classifier may
    know other classes, as one of ImageNet does: the class that it names is compared with the names of the labels by
    the cosine of their vectors, such as CLIP's text encoder gives, and labels are ranked by that.

    Args:
        pictures: `(pictures, 3, height, width)` in [0, 1].
        labels: `(sounds,)`, one for each picture: the number of its sound's label.
        classify: pictures to logits `(pictures, classes)`.
        class_vectors: `(classes, features)`, of the names of the classifier's classes.
        label_vectors: `(labels, features)`, of the names of the labels; None where they are the classifier's classes.

    Raises:
        ParameterError: no pictures or some beyond [0, 1], a label that is no class, or vectors or logits of a wrong
            number or that are not finite.
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
        named = F.normalize(class_vectors, dim=1)[scores.argmax(dim=1).to(class_vectors.device)]
        scores = named @ F.normalize(label_vectors, dim=1).T
    places = ranking(scores, own=labels)  # refuses a label that is no class
    labels = labels.long().to(scores.device)
    if class_vectors is not None:
        similarity = _similarity(scores[:, labels])
    constant = float(labels.bincount().max()) / len(labels)
    return Content(places, scores.shape[1], constant, similarity)


def audio_image_similarity(sounds: Float[Tensor, "pairs width"], pictures: Float[Tensor, "pairs width"]) -> Similarity:
    """AIS: how alike sounds and the pictures made from them are, by an encoder of both, such as Wav2CLIP with CLIP.

    Args:
        sounds: `(pairs, width)`, one vector for each sound, of any length.
        pictures: `(pairs, width)`, one for its picture, in the same space.

    Raises:
        ParameterError: no pairs, not as many of both, or a vector that is not finite.
    """
    return _similarity(retrieval(sounds, pictures).similarity)


def image_image_similarity(
    generated: Float[Tensor, "pairs 3 height width"],
    true: Float[Tensor, "frames 3 true_height true_width"],
    encode: Callable[[Tensor], Tensor],
) -> Similarity:
    """IIS: how alike generated pictures and the frames of their clips are, by an encoder, CLIP's in the paper.

    Args:
        generated: `(pairs, 3, height, width)` in [0, 1].
        true: as many, of any size, in [0, 1].
        encode: pictures to vectors `(pairs, width)`.

    Raises:
        ParameterError: no pairs, not as many of both, pictures beyond [0, 1], or vectors that are not finite.
    """
    if len(generated) != len(true):
        raise ParameterError("generated, true", f"{len(generated)} and {len(true)}", "one of each for every clip")
    _check_pictures("generated", generated)
    _check_pictures("true", true)
    vectors = (_applied("encode", encode, pictures) for pictures in (generated, true))
    return _similarity(retrieval(*vectors).similarity)


def frechet_distance(first: Float[Tensor, "items width"], second: Float[Tensor, "others same_width"]) -> float:
    """How far apart two sets of vectors are, taken as normal distributions: the FID, if they are Inception's.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), of means m and covariances S (Heusel et al. 2017, equation 6). It says
    something of large samples only: of small ones it is too large, also between samples of one distribution, and of
    fewer than `width` the covariance is not even of full rank. So compare it with that between two halves of the true
    ones, at the same number of items.

    Args:
        first: `(items, width)`, vectors of any encoder.
        second: `(others, width)`, of the same.

    Raises:
        ParameterError: fewer than two of either, unequal widths, or a vector that is not finite.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        found = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ParameterError("first, second", found, "two or more of each, of one width")
    for name, vectors in (("first", first), ("second", second)):
        require_finite(name, vectors)
    one, other = (vectors.detach().double().cpu().numpy() for vectors in (first, second))
    # With S1 = R1' R1 and S2 = R2' R2 the trace of (S1 S2)^(1/2) is the sum of the singular values of R1 R2': so no
    # root of a matrix is needed that is not symmetric, and often singular.
    roots = [np.linalg.qr(x - x.mean(0), mode="r") / math.sqrt(len(x) - 1) for x in (one, other)]
    spread = sum(float((root**2).sum()) for root in roots)
    together = float(np.linalg.norm(roots[0] @ roots[1].T, "nuc"))
    return max(0.0, float(((one.mean(0) - other.mean(0)) ** 2).sum()) + spread - 2 * together)


def _similarity(matrix: Float[Tensor, "pairs pairs"]) -> Similarity:
    """Of the cosines of all firsts with all seconds."""
    own, count = matrix.diagonal(), len(matrix)
    others = (matrix.sum(dim=1) - own) / (count - 1)  # 0 / 0 of one pair, which is NaN
    return Similarity(own, others, ranking(matrix))


def _applied(name: str, function: Callable[[Tensor], Tensor], pictures: Tensor) -> Float[Tensor, "pictures width"]:
    """What a classifier or encoder of the caller gives, if it can be used."""
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
