"""Figures of merit: retrieval, generated pictures, classification and regression. All are plain floats.

Figures are over a whole split at once; the mean of R2 or CCC over batches has no meaning. Tensors may be on any device.

CAV-MAE's figures are those of its `retrieval.py` and `utilities/stats.py`, except where two scores are equal, a class
has no positives, or something is NaN. AudioToken (Yariv et al., Interspeech 2023) names AIC, AIS and IIS, but its
repository has code for none of them. Whether the paper counts raw cosines or ranks could not be found out, so both are
given. A cosine means little by itself, since those of unrelated pairs are far from 0 in most encoders: beside each
stands that of the wrong pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from .errors import ParameterError, check_choice, check_number, check_whole
from .tables import html_table

Numbers = Tensor | np.ndarray | Sequence[int] | Sequence[float]
Scores = Float[Tensor, "items classes"]  # higher is more likely: logits, or probabilities

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
    """Agreement of pictures with the labels of their sounds."""

    ranking: Ranking  # of each label among the classes
    classes: int

    @property
    def share(self) -> float:
        """The share of pictures whose label comes first; equals count in part."""
        return self.ranking.recall(1)

    @property
    def chance(self) -> float:
        return 1 / self.classes


def audio_image_content(
    pictures: Float[Tensor, "pictures 3 height width"],
    labels: Int[Tensor, " sounds"],
    classify: Callable[[Tensor], Tensor],
) -> Content:
    """AIC: how often a classifier of pictures predicts the label of their sounds.

    Args:
        pictures: in [0, 1].
        labels: the number of the label of each picture's sound, among the classes.
        classify: pictures to logits `(pictures, classes)`.
    """
    if labels.shape != pictures.shape[:1]:
        raise ParameterError("labels", f"{len(labels)}", f"one for each of {len(pictures)} pictures")
    scores = _applied("classify", classify, "pictures", pictures)
    return Content(ranking(scores, own=labels), scores.shape[1])


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
    vectors = (_applied("encode", encode, *each) for each in (("generated", generated), ("true", true)))
    return _similarity(retrieval(*vectors).similarity)


def _similarity(matrix: Float[Tensor, "pairs pairs"]) -> Similarity:
    own, count = matrix.diagonal(), len(matrix)
    others = (matrix.sum(dim=1) - own) / (count - 1)  # 0 / 0 of one pair, which is NaN
    return Similarity(own, others, ranking(matrix))


def _applied(name: str, function: Callable[[Tensor], Tensor], subject: str, pictures: Tensor) -> Tensor:
    """The rows `(pictures, width)` that a classifier or encoder of the caller gives, checked."""
    if not len(pictures):
        raise ParameterError(subject, "none", "at least one picture")
    require_finite(subject, pictures.flatten(1))
    if pictures.min() < 0 or pictures.max() > 1:
        found, advice = f"{pictures.min():.2f} to {pictures.max():.2f}", "Of [-1, 1] give (pictures + 1) / 2."
        raise ParameterError(subject, found, "pixels from 0 to 1", advice)
    with torch.no_grad():
        rows = function(pictures)
    if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(pictures):
        found = f"gives {tuple(rows.shape)}" if isinstance(rows, Tensor) else f"gives a {type(rows).__name__}"
        raise ParameterError(name, found, f"a tensor with a row for each of {len(pictures)} pictures")
    require_finite(name, rows)
    return rows.float()


def mean_average_precision(scores: Scores, targets: Tensor) -> float:
    """Mean average precision over the classes with positives, targets of 1; NaN if none has any."""
    if scores.shape != targets.shape or not len(scores):
        raise ParameterError("targets", f"{tuple(targets.shape)}", f"the shape of scores, {tuple(scores.shape)}, not 0")
    require_finite("scores", scores)
    if not ((targets == 0) | (targets == 1)).all():
        raise ParameterError("targets", "other values than 0 and 1", "labels without smoothing or mixing")
    return _precision_and_auc(scores.detach().double().cpu().numpy(), targets.cpu().numpy().astype(bool))[0]


def accuracy(scores: Scores, targets: Tensor) -> float:
    """The share of items whose highest score is at their class.

    Of equal highest scores each counts in part, so that a model with constant scores is at chance. Targets are class
    indices `(items,)`, or `(items, classes)`, of which the largest are right.
    """
    return float(correct(scores, targets).mean())


def correct(scores: Scores, targets: Tensor) -> Float[Tensor, " items"]:
    """1 for each item whose class is right, else 0; see `accuracy`. For `lower_bound`."""
    if not len(scores) or targets.shape not in (scores.shape, scores.shape[:1]):
        found = f"{tuple(targets.shape)} for scores {tuple(scores.shape)}"
        raise ParameterError("targets", found, "a row, or a class, for each of one or more items")
    require_finite("scores", scores)
    if targets.ndim == 1:
        targets = F.one_hot(targets.long(), scores.shape[1])
    highest, right = (values == values.amax(dim=1, keepdim=True) for values in (scores, targets))
    return (highest & right).sum(dim=1).float() / highest.sum(dim=1)


def ensemble(logits: Float[Tensor, "frames items classes"], task: str = "multi-label") -> Scores:
    """Mean probabilities over several frames of each item, as published.

    "multi-label" takes sigmoids (AudioSet, scored by mAP), "single-label" softmaxes (VGGSound, by accuracy).
    """
    check_choice("task", task, ("multi-label", "single-label"))
    if not len(logits):
        raise ParameterError("logits", "of no frame", "of at least one")
    return (logits.sigmoid() if task == "multi-label" else logits.softmax(dim=-1)).mean(dim=0)


def _precision_and_auc(scores: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Average precision and area under the ROC curve, each the mean over the classes for which it is defined."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    positives = true.sum(axis=0)
    precision = [average_precision_score(true[:, index], scores[:, index]) for index in np.flatnonzero(positives)]
    both = np.flatnonzero((positives > 0) & (positives < len(true)))
    auc = [roc_auc_score(true[:, index], scores[:, index]) for index in both]
    return tuple(float(np.mean(values)) if len(values) else math.nan for values in (precision, auc))


class Calibration(NamedTuple):
    """Confidence and accuracy in bins of confidence; NaN in empty bins.

    `edges` is `(bins + 1,)`, all others `(bins,)`. `confidence` is the mean of the highest probability.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two over clips."""
        filled = self.count > 0
        distance = np.abs(self.accuracy - self.confidence)[filled]
        return float((self.count[filled] * distance).sum() / self.count.sum())

    def _repr_html_(self) -> str:
        names = [f"{low:.2f} to {high:.2f}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        columns = {"probability": names, "clips": self.count, "confidence": self.confidence, "accuracy": self.accuracy}
        return html_table(columns)


def confusion(predicted: Numbers, targets: Numbers, num_classes: int) -> Int[np.ndarray, "classes classes"]:
    """Confusion matrix: a row for each true class, a column for each predicted one."""
    from sklearn.metrics import confusion_matrix

    predicted, targets = _classes(predicted, targets, num_classes)
    return confusion_matrix(targets, predicted, labels=range(num_classes))


def balanced_accuracy(predicted: Numbers, targets: Numbers) -> float:
    """UAR, unweighted average recall, over the classes of the targets."""
    predicted, targets = _classes(predicted, targets)
    return float(np.mean([(predicted[targets == label] == label).mean() for label in np.unique(targets)]))


def sensitivity_at_specificity(scores: Numbers, targets: Numbers, specificity: float | int = 0.9) -> float:
    """Recall of class 1 by a threshold which `specificity` of class 0 stays below.

    The higher a score, the more it is class 1. Where the clips have one class, the result is NaN.
    """
    from sklearn.metrics import roc_curve

    check_number("specificity", specificity, 0, 1)
    scores, _ = _pairs("scores", scores, targets)
    targets, _ = _classes(targets, targets, 2)
    if len(np.unique(targets)) < 2:
        return math.nan
    false, true, _ = roc_curve(targets, scores, drop_intermediate=False)
    return float(true[false <= 1 - specificity + 1e-12].max())


def classification_figures(logits: Float[Tensor, "items classes"], targets: Numbers) -> dict[str, float]:
    """Accuracy, UAR, AUROC and AP of a split, by name.

    Of two classes, AP is that of the second, and there is the sensitivity at a specificity of 0.9; of more, AUROC and
    AP are means over classes, each against the rest. The class of the highest logit is the predicted one; among equals
    the first. Chance of AUROC is 0.5, of AP the share of the class.
    """
    require_finite("logits", logits)
    predicted, found = _classes(logits.argmax(dim=1), targets, logits.shape[1])
    binary, logits = logits.shape[1] == 2, logits.detach().double()
    scores = (logits[:, 1:] - logits[:, :1] if binary else logits.softmax(dim=1)).cpu().numpy()
    classes = [1] if binary else range(logits.shape[1])
    precision, auc = _precision_and_auc(scores, np.stack([found == label for label in classes], axis=1))
    figures = {"accuracy": float((predicted == found).mean()), "UAR": balanced_accuracy(predicted, found)}
    figures |= {"AUROC": auc, "AP": precision}
    return figures | ({"sensitivity at 0.9": sensitivity_at_specificity(scores[:, 0], found)} if binary else {})


def calibration(probabilities: Scores, targets: Numbers, bins: int = 10) -> Calibration:
    """Compare a model's confidence with its accuracy. Guo et al., arXiv:1706.04599, section 2.

    The highest probability gives the predicted class and its confidence. Bins of equal width have their upper edge.
    """
    check_whole("bins", bins, 1)
    values = probabilities.detach().double().cpu().numpy()
    if not (len(values) and (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3)):
        raise ParameterError("probabilities", "rows that do not sum to 1, or none", "probabilities, as softmax gives")
    predicted, targets = _classes(values.argmax(axis=1), targets, values.shape[1])
    sure, right, edges = values.max(axis=1), predicted == targets, np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights, bins) for weights in (sure, right))
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums]
    return Calibration(edges, count, *means)


def regression_figures(predicted: Numbers, targets: Numbers) -> dict[str, float]:
    """MSE, MAE, R2, CCC and Pearson's r of a split, by name.

    R2 is 0 for the mean of the targets. Lin's concordance correlation coefficient, 2 cov / (var + var + (difference of
    means)^2), is 1 only on the diagonal, and 0 for a constant. R2, r and CCC are NaN where they have no meaning: equal
    targets, or a constant prediction (r).
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    predicted, targets = _pairs("predicted", predicted, targets)
    figures = {"MSE": mean_squared_error(targets, predicted), "MAE": mean_absolute_error(targets, predicted)}
    varied = [len(np.unique(values)) > 1 for values in (targets, predicted)]
    figures["R2"] = r2_score(targets, predicted) if varied[0] else math.nan
    figures["CCC"] = concordance(predicted, targets)
    figures["Pearson"] = np.corrcoef(targets, predicted)[0, 1] if all(varied) else math.nan
    return {name: float(value) for name, value in figures.items()}


