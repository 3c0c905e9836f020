"""Conversion with small published files: a `.ckpt`, ContentVec, NSF-HiFiGAN. Odd songs, and files that do not fit."""

import json
import math

import pytest
import soundfile
import torch
from making import write_wav
from transformers import HubertConfig, HubertModel

from avlib import errors
from avlib.__main__ import _guarded
from avlib.features import svc_log_mel
from avlib.models import quiet
from avlib.models.diffusion_svc import Config, DiffusionSVC
from avlib.models.nsf_hifigan import Config as VocoderConfig
from avlib.models.nsf_hifigan import NSFHiFiGAN
from avlib.systems.svc import pieces
from avlib.systems.svc.command import convert_command
from avlib.systems.svc.project import load

RATE, HOP, WIDTH = 44100, 512, 32
VOCODER = {"upsample_initial_channel": 32, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]]}
FACTS = {
    "sampling_rate": RATE, "hop_size": HOP, "n_fft": 2048, "win_size": 2048, "num_mels": 128, "fmin": 40, "fmax": 16000,
    "upsample_rates": [8, 8, 2, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4, 4], "resblock": "1",
}  # fmt: skip


def vocoder_folder(folder, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(FACTS | VOCODER | changes))
    config = VocoderConfig(
        upsample_initial_channel=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),)
    )
    torch.save({"generator": NSFHiFiGAN(config).state_dict()}, folder / "model")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with the three."""
    folder = tmp_path_factory.mktemp("published")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [16] * 7}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        content = HubertModel(HubertConfig(hidden_size=WIDTH, **sizes, num_conv_pos_embedding_groups=4))
        model = DiffusionSVC(Config(unit_size=WIDTH, condition_size=WIDTH, channels=32, layers=4))
        torch.nn.init.normal_(model.denoise_fn.output_projection.weight, std=0.05)
        vocoder_folder(folder / "nsf")
    with quiet():
        content.save_pretrained(folder / "contentvec")
    names = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 1, "global_step": 7, "state_dict": names}, folder / "model_ckpt_steps_7.ckpt")
    return folder


def sung(seconds, hertz=220.0, rate=RATE):
    turns = torch.arange(round(seconds * rate), dtype=torch.float64) * hertz / rate
    return sum(0.1 / k * torch.sin(2 * math.pi * k * turns) for k in range(1, 8)).float()


def command(published, *arguments):
    given = ["--model", published / "model_ckpt_steps_7.ckpt", "--encoder", "contentvec", "--encoder-path"]
    given += [
        published / "contentvec",
        "--vocoder",
        published / "nsf",
        "--sampler",
        "unipc",
        "--steps",
        "2",
        *arguments,
    ]
    return _guarded(lambda: convert_command([str(each) for each in given]))


def test_odd_songs_are_converted_or_refused_by_name(published, tmp_path, capsys):
    noise = 0.05 * torch.randn(RATE // 2, generator=torch.Generator().manual_seed(0))
    broken = sung(0.3)
    broken[5000] = math.nan
    songs = {
        "silence": (torch.zeros(RATE // 2), RATE), "noise": (noise, RATE), "nan": (broken, RATE),
        "slow": (sung(0.7, rate=8000), 8000), "high": (sung(0.5, 1250.0), RATE), "quiet": (0.01 * sung(0.5), RATE),
        "instant": (sung(0.015), RATE), "short": (sung(0.05), RATE), "fifth": (sung(0.2), RATE),
        "less": (sung(1)[: 60 * HOP - 1], RATE), "more": (sung(1)[: 60 * HOP + 1], RATE), "long": (sung(4), RATE),
    }  # fmt: skip
    paths = [write_wav(tmp_path / f"{name}.wav", sound[None], rate) for name, (sound, rate) in songs.items()]
    assert command(published, *paths, "--out", tmp_path / "new") == 2
    shown = capsys.readouterr()
    for said in (
        "silence.wav: Nothing in it is voiced",
        "noise.wav: Nothing in it is voiced",
        "high.wav: 100.0% of what is sung",
        "nan.wav: its sound is not a number at 0.113 s",
        "instant.wav: 0.0150 s of sound; expected at least 0.02 s",
    ):
        assert said in shown.err
    assert "Traceback" not in shown.err
    for name, (sound, rate) in songs.items():
        path = tmp_path / "new" / f"{name}-converted.wav"
        assert path.exists() == (name not in ("nan", "instant")) == (str(path) in shown.out)
        if path.exists():
            with soundfile.SoundFile(path) as file:
                made = torch.from_numpy(file.read())
                assert "synthetic" in file.title
            assert len(made) == -(-len(sound) * RATE // rate)
            level, wanted = (float(each.square().mean().sqrt()) for each in (made, sound))
            assert level == 0 if name == "silence" else abs(level / wanted - 1) < 0.2, name


def test_nsf_hifigan_in_pieces_is_the_whole(published):
    vocoder = NSFHiFiGAN.from_checkpoint(published / "nsf").requires_grad_(False)
    hertz = 220 * 2 ** (torch.sin(torch.arange(150) / 7) / 6)
    mel, voiced = svc_log_mel(sung(150 * HOP / RATE))[:150], torch.ones(150, dtype=torch.bool)
    whole = torch.cat(list(pieces.vocoded(vocoder, [mel], hertz, voiced)))
    parts = list(pieces.vocoded(vocoder, mel.split(40), hertz, voiced))
    assert len(parts) > 3 and float((torch.cat(parts) - whole).abs().max()) < 1e-5 < float(whole.std())


def test_files_that_do_not_fit_are_named(published, tmp_path, capsys):
    song = write_wav(tmp_path / "song.wav", sung(0.3)[None], RATE)
    transposed = vocoder_folder(tmp_path / "slow", sampling_rate=22050)
    with quiet():
        HubertModel(
            HubertConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=2, conv_dim=[8] * 7)
        ).save_pretrained(tmp_path / "wide")
    for wrong, message in (
        (["--vocoder", transposed], "ParameterError: sampling_rate: 44100; expected 22050"),
        (["--vocoder", tmp_path], "lacks one of its two files"),
        (["--encoder-path", tmp_path / "wide"], f"width: {WIDTH}; expected 48"),
        (["--encoder-path", tmp_path / "none"], "CheckpointError: "),
        (["--encoder", "kmeans"], "CheckpointError: "),
        (["--encoder", "hubert_soft"], "Did you mean 'hubert-soft'?"),
        (["--singer", "Anna"], "the model has one"),
        (["--key", "median"], "the model does not know"),
        (["--sampler", "plms", "--steps", "7"], "steps: 7"),
    ):
        assert command(published, song, "--out", tmp_path / "new", *wrong) == 2
        shown = capsys.readouterr().err
        assert message in shown and "Traceback" not in shown, shown
    assert not list(tmp_path.glob("new/*"))
    with pytest.raises(errors.CheckpointError, match="does not say which encoder"):
        load(published / "model_ckpt_steps_7.ckpt")
