"""The lip-sync expert: two encoders whose embeddings agree when mouth and speech come from one moment.

    units (B, 10) -> embedding -> convolutions -> (B, D);  five lower halves of a face (B, 15, 48, 96) -> (B, D)

Both end with a softplus and have length 1, so that their cosine is from 0 to 1 and counts as a probability. With the
published ReLU vectors that share no value have no gradient, and a renderer that begins there would learn nothing.

Source: Wav2Lip's expert: Prajwal et al., "A Lip Sync Expert Is All You Need for Speech to Lip Generation In the Wild",
ACM Multimedia 2020, equation 1; units stand in place of its mel spectrogram.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, ShapeError
from ..features import check_units
from ..features.faces import FACE_SIDE
from ..settings import Count, settings

FRAMES, UNITS = 5, 10  # of a window of 0.2 s

Faces = Float[Tensor, "batch frames 3 side side"]  # (B, 5, 3, 96, 96) in [0, 1]


@settings
class Config:
    """Sizes: `width` channels at the first of four halvings of the picture, and `size` values of a vector."""

    num_embeddings: Count = 1000
    width: Count = 16
    size: Count = 64


class LipSync(nn.Module):
    """See the module."""

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        W, D = config.width, config.size
        self.unit_embed = nn.Embedding(config.num_embeddings, D)
        self.speech = nn.Sequential(
            nn.Conv1d(D, D, 3, padding=1), nn.BatchNorm1d(D), nn.ReLU(),
            nn.Conv1d(D, D, 3, padding=1), nn.BatchNorm1d(D), nn.ReLU(),
            nn.Flatten(), nn.Linear(UNITS * D, D),
        )  # fmt: skip
        widths = (3 * FRAMES, W, 2 * W, 2 * W, 4 * W)
        layers = []
        for before, width in pairwise(widths):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.mouth = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * W * 3 * 6, D))

    def forward(self, units: Int[Tensor, "batch units"], faces: Faces) -> Float[Tensor, " batch"]:
        """Cosine of speech, ten units, and the mouth in five faces of the same time, from 0 to 1."""
        expected = (len(faces), UNITS), (len(units), FRAMES, 3, FACE_SIDE, FACE_SIDE)
        if (units.shape, faces.shape) != expected:
            found = f"units {tuple(units.shape)}, faces {tuple(faces.shape)}"
            raise ShapeError("units and faces", found, f"(B, {UNITS}) and (B, {FRAMES}, 3, {FACE_SIDE}, {FACE_SIDE})")
        check_units(units, self.config.num_embeddings)
        speech = self.speech(self.unit_embed(units).transpose(1, 2))
        mouth = self.mouth(faces[..., FACE_SIDE // 2 :, :].flatten(1, 2))
        return F.cosine_similarity(F.softplus(speech), F.softplus(mouth))

    def save(self, path: Path | str) -> None:
        """Write a folder for `from_checkpoint`; see `checkpoints.save`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "config": asdict(self.config)})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> LipSync:
        """Read what `save` wrote, for evaluation."""
        tensors, config = checkpoints.read(path)
        if config.get("model") != cls.__name__ or not isinstance(config.get("config"), Mapping):
            raise CheckpointError(path, "is no judge of lips", "a folder that LipSync.save wrote")
        model = cls(Config(**config["config"]))
        checkpoints.load(model, path, tensors)
        return model.eval()


def sync_loss(cosine: Float[Tensor, " batch"], together: Float[Tensor, " batch"] | float | int) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of cosines against 1 for what belongs together and 0 for what does not."""
    cosine = cosine.to(torch.promote_types(cosine.dtype, torch.float32)).clamp(0, 1)
    target = torch.as_tensor(together, dtype=cosine.dtype, device=cosine.device).expand_as(cosine)
    with torch.autocast(cosine.device.type, enabled=False):  # of CUDA, it refuses the logarithm of probabilities
        return F.binary_cross_entropy(cosine, target)
