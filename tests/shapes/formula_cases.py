"""Models and functions whose shapes follow formulas, as people build them; small, with random weights."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Case:
    """Something to trace: how to build it, its inputs at given sizes, and what its output's formula is to be.

    `draw` gives random sizes at which it runs. `unknown` is the reason why a size has no formula; `u` stands for it.
    """

    build: Callable[[], Callable]
    inputs: Callable[..., dict[str, Any]]
    dims: dict[str, Any]
    sizes: dict[str, int]
    draw: Callable[[random.Random], dict[str, int]]
    output: Any  # text, in the output's nesting
    requires: tuple[str, ...] = ()
    unknown: str = ""
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def case(name: str, **kwargs: Any) -> None:
    CASES[name] = Case(**kwargs)


def between(low: int, high: int, multiple: int = 1) -> Callable[[random.Random], int]:
    return lambda choose: choose.randint(-(-low // multiple), high // multiple) * multiple


def drawn(**ranges: Any) -> Callable[[random.Random], dict[str, int]]:
    return lambda choose: {
        name: between(*limits)(choose) if isinstance(limits, tuple) else limits for name, limits in ranges.items()
    }


WAV = {"wav": "B T"}
SPEECH = {"B": 2, "T": 16000}
SPEECH_SIZES = drawn(B=(1, 4), T=(900, 30_000))


def speech(name: str, **settings: Any):
    """HuBERT or Wav2Vec2 with the published convolutions and little else."""
    import transformers

    small = {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    config = getattr(transformers, f"{name}Config")(**small, **settings)
    return getattr(transformers, f"{name}Model")(config).eval()


FRAMES = "(T - 400)//320 + 1"
HIDDEN = {"last_hidden_state": f"(B, {FRAMES}, 24)"}

for model in ("Hubert", "Wav2Vec2"):
    case(
        name=model,
        build=lambda model=model: speech(model),
        inputs=lambda B, T: {"input_values": torch.randn(B, T)},
        dims={"input_values": "B T"},
        sizes=SPEECH,
        draw=SPEECH_SIZES,
        output=HIDDEN | ({"extract_features": f"(B, {FRAMES}, 16)"} if model == "Wav2Vec2" else {}),
    )
case(
    name="Hubert with attention_mask",
    build=lambda: speech("Hubert", feat_extract_norm="layer", attn_implementation="eager"),
    inputs=lambda B, T: {
        "input_values": torch.randn(B, T),
        "attention_mask": (torch.arange(T) < T - 100 * torch.arange(B)[:, None]).long(),
    },
    dims={"input_values": "B T", "attention_mask": "B T"},
    sizes=SPEECH,
    draw=SPEECH_SIZES,
    output=HIDDEN,
)
case(
    name="Wav2Vec2 with masked frames",
    build=lambda: speech("Wav2Vec2", layerdrop=0.0).train(),
    inputs=lambda B, T: {
        "input_values": torch.randn(B, T),
        "mask_time_indices": torch.rand(B, (T - 400) // 320 + 1) < 0.3,
    },
    dims={"input_values": "B T", "mask_time_indices": f"B {FRAMES}"},
    sizes=SPEECH,
    draw=SPEECH_SIZES,
    output=HIDDEN | {"extract_features": f"(B, {FRAMES}, 16)"},
)
case(
    name="Wav2Vec2 in training",
    build=lambda: speech("Wav2Vec2", mask_time_length=2, layerdrop=0.0).train(),
    inputs=lambda B, T: {"input_values": torch.randn(B, T)},
    dims={"input_values": "B T"},
    sizes=SPEECH,
    draw=drawn(B=(1, 4), T=(4000, 30_000)),
    output=HIDDEN | {"extract_features": f"(B, {FRAMES}, 16)"},
)


def whisper(**settings: Any):
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=50,
        d_model=24,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **settings,
    )
    return WhisperModel(config).eval()


case(
    name="Whisper encoder",
    build=lambda: whisper().encoder,
    inputs=lambda B, T: {"input_features": torch.randn(B, 80, T)},
    dims={"input_features": "B 80 T"},
    sizes={"B": 2, "T": 3000},
    draw=drawn(B=(1, 4), T=3000),
    output={"last_hidden_state": "(B, 1500, 24)"},
    requires=("T == 3000",),
)
case(
    name="Whisper decoder",
    build=whisper,
    inputs=lambda B, S: {"input_features": torch.randn(B, 80, 3000), "decoder_input_ids": torch.ones(B, S).long()},
    dims={"input_features": "B 80 3000", "decoder_input_ids": "B S"},
    sizes={"B": 2, "S": 5},
    draw=drawn(B=(1, 3), S=(1, 40)),
    output={"last_hidden_state": "(B, S, 24)", "encoder_last_hidden_state": "(B, 1500, 24)"},
    options={"use_cache": False},
)


def vit(**settings: Any):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**{"embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 5, **settings}).eval()


PICTURE = {"x": "B 3 H W"}
case(
    name="timm ViT, fixed size",
    build=vit,
    inputs=lambda B, H, W: {"x": torch.randn(B, 3, H, W)},
    dims=PICTURE,
    sizes={"B": 2, "H": 224, "W": 224},
    draw=drawn(B=(1, 4), H=224, W=224),
    output="(B, 5)",
    requires=("H == 224", "W == 224"),
)
case(
    name="timm ViT, any size",
    build=lambda: vit(dynamic_img_size=True, num_classes=0, global_pool=""),
    inputs=lambda B, H, W: {"x": torch.randn(B, 3, H, W)},
    dims=PICTURE,
    sizes={"B": 2, "H": 224, "W": 160},
    draw=drawn(B=(1, 4), H=(16, 320, 16), W=(16, 320, 16)),
    output="(B, (H//16)*(W//16) + 1, 24)",
    requires=("H % 16 == 0", "W % 16 == 0"),
)


def cav_mae(**settings: Any):
    from avlib.models.cav_mae import CAVMAE

    return CAVMAE(
        width=24, heads=2, modality_depth=1, decoder_width=16, decoder_heads=2, decoder_depth=1, **settings
    ).eval()


def clips(B: int, T: int, H: int = 224, W: int = 224) -> dict[str, Any]:
    return {"audio": torch.randn(B, T, 128), "image": torch.randn(B, 3, H, W)}


CLIP = {"audio": "B T 128", "image": "B 3 H W"}
CLIP_SIZES = drawn(B=(2, 4), T=(64, 800, 16), H=(32, 240, 16), W=(32, 240, 16))
case(
    name="CAV-MAE, masked",
    build=cav_mae,
    inputs=clips,
    dims=CLIP,
    sizes={"B": 2, "T": 256, "H": 96, "W": 112},
    draw=CLIP_SIZES,
    output={
        **dict.fromkeys(("loss", "mae_audio", "mae_image", "contrast", "contrast_accuracy"), "()"),
        "mask_audio": "(B, 8*(T//16))",
        "mask_image": "(B, (H//16)*(W//16))",
        "prediction_audio": "(B, 8*(T//16), 256)",
        "prediction_image": "(B, (H//16)*(W//16), 768)",
    },
    requires=("T % 16 == 0", "H % 16 == 0", "W % 16 == 0"),
)


class Encode(nn.Module):
    """CAV-MAE's tokens, nothing hidden."""

    def __init__(self, **settings: Any):
        super().__init__()
        self.model = cav_mae(**settings)

    def forward(self, audio: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(audio, image)


case(
    name="CAV-MAE, all patches",
    build=Encode,
    inputs=clips,
    dims=CLIP,
    sizes={"B": 2, "T": 1024, "H": 224, "W": 224},
    draw=CLIP_SIZES,
    output=("(B, 8*(T//16), 24)", "(B, (H//16)*(W//16), 24)"),
    requires=("T % 16 == 0", "H % 16 == 0", "W % 16 == 0"),
)


class PatchesWithoutPositions(nn.Module):
    """CAV-MAE's idea without positions: any sides, a quarter of the patches kept."""

    def __init__(self, ratio: float):
        super().__init__()
        self.audio, self.image, self.ratio = nn.Conv2d(1, 8, 16, 16), nn.Conv2d(3, 8, 16, 16), ratio
        self.norm = nn.LayerNorm(8)

    def kept(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        keep = int(L * (1 - self.ratio))
        order = torch.rand(B, L, device=x.device).argsort(dim=1)[:, :keep]
        return x.gather(1, order[..., None].expand(-1, -1, D))

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        a = self.audio(audio[:, None].transpose(2, 3)).flatten(2).transpose(1, 2)
        v = self.image(image).flatten(2).transpose(1, 2)
        return self.norm(torch.cat([self.kept(a), self.kept(v)], dim=1))


case(
    name="masking by int(L*(1 - 0.75))",
    build=lambda: PatchesWithoutPositions(0.75),
    inputs=clips,
    dims=CLIP,
    sizes={"B": 2, "T": 1024, "H": 224, "W": 224},
    draw=drawn(B=(1, 4), T=(64, 2000), H=(40, 320), W=(40, 320)),
    output="(B, ((H//16)*(W//16))//4 + 2*(T//16), 8)",
)
case(
    name="masking by int(L*(1 - 0.7))",
    build=lambda: PatchesWithoutPositions(0.7),
    inputs=clips,
    dims=CLIP,
    sizes={"B": 2, "T": 1024, "H": 224, "W": 224},
    draw=drawn(B=(1, 4), T=(64, 2000), H=(40, 320), W=(40, 320)),
    output="(B, int((1 - 0.7)*(H//16)*(W//16)) + int((1 - 0.7)*8*(T//16)), 8)",
)


class Beats(nn.Module):
    """A front end as that of BEATs: kaldi's fbank of each clip in turn, then patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 12, 16, 16, bias=False)
        self.norm = nn.LayerNorm(12)

    def forward(self, source: Tensor) -> Tensor:
        from torchaudio.compliance import kaldi

        banks = []
        for waveform in source:
            waveform = waveform.unsqueeze(0) * 2**15
            banks.append(
                kaldi.fbank(waveform, num_mel_bins=128, sample_frequency=16000, frame_length=25, frame_shift=10)
            )
        fbank = (torch.stack(banks, dim=0) - 15.4) / 13.1
        x = self.patches(fbank.unsqueeze(1))
        return self.norm(x.reshape(x.shape[0], x.shape[1], -1).transpose(1, 2))


case(
    name="BEATs' front end",
    build=Beats,
    inputs=lambda B, T: {"source": torch.randn(B, T)},
    dims={"source": "B T"},
    sizes=SPEECH,
    draw=drawn(B=(1, 4), T=(3000, 40_000)),
    output="(B, 8*((T - 2800)//2560 + 1), 12)",
)


def kaldi_fbank(waveform: Tensor) -> Tensor:
    from torchaudio.compliance import kaldi

    return kaldi.fbank(waveform, num_mel_bins=40)


case(
    name="kaldi fbank",
    build=lambda: kaldi_fbank,
    inputs=lambda T: {"waveform": torch.randn(1, T)},
    dims={"waveform": "1 T"},
    sizes={"T": 16000},
    draw=drawn(T=(500, 40_000)),
    output="((T - 400)//160 + 1, 40)",
)


class Gated(nn.Module):
    """A stack as WaveNet's: doubling dilations, gates, sums of skips."""

    def __init__(self, padded: bool):
        super().__init__()
        self.padded = padded
        self.first = nn.Conv1d(1, 8, 1)
        self.dilations = [2**i for i in range(10)]
        self.gates = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=d) for d in self.dilations)
        self.skips = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in self.dilations)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        total: Any = 0
        for d, gate, skip in zip(self.dilations, self.gates, self.skips, strict=True):
            filtered, level = gate(F.pad(x, (d, 0)) if self.padded else x).chunk(2, dim=1)
            y = skip(filtered.tanh() * level.sigmoid())
            x = x[..., -y.shape[-1] :] + y
            total = y if self.padded or isinstance(total, int) else total[..., -y.shape[-1] :] + y
        return total


