import random
from pathlib import Path

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from small_notebooks import PARAMETERS

from avlib import workbook
from avlib.errors import MediaError, NotebookError, ParameterError
from avlib.workbook.kernel import claim_html, inline


def kernel(*cells: str) -> dict:
    """The globals of a notebook after its cells were executed."""
    namespace = {"In": [""]}
    for cell in cells:
        namespace["In"].append(cell)
        exec(cell, namespace)
    return namespace


def test_defaults(capsys):
    namespace = kernel(PARAMETERS, "other = 1")
    checked = workbook.check(namespace)
    assert checked.values["seconds"] == namespace["seconds"] == 10.0
    assert checked.device is None
    assert "●" not in capsys.readouterr().out


def test_what_is_passed_is_converted_and_marked(capsys):
    namespace = kernel(PARAMETERS, "# Parameters\nseconds = 5\nlayers = '[3, 4]'\n")
    workbook.check(namespace)
    assert (namespace["seconds"], namespace["layers"]) == (5.0, [3, 4])
    assert type(namespace["seconds"]) is float
    assert "● default 10.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("injected", "problem"),
    [
        ("secnods = 5", "Did you mean 'seconds'"),
        ("seconds = 40", "0.1 to 30"),
        ("seconds = None", "NoneType"),
        ("size = 'huge'", '"tiny" or "full"'),
        ("flag = 1", "bool"),
    ],
)
def test_bad_values_are_refused(injected, problem):
    with pytest.raises(ParameterError, match=problem):
        workbook.check(kernel(PARAMETERS, f"# Parameters\n{injected}\n"))


def test_a_reader_sees_the_message_and_the_line_of_the_cell():
    with pytest.raises(ParameterError) as caught:
        workbook.check(kernel(PARAMETERS.replace('"tiny"  #', '"tinny"  #')))
    assert caught.value._render_traceback_() == [
        'ParameterError: size: found \'tinny\' in line 3 of the parameters cell; expected "tiny" or "full". '
        "Did you mean 'tiny'?"
    ]
    shell = InteractiveShell()
    with pytest.MonkeyPatch.context() as patch:
        shown = []
        patch.setattr(shell, "_showtraceback", lambda kind, error, lines: shown.extend(lines))
        shell.run_cell("from avlib import media\nmedia.probe('gone.mp4')")
    assert shown[0] == "line 2: media.probe('gone.mp4')"
    assert len(shown) == 2 and shown[1].startswith("MediaError: gone.mp4: no such file")


def test_paths_that_papermill_injects_are_no_parameters():
    given = "# Parameters\nseconds = 5\nPAPERMILL_INPUT_PATH = 'a.ipynb'\nPAPERMILL_OUTPUT_PATH = 'b.ipynb'\n"
    assert workbook.check(kernel(PARAMETERS, given)).values["seconds"] == 5.0


def test_cells_in_any_order():
    passed = "# Parameters\nseconds = 5\n"
    again = kernel(PARAMETERS, passed, "x = 1", PARAMETERS.replace("10.0", "7.0"))
    assert workbook.check(again).values["seconds"] == 7.0  # the cell was edited and run again, without what was passed
    scratch = kernel(PARAMETERS, "y: int = 3", "seconds = 2")
    assert workbook.check(scratch).values["seconds"] == 2.0
    assert workbook.check(scratch).values["seconds"] == 2.0


def test_settings_in_a_kernel(tmp_path):
    (tmp_path / "s.yaml").write_text("steps: 9\nseconds: 1e-1\n")  # which YAML reads as text
    namespace = kernel(PARAMETERS, f"# Parameters\nsettings = {str(tmp_path / 's.yaml')!r}\n")
    workbook.check(namespace)
    assert (namespace["steps"], namespace["seconds"]) == (9, 0.1)


@pytest.mark.parametrize("namespace", [{}, {"In": ""}, {"In": ["", "x = 1"]}])
def test_outside_a_notebook(namespace):
    with pytest.raises(NotebookError, match=r"history|no parameters cell"):
        workbook.check(namespace)


SEEDED = 'seed: int = 0  # 0 or more: seed\ndevice: str = "auto"  # "auto", "cpu", "cuda" or "mps": where'


