"""`trace`, `trace_build` and `explain`: run something, and hand back what was seen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from ..errors import ParameterError
from . import frames, internals
from .deriving import Derivation
from .inputs import Inputs, named_path, parameter_names
from .recorder import DEPTH, Event, Leaf
from .rows import Nest, Row, TensorInfo, Trace, total
from .running import Model, Run
from .values import Look


def trace(
    fn: Callable,
    /,
    *args: Any,
    dims: Any = None,
    fake: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    seconds: bool = False,
    stats: bool = False,
    pictures: bool = False,
    **model_kwargs: Any,
) -> Trace:
    """Call a module or function as given, and record every module and every operation with all shapes.

    With named sizes, each size also gets its formula: `trace(model, wav, dims={"wav": "B T"})` finds that HuBERT gives
    `(B, (T - 400)//320 + 1, 768)`. Formulas are found in further runs, on tensors without values, which leave no mark
    on the model; each is compared with runs at other sizes, and `?` stands where nothing fits.

    Args:
        fn: any module or callable; called once with the inputs as they are (none of `dims` changes that).
        args: its positional arguments, nested as they may be.
        dims: names of sizes, by argument: `{"wav": "B T"}`, `{0: "B T 80"}`; see `Inputs`.
        fake: run without values: next to no memory and time, at any size. Statistics and pictures are not possible.
        kwargs: arguments by name whose names are options here.
        seconds: measure each row.
        stats: range, mean, deviation and the first value that is not finite, of each tensor.
        pictures: a small picture of each tensor that came out.
        model_kwargs: further arguments of `fn`.

    Raises:
        ParameterError: `dims` does not fit the inputs.
        Exception: what `fn` raises, with the shapes up to there as its note, and as its attribute `trace`.
    """
    both = {**model_kwargs, **(kwargs or {})}
    if twice := model_kwargs.keys() & (kwargs or {}).keys():
        raise ParameterError("kwargs", f"{', '.join(sorted(twice))} given twice", "once")
    model = Model(fn, Inputs(fn, args, both, dims))
    return _traced(model, fake, Look(stats, pictures) if stats or pictures else None, seconds)


def trace_build(
    builder: Callable[[], Callable],
    /,
    *args: Any,
    dims: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> Trace:
    """Build a model whose weights have no values, and trace it: no memory at any size.

    `trace_build(lambda: WhisperModel(config), mel, decoder_input_ids=ids)` takes a second for 1.5 billion parameters.

    Args:
        builder: makes the module or callable.
        args: its positional arguments.
        dims: names of sizes, as in `trace`; names of arguments are those of the model.
        kwargs: arguments by name whose names are options here.
        model_kwargs: further arguments.

    Raises:
        ParameterError: `dims` does not fit the inputs, or this torch cannot do it.
        Exception: what building or running raises.
    """
    both = {**model_kwargs, **(kwargs or {})}
    model = Model(None, Inputs(builder, (), {}), builder)
    model.enter_fake()
    model.inputs = Inputs(model.fn, args, both, dims)
    return _traced(model, True, None, False)


@contextmanager
def explain(*modules: nn.Module, seconds: bool = False, stats: bool = False, pictures: bool = False) -> Iterator[Trace]:
    """Record what is done inside; on an error, say what went where.

        with shapes.explain(model) as trace:
            model(x)

    An error is raised on as it is, in its own class, so that code which expects it goes on as before. It gets a note,
    which Python shows under the message: the operation that failed, the shapes of all it was given, the line of one's
    own file, and the rows up to there. The trace is its attribute `trace`.

    Args:
        modules: models that will be called; others are found when they are.
        seconds: as in `trace`.
        stats: likewise.
        pictures: likewise.
    """
    from .recorder import Recorder

    look = Look(stats, pictures) if stats or pictures else None
    named = {"": modules[0]} if len(modules) == 1 else {str(i): module for i, module in enumerate(modules)}
    recorder = Recorder(named, look, seconds)
    found = Trace(name=type(modules[0]).__name__ if len(modules) == 1 else "")
    run = Run(recorder.events, recorder.held)
    try:
        with recorder.running():
            yield found
    except BaseException as error:
        run.error = error
        raise
    finally:
        _fill(found, run, modules)
        if isinstance(run.error, Exception):
            _annotate(run.error, found)
        run.error = None


def _traced(model: Model, fake: bool, look: Look | None, timed: bool) -> Trace:
    found = Trace(name=model.name, dims=dict(model.inputs.sizes))
    if fake and model.is_lazy and model.builder is None:
        found.notes.append("Lazy modules get their sizes from values, so the model was run with real ones, not fake.")
        fake = False
    if fake:
        base = model.at(model.inputs.sizes)
        if base.error is not None and internals.Fake.lacks_values(base.error) and model.builder is None:
            told = str(base.error).partition("\n")[0][:160]
            at = frames.told(base.raised_at)
            found.notes.append(f"The model looks at values{at} ({told}), so it was run with real ones, not fake.")
            fake, base = False, model.as_given(look, timed)
    else:
        base = model.as_given(look, timed)
    found.fake = fake
    roots = [model.fn] if isinstance(model.fn, nn.Module) else list(model.modules.values())
    if base.error is not None:
        _fill(found, base, roots)
        _annotate(base.error, found)
        try:
            raise base.error
        finally:
            del base  # else the error would hold its own frames
    formulas = {}
    if model.inputs.sizes:
        derived = Derivation(model, base)
        found.requires, found.checked, found.unknown = tuple(derived.requires), derived.checked, derived.unknown
        found.notes += derived.notes
        formulas = derived.formulas
    _fill(found, base, roots, formulas if model.inputs.sizes else None)
    return found


def _annotate(error: BaseException, found: Trace) -> None:
    """Tell with an error what the shapes were; once, where traces are inside each other."""
    if getattr(error, "trace", None) is None:
        error.trace = found
        error.add_note(failure(found, frames.raised_at(error.__traceback__)))


def failure(found: Trace, place: tuple[str, int] | None = None, rows: int = 12) -> str:
    """What failed, with which shapes, where, and the rows up to there.

    Args:
        found: a trace that an error ended.
        place: file and line of the own code that raised.
        rows: how many rows before the failure to show.
    """
    broken = [row for row in found.rows if row.open]
    last = broken[-1] if broken else None
    lines = []
    if last is not None:
        lines.append(f"shapes: {last.name} failed with {', '.join(map(_operand, last.inputs)) or 'no tensor'}")
        if last.path:
            lines.append(f"  in module {last.path}" + (f", call {last.call}" if last.call > 1 else ""))
    if (source := frames.source(place)) is not None:
        lines.append(f"  {source}: {source.code}")
    shown = [row for row in found.rows if row.outputs or row.open]
    end = shown.index(last) + 1 if last is not None else len(shown)
    if end > rows:
        lines.append(f"  ... {end - rows} rows before")
    for row in shown[max(0, end - rows) : end]:
        went = ", ".join(info.formula for info in row.inputs[:4])
        came = "not finished" if row.open else ", ".join(info.formula for info in row.outputs[:4])
        lines.append(f"  {'  ' * row.depth}{row.label}: {went} -> {came}")
    return "\n".join(lines)


def _operand(info: TensorInfo) -> str:
    name = "" if info.path.startswith("[") else f"{info.path} "
    return f"{name}{info.formula} {info.dtype}"


# from events to rows


def _fill(found: Trace, run: Run, roots: Any, formulas: Mapping | None = None) -> None:
    """Put what was recorded into a trace."""
    counted: set[int] = set()
    keys = run.keys
    for event, key in zip(run.events, keys, strict=True):
        found.rows.append(_row(event, key, counted, formulas))
    total(found.rows)
    whole = {id(p): p for module in roots for p in module.parameters()}
    found.parameters = sum(_numel(p) for p in whole.values())
    uncalled = sum(_numel(p) for key, p in whole.items() if key not in counted)
    if uncalled and run.error is None:
        found.notes.append(f"{uncalled:,} parameters belong to modules that were not called.")
    if any(isinstance(module, nn.TransformerEncoderLayer) and not module.training for module in run.modules):
        found.notes.append("nn.TransformerEncoderLayer takes its slower way while it is traced, not the fused one.")
    if any(internals.is_script(module) for module in run.modules):
        found.notes.append("What TorchScript modules do inside is not seen; their FLOPs are unknown.")
    if run.error is not None:
        found.error = f"{type(run.error).__name__}: {run.error}"
    if run.events and run.error is None and run.output is not None and found.root.path == "":
        infos = iter(found.root.outputs)
        found.output = _nest(run.output, infos)


def _row(event: Event, key: tuple, counted: set[int], formulas: Mapping | None) -> Row:
    parent = None if event.parent is None else event.parent.index
    row = Row(event.index, event.path, event.call, event.kind, event.name, parent, event.depth)
    row.source = frames.source(event.place)
    seen = event.module is not None and not internals.is_script(event.module)
    names = parameter_names(type(event.module).forward)[1:] if seen else ()
    if isinstance(event.function, FunctionType):  # of Python; torch's own take their arguments by position
        names = parameter_names(event.function)
    row.inputs = tuple(_info(leaf, key, 0, names, formulas) for leaf in event.inputs)
    row.outputs = tuple(_info(leaf, key, 1, (), formulas) for leaf in event.outputs)
    row.seconds, row.error, row.work, row.fresh = event.seconds, event.error, event.work, event.fresh
    if event.module is not None:
        for parameter in event.module.parameters(recurse=False):
            if id(parameter) in counted:
                row.shared += _numel(parameter)
            else:
                counted.add(id(parameter))
                row.parameters += _numel(parameter)
    shapes = [info.shape for info in row.inputs], [info.shape for info in row.outputs]
    if event.error is not None:
        row.flops, row.bytes = 0, 0
        return row
    unknown = event.work is None or any(None in shape for side in shapes for shape in side)
    row.flops = None if unknown else event.work(*shapes)
    row.flops_at_least = row.flops or 0
    if event.kind == "op":
        sums = [info.bytes for info in row.outputs] if event.fresh else []
        row.bytes = None if None in sums else sum(sums)
    return row


def _numel(parameter: Tensor) -> int:
    return 0 if isinstance(parameter, nn.parameter.UninitializedTensorMixin) else parameter.numel()


_words: dict[Any, str] = {}


def _word(value: Any) -> str:
    word = _words.get(value)
    if word is None:
        word = _words[value] = str(value).removeprefix("torch.")
    return word


def _info(leaf: Leaf, key: tuple, side: int, names: tuple[str, ...], formulas: Mapping | None) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else None for size in leaf.shape)
    known = None
    if formulas is not None:
        known = tuple(formulas.get((key, side, leaf.path, axis)) for axis in range(len(shape)))
    size = None if None in shape else math.prod(shape) * leaf.dtype.itemsize
    path = named_path(leaf.path, names) if names else leaf.path
    look = leaf.look
    return TensorInfo(
        path,
        shape,
        _word(leaf.dtype),
        _word(leaf.device),
        known,
        size,
        look.statistics if look else None,
        look.picture if look else None,
        leaf.identity,
    )


def _nest(value: Any, infos: Iterator[TensorInfo], depth: int = 0) -> Nest:
    """The nesting of an output, in the order in which `tensors_in` walks it."""
    if isinstance(value, Tensor):
        return next(infos, None)
    if value is None or isinstance(value, str | int | float) or depth > DEPTH:
        return None
    if isinstance(value, Mapping):
        return {key: _nest(item, infos, depth + 1) for key, item in value.items()}
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        items = [_nest(item, infos, depth + 1) for item in value]
        return (
            dict(zip(names, items, strict=True)) if names else list(items) if isinstance(value, list) else tuple(items)
        )
    if not isinstance(value, nn.Module | type) and not callable(value):
        fields = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else ()
        names = fields or [name for name in getattr(value, "__dict__", ()) if not name.startswith("__")]
        return {name: _nest(getattr(value, name, None), infos, depth + 1) for name in names} or None
    return None
