"""CAV-MAE's row: its settings, steps, held-out clips, figures, and training that is done once."""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from making import mae_weights
from safetensors.torch import load_file
from small_rows import CAV_MAE as SMALL
from torch.nn import functional as F

from avlib import clips, training
from avlib.__main__ import main
from avlib.errors import MediaError, ParameterError
from avlib.models.cav_mae import OBJECTIVES, CAVMAEClassifier
from avlib.models.patches import patchify
from avlib.systems import cav_mae
from avlib.systems.cav_mae.stages import items_of
from avlib.workbook import sweep

# A few steps of a smaller model, on few clips.
small = cav_mae.changed(cav_mae.tiny, SMALL)


@pytest.fixture(scope="module")
def model():
    return cav_mae.build(small)


@pytest.fixture(scope="module")
def batch():
    dataset = cav_mae.data(small, progress=False)
    return dataset.collate([dataset[index] for index in range(8)])


@pytest.fixture(scope="module")
def searched():
    return cav_mae.galleries(small, progress=False)


# Settings


def test_full_holds_the_published_numbers():
    first, second = cav_mae.full.pretraining, cav_mae.full.fine_tuning
    assert (first.mae_weight, first.contrast_weight, first.mask_ratio_audio, first.mask_ratio_image) == (
        1,
        0.01,
        0.75,
        0.75,
    )
    assert first.norm_pix_loss and not first.both_directions and first.mask_mode == "unstructured"
    assert first.training.rate(0, epoch=9) == 1 and first.training.rate(0, epoch=10) == 0.5
    assert first.training.rate(0, epoch=24) == 0.5**3 and first.training.betas == (0.95, 0.999)
    assert second.training.rate(0, epoch=5) == 0.5 and second.training.group_rates == {"mlp_head": 100}
    assert len(second.training.keep) == 13  # epochs 3 to 15
    assert second.augmentation.mixup == 0.5 and second.loss == "bce"


def test_full_builds_without_memory():
    with torch.device("meta"):
        pretraining = cav_mae.build(cav_mae.full)
        tuned = CAVMAEClassifier(527)
    assert sum(parameter.numel() for parameter in pretraining.parameters()) == 191_036_160
    assert sum(parameter.numel() for parameter in tuned.parameters()) == 164_907_023


def test_tiny_is_tiny():
    assert 2.8e5 < sum(parameter.numel() for parameter in cav_mae.build(cav_mae.tiny).parameters()) < 2.9e5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("objective", "CAVMAE"),
        ("mask_mode", "all"),
        ("loss", "mse"),
        ("mode", "both"),
        ("stage", "3"),
        ("clips_seed", 1000),
    ],
)
def test_other_choices_are_refused(name, value):
    with pytest.raises(ParameterError, match=name):
        cav_mae.changed(cav_mae.tiny, {name: value})


def test_a_seed_decides_the_weights_and_leaves_the_callers_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (cav_mae.build(cav_mae.changed(small, {"seed": seed})) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.blocks_u[0].attn.qkv.weight, same.blocks_u[0].attn.qkv.weight)
    assert not torch.equal(one.blocks_u[0].attn.qkv.weight, other.blocks_u[0].attn.qkv.weight)


