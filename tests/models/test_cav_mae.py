"""CAV-MAE against a slow model written out here: explicit softmax, loops over heads and samples, sorted lists."""

import hashlib
import json
import math
import os
import random
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

from avlib.errors import ParameterError
from avlib.models.cav_mae import CAVMAE, CLASSIFIER_MODES, OBJECTIVES, CAVMAEClassifier

TINY = {
    "audio_length": 192,
    "image_size": 64,
    "image_patch": 8,
    "width": 128,
    "heads": 4,
    "modality_depth": 2,
    "decoder_width": 64,
    "decoder_heads": 4,
    "decoder_depth": 1,
}
BATCH = 3


def perturbed(model):
    """Norms and biases away from 1 and 0, where leaving one out, or taking another, would not show."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return perturbed(CAVMAE(**TINY))


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(1)
    return perturbed(CAVMAEClassifier(5, **TINY))


@pytest.fixture(scope="module")
def clips():
    torch.manual_seed(2)
    return torch.randn(BATCH, 192, 128), torch.randn(BATCH, 3, 64, 64)


@pytest.fixture(scope="module")
def noise():
    torch.manual_seed(3)
    return {"noise_audio": torch.rand(BATCH, 96), "noise_image": torch.rand(BATCH, 64)}


# The slow model. `w` is a state dict, `x` the tokens of one sample, `m` one of "", "_a", "_v".


def slow_norm(w, name, x, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def slow_linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def slow_block(w, name, x, heads, m=""):
    y = slow_linear(w, f"{name}.attn.qkv", slow_norm(w, f"{name}.norm1{m}", x))
    query, key, value = y.chunk(3, dim=-1)
    size = query.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        mixed.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ value[:, part])
    x = x + slow_linear(w, f"{name}.attn.proj", torch.cat(mixed, dim=-1))
    y = slow_linear(w, f"{name}.mlp.fc1", slow_norm(w, f"{name}.norm2{m}", x))
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    return x + slow_linear(w, f"{name}.mlp.fc2", y)


def slow_patches(picture, patch):
    """Patches row by row; in each, values by row, column and channel."""
    channels, height, width = picture.shape
    return torch.stack(
        [
            torch.stack(
                [picture[c, top + i, left + j] for i in range(patch) for j in range(patch) for c in range(channels)]
            )
            for top in range(0, height, patch)
            for left in range(0, width, patch)
        ]
    )


def slow_embed(w, m, picture, patch):
    kernel = w[f"patch_embed_{m}.proj.weight"].permute(0, 2, 3, 1).flatten(1)
    tokens = slow_patches(picture, patch) @ kernel.T + w[f"patch_embed_{m}.proj.bias"]
    return tokens + w[f"pos_embed_{m}"][0] + w[f"modality_{m}"][0]


def slow_specific(w, m, x):
    for index in range(TINY["modality_depth"]):
        x = slow_block(w, f"blocks_{m}.{index}", x, TINY["heads"])
    return x


def slow_shared(w, x, m=""):
    return slow_norm(w, f"norm{m}", slow_block(w, "blocks_u.0", x, TINY["heads"], m))


def slow_pictures(audio, image):
    return {"a": audio.T[None], "v": image}


PATCH = {"a": 16, "v": 8}


def slow_step(model, audio, image, noise, ratio):
    """Losses and predictions of the published step, one sample at a time."""
    w = model.state_dict()
    errors, pooled, predictions, masks = {"a": [], "v": []}, {"a": [], "v": []}, {"a": [], "v": []}, {"a": [], "v": []}
    for index in range(len(audio)):
        visible, order = {}, {}
        for m, picture in slow_pictures(audio[index], image[index]).items():
            values = noise[m][index].tolist()
            order[m] = sorted(range(len(values)), key=values.__getitem__)[: int(len(values) * (1 - ratio))]
            masks[m].append(torch.tensor([0.0 if i in order[m] else 1.0 for i in range(len(values))]))
            visible[m] = slow_specific(w, m, slow_embed(w, m, picture, PATCH[m])[order[m]])
            pooled[m].append(slow_shared(w, visible[m], f"_{m}").mean(0))
        x = slow_linear(w, "decoder_embed", slow_shared(w, torch.cat([visible["a"], visible["v"]])))
        placed = []
        for m, tokens in (("a", x[: len(order["a"])]), ("v", x[len(order["a"]) :])):
            full = w["mask_token"][0].repeat(noise[m].shape[1], 1)
            full[order[m]] = tokens
            placed.append(full + w[f"decoder_pos_embed_{m}"][0] + w[f"decoder_modality_{m}"][0])
        x = slow_block(w, "decoder_blocks.0", torch.cat(placed), TINY["decoder_heads"])
        x = slow_norm(w, "decoder_norm", x)
        for m, tokens in (("a", x[:96]), ("v", x[96:])):
            predictions[m].append(slow_linear(w, f"decoder_pred_{m}", tokens))
            target = slow_patches(slow_pictures(audio[index], image[index])[m], PATCH[m])
            if model.norm_pix_loss:
                n = target.shape[1]
                mean = target.sum(1, keepdim=True) / n
                target = (target - mean) / ((target - mean).square().sum(1, keepdim=True) / (n - 1) + 1e-6).sqrt()
            gone = masks[m][index].bool()
            errors[m].append((predictions[m][index] - target)[gone].square().mean())
    sounds, pictures = (torch.stack([v / v.norm() for v in pooled[m]]) for m in "av")
    scores = (sounds @ pictures.T / 0.05).double()
    contrast = -sum(math.log(scores[j, j].exp() / scores[:, j].exp().sum()) for j in range(len(audio))) / len(audio)
    right = sum(int(scores[:, j].argmax()) == j for j in range(len(audio))) / len(audio)
    return {
        "mae_audio": torch.stack(errors["a"]).mean(),
        "mae_image": torch.stack(errors["v"]).mean(),
        "contrast": torch.tensor(contrast),
        "contrast_accuracy": torch.tensor(right),
        "mask_audio": torch.stack(masks["a"]),
        "mask_image": torch.stack(masks["v"]),
        "prediction_audio": torch.stack(predictions["a"]),
        "prediction_image": torch.stack(predictions["v"]),
    }


def close(found, expected):
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-4, atol=1e-5)


# Sizes and names


def fingerprint(shapes):
    """A hash of names and shapes, which says the same as a list of 647 lines."""
    lines = sorted(f"{name} {list(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


PUBLISHED = [
    (CAVMAE, {}, 191_036_160, 190_129_920, 647, "114cb27cc460b4e1"),
    (CAVMAEClassifier, {"num_classes": 527}, 164_907_023, 164_907_023, 478, "d5047db4d9408860"),
    (CAVMAEClassifier, {"num_classes": 527, "audio_only": True}, 86_129_423, 86_129_423, 252, "4099415d0bd0e045"),
]


@pytest.mark.parametrize(("build", "settings", "total", "trained", "count", "digest"), PUBLISHED)
def test_published_parameters(build, settings, total, trained, count, digest):
    with torch.device("meta"):
        model = build(**settings)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    assert (sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)) == (total, trained)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert (len(shapes), fingerprint(shapes)) == (count, digest)


@pytest.mark.parametrize(("build", "kind"), [(CAVMAE, "pretrain"), (CAVMAEClassifier, "finetune")])
def test_published_key_lists(build, kind):
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "cav_mae_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    with torch.device("meta"):
        state = build().state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == json.loads(path.read_text())[kind]


def test_tiny_model_has_the_size_of_the_trials():
    with torch.device("meta"):
        model = CAVMAE(**TINY)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == 1_143_296


# The parts, against the slow model


def test_positions_tell_the_column_first(model):
    for name, width, (rows, columns) in [("pos_embed_a", 128, (8, 12)), ("decoder_pos_embed_v", 64, (8, 8))]:
        table = getattr(CAVMAE(**TINY), name)[0]
        quarter = width // 4
        for row, column in [(0, 0), (1, 0), (0, 1), (rows - 1, columns - 2)]:
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (k / quarter) for k in range(quarter)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            close(table[row * columns + column], torch.tensor(expected))


def test_fbank_tokens_run_along_time_and_low_frequencies_come_first():
    model = CAVMAE(**TINY)
    audio = torch.zeros(1, 192, 128)
    changed = audio.clone()
    changed[0, 5 * 16 + 3, 2 * 16 + 7] = 1.0  # in column 5 of time and row 2 of mel
    tokens, other = (model.embed("a", model.pictures(x, None)["a"]) for x in (audio, changed))
    assert (tokens != other).any(-1)[0].nonzero().tolist() == [[2 * 12 + 5]]


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_step_equals_the_slow_model(model, clips, noise, norm_pix_loss, monkeypatch):
    monkeypatch.setattr(model, "norm_pix_loss", norm_pix_loss)
    with torch.no_grad():
        found = model(*clips, mask_ratio_audio=0.7, mask_ratio_image=0.7, **noise)
        expected = slow_step(model, *clips, {"a": noise["noise_audio"], "v": noise["noise_image"]}, 0.7)
    for name, value in expected.items():
        close(getattr(found, name), value)
    close(found.loss, expected["mae_audio"] + expected["mae_image"] + 0.01 * expected["contrast"])


def test_loss_is_the_weighted_sum_and_its_parts_are_not_weighted(model, clips, noise):
    found = model(*clips, mae_weight=3, contrast_weight=0.5, **noise)
    close(found.loss, 3 * (found.mae_audio + found.mae_image) + 0.5 * found.contrast)
    close(found.contrast, model(*clips, **noise).contrast)


def test_contrast_has_pictures_pick_sounds_and_optionally_the_reverse(model, clips, noise, monkeypatch):
    one = model(*clips, **noise).contrast
    monkeypatch.setattr(model, "both_directions", True)
    both = model(*clips, **noise).contrast
    visible = [model.shared(m, tokens).mean(1) for m, tokens in streams(model, clips, noise).items()]
    scores = F.normalize(visible[0], dim=-1) @ F.normalize(visible[1], dim=-1).T / 0.05
    ways = [-scores.log_softmax(dim).diag().mean() for dim in (0, 1)]
    assert abs(ways[0] - ways[1]) > 1e-3
    close(one, ways[0])
    close(both, sum(ways) / 2)


def streams(model, clips, noise):
    masks = model._masks(model.pictures(*clips), 0.75, 0.75, "unstructured", *noise.values())
    return model._visible(model.pictures(*clips), masks)


def test_encode_equals_the_slow_model(model, clips):
    w = model.state_dict()
    tokens = model.encode(*clips)
    for index in range(BATCH):
        for (m, picture), found in zip(slow_pictures(*(x[index] for x in clips)).items(), tokens, strict=True):
            close(found[index], slow_shared(w, slow_specific(w, m, slow_embed(w, m, picture, PATCH[m])), f"_{m}"))
    alone, nothing = model.encode(clips[0])
    assert nothing is None and torch.equal(alone, tokens[0])


def test_inpaint_pastes_predictions_where_patches_are_removed(model, clips, noise):
    step, filled = model(*clips, **noise), model.inpaint(*clips, **noise)
    assert torch.equal(step.mask_audio, filled.mask_audio) and torch.equal(step.mask_image, filled.mask_image)
    for index in range(BATCH):
        before, after = (slow_pictures(audio[index], image[index]) for audio, image in (clips, filled[:2]))
        for m, removed, predicted in (
            ("a", step.mask_audio, step.prediction_audio),
            ("v", step.mask_image, step.prediction_image),
        ):
            expected = slow_patches(before[m], PATCH[m])
            gone = removed[index].bool()
            expected[gone] = predicted[index][gone].detach()
            close(slow_patches(after[m], PATCH[m]), expected)


def test_inpaint_can_see_all_of_one_modality(model, clips):
    filled = model.inpaint(*clips, mask_ratio_audio=0)
    assert torch.equal(filled.audio, clips[0]) and not filled.mask_audio.any()
    assert filled.mask_image.sum(1).tolist() == [48.0] * BATCH


def test_inpaint_refuses_predictions_of_normalised_patches(clips):
    with pytest.raises(ParameterError, match="norm_pix_loss"):
        CAVMAE(norm_pix_loss=True, **TINY).inpaint(*clips)


@pytest.mark.parametrize("mode", CLASSIFIER_MODES)
def test_classifier_modes_equal_the_slow_model(classifier, clips, mode):
    w = classifier.state_dict()
    found = classifier(*clips, mode=mode)
    assert found.shape == (BATCH, 5)
    for index in range(BATCH):
        tokens = {
            m: slow_specific(w, m, slow_embed(w, m, picture, PATCH[m]))
            for m, picture in slow_pictures(*(x[index] for x in clips)).items()
        }
        joint = {m: slow_shared(w, tokens[m]).mean(0) for m in "av"}
        single = {m: slow_shared(w, tokens[m], f"_{m}").mean(0) for m in "av"}
        pooled = {
            "multimodal": slow_shared(w, torch.cat([tokens["a"], tokens["v"]])).mean(0),
            "audioonly": single["a"],
            "videoonly": single["v"],
            "missingaudioonly": (joint["a"] + single["a"]) / 2,
            "missingvideoonly": (joint["v"] + single["v"]) / 2,
        }[mode]
        close(found[index], slow_linear(w, "mlp_head.1", slow_norm(w, "mlp_head.0", pooled)))


def test_classifier_modes_look_only_at_what_they_name(classifier, clips):
    audio, image = clips
    assert torch.equal(classifier(audio, mode="missingaudioonly"), classifier(*clips, mode="missingaudioonly"))
    assert torch.equal(classifier(image=image, mode="videoonly"), classifier(*clips, mode="videoonly"))


def test_audio_classifier_is_the_audio_half(classifier, clips):
    half = CAVMAEClassifier(5, audio_only=True, **TINY)
    half.load_state_dict({name: classifier.state_dict()[name] for name in half.state_dict()})
    assert torch.equal(half(clips[0]), classifier(*clips, mode="audioonly"))
    assert torch.equal(half.encode(clips[0])[0], classifier.encode(*clips)[0])
    with pytest.raises(ParameterError, match="mode: 'multimodal'"):
        half(*clips, mode="multimodal")


# Masks in the model


def test_a_seed_draws_audio_first_then_images(model, clips):
    torch.manual_seed(5)
    drawn = model(*clips)
    torch.manual_seed(5)
    given = model(*clips, noise_audio=torch.rand(BATCH, 96), noise_image=torch.rand(BATCH, 64))
    assert all(torch.equal(one, other) for one, other in zip(drawn, given, strict=True))


def test_structured_modes_are_for_audio_alone(model, clips):
    random.seed(0)
    out = model(*clips, mask_mode="time")
    whole = out.mask_audio.view(BATCH, 8, 12).mean(1)
    assert set(whole.flatten().tolist()) == {0.0, 1.0} and whole.sum(1).tolist() == [9.0] * BATCH
    assert not set(out.mask_image.view(BATCH, 8, 8).mean(1).flatten().tolist()) <= {0.0, 1.0}


# Objectives


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives(model, clips, noise, name):
    out = model(**{"audio": clips[0], "image": clips[1], **noise, **OBJECTIVES[name]})
    reconstructs = {"CAV": "", "MAE (audio)": "a", "MAE (image)": "v", "AV-MAE": "av", "CAV-MAE": "av"}[name]
    assert (bool(out.mae_audio), bool(out.mae_image)) == ("a" in reconstructs, "v" in reconstructs)
    assert (out.prediction_audio is not None, out.prediction_image is not None) == (
        bool(out.mae_audio),
        bool(out.mae_image),
    )
    assert bool(out.contrast) == ("CAV" in name)
    model.zero_grad()
    out.loss.backward()
    touched = {key.split(".")[0] for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert ("decoder_embed" in touched) == bool(reconstructs)
    assert ("blocks_a" in touched, "blocks_v" in touched) == (name != "MAE (image)", name != "MAE (audio)")
    model.zero_grad()


def test_an_objective_without_reconstruction_may_hide_nothing(model, clips):
    out = model(*clips, 0, 0, mae_weight=0, contrast_weight=1)
    pooled = [tokens.mean(1) for tokens in model.encode(*clips)]
    scores = F.normalize(pooled[0], dim=-1) @ F.normalize(pooled[1], dim=-1).T / 0.05
    close(out.loss, -scores.log_softmax(0).diag().mean())


# What the published code gets wrong, or leaves out


def test_every_shared_block_takes_part(clips):
    """Published, each shared block gets the same input and the last alone counts: reference section 3."""
    model = CAVMAE(**{**TINY, "shared_depth": 2})
    model(*clips, mae_weight=0).loss.backward()
    assert model.blocks_u[0].norm1_a.weight.grad.any() and model.blocks_u[1].norm1_a.weight.grad.any()
    tokens = torch.randn(1, 4, 128)
    expected = model.norm_v(model.blocks_u[1](model.blocks_u[0](tokens, "v"), "v"))
    assert torch.equal(model.shared("v", tokens), expected)


def test_parameters_without_a_gradient_are_the_known_ones():
    """Norms of other modalities in blocks of one: 167,936 parameters in the published size."""
    model = CAVMAE(**TINY)
    model(torch.randn(2, 192, 128), torch.randn(2, 3, 64, 64)).loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert len(idle) == 8 * (2 + 2 + 1)
    assert all(name.split(".")[-2] in ("norm1_a", "norm1_v", "norm2_a", "norm2_v") for name in idle)
    assert not any(name.startswith("blocks_u") for name in idle)
    with torch.device("meta"):
        state = CAVMAE().state_dict()
    dead = [name for name in state if not name.startswith("blocks_u") and ("1_" in name or "2_" in name)]
    assert sum(state[name].numel() for name in dead if "norm" in name.split(".")[-2]) == 167_936


@pytest.mark.parametrize("positions", ["interpolate", "cut"])
def test_five_seconds(positions):
    """Published, an fbank of another length than 1,024 breaks (issues 8 and 27 of the published code)."""
    torch.manual_seed(0)
    model = CAVMAE(**{**TINY, "audio_length": 1024, "modality_depth": 1}, positions=positions)
    out = model(torch.randn(2, 512, 128), torch.randn(2, 3, 64, 64), mask_mode="tf")
    assert out.mask_audio.shape == (2, 256) and out.prediction_audio.shape == (2, 256, 256)
    assert model.encode(torch.randn(2, 512, 128))[0].shape == (2, 256, 128)
    classes = CAVMAEClassifier(3, **{**TINY, "audio_length": 1024, "modality_depth": 1}, positions=positions)
    assert classes(torch.randn(2, 512, 128), mode="audioonly").shape == (2, 3)


def test_cut_positions_are_those_of_a_shorter_model():
    long, short = CAVMAE(**{**TINY, "audio_length": 384}, positions="cut"), CAVMAE(**TINY)
    assert torch.equal(long.place(long.pos_embed_a, "a", (8, 12)), short.pos_embed_a)
    assert torch.equal(long.place(long.decoder_pos_embed_a, "a", (8, 12)), short.decoder_pos_embed_a)
    with pytest.raises(ParameterError, match=r"8 x 25.*8 x 24"):
        long.place(long.pos_embed_a, "a", (8, 25))


def test_interpolated_positions_span_the_whole_grid():
    model = CAVMAE(**{**TINY, "audio_length": 384})
    table = model.pos_embed_a.reshape(8, 24, 128)
    halved = model.place(model.pos_embed_a, "a", (8, 12)).reshape(8, 12, 128)
    smooth = slice(32 - 8, 32)  # the slowest sines of the column
    between = (table[:, 0::2, smooth] + table[:, 1::2, smooth]) / 2
    torch.testing.assert_close(halved[:, 2:-2, smooth], between[:, 2:-2], rtol=0, atol=2e-3)


def test_larger_images_than_built_for(model, clips):
    assert model.encode(image=torch.randn(1, 3, 96, 80))[1].shape == (1, 120, 128)


def test_positions_are_trained_only_when_asked():
    fixed, trained = CAVMAE(**TINY), CAVMAE(tr_pos=True, **TINY)
    for name in ("pos_embed_a", "pos_embed_v", "decoder_pos_embed_a", "decoder_pos_embed_v"):
        assert not getattr(fixed, name).requires_grad and getattr(trained, name).requires_grad
    assert CAVMAEClassifier(2, **TINY).pos_embed_a.requires_grad


def test_initial_weights():
    torch.manual_seed(0)
    model = CAVMAE(**TINY)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all()
        elif name.endswith("proj.weight") and "patch" in name:
            bound = math.sqrt(6 / (parameter.shape[0] + parameter[0].numel()))
            assert 0.95 * bound < parameter.abs().max() <= bound
        elif parameter.ndim == 2:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.95 * bound < parameter.abs().max() <= bound
        elif "modality" in name or name == "mask_token":
            assert 0.01 < parameter.std() < 0.03
        elif name.endswith("bias") and "patch" not in name:
            assert not parameter.any()


# Number formats


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats(clips, noise, dtype):
    torch.manual_seed(0)
    model = CAVMAE(**TINY)
    expected = model(*clips, **noise)
    found = model.to(dtype)(*(x.to(dtype) for x in clips), **noise)
    assert found.prediction_audio.dtype == dtype and found.contrast.dtype in (torch.float32, torch.float64)
    assert torch.isclose(found.loss.float(), expected.loss, rtol=1e-5 if dtype == torch.float64 else 2e-2)


def test_autocast(clips, noise):
    torch.manual_seed(0)
    model = CAVMAE(**TINY)
    expected = model(*clips, **noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(*clips, **noise)
    assert found.loss.dtype == torch.float32 and torch.isclose(found.loss, expected.loss, rtol=1e-2)
    found.loss.backward()


# What cannot be


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask_ratio_audio": 1}, "1.*less than 1"),
        ({"mask_ratio_image": 1.0}, "less than 1"),
        ({"mask_ratio_audio": -0.1}, "-0.1"),
        ({"mask_ratio_audio": float("nan")}, "nan"),
        ({"mask_ratio_image": 0.99}, "keeps none of 64 patches"),
        ({"mask_ratio_audio": 0}, "mask_ratio_audio: nothing is removed"),
        ({"mask_ratio_image": 0}, "mask_ratio_image: nothing is removed"),
        ({"mask_mode": "diagonal"}, "'unstructured', 'time', 'freq', 'tf'"),
        ({"image": None}, "contrast_weight.*one modality"),
        ({"audio": None, "image": None, "contrast_weight": 0}, "neither is given"),
        ({"audio": torch.zeros(BATCH, 200, 128)}, r"audio: 128 x 200.*128 x 192.*128 x 208"),
        ({"image": torch.zeros(BATCH, 3, 64, 60)}, r"image: 64 x 60.*64 x 56.*64 x 64"),
        ({"noise_audio": torch.rand(BATCH, 95)}, r"noise: shape \(3, 95\).*\(3, 96\)"),
    ],
)
def test_refused_steps(model, clips, change, words):
    with pytest.raises(ParameterError, match=words):
        model(**{"audio": clips[0], "image": clips[1], **change})


def test_contrast_of_a_single_clip_is_refused(model, clips):
    one = [x[:1] for x in clips]
    with pytest.raises(ParameterError, match=r"single clip.*contrast_weight=0"):
        model(*one)
    assert model(*one, contrast_weight=0).loss > 0


@pytest.mark.parametrize("mode", ["both", "", "Multimodal"])
def test_other_modes_are_refused(classifier, clips, mode):
    with pytest.raises(ParameterError, match="multimodal, audioonly, videoonly"):
        classifier(*clips, mode=mode)


def test_a_mode_without_its_input_is_refused(classifier, clips):
    with pytest.raises(ParameterError, match=r"image: not given.*multimodal"):
        classifier(clips[0])


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"image_size": 225}, r"image_size: 225 x 225.*224 x 224.*240 x 240"),
        ({"audio_length": 1000}, "128 x 1000.*128 x 992.*128 x 1008"),
        ({"width": 770}, "770 with 12 heads"),
        ({"modality_depth": 0}, "modality_depth: 0"),
    ],
)
def test_sizes_that_do_not_go_together(sizes, words):
    with pytest.raises(ParameterError, match=words):
        CAVMAE(**sizes)


def test_an_unknown_way_to_fit_positions_is_refused():
    with pytest.raises(ParameterError, match="'interpolate', 'cut'"):
        CAVMAE(positions="stretch", **TINY)
