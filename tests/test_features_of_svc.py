"""The log-mel spectrogram, clocks and ranges of singing voice conversion, beside plain formulas."""

import librosa
import numpy as np
import pytest
import torch

from avlib import features
from avlib.errors import ParameterError, ShapeError, TooShortError


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tone(samples, hertz=440.0):
    return 0.9 * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / 44100)


def by_formula(waveform):
    """Reference 1.1 in float64: frames of the mirrored sound, one by one."""
    padded = np.pad(waveform.double().numpy(), 768, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    frames = [padded[512 * k : 512 * k + 2048] * window for k in range(len(waveform) // 512)]
    magnitude = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
    filters = librosa.filters.mel(
        sr=44100, n_fft=2048, n_mels=128, fmin=40, fmax=16000, htk=False, norm="slaney", dtype=np.float64
    )
    return np.log(np.maximum(magnitude @ filters.T, 1e-5)) * 0.434294


@pytest.mark.parametrize("samples", [769, 2205, 44100, 44543, 44544])
def test_log_mel_is_that_of_the_formula(samples):
    waveform = torch.stack([noise(samples), tone(samples), torch.zeros(samples)])
    found, exact = features.svc_log_mel(waveform), features.svc_log_mel(waveform.double())
    assert found.shape == (3, samples // 512, 128) and found.dtype == torch.float32 and exact.dtype == torch.float64
    for row, mel, precise in zip(waveform, found, exact, strict=True):
        np.testing.assert_allclose(precise.numpy(), by_formula(row), atol=1e-7)
        torch.testing.assert_close(features.svc_log_mel(row), mel, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[0].numpy(), by_formula(waveform[0]), atol=1e-4)
    np.testing.assert_allclose(found[1].numpy(), by_formula(waveform[1]), atol=1e-2)  # float32, beside a loud tone
    assert found[2].unique().tolist() == pytest.approx([-4.99999475], abs=1e-6)


@pytest.mark.parametrize("dtype, close", [(torch.float16, 2e-2), (torch.bfloat16, 5e-2)])
def test_log_mel_keeps_the_dtype(dtype, close):
    waveform = noise(5000).to(dtype)
    found = features.svc_log_mel(waveform)
    assert found.dtype == dtype and found.device == waveform.device
    np.testing.assert_allclose(found.double().numpy(), by_formula(waveform), atol=close)


@pytest.mark.parametrize(
    "waveform, error, message",
    [
        (torch.full((2, 2000), torch.nan), ParameterError, "NaN"),
        (torch.full((2000,), -torch.inf), ParameterError, "infinite"),
        (20000 * tone(2000), ParameterError, "samples up to 1.*Divide 16-bit"),
        (torch.zeros(768), TooShortError, "768 samples; expected at least 769"),
        (torch.zeros(0), TooShortError, "0 samples"),
    ],
)
def test_log_mel_refuses(waveform, error, message):
    with pytest.raises(error, match=message):
        features.svc_log_mel(waveform)


def test_whole_numbers_and_arrays_are_refused(unchecked):
    with pytest.raises(ParameterError, match=r"torch\.int16.*Divide 16-bit samples by 32768"):
        features.svc_log_mel(torch.zeros(2000, dtype=torch.int16))
    with pytest.raises(ParameterError, match="ndarray; expected a torch tensor"):
        features.svc_log_mel(np.zeros(2000))


def test_factors_are_the_published_ones():
    mel = torch.tensor([-7.0, -5.0, 0.5, 2.0])
    torch.testing.assert_close(features.log10_to_ln(mel), torch.tensor([-6.0, -5.0, 0.5, 1.5]) * 2.30259)


# Clocks


def align(frames, units):
    """`get_align` in the order of its operations: unit by unit, frame by frame."""
    step, found, unit = frames / units, [], 1
    for k in range(frames):
        while int((unit - 1) * step + step + 0.5) < k:
            unit += 1
        found.append(unit)
    return found


def test_mel2ph_is_the_published_alignment():
    draw = np.random.default_rng(0)
    pairs = [(518, 301), (7967, 4625), (455, 264), (1, 1), (301, 518), (3, 5), (5, 1), (1, 7)]
    samples = draw.integers(2000, 700000, 1000)
    pairs += [(features.svc_frames(int(n)), features.svc_units(int(n))) for n in samples]
    pairs += draw.integers(1, 700, (1000, 2)).tolist()
    for frames, units in pairs:
        found = features.mel2ph(frames, max(1, units))
        assert found.dtype == torch.int64 and found.tolist() == align(frames, max(1, units)), (frames, units)


def test_the_order_of_operations_matters():
    step = 455 / 264
    assert any(int((i - 1) * step + step + 0.5) != int(i * step + 0.5) for i in range(1, 265))


@pytest.mark.parametrize("frames, units, share, early", [(518, 301, 0.43, 8.6), (7967, 4625, 0.50, 10.0)])
def test_nearest_units(frames, units, share, early):
    centres = (np.arange(frames) + 0.5) * 512 / 44100
    nearest = features.mel2ph_nearest(frames, units).numpy()
    assert np.abs(centres - (nearest - 0.5) * 0.02)[:-2].max() <= 0.01 + 1e-12
    published = features.mel2ph(frames, units).numpy()
    assert (published != nearest).mean() == pytest.approx(share, abs=0.006)
    assert 1000 * (centres - (published - 0.5) * 0.02).mean() == pytest.approx(early, abs=0.06)
    assert features.mel2ph_nearest(10, 2).tolist() == [1, 1, *8 * [2]]


def test_counts():
    assert features.svc_frames(264600) == 516 and features.svc_units(264600) == 300  # 6 s
    assert features.svc_frames(4057200) == 7924 and features.svc_units(4057200) == 4600  # 92 s
    assert features.svc_units(319, 16000) == 0 and features.svc_units(320, 16000) == 1
    assert features.svc_units(882, 44100) == 1 and features.svc_units(880, 44100) == 1 and features.svc_units(879) == 0


@pytest.mark.parametrize("frames, units", [(0, 3), (3, 0), (-1, 3), (True, 3)])
@pytest.mark.parametrize("name", ["mel2ph", "mel2ph_nearest"])
def test_lengths_are_checked(name, frames, units):
    with pytest.raises(ParameterError, match=r"(frames|units): "):
        getattr(features, name)(frames, units)


# Ranges


def test_range_is_over_all_items():
    mels = [torch.tensor([[0.0, 1.0], [2.0, -3.0]]), torch.tensor([[-1.0, 0.0]])]
    low, high = features.spectrogram_range(mels)
    assert low.tolist() == [-1, -3] and high.tolist() == [2, 1]
    with pytest.raises(ParameterError, match="mels: none"):
        features.spectrogram_range([])


def test_a_gain_moves_all_maxima_alike():
    waveform = noise(60000)
    ranges = [
        features.spectrogram_range([features.svc_log_mel(waveform * gain)]) for gain in (1.0, 10 ** (3.0062 / 20))
    ]
    torch.testing.assert_close(ranges[1][1] - ranges[0][1], torch.full((128,), 0.15031), rtol=0, atol=1e-5)
    found = features.compare_ranges(*ranges)
    assert found.gain == pytest.approx(3.0062, abs=1e-4) and found.alike == 128
    assert "same sound at another loudness" in found.sentence
    assert "equal" in features.compare_ranges(ranges[0], ranges[0]).sentence
    other = features.spectrogram_range([features.svc_log_mel(tone(60000))])
    assert "other sound" in features.compare_ranges(ranges[0], other).sentence
    with pytest.raises(ShapeError, match="mel bins"):
        features.compare_ranges(ranges[0], (torch.zeros(80), torch.ones(80)))
