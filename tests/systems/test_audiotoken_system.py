"""AudioToken's row: its settings, steps, the assembled system, figures, and training that is done once."""

import json
import shutil
from dataclasses import replace
from functools import partial

import diffusers
import pytest
import torch
from making import published_files, published_folder
from small_rows import AUDIOTOKEN as SMALL
from torch.nn import functional as F

from avlib import clips, training
from avlib.__main__ import main
from avlib.errors import CheckpointError, ParameterError, TooShortError
from avlib.features import beats_fbank
from avlib.models.audiotoken import AudioTokenEmbedder, add_lora, lora_parameters, save_lora
from avlib.models.beats import BEATs, Config
from avlib.models.text_to_image import TextToImage
from avlib.systems import audiotoken
from avlib.systems.audiotoken import changed

# A few steps of smaller models, on few clips.
small = changed(audiotoken.tiny, SMALL)


def at(stage, **values):
    return changed(small, {"stage": stage, **values})


@pytest.fixture(scope="module")
def whole():
    """The last stage, with all that it needs."""
    return audiotoken.trained(small, progress=False)


@pytest.fixture
def model(whole):
    return audiotoken.trained(small, progress=False).model


@pytest.fixture(scope="module")
def batch():
    return audiotoken.held_out(small, progress=False).batch()


# Settings


def test_full_holds_the_published_numbers():
    how = audiotoken.full.embedder
    assert (how.lambda_a, how.lambda_b, how.lambda_c, how.cosine_loss, how.lowest) == (0.01, 0, 0.01, False, 0)
    assert (
        how.prompt == "a photo of <*>"
        and how.training.batch_size == 16 == 4 * how.training.accumulate
        and how.training.steps == 30_000
    )
    assert how.training.rate(0) == how.training.rate(29_999) == 1 and how.training.learning_rate == 1.6e-4
    assert how.training.betas == (0.9, 0.999) and how.training.weight_decay == 0.01 and how.training.clip == 0
    assert audiotoken.full.data.seconds == 5 and tuple(audiotoken.full.data.image_size) == (320, 512)
    assert (audiotoken.full.sampling.inference_steps, audiotoken.full.sampling.guidance) == (50, 7.5)
    assert audiotoken.full.classifier.network == Config()
    assert (how.lambda_a, how.lambda_b, how.cosine_loss, how.lambda_c, how.lowest) == (0.01, 0.0, False, 0.01, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stage", "3"), ("clips_seed", 1000), ("lowest", 1000), ("held_out", 0), ("image_size", [32])],
)
def test_other_choices_are_refused(name, value):
    with pytest.raises(ParameterError, match=name):
        changed(audiotoken.tiny, {name: value})


# Data


def test_scenes_are_what_they_say(batch):
    dataset = audiotoken.held_out(small, progress=False)
    clip, example = dataset.items[1], dataset[1]
    assert example.label == clip.label == "bell" and example.prompt == f"a photo of {clip.caption}"
    expected = torch.from_numpy(clip.scene.sound(16000).mean(axis=0))
    assert torch.allclose(example.waveform, expected, atol=2**-16)
    assert torch.allclose(example.fbank, beats_fbank(example.waveform), atol=1e-5)
    frame = torch.from_numpy(clip.scene.frame(0.97, (32, 32))).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(example.image, frame, atol=1e-6)
    words = [[values[i] for values, i in zip(audiotoken.CLASSES.values(), row, strict=True)] for row in batch.classes]
    assert all(" ".join(["a photo of a", *row[1:]]) in prompt for row, prompt in zip(words, batch.prompt, strict=True))
    assert [row[0] for row in words] == batch.label == list(clips.KINDS)


def test_training_draws_moments_words_and_beginnings_by_seed_and_epoch():
    dataset = audiotoken.data(at("diffusion", word_dropout=0.5, caption_dropout=0.2), progress=False)

    def seen(epoch):
        dataset.set_epoch(epoch)
        return [dataset[index] for index in range(16)]

    first, again, other = seen(0), seen(0), seen(1)
    assert [e.prompt for e in first] == [e.prompt for e in again] != [e.prompt for e in other]
    assert all(torch.equal(a.waveform, b.waveform) for a, b in zip(first, again, strict=True))
    prompts = {e.prompt for epoch in range(8) for e in seen(epoch)}
    assert "" in prompts and "a photo of bell" in prompts and "a photo of a bell" in prompts
    train, held = (
        {clip.scene.seed for clip in made.items} for made in (dataset, audiotoken.held_out(small, progress=False))
    )
    assert not train & held


