"""The page of a sweep in a real browser: a table that sorts, and failures with their message."""

import math

import pytest
from browsing import launched, opened  # noqa: F401  a fixture

from avlib.workbook import sweep

RUNS = [("10", "b", 0.5), ("2", "a", 3e-5), ("1", "c", math.nan), ("9", "a", -12.0)]
MESSAGE = "ValueError: <b>it</b> & broke"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    points = [
        sweep.Point({"seed": seed, "name": name}, f"k{seed}", [], "passed", seconds=1.5, figures={"loss": loss})
        for seed, name, loss in RUNS
    ]
    points.append(sweep.Point({"seed": "3", "name": "b"}, "k3", [], "failed", MESSAGE, seconds=0.5))
    points.append(sweep.Point({"seed": "4", "name": "b"}, "k4", []))
    return sweep._report(tmp_path_factory.mktemp("sweep"), "13", points)


def test_a_click_on_a_head_sorts(browser, page):
    with opened(browser, page) as shown:

        def seeds():
            return shown.locator("#points tbody tr td:first-child").all_inner_texts()

        def head(name):
            return shown.get_by_role("columnheader", name=name)

        assert seeds() == ["10", "2", "1", "9", "3", "4"]
        shown.get_by_role("button", name="seed").click()
        assert seeds() == ["1", "2", "3", "4", "9", "10"] and head("seed").get_attribute("aria-sort") == "ascending"
        shown.get_by_role("button", name="seed").press("Enter")
        assert seeds() == ["10", "9", "4", "3", "2", "1"] and head("seed").get_attribute("aria-sort") == "descending"
        shown.get_by_role("button", name="loss").click()
        assert seeds()[:3] == ["9", "2", "10"] and head("seed").get_attribute("aria-sort") is None
        shown.get_by_role("button", name="loss").click()
        assert seeds()[:3] == ["10", "2", "9"], "what has no figure stays at the end"
        shown.get_by_role("button", name="name").click()
        assert shown.locator("#points tbody tr td:nth-child(2)").all_inner_texts() == ["a", "a", "b", "b", "b", "c"]


def test_failures_have_their_message(browser, page):
    with opened(browser, page) as shown:
        banner = shown.locator(".banner")
        assert banner.count() == 1 and banner.inner_text().splitlines() == ["✗ seed=3 name=b (log)", MESSAGE]
        assert banner.get_by_role("link", name="log").get_attribute("href") == "points/k3/log.txt"
        states = shown.locator("#points tbody tr td:nth-child(3)").all_inner_texts()
        assert states == ["✓ passed"] * 4 + ["✗ failed", "– not run"]
        assert shown.locator("#points tbody tr").nth(5).get_by_role("link").count() == 0
        assert shown.get_by_role("img", name="loss by name").count() == 1
