"""Clips of a training, divided and in memory; a saved model's card."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ... import media
from ...cache import publishing
from ...clips import speech
from ...datasets import classification as ds
from ...datasets.classification import ClassificationDataset, Data, Labels, Recording, Splits
from ...datasets.items import remembered
from ...datasets.sources import SAMPLE_RATE
from ...errors import AvlibError, CheckpointError, ParameterError
from ...models.classifiers import Config, ResolvedConfig
from ...settings import changed, names_in
from .. import fitted_to, written
from .settings import Settings

_FEW = 1024  # clips that one process reads faster than it starts others
_IN_MEMORY = 4 * 2**30  # bytes of sound at most
_DEBUG = 16  # clips of each part, where `debug` is on


class Parts(NamedTuple):
    """Clips for training, validation and test; None where a part is empty."""

    train: ClassificationDataset
    valid: ClassificationDataset | None
    test: ClassificationDataset | None
    labels: Labels
    words: tuple[str, ...]  # known ones, in the order of their numbers
    config: ResolvedConfig  # of the model that fits the clips
    recordings: list[Recording]  # all clips
    splits: Splits
    note: str  # on the condition on the word

    @property
    def conditions(self) -> dict[str, str]:
        return self.config.conditions

    @property
    def seconds(self) -> float:
        return self.train.samples / SAMPLE_RATE


def parts(settings: Settings, *, progress: bool = True, check: Callable[[Parts], object] | None = None) -> Parts:
    """Read and divide the data of these settings; the last ones stay in memory.

    `check` is called with the parts before any sound is read, unless some of the clips may be left out.
    """
    data = settings.data
    recordings, labels, splits = divided(settings, progress=progress)
    chosen = splits.take(recordings)
    word, note = _word_condition(settings.model.word, chosen, labels)
    words = ds.word_list(chosen["train"] if word else recordings)  # without the condition a new word does no harm
    seconds = _longest(recordings, data) if data.pad == "longest" else data.seconds
    seconds = max(1, round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    config = _resolved(settings, recordings, labels, word, words, seconds)
    ages = data.ages if "age" in config.needs else ()
    keys, made = {}, {}
    for name, rows in chosen.items():
        crop = "centre" if data.crop == "random" and name != "train" else data.crop
        options = {"seconds": seconds, "crop": crop, "seed": settings.training.seed if crop == "random" else 0}
        options |= {"on_error": data.on_error, "labels": labels, "words": words, "ages": ages}
        rows = rows[:: max(1, len(rows) // _DEBUG)][:_DEBUG] if settings.debug else rows
        keys[name] = repr((options, rows, written(row.path for row in rows)))
        made[name] = ClassificationDataset(rows, **options) if rows else None
    result = Parts(**made, labels=labels, words=words, config=config, recordings=recordings, splits=splits, note=note)
    if check and data.on_error == "raise":
        check(result)
    there = [name for name in chosen if made[name] is not None]
    return result._replace(
        **{name: remembered(keys[name], partial(_read_once, made[name], progress)) for name in there}
    )


def again(settings: Settings, *, progress: bool = True) -> Parts:
    """Return the parts of a training without its warnings."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return parts(settings, progress=progress)


def divided(settings: Settings, *, progress: bool = True) -> tuple[list[Recording], Labels, Splits]:
    """Return all recordings, labels and division, without reading sound; see `parts`."""
    data = settings.data
    seed = settings.training.seed if data.split_seed is None else data.split_seed
    options = {"seed": seed, "shuffle": data.shuffle}

    def read(path: str) -> list[Recording]:
        columns = {name: getattr(data, f"{name}_column") for name in ("word", "age", "speaker")}
        found = ds.read_recordings(path, data.target or "label", on_error=data.on_error, group=data.group, **columns)
        return ds.filter_words(found, data.words)

    if data.train_file:
        train, test, valid = (
            read(file) if file else None for file in (data.train_file, data.test_file, data.valid_file)
        )
        labels = Labels.of([*train, *test, *(valid or [])], settings.task, data.order)
        recordings, splits = ds.given_splits(train, test, valid, valid_size=data.valid_size, labels=labels, **options)
        return recordings, labels, splits
    path = data.data
    if not path:
        corpus = {"abnormal": data.abnormal, "snr": tuple(data.snr), "ages": tuple(data.ages), "seed": data.clips_seed}
        path = speech.render(speech.corpus(data.num_words, data.speakers, data.takes, **corpus), progress=progress)
    recordings = read(str(path))
    labels = Labels.of(recordings, settings.task, data.order)
    options["labels"] = labels
    if any(recording.split for recording in recordings):
        if data.k_fold:
            found = f"{data.k_fold}, where the table's column `split` names the parts"
            raise ParameterError("k_fold", found, "0, or a table without that column")
        return recordings, labels, ds.splits_of_column(recordings, valid_size=data.valid_size, **options)
    if data.k_fold:
        return recordings, labels, ds.folds(recordings, data.k_fold, data.test_size, **options)[data.fold]
    return recordings, labels, ds.split(recordings, data.test_size, data.valid_size, **options)


