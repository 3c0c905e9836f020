"""A saved notebook in JupyterLab: alive if trusted, and a picture with a hint if not. No kernel is started."""

import os
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
import torch
from browsing import launched, opened, told_at
from nbformat.sign import NotebookNotary

from avlib import view
from avlib.workbook import exercises

browser = launched
RAMP = torch.arange(2 * 3 * 4).reshape(2, 3, 4)


def answered():
    """Markup of an exercise that got a wrong answer, as a notebook keeps it."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exercises, "show", lambda kind, record, text, markup: shown.append(markup))
        exercises.exercise("How many frames?", answer=301, check={"Count whole windows only.": lambda n: n == 298})
    return shown[0]


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """The address of a Lab without kernels, whose folder has a signed notebook and one that nobody signed."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "notebooks"
    folder.mkdir()
    (home / "data").mkdir()
    data = {"text/html": view.inspect(RAMP, "head query key", "scores").markup, "text/plain": "scores"}
    output = nbformat.v4.new_output("execute_result", data, execution_count=1)
    asked = nbformat.v4.new_output("display_data", {"text/html": answered()})
    for name in ("trusted", "untrusted"):  # of different contents, since a signature is that of the contents
        cell = nbformat.v4.new_code_cell(f"'{name}'", outputs=[output, asked], execution_count=1)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / f"{name}.ipynb")
    environment = os.environ | {"HOME": str(home), "JUPYTER_PREFER_ENV_PATH": "0"}
    environment |= {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    NotebookNotary(data_dir=str(home / "data")).sign(nbformat.read(folder / "trusted.ipynb", 4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--IdentityProvider.token=",
        f"--notebook-dir={folder}",
    ]
    options += ["--KernelSpecManager.ensure_native_kernel=False", '--KernelSpecManager.allowed_kernelspecs=["none"]']
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, due = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        try:
            urlopen(f"{address}/api").close()
            break
        except URLError:
            assert process.poll() is None and time.monotonic() < due, "Lab does not start"
            time.sleep(0.2)
    yield address
    process.kill()  # nothing of it is needed any more
    process.wait()


def test_a_trusted_notebook_is_alive_without_a_kernel(browser, lab):
    with opened(
        browser, f"{lab}/lab/tree/trusted.ipynb?reset", allowed=(lab, "data:", "blob:", "ws:"), strict=False
    ) as page:
        dialog = page.locator(".jp-Dialog")  # asks for a kernel, of which there is none
        page.add_locator_handler(dialog, lambda: page.keyboard.press("Escape"))
        box = page.locator(".av-widget .av-picture")
        box.wait_for(timeout=40_000)
        expected = "head 0, query 2, key 3: 11"
        assert told_at(page, box, 0.9, 0.9, expected) == expected
        assert not page.locator(".av-hint").is_visible()
        assert page.get_by_text("Not yet. Count whole windows only.").is_visible()


def test_an_untrusted_notebook_shows_a_picture_and_says_why(browser, lab):
    with opened(
        browser, f"{lab}/lab/tree/untrusted.ipynb?reset", allowed=(lab, "data:", "blob:"), strict=False
    ) as page:
        hint = page.get_by_text("this notebook is not trusted")
        hint.wait_for(timeout=40_000)
        assert hint.is_visible() and page.locator(".av-picture").count() == 0
        assert page.get_by_text("Not yet. Count whole windows only.").is_visible()
        still = page.locator("img[alt='the tensor as a picture']")
        assert still.evaluate("picture => picture.complete && picture.naturalWidth") == 4
