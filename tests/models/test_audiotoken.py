"""AudioToken's own parts: pooling with all pairs written out, the token in the table of words, LoRA added up."""

import hashlib
import json
import math
import os
import string
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from diffusers import UNet2DConditionModel
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from avlib.errors import CheckpointError, ParameterError, ShapeError
from avlib.models.audiotoken import (
    PLACEHOLDER,
    AudioTokenEmbedder,
    add_lora,
    insert_tokens,
    load_lora,
    lora_parameters,
    placeholder_id,
    prompt_embeddings,
    prompt_ids,
    save_lora,
    token_width,
)

IN_WIDTH, WIDTH = 36, 24
LORA_FILE = "pytorch_lora_weights.safetensors"


def reference():
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "audiotoken_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    return json.loads(path.read_text())


def fingerprint(named):
    lines = sorted(f"{name} {list(shape)}" for name, shape in named.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def furthest(found, expected):
    return float((found.double() - expected.double()).detach().abs().max())


# The embedder


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    model = AudioTokenEmbedder(IN_WIDTH, WIDTH).eval()
    with torch.no_grad():
        model.fga.reduce_potentials[0].weight.copy_(torch.tensor([3.0, 20.0])[None, :, None])  # weights that differ
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def features():
    return torch.randn(3, 40, IN_WIDTH, generator=torch.Generator().manual_seed(1))


def slow_weights(model, features, keep=None):
    """Of one sound; reference section 3, in float64, with the cosine of every pair. `keep`: dropout's, (width, N)."""
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}

    def linear(name, x):
        return x @ state[f"{name}.weight"].reshape(len(state[f"{name}.weight"]), -1).T + state[f"{name}.bias"]

    hidden = linear("fc1", features.double())
    a = linear("fc2", hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))
    inner = linear("fga.un_models.0.embed", a).clamp(min=0)
    inner = inner if keep is None else inner * keep.T * 2
    unary = linear("fga.un_models.0.feature_reduce", inner)[:, 0]
    x, y = (linear(f"fga.pp_models.0.embed_{name}", a) for name in "XY")
    cosines = [[xi @ yj / (xi.norm() * yj.norm()) for yj in y] for xi in x]
    pairwise = torch.stack([torch.stack(row).mean() for row in cosines])
    reduce = state["fga.reduce_potentials.0.weight"].flatten()
    potential = (reduce[0] * unary + reduce[1] * pairwise).exp()
    return a, potential / potential.sum()


def test_token_and_weights_equal_the_slow_ones(embedder, features):
    token, weights = embedder(features), embedder.weights(features)
    assert token.shape == (3, WIDTH) and weights.shape == (3, 40)
    for row in range(3):
        a, expected = slow_weights(embedder, features[row])
        assert expected.max() > 2 / 40  # not all alike
        assert furthest(weights[row], expected) < 1e-6
        assert furthest(token[row], sum(w * ai for w, ai in zip(expected, a, strict=True))) < 1e-6


def test_published_size_equals_the_slow_one():
    torch.manual_seed(0)
    model = AudioTokenEmbedder().eval().requires_grad_(False)
    features = torch.randn(1, 16, 2304)
    a, weights = slow_weights(model, features[0])
    assert furthest(model.weights(features)[0], weights) < 1e-6
    assert furthest(model(features)[0], weights @ a) < 1e-5


@pytest.mark.parametrize("content", [0.0, 100.0, math.nan])
def test_padding_is_not_listened_to(embedder, features, content):
    lengths = [40, 8, 25]
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    padded = features.masked_fill(~mask[..., None], content)
    token, weights = embedder(padded, mask), embedder.weights(padded, mask)
    for row, length in enumerate(lengths):
        alone = features[row : row + 1, :length]
        assert furthest(token[row], embedder(alone)[0]) < 1e-6
        assert furthest(weights[row, :length], embedder.weights(alone)[0]) < 1e-6
        assert not weights[row, length:].any()
    nothing = embedder(features, torch.zeros(3, 40, dtype=torch.bool))
    assert nothing.isfinite().all()


