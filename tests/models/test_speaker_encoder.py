"""The speaker encoder against one written out in float64, librosa's mel, and Resemblyzer's file where it is."""

import hashlib
import json
import math
import os
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from conftest import ROOT, recording

from avlib.errors import CheckpointError, ParameterError, ShapeError
from avlib.features import speaker_mel
from avlib.media import read_audio
from avlib.models.speaker_encoder import SpeakerEncoder, installed_checkpoint, partial_starts


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    model = SpeakerEncoder().eval().requires_grad_(False)
    for name, tensor in model.lstm.named_parameters():
        tensor *= 1000 if name == "weight_ih_l0" else 3 if "weight" in name else 1  # so that the sound matters
    return model


def voice(samples, seed=0):
    """Noise whose loudness changes."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(samples, generator=generator) * (1.2 + torch.linspace(0, 40, samples).sin())


def furthest(found, expected):
    return float((found.double() - expected.double()).abs().max())


def slow_vector(state, waveform):
    """Fact sheet, "Speaker encoder", by numpy and librosa."""
    x = waveform.double().numpy()
    decibels = 10 * np.log10((x**2).mean())
    if decibels < -30:
        x = x * 10 ** ((-30 - decibels) / 20)
    frames, starts = math.ceil((len(x) + 1) / 160), [0]
    while starts[-1] + 80 < frames - 79:
        starts.append(starts[-1] + 80)
    if len(starts) > 1 and (len(x) - 160 * starts[-1]) / (160 * 160) < 0.75:
        starts.pop()
    x = np.pad(x, (0, max(0, 160 * (starts[-1] + 160) - len(x))))
    mel = librosa.feature.melspectrogram(y=x, sr=16000, n_fft=400, hop_length=160, n_mels=40, pad_mode="reflect").T
    vectors = [slow_partial(state, torch.from_numpy(mel[start : start + 160])) for start in starts]
    mean = sum(vectors) / len(vectors)
    return mean / mean.norm()


def slow_partial(state, x):
    """Three LSTM layers, gate by gate."""
    for layer in range(3):
        w, u, b, c = (state[f"lstm.{part}_l{layer}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        hidden, cell, outputs = torch.zeros(256).double(), torch.zeros(256).double(), []
        for row in x:
            i, f, g, o = (w @ row + b + u @ hidden + c).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        x = torch.stack(outputs)
    vector = (state["linear.weight"] @ hidden + state["linear.bias"]).clamp(min=0)
    return vector / (vector.norm() + 1e-5)


@pytest.mark.parametrize("samples", [25000, 41000])
def test_vector_equals_the_slow_one(encoder, samples):
    state, waveform = {name: x.double() for name, x in encoder.state_dict().items()}, voice(samples)
    found = encoder.embed(waveform)
    assert found.shape == (256,) and float(found.norm()) == pytest.approx(1, abs=1e-6)
    assert furthest(found, slow_vector(state, waveform)) < 1e-5
    assert furthest(found, encoder.embed(voice(samples, seed=1))) > 0.01


def test_quiet_sound_is_raised_and_loud_sound_stays(encoder):
    waveform = voice(20000)
    waveform = waveform / waveform.square().mean().sqrt() * 10 ** (-30 / 20)  # at -30 dB
    expected = encoder.embed(waveform)
    for gain in (1e-1, 1e-4, 1e-8):
        assert furthest(encoder.embed(gain * waveform), expected) < 1e-5
    assert furthest(encoder.embed(10 * waveform), expected) > 0.01


def test_the_mel_is_power_at_every_hop():
    waveform = voice(3200)
    expected = librosa.feature.melspectrogram(
        y=waveform.double().numpy(), sr=16000, n_fft=400, hop_length=160, n_mels=40, pad_mode="reflect"
    )
    found = speaker_mel(waveform.double())
    assert found.shape == (21, 40) and furthest(found, torch.from_numpy(expected.T)) < 1e-6


@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (1, [0]),
        (25600, [0]),
        (31999, [0]),  # the second partial would begin at 12,800 and have 19,199 of 25,600 samples
        (32000, [0, 80]),  # 19,200, which is 75 %
        (44799, [0, 80]),
        (44800, [0, 80, 160]),
    ],
)
def test_partials(samples, starts):
    assert partial_starts(samples) == starts


def test_what_has_no_voice(encoder):
    with pytest.raises(ParameterError, match="waveform: digital silence; expected speech"):
        encoder.embed(torch.zeros(20000))
    with pytest.raises(ShapeError, match=r"waveform: \(0,\)"):
        encoder.embed(torch.zeros(0))
    with pytest.raises(ParameterError, match="NaN"):
        encoder.embed(torch.full((20000,), float("nan")))


def test_published_files(encoder, tmp_path):
    names = {name: list(tensor.shape) for name, tensor in encoder.state_dict().items()}
    lines = "\n".join(sorted(f"{name} {shape}" for name, shape in names.items()))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "7bbd7f41acdb11e6"
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 1_423_618
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "unit2av_keys.json"
    assert not path.exists() or names == json.loads(path.read_text())["speaker_encoder"]
    content = {"step": 1564501, "model_state": encoder.state_dict(), "optimizer_state": {"state": {}, "lr": 0.1}}
    torch.save(content, tmp_path / "encoder.pt")
    torch.save(encoder.state_dict(), tmp_path / "bare.pt")
    waveform = voice(9000)
    for name in ("encoder.pt", "bare.pt"):
        loaded = SpeakerEncoder.from_checkpoint(tmp_path / name)
        assert not loaded.training and torch.equal(loaded.embed(waveform), encoder.embed(waveform))
    torch.save({"model_state": encoder.state_dict() | {"linear.bias": torch.ones(3)}}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=r"linear.bias is \(3,\) for \(256,\)"):
        SpeakerEncoder.from_checkpoint(tmp_path / "bad.pt")


def test_the_installed_file_is_the_default(encoder, tmp_path, monkeypatch):
    """A package of that name whose import would fail, as Resemblyzer's does."""
    if installed_checkpoint() is None:
        with pytest.raises(CheckpointError, match=r"pip install --no-deps Resemblyzer==0.1.4"):
            SpeakerEncoder.from_checkpoint()
    package = tmp_path / "resemblyzer"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('scipy.ndimage.morphology')")
    torch.save({"model_state": encoder.state_dict()}, package / "pretrained.pt")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_checkpoint() == package / "pretrained.pt"
    loaded = SpeakerEncoder.from_checkpoint()
    assert torch.equal(loaded.linear.weight, encoder.linear.weight) and "resemblyzer" not in sys.modules


@pytest.mark.skipif(installed_checkpoint() is None, reason="Resemblyzer is not installed")
def test_real_weights_know_a_voice_from_noise():
    encoder = SpeakerEncoder.from_checkpoint()
    names = ("Front_Center", "Side_Left", "Side_Right")  # of one speaker
    vectors = [encoder.embed(read_audio(recording(f"speech/{name}.wav"))) for name in names]
    noise = encoder.embed(voice(30000))
    assert all(float(a @ b) > 0.65 for a in vectors for b in vectors)
    assert all(float(a @ noise) < 0.5 for a in vectors)


def test_long_sound_is_embedded_in_parts(monkeypatch):
    model, waveform = SpeakerEncoder().eval(), torch.randn(16000 * 9 + 77, generator=torch.Generator().manual_seed(0))
    whole = model.embed(0.1 * waveform)
    for at_once in (1, 4):
        monkeypatch.setattr("avlib.models.speaker_encoder._AT_ONCE", at_once)
        torch.testing.assert_close(model.embed(0.1 * waveform), whole, rtol=0, atol=1e-6)
