"""Metrics against slow loops, the published definitions, and what must not be rewarded."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from avlib import metrics
from avlib.errors import ParameterError


def random_pairs(clips=40, width=8, seed=0):
    dice = torch.Generator().manual_seed(seed)
    audio = torch.randn(clips, width, generator=dice)
    return audio, audio + 1.2 * torch.randn(clips, width, generator=dice)


def published_ranks(similarity):
    """`retrieval.py` of CAV-MAE, from 0: where the sorted row equals the diagonal."""
    rows = np.sort(-similarity, axis=1)
    own = np.diag(-similarity)[:, None]
    return np.where(rows - own == 0)[1]


def slow_cosines(audio, image):
    return np.array([[float(a @ v / (a.norm() * v.norm())) for v in image.double()] for a in audio.double()])


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_it_is_the_published_retrieval(seed):
    audio, image = random_pairs(seed=seed)
    found = metrics.retrieval(audio, image)
    similarity = slow_cosines(audio, image)
    assert np.allclose(found.similarity, similarity, atol=1e-6)
    for ranking, matrix in ((found.of_images, similarity), (found.of_audio, similarity.T)):
        place = published_ranks(matrix)
        for k in (1, 5, 10):
            assert ranking.recall(k) == pytest.approx(np.mean(place < k))
            assert ranking.hits(k).tolist() == (place < k).astype(float).tolist()
        assert ranking.median_rank == np.median(place) + 1
        assert ranking.ranks.tolist() == (place + 1).tolist()


@pytest.mark.parametrize("clips", [7, 64, 200])
def test_vectors_that_say_nothing_are_at_chance(clips):
    same = torch.randn(1, 768, generator=torch.Generator().manual_seed(0)).repeat(clips, 1)
    found = metrics.retrieval(same, same * 3)
    for ranking in (found.of_images, found.of_audio):
        assert ranking.recall(1) == pytest.approx(1 / clips)
        assert ranking.recall(5) == pytest.approx(5 / clips)
        assert ranking.median_rank == (clips + 1) / 2
    assert np.mean(published_ranks(np.ones((clips, clips)))[:clips] < 1) < 0.2  # it gives ranks of one query to others


def test_ties_are_what_random_orders_give_on_average():
    dice = np.random.default_rng(0)
    similarity = dice.integers(0, 4, (30, 30)).astype(np.float64)
    ranking = metrics.ranking(torch.tensor(similarity))
    places = []
    for _ in range(4000):
        order = dice.permuted(np.tile(np.arange(30), (30, 1)), axis=1)  # breaks ties by chance
        before = (similarity > np.diag(similarity)[:, None]) | (
            (similarity == np.diag(similarity)[:, None]) & (order < np.diag(order)[:, None])
        )
        places.append(before.sum(axis=1))
    assert np.abs(np.mean(places, axis=0) + 1 - ranking.ranks.numpy()).max() < 0.5
    for k in (1, 5, 10):
        assert np.abs(np.mean(np.array(places) < k, axis=0) - ranking.hits(k).numpy()).max() < 0.04


def test_two_clips_with_one_picture():
    similarity = torch.tensor([[0.9, 0.9, 0.1], [0.2, 0.5, 0.5], [0.1, 0.2, 0.3]])
    assert metrics.ranking(similarity).hits(1).tolist() == [0.5, 0.5, 1.0]
    assert metrics.ranking(similarity).ranks.tolist() == [1.5, 1.5, 1.0]


def test_more_candidates_than_queries():
    similarity = torch.tensor([[0.9, 0.1, 1.0], [0.0, 0.5, 0.1]])
    assert metrics.ranking(similarity).ranks.tolist() == [2, 1]


def test_what_cannot_be_searched():
    audio, image = random_pairs(6)
    image[[2, 4]] = math.nan
    with pytest.raises(ParameterError, match=r"image: 2 of 6 rows are not finite \(2, 4\)"):
        metrics.retrieval(audio, image)
    with pytest.raises(ParameterError, match="not finite"):
        metrics.ranking(torch.full((3, 3), math.nan))
    with pytest.raises(ParameterError, match="one vector of each"):
        metrics.retrieval(audio[:0], audio[:0])
    with pytest.raises(ParameterError, match="3 queries, 2 candidates"):
        metrics.ranking(torch.zeros(3, 2))


def test_half_precision_vectors_are_compared_in_full():
    audio, image = random_pairs()
    exact, rounded = metrics.retrieval(audio, image), metrics.retrieval(audio.bfloat16(), image.bfloat16())
    assert rounded.similarity.dtype == torch.float32
    assert abs(exact.of_images.recall() - rounded.of_images.recall()) <= 0.05


# Bounds


def test_lower_bound_is_wilsons():
    # Newcombe (1998), table I, 81 of 263 and 15 of 148, by the method without continuity correction
    assert metrics.lower_bound([1] * 81 + [0] * 182) == pytest.approx(0.2553, abs=5e-5)
    assert metrics.lower_bound(torch.tensor([True] * 15 + [False] * 133)) == pytest.approx(0.0624, abs=5e-5)
    assert metrics.lower_bound([0.0] * 20) == 0 and metrics.lower_bound([0.5, 0.5]) < 0.5


def test_lower_bound_holds_as_often_as_it_says():
    dice = np.random.default_rng(0)
    below = [metrics.lower_bound(dice.random(320) < 0.25) <= 0.25 for _ in range(1000)]
    assert 0.96 < np.mean(below) < 0.99  # half of the 5 % is on the other side


def test_lower_bound_refuses():
    with pytest.raises(ParameterError, match="hits"):
        metrics.lower_bound([])
    with pytest.raises(ParameterError, match="hits"):
        metrics.lower_bound([1.5])
    with pytest.raises(ParameterError, match="confidence"):
        metrics.lower_bound([1.0], confidence=95)


# Classification


def slow_average_precision(scores, true):
    """The mean, over positives, of the precision among all that score as high or higher."""
    precisions = [true[scores >= score].mean() for score, positive in zip(scores, true, strict=True) if positive]
    return np.mean(precisions)


def slow_auc(scores, true):
    """How often a positive scores higher than a negative; a tie counts half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[true] for n in scores[~true]]
    return np.mean(pairs)


