"""The shapes inside a model: traces, and formulas for every size.

`trace` runs any module or callable and records each call and each operation; with names for sizes, it finds the
formulas that shapes follow.
"""

from __future__ import annotations

import importlib

_HOMES = {
    **dict.fromkeys(("check", "diff"), "compare"),
    **{"couple": "coupling", "Formula": "formula"},
    **dict.fromkeys(("Requirement", "Row", "Source", "TensorInfo"), "rows"),
    **dict.fromkeys(("explain", "Trace", "trace", "trace_build"), "tracing"),
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