def concordance(predicted: Numbers, targets: Numbers) -> float:
    """Lin's concordance correlation coefficient; see `regression_figures`. Variances are those of the clips, over n."""
    x, y = _pairs("predicted", predicted, targets)
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    below = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * covariance / below) if below > 0 and y.var() > 0 else math.nan


class Interval(NamedTuple):
    """A figure of a split and its confidence interval over other speakers."""

    value: float
    low: float
    high: float
    draws: int  # those in which the figure had a meaning


class GroupTable(NamedTuple):
    """Figures of each group of clips; a notebook shows a table."""

    names: tuple[Any, ...]
    count: np.ndarray
    figures: dict[str, np.ndarray]

    @property
    def spread(self) -> dict[str, float]:
        """The best group minus the worst, for each figure; NaN is ignored."""
        found = {name: values[~np.isnan(values)] for name, values in self.figures.items()}
        return {name: float(np.ptp(values)) if len(values) else math.nan for name, values in found.items()}

    def _repr_html_(self) -> str:
        return html_table({"group": [str(name) for name in self.names], "clips": self.count, **self.figures})


def group_table(
    figures: Mapping[str, Callable[..., float]], groups: Sequence | np.ndarray | Tensor, *values: Any
) -> GroupTable:
    """Compute figures of each group of clips: by word, by age, by speaker.

    `figures` are functions by name, `{"UAR": balanced_accuracy}`, of `values` with a row for each clip.
    """
    names, places = _grouped(groups, values)
    parts = [[_rows(value, place) for value in values] for place in places]
    found = {name: np.array([figure(*part) for part in parts], dtype=float) for name, figure in figures.items()}
    return GroupTable(names, np.array([len(place) for place in places]), found)


