"""The small parts of a text-to-image model: components of patches, words, and a classifier of pictures."""

import pytest
import torch
from sklearn.decomposition import PCA

from avlib.errors import CheckpointError, ParameterError
from avlib.models.tiny_diffusion import ImageClassifier, PatchPCA, small_text_encoder, small_tokenizer


def pictures(count=40, size=16):
    """Smooth ones: random waves."""
    torch.manual_seed(0)
    place = torch.linspace(0, 3, size)
    waves = torch.rand(count, 3, 2) * 4
    angle = waves[..., 0, None, None] * place[:, None] + waves[..., 1, None, None] * place
    return angle.sin() * torch.rand(count, 3, 1, 1)


def test_components_are_those_of_scikit_learn():
    images = pictures()
    model = PatchPCA.fitted(images, 6, 4)
    rows = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(-1, 48).numpy()
    expected = PCA(6).fit(rows)
    latents = model.encode(images).latent_dist.mean
    assert latents.shape == (40, 6, 4, 4)
    found = latents.permute(0, 2, 3, 1).reshape(-1, 6).abs()
    assert torch.allclose(found, torch.from_numpy(expected.transform(rows)).abs(), atol=1e-4)
    assert (latents * model.config.scaling_factor).std() == pytest.approx(1, abs=1e-3)
    assert torch.equal(model.encode(images).latent_dist.sample(), latents), "there is nothing random about it"


def test_whitening_lets_all_components_vary_alike_and_loses_nothing():
    images = pictures()
    plain, half, white = (PatchPCA.fitted(images, 6, 4, power) for power in (0, 0.5, 1))
    spread = [model.encode(images).latent_dist.mean.std(dim=(0, 2, 3)) for model in (plain, half, white)]
    assert torch.allclose(spread[2], torch.ones(6), atol=1e-2)
    assert torch.allclose(spread[1], spread[0].sqrt(), rtol=1e-2)
    assert all(torch.allclose(model(images), plain(images), atol=1e-5) for model in (half, white))
    for model in (half, white):
        assert (model.encode(images).latent_dist.mean * model.config.scaling_factor).std() == pytest.approx(1, abs=1e-3)


def test_with_all_components_nothing_is_lost():
    images = pictures()
    assert torch.allclose(PatchPCA.fitted(images, 48, 4)(images), images, atol=1e-5)
    few, more = (float((PatchPCA.fitted(images, n, 4)(images) - images).square().mean()) for n in (2, 8))
    assert more < few < images.var()


def test_it_is_saved_and_read(tmp_path):
    images = pictures()
    model = PatchPCA.fitted(images, 6, 2)
    model.save_pretrained(tmp_path)
    again = PatchPCA.from_pretrained(tmp_path)
    assert again.patch == 2 and again.config.scaling_factor == model.config.scaling_factor
    assert torch.equal(again(images), model(images)) and not list(again.parameters())


@pytest.mark.parametrize(("channels", "patch", "message"), [(49, 4, "at most 48"), (4, 3, "a power of two")])
def test_what_cannot_be_is_refused(channels, patch, message):
    with pytest.raises(ParameterError, match=message):
        PatchPCA.fitted(pictures(4), channels, patch)


def test_a_picture_that_patches_do_not_fill_is_refused():
    with pytest.raises(ParameterError, match="pictures: 16 x 15"):
        PatchPCA.fitted(pictures(4), 4, 4).encode(torch.zeros(1, 3, 16, 15))


def test_known_words_are_one_token_and_others_are_spelt(tmp_path):
    words = ["a", "photo", "of", "ball", "bell", "blue", "orange", "rain", "in", "string", "drum"]
    tokenizer = small_tokenizer(words, 12)
    for word in words:
        assert tokenizer.convert_ids_to_tokens(tokenizer(word).input_ids[1:-1]) == [f"{word}</w>"]
    spelt = tokenizer.convert_ids_to_tokens(tokenizer("A Zebra, 4k").input_ids)
    assert "".join(spelt[1:-1]).replace("</w>", " ").split() == ["a", "zebra", ",", "4", "k"]
    assert len(tokenizer("a photo", padding="max_length").input_ids) == 12
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again("a photo of a zebra").input_ids == tokenizer("a photo of a zebra").input_ids


def test_word_vectors_are_larger_by_the_scale():
    tokenizer = small_tokenizer(["a"], 8)
    torch.manual_seed(0)
    usual = small_text_encoder(tokenizer, 16, 1)
    torch.manual_seed(0)
    larger = small_text_encoder(tokenizer, 16, 1, word_scale=5.0)
    assert torch.allclose(5 * usual.get_input_embeddings().weight, larger.get_input_embeddings().weight)
    assert larger(torch.zeros(1, 8, dtype=torch.long)).last_hidden_state.shape == (1, 8, 16)


def test_a_tokenizer_is_the_same_each_time():
    words = "a ball bell bird blue bowl drum engine in kettle large left lute middle of on orange photo pink purple"
    words = f"{words} rain right small string the with yellow".split()
    numbers = [small_tokenizer(words, 8).get_vocab() for _ in range(40)]
    assert all(each == numbers[0] for each in numbers), "models begin with the same words, in every process"


def test_an_image_classifier_is_saved_and_read(tmp_path):
    classifier = ImageClassifier({"kind": 8, "size": 2}, width=4, embedding=6).eval()
    classifier.save(tmp_path / "classifier")
    again = ImageClassifier.from_checkpoint(tmp_path / "classifier").eval()
    images, sounds = torch.rand(3, 3, 32, 32), 0.1 * torch.randn(3, 4000)
    assert {name: tuple(rows.shape) for name, rows in classifier(images).items()} == {"kind": (3, 8), "size": (3, 2)}
    assert torch.equal(again.embed_images(images), classifier.embed_images(images))
    assert torch.equal(again.embed_audio(sounds), classifier.embed_audio(sounds))
    for vectors in (classifier.embed_images(images), classifier.embed_audio(sounds)):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    PatchPCA().save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError):
        ImageClassifier.from_checkpoint(tmp_path / "other")