def test_the_order_of_tokens_does_not_matter(embedder, features):
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(embedder(features[:, order]), embedder(features), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(embedder.weights(features[:, order]), embedder.weights(features)[:, order])


def test_dropout_is_for_training_or_as_published(embedder, features):
    assert torch.equal(embedder(features), embedder(features))
    published = AudioTokenEmbedder(IN_WIDTH, WIDTH, reference_dropout=True).eval()
    published.load_state_dict(embedder.state_dict())
    assert not torch.equal(published(features), published(features))
    embedder.train()
    torch.manual_seed(5)
    training = embedder.weights(features[:1])
    embedder.eval()
    torch.manual_seed(5)
    assert torch.equal(published.weights(features[:1]), training)
    torch.manual_seed(5)
    keep = torch.nn.functional.dropout(torch.ones(1, WIDTH, 40), 0.5)[0] > 0
    assert 0.4 < keep.float().mean() < 0.6
    assert furthest(training[0], slow_weights(embedder, features[0], keep)[1]) < 1e-6


def test_gradients_reach_every_parameter(features):
    torch.manual_seed(0)
    model = AudioTokenEmbedder(IN_WIDTH, WIDTH)
    given = features.clone().requires_grad_()
    model(given).square().sum().backward()
    largest = {name: float(parameter.grad.abs().max()) for name, parameter in model.named_parameters()}
    assert largest.pop("fga.un_models.0.feature_reduce.bias") < 1e-6  # a softmax does not feel what is added to all
    assert min(largest.values()) > 1e-5
    assert given.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_embedder_keeps_the_dtype(embedder, features, dtype):
    model = AudioTokenEmbedder(IN_WIDTH, WIDTH).eval().to(dtype)
    model.load_state_dict(embedder.state_dict())
    token = model(features.to(dtype), torch.arange(40).expand(3, 40) < 30)
    assert token.dtype == dtype
    expected = embedder(features, torch.arange(40).expand(3, 40) < 30)
    assert furthest(token, expected) < (0.05 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize(
    ("width", "total", "digest"), [(768, 8_853_507, "143b015810541001"), (1024, 10_820_867, "cbae8ebdfa1086a3")]
)
def test_published_parameters(width, total, digest):
    with torch.device("meta"):
        model = AudioTokenEmbedder(width=width)
    names = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert (sum(p.numel() for p in model.parameters()), fingerprint(names)) == (total, digest)
    lists = reference()
    assert names == (lists["embedder"] if width == 768 else lists["notes"]["embedder_for_1024"])


def test_embedder_from_a_published_file_and_from_its_copy(embedder, features, tmp_path):
    torch.save(embedder.state_dict(), tmp_path / "embedder_learned_embeds.bin")
    model = AudioTokenEmbedder.from_checkpoint(tmp_path / "embedder_learned_embeds.bin").eval()
    assert (model.in_width, model.width, model.reference_dropout) == (IN_WIDTH, WIDTH, False)
    assert torch.equal(model(features), embedder(features))
    path = tmp_path / "embedder_learned_embeds.bin"
    published = AudioTokenEmbedder.from_checkpoint(path, reference_dropout=True)
    published.save(tmp_path / "own")
    assert AudioTokenEmbedder.from_checkpoint(tmp_path / "own").reference_dropout is True
    again = AudioTokenEmbedder.from_checkpoint(tmp_path / "own", reference_dropout=False).eval()
    assert torch.equal(again(features), embedder(features))


def test_embedder_files_that_are_refused(embedder, tmp_path):
    state, path = embedder.state_dict(), tmp_path / "embedder.bin"
    prefixed = {f"embedder.{name}": tensor for name, tensor in state.items()}
    beats = {"encoder.layers.0.self_attn.grep_a": torch.ones(1), "post_extract_proj.weight": torch.ones(1)}
    for content, words in (
        (prefixed, r"13 missing \(fc1\.weight.*13 unexpected \(embedder\.fc1"),
        ({name: tensor for name, tensor in state.items() if name != "fc2.bias"}, r"1 missing \(fc2\.bias\)"),
        (state | {"fc1.bias": torch.ones(7)}, r"1 of another shape \(fc1\.bias is \(7,\) for \(36,\)\)"),
        (beats, r"13 missing.*The file seems to be BEATs\."),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            AudioTokenEmbedder.from_checkpoint(path)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in AudioTokenEmbedder().state_dict().items()}
    full = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name in ("fc1.weight", "fc2.weight"):  # a single odd tensor is named; it is not taken for a width
        torch.save(full | {name: full[name][:-1, :-1].clone()}, path)
        with pytest.raises(CheckpointError, match=rf"model: 1 of another shape \({name} is"):
            AudioTokenEmbedder.from_checkpoint(path)
    torch.save({**state, "what": object}, path)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        AudioTokenEmbedder.from_checkpoint(path)


def test_embedder_refuses_other_shapes(embedder, features):
    with pytest.raises(ShapeError, match="features: 24 wide; expected 36, as the embedder"):
        embedder(features[..., :24])
    with pytest.raises(Exception, match="mask"):
        embedder.weights(features[:, :39], torch.ones(3, 40, dtype=torch.bool))
    with pytest.raises(ParameterError, match="width: 0"):
        AudioTokenEmbedder(width=0)


# Into the text encoder


def tokenizer():
    """Letters one by one, and CLIP's first and last token."""
    words = [*string.printable[:94], *(f"{letter}</w>" for letter in string.printable[:94])]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def text_encoder(eos=189):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=190,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=188,
        eos_token_id=eos,
        pad_token_id=189,
    )
    model = CLIPTextModel(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return model


PROMPTS = ["a photo of <*>", "<*>, 4k, high resolution", "a dog and <*> and a cat"]


@pytest.fixture
def tokens():
    return torch.randn(3, 16, generator=torch.Generator().manual_seed(3))


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_ids_of_prompts():
    words = tokenizer()
    ids = prompt_ids(words, PROMPTS)
    assert ids.shape == (3, 77) and ids.dtype == torch.int64
    place = placeholder_id(words)
    assert place == 190 and len(words) == 191  # the first free one
    for prompt, row in zip(PROMPTS, ids, strict=True):
        parts = [tokenizer()(part, add_special_tokens=False).input_ids for part in prompt.split("<*>")]
        expected = [188, *parts[0], 190, *parts[1], 189]
        assert row.tolist() == expected + [189] * (77 - len(expected))
    assert torch.equal(prompt_ids(words, PROMPTS[0]), ids[:1]) and len(words) == 191
    assert prompt_ids(words, "a <sound>", placeholder="<sound>")[0, 2] == 191


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (["a <*>", "a dog"], "'a dog' has no <\\*>; expected exactly one"),
        ("<*> and <*>", "has 2 <\\*>; expected exactly one"),
        ("x" * 80 + " <*>", "has 1 <\\*>, of which 0 within the first 77 tokens"),
        ([], "prompts: none"),
    ],
)
def test_prompts_that_are_refused(prompts, words):
    with pytest.raises(ParameterError, match=words):
        prompt_ids(tokenizer(), prompts)


