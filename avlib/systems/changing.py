"""Settings with other values: by name, however deep they lie, as text or as values, under this name or another."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ParameterError

_Settings = TypeVar("_Settings")


def changed(settings: _Settings, *sources: Mapping[str, Any]) -> _Settings:
    """Settings with other values in some fields, however deep these lie.

    A name alone sets each field of that name: `steps` those of all stages. `fine_tuning.steps` sets that below
    `fine_tuning`, and wins over `steps`. A table of names and values is the same as dotted names. Text is read as what
    the field holds: `"1e-3"`, `"true"`, `"[0.9, 0.95]"`.

    Args:
        settings: a dataclass, whose fields may be dataclasses. If its class has a table `ALIASES`, values may have
            those names too, see `own_names`; if it has a table `INSTEAD`, who gives a name gives the others in its row
            as well, unless they are given.
        sources: values by name, of which a later source wins, whatever name it gives.

    Raises:
        ParameterError: no such field, or a value of another type; an alias together with the name that it stands for,
            in one source; or what the dataclasses themselves refuse.
    """
    known = dict(_leaves(settings))
    chosen: dict[tuple[str, ...], Any] = {}
    tables = {path[-1] for path, kind in known.items() if get_origin(kind) is Mapping}
    tables_of_names = getattr(settings, "ALIASES", {}), getattr(settings, "VALUES", {})
    flat = [own_names(dict(_flat(values, tables)), *tables_of_names) for values in sources]
    there = {name.rpartition(".")[2] for values in flat for name in values}
    for name, others in getattr(settings, "INSTEAD", {}).items():
        flat.append({other: value for other, value in others.items() if name in there and other not in there})
    for values in flat:
        for name, value in sorted(values.items(), key=lambda pair: pair[0].count(".")):
            places = [path for path in known if _leads_to(name.split("."), path)]
            if not places:
                _refuse(name, list(known))
            chosen |= {path: _converted(name, value, known[path]) for path in places}
    return _rebuilt(settings, chosen)


def own_names(
    values: Mapping[str, Any],
    aliases: Mapping[str, str | Mapping[str, str]],
    meanings: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Values by the names that settings have here, where some are given by other names.

    Args:
        values: by name, or by alias; of a dotted name the last part counts.
        aliases: other names, and those that they stand for; of a switch a table of what names stand for where it is on,
            unless what they stand for is given too.
        meanings: of a name, here or other, values that are called otherwise here, in lower case as text, and what they
            are.

    Raises:
        ParameterError: an alias together with the name that it stands for, or with another alias of that.
    """
    result, given = {}, {}
    there = {name.rpartition(".")[2]: _plain(value) for name, value in values.items()}
    switches = {name: table for name, table in aliases.items() if isinstance(table, Mapping)}
    aliases = {name: own for name, own in aliases.items() if name not in switches}
    for name in switches.keys() & there.keys():
        if there[name] == "true":
            aliases |= {other: own for other, own in switches[name].items() if own not in there}
    for name, value in values.items():
        above, dot, last = name.rpartition(".")
        own = aliases.get(last, last)
        before = given.setdefault(own, name)
        if before != name and {last, before.rpartition(".")[2]} & aliases.keys():
            raise ParameterError(name, f"given together with {before}, which is the same", f"{own}, its name here")
        result[above + dot + own] = meanings.get(last, meanings.get(own, {})).get(_plain(value), value)
    return result


def _plain(value: Any) -> str:
    """As text, in lower case."""
    return str(value).strip().lower()


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


_BARE_POINT = re.compile(r"(?<![\w.])\.(?=\d)")  # `.3`, which is a number everywhere but in JSON


def _converted(name: str, value: Any, kind: Any) -> Any:
    if isinstance(value, str) and not _is(value, kind):
        text = value.strip()
        plain = {"true": "true", "false": "false", "none": "null"}.get(text.lower(), text)
        plain = _BARE_POINT.sub("0.", plain)
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
