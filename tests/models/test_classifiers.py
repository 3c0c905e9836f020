"""Classifiers of sounds: every backbone under the one head, with its masks and the shapes that formulas give."""

import math
import warnings

import pytest
import torch
from transformers import WhisperFeatureExtractor

from avlib import features
from avlib.errors import CheckpointError, ParameterError, TooShortError
from avlib.models.beats import BEATs
from avlib.models.classifiers import BACKBONES, AudioClassifier, Features, encode_whisper

MASKED = ["whisper-base", "wav2vec2-large-lv60", "hubert-large", "ast", "beats"]
ALL = [*MASKED, "resnet50", "wav2vec2-base", "hubert-base"]


def small(backbone="whisper-base", seed=0, **settings):
    """A small one with random weights; those whose group norm hears padding are told that nothing is masked."""
    if BACKBONES[backbone].norm == "group":
        settings = {"masked": False} | settings
    torch.manual_seed(seed)
    return AudioClassifier(backbone, small=True, **settings).eval()


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def padded_batch(lengths):
    clips = [noise(length, seed=length) for length in lengths]
    return clips, torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(lengths)


# --- the head


@pytest.mark.parametrize("backbone", ALL)
def test_every_backbone_gives_an_output_for_each_class(backbone):
    model = small(backbone, num_outputs=5, seconds=0.5)
    features = model.features(noise(2, 8000))
    output = model.read(features)
    assert output.logits.shape == (2, 5) and output.embedding.shape == (2, 256)
    assert output.frames.shape[:2] == output.mask.shape
    torch.testing.assert_close(model(noise(2, 8000)), output.logits)


@pytest.mark.parametrize("backbone", ALL)
def test_a_regressor_gives_one_number_for_each_clip(backbone):
    assert small(backbone, task="regression", seconds=0.5)(noise(3, 8000)).shape == (3,)


def test_row_1_mean_over_time_and_two_linear_layers_that_are_one():
    model = small(num_outputs=3)
    output = model.read(model.features(noise(2, 16000)))
    embedding = output.frames.sum(dim=1) / 50 @ model.projection.weight.T + model.projection.bias
    logits = embedding @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(output.embedding, embedding, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.logits, logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("backbone", "width"), [("whisper-base", 512), ("wav2vec2-base", 768), ("resnet50", 2048)])
def test_row_1_full_networks_have_the_published_widths(backbone, width):
    with torch.device("meta"):
        model = AudioClassifier(backbone, masked=False)
    assert model.projection.weight.shape == (256, width) and model.classifier.weight.shape == (2, 256)


def test_full_networks_have_as_many_parameters_as_published():
    def counted(backbone):
        with torch.device("meta"):
            network = AudioClassifier(backbone, masked=False).backbone.network
        return sum(p.numel() for p in network.parameters() if p.requires_grad)

    assert round(counted("whisper-base") / 1e6, 1) == 19.8
    assert round(counted("wav2vec2-base") / 1e6, 1) == 94.4
    # 25.6 M with three colours and 1,000 classes
    assert counted("resnet50") == 25_557_032 - 2 * 64 * 49 - 2049 * 1000


def test_a_full_whisper_is_told_one_of_80_words_by_its_number():
    model = AudioClassifier(backbone="whisper-base", num_outputs=2, task="classification", word="embedding").eval()
    with torch.no_grad():
        logits = model(noise(2, 8000), word=torch.tensor([0, 79]))
    assert logits.shape == (2, 2) and model.needs == ("word",) and model.config["num_words"] == 80


def test_an_activation_and_dropout_are_options():
    model = small(activation="relu", dropout=0.5)
    given = model.features(noise(1, 8000))
    assert model.read(given).embedding.min() == 0
    torch.testing.assert_close(model.read(given).logits, model.read(given).logits)
    model.train()
    assert not torch.equal(model.read(given).logits, model.read(given).logits)


