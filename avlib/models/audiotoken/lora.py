"""LoRA for a UNet of diffusers: small changes of its attention that can be trained, saved and taken out again.

Each of the four linear layers of an attention, W, gets two more of low rank that start as no change: W x + up(down(x)).
Files are those of diffusers, as it wrote them in 2023, when AudioToken was published, and as it does today; there this
needs peft, which brings much more along than these two layers.

Source: Hu et al., "LoRA", ICLR 2022.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import checkpoints
from ...cache import publishing
from ...errors import CheckpointError, ParameterError

WEIGHTS = "pytorch_lora_weights.safetensors"  # what diffusers calls the file in a folder

_LINEAR = re.compile(r".*\.attn[12]\.to_(q|k|v|out\.0)")
_PARTS = {"lora_A": "down", "lora_B": "up", "lora.down": "down", "lora.up": "up"}


class LowRank(nn.Module):
    """What is added to a linear layer."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.down = nn.Linear(linear.in_features, rank, bias=False, **like)
        self.up = nn.Linear(rank, linear.out_features, bias=False, **like)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "*batch values"]) -> Float[Tensor, "*batch others"]:
        return self.up(self.down(x))


def add_lora(unet: nn.Module, rank: int = 4) -> list[nn.Parameter]:
    """Give each linear layer of the UNet's attentions a change of low rank, which starts as none.

    Args:
        unet: diffusers' `UNet2DConditionModel`, changed in place; its own parameters are left as they are.
        rank: 4 as published, which is 797,184 parameters in Stable Diffusion 1.4.

    Returns:
        The new parameters.

    Raises:
        ParameterError: the rank is not positive, there is no attention to text, or there is LoRA already.
    """
    if rank < 1:
        raise ParameterError("rank", f"{rank}", "1 or more")
    linears = _linears(unet)
    if any(_of(linear) for linear in linears.values()):
        raise ParameterError("unet", "has LoRA already", "one without", "Call remove_lora first.")
    for linear in linears.values():
        linear.lora = LowRank(linear, rank)
        linear.register_forward_hook(_add)
    return lora_parameters(unet)


def lora_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """All parameters of the UNet's LoRA, in a fixed order; none if it has no LoRA."""
    changes = [_of(linear) for linear in _linears(unet).values()]
    return [parameter for change in changes if change for parameter in change.parameters()]


def remove_lora(unet: nn.Module) -> None:
    """Take LoRA out; the UNet is what it was before."""
    for linear in _linears(unet).values():
        if _of(linear):
            del linear.lora
            for key in [key for key, hook in linear._forward_hooks.items() if hook is _add]:
                del linear._forward_hooks[key]


def save_lora(unet: nn.Module, path: Path | str) -> None:
    """Write LoRA as diffusers does today, so that `pipeline.load_lora_weights(path)` reads it.

    Args:
        unet: with LoRA.
        path: a `.safetensors` file; or a folder, in which the file gets its usual name.

    Raises:
        ParameterError: the UNet has no LoRA.
        CacheError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    file = _file(Path(path))
    tensors = {
        f"unet.{name}.{part}.weight": tensor.detach().contiguous()
        for name, linear in _linears(unet).items()
        if (change := _of(linear))
        for part, tensor in (("lora_A", change.down.weight), ("lora_B", change.up.weight))
    }
    if not tensors:
        raise ParameterError("unet", "has no LoRA", "one to which add_lora gave it")
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
    file = _file(Path(path)) if Path(path).is_dir() else Path(path)
    tensors = {_todays(name): tensor for name, tensor in checkpoints.read(file).tensors.items()}
    linears = _linears(unet)
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".down.weight") and tensor.ndim == 2}
    if len(ranks) != 1 or 0 in ranks:
        found = f"has ranks {sorted(ranks)}" if ranks else "holds no LoRA of attention"
        advice = f"The file seems to be {checkpoints.seems_to_be(tensors)}."
        raise CheckpointError(file, found, "a LoRA of one rank, as AudioToken's", advice)
    (rank,) = ranks
    expected = {}
    for name, linear in linears.items():
        expected[f"{name}.down.weight"] = torch.empty(rank, linear.in_features, device="meta")
        expected[f"{name}.up.weight"] = torch.empty(linear.out_features, rank, device="meta")
    checkpoints.require_fit(file, expected, tensors)

    scale = _alpha(file, rank) / rank
    remove_lora(unet)
    parameters = add_lora(unet, rank)
    with torch.no_grad():
        for name, linear in linears.items():
            linear.lora.down.weight.copy_(tensors[f"{name}.down.weight"])
            linear.lora.up.weight.copy_(scale * tensors[f"{name}.up.weight"])
    return parameters


def _linears(unet: nn.Module) -> dict[str, nn.Linear]:
    """The layers that LoRA changes, by name."""
    modules = unet.named_modules()
    found = {name: module for name, module in modules if _LINEAR.fullmatch(name) and isinstance(module, nn.Linear)}
    if not found:
        raise ParameterError("unet", "has no attention to text (attn1, attn2)", "a UNet2DConditionModel of diffusers")
    return found


def _of(linear: nn.Linear) -> LowRank | None:
    return getattr(linear, "lora", None)


def _add(linear: nn.Linear, args: tuple[Tensor], output: Tensor) -> Tensor:
    return output + linear.lora(args[0])


def _file(path: Path) -> Path:
    return path if path.suffix == ".safetensors" else path / WEIGHTS


def _todays(name: str) -> str:
    """`down_blocks.0 ... attn1.to_q.down.weight` for each of the names that files have for it."""
    name = name.removeprefix("unet.")
    name = re.sub(r"\.processor\.to_(q|k|v|out)_lora\.(down|up)\.", r".to_\1.\2.", name)
    name = re.sub(r"\.to_out\.(down|up)\.", r".to_out.0.\1.", name)
    return re.sub(rf"\.({'|'.join(map(re.escape, _PARTS))})\.weight$", lambda part: f".{_PARTS[part[1]]}.weight", name)


def _alpha(file: Path, rank: int) -> float | int:
    """What the change is multiplied by, times the rank: peft writes it into the header; without one it is the rank."""
    from safetensors import safe_open

    if file.suffix != ".safetensors":
        return rank
    with safe_open(file, "pt") as opened:
        written = (opened.metadata() or {}).get("lora_adapter_metadata")
    try:
        settings = json.loads(written) if written else {}
    except ValueError:
        settings = {}
    if not isinstance(settings, Mapping):
        return rank
    alpha = settings.get("lora_alpha", settings.get("unet.lora_alpha", rank))
    return alpha if isinstance(alpha, float | int) else rank
