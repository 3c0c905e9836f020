"""The clips of a training: the user's or built-in ones, divided, and in memory."""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ... import media
from ...clips import speech
from ...datasets.classification import (
    ClassificationDataset,
    Labels,
    Recording,
    Splits,
    filter_words,
    folds,
    given_splits,
    read_recordings,
    split,
    splits_of_column,
    word_list,
)
from ...datasets.sources import SAMPLE_RATE
from ...errors import AvlibError, ParameterError
from ...models.classifiers import BACKBONES, Config
from .. import written
from .settings import Data, Settings

_FEW = 1024  # clips that no processes are started for: to start them takes longer than to read so many
_IN_MEMORY = 4 * 2**30  # bytes of sound that are kept there at most
_DEBUG = 16  # clips of each part, where `debug` is on


class Parts(NamedTuple):
    """What is learned from, what a training is watched by, and what no training sees; None where there is none.

    labels: what targets are in numbers.
    words: that clips of the data set are known by, in the order of their numbers; () where there are none.
    conditions: what the model is told, "word" and "age", and how.
    splits: which clips are in which part.
    note: what was decided, in words.
    """

    train: ClassificationDataset
    valid: ClassificationDataset | None
    test: ClassificationDataset | None
    labels: Labels
    words: tuple[str, ...]
    conditions: dict[str, str]
    splits: Splits
    note: str

    @property
    def seconds(self) -> float:
        """Of each clip, with its padding."""
        return self.train.samples / SAMPLE_RATE


