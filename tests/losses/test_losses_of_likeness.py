"""Contrast between labels, against loops over pairs."""

import math

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import CosineEmbeddingLoss

from avlib import losses
from avlib.errors import ParameterError


def some(items=12, seed=0):
    dice = torch.Generator().manual_seed(seed)
    labels, words = torch.randint(2, (2, items), generator=dice)
    return torch.randn(items, 5, generator=dice), labels, words


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def slow_contrast(embeddings, labels, t, words=None):
    total, anchors, items = 0, 0, range(len(labels))
    for i in items:
        rivals = [a for a in items if a != i and (words is None or words[a] == words[i])]
        positives = [p for p in rivals if labels[p] == labels[i]]
        if not positives:
            continue
        below = sum(math.exp(cosine(embeddings[i], embeddings[a]) / t) for a in rivals)
        logs = [math.log(math.exp(cosine(embeddings[i], embeddings[p]) / t) / below) for p in positives]
        total, anchors = total - sum(logs) / len(positives), anchors + 1
    return total / anchors


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("within", [False, True])
def test_supervised_contrast(temperature, within):
    embeddings, labels, words = some()
    labels[0] = 7  # no other of its label
    words[-1] = 9  # no other of its word
    words = words if within else None
    expected = slow_contrast(embeddings.double(), labels, temperature, words)
    found = losses.supervised_contrastive_loss(embeddings, labels, temperature, words)
    assert found.item() == pytest.approx(expected, rel=1e-4)
    longer = embeddings * torch.arange(1, 13)[:, None]
    torch.testing.assert_close(losses.supervised_contrastive_loss(longer, labels, temperature, words), found)


def half_in_each(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    embeddings, labels, words = (rows.chunk(2)[rank] for rows in some())
    embeddings = embeddings.clone().requires_grad_()
    loss = losses.supervised_contrastive_loss(embeddings, labels, words=words)
    loss.backward()
    alone = losses.supervised_contrastive_loss(embeddings, labels, words=words, gather=False)
    torch.save((loss.detach(), embeddings.grad, alone.detach()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_compare_the_items_of_both(tmp_path):
    mp.spawn(half_in_each, (str(tmp_path),), nprocs=2)
    embeddings, labels, words = some()
    embeddings.requires_grad_()
    expected = losses.supervised_contrastive_loss(embeddings, labels, words=words)
    expected.backward()
    for rank in range(2):
        loss, gradient, alone = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient / 2, embeddings.grad.chunk(2)[rank])  # averaged over two, as by DDP
        half = [rows.chunk(2)[rank] for rows in (embeddings.detach(), labels, words)]
        torch.testing.assert_close(alone, losses.supervised_contrastive_loss(*half[:2], words=half[2]))


def test_gradients_are_finite_and_pull_what_is_alike_together():
    embeddings, labels, words = some()
    labels[0], words[-1] = 7, 9
    for given in (None, words):
        moved = embeddings.clone().requires_grad_()
        before = losses.supervised_contrastive_loss(moved, labels, words=given)
        before.backward()
        assert moved.grad.isfinite().all()
        after = losses.supervised_contrastive_loss(moved - 0.01 * moved.grad, labels, words=given)
        assert after < before


def test_nothing_to_compare_is_no_loss():
    embeddings = torch.randn(3, 4).requires_grad_()
    for labels, words in ((torch.arange(3), None), (torch.zeros(3, dtype=torch.long), torch.arange(3))):
        loss = losses.supervised_contrastive_loss(embeddings, labels, words=words)
        loss.backward()
        assert loss == 0 and not embeddings.grad.any()
    assert losses.supervised_contrastive_loss(torch.randn(1, 4), torch.zeros(1, dtype=torch.long)) == 0


def test_contrast_in_half_precision_is_computed_in_float32():
    embeddings, labels, _ = some()
    expected = losses.supervised_contrastive_loss(embeddings.bfloat16().float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(losses.supervised_contrastive_loss(embeddings.bfloat16(), labels), expected)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_pair_contrast_is_torchs_on_each_side(margin):
    anchor, positive, negative = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    slow = sum(1 - cosine(a, p) for a, p in zip(anchor, positive, strict=True)) / 6
    slow += sum(max(0, cosine(a, n) - margin) for a, n in zip(anchor, negative, strict=True)) / 6
    found = losses.pair_contrastive_loss(anchor, positive, negative, margin)
    assert found.item() == pytest.approx(slow, rel=1e-4)
    torchs, one = CosineEmbeddingLoss(margin), torch.ones(6)
    torch.testing.assert_close(found, torchs(anchor, positive, one) + torchs(anchor, negative, -one))
    has = torch.tensor([True, True, False, True, False, False])
    some_of = torchs(anchor[has], positive[has], one[has]) + torchs(anchor[~has], negative[~has], -one[~has])
    torch.testing.assert_close(losses.pair_contrastive_loss(anchor, positive, negative, margin, has, ~has), some_of)
    assert losses.pair_contrastive_loss(anchor, positive, negative, margin, has & False, has & False) == 0


def test_gradients_reach_the_partners():
    vectors = [torch.randn(3, 4, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in range(3)]
    losses.pair_contrastive_loss(*vectors, margin=-1.0).backward()
    assert all(vector.grad.abs().sum() > 0 for vector in vectors)


@pytest.mark.parametrize("within", [False, True])
def test_partners(within):
    _, labels, words = some(20)
    labels[0], words[1] = 5, 6
    words = words if within else torch.zeros(20, dtype=torch.long)
    drawn = [losses.draw_partners(labels, words if within else None) for _ in range(200)]
    for i in range(20):
        word = [j for j in range(20) if j != i and words[j] == words[i]]
        same, other = ({j for j in word if (labels[j] == labels[i]) == wanted} for wanted in (True, False))
        for allowed, found, has in ((same, "same", "has_same"), (other, "other", "has_other")):
            assert {int(getattr(partners, found)[i]) for partners in drawn} == (allowed or {i})
            assert {bool(getattr(partners, has)[i]) for partners in drawn} == {bool(allowed)}
    noise = torch.rand(20, 20)
    again = [losses.draw_partners(labels, words, noise) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))


def test_what_is_refused():
    embeddings, labels, _ = some()
    with pytest.raises(ParameterError, match="temperature: 0"):
        losses.supervised_contrastive_loss(embeddings, labels, 0)
    with pytest.raises(ParameterError, match="margin: 1"):
        losses.pair_contrastive_loss(embeddings, embeddings, embeddings, 1.0)
