"""The source-driven vocoder of units."""

import math

import pytest
import torch

from avlib.errors import CheckpointError, ParameterError
from avlib.features.harmonics import phases, turns
from avlib.models.unit_source import Config, UnitSource, pulses
from avlib.models.unit_vocoder import Config as VocoderConfig
from avlib.models.unit_vocoder import UnitVocoder

SMALL = Config(num_embeddings=20, width=24, layers=2, bands=12, pitch_width=16)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UnitSource(SMALL).eval()


@pytest.fixture(scope="module")
def given():
    torch.manual_seed(1)
    return torch.randint(0, 20, (3, 30)), torch.randn(3, 256)


def test_a_padded_batch_is_its_single_items(model, given):
    units, speaker = given
    lengths = torch.tensor([30, 11, 1])
    for predict in (False, True):
        out = model(units, speaker, predict_durations=predict, lengths=lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model(units[row : row + 1, :length], speaker[row], predict_durations=predict)
            samples = alone.waveform.shape[2]
            assert int(out.lengths[row]) == samples == int(alone.durations.sum()) * 320
            torch.testing.assert_close(out.waveform[row, :, :samples], alone.waveform[0], atol=1e-5, rtol=0)
            assert not out.waveform[row, :, samples:].any()


def test_pieces_are_the_whole(model, given):
    units, speaker = given[0].flatten(), given[1][0]
    narrow = VocoderConfig(20, 16, 32, upsample_initial_channel=32, dur_predictor_params=None)
    for vocoder in (model, UnitVocoder(narrow).eval()):
        whole = vocoder(units[None], speaker).waveform[0, 0]
        for size in (1, 37, 500):
            made = torch.cat(list(vocoder.pieces(units, speaker, size)))
            torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)
        with pytest.raises(ParameterError, match="position 2"):
            next(vocoder.pieces(torch.tensor([1, 2, 20]), speaker))


def test_pulses_are_all_harmonics_with_the_period_of_the_pitch():
    hertz = torch.full((1, 20), 100.0)
    made = pulses(hertz, 320)[0]
    times = torch.arange(6400, dtype=torch.float64) / 16000
    by_hand = sum(torch.cos(2 * math.pi * 100 * k * times) for k in range(1, 77)) * math.sqrt(2 / 76)
    torch.testing.assert_close(made, by_hand, atol=1e-6, rtol=0)
    assert float(made.square().mean()) == pytest.approx(1, abs=1e-6)


def test_phases_continue_a_piece():
    torch.manual_seed(0)
    hertz = 100 + 50 * torch.rand(1, 12, dtype=torch.float64)
    whole, begins = turns(hertz, 16000, 320), phases(hertz, 16000, 320)
    part = turns(hertz[:, 5:], 16000, 320, begins[:, 5])
    apart = (part[:, 320:] - whole[:, 6 * 320 :] + 0.5) % 1 - 0.5
    assert float(apart.abs().max()) < 1e-9


def test_the_waveform_has_the_given_pitch_and_gradients_reach_all_but_the_durations(given):
    torch.manual_seed(0)
    model = UnitSource(SMALL)
    waveform, predicted = model.synthesize(*given, torch.full((3, 30), 125.0), torch.zeros(3, 9600))
    assert waveform.shape == (3, 1, 9600) and predicted.shape == (3, 30)
    spectrum = torch.fft.rfft(waveform[0, 0, 1600:8000].detach() * torch.hann_window(6400)).abs()  # bins of 2.5 Hz
    harmonics = spectrum[50::50][:40]
    between = spectrum[25::50][:40]
    assert float(harmonics.mean()) > 20 * float(between.mean())
    (waveform.square().mean() + predicted.mean()).backward()
    silent = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert silent == {name for name, _ in model.named_parameters() if name.startswith("dur_predictor.")}


def test_save_and_load(model, given, tmp_path):
    model.save(tmp_path / "made")
    again = UnitSource.from_checkpoint(tmp_path / "made")
    assert again.config == SMALL and not again.training
    torch.testing.assert_close(again(*given).waveform, model(*given).waveform, atol=0, rtol=0)
    UnitVocoder(VocoderConfig(20, 16, 32, upsample_initial_channel=32, dur_predictor_params=None)).save(
        tmp_path / "other"
    )
    with pytest.raises(CheckpointError, match="UnitSource"):
        UnitSource.from_checkpoint(tmp_path / "other")


def test_units_and_speakers_that_do_not_fit_are_refused(model, given):
    units, speaker = given
    for wrong in (units + 1, units - 1):
        with pytest.raises(ParameterError, match="units"):
            model(wrong, speaker)
    for wrong in (speaker * 0, speaker * math.nan):
        with pytest.raises(ParameterError, match="speaker"):
            model(units, wrong)
    with pytest.raises(ParameterError, match="predict_durations"):
        UnitSource(SMALL)(units, speaker, predict_durations=True)
