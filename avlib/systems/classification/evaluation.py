"""Figures on held-out clips, with baselines and intervals; folds and reports.

The lower end of an interval is the lower of two: that of a bootstrap over whole speakers, since clips of one speaker
are alike, and Wilson's, since a bootstrap of ten clips that are all right is always ten right clips.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import metrics
from ...errors import ParameterError, check_choice, check_whole
from ...tables import html_table
from .. import Figure, Report, Trained
from .data import again
from .learning import trained
from .predicting import Prediction, baseline_predictions, joined, predict
from .settings import Settings

_COMMONEST, _CHANCE, _MEAN = "always the commonest", "chance", "always the mean"
_FEW = 30  # clips, below which the report says how little they prove


def evaluate(model: nn.Module, settings: Settings, *, progress: bool = True) -> dict[str, Figure]:
    """Compute all figures on the test part, beside chance and two baselines."""
    own = again(settings, progress=progress)
    if own.test is None:
        raise ParameterError("test_size", f"{settings.data.test_size:g}", "more than 0: no clips are left to test on")
    found = predict(model, own.test, progress=progress)
    return figures(found, baseline_predictions(own.train, own.test))


def figures(
    prediction: Prediction, baselines: Mapping[str, Prediction] | None = None, *, draws: int = 300
) -> dict[str, Figure]:
    """Compute figures over all clips at once, each beside chance.

    Of classes: accuracy, UAR, AUROC, AP, and of two also the sensitivity at a specificity of 0.9. Of numbers: MSE, MAE,
    R2, CCC and Pearson's r, beside always predicting the mean of these clips. AUROC's lower end is by the number of
    clips alone; AP, errors and r have none. `baselines` are of the same clips; their figures follow the first ones of
    the model, as "UAR, duration alone". `draws` are of the bootstrap over speakers.
    """
    compute = _of_numbers if prediction.task == "regression" else _of_classes
    found = compute(prediction, draws)
    shown = ("R2", "CCC", "MAE") if prediction.task == "regression" else ("accuracy", "UAR", "AUROC")
    others = {name: compute(other, draws) for name, other in (baselines or {}).items()}
    result = {}
    for name, figure in found.items():
        result[name] = figure
        result |= {f"{name}, {other}": rows[name] for other, rows in others.items() if name in shown}
    return result


def _of_classes(prediction: Prediction, draws: int) -> dict[str, Figure]:
    targets, count = prediction.targets, prediction.logits.shape[1]
    number = torch.bincount(targets, minlength=count)
    shares = number[number > 0].double() / len(prediction)
    found = metrics.classification_figures(prediction.logits, targets)
    hits = (prediction.predicted == targets).double()
    simple = {
        "accuracy": (float(shares.max()), _COMMONEST),
        "UAR": (1 / len(shares), _CHANCE),
        "AUROC": (0.5, _CHANCE),
        "AP": (float(shares.mean()) if count > 2 else float(number[1]) / len(prediction), _CHANCE),
        "sensitivity at 0.9": (0.1, _CHANCE),
    }
    drawn = {
        "accuracy": lambda logits, truth: float((logits.argmax(dim=1) == truth).double().mean()),
        "UAR": lambda logits, truth: metrics.balanced_accuracy(logits.argmax(dim=1), truth),
        "sensitivity at 0.9": lambda logits, truth: metrics.sensitivity_at_specificity(
            logits[:, 1] - logits[:, 0], truth
        ),
    }
    counted = {  # lower ends for independent clips
        "accuracy": metrics.lower_bound(hits),
        "UAR": _low_of_mean([hits[targets == label] for label in range(count) if number[label]]),
        # of such an area the variance is at most that of a share of so many clips (Birnbaum and Klose, 1957)
        "AUROC": _wilson(found["AUROC"], int(number[number > 0].min())),
        "sensitivity at 0.9": _wilson(found.get("sensitivity at 0.9", math.nan), int(number[-1])),
    }
    lows = {name: _bootstrap(figure, prediction, draws) for name, figure in drawn.items() if name in found}
    result = {}
    for name, value in found.items():
        ends = [low for low in (lows.get(name), counted.get(name)) if low is not None and not math.isnan(low)]
        result[name] = Figure(value, *simple[name], low=min(ends, default=None))
    return result


def _of_numbers(prediction: Prediction, draws: int) -> dict[str, Figure]:
    truth = prediction.targets.double()
    found = metrics.regression_figures(prediction.predicted, truth)
    mean = metrics.regression_figures(truth.mean().expand(len(truth)), truth)
    simple = mean | {"R2": 0.0, "CCC": 0.0, "Pearson": 0.0}
    drawn = {
        "R2": lambda logits, targets: metrics.regression_figures(logits[:, 0], targets)["R2"],
        "CCC": lambda logits, targets: metrics.concordance(logits[:, 0], targets),
    }
    lows = {name: _bootstrap(figure, prediction, draws) for name, figure in drawn.items()}
    return {name: Figure(value, simple[name], _MEAN, lows.get(name)) for name, value in found.items()}


def _bootstrap(figure: Callable[..., float], prediction: Prediction, draws: int) -> float | None:
    """The lower end over draws of speakers; None for a single one."""
    groups = prediction.groups
    if len(set(groups)) < 2:
        return None
    found = metrics.bootstrap_interval(figure, groups, prediction.logits, prediction.targets, draws=draws)
    return None if math.isnan(found.low) else found.low


def _wilson(share: float, count: int) -> float:
    return math.nan if math.isnan(share) or not count else metrics.lower_bound([share] * count)


def _low_of_mean(parts: Sequence[Tensor]) -> float:
    """The lower end of a mean of shares, from that of each (Zou and Donner, Statistics in Medicine 27, 2008).

    At most that of one share of as many clips as are as informative: of classes of the same size, all of them.
    """
    shares = [float(part.mean()) for part in parts]
    below = [share - metrics.lower_bound(part) for share, part in zip(shares, parts, strict=True)]
    as_many = len(parts) ** 2 / sum(1 / len(part) for part in parts)
    mean = float(np.mean(shares))
    return min(mean - math.hypot(*below) / len(parts), _wilson(mean, math.floor(as_many + 1e-9)))


def describe_sample(prediction: Prediction, group: str = "") -> str:
    """Describe how many clips and speakers, or groups by another column, figures rest on."""
    kept = prediction.groups if group else prediction.speakers
    known = len(set(kept)) if all(kept) else 0
    of_whom = f" by {known} speaker{'s' * (known > 1)}" if known else ", of speakers that are not named"
    if group:
        of_whom = f" of {known} group{'s' * (known > 1)}, by the column {group}"
    text = f"{len(prediction)} clip{'s' * (len(prediction) > 1)}{of_whom}"
    if prediction.task == "classification":
        number = torch.bincount(prediction.targets, minlength=prediction.logits.shape[1]).tolist()
        counts = ", ".join(f"{count} {name}" for name, count in zip(prediction.names, number, strict=True))
        hits = prediction.predicted == prediction.targets
        low, high, right = metrics.lower_bound(hits), 1 - metrics.lower_bound(~hits), int(hits.sum())
        text += (
            f" ({counts}). {right} {'is' if right == 1 else 'are'} right: with 95 % confidence the share of all such "
            f"clips is between {low:.2f} and {high:.2f}, if clips are independent"
        )
    if known == 1:
        text += f". One {'group' if group else 'speaker'} says nothing about others"
    return text + "."


def group_figures(prediction: Prediction, by: str = "word") -> metrics.GroupTable:
    """Compute figures by "word", "age" or "speaker", where it is known.

    Of classes the accuracy, its lower end (Wilson), and UAR, which is NaN where a group has clips of one class only. Of
    numbers MAE, and the mean error, which is above 0 where a group is predicted too high.
    """
    check_choice("by", by, ("word", "age", "speaker"))
    groups = getattr(prediction, f"{by}s")
    known = [place for place, group in enumerate(groups) if group not in ("", None)]
    if not known:
        raise ParameterError("by", f"no clip has a {by}", f"a column {by} in the table of clips")
    if prediction.task == "regression":
        rows = {"MAE": lambda x, y: float((x - y).abs().mean()), "mean error": lambda x, y: float((x - y).mean())}
    else:
        rows = {
            "accuracy": lambda x, y: float((x == y).double().mean()),
            "at least": lambda x, y: metrics.lower_bound(x == y),
            "UAR": lambda x, y: metrics.balanced_accuracy(x, y) if len(y.unique()) > 1 else math.nan,
        }
    return metrics.group_table(
        rows, [groups[place] for place in known], prediction.predicted[known], prediction.targets[known]
    )


class FoldTable(NamedTuple):
    """Figures of each fold, by name `(folds,)`. A notebook shows them as a table."""

    clips: np.ndarray
    figures: dict[str, np.ndarray]

    @property
    def mean(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.figures.items()}

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation with n - 1 as divisor; low, as folds share clips."""
        return {name: float(values.std(ddof=1)) for name, values in self.figures.items()}

    def _repr_html_(self) -> str:
        names = [*map(str, range(len(self.clips))), "mean", "std"]
        rows = {name: [*values, self.mean[name], self.std[name]] for name, values in self.figures.items()}
        return html_table({"fold": names, "clips": [*self.clips.tolist(), "", ""], **rows})


