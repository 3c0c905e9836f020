"""Audio-visual models taken apart: the package under the workbook.

Importing it is cheap: a name such as `avlib.media` loads its module, and with it torch, when it is first used.
"""

from __future__ import annotations

import importlib
import pkgutil

__version__ = "0.1.0"

_MODULES = sorted({module.name for module in pkgutil.iter_modules(__path__)} - {"__main__"})

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"avlib.{name}")
    raise AttributeError(f"module 'avlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
