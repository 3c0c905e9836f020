"""Diff-SVC's network beside plain lines that follow the published formulas, in batches, in other dtypes, from files."""

import hashlib
import json
import math
import os
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

from avlib import shapes
from avlib.errors import CheckpointError, ParameterError, ShapeError
from avlib.models.diffusion_svc import Config, DiffusionSVC, pitch_ids
from avlib.models.samplers import SAMPLERS, linear_betas, sample_with
from avlib.settings import changed
from avlib.systems import svc

SMALL = {"mels": 6, "unit_size": 12, "condition_size": 12, "channels": 16, "layers": 4, "cycle": 2}


def made(**changes):
    """A small model whose output layer is not zero."""
    torch.manual_seed(0)
    config = Config(**SMALL | changes)
    model = DiffusionSVC(config, -5 - torch.rand(config.mels), torch.rand(config.mels))
    torch.nn.init.normal_(model.denoise_fn.output_projection.weight, std=0.1)
    return model


def inputs(model, lengths=(21, 13), units=12, seed=1):
    """Units, hertz, mel2ph of each item, with NaN in all that is padding."""
    generator = torch.Generator().manual_seed(seed)
    batch, frames = len(lengths), max(lengths)
    values = torch.randn(batch, units, model.config.unit_size, generator=generator)
    hertz = 100 + 500 * torch.rand(batch, frames, generator=generator)
    mel2ph = torch.zeros(batch, frames, dtype=torch.long)
    for item, length in enumerate(lengths):
        count = math.ceil(length / 2)
        mel2ph[item, :length] = torch.arange(length) // 2 + 1
        values[item, count:], hertz[item, length:] = torch.nan, torch.nan
    return values, hertz, mel2ph, torch.tensor(lengths)


@pytest.fixture(scope="module")
def model():
    return made().requires_grad_(False)


def furthest(found, expected):
    return float((found.double() - expected.double()).detach().abs().max())


# The published network, in plain lines


def plain_ids(hertz):
    ids = []
    for f in hertz.tolist():
        m, low, high = (1127 * math.log(1 + each / 700) for each in (f, 40, 1100))
        m = (m - low) * 254 / (high - low) + 1 if m > 0 else m
        ids.append(int(min(max(m, 1), 255) + 0.5))
    return torch.tensor(ids)


def plain_condition(state, units, hertz, mel2ph):
    """Of one item, (256, T)."""
    rows = torch.cat([torch.zeros_like(units[:1]), units])[mel2ph]
    return ((rows + state["fs2.pitch_embed.weight"][plain_ids(hertz)]) * (mel2ph > 0)[:, None]).T


def plain_denoise(state, x, t, condition, layers, cycle):
    """Of one item, (mels, T); reference section 1.7 in float64."""
    w = {name.removeprefix("denoise_fn."): tensor.double() for name, tensor in state.items()}
    channels = len(w["input_projection.weight"])

    def linear(name, v):
        return w[f"{name}.weight"].squeeze(-1) @ v + (w[f"{name}.bias"] if v.ndim == 1 else w[f"{name}.bias"][:, None])

    half = channels // 2
    angles = t * torch.exp(-math.log(1e4) / (half - 1) * torch.arange(half, dtype=torch.float64))
    step = linear("mlp.0", torch.cat([angles.sin(), angles.cos()]))
    step = linear("mlp.2", step * torch.tanh(torch.log1p(step.exp())))
    x, total = linear("input_projection", x.double()).clamp(min=0), 0
    for layer in range(layers):
        name, dilation = f"residual_layers.{layer}", 2 ** (layer % cycle)
        y = x + linear(f"{name}.diffusion_projection", step)[:, None]
        padded, frames = F.pad(y, (dilation, dilation)), x.shape[1]
        kernel = w[f"{name}.dilated_conv.weight"]
        y = sum(kernel[:, :, k] @ padded[:, k * dilation : k * dilation + frames] for k in range(3))
        y = y + w[f"{name}.dilated_conv.bias"][:, None] + linear(f"{name}.conditioner_projection", condition.double())
        y = linear(f"{name}.output_projection", y[:channels].sigmoid() * y[channels:].tanh())
        x, total = (x + y[:channels]) / math.sqrt(2), total + y[channels:]
    return linear("output_projection", linear("skip_projection", total / math.sqrt(layers)).clamp(min=0))


