"""Execute notebooks through papermill.

Only the Python exception decides whether a notebook failed: the states that papermill writes into the file are wrong
when a kernel dies or a cell runs too long. Each notebook has a thread here, which passes messages, and a kernel, which
is a process: nothing needs pickling, papermill is imported once, and Ctrl-C reaches one place, which ends the kernels.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .. import cache
from ..errors import NotebookError, ParameterError, plain
from .kernel import MEDIA_TYPE, SIGNS
from .notebooks import FAILED, INTERRUPTED, PASSED, Notebook, Result
from .parameters import own_names, refuse_unknown, resolve, writable_folder

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CELL_TIMEOUT = 1800  # seconds: a cell may train several models, on a machine that has other work to do
# ipykernel's own launcher. The queue of outputs has no limit, and each output has its number as its last buffer.
_KERNEL = """
import itertools, json, sys
if not sys.path[0]:  # the current folder, which comes back later: here it must not hide a library
    del sys.path[0]
from ipykernel.kernelapp import IPKernelApp
class App(IPKernelApp):
    def init_iopub(self, context):
        context.sndhwm = 0
        super().init_iopub(context)
        send, numbers = self.iopub_thread._really_send, itertools.count()
        self.iopub_thread._really_send = lambda parts, *a, **k: send([*parts, b"%d" % next(numbers)], *a, **k)
        pack = self.session.pack
        def packed(content):
            try:
                return pack(content)
            except UnicodeEncodeError:  # half a character, which JSON can hold and UTF-8 cannot
                return json.dumps(content, default=str).encode()
        self.session.pack = packed
App.launch_instance()
"""
_PORT_TAKEN = "ZMQError: Address already in use"
_SAVE_EVERY = 30.0  # seconds of outputs that are lost at most when the machine goes down

Progress = Callable[[int, int], None]  # code cells begun, code cells in all


class Kernels:
    """The kernels of a run: what they are started with, and the means to end them all at once."""

    def __init__(self, environment: Mapping[str, str] | None = None):
        # Behind all other places, so that a kernel finds avlib in a checkout that is not installed.
        places = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])]
        self.environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ  # waiting threads leave the cores to others
        self.environment |= {"PYTHONPATH": os.pathsep.join(filter(None, places))} | dict(environment or {})
        self.stopped = False
        self._processes: list = []

    def started(self, process) -> None:
        self._processes.append(process)
        if self.stopped:
            self.stop()

    def stop(self) -> None:
        """Kill every kernel with all that it started; the notebooks in them end as interrupted."""
        self.stopped = True
        for process in self._processes:
            with suppress(OSError):
                if process.poll() is None:  # each kernel leads a process group of its own
                    process.kill() if sys.platform == "win32" else os.killpg(process.pid, signal.SIGKILL)

    def manager(self, runtime: Path, processes: list, lost: list[int]) -> type:
        """Return a class of kernel managers for papermill, whose kernels run this Python.

        A kernel specification named python3 that a user has installed is ignored. Messages go over TCP on 127.0.0.1,
        signed with the connection's key, and encrypted where ZeroMQ can: outputs stay private on a shared machine. The
        connection file lies in `runtime`. No queue has a limit: at ZeroMQ's 1,000 messages, outputs would be lost. They
        are counted, and the numbers of those that do not come are added to `lost`. What a thread shows after its cell
        has ended goes to the cell that runs then.
        """
        import zmq
        from jupyter_client import AsyncKernelClient, AsyncKernelManager
        from jupyter_client.channels import AsyncZMQSocketChannel
        from jupyter_client.kernelspec import KernelSpec
        from traitlets import Type

        kernels = self
        connection = {
            "ip": "127.0.0.1",
            "connection_file": f"{runtime}/kernel.json",
            "transport_encryption": "required" if zmq.has("curve") else "disabled",
        }

        class Outputs(AsyncZMQSocketChannel):
            following, cell = None, ""

            async def _recv(self, **kwargs):
                message = await super()._recv(**kwargs)
                if message["msg_type"] == "iopub_welcome":  # without a number
                    return message
                number = int(bytes(message["buffers"].pop()))
                lost.extend(range(number if self.following is None else self.following, number))
                self.following = number + 1
                if message["msg_type"] not in ("status", "execute_input") and message["parent_header"]:
                    message["parent_header"]["msg_id"] = Outputs.cell
                return message

        class Client(AsyncKernelClient):
            iopub_channel_class = Type(Outputs)

            def execute(self, *args, **kwargs):
                Outputs.cell = super().execute(*args, **kwargs)
                return Outputs.cell

        class Manager(AsyncKernelManager):
            client_factory = Client
            kernel_spec = KernelSpec(
                argv=[sys.executable, "-c", _KERNEL, "-f", "{connection_file}"],
                metadata={"supported_encryption": "curve"},
                display_name="Python 3",
                language="python",
            )

            def __init__(self, **kwargs):
                super().__init__(**kwargs, **connection)
                self.context.rcvhwm = 0  # no limit, on all sockets made from here on

            async def start_kernel(self, **kwargs):
                with Path(runtime, "log").open("wb") as log:  # what libraries and the system say past Python
                    await super().start_kernel(**kwargs, env=kernels.environment, stdout=log, stderr=log)
                processes.append(self.provisioner.process)
                kernels.started(self.provisioner.process)

        return Manager


def run_one(
    path: str | os.PathLike[str],
    parameters: Mapping[str, object],
    output: str | os.PathLike[str],
    *,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Execute a notebook; write it with its outputs and a page beside it.

    A pool, submitit or dask can call it: arguments and result can be pickled, and a notebook that fails is a result,
    not an exception.

    Args:
        output: the file to write, with the ending .ipynb.
        environment: variables for the kernel, on top of this process's own.
        progress: called before each code cell with its place and their count.

    Raises:
        AvlibError: the notebook, a parameter or the folder of the output cannot be used.
    """
    notebook = Notebook(Path(path).absolute())
    passed = check_parameters([notebook], parameters)[notebook]
    return _execute(notebook, passed, Path(output).absolute(), Kernels(environment), CELL_TIMEOUT, progress, [])


