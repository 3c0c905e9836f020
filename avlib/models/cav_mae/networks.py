"""CAV-MAE for pretraining, with a decoder, and for fine-tuning, with a head."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import checkpoints
from ...errors import ParameterError
from ...losses import contrastive_loss, masked_patch_error, normalize_patches
from ...masking import PatchMask, random_mask
from ..patches import patchify, unpatchify
from .encoder import NAMES, Audio, Encoder, Image
from .weights import Sizes, mae_weights, settings_of

# The paper's objectives, as arguments of CAVMAE beside, or in place of, its inputs; None leaves a modality out.
OBJECTIVES = {
    "CAV": {"mae_weight": 0.0, "contrast_weight": 0.01},
    "MAE (audio)": {"image": None, "mae_weight": 1.0, "contrast_weight": 0.0},
    "MAE (image)": {"audio": None, "mae_weight": 1.0, "contrast_weight": 0.0},
    "AV-MAE": {"mae_weight": 1.0, "contrast_weight": 0.0},
    "CAV-MAE": {"mae_weight": 1.0, "contrast_weight": 0.01},
}


Mask = Float[Tensor, "batch patches"]  # 1 = removed, as published


class CAVMAEOutput(NamedTuple):
    """Result of a pretraining step; of a part with weight 0 losses are 0 and predictions None."""

    loss: Float[Tensor, ""]  # mae_weight * (mae_audio + mae_image) + contrast_weight * contrast
    mae_audio: Float[Tensor, ""]
    mae_image: Float[Tensor, ""]
    contrast: Float[Tensor, ""]
    contrast_accuracy: Float[Tensor, ""]  # share of images whose nearest audio is their own
    mask_audio: Mask | None  # (B, 512)
    mask_image: Mask | None  # (B, 196)
    prediction_audio: Float[Tensor, "batch patches values"] | None  # (B, 512, 256)
    prediction_image: Float[Tensor, "batch patches values"] | None  # (B, 196, 768)


class Inpainting(NamedTuple):
    """Inputs with predicted patches, and their masks (1 = predicted, as published)."""

    audio: Audio | None
    image: Image | None
    mask_audio: Mask | None
    mask_image: Mask | None


class CAVMAE(Encoder):
    """The pretraining model. Published: `CAVMAE`.

    191,036,160 parameters, of which 190,129,920 are trained.

    Args:
        norm_pix_loss: predict each patch minus its mean, over its deviation. The published trainings do, except that
            of the model for inpainting.
        both_directions: contrast from audio to images too; the published one is from images to audio.
        gather_negatives: contrast with the clips of all processes; False as published. See `contrastive_loss`.
        exact_masks: False masks in mode "tf" as published; see `whole_strips`.
    """

    options = (*Encoder.options, "norm_pix_loss", "both_directions", "gather_negatives", "exact_masks")

    def __init__(
        self, *, norm_pix_loss: bool = False, tr_pos: bool = False, positions: str = "interpolate",
        both_directions: bool = False, gather_negatives: bool = True, exact_masks: bool = True, **sizes: int,
    ):  # fmt: skip
        super().__init__(Sizes(**sizes), tr_pos, positions)
        self.norm_pix_loss, self.both_directions = norm_pix_loss, both_directions
        self.gather_negatives, self.exact_masks = gather_negatives, exact_masks
        sizes = self.sizes
        D, H = sizes.decoder_width, sizes.decoder_heads
        self.decoder_embed = nn.Linear(sizes.width, D)
        self.decoder_modality_a = nn.Parameter(torch.zeros(1, 1, D))
        self.decoder_pos_embed_a = self._positions("a", D)
        self.decoder_modality_v = nn.Parameter(torch.zeros(1, 1, D))
        self.decoder_pos_embed_v = self._positions("v", D)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, D))
        self.decoder_blocks = self._blocks(sizes.decoder_depth, D, H)
        self.decoder_norm = nn.LayerNorm(D)
        self.decoder_pred_a = nn.Linear(D, sizes.audio_patch**2)
        self.decoder_pred_v = nn.Linear(D, sizes.image_patch**2 * sizes.image_channels)
        self._initialize()

    @classmethod
    def from_vit_mae(cls, path: Path | str, **settings) -> CAVMAE:
        """Initialize from a masked autoencoder of images; see `mae_weights`."""
        model = cls(**settings)
        checkpoints.load(model, path, mae_weights(path, model.state_dict(), model.sizes))
        return model

    def forward(
        self, audio: Audio | None, image: Image | None,
        mask_ratio_audio: float | int = 0.75, mask_ratio_image: float | int = 0.75,
        mae_weight: float | int = 1.0, contrast_weight: float | int = 0.01, mask_mode: str = "unstructured",
        noise_audio: Float[Tensor, "batch audio_patches"] | None = None,
        noise_image: Float[Tensor, "batch image_patches"] | None = None,
    ) -> CAVMAEOutput:  # fmt: skip
        """Compute the losses of a pretraining step. Published: `forward`.

        Args:
            audio: `(B, 1024, 128)`, normalised fbank. None trains on images alone.
            image: `(B, 3, 224, 224)`, normalised pixels. None trains on audio alone.
            mae_weight: of the two reconstruction errors; 0 leaves them out.
            contrast_weight: of the contrast; 0 leaves it out.
            mask_mode: of audio, see `random_mask`; images are masked "unstructured".
            noise_audio: `(B, 512)`, decides the mask of audio; None draws it.
            noise_image: `(B, 196)`, likewise.

        Raises:
            ParameterError: among others, contrast of a single clip or modality; reconstruction with ratio 0.
        """
        pictures = self.pictures(audio, image)
        if contrast_weight and len(pictures) < 2:
            raise ParameterError("contrast_weight", f"{contrast_weight} with one modality", "0, or both modalities")
        masks = self._masks(pictures, mask_ratio_audio, mask_ratio_image, mask_mode, noise_audio, noise_image)
        for m, mask in masks.items():
            if mae_weight and mask.kept == mask.removed.shape[1]:
                raise ParameterError(f"mask_ratio_{NAMES[m]}", "nothing is removed", "more, or mae_weight=0")
        visible = self._visible(pictures, masks)

        zero = next(iter(visible.values())).new_zeros(())
        errors, contrast, accuracy, predictions = {"a": zero, "v": zero}, zero, zero, {}
        if mae_weight:
            predictions = self._predict(pictures, masks, visible)
            for m, picture in pictures.items():
                target = patchify(picture, self.sizes.patches[m])  # (B, 512, 256) or (B, 196, 768)
                target = normalize_patches(target) if self.norm_pix_loss else target
                errors[m] = masked_patch_error(predictions[m], target, masks[m].removed)
        if contrast_weight:
            pooled = [self.shared(m, visible[m]).mean(dim=1) for m in "av"]  # twice (B, 768)
            how = {"both_directions": self.both_directions, "gather": self.gather_negatives}
            contrast, accuracy = contrastive_loss(*pooled, **how)
        loss = mae_weight * sum(errors.values()) + contrast_weight * contrast
        removed = {m: mask.removed for m, mask in masks.items()}
        parts = (removed.get("a"), removed.get("v"), predictions.get("a"), predictions.get("v"))
        return CAVMAEOutput(loss, errors["a"], errors["v"], contrast, accuracy, *parts)

    @torch.no_grad()
    def inpaint(
        self, audio: Audio | None, image: Image | None,
        mask_ratio_audio: float | int = 0.75, mask_ratio_image: float | int = 0.75, mask_mode: str = "unstructured",
        noise_audio: Float[Tensor, "batch audio_patches"] | None = None,
        noise_image: Float[Tensor, "batch image_patches"] | None = None,
    ) -> Inpainting:  # fmt: skip
        """Replace masked patches by predictions. Published: `forward_inpaint`, `inpaint.py`.

        Arguments are those of `forward`. Here a ratio may be 0, to predict one modality from all of the other. A model
        with norm_pix_loss is refused: its predictions lack level and contrast.
        """
        if self.norm_pix_loss:
            raise ParameterError("norm_pix_loss", "True", "a model trained without it, which predicts real values")
        pictures = self.pictures(audio, image)
        masks = self._masks(pictures, mask_ratio_audio, mask_ratio_image, mask_mode, noise_audio, noise_image)
        predictions = self._predict(pictures, masks, self._visible(pictures, masks))
        filled = {}
        for m, picture in pictures.items():
            patches, removed = patchify(picture, self.sizes.patches[m]), masks[m].removed.bool()
            patches = torch.where(removed[..., None], predictions[m], patches)
            filled[m] = unpatchify(patches, self.grid(m, picture), self.sizes.patches[m])
        removed = {m: mask.removed for m, mask in masks.items()}
        audio = filled["a"].squeeze(1).transpose(1, 2) if "a" in filled else None
        return Inpainting(audio, filled.get("v"), removed.get("a"), removed.get("v"))

    def _masks(self, pictures: dict, ratio_a, ratio_v, mode: str, noise_a, noise_v) -> dict[str, PatchMask]:
        """A mask for each modality; structured ones for audio alone, as published."""
        how = {"a": (ratio_a, mode, noise_a), "v": (ratio_v, "unstructured", noise_v)}
        masks = {}
        for m, picture in pictures.items():
            ratio, mode, noise = how[m]
            grid, device = self.grid(m, picture), picture.device
            masks[m] = random_mask(len(picture), grid, ratio, mode, noise=noise, exact=self.exact_masks, device=device)
        return masks

    def _visible(self, pictures: dict, masks: dict[str, PatchMask]) -> dict[str, Tensor]:
        """Tokens of kept patches: (B, 128, 768) and (B, 49, 768)."""
        return {m: self.specific(m, masks[m].select(self.embed(m, picture))) for m, picture in pictures.items()}

    def _predict(self, pictures: dict, masks: dict[str, PatchMask], visible: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predict all patches, through the joint stream and the decoder."""
        x = self.shared(None, torch.cat(list(visible.values()), dim=1))  # (B, 128 + 49, 768)
        x = self.decoder_embed(x)  # (B, 128 + 49, 512)
        kept = dict(zip(masks, x.split([mask.kept for mask in masks.values()], dim=1), strict=True))
        placed = {}
        for m, mask in masks.items():
            x, grid = mask.restore(kept[m], self.mask_token), self.grid(m, pictures[m])  # (B, 512, 512)
            if m == "a":
                placed[m] = x + self.place(self.decoder_pos_embed_a, m, grid) + self.decoder_modality_a
            else:
                placed[m] = x + self.place(self.decoder_pos_embed_v, m, grid) + self.decoder_modality_v
        x = torch.cat(list(placed.values()), dim=1)  # (B, 512 + 196, 512)
        for block in self.decoder_blocks:
            x = block(x)
        parts = self.decoder_norm(x).split([tokens.shape[1] for tokens in placed.values()], dim=1)
        heads = {"a": self.decoder_pred_a, "v": self.decoder_pred_v}
        return {m: heads[m](part) for m, part in zip(placed, parts, strict=True)}  # (B, 512, 256), (B, 196, 768)


