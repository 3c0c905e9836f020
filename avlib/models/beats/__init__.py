"""BEATs: sound as tokens, with which AudioToken listens.

    waveform (B, 160000) -> fbank (B, 998, 128) -> patches (B, 496, 512) -> width (B, 496, 768)
          -> plus positions from a convolution -> 12 layers with a relative bias on attention -> (B, 496, 768)

    layers 3, 7 and 11, side by side    -> (B, 496, 2304)    features for AudioToken
    predictor of each token, their mean -> (B, 527)          classes of AudioSet

N samples have T = 1 + (N - 400) // 160 frames and 8 * (T // 16) tokens: 8 of them, from low to high mel bands, for
every 0.16 s. Frames beyond the last full 16 are not heard. Parameters have the published names.

Source: Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", ICML 2023, arXiv 2212.09058, and its code
(microsoft/unilm, `beats`); the gated bias is that of Chi et al., "XLM-E", 2022, the scale of the residuals and the
initial weights those of Wang et al., "DeepNet", 2022.
"""

from .layers import distance_buckets
from .network import PADDINGS, BEATs, length_buckets
from .settings import Config

__all__ = ["PADDINGS", "BEATs", "Config", "distance_buckets", "length_buckets"]
