"""The unit vocoder against a slow one in float64 that follows the fact sheet, and against transformers' SeamlessM4T."""

import copy
import hashlib
import json
import os
from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

from avlib import shapes
from avlib.errors import CheckpointError, ParameterError, ShapeError
from avlib.models import hifigan
from avlib.models.durations import DurationConfig, process_duration, scale_durations
from avlib.models.unit_vocoder import Config, UnitVocoder

K = 30
TINY = Config(
    num_embeddings=K,
    embedding_dim=8,
    model_in_dim=16,
    embedder_dim=12,
    upsample_initial_channel=32,
    dur_predictor_params=DurationConfig(encoder_embed_dim=8, var_pred_hidden_dim=10),
)
PUBLISHED = {
    "resblock": "1",
    "num_gpus": 0,
    "batch_size": 16,
    "learning_rate": 0.0002,
    "adam_b1": 0.8,
    "adam_b2": 0.99,
    "lr_decay": 0.999,
    "seed": 1234,
    "upsample_rates": [5, 4, 4, 2, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_embeddings": 1000,
    "embedding_dim": 128,
    "model_in_dim": 256,
    "multispkr": True,
    "embedder_params": True,
    "embedder_dim": 256,
    "segment_size": 8960,
    "code_hop_size": 320,
    "f0": False,
    "num_mels": 80,
    "num_freq": 1025,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "dur_prediction_weight": 1.0,
    "dur_predictor_params": {
        "encoder_embed_dim": 128,
        "var_pred_hidden_dim": 128,
        "var_pred_kernel_size": 3,
        "var_pred_dropout": 0.5,
    },
    "sampling_rate": 16000,
    "fmin": 0,
    "fmax": 8000,
    "fmax_for_loss": None,
    "num_workers": 4,
    "dist_config": {"dist_backend": "nccl", "dist_url": "env://"},
    "input_training_file": "train.txt",
    "input_validation_file": "val.txt",
}


def lively(model):
    """Weights that keep the signal's size, biases that show in padding, and durations from 1 to about 6."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight_g"):
                parameter *= 2.5 if name.startswith(("ups", "conv_p")) else 1.5
            elif name.endswith("bias") or ".ln" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        if model.dur_predictor:
            model.dur_predictor.proj.weight *= 1.5
            model.dur_predictor.proj.bias += 0.5
    return model


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return lively(UnitVocoder(TINY)).eval().requires_grad_(False)


def drawn(*lengths, seed=1):
    """Units with runs, and speakers."""
    generator = torch.Generator().manual_seed(seed)
    units = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in zip(units, lengths, strict=True):
        runs = torch.randint(0, K, (length,), generator=generator)
        row[:length] = runs.repeat_interleave(torch.randint(1, 4, (length,), generator=generator))[:length]
    return units, torch.randn(len(lengths), 12, generator=generator)


def furthest(found, expected):
    return float((found.double() - expected.double()).abs().max())


# The slow vocoder, of one item, in float64. `state` has published names.


def conv(state, name, x, transposed=False, **how):
    weight = state.get(f"{name}.weight")
    if weight is None:
        v = state[f"{name}.weight_v"]
        weight = v / v.square().sum((1, 2), keepdim=True).sqrt() * state[f"{name}.weight_g"]
    run = F.conv_transpose1d if transposed else F.conv1d
    return run(x, weight, state[f"{name}.bias"], **how)


def slow_waveform(state, units, speaker):
    rates, kernels = (5, 4, 4, 2, 2), (11, 8, 8, 4, 4)
    speaker = state["spkr.weight"] @ speaker + state["spkr.bias"]
    x = torch.stack([torch.cat([state["dict.weight"][unit], speaker]) for unit in units], dim=1)[None]
    x = conv(state, "conv_pre", x, padding=3)
    for i, (rate, kernel) in enumerate(zip(rates, kernels, strict=True)):
        x = conv(state, f"ups.{i}", F.leaky_relu(x, 0.1), True, stride=rate, padding=(kernel - rate) // 2)
        outputs = []
        for j, size in enumerate((3, 7, 11)):
            y, name = x, f"resblocks.{3 * i + j}"
            for k, dilation in enumerate((1, 3, 5)):
                z = F.leaky_relu(y, 0.1)
                z = conv(state, f"{name}.convs1.{k}", z, dilation=dilation, padding=(size * dilation - dilation) // 2)
                y = y + conv(state, f"{name}.convs2.{k}", F.leaky_relu(z, 0.1), padding=(size - 1) // 2)
            outputs.append(y)
        x = sum(outputs) / 3
    return conv(state, "conv_post", F.leaky_relu(x, 0.01), padding=3).tanh()[0]


def slow_log_durations(state, x):
    """Of features (N, width); a convolution as a sum over three places."""
    for number in (1, 2):
        weight, bias = (state[f"dur_predictor.conv{number}.0.{part}"] for part in ("weight", "bias"))
        padded = F.pad(x, (0, 0, 1, 1))
        x = sum(padded[k : k + len(x)] @ weight[:, :, k].T for k in range(3)) + bias
        x = x.clamp(min=0)
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = x * state[f"dur_predictor.ln{number}.weight"] + state[f"dur_predictor.ln{number}.bias"]
    return x @ state["dur_predictor.proj.weight"][0] + state["dur_predictor.proj.bias"]


def slow_runs(units):
    """Place and duration of the runs that count; fact sheet, section 7."""
    runs, place = [], 0
    for _, run in groupby(units):
        length = len(list(run))
        runs.append((place, place + length - 1, length))
        place += length
    if len(runs) > 2:
        return [(first, length) for first, _, length in runs[1:-1]]
    return [(last, length) for _, last, length in runs]


def doubles(model):
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("plain", [False, True], ids=["weight norm", "removed"])
def test_waveform_equals_the_slow_one(tiny, plain):
    model = copy.deepcopy(tiny)
    if plain:
        model.remove_weight_norm()
        assert not any("weight_g" in name or "weight_v" in name for name in model.state_dict())
    units, speaker = drawn(13, 13)
    out = model(units, speaker)
    assert out.waveform.shape == (2, 1, 320 * 13) and out.duration_loss is None
    assert torch.equal(out.units, units) and torch.equal(out.durations, torch.ones_like(units))
    assert out.lengths.tolist() == [4160, 4160]
    for row in range(2):
        expected = slow_waveform(doubles(model), units[row].tolist(), speaker[row].double())
        assert expected.std() > 0.05 and furthest(out.waveform[row], expected) < 1e-6


def test_durations_equal_the_slow_ones(tiny):
    units, speaker = drawn(40)
    out, state = tiny(units, speaker, predict_durations=True), doubles(tiny)
    log = slow_log_durations(state, state["dict.weight"][units[0]])
    assert furthest(tiny.dur_predictor(tiny.dict(units))[0], log) < 1e-5
    expected = [max(1, round(float(value.exp()) - 1)) for value in log]
    assert out.durations[0].tolist() == expected and len(set(expected)) > 3
    assert out.units[0].tolist() == [
        unit for unit, d in zip(units[0].tolist(), expected, strict=True) for _ in range(d)
    ]
    assert out.lengths.tolist() == [320 * sum(expected)] == [out.waveform.shape[2]]
    assert furthest(out.waveform, tiny(out.units, speaker).waveform) < 1e-6


def test_the_same_network_inside_transformers():
    from transformers import SeamlessM4TConfig
    from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TCodeHifiGan

    config = SeamlessM4TConfig(
        unit_hifi_gan_vocab_size=K,
        unit_embed_dim=16,
        lang_embed_dim=0,
        spkr_embed_dim=16,
        vocoder_num_langs=1,
        vocoder_num_spkrs=1,
        upsample_initial_channel=64,
    )
    torch.manual_seed(0)
    sizes = {"embedding_dim": 16, "model_in_dim": 32, "upsample_initial_channel": 64}
    model = UnitVocoder(replace(TINY, **sizes, dur_predictor_params=DurationConfig(16, 16)))
    model, theirs = lively(model).eval(), SeamlessM4TCodeHifiGan(config).eval()
    theirs.speaker_embedding = torch.nn.Linear(12, 16)
    model.remove_weight_norm()
    new = {"dict": "unit_embedding", "spkr": "speaker_embedding", "ups": "hifi_gan.upsampler"}
    new |= {name: f"hifi_gan.{name}" for name in ("conv_pre", "resblocks", "conv_post")}
    state = {}
    for name, tensor in model.state_dict().items():
        first, _, rest = name.partition(".")
        if first == "dur_predictor":
            rest = rest.replace(".0.", ".")
        state[f"{new.get(first, first)}.{rest}"] = tensor
    assert theirs.load_state_dict(state, strict=False) == (["language_embedding.weight"], [])
    units, speaker = drawn(25)
    with torch.no_grad():
        out = model(units, speaker, predict_durations=True)
        expected, _ = theirs(units, speaker[:, None], torch.zeros(1, 1, dtype=torch.int64))
    assert out.durations.unique().numel() > 2 and expected.std() > 0.05
    assert furthest(out.waveform[:, 0], expected) < 1e-6 and out.lengths.tolist() == [expected.shape[1]]


def test_204_units_are_65280_samples(tiny):
    out = tiny(torch.arange(204)[None] % K, drawn(1)[1])
    assert out.waveform.shape == (1, 1, 65280) and out.waveform.isfinite().all()


# Batches of different lengths

LENGTHS = (17, 5, 1, 11)


@pytest.mark.parametrize("how", [{}, {"predict_durations": True}, {"predict_durations": True, "total": 61}], ids=str)
@pytest.mark.parametrize("padding", [0, 9, -1])
def test_a_row_of_a_batch_gives_what_it_gives_alone(tiny, how, padding):
    units, speaker = drawn(*LENGTHS)
    for row, length in zip(units, LENGTHS, strict=True):
        row[length:] = padding
    out = tiny(units, speaker, lengths=torch.tensor(LENGTHS), **how)
    for row, length in enumerate(LENGTHS):
        alone = tiny(units[row : row + 1, :length], speaker[row], **how)
        samples = int(out.lengths[row])
        assert alone.waveform.shape == (1, 1, samples) and alone.waveform.std() > 0.05
        assert furthest(out.waveform[row, :, :samples], alone.waveform[0]) < 1e-5
        assert torch.equal(out.durations[row, :length], alone.durations[0])
        assert torch.equal(out.units[row, : samples // 320], alone.units[0])
        for beyond in (out.waveform[row, :, samples:], out.durations[row, length:], out.units[row, samples // 320 :]):
            assert not beyond.any()
    assert out.lengths.max() == out.waveform.shape[2]
    if "total" in how:
        assert out.durations.sum(1).tolist() == [61] * 4


@pytest.mark.parametrize("where", ["avlib.models.hifigan", "avlib.models.durations"])
def test_without_masks_it_would_not(tiny, monkeypatch, where):
    units, speaker = drawn(*LENGTHS)
    how = {"lengths": torch.tensor(LENGTHS), "predict_durations": where.endswith("durations")}
    with_masks = tiny(units, speaker, **how)
    log = tiny.dur_predictor(tiny.dict(units), torch.arange(17) < how["lengths"][:, None])
    monkeypatch.setattr(f"{where}.masked", lambda x, mask: x)
    if how["predict_durations"]:
        without = tiny.dur_predictor(tiny.dict(units), torch.arange(17) < how["lengths"][:, None])
        assert furthest(without[1, :5], log[1, :5]) > 1e-2
    else:
        assert furthest(tiny(units, speaker, **how).waveform[1, :, :1600], with_masks.waveform[1, :, :1600]) > 1e-3


def test_totals_of_each_row(tiny):
    units, speaker = drawn(7, 7)
    out = tiny(units, speaker, predict_durations=True, total=torch.tensor([7, 40]))
    assert out.durations.sum(1).tolist() == [7, 40] and out.durations[0].tolist() == [1] * 7
    assert out.lengths.tolist() == [320 * 7, 320 * 40] and not out.waveform[0, :, 320 * 7 :].any()


# Durations that fill a time


@pytest.mark.parametrize(
    ("durations", "total", "expected"),
    [
        ([2, 3, 5], 20, [4, 6, 10]),
        ([2, 3, 5], 5, [1, 2, 2]),  # quotas 1, 1.5, 2.5: of equal remainders the earlier one
        ([3, 3, 3], 10, [4, 3, 3]),
        ([1, 1, 8], 5, [1, 1, 3]),  # quotas .5, .5, 4: two become 1, and 3 are left
        ([1, 3, 3, 30], 9, [1, 1, 1, 6]),  # .24, .73, .73, 7.3
        ([4, 10, 100], 9, [1, 1, 7]),  # .32, .79; then 100 of 7
        ([6, 7, 50, 50], 17, [1, 1, 8, 7]),  # .9, 1.05, 7.5; then .957, 7.48; then 7.5, 7.5
        ([9], 4, [4]),
    ],
)
def test_quotas_by_hand(durations, total, expected):
    assert scale_durations(torch.tensor(durations), total).tolist() == expected


def slow_quotas(durations, total):
    fixed = set()
    while True:
        free = [i for i in range(len(durations)) if i not in fixed]
        scale = Fraction(total - len(fixed), sum(durations[i] for i in free))
        quotas = [Fraction(1) if i in fixed else d * scale for i, d in enumerate(durations)]
        if min(quotas) >= 1:
            break
        fixed |= {i for i, quota in enumerate(quotas) if quota < 1}
    floors = [int(quota) for quota in quotas]
    order = sorted(range(len(quotas)), key=lambda i: (floors[i] - quotas[i], i))
    return [floor + (i in order[: total - sum(floors)]) for i, floor in enumerate(floors)]


def test_quotas_equal_exact_fractions():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        count = int(torch.randint(1, 30, (), generator=generator))
        durations = torch.randint(1, 20, (count,), generator=generator)
        total = count + int(torch.randint(0, 200, (), generator=generator))
        scaled = scale_durations(durations, total)
        assert scaled.tolist() == slow_quotas(durations.tolist(), total)
        assert scaled.sum() == total and scaled.min() >= 1 and scaled.dtype == torch.int64


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"total": 100}, "total: 100 without predicted durations; expected None"),
        ({"predict_durations": True, "total": 6}, "total: 6; expected at least 7"),
        ({"predict_durations": True, "total": 0}, "total: 0"),
    ],
)
def test_totals_that_are_refused(tiny, how, words):
    with pytest.raises(ParameterError, match=words):
        tiny(*drawn(7), **how)


# The duration loss


def test_runs_of_the_fact_sheet():
    """Runs 0, 37 x 2, 74 x 5, ... of 28 units: the first and the last are dropped."""
    runs = [(0, 1), (37, 2), (74, 5), (111, 3), (148, 3), (185, 5), (222, 2), (259, 1), (296, 2), (333, 4)]
    units = torch.tensor([[unit for unit, count in runs for _ in range(count)]])
    features, mask, durations = process_duration(units, units[..., None].float())
    assert units.shape == (1, 28) and mask.all() and durations.tolist() == [2, 5, 3, 3, 5, 2, 1, 2]
    assert features[0, :, 0].tolist() == [37, 74, 111, 148, 185, 222, 259, 296]


def test_process_duration_equals_plain_loops():
    units = torch.tensor([[1, 1, 2, 2, 2, 1, 1, 3], [4] * 8, [4, 4, 4, 4, 4, 4, 5, 5], [1, 2, 3, 4, 5, 6, 6, 6]])
    features = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(0))
    for ends in ([8, 8, 8, 8], [8, 3, 8, 5]):
        lengths = None if sum(ends) == 32 else torch.tensor(ends)
        found, mask, durations = process_duration(units, features, lengths)
        kept = [slow_runs(row[:end]) for row, end in zip(units.tolist(), ends, strict=True)]
        assert durations.tolist() == [length for row in kept for _, length in row] and durations.is_floating_point()
        assert mask.sum(1).tolist() == list(map(len, kept)) and mask.shape[1] == max(map(len, kept))
        for row, places in enumerate(kept):
            assert torch.equal(found[row, : len(places)], features[row, [place for place, _ in places]])
            assert not found[row, len(places) :].any()


def test_duration_loss_equals_the_slow_one(tiny):
    """As published: rows are padded with zeros before the first convolution, and nothing is masked after it."""
    model = copy.deepcopy(tiny).train()
    model.dur_predictor.eval()  # without dropout
    units, speaker = drawn(28, 28, 28)
    units[1] = units[1, 0]  # a single run
    out, state = model(units, speaker), doubles(model)
    kept = [slow_runs(row) for row in units.tolist()]
    longest, errors = max(map(len, kept)), []
    for row, places in zip(units.tolist(), kept, strict=True):
        x = torch.zeros(longest, 8, dtype=torch.float64)
        for i, (place, _) in enumerate(places):
            x[i] = state["dict.weight"][row[place]]
        log = slow_log_durations(state, x)
        errors += [(log[i] - torch.tensor(length + 1.0).double().log()) ** 2 for i, (_, length) in enumerate(places)]
    assert out.duration_loss.shape == () and furthest(out.duration_loss, torch.stack(errors).mean()) < 1e-6
    assert furthest(out.waveform, tiny(units, speaker).waveform) == 0
    model.dur_predictor.train()
    assert float(model(units, speaker).duration_loss) != float(model(units, speaker).duration_loss)


def test_gradients_reach_every_parameter(tiny):
    model = copy.deepcopy(tiny).requires_grad_().train()
    out = model(*drawn(28, 28), lengths=torch.tensor([28, 20]))
    (out.waveform.square().sum() + out.duration_loss).backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []
    copy.deepcopy(model)


# The published pair


def test_the_published_pair(tiny):
    units, speaker = drawn(9, 9)
    waveform, code = tiny.published(units, speaker[:, None])
    assert code is units and torch.equal(waveform, tiny(units, speaker).waveform)
    waveform, code = tiny.published(units[:1], speaker[:1, None], dur_prediction=True)
    out = tiny(units[:1], speaker[:1], predict_durations=True)
    assert torch.equal(code, out.units[0]) and torch.equal(waveform, out.waveform)
    assert tiny.published(units, speaker, True)[1].shape == (int(tiny(units, speaker, True).durations.sum()),)
    model = copy.deepcopy(tiny).train()
    torch.manual_seed(0)
    waveform, loss = model.published(units, speaker)
    torch.manual_seed(0)
    assert torch.equal(loss, model(units, speaker).duration_loss)
    with pytest.raises(ParameterError, match="predict_durations: True in training"):
        model.published(units, speaker, dur_prediction=True)


# Input


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ([[1, 2, 29], [0, 30, 4]], "units: 30 at row 1, position 1; expected 0 to 29, .*K = 30"),
        ([[1, -2, 3]], "units: -2 at row 0, position 1"),
        ([[]], "units: .*expected whole numbers"),
        ([[4, 33, 20]], "33 at row 0, position 1.*unit_offset=4"),
    ],
)
def test_units_that_are_refused(tiny, units, words):
    with pytest.raises(ParameterError, match=words):
        tiny(torch.tensor(units, dtype=torch.int64), torch.ones(12))


@pytest.mark.parametrize("lengths", [[3, 4], [0, 3], [-1, 3]])
def test_lengths_that_are_refused(tiny, lengths):
    with pytest.raises(ParameterError, match=r"lengths: .*expected 1 to 3 for each of 2 rows"):
        tiny(torch.ones(2, 3, dtype=torch.int64), torch.ones(12), lengths=torch.tensor(lengths))


def test_speakers(tiny):
    units, speaker = drawn(5, 5)
    expected = tiny(units, speaker).waveform
    for given in (speaker[:, None], speaker.double()):
        assert furthest(tiny(units, given).waveform, expected) == 0
    one = tiny(units, speaker[0]).waveform
    assert torch.equal(one, tiny(units, speaker[:1]).waveform) and furthest(one[0], expected[0]) < 1e-6
    assert torch.equal(one, tiny(units, speaker[:1, None]).waveform)
    for wrong, words in ((speaker * float("nan"), "NaN"), (speaker * 0, "zeros"), (speaker / 0, "infinity")):
        with pytest.raises(ParameterError, match=f"speaker: .*{words}"):
            tiny(units, torch.cat([speaker[:1], wrong[:1]]))
    for wrong in (speaker[:, :5], torch.randn(3, 12), torch.randn(2, 2, 12)):
        with pytest.raises(ShapeError, match=r"speaker: .*expected \(2, 12\)"):
            tiny(units, wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_that_of_the_weights(tiny, dtype):
    units, speaker = drawn(6, 4)
    out = copy.deepcopy(tiny).to(dtype)(units.int(), speaker, lengths=torch.tensor([6, 4]))
    assert out.waveform.dtype == dtype and out.units.dtype == out.durations.dtype == out.lengths.dtype == torch.int64
    expected = tiny(units, speaker, lengths=torch.tensor([6, 4])).waveform
    assert furthest(out.waveform, expected) < (0.05 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(tiny):
    units, speaker = drawn(*LENGTHS)
    how = {"predict_durations": True, "total": 40}
    out = copy.deepcopy(tiny).cuda()(units.cuda(), speaker.cuda(), lengths=torch.tensor(LENGTHS), **how)
    expected = tiny(units, speaker, lengths=torch.tensor(LENGTHS), **how)
    assert torch.equal(out.durations.cpu(), expected.durations)
    assert out.waveform.is_cuda and furthest(out.waveform.cpu(), expected.waveform) < 1e-3


def test_the_shape_has_a_formula():
    rates = {"upsample_rates": (20, 16), "upsample_kernel_sizes": (20, 16), "upsample_initial_channel": 4}
    model = UnitVocoder(replace(TINY, **rates, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),))).eval()
    units, speaker = drawn(11, 11)
    given = {"units": units, "speaker": speaker, "lengths": torch.tensor([11, 7])}
    trace = shapes.trace(model, kwargs=given, dims={"units": "B N", "speaker": "B S", "lengths": "B"})
    assert [info.formula for info in trace[0].outputs] == ["(B, 1, 320*N)", "(B, N)", "(B, N)", "(B,)"]
    assert not any("other sizes" in note for note in trace.notes)


@torch.no_grad()
def test_the_middle_of_a_piece_is_that_of_the_whole(tiny):
    assert UnitVocoder.context.fget(SimpleNamespace(config=Config())) == tiny.context == 22
    units, speaker = drawn(120)
    whole = tiny(units, speaker).waveform[0, 0, 50 * 320 : 60 * 320]
    for around, close in [(22, True), (14, False)]:
        part = tiny(units[:, 50 - around : 60 + around], speaker).waveform[0, 0, around * 320 :][: 10 * 320]
        assert (furthest(part, whole) < 1e-6) == close


# Files


def reference():
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "unit2av_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    return json.loads(path.read_text())


def fingerprint(named):
    lines = sorted(f"{name} {list(shape)}" for name, shape in named.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_published_parameters():
    with torch.device("meta"):
        model = UnitVocoder()
    assert sum(parameter.numel() for parameter in model.parameters()) == 13_977_091
    names = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert (len(names), fingerprint(names)) == (304, "e689d0ea1d16749e")
    assert names == reference()["generator"]


@torch.no_grad()
def same(model, expected):
    units, speaker = drawn(6)
    return not model.training and furthest(model(units, speaker).waveform, expected(units, speaker).waveform) < 1e-6


def test_published_containers(tiny, tmp_path):
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        other.conv_post.bias += 0.2
    container = {"audio": {"en": other.state_dict(), "fr": tiny.state_dict()}, "video": {"x": torch.ones(1)}}
    torch.save(container, tmp_path / "unit_av_renderer.pt")
    torch.save({"generator": tiny.state_dict()}, tmp_path / "g_00000020")
    torch.save(tiny.state_dict(), tmp_path / "bare.pt")
    plain = copy.deepcopy(tiny)
    plain.remove_weight_norm()
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    for name in ("g_00000020", "bare.pt", "plain.pt"):
        assert same(UnitVocoder.from_checkpoint(tmp_path / name), tiny)
    path = tmp_path / "unit_av_renderer.pt"
    assert same(UnitVocoder.from_checkpoint(path), other)
    assert same(UnitVocoder.from_checkpoint(path, language="fr"), tiny)
    with pytest.raises(CheckpointError, match=r"no 'ko'.*en, fr"):
        UnitVocoder.from_checkpoint(path, language="ko")
    kept = UnitVocoder.from_checkpoint(tmp_path / "bare.pt", weight_norm=True)
    assert kept.state_dict().keys() == tiny.state_dict().keys() and same(kept, tiny)


def test_a_saved_vocoder_comes_back(tmp_path):
    torch.manual_seed(3)
    rates = {"upsample_rates": [8, 5], "upsample_kernel_sizes": [16, 9], "code_hop_size": 40}
    config = replace(TINY, **rates, resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 2]])
    config = replace(config, dur_predictor_params=None)
    model = UnitVocoder(config).eval()
    model.save(tmp_path / "own")
    loaded = UnitVocoder.from_checkpoint(tmp_path / "own")
    assert same(loaded, model) and loaded(*drawn(6)).waveform.shape == (1, 1, 240)
    assert loaded.train()(*drawn(6)).duration_loss is None
    with pytest.raises(ParameterError, match="predict_durations: True without a duration predictor"):
        loaded.eval()(*drawn(6), predict_durations=True)
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    assert same(UnitVocoder.from_checkpoint(tmp_path / "bare.pt", config=config), model)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        UnitVocoder.from_checkpoint(tmp_path / "bare.pt")


def test_files_that_do_not_fit(tiny, tmp_path):
    state, path = tiny.state_dict(), tmp_path / "bare.pt"
    for content, words in (
        ({name: tensor for name, tensor in state.items() if name != "conv_post.bias"}, "1 missing .conv_post.bias"),
        (state | {"extra": torch.ones(1)}, "1 unexpected .extra"),
        (state | {"ups.0.weight_v": torch.ones(32, 16, 10)}, r"ups.0.weight_v is \(32, 16, 10\) for \(32, 16, 11\)"),
        (state | {"spkr.weight": torch.ones(5)}, r"spkr.weight is \(5,\)"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            UnitVocoder.from_checkpoint(path)
    with pytest.raises(CheckpointError, match="No such file"):
        UnitVocoder.from_checkpoint(tmp_path / "none.pt")


# config.json


def test_the_published_configuration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    assert Config.of(PUBLISHED) == Config()
    forks = PUBLISHED | {"num_embeddings": 1024}
    with torch.device("meta"):
        assert UnitVocoder(Config.of(forks)).dict.weight.shape == (1024, 128)
    without = {name: value for name, value in PUBLISHED.items() if name != "dur_predictor_params"}
    assert Config.of(without).dur_predictor_params is None


def test_a_narrow_file_with_its_configuration(tiny, tmp_path):
    predictor = PUBLISHED["dur_predictor_params"] | {"encoder_embed_dim": 8, "var_pred_hidden_dim": 10}
    narrow = PUBLISHED | {"num_embeddings": K, "embedding_dim": 8, "model_in_dim": 16, "embedder_dim": 12}
    narrow |= {"upsample_initial_channel": 32, "dur_predictor_params": predictor}
    (tmp_path / "config.json").write_text(json.dumps(narrow))
    torch.save({"generator": tiny.state_dict()}, tmp_path / "g_00000020")
    assert same(UnitVocoder.from_checkpoint(tmp_path / "g_00000020", config=tmp_path / "config.json"), tiny)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    with pytest.raises(CheckpointError, match=r"is \(30, 8\) for \(1000, 128\)"):
        UnitVocoder.from_checkpoint(tmp_path / "g_00000020", config=tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"input_training_file": "a.txt",\n /// ... ///\n}')
    with pytest.raises(CheckpointError, match=r"config.json: is not JSON"):
        UnitVocoder.from_checkpoint(tmp_path / "g_00000020", config=tmp_path / "config.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"upsample_rates": [5, 4, 4, 2]}, "upsample_kernel_sizes"),
        ({"upsample_rates": [4, 4, 4, 2, 2]}, "upsample_kernel_sizes: .*each plus an even number"),
        ({"upsample_rates": [5, 4, 4, 4, 2]}, "code_hop_size: 320; expected 640"),
        ({"upsample_rates": "5,4"}, "upsample_rates"),
        ({"model_in_dim": 257}, "model_in_dim: 257; expected twice embedding_dim"),
        ({"upsample_initial_channel": 500}, "upsample_initial_channel: 500"),
        ({"resblock_kernel_sizes": [3, 7]}, "resblock_dilation_sizes"),
        ({"resblock_kernel_sizes": [3, 7, 10]}, "resblock_kernel_sizes: .*odd"),
        ({"num_embeddings": 0}, "num_embeddings: 0; expected 1 or more"),
        ({"num_embeddings": "1000"}, "num_embeddings: found str"),
        ({"resblock": "2"}, "resblock: '2'; expected '1', as published"),
        ({"f0": True}, "f0: True; expected False"),
        ({"multispkr": "_"}, "multispkr: '_'"),
        ({"sampling_rate": 22050}, "sampling_rate: 22050; expected 16000"),
        ({"dur_predictor_params": {"encoder_embed_dim": 64}}, "encoder_embed_dim: 64; expected 128"),
        ({"dur_predictor_params": {"var_pred_kernel_size": 5}}, "var_pred_kernel_size: 5"),
        ({"dur_predictor_params": {"kernel": 5}}, "kernel: .*expected one of encoder_embed_dim"),
    ],
)
def test_configurations_that_are_refused(change, words):
    with pytest.raises(ParameterError, match=words):
        Config.of(PUBLISHED | change)


def test_a_missing_entry_is_named():
    values = {name: value for name, value in PUBLISHED.items() if name != "upsample_rates"} | {"upsample_rate": [5]}
    with pytest.raises(ParameterError, match=r"upsample_rates: missing.*Did you mean 'upsample_rate'"):
        Config.of(values)


def test_weight_norm_equals_pytorchs():
    layer = hifigan.ConvTranspose1d(4, 6, 8, 4, padding=2)
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.ConvTranspose1d(4, 6, 8, 4, padding=2))
    theirs.load_state_dict(layer.state_dict())  # it takes the published names
    with torch.no_grad():
        layer.weight_g *= torch.rand(4, 1, 1)
        theirs.parametrizations.weight.original0.copy_(layer.weight_g)
    x = torch.randn(2, 4, 9)
    assert furthest(layer(x).detach(), theirs(x).detach()) < 1e-6


@pytest.mark.parametrize("bias", [float("nan"), 200.0, 12.0])
def test_durations_of_no_use_are_refused(tiny, bias):
    model = copy.deepcopy(tiny).eval()
    with torch.no_grad():
        model.dur_predictor.proj.weight.zero_()
        model.dur_predictor.proj.bias.fill_(bias)  # exp(12) is 162,755 units, 54 minutes
        with pytest.raises(ParameterError, match="at most 3000"):
            model.predict_durations(torch.tensor([[1, 2]]), total=20)
        model.dur_predictor.proj.bias.fill_(3.0)
        assert model.predict_durations(torch.tensor([[1, 2]])).tolist() == [[19, 19]]  # exp(3) - 1 is 19.1
