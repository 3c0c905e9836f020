"""LoRA for a UNet of diffusers, through peft: low-rank changes of its attention, trained, saved and loaded.

Each of the four linear layers of an attention, W, gets two more of low rank that start as no change: W x + B(A(x)).

Source: Hu et al., "LoRA", ICLR 2022.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ... import checkpoints
from ...cache import publishing
from ...errors import CheckpointError, ParameterError

_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name for it in a folder
_LINEAR = r".*\.attn[12]\.to_(q|k|v|out\.0)"


def add_lora(unet: nn.Module, rank: int = 4) -> list[nn.Parameter]:
    """Give each linear layer of the UNet's attentions a change of low rank, which starts as none.

    Args:
        unet: diffusers' `UNet2DConditionModel`, changed in place; its own parameters are frozen.
        rank: 4 as published, which is 797,184 parameters in Stable Diffusion 1.4.

    Returns:
        The new parameters.

    Raises:
        ParameterError: the rank is not positive, there is no attention to text, or there is LoRA already.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ParameterError("rank", f"{rank}", "1 or more")
    _linears(unet)
    if lora_parameters(unet):
        raise ParameterError("unet", "has LoRA already", "one without", "Call unet.unload_lora() first.")
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=_LINEAR))
    return lora_parameters(unet)


def lora_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """All parameters of the UNet's LoRA, in a fixed order; none if it has no LoRA."""
    return [parameter for name, parameter in unet.named_parameters() if ".lora_" in name]


def save_lora(unet: nn.Module, path: Path | str) -> None:
    """Write LoRA as diffusers does today, so that `pipeline.load_lora_weights(path)` reads it.

    Args:
        unet: with LoRA.
        path: a `.safetensors` file; or a folder, in which the file gets its usual name.

    Raises:
        ParameterError: the UNet has no LoRA.
        CacheError: the disk is full or the folder cannot be written.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    if not lora_parameters(unet):
        raise ParameterError("unet", "has no LoRA", "one to which add_lora gave it")
    file = Path(path) if Path(path).suffix == ".safetensors" else Path(path) / _FILE
    tensors = {f"unet.{name}": tensor.contiguous() for name, tensor in get_peft_model_state_dict(unet).items()}
    with publishing(file) as unfinished:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished, {"format": "pt"})


def load_lora(unet: nn.Module, path: Path | str) -> list[nn.Parameter]:
    """Put the LoRA of a file into the UNet, in place of what it has, if any. Every tensor must fit.

    Args:
        unet: changed in place.
        path: a file that AudioToken or diffusers wrote in 2023 (names such as `attn1.processor.to_q_lora.down.weight`)
            or that diffusers or `save_lora` writes today (`attn1.to_q.lora_A.weight`, perhaps after `unet.`); or the
            folder that today's is in.

    Returns:
        The parameters of the LoRA.

    Raises:
        CheckpointError: the file cannot be read, or is not a LoRA of just this UNet's attentions.
        ParameterError: the UNet has no attention to text.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft
    from peft import set_peft_model_state_dict

    file = Path(path) / _FILE if Path(path).is_dir() else Path(path)
    tensors = {name.removeprefix("unet."): tensor for name, tensor in checkpoints.read(file).tensors.items()}
    tensors = convert_unet_state_dict_to_peft(tensors)
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name and tensor.ndim == 2}
    if len(ranks) != 1 or 0 in ranks:
        found = f"has ranks {sorted(ranks)}" if ranks else "holds no LoRA of attention"
        advice = f"The file seems to be {checkpoints.seems_to_be(tensors)}."
        raise CheckpointError(file, found, "a LoRA of one rank, as AudioToken's", advice)
    (rank,) = ranks
    expected = {}
    for name, linear in _linears(unet).items():
        expected[f"{name}.lora_A.weight"] = torch.empty(rank, linear.in_features, device="meta")
        expected[f"{name}.lora_B.weight"] = torch.empty(linear.out_features, rank, device="meta")
    checkpoints.require_fit(file, expected, tensors)  # peft would only warn

    if lora_parameters(unet):
        unet.unload_lora()
    add_lora(unet, rank)
    scale = _alpha(file, rank) / rank
    scaled = {name: scale * tensor if ".lora_B." in name else tensor for name, tensor in tensors.items()}
    set_peft_model_state_dict(unet, scaled)
    return lora_parameters(unet)


def _linears(unet: nn.Module) -> dict[str, nn.Module]:
    """The layers that LoRA changes, by name."""
    found = {name: module for name, module in unet.named_modules() if re.fullmatch(_LINEAR, name)}
    if not found:
        raise ParameterError("unet", "has no attention to text (attn1, attn2)", "a UNet2DConditionModel of diffusers")
    return found


def _alpha(file: Path, rank: int) -> float | int:
    """LoRA's scale times its rank, which peft writes into the header of a file; the rank where it does not."""
    from safetensors import safe_open

    if file.suffix != ".safetensors":
        return rank
    with safe_open(file, "pt") as opened:
        written = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
    try:
        settings = json.loads(written)
    except ValueError:
        return rank
    settings = settings if isinstance(settings, Mapping) else {}
    alpha = settings.get("lora_alpha", settings.get("unet.lora_alpha"))
    return alpha if isinstance(alpha, float | int) else rank
