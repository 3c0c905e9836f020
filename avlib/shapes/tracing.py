"""`trace`, `trace_build` and `explain`: run something, and return a `Trace` of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from ..errors import ParameterError
from . import compare, flow, rendering, steering
from .deriving import Derivation
from .fake import Fake, is_script
from .recorder import DEPTH, Event, Leaf, Place, Recorder, at_line, fields_of, parts_of, raised_at, source_of
from .rows import Nest, Recording, Row, TensorInfo, total
from .running import Inputs, Model, Run, named_path, parameter_names

SOUND = re.compile(r"wav|audio|sound|speech|input_values", re.IGNORECASE)  # inputs whose last axis is time


class Trace(Recording):
    """The record of a run: rows, sizes, formulas."""

    table, to_json, to_csv, to_svg = rendering.table, rendering.to_json, rendering.to_csv, flow.svg
    diff, check, steer = compare.diff, compare.check, steering.steer
    __repr__, _repr_html_ = rendering.table, rendering.html


def trace(
    fn: Callable,
    /,
    *args: Any,
    dims: Any = None,
    fake: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    seconds: bool = False,
    stats: bool = False,
    replace: Mapping[str, Callable[[Any], Any]] | None = None,
    **model_kwargs: Any,
) -> Trace:
    """Call a module or function as given, and record all shapes.

    With named sizes, each size also gets its formula: `trace(model, wav, dims={"wav": "B T"})` finds that HuBERT gives
    `(B, (T - 400)//320 + 1, 768)`. Formulas are found in further runs, on tensors without values, which leave no mark
    on the model; each is compared with runs at other sizes, and `?` stands where nothing fits.

    Args:
        fn: any module or callable; called once with the inputs as they are, whatever `dims` says.
        dims: names of sizes, by argument: `{"wav": "B T"}`, `{0: "B T 80"}`; see `Inputs`.
        fake: run without values: next to no memory and time, at any size, but without statistics.
        kwargs: arguments by name whose names are options here.
        stats: range, mean, deviation and the first value that is not finite, of each tensor.
        replace: functions from an activation to another, by the name of the submodule that gives it:
            `{"blocks.3": torch.zeros_like}` shows, with `stats`, what follows from a block that is switched off.

    Raises:
        ParameterError: `dims` does not fit the inputs, or `replace` names no submodule.
        Exception: any exception of `fn`, with the shapes up to there as its note, and as its attribute `trace`.
    """
    both = {**model_kwargs, **(kwargs or {})}
    if not callable(fn):
        raise ParameterError("fn", f"a {type(fn).__name__}", "a module or a function", "Its inputs follow it.")
    if twice := model_kwargs.keys() & (kwargs or {}).keys():
        raise ParameterError("kwargs", f"{', '.join(sorted(twice))} given twice", "once")
    with _replaced(fn, replace or {}):
        return _traced(Model(fn, Inputs(fn, args, both, dims)), fake, stats, seconds)


@contextmanager
def _replaced(fn: Callable, changes: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Give the outputs of submodules to functions, and go on with what these return."""
    modules = dict(fn.named_modules()) if isinstance(fn, nn.Module) else {}
    for name in changes:
        if name not in modules:
            near = ", ".join(get_close_matches(name, modules, 3)) or ", ".join(list(modules)[1:4])
            raise ParameterError("replace", f"there is no submodule {name!r}", near or "a module with submodules")
    handles = [
        modules[name].register_forward_hook(lambda module, args, output, change=change: change(output))
        for name, change in changes.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace_build(
    builder: Callable[[], Callable],
    /,
    *args: Any,
    dims: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> Trace:
    """Build a model without values in its weights, and trace it.

    `trace_build(lambda: WhisperModel(config), mel, decoder_input_ids=ids)` takes a second for 1.5 billion parameters.

    Args:
        dims: names of sizes, as in `trace`; names of arguments are those of the model.

    Raises:
        ParameterError: `dims` does not fit the inputs, or this version of torch is not supported.
        Exception: any exception of building or running.
    """
    both = {**model_kwargs, **(kwargs or {})}
    model = Model(None, Inputs(builder, (), {}), builder)
    model.enter_fake()
    model.inputs = Inputs(model.fn, args, both, dims)
    return _traced(model, True, False, False)


@contextmanager
def explain(*modules: nn.Module) -> Iterator[Trace]:
    """Record what runs inside; add the shapes to an error.

        with shapes.explain(model) as trace:
            model(x)

    The error is raised as it is, in its own class. Python shows its note under the message: the operation that failed,
    the shapes of its inputs, the line of own code, and the rows up to there. The trace is its attribute `trace`.

    Args:
        modules: models that will be called; others are found when they are called.
    """
    named = {"": modules[0]} if len(modules) == 1 else {str(i): module for i, module in enumerate(modules)}
    recorder = Recorder(named)
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


def _traced(model: Model, fake: bool, stats: bool, timed: bool) -> Trace:
    found = Trace(name=model.name, dims=dict(model.inputs.sizes))
    if fake and model.is_lazy and model.builder is None:
        found.notes.append("Lazy modules get their sizes from values, so the model was run with real ones, not fake.")
        fake = False
    if fake:
        model.enter_fake().views = False  # the record says which outputs share memory
        base, model.fake.views = model.at(model.inputs.sizes, light=False), True
    else:
        base = model.as_given(stats, timed)
    if fake and base.error is not None and Fake.lacks_values(base.error) and model.builder is None:
        reason = str(base.error).partition("\n")[0][:160]
        at = at_line(base.raised_at)
        found.notes.append(f"The model looks at values{at} ({reason}), so it was run with real ones, not fake.")
        fake, base = False, model.as_given(stats, timed)
    found.fake = fake
    if fake and model.fake.env.leaked:  # with another number for what depends on data, such sizes differ
        model.fake.env.several *= 2
        base.forget(model.at(model.inputs.sizes))
    roots = [model.fn] if isinstance(model.fn, nn.Module) else list(model.modules.values())
    if base.error is not None:
        _fill(found, base, roots)
        _annotate(base.error, found)
        try:
            raise base.error
        finally:
            del base  # otherwise the error would hold its own frames
    formulas = None
    if model.inputs.sizes and not model.inputs.are_strided(named=True):
        formulas = {}
        found.notes.append("Jagged and sparse inputs cannot be resized, so sizes have no formulas.")
    elif model.inputs.sizes:
        derived = Derivation(model, base)
        found.requires, found.checked, found.unknown = tuple(derived.requires), derived.checked, derived.unknown
        found.notes += derived.notes
        formulas = derived.formulas
        found.rates = _rates(model, base.modules)
    _fill(found, base, roots, formulas)
    return found


def _rates(model: Model, modules: list[nn.Module]) -> dict[str, int]:
    """Samples per second of the named sizes of sound, if a module or its settings say so."""
    holders = [holder for module in modules for holder in (module, getattr(module, "config", None))]
    said = {getattr(holder, name, None) for holder in holders for name in ("sample_rate", "sampling_rate")}
    rates = {rate for rate in said if isinstance(rate, int) and rate > 1}
    if len(rates) != 1:
        return {}
    lasts = [
        model.inputs.axes.get(id(t), {}).get(t.dim() - 1)
        for path, t in model.inputs._tensors.items()
        if SOUND.search(path)
    ]
    return {str(last): min(rates) for last in lasts if last is not None and last.is_name}


def _annotate(error: BaseException, found: Trace) -> None:
    """Add the shapes to an error, once if traces are nested."""
    if getattr(error, "trace", None) is None:
        error.trace = found
        error.add_note(failure(found, raised_at(error.__traceback__)))


def failure(found: Recording, place: Place = None, rows: int = 12) -> str:
    """Describe a failure: operation, shapes, line, and rows before it."""
    broken = [row for row in found.rows if row.open]
    last = broken[-1] if broken else None
    lines = []
    if last is not None:
        operands = ", ".join(
            f"{'' if info.path.startswith('[') else f'{info.path} '}{info.formula} {info.dtype}" for info in last.inputs
        )
        lines.append(f"shapes: {last.name} failed with {operands or 'no tensor'}")
        if last.path:
            lines.append(f"  in module {last.path}" + (f", call {last.call}" if last.call > 1 else ""))
    if (source := source_of(place)) is not None:
        lines.append(f"  {source.file}:{source.line}: {source.code}")
    shown = [row for row in found.rows if row.outputs or row.open]
    end = shown.index(last) + 1 if last is not None else len(shown)
    if end > rows:
        lines.append(f"  ... {end - rows} rows before")
    for row in shown[max(0, end - rows) : end]:
        inputs = ", ".join(info.formula for info in row.inputs[:4])
        outputs = "not finished" if row.open else ", ".join(info.formula for info in row.outputs[:4])
        lines.append(f"  {'  ' * row.depth}{row.label}: {inputs} -> {outputs}")
    return "\n".join(lines)


def _fill(found: Trace, run: Run, roots: Any, formulas: Mapping | None = None) -> None:
    """Put the record of a run into a trace."""
    counted: set[int] = set()
    for event, key in zip(run.events, run.keys, strict=True):
        found.rows.append(_row(event, key, counted, formulas))
    for event in run.events:  # weights that an operation took from elsewhere: of a list, or of a module not called
        for parameter in event.weights if event.kind == "op" and event.parent is not None else ():
            if id(parameter) not in counted:
                found.rows[event.parent.index].parameters += _numel(parameter)
                counted.add(id(parameter))
    total(found.rows)
    whole = {id(p): p for module in roots for _, part in parts_of(module) for p in part._parameters.values()}
    uncalled = sum(_numel(p) for key, p in whole.items() if key not in counted)
    found.parameters = uncalled + sum(row.parameters for row in found.rows)
    if uncalled and run.error is None:
        found.notes.append(f"{uncalled:,} parameters belong to modules that were not called.")
    if any(isinstance(module, nn.TransformerEncoderLayer) and not module.training for module in run.modules):
        found.notes.append("nn.TransformerEncoderLayer takes its slower way while it is traced, not the fused one.")
    if any(is_script(module) for module in run.modules):
        found.notes.append("Operations inside TorchScript modules are not seen; their FLOPs are unknown.")
    if run.error is not None:
        found.error = f"{type(run.error).__name__}: {run.error}"
    if run.events and run.error is None and run.output is not None and found.root.path == "":
        found.output = _nest(run.output, iter(found.root.outputs))


def _row(event: Event, key: tuple, counted: set[int], formulas: Mapping | None) -> Row:
    parent = None if event.parent is None else event.parent.index
    row = Row(event.index, event.path, event.call, event.kind, event.name, parent, event.depth)
    row.source = source_of(event.place)
    seen = event.module is not None and not is_script(event.module)
    names = parameter_names(type(event.module).forward)[1:] if seen else ()
    if isinstance(event.function, FunctionType):  # of Python; torch's own take their arguments by position
        names = parameter_names(event.function)
    row.inputs = tuple(_info(leaf, key, 0, names, formulas) for leaf in event.inputs)
    row.outputs = tuple(_info(leaf, key, 1, (), formulas) for leaf in event.outputs)
    row.seconds, row.error, row.work, row.fresh = event.seconds, event.error, event.work, event.fresh
    for parameter in event.weights if event.module is not None else ():
        if id(parameter) in counted:
            row.shared += _numel(parameter)
        else:
            counted.add(id(parameter))
            row.parameters += _numel(parameter)
    row.flops = None if row.work is None else 0
    row.measure()
    return row


def _numel(parameter: Tensor | None) -> int:
    return 0 if parameter is None or isinstance(parameter, nn.parameter.UninitializedTensorMixin) else parameter.numel()


@cache
def _word(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _info(leaf: Leaf, key: tuple, side: int, names: tuple[str, ...], formulas: Mapping | None) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else None for size in leaf.shape)
    known = None
    if formulas is not None:
        known = tuple(formulas.get((key, side, leaf.path, axis)) for axis in range(len(shape)))
    size = None if None in shape else math.prod(shape) * leaf.dtype.itemsize
    path = named_path(leaf.path, names) if names else leaf.path
    return TensorInfo(path, shape, _word(leaf.dtype), _word(leaf.device), known, size, leaf.statistics, leaf.identity)


def _nest(value: Any, infos: Iterator[TensorInfo], depth: int = 0) -> Nest:
    """The nesting of an output, in the order of `tensors_in`."""
    if isinstance(value, Tensor):
        return next(infos, None)
    if depth > DEPTH:
        return None
    if isinstance(value, Mapping):
        return {key: _nest(item, infos, depth + 1) for key, item in value.items()}
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        items = [_nest(item, infos, depth + 1) for item in value]
        if names:
            return dict(zip(names, items, strict=True))
        return items if isinstance(value, list) else tuple(items)
    return {name: _nest(getattr(value, name, None), infos, depth + 1) for name in fields_of(value)} or None
