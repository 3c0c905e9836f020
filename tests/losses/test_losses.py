import math

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from avlib.errors import ParameterError
from avlib.losses import contrastive_loss, masked_patch_error, normalize_patches
from avlib.models.cav_mae import CAVMAE


def test_normalized_patches_have_mean_0_and_unbiased_variance_1():
    patches = normalize_patches(torch.randn(2, 5, 16) * 3 + 7)
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(patches.square().sum(-1) / 15, torch.ones(2, 5))
    assert not normalize_patches(torch.full((1, 1, 16), 3.0)).any()


def test_error_counts_removed_patches_alone():
    target, removed = torch.zeros(2, 3, 4), torch.tensor([[1.0, 0, 0], [1, 1, 0]])
    prediction = torch.tensor([[2.0, 50, 50], [4, 6, 50]])[..., None].expand(2, 3, 4)
    assert masked_patch_error(prediction, target, removed) == (4 + 16 + 36) / 3
    assert masked_patch_error(prediction, target, torch.zeros(2, 3)).isnan()


def test_contrast_falls_when_a_pair_becomes_more_alike():
    """A note of the review says the reverse: that the loss makes s_ii smaller."""
    image = torch.eye(3)
    losses = [contrastive_loss(torch.eye(3) * alike + (1 - alike), image)[0] for alike in (0.1, 0.3, 0.9)]
    assert losses[0] > losses[1] > losses[2]


def test_contrast_by_hand():
    audio, image = torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([[1.0, 1], [0, 2]])
    s = [[math.sqrt(0.5), 0], [1, math.sqrt(0.5)]]  # a row for each sound
    loss, accuracy = contrastive_loss(audio, image)
    expected = (
        -sum(math.log(math.exp(s[j][j] / 0.05) / sum(math.exp(s[i][j] / 0.05) for i in (0, 1))) for j in (0, 1)) / 2
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5) and accuracy == 0.5


def test_contrast_in_bfloat16_is_computed_in_float32():
    audio, image = torch.randn(2, 6, 32).bfloat16()
    loss, _ = contrastive_loss(audio, image)
    torch.testing.assert_close(loss, contrastive_loss(audio.float(), image.float())[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(contrastive_loss(audio, image)[0], loss)


def test_one_clip_is_refused():
    with pytest.raises(ParameterError, match="single clip"):
        contrastive_loss(torch.ones(1, 4), torch.ones(1, 4))


SIZES = {
    "audio_length": 32,
    "mel_bins": 32,
    "image_size": 32,
    "width": 32,
    "heads": 2,
    "modality_depth": 1,
    "decoder_width": 16,
    "decoder_heads": 2,
    "decoder_depth": 1,
}
CLIPS = 4


def clips():
    generator = torch.Generator().manual_seed(0)
    shapes = {"audio": (32, 32), "image": (3, 32, 32), "noise_audio": (4,), "noise_image": (4,)}
    return {name: torch.rand(CLIPS, *shape, generator=generator) for name, shape in shapes.items()}


def build(gather):
    torch.manual_seed(0)
    return CAVMAE(gather_negatives=gather, both_directions=True, **SIZES)


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def one_of_two(rank, folder):
    """Half of the clips in each process, under DistributedDataParallel, which averages gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    half = {name: tensor.chunk(2)[rank] for name, tensor in clips().items()}
    result = {}
    for gather in (True, False):
        model = build(gather)
        parallel = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        out = parallel(**half, contrast_weight=1.0)
        out.loss.backward()
        result[gather] = (out.contrast.detach(), out.contrast_accuracy, gradients(model))
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_negatives_of_both(tmp_path):
    mp.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = build(True)
    out = whole(**clips(), contrast_weight=1.0)
    out.loss.backward()
    for gathered in (result[True] for result in results):
        torch.testing.assert_close(gathered[0], out.contrast.detach())
        torch.testing.assert_close(gathered[1], out.contrast_accuracy)
        assert gathered[2].keys() == gradients(whole).keys()
        for name, gradient in gradients(whole).items():
            torch.testing.assert_close(gathered[2][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for rank, published in enumerate(result[False] for result in results):
        half = {name: tensor.chunk(2)[rank] for name, tensor in clips().items()}
        torch.testing.assert_close(published[0], build(False)(**half).contrast.detach())
        assert not torch.isclose(published[0], out.contrast)
