"""Every way to show a trace, on traces of every kind; what they say, and that they say it truly."""

import json
import re
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from xml.etree import ElementTree

import pytest
import torch
from sample_traces import STRANGE, awkward, encoder, flat, joined, plain
from torch import nn

from avlib import shapes
from avlib.errors import CacheError, ParameterError
from avlib.shapes import flow, rendering
from avlib.shapes.layout import text_width
from avlib.shapes.outline import outline
from avlib.shapes.rows import Row, count, memory, width
from avlib.shapes.tracing import Trace

KINDS = list(awkward())


@pytest.fixture(scope="module")
def kinds() -> dict[str, Trace]:
    return awkward()


@pytest.fixture(scope="module")
def streams() -> Trace:
    return joined(dims={"waveform": "B T", "image": "B 3 H W"})


class Tags(HTMLParser):
    """Checks that tags are closed in order, and gathers what they hold."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.found, self.ids, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("br", "img", "input", "path", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


# all kinds


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_every_kind(kinds, kind):
    trace = kinds[kind]
    for depth, ops in ((None, None), (0, False), (1, True), (9, True)):
        lines = rendering.table(trace, depth=depth, ops=ops).splitlines()
        assert lines and max(map(width, lines)) <= 120


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_every_kind(kinds, kind):
    trace = kinds[kind]
    text = rendering.html(trace)
    tags = Tags(text)
    assert not re.search(r"https?:", text) and (trace.name or "trace") in tags.text
    assert sum(tag == "script" for tag, _ in tags.found) == bool(trace.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_flows_of_every_kind(kinds, kind):
    for depth in (0, 1, 3):
        check_layout(flow.svg(kinds[kind], depth=depth))


@pytest.mark.parametrize("kind", KINDS)
def test_exports_of_every_kind(kinds, kind):
    trace = kinds[kind]
    content = json.loads(rendering.to_json(trace))
    assert [row["name"] for row in content["rows"]] == [row.name for row in trace.rows]
    assert len(rendering.to_csv(trace).splitlines()) >= len(trace.rows) + 1


def test_names_cannot_become_markup(kinds):
    trace = kinds["strange"]
    tags = Tags(rendering.html(trace))
    assert STRANGE in tags.text and [tag for tag, _ in tags.found].count("script") == 1
    root = ElementTree.fromstring(flow.svg(trace))
    assert any(element.text == STRANGE for element in root.iter("{http://www.w3.org/2000/svg}text"))


# the table


def test_alike_siblings_share_a_line():
    text = rendering.table(encoder())
    assert "layers.0 … layers.11 (12 alike)" in text and "layers.3" not in text
    assert "the figures of one of them" in text and "valid when T >= 400 @ net.py:11" in text
    assert "(B, F, 768)" in text and "net.py:20" in text and "float32" in text.splitlines()[0]
    assert "with F = (T - 400)//320 + 1 = " in text and "hop 320, field 400 of T" in text
    assert "≥ 6,200" in text  # gelu is unknown


def test_siblings_are_only_alike_when_all_inside_is():
    nodes = outline(encoder(extra="add"))
    assert [node.label for node in nodes[0].inner] == [
        "front",
        "layers.0",
        "layers.1",
        "layers.2 … layers.11 (10 alike)",
    ]
    for change in ("parameters", "flops", "error", "source"):
        trace = encoder()
        setattr(trace["layers.5"], change, None if change == "source" else "odd" if change == "error" else 7)
        labels = [node.label for node in outline(trace)[0].inner]
        assert labels[1:] == ["layers.0 … layers.4 (5 alike)", "layers.5", "layers.6 … layers.11 (6 alike)"], change


def test_what_repeats_in_turn_and_calls_that_repeat():
    names = ["conv", "relu"] * 4
    rows = [Row(0, "", 1, "module", "Net", None, 0)]
    rows += [Row(i + 1, str(i), 1, "module", name, 0, 1) for i, name in enumerate(names)]
    labels = [node.label for node in outline(Trace(rows))[0].inner]
    assert labels == ["0 … 6 (4 alike, every 2nd)", "1 … 7 (4 alike, every 2nd)"]
    rows = [Row(0, "", 1, "module", "Net", None, 0)] + [Row(i, "cell", i, "module", "Cell", 0, 1) for i in range(1, 6)]
    assert [node.label for node in outline(Trace(rows))[0].inner] == ["cell … cell #5 (5 alike)"]


def test_outputs_that_are_alike_share_a_line():
    caches = [plain(f"layers[{i}].{name}", 2, 4) for i in range(6) for name in ("keys", "values")]
    row = Row(0, "", 1, "module", "Net", None, 0, outputs=(plain("state", 2), *caches, plain("layers[6].keys", 2, 5)))
    text = rendering.table(Trace([row], "Net"))
    assert "layers[0].keys ×6 (2, 4)" in text and "layers[0].values ×6 (2, 4)" in text and "(2, 5)" in text
    assert "layers[0].keys … layers[5].keys (2, 4)" in rendering.html(Trace([row], "Net"))
    row.outputs = tuple(plain("", i) for i in range(40))
    assert "and 28 more" in rendering.table(Trace([row], "Net"))


def test_layers_with_a_cache_that_grows_are_alike():
    rows = [Row(0, "", 1, "module", "Net", None, 0)]
    for i in range(5):
        given = (plain("x", 2), *(plain(f"cache[{k}]", 2, 3) for k in range(i)))
        rows.append(Row(len(rows), f"layers.{i}", 1, "module", "Layer", 0, 1, None, given, (plain("", 2),)))
    labels = [node.label for node in outline(Trace(rows))[0].inner]
    assert labels == ["layers.0", "layers.1 … layers.4 (4 alike)"]


def test_operations_on_request_and_columns():
    trace = encoder()
    assert "conv1d" not in rendering.table(trace) and "Not shown: 25 rows" in rendering.table(trace)
    assert "conv1d" in rendering.table(trace, ops=True) and "unknown" in rendering.table(trace, ops=True)
    head = rendering.table(trace).splitlines()
    assert any(re.match(r"\s+output\s+formula\s+params\s+FLOPs\s+memory\s+source", line) for line in head)
    with pytest.raises(ParameterError, match="depth"):
        rendering.table(trace, depth=-1)


def test_failures_are_told_with_their_operands(kinds):
    text = " ".join(rendering.table(kinds["broken"]).split())
    assert "✗ linear in 1.1 failed at" in text and "[0] (2, 5, 24); [1] (4, 12); [2] (4,)" in text
    assert "first value that is not finite: log, a.py:3, at (0, 0) (6 NaN, 0 infinite)" in rendering.table(
        kinds["values"]
    )


def test_ten_thousand_rows_are_short():
    trace = flat(10_000)
    text = rendering.table(trace)
    assert len(text.splitlines()) < 100 and "… 9,909 rows …" in text and "op9999" in text
    assert len(rendering.table(flat(400), depth=1).splitlines()) > 400  # all of them where a depth is asked for
    text = rendering.html(trace)
    assert len(text) < 400_000 and "… 8,499 rows …" in text and len(flow.svg(trace)) < 5_000


# the page


def test_page_shows_sizes_beside_formulas(streams):
    text = rendering.html(streams)
    tags = Tags(text)
    assert "(2, 114, 8)" in tags.text and "(B, 8, (T - 400)//160 + 1)" in tags.text
    titles = [attributes.get("title", "") for _, attributes in tags.found]
    assert any("one token per 160 of T; the first needs 400 of T" in title for title in titles)
    assert "up to 159 of T at the end are dropped" in tags.text  # also without a pointer
    assert all(word in text for word in ("prefers-color-scheme: dark", 'data-jp-theme-light="true"', "audio_encoder"))
    assert len(text) < 60_000


def test_pages_do_not_clash(streams):
    ids = Tags(streams._repr_html_() + streams._repr_html_()).ids
    assert len(ids) == len(set(ids)) == 2
    for name in ids:
        assert re.fullmatch(r"av-\w+", name)


def test_statistics_where_the_trace_has_them():
    trace = shapes.trace(nn.Linear(8, 3), torch.tensor([[1.0] * 7 + [float("nan")]] * 5), stats=True)
    tags = Tags(rendering.html(trace))
    assert "15 NaN" in tags.text and "first value that is not finite: linear" in tags.text


def test_depth_of_what_is_open(streams):
    opened = ["open" in attributes for tag, attributes in Tags(rendering.html(streams)).found if tag == "details"]
    assert opened[0] and sum(opened) == 1  # the modules directly inside the whole are seen at once


# the flow


SVG = "{http://www.w3.org/2000/svg}"


def check_layout(text: str) -> ElementTree.Element:
    """No text is cut off, covers another, or stands out of its block."""
    root = ElementTree.fromstring(text)
    _, _, right, bottom = map(float, root.get("viewBox").split())
    assert float(root.get("width")) <= 865
    texts = []
    for element in root.iter(f"{SVG}text"):
        size, x, y = (float(element.get(name)) for name in ("font-size", "x", "y"))
        bold, mono = element.get("font-weight") == "600", "monospace" in (element.get("font-family") or "")
        half = text_width(element.text, size, mono=mono, bold=bold) / 2
        texts.append((x - half, y - size * 0.8, x + half, y + size * 0.25))
    for left, top, end, base in texts:
        assert left >= 0 and top >= 0 and end <= right + 1 and base <= bottom + 1
    for i, one in enumerate(texts):
        for other in texts[i + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    blocks = [[float(e.get(n)) for n in ("x", "y", "width", "height")] for e in root.iter(f"{SVG}rect") if e.get("x")]
    for left, top, end, base in texts:
        for x, y, w, h in blocks:
            apart = end <= x or left >= x + w or base <= y or top >= y + h
            assert apart or (x <= left and end <= x + w and y <= top and base <= y + h)
    return root


def arrows(text: str) -> list[str]:
    return re.search(r"<desc>(.*?)</desc>", text, re.DOTALL)[1].split("; ")


def test_streams_meet(streams):
    text = flow.svg(streams)
    check_layout(text)
    found = {arrow.partition(":")[0] for arrow in arrows(text)}
    assert found == {
        "waveform to audio_encoder",
        "image to image_encoder",
        "audio_encoder to cat",
        "image_encoder to cat",
        "cat to layers.0 … layers.2",
        "layers.0 … layers.2 to head",
        "layers.0 … layers.2 to tokens",
        "head to scores",
    }
    assert text.count("#0072B2") and text.count("#D55E00") and text.count("#009E73")  # sound, picture, both
    assert "flatten, transpose" in text and "(B, (H//16)*(W//16), 8)" in text


class Skips(nn.Module):
    """A residual connection, a skip, and a loop over time."""

    def __init__(self):
        super().__init__()
        self.down, self.mid, self.up = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 8)
        self.cell = nn.GRUCell(8, 8)

    def forward(self, spectrogram):
        down = self.down(spectrogram)
        x = self.up(torch.cat([down + self.mid(down), down], -1))
        state, states = torch.zeros(x.shape[0], 8), []
        for step in x.unbind(1):
            state = self.cell(step, state)
            states.append(state)
        return torch.stack(states, 1)


def test_skips_and_loops_are_followed():
    text = flow.svg(shapes.trace(Skips(), torch.zeros(2, 6, 8)))
    check_layout(text)
    found = {arrow.partition(":")[0] for arrow in arrows(text)}
    assert {"down to mid", "down to add", "mid to add", "add to cat", "down to cat", "cat to up"} <= found
    assert {"up to cell", "cell to cell", "cell to stack"} <= found and not any(
        arrow.startswith("stack to c") for arrow in found
    )
    assert "5 × GRUCell" in text


def test_what_does_nothing_is_not_a_stage():
    model = nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.ReLU(inplace=True), nn.Linear(3, 2))
    found = [arrow.partition(":")[0] for arrow in arrows(flow.svg(shapes.trace(model, torch.ones(1, 3))))]
    assert found == ["input to 0", "0 to 2", "2 to 3", "3 to output"]


def test_functions_show_what_changes_a_shape():
    def front_end(waveform):
        spectrum = torch.stft(waveform, 400, 160, window=torch.ones(400), return_complex=True)
        return (spectrum.abs() ** 2).log().transpose(1, 2)

    text = flow.svg(shapes.trace(front_end, torch.zeros(2, 16000), dims={"waveform": "B T"}))
    check_layout(text)
    found = {arrow.partition(":")[0] for arrow in arrows(text)}
    assert {"ones to stft", "stft to transpose", "transpose to output"} <= found and "abs, pow, log" in text


def test_too_many_stages_are_shown_less_deep():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8 + i % 2 * 0), nn.Linear(8, 8), nn.ReLU()) for i in range(40)))
    for i, part in enumerate(model):
        part.append(nn.Linear(8, 8)) if i % 2 else None
    text = flow.svg(shapes.trace(model, torch.zeros(1, 8)), depth=2)
    check_layout(text)
    assert len(re.findall(r"<rect x", text)) < 70
    with pytest.raises(ParameterError, match="depth"):
        flow.svg(Trace(), depth=-1)


# exports


def test_json_keeps_everything(streams):
    content = json.loads(streams.to_json())
    assert content["format"] == "avlib.shapes 1" and content["dims"] == {"B": 2, "T": 16000, "H": 64, "W": 64}
    for row, written in zip(streams.rows, content["rows"], strict=True):
        assert written["flops"] == row.flops and written["source"]["line"] == row.source.line if row.source else True
        for info, tensor in zip(row.outputs, written["outputs"], strict=True):
            assert tensor["formulas"] == list(map(str, info.formulas)) and tensor["shape"] == list(info.shape)
    assert [key for key, _ in content["output"]["dict"]] == ["tokens", "scores"]
    assert content["output"]["dict"][0][1]["tensor"]["shape"] == [2, 114, 8]


def test_files_are_written(streams, tmp_path):
    for name, write in (("a.json", streams.to_json), ("a.csv", streams.to_csv)):
        assert write(tmp_path / name) == (tmp_path / name).read_text(encoding="utf-8")
        with pytest.raises(CacheError, match="a file that can be written"):
            write(tmp_path / "none" / name)


def test_csv(streams):
    import csv

    rows = list(csv.DictReader(streams.to_csv().splitlines()))
    assert len(rows) == len(streams.rows) and rows[0]["outputs"] == "tokens (2, 114, 8); scores (2, 5)"


def test_no_view_has_folders_of_this_machine(tmp_path):
    file = tmp_path / "deep" / "mine.py"
    file.parent.mkdir()
    file.write_text(
        """def model(x):
    y = x * 2
    if x.shape[1] > 70:
        raise ValueError("see " + __file__)
    return y[y > 0]