def run_many(
    notebooks: list[Notebook],
    parameters: Mapping[str, object],
    folder: Path,
    *,
    jobs: int,
    cell_timeout: int | float,
    progress: Callable[[Notebook, int, int], None],
    update: Callable[[list[Result], Result | None], None],
) -> list[Result]:
    """Execute notebooks, `jobs` at a time; a failure does not stop the others.

    With several jobs the kernels share the cores, and notebooks that train begin before those that are shorter or take
    their models. Ctrl-C ends the kernels; notebooks that were running or never started are in the results too.

    Args:
        parameters: values by name; every notebook must declare each of them.
        update: called with all results so far and the newest one, or with None about once a second.
    """
    passed = check_parameters(notebooks, parameters)
    results = {notebook: _blank(notebook, folder / notebook.path.name) for notebook in notebooks}
    jobs = min(jobs, len(notebooks)) or 1
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    kernels = Kernels(dict.fromkeys(THREADS, threads) if jobs > 1 else None)

    def execute(notebook: Notebook) -> Result:
        report, output = functools.partial(progress, notebook), folder / notebook.path.name
        try:
            return _execute(notebook, passed[notebook], output, kernels, cell_timeout, report, notebooks)
        except Exception as error:  # the disk is full, or the folder is gone: others may still run
            failed = replace(_blank(notebook, output), state=FAILED, reason="runner")
            return replace(failed, message=plain(f"{type(error).__name__}: {error}"))

    queue = sorted(notebooks, key=_rank) if jobs > 1 else list(notebooks)
    running: dict[Future, Notebook] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while queue or running:
            try:
                update(list(results.values()), None)
                unfinished = {notebook.number for notebook in [*queue, *running.values()]}
                ready = [notebook for notebook in queue if _trains_for(notebook.number) not in unfinished]
                for notebook in ready[: jobs - len(running)]:
                    queue.remove(notebook)
                    running[pool.submit(execute, notebook)] = notebook
                done, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    results[running[future]] = result = future.result()
                    update(list(results.values()), result)
                    running.pop(future)
            except KeyboardInterrupt:
                kernels.stop()
                queue.clear()
    return list(results.values())


def _rank(notebook: Notebook) -> int:
    """Training first, then masking and inference, which take its models, then what takes seconds."""
    stage = notebook.number[1:]
    return "345".index(stage) if stage in ("3", "4", "5") else 3


def _trains_for(number: str) -> str:
    """The notebook whose models another one takes; empty for none."""
    return f"{number[0]}3" if number[1:] in ("4", "5") else ""


