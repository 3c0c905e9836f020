"""The networks that hear: Whisper, Wav2Vec2 and HuBERT, ResNet50; and all of them by family."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...features import RESNET_SIZE, SAMPLE_RATE, resnet_log_mel, valid_mask, whisper_log_mel, without_padding
from .hearing import Backbone, Features, Layers, sizes
from .patches import AST, Beats
from .settings import Config
from .whisper import whisper_layers, whisper_mask


class Whisper(Backbone):
    """A Whisper encoder, of transformers; with a mask, as published it has none."""

    def __init__(self, config: Config):
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
    def shortest(self) -> int:
        return self.config.hop_length

    def features(self, waveform: Tensor, lengths: Tensor) -> Features:
        config = self.config
        columns = waveform.shape[1] // config.hop_length
        # As the published extractor does, zeros follow each clip: its last columns are the same in any batch.
        waveform = F.pad(waveform, (0, config.n_fft))
        return Features(log_mel(waveform, config)[..., :columns], lengths // config.hop_length)

    def hear(self, features: Features) -> Layers:
        states = whisper_layers(self.network, *features)
        return Layers(self._chosen(states), whisper_mask(features.values.shape[-1], features.lengths))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.network.conv1, self.network.conv2], list(self.network.layers)


class Wave(Backbone):
    """Wav2Vec2 or HuBERT, of transformers, on a waveform of zero mean and unit deviation."""

    def __init__(self, config: Config):
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
                # A layer that is left out now and then makes the states fewer; masks inside the network fail on short
                # clips. Both act in training alone.
                layerdrop=0.0, mask_time_prob=0.0, mask_feature_prob=0.0, **(small if config.small else {}),
            )
        )  # fmt: skip
        super().__init__(config, network, width)
        self.masks_padding = layered  # elsewhere the first convolution has mixed it into each frame
        if config.masked and not layered:
            warnings.warn(
                f"{config.backbone}: its first convolution is normalised over time, padding included, so what it says "
                "of a clip depends on how far the clip is padded. Attention is not masked; pooling leaves the padding "
                "out. Pad all clips to one length, or take a backbone with layer norms",
                UserWarning,
                stacklevel=3,
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
        mean = waveform.sum(dim=1, keepdim=True) / lengths[:, None]
        centred = without_padding(waveform - mean, lengths)
        variance = centred.square().sum(dim=1, keepdim=True) / lengths[:, None]
        return Features(centred / (variance + 1e-7).sqrt(), lengths)  # 1e-7 as the published extractor adds

    def hear(self, features: Features) -> Layers:
        values, lengths = features
        attention_mask = valid_mask(lengths, values.shape[1]).long() if self.masks_padding else None
        all_layers = self.config.layer_sum
        outputs = self.network(values, attention_mask=attention_mask, output_hidden_states=all_layers)
        for kernel, stride in self._convolutions:
            lengths = (lengths - kernel) // stride + 1
        last = outputs.last_hidden_state
        mask = valid_mask(lengths, last.shape[1])
        # With layer norms the network normalises after its last layer, which is not among the hidden states.
        return Layers([*outputs.hidden_states[:-1], last] if all_layers else [last], mask)

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

    def hear(self, features: Features) -> Layers:
        cells = self.network.forward_features(features.values[:, None])  # (B, d, 7, 7)
        frames = cells.transpose(2, 3).flatten(2).transpose(1, 2)  # (B, 49, d), time by time
        return Layers([frames], torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        network = self.network
        return [network.conv1, network.bn1], [network.layer1, network.layer2, network.layer3, network.layer4]


FAMILIES = {"whisper": Whisper, "wav2vec2": Wave, "hubert": Wave, "resnet": ResNet, "ast": AST, "beats": Beats}


def log_mel(waveform: Float[Tensor, "batch samples"], config: Config) -> Float[Tensor, "batch mels columns"]:
    """A spectrogram by the settings: Whisper's without its last column, torchaudio's with it."""
    make = whisper_log_mel if config.mel == "whisper" else resnet_log_mel
    return make(waveform, config.n_mels, hop_length=config.hop_length, n_fft=config.n_fft)