"""
    )
    spec = spec_from_file_location("mine", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    trace = shapes.trace(module.model, torch.ones(2, 64), dims={0: "B T"})
    assert trace.rows[1].source.file == str(file)  # a program still finds the file
    with pytest.raises(ValueError, match="see /") as caught:
        shapes.trace(module.model, torch.ones(2, 71))
    for found in (trace, caught.value.trace):
        for text in (found.to_json(), found.to_csv(), found.to_svg(), found._repr_html_(), repr(found)):
            assert str(tmp_path) not in text and "/deep" not in text
        assert all("mine.py" in text for text in (found.to_json(), found.to_csv(), found._repr_html_(), repr(found)))


def test_numbers_are_short():
    assert [count(n) for n in (None, 0, 9999, 12345, 94_371_712, 999_999, 1_543_304_960)] == [
        "unknown",
        "0",
        "9,999",
        "12.3 k",
        "94.4 M",
        "1 M",
        "1.54 G",
    ]
    assert [memory(n) for n in (None, 0, 1023, 1024, 1_500_000, 3 * 2**40)] == [
        "unknown",
        "0 B",
        "1023 B",
        "1 KiB",
        "1.43 MiB",
        "3 TiB",
    ]


def test_a_tensor_keeps_its_identity():
    def steps(x):
        y = x * 2
        y += 1  # the same tensor, changed
        for _ in range(50):  # each is gone when the next is made, perhaps in its place
            y = y + 1
        return y

    trace = shapes.trace(steps, torch.ones(3))
    made = [row.outputs[0].identity for row in trace.ops("^(mul|add)$")]
    assert len(set(made)) == len(made) == 51
    for row, after in zip(trace.rows[1:], trace.rows[2:], strict=False):
        assert row.outputs[0].identity == after.inputs[0].identity
    assert trace.rows[-1].outputs[0].identity == trace.rows[0].outputs[0].identity
