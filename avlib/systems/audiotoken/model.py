"""The assembled system: sound to token to picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...datasets.sources import SAMPLE_RATE
from ...errors import CheckpointError, ParameterError, TooShortError
from ...models.audiotoken import AudioTokenEmbedder, add_lora, lora_parameters, prompt_embeddings, token_width
from ...models.beats import BEATs, Config
from ...models.text_to_image import TextToImage
from ...settings import Count, Number, settings


@settings
class Sampling:
    """Settings of the sampler: its steps, and the scale of guidance (1 is none)."""

    inference_steps: Count = 50
    guidance: Number = 7.5


class AudioToken(nn.Module):
    """The whole AudioToken: BEATs, the embedder, and the text-to-image model.

    All but the embedder and LoRA is frozen; the state dict, and so a checkpoint, holds these alone.

    Args:
        lora_rank: of LoRA in the UNet's attention; 0 for none.

    Raises:
        CheckpointError: the parts do not fit each other.
    """

    def __init__(
        self,
        beats: BEATs,
        embedder: AudioTokenEmbedder,
        painter: TextToImage,
        lora_rank: int = 0,
        sampling: Sampling | None = None,
    ):
        super().__init__()
        self.beats, self.embedder, self.painter = beats, embedder, painter
        self.layers, self.sampling = feature_layers(beats), sampling or Sampling()
        require_fit(embedder, beats.config, token_width(painter.text_encoder))
        beats.requires_grad_(False)
        painter.requires_grad_(False)
        if lora_rank:
            add_lora(painter.unet, lora_rank)
        for parameter in lora_parameters(painter.unet):
            parameter.requires_grad_(True)
        self.register_state_dict_post_hook(_keep_trained)
        self.register_load_state_dict_post_hook(_forgive_frozen)
        self.eval()

    def train(self, mode: bool = True) -> AudioToken:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.beats.eval()
        self.painter.eval()
        return self

    def token(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch values"]:
        """Return one token for each sound (16 kHz, mono); gradients reach the embedder.

        `lengths` counts the samples of each row that are sound; the rest is ignored. Errors are those of
        `BEATs.features`.
        """
        mask = self.token_mask(waveform.shape[1], lengths)
        with torch.no_grad():
            features = self.beats.features(waveform, self.layers, lengths if mask is not None else None)
        return self.embedder(features, mask)

    def token_of(
        self, fbank: Float[Tensor, "batch frames mels"], mask: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch values"]:
        """Return one token for each sound, from its `beats_fbank` and its `token_mask`."""
        with torch.no_grad():
            features = self.beats.encode(fbank.to(self.beats.patch_embedding.weight.dtype), mask, self.layers)
        return self.embedder(features, mask)

    def token_mask(self, samples: int, lengths: Int[Tensor, " batch"] | None) -> Bool[Tensor, "batch tokens"] | None:
        """Return the valid tokens of BEATs for a padded batch; None if all are."""
        if lengths is None or not bool((lengths < samples).any()):
            return None
        return self.beats.token_mask(samples, lengths)

    def encode_prompts(
        self, prompts: str | Sequence[str], tokens: Float[Tensor, "batch values"] | None = None
    ) -> Float[Tensor, "batch words values"]:
        """Encode prompts, with a sound in each if tokens are given: the pipeline's `prompt_embeds`.

        One prompt serves all tokens, or each has its own.

        Raises:
            ParameterError: tokens for a prompt without the placeholder, or with two.
        """
        if tokens is None:
            return self.painter.encode_prompts(prompts)
        return prompt_embeddings(self.painter.text_encoder, self.painter.tokenizer, prompts, tokens)

    def pictures(
        self,
        prompts: str | Sequence[str],
        tokens: Float[Tensor, "batch values"],
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | int | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Generate a picture of each sound, in [0, 1]; see `encode_prompts` and `generate`."""
        with torch.no_grad():
            return self.generate(self.encode_prompts(prompts, tokens), seed, steps, guidance)

    def generate(
        self,
        prompt_embeds: Float[Tensor, "batch words values"],
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | int | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Generate a picture of each encoded prompt; see `TextToImage.generate`. None: as `sampling` says."""
        steps = self.sampling.inference_steps if steps is None else steps
        guidance = self.sampling.guidance if guidance is None else guidance
        return self.painter.generate(prompt_embeds, seed, steps, guidance)


class Windows(NamedTuple):
    """Pieces of a long clip for `AudioToken.token`, and their starts in seconds."""

    waveform: Float[Tensor, "windows samples"]
    lengths: Int[Tensor, " windows"]
    starts: list[float]


def windows(waveform: Float[Tensor, " samples"], seconds: float | int = 2.0, hop: float | int | None = None) -> Windows:
    """Cut a long clip into windows; the last one may be half zeros.

    Args:
        waveform: `(samples,)`, 16 kHz, mono.
        hop: from the start of one to that of the next; None: one follows the other.

    Raises:
        TooShortError: not even half a window.
    """
    size, step = round(seconds * SAMPLE_RATE), round((seconds if hop is None else hop) * SAMPLE_RATE)
    if size < 1 or step < 1:
        raise ParameterError("seconds, hop", f"{seconds}, {hop}", "more than 0")
    if 2 * len(waveform) < size:
        found = f"{len(waveform) / SAMPLE_RATE:.2f} s"
        raise TooShortError("waveform", found, f"at least half a window, {seconds / 2:g} s", "Give shorter windows.")
    starts = [start for start in range(0, len(waveform), step) if 2 * (len(waveform) - start) >= size]
    lengths = torch.tensor([min(size, len(waveform) - start) for start in starts])
    pieces = waveform.new_zeros(len(starts), size)
    for row, (start, length) in enumerate(zip(starts, lengths.tolist(), strict=True)):
        pieces[row, :length] = waveform[start : start + length]
    return Windows(pieces, lengths, [start / SAMPLE_RATE for start in starts])


def require_fit(embedder: AudioTokenEmbedder, beats: Config, words: int) -> None:
    """Refuse an embedder that takes other features than a BEATs has, or whose tokens are not as wide as words."""
    given = 3 * beats.encoder_embed_dim  # of three layers
    if embedder.in_width != given:
        raise CheckpointError("embedder", f"takes features {embedder.in_width} wide", f"{given}, those of this BEATs")
    if embedder.width != words:
        found = f"gives tokens {embedder.width} wide"
        raise CheckpointError("embedder", found, f"{words}, as this text encoder has words")


def feature_layers(beats: BEATs) -> tuple[int, ...]:
    """Return the last layer of each third, for the embedder: 3, 7 and 11 of 12."""
    depth = beats.config.encoder_layers
    return tuple(-(-depth * third // 3) - 1 for third in (1, 2, 3))


def _keep_trained(model: AudioToken, state: dict, prefix: str, _metadata: object) -> None:
    trained = {prefix + name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name in [name for name in state if name.startswith(prefix) and name not in trained]:
        del state[name]


def _forgive_frozen(model: AudioToken, keys: object) -> None:
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    keys.missing_keys[:] = [name for name in keys.missing_keys if name in trained]
