"""Spectrograms of classifiers: equal to transformers' and torchaudio's, at any length."""

import warnings

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from transformers import WhisperFeatureExtractor

from avlib import features, shapes
from avlib.errors import ParameterError, TooShortError


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sweep(samples):
    """From quiet to loud, and silent in the end: the range of 80 dB is used."""
    time = torch.arange(samples) / 16000
    return (
        torch.sin(2 * torch.pi * (100 + 1000 * time) * time) * torch.linspace(0, 0.5, samples) * (time < time[-1] / 2)
    )


@pytest.mark.parametrize("n_mels", [78, 80, 128])
@pytest.mark.parametrize("samples", [1600, 16000, 48000, 23457])
@pytest.mark.parametrize("hop", [160, 100])
def test_log_mel_is_that_of_transformers(n_mels, samples, hop):
    extractor = WhisperFeatureExtractor(feature_size=n_mels, hop_length=hop)
    waveform = torch.stack([noise(samples), sweep(samples)])
    ours = features.whisper_log_mel(waveform, n_mels, hop_length=hop)
    assert ours.shape == (2, n_mels, samples // hop)
    for row, found in zip(waveform, ours, strict=True):
        theirs = extractor(row.numpy(), sampling_rate=16000, padding=False, return_tensors="pt").input_features[0]
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-5)
        torch.testing.assert_close(features.whisper_log_mel(row, n_mels, hop_length=hop), found, rtol=0, atol=1e-5)


def test_thirty_seconds_are_the_padded_extractors():
    waveform = noise(16000)
    theirs = WhisperFeatureExtractor()(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features[0]
    padded = torch.nn.functional.pad(waveform, (0, 29 * 16000))
    torch.testing.assert_close(features.whisper_log_mel(padded), theirs, rtol=0, atol=1e-5)


def test_log_mel_by_its_formula():
    waveform = sweep(4000).double()
    found = features.whisper_log_mel(waveform)
    padded = np.pad(waveform.numpy(), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = [np.abs(np.fft.rfft(padded[160 * t : 160 * t + 400] * window)) ** 2 for t in range(25)]
    filters = librosa.filters.mel(sr=16000, n_fft=400, n_mels=80, dtype=np.float64)
    log = np.log10(np.maximum(filters @ np.array(power).T, 1e-10))
    expected = (np.maximum(log, log.max() - 8) + 4) / 4
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)  # librosa rounds its filters' frequencies otherwise


def test_dtype_and_further_axes_are_kept():
    waveform = noise(2, 3, 3200)
    found = features.whisper_log_mel(waveform)
    assert found.shape == (2, 3, 80, 20)
    torch.testing.assert_close(found[1, 2], features.whisper_log_mel(waveform[1, 2]), rtol=0, atol=1e-5)
    half = features.whisper_log_mel(waveform.bfloat16())
    assert half.dtype == torch.bfloat16 and features.resnet_log_mel(waveform.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), features.whisper_log_mel(waveform.bfloat16().float()), rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_clips_give_a_result_of_none(dtype):
    nothing = torch.zeros(0, 3200, dtype=dtype)
    for make, shape in ((features.whisper_log_mel, (80, 20)), (features.resnet_log_mel, (224, 224))):
        found = make(nothing)
        assert found.shape == (0, *shape) and found.dtype == dtype
    assert features.whisper_log_mel(nothing[:, None]).shape == (0, 1, 80, 20)


def test_silence_is_finite():
    assert (features.whisper_log_mel(torch.zeros(3200)) == -1.5).all()


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30])
def test_columns_of_a_picture(seconds):
    samples = int(16000 * seconds)
    hop = features.resnet_hop_length(samples)
    assert samples // hop + 1 >= 224 and samples // (hop + 1) + 1 < 224
    assert features.resnet_log_mel(noise(samples)).shape == (224, 224)
    assert hop == 215 or seconds != 3


def test_rows_of_a_picture_are_torchaudios():
    waveform = noise(2, 48000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mel = torchaudio.transforms.MelSpectrogram(16000, n_fft=1024, hop_length=215, n_mels=224)(waveform)[..., :224]
    log = mel.clamp(min=1e-10).log10()
    peak = log.flatten(1).max(dim=1).values[:, None, None]
    torch.testing.assert_close(
        features.resnet_log_mel(waveform), (torch.maximum(log, peak - 8) + 4) / 4, rtol=0, atol=1e-4
    )
    assert features.resnet_log_mel(waveform, hop_length=160).shape == (2, 224, 301)
    assert features.resnet_log_mel(waveform, 100, columns=50).shape == (2, 100, 50)


def test_empty_filters_are_counted():
    assert len(features.empty_filters(features.spectrogram_filters("torchaudio", 224, 400))) == 30
    assert features.empty_filters(features.spectrogram_filters("torchaudio", 224, 1024)) == []
    assert features.empty_filters(features.spectrogram_filters("whisper", 80, 400)) == []
    assert features.empty_filters(torch.tensor([[0.0, 1], [0, 0], [1, 0]])) == [1]


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (features.whisper_log_mel, {"waveform": noise(200)}, TooShortError, "200 samples; expected more than half"),
        (features.whisper_log_mel, {"waveform": noise(300), "hop_length": 400}, TooShortError, "at least a hop, 400"),
        (features.whisper_log_mel, {"waveform": noise(800), "n_mels": 0}, ParameterError, "n_mels: 0"),
        (features.whisper_log_mel, {"waveform": noise(800), "hop_length": 0}, ParameterError, "hop_length: 0"),
        (features.resnet_log_mel, {"waveform": noise(512)}, TooShortError, "512 samples"),
        (features.resnet_log_mel, {"waveform": noise(200)}, TooShortError, "200 samples; expected at least 223"),
        (features.resnet_log_mel, {"waveform": noise(800), "columns": 0}, ParameterError, "columns: 0"),
        (features.spectrogram_filters, {"kind": "kaldi", "n_mels": 8, "n_fft": 400}, ParameterError, "kind: 'kaldi'"),
    ],
)
def test_what_is_refused(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**arguments)


def test_filters_that_are_first_made_in_a_trace_have_values_after_it():
    traced = shapes.trace(lambda waveform: features.whisper_log_mel(waveform, 79), noise(1, 4800), fake=True)
    assert traced.output_shape == (1, 79, 30) and traced.fake
    assert features.whisper_log_mel(noise(1, 4800), 79).numpy().shape == (1, 79, 30)
