"""CAV-MAE's weights: published files, avlib's own folders, a MAE to begin with, and what is wrong with others."""

from functools import partial

import pytest
import torch
from making import mae_weights
from safetensors.torch import save_file
from test_cav_mae import TINY, perturbed

from avlib import checkpoints
from avlib.errors import CheckpointError, ParameterError
from avlib.models.cav_mae import CAVMAE, CAVMAEClassifier
from avlib.models.cav_mae.weights import settings_of

HEADS = {"heads": 4, "decoder_heads": 4}  # what shapes do not tell
HEAD = {"mlp_head.0.weight", "mlp_head.0.bias", "mlp_head.1.weight", "mlp_head.1.bias"}


@pytest.fixture(scope="module")
def pretrained():
    torch.manual_seed(0)
    return perturbed(CAVMAE(**TINY))


@pytest.fixture(scope="module")
def tuned():
    torch.manual_seed(1)
    return perturbed(CAVMAEClassifier(5, **TINY))


def as_published(state, path, prefix="module."):
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, path)
    return path


def same(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_files_with_and_without_prefix(pretrained, tmp_path, prefix):
    path = as_published(pretrained.state_dict(), tmp_path / "audio_model.21.pth", prefix)
    model = CAVMAE.from_checkpoint(path, **HEADS)
    assert model.sizes == pretrained.sizes and same(model, pretrained.state_dict())
    assert not model.pos_embed_a.requires_grad and CAVMAE.from_checkpoint(path, **HEADS, tr_pos=True).tr_pos


def test_safetensors_files(tuned, tmp_path):
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    model = CAVMAEClassifier.from_checkpoint(tmp_path / "tuned.safetensors", heads=4)
    assert model.num_classes == 5 and same(model, tuned.state_dict())


def test_heads_must_be_told(pretrained, tmp_path):
    with pytest.raises(ParameterError, match="heads: not to be read from weights of width 128"):
        CAVMAE.from_checkpoint(as_published(pretrained.state_dict(), tmp_path / "tiny.pth"))


def test_a_saved_model_comes_back_with_its_settings(pretrained, tuned, tmp_path):
    torch.manual_seed(0)
    CAVMAE(norm_pix_loss=True, both_directions=True, positions="cut", **TINY).save(tmp_path / "own")
    model = CAVMAE.from_checkpoint(tmp_path / "own")
    assert (model.norm_pix_loss, model.both_directions, model.positions, model.sizes.heads) == (True, True, "cut", 4)
    assert CAVMAE.from_checkpoint(tmp_path / "own", norm_pix_loss=False).norm_pix_loss is False
    tuned.save(tmp_path / "tuned")
    assert same(CAVMAEClassifier.from_checkpoint(tmp_path / "tuned"), tuned.state_dict())
    with pytest.raises(CheckpointError, match="seems to be a fine-tuned CAV-MAE"):
        CAVMAE.from_checkpoint(tmp_path / "tuned")


@pytest.mark.parametrize("audio_only", [False, True])
def test_fine_tuning_begins_with_all_but_the_head(pretrained, tmp_path, audio_only):
    begin = partial(CAVMAEClassifier.from_pretraining, num_classes=7, audio_only=audio_only)
    pretrained.save(tmp_path / "own")
    file = as_published(pretrained.state_dict(), tmp_path / "published.pth")
    for model in (begin(tmp_path / "own"), begin(file, heads=4)):
        state = model.state_dict()
        assert ("norm_v.bias" in state) != audio_only
        model.save(tmp_path / "again")
        assert same(CAVMAEClassifier.from_checkpoint(tmp_path / "again"), state)
        assert state.keys() >= HEAD and state["mlp_head.1.weight"].shape == (7, 128)
        assert all(torch.equal(state[name], pretrained.state_dict()[name]) for name in state.keys() - HEAD)
        assert model.pos_embed_a.requires_grad  # trained in fine-tuning, whatever pretraining did


def test_fine_tuning_refuses_a_tuned_model_and_a_damaged_one(pretrained, tuned, tmp_path):
    path = as_published(tuned.state_dict(), tmp_path / "tuned.pth")
    with pytest.raises(CheckpointError, match=r"4 unexpected \(mlp_head.*seems to be a fine-tuned CAV-MAE\."):
        CAVMAEClassifier.from_pretraining(path, 5, heads=4)
    state = pretrained.state_dict()
    del state["norm_v.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing \(norm_v\.bias\)"):
        CAVMAEClassifier.from_pretraining(as_published(state, path), 5, heads=4)


def test_a_tuned_file_is_no_pretrained_one(tuned, tmp_path):
    path = as_published(tuned.state_dict(), tmp_path / "tuned.pth")
    with pytest.raises(
        CheckpointError, match=r"173 missing \(decoder_modality_a.*4 unexpected \(mlp_head.*a fine-tuned CAV-MAE\."
    ):
        CAVMAE.from_checkpoint(path, **HEADS)


def test_number_of_classes(tuned, tmp_path):
    path = as_published(tuned.state_dict(), tmp_path / "tuned.pth")
    assert CAVMAEClassifier.from_checkpoint(path, heads=4)(torch.zeros(1, 192, 128), mode="audioonly").shape == (1, 5)
    with pytest.raises(CheckpointError, match=r"mlp_head\.1\.weight is \(5, 128\) for \(527, 128\)"):
        CAVMAEClassifier.from_checkpoint(path, num_classes=527, heads=4)


# Each of these is what some size is read from.
TELLING = [
    "patch_embed_a.proj.weight",
    "pos_embed_a",
    "pos_embed_v",
    "blocks_u.0.mlp.fc1.weight",
    "decoder_embed.weight",
    "norm.weight",
]


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("change", ["missing", "extra", "misshapen", "flat"])
def test_a_folder_must_fit_exactly(pretrained, tmp_path, name, change):
    pretrained.save(tmp_path)
    state, config = checkpoints.read(tmp_path)
    if change == "missing":
        del state[name]
    elif change == "extra":
        state[f"{name}.more"] = torch.zeros(1)
    else:
        state[name] = state[name][..., :-1] if change == "misshapen" else state[name].flatten()[:7]
    checkpoints.save(tmp_path, state, config)
    found = {"missing": f"1 missing ({name})", "extra": f"1 unexpected ({name}.more)"}
    with pytest.raises(CheckpointError) as caught:
        CAVMAE.from_checkpoint(tmp_path)
    assert found.get(change, f"1 of another shape ({name} is ") in str(caught.value)


@pytest.fixture(scope="module")
def full():
    """Shapes of the published size, whose numbers take no memory."""
    with torch.device("meta"):
        state = CAVMAE().state_dict()
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("change", ["missing", "misshapen", "flat"])
def test_a_single_odd_tensor_is_not_taken_for_a_size(full, name, change):
    """A published file with one wrong shape: that one is named, not six hundred others that do not go with it."""
    state = dict(full)
    odd = state.pop(name)
    if change != "missing":
        state[name] = odd[..., :-1] if change == "misshapen" else torch.zeros(7)
    assert settings_of(CAVMAE, state, {}, (), {}) == {}
    with torch.device("meta"):
        expected = CAVMAE().state_dict()
    with pytest.raises(CheckpointError, match=rf"model: 1 (missing|of another shape) \({name}[^;]*\); expected"):
        checkpoints.require_fit("x.pth", expected, state)


# A masked autoencoder of images to begin with

DEPTH = TINY["modality_depth"] + 1
EQUAL_PATCHES = {**TINY, "image_patch": 16}


@pytest.fixture(scope="module")
def mae():
    """The names of MAE's ViT with decoder, in tiny, with random weights."""
    return mae_weights(DEPTH)


def test_beginning_with_a_mae(mae, tmp_path):
    torch.save({"model": mae}, tmp_path / "mae.pth")
    torch.manual_seed(0)
    own = CAVMAE(**EQUAL_PATCHES).state_dict()
    torch.manual_seed(0)
    state = CAVMAE.from_vit_mae(tmp_path / "mae.pth", **EQUAL_PATCHES).state_dict()
    taken = set()

    def equal(names, expected):
        for name in names:
            assert torch.equal(state[name], expected), name
            taken.add(name)

    for name, tensor in mae.items():
        first, _, rest = name.partition(".")
        index, _, inner = rest.partition(".")
        if first == "blocks" and int(index) < DEPTH - 1:
            equal([f"blocks_a.{rest}", f"blocks_v.{rest}"], tensor)
        elif first == "blocks" and inner.startswith("norm"):
            norm, kind = inner.split(".")
            equal([f"blocks_u.0.{norm}{m}.{kind}" for m in ("", "_a", "_v")], tensor)
        elif first == "blocks":
            equal([f"blocks_u.0.{inner}"], tensor)
        elif first == "norm":
            equal([f"norm.{rest}", f"norm_a.{rest}", f"norm_v.{rest}"], tensor)
        elif first in ("decoder_blocks", "decoder_embed", "decoder_norm", "mask_token"):
            equal([name], tensor)
    equal(["pos_embed_v"], mae["pos_embed"][:, 1:])
    equal(["decoder_pos_embed_v"], mae["decoder_pos_embed"][:, 1:])
    equal(["patch_embed_v.proj.weight"], mae["patch_embed.proj.weight"])
    equal(["patch_embed_a.proj.weight"], mae["patch_embed.proj.weight"].sum(1, keepdim=True))
    equal(["patch_embed_a.proj.bias", "patch_embed_v.proj.bias"], mae["patch_embed.proj.bias"])
    for kind in ("weight", "bias"):
        equal([f"decoder_pred_v.{kind}"], mae[f"decoder_pred.{kind}"])
        equal([f"decoder_pred_a.{kind}"], mae[f"decoder_pred.{kind}"][:256])
    kept = state.keys() - taken
    assert all(torch.equal(state[name], own[name]) for name in kept)
    assert {name.split(".")[0] for name in kept} == {
        *("modality_a", "modality_v", "decoder_modality_a", "decoder_modality_v", "pos_embed_a", "decoder_pos_embed_a"),
        *("blocks_a", "blocks_v", "decoder_blocks"),  # of these only norms that never act
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("blocks.1.attn.qkv.bias"), r"1 missing \(blocks\.1\.attn\.qkv\.bias\)"),
        (lambda weights: weights.update({"blocks.3.norm1.bias": torch.ones(128)}), r"1 unexpected \(blocks\.3\.norm1"),
        (lambda weights: weights.update(pos_embed=torch.ones(1, 10, 128)), r"pos_embed is \(1, 10, 128\)"),
    ],
)
def test_another_vision_transformer_is_refused(mae, tmp_path, change, words):
    weights = dict(mae)
    change(weights)
    torch.save(weights, tmp_path / "mae.pth")
    with pytest.raises(CheckpointError, match=rf"{words}.*seems to be a masked autoencoder"):
        CAVMAE.from_vit_mae(tmp_path / "mae.pth", **EQUAL_PATCHES)


def test_a_mae_is_no_cav_mae(mae, tmp_path):
    torch.save({"model": mae}, tmp_path / "mae.pth")
    with pytest.raises(CheckpointError, match="seems to be a masked autoencoder of images"):
        CAVMAE.from_checkpoint(tmp_path / "mae.pth")