@pytest.mark.parametrize("eos", [189, 2])
def test_what_is_read_equals_what_a_table_with_the_token_gives(tokens, eos):
    """The published inference: a longer table, the token as its last row; one sentence at a time."""
    words, model = tokenizer(), text_encoder(eos)
    ids = prompt_ids(words, PROMPTS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with insert_tokens(model, tokens, placeholder_id(words)) as same:
        assert same is model
        read, by_place = model(input_ids=ids), model(ids)
    assert torch.equal(read.last_hidden_state, by_place.last_hidden_state)
    assert torch.equal(prompt_embeddings(model, words, PROMPTS, tokens), read.last_hidden_state)
    assert ids.max() == 190 and hooks_of(model) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for row in range(3):
        table = text_encoder(eos)
        table.resize_token_embeddings(191, mean_resizing=False)
        with torch.no_grad():
            table.get_input_embeddings().weight[190] = tokens[row]
        expected = table(input_ids=ids[row : row + 1]).last_hidden_state[0]
        assert furthest(read.last_hidden_state[row], expected) < 2e-6
        # The pooled output is at the end of the sentence, not at the placeholder, whose id is the largest.
        end = ids[row].tolist().index(189)
        assert furthest(read.pooler_output[row], expected[end]) < 2e-6


def test_one_prompt_for_many_tokens(tokens):
    words, model = tokenizer(), text_encoder()
    found = prompt_embeddings(model, words, PROMPTS[0], tokens)
    assert torch.equal(found, prompt_embeddings(model, words, [PROMPTS[0]] * 3, tokens))
    place = prompt_ids(words, PROMPTS[0])[0].tolist().index(190)
    assert furthest(found[0, :place], found[1, :place]) < 1e-6  # words before it do not hear it
    assert furthest(found[0, place:], found[1, place:]) > 0.01
    assert token_width(model) == 16


def test_gradients_reach_the_token_and_nothing_else(tokens):
    words, model = tokenizer(), text_encoder()
    given = tokens.clone().requires_grad_()
    hidden = prompt_embeddings(model, words, PROMPTS, given)
    hidden[1].square().sum().backward()
    assert given.grad[1].all() and not given.grad[[0, 2]].any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tokens_of_another_dtype(tokens):
    words, model = tokenizer(), text_encoder().bfloat16()
    assert prompt_embeddings(model, words, PROMPTS, tokens).dtype == torch.bfloat16


def test_words_can_be_looked_up_meanwhile(tokens):
    model = text_encoder()
    ids = torch.arange(5)[None]
    with insert_tokens(model, tokens, 190):
        found = model.get_input_embeddings()(ids)
    assert torch.equal(found, model.get_input_embeddings()(ids))


def test_what_is_wrong_is_said_and_nothing_stays(tokens):
    words, model = tokenizer(), text_encoder()
    ids = prompt_ids(words, PROMPTS)
    twice = ids.clone()
    twice[1, 30] = 190
    for wrong, message in (
        (ids[:2], "input_ids: 2 sentences; expected 3"),
        (ids.masked_fill(ids == 190, 7), r"sentence 0 has the placeholder \(id 190\) 0 times; expected once"),
        (twice, r"sentence 1 has the placeholder \(id 190\) 2 times"),
    ):
        with pytest.raises(ParameterError, match=message), insert_tokens(model, tokens, 190):
            model(input_ids=wrong)
        assert hooks_of(model) == 0
    with (
        pytest.raises(ShapeError, match=r"tokens: 15 wide; expected 16.*AudioTokenEmbedder\(width=16\)"),
        insert_tokens(model, tokens[:, :15], 190),
    ):
        pass
    assert hooks_of(model) == 0
    plain = model(input_ids=ids.masked_fill(ids == 190, 7)).last_hidden_state
    assert plain.isfinite().all()


# LoRA


def tiny_unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
    ).eval()


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


