"""What came of a training: figures on the clips that were held out, what they prove, and a model for each fold."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
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
    baselines: of the same clips, what each baseline says that learnt from the same.
    """

    table: FoldTable
    predictions: Predictions
    trained: list[Trained]
    baselines: dict[str, Predictions]


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
    models, said, simple = [], [], []
    with warnings.catch_warnings():
        for fold in range(folds):
            one = replace(settings, data=replace(settings.data, fold=fold), checkpoint="")
            models.append(trained(one, device=device, progress=progress, live=live))
            own = again(one, progress=progress)
            said.append(predictions(models[-1].model, own.valid, progress=progress))
            simple.append(baseline_predictions(own.train, own.valid))
            warnings.simplefilter("ignore", UserWarning)  # of the table, which other folds share
    baselines = {name: joined([one[name] for one in simple]) for name in simple[0]}
    return CrossValidation(fold_figures(said), joined(said), models, baselines)


def assess(
    model: nn.Module, settings: Settings, *, device: torch.device | str | None = None, progress: bool = True
) -> Report:
    """All that the command line says of a model: figures, of how many clips they are, and what few clips prove.

    They are of the test part; without one, of the validation part, or there are none. With `k_fold` the models of all
    folds are trained too, unless a saved model is tested or `patience` or `best` choose by the fold; without a test
    part figures are of what each says of the clips that it was not trained on.

    Raises:
        TrainingError: see `trained`.
        DatasetError, MediaError: see `parts` and `predictions`.
    """
    own = again(settings, progress=progress)
    part = own.test or own.valid
    if part is None:
        return Report({}, "No clip was held out: nothing is known of how good this model is.")
    folds, chosen = None, settings.training.patience or settings.training.best
    if settings.data.k_fold and not (settings.test or chosen):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said in the training
            folds = cross_validated(settings, device=device, progress=progress)
    if folds and own.test is None:
        said, simple = folds.predictions, folds.baselines
    else:
        said, simple = predictions(model, part, progress=progress), baseline_predictions(own.train, part)
    files = {"predictions.csv": partial(said.to_csv, names=own.labels.names)}
    remarks = f"These figures are of {what_it_proves(said, own.labels.names, settings.data.group)}"
    if len(said) < _FEW:
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
            files["out_of_fold.csv"] = partial(folds.predictions.to_csv, names=own.labels.names)
    return Report(evaluated(said, simple), remarks, files)
