"""Features: equal to torchaudio's Kaldi, step by step, on any batch, dtype and length."""

import math
import random

import jaxtyping
import pytest
import torch
from torchaudio.compliance import kaldi

from avlib import features
from avlib.errors import ParameterError, TooShortError


def published_fbank(waveform, sample_rate=16000, **options):
    """The call in CAV-MAE's data loader."""
    settings = {
        "htk_compat": True,
        "sample_frequency": sample_rate,
        "use_energy": False,
        "window_type": "hanning",
        "num_mel_bins": 128,
        "dither": 0.0,
        "frame_shift": 10,
    }
    return kaldi.fbank(waveform[None], **settings | options)


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("window", ["hanning", "povey", "hamming"])
def test_fbank_is_that_of_kaldi(sample_rate, window):
    waveform = noise(sample_rate // 2)
    ours = features.kaldi_fbank(waveform, sample_rate, window=window)
    theirs = published_fbank(waveform, sample_rate, window_type=window)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("n_mels", [23, 40, 80, 128])
def test_fbank_of_other_widths_and_lengths(n_mels):
    for samples in [400, 559, 560, 561, 12345]:
        waveform = noise(samples)
        ours = features.kaldi_fbank(waveform, n_mels=n_mels)
        assert ours.shape == ((samples - 400) // 160 + 1, n_mels)
        torch.testing.assert_close(ours, published_fbank(waveform, num_mel_bins=n_mels), atol=1e-5, rtol=1e-6)


def test_the_steps_give_the_whole():
    waveform = noise(16000)
    window, hop, n_fft = features.frame_geometry(16000)
    assert (window, hop, n_fft) == (400, 160, 512)
    frames = features.cut_frames(waveform, window, hop)
    assert frames.shape == (98, 400) and torch.equal(frames[3], waveform[480:880])
    centred = features.remove_mean(frames)
    assert centred.mean(dim=1).abs().max() < 1e-7
    tilted = features.preemphasize(centred)
    torch.testing.assert_close(tilted[:, 1:], centred[:, 1:] - 0.97 * centred[:, :-1])
    torch.testing.assert_close(tilted[:, 0], 0.03 * centred[:, 0])
    power = features.power_spectrum(tilted * features.window_function("hanning", 400), n_fft)
    assert power.shape == (98, 257)
    filters = features.mel_filters(128, n_fft, 16000)
    assert filters.shape == (128, 257) and filters.min() == 0 and not filters[:, -1].any()
    assert torch.equal(features.floored_log(power @ filters.T), features.kaldi_fbank(waveform))


def test_published_input_of_cav_mae():
    waveform = noise(160000) + 0.3  # with an offset, which must go
    fbank = published_fbank(waveform - waveform.mean())
    expected = (torch.cat([fbank, torch.zeros(1024 - 998, 128)]) + 5.081) / 4.4849
    torch.testing.assert_close(features.cav_mae_fbank(waveform), expected, atol=1e-5, rtol=1e-5)


def test_long_sound_is_cut():
    waveform = noise(200000)
    fbank = published_fbank(waveform - waveform.mean())[:1024]
    torch.testing.assert_close(features.cav_mae_fbank(waveform, normalize=False), fbank, atol=1e-5, rtol=1e-5)


def test_padding_is_loud_and_silence_is_quiet():
    fbank = features.cav_mae_fbank(torch.zeros(160000))
    assert fbank[:998].unique().tolist() == pytest.approx([-2.4218], abs=1e-4)
    assert fbank[998:].unique().tolist() == pytest.approx([1.1329], abs=1e-4)


def test_a_long_sound_gives_the_first_frames_of_the_whole():
    sound = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0)) + torch.linspace(0, 0.5, 8000)
    whole = features.kaldi_fbank(sound - sound.mean())
    cut = features.cav_mae_fbank(sound, target_length=20, normalize=False)
    torch.testing.assert_close(cut, whole[:20], atol=1e-4, rtol=1e-5)
    assert not torch.allclose(cut, whole[1:21], atol=1e-2)