for padded, output in ((True, "(B, 8, T)"), (False, "(B, 8, T - 1023)")):
    case(
        name=f"WaveNet, {'padded' if padded else 'unpadded'}",
        build=lambda padded=padded: Gated(padded),
        inputs=lambda B, T: {"x": torch.randn(B, 1, T)},
        dims={"x": "B 1 T"},
        sizes={"B": 2, "T": 4000},
        draw=drawn(B=(1, 4), T=(1100, 5000)),
        output=output,
    )

case(
    name="LSTM",
    build=lambda: nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
    inputs=lambda B, T: {"input": torch.randn(B, T, 6)},
    dims={"input": "B T 6"},
    sizes={"B": 2, "T": 30},
    draw=drawn(B=(1, 4), T=(1, 90)),
    output=("(B, T, 10)", ("(4, B, 5)", "(4, B, 5)")),
)


def mel(**settings: Any) -> nn.Module:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(16000, n_fft=400, hop_length=160, n_mels=20, **settings)


case(
    name="MelSpectrogram",
    build=mel,
    inputs=lambda B, T: {"waveform": torch.randn(B, T)},
    dims={"waveform": "B T"},
    sizes=SPEECH,
    draw=SPEECH_SIZES,
    output="(B, 20, T//160 + 1)",
)
case(
    name="STFT, not centred",
    build=lambda: lambda x: torch.stft(x, 512, 128, center=False, window=torch.hann_window(512), return_complex=True),
    inputs=lambda B, T: {"x": torch.randn(B, T)},
    dims={"x": "B T"},
    sizes=SPEECH,
    draw=SPEECH_SIZES,
    output="(B, 257, (T - 512)//128 + 1)",
)


