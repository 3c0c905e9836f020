"""The command line: `avlib list`, `run`, `train`, `site`, `cache`, and the commands that systems bring."""

from __future__ import annotations

import argparse
import datetime
import importlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import __version__, cache
from .errors import AvlibError, CacheError, ParameterError, plain
from .workbook import answers, sweep
from .workbook.notebooks import FAILED, INTERRUPTED, NOT_RUN, PASSED, Notebook, Result, choose
from .workbook.parameters import read_settings, writable_folder


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch reads it: see env/setup
    from . import systems  # no torch yet

    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command in systems.commands():
        system = importlib.import_module(f".systems.{systems.commands()[options.command][0]}", __package__)
        return _guarded(lambda: getattr(system, f"{options.command}_command")(rest))
    if rest and options.command == "run" and not any(word.startswith("-") for word in rest):
        options.numbers, rest = options.numbers + rest, []  # argparse takes numbers in one place only
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    commands = {"list": _list, "run": _run, "train": _train, "sweep": _sweep, "site": _site, "cache": _cache}
    commands["answers"] = answers.command
    if options.command is None:
        parser.print_help()
        return 0
    return _guarded(lambda: commands[options.command](options))


def entry() -> int:
    """Run the command `avlib`."""
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:  # a closed stream, whose number a file of ours would get
        pass
    os.close(spare)
    sys.stdout, sys.stderr = (
        _Stream(
            os.fdopen(number, "wb", closefd=False),
            encoding=getattr(stream, "encoding", "utf-8"),
            errors="replace",  # a terminal that has no Hangul must not end a run
            line_buffering=number == 2 or os.isatty(number),
        )
        for number, stream in ((1, sys.stdout), (2, sys.stderr))
    )
    return main()


