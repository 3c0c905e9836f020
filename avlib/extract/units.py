"""Content units: what is sung, 50 times a second, from encoders behind one interface.

    waveform (samples,) at any rate -> 16 kHz -> pieces with context -> encoder -> units (U, width)

U = floor(ceil(samples * 16000 / rate) / 320), and unit j is centred at (j + 0.5) * 20 ms. `content_encoder` reads
HuBERT-soft, ContentVec, Wav2Vec2 and k-means from files; `recognizer_encoder` takes a small recogniser; `fit_kmeans`
clusters mel frames. Attention's memory grows with the square of the length: a long sound is encoded in pieces.

Sources: van Niekerk et al., "A Comparison of Discrete and Soft Speech Units for Improved Voice Conversion", ICASSP
2022, and its code (bshall/hubert); Qian et al., "ContentVec", ICML 2022; Baevski et al., "wav2vec 2.0", NeurIPS 2020.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path

import soxr
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, ParameterError, ShapeError, TooShortError, check_choice, check_number, check_whole
from ..features import check_sound
from ..features.singing import UNIT_HOP, UNIT_SAMPLE_RATE
from ..features.spectrograms import exact_product
from ..media import read_audio
from ..models import quiet

ENCODERS = ("hubert-soft", "contentvec", "wav2vec2", "kmeans")
UNIT_RATE = UNIT_SAMPLE_RATE // UNIT_HOP  # Hz, 50
RECEPTIVE_FIELD = 400  # samples that one unit of HuBERT's convolutions sees
CHUNK_SECONDS, CONTEXT_SECONDS = 30.0, 2.0
KMEANS_MELS, KMEANS_N_FFT = 80, 1024
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_FAIRSEQ = (
    "It is a checkpoint of fairseq, whose loading would execute code. Convert it with transformers' "
    "convert_hubert_original_pytorch_checkpoint_to_pytorch, or take the same model in transformers' layout."
)


class ContentEncoder:
    """Encoder of sound to units, `(samples,)` and a rate to `(U, width)`.

    Args:
        network: maps a waveform `(1, samples)` at 16 kHz to units `(1, U, width)`, unless `function` does by it.
        pad: zeros before the sound; with those behind it they are 80, so that each unit has its 400 samples. 40, as
            HuBERT-soft, centres unit j at (j + 0.5) * 20 ms. None leaves the sound as it is.
        chunk_seconds: longer sound is encoded in pieces of this length; `math.inf` takes any sound whole.
        context_seconds: sound on each side of a piece, whose units are dropped.
    """

    rate = UNIT_RATE

    def __init__(
        self, name: str, network: nn.Module, width: int, *, pad: int | None = 40,
        chunk_seconds: float | int = CHUNK_SECONDS, context_seconds: float | int = CONTEXT_SECONDS,
        device: torch.device | str = "cpu", function: Callable[[Tensor], Tensor] | None = None,
    ):  # fmt: skip
        check_number("chunk_seconds", chunk_seconds, 1, math.inf)
        check_number("context_seconds", context_seconds, 0, math.inf)
        if pad is not None:
            check_whole("pad", pad, 0, RECEPTIVE_FIELD - UNIT_HOP)
        self.name, self.width, self.pad, self.device = name, width, pad, torch.device(device)
        self.network, self.function = network.eval().to(self.device), function or network
        self.chunk_seconds, self.context_seconds = chunk_seconds, context_seconds

    @cached_property
    def recipe(self) -> dict:
        """Values that the units follow from: name, weights (their hash), layer, lengths of pieces."""
        weights = hashlib.sha256(f"{getattr(self.network, 'layer', '')}".encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            weights.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        named = {name: getattr(self, name) for name in ("name", "width", "pad", "chunk_seconds", "context_seconds")}
        return named | {"weights": weights.hexdigest()[:16]}

    def __call__(self, waveform: Float[Tensor, " samples"], sample_rate: int) -> Float[Tensor, "units width"]:
        """Units of a mono sound in [-1, 1], float32 on the CPU.

        Raises:
            TooShortError, ParameterError: less than 20 ms; samples that are not finite or not sound.
            ShapeError: the network gives another number of units or another width.
        """
        check_sound(waveform)
        check_whole("sample_rate", sample_rate, 1)
        sound = resampled(waveform, sample_rate)
        count = len(sound) // UNIT_HOP
        if not count:
            raise TooShortError("waveform", f"{len(waveform)} samples", "at least 0.02 s, one unit", "Take more of it.")
        lengths = (self.chunk_seconds, self.context_seconds)
        chunk, context = (round(min(seconds * UNIT_RATE, count)) for seconds in lengths)
        pieces = []
        for start in range(0, count, chunk):
            low, high = max(0, start - context), min(count, start + chunk + context)
            end = len(sound) if high == count else high * UNIT_HOP
            units = self._encoded(sound[low * UNIT_HOP : end], high - low)
            pieces.append(units[start - low : start - low + chunk])
        return torch.cat(pieces)

    def _encoded(self, sound: Tensor, count: int) -> Tensor:
        if self.pad is not None:
            sound = F.pad(sound, (self.pad, RECEPTIVE_FIELD - UNIT_HOP - self.pad))
        with torch.no_grad():
            units = self.function(sound[None].to(self.device))[0].float().cpu()
        if units.shape != (count, self.width):
            expected = f"({count}, {self.width}): {UNIT_RATE} units of {self.width} values a second"
            raise ShapeError(f"units of {self.name}", f"shape {tuple(units.shape)} for {len(sound)} samples", expected)
        return units


def resampled(waveform: Float[Tensor, " samples"], sample_rate: int) -> Float[Tensor, " resampled"]:
    """The waveform at 16 kHz in float32, `ceil(samples * 16000 / rate)` samples."""
    waveform = waveform.detach().cpu().float()
    sound = torch.from_numpy(soxr.resample(waveform.numpy(), sample_rate, UNIT_SAMPLE_RATE))
    length = -(-len(waveform) * UNIT_SAMPLE_RATE // sample_rate)
    return F.pad(sound, (0, max(0, length - len(sound))))[:length]


def recognizer_encoder(model: nn.Module, *, hidden: bool = False, **options: object) -> ContentEncoder:
    """Encoder by a small recogniser: its posteriors, or its `hidden` layer; see `avlib.models.recognizer`."""
    function = model.hidden if hidden else partial(_posteriors, model)  # not a lambda: processes share encoders
    width = model.width if hidden else len(model.classes)
    return ContentEncoder("recognizer", model, width, pad=None, function=function, **options)


def _posteriors(model: nn.Module, sound: Tensor) -> Tensor:
    return model(sound).softmax(2)


def content_encoder(
    name: str, path: Path | str | None = None, *, width: int | None = None, layer: int | None = None, **options: object
) -> ContentEncoder:
    """Read an encoder from files; nothing is fetched.

    Args:
        path: "hubert-soft": the published file (bshall/hubert); "contentvec" and "wav2vec2": a folder of transformers;
            "kmeans": a folder of `KMeans.save`, see `fit_kmeans`.
        width: of ContentVec: 256 takes layer 9 through `final_proj`, 768 layer 12 as it is; None: 256 where the folder
            has a `final_proj`. Other encoders have one width; another one is refused.
        layer: of ContentVec or Wav2Vec2, from 1; None: see `width`; the last one of Wav2Vec2.
        options: of `ContentEncoder`; `pad=0` gives ContentVec's units as published, apart from the last one.

    Raises:
        CheckpointError: a file is missing or damaged, of fairseq, or does not fit; or the model's rate is not 50 Hz.
    """
    check_choice("name", name, ENCODERS)
    if path is None:
        raise ParameterError("path", "None", f"where the weights of {name} are", "Nothing is fetched; see the README.")
    path = Path(path)
    if name == "kmeans":
        network, options = KMeans.from_checkpoint(path), {"pad": None} | options
    elif name == "hubert-soft":
        network = _hubert_soft(path, _weights(path, "hubert"))
    else:
        network = _transformers(name, path, width, layer)
    if width not in (None, network.width):
        raise ParameterError("width", f"{width}", f"{network.width}, which {path} has", "Leave it out for that.")
    return ContentEncoder(name, network, network.width, **options)


class _Hidden(nn.Module):
    """A layer of transformers' HuBERT or Wav2Vec2, perhaps with a projection."""

    def __init__(self, network: nn.Module, layer: int, projection: nn.Linear | None, normalize: bool = False):
        super().__init__()
        config = network.config
        self.network, self.layer, self.projection, self.normalize = network, layer, projection, normalize
        self.width = projection.out_features if projection is not None else config.hidden_size
        if not config.do_stable_layer_norm:  # there a norm follows the last layer
            del network.encoder.layers[layer:]

    def forward(self, sound: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch units width"]:
        if self.normalize:
            sound = (sound - sound.mean(1, keepdim=True)) / (sound.var(1, keepdim=True, correction=0) + 1e-7).sqrt()
        hidden = self.network(sound, output_hidden_states=True).hidden_states[self.layer]
        return hidden if self.projection is None else self.projection(hidden)


# The published names of HuBERT-soft, and transformers'.
_NAMES = (
    (r"\.conv(\d)\.", r".conv_layers.\1.conv."),
    (r"\.norm0\.", ".conv_layers.0.layer_norm."),
    (r"feature_projection\.norm\.", "feature_projection.layer_norm."),
    (r"^network\.norm\.", "network.encoder.layer_norm."),
    (r"positional_embedding\.", "encoder.pos_conv_embed."),
    (r"conv\.weight_g", "conv.parametrizations.weight.original0"),
    (r"conv\.weight_v", "conv.parametrizations.weight.original1"),
    (r"\.self_attn\.", ".attention."),
    (r"\.norm1\.", ".layer_norm."),
    (r"\.norm2\.", ".final_layer_norm."),
    (r"\.linear1\.", ".feed_forward.intermediate_dense."),
    (r"\.linear2\.", ".feed_forward.output_dense."),
)


def _hubert_soft(path: Path, tensors: dict[str, Tensor]) -> _Hidden:
    """HuBERT-soft as transformers' HubertModel and its projection, sized by the published tensors."""
    from transformers import HubertConfig, HubertModel

    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    try:
        convolutions = [shapes[f"feature_extractor.conv{i}.weight"] for i in range(len(_STRIDES))]
        out, width = shapes["proj.weight"]
        _, group, positions = shapes["positional_embedding.conv.weight_v"]
        config = HubertConfig(
            hidden_size=width,
            num_hidden_layers=len({name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}),
            num_attention_heads=max(1, width // 64),
            intermediate_size=shapes["encoder.layers.0.linear1.weight"][0],
            conv_dim=[shape[0] for shape in convolutions],
            conv_kernel=[shape[2] for shape in convolutions],
            conv_stride=_STRIDES,
            num_conv_pos_embeddings=positions,
            num_conv_pos_embedding_groups=width // group,
        )
    except (KeyError, ValueError, IndexError) as error:
        found = f"is {checkpoints.seems_to_be(tensors)}"
        raise CheckpointError(path, found, "HuBERT-soft, as bshall/hubert publishes it") from error
    renamed = {}
    for name, tensor in tensors.items():
        ours = name if name.startswith("proj.") else f"network.{name}"
        for pattern, new in _NAMES:
            ours = re.sub(pattern, new, ours)
        if ".in_proj_" in name:  # query, key and value in one
            thirds = zip("qkv", tensor.chunk(3), strict=True)
            renamed |= {ours.replace("in_proj_", f"{part}_proj."): third for part, third in thirds}
        else:
            renamed[ours] = tensor
    network = nn.ModuleDict({"network": HubertModel(config), "proj": nn.Linear(width, out)})
    checkpoints.load(network, path, renamed, ignored=("network.label_embedding.",))  # of its training
    return _Hidden(network["network"], config.num_hidden_layers, network["proj"])


def _transformers(name: str, path: Path, width: int | None, layer: int | None) -> _Hidden:
    """A layer of ContentVec or Wav2Vec2 from a folder of transformers."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    kind, model = {"contentvec": (HubertConfig, HubertModel), "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model)}[name]
    expected = f"a folder of transformers' {model.__name__}: config.json and model.safetensors or pytorch_model.bin"
    if path.is_file():
        _weights(path, "hubert")  # one of fairseq is refused by its name
        raise CheckpointError(path, "is no folder", expected)
    settings = checkpoints.read_config(path / checkpoints.CONFIG)
    if settings.get("model_type") != kind.model_type:
        raise CheckpointError(path, f"is {settings.get('model_type')!r}", f"{kind.model_type!r}: {expected}")
    if math.prod(settings.get("conv_stride", _STRIDES)) != UNIT_HOP:
        found = f"has {UNIT_SAMPLE_RATE / math.prod(settings['conv_stride']):g} units a second"
        raise CheckpointError(path, found, f"{UNIT_RATE}: strides of {UNIT_HOP} samples in all")
    weights = path / checkpoints.WEIGHTS
    tensors = _weights(weights if weights.exists() else path / "pytorch_model.bin")
    try:
        with quiet():
            network, report = model.from_pretrained(path, local_files_only=True, output_loading_info=True)
    except Exception as error:  # of any class: a damaged file may trip the library anywhere
        raise CheckpointError(path, f"cannot be read ({str(error).splitlines()[0]})", expected) from error
    missing = sorted(key for key in report["missing_keys"] if key != "masked_spec_embed")
    if missing:
        raise CheckpointError(path, f"lacks {len(missing)} parameters ({', '.join(missing[:3])})", expected)
    wanted = {key: tensor for key, tensor in tensors.items() if key.startswith("final_proj.")}
    own, projection = network.config.hidden_size, None
    if name == "contentvec" and "final_proj.weight" in wanted and width != own:
        projection = nn.Linear(own, len(wanted["final_proj.weight"]))
        checkpoints.load(nn.ModuleDict({"final_proj": projection}), path, wanted)
    deepest = network.config.num_hidden_layers
    layer = (min(9, deepest) if projection else deepest) if layer is None else layer
    check_whole("layer", layer, 1, deepest)
    extractor = path / "preprocessor_config.json"  # says if the model was trained on waveforms of variance 1
    normalize = extractor.is_file() and checkpoints.read_config(extractor).get("do_normalize") is True
    return _Hidden(network.float(), layer, projection, normalize)


def _weights(path: Path, *inside: str) -> dict[str, Tensor]:
    """Tensors of a file; one of fairseq is refused by its name."""
    try:
        tensors = checkpoints.read(path, *inside).tensors
        found = "has fairseq's names" if "mask_emb" in tensors else ""
    except CheckpointError as error:
        found = error.found
        if not re.search(r"fairseq|omegaconf|argparse", found):
            raise
    if found:
        raise CheckpointError(path, found, "weights alone, in the layout of transformers or bshall/hubert", _FAIRSEQ)
    return tensors


class KMeans(nn.Module):
    """Clusters of log-mel frames at 50 Hz as one-hot units, which keep the singer and the pitch, unlike HuBERT's."""

    def __init__(self, centroids: Float[Tensor, "clusters mels"]):
        super().__init__()
        self.width = len(centroids)
        self.register_buffer("centroids", centroids.float())

    def forward(self, sound: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch units width"]:
        ids = torch.cdist(kmeans_mel(sound), self.centroids).argmin(2)  # (B, U)
        return F.one_hot(ids, self.width).float()

    def save(self, path: Path | str) -> None:
        """Write a folder for `content_encoder("kmeans", path)`."""
        checkpoints.save(Path(path), self.state_dict(), {"model": "k-means"})

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> KMeans:
        """Read what `save` wrote."""
        tensors = checkpoints.read(path).tensors
        if tensors.keys() != {"centroids"}:
            raise CheckpointError(path, f"is {checkpoints.seems_to_be(tensors)}", "a folder that KMeans.save wrote")
        return cls(tensors["centroids"])


def kmeans_mel(sound: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch units mels"]:
    """Log-mel of 64 ms windows, unit j centred at (j + 0.5) * 20 ms, `(B, samples // 320, 80)`."""
    from torchaudio.functional import melscale_fbanks

    edge = (KMEANS_N_FFT - UNIT_HOP) // 2
    window = torch.hann_window(KMEANS_N_FFT, device=sound.device)
    framed = {"hop_length": UNIT_HOP, "window": window, "center": False, "return_complex": True}
    spectrum = torch.stft(F.pad(sound, (edge, edge)), KMEANS_N_FFT, **framed)
    filters = melscale_fbanks(KMEANS_N_FFT // 2 + 1, 40.0, 8000.0, KMEANS_MELS, UNIT_SAMPLE_RATE, "slaney", "slaney")
    return exact_product(spectrum.abs().transpose(1, 2), filters.to(sound.device)).clamp(min=1e-5).log()


def fit_kmeans(
    sounds: Iterable[tuple[Float[Tensor, " samples"], int] | Path | str], clusters: int = 100, *, seed: int = 0
) -> KMeans:
    """Cluster the mel frames of sounds, files or waveforms with their rates; see `centroids_of`."""

    def mel(sound: tuple[Tensor, int] | Path | str) -> Tensor:
        waveform = resampled(*sound) if isinstance(sound, tuple) else read_audio(sound, UNIT_SAMPLE_RATE)
        return kmeans_mel(waveform[None])[0]

    frames = torch.cat([torch.zeros(0, KMEANS_MELS), *map(mel, sounds)])
    return KMeans(centroids_of(frames, clusters, seed))


def centroids_of(frames: Float[Tensor, "frames values"], clusters: int, seed: int) -> Float[Tensor, "clusters values"]:
    """Return the centroids of frames, at least as many, by scikit-learn's MiniBatchKMeans."""
    from sklearn.cluster import MiniBatchKMeans

    check_whole("clusters", clusters, 2, len(frames))
    fitted = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=2048).fit(frames.numpy())
    return torch.from_numpy(fitted.cluster_centers_).float()
