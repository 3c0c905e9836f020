"""One class or one number for each clip: how often right, for whom, how surely, and how well that is known.

Figures are over a whole split at once. The mean of a figure over batches is another number: of R2 or CCC, one without a
meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ParameterError
from ..tables import html_table
from .scores import per_class, require_finite

Numbers = Tensor | np.ndarray | Sequence[int] | Sequence[float]

# One class for each clip


class Calibration(NamedTuple):
    """How sure a model was, and how often it was right, for clips by how sure it was; NaN in bins without clips.

    `edges` is `(bins + 1,)`, all others `(bins,)`.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray  # mean of the highest probability
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, by how many clips are in a bin."""
        filled = self.count > 0
        distance = np.abs(self.accuracy - self.confidence)[filled]
        return float((self.count[filled] * distance).sum() / self.count.sum())

    @property
    def worst(self) -> float:
        """The largest distance of any bin."""
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))

    def _repr_html_(self) -> str:
        names = [f"{low:.2f} to {high:.2f}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        columns = {"probability": names, "clips": self.count, "confidence": self.confidence, "accuracy": self.accuracy}
        return html_table(columns)


def confusion(predicted: Numbers, targets: Numbers, num_classes: int) -> Int[np.ndarray, "classes classes"]:
    """How many clips of each class (row) were taken for each class (column).

    Raises:
        ParameterError: no clips, not as many of both, or a class that there is not.
    """
    from sklearn.metrics import confusion_matrix

    predicted, targets = _classes(predicted, targets, num_classes)
    return confusion_matrix(targets, predicted, labels=range(num_classes))


def recalls(predicted: Numbers, targets: Numbers, num_classes: int) -> Float[np.ndarray, " classes"]:
    """Of the clips of each class, the share that is recognised; NaN for a class without clips."""
    table = confusion(predicted, targets, num_classes)
    count = table.sum(axis=1)
    return np.divide(np.diag(table), count, out=np.full(num_classes, np.nan), where=count > 0)


def balanced_accuracy(predicted: Numbers, targets: Numbers) -> float:
    """UAR, unweighted average recall: the mean over classes of the share that is recognised. Chance is 1 / classes.

    Over the classes that the clips have, as scikit-learn has it.

    Raises:
        ParameterError: no clips, or not as many of both.
    """
    predicted, targets = _classes(predicted, targets)
    return float(np.mean([(predicted[targets == label] == label).mean() for label in np.unique(targets)]))


def auroc(scores: Numbers | Float[Tensor, "items classes"], targets: Numbers) -> float:
    """Area under the ROC curve; chance is 0.5. NaN where the clips have one class.

    Args:
        scores: `(items,)`, the higher the more it is class 1; or `(items, classes)`, of which the mean over classes,
            each against the rest, is taken, without those that the clips do not have. Of two classes either is the
            same, if scores are probabilities.
        targets: `(items,)`, numbers of classes.

    Raises:
        ParameterError: no clips, not as many of both, scores that are not finite, or a class that there is not.
    """
    return _per_class(scores, targets).mean_auc


def average_precision(scores: Numbers | Float[Tensor, "items classes"], targets: Numbers) -> float:
    """Mean of the precision at each clip of the class, from the highest score down; chance is the share of the class.

    Args:
        scores: see `auroc`.
        targets: likewise. With `(items,)` scores NaN where no clip is of class 1.
    """
    return _per_class(scores, targets).mean_average_precision


def sensitivity_at_specificity(scores: Numbers, targets: Numbers, specificity: float | int = 0.9) -> float:
    """Of class 1, the share that is found by a threshold which at least `specificity` of class 0 stays below.

    Args:
        scores: `(items,)`, the higher the more it is class 1.
        targets: `(items,)`, 0 or 1.
        specificity: from 0 to 1.

    Returns:
        NaN where the clips have one class.

    Raises:
        ParameterError: no clips, not as many of both, scores that are not finite, or a number out of range.
    """
    from sklearn.metrics import roc_curve

    if not 0 <= specificity <= 1:
        raise ParameterError("specificity", f"{specificity}", "0 to 1")
    scores = _numbers("scores", scores)
    targets, _ = _classes(targets, targets, 2)
    _require_as_many("scores", scores, targets)
    if len(np.unique(targets)) < 2:
        return math.nan
    false, true, _ = roc_curve(targets, scores, drop_intermediate=False)
    return float(true[false <= 1 - specificity + 1e-12].max())


def classification_figures(logits: Float[Tensor, "items classes"], targets: Numbers) -> dict[str, float]:
    """The figures of a split by name, as an evaluation gives them: accuracy, UAR, AUROC and AP.

    Of two classes, AP is that of the second, and there is the sensitivity at a specificity of 0.9; of more, AUROC and
    AP are means over classes. The class of the highest logit is the predicted one; among equals the first.

    Args:
        logits: `(items, classes)`, of which a softmax makes probabilities.
        targets: `(items,)`, numbers of classes.

    Raises:
        ParameterError: no clips, not as many of both, scores that are not finite, or a class that there is not.
    """
    require_finite("logits", logits)
    predicted, found = _classes(logits.argmax(dim=1), targets, logits.shape[1])
    binary, logits = logits.shape[1] == 2, logits.detach().double()
    scores = logits[:, 1] - logits[:, 0] if binary else logits.softmax(dim=1)
    table = _per_class(scores, found)
    figures = {"accuracy": float((predicted == found).mean()), "UAR": balanced_accuracy(predicted, found)}
    figures |= {"AUROC": table.mean_auc, "AP": table.mean_average_precision}
    return figures | ({"sensitivity at 0.9": sensitivity_at_specificity(scores, found)} if binary else {})


def calibration(probabilities: Float[Tensor, "items classes"], targets: Numbers, bins: int = 10) -> Calibration:
    """Whether a model is right as often as it is sure. Guo et al., arXiv:1706.04599, section 2.

    Args:
        probabilities: `(items, classes)`, of which the highest says the class and how sure the model is.
        targets: `(items,)`, numbers of classes.
        bins: of equal width from 0 to 1, each with its upper edge.

    Raises:
        ParameterError: no clips, not as many of both, rows that are no probabilities, no bins.
    """
    if bins < 1:
        raise ParameterError("bins", f"{bins}", "1 or more")
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


# One number for each clip


def regression_figures(predicted: Numbers, targets: Numbers) -> dict[str, float]:
    """MSE, MAE, R2, CCC and Pearson's r of a split, by name.

    R2 is 0 for whoever always says the mean of the targets. Lin's concordance correlation coefficient,
    2 cov / (var + var + (difference of means)^2), is 1 only on the diagonal, and 0 for a constant. R2, r and CCC are
    NaN where they have no meaning: equal targets, or a constant prediction (r).

    Args:
        predicted: `(items,)`.
        targets: `(items,)`.

    Raises:
        ParameterError: no clips, not as many of both, or a value that is not finite.
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    predicted, targets = _numbers("predicted", predicted), _numbers("targets", targets)
    _require_as_many("predicted", predicted, targets)
    figures = {"MSE": mean_squared_error(targets, predicted), "MAE": mean_absolute_error(targets, predicted)}
    varied, said = len(np.unique(targets)) > 1, len(np.unique(predicted)) > 1
    figures["R2"] = r2_score(targets, predicted) if varied else math.nan
    figures["CCC"] = concordance(predicted, targets)
    figures["Pearson"] = np.corrcoef(targets, predicted)[0, 1] if varied and said else math.nan
    return {name: float(value) for name, value in figures.items()}


