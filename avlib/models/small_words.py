"""A CLIPTokenizer and a CLIPTextModel for a few words, made in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

_END = "</w>"  # how CLIP marks the last piece of a word


def small_tokenizer(words: Sequence[str], length: int = 77) -> CLIPTokenizer:
    """A tokenizer with one token for each of these words, and other words spelt by their letters.

    Args:
        words: in lower case.
        length: tokens in a prompt, with its first and its last.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learned = Tokenizer(models.BPE(end_of_word_suffix=_END))
    learned.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=1 << 20, min_frequency=0, end_of_word_suffix=_END, show_progress=False)
    learned.train_from_iterator([" ".join(words)], trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + _END for letter in letters), *map("".join, merges)]
    pieces = dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"])  # in CLIP's order
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def small_text_encoder(
    tokenizer: CLIPTokenizer, width: int = 64, layers: int = 2, heads: int = 4, word_scale: float = 1.0
) -> CLIPTextModel:
    """A text encoder with random weights for this tokenizer.

    Args:
        tokenizer: whose words it reads.
        width: of its hidden states.
        layers: how many.
        heads: of each layer.
        word_scale: by which the vectors of words are larger than usual.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, projection_dim=width,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(word_scale)
    return model