# Steps


@pytest.mark.parametrize("cosine", [False, True])
def test_the_step_is_the_published_loss(model, batch, cosine):
    """Against one sound at a time, the token written into the table of words, as the published inference does."""
    weights = {"lambda_a": 0.02, "lambda_b": 0.003, "lambda_c": 0.4, "cosine_loss": cosine, "lowest": 300}
    settings = changed(small, weights)
    torch.manual_seed(1)
    loss, _ = audiotoken.step(model, batch, settings)

    torch.manual_seed(1)
    times = (300 + torch.rand(8) * 700).long()
    noise = torch.distributions.Normal(0, 1).icdf(torch.rand(8, 12, 8, 8))
    painter, scheduler = model.painter, model.painter.scheduler
    alphas = scheduler.alphas_cumprod[times][:, None, None, None]
    latents = painter.vae.encode(batch.image).latent_dist.mean * painter.vae.config.scaling_factor
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    tokens = model.embedder(model.beats.features(batch.waveform, (0, 1, 2)))
    table, text_encoder = painter.text_encoder.get_input_embeddings(), painter.text_encoder
    kept, errors, cosines = table.weight.clone(), [], []
    word = painter.tokenizer("zebra").input_ids[1]  # a letter that no prompt has
    for row in range(8):
        ids = painter.tokenizer("a photo of", padding="max_length", max_length=16, return_tensors="pt").input_ids
        ids[0, 4] = word
        with torch.no_grad():
            table.weight[word] = tokens[row]
            hidden = text_encoder(ids).last_hidden_state
            table.weight.copy_(kept)
        predicted = painter.unet(noisy[row : row + 1], times[row], hidden).sample
        errors.append((predicted - latents[row]).square().mean())
        label = kept[painter.tokenizer(batch.label[row]).input_ids[1:-1]].mean(dim=0)
        cosines.append((tokens[row] @ label) / tokens[row].norm() / label.norm())
    expected = sum(errors) / 8 + 0.02 * tokens.abs().mean() + 0.003 * (tokens**2).sum(dim=1).mean()
    if cosine:
        expected = expected + 0.4 * (1 - sum(cosines) / 8) ** 2
    assert torch.allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_other_targets(model, batch, kind):
    painter = model.painter
    painter.scheduler.register_to_config(prediction_type=kind)
    painter.__dict__.pop("noise_scheduler", None)
    hidden = model.encode_prompts("a photo of <*>", model.token(batch.waveform))
    torch.manual_seed(2)
    found = audiotoken.denoising_error(painter, batch.image, hidden)
    torch.manual_seed(2)
    times = (torch.rand(8) * 1000).long()
    noise = torch.distributions.Normal(0, 1).icdf(torch.rand(8, 12, 8, 8))
    alphas = painter.scheduler.alphas_cumprod[times][:, None, None, None]
    latents = painter.encode(batch.image)
    predicted = painter.unet(alphas.sqrt() * latents + (1 - alphas).sqrt() * noise, times, hidden).sample
    target = noise if kind == "epsilon" else alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    assert torch.allclose(found, (predicted - target).square().mean(), rtol=1e-4)


def test_a_clip_without_a_label_cannot_be_drawn_to_its_word(model, batch):
    with pytest.raises(ParameterError, match=r"cosine_loss.*without a label"):
        audiotoken.step(model, batch._replace(label=[""] * 8), changed(small, {"cosine_loss": True}))


def test_gradients_reach_the_embedder_alone_and_nothing_else_changes(model, batch):
    frozen = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("embedder")}
    begun = [parameter.clone() for parameter in model.embedder.parameters()]
    dataset = audiotoken.data(small, progress=False)
    training.fit(model, partial(audiotoken.step, settings=small), dataset, small.embedder.training, progress=False)
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], before) and now[name].grad is None for name, before in frozen.items())
    assert not all(torch.equal(a, b) for a, b in zip(begun, model.embedder.parameters(), strict=True))
    model.train()
    assert model.embedder.training and not any(m.training for m in (model.beats, model.painter, model.painter.unet))
    assert all(name.startswith("embedder.") for name in model.state_dict())


