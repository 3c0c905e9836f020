"""Division of recordings: groups apart, classes in the same shares.

Published: parts as files, or drawn by ratio with the speakers kept apart. One fold of a k-fold split has 1 / k of the
clips, and the union of several is not stratified. scikit-learn's GroupShuffleSplit, best of 512 draws, comes as near
with groups of equal size, but misses size and shares by .11 on average where a few groups hold many clips of one class
(phrases of a language), against .01 here; and it has no rule for single clips or unshuffled tables.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...errors import DatasetError, ParameterError, check_whole
from .table import Labels, Recording, argument, first_three

PARTS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)
_NAMES = {  # of parts, as tables have them
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "development": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
_BINS = 5  # of equally many targets, which stand for classes where a regression is divided
DRAWS = 64  # of a division
_FEW = 8  # divisions for which the next part is drawn
_FAR = 0.05  # of all clips; a part that is further from its size is warned of


@dataclass(frozen=True)
class Splits:
    """Indices of the recordings in each part, ascending.

    hashes: of each part, from its clips' names in their table, targets and speakers; moving the folder keeps them.
    """

    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]
    hashes: Mapping[str, str] = field(repr=False, hash=False)

    @classmethod
    def of(cls, recordings: Sequence[Recording], parts: Sequence[int] | np.ndarray) -> Splits:
        """Build splits from the number of each recording's part in `PARTS`."""
        inside = [tuple(np.flatnonzero(np.asarray(parts) == part).tolist()) for part in range(3)]
        hashes = {}
        for name, indices in zip(PARTS, inside, strict=True):
            taken = [recordings[index] for index in indices]
            lines = sorted(repr((one.name or one.path.as_posix(), one.target, one.speaker)) for one in taken)
            hashes[name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
        return cls(*inside, hashes)

    def take(self, recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
        return {name: [recordings[index] for index in getattr(self, name)] for name in PARTS}


def split(
    recordings: Sequence[Recording],
    test_size: float | int = 0.3,
    valid_size: float | int = 0.2,
    *,
    seed: int = 42,
    shuffle: bool = True,
    draws: int = DRAWS,
    labels: Labels | None = None,
) -> Splits:
    """Divide recordings by ratio: groups apart, classes in the same shares.

    Sizes are shares of all clips; 0 leaves a part empty. The best draw has the smallest error of sizes plus that
    of the shares of the classes (of five ranges of equally many targets for a regression). A class comes into every
    part if that is possible. One warning names what is not as asked. Without `shuffle` groups are taken from the end of
    the table, by the same rule; without `labels` targets are classes.

    Refused are a class with one clip or group only, which cannot be both trained and tested, and an empty part.
    """
    _check_sizes(test_size=test_size, valid_size=valid_size)
    pool = _Pool(recordings, labels)
    pool.refuse_rare(2 if test_size or valid_size else 1)
    sizes = {TEST: test_size, VALID: valid_size}
    parts = pool.drawn(sizes, seed, shuffle, draws)
    pool.check([parts], sizes, shuffle)
    return Splits.of(recordings, parts)


def folds(
    recordings: Sequence[Recording],
    k: int,
    test_size: float | int = 0.3,
    *,
    seed: int = 42,
    shuffle: bool = True,
    labels: Labels | None = None,
) -> list[Splits]:
    """Draw a test part by ratio, and divide the rest into k folds.

    The test part, the same in all, is drawn as in `split`; folds are those of scikit-learn's StratifiedGroupKFold.
    `k` is at most the number of groups, and of clips of the commonest class, outside the test part.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    _check_sizes(test_size=test_size)
    if k < 2:
        raise ParameterError("k", f"{k}", "2 folds or more")
    pool = _Pool(recordings, labels)
    held_out = pool.drawn({TEST: test_size}, seed, shuffle)
    rest = np.flatnonzero(held_out != TEST)
    groups = len(set(pool.groups[rest].tolist()))
    if k > groups:
        kind = "groups (speakers, where no other column was named)" if pool.grouped else "clips"
        raise ParameterError("k", f"{k}", f"at most {groups}, the {kind} outside the test part")
    pool.refuse_rare(3 if test_size else 2)
    strata = pool.strata[rest]
    if k > (most := int(np.bincount(strata).max())):
        if pool.classes:
            expected = f"at most {most}, the clips of the commonest class outside the test part"
            raise ParameterError("k", f"{k}", expected)
        strata = np.zeros_like(strata)  # too few targets for ranges of them
    maker = StratifiedGroupKFold(k, shuffle=shuffle, random_state=seed if shuffle else None)
    every = []
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of rare classes, which are checked below
        for _, inside in maker.split(rest, strata, pool.groups[rest]):
            every.append(held_out.copy())
            every[-1][rest[inside]] = VALID
    pool.check(every, {TEST: test_size}, shuffle)
    return [Splits.of(recordings, parts) for parts in every]


def given_splits(
    train: Sequence[Recording], test: Sequence[Recording], valid: Sequence[Recording] | None = None, **options: Any
) -> tuple[list[Recording], Splits]:
    """Join given parts; return all recordings and their division.

    `options` are those of `splits_of_column`, as are the errors; a given part may not be empty.
    """
    recordings, named = [], []
    for name, given in zip(PARTS, (train, valid, test), strict=True):
        if given is not None and not given:
            raise DatasetError(name, "no clips", "at least one")
        recordings += given or ()
        named += [replace(recording, split=name) for recording in given or ()]
    return recordings, splits_of_column(named, **options)


def splits_of_column(
    recordings: Sequence[Recording],
    *,
    valid_size: float | int = 0.2,
    seed: int = 42,
    shuffle: bool = True,
    labels: Labels | None = None,
) -> Splits:
    """Divide recordings by the column `split` of their table.

    A missing validation part is drawn from the training part, as in `split`: valid_size * N_all / N_train of it.
    Refused are a part that is missing or lacks a class, and a group (speaker) or clip in two parts.
    """
    for recording in recordings:
        if recording.split.lower() not in _NAMES:
            expected = f"one of {', '.join(_NAMES)}"
            raise DatasetError(recording, f"split {recording.split!r}", expected, "Fill in the column `split`.")
    parts = np.array([PARTS.index(_NAMES[recording.split.lower()]) for recording in recordings])
    for part in (TRAIN, TEST):
        if part not in parts:
            raise DatasetError("split", f"no clip in {PARTS[part]!r}", "clips to train and clips to test with")
    pool = _Pool(recordings, labels)
    groups, files = [one.group for one in recordings], [str(one.path.resolve()) for one in recordings]
    for kind, keys in (("speaker or group", groups), ("clip", files)):
        where: dict[str, set[int]] = defaultdict(set)
        for key, part in zip(keys, parts, strict=True):
            where[key].add(part)
        shared = sorted(key for key, inside in where.items() if key and len(inside) > 1)
        if shared:
            found = f"{len(shared)} in two parts or more: {first_three(shared)}"
            advice = "A model that knows the voice looks better than it is. Divide anew, by speaker."
            raise DatasetError(kind, found, "each in one part", advice)
    for part in np.unique(parts):
        missing = pool.missing(parts == part)
        if missing:
            raise DatasetError(PARTS[part], f"no clip of {missing}", "every class in every part", "Divide anew.")
    _check_sizes(valid_size=valid_size)
    inside = np.flatnonzero(parts == TRAIN)
    share = 0 if VALID in parts else valid_size * len(recordings) / len(inside)
    if share >= 1:
        found = f"{valid_size:g}, {valid_size * len(recordings):g} of {len(recordings)} clips"
        raise ParameterError("valid_size", found, f"less than there are to train with, {len(inside)}")
    if share:
        rest = _Pool([recordings[index] for index in inside], pool.labels)
        rest.refuse_rare(2)
        parts[inside] = rest.drawn({VALID: share}, seed, shuffle)
        rest.check([parts[inside]], {VALID: share}, shuffle)
    return Splits.of(recordings, parts)


class _Pool:
    """Recordings to be divided.

    strata: `(clips,)`, the number of the class, or of the range of targets.
    groups: `(clips,)`, the number of the group, in the order of the table; without groups each clip is one.
    """

    def __init__(self, recordings: Sequence[Recording], labels: Labels | None):
        if not recordings:
            raise DatasetError("recordings", "none", "at least one")
        self.labels = Labels.of(recordings) if labels is None else labels
        self.classes = self.labels.classes
        without = [recording for recording in recordings if not recording.group]
        if 0 < len(without) < len(recordings):
            found = f"{len(without)} of {len(recordings)} clips have no group: {first_three(without)}"
            raise DatasetError("group", found, "a speaker, or a group of another kind, for all or for none")
        self.grouped = not without
        keys = [recording.group for recording in recordings] if self.grouped else range(len(recordings))
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self.groups = np.array([numbers[key] for key in keys])
        self.strata = np.array([self.labels.number(recording) for recording in recordings])
        if not self.classes:
            edges = np.unique(np.quantile(self.strata, np.arange(1, _BINS) / _BINS))
            self.strata = np.unique(np.searchsorted(edges, self.strata, side="left"), return_inverse=True)[1]

    def missing(self, inside: np.ndarray) -> str:
        """Names of the classes that a part lacks; "" for a regression."""
        present = set(self.strata[inside].tolist())
        lacking = sorted(set(self.strata.tolist()) - present) if self.classes else []
        return first_three(repr(self.classes[number]) for number in lacking)

    def drawn(self, sizes: Mapping[int, float | int], seed: int, shuffle: bool, draws: int = DRAWS) -> np.ndarray:
        """`(clips,)`: the number of each clip's part, in the best draw."""
        check_whole("draws", draws, 1)
        check_whole("seed", seed, 0)
        counts = np.zeros((self.groups.max() + 1, max(self.strata.max() + 1, len(self.classes))), dtype=np.int64)
        np.add.at(counts, (self.groups, self.strata), 1)  # (groups, strata): clips
        rng, forward = np.random.default_rng(seed), np.arange(len(counts))
        parts, errors = np.full((1, len(counts)), TRAIN), np.zeros(1)  # (draws, groups), (draws,)
        repeats = draws if shuffle and self.grouped else 1  # of single clips one draw is as good as many
        for part, size in sizes.items():
            if not size:
                continue
            different = np.unique(parts, axis=0, return_index=True)[1].tolist()
            # Not for the best division alone: it may leave little choice to the next part.
            best = sorted(different, key=errors.__getitem__)[:_FEW]
            parts, errors = np.repeat(parts[best], repeats, axis=0), np.repeat(errors[best], repeats, axis=0)
            orders = np.broadcast_to(forward[::-1], parts.shape)
            if shuffle:
                orders = rng.permuted(np.tile(forward, (len(parts), 1)), axis=1)
            taken = _steered(counts, orders, parts == TRAIN, float(size), keep=bool(self.classes))
            parts, errors = np.where(taken, part, parts), errors + _errors(counts, taken, float(size))
        return parts[errors.argmin()][self.groups]

    def refuse_rare(self, least: int) -> None:
        """Refuse a class with fewer groups than parts that need it."""
        for number, name in enumerate(self.classes):
            inside = self.strata == number
            clips, groups = int(inside.sum()), len(np.unique(self.groups[inside]))
            if 0 < groups < least:
                of_what = f", of {groups} group{'s' * (groups > 1)} (speakers) only" if groups < clips else ""
                found = f"{name!r} has {clips} clip{'s' * (clips > 1)}{of_what}"
                what = "clips by different speakers" if groups < clips else "clips"
                advice = "Leave that class out, join it with another one, or record more"
                advice += '; group="path" does not keep speakers apart.' if groups < clips else "."
                raise DatasetError("target", found, f"at least {least} {what}, one for each part", advice)

    def check(self, divisions: list[np.ndarray], sizes: Mapping[int, float | int], shuffle: bool) -> None:
        """Refuse unusable divisions; warn once of what is not as asked."""
        notes = []
        if not self.grouped:
            notes.append(
                "no speaker is known, so each clip is taken for itself, and a voice may be in two parts: if the table "
                f"has them, name their column by {argument('speaker')}"
            )
        if not shuffle:
            notes.append("without shuffling, parts follow the order of the table")
        for place, parts in enumerate(divisions):
            fold = f" (fold {place + 1})" if len(divisions) > 1 else ""
            wanted = {TRAIN, *(part for part, size in sizes.items() if size), *([VALID] if fold else [])}
            for part in sorted(wanted):
                count, missing = int((parts == part).sum()), self.missing(parts == part)
                if not count:
                    found = f"no clip is left for {PARTS[part]!r}{fold}"
                    advice = "Take other sizes, or more clips or groups."
                    raise DatasetError("sizes", found, f"something of {len(parts)} clips in every part", advice)
                if missing and part == TRAIN:
                    advice = "Leave that class out, or take smaller parts or fewer folds."
                    raise DatasetError("train", f"no clip of {missing}{fold}", "every class", advice)
                if missing:
                    notes.append(f"{PARTS[part]}{fold} has no clip of {missing}")
                if part in sizes and not place and abs(count / len(parts) - sizes[part]) > _FAR:
                    notes.append(f"{PARTS[part]} has {count} of {len(parts)} clips, not {sizes[part]:.3g} of them")
        if notes:
            warnings.warn("; ".join(notes), UserWarning, stacklevel=3)


def _steered(counts: np.ndarray, orders: np.ndarray, free: np.ndarray, size: float, keep: bool) -> np.ndarray:
    """`(draws, groups)`: the free groups that each draw takes into a part."""
    # In the order of the draw a group is taken if it brings the number of clips, and of clips of each class, nearer to
    # what is wanted. With `keep` groups with a class that the part lacks come first, whatever the size, and the last
    # group to train a class with is never taken.
    rows, total = np.arange(len(orders)), counts.sum(axis=0)
    wanted = size * total
    left = free.astype(np.int64) @ counts  # (draws, strata)
    have = np.zeros_like(left)
    taken = np.zeros(orders.shape, dtype=bool)

    def distance(having: np.ndarray) -> np.ndarray:
        return abs(having.sum(axis=1) - wanted.sum()) + abs(having - wanted).sum(axis=1)

    for new_classes in (True, False) if keep else (False,):
        for groups in orders.T:
            added = counts[groups]
            after, rest = have + added, left - added
            lacking = ((have == 0) & (added > 0)).any(axis=1) if new_classes else distance(after) < distance(have)
            enough = ((rest > 0) | (total == 0)).all(axis=1) if keep else rest.any(axis=1)
            accept = free[rows, groups] & ~taken[rows, groups] & lacking & enough
            taken[rows, groups] |= accept
            have, left = np.where(accept[:, None], after, have), np.where(accept[:, None], rest, left)
    return taken


def _errors(counts: np.ndarray, taken: np.ndarray, size: float) -> np.ndarray:
    """`(draws,)`: error of a part's size and of its shares of the classes; more for a class that it lacks."""
    inside, total = taken.astype(np.int64) @ counts, counts.sum(axis=0)
    clips = inside.sum(axis=1)
    shares = abs(inside / np.maximum(clips, 1)[:, None] - total / total.sum()).sum(axis=1) / 2
    missing = ((inside == 0) & (total > 0)).sum(axis=1)
    return abs(clips / total.sum() - size) + shares + missing + 10.0 * (clips == 0)


def _check_sizes(**sizes: float | int) -> None:
    for name, size in sizes.items():
        if not 0 <= size < 1:
            raise ParameterError(name, f"{size}", "a share of all clips: 0 or more, less than 1")
    if sum(sizes.values()) >= 1:
        raise ParameterError(" + ".join(sizes), f"{sum(sizes.values()):g}", "less than 1: something to train with")
