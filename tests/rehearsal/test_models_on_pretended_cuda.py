"""Networks that no training step reaches, and samplers, on a pretended CUDA device give what they give on the CPU."""

import pytest
import torch
from pretending import Pretending, autocast, back, moved

from avlib.models import diffusion_svc, nsf_hifigan, samplers
from avlib.models.cav_mae import CAVMAE
from avlib.models.classifiers import BACKBONES, AudioClassifier
from avlib.models.face_renderer import Config as FaceConfig
from avlib.models.face_renderer import FaceRenderer, render
from avlib.models.source_filter import SourceFilterVocoder
from avlib.models.speaker_encoder import SpeakerEncoder
from avlib.models.unit_source import Config as SourceConfig
from avlib.models.unit_source import UnitSource
from avlib.models.unit_vocoder import Config as VocoderConfig
from avlib.models.unit_vocoder import UnitVocoder

SOUND = 0.3 * torch.sin(torch.arange(8000) / 7)
MEL, HERTZ = torch.full((1, 128, 6), -4.0), torch.full((1, 6), 220.0)
UNITS = torch.tensor([[1, 1, 2, 5, 5, 5, 3, 0]])
_TINY = {
    "audio_length": 32, "mel_bins": 32, "audio_patch": 8, "image_size": 16, "image_patch": 8, "width": 16, "heads": 2,
    "modality_depth": 1, "decoder_width": 16, "decoder_heads": 2, "decoder_depth": 1,
}  # fmt: skip


def spoken(model, there):
    vector = there(torch.ones(256))
    whole = model(there(UNITS), vector).waveform
    parts = torch.cat(list(model.pieces(there(UNITS[0]), vector, 4)))
    return whole, parts, model.predict_durations(there(UNITS))


def sampled(sampler):
    def run(model, there):
        condition = there(torch.ones(1, 16, 9))
        return model.sample(condition, 10, sampler, seed=1, lengths=there(torch.tensor([7])))

    return run


def inpainted(model, there):
    torch.manual_seed(0)
    return tuple(model.inpaint(there(torch.ones(2, 32, 32)), there(torch.ones(2, 3, 16, 16))))[:2]


# Name: builder, run of (model, function that moves tensors).
_SVC = {"mels": 128, "unit_size": 3, "channels": 8, "layers": 2, "condition_size": 16}
NETWORKS = {
    "NSF-HiFiGAN": (
        lambda: nsf_hifigan.NSFHiFiGAN(nsf_hifigan.Config(upsample_initial_channel=32)),
        lambda model, there: model(there(MEL), there(HERTZ), noise=False),
    ),
    "source-filter": (SourceFilterVocoder, lambda model, there: model(there(MEL), there(HERTZ), noise=False)),
    "speaker encoder": (SpeakerEncoder, lambda model, there: model.embed(there(SOUND))),
    "unit vocoder": (lambda: UnitVocoder(VocoderConfig(num_embeddings=8, upsample_initial_channel=32)), spoken),
    "unit source": (lambda: UnitSource(SourceConfig(num_embeddings=8, width=16, layers=1)), spoken),
    "CAV-MAE inpainting": (lambda: CAVMAE(**_TINY), inpainted),
} | {
    f"diffusion, {name}": (lambda: diffusion_svc.DiffusionSVC(diffusion_svc.Config(**_SVC)), sampled(name))
    for name in samplers.SAMPLERS
}


def compared(build, run, exact=1e-4):
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        expected = run(model, lambda value: value)
        with Pretending():
            moved(model)
            for dtype in (None, torch.float16):
                with autocast(dtype):
                    found = back(run(model, moved))
                close = {"rtol": exact, "atol": exact} if dtype is None else {"rtol": 0.1, "atol": 0.1}
                torch.testing.assert_close(found, expected, **close, check_dtype=dtype is None)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    compared(*NETWORKS[name])


@pytest.mark.parametrize("name", ["whisper-tiny", "wav2vec2-base", "hubert-large", "resnet50", "ast", "beats"])
def test_backbones(name):
    conditions = {"word": "heads", "age": "film", "num_words": 3, "num_ages": 4}

    def run(model, there):
        sound = there(torch.stack([SOUND, SOUND.flip(0)]))
        numbers = {"word": there(torch.tensor([0, 2])), "age": there(torch.tensor([3, 1]))}
        return model(sound, there(torch.tensor([8000, 6000])), **numbers)

    conditions |= {"norm": "layer"} if BACKBONES[name].norm == "group" else {}
    compared(lambda: AudioClassifier(name, small=True, num_outputs=3, seconds=0.5, **conditions), run)


def test_faces_are_pasted_into_a_video():
    narrow = FaceConfig(
        num_embeddings=8, encoder_widths=(2, 2, 2, 2, 2, 8), decoder_widths=(8, 4, 4, 4, 4, 4), feedforward=8,
        output_width=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model, frames = FaceRenderer(narrow).eval(), torch.randint(256, (3, 48, 64, 3), dtype=torch.uint8)
    boxes = [[10, 8, 40, 40], None, [12, 8, 44, 40]]
    expected = render(model, frames, boxes, UNITS[0], feather=0.1)
    with Pretending():
        moved(model)
        for given in (UNITS[0], moved(UNITS[0])):
            found = render(model, frames, boxes, given, feather=0.1)
            assert int((found.int() - expected.int()).abs().max()) <= 1 and found.device.type == "cpu"
