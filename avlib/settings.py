"""Settings as checked dataclasses, and how notebooks, files and commands change them.

@settings
class Data:
    seconds: Positive = 10.0
    pad: Literal["longest", "max"] = "longest"

changed(Data(), {"seconds": "2.5"})
"""

from __future__ import annotations

import functools
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from .errors import AvlibError, ParameterError, did_you_mean, shown, too_large

_Settings = TypeVar("_Settings")

_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)  # neither "3" nor True is a number

_ENDLESS = (2**31, float("inf"))  # limits that no message names

Number = float | int
Natural = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
NonNegative = Annotated[Number, Field(ge=0, lt=float("inf"))]
Positive = Annotated[Number, Field(gt=0, lt=float("inf"))]
Share = Annotated[Number, Field(ge=0, le=1)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]


@typing.dataclass_transform(frozen_default=True)
def settings(cls: type[_Settings]) -> type[_Settings]:
    """Make a class a frozen dataclass that checks its values strictly.

    Types, ranges (`Annotated[int, Field(ge=1)]`, or the names of this module) and choices (`Literal`) are checked by
    pydantic; what depends on several fields belongs in `__post_init__`. Whatever is refused is a ParameterError. Lists
    and ranges become tuples.
    """
    made = checked_dataclass(cls, frozen=True, config=_STRICT)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *args: Any, **values: Any) -> None:
        try:
            for name, value in [*zip([each.name for each in fields(made)], args, strict=False), *values.items()]:
                if too_large(value):
                    raise ParameterError(name, shown(value), "a number within 64 bits")
            checked(self, *map(_as_tuple, args), **{name: _as_tuple(value) for name, value in values.items()})
        except ValidationError as error:
            raise _refusal(made, error) from None

    made.__init__ = init
    return made


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | range) else value


def _refusal(cls: type, error: ValidationError) -> AvlibError:
    first = error.errors()[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, AvlibError):  # of `__post_init__`
        return own
    place = first["loc"][0]
    name = fields(cls)[place].name if isinstance(place, int) else str(place)  # a position among the arguments
    if first["type"] in ("unexpected_keyword_argument", "missing"):
        known = [field.name for field in fields(cls)]
        return ParameterError(name, first["msg"].lower(), f"one of {', '.join(known)}", did_you_mean(name, known))
    kind = get_type_hints(cls, include_extras=True)[name]
    for key in first["loc"][1:]:  # of an item in a sequence or table
        items = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if get_origin(items) not in (Sequence, Mapping):
            break
        name, kind = f"{name}[{key!r}]", get_args(items)[-1]
    return _unfit(name, first["input"], kind)


def _unfit(name: str, value: Any, kind: Any) -> ParameterError:
    """Describe a value that is not of an annotated type, or outside its range or choices."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices or _fits(value, _plain(kind)):
        return ParameterError(name, shown(value), describe(kind), did_you_mean(value, choices))
    types = dict.fromkeys((describe(_plain(kind)), describe(kind)))
    return ParameterError(name, f"found {type(value).__name__} {shown(value)}", ", ".join(types))


def describe(kind: Any) -> str:
    """Return an annotated type in words, such as "1 or more" or "one of 'mean', 'attention'"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin is Annotated:
        return _range(inner[1:]) or describe(inner[0])
    if origin in (Union, types.UnionType):
        parts = dict.fromkeys("None" if each is type(None) else describe(each) for each in inner)
        return " or ".join(part for part in parts if part != "int" or "float" not in parts)
    return kind.__name__ if isinstance(kind, type) and not inner else str(kind).rpartition("abc.")[2]


def _range(notes: Sequence[Any]) -> str:
    limits = [limit for note in notes for limit in getattr(note, "metadata", [note])]

    def found(name: str) -> Any:
        return next((getattr(limit, name) for limit in limits if hasattr(limit, name)), None)

    ge, gt, le, lt = map(found, ("ge", "gt", "le", "lt"))
    if ge is not None and le is not None:
        return f"{ge} to {le}"
    if length := found("min_length"):
        return f"{length} values"
    low = f"{ge} or more" if ge is not None else f"more than {gt}" if gt is not None else ""
    high = f"at most {le}" if le is not None else f"less than {lt}" if lt not in (None, *_ENDLESS) else ""
    return " and ".join(filter(None, (low, high)))


def changed(settings: _Settings, *sources: Mapping[str, Any]) -> _Settings:
    """Return settings with other values in some fields, however deep these lie.

    A name alone sets each field of that name: `steps` those of all stages. `fine_tuning.steps` sets that below
    `fine_tuning`, and wins over `steps`. A table of names and values is the same as dotted names. Text is read as the
    type of the field: `"1e-3"`, `"true"`, `"[0.9, 0.95]"`.

    Args:
        settings: a dataclass, whose fields may be dataclasses. A class may have tables of other names, `ALIASES` and
            `VALUES` (see `own_names`), and a table `INSTEAD`: a name that is given sets the others in its row as well,
            unless they are given.
        sources: values by name; a later source wins over an earlier one.

    Raises:
        ParameterError: an unknown field; a value that its field refuses; an alias beside the name that it stands for.
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
                _refuse_unknown(name, list(known))
            chosen |= {path: _converted(name, value, known[path]) for path in places}
    return _rebuilt(settings, chosen)


def recipe(settings: Any) -> dict[str, Any]:
    """Return the values that a result follows from: all fields but those that the class lists in `FREE`, as a table.

    `FREE` holds names of fields that change no result, such as `workers`; it may be a property.
    """
    free = getattr(settings, "FREE", ())
    values = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in free}
    return {name: recipe(value) if is_dataclass(value) else value for name, value in values.items()}


def own_names(
    values: Mapping[str, Any], aliases: Mapping[str, str | Mapping[str, str]], meanings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return values by the names that settings have here, where some are given by other names.

    Args:
        values: by name or alias; the last part of a dotted name counts.
        aliases: other names, and those that they stand for. A switch has a table of further aliases, which hold where
            it is on and what they stand for is not given.
        meanings: for a name, values that are called otherwise here (in lower case, as text), and what they are.

    Raises:
        ParameterError: an alias together with the name that it stands for, or with another alias of that name.
    """
    result, given = {}, {}
    there = {name.rpartition(".")[2]: _lower(value) for name, value in values.items()}
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
        result[above + dot + own] = meanings.get(last, meanings.get(own, {})).get(_lower(value), value)
    return result


