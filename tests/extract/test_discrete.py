"""Discrete units: the nearest centroid of each frame, in pieces as whole, saved and read again."""

import pytest
import torch
from torch import nn

from avlib.errors import CheckpointError, ParameterError, TooShortError
from avlib.extract.discrete import UnitExtractor, fit_units
from avlib.extract.units import ContentEncoder, content_encoder, recognizer_encoder
from avlib.models.recognizer import Config, Recognizer


class Level(nn.Module):
    """Mean and deviation of each unit's samples."""

    def forward(self, sound):
        frames = sound.unfold(1, 320, 320)
        return torch.stack([frames.mean(2), frames.std(2)], 2)


def levels(values):
    """A sound whose units have these means."""
    return torch.tensor(values).repeat_interleave(320)


@pytest.fixture(scope="module")
def recognizer():
    torch.manual_seed(0)
    return Recognizer(Config(("a", "b"), width=8, layers=1)).eval()


def test_units_are_the_nearest_centroids():
    encoder = ContentEncoder("level", Level(), 2, pad=None)
    extract = UnitExtractor(encoder, torch.tensor([[0.0, 0.0], [0.5, 0.0], [-0.5, 0.0]]))
    units = extract(levels([0.1, 0.4, -0.3, -0.2, 0.2]), 16000)
    assert units.tolist() == [0, 1, 2, 0, 0] and units.dtype == torch.int64 and extract.vocabulary == 3
    assert len(extract(torch.zeros(48000), 48000)) == 50
    with pytest.raises(TooShortError, match=r"0\.02 s"):
        extract(torch.zeros(319), 16000)


def test_clusters_are_found_and_follow_from_the_seed():
    encoder = ContentEncoder("level", Level(), 2, pad=None)
    sounds = [(levels([-0.5, 0.5, 0.0] * 20) + 0.01 * torch.randn(19200), 16000) for _ in range(3)]
    extract, again = (fit_units(encoder, sounds, 3, seed=1) for _ in range(2))
    assert torch.equal(extract.centroids, again.centroids)
    assert extract.centroids[:, 0].sort().values.tolist() == pytest.approx([-0.5, 0, 0.5], abs=0.02)
    with pytest.raises(ParameterError, match="clusters"):
        fit_units(encoder, [(torch.zeros(640), 16000)], 3)


def test_long_sound_has_the_units_of_its_pieces(recognizer):
    sound = 0.1 * torch.randn(16000 * 5, generator=torch.Generator().manual_seed(0))
    encoder = recognizer_encoder(recognizer, hidden=True)
    centroids = encoder(sound, 16000)[::20]
    whole = UnitExtractor(encoder, centroids)(sound, 16000)
    short = recognizer_encoder(recognizer, hidden=True, chunk_seconds=1, context_seconds=0.2)
    assert len(set(whole.tolist())) > 3 and torch.equal(UnitExtractor(short, centroids)(sound, 16000), whole)


def test_a_saved_extractor_gives_the_same_units(recognizer, tmp_path):
    sound, centroids = 0.1 * torch.randn(32000), torch.randn(5, 8)
    extract = UnitExtractor(recognizer_encoder(recognizer, hidden=True), centroids)
    extract.save(tmp_path / "units")
    read = UnitExtractor.from_checkpoint(tmp_path / "units")
    assert torch.equal(read(sound, 16000), extract(sound, 16000)) and read.recipe == extract.recipe
    recognizer.save(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"UnitExtractor\.save"):
        UnitExtractor.from_checkpoint(tmp_path / "other")


def test_units_of_hubert_by_its_weights(tmp_path):
    """The middle layer of a HuBERT in transformers' layout; other weights would give other units, and are refused."""
    from transformers import HubertConfig, HubertModel

    small = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    small |= {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    network = HubertModel(HubertConfig(**small)).eval()
    network.save_pretrained(tmp_path / "hubert")
    sound = 0.1 * torch.randn(16000)
    encoder = content_encoder("contentvec", tmp_path / "hubert", layer=2)
    extract = fit_units(encoder, [(sound, 16000)], 4)
    extract.encoder_path = str(tmp_path / "hubert")
    extract.save(tmp_path / "units")
    padded = torch.nn.functional.pad(sound, (40, 40))[None]
    with torch.no_grad():
        frames = network(padded, output_hidden_states=True).hidden_states[2][0]
    nearest = ((frames[:, None] - extract.centroids) ** 2).sum(2).argmin(1)
    assert torch.equal(extract(sound, 16000), nearest)
    assert torch.equal(UnitExtractor.from_checkpoint(tmp_path / "units")(sound, 16000), nearest)
    HubertModel(HubertConfig(**small)).save_pretrained(tmp_path / "hubert")
    with pytest.raises(CheckpointError, match="other weights"):
        UnitExtractor.from_checkpoint(tmp_path / "units")
