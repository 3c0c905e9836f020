"""Backbones that cut Kaldi's fbank into patches: AST and BEATs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...features import BEATS_MEAN, BEATS_SCALE, BEATS_STD, SAMPLE_RATE, frame_geometry, kaldi_fbank, valid_mask
from ..beats import BEATs
from ..beats import Config as BEATsConfig
from .hearing import Backbone, Features, Layers, sizes
from .settings import Config

# AST: AudioSet's statistics, by which its published weights were trained.
AST_MEAN, AST_STD = -4.2677393, 4.5689974


class Patches(Backbone):
    """What networks on patches of Kaldi's fbank have in common."""

    patch = 16
    window, scale, mean, deviation = "hanning", 1.0, AST_MEAN, 2 * AST_STD

    @property
    def shortest(self) -> int:
        width, hop, _ = frame_geometry(SAMPLE_RATE)
        return width + hop * (self.patch - 1)  # 2,800

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        width, hop, _ = frame_geometry(SAMPLE_RATE)
        fbank = kaldi_fbank(waveform * self.scale, SAMPLE_RATE, self.config.n_mels, self.window)  # (B, T, mels)
        fbank = (fbank - self.mean) / self.deviation
        return Features(fbank.transpose(1, 2), (lengths - width) // hop + 1)


class AST(Patches):
    """Audio Spectrogram Transformer, of transformers: patches that overlap, positions from a table.

    A shorter clip takes the beginning of the table, in each band; a longer one has it stretched. Pooled are the
    patches; published, its two class tokens are.
    """

    def __init__(self, config: Config):
        from transformers import ASTConfig, ASTModel

        width, layers, heads, hidden = sizes(config)
        settings = ASTConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=hidden
        )
        super().__init__(config, ASTModel(settings), width)
        self.bands, self.table = self.network.embeddings.get_shape(settings)  # 12, 101

    def hear(self, features: Features) -> Layers:
        values, lengths = features
        network, stride = self.network, self.network.config.time_stride
        x = network.embeddings.patch_embeddings(values.transpose(1, 2))  # (B, 12 * W, d), time fastest
        times = x.shape[1] // self.bands
        x = x + self._positions(times)
        tokens = torch.cat([network.embeddings.cls_token, network.embeddings.distillation_token], dim=1)
        tokens = tokens + network.embeddings.position_embeddings[:, :2]
        x = network.embeddings.dropout(torch.cat([tokens.expand(len(x), -1, -1), x], dim=1))

        heard = valid_mask((lengths - self.patch) // stride + 1, times)  # (B, W)
        mask = heard.repeat(1, self.bands)  # (B, 12 * W)
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        bias = F.pad(bias.masked_fill(~mask, torch.finfo(x.dtype).min), (2, 0))[:, None, None]
        states = [x]
        for layer in network.layers:
            states.append(layer(states[-1], bias))
        states[-1] = network.layernorm(states[-1])
        by_time = [self._by_time(state[:, 2:]) for state in self._chosen(states)]
        return Layers(by_time, heard.repeat_interleave(self.bands, dim=1))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.embeddings], list(self.network.layers)

    def _by_time(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.bands, -1)).transpose(1, 2).flatten(1, 2)

    def _positions(self, times: int) -> Float[Tensor, "1 tokens width"]:
        table = self.network.embeddings.position_embeddings
        plane = table[:, 2:].transpose(1, 2).unflatten(2, (self.bands, self.table))  # (1, d, 12, 101)
        if times > self.table:
            plane = F.interpolate(plane, (self.bands, times), mode="bilinear")
        return plane[..., :times].flatten(2).transpose(1, 2)


class Beats(Patches):
    """BEATs, of `avlib.models.beats`, masked token by token."""

    window, scale, mean, deviation = "povey", BEATS_SCALE, BEATS_MEAN, 2 * BEATS_STD

    def __init__(self, config: Config):
        settings = BEATsConfig(finetuned_model=False, encoder_layerdrop=0.0)
        if config.small:
            width, layers, heads, hidden = sizes(config)
            settings = BEATsConfig(
                encoder_layers=layers, encoder_embed_dim=width, encoder_ffn_embed_dim=hidden,
                encoder_attention_heads=heads, conv_pos=32, conv_pos_groups=4, embed_dim=width, finetuned_model=False,
                encoder_layerdrop=0.0,
            )  # fmt: skip
        super().__init__(config, BEATs(settings), settings.encoder_embed_dim)
        self.bands = config.facts.rows // self.patch  # 8

    def hear(self, features: Features) -> Layers:
        values, lengths = features
        tokens = values.shape[-1] // self.patch * self.bands
        mask = valid_mask(lengths // self.patch * self.bands, tokens)
        depth = self.network.config.encoder_layers
        layers = range(depth) if self.config.layer_sum else [depth - 1]
        states = self.network.encode(values.transpose(1, 2), mask, list(layers))
        return Layers(list(states.split(self.width, dim=-1)), mask)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        first = [self.network.patch_embedding, self.network.layer_norm]
        projection = self.network.post_extract_proj
        return first if projection is None else [*first, projection], list(self.network.encoder.layers)

    @property
    def num_states(self) -> int:
        return len(self.parts()[1])
