"""Published weights for a backbone, from transformers, timm or BEATs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from ... import checkpoints
from ...errors import CheckpointError
from .. import quiet
from ..beats import BEATs
from .backbones import Backbone

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LAYOUTS = {
    "whisper": "a folder of transformers' Whisper",
    "wav2vec2": "a folder of transformers' Wav2Vec2",
    "hubert": "a folder of transformers' HuBERT",
    "ast": "a folder of transformers' AST",
    "resnet": "a ResNet50 of timm or torchvision (.safetensors, .pth)",
    "beats": 'a BEATs file: {"cfg": ..., "model": ...}',
}
# Settings that change the output, but not the names or shapes of weights. A file must agree in them.
_WAVE = ("num_attention_heads", "do_stable_layer_norm", "conv_stride", "hidden_act", "layer_norm_eps")
_STRIDES = ("frequency_stride", "time_stride", "num_mel_bins", "max_length")
_SILENT = {
    "whisper": ("encoder_attention_heads", "activation_function", "scale_embedding"),
    "wav2vec2": _WAVE,
    "hubert": _WAVE,
    "ast": ("num_attention_heads", "hidden_act", "layer_norm_eps", *_STRIDES),
}
_TRAINING = {  # of BEATs: settings of training alone, or of the classifier
    "finetuned_model", "predictor_class", "dropout", "attention_dropout", "activation_dropout", "dropout_input",
    "predictor_dropout", "encoder_layerdrop", "layer_wise_gradient_decay_ratio",
}  # fmt: skip


def load_backbone(backbone: Backbone, source: Path | str) -> None:
    """Load published weights, which must fit exactly, without a head.

    Args:
        backbone: changed in place; device, dtype and what is frozen stay.
        source: a file, a folder, or an id on the hub, such as openai/whisper-base, which is fetched. For Whisper,
            Wav2Vec2, HuBERT and AST a folder of transformers, with a head or without; for ResNet50 a state dict of
            timm or torchvision, whose first convolution is summed over colours; for BEATs a published file.

    Raises:
        CheckpointError: it is missing, unreadable, of another network, or does not fit.
    """
    family = backbone.config.facts.family
    path = Path(source)
    if not path.exists():
        path = _fetched(str(source), family)
    if family == "resnet":
        tensors, ignored = _picture_weights(path, backbone.network), ("fc.",)
    elif family == "beats":
        tensors, ignored = _beats_weights(path, backbone.network), ()
    else:
        tensors, ignored = _transformers_weights(path, backbone), ("masked_spec_embed",)
    checkpoints.load(backbone.network, path, tensors, ignored=ignored)


def _picture_weights(path: Path, network: nn.Module) -> dict[str, Tensor]:
    tensors = dict(checkpoints.read(path).tensors)
    first = tensors.get("conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 3:
        tensors["conv1.weight"] = first.sum(dim=1, keepdim=True)  # as for a grey picture in all three colours
    return tensors


def _beats_weights(path: Path, network: BEATs) -> dict[str, Tensor]:
    model = BEATs.from_checkpoint(path)
    own, found = asdict(network.config), asdict(model.config)
    wrong = {name: (found[name], own[name]) for name in own if name not in _TRAINING and found[name] != own[name]}
    _require_agreement(path, wrong)
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("predictor.")}


def _transformers_weights(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    """Weights that transformers reads, which knows the older names of its parameters."""
    import transformers

    family = backbone.config.facts.family
    config, model = {
        "whisper": (transformers.WhisperConfig, transformers.WhisperModel),
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "ast": (transformers.ASTConfig, transformers.ASTModel),
    }[family]
    if not (path / checkpoints.CONFIG).is_file():
        seems = "" if path.is_dir() else f"It seems to be {checkpoints.seems_to_be(checkpoints.read(path).tensors)}."
        raise CheckpointError(path, f"has no {checkpoints.CONFIG}", _LAYOUTS[family], seems)
    try:
        kind = config.get_config_dict(path, local_files_only=True)[0].get("model_type")
        if kind != config.model_type:
            raise CheckpointError(path, f"is {kind!r}", f"{config.model_type!r}: {_LAYOUTS[family]}")
        found = config.from_pretrained(path, local_files_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # of any class: see below
        raise _unreadable(path, error, family) from error
    own = backbone.network.config
    silent = {name: (getattr(found, name), getattr(own, name)) for name in _SILENT[family]}
    _require_agreement(path, {name: pair for name, pair in silent.items() if _plain(pair[0]) != _plain(pair[1])})
    try:
        with quiet():
            loaded, report = model.from_pretrained(path, local_files_only=True, output_loading_info=True)
    except Exception as error:  # of any class: a damaged file may trip the library anywhere
        raise _unreadable(path, error, family) from error
    encoder, prefix = (loaded.encoder, "encoder.") if family == "whisper" else (loaded, "")
    missing = sorted(name for name in report["missing_keys"] if name.startswith(prefix))
    if missing:
        found = f"lacks {len(missing)} parameters ({', '.join(missing[:3])})"
        raise CheckpointError(path, found, _LAYOUTS[family], "Download it again.")
    return encoder.state_dict()


def _require_agreement(path: Path, wrong: Mapping[str, tuple[object, object]]) -> None:
    if wrong:
        listed = ", ".join(f"{name} is {found!r} for {own!r}" for name, (found, own) in wrong.items())
        raise CheckpointError(path, f"is of another network: {listed}", "the settings of the backbone")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _unreadable(path: Path, error: Exception, family: str) -> CheckpointError:
    return CheckpointError(path, f"cannot be read ({_reason(error)})", _LAYOUTS[family])


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _fetched(source: str, family: str) -> Path:
    if not _HUB_ID.fullmatch(source) or family == "beats":
        raise CheckpointError(source, "no such file or folder", f"{_LAYOUTS[family]}, or a hub id: owner/name")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source, allow_patterns=["config.json", "model*.safetensors*"]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(source, allow_patterns=["config.json", "pytorch_model*.bin*"]))
    except Exception as error:  # of any class: the network, or a wrong name
        found = f"is no file or folder, and cannot be fetched ({_reason(error)})"
        raise CheckpointError(source, found, f"{_LAYOUTS[family]}, or a hub id") from error
    return folder
