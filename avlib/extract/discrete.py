"""Discrete units of sound: the nearest of K centroids to each frame of an encoder, 50 times a second.

    waveform (samples,) -> encoder -> (U, width) -> nearest centroid -> units (U,), 0 to K - 1

Source: Lakhotia et al., "On Generative Spoken Language Modeling from Raw Audio", TACL 2021, with HuBERT's frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .. import checkpoints
from ..errors import CheckpointError
from ..models.recognizer import Recognizer
from .units import ContentEncoder, centroids_of, content_encoder, recognizer_encoder


class UnitExtractor:
    """Extractor of units, `(samples,)` and a rate to `(U,)`, by an encoder of frames at 50 Hz and K centroids.

    `encoder_path` are the weights of an encoder that is not a small recogniser, for `from_checkpoint`.
    """

    def __init__(self, encoder: ContentEncoder, centroids: Float[Tensor, "units width"], encoder_path: str = ""):
        self.encoder, self.centroids, self.vocabulary = encoder, centroids.float(), len(centroids)
        self.encoder_path = encoder_path

    @property
    def recipe(self) -> dict[str, Any]:
        """Values that the units follow from."""
        return {"encoder": self.encoder.recipe, "centroids": self.centroids.tolist()}

    def __call__(self, waveform: Float[Tensor, " samples"], sample_rate: int) -> Int64[Tensor, " units"]:
        """Units of a mono sound in [-1, 1]; see `ContentEncoder` for what it refuses."""
        return torch.cdist(self.encoder(waveform, sample_rate), self.centroids).argmin(dim=1)

    def save(self, path: Path | str) -> None:
        """Write a folder for `from_checkpoint`; a small recogniser goes with it, of other encoders the path."""
        path, encoder = Path(path), self.encoder
        kept = {"encoder": encoder.name, "encoder_path": self.encoder_path, "recipe": encoder.recipe}
        kept["layer"] = getattr(encoder.network, "layer", None)
        checkpoints.save(path, {"centroids": self.centroids}, kept)
        if isinstance(encoder.network, Recognizer):
            encoder.network.save(path / "recognizer")

    @classmethod
    def from_checkpoint(cls, path: Path | str, encoder_path: str = "") -> UnitExtractor:
        """Read what `save` wrote; `encoder_path` is where the weights of the encoder are now, if elsewhere.

        Raises:
            CheckpointError: another folder, or the encoder has other weights, and so other units.
        """
        tensors, kept = checkpoints.read(path)
        if tensors.keys() != {"centroids"} or "recipe" not in kept:
            raise CheckpointError(path, f"is {checkpoints.seems_to_be(tensors)}", "what UnitExtractor.save wrote")
        where = encoder_path or kept["encoder_path"]
        if kept["encoder"] == "recognizer":
            encoder = recognizer_encoder(Recognizer.from_checkpoint(Path(path) / "recognizer").eval(), hidden=True)
        else:
            encoder = content_encoder(kept["encoder"], where, width=kept["recipe"]["width"], layer=kept["layer"])
        if encoder.recipe["weights"] != kept["recipe"]["weights"]:
            raise CheckpointError(where or path, "other weights", "those that the units were clustered by")
        return cls(encoder, tensors["centroids"], where)


def fit_units(
    encoder: ContentEncoder, sounds: Iterable[tuple[Float[Tensor, " samples"], int]], clusters: int = 50, *,
    seed: int = 0,
) -> UnitExtractor:  # fmt: skip
    """Cluster the frames of sounds, waveforms with their rates; see `centroids_of`."""
    frames = torch.cat([torch.zeros(0, encoder.width), *(encoder(*sound) for sound in sounds)])
    return UnitExtractor(encoder, centroids_of(frames, clusters, seed))
