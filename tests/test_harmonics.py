"""Harmonics: equal to a sum of sines, one at a time, with the phase integrated in small steps."""

import inspect

import numpy as np
import pytest
import torch
from scipy.signal import find_peaks

from avlib.errors import ParameterError
from avlib.features.harmonics import harmonics, turns

RATE, HOP = 16000, 64


def tracks(batch=2, frames=30, count=12, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    hertz = 150 + 250 * torch.rand(batch, frames, generator=draw, dtype=dtype)
    return hertz, torch.randn(batch, frames, count, generator=draw, dtype=dtype)


def summed(hertz, amplitudes, hop, phase=0.0, fine=16):
    """The plain sum, with the phase by trapezoids on a grid `fine` times finer than the samples."""
    frames, count = amplitudes.shape
    centres = (np.arange(frames) + 0.5) * hop
    grid = np.arange(frames * hop * fine) / fine
    pitch = np.interp(grid, centres, hertz)
    phases = phase + np.concatenate([[0], np.cumsum((pitch[1:] + pitch[:-1]) / 2)]) / (RATE * fine)
    phases, grid = phases[::fine], grid[::fine]
    sines = [
        np.interp(grid, centres, amplitudes[:, k].numpy().real) * np.sin(2 * np.pi * (k + 1) * phases)
        + np.interp(grid, centres, amplitudes[:, k].numpy().imag) * np.cos(2 * np.pi * (k + 1) * phases)
        for k in range(count)
    ]
    return phases, np.sum(sines, 0)


@pytest.mark.parametrize("hop", [64, 63, 1])
def test_equals_the_sum_of_sines(hop):
    hertz, amplitudes = tracks()
    amplitudes = torch.complex(amplitudes, tracks(seed=1)[1])
    ours = harmonics(hertz, amplitudes, RATE, hop, torch.tensor([0.0, 0.25]))
    for row, phase in enumerate((0.0, 0.25)):
        phases, expected = summed(hertz[row], amplitudes[row], hop, phase)
        np.testing.assert_allclose(turns(hertz, RATE, hop, torch.tensor([0.0, 0.25]))[row], phases, atol=1e-9)
        np.testing.assert_allclose(ours[row], expected, atol=1e-6)
    assert ours.shape == (2, 30 * hop)
    real = harmonics(hertz, amplitudes.real, RATE, hop)
    np.testing.assert_allclose(real[0], summed(hertz[0], amplitudes[0].real, hop)[1], atol=1e-6)


def test_ten_minutes_in_single_precision_keeps_its_phase():
    hertz = torch.full((1, 600), 1000.3)
    last = harmonics(hertz, torch.ones(1, 600, 1), 16000, 16000)[0, -16000:]
    at = np.arange(599 * 16000, 600 * 16000)
    np.testing.assert_allclose(last, np.sin(2 * np.pi * ((at * float(hertz[0, 0]) / 16000) % 1)), atol=2e-6)
    assert last.dtype == torch.float32


def test_pieces_with_a_shared_frame_continue():
    hertz, amplitudes = tracks(1, 40)
    whole, phases = harmonics(hertz, amplitudes, RATE, HOP), turns(hertz, RATE, HOP)
    pieces = []
    for start in (0, 10, 20, 30):
        cut = slice(max(start - 1, 0), start + 11)  # a frame on both sides
        skip = (start - cut.start) * HOP
        phase = phases[:, start * HOP] - turns(hertz[:, cut], RATE, HOP)[:, skip]
        pieces.append(harmonics(hertz[:, cut], amplitudes[:, cut], RATE, HOP, phase)[:, skip : skip + 10 * HOP])
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("pitch", [505.0, 777.0, 1300.0])
def test_harmonics_fade_before_half_the_rate_and_none_is_above(pitch):
    hertz = torch.full((1, 32), pitch, dtype=torch.float64)
    ours = harmonics(hertz, torch.ones(1, 32, 40, dtype=torch.float64), RATE, HOP)[0].numpy()
    spectrum = np.abs(np.fft.rfft(ours * np.hanning(2048)))
    peaks, _ = find_peaks(spectrum, height=1.0)  # of 512 for an amplitude of 1
    expected = np.arange(1, 41) * pitch
    inside = expected[expected < 0.95 * RATE / 2]
    np.testing.assert_allclose(peaks[: len(inside)] * RATE / 2048, inside, atol=8)
    np.testing.assert_allclose(spectrum[peaks[: len(inside)]], 512, rtol=0.2)
    faded = expected[(expected > 0.95 * RATE / 2) & (expected < RATE / 2)]
    assert len(peaks) == len(inside) + len(faded)
    assert (spectrum[peaks[len(inside) :]] < 512 * (RATE / 2 - faded) / (0.05 * RATE / 2) + 1).all()


def test_a_glide_through_half_the_rate_does_not_click():
    hertz = torch.linspace(500, 4500, 400, dtype=torch.float64)[None]
    amplitudes = torch.zeros(1, 400, 2, dtype=torch.float64)
    amplitudes[..., 1] = 1
    ours = harmonics(hertz, amplitudes, RATE, HOP)[0]
    assert 0.99 < ours.abs().max() < 1.001 and not ours[360 * HOP :].any()
    rise = np.abs(np.diff(ours.abs().reshape(-1, HOP).amax(1)))
    assert rise.max() < 0.2


def test_gradients_are_those_of_finite_differences():
    hertz, amplitudes = tracks(1, 4, 3)
    phase = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    inputs = (hertz.requires_grad_(), amplitudes.requires_grad_(), phase)
    assert torch.autograd.gradcheck(lambda f, a, p: harmonics(f, a, RATE, 8, p), inputs, eps=1e-5, atol=1e-3)


def test_gradients_do_not_keep_every_harmonic():
    """What autograd saves is the same for 20 and for 60 harmonics, apart from the amplitudes."""
    saved = []
    for count in (20, 60):
        hertz, amplitudes = tracks(1, 200, count, dtype=torch.float32)
        kept = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            harmonics(hertz.requires_grad_(), amplitudes.requires_grad_(), RATE, HOP)
        saved.append(sum(kept.values()))
    assert saved[1] - saved[0] < 40 * 201 * 4 * 12  # a few copies of 40 more amplitudes in 201 spans
    assert saved[0] < 60 * 200 * HOP  # a float64 for each of 20 harmonics at each sample would be 160 * 200 * HOP


def test_no_harmonics_are_silence_and_wrong_input_is_refused():
    hertz, amplitudes = tracks()
    assert not harmonics(hertz, amplitudes[..., :0], RATE, HOP).any()
    for wrong, words in ((hertz.clone().fill_(-1), "negative"), (hertz / 0 * 0, "NaN"), (hertz[:, :0], "one frame")):
        with pytest.raises(ParameterError, match=words):
            turns(wrong, RATE, HOP)
    with pytest.raises(ParameterError, match=r"\(2, 30\) and \(2, 29, 12\)"):
        inspect.unwrap(harmonics)(hertz, amplitudes[:, 1:], RATE, HOP)  # without the check of its annotations
    with pytest.raises(ParameterError, match="hop_length"):
        turns(hertz, RATE, 0)
