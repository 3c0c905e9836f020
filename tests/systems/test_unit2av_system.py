"""Units to speech: published settings, items, steps, resumed training, the user's files, figures."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from small_rows import UNIT2AV as SMALL
from torch import nn
from torch.nn import functional as F

from avlib import media, training
from avlib.clips import heads
from avlib.datasets.unit2av import write_units
from avlib.datasets.unit2av.dataset import (
    HELD_OUT_WORDS,
    KNOWN_WORDS,
    Piece,
    UnitDataset,
    piece_of,
    repeated,
    sound_of,
)
from avlib.errors import DatasetError, MediaError, ParameterError
from avlib.extract.discrete import UnitExtractor
from avlib.extract.speakers import embedder, voice_statistics
from avlib.features import vocoder_log_mel
from avlib.models.durations import kept_runs
from avlib.models.unit_source import UnitSource
from avlib.models.unit_speech import UnitSpeech
from avlib.models.unit_vocoder import UnitVocoder
from avlib.systems import unit2av
from avlib.systems.unit2av import changed
from avlib.systems.unit2av.evaluation import duration_errors, griffin_lim, periodicity, scored
from avlib.systems.unit2av.stages import discriminator_step, generator_step, validation, vocoder_step

# A few steps of smaller models, on few talks.
RANDOM = {"adversarial.begin": "random"}
small = changed(unit2av.tiny, SMALL)


def of_stage(stage, **values):
    return changed(small, {"stage": stage} | values)


@pytest.fixture(scope="module")
def adversarial():
    return unit2av.trained(of_stage("adversarial", **RANDOM, evaluate_every=1), progress=False)


@pytest.fixture(scope="module")
def parts():
    return unit2av.split(small, progress=False)


# Settings and data


def test_full_holds_the_published_numbers():
    own, network = unit2av.full.adversarial, unit2av.full.vocoder.network
    how = own.training
    assert (how.learning_rate, how.betas, how.weight_decay, how.batch_size) == (2e-4, (0.8, 0.99), 0.01, 16)
    assert (how.seed, how.steps, how.clip, unit2av.full.data.segment) == (1234, 500_000, 0.0, 28)
    assert [how.rate(0, epoch) for epoch in (0, 1, 100)] == pytest.approx([1, 0.999, 0.999**100])
    assert (own.begin, own.periods, own.scales, how.best, how.monitor) == (
        "random",
        (2, 3, 5, 7, 11),
        3,
        True,
        "mel L1",
    )
    assert (network.num_embeddings, network.upsample_initial_channel) == (1000, 512)


def test_every_phone_of_held_out_words_is_trained_on():
    phones = {phone for word in KNOWN_WORDS for phone in heads.WORDS[word]}
    assert {phone for word in HELD_OUT_WORDS for phone in heads.WORDS[word]} <= phones
    assert not set(HELD_OUT_WORDS) & set(KNOWN_WORDS) and len(HELD_OUT_WORDS) >= 6


def test_items_follow_the_published_rules():
    """Both are cut to the shorter one, the peak is 0.95, what is too short is doubled, starts reach the last one."""
    waveform = torch.sin(torch.arange(320 * 11 + 100) / 20) * 0.3
    made = piece_of(waveform, torch.arange(10), torch.ones(256), "a.wav")
    assert made.waveform.shape == (3200,) and float(made.waveform.abs().max()) == pytest.approx(0.95)
    assert torch.allclose(made.waveform * float(waveform[:3200].abs().max()) / 0.95, waveform[:3200], atol=1e-6)
    longer = piece_of(waveform, torch.arange(50), torch.ones(256))
    assert longer.units.tolist() == list(range(11))
    doubled = repeated(made, 28)
    assert doubled.units.tolist() == list(range(10)) * 4 and torch.equal(doubled.waveform[3200:6400], made.waveform)
    with pytest.raises(MediaError, match=r"b\.wav is silent|b\.wav: is silent"):
        piece_of(torch.zeros(640), torch.arange(2), torch.ones(256), "b.wav")
    numbers = torch.arange(30)
    piece = Piece(numbers, torch.ones(256), numbers.repeat_interleave(320).float(), numbers.float(), numbers > 3)
    dataset, starts = UnitDataset([piece], 28), set()
    for epoch in range(40):
        dataset.set_epoch(epoch)
        item = dataset[0]
        starts.add(int(item.units[0]))
        assert torch.equal(item.waveform.view(28, 320).long(), item.units[:, None].expand(-1, 320))
        assert torch.equal(item.hertz.long(), item.units)
    assert starts == {0, 1, 2}


def test_talks_have_units_pitch_and_speakers(parts):
    piece, talk = parts.train.pieces[0], heads.talks(1, KNOWN_WORDS, 2, small.data.heads)[0]
    assert piece.name == " ".join(talk.words) and len(parts.train) == 6 and len(parts.held_out) == 3
    assert set(" ".join(piece.name for piece in parts.held_out.pieces).split()) <= set(HELD_OUT_WORDS)
    assert torch.allclose(piece.hertz, torch.from_numpy(talk.truth.hertz).float()) and len(piece.units) % 2 == 0
    assert int(piece.units.max()) < 12 and piece.speaker.shape == (256,)
    assert unit2av.split(small, progress=False).train.report() == parts.train.report() != ""


def test_speakers_are_told_apart_by_statistics_of_their_sound():
    embed, name = embedder("statistics")
    assert name == "statistics" and embed is voice_statistics
    vectors = {
        speaker: [embed(torch.from_numpy(heads.Talk(words, speaker).sound())) for words in ("key moon", "date fan")]
        for speaker in (3, 8)
    }
    near = [float((a - b).norm()) for a, b in vectors.values()]
    far = float((vectors[3][0] - vectors[8][1]).norm())
    assert max(near) < far
    with pytest.raises(ParameterError, match="no voice"):
        embed(0.1 * torch.rand(16000) - 0.05)


# Steps


def test_the_generator_s_loss_is_the_published_sum(parts):
    """Adversarial + 2 L1 of maps + 45 L1 of log-mel + duration loss, over one period and one scale."""
    model, batch = unit2av.build(of_stage("adversarial", **RANDOM), progress=False), parts.held_out.batch()
    model["generator"].dur_predictor.dropout.p = 0.0
    model["discriminators"].eval()  # so that spectral norm stands still
    loss, told = generator_step(model, batch, small)
    out = model["generator"](batch.units, batch.speaker)
    real, fake = batch.waveform[:, None], out.waveform
    expected = 45 * (vocoder_log_mel(fake[:, 0]) - vocoder_log_mel(real[:, 0])).abs().mean() + out.duration_loss
    critic = torch.zeros(())
    for judge in model["discriminators"].values():
        scores_real, scores_fake, maps_real, maps_fake = judge(real, fake)
        for a, b, maps, others in zip(scores_real, scores_fake, maps_real, maps_fake, strict=True):
            expected = (
                expected
                + ((1 - b) ** 2).mean()
                + 2 * sum((x - y).abs().mean() for x, y in zip(maps, others, strict=True))
            )
            critic = critic + ((1 - a) ** 2).mean() + (b**2).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert discriminator_step(model, batch, small)[0].item() == pytest.approx(critic.item(), rel=1e-4)
    assert set(told) == {"mel", "duration", "adversarial", "feature"}
    assert [name for name, _ in model["discriminators"].named_children()] == ["msd", "mpd"], "in the published order"
    assert list(unit2av.stages["adversarial"].step) == ["discriminators", "generator"]


def test_a_generator_without_durations_learns_from_the_mel_alone(parts):
    batch = parts.train.batch()
    model = UnitVocoder(replace(small.vocoder.network, num_embeddings=12, dur_predictor_params=None))
    loss, named = vocoder_step(model, batch, small)
    made = vocoder_log_mel(model(batch.units, batch.speaker).waveform[:, 0])
    expected = 45 * (made - vocoder_log_mel(batch.waveform)).abs().mean()
    torch.testing.assert_close(loss, expected)
    assert named.keys() == {"mel"}


def test_two_optimisers_train_and_the_generator_alone_is_kept(adversarial):
    model, history, folder = adversarial
    assert isinstance(model, UnitVocoder) and not model.training
    row = history.rows[-1]
    assert {"discriminators loss", "generator loss", "mel L1", "duration loss"} <= set(row)
    assert all(math.isfinite(value) for value in row.values())
    assert json.loads((folder / "speaker.json").read_text()) == {"speaker": embedder("auto")[1]}
    extract = UnitExtractor.from_checkpoint(folder / "units")
    sound = torch.from_numpy(heads.Talk("key moon", 1).sound())
    assert torch.equal(extract(sound, 16000), unit2av.extractor(small, progress=False)(sound, 16000))


def test_killed_and_resumed_is_bit_equal(adversarial, tmp_path):
    """A run that is stopped in its second step and goes on ends with the weights of one that was not."""
    settings = of_stage("adversarial", **RANDOM, evaluate_every=1, save_every=1)
    dataset, how = unit2av.data(settings, progress=False), settings.adversarial.training

    class Killed(Exception):
        pass

    def dies(model, batch, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) > 1:
            raise Killed
        return generator_step(model, batch, settings)

    steps = {
        name: lambda m, b, one=one: one(m, b, settings) for name, one in unit2av.stages["adversarial"].step.items()
    }
    options = {"folder": tmp_path, "device": "cpu", "progress": False}
    with pytest.raises(Killed):
        training.fit(unit2av.build(settings), steps | {"generator": dies}, dataset, how, **options)
    resumed = unit2av.build(settings)
    training.fit(resumed, steps, dataset, how, **options)
    generator = resumed["generator"].eval()
    generator.remove_weight_norm()
    expected = adversarial.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in generator.state_dict().items())


def test_the_source_driven_vocoder_trains(parts):
    model, history, _ = unit2av.trained(of_stage("pitch"), progress=False)
    assert isinstance(model, UnitSource) and {"mel", "pitch", "mel L1"} <= set(history.rows[-1])
    piece = parts.held_out.pieces[0]
    with torch.no_grad():
        assert model(piece.units[None], piece.speaker).waveform.shape == (1, 1, 320 * len(piece.units))


# The user's files


@pytest.fixture
def recordings(tmp_path):
    """Three talks as wav files, with units on an alphabet of 20 that begins at 4."""
    units = []
    for n, talk in enumerate(heads.talks(3, speakers=2, length=1)):
        media.write_wav(tmp_path / f"{n}.wav", torch.from_numpy(talk.sound()), 16000)
        units.append(torch.from_numpy(talk.truth.units) % 20 + 4)
        write_units(tmp_path / f"{n}.pt", units[-1], torch.full((256,), float(n + 1)))
    return tmp_path, units


def manifest_of(folder, name, lines):
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


def test_a_manifest_of_files_and_of_units_in_the_line(recordings):
    folder, units = recordings
    lines = [f"{{'audio': '{n}.wav', 'unit_path': '{n}.pt'}}" for n in (0, 1)]
    lines.append(json.dumps({"audio": "2.wav", "hubert": " ".join(map(str, units[2].tolist()))}))
    values = {"data.data": manifest_of(folder, "train.txt", lines), "unit_offset": 4, "num_embeddings": 20}
    values["data.validation"] = manifest_of(folder, "valid.jsonl", [lines[2]])
    with pytest.warns(UserWarning, match="1 of 1 validation pairs"):
        train, held_out = unit2av.split(changed(small, values), progress=False)
    assert [len(train), len(held_out)] == [3, 1] and torch.equal(train.pieces[0].units, units[0] - 4)
    assert float(train.pieces[1].speaker[0]) == 2.0, "that of the file"
    assert torch.equal(train.pieces[2].speaker, voice_statistics(media.read_audio(folder / "2.wav", 16000)))
    only = changed(small, values | {"stage": "vocoder", "data.validation": "", "batch_size": 2})
    trained = unit2av.trained(only, progress=False)
    assert trained.model.config.num_embeddings == 20 and not (trained.folder / "units").exists()
    assert unit2av.assess(trained.model, only, progress=False).figures["mel L1"].reference > 0
    with pytest.raises(ParameterError, match=r"line \d.*expected 0 to 7"):
        unit2av.split(changed(only, {"unit_offset": 0, "num_embeddings": 8}), progress=False)


def test_files_that_cannot_be_used_are_named_or_left_out(recordings):
    folder, _ = recordings
    media.write_wav(folder / "silent.wav", torch.zeros(8000), 16000)
    lines = [json.dumps({"audio": f"{name}.wav", "unit_path": "0.pt"}) for name in ("0", "silent", "1", "lost")]
    values = {"data.data": manifest_of(folder, "train.txt", lines), "unit_offset": 4, "num_embeddings": 20}
    with pytest.raises(MediaError, match="silent"):
        unit2av.split(changed(small, values), progress=False)
    train, _ = unit2av.split(changed(small, values | {"on_error": "skip"}), progress=False)
    assert "2 of 4 items left out" in train.report() and "lost.wav" in train.report()
    write_units(folder / "nan.pt", torch.arange(4, 20), torch.full((256,), float("nan")))
    lines = [json.dumps({"audio": "0.wav", "unit_path": "nan.pt"})]
    with pytest.raises(DatasetError, match=r"line 1.*NaN"):
        unit2av.split(changed(small, values | {"data.data": manifest_of(folder, "b.txt", lines)}), progress=False)


def test_a_folder_of_sound_has_its_units_extracted(recordings):
    folder, _ = recordings
    settings = changed(small, {"data.data": str(folder), "stage": "vocoder", "clusters": 8})
    train, held_out = unit2av.split(settings, progress=False)
    assert [len(train), len(held_out)] == [2, 1]
    extract = unit2av.extractor(settings, progress=False)
    waveform = media.read_audio(folder / "1.wav", 16000)
    assert extract.vocabulary == 8 and torch.equal(train.pieces[0].units, extract(waveform, 16000))
    assert settings.vocoder.training.batch_size > len(train)
    assert unit2av.trained(settings, progress=False).model.config.num_embeddings == 8


def test_validation_is_a_mean_over_all_items(parts, monkeypatch):
    model = unit2av.build(of_stage("vocoder"), progress=False).eval()
    whole = validation(model, of_stage("vocoder"))
    monkeypatch.setattr(sys.modules[validation.__module__], "_AT_ONCE", 2)
    batch = parts.held_out.batch()
    with torch.no_grad():
        made = vocoder_log_mel(model(batch.units, batch.speaker).waveform[:, 0])
    apart = (made - vocoder_log_mel(batch.waveform)).abs().mean().item()
    assert whole["mel L1"] == pytest.approx(apart, rel=1e-5)
    assert validation(model, of_stage("vocoder"))["mel L1"] == pytest.approx(apart, rel=1e-5)


# Figures


def test_periodicity_of_a_tone_of_noise_and_of_a_mixture():
    times = torch.arange(32000) / 16000
    tone = torch.sign(torch.sin(2 * math.pi * 123 * times))
    noise = torch.randn(32000, generator=torch.Generator().manual_seed(0))
    assert float(periodicity(tone)[5:-5].min()) > 0.97 and float(periodicity(noise)[5:-5].mean()) < 0.25
    assert len(periodicity(noise)) == 100
    # Of a periodic part and as much noise, half of what is correlated is left.
    assert float(periodicity(tone + noise)[5:-5].mean()) == pytest.approx(0.55, abs=0.07)


def test_griffin_lim_gives_the_mel_back_in_time():
    sound = torch.from_numpy(heads.Talk("key moon", 1).sound())
    made = griffin_lim(vocoder_log_mel(sound), len(sound))
    assert made.shape == sound.shape
    envelopes = [F.avg_pool1d(each.abs()[None], 320)[0] for each in (sound, made)]
    shifted = [torch.corrcoef(torch.stack([envelopes[0][3:-3], envelopes[1][3 + n : len(envelopes[1]) - 3 + n]]))[0, 1]
               for n in (-2, -1, 0, 1, 2)]  # fmt: skip
    assert max(shifted) == shifted[2] > 0.95


class Ones(UnitSpeech):
    """A vocoder that predicts one unit for each."""

    def __init__(self):
        super().__init__()
        self.config, self.weight = UnitVocoder(small.vocoder.network).config, nn.Parameter(torch.ones(1))

    def predict_durations(self, units):
        return torch.ones_like(units)


def test_duration_errors_by_hand():
    def piece(*units):
        return Piece(torch.tensor(units), torch.ones(256), *[torch.zeros(0)] * 2, torch.zeros(0, dtype=torch.bool))

    train = [piece(9, 1, 1, 1, 2, 2, 9), piece(9, 1, 2, 2, 2, 2, 9)]  # means: 1 has 2, 2 has 3
    assert [each.tolist() for each in kept_runs(train[0].units)] == [[1, 4], [3, 2]]
    found = duration_errors(Ones(), train, [piece(9, 9, 1, 1, 1, 1, 2, 2, 2, 9)])
    assert found == {"predicted": (3 + 2) / 2, "mean of the unit": (2 + 0) / 2}


def test_true_sound_and_noise_are_scored(parts):
    judging = unit2av.judges(changed(small, {"recognizer.steps": 2}), progress=False)
    assert judging.words.classes == tuple(heads.WORDS) and judging.speakers.classes == ("s0", "s1")
    talks, extract = unit2av.held_out(small), unit2av.extractor(small, progress=False)
    assert [" ".join(talk.words) for talk in talks] == [piece.name for piece in parts.held_out.pieces]
    true = scored([sound_of(talk) for talk in talks], talks, judging, extract)
    noise = scored([0.1 * torch.randn(len(talk.sound())) for talk in talks], talks, judging, extract)
    found, worse = true.figures(), noise.figures()
    assert (found["units same"], found["edits"]) == (1.0, 0.0) and len(true.words) == 9
    assert found["periodicity"] > 0.9 > 0.5 > worse["periodicity"]
    assert found["within a semitone"] > 0.95 and worse["units same"] < 0.5
    pitched = of_stage("pitch")
    report = unit2av.assess(unit2av.trained(pitched, progress=False).model, pitched, progress=False)
    assert {*found, "duration error"} == set(report.figures)
    assert report.figures["words"].meaning == "the true sound" and report.figures["units same"].reference > 0.4
