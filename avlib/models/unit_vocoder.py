"""Unit2A: speech from discrete units and a speaker vector, with predicted durations.

    units (B, N), 50 a second -> embedding (B, 128, N)
    speaker (B, 256) -> linear -> (B, 128, N), the same at each unit
    both, side by side: (B, 256, N) -> HiFi-GAN -> waveform (B, 1, 320 N), 16 kHz

Translated units have no repeats: a `DurationPredictor` says how often each is repeated first.

Source: Polyak et al., "Speech Resynthesis from Discrete Disentangled Self-Supervised Representations", Interspeech
2021; Choi et al., "AV2AV", CVPR 2024, and its code (choijeongsoo/av2av, `unit2av`), whose parameter names are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import checkpoints
from ..errors import ParameterError, did_you_mean
from ..features import SAMPLE_RATE, valid_mask
from ..settings import Count, settings
from . import sizes_that_fit
from .durations import DurationConfig, DurationPredictor
from .hifigan import Generator, check_sizes
from .unit_speech import UnitSpeech

# Entries of a published config.json whose other values would need another network, or another mel in training.
_ONLY = {"resblock": ("1", 1), "multispkr": (True,), "embedder_params": (True,), "f0": (False, None)}
_ONLY |= {"sampling_rate": (SAMPLE_RATE,), "num_mels": (80,), "n_fft": (1024,), "hop_size": (256,)}
_ONLY |= {"win_size": (1024,), "fmin": (0, None), "fmax": (8000, None), "fmax_for_loss": (None, 8000)}


@settings
class Config:
    """Settings of the network, under their names in the published config.json."""

    num_embeddings: Count = 1000  # K, the number of units
    embedding_dim: Count = 128
    model_in_dim: Count = 256
    embedder_dim: Count = 256  # of the speaker vector
    upsample_rates: Sequence[Count] = (5, 4, 4, 2, 2)
    upsample_kernel_sizes: Sequence[Count] = (11, 8, 8, 4, 4)
    upsample_initial_channel: Count = 512
    resblock_kernel_sizes: Sequence[Count] = (3, 7, 11)
    resblock_dilation_sizes: Sequence[Sequence[Count]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    code_hop_size: Count = 320  # samples of a unit
    dur_predictor_params: DurationConfig | None = DurationConfig()

    def __post_init__(self):
        check_sizes(self, "code_hop_size")
        if self.model_in_dim != 2 * self.embedding_dim:
            raise ParameterError("model_in_dim", f"{self.model_in_dim}", "twice embedding_dim")
        if self.dur_predictor_params and self.dur_predictor_params.encoder_embed_dim != self.embedding_dim:
            found = f"{self.dur_predictor_params.encoder_embed_dim}"
            raise ParameterError("encoder_embed_dim", found, f"{self.embedding_dim}, the embedding_dim")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """Read the settings of the network in a published configuration, whose other entries are for training.

        Raises:
            ParameterError: an entry is missing, or has a value that another network or mel would need.
        """
        for name, allowed in _ONLY.items():
            if name in values and values[name] not in allowed:
                raise ParameterError(name, f"{values[name]!r}", f"{allowed[0]!r}, as published")
        found = {"dur_predictor_params": None} | dict(values)
        for name in (field.name for field in fields(cls) if field.name not in found):
            raise ParameterError(name, "missing", "all settings of the network", did_you_mean(name, values))
        if isinstance(found["dur_predictor_params"], Mapping):
            found["dur_predictor_params"] = DurationConfig(**found["dur_predictor_params"])
        return cls(**{field.name: _tuples(found[field.name]) for field in fields(cls)})


class UnitVocoder(Generator, UnitSpeech):
    """HiFi-GAN on units, a speaker vector and durations: 13,977,091 parameters. Published: `CodeHiFiGANModel_spk`."""

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        D = config.embedding_dim
        self.dict = nn.Embedding(config.num_embeddings, D)
        self.spkr = nn.Linear(config.embedder_dim, D)
        self.dur_predictor = config.dur_predictor_params and DurationPredictor(config.dur_predictor_params)
        self._add_layers(config.model_in_dim)

    @classmethod
    def from_checkpoint(
        cls, path: Path | str, language: str = "en", config: Config | Path | str | None = None,
        weight_norm: bool = False,
    ) -> UnitVocoder:  # fmt: skip
        """Build a vocoder, in evaluation mode, from a published file or a folder of `save`.

        Args:
            path: `unit_av_renderer.pt`, which holds a generator for each language; `g_00050000`, {"generator": ...}; a
                bare file of tensors, with weight norm or without; or a folder.
            language: of the generator in a file with several.
            config: settings, or a published config.json. None: those of the folder, or published ones, with widths as
                in the file.
            weight_norm: keep weight norm, to train on. It is removed as in the published inference.
        """
        tensors, saved = checkpoints.read(path, "audio", language)
        if config is None:
            kept = saved.get("config")
            config = Config.of(kept) if isinstance(kept, Mapping) else _config_of(tensors)
        model = cls(config if isinstance(config, Config) else Config.of(checkpoints.read_config(config)))
        if "conv_pre.weight" in tensors:
            model.remove_weight_norm()
        checkpoints.load(model, path, tensors)
        if not weight_norm:
            model.remove_weight_norm()
        return model.eval()

    def _generate(self, units: Tensor, speaker: Tensor, lengths: Tensor | None) -> Float[Tensor, "batch 1 samples"]:
        """Waveform of units at full rate; beyond the lengths there are zeros, as beyond the ends."""
        x = self.dict(units).transpose(1, 2)  # (B, 128, N)
        x = torch.cat([x, self.spkr(speaker)[..., None].expand(-1, -1, x.shape[2])], dim=1)  # (B, 256, N)
        mask = None if lengths is None else valid_mask(lengths, units.shape[1])[:, None].to(x.dtype)
        return self._sounding(x, mask)


def _config_of(tensors: Mapping[str, Tensor]) -> Config:
    """Published settings with the widths of a file's tensors."""

    def config(**sizes: int) -> Config:
        width, hidden = sizes.get("embedding_dim", 128), sizes.pop("hidden", 128)
        predictor = DurationConfig(width, hidden) if "dur_predictor.proj.weight" in tensors else None
        return replace(Config(), **sizes, model_in_dim=2 * width, dur_predictor_params=predictor)

    places = {"num_embeddings": ("dict.weight", 0), "embedding_dim": ("dict.weight", 1)}
    places |= {"embedder_dim": ("spkr.weight", 1), "upsample_initial_channel": ("conv_pre.bias", 0)}
    places |= {"hidden": ("dur_predictor.ln1.weight", 0)}
    shapes = {name: (tensors[key].shape, axis) for name, (key, axis) in places.items() if key in tensors}
    sizes = {name: shape[axis] for name, (shape, axis) in shapes.items() if len(shape) > axis}
    return config(**sizes_that_fit(lambda **sizes: UnitVocoder(config(**sizes)), sizes, tensors))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