def test_lora_is_trained_too_saved_and_read():
    settings = changed(small, {"lora_rank": 2})
    model, _, folder = audiotoken.trained(settings, progress=False)
    parameters = lora_parameters(model.painter.unet)
    assert any(bool(p.detach().any()) for p in parameters[1::2]), "the second layers begin with zeros"
    again = audiotoken.trained(settings, progress=False).model
    assert all(torch.equal(a, b) for a, b in zip(parameters, lora_parameters(again.painter.unet), strict=True))
    plain = audiotoken.assembled(small, embedder=folder / "embedder", progress=False)
    given = audiotoken.assembled(small, embedder=folder / "embedder", lora=folder / "lora", progress=False)
    assert not lora_parameters(plain.painter.unet) and len(lora_parameters(given.painter.unet)) == len(parameters)


# Training that is done once


def test_each_stage_is_trained_once_and_then_read(whole, monkeypatch):
    calls = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **kwargs: calls.append(1) or fit(*args, **kwargs))
    again = audiotoken.trained(small, progress=False)
    assert not calls and again.folder == whole.folder and len(again.history) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))
    assert again.model.sampling == small.sampling
    assert not again.model.training and "held-out loss" in again.history.rows[-1]
    for stage, kind in (("classifier", BEATs), ("diffusion", TextToImage)):
        part = audiotoken.trained(at(stage), progress=False)
        assert isinstance(part.model, kind) and len(part.history) == 2
    audiotoken.trained(changed(small, {"embedder.training.steps": 3}), progress=False)
    assert len(calls) == 1, "another embedder needs no other text-to-image model"
    audiotoken.trained(at("classifier", **{"embedder.training.steps": 9}), progress=False)
    assert len(calls) == 1


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path, whole):
    dataset = audiotoken.data(small, progress=False)
    how = replace(small.embedder.training, steps=4, save_every=1)
    straight, stopped = (audiotoken.build(small, progress=False) for _ in range(2))
    used = partial(audiotoken.step, settings=small)
    training.fit(straight, used, dataset, how, folder=tmp_path / "a", progress=False)
    seen = []

    def failing(model, batch):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return used(model, batch)

    with pytest.raises(KeyboardInterrupt):
        training.fit(stopped, failing, dataset, how, folder=tmp_path / "b", progress=False)
    fresh = audiotoken.build(small, progress=False)
    training.fit(fresh, used, dataset, how, folder=tmp_path / "b", progress=False)
    weights = fresh.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in straight.state_dict().items())
    size = sum(path.stat().st_size for path in (tmp_path / "a").rglob("model.safetensors"))
    assert size < 4 * sum(p.numel() for p in straight.parameters()), "the frozen parts are not written"


def test_figures_of_every_stage(whole):
    three = [f"{name} right" for name in ("kind", "size", "colour")]
    expected = {
        "classifier": ["kind right, audio"],
        "image_classifier": [*(f"{name}, true image" for name in three), "R@10 audio -> image"],
        "diffusion": ["kind right, true image", *(f"{name}, from captions" for name in three)],
        "embedder": [
            "kind right, true image",
            *(f"{name}, from captions" for name in three),
            *(f"{name}, from audio" for name in three),
            "AIS",
            "IIS",
            *(f"{name}, from other audio" for name in three),
        ],
    }
    for stage, names in expected.items():
        settings = at(stage)
        figures = audiotoken.evaluate(audiotoken.trained(settings, progress=False).model, settings, progress=False)
        assert list(figures) == names
        shares = [figure for figure in figures.values() if figure.low is not None]
        assert len(shares) + 2 * (stage == "embedder") == len(figures)
        assert all(0 <= figure.value <= 1 and figure.low <= figure.value for figure in shares)
    assert figures["kind right, from audio"].reference == 0.125