def test_pitch_ids():
    hertz = torch.tensor([0.0, 1, 39, 40, 41, 220, 440, 777.7, 1099, 1100, 1101, 4000])
    assert pitch_ids(hertz).tolist() == plain_ids(hertz).tolist()
    assert pitch_ids(hertz)[[0, 3, 9, 11]].tolist() == [1, 1, 255, 255]
    assert pitch_ids(hertz.half()).tolist() == plain_ids(hertz.half()).tolist()  # not computed in half precision


def test_condition_and_denoiser(model):
    units, hertz, mel2ph, lengths = inputs(model)
    state = model.state_dict()
    condition = model.encode(units, hertz, mel2ph, lengths)
    x, t = torch.randn(2, 1, 6, 21), torch.tensor([3, 977])
    output = model.denoise(x, t, condition, lengths)
    for item, length in enumerate(lengths.tolist()):
        count = int(mel2ph[item].max())
        expected = plain_condition(state, units[item, :count], hertz[item, :length], mel2ph[item, :length])
        assert furthest(condition[item, :, :length], expected) < 1e-6
        expected = plain_denoise(state, x[item, 0, :, :length], int(t[item]), expected, 4, 2)
        assert furthest(output[item, 0, :, :length], expected) < 1e-5 * float(expected.abs().max())
    assert not condition[1, :, 13:].any() and not output[1, :, :, 13:].any()
    cache = model.project(condition)
    assert torch.equal(model.denoise(x, t, condition, lengths, cache), output)
    assert len(cache) == 4 and cache[0].shape == (2, 32, 21)


def test_a_hole_in_mel2ph_is_padding(model):
    units, hertz, mel2ph, _ = inputs(model, (8,))
    mel2ph[0, 3], hertz[0, 3] = 0, torch.nan
    condition = model.encode(units, hertz, mel2ph)
    assert condition[0].abs().amax(dim=0).gt(0).tolist() == [True, True, True, False, True, True, True, True]


def test_notes_above_the_range():
    units, _, mel2ph, _ = inputs(made(), (4,))
    hertz = torch.tensor([[1100.0, 1200, 0, 1]])
    clipped, published = (
        {} | {clip: made(clip_notes=clip).encode(units * 0, hertz, mel2ph)[0].T} for clip in (True, False)
    )
    assert torch.equal(clipped[True][0], clipped[True][1]) and not torch.equal(clipped[True][1], clipped[True][3])
    assert torch.equal(published[False][1], published[False][3]) and torch.equal(clipped[True][2], clipped[True][3])


# Batches


def test_batch_equals_single_items_with_nan_in_the_padding():
    model = made(unit_size=5, singers=2)  # a projection and a table of singers too
    units, hertz, mel2ph, lengths = inputs(model)
    generator = torch.Generator().manual_seed(2)
    mel = torch.rand(2, 21, 6, generator=generator) * 5 - 5
    noise = torch.randn(2, 1, 6, 21, generator=generator)
    mel[1, 13:], noise[1, :, :, 13:] = torch.nan, torch.nan
    t, singers = torch.tensor([50, 700]), torch.tensor([1, 0])

    def gradients(rows, frames, kind="l2"):
        model.zero_grad()
        condition = model.encode(units[rows], hertz[rows, :frames], mel2ph[rows, :frames], lengths[rows], singers[rows])
        loss = model.loss(mel[rows, :frames], condition, lengths[rows], t[rows], noise[rows, :, :, :frames], kind)
        loss.backward()
        return loss.detach(), {name: each.grad.clone() for name, each in model.named_parameters()}

    for kind in ("l2", "l1"):
        (loss, whole), *parts = (
            gradients(slice(*rows), frames, kind) for *rows, frames in ((0, 2, 21), (0, 1, 21), (1, 2, 13))
        )
        shares = lengths / lengths.sum()  # an item counts by its length
        assert furthest(loss, sum(share * part for share, (part, _) in zip(shares, parts, strict=True))) < 1e-6
        for name, gradient in whole.items():
            expected = sum(share * part[name] for share, (_, part) in zip(shares, parts, strict=True))
            assert float((gradient - expected).norm()) <= 1e-5 * float(expected.norm()), name
    assert all(
        whole[name].any() for name in ("unit_projection.weight", "speaker_embed.weight", "fs2.pitch_embed.weight")
    )


