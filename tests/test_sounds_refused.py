"""Sounds that no feature can be computed of: what was found, and what to do."""

import jaxtyping
import numpy as np
import pytest
import torch

from avlib import features
from avlib.errors import ParameterError
from avlib.models.beats import BEATs
from avlib.models.beats import Config as BEATsConfig
from avlib.models.cav_mae import CAVMAE
from avlib.models.classifiers import AudioClassifier

SOUND = 0.3 * torch.sin(torch.arange(8000) * 0.3)
FEATURES = [
    "cav_mae_fbank", "beats_fbank", "whisper_log_mel", "resnet_log_mel", "vocoder_log_mel", "speaker_mel", "svc_log_mel"
]  # fmt: skip
WRONG = {
    "torch.int16; .*Divide 16-bit": (SOUND * 32767).to(torch.int16),
    "samples up to 98[0-9][0-9].*Divide 16-bit": SOUND * 32767,
    "NaN or infinite": SOUND.clone().index_fill(0, torch.tensor([70]), torch.nan),
    "infinite samples": SOUND.clone().index_fill(0, torch.tensor([70]), -torch.inf),
    "ndarray; .*torch.from_numpy": SOUND.numpy(),
    "tuple; .*samples alone": (SOUND, 16000),
    "list; expected a torch tensor": SOUND.tolist(),
}


@pytest.fixture(autouse=True)
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", [*FEATURES, "kaldi_fbank"])
def test_features_refuse_what_is_no_sound(name):
    compute = getattr(features, name)
    assert compute(SOUND).isfinite().all()
    for found, sound in WRONG.items():
        if name == "kaldi_fbank" and "up to" in found:  # of any scale
            shift = (compute(sound) - compute(SOUND)).max().item()  # where the floor does not hold
            assert shift == pytest.approx(2 * np.log(32767), abs=0.01)
            continue
        with pytest.raises(ParameterError, match=f"waveform: .*{found}"):
            compute(sound)


def test_gradients_and_traces_pass():
    for name in FEATURES:
        leaf = SOUND.clone().requires_grad_()
        getattr(features, name)(leaf).sum().backward()
        assert leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0
    with torch._subclasses.FakeTensorMode() as mode:
        fake = mode.from_tensor(SOUND)
        features.check_sound(fake)
        with pytest.raises(ParameterError, match="int16"):
            features.check_sound(fake.to(torch.int16))


def test_networks_refuse_the_same():
    small = {"encoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2}
    beats = BEATs(BEATsConfig(**small, embed_dim=16, conv_pos=4, conv_pos_groups=2, predictor_class=3)).eval()
    classifier = AudioClassifier(backbone="whisper-base", small=True, num_outputs=2).eval()
    for network in (lambda sound: beats.features(sound, (0,)), classifier.features):
        for found, sound in WRONG.items():
            with pytest.raises(ParameterError, match=f"waveform: .*{found}"):
                network(sound[None] if isinstance(sound, torch.Tensor) else sound)


def test_encoders_refuse_other_inputs_than_theirs():
    model = CAVMAE(audio_length=32, image_size=32, width=16, heads=2, modality_depth=1, decoder_width=16,
                   decoder_heads=2, decoder_depth=1).eval()  # fmt: skip
    fbank, image = torch.zeros(1, 32, 128), torch.zeros(1, 3, 32, 32)
    assert model.encode(50 * fbank + 50, image)[0].isfinite().all(), "any scale"
    for name, inputs in {
        "audio: torch.int16": (fbank.short(), image), "image: torch.uint8": (fbank, image.byte()),
        "image: NaN": (fbank, image / 0), "audio: ndarray": (fbank.numpy(), image), "audio: tuple": ((fbank, 1), image),
    }.items():  # fmt: skip
        with pytest.raises(ParameterError, match=name):
            model.encode(*inputs)
    with pytest.raises(ParameterError, match=r"pictures: torch\.float32; expected torch\.uint8"):
        features.normalize_pictures(image)