def concordance(predicted: Numbers, targets: Numbers) -> float:
    """Lin's concordance correlation coefficient; see `regression_figures`. Variances are those of the clips, over n."""
    x, y = _numbers("predicted", predicted), _numbers("targets", targets)
    _require_as_many("predicted", x, y)
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    below = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * covariance / below) if below > 0 and y.var() > 0 else math.nan


# By group


class Interval(NamedTuple):
    """A figure of a split, and between which values it would mostly be with other speakers."""

    value: float
    low: float
    high: float
    draws: int  # those in which the figure had a meaning


class GroupTable(NamedTuple):
    """A figure for each group of clips by itself. A notebook shows it as a table."""

    names: tuple[Any, ...]
    count: np.ndarray
    figures: dict[str, np.ndarray]

    @property
    def spread(self) -> dict[str, float]:
        """For each figure, how far apart the best and the worst group are; groups without the figure are left out."""
        found = {name: values[~np.isnan(values)] for name, values in self.figures.items()}
        return {name: float(np.ptp(values)) if len(values) else math.nan for name, values in found.items()}

    def _repr_html_(self) -> str:
        return html_table({"group": [str(name) for name in self.names], "clips": self.count, **self.figures})


def group_table(
    figures: Mapping[str, Callable[..., float]], groups: Sequence | np.ndarray | Tensor, *values: Any
) -> GroupTable:
    """Figures of each group of clips by itself: by word, by age, by speaker.

    Args:
        figures: by name, what gives a figure from the clips' values: `{"UAR": balanced_accuracy}`.
        groups: `(items,)`, of which group each clip is.
        values: each with a row for each clip, in the order in which the figures take them.

    Raises:
        ParameterError: no clips, not as many rows as groups, or what a figure itself refuses.
    """
    names, places = _grouped(groups, values)
    found = {
        name: np.array([figure(*(_rows(value, place) for value in values)) for place in places], dtype=float)
        for name, figure in figures.items()
    }
    return GroupTable(names, np.array([len(place) for place in places]), found)