def test_attentive_statistics_by_their_formula():
    model = small(pooling="attention")
    given = model.features(*padded_batch([8000, 4000])[1:])
    output = model.read(given)
    for row in range(2):
        frames = output.frames[row, output.mask[row]]
        score = torch.stack([model.pooling.score(frame) for frame in frames]).flatten()
        weights = score.exp() / score.exp().sum()
        mean = sum(w * frame for w, frame in zip(weights, frames, strict=True))
        deviation = sum(w * (frame - mean) ** 2 for w, frame in zip(weights, frames, strict=True)) ** 0.5
        expected = model.projection(torch.cat([mean, deviation]))
        torch.testing.assert_close(output.embedding[row], expected, rtol=1e-4, atol=1e-5)


def test_attentive_statistics_have_finite_gradients_for_a_constant_clip():
    model = small(pooling="attention").train()
    model(torch.zeros(1, 160)).sum().backward()  # one frame: its deviation is 0
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("backbone", [*MASKED, "wav2vec2-base"])
def test_a_sum_of_layers_is_weighted_by_a_softmax(backbone):
    model, last = small(backbone, layer_sum=True), small(backbone)
    last.load_state_dict({k: v for k, v in model.state_dict().items() if k != "layer_sum.scores"})
    given = model.features(noise(1, 8000))
    mean = model.read(given).frames
    with torch.no_grad():
        states = model.backbone.encode(given).states
        assert len(states) == (2 if backbone == "beats" else 3)
        torch.testing.assert_close(mean, sum(states) / len(states))
        model.layer_sum.scores[-1] = 50.0  # all weight on the last layer
        torch.testing.assert_close(model.read(given).frames, last.read(given).frames)


@pytest.mark.parametrize("backbone", ["wav2vec2-base", "hubert-large", "whisper-base"])
def test_in_training_a_sum_of_layers_has_every_layer(backbone):
    model = small(backbone, layer_sum=True).train()
    given = model.features(noise(1, 2000))
    for _ in range(20):  # with layers dropped the states are fewer in 6 of 20 calls
        assert len(model.backbone.encode(given).states) == 3
        assert model.read(given).logits.isfinite().all()


def test_clips_under_a_fifth_of_a_second_can_be_trained_on():
    model = small("wav2vec2-base").train()
    model(noise(2, 2400))[:, 0].sum().backward()
    slopes = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert all(slope.isfinite().all() for slope in slopes.values())
    assert {name.split(".")[0] for name, slope in slopes.items() if slope.any()} == {
        "backbone", "projection", "classifier",
    }  # fmt: skip
    assert slopes["backbone.network.feature_extractor.conv_layers.0.conv.weight"].any()


# --- what is heard


