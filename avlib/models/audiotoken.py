"""AudioToken: audio as one word of a text-to-image model's prompt.

    waveform (B, 160000) -> BEATs -> features (B, 496, 2304) -> AudioTokenEmbedder -> token (B, 768)

    "a photo of <*>" -> prompt_ids (B, 77) -> CLIP's text encoder, in which `insert_tokens` replaces <*> by the token
          -> (B, 77, 768) -> UNet of Stable Diffusion, perhaps with `add_lora`

BEATs, the text encoder and the UNet are pretrained and frozen. Only the embedder is trained, and LoRA if any.

Source: Yariv et al., "AudioToken: Adaptation of Text-Conditioned Diffusion Models for Audio-to-Image Generation",
Interspeech 2023, arXiv 2305.13050, and its code (guyyariv/AudioToken).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import ParameterError, ShapeError
from ..features.lengths import all_hold
from . import sizes_that_fit
from .text_to_image import add_lora, load_lora, lora_parameters, save_lora  # noqa: F401, part of AudioToken's interface

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DROPOUT = 0.5

Tokens = Float[Tensor, "batch tokens values"]
Mask = Bool[Tensor, "batch tokens"]  # True = valid
Weights = Float[Tensor, "batch tokens"]
Columns = Float[Tensor, "batch width tokens"]


class Unary(nn.Module):
    """Importance of each token by itself: two linear layers, as 1x1 convolutions."""

    def __init__(self, width: int):
        super().__init__()
        self.embed, self.feature_reduce = nn.Conv1d(width, width, 1), nn.Conv1d(width, 1, 1)

    def forward(self, a: Columns, drop: bool) -> Float[Tensor, "batch 1 tokens"]:
        return self.feature_reduce(F.dropout(F.relu(self.embed(a)), DROPOUT, training=drop))


class Pairwise(nn.Module):
    """Importance of each token by its similarity to the others.

    That is the mean over all tokens j of cos(X_i, Y_j), where X and Y are two linear layers of the tokens. It equals
    the product of X_i with the mean of Y_j, which needs no table of all pairs.
    """

    def __init__(self, width: int):
        super().__init__()
        self.embed_X, self.embed_Y = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)

    def forward(self, a: Columns, valid: Bool[Tensor, "batch 1 tokens"] | None) -> Float[Tensor, "batch 1 tokens"]:
        x, y = (F.normalize(embed(a), dim=1) for embed in (self.embed_X, self.embed_Y))  # (B, 768, N), each of length 1
        if valid is None:
            mean = y.mean(dim=2, keepdim=True)  # (B, 768, 1)
        else:
            mean = y.masked_fill(~valid, 0).sum(dim=2, keepdim=True) / valid.sum(dim=2, keepdim=True)
        return (x * mean).sum(dim=1, keepdim=True)


class Pooling(nn.Module):
    """Factor graph attention (Schwartz et al., 2019) with two potentials. Published: `Atten`."""

    def __init__(self, width: int):
        super().__init__()
        self.un_models = nn.ModuleList([Unary(width)])
        self.pp_models = nn.ModuleList([Pairwise(width)])
        self.reduce_potentials = nn.ModuleList([nn.Conv1d(2, 1, 1, bias=False)])

    def forward(self, a: Columns, mask: Mask | None, drop: bool) -> Weights:
        # A row without valid tokens counts as valid throughout, so that its values are finite.
        valid = None if mask is None else (mask | ~mask.any(dim=1, keepdim=True))[:, None]  # (B, 1, N)
        potentials = torch.cat([self.un_models[0](a, drop), self.pp_models[0](a, valid)], dim=1)  # (B, 2, N)
        potential = self.reduce_potentials[0](potentials)  # (B, 1, N)
        if valid is not None:
            potential = potential.masked_fill(~valid, -math.inf)
        return potential.squeeze(1).softmax(dim=1)


class AudioTokenEmbedder(nn.Module):
    """The part that AudioToken trains: pools audio features into one token.

    8,853,507 parameters. Features are pooled as a set: their order does not matter. Published: `FGAEmbedder`.

    Args:
        in_width: of the features: three layers of BEATs, 2,304.
        width: of the token: that of the text encoder, 768 for Stable Diffusion 1.x.
        reference_dropout: keep the dropout of the unary potential on in evaluation, as published. A clip then gives
            another token each time unless torch is seeded.
    """

    def __init__(self, in_width: int = 2304, width: int = 768, reference_dropout: bool = False):
        super().__init__()
        for name, value in (("in_width", in_width), ("width", width)):
            if value < 1:
                raise ParameterError(name, f"{value}", "1 or more")
        self.in_width, self.width, self.reference_dropout = in_width, width, reference_dropout
        self.fc1, self.fc2 = nn.Linear(in_width, in_width), nn.Linear(in_width, width)
        self.fga = Pooling(width)

    def forward(self, features: Tokens, mask: Mask | None = None) -> Float[Tensor, "batch width"]:
        """Token of each clip, `(B, 768)`, from `BEATs.features` `(B, 496, 2304)` and `BEATs.token_mask`; None: all."""
        a, weights = self._attend(features, mask)
        return (weights[:, None] @ a).squeeze(1)

    def weights(self, features: Tokens, mask: Mask | None = None) -> Weights:
        """Attention weights `(B, 496)`, of sum 1; those of padding are 0."""
        return self._attend(features, mask)[1]

    def _attend(self, features: Tensor, mask: Tensor | None) -> tuple[Tokens, Weights]:
        if features.shape[-1] != self.in_width:
            advice = "Take as many layers of BEATs, of the same width, as the embedder was trained with."
            raise ShapeError("features", f"{features.shape[-1]} wide", f"{self.in_width}, as the embedder", advice)
        if mask is not None and mask.shape != features.shape[:2]:
            expected = f"{tuple(features.shape[:2])}, a value for each token"
            raise ParameterError("mask", f"shape {tuple(mask.shape)}", expected)
        if mask is not None:
            features = features.masked_fill(~mask[..., None], 0)  # also NaN, which times 0 is NaN
        a = self.fc2(F.gelu(self.fc1(features)))  # (B, 496, 768)
        return a, self.fga(a.transpose(1, 2), mask, self.training or self.reference_dropout)

    def save(self, path: Path | str) -> None:
        settings = {name: getattr(self, name) for name in ("in_width", "width", "reference_dropout")}
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "settings": settings})

    @classmethod
    def from_checkpoint(cls, path: Path | str, *, reference_dropout: bool | None = None) -> AudioTokenEmbedder:
        """Build a model from `embedder_learned_embeds.bin`, as published, or a folder of `save`.

        `reference_dropout` None: as saved, or off.
        """
        tensors, config = checkpoints.read(path)
        if reference_dropout is None:
            saved = config.get("settings")
            reference_dropout = isinstance(saved, Mapping) and saved.get("reference_dropout") is True
        shapes = [tensors[name].shape for name in ("fc1.weight", "fc2.weight") if name in tensors]
        widths = {}
        if [len(shape) for shape in shapes] == [2, 2]:
            widths = sizes_that_fit(cls, {"in_width": shapes[0][1], "width": shapes[1][0]}, tensors)
        model = cls(**widths, reference_dropout=reference_dropout)
        checkpoints.load(model, path, tensors)
        return model


PLACEHOLDER = "<*>"
LONGEST = 77  # tokens of a prompt in CLIP, with its first and its last


def token_width(text_encoder: nn.Module) -> int:
    """Width of a text encoder: 768 in Stable Diffusion 1.x."""
    return text_encoder.config.hidden_size


def placeholder_id(tokenizer: PreTrainedTokenizerBase, placeholder: str = PLACEHOLDER) -> int:
    """Return the placeholder's id; a tokenizer that lacks it gets it.

    In CLIP that is 49,408, the first free one, for which the text encoder needs no row; see `insert_tokens`.
    """
    if placeholder not in tokenizer.get_vocab():
        tokenizer.add_tokens([placeholder])
    return tokenizer.convert_tokens_to_ids(placeholder)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: str | Sequence[str], placeholder: str = PLACEHOLDER
) -> Int[Tensor, "batch words"]:
    """Token ids of prompts, `(B, 77)`, padded as the tokenizer pads; it is changed if the placeholder is new to it.

    A prompt without a placeholder, as in "a photo of <*>", with several, or with one beyond what fits is refused.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise ParameterError("prompts", "none", "at least one")
    place = placeholder_id(tokenizer, placeholder)
    longest = min(LONGEST, tokenizer.model_max_length)
    ids = tokenizer(prompts, padding="max_length", max_length=longest, truncation=True, return_tensors="pt")
    ids = ids.input_ids.long()
    for prompt, count in zip(prompts, (ids == place).sum(dim=1).tolist(), strict=True):
        if count != 1:
            cut = f", of which {count} within the first {longest} tokens" if prompt.count(placeholder) != count else ""
            found = f"{prompt!r} has {prompt.count(placeholder) or 'no'} {placeholder}{cut}"
            raise ParameterError("prompts", found, "exactly one", f'Write "a photo of {placeholder}", for example.')
    return ids