def check_parameters(notebooks: list[Notebook], parameters: Mapping[str, object]) -> dict[Notebook, dict[str, object]]:
    """Return the values to pass to each notebook, in the types that it declares."""
    declared = {notebook: notebook.parameters for notebook in notebooks}
    given = {notebook: own_names(own, parameters, notebook.system) for notebook, own in declared.items()}
    for name in {name: None for own in given.values() for name in own}:
        lacking = [notebook.number for notebook, own in declared.items() if name in given[notebook] and name not in own]
        if lacking:
            others = dict.fromkeys(each for own in declared.values() for each in own if each != name)
            having = [notebook.number for notebook in notebooks if notebook.number not in lacking]
            rest = f" (only in {', '.join(having)})" if having else ""
            refuse_unknown([name], others, f" in {', '.join(lacking)}{rest}")
    passed = {}
    for notebook, own in declared.items():
        try:
            values = resolve(own, given[notebook], system=notebook.system)
        except ParameterError as error:
            found = f"{error.found} (notebook {notebook.number})"
            raise ParameterError(error.subject, found, error.expected, error.advice) from None
        passed[notebook] = {name: values[name] for name in given[notebook]}
    return passed


def _execute(
    notebook: Notebook,
    parameters: dict[str, object],
    output: Path,
    kernels: Kernels,
    cell_timeout: int | float,
    progress: Progress | None,
    neighbours: list[Notebook],
    attempts: int = 3,
) -> Result:
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from .report import write, write_page

    if output == notebook.path:
        raise NotebookError(notebook.path, "the output would overwrite it", "another file")
    writable_folder(output.parent)
    result = _blank(notebook, output)
    result.parameters = dict(parameters)
    if kernels.stopped:
        return result
    executed, processes, lost, saved = nbformat.v4.new_notebook(), [], [], time.monotonic()

    def on_notebook_start(notebook):
        nonlocal executed
        executed = notebook  # papermill's own copy, into which the outputs go: it is not returned after a failure

    def on_cell_execute(cell, cell_index):
        nonlocal saved
        result.cell, result.cell_id, result.source = result.cell + 1, cell.get("id", ""), cell.source
        if progress:
            code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
            progress(result.cell, len(code))
        if time.monotonic() - saved > _SAVE_EVERY:
            write(output, nbformat.writes(executed))
            saved = time.monotonic()

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it reports what the result says better
    began = time.monotonic()
    try:
        with cache.temporary() as runtime:
            try:
                executed = nbformat.reads(json.dumps(notebook.content), as_version=4)
                nbformat.write(executed, runtime / "notebook.ipynb")
                papermill.execute_notebook(
                    str(runtime / "notebook.ipynb").replace("{", "{{").replace("}", "}}"),  # papermill formats paths
                    None,
                    parameters,
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    execution_timeout=cell_timeout,
                    iopub_timeout=60,  # papermill's 4 s are too few for a large figure on a busy machine
                    kernel_manager_class=kernels.manager(runtime, processes, lost),
                    on_notebook_start=on_notebook_start,
                    on_cell_execute=on_cell_execute,
                )
                _require_whole(executed, lost)
                result.state, result.cell, result.cell_id, result.source = PASSED, 0, "", ""
            finally:
                log = (runtime / "log").read_text(errors="replace")[-3000:] if (runtime / "log").exists() else ""
    except papermill.PapermillExecutionError as error:
        failed = next((cell for cell in executed.cells if cell.get("execution_count") == error.exec_count), {})
        result.cell, result.cell_id = error.exec_count or result.cell, failed.get("id", result.cell_id)
        result.source = error.source
        result.reason, result.message = "exception", plain(f"{error.ename}: {error.evalue}")
        result.traceback = plain(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)))
    except CellTimeoutError:
        result.reason, result.message = "timeout", f"cell {result.cell} ran longer than {cell_timeout:g} s"
    except DeadKernelError:
        result.reason, result.message = "kernel died", f"kernel died in cell {result.cell}: {_death(processes)}"
    except NotebookError as error:
        result.reason, result.message = "incomplete", str(error)
    except Exception as error:  # a notebook that cannot be run must not keep the others from running
        result.reason, result.message = "runner", plain(f"{type(error).__name__}: {error}")
    if result.reason in ("kernel died", "runner"):
        result.traceback = plain(log)
    if _PORT_TAKEN in result.traceback and attempts > 1:  # another program was faster
        return _execute(
            notebook, parameters, output, kernels, cell_timeout, progress, neighbours, attempts=attempts - 1
        )
    result.seconds = round(time.monotonic() - began, 2)
    if result.state != PASSED:
        result.state = FAILED
        if kernels.stopped:
            result.state, result.reason, result.message = INTERRUPTED, "interrupted", f"stopped in cell {result.cell}"
    _clean(executed, result)
    _collect(executed, result)
    try:
        write(output, nbformat.writes(executed))
        _sign(output)
        write_page(executed, result, neighbours)
    except Exception as error:  # a full disk, or an output that nbconvert does not take
        result.state, result.reason = FAILED, "runner"
        result.message = f"its output cannot be written: {type(error).__name__}: {error}"
    return result


