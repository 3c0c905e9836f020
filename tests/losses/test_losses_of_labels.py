"""Losses on labels against their formulas, written slowly, and against libraries."""

import math
import random
import unicodedata

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from avlib import features, losses
from avlib.errors import ParameterError


def some(items=7, classes=4, seed=0):
    dice = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(items, classes, generator=dice), torch.randint(classes, (items,), generator=dice)


def probabilities(row):
    powers = [math.exp(value) for value in row.tolist()]
    return [power / sum(powers) for power in powers]


# Cross entropy


def test_cross_entropy_with_weights_is_over_items():
    logits, target = some()
    weights = torch.tensor([0.5, 2.0, 1, 1, 3, 0, 1])
    slow = sum(float(w) * -math.log(probabilities(row)[y]) for row, y, w in zip(logits, target, weights, strict=True))
    assert losses.cross_entropy_loss(logits, target, weights).item() == pytest.approx(slow / 7, rel=1e-5)
    torch.testing.assert_close(losses.cross_entropy_loss(logits, target), F.cross_entropy(logits, target))
    torch.testing.assert_close(
        losses.cross_entropy_loss(logits, target, label_smoothing=0.2),
        F.cross_entropy(logits, target, label_smoothing=0.2),
    )


def test_weights_keep_their_meaning_where_a_batch_has_one_class():
    logits, target = some(classes=2)[0], torch.ones(7, dtype=torch.long)
    weights = torch.tensor([0.2, 1.8])
    loss = losses.cross_entropy_loss(logits, target, weights[target])
    torch.testing.assert_close(loss, 1.8 * F.cross_entropy(logits, target))
    torch.testing.assert_close(F.cross_entropy(logits, target, weights), F.cross_entropy(logits, target))


# Focal


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2.0, 5])
@pytest.mark.parametrize("alpha", [None, [0.1, 0.2, 0.3, 0.4]])
def test_softmax_focal(gamma, alpha):
    logits, target = some()
    slow = []
    for row, y in zip(logits, target.tolist(), strict=True):
        p = probabilities(row)[y]
        slow.append((alpha[y] if alpha else 1) * (1 - p) ** gamma * -math.log(p))
    found = [losses.focal_loss(row[None], y[None], gamma, alpha).item() for row, y in zip(logits, target, strict=True)]
    assert found == pytest.approx(slow, rel=1e-4, abs=1e-6)
    assert losses.focal_loss(logits, target, gamma, alpha).item() == pytest.approx(sum(slow) / 7, rel=1e-4)


def test_a_number_for_two_classes_is_the_weight_of_the_second():
    logits, target = some(classes=2)
    torch.testing.assert_close(
        losses.focal_loss(logits, target, alpha=0.25), losses.focal_loss(logits, target, alpha=[0.75, 0.25])
    )
    # two logits are one question, whose logit is their difference
    binary = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], target.float(), 0.25, 2.0)
    torch.testing.assert_close(losses.focal_loss(logits, target, alpha=0.25), binary.mean())


@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_sigmoid_focal_is_that_of_torchvision(gamma, alpha):
    logits, target = some()
    theirs = sigmoid_focal_loss(logits, F.one_hot(target, 4).float(), -1 if alpha is None else alpha, gamma)
    torch.testing.assert_close(losses.focal_loss(logits, target, gamma, alpha, "sigmoid"), theirs.sum(1).mean())


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_a_model_that_is_wholly_sure_has_a_gradient(form):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    losses.focal_loss(logits, torch.tensor([0, 0]), gamma=0.5, form=form).backward()
    assert logits.grad.isfinite().all() and logits.grad[1].abs().sum() > 0.5


def test_half_precision_is_computed_in_float32():
    logits, target = some()
    for form in ("softmax", "sigmoid"):
        found = losses.focal_loss(logits.bfloat16(), target, form=form)
        torch.testing.assert_close(found, losses.focal_loss(logits.bfloat16().float(), target, form=form))
        assert losses.focal_loss(logits.double(), target, form=form).dtype == torch.float64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"form": "both"}, "form: 'both'"),
        ({"gamma": -1.0}, "gamma: -1"),
        ({"alpha": 0.25}, "alpha: 0.25; expected a weight for each of 4 classes"),
        ({"alpha": [1, 2]}, r"alpha: of shape \(2,\)"),
        ({"alpha": [0.25] * 4, "form": "sigmoid"}, "alpha.*a number from 0 to 1"),
        ({"alpha": 2.0, "form": "sigmoid"}, "alpha: 2.0"),
        ({"target": torch.tensor([0, 4])}, "target: 0 to 4; expected 0 to 3"),
        ({"target": torch.tensor([0.0, 1.0])}, r"target: \(2,\), torch.float32"),
        ({"target": torch.zeros(3, dtype=torch.long), "form": "sigmoid"}, r"target: \(3,\)"),
    ],
)
def test_what_focal_refuses(wrong, message):
    with pytest.raises(ParameterError, match=message):
        losses.focal_loss(**{"logits": torch.zeros(2, 4), "target": torch.tensor([0, 1]), **wrong})


# Weights of classes


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999, 0.9999999])
def test_class_balanced_weights(beta):
    counts = [5000, 300, 20, 1]
    inverse = [1 / sum(beta**j for j in range(n)) for n in counts]  # 1 + b + ... + b^(n-1) is (1 - b^n) / (1 - b)
    expected = [4 * value / sum(inverse) for value in inverse]
    for given in (counts, torch.tensor(counts)):
        assert losses.class_balanced_weights(given, beta).tolist() == pytest.approx(expected, rel=1e-5)
    assert losses.class_balanced_weights(counts).sum().item() == pytest.approx(4)