def fitted(settings: Settings, *given: Mapping[str, Any]) -> Settings:
    """Return settings that fit the user's recordings, and keep the best state; see `systems.fitted_to`.

    Where there is a validation part, no fold, and nothing else is given, the model ends as at its lowest loss on it.
    """
    if not (settings.data.data or settings.data.train_file):
        return settings
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # they come when the parts are made
        settings = fitted_to(settings, lambda own: [row.path for row in divided(own, progress=False)[0]], given)
        recordings, _, splits = divided(settings, progress=False)
    chosen = {name.rpartition(".")[2] for name in names_in(*given)} & {"best", "test_best_model"}
    if chosen or settings.data.k_fold or settings.test or not splits.take(recordings)["valid"]:
        return settings
    print("Of all passes the one with the lowest loss on the validation part is kept; best=false keeps the last.")
    return changed(settings, {"training.best": True})


def _resolved(
    settings: Settings,
    recordings: Sequence[Recording],
    labels: Labels,
    word: str,
    words: Sequence[str],
    seconds: float,
) -> ResolvedConfig:
    """The model's settings with what follows from the clips."""
    model = settings.model
    standardize = model.standardize and model.facts.takes == "spectrogram"
    outputs = None if settings.task == "regression" else len(labels.names)
    counts = {"num_outputs": outputs, "num_words": max(1, len(words)), "num_ages": len(settings.data.ages)}
    own = {"word": word, "standardize": standardize, "task": settings.task, "seconds": seconds}
    config = ResolvedConfig(**asdict(model) | counts | own)
    if "age" in config.needs and any(recording.age is None for recording in recordings):
        advice = "The table lacks some, or has none."
        if not model.age:
            found = f"{config.n_mels}, which leaves {config.fill_rows} rows of {config.facts.rows} to the age"
            raise ParameterError("n_mels", found, "an age of every clip", f"{advice} Or leave n_mels out.")
        raise ParameterError("age", repr(model.age), "an age of every clip", advice)
    return config


def _word_condition(wanted: str, chosen: Mapping[str, list[Recording]], labels: Labels) -> tuple[str, str]:
    """The kind of the word's condition, "" for none, and why."""
    recordings = [row for rows in chosen.values() for row in rows]
    words, learned = set(ds.word_list(recordings)), set(ds.word_list(chosen["train"]))
    complete = all(row.word for row in recordings)
    targets = defaultdict(set)
    for row in chosen["train"]:
        targets[row.word].add(row.target)
    why = ""
    if wanted == "auto":
        if len(words) < 2:
            why = "the table has one only" if words else "the table has none"
        elif not complete:
            why = "some clips have none"
        elif words - learned:
            why = f"{len(words - learned)} of {len(words)} are not in the training part"
        elif labels.task == "classification" and all(len(there) == 1 for there in targets.values()):
            why = "each word has one label, which it would give away"
        wanted = "" if why else "heads"
    elif wanted and not complete:
        raise ParameterError("word", repr(wanted), "a word of every clip", "The table lacks some, or has none.")
    if wanted:
        return wanted, f"The model is conditioned on the word, one of {len(words)}."
    return "", f"The model is not conditioned on words{why and ': '}{why}."


def _read_once(dataset: ClassificationDataset, progress: bool) -> ClassificationDataset:
    """The data set in memory, if there is room."""
    if len(dataset) * dataset.samples * 4 > _IN_MEMORY:
        return dataset.usable(progress=progress)
    return dataset.prepared(1 if len(dataset) < _FEW else None, progress)


def _longest(recordings: Sequence[Recording], data: Data) -> float | int:
    """Seconds of the longest clip, `data.seconds` at most, from the headers of the files."""
    longest = 0.0
    for recording in recordings:
        try:
            sound = media.probe(recording.path).audio
            longest = max(longest, sound.seconds if sound else 0.0)
        except AvlibError:
            if data.on_error == "raise":
                raise
        if longest >= data.seconds:
            break
    return min(data.seconds, longest) if longest > 0 else data.seconds


CARD = "classifier.json"
_FORMAT = "avlib classifier 1"
# Settings that decide what a model predicts and from what; with another learning rate it is the same kind of model.
_DECISIVE = {
    "": ("task",),
    "data": ("target", "words", "seconds", "pad", "ages"),
    "model": tuple(each.name for each in fields(Config) if each.name not in ("dropout", "freeze")),
}


