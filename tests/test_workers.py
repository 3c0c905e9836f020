"""One task for many things: here, and from some amount of work on in several processes."""

import os
import signal
import time
from multiprocessing import util

import pytest

from avlib import workers
from avlib.errors import ParameterError


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


def test_a_process_that_is_ended_as_it_starts_does_not_block_this_one(monkeypatch):
    start = util.spawnv_passfds

    def start_and_end(*how):
        process = start(*how)
        os.kill(process, signal.SIGTERM)
        return process

    monkeypatch.setattr(util, "spawnv_passfds", start_and_end)
    things = [bytes(100_000)] * 8  # more than a pipe takes
    with pytest.raises(RuntimeError, match="killed by signal: Terminated"):
        list(workers.each(len, things, jobs=2, progress=False))