# Steps


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_step_is_the_models_loss(model, batch, objective):
    settings = cav_mae.changed(small, {"objective": objective, "contrast_weight": 0.3, "mae_weight": 2})
    torch.manual_seed(1)
    loss, parts = cav_mae.step(model, batch, settings)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    asked = OBJECTIVES[objective]
    weights = {"mae_weight": 2 if asked["mae_weight"] else 0, "contrast_weight": 0.3 if asked["contrast_weight"] else 0}
    torch.manual_seed(1)
    noise = [torch.rand(8, 96), torch.rand(8, 64)]
    out = model(
        asked.get("audio", batch.fbank), asked.get("image", batch.image), 0.5, 0.5, **weights,
        noise_audio=noise[0], noise_image=noise[1],
    )  # fmt: skip
    out.loss.backward()
    assert torch.equal(loss, out.loss) and all(torch.equal(parts[name], getattr(out, name)) for name in parts)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    model.zero_grad()
    there = {"mae_audio", "mae_image"} if asked["mae_weight"] else set()
    there -= {f"mae_{name}" for name in asked if name in ("audio", "image")}
    assert parts.keys() == there | ({"contrast", "contrast_accuracy"} if asked["contrast_weight"] else set())


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_the_fine_tuning_step_is_the_published_loss(batch, loss):
    settings = cav_mae.changed(small, {"loss": loss})
    torch.manual_seed(0)
    model = CAVMAEClassifier(8, **vars(small.sizes)).eval()
    given, parts = cav_mae.fine_tuning_step(model, batch, settings)
    logits = model(batch.fbank, batch.image)
    if loss == "ce":
        expected = -(batch.labels * logits.log_softmax(dim=1)).sum(dim=1).mean()
    else:
        p = logits.double().sigmoid()
        expected = -(batch.labels * p.log() + (1 - batch.labels) * (1 - p).log()).mean()
    assert torch.allclose(given.double(), expected.double(), rtol=1e-5)
    assert float(parts["right"]) == float((logits.argmax(1) == batch.labels.argmax(1)).float().mean())


# Clips that no training sees


def test_galleries_are_balanced_and_were_not_trained_on(searched):
    settings = cav_mae.changed(cav_mae.tiny, {"clips": 999_999, "held_out": 320})
    held_out = [item.scene.seed for seed in (0, 1) for item in items_of(settings, seed)[0]]
    assert len(set(held_out)) == 640 and min(held_out) >= 1_000_000_000
    trained_on = items_of(replace(settings, data=replace(settings.data, clips=4096, clips_seed=999)), None)[0]
    assert max(item.scene.seed for item in trained_on) < min(held_out)
    assert [len(batch.fbank) for batch in searched] == [64]
    assert all((batch.labels.sum(dim=0) == 8).all() for batch in searched)
    again = cav_mae.galleries(small, progress=False)  # nothing about them is random
    assert torch.equal(again[0].fbank, searched[0].fbank) and torch.equal(again[0].image, searched[0].image)
    assert not torch.equal(cav_mae.galleries(small, 1, progress=False)[0].fbank, searched[0].fbank)


def test_clips_from_the_cache_are_those_that_were_prepared():
    dataset = cav_mae.data(small, progress=False)
    fresh = cav_mae.data(cav_mae.changed(small, {"in_memory": False}), progress=False)
    for index in (0, 9):
        for cached, expected in zip(dataset[index], fresh[index], strict=True):
            assert torch.equal(cached, expected)


# Figures


class Perfect(torch.nn.Module):
    """Gives each sound and its picture the same vector, different from all others."""

    def __init__(self):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def encode(self, audio, image):
        return torch.eye(len(audio))[:, None], torch.eye(len(image))[:, None]


def test_retrieval_of_a_perfect_and_of_a_blind_model(searched):
    figures = cav_mae.retrieval(Perfect(), searched)
    assert figures["R@1 audio -> image"].value == figures["R@1 image -> audio"].value == 1
    assert figures["R@1 audio -> image"].reference == 0.125 and figures["kind right"].value == 1
    assert figures["kind right"].reference == 0.125 and 0.9 < figures["kind right"].low < 1
    blind = Perfect()
    blind.encode = lambda audio, image: (torch.ones(len(audio), 1, 2), torch.ones(len(image), 1, 2))
    assert cav_mae.retrieval(blind, searched)["R@1 audio -> image"].value == pytest.approx(1 / 64)


def test_retrieval_without_labels_is_compared_with_chance(searched):
    unlabelled = [batch._replace(labels=batch.labels[:, :0]) for batch in searched]
    figures = cav_mae.retrieval(Perfect(), unlabelled)
    assert figures["R@1 audio -> image"].value == 1 and "kind right" not in figures
    assert figures["R@1 audio -> image"][1:3] == (pytest.approx(1 / 64), "chance")


def test_a_ratio_of_0_is_not_taken_for_none(searched, model):
    with pytest.raises(ParameterError, match="mask_ratio_audio: nothing is removed"):
        cav_mae.reconstruction(model, searched, small, mask_ratio=0.0, progress=False)