def test_seed_and_device():
    numbers = []
    for _ in range(2):
        namespace = kernel(SEEDED)
        namespace["device"] = workbook.check(namespace).device  # under the parameter's own name, and checked again
        workbook.check(namespace)
        numbers.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002  it is what is seeded
    assert numbers[0] == numbers[1]
    with pytest.raises(ParameterError, match="4294967295"):
        workbook.check(kernel(SEEDED, f"# Parameters\nseed = {2**32}\n"))


@pytest.mark.parametrize("name", ["gpu", "cpu:1"])
def test_a_device_that_is_not_available(name):
    with pytest.raises(ParameterError, match=f"device: .*{name}"):
        workbook.check(kernel('device: str = "auto"  # where', f"device = {name!r}"))


def test_claims_and_figures_as_text(capsys):
    workbook.claim("A", source="notes", measured="3 < 4", holds=np.array(3) < 4, when="it rains")
    workbook.claim("B", source="notes", measured="4", holds=torch.tensor(False))
    workbook.measured("frames", np.int64(998))
    workbook.measured("ratio", 0.123456, "dB")
    out = capsys.readouterr().out
    for part in ("◐ holds when it rains", "✗ does not hold", "frames: 998", "ratio: 0.1235 dB"):
        assert part in out
    for bad in ("False", 1, None):
        with pytest.raises(ParameterError, match="holds"):
            workbook.claim("C", source="", measured="", holds=bad)
    for bad in (float("nan"), True):
        with pytest.raises(ParameterError, match="finite"):
            workbook.measured("x", bad)


def test_finding_says_what_was_measured_and_how_it_compares(capsys):
    words = [workbook.versus(value, 0.5, "lower|equal|higher", within=0.125) for value in (0.25, 0.625, 0.75)]
    assert words == ["lower", "equal", "higher"]
    assert workbook.versus(torch.tensor(2), np.float32(1)) == "above"
    workbook.finding(f"A loss of `0.2` is {workbook.versus(0.2, 0.3)} the baseline's.")
    assert capsys.readouterr().out == "A loss of `0.2` is below the baseline's.\n"
    with pytest.raises(ParameterError, match="two finite numbers"):
        workbook.versus(float("nan"), 1)
    with pytest.raises(ParameterError, match="three"):
        workbook.versus(1, 2, "less|more")


def test_what_is_refused_is_said_and_handed_back(capsys, tmp_path):
    def read(path, *, task):
        raise MediaError(path, task, "a sound", f"See https://a.org/b/c or {tmp_path}/other one.wav, and/or ask.")

    error = workbook.refused(read, tmp_path / "half.wav", task="is cut off")
    assert type(error) is MediaError and Path(error.subject) == tmp_path / "half.wav"
    said = " ".join(capsys.readouterr().out.split())
    advice = "See https://a.org/b/c or other one.wav, and/or ask."
    assert said == f"MediaError: half.wav: is cut off; expected a sound. {advice}"


def test_what_should_be_refused_and_is_not_fails():
    with pytest.raises(AssertionError, match="was accepted"):
        workbook.refused(abs, -1)
    with pytest.raises(ZeroDivisionError):  # what is no refusal passes through
        workbook.refused(divmod, 1, 0)


def test_claims_are_escaped():
    record = {"statement": "<script>", "source": "https://a.org/?b=1&c=2, `<i>`", "measured": "<img>"}
    markup = claim_html(record, "holds", "holds <b>")
    assert not any(tag in markup for tag in ("<script", "<img", "<b>", "<i>"))
    assert '<a href="https://a.org/?b=1&amp;c=2">' in markup
    assert "<code>&lt;i&gt;</code>" in markup
    assert "<a " not in inline("javascript:alert(1) https:// http://")


def test_versions(capsys):
    workbook.versions("torch", "no-such-package")
    out = capsys.readouterr().out
    assert ("no GPU" in out) == (not torch.cuda.is_available() and not torch.backends.mps.is_available())
    assert f"torch {torch.__version__.split('+')[0]}" in out and "no-such-package not installed" in out
    workbook.versions()
    assert "GPU" not in capsys.readouterr().out  # without torch nobody knows
