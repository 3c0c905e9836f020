"""Work on a Dask cluster: processes of this machine, a scheduler that is there, or jobs of a batch system."""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import itertools
import logging
import multiprocessing
import os
import platform
import shutil
import signal
import sys
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import __version__
from .errors import AvlibError, ParameterError, WorkerError, check_whole, did_you_mean, first_line

_PATIENCE = 10  # seconds for a scheduler to answer
_WINDOW = 100  # things in flight, at least


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose where the work is done."""
    add = parser.add_argument_group("where it runs").add_argument
    text = "processes here (default: half of the cores), or jobs of --cluster (default: 1)"
    add("--jobs", type=int, metavar="N", help=text)
    add("--scheduler", metavar="ADDRESS", help="a Dask scheduler that is there, as tcp://host:8786")
    add("--cluster", metavar="FILE", help="a YAML file: `class: slurm` (dask-jobqueue's), and options of that class")
    add("--retries", type=int, default=3, metavar="N", help="new tries of what a lost worker held (default: 3)")


@contextmanager
def connected(options: argparse.Namespace, folder: Path) -> Iterator[tuple[Callable[..., Iterator], int]]:
    """Yield the function `completed` of a cluster, and how many processes it has here; close what was opened.

    Raises:
        ParameterError: an option that cannot be used, or no scheduler at the address.
        WorkerError: Dask is not installed, or workers run another avlib or do not see the folder.
    """
    if options.scheduler and options.cluster:
        raise ParameterError("--scheduler", "given together with --cluster", "one of the two")
    jobs = (1 if options.cluster else max(1, (os.cpu_count() or 1) // 2)) if options.jobs is None else options.jobs
    check_whole("--jobs", jobs, 1)
    check_whole("--retries", options.retries, 0)
    distributed = _require("distributed")
    import dask

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # lost workers are expected here
    ours = {"allowed-failures": options.retries, "worker-saturation": 1.0}  # what waits on a lost worker is not blamed
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({f"distributed.scheduler.{name}": value for name, value in ours.items()}))
        cluster, here = options.scheduler, 0
        if options.cluster:
            cluster = stack.enter_context(batch_system(options.cluster))
            _submit(cluster, jobs, options.cluster)
        elif not cluster:
            stack.enter_context(_patience(distributed.utils.get_mp_context))
            alone = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": "127.0.0.1:0"}
            how = {"n_workers": jobs, "silence_logs": logging.CRITICAL, **alone}
            cluster, here = stack.enter_context(distributed.LocalCluster(**how)), jobs
        try:
            client = stack.enter_context(distributed.Client(cluster, timeout=_PATIENCE, set_as_default=False))
        except (OSError, ValueError) as error:
            found = f"{options.scheduler}: no scheduler answers within {_PATIENCE} s ({first_line(error)})"
            raise ParameterError("--scheduler", found, "an address as tcp://host:8786") from None
        if here:  # Ctrl-C in a terminal reaches them too, and is ours to answer
            client.register_plugin(type("Deaf", (distributed.WorkerPlugin,), {"setup": _ignore_interrupts})())
        places = [str(folder), str(Path.cwd())]
        with _by_workers():
            if not client.run(_check, _version(), places):
                print("waiting for workers", file=sys.stderr)
        yield functools.partial(_completed, client, places), here


@contextmanager
def _patience(get_mp_context: Callable[[], Any]) -> Iterator[None]:
    """Let killed workers of this machine start again, in whatever time that takes where its cores are busy.

    By default one that is not back within 15 s is given up for good. They are copies of a process that has imported
    the modules of avlib that this one has.
    """
    import dask

    ours = {"distributed.deploy.lost-worker-timeout": "1 hour", "distributed.comm.timeouts.connect": "10 minutes"}
    if forks := "forkserver" in multiprocessing.get_all_start_methods():
        ours["distributed.worker.multiprocessing-method"] = "forkserver"
    with dask.config.set(ours):
        if forks:
            modules = [name for name in sys.modules if name.startswith("avlib.")]
            get_mp_context().set_forkserver_preload(["distributed", *modules])
        yield


def _completed(
    client: Any, places: list[str], task: Callable[[Any], Any], things: Iterable
) -> Iterator[tuple[Any, Any, int]]:
    """Yield each thing, what `task` made of it, and how many are at work, as they end.

    At least a hundred, and twice as many as there are threads, are in flight. The outcome is a WorkerError where more
    workers were lost than `--retries` allows. Where the iteration ends early, what is in flight is cancelled.

    Raises:
        AvlibError: raised by the task, or the scheduler was lost.
    """
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    work = functools.partial(_checked, task, _version(), places)
    things, held, ended = iter(things), {}, as_completed(loop=client.loop)
    try:
        while True:
            threads = sum(client.nthreads().values())
            for thing in itertools.islice(things, max(0, max(_WINDOW, 2 * threads) - len(held))):
                held[future := client.submit(work, thing, pure=False)] = thing
                ended.add(future)
            if not held:
                return
            future = next(ended)
            try:
                with _by_workers():
                    outcome = future.result()
            except KilledWorker:
                outcome = WorkerError("workers", "were lost while they ran this, again and again")
            yield held.pop(future), outcome, min(threads, len(held))
    finally:
        client.cancel(list(held), force=True)


@contextmanager
def _by_workers() -> Iterator[None]:
    """Turn the errors of a worker without avlib, and of a lost scheduler, into a WorkerError."""
    from distributed.scheduler import KilledWorker

    try:
        yield
    except (AvlibError, KilledWorker):
        raise
    except (Exception, CancelledError) as error:
        found = f"cannot go on ({type(error).__name__}: {first_line(error)})"
        raise WorkerError("workers", found, _version(), "The same command goes on from there.") from None


def batch_system(file: str) -> Any:
    """Return a cluster of dask-jobqueue by a file with its class and options; nothing is submitted.

    Raises:
        ParameterError: an unknown class or option.
        WorkerError: Dask is not installed.
    """
    from .settings import read_yaml

    dask_jobqueue = _require("dask_jobqueue")

    names = [name for name in dir(dask_jobqueue) if name.endswith("Cluster") and name != "JobQueueCluster"]
    known = {name.removesuffix("Cluster").lower(): getattr(dask_jobqueue, name) for name in names}
    known["local"] = _require("dask_jobqueue.local").LocalCluster  # without a batch system, to try a file
    try:
        options = read_yaml(Path(file).expanduser().read_text(encoding="utf-8"))
        name = options.pop("class").removesuffix("Cluster").lower()
        if name not in known:
            raise ParameterError("class", repr(name), f"one of {', '.join(known)}", did_you_mean(name, known))
        at = {"dashboard_address": ":0"} | options.pop("scheduler_options", {})  # any port that is free
        return known[name](**options, scheduler_options=at)
    except Exception as error:  # of the file, of YAML, of the class for its options
        found = f"{file}: {type(error).__name__}: {' '.join(str(error).split())}"
        raise ParameterError("--cluster", found, "YAML with `class`, and options of that class") from None


def _submit(cluster: Any, jobs: int, file: str) -> None:
    """Submit jobs; where that cannot be done, it is said now, not while the work waits."""
    command = getattr(cluster.job_cls, "submit_command", None)
    try:
        if command and not shutil.which(command.split()[0]):
            raise OSError(f"no command {command} on this machine")
        cluster.worker_spec.update(cluster.new_worker_spec())  # `scale` would only log what goes wrong
        cluster.sync(cluster._correct_state)
        cluster.adapt(minimum_jobs=1, maximum_jobs=jobs)  # replaces jobs that ended, by their time limit for example
    except Exception as error:
        cluster._created.clear()  # closing would fail for a job that was never accepted
        raise ParameterError("--cluster", f"{file}: {' '.join(str(error).split())}", "jobs that are accepted") from None


def _require(package: str) -> Any:
    """Import a package; its handlers of signals, which dask_jobqueue sets, are taken back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return importlib.import_module(package)
    except ImportError as error:
        advice = "Install it: pip install 'avlib-workbook[sweep]'"
        raise WorkerError(f"the package {error.name}", "is not installed", advice=advice) from None
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _ignore_interrupts(plugin: Any, worker: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _checked(task: Callable[[Any], Any], version: str, places: list[str], thing: Any) -> Any:
    """Do a task on a worker, which may have come after the first ones were looked at."""
    _check(version, places)
    return task(thing)


def _check(version: str, places: list[str]) -> None:
    """Refuse to work in a process of another avlib, or without the folders."""
    found = [f"does not see {place}" for place in places if not Path(place).is_dir()]
    found += [f"runs {_version()}, not {version}"] * (version != _version())
    if found:
        advice = "Install this avlib there, and start the workers again."
        raise WorkerError(f"a worker on {platform.node()}", found[-1], "the same code and file system", advice)


@functools.cache
def _version() -> str:
    paths = sorted(Path(__file__).parent.rglob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]
    return f"avlib {__version__} (code {code}) on Python {'.'.join(platform.python_version_tuple()[:2])}"
