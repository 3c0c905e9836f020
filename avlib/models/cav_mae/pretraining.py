"""CAV-MAE in pretraining: hide most patches, predict them from the rest, and tell clips apart by the rest."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import checkpoints
from ...errors import ParameterError
from ...losses import contrastive_loss, masked_patch_error, normalize_patches
from ...masking import PatchMask, random_mask
from ..patches import patchify, unpatchify
from .encoder import NAMES, Encoder
from .sizes import Sizes

# The paper's objectives, as arguments of CAVMAE beside, or in place of, its inputs; None leaves a modality out.
OBJECTIVES = {
    "CAV": {"mae_weight": 0.0, "contrast_weight": 0.01},
    "MAE (audio)": {"image": None, "mae_weight": 1.0, "contrast_weight": 0.0},
    "MAE (image)": {"audio": None, "mae_weight": 1.0, "contrast_weight": 0.0},
    "AV-MAE": {"mae_weight": 1.0, "contrast_weight": 0.0},
    "CAV-MAE": {"mae_weight": 1.0, "contrast_weight": 0.01},
}


class CAVMAEOutput(NamedTuple):
    """What a pretraining step gives. A part with weight 0 is not computed: its losses are 0, its predictions None."""

    loss: Float[Tensor, ""]  # mae_weight * (mae_audio + mae_image) + contrast_weight * contrast
    mae_audio: Float[Tensor, ""]
    mae_image: Float[Tensor, ""]
    contrast: Float[Tensor, ""]
    contrast_accuracy: Float[Tensor, ""]  # share of pictures that pick their own sound
    mask_audio: Float[Tensor, "batch patches"] | None  # (B, 512), 1 = removed, as published
    mask_image: Float[Tensor, "batch patches"] | None  # (B, 196)
    prediction_audio: Float[Tensor, "batch patches values"] | None  # (B, 512, 256)
    prediction_image: Float[Tensor, "batch patches values"] | None  # (B, 196, 768)


class Inpainting(NamedTuple):
    """Inputs whose removed patches are the model's predictions, and which these are (1 = removed, as published)."""

    audio: Float[Tensor, "batch frames mels"] | None
    image: Float[Tensor, "batch channels height width"] | None
    mask_audio: Float[Tensor, "batch patches"] | None
    mask_image: Float[Tensor, "batch patches"] | None


