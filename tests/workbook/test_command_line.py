import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import pytest
from nbformat.sign import NotebookNotary
from small_notebooks import CHECK, PARAMETERS, avlib, write

from avlib import workbook
from avlib.errors import CacheError, NotebookError, ParameterError
from avlib.workbook.notebooks import Notebook

FORMULAS = r"""#md
## A section

Inline $w = \frac{a}{b}$ and $\frobnicate{x}$.

$$\begin{aligned} a &= b \\ c &= d \end{aligned}$$

\begin{align} m(f) &= 1127 \ln(1 + f) \end{align}

![remote](https://example.org/x.png) <img src="https://example.org/y.png">
<script src="http://example.org/z.js"></script>
[the next](../12_fails.ipynb), [the answers](../answers.md) and [one that was not run](../99_else.ipynb)"""
OUTPUTS = """\
import ipywidgets
from IPython.display import HTML, Math, display

display(ipywidgets.VBox([ipywidgets.IntSlider(5)]))
tags = "<script>alert(1)</script><link href='https://example.org/a.css'><img src=//example.org/b.png>"
display(HTML("<b>bold</b>" + tags))
display(Math(r"x^2"))
print("<script>alert(2)</script>")"""
CLAIMS = """\
workbook.claim("<i>A</i> is B", source="notes, https://example.org", measured=f"{seconds}", holds=seconds == 10)
workbook.claim("C is D", source="notes", measured="1 < 2", holds=True, when="it is so")
workbook.measured("seconds", seconds, "s")"""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    """A workbook of little notebooks: one that passes, and one for each way to fail."""
    folder = tmp_path_factory.mktemp("notebooks")
    write(folder / "1_a/11_passes.ipynb", CHECK, FORMULAS, OUTPUTS, CLAIMS, title="# 11 It <b>passes</b>\n\nYes.")
    write(folder / "12_fails.ipynb", CHECK, "def f():\n    return 1 / 0", "print('before')\nf()", "print('after')")
    write(folder / "21_dies.ipynb", CHECK, "import os\nos.kill(os.getpid(), 9)", "print('after')")
    write(folder / "22_hangs.ipynb", CHECK, "print('waiting', flush=True)\nimport time\ntime.sleep(60)")
    write(folder / "23_fewer.ipynb", CHECK, parameters=PARAMETERS.split("\n")[0])
    return folder


