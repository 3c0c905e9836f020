"""Spectrograms with their sound, tokens and attention, in a real browser."""

import pytest
import torch
from browsing import at, launched, opened, written

from avlib import view
from avlib.errors import ParameterError

browser = launched
HERTZ = [100.0 * (bin + 1) for bin in range(32)]  # edges half way: 50, 150, 250, ...


def clicked():
    """A second of silence with one click at 0.5 s, and a spectrogram of 100 frames whose values are its frames."""
    waveform = torch.zeros(16000)
    waveform[8000] = 1.0
    return torch.arange(100.0)[:, None].expand(100, 32), waveform


def test_the_picture_tells_seconds_hertz_and_value(browser, tmp_path):
    widget = view.spectrogram(*clicked(), 16000, hertz=HERTZ, patch=(16, 10))
    with opened(browser, written(tmp_path, widget)) as page:
        box = page.locator(".av-picture")
        box.hover(position=at(box, 0.2501, 0.99))
        read = page.locator(".av-read").first
        assert read.inner_text() == "0.250 s (frame 25), 100 Hz (bin 0): 25"
        page.locator(".av-picture").focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        assert read.inner_text() == "0.260 s (frame 26), 200 Hz (bin 1): 26"


@pytest.mark.parametrize(("order", "number"), [("frequency", "14 = 1 × 10 + 4"), ("time", "9 = 4 × 2 + 1")])
def test_a_token_is_named_and_played(browser, tmp_path, order, number):
    widget = view.spectrogram(*clicked(), 16000, hertz=HERTZ, patch=(16, 10), order=order)
    with opened(browser, written(tmp_path, widget)) as page:
        box = page.locator(".av-picture")
        box.click(position=at(box, 0.45, 0.2))
        read, told = page.locator(".av-read").all()
        # frames 40 to 49 begin 10 ms apart and are 25 ms long; bins 16 to 31 reach from 1650 to 3250 Hz
        assert told.inner_text() == (
            f"Token {number}: row 1 (bins 16–31, 1650 to 3250 Hz), column 4 (frames 40–49, 0.400 to 0.515 s)."
        )
        assert read.inner_text().startswith("0.440 s") or read.inner_text().startswith("0.450 s")
        page.locator("[data-sound='0.400 to 0.515 s, 1650 to 3250 Hz']").wait_for()


def test_dragging_plays_a_part_and_the_wheel_zooms(browser, tmp_path):
    with opened(browser, written(tmp_path, view.spectrogram(*clicked(), 16000))) as page:
        box = page.locator(".av-picture")
        place = box.bounding_box()
        page.mouse.move(place["x"] + 0.2 * place["width"], place["y"] + 50)
        page.mouse.down()
        page.mouse.move(place["x"] + 0.6 * place["width"], place["y"] + 50, steps=4)
        page.mouse.up()
        page.locator("[data-sound='0.200 to 0.600 s']").wait_for()
        page.get_by_text("Selected: 0.200 to 0.600 s").wait_for()
        page.mouse.move(place["x"] + 0.5 * place["width"], place["y"] + 50)
        for _ in range(4):
            page.mouse.wheel(0, -100)
        box.hover(position=at(box, 0.001, 0.5))  # the left end is now later than the beginning
        page.wait_for_function("parseFloat(document.querySelector('.av-read').textContent) > 0.2")
        page.get_by_role("button", name="show all").click()
        box.hover(position=at(box, 0.001, 0.5))
        assert page.locator(".av-read").first.inner_text().startswith("0.000 s (frame 0)")


def test_the_sound_lies_where_the_picture_says(browser, tmp_path):
    listen = """async () => {
        const url = document.querySelector("audio").src, context = new OfflineAudioContext(1, 1, 16000);
        const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), c => c.charCodeAt(0));
        const sound = await context.decodeAudioData(bytes.buffer), samples = sound.getChannelData(0);
        return [samples.reduce((best, s, k) => Math.abs(s) > Math.abs(samples[best]) ? k : best, 0), sound.length];
    }"""
    with opened(browser, written(tmp_path, view.spectrogram(*clicked(), 16000))) as page:
        peak, length = page.evaluate(listen)
        assert abs(peak - 8000) < 80 and abs(length - 16000) < 1200  # mp3 has whole frames
        page.evaluate("document.querySelector('audio').currentTime = 0.5")
        page.locator(".av-line:visible").wait_for()
        left = page.evaluate("parseFloat(document.querySelector('.av-line').style.left)")
        assert abs(left - 50) < 1


def test_other_rates_and_channels_are_heard():
    values, waveform = clicked()
    widget = view.spectrogram(values, torch.stack([waveform, waveform]), 20000)
    assert repr(widget) == "spectrogram (100, 32), 0.8 s of sound" and "audio/mpeg" in widget.markup


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hertz": [1.0]}, "hertz: 1 numbers; expected 32"),
        ({"hertz": HERTZ[::-1]}, "hertz: .*rising"),
        ({"patch": (64, 16)}, "patch: "),
        ({"order": "mel"}, "order: 'mel'"),
        ({"hop": 0}, "hop: "),
        ({"limits": (3, 3)}, "limits: "),
    ],
)
def test_a_wrong_argument_of_a_spectrogram_is_named(options, message):
    with pytest.raises(ParameterError, match=message):
        view.spectrogram(*clicked(), 16000, **options)