class CAVMAE(Encoder):
    """The pretraining model: 191,036,160 parameters, of which 190,129,920 are trained. Published: `CAVMAE`.

    Args:
        norm_pix_loss: predict each patch minus its mean, over its deviation. The published trainings do, except that
            of the model for inpainting.
        tr_pos, positions: see `Encoder`.
        both_directions: contrast in which sounds pick pictures too; the published one has pictures pick sounds.
        gather_negatives: contrast with the clips of all processes; False as published. See `contrastive_loss`.
        exact_masks: False masks in mode "tf" as published; see `whole_strips`.
        sizes: those of `Sizes`, by keyword.

    Raises:
        ParameterError: sizes that do not go together.
    """

    options = (*Encoder.options, "norm_pix_loss", "both_directions", "gather_negatives", "exact_masks")

    def __init__(
        self,
        *,
        norm_pix_loss: bool = False,
        tr_pos: bool = False,
        positions: str = "interpolate",
        both_directions: bool = False,
        gather_negatives: bool = True,
        exact_masks: bool = True,
        **sizes: int,
    ):
        super().__init__(Sizes(**sizes), tr_pos, positions)
        self.norm_pix_loss, self.both_directions = norm_pix_loss, both_directions
        self.gather_negatives, self.exact_masks = gather_negatives, exact_masks
        D = self.sizes.decoder_width
        self.decoder_embed = nn.Linear(self.sizes.width, D)
        for m in self.modalities:
            setattr(self, f"decoder_modality_{m}", nn.Parameter(torch.zeros(1, 1, D)))
            setattr(self, f"decoder_pos_embed_{m}", self._positions(m, D))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, D))
        self.decoder_blocks = self._blocks(self.sizes.decoder_depth, D, self.sizes.decoder_heads)
        self.decoder_norm = nn.LayerNorm(D)
        for m in self.modalities:
            values = self.sizes.patches[m] ** 2 * self.sizes.channels[m]
            setattr(self, f"decoder_pred_{m}", nn.Linear(D, values))
        self._initialize()

    @classmethod
    def from_vit_mae(cls, path: Path | str, *, mean_colour: bool = False, **settings) -> Self:
        """Begin with a masked autoencoder of images; see `vit_mae.cav_mae_weights`, also for what can go wrong."""
        from .vit_mae import cav_mae_weights

        model = cls(**settings)
        weights = cav_mae_weights(path, model.state_dict(), model.sizes, mean_colour)
        checkpoints.load(model, path, weights)
        return model

    def forward(
        self,
        audio: Float[Tensor, "batch frames mels"] | None,
        image: Float[Tensor, "batch channels height width"] | None,
        mask_ratio_audio: float | int = 0.75,
        mask_ratio_image: float | int = 0.75,
        mae_weight: float | int = 1.0,
        contrast_weight: float | int = 0.01,
        mask_mode: str = "unstructured",
        noise_audio: Float[Tensor, "batch audio_patches"] | None = None,
        noise_image: Float[Tensor, "batch image_patches"] | None = None,
    ) -> CAVMAEOutput:
        """Hide patches, predict them, and tell clips apart by what is left. Published: `forward`.

        Args:
            audio: `(B, 1024, 128)`, normalised fbank. None trains on images alone.
            image: `(B, 3, 224, 224)`, normalised pixels. None trains on sounds alone.
            mask_ratio_audio: share of audio patches to remove.
            mask_ratio_image: likewise for images.
            mae_weight: of the two reconstruction errors; 0 leaves them out.
            contrast_weight: of the contrast; 0 leaves it out.
            mask_mode: of audio; see `random_mask`, which says where random numbers come from. Images: "unstructured".
            noise_audio: `(B, 512)`, decides the mask of audio.
            noise_image: `(B, 196)`, decides the mask of images.

        Raises:
            ParameterError: sides that are not multiples of the patch; a ratio out of range; contrast of a single clip
                or modality; reconstruction with ratio 0.
        """
        pictures = self.pictures(audio, image)
        if contrast_weight and len(pictures) < 2:
            raise ParameterError("contrast_weight", f"{contrast_weight} with one modality", "0, or both modalities")
        masks = self._masks(pictures, mask_ratio_audio, mask_ratio_image, mask_mode, noise_audio, noise_image)
        visible = self._visible(pictures, masks)

        zero = next(iter(visible.values())).new_zeros(())
        mae, contrast, accuracy, predictions = {}, zero, zero, {}
        if mae_weight:
            predictions = self._predict(pictures, masks, visible)
            for m, picture in pictures.items():
                if masks[m].kept == masks[m].removed.shape[1]:
                    raise ParameterError(f"mask_ratio_{NAMES[m]}", "nothing is removed", "more, or mae_weight=0")
                target = patchify(picture, self.sizes.patches[m])
                target = normalize_patches(target) if self.norm_pix_loss else target
                mae[m] = masked_patch_error(predictions[m], target, masks[m].removed)
        if contrast_weight:
            pooled = [self.shared(m, visible[m]).mean(dim=1) for m in "av"]  # twice (B, 768)
            contrast, accuracy = contrastive_loss(
                *pooled, both_directions=self.both_directions, gather=self.gather_negatives
            )
        removed = {m: mask.removed for m, mask in masks.items()}
        return CAVMAEOutput(
            mae_weight * sum(mae.values(), zero) + contrast_weight * contrast,
            *(mae.get(m, zero) for m in "av"),
            contrast,
            accuracy,
            *(removed.get(m) for m in "av"),
            *(predictions.get(m) for m in "av"),
        )

    @torch.no_grad()
    def inpaint(
        self,
        audio: Float[Tensor, "batch frames mels"] | None,
        image: Float[Tensor, "batch channels height width"] | None,
        mask_ratio_audio: float | int = 0.75,
        mask_ratio_image: float | int = 0.75,
        mask_mode: str = "unstructured",
        noise_audio: Float[Tensor, "batch audio_patches"] | None = None,
        noise_image: Float[Tensor, "batch image_patches"] | None = None,
    ) -> Inpainting:
        """Remove patches, and paste the predicted ones in their places. Published: `forward_inpaint`, `inpaint.py`.

        Arguments are those of `forward`. Here a ratio may be 0, to fill one modality in from all of the other.

        Raises:
            ParameterError: as in `forward`; or the model has norm_pix_loss, whose predictions lack level and contrast.
        """
        if self.norm_pix_loss:
            raise ParameterError("norm_pix_loss", "True", "a model trained without it, which predicts real values")
        pictures = self.pictures(audio, image)
        masks = self._masks(pictures, mask_ratio_audio, mask_ratio_image, mask_mode, noise_audio, noise_image)
        predictions = self._predict(pictures, masks, self._visible(pictures, masks))
        filled = {}
        for m, picture in pictures.items():
            patch, removed = self.sizes.patches[m], masks[m].removed.bool()[..., None]
            filled[m] = unpatchify(
                torch.where(removed, predictions[m], patchify(picture, patch)), self.grid(m, picture), patch
            )
        sound = filled["a"].squeeze(1).transpose(1, 2) if "a" in filled else None
        return Inpainting(sound, filled.get("v"), *(masks[m].removed if m in masks else None for m in "av"))

    def _masks(self, pictures: dict, ratio_a, ratio_v, mode: str, noise_a, noise_v) -> dict[str, PatchMask]:
        """A mask for each modality, drawn for audio first; structured modes are for audio alone, as published."""
        how = {"a": (ratio_a, mode, noise_a), "v": (ratio_v, "unstructured", noise_v)}
        masks = {}
        for m, picture in pictures.items():
            ratio, mode, noise = how[m]
            masks[m] = random_mask(
                len(picture),
                self.grid(m, picture),
                ratio,
                mode,
                noise=noise,
                exact=self.exact_masks,
                device=picture.device,
            )
        return masks

    def _visible(self, pictures: dict, masks: dict[str, PatchMask]) -> dict[str, Tensor]:
        """Tokens of the kept patches after the blocks of their modality: (B, 128, 768) and (B, 49, 768)."""
        return {m: self.specific(m, masks[m].select(self.embed(m, picture))) for m, picture in pictures.items()}

    def _predict(self, pictures: dict, masks: dict[str, PatchMask], visible: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the tokens of kept patches to values of all patches, through the joint stream and the decoder."""
        x = self.shared(None, torch.cat(list(visible.values()), dim=1))  # (B, 128 + 49, 768)
        x = self.decoder_embed(x)  # (B, 128 + 49, 512)
        kept = x.split([mask.kept for mask in masks.values()], dim=1)
        placed = []
        for (m, mask), tokens in zip(masks.items(), kept, strict=True):
            tokens = mask.restore(tokens, self.mask_token)  # (B, 512, 512)
            tokens = tokens + self.place("decoder_pos_embed", m, self.grid(m, pictures[m]))
            placed.append(tokens + getattr(self, f"decoder_modality_{m}"))
        x = torch.cat(placed, dim=1)  # (B, 512 + 196, 512)
        for block in self.decoder_blocks:
            x = block(x)
        parts = self.decoder_norm(x).split([tokens.shape[1] for tokens in placed], dim=1)
        return {m: getattr(self, f"decoder_pred_{m}")(part) for m, part in zip(masks, parts, strict=True)}
