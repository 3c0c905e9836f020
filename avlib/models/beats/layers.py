"""The transformer of BEATs: positions from a convolution, a relative bias with gates, residuals that are enlarged."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .settings import Config


class PositionalConv(nn.Module):
    """A grouped convolution that keeps the number of tokens. Its weight is g v / |v|, the norm for each tap by itself.

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
    """Self-attention with a relative bias that each query opens or closes by a gate of its own."""

    def __init__(self, config: Config, relative_attention_bias: nn.Embedding):
        super().__init__()
        D = config.encoder_embed_dim
        self.heads, self.dropout = config.encoder_attention_heads, config.attention_dropout
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        self.relative_attention_bias = relative_attention_bias  # one table, which all layers hold
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(D, D) for _ in range(4))
        self.grep_linear = nn.Linear(D // self.heads, 8)

    def gate(self, query: Float[Tensor, "batch heads tokens size"]) -> Float[Tensor, "batch heads tokens 1"]:
        """How strongly each query heeds distance, between 1 and 2 if `grep_a` is 1."""
        open_, reset = self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1, keepdim=True).sigmoid().unbind(-2)
        return open_ * (reset * self.grep_a - 1) + 2

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        bias: Float[Tensor, "heads tokens tokens"],
        hidden: Float[Tensor, "batch 1 1 tokens"] | None,
    ) -> Float[Tensor, "batch tokens width"]:
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, 12, N, 64)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        gate = self.gate(query)
        bias = gate * bias if hidden is None else torch.addcmul(hidden, gate, bias)  # (B, 12, N, N)
        x = F.scaled_dot_product_attention(query, key, value, bias, self.dropout if self.training else 0.0)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then two linear layers; each added to its input, which is enlarged, and normalised after that."""

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

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        bias: Float[Tensor, "heads tokens tokens"],
        hidden: Float[Tensor, "batch 1 1 tokens"] | None,
    ) -> Float[Tensor, "batch tokens width"]:
        x = self.self_attn_layer_norm(self.alpha * x + self.dropout(self.self_attn(x, bias, hidden)))
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

    def bias(self, tokens: int) -> Float[Tensor, "heads tokens tokens"]:
        """What attention adds for the distance between query (rows) and key (columns), before the gate."""
        table = self.layers[0].self_attn.relative_attention_bias
        buckets = distance_buckets(tokens, self.config.num_buckets, self.config.max_distance)
        return table(buckets.to(table.weight.device)).permute(2, 0, 1)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch tokens"] | None
    ) -> list[Float[Tensor, "batch tokens width"]]:
        """The output of each layer."""
        hidden = None
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
            heard = mask | ~mask.any(dim=1, keepdim=True)  # where there is nothing to hear, all: finite, and no more
            hidden = x.new_zeros(heard.shape).masked_fill(~heard, -math.inf)[:, None, None]
        x = x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2)
        x = self.dropout(self.layer_norm(x))
        bias, outputs = self.bias(x.shape[1]), []
        for layer in self.layers:
            if x.requires_grad and self.config.layer_wise_gradient_decay_ratio != 1:
                x = x.view_as(x)  # not the output itself, of which a caller may want the whole gradient
                x.register_hook(lambda gradient: gradient * self.config.layer_wise_gradient_decay_ratio)
            if not self.training or torch.rand(()) >= self.config.encoder_layerdrop:
                x = layer(x, bias, hidden)
            outputs.append(x)
        return outputs


def distance_buckets(tokens: int, num_buckets: int = 320, max_distance: int = 800) -> Int[Tensor, "tokens tokens"]:
    """The row of the bias table for each query (rows) and key (columns), as in T5.

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
