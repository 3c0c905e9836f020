"""Sweeps: a notebook or a training at every point of a grid of parameters, on a Dask cluster.

A point is a command `avlib run` or `avlib train` in a process of its own, and a folder that is named by a hash of all
that it follows from. The folder appears whole: a point is done when it is there.
"""

from __future__ import annotations

import argparse
import ast
import csv
import functools
import hashlib
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path

from filelock import FileLock, Timeout

from .. import cache, cluster, once, systems
from ..errors import CacheError, NotebookError, ParameterError, check_number, plain
from ..progress import Bar
from .notebooks import FAILED, NOT_RUN, PASSED, Notebook, choose
from .parameters import read_settings, writable_folder
from .run import CELL_TIMEOUT, THREADS, check_parameters

_MOST = 10_000  # points without --yes
_SPACE = 100e6  # bytes that must be free
_RANGE = re.compile(r"(-?\d{1,15}):(-?\d{1,15})(?::(-?\d{1,15}))?")
# A process that ends with its parent, whose end closes the pipe, and that takes along what it has started.
_CHILD = """
import os, sys, threading
def follow():
    os.read(0, 1)
    os.killpg(0, 9) if hasattr(os, "killpg") else os._exit(9)
threading.Thread(target=follow, daemon=True).start()
from avlib.__main__ import entry
sys.exit(entry())
"""


