"""One task for many things: here, and from some amount of work on in several processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avlib import workers
from avlib.errors import ParameterError

ROOT = str(Path(__file__).parents[1])


def where(number: int) -> tuple[int, int]:
    time.sleep(0.3)
    if number == 13:
        raise ParameterError("number", "13", "another one")
    return number, os.getpid()


@pytest.mark.parametrize(("worth", "processes"), [(1000.0, 1), (0.0, 2)])
def test_processes_start_where_the_rest_takes_long(worth, processes, monkeypatch):
    monkeypatch.setattr(workers, "_WORTH_PROCESSES", worth)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    found = list(workers.each(where, range(4 * processes), progress=False))
    assert [number for number, _ in found] == list(range(4 * processes))
    here = [pid == os.getpid() for _, pid in found]
    assert all(here[:4]) and not any(here[4:])


def test_an_error_has_its_own_class():
    with pytest.raises(ParameterError, match="13"):
        list(workers.each(where, [13], progress=False))


ENDED = """
import os, signal
from multiprocessing import resource_tracker, util
from avlib import workers
start = util.spawnv_passfds
def start_and_end(*how):
    process = start(*how)
    os.kill(process, signal.SIGTERM)
    return process
resource_tracker.ensure_running()  # which is not what is ended
util.spawnv_passfds = start_and_end
things = [bytes(100_000)] * 8  # more than a pipe takes
list(workers.each(len, things, jobs=2, progress=False))
"""


def test_a_process_that_is_ended_as_it_starts_does_not_block_this_one():
    # In a process of its own: torch raises the error from a signal's handler, in the middle of anything.
    command = [sys.executable, "-c", ENDED]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": ROOT}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "WorkerError: a process: ended before its work was done. " in done.stderr
