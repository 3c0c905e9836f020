"""Little notebooks for tests, and the command line in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat

CHECK = "from avlib import workbook\nchecked = workbook.check(globals())"
PARAMETERS = """\
seconds: float = 10.0  # 0.1 to 30: how much of the clip is used
steps: int = 3  # 1 or more: training steps
size: str = "tiny"  # "tiny" or "full": which settings
layers: list[int] = [1, 2]  # which layers
flag: bool = False  # whether
name: str = "a"  # any text
clip: str = ""  # a file of your own
settings: str = ""  # a JSON or YAML file with values for these
out_dir: str = ""  # a folder for what is made"""


def write(path: Path, *code: str, title: str = "# A title\n\nA sentence.", parameters: str = PARAMETERS) -> Path:
    """A notebook with a title, a parameters cell, and code; a string that begins with `#md` is prose."""
    cells = [nbformat.v4.new_markdown_cell(title), nbformat.v4.new_code_cell(parameters)]
    cells[1].metadata["tags"] = ["parameters"]
    for source in code:
        new = nbformat.v4.new_markdown_cell if source.startswith("#md\n") else nbformat.v4.new_code_cell
        cells.append(new(source.removeprefix("#md\n")))
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def avlib(notebooks: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m avlib` with the notebooks of a folder."""
    command = [sys.executable, "-m", "avlib", *map(str, arguments)]
    variables = os.environ | {"AVLIB_NOTEBOOKS": str(notebooks)} | environment
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=80)
