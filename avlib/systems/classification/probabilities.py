"""What a model's probabilities are worth: whether it is right as often as it is sure, and what a threshold does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch.nn import functional as F

from ... import metrics
from ...errors import ParameterError
from ...tables import html_table
from .predicting import Predictions


class Thresholds(NamedTuple):
    """What a threshold on the probability of a class does. All `(thresholds,)`. A notebook shows it as a table."""

    threshold: np.ndarray
    sensitivity: np.ndarray  # of the clips of the class, those at or above it
    specificity: np.ndarray  # of all others, those below it
    precision: np.ndarray  # of those at or above it, the clips of the class; NaN where there are none

    @property
    def balanced(self) -> np.ndarray:
        """The mean of sensitivity and specificity: UAR of two classes."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def best(self) -> float:
        """The threshold at which that is highest; the middle one of equals. Choose it on the validation part."""
        highest = np.flatnonzero(self.balanced >= self.balanced.max() - 1e-12)
        return float(self.threshold[highest[(len(highest) - 1) // 2]])

    def _repr_html_(self) -> str:
        return html_table({name: getattr(self, name).tolist() for name in (*self._fields, "balanced")})


def thresholds(said: Predictions, label: int = 1, at: Sequence[float] = ()) -> Thresholds:
    """How much a result hangs on the threshold that makes a yes or a no of a probability.

    Args:
        said: of the clips.
        label: of which class; the others together are the rest.
        at: which thresholds; 0.05 to 0.95 in steps of 0.05 if there are none.

    Raises:
        ParameterError: a regression, no such class, or clips of that class or of the rest are missing.
    """
    _require_classes(said)
    if not 0 <= label < said.logits.shape[1]:
        raise ParameterError("label", f"{label}", f"0 to {said.logits.shape[1] - 1}")
    values = np.asarray(at, dtype=float) if len(at) else np.arange(1, 20) / 20
    true, score = (said.targets == label).numpy(), said.probabilities[:, label].numpy()
    if true.all() or not true.any():
        raise ParameterError(
            "said", f"{int(true.sum())} of {len(true)} clips of class {label}", "some, and some others"
        )
    over = score[None] >= values[:, None]  # (thresholds, clips)
    found, taken = (over & true).sum(axis=1), over.sum(axis=1)
    precision = np.divide(found, taken, out=np.full(len(values), math.nan), where=taken > 0)
    return Thresholds(values, found / true.sum(), (~over & ~true).sum(axis=1) / (~true).sum(), precision)


def calibration(said: Predictions, bins: int = 10) -> metrics.Calibration:
    """Whether the model is right as often as it is sure; see `metrics.calibration`.

    Raises:
        ParameterError: a regression, or no bins.
    """
    _require_classes(said)
    return metrics.calibration(said.probabilities, said.targets, bins)


def temperature(said: Predictions) -> float:
    """By what logits are to be divided so that probabilities fit best: above 1 for a model that is too sure.

    The one number that minimises cross entropy, Guo et al., arXiv:1706.04599, section 4.2. Find it on the validation
    part. It changes no answer, but how sure the answers are. Between 0.05 and 20.

    A loss that takes each class by itself (bce, the sigmoid forms) teaches two logits the same twice: of two classes,
    softmax is then too sure by a factor of 2.

    Raises:
        ParameterError: a regression.
    """
    from scipy.optimize import minimize_scalar

    _require_classes(said)
    logits = said.logits.double()

    def loss(exponent: float) -> float:
        return float(F.cross_entropy(logits / math.exp(exponent), said.targets))

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x)


def _require_classes(said: Predictions) -> None:
    if said.task == "regression":
        raise ParameterError("said", "a regression", "probabilities of classes")
