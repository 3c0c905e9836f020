"""A real browser for inspectors: without a network, and with an ear for every complaint."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module", name="browser")
def launched():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; on Debian: apt install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, path, *, allowed=("data:", "file:", "blob:"), strict=True, **options):
    """A page of a file or address. It must not ask for anything outside, nor, if strict, write to the console."""
    context = browser.new_context(**{"viewport": {"width": 1000, "height": 900}} | options)
    page, troubles = context.new_page(), []
    page.on(
        "console", lambda message: strict and message.type in ("error", "warning") and troubles.append(message.text)
    )
    page.on("pageerror", lambda error: strict and troubles.append(str(error)))
    page.on("request", lambda request: request.url.startswith(allowed) or troubles.append(request.url))
    page.goto(path if isinstance(path, str) else path.as_uri())
    try:
        yield page
        assert troubles == []
    finally:
        context.close()


def written(folder, *widgets, name="saved.html"):
    """The outputs as a page saved by something that knows nothing of them."""
    path = folder / name
    head = '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    path.write_text(head + "".join(widget._repr_html_() for widget in widgets))
    return path


def at(box, x, y):
    """The position within a picture that these shares of its width and height mean."""
    place = box.bounding_box()
    return {"x": x * place["width"], "y": y * place["height"]}


def told_at(page, box, x, y, expected):
    """Point until a page that still moves has settled, for five seconds at most; return what was told last."""
    for _ in range(20):
        box.hover(position=at(box, x, y))
        told = page.locator(".av-read").first.inner_text()
        if told == expected:
            break
        page.wait_for_timeout(250)
    return told
