"""Files made for tests. Media with known content: each picture carries its own number, each sound its own tone. And
weights in published layouts.
"""

import json
import shutil
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import torch

from avlib import media

SIZE = 64  # of each picture, in pixels


def numbered(number: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """A picture that says `number` in eight black or white stripes, which survive lossy coding, rotation aside."""
    stripes = [255 * (number >> bit & 1) for bit in range(8)]
    row = np.repeat(np.array(stripes, np.uint8), -(-width // 8))[:width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def numbers(frames: torch.Tensor) -> list[int]:
    """What `numbered` wrote, read from the middle row of each picture of `(n, 3, height, width)`."""
    height, width = frames.shape[-2:]
    columns = [(2 * bit + 1) * width // 16 for bit in range(8)]
    bits = frames[:, 0, height // 2, columns] > 127
    return (bits * 2 ** torch.arange(8)).sum(dim=1).tolist()


def tone(seconds: float, rate: int, hertz: float = 440.0, channels: int = 1) -> torch.Tensor:
    """A sine in each of `(channels, samples)`; channel k is an octave above the one before."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    pitches = hertz * 2.0 ** torch.arange(channels)[:, None]
    return (0.5 * torch.sin(2 * torch.pi * pitches * time)).float()


def write_clip(
    path: Path, *, frames: int = 50, rate: float = 25.0, sound_rate: int = 44100, channels: int = 2, **options
):
    """An mp4 with numbered pictures and tones of the same length."""
    waveform = tone(frames / rate, sound_rate, channels=channels)
    media.write_video(path, map(numbered, range(frames)), rate, waveform, sound_rate, **options)
    return path


def write_wav(path: Path, samples: torch.Tensor, rate: int, subtype: str = "FLOAT") -> Path:
    """`(channels, samples)` as they are, also what no recorder would write."""
    soundfile.write(path, samples.numpy().T, rate, subtype, format="WAV")
    return path


def write_pictures(
    path: Path, times: list[int], ticks_per_second: int = 1000, *, rotation: int = 0, codec: str = "libx264", options=()
):
    """Numbered pictures at given ticks: uneven intervals, a start before zero (hidden by an edit list), a rotation."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE // 2, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, ticks_per_second)
        stream.options = dict(options)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, SIZE // 2), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, ticks_per_second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_container(path: Path, video: str, audio: str, seconds: int = 6) -> Path:
    """Numbered pictures at 25 Hz and a rising tone, in the container that the name asks for, with these codecs."""
    rate = 48000
    time = torch.arange(seconds * rate, dtype=torch.float64) / rate
    samples = (0.5 * torch.sin(2 * torch.pi * (200 + 100 * time) * time)).float()[None].expand(2, -1)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video, rate=25)
        pictures.width = pictures.height = SIZE
        pictures.pix_fmt, pictures.bit_rate = "yuv420p", 2_000_000
        sound = container.add_stream(audio, rate=rate, layout="stereo")
        sound.bit_rate = 128_000
        resampler = av.AudioResampler(sound.format, sound.layout, rate, sound.frame_size or 1024)
        for number in range(25 * seconds):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
            piece = samples[:, number * rate // 25 : (number + 1) * rate // 25].contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(piece, "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, number * rate // 25, Fraction(1, rate)
            for resampled in resampler.resample(frame):
                container.mux(sound.encode(resampled))
        for resampled in resampler.resample(None):
            container.mux(sound.encode(resampled))
        for stream in (pictures, sound):
            container.mux(stream.encode(None))
    return path


def published_folder(folder: Path, width: int = 12) -> Path:
    """A Stable Diffusion in diffusers' layout, of the published kinds of parts, but tiny and random."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    from avlib.models.text_to_image import TextToImage
    from avlib.models.tiny_diffusion import small_tokenizer

    torch.manual_seed(0)
    tokenizer = small_tokenizer(["a", "photo", "of", "dog"], 77)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4, norm_num_groups=4, scaling_factor=0.18215,
    )  # fmt: skip
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    TextToImage(unet, vae, CLIPTextModel(text), tokenizer, scheduler).save_pretrained(folder)
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    merges = [" ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"})
    )
    return folder


def published_files(folder: Path) -> dict[str, Path]:
    """A BEATs, an embedder and a Stable Diffusion as published, but tiny and random, by the names of `assembled`."""
    from avlib.models.audiotoken import AudioTokenEmbedder
    from avlib.models.beats import BEATs, Config

    torch.manual_seed(0)
    beats = BEATs(Config(encoder_embed_dim=8, encoder_ffn_embed_dim=8, encoder_attention_heads=2, conv_pos=4,
                         conv_pos_groups=2, embed_dim=8, predictor_class=5))  # fmt: skip
    torch.save({"cfg": asdict(beats.config), "model": beats.state_dict()}, folder / "beats.pt")
    torch.save(AudioTokenEmbedder(24, 12).state_dict(), folder / "embedder.bin")
    published_folder(folder / "sd")
    return {"checkpoint": folder / "beats.pt", "embedder": folder / "embedder.bin", "diffusion": folder / "sd"}


def mae_weights(depth: int) -> dict[str, torch.Tensor]:
    """Random weights of a small MAE (width 128, 64 x 64 pixels, patches of 16) under the names of MAE's ViT."""
    torch.manual_seed(3)
    block = {
        "norm1.weight": (128,),
        "norm1.bias": (128,),
        "attn.qkv.weight": (384, 128),
        "attn.qkv.bias": (384,),
        "attn.proj.weight": (128, 128),
        "attn.proj.bias": (128,),
        "norm2.weight": (128,),
        "norm2.bias": (128,),
        "mlp.fc1.weight": (512, 128),
        "mlp.fc1.bias": (512,),
        "mlp.fc2.weight": (128, 512),
        "mlp.fc2.bias": (128,),
    }
    shapes = {
        "cls_token": (1, 1, 128),
        "pos_embed": (1, 17, 128),
        "mask_token": (1, 1, 64),
        "decoder_pos_embed": (1, 17, 64),
        "patch_embed.proj.weight": (128, 3, 16, 16),
        "patch_embed.proj.bias": (128,),
        "norm.weight": (128,),
        "norm.bias": (128,),
        "decoder_embed.weight": (64, 128),
        "decoder_embed.bias": (64,),
        "decoder_norm.weight": (64,),
        "decoder_norm.bias": (64,),
        "decoder_pred.weight": (768, 64),
        "decoder_pred.bias": (768,),
    }
    shapes |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
    shapes |= {f"decoder_blocks.0.{name}": tuple(side // 2 for side in shape) for name, shape in block.items()}
    return {name: torch.randn(shape) for name, shape in shapes.items()}