@pytest.fixture(scope="module")
def given():
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.tensor([3, 700]),
        torch.randn(2, 7, 16, generator=generator),
    )


def drawn(unet, given):
    with torch.no_grad():
        return unet(*given).sample


def changes(unet, rank=3, seed=4):
    """Random down and up, by the name of the linear layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            0.3 * torch.randn(rank, module.in_features, generator=generator),
            0.3 * torch.randn(module.out_features, rank, generator=generator),
        )
        for name, module in unet.named_modules()
        if ".attn" in name and isinstance(module, torch.nn.Linear)
    }


def added_up(given, low_rank, scale=1.0):
    """What a UNet draws whose weights are W + up @ down."""
    unet = tiny_unet()
    with torch.no_grad():
        for name, (down, up) in low_rank.items():
            unet.get_submodule(name).weight += scale * up @ down
    return drawn(unet, given)


def in_2023(low_rank):
    def old(name):
        attention, layer = name.rsplit(".attn", 1)
        number, layer = layer.split(".", 1)
        return f"{attention}.attn{number}.processor.{layer.removesuffix('.0')}_lora"

    return {
        f"{old(name)}.{part}.weight": tensor
        for name, pair in low_rank.items()
        for part, tensor in zip(("down", "up"), pair, strict=True)
    }


def today(low_rank, prefix="unet.", parts=("lora_A", "lora_B")):
    return {
        f"{prefix}{name}.{part}.weight": tensor
        for name, pair in low_rank.items()
        for part, tensor in zip(parts, pair, strict=True)
    }


def test_lora_starts_as_no_change_and_can_be_trained_and_removed(given):
    unet = tiny_unet().requires_grad_(False)
    plain, names = drawn(unet, given), list(unet.state_dict())
    parameters = add_lora(unet, rank=2)
    assert len(parameters) == 4 * 2 * 4 * 2 and all(parameter.requires_grad for parameter in parameters)
    assert torch.equal(drawn(unet, given), plain)
    unet(*given).sample.square().sum().backward()
    ups = [parameter for parameter in parameters if parameter.shape[1] == 2]
    assert all(parameter.grad.any() for parameter in ups)
    assert all((parameter.grad is None) or parameter.requires_grad for parameter in unet.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1
    assert furthest(drawn(unet, given), plain) > 1e-3
    with pytest.raises(ParameterError, match="has LoRA already"):
        add_lora(unet)
    unet.unload_lora()
    assert list(unet.state_dict()) == names and lora_parameters(unet) == []
    assert torch.equal(drawn(unet, given), plain)


@pytest.mark.parametrize("form", ["2023", "today", "today without prefix", "between"])
def test_lora_files_of_all_times(unet, given, tmp_path, form):
    low_rank = changes(unet)
    if form == "2023":
        path = tmp_path / "lora_layers_learned_embeds.bin"
        torch.save(in_2023(low_rank), path)
    else:
        path = tmp_path / "pytorch_lora_weights.safetensors"
        how = {"today": {}, "today without prefix": {"prefix": ""}, "between": {"parts": ("lora.down", "lora.up")}}
        save_file(today(low_rank, **how[form]), path)
        path = tmp_path if form == "today" else path
    model = tiny_unet()
    parameters = load_lora(model, path)
    assert len(parameters) == 2 * len(low_rank)
    expected = added_up(given, low_rank)
    assert furthest(expected, drawn(unet, given)) > 1e-2
    assert furthest(drawn(model, given), expected) < 1e-5
    assert len(load_lora(model, path)) == len(parameters) and furthest(drawn(model, given), expected) < 1e-5


def test_alpha_of_peft_counts(unet, given, tmp_path):
    low_rank = changes(unet)
    path = tmp_path / "lora.safetensors"
    for written in ({"lora_alpha": 6, "r": 3}, {"unet.lora_alpha": 6}):
        save_file(today(low_rank), path, {"format": "pt", "lora_adapter_metadata": json.dumps(written)})
        model = tiny_unet()
        load_lora(model, path)
        assert furthest(drawn(model, given), added_up(given, low_rank, 2.0)) < 1e-5


@pytest.mark.parametrize("name", ["lora.safetensors", "folder"])
def test_lora_is_saved_under_todays_names(unet, given, tmp_path, name):
    low_rank = changes(unet)
    torch.save(in_2023(low_rank), tmp_path / "old.bin")
    model = tiny_unet()
    load_lora(model, tmp_path / "old.bin")
    save_lora(model, tmp_path / name)
    file = tmp_path / name
    file = file / "pytorch_lora_weights.safetensors" if name == "folder" else file
    written, expected = load_file(file), today(low_rank)
    assert written.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in written.items())
    other = tiny_unet()
    load_lora(other, tmp_path / name)
    assert torch.equal(drawn(other, given), drawn(model, given))


def test_diffusers_reads_what_is_saved_and_writes_what_is_loaded(unet, given, tmp_path):
    low_rank = changes(unet)
    torch.save(in_2023(low_rank), tmp_path / "old.bin")
    model, theirs, again = tiny_unet(), tiny_unet(), tiny_unet()
    load_lora(model, tmp_path / "old.bin")
    save_lora(model, tmp_path)
    theirs.load_lora_adapter(tmp_path, prefix="unet", adapter_name="default", weight_name=LORA_FILE)
    assert torch.equal(drawn(theirs, given), drawn(model, given))
    theirs.peft_config["default"].lora_alpha = 6  # which it writes beside the weights
    theirs.save_lora_adapter(tmp_path / "theirs")
    load_lora(again, tmp_path / "theirs")
    assert furthest(drawn(again, given), added_up(given, low_rank, 2.0)) < 1e-5


def test_published_lora():
    """Names and shapes of Stable Diffusion 1.4's UNet, whose numbers take no memory."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        parameters = add_lora(unet)
    assert sum(parameter.numel() for parameter in parameters) == 797_184
    old = {}
    for name, tensor in get_peft_model_state_dict(unet).items():
        linear, _, part = name.partition(".lora_")
        attention, layer = linear.removesuffix(".0").rsplit(".", 1)
        part = {"A": "down", "B": "up"}[part[0]]
        old[f"{attention}.processor.{layer}_lora.{part}.weight"] = list(tensor.shape)
    assert (len(old), fingerprint(old)) == (256, "3553eaab1bccc970")
    assert old == reference()["lora"]


