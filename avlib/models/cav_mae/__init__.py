"""CAV-MAE: an audio-visual encoder, trained by masked reconstruction and contrast.

    fbank (B, 1024, 128)   -> 512 tokens -> 3/4 masked -> blocks_a -+
    image (B, 3, 224, 224) -> 196 tokens -> 3/4 masked -> blocks_v -+-> blocks_u, three times:

        both together -> norm   -> decoder -> masked patches     (reconstruction)
        audio alone   -> norm_a -> mean -+
        image alone   -> norm_v -> mean -+-> cosine similarity   (contrast)

Parameters have the published names, in which "a" is audio, "v" is visual and "u" is unified. There is no cls token.

Source: Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023, arXiv 2210.07839, and its code
(YuanGongND/cav-mae, `src/models/cav_mae.py`).
"""

from .networks import CAVMAE, CLASSIFIER_MODES, OBJECTIVES, CAVMAEClassifier
from .weights import Sizes

__all__ = ["CAVMAE", "CLASSIFIER_MODES", "OBJECTIVES", "CAVMAEClassifier", "Sizes"]