@contextmanager
def insert_tokens(
    text_encoder: nn.Module, tokens: Float[Tensor, "batch width"], placeholder_id: int
) -> Iterator[nn.Module]:
    """Insert row k of `tokens` at the placeholder of prompt k.

        with insert_tokens(text_encoder, tokens, placeholder_id(tokenizer)):
            hidden = text_encoder(prompt_ids(tokenizer, prompts)).last_hidden_state  # (B, 77, 768)

    Two hooks on the stock model do this, for many prompts at once and with gradients; the published inference writes
    one clip's token into the table of words. An ordinary word takes the place of the placeholder's id, so that the
    model finds the end of the sentence, where it takes the pooled output.

    `text_encoder` is transformers' `CLIPTextModel`, whose weights stay as they are; `tokens` are `(B, 768)`.

    Raises:
        ShapeError: tokens of another width than the text encoder's.
        ParameterError: when it is called, with another number of prompts than tokens, or a prompt in which the
            placeholder is not exactly once.
    """
    embedding, width = text_encoder.get_input_embeddings(), token_width(text_encoder)
    if tokens.shape[-1] != width:
        advice = f"Take an embedder that was trained for this text encoder: AudioTokenEmbedder(width={width})."
        raise ShapeError("tokens", f"{tokens.shape[-1]} wide", f"{width}, as the text encoder", advice)
    config = text_encoder.config
    special = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
    ordinary = next(word for word in range(len(special) + 1) if word not in special)
    places: list[Tensor] = []  # of the placeholder in the prompts of the current call

    def replace_placeholder(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        place = ids == placeholder_id
        if len(ids) != len(tokens):
            raise ParameterError("input_ids", f"{len(ids)} sentences", f"{len(tokens)}, one for each token")
        counts = place.sum(dim=1)
        if not all_hold(counts == 1):
            wrong = int((counts != 1).nonzero()[0])
            found = f"sentence {wrong} has the placeholder (id {placeholder_id}) {int(counts[wrong])} times"
            raise ParameterError("input_ids", found, "once", "Make them with prompt_ids.")
        places[:] = [place]
        ids = ids.masked_fill(place, ordinary)
        return (args, kwargs | {"input_ids": ids}) if "input_ids" in kwargs else ((ids, *args[1:]), kwargs)

    def insert(_module: nn.Module, _args: tuple, words: Tensor) -> Tensor:
        if not places:  # a look-up of words outside the text encoder's forward
            return words
        place = places.pop()[..., None].to(words.device)  # (B, 77, 1)
        return torch.where(place, tokens[:, None].to(words), words)

    with (
        text_encoder.register_forward_pre_hook(replace_placeholder, with_kwargs=True),
        embedding.register_forward_hook(insert),
    ):
        yield text_encoder


def prompt_embeddings(
    text_encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: str | Sequence[str],
    tokens: Float[Tensor, "batch width"], placeholder: str = PLACEHOLDER,
) -> Float[Tensor, "batch words width"]:  # fmt: skip
    """Embed prompts with an audio token in each: a pipeline's `prompt_embeds`, `(B, 77, 768)`.

    `prompts` are B sentences with a placeholder each, or one for all tokens, `(B, 768)` of `AudioTokenEmbedder`.
    """
    prompts = [prompts] * len(tokens) if isinstance(prompts, str) else prompts
    ids = prompt_ids(tokenizer, prompts, placeholder).to(text_encoder.get_input_embeddings().weight.device)
    with insert_tokens(text_encoder, tokens, placeholder_id(tokenizer, placeholder)):
        return text_encoder(input_ids=ids).last_hidden_state