def test_a_sound_that_is_none_is_refused():
    values, waveform = clicked()
    with pytest.raises(ParameterError, match="waveform: "):
        view.spectrogram(values, waveform[:0], 16000)
    with pytest.raises(ParameterError, match="waveform: "):
        view.spectrogram(values, waveform * torch.nan, 16000)
    with pytest.raises(ParameterError, match=r"spectrogram: shape \(32,\)"):
        view.spectrogram(values[0], waveform, 16000)


GRIDS = {"a": (2, 5), "v": (3, 3)}  # 10 and 9 tokens
PICTURES = {"a": torch.rand(50, 32), "v": torch.rand(3, 30, 30)}


def test_tokens_have_one_numbering(browser, tmp_path):
    removed = torch.zeros(19)
    removed[11] = 1
    widget = view.tokens(PICTURES["a"], PICTURES["v"], GRIDS, removed)
    assert repr(widget) == "19 tokens, 18 of them kept: a 2 × 5, v 3 × 3"
    with opened(browser, written(tmp_path, widget)) as page:
        sound, picture = page.locator(".av-picture").all()
        read = page.locator(".av-read")
        sound.click(position=at(sound, 0.3, 0.9))  # the lowest row is the first
        assert read.inner_text().startswith("token 1 = 0 × 5 + 1: a, row 0, column 1, bins 0–15, frames 10–19; kept")
        picture.click(position=at(picture, 0.5, 0.1))
        assert read.inner_text().startswith(
            "token 11 = 10 + 0 × 3 + 1: v, row 0, column 1, pixels down 0–9, across 10–19; removed"
        )
        assert page.get_by_label("number of a token").input_value() == "11"
        page.keyboard.press("ArrowDown")
        assert read.inner_text().startswith("token 14 = 10 + 1 × 3 + 1")
        page.get_by_label("number of a token").fill("7")
        page.keyboard.press("Enter")
        assert read.inner_text().startswith("token 7 = 1 × 5 + 2: a, row 1, column 2")


def test_a_click_shows_where_a_token_looks(browser, tmp_path):
    weights = torch.zeros(2, 19, 19)
    weights[0, 11, 3] = 1.0  # token 11 looks at token 3
    weights[1, 18, 11] = 1.0  # and token 18 at token 11, in the other head
    widget = view.attend(weights, GRIDS, PICTURES, heads="all")
    with opened(browser, written(tmp_path, widget)) as page:
        _, picture = page.locator(".av-picture").all()
        read = page.locator(".av-read")
        picture.click(position=at(picture, 0.5, 0.1))
        assert read.inner_text() == (
            "Where does token 11 (v: row 0, column 1) look? Most: token 3 (a: row 0, column 3), ≈ 1"
        )
        page.locator("input[type=range]").focus()
        page.keyboard.press("ArrowRight")
        picture.click(position=at(picture, 0.5, 0.1), modifiers=["Shift"])
        assert read.inner_text() == (
            "Who looks at token 11 (v: row 0, column 1)? Most: token 18 (v: row 2, column 2), ≈ 1"
        )


def test_attention_keeps_its_budget():
    weights = torch.rand(2, 256, 256, generator=torch.Generator().manual_seed(0))
    every = view.attend(weights, {"v": (16, 16)}, heads="all")
    assert repr(every) == "attention over 256 tokens, 2 heads"
    coarse = view.attend(weights, {"v": (16, 16)}, heads="all", budget=len(every.markup) - 1)
    assert repr(coarse) == "attention over 256 tokens, 2 heads, in 31 levels"
    assert len(coarse.markup) < len(every.markup)
    with pytest.raises(ParameterError, match=r"budget: .* characters for attention over 256 tokens"):
        view.attend(weights, {"v": (16, 16)}, heads="all", budget=20_000)


def test_attention_is_averaged_and_has_eight_bits(browser, tmp_path):
    torch.manual_seed(0)
    weights = torch.randn(4, 9, 9).softmax(-1)
    widget = view.attend(weights, {"v": (3, 3)})
    assert repr(widget) == "attention over 9 tokens, mean of 4 heads"
    with opened(browser, written(tmp_path, widget)) as page:
        box = page.locator(".av-picture")
        box.click(position=at(box, 0.9, 0.9))
        box.hover(position=at(box, 0.1, 0.5))
        told = page.locator(".av-read").inner_text()
        expected = float(weights[:, 8, 3].mean())
        assert told.startswith("token 8 (v: row 2, column 2) looks at token 3 (v: row 1, column 0): ≈ ")
        assert abs(float(told.rpartition("≈ ")[2]) - expected) < 0.02 * float(weights.mean(0).max())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: view.tokens(PICTURES["a"], grids=GRIDS), "grids: 2 for 1 pictures"),
        (lambda: view.tokens(PICTURES["a"], None, {"a": (2, 5)}, torch.zeros(9)), "removed: 9 values; expected 10"),
        (lambda: view.tokens(None, PICTURES["v"] * 2, {"v": (3, 3)}), "pictures: values from .* expected 0 to 1"),
        (lambda: view.tokens(torch.rand(5), None, {"a": (1, 5)}), r"pictures: shape \(5,\)"),
        (lambda: view.attend(torch.rand(4, 18, 18), GRIDS), r"weights: shape .* expected \(head, 19, 19\)"),
        (lambda: view.attend(torch.rand(4, 19, 19), GRIDS, heads=4), "heads: 4"),
        (lambda: view.attend(torch.rand(4, 19, 19), GRIDS, {"b": PICTURES["a"]}), "pictures: 'b'"),
    ],
)
def test_what_does_not_fit_the_grids_is_named(call, message):
    with pytest.raises(ParameterError, match=message):
        call()
