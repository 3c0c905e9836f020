"""A trace as JSON, CSV, Markdown and a pandas table; and back from JSON.

JSON has these keys. Of a trace: `format` ("avlib.shapes 1"), `name`, `dims`, `requires` (each with `formula`, `file`,
`line`, `reason`), `notes`, `checked`, `unknown`, `output`, `fake`, `parameters`, `error`, `rows`. Of a row: all that
`Row` says, in the same words, with `source` as `file`, `line` and `code`. Of a tensor: `path`, `shape` (null where a
size is not known), `dtype`, `device`, `formulas` (text, null where none is verified; null as a whole without named
sizes), `bytes`, `statistics`, `picture` (`values` in base64, one text for each row of the picture), `identity`. What
is nested in `output` is `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": [[key, value], ...]}`, `{"tensor": {...}}`
or null.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CacheError, ParameterError
from . import wording
from .formula import Formula
from .outline import fitting
from .rows import Nest, Picture, Requirement, Row, Source, Statistics, TensorInfo, Trace
from .table import parameters

if TYPE_CHECKING:
    import pandas

FORMAT = "avlib.shapes 1"


def to_json(trace: Trace, path: str | Path | None = None) -> str:
    """A trace as JSON, without loss but for how FLOPs follow from other sizes; `from_json` reads it.

    Args:
        trace: what is written.
        path: a file to write it to as well.

    Raises:
        CacheError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "name": trace.name,
        "dims": trace.dims,
        "requires": [need._asdict() for need in trace.requires],
        "notes": trace.notes,
        "checked": {name: list(sizes) for name, sizes in trace.checked.items()},
        "unknown": trace.unknown,
        "output": _nest(trace.output),
        "fake": trace.fake,
        "parameters": trace.parameters,
        "error": trace.error,
        "rows": [_row(row) for row in trace.rows],
    }
    return _written(json.dumps(content, ensure_ascii=False, allow_nan=False), path)


def from_json(text: str) -> Trace:
    """The trace that `to_json` wrote. FLOPs at other sizes are unknown.

    Raises:
        ParameterError: the text is no such JSON.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ParameterError("text", f"the format {content['format']!r}", repr(FORMAT))
        return Trace(
            rows=[_read_row(row) for row in content["rows"]],
            name=content["name"],
            dims=content["dims"],
            requires=tuple(Requirement(**need) for need in content["requires"]),
            notes=content["notes"],
            checked={name: tuple(sizes) for name, sizes in content["checked"].items()},
            unknown=content["unknown"],
            output=_read_nest(content["output"]),
            fake=content["fake"],
            parameters=content["parameters"],
            error=content["error"],
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError("text", f"{type(error).__name__}: {error}", "what to_json wrote") from None


def to_csv(trace: Trace, path: str | Path | None = None) -> str:
    """A trace as CSV, a line for each row; several tensors are parted by semicolons, what is unknown is empty.

    Args:
        trace: what is written.
        path: a file to write it to as well.

    Raises:
        CacheError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_record(Row(0, "", 1, "op", "", None, 0))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_record, trace.rows))
    return _written(text.getvalue(), path)