@pytest.mark.parametrize("predicts", ["noise", "x0"])
def test_loss_by_hand(predicts):
    model = made(predicts=predicts)
    units, hertz, mel2ph, lengths = inputs(model)
    condition = model.encode(units, hertz, mel2ph, lengths)
    mel, noise, t = torch.rand(2, 21, 6) - 4, torch.randn(2, 1, 6, 21), torch.tensor([10, 900])
    clean = (mel - model.spec_min) / (model.spec_max - model.spec_min) * 2 - 1
    assert furthest(model.normalize(mel), clean.transpose(1, 2)[:, None]) == 0
    assert furthest(model.denormalize(model.normalize(mel)), mel) < 1e-5
    kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[t].float()[:, None, None]
    x = kept.sqrt() * clean.transpose(1, 2) + (1 - kept).sqrt() * noise[:, 0]
    errors = []
    for item, length in enumerate(lengths.tolist()):
        target = noise[item, 0] if predicts == "noise" else clean[item].T
        single = model.denoise(x[[item], None, :, :length], t[[item]], condition[[item], :, :length])
        errors.append((single[0, 0] - target[:, :length]).flatten())
    errors = torch.cat(errors)
    for kind, expected in (("l2", errors.square().mean()), ("l1", errors.abs().mean())):
        assert furthest(model.loss(mel, condition, lengths, t, noise, kind), expected) < 1e-6
    assert furthest(model.loss(mel[:1], condition[:1], None, t[:1], noise[:1]), errors[: 21 * 6].square().mean()) < 1e-6
    with pytest.raises(ParameterError, match="kind: 'l3'"):
        model.loss(mel, condition, lengths, t, noise, "l3")


def test_receptive_field_from_gradients(model):
    assert model.receptive_field == 6  # 1 + 2 + 1 + 2
    x = torch.randn(1, 1, 6, 41, requires_grad=True)
    model.denoise(x, torch.tensor([500]), torch.randn(1, 12, 41))[0, 0, :, 20].sum().backward()
    reached = x.grad[0, 0].abs().sum(dim=0).nonzero().flatten()
    assert (int(reached.min()), int(reached.max())) == (14, 26)


# Sampling


def plain_plms(predict, x, kept, times, interval):
    """The published accelerated sampler."""

    def moved(x, e, t):
        a, q = kept[t], kept[max(t - interval, 0)]
        return (q / a).sqrt() * x - (q - a) / (a.sqrt() * (((1 - q) * a).sqrt() + ((1 - a) * q).sqrt())) * e

    history = []
    for t in times:
        e = predict(x, t)
        if not history:
            mixed = (e + predict(moved(x, e, t), max(t - interval, 0))) / 2
        elif len(history) == 1:
            mixed = (3 * e - history[-1]) / 2
        elif len(history) == 2:
            mixed = (23 * e - 16 * history[-1] + 5 * history[-2]) / 12
        else:
            mixed = (55 * e - 59 * history[-1] + 37 * history[-2] - 9 * history[-3]) / 24
        history.append(e)
        x = moved(x, mixed, t)
    return x