@dataclass
class Point:
    """One run of a sweep and its outcome: values as text, hash, command, most memory in GB, page of a notebook."""

    values: dict[str, str]
    key: str
    command: list[str]
    state: str = NOT_RUN
    message: str = ""
    seconds: float = 0.0
    memory: float = 0.0
    figures: dict[str, float | int] = field(default_factory=dict)
    page: str = ""

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values.items())


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `sweep` to the command line."""
    how = {"description": help_text("sweep"), "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = commands.add_parser("sweep", help="run a notebook or a training at every point of a grid", **how)
    add, limit = parser.add_argument, {"type": float, "default": math.inf}
    add("target", nargs="+", metavar="NUMBER | train SYSTEM", help="a notebook, or a training")
    add("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUES", help="may be repeated")
    add("--zip", action="store_true", help="the first values together, the second together, ..., instead of all pairs")
    add("--random", type=int, metavar="N", help="N points of the grid, the same ones at each call")
    add("--yes", action="store_true", help=f"run more than {_MOST:,} points too")
    add("--out", metavar="DIR", help="the folder of results (default: outputs/sweep_<target>)")
    add("--timeout", **limit, metavar="SECONDS", help="what a point may take (default: no limit)")
    add("--memory", **limit, metavar="GB", help="what a point may take (default: no limit)")
    add("--dry-run", action="store_true", help="check and count only, and print the job script of --cluster")
    cluster.add_options(parser)


def help_text(command: str) -> str:
    """Return the description of a command for its --help."""
    return (resources.files(__package__) / f"templates/{command}.txt").read_text(encoding="utf-8")


def command(options: argparse.Namespace) -> int:
    """Run a sweep and return the exit code."""
    for name in ("timeout", "memory"):
        check_number(f"--{name}", getattr(options, name), 0.001, math.inf)
    target, points = _points(options)
    folder = Path(options.out or f"outputs/sweep_{target.replace(' ', '_')}").expanduser().absolute()
    done = {key: there for key in points if (there := _read(folder, key)) and there.state == PASSED}
    print(f"{target}: {len(points):,} points, of which {len(done):,} are done", file=sys.stderr)
    if options.dry_run:
        print(cluster.batch_system(options.cluster).job_script() if options.cluster else "", end="")
        return 0
    with _claimed(folder, {"sweep": target, "parameters": sorted(next(iter(points.values())).values)}):
        try:
            if len(done) < len(points):
                _run_all(options, folder, points, done)
        except KeyboardInterrupt:
            found = f"{len(done)} of {len(points)} points have run. The same command goes on with the others."
            raise KeyboardInterrupt(f"\n{found}") from None
        finally:
            if done:
                page = _report(folder, target, [done.get(key, point) for key, point in points.items()])
    failed = [point for point in done.values() if point.state == FAILED]
    for point in failed[:20]:
        print(f"{point}: {point.message}")
    print(f"{len(done) - len(failed)} of {len(points)} points passed\n{page}")
    return 1 if failed else 0


def _run_all(options: argparse.Namespace, folder: Path, points: Mapping[str, Point], done: dict[str, Point]) -> None:
    """Run the points that are not done, and add them to those that are."""
    missing = [point for key, point in points.items() if key not in done]
    bar = Bar(total=len(points), initial=len(done), unit="point", disable=not sys.stderr.isatty())
    with cluster.connected(options, folder) as (completed, here), bar:
        variables = {name: value for name, value in os.environ.items() if name.startswith("AVLIB_")}
        if here:
            share = str(max(1, (os.cpu_count() or 1) // here))
            variables |= {name: os.environ.get(name, share) for name in THREADS}
        limits, began = {"seconds": options.timeout, "memory": options.memory}, time.monotonic()
        task = functools.partial(run, folder=folder, variables=variables, place=Path.cwd(), **limits)
        with closing(completed(task, missing)) as outcomes, cache.without_leftovers(folder / "points"):
            for count, (point, outcome, running) in enumerate(outcomes, 1):
                lost = {"state": FAILED, "message": str(outcome)}
                done[point.key] = made = outcome if isinstance(outcome, Point) else replace(point, **lost)
                failed = sum(each.state == FAILED for each in done.values())
                left = bar.format_interval((time.monotonic() - began) / count * (len(points) - len(done)))
                text = f"{made} {made.state} in {made.seconds:.1f} s" + f": {made.message[:200]}" * bool(made.message)
                if bar.disable:
                    text = (
                        f"{len(done)} of {len(points)} done, {running} running, {failed} failed, {left} left | {text}"
                    )
                if bar.disable or made.state == FAILED:
                    bar.write(text, file=sys.stderr)
                bar.set_postfix_str(f"{running} running, {failed} failed")
                bar.update()


def run(
    point: Point, *, folder: Path, seconds: float, memory: float, variables: Mapping[str, str], place: Path
) -> Point:
    """Run a point in a process of its own, publish its folder, and return it with its outcome.

    Args:
        folder: of the sweep.
        seconds, memory: what the point may take; memory in GB.
        variables: of the environment of the process.
        place: its current folder.

    Raises:
        CacheError: the disk is full or cannot be written.
    """
    if (there := _read(folder, point.key)) and there.state == PASSED:
        return there  # by a worker that was given up for lost
    final, began = folder / "points" / point.key, time.monotonic()
    with tempfile.TemporaryFile() as log, cache.publishing(final) as attempt:
        _require_room(folder)
        attempt.mkdir()
        words = [*point.command, "--out", str(attempt)]
        status, problem, most = _watched(words, log, attempt, seconds, memory, variables, place)
        log.seek(0)
        text = log.read().decode(errors="replace")
        if status or problem:  # a point that found no room has not failed
            _require_room(folder)
        (attempt / "log.txt").write_text(text, encoding="utf-8")
        made = replace(point, seconds=round(time.monotonic() - began, 2), memory=round(most, 3))
        made = replace(made, **_outcome(attempt, text, status, problem))
        (attempt / "point.json").write_text(json.dumps(asdict(made), indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)  # of a try that failed
    return made


def _require_room(folder: Path) -> None:
    if (free := shutil.disk_usage(folder).free) < _SPACE:
        advice = "Free some space: the same command goes on from there."
        raise CacheError(folder, f"{free / 1e6:.0f} MB are free", f"at least {_SPACE / 1e6:.0f} MB", advice)


def _watched(words, log, attempt, seconds, memory, variables, place) -> tuple[int, str, float]:
    """Run avlib; return its exit status, why it was ended, and the most memory of its processes in GB."""
    import psutil

    began, problem, most, used = time.monotonic(), "", 0.0, 0.0
    environment = os.environ | variables
    paths = [environment.get("PYTHONPATH"), str(Path(__file__).parents[2])]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    how = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.STDOUT, "cwd": place, "env": environment}
    with psutil.Popen([sys.executable, "-c", _CHILD, *words], start_new_session=True, **how) as process:
        while not problem:
            with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                return process.wait(0.5), "", most
            with suppress(psutil.Error):
                family = [process, *process.children(recursive=True)]
                used = sum(each.memory_info().rss for each in family) / 1e9
            most = max(most, used)
            if time.monotonic() - began > seconds:
                problem = f"ran longer than {seconds:g} s"
                process.terminate()  # a notebook then writes what it has
                with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                    process.wait(10)
            elif used > memory:
                problem = f"took {used:.2f} GB of memory; --memory allows {memory:g}"
            elif not attempt.exists():
                problem = "was stopped"
        for each in family:
            with suppress(psutil.Error):
                each.kill()
    return process.returncode, problem, most


def _outcome(attempt: Path, log: str, status: int, problem: str) -> dict[str, object]:
    """State, message, figures and page of a point, by the files that its command wrote."""

    def content(name: str, default: object) -> object:
        path = attempt / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default

    figures = {name: figure["value"] for name, figure in content("figures.json", {}).items()}
    for each in content("measured.json", []):
        name = f"{each['name']} ({each['unit']})" if each["unit"] else each["name"]
        names = itertools.chain([name], (f"{name} {count}" for count in itertools.count(2)))
        figures[next(new for new in names if new not in figures)] = each["value"]
    (notebook,) = content("run.json", {"notebooks": [{}]})["notebooks"]
    lines = [line for line in log.splitlines() if line.strip()]
    message = problem or notebook.get("message") or (lines[-1] if lines and status else "")
    page = next((path.name for path in attempt.glob("*.html") if path.name != "index.html"), "")
    state = FAILED if status or problem else PASSED
    return {"state": state, "message": plain(message), "figures": figures, "page": page}


def _read(folder: Path, key: str) -> Point | None:
    """The outcome of a point, if it has run."""
    with suppress(OSError, ValueError, TypeError):
        return Point(**json.loads((folder / "points" / key / "point.json").read_text(encoding="utf-8")))
    return None


@contextmanager
def _claimed(folder: Path, sweep: dict[str, object]) -> Iterator[None]:
    """Hold a folder that is new or has results of this sweep."""
    about, advice = folder / "sweep.json", "Name another folder by --out."
    if folder.is_dir() and not about.exists() and any(folder.iterdir()):
        raise CacheError(folder, "holds other files", "a new folder, or that of the same sweep", advice)
    writable_folder(folder / "points")
    try:
        with FileLock(folder / "lock", timeout=0):
            found = json.loads(about.read_text(encoding="utf-8")) if about.exists() else sweep
            if found != sweep:
                raise CacheError(folder, f"has results of another sweep, {found}", f"{sweep}", advice)
            with cache.publishing(about) as unfinished:
                unfinished.write_text(json.dumps(sweep), encoding="utf-8")
            yield
    except Timeout:
        raise CacheError(folder, "another process sweeps into it", advice=f"Wait for it. {advice}") from None


def _points(options: argparse.Namespace) -> tuple[str, dict[str, Point]]:
    """The name of what the options run, and its points by their hash, each checked."""
    grid = _grid(options.parameters)
    if options.target[0] == "train":
        target, make = " ".join(options.target), functools.partial(_training, " ".join(options.target[1:]))
    else:
        notebook, *others = choose(options.target)
        if others:
            raise NotebookError(" ".join(options.target), "more than one", "one notebook, or `train` and a system")
        target, make = notebook.name, functools.partial(_notebook, notebook, _code(notebook), options.timeout)
    points: dict[str, Point] = {}
    for values in _chosen(grid, options):
        if "out_dir" in values:
            raise ParameterError("out_dir", "each point has a folder of its own", advice="Leave it out.")
        recipe, words = make(values)
        files = once.written(value for value in values.values() if value and Path(value).expanduser().exists())
        text = json.dumps([target, recipe, files], sort_keys=True, default=repr)
        point = Point(values, hashlib.sha256(text.encode()).hexdigest()[:12], words)
        if point.key in points:
            raise ParameterError("-p", f"{point} is the same as {points[point.key]}", "each point once")
        points[point.key] = point
    return target, points


def _notebook(notebook: Notebook, code: list[str], timeout: float, values: Mapping[str, str]) -> tuple[object, list]:
    """Return the inputs of a notebook's point, and its command."""
    (passed,) = check_parameters([notebook], values).values()
    limit = timeout if timeout < math.inf else CELL_TIMEOUT
    words = ["run", str(notebook.path), "--jobs", "1", "--cell-timeout", f"{limit:g}"]
    return [passed, code], [*words, *_given(values)]


