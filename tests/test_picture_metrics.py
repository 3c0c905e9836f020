"""Metrics of made pictures against slow loops, known distributions, and what must not be rewarded."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from avlib import metrics
from avlib.errors import ParameterError


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def cosine(a, b):
    a, b = a.double(), b.double()
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def painted(labels, noise=0.0, seed=0):
    """Pictures whose grey says the class of eight, which `classify` reads."""
    grey = (labels.float() / 8 + 0.05)[:, None, None, None].expand(-1, 3, 6, 5)
    return (grey + noise * torch.rand(grey.shape, generator=dice(seed))).clamp(0, 1)


def classify(pictures):
    return -(pictures.mean(dim=(1, 2, 3))[:, None] - (torch.arange(8) / 8 + 0.05)).abs()


# Similarities


def test_audio_image_similarity_by_slow_loops():
    sounds = torch.randn(7, 5, generator=dice(0))
    pictures = sounds * 2 + torch.randn(7, 5, generator=dice(1))
    found = metrics.audio_image_similarity(sounds, pictures)
    matrix = [[cosine(sound, picture) for picture in pictures] for sound in sounds]
    own = [matrix[i][i] for i in range(7)]
    wrong = [matrix[i][j] for i in range(7) for j in range(7) if i != j]
    first = [sum(value > own[i] for value in matrix[i]) + 1 for i in range(7)]
    assert found.mean == pytest.approx(np.mean(own), abs=1e-6)
    assert found.baseline == pytest.approx(np.mean(wrong), abs=1e-6)
    assert found.ranking.ranks.tolist() == first
    assert found.ranking.recall(1) == np.mean([rank == 1 for rank in first])


def test_unrelated_pairs_are_not_better_than_wrong_ones():
    # All in one narrow cone, as the vectors of most encoders are: a raw cosine near 1 says nothing.
    centre = 5 * torch.ones(32)
    sounds, pictures = (centre + torch.randn(200, 32, generator=dice(seed)) for seed in (0, 1))
    found = metrics.audio_image_similarity(sounds, pictures)
    assert found.mean > 0.9 and abs(found.mean - found.baseline) < 0.01
    assert found.ranking.recall(1) < 0.03


def test_one_pair_has_nothing_to_compare_with():
    found = metrics.audio_image_similarity(torch.ones(1, 3), torch.ones(1, 3))
    assert found.mean == pytest.approx(1) and math.isnan(found.baseline)


def test_image_image_similarity_encodes_both(tmp_path):
    generated, true = torch.rand(6, 3, 8, 8, generator=dice(0)), torch.rand(6, 3, 12, 16, generator=dice(1))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    seen = []

    def encode(pictures):
        seen.append((tuple(pictures.shape), torch.is_grad_enabled()))
        return pool(pictures)

    found = metrics.image_image_similarity(generated, true, encode)
    own = [cosine(a, b) for a, b in zip(pool(generated), pool(true), strict=True)]
    assert found.pairs.tolist() == pytest.approx(own, abs=1e-6)
    assert seen == [((6, 3, 8, 8), False), ((6, 3, 12, 16), False)]
    assert metrics.image_image_similarity(true, true, encode).ranking.recall(1) == 1


def test_similarities_refuse():
    flat = nn.Flatten()
    pictures = torch.rand(4, 3, 2, 2)
    for refused, message in (
        (lambda: metrics.audio_image_similarity(torch.ones(0, 3), torch.ones(0, 3)), r"\(0, 3\)"),
        (lambda: metrics.audio_image_similarity(torch.full((2, 3), math.inf), torch.ones(2, 3)), "audio: 2 of 2"),
        (lambda: metrics.image_image_similarity(pictures[:3], pictures, flat), "3 and 4"),
        (lambda: metrics.image_image_similarity(pictures[:0], pictures[:0], flat), "generated: none"),
        (lambda: metrics.image_image_similarity(pictures * 2 - 1, pictures, flat), r"\(pictures \+ 1\) / 2"),
        (lambda: metrics.image_image_similarity(pictures, pictures * math.nan, flat), "true: 4 of 4"),
        (lambda: metrics.image_image_similarity(pictures, pictures, lambda x: x), r"encode: gives \(4, 3, 2, 2\)"),
        (lambda: metrics.image_image_similarity(pictures, pictures, lambda x: flat(x)[:2]), "a row for each of 4"),
        (lambda: metrics.image_image_similarity(pictures, pictures, lambda x: [1]), "gives a list"),
        (lambda: metrics.image_image_similarity(pictures, pictures, lambda x: flat(x) / 0), "encode: 4 of 4"),
    ):
        with pytest.raises(ParameterError, match=message):
            refused()


# Content


def test_content_counts_what_the_classifier_names():
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 7, 7])
    shown = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 6])  # two pictures show another thing
    found = metrics.audio_image_content(painted(shown, 0.02), labels, classify)
    assert found.share == pytest.approx(0.8) and found.chance == 1 / 8
    assert found.ranking.ranks.tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 8, 2]


def test_a_classifier_that_says_nothing_is_at_chance():
    labels = torch.arange(16) % 8
    found = metrics.audio_image_content(painted(labels), labels, lambda pictures: torch.zeros(len(pictures), 8))
    assert found.share == pytest.approx(1 / 8)


def test_content_refuses():
    labels = torch.arange(8)
    pictures = painted(labels)
    for arguments, message in (
        ((pictures[:0], labels[:0], classify), "pictures: none"),
        ((pictures * 255, labels, classify), "pixels from 0 to 1"),
        ((pictures, labels[:7], classify), "labels: 7"),
        ((pictures, labels + 1, classify), "own: .* 0 to 7"),
        ((pictures, labels - 1, classify), "own: .* 0 to 7"),
        ((pictures, labels, lambda x: classify(x) / 0), "classify: "),
    ):
        with pytest.raises(ParameterError, match=message):
            metrics.audio_image_content(*arguments)
