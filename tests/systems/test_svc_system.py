"""Singing-voice conversion: published settings, steps, given weights, encoders, resumed training, figures."""

import math

import pytest
import torch
from small_rows import SVC as SMALL
from torch.nn import functional as F

from avlib import checkpoints, training
from avlib.clips import song
from avlib.datasets.svc import Piece, SVCDataset
from avlib.datasets.voices import UNKNOWN, VoiceBatch
from avlib.errors import CheckpointError, ParameterError
from avlib.features import spectrogram_range, svc_log_mel
from avlib.models.diffusion_svc import DiffusionSVC, pitch_ids
from avlib.models.recognizer import Config, Recognizer
from avlib.systems import svc
from avlib.systems.svc import changed
from avlib.systems.svc.stages import harmonic_table
from avlib.training import recognition

# A few steps of smaller models, on few phrases.
small = changed(svc.tiny, SMALL)


@pytest.fixture(scope="module")
def whole():
    return svc.trained(small, progress=False)


@pytest.fixture(scope="module")
def parts():
    return svc.split(small, progress=False)


# Settings


def test_full_holds_the_published_numbers():
    how, network = svc.full.diffusion.training, svc.full.diffusion.network
    assert (how.learning_rate, how.betas, how.weight_decay, how.clip) == (8e-4, (0.9, 0.98), 0.0, 1.0)
    assert (how.batch_size, how.ema, how.save_every, svc.full.data.crop) == (88, 0.0, 2000, 0)
    assert [how.rate(step) for step in (0, 39_999, 40_000, 80_000)] == [1, 1, 0.5, 0.25]
    assert (network.channels, network.layers, network.timesteps, network.predicts) == (384, 20, 1000, "noise")
    assert svc.full.diffusion.encoder == "hubert-soft" and svc.full.diffusion.loss == "l2"


@pytest.mark.parametrize(("name", "value"), [("stage", "vocoder"), ("encoder", "mfcc"), ("loss", "l3"), ("mels", 7)])
def test_other_choices_are_refused(name, value):
    with pytest.raises(ParameterError, match=name):
        changed(svc.tiny, {name: value})


# Steps


def test_a_padded_batch_equals_its_items_through_the_whole_step(monkeypatch):
    """The loss of a batch is the mean of its items' losses, weighted by their frames; so are the gradients."""
    torch.manual_seed(0)
    model = DiffusionSVC(svc.tiny.diffusion.network.__class__(mels=4, unit_size=3, channels=8, layers=4, singers=2))
    pieces = []
    for singer, (frames, units) in enumerate([(50, 29), (31, 18), (80, 46)]):
        numbers = torch.arange(frames) * units // frames + 1
        mel, voiced = torch.rand(frames, 4) - 3, torch.ones(frames, dtype=torch.bool)
        pieces.append(Piece(mel, 400 + 100 * mel[:, 0], voiced, torch.rand(units, 3), numbers, singer % 2))
    torch.nn.init.normal_(model.denoise_fn.output_projection.weight, std=0.1)  # it begins with zeros
    drawn = torch.rand(3, 2)

    def gradients(rows):
        monkeypatch.setattr(training, "uniform", lambda count, *shape, device: drawn[rows])
        model.zero_grad()
        loss, _ = svc.step(model, SVCDataset.collate([pieces[row] for row in rows]), small)
        loss.backward()
        return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}

    together, single = gradients([0, 1, 2]), [gradients([row]) for row in range(3)]
    weights = torch.tensor([50.0, 31.0, 80.0]) / 161
    torch.testing.assert_close(together[0], sum(w * loss for w, (loss, _) in zip(weights, single, strict=True)))
    for name, gradient in together[1].items():
        expected = sum(w * each[name] for w, (_, each) in zip(weights, single, strict=True))
        assert (gradient - expected).norm() <= 1e-5 * expected.norm() + 1e-9, name