# Inputs of a classifier in each mode. "missing...only": trained on both, given this one alone.
CLASSIFIER_MODES = {"multimodal": "av", "audioonly": "a", "videoonly": "v"}
CLASSIFIER_MODES |= {"missingaudioonly": "a", "missingvideoonly": "v"}


class CAVMAEClassifier(Encoder):
    """The fine-tuning model: a linear head on the mean token. Published: `CAVMAEFT`.

    Args:
        num_classes: 527 for AudioSet (164,907,023 parameters), 309 for VGGSound.
        audio_only: build the audio half alone, 86,129,423 parameters with 527 classes. Published: `CAVMAEFTAudio`.
    """

    options = (*Encoder.options, "num_classes", "audio_only")

    def __init__(
        self, num_classes: int = 527, *, audio_only: bool = False, tr_pos: bool = True,
        positions: str = "interpolate", **sizes: int,
    ):  # fmt: skip
        super().__init__(Sizes(**sizes), tr_pos, positions)
        self.num_classes, self.audio_only = num_classes, audio_only
        self.mlp_head = nn.Sequential(nn.LayerNorm(self.sizes.width), nn.Linear(self.sizes.width, num_classes))
        self._initialize()
        if audio_only:
            del self.patch_embed_v, self.modality_v, self.pos_embed_v, self.blocks_v, self.norm_v

    @classmethod
    def from_pretraining(
        cls, path: Path | str, num_classes: int = 527, *, audio_only: bool = False, **settings
    ) -> CAVMAEClassifier:
        """Initialize from pretrained weights; the head is random, the decoder ignored.

        Raises:
            CheckpointError: the file cannot be read, lacks anything but the head, or has a head.
            ParameterError: the number of attention heads is needed, which weights do not show.
        """
        ignored = ("decoder_", "mask_token")
        if audio_only:
            ignored += ("patch_embed_v.", "modality_v", "pos_embed_v", "blocks_v.", "norm_v.")
        tensors, config = checkpoints.read(path)
        encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith(ignored)}
        given = {"num_classes": num_classes, "audio_only": audio_only, **settings}
        model = cls(**settings_of(cls, encoder, config, (), given))
        checkpoints.load(model, path, tensors, absent=("mlp_head.",), ignored=ignored)
        return model

    def forward(
        self, audio: Audio | None = None, image: Image | None = None, mode: str | None = None
    ) -> Float[Tensor, "_ classes"]:
        """Logits of each class.

        Args:
            audio: `(B, 1024, 128)`, normalised fbank; ignored in the modes for images.
            image: `(B, 3, 224, 224)`, normalised pixels; ignored in the modes for audio.
            mode: one of `CLASSIFIER_MODES`. "audioonly" and "videoonly" use the norms of one modality, for a model
                that was tuned on it; "missingaudioonly" and "missingvideoonly" average these with the joint norms, for
                a model that was tuned on both, which leaves the former as pretrained. None: "multimodal", or
                "audioonly" for a model with `audio_only`.
        """
        mode = ("audioonly" if self.audio_only else "multimodal") if mode is None else mode
        if mode not in CLASSIFIER_MODES or (self.audio_only and CLASSIFIER_MODES[mode] != "a"):
            raise ParameterError("mode", repr(mode), f"one of {', '.join(CLASSIFIER_MODES)}")
        needed, given = CLASSIFIER_MODES[mode], {"a": audio, "v": image}
        for m in needed:
            if given[m] is None:
                raise ParameterError(NAMES[m], f"not given, but mode is {mode!r}", "a tensor, or another mode")
        pictures = self.pictures(*(given[m] if m in needed else None for m in "av"))
        x = torch.cat([self.specific(m, self.embed(m, picture)) for m, picture in pictures.items()], dim=1)
        streams = {"multimodal": [None], "missingaudioonly": [None, "a"], "missingvideoonly": [None, "v"]}
        pooled = [self.shared(m, x).mean(dim=1) for m in streams.get(mode, [needed])]  # each (B, 768)
        return self.mlp_head(torch.stack(pooled).mean(dim=0))  # (B, 527)