def test_reconstruction_hides_as_it_is_told(searched, model):
    hidden = []

    def note(module, arguments, named, output):
        hidden.append(output.mask_audio.reshape(-1, 8, 12))

    handle = model.register_forward_hook(note, with_kwargs=True)
    for mode in (None, "time"):
        cav_mae.reconstruction(model, searched, small, mask_ratio=0.5, mask_mode=mode, progress=False)
    cav_mae.reconstruction(model, searched, cav_mae.changed(small, {"mask_mode": "time"}), progress=False)
    handle.remove()
    plain, asked, trained = (mask.all(dim=1).sum(dim=1) for mask in hidden)
    assert plain.max() < 6 and (asked == 6).all() and (trained == 6).all()


def test_classification_with_and_without_the_ensemble(tmp_path):
    settings = cav_mae.changed(small, {"stage": "fine_tuning"})
    cav_mae.build(settings).save(tmp_path / "pretrained")
    judge = cav_mae.classifier(settings, tmp_path / "pretrained", 8)
    whole = cav_mae.classification(judge, settings, progress=False)
    one = cav_mae.classification(judge, settings, ensemble=False, progress=False)
    assert list(one) == ["right class, one frame", "mAP, one frame"]
    assert all(whole[name] == figure for name, figure in one.items()) and "mAP, 2 frames" in whole


@pytest.mark.parametrize("own_mean", [True, False])
def test_reconstruction_errors_are_those_computed_patch_by_patch(searched, own_mean):
    settings = cav_mae.changed(small, {"norm_pix_loss": own_mean})
    model = cav_mae.build(settings).eval()
    batch = searched[0]._replace(image=searched[0].image.clone())
    batch.image[:, :, :8, :8] = 0.5  # the first patch of all is constant and must not count
    figures = cav_mae.reconstruction(model, [batch], settings, seed=3, mask_ratio=0.75, progress=False)

    dice = torch.Generator().manual_seed(3)
    noise = torch.rand(64, 96, generator=dice), torch.rand(64, 64, generator=dice)
    with torch.no_grad():
        out = model(batch.fbank, batch.image, contrast_weight=0, noise_audio=noise[0], noise_image=noise[1])
    fbank_mean, image_mean = cav_mae.means(settings, progress=False)
    cases = {
        "audio": (batch.fbank.transpose(1, 2)[:, None], 16, fbank_mean.T[None], out.prediction_audio, out.mask_audio),
        "image": (batch.image, 8, image_mean, out.prediction_image, out.mask_image),
    }
    for name, (picture, side, mean, predicted, removed) in cases.items():
        errors, simple = [], []
        for clip in range(64):
            patches, usual = patchify(picture[clip : clip + 1], side)[0], patchify(mean[None], side)[0]
            for index in removed[clip].nonzero().flatten().tolist():
                patch, guess = patches[index].double(), predicted[clip, index].double()
                if patch.var() < 1e-6:
                    continue
                scale = (patch.var() + 1e-6).sqrt() if own_mean else 1
                errors.append(((patch - patch.mean()) / scale - guess if own_mean else patch - guess).square().mean())
                simple.append(((patch - patch.mean()) / scale if own_mean else patch - usual[index]).square().mean())
        assert figures[f"{name} error"].value == pytest.approx(float(torch.stack(errors).mean()), rel=1e-4)
        assert figures[f"{name} error"].reference == pytest.approx(float(torch.stack(simple).mean()), rel=1e-4)
        assert len(errors) < removed.sum() or name == "audio"


def test_means_are_of_training_clips():
    fbank, image = cav_mae.means(small, progress=False)
    dataset = cav_mae.data(small, progress=False)
    expected = (dataset.memory["fbanks"].mean(dim=(0, 1)) - small.data.mean) / small.data.std
    assert torch.allclose(fbank, expected.expand(192, 128), atol=1e-4) and image.shape == (3, 64, 64)


# Training that is done once


