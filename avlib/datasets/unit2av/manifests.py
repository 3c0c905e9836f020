"""Manifests: which sound belongs to which file of units, one pair a line."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...cache import publishing
from ...errors import AvlibError, DatasetError
from ..sources import existing
from .units import UnitFile, parse_units, read_units

_INLINE = ("cpc_km100", "vqvae256", "hubert", "codes")  # published names of units in the line itself; the first counts
_FORM = '{"audio": path, "unit_path": path} as JSON or as a Python literal'
_ENDING = "_preprocessed"


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
    counted.

    Args:
        audio_root: folder of the speakers' folders.
        unit_root: folder of the files of units.
        output_file: where to write the manifest, one JSON object a line; None writes nothing.

    Raises:
        DatasetError: no such folder, no .pt in it, or no pair.
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

    Args:
        path: of the manifest.
        root: folder at which its paths begin, and which none may leave; None begins at the manifest's own folder, and
            paths may lead anywhere.

    Raises:
        DatasetError: no such file, no line, or a line of another form; it is named.
    """
    path = existing(path)
    base = Path(root).resolve() if root is not None else path.parent.resolve()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(path, f"cannot be read ({error})", "text") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = f"{path} line {number}"
        table = _literal(line.strip(), name)
        audio, units = table.get("audio"), table.get("unit_path")
        text = next((table[key] for key in _INLINE if key in table), "")
        if not isinstance(audio, str) or not isinstance(units or text, str) or not (audio and (units or text)):
            raise DatasetError(name, f"the names {', '.join(map(str, table)) or 'none'}", _FORM)
        found = [(base / each).resolve() for each in (audio, units) if each]
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