@dataclass(frozen=True)
class Card:
    """A saved classifier's classes, inputs and origin, written beside its weights."""

    names: tuple[str, ...]  # of the classes by number; of a regression, of the ordered labels, if it had any
    task: str
    seconds: float  # of a window; clips are padded to it
    crop: str = "start"  # part of a longer clip that training used
    words: tuple[str, ...] = ()  # known ones, in the order of their numbers, as `ages`
    ages: tuple[float, ...] = ()
    target: str = ""  # its column
    statistics: Mapping[str, Any] = field(default_factory=dict)  # of `datasets.classification.statistics`
    splits: Mapping[str, str] = field(default_factory=dict)  # of `Splits.hashes`
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> Card:
        path, expected = Path(folder) / CARD, "the file that `Card.save` writes beside the weights"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            advice = "Weights alone do not say which classes they predict."
            raise CheckpointError(path, error.strerror or "cannot be read", expected, advice) from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(path, f"is not JSON ({error})", expected) from error
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise CheckpointError(path, "is no card of a classifier", f'a table with "format": "{_FORMAT}"')
        known = {each.name for each in fields(cls)}
        missing, more = known - content.keys(), content.keys() - known
        if missing or more:
            raise CheckpointError(path, f"lacks {sorted(missing)}, and has {sorted(more)} besides", expected)
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})

    def save(self, model: nn.Module, folder: str | Path) -> None:
        """Write a model and this card into a folder, and replace one."""
        folder = Path(folder)
        self.require_model(model, folder)
        # In place of all that was there, so that no card of other weights stays. The card comes last: a process that is
        # killed before leaves weights without one, which `read` refuses.
        model.save(folder)
        with publishing(folder / CARD) as unfinished:
            content = {"format": _FORMAT, **_plain(self)}
            unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @property
    def labels(self) -> Labels:
        return Labels(self.names, self.task)

    def require_model(self, model: nn.Module, path: str | Path) -> None:
        """Refuse a model of another task or other numbers of classes, words, ages."""
        config = model.config
        counts = {"outputs": (config["num_outputs"], 1 if self.task == "regression" else len(self.names))}
        for name, of_model, of_card in (("word", "num_words", self.words), ("age", "num_ages", self.ages)):
            if name in model.needs:
                counts[f"{name}s"] = (config[of_model], len(of_card))
        counts["task"] = config["task"], self.task
        wrong = [f"{name}: {model} and {card}" for name, (model, card) in counts.items() if model != card]
        if wrong:
            found = f"the weights and {CARD} do not agree ({'; '.join(wrong)})"
            raise CheckpointError(path, found, "both of one training")

    def require(self, path: str | Path, labels: Labels | None, settings: Any, splits: Any) -> None:
        """Refuse other labels, decisive settings or parts than those of the training, or unknown ones.

        `settings` are a dataclass or a table of some; `splits` a division or its hashes; None is not compared.
        """
        if labels is not None and (labels.task, tuple(labels.names)) != (self.task, self.names):
            found = f"was trained for {self.task} of {_listed(self.names)}"
            advice = "Its predictions would be taken for other classes. Take other weights, or train anew."
            raise CheckpointError(path, found, f"{labels.task} of {_listed(labels.names)}", advice)
        wanted, wrong = _plain(settings or {}), []
        for table, names in _DECISIVE.items():
            mine, asked = (s.get(table, {}) if table else s for s in (self.settings, wanted))
            asked = {name: asked[name] for name in names if name in asked}
            wrong += [f"{n} {mine[n]!r} for {value!r}" for n, value in asked.items() if n in mine and mine[n] != value]
            wrong += [f"{name} unknown for {value!r}" for name, value in asked.items() if name not in mine]
        if wrong:
            advice = "Leave these settings out, take other weights, or train anew."
            raise CheckpointError(path, f"was trained with other settings: {', '.join(wrong)}", "the same", advice)
        hashes = getattr(splits, "hashes", splits) or {}
        parts = [name for name, mark in hashes.items() if self.splits.get(name) != mark]
        if parts:
            found = f"was trained with other clips in {' and '.join(parts)}"
            advice = "Give the table, seed and sizes of the training, or it may be tested on what it learned from."
            raise CheckpointError(path, found, "the same division of the clips", advice)


def _plain(value: Any) -> Any:
    """The value as JSON would give it back."""
    value = asdict(value) if is_dataclass(value) else value
    return json.loads(json.dumps(value, default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each)))


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "") or "numbers"
