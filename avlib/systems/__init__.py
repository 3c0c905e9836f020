"""Where a row is put together: one module for each system, with `tiny`, `full`, `build`, `step` and `trained`.

This file holds what they share: settings whose every field has a name, which a notebook, a file or the command line can
set, and a place in the cache where each piece of work is done once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pkgutil
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache as remembered
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from .. import cache
from ..errors import ParameterError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .. import training

_Settings = TypeVar("_Settings")
_Result = TypeVar("_Result")

# The parts of avlib whose source decides what scenes are, and those that decide how anything learns.
_SCENES = ("clips", "datasets/policy", "datasets/sources", "datasets/splits", "features")
_LEARNING = ("losses", "systems/__init__", "training")


def sources(system: str, what: str = "learning", more: Sequence[str] = ()) -> tuple[str, ...]:
    """The parts of avlib that a system's arrays ("data") or weights ("learning") follow from, for `done_once`.

    Not among them is what another system alone uses, nor how a system is measured: to change these trains nothing anew.

    Args:
        system: its name.
        what: "data" or "learning".
        more: further parts, such as a module that it shares with others.
    """
    data = (*_SCENES, f"datasets/{system}", f"systems/{system}/data")
    if what == "data":
        return (*data, *more)
    return (*data, *_LEARNING, f"models/{system}", f"systems/{system}/learning", f"systems/{system}/settings", *more)


def names() -> list[str]:
    """The systems that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


# Settings


def changed(settings: _Settings, values: Mapping[str, Any]) -> _Settings:
    """Settings with other values in some fields, however deep these lie.

    A name alone sets each field of that name: `steps` those of all stages. `fine_tuning.steps` sets that below
    `fine_tuning`, and wins over `steps`. A table of names and values is the same as dotted names. Text is read as what
    the field holds: `"1e-3"`, `"true"`, `"[0.9, 0.95]"`.

    Args:
        settings: a dataclass, whose fields may be dataclasses. If its class has a table `ALIASES`, values may have
            those names too; see `own_names`.
        values: by name.

    Raises:
        ParameterError: no such field, or a value of another type; an alias together with the name that it stands for;
            or what the dataclasses themselves refuse.
    """
    known = dict(_leaves(settings))
    chosen: dict[tuple[str, ...], Any] = {}
    tables = {path[-1] for path, kind in known.items() if get_origin(kind) is Mapping}
    flat = own_names(dict(_flat(values, tables)), getattr(settings, "ALIASES", {}), getattr(settings, "VALUES", {}))
    for name, value in sorted(flat.items(), key=lambda pair: pair[0].count(".")):
        places = [path for path in known if _leads_to(name.split("."), path)]
        if not places:
            _refuse(name, list(known))
        chosen |= {path: _converted(name, value, known[path]) for path in places}
    return _rebuilt(settings, chosen)


