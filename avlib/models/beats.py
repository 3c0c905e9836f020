"""BEATs: audio as tokens, the encoder of AudioToken.

    waveform (B, 160000) -> fbank (B, 998, 128) -> patches (B, 496, 512) -> width (B, 496, 768)
          -> plus positions from a convolution -> 12 layers with a relative bias on attention -> (B, 496, 768)

    layers 3, 7 and 11, side by side    -> (B, 496, 2304)    features for AudioToken
    predictor of each token, their mean -> (B, 527)          classes of AudioSet

N samples have T = 1 + (N - 400) // 160 frames and 8 * (T // 16) tokens: 8 of them, from low to high mel bands, for
every 0.16 s. Frames beyond the last full 16 are dropped. Parameters have the published names.

Source: Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", ICML 2023, arXiv 2212.09058, and its code
(microsoft/unilm, `beats`); the gated bias is that of Chi et al., "XLM-E", 2022, the scale of the residuals and the
initial weights those of Wang et al., "DeepNet", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, ParameterError, TooShortError, check_choice, check_whole
from ..features.lengths import check_lengths, check_sound, valid_mask, without_padding
from ..features.spectrograms import BEATS_MELS, BEATS_SAMPLE_RATE, beats_fbank, frame_geometry
from ..settings import Count, Share, settings

PADDINGS = ("token", "published")

Fbank = Float[Tensor, "batch frames mels"]
Tokens = Float[Tensor, "batch tokens width"]
Values = Float[Tensor, "batch tokens values"]  # of several layers, side by side
Bias = Float[Tensor, "heads tokens tokens"]  # of attention, for each query and key
Mask = Bool[Tensor, "batch tokens"]  # True = valid

# As in every published BEATs; another value would need another network.
_ONLY = {"activation_fn": "gelu", "layer_norm_first": False, "relative_position_embedding": True, "gru_rel_pos": True}


@settings
class Config:
    """Settings of the network, under their published names.

    The defaults are those of BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.
    """

    encoder_layers: Count = 12
    encoder_embed_dim: Count = 768
    encoder_ffn_embed_dim: Count = 3072
    encoder_attention_heads: Count = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    conv_bias: bool = False
    conv_pos: Count = 128  # width of the convolution that encodes positions, in tokens
    conv_pos_groups: Count = 16
    relative_position_embedding: bool = True
    num_buckets: Count = 320
    max_distance: Count = 800  # in tokens; beyond, all distances count as one
    gru_rel_pos: bool = True
    deep_norm: bool = True
    input_patch_size: Count = 16
    embed_dim: Count = 512
    finetuned_model: bool = True  # whether there is a predictor
    predictor_class: Count = 527
    # These act in training alone; a published file may lack them.
    dropout: Share = 0.0
    attention_dropout: Share = 0.0
    activation_dropout: Share = 0.0
    dropout_input: Share = 0.0
    predictor_dropout: Share = 0.0
    encoder_layerdrop: Share = 0.05  # how often a layer is left out
    layer_wise_gradient_decay_ratio: Share = 0.6  # of the gradient, from each layer to the one below

    def __post_init__(self):
        for name, value in _ONLY.items():
            if getattr(self, name) != value:
                raise ParameterError(name, repr(getattr(self, name)), f"{value!r}, as in every published BEATs")
        for name in ("encoder_attention_heads", "conv_pos_groups"):
            if self.encoder_embed_dim % getattr(self, name):
                raise ParameterError(name, f"{getattr(self, name)}", f"a divisor of the width {self.encoder_embed_dim}")
        if BEATS_MELS % self.input_patch_size:
            raise ParameterError("input_patch_size", f"{self.input_patch_size}", f"a divisor of {BEATS_MELS} mel bins")
        if self.num_buckets % 4 or self.max_distance <= self.num_buckets // 4:
            found = f"{self.num_buckets} with max_distance {self.max_distance}"
            raise ParameterError("num_buckets", found, "a multiple of 4, and less than 4 times max_distance")

    @classmethod
    def of(cls, cfg: Mapping) -> Config:
        """Read the settings in a published "cfg" and ignore its other entries."""
        known = [field.name for field in fields(cls)]
        missing = [name for name in known[: known.index("dropout")] if name not in cfg]
        if missing:
            raise ParameterError("cfg", f"has no {', '.join(missing)}", "all settings of the network")
        return cls(**{name: cfg[name] for name in known if name in cfg})


class PositionalConv(nn.Module):
    """A grouped convolution with weight g v / |v|, tap by tap.

    An even kernel, padded by half on both sides, gives one token too many: the last is dropped.
    """

    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_v = nn.Parameter(torch.empty(width, width // groups, kernel))
        nn.init.normal_(self.weight_v, std=math.sqrt(4 / (kernel * width)))
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))  # (1, 1, 128)

    def forward(self, x: Float[Tensor, "batch width tokens"]) -> Float[Tensor, "batch width tokens"]:
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=(0, 1), keepdim=True)
        x = F.conv1d(x, weight, self.bias, padding=self.kernel // 2, groups=self.groups)
        return x[..., :-1] if self.kernel % 2 == 0 else x


class Attention(nn.Module):
    """Self-attention with a relative bias, which a gate of each query scales."""

    def __init__(self, config: Config, relative_attention_bias: nn.Embedding):
        super().__init__()
        D = config.encoder_embed_dim
        self.heads, self.dropout = config.encoder_attention_heads, config.attention_dropout
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        self.relative_attention_bias = relative_attention_bias  # one table, shared by all layers
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(D, D) for _ in range(4))
        self.grep_linear = nn.Linear(D // self.heads, 8)

    def gate(self, query: Float[Tensor, "batch heads tokens size"]) -> Float[Tensor, "batch heads tokens 1"]:
        """Scale of the bias for each query: 1 to 2 at first."""
        open_, reset = self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1, keepdim=True).sigmoid().unbind(-2)
        return open_ * (reset * self.grep_a - 1) + 2

    def forward(self, x: Tokens, bias: Bias, padding: Float[Tensor, "batch 1 1 tokens"] | None) -> Tokens:
        projected = [project(x) for project in (self.q_proj, self.k_proj, self.v_proj)]
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)  # (B, 12, N, 64)
        gate = self.gate(query)  # (B, 12, N, 1)
        bias = gate * bias if padding is None else torch.addcmul(padding, gate, bias)  # (B, 12, N, N)
        x = F.scaled_dot_product_attention(query, key, value, bias, self.dropout if self.training else 0.0)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Post-norm attention and MLP, with residuals scaled by alpha."""

    def __init__(self, config: Config, relative_attention_bias: nn.Embedding):
        super().__init__()
        D, inner = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        self.self_attn = Attention(config, relative_attention_bias)
        self.self_attn_layer_norm = nn.LayerNorm(D)
        self.fc1, self.fc2 = nn.Linear(D, inner), nn.Linear(inner, D)
        self.final_layer_norm = nn.LayerNorm(D)
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0  # 2.21 for 12 layers
        self.dropout, self.activation_dropout = nn.Dropout(config.dropout), nn.Dropout(config.activation_dropout)
        gain = (8 * config.encoder_layers) ** -0.25 if config.deep_norm else 1.0
        for linear in (self.self_attn.v_proj, self.self_attn.out_proj, self.fc1, self.fc2):
            nn.init.xavier_normal_(linear.weight, gain)
        for linear in (self.self_attn.q_proj, self.self_attn.k_proj):
            nn.init.xavier_normal_(linear.weight)
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tokens, bias: Bias, padding: Float[Tensor, "batch 1 1 tokens"] | None) -> Tokens:
        x = self.self_attn_layer_norm(self.alpha * x + self.dropout(self.self_attn(x, bias, padding)))
        inner = self.activation_dropout(F.gelu(self.fc1(x)))  # (B, N, 3072)
        return self.final_layer_norm(self.alpha * x + self.dropout(self.fc2(inner)))


