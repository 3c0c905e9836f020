"""BEATs, from a waveform to tokens and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ... import checkpoints
from ...errors import CheckpointError, ParameterError, TooShortError, check_choice
from ...features import (
    BEATS_MELS,
    BEATS_SAMPLE_RATE,
    beats_fbank,
    check_finite,
    check_lengths,
    frame_geometry,
    valid_mask,
    without_padding,
)
from .layers import Encoder
from .settings import Config

PADDINGS = ("token", "published")


class BEATs(nn.Module):
    """BEATs, pretrained or fine-tuned: 90,717,055 parameters with its classifier. Published: `BEATs`.

    Args:
        config: its settings; the published ones by default.
    """

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        D, patch = config.encoder_embed_dim, config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        # Published files have no projection where there is nothing to change.
        self.post_extract_proj = nn.Linear(config.embed_dim, D) if config.embed_dim != D else None
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = Encoder(config)
        self.predictor = nn.Linear(D, config.predictor_class) if config.finetuned_model else None
        self.predictor_dropout = nn.Dropout(config.predictor_dropout)

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip that fills one patch: 2,800."""
        window, hop, _ = frame_geometry(BEATS_SAMPLE_RATE)
        return window + hop * (self.config.input_patch_size - 1)

    def encode(
        self,
        fbank: Float[Tensor, "batch frames mels"],
        mask: Bool[Tensor, "batch tokens"] | None = None,
        layers: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch tokens values"]:
        """Tokens of a normalised fbank.

        Args:
            fbank: `(B, 998, 128)`, of `beats_fbank`.
            mask: `(B, 496)`, True = valid, of `token_mask`. Tokens that are not valid are zeroed before the
                convolution, and nobody attends to them; what they become themselves means nothing. None: all are valid.
            layers: whose outputs to put side by side, counted from 0. None: the last layer's alone.

        Returns:
            `(B, 496, 768)`, or `(B, 496, len(layers) * 768)`. Tokens are ordered by time, then from low to high.

        Raises:
            TooShortError: fewer frames than one patch has.
            ParameterError: mel bins that patches do not fill, a mask of another shape, a layer that there is not.
        """
        depth, patch = self.config.encoder_layers, self.config.input_patch_size
        layers = (depth - 1,) if layers is None else tuple(layers)
        if not layers or not all(0 <= index < depth for index in layers):
            expected = f"some of 0 to {depth - 1}: the model has {depth} layers"
            raise ParameterError("layers", f"{layers}", expected, "AudioToken's embedder takes 3, 7, 11.")
        frames, mels = fbank.shape[1:]
        if frames < patch:
            raise TooShortError("fbank", f"{frames} frames", f"at least {patch}, one patch", "Give a longer clip.")
        if mels % patch:
            raise ParameterError("fbank", f"{mels} mel bins", f"a multiple of {patch}, the side of a patch")
        x = self.patch_embedding(fbank[:, None])  # (B, 512, 62, 8)
        x = x.flatten(2).transpose(1, 2)  # (B, 496, 512), frequency fastest
        x = self.layer_norm(x)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)  # (B, 496, 768)
        if mask is not None and mask.shape != x.shape[:2]:
            raise ParameterError(
                "mask", f"shape {tuple(mask.shape)}", f"{tuple(x.shape[:2])}, one value for each token"
            )
        outputs = self.encoder(self.dropout_input(x), mask)
        return torch.cat([outputs[index] for index in layers], dim=-1) if len(layers) > 1 else outputs[layers[0]]

    def features(
        self,
        waveform: Float[Tensor, "batch samples"],
        layers: Sequence[int] = (3, 7, 11),
        lengths: Int[Tensor, " clips"] | None = None,
        padding: str = "token",
    ) -> Float[Tensor, "batch tokens values"]:
        """What AudioToken takes from BEATs: outputs of several layers, side by side. Published: `extract_features`.

        Args:
            waveform: `(B, 160000)`, 16 kHz, mono, in [-1, 1].
            layers: whose outputs, counted from 0; the published ones are the 4th, the 8th and the last.
            lengths: `(B,)`, the number of valid samples in each row of a batch that was padded at its end. None: all.
            padding: what becomes of the rest; see `token_mask`. With "token" each clip gets the values of its run
                alone (tested: to 2e-5), whatever the padding holds.

        Returns:
            `(B, 496, 2304)`, in the dtype of the weights. In rows that are padded, tokens beyond the valid ones mean
            nothing: hand `token_mask` on to what comes next.

        Raises:
            TooShortError: a clip that fills no patch, less than 2,800 samples (0.175 s).
            ParameterError: a valid sample that is not finite, lengths that do not fit, or what `encode` refuses.
        """
        return self.encode(*self._heard(waveform, lengths, padding), layers)

    def token_mask(
        self, samples: int, lengths: Int[Tensor, " clips"], padding: str = "token"
    ) -> Bool[Tensor, "batch tokens"]:
        """Which tokens of a padded batch are of the clip.

        Args:
            samples: of each row, with its padding.
            lengths: `(B,)`, the number of valid samples in each row.
            padding: "token" keeps the tokens that the clip has alone, which hear nothing of the padding. "published"
                folds the padding of samples to frames, and that of frames to tokens, as BEATs does: as if tokens were
                ordered by time alone, so that in the patch where the clip ends low bands are kept and high ones are
                not; and as if every sample were in one frame, so that short batches drift.

        Returns:
            `(B, tokens)`, True = valid. 6.5 s of 10 s: 320 of 496 tokens; 325 as published.

        Raises:
            TooShortError, ParameterError: as `features`.
        """
        check_choice("padding", padding, PADDINGS)
        self._check(lengths, (*lengths.shape, samples))
        frames, tokens = self._frames(samples), self._tokens(samples)
        if padding == "token":
            return valid_mask(self._tokens(lengths), tokens)
        padded = ~valid_mask(lengths, samples)  # (B, samples)
        for parts in (frames, tokens):
            if padded.shape[1] < parts:
                found = f'"published" with {tokens} tokens for {frames} frames'
                raise ParameterError("padding", found, "fewer tokens than frames", 'Set padding="token".')
            size = padded.shape[1] // parts
            padded = padded[:, : size * parts].unflatten(1, (parts, size)).all(dim=2)
        return ~padded

    def logits(
        self, fbank: Float[Tensor, "batch frames mels"], mask: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Classes before the sigmoid: the mean over valid tokens of what the predictor says of each.

        Arguments and errors are those of `encode`.

        Raises:
            ParameterError: the model has no classifier.
        """
        if self.predictor is None:
            found = "False: this model has no classifier"
            raise ParameterError("finetuned_model", found, "a fine-tuned BEATs", "Take its `features`.")
        logits = self.predictor(self.predictor_dropout(self.encode(fbank, mask)))  # (B, 496, 527)
        if mask is None:
            return logits.mean(dim=1)
        valid = mask[..., None]
        return logits.masked_fill(~valid, 0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)

    def predictions(
        self,
        waveform: Float[Tensor, "batch samples"],
        lengths: Int[Tensor, " clips"] | None = None,
        padding: str = "token",
    ) -> Float[Tensor, "batch classes"]:
        """Probability of each class, each by itself. Published: `extract_features` of a fine-tuned model.

        Arguments and errors are those of `features`, and of `logits`.
        """
        return self.logits(*self._heard(waveform, lengths, padding)).sigmoid()

    def save(self, path: Path | str) -> None:
        """Write weights and settings, of which `from_checkpoint` makes the same model; see `checkpoints.save`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "cfg": asdict(self.config)})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> BEATs:
        """Build a model from a published file, or from a folder that `save` wrote. Every parameter must fit.

        The settings are those of the file: neither `max_distance` nor `deep_norm` shows in the weights. The table of
        the relative bias is in a file under a name for each layer; as published, the last one counts.

        Args:
            path: a PyTorch file with "cfg" and "model"; or a folder.

        Raises:
            CheckpointError: the file cannot be read, has no settings, some of another network, or does not fit.
        """
        tensors, config = checkpoints.read(path)
        cfg = config.get("cfg")
        if not isinstance(cfg, Mapping):
            seems = f"The file seems to be {checkpoints.seems_to_be(tensors)}."
            raise CheckpointError(
                path, 'has no settings under "cfg"', 'a BEATs file: {"cfg": ..., "model": ...}', seems
            )
        try:
            settings = Config.of(cfg)
        except ParameterError as error:
            raise CheckpointError(path, f'its "cfg": {error.subject}: {error.found}', error.expected) from error
        model = cls(settings)
        checkpoints.load(model, path, tensors)
        return model

    def _frames(self, samples: int | Tensor) -> int | Tensor:
        window, hop, _ = frame_geometry(BEATS_SAMPLE_RATE)
        return (samples - window) // hop + 1

    def _tokens(self, samples: int | Tensor) -> int | Tensor:
        """8 for every 16 frames."""
        patch = self.config.input_patch_size
        return self._frames(samples) // patch * (BEATS_MELS // patch)

    def _heard(
        self, waveform: Tensor, lengths: Tensor | None, padding: str
    ) -> tuple[Float[Tensor, "batch frames mels"], Bool[Tensor, "batch tokens"] | None]:
        """The fbank in the dtype of the weights, and which tokens are valid."""
        mask = None
        lengths = None if lengths is None else lengths.to(waveform.device)
        self._check(lengths, waveform.shape)
        if lengths is not None:
            mask = self.token_mask(waveform.shape[1], lengths, padding)
            if padding == "token":
                waveform = without_padding(waveform, lengths)
        check_finite(waveform)
        return beats_fbank(waveform).to(self.patch_embedding.weight.dtype), mask

    def _check(self, lengths: Tensor | None, shape: tuple) -> None:
        note = f", which is {self.shortest / BEATS_SAMPLE_RATE} s at 16 kHz"
        check_lengths(lengths, shape, self.shortest, note)


def length_buckets(lengths: Sequence[int], waste: float | int = 0.1, size: int = 8) -> list[list[int]]:
    """Which clips to put together into one batch, so that little of it is padding.

    Clips are taken from the longest down; a batch ends before a clip that would make too much of it padding.

    Args:
        lengths: of the clips, in any unit.
        waste: the share of padding in a batch, at most.
        size: clips in a batch, at most.

    Returns:
        Indices of the clips, batch by batch; each of them once.

    Raises:
        ParameterError: `waste` outside [0, 1), or `size` below 1.
    """
    if not 0 <= waste < 1:
        raise ParameterError("waste", f"{waste}", "0 or more, and less than 1")
    if size < 1:
        raise ParameterError("size", f"{size}", "1 or more")
    buckets: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        last = [*buckets[-1], index] if buckets else []
        if last and len(last) <= size and sum(lengths[i] for i in last) >= (1 - waste) * lengths[last[0]] * len(last):
            buckets[-1] = last
        else:
            buckets.append([index])
    return buckets
