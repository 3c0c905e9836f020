"""Reading and writing weights. Nothing in a file is executed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .cache import publishing
from .errors import CheckpointError

# A checkpoint that avlib writes is a folder with these two.
WEIGHTS, CONFIG = "model.safetensors", "config.json"

# Parameters by which a file is recognised; the first match counts.
_SIGNS = {
    "a pretrained CAV-MAE": {"blocks_a.0.attn.qkv.weight", "decoder_pred_a.weight"},
    "a fine-tuned CAV-MAE": {"blocks_v.0.attn.qkv.weight", "mlp_head.1.weight"},
    "a fine-tuned CAV-MAE for audio alone": {"blocks_a.0.attn.qkv.weight", "mlp_head.1.weight"},
    "a masked autoencoder of images (MAE)": {"blocks.0.attn.qkv.weight", "decoder_pred.weight"},
    "BEATs with a classifier": {"encoder.layers.0.self_attn.grep_a", "predictor.weight"},
    "BEATs": {"encoder.layers.0.self_attn.grep_a", "post_extract_proj.weight"},
    "a Diff-SVC acoustic model": {"model.denoise_fn.input_projection.weight", "model.fs2.pitch_embed.weight"},
    "an embedder of AudioToken": {"fc1.weight", "fga.reduce_potentials.0.weight"},
    "a vocoder of units": {"dict.weight", "conv_pre.bias"},
    "an encoder of speakers": {"lstm.weight_ih_l0", "similarity_weight"},
    "a face renderer of Unit2AV": {"unit_embed.weight", "unit2lip.linear1.weight"},
    "a vision transformer": {"blocks.0.attn.qkv.weight", "cls_token"},
}

# First bytes of files that are not weights.
_BEGINNINGS = {
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "HDF5",
    b"\x1f\x8b": "a gzip archive",
    b"<": "HTML or XML, perhaps the error page of a download",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"{": "JSON",
    b"[": "JSON",
}

_LARGEST_HEADER = 100_000_000  # bytes, what safetensors allows


class Checkpoint(NamedTuple):
    """Tensors by name, and the configuration that was saved with them, or {}.

    Of a folder that is its `config.json`; of a PyTorch file with a "cfg", as BEATs' has, {"cfg": ...}.
    """

    tensors: dict[str, Tensor]
    config: dict


class Differences(NamedTuple):
    """Parameters missing from a file, unexpected in it, and of another shape there."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]


def read(path: Path | str, *inside: str) -> Checkpoint:
    """Read weights from a PyTorch or safetensors file, or a saved folder.

    A PyTorch file is read with `weights_only=True`. Tensors under "model", "state_dict", "model_state" or "generator"
    are taken from there, without the prefix `module.` of DataParallel.

    Args:
        inside: where the model lies in a container of several, such as "audio", "en". A file without the first of
            these names is taken for the model itself.

    Raises:
        CheckpointError: missing, empty, truncated, not a checkpoint, without one of the names `inside`, or holding
            anything besides tensors.
    """
    path, config = Path(path), {}
    weights = path
    if path.is_dir():
        weights, config = path / WEIGHTS, read_config(path / CONFIG)
    content = contents(weights)
    if isinstance(content, Mapping) and isinstance(content.get("cfg"), Mapping):
        config = {"cfg": dict(content["cfg"])}
    if isinstance(content, Mapping) and inside and inside[0] in content:
        for depth, name in enumerate(inside):
            if not isinstance(content, Mapping) or name not in content:
                there = ", ".join(map(str, content)) if isinstance(content, Mapping) else "tensors"
                found = f"{' / '.join(inside[:depth])} has no {name!r}"
                raise CheckpointError(path, found, f"one of those there: {there}")
            content = content[name]
    return Checkpoint(_named_tensors(weights, content), config)


def contents(path: Path | str) -> object:
    """Return what a PyTorch or safetensors file holds: tensors and plain values, in tables and lists.

    Raises:
        CheckpointError: missing, empty, truncated, of another kind, or holding what would be executed.
    """
    weights = Path(path)
    try:
        with weights.open("rb") as file:
            beginning = file.read(32)
    except OSError as error:
        raise CheckpointError(weights, error.strerror or "cannot be read", "a file of weights") from error
    try:
        return load_file(weights) if _is_safetensors(beginning) else _read_torch(weights, beginning)
    except CheckpointError:
        raise
    except Exception as error:  # of any class: a damaged file triggers anything in the readers
        raise _damaged(weights, error) from error