def kept_signal():
    return (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def of_noise(model, condition):
    def predict(x, t):
        output = model.denoise(x, torch.full((len(x),), t), condition)
        kept = kept_signal()[t]
        return output if model.config.predicts == "noise" else (x - kept.sqrt() * output) / (1 - kept).sqrt()

    return predict


@pytest.mark.parametrize("predicts", ["noise", "x0"])
@pytest.mark.parametrize("steps", [10, 20])
def test_plms_is_the_published_one(predicts, steps):
    model = made(predicts=predicts).requires_grad_(False)
    units, hertz, mel2ph, _ = inputs(model, (21, 21, 21))
    condition, noise = model.encode(units, hertz, mel2ph), torch.randn(3, 1, 6, 21)
    times = list(reversed(range(0, 1000, 1000 // steps)))
    expected = plain_plms(
        of_noise(model, condition), noise.double().float(), kept_signal().float(), times, 1000 // steps
    )
    seen = []
    mel = model.sample(condition, steps, noise=noise, progress=lambda *done: seen.append(done))
    assert furthest(model.normalize(mel), expected) < 1e-5 * float(expected.abs().max())
    assert seen == [(done + 1, steps + 1) for done in range(steps + 1)]


def test_shallow_start():
    model = made().requires_grad_(False)
    units, hertz, mel2ph, lengths = inputs(model, (21, 13))
    condition, noise = model.encode(units, hertz, mel2ph, lengths), torch.randn(2, 1, 6, 21)
    start = torch.rand(2, 21, 6) - 4
    kept = kept_signal()[199].float()
    x = kept.sqrt() * model.normalize(start) + (1 - kept).sqrt() * noise
    expected = plain_plms(of_noise(model, condition), x, kept_signal().float(), range(180, -1, -20), 20)
    mel = model.sample(condition, 50, noise=noise, start=start, depth=200)
    assert furthest(model.normalize(mel), expected) < 1e-5 * float(expected.abs().max())
    count = []
    for sampler in SAMPLERS:
        mel = model.sample(
            condition, 50, sampler, noise, lengths, start=start, depth=200, progress=lambda *d: count.append(d)
        )
        assert mel.isfinite().all()
    assert count[-1] == (10, 10)  # a fifth of the steps for a fifth of the times


def test_ddpm_is_ancestral_sampling():
    model = made().requires_grad_(False)
    units, hertz, mel2ph, _ = inputs(model, (9, 9))
    condition, noise = model.encode(units, hertz, mel2ph), torch.randn(2, 1, 6, 9)
    start, depth = torch.rand(2, 9, 6) - 4, 30
    x = kept_signal()[depth - 1].sqrt() * model.normalize(start) + (1 - kept_signal()[depth - 1]).sqrt() * noise
    x, generator = x.float(), torch.Generator().manual_seed(5)
    tables = {name: tensor.double() for name, tensor in model.named_buffers()}
    for t in reversed(range(depth)):
        e = model.denoise(x, torch.full((2,), t), condition)
        clean = (tables["sqrt_recip_alphas_cumprod"][t] * x - tables["sqrt_recipm1_alphas_cumprod"][t] * e).clamp(-1, 1)
        mean = tables["posterior_mean_coef1"][t] * clean + tables["posterior_mean_coef2"][t] * x
        fresh = torch.randn(2, 54, generator=generator).view_as(x) if t else 0  # not drawn at t = 0
        x = (mean + (0.5 * tables["posterior_log_variance_clipped"][t]).exp() * fresh).float()
    mel = model.sample(condition, 1000, "ddpm", noise, start=start, depth=depth, seed=5)
    assert furthest(model.normalize(mel), x) < 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("predicts", ["noise", "x0"])
def test_batches_of_all_samplers(sampler, predicts):
    model = made(predicts=predicts).requires_grad_(False)
    units, hertz, mel2ph, lengths = inputs(model)
    condition, noise = model.encode(units, hertz, mel2ph, lengths), torch.randn(2, 1, 6, 21)
    noise[1, :, :, 13:], condition[1, :, 13:] = torch.nan, torch.nan
    whole = model.sample(condition, 20, sampler, noise, lengths, seed=3)
    assert whole.shape == (2, 21, 6) and torch.equal(whole[1, 13:], model.spec_min[0].expand(8, 6))
    if sampler == "ddpm":  # draws its own noise, so that only its seed counts
        assert torch.equal(whole, model.sample(condition, 20, sampler, noise, lengths, seed=3))
        assert not torch.equal(whole, model.sample(condition, 20, sampler, noise, lengths, seed=4))
        return
    for item, length in enumerate(lengths.tolist()):
        single = model.sample(condition[[item], :, :length], 20, sampler, noise[[item], :, :, :length])
        assert furthest(whole[item, :length], single[0]) < 1e-5 * float(single.abs().max())


def test_seeds(model):
    condition = torch.randn(1, 12, 7)
    first, again, other = (model.sample(condition, 4, "unipc", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(model.sample(condition, 4, "unipc"), first)


def two_peaks(width):
    """Noise in x by Bayes' rule, where clean data are equal Gaussians at +-.5: nothing to learn."""
    kept = (1 - linear_betas()).cumprod(0)

    def predict(x, t):
        a = kept[t][:, None]
        variance, means = a * width**2 + 1 - a, a.sqrt() * torch.tensor([-0.5, 0.5], dtype=torch.float64)
        away = x[:, None] - means
        share = (-away.square() / (2 * variance)).softmax(dim=1)
        return (1 - a[:, 0]).sqrt() * (share * away / variance).sum(dim=1)

    return predict


def test_samplers_on_an_exact_score():
    noise = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def error(width, sampler, steps):
        return float((sample_with(two_peaks(width), noise, steps, sampler) - truth).abs().mean())

    for width in (0.05, 0.1):
        truth = sample_with(two_peaks(width), noise, 1000, "ddim")
        assert abs(float(truth.abs().mean()) - 0.5) < 0.01 and float(truth.abs().std()) < 1.2 * width
        few = error(width, "unipc", 20)
        assert few <= error(width, "plms", 20) / 10 and few <= error(width, "plms", 50)
        assert error(width, "dpm++", 20) <= error(width, "plms", 20) / 5
    truth = sample_with(two_peaks(0.4), noise, 1000, "ddim")
    assert error(0.4, "plms", 20) <= 0.6 * error(0.4, "unipc", 20)  # wide data favour even times


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 30}, 'steps: 30; expected a divisor of 1000 for "plms". Use 25, or another sampler'),
        ({"steps": 1}, "steps: 1; expected a whole number from 2 to 1000"),
        ({"steps": 2000}, "steps: 2000"),
        ({"sampler": "unipcc"}, "sampler: 'unipcc'.*Did you mean 'unipc'"),
        ({"depth": 100}, "depth: given without start"),
        ({"start": torch.zeros(1, 7, 6)}, "start: given without depth"),
        ({"start": torch.zeros(1, 7, 6), "depth": 1001}, "depth: 1001; expected a whole number from 2 to 1000"),
        ({"start": torch.zeros(1, 7, 6), "depth": 10}, "two steps or more"),
        ({"start": torch.zeros(1, 8, 6), "depth": 200}, r"start: \(1, 8, 6\); expected \(1, 7, 6\)"),
        ({"start": torch.full((1, 7, 6), torch.nan), "depth": 200}, "noise or start: NaN"),
        ({"noise": torch.zeros(1, 1, 6, 8)}, r"noise: \(1, 1, 6, 8\); expected \(1, 1, 6, 7\)"),
        ({"lengths": torch.tensor([8])}, r"lengths: \[8\]; expected 1 numbers from 1 to 7"),
        ({"lengths": torch.tensor([0])}, r"lengths: \[0\]"),
        ({"lengths": torch.tensor([3, 3])}, r"lengths: \[3, 3\]"),
        ({"condition": torch.full((1, 12, 7), torch.inf)}, "condition: NaN or infinite"),
    ],
)
def test_sampling_that_is_refused(model, change, words):
    with pytest.raises((ParameterError, ShapeError), match=words):
        model.sample(**{"condition": torch.zeros(1, 12, 7)} | change)


def test_conditions_that_are_refused(model):
    units, hertz, mel2ph, lengths = inputs(model)
    nan = hertz.clone()
    nan[0, 4] = torch.nan
    for values, words in (
        ((torch.zeros(2, 12, 768), hertz, mel2ph, lengths), r"units: 768 wide; expected 12.*unit_size=768"),
        ((units, nan, mel2ph, lengths), "hertz: NaN"),
        ((units, -hertz, mel2ph, lengths), "hertz: NaN, infinite or negative"),
        ((units * torch.nan, hertz, mel2ph, lengths), "units: NaN"),
        ((units, hertz, mel2ph + 2, lengths), "mel2ph: 0 to 13; expected 0 to 12, the number of units"),
        ((units, hertz, mel2ph - 5, lengths), "mel2ph: -4 to"),
        ((units, hertz[:, :5], mel2ph, lengths), "units: .* with hertz .2, 5. and mel2ph .2, 21."),
        ((units[:1], hertz, mel2ph, lengths), "units: .1, 12, 12. with"),
        ((units, hertz, mel2ph, lengths, torch.tensor([0, 0])), "singers: given; expected None"),
    ):
        with pytest.raises((ParameterError, ShapeError), match=words):
            model.encode(*values)
    x = torch.zeros(2, 1, 6, 21)
    for shapes_ in ((x[:, :, :5], torch.zeros(2), 12, 21), (x, torch.zeros(1), 12, 21), (x, torch.zeros(2), 12, 20)):
        with pytest.raises(ShapeError, match="condition"):
            model.denoise(*shapes_[:2], torch.zeros(2, *shapes_[2:]))
    for low, high, words in (
        ([-5.0] * 5, None, "spec_min: 5 values; expected 6"),
        (None, [-5.0] * 6, "range -5 to -5 in bin 0"),
        (None, [math.nan] * 6, "in bin 0; expected finite"),
    ):
        with pytest.raises(ParameterError, match=words):
            DiffusionSVC(model.config, low, high)


def test_singers_and_mixtures():
    model = made(singers=3).requires_grad_(False)
    units, hertz, mel2ph, lengths = inputs(model)

    def encode(singers):
        return model.encode(units, hertz, mel2ph, lengths, singers)

    apart = torch.stack([encode(torch.tensor([k, k])) for k in range(3)])
    weights = torch.tensor([[0.25, 0.75, 0], [0.2, 0.3, 0.5]])
    assert furthest(encode(weights), torch.einsum("bs,sbht->bht", weights, apart)) < 1e-6
    assert torch.equal(encode(torch.tensor([2, 0]))[0], apart[2, 0]) and furthest(apart[1], apart[2]) > 0.1
    for singers, words in (
        (None, r"singers: None; expected \(2,\) numbers from 0 to 2, or \(2, 3\) weights"),
        (torch.tensor([0, 3]), r"singers: \[0, 3\]"),
        (weights[:, :2], "singers: "),
        (weights * torch.nan, "singers: "),
    ):
        with pytest.raises(ParameterError, match=words):
            encode(singers)
    one = made(singers=1)
    assert torch.equal(
        one.encode(units, hertz, mel2ph, lengths), one.encode(units, hertz, mel2ph, lengths, torch.tensor([0, 0]))
    )


# Dtypes, shapes, files


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-6), (torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_other_dtypes(dtype, limit):
    model = made().requires_grad_(False)
    units, hertz, mel2ph, lengths = inputs(model)
    noise = torch.randn(2, 1, 6, 21)
    expected = model.sample(model.encode(units, hertz, mel2ph, lengths), 10, "unipc", noise, lengths)
    before = model.betas.clone(), model.spec_min.clone()
    model = model.to(dtype)
    condition = model.encode(units.to(dtype), hertz, mel2ph, lengths)
    mel = model.sample(condition, 10, "unipc", noise, lengths)  # the noise follows
    assert condition.dtype == mel.dtype == dtype and furthest(mel, expected) < limit * float(expected.abs().max())
    assert torch.equal(model.betas, before[0]) and torch.equal(model.spec_min, before[1])  # in float32 as before
    loss = model.loss(mel.float(), condition, lengths, torch.tensor([5, 800]), noise)
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_shapes_have_formulas():
    model = made(layers=2)
    units, hertz, mel2ph, _ = inputs(model, (20, 20))
    dims = {"units": "B U 12", "hertz": "B T", "mel2ph": "B T"}
    trace = shapes.trace(model.encode, units.nan_to_num(), hertz, mel2ph.clamp(max=10), dims=dims)
    assert [info.formula for info in trace[0].outputs] == ["(B, 12, T)"]
    lengths = torch.tensor([20, 11])
    dims = {"x": "B 1 6 T", "t": "B", "condition": "B 12 T", "lengths": "B"}
    given = {"x": torch.randn(2, 1, 6, 20), "t": torch.tensor([1, 2]), "condition": torch.randn(2, 12, 20)}
    trace = shapes.trace(model, **given, lengths=lengths, dims=dims)
    assert [info.formula for info in trace[0].outputs] == ["(B, 1, 6, T)"]
    assert not any("other sizes" in note for note in trace.notes)


def fingerprint(named):
    lines = sorted(f"{name} {list(shape)}" for name, shape in named.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_published_names_and_sizes():
    with torch.device("meta"):
        model = DiffusionSVC()
    names = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert sum(p.numel() for p in model.denoise_fn.parameters()) == 31_956_224
    assert sum(p.numel() for p in model.parameters()) == 31_956_224 + 76_800
    assert (model.receptive_field, fingerprint(names)) == (75, "65500951001ec27e")
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "diffsvc_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    published = json.loads(path.read_text())["acoustic_model"]
    dead = {
        name: shape for name, shape in published.items() if name.startswith(("fs2.mel_out.", "fs2.pitch_predictor."))
    }
    assert {**names, **dead} == published
    count = sum(math.prod(shape) for name, shape in dead.items() if not name.endswith("_float_tensor"))
    assert sum(p.numel() for p in model.parameters()) + count == 33_708_675


def written(folder, model, changes=None, **config):
    """A file as the published training writes it."""
    folder.mkdir(exist_ok=True)
    dead = {"fs2.mel_out.weight": torch.zeros(6, 12), "fs2.pitch_predictor.conv.0.1.bias": torch.zeros(12)}
    dead["fs2.pitch_predictor.embed_positions._float_tensor"] = torch.zeros(1)
    state = {f"model.{name}": tensor for name, tensor in {**model.state_dict(), **dead, **(changes or {})}.items()}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 8e-4, "params": [0]}]}
    content = {"epoch": 3, "global_step": 2000, "checkpoint_callback_best": 0.1, "optimizer_states": [optimizer]}
    torch.save({**content, "lr_schedulers": [], "state_dict": state}, folder / "model_ckpt_steps_2000.ckpt")
    if config:
        (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in config.items()))
    return folder / "model_ckpt_steps_2000.ckpt"


