"""Traces against one another, against what is expected, and lengths against lengths."""

import pytest
import torch
from sample_traces import STRANGE, awkward, encoder, flat, info, joined, plain
from torch import nn

from avlib import shapes
from avlib.errors import ParameterError, ShapeError
from avlib.shapes.compare import check, diff
from avlib.shapes.coupling import couple
from avlib.shapes.formula import Formula
from avlib.shapes.rows import Row, Statistics
from avlib.shapes.tracing import Trace

# diff


@pytest.mark.parametrize("kind", list(awkward()))
def test_nothing_is_different_from_itself(kind):
    trace = awkward()[kind]
    found = diff(trace, trace)
    assert found.same and found.first is None and found.rows == len(trace.rows) and "no difference" in str(found)
    assert "<script" not in found._repr_html_()


def test_another_length_is_told_by_the_formulas():
    a = encoder()
    b = a.at(T=80000)
    found = a.diff(b)
    assert found.dims == {"T": (160000, 80000)} and not found.same
    assert len(found.of("size")) == len(found.changes) == found.rows == 39 and not found.of("shape")
    assert found.first.row.name == "conv1d"  # the first whose outcome is another
    assert "size (2, 499, 768) → (2, 249, 768)" in str(found) and "T 160000 → 80000" in str(found)
    assert "(2, 249, 768)" in found._repr_html_()


def test_rows_that_only_one_has():
    a, b = encoder(), encoder(extra="add")
    found = diff(a, b)
    assert [row.name for row in found.added] == ["add"] and not found.missing and found.rows == len(a.rows)
    assert str(found.first) == "add in layers.1: added (2, 499, 768)"
    back = diff(b, a)
    assert [row.name for row in back.missing] == ["add"] and not back.added
    longer = diff(encoder(2), encoder(4))
    assert [row.path for row in longer.added] == ["layers.2", "layers.3"] and longer.changes[-1].inside == 2
    assert "(with 2 rows inside)" in str(longer.changes[-1])


def test_a_module_that_is_called_elsewhere_is_the_same():
    rows = [
        Row(0, "", 1, "module", "Net", None, 0),
        Row(1, "a", 1, "module", "A", 0, 1),
        Row(2, "b", 1, "module", "B", 0, 1),
    ]
    inside = [rows[0], rows[1], Row(2, "b", 1, "module", "B", 1, 2)]
    assert diff(Trace(rows), Trace(inside)).same
    other = [rows[0], Row(1, "b", 1, "module", "B", 0, 1), Row(2, "a", 1, "module", "A", 0, 1)]
    assert diff(Trace(rows), Trace(other)).same


def test_each_kind_of_difference():
    fine, bad = Statistics(0.0, 1.0, 0.5, 0.1), Statistics(0.0, 1.0, 0.5, 0.1, nan=1, first_bad=(0, 1))

    def trace(name="A", error=None, parameters=0, tensor=None):
        return Trace([Row(0, "", 1, "module", name, None, 0, None, (), tensor or (), parameters, error=error)])

    pairs = {
        "class": (trace("A"), trace("B")),
        "parameters": (trace(), trace(parameters=3)),
        "error": (trace(), trace(error="ValueError")),
        "outputs": (trace(tensor=(plain("", 2),)), trace(tensor=(plain("", 2), plain("[1]", 2)))),
        "shape": (trace(tensor=(plain("", 2),)), trace(tensor=(plain("", 3),))),
        "dtype": (trace(tensor=(plain("", 2),)), trace(tensor=(plain("", 2, dtype="bfloat16"),))),
        "formula": (trace(tensor=(info("", "T//2", T=4),)), trace(tensor=(info("", "T//2*1 + 0*T", T=4),))),
        "values": (trace(tensor=(plain("", 2, statistics=fine),)), trace(tensor=(plain("", 2, statistics=bad),))),
    }
    for kind, (a, b) in pairs.items():
        found = diff(a, b)
        assert found.same if kind == "formula" else [d.what for d in found.changes[0].differences] == [kind], kind
    different = diff(trace(tensor=(info("", "T//2", T=4),)), trace(tensor=(info("", "T - 2", T=4),)))
    assert [d.what for d in different.changes[0].differences] == ["formula"]  # the same here, and not elsewhere
    found = diff(*pairs["values"])
    assert found.first_bad[0] is None and found.first_bad[1].name == "A" and "not finite in the second" in str(found)