def test_it_is_trained_once_and_then_read(monkeypatch):
    calls = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **kwargs: calls.append(1) or fit(*args, **kwargs))
    tuning = cav_mae.changed(small, {"stage": "fine_tuning"})
    first = cav_mae.trained(tuning, progress=False)  # pretrains on its way
    pretrained = cav_mae.trained(small, progress=False)
    again = cav_mae.trained(tuning, progress=False)
    assert len(calls) == 2 and first.folder == again.folder
    assert first.history.rows == again.history.rows and len(pretrained.history) == 3
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    assert not first.model.training
    figures = cav_mae.evaluate(first.model, tuning, progress=False)
    assert figures.keys() == {"right class, one frame", "mAP, one frame", "right class, 2 frames", "mAP, 2 frames"}

    frozen = cav_mae.trained(cav_mae.changed(tuning, {"frozen": True}), progress=False)
    begun = {
        name: p for name, p in pretrained.model.named_parameters() if name in dict(frozen.model.named_parameters())
    }
    assert all(torch.equal(p, dict(frozen.model.named_parameters())[name]) for name, p in begun.items())
    assert len(calls) == 3  # pretrained weights were there

    cav_mae.trained(cav_mae.changed(small, {"contrast_weight": 0.5}), progress=False)
    cav_mae.trained(cav_mae.changed(small, {"fine_tuning.steps": 9}), progress=False)  # says nothing about pretraining
    assert len(calls) == 4


def test_weights_are_averaged_over_the_steps_to_keep(tmp_path):
    settings = cav_mae.changed(small, {"keep": [2, 3]})
    averaged = cav_mae.trained(settings, progress=False).model.state_dict()
    model, step = cav_mae.build(settings), partial(cav_mae.step, settings=settings)
    dataset = cav_mae.data(settings, progress=False)
    training.fit(model, step, dataset, settings.pretraining.training, folder=tmp_path, progress=False)
    expected = training.average(training.saved(tmp_path))
    assert len(training.saved(tmp_path)) == 2
    assert all(torch.equal(averaged[name], tensor) for name, tensor in expected.items())
    assert not all(torch.equal(averaged[name], tensor) for name, tensor in model.state_dict().items())


def test_a_training_that_ends_before_the_steps_to_keep_has_its_last_weights(tmp_path):
    last = cav_mae.trained(small, progress=False).model.state_dict()
    early = cav_mae.trained(cav_mae.changed(small, {"keep": [7, 8]}), progress=False).model.state_dict()
    assert all(torch.equal(early[name], tensor) for name, tensor in last.items())


def test_the_users_clips_are_trained_on_and_a_changed_file_is_noticed(tmp_path):
    for clip in clips.render(clips.scenes(16, 7, 2.0), size=(64, 64), jobs=1, progress=False):
        (tmp_path / clip.scene.kind).mkdir(exist_ok=True)
        shutil.copy(clip.path, tmp_path / clip.scene.kind)
    settings = cav_mae.changed(small, {"data": str(tmp_path), "held_out": 8, "batch_size": 4})
    assert len(cav_mae.data(settings, progress=False)) == 8
    first = cav_mae.trained(settings, progress=False)
    figures = cav_mae.evaluate(first.model, settings, progress=False)
    assert figures["R@1 audio -> image"].reference == 1  # one of each kind: to know the kind is enough
    assert cav_mae.trained(settings, progress=False).folder == first.folder
    next(tmp_path.rglob("*.mp4")).touch()
    assert cav_mae.trained(settings, progress=False).folder != first.folder

    (tmp_path / "bell" / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaError, match="broken"):
        cav_mae.data(settings, progress=False)
    kept = cav_mae.data(cav_mae.changed(settings, {"on_error": "skip", "held_out": 0}), progress=False)
    assert len(kept) == 16 and "broken" in kept.report()


def test_settings_that_change_no_weights_train_nothing_anew():
    folder = cav_mae.trained(small, progress=False).folder
    free = {"in_memory": False, "held_out": 128, "frames": 3, "workers": 0, "fine_tuning.loss": "bce"}
    assert cav_mae.trained(cav_mae.changed(small, free), progress=False).folder == folder


# What the published training has


def test_it_begins_with_a_mae(tmp_path):
    sizes = {"width": 128, "decoder_width": 64, "image_patch": 16, "initialize": str(tmp_path / "mae.pth")}
    torch.save({"model": mae_weights(2)}, tmp_path / "mae.pth")
    settings = cav_mae.changed(small, sizes)
    first = cav_mae.build(settings).state_dict()["blocks_a.0.attn.qkv.weight"]
    assert torch.equal(first, mae_weights(2)["blocks.0.attn.qkv.weight"])
    begun = cav_mae.trained(settings, progress=False)
    (tmp_path / "mae.pth").touch()
    assert cav_mae.trained(settings, progress=False).folder != begun.folder, "another file"