def bootstrap_interval(
    figure: Callable[..., float],
    groups: Sequence | np.ndarray | Tensor,
    *values: Any,
    confidence: float | int = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Between which values a figure would mostly be, had other speakers been there: whole speakers are drawn anew.

    Clips of one speaker are alike. To draw clips one by one, as if each were news, gives an interval that is too
    narrow. Percentiles of the figure over `draws` splits, each of as many speakers, drawn with replacement. With few
    speakers it is too narrow as well.

    Args:
        figure: gives a figure from the clips' values: `balanced_accuracy`.
        groups: `(items,)`, the speaker of each clip.
        values: each with a row for each clip, in the order in which the figure takes them.
        confidence: half of the rest is on each side.
        draws: how many; those in which the figure is NaN (a class is missing) do not count.
        seed: of the draws.

    Returns:
        NaN for both ends if the figure never had a meaning.

    Raises:
        ParameterError: fewer than two groups, not as many rows as groups, a confidence outside (0, 1), no draws.
    """
    if not 0 < confidence < 1:
        raise ParameterError("confidence", f"{confidence}", "between 0 and 1")
    if draws < 1 or seed < 0:
        raise ParameterError("draws, seed", f"{draws}, {seed}", "1 or more, and 0 or more")
    _, places = _grouped(groups, values)
    if len(places) < 2:
        raise ParameterError("groups", f"{len(places)}", "two or more", "One speaker says nothing about others.")
    dice, found = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = np.concatenate([places[number] for number in dice.integers(len(places), size=len(places))])
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


def _numbers(name: str, values: Any) -> np.ndarray:
    values = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ParameterError(
            name, f"of shape {values.shape}, or not finite", "one number for each of one or more clips"
        )
    return values


def _classes(predicted: Any, targets: Any, num_classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    found = [_numbers(name, values) for name, values in (("predicted", predicted), ("targets", targets))]
    _require_as_many("predicted", *found)
    for name, values in zip(("predicted", "targets"), found, strict=True):
        highest = math.inf if num_classes is None else num_classes - 1
        if (values != values.round()).any() or values.min() < 0 or values.max() > highest:
            known = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
            raise ParameterError(name, f"{values.min():g} to {values.max():g}", f"whole numbers of classes, {known}")
    return found[0].astype(int), found[1].astype(int)


def _per_class(scores: Any, targets: Any):
    scores = torch.as_tensor(scores).detach().cpu()
    scores = scores[:, None] if scores.ndim == 1 else scores
    single = scores.shape[1] == 1
    found, _ = _classes(targets, targets, 2 if single else scores.shape[1])
    _require_as_many("scores", scores, found)
    classes = [1] if single else range(scores.shape[1])
    return per_class(scores.double(), torch.from_numpy(np.stack([found == label for label in classes], axis=1)).int())


def _require_as_many(name: str, first: Any, second: Any) -> None:
    if len(first) != len(second):
        raise ParameterError(name, f"{len(first)}", f"as many as targets, {len(second)}")