@pytest.fixture(scope="module")
def ran(notebooks, tmp_path_factory):
    """One run of all of them: what the command said, and the folder that it wrote."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = avlib(notebooks, "run", "-p", "seconds=5", "--jobs", "2", "--cell-timeout", "3", cwd=cwd)
    return done, next((cwd / "outputs").iterdir())


def test_the_others_run_when_one_fails(ran):
    done, folder = ran
    assert done.returncode == 1
    states = {each["number"]: (each["state"], each["reason"]) for each in report(folder)["notebooks"]}
    assert states == {
        "11": ("passed", ""),
        "12": ("failed", "exception"),
        "21": ("failed", "kernel died"),
        "22": ("failed", "timeout"),
        "23": ("passed", ""),
    }


def test_failures_are_told_apart_in_words(ran):
    done, folder = ran
    for words in (
        "ZeroDivisionError: division by zero",
        "----> 2     return 1 / 0",
        "    print('before')",
        "kernel died in cell 4: it was killed, probably because it ran out of memory",
        "cell 4 ran longer than 3 s",
    ):
        assert words in done.stdout
    assert "Traceback" not in done.stderr
    page = (folder / "12_fails.html").read_text()
    assert "before" in page and "after" in page and "✗ failed" in page
    for name, shown in (("12_fails", "before"), ("22_hangs", "waiting")):
        outputs = [output for cell in cells(folder / f"{name}.ipynb") for output in cell.get("outputs", [])]
        assert any(shown in output.get("text", "") for output in outputs)
    assert "papermill" not in (folder / "21_dies.ipynb").read_text()


def test_lab_trusts_what_was_executed_here(ran):
    _, folder = ran
    notary = NotebookNotary()
    for name in ("11_passes", "12_fails"):
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        assert notary.check_signature(notebook)
        notebook.cells[0].source += "changed"
        assert not notary.check_signature(notebook)
    notary.store.close()


def test_progress_in_plain_lines(ran):
    done, _ = ran
    assert "11  cell 1 of" in done.stderr and "12  failed in" in done.stderr
    assert "\r" not in done.stderr


def test_claims_and_figures_are_collected(ran):
    _, folder = ran
    first, second = json.loads((folder / "claims.json").read_text())
    assert (first["holds"], first["verdict"], second["verdict"]) == (False, "does not hold", "holds when it is so")
    assert first["notebook"] == "11" and first["measured"] == "5.0"
    (figure,) = json.loads((folder / "measured.json").read_text())
    assert (figure["name"], figure["value"], figure["unit"]) == ("seconds", 5.0, "s")


def test_the_run_is_described(ran):
    _, folder = ran
    run = report(folder)
    assert run["state"] == "failed" and run["versions"]["papermill"] == papermill.__version__
    assert run["notebooks"][0]["parameters"]["seconds"] == 5.0
    assert run["notebooks"][0]["parameters"]["size"] == "tiny"
    assert {"commit", "python", "platform", "cpus", "avlib", "seconds", "started"} <= set(run)


def test_pages_need_no_network_and_run_no_script(ran):
    from html.parser import HTMLParser

    _, folder = ran
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    for page in folder.glob("*.html"):
        parser.feed(page.read_text())
    assert {"html", "style", "a", "math"} <= {tag for tag, _ in tags} and "script" not in {tag for tag, _ in tags}
    for tag, attributes in tags:
        loads = [attributes.get(name, "") or "" for name in ("src", "srcset", "poster", "data")]
        loads += [attributes.get("href", "")] if tag != "a" else []
        assert not any("//" in load and not load.startswith("data:") for load in loads), (tag, attributes)


def test_formulas_widgets_and_links_on_a_page(ran):
    _, folder = ran
    page = (folder / "11_passes.html").read_text()
    assert page.count("<math") == 4 and "<mtable" in page and "<msup>" in page
    assert r'<code class="formula">\frobnicate{x}</code>' in page
    assert "VBox(" not in page and "<b>bold</b>" in page  # in the code, a tag stands before the bracket
    assert "&lt;script&gt;alert(2)" in page
    assert 'href="12_fails.html"' in page and 'href="https://example.org/x.png"' in page
    assert "notebooks0/answers.md" in page and 'href="../answers.md"' not in page
    assert "99_else.ipynb" in page and 'href="../99_else.ipynb"' not in page
    assert 'id="A-section"' in page and 'href="index.html"' in page
    assert "prefers-color-scheme" in page and "Content-Security-Policy" in page


def test_the_index_has_every_place_of_the_table(ran):
    _, folder = ran
    index = (folder / "index.html").read_text()
    for slot in workbook.table().slots:
        assert f"<b>{slot.number}" in index
    assert index.count("not built yet</span>") == 22  # 27 places, of which five are there
    assert 'href="11_passes.html#cell-id=' in index and "✗ does not hold" in index
    assert "<i>A</i>" not in index and "&lt;i&gt;A&lt;/i&gt;" in index


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["11", "-p", "secnods=5"], ["ParameterError", "secnods", "in 11", "Did you mean 'seconds'"]),
        (["1", "-p", "seconds=x"], ["ParameterError", "seconds", "str 'x'", "float"]),
        (["11", "-p", "seconds=31"], ["ParameterError", "seconds", "31.0", "0.1 to 30"]),
        (["11", "-p", "size=huge"], ["ParameterError", "size", "huge", '"tiny" or "full"']),
        (["11", "-p", "clip=none.mp4"], ["ParameterError", "clip", "no such file"]),
        (["-p", "steps=5"], ["ParameterError", "steps", "in 23 (only in 11, 12, 21, 22)"]),
        (["11", "-p", "seconds"], ["ParameterError", "NAME=VALUE"]),
        (["11", "-p", "out_dir=file/below"], ["CacheError", "file/below"]),
        (["11", "--out", "file/below"], ["CacheError", "file/below"]),
        (["11", "--out", "."], ["CacheError", "holds files already"]),
        (["31"], ["NotebookError", "31", "not built yet"]),
        (["77"], ["NotebookError", "77"]),
        (["x.ipynb"], ["NotebookError", "x.ipynb"]),
    ],
)
def test_bad_input_is_refused_before_anything_starts(notebooks, tmp_path, capsys, monkeypatch, arguments, words):
    from avlib.__main__ import main

    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVLIB_NOTEBOOKS", str(notebooks))
    assert main(["run", *arguments]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert len(said.splitlines()) == 1
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_threads_wait_passively(notebooks, tmp_path, monkeypatch):
    """In kernels, and in processes that torchrun starts with a command."""
    from avlib.__main__ import main

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    notebook = write(tmp_path / "11_a.ipynb", "import os\nassert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'")
    result = workbook.run_one(notebook, {}, tmp_path / "o/11.ipynb")
    assert result.state == "passed", result.message
    monkeypatch.setenv("AVLIB_NOTEBOOKS", str(notebooks))
    assert main(["list"]) == 0 and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_notebooks_that_train_begin_before_those_that_take_their_models(tmp_path):
    for number in ("00", "11", "13", "14", "23", "25"):
        shared = f"import os\nassert os.environ['OMP_NUM_THREADS'] == '{max(1, (os.cpu_count() or 1) // 2)}'"
        write(tmp_path / f"n/{number}_x.ipynb", shared, "1")
    done = avlib(tmp_path / "n", "run", "--out", "o", cwd=tmp_path, OMP_NUM_THREADS="7")
    assert done.returncode == 0
    assert [each["number"] for each in report(tmp_path / "o")["notebooks"]] == ["00", "11", "13", "14", "23", "25"]
    lines = [line.split()[:2] for line in done.stderr.splitlines() if "cell 1 of" in line or "passed" in line]
    assert {number for number, _ in lines[:2]} == {"13", "23"}
    for model, user in (("13", "14"), ("23", "25")):
        assert lines.index([model, "passed"]) < lines.index([user, "cell"])


def test_odd_values_and_two_runs_at_once(notebooks, tmp_path):
    name = '-5 = 50% {a} "b" \\ 한국어\nnext'
    copy = tmp_path / "with space {and braces}"
    write(copy / "11_a.ipynb", CHECK, f"assert name == {name!r}\nassert layers == [3, -4]\nassert flag is True")
    command = [sys.executable, "-m", "avlib", "run", "-p", f"name={name}", "11", "-p", "layers=3,-4", "-p", "flag=true"]
    variables = os.environ | {"AVLIB_NOTEBOOKS": str(copy), "PYTHONIOENCODING": "ascii"}
    runs = [subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE) for _ in range(2)]
    said = [run.communicate(timeout=60)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert len(list((tmp_path / "outputs").iterdir())) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_ends_the_kernels_and_leaves_a_report(notebooks, tmp_path, number):
    write(tmp_path / "n/11_a.ipynb", "import os\nprint(os.getpid(), flush=True)\nimport time\ntime.sleep(60)")
    write(tmp_path / "n/12_b.ipynb", "1")
    variables = os.environ | {"AVLIB_NOTEBOOKS": str(tmp_path / "n")}
    command = [sys.executable, "-m", "avlib", "run", "--out", "o", "--jobs", "1"]
    how = {"cwd": tmp_path, "env": variables, "stderr": subprocess.PIPE, "text": True}
    # Tests in the background may have inherited that the signal is ignored, and would hand it down.
    before = signal.signal(number, signal.SIG_DFL)
    run = subprocess.Popen(command, **how)
    signal.signal(number, before)
    with run:
        assert "cell 1 of" in run.stderr.readline()
        time.sleep(1)
        run.send_signal(number)
        try:
            run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    assert [each["state"] for each in report(tmp_path / "o")["notebooks"]] == ["interrupted", "not run"]
    kernel = int(cells(tmp_path / "o/11_a.ipynb")[2]["outputs"][0]["text"])
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)


@pytest.mark.parametrize(("value", "error"), [("5", ""), ("40", "0.1 to 30"), ("x", "float")])
def test_plain_papermill_checks_too(notebooks, tmp_path, value, error):
    command = ["papermill", notebooks / "23_fewer.ipynb", "out.ipynb", "-p", "seconds", value, "--no-progress-bar"]
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == bool(error)
    assert error in done.stderr and ("ParameterError" in done.stderr) == bool(error)


def test_plain_papermill_with_a_misspelt_name(notebooks, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="Did you mean 'seconds'"):
        run = tmp_path / "out.ipynb"
        papermill.execute_notebook(notebooks / "23_fewer.ipynb", run, {"secnods": 5}, progress_bar=False)


def test_one_notebook_from_python(notebooks, tmp_path, monkeypatch):
    seen = []
    source = notebooks / "23_fewer.ipynb"
    # A kernel of that name which a user has installed is not taken.
    write_kernel(tmp_path / "jupyter/kernels/python3")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    progress = lambda *place: seen.append(place)  # noqa: E731
    result = workbook.run_one(source, {"seconds": 1}, tmp_path / "o/23.ipynb", progress=progress)
    assert (result.state, result.parameters, seen[-1]) == ("passed", {"seconds": 1.0}, (3, 3))
    assert "index.html" not in (tmp_path / "o/23.html").read_text()
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(ParameterError, match="Did you mean 'seconds'"):
        workbook.run_one(source, {"second": 1}, tmp_path / "o/23.ipynb")
    with pytest.raises(NotebookError, match="overwrite"):
        workbook.run_one(source, {}, source)
    with pytest.raises(CacheError):
        workbook.run_one(source, {}, source / "below/23.ipynb")


def test_a_kernel_that_does_not_start(notebooks, tmp_path):
    broken = {"PYTHONHOME": "/no/such/folder"}
    result = workbook.run_one(notebooks / "23_fewer.ipynb", {}, tmp_path / "23.ipynb", environment=broken)
    assert (result.state, result.reason) == ("failed", "runner") and "Kernel died" in result.message
    assert "encodings" in result.traceback  # what the kernel said at its end


@pytest.mark.parametrize("times", [1, 9])
def test_a_port_that_another_program_took(notebooks, tmp_path, times):
    """The kernel starts again, and not for ever. What the interpreter loads at its start stands for the port."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, sys\n"
        f"tries = pathlib.Path({str(tmp_path / 'tries')!r})\n"
        "if '-f' in sys.argv:\n"
        "    tries.open('a').write('x')\n"
        f"    if len(tries.read_text()) <= {times}:\n"
        "        sys.stderr.write('zmq.error.ZMQError: Address already in use')\n"
        "        __import__('os')._exit(1)\n"
    )
    kernel = {"PYTHONPATH": str(tmp_path)}
    result = workbook.run_one(notebooks / "23_fewer.ipynb", {}, tmp_path / "o/23.ipynb", environment=kernel)
    assert (result.state, (tmp_path / "tries").read_text()) == (("passed", "xx") if times == 1 else ("failed", "xxx"))


