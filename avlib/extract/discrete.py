"""Discrete units of sound: the nearest of K centroids to each frame of an encoder, 50 times a second.

    waveform (samples,) -> encoder -> (U, width) -> nearest centroid -> units (U,), 0 to K - 1

Source: Lakhotia et al., "On Generative Spoken Language Modeling from Raw Audio", TACL 2021, with HuBERT's frames.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..errors import check_whole
from .units import ContentEncoder


class UnitExtractor:
    """Extractor of units, `(samples,)` and a rate to `(U,)`.

    Args:
        encoder: of frames at 50 Hz; see `avlib.extract.units`.
        centroids: `(K, width)`.
    """

    def __init__(self, encoder: ContentEncoder, centroids: Float[Tensor, "units width"]):
        self.encoder, self.centroids, self.vocabulary = encoder, centroids.float(), len(centroids)

    def __call__(self, waveform: Float[Tensor, " samples"], sample_rate: int) -> Int64[Tensor, " units"]:
        """Units of a mono sound in [-1, 1]; see `ContentEncoder` for what it refuses."""
        return torch.cdist(self.encoder(waveform, sample_rate), self.centroids).argmin(dim=1)


def fit_units(
    encoder: ContentEncoder,
    sounds: Iterable[tuple[Float[Tensor, " samples"], int]],
    clusters: int = 50,
    *,
    seed: int = 0,
) -> UnitExtractor:
    """Cluster the frames of sounds, waveforms with their rates, by scikit-learn's MiniBatchKMeans.

    Raises:
        ParameterError: fewer frames than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    frames = torch.cat([torch.zeros(0, encoder.width), *(encoder(*sound) for sound in sounds)])
    check_whole("clusters", clusters, 2, len(frames))
    fitted = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=2048).fit(frames.numpy())
    return UnitExtractor(encoder, torch.from_numpy(fitted.cluster_centers_).float())
