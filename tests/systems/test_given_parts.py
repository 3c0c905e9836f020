"""Given parts that do not fit each other are refused before anything is trained."""

import pytest

from avlib import training
from avlib.errors import CheckpointError, ParameterError
from avlib.models.audiotoken import AudioTokenEmbedder
from avlib.models.diffusion_svc import Config, DiffusionSVC
from avlib.models.face_renderer import Config as FaceConfig
from avlib.models.face_renderer import FaceRenderer
from avlib.models.unit_vocoder import Config as VocoderConfig
from avlib.models.unit_vocoder import UnitVocoder
from avlib.systems import audiotoken, changed, svc, unit2av
from avlib.systems.unit2av import Speech

NARROW = {"upsample_initial_channel": 32, "resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1, 3),)}


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *given, **how: pytest.fail("something is trained"))


@pytest.mark.parametrize(
    ("sizes", "found"), [((2304, 768), "2304 wide; expected 192"), ((192, 768), "768 wide; expec")]
)
def test_an_embedder_of_other_widths(sizes, found, tmp_path):
    AudioTokenEmbedder(*sizes).save(tmp_path / "embedder")
    with pytest.raises(CheckpointError, match=found):  # 192: three layers, 64 wide; words are 64 wide
        audiotoken.assembled(audiotoken.tiny, embedder=tmp_path / "embedder", progress=False)


def test_a_beats_file_is_read_before_the_other_model_is_trained(tmp_path):
    (tmp_path / "beats.pt").write_bytes(b"nothing")
    settings = changed(audiotoken.tiny, {"classifier.checkpoint": str(tmp_path / "beats.pt")})
    with pytest.raises(CheckpointError, match=r"beats\.pt"):
        audiotoken.trained(settings, progress=False)


def test_a_diffusion_model_of_other_units_or_singers(tmp_path):
    config = Config(channels=8, layers=1, condition_size=8, predicts="x0", unit_size=256, singers=2)
    DiffusionSVC(config, [-5.0] * 128, [1.0] * 128).save(tmp_path / "model")
    settings = changed(svc.tiny, {"checkpoint": str(tmp_path / "model")})
    with pytest.raises(CheckpointError, match=r"unit_size 256; expected unit_size \d"):
        svc.trained(settings, progress=False)
    settings = changed(settings, {"encoder": "kmeans", "clusters": 256, "only": ["mira"]})
    with pytest.raises(CheckpointError, match="singers 2; expected singers 0"):
        svc.trained(settings, progress=False)


def test_a_vocoder_of_other_units(tmp_path):
    vocoder = UnitVocoder(VocoderConfig(num_embeddings=30, **NARROW))
    vocoder.save(tmp_path / "vocoder")
    settings = changed(unit2av.tiny, {"stage": "vocoder", "vocoder.checkpoint": str(tmp_path / "vocoder")})
    with pytest.raises(ParameterError, match=r"30 units in .*; expected 50"):
        unit2av.trained(settings, progress=False)
    face = FaceRenderer(FaceConfig(
        num_embeddings=20, encoder_widths=(4,) * 6, decoder_widths=(4,) * 6, feedforward=8, output_width=4
    ))  # fmt: skip
    with pytest.raises(CheckpointError, match="renderer: has 20 units; expected 30"):
        Speech(vocoder, face)
