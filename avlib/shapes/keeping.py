"""Calls of `int` and such in a model's own code that keep symbols."""

from __future__ import annotations

import builtins
import contextlib
import dis
import functools
import inspect
import operator
import sys
import types
from collections.abc import Callable, Container, Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor


def called(fn: Any) -> list[FunctionType]:
    """The function that a callable runs."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.getattr_static(fn, "forward", None) if isinstance(fn, torch.nn.Module) else getattr(fn, "__func__", fn)
    fn = fn if isinstance(fn, FunctionType) else inspect.getattr_static(type(fn), "__call__", None)
    return [fn] if isinstance(fn, FunctionType) else []


def _len(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt):
        return value.shape[0]
    return len(value)


def _converting(plain: type, convert: Callable) -> Callable:
    def converted(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.SymInt | torch.SymFloat):
            return convert(args[0])
        return plain(*args, **kwargs)

    return converted


def _extreme(symbolic: Callable, plain: Callable) -> Callable:
    def either(*args: Any, **kwargs: Any) -> Any:
        items = list(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else args
        if len(items) > 1 and any(isinstance(value, torch.SymInt | torch.SymFloat) for value in items) and not kwargs:
            return functools.reduce(symbolic, items)
        return plain(*args, **kwargs)

    return either


def _range(*args: Any) -> range:
    """The same range; the number of turns becomes a fact about sizes, which a loop's outputs may follow."""
    start, stop, step = (*args, 1) if len(args) == 2 else args if len(args) == 3 else (0, *args, 1)
    if isinstance(stop - start, torch.SymInt) and type(step) is int and step > 0:
        int(torch.sym_max(0, (stop - start + step - 1) // step))
    return range(*args)


def _type(*args: Any) -> type:
    kind = type(*args)
    return _NUMBERS.get(kind, kind) if len(args) == 1 else kind


def _isinstance(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) or (type(value) in _NUMBERS and issubclass(_type(value), kinds))


def _hash(number: torch.SymInt) -> int:
    """A hash of a symbol, which may be a key of a cache; other symbols have none."""
    what = getattr(number.node, "what", None)
    return _symbols_hash(number) if what is None else hash((number.node.shape_env.until, what._key))


_symbols_hash = torch.SymInt.__hash__
_NUMBERS = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
SHIMS = {
    "divmod": lambda a, b: (
        (a // b, a % b) if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt) else divmod(a, b)
    ),
    "len": _len,
    "range": _range,
    "type": _type,
    "isinstance": _isinstance,
    "int": _converting(int, torch.sym_int),
    "float": _converting(float, torch.sym_float),
    "max": _extreme(torch.sym_max, max),
    "min": _extreme(torch.sym_min, min),
}
_PREFIX = "avlib."  # names that no code can have by itself
_LOAD, _MORE = dis.opmap["LOAD_GLOBAL"], dis.EXTENDED_ARG


def rewritten(code: CodeType) -> CodeType:
    """The same code, in which calls of `int` and such keep symbols; as values they stay as they are."""
    return _rewritten_in(code, code.co_filename)  # equal code of two files is not the same


@functools.lru_cache(maxsize=8192)
def _rewritten_in(code: CodeType, file: str) -> CodeType:
    consts = tuple(rewritten(value) if isinstance(value, CodeType) else value for value in code.co_consts)
    words, names, more = bytearray(code.co_code), list(code.co_names), 0
    for i in range(0, len(words), 2) if SHIMS.keys() & set(names) else ():
        argument = more << 8 | words[i + 1]
        if words[i] == _LOAD and argument & 1 and names[argument >> 1] in SHIMS:  # the last bit is set for a call
            name = _PREFIX + names[argument >> 1]
            if name not in names:
                names.append(name)
            changed = names.index(name) << 1 | 1
            if changed < 256 or (more and changed < 2**16):
                words[i + 1] = changed & 255
                if more:
                    words[i - 1] = changed >> 8
        more = argument if words[i] == _MORE else 0
    if len(names) == len(code.co_names) and all(map(operator.is_, consts, code.co_consts)):
        return code
    return code.replace(co_code=bytes(words), co_names=tuple(names), co_consts=consts)


def functions_in(values: Iterable[Any], scopes: Container[int], seen: set[int]) -> Iterator[Any]:
    """The functions that call `int` and such, and caches, of some modules: in classes, decorators and closures too."""
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, FunctionType):
            if id(value.__globals__) in scopes and rewritten(value.__code__) is not value.__code__:
                yield value
            cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
            yield from functions_in([*cells, getattr(value, "__wrapped__", None)], scopes, seen)
        elif isinstance(value, type):
            if id(getattr(sys.modules.get(value.__module__), "__dict__", None)) in scopes:
                yield from functions_in(list(vars(value).values()), scopes, seen)
        elif isinstance(value, property):
            yield from functions_in([value.fget], scopes, seen)
        else:
            if hasattr(type(value), "cache_clear"):
                yield value
            holds = type(value).__module__ in ("builtins", "functools")  # a method, a cache, a partial function
            names = ("__func__", "__wrapped__", "func") if holds else ()
            yield from functions_in([getattr(value, name, None) for name in names], scopes, seen)


@contextlib.contextmanager
def shims(functions: Iterable[Any]) -> Iterator[None]:
    """Let these functions keep symbols where they call `int` and such; their caches keep no fake tensors."""
    changed = [(function, function.__code__) for function in functions if isinstance(function, FunctionType)]
    caches = [(cache, cache.cache_info().misses) for cache in functions if not isinstance(cache, FunctionType)]
    vars(builtins).update((_PREFIX + name, shim) for name, shim in SHIMS.items())
    torch.SymInt.__hash__ = _hash
    try:
        for function, code in changed:
            function.__code__ = rewritten(code)
        yield
    finally:
        torch.SymInt.__hash__ = _symbols_hash
        for function, code in changed:
            function.__code__ = code
        for cache, misses in caches:
            if cache.cache_info().misses != misses:
                cache.cache_clear()
