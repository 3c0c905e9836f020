"""AudioToken: a sound as one word of a prompt, which a text-to-image model that never heard anything then draws.

    waveform (B, 160000) -> BEATs -> features (B, 496, 2304) -> AudioTokenEmbedder -> token (B, 768)

    "a photo of <*>" -> prompt_ids (B, 77) -> CLIP's text encoder, in which `speaking` puts the token in the place
          of <*> -> (B, 77, 768) -> UNet of Stable Diffusion, perhaps with `add_lora`

BEATs, the text encoder and the UNet are those of others, and frozen. The embedder alone is trained, and LoRA if any.

Source: Yariv et al., "AudioToken: Adaptation of Text-Conditioned Diffusion Models for Audio-to-Image Generation",
Interspeech 2023, arXiv 2305.13050, and its code (guyyariv/AudioToken).
"""

from .embedder import AudioTokenEmbedder
from .lora import add_lora, load_lora, lora_parameters, save_lora
from .prompting import PLACEHOLDER, placeholder_id, prompt_embeddings, prompt_ids, speaking, token_width

__all__ = [
    "PLACEHOLDER",
    "AudioTokenEmbedder",
    "add_lora",
    "load_lora",
    "lora_parameters",
    "placeholder_id",
    "prompt_embeddings",
    "prompt_ids",
    "save_lora",
    "speaking",
    "token_width",
]