def save(path: Path, tensors: Mapping[str, Tensor], config: Mapping) -> None:
    """Write a folder with `model.safetensors` and `config.json`, whole or not at all.

    A folder of that name is replaced. A tensor with several names, as layers share, is written under each of them.

    Raises:
        CacheError: the disk is full or the folder cannot be written; the old folder is kept.
    """
    path = Path(path)
    with publishing(path) as unfinished:
        unfinished.mkdir(parents=True)
        try:
            save_file(_apart(tensors), unfinished / WEIGHTS)
        except SafetensorError as error:  # also of a full disk
            code = re.search(r"os error (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, os.strerror(number)) from error
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        replaced = unfinished.with_name(f"{unfinished.name}-replaced")
        if path.exists():
            path.rename(replaced)
    if replaced.exists():
        shutil.rmtree(replaced)


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Differences:
    """Compare the names and shapes that a model expects with those of a file."""
    return Differences(
        missing=[name for name in expected if name not in found],
        unexpected=[name for name in found if name not in expected],
        misshapen=[name for name in expected if name in found and found[name].shape != expected[name].shape],
    )


def require_fit(
    path: Path | str,
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    ignored: tuple[str, ...] = (),
) -> None:
    """Refuse a file whose names and shapes are not exactly those expected.

    Args:
        ignored: prefixes of names in the file that do not matter.

    Raises:
        CheckpointError: a parameter is missing, unexpected or of another shape.
    """
    wrong = differences(expected, {name: found[name] for name in found if not name.startswith(ignored)})
    if not any(wrong):
        return
    shapes = [f"{name} is {tuple(found[name].shape)} for {tuple(expected[name].shape)}" for name in wrong.misshapen]
    parts = {"missing": wrong.missing, "unexpected": wrong.unexpected, "of another shape": shapes}
    listed = [f"{len(names)} {what} ({_first(names)})" for what, names in parts.items() if names]
    raise CheckpointError(
        path,
        f"does not fit the model: {'; '.join(listed)}",
        f"exactly the model's {len(expected)} parameters",
        f"The file seems to be {seems_to_be(found)}.",
    )


def load(
    model: nn.Module,
    path: Path | str,
    tensors: Mapping[str, Tensor],
    *,
    absent: tuple[str, ...] = (),
    ignored: tuple[str, ...] = (),
) -> None:
    """Load tensors into a model, which must fit exactly.

    Args:
        model: changed in place; it keeps its device, dtype and `requires_grad`.
        absent: prefixes of names that the file must *not* have; there the model keeps its own values.
        ignored: prefixes of names in the file that do not matter.
    """
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(absent)}
    require_fit(path, expected, tensors, ignored)
    model.load_state_dict({name: tensors[name] for name in expected}, strict=not absent)


def seems_to_be(tensors: Mapping[str, Tensor]) -> str:
    """Describe a file's likely model from the names of its parameters."""
    for kind, names in _SIGNS.items():
        if names <= tensors.keys():
            return kind
    return f"something else, with {len(tensors)} tensors: {_first(sorted(tensors))}"


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same without shared memory, which safetensors refuses."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def read_config(path: Path | str) -> dict:
    """Read a model's settings, a JSON object.

    Raises:
        CheckpointError: the file is missing, or holds something else.
    """
    path = Path(path)
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(path, error.strerror or "cannot be read", f"{WEIGHTS} and {CONFIG}") from error
    except ValueError as error:
        raise CheckpointError(path, f"is not JSON ({error})", "the configuration of a model") from error
    if not isinstance(config, dict):
        raise CheckpointError(path, f"holds a {type(config).__name__}", "a JSON object with the model's settings")
    return config


def _is_safetensors(beginning: bytes) -> bool:
    """True for the length of a JSON header, in eight bytes, and the start of that header."""
    return beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") <= _LARGEST_HEADER


def _read_torch(path: Path, beginning: bytes) -> object:
    """Load a zip archive with a pickle and tensors, or a bare pickle (before PyTorch 1.6)."""
    if beginning.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if not any(name.endswith("/data.pkl") for name in names):
            raise _no_checkpoint(path, f"a zip archive (NumPy's .npz is one) with {_first(names)}")
    elif not beginning.startswith(b"\x80"):
        kinds = (kind for start, kind in _BEGINNINGS.items() if beginning.lstrip().startswith(start))
        raise _no_checkpoint(path, next(kinds, "something else" if beginning else "an empty file"))
    return torch.load(path, map_location="cpu", weights_only=True)


def _named_tensors(path: Path, content: object) -> dict[str, Tensor]:
    """Unwrap the tensors of a state dict."""
    for wrapper in ("model", "state_dict", "model_state", "generator"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise _no_checkpoint(path, f"a {type(content).__name__}")
    strange = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange or not content:
        raise _no_checkpoint(path, f"a mapping with other things than tensors ({_first([repr(n) for n in strange])})")
    prefixed = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if prefixed else name: value for name, value in content.items()}


def _no_checkpoint(path: Path, kind: str) -> CheckpointError:
    return CheckpointError(path, f"is {kind}", "weights as PyTorch or safetensors save them, tensors by name")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    unsafe = re.search(r"[Uu]nsupported (?:global|GLOBAL|class|operand)[^\n]*", str(error))
    if unsafe:
        found = f"holds more than tensors ({re.split(' was not| whose', unsafe[0])[0]})"
        return CheckpointError(path, found, "weights alone", "It was refused, and nothing in it was executed.")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(path, f"is truncated or damaged ({reason})", advice="Copy or download it again.")
