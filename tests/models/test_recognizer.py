"""The small recogniser: its clock, its independence of padding and of what is far away, and its files."""

import pytest
import torch

from avlib import checkpoints
from avlib.errors import CheckpointError, ParameterError, TooShortError
from avlib.models.recognizer import Config, Recognizer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Recognizer(Config(classes=("a", "e", "rest"), width=16, layers=2)).eval()


def sound(samples, rows=1):
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("samples", [320, 639, 640, 16000, 16319])
def test_a_unit_every_20_ms(model, samples):
    logits = model(sound(samples, 2))
    assert logits.shape == (2, samples // 320, 3)
    hidden = model.hidden(sound(samples, 2))
    assert hidden.shape == (2, samples // 320, model.width)
    torch.testing.assert_close(logits, hidden @ model.head.weight.T + model.head.bias)


def test_a_click_is_seen_first_by_the_unit_that_it_is_in():
    """Without layers a unit sees frames 2j - 1 to 2j + 2 of 25 ms, 10 ms apart: 55 ms around (j + .5) * 20 ms."""
    torch.manual_seed(0)
    model = Recognizer(Config(classes=("a",), width=8, layers=0)).eval()
    silence = torch.zeros(1, 6400)
    click = silence.clone()
    click[0, 10 * 320 + 160] = 1.0  # the middle of unit 10
    moved = (model(click) - model(silence))[0, :, 0].abs() > 1e-6
    assert moved.nonzero().flatten().tolist() == [9, 10, 11]


def test_a_padded_batch_equals_its_items(model):
    lengths = [16000, 9999, 6480, 320]
    batch = sound(16000, 4)  # what follows an item is not zero
    found = model(batch, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = model(batch[row : row + 1, :length])[0]
        torch.testing.assert_close(found[row, : len(alone)], alone, rtol=0, atol=2e-6)


def test_a_part_gives_what_the_whole_gives(model):
    whole, first, units = sound(32000), 30, 50
    part = model(whole[:, first * 320 : (first + units) * 320])[0]
    inner = slice(model.context, units - model.context)
    expected = model(whole)[0, first : first + units][inner]
    torch.testing.assert_close(part[inner], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(part, model(whole)[0, first : first + units], atol=1e-6), "the ends differ"


def test_the_log_mel_is_that_of_kaldi(model):
    from torchaudio.compliance.kaldi import fbank

    wave = sound(8000)
    how = {"num_mel_bins": 40, "window_type": "hanning", "dither": 0.0, "sample_frequency": 16000.0}
    expected = fbank(torch.nn.functional.pad(wave, (120, 120)), **how)
    torch.testing.assert_close(model.log_mel(wave)[0] * 4 - 9, expected, rtol=0, atol=1e-4)


def test_too_short_or_without_classes(model):
    with pytest.raises(TooShortError, match="319 samples"):
        model(sound(319))
    with pytest.raises(ParameterError, match="classes"):
        Config(classes=())


def test_it_is_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "it")
    again = Recognizer.from_checkpoint(tmp_path / "it").eval()
    assert again.classes == ("a", "e", "rest") and again.config == model.config
    assert torch.equal(again(sound(4000)), model(sound(4000)))
    checkpoints.save(tmp_path / "other", model.state_dict(), {"model": "Judge"})
    with pytest.raises(CheckpointError, match="not a recogniser"):
        Recognizer.from_checkpoint(tmp_path / "other")
