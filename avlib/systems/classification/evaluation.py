"""How good a classifier or a regressor is, on clips that no training saw, and how well that is known.

Each figure stands beside what needs no model. Its lower end is the lowest of what two ways give: drawing whole speakers
anew, since clips of one speaker are alike, and Wilson's interval, since ten clips that are all right draw nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ... import metrics
from ...errors import ParameterError, check_choice
from ...tables import html_table
from .. import Figure
from .baselines import baseline_predictions
from .data import again
from .predicting import Predictions, predictions
from .settings import Settings

_COMMONEST, _CHANCE, _MEAN = "always the commonest", "chance", "always the mean"


def evaluate(
    model: nn.Module, settings: Settings, *, hop: float | int = 0.0, draws: int = 300, progress: bool = True
) -> dict[str, Figure]:
    """All figures of a model on the test part of its data, each beside chance, and those of two baselines below.

    Args:
        model: as `trained` gives it.
        settings: that it was trained with.
        hop: above 0, clips are heard whole, in windows so far apart, in seconds; see `predictions`.
        draws: of speakers, for the lower ends of the intervals.
        progress: whether bars are shown.

    Raises:
        ParameterError: there is no test part.
        DatasetError, MediaError: see `parts` and `predictions`.
    """
    made = again(settings, progress=progress)
    if made.test is None:
        raise ParameterError("test_size", f"{settings.data.test_size:g}", "more than 0: no clips are left to test on")
    said = predictions(model, made.test, hop=hop, progress=progress)
    return evaluated(said, baseline_predictions(made.train, made.test), draws=draws)


def figures(said: Predictions, *, draws: int = 300, seed: int = 0) -> dict[str, Figure]:
    """Figures of all clips at once, each beside chance. R2 or CCC of batches would be other numbers.

    Of classes: accuracy, UAR, AUROC, AP, and of two also the sensitivity at a specificity of 0.9, as in
    `metrics.classification_figures`. Of numbers: MSE, MAE, R2, CCC and Pearson's r, as in
    `metrics.regression_figures`, beside whoever always says the mean of these clips. AUROC's
    lower end is by the number of clips alone; AP, errors and r have no lower end.

    Args:
        said: of the clips.
        draws: of speakers, for the lower ends of the intervals.
        seed: of the draws.

    Raises:
        ParameterError: logits that are not finite.
    """
    return (_of_numbers if said.task == "regression" else _of_classes)(said, draws, seed)


def _of_classes(said: Predictions, draws: int, seed: int) -> dict[str, Figure]:
    targets, count = said.targets, said.logits.shape[1]
    number = torch.bincount(targets, minlength=count)
    shares = number[number > 0].double() / len(said)
    found = metrics.classification_figures(said.logits, targets)
    hits = (said.predicted == targets).double()
    simple = {
        "accuracy": (float(shares.max()), _COMMONEST),
        "UAR": (1 / len(shares), _CHANCE),
        "AUROC": (0.5, _CHANCE),
        "AP": (float(shares.mean()) if count > 2 else float(number[1]) / len(said), _CHANCE),
        "sensitivity at 0.9": (0.1, _CHANCE),
    }
    drawn = {
        "accuracy": lambda logits, truth: float((logits.argmax(dim=1) == truth).double().mean()),
        "UAR": lambda logits, truth: metrics.balanced_accuracy(logits.argmax(dim=1), truth),
        "sensitivity at 0.9": lambda logits, truth: metrics.sensitivity_at_specificity(
            logits[:, 1] - logits[:, 0], truth
        ),
    }
    counted = {  # lower ends that suppose that each clip is news
        "accuracy": metrics.lower_bound(hits),
        "UAR": _low_of_mean([hits[targets == label] for label in range(count) if number[label]]),
        # of such an area the variance is at most that of a share of so many clips (Birnbaum and Klose, 1957)
        "AUROC": _wilson(found["AUROC"], int(number[number > 0].min())),
        "sensitivity at 0.9": _wilson(found.get("sensitivity at 0.9", math.nan), int(number[-1])),
    }
    lows = {name: _drawn(figure, said, draws, seed) for name, figure in drawn.items() if name in found}
    return {
        name: Figure(value, *simple[name], low=_lowest(lows.get(name), counted.get(name)))
        for name, value in found.items()
    }


def _of_numbers(said: Predictions, draws: int, seed: int) -> dict[str, Figure]:
    truth = said.targets.double()
    found = metrics.regression_figures(said.predicted, truth)
    mean = metrics.regression_figures(truth.mean().expand(len(truth)), truth)
    simple = mean | {"R2": 0.0, "CCC": 0.0, "Pearson": 0.0}

    drawn = {
        "R2": lambda logits, targets: metrics.regression_figures(logits[:, 0], targets)["R2"],
        "CCC": lambda logits, targets: metrics.concordance(logits[:, 0], targets),
    }
    lows = {name: _drawn(figure, said, draws, seed) for name, figure in drawn.items()}
    return {name: Figure(value, simple[name], _MEAN, lows.get(name)) for name, value in found.items()}


def _drawn(figure: Callable[..., float], said: Predictions, draws: int, seed: int) -> float | None:
    """The lower end over draws of speakers; None if there is one only, who says nothing about others."""
    groups = said.groups
    if len(set(groups)) < 2:
        return None
    low = metrics.bootstrap_interval(figure, groups, said.logits, said.targets, draws=draws, seed=seed).low
    return None if math.isnan(low) else low


def _lowest(*ends: float | None) -> float | None:
    known = [end for end in ends if end is not None and not math.isnan(end)]
    return min(known) if known else None


def _wilson(share: float, count: int) -> float:
    return math.nan if math.isnan(share) or not count else metrics.lower_bound([share] * count)


def _low_of_mean(parts: Sequence[Tensor]) -> float:
    """The lower end of a mean of shares, from that of each (Zou and Donner, Statistics in Medicine 27, 2008).

    And no more than that of one share of as many clips as say as much: of classes of the same size, all of them.
    """
    shares = [float(part.mean()) for part in parts]
    below = [share - metrics.lower_bound(part) for share, part in zip(shares, parts, strict=True)]
    as_many = len(parts) ** 2 / sum(1 / len(part) for part in parts)
    mean = float(np.mean(shares))
    return min(mean - math.hypot(*below) / len(parts), _wilson(mean, math.floor(as_many + 1e-9)))


def what_it_proves(said: Predictions, names: Sequence[str] = (), group: str = "") -> str:
    """In words: of how many clips and speakers figures are, and how little that may be.

    Args:
        said: of the clips.
        names: of the classes; numbers if there are none.
        group: the column by which clips were kept together, where that is not the speaker's.
    """
    kept = said.groups if group else said.speakers
    known = len(set(kept)) if all(kept) else 0
    of_whom = f" by {known} speaker{'s' * (known > 1)}" if known else ", of speakers that are not named"
    if group:
        of_whom = f" of {known} group{'s' * (known > 1)}, by the column {group}"
    text = f"{len(said)} clip{'s' * (len(said) > 1)}{of_whom}"
    if said.task == "classification":
        number = torch.bincount(said.targets, minlength=said.logits.shape[1]).tolist()
        names = list(names) or [str(label) for label in range(len(number))]
        text += f" ({', '.join(f'{count} {name}' for name, count in zip(names, number, strict=True))})"
        hits = said.predicted == said.targets
        low, high, right = metrics.lower_bound(hits), 1 - metrics.lower_bound(~hits), int(hits.sum())
        text += (
            f". {right} {'is' if right == 1 else 'are'} right: with 95 % confidence the share of all such clips is "
            f"between {low:.2f} and {high:.2f}, if each clip is news"
        )
    if known == 1:
        text += f". One {'group' if group else 'speaker'} says nothing about others"
    return text + "."


def evaluated(
    said: Predictions, baselines: dict[str, Predictions] | None = None, *, draws: int = 300
) -> dict[str, Figure]:
    """A model's figures, and below each of the first the same figure of each baseline, named "UAR, duration alone"."""
    found = figures(said, draws=draws)
    shown = ("R2", "CCC", "MAE") if said.task == "regression" else ("accuracy", "UAR", "AUROC")
    others = {name: figures(other, draws=draws) for name, other in (baselines or {}).items()}
    result = {}
    for name, figure in found.items():
        result[name] = figure
        result |= {f"{name}, {other}": rows[name] for other, rows in others.items() if name in shown}
    return result