def _training(name: str, values: dict[str, str]) -> tuple[object, list]:
    """Return the inputs of a training's point, and its command."""
    given = dict(values)
    file = given.pop("settings", "")
    system, settings, _, device = systems.chosen(name, read_settings(file) if file else {}, given)
    code = once.source_mark((system.trained.__module__, system.assess.__module__, "avlib.training"))
    return [asdict(settings), device, code], ["train", name, *_given(given), *(["--settings", file] if file else [])]


def _given(values: Mapping[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in ("-p", f"{name}={value}")]


def _code(notebook: Notebook) -> list[str]:
    """The code cells, and hashes of the modules of avlib that they import."""
    cells = [cell["source"] for cell in notebook.cells if cell["cell_type"] == "code"]
    names, marks = set(), []
    for source in cells:
        with suppress(SyntaxError):  # a line of IPython's own
            names |= set(once.imports(ast.parse(source), ""))
    for name in sorted(names):
        with suppress(ModuleNotFoundError):  # a name in a module
            marks.append(once.source_mark((name,)))
    return cells + marks


def _grid(given: Sequence[str]) -> dict[str, Sequence]:
    """The values of each parameter."""
    grid: dict[str, Sequence] = {}
    for text in given:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not name or not equals:
            raise ParameterError(f"-p {text}", "no name and values", "-p NAME=VALUE,VALUE")
        if name in grid:
            raise ParameterError(name, "is given twice", "one -p with all its values")
        grid[name] = _values(name, values)
    if not grid:
        raise ParameterError("-p", "an empty grid", "at least one -p NAME=VALUES")
    return grid


def _values(name: str, text: str) -> Sequence:
    if match := _RANGE.fullmatch(text):
        first, end, step = int(match[1]), int(match[2]), int(match[3] or 1)
        found: Sequence = range(first, end, step) if step else ()
    elif text.startswith("["):
        try:
            found = [json.dumps(value) for value in json.loads(f"[{text}]")]
        except ValueError:
            raise ParameterError(name, text, "lists as in [1, 2],[3, 4]") from None
    else:
        found = [value.strip() for value in next(csv.reader([text], skipinitialspace=True), None) or [""]]
    if not found or (isinstance(found, list) and len(found) > 1 and "" in found):
        raise ParameterError(name, f"{text!r} has an empty value", "values between commas, or a range such as 0:3")
    if isinstance(found, list) and (twice := {value for value in found if found.count(value) > 1}):
        raise ParameterError(name, f"{min(twice)} comes twice", "each value once")
    return found


def _chosen(grid: Mapping[str, Sequence], options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The values of each point: of all pairs, of some that are drawn, or of the same place in each parameter."""
    counts = {name: len(values) for name, values in grid.items()}
    total = max(counts.values()) if options.zip else math.prod(counts.values())
    for name, count in counts.items():
        if options.zip and count not in (1, total):
            raise ParameterError("--zip", f"{name} has {count} values", f"{total}, or one for all")
    if options.random is not None and not 1 <= options.random <= total:
        raise ParameterError("--random", f"{options.random}", f"1 to {total:,}, the points of the grid")
    if (count := options.random or total) > _MOST and not options.yes:
        raise ParameterError("-p", f"a grid of {count:,} points", f"at most {_MOST:,}", "Add --yes, or --random N.")
    for place in random.Random(0).sample(range(total), count) if options.random else range(total):  # noqa: S311
        values, rest = {}, place
        for name in reversed(grid):
            rest, index = (place, place % counts[name]) if options.zip else divmod(rest, counts[name])
            values[name] = str(grid[name][index])
        yield {name: values[name] for name in grid}


def _report(folder: Path, target: str, points: list[Point]) -> Path:
    """Write `results.csv` and `index.html`, and return the latter's path."""
    from . import report

    names, text = list(points[0].values), io.StringIO()
    figures = list(dict.fromkeys(name for point in points for name in point.figures))
    own, rows = [*names, "state", "seconds", "memory (GB)", "message", "folder"], csv.writer(text)
    rows.writerow([*own, *(f"{name} (measured)" if name in own else name for name in figures)])
    for point in points:
        facts = [point.state, point.seconds, point.memory, point.message, f"points/{point.key}"]
        rows.writerow([*point.values.values(), *facts, *(point.figures.get(name, "") for name in figures)])
    report.write(folder / "results.csv", text.getvalue())
    varied = [name for name in names if len({point.values[name] for point in points}) > 1]
    varied = [name for name in varied if name != "seed"] or varied
    shown = []
    columns = [_numbers([point.values[name] for point in points]) for name in names]
    for point, values in zip(points, zip(*columns, strict=True), strict=True):
        rest = [", ".join(f"{each} = {point.values[each]}" for each in varied if each != name) for name in names]
        found = [point.figures.get(name) for name in figures]
        found = [value if value is not None and math.isfinite(value) else None for value in found]
        shown.append(vars(point) | {"at": values, "rest": rest, "figures": found, "label": str(point)})
    summary = ", ".join(f"{count:,} {state}" for state, count in Counter(point.state for point in points).items())
    content = {"target": target, "names": names, "figures": figures, "points": shown, "varied": varied}
    page = report.templates().get_template("sweep.html.j2")
    report.write(folder / "index.html", page.render(**content, summary=summary, **report.script("sweep.js")))
    return folder / "index.html"


def _numbers(values: list[str]) -> list:
    """The values as numbers, if all are."""
    with suppress(ValueError):
        return [float(value) if "." in value or "e" in value else int(value) for value in values]
    return values
