"""The classification row: its settings and their other names, data in parts, the step, and training done once."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from small_rows import CLASSIFICATION as SMALL
from torch.nn import functional as F

from avlib import metrics, training
from avlib import settings as settings_module
from avlib.__main__ import main
from avlib.clips import speech
from avlib.datasets.classification import ClassificationDataset
from avlib.errors import CacheError, CheckpointError, DatasetError, ParameterError
from avlib.features import word_difficulty
from avlib.models.classifiers import Features
from avlib.systems import classification
from avlib.systems.classification import LOSSES, changed
from avlib.systems.classification.settings import ALIASES

# A few steps on few clips, of which a quarter is abnormal.
small = changed(classification.tiny, SMALL)
uneven = changed(small, {"abnormal": 0.25, "takes": 4, "speakers": 4})


def parts(settings):
    return classification.parts(settings, progress=False)


def built(settings):
    own = parts(settings)
    return classification.build(settings, own), own


def batch_of(dataset, count=16):
    return dataset.collate([dataset[index] for index in range(count)])


@pytest.fixture(scope="module")
def whole():
    return classification.trained(small, progress=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """24 clips by 6 speakers, with a table that has columns of other names too."""
    folder = tmp_path_factory.mktemp("own")
    spoken = speech.corpus(2, 6, 2, snr=20)
    with speech.render(spoken, jobs=1, progress=False).open() as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        shutil.copy(row["path"], folder / f"{number}.wav")
        row["path"] = f"{number}.wav"
    return write(folder / "table.csv", rows), rows


def write(path, rows, columns=None):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


# Settings


def test_row_23_25_full_is_what_the_readme_says_by_default():
    full = classification.full
    assert (full.epochs, full.training.batch_size, full.training.learning_rate) == (10, 16, 3e-5)
    assert (full.warmup_ratio, full.training.schedule, full.training.seed) == (0.1, "linear", 42)
    assert (full.model.backbone, full.model.small, full.model.activation) == ("wav2vec2-base", False, "")
    assert (full.data.test_size, full.data.valid_size, full.data.seconds, full.data.crop) == (0.3, 0.2, 3.0, "start")
    assert full.task == "classification" and full.loss.loss == "cross_entropy" and not full.augment.on
    assert (full.training.monitor, full.training.best, full.data.k_fold) == ("valid loss", False, 0)


def values_of(settings):
    """Where each setting stands, and its value."""
    for path, _ in settings_module._leaves(settings):
        value = settings
        for name in path:
            value = getattr(value, name)
        yield path, value


def test_every_name_of_the_readme_is_a_setting_here():
    argued = {  # the value that is given, and where it stands then, alone
        "model_embedding": ("true", {"model.age": "row"}), "model_text_embedding": ("true", {"model.word": "row"}),
        "model_name": ("resnet", {"model.backbone": "resnet50"}), "data_length": ("2", {"data.seconds": 2}),
        "data_type": ("wave", {"data_type": "wave"}), "target": ("new_label", {"data.target": "new_label"}),
        "seed": ("3", {"training.seed": 3}), "filter_dataset": ("false", {}), "splitted_data_files": ("false", {}),
        "test_best_model": ("true", {"training.best": True}), "test_size": (".2", {"data.test_size": 0.2}),
        "valid_size": (".1", {"data.valid_size": 0.1}), "k_fold": ("4", {"data.k_fold": 4}),
        "no_shuffle": ("true", {"data.shuffle": False}), "checkpoint": ("there", {"checkpoint": "there"}),
        "lr": ("1e-4", {"training.learning_rate": 1e-4}), "max_lr": ("0.1", {"training.learning_rate": 0.1}),
        "min_lr": ("1e-6", {"training.min_learning_rate": 1e-6}), "num_cycles": ("2", {"training.cycles": 2}),
        "warmup_ratio": (".2", {"warmup_ratio": 0.2}), "batch_size": ("8", {"training.batch_size": 8}),
        "epochs": ("4", {"epochs": 4}), "n_mels": ("79", {"model.n_mels": 79}),
        "hop_length": ("320", {"model.hop_length": 320}), "age_momentum": (".5", {"model.age_momentum": 0.5}),
        "transform": ("true", {"augment.transform": True, "augment.time_mask": 10, "augment.freq_mask": 10}),
        "time_mask": ("true", {"augment.time_mask": 10}), "freq_mask": ("6", {"augment.freq_mask": 6}),
        "scheduler": ("linear", {"training.schedule": "linear"}), "loss_fn": ("cb", {"loss.loss": "class_balanced"}),
        "scaling": ("true", {"model.min_max": True}),
    }  # fmt: skip
    before = {".".join(path): value for path, value in values_of(small)}
    for name, (given, expected) in argued.items():
        after = {".".join(path): value for path, value in values_of(changed(small, {name: given}))}
        assert {where: value for where, value in after.items() if value != before[where]} == expected, name
    files = changed(small, {"train_filename": "a", "valid_filename": "b", "test_filename": "c"}).data
    assert (files.train_file, files.valid_file, files.test_file) == ("a", "b", "c")
    assert changed(small, {"test": "true", "checkpoint": "x"}).test is True
    assert changed(small, {"scheduler": "cosine_annealing"}).training.schedule == "cosine"
    assert ALIASES.keys() <= argued.keys() | {"train_filename", "valid_filename", "test_filename"}
    assert changed(small, {"words": "rake, wake"}).data.words == ("rake", "wake"), "words need no quotes"
    fields = {path[-1] for path, _ in settings_module._leaves(small)}
    renamed = {name: own for name, own in ALIASES.items() if name != "filter_dataset"}
    assert set(renamed.values()) <= fields and not renamed.keys() & fields


@pytest.mark.parametrize(
    ("values", "name", "own"),
    [
        ({"optimizer": "adamW"}, "training.optimizer", "adamw"), ({"optimizer": "SAM"}, "training.optimizer", "sam"),
        ({"loss_fn": "bce_logit"}, "loss.loss", "bce"), ({"loss": "Focal"}, "loss.loss", "focal"),
        ({"schedule": "cosine_annealing"}, "training.schedule", "cosine"),
        ({"loss": "ce"}, "loss.loss", "cross_entropy"),
        ({"backbone": "ResNet50"}, "model.backbone", "resnet50"), ({"model_name": "AST"}, "model.backbone", "ast"),
        ({"age": "true"}, "model.age", "row"), ({"shuffle": "false"}, "data.shuffle", False),
        ({"filter_dataset": "true", "word": "ring"}, "data.words", ("ring",)),
        ({"data": {"filter_dataset": True}, "word": "ring"}, "data.words", ("ring",)),
        ({"filter_dataset": "true", "words": "ring", "word": "film"}, "model.word", "film"),
        ({"filter_dataset": "false", "word": "film"}, "model.word", "film"),
    ],
)  # fmt: skip
def test_values_as_the_readme_and_its_code_call_them(values, name, own):
    assert {".".join(path): value for path, value in values_of(changed(small, values))}[name] == own


def test_a_switch_that_agrees_says_nothing():
    with_words = changed(small, {"words": "ring, wing"})
    assert changed(with_words, {"filter_dataset": True}) == with_words
    files = changed(small, {"train_file": "a", "test_file": "b"})
    assert changed(files, {"splitted_data_files": "true"}) == files


@pytest.mark.parametrize("values", [{"data_length": 3, "seconds": 3}, {"data": {"data_length": 3}, "seconds": 3}])
def test_an_alias_together_with_its_own_name_is_refused(values):
    with pytest.raises(ParameterError, match="given together with"):
        changed(small, values)


def test_two_aliases_of_one_name_are_refused():
    with pytest.raises(ParameterError, match="learning_rate"):
        changed(small, {"lr": 1, "max_lr": 1})


def test_a_later_source_wins_by_whatever_name():
    file = {"data": {"data_length": 3}, "lr": 0.1, "steps": 40}
    mine = changed(small, file, {"seconds": "2", "max_lr": "0.2"})
    assert (mine.data.seconds, mine.training.learning_rate, mine.training.steps, mine.epochs) == (2, 0.2, 40, 0)
    assert changed(small, file, {"epochs": 2}).epochs == 2, "steps are at most these"
    one_file = changed(small, {"train_file": "a"}, {"test_filename": "b"}).data
    assert (one_file.train_file, one_file.test_file) == ("a", "b")


def test_a_dotted_name_beside_a_plain_one_is_none_of_that():
    assert changed(small, {"steps": 3, "training.steps": 4}).training.steps == 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loss": "focl"}, "focal"), ({"backbone": "resnet51"}, "resnet50"), ({"word": "rake"}, "`words`"),
        ({"task": "regression", "loss": "focal"}, "mse"), ({"loss": "mse"}, "regression"), ({"k_fold": 1}, "2 or more"),
        ({"fold": 2, "k_fold": 2}, "0 to 1"), ({"test_size": 0.6, "valid_size": 0.4}, "together"),
        ({"filter_dataset": "true"}, "words"), ({"filter_dataset": "false", "words": "ring"}, "words are given"),
        ({"splitted_data_files": "true"}, "train_file and test_file"),
        ({"splitted_data_files": "false", "train_file": "a", "test_file": "b"}, "test_file are given"),
        ({"train_file": "a.csv"}, "test_file"), ({"test": True}, "checkpoint"), ({"crop": "end"}, "centre"),
        ({"transform": True, "backbone": "wav2vec2-base"}, "spectrogram"), ({"patience": 2, "monitor": ""}, "monitor"),
        ({"train_file": "a", "test_file": "b", "data": "c"}, "one of the two"),
        ({"train_file": "a", "test_file": "b", "k_fold": 2}, "k_fold"), ({"contrastive_weight": 2}, "0 to 1"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_by_name(values, said):
    with pytest.raises(ParameterError) as caught:
        changed(small, values)
    assert said in str(caught.value)


def test_choices_list_all_that_there_is():
    listed = classification.choices()
    assert tuple(listed["optimizer"]) == training.OPTIMIZERS and tuple(listed["schedule"]) == training.SCHEDULES
    assert {"whisper-base", "wav2vec2-base", "resnet50", "ast", "beats", "hubert-base"} <= listed["backbone"].keys()
    assert set(listed["loss"]) == set(LOSSES) and all(text for of in listed.values() for text in of.values())


# Data


def test_parts_keep_speakers_apart_and_are_in_memory_once():
    own = parts(small)
    speakers = [{row.speaker for row in part.recordings} for part in (own.train, own.valid, own.test)]
    assert len(own.train) == 32 and len(own.valid) == len(own.test) == 16
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])
    other = parts(changed(small, {"word": "film", "loss": "focal"}))
    assert other.train is own.train and other.test is own.test, "another model hears the same clips"
    assert own.conditions == {"word": "heads"} and other.conditions == {"word": "film"}
    longest = max(len(speech_of(row)) for row in (*own.train.recordings, *own.valid.recordings, *own.test.recordings))
    assert own.train.samples == own.test.samples == longest == round(own.seconds * 16000)


def speech_of(row):
    from avlib.media import read_audio

    return read_audio(row.path, 16000)


def test_row_13_the_seed_decides_the_split_unless_it_has_one_of_its_own():
    first, again, other = (parts(changed(small, {"seed": seed})).splits for seed in (1, 1, 2))
    assert first == again != other
    same, too = (parts(changed(small, {"seed": seed, "split_seed": 5})).splits for seed in (1, 2))
    assert same == too


def test_row_14_a_word_filter_comes_before_the_split():
    own = parts(changed(small, {"words": ["ring", "wing"]}))
    assert {row.word for part in (own.train, own.valid, own.test) for row in part.recordings} == {"ring", "wing"}
    with pytest.raises(DatasetError, match="ring"):
        parts(changed(small, {"words": ["rung"]}))


def test_rows_15_16_given_files_and_a_validation_part_from_training(table, tmp_path):
    _, rows = table
    for row in rows:
        row["path"] = str(table[0].parent / Path(row["path"]).name)
    speakers = list(dict.fromkeys(row["speaker"] for row in rows))
    files = {
        "train_file": write(tmp_path / "a.csv", [row for row in rows if row["speaker"] in speakers[:4]]),
        "test_file": write(tmp_path / "b.csv", [row for row in rows if row["speaker"] in speakers[4:]]),
    }
    names = {name: str(path) for name, path in files.items()}
    own = parts(changed(small, {**names, "valid_size": 1 / 6}))
    assert [len(part) for part in (own.train, own.valid, own.test)] == [12, 4, 8]
    aliased = {"train_filename": names["train_file"], "test_filename": names["test_file"]}
    assert parts(changed(small, {**aliased, "splitted_data_files": "true", "valid_size": 1 / 6})).splits == own.splits
    with pytest.raises(DatasetError, match="two parts"):
        parts(changed(small, {**names, "test_file": names["train_file"]}))
    for row in rows:
        row["split"] = "train" if row["speaker"] in speakers[:4] else "test"
    column = {"data": str(write(tmp_path / "c.csv", rows))}
    assert [len(part) for part in parts(changed(small, {**column, "valid_size": 1 / 6}))[:3]] == [12, 4, 8]
    with pytest.raises(ParameterError, match="column `split`"):
        parts(changed(small, {**column, "k_fold": 2}))


def test_row_20_without_shuffling_clips_come_in_the_order_of_the_table():
    settings = changed(small, {"no_shuffle": "true"})
    with pytest.warns(UserWarning, match="shuffling"):
        own = parts(settings)
    sampler = classification.sampler_of(own, settings)
    assert list(sampler) == list(range(len(own.train)))
    rest = changed(settings, {"batch_size": 12})  # of 32 clips three batches: four clips belong to the next round
    sampler = classification.sampler_of(own, rest)
    assert list(sampler) == [*range(32), *range(4)] and classification.plan(rest, own).evaluate_every == 3
    sampler.set_epoch(1)
    assert list(sampler) == [*range(4, 32), *range(8)]
    rows = [row for row, _ in zip(own.train.recordings, range(10), strict=False)]
    assert [row.speaker for row in rows] == [rows[0].speaker] * 8 + [rows[9].speaker] * 2, "as in the table"


def test_row_23_each_clip_is_trained_on_as_often_as_epochs_say():
    settings = changed(small, {"epochs": 5, "batch_size": 20, "steps": 1000})
    own = parts(settings)
    seen = Counter()

    def step(model, batch):
        seen.update(batch.index.tolist())
        return model.weight.sum(), {}

    how = replace(classification.plan(settings, own), save_every=0)
    sampler = classification.sampler_of(own, settings)
    history = training.fit(torch.nn.Linear(1, 1), step, own.train, how, sampler=sampler, progress=False)
    assert len(history) == how.steps == 10 and len(seen) == len(own.train) == 32
    assert set(seen.values()) == {6, 7}, "200 clips in 10 batches, which is 6 rounds of 32 and 8 more"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (["path", "label", "speaker"], "the table has none"),
        (["path", "label", "speaker", "one"], "one only"),
        (["path", "label", "speaker", "each"], "training part"),
        (["path", "label", "speaker", "told"], "give away"),
    ],
)
def test_auto_tells_the_word_only_where_it_can(table, tmp_path, columns, why):
    path, rows = table
    for number, row in enumerate(rows):
        row |= {
            "path": str(path.parent / Path(row["path"]).name),
            "one": "x",
            "each": f"w{number}",
            "told": row["label"],
        }
    named = [{**row, "word": row[columns[-1]]} for row in rows] if columns[-1] != "speaker" else rows
    other = write(tmp_path / "t.csv", named, [*columns[:3], "word"] if columns[-1] != "speaker" else columns)
    settings = changed(small, {"data": str(other), "test_size": 0.3, "valid_size": 0.2})
    own = parts(settings)
    assert not own.conditions and why in own.note
    if columns[-1] == "speaker":
        with pytest.raises(ParameterError, match="a word of every clip"):
            parts(changed(settings, {"word": "film"}))
        with pytest.raises(ParameterError, match="an age of every clip"):
            parts(changed(settings, {"age": "film"}))
        with pytest.raises(ParameterError, match="column `word`"):
            built_own = parts(changed(settings, {"loss": "balancing"}))
            classification.loss_weights(built_own, changed(settings, {"loss": "balancing"}))


def test_words_that_training_has_not_are_refused_where_the_model_is_told_them(table, tmp_path):
    path, rows = table
    named = [{**row, "path": str(path.parent / Path(row["path"]).name), "word": f"w{n}"} for n, row in enumerate(rows)]
    other = write(tmp_path / "t.csv", named)
    with pytest.raises(DatasetError, match="none of the"):
        parts(changed(small, {"data": str(other), "word": "embedding", "test_size": 1 / 3, "valid_size": 1 / 6}))


def anew(table, tmp_path, change):
    """The table with other rows, which find their clips from wherever it is."""
    path, rows = table
    whole = [{**row, "path": str(path.parent / Path(row["path"]).name)} for row in rows]
    return {
        "data": str(write(tmp_path / "anew.csv", [change(row) for row in whole])),
        "test_size": 1 / 3,
        "valid_size": 1 / 6,
    }


def test_columns_of_other_names_and_classes_in_another_order(table, tmp_path):
    names = {"word": "Wort", "age": "Alter", "speaker": "Kind"}
    given = anew(table, tmp_path, lambda row: {names.get(column, column): value for column, value in row.items()})
    columns = {f"{ours}_column": theirs for ours, theirs in names.items()}
    own = parts(changed(small, given | columns | {"order": ["normal", "abnormal"], "word": "auto"}))
    assert own.labels.names == ("normal", "abnormal") and own.words == ("ring", "wing")
    assert all(row.word and row.age and row.speaker == row.row["Kind"] for row in own.train.recordings)
    wrong = [row.target == "abnormal" for row in own.train.recordings]
    assert own.train.targets.tolist() == [int(each) for each in wrong]
    with pytest.raises(DatasetError, match="no column 'Worte'"):
        parts(changed(small, given | columns | {"word_column": "Worte"}))
    steps = {"task": "regression", "order": ["normal", "doubtful", "abnormal"], "word": ""}
    assert set(parts(changed(small, given | columns | steps)).train.targets.tolist()) == {0.0, 1.0}


def test_ages_matter_only_where_the_model_hears_them(table, tmp_path):
    """Grown-ups are beyond the ages of the list, which does no harm where no row is left for them."""
    grown = anew(table, tmp_path, lambda row: {**row, "age": 40})
    assert len(parts(changed(small, grown | {"n_mels": 80, "word": ""})).train) == 12
    for values in ({"n_mels": 60, "word": ""}, {"age": "film"}):
        with pytest.raises(DatasetError, match="40 years"):
            parts(changed(small, grown | values))
    ageless = anew(table, tmp_path, lambda row: {**row, "age": ""})
    assert parts(changed(small, ageless | {"n_mels": 79, "word": "row"})).conditions == {"word": "row"}
    with pytest.raises(ParameterError, match="n_mels: 60, which leaves 20 rows of 80 to the age; expected an age of"):
        parts(changed(small, ageless | {"n_mels": 60, "word": ""}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"backbone": "ast", "hop_length": 320}, "hop_length"), ({"backbone": "wav2vec2-base", "word": "row"}, "rows"),
        ({"n_mels": 60, "word": "row", "age": "row"}, "n_mels=78"), ({"loss": "difficulty", "words": "ring"}, "label"),
        ({"loss": "focal", "focal_alpha": "0.2, 0.3, 0.5"}, "focal_alpha: 3 numbers"),
        ({"loss": "contrastive", "words_per_batch": 9}, "words_per_batch"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_a_clip_is_read(table, tmp_path, values, said, monkeypatch):
    given = anew(table, tmp_path, lambda row: {**row, "label": row["label"].upper()})
    monkeypatch.setattr(ClassificationDataset, "prepared", lambda *_: pytest.fail("clips are read"))
    with pytest.raises(ParameterError, match=said):
        classification.trained(changed(small, given | {"pad": "full"} | values), progress=False)


# The step


def slowly(settings, output, batch, own):
    """The losses of rows 24 to 38, written out clip by clip."""
    p, words = output.logits.softmax(dim=1), own.train.word_numbers
    targets, how, terms = own.train.targets, settings.loss, []
    counts = [int((targets == label).sum()) for label in (0, 1)]
    for row, (label, word) in enumerate(zip(batch.target.tolist(), batch.word.tolist(), strict=True)):
        ce, weight = -math.log(p[row, label]), 1.0
        if how.loss == "focal":
            weight = (1 - float(p[row, label])) ** how.focal_gamma
        if how.loss == "class_balanced":
            ones = [(1 - how.beta) / (1 - how.beta**count) for count in counts]
            weight = 2 * ones[label] / sum(ones)
        if how.loss == "balancing":
            cells = [int(((words == word) & (targets == other)).sum()) for other in (0, 1)]
            weight = sum(cells) / (2 * cells[label])
        if how.loss == "difficulty":
            hard = (word_difficulty(own.words[word]) - 2) / 9
            sign = {"normal": 1, "abnormal": -1}[own.labels.names[label]]
            weight = 1 + sign * (min(max(hard, 0), 1) - 0.5)
        if how.loss == "bce":
            odds = [1 / (1 + math.exp(-float(z))) for z in output.logits[row]]
            ce = -sum(math.log(o if other == label else 1 - o) for other, o in enumerate(odds)) / 2
        terms.append(weight * ce)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "mse"])
def test_rows_30_to_38_each_loss_is_its_formula_with_counts_of_the_training_part(loss):
    settings = changed(uneven, {"loss": loss, "dropout": 0.0})
    model, own = built(settings)
    batch, weights = batch_of(own.train, 24), classification.loss_weights(own, settings)
    model.eval()
    with torch.no_grad():
        output = model.read(model.features(batch.waveform, batch.length), word=batch.word)
        found, noted = classification.step(model, batch, settings, weights)
    expected = slowly(settings, output, batch, own)
    if settings.loss.contrasts:
        assert float(noted["cross entropy"]) == pytest.approx(expected, rel=1e-4)
        expected = 0.8 * expected + 0.2 * float(noted["contrast"])
        assert noted["contrast"] > 0
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert Counter(own.train.targets.tolist()).most_common(1)[0][1] == 0.75 * len(own.train)


def test_row_38_difficulty_is_told_which_label_is_the_normal_one(table, tmp_path):
    own_names = {"normal": "정상", "abnormal": "비정상"}  # the abnormal one is sorted first, as it is in English
    given = anew(table, tmp_path, lambda row: {**row, "label": own_names[row["label"]]})
    settings = changed(small, given | {"loss": "difficulty"})
    own = parts(settings)
    with pytest.raises(ParameterError, match="normal_label: 'normal'; expected one of 비정상, 정상"):
        classification.loss_weights(own, settings)
    weights = classification.loss_weights(own, changed(settings, {"normal_label": "정상"}))
    hard = torch.tensor([(word_difficulty(word) - 2) / 9 for word in own.words]).clamp(0, 1)
    assert own.labels.names == ("비정상", "정상") and (hard != 0.5).all()
    assert torch.allclose(weights, torch.stack([1.5 - hard, 0.5 + hard], dim=1))


def test_row_36_the_batch_form_compares_clips_of_one_word():
    settings = changed(small, {"loss": "contrastive", "temperature": 0.1})
    model, own = built(settings)
    batch = batch_of(own.train, 16)
    with torch.no_grad():
        output = model.read(model.features(batch.waveform, batch.length), word=batch.word)
    e, terms = F.normalize(output.embedding, dim=1), []
    for i in range(16):
        others = [a for a in range(16) if a != i and batch.word[a] == batch.word[i]]
        alike = [a for a in others if batch.target[a] == batch.target[i]]
        if alike:
            total = sum(math.exp(float(e[i] @ e[a]) / 0.1) for a in others)
            terms.append(-sum(math.log(math.exp(float(e[i] @ e[p]) / 0.1) / total) for p in alike) / len(alike))
    found = classification.contrast_of(output, batch, settings.loss)
    assert float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-4)


@pytest.mark.parametrize("loss", ["contrastive", "pair_contrastive"])
def test_row_37_batches_for_contrast_have_each_label_of_each_word(loss):
    settings = changed(uneven, {"loss": loss, "batch_size": 16})
    own = parts(settings)
    sampler, how = classification.sampler_of(own, settings), classification.plan(settings, own)
    assert how.batch_size == sampler.batch_size == 16
    first = list(sampler)[:16]
    pairs = Counter((int(own.train.word_numbers[i]), int(own.train.targets[i])) for i in first)
    assert len(pairs) == 8 and set(pairs.values()) == {2}


def test_row_37_clips_of_no_known_word_are_compared_with_each_other_alone(table, tmp_path):
    given = anew(table, tmp_path, lambda row: {**row, "word": "" if row["word"] == "ring" else "wing"})
    settings = changed(small, given | {"loss": "contrastive", "word": "", "batch_size": 8})
    own = parts(settings)
    numbers = [-1 if not row.word else 0 for row in own.train.recordings]
    assert own.train.word_numbers.tolist() == numbers and set(numbers) == {-1, 0}
    assert {index for cell in classification.sampler_of(own, settings).cells[-1].values() for index in cell} == {
        index for index, number in enumerate(numbers) if number == -1
    }


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "mse"])
def test_every_loss_trains(loss):
    """The same 16 clips again and again are learned, whichever loss: it falls, and far enough to tell them apart."""
    how = {"steps": 20, "epochs": 0, "schedule": "constant", "warmup_ratio": 0, "lr": 3e-3, "seconds": 0.5}
    settings = changed(small, {"loss": loss, **how})
    model, own = built(settings)
    batch, weights = batch_of(own.train), classification.loss_weights(own, settings)
    history = training.fit(
        model, lambda model, _: classification.step(model, batch, settings, weights), own.train,
        classification.plan(settings, own), sampler=classification.sampler_of(own, settings), progress=False,
    )  # fmt: skip
    losses, right = history.series("loss")[1], history.series("right")[1]
    assert len(losses) == 20 and losses[-1] < 0.5 * losses[0] and right[-1] > 0.9 > right[0]


def test_row_12_a_regression_is_squared_error_and_is_measured_over_the_whole_part():
    settings = changed(small, {"task": "regression", "target": "age", "word": ""})
    model, own = built(settings)
    batch = batch_of(own.train)
    with torch.no_grad():
        said = model.eval()(batch.waveform, batch.length)
        found, _ = classification.step(model, batch, settings)
        figures = classification.validation(model, own, settings)
        every = batch_of(own.valid, len(own.valid))
        whole = model(every.waveform, every.length)
    ages = [own.train.recordings[i].age for i in range(16)]
    expected = np.mean([(float(s) - age) ** 2 for s, age in zip(said, ages, strict=True)])
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert figures["valid MAE"] == pytest.approx(float((whole - every.target).abs().mean()), rel=1e-4)
    x, y = whole.double(), every.target.double()
    ccc = (
        2
        * ((x - x.mean()) * (y - y.mean())).mean()
        / (x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2)
    )
    assert figures["valid CCC"] == pytest.approx(float(ccc), rel=1e-3)


# SpecAugment


def spectrograms(lengths):
    torch.manual_seed(0)
    return Features(torch.randn(len(lengths), 80, 50), torch.tensor(lengths))


def test_row_42_masks_are_as_wide_as_they_say_and_become_the_clips_mean():
    features, widths = spectrograms([50, 30, 20]), Counter()
    settings = changed(small, {"time_mask": 7, "freq_mask": 5})
    for _ in range(60):
        values = classification.augmented(features, settings.augment).values
        for row, length in enumerate(features.lengths.tolist()):
            hidden = values[row] != features.values[row]
            rows, columns = hidden.all(dim=1), hidden.all(dim=0)
            assert rows.sum() <= 4 and columns.sum() <= 6 and not columns[length:].any()
            assert torch.equal(hidden, rows[:, None] | columns[None])
            assert torch.allclose(values[row][hidden], features.values[row, :, :length].mean(), atol=1e-5)
            widths["rows", int(rows.sum())] += 1
            widths["columns", int(columns.sum())] += 1
            for line in (rows, columns):
                places = line.nonzero().flatten().tolist()
                assert places == list(range(places[0], places[-1] + 1)) if places else True
    assert {("rows", n) for n in range(5)} | {("columns", n) for n in range(7)} == widths.keys()
    twice = classification.augmented(features, changed(small, {"freq_mask": 2, "freq_masks": 40}).augment).values
    assert (twice != features.values).any(dim=2).sum(dim=1).min() > 2


def test_row_42_transform_is_both_masks_of_ten_and_acts_in_training_alone(monkeypatch):
    both = changed(small, {"transform": "true"})
    assert (both.augment.time_mask, both.augment.freq_mask) == (10, 10)
    assert changed(small, {"time_mask": "true"}).augment.freq_mask == 0
    model, own = built(both)
    seen = []
    read = model.read
    monkeypatch.setattr(model, "read", lambda features, **how: seen.append(features.values) or read(features, **how))
    batch = batch_of(own.train)
    for mode in (True, False):
        model.train(mode)
        with torch.no_grad():
            classification.step(model, batch, both)
    plain = model.features(batch.waveform, batch.length).values
    assert not torch.equal(seen[0], plain) and torch.equal(seen[1], plain)


def test_row_42_rows_of_conditions_are_never_hidden():
    settings = changed(small, {"freq_mask": 40, "freq_masks": 20, "word": "row"})
    model, own = built(settings)
    heard = []
    hear = model.backbone.encode
    model.backbone.encode = lambda features: heard.append(features.values) or hear(features)
    batch = batch_of(own.train)
    with torch.no_grad():
        classification.step(model.train(), batch, settings)
    keys = torch.tensor([[-1.0, -0.333, 0.333, 1.0][word] for word in batch.word.tolist()])
    assert torch.allclose(heard[0][:, -1], keys[:, None].expand(-1, heard[0].shape[2]))


# How to train


def test_rows_23_and_25_epochs_become_steps_and_the_warm_up_a_share_of_them():
    settings = changed(small, {"epochs": 5, "batch_size": 10, "steps": 1000, "warmup_ratio": 0.1})
    how = classification.plan(settings, parts(settings))
    assert (how.steps, how.warmup, how.evaluate_every, how.batch_size) == (20, 2, 4, 10), "32 clips, 4 batches"
    assert classification.plan(changed(settings, {"steps": 7}), parts(settings)).steps == 7
    assert classification.plan(changed(settings, {"epochs": 0, "steps": 7}), parts(settings)).steps == 7
    few = classification.plan(changed(settings, {"batch_size": 500}), parts(settings))
    assert (few.batch_size, few.steps) == (32, 5), "a table of few clips is one batch"


def test_steps_or_a_warm_up_that_are_given_alone_are_what_is_taken():
    own = parts(small)
    alone = classification.plan(changed(classification.full, {"steps": 500, "warmup": 7}), own)
    assert (alone.steps, alone.warmup) == (500, 7), "not ten epochs, of which a tenth warms up"
    both = changed(classification.full, {"training": {"steps": 500}, "epochs": 2, "warmup": 7, "warmup_ratio": 0.5})
    assert (classification.plan(both, own).steps, classification.plan(both, own).warmup) == (4, 2)


def test_row_27_cosine_with_warm_up_over_these_steps_is_transformers():
    from transformers import get_cosine_schedule_with_warmup

    settings = changed(small, {"epochs": 5, "batch_size": 10, "steps": 1000, "schedule": "cosine", "lr": 1e-3})
    how = classification.plan(settings, parts(settings))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = get_cosine_schedule_with_warmup(optimizer, how.warmup, how.steps)
    for step in range(how.warmup, how.steps):
        assert how.rate(step) == pytest.approx(theirs.lr_lambdas[0](step), abs=1e-9)


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_rows_28_and_29_every_optimiser_takes_the_step(optimizer):
    """A short way down the slope of one batch, the loss of that batch is lower."""
    rate = {"adamw": 1e-4, "adam": 1e-4}.get(optimizer, 1e-2)
    how = {"steps": 3, "epochs": 0, "schedule": "constant", "warmup_ratio": 0, "lr": rate, "seconds": 0.5}
    settings = changed(small, {"optimizer": optimizer, **how})
    model, own = built(settings)
    batch = batch_of(own.train)
    history = training.fit(
        model, lambda model, _: classification.step(model, batch, settings), own.train,
        classification.plan(settings, own), progress=False,
    )  # fmt: skip
    losses = history.series("loss")[1]
    assert losses[0] > losses[1] > losses[2]


def test_what_is_frozen_stays_and_parts_have_their_own_rates():
    settings = changed(
        small, {"freeze": "features", "group_rates": {"heads": 10, "backbone": 0.1}, "optimizer": "sgd", "clip": 0}
    )
    model, own = built(settings)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    groups = {group["name"]: group["lr"] for group in training.parameter_groups(model, settings.training)}
    rate = settings.training.learning_rate
    assert groups["heads"] == 10 * rate and groups["backbone"] == pytest.approx(rate / 10)
    training.fit(
        model, lambda model, batch: classification.step(model, batch, settings), own.train,
        classification.plan(settings, own), progress=False,
    )  # fmt: skip
    assert frozen and all(torch.equal(frozen[n], p) for n, p in model.named_parameters() if n in frozen)


def test_row_4_a_data_type_that_the_backbone_does_not_take_is_warned_of():
    own = parts(small)
    with pytest.warns(UserWarning, match="takes a spectrogram"):
        classification.build(changed(small, {"data_type": "wave"}), own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classification.build(changed(small, {"data_type": "spectrogram"}), own)


def test_the_backbones_weights_come_from_a_path(tmp_path):
    from transformers import WhisperModel

    model, own = built(small)
    config = model.backbone.network.config
    config.decoder_layers = config.decoder_ffn_dim = config.decoder_attention_heads = 1
    torch.manual_seed(5)
    other = WhisperModel(config)
    other.save_pretrained(tmp_path)
    given = classification.build(changed(small, {"weights": str(tmp_path)}), own)
    assert torch.equal(given.backbone.network.conv1.weight, other.encoder.conv1.weight)
    # another file of the same name is not taken for the first one
    settings = changed(small, {"weights": str(tmp_path), "steps": 1})
    first = classification.trained(settings, progress=False)
    assert classification.trained(settings, progress=False).folder == first.folder
    torch.nn.init.ones_(other.encoder.conv1.weight)
    other.save_pretrained(tmp_path)
    second = classification.trained(settings, progress=False)
    weights = [one.model.backbone.network.conv1.weight for one in (first, second)]
    assert second.folder != first.folder and not torch.allclose(*weights, atol=0.1)


# Training that is done once


def test_it_is_trained_once_and_then_read(whole, monkeypatch):
    calls, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **how: calls.append(1) or fit(*args, **how))
    again = classification.trained(small, progress=False)
    assert not calls and again.folder == whole.folder and not again.model.training
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))
    assert {"valid loss", "valid UAR", "valid accuracy", "right"} <= set(again.history.columns)
    classification.trained(changed(small, {"loss": "focal"}), progress=False)
    assert calls == [1]


def test_settings_that_change_no_weights_train_nothing_anew(whole, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *args, **how: pytest.fail("it is trained anew"))
    for free in ({"workers": 2}, {"log_every": 2}, {"save_every": 7}, {"data_type": "spectrogram"}):
        assert classification.trained(changed(small, free), progress=False).folder == whole.folder


def test_the_best_model_by_an_error_has_the_lowest_and_a_misspelt_monitor_is_refused():
    ages = {"task": "regression", "target": "age", "word": "", "epochs": 4, "steps": 8, "best": True, "lr": 0.1}
    settings = changed(small, ages | {"monitor": "valid MAE"})
    model, history, _ = classification.trained(settings, progress=False)
    errors = history.series("valid MAE")[1]
    kept = classification.validation(model, parts(settings), settings)["valid MAE"]
    assert kept == pytest.approx(min(errors)) and min(errors) < max(errors)
    with pytest.raises(ParameterError, match=r"'valid MAE '.*Did you mean 'valid MAE'"):
        classification.trained(changed(settings, {"monitor": "valid MAE "}), progress=False)


def test_row_21_a_checkpoint_is_written_and_tested_and_refuses_what_does_not_fit(whole, tmp_path):
    where = {"checkpoint": str(tmp_path / "mine")}
    classification.trained(changed(small, where), progress=False)
    tested = changed(small, {**where, "test": "true"})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")}
    model, history, folder = classification.trained(tested, progress=False)
    assert folder == tmp_path / "mine" and len(history) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), model.parameters(), strict=True))
    figures = [classification.evaluate(m, s, progress=False)["UAR"] for m, s in ((model, tested), (whole.model, small))]
    assert figures[0] == figures[1] and {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(CacheError, match="test=true"):
        classification.trained(changed(small, {**where, "loss": "bce"}), progress=False)
    with pytest.raises(CacheError, match=r"Not a directory|not a directory"):
        (tmp_path / "file").write_text("")
        classification.trained(changed(small, {"checkpoint": str(tmp_path / "file" / "in"), "steps": 10**6}))
    for other in ({"backbone": "resnet50"}, {"target": "word"}, {"split_seed": 3}, {"seconds": 0.5}):
        with pytest.raises(CheckpointError):
            classification.trained(changed(tested, other), progress=False)


def test_row_22_the_best_model_by_the_monitor_is_what_is_given():
    settings = changed(small, {"epochs": 8, "steps": 24, "test_best_model": "true", "lr": 0.01, "monitor": "valid UAR"})
    model, history, _ = classification.trained(settings, progress=False)
    best = max(history.series("valid UAR")[1])
    assert classification.validation(model, parts(settings), settings)["valid UAR"] == pytest.approx(best)


def test_row_44_patience_ends_a_training_that_gets_no_better():
    settings = changed(small, {"epochs": 50, "steps": 200, "patience": 2, "min_delta": 100})
    _, history, _ = classification.trained(settings, progress=False)
    assert history.rows[-1]["epoch"] == 2, "the first evaluation is the best, and two are none"


def test_row_45_what_happened_is_a_table_in_json_and_csv(whole, tmp_path):
    rows = json.loads((whole.folder / "history.json").read_text())
    whole.history.to_csv(tmp_path / "h.csv")
    with (tmp_path / "h.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in read] == [row["loss"] for row in rows] == whole.history.series("loss")[1]


def test_row_19_each_fold_has_a_model_and_each_clip_one_prediction():
    settings = changed(small, {"k_fold": 3, "epochs": 1, "steps": 1})
    result = classification.cross_validated(settings, progress=False)
    test = {str(row.path) for row in parts(settings).test.recordings}
    assert len(result.trained) == 3 and len(result.predictions) == 64 - len(test)
    assert not test & set(result.predictions.paths) and len(set(result.predictions.paths)) == len(result.predictions)
    first, second = (list(one.model.parameters()) for one in result.trained[:2])
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    values = result.table.figures["UAR"]
    assert result.table.mean["UAR"] == pytest.approx(np.mean(values)) and len(values) == 3
    with pytest.raises(ParameterError, match="patience or best"):
        classification.cross_validated(changed(settings, {"best": True}), progress=False)
    with pytest.raises(ParameterError, match="k_fold"):
        classification.cross_validated(small, progress=False)
    with pytest.raises(ParameterError, match="at most 6"):
        parts(changed(settings, {"k_fold": 50}))


def test_debug_takes_few_clips_and_steps_and_prints_shapes(capsys):
    settings = changed(small, {"debug": "true", "steps": 100, "epochs": 50})
    _, history, _ = classification.trained(settings, progress=True)
    said = capsys.readouterr().err
    assert len(history) == 2 and len(parts(settings).train) == 16
    assert "(16, 2)" in said and f"(16, {parts(settings).train.samples})" in said and "random" in said
    assert "8 words" not in said and "conditioned on the word, one of 4" in said


# The command line


def test_the_command_line_trains_on_a_table_and_says_how_little_few_clips_prove(table, tmp_path, capsys):
    path, rows = table
    plain = write(
        path.parent / "plain.csv", [{**row, "path": Path(row["path"]).name} for row in rows], ["path", "label"]
    )
    words = ["train", "classification", "--data", str(plain), "--out", str(tmp_path / "out"), "-p", "steps=2"]
    with pytest.warns(UserWarning, match="speaker"):
        code = main([*words, "-p", "backbone=resnet50", "-p", "loss=focal", "-p", "word=", "-p", "data_length=1"])
    said = capsys.readouterr().out
    assert code == 0 and "chance" in said and "prove little" in said and "between" in said
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert {"UAR", "accuracy, mel statistics", "AUROC"} <= figures.keys()
    assert (tmp_path / "out" / "history.csv").exists() and (tmp_path / "out" / "classifier.json").exists()


def test_folds_that_choose_their_models_are_not_measured():
    settings = changed(small, {"k_fold": 2, "best": True, "steps": 1})
    report = classification.assess(classification.trained(settings, progress=False).model, settings, progress=False)
    assert "Of all folds there are no figures: patience or best" in report.remarks and "UAR" in report.figures


def test_the_command_lines_help_lists_what_can_be_chosen(capsys):
    for words in (["train", "--help"], ["train", "classification", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        said = capsys.readouterr().out
        for name, known in classification.choices().items():
            for choice, meaning in known.items():
                assert (f"  {choice} " in said and meaning in said) == ("classification" in words), (name, choice)


def test_the_command_line_says_what_is_wrong(capsys):
    assert main(["train", "classification", "-p", "lr=1", "-p", "learning_rate=1"]) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert main(["train", "classification", "--data", "a.csv", "-p", "data=b.csv"]) == 2
    assert "data: a.csv by --data, b.csv by -p; expected one of the two" in capsys.readouterr().err
    for device in ("tpu", "cuda:99"):
        assert main(["train", "classification", "-p", f"device={device}"]) == 2
        assert f'ParameterError: device: "{device}" is not available; use "auto"' in capsys.readouterr().err
    assert main(["train", "classification", "-p", "backbone=resnet51"]) == 2
    assert "resnet50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"test_size": 0}, "no test part"), ({"test_size": 0, "valid_size": 0}, "No clip was held out")],
)
def test_the_command_line_trains_on_all_clips_for_who_wants_no_test(table, tmp_path, capsys, sizes, said):
    given = {"steps": 1, "data_length": 0.5, **sizes}
    words = ["train", "classification", "--data", str(table[0]), "--out", str(tmp_path / "out")]
    assert main([*words, *(word for name, value in given.items() for word in ("-p", f"{name}={value}"))]) == 0
    text, figures = capsys.readouterr().out, json.loads((tmp_path / "out" / "figures.json").read_text())
    assert said in text and ("UAR" in figures) == ("valid_size" not in sizes) == ("chance" in text)
    splits = classification.Classifier.load(tmp_path / "out", device="cpu").card.splits
    assert len(splits) == 3


def test_the_command_line_judges_by_all_folds_where_there_is_no_test_part(table, tmp_path, capsys):
    given = {"steps": 1, "data_length": 0.5, "test_size": 0, "k_fold": 2, "shuffle": "false"}
    words = ["train", "classification", "--data", str(table[0]), "--out", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match="shuffling") as warned:
        assert main([*words, *(word for name, value in given.items() for word in ("-p", f"{name}={value}"))]) == 0
    text = capsys.readouterr().out
    assert "These figures are of 24 clips by 6 speakers" in text and "2 folds" in text and "+-" in text
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    hits = [row["target"] == row["prediction"] for row in rows]
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert len(hits) == 24 and figures["accuracy"]["value"] == pytest.approx(sum(hits) / 24)
    assert "accuracy, duration alone" in figures
    assert len({str(each.message) for each in warned}) == len(warned), "each is said once"


# What was promised


def test_a_short_training_learns_two_words_of_other_speakers():
    """A few seconds: two words, 16 speakers; the other eight are in the test. Chance is 0.5."""
    few = {"num_words": 2, "speakers": 24, "seconds": 0.5, "hop_length": 320, "word": "heads", "snr": [5, 20]}
    short = {"epochs": 0, "steps": 120, "learning_rate": 3e-3, "evaluate_every": 0}
    settings = classification.changed(classification.tiny, few | short)
    own = parts(settings)
    model = classification.trained(settings, device="cpu", progress=False).model
    found = classification.predict(model, own.test)
    assert not set(found.speakers) & {row.speaker for row in own.train.recordings}
    assert metrics.balanced_accuracy(found.predicted, found.targets) > 0.75  # 0.89, 1.0, 0.89 with three seeds


@pytest.mark.long
def test_tiny_judges_words_of_speakers_outside_its_training():
    """Trained for a minute as `tiny` says. From the conditions alone no clip could be judged."""
    own = parts(classification.tiny)
    model = classification.trained(classification.tiny, device="cpu", progress=False).model
    found = classification.predict(model, own.test)
    assert len(found) > 200 and not set(found.speakers) & {row.speaker for row in own.train.recordings}
    assert 0.75 < metrics.balanced_accuracy(found.predicted, found.targets) < 0.95  # noise: not all can be right
    by_word = classification.group_figures(found)
    assert len(by_word.names) == 8 and by_word.figures["UAR"].min() > 0.55
    # what is right of one word of a pair is wrong of the other
    asked = [replace(row, word=speech.PARTNER[row.word]) for row in own.test.recordings]
    other = ClassificationDataset(asked, own.labels, words=own.words, seconds=own.seconds)
    turned = classification.predict(model, other)
    assert metrics.balanced_accuracy(turned.predicted, turned.targets) < 0.5


def test_two_processes_train_one_model(tmp_path):
    """Under torchrun, with a contrastive loss, whose batches have whole words in each process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "avlib"]
    settings = {"steps": 2, "speakers": 4, "num_words": 2, "snr": "[20,20]", "valid_size": 0.25, "test_size": 0.25}
    given = [word for name, value in settings.items() for word in ("-p", f"{name}={value}")]
    done = subprocess.run(
        [*command, "train", "classification", *given, "--out", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=150, cwd=ROOT, check=False,
        env={**os.environ, "AVLIB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("chance") > 3 and (tmp_path / "out" / "figures.json").exists()
