"""Classifiers and regressors of sounds: backbones under one head, conditioned on word and age.

model = AudioClassifier("whisper-base", num_outputs=2, word="film", small=True)
model(waveform, lengths, word=numbers)      # (B, samples) at 16 kHz -> logits (B, 2)

    waveform (B, 48000) -> log-mel (B, 80, 300) -> Whisper (B, 150, 512) -> mean (B, 512) -> (B, 256) -> (B, 2)
    waveform (B, 48000) -> normalised -> Wav2Vec2, HuBERT (B, 149, 768)
    waveform (B, 48000) -> log-mel (B, 224, 224) -> ResNet50 (B, 49, 2048): 7 times of 7 bands
    waveform (B, 48000) -> fbank (B, 128, 298) -> AST (B, 348, 768): 29 times of 12 bands
    waveform (B, 48000) -> fbank (B, 128, 298) -> BEATs (B, 144, 768): 18 times of 8 bands

Sources: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023; Baevski et al.,
"wav2vec 2.0", NeurIPS 2020; Hsu et al., "HuBERT", 2021; He et al., "Deep Residual Learning", CVPR 2016; Gong et al.,
"AST", Interspeech 2021; Chen et al., "BEATs", ICML 2023. The head, and rows of conditions, are those of the notes'
README, on classifying pronunciations.
"""

from .backbones import Features, encode_whisper, whisper_layers
from .config import BACKBONES, KINDS, Config, ResolvedConfig
from .model import AudioClassifier, Contributions, Output, age_values, word_keys