def _sign(path: Path) -> None:
    """Sign an executed notebook, so that JupyterLab trusts its players and styles on this machine."""
    import nbformat
    from jupyter_core.paths import jupyter_data_dir
    from nbformat.sign import NotebookNotary

    of_lab = Path(sys.prefix, "jupyter", "data")  # of `env/lab`, also when this run was started without env/setup
    for folder in {Path(jupyter_data_dir()), of_lab} if of_lab.is_dir() else {Path(jupyter_data_dir())}:
        with suppress(OSError, ValueError):  # half a character has no signature
            folder.mkdir(parents=True, exist_ok=True)
            notary = NotebookNotary(data_dir=str(folder))
            notary.sign(nbformat.read(path, as_version=4))
            notary.store.close()


def _blank(notebook: Notebook, output: Path) -> Result:
    return Result(notebook.number, notebook.title, str(notebook.path), str(output))


def _death(processes: list) -> str:
    code = processes[-1].poll() if processes else None
    if code == -9:
        return "it was killed, probably because it ran out of memory"
    if code is not None and code < 0:
        return f"it crashed ({signal.Signals(-code).name})"
    return f"it ended itself with exit status {code}"


def _clean(executed, result: Result) -> None:
    """Take out papermill's marks and states, and show in the failed cell what no traceback shows."""
    marks = "papermill-error-cell-tag"
    executed.cells = [cell for cell in executed.cells if marks not in cell.metadata.get("tags", [])]
    for part in (executed, *executed.cells):
        part.metadata.pop("papermill", None)
    executed.metadata["avlib"] = {"state": result.state, "message": result.message}
    if result.message and result.reason != "exception":
        for cell in executed.cells:
            if result.cell and cell.get("id") == result.cell_id:
                error = {"output_type": "error", "ename": result.reason, "evalue": result.message}
                cell.outputs.append(type(cell)(error | {"traceback": [result.message]}))


def _require_whole(executed, lost: list[int]) -> None:
    """Raise a NotebookError unless every cell ran to its end, and every output came."""
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    for place, cell in enumerate(code, start=1):
        ended = any(output.get("ename") == "SystemExit" for output in cell.outputs)
        if (ended and "raises-exception" not in cell.metadata.tags) or cell.execution_count is None:
            found = "ended the notebook" if ended else "did not run"
            raise NotebookError(f"cell {place} of {len(code)}", found, "cells that run to their end")
    if lost:
        raise NotebookError("outputs", f"{len(lost)} did not arrive, the first as number {lost[0]}", "all of them")


_FIELDS = {
    "claim": dict.fromkeys(("statement", "source", "measured", "when", "verdict", "kind", "note"), str)
    | {"holds": bool},
    "measured": {"name": str, "value": int | float, "unit": str},
    "parameters": {"parameters": dict},
    "versions": {"versions": dict},
}


def _collect(executed, result: Result) -> None:
    """Take the records out of the outputs; a notebook with a malformed one has failed."""
    for cell in executed.cells:
        outputs = [(output.get("data", {}), kind) for output in cell.get("outputs", []) for kind in _FIELDS]
        for kind, record in (
            (kind, data[MEDIA_TYPE.format(kind)]) for data, kind in outputs if MEDIA_TYPE.format(kind) in data
        ):
            if (
                not isinstance(record, dict)
                or not all(isinstance(record.get(name), of) for name, of in _FIELDS[kind].items())
                or record.get("kind", "holds") not in SIGNS
                or not math.isfinite(record.get("value", 0))
            ):
                result.state, result.reason = FAILED, "runner"
                result.message = result.message or f"cell {cell.get('id', '')} shows a malformed record of a {kind}"
            elif kind in ("claim", "measured"):
                kept = result.claims if kind == "claim" else result.measured
                kept.append({**record, "notebook": result.number, "cell": cell.get("id", "")})
            else:
                record = dict(record)
                result.parameters = record.pop("parameters", result.parameters)
                result.environment |= record