class Encoder(nn.Module):
    """Positions, and the layers."""

    def __init__(self, config: Config):
        super().__init__()
        D = config.encoder_embed_dim
        self.config = config
        self.pos_conv = nn.Sequential(PositionalConv(D, config.conv_pos, config.conv_pos_groups), nn.GELU())
        table = nn.Embedding(config.num_buckets, config.encoder_attention_heads)
        nn.init.normal_(table.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config, table) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(D)
        self.dropout = nn.Dropout(config.dropout)

    def bias(self, tokens: int) -> Bias:
        """Attention bias of each query (row) and key (column), before the gate."""
        table = self.layers[0].self_attn.relative_attention_bias
        buckets = distance_buckets(tokens, self.config.num_buckets, self.config.max_distance)
        return table(buckets.to(table.weight.device)).permute(2, 0, 1)

    def forward(self, x: Tokens, mask: Mask | None) -> list[Tokens]:
        padding = None
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
            attended = mask | ~mask.any(dim=1, keepdim=True)  # a row without valid tokens attends to all: finite values
            padding = x.new_zeros(attended.shape).masked_fill(~attended, -math.inf)[:, None, None]
        x = x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2)
        x = self.dropout(self.layer_norm(x))
        bias, outputs = self.bias(x.shape[1]), []
        for layer in self.layers:
            if x.requires_grad and self.config.layer_wise_gradient_decay_ratio != 1:
                x = x.view_as(x)  # not the output itself, of which a caller may want the whole gradient
                x.register_hook(lambda gradient: gradient * self.config.layer_wise_gradient_decay_ratio)
            if not self.training or torch.rand(()) >= self.config.encoder_layerdrop:
                x = layer(x, bias, padding)
            outputs.append(x)
        return outputs