def test_no_output_is_lost(tmp_path):
    """More outputs than ZeroMQ queues by default."""
    lines = "for line in range(4000):\n    print(line, flush=True)"
    claims = """\
for number in range(2500):
    workbook.claim(f"{number}", source="notes", measured="1" * 200, holds=True)"""
    notebook = write(tmp_path / "11_many.ipynb", CHECK, lines, claims)
    result = workbook.run_one(notebook, {}, tmp_path / "o/11.ipynb")
    assert result.state == "passed", result.message
    assert [claim["statement"] for claim in result.claims] == [str(number) for number in range(2500)]
    printed = cells(tmp_path / "o/11.ipynb")[3]
    assert "".join(output["text"] for output in printed["outputs"]).split() == [str(line) for line in range(4000)]


LOSE = """\
from ipykernel.kernelapp import IPKernelApp
socket = IPKernelApp.instance().iopub_thread.socket
send = socket.send_multipart
socket.send_multipart = lambda parts, *how, **more: None if b"lo" + b"st" in parts[-2] else send(parts, *how, **more)
print("lo" + "st", flush=True)
print("here", flush=True)"""
THREAD = """\
import threading, time
threading.Thread(target=lambda: (time.sleep(0.5), print("late", flush=True))).start()"""
RECORDS = """\
for kind, record in [("claim", [1]), ("measured", {"name": "x", "value": "1"}), ("versions", 3), ("claim", {})]:
    get_ipython().display_pub.publish({"text/plain": "shown", f"application/vnd.avlib.{kind}+json": record})
workbook.claim("fine", source="notes", measured="1", holds=True)"""
ESCAPES = r"raise ValueError('\x1b[2J\x1b]0;owned\x07 \x9b31m \u202e \ud800')"