def own_names(
    values: Mapping[str, Any], aliases: Mapping[str, str], meanings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Values by the names that settings have here, where some are given by other names.

    Args:
        values: by name, or by alias; of a dotted name the last part counts.
        aliases: other names, and those that they stand for; "" for a switch that other settings imply.
        meanings: of an alias, its values that are called otherwise here, in lower case as text, and what they are.

    Raises:
        ParameterError: an alias together with the name that it stands for, or with another alias of that.
    """
    result, given = {}, {}
    for name, value in values.items():
        above, dot, last = name.rpartition(".")
        own = aliases.get(last, last)
        if not own:
            continue
        before = given.setdefault(own, name)
        if before != name and {last, before.rpartition(".")[2]} & aliases.keys():
            raise ParameterError(name, f"given together with {before}, which is the same", f"{own}, its name here")
        meaning = meanings.get(last, {})
        result[above + dot + own] = meaning.get(str(value).strip().lower(), value)
    return result


def _leaves(settings: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and type of each field that is no dataclass itself."""
    types_of = get_type_hints(type(settings))
    for field in fields(settings):
        value, path = getattr(settings, field.name), (*above, field.name)
        if is_dataclass(value):
            yield from _leaves(value, path)
        else:
            yield path, types_of[field.name]


def _flat(values: Mapping[str, Any], tables: set[str], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted names; a table stays one where a field holds a table."""
    for name, value in values.items():
        if isinstance(value, Mapping) and name.rpartition(".")[2] not in tables:
            yield from _flat(value, tables, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _leads_to(words: Sequence[str], path: tuple[str, ...]) -> bool:
    """Whether the words come in the path, in their order, the last of them last."""
    rest = iter(path)
    return words[-1] == path[-1] and all(word in rest for word in words)


def _refuse(name: str, paths: list[tuple[str, ...]]) -> None:
    single = sorted({path[-1] for path in paths})
    dotted = [".".join(path) for path in paths]
    near = difflib.get_close_matches(name, single + dotted, 2) or difflib.get_close_matches(
        name.rpartition(".")[2], single, 2
    )
    advice = f"Did you mean {' or '.join(near)}?" if near else ""
    raise ParameterError(name, "no such parameter", f"one of {', '.join(single)}", advice)


def _rebuilt(settings: _Settings, chosen: Mapping[tuple[str, ...], Any]) -> _Settings:
    """All fields at once, so that values which only fit together are checked together."""
    new = {}
    for head in {path[0] for path in chosen}:
        below = {path[1:]: value for path, value in chosen.items() if path[0] == head}
        new[head] = below[()] if () in below else _rebuilt(getattr(settings, head), below)
    return replace(settings, **new) if new else settings


def _converted(name: str, value: Any, kind: Any) -> Any:
    if isinstance(value, str) and not _is(value, kind):
        text = value.strip()
        plain = {"true": "true", "false": "false", "none": "null"}.get(text.lower(), text)
        for candidate in (plain, f"[{plain}]"):  # `0.9, 0.95` is a list without its brackets
            try:
                value = json.loads(candidate)
            except ValueError:
                continue
            if _is(value, kind):
                break
        else:
            words = [word.strip() for word in text.split(",") if word.strip()]  # words have no quotes on a command line
            value = words if _is(words, kind) else value
    if not _is(value, kind):
        raise ParameterError(name, f"found {type(value).__name__} {value!r}", _words(kind))
    return tuple(value) if isinstance(value, list) else value


def _is(value: Any, kind: Any) -> bool:
    """Whether a plain value is of an annotated type; a whole number is a float too, a list may stand for a tuple."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is(value, each) for each in inner)
    if isinstance(value, bool) or kind in (bool, None, type(None)):
        return isinstance(value, bool) if kind is bool else value is None and kind in (None, type(None))
    if kind is float:
        return isinstance(value, int | float)
    if isinstance(value, Mapping):
        return origin is Mapping and all(_is(key, inner[0]) and _is(each, inner[1]) for key, each in value.items())
    if isinstance(value, list | tuple):
        if origin in (tuple, list, Sequence) and inner:
            fixed = origin is tuple and inner[-1] is not Ellipsis
            kinds = inner if fixed else inner[:1] * len(value)
            return len(kinds) == len(value) and all(map(_is, value, kinds))
        return kind in (tuple, list, Sequence)
    return isinstance(kind, type) and isinstance(value, kind)


def _words(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


# Figures


class Figure(NamedTuple):
    """A measured number, and what it is to be compared with.

    value: the number.
    reference: what needs no model, or no more than a trivial one.
    meaning: which one that is.
    low: of a share, the lower end of its 95 % interval over queries; None for others.
    """

    value: float
    reference: float
    meaning: str
    low: float | None = None

    @classmethod
    def of_share(cls, hits: Any, reference: float, meaning: str) -> Figure:
        """The share of queries that are right, of what each gave, 0 to 1: `(queries,)`."""
        from .. import metrics

        return cls(float(hits.float().mean()), reference, meaning, metrics.lower_bound(hits))

    def __str__(self) -> str:
        low = "" if self.low is None else f"(at least {self.low:.3f})"
        return f"{self.value:7.3f}  {low:<16}  {self.meaning}: {self.reference:.3f}"


# Training that is done once


class Trained(NamedTuple):
    """A trained model in evaluation mode, what happened in training, and the folder with its weights."""

    model: nn.Module
    history: training.History
    folder: Path


def trained_once(
    name: str,
    recipe: Any,
    make: Callable[[Path], tuple[_Result, training.History]],
    save: Callable[[_Result, Path], None],
    *,
    settings: Any,
    source: Sequence[str],
) -> tuple[training.History, Path]:
    """What happened in a training, and the folder with its weights: from the cache, or trained now. See `done_once`.

    Args:
        name: as there.
        recipe: as there.
        make: trains, in a folder that outlives a killed process; gives the model and what happened.
        save: writes the model's weights into a folder of that name.
        settings: a dataclass that is written beside the weights.
        source: as there.
    """
    from .. import training

    def write(made: tuple[_Result, training.History], path: Path) -> None:
        model, history = made
        save(model, path)
        (path / "history.json").write_text(json.dumps(history.rows))
        (path / "settings.json").write_text(json.dumps(asdict(settings), indent=1))

    folder = done_once("trained", name, recipe, make, write, source=source, together=True)
    return training.History(json.loads((folder / "history.json").read_text())), folder


def chosen_device(wanted: torch.device | str | None) -> torch.device | str:
    """The device that is asked for; of None or "auto", a GPU if there is one."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return wanted if wanted not in (None, "auto") else found or "cpu"


# Work that is done once


def done_once(
    group: str,
    name: str,
    recipe: Any,
    make: Callable[[Path], _Result],
    write: Callable[[_Result, Path], None],
    *,
    source: Sequence[str],
    together: bool = False,
) -> Path:
    """Where in the cache a result lies, whole, made now if no process made it before. One that makes it at the same
    time is waited for; where one was killed, `make` can go on from what that left.

    Args:
        group: a folder of the cache.
        name: what the folder below it begins with; a mark of all that the result depends on follows.
        recipe: what that is: values that JSON can hold, or whose `repr` tells them apart.
        make: called with a folder that outlives a killed process.
        write: called with the result and a name, under which it writes a file or a folder.
        source: parts of avlib whose source the result depends on as well.
        together: where several processes were started (torchrun), whether all of them make the result, of which the
            first writes its own; otherwise the first makes it alone.

    Raises:
        CacheError: the cache cannot be written.
    """
    text = json.dumps(recipe, sort_keys=True, default=repr)
    mark = hashlib.sha256(f"{_digest(tuple(source))} {text}".encode()).hexdigest()[:12]
    folder = cache.folder(group, f"{name}-{mark}")
    result, progress, first = folder / "result", folder / "progress", is_first()
    with cache.locked(result) if first else nullcontext():
        if not _of_the_first(result.exists()):
            if first:
                cache.remove_unfinished(folder)  # of a killed process; nobody else writes here
                progress.mkdir(exist_ok=True)
            made = make(progress) if first or together else None
            if first:
                with cache.publishing(result) as unfinished:
                    write(made, unfinished)
                shutil.rmtree(progress, ignore_errors=True)
        _of_the_first(True)  # whose result is there now
    return result


@remembered
def _digest(parts: tuple[str, ...]) -> str:
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for part in parts:
        for path in sorted([*root.glob(f"{part}.py"), *root.glob(f"{part}/**/*.py")]):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def is_first() -> bool:
    """Whether this is the only process, or the one of several (torchrun) that prints and writes."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def processes() -> Iterator[None]:
    """Within, the processes that torchrun started know of each other; afterwards they may end one by one."""
    try:
        yield
    finally:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()


def _of_the_first(value: bool) -> bool:
    """What the first process says; until it does, the others wait."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return value
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group()  # gloo for the CPU, and NCCL for GPUs where there are any
    said = [value]
    distributed.broadcast_object_list(said, device="cpu")
    return said[0]
