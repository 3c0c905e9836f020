"""The token of a sound, put in the place of a word into the text encoder of Stable Diffusion.

The published training has a copy of a whole modelling file of transformers for this, and the published inference
writes the token into the table of words, one sound at a time. Here the stock `CLIPTextModel` gets two hooks for as long
as it shall hear something: many sentences at once, with gradients, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import ParameterError, ShapeError
from ...features.lengths import all_hold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEHOLDER = "<*>"
LONGEST = 77  # tokens in a prompt, with its first and its last; what CLIP was trained with


def token_width(text_encoder: nn.Module) -> int:
    """How wide a token must be for this text encoder: 768 for Stable Diffusion 1.x, 1,024 for 2.x."""
    return text_encoder.config.hidden_size


def placeholder_id(tokenizer: PreTrainedTokenizerBase, placeholder: str = PLACEHOLDER) -> int:
    """The id of the placeholder, which the tokenizer learns if it does not know it: the first free one, 49,408 in CLIP.

    The table of the text encoder has no such row, and needs none; see `speaking`.
    """
    if placeholder not in tokenizer.get_vocab():
        tokenizer.add_tokens([placeholder])
    return tokenizer.convert_tokens_to_ids(placeholder)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: str | Sequence[str], placeholder: str = PLACEHOLDER
) -> Int[Tensor, "batch words"]:
    """Prompts as ids of words, padded as the tokenizer pads.

    Args:
        tokenizer: of the text encoder; changed if the placeholder is new to it.
        prompts: B sentences, each with one placeholder, such as "a photo of <*>".
        placeholder: where the sound goes.

    Returns:
        `(B, 77)`, int64.

    Raises:
        ParameterError: a prompt without a placeholder, with several, or with one beyond what fits.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise ParameterError("prompts", "none", "at least one")
    place = placeholder_id(tokenizer, placeholder)
    longest = min(LONGEST, tokenizer.model_max_length)
    ids = tokenizer(
        prompts, padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
    ).input_ids.long()
    for prompt, count in zip(prompts, (ids == place).sum(dim=1).tolist(), strict=True):
        if count != 1:
            cut = f", of which {count} within the first {longest} tokens" if prompt.count(placeholder) != count else ""
            found = f"{prompt!r} has {prompt.count(placeholder) or 'no'} {placeholder}{cut}"
            raise ParameterError("prompts", found, "exactly one", f'Write "a photo of {placeholder}", for example.')
    return ids


@contextmanager
def speaking(text_encoder: nn.Module, tokens: Float[Tensor, "batch width"], placeholder_id: int) -> Iterator[nn.Module]:
    """Within this block, the text encoder reads row k of `tokens` where sentence k has the placeholder.

        with speaking(text_encoder, tokens, placeholder_id(tokenizer)):
            hidden = text_encoder(prompt_ids(tokenizer, prompts)).last_hidden_state  # (B, 77, 768)

    The rest of the model, its table of words and the ids that it is called with stay as they are. It sees a harmless
    word in the place of the placeholder, so that it finds the end of the sentence, where it takes the pooled output.

    Args:
        text_encoder: transformers' `CLIPTextModel`, or another model that is called with `input_ids` and says by
            `get_input_embeddings` where these become vectors.
        tokens: `(B, 768)`; gradients reach them.
        placeholder_id: of the tokenizer.

    Raises:
        ShapeError: tokens of another width than the text encoder's.
        ParameterError: when it is called, with another number of sentences than there are tokens, or one in which the
            placeholder is not exactly once.
    """
    embedding, width = text_encoder.get_input_embeddings(), token_width(text_encoder)
    if tokens.shape[-1] != width:
        advice = f"Take an embedder that was trained for this text encoder: AudioTokenEmbedder(width={width})."
        raise ShapeError("tokens", f"{tokens.shape[-1]} wide", f"{width}, as the text encoder", advice)
    config = text_encoder.config
    special = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
    harmless = next(word for word in range(len(special) + 1) if word not in special)
    places: list[Tensor] = []  # of the sentences that are being read

    def hide(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
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
        ids = ids.masked_fill(place, harmless)
        return (args, kwargs | {"input_ids": ids}) if "input_ids" in kwargs else ((ids, *args[1:]), kwargs)

    def put_in(_module: nn.Module, _args: tuple, words: Tensor) -> Tensor:
        if not places:  # someone looks up words, and is not reading a sentence
            return words
        place = places.pop()[..., None].to(words.device)  # (B, 77, 1)
        return torch.where(place, tokens[:, None].to(words), words)

    hooks = [
        text_encoder.register_forward_pre_hook(hide, with_kwargs=True),
        embedding.register_forward_hook(put_in),
    ]
    try:
        yield text_encoder
    finally:
        for hook in hooks:
            hook.remove()


def prompt_embeddings(
    text_encoder: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: str | Sequence[str],
    tokens: Float[Tensor, "batch width"],
    placeholder: str = PLACEHOLDER,
) -> Float[Tensor, "batch words width"]:
    """Prompts that have been read with a sound in them: `prompt_embeds` of a diffusers pipeline.

    Args:
        text_encoder: `CLIPTextModel`.
        tokenizer: of it.
        prompts: B sentences with a placeholder each; or one, which is then read with each token.
        tokens: `(B, 768)`, of `AudioTokenEmbedder`.
        placeholder: see `prompt_ids`.

    Returns:
        `(B, 77, 768)`, the last hidden state, as Stable Diffusion takes it.

    Raises:
        ParameterError, ShapeError: see `prompt_ids` and `speaking`.
    """
    prompts = [prompts] * len(tokens) if isinstance(prompts, str) else prompts
    ids = prompt_ids(tokenizer, prompts, placeholder).to(text_encoder.get_input_embeddings().weight.device)
    with speaking(text_encoder, tokens, placeholder_id(tokenizer, placeholder)):
        return text_encoder(input_ids=ids).last_hidden_state
