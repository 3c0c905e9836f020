"""The first cell of 00, which installs the workbook on Colab and Kaggle."""

import importlib.util
import subprocess
import sys
import tomllib

import nbformat
import pytest
from conftest import ROOT


def first_cell():
    cells = nbformat.read(ROOT / "notebooks/00_start_here.ipynb", as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize(
    ("address", "there", "runs"), [("", False, 0), ("https://a.b/c.git", True, 0), ("https://a.b/c.git", False, 1)]
)
def test_the_workbook_is_installed_where_it_is_missing(monkeypatch, capsys, address, there, runs):
    asked, find = [], importlib.util.find_spec
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append((command, check)))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: find(name, *rest) if there or name != "avlib" else None
    )
    source = first_cell()
    assert source.count('REPOSITORY = ""') == 1
    exec(source.replace('REPOSITORY = ""', f"REPOSITORY = {address!r}"), {})
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "jupyterlab" in project["optional-dependencies"]["notebooks"][0]
    package = f"{project['name']}[notebooks] @ git+{address}"
    assert asked == [([sys.executable, "-m", "pip", "install", "-q", package], True)] * runs
    assert "torch" in capsys.readouterr().out  # the versions
