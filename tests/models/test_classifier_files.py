"""Weights in published layouts, made here, into backbones: strictly, or not at all."""

import json
from dataclasses import asdict

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file

from avlib.errors import CheckpointError
from avlib.models.beats import BEATs
from avlib.models.beats import Config as BEATsConfig
from avlib.models.classifiers import AudioClassifier

FAMILIES = {
    "whisper-base": (transformers.WhisperConfig, transformers.WhisperModel),
    "wav2vec2-large-lv60": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
    "hubert-large": (transformers.HubertConfig, transformers.HubertModel),
    "ast": (transformers.ASTConfig, transformers.ASTModel),
}
WITH_HEADS = {
    "whisper-base": transformers.WhisperForConditionalGeneration,
    "wav2vec2-large-lv60": transformers.Wav2Vec2ForCTC,
    "hubert-large": transformers.HubertForSequenceClassification,
    "ast": transformers.ASTForAudioClassification,
}


def small(backbone, **settings):
    torch.manual_seed(0)
    return AudioClassifier(backbone, small=True, **settings).eval()


def published(backbone, folder, cls=None, **changes):
    """A folder of transformers, of the size of a small backbone, with other random weights."""
    config, model = FAMILIES[backbone]
    settings = small(backbone).backbone.network.config.to_dict()
    for name in ("decoder_layers", "decoder_attention_heads"):
        settings = {**settings, name: 2} if name in settings else settings
    # as published: what acts in training is on, and there is a vector for masked frames
    for name in ("mask_time_prob", "layerdrop"):
        settings = {**settings, name: 0.1} if name in settings else settings
    if "decoder_ffn_dim" in settings:
        settings |= {"decoder_ffn_dim": 32, "vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        settings |= {"decoder_start_token_id": 1}
    torch.manual_seed(1)
    made = (cls or model)(config(**(settings | changes)))
    made.save_pretrained(folder)
    return made.eval()


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_folder_of_transformers_is_taken_whole(backbone, tmp_path):
    theirs, model = published(backbone, tmp_path / "it"), small(backbone)
    model.load_backbone(tmp_path / "it")
    encoder = theirs.encoder if backbone.startswith("whisper") else theirs
    expected = encoder.state_dict()
    found = model.backbone.network.state_dict()
    assert set(expected) - set(found) <= {"masked_spec_embed"} and set(found) <= set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_what_is_loaded_is_what_is_heard(tmp_path):
    theirs, model = published("wav2vec2-large-lv60", tmp_path / "it"), small("wav2vec2-large-lv60")
    model.load_backbone(tmp_path / "it")
    given = model.features(torch.randn(1, 8000))
    with torch.no_grad():
        torch.testing.assert_close(model.read(given).frames, theirs(given.values).last_hidden_state)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_head_in_the_file_is_left_out(backbone, tmp_path):
    theirs, model = published(backbone, tmp_path / "it", WITH_HEADS[backbone]), small(backbone)
    model.load_backbone(tmp_path / "it")
    base = getattr(theirs, theirs.base_model_prefix)
    expected = (base.encoder if backbone.startswith("whisper") else base).state_dict()
    found = model.backbone.network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(("backbone", "changes", "message"), [
    ("whisper-base", {"d_model": 32}, "conv1.weight is"),
    ("whisper-base", {"encoder_layers": 3}, "unexpected"),
    ("whisper-base", {"num_mel_bins": 128}, "conv1.weight is"),
    ("whisper-base", {"encoder_attention_heads": 2}, "encoder_attention_heads is 2 for 4"),
    ("wav2vec2-large-lv60", {"conv_bias": False}, "missing"),
    ("wav2vec2-large-lv60", {"do_stable_layer_norm": False}, "do_stable_layer_norm is False for True"),
    ("hubert-large", {"num_hidden_layers": 1}, "missing"),
    ("ast", {"max_length": 512}, "max_length is 512 for 1024"),
])  # fmt: skip
def test_another_size_is_refused_by_name(backbone, changes, message, tmp_path):
    published(backbone, tmp_path / "it", **changes)
    model = small(backbone)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        model.load_backbone(tmp_path / "it")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_another_family_is_refused_by_name(tmp_path):
    published("hubert-large", tmp_path / "it")
    with pytest.raises(CheckpointError, match="is 'hubert'; expected 'wav2vec2'"):
        small("wav2vec2-large-lv60").load_backbone(tmp_path / "it")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        small("resnet50").load_backbone(tmp_path / "it")
    with pytest.raises(CheckpointError, match='no settings under "cfg"'):
        small("beats").load_backbone(tmp_path / "it")


def test_a_file_that_lacks_a_parameter_is_refused(tmp_path):
    from safetensors.torch import load_file

    published("ast", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["layernorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 parameters \(layernorm.bias\)"):
        small("ast").load_backbone(tmp_path)


def test_a_damaged_folder_is_refused(tmp_path):
    published("ast", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        small("ast").load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        small("ast").load_backbone(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        small("ast").load_backbone(tmp_path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_resnet_of_timm_with_three_colours(suffix, tmp_path):
    torch.manual_seed(1)
    theirs = timm.create_model("resnet50", pretrained=False).eval()
    path = tmp_path / f"resnet50.{suffix}"
    torch.save(theirs.state_dict(), path) if suffix == "pth" else save_file(theirs.state_dict(), path)
    model = AudioClassifier("resnet50").eval()
    model.load_backbone(path)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = theirs.forward_features(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(model.backbone.network.forward_features(grey), expected, rtol=1e-3, atol=1e-4)


def test_another_resnet_is_refused(tmp_path):
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        small("resnet50").load_backbone(tmp_path / "resnet18.pth")


@pytest.mark.parametrize("classes", [0, 5])
def test_a_file_of_beats_with_a_classifier_or_without(classes, tmp_path):
    model = small("beats")
    settings = asdict(model.backbone.network.config) | {"finetuned_model": bool(classes), "encoder_layerdrop": 0.05}
    torch.manual_seed(1)
    theirs = BEATs(BEATsConfig(**settings | {"predictor_class": classes or 527}))
    torch.save({"cfg": asdict(theirs.config), "model": theirs.state_dict()}, tmp_path / "beats.pt")
    model.load_backbone(tmp_path / "beats.pt")
    expected = theirs.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.backbone.network.state_dict().items())


def test_a_file_of_another_beats_is_refused(tmp_path):
    settings = small("beats").backbone.network.config
    theirs = BEATs(BEATsConfig(**asdict(settings) | {"max_distance": 400}))
    torch.save({"cfg": asdict(theirs.config), "model": theirs.state_dict()}, tmp_path / "beats.pt")
    with pytest.raises(CheckpointError, match="max_distance is 400 for 800"):
        small("beats").load_backbone(tmp_path / "beats.pt")


@pytest.mark.parametrize("backbone", [*FAMILIES, "resnet50", "beats"])
def test_a_path_that_is_not_there_is_refused_without_a_look_at_the_network(backbone):
    with pytest.raises(CheckpointError, match="no such file or folder"):
        small(backbone).load_backbone("/nowhere/at/all")


@pytest.mark.parametrize(
    "content",
    [{"model": "AudioClassifier"}, {"settings": {}}, {"model": "AudioClassifier", "settings": {"backbone": "?"}}],
)
def test_a_saved_folder_whose_settings_are_not_ours_is_refused(content, tmp_path):
    small("whisper-base").save(tmp_path / "it")
    (tmp_path / "it" / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="settings"):
        AudioClassifier.from_checkpoint(tmp_path / "it")


def test_a_saved_folder_whose_weights_are_of_other_settings_is_refused(tmp_path):
    small("whisper-base", num_outputs=3).save(tmp_path / "it")
    content = json.loads((tmp_path / "it" / "config.json").read_text())
    content["settings"]["num_outputs"] = 4
    (tmp_path / "it" / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"classifier.weight is \(3, 256\) for \(4, 256\)"):
        AudioClassifier.from_checkpoint(tmp_path / "it")
