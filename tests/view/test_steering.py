"""Sliders over formulas and over figures drawn ahead, in a real browser."""

import pytest
import torch
from browsing import launched, opened, written
from torch import nn

from avlib import shapes, view
from avlib.errors import ParameterError
from avlib.shapes.steering import _costs, nested

browser = launched


class Net(nn.Module):
    """Patches of 16 samples, which must fit, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8, bias=False)

    def forward(self, sound):
        if sound.shape[1] % 16:
            raise ValueError("no whole number of patches")
        return self.linear(sound.reshape(len(sound), sound.shape[1] // 16, 16))


def traced():
    return shapes.trace(Net(), torch.zeros(2, 160), dims={0: "B T"})


def move(page, name, value):
    page.get_by_label(f"{name} as a number").fill(str(value))
    page.keyboard.press("Enter")


def test_sizes_memory_and_flops_follow_the_slider(browser, tmp_path, unchecked):
    with opened(browser, written(tmp_path, traced().steer(seconds={"T": 16000}, high={"T": 48000}))) as page:
        row = page.locator(".av-row", has_text="linear")
        assert "(2, 10, 8)" in row.inner_text()
        move(page, "T", 16000)
        text = row.inner_text()
        # 2 * 1000 tokens of 8 numbers of 4 bytes; a product with 16 numbers each costs two operations
        assert "(2, 1000, 8)" in text and "62.5 KiB" in text and "512 kFLOP" in text
        assert page.locator("output").last.inner_text() == "1 s"
        page.get_by_label("B", exact=True).focus()
        page.keyboard.press("ArrowRight")
        assert "(3, 1000, 8)" in row.inner_text() and "768 kFLOP" in row.inner_text()


def test_a_broken_requirement_turns_red_and_names_the_nearest_size(browser, tmp_path):
    with opened(browser, written(tmp_path, traced().steer())) as page:
        read = page.locator(".av-read")
        assert read.inner_text().startswith("Valid when T % 16 == 0")
        move(page, "T", 170)
        assert read.inner_text().startswith("Broken: T % 16 == 0") and "av-bad" in read.get_attribute("class")
        page.get_by_role("button", name="nearest: T = 176").click()
        assert read.inner_text().startswith("Valid") and "(2, 11, 8)" in page.locator(".av-tree").inner_text()


def test_a_size_that_leaves_nothing_is_said(browser, tmp_path):
    made = shapes.trace(nn.MaxPool1d(4, 2), torch.zeros(1, 16), dims={0: "1 T"})  # (T - 4)//2 + 1
    with opened(browser, written(tmp_path, made.steer())) as page:
        move(page, "T", 4)
        assert "av-bad" not in page.locator(".av-read").get_attribute("class")
        move(page, "T", 3)
        assert page.locator(".av-read").inner_text().startswith("Broken: T >= 4")


def test_totals_are_those_of_the_trace(unchecked):
    made = traced()
    other = made.at(B=5, T=320)
    (memory, partly), (work, unknown) = _costs(made)[0]
    assert work.evaluate(B=5, T=320) == other.flops == 2 * 5 * 20 * 8 * 16
    assert memory.evaluate(B=5, T=320) == other.root.bytes == 4 * 5 * 20 * 8
    assert not partly and not unknown


def test_formulas_are_the_same_in_the_browser(browser, tmp_path):
    texts = ("(T - 400)//160 + 1", "int(0.3*T)", "max(T - 7, 3)*min(T, 9)", "T*T - (T//3)*5 - 2", "(T + 1) % 5")
    texts += ("int(T/16000*50)", "round(T*0.5)", "ceil(float32((160*T)/441))")
    formulas = [shapes.Formula(text) for text in texts]
    with opened(browser, written(tmp_path, shapes.couple(T="T", others=2 * shapes.Formula("T")).steer())) as page:
        script = next(text for text in page.locator("script").all_inner_texts() if "const steps" in text)
        part = script[script.index("const steps") : script.index("const signs")]
        body = "part + 'return formulas.map(value)'"
        run = f"([part, formulas, T]) => new Function('formulas', 'sizes', {body})(formulas, {{T}})"
        for size in (1, 10, 499, 160000):
            found = page.evaluate(run, [part, [nested(formula) for formula in formulas], size])
            assert found == [formula.evaluate(T=size) for formula in formulas]


def test_lengths_part_where_they_part(browser, tmp_path):
    coupled = shapes.couple(mel="T//160", units="(T - 400)//320 + 1", sample_rate=16000)
    with opened(browser, written(tmp_path, coupled.steer())) as page:
        read = page.locator(".av-read")
        move(page, "T", 720)  # mel 4, units 2
        assert read.inner_text() == "At T = 720 all agree."
        move(page, "T", 640)  # mel 4, units 1
        assert read.inner_text() == "At T = 640, units parts from mel."
        assert page.locator(".av-row", has_text="units").inner_text().endswith("1 fewer than 2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": {"X": 1}}, "name: 'X'"),
        ({"low": {"T": 161}}, r"low\['T'\]: 161; expected a whole number from 1 to 160"),
        ({"high": {"T": 10}}, r"high\['T'\]: 10"),
    ],
)
def test_sizes_that_are_none_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        traced().steer(**options)


def test_a_trace_without_names_has_no_sliders():
    with pytest.raises(ParameterError, match="no named sizes"):
        shapes.trace(Net(), torch.zeros(2, 160)).steer()


def drawn(ratio, mode):
    figure, axes = view.figure(height=1.0)
    axes.text(0.5, 0.5, f"{ratio} {mode}")
    return figure


def test_figures_drawn_ahead_need_no_kernel(browser, tmp_path):
    widget = view.steer(drawn, ratio=(0, 10, 5), mode=("time", "freq"), saved=3)
    assert repr(widget) == "6 figures, by ratio and mode"
    with opened(browser, written(tmp_path, widget)) as page:
        picture = page.locator("img")
        before = picture.get_attribute("src")
        page.locator("input[type=range]").focus()
        page.keyboard.press("ArrowRight")
        assert picture.get_attribute("alt") == "ratio 10, mode time" and picture.get_attribute("src") != before
        page.get_by_label("mode", exact=True).select_option("freq")
        assert page.locator(".av-read").inner_text() == "ratio 10, mode freq"
        page.locator("input[type=range]").fill("1")
        page.get_by_label("mode", exact=True).select_option("time")
        assert picture.get_attribute("src") == before


def test_figures_keep_their_budget_and_the_start():
    every = view.steer(drawn, ratio=(0, 12, 5), mode=("time", "freq"), saved=7)
    assert repr(every) == "16 figures, by ratio and mode"  # 0, 2, 4, 5, 6, 8, 10, 12
    half = view.steer(drawn, ratio=(0, 12, 5), mode=("time", "freq"), saved=7, budget=len(every.markup) // 2)
    assert repr(half) == "8 figures, by ratio and mode" and '"values":[[2,5,8,12]' in half.markup
    assert '"start":[1,0]' in half.markup


def test_a_live_one_draws_any_value():
    made = view.steer(drawn, ratio=(0, 10, 5), mode=("time", "freq"), saved=2).live()
    slider, menu, _ = made.children
    assert (slider.min, slider.max, slider.value) == (0, 10, 5) and tuple(menu.options) == ("time", "freq")


@pytest.mark.parametrize("given", [(), (5, 1), (0, 10, 11), 7 * (1,)])
def test_sliders_that_are_none_are_named(given):
    with pytest.raises(ParameterError, match="ratio: "):
        view.steer(drawn, ratio=given)
