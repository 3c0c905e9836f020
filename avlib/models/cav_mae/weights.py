"""Sizes of CAV-MAE, and its weights from files and from a MAE."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from ... import checkpoints
from ...errors import ParameterError
from ...settings import Count, settings
from .. import sizes_that_fit
from ..patches import patch_grid


@settings
class Sizes:
    """Sizes of the network. A classifier ignores those of the decoder."""

    audio_length: Count = 1024  # frames
    mel_bins: Count = 128
    audio_patch: Count = 16
    image_size: Count = 224
    image_channels: Count = 3
    image_patch: Count = 16
    width: Count = 768
    heads: Count = 12
    modality_depth: Count = 11
    shared_depth: Count = 1
    decoder_width: Count = 512
    decoder_heads: Count = 16
    decoder_depth: Count = 8
    mlp_ratio: Count = 4

    def __post_init__(self):
        for width, heads in ((self.width, self.heads), (self.decoder_width, self.decoder_heads)):
            if width % 4 or width % heads:  # a quarter each for sine and cosine, of column and of row
                raise ParameterError("width", f"{width} with {heads} heads", "a multiple of 4 and of the heads")
        _ = self.grids  # refuses inputs that patches do not fill

    @property
    def patches(self) -> dict[str, int]:
        """Side of a patch of each modality, "a" audio and "v" image."""
        return {"a": self.audio_patch, "v": self.image_patch}

    @property
    def channels(self) -> dict[str, int]:
        return {"a": 1, "v": self.image_channels}

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of patches, (8, 64) and (14, 14)."""
        audio = patch_grid("mel_bins x audio_length", (self.mel_bins, self.audio_length), self.audio_patch)
        return {"a": audio, "v": patch_grid("image_size", (self.image_size, self.image_size), self.image_patch)}


def settings_of(
    model: type[nn.Module], tensors: Mapping[str, Tensor], config: Mapping, options: tuple[str, ...], given: Mapping
) -> dict:
    """Return settings with which a model fits a file, if any do.

    They are those in the `config` that avlib saved with it, of `options` and sizes; without one, sizes are read from
    the tensors. Those `given` win over them.

    Raises:
        ParameterError: the number of attention heads is needed, which weights do not show.
    """
    known = {*options, *(field.name for field in fields(Sizes))}
    saved = config.get("settings")
    if isinstance(saved, Mapping):
        return {name: value for name, value in saved.items() if name in known} | dict(given)

    def build(**sizes: int) -> nn.Module:
        return model(**{**sizes, **given, "heads": 1, "decoder_heads": 1})  # heads do not show in shapes

    sizes = sizes_that_fit(build, {name: size for name, size in _sizes_in(tensors).items() if name in known}, tensors)
    for part in ("", "decoder_"):
        width, heads = f"{part}width", f"{part}heads"
        if sizes.get(width, getattr(Sizes, width)) != getattr(Sizes, width) and heads not in given:
            found = f"not to be read from weights of {width} {sizes[width]}"
            raise ParameterError(heads, found, "the number that the model was trained with")
    return sizes | dict(given)


def _sizes_in(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes that follow from shapes, if these fit each other."""

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


# A MAE knows neither the modality of a token nor its place in a spectrogram.
_NOT_IN_MAE = re.compile(r"(decoder_)?(modality_[av]|pos_embed_a)|(blocks_[av]|decoder_blocks)\.\d+\.norm[12]_[av]\..*")


def mae_weights(path: Path | str, own: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """Convert weights of a MAE, from which the published pretraining starts.

    Each block of the MAE but the last goes to audio and to images; the last becomes the shared one, with three equal
    pairs of norms. The patch embedding of audio is the sum over red, green and blue, as if the spectrogram were a grey
    picture; its prediction starts from the first 256 of the MAE's 768 outputs, the colours of the first 85 pixels of a
    patch. Every parameter of the MAE must fit: the published script (CAV-MAE, `adapt_vmae_weights.py`) writes names
    that its trainer does not know and silently ignores.

    Args:
        path: a MAE checkpoint with decoder (`mae_pretrain_vit_base_full.pth`, `mae_visualize_vit_base.pth`). Its
            LayerNorms have eps 1e-6, CAV-MAE's 1e-5.
        own: the weights of a new CAV-MAE; kept where the MAE has nothing to give.
        sizes: of that CAV-MAE: as many blocks as the MAE, and its image and patch sizes.
    """
    source = checkpoints.read(path).tensors
    names = {name: _name_in_mae(name, sizes.modality_depth) for name in own if not _NOT_IN_MAE.fullmatch(name)}
    # What image and audio share has the shape that it has for images; positions begin with that of the cls token.
    expected = {origin: own[name] for name, origin in names.items()}
    for name in ("pos_embed", "decoder_pos_embed"):
        expected[name] = F.pad(expected[name], (0, 0, 1, 0))
    checkpoints.require_fit(path, expected, source, ignored=("cls_token",))

    weights = {name: source[origin] for name, origin in names.items()}
    for name in ("pos_embed_v", "decoder_pos_embed_v"):
        weights[name] = weights[name][:, 1:]
    weights["patch_embed_a.proj.weight"] = weights["patch_embed_a.proj.weight"].sum(dim=1, keepdim=True)
    for name in ("decoder_pred_a.weight", "decoder_pred_a.bias"):
        weights[name] = weights[name][: sizes.audio_patch**2]
    return {**own, **weights}


def _name_in_mae(name: str, modality_depth: int) -> str:
    """The MAE's name of a parameter: `blocks_u.0.norm1_a.bias` is `blocks.11.norm1.bias` there."""
    if name.startswith("blocks_u."):
        _, index, rest = name.split(".", 2)
        name = f"blocks.{modality_depth + int(index)}.{rest}"
    return re.sub(r"(blocks|norm\d?|patch_embed|pos_embed|decoder_pred)_[av]\b", r"\1", name)