@pytest.mark.parametrize("samples", [48000, 47999, 16000, 1600, 160])
def test_row_39_whisper_has_a_position_for_two_columns(samples):
    for hop in (160, 100):
        model = small(hop_length=hop)
        given = model.features(noise(1, samples))
        assert given.values.shape == (1, 80, samples // hop)  # samples // hop + 1, and the last one dropped
        assert model.read(given).frames.shape[1] == math.ceil((samples // hop) / 2)


def test_row_41_three_seconds_are_150_positions():
    model = small()
    output = model.read(model.features(noise(1, 48000)))
    assert output.frames.shape == (1, 150, 64)


def test_whisper_hears_what_the_published_extractor_gives():
    waveform = noise(16000)
    theirs = WhisperFeatureExtractor()(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features[0]
    model = small()
    for padded in (waveform[None], torch.nn.functional.pad(waveform[None], (0, 5000))):
        given = model.features(padded, torch.tensor([16000]))
        assert given.lengths.tolist() == [100]
        torch.testing.assert_close(given.values[0, :, :100], theirs[:, :100], rtol=0, atol=1e-5)


def test_frames_of_whisper_are_those_of_encode_whisper():
    model = small()
    given = model.features(noise(2, 5000))
    with torch.no_grad():
        torch.testing.assert_close(model.read(given).frames, encode_whisper(model.backbone.network, given.values))


@pytest.mark.parametrize("seconds", [0.5, 1, 2, 3, 5.5, 30])
def test_row_40_resnet_has_224_columns_of_any_length(seconds):
    model = small("resnet50", seconds=seconds)
    samples = round(seconds * 16000)
    given = model.features(noise(1, samples))
    assert given.values.shape == (1, 224, 224) and given.lengths.tolist() == [224]
    assert model.config["hop_length"] == max(1, samples // 223) and model.config["n_fft"] == 1024
    torch.testing.assert_close(given.values, features.resnet_log_mel(noise(1, samples)))
    assert model.read(given).frames.shape == (1, 49, 256)


def test_resnet_pads_short_clips_to_its_length_and_keeps_its_hop_for_longer_ones():
    model = small("resnet50", seconds=1.0)
    short = noise(1, 4000)
    padded = torch.nn.functional.pad(short, (0, 12000))
    torch.testing.assert_close(model.features(short).values, model.features(padded, torch.tensor([4000])).values)
    torch.testing.assert_close(model(short), model(padded))
    long = model.features(noise(1, 24000))
    assert long.values.shape[-1] == 24000 // (16000 // 223) + 1 and model.read(long).frames.shape[0] == 1


@pytest.mark.parametrize("columns", [16, 32, 64, 220, 224, 301])
def test_resnet_takes_other_widths(columns):
    output = small("resnet50").read(Features(torch.randn(1, 224, columns), torch.tensor([columns])))
    assert output.frames.shape == (1, 7 * math.ceil(columns / 32), 256)


def test_frames_of_resnet_are_ordered_by_time_and_then_from_low_to_high():
    model = small("resnet50")
    given = model.features(noise(1, 48000))
    frames = model.read(given).frames
    with torch.no_grad():
        cells = model.backbone.network.forward_features(given.values[:, None])
    torch.testing.assert_close(frames[0, 7 * 2 + 5], cells[0, :, 5, 2])


def test_mel_filters_can_be_exchanged():
    waveform = noise(1, 16000)
    whisper = small(mel="torchaudio").features(waveform).values
    torch.testing.assert_close(
        whisper[..., :98], features.resnet_log_mel(waveform, 80, hop_length=160, n_fft=400)[..., :98]
    )
    resnet = small("resnet50", seconds=1, mel="whisper").features(waveform).values
    assert resnet.shape == (1, 224, 224)
    theirs = features.whisper_log_mel(waveform, 224, hop_length=71, n_fft=1024)
    torch.testing.assert_close(resnet[..., :210], theirs[..., :210])


@pytest.mark.parametrize(("samples", "frames"), [(16000, 49), (48000, 149), (400, 1), (719, 1), (720, 2)])
def test_wav2vec2_has_frames_by_the_floor_rule(samples, frames):
    for backbone in ("wav2vec2-base", "hubert-large"):
        model = small(backbone)
        assert model.read(model.features(noise(1, samples))).frames.shape[1] == frames


def test_waveforms_have_zero_mean_and_unit_deviation_where_they_are_valid():
    _, waveform, lengths = padded_batch([4000, 1000])
    values, found = small("wav2vec2-large-lv60").features(3 * waveform + 1, lengths)
    assert found.tolist() == [4000, 1000] and (values[1, 1000:] == 0).all()
    for row, length in enumerate(lengths):
        valid = values[row, :length]
        assert abs(float(valid.mean())) < 1e-5 and abs(float(valid.square().mean()) - 1) < 1e-4


@pytest.mark.parametrize(("samples", "frames"), [(16000, 98), (2800, 16), (165040, 1030)])
def test_ast_has_overlapping_patches_and_beats_has_not(samples, frames):
    ast, beats = small("ast"), small("beats")
    times = (frames - 16) // 10 + 1
    assert ast.features(noise(1, samples)).values.shape == (1, 128, frames)
    assert ast.read(ast.features(noise(1, samples))).frames.shape == (1, 12 * times, 64)
    assert beats.read(beats.features(noise(1, samples))).frames.shape == (1, 8 * (frames // 16), 64)


def test_ast_is_that_of_transformers_at_its_own_length():
    model = small("ast")
    torch.nn.init.normal_(model.backbone.network.embeddings.position_embeddings, std=0.5)
    torch.nn.init.normal_(model.backbone.network.embeddings.cls_token)
    values = noise(1, 128, 1024, seed=3) * 5
    with torch.no_grad():
        theirs = model.backbone.network(values.transpose(1, 2)).last_hidden_state[:, 2:]  # 12 bands of 101 times
        ours = model.read(Features(values, torch.tensor([1024]))).frames
    theirs = theirs.reshape(1, 12, 101, 64).transpose(1, 2).reshape(1, 1212, 64)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_beats_hears_what_avlibs_beats_hears():
    model = small("beats")
    waveform = noise(2, 8000)
    network: BEATs = model.backbone.network
    with torch.no_grad():
        expected = network.features(waveform, [1], torch.tensor([8000, 5000]))
        output = model.read(model.features(waveform, torch.tensor([8000, 5000])))
    assert torch.equal(output.mask, network.token_mask(8000, torch.tensor([8000, 5000])))
    torch.testing.assert_close(output.frames[output.mask], expected[output.mask], rtol=1e-4, atol=1e-5)


def test_row_43_min_max_is_of_each_clip_without_its_padding():
    clips, waveform, lengths = padded_batch([8000, 3000])
    model = small(min_max=True)
    given = model.features(waveform, lengths)
    for row, clip in enumerate(clips):
        plain = small().features(clip[None]).values[0]
        expected = (plain - plain.min()) / (plain.max() - plain.min())
        torch.testing.assert_close(given.values[row, :, : plain.shape[1]], expected, rtol=1e-5, atol=1e-5)
    assert small(min_max=True).features(torch.zeros(1, 8000)).values.unique().tolist() == [0]


# --- masks and lengths


@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("backbone", [*MASKED, "resnet50"])
def test_a_padded_clip_gets_the_answer_that_it_gets_alone(backbone, pooling):
    model = small(backbone, pooling=pooling, seconds=0.6)
    clips, waveform, lengths = padded_batch([9600, 6000, 4567, 1600])
    with torch.no_grad():
        together = model(waveform, lengths)
        alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("backbone", ["wav2vec2-base", "hubert-base"])
def test_a_group_norm_hears_the_padding_and_says_so(backbone):
    with pytest.warns(UserWarning, match="normalised over time"):
        model = small(backbone, masked=True)
    clips, waveform, lengths = padded_batch([9600, 4000])
    frames = model.read(model.features(waveform, lengths)).frames[1, :12]
    alone = model.read(model.features(clips[1][None])).frames[0]
    assert (frames - alone).abs().max() > 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(backbone, masked=False)
        small(backbone, masked=True, norm="layer")  # a small one may have the other norm


def test_the_mask_says_which_frames_are_of_the_clip():
    _, waveform, lengths = padded_batch([8000, 4000])
    frames = {"whisper-base": (25, 13), "wav2vec2-large-lv60": (24, 12), "ast": (12 * 4, 12 * 1), "beats": (24, 8)}
    for backbone, expected in frames.items():
        model = small(backbone)
        assert tuple(model.read(model.features(waveform, lengths)).mask.sum(dim=1).tolist()) == expected
    resnet = small("resnet50", seconds=0.5)
    assert resnet.read(resnet.features(waveform, lengths)).mask.all()


def test_unmasked_padding_is_heard():
    _, waveform, lengths = padded_batch([8000, 4000])
    model = small(masked=False)
    torch.testing.assert_close(model(waveform, lengths), model(waveform))
    assert (small()(waveform, lengths) - small()(waveform))[1].abs().max() > 1e-4


@pytest.mark.parametrize("backbone", ALL)
def test_a_clip_of_a_tenth_of_a_second_is_padded_to_the_shortest(backbone):
    model = small(backbone, seconds=0.5)
    clip = noise(1, 1600)
    shortest = {"whisper-base": 160, "resnet50": 8000, "ast": 2800, "beats": 2800}.get(backbone, 400)
    assert model.min_samples == shortest
    with torch.no_grad():
        logits = model(clip)
        padded = torch.nn.functional.pad(clip, (0, max(0, shortest - 1600)))
        torch.testing.assert_close(model(padded), logits)
        assert logits.isfinite().all() and model(noise(1, 1)).isfinite().all()


@pytest.mark.parametrize("backbone", ALL)
def test_a_clip_without_samples_is_refused(backbone):
    model = small(backbone)
    with pytest.raises(TooShortError, match="waveform: 0 samples; expected at least 1"):
        model(torch.zeros(1, 0))
    with pytest.raises(TooShortError, match="waveform: 0 samples; expected at least 1"):
        model(torch.zeros(2, 8000), torch.tensor([8000, 0]))


def test_what_stands_beyond_the_lengths_does_not_matter():
    _, waveform, lengths = padded_batch([8000, 4000])
    spoilt = waveform.clone()
    spoilt[1, 4000:] = torch.nan
    torch.testing.assert_close(small()(spoilt, lengths), small()(waveform, lengths))
    with pytest.raises(ParameterError, match="NaN or infinite samples in row 1"):
        small()(spoilt)


@pytest.mark.parametrize("lengths", [[8001, 10], [8000]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ParameterError, match="lengths"):
        small()(noise(2, 8000), torch.tensor(lengths))


def test_precision_follows_the_weights():
    model = small("whisper-base", word="row").double()
    assert model(noise(1, 8000), word=torch.tensor([3])).dtype == torch.float64


# --- what is trained


@pytest.mark.parametrize("backbone", ALL)
def test_every_parameter_is_trained_and_reached(backbone):
    model = small(backbone, seconds=0.5).train()
    model(noise(2, 8000)).square().sum().backward()
    lost = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost  # torchrun would wait for them


@pytest.mark.parametrize("backbone", ALL)
@pytest.mark.parametrize("freeze", ["all", "features", 1])
def test_what_is_frozen_has_no_gradients_and_stays_in_evaluation(backbone, freeze):
    model = small(backbone, freeze=freeze).train()
    first, layers = model.backbone.parts()
    frozen = {"all": [model.backbone], "features": first, 1: [*first, layers[0]]}[freeze]
    for module in frozen:
        assert not any(p.requires_grad for p in module.parameters())
        assert not any(m.training for m in module.modules())
    assert any(p.requires_grad for p in layers[-1].parameters()) == (freeze != "all")
    assert layers[-1].training == (freeze != "all")
    assert model.projection.training and model.projection.weight.requires_grad


# --- what each frame adds


@pytest.mark.parametrize("backbone", ["whisper-base", "wav2vec2-large-lv60", "resnet50", "ast", "beats"])
def test_contributions_are_all_of_the_answer(backbone):
    model = small(backbone, num_outputs=3, seconds=0.5)
    _, waveform, lengths = padded_batch([8000, 5000])
    given = model.features(waveform, lengths)
    found, output = model.contributions(given), model.read(given)
    bands = {"resnet50": 7, "ast": 12, "beats": 8}.get(backbone, 1)
    assert found.values.shape[:3] == (2, 3, bands)
    torch.testing.assert_close(found.values.sum(dim=(2, 3)) + found.constant, output.logits, rtol=1e-4, atol=1e-5)
    kept = output.mask.reshape(2, -1, bands).transpose(1, 2)[:, None].expand_as(found.values)
    assert (found.values[~kept] == 0).all()


def test_contributions_by_frame():
    model = small(num_outputs=2)
    given = model.features(noise(1, 3200))
    output = model.read(given)
    weight = model.classifier.weight @ model.projection.weight
    for time in range(10):
        expected = weight @ output.frames[0, time] / 10
        found = model.contributions(given).values[0, :, 0, time]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pooling", {"pooling": "attention"}),
        ("activation", {"activation": "gelu"}),
        ("conditions", {"age": "embedding"}),
    ],
)
def test_contributions_are_refused_where_the_head_is_not_linear(name, settings):
    model = small(**settings)
    with pytest.raises(ParameterError, match=rf"{name}: .*no linear head"):
        model.contributions(model.features(noise(1, 3200)), age=torch.tensor([0]))


# --- settings and files


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "whisper-bass"}, r"backbone: 'whisper-bass'; expected one of 'whisper-tiny'"),
        ({"task": "ranking"}, r"task: 'ranking'"),
        ({"pooling": "max"}, r"pooling: 'max'"),
        ({"activation": "tanh"}, r"activation: 'tanh'"),
        ({"task": "regression", "num_outputs": 3}, r"num_outputs: 3; expected 1"),
        ({"num_outputs": 0}, r"num_outputs: 0"),
        ({"dropout": 1.0}, r"dropout: 1.0"),
        ({"projection": 0}, r"projection: 0; expected 1 or more"),
        ({"seconds": 0}, r"seconds: 0"),
        ({"freeze": "half"}, r"freeze: 'half'"),
        ({"freeze": 7}, r"freeze: 7; expected .* 0 to 6"),
        ({"freeze": True}, r"freeze: found bool True"),
        ({"poling": "mean"}, r"poling: unexpected keyword argument; .*Did you mean 'pooling'"),
        ({"backbone": "resnet50", "layer_sum": True}, r"layer_sum: True with resnet50"),
        ({"backbone": "beats", "hop_length": 100}, r"hop_length: 100 with beats"),
        ({"backbone": "hubert-base", "n_mels": 80}, r"n_mels: 80 with hubert-base, which takes the waveform"),
        ({"norm": "layer"}, r"norm: 'layer' with whisper-base"),
        ({"backbone": "wav2vec2-base", "norm": "layer"}, r"norm: 'layer' with wav2vec2-base; expected 'group'"),
    ],
)
def test_settings_that_do_not_go_are_refused_by_name(settings, message):
    with pytest.raises(ParameterError, match=message):
        AudioClassifier(**settings)


def test_row_4_what_each_backbone_takes():
    takes = {name: facts.takes for name, facts in BACKBONES.items()}
    assert takes["wav2vec2-base"] == takes["hubert-large"] == "wave"
    assert takes["whisper-base"] == takes["resnet50"] == takes["ast"] == takes["beats"] == "spectrogram"


@pytest.mark.parametrize("backbone", ALL)
def test_a_saved_model_comes_back(backbone, tmp_path):
    model = small(backbone, seed=5, seconds=0.5, word="film", age="heads", num_words=3)
    model.train()(noise(2, 8000), word=torch.tensor([0, 1]), age=torch.tensor([2, 3]))  # moves batch norms
    model.eval().save(tmp_path / "model")
    again = AudioClassifier.from_checkpoint(tmp_path / "model").eval()
    assert again.config == model.config
    conditions = {"word": torch.tensor([2]), "age": torch.tensor([13])}
    torch.testing.assert_close(again(noise(1, 8000), **conditions), model(noise(1, 8000), **conditions))


def test_a_folder_of_another_kind_is_refused(tmp_path):
    BEATs(small("beats").backbone.network.config).save(tmp_path / "beats")
    with pytest.raises(CheckpointError, match="no settings of an AudioClassifier"):
        AudioClassifier.from_checkpoint(tmp_path / "beats")


def test_standardized_rows_have_mean_0_and_deviation_1_over_valid_columns(tmp_path):
    model, plain = small(standardize=True), small()
    waveform, lengths = torch.randn(6, 8000) * torch.linspace(0.01, 1, 6)[:, None], torch.tensor([8000, 4000] * 3)
    with pytest.raises(ParameterError, match="clips: none"):
        model.standardize([])
    model.standardize([(waveform[:4], lengths[:4]), (waveform[4:], lengths[4:])])
    values, columns = model.features(waveform, lengths)
    raw = plain.features(waveform, lengths).values
    for row in (0, 40, 79):
        kept = torch.cat([clip[row, :count] for clip, count in zip(raw, columns, strict=True)])
        expected = (raw[:, row] - kept.mean()) / kept.std(correction=0)
        torch.testing.assert_close(values[:, row], expected, rtol=1e-4, atol=1e-4)
    model.standardize([(torch.zeros(2, 8000), torch.tensor([8000, 8000]))])
    assert model.features(torch.zeros(1, 8000)).values.abs().max() == 0, "what never differs is not made loud"
    model.save(tmp_path)
    again = AudioClassifier.from_checkpoint(tmp_path)
    torch.testing.assert_close(again.features(waveform, lengths).values, model.features(waveform, lengths).values)
    with pytest.raises(ParameterError, match="standardize"):
        plain.standardize([(waveform, lengths)])
    with pytest.raises(ParameterError, match="takes the waveform"):
        small("wav2vec2-base", standardize=True)
