"""A trained classifier as a folder: the weights, and beside them all that is needed to know what they say.

model.safetensors, config.json    as `avlib.checkpoints` writes every model
classifier.json                   the classes, the words and ages that it can be told, how clips are cut, what the
                                  training's clips were like, and marks of which clips were in which part
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...cache import publishing
from ...datasets.classification import Labels
from ...errors import CheckpointError
from .settings import Model

CARD = "classifier.json"
_FORMAT = "avlib classifier 1"

# Settings that decide what a model is and what it is asked; another learning rate makes it no other kind of model.
_OF_TRAINING = ("dropout", "freeze", "weights", "data_type")  # of `Model`, all that does not
_DECISIVE = {
    "": ("task",),
    "data": ("target", "words", "seconds", "pad", "ages"),
    "model": tuple(each.name for each in fields(Model) if each.name not in _OF_TRAINING),
}


@dataclass(frozen=True)
class Card:
    """What lies beside the weights.

    names: of the classes, in the order of the logits; of a regression, of the ordered labels, if it had any.
    task: "classification" or "regression".
    seconds: of a window; clips are padded to it.
    crop: which part of a longer clip training took.
    words, ages: those that the model can be told, in the order of their numbers.
    target: the column that was learned.
    statistics: of the training's clips, as `datasets.classification.statistics` gives them.
    splits: for each part a mark of its clips, as `Splits.hashes` gives it.
    settings: all of them, as a table.
    """

    names: tuple[str, ...]
    task: str
    seconds: float
    crop: str = "start"
    words: tuple[str, ...] = ()
    ages: tuple[float, ...] = ()
    target: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> Labels:
        return Labels(self.names, self.task)

    def require_labels(self, labels: Labels, path: Path | str) -> None:
        """Refuse other classes, or the same in another order.

        Raises:
            CheckpointError: they differ.
        """
        if (labels.task, tuple(labels.names)) != (self.task, self.names):
            found = f"was trained for {self.task} of {_listed(self.names)}"
            advice = "Its answers would be taken for other classes than they are. Take other weights, or train anew."
            raise CheckpointError(path, found, f"{labels.task} of {_listed(labels.names)}", advice)

    def require_settings(self, settings: Any, path: Path | str) -> None:
        """Refuse settings of another model: other data, another backbone, other conditions.

        Args:
            settings: a dataclass of settings, or a table of some of them.
            path: for the message.

        Raises:
            CheckpointError: they differ in what decides what the model is, or the card does not say; how it was trained
                does not matter.
        """
        wanted = _plain(asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else settings)
        wrong = []
        for table, names in _DECISIVE.items():
            mine, asked = (s.get(table, {}) if table else s for s in (self.settings, wanted))
            asked = {name: asked[name] for name in names if name in asked}
            wrong += [f"{n} {mine[n]!r} for {value!r}" for n, value in asked.items() if n in mine and mine[n] != value]
            wrong += [f"{name} unknown for {value!r}" for name, value in asked.items() if name not in mine]
        if wrong:
            advice = "Leave these settings out, take other weights, or train anew."
            raise CheckpointError(path, f"was trained with other settings: {', '.join(wrong)}", "the same", advice)

    def require_splits(self, splits: Any, path: Path | str) -> None:
        """Refuse another division of the clips: then the model may have been trained on what it is tested on.

        Args:
            splits: their `hashes`, or what has these.
            path: for the message.

        Raises:
            CheckpointError: a part has other clips, or none are known.
        """
        hashes = getattr(splits, "hashes", splits)
        wrong = [name for name, mark in hashes.items() if self.splits.get(name) != mark]
        if wrong:
            found = f"was trained with other clips in {' and '.join(wrong)}"
            advice = "Give the table, seed and sizes of the training, or it may be tested on what it learned from."
            raise CheckpointError(path, found, "the same division of the clips", advice)


def save_classifier(
    folder: str | Path,
    model: nn.Module,
    labels: Labels,
    *,
    seconds: float | int,
    crop: str = "start",
    words: Sequence[str] = (),
    ages: Sequence[float | int] = (),
    target: str = "",
    statistics: Any = None,
    splits: Any = None,
    settings: Any = None,
) -> None:
    """Write a model and its card into a folder; one of that name is replaced.

    The card comes last: a process that is killed before leaves weights without one, which `read_card` refuses.

    Args:
        folder: of that name.
        model: an `AudioClassifier`.
        labels: of its logits.
        seconds: to which clips are padded.
        crop: which part of a longer clip training took.
        words: those that it can be told, in the order of their numbers.
        ages: likewise.
        target: the column that was learned.
        statistics: a NamedTuple or a table of them; None for none.
        splits: `Splits`, or their hashes; None for none.
        settings: a dataclass of settings, or a table; None for none.

    Raises:
        CacheError: it cannot be written.
        CheckpointError: the model does not fit the labels, words or ages.
    """
    card = Card(
        tuple(labels.names),
        labels.task,
        float(seconds),
        crop,
        tuple(words),
        tuple(map(float, ages)),
        target,
        _plain(statistics or {}),
        _plain(getattr(splits, "hashes", splits) or {}),
        _plain(settings or {}),
    )
    folder = Path(folder)
    require_fit(card, model, folder)
    model.save(folder)  # in place of all that was there, so that no card of other weights stays
    with publishing(folder / CARD) as unfinished:
        content = {"format": _FORMAT, **asdict(card)}
        unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: str | Path) -> Card:
    """The card in a folder that `save_classifier` wrote.

    Raises:
        CheckpointError: there is none, or it is not one.
    """
    path = Path(folder) / CARD
    expected = "what `save_classifier` wrote beside the weights"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        advice = "Weights alone do not say which classes their answers are."
        raise CheckpointError(path, error.strerror or "cannot be read", expected, advice) from error
    except ValueError as error:
        raise CheckpointError(path, f"is not JSON ({error})", expected) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(path, "is no card of a classifier", f'a table with "format": "{_FORMAT}"')
    known = {each.name for each in fields(Card)}
    missing, more = known - content.keys(), content.keys() - known - {"format"}
    if missing or more:
        raise CheckpointError(path, f"lacks {sorted(missing)}, and has {sorted(more)} besides", expected)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    del values["format"]
    return Card(**values)


def require_fit(card: Card, model: nn.Module, path: Path | str) -> None:
    """Refuse a card that belongs to another model.

    Raises:
        CheckpointError: as many classes, words or ages as the model does not have, or another task.
    """
    config = model.config
    counts = {"outputs": (config["num_outputs"], 1 if card.task == "regression" else len(card.names))}
    for name, of_model, of_card in (("word", "num_words", card.words), ("age", "num_ages", card.ages)):
        if name in model.needs:
            counts[f"{name}s"] = (config[of_model], len(of_card))
    wrong = [f"{name}: {of_model} and {of_card}" for name, (of_model, of_card) in counts.items() if of_model != of_card]
    if config["task"] != card.task:
        wrong.append(f"task: {config['task']} and {card.task}")
    if wrong:
        raise CheckpointError(path, f"the weights and {CARD} do not agree ({'; '.join(wrong)})", "both of one training")


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    return json.loads(json.dumps(value, default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each)))


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "") or "numbers"
