"""What looks at the pictures of a small text-to-image model and says what is on them; small itself.

Published figures use networks trained on the world's photographs: a classifier, and CLIP with Wav2CLIP, in which
pictures and sounds have vectors that can be compared. On the built-in scenes, which such networks know nothing of, this
one is in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError
from ..features import BEATS_MELS, beats_fbank


class Judge(nn.Module):
    """A classifier of pictures by several attributes, and vectors of pictures and of sounds.

    Args:
        classes: how many there are, by the attribute's name, such as {"kind": 8, "size": 2}.
        width: channels of the first layer.
        embedding: width of the vectors.
    """

    def __init__(self, classes: Mapping[str, int], width: int = 16, embedding: int = 32):
        super().__init__()
        self.settings = {"classes": dict(classes), "width": width, "embedding": embedding}
        self.look = nn.Sequential(
            _block(3, width, 1), _block(width, 2 * width, 2), _block(2 * width, 4 * width, 2),
            _block(4 * width, 4 * width, 2), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(64 * width, 4 * width), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(4 * width, count) for name, count in classes.items()})
        self.picture = nn.Linear(4 * width, embedding)
        self.listen = nn.Sequential(nn.LayerNorm(2 * BEATS_MELS), nn.Linear(2 * BEATS_MELS, 4 * width), nn.ReLU())
        self.sound = nn.Linear(4 * width, embedding)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Float[Tensor, "batch classes"]]:
        """Logits of each attribute, by its name. Pictures are in [-1, 1]."""
        seen = self.look(images)
        return {name: head(seen) for name, head in self.heads.items()}

    def embed_pictures(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch values"]:
        """A vector of length 1 for each picture, in [-1, 1]; near that of the sound that belongs to it."""
        return F.normalize(self.picture(self.look(images)), dim=-1)

    def embed_sounds(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch values"]:
        """A vector of length 1 for each sound, 16 kHz, mono; see `embed_fbanks`."""
        return self.embed_fbanks(beats_fbank(waveform))

    def embed_fbanks(self, fbank: Float[Tensor, "batch frames mels"]) -> Float[Tensor, "batch values"]:
        """A vector of length 1 for each sound, by its `beats_fbank`: how strong each mel band is, and how it varies."""
        heard = torch.cat([fbank.mean(dim=1), fbank.std(dim=1)], dim=-1)  # (B, 256)
        return F.normalize(self.sound(self.listen(heard)), dim=-1)

    def save(self, path: Path | str) -> None:
        """Write weights and settings, of which `from_checkpoint` makes the same model; see `checkpoints.save`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": type(self).__name__, "settings": self.settings})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> Judge:
        """Build a model from a folder that `save` wrote.

        Raises:
            CheckpointError: it cannot be read or does not fit.
        """
        tensors, config = checkpoints.read(path)
        settings = config.get("settings")
        if config.get("model") != cls.__name__ or not isinstance(settings, Mapping):
            raise CheckpointError(path, "is not a judge of pictures", "a folder that Judge.save wrote")
        model = cls(**settings)
        checkpoints.load(model, path, tensors)
        return model


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