def resample(new: int) -> nn.Module:
    from torchaudio.transforms import Resample

    return Resample(44100, new)


case(
    name="resampling, 44.1 to 16 kHz",
    build=lambda: resample(16000),
    inputs=lambda B, T: {"waveform": torch.randn(B, T)},
    dims={"waveform": "B T"},
    sizes={"B": 2, "T": 44100},
    draw=drawn(B=(1, 4), T=(900, 90_000)),
    output="(B, ceil(float32((160*T)/441)))",  # beyond T = 180,696 this is not ceil(160*T/441)
)


class ResampledMel(nn.Module):
    """What 44.1 kHz becomes: resampled, mel, and halved by convolutions."""

    def __init__(self):
        super().__init__()
        self.resample, self.mel, self.halve = resample(16000), mel(), nn.Conv1d(20, 8, 3, 2, 1)

    def forward(self, wav: Tensor) -> Tensor:
        return self.halve(self.mel(self.resample(wav)))


case(
    name="resampling, mel, convolution",
    build=ResampledMel,
    inputs=lambda B, T: {"wav": torch.randn(B, T)},
    dims=WAV,
    sizes={"B": 2, "T": 44100},
    draw=drawn(B=(1, 4), T=(900, 90_000)),
    output="(B, 8, (((160*T - 1)//441 + 1)//160)//2 + 1)",
)
case(
    name="interpolation",
    build=lambda: lambda x: (F.interpolate(x, scale_factor=2.5), F.interpolate(x, size=x.shape[-1] * 3 // 2)),
    inputs=lambda B, T: {"x": torch.randn(B, 3, T)},
    dims={"x": "B 3 T"},
    sizes={"B": 2, "T": 50},
    draw=drawn(B=(1, 4), T=(2, 90)),
    output=("(B, 3, (5*T)//2)", "(B, 3, (3*T)//2)"),
)
case(
    name="interpolation to int(1.7227*T)",
    build=lambda: lambda x: F.interpolate(x, size=int(1.7227 * x.shape[-1])),
    inputs=lambda B, T: {"x": torch.randn(B, 3, T)},
    dims={"x": "B 3 T"},
    sizes={"B": 2, "T": 50},
    draw=drawn(B=(1, 4), T=(2, 900)),
    output="(B, 3, int(1.7227*T))",
)


class Expand(nn.Module):
    """Phones to frames by an index, as singing synthesis does: mel2ph."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(60, 8)

    def forward(self, phones: Tensor, mel2ph: Tensor) -> Tensor:
        states = F.pad(self.embed(phones), (0, 0, 1, 0))
        return states.gather(1, mel2ph[..., None].repeat(1, 1, states.shape[-1]))


case(
    name="gather by mel2ph",
    build=Expand,
    inputs=lambda B, P, T: {"phones": torch.ones(B, P).long(), "mel2ph": torch.ones(B, T).long()},
    dims={"phones": "B P", "mel2ph": "B T"},
    sizes={"B": 2, "P": 7, "T": 50},
    draw=drawn(B=(1, 4), P=(1, 30), T=(2, 90)),
    output="(B, T, 8)",
)
case(
    name="pooling chain",
    build=lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AdaptiveAvgPool2d((None, 1)),
    ),
    inputs=lambda B, T, M: {"input": torch.randn(B, 1, T, M)},
    dims={"input": "B 1 T M"},
    sizes={"B": 2, "T": 100, "M": 80},
    draw=drawn(B=(1, 4), T=(16, 300), M=(16, 300)),
    output="(B, 4, (T - 4)//8 + 1, 1)",
)
case(
    name="transposed convolutions",
    build=lambda: nn.Sequential(
        nn.ConvTranspose1d(4, 4, 16, 8, 4), nn.LeakyReLU(), nn.ConvTranspose1d(4, 2, 4, 2, 1, output_padding=1)
    ),
    inputs=lambda B, T: {"input": torch.randn(B, 4, T)},
    dims={"input": "B 4 T"},
    sizes={"B": 2, "T": 100},
    draw=drawn(B=(1, 4), T=(2, 300)),
    output="(B, 2, 16*T + 1)",
)


class UNet(nn.Module):
    """Down, up, and a skip; the input is padded to what the strides need, and cut again."""

    def __init__(self, pad: bool):
        super().__init__()
        self.pad = pad
        self.down1, self.down2 = nn.Conv1d(2, 4, 4, 2, 1), nn.Conv1d(4, 8, 4, 2, 1)
        self.up2, self.up1 = nn.ConvTranspose1d(8, 4, 4, 2, 1), nn.ConvTranspose1d(8, 2, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        if self.pad:
            x = F.pad(x, (0, (-length) % 4))
        a = self.down1(x)
        b = self.up2(self.down2(a))
        return self.up1(torch.cat([a, b], dim=1))[..., :length]


case(
    name="U-Net, padded",
    build=lambda: UNet(True),
    inputs=lambda B, T: {"x": torch.randn(B, 2, T)},
    dims={"x": "B 2 T"},
    sizes={"B": 2, "T": 101},
    draw=drawn(B=(1, 4), T=(4, 300)),
    output="(B, 2, T)",
)
case(
    name="U-Net, multiples of 4",
    build=lambda: UNet(False),
    inputs=lambda B, T: {"x": torch.randn(B, 2, T)},
    dims={"x": "B 2 T"},
    sizes={"B": 2, "T": 100},
    draw=drawn(B=(1, 4), T=(4, 300, 4)),
    output="(B, 2, 2*(T//2))",  # which T % 4 == 1 meets too
    requires=("(T//2) % 2 == 0",),
)


class Packed(nn.Module):
    """A recurrent network over sequences of several lengths."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 5, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.rnn(packed)
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]


case(
    name="packed and padded again",
    build=Packed,
    inputs=lambda B, T: {"x": torch.randn(B, T, 6), "lengths": (T - torch.arange(B) % T).long()},
    dims={"x": "B T 6", "lengths": "B"},
    sizes={"B": 3, "T": 20},
    draw=drawn(B=(1, 5), T=(6, 60)),
    output="(B, T, 5)",
)
case(
    name="chosen by a boolean mask",
    build=lambda: lambda x, m: x[m],
    inputs=lambda B, T: {"x": torch.randn(B, T, 6), "m": torch.arange(B * T).reshape(B, T) % 3 == 0},
    dims={"x": "B T 6", "m": "B T"},
    sizes={"B": 3, "T": 20},
    draw=drawn(B=(1, 5), T=(6, 60)),
    output="(u, 6)",
    unknown="how many are True depends on the mask",
)
case(
    name="cut at the longest length",
    build=lambda: lambda x, lengths: x[:, : int(lengths.max().item())],
    inputs=lambda B, T: {"x": torch.randn(B, T, 6), "lengths": (T // 2 + torch.arange(B)).long()},
    dims={"x": "B T 6", "lengths": "B"},
    sizes={"B": 3, "T": 20},
    draw=drawn(B=(1, 5), T=(12, 60)),
    output="(B, u, 6)",
    unknown="the longest length depends on values",
)


class Loop(nn.Module):
    """A Python loop over the batch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 5, 3)

    def forward(self, wav: Tensor) -> Tensor:
        return torch.stack([self.conv(each[None]).mean(dim=0) for each in wav])


case(
    name="loop over the batch",
    build=Loop,
    inputs=lambda B, T: {"wav": torch.randn(B, T)},
    dims=WAV,
    sizes={"B": 3, "T": 200},
    draw=drawn(B=(1, 6), T=(9, 400)),
    output="(B, (T - 5)//3 + 1)",
)
case(
    name="attention by hand",
    build=lambda: (
        lambda q, k, v: torch.einsum("bhqk,bhkd->bhqd", (q @ k.transpose(-1, -2)).softmax(-1), v).flatten(1, 2)
    ),
    inputs=lambda B, S, T: {name: torch.randn(B, 2, n, 8) for name, n in (("q", S), ("k", T), ("v", T))},
    dims={"q": "B 2 S 8", "k": "B 2 T 8", "v": "B 2 T 8"},
    sizes={"B": 3, "S": 5, "T": 11},
    draw=drawn(B=(1, 6), S=(1, 40), T=(1, 40)),
    output="(B, 2*S, 8)",
)
case(
    name="floors of floors",
    build=lambda: lambda x: x.new_zeros(len(range(0, 7 * (x.shape[-1] // 16) // 2)), 3),
    inputs=lambda T: {"x": torch.randn(T)},
    dims={"x": "T"},
    sizes={"T": 224},
    draw=drawn(T=(16, 900)),
    output="(7*(T//16)//2, 3)",
)
case(
    name="frames of the shorter",
    build=lambda: lambda mel, units: mel[:, : min(mel.shape[1], units.shape[1])],
    inputs=lambda B, T, U: {"mel": torch.randn(B, T, 8), "units": torch.ones(B, U)},
    dims={"mel": "B T 8", "units": "B U"},
    sizes={"B": 2, "T": 100, "U": 90},
    draw=drawn(B=(1, 6), T=(1, 200), U=(1, 200)),
    output="(B, min(T, U), 8)",
)
case(
    name="at most 512 frames",
    build=lambda: lambda x: x[:, :512] if x.shape[1] > 512 else x,
    inputs=lambda B, T: {"x": torch.randn(B, T)},
    dims={"x": "B T"},
    sizes={"B": 2, "T": 100},
    draw=drawn(B=(1, 6), T=(1, 2000)),
    output="(B, min(T, 512))",
)
case(
    name="a number as an argument",
    build=lambda: lambda x, frames: F.adaptive_avg_pool1d(x, frames),
    inputs=lambda B, T, N: {"x": torch.randn(B, 2, T), "frames": N},
    dims={"x": "B 2 T", "frames": "N"},
    sizes={"B": 2, "T": 100, "N": 10},
    draw=drawn(B=(1, 6), T=(1, 200), N=(1, 30)),
    output="(B, 2, N)",
)


def encodec(**settings: Any):
    from transformers import EncodecConfig, EncodecModel

    return EncodecModel(EncodecConfig(num_filters=2, hidden_size=8, codebook_dim=8, **settings)).encoder.eval()


case(
    name="EnCodec encoder",  # which finds its paddings with tensors
    build=encodec,
    inputs=lambda B, T: {"hidden_states": torch.randn(B, 1, T)},
    dims={"hidden_states": "B 1 T"},
    sizes={"B": 2, "T": 8000},
    draw=drawn(B=(1, 3), T=(400, 9000)),
    output="(B, 8, (T - 1)//320 + 1)",
)


class Strided(nn.Module):
    """Pads by what tensors say, until windows fit; then a recurrent network over all frames."""

    def __init__(self):
        super().__init__()
        self.register_buffer("stride", torch.tensor(3), persistent=False)
        self.register_buffer("kernel", torch.tensor([5]), persistent=False)
        self.conv = nn.Conv1d(1, 4, 5, 3)
        self.rnn = nn.LSTM(4, 6, bidirectional=True, batch_first=True)

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        frames = torch.ceil((wav.shape[-1] - self.kernel[0]) / self.stride + 1).long()
        missing = (frames - 1) * self.stride + self.kernel[0] - wav.shape[-1]
        hidden = self.conv(F.pad(wav, (0, missing.item())))
        return self.rnn(hidden.transpose(1, 2))[0], hidden[..., : torch.maximum(frames // 2, self.stride)]


case(
    name="a padding found with tensors",
    build=Strided,
    inputs=lambda B, T: {"wav": torch.randn(B, 1, T)},
    dims={"wav": "B 1 T"},
    sizes={"B": 2, "T": 100},
    draw=drawn(B=(1, 3), T=(20, 900)),
    output=("(B, (T - 3)//3 + 1, 12)", "(B, 4, min(T//3, max(T//6, 3)))"),
)


def padded(x: Tensor) -> Tensor:
    """Up to the next multiple of 8, and nothing where there is one already."""
    if rest := x.shape[-1] % 8:
        x = F.pad(x, (0, 8 - rest))
    return F.avg_pool1d(x, 4)


for size in (800, 807):  # a multiple, and no multiple
    case(
        name=f"padded to a multiple of 8, from {size}",
        build=lambda: lambda x: padded(x),
        inputs=lambda B, T: {"x": torch.randn(B, 2, T)},
        dims={"x": "B 2 T"},
        sizes={"B": 2, "T": size},
        draw=lambda choose: {"B": choose.randint(1, 3), "T": choose.choice([choose.randint(9, 900), 160, 808])},
        output="(B, 2, 2*ceil(T/8))",
    )
case(
    name="padded by frames",
    build=lambda: lambda x: F.pad(x, (0, 8 - x.shape[-1] // 160 % 8)) * 1 if x.shape[-1] // 160 % 8 != 0 else x * 1,
    inputs=lambda B, T: {"x": torch.randn(B, T)},
    dims={"x": "B T"},
    sizes={"B": 2, "T": 8000},
    draw=lambda choose: {"B": 2, "T": choose.choice([choose.randint(900, 9000), 1280, 1300, 2560])},
    output="(B, T + 8*ceil((T//160)/8) - T//160)",
)