@pytest.fixture(scope="module")
def accidents(tmp_path_factory):
    """One run of notebooks that end oddly, whose standard output and error are closed after the first line."""
    folder = tmp_path_factory.mktemp("accidents")
    write(folder / "n/11_exits.ipynb", "import sys\nsys.exit(0)", "print('after')")
    write(folder / "n/12_loses.ipynb", LOSE)
    write(folder / "n/13_late.ipynb", THREAD, "time.sleep(1)", "print('\\ud83d')")
    write(folder / "n/14_records.ipynb", CHECK, RECORDS)
    write(folder / "n/15_escapes.ipynb", ESCAPES, title="# \x1b[31mRed\n\nYes.")
    with (folder / "n/13_late.ipynb").open("r+") as file:
        content = json.loads(file.read()) | {"metadata": None}
        content["cells"][0]["metadata"] = {"tags": None}
        file.seek(0)
        file.write("\ufeff" + json.dumps(content))
        file.truncate()
    command = [sys.executable, "-m", "avlib", "run", "--out", "o"]
    variables = os.environ | {"AVLIB_NOTEBOOKS": str(folder / "n"), "TMPDIR": str(folder)}
    old = folder / "avlib-old"
    old.mkdir()
    (old / "lock").touch()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=folder, env=variables, **pipes) as run:
        assert b"cell 1 of" in run.stdout.readline()
        assert report(folder / "o")["state"] == "running"
        run.stdout.close()
    assert run.returncode == 1 and (folder / "o/index.html").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["n", "o"], "nothing temporary is left"
    return folder