def test_the_users_clips_are_trained_on(tmp_path, whole):
    for clip in clips.render(clips.scenes(4, 7, 2.2), size=(64, 64), jobs=1, progress=False):
        (tmp_path / clip.scene.kind).mkdir()
        shutil.copy(clip.path, tmp_path / clip.scene.kind)
    settings = changed(small, {"data": str(tmp_path), "cosine_loss": True, "batch_size": 2, "held_out": None})
    learned, unseen = ({str(c) for c in made(settings).items} for made in (audiotoken.data, audiotoken.held_out))
    assert len(learned) == len(unseen) == 2 and not learned & unseen
    model, history, folder = audiotoken.trained(settings, progress=False)
    assert len(history) == 2
    model.train()
    figures = audiotoken.evaluate(model, settings, progress=False)
    assert model.training and model.embedder.training and not model.beats.training  # as before
    assert list(figures) == ["error"] and figures["error"].value > 0
    assert figures["error"].meaning == "with the audio of another clip"
    alone = changed(settings, {"data": str(next((tmp_path / "bell").iterdir())), "cosine_loss": False})
    assert [len(made(alone)) for made in (audiotoken.data, audiotoken.held_out)] == [1, 1]
    figures = audiotoken.evaluate(model, alone, progress=False)
    assert figures["error"].meaning == "with silence" and figures["error"].value != figures["error"].reference
    (tmp_path / "bell" / next((tmp_path / "bell").iterdir()).name).touch()
    assert audiotoken.trained(settings, progress=False).folder != folder


def test_settings_that_change_no_weights_train_nothing_anew(whole):
    free = {"held_out": 9, "workers": 0, "log_every": 2, "inference_steps": 3, "image_classifier.width": 5}
    assert audiotoken.trained(changed(small, free), progress=False).folder == whole.folder
    chosen = {"best": True, "monitor": "held-out loss", "evaluate_every": 1}
    recipes = [audiotoken.stages["embedder"].recipe(changed(small, {"held_out": n} | chosen)) for n in (8, 9)]
    assert recipes[0] != recipes[1], "the best weights depend on the clips that choose them"


def test_the_command_extracts_sounds(tmp_path, capsys):
    (clip,) = clips.render(clips.scenes(1, 7, 1.0), size=(64, 64), jobs=1, progress=False)
    (tmp_path / "video").mkdir()
    shutil.copy(clip.path, tmp_path / "video" / "one.mp4")
    given = ["--data", str(tmp_path), "--out", str(tmp_path / "audio"), "--jobs", "1"]
    assert main(["extract_audio", *given]) == 0 and "0 of 1 items left out" in capsys.readouterr().out
    (tmp_path / "video" / "two.mp4").write_bytes(b"nothing")
    assert main(["extract_audio", *given]) == 2 and "two.mp4" in capsys.readouterr().err
    assert main(["extract_audio", *given, "--on-error", "skip"]) == 0
    assert [path.name for path in (tmp_path / "audio").iterdir()] == ["one.wav"]