def multi_label(seed=0, items=50, classes=6):
    dice = np.random.default_rng(seed)
    targets = dice.random((items, classes)) < 0.3
    scores = (targets + dice.normal(size=targets.shape)).round(1)  # rounded: with ties
    return scores, targets


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_against_slow_loops(seed):
    scores, targets = multi_label(seed)
    precision = [slow_average_precision(s, t) for s, t in zip(scores.T, targets.T, strict=True)]
    found = metrics.mean_average_precision(torch.tensor(scores), torch.tensor(targets).float())
    assert found == pytest.approx(np.mean(precision))


@pytest.mark.parametrize("present", [3, 4])  # of four classes
def test_auroc_against_slow_loops(present):
    dice = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(50, 4, generator=dice).round(decimals=1), torch.arange(50) % present
    shares = logits.double().softmax(1).numpy()
    auc = [slow_auc(shares[:, label], (targets == label).numpy()) for label in range(present)]
    assert metrics.classification_figures(logits, targets)["AUROC"] == pytest.approx(np.mean(auc))


def test_classes_without_positives_are_left_out():
    scores, targets = multi_label()
    targets[:, 2], targets[:, 4] = False, True
    rest = [slow_average_precision(scores[:, c], targets[:, c]) for c in (0, 1, 3, 4, 5)]
    found = metrics.mean_average_precision(torch.tensor(scores), torch.tensor(targets).float())
    assert found == pytest.approx(np.mean(rest))
    assert math.isnan(metrics.mean_average_precision(torch.randn(4, 2), torch.zeros(4, 2)))
    one_class = metrics.classification_figures(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))
    assert math.isnan(one_class["AUROC"]) and one_class["AP"] == 1


def test_accuracy():
    dice = torch.Generator().manual_seed(0)
    scores, classes = torch.randn(30, 4, generator=dice), torch.randint(4, (30,), generator=dice)
    expected = accuracy_score(classes, scores.argmax(dim=1))  # as published
    assert metrics.accuracy(scores, classes) == pytest.approx(expected)
    assert metrics.accuracy(scores, torch.eye(4)[classes]) == pytest.approx(expected)
    assert metrics.accuracy(torch.zeros(30, 4), classes) == pytest.approx(0.25)  # argmax would say the share of class 0
    assert metrics.correct(scores, classes).tolist() == (scores.argmax(1) == classes).float().tolist()


@pytest.mark.parametrize(
    ("scores", "targets", "said"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 3), "shape of scores"),
        (torch.zeros(0, 2), torch.zeros(0, 2), "shape of scores"),
        (torch.full((3, 2), math.nan), torch.zeros(3, 2), "not finite"),
        (torch.zeros(3, 2), torch.full((3, 2), 0.05), "without smoothing"),
    ],
)
def test_what_cannot_be_scored(scores, targets, said):
    with pytest.raises(ParameterError, match=said):
        metrics.mean_average_precision(scores, targets)
    if said != "without smoothing":
        with pytest.raises(ParameterError):
            metrics.accuracy(scores, targets)


def test_ensemble_is_the_mean_of_probabilities():
    logits = torch.randn(10, 5, 3, generator=torch.Generator().manual_seed(0))
    by_hand = sum(1 / (1 + (-frame).exp()) for frame in logits) / 10
    assert torch.allclose(metrics.ensemble(logits, "multi-label"), by_hand)
    by_hand = sum(frame.exp() / frame.exp().sum(dim=1, keepdim=True) for frame in logits) / 10
    assert torch.allclose(metrics.ensemble(logits, "single-label"), by_hand)
    with pytest.raises(ParameterError, match="task"):
        metrics.ensemble(logits, "mAP")
    with pytest.raises(ParameterError, match="no frame"):
        metrics.ensemble(logits[:0])
