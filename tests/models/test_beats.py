"""BEATs against a slow model written out here in float64: loops over heads, distances and samples, plain softmax."""

import hashlib
import json
import math
import os
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torchaudio.compliance import kaldi

from avlib import checkpoints, shapes
from avlib.errors import CheckpointError, ParameterError, TooShortError
from avlib.features import beats_fbank
from avlib.models.beats import BEATs, Config, distance_buckets, length_buckets

# Buckets are few and distances soon far, so that all kinds of them occur among the tokens of a second.
TINY = Config(
    encoder_layers=3,
    encoder_embed_dim=24,
    encoder_ffn_embed_dim=40,
    encoder_attention_heads=3,
    embed_dim=16,
    conv_pos=8,
    conv_pos_groups=4,
    num_buckets=16,
    max_distance=20,
    predictor_class=5,
    encoder_layerdrop=0.0,
    layer_wise_gradient_decay_ratio=1.0,
)
SECOND = 16000
PUBLISHED_CFG = {
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "layer_norm_first": False,
    "conv_bias": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
    "deep_norm": True,
    "input_patch_size": 16,
    "layer_wise_gradient_decay_ratio": 0.6,
    "embed_dim": 512,
    "finetuned_model": True,
    "predictor_dropout": 0.0,
    "predictor_class": 527,
}


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perturbed(model, size=0.05):
    """Norms, biases, gates and the table away from where leaving one out, or taking another, would not show."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            large = any(part in name for part in ("relative_attention_bias", "grep", "weight_g"))
            parameter += (1.0 if large else size) * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return perturbed(BEATs(TINY), 0.1)


@pytest.fixture(scope="module")
def full():
    """Of the published size; the weights are random."""
    torch.manual_seed(1)
    return perturbed(BEATs(), 0.01).requires_grad_(False)


# The slow model, of one clip. `w(name)` is a parameter in float64, `c` a published "cfg".


def slow_norm(w, name, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w(f"{name}.weight") + w(f"{name}.bias")


def slow_linear(w, name, x):
    return x @ w(f"{name}.weight").T + w(f"{name}.bias")


def slow_gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def slow_bucket(distance, buckets, furthest):
    """Key minus query; reference section 2, "Relative bias"."""
    half, single, a = buckets // 2, buckets // 4, abs(distance)
    if a < single:
        step = a
    else:
        fraction = torch.log(torch.tensor(a, dtype=torch.float32) / single) / math.log(furthest / single)
        step = min(half - 1, single + int(fraction * (half - single)))
    return step + (half if distance > 0 else 0)


def slow_patches(w, fbank):
    """Tokens: time first, in each step the 8 mel bands from low to high."""
    kernel = w("patch_embedding.weight")  # (512, 1, 16, 16): time, mel
    steps, bands = fbank.shape[0] // 16, fbank.shape[1] // 16
    tokens = [
        (kernel[:, 0] * fbank[16 * t : 16 * t + 16, 16 * f : 16 * f + 16]).sum((1, 2))
        for t in range(steps)
        for f in range(bands)
    ]
    return torch.stack(tokens)


def slow_positions(w, c, x):
    """A convolution as a sum over taps: output i hears inputs i - 64 to i + 63."""
    v, taps, groups = w("encoder.pos_conv.0.weight_v"), c["conv_pos"], c["conv_pos_groups"]
    g = w("encoder.pos_conv.0.weight_g")[0, 0]
    width, tokens = x.shape[1], len(x)
    inside, outside = width // groups, width // groups
    total = torch.zeros_like(x) + w("encoder.pos_conv.0.bias")
    for k in range(taps):
        weight = g[k] * v[:, :, k] / v[:, :, k].square().sum().sqrt()
        for group in range(groups):
            out = slice(group * outside, (group + 1) * outside)
            heard = x[:, group * inside : (group + 1) * inside] @ weight[out].T
            shift = k - taps // 2
            for i in range(max(0, -shift), min(tokens, tokens - shift)):
                total[i, out] += heard[i + shift]
    return slow_gelu(total)


def slow_attention(w, c, name, x, valid):
    heads, tokens = c["encoder_attention_heads"], len(x)
    query, key, value = (slow_linear(w, f"{name}.{part}_proj", x) for part in "qkv")
    table, size, mixed = w(f"{name}.relative_attention_bias.weight"), x.shape[1] // heads, []
    rows = [slow_bucket(distance, c["num_buckets"], c["max_distance"]) for distance in range(-tokens, tokens)]
    for head in range(heads):
        q, k, v = (part[:, head * size : (head + 1) * size] for part in (query, key, value))
        y = slow_linear(w, f"{name}.grep_linear", q).reshape(tokens, 2, 4).sum(2)
        y = 1 / (1 + torch.exp(-y))
        gate = y[:, 0] * (y[:, 1] * w(f"{name}.grep_a")[0, head, 0, 0] - 1) + 2
        scores = (q / math.sqrt(size) / 32) @ k.T  # the published guard against overflow in half precision
        scores = (scores - scores.max(dim=1, keepdim=True).values) * 32
        bias = torch.stack([table[rows[tokens - i : 2 * tokens - i], head] for i in range(tokens)])
        scores = scores + gate[:, None] * bias
        scores = torch.where(valid, scores, torch.tensor(-math.inf, dtype=torch.float64))
        weights = scores.exp()
        mixed.append(weights / weights.sum(dim=1, keepdim=True) @ v)
    return slow_linear(w, f"{name}.out_proj", torch.cat(mixed, dim=1))


def slow_layers(w, c, fbank, valid=None):
    """The output of each layer."""
    x = slow_norm(w, "layer_norm", slow_patches(w, fbank.double()))
    x = slow_linear(w, "post_extract_proj", x)
    valid = torch.ones(len(x), dtype=torch.bool) if valid is None else valid
    x = torch.where(valid[:, None], x, torch.zeros_like(x))
    x = slow_norm(w, "encoder.layer_norm", x + slow_positions(w, c, x))
    alpha = (2 * c["encoder_layers"]) ** 0.25 if c["deep_norm"] else 1.0
    outputs = []
    for index in range(c["encoder_layers"]):
        name = f"encoder.layers.{index}"
        attended = slow_attention(w, c, f"{name}.self_attn", x, valid)
        x = slow_norm(w, f"{name}.self_attn_layer_norm", alpha * x + attended)
        inner = slow_gelu(slow_linear(w, f"{name}.fc1", x))
        x = slow_norm(w, f"{name}.final_layer_norm", alpha * x + slow_linear(w, f"{name}.fc2", inner))
        outputs.append(x)
    return outputs


def slow_fbank(waveform):
    """The published preprocessing, by torchaudio."""
    fbank = kaldi.fbank(
        waveform[None] * 2**15, num_mel_bins=128, sample_frequency=16000, frame_length=25, frame_shift=10
    )
    return (fbank - 15.41663) / (2 * 6.55582)


def slow_published_mask(samples, length):
    """Reference section 2, "Padding mask", with lists. True = valid."""
    padded = [sample >= length for sample in range(samples)]
    frames = 1 + (samples - 400) // 160
    for parts in (frames, 8 * (frames // 16)):
        kept = padded[: len(padded) - len(padded) % parts]
        size = len(kept) // parts
        padded = [all(kept[i * size : (i + 1) * size]) for i in range(parts)]
    return torch.tensor([not part for part in padded])


def weights_of(model):
    state = model.state_dict()
    return lambda name: state[name].detach().double()


def furthest(found, expected):
    return float((found.double() - expected.double()).detach().abs().max())


# Equal to the slow model


def test_tiny_equals_the_slow_model(tiny):
    waveform = noise(2, SECOND + 777)
    w, c = weights_of(tiny), asdict(TINY)
    features, last = tiny.features(waveform, layers=(2, 0)), tiny.encode(beats_fbank(waveform))
    predictions = tiny.predictions(waveform)
    for row in range(2):
        outputs = slow_layers(w, c, slow_fbank(waveform[row]))
        assert furthest(features[row], torch.cat([outputs[2], outputs[0]], dim=1)) < 1e-5
        assert furthest(last[row], outputs[2]) < 1e-5
        expected = slow_linear(w, "predictor", outputs[2]).mean(0)
        assert furthest(predictions[row], 1 / (1 + torch.exp(-expected))) < 1e-6


def test_published_size_equals_the_slow_model(full):
    waveform = noise(1, SECOND)
    expected = slow_layers(weights_of(full), PUBLISHED_CFG, slow_fbank(waveform[0]))
    features = full.features(waveform)
    assert features.shape == (1, 48, 2304)
    assert furthest(features[0], torch.cat([expected[i] for i in (3, 7, 11)], dim=1)) < 4e-5
    assert furthest(full.encode(beats_fbank(waveform))[0], expected[11]) < 4e-5


def test_in_float64_nothing_is_left(tiny):
    """What differs in float32 is rounding alone."""
    fbank = beats_fbank(noise(1, SECOND)).double()
    double = BEATs(TINY).double().eval()
    double.load_state_dict(tiny.state_dict())
    expected = slow_layers(weights_of(tiny), asdict(TINY), fbank[0])
    assert furthest(double.encode(fbank)[0], expected[2]) < 1e-12


@pytest.mark.parametrize("change", [{"max_distance": 40}, {"deep_norm": False}, {"num_buckets": 16}])
def test_settings_that_weights_do_not_tell_count(tiny, tmp_path, change):
    cfg = asdict(replace(TINY, **change))
    torch.save({"cfg": cfg, "model": tiny.state_dict()}, tmp_path / "beats.pt")
    model = BEATs.from_checkpoint(tmp_path / "beats.pt").eval()
    waveform = noise(1, SECOND)
    expected = slow_layers(weights_of(tiny), cfg, slow_fbank(waveform[0]))[2]
    assert furthest(model.features(waveform, (2,))[0], expected) < 1e-5
    changed = furthest(model.features(waveform, (2,)), tiny.features(waveform, (2,)))
    assert changed > 1e-2 if model.config != TINY else changed == 0


def test_buckets_of_the_published_size():
    buckets = distance_buckets(1500)
    row = buckets[700]
    assert row.tolist() == [slow_bucket(key - 700, 320, 800) for key in range(1500)]
    assert torch.equal(buckets[3:, 3:], buckets[:-3, :-3])  # the distance alone counts
    assert (
        row[700] == 0
        and row[701] == 161
        and row[699] == 1
        and row[1499] == 319
        and row[0] == 80 + int(math.log(700 / 80) / math.log(10) * 80)
    )


def test_gradients_reach_every_parameter(tiny):
    model = BEATs(replace(TINY, conv_bias=True)).train()
    model.logits(beats_fbank(noise(2, SECOND))).square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    # Attention does not feel what is added to each key.
    assert {name for name in without if "k_proj.bias" not in name} == set()


def test_the_gradient_shrinks_from_layer_to_layer_and_the_values_do_not():
    torch.manual_seed(0)
    plain = BEATs(TINY)
    decayed = BEATs(replace(TINY, layer_wise_gradient_decay_ratio=0.5))
    decayed.load_state_dict(plain.state_dict())
    fbank = beats_fbank(noise(1, SECOND))
    outputs = []
    for model in (plain, decayed):
        outputs.append(model.encode(fbank))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for index in range(3):
        ours, theirs = (model.encoder.layers[index].fc1.weight.grad for model in (decayed, plain))
        torch.testing.assert_close(ours, theirs * 0.5 ** (2 - index))
    ours, theirs = (model.patch_embedding.weight.grad for model in (decayed, plain))
    torch.testing.assert_close(ours, theirs * 0.5**3)


def test_layers_are_left_out_in_training_alone():
    torch.manual_seed(0)
    model = BEATs(replace(TINY, encoder_layerdrop=1.0))
    fbank = beats_fbank(noise(1, SECOND))
    first, last = model.encode(fbank, layers=(0,)), model.encode(fbank, layers=(2,))
    assert torch.equal(first, last)
    model.eval()
    assert not torch.equal(model.encode(fbank, layers=(0,)), model.encode(fbank, layers=(2,)))
    dropping = BEATs(replace(TINY, dropout=0.5, attention_dropout=0.5, activation_dropout=0.5, predictor_dropout=0.5))
    assert not torch.equal(dropping.logits(fbank), dropping.logits(fbank))
    dropping.eval()
    assert torch.equal(dropping.logits(fbank), dropping.logits(fbank))


# Lengths and padding

LENGTHS = {2800: 8, 5359: 8, 5360: 16, 16000: 48, 32000: 96, 52800: 160, 80000: 248, 104000: 320, 160000: 496}


@pytest.mark.parametrize(("samples", "tokens"), LENGTHS.items())
def test_number_of_tokens(tiny, samples, tokens):
    assert tiny.token_mask(samples, torch.tensor([samples])).shape == (1, tokens)
    if samples <= 16000:
        assert tiny.features(noise(1, samples), (0, 2)).shape == (1, tokens, 48)


@pytest.mark.parametrize("content", [0.0, 7.0, math.nan])
def test_a_clip_in_a_batch_gives_what_it_gives_alone(tiny, content):
    lengths = torch.tensor([20000, 2800, 13333, 16000])
    batch = torch.full((4, 20000), content)
    for row, length in enumerate(lengths):
        batch[row, :length] = noise(int(length), seed=row)
    together, mask = tiny.features(batch, (0, 1, 2), lengths), tiny.token_mask(20000, lengths)
    predictions = tiny.predictions(batch, lengths)
    assert together.isfinite().all()
    for row, length in enumerate(lengths):
        alone = tiny.features(batch[row : row + 1, :length], (0, 1, 2))
        assert mask[row].sum() == alone.shape[1] and mask[row, : alone.shape[1]].all()
        assert furthest(together[row, : alone.shape[1]], alone[0]) < 1e-5
        assert furthest(predictions[row], tiny.predictions(batch[row : row + 1, :length])[0]) < 1e-6


def test_a_clip_in_a_batch_of_the_published_size(full):
    lengths = torch.tensor([2 * SECOND, SECOND + 1234, 2800])
    batch = noise(3, 2 * SECOND)
    together = full.features(batch, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = full.features(batch[row : row + 1, :length])[0]
        assert furthest(together[row, : len(alone)], alone) < 2e-5


def test_the_published_mask(tiny):
    assert tiny.token_mask(160000, torch.tensor([104000])).sum() == 320
    assert tiny.token_mask(160000, torch.tensor([104000]), "published").sum() == 325
    for samples, lengths in ((160000, [160000, 104000, 16000, 2800]), (32000, [31999, 30000, 9000]), (16000, [8000])):
        masks = tiny.token_mask(samples, torch.tensor(lengths), "published")
        for mask, length in zip(masks, lengths, strict=True):
            assert torch.equal(mask, slow_published_mask(samples, length))


def test_padding_as_published_equals_the_slow_model(tiny):
    """In it, what is beyond the clip is heard: frames at its end, and tokens that the folding keeps."""
    lengths = torch.tensor([20000, 11000])
    batch = torch.zeros(2, 20000)
    for row, length in enumerate(lengths):
        batch[row, :length] = noise(int(length), seed=row)
    features = tiny.features(batch, (0, 2), lengths, padding="published")
    predictions = tiny.predictions(batch, lengths, padding="published")
    w = weights_of(tiny)
    for row, length in enumerate(lengths):
        valid = slow_published_mask(20000, int(length))
        outputs = slow_layers(w, asdict(TINY), slow_fbank(batch[row]), valid)
        assert furthest(features[row], torch.cat([outputs[0], outputs[2]], dim=1)) < 1e-5  # of padded queries too
        expected = slow_linear(w, "predictor", outputs[2])[valid].mean(0)
        assert furthest(predictions[row], 1 / (1 + torch.exp(-expected))) < 1e-6
    assert furthest(features[1], tiny.features(batch, (0, 2), lengths)[1]) > 0.01


def test_a_row_in_which_nothing_is_valid_stays_finite(tiny):
    fbank = beats_fbank(noise(2, SECOND))
    mask = torch.ones(2, 48, dtype=torch.bool)
    mask[1] = False
    assert tiny.encode(fbank, mask).isfinite().all() and tiny.logits(fbank, mask).isfinite().all()
    assert furthest(tiny.encode(fbank, mask)[0], tiny.encode(fbank[:1])[0]) < 1e-5


def test_silence_is_heard(tiny):
    features = tiny.features(torch.zeros(1, SECOND), (0, 2))
    assert features.isfinite().all() and tiny.predictions(torch.zeros(1, SECOND)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_that_of_the_weights(tiny, dtype):
    model = BEATs(TINY).eval().to(dtype)
    model.load_state_dict(tiny.state_dict())
    waveform, lengths = noise(2, SECOND), torch.tensor([SECOND, 9000])
    expected = tiny.predictions(waveform, lengths)
    for given in (waveform, waveform.to(dtype)):
        found = model.predictions(given, lengths)
        assert found.dtype == model.features(given, (0,), lengths).dtype == dtype
        torch.testing.assert_close(found.float(), expected, atol=0.05 if dtype == torch.bfloat16 else 1e-4, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(tiny):
    waveform, lengths = noise(2, SECOND), torch.tensor([SECOND, 9000])
    model = BEATs(TINY).eval().cuda()
    model.load_state_dict(tiny.state_dict())
    found = model.predictions(waveform.cuda(), lengths.cuda())
    assert found.is_cuda and furthest(found.cpu(), tiny.predictions(waveform, lengths)) < 1e-4


@pytest.mark.parametrize("given", [{}, {"lengths": torch.tensor([9000, 4000])}])
def test_the_shape_has_a_formula_that_no_run_at_other_sizes_had_to_find(given):
    model = BEATs(replace(TINY, encoder_layers=1)).eval()
    with torch.no_grad():
        arguments = {"waveform": noise(2, 9000), "layers": (0,), **given}
        trace = shapes.trace(model.features, kwargs=arguments, dims={"waveform": "B T"} | dict.fromkeys(given, "B"))
    assert [info.formula for info in trace[0].outputs] == ["(B, 8*((T - 2800)//2560 + 1), 24)"]
    assert not any("other sizes" in note for note in trace.notes)


def test_clips_of_similar_length_go_together():
    lengths = [100, 10, 95, 50, 11, 90, 49, 12]
    assert length_buckets(lengths) == [[0, 2, 5], [3, 6], [7, 4, 1]]
    assert length_buckets(lengths, waste=0) == [[i] for i in (0, 2, 5, 3, 6, 7, 4, 1)]
    assert length_buckets([7] * 5, size=2) == [[0, 1], [2, 3], [4]] and length_buckets([]) == []
    draw = random.Random(0)
    for _ in range(50):
        lengths, waste = [draw.randint(1, 99) for _ in range(30)], draw.random()
        buckets = length_buckets(lengths, waste, size=4)
        assert sorted(i for bucket in buckets for i in bucket) == list(range(30))
        for bucket in buckets:
            found = [lengths[i] for i in bucket]
            assert len(found) <= 4 and max(found) * len(found) - sum(found) <= waste * max(found) * len(found) + 1e-9
    for wrong in ({"waste": 1.0}, {"size": 0}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            length_buckets([1], **wrong)


# Files


def fingerprint(named):
    lines = sorted(f"{name} {list(shape)}" for name, shape in named.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_published_parameters(full):
    assert sum(parameter.numel() for parameter in full.parameters()) == 90_717_055
    names = {name: list(tensor.shape) for name, tensor in full.state_dict().items()}
    assert (len(names), fingerprint(names)) == (252, "4abf00a1d6e6d4ff")
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "audiotoken_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    reference = json.loads(path.read_text())
    assert names == reference["beats"] and reference["notes"]["beats_cfg"] == PUBLISHED_CFG
    assert asdict(Config.of(reference["notes"]["beats_cfg"])) == asdict(Config())


def test_the_shared_table_in_a_published_file(tiny, tmp_path):
    """It stands there under a name for each layer, of which the last counts, and is one table again."""
    state = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    table = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
    for index in range(3):
        state[table.format(index)] = torch.full((16, 3), float(index))
    torch.save({"cfg": asdict(TINY), "model": state}, tmp_path / "beats.pt")
    model = BEATs.from_checkpoint(tmp_path / "beats.pt")
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in tiny.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[table.format(2) if "relative" in name else name])
    tables = {layer.self_attn.relative_attention_bias.weight for layer in model.encoder.layers}
    assert len(tables) == 1 and tables <= set(model.parameters())


def test_a_saved_model_comes_back(tiny, tmp_path):
    tiny.save(tmp_path / "own")
    model = BEATs.from_checkpoint(tmp_path / "own")
    assert model.config == TINY and len(checkpoints.read(tmp_path / "own").tensors) == len(tiny.state_dict())
    assert all(torch.equal(tensor, tiny.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_without_a_classifier(tiny, tmp_path):
    state = {name: tensor for name, tensor in tiny.state_dict().items() if not name.startswith("predictor")}
    cfg = asdict(replace(TINY, finetuned_model=False))
    torch.save({"cfg": cfg, "model": state}, tmp_path / "pretrained.pt")
    model = BEATs.from_checkpoint(tmp_path / "pretrained.pt").eval()
    waveform = noise(1, SECOND)
    assert torch.equal(model.features(waveform, (0, 2)), tiny.features(waveform, (0, 2)))
    with pytest.raises(ParameterError, match="finetuned_model: False: this model has no classifier"):
        model.predictions(waveform)
    torch.save({"cfg": asdict(TINY), "model": state}, tmp_path / "wrong.pt")
    with pytest.raises(CheckpointError, match=r"2 missing \(predictor.*seems to be BEATs\."):
        BEATs.from_checkpoint(tmp_path / "wrong.pt")


def test_training_settings_may_be_absent_from_a_file(tiny, tmp_path):
    absent = {"dropout", "attention_dropout", "encoder_layerdrop"}
    cfg = {name: value for name, value in asdict(TINY).items() if name not in absent} | {"label_rate": 50}
    torch.save({"cfg": cfg, "model": tiny.state_dict()}, tmp_path / "beats.pt")
    model = BEATs.from_checkpoint(tmp_path / "beats.pt").eval()
    waveform = noise(1, SECOND)
    assert torch.equal(model.predictions(waveform), tiny.predictions(waveform))


def wrong_files(tiny):
    cfg, state = asdict(TINY), tiny.state_dict()
    short = {name: value for name, value in cfg.items() if name not in ("deep_norm", "max_distance")}
    fewer = {name: tensor for name, tensor in state.items() if name != "encoder.layers.1.self_attn.grep_a"}
    embedder = {"fc1.weight": torch.ones(2, 2), "fga.reduce_potentials.0.weight": torch.ones(1, 2, 1)}
    return {
        r'has no settings under "cfg".*seems to be BEATs with a classifier\.': {"model": state},
        r'has no settings under "cfg".*an embedder of AudioToken\.': embedder,
        r'its "cfg": cfg: has no max_distance, deep_norm': {"cfg": short, "model": state},
        r"width|patch_embedding\.weight|of another shape \(post_extract_proj": {
            "cfg": cfg | {"encoder_embed_dim": 48},
            "model": state,
        },
        r"1 missing \(encoder\.layers\.1\.self_attn\.grep_a\)": {"cfg": cfg, "model": fewer},
        r"1 unexpected \(more\)": {"cfg": cfg, "model": {**state, "more": torch.ones(1)}},
        r"missing \(encoder\.layers\.3": {"cfg": cfg | {"encoder_layers": 4}, "model": state},
        r"layer_norm_first: True; expected False, as in every published": {
            "cfg": cfg | {"layer_norm_first": True},
            "model": state,
        },
    }


@pytest.mark.parametrize("index", range(8))
def test_files_that_are_refused(tiny, tmp_path, index):
    words, content = list(wrong_files(tiny).items())[index]
    torch.save(content, tmp_path / "beats.pt")
    with pytest.raises(CheckpointError, match=words):
        BEATs.from_checkpoint(tmp_path / "beats.pt")


def test_a_file_that_would_be_executed_is_refused(tiny, tmp_path):
    torch.save({"cfg": TINY, "model": tiny.state_dict()}, tmp_path / "beats.pt")  # an object, not a plain dict
    with pytest.raises(CheckpointError, match=r"holds more than tensors.*nothing in it was executed"):
        BEATs.from_checkpoint(tmp_path / "beats.pt")


# Bad input


def test_clips_that_are_too_short(tiny):
    words = r"2799 samples; expected at least 2800, which is 0\.175 s at 16 kHz"
    with pytest.raises(TooShortError, match=words):
        tiny.features(noise(1, 2799), (0,))
    with pytest.raises(TooShortError, match="399 samples"):
        tiny.predictions(noise(1, 399))
    with pytest.raises(TooShortError, match=words):
        tiny.features(noise(2, SECOND), (0,), torch.tensor([SECOND, 2799]))
    with pytest.raises(TooShortError, match="15 frames; expected at least 16"):
        tiny.encode(torch.zeros(1, 15, 128))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_not_finite(tiny, value):
    waveform = noise(3, SECOND)
    waveform[1, 77] = value
    with pytest.raises(ParameterError, match="waveform: NaN or infinite samples in row 1;"):
        tiny.features(waveform, (0,))
    with pytest.raises(ParameterError, match="row 1"):
        tiny.predictions(waveform, torch.tensor([SECOND] * 3))


def test_other_input_that_is_refused(tiny):
    waveform = noise(2, SECOND)
    with pytest.raises(ParameterError, match=r"layers: \(3, 7, 11\); expected some of 0 to 2: the model has 3 layers"):
        tiny.features(waveform)
    for layers in ((), (-1,), (0, 3)):
        with pytest.raises(ParameterError, match="layers"):
            tiny.features(waveform, layers)
    with pytest.raises(ParameterError, match="lengths: 16001 samples; expected at most 16000"):
        tiny.features(waveform, (0,), torch.tensor([SECOND, SECOND + 1]))
    with pytest.raises(ParameterError, match=r"lengths: shape \(3,\)"):
        tiny.features(waveform, (0,), torch.tensor([SECOND] * 3))
    with pytest.raises(ParameterError, match="padding: 'frame'"):
        tiny.features(waveform, (0,), torch.tensor([SECOND] * 2), padding="frame")
    with pytest.raises(ParameterError, match=r"mask: shape \(2, 47\); expected \(2, 48\)"):
        tiny.encode(beats_fbank(waveform), torch.ones(2, 47, dtype=torch.bool))
    with pytest.raises(ParameterError, match="fbank: 100 mel bins; expected a multiple of 16"):
        tiny.encode(torch.zeros(1, 32, 100))


def test_padding_as_published_needs_fewer_tokens_than_frames():
    model = BEATs(replace(TINY, input_patch_size=8))
    assert model.token_mask(SECOND, torch.tensor([9000])).sum() == 16 * (54 // 8)
    with pytest.raises(ParameterError, match="192 tokens for 98 frames"):
        model.token_mask(SECOND, torch.tensor([9000]), "published")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder_layers": 0}, "encoder_layers: 0; expected 1 or more"),
        ({"encoder_layers": True}, "encoder_layers: found bool True; expected int, 1 or more"),
        ({"max_distance": 800.5}, "max_distance: found float 800.5"),
        ({"dropout": 1.5}, "dropout: 1.5; expected 0 to 1"),
        ({"deep_norm": 1}, "deep_norm: found int 1; expected bool"),
        ({"activation_fn": "relu"}, "activation_fn: 'relu'; expected 'gelu'"),
        ({"gru_rel_pos": False}, "gru_rel_pos: False; expected True"),
        ({"encoder_attention_heads": 5}, "encoder_attention_heads: 5; expected a divisor of the width 24"),
        ({"conv_pos_groups": 5}, "conv_pos_groups: 5"),
        ({"input_patch_size": 12}, "input_patch_size: 12; expected a divisor of 128"),
        ({"num_buckets": 10}, "num_buckets: 10"),
        ({"max_distance": 4}, "num_buckets: 16 with max_distance 4"),
    ],
)
def test_settings_that_are_refused(change, words):
    cfg = asdict(TINY) | change
    with pytest.raises(ParameterError, match=words):
        Config.of(cfg)