def test_the_step_is_the_published_loss(whole, parts, monkeypatch):
    """Noise at a random time, by the schedule written out; the clean mel is predicted."""
    model, batch, drawn = whole.model, parts.train.batch(0, 2), torch.tensor([[0.2504, 0.1], [0.9004, 0.7]])
    monkeypatch.setattr(training, "uniform", lambda count, *shape, device: drawn)
    loss, _ = svc.step(model, batch, small)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[[250, 900]].float()
    noise = svc.noise_of((drawn[:, 1].double() * 2**53).long(), batch.lengths, 128)
    low, high = model.spec_min, model.spec_max
    clean = ((batch.mel - low) / (high - low) * 2 - 1).transpose(1, 2)[:, None]
    noisy = kept.sqrt()[:, None, None, None] * clean + (1 - kept).sqrt()[:, None, None, None] * noise
    condition = model.encode(batch.units, batch.hertz, batch.mel2ph, batch.lengths, batch.singers)
    with torch.no_grad():
        predicted = model.denoise(noisy, torch.tensor([250, 900]), condition, batch.lengths)
    error = (predicted - clean).square().mean(dim=(1, 2))[batch.mask]
    torch.testing.assert_close(loss.detach(), error.mean())
    assert abs(float(noise.std()) - 1) < 0.02 and noise[0].ne(noise[1]).any()


def test_the_recogniser_learns_from_known_labels_only(monkeypatch):
    torch.manual_seed(0)
    model = Recognizer(Config(classes=("a", "b", "c"), width=8, layers=1))
    batch = VoiceBatch(0.1 * torch.randn(2, 3200), torch.tensor([[0, 1, 2, UNKNOWN, 1] * 2, [UNKNOWN] * 9 + [2]]))
    monkeypatch.setattr(recognition, "uniform", lambda *shape, device: torch.full(shape, 2 / 3))  # a gain of 1
    monkeypatch.setattr(recognition, "normal", lambda *shape, device: torch.zeros(shape))
    loss, parts = recognition.recognizer_step(model, batch)
    logits, labels = model(batch.waveform).flatten(0, 1), batch.labels.flatten()
    known = labels != UNKNOWN
    torch.testing.assert_close(loss, F.cross_entropy(logits[known], labels[known]))
    assert parts["right"] == (logits[known].argmax(1) == labels[known]).float().mean()


def test_the_pitch_table_begins_with_harmonics():
    """A row's mel has its peaks in the bins of the filters around the multiples of its pitch."""
    from librosa.filters import mel

    filters, table = mel(sr=44100, n_fft=2048, n_mels=128, fmin=40, fmax=16000), harmonic_table()
    assert table.shape == (300, 128) and abs(float(table.std()) - 1) < 1e-3 and table.mean(1).abs().max() < 1e-4
    for hertz in (300.0, 700.0):
        row = table[int(pitch_ids(torch.tensor([hertz]))[0])]
        for number in (1, 2, 3):
            peak = filters[:, round(number * hertz / 44100 * 2048)].argmax()
            near = row[max(0, peak - 1) : peak + 2].max()
            between = filters[:, round((number + 0.5) * hertz / 44100 * 2048)].argmax()
            assert near > row[between] + 1, (hertz, number)


# Trainings


def test_two_stages_are_trained_and_kept(whole, parts):
    assert [row["step"] for row in whole.history.rows][-1] == 2 and "held-out loss" in whole.history.rows[-1]
    assert whole.model.config.unit_size == len(song.CLASSES) and whole.model.config.singers == 2
    low, high = spectrogram_range(piece.mel for piece in parts.train.pieces)
    assert torch.equal(whole.model.spec_min[0, 0], low) and torch.equal(whole.model.spec_max[0, 0], high)
    again = svc.trained(changed(small, {"log_every": 1, "save_every": 1, "on_error": "skip"}), progress=False)
    assert again.folder == whole.folder, "none of these changes the weights"
    name = svc.trained(changed(small, {"project": "a name"}), progress=False)
    assert name.folder == whole.folder and str(whole.folder) in svc.load("a name").mark
    assert parts.train.singers == svc.SINGERS and len(parts.train) >= 4


def test_killed_and_resumed_is_bit_equal(whole, tmp_path):
    """A run that is stopped after its first step and goes on ends with the weights of one that was not."""
    dataset, how = svc.data(small, progress=False), changed(small.diffusion.training, {"save_every": 1})

    def step(model, batch):
        return svc.step(model, batch, small)

    class Killed(Exception):
        pass

    def dies(model, batch, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) > 1:
            raise Killed
        return step(model, batch)

    sampler = svc.stages["diffusion"].sampler(small, dataset)
    options = {"folder": tmp_path, "sampler": sampler, "device": "cpu", "progress": False}
    with pytest.raises(Killed):
        training.fit(svc.build(small, progress=False), dies, dataset, how, **options)
    resumed = svc.build(small, progress=False)
    training.fit(resumed, step, dataset, how, **options)
    expected = whole.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.state_dict().items())


