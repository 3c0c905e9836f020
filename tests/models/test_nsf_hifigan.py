"""NSF-HiFiGAN against its formulas written out with torch's own layers, and the published names and shapes."""

import json
import math
import os

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.nn import functional as F

from avlib.errors import CheckpointError, ParameterError, ShapeError
from avlib.models.nsf_hifigan import Config, NSFHiFiGAN

TINY = {
    "resblock": "1",
    "upsample_rates": [4, 2, 2],
    "upsample_kernel_sizes": [8, 4, 4],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "num_mels": 12,
    "n_fft": 64,
    "hop_size": 16,
    "win_size": 64,
    "sampling_rate": 4000,
    "fmin": 40,
    "fmax": 1600,
    "learning_rate": 0.0002,
}


def reference():
    folder = os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")
    path = type(ROOT)(folder) / "diffsvc_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    return json.loads(path.read_text())


def tensors_of(config, seed=0):
    """Random weights by the published names: counted from the configuration, not taken from the model."""
    generator = torch.Generator().manual_seed(seed)
    found = {"m_source.l_linear.weight": (1, 9), "m_source.l_linear.bias": (1,)}

    def normed(name, *shape, bias=None):
        found.update(
            {f"{name}.bias": (bias or shape[0],), f"{name}.weight_v": shape, f"{name}.weight_g": (shape[0], 1, 1)}
        )

    channels, blocks = config["upsample_initial_channel"], 0
    normed("conv_pre", channels, config["num_mels"], 7)
    for i, kernel in enumerate(config["upsample_kernel_sizes"]):
        normed(f"ups.{i}", channels, channels // 2, kernel, bias=channels // 2)
        channels //= 2
        stride = math.prod(config["upsample_rates"][i + 1 :])
        found[f"noise_convs.{i}.weight"] = (channels, 1, 2 * stride if stride > 1 else 1)
        found[f"noise_convs.{i}.bias"] = (channels,)
        for kernel, dilations in zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True):
            for j in range(len(dilations)):
                normed(f"resblocks.{blocks}.convs1.{j}", channels, channels, kernel)
                normed(f"resblocks.{blocks}.convs2.{j}", channels, channels, kernel)
            blocks += 1
    normed("conv_post", 1, channels, 7)

    def scaled(name, shape):
        if "weight_g" in name:
            return 0.7 + torch.rand(shape, generator=generator)
        spread = 1 / math.sqrt(math.prod(shape[1:])) if "weight_v" in name or "noise" in name else 0.4
        return torch.randn(shape, generator=generator) * spread

    return {name: scaled(name, shape) for name, shape in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("published"))


def written(folder, config=None, tensors=None):
    config = config or TINY
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"generator": tensors or tensors_of(config)}, folder / "model")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return NSFHiFiGAN.from_checkpoint(folder).requires_grad_(False)


def inputs(frames=24, batch=2, mels=12, seed=3):
    generator = torch.Generator().manual_seed(seed)
    mel = torch.randn(batch, mels, frames, generator=generator) * 2 - 5
    f0 = 100 + 500 * torch.rand(batch, frames, generator=generator)
    f0[:, 5:9] = 0
    return mel, f0


def plain_source(tensors, f0, rate, hop, starts=None, noise=None):
    """One sine at a time, in float64, phase sample by sample."""
    samples = np.repeat(f0.double().numpy(), hop, axis=1)  # (B, N)
    sines = np.zeros((*samples.shape, 9))
    for harmonic in range(9):
        phase = (
            np.zeros(len(samples)) if starts is None or not harmonic else starts[:, harmonic].double().numpy().copy()
        )
        for n in range(samples.shape[1]):
            phase = phase + samples[:, n] * (harmonic + 1) / rate
            sines[:, n, harmonic] = 0.1 * np.sin(2 * np.pi * phase) * (samples[:, n] > 0)
    if noise is not None:
        sines += np.where(samples > 0, 0.003, 0.1 / 3)[..., None] * noise.double().numpy()
    weight, bias = (tensors[f"m_source.l_linear.{name}"].double().numpy() for name in ("weight", "bias"))
    return torch.from_numpy(np.tanh(sines @ weight[0] + bias[0]))[:, None]


