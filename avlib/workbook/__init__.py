"""Read, check and run the notebooks, and show their claims.

A notebook calls `versions`, `check`, `claim`, `finding`, `versus`, `measured`, `refused` and `exercise`. Tests and
runners call `discover` and `run_one`; `table` is the workbook at a glance. Each name loads its module when it is first
used, so that a kernel pays for the standard library alone.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "check": "kernel",
    "claim": "kernel",
    "finding": "kernel",
    "measured": "kernel",
    "refused": "kernel",
    "versus": "kernel",
    "versions": "kernel",
    "exercise": "exercises",
    "discover": "notebooks",
    "table": "notebooks",
    "run_one": "run",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
