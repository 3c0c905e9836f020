"""The source-filter vocoder: level, pitch and voicing of what it makes, compared with what was asked for."""

import math

import librosa
import numpy as np
import pytest
import torch

from avlib.errors import ParameterError, ShapeError
from avlib.models.source_filter import SourceFilterVocoder

RATE, HOP = 44100, 512
FILTERS = torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=2048, n_mels=128, fmin=40, fmax=16000))


def ln_mel(sound):
    """(B, samples) -> (B, 128, T), as the reference has it, by librosa's filters and torch's transform."""
    padded = torch.nn.functional.pad(sound[:, None], (768, 768), mode="reflect")[:, 0]
    spectrum = torch.stft(padded, 2048, HOP, window=torch.hann_window(2048), center=False, return_complex=True)
    return (FILTERS @ spectrum.abs()).clamp(min=1e-5).log()


def sung(frames=160, hertz=220.0, cents=40.0, seed=0):
    """A vowel with vibrato, sine by sine, breath, and noise instead of it in the last quarter."""
    at = (torch.arange(frames * HOP, dtype=torch.float64) + 0.5) / RATE
    pitch = hertz * 2 ** (cents / 1200 * torch.sin(2 * math.pi * 5.5 * at))
    turns = pitch.cumsum(0) / RATE
    sound = torch.zeros_like(at)
    for k in range(1, int(15000 / hertz)):
        level = sum(
            w / (1 + ((k * hertz - f) / 120) ** 2) for f, w in ((700, 1), (1200, 0.5), (2700, 0.2), (3500, 0.1))
        )
        sound += 0.1 * (level + 0.003) * torch.sin(2 * math.pi * k * turns)
    noise = torch.randn(len(at), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    voiced = torch.arange(frames) < frames * 3 // 4
    gate = torch.nn.functional.avg_pool1d(voiced.double().repeat_interleave(HOP)[None, None], 1025, 1, 512)[0, 0]
    sound = sound * gate + noise * (0.001 + 0.02 * (1 - gate))
    return sound.float()[None], pitch[HOP // 2 :: HOP].float()[None], voiced[None], turns


@pytest.fixture(scope="module")
def vocoder():
    return SourceFilterVocoder()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("hertz", [98.0, 220.0, 700.0])
def test_mel_of_the_sound_is_the_mel_asked_for(vocoder, hertz):
    sound, pitch, voiced, _ = sung(hertz=hertz)
    mel = ln_mel(sound)
    made = vocoder(mel, pitch, voiced, generator=seeded())
    assert made.shape == (1, 1, sound.shape[1])
    difference = (ln_mel(made[:, 0]) - mel)[..., 4:-4] / math.log(10)
    assert difference.abs().mean() < (0.14 if hertz > 500 else 0.12)  # log10; between high harmonics is noise alone
    assert abs(difference.mean()) < 0.06
    loud = mel[..., 4:-4] > mel.max() - math.log(100)  # the upper 40 dB
    assert difference[loud].abs().mean() < 0.1 and abs(difference[loud].mean()) < 0.04
    assert float(made.square().mean() / sound.square().mean()) == pytest.approx(1, abs=0.15)


def test_pitch_is_the_pitch_asked_for(vocoder):
    sound, pitch, _, turns = sung(cents=80.0)
    made = vocoder(ln_mel(sound), pitch, noise=False)[0, 0, : 110 * HOP]
    # Turned back by the true pitch, the fundamental stands still; its remaining turning is the error.
    still = made.double() * torch.exp(-2j * math.pi * turns[: len(made)])
    window = torch.hann_window(4096, dtype=torch.float64)[None, None]
    still = [
        torch.nn.functional.conv1d(part[None, None], window, stride=HOP)[0, 0] for part in (still.real, still.imag)
    ]
    angle = np.unwrap(torch.atan2(still[1], still[0]).numpy())
    error = np.diff(angle) / (2 * math.pi) * RATE / HOP / 220 * 1200 / math.log(2)
    assert np.sqrt((error**2).mean()) < 3.5  # cents


def test_unvoiced_frames_are_noise(vocoder):
    sound, pitch, voiced, _ = sung()
    silent = vocoder(ln_mel(sound), pitch, voiced, noise=False)[0, 0]
    assert silent[: 100 * HOP].abs().max() > 0.05 and not silent[121 * HOP :].any()
    zeros = vocoder(ln_mel(sound), pitch.masked_fill(~voiced, 0), noise=False)[0, 0]
    assert not zeros[121 * HOP :].any()
    nothing = vocoder(ln_mel(sound), torch.zeros_like(pitch), noise=False)
    assert not nothing.any()
    whispered = vocoder(ln_mel(sound), torch.zeros_like(pitch), generator=seeded())
    assert float(whispered.square().mean() / sound.square().mean()) == pytest.approx(1, abs=0.4)


def test_a_blurred_mel_is_no_whisper(vocoder):
    """A network's mel has no clear harmonics; what lies between them must not hide them."""
    sound, pitch, _, _ = sung(100)
    blurred = torch.nn.functional.avg_pool1d(ln_mel(sound).transpose(1, 2), 9, 1, 4, count_include_pad=False)
    both = vocoder(blurred.transpose(1, 2), pitch, generator=seeded())[0, 0]
    tone = vocoder(blurred.transpose(1, 2), pitch, noise=False)[0, 0]
    low = [torch.fft.rfft(each)[: 2000 * len(both) // RATE].abs().square().sum() for each in (tone, both - tone)]
    assert 10 * (low[0] / low[1]).log10() > 10  # dB below 2 kHz


def test_noise_is_seeded_given_or_left_out(vocoder):
    sound, pitch, voiced, _ = sung(40)
    mel = ln_mel(sound)
    first, again, other = (vocoder(mel, pitch, voiced, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    given = torch.randn(1, 40 * HOP, generator=seeded(1))
    assert torch.equal(vocoder(mel, pitch, voiced, noise=given), first)
    assert torch.equal(*(vocoder(mel, pitch, voiced, noise=False) for _ in range(2)))


def test_pieces_with_context_are_the_whole(vocoder):
    sound, pitch, voiced, _ = sung(200, cents=90)
    mel, noise, reach = ln_mel(sound), torch.randn(1, 200 * HOP, generator=seeded()), vocoder.context
    whole, phases = vocoder(mel, pitch, voiced, noise=noise), vocoder.phases(pitch)
    made = []
    for start in range(0, 200, 50):
        low, high = max(0, start - reach), min(200, start + 50 + reach)
        cut = slice(low, high)
        piece = vocoder(
            mel[..., cut], pitch[:, cut], voiced[:, cut], noise[:, low * HOP : high * HOP], phase=phases[:, low]
        )
        made.append(piece[..., (start - low) * HOP : (start - low + 50) * HOP])
    assert float((torch.cat(made, 2) - whole).abs().max()) < 1e-5


def test_odd_inputs_give_finite_sound(vocoder):
    floor = torch.full((1, 128, 12), math.log(1e-5))
    for mel in (floor, floor - 3):
        assert vocoder(mel, torch.full((1, 12), 200.0)).abs().max() < 1e-8  # silence
    loud = torch.full((1, 128, 12), 30.0)
    for mel in (floor + 9, loud):
        for pitch in (0.0, 1.0, 41.0, 1400.0, 17000.0):
            assert vocoder(mel, torch.full((1, 12), pitch)).isfinite().all()
    one = vocoder(floor[..., :1] + 9, torch.full((1, 1), 1400.0))
    assert one.shape == (1, 1, HOP) and one.isfinite().all() and one.any()


def test_a_note_of_1400_hertz_has_its_level(vocoder):
    at = torch.arange(60 * HOP) / RATE
    sound = 0.2 * torch.sin(2 * math.pi * 1400 * at)[None]
    made = vocoder(ln_mel(sound), torch.full((1, 60), 1400.0), generator=seeded())[0, 0]
    spectrum = torch.fft.rfft(made[8 * HOP : -8 * HOP] * torch.hann_window(44 * HOP)).abs()
    peak = int(spectrum.argmax())
    assert peak * RATE / (44 * HOP) == pytest.approx(1400, abs=2)
    assert float(made[8 * HOP : -8 * HOP].square().mean().sqrt()) == pytest.approx(0.2 / math.sqrt(2), rel=0.08)


def test_what_does_not_fit_is_refused(vocoder):
    with pytest.raises(ShapeError, match="mel"):
        vocoder(torch.zeros(1, 80, 4), torch.zeros(1, 4))
    with pytest.raises(ShapeError, match="mel"):
        vocoder._check(torch.zeros(1, 128, 4), torch.zeros(1, 5), torch.zeros(1, 5))
    for mel, pitch in ((math.nan, 200.0), (0.0, math.nan), (0.0, -1.0)):
        with pytest.raises(ParameterError, match="mel, f0"):
            vocoder(torch.full((1, 128, 4), mel), torch.full((1, 4), pitch))


def test_it_says_what_it_is(vocoder):
    assert "not trained" in vocoder.description and not list(vocoder.parameters()) and not vocoder.state_dict()
