"""HiFi-GAN's discriminators, losses and mel against plain ones that follow the fact sheet."""

import hashlib
import json
import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

from avlib.errors import TooShortError
from avlib.features import vocoder_log_mel
from avlib.models.vocoder_discriminators import (
    MultiPeriod,
    MultiScale,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    mel_loss,
)


def waves(samples=8960, batch=2):
    generator = torch.Generator().manual_seed(0)
    return 0.3 * torch.randn(2, batch, 1, samples, generator=generator)


def furthest(found, expected):
    return float((found.double() - expected.double()).detach().abs().max())


def normed(state, name):
    v, g = state[f"{name}.weight_v"], state[f"{name}.weight_g"]
    return v / v.flatten(1).norm(dim=1).view_as(g) * g, state[f"{name}.bias"]


def slow_period(state, x, period):
    """Each of the `period` columns is a signal of its own, since kernels are one sample wide."""
    samples = x.shape[1]
    missing = (period - samples % period) % period
    x = torch.cat([x, x[:, samples - 1 - missing : samples - 1].flip(1)], dim=1) if missing else x
    columns, maps = [x[:, None, k::period] for k in range(period)], []
    layers = [f"convs.{i}" for i in range(5)] + ["conv_post"]
    for i, name in enumerate(layers):
        weight, bias = normed(state, name)
        how = {"stride": 3 if i < 4 else 1, "padding": 2 if i < 5 else 1}
        columns = [F.conv1d(column, weight[..., 0], bias, **how) for column in columns]
        columns = columns if name == "conv_post" else [F.leaky_relu(column, 0.1) for column in columns]
        maps.append(torch.stack(columns, dim=-1))
    return maps[-1].flatten(1), maps


def slow_scale(state, x, scale, groups):
    for _ in range(scale):
        x = F.pad(x, (2, 2)).unfold(1, 4, 2).mean(dim=2)
    x, maps = x[:, None], []
    for i, (k, s) in enumerate(zip((15, 41, 41, 41, 41, 41, 5), (1, 2, 2, 4, 4, 1, 1), strict=True)):
        weight, bias = slow_weight(state, f"convs.{i}", scale)
        x = F.leaky_relu(F.conv1d(x, weight, bias, s, k // 2, groups=groups[i]), 0.1)
        maps.append(x)
    maps.append(F.conv1d(x, *slow_weight(state, "conv_post", scale), padding=1))
    return maps[-1].flatten(1), maps


def slow_weight(state, name, scale):
    if scale:
        return normed(state, name)
    weight, u, v = (state[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
    return weight / sum(u[i] * (row * v).sum() for i, row in enumerate(weight.flatten(1))), state[f"{name}.bias"]


def part(model, index):
    name = f"discriminators.{index}."
    return {key.removeprefix(name): x.double() for key, x in model.state_dict().items() if key.startswith(name)}


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    groups = (1, 4, 4, 4, 4, 4, 1)
    found = MultiPeriod((2, 3, 5, 7, 11), (4, 6, 8, 8, 8)), MultiScale(3, (8, 8, 16, 16, 16, 16, 16), groups)
    with torch.no_grad():
        for name, parameter in [pair for model in found for pair in model.named_parameters()]:
            parameter *= 2.5 if name.endswith("weight_g") else 1
        for _ in range(5):
            found[1](*waves(2000))  # u and v of the spectral norm approach the singular vectors
    return *(model.eval().requires_grad_(False) for model in found), groups


def test_scores_and_maps_equal_the_slow_ones(models):
    periods, scales, groups = models
    real, fake = waves()
    for model, slow in (
        (periods, lambda x, i: slow_period(part(periods, i), x, (2, 3, 5, 7, 11)[i])),
        (scales, lambda x, i: slow_scale(part(scales, i), x, i, groups)),
    ):
        scores_real, scores_fake, maps_real, maps_fake = model(real, fake)
        for wave, scores, maps in ((real, scores_real, maps_real), (fake, scores_fake, maps_fake)):
            for i, (score, layers) in enumerate(zip(scores, maps, strict=True)):
                expected, expected_layers = slow(wave[:, 0].double(), i)
                assert expected.std() > 1e-3 and furthest(score, expected) < 1e-5
                for found, layer in zip(layers, expected_layers, strict=True):
                    assert found.shape == layer.shape and furthest(found, layer) < 1e-5
    assert [score.shape[1] for score in periods(real, fake)[0]] == [112, 111, 115, 112, 121]
    assert [score.shape[1] for score in scales(real, fake)[0]] == [140, 71, 36]


def test_spectral_norm_takes_a_step_in_each_run():
    """Two in training, on real and on generated sound, and none in evaluation."""
    torch.manual_seed(0)
    model = MultiScale(1, (8,) * 7, (1,) * 7)
    layer = model.discriminators[0].convs[1]
    u, matrix = layer.weight_u.clone(), layer.weight_orig.detach().flatten(1)
    model(*waves(2000))
    for _ in range(2):
        v = matrix.T @ u / (matrix.T @ u).norm()
        u = matrix @ v / (matrix @ v).norm()
    assert furthest(layer.weight_u, u) < 1e-5 and furthest(layer.weight_v, v) < 1e-5
    model.eval()(*waves(2000))
    assert furthest(layer.weight_u, u) < 1e-5


def test_losses_by_hand():
    real, fake = (
        [torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0]])],
        [torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0]])],
    )
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.5 + 0.625 + 1 + 0)
    assert float(adversarial_loss(fake)) == pytest.approx(0.125 + 1)
    maps = [[torch.tensor([1.0, 3.0]), torch.tensor([2.0])], [torch.tensor([0.0])]]
    others = [[torch.tensor([0.0, 1.0]), torch.tensor([2.5])], [torch.tensor([-1.0])]]
    assert float(feature_loss(maps, others)) == pytest.approx(2 * (1.5 + 0.5 + 1))
    real, fake = waves()
    expected = 45 * (vocoder_log_mel(real[:, 0]) - vocoder_log_mel(fake[:, 0])).abs().mean()
    assert float(mel_loss(real, fake)) == pytest.approx(float(expected))


