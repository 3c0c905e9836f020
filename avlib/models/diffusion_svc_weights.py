"""Diff-SVC's published files: sizes from weights, and the configuration beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from .. import checkpoints
from ..errors import CheckpointError
from ..settings import read_yaml
from . import sizes_that_fit

LOWEST, HIGHEST = 40, 1100  # hertz of the first and the last row of the pitch table
DEAD = ("fs2.mel_out.", "fs2.pitch_predictor.")  # published parameters that nothing reads


def read_svc(path: Path, cycle: int | None, build: Callable[..., nn.Module]) -> tuple[dict[str, Tensor], dict, dict]:
    """Tensors and settings of a published file or a saved folder, and the `config.yaml` beside a file."""
    tensors, content = checkpoints.read(path)
    if path.is_dir():
        if content.get("model") != "DiffusionSVC" or not isinstance(content.get("settings"), Mapping):
            raise CheckpointError(path, f"holds model {content.get('model')!r}", "'DiffusionSVC', with its settings")
        return tensors, content["settings"], {}
    if any(name.startswith("model.") for name in tensors):
        tensors = {name[6:]: values for name, values in tensors.items() if name.startswith("model.")}
    sizes = sizes_that_fit(build, _sizes(tensors), tensors)
    for name in ("spec_min", "spec_max"):  # one number for all bins, as in the template of the configuration
        if name in tensors and tensors[name].shape == (1, 1, 1):
            tensors[name] = tensors[name].expand(1, 1, sizes.get("mels", 128))
    beside = _read_yaml(path.with_name("config.yaml")) if cycle is None else {}
    return tensors, sizes | {"cycle": beside.get("dilation_cycle_length", 4) if cycle is None else cycle}, beside


def _sizes(tensors: Mapping[str, Tensor]) -> dict:
    """Sizes of a published model, from its tensors; {} if they are not there."""
    try:
        channels, mels, _ = tensors["denoise_fn.input_projection.weight"].shape
        width, betas = tensors["fs2.pitch_embed.weight"].shape[1], tensors["betas"]
        layers = {name.split(".")[2] for name in tensors if name.startswith("denoise_fn.residual_layers.")}
        found = {"mels": mels, "channels": channels, "unit_size": width, "condition_size": width}
        return found | {"layers": len(layers), "timesteps": len(betas), "max_beta": round(float(betas[-1]), 6)}
    except (KeyError, ValueError, IndexError, TypeError):
        return {}


def _read_yaml(path: Path) -> dict:
    try:
        content = read_yaml(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(path, f"cannot be read ({str(error).splitlines()[0]})", "a table in YAML") from error
    if not isinstance(content, dict):
        raise CheckpointError(path, f"holds a {type(content).__name__}", "a table of names and values")
    return content


def compare(model: nn.Module, path: Path, beside: Mapping) -> None:
    """Refuse a configuration that disagrees with the weights."""
    config = model.config
    own = {
        "audio_num_mel_bins": config.mels, "keep_bins": config.mels, "hidden_size": config.condition_size,
        "residual_channels": config.channels, "residual_layers": config.layers, "timesteps": config.timesteps,
        "K_step": config.timesteps, "max_beta": config.max_beta, "no_fs2": True, "f0_min": LOWEST, "f0_max": HIGHEST,
        "f0_bin": 256, "spec_min": model.spec_min.flatten().tolist(), "spec_max": model.spec_max.flatten().tolist(),
    }  # fmt: skip
    if beside.get("schedule_type", "linear") != "linear":
        del own["max_beta"]
    for name in filter(beside.__contains__, own):
        try:
            values = torch.tensor([beside[name]], dtype=torch.float64), torch.tensor([own[name]]).double()
            equal = torch.allclose(*values, atol=1e-4)
        except (TypeError, ValueError, RuntimeError):
            equal = False
        if not equal:
            there, here = (text[:50] + " ..." * (len(text) > 50) for text in map(str, (beside[name], own[name])))
            advice = "Use the configuration of this model; with cycle= the weights are read without one."
            raise CheckpointError(path, f"{name} is {there}", f"{here}, as in the weights", advice)
