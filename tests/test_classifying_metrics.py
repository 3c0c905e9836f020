"""Figures of classifiers and regressors against scikit-learn and loops."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, pearsonr
from sklearn import metrics as theirs
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from avlib import metrics
from avlib.errors import ParameterError


def some(items=200, classes=3, seed=0):
    dice = torch.Generator().manual_seed(seed)
    targets = (torch.rand(items, generator=dice) ** 1.5 * classes).long()  # the first class most often
    return torch.randn(items, classes, generator=dice) + 1.2 * torch.eye(classes)[targets], targets


def test_confusion_and_uar():
    logits, targets = some()
    predicted = logits.argmax(1)
    table = metrics.confusion(predicted, targets, 3)
    slow = [
        [sum(int(t == row and p == column) for t, p in zip(targets, predicted, strict=True)) for column in range(3)]
        for row in range(3)
    ]
    assert table.tolist() == slow
    recalls = [slow[label][label] / sum(slow[label]) for label in range(3)]
    assert metrics.balanced_accuracy(predicted, targets) == pytest.approx(np.mean(recalls))
    assert metrics.balanced_accuracy(predicted, targets) == theirs.balanced_accuracy_score(targets, predicted)
    assert metrics.balanced_accuracy([0, 2, 1], [0, 0, 1]) == 0.75  # class 2 is said, and never true


@pytest.mark.parametrize("classes", [2, 3])
def test_figures_of_a_split(classes):
    logits, targets = some(classes=classes)
    shares = logits.softmax(1).numpy()
    found, one_hot = metrics.classification_figures(logits, targets), np.eye(classes)[targets]
    assert found["accuracy"] == theirs.accuracy_score(targets, logits.argmax(1))
    assert found["UAR"] == theirs.balanced_accuracy_score(targets, logits.argmax(1))
    assert found["AUROC"] == pytest.approx(theirs.roc_auc_score(one_hot, shares))
    precision = theirs.average_precision_score(*((targets, shares[:, 1]) if classes == 2 else (one_hot, shares)))
    assert found["AP"] == pytest.approx(precision)
    assert ("sensitivity at 0.9" in found) == (classes == 2)
    assert metrics.classification_figures(logits + 500, targets) == pytest.approx(found, rel=1e-4)


def test_a_split_of_one_class_has_no_auroc():
    logits, _ = some(classes=2)
    only_first, only_second = (metrics.classification_figures(logits, [label] * 200) for label in (0, 1))
    assert math.isnan(only_first["AUROC"]) and math.isnan(only_second["AUROC"])
    assert math.isnan(only_first["AP"]) and only_second["AP"] == 1


@pytest.mark.parametrize("specificity", [0, 0.5, 0.9, 0.95, 1])
def test_sensitivity_at_a_specificity(specificity):
    logits, targets = some(classes=2)
    scores, true = (logits[:, 1] - logits[:, 0]).round(decimals=1).numpy(), targets.numpy()
    best = 0.0
    for threshold in [*np.unique(scores), math.inf]:
        if (scores[true == 0] < threshold).mean() >= specificity:
            best = max(best, (scores[true == 1] >= threshold).mean())
    assert metrics.sensitivity_at_specificity(scores, targets, specificity) == pytest.approx(best)
    assert math.isnan(metrics.sensitivity_at_specificity(scores, [1] * 200))


def test_regression_figures():
    dice = np.random.default_rng(0)
    targets = dice.normal(size=300)
    predicted = 0.5 * targets + 0.3 + 0.4 * dice.normal(size=300)
    found = metrics.regression_figures(predicted, torch.tensor(targets))
    x, y = predicted, targets
    n, mx, my = 300, sum(x) / 300, sum(y) / 300
    vx, vy = sum((x - mx) ** 2) / n, sum((y - my) ** 2) / n
    assert found == pytest.approx(
        {
            "MSE": sum((x - y) ** 2) / n,
            "MAE": sum(abs(x - y)) / n,
            "R2": 1 - sum((x - y) ** 2) / sum((y - my) ** 2),
            "CCC": 2 * sum((x - mx) * (y - my)) / n / (vx + vy + (mx - my) ** 2),
            "Pearson": pearsonr(x, y).statistic,
        }
    )
    assert metrics.concordance(targets, targets) == pytest.approx(1)
    assert metrics.concordance(targets + 1, targets) < 1 == pytest.approx(np.corrcoef(targets + 1, targets)[0, 1])


def test_regression_without_a_meaning():
    constant = metrics.regression_figures([2.0, 2, 2], [1.0, 2, 3])
    assert constant["R2"] == constant["CCC"] == 0 and math.isnan(constant["Pearson"])
    equal = metrics.regression_figures([1.0, 2, 3], [2, 2, 2])
    assert all(math.isnan(equal[name]) for name in ("R2", "CCC", "Pearson")) and equal["MAE"] == pytest.approx(2 / 3)


def test_r2_is_of_the_whole_split_and_not_of_batches():
    dice = np.random.default_rng(0)
    targets = np.sort(dice.normal(size=64))
    predicted = targets + 0.3 * dice.normal(size=64)
    whole = metrics.regression_figures(predicted, targets)["R2"]
    batches = [metrics.regression_figures(predicted[i : i + 8], targets[i : i + 8])["R2"] for i in range(0, 64, 8)]
    assert whole > 0.85 and np.mean(batches) < 0


def test_groups_by_themselves():
    logits, targets = some()
    predicted, words = logits.argmax(1), np.array(["fan", "pan", "key", "tea"])[np.arange(200) % 4]
    table = metrics.group_table({"UAR": metrics.balanced_accuracy}, words, predicted, targets)
    assert table.names == ("fan", "key", "pan", "tea") and table.count.tolist() == [50] * 4
    for name, figure in zip(table.names, table.figures["UAR"], strict=True):
        of_word = torch.tensor(words == name)
        assert figure == pytest.approx(theirs.balanced_accuracy_score(targets[of_word], predicted[of_word]))
    assert table.spread["UAR"] == pytest.approx(max(table.figures["UAR"]) - min(table.figures["UAR"]))
    assert "<td>fan</td><td>50</td>" in table._repr_html_()
    figures = {"sensitivity": metrics.sensitivity_at_specificity}
    nothing = metrics.group_table(figures, torch.arange(3), [0.1, 0.2, 0.3], [0, 1, 0])
    assert np.isnan(nothing.figures["sensitivity"]).all() and math.isnan(nothing.spread["sensitivity"])


def test_the_interval_of_independent_clips_is_the_known_one():
    right = np.random.default_rng(0).random(400) < 0.8
    interval = metrics.bootstrap_interval(lambda hits: hits.mean(), np.arange(400), right, draws=2000)
    half = norm.ppf(0.975) * math.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert interval.value == right.mean() and interval.draws == 2000
    assert (interval.low, interval.high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.01)


def test_the_interval_knows_that_clips_of_a_speaker_are_alike():
    dice = np.random.default_rng(0)
    speakers, skill = np.repeat(np.arange(20), 30), dice.beta(4, 2, size=20)
    right = torch.from_numpy((dice.random(600) < skill[speakers]).astype(float))
    how = {"draws": 500, "seed": 3}
    by_speaker = metrics.bootstrap_interval(lambda hits: float(hits.mean()), speakers, right, **how)
    by_clip = metrics.bootstrap_interval(lambda hits: float(hits.mean()), np.arange(600), right, **how)
    assert by_speaker.high - by_speaker.low > 1.8 * (by_clip.high - by_clip.low)
    means = np.array([right[speakers == number].mean() for number in range(20)])
    width = 2 * norm.ppf(0.975) * means.std() / math.sqrt(20)  # of the mean over drawn speakers, all as long
    assert by_speaker.high - by_speaker.low == pytest.approx(width, rel=0.15)
    assert by_speaker == metrics.bootstrap_interval(lambda hits: float(hits.mean()), speakers, right, **how)


def test_draws_without_a_class_do_not_count():
    scores, targets = [0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1]
    interval = metrics.bootstrap_interval(metrics.sensitivity_at_specificity, [0, 0, 1, 1], scores, targets, draws=100)
    assert interval.value == 0.5 and 30 < interval.draws < 70 and interval.low == interval.high == 0.5
    never = metrics.bootstrap_interval(lambda hits: math.nan, [0, 1], [1, 1], draws=5)
    assert math.isnan(never.low) and never.draws == 0


def test_calibration_by_a_loop():
    logits, targets = some()
    shares = (3 * logits).softmax(1)
    found = metrics.calibration(shares, targets, bins=5)
    error = 0.0
    for number in range(5):
        inside = [
            (float(row.max()), int(row.argmax()) == int(target))
            for row, target in zip(shares, targets, strict=True)
            if number / 5 < float(row.max()) <= (number + 1) / 5
        ]
        assert found.count[number] == len(inside)
        if inside:
            sure, right = map(np.mean, zip(*inside, strict=True))
            assert (found.confidence[number], found.accuracy[number]) == pytest.approx((sure, right))
            error += len(inside) / 200 * abs(sure - right)
        else:
            assert math.isnan(found.accuracy[number])
    assert found.error == pytest.approx(error) and error > 0.1
    assert "0.80 to 1.00" in found._repr_html_()


def test_a_fitted_model_is_better_calibrated_than_one_that_is_too_sure():
    x, y = make_classification(4000, 8, n_informative=4, class_sep=0.5, random_state=0)
    shares = torch.from_numpy(LogisticRegression().fit(x[:2000], y[:2000]).predict_proba(x[2000:]))
    surer = (5 * shares.log()).softmax(1)
    assert metrics.calibration(shares, y[2000:]).error < 0.05 < 0.15 < metrics.calibration(surer, y[2000:]).error


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (metrics.balanced_accuracy, ([0, 1], [0]), "predicted: 2; expected as many as targets, 1"),
        (metrics.balanced_accuracy, ([], []), "predicted: of shape"),
        (metrics.confusion, ([0, 3], [0, 1], 3), "predicted: 0 to 3; expected whole numbers of classes, 0 to 2"),
        (metrics.confusion, ([0, 1], [0.5, 1], 3), "targets: 0.5 to 1"),
        (metrics.sensitivity_at_specificity, ([0.1, math.nan], [0, 1]), "scores: .* not finite"),
        (metrics.sensitivity_at_specificity, ([0.1, 0.2], [0, 2]), "0 to 2"),
        (metrics.classification_figures, (torch.full((1, 2), math.nan), [0]), "logits: 1 of 1"),
        (metrics.classification_figures, (torch.zeros(2, 2), [0, 2]), "targets: 0 to 2"),
        (metrics.sensitivity_at_specificity, ([0.1, 0.2], [0, 1], 1.1), "specificity: 1.1"),
        (metrics.regression_figures, ([0.1, 0.2], [0, math.nan]), "targets: .* not finite"),
        (metrics.regression_figures, ([0.1, 0.2], [0]), "predicted: 2"),
        (metrics.group_table, ({"UAR": metrics.balanced_accuracy}, [0, 1, 1], [0, 1], [0, 1]), "groups: 3 for 2, 2"),
        (metrics.bootstrap_interval, (metrics.balanced_accuracy, [0, 0], [0, 1], [0, 1]), "groups: 1; .*One speaker"),
        (metrics.calibration, (torch.ones(2, 2), [0, 1]), "probabilities: rows"),
        (metrics.calibration, (torch.ones(2, 1), [0, 0], 0), "bins: 0"),
    ],
)
def test_what_is_refused(function, arguments, message):
    with pytest.raises(ParameterError, match=message):
        function(*arguments)


@pytest.mark.parametrize("how", [{"confidence": 1.0}, {"draws": 0}, {"seed": -1}])
def test_intervals_that_cannot_be(how):
    with pytest.raises(ParameterError, match=next(iter(how))):
        metrics.bootstrap_interval(np.mean, [0, 1], [0.0, 1], **how)