def fold_figures(parts: Sequence[Prediction]) -> FoldTable:
    """Compute figures of each fold; those of all out-of-fold predictions are `figures(joined(parts))`."""
    if len(parts) < 2:
        raise ParameterError("parts", f"{len(parts)}", "the predictions of two folds or more")
    if parts[0].task == "regression":
        rows = [metrics.regression_figures(part.predicted, part.targets) for part in parts]
    else:
        rows = [metrics.classification_figures(part.logits, part.targets) for part in parts]
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return FoldTable(np.array([len(part) for part in parts]), found)


class CrossValidation(NamedTuple):
    """A model for each fold, with figures on the clips that it validates with."""

    table: FoldTable
    predictions: Prediction  # of each clip outside the test part, by the model that was not trained on it
    trained: list[Trained]
    baselines: dict[str, Prediction]  # of the same clips, from the same training parts


def cross_validated(
    settings: Settings, *, device: torch.device | str | None = None, progress: bool = True
) -> CrossValidation:
    """Train a model for each fold, and predict its held-out clips.

    `patience` and `best`, which would choose by what is measured here, are refused.
    """
    if not settings.data.k_fold:
        raise ParameterError("k_fold", "0", "2 or more")
    if settings.training.chooses:
        found = "with patience or best, which look at the fold that is measured"
        raise ParameterError("k_fold", found, "neither", "The figures would be of chosen models.")
    models, predictions, simple = [], [], []
    with warnings.catch_warnings():
        for fold in range(settings.data.k_fold):
            one = replace(settings, data=replace(settings.data, fold=fold), checkpoint="")
            models.append(trained(one, device=device, progress=progress))
            own = again(one, progress=progress)
            predictions.append(predict(models[-1].model, own.valid, progress=progress))
            simple.append(baseline_predictions(own.train, own.valid))
            warnings.simplefilter("ignore", UserWarning)  # of the table, which other folds share
    baselines = {name: joined([one[name] for one in simple]) for name in simple[0]}
    return CrossValidation(fold_figures(predictions), joined(predictions), models, baselines)