class _Stream(io.TextIOWrapper):
    """A stream without control sequences, whose text is dropped once nobody reads it, as behind `| head -1`."""

    def write(self, text: str) -> int:
        # tqdm goes back to the beginning of a line, and up.
        parts = re.split(r"(\r|\x1b\[A)", text)
        with self._lasting():
            super().write("".join(part if place % 2 else plain(part) for place, part in enumerate(parts)))
        return len(text)

    def flush(self) -> None:
        with self._lasting():
            super().flush()

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def _guarded(command: Callable[[], int | list[str]]) -> int | list[str]:
    try:
        return command()
    except AvlibError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # of a training, or before anything ran
        print(error, end="\n" if str(error) else "", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    from . import systems

    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("avlib", description="The audio-visual workbook: its notebooks, headless.")
    parser.add_argument("--version", action="version", version=f"avlib {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    listing = commands.add_parser("list", help="show the notebooks and their parameters")
    listing.add_argument("numbers", nargs="*", metavar="NUMBER", help="which ones, as for run; all when left out")
    listing.add_argument("--json", action="store_true", help="as JSON")

    text = sweep.help_text("run")
    run = commands.add_parser("run", help="execute notebooks and report", description=text, formatter_class=form)
    run.add_argument("numbers", nargs="*", metavar="NUMBER", help="a number, a row's digit, or a notebook's path")
    _add_values(run, "a parameter, as `list` shows them, for all chosen notebooks; may be repeated")
    text = "notebooks at a time, which share the cores (default: 2)"
    run.add_argument("--jobs", type=int, choices=(1, 2), default=2, help=text)
    run.add_argument("--out", metavar="DIR", help="an empty or new folder to write to (default: outputs/<time>)")
    text = "what one cell may take (default: 1800)"
    run.add_argument("--cell-timeout", type=float, default=1800, metavar="SECONDS", help=text)

    how = {"description": _train_help(), "formatter_class": form, "add_help": False}
    train = commands.add_parser("train", help="train a system", **how)
    train.add_argument("-h", "--help", action=_TrainHelp, help="this; behind SYSTEM, what its settings can choose too")
    train.add_argument("system", metavar="SYSTEM", help=", ".join(systems.names()))
    train.add_argument("--settings", metavar="FILE", help="a JSON or YAML file of settings; -p goes before it")
    _add_values(train, "a setting; may be repeated")
    train.add_argument("--data", metavar="PATH", help="a folder of clips, or a table that lists them")
    train.add_argument("--out", metavar="DIR", help="an empty or new folder for the trained model")

    sweep.add_command(commands)

    site = commands.add_parser("site", help="turn an executed run into a static site")
    site.add_argument(
        "run", nargs="?", metavar="RUN", help="a folder that `run` wrote (default: the newest in outputs/)"
    )
    site.add_argument("--out", metavar="DIR", default="site", help="an empty or new folder (default: site)")

    store = commands.add_parser("cache", help="show or clear the cache of clips and trained models")
    store.add_argument("--clear", action="store_true", help="remove everything in it")
    answers.add_command(commands)

    for name, (_, text) in systems.commands().items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _add_values(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help=text)


def _train_help() -> str:
    """The help of `train`, with the help of each system."""
    from . import systems

    described = {name: systems.described(name) for name in systems.names()}
    return sweep.help_text("train") + "".join(
        f"\n{name}: {about['TITLE']}\n" + textwrap.indent(about["HELP"].strip("\n"), "  ") + "\n"
        for name, about in described.items()
    )


class _TrainHelp(argparse.Action):
    """Help that loads a named system and lists its choices."""

    def __init__(self, **how):
        super().__init__(nargs=0, **how)

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, values, option_string=None):
        from . import systems

        parser.print_help()
        if options.system in systems.names():
            system = importlib.import_module(f".systems.{options.system}", __package__)
            for name, known in getattr(system, "choices", dict)().items():
                print(f"\n-p {name}=")
                width = max(map(len, known))
                print("\n".join(f"  {choice:<{width}}  {meaning}" for choice, meaning in known.items()))
        parser.exit()


def _list(options: argparse.Namespace) -> int:
    notebooks = choose(options.numbers)
    if options.json:
        content = []
        for notebook in notebooks:
            facts = {"number": notebook.number, "title": notebook.title, "path": str(notebook.path)}
            content.append(facts | {"parameters": list(map(vars, notebook.parameters.values()))})
        print(json.dumps(content, indent=1, ensure_ascii=False))
        return 0
    for notebook in notebooks:
        print(f"{notebook.number}  {notebook.title}")
        parameters = notebook.parameters.values()
        rows = [(f"{each.name}: {each.type} = {json.dumps(each.default)}", each.help) for each in parameters]
        width = max((len(left) for left, _ in rows), default=0)
        for left, right in rows:
            print(f"      {left:<{width}}  {right}")
    return 0


def _cache(options: argparse.Namespace) -> int:
    root = cache.folder()
    print(root)
    files, sizes = Counter(), Counter()
    for name, size in cache.contents():
        group = Path(name).parts[0]
        files[group] += 1
        sizes[group] += size
    width = max(map(len, [*files, "total"]))
    for group, count in [*files.items(), ("total", files.total())]:
        size, link = (sizes.total() if group == "total" else sizes[group]), root / group
        to = f"  link to {link.readlink()}" if link.is_symlink() else ""
        print(f"  {group:<{width}}  {count:>6} file{'s' if count != 1 else ' '}  {_size(size):>9}{to}")
    if options.clear:
        print(f"{_size(cache.clear())} removed from {root}")
    return 0


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000


def _run(options: argparse.Namespace) -> int:
    notebooks = choose(options.numbers)
    given = _given(options.parameters)

    from .workbook import report, run  # papermill and nbconvert take a second to import

    run.check_parameters(notebooks, given)
    facts = {
        "state": "running",
        "started": datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "seconds": 0.0,
        "given": given,
        "jobs": options.jobs,
        "cell_timeout": options.cell_timeout,
    } | report.machine()
    folder = _output_folder(options.out)
    stopping = _interruptible()
    began = time.monotonic()
    progress = _Progress(len(notebooks))

    def update(results: list[Result], latest: Result | None) -> None:
        progress.finished(latest)
        if latest or not (folder / "run.json").exists():  # so that a run which is killed leaves a report
            with suppress(CacheError):  # a full disk, which may have room again at the end
                report.write_report(folder, results, facts | {"seconds": round(time.monotonic() - began, 2)})

    limits = {"jobs": options.jobs, "cell_timeout": options.cell_timeout}
    results = run.run_many(notebooks, given, folder, **limits, progress=progress.cell, update=update)
    for number in stopping:  # the report is written now
        signal.signal(number, signal.SIG_IGN)
    progress.bar.close()
    states = {result.state for result in results}
    stopped = states & {INTERRUPTED, NOT_RUN}
    facts["state"] = INTERRUPTED if stopped else FAILED if FAILED in states else PASSED
    facts["seconds"] = round(time.monotonic() - began, 2)
    _print_failures(results)
    _print_table(results)
    print(f"\n{report.write_report(folder, results, facts)}")
    return {PASSED: 0, FAILED: 1, INTERRUPTED: 130}[facts["state"]]


def _sweep(options: argparse.Namespace) -> int:
    _interruptible()
    return sweep.command(options)


def _interruptible() -> list[int]:
    """Make a batch system's SIGTERM and a closed terminal leave a report as Ctrl-C does; return the signals."""
    stopping = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        stopping.append(signal.SIGHUP)
    for number in stopping:
        signal.signal(number, signal.default_int_handler)
    return stopping


def _site(options: argparse.Namespace) -> int:
    from .workbook import site

    print(site.build(Path(options.run) if options.run else site.newest(), _empty_folder(options.out)))
    return 0


def _train(options: argparse.Namespace) -> int:
    from . import systems

    given = _given(options.parameters)
    if options.data:
        if "data" in given:
            raise ParameterError("data", f"{options.data} by --data, {given['data']} by -p", "one of the two")
        given["data"] = options.data
    sources = [read_settings(options.settings) if options.settings else {}, given]
    system, settings, size, device = systems.chosen(options.system, *sources)
    first = systems.is_first()
    out = _empty_folder(options.out) if options.out and first else None

    from . import training

    if hasattr(system, "fitted"):
        settings = system.fitted(settings, *sources)
    device = training.chosen_device(device)
    with systems.processes():
        began = time.monotonic()
        trained = system.trained(settings, device=device, progress=first)
        seconds = time.monotonic() - began
        if out:  # before anything can go wrong with figures
            shutil.copytree(trained.folder, out, dirs_exist_ok=True)
            trained.history.to_csv(out / "history.csv")
        figures, remarks, files = system.assess(trained.model, settings, device=device, progress=first)
    if not first:
        return 0
    what = ", ".join([options.system, size, getattr(settings, "stage", "")]).removesuffix(", ")
    if trained.history.rows:
        training = trained.history.rows[-1]
        print(f"\n{what}: {training['step']} steps, {training['seconds']:.1f} s when they were done;")
        print(f"{seconds:.1f} s now, with data.")
    else:
        print(f"\n{what}: read from {trained.folder}.")
    if (noted := trained.folder / systems.DATA_NOTE).exists():
        print(noted.read_text(encoding="utf-8").partition("\n")[0])
    if figures:
        print("On clips that it was not trained on:\n")
    width = max(map(len, figures), default=0)
    for name, figure in figures.items():
        print(f"  {name:<{width}}  {figure}")
    if remarks:
        print(f"\n{remarks}")
    print(f"\n{trained.folder}")
    if out:
        facts = {name: figure._asdict() for name, figure in figures.items()}
        (out / "figures.json").write_text(json.dumps(facts, indent=1) + "\n")
        for name, write in files.items():
            write(out / name)
        print(out)
    return 0


def _given(parameters: list[str]) -> dict[str, str]:
    given = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ParameterError(f"-p {text}", "no name and value", "-p NAME=VALUE")
        given[name.strip()] = value
    return given


def _empty_folder(out: str) -> Path:
    folder = writable_folder(out).absolute()
    if any(folder.iterdir()):
        raise CacheError(folder, "holds files already", "an empty or a new folder", "Name another one.")
    return folder


def _output_folder(out: str | None) -> Path:
    if out is not None:
        return _empty_folder(out)
    parent = writable_folder("outputs").absolute()
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in itertools.chain([""], (f"-{count}" for count in itertools.count(2))):
        try:
            (parent / f"{stamp}{suffix}").mkdir()
            return parent / f"{stamp}{suffix}"
        except FileExistsError:  # another run began in the same second
            continue


class _Progress:
    """A live line on a terminal; elsewhere a line as a notebook begins, at each quarter and as it ends."""

    def __init__(self, total: int):
        from tqdm import tqdm

        self.bar = tqdm(total=total, unit="notebook", leave=False, disable=not sys.stderr.isatty())
        self.running: dict[str, str] = {}

    def cell(self, notebook: Notebook, begun: int, cells: int) -> None:
        self.running[notebook.number] = f"{notebook.number}: cell {begun} of {cells}"
        quarter = 4 * begun // cells > 4 * (begun - 1) // cells
        if self.bar.disable and (begun == 1 or (quarter and begun < cells)):
            self._print(f"{notebook.number}  cell {begun} of {cells}" + (f"  {notebook.title}" if begun == 1 else ""))

    def finished(self, result: Result | None) -> None:
        """Note that a notebook ended or, without one, that a second has gone by."""
        if result:
            self.running.pop(result.number, None)
            detail = f": {result.message.splitlines()[0][:200]}" if result.message else ""
            self._print(f"{result.number}  {result.state} in {result.seconds:.1f} s{detail}")
            self.bar.update()
        self.bar.set_postfix_str(", ".join(list(self.running.values())))

    def _print(self, line: str) -> None:
        self.bar.write(line, file=sys.stderr)
        sys.stderr.flush()


def _print_failures(results: list) -> None:
    for result in results:
        if result.state == "failed":
            print(f"\n── {result.number} {result.title}: {result.message}")
            if result.source:
                print(f"   cell {result.cell}:\n\n" + "\n".join(f"    {line}" for line in result.source.splitlines()))
            if result.traceback:
                print(f"\n{result.traceback}")


def _print_table(results: list) -> None:
    width = min(max(len(result.title) for result in results), 60)
    print(f"\n{'':<4} {'':<{width}} {'state':<12} {'seconds':>8} {'claims':>7}")
    for result in results:
        title = f"{result.title[:width]:<{width}}"
        print(f"{result.number:<4} {title} {result.state:<12} {result.seconds:>8.1f} {len(result.claims):>7}")


if __name__ == "__main__":
    sys.exit(entry())
