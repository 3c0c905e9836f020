"""Work that is done once: results in the cache, known by their recipe and by the code that they follow from."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from . import cache

_Result = TypeVar("_Result")

# Modules of avlib that change no result: what they refuse, where they put files, how they write them.
# fmt: off
_INDIFFERENT = {
    "cache", "checkpoints", "device", "errors", "once", "progress", "settings", "systems", "tables", "workers",
}
# fmt: on


def done_once(
    group: str, name: str, recipe: Any, make: Callable[[Path], _Result], write: Callable[[_Result, Path], None], *,
    source: str | Iterable[str], together: bool = False,
) -> Path:  # fmt: skip
    """Return the path of a cached result, computing it first if needed.

    While another process computes the result, this one waits.

    Args:
        name: beginning of the name of the folder below it; a hash of `recipe` and code follows.
        recipe: the values that the result follows from: what JSON can hold, or what `repr` tells apart.
        make: called with a folder that outlives a killed process; returns the result.
        write: called with the result and a path, at which it writes a file or a folder.
        source: names of modules (`__name__`) whose code, with all of avlib that they import, the result follows from.
        together: whether all processes that torchrun started make the result, of which the first writes its own;
            otherwise the first makes it alone.
    """
    text = json.dumps(recipe, sort_keys=True, default=repr)
    modules = (source,) if isinstance(source, str) else tuple(source)
    mark = hashlib.sha256(f"{source_mark(modules)} {text}".encode()).hexdigest()[:12]
    folder = cache.folder(group, f"{name}-{mark}")
    result, progress, first = folder / "result", folder / "progress", is_first()
    with cache.locked(result) if first else nullcontext():
        if not _broadcast(result.exists()):
            if first:
                cache.remove_unfinished(folder)  # of a killed process; nobody else writes here
                progress.mkdir(exist_ok=True)
            made = make(progress) if first or together else None
            if first:
                with cache.publishing(result) as unfinished:
                    write(made, unfinished)
                shutil.rmtree(progress, ignore_errors=True)
        _broadcast(True)  # the result is there now
    return result


@functools.cache
def source_mark(modules: tuple[str, ...]) -> str:
    """Return a hash of modules and of all modules of avlib that they import, without comments and docstrings."""
    waiting, seen = list(modules), {}
    while waiting:
        module = waiting.pop()
        if module in seen or module.removeprefix("avlib.") in _INDIFFERENT or module == "avlib":
            continue
        if (path := _file(module)) is not None:
            seen[module], imported = _code(path, module)
            waiting += imported
    missing = [module for module in modules if module not in seen]
    if missing:
        raise ModuleNotFoundError(f"no module {missing[0]}, which would decide nothing")
    return hashlib.sha256("".join(f"{module} {seen[module]}" for module in sorted(seen)).encode()).hexdigest()


@functools.cache
def _code(path: Path, module: str) -> tuple[str, list[str]]:
    """The code of a module without docstrings, and the modules of avlib that it may import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = imports(tree, module if path.name == "__init__.py" else module.rpartition(".")[0])
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, False):
            node.body = node.body[1:]
    return ast.dump(tree), names


def imports(tree: ast.AST, package: str) -> list[str]:
    """Return the modules of avlib that code in a package may import; a name in a module is listed as one."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith("avlib.")]


def _file(module: str) -> Path | None:
    if file := getattr(sys.modules.get(module), "__file__", None):
        return Path(file)
    place = Path(__file__).parent.joinpath(*module.split(".")[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()), None)


def written(paths: Iterable[str | Path]) -> list[tuple[str, int, int]]:
    """Return name, size and time of writing of existing files, also those in folders."""
    there = [Path(path) for path in paths if str(path)]
    files = [file for path in there for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    facts = [(str(file), file.stat()) for file in files if file.is_file()]
    return [(name, fact.st_size, fact.st_mtime_ns) for name, fact in facts]


def is_first() -> bool:
    """Return True in the only process, or in the one of several that writes."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def processes() -> Iterator[None]:
    """Connect the processes that torchrun started; on exit each may end by itself."""
    try:
        yield
    finally:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()


def _broadcast(value: bool) -> bool:
    """Broadcast `value` from rank 0; other ranks block."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return value
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group()  # gloo for the CPU, and NCCL for GPUs where there are any
    values = [value]
    distributed.broadcast_object_list(values, device="cpu")
    return values[0]
