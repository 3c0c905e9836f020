"""The networks that hear, behind one interface: what each takes of a waveform, and its frames.

Frames of all are `(B, N, d)`, ordered by time and then from low to high bands, of which only networks of patches and
of pictures have more than one.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...features import (
    BEATS_MEAN,
    BEATS_SCALE,
    BEATS_STD,
    RESNET_SIZE,
    frame_geometry,
    kaldi_fbank,
    resnet_log_mel,
    whisper_log_mel,
)
from ..beats import BEATs
from ..beats import Config as BEATsConfig
from .settings import SAMPLE_RATE, SMALL_LAYERS, Config
from .whisper import whisper_layers, whisper_mask

SMALL_WIDTH, SMALL_HEADS = 64, 4

# AST: AudioSet's statistics, by which its published weights were trained.
AST_MEAN, AST_STD = -4.2677393, 4.5689974


class Features(NamedTuple):
    """What a network takes: `values` are spectrograms `(B, rows, T)`, low bands first, or waveforms `(B, samples)`;
    `lengths` `(B,)` counts their valid columns, or samples.
    """

    values: Float[Tensor, "batch ..."]
    lengths: Int[Tensor, " batch"]


class Heard(NamedTuple):
    """Hidden states of layers, `(B, N, d)` each, and which frames are of the clip, `(B, N)`, True = valid."""

    states: list[Float[Tensor, "batch frames width"]]
    mask: Bool[Tensor, "batch frames"]


class Backbone(nn.Module):
    """A network with what it needs around it.

    `network` is the published class, under whose names weights are; `width` that of its frames; `bands` how many
    frames there are for one time.
    """

    bands = 1

    def __init__(self, config: Config, network: nn.Module, width: int):
        super().__init__()
        self.config, self.network, self.width = config, network, width

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip that it hears; one that is shorter is padded with zeros to that."""
        raise NotImplementedError

    def features(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"]) -> Features:
        """Of waveforms that are zero beyond their lengths, and at least `shortest` long."""
        raise NotImplementedError

    def hear(self, features: Features) -> Heard:
        """The last layer, or with `layer_sum` all of them."""
        raise NotImplementedError

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Its first convolutions, and its layers: what can be frozen by itself."""
        raise NotImplementedError

    @property
    def num_states(self) -> int:
        """How many states `hear` gives with `layer_sum`: what enters the layers, and what leaves each."""
        return len(self.parts()[1]) + 1

    def _chosen(self, states: list[Tensor]) -> list[Tensor]:
        return states if self.config.layer_sum else states[-1:]


class Whisper(Backbone):
    """A Whisper encoder, of transformers; with a mask, as published it has none."""

    def __init__(self, config: Config):
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        width, layers, heads, hidden = _sizes(config)
        network = WhisperEncoder(
            WhisperConfig(
                num_mel_bins=config.facts.rows, d_model=width, encoder_layers=layers, encoder_attention_heads=heads,
                encoder_ffn_dim=hidden, encoder_layerdrop=0.0,
            )
        )  # fmt: skip
        super().__init__(config, network, width)

    @property
    def shortest(self) -> int:
        return self.config.hop_length

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        config = self.config
        columns = waveform.shape[1] // config.hop_length
        # As the published extractor does, zeros follow each clip: its last columns are the same in any batch.
        waveform = F.pad(waveform, (0, config.n_fft))
        return Features(log_mel(waveform, config)[..., :columns], lengths // config.hop_length)

    def hear(self, features: Features) -> Heard:
        states = whisper_layers(self.network, *features)
        return Heard(self._chosen(states), whisper_mask(features.values.shape[-1], features.lengths))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.conv1, self.network.conv2], list(self.network.layers)


class Wave(Backbone):
    """Wav2Vec2 or HuBERT, of transformers, on a waveform of zero mean and unit deviation."""

    def __init__(self, config: Config):
        from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

        width, layers, heads, hidden = _sizes(config)
        kinds = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "hubert": (HubertConfig, HubertModel)}
        settings, model = kinds[config.facts.family]
        layered = config.norm == "layer"  # published ones with layer norms have these three together
        small = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 4}
        network = model(
            settings(
                hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=hidden,
                feat_extract_norm=config.norm, conv_bias=layered, do_stable_layer_norm=layered,
                # A layer that is left out now and then makes the states fewer; masks inside the network fail on short
                # clips. Both act in training alone.
                layerdrop=0.0, mask_time_prob=0.0, mask_feature_prob=0.0, **(small if config.small else {}),
            )
        )  # fmt: skip
        super().__init__(config, network, width)
        self.honest = layered
        if config.masked and not layered:
            warnings.warn(
                f"{config.backbone}: its first convolution is normalised over time, padding included, so what it says "
                "of a clip depends on how far the clip is padded. Attention is not masked; pooling leaves the padding "
                "out. Pad all clips to one length, or take a backbone with layer norms",
                UserWarning,
                stacklevel=4,
            )

    @property
    def shortest(self) -> int:
        samples = 1
        for kernel, stride in reversed(self._convolutions):
            samples = (samples - 1) * stride + kernel
        return samples  # 400

    @property
    def _convolutions(self) -> list[tuple[int, int]]:
        settings = self.network.config
        return list(zip(settings.conv_kernel, settings.conv_stride, strict=True))

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        valid = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
        mean = waveform.sum(dim=1, keepdim=True) / lengths[:, None]
        centred = (waveform - mean).where(valid, waveform.new_zeros(()))
        variance = centred.square().sum(dim=1, keepdim=True) / lengths[:, None]
        return Features(centred / (variance + 1e-7).sqrt(), lengths)  # 1e-7 as the published extractor adds

    def hear(self, features: Features) -> Heard:
        values, lengths = features
        attention_mask = None
        if self.honest:
            attention_mask = (torch.arange(values.shape[1], device=values.device) < lengths[:, None]).long()
        all_layers = self.config.layer_sum
        outputs = self.network(values, attention_mask=attention_mask, output_hidden_states=all_layers)
        for kernel, stride in self._convolutions:
            lengths = (lengths - kernel) // stride + 1
        last = outputs.last_hidden_state
        mask = torch.arange(last.shape[1], device=last.device) < lengths[:, None]
        return Heard(list(outputs.hidden_states) if all_layers else [last], mask)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.feature_extractor], list(self.network.encoder.layers)


class ResNet(Backbone):
    """ResNet50, of timm, on a spectrogram as a grey picture. It sees the padding; clips are padded to one length."""

    def __init__(self, config: Config):
        from timm.models.resnet import Bottleneck
        from timm.models.resnet import ResNet as Network

        sizes = {"layers": (3, 4, 6, 3)}
        if config.small:
            # On 112 x 112 cells a wide first convolution costs most: three narrow ones instead.
            sizes = {"layers": (1, 1, 1, 1), "channels": (8, 16, 32, 64), "stem_type": "deep", "stem_width": 4}
        network = Network(Bottleneck, in_chans=1, num_classes=0, **sizes)
        super().__init__(config, network, network.num_features)

    bands = RESNET_SIZE // 32

    @property
    def shortest(self) -> int:
        return round(self.config.seconds * SAMPLE_RATE)

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        hop, samples = self.config.hop_length, waveform.shape[1]
        columns = samples // hop + 1
        if samples == self.shortest:
            columns = min(columns, RESNET_SIZE)
        if self.config.mel == "whisper":  # it drops the last column
            waveform = F.pad(waveform, (0, hop))
        return Features(log_mel(waveform, self.config)[..., :columns], (lengths // hop + 1).clamp(max=columns))

    def hear(self, features: Features) -> Heard:
        cells = self.network.forward_features(features.values[:, None])  # (B, d, 7, 7)
        frames = cells.transpose(2, 3).flatten(2).transpose(1, 2)  # (B, 49, d), time by time
        return Heard([frames], torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        network = self.network
        return [network.conv1, network.bn1], [network.layer1, network.layer2, network.layer3, network.layer4]


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

        width, layers, heads, hidden = _sizes(config)
        settings = ASTConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=hidden
        )
        super().__init__(config, ASTModel(settings), width)
        self.bands, self.table = self.network.embeddings.get_shape(settings)  # 12, 101

    def hear(self, features: Features) -> Heard:
        values, lengths = features
        network, stride = self.network, self.network.config.time_stride
        x = network.embeddings.patch_embeddings(values.transpose(1, 2))  # (B, 12 * W, d), time fastest
        times = x.shape[1] // self.bands
        x = x + self._positions(times)[:, 2:]
        tokens = torch.cat([network.embeddings.cls_token, network.embeddings.distillation_token], dim=1)
        tokens = tokens + network.embeddings.position_embeddings[:, :2]
        x = network.embeddings.dropout(torch.cat([tokens.expand(len(x), -1, -1), x], dim=1))

        heard = torch.arange(times, device=x.device) < ((lengths - self.patch) // stride + 1)[:, None]  # (B, W)
        mask = heard.repeat(1, self.bands)  # (B, 12 * W)
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        bias = F.pad(bias.masked_fill(~mask, torch.finfo(x.dtype).min), (2, 0))[:, None, None]
        states = [x]
        for layer in network.layers:
            states.append(layer(states[-1], bias))
        states[-1] = network.layernorm(states[-1])
        by_time = [self._by_time(state[:, 2:]) for state in self._chosen(states)]
        return Heard(by_time, heard.repeat_interleave(self.bands, dim=1))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.embeddings], list(self.network.layers)

    def _by_time(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.bands, -1)).transpose(1, 2).flatten(1, 2)

    def _positions(self, times: int) -> Float[Tensor, "1 tokens width"]:
        table = self.network.embeddings.position_embeddings
        plane = table[:, 2:].transpose(1, 2).unflatten(2, (self.bands, self.table))  # (1, d, 12, 101)
        if times > self.table:
            plane = F.interpolate(plane, (self.bands, times), mode="bilinear")
        return torch.cat([table[:, :2], plane[..., :times].flatten(2).transpose(1, 2)], dim=1)


class Beats(Patches):
    """BEATs, of `avlib.models.beats`, masked token by token."""

    window, scale, mean, deviation = "povey", BEATS_SCALE, BEATS_MEAN, 2 * BEATS_STD

    def __init__(self, config: Config):
        settings = BEATsConfig(finetuned_model=False, encoder_layerdrop=0.0)
        if config.small:
            width, layers, heads, hidden = _sizes(config)
            settings = BEATsConfig(
                encoder_layers=layers, encoder_embed_dim=width, encoder_ffn_embed_dim=hidden,
                encoder_attention_heads=heads, conv_pos=32, conv_pos_groups=4, embed_dim=width, finetuned_model=False,
                encoder_layerdrop=0.0,
            )  # fmt: skip
        super().__init__(config, BEATs(settings), settings.encoder_embed_dim)
        self.bands = config.facts.rows // self.patch  # 8

    def hear(self, features: Features) -> Heard:
        values, lengths = features
        tokens = values.shape[-1] // self.patch * self.bands
        mask = torch.arange(tokens, device=values.device) < (lengths // self.patch * self.bands)[:, None]
        depth = self.network.config.encoder_layers
        layers = range(depth) if self.config.layer_sum else [depth - 1]
        states = self.network.encode(values.transpose(1, 2), mask, list(layers))
        return Heard(list(states.split(self.width, dim=-1)), mask)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        first = [self.network.patch_embedding, self.network.layer_norm]
        projection = self.network.post_extract_proj
        return first if projection is None else [*first, projection], list(self.network.encoder.layers)

    @property
    def num_states(self) -> int:
        return len(self.parts()[1])


FAMILIES = {"whisper": Whisper, "wav2vec2": Wave, "hubert": Wave, "resnet": ResNet, "ast": AST, "beats": Beats}


def log_mel(waveform: Float[Tensor, "batch samples"], config: Config) -> Float[Tensor, "batch mels columns"]:
    """A spectrogram by the settings: Whisper's without its last column, torchaudio's with it."""
    make = whisper_log_mel if config.mel == "whisper" else resnet_log_mel
    return make(waveform, config.n_mels, hop_length=config.hop_length, n_fft=config.n_fft)


def _sizes(config: Config) -> tuple[int, int, int, int]:
    """Width, layers, heads and hidden width of a transformer."""
    facts = config.facts
    if config.small:
        return SMALL_WIDTH, SMALL_LAYERS, SMALL_HEADS, 4 * SMALL_WIDTH
    return facts.width, facts.layers, facts.heads, 4 * facts.width