def test_gradients_of_both_sides():
    model = MultiScale(2, (8,) * 7, (1,) * 7)
    real, fake = waves(4000)
    fake.requires_grad_()
    scores_real, scores_fake, _, _ = model(real, fake.detach())
    discriminator_loss(scores_real, scores_fake).backward()
    assert all(parameter.grad.any() for parameter in model.parameters()) and fake.grad is None
    _, scores, maps_real, maps_fake = model(real, fake)
    (adversarial_loss(scores) + feature_loss(maps_real, maps_fake) + mel_loss(real, fake)).backward()
    assert fake.grad.isfinite().all() and fake.grad.any()


def test_published_parameters():
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "unit2av_keys.json"
    reference = json.loads(path.read_text()) if path.exists() else {}
    for kind, name, count, print_ in (
        (MultiPeriod, "mpd", 41_105_770, "383d160e28a99b72"),
        (MultiScale, "msd", 29_618_821, "a791ad6fd0ebc0d9"),
    ):
        with torch.device("meta"):
            model = kind()
        names = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        lines = "\n".join(sorted(f"{key} {shape}" for key, shape in names.items()))
        assert hashlib.sha256(lines.encode()).hexdigest()[:16] == print_
        assert sum(parameter.numel() for parameter in model.parameters()) == count
        assert names == reference.get(name, names)


# The mel


@pytest.mark.parametrize("samples", [8960, 16000, 385, 9000])
def test_the_mel_equals_librosas(samples):
    waveform = waves(samples)[0, 0] * torch.linspace(0, 1, samples)
    padded = np.pad(waveform[0].double().numpy(), 384, mode="reflect")
    spectrum = librosa.stft(padded, n_fft=1024, hop_length=256, center=False)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
    filters = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80, fmin=0, fmax=None)
    expected = torch.from_numpy(np.log(np.maximum(filters @ magnitude, 1e-5)))
    found = vocoder_log_mel(waveform)
    assert found.shape == (1, 80, samples // 256) and found.dtype == torch.float32
    assert furthest(found[0], expected) < 2e-4 and furthest(vocoder_log_mel(waveform.double())[0], expected) < 1e-6


def test_silence_and_what_is_no_sound():

    silence = vocoder_log_mel(torch.zeros(1, 2000))
    filters = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80)
    expected = np.log(np.maximum(filters.sum(1) * np.sqrt(1e-9), 1e-5))
    assert furthest(silence[0, :, 0], torch.from_numpy(expected)) < 1e-4
    with pytest.raises(TooShortError, match="waveform: 384 samples; expected at least 385"):
        vocoder_log_mel(torch.zeros(1, 384))
    with torch.autocast("cpu", torch.bfloat16):
        within = vocoder_log_mel(waves()[0, :, 0])
    assert torch.equal(within, vocoder_log_mel(waves()[0, :, 0]))
    quiet = torch.zeros(1, 2000, requires_grad=True)
    vocoder_log_mel(quiet).sum().backward()
    assert quiet.grad.isfinite().all()