def assess(
    model: nn.Module, settings: Settings, *, device: torch.device | str | None = None, progress: bool = True
) -> Report:
    """Report figures of a model, and how many clips they rest on.

    Figures are of the test part; without one of the validation part, if there is one. With `k_fold` the models of all
    folds are trained too, unless a saved model is tested or `patience` or `best` choose by the fold; without a test
    part figures are then of all out-of-fold predictions.
    """
    own = again(settings, progress=progress)
    part = own.test or own.valid
    if part is None:
        return Report({}, "No clip was held out: nothing is known of how good this model is.")
    folds, chosen = None, settings.training.chooses
    if settings.data.k_fold and not (settings.test or chosen):
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # already shown in the training
            folds = cross_validated(settings, device=device, progress=progress)
    if folds and own.test is None:
        found, simple = folds.predictions, folds.baselines
    else:
        found, simple = predict(model, part, progress=progress), baseline_predictions(own.train, part)
    files = {"predictions.csv": found.to_csv}
    remarks = f"These figures are of {describe_sample(found, settings.data.group)}"
    if len(found) < _FEW:
        remarks += f" So few clips prove little; with {_FEW} or more, of several speakers, the interval is narrower."
    if own.test is None and not folds:
        remarks += " There is no test part: they are the validation part, by which the model may have been chosen."
    if settings.data.k_fold and chosen and not settings.test:
        remarks += " Of all folds there are no figures: patience or best look at the fold that would be measured."
    if folds:
        mean, std = folds.table.mean, folds.table.std
        each = ", ".join(f"{name} {mean[name]:.3f} +- {std[name]:.3f}" for name in mean)
        remarks += f"\n\n{settings.data.k_fold} folds, each by a model that was not trained on it: {each}."
        remarks += f" The model that is kept is that of fold {settings.data.fold}."
        if own.test is not None:
            files["out_of_fold.csv"] = folds.predictions.to_csv
    if found.task == "classification":
        remarks += f"\n\n{class_figures(found)}"
    return Report(figures(found, simple), remarks, files)


