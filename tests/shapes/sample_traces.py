"""Traces to show and to compare: made by hand, of every awkward kind, and of small networks."""

import math

import torch
from torch import nn

from avlib import shapes
from avlib.shapes.formula import sizes
from avlib.shapes.rows import Requirement, Row, Source, Statistics, TensorInfo, total
from avlib.shapes.tracing import Trace

STRANGE = """enc<script>alert("x")</script>'&|`한국"""


def info(path: str, shape: str, dtype: str = "float32", **named: int) -> TensorInfo:
    """A tensor whose shape is written as formulas; `_` is not known."""
    formulas = sizes(shape)
    numbers = tuple(None if f is None else f.evaluate(**named) for f in formulas)
    size = None if None in numbers else 4 * math.prod(numbers)
    return TensorInfo(path, numbers, dtype, "cpu", formulas, size)


def plain(path: str, *shape: int | None, dtype: str = "float32", **more) -> TensorInfo:
    """A tensor of a trace without named sizes."""
    size = None if None in shape else 4 * math.prod(shape)
    return TensorInfo(path, shape, dtype, "cpu", None, size, **more)


def encoder(layers: int = 12, extra: str = "") -> Trace:
    """A front end, and layers that are alike; with `extra`, one more operation in the second."""
    named = {"B": 2, "T": 160000}
    wav, frames = info("wav", "B T", **named), info("", "B (T-400)//320+1 768", **named)
    rows = [Row(0, "", 1, "module", "Net", None, 0, None, (wav,), (frames,))]

    def add(path, kind, name, parent, line, inputs, outputs, parameters=0, flops=0):
        source = Source("/models/net.py", line, f"y = {name}(x)")
        depth = rows[parent].depth + 1
        row = Row(len(rows), path, 1, kind, name, parent, depth, source, inputs, outputs, parameters)
        row.flops, row.flops_at_least, row.bytes = flops, flops or 0, outputs[0].bytes if kind == "op" else 0
        rows.append(row)
        return row.index

    front = add("front", "module", "Conv1d", 0, 10, (wav,), (frames,), 1000)
    add("front", "op", "conv1d", front, 11, (wav,), (frames,), flops=5000)
    for i in range(layers):
        layer = add(f"layers.{i}", "module", "Layer", 0, 20, (frames,), (frames,), 500)
        add(f"layers.{i}", "op", "linear", layer, 30, (frames,), (frames,), flops=100)
        if extra and i == 1:
            add(f"layers.{i}", "op", extra, layer, 31, (frames,), (frames,))
        add(f"layers.{i}", "op", "gelu", layer, 32, (frames,), (frames,), flops=None)
    total(rows)
    need = Requirement("T >= 400", "/models/net.py", 11, "RuntimeError: too short")
    checked = {"B": (2, 3), "T": (160000, 228572)}
    return Trace(rows, "Net", named, (need,), ["a note"], checked, output=frames, parameters=1000 + 500 * layers)


def flat(count: int) -> Trace:
    """One call with many operations, all of them different."""
    rows = [Row(0, "", 1, "module", "loop", None, 0)]
    rows += [Row(i, "", 1, "op", f"op{i}", 0, 1, outputs=(plain("", i, 3),), bytes=12 * i) for i in range(1, count)]
    return Trace(rows, "loop")


def broken() -> Trace:
    """A linear layer that does not fit, as `explain` leaves it."""
    found = None
    model = nn.Sequential(nn.Linear(8, 24), nn.Sequential(nn.ReLU(), nn.Linear(12, 4)))
    try:
        with shapes.explain(model) as found:
            model(torch.ones(2, 5, 8))
    except RuntimeError:
        pass
    return found


def awkward() -> dict[str, Trace]:
    """Traces with everything that is rare."""
    nan = Statistics(None, None, None, None, nan=6, first_bad=(0, 0))
    fine = Statistics(-1.5, 2.0, 0.25, 1.0)
    values = Trace(
        [
            Row(0, "", 1, "module", "Net", None, 0, outputs=(plain("", 2, 3, statistics=nan),), seconds=0.5),
            Row(
                1,
                "",
                1,
                "op",
                "log",
                0,
                1,
                Source("a.py", 3),
                outputs=(plain("", 2, 3, statistics=nan),),
            ),
            Row(2, "", 1, "op", "exp", 0, 1, outputs=(plain("", 2, 5, statistics=fine),), seconds=2e-5),
        ],
        "Net",
    )
    strange = Trace(
        [
            Row(0, "", 1, "module", STRANGE, None, 0, None, (plain(STRANGE, 2),), (plain(STRANGE, 2),)),
            Row(1, STRANGE, 1, "module", STRANGE, 0, 1, Source(f"/{STRANGE}.py", 1, STRANGE), (), (), error=STRANGE),
        ],
        STRANGE,
        {"B": 2},
        (Requirement("B == 2", STRANGE, 1, STRANGE),),
        [STRANGE],
        unknown={"u0": STRANGE},
        error=STRANGE,
    )
    mixed = Trace(
        [
            Row(0, "", 1, "module", "Net", None, 0),
            Row(
                1,
                "a",
                1,
                "module",
                "A",
                0,
                1,
                outputs=(plain("", dtype="int64"), plain("[1]", 0, 3, dtype="complex64")),
            ),
            Row(2, "a", 2, "module", "A", 0, 1, outputs=(info("", "B _ T", B=1, T=2),), flops=None, bytes=None),
            Row(3, "a", 2, "op", "where", 2, 2, outputs=(plain("", None, dtype="qint8"),), flops=None, bytes=None),
        ],
        "Net",
    )
    return {
        "no rows": Trace(name="nothing"),
        "no name": Trace(),
        "values": values,
        "strange": strange,
        "mixed": mixed,
        "broken": broken(),
        "open": Trace([Row(0, "", 1, "module", "Net", None, 0, error="ValueError: no")], "Net", error="ValueError: no"),
        "two roots": Trace([Row(0, "a", 1, "module", "A", None, 0), Row(1, "b", 1, "module", "B", None, 0)]),
    }


class Joined(nn.Module):
    """Sound and pictures, each through its own part, then both together."""

    def __init__(self):
        super().__init__()
        self.audio_encoder = nn.Conv1d(1, 8, 400, 160)
        self.image_encoder = nn.Conv2d(3, 8, 16, 16)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, waveform, image):
        a = self.audio_encoder(waveform[:, None]).transpose(1, 2)
        v = self.image_encoder(image).flatten(2).transpose(1, 2)
        x = torch.cat([a, v], 1)
        for layer in self.layers:
            x = layer(x)
        return {"tokens": x, "scores": self.head(x.mean(1))}


def joined(**dims) -> Trace:
    torch.manual_seed(0)
    return shapes.trace(Joined().eval(), torch.zeros(2, 16000), torch.zeros(2, 3, 64, 64), **dims)
