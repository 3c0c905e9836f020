"""Where sweeps run: schedulers that are not there, workers that do not fit, and jobs of batch systems."""

import argparse
import gc
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from conftest import ROOT

from avlib import cluster
from avlib.errors import AvlibError, ParameterError

SLURM = """\
class: slurm
queue: gpu
account: lab
cores: 4
memory: 16GB
walltime: "04:00:00"
job_extra_directives: [--gres=gpu:1]
job_script_prologue: [module load cuda]
"""


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cluster.add_options(parser)
    return parser.parse_args(words)


def refused(*words: str, folder: Path) -> str:
    with pytest.raises(AvlibError) as error, cluster.connected(options(*words), folder):
        pass
    return f"{type(error.value).__name__}: {error.value}"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "foo://host:1"])
def test_a_scheduler_that_is_not_there(address, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    told = refused("--scheduler", address, folder=tmp_path)
    assert told.startswith(f"ParameterError: --scheduler: {address}: no scheduler answers within 1 s (")
    assert told.endswith("; expected an address as tcp://host:8786.")


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler that is there, with a worker of this process."""
    from distributed import LocalCluster

    how = {"processes": False, "protocol": "tcp", "dashboard_address": None, "memory_limit": None}
    with LocalCluster(n_workers=1, threads_per_worker=1, **how) as local:
        yield local.scheduler_address


def double(number: int) -> int:
    if number < 0:
        raise ParameterError("number", f"{number}", "0 or more")
    return number * 2


def test_a_scheduler_that_is_there(scheduler, tmp_path):
    with cluster.connected(options("--scheduler", scheduler), tmp_path) as (completed, here):
        assert here == 0
        assert sorted(result for _, result, _ in completed(double, range(250))) == list(range(0, 500, 2))
        with pytest.raises(ParameterError, match="number: -1; expected 0 or more"):
            list(completed(double, [1, -1]))


def test_a_window_is_in_flight_and_not_everything(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_WINDOW", 5)
    taken = []
    with cluster.connected(options("--scheduler", scheduler), tmp_path) as (completed, _):
        for count, _ in enumerate(completed(double, (taken.append(number) or number for number in range(60))), 1):
            assert len(taken) <= count + 5
    assert count == 60


def test_workers_of_another_avlib(scheduler, tmp_path, monkeypatch):
    versions = iter(["avlib 0.0.9 (code 12345678) on Python 3.11"])
    monkeypatch.setattr(cluster, "_version", lambda: next(versions, "avlib 0.1.0 (code 87654321) on Python 3.11"))
    told = refused("--scheduler", scheduler, folder=tmp_path)
    assert "runs avlib 0.1.0 (code 87654321) on Python 3.11, not avlib 0.0.9 (code 12345678)" in told
    assert told.startswith("WorkerError: a worker on ") and "Install this avlib there" in told


def test_workers_that_do_not_see_the_results(scheduler, tmp_path):
    told = refused("--scheduler", scheduler, folder=tmp_path / "elsewhere")
    assert f"does not see {tmp_path}/elsewhere; expected the same code and file system" in told


def test_a_script_for_slurm(tmp_path):
    with cluster.batch_system(write(tmp_path / "cluster.yaml", SLURM)) as made:
        lines = made.job_script().splitlines()
    assert lines[0].startswith("#!") and "#SBATCH -p gpu" in lines and "#SBATCH -A lab" in lines
    expected = {"#SBATCH --cpus-per-task=4", "#SBATCH --mem=15G", "#SBATCH -t 04:00:00", "#SBATCH --gres=gpu:1"}
    assert expected <= set(lines)
    assert "module load cuda" in lines and "distributed.cli.dask_worker tcp://" in lines[-1]
    assert lines[-1].startswith(sys.executable)


def test_importing_jobqueue_leaves_ctrl_c_alone(tmp_path):
    code = "import signal; from avlib import cluster; cluster._require('dask_jobqueue'); print(signal.getsignal(2))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert b"default_int_handler" in done.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("class: slrum\ncores: 1", "'slrum'; expected one of"),
        ("cores: 1\nmemory: 1GB", "KeyError: 'class'"),
        ("class: slurm\ncores: 1\nmemory: 1GB\nqueu: x", "queu"),
        ("class: slurm\nmemory: 1GB", "cores"),
        ("class: pbs\ncores: 1\nmemory: 1GB\nwalltime: 10:00:00", "10:00:00, octal or in base 60"),
        ("class: !!python/object/apply:os.system [ls]", "a value of the type os.system"),
        ("[1", "ParserError"),
        ("", "AttributeError"),
    ],
)
def test_files_of_options_that_are_refused(text, told, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of a cluster whose class refused its options
        with pytest.raises(ParameterError) as error:
            cluster.batch_system(write(tmp_path / "cluster.yaml", text))
        message = str(error.value)
        del error
        gc.collect()
    assert told in message and "cluster.yaml" in message and "\n" not in message


def test_jobs_that_cannot_be_submitted(tmp_path, monkeypatch):
    file = write(tmp_path / "cluster.yaml", SLURM.replace("queue: gpu", "queue: gpu\ninterface: lo"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no command sbatch on this machine" in refused("--cluster", file, folder=tmp_path)
    (tmp_path / "sbatch").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('sbatch: invalid partition: gpu')\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert "invalid partition: gpu" in refused("--cluster", file, folder=tmp_path)
    assert "no such file" in refused("--cluster", str(tmp_path / "gone.yaml"), folder=tmp_path).lower()


def test_without_dask_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    told = "WorkerError: the package distributed: is not installed. Install it: pip install 'avlib-workbook[sweep]'"
    assert refused(folder=tmp_path).startswith(told)
    code = "import sys, avlib.__main__ as m; m._parser(); print({'dask', 'distributed', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.stdout == b"set()\n"


@pytest.fixture(autouse=True)
def interrupts():
    kept = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is kept
