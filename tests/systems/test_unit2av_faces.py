"""Training of the face: windows in time with their units, the weighted loss, the judge of lips, and the figures."""

import csv
import json

import numpy as np
import pytest
import torch

from avlib import training
from avlib.clips import heads
from avlib.datasets.unit2av.faces import Face, FaceDataset, faces_in, faces_of, network_input
from avlib.errors import DatasetError, ParameterError
from avlib.models.face_renderer import Config, FaceRenderer
from avlib.models.lip_sync import Config as SyncConfig
from avlib.models.lip_sync import LipSync, sync_loss
from avlib.settings import changed
from avlib.systems.unit2av import stages, tiny, trained
from avlib.systems.unit2av.faces import build_face, face_data, face_step, mouth_scores, sync_step

NARROW = {
    "encoder_widths": [2, 2, 2, 2, 2, 8], "decoder_widths": [8, 4, 4, 4, 4, 4], "feedforward": 8, "output_width": 4,
}  # fmt: skip
TALK = heads.Talk("key moon", speaker=3, head=4, seed=5, size=(64, 64))


def small(**values):
    names = {f"face.network.{name}": value for name, value in NARROW.items()}
    few = {"face.talks": 2, "face.heads": 2, "sync.network.width": 4, "sync.network.size": 16, "batch_size": 2}
    return changed(tiny, names | few | {"stage": "face"} | values)


def marked(count, units=50):
    """A video whose picture k is of the grey level k, with units 2 k and 2 k + 1 modulo K."""
    faces = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 96, 96)
    return Face(faces, torch.ones(count, dtype=torch.bool), torch.arange(2 * count) % units)


def test_network_sees_upper_half_and_reference():
    faces, references = torch.randint(256, (2, 3, 3, 96, 96), dtype=torch.uint8)
    seen = network_input(faces, references)
    assert seen.shape == (3, 6, 96, 96)
    assert seen[:, :3, 48:].count_nonzero() == 0
    assert torch.equal((seen[:, :3, :48] * 255).round(), faces[:, :, :48].float())
    assert torch.equal((seen[:, 3:] * 255).round(), references.float())


def test_windows_are_in_time_with_their_units():
    faces = marked(40, 100)
    faces.shown[13] = False
    assert faces.starts.tolist() == [0, 1, 2, 3, *range(14, 31)]
    dataset = FaceDataset([faces], per_video=30, seed=1)
    assert len(dataset) == 30
    firsts = set()
    for item in map(dataset.__getitem__, range(30)):
        shown = item.faces[:, 0, 0, 0].tolist()
        assert shown == list(range(shown[0], shown[0] + 10))
        assert 13 not in shown
        assert item.units.tolist() == list(range(2 * shown[0], 2 * shown[0] + 20))
        other = item.references[:, 0, 0, 0].unique().tolist()
        assert len(other) == 1
        assert abs(other[0] - shown[0]) >= 10
        assert item.elsewhere.tolist() == list(range(2 * other[0], 2 * other[0] + 20))
        firsts.add(shown[0])
    assert len(firsts) > 8
    again = FaceDataset([faces], per_video=30, seed=1)
    assert torch.equal(again[7].units, dataset[7].units)
    again.set_epoch(1)
    assert [again[k].units[0] for k in range(30)] != [dataset[k].units[0] for k in range(30)]
    same = FaceDataset([faces], "same")[0]
    assert torch.equal(same.references, same.faces)


@pytest.mark.parametrize("frames", [10, 3])
def test_step_is_weighted_l1_of_some_pictures(monkeypatch, frames):
    settings = small(**{"face.frames": frames, "face.mouth_weight": 7.0, "face.smooth": 0})
    model = build_face(settings, 50).eval()
    batch = FaceDataset.collate([FaceDataset([marked(30)], per_video=2, seed=3)[k] for k in range(2)])
    monkeypatch.setattr(training, "uniform", lambda *shape, **how: torch.tensor([0.0, 0.99]))
    loss, parts = face_step(model, batch, settings)
    whole = model(batch.units, network_input(batch.faces, batch.references).flatten(0, 1)).unflatten(0, (2, 10))
    off = (whole - batch.faces / 255).abs()
    off = torch.stack([off[0, :frames], off[1, 10 - frames :]])
    mouth = off[..., 54:90, 24:72]
    assert parts["mouth"].item() == pytest.approx(mouth.mean().item(), rel=1e-5)
    weighted = (off.sum() + 6 * mouth.sum()) / (2 * frames * 3 * (96 * 96 + 6 * 36 * 48))
    assert loss.item() == pytest.approx(weighted.item(), rel=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def spoken(seed=0):
    """A video whose mouth is as bright as its unit, which changes every ten pictures."""
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed)).repeat_interleave(10)
    faces = (80 * order).to(torch.uint8)[:, None, None, None].expand(-1, 3, 96, 96)
    return Face(faces, torch.ones(40, dtype=torch.bool), order.repeat_interleave(2))


def test_judge_of_lips_learns_and_teaches_the_renderer_alone():
    settings = small(**{"face.frames": 5, "face.sync_weight": 1.0, "face.mouth_weight": 1.0})
    sync = changed(settings, {"stage": "sync"})
    videos = FaceDataset([spoken(seed=k) for k in range(4)], per_video=8)
    judge = build_face(sync, 4)
    plan = training.Settings(steps=40, batch_size=8, learning_rate=1e-2, warmup=0)
    history = training.fit(judge, lambda m, b: sync_step(m, b, sync), videos, plan, device="cpu", progress=False)
    assert history.rows[0]["loss"] > 0.6
    assert np.mean([row["loss"] for row in history.rows[-10:]]) < 0.55
    assert np.mean([row["right"] for row in history.rows[-10:]]) > 0.8
    judge.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    model = build_face(settings, 4)
    plan = training.Settings(steps=40, batch_size=4, learning_rate=1e-2, warmup=0)
    step = lambda m, b: face_step(m, b, settings, judge)  # noqa: E731
    history = training.fit(model, step, videos, plan, device="cpu", progress=False)
    first, last = (np.mean([row["sync"] for row in rows]) for rows in (history.rows[:8], history.rows[-12:]))
    assert last < 0.8 * first
    assert all(parameter.grad is None for parameter in judge.parameters())
    assert all(torch.equal(before[name], value) for name, value in judge.state_dict().items())


