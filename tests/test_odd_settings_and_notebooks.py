"""Settings files, notebooks and checkpoints as users have them: the right value, or an error of avlib's."""

import json
import warnings

import pytest
import torch

from avlib import checkpoints
from avlib.errors import CheckpointError, NotebookError, ParameterError
from avlib.workbook.notebooks import Notebook
from avlib.workbook.parameters import read_settings


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: 0\nb: -7\nc: 0.5\n", {"a": 0, "b": -7, "c": 0.5}),
        ("a: '010'\nb: '2020-01-01'", {"a": "010", "b": "2020-01-01"}),
        ("a: &x {p: 1}\nb: {<<: *x, q: yes}\n", {"a": {"p": 1}, "b": {"p": 1, "q": True}}),
    ],
)
def test_healthy_settings(tmp_path, text, values):
    (tmp_path / "s.yaml").write_text(text)
    assert read_settings(str(tmp_path / "s.yaml")) == values


@pytest.mark.parametrize(
    "value",
    [
        *("010", "-007", "1:30", "1:30.5", "2020-01-01", "2020-13-45", "1" + "0" * 400, "!!set {x}", "!!binary aGk="),
        *("!!omap [x: 1]", "!!bool abc", "!!timestamp abc", "!!python/object:os.system {}"),
    ],
)
def test_odd_settings_are_refused(tmp_path, value):
    (tmp_path / "s.yaml").write_text(f"a: {value}\n")
    with pytest.raises(ParameterError, match=r"s\.yaml cannot be read"):
        read_settings(str(tmp_path / "s.yaml"))


def _notebook(path, title="# 11 Title #", line="steps: int = 3  # 1 or more: steps"):
    cells = [{"cell_type": "markdown", "metadata": {}, "source": title}]
    cells.append({"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": line, "outputs": []})
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return Notebook(path)


def test_titles_of_notebooks(tmp_path):
    assert _notebook(tmp_path / "11_x.ipynb").title == "Title"
    assert _notebook(tmp_path / "11_x.ipynb", f"# 11 a{' ' * 100_000}b").title == f"a{' ' * 100_000}b"
    with pytest.raises(NotebookError, match="not a notebook"):
        _ = _notebook(tmp_path / "11_x.ipynb", {"# Title": 1}).title


@pytest.mark.parametrize("line", ['a: str = "\ud800"  # x', "a: int = " + "-" * 50_000 + "3  # x"])
def test_odd_parameters_of_a_notebook(tmp_path, line):
    with pytest.raises(NotebookError, match="no Python"):
        _ = _notebook(tmp_path / "11_x.ipynb", line=line).parameters


@pytest.mark.parametrize("words", ["007 or 08", r'"\x" or "a"'])
def test_odd_choices_of_a_parameter(tmp_path, words):
    with pytest.raises(NotebookError, match="allowed values of a"):
        _ = _notebook(tmp_path / "11_x.ipynb", line=f'a: str = "a"  # {words}: x').parameters


@pytest.mark.parametrize("form", ["{}  {}", "{} *{}", "{}\t{}", "{}  ./{}", "\ufeff{}  {}"])
def test_forms_of_checksums(tmp_path, form):
    checkpoints.save(tmp_path / "model", {"a": torch.arange(3.0)}, {})
    sums = tmp_path / "model" / "SHA256SUMS"
    digest, name = sums.read_text().split()
    sums.write_text(form.format(digest.upper(), name))
    assert checkpoints.read(tmp_path / "model").tensors["a"].tolist() == [0, 1, 2]
    sums.write_text(form.format("0" * 64, name))
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoints.read(tmp_path / "model")


def test_odd_checkpoints_are_refused(tmp_path):
    with warnings.catch_warnings(action="ignore"):  # such tensors are deprecated, and in files
        torch.save({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, tmp_path / "a.pt")
    for path in (tmp_path / "a.pt", "x" * 5000, "a\0.pt"):
        with pytest.raises(CheckpointError):
            checkpoints.read(path)
    (tmp_path / "config.json").write_text('{"width": 1, "width": 2}')
    with pytest.raises(CheckpointError, match="twice"):
        checkpoints.read_config(tmp_path / "config.json")
