"""What classifiers say of clips and windows, and figures of it beside chance and baselines."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making import write_wav
from scipy.stats import norm
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression, Ridge
from toned import read_tones, write_tones

from avlib import features, media
from avlib.datasets.classification import ClassificationDataset, Example, Labels, Recording
from avlib.errors import DatasetError, MediaError, ParameterError
from avlib.models.classifiers import AudioClassifier
from avlib.systems import classification as system
from avlib.systems.classification import evaluation
from avlib.systems.classification.predicting import (
    Prediction,
    baseline_features,
    baseline_predictions,
    joined,
    predict,
    predict_windows,
    window_starts,
)

Z = float(norm.ppf(0.975))


def wilson(right, count):
    """The lower end, as the textbook has it."""
    share = right / count
    middle = share + Z**2 / (2 * count)
    return (middle - Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))) / (1 + Z**2 / count)


def prediction_of(logits, targets, *, names=None, words=None, ages=None, speakers=None, paths=None):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    count = len(logits)
    names = tuple(names or map(str, range(logits.shape[1]) if logits.shape[1] > 1 else ()))
    paths = tuple(paths or (f"{number}.wav" for number in range(count)))
    return Prediction(
        names, logits, torch.zeros(count, 2), torch.ones(count), paths, tuple(words or [""] * count),
        tuple(ages or [None] * count), tuple(speakers or [""] * count), tuple(speakers or paths),
        torch.as_tensor(targets),
    )  # fmt: skip


def sure(labels, targets, classes=2, **known):
    """Logits of these classes."""
    return prediction_of(3.0 * torch.nn.functional.one_hot(torch.as_tensor(labels), classes), targets, **known)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def dataset(table):
    recordings, labels = read_tones(table)
    return ClassificationDataset(recordings, labels, seconds=0.5, words=("one", "two"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AudioClassifier("whisper-base", word="film", small=True, num_words=2, seconds=0.5)


# Windows


@pytest.mark.parametrize(
    ("samples", "width", "hop", "expected"),
    [
        (100, 40, 20, [0, 20, 40, 60]),
        (95, 40, 20, [0, 20, 40, 55]),  # the last ends with the clip
        (40, 40, 20, [0]),
        (10, 40, 20, [0]),
        (100, 40, 0, [0]),
        (41, 40, 40, [0, 1]),
    ],
)
def test_windows_cover_the_clip_and_the_last_ends_with_it(samples, width, hop, expected):
    assert window_starts(samples, width, hop) == expected


@pytest.mark.parametrize("hop", [-1, 41])
def test_a_hop_that_leaves_parts_unheard_is_refused(hop):
    with pytest.raises(ParameterError, match="hop"):
        window_starts(100, 40, hop)


def windows_of(model, waveform, hop, word=-1):
    return next(predict_windows(model, [Example(waveform, len(waveform), word=word)], samples=8000, hop=hop))


def test_a_prediction_is_the_mean_probability_of_its_windows(model):
    waveform = 0.1 * torch.randn(20000, generator=torch.Generator().manual_seed(1))
    windows = windows_of(model, waveform, 4800, 1)
    found = Prediction.of_windows([Recording(Path("a.wav"), "")], ("a", "b"), [windows], [1.25])
    firsts = [0, 4800, 9600, 12000]  # of 8,000 samples each
    with torch.no_grad():
        rows = [model.eval()(waveform[None, first : first + 8000], word=torch.tensor([1])) for first in firsts]
    expected = torch.cat(rows).softmax(dim=1)
    assert torch.allclose(found.window_probabilities(), expected, atol=1e-5)
    assert torch.allclose(found.probabilities[0].float(), expected.mean(dim=0), atol=1e-5)
    assert windows.starts.tolist() == firsts


def test_a_short_clip_is_one_window_and_a_regression_is_the_mean_of_windows():
    torch.manual_seed(0)
    regressor = AudioClassifier("whisper-base", task="regression", small=True, seconds=0.5)
    assert len(windows_of(regressor, torch.randn(3000), 4000).starts) == 1
    waveform = torch.randn(16000)
    windows = windows_of(regressor, waveform, 8000)
    found = Prediction.of_windows([Recording(Path("a.wav"), "")], (), [windows], [1.0])
    with torch.no_grad():
        expected = [float(regressor.eval()(part[None])) for part in waveform.split(8000)]
    assert float(found.predicted) == pytest.approx(np.mean(expected), abs=1e-5)


def test_windows_of_several_clips_go_through_the_model_together(model, monkeypatch):
    sizes, read = [], model.read
    monkeypatch.setattr(model, "read", lambda found, **how: sizes.append(len(found.values)) or read(found, **how))
    clips = [
        Example(torch.randn(length), length, word=0) for length in (8000, 20000, 4000, 8000)
    ]  # 1, 4, 1 and 1 windows
    found = list(predict_windows(model, iter(clips), samples=8000, hop=4000, batch_size=3))
    assert [len(each.logits) for each in found] == [1, 4, 1, 1] and sizes == [3, 3, 1]


# Whole data sets


def test_predictions_are_what_the_model_says_of_each_clip_alone(model, dataset):
    model.train()
    found = predict(model, dataset, batch_size=5)
    assert model.training and model.backbone.training
    model.eval()
    with torch.no_grad():
        for row, (recording, example) in enumerate(zip(dataset.recordings, dataset, strict=True)):
            length, word = torch.tensor([example.length]), torch.tensor([example.word])
            out = model.read(model.features(example.waveform[None], length), word=word)
            assert torch.allclose(found.logits[row], out.logits[0], atol=1e-5)
            assert torch.allclose(found.embeddings[row], out.embedding[0], atol=1e-5)
            assert found.paths[row] == str(recording.path) and found.words[row] == recording.word
            assert found.ages[row] == recording.age and found.speakers[row] == recording.speaker
            assert float(found.seconds[row]) == pytest.approx(min(0.5, len(media.read_audio(recording.path)) / 16000))
    assert found.targets.tolist() == dataset.targets.tolist()


def test_clips_that_cannot_be_used_are_left_out_or_raise(model, table, tmp_path):
    recordings, labels = read_tones(table)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    recordings = [recordings[0], Recording(tmp_path / "broken.wav", "low", "one"), recordings[1]]
    how = {"seconds": 0.5, "words": ("one", "two")}
    found = predict(model, ClassificationDataset(recordings, labels, on_error="skip", **how))
    assert found.paths == (str(recordings[0].path), str(recordings[2].path))
    with pytest.raises(MediaError, match="broken"):
        predict(model, ClassificationDataset(recordings, labels, **how))
    with pytest.raises(DatasetError, match="none can be used"):
        predict(model, ClassificationDataset(recordings[1:2], labels, on_error="skip", **how))


def test_predictions_are_written_as_a_table(tmp_path):
    known = {"words": ["one"], "ages": [4.5], "speakers": ["s"], "names": ("ok", "not, ok")}
    prediction_of([[0.0, math.log(3)]], [0], **known).to_csv(tmp_path / "said.csv")
    (row,) = csv.DictReader((tmp_path / "said.csv").read_text(encoding="utf-8").splitlines())
    assert (row["target"], row["prediction"], row["word"], row["age"]) == ("ok", "not, ok", "one", "4.5")
    assert float(row["p(not, ok)"]) == pytest.approx(0.75)


# Figures


def test_row_46_figures_of_classes_are_scikit_learns_beside_chance():
    dice = np.random.default_rng(0)
    targets = dice.choice(3, 60, p=[0.6, 0.3, 0.1])
    found = prediction_of(dice.normal(size=(60, 3)) + 2 * np.eye(3)[targets], targets)
    figures, scores, named = evaluation.figures(found), found.probabilities.numpy(), found.predicted.numpy()
    assert figures["accuracy"].value == pytest.approx(sk.accuracy_score(targets, named))
    assert figures["UAR"].value == pytest.approx(sk.balanced_accuracy_score(targets, named))
    assert figures["AUROC"].value == pytest.approx(sk.roc_auc_score(targets, scores, multi_class="ovr"))
    each = [sk.average_precision_score(targets == label, scores[:, label]) for label in range(3)]
    assert figures["AP"].value == pytest.approx(np.mean(each))
    assert figures["accuracy"].reference == pytest.approx(np.bincount(targets).max() / 60)
    assert figures["UAR"].reference == pytest.approx(1 / 3) and figures["AUROC"].reference == 0.5
    assert figures["AP"].reference == pytest.approx(1 / 3)


def test_of_two_classes_there_is_the_sensitivity_and_ap_stands_beside_the_share():
    targets = [0, 0, 0, 1]
    figures = evaluation.figures(sure([0, 1, 0, 1], targets))
    assert figures["AP"].reference == 0.25 and figures["sensitivity at 0.9"].reference == 0.1


def test_few_clips_that_are_all_right_prove_little():
    found = sure([0, 1] * 4, [0, 1] * 4, speakers=list("aabbccdd"), names=("ok", "not"))
    figures = evaluation.figures(found)
    assert figures["accuracy"].value == 1 and figures["accuracy"].low == pytest.approx(8 / (8 + Z**2))
    assert figures["accuracy"].low == pytest.approx(wilson(8, 8))
    # both recalls are 4 of 4: their mean varies by the root of their summed squares, halved
    assert figures["UAR"].low == pytest.approx(1 - math.hypot(1 - wilson(4, 4), 1 - wilson(4, 4)) / 2)
    assert figures["AUROC"].low == pytest.approx(wilson(4, 4))
    text = evaluation.describe_sample(found)
    assert text.startswith("8 clips by 4 speakers (4 ok, 4 not). 8 are right") and "between 0.68 and 1.00" in text


def test_a_rare_class_makes_uar_less_known_than_accuracy():
    # 1 of 2 and 18 of 18
    targets = [0] * 2 + [1] * 18
    figures = evaluation.figures(sure([0] + [1] * 19, targets))
    expected = 0.75 - math.hypot(0.5 - wilson(1, 2), 1 - wilson(18, 18)) / 2
    assert figures["UAR"].low <= expected + 1e-9 < 0.56 < figures["accuracy"].low
    seven = evaluation.figures(sure([0] * 2 + [1] * 18, targets))["UAR"].low
    by_class = 1 - math.hypot(1 - wilson(2, 2), 1 - wilson(18, 18)) / 2
    assert seven == pytest.approx(min(wilson(7, 7), by_class))  # 4 / (1 / 2 + 1 / 18) is 7.2


def test_clips_of_a_few_speakers_prove_less_than_as_many_of_many():
    # ten speakers of twenty clips: all right, or all wrong
    right = np.repeat([1, 1, 1, 1, 1, 1, 1, 1, 0, 0], 20)
    targets = np.tile([0, 1], 100)
    predicted = np.where(right, targets, 1 - targets)
    few = evaluation.figures(sure(predicted, targets, speakers=[f"s{place // 20}" for place in range(200)]))
    many = evaluation.figures(sure(predicted, targets, speakers=[f"s{place}" for place in range(200)]))
    assert many["accuracy"].low == pytest.approx(wilson(160, 200), abs=0.02)
    assert few["accuracy"].low < 0.62 and few["UAR"].low < 0.62 < 0.72 < many["UAR"].low


def test_one_speaker_says_nothing_about_others():
    text = evaluation.describe_sample(sure([0, 1], [0, 0], speakers=["a", "a"]))
    assert text.startswith("2 clips by 1 speaker (2 0, 0 1)") and text.endswith("nothing about others.")
    assert "not named" in evaluation.describe_sample(sure([0, 1], [0, 1]))


def test_clips_that_were_kept_together_are_drawn_together(tmp_path):
    """Ten families, of which each is right in all its clips or in none; speakers are not known."""
    rows = [Recording(tmp_path / f"{place}.wav", "a", group=f"f{place // 20}") for place in range(200)]
    targets = torch.arange(200) % 2
    labels = torch.where(torch.arange(200) < 160, targets, 1 - targets)
    numbers = (3.0 * torch.nn.functional.one_hot(labels, 2), torch.zeros(200, 2), torch.ones(200))
    found = Prediction.of(rows, ("a", "b"), *numbers, targets=targets)
    alone = Prediction.of([replace(row, group="") for row in rows], ("a", "b"), *numbers, targets=targets)
    assert found.groups[::20] == tuple(f"f{place}" for place in range(10)) and alone.groups == alone.paths
    assert evaluation.figures(found)["accuracy"].low < 0.62 < 0.7 < evaluation.figures(alone)["accuracy"].low

    def part(places):
        return Prediction.of(
            [rows[place] for place in places], ("a", "b"), *(each[places] for each in numbers), targets=targets[places]
        )

    assert joined([part([30]), part([0])]).groups == ("f1", "f0")
    assert evaluation.describe_sample(found, group="family").startswith("200 clips of 10 groups, by the column family")
    assert evaluation.describe_sample(part([0, 1]), group="family").endswith("One group says nothing about others.")


def test_clips_of_one_class_have_no_auroc_and_no_false_chance():
    figures = evaluation.figures(sure([0, 0, 1], [0, 0, 0]))
    assert math.isnan(figures["AUROC"].value) and figures["AUROC"].low is None
    assert figures["UAR"].reference == 1 and figures["UAR"].value == pytest.approx(2 / 3)


def test_row_12_r2_is_over_the_whole_split_and_not_the_mean_of_batches():
    dice = np.random.default_rng(1)
    targets = np.sort(dice.normal(size=40))
    predicted = targets + 0.3 * dice.normal(size=40)
    speakers = [f"s{place % 8}" for place in range(40)]
    figures = evaluation.figures(prediction_of(predicted[:, None], torch.tensor(targets).float(), speakers=speakers))
    assert figures["R2"].value == pytest.approx(sk.r2_score(targets, predicted), abs=1e-5)
    batches = [sk.r2_score(targets[first : first + 8], predicted[first : first + 8]) for first in range(0, 40, 8)]
    assert np.mean(batches) < figures["R2"].value - 0.3
    covariance = np.cov(targets, predicted, ddof=0)
    concordance = 2 * covariance[0, 1] / (np.trace(covariance) + (targets.mean() - predicted.mean()) ** 2)
    assert figures["CCC"].value == pytest.approx(concordance, abs=1e-5)
    assert figures["MSE"].reference == pytest.approx(targets.var(), abs=1e-5) and figures["R2"].reference == 0
    assert figures["CCC"].low < figures["CCC"].value and figures["MSE"].low is None


def test_baselines_stand_below_the_figures_that_they_belong_to():
    good, poor = sure([0, 1, 0, 1], [0, 1, 0, 1]), sure([0, 0, 0, 0], [0, 1, 0, 1])
    figures = evaluation.figures(good, {"duration alone": poor})
    assert list(figures)[:4] == ["accuracy", "accuracy, duration alone", "UAR", "UAR, duration alone"]
    assert figures["UAR, duration alone"].value == 0.5 and "AP, duration alone" not in figures


# Groups and folds


def test_tables_by_word_age_and_speaker():
    found = sure(
        [0, 1, 1, 1, 0], [0, 1, 0, 0, 0], words=["b", "b", "a", "a", ""], ages=[4.0, 3.5, 3.5, None, 4.0],
        speakers=["x", "x", "y", "y", "y"],
    )  # fmt: skip
    by_word = evaluation.group_figures(found)
    assert by_word.names == ("a", "b") and by_word.count.tolist() == [2, 2]
    assert by_word.figures["accuracy"].tolist() == [0, 1]
    assert by_word.figures["at least"][1] == pytest.approx(wilson(2, 2))
    assert np.isnan(by_word.figures["UAR"][0]) and by_word.figures["UAR"][1] == 1
    by_age = evaluation.group_figures(found, "age")
    assert by_age.names == (3.5, 4.0) and by_age.figures["accuracy"].tolist() == [0.5, 1]
    assert evaluation.group_figures(found, "speaker").count.tolist() == [2, 3]


def test_a_table_of_a_regression_says_who_is_judged_too_high():
    found = prediction_of([[1.0], [2.0], [5.0]], torch.tensor([0.0, 1.0, 6.0]), ages=[3.0, 3.0, 9.0])
    table = evaluation.group_figures(found, "age")
    assert table.figures["mean error"].tolist() == [1, -1] and table.figures["MAE"].tolist() == [1, 1]


@pytest.mark.parametrize("by", ["word", "label"])
def test_groups_that_are_not_known_are_refused(by):
    with pytest.raises(ParameterError, match="by"):
        evaluation.group_figures(sure([0, 1], [0, 1]), by)


def test_figures_of_folds_and_of_all_out_of_fold_predictions():
    parts = [
        sure([0, 1, 1, 1], [0, 1, 1, 0], paths=list("abcd")),
        sure([0, 0], [0, 1], paths=list("ef")),
        sure([0, 1, 0], [0, 1, 0], paths=list("ghi")),
    ]
    table = evaluation.fold_figures(parts)
    shares = [0.75, 0.5, 1.0]
    assert table.clips.tolist() == [4, 2, 3] and table.figures["accuracy"].tolist() == shares
    assert table.mean["accuracy"] == pytest.approx(np.mean(shares))
    assert table.std["accuracy"] == pytest.approx(np.std(shares, ddof=1))
    whole = joined(parts)
    assert evaluation.figures(whole)["accuracy"].value == pytest.approx(7 / 9) and whole.paths == tuple("abcdefghi")
    assert table._repr_html_().count("<tr>") == 6 and "0.250" in table._repr_html_()


def test_a_clip_that_counts_twice_is_no_out_of_fold_prediction():
    part = sure([0], [0], paths=["a.wav"])
    with pytest.raises(ParameterError, match=r"a\.wav in two"):
        joined([part, part])
    with pytest.raises(ParameterError, match="same classes"):
        joined([part, sure([0], [0], 3)])
    with pytest.raises(ParameterError, match="two folds"):
        evaluation.fold_figures([part])


# Probabilities


def test_what_a_threshold_does():
    scores = torch.tensor([0.1, 0.3, 0.6, 0.2, 0.7, 0.8])
    found = prediction_of(torch.stack([1 - scores, scores], dim=1).log(), [0, 0, 0, 1, 1, 1])
    table = evaluation.thresholds(found, at=(0.15, 0.65, 0.9))
    assert table.sensitivity.tolist() == pytest.approx([1, 2 / 3, 0])
    assert table.specificity.tolist() == pytest.approx([1 / 3, 1, 1])
    assert table.precision[:2].tolist() == pytest.approx([3 / 5, 1]) and np.isnan(table.precision[2])
    assert "0.833" in table._repr_html_()
    assert len(evaluation.thresholds(found).threshold) == 19


@pytest.mark.parametrize(("targets", "label"), [([0, 0], 1), ([1, 1], 1), ([0, 1], 2)])
def test_thresholds_need_both_sides(targets, label):
    with pytest.raises(ParameterError):
        evaluation.thresholds(sure([0, 1], targets), label)


def test_a_model_that_is_too_sure_is_cooled_down():
    dice = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 2, generator=dice)
    targets = torch.multinomial(logits.softmax(dim=1), 1, generator=dice)[:, 0]
    assert evaluation.temperature(prediction_of(logits, targets)) == pytest.approx(1, abs=0.1)
    assert evaluation.temperature(prediction_of(3 * logits, targets)) == pytest.approx(3, abs=0.3)
    assert evaluation.calibration(prediction_of(logits, targets)).error < 0.03
    assert evaluation.calibration(prediction_of(3 * logits, targets)).error > 0.05


def test_two_logits_that_were_taught_one_by_one_are_twice_too_sure():
    dice = torch.Generator().manual_seed(0)
    logit = 2 * torch.randn(4000, generator=dice)
    targets = (torch.rand(4000, generator=dice) < logit.sigmoid()).long()
    assert evaluation.temperature(prediction_of(torch.stack([-logit, logit], dim=1), targets)) == pytest.approx(
        2, abs=0.2
    )


def test_a_regression_has_no_probabilities():
    found = prediction_of([[1.0], [2.0]], torch.tensor([1.0, 2.0]))
    for what in (evaluation.thresholds, evaluation.calibration, evaluation.temperature):
        with pytest.raises(ParameterError, match="regression"):
            what(found)


# Baselines


def test_baseline_features_are_of_the_clip_without_padding():
    waveform = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    values = baseline_features(waveform)
    mel = features.whisper_log_mel(waveform).double().numpy()
    assert values.shape == (161,) and float(values[0]) == 0.25
    assert np.allclose(values[1:81], mel.mean(axis=1), atol=1e-5) and np.allclose(
        values[81:], mel.std(axis=1), atol=1e-5
    )
    assert baseline_features(torch.randn(20)).isfinite().all()


@pytest.fixture
def made_up(tmp_path):
    """A data set of sounds that are written for it."""

    def make(sounds, targets, labels=None):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        paths = [write_wav(folder / f"{place}.wav", sound[None], 16000) for place, sound in enumerate(sounds)]
        recordings = [Recording(path, str(target)) for path, target in zip(paths, targets, strict=True)]
        return ClassificationDataset(recordings, labels or Labels.of(recordings), seconds=1.0)

    return make


def noises(lengths, seed):
    dice = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(int(length), generator=dice) for length in lengths]


def test_durations_and_spectra_each_find_what_is_theirs(table, made_up):
    lengths = [2000 + 100 * place for place in range(12)]
    targets = [0] * 6 + [1] * 6
    train, test = made_up(noises(lengths, 0), targets), made_up(noises(lengths, 1), targets)
    found = baseline_predictions(train, test)["duration alone"]
    assert evaluation.figures(found)["UAR"].value == 1
    # the same tones for every duration: the spectrum tells them apart
    recordings, labels = read_tones(table)
    parts = [[r for r in recordings if (r.speaker in ("s0", "s1")) == first] for first in (True, False)]
    tones = baseline_predictions(*(ClassificationDataset(part, labels, seconds=0.6) for part in parts))
    assert evaluation.figures(tones["mel statistics"])["UAR"].value == 1
    assert evaluation.figures(tones["duration alone"])["UAR"].value < 1
    assert tones["mel statistics"].speakers[0] in ("s2", "s3")


def test_baselines_are_scikit_learns_regressions(made_up):
    dice = np.random.default_rng(0)
    lengths, targets = dice.integers(2000, 6000, 30), dice.integers(0, 2, 30)
    train, test = (made_up(noises(lengths, seed), targets) for seed in (0, 1))
    found = baseline_predictions(train, test)
    x = lengths[:, None] / 16000
    scaled = (x - x.mean()) / x.std()
    expected = LogisticRegression(class_weight="balanced").fit(scaled, targets).predict_proba(scaled)
    assert np.allclose(found["duration alone"].probabilities, expected, atol=1e-4)
    numbers = [float(number) for number in lengths / 4000]
    regression = Labels((), "regression")
    regressions = baseline_predictions(*(made_up(noises(lengths, seed), numbers, regression) for seed in (0, 1)))
    ridge = Ridge().fit(scaled, numbers).predict(scaled)
    assert np.allclose(regressions["duration alone"].predicted, ridge, atol=1e-5)


def test_a_class_that_training_lacks_is_never_named_and_one_alone_is_refused(made_up):
    lengths = [2000, 2500, 3000, 3500]
    labels = Labels(("a", "b", "c"))
    train, test = (made_up(noises(lengths, seed), part, labels) for seed, part in enumerate(("aacc", "abcb")))
    found = baseline_predictions(train, test)["duration alone"]
    assert found.logits.shape == (4, 3) and found.logits.isfinite().all() and 1 not in found.predicted.tolist()
    with pytest.raises(DatasetError, match="one class"):
        baseline_predictions(made_up(noises(lengths, 0), "bbbb", labels), test)


# Put together


def test_a_model_is_evaluated_on_the_test_part_beside_its_baselines(table, model):
    settings = system.changed(
        system.tiny,
        {"data.data": str(table), "test_size": 0.5, "valid_size": 0.25, "seconds": 0.5, "pad": "full", "word": "film"},
    )
    figures = evaluation.evaluate(model, settings, progress=False)
    assert {"accuracy", "UAR", "AUROC", "AP", "UAR, duration alone", "UAR, mel statistics"} <= set(figures)
    assert figures["UAR, mel statistics"].value == 1 and figures["UAR, mel statistics"].low < 0.9
    with pytest.raises(ParameterError, match="test_size"):
        evaluation.evaluate(model, system.changed(settings, {"test_size": 0.0}), progress=False)