def parts(settings: Settings, *, progress: bool = True, check: Callable[[Parts], object] | None = None) -> Parts:
    """The data of these settings, divided; the last one stays in memory for who asks again.

    Args:
        settings: which.
        progress: whether bars are shown.
        check: is called with the parts before any sound is read, unless some of the clips may be left out.

    Raises:
        DatasetError: a table or clip that cannot be used, or parts that cannot be made; see `read_recordings`,
            `Labels.of`, `split`, `given_splits` and `ClassificationDataset`.
        ParameterError: a model that cannot be, see `Config`, or that is to be told what the table does not say.
    """
    data = settings.data
    recordings, splits = divided(settings, progress=progress)
    labels = Labels.of(recordings, settings.task, settings.data.order)
    chosen = {name: [recordings[index] for index in getattr(splits, name)] for name in ("train", "valid", "test")}
    words, conditions, note = _conditions(settings, chosen, labels)
    # A word that training has not does no harm, unless the model is told the word.
    words = word_list(chosen["train"]) if "word" in conditions else words
    seconds = _longest(recordings, data) if data.pad == "longest" else data.seconds
    ages = data.ages if _is_told_ages(settings, recordings, labels, words, conditions, seconds) else ()
    keys, made = {}, {}
    for name, rows in chosen.items():
        options = _options(settings, seconds, name) | {"labels": labels, "words": words, "ages": ages}
        rows = rows[:: max(1, len(rows) // _DEBUG)][:_DEBUG] if settings.debug else rows
        keys[name] = repr((options, rows, written(row.path for row in rows)))
        made[name] = ClassificationDataset(rows, **options) if rows else None
    result = Parts(**made, labels=labels, words=words, conditions=conditions, splits=splits, note=note)
    if check and data.on_error == "raise":
        check(result)
    held = {keys[name]: _HELD.get(keys[name]) or _read_once(made[name], progress) for name in chosen}
    _HELD.clear()
    _HELD.update(held)
    return result._replace(**{name: held[keys[name]] for name in chosen})


def again(settings: Settings, *, progress: bool = True) -> Parts:
    """The parts that a training was given. What there was to warn of was said then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return parts(settings, progress=progress)


_HELD: dict[str, ClassificationDataset | None] = {}  # in memory, for who asks again, whatever the model is told


def divided(settings: Settings, *, progress: bool = True) -> tuple[list[Recording], Splits]:
    """All recordings, and which of them are in which part; no sound is read.

    Raises:
        ParameterError: folds of what is divided already.
        DatasetError: see `parts`.
    """
    data, options = settings.data, {"seed": _seed(settings), "shuffle": settings.data.shuffle}
    if data.train_file:
        train, test, valid = (
            filter_words(_read(file, data), data.words) if file else None
            for file in (data.train_file, data.test_file, data.valid_file)
        )
        everything = [*train, *test, *(valid or [])]
        options["labels"] = Labels.of(everything, settings.task, data.order)
        return given_splits(train, test, valid, valid_size=data.valid_size, **options)
    recordings = filter_words(_read(data.data, data) if data.data else _built_in(data, progress), data.words)
    options["labels"] = Labels.of(recordings, settings.task, data.order)
    if any(recording.split for recording in recordings):
        if data.k_fold:
            found = f"{data.k_fold}, where the table's column `split` says which clip is in which part"
            raise ParameterError("k_fold", found, "0, or a table without that column")
        return recordings, splits_of_column(recordings, valid_size=data.valid_size, **options)
    if data.k_fold:
        return recordings, folds(recordings, data.k_fold, data.test_size, **options)[data.fold]
    return recordings, split(recordings, data.test_size, data.valid_size, **options)


def _seed(settings: Settings) -> int:
    seed = settings.data.split_seed
    return settings.training.seed if seed is None else seed


def _read(path: str, data: Data) -> list[Recording]:
    columns = {"word": data.word_column, "age": data.age_column, "speaker": data.speaker_column, "group": data.group}
    return read_recordings(path, data.target or "label", on_error=data.on_error, **columns)


def _built_in(data: Data, progress: bool) -> list[Recording]:
    spoken = speech.corpus(
        data.num_words, data.speakers, data.takes, abnormal=data.abnormal, snr=tuple(data.snr), ages=tuple(data.ages),
        seed=data.clips_seed,
    )  # fmt: skip
    return _read(str(speech.render(spoken, progress=progress)), data)


def network(
    settings: Settings, labels: Labels, words: Sequence[str], conditions: dict[str, str], seconds: float | int
) -> dict[str, Any]:
    """What the `AudioClassifier` of these settings and clips is made with, by name."""
    model = settings.model
    left_out = ("word", "age", "weights", "data_type")
    same = {name: value for name, value in vars(model).items() if name not in left_out}
    same["standardize"] = model.standardize and BACKBONES[model.backbone].takes == "spectrogram"
    outputs = None if settings.task == "regression" else len(labels.names)
    counts = {"num_outputs": outputs, "num_words": max(1, len(words)), "num_ages": len(settings.data.ages)}
    return same | counts | {"task": settings.task, "conditions": conditions, "seconds": seconds}


def _is_told_ages(settings: Settings, recordings: Sequence[Recording], *of_clips: Any) -> bool:
    """Whether the model hears ages, as a condition or in rows that mel bins leave. What is no model is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the model says the same
        config = Config.of(network(settings, *of_clips))
    if "age" in config.needs and any(recording.age is None for recording in recordings):
        advice = "The table lacks some, or has none."
        if not settings.model.age:
            found = f"{config.n_mels}, which leaves {config.fill_rows} rows of {config.facts.rows} to the age"
            raise ParameterError("n_mels", found, "an age of every clip", f"{advice} Or leave n_mels out.")
        raise ParameterError("age", repr(settings.model.age), "an age of every clip", advice)
    return "age" in config.needs


def _options(settings: Settings, seconds: float | int, part: str) -> dict[str, Any]:
    """How clips of a part are read."""
    data = settings.data
    crop = "centre" if data.crop == "random" and part != "train" else data.crop
    seed = settings.training.seed if crop == "random" else 0
    return {"seconds": seconds, "crop": crop, "seed": seed, "on_error": data.on_error}


def _read_once(dataset: ClassificationDataset | None, progress: bool) -> ClassificationDataset | None:
    """In memory, if there is room."""
    if dataset is None:
        return None
    if len(dataset) * dataset.samples * 4 > _IN_MEMORY:
        return dataset.usable(progress=progress)
    return dataset.prepared(1 if len(dataset) < _FEW else None, progress)


def _longest(recordings: Sequence[Recording], data: Data) -> float | int:
    """Seconds of the longest clip, at most those that are heard; from what the files say of themselves."""
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
    return min(data.seconds, longest) or data.seconds


def _conditions(
    settings: Settings, chosen: dict[str, list[Recording]], labels: Labels
) -> tuple[tuple[str, ...], dict[str, str], str]:
    """The words, what the model is told and how, and in words why."""
    model, everything = settings.model, [row for rows in chosen.values() for row in rows]
    words, conditions = word_list(everything), {}
    if model.age:
        conditions["age"] = model.age
    if model.word == "auto":
        why = _why_not(chosen, words, labels)
        if not why:
            conditions["word"] = "heads"
        note = (
            f"The model is told the word, one of {len(words)}." if not why else f"The model is not told words: {why}."
        )
    elif model.word:
        if not all(row.word for row in everything):
            raise ParameterError("word", repr(model.word), "a word of every clip", "The table lacks some, or has none.")
        conditions["word"], note = model.word, f"The model is told the word, one of {len(words)}."
    else:
        note = "The model is not told words."
    return words, conditions, note


def _why_not(chosen: dict[str, list[Recording]], words: Sequence[str], labels: Labels) -> str:
    """Why a model cannot be told the words, or should not; "" if it can."""
    if len(words) < 2:
        return "the table has one only" if words else "the table has none"
    if not all(row.word for rows in chosen.values() for row in rows):
        return "some clips have none"
    learned = set(word_list(chosen["train"]))
    if unseen := set(words) - learned:
        return f"{len(unseen)} of {len(words)} are not in the training part"
    if labels.task == "classification":
        targets = defaultdict(set)
        for row in chosen["train"]:
            targets[row.word].add(row.target)
        if all(len(there) == 1 for there in targets.values()):
            return "each word has one label, which it would give away"
    return ""


def files(settings: Settings) -> list:
    """The user's weights and clips, and when each was written; see `written`."""
    weights = written([settings.model.weights])
    if not (settings.data.data or settings.data.train_file):
        return weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # `parts` says the same
        recordings, splits = divided(settings, progress=False)
    return [weights, splits.hashes, list(map(repr, recordings)), written(recording.path for recording in recordings)]


def say(text: str, progress: bool) -> None:
    """What a user should know before a training, beside its bars."""
    if progress and text:
        print(text, file=sys.stderr)
