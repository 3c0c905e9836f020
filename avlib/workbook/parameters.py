"""The parameters cell of a notebook, its checks, and settings files.

Each line of the cell reads `name: type = default  # help`. The help begins with the allowed values in plain words:

    seconds: float = 10.0  # 0.1 to 30: duration of the clip
    steps: int = 300  # 1 or more: training steps
    size: str = "tiny"  # "tiny" or "full": the settings

A notebook that calls `workbook.check(globals(), system="cav_mae")` takes settings of that system from the file that its
parameter `settings` names.

The runner reads the cell from the file and the kernel from its history, both through this module. It needs only the
standard library; a system is loaded when a file has settings of it. papermill reads the same lines with a regular
expression, and lines that it would misread are refused.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import math
import os
import re
import tempfile
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CacheError, NotebookError, ParameterError, did_you_mean, shown, too_large

TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]")
_PATHS = ("clip", "data", "checkpoint", "settings")  # parameters that name a file or folder which must be there
_FORM = "`name: type = default  # help`"
_LONGEST = 250_000  # characters of a settings file

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_CHOICE = rf'(?:"[^"]*"|{_NUMBER})'
_CHOICES = re.compile(rf"{_CHOICE}(?:, {_CHOICE})*,? or {_CHOICE}(?!\d)")
_RANGE = re.compile(rf"({_NUMBER}) to ({_NUMBER})(?!\d)")
_BOUND = re.compile(rf"(above )?({_NUMBER})(?: or (more|less))?(?!\w)")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str
    default: object
    help: str

    @property
    def choices(self) -> list[object]:
        """The choices that begin the help, as in `"tiny" or "full"`, if any."""
        match = _CHOICES.match(self.help)
        return [ast.literal_eval(choice) for choice in re.findall(_CHOICE, match[0])] if match else []

    @property
    def constraint(self) -> str:
        """The words at the start of the help that limit the values."""
        for pattern in (_CHOICES, _RANGE):
            if match := pattern.match(self.help):
                return match[0]
        bound = _BOUND.match(self.help)
        return bound[0] if bound and (bound[1] or bound[3]) else ""

    def allows(self, value: object) -> bool:
        """Return True if a value (each item of a list) meets the constraint."""
        if isinstance(value, list):
            return all(self.allows(item) for item in value)
        if self.choices:
            return value in self.choices
        if not isinstance(value, int | float) or not self.constraint:
            return True
        if match := _RANGE.match(self.help):
            return float(match[1]) <= value <= float(match[2])
        above, number, side = _BOUND.match(self.help).groups()
        if above:
            return value > float(number)
        return value >= float(number) if side == "more" else value <= float(number)

    def convert(self, value: object) -> object:
        """Return the value in the declared type, without loss.

        papermill and YAML know no types: text is read as the declared type (`"1e-5"`, `"[3,4]"`, `"3,4"`, `"true"`),
        and a whole number becomes a float.

        Raises:
            ParameterError: the value has another type, is not finite, or is not allowed.
        """
        if self.name == "device" and type(value).__name__ == "device":
            value = str(value)  # a notebook that keeps the torch.device under the parameter's own name
        try:
            converted = _as_list(value, self.type[5:-1]) if self.type.startswith("list") else _as(value, self.type)
        except (ValueError, TypeError, OverflowError, RecursionError):
            expected = f"{self.type}, {self.constraint}" if self.constraint else self.type
            raise ParameterError(self.name, f"found {type(value).__name__} {shown(value)}", expected) from None
        if not self.allows(converted):
            raise ParameterError(self.name, f"found {shown(converted)}", self.constraint)
        return converted


def _as(value: object, kind: str) -> object:
    if isinstance(value, str):
        if kind == "bool":
            value = {"true": True, "false": False}.get(value.strip().lower())
        elif kind != "str":
            value = {"int": int, "float": float}[kind](value)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value).__name__ != kind or (kind == "float" and not math.isfinite(value)) or too_large(value):
        raise ValueError
    return value


def _as_list(value: object, kind: str) -> list[object]:
    if isinstance(value, str):
        text = value.strip()
        value = json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError
    return [_as(item, kind) for item in value]


def parse(source: str, where: object = None) -> dict[str, Parameter]:
    """Return the parameters that a cell declares, by name.

    Args:
        where: the file of the cell; None in a kernel, where a reader may have changed a value.

    Raises:
        NotebookError: a line is malformed, papermill would misread it, or a file's default breaks its constraint.
        ParameterError: a value in a kernel breaks its constraint.
    """
    in_kernel, where = where is None, where or "parameters cell"
    lines = source.splitlines()
    declared: dict[str, Parameter] = {}
    try:
        body, comments = ast.parse(source).body, _comments(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line, found = getattr(error, "lineno", 1), getattr(error, "msg", repr(error))
        raise NotebookError(where, f"line {line} is no Python: {found}", _FORM) from None
    for node in body:
        line = lines[node.lineno - 1]
        try:
            if not isinstance(node, ast.AnnAssign):
                raise TypeError
            name, kind, default = ast.unparse(node.target), ast.unparse(node.annotation), ast.literal_eval(node.value)
        except (TypeError, ValueError):
            raise NotebookError(where, f"line {node.lineno} is `{line}`", f"{_FORM} with a plain value") from None
        problem = ""
        if kind not in TYPES:
            problem = f"has the type {kind}; expected one of {', '.join(TYPES)}"
        elif node.lineno not in comments:
            problem = f"has no help; expected {_FORM} on one line"
        elif name in declared:
            problem = "is declared twice"
        elif line.count("=") != 1 or line.count("#") != 1:
            problem = "has a second `=` or `#` in its line, which papermill misreads"
        if problem:
            raise NotebookError(where, f"the parameter {name} {problem}")
        parameter = Parameter(name, kind, default, comments[node.lineno])
        try:
            declared[name] = Parameter(name, kind, parameter.convert(default), parameter.help)
        except SyntaxError as error:
            raise NotebookError(where, f"the allowed values of {name} are no Python ({error})", _FORM) from None
        except ParameterError as error:
            if in_kernel:
                found = f"{error.found} in line {node.lineno} of the parameters cell"
                raise ParameterError(name, found, error.expected, did_you_mean(default, parameter.choices)) from None
            raise NotebookError(where, f"a default breaks its own constraint: {error}") from None
    return declared


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string[1:].strip() for token in tokens if token.type == tokenize.COMMENT}


def resolve(
    declared: Mapping[str, Parameter],
    passed: Mapping[str, object],
    present: Mapping[str, object] | None = None,
    *,
    system: str = "",
) -> dict[str, object]:
    """Return the final value of each parameter.

    A passed value comes first, then the settings file, the present value in the kernel, and the default.

    Args:
        system: the system whose settings the file may hold, and whose aliases are accepted.

    Raises:
        ParameterError: a name is unknown, a value is not allowed, or a file is missing.
    """
    passed = own_names(declared, passed, system)
    refuse_unknown(passed, declared)
    values = {name: parameter.default for name, parameter in declared.items()} | dict(present or {}) | dict(passed)
    path = values.get("settings", "")
    if isinstance(path, str) and path:
        from_file = own_names(declared, read_settings(path), system)
        for_system = _of_the_system(from_file, declared, system)
        refuse_unknown(from_file.keys() - for_system.keys(), declared, f" (it is in {path})")
        values |= {name: value for name, value in from_file.items() if name not in {*passed, *for_system}}
    values = {name: declared[name].convert(value) for name, value in values.items()}
    for name in filter(values.get, _PATHS):
        values[name] = str(Path(values[name]).expanduser())
        if not Path(values[name]).exists():
            raise ParameterError(
                name, f"no such file or folder: {values[name]}", advice=f"It was sought in {Path.cwd()}."
            )
    if values.get("out_dir"):
        values["out_dir"] = str(writable_folder(values["out_dir"]))
    return values


def system_settings(declared: Mapping[str, Parameter], path: str, system: str) -> dict[str, object]:
    """Return the settings of the system in a settings file."""
    return _of_the_system(own_names(declared, read_settings(path), system), declared, system) if path else {}


def own_names(declared: Mapping[str, Parameter], values: Mapping[str, object], system: str = "") -> dict[str, object]:
    """Return values under the notebook's names, where the system has aliases (`ALIASES`)."""
    if values.keys() <= declared.keys() or not system:
        return dict(values)
    from .. import systems

    settings = _tiny(system)
    return systems.own_names(values, getattr(settings, "ALIASES", {}), getattr(settings, "VALUES", {}))


