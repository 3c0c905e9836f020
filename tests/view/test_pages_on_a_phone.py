"""Prose, formulas and tables of every notebook at the width of a phone."""

import re

import nbformat
import pytest
from browsing import launched, opened  # noqa: F401  a fixture

from avlib.workbook import discover
from avlib.workbook.notebooks import Result
from avlib.workbook.report import write_page

PHONE = {"viewport": {"width": 375, "height": 700}}
WIDE = r"""$$a_{n+1} = a_n + b_n + c_n + d_n + e_n + f_n + g_n + h_n + i_n + j_n + k_n + l_n + m_n + n_n + o_n + p_n$$

| a long heading | another long heading | a third long heading | and a fourth | fifth heading |
| --- | --- | --- | --- | --- |
| 1234567890 | 1234567890 | 1234567890 | 1234567890 | 1234567890 |

`a_name_that_goes_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on`"""


def page_of(content, folder, name="11_a"):
    path = folder / f"{name}.ipynb"
    nbformat.write(content, path)
    return write_page(content, Result(name[:2], "A title", str(path), str(path), state="passed", seconds=1.0), [])


def width_of(page):
    return page.evaluate("document.documentElement.scrollWidth")


def test_the_phone_would_notice(browser, tmp_path):
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(WIDE)])
    path = page_of(content, tmp_path)
    with opened(browser, path, **PHONE) as page:
        assert width_of(page) == 375
        for part in ("table", "math"):
            assert page.evaluate(f"(e => e.scrollWidth > e.clientWidth)(document.querySelector('{part}'))"), part
    path.write_text(re.sub(r"<style>.*?</style>", "", path.read_text(), flags=re.DOTALL))
    with opened(browser, path, **PHONE) as page:
        assert width_of(page) > 375


@pytest.mark.parametrize("row", range(6))
def test_no_prose_scrolls_a_phone_sideways(browser, tmp_path, row):
    for notebook in discover():
        if notebook.number[0] == str(row):
            content = nbformat.read(notebook.path, as_version=4)
            with opened(browser, page_of(content, tmp_path, notebook.name), **PHONE) as page:
                assert width_of(page) == 375, notebook.number