def class_figures(prediction: Prediction) -> str:
    """Return precision, recall and F1 of each class, and the confusion: a row for each true class, as text."""
    from sklearn.metrics import classification_report

    names, truth, found = prediction.names, prediction.targets.numpy(), prediction.predicted.numpy()
    how = {"labels": range(len(names)), "target_names": names, "zero_division": 0}
    width = max(map(len, names))
    lines = [f"{'taken for':>{width + 3}}  " + " ".join(f"{number:>4}" for number in how["labels"])]
    for number, row in enumerate(metrics.confusion(found, truth, len(names))):
        lines.append(f"{number:>2} {names[number]:<{width}}  " + " ".join(f"{count:>4}" for count in row))
    return classification_report(truth, found, **how) + "\n" + "\n".join(lines)


class Thresholds(NamedTuple):
    """Effect of a threshold on the probability of a class, `(thresholds,)` each."""

    threshold: np.ndarray
    sensitivity: np.ndarray  # share of the clips of the class at or above it
    specificity: np.ndarray  # share of all others below it
    precision: np.ndarray  # share of the class among those at or above it; NaN where there are none

    def _repr_html_(self) -> str:
        balanced = (self.sensitivity + self.specificity) / 2  # UAR of two classes
        return html_table(self._asdict() | {"balanced": balanced})


def thresholds(prediction: Prediction, label: int = 1, at: Sequence[float] = ()) -> Thresholds:
    """Compute sensitivity, specificity and precision for thresholds on the probability of a class.

    Without `at` the thresholds are 0.05 to 0.95 in steps of 0.05. All other classes together are the rest.
    """
    _require_classes(prediction)
    check_whole("label", label, 0, prediction.logits.shape[1] - 1)
    values = np.asarray(at, dtype=float) if len(at) else np.arange(1, 20) / 20
    true, score = (prediction.targets == label).numpy(), prediction.probabilities[:, label].numpy()
    if true.all() or not true.any():
        found = f"{int(true.sum())} of {len(true)} clips of class {label}"
        raise ParameterError("prediction", found, "some, and some others")
    over = score[None] >= values[:, None]  # (thresholds, clips)
    found, taken = (over & true).sum(axis=1), over.sum(axis=1)
    precision = np.divide(found, taken, out=np.full(len(values), math.nan), where=taken > 0)
    return Thresholds(values, found / true.sum(), (~over & ~true).sum(axis=1) / (~true).sum(), precision)


def calibration(prediction: Prediction) -> metrics.Calibration:
    """Compare confidence with accuracy in ten bins; see `metrics.calibration`. A regression is refused."""
    _require_classes(prediction)
    return metrics.calibration(prediction.probabilities, prediction.targets)


def temperature(prediction: Prediction) -> float:
    """Find the divisor of logits that minimises cross entropy.

    Guo et al., arXiv:1706.04599, section 4.2; between 0.05 and 20. Find it on the validation part. A loss of each class
    by itself (bce, the sigmoid forms) teaches two logits the same twice: softmax of two classes is then overconfident
    by a factor of 2.
    """
    from scipy.optimize import minimize_scalar

    _require_classes(prediction)
    logits = prediction.logits.double()

    def loss(exponent: float) -> float:
        return float(F.cross_entropy(logits / math.exp(exponent), prediction.targets))

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x)


def _require_classes(prediction: Prediction) -> None:
    if prediction.task == "regression":
        raise ParameterError("prediction", "a regression", "probabilities of classes")