def _of_the_system(
    from_file: Mapping[str, object], declared: Mapping[str, Parameter], system: str
) -> dict[str, object]:
    """Entries that the notebook does not declare; its system must know them."""
    beyond = {name: value for name, value in from_file.items() if name not in declared}
    if not beyond or not system:
        return {}
    from .. import systems

    systems.changed(_tiny(system), beyond)  # refuses what it does not know
    return beyond


def _tiny(system: str) -> object:
    """The tiny settings of a system; loads it."""
    from .. import systems

    if system not in systems.names():
        raise NotebookError("check", f"no system {system!r}", f"one of {', '.join(systems.names())}")
    return importlib.import_module(f"avlib.systems.{system}").tiny


def refuse_unknown(names: Iterable[str], declared: Iterable[str], where: str = "") -> None:
    """Raise a ParameterError for the first name that is not declared."""
    for name in names:
        if name not in declared:
            expected, advice = f"one of {', '.join(declared)}", did_you_mean(name, declared, 2)
            raise ParameterError(name, f"no such parameter{where}", expected, advice)


def read_settings(path: str) -> dict[str, object]:
    """Return the values in a JSON or YAML file of settings."""
    import yaml

    from ..settings import read_yaml

    try:
        with Path(path).expanduser().open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise ValueError(f"more than {_LONGEST:,} characters")
        values = read_yaml(text)
    except FileNotFoundError:
        raise ParameterError("settings", f"no such file or folder: {path}") from None
    except (OSError, ValueError, KeyError, RuntimeError, yaml.YAMLError) as error:
        raise ParameterError("settings", f"{path} cannot be read: {error}", "a JSON or YAML file") from error
    if not isinstance(values, dict):
        raise ParameterError("settings", f"{path} holds {type(values).__name__}", "names with values") from None
    return values


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder at `path`, created if needed and tested for writing."""
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise CacheError(folder, reason, "a folder that can be written", "Name another one.") from error


def is_parameters_cell(source: str) -> bool:
    """Return True if a cell has only annotated assignments with comments."""
    try:
        body = ast.parse(source).body
        return bool(body) and all(isinstance(node, ast.AnnAssign) for node in body) and bool(_comments(source))
    except (SyntaxError, tokenize.TokenError):
        return False


def injected_names(source: str) -> list[str]:
    """Return the names that papermill's injected cell assigns, if it is one."""
    if not source.startswith("# Parameters"):
        return []
    names = [ast.unparse(node.targets[0]) for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return [name for name in names if not name.startswith("PAPERMILL_")]  # of --inject-paths
