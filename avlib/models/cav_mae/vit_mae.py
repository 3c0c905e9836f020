"""A masked autoencoder of images (MAE) as the beginning of CAV-MAE's pretraining.

Source: CAV-MAE, `adapt_vmae_weights.py`, which does this for MAE's ViT-B with its decoder. That file writes names
without the prefix that its trainer expects, and the trainer then loads none of them, silently; here every parameter
that can come from the MAE must.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from ... import checkpoints
from .sizes import Sizes

# What no image model can give: which modality a token has, and where in a spectrogram it is.
_OWN = re.compile(r"(decoder_)?(modality_[av]|pos_embed_a)|(blocks_[av]|decoder_blocks)\.\d+\.norm[12]_[av]\..*")


def cav_mae_weights(
    path: Path | str, own: Mapping[str, Tensor], sizes: Sizes, mean_colour: bool = False
) -> dict[str, Tensor]:
    """Weights of CAV-MAE made of those of a MAE.

    Each block of the MAE but the last goes to audio and to images, the last becomes the shared one, with three equal
    pairs of norms. What the MAE has for colour is made to fit sound, which has one channel: the patch embedding of
    audio is the sum over red, green and blue, as if the spectrogram were a grey picture.

    For the decoder's prediction of audio the published script takes the first 256 of the MAE's 768 outputs. These are
    ordered pixel by pixel with the colour fastest, so they are the colours of the first 85 pixels of a patch and not
    256 brightnesses: pixel 1 of audio begins as the green of pixel 0. Training has to undo that. `mean_colour` takes
    the mean of the three colours of each pixel, which is what a grey picture would ask for.

    Args:
        path: of a MAE checkpoint with decoder (`mae_pretrain_vit_base_full.pth`, `mae_visualize_vit_base.pth`). Its
            LayerNorms have eps 1e-6, CAV-MAE's 1e-5.
        own: the weights that a new CAV-MAE has; kept where the MAE has nothing to give.
        sizes: of that CAV-MAE: as many blocks as the MAE, and its image and patch sizes.
        mean_colour: False as published.

    Returns:
        By name, all that `own` has.

    Raises:
        CheckpointError: the file cannot be read, lacks a parameter, has others, or was made with other sizes.
    """
    source = checkpoints.read(path).tensors
    names = {name: _source_name(name, sizes.modality_depth) for name in own if not _OWN.fullmatch(name)}
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
        rows = weights[name]
        weights[name] = rows.unflatten(0, (-1, 3)).mean(dim=1) if mean_colour else rows[: sizes.audio_patch**2]
    return {**own, **weights}


def _source_name(name: str, modality_depth: int) -> str:
    """What a parameter of CAV-MAE is called in a MAE: `blocks_u.0.norm1_a.bias` is `blocks.11.norm1.bias` there."""
    if name.startswith("blocks_u."):
        _, index, rest = name.split(".", 2)
        name = f"blocks.{modality_depth + int(index)}.{rest}"
    return re.sub(r"(blocks|norm\d?|patch_embed|pos_embed|decoder_pred)_[av]\b", r"\1", name)