def test_the_command_trains_the_row(whole, tmp_path, capsys):
    given = [word for name, value in SMALL.items() for word in ("-p", f"{name}={value}")]
    assert main(["train", "audiotoken", *given, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "audiotoken, tiny, embedder: 2 steps" in said and "kind right, from other audio" in said
    facts = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert facts["kind right, from audio"]["reference"] == 0.125
    assert (tmp_path / "out" / "embedder" / "model.safetensors").exists()


# The assembled system


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Files in the published formats: a BEATs, an embedder and a Stable Diffusion."""
    folder = tmp_path_factory.mktemp("published")
    return folder, published_files(folder)


def test_published_files_are_assembled(published):
    _, given = published
    model = audiotoken.assembled(**given, progress=False)
    assert model.layers == (3, 7, 11) and not model.training
    waveform = 0.1 * torch.randn(2, 16000)
    with torch.no_grad():
        tokens = model.token(waveform)
        features = BEATs.from_checkpoint(given["checkpoint"]).eval().features(waveform)
        expected = AudioTokenEmbedder.from_checkpoint(given["embedder"]).eval()(features)
    assert torch.allclose(tokens, expected, atol=1e-6)
    assert model.encode_prompts("a photo of <*>, 4k", tokens).shape == (2, 77, 12)
    pictures = model.pictures("a photo of <*>", tokens, steps=2)
    assert pictures.shape == (2, 3, 16, 16) and pictures.min() >= 0 and pictures.max() <= 1
    assert model.sampling == audiotoken.full.sampling
    assert isinstance(model.painter.pipeline, diffusers.StableDiffusionPipeline)
    assert (
        model.painter.pipeline.unet is model.painter.unet
        and model.painter.pipeline.vae.config.scaling_factor == 0.18215
    )
    # what is assembled draws what the pipeline draws, given the same
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)).expand(2, -1, -1, -1)
    given_words = {"prompt_embeds": model.encode_prompts("a photo of <*>", tokens), "negative_prompt": ["", ""]}
    with torch.no_grad():
        direct = model.painter.pipeline(
            **given_words, latents=noise, num_inference_steps=3, guidance_scale=4, output_type="pt"
        )
    assert torch.allclose(model.pictures("a photo of <*>", tokens, 3, 3, 4), direct.images, atol=1e-5)


def test_lora_of_a_file_changes_pictures(published, tmp_path):
    folder, given = published
    painter = TextToImage.from_pretrained(folder / "sd")
    for parameter in add_lora(painter.unet, 2):
        torch.nn.init.normal_(parameter)
    save_lora(painter.unet, tmp_path / "lora")
    plain, changed_ = (audiotoken.assembled(**given, lora=lora, progress=False) for lora in ("", tmp_path / "lora"))
    tokens = torch.randn(1, 12)
    assert not torch.allclose(*(m.pictures("a photo of <*>", tokens, steps=2) for m in (plain, changed_)), atol=1e-3)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
def test_a_folder_that_lacks_a_part_is_refused_by_its_name(published, tmp_path, part):
    folder, given = published
    broken = tmp_path / "sd"
    shutil.copytree(folder / "sd", broken)
    shutil.rmtree(broken / part)
    with pytest.raises(CheckpointError, match=f"has no {part}"):
        audiotoken.assembled(**{**given, "diffusion": broken}, progress=False)
    (broken / part).mkdir()
    with pytest.raises(CheckpointError, match=rf"{part}: has no \w*config.json"):
        TextToImage.from_pretrained(broken)


def test_other_wrong_folders(published, tmp_path):
    folder, _ = published
    with pytest.raises(CheckpointError, match="no such file or folder"):
        TextToImage.from_pretrained(tmp_path / "nothing")
    broken = tmp_path / "sd"
    shutil.copytree(folder / "sd", broken)
    next((broken / "unet").glob("*.safetensors")).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="unet: cannot be read"):
        TextToImage.from_pretrained(broken)
    next((broken / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="unet: has no weights"):
        TextToImage.from_pretrained(broken)
    settings = broken / "vae" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"_class_name": "Path"}))
    shutil.copy(folder / "sd/unet/diffusion_pytorch_model.safetensors", broken / "unet")
    with pytest.raises(CheckpointError, match="'Path'"):
        TextToImage.from_pretrained(broken)


def test_only_a_hub_id_is_fetched(published, monkeypatch):
    folder, asked = published[0] / "sd", []

    def fetch(source, **patterns):
        asked.append(source)
        if source == "owner/nothing":
            raise OSError("no network")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    TextToImage.from_pretrained(folder)
    assert not asked
    assert TextToImage.from_pretrained("owner/name").unet.config.cross_attention_dim == 12 and asked == ["owner/name"]
    with pytest.raises(CheckpointError, match=r"is no file or folder, and cannot be fetched \(no network\)"):
        TextToImage.from_pretrained("owner/nothing")


def test_parts_that_do_not_belong_together_are_refused(published, whole, tmp_path):
    _, given = published
    with pytest.raises(ParameterError, match="embedder: none is given"):
        audiotoken.assembled(small, diffusion=given["diffusion"], progress=False)
    with pytest.raises(CheckpointError, match="takes features 24 wide; expected 48"):
        audiotoken.assembled(small, embedder=given["embedder"], progress=False)
    published_folder(tmp_path / "wider", 16)
    with pytest.raises(CheckpointError, match="gives tokens 12 wide; expected 16"):
        audiotoken.assembled(**{**given, "diffusion": tmp_path / "wider"}, progress=False)


def test_the_published_models_are_trained_with(published):
    _, given = published
    settings = changed(small, {
        "checkpoint": str(given["checkpoint"]), "folder": str(given["diffusion"]), "image_size": [16, 16]
    })  # fmt: skip
    model, history, _ = audiotoken.trained(settings, progress=False)
    assert len(history) == 2 and model.embedder.in_width == 24 and model.embedder.width == 12


def test_what_only_others_could_train_has_to_be_given(published):
    with pytest.raises(ParameterError, match=r"checkpoint: none is given.*527 classes"):
        audiotoken.trained(audiotoken.full, progress=False)
    given = changed(small, {"checkpoint": str(published[1]["checkpoint"]), "stage": "classifier"})
    with pytest.raises(ParameterError, match="stage: 'classifier', whose model is given"):
        audiotoken.trained(given, progress=False)
    with pytest.raises(ParameterError, match=r"folder: none is given.*stable-diffusion-v1-4"):
        audiotoken.trained(changed(audiotoken.full, {"checkpoint": str(published[1]["checkpoint"])}), progress=False)


def test_one_seed_gives_one_noise_and_a_batch_is_one_by_one(model, batch):
    with torch.no_grad():
        tokens = model.token(batch.waveform[:3])
    same = model.pictures("a photo of <*>", tokens[:1].expand(2, -1), steps=3, guidance=2)
    assert torch.allclose(same[0], same[1], atol=1e-5)
    together = model.pictures("a photo of <*>", tokens, steps=3, guidance=2)
    singly = torch.cat([model.pictures("a photo of <*>", token[None], steps=3, guidance=2) for token in tokens])
    assert torch.allclose(together, singly, atol=1e-5)
    assert torch.equal(together, model.pictures("a photo of <*>", tokens, steps=3, guidance=2))
    assert not torch.allclose(together, model.pictures("a photo of <*>", tokens, 1, 3, 2), atol=1e-3)
    hidden = model.encode_prompts("a photo of <*>", tokens)
    each = model.painter.generate(hidden, [0, 1, 0], 3, 2)
    assert torch.allclose(each[[0, 2]], together[[0, 2]], atol=1e-5)
    assert torch.allclose(each[1], model.painter.generate(hidden, 1, 3, 2)[1], atol=1e-5)


def test_prompts_of_words_and_sound(model, batch):
    with torch.no_grad():
        tokens = model.token(batch.waveform[:2])
        words, heard = model.encode_prompts(["a photo of a ball"] * 2), model.encode_prompts("a large <*>", tokens)
        pictures = model.generate(0.5 * words + 0.5 * heard, steps=2)
    assert words.shape == heard.shape == (2, 16, 16) and pictures.shape == (2, 3, 32, 32)
    with pytest.raises(ParameterError, match=r"has no <\*>"):
        model.pictures("a photo", tokens)
    with pytest.raises(ParameterError, match=r"has 2 <\*>"):
        model.pictures("<*> and <*>", tokens)


def test_a_padded_sound_gives_the_token_that_it_gives_alone(model, batch):
    short = batch.waveform[:1, :16000]
    padded = torch.cat([F.pad(short, (0, batch.waveform.shape[1] - 16000), value=0.3), batch.waveform[1:2]])
    with torch.no_grad():
        tokens = model.token(padded, torch.tensor([16000, padded.shape[1]]))
        assert torch.allclose(tokens[0], model.token(short)[0], atol=1e-5)
        assert torch.allclose(tokens[1], model.token(batch.waveform[1:2])[0], atol=1e-5)


def test_windows_of_a_long_clip():
    waveform = torch.arange(16000 * 5.2).float()
    pieces = audiotoken.windows(waveform, 2.0)
    assert pieces.starts == [0, 2, 4] and pieces.lengths.tolist() == [32000, 32000, 19200]
    assert torch.equal(pieces.waveform[1], waveform[32000:64000]) and not pieces.waveform[2, 19200:].any()
    assert audiotoken.windows(waveform[: 16000 * 4 + 15999], 2.0).starts == [0, 2]
    assert audiotoken.windows(waveform[: 16000 * 5], 2.0, 0.5).starts == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    with pytest.raises(TooShortError, match="at least half a window, 1 s"):
        audiotoken.windows(waveform[:15999], 2.0)
    with pytest.raises(ParameterError, match="hop"):
        audiotoken.windows(waveform, 2.0, 0)


def test_the_layers_that_are_heard():
    for depth, expected in ((12, (3, 7, 11)), (3, (0, 1, 2)), (6, (1, 3, 5)), (4, (1, 2, 3)), (1, (0, 0, 0))):
        config = Config(encoder_layers=depth, encoder_embed_dim=8, encoder_attention_heads=2, conv_pos_groups=2)
        with torch.device("meta"):
            assert audiotoken.feature_layers(BEATs(config)) == expected
