"""Groups of clips drawn into parts: the best of many draws, each of which is steered to sizes and shares."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DatasetError, ParameterError
from .labels import Labels
from .table import Recording, argument, first_three

PARTS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)
_BINS = 5  # of equally many targets, which stand for classes where a regression is divided
_FAR = 0.05  # of all clips; a part that is further from the size asked for is told
_FEW = 8  # divisions that are gone on with


@dataclass(frozen=True)
class Pool:
    """Recordings from which parts are drawn.

    strata: number of the class, or of the range of targets.
    groups: number of the group, in the order in which they come.
    grouped: whether groups are known; if not each clip is one.
    labels: what targets mean in numbers; classes are strata, the numbers of a regression are in ranges.
    """

    strata: np.ndarray
    groups: np.ndarray
    grouped: bool
    labels: Labels

    @classmethod
    def of(cls, recordings: Sequence[Recording], labels: Labels | None) -> Pool:
        if not recordings:
            raise DatasetError("recordings", "none", "at least one")
        labels = Labels.of(recordings) if labels is None else labels
        without = [recording for recording in recordings if not recording.group]
        if 0 < len(without) < len(recordings):
            found = f"{len(without)} of {len(recordings)} clips have no group: {first_three(without)}"
            raise DatasetError("group", found, "a speaker, or a group of another kind, for all or for none")
        keys = list(range(len(recordings))) if without else [recording.group for recording in recordings]
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        numbers = np.array([labels.number(recording) for recording in recordings])
        if labels.task == "regression":
            edges = np.unique(np.quantile(numbers, np.arange(1, _BINS) / _BINS))
            numbers = np.unique(np.searchsorted(edges, numbers, side="left"), return_inverse=True)[1]
        return cls(numbers, np.array([places[key] for key in keys]), not without, labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the strata where each has to be in every part; none for a regression."""
        return self.labels.names if self.labels.task == "classification" else ()

    def counts(self) -> np.ndarray:
        """`(groups, strata)`: clips."""
        counts = np.zeros((self.groups.max() + 1, max(self.strata.max() + 1, len(self.classes))), dtype=np.int64)
        np.add.at(counts, (self.groups, self.strata), 1)
        return counts

    def drawn(self, sizes: Mapping[int, float | int], seed: int, shuffle: bool, draws: int) -> np.ndarray:
        """The number of the part of each recording, by the best draw.

        Each part is drawn for the best few divisions so far, not for the best alone, which may leave little choice.
        Where each clip is a group, one draw is as good as many: nothing keeps it from sizes and shares.
        """
        for name, value, least in (("draws", draws, 1), ("seed", seed, 0)):
            if value < least:
                raise ParameterError(name, f"{value}", f"{least} or more")
        counts, dice = self.counts(), np.random.default_rng(seed)
        forward = np.arange(len(counts))
        parts, wrong = np.full((1, len(counts)), TRAIN), np.zeros(1)
        for part, size in sizes.items():
            if not size:
                continue
            repeats = draws if shuffle and self.grouped else 1
            parts, wrong = (np.repeat(each, repeats, axis=0) for each in _best(parts, wrong))
            orders = np.broadcast_to(forward[::-1], parts.shape)
            if shuffle:
                orders = dice.permuted(np.tile(forward, (len(parts), 1)), axis=1)
            taken = _steered(counts, orders, parts == TRAIN, float(size), keep=bool(self.classes))
            parts, wrong = np.where(taken, part, parts), wrong + _wrong(counts, taken, float(size))
        return parts[wrong.argmin()][self.groups]

    def refuse_rare(self, least: int) -> None:
        """A class with fewer independent examples than there are parts that cannot do without it."""
        counts = self.counts()
        for number, name in enumerate(self.classes):
            clips, groups = int(counts[:, number].sum()), int((counts[:, number] > 0).sum())
            if 0 < groups < least:
                of_what = f", of {groups} group{'s' * (groups > 1)} (speakers) only" if groups < clips else ""
                found = f"{name!r} has {clips} clip{'s' * (clips > 1)}{of_what}"
                what = "clips by different speakers" if groups < clips else "clips"
                advice = "Leave that class out, join it with another one, or record more"
                advice += '; group="path" does not keep speakers apart.' if groups < clips else "."
                raise DatasetError("target", found, f"at least {least} {what}, one for each part", advice)

    def refuse_missing(self, parts: np.ndarray) -> None:
        """A class that is not in each of the parts that were given."""
        present = set(self.strata.tolist())
        for part in np.unique(parts):
            missing = present - set(self.strata[parts == part].tolist())
            if missing and self.classes:
                names = first_three(repr(self.classes[number]) for number in sorted(missing))
                raise DatasetError(PARTS[part], f"no clip of {names}", "every class in every part", "Divide anew.")

    def check(self, parts: np.ndarray | list[np.ndarray], sizes: Mapping[int, float | int], shuffle: bool) -> None:
        """Refuse what cannot be used of one division or several, and tell in one warning what is not as asked."""
        notes = []
        if not self.grouped:
            notes.append(
                "no speaker is known, so each clip is taken for itself, and a voice may be in two parts: if the table "
                f"has them, name their column by {argument('speaker')}"
            )
        if not shuffle:
            notes.append("without shuffling, parts follow the order of the table")
        present = set(self.strata.tolist())
        for place, each in enumerate(divisions := parts if isinstance(parts, list) else [parts]):
            fold = f" (fold {place + 1})" if len(divisions) > 1 else ""
            wanted = {TRAIN, *(part for part, size in sizes.items() if size), *([VALID] if fold else [])}
            for part in sorted(wanted):
                inside = self.strata[each == part]
                if not len(inside):
                    found = f"no clip is left for {PARTS[part]!r}{fold}"
                    advice = "Take other sizes, or more clips or groups."
                    raise DatasetError("sizes", found, f"something of {len(each)} clips in every part", advice)
                missing = sorted(present - set(inside.tolist())) if self.classes else []
                names = first_three(repr(self.classes[number]) for number in missing)
                if missing and part == TRAIN:
                    advice = "Leave that class out, or take smaller parts or fewer folds."
                    raise DatasetError("train", f"no clip of {names}{fold}", "every class", advice)
                if missing:
                    notes.append(f"{PARTS[part]}{fold} has no clip of {names}")
                if part in sizes and not place and abs(len(inside) / len(each) - sizes[part]) > _FAR:
                    notes.append(f"{PARTS[part]} has {len(inside)} of {len(each)} clips, not {sizes[part]:.3g} of them")
        if notes:
            warnings.warn("; ".join(notes), UserWarning, stacklevel=3)