def to_markdown(trace: Trace, path: str | Path | None = None, depth: int | None = None) -> str:
    """A trace as a Markdown table of its modules; of operations where there are no modules.

    Args:
        trace: what is written.
        path: a file to write it to as well.
        depth: how deep; the first row has depth 0. None for everything.

    Raises:
        CacheError: the file cannot be written.
    """
    ops = not any(row.kind == "module" for row in trace.rows[1:])
    nodes, _ = fitting(trace, len(trace.rows), depth, ops)
    named = any(info.formulas is not None for row in trace.rows for info in row.outputs)
    titles = ["module", "class", "output", *(["formula"] if named else []), "parameters", "FLOPs", "source"]
    lines = [f"**{_plain(trace.name or 'trace')}**: {wording.headline(trace)}", ""]
    lines += [f"- {_plain(title)} `{fact}`" for title, fact in wording.facts(trace)]
    lines += [f"- ✗ {_plain(sentence)}" for sentence in wording.troubles(trace)]
    lines += [""] * (lines[-1] != "")
    lines += ["| " + " | ".join(titles) + " |", "|" + "|".join(" --- " for _ in titles) + "|"]
    for node in (inner for root in nodes for inner in root.walk()):
        row = node.row
        outputs = wording.together(row.outputs)
        named_too = len(outputs) > 1
        sizes = [
            f"{name} {wording.shape(i.shape)}".strip() if named_too else wording.shape(i.shape) for name, i in outputs
        ]
        cells = [
            "&nbsp;&nbsp;" * row.depth + _code(node.label),
            _plain(row.name) if row.kind == "module" else "",
            "<br>".join(map(_plain, sizes)) or ("failed" if row.open else "no tensor"),
            *(["<br>".join(_code(info.formula) for _, info in outputs)] if named else []),
            parameters(node),
            wording.flops(row),
            _plain(wording.place(row.source)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return _written("\n".join(lines) + "\n", path)


def to_pandas(trace: Trace) -> pandas.DataFrame:
    """A trace as a pandas table, with the columns of `to_csv`; what is unknown is None.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise ModuleNotFoundError("to_pandas needs pandas: pip install pandas. to_csv() needs nothing.") from None
    return pandas.DataFrame.from_records([_record(row) for row in trace.rows], index="index")


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        try:
            Path(path).write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise CacheError(path, error.strerror or str(error), "a file that can be written") from error
    return text


# a line for each row


def _record(row: Row) -> dict[str, Any]:
    def of(infos: tuple[TensorInfo, ...], text: str) -> str:
        return "; ".join(str(getattr(info, text)) for info in infos)

    def shapes(infos: tuple[TensorInfo, ...]) -> str:
        return "; ".join(f"{info.path} {wording.shape(info.shape)}".strip() for info in infos)

    return {
        "index": row.index,
        "path": row.path,
        "call": row.call,
        "kind": row.kind,
        "name": row.name,
        "parent": row.parent,
        "depth": row.depth,
        "inputs": shapes(row.inputs),
        "outputs": shapes(row.outputs),
        "formulas": of(row.outputs, "formula"),
        "dtypes": of(row.outputs, "dtype"),
        "devices": of(row.outputs, "device"),
        "parameters": row.parameters,
        "shared": row.shared,
        "flops": row.flops,
        "flops_at_least": row.flops_at_least,
        "bytes": row.bytes,
        "seconds": row.seconds,
        "file": row.source.file if row.source else None,
        "line": row.source.line if row.source else None,
        "error": row.error,
    }


# to JSON and back


def _row(row: Row) -> dict[str, Any]:
    found = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "work"}
    found["source"] = row.source._asdict() if row.source else None
    found["inputs"], found["outputs"] = ([_tensor(info) for info in infos] for infos in (row.inputs, row.outputs))
    return found


def _read_row(content: dict[str, Any]) -> Row:
    sides = {side: tuple(map(_read_tensor, content[side])) for side in ("inputs", "outputs")}
    source = Source(**content["source"]) if content["source"] else None
    return Row(**content | sides | {"source": source, "work": None if content["flops"] == 0 else _unknown})


def _unknown(inputs: Any, outputs: Any) -> None:
    """How FLOPs follow from shapes is not written."""


def _tensor(info: TensorInfo) -> dict[str, Any]:
    found = {f.name: getattr(info, f.name) for f in dataclasses.fields(info)}
    found["shape"] = list(info.shape)
    if info.formulas is not None:
        found["formulas"] = [None if formula is None else str(formula) for formula in info.formulas]
    if info.statistics is not None:
        values = dataclasses.asdict(info.statistics)
        found["statistics"] = values | {name: _finite(values[name]) for name in ("min", "max", "mean", "std")}
    if info.picture is not None:
        found["picture"] = {
            "kind": info.picture.kind,
            "values": [base64.b64encode(row).decode() for row in info.picture.values],
            "low": _finite(info.picture.low),
            "high": _finite(info.picture.high),
        }
    return found


def _finite(value: float | int | None) -> float | int | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _read_tensor(content: dict[str, Any]) -> TensorInfo:
    statistics, picture = content["statistics"], content["picture"]
    if statistics is not None:
        first = statistics["first_bad"]
        statistics = Statistics(**statistics | {"first_bad": None if first is None else tuple(first)})
    if picture is not None:
        low, high = (math.nan if picture[name] is None else picture[name] for name in ("low", "high"))
        picture = Picture(picture["kind"], tuple(map(base64.b64decode, picture["values"])), low, high)
    formulas = content["formulas"]
    if formulas is not None:
        formulas = tuple(None if text is None else Formula(text) for text in formulas)
    return TensorInfo(
        **content
        | {"shape": tuple(content["shape"]), "formulas": formulas, "statistics": statistics, "picture": picture}
    )


def _nest(nest: Nest) -> Any:
    if isinstance(nest, TensorInfo):
        return {"tensor": _tensor(nest)}
    if isinstance(nest, dict):
        plain = str | int | float | None
        return {"dict": [[key if isinstance(key, plain) else repr(key), _nest(value)] for key, value in nest.items()]}
    if isinstance(nest, tuple | list):
        return {"tuple" if isinstance(nest, tuple) else "list": [_nest(value) for value in nest]}
    return None


def _read_nest(content: Any) -> Nest:
    if content is None:
        return None
    ((kind, value),) = content.items()
    if kind == "tensor":
        return _read_tensor(value)
    if kind == "dict":
        return {key: _read_nest(inner) for key, inner in value}
    return (tuple if kind == "tuple" else list)(map(_read_nest, value))


# Markdown


def _plain(text: str) -> str:
    """Text in which no sign means anything to Markdown or HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{sign}" if sign in "\\`*_[]|" else sign for sign in text)


def _code(text: str) -> str:
    """Code in a cell of a table, in which a bar has to be escaped and a backtick has to be fenced."""
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