def test_passed_means_that_every_cell_ran_and_every_output_came(accidents):
    found = {
        each["number"]: (each["state"], each["reason"], each["message"])
        for each in report(accidents / "o")["notebooks"]
    }
    assert found["11"] == (
        "failed",
        "incomplete",
        "cell 2 of 3: ended the notebook; expected cells that run to their end.",
    )
    assert found["12"][:2] == ("failed", "incomplete") and "outputs: 1 did not arrive" in found["12"][2]
    assert found["13"] == ("passed", "", "")
    late, half = cells(accidents / "o/13_late.ipynb")[3:]
    assert late["outputs"][0]["text"] == "late\n" and half["outputs"][0]["text"] == "\ud83d\n"


def test_a_malformed_record_fails_its_notebook_alone(accidents):
    found = report(accidents / "o")["notebooks"][3]
    assert found["state"] == "failed" and "malformed record of a claim" in found["message"]
    (claim,) = json.loads((accidents / "o/claims.json").read_text())
    assert (claim["statement"], claim["notebook"]) == ("fine", "14")


def test_escape_sequences_do_not_reach_the_terminal(accidents):
    found = report(accidents / "o")["notebooks"][4]
    assert (
        found["message"] == r"ValueError: \x1b[2J\x1b]0;owned\x07 \x9b31m \u202e \ud800"
        and "\x1b" not in found["traceback"]
    )
    done = avlib(accidents / "n", "list", "15", cwd=accidents)
    assert done.stdout.startswith("15  \\x1b[31mRed\n")
    assert "\x1b" not in str(NotebookError("\x1b[2J", "a\rb"))


