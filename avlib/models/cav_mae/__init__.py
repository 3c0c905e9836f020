"""CAV-MAE: sound and picture in one encoder, which learns by filling in what is hidden and by telling clips apart.

    fbank (B, 1024, 128)   -> 512 tokens -> three quarters hidden -> blocks_a -+
    image (B, 3, 224, 224) -> 196 tokens -> three quarters hidden -> blocks_v -+-> blocks_u, three times:

        both together   -> norm   -> decoder -> hidden patches     (reconstruction)
        sound by itself -> norm_a -> mean -+
        picture         -> norm_v -> mean -+-> cosine similarity   (contrast)

Parameters have the published names, in which "a" is audio, "v" is visual and "u" is unified. There is no cls token.

Source: Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023, arXiv 2210.07839, and its code
(YuanGongND/cav-mae, `src/models/cav_mae.py`).
"""

from .classification import CLASSIFIER_MODES, CAVMAEAudioClassifier, CAVMAEClassifier
from .pretraining import CAVMAE, OBJECTIVES, CAVMAEOutput, Inpainting
from .sizes import Sizes

__all__ = [
    "CAVMAE",
    "CLASSIFIER_MODES",
    "OBJECTIVES",
    "CAVMAEAudioClassifier",
    "CAVMAEClassifier",
    "CAVMAEOutput",
    "Inpainting",
    "Sizes",
]
