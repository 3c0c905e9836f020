"""The set-up: installs once, completes what was interrupted, and says what is missing. Python and pip are stand-ins."""

import asyncio
import email
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import nbformat
import pytest
from conftest import ROOT
from traitlets.config import Config

# Stands for the base Python and, copied, for the one in .venv: it makes a .venv, and logs what pip is asked for.
STANDIN = f"""#!/bin/bash
here=$(dirname "$0")
case "$*" in
    "-c"*) exec {sys.executable} "$@" ;;
    "-V") echo "Python 3.12.1" ;;
    "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin" "$4/lib"; cp "$0" "$4/bin/python" ;;
    "-m pip --version") ;;
    "-m pip install "*)
        echo "$*" >>"$STANDIN_LOG"
        if [ -n "$STANDIN_SLEEP" ]; then echo sleeping >>"$STANDIN_LOG"; sleep "$STANDIN_SLEEP"; fi
        if [ -n "$STANDIN_FAIL" ]; then echo "$STANDIN_FAIL"; exit 1; fi ;;
    *) echo "ran: $*"; echo "$OMP_WAIT_POLICY" >"$STANDIN_LOG.policy" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with the set-up alone, in a folder whose name has a space, and a Python that only pretends."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "env", folder / "env")
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python"):
        standin = tmp_path / "bin" / name
        standin.write_text(STANDIN)
        standin.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))
    for name in ("AVLIB_PYTHON", "AVLIB_NEWEST"):
        monkeypatch.delenv(name, raising=False)
    return folder


def call(checkout, *arguments, script="run", **variables):
    command = ["bash", str(checkout / "env" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, cwd="/")
    log = checkout.parent / "log"
    calls = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return done, calls


def test_installs_once_and_then_does_its_job(checkout):
    done, calls = call(checkout, "11", "-p", "clip=a b.mp4")
    assert done.returncode == 0 and done.stdout == "ran: -m avlib run 11 -p clip=a b.mp4\n"
    assert len(calls) == 2 and "env/constraints.txt" in calls[0] and "--no-deps -e" in calls[1]
    done, calls = call(checkout)
    assert done.returncode == 0 and calls == [] and done.stderr == ""


def test_test_and_lab_do_theirs(checkout):
    done, _ = call(checkout, "-x", script="test")
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["ruff", "ruff", "pytest"]
    assert done.stdout.endswith("pytest -n 2 --dist worksteal -x\n")
    done, _ = call(checkout, "--no-browser", script="lab")
    config = f"--config={checkout}/env/jupyter_server_config.py"
    first = "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"
    assert done.stdout == f"ran: -m jupyterlab {config} --ServerApp.root_dir={checkout} {first} --no-browser\n"
    assert (checkout.parent / "log.policy").read_text() == "PASSIVE\n"
    call(checkout, script="lab", OMP_WAIT_POLICY="ACTIVE")
    assert (checkout.parent / "log.policy").read_text() == "ACTIVE\n"


def test_an_executed_notebook_is_no_change_for_git(checkout):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=checkout, capture_output=True, text=True, check=True
        ).stdout

    git("init")
    for name in (".gitattributes", ".gitignore", "notebooks/00_start_here.ipynb"):
        (checkout / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    call(checkout)
    filtering = git("config", "filter.notebook.clean").strip()
    assert filtering.startswith(f'"{checkout}/.venv/bin/python" -m nbstripout ')
    git("config", "filter.notebook.clean", filtering.replace(f"{checkout}/.venv/bin/python", sys.executable))
    runpy.run_path(str(ROOT / "env/jupyter_server_config.py"), {"c": (config := Config())})
    git("add", "notebooks")
    git("commit", "-m", "one")
    path = checkout / "notebooks/00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.language_info = {"name": "python", "version": "3.12.1", "pygments_lexer": "ipython3"}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[0] |= {"execution_count": 3, "outputs": [nbformat.v4.new_output("stream", text="shown")]}
    cells[1].metadata |= {"scrolled": True, "execution": {"iopub.status.idle": "now"}}

    def save():
        model = {"type": "notebook", "content": notebook}
        asyncio.run(manager.save(model, "notebooks/00_start_here.ipynb"))

    manager = config.ServerApp.contents_manager_class(root_dir=str(checkout))
    save()
    assert "shown" in path.read_text() and git("status", "--porcelain", "notebooks") == ""
    cells[0].source += "\nmore"
    save()
    assert git("status", "--porcelain", "notebooks") == " M notebooks/00_start_here.ipynb\n"


def test_a_changed_requirement_is_brought_up_to_date_in_place(checkout):
    call(checkout)
    (checkout / ".venv" / "lib" / "kept").touch()
    with (checkout / "requirements.txt").open("a") as file:
        file.write("more==1.0\n")
    _, calls = call(checkout)
    assert len(calls) == 2 and (checkout / ".venv" / "lib" / "kept").exists()


def test_an_interrupted_installation_is_completed(checkout):
    command = ["bash", str(checkout / "env" / "run")]
    process = subprocess.Popen(command, env=os.environ | {"STANDIN_SLEEP": "60"}, start_new_session=True)
    log = checkout.parent / "log"
    deadline = time.monotonic() + 30
    while not (log.exists() and "sleeping" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log.unlink()
    (checkout / ".venv" / "lib" / "half").touch()
    done, calls = call(checkout)
    assert done.returncode == 0 and len(calls) == 2
    assert not (checkout / ".venv" / "lib" / "half").exists()  # nothing half-installed stays


def test_two_calls_install_once(checkout):
    command = ["bash", str(checkout / "env" / "run")]
    variables = os.environ | {"STANDIN_SLEEP": "1"}
    both = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["ran: -m avlib run\n"] * 2
    installs = (checkout.parent / "log").read_text().count("-r ")
    assert installs == 1 or not shutil.which("flock")


def test_newest_versions_on_demand(checkout):
    _, calls = call(checkout, AVLIB_NEWEST="1")
    assert "constraints" not in calls[0]
    assert "==" not in (checkout / ".venv" / "newest.txt").read_text()
    _, calls = call(checkout)
    assert "constraints" in calls[0]  # back to the pinned ones


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying: Failed to establish a new connection: Name resolution", "is there a network"),
        ("ERROR: something else", "the whole log is"),
    ],
)
def test_a_failed_installation_says_why(checkout, said, message):
    done, _ = call(checkout, STANDIN_FAIL=said)
    assert done.returncode == 1 and message in done.stderr and said in done.stderr and "ran:" not in done.stdout
    done, calls = call(checkout)
    assert done.returncode == 0 and len(calls) == 2


def test_a_full_disk_is_noticed_before(checkout):
    stub = checkout.parent / "bin" / "df"
    stub.write_text("#!/bin/bash\nprintf 'Filesystem blocks used free\\n/dev/x 9 9 2097152 9 /\\n'\n")
    stub.chmod(0o755)
    done, calls = call(checkout)
    assert done.returncode == 1 and calls == []
    assert "2 GB left, the installation needs 9" in done.stderr


def test_an_old_python_is_refused(checkout):
    for name in ("python3", "python"):
        (checkout.parent / "bin" / name).write_text("#!/bin/bash\nexit 1\n")
    tools = checkout.parent / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "df", "awk", "cat", "cksum", "grep", "sed", "tail", "rm", "flock"):
        if shutil.which(tool):
            (tools / tool).symlink_to(shutil.which(tool))
    done, _ = call(checkout, PATH=f"{checkout.parent / 'bin'}{os.pathsep}{tools}")
    assert done.returncode == 1 and "no Python 3.11 or newer found" in done.stderr
    done, _ = call(checkout, AVLIB_PYTHON="/nowhere/python")
    assert done.returncode == 1 and "AVLIB_PYTHON=" in done.stderr


def test_a_wheel_has_all_that_is_needed(tmp_path):
    shutil.copytree(ROOT / "avlib", tmp_path / "source/avlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    building = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path]
    subprocess.run([*building, tmp_path / "source"], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("avlib_workbook-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (metadata,) = (name for name in names if name.endswith("dist-info/METADATA"))
        told = email.message_from_bytes(file.read(metadata))
        assert b"avlib = avlib.__main__:entry" in file.read(metadata.replace("METADATA", "entry_points.txt"))
        file.extractall(tmp_path / "installed")
    listed = subprocess.run(["git", "ls-files", "avlib"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name for name in listed.splitlines() if not name.endswith("README.md")} <= names
    needed = {re.match(r"[\w-]+", each)[0] for each in told.get_all("Requires-Dist")}
    tried = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert needed == {*tried} - {"setuptools", "pytest", "pytest-xdist", "playwright", "beartype", "ruff"}

    # Elsewhere, without a checkout, the commands say what is missing.
    script = (
        "from avlib.__main__ import main; import sys; print(sys.modules['avlib'].__file__); sys.exit(main(['list']))"
    )
    variables = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert str(tmp_path / "installed") in done.stdout and done.returncode == 2
    assert "no notebooks" in done.stderr and "AVLIB_NOTEBOOKS" in done.stderr
