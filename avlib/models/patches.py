"""Pictures as sequences of patches, and their positional embeddings."""

from __future__ import annotations

import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from ..errors import ParameterError, check_choice

POSITION_FITS = ("interpolate", "cut")

Pictures = Float[Tensor, "batch channels height width"]
Positions = Float[Tensor, "1 patches width"]
Grid = tuple[int, int]  # rows and columns of patches


def patch_grid(subject: str, sides: tuple[int, ...], patch: int) -> tuple[int, ...]:
    """Count the patches along each side, (8, 64) for 128 x 1024; a side that is no multiple is refused."""
    if any(side < 1 or side % patch for side in sides):
        smaller, larger = ([patch * max(1, (side + more) // patch) for side in sides] for more in (0, patch - 1))
        found, smaller, larger = (" x ".join(map(str, lengths)) for lengths in (sides, smaller, larger))
        expected = f"multiples of {patch}, the side of a patch"
        raise ParameterError(subject, found, expected, f"Cut or resize to {smaller}, or pad to {larger}.")
    return tuple(side // patch for side in sides)


def patchify(picture: Pictures, patch: int) -> Float[Tensor, "batch patches values"]:
    """Cut pictures into square patches, row by row.

    `(B, 3, 224, 224)` gives `(B, 196, 768)`: 196 patches of 16 rows, 16 columns and, fastest, 3 channels. Source:
    CAV-MAE, `patchify`. A side that is not a multiple of the patch is refused.
    """
    batch, channels, *sides = picture.shape
    h, w = patch_grid("picture", tuple(sides), patch)
    cut = picture.reshape(batch, channels, h, patch, w, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, h * w, patch * patch * channels)


def unpatchify(patches: Float[Tensor, "batch patches values"], grid: tuple[int, int], patch: int) -> Pictures:
    """Join patches to pictures, whose grid they must fill: the inverse of `patchify`."""
    (batch, count, values), (h, w) = patches.shape, grid
    if count != h * w or values % patch**2:
        found = f"{count} patches of {values} values for a grid of {h} x {w} and patches of {patch} x {patch}"
        raise ParameterError("patches", found, f"{h * w} patches of a multiple of {patch**2} values")
    cut = patches.reshape(batch, h, w, patch, patch, values // patch**2)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, h * patch, w * patch)


def sincos_positions(width: int, grid: tuple[int, int]) -> Positions:
    """Fixed positional embeddings: half encodes the column, half the row.

    Each half is sin(p / 10000^(4k / width)) for k = 0 ... width / 4 - 1, then the cosines of the same angles. Source:
    MAE, `get_2d_sincos_pos_embed`, whose grid puts the column first.
    """
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = [place.reshape(-1, 1) * frequency for place in (columns, rows)]  # twice (patches, width / 4)
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()[None]


def fit_positions(positions: Positions, built: Grid, grid: Grid, how: str) -> Float[Tensor, "1 fitted width"]:
    """Fit positional embeddings of the grid that a model was built for to a picture with another.

    "interpolate" stretches the grid (bicubic, anti-aliased, timm's); "cut" takes its first rows and columns, so that a
    column keeps its time of the training; a picture that is larger than the grid is then refused.
    """
    check_choice("positions", how, POSITION_FITS)
    if grid == built:
        return positions
    if how == "interpolate":
        return resample_abs_pos_embed(positions, list(grid), list(built), num_prefix_tokens=0)
    if grid[0] > built[0] or grid[1] > built[1]:
        found = f"{grid[0]} x {grid[1]} patches, more than the {built[0]} x {built[1]} that can be cut from"
        raise ParameterError("positions", found, advice='Give a smaller input, or set positions="interpolate".')
    height, width = grid
    return positions.unflatten(1, built)[:, :height, :width].flatten(1, 2)
