"""Files of speech units, and manifests: which sound belongs to which of them, one pair a line.

Units are numbers from 0 to K - 1 at 50 Hz, as text or as PyTorch saves them.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ... import checkpoints
from ...cache import publishing
from ...errors import AvlibError, CheckpointError, DatasetError, shown
from ...features import check_units
from ..sources import existing, read_text

_INLINE = ("cpc_km100", "vqvae256", "hubert", "codes")  # published names of units in the line itself; the first counts
_FORM = '{"audio": path, "unit_path": path} as JSON or as a Python literal'
_ENDING = "_preprocessed"
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_SUFFIXES = (".pt", ".pth")

Units = Int[Tensor, " units"]


class UnitFile(NamedTuple):
    """Units `(n,)`, int64, and the speaker vector of the file or None."""

    units: Units
    speaker: Float[Tensor, " values"] | None = None


def read_units(path: str | Path, unit_offset: int = 0, num_embeddings: int | None = None) -> UnitFile:
    """Read units from a text or .pt file.

    - Text: whole numbers between spaces, on any number of lines.
    - .pt: a tensor `(n,)` or `(1, n)`, or a table with it under "code", and perhaps a speaker vector under "spkr".
      Nothing in it is executed.

    `unit_offset`, the number of the first unit in the file, is subtracted: 4 for indices of a fairseq dictionary, which
    begins with four special symbols. Units from `num_embeddings`, K, up are refused, and negative ones always.

    Raises:
        DatasetError: no such file, no units in it, or something else.
        ParameterError: a unit outside the vocabulary; its line is named.
    """
    path = existing(path)
    if path.suffix.lower() not in _SUFFIXES:
        return UnitFile(parse_units(read_text(path), path, unit_offset, num_embeddings))
    expected = 'whole numbers as a tensor (n,) or (1, n), or a table with it under "code"'
    try:
        content = checkpoints.contents(path)
    except CheckpointError as error:
        raise DatasetError(path, error.found, expected, error.advice) from error
    speaker = content.get("spkr") if isinstance(content, Mapping) else None
    code = content.get("code") if isinstance(content, Mapping) else content
    whole = isinstance(code, Tensor) and not (code.is_floating_point() or code.is_complex() or code.dtype == torch.bool)
    if not whole or not code.numel() or code.ndim not in (1, 2) or code.numel() != code.shape[-1]:
        found = f"{code.dtype} of shape {tuple(code.shape)}" if isinstance(code, Tensor) else f"{type(code).__name__}"
        raise DatasetError(path, f"units as {found}", expected)
    units = code.flatten().long() - unit_offset
    check_units(units, num_embeddings, lambda index: f"position {index} of {path}")
    if speaker is None:
        return UnitFile(units)
    if not isinstance(speaker, Tensor) or speaker.numel() != max(speaker.shape, default=0):
        raise DatasetError(path, "a speaker that is no vector", "one vector, (256,) or (1, 1, 256)")
    return UnitFile(units, speaker.flatten().float())


def parse_units(text: str, source: object = "units", unit_offset: int = 0, num_embeddings: int | None = None) -> Units:
    """Return the units of a text; see `read_units`. `source` names it in messages."""
    words = [(word, line) for line, words in enumerate(text.splitlines(), 1) for word in words.split()]
    for word, line in words:
        if not _WHOLE.fullmatch(word):
            raise DatasetError(source, f"{word[:40]!r} in line {line}", "whole numbers between spaces")
    if not words:
        raise DatasetError(source, "no units", "whole numbers between spaces")
    units = torch.tensor([int(word) for word, _ in words]) - unit_offset
    check_units(units, num_embeddings, lambda index: f"line {words[index][1]} of {source}")
    return units


def write_units(path: str | Path, units: Units, speaker: Float[Tensor, " values"] | None = None) -> None:
    """Write units as one line of text, or as a .pt file in the published form, where a speaker can be added."""
    path = Path(path)
    with publishing(path) as unfinished:
        if path.suffix.lower() in _SUFFIXES:
            table = {"code": units[None].long().cpu(), "dur_prediction": False}
            torch.save(table | ({} if speaker is None else {"spkr": speaker.view(1, 1, -1).cpu()}), unfinished)
        else:
            unfinished.write_text(" ".join(map(str, units.tolist())) + "\n")


class Pair(NamedTuple):
    """A sound, and its units: a file, or text in the line. `line` names the line of a manifest in messages."""

    audio: Path
    unit_path: Path | None
    text: str = ""
    line: str = ""

    def read(self, unit_offset: int = 0, num_embeddings: int | None = None) -> UnitFile:
        """Units and speaker; see `read_units`. Errors name the line."""
        try:
            if self.unit_path:
                return read_units(self.unit_path, unit_offset, num_embeddings)
            return UnitFile(parse_units(self.text, self.line, unit_offset, num_embeddings))
        except AvlibError as error:
            found = f"{error.subject}: {error.found}" if self.unit_path else error.found
            raise type(error)(self.line or self.audio, found, error.expected, error.advice) from error


class Manifest(NamedTuple):
    """Pairs, and the files of units that were left out, by the reason."""

    pairs: list[Pair]
    skipped: dict[str, list[Path]]

    def __str__(self) -> str:
        why = [f"{len(paths)} {reason} (such as {paths[0].name})" for reason, paths in self.skipped.items()]
        return f"{len(self.pairs)} pairs; {', '.join(why) or 'none'} left out"


def manifest(audio_root: str | Path, unit_root: str | Path, output_file: str | Path | None = None) -> Manifest:
    """Pair each `<stem>_preprocessed.pt` with `<audio_root>/<speaker>/<stem>.wav`, as published.

    The speaker is the part of the stem before its first `_`. Files without "code" and without a sound are left out, and
    counted; without any pair the folders are refused. `output_file` gets the manifest, one JSON object a line.
    """
    audio_root, unit_root = existing(audio_root).resolve(), existing(unit_root).resolve()
    pairs, skipped = [], {}
    for path in sorted(unit_root.glob("*.pt")):
        stem = path.stem.removesuffix(_ENDING)
        audio = audio_root / stem.partition("_")[0] / f"{stem}.wav"
        why = "" if audio.is_file() else "without sound"
        try:
            read_units(path, unit_offset=-(2**31))  # any convention
        except DatasetError:
            why = "without units that can be read"
        if why:
            skipped.setdefault(why, []).append(path)
        else:
            pairs.append(Pair(audio, path))
    made = Manifest(pairs, skipped)
    if not pairs:
        raise DatasetError(unit_root, str(made), f"<stem>{_ENDING}.pt, and {audio_root}/<speaker>/<stem>.wav")
    if output_file is not None:
        lines = [json.dumps({"audio": str(pair.audio), "unit_path": str(pair.unit_path)}) + "\n" for pair in pairs]
        with publishing(Path(output_file)) as unfinished:
            unfinished.write_text("".join(lines), encoding="utf-8")
    return made


def read_manifest(path: str | Path, root: str | Path | None = None) -> list[Pair]:
    """Read a manifest: JSON Lines, or one Python literal a line as published. Code in it is refused, not executed.

    `root` is the folder at which its paths begin, and which none may leave; None begins at the manifest's own folder,
    and paths may lead anywhere.

    Raises:
        DatasetError: no such file, no line, or a line of another form; it is named.
    """
    path = existing(path)
    base = Path(root).resolve() if root is not None else path.parent.resolve()
    pairs = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        name = f"{path} line {number}"
        table = _literal(line.strip(), name)
        audio, units = table.get("audio"), table.get("unit_path")
        text = next((table[key] for key in _INLINE if key in table), "")
        if not isinstance(audio, str) or not isinstance(units or text, str) or not (audio and (units or text)):
            raise DatasetError(name, f"the names {', '.join(map(str, table)) or 'none'}", _FORM)
        try:
            found = [(base / each).resolve() for each in (audio, units) if each]
        except (OSError, ValueError) as error:  # a name that no file can have
            raise DatasetError(name, f"{error}: {shown(line)}", _FORM) from error
        for each in found if root is not None else ():
            if not each.is_relative_to(base):
                raise DatasetError(name, f"{each}", f"a path below {base}", "It was refused.")
        pairs.append(Pair(found[0], found[1] if units else None, "" if units else text, name))
    if not pairs:
        raise DatasetError(path, "no lines", _FORM)
    return pairs


def _literal(line: str, name: str) -> dict:
    try:
        try:
            value = json.loads(line)
        except ValueError:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a path with a backslash
                value = ast.literal_eval(line)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DatasetError(name, f"{line[:60]!r}", _FORM, "It was refused, and nothing in it was executed.") from error
    if not isinstance(value, dict):
        raise DatasetError(name, f"a {type(value).__name__}", _FORM)
    return value


def warn_if_shared(training: Sequence[Pair], validation: Sequence[Pair]) -> None:
    """Warn about validation pairs that are in the training manifest: on them, validation measures memory."""
    known = {(pair.audio, pair.unit_path, pair.text) for pair in training}
    shared = sum((pair.audio, pair.unit_path, pair.text) in known for pair in validation)
    if shared:
        text = f"{shared} of {len(validation)} validation pairs are in the training manifest as well"
        warnings.warn(f"{text}: validation measures memory there. Give other recordings.", stacklevel=2)