def test_lora_that_is_refused(unet, embedder, tmp_path):
    low_rank, path = changes(unet), tmp_path / "lora.bin"
    old, first = in_2023(low_rank), next(iter(low_rank))
    other = changes(unet, rank=5)
    for content, words in (
        (embedder.state_dict(), r"holds no LoRA of attention.*seems to be an embedder of AudioToken"),
        (old | in_2023({first: other[first]}), r"has ranks \[3, 5\]"),
        (in_2023({name: pair for name, pair in low_rank.items() if name != first}), r"2 missing \(down_blocks"),
        (old | {"down_blocks.9.attn1.processor.to_q_lora.down.weight": torch.ones(3, 4)}, r"1 unexpected \(down_bl"),
        (old | {next(iter(old)): torch.ones(3, 7)}, r"1 of another shape \(.* is \(3, 7\) for \(3, 32\)"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            load_lora(unet, path)
    assert lora_parameters(unet) == []  # nothing was put in
    with pytest.raises(CheckpointError, match="No such file"):
        load_lora(unet, tmp_path / "nothing.bin")
    with pytest.raises(ParameterError, match="has no LoRA"):
        save_lora(unet, tmp_path / "x")
    with pytest.raises(ParameterError, match="rank: 0"):
        add_lora(unet, 0)
    with pytest.raises(ParameterError, match="no attention to text"):
        add_lora(torch.nn.Linear(2, 2))


def test_the_placeholder_is_the_published_one():
    assert PLACEHOLDER == "<*>"