def distance_buckets(tokens: int, num_buckets: int = 320, max_distance: int = 800) -> Int[Tensor, "tokens tokens"]:
    """Rows of the bias table by query and key, as in T5.

    Keys after the query take the second half of the table. In each half, the first half of the rows are for distances
    one by one, the others for distances that grow by a factor, up to `max_distance`.
    """
    place = torch.arange(tokens)
    distance = place - place[:, None]  # key - query
    half, single = num_buckets // 2, num_buckets // 4
    far = distance.abs().clamp(min=1).float()  # float32 as published: on it depends where a bucket begins
    far = single + (torch.log(far / single) / math.log(max_distance / single) * (half - single)).long()
    steps = torch.where(distance.abs() < single, distance.abs(), far.clamp(max=half - 1))
    return steps + half * (distance > 0)


class BEATs(nn.Module):
    """BEATs, pretrained or fine-tuned: 90,717,055 parameters with its classifier. Published: `BEATs`."""

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

    def encode(self, fbank: Fbank, mask: Mask | None = None, layers: Sequence[int] | None = None) -> Values:
        """Tokens of a normalised fbank, ordered by time, then from low to high: `(B, 496, len(layers) * 768)`.

        Args:
            fbank: `(B, 998, 128)`, of `beats_fbank`.
            mask: `(B, 496)`, True = valid, of `token_mask`; outputs of other tokens mean nothing. None: all are valid.
            layers: whose outputs to put side by side, counted from 0. None: the last layer's alone.
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
            expected = f"{tuple(x.shape[:2])}, one value for each token"
            raise ParameterError("mask", f"shape {tuple(mask.shape)}", expected)
        outputs = self.encoder(self.dropout_input(x), mask)
        return torch.cat([outputs[index] for index in layers], dim=-1) if len(layers) > 1 else outputs[layers[0]]

    def features(
        self, waveform: Float[Tensor, "batch samples"], layers: Sequence[int] = (3, 7, 11),
        lengths: Int[Tensor, " clips"] | None = None, padding: str = "token",
    ) -> Values:  # fmt: skip
        """Outputs of several layers, side by side, `(B, 496, 2304)` in the dtype of the weights.

        Published: `extract_features`. Tokens beyond the valid ones mean nothing.

        Args:
            waveform: `(B, 160000)`, 16 kHz, mono, in [-1, 1].
            layers: counted from 0; the published ones are the 4th, the 8th and the last.
            lengths: `(B,)`, the number of valid samples in each row of a right-padded batch. None: all.
            padding: see `token_mask`. With "token" each clip gets the values of its run alone (tested: to 2e-5).

        Raises:
            TooShortError: a clip that fills no patch, less than 2,800 samples (0.175 s).
        """
        return self.encode(*self._prepare(waveform, lengths, padding), layers)

    def token_mask(self, samples: int, lengths: Int[Tensor, " clips"], padding: str = "token") -> Mask:
        """Mask of the tokens that are valid in a right-padded batch, True = valid.

        With the padding "token" they are those that a clip of `lengths` samples has alone: of 6.5 s in 10 s 320 of 496.
        "published" (325) folds the padding of samples to frames, and that of frames to tokens, as BEATs does: as if
        tokens were ordered by time alone, so that in the patch where the clip ends low bands are kept and high ones are
        not; and as if every sample were in one frame, so that short batches drift.
        """
        check_choice("padding", padding, PADDINGS)
        self._check_lengths(lengths, (*lengths.shape, samples))
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

    def logits(self, fbank: Fbank, mask: Mask | None = None) -> Float[Tensor, "batch classes"]:
        """Logits of each class, the mean over those of valid tokens; see `encode`."""
        if self.predictor is None:
            found = "False: this model has no classifier"
            raise ParameterError("finetuned_model", found, "a fine-tuned BEATs", "Take its `features`.")
        logits = self.predictor(self.predictor_dropout(self.encode(fbank, mask)))  # (B, 496, 527)
        if mask is None:
            return logits.mean(dim=1)
        valid = mask[..., None]
        return logits.masked_fill(~valid, 0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)

    def predictions(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " clips"] | None = None,
        padding: str = "token",
    ) -> Float[Tensor, "batch classes"]:  # fmt: skip
        """Probability of each class; see `features`. Published: `extract_features`, fine-tuned."""
        return self.logits(*self._prepare(waveform, lengths, padding)).sigmoid()

    def save(self, path: Path | str) -> None:
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "cfg": asdict(self.config)})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> BEATs:
        """Build a model from a published file or a folder of `save`.

        Settings are those of the file: weights do not show `max_distance` and `deep_norm`. The table of the relative
        bias is in a file under a name for each layer; as published, the last counts.
        """
        tensors, config = checkpoints.read(path)
        cfg = config.get("cfg")
        if not isinstance(cfg, Mapping):
            expected = 'a BEATs file: {"cfg": ..., "model": ...}'
            advice = f"The file seems to be {checkpoints.seems_to_be(tensors)}."
            raise CheckpointError(path, 'has no settings under "cfg"', expected, advice)
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

    def _prepare(self, waveform: Tensor, lengths: Tensor | None, padding: str) -> tuple[Fbank, Mask | None]:
        """The fbank in the weights' dtype, and the mask of valid tokens."""
        mask = None
        if not isinstance(waveform, Tensor):
            check_sound(waveform)  # says what it is
        lengths = None if lengths is None else lengths.to(waveform.device)
        self._check_lengths(lengths, waveform.shape)
        if lengths is not None:
            mask = self.token_mask(waveform.shape[1], lengths, padding)
            if padding == "token":
                waveform = without_padding(waveform, lengths)
        return beats_fbank(waveform).to(self.patch_embedding.weight.dtype), mask

    def _check_lengths(self, lengths: Tensor | None, shape: tuple) -> None:
        note = f", which is {self.shortest / BEATS_SAMPLE_RATE} s at 16 kHz"
        check_lengths(lengths, shape, self.shortest, note)


def length_buckets(lengths: Sequence[int], waste: float | int = 0.1, size: int = 8) -> list[list[int]]:
    """Group clips of similar length into batches, lists of their indices, with little padding.

    Clips are taken from the longest down; a batch ends before a clip that would make too much of it padding.
    """
    if not 0 <= waste < 1:
        raise ParameterError("waste", f"{waste}", "0 or more, and less than 1")
    check_whole("size", size, 1)
    buckets: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        last = [*buckets[-1], index] if buckets else []
        if last and len(last) <= size and sum(lengths[i] for i in last) >= (1 - waste) * lengths[last[0]] * len(last):
            buckets[-1] = last
        else:
            buckets.append([index])
    return buckets