def test_class_balanced_loss_in_its_three_forms():
    logits, target = some()
    weights = losses.class_balanced_weights([50, 3, 20, 900])
    one_hot = F.one_hot(target, 4).float()
    by_form = {
        "softmax": F.cross_entropy(logits, target, reduction="none"),
        "sigmoid": F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(1),
        "focal": sigmoid_focal_loss(logits, one_hot, -1, 0.5).sum(1),
    }
    for form, plain in by_form.items():
        found = losses.class_balanced_loss(logits, target, weights, form, 0.5)
        torch.testing.assert_close(found, sum(weights[y] * loss for y, loss in zip(target, plain, strict=True)) / 7)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (losses.class_balanced_weights, ([3, 0],), "counts: .*1 or more of each class"),
        (losses.class_balanced_weights, ([],), "counts"),
        (losses.class_balanced_weights, ([3, 1], 1.0), "beta: 1.0"),
        (losses.class_balanced_loss, (*some(), torch.ones(3)), "weights: 3"),
        (losses.class_balanced_loss, (*some(), torch.ones(4), "hinge"), "form: 'hinge'"),
        (losses.balancing_weights, (torch.ones(2, 2), "none"), "form: 'none'"),
        (losses.balancing_weights, (-torch.ones(2, 2),), "counts"),
        (losses.balancing_weights, (torch.ones(2, 2), "balanced", -1), "laplace"),
        (losses.balancing_weights, (torch.ones(2, 2), "balanced", 0, 0), "cap"),
        (losses.count_table, ([0, 1], [0], 2, 2), "columns: 1 numbers"),
        (losses.count_table, ([0, 2], [0, 1], 2, 2), "rows: 0 to 2"),
        (losses.cross_entropy_loss, (*some(), torch.ones(3)), "weights"),
        (losses.difficulty_weights, ([3.0], [2]), "labels"),
        (losses.difficulty_weights, ([3.0, 4], [1]), "difficulty"),
        (losses.difficulty_weights, ([math.nan], [1]), "difficulty"),
        (losses.difficulty_weights, ([3.0], [1], 2.5), "strength: 2.5"),
        (features.word_difficulty, ("слово",), "word: 'слово'"),
    ],
)
def test_what_is_refused(function, arguments, message):
    with pytest.raises(ParameterError, match=message):
        function(*arguments)


# Weights of words and classes


def test_balancing_weights():
    dice = random.Random(0)
    clips = [(word, int(dice.random() < (0.1, 0.5, 0.8)[word])) for word in (dice.randrange(3) for _ in range(300))]
    clips += [(3, 1)] * 5  # a word without normal clips
    words, labels = map(list, zip(*clips, strict=True))
    counts = losses.count_table(words, labels, 5, 2)  # and one without any
    assert counts.tolist() == [[clips.count((word, label)) for label in (0, 1)] for word in range(5)]
    inverse, balanced = (losses.balancing_weights(counts, form, cap=None) for form in ("inverse", "balanced"))
    for word in range(3):
        for label in (0, 1):
            expected = words.count(word) / clips.count((word, label))
            assert inverse[word, label].item() == pytest.approx(expected)
            assert balanced[word, label].item() == pytest.approx(expected / 2)
        assert (1 / inverse[word]).sum().item() == pytest.approx(1)
    assert balanced[3:].tolist() == inverse[3:].tolist() == [[1, 1], [1, 1]]
    for word in range(4):
        mean = sum(balanced[word, label].item() for w, label in clips if w == word) / words.count(word)
        assert mean == pytest.approx(1)


def test_rare_cells_are_capped_or_smoothed():
    counts = torch.tensor([[99, 1]])
    for given in (counts, counts.tolist()):
        assert losses.balancing_weights(given).tolist() == [[pytest.approx(100 / 198), 10]]
    assert losses.balancing_weights(counts, "inverse", laplace=1, cap=None).tolist() == [[pytest.approx(1.02), 51]]


# Difficulty


def test_difficulty_weights_are_largest_for_what_says_most():
    weights = losses.difficulty_weights([2, 11, 2, 11, 6.5, 20], torch.tensor([0, 0, 1, 1, 1, 0]))
    assert weights.tolist() == pytest.approx([0.5, 1.5, 1.5, 0.5, 1, 1.5])
    dice = random.Random(1)
    for strength in (0.0, 0.4, 2):
        score, label = dice.randrange(2, 12), dice.randrange(2)
        delta = (score - 2) / 9
        expected = 1 - strength * (delta - 0.5) if label else 1 + strength * (delta - 0.5)
        found = losses.difficulty_weights([score], [label], strength)
        assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("word", "score"),
    [
        ("아", 1),
        ("나무", 2),
        ("눈", 1 + 2),
        ("딸기", 2 + 2 + 1 + 1),  # tt, final l: liquid
        ("코끼리", 3 + 1 + 1 + 1),  # kh, kk, r
        ("병원", 2 + 2 * 2 + 2),  # yeo, weo
        ("흙", 1 + 2 + 1),  # a cluster of l and k is one final
        ("책상", 2 + 2 * 2 + 1),
        ("의자", 2 + 1),
        ("key", 2),
        ("fox", 4),
        ("cake", 3),
        ("sheep", 3),
        ("strawberry", 8),
    ],
)
def test_difficulty_of_words(word, score):
    for form in ("NFC", "NFD"):
        assert features.word_difficulty(unicodedata.normalize(form, word)) == score
    assert features.word_difficulty(word, table={word: 7.5}) == 7.5
    assert features.word_difficulty(word, table={"other": 1}) == score
