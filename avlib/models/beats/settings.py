"""The settings of BEATs, which a published file has beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from ...errors import ParameterError
from ...features import BEATS_MELS

# What every published BEATs has, and without which this module would compute something else.
_ONLY = {"activation_fn": "gelu", "layer_norm_first": False, "relative_position_embedding": True, "gru_rel_pos": True}


# What may stand in a file for a setting of each type; True is no number.
_KINDS = {"int": ("int",), "float": ("float", "int"), "bool": ("bool",), "str": ("str",)}


@dataclass(frozen=True)
class Config:
    """Settings of the network under their published names; the defaults are those of the published checkpoint
    (BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2).

    Raises:
        ParameterError: a number out of range, numbers that do not go together, or a kind of network that no published
            BEATs is.
    """

    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    conv_bias: bool = False
    conv_pos: int = 128  # width of the convolution that tells positions, in tokens
    conv_pos_groups: int = 16
    relative_position_embedding: bool = True
    num_buckets: int = 320
    max_distance: int = 800  # in tokens; beyond, all distances count as one
    gru_rel_pos: bool = True
    deep_norm: bool = True
    input_patch_size: int = 16
    embed_dim: int = 512
    finetuned_model: bool = True  # whether there is a predictor
    predictor_class: int = 527
    # These act in training alone.
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    dropout_input: float = 0.0
    predictor_dropout: float = 0.0
    encoder_layerdrop: float = 0.05  # how often a layer is left out
    layer_wise_gradient_decay_ratio: float = 0.6  # by which the gradient shrinks from each layer to the one below

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value < 1:
                raise ParameterError(field.name, f"{value}", "1 or more")
            if field.type == "float" and not 0 <= value <= 1:
                raise ParameterError(field.name, f"{value}", "0 to 1")
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
        """The settings in a published "cfg"; what else stands there has no effect on the network.

        Raises:
            ParameterError: as the class; or a setting is missing that weights do not tell.
        """
        known = {field.name: field for field in fields(cls)}
        training = list(known)[list(known).index("dropout") :]
        missing = [name for name in known if name not in cfg and name not in training]
        if missing:
            raise ParameterError("cfg", f"has no {', '.join(missing)}", "all settings of the network")
        settings = {name: cfg[name] for name in known if name in cfg}
        for name, value in settings.items():
            kind = known[name].type
            if type(value).__name__ not in _KINDS[kind]:
                raise ParameterError(name, repr(value), f"of type {kind}")
        return cls(**settings)
