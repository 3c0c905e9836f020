"""Backbones from waveforms to frames: Whisper, Wav2Vec2, HuBERT, ResNet50, AST and BEATs, with masks.

Frames are ordered by time and then from low to high bands; only patches and pictures have more than one band.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ParameterError, ShapeError, TooShortError
from ...features import frame_geometry, kaldi_fbank, resnet_log_mel, whisper_log_mel
from ...features.lengths import all_hold, valid_mask, without_padding
from ...features.spectrograms import BEATS_MEAN, BEATS_SCALE, BEATS_SHORTEST, BEATS_STD, RESNET_SIZE, SAMPLE_RATE
from ..beats import BEATs
from ..beats import Config as BEATsConfig
from .config import SMALL_LAYERS, ResolvedConfig

SMALL_WIDTH, SMALL_HEADS = 64, 4
AST_MEAN, AST_STD = -4.2677393, 4.5689974  # of AudioSet, with which the published AST was trained

LogMel = Float[Tensor, "batch mels columns"]
Positions = Float[Tensor, "batch positions width"]
Lengths = Int[Tensor, " clips"] | Sequence[int] | None


class Features(NamedTuple):
    """Input of a network."""

    values: Float[Tensor, "batch ..."]  # spectrograms (B, rows, T), low bands first, or waveforms (B, samples)
    lengths: Int[Tensor, " batch"]  # valid columns or samples


class Layers(NamedTuple):
    """Hidden states of layers, and the mask of valid frames."""

    states: list[Float[Tensor, "batch frames width"]]
    mask: Bool[Tensor, "batch frames"]


class Backbone(nn.Module):
    """A published network with its features and its mask.

    A subclass defines `min_samples`, to which shorter clips are padded; `features(waveform, lengths)`, of waveforms
    that are zero beyond their lengths; `encode(features)`, which returns the last layer, or with `layer_sum` all of
    them; and `parts()`, first convolutions and layers, which can be frozen separately.
    """

    bands = 1  # frames for one time

    def __init__(self, config: ResolvedConfig, network: nn.Module, width: int):
        super().__init__()
        self.config, self.network, self.width = config, network, width

    @property
    def num_states(self) -> int:
        """Number of states that `encode` gives with `layer_sum`."""
        return len(self.parts()[1]) + 1

    def _chosen(self, states: list[Tensor]) -> list[Tensor]:
        return states if self.config.layer_sum else states[-1:]


def sizes(config: ResolvedConfig) -> tuple[int, int, int, int]:
    """Width, layers, heads and hidden width of a transformer."""
    facts = config.facts
    if config.small:
        return SMALL_WIDTH, SMALL_LAYERS, SMALL_HEADS, 4 * SMALL_WIDTH
    return facts.width, facts.layers, facts.heads, 4 * facts.width


def log_mel(waveform: Float[Tensor, "batch samples"], config: ResolvedConfig) -> LogMel:
    """Return Whisper's spectrogram without its last column, or torchaudio's with it."""
    make = whisper_log_mel if config.mel == "whisper" else resnet_log_mel
    return make(waveform, config.n_mels, hop_length=config.hop_length, n_fft=config.n_fft)


class Whisper(Backbone):
    """A Whisper encoder of transformers; the published one has no mask."""

    def __init__(self, config: ResolvedConfig):
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        width, layers, heads, hidden = sizes(config)
        network = WhisperEncoder(
            WhisperConfig(
                num_mel_bins=config.facts.rows, d_model=width, encoder_layers=layers, encoder_attention_heads=heads,
                encoder_ffn_dim=hidden, encoder_layerdrop=0.0,
            )
        )  # fmt: skip
        if config.small:
            # As transformers draws them they are so small that, in a narrow network, positions drown the sound.
            network.conv1.reset_parameters()
            network.conv2.reset_parameters()
        super().__init__(config, network, width)

    @property
    def min_samples(self) -> int:
        return self.config.hop_length

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        config = self.config
        columns = waveform.shape[1] // config.hop_length
        # As in the published extractor zeros follow each clip, so its last columns are the same in any batch.
        waveform = F.pad(waveform, (0, config.n_fft))
        return Features(log_mel(waveform, config)[..., :columns], lengths // config.hop_length)

    def encode(self, features: Features) -> Layers:
        states = whisper_layers(self.network, *features)
        return Layers(self._chosen(states), whisper_mask(features.values.shape[-1], features.lengths))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.conv1, self.network.conv2], list(self.network.layers)


def encode_whisper(encoder: nn.Module, log_mel: LogMel, lengths: Lengths = None) -> Positions:
    """Encode spectrograms of any length with transformers' WhisperEncoder; return its last hidden states.

    A shorter input takes the beginning of the encoder's table of positions; for a longer one the table is continued by
    Whisper's sinusoids, of which it is made.

    Args:
        log_mel: `(B, 80, T)`, of `features.whisper_log_mel`, gives `(B, ceil(T / 2), d)`.
        lengths: valid columns of right-padded rows. Padding is then zero before each convolution and masked in
            attention, so that each clip gets the values that it has alone; positions beyond `ceil(length / 2)` mean
            nothing. None: all columns are valid.
    """
    return whisper_layers(encoder, log_mel, lengths)[-1]


def whisper_layers(encoder: nn.Module, log_mel: LogMel, lengths: Lengths = None) -> list[Positions]:
    """Return the input of the first layer and the output of each; see `encode_whisper`."""
    from transformers.models.whisper.modeling_whisper import sinusoids

    batch, rows, columns = log_mel.shape
    if rows != (expected := encoder.conv1.in_channels):
        advice = "Make the spectrogram with so many mel bins, or fill it up with rows of conditions."
        raise ShapeError("log_mel", f"{rows} rows", f"{expected}, as the encoder was made for", advice)
    if columns < 1:
        raise TooShortError("log_mel", "no column", "at least one", "Give a longer clip.")
    valid = mask = None
    if lengths is not None:
        lengths = torch.as_tensor(lengths).to(log_mel.device)
        if lengths.shape != (batch,):
            raise ParameterError("lengths", f"shape {tuple(lengths.shape)}", f"({batch},), one number for each clip")
        if not all_hold((lengths >= 1) & (lengths <= columns)):
            found = f"{int(lengths.min())} to {int(lengths.max())} columns"
            raise ParameterError("lengths", found, f"1 to {columns}, those of log_mel")
        valid = valid_mask(lengths, columns)  # (B, T)
        mask = whisper_mask(columns, lengths)  # (B, T / 2)
        log_mel = log_mel.where(valid[:, None], log_mel.new_zeros(()))

    x = F.gelu(encoder.conv1(log_mel))  # (B, d, T)
    if valid is not None:
        x = x.masked_fill(~valid[:, None], 0)
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)  # (B, T / 2, d)
    count, positions = x.shape[1], encoder.embed_positions.weight
    if count <= len(positions):
        positions = positions[:count]
    else:
        longer = sinusoids(count, positions.shape[1])[len(positions) :]
        positions = torch.cat([positions, longer.to(positions)])
    x = x + positions
    x = F.dropout(x, encoder.dropout, encoder.training)

    bias = None if mask is None else _attention_bias(mask, x)[:, None, None]  # (B, 1, 1, T / 2)
    states = [x]
    for layer in encoder.layers:
        if not (encoder.training and encoder.layerdrop > 0 and torch.rand([]) < encoder.layerdrop):
            x = layer(x, bias)
        states.append(x)
    return [*states[:-1], encoder.layer_norm(x)]


def whisper_mask(columns: int, lengths: Int[Tensor, " batch"]) -> Bool[Tensor, "batch positions"]:
    """Mask of valid positions: `ceil(length / 2)` of `ceil(columns / 2)`."""
    return valid_mask((lengths + 1) // 2, (columns + 1) // 2)


def _attention_bias(mask: Bool[Tensor, "batch tokens"], like: Tensor) -> Float[Tensor, "batch tokens"]:
    """An additive mask, which every kind of attention in transformers understands."""
    bias = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return bias.masked_fill(~mask, torch.finfo(like.dtype).min)


class Wave(Backbone):
    """Wav2Vec2 or HuBERT of transformers, on waveforms of zero mean and unit deviation."""

    min_samples = 400  # for one frame

    def __init__(self, config: ResolvedConfig):
        from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

        width, layers, heads, hidden = sizes(config)
        kinds = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "hubert": (HubertConfig, HubertModel)}
        settings, model = kinds[config.facts.family]
        layered = config.norm == "layer"  # published ones with layer norms have these three together
        small = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 4}
        network = model(
            settings(
                hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=hidden,
                feat_extract_norm=config.norm, conv_bias=layered, do_stable_layer_norm=layered,
                # Dropped layers would make the states fewer; masks inside the network fail on short clips.
                layerdrop=0.0, mask_time_prob=0.0, mask_feature_prob=0.0, **(small if config.small else {}),
            )
        )  # fmt: skip
        super().__init__(config, network, width)
        self.masks_padding = layered  # elsewhere the first convolution has mixed it into each frame
        if config.masked and not layered:
            text = (
                f"{config.backbone}: its first convolution is normalised over time, padding included, so its output "
                "depends on how far a clip is padded. Attention is not masked; pooling leaves the padding out. Pad all "
                "clips to one length, or take a backbone with layer norms"
            )
            warnings.warn(text, UserWarning, stacklevel=3)

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        mean = waveform.sum(dim=1, keepdim=True) / lengths[:, None]
        centred = without_padding(waveform - mean, lengths)
        variance = centred.square().sum(dim=1, keepdim=True) / lengths[:, None]
        return Features(centred / (variance + 1e-7).sqrt(), lengths)  # 1e-7 as the published extractor adds

    def encode(self, features: Features) -> Layers:
        values, lengths = features
        attention_mask = valid_mask(lengths, values.shape[1]).long() if self.masks_padding else None
        all_layers = self.config.layer_sum
        outputs = self.network(values, attention_mask=attention_mask, output_hidden_states=all_layers)
        last = outputs.last_hidden_state
        mask = valid_mask(self.network._get_feat_extract_output_lengths(lengths), last.shape[1])
        # With layer norms the network normalises after its last layer, which is not among the hidden states.
        return Layers([*outputs.hidden_states[:-1], last] if all_layers else [last], mask)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.feature_extractor], list(self.network.encoder.layers)


class ResNet(Backbone):
    """ResNet50 of timm, on spectrograms as grey pictures. Its pooling sees the padding."""

    bands = RESNET_SIZE // 32

    def __init__(self, config: ResolvedConfig):
        from timm.models.resnet import Bottleneck
        from timm.models.resnet import ResNet as Network

        sizes = {"layers": (3, 4, 6, 3)}
        if config.small:
            # On 112 x 112 cells a wide first convolution costs most: three narrow ones instead.
            sizes = {"layers": (1, 1, 1, 1), "channels": (8, 16, 32, 64), "stem_type": "deep", "stem_width": 4}
        network = Network(Bottleneck, in_chans=1, num_classes=0, **sizes)
        super().__init__(config, network, network.num_features)

    @property
    def min_samples(self) -> int:
        return round(self.config.seconds * SAMPLE_RATE)

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        hop, samples = self.config.hop_length, waveform.shape[1]
        columns = samples // hop + 1
        if samples == self.min_samples:
            columns = min(columns, RESNET_SIZE)
        if self.config.mel == "whisper":  # it drops the last column
            waveform = F.pad(waveform, (0, hop))
        return Features(log_mel(waveform, self.config)[..., :columns], (lengths // hop + 1).clamp(max=columns))

    def encode(self, features: Features) -> Layers:
        cells = self.network.forward_features(features.values[:, None])  # (B, d, 7, 7)
        frames = cells.transpose(2, 3).flatten(2).transpose(1, 2)  # (B, 49, d), time by time
        return Layers([frames], torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        network = self.network
        return [network.conv1, network.bn1], [network.layer1, network.layer2, network.layer3, network.layer4]


class Patches(Backbone):
    """Networks on 16 x 16 patches of Kaldi's fbank."""

    patch, min_samples = 16, BEATS_SHORTEST
    window, scale, mean, deviation = "hanning", 1.0, AST_MEAN, 2 * AST_STD

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        width, hop, _ = frame_geometry(SAMPLE_RATE)
        fbank = kaldi_fbank(waveform * self.scale, SAMPLE_RATE, self.config.n_mels, self.window)  # (B, T, mels)
        fbank = (fbank - self.mean) / self.deviation
        return Features(fbank.transpose(1, 2), (lengths - width) // hop + 1)


class AST(Patches):
    """Audio Spectrogram Transformer of transformers: overlapping patches, positions from a table.

    A shorter clip takes the beginning of the table, in each band; for a longer one it is stretched. The patches are
    pooled; published, its two class tokens are.
    """

    def __init__(self, config: ResolvedConfig):
        from transformers import ASTConfig, ASTModel

        width, layers, heads, hidden = sizes(config)
        sized = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        settings = ASTConfig(**sized, intermediate_size=hidden)
        super().__init__(config, ASTModel(settings), width)
        self.bands, self.table = self.network.embeddings.get_shape(settings)  # 12, 101

    def encode(self, features: Features) -> Layers:
        values, lengths = features
        network, stride = self.network, self.network.config.time_stride
        x = network.embeddings.patch_embeddings(values.transpose(1, 2))  # (B, 12 * W, d), time fastest
        times = x.shape[1] // self.bands
        positions = network.embeddings.position_embeddings
        plane = positions[:, 2:].transpose(1, 2).unflatten(2, (self.bands, self.table))  # (1, d, 12, 101)
        if times > self.table:
            plane = F.interpolate(plane, (self.bands, times), mode="bilinear")
        x = x + plane[..., :times].flatten(2).transpose(1, 2)
        tokens = torch.cat([network.embeddings.cls_token, network.embeddings.distillation_token], dim=1)
        tokens = tokens + positions[:, :2]
        x = network.embeddings.dropout(torch.cat([tokens.expand(len(x), -1, -1), x], dim=1))

        valid = valid_mask((lengths - self.patch) // stride + 1, times)  # (B, W)
        bias = F.pad(_attention_bias(valid.repeat(1, self.bands), x), (2, 0))[:, None, None]  # (B, 1, 1, 2 + 12 * W)
        states = [x]
        for layer in network.layers:
            states.append(layer(states[-1], bias))
        states[-1] = network.layernorm(states[-1])
        planes = (state[:, 2:].unflatten(1, (self.bands, -1)) for state in self._chosen(states))
        by_time = [plane.transpose(1, 2).flatten(1, 2) for plane in planes]
        return Layers(by_time, valid.repeat_interleave(self.bands, dim=1))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.embeddings], list(self.network.layers)


class Beats(Patches):
    """BEATs of `avlib.models.beats`, masked per token."""

    window, scale, mean, deviation = "povey", BEATS_SCALE, BEATS_MEAN, 2 * BEATS_STD

    def __init__(self, config: ResolvedConfig):
        width, layers, heads, hidden = sizes(config)
        settings = BEATsConfig(
            encoder_layers=layers, encoder_embed_dim=width, encoder_ffn_embed_dim=hidden, encoder_attention_heads=heads,
            finetuned_model=False, encoder_layerdrop=0.0,
            **({"conv_pos": 32, "conv_pos_groups": 4, "embed_dim": width} if config.small else {}),
        )  # fmt: skip
        super().__init__(config, BEATs(settings), width)
        self.bands = config.facts.rows // self.patch  # 8

    def encode(self, features: Features) -> Layers:
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
        return len(self.parts()[1])  # without the input of the first layer


FAMILIES = {"whisper": Whisper, "wav2vec2": Wave, "hubert": Wave, "resnet": ResNet, "ast": AST, "beats": Beats}