def _lower(value: Any) -> str:
    return "" if too_large(value) else str(value).strip().lower()


def _leaves(settings: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and annotated type of each field that is no dataclass itself."""
    types_of = _types(type(settings))
    for field in fields(settings):
        value, path = getattr(settings, field.name), (*above, field.name)
        if is_dataclass(value):
            yield from _leaves(value, path)
        else:
            yield path, types_of[field.name]


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def names_in(*sources: Mapping[str, Any]) -> set[str]:
    """Return the dotted names that tables of values give."""
    return {name for values in sources for name, _ in _flat(values, set())}


def _flat(values: Mapping[str, Any], tables: set[str], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted names; a table stays one where a field holds a table."""
    for name, value in values.items():
        if isinstance(value, Mapping) and name.rpartition(".")[2] not in tables:
            yield from _flat(value, tables, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _leads_to(words: Sequence[str], path: tuple[str, ...]) -> bool:
    """Return whether the words are in the path in their order, the last one last."""
    rest = iter(path)
    return words[-1] == path[-1] and all(word in rest for word in words)


def _refuse_unknown(name: str, paths: list[tuple[str, ...]]) -> None:
    single = sorted({path[-1] for path in paths})
    advice = did_you_mean(name, single + [".".join(path) for path in paths], 2)
    advice = advice or did_you_mean(name.rpartition(".")[2], single, 2)
    raise ParameterError(name, "no such parameter", f"one of {', '.join(single)}", advice)


def _rebuilt(settings: _Settings, chosen: Mapping[tuple[str, ...], Any]) -> _Settings:
    """All fields at once, so that values which only fit together are checked together."""
    new = {}
    for head in {path[0] for path in chosen}:
        below = {path[1:]: value for path, value in chosen.items() if path[0] == head}
        new[head] = below[()] if () in below else _rebuilt(getattr(settings, head), below)
    return replace(settings, **new) if new else settings


def read_yaml(text: str) -> Any:
    """Return the values of YAML, which JSON is too; aliases may neither contain themselves nor grow without end.

    Raises:
        ValueError: deep or endless values, repeated names, names that are no text, or numbers beyond a float's range.
        RecursionError: even deeper values.
        yaml.YAMLError: the text is malformed.
    """
    import yaml

    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON may be indented so
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    waiting, count = [(root, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        inside, count = getattr(node, "value", ""), count + 1
        if depth > 50 or count > 100_000:
            raise ValueError("more than 100,000 values once aliases are written out, or nested deeper than 50")
        if isinstance(node, yaml.MappingNode):
            names = {name.value for name, _ in inside if name.tag.endswith((":str", ":merge"))}
            if len(names) < len(inside):
                raise ValueError(f"from line {node.start_mark.line + 1} on a name is given twice, or is not text")
            inside = [value for _, value in inside]
        elif node and node.tag.endswith((":int", ":float")) and re.match(r"[-+]?0[0-9_]+$|.*:|.{301}", str(inside)):
            found = f"a number of {len(inside)} digits" if len(inside) > 300 else f"{inside}, octal or in base 60"
            raise ValueError(f"{found}; write fewer, decimal digits, or quotes")
        if node and node.tag.rpartition(":")[2] not in ("str", "int", "float", "bool", "null", "map", "seq", "merge"):
            raise ValueError(f"a value of the type {node.tag.rpartition(':')[2]}; text, such as a date, needs quotes")
        waiting += [(each, depth + 1) for each in inside if not isinstance(each, str)]
    return root and loader.construct_document(root)


_BARE_POINT = re.compile(r"(?<![\w.])\.(?=\d)")  # `.3`, which is a number everywhere but in JSON


def _converted(name: str, value: Any, kind: Any) -> Any:
    """The value in the type of its field; text is read as JSON, a list may stand without its brackets."""
    candidates, plain = [value], _plain(kind)
    if isinstance(value, str):
        text = value.strip()
        as_json = _BARE_POINT.sub("0.", {"true": "true", "false": "false", "none": "null"}.get(text.lower(), text))
        for candidate in (as_json, f"[{as_json}]"):
            try:
                candidates.append(json.loads(candidate))
            except (ValueError, RecursionError):
                continue
        candidates.append([word.strip() for word in text.split(",") if word.strip()])
    for candidate in candidates:
        if _fits(candidate, plain):  # whether it is in its range as well, the dataclass checks
            return _as_tuple(candidate)
    raise _unfit(name, value, kind)


def _fits(value: Any, kind: Any) -> bool:
    try:
        _adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=None if is_dataclass(kind) else _STRICT)


def _plain(kind: Any) -> Any:
    """An annotated type without its ranges."""
    return get_type_hints(type("_", (), {"__annotations__": {"kind": kind}}))["kind"]