def test_cosine_is_a_probability(tmp_path):
    judge = LipSync(SyncConfig(10, 4, 8)).eval()
    units, faces = torch.randint(10, (3, 10)), torch.rand(3, 5, 3, 96, 96)
    cosine = judge(units, faces)
    assert cosine.shape == (3,)
    assert (cosine >= 0).all() and (cosine <= 1 + 1e-6).all()
    upper = faces.clone()
    upper[..., :48, :] = 0
    assert torch.equal(judge(units, upper), cosine)  # it sees lower halves
    assert sync_loss(torch.tensor([0.5, 0.25]), 1.0).item() == pytest.approx((np.log(2) + np.log(4)) / 2, rel=1e-5)
    assert sync_loss(torch.tensor([0.25]), 0.0).item() == pytest.approx(-np.log(0.75), rel=1e-5)
    judge.save(tmp_path / "judge")
    assert torch.equal(LipSync.from_checkpoint(tmp_path / "judge")(units, faces), cosine)
    with pytest.raises(ParameterError, match="K = 10"):
        judge(units + 10, faces)


def extract(waveform, rate):
    return torch.arange(len(waveform) // 320) % 50


def test_users_videos_give_the_faces_of_the_talks(tmp_path):
    absent = heads.Talk("tea", speaker=1, head=2, seed=9, size=(64, 64), absent=1.0)
    table = heads.render([TALK, absent], 1, progress=False)
    folder = tmp_path / "videos"
    folder.mkdir()
    with table.open() as file:
        rows = list(csv.DictReader(file))
    for name, row in zip(("a", "b"), rows, strict=True):
        for own, suffix in (("path", ".mp4"), ("boxes", ".boxes.json")):
            (folder / f"{name}{suffix}").symlink_to(row[own])
    with pytest.raises(DatasetError, match="10 in a row"):
        faces_in(folder, extract)
    (face,), notes = faces_in(folder, extract, "skip")
    assert "1 of 2 items left out" in notes
    (true,) = faces_of((TALK,), extract)
    assert face.shown.all()
    assert torch.equal(face.units, true.units)
    assert (face.faces.float() - true.faces.float()).abs().mean() < 6  # the file is compressed
    (folder / "b.mp4").unlink()
    (folder / "list.csv").write_text(f"path,boxes\na.mp4,{rows[0]['boxes']}\n")
    (listed,), _ = faces_in(folder / "list.csv", extract)
    assert torch.equal(listed.faces, face.faces)
    boxes = json.loads((folder / "a.boxes.json").read_text())
    (folder / "few.json").write_text(json.dumps(boxes[:-1]))
    (folder / "list.csv").write_text("path,boxes\na.mp4,few.json\n")
    with pytest.raises(ParameterError, match="one for each picture"):
        faces_in(folder / "list.csv", extract)
    with pytest.raises(DatasetError, match="path"):
        (folder / "list.csv").write_text("video\na.mp4\n")
        faces_in(folder / "list.csv", extract)


class Copier(FaceRenderer):
    """A renderer that shows its reference."""

    def draw(self, lips, faces):
        return faces[:, 3:]


def test_copied_mouths_look_right_on_their_own_video_alone():
    said, videos = (heads.talks(2, speakers=2, heads=2, length=1, seed=seed) for seed in (1, 2))
    copier = Copier(Config(50, *map(tuple, list(NARROW.values())[:2]), 8, 4))
    own = mouth_scores(copier, extract, said)
    assert own.follows > 0.97
    assert own.follows == own.copies
    assert own.cheek < 0.01
    dubbed = mouth_scores(copier, None, said, videos)
    assert dubbed.copies > 0.97
    assert dubbed.follows < 0.6


def test_references_follow_from_settings_alone():
    settings = small()
    assert face_data(settings, extract, progress=False).reference == "other"
    copying = changed(settings, {"face.network.reference": "same"})
    dataset = face_data(copying, extract, progress=False)
    assert torch.equal(dataset[0].references, dataset[0].faces)
    assert face_data(changed(copying, {"stage": "sync"}), extract, progress=False).reference == "other"
    assert stages["face"].recipe(settings) != stages["face"].recipe(copying)
    with pytest.raises(ParameterError, match="at least 5"):
        changed(settings, {"face.sync_weight": 0.03, "face.frames": 4})


def test_face_is_trained_after_recogniser_and_judge():
    few = {"data.talks": 2, "recognizer.talks": 3, "recognizer.voices": 2, "clusters": 6, "steps": 2, "save_every": 0}
    settings = small(**few, **{"face.sync_weight": 0.03, "face.frames": 5, "recognizer.width": 8})
    model, history, folder = trained(settings, device="cpu", progress=False)
    assert isinstance(model, FaceRenderer)
    assert model.config.num_embeddings == 6
    assert model.config.reference == "other"
    assert {"mouth", "sync"} <= history.rows[-1].keys()
    again = FaceRenderer.from_checkpoint(folder)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert isinstance(trained(changed(settings, {"stage": "sync"}), device="cpu", progress=False).model, LipSync)