def bootstrap_interval(
    figure: Callable[..., float], groups: Sequence | np.ndarray | Tensor, *values: Any,
    confidence: float | int = 0.95, draws: int = 1000, seed: int = 0,
) -> Interval:  # fmt: skip
    """Bootstrap interval of a figure over speakers: whole speakers are drawn anew.

    Clips of one speaker are alike: drawing clips one by one gives an interval that is too narrow. Percentiles of the
    figure over `draws` splits, each of as many speakers, drawn with replacement. With few speakers it is too narrow as
    well. Draws in which the figure is NaN (a class is missing) do not count; if all are, both ends are NaN.

    `groups` has the speaker of each clip, each of `values` a row for it.
    """
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"{confidence}", "between 0 and 1")
    check_whole("draws", draws, 1)
    check_whole("seed", seed, 0)
    _, places = _grouped(groups, values)
    if len(places) < 2:
        raise ParameterError("groups", f"{len(places)}", "two or more", "One speaker says nothing about others.")
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = np.concatenate([places[number] for number in rng.integers(len(places), size=len(places))])
        found.append(figure(*(_rows(value, drawn) for value in values)))
    counted = np.array(found, dtype=float)
    counted = counted[~np.isnan(counted)]
    ends = np.quantile(counted, [(1 - confidence) / 2, (1 + confidence) / 2]) if len(counted) else (math.nan, math.nan)
    return Interval(float(figure(*values)), float(ends[0]), float(ends[1]), len(counted))