def test_rare_classes_are_drawn_as_often(tmp_path):
    for clip in clips.render(clips.scenes(9, 7, 0.5), size=(64, 64), jobs=1, progress=False):
        kind = "common" if clip.scene.kind != "bell" else "rare"
        (tmp_path / kind).mkdir(exist_ok=True)
        shutil.copy(clip.path, tmp_path / kind)
    given = {"data": str(tmp_path), "held_out": 0, "stage": "fine_tuning", "balanced": True, "labelled": 0}
    settings = cav_mae.changed(small, given)
    dataset = cav_mae.data(settings, progress=False)
    sampler = cav_mae.stages["fine_tuning"].sampler(settings, dataset)
    rare = next(index for index, item in enumerate(dataset.items) if item.labels == ("rare",))
    drawn = [index for epoch in range(40) for index, _ in (sampler.set_epoch(epoch), list(sampler))[1]]
    assert drawn.count(rare) / len(drawn) == pytest.approx(0.5, abs=0.1)
    tuned = cav_mae.trained(settings, progress=False)
    plain = cav_mae.trained(cav_mae.changed(settings, {"balanced": False}), progress=False)
    assert tuned.history.rows != plain.history.rows


def test_the_audio_half_is_tuned_by_itself():
    settings = cav_mae.changed(small, {"stage": "fine_tuning", "mode": "audioonly"})
    model = cav_mae.trained(settings, progress=False).model
    assert model.audio_only and not [name for name, _ in model.named_parameters() if name.startswith("blocks_v")]
    assert "mAP, one frame" in cav_mae.classification(model, settings, ensemble=False, progress=False)


