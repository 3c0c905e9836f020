"""Ways to tell a classifier the word and the age: rows as the README has them, and those that work better."""

import warnings

import pytest
import torch

from avlib.errors import ParameterError
from avlib.models.classifiers import KINDS, AudioClassifier, Features, ResolvedConfig, age_values, word_keys

SPECTROGRAMS = {"whisper-base": 80, "resnet50": 224, "ast": 128, "beats": 128}


def small(backbone="whisper-base", seed=0, **settings):
    torch.manual_seed(seed)
    return AudioClassifier(backbone, small=True, **settings).eval()


def rows_of(model, features, **conditions):
    """The spectrogram that the backbone was given."""
    seen = []
    hear = model.backbone.encode
    model.backbone.encode = lambda given: seen.append(given.values) or hear(given)
    model.read(features, **conditions)
    del model.backbone.encode
    return seen[0]


def loud(model, batch=2, columns=40):
    """Features that no row of a condition looks like."""
    return Features(torch.full((batch, model.config["n_mels"], columns), 7.0), torch.full((batch,), columns))


def test_row_7_age_values_go_from_0_to_the_momentum():
    assert age_values(14).tolist() == pytest.approx([i / 13 for i in range(14)])
    assert age_values(14, 2.5).tolist() == pytest.approx([2.5 * i / 13 for i in range(14)])
    assert age_values(1).tolist() == [0]


def test_row_9_word_keys_are_rounded_to_three_decimals():
    keys = word_keys(80)
    assert keys[0] == -1 and keys[79] == 1
    assert keys[1].item() == pytest.approx(-0.975, abs=1e-7)  # 2 / 79 - 1 = -0.97468
    assert keys[40].item() == pytest.approx(0.013, abs=1e-7)
    assert word_keys(1).tolist() == [0] and word_keys(3).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(("backbone", "rows"), SPECTROGRAMS.items())
def test_rows_8_and_9_word_on_the_last_row_and_age_above_it(backbone, rows):
    model = small(backbone, word="row", age="row", age_momentum=3.0)
    assert model.config["n_mels"] == rows - 2
    values = rows_of(model, loud(model), word=torch.tensor([0, 79]), age=torch.tensor([13, 1]))
    assert values.shape[1] == rows
    assert (values[:, : rows - 2] == 7).all()
    assert (values[:, -1] == torch.tensor([[-1.0], [1.0]])).all()
    torch.testing.assert_close(values[:, -2], torch.tensor([[3.0], [3 / 13]]).expand(2, 40))


def test_row_9_a_words_row_can_be_scaled():
    model = small(word="row", word_scale=10.0, num_words=3)
    assert rows_of(model, loud(model), word=torch.tensor([0, 1]))[:, -1, 0].tolist() == [-10, 0]


def test_row_6_one_row_of_a_condition_leaves_79_for_mel():
    for condition in ("word", "age"):
        assert small(**{condition: "row"}).config["n_mels"] == 79


def test_row_6_rows_that_mel_leaves_are_filled_with_the_age():
    model = small(n_mels=70)
    assert model.needs == ("age",)
    values = rows_of(model, loud(model), age=torch.tensor([13, 0]))
    assert values.shape == (2, 80, 40) and (values[:, :70] == 7).all()
    assert (values[0, 70:] == 1).all() and (values[1, 70:] == 0).all()


def test_row_6_the_words_row_is_below_those_that_the_age_fills():
    model = small(n_mels=70, word="row")
    assert model.needs == ("word", "age")
    values = rows_of(model, loud(model), age=torch.tensor([13, 0]), word=torch.tensor([0, 79]))
    assert (values[0, 70:79] == 1).all() and (values[1, 70:79] == 0).all()
    assert values[:, 79, 0].tolist() == [-1, 1]


def test_row_6_without_an_age_nothing_can_be_filled():
    model = small(n_mels=70)
    with pytest.raises(ParameterError, match=r"age: not given; .*rows that no mel bin fills"):
        model.read(loud(model))


