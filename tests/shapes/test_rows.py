"""What a trace holds, and what can be asked of it; here rows are made by hand."""

from functools import partial

import pytest

from avlib.errors import ParameterError
from avlib.shapes.formula import Formula, sizes
from avlib.shapes.rows import Requirement, Row, Source, Statistics, TensorInfo, total
from avlib.shapes.tracing import Trace


def info(path: str, shape: str, **named: int) -> TensorInfo:
    formulas = sizes(shape)
    numbers = tuple(None if f is None else f.evaluate(**named) for f in formulas)
    count = 4
    for number in numbers:
        count *= number or 0
    return TensorInfo(path, numbers, "float32", "cpu", formulas, count)


def products(inputs, outputs, factor):
    return factor * inputs[0][0] * inputs[0][1]


@pytest.fixture
def trace() -> Trace:
    """A network whose encoder is called twice."""
    named = {"B": 2, "T": 1000}
    wav = info("wav", "B T", **named)
    frames = info("", "B (T-400)//160+1 8", **named)
    rows = [
        Row(0, "", 1, "module", "Net", None, 0, None, (wav,), (info("tokens", "B (T-400)//160+1 8", **named),)),
        Row(1, "encoder", 1, "module", "Conv", 0, 1, Source("net.py", 3, "y = self.encoder(x)"), (wav,), (frames,)),
        Row(2, "encoder", 1, "op", "conv1d", 1, 2, inputs=(wav,), outputs=(frames,), work=partial(products, factor=3)),
        Row(3, "encoder", 2, "module", "Conv", 0, 1, inputs=(wav,), outputs=(frames,)),
        Row(4, "encoder", 2, "op", "gather", 3, 2, inputs=(wav,), outputs=(info("", "B _", **named),), fresh=False),
    ]
    rows[2].flops, rows[2].flops_at_least, rows[2].bytes = 6000, 6000, frames.bytes
    total(rows)
    output = {"tokens": rows[0].outputs[0], "parts": (frames, None)}
    return Trace(rows, "Net", named, (Requirement("T >= 400", "net.py", 3),), output=output)


def test_rows_are_found_by_path_call_and_index(trace):
    assert trace["encoder"] is trace.rows[1] and trace["encoder", 2] is trace.rows[3] and trace[4].name == "gather"
    assert [row.name for row in trace.ops("conv|gather")] == ["conv1d", "gather"]
    assert [row.label for row in trace] == ["Net", "encoder", "conv1d", "encoder #2", "gather"]
    assert [row.index for row in trace.children(trace[""])] == [1, 3]
    assert [row.index for row in trace.within(trace[""])] == [1, 2, 3, 4]
    with pytest.raises(ParameterError, match=r"no call 1 of a module 'net.encoder'.*Near: encoder"):
        trace["net.encoder"]


def test_sums_and_formulas(trace):
    assert trace.flops == 6000 and trace[3].flops == 0 and trace[0].bytes == trace[1].bytes == 2 * 4 * 8 * 4
    assert trace.formulas() == {
        ".tokens": "(B, (T - 400)//160 + 1, 8)",
        "encoder": "(B, (T - 400)//160 + 1, 8)",
        "encoder #2": "(B, (T - 400)//160 + 1, 8)",
    }
    assert trace[4].outputs[0].formula == "(B, ?)"


def test_at_another_size(trace):
    other = trace.at(T=16000)
    assert other.output_shape == {"tokens": (2, 98, 8), "parts": ((2, 98, 8), None)}
    assert trace.output_shape["tokens"] == (2, 4, 8)
    assert other["encoder"].outputs[0].bytes == other["encoder"].bytes == 2 * 98 * 8 * 4
    assert other.flops == 3 * 2 * 16000 and trace.flops == 6000
    assert other[4].outputs[0].shape == (2, None) and other[4].outputs[0].bytes is None
    with pytest.raises(ParameterError, match="T = 300; expected T >= 400"):
        trace.at(T=300)
    with pytest.raises(ParameterError, match="X: not a named size of this trace; expected one of B, T"):
        trace.at(X=3)
    with pytest.raises(ParameterError, match="a whole number"):
        trace.at(T=0)


def test_the_first_value_that_is_not_finite(trace):
    assert trace.first_bad is None
    bad = Statistics(0.0, 1.0, 0.5, 0.1, nan=1, first_bad=(0, 3))
    for index in (1, 2, 3):
        row = trace.rows[index]
        row.outputs = (TensorInfo("", (2, 4), "float32", "cpu", statistics=bad),)
    assert trace.first_bad is trace[2]
    assert Formula(3) == 3
