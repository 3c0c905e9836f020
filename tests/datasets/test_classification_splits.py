"""Recordings in parts: sizes, shares, groups apart, and what cannot be divided."""

import csv
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avlib.datasets.classification import (
    PARTS,
    Labels,
    Recording,
    Splits,
    folds,
    given_splits,
    read_recordings,
    split,
    splits_of_column,
)
from avlib.errors import DatasetError, ParameterError


def some(targets, groups=None, split: str = "", name: str = "clip") -> list[Recording]:
    groups = [""] * len(targets) if groups is None else groups
    pairs = enumerate(zip(targets, groups, strict=True))
    return [
        Recording(Path(f"{name}{i}.wav"), str(target), group=str(group), split=split) for i, (target, group) in pairs
    ]


def speakers(clips: int = 400, count: int = 40, positive: float = 0.15, seed: int = 0) -> list[Recording]:
    """As many clips of each speaker, a share of all of them positive, whoever speaks."""
    targets = np.zeros(clips, int)
    targets[np.random.default_rng(seed).permutation(clips)[: round(positive * clips)]] = 1
    return some(targets.tolist(), np.repeat(np.arange(count), clips // count).tolist())


def sizes(splits: Splits, clips: int) -> list[float]:
    return [len(getattr(splits, part)) / clips for part in PARTS]


def check_parts(splits: Splits, recordings: list[Recording]) -> None:
    """Each clip once, each group in one part, indices in order."""
    parts = [getattr(splits, name) for name in PARTS]
    assert sorted(index for part in parts for index in part) == list(range(len(recordings)))
    assert all(list(part) == sorted(part) for part in parts)
    where: dict = {}
    for number, part in enumerate(parts):
        for index in part:
            group = recordings[index].group
            assert not group or where.setdefault(group, number) == number


# By ratio


@pytest.mark.parametrize("seed", range(5))
def test_row_18_sizes_and_share_are_hit_exactly_with_speakers_apart(seed):
    recordings = speakers(seed=seed)
    splits = split(recordings, 0.3, 0.2, seed=seed)
    check_parts(splits, recordings)
    assert sizes(splits, 400) == [0.5, 0.2, 0.3]
    for part in splits.take(recordings).values():
        assert np.mean([recording.target == "1" for recording in part]) == 0.15


def test_row_17_sizes_are_of_the_whole_and_have_the_published_defaults():
    recordings = speakers()
    assert split(recordings) == split(recordings, 0.3, 0.2, seed=42)
    assert sizes(split(recordings, 0.5, 0.25), 400) == [0.25, 0.25, 0.5]
    assert sizes(split(recordings, 0.2, 0), 400) == [0.8, 0, 0.2]
    assert sizes(split(recordings, 0, 0.1), 400) == [0.9, 0.1, 0]
    assert sizes(split(recordings, 0, 0), 400) == [1, 0, 0]


def test_row_13_a_split_follows_from_its_seed():
    recordings = speakers()
    assert split(recordings, seed=1) == split(recordings, seed=1) in {split(recordings, seed=1)}
    assert len({split(recordings, seed=seed).test for seed in range(10)}) == 10


def test_speakers_of_unequal_numbers_of_clips_and_five_classes():
    dice = np.random.default_rng(0)
    groups = dice.choice(60, 1000, p=(weights := 1 / np.arange(1, 61)) / weights.sum())  # one speaker has 21 %
    recordings = some((dice.integers(0, 5, 1000)).tolist(), groups.tolist())
    splits = split(recordings)
    check_parts(splits, recordings)
    assert sizes(splits, 1000) == pytest.approx([0.5, 0.2, 0.3], abs=0.01)
    whole = Counter(recording.target for recording in recordings)
    for part in splits.take(recordings).values():
        there = Counter(recording.target for recording in part)
        for name, count in whole.items():
            assert there[name] / len(part) == pytest.approx(count / 1000, abs=0.03)


def test_more_draws_are_no_worse():
    def wrong(draws: int, seed: int) -> float:
        dice = np.random.default_rng(seed)
        recordings = some(dice.integers(0, 3, 200).tolist(), dice.integers(0, 12, 200).tolist())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few draws may miss the sizes
            splits = split(recordings, draws=draws, seed=seed)
        return sum(abs(size - asked) for size, asked in zip(sizes(splits, 200), (0.5, 0.2, 0.3), strict=True))

    assert np.mean([wrong(64, seed) for seed in range(8)]) < np.mean([wrong(1, seed) for seed in range(8)])


def test_targets_of_a_regression_are_spread_alike():
    dice = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 10)
    targets = dice.normal(size=40)[groups] + dice.normal(size=400)
    recordings = some(targets.tolist(), groups.tolist())
    splits = split(recordings, labels=Labels.of(recordings, "regression"))
    check_parts(splits, recordings)
    assert sizes(splits, 400) == pytest.approx([0.5, 0.2, 0.3], abs=0.01)
    edges = np.quantile(targets, [0.2, 0.4, 0.6, 0.8])
    for part in (splits.train, splits.valid, splits.test):
        inside = targets[list(part)]
        assert abs(inside.mean() - targets.mean()) < 0.12 * targets.std()
        assert 0.8 < inside.std() / targets.std() < 1.2
        shares = np.bincount(np.searchsorted(edges, inside), minlength=5) / len(inside)
        assert shares == pytest.approx([0.2] * 5, abs=0.06)


def test_a_regression_of_few_targets_or_few_speakers_can_be_divided():
    recordings = some([1.0, 2.0, 3.0, 4.0] * 10, sorted([*range(8)] * 5))
    check_parts(split(recordings, 0.25, 0.25, labels=Labels.of(recordings, "regression")), recordings)
    two = some([*range(10), *range(20, 30)], [0] * 10 + [1] * 10)  # each target by one speaker only
    assert sizes(split(two, 0.5, 0, labels=Labels.of(two, "regression")), 20) == [0.5, 0, 0.5]


def test_without_speakers_a_split_is_stratified_with_a_warning():
    recordings = some([0] * 340 + [1] * 60)
    with pytest.warns(UserWarning, match="no speaker is known"):
        splits = split(recordings)
    check_parts(splits, recordings)
    counts = [Counter(recording.target for recording in part) for part in splits.take(recordings).values()]
    assert counts == [{"0": 170, "1": 30}, {"0": 68, "1": 12}, {"0": 102, "1": 18}]


def test_sizes_are_kept_where_classes_have_few_clips():
    recordings = some([*range(50)] * 5)
    with pytest.warns(UserWarning, match="no speaker is known"):
        splits = split(recordings, 0.3, 0.2)
    check_parts(splits, recordings)
    assert sizes(splits, 250) == pytest.approx([0.5, 0.2, 0.3], abs=0.004)
    for part in splits.take(recordings).values():
        assert len({recording.target for recording in part}) == 50


@pytest.mark.parametrize("seed", range(10))
def test_eight_clips_are_divided_with_each_class_to_train_and_to_test(seed):
    recordings = some(["front"] * 3 + ["rear"] * 3 + ["side"] * 2)
    with pytest.warns(UserWarning, match=r"no speaker is known.*valid has no clip of 'side'.*test has 3 of 8 clips"):
        splits = split(recordings, seed=seed)
    check_parts(splits, recordings)
    parts = splits.take(recordings)
    for name in ("train", "test"):
        assert {recording.target for recording in parts[name]} == {"front", "rear", "side"}
    assert parts["valid"]


@pytest.mark.parametrize("valid_size", [0, 0.1])
def test_2831_clips_are_divided_by_phrase_in_about_a_second(valid_size):
    dice = np.random.default_rng(0)
    languages = dice.integers(0, 5, 2831)
    phrases = [f"{language}-{dice.zipf(1.6) % 400}" for language in languages]
    recordings = some(languages.tolist(), phrases)
    start = time.process_time()
    splits = split(recordings, 0.2, valid_size)
    print(f"{time.process_time() - start:.2f} s, {len(set(phrases))} phrases")  # no test asserts on a clock
    check_parts(splits, recordings)
    assert sizes(splits, 2831) == pytest.approx([0.8 - valid_size, valid_size, 0.2], abs=0.01)


def test_row_20_without_shuffling_parts_come_from_the_end_of_the_table():
    recordings = some([0, 1] * 50, np.repeat(np.arange(10), 10).tolist())
    with pytest.warns(UserWarning, match="without shuffling"):
        splits = split(recordings, shuffle=False, seed=1)
    assert splits.test == tuple(range(70, 100)) and splits.valid == tuple(range(50, 70))
    with pytest.warns(UserWarning, match="without shuffling"):
        assert split(recordings, shuffle=False, seed=2) == splits
    by_class = some([0] * 50 + [1] * 50, [*range(10)] * 10)  # a table that is sorted by class
    with pytest.warns(UserWarning, match="without shuffling"):
        assert Counter(r.target for r in split(by_class, shuffle=False).take(by_class)["test"]) == {"0": 15, "1": 15}


def test_a_label_with_one_example_is_refused():
    recordings = [*speakers(), *some(["rare"], ["s"], name="other")]
    with pytest.raises(DatasetError, match="'rare' has 1 clip; expected at least 2 clips"):
        split(recordings)
    assert split(recordings, 0, 0).train == tuple(range(401))  # nothing is held out
    with pytest.raises(DatasetError, match="'rare' has 1 clip; expected at least 3"):
        folds(recordings, 3)


def test_a_label_of_one_speaker_is_refused():
    recordings = [*speakers(), *some(["rare"] * 5, ["s"] * 5, name="other")]
    with pytest.raises(DatasetError, match=r"'rare' has 5 clips, of 1 group \(speakers\) only; .* different speakers"):
        split(recordings)


def test_sizes_that_leave_a_part_empty_are_refused():
    recordings = some("ababab", [1, 1, 1, 2, 2, 2])
    with pytest.raises(DatasetError, match="no clip is left for 'valid'; expected something of 6 clips"):
        split(recordings, 0.3, 0.3)
    for wrong in ({"test_size": -0.1}, {"valid_size": 1}, {"test_size": 0.6, "valid_size": 0.4}):
        with pytest.raises(ParameterError, match="size"):
            split(recordings, **wrong)
    for wrong in ({"draws": 0}, {"seed": -1}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            split(recordings, **wrong)
    with pytest.raises(DatasetError, match="recordings: none"):
        split([])


def test_groups_of_some_clips_only_are_refused():
    with pytest.raises(DatasetError, match=r"1 of 3 clips have no group: clip2.wav"):
        split(some("aba", ["s", "t", ""]))


# Folds


def test_row_19_a_test_part_by_size_and_folds_of_the_rest():
    recordings = speakers()
    every = folds(recordings, 5, 0.25, seed=7)
    assert len(every) == 5 and len({splits.test for splits in every}) == 1
    assert every[0].test == split(recordings, 0.25, 0, seed=7).test and len(every[0].test) == 100
    for splits in every:
        check_parts(splits, recordings)
        assert len(splits.valid) == pytest.approx(60, abs=10)
        positive = np.mean([recordings[index].target == "1" for index in splits.valid])
        assert positive == pytest.approx(0.15, abs=0.05)
    validated = [index for splits in every for index in splits.valid]
    assert sorted([*validated, *every[0].test]) == list(range(400))  # each clip once
    assert folds(recordings, 5, 0.25, seed=7) == every != folds(recordings, 5, 0.25, seed=8)


def test_folds_without_a_test_part_without_speakers_and_of_a_regression():
    recordings = some([0, 1] * 20)
    with pytest.warns(UserWarning, match="no speaker is known"):
        every = folds(recordings, 4, 0)
    for splits in every:
        check_parts(splits, recordings)
        assert Counter(recordings[index].target for index in splits.valid) == {"0": 5, "1": 5} and not splits.test
    with pytest.warns(UserWarning, match="without shuffling"):
        folds(recordings, 4, 0, shuffle=False)
    numbers = some(np.arange(100.0).tolist(), np.repeat(np.arange(20), 5).tolist())
    for splits in folds(numbers, 3, labels=Labels.of(numbers, "regression")):
        check_parts(splits, numbers)


def test_k_larger_than_the_groups_is_refused():
    recordings = speakers(100, 10, 0.5)
    assert len(folds(recordings, 7)) == 7  # 10 speakers, 3 of them to test
    with pytest.raises(ParameterError, match=r"k: 8; expected at most 7, the groups \(speakers"):
        folds(recordings, 8)
    with pytest.raises(ParameterError, match="k: 10; expected at most 7, the clips"):
        folds(some([0, 1] * 5), 10)
    with pytest.raises(ParameterError, match="k: 10; expected at most 5, the clips"):  # said before that side is rare
        folds(some(["front"] * 3 + ["rear"] * 3 + ["side"] * 2), 10)
    with pytest.raises(ParameterError, match="k: 1; expected 2"):
        folds(recordings, 1)


def test_k_larger_than_any_class_is_refused_and_a_regression_has_folds_all_the_same():
    eight = some(["front"] * 3 + ["rear"] * 3 + ["side"] * 2)
    with pytest.raises(ParameterError, match="k: 4; expected at most 3, the clips of the commonest class"):
        folds(eight, 4, 0)
    numbers = some(np.arange(20.0).tolist(), np.repeat(np.arange(10), 2).tolist())
    every = folds(numbers, 10, 0, labels=Labels.of(numbers, "regression"))
    assert sorted(len(splits.valid) for splits in every) == [2] * 10  # one speaker each


def test_a_fold_without_a_class_to_train_is_refused():
    eight = some(["front"] * 3 + ["rear"] * 3 + ["side"] * 2)
    with pytest.raises(DatasetError, match="'side' has 2 clips; expected at least 3 clips, one for each part"):
        folds(eight, 2, 0.3)
    recordings = some("ab" * 3 + "a" * 7, [1, 1, 2, 2, 3, 3, *range(4, 11)])
    with pytest.raises(DatasetError, match=r"train: no clip of 'b' \(fold \d\); expected every class"):
        folds(recordings, 3, 0.6)  # two of three speakers of b are in the test part


def test_a_fold_without_a_class_is_told():
    recordings = some("aaaaaaaabbb", [*range(8), 8, 9, 10])
    with pytest.warns(UserWarning, match=r"valid \(fold \d\) has no clip of 'b'"):
        folds(recordings, 4)


# Parts that are given


def given(*parts: tuple[str, str]) -> list[list[Recording]]:
    """Parts, each of targets and speakers, letter by letter."""
    return [some(targets, groups, name=f"part{number}-") for number, (targets, groups) in enumerate(parts)]


def test_row_15_given_parts_are_kept():
    train, test, valid = given(("abab", "1122"), ("ab", "33"), ("ba", "44"))
    recordings, splits = given_splits(train, test, valid)
    assert splits.take(recordings) == {"train": train, "valid": valid, "test": test}


def test_row_16_a_missing_validation_part_is_a_share_of_the_whole_out_of_training():
    train, test = speakers(400, 40), some([0, 1] * 50, ["other"] * 100, name="test")
    recordings, splits = given_splits(train, test, valid_size=0.2)
    check_parts(splits, recordings)
    assert len(splits.valid) == 0.2 * (400 + 100) and splits.test == tuple(range(400, 500))
    share = np.mean([recordings[index].target == "1" for index in splits.valid])
    assert share == pytest.approx(0.15, abs=0.01)
    with pytest.raises(ParameterError, match=r"valid_size: 0.8, 400 of 500 clips; expected less .* train with, 400"):
        given_splits(train, test, valid_size=0.8)


def test_a_speaker_in_two_given_parts_is_refused():
    train, test = given(("abab", "1122"), ("abab", "2233"))
    with pytest.raises(DatasetError, match="speaker or group: 1 in two parts or more: 2"):
        given_splits(train, test, valid_size=0)
    train, test, valid = given(("abab", "1122"), ("ab", "33"), ("ab", "11"))
    with pytest.raises(DatasetError, match="speaker or group: 1 in two parts or more: 1"):
        given_splits(train, test, valid)


def test_a_clip_in_two_given_parts_is_refused():
    clips = some("abab")
    with pytest.raises(DatasetError, match=r"clip: 2 in two parts or more: .*clip0\.wav"):
        given_splits(clips, clips[:2], valid_size=0)


@pytest.mark.parametrize("parts", [("aaaa", "abab", "abab"), ("abab", "aaaa", "abab"), ("abab", "abab", "aaaa")])
def test_a_class_that_is_missing_from_a_given_part_is_refused(parts):
    train, valid, test = given(*zip(parts, ("1111", "2222", "3333"), strict=True))
    missing = PARTS[parts.index("aaaa")]
    with pytest.raises(DatasetError, match=f"{missing}: no clip of 'b'; expected every class"):
        given_splits(train, test, valid)


def test_a_given_part_without_clips_is_refused():
    with pytest.raises(DatasetError, match="test: no clips"):
        given_splits(some("abab"), [])


def test_a_regression_needs_no_target_in_every_part():
    train, test = given(("1234", "1122"), ("56", "33"))
    _, splits = given_splits(train, test, valid_size=0, labels=Labels((), "regression"))
    assert splits.test == (4, 5)


def test_parts_by_the_column_of_the_table():
    parts = ["Train", "validation", "test", "training", "dev", "testing"]
    recordings = [Recording(Path(f"{i}.wav"), "aabbba"[i], split=part) for i, part in enumerate(parts)]
    splits = splits_of_column(recordings)
    assert (splits.train, splits.valid, splits.test) == ((0, 3), (1, 4), (2, 5))
    with pytest.raises(DatasetError, match=r"6.wav: split 'rest'; expected one of train"):
        splits_of_column([*recordings, Recording(Path("6.wav"), "a", split="rest")])
    with pytest.raises(DatasetError, match="no clip in 'test'"):
        splits_of_column(some("abab", split="train"))
    recordings = [*some([0, 1] * 20, [*range(40)], "train"), *some([0, 1] * 5, ["t"] * 10, "test", "other")]
    assert sizes(splits_of_column(recordings, valid_size=0.2), 50) == [0.6, 0.2, 0.2]
    assert sizes(splits_of_column(recordings, valid_size=0), 50) == [0.8, 0, 0.2]


# What a saved model carries


def taken_by_speaker(folder: Path, absolute: bool = False) -> list[Recording]:
    """Files of the same names and targets in a folder for each speaker, in a table."""
    rows = [(f"s{speaker}/w{word}.wav", "ab"[word % 2], f"s{speaker}") for speaker in range(10) for word in range(6)]
    for path, *_ in rows:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    with (folder / "table.csv").open("w", newline="") as file:
        rows = [(folder / path if absolute else path, *rest) for path, *rest in rows]
        csv.writer(file).writerows([("path", "label", "speaker"), *rows])
    return read_recordings(folder / "table.csv")


def test_hashes_tell_files_of_the_same_name_apart(tmp_path):
    recordings = taken_by_speaker(tmp_path)
    splits, again, other = (split(recordings, seed=seed) for seed in (0, 0, 3))
    assert splits.hashes == again.hashes and splits.test != other.test
    for part, mark in splits.hashes.items():
        assert (mark == other.hashes[part]) == (getattr(splits, part) == getattr(other, part))
    train, test, switched = recordings[:30], recordings[30:], given_splits(recordings[30:], recordings[:30])[1]
    assert len({*given_splits(train, test)[1].hashes.values(), *switched.hashes.values()}) == 6


@pytest.mark.parametrize("absolute", [False, True])
def test_hashes_are_the_same_wherever_the_folder_lies(tmp_path, monkeypatch, absolute):
    here, there = (taken_by_speaker(tmp_path / name, absolute) for name in ("here", "there"))
    assert split(here).hashes == split(there).hashes
    monkeypatch.chdir(tmp_path / "here")
    assert split(read_recordings("table.csv")).hashes == split(here).hashes
    assert split([replace(one, target=one.target.upper()) for one in here]).hashes["test"] != split(here).hashes["test"]


def test_hashes_of_clips_without_a_table_are_of_their_paths():
    recordings = speakers()
    moved = [replace(one, path=Path("elsewhere") / one.path) for one in recordings]
    assert split(recordings).hashes == split(speakers()).hashes
    assert not set(split(moved).hashes.values()) & set(split(recordings).hashes.values())
