"""A run as a site: what leads where, the search, and nothing from outside."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from browsing import launched, opened

from avlib import view
from avlib.__main__ import main
from avlib.errors import NotebookError
from avlib.workbook import site
from avlib.workbook.notebooks import Result
from avlib.workbook.report import write_report

browser = launched
TEXT = """# {} A title

See [the next](12_b.ipynb), [one that was not run](../2_x/21_x.ipynb#part), [answers](../answers.md),
[home](../../README.md).

## Hop & window

The hop length is {} samples.<br>

### Whisper's "mel"

It has 80 bins.

## Exercises

Why?"""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two notebooks, and one that never began."""
    folder, results = tmp_path_factory.mktemp("run"), []
    for number, name, hop in (("11", "11_a", 160), ("12", "12_b", 320)):
        code = nbformat.v4.new_code_cell("view.inspect(x)", execution_count=1)
        inspector = view.inspect(torch.arange(6.0).reshape(2, 3))._repr_html_()
        shown = [{"text/html": inspector + "<script src='https://example.org/x.js'></script>"}, {"image/png": PNG}]
        code.outputs = [nbformat.v4.new_output("display_data", data=data) for data in shown]
        cells = [nbformat.v4.new_markdown_cell(TEXT.format(number, hop)), code]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
        where = {"notebook": f"/gone/notebooks/1_a/{name}.ipynb", "output": f"/gone/run/{name}.ipynb"}
        claims = [{"statement": "It is so", "source": "note", "measured": "1", "holds": True, "notebook": number,
                   "cell": code.id, "verdict": "holds", "kind": "holds", "when": "", "note": ""}]  # fmt: skip
        results.append(Result(number, "A title", **where, state="passed", seconds=2.0, claims=claims))
    results.append(Result("13", "Never", "/gone/notebooks/1_a/13_c.ipynb", "/gone/run/13_c.ipynb"))
    write_report(folder, results, {"started": "2026", "state": "passed", "seconds": 4.0, "versions": {"torch": "2"}})
    return folder


@pytest.fixture(scope="module")
def built(run, tmp_path_factory):
    return site.build(run, tmp_path_factory.mktemp("site")).parent


def test_every_link_leads_to_a_page_that_is_there(built):
    pages = {path.name: path.read_text() for path in built.glob("*.html")}
    assert set(pages) == {"index.html", "report.html", "search.html", "answers.html", "11_a.html", "12_b.html"}
    for name, text in pages.items():
        for link in re.findall(r'href="([^"#?]+)', text):
            assert link in pages or link.startswith("https://"), f"{name}: {link}"
    assert 'href="12_b.html"' in pages["11_a.html"] and 'href="index.html#part"' in pages["11_a.html"]
    assert 'href="answers.html"' in pages["11_a.html"] and "example.org" not in pages["11_a.html"]
    assert 'href="#Hop-%26-window"' in pages["11_a.html"] and PNG in pages["index.html"]
    assert "not in this run" in pages["index.html"] and "It is so" in pages["report.html"]


def test_search_finds_a_section_and_leads_there(browser, built):
    with opened(browser, built / "index.html", viewport={"width": 390, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.get_by_role("searchbox").fill("HOP 320")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("status").get_by_text("1 section", exact=True).wait_for()
        page.get_by_role("link", name="12 A title: Hop & window").click()
        assert Path(page.url.partition("#")[0]).name == "12_b.html"
        assert page.evaluate("document.querySelector(':target').textContent").startswith("Hop & window")
        page.locator("summary", has_text="Contents").click()
        page.get_by_role("link", name="Whisper's").click()
        assert page.evaluate("document.querySelector(':target').textContent").startswith('Whisper\'s "mel"')
        page.get_by_role("link", name="Exercises").click()
        assert page.url.endswith("#Exercises")
        box = page.locator(".av-picture")  # alive under the page's policy
        box.hover(position={"x": 2, "y": 2})
        assert page.locator(".av-read").inner_text().endswith("0")
    with opened(browser, (built / "search.html").as_uri() + "?q=80 bins") as page:
        page.get_by_role("link", name="11 A title: Whisper's").wait_for()
    with opened(browser, (built / "search.html").as_uri() + "?q=zebra") as page:
        assert page.get_by_role("status").inner_text() == "0 sections"


def test_what_is_no_run_is_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["site"]) == 2 and "outputs: holds no run" in capsys.readouterr().err
    with pytest.raises(NotebookError, match="cannot be read"):
        site.build(tmp_path, tmp_path / "site")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/mine.txt").touch()
    assert main(["site", str(run)]) == 2 and "holds files already" in capsys.readouterr().err
    assert main(["site", str(run), "--out", "new"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new/index.html")