def plain_vocoder(tensors, config, mel, source):
    """The network in float64, with weights normalised by torch's own function."""
    state = {name: tensor.double() for name, tensor in tensors.items()}

    def weights(name):
        return torch._weight_norm(state[f"{name}.weight_v"], state[f"{name}.weight_g"], 0), state[f"{name}.bias"]

    x, source, block = F.conv1d(mel.double(), *weights("conv_pre"), padding=3), source.double(), 0
    for i, (rate, kernel) in enumerate(zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True)):
        x = F.conv_transpose1d(F.leaky_relu(x, 0.1), *weights(f"ups.{i}"), stride=rate, padding=(kernel - rate) // 2)
        stride = math.prod(config["upsample_rates"][i + 1 :])
        noise = state[f"noise_convs.{i}.weight"], state[f"noise_convs.{i}.bias"]
        x = x + F.conv1d(source, *noise, stride=stride, padding=stride // 2 if stride > 1 else 0)
        outputs = []
        for size, dilations in zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True):
            y = x
            for j, dilation in enumerate(dilations):
                z = F.leaky_relu(y, 0.1)
                z = F.conv1d(
                    z, *weights(f"resblocks.{block}.convs1.{j}"), dilation=dilation, padding=dilation * (size // 2)
                )
                z = F.leaky_relu(z, 0.1)
                y = y + F.conv1d(z, *weights(f"resblocks.{block}.convs2.{j}"), padding=size // 2)
            outputs.append(y)
            block += 1
        x = sum(outputs) / len(outputs)
    return F.conv1d(F.leaky_relu(x, 0.01), *weights("conv_post"), padding=3).tanh()


def furthest(found, expected):
    return float((found.double() - expected.double()).abs().detach().max())


def test_sound_equals_the_formulas(model):
    mel, f0 = inputs()
    tensors = tensors_of(TINY)
    expected = plain_vocoder(tensors, TINY, mel, plain_source(tensors, f0, 4000, 16))
    found = model(mel, f0, noise=False)
    assert found.shape == (2, 1, 24 * 16) and expected.std() > 0.05
    assert furthest(found, expected) < 1e-5
    assert torch.equal(model(mel, f0, noise=False), found)
    assert furthest(model(mel / 2.30259, f0, noise=False, base=10), found) < 1e-4


def test_noise_is_drawn_in_the_published_order(model):
    mel, f0 = inputs()
    torch.manual_seed(5)
    starts, noise = torch.rand(2, 9), torch.randn(2, 24 * 16, 9)
    tensors = tensors_of(TINY)
    expected = plain_vocoder(tensors, TINY, mel, plain_source(tensors, f0, 4000, 16, starts, noise))
    torch.manual_seed(5)
    found = model(mel, f0)
    assert furthest(found, expected) < 1e-5
    seeded = model(mel, f0, generator=torch.Generator().manual_seed(5))
    assert torch.equal(seeded, found) and not torch.equal(model(mel, f0), found)


def test_phase_is_rounded_as_published():
    """The published order of float32 sums, written out; in float64 the phase is another by now."""
    model = NSFHiFiGAN(
        Config(**{k: tuple(v) if k.startswith("up") and isinstance(v, list) else v for k, v in SMALL.items()})
    )
    f0 = torch.full((1, 600), 431.7)
    found = model.sines(f0, noise=False)
    fundamental = f0.repeat_interleave(512, 1)
    buffer = torch.stack([fundamental * (k + 1) if k else fundamental for k in range(9)], 2)
    steps = (buffer / 44100) % 1
    over = torch.cumsum(steps, 1) % 1
    shift = torch.zeros_like(steps)
    shift[:, 1:] = ((over[:, 1:] - over[:, :-1]) < 0) * -1.0
    expected = torch.sin(torch.cumsum(steps + shift, dim=1) * 2 * np.pi) * 0.1
    assert furthest(found, expected) < 1e-7
    exact = model.sines(f0, noise=False, phase=0.0)
    turns = np.arange(1, 600 * 512 + 1)[:, None] * (float(f0[0, 0]) * np.arange(1, 10) / 44100)
    assert furthest(exact[0], torch.from_numpy(0.1 * np.sin(2 * np.pi * turns))) < 1e-6
    assert 1e-5 < furthest(found, exact) < 5e-3


SMALL = {"upsample_initial_channel": 32}


def test_pieces_with_context_are_the_whole(model):
    mel, f0 = inputs(90, 1)
    noise, phases = model.draw(1, 90 * 16, torch.Generator().manual_seed(1)), model.phases(f0, True, torch.Generator())
    whole, reach, pieces = model(mel, f0, noise, phase=phases[:, 0]), model.context, []
    for start in range(0, 90, 30):
        low, high = max(0, start - reach), min(90, start + 30 + reach)
        piece = model(mel[..., low:high], f0[:, low:high], noise[:, low * 16 : high * 16], phase=phases[:, low])
        pieces.append(piece[..., (start - low) * 16 : (start - low + 30) * 16])
    assert furthest(torch.cat(pieces, 2), whole) < 1e-5
    assert phases[0, 0, 0] == 0 and phases[0, 0, 1:].all()  # overtones start anywhere


def test_context_is_its_reach(model):
    mel, f0 = inputs(80, 1)
    changed = mel.clone()
    changed[..., 40] += 1
    moved = (model(changed, f0, noise=False) - model(mel, f0, noise=False)).abs()[0, 0].view(80, 16).amax(1)
    at = moved.nonzero()[:, 0]
    assert 40 - int(at.min()) <= model.context and int(at.max()) - 40 <= model.context
    assert int(at.max()) - 40 >= model.context // 2
    assert NSFHiFiGAN(Config(**SMALL)).context == 14


def test_names_and_shapes_are_published():
    lists = reference()
    with torch.device("meta"):
        model = NSFHiFiGAN()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == lists["nsf_hifigan_generator"] and len(shapes) == 303
    assert sum(map(math.prod, shapes.values())) == 14_178_956
    plain = {name: list(tensor.shape) for name, tensor in model.remove_weight_norm().state_dict().items()}
    assert plain == lists["nsf_hifigan_generator_weight_norm_removed"]
    published = lists["nsf_hifigan_config"]
    assert {
        name: list(shape) for name, shape in {n: t.shape for n, t in tensors_of(published).items()}.items()
    } == shapes
    for name in ("sampling_rate", "hop_size", "n_fft", "win_size", "num_mels", "fmin", "fmax"):
        assert getattr(Config(), name) == published[name]


def test_weight_norm_can_be_removed_and_plain_files_load(folder, model, tmp_path):
    mel, f0 = inputs()
    plain = NSFHiFiGAN.from_checkpoint(folder).remove_weight_norm()
    assert furthest(plain(mel, f0, noise=False), model(mel, f0, noise=False)) < 1e-6
    again = NSFHiFiGAN.from_checkpoint(written(tmp_path, tensors=plain.state_dict()))
    assert torch.equal(again(mel, f0, noise=False), plain(mel, f0, noise=False))
    assert again.remove_weight_norm() is again
    named = NSFHiFiGAN.from_checkpoint(folder / "model")
    assert torch.equal(named(mel, f0, noise=False), model(mel, f0, noise=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("ups.1.weight_g"), "1 missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected"),
        (lambda t: t.update({"conv_post.bias": torch.zeros(2)}), "of another shape"),
    ],
)
def test_weights_load_strictly(tmp_path, change, message):
    tensors = tensors_of(TINY)
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        NSFHiFiGAN.from_checkpoint(written(tmp_path, tensors=tensors))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TINY | {"hop_size": 512}, "upsample_rates"),
        (TINY | {"resblock": "2"}, "another network"),
        (TINY | {"mini_nsf": True}, "mini_nsf"),
        (TINY | {"upsample_rates": [4, 2]}, "upsample"),
        (TINY | {"upsample_initial_channel": 32}, "another shape"),
        (TINY | {"num_mels": "twelve"}, "num_mels"),
        (TINY | {"resblock_dilation_sizes": 3}, "contradicts"),
        ({name: value for name, value in TINY.items() if name != "fmax"}, "lacks fmax"),
    ],
)
def test_configuration_and_weights_must_agree(tmp_path, config, message):
    with pytest.raises(CheckpointError, match=message):
        NSFHiFiGAN.from_checkpoint(written(tmp_path, config, tensors_of(TINY)))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        NSFHiFiGAN.from_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    with pytest.raises(CheckpointError, match="model"):
        NSFHiFiGAN.from_checkpoint(tmp_path)