@pytest.mark.parametrize("n_mels", [79, 80, 70])
def test_row_9_both_rows_need_78_mel_rows(n_mels):
    with pytest.raises(ParameterError, match=r"n_mels: .*together the 80 of whisper-base. Set n_mels=78"):
        small(n_mels=n_mels, word="row", age="row")
    assert small(n_mels=78, word="row", age="row").settings.fill_rows == 0


def test_row_5_more_mel_rows_than_the_model_has_are_cut_with_a_warning():
    for backbone, rows in SPECTROGRAMS.items():
        with pytest.warns(UserWarning, match=f"n_mels 300 is more than the {rows} rows of {backbone}; {rows} are used"):
            assert small(backbone, n_mels=300).config["n_mels"] == rows


def test_row_5_defaults():
    assert ResolvedConfig("whisper-base").n_mels == 80 and ResolvedConfig("resnet50").n_mels == 224
    assert ResolvedConfig("whisper-large-v3").n_mels == 128 and ResolvedConfig("wav2vec2-base").n_mels is None


def test_rows_are_not_scaled_and_not_masked_with_the_spectrogram():
    model = small(word="row", num_words=2, min_max=True, word_scale=5)
    waveform = torch.randn(1, 6400, generator=torch.Generator().manual_seed(0))
    given = model.features(waveform)
    assert given.values.min() == 0 and given.values.max() == 1 and given.values.shape[1] == 79
    masked = given._replace(values=given.values.clone().fill_(0))  # SpecAugment at its most
    assert (rows_of(model, masked, word=torch.tensor([1]))[:, -1] == 5).all()


@pytest.mark.parametrize("backbone", SPECTROGRAMS)
def test_one_hot_rows_have_a_1_in_the_row_of_the_word(backbone):
    model = small(backbone, word="one_hot_rows", age="one_hot_rows", num_words=4, num_ages=3)
    rows = SPECTROGRAMS[backbone]
    assert model.config["n_mels"] == rows - 7
    values = rows_of(model, loud(model), word=torch.tensor([2, 0]), age=torch.tensor([1, 2]))
    below = torch.tensor([[0, 1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0, 0]])  # three ages above four words
    assert (values[:, rows - 7 :] == below[..., None]).all()


def test_so_many_words_that_no_mel_row_is_left_are_refused():
    with pytest.raises(ParameterError, match=r"word, age: 80 rows of words and ages; expected fewer than the 80"):
        small(word="one_hot_rows")


