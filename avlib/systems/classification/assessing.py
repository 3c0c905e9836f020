"""What came of a training: figures on the clips that were held out, what they prove, and a model for each fold."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from ...errors import ParameterError
from .. import Report, Trained
from .baselines import baseline_predictions
from .data import again
from .evaluation import FoldTable, evaluated, fold_figures, what_it_proves
from .learning import trained
from .predicting import Predictions, joined, predictions
from .settings import Settings

_FEW = 30  # clips, below which it is said how little they prove


class CrossValidation(NamedTuple):
    """Of each fold a model, what happened in its training, and figures on what it validates with.

    table: figures by fold, their mean and standard deviation.
    predictions: of each clip that is in no test part, by the model that was not trained on it.
    trained: of each fold.
    """

    table: FoldTable
    predictions: Predictions
    trained: list[Trained]


def cross_validated(
    settings: Settings, *, device: torch.device | str | None = None, progress: bool = True, live: bool = False
) -> CrossValidation:
    """A model for each of the `k_fold` folds, and what each says of the clips that it was not trained on.

    Raises:
        ParameterError: no folds; `patience` or `best`, which would choose by what is measured here.
        TrainingError, DatasetError, CacheError: see `trained`.
    """
    folds = settings.data.k_fold
    if not folds:
        raise ParameterError("k_fold", "0", "2 or more")
    if settings.training.patience or settings.training.best:
        found = "with patience or best, which look at the fold that is measured"
        raise ParameterError("k_fold", found, "neither", "The figures would be of chosen models.")
    models, said = [], []
    for fold in range(folds):
        one = replace(settings, data=replace(settings.data, fold=fold), checkpoint="")
        models.append(trained(one, device=device, progress=progress, live=live))
        said.append(predictions(models[-1].model, again(one, progress=progress).valid, progress=progress))
    return CrossValidation(fold_figures(said), joined(said), models)


def assess(
    model: nn.Module, settings: Settings, *, device: torch.device | str | None = None, progress: bool = True
) -> Report:
    """All that the command line says of a model: figures, of how many clips they are, and what few clips prove.

    They are of the test part; without one, of the validation part, or there are none. With `k_fold` the models of all
    folds are trained too, unless a saved model is tested.

    Raises:
        ParameterError, TrainingError: see `cross_validated`.
        DatasetError, MediaError: see `parts` and `predictions`.
    """
    own = again(settings, progress=progress)
    part = own.test or own.valid
    if part is None:
        return Report({}, "No clip was held out: nothing is known of how good this model is.")
    said = predictions(model, part, progress=progress)
    remarks = f"These figures are of {what_it_proves(said, own.labels.names, settings.data.group)}"
    if len(said) < _FEW:
        remarks += f" So few clips prove little; with {_FEW} or more, of several speakers, the interval is narrower."
    if own.test is None:
        remarks += " There is no test part: they are the validation part, by which the model may have been chosen."
    if settings.data.k_fold and not settings.test:
        table = cross_validated(settings, device=device, progress=progress).table
        each = ", ".join(f"{name} {table.mean[name]:.3f} +- {table.std[name]:.3f}" for name in table.figures)
        remarks += f"\n\n{settings.data.k_fold} folds, each by a model that was not trained on it: {each}."
    return Report(evaluated(said, baseline_predictions(own.train, part)), remarks)
