"""What comes together in a batch, and that it follows from seed and epoch alone."""

from collections import Counter

import numpy as np
import pytest
import torch
from test_training import Line, Net, step

from avlib import training
from avlib.datasets.sampling import WordLabelSampler
from avlib.errors import DatasetError, ParameterError
from avlib.losses import draw_partners


def some(items=400, seed=0):
    """Twelve words, unequally frequent; a third of the clips abnormal."""
    dice = np.random.default_rng(seed)
    words = dice.choice(12, items, p=np.arange(1, 13) / 78)
    return words, (dice.random(items) < 0.33).astype(int)


def test_each_batch_has_words_with_all_their_labels():
    words, labels = some()
    sampler = WordLabelSampler(words[words > 2], labels[words > 2], 4, 3)
    words, labels = words[words > 2], labels[words > 2]
    assert sampler.batch_size == 24 and len(sampler) == len(words) // 24 * 24 == len(list(sampler))
    for batch in np.array(list(sampler)).reshape(-1, 24):
        assert len(set(batch.tolist())) == 24  # no clip twice
        assert len(set(words[batch].tolist())) == 4
        assert set(Counter(zip(words[batch].tolist(), labels[batch].tolist(), strict=True)).values()) == {3}
        assert (words[batch].reshape(4, 6) == words[batch].reshape(4, 6)[:, :1]).all()  # word by word
        partners = draw_partners(torch.from_numpy(labels[batch]), torch.from_numpy(words[batch]))
        assert partners.has_same.all() and partners.has_other.all()


def test_words_come_equally_often_and_all_clips_in_time():
    words, labels = some()
    sampler, drawn = WordLabelSampler(words, labels, 4, 2), Counter()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn.update(sampler)
    assert drawn.keys() == set(range(400))
    by_word = Counter()
    for clip, times in drawn.items():
        by_word[int(words[clip])] += times
    assert max(by_word.values()) < 1.1 * min(by_word.values())


def test_it_follows_from_seed_and_epoch():
    def order(epoch, seed=0):
        sampler = WordLabelSampler(*some(), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(3) == order(3) != order(4) and order(3) != order(3, seed=1)
    again = WordLabelSampler(*some())
    list(again)
    again.set_epoch(3)
    assert list(again) == order(3)
    tensors = WordLabelSampler(*map(torch.from_numpy, some()))
    tensors.set_epoch(3)
    assert list(tensors) == order(3)


def test_what_is_lacking_is_filled_up():
    words, labels = [0] * 10 + [1] * 10, [0] * 9 + [1] + [1] * 10
    sampler = WordLabelSampler(words, labels, 2, 2)
    for batch in np.array(list(sampler)).reshape(-1, 2, 4).tolist():
        of_word = {words[clips[0]]: clips for clips in batch}
        assert [labels[clip] for clip in of_word[0]] == [0, 0, 1, 1] and of_word[0][2:] == [9, 9]
        assert len(set(of_word[1])) == 4 and all(labels[clip] == 1 for clip in of_word[1])


def test_training_goes_by_it():
    words, labels = [i % 4 for i in range(32)], [i % 8 // 4 for i in range(32)]
    seen = []

    def noting(model, batch):
        seen.append(batch.x[:, 0])
        return step(model, batch)

    dataset, sampler = Line(), WordLabelSampler(words, labels, 2, 2)
    settings = training.Settings(steps=6, batch_size=sampler.batch_size, warmup=0)
    training.fit(Net(), noting, dataset, settings, sampler=sampler, progress=False)
    expected = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        expected += list(dataset.x[list(sampler), 0].view(-1, 8))
    assert len(seen) == 6 and all(torch.equal(a, b) for a, b in zip(seen, expected, strict=False))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 1], [0]), ParameterError, "labels: 1; expected 2"),
        (([0, 0, 1], [0, 1, 0], 3), ParameterError, "words_per_batch: 3; expected at most the words, 2"),
        (([0, 0, 1], [0, 1, 0], 0), ParameterError, "words_per_batch: 0"),
        (([0, 0, 1], [0, 1, 0], 1, 0), ParameterError, "clips_per_label: 0"),
        (([0, 0, 1], [0, 1, 0], 1, 1, -1), ParameterError, "seed: -1"),
        (([0, 0, 1], [0, 1, 0], 2, 2), DatasetError, "items: 3; expected at least a batch, 8"),
        (([], []), DatasetError, "items: 0"),
    ],
)
def test_what_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        WordLabelSampler(*arguments)