def test_training_begins_with_given_weights_and_keeps_their_range(whole, tmp_path):
    given = {"checkpoint": str(whole.folder), "steps": 1, "song_seed": 3}
    model, _, _ = svc.trained(changed(small, given), progress=False)
    assert torch.equal(model.spec_max, whole.model.spec_max), "not that of the other songs"
    begun = svc.build(changed(small, given), progress=False)
    assert all(torch.equal(t, whole.model.state_dict()[name]) for name, t in begun.state_dict().items())
    with pytest.raises(CheckpointError, match=r"another spec_max.*the range of the weights"):
        svc.build(changed(small, given | {"spec_max": [1.5]}), progress=False)
    with pytest.raises(CheckpointError, match=rf"unit_size {len(song.CLASSES)}; expected unit_size 1"):
        svc.build(changed(small, given | {"encoder": "none"}), progress=False)


@pytest.mark.parametrize(("encoder", "width"), [("none", 1), ("kmeans", 4)])
def test_other_encoders_need_no_recogniser(encoder, width):
    few = {"batch_size": 2, "steps": 1}
    settings = changed(small, {"encoder": encoder, "clusters": 4, "mels": 32, "only": ["otto"]} | few)
    model, _, _ = svc.trained(settings, progress=False)
    assert (model.config.unit_size, model.config.mels, model.config.singers) == (width, 32, 0)
    with pytest.raises(ParameterError, match="encoder"):
        svc.trained(changed(settings, {"stage": "recognizer"}), progress=False)


# Figures


class Knows(torch.nn.Module):
    """A judge that is always right about one class."""

    def __init__(self, answer, classes):
        super().__init__()
        self.answer, self.classes = answer, classes

    def forward(self, sound):
        return F.one_hot(torch.tensor(self.answer), self.classes).float().expand(1, sound.shape[1] // 320, -1)


def test_scores_of_the_truth_and_of_the_source():
    one = song.Song("mira", seed=3, seconds=2.0, span=song.SHARED)
    judging = svc.Judges(Knows(1, len(song.CLASSES)), Knows(1, 2))
    true, source = (svc.sound_of(each) for each in (one.by("otto"), one))
    found = svc.scored([true], [one], "otto", judging)
    assert found.ratio == 0 and found.nearer.all() and found.singer.all()
    assert found.lost.float().mean() < 0.02 and found.cents.square().mean().sqrt() < 10
    difference = (svc_log_mel(true[None]) - svc_log_mel(source[None]))[0].abs()
    apart = difference[torch.as_tensor(one.truth.sung)].mean()
    unchanged = svc.scored([source, true], [one, one], "otto", judging)
    torch.testing.assert_close(unchanged.distance, torch.stack([apart, 0 * apart]))
    assert unchanged.ratio == pytest.approx(0.5) and unchanged.nearer.tolist() == [False, True]
    right = float((torch.as_tensor(one.truth.vowels) == 1).sum() / one.truth.sung.sum())
    assert math.isclose(float(found.vowels.float().mean()), right, abs_tol=0.15)


def test_conversion_of_a_phrase(whole, parts):
    mels = svc.generated(whole.model, parts.held_out.pieces, 1, steps=2)
    assert [len(mel) for mel in mels] == [len(piece.mel) for piece in parts.held_out.pieces]
    alone = svc.generated(whole.model, parts.held_out.pieces[:1], 1, steps=2)
    assert mels[0].isfinite().all() and alone[0].shape == mels[0].shape
    sound = svc.sound_of(song.Song("mira", seconds=1.0, span=(180, 200)))
    (made,) = svc.converted(svc.load(whole.folder), [sound], "otto", steps=2)
    assert made.shape == sound.shape and made.isfinite().all()
    assert checkpoints.read(whole.folder).config["model"] == "DiffusionSVC"


def test_both_stages_are_assessed(whole):
    first = changed(small, {"stage": "recognizer"})
    recogniser = svc.assess(svc.trained(first, progress=False).model, first, progress=False)
    assert 0 <= recogniser.figures["units right"].value <= 1
    found = svc.assess(whole.model, small, progress=False)
    assert found.figures["ratio"].reference == 1 and found.figures["vowels"].meaning == "the true parallel"
    assert "mira, converted to otto" in found.remarks
    alone = changed(small, {"only": ["otto"], "steps": 1})
    distance = svc.assess(svc.trained(alone, progress=False).model, alone, progress=False)
    assert distance.figures["distance of log10 mel"].meaning == "the mean spectrum"