# By group, by fold


def group_figures(said: Predictions, by: str = "word") -> metrics.GroupTable:
    """Figures for each word, age or speaker by itself; clips of which it is not known are left out.

    Of classes the accuracy, its lower end (Wilson), and UAR, which is NaN where a group has clips of one class only.
    Of numbers MAE, and the mean error, which says whether a group is judged too high.

    Args:
        said: of the clips.
        by: "word", "age" or "speaker".

    Raises:
        ParameterError: something else, or it is not known of any clip.
    """
    check_choice("by", by, ("word", "age", "speaker"))
    groups = getattr(said, f"{by}s")
    known = [place for place, group in enumerate(groups) if group not in ("", None)]
    if not known:
        raise ParameterError("by", f"no clip has a {by}", f"a column {by} in the table of clips")
    part = said.at(known)
    if said.task == "regression":
        rows = {"MAE": lambda x, y: float((x - y).abs().mean()), "mean error": lambda x, y: float((x - y).mean())}
    else:
        rows = {
            "accuracy": lambda x, y: float((x == y).double().mean()),
            "at least": lambda x, y: metrics.lower_bound(x == y),
            "UAR": lambda x, y: metrics.balanced_accuracy(x, y) if len(y.unique()) > 1 else math.nan,
        }
    return metrics.group_table(rows, [groups[place] for place in known], part.predicted, part.targets)


class FoldTable(NamedTuple):
    """Figures of each fold. A notebook shows it as a table.

    clips: `(folds,)`.
    figures: by name, `(folds,)`.
    """

    clips: np.ndarray
    figures: dict[str, np.ndarray]

    @property
    def mean(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.figures.items()}

    @property
    def std(self) -> dict[str, float]:
        """Of a sample, over folds - 1: what another fold would differ by. Folds share clips to train on: it is low."""
        return {name: float(values.std(ddof=1)) for name, values in self.figures.items()}

    def _repr_html_(self) -> str:
        names = [*map(str, range(len(self.clips))), "mean", "std"]
        rows = {name: [*values, self.mean[name], self.std[name]] for name, values in self.figures.items()}
        return html_table({"fold": names, "clips": [*self.clips.tolist(), "", ""], **rows})


def fold_figures(parts: Sequence[Predictions]) -> FoldTable:
    """Figures of each fold, with mean and deviation; those of all out-of-fold predictions are `figures(joined(parts))`.

    Args:
        parts: of each fold, of its held-out clips, or of a test part that all share.

    Raises:
        ParameterError: fewer than two folds.
    """
    if len(parts) < 2:
        raise ParameterError("parts", f"{len(parts)}", "the predictions of two folds or more")
    regression = parts[0].task == "regression"
    rows = [
        metrics.regression_figures(part.predicted, part.targets)
        if regression
        else metrics.classification_figures(part.logits, part.targets)
        for part in parts
    ]
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return FoldTable(np.array([len(part) for part in parts]), found)