@pytest.mark.parametrize("kind", ["row", "one_hot_rows"])
def test_a_waveform_has_no_rows(kind):
    with pytest.raises(ParameterError, match=r"takes the waveform; expected embedding, film or heads"):
        small("wav2vec2-large-lv60", word=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("condition", ["word", "age"])
def test_row_10_every_kind_changes_the_answer_of_its_clip_alone(kind, condition):
    model = small(**{condition: kind}, num_words=5, num_ages=5)
    given = model.features(0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        first = model.read(given, **{condition: torch.tensor([1, 1])}).logits
        second = model.read(given, **{condition: torch.tensor([1, 4])}).logits
    torch.testing.assert_close(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-5


@pytest.mark.parametrize("backbone", ["whisper-base", "resnet50", "wav2vec2-large-lv60", "ast", "beats"])
@pytest.mark.parametrize("kinds", [("film", "heads"), ("embedding", "film"), ("heads", "heads")])
def test_row_10_several_conditions_at_once_on_every_backbone(backbone, kinds):
    model = small(backbone, **dict(zip(("word", "age"), kinds, strict=True)), num_words=3, seconds=0.5)
    logits = model(torch.randn(2, 8000), word=torch.tensor([0, 2]), age=torch.tensor([13, 0]))
    assert logits.shape == (2, 2) and logits.isfinite().all()


def test_film_by_its_formula():
    model = small(word="film", num_words=3, condition_width=8)
    given = loud(model, 1)
    output, film = model.read(given, word=torch.tensor([2])), model.films["word"]
    terms = film.terms_of.weight @ film.table.weight[2] + film.terms_of.bias
    expected = model.projection((1 + terms[:64]) * output.frames.mean(dim=1)[0] + terms[64:])
    torch.testing.assert_close(output.embedding[0], expected, rtol=1e-5, atol=1e-6)


def test_an_embedding_by_its_formula():
    model = small(word="embedding", age="embedding", condition_width=8)
    given = loud(model, 1)
    output = model.read(given, word=torch.tensor([7]), age=torch.tensor([3]))
    tables = model.joined.tables
    x = torch.cat([output.frames.mean(dim=1)[0], tables["age"].weight[3], tables["word"].weight[7]])
    x = model.joined.mix.weight @ x + model.joined.mix.bias
    x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    torch.testing.assert_close(output.embedding[0], model.projection(x), rtol=1e-5, atol=1e-6)


def test_heads_are_an_output_layer_for_each_word_and_add_up():
    model = small(word="heads", age="heads", num_words=4, num_outputs=3)
    output = model.read(loud(model), word=torch.tensor([1, 3]), age=torch.tensor([5, 5]))
    for row, (word, age) in enumerate([(1, 5), (3, 5)]):
        w, a = model.heads["word"], model.heads["age"]
        expected = w.weight[word] @ output.embedding[row] + w.bias[word]
        expected = expected + a.weight[age] @ output.embedding[row] + a.bias[age]
        torch.testing.assert_close(output.logits[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kinds", [{"word": "film"}, {"word": "heads"}, {"word": "row", "age": "film"}])
def test_contributions_hold_with_conditions(kinds):
    model = small(**kinds, num_words=3, num_outputs=2)
    given = model.features(torch.randn(2, 4000), torch.tensor([4000, 2000]))
    conditions = {"word": torch.tensor([0, 2]), "age": torch.tensor([3, 4])}
    found = model.contributions(given, **conditions)
    total = found.values.sum(dim=(2, 3)) + found.constant
    torch.testing.assert_close(total, model.read(given, **conditions).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["embedding", "film", "heads"])
def test_the_same_sound_can_mean_the_opposite_under_another_word(kind):
    """The symmetric pair: an answer that is no sum of what the sound says and of what the word says."""
    torch.manual_seed(0)
    pitch = torch.tensor([300.0, 300.0, 2000.0, 2000.0]).repeat(8)
    word = torch.tensor([0, 1, 0, 1]).repeat(8)
    target = (pitch.gt(1000).long() + word) % 2
    time = torch.arange(1600) / 16000
    sound = torch.sin(2 * torch.pi * pitch[:, None] * time) + 0.1 * torch.randn(32, 1600)
    model = AudioClassifier("whisper-base", small=True, word=kind, num_words=2).train()
    given = model.features(sound)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model.read(given, word=word).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model.eval().read(given, word=word).logits.argmax(dim=1) == target).all()


@pytest.mark.parametrize(("word", "message"), [
    (None, r"word: not given; expected the word of each clip, for 'film'"),
    ([0, 3], r"word: \[3\]; expected numbers from 0 to 2"),
    ([-1, 0], r"word: \[-1\].*unknown"),
    ([0], r"word: shape \(1,\); expected \(2,\)"),
])  # fmt: skip
def test_words_that_do_not_fit_are_refused(word, message):
    model = small(word="film", num_words=3)
    with pytest.raises(ParameterError, match=message):
        model.read(loud(model), word=None if word is None else torch.tensor(word))


def test_what_no_condition_needs_may_be_handed_over():
    model = small()
    given = loud(model)
    unknown = torch.tensor([-1, -1])
    torch.testing.assert_close(model.read(given, word=unknown, age=unknown).logits, model.read(given).logits)


@pytest.mark.parametrize("conditions", [{"speaker": "film"}, {"word": "vector"}])
def test_unknown_conditions_are_refused(conditions):
    with pytest.raises(ParameterError, match=f"^{next(iter(conditions))}: "):
        small(**conditions)


def test_settled_settings_make_the_same_model_without_a_word():
    for backbone in SPECTROGRAMS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            config = small(backbone, word="row").config
            assert AudioClassifier(**config).config == config
