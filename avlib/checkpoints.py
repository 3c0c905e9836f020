"""Reading and writing weights. Nothing in a file is executed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickletools
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .cache import publishing
from .errors import CheckpointError, first_line, unique

# A checkpoint that avlib writes is a folder with these three; `sha256sum --check` reads the last.
WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "SHA256SUMS"

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
    b"GGUF": "GGUF, which llama.cpp reads",
    b"\xfd7zXZ": "an xz archive",
    b"(\xb5/\xfd": "a zstd archive",
    b"Rar!": "a rar archive",
    b"7z\xbc": "a 7z archive",
    b"\x08": "a protocol buffer, as ONNX and TensorFlow write",
}
_HARMLESS = re.compile(r"torch\.(?!nn\.modules|storage\._load)|collections\.|_codecs\.|__builtin__\.set$")  # in tensors

_LARGEST_HEADER = 100_000_000  # bytes, what safetensors allows

Tensors = Mapping[str, Tensor]


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
    """Read weights from a PyTorch or safetensors file, or a saved folder; check their checksums where there are any.

    A PyTorch file is read with `weights_only=True`. Tensors under "model", "state_dict", "model_state" or "generator"
    are taken from there, without the prefix `module.` of DataParallel.

    Args:
        inside: where the model lies in a container of several, such as "audio", "en". A file without the first of
            these names is taken for the model itself.

    Raises:
        CheckpointError: missing, empty, truncated, damaged, not a checkpoint, without one of the names `inside`, or
            holding anything besides tensors.
    """
    path, config = Path(path), {}
    weights = path
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
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
    except (OSError, ValueError) as error:
        raise CheckpointError(weights, getattr(error, "strerror", "") or str(error), "a file of weights") from error
    try:
        _check_sum(weights)
        return load_file(weights) if _is_safetensors(beginning) else _read_torch(weights, beginning)
    except CheckpointError:
        raise
    except Exception as error:  # of any class: a damaged file triggers anything in the readers
        raise _damaged(weights, error) from error


def save(path: Path, tensors: Tensors, config: Mapping) -> None:
    """Write a folder with `model.safetensors`, its checksum, and `config.json`, whole or not at all.

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
        (unfinished / SUMS).write_text(f"{_sum(unfinished / WEIGHTS)}  {WEIGHTS}\n")
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        replaced = unfinished.with_name(f"{unfinished.name}-replaced")
        if path.exists():
            path.rename(replaced)
    if replaced.exists():
        shutil.rmtree(replaced)


def differences(expected: Tensors, found: Tensors) -> Differences:
    """Compare the names and shapes that a model expects with those of a file."""
    missing, unexpected = ([name for name in a if name not in b] for a, b in ((expected, found), (found, expected)))
    both = [name for name in expected if name in found]
    return Differences(missing, unexpected, [name for name in both if found[name].shape != expected[name].shape])


def require_fit(path: Path | str, expected: Tensors, found: Tensors, ignored: tuple[str, ...] = ()) -> None:
    """Refuse a file whose names and shapes are not exactly those expected, but for the prefixes `ignored`."""
    wrong = differences(expected, {name: found[name] for name in found if not name.startswith(ignored)})
    if not any(wrong):
        return
    shapes = [f"{name} is {tuple(found[name].shape)} for {tuple(expected[name].shape)}" for name in wrong.misshapen]
    parts = {"missing": wrong.missing, "unexpected": wrong.unexpected, "of another shape": shapes}
    listed = [f"{len(names)} {what} ({_first(names)})" for what, names in parts.items() if names]
    text, wanted = f"does not fit the model: {'; '.join(listed)}", f"exactly the model's {len(expected)} parameters"
    raise CheckpointError(path, text, wanted, f"The file seems to be {seems_to_be(found)}.")


