"""Content encoders: the published networks written out plainly, strict files, counts of units at any length."""

import json
import math
import os

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import ROOT
from torch import nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from avlib.errors import CheckpointError, ParameterError, ShapeError, TooShortError
from avlib.extract import units
from avlib.extract.units import ContentEncoder, content_encoder, fit_kmeans, recognizer_encoder
from avlib.models import quiet
from avlib.models.recognizer import Config, Recognizer

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
WIDTH, CHANNELS, INNER, OUT, LAYERS = 128, 8, 32, 12, 2


def shapes_of(width=WIDTH, channels=CHANNELS, inner=INNER, out=OUT, layers=LAYERS, positions=16, groups=4):
    """Published names and shapes of HuBERT-soft."""
    found = {"masked_spec_embed": (width,), "label_embedding.weight": (100, out)}
    for i, kernel in enumerate(KERNELS):
        found[f"feature_extractor.conv{i}.weight"] = (channels, channels if i else 1, kernel)
    linear = {"feature_projection.projection": (width, channels), "proj": (out, width)}
    norms = {"feature_extractor.norm0": channels, "feature_projection.norm": channels, "norm": width}
    for i in range(layers):
        at = f"encoder.layers.{i}"
        found[f"{at}.self_attn.in_proj_weight"], found[f"{at}.self_attn.in_proj_bias"] = (
            (3 * width, width),
            (3 * width,),
        )
        linear |= {
            f"{at}.self_attn.out_proj": (width, width),
            f"{at}.linear1": (inner, width),
            f"{at}.linear2": (width, inner),
        }
        norms |= {f"{at}.norm1": width, f"{at}.norm2": width}
    for name, shape in linear.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]
    for name, size in norms.items():
        found[f"{name}.weight"] = found[f"{name}.bias"] = (size,)
    conv = "positional_embedding.conv"
    return found | {
        f"{conv}.bias": (width,),
        f"{conv}.weight_g": (1, 1, positions),
        f"{conv}.weight_v": (width, width // groups, positions),
    }


def soft_tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def drawn(name, shape):
        if name.endswith(("norm.weight", "norm0.weight", "norm1.weight", "norm2.weight", "weight_g")):
            return 0.5 + torch.rand(shape, generator=generator)
        spread = 2 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.2
        return torch.randn(shape, generator=generator) * spread

    return {name: drawn(name, shape) for name, shape in shapes_of().items()}


def plain_soft(tensors, sound, pad=40):
    """HuBERT-soft by torch's layers, which have the published names; sound (samples,) at 16 kHz."""
    x = F.pad(sound, (pad, pad))[None, None]
    for i, stride in enumerate(STRIDES):
        x = F.conv1d(x, tensors[f"feature_extractor.conv{i}.weight"], stride=stride)
        if i == 0:
            x = F.group_norm(
                x, CHANNELS, tensors["feature_extractor.norm0.weight"], tensors["feature_extractor.norm0.bias"]
            )
        x = F.gelu(x)

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def linear(name, x):
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    x = linear("feature_projection.projection", norm("feature_projection.norm", x.transpose(1, 2)))
    conv = "positional_embedding.conv"
    weight = torch._weight_norm(tensors[f"{conv}.weight_v"], tensors[f"{conv}.weight_g"], 2)
    where = F.conv1d(x.transpose(1, 2), weight, tensors[f"{conv}.bias"], padding=8, groups=4)
    x = norm("norm", x + F.gelu(where[..., :-1]).transpose(1, 2))
    for i in range(LAYERS):
        layer = nn.TransformerEncoderLayer(WIDTH, 2, INNER, activation="gelu", batch_first=True).eval()
        prefix = f"encoder.layers.{i}."
        layer.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        x = layer.requires_grad_(False)(x)
    return linear("proj", x)[0]


def noise(samples, seed=1):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def soft_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("soft") / "hubert_soft.pt"
    torch.save({"hubert": {f"module.{name}": tensor for name, tensor in soft_tensors().items()}}, path)
    return path


@pytest.fixture(scope="module")
def soft(soft_file):
    return content_encoder("hubert-soft", soft_file)


def test_hubert_soft_equals_the_published_network(soft, soft_file, tmp_path):
    sound = noise(16000)
    expected = plain_soft(soft_tensors(), sound)
    found = soft(sound, 16000)
    assert found.shape == (50, OUT) and (soft.width, soft.rate, soft.name) == (OUT, 50, "hubert-soft")
    assert float((found - expected).abs().max()) < 1e-5 and expected.std() > 0.1
    torch.save(soft_tensors(), tmp_path / "flat.pt")  # the older release
    assert torch.equal(content_encoder("hubert-soft", tmp_path / "flat.pt")(sound, 16000), found)


def test_the_pad_matters(soft):
    """Without the 40 samples there are 99 units instead of 100, and other ones."""
    sound = noise(32000)
    bare = plain_soft(soft_tensors(), sound, pad=0)
    padded = soft(sound, 16000)
    assert len(bare) == 99 and len(padded) == 100
    assert float((bare - padded[:99]).norm() / padded[:99].norm()) > 0.02


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta")
def test_names_and_shapes_are_published():
    folder = os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")
    path = type(ROOT)(folder) / "diffsvc_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    published = json.loads(path.read_text())["hubert_soft"]
    shapes = shapes_of(768, 512, 3072, 256, 12, 128, 16)
    assert {name: list(shape) for name, shape in shapes.items()} == published
    tensors = {name: torch.zeros(1).expand(shape) for name, shape in published.items()}
    with torch.device("meta"):
        network = units._hubert_soft(path, tensors)
    assert network.width == 256 and network.layer == 12 and network.network.config.num_attention_heads == 12
    assert sum(weight.numel() for weight in network.parameters()) == 94_594_176 - 25_600  # without label_embedding


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_the_count_of_units_is_exact(soft, rate):
    for samples in (math.ceil(rate / 50), rate // 20, rate // 5 + 1, rate // 3, rate // 3 + 1, rate - 1, rate):
        count = math.ceil(samples * 16000 / rate - 1e-9) // 320
        assert len(soft(noise(samples), rate)) == count
        short = ContentEncoder("soft", soft.network, OUT, chunk_seconds=1, context_seconds=0.1)
        long = noise(3 * rate + samples)
        assert len(short(long, rate)) == math.ceil(len(long) * 16000 / rate - 1e-9) // 320


def test_sound_is_resampled_by_soxr(soft):
    sound = noise(44100)
    expected = torch.from_numpy(soxr.resample(sound.numpy(), 44100, 16000))
    assert torch.equal(soft(sound, 44100), soft(expected, 16000))
    assert torch.equal(soft(sound.double(), 44100), soft(sound, 44100))


class Local(nn.Module):
    """A network that sees 400 samples for each unit, and says how long its input was."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.register_buffer("filter", torch.randn(5, 400, generator=torch.Generator().manual_seed(0)))

    def forward(self, sound):
        self.seen.append(sound.shape[1])
        return sound.unfold(1, 400, 320) @ self.filter.T


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_pieces_with_context_are_the_whole(rate):
    sound = noise(int(rate * 7.37))
    whole = ContentEncoder("local", Local(), 5)(sound, rate)
    cut = ContentEncoder("local", Local(), 5, chunk_seconds=2, context_seconds=0.2)
    assert float((cut(sound, rate) - whole).abs().max()) < 1e-4
    assert len(cut.network.seen) == 4 and max(cut.network.seen) <= 16000 * 2.5
    assert cut.recipe != ContentEncoder("local", Local(), 5).recipe
    assert cut.recipe == ContentEncoder("local", Local(), 5, chunk_seconds=2, context_seconds=0.2).recipe


def test_attention_makes_pieces_differ_a_little(soft):
    sound = noise(16000 * 4)
    cut = ContentEncoder("soft", soft.network, OUT, chunk_seconds=1, context_seconds=0.5)
    change = float((cut(sound, 16000) - soft(sound, 16000)).norm() / soft(sound, 16000).norm())
    assert 1e-4 < change < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.weight"), "1 missing"),
        (lambda t: t.update({"extra.weight": torch.zeros(1)}), "1 unexpected"),
        (lambda t: t.update({"encoder.layers.0.norm1.bias": torch.zeros(3)}), "of another shape"),
        (lambda t: t.pop("proj.weight"), "HuBERT-soft, as bshall/hubert publishes it"),
    ],
)
def test_hubert_soft_loads_strictly(tmp_path, change, message):
    tensors = soft_tensors()
    change(tensors)
    torch.save(tensors, tmp_path / "soft.pt")
    with pytest.raises(CheckpointError, match=message):
        content_encoder("hubert-soft", tmp_path / "soft.pt")


# Folders of transformers

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip


def transformers_folder(path, kind=(HubertConfig, HubertModel), projected=None, bare=False, **changes):
    torch.manual_seed(0)
    model = kind[1](kind[0](**SIZES | changes)).eval()
    with quiet():
        model.save_pretrained(path)
    if projected:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path / "model.safetensors")
        final = {"final_proj.weight": torch.randn(projected, 32), "final_proj.bias": torch.randn(projected)}
        if bare:
            final.pop("final_proj.bias")
        save_file(tensors | final, path / "model.safetensors", metadata={"format": "pt"})
        return model, final
    return model, {}


def hidden(model, sound, layer):
    with torch.no_grad():
        return model(F.pad(sound, (40, 40))[None], output_hidden_states=True).hidden_states[layer][0]


def test_contentvec_is_a_layer_with_or_without_its_projection(tmp_path):
    model, final = transformers_folder(tmp_path, projected=6)
    sound = noise(9000)
    narrow, wide = content_encoder("contentvec", tmp_path), content_encoder("contentvec", tmp_path, width=32)
    assert (narrow.width, wide.width) == (6, 32)
    expected = F.linear(hidden(model, sound, 3), final["final_proj.weight"], final["final_proj.bias"])
    torch.testing.assert_close(narrow(sound, 16000), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(wide(sound, 16000), hidden(model, sound, 3), rtol=0, atol=1e-5)
    second = content_encoder("contentvec", tmp_path, width=32, layer=2)
    torch.testing.assert_close(second(sound, 16000), hidden(model, sound, 2), rtol=0, atol=1e-5)
    for wrong in ({"width": 256}, {"layer": 4}, {"layer": 0}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            content_encoder("contentvec", tmp_path, **wrong)


def test_published_contentvec_takes_layer_9_or_12(tmp_path):
    transformers_folder(tmp_path, projected=6, num_hidden_layers=12)
    assert content_encoder("contentvec", tmp_path).network.layer == 9
    assert content_encoder("contentvec", tmp_path, width=32).network.layer == 12


def test_wav2vec2_is_its_last_layer(tmp_path):
    model, _ = transformers_folder(tmp_path, (Wav2Vec2Config, Wav2Vec2Model))
    encoder, sound = content_encoder("wav2vec2", tmp_path), noise(9000)
    torch.testing.assert_close(encoder(sound, 16000), hidden(model, sound, 3), rtol=0, atol=1e-5)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": true}')
    padded = F.pad(sound, (40, 40))
    scaled = (padded - padded.mean()) / padded.std(correction=0)
    with torch.no_grad():
        expected = model(scaled[None]).last_hidden_state[0]
    torch.testing.assert_close(content_encoder("wav2vec2", tmp_path)(sound, 16000), expected, rtol=0, atol=1e-4)


def test_folders_load_strictly(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        content_encoder("contentvec", tmp_path)
    torch.save({"hubert": soft_tensors()}, tmp_path / "soft.pt")
    with pytest.raises(CheckpointError, match="is no folder"):
        content_encoder("contentvec", tmp_path / "soft.pt")
    transformers_folder(tmp_path / "w", (Wav2Vec2Config, Wav2Vec2Model))
    with pytest.raises(CheckpointError, match="wav2vec2"):
        content_encoder("contentvec", tmp_path / "w")
    transformers_folder(tmp_path / "bare", projected=6, bare=True)
    with pytest.raises(CheckpointError, match="final_proj"):
        content_encoder("contentvec", tmp_path / "bare")
    transformers_folder(tmp_path / "slow", conv_stride=[5, 2, 2, 2, 2, 2, 4])
    with pytest.raises(CheckpointError, match="25 units a second"):
        content_encoder("contentvec", tmp_path / "slow")
    transformers_folder(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(CheckpointError, match="lacks"):
        content_encoder("contentvec", tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(CheckpointError, match="other"):
        content_encoder("contentvec", tmp_path / "other")


class Dictionary:
    pass


def test_a_checkpoint_of_fairseq_is_refused_by_name(tmp_path):
    Dictionary.__module__ = "fairseq.data.dictionary"
    import sys
    import types

    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["fairseq.data.dictionary"].Dictionary = Dictionary
    try:
        torch.save({"model": {"mask_emb": torch.zeros(2)}, "task_state": Dictionary()}, tmp_path / "a.pt")
    finally:
        for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
            del sys.modules[name]
    names = {"mask_emb": torch.zeros(2), "post_extract_proj.weight": torch.zeros(2, 2)}
    torch.save({"model": names, "cfg": {"a": 1}}, tmp_path / "b.pt")
    for file in ("a.pt", "b.pt"):
        for name in ("hubert-soft", "contentvec", "wav2vec2"):
            with pytest.raises(CheckpointError, match=r"fairseq.*[Cc]onvert"):
                content_encoder(name, tmp_path / file)


# A recogniser, and k-means


def test_a_recogniser_gives_posteriors_or_its_last_layer():
    torch.manual_seed(0)
    model = Recognizer(Config(classes=("a", "e", "i"), width=16, layers=1))
    encoder, inner = (
        recognizer_encoder(model),
        recognizer_encoder(model, hidden=True, chunk_seconds=1, context_seconds=0.5),
    )
    sound = noise(16000 * 3)
    with torch.no_grad():
        expected = model(sound[None])[0].softmax(1)
        torch.testing.assert_close(inner(sound, 16000), model.hidden(sound[None])[0], rtol=0, atol=1e-4)
    assert torch.equal(encoder(sound, 16000), expected) and (encoder.width, inner.width) == (3, 16)
    assert len(encoder(noise(44100), 44100)) == 50


def test_kmeans_gives_the_nearest_centroid(tmp_path):
    tones = [torch.sin(2 * math.pi * hertz * torch.arange(16000) / 16000) * 0.3 for hertz in (200, 900, 3000)]
    sounds = [(tone, 16000) for tone in tones]
    model = fit_kmeans(sounds, clusters=3)
    model.save(tmp_path / "k")
    encoder = content_encoder("kmeans", tmp_path / "k")
    ids = [encoder(tone, 16000)[5:-5].argmax(1).unique().tolist() for tone in tones]
    assert sorted(one for each in ids for one in each) == [0, 1, 2]
    assert encoder.width == 3 and encoder(tones[0], 16000).sum() == 50
    mel = units.kmeans_mel(tones[1][None])[0].double().numpy()
    nearest = np.square(mel[:, None] - model.centroids.double().numpy()).sum(2).argmin(1)
    assert (encoder(tones[1], 16000).argmax(1).numpy() == nearest).all()
    soundfile.write(tmp_path / "a.wav", tones[0].numpy(), 16000, "FLOAT")
    assert torch.equal(*(fit_kmeans([sound], 4).centroids for sound in (sounds[0], tmp_path / "a.wav")))
    for few in ((), sounds[:1]):
        with pytest.raises(ParameterError, match="clusters"):
            fit_kmeans(few, clusters=51)


# What does not fit


def test_what_does_not_fit_is_refused(soft, soft_file):
    with pytest.raises(TooShortError, match="one unit"):
        soft(noise(879), 44100)
    assert len(soft(noise(880), 44100)) == 1
    with pytest.raises(ParameterError, match="NaN"):
        soft(noise(8000).index_fill(0, torch.tensor([7]), math.nan), 16000)
    with pytest.raises(ParameterError, match="hubert-soft"):
        content_encoder("hubert_soft", soft_file)
    with pytest.raises(ParameterError, match="Nothing is fetched"):
        content_encoder("hubert-soft")
    with pytest.raises(ParameterError, match="width"):
        content_encoder("hubert-soft", soft_file, width=768)
    with pytest.raises(CheckpointError, match="nothing"):
        content_encoder("hubert-soft", soft_file.with_name("nothing.pt"))
    with pytest.raises(ShapeError, match="units of narrow"):
        ContentEncoder("narrow", soft.network, OUT - 1)(noise(8000), 16000)
    with pytest.raises(ParameterError, match="chunk_seconds"):
        ContentEncoder("soft", soft.network, OUT, chunk_seconds=0)
    assert soft(torch.zeros(16000), 16000).isfinite().all()
