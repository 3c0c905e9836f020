"""Recordings in parts to train, choose and test with: no group in two of them, classes in the same shares.

Published: parts that are given as files, or are drawn by ratio with the speakers kept apart. One fold of a k-fold split
can only give 1 / k of the clips, and the union of several is no longer stratified. So many random draws are made here,
each of which takes groups as long as they bring a part nearer to its size and shares, and the best of them counts.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import DatasetError, ParameterError
from .draws import PARTS, TEST, TRAIN, VALID, Pool
from .labels import Labels
from .table import Recording, filter_words, first_three, read_recordings

_NAMES = {  # of parts, as tables have them
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "development": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Splits:
    """Which recordings are in which part, as indices, ascending.

    hashes: a short hash of each part, of its clips' names in their table (`Recording.name`), targets and speakers:
        whoever tests a model later can see whether it is the same part, also where the folder was moved.
    """

    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]
    hashes: Mapping[str, str] = field(repr=False, hash=False)

    @classmethod
    def of(cls, recordings: Sequence[Recording], parts: Sequence[int] | np.ndarray) -> Splits:
        """From the number of the part of each recording: 0 train, 1 valid, 2 test; any other is in none."""
        numbers = np.asarray(parts)
        inside = [tuple(np.flatnonzero(numbers == part).tolist()) for part in range(3)]
        taken = [[recordings[index] for index in indices] for indices in inside]
        return cls(*inside, {name: _hash(part) for name, part in zip(PARTS, taken, strict=True)})

    def take(self, recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
        """The recordings themselves, by part."""
        return {name: [recordings[index] for index in getattr(self, name)] for name in PARTS}


def split(
    recordings: Sequence[Recording],
    test_size: float | int = 0.3,
    valid_size: float | int = 0.2,
    *,
    seed: int = 42,
    shuffle: bool = True,
    draws: int = 64,
    labels: Labels | None = None,
) -> Splits:
    """Recordings by ratio, each group in one part, each class in the same share of all parts as far as that goes.

    Of `draws` the one is kept that is nearest to the sizes and to the shares of the classes (of five ranges of equally
    many targets for a regression), the share of clips that is wrong added up. A class comes into every part if that can
    be, even if a part becomes larger thereby. What is not as asked is told in one warning: no groups, so that each clip
    is one; a part without one of the classes; a size that is more than 0.05 off.

    Args:
        recordings: with `group` for all or for none of them.
        test_size: share of all clips, from 0 to 1; 0 leaves that part empty. Published 0.3.
        valid_size: likewise, of all clips, not of those left. Published 0.2.
        seed: of the draws.
        shuffle: False takes groups from the end of the table, by the same rule, and draws nothing.
        draws: how many.
        labels: of the task; None takes the targets for classes.

    Raises:
        DatasetError: a class with one clip or of one group only, which cannot be both trained and tested; a part that
            would be empty, or clips some of which have a group.
        ParameterError: a size out of range.
    """
    _check_sizes(test_size=test_size, valid_size=valid_size)
    pool = Pool.of(recordings, labels)
    pool.refuse_rare(2 if test_size or valid_size else 1)
    parts = pool.drawn({TEST: test_size, VALID: valid_size}, seed, shuffle, draws)
    pool.check(parts, {TEST: test_size, VALID: valid_size}, shuffle)
    return Splits.of(recordings, parts)


def folds(
    recordings: Sequence[Recording],
    k: int,
    test_size: float | int = 0.3,
    *,
    seed: int = 42,
    shuffle: bool = True,
    draws: int = 64,
    labels: Labels | None = None,
) -> list[Splits]:
    """A test part by ratio, and the rest in k folds, each of which validates once; there is no size for that.

    The test part, the same in all, is drawn as in `split`; the folds are those of scikit-learn's StratifiedGroupKFold.

    Raises:
        DatasetError: see `split`; and a fold without which a class cannot be trained.
        ParameterError: `k` below 2, or above the number of groups, or of clips of every class, that are left to train
            with.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    _check_sizes(test_size=test_size)
    if k < 2:
        raise ParameterError("k", f"{k}", "2 folds or more")
    pool = Pool.of(recordings, labels)
    held_out = pool.drawn({TEST: test_size}, seed, shuffle, draws)
    rest = np.flatnonzero(held_out != TEST)
    groups = len(set(pool.groups[rest].tolist()))
    if k > groups:
        kind = "groups (speakers, where no other column was named)" if pool.grouped else "clips"
        raise ParameterError("k", f"{k}", f"at most {groups}, the {kind} that are left to train with")
    pool.refuse_rare(3 if test_size else 2)
    strata = pool.strata[rest]
    if k > (most := int(np.bincount(strata).max())):
        if pool.classes:
            expected = f"at most {most}, the clips of the commonest class that are left to train with"
            raise ParameterError("k", f"{k}", expected)
        strata = np.zeros_like(strata)  # too few targets for ranges of them
    maker = StratifiedGroupKFold(k, shuffle=shuffle, random_state=seed if shuffle else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of rare classes: what comes of that is checked and told below
        pairs = list(maker.split(rest, strata, pool.groups[rest]))
    every = []
    for _, inside in pairs:
        parts = held_out.copy()
        parts[rest[inside]] = VALID
        every.append(parts)
    pool.check(every, {TEST: test_size}, shuffle)
    return [Splits.of(recordings, parts) for parts in every]


def given_splits(
    train: str | Path | Sequence[Recording],
    test: str | Path | Sequence[Recording],
    valid: str | Path | Sequence[Recording] | None = None,
    *,
    valid_size: float | int = 0.2,
    seed: int = 42,
    shuffle: bool = True,
    draws: int = 64,
    task: str = "classification",
    labels: Labels | None = None,
    words: Sequence[str] = (),
    **columns: str | Path,
) -> tuple[list[Recording], Splits]:
    """Parts that are given as files, or as recordings.

    Without a part to validate it is taken from the one to train, by the rule of `split`, so that it has `valid_size` of
    all clips: a share f = valid_size * N_all / N_train of that part.

    Args:
        train: a table, a folder, or recordings; likewise `test`, and `valid` if there is one.
        test: see `train`.
        valid: see `train`; None or "" takes it from `train`.
        valid_size: share of all clips, where `valid` is not given; 0 leaves that part empty.
        seed: of the draws.
        shuffle: see `split`.
        draws: see `split`.
        task: that the targets are for, where `labels` are not given.
        labels: of the task.
        words: see `filter_words`.
        columns: see `read_recordings`.

    Returns:
        All recordings, and which is in which part.

    Raises:
        DatasetError: a group (speaker) or a clip in two parts, a class that is missing from one, an empty part.
    """
    sources = {"train": train, "valid": valid or None, "test": test}
    recordings, parts = [], []
    for number, name in enumerate(PARTS):
        source = sources[name]
        if source is not None:
            read = read_recordings(source, **columns) if isinstance(source, str | Path) else source
            chosen = filter_words(read, words)
            if not chosen:
                raise DatasetError(name, "no clips", "at least one")
            recordings += chosen
            parts += [number] * len(chosen)
    labels = Labels.of(recordings, task) if labels is None else labels
    size = 0 if valid else valid_size
    return recordings, _completed(recordings, parts, size, seed, shuffle, draws, labels)


def splits_of_column(
    recordings: Sequence[Recording],
    *,
    valid_size: float | int = 0.2,
    seed: int = 42,
    shuffle: bool = True,
    draws: int = 64,
    labels: Labels | None = None,
) -> Splits:
    """Parts that the column `split` of the table names: train, test, and valid if there is one.

    Other usual names of them are understood, such as "dev". Arguments and errors are those of `given_splits`.

    Raises:
        DatasetError: also a name that is none of them, or nothing there.
    """
    parts = []
    for recording in recordings:
        name = _NAMES.get(recording.split.lower())
        if name is None:
            expected = f"one of {', '.join(_NAMES)}"
            raise DatasetError(recording, f"split {recording.split!r}", expected, "Fill in the column `split`.")
        parts.append(PARTS.index(name))
    for part in (TRAIN, TEST):
        if part not in parts:
            raise DatasetError("split", f"no clip in {PARTS[part]!r}", "clips to train and clips to test with")
    size = 0 if VALID in parts else valid_size
    return _completed(recordings, parts, size, seed, shuffle, draws, labels)


def _completed(
    recordings: Sequence[Recording],
    given: Sequence[int],
    valid_size: float | int,
    seed: int,
    shuffle: bool,
    draws: int,
    labels: Labels | None,
) -> Splits:
    """Given parts, checked, with a part to validate that comes out of the one to train if it has a size."""
    parts = np.array(given)
    pool = Pool.of(recordings, labels)
    _refuse_shared(recordings, parts)
    pool.refuse_missing(parts)
    inside = np.flatnonzero(parts == TRAIN)
    share = valid_size * len(recordings) / len(inside)
    _check_sizes(valid_size=valid_size)
    if share >= 1:
        found = f"{valid_size:g}, {valid_size * len(recordings):g} of {len(recordings)} clips"
        raise ParameterError("valid_size", found, f"less than there are to train with, {len(inside)}")
    if share:
        part = Pool.of([recordings[index] for index in inside], pool.labels)
        part.refuse_rare(2)
        drawn = part.drawn({VALID: share}, seed, shuffle, draws)
        part.check(drawn, {VALID: share}, shuffle)
        parts[inside] = drawn
    return Splits.of(recordings, parts)


def _refuse_shared(recordings: Sequence[Recording], parts: np.ndarray) -> None:
    """A clip or a group that is in two of the parts that were given."""
    for kind, name in (("speaker or group", "group"), ("clip", "path")):
        where: dict[str | Path, set[int]] = defaultdict(set)
        for recording, part in zip(recordings, parts.tolist(), strict=True):
            key = getattr(recording, name)
            where[key.resolve() if isinstance(key, Path) else key].add(part)
        shared = sorted(str(key) for key, inside in where.items() if key and len(inside) > 1)
        if shared:
            found = f"{len(shared)} in two parts or more: {first_three(shared)}"
            advice = "A model that knows the voice looks better than it is. Divide anew, by speaker."
            raise DatasetError(kind, found, "each in one part", advice)


def _check_sizes(**sizes: float | int) -> None:
    for name, size in sizes.items():
        if not 0 <= size < 1:
            raise ParameterError(name, f"{size}", "a share of all clips: 0 or more, less than 1")
    if sum(sizes.values()) >= 1:
        raise ParameterError(" + ".join(sizes), f"{sum(sizes.values()):g}", "less than 1: something to train with")


def _hash(recordings: Sequence[Recording]) -> str:
    lines = sorted(repr((one.name or one.path.as_posix(), one.target, one.speaker)) for one in recordings)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