def load(
    model: nn.Module, path: Path | str, tensors: Tensors, *, absent: tuple[str, ...] = (), ignored: tuple[str, ...] = ()
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


def seems_to_be(tensors: Tensors) -> str:
    """Describe a file's likely model from the names of its parameters."""
    for kind, names in _SIGNS.items():
        if names <= tensors.keys():
            return kind
    return f"something else, with {len(tensors)} tensors: {_first(sorted(tensors))}"


def _apart(tensors: Tensors) -> dict[str, Tensor]:
    """The same without shared memory, which safetensors refuses."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_config(path: Path | str) -> dict:
    """Read a model's settings, a JSON object."""
    path = Path(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except OSError as error:
        raise CheckpointError(path, error.strerror or "cannot be read", f"{WEIGHTS} and {CONFIG}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"is not JSON ({error})", "the configuration of a model") from error
    if not isinstance(config, dict):
        raise CheckpointError(path, f"holds a {type(config).__name__}", "a JSON object with the model's settings")
    return config


def _is_safetensors(beginning: bytes) -> bool:
    """True for the length of a JSON header, in eight bytes, and the start of that header."""
    return beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") <= _LARGEST_HEADER


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sum(path: Path) -> None:
    """Compare a file with its line in the checksums beside it, if there is one."""
    sums = path.with_name(SUMS)
    text = sums.read_text(encoding="utf-8-sig", errors="replace") if sums.is_file() else ""
    for digest, name in re.findall(r"^([0-9A-Fa-f]{64})\s+\*?(?:\./)?(.+?)\s*$", text, re.MULTILINE):
        if name == path.name and digest.lower() != _sum(path):
            advice = f"Copy or train it again. If it was changed on purpose, delete {SUMS}."
            raise CheckpointError(path, f"is damaged: its checksum is not the one in {SUMS}", advice=advice)


def _read_torch(path: Path, beginning: bytes) -> object:
    """Load a zip archive with a pickle and tensors, or a bare pickle (before PyTorch 1.6)."""
    with path.open("rb") as file:
        if beginning.startswith(b"PK"):
            with zipfile.ZipFile(file) as archive:
                name = _check_archive(path, archive)
                with archive.open(name) as pickled:
                    protocol, asked = _asked_for(pickled)
        else:
            protocol, asked = _asked_for(file)
    kind = next((kind for start, kind in _BEGINNINGS.items() if beginning.lstrip().startswith(start)), None)
    if not beginning.startswith((b"PK", b"\x80")) and (kind or not asked):  # a pickle of protocol 0 has no beginning
        raise _no_checkpoint(path, kind or ("something else" if beginning else "an empty file"))
    strange = _first([name for name in asked if not _HARMLESS.match(name)])
    try:
        if any(name.endswith(".bytearray") for name in asked):  # of any length, and torch would make it
            raise ValueError(strange)
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a pickle that it does not take; none is kept silent
        found = f"holds more than tensors (it asks for {strange})" if strange else f"is a pickle of protocol {protocol}"
        if not strange and protocol == 2:
            raise
        advice = "Save it by torch.save with protocol 2."
        if strange:
            advice = "It was refused, and nothing in it was executed."
        raise CheckpointError(path, found, "weights alone, as torch.save writes them", advice) from None


def _check_archive(path: Path, archive: zipfile.ZipFile) -> str:
    """Return the name of the pickle in a zip archive; refuse a bomb, a program and a wrong checksum."""
    entries, names = archive.infolist(), archive.namelist()
    if any(name.endswith(("/constants.pkl", "/archive_format")) for name in names):
        raise _no_checkpoint(path, "a program (of TorchScript or torch.export)")
    if (pickled := next((name for name in names if name.endswith("/data.pkl")), None)) is None:
        raise _no_checkpoint(path, f"a zip archive (NumPy's .npz is one) with {_first(names)}")
    size, unpacked = path.stat().st_size, sum(entry.file_size for entry in entries)
    if unpacked > size:  # torch.save compresses nothing
        advice = "It was refused before anything was unpacked."
        found = f"unpacks from {size:,} bytes to {unpacked:,}"
        raise CheckpointError(path, found, "an archive as torch.save writes, which compresses nothing", advice)
    if any(entry.CRC for entry in entries) and (bad := archive.testzip()):  # torch can leave out all of them
        raise CheckpointError(path, f"is damaged: the checksum of {bad} is wrong", advice="Copy or download it again.")
    return pickled


def _asked_for(pickled: Any) -> tuple[int, list[str]]:
    """Protocol of a pickle, and the functions and classes that it, and those behind it, would call."""
    protocol, asked, texts = 0, [], []
    with suppress(Exception):  # the end of the pickles
        while True:
            for code, value, _ in pickletools.genops(pickled):
                if code.name == "PROTO":
                    protocol = max(protocol, value)
                elif code.name in ("GLOBAL", "INST"):
                    asked.append(value.replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    asked.append(".".join(texts[-2:]))
                texts += [value] if isinstance(value, str) else []
    return protocol, list(dict.fromkeys(asked))


def _named_tensors(path: Path, content: object) -> dict[str, Tensor]:
    for wrapper in ("model", "state_dict", "model_state", "generator"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise _no_checkpoint(path, f"a {type(content).__name__}")
    strange = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange or not content:
        raise _no_checkpoint(path, f"a mapping with other things than tensors ({_first([repr(n) for n in strange])})")
    odd = {name for name, value in content.items() if value.is_meta or value.is_quantized}
    empty = [name for name, value in content.items() if name in odd or value.layout is not torch.strided]
    if empty or sum(value.nbytes for value in content.values()) > 64 * path.stat().st_size:
        found = f"holds tensors without values (meta, sparse, or one value for all: {_first(empty or list(content))})"
        raise CheckpointError(path, found, "dense tensors with their values")
    prefixed = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if prefixed else name: value for name, value in content.items()}


def _no_checkpoint(path: Path, kind: str) -> CheckpointError:
    return CheckpointError(path, f"is {kind}", "weights as PyTorch or safetensors save them, tensors by name")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    unsafe = re.search(r"[Uu]nsupported (?:global|GLOBAL|class|operand)[^\n]*", str(error))
    if unsafe:
        found = f"holds more than tensors ({re.split(' was not| whose', unsafe[0])[0]})"
        return CheckpointError(path, found, "weights alone", "It was refused, and nothing in it was executed.")
    return CheckpointError(path, f"is truncated or damaged ({first_line(error)})", advice="Copy or download it again.")
