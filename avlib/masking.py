"""Patch masks for masked autoencoders.

Each patch gets a noise value; the patches with the smallest are kept. The structured modes raise the noise of whole
columns (time) and whole rows (frequency), so that these are removed first.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; the structured modes are those of
Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023 (`src/models/cav_mae.py`).
"""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .errors import ParameterError, check_choice

Grid = tuple[int, int]  # rows (frequency) and columns (time)
MASK_MODES = ("unstructured", "time", "freq", "tf")

Kept = Float[Tensor, "batch kept width"]
TF_SHARE = 0.7  # `tf` masks columns and rows with this share of the ratio each, since they overlap


class PatchMask(NamedTuple):
    """Kept patches of each sample, and the way back.

    `order` is `(batch, patches)`: indices of patches, the kept ones first. `removed` is `(batch, patches)` in float,
    1 = removed and 0 = kept, as published (elsewhere in avlib True means kept). `kept` is the number of kept patches.
    """

    order: Int[Tensor, "batch patches"]
    removed: Float[Tensor, "batch patches"]
    kept: int

    def select(self, tokens: Float[Tensor, "batch patches width"]) -> Kept:
        """Select the tokens of the kept patches, in the random order."""
        index = self.order[:, : self.kept, None].expand(-1, -1, tokens.shape[-1])
        return tokens.gather(1, index)

    def restore(self, tokens: Kept, mask_token: Float[Tensor, "1 1 width"]) -> Float[Tensor, "batch patches width"]:
        """Put the kept tokens back in their places, and `mask_token` in all others."""
        batch, patches = self.order.shape
        filling = mask_token.expand(batch, patches - self.kept, -1)
        shuffled = torch.cat([tokens, filling], dim=1)
        back = self.order.argsort(dim=1)  # position of each patch in the random order
        return shuffled.gather(1, back[..., None].expand(-1, -1, tokens.shape[-1]))


def kept_count(patches: int, ratio: float | int) -> int:
    """Number of kept patches, `int(patches * (1 - ratio))`, 128 of 512 at 0.75; a ratio that keeps none is refused."""
    if not 0 <= ratio < 1:
        raise ParameterError("mask_ratio", f"{ratio}", "a number from 0 to less than 1", "A model must see something.")
    kept = int(patches * (1 - ratio))
    if kept == 0:
        raise ParameterError("mask_ratio", f"{ratio} keeps none of {patches} patches", "one that keeps at least one")
    return kept


def whole_strips(grid: Grid, ratio: float | int, mode: str = "unstructured", *, exact: bool = True) -> Grid:
    """Number of whole columns and rows that a mode masks.

    (48, 0) for `time` at 0.75 of 8 x 64 patches.

    `tf` as published asks for `int(64 * 0.75 * 0.7) = 33` columns and 4 rows. These are 388 patches, but only 384 may
    go: which four come back depends on how a sort orders equal numbers. Exact counts take away columns until all fit:
    32 columns and 4 rows, 384 patches. If the strips are fewer patches, single patches make up the difference, as
    published. `exact` False asks for the published number of columns.
    """
    check_choice("mask_mode", mode, MASK_MODES)
    height, width = grid
    share = {"unstructured": 0, "tf": TF_SHARE}.get(mode, 1)
    columns = int(width * ratio * share) if mode in ("time", "tf") else 0
    rows = int(height * ratio * share) if mode in ("freq", "tf") else 0
    if exact:
        removed = height * width - kept_count(height * width, ratio)
        while columns and columns * height + rows * (width - columns) > removed:
            columns -= 1
    return columns, rows


def random_mask(
    batch: int, grid: Grid, ratio: float | int, mode: str = "unstructured", *,
    noise: Float[Tensor, "batch patches"] | None = None, exact: bool = True, device: torch.device | str = "cpu",
) -> PatchMask:  # fmt: skip
    """Choose the visible patches of each sample of a batch, exactly `kept_count` of them in every mode.

    Without `noise`, random numbers are drawn in the published order, so that a seed gives the published masks: one
    `torch.rand(batch, patches)`, then, in the structured modes, Python's `random.sample` for the columns of each
    sample, then for the rows of each.

    Args:
        grid: rows (frequency or height) and columns (time or width); patch (h, w) has index `h * columns + w`.
        ratio: share of patches to remove, in [0, 1).
        mode: "unstructured", "time" (whole columns), "freq" (whole rows) or "tf" (both).
        noise: `(batch, patches)`, in place of random numbers: the smallest are kept, and the structured modes remove
            the columns and rows whose mean is largest.
        exact: False gives the published `tf`; see `whole_strips`.
        device: for the random numbers; ignored with `noise`.
    """
    height, width = grid
    patches = height * width
    kept = kept_count(patches, ratio)
    strips = whole_strips(grid, ratio, mode, exact=exact)
    if noise is not None and noise.shape != (batch, patches):
        raise ParameterError("noise", f"shape {tuple(noise.shape)}", f"({batch}, {patches}), a number for each patch")
    given = noise is not None
    noise = noise if given else torch.rand(batch, patches, device=device)

    plane = noise.reshape(batch, height, width)
    columns = _strips(plane.mean(dim=1), strips[0], given)  # (batch, width)
    rows = _strips(plane.mean(dim=2), strips[1], given)  # (batch, height)
    strip = columns[:, None, :] | rows[:, :, None]  # (batch, height, width)
    noise = plane.masked_fill(strip, torch.inf).reshape(batch, patches)

    # Published: unstable, so equal numbers may come in any order. Stable, the same noise gives the same mask anywhere.
    order = noise.argsort(dim=1, stable=exact)
    removed = torch.ones(batch, patches, device=noise.device).scatter(1, order[:, :kept], 0.0)
    return PatchMask(order, removed, kept)


def _strips(level: Float[Tensor, "batch strips"], count: int, by_level: bool) -> Bool[Tensor, "batch strips"]:
    """Choose `count` columns or rows of each sample: those of the highest level, or any."""
    if by_level:
        chosen = level.argsort(dim=1, descending=True, stable=True)[:, :count]
    else:
        picks = [random.sample(range(level.shape[1]), count) for _ in level]
        chosen = torch.tensor(picks, dtype=torch.long, device=level.device).reshape(len(level), count)
    return torch.zeros_like(level, dtype=torch.bool).scatter(1, chosen, True)