def test_a_published_file(model, tmp_path):
    low, high = (each.flatten().tolist() for each in (model.spec_min, model.spec_max))
    config = {"dilation_cycle_length": 2, "residual_layers": 4, "spec_min": low, "spec_max": high, "no_fs2": "true"}
    config |= {"timesteps": 1000, "K_step": 1000, "max_beta": 0.02, "hidden_size": 12, "lr": 8e-4}
    found = DiffusionSVC.from_checkpoint(written(tmp_path, model, **config))
    assert found.config == model.config
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.state_dict().items())
    assert found.ignored == (
        "fs2.mel_out.weight", "fs2.pitch_predictor.conv.0.1.bias", "fs2.pitch_predictor.embed_positions._float_tensor"
    )  # fmt: skip
    assert DiffusionSVC.from_checkpoint(written(tmp_path / "bare", model)).config.cycle == 4
    assert DiffusionSVC.from_checkpoint(written(tmp_path, model), cycle=3).config.cycle == 3
    assert DiffusionSVC.from_checkpoint(written(tmp_path, model, {"fs2.mel_out.weight": None})).receptive_field == 6
    other = linear_betas(500, 0.01)
    with pytest.raises(CheckpointError, match=r"alphas_cumprod is \(1000,\) for \(500,\)"):
        DiffusionSVC.from_checkpoint(written(tmp_path, model, {"betas": other.float()}))
    template = {name: torch.full((1, 1, 1), value) for name, value in (("spec_min", -5.0), ("spec_max", 0.0))}
    wide = DiffusionSVC.from_checkpoint(
        written(tmp_path / "template", model, template, spec_min="[-5]", spec_max="[0.0]")
    )
    assert wide.spec_min.shape == (1, 1, 6) and (wide.spec_min == -5).all()