def test_a_batch_gives_what_each_row_gives():
    batch = noise(3, 40000)
    alone = torch.stack([features.cav_mae_fbank(row, target_length=300) for row in batch])
    torch.testing.assert_close(features.cav_mae_fbank(batch, target_length=300), alone, atol=1e-4, rtol=1e-5)


def test_a_batch_of_mixed_lengths_gives_what_each_clip_gives():
    lengths = torch.tensor([40000, 400, 17777, 16000])
    batch = torch.full((4, 40000), 7.0)  # whatever the padding holds
    for row, length in enumerate(lengths):
        batch[row, :length] = noise(int(length), seed=row)
    together = features.cav_mae_fbank(batch, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = features.cav_mae_fbank(batch[row, :length])
        torch.testing.assert_close(together[row], alone, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtype_is_kept(dtype):
    waveform = noise(8000).to(dtype)
    fbank = features.cav_mae_fbank(waveform)
    assert fbank.dtype == dtype
    tolerance = {torch.float64: 1e-4, torch.float32: 1e-6}.get(dtype, 0.02)
    reference = features.cav_mae_fbank(waveform.float())
    torch.testing.assert_close(fbank.float(), reference, atol=tolerance, rtol=tolerance)


def test_gradients_pass():
    waveform = noise(4000).requires_grad_()
    features.cav_mae_fbank(waveform, target_length=20).sum().backward()
    assert waveform.grad.isfinite().all() and waveform.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    waveform = noise(2, 40000)
    ours = features.cav_mae_fbank(waveform.cuda())
    assert ours.is_cuda
    torch.testing.assert_close(ours.cpu(), features.cav_mae_fbank(waveform), atol=1e-3, rtol=1e-3)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(TooShortError, match="320 samples; expected at least 400"):
        features.cav_mae_fbank(torch.zeros(320))
    with pytest.raises(TooShortError, match="waveform: 399 samples; expected at least 400"):
        features.cav_mae_fbank(torch.zeros(2, 1000), lengths=torch.tensor([1000, 399]))
    with pytest.raises(ParameterError, match="1001 samples; expected at most 1000"):
        features.cav_mae_fbank(torch.zeros(2, 1000), lengths=torch.tensor([1000, 1001]))
    with pytest.raises(ParameterError, match="lengths"):
        features.cav_mae_fbank(torch.zeros(2, 1000), lengths=torch.tensor([1000]))
    with pytest.raises(ParameterError, match="std: 0"):
        features.cav_mae_fbank(torch.zeros(1000), std=0.0)
    with pytest.raises(ParameterError, match="window: 'hann'"):
        features.kaldi_fbank(torch.zeros(1000), window="hann")


@pytest.mark.parametrize("name", ["kaldi_fbank", "cav_mae_fbank", "beats_fbank", "whisper_log_mel", "resnet_log_mel"])
def test_whole_numbers_are_refused_without_the_checker_of_tests_too(name):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ParameterError, match=r"waveform: torch\.int16; .*Divide 16-bit samples by 32768"):
            getattr(features, name)(torch.zeros(4000, dtype=torch.int16))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def published_beats_fbank(waveform):
    """The call in BEATs' `preprocess`, one clip at a time."""
    fbank = kaldi.fbank(
        waveform[None] * 2**15, num_mel_bins=128, sample_frequency=16000, frame_length=25, frame_shift=10
    )
    return (fbank - 15.41663) / (2 * 6.55582)


@pytest.mark.parametrize("samples", [400, 2800, 16000, 52800, 160000])
def test_published_input_of_beats(samples):
    batch = torch.stack([noise(samples), 9 * noise(samples, seed=1).clamp(-0.1, 0.1) + 0.05])
    fbank = features.beats_fbank(batch)
    assert fbank.shape == (2, 1 + (samples - 400) // 160, 128)
    for row, waveform in zip(fbank, batch, strict=True):
        torch.testing.assert_close(row, published_beats_fbank(waveform), atol=1e-5, rtol=0)
        torch.testing.assert_close(features.beats_fbank(waveform), row, atol=1e-5, rtol=0)


def test_input_of_beats_from_its_formula():
    """Reference section 2, "fbank", one frame at a time in float64."""
    waveform = noise(1200).double()
    window = [(0.5 - 0.5 * math.cos(2 * math.pi * n / 399)) ** 0.85 for n in range(400)]
    mel = [1127 * math.log(1 + 16000 / 512 * k / 700) for k in range(256)]
    low, high = (1127 * math.log(1 + hertz / 700) for hertz in (20, 8000))
    step = (high - low) / 129
    fbank = features.beats_fbank(waveform)
    for index, row in enumerate(fbank):
        frame = (waveform * 32768)[160 * index : 160 * index + 400]
        frame = frame - frame.mean()
        frame = frame - 0.97 * torch.cat([frame[:1], frame[:-1]])
        power = torch.fft.rfft(frame * torch.tensor(window, dtype=torch.float64), 512).abs() ** 2
        for bin in range(0, 128, 9):
            left, centre, right = (low + (bin + i) * step for i in range(3))
            slopes = [max(0.0, min((m - left) / (centre - left), (right - m) / (right - centre))) for m in mel]
            energy = sum(slope * float(p) for slope, p in zip(slopes, power, strict=False))
            expected = (math.log(max(energy, 2.0**-23)) - 15.41663) / (2 * 6.55582)
            assert row[bin].item() == pytest.approx(expected, abs=1e-5)


def test_silence_in_beats():
    assert features.beats_fbank(torch.zeros(16000)).unique().tolist() == pytest.approx([-2.3917], abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_input_of_beats_keeps_the_dtype(dtype):
    waveform = noise(8000).to(dtype)
    fbank = features.beats_fbank(waveform)
    assert fbank.dtype == dtype
    expected = features.beats_fbank(waveform.float())
    torch.testing.assert_close(fbank.float(), expected, atol=1e-4 if dtype == torch.float64 else 0.01, rtol=0)


def test_sound_that_is_too_short_for_beats():
    with pytest.raises(TooShortError, match="399 samples; expected at least 400"):
        features.beats_fbank(torch.zeros(2, 399))


def test_frame_rule_on_the_published_clips():
    # Frames that OpenCV returned to the published script, read off once with it.
    assert features.cav_mae_frame_indices(125, 12.5) == [0, 11, 24, 36, 49, 61, 74, 86, 99, 111]
    assert features.cav_mae_frame_indices(299, 30000 / 1001) == [0, 28, 58, 88, 118, 148, 178, 208, 238, 268]


def test_frame_rule_is_the_published_one_at_any_rate():
    draw = random.Random(0)
    for _ in range(500):
        rate = draw.choice([1.0, 5.0, 12.5, 15.0, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60.0, 120.0])
        count = draw.randint(10, 2000)
        total = min(count, int(rate * 10))
        seeks = [int(i * (total / 10)) - 1 for i in range(10)]  # what the script sets before it reads
        assert features.cav_mae_frame_indices(count, rate) == [max(0, seek) for seek in seeks]


@pytest.mark.parametrize(("count", "total"), [(1, 10), (3, 10), (250, 1), (250, 100), (7, 7)])
def test_frame_rule_stays_inside_the_clip(count, total):
    indices = features.cav_mae_frame_indices(count, 25.0, total_frames=total)
    assert len(indices) == total and indices == sorted(indices)
    assert min(indices) == 0 and max(indices) < count


@pytest.mark.parametrize("arguments", [(0, 25.0), (10, 0.0), (10, float("nan"))])
def test_frame_rule_refuses_what_is_no_clip(arguments):
    with pytest.raises(ParameterError):
        features.cav_mae_frame_indices(*arguments)


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (144, 256), (224, 224), (100, 90)])
def test_image_is_resized_and_cropped_as_published(size):
    from torchvision import transforms as T

    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    steps = [T.Resize(224), T.CenterCrop(224), T.ToTensor(), T.Normalize(features.IMAGE_MEAN, features.IMAGE_STD)]
    published = T.Compose(steps)
    expected = torch.stack([published(T.ToPILImage()(frame)) for frame in frames])
    ours = features.cav_mae_image(frames)
    assert ours.shape == (2, 3, 224, 224) and torch.equal(ours, expected)
    plain = features.cav_mae_image(frames, normalize=False)
    assert plain.min() >= 0 and plain.max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_are_cropped_then_normalised(interpolation):
    from torchvision import transforms as T

    frames = torch.randint(0, 256, (2, 3, 90, 130), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = features.crop_pictures(frames, 64, interpolation=interpolation)
    steps = [T.Resize(64, T.InterpolationMode(interpolation)), T.CenterCrop(64), T.ToTensor()]
    steps += [T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    expected = torch.stack([T.Compose(steps)(T.ToPILImage()(frame)) for frame in frames])
    assert pictures.dtype == torch.uint8 and torch.equal(features.normalize_pictures(pictures), expected)
    torch.testing.assert_close(features.denormalize_pictures(expected), pictures / 255)
    assert features.denormalize_pictures(torch.full((3, 2, 2), 9.0)).max() == 1
    with pytest.raises(ParameterError, match="interpolation: 'nearest'"):
        features.crop_pictures(frames, 64, interpolation="nearest")


@pytest.mark.parametrize("others", [1, 900, 1000, 1700])
def test_mixup_of_waveforms_is_the_published_one(others):
    first, second, share = noise(1000) + 0.2, noise(others, seed=1) - 0.1, 0.37
    one, two = (first - first.mean())[None], (second - second.mean())[None]  # `_wav2fbank`, its second half
    if one.shape[1] > two.shape[1]:
        padded = torch.zeros(1, one.shape[1])
        padded[0, : two.shape[1]] = two
        two = padded
    else:
        two = two[:, : one.shape[1]]
    published = share * one + (1 - share) * two
    published = published - published.mean()
    ours = features.mix_waveforms(first, second, share)
    torch.testing.assert_close(ours - ours.mean(), published[0])
    torch.testing.assert_close(
        features.cav_mae_fbank(ours, normalize=False, target_length=4),
        published_fbank(published[0]),
        atol=1e-4,
        rtol=1e-5,
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_masked_bands_are_those_of_torchaudio():
    from torchaudio import transforms as T

    fbank = noise(2, 1024, 128)
    for seed in range(100):
        torch.manual_seed(seed)
        published = T.TimeMasking(192)(T.FrequencyMasking(48)(fbank.transpose(1, 2))).transpose(1, 2)
        assert torch.equal(features.mask_bands(fbank, 48, 192, generator(seed)), published)
    assert features.mask_bands(fbank) is fbank


def test_masked_bands_are_one_of_each_and_narrower_than_asked():
    widths = []
    for seed in range(300):
        masked = features.mask_bands(torch.ones(20, 10), 4, 0, generator(seed))[0] == 0
        edges = masked.int().diff(prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int))
        assert (edges != 0).sum() in (0, 2)
        widths.append(int(masked.sum()))
    assert set(widths) == {0, 1, 2, 3} and min(map(widths.count, range(4))) > 50


@pytest.mark.parametrize("widths", [(11, 0), (0, 21), (-1, 0)])
def test_bands_that_do_not_fit_are_refused(widths):
    with pytest.raises(ParameterError, match="_width"):
        features.mask_bands(torch.ones(20, 10), *widths)


def test_noise_is_uniform_times_uniform_over_ten():
    scales = []
    for seed in range(200):
        added = features.add_noise(torch.zeros(64, 128), generator(seed))
        assert added.min() >= 0
        scales.append(float(added.max()))  # 8,192 draws come close to 1
        torch.testing.assert_close(added.mean(), torch.tensor(scales[-1] / 2), rtol=0.05, atol=1e-6)
    assert max(scales) < 0.1 and torch.tensor(scales).mean() == pytest.approx(0.05, abs=0.01)
    fbank = noise(64, 128).half()
    assert features.add_noise(fbank, generator()).dtype == torch.float16


def test_roll_is_by_any_number_of_frames():
    fbank = torch.arange(8.0)[:, None].expand(8, 3)
    starts = set()
    for seed in range(200):
        rolled = features.roll_time(fbank, generator(seed))
        shift = -int(rolled[0, 0]) % 8
        assert torch.equal(rolled, torch.roll(fbank, shift, 0))
        starts.add(shift)
    assert starts == set(range(8))
    torch.manual_seed(3)
    shifts = [int(torch.randint(-1024, 1024, (1,))) for _ in range(1)]
    assert torch.equal(features.roll_time(noise(1024, 4), generator(3)), noise(1024, 4).roll(shifts[0], 0))


def published_labels(sets, shares, classes, smoothing):
    """The loader's loops: positives set without mixup, added with it."""
    labels = [smoothing / classes] * classes
    for positives, share in zip(sets, shares, strict=True):
        for index in positives:
            labels[index] = (1 - smoothing) if len(sets) == 1 else labels[index] + share * (1 - smoothing)
    return torch.tensor(labels)


def test_labels_are_smoothed_as_published():
    for positives in ([], [0], [3, 5, 526]):
        ours = features.soft_labels(positives, 527, 0.1)
        assert ours.shape == (527,)
        torch.testing.assert_close(ours, published_labels([positives], [1], 527, 0.1))
    assert features.soft_labels([2], 4).tolist() == [0, 0, 1, 0]
    assert features.soft_labels([2], 4, 0.1).tolist() == pytest.approx([0.025, 0.025, 0.9, 0.025])


def test_a_label_in_both_halves_of_a_mixup_counts_like_any_other():
    one, two = [0, 1], [1, 2]
    mixed = features.mix(features.soft_labels(one, 4, 0.1), features.soft_labels(two, 4, 0.1), 0.4)
    assert mixed.tolist() == pytest.approx([0.4 * 0.9 + 0.6 * 0.025, 0.9, 0.6 * 0.9 + 0.4 * 0.025, 0.025])
    assert published_labels([one, two], [0.4, 0.6], 4, 0.1)[1] == pytest.approx(0.925)  # the sum: more than one clip's
    alone = features.mix(features.soft_labels(one, 4, 0.1), features.soft_labels(two, 4, 0.1), 1.0)
    assert torch.equal(alone, features.soft_labels(one, 4, 0.1))


def test_labels_that_cannot_be_are_refused():
    with pytest.raises(ParameterError, match="smoothing"):
        features.soft_labels([0], 4, 1.0)
    with pytest.raises(ParameterError, match=r"positives: \[4\]; expected 0 to 3"):
        features.soft_labels([4], 4)


def test_shapes_are_checked_while_testing():
    with pytest.raises(Exception, match="frames"):
        features.cav_mae_image(torch.zeros(3, 224, 224, dtype=torch.uint8))


def test_moments_that_come_in_parts_keep_small_deviations():
    values = 1e8 + torch.randn(1000, 3, dtype=torch.float64, generator=generator())
    moments = features.Moments()
    for part in values.split([1, 0, 499, 500]):
        moments.add(part)
    assert moments.count == 1000
    torch.testing.assert_close(moments.mean, values.mean(dim=0))
    # A sum of squares minus a square of sums would have nothing left: 1e16 has no place for 1.
    for correction in (0, 1):
        torch.testing.assert_close(moments.std(correction), values.std(dim=0, correction=correction), rtol=1e-7, atol=0)


def test_lengths_are_the_first_places():
    mask = features.valid_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]
    waveform = torch.tensor([[1.0, math.nan, math.inf], [1.0, 2.0, 3.0]])
    assert features.without_padding(waveform, torch.tensor([1, 2])).tolist() == [[1, 0, 0], [1, 2, 0]]
