"""Who may import whom, and what importing costs: read from the source, so that nothing slips in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# The house, from the ground up: a part may import from the parts before it, and from third parties.
# fmt: off
HOUSE = [
    "errors", "settings", "cache", "once", "workers", "tables", "shapes", "media", "features", "masking", "losses",
    "checkpoints", "models", "extract", "clips", "datasets", "metrics", "training", "systems", "view", "workbook",
    "__main__",
]
# fmt: on
APART = {"models": {"media", "clips", "datasets"}, "shapes": set(HOUSE) - {"errors", "shapes"}}
LAZY = {
    "errors",
    "cache",
    "once",
    "workers",
    "tables",
    "clips",
    "workbook",
    "__main__",
}  # imported by the command line and at every kernel's start

SOURCES = sorted((ROOT / "avlib").rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "avlib").parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """The parts of avlib that a module imports, at its head or inside a function."""
    package = ("avlib", *path.relative_to(ROOT / "avlib").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "avlib" and len(name) > 1}
    return found & set(HOUSE)


def test_there_is_something_to_check():
    assert {part_of(path) for path in SOURCES} - {"__init__"} <= set(HOUSE)
    assert imported_parts(ROOT / "avlib/media/sound.py") == {"errors", "media"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part = part_of(path)
    if part == "__init__":
        return
    allowed = set(HOUSE[: HOUSE.index(part) + 1]) - APART.get(part, set())
    assert imported_parts(path) <= allowed, f"{path} imports what stands above it"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("statement", ["import avlib", *(f"import avlib.{part}" for part in sorted(LAZY))])
def test_light_parts_stay_light(statement):
    assert not loaded_by(statement) & {"torch", "matplotlib", "papermill", "torchaudio", "transformers"}


def test_media_does_not_load_what_it_does_not_need():
    assert not loaded_by("import avlib.media, avlib.features") & {"matplotlib", "torchaudio", "librosa", "soundfile"}


def test_names_are_reached_from_the_top():
    import avlib

    assert avlib.features.cav_mae_fbank and "media" in dir(avlib)
    with pytest.raises(AttributeError, match="nothing"):
        _ = avlib.nothing
