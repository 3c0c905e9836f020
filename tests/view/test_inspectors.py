"""Tensors under the reader's hand: in a real browser, from files alone."""

import math

import nbformat
import pytest
import torch
from browsing import at, launched, opened, told_at, written

from avlib import view
from avlib.errors import ParameterError
from avlib.workbook.notebooks import Result
from avlib.workbook.report import write_page

browser = launched
RAMP = torch.arange(2 * 3 * 4).reshape(2, 3, 4)  # few whole numbers: shown exactly


def test_hover_click_and_arrow_keys_tell_index_and_value(browser, tmp_path):
    path = written(tmp_path, view.inspect(RAMP, "head query key", "scores", start={"head": 1}))
    with opened(browser, path) as page:
        box, read = page.locator(".av-picture"), page.locator(".av-read")
        box.hover(position=at(box, 0.9, 0.9))
        assert read.inner_text() == "head 1, query 2, key 3: 23"
        box.click(position=at(box, 0.1, 0.1))
        assert read.inner_text() == "head 1, query 0, key 0: 12"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert read.inner_text() == "head 1, query 1, key 1: 17"
        page.locator("input[type=range]").focus()
        page.keyboard.press("ArrowLeft")  # the slider's own doing: back to head 0
        assert read.inner_text() == "head 0, query 1, key 1: 5"
        assert page.locator("output").inner_text() == "0 (0–1)"


def test_keys_do_not_reach_the_page_around(browser, tmp_path):
    with opened(browser, written(tmp_path, view.inspect(RAMP))) as page:
        page.evaluate("document.addEventListener('keydown', e => { window.stolen = e.key })")
        page.locator("input[type=range]").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("window.stolen") is None and page.locator("input").input_value() == "1"


def test_several_on_one_page_share_nothing(browser, tmp_path):
    widgets = [view.inspect(RAMP + 100 * number, "a b c", f"tensor {number}") for number in range(3)]
    with opened(browser, written(tmp_path, *widgets)) as page:
        ids = page.eval_on_selector_all("[id]", "found => found.length")
        boxes, reads = page.locator(".av-picture"), page.locator(".av-read")
        boxes.nth(1).hover(position=at(boxes.nth(1), 0.1, 0.1))
        assert ids == 0 and [text.endswith(": 100") for text in reads.all_inner_texts()] == [False, True, False]


def test_time_runs_to_the_right_and_frequency_upwards(browser, tmp_path):
    values = torch.zeros(5, 3)
    values[4, 0] = 7.0  # the lowest bin of the last frame: below on the right
    with opened(browser, written(tmp_path, view.inspect(values, "time mel"))) as page:
        box = page.locator(".av-picture")
        box.hover(position=at(box, 0.95, 0.9))
        assert page.locator(".av-read").inner_text() == "time 4, mel 0: 7"


def first_value(browser, path):
    with opened(browser, path) as page:
        box = page.locator(".av-picture")
        box.hover(position=at(box, 0.01, 0.5))
        return page.locator(".av-read").inner_text(), page.locator(".av-widget").inner_text()


ODD = {
    "axis0 0: 2.5": torch.tensor([2.5, 1.0]),
    ": 3": torch.tensor(3.0),
    "axis0 0, axis1 0: -1.5": torch.full((3, 4), -1.5, requires_grad=True),
    "axis0 0, axis1 0: 5": torch.tensor([[3 + 4j, 0]]),
    "axis0 0, axis1 0: True": torch.tensor([[True, False]]),
    "axis0 0, axis1 0: 1.25": torch.tensor([[1.25, 2.0]], dtype=torch.bfloat16),
    "axis0 0, axis1 0: -inf": torch.tensor([[-math.inf, 1.0]]),
    "axis0 0, axis1 0: NaN": torch.full((2, 2), math.nan),
    "axis0 0, axis1 0, axis2 0, axis3 0, axis4 0, axis5 0: 1": torch.ones(1, 1, 1, 1, 1, 2),
}


def test_odd_tensors(browser, tmp_path):
    path = written(tmp_path, *map(view.inspect, ODD.values()), view.inspect(torch.arange(600)[None], limits=(400, 500)))
    with opened(browser, path) as page:
        for box in page.locator(".av-picture").all():
            box.hover(position=at(box, 0, 0))
        told = page.locator(".av-read").all_inner_texts()
    assert told[:-1] == list(ODD) and told[-1] == "axis0 0, axis1 0: at most 400"


