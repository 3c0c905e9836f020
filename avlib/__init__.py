"""Audio-visual models taken apart: the package under the workbook.

Importing it is cheap: a name such as `avlib.media` loads its module, and with it torch, when it is first used.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_MODULES = (
    "cache",
    "checkpoints",
    "clips",
    "datasets",
    "errors",
    "extract",
    "features",
    "losses",
    "masking",
    "media",
    "metrics",
    "models",
    "settings",
    "shapes",
    "systems",
    "training",
    "view",
    "workbook",
    "workers",
)

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"avlib.{name}")
    raise AttributeError(f"module 'avlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
