"""The sizes of CAV-MAE: which fit together, and which ones a file of weights was made with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn

from ... import checkpoints
from ...errors import ParameterError
from ..patches import patch_grid


@dataclass(frozen=True)
class Sizes:
    """Sizes of the network; the defaults are the published ones. A classifier has no decoder and ignores its sizes.

    Raises:
        ParameterError: not a positive whole number, an input that patches do not fill, a width that heads do not share.
    """

    audio_length: int = 1024  # frames
    mel_bins: int = 128
    audio_patch: int = 16
    image_size: int = 224
    image_channels: int = 3
    image_patch: int = 16
    width: int = 768
    heads: int = 12
    modality_depth: int = 11
    shared_depth: int = 1
    decoder_width: int = 512
    decoder_heads: int = 16
    decoder_depth: int = 8
    mlp_ratio: int = 4

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ParameterError(name, repr(value), "a whole number, 1 or more")
        for width, heads in ((self.width, self.heads), (self.decoder_width, self.decoder_heads)):
            if width % 4 or width % heads:  # a quarter each for sine and cosine, of column and of row
                raise ParameterError("width", f"{width} with {heads} heads", "a multiple of 4 and of the heads")
        _ = self.grids

    @property
    def patches(self) -> dict[str, int]:
        """Side of a patch of each modality, "a" audio and "v" image."""
        return {"a": self.audio_patch, "v": self.image_patch}

    @property
    def channels(self) -> dict[str, int]:
        return {"a": 1, "v": self.image_channels}

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of patches: (8, 64), mel by time, for audio and (14, 14) for images."""
        return {
            "a": patch_grid("mel_bins x audio_length", (self.mel_bins, self.audio_length), self.audio_patch),
            "v": patch_grid("image_size", (self.image_size, self.image_size), self.image_patch),
        }


def settings_of(
    model: type[nn.Module],
    tensors: Mapping[str, Tensor],
    config: Mapping,
    options: tuple[str, ...],
    given: Mapping,
) -> dict:
    """With which settings to build a model so that a file fits it, if any do.

    Args:
        model: a class that takes sizes by keyword.
        tensors: those of the file.
        config: what avlib saved with them; empty for a published file.
        options: settings besides sizes that may be taken from `config`.
        given: settings that the user insists on.

    Returns:
        `given`, filled up from `config`; without one, with the sizes that the shapes tell if these explain the file
        better than the published sizes do. So a single odd tensor is reported as such, not taken for a size.

    Raises:
        ParameterError: a number of attention heads is needed, which weights do not tell.
    """
    saved = config.get("settings")
    if isinstance(saved, Mapping):
        known = {*options, *(field.name for field in fields(Sizes))}
        return {name: value for name, value in saved.items() if name in known} | dict(given)

    def misfit(sizes: dict) -> float:
        try:
            with torch.device("meta"):  # shapes alone; heads do not show in them
                expected = model(**{**sizes, **given, "heads": 1, "decoder_heads": 1}).state_dict()
        except ParameterError:
            return math.inf
        return sum(map(len, checkpoints.differences(expected, tensors)))

    sizes = min({}, _sizes_told_by(tensors), key=misfit)
    for part in ("", "decoder_"):
        width, heads = f"{part}width", f"{part}heads"
        if sizes.get(width, getattr(Sizes, width)) != getattr(Sizes, width) and heads not in given:
            found = f"not to be read from weights of {width} {sizes[width]}"
            raise ParameterError(heads, found, "the number that the model was trained with")
    return sizes | dict(given)


def _sizes_told_by(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes that shapes tell (of audio: with 128 mel bins); none where the tensors that tell are absent or odd."""

    def depth(blocks: str) -> int:
        return len({name.split(".")[1] for name in tensors if name.startswith(f"{blocks}.")})

    try:
        width, _, _, audio_patch = tensors["patch_embed_a.proj.weight"].shape
        sizes = {
            "width": width,
            "audio_patch": audio_patch,
            "audio_length": tensors["pos_embed_a"].shape[1] // (Sizes.mel_bins // audio_patch) * audio_patch,
            "mlp_ratio": tensors["blocks_u.0.mlp.fc1.weight"].shape[0] // width,
            "modality_depth": depth("blocks_a"),
            "shared_depth": depth("blocks_u"),
        }
        if "pos_embed_v" in tensors:
            _, channels, _, image_patch = tensors["patch_embed_v.proj.weight"].shape
            side = math.isqrt(tensors["pos_embed_v"].shape[1])
            sizes |= {"image_channels": channels, "image_patch": image_patch, "image_size": side * image_patch}
        if "decoder_embed.weight" in tensors:
            decoder_width = tensors["decoder_embed.weight"].shape[0]
            sizes |= {"decoder_width": decoder_width, "decoder_depth": depth("decoder_blocks")}
        if "mlp_head.1.weight" in tensors:
            sizes["num_classes"] = tensors["mlp_head.1.weight"].shape[0]
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        return {}
    return sizes