def test_the_schedule_of_the_file_is_used(model, tmp_path):
    """The published module builds another one where it is imported too early, and only the file repairs it."""
    short = made(max_beta=0.01)
    found = DiffusionSVC.from_checkpoint(written(tmp_path, short), cycle=2)
    assert found.config.max_beta == 0.01 and torch.equal(found.betas, short.betas)
    condition, noise = torch.randn(1, 12, 9), torch.randn(1, 1, 6, 9)
    assert furthest(found.sample(condition, 10, noise=noise), model.sample(condition, 10, noise=noise)) > 0.01


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"residual_layers": 20}, "residual_layers is 20; expected 4, as in the weights"),
        ({"max_beta": 0.01}, r"max_beta is 0.01; expected 0.02"),
        ({"spec_min": [-5.0] * 6}, r"spec_min is \[-5.0, .*expected \[-5.*as in the weights.*cycle="),
        ({"spec_max": [1.0] * 7}, "spec_max is"),
        ({"no_fs2": "false"}, "no_fs2 is False; expected True"),
        ({"timesteps": 100}, "timesteps is 100; expected 1000"),
        ({"hidden_size": "wide"}, "hidden_size is wide; expected 12"),
        ({"dilation_cycle_length": 0}, "its settings: cycle: 0; expected 1 to 16"),
        ({"a": "[1"}, "config.yaml: cannot be read"),
    ],
)
def test_configuration_that_disagrees(model, config, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        DiffusionSVC.from_checkpoint(written(tmp_path, model, **config))


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_files_that_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for changes, words in (
        ({"denoise_fn.mlp.0.bias": None}, r"1 missing \(denoise_fn.mlp.0.bias"),
        ({"fs2.encoder.layers.0.weight": torch.zeros(3)}, r"1 unexpected \(fs2.encoder"),
        ({"spk_embed_proj.weight": torch.zeros(3)}, r"1 unexpected \(spk_embed_proj"),
        ({"denoise_fn.mlp.0.bias": torch.zeros(3)}, r"denoise_fn.mlp.0.bias is \(3,\) for \(64,\)"),
        ({"posterior_variance": None}, "1 missing .posterior_variance"),
        ({"spec_max": model.spec_min}, "range .* in bin 0"),
    ):
        with pytest.raises(CheckpointError, match=words):
            DiffusionSVC.from_checkpoint(written(tmp_path, model, changes))
    torch.save({"state_dict": {"model.betas": torch.zeros(4)}, "epoch": Harmful()}, tmp_path / "harm.ckpt")
    with pytest.raises(CheckpointError, match="refused, and nothing in it was executed"):
        DiffusionSVC.from_checkpoint(tmp_path / "harm.ckpt")
    assert not (tmp_path / "harmed").exists()
    torch.save({"fc1.weight": torch.zeros(4, 4)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        DiffusionSVC.from_checkpoint(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="No such file"):
        DiffusionSVC.from_checkpoint(tmp_path / "none.ckpt")


def test_saved_and_loaded(tmp_path):
    model = made(singers=2, unit_size=7, predicts="x0", clip_notes=False)
    model.save(tmp_path / "model")
    found = DiffusionSVC.load(tmp_path / "model")
    assert found.config == model.config and found.ignored == ()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.state_dict().items())
    (tmp_path / "model/config.json").write_text(json.dumps({"model": "DiffusionSVC", "settings": {"layers": 0}}))
    with pytest.raises(CheckpointError, match="its settings: layers: 0"):
        DiffusionSVC.load(tmp_path / "model")
    (tmp_path / "model/config.json").write_text(json.dumps({"model": "CAVMAE"}))
    with pytest.raises(CheckpointError, match="'CAVMAE'; expected 'DiffusionSVC'"):
        DiffusionSVC.load(tmp_path / "model")


def test_steps_of_a_training_are_not_those_of_diffusion():
    network = changed(svc.tiny, {"diffusion.steps": 3}).diffusion.network
    assert network.timesteps == 1000