def _grouped(groups: Any, values: Sequence) -> tuple[tuple, list[np.ndarray]]:
    """Names of the groups, sorted, and the numbers of the clips of each."""
    groups = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if not len(groups) or any(len(value) != len(groups) for value in values):
        found = f"{len(groups)} for {', '.join(str(len(value)) for value in values)} values"
        raise ParameterError("groups", found, "one for each of one or more clips")
    names, place = np.unique(groups, return_inverse=True)
    return tuple(names.tolist()), [np.flatnonzero(place == number) for number in range(len(names))]


def _rows(value: Any, place: np.ndarray) -> Any:
    return value[torch.from_numpy(place).to(value.device)] if isinstance(value, Tensor) else np.asarray(value)[place]


def _pairs(name: str, first: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two as float64: one number each for the same clips."""
    found = []
    for each, values in ((name, first), ("targets", targets)):
        tensor = isinstance(values, Tensor)
        values = values.detach().double().cpu().numpy() if tensor else np.asarray(values, dtype=float)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            wrong = f"of shape {values.shape}, or not finite"
            raise ParameterError(each, wrong, "one number for each of one or more clips")
        found.append(values)
    if len(found[0]) != len(found[1]):
        raise ParameterError(name, f"{len(found[0])}", f"as many as targets, {len(found[1])}")
    return found[0], found[1]


def _classes(predicted: Any, targets: Any, num_classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    found = _pairs("predicted", predicted, targets)
    for name, values in zip(("predicted", "targets"), found, strict=True):
        highest = math.inf if num_classes is None else num_classes - 1
        if (values != values.round()).any() or values.min() < 0 or values.max() > highest:
            known = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
            raise ParameterError(name, f"{values.min():g} to {values.max():g}", f"whole numbers of classes, {known}")
    return found[0].astype(int), found[1].astype(int)
