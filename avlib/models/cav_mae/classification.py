"""CAV-MAE in fine-tuning: which classes does a clip belong to, by its sound, its picture, or both."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import checkpoints
from ...errors import ParameterError
from .encoder import NAMES, Encoder
from .sizes import Sizes, settings_of

# What a classifier sees in each mode. "missing...only": it was trained on both, and only this one is there.
CLASSIFIER_MODES = {
    "multimodal": "av",
    "audioonly": "a",
    "videoonly": "v",
    "missingaudioonly": "a",
    "missingvideoonly": "v",
}


class CAVMAEClassifier(Encoder):
    """The fine-tuning model: no decoder, trained positions and a linear head on the mean token. Published: `CAVMAEFT`.

    Args:
        num_classes: 527 for AudioSet (164,907,023 parameters), 309 for VGGSound.
        tr_pos, positions: see `Encoder`.
        sizes: those of `Sizes`, by keyword.

    Raises:
        ParameterError: sizes that do not go together.
    """

    options = (*Encoder.options, "num_classes")
    ignored: ClassVar[tuple[str, ...]] = ("decoder_", "mask_token")  # of a pretrained model

    def __init__(self, num_classes: int = 527, *, tr_pos: bool = True, positions: str = "interpolate", **sizes: int):
        super().__init__(Sizes(**sizes), tr_pos, positions)
        self.num_classes = num_classes
        self.mlp_head = nn.Sequential(nn.LayerNorm(self.sizes.width), nn.Linear(self.sizes.width, num_classes))
        self._initialize()

    @classmethod
    def from_pretraining(cls, path: Path | str, num_classes: int = 527, **settings) -> Self:
        """Begin with pretrained weights. Exactly the head must be missing, and is random; the decoder is ignored.

        Raises:
            CheckpointError: the file cannot be read, lacks anything but the head, or has a head.
            ParameterError: a number of attention heads is needed, which weights do not tell.
        """
        tensors, config = checkpoints.read(path)
        given = {"num_classes": num_classes, **settings}
        model = cls(**settings_of(cls, tensors, config, (), given))
        checkpoints.load(model, path, tensors, absent=("mlp_head.",), ignored=cls.ignored)
        return model

    def forward(
        self,
        audio: Float[Tensor, "batch frames mels"] | None = None,
        image: Float[Tensor, "batch channels height width"] | None = None,
        mode: str = "multimodal",
    ) -> Float[Tensor, "_ classes"]:
        """Logits of each class.

        Args:
            audio: `(B, 1024, 128)`, normalised fbank; not looked at in the modes for images.
            image: `(B, 3, 224, 224)`, normalised pixels; not looked at in the modes for audio.
            mode: "multimodal"; "audioonly" or "videoonly", for a model that was tuned on one modality, through that
                modality's norms; "missingaudioonly" or "missingvideoonly", for one that was tuned on both, which
                averages the joint and the modality's norms. Tuning on both leaves the latter as pretrained.

        Raises:
            ParameterError: an unknown mode, or an input that it needs is missing.
        """
        if mode not in CLASSIFIER_MODES or not set(CLASSIFIER_MODES[mode]) <= set(self.modalities):
            raise ParameterError("mode", repr(mode), f"one of {', '.join(CLASSIFIER_MODES)}")
        needed, given = CLASSIFIER_MODES[mode], {"a": audio, "v": image}
        for m in needed:
            if given[m] is None:
                raise ParameterError(NAMES[m], f"not given, but mode is {mode!r}", "a tensor, or another mode")
        pictures = self.pictures(*(given[m] if m in needed else None for m in "av"))
        tokens = torch.cat([self.specific(m, self.embed(m, picture)) for m, picture in pictures.items()], dim=1)
        streams = {"multimodal": [None], "missingaudioonly": [None, "a"], "missingvideoonly": [None, "v"]}
        pooled = [self.shared(m, tokens).mean(dim=1) for m in streams.get(mode, [needed])]  # each (B, 768)
        return self.mlp_head(torch.stack(pooled).mean(dim=0))  # (B, 527)


class CAVMAEAudioClassifier(CAVMAEClassifier):
    """The audio half by itself: 86,129,423 parameters with 527 classes. Published: `CAVMAEFTAudio`.

    Arguments are those of `CAVMAEClassifier`.
    """

    modalities = "a"
    ignored = (*CAVMAEClassifier.ignored, "patch_embed_v.", "modality_v", "pos_embed_v", "blocks_v.", "norm_v.")

    def forward(self, audio: Float[Tensor, "batch frames mels"]) -> Float[Tensor, "_ classes"]:
        """Logits of each class from `(B, 1024, 128)`, normalised fbank, as in mode "audioonly"."""
        return super().forward(audio, mode="audioonly")
