"""Models of libraries at small sizes: how to build each, its inputs, and sizes at which it is run again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass
class Known:
    """Something to trace with `dims` at `sizes`, and to run at each of `others`; `long` takes more than a second."""

    build: Callable[[], Callable]
    inputs: Callable[..., dict[str, Any]]
    dims: dict[str, str]
    sizes: dict[str, int]
    others: list[dict[str, int]]
    long: bool = True
    options: dict[str, Any] = field(default_factory=dict)


KNOWN: dict[str, Known] = {}


def known(name: str, build, inputs, dims, sizes, others, long: bool = True, **options: Any) -> None:
    KNOWN[name] = Known(build, inputs, dims, sizes, [{**sizes, **other} for other in others], long, options)


def of(path: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """What builds an object of a library, which is imported then."""

    def build() -> Any:
        module, _, name = path.rpartition(".")
        made = getattr(importlib.import_module(module), name)(*args, **kwargs)
        return made.eval() if isinstance(made, nn.Module) else made

    return build


# Pictures: timm and torchvision

SQUARES = [{"H": 96, "W": 96}, {"B": 1, "H": 128, "W": 160}, {"H": 64, "W": 97}, {"B": 3, "H": 75, "W": 64}]


def picture(
    name: str, build, sizes=(2, 64, 64), others=SQUARES, argument: str = "x", long: bool = True, **options: Any
) -> None:
    B, H, W = sizes
    known(
        name,
        build,
        lambda B, H, W: {argument: torch.randn(B, 3, H, W)},
        {argument: "B 3 H W"},
        {"B": B, "H": H, "W": W},
        others,
        long,
        **options,
    )


TIMM = {
    "resnet18": {},
    "resnetv2_18": {},
    "resnext26ts": {},
    "seresnet18": {},
    "mobilenetv2_050": {},
    "mobilenetv3_small_050": {},
    "efficientnet_lite0": {},
    "tf_efficientnet_b0": {},
    "efficientnetv2_rw_t": {},
    "regnetx_002": {},
    "regnety_002": {},
    "densenet121": {"growth_rate": 8, "block_config": (2, 2, 2, 2)},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "convnextv2_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "ghostnet_050": {},
    "hardcorenas_a": {},
    "mnasnet_050": {},
    "repvgg_a0": {},
    "vgg11": {},
    "dla34": {},
    "dpn48b": {},
    "edgenext_xx_small": {},
    "lcnet_035": {},
    "mobileone_s0": {},
    "poolformer_s12": {},
    "rexnet_100": {},
    "selecsls42": {},
    "tinynet_e": {},
    "xception41": {},
    "fastvit_t8": {},
    "efficientvit_b0": {},
    "repghostnet_050": {},
    "inception_next_tiny": {"depths": (1, 1, 1, 1)},
    "starnet_s1": {},
    "mobilenetv4_conv_small_035": {},
    "pvt_v2_b0": {},
    "mobilevit_xxs": {},
    "mobilevitv2_050": {},
    "efficientformer_l1": {},
    "gernet_s": {},
    "nf_regnet_b0": {},
    "skresnet18": {},
    "res2net50_14w_8s": {},
    "hrnet_w18_small": {},
    "visformer_tiny": {},
    "caformer_s18": {},
    "coat_lite_tiny": {},
    "crossvit_tiny_240": {},
    "vit_tiny_patch16_224": {"depth": 1, "dynamic_img_size": True},
    "beit_base_patch16_224": {"depth": 1, "embed_dim": 48, "num_heads": 2},
    "cait_xxs24_224": {"depth": 1},
    "deit_tiny_patch16_224": {"depth": 1},
    "mixer_s32_224": {},
    "gmlp_ti16_224": {},
    "resmlp_12_224": {},
    "swin_tiny_patch4_window7_224": {"depths": (1, 2), "embed_dim": 24, "num_heads": (2, 2)},
    "swinv2_tiny_window8_256": {"depths": (1, 2), "embed_dim": 24, "num_heads": (2, 2)},
    "twins_svt_small": {"depths": (1, 1, 1, 1)},
    "xcit_nano_12_p16_224": {"depth": 1},
    "pit_ti_224": {"depth": (1, 1, 1)},
    "levit_128s": {},
    "maxvit_rmlp_pico_rw_256": {"depths": (1, 1, 1, 1)},
    "hiera_tiny_224": {"stages": (1, 1, 1, 1), "embed_dim": 24},
    "focalnet_tiny_srf": {},
    "davit_tiny": {},
    "volo_d1_224": {},
    "tnt_s_patch16_224": {"depth": 1},
    "tiny_vit_5m_224": {},
    "botnet26t_256": {},
    "bat_resnext26ts": {},
    "lambda_resnet26t": {},
    "gcvit_xxtiny": {},
    "mvitv2_tiny": {},
    "repvit_m0_9": {},
    "naflexvit_base_patch16_gap": {"depth": 1},
}
FIXED = {
    "beit",
    "cait",
    "deit",
    "mixer",
    "gmlp",
    "resmlp",
    "crossvit",
    "levit",
    "tnt",
    "pit",
    "volo",
    "hiera",
    "halonet",
    "swin",
    "swinv2",
    "maxvit",
    "coat",
    "gcvit",
    "xcit",
    "mvitv2",
    "tiny",
    "botnet26t",
    "lambda",
    "bat",
    "twins",
    "visformer",
    "efficientformer",
    "focalnet",
    "davit",
    "nextvit",
}
for name, settings in TIMM.items():
    size = 224 if name.split("_")[0] in FIXED else 64
    size = 240 if name.startswith("crossvit") else 256 if "256" in name or name.startswith("bat") else size
    others = SQUARES if size == 64 else [{"B": 3}, {"H": size + 32, "W": size + 32}, {"H": size * 3 // 2}]
    picture(
        f"timm {name}",
        of("timm.create_model", name, **settings),
        (2, size, size),
        others,
        long=name not in ("resnet18", "lcnet_035"),
    )

TORCHVISION = [
    "alexnet",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mobilenet_v3_small",
    "googlenet",
    "resnet18",
    "mnasnet0_5",
    "regnet_y_400mf",
    "convnext_tiny",
    "efficientnet_b0",
    "vit_b_32",
    "swin_t",
    "swin_v2_t",
    "maxvit_t",
]
for name in TORCHVISION:
    options = {"weights": None} | ({"init_weights": False, "aux_logits": False} if name == "googlenet" else {})
    size = 224 if name in ("vit_b_32", "maxvit_t") else 96
    others = SQUARES if size == 96 else [{"B": 3}, {"H": 256, "W": 256}]
    picture(f"torchvision {name}", of(f"torchvision.models.{name}", **options), (2, size, size), others)
for name in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
    picture(
        f"torchvision {name}",
        of(f"torchvision.models.segmentation.{name}", weights=None, weights_backbone=None),
        argument="x" if name != "lraspp_mobilenet_v3_large" else "input",
    )
for name in ("r3d_18", "mc3_18", "r2plus1d_18"):
    known(
        f"torchvision {name}",
        of(f"torchvision.models.video.{name}", weights=None),
        lambda B, F, H, W: {"x": torch.randn(B, 3, F, H, W)},
        {"x": "B 3 F H W"},
        {"B": 1, "F": 16, "H": 64, "W": 64},
        [{"F": 20}, {"H": 80, "W": 96}, {"B": 2, "F": 17}],
    )


# Models that are built from settings: transformers and diffusers


def configured(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """What builds a model of transformers from the settings of its configuration."""
    return lambda: of(f"transformers.{model}", of(f"transformers.{config}", **settings)())()


LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
LAYERS |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_queries": 5}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1] * 4, "num_heads": [2] * 4, "window_size": 4}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 24], "depths": [1] * 4}
MASKS = configured(
    "MaskFormerForInstanceSegmentation",
    "MaskFormerConfig",
    backbone_config=SWIN | {"image_size": 64, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
    decoder_config={"model_type": "detr", "d_model": 16, **LAYERS},
    fpn_feature_size=32,
    mask_feature_size=32,
    num_labels=3,
)
BOXES = configured(
    "DeformableDetrModel",
    "DeformableDetrConfig",
    backbone_config=RESNET | {"out_features": ["stage3"], "layer_type": "basic"},
    d_model=32,
    num_feature_levels=2,
    **LAYERS,
)
OTHERS = [{"H": 96, "W": 128}, {"B": 3, "H": 100, "W": 65}, {"H": 70, "W": 128}]
picture("transformers maskformer", MASKS, argument="pixel_values", others=OTHERS)  # pads at every stage
picture("transformers deformable detr", BOXES, argument="pixel_values", others=OTHERS)  # sizes are keys of a cache
known(
    "transformers llama",  # with values a mask of ones is left out
    configured(
        "LlamaForCausalLM",
        "LlamaConfig",
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
    ),
    lambda B, T: {"input_ids": torch.randint(3, 50, (B, T)), "attention_mask": torch.ones(B, T, dtype=torch.long)},
    {"input_ids": "B T", "attention_mask": "B T"},
    {"B": 2, "T": 16},
    [{"T": 5}, {"B": 1, "T": 33}, {"B": 3, "T": 64}],
)
known(
    "diffusers dit",  # a square of any size
    of(
        "diffusers.DiTTransformer2DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_num_groups=4,
    ),
    lambda B, H, W: {
        "hidden_states": torch.randn(B, 4, H, W),
        "timestep": torch.full((B,), 3),
        "class_labels": torch.zeros(B, dtype=torch.long),
    },
    {"hidden_states": "B 4 H W", "timestep": "B", "class_labels": "B"},
    {"B": 2, "H": 16, "W": 16},
    [{"H": 24, "W": 24}, {"B": 1}, {"H": 24}],
)
