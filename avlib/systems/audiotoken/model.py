"""The assembled system: sound to token to picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...datasets.sources import SAMPLE_RATE
from ...errors import CheckpointError, ParameterError, TooShortError
from ...models.audiotoken import (
    AudioTokenEmbedder,
    add_lora,
    lora_parameters,
    prompt_embeddings,
    token_width,
)
from ...models.beats import BEATs
from ...models.text_to_image import TextToImage
from ...settings import Count, Number, settings


@settings
class Sampling:
    """Settings of the sampler: its steps, and the scale of guidance (1 is none)."""

    inference_steps: Count = 50
    guidance: Number = 7.5


class AudioToken(nn.Module):
    """The whole AudioToken: BEATs, the embedder, and the text-to-image model.

    All is frozen but the embedder, and LoRA if there is any; its state dict, and so a checkpoint of its training, holds
    these alone.

    Args:
        beats: is heard with.
        embedder: from its features to a token.
        painter: the text-to-image model.
        lora_rank: of changes to the UNet's attention; 0 for none.
        sampling: how pictures are drawn where nothing else is said; as published by default.

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
        self.layers, self.sampling = heard_layers(beats), sampling or Sampling()
        heard, wanted = len(self.layers) * beats.config.encoder_embed_dim, token_width(painter.text_encoder)
        if embedder.in_width != heard:
            raise CheckpointError(
                "embedder", f"takes features {embedder.in_width} wide", f"{heard}, those of this BEATs"
            )
        if embedder.width != wanted:
            found = f"gives tokens {embedder.width} wide"
            raise CheckpointError("embedder", found, f"{wanted}, as this text encoder has words")
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

    @property
    def pipeline(self):
        """The StableDiffusionPipeline of these modules."""
        return self.painter.pipeline

    @property
    def device(self) -> torch.device:
        return next(self.embedder.parameters()).device

    def token(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch values"]:
        """One token for each sound; gradients reach the embedder.

        Args:
            waveform: `(B, samples)`, 16 kHz, mono.
            lengths: `(B,)`, how many samples of each row are sound; None: all. The rest is neither heard nor pooled.

        Raises:
            TooShortError, ParameterError: as `BEATs.features`.
        """
        mask = self.token_mask(waveform.shape[1], lengths)
        with torch.no_grad():
            features = self.beats.features(waveform, self.layers, lengths if mask is not None else None)
        return self.embedder(features, mask)

    def token_of(
        self, fbank: Float[Tensor, "batch frames mels"], mask: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch values"]:
        """One token for each sound, by its `beats_fbank` and its `token_mask`."""
        with torch.no_grad():
            features = self.beats.encode(fbank.to(self.beats.patch_embedding.weight.dtype), mask, self.layers)
        return self.embedder(features, mask)

    def token_mask(self, samples: int, lengths: Int[Tensor, " batch"] | None) -> Bool[Tensor, "batch tokens"] | None:
        """The tokens of BEATs that belong to the sounds of a padded batch; None: all of them."""
        if lengths is None or not bool((lengths < samples).any()):
            return None
        return self.beats.token_mask(samples, lengths)

    def read(
        self, prompts: str | Sequence[str], tokens: Float[Tensor, "batch values"]
    ) -> Float[Tensor, "batch words values"]:
        """Prompts with a sound in each, one for all or one for each token: `prompt_embeds` of the pipeline.

        Raises:
            ParameterError: a prompt without the placeholder, or with two.
        """
        return prompt_embeddings(self.painter.text_encoder, self.painter.tokenizer, prompts, tokens)

    def read_words(self, prompts: str | Sequence[str]) -> Float[Tensor, "batch words values"]:
        """Prompts of words alone. A mean of this and `read` is something between what is said and what is heard."""
        return self.painter.encode_prompts(prompts)

    def pictures(
        self,
        prompts: str | Sequence[str],
        tokens: Float[Tensor, "batch values"],
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | int | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """A picture of each sound.

        Args:
            prompts: with the placeholder; one for all, or one for each.
            tokens: `(B, width)`, of `token`.
            seed: of the noise: one for all pictures, or one for each; see `TextToImage.generate`.
            steps: of the sampler; None: as `sampling` says, and so
            guidance: how much a prompt is exaggerated.

        Returns:
            `(B, 3, H, W)` in [0, 1].
        """
        with torch.no_grad():
            return self.draw(self.read(prompts, tokens), seed, steps, guidance)

    def draw(
        self,
        prompt_embeds: Float[Tensor, "batch words values"],
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | int | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures of prompts that were read; see `pictures`, and `TextToImage.generate`."""
        steps = self.sampling.inference_steps if steps is None else steps
        guidance = self.sampling.guidance if guidance is None else guidance
        return self.painter.generate(prompt_embeds, seed, steps, guidance)


class Windows(NamedTuple):
    """Pieces of a long clip: what `AudioToken.token` takes, and where each begins, in seconds."""

    waveform: Float[Tensor, "windows samples"]
    lengths: Int[Tensor, " windows"]
    starts: list[float]


def windows(waveform: Float[Tensor, " samples"], seconds: float | int = 2.0, hop: float | int | None = None) -> Windows:
    """A long clip in pieces, one picture each. The last one is kept if at least half of it is sound; zeros follow then.

    Args:
        waveform: `(samples,)`, 16 kHz, mono.
        seconds: of a window.
        hop: from the start of one to that of the next; None: one follows the other.

    Raises:
        ParameterError: a window or hop that is not positive.
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


def heard_layers(beats: BEATs) -> tuple[int, ...]:
    """Whose outputs the embedder takes: the last layer of each third. Of 12 layers 3, 7 and 11, as published."""
    depth = beats.config.encoder_layers
    return tuple(-(-depth * third // 3) - 1 for third in (1, 2, 3))


def _keep_trained(model: AudioToken, state: dict, prefix: str, _metadata: object) -> None:
    trained = {prefix + name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name in [name for name in state if name.startswith(prefix) and name not in trained]:
        del state[name]


def _forgive_frozen(model: AudioToken, keys: object) -> None:
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    keys.missing_keys[:] = [name for name in keys.missing_keys if name in trained]
