"""Published weights for a backbone, from transformers, timm or BEATs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ... import checkpoints
from ...errors import CheckpointError, first_line
from .. import fetched, quiet
from ..beats import BEATs
from .backbones import Backbone

_NAMES = {"whisper": "Whisper", "wav2vec2": "Wav2Vec2", "hubert": "HuBERT", "ast": "AST"}
_LAYOUTS = {family: f"a folder of transformers' {name}" for family, name in _NAMES.items()} | {
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

    The source is a file, a folder, or an id on the hub, such as openai/whisper-base, which is fetched. For Whisper,
    Wav2Vec2, HuBERT and AST a folder of transformers, with a head or without; for ResNet50 a state dict of timm or
    torchvision, whose first convolution is summed over colours; for BEATs a published file.
    """
    family = backbone.config.facts.family
    path = Path(source)
    if not path.exists():
        path = _fetched(str(source), family)
    if family == "resnet":
        tensors = checkpoints.read(path).tensors
        first = tensors.get("conv1.weight")
        if first is not None and first.ndim == 4 and first.shape[1] == 3:
            tensors["conv1.weight"] = first.sum(dim=1, keepdim=True)  # as for a grey picture in all three colours
    elif family == "beats":
        model = BEATs.from_checkpoint(path)
        found, own = asdict(model.config), asdict(backbone.network.config)
        _require_agreement(path, found, own, [name for name in own if name not in _TRAINING])
        tensors = model.state_dict()
    else:
        tensors = _transformers_weights(path, backbone)
    # A classifier or predictor, and the vector for masked frames, are not part of a backbone.
    ignored = {"resnet": ("fc.",), "beats": ("predictor.",)}.get(family, ("masked_spec_embed",))
    checkpoints.load(backbone.network, path, tensors, ignored=ignored)


def _transformers_weights(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    """Weights that transformers reads, which knows the older names of its parameters."""
    import transformers

    family = backbone.config.facts.family
    own = backbone.network.config
    config = type(own)
    model = transformers.WhisperModel if family == "whisper" else type(backbone.network)
    if not (path / checkpoints.CONFIG).is_file():
        seems = "" if path.is_dir() else f"It seems to be {checkpoints.seems_to_be(checkpoints.read(path).tensors)}."
        raise CheckpointError(path, f"has no {checkpoints.CONFIG}", _LAYOUTS[family], seems)
    try:
        kind = config.get_config_dict(path, local_files_only=True)[0].get("model_type")
        if kind != config.model_type:
            raise CheckpointError(path, f"is {kind!r}", f"{config.model_type!r}: {_LAYOUTS[family]}")
        found = config.from_pretrained(path, local_files_only=True)
        _require_agreement(path, found.to_dict(), own.to_dict(), _SILENT[family])
        with quiet():
            loaded, report = model.from_pretrained(path, local_files_only=True, output_loading_info=True)
    except CheckpointError:
        raise
    except Exception as error:  # of any class: a damaged file may trip the library anywhere
        raise CheckpointError(path, f"cannot be read ({first_line(error)})", _LAYOUTS[family]) from error
    encoder, prefix = (loaded.encoder, "encoder.") if family == "whisper" else (loaded, "")
    missing = sorted(name for name in report["missing_keys"] if name.startswith(prefix))
    if missing:
        found = f"lacks {len(missing)} parameters ({', '.join(missing[:3])})"
        raise CheckpointError(path, found, _LAYOUTS[family], "Download it again.")
    return encoder.state_dict()


def _require_agreement(path: Path, found: Mapping, own: Mapping, names: Iterable[str]) -> None:
    plain = {name: [list(v) if isinstance(v, tuple) else v for v in (found[name], own[name])] for name in names}
    wrong = [f"{name} is {value!r} for {ours!r}" for name, (value, ours) in plain.items() if value != ours]
    if wrong:
        raise CheckpointError(path, f"is of another network: {', '.join(wrong)}", "the settings of the backbone")


def _fetched(source: str, family: str) -> Path:
    if family == "beats":
        raise CheckpointError(source, "no such file or folder", f"{_LAYOUTS[family]}, or a hub id: owner/name")
    folder = fetched(source, _LAYOUTS[family], ["config.json", "model*.safetensors*"])
    if any(folder.glob("model*.safetensors")):
        return folder
    return fetched(source, _LAYOUTS[family], ["config.json", "pytorch_model*.bin*"])