def _steered(counts: np.ndarray, orders: np.ndarray, free: np.ndarray, size: float, keep: bool) -> np.ndarray:
    """`(draws, groups)`: which groups each draw takes into a part, of those that are free.

    Groups are looked at in the order of the draw. One is taken if it brings the number of clips, and of clips of each
    class, nearer to what is wanted, and if something is left to train with. With `keep` those come first that have a
    class that is not there yet, whatever the size, and none is taken that is the last to train a class with.
    """
    rows, total = np.arange(len(orders)), counts.sum(axis=0)
    wanted = size * total
    left = free.astype(np.int64) @ counts  # (draws, strata)
    have = np.zeros_like(left)
    taken = np.zeros(orders.shape, dtype=bool)

    def far(having: np.ndarray) -> np.ndarray:
        return abs(having.sum(axis=1) - wanted.sum()) + abs(having - wanted).sum(axis=1)

    for new_classes in (True, False) if keep else (False,):
        for groups in orders.T:
            added = counts[groups]
            after, rest = have + added, left - added
            wanting = ((have == 0) & (added > 0)).any(axis=1) if new_classes else far(after) < far(have)
            enough = ((rest > 0) | (total == 0)).all(axis=1) if keep else rest.any(axis=1)
            accept = free[rows, groups] & ~taken[rows, groups] & wanting & enough
            taken[rows, groups] |= accept
            have, left = np.where(accept[:, None], after, have), np.where(accept[:, None], rest, left)
    return taken


def _best(parts: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best few divisions that differ, and how wrong they are."""
    _, first = np.unique(parts, axis=0, return_index=True)
    kept = sorted(first.tolist(), key=wrong.__getitem__)[:_FEW]
    return parts[kept], wrong[kept]


def _wrong(counts: np.ndarray, taken: np.ndarray, size: float) -> np.ndarray:
    """`(draws,)`: how far a part is from its size and from the shares of the classes; worse if one is not there."""
    inside, total = taken.astype(np.int64) @ counts, counts.sum(axis=0)
    clips = inside.sum(axis=1)
    shares = abs(inside / np.maximum(clips, 1)[:, None] - total / total.sum()).sum(axis=1) / 2
    missing = ((inside == 0) & (total > 0)).sum(axis=1)
    return abs(clips / total.sum() - size) + shares + missing + 10.0 * (clips == 0)