def test_the_command_extracts_what_the_next_one_trains_on(tmp_path, capsys):
    for clip in clips.render(clips.scenes(3, 7, 0.5), size=(64, 64), jobs=1, progress=False):
        shutil.copy(clip.path, tmp_path / f"{clip.scene.kind}_000001.mp4")
    kinds = [path.stem.split("_")[0] for path in sorted(tmp_path.glob("*.mp4"))]
    rows = [f"{kind},1,{kind} sound,{part}" for kind, part in zip(kinds, ("test", "train", "train"), strict=True)]
    (tmp_path / "vggsound.csv").write_text("\n".join([*rows, "gone,1,gone,test"]))
    given = ["cav_mae", str(tmp_path / "vggsound.csv"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    assert main(["extract", *given]) == 2 and "gone_000001.mp4: no such file" in capsys.readouterr().err
    assert main(["extract", *given, "--on-error", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 4 items left out" in printed
    words = printed.splitlines()[-1].split()
    assert words[:5] == ["avlib", "train", "cav_mae", "--data", str(tmp_path / "out" / "data.json")]
    assert float(words[-1].removeprefix("std=")) > 0
    settings = cav_mae.changed(small, {"data": words[4]} | dict(word.split("=") for word in words[6::2]))
    assert len(cav_mae.data(cav_mae.changed(settings, {"held_out": 1}), progress=False)) == 2
    table = cav_mae.changed(small, {"data": str(tmp_path / "vggsound.csv"), "on_error": "skip", "held_out": 2})
    made = {name: getattr(cav_mae, name)(table, progress=False).items for name in ("data", "held_out")}
    assert [item.split for item in made["data"]] == ["train", "train"]
    assert [item.split for item in made["held_out"]] == ["test"]


def command(*arguments, cache, cwd, processes=1, **options):
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    given = [word for name, value in SMALL.items() for word in ("-p", f"{name}={value}")]
    environment = os.environ | {"AVLIB_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *start, "-m", "avlib", "train", "cav_mae", *given, *arguments],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def test_the_command_trains_and_two_processes_give_what_one_gives(tmp_path):
    runs = {}
    for processes in (1, 2):
        out, err = finish(
            command("--out", f"out{processes}", cache=tmp_path / f"{processes}", cwd=tmp_path, processes=processes)
        )
        assert out.count("R@1 audio -> image") == 1, "one process prints"
        folder = tmp_path / f"out{processes}"
        assert {path.name for path in folder.iterdir()} >= {
            "model.safetensors",
            "config.json",
            "history.csv",
            "figures.json",
        }
        runs[processes] = load_file(folder / "model.safetensors"), (folder / "history.csv").read_text().splitlines()
        assert "Warning" not in err or processes == 2, err
    assert len(runs[1][1]) == len(runs[2][1]) == 4  # a header and three steps
    for name, tensor in runs[1][0].items():
        assert torch.allclose(tensor, runs[2][0][name], atol=2e-4), name
    assert F.mse_loss(*(runs[n][0]["blocks_u.0.attn.qkv.weight"] for n in (1, 2))) < 1e-9


def test_a_point_of_a_sweep_is_what_the_command_trains(tmp_path):
    """In a cache of its own, so that it is trained again."""
    finish(command("-p", "seed=3", "--out", "trained", cache=tmp_path / "one", cwd=tmp_path))
    parser = argparse.ArgumentParser()
    sweep.add_command(parser.add_subparsers())
    grid = [word for name, value in (SMALL | {"seed": "2:5"}).items() for word in ("-p", f"{name}={value}")]
    _, points = sweep._points(parser.parse_args(["sweep", "train", "cav_mae", *grid]))
    (point,) = [point for point in points.values() if point.values["seed"] == "3"]
    (tmp_path / "points").mkdir()
    variables = {"AVLIB_CACHE": str(tmp_path / "two"), "OMP_NUM_THREADS": "1"}
    limits = {"seconds": math.inf, "memory": math.inf}
    made = sweep.run(point, folder=tmp_path, variables=variables, place=tmp_path, **limits)
    assert made.state == "passed", made.message
    folders = tmp_path / "trained", tmp_path / "points" / point.key
    own, swept = (load_file(folder / "model.safetensors") for folder in folders)
    assert own.keys() == swept.keys() and all(torch.equal(own[name], swept[name]) for name in own)
    figures = json.loads((tmp_path / "trained/figures.json").read_text())
    assert made.figures == {name: figure["value"] for name, figure in figures.items()} and len(figures) > 5
    assert (tmp_path / "two/trained").is_dir()


def test_a_killed_training_goes_on_and_two_at_once_train_once(tmp_path):
    many = ("-p", "pretraining.steps=30", "-p", "save_every=1")
    killed = command(*many, cache=tmp_path / "a", cwd=tmp_path)
    until = time.monotonic() + 120
    while not list(Path(tmp_path).glob("a/trained/*/progress/step-*")) and time.monotonic() < until:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list(tmp_path.glob("a/trained/*/result"))
    both = [command(*many, cache=tmp_path / "a", cwd=tmp_path) for _ in range(2)]
    said = [finish(process)[1] for process in both]
    assert sum("training:" in err for err in said) == 1, "one trains, the other waits"
    finish(command(*many, cache=tmp_path / "b", cwd=tmp_path))
    weights = [load_file(next(tmp_path.glob(f"{name}/trained/*/result/model.safetensors"))) for name in "ab"]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "SYSTEM: 'nothing' is unknown; expected one of audiotoken, cav_mae"),
        (["cav_mae", "-p", "size=huge"], 'size: \'huge\'; expected "tiny" or "full"'),
        (["cav_mae", "-p", "stpes=3"], "Did you mean 'steps'"),
        (["cav_mae", "--settings", "none.yaml"], "no such file"),
        (["cav_mae", "--data", "none"], "none: no such file or folder"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message, capsys):
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_settings_file_is_read_and_single_settings_win(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("steps: 3\nfine_tuning: {steps: 2}\nlearning_rate: 1e-3\n")
    given = [word for name, value in SMALL.items() if name != "steps" for word in ("-p", f"{name}={value}")]
    assert main(["train", "cav_mae", "--settings", str(tmp_path / "mine.yaml"), "-p", "seed=4", *given]) == 0
    assert "cav_mae, tiny, pretraining: 3 steps" in capsys.readouterr().out