def test_another_mel_is_refused(model):
    mel, f0 = inputs()
    log10 = (mel / math.log(10)).clamp(min=-4.99999475)
    log10[..., 20:] = -4.99999475
    with pytest.raises(ParameterError, match="base=10"):
        model(log10, f0)
    assert model(log10, f0, base=10).isfinite().all()
    with pytest.raises(ParameterError, match="base"):
        model(mel, f0, base=2)
    model.require(hop_size=16, fmin=40, num_mels=12)
    for name, value in (("hop_size", 512), ("fmin", 0), ("sampling_rate", 44100), ("n_fft", 2048)):
        with pytest.raises(ParameterError, match=name):
            model.require(**{name: value})
    with pytest.raises(ShapeError, match="mel"):
        model(torch.zeros(1, 80, 4), torch.zeros(1, 4))
    for wrong in (math.nan, -1.0):
        with pytest.raises(ParameterError, match="mel, f0"):
            model(mel, f0 * 0 + wrong)


@pytest.mark.parametrize("pitch", [0.0, 1.0, 1400.0, 30000.0])
def test_odd_inputs_give_finite_sound(model, pitch):
    for frames in (1, 2, 9):
        mel = torch.full((1, 12, frames), math.log(1e-5))
        assert model(mel, torch.full((1, frames), pitch)).shape == (1, 1, 16 * frames)
        assert model(mel, torch.full((1, frames), pitch)).isfinite().all()


def test_gradients_reach_weights_and_mel(folder):
    model = NSFHiFiGAN.from_checkpoint(folder)
    mel, f0 = inputs()
    mel.requires_grad_()
    model(mel, f0, noise=False).square().sum().backward()
    assert mel.grad.abs().sum() > 0 and all(weight.grad is not None for weight in model.parameters())
    assert isinstance(model, nn.Module)