def test_nan_is_marked_and_its_first_place_told(browser, tmp_path):
    values = torch.zeros(4, 4)
    values[2, 1] = values[3, 3] = math.nan
    with opened(browser, written(tmp_path, view.inspect(values, "row column"))) as page:
        box = page.locator(".av-picture")
        box.hover(position=at(box, 0.4, 0.6))
        assert page.locator(".av-read").inner_text() == "row 2, column 1: NaN"
        text = page.locator(".av-widget").inner_text()
        assert "2 NaN, the first at (2, 1)" in text and text.endswith("2 NaN")


def test_values_of_eight_bits_are_near(browser, tmp_path):
    values = torch.linspace(-3, 5, 64 * 64).reshape(64, 64)
    told, _ = first_value(browser, written(tmp_path, view.inspect(values, "a b")))
    place, shown = told.split(": ≈ ")
    row = int(place.removeprefix("a ").partition(",")[0])
    assert abs(float(shown) - float(values[row, 0])) < 10 / 252  # the colours span -5 to 5


def test_a_large_tensor_keeps_its_budget_and_says_so():
    torch.manual_seed(0)
    found = view.inspect(torch.randn(3, 400, 500), "head query key", budget=100_000)
    assert len(found.markup) <= 100_000
    assert "Shown is every 4th value of query." in found.markup and "value of head" not in found.markup


def test_terminals_get_one_line():
    found = view.inspect(RAMP, "head query key", "scores")
    assert repr(found) == "scores (2, 3, 4) int64 head query key"
    empty = view.inspect(torch.zeros(0, 3))
    assert repr(empty) == "(0, 3) float32: no values" and "no values" in empty._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": "a b"}, r"axes: 2 names for the shape \(2, 3, 4\); expected 3 names"),
        ({"limits": (1, 0)}, r"limits: \(1, 0\); expected the lowest and the highest"),
        ({"limits": (0, math.nan)}, "limits: "),
        ({"start": {"axis9": 1}}, "start: 'axis9'"),
        ({"start": {"axis0": 2}}, r"start\['axis0'\]: 2; expected a whole number from 0 to 1"),
        ({"budget": 100}, "budget: "),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ParameterError, match=message):
        view.inspect(RAMP, **arguments)


def test_a_tensor_without_values_is_refused():
    with pytest.raises(ParameterError, match="tensor: a tensor without values"):
        view.inspect(torch.zeros(2, 3, device="meta"))


def notebook(*outputs):
    cells = [
        nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", {"text/html": markup})])
        for markup in outputs
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_our_pages_run_our_scripts_and_no_others(browser, tmp_path):
    ours = view.inspect(RAMP, "head query key")._repr_html_()
    theirs = "<p>before</p><script>window.foreign = 1</script><img src='x.png' onerror='window.foreign = 2'>"
    changed = ours.replace("root.dataset.on = ", "window.foreign = root.dataset.on = ")
    result = Result("11", "A notebook", str(tmp_path / "in.ipynb"), str(tmp_path / "11.ipynb"))
    page_of = write_page(notebook(theirs, changed, ours), result, [])
    assert page_of.read_text().count("<script>") == 1
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_of.as_uri())
    box = page.locator(".av-picture")
    box.wait_for()
    expected = "head 0, query 2, key 3: 11"
    assert told_at(page, box, 0.9, 0.9, expected) == expected
    assert page.evaluate("window.foreign") is None
    context.close()


def test_nbconvert_keeps_it_alive(browser, tmp_path):
    from nbconvert.exporters import HTMLExporter

    path = tmp_path / "converted.html"
    path.write_text(HTMLExporter(template_name="basic").from_notebook_node(notebook(view.inspect(RAMP).markup))[0])
    told, _ = first_value(browser, path)
    assert told == "axis0 0, axis1 1, axis2 0: 4"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_themes_and_on_a_phone(browser, tmp_path, scheme):
    path = written(tmp_path, view.inspect(torch.randn(2, 300, 700), "head time mel", "a long name of a tensor"))
    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True}
    with opened(browser, path, color_scheme=scheme, **phone) as page:
        box = page.locator(".av-picture")
        box.tap(position=at(box, 0.5, 0.5))
        assert page.locator(".av-read").inner_text().startswith("head 0, time ")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        style = "getComputedStyle(document.querySelector('.av-widget'))"
        text, back = (
            sum(map(int, page.evaluate(f"{style}.{of}")[4:-1].split(", "))) for of in ("color", "backgroundColor")
        )
        assert text - back > 500 if scheme == "dark" else back - text > 500