def test_with_and_without_a_mask():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x, mask=None):
            x = self.inner(x)
            return x if mask is None else (x * mask).sum(1)

    found = diff(
        shapes.trace(Net(), torch.ones(1, 3, 4)), shapes.trace(Net(), torch.ones(1, 3, 4), torch.ones(1, 3, 1))
    )
    assert [row.name for row in found.added] == ["mul", "sum"] and "mul" in str(found.first)
    assert [d.what for d in found.changes[0].differences] == ["shape"]


def test_ten_thousand_rows_are_compared():
    found = diff(flat(10_000), flat(9_000))
    assert len(found.missing) == 1000 and "… and 960 more" in str(found)


# check


@pytest.fixture(scope="module")
def streams() -> Trace:
    return joined(dims={"waveform": "B T", "image": "B 3 H W"})


GOOD = [
    {"audio_encoder": "B 8 (T-400)//160+1"},
    {"audio_encoder": "B, 8, (T - 240)//160"},  # the same at every length
    {"audio_encoder": "(2, 8, 98)"},
    {"audio_encoder": (2, 8, 98), "image_encoder": [2, 8, 4, 4]},
    {"audio_encoder": ("B", 8, Formula("(T-400)//160+1"))},
    {"audio_encoder": "_ 8 _", "image_encoder": "... H//16 W//16", "head": "..."},
    {"audio_encoder": (..., None), "image_encoder": ("B", ..., "W//16")},
    {"audio_encoder": "B C F", "image_encoder": "B C H//16 W//16"},  # C is 8 in both
    {("head", 1): "B 5", "tokens": "B ... 8", "": (2, "...", 8), "scores": "B 5"},
    {"layers.0": "B L 8", "layers.1": "B L 8"},
]


@pytest.mark.parametrize("expected", GOOD, ids=str)
def test_shapes_that_are_right(streams, expected):
    streams.check(expected)


def wrong(trace, expected) -> str:
    with pytest.raises(ShapeError) as error:
        check(trace, expected)
    return str(error.value)


def test_shapes_that_are_wrong(streams):
    told = wrong(streams, {"audio_encoder": "B 8 T//160"})
    assert told.startswith(
        "audio_encoder: (B, 8, (T - 400)//160 + 1) = (2, 8, 98): axis 2 is 98, and T//160 is 100 here"
    )
    assert "expected (B, 8, T//160)" in told
    # right here, and wrong elsewhere
    told = wrong(streams, {"audio_encoder": "B 8 (T-480)//160+1"})
    assert "axis 2 is 98 here, as (T - 480)//160 + 1 is, but follows (T - 400)//160 + 1" in told
    assert "it has 3 axes, not 2" in wrong(streams, {"audio_encoder": "B 8"})
    assert "it has 2 axes" in wrong(streams, {"head": "B 5 1 ..."})
    assert "axis 1 is 5, not 6" in wrong(streams, {"head": (2, 6)})
    assert "axis 1 is 8, and C is B" in wrong(streams, {"image_encoder": "C C ..."})
    assert "Also head" in wrong(streams, {"audio_encoder": "1", "head": "1"})


def test_the_nearest_are_named(streams):
    assert "Nearest: audio_encoder (B, 8, (T - 400)//160 + 1) = (2, 8, 98)" in wrong(streams, {"audio_encodr": "B 8 _"})
    assert "layers.0" in wrong(streams, {"model.layers.0": "B 8 _"})
    assert "This shape is that of: image_encoder" in wrong(streams, {"audio_encoder": "B 8 H//16 W//16"})
    assert "no module of this path was called" in wrong(streams, {"encoder": "B"})
    gone = Trace([Row(0, "", 1, "module", "Net", None, 0)], "Net")
    assert "it gave no tensor" in wrong(gone, {"": "B"}) and wrong(Trace(), {STRANGE: "B"})


def test_traces_without_formulas_and_with_unknown_ones():
    trace = joined()
    trace.check({"audio_encoder": "B 8 F", "image_encoder": "B C h w", "tokens": "B F+h*w C"})
    assert "axis 0 is 2, and B is 114" in wrong(trace, {"tokens": "_ B _", "head": "B 5"})
    assert "is no size of the trace" in wrong(trace, {"head": "B//2 5"})
    unknown = Trace([Row(0, "", 1, "module", "N", None, 0, outputs=(info("", "B _", B=2),))], "N", {"B": 2, "T": 5})
    unknown.check({"": "B _"})
    assert "is not known, and T is 5 here" in wrong(unknown, {"": "B T"})
    half = Trace([Row(0, "", 1, "module", "N", None, 0, outputs=(plain("", 2, 5),))], "N", {"B": 2, "T": 5})
    tensor = half.rows[0].outputs[0]
    half.rows[0].outputs = (type(tensor)("", (2, 5), "float32", "cpu", (Formula("B"), None)),)
    half.check({"": "B 5"})
    assert "no formula is verified for it" in wrong(half, {"": "B T"})


