import random

import pytest
import torch

from avlib.errors import ParameterError
from avlib.masking import MASK_MODES, kept_count, random_mask, whole_strips

GRID = (8, 64)


def published(batch, grid, ratio, mode):
    """The published masking, as loops and lists: which patches are removed, and in which order the others are kept."""
    height, width = grid
    noise = torch.rand(batch, height * width).tolist()
    strips = []
    if mode in ("time", "tf"):
        count = int(width * ratio) if mode == "time" else int(width * ratio * 0.7)
        for sample in range(batch):
            strips += [(sample, row, column) for column in random.sample(range(width), count) for row in range(height)]
    if mode in ("freq", "tf"):
        count = int(height * ratio) if mode == "freq" else int(height * ratio * 0.7)
        for sample in range(batch):
            strips += [(sample, row, column) for row in random.sample(range(height), count) for column in range(width)]
    for sample, row, column in strips:
        noise[sample][row * width + column] = 1.1
    return [torch.tensor(values).argsort()[: int(height * width * (1 - ratio))].tolist() for values in noise]


def seeded(function, *arguments, **options):
    torch.manual_seed(4)
    random.seed(4)
    return function(*arguments, **options)


@pytest.mark.parametrize("ratio", [0.5, 0.65, 0.75, 0.85])
@pytest.mark.parametrize("mode", MASK_MODES)
def test_a_seed_gives_the_published_masks(mode, ratio):
    mask = seeded(random_mask, 3, GRID, ratio, mode, exact=mode != "tf")
    kept = seeded(published, 3, GRID, ratio, mode)
    assert mask.order[:, : mask.kept].tolist() == kept
    for removed, stays in zip(mask.removed, kept, strict=True):
        assert (removed == 0).nonzero().flatten().tolist() == sorted(stays)


@pytest.mark.parametrize(
    ("ratio", "audio", "image"), [(0.75, 128, 49), (0.5, 256, 98), (0.65, 179, 68), (0.85, 76, 29), (0, 512, 196)]
)
def test_kept_counts(ratio, audio, image):
    assert (kept_count(512, ratio), kept_count(196, ratio)) == (audio, image)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.65, 0.75, 0.85, 0.95])
@pytest.mark.parametrize("grid", [(8, 64), (8, 12), (8, 32), (14, 14), (4, 7), (3, 1)])
@pytest.mark.parametrize("mode", MASK_MODES)
def test_counts_are_exact_on_any_grid(mode, grid, ratio):
    height, width = grid
    patches = height * width
    if int(patches * (1 - ratio)) == 0:
        with pytest.raises(ParameterError):
            random_mask(2, grid, ratio, mode)
        return
    columns, rows = whole_strips(grid, ratio, mode)
    mask = random_mask(2, grid, ratio, mode)
    assert mask.removed.dtype == torch.float32 and mask.removed.sum(1).tolist() == [patches - mask.kept] * 2
    plane = mask.removed.view(2, height, width)
    assert (plane.mean(1) == 1).sum(1).min() >= columns and (plane.mean(2) == 1).sum(1).min() >= rows
    if mode in ("time", "freq") and columns * height + rows * width == patches - mask.kept:
        assert set(plane.mean(1 if mode == "time" else 2).flatten().tolist()) <= {0.0, 1.0}


def test_tf_removes_the_strips_that_it_names():
    """As published it marks more patches than may go, and which of them come back is left to a sort."""
    assert whole_strips(GRID, 0.75, "tf", exact=False) == (33, 4)
    assert 33 * 8 + 4 * 64 - 33 * 4 == 388 > 512 - kept_count(512, 0.75)
    assert whole_strips(GRID, 0.75, "tf") == (32, 4)
    assert 32 * 8 + 4 * 64 - 32 * 4 == 384 == 512 - kept_count(512, 0.75)
    plane = random_mask(5, GRID, 0.75, "tf").removed.view(5, *GRID)
    assert (plane.mean(1) == 1).sum(1).tolist() == [32] * 5 and (plane.mean(2) == 1).sum(1).tolist() == [4] * 5


@pytest.mark.parametrize("mode", MASK_MODES)
def test_noise_decides_alone(mode):
    noise = torch.rand(2, 512)
    random.seed(1)
    state, own = torch.random.get_rng_state(), random.getstate()
    first, second = (random_mask(2, GRID, 0.75, mode, noise=noise) for _ in range(2))
    swapped = random_mask(2, GRID, 0.75, mode, noise=noise.flip(0))
    assert torch.equal(first.order, second.order) and torch.equal(first.removed, swapped.removed.flip(0))
    assert torch.equal(state, torch.random.get_rng_state()) and own == random.getstate()


def test_smallest_noise_is_kept():
    noise = torch.arange(12.0).flip(0)[None]
    assert random_mask(1, (3, 4), 0.75, noise=noise).removed[0].tolist() == [1.0] * 9 + [0.0] * 3
    assert random_mask(1, (3, 4), 0.5, "time", noise=noise.view(4, 3).T.reshape(1, 12)).removed.view(3, 4)[
        0
    ].tolist() == [1, 1, 0, 0]


def test_select_and_restore():
    mask = random_mask(2, (4, 6), 0.5)
    tokens = torch.randn(2, 24, 3)
    back = mask.restore(mask.select(tokens), torch.full((1, 1, 3), 9.0))
    assert torch.equal(back, torch.where(mask.removed.bool()[..., None], 9.0, tokens))


def test_every_patch_is_removed_equally_often():
    for mode in MASK_MODES:
        share = random_mask(4000, (4, 8), 0.5, mode).removed.mean(0)
        torch.testing.assert_close(share, torch.full((32,), 0.5), rtol=0, atol=0.05)


@pytest.mark.parametrize("ratio", [1, 1.0, 1.2, -0.1, float("nan"), 0.9999])
def test_ratios_that_keep_nothing_or_mean_nothing(ratio):
    with pytest.raises(ParameterError, match="mask_ratio"):
        random_mask(1, GRID, ratio)


def test_unknown_modes_and_noise_of_another_shape():
    with pytest.raises(ParameterError, match="'unstructured', 'time', 'freq', 'tf'"):
        random_mask(1, GRID, 0.5, "frequency")
    with pytest.raises(ParameterError, match=r"shape \(1, 9\).*\(1, 512\)"):
        random_mask(1, GRID, 0.5, noise=torch.rand(1, 9))