@pytest.mark.parametrize("streams", [">&- 2>&-", "> /dev/full 2>&1", "2>&1 | true"])
def test_a_command_without_a_reader_ends_well(notebooks, tmp_path, streams):
    command = f"{sys.executable} -m avlib list 11 {streams}; echo ${{PIPESTATUS[0]}} > code"
    subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"AVLIB_NOTEBOOKS": str(notebooks)}, check=True
    )
    assert (tmp_path / "code").read_text() == "0\n"


CELL = '{"cells": [{"cell_type": "code", "source": %s, "metadata": %s}]}'


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "null", '{"cells": null}', '{"cells": [null]}', '{"cells": [], "metadata": "a"}',
     CELL % ("null", "{}"), CELL % ('""', "[1]"), CELL % ('""', '{"tags": 3}'),
     CELL.replace('"code"', "null") % ('""', "{}")],
    ids=lambda text: text[:80],
)  # fmt: skip
def test_a_file_that_is_no_notebook(tmp_path, content):
    (tmp_path / "11_a.ipynb").write_text(content)
    with pytest.raises(NotebookError, match="not a notebook"):
        Notebook(tmp_path / "11_a.ipynb").parameters  # noqa: B018


def write_kernel(folder):
    folder.mkdir(parents=True)
    command = ["/no/such/python", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "X", "language": "python"}))


def test_list(notebooks, tmp_path):
    done = avlib(notebooks, "list", cwd=tmp_path)
    assert "11  It <b>passes</b>" in done.stdout and 'size: str = "tiny"' in done.stdout
    content = json.loads(avlib(notebooks, "list", "2", "--json", cwd=tmp_path).stdout)
    assert [each["number"] for each in content] == ["21", "22", "23"]
    first = {"name": "seconds", "type": "float", "default": 10.0, "help": "0.1 to 30: how much of the clip is used"}
    assert content[2]["parameters"] == [first]


def test_no_notebooks(tmp_path):
    done = avlib(tmp_path / "none", "list", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("NotebookError: ") and "AVLIB_NOTEBOOKS" in done.stderr


def test_cache(tmp_path):
    group = tmp_path / "cache/clips/scene-0123456789"
    group.mkdir(parents=True)
    (group / "scene-0123456789.mp4").write_bytes(bytes(1_500_000))
    show = functools.partial(avlib, tmp_path, "cache", cwd=tmp_path / "cache", AVLIB_CACHE=".")
    assert "clips       1 file      1.5 MB" in show().stdout
    (tmp_path / "cache/mine.txt").write_text("mine")
    refused = show("--clear")
    assert (
        refused.returncode == 2 and "mine.txt" in refused.stderr and "of this folder clips would go" in refused.stderr
    )
    assert group.exists()
    (tmp_path / "cache/mine.txt").unlink()
    cleared = show("--clear").stdout
    assert "clips       1 file " in cleared and "1.5 MB removed" in cleared and not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("arguments", [["list"], ["cache"], ["-h"], ["run", "-h"], ["--version"], []])
def test_light_commands_are_light(notebooks, tmp_path, arguments):
    command = [sys.executable, "-X", "importtime", "-m", "avlib", *arguments]
    variables = os.environ | {"AVLIB_NOTEBOOKS": str(notebooks)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "avlib" in loaded
    assert not loaded & {"torch", "numpy", "papermill", "matplotlib", "nbformat", "nbconvert", "jupyter_client"}


def report(folder):
    return json.loads((folder / "run.json").read_text())


def cells(path):
    content = json.loads(path.read_text())["cells"]
    for cell in content:
        for output in cell.get("outputs", []):
            output["text"] = "".join(output.get("text", ""))
    return content