@pytest.mark.parametrize("bad", ["B +", "... B ...", 1.5, ("B", 2.0), (..., ...), "3.5", True])
def test_what_is_no_shape(streams, bad):
    with pytest.raises(ParameterError):
        streams.check({"head": bad})


# couple


def test_lengths_that_agree():
    found = couple(mel="T//160", pitch="T//160", units="T//320")
    assert found and found.parts_at is None and found.at(1000) == {"mel": 6, "pitch": 6, "units": 3}
    assert str(found).splitlines() == [
        "compatible: yes",
        "mel: T//160, pitch: T//160, units: T//320",
        "mel and pitch agree at every length",
        "units: one frame per 2 of mel, at every length",
    ]
    assert couple("T//320", "2*(T//320)") and couple("(T - 400)//160 + 1", "(T - 240)//160")
    assert "2 frames per frame of length 1" in str(couple("T//320", "2*(T//320)"))


def test_the_first_length_at_which_they_part():
    found = couple(mel="T//160", units="(T - 400)//320 + 1", sample_rate=16000)
    first = next(t for t in range(400, 10_000) if (t // 160) // 2 != (t - 400) // 320 + 1)
    assert not found and found.parts_at == first == 640
    assert "up to T = 639 (0.03994 s)" in str(found) and "never more than 1 apart" in str(found)
    assert found.pairs[0].parts[:2] == (640, None)


@pytest.mark.parametrize(
    ("first", "other", "ratio"),
    [("T//160", "T//159", 1), ("T//159", "T//320", 2), ("max(T//160, 5)", "T//160", 1), ("int(0.3*T)", "3*T//10", 1)],
)
def test_lengths_that_drift_or_part_against_trying(first, other, ratio):
    found = couple(a=first, b=other, limit=100_000)
    a, b = Formula(first), Formula(other)
    start = next(t for t in range(1, 10**6) if a.evaluate(T=t) >= 1 and b.evaluate(T=t) >= 1)
    for k, parts in enumerate(found.pairs[0].parts[:3]):
        tried = (t for t in range(start, min(start + 8_000, parts or 10**9) + 1))
        assert parts is None or parts > start + 8_000 or abs(b.evaluate(T=parts) - a.evaluate(T=parts) // ratio) > k
        assert all(abs(b.evaluate(T=t) - a.evaluate(T=t) // ratio) <= k for t in tried if t != parts)


def test_drift_is_told():
    found = couple(mel="T//159", units="T//320", sample_rate=16000)
    assert "they drift: more than 4 apart at T = " in str(found) and not found.pairs[0].agrees


def test_ratios_that_are_no_whole_number():
    found = couple(mel="T//512", units="T//882", sample_rate=44100)
    assert "256 frames per 441 of mel" in str(found) and "never more than 1 apart" in str(found)


def test_numbers_and_formulas_of_a_trace():
    assert couple(496, 248) and not couple(496, 500)
    assert "length 1 has 496, length 2 500, not 496" in str(couple(496, 500))
    audio = joined(dims={"waveform": "B T"})["audio_encoder"].outputs[0].formulas[2]
    assert not couple(audio=audio, mel="T//160") and couple(audio, "(T - 240)//160")
    strange = couple(**{STRANGE: "T", "b": "T"})
    assert "<script" not in strange._repr_html_() and strange.steer().markup.count("<script") == 2


@pytest.mark.parametrize(
    "lengths",
    [(), ("T",), ("T", "L"), ("T", 1.5), ("T", True), ("T", "T - 2**30"), ("T", None), ("T*T", "T"), ("T", "T*T//2")],
    ids=str,
)
def test_lengths_that_cannot_be_compared(lengths):
    with pytest.raises(ParameterError):
        couple(*lengths, limit=1000)


def test_the_limit_is_checked():
    with pytest.raises(ParameterError, match="limit"):
        couple("T", "T", limit=0)
