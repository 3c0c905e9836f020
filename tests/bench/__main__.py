"""Run all benches, print each ratio beside what is promised, and write bench.json.

    .venv/bin/python -m tests.bench [--only media loading] [--json bench.json]

Each bench is a process of its own, in which ours and its peers run in turn. A peer that is not installed is named; so
is a bench that fails or takes longer than --minutes. Nothing is asserted: read ratios of a busy machine with care.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PEERS = {"torchinfo": "shapes", "torchlens": "shapes", "cv2": "media", "transformers": "unit2av", "sklearn": "figures"}
# Arguments of each bench. The last two train: they print what is learned, and have no ratio.
BENCHES = {
    "loading": [], "media": [], "figures": [], "attention": [], "beats": [], "classifiers": [], "shapes": [], "svc": [],
    "unit2av": [], "audiotoken": ["0"], "classification": ["0"],
}  # fmt: skip
# What is promised of a ratio, by a part of its name; `svc` brings its own.
PROMISED = {
    "ten frames / decoding all": "below 1.0",
    "seek / frames": "above 1.0",
    "explicit / fused": "above 1.0",
    "alone / in batches": "above 1.0",
}


def run(name: str, minutes: float) -> dict | str:
    """Return the figures of a bench, what it printed where it has no JSON, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        more = [] if BENCHES[name] else ["--json", str(out)]
        command = [sys.executable, str(HERE / f"{name}.py"), *BENCHES[name], *more]
        here = {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes, env=os.environ | here)
        except subprocess.TimeoutExpired:
            return f"took more than {minutes:g} minutes"
        if done.returncode:
            return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        return json.loads(out.read_text()) if out.exists() else {"printed": done.stdout.strip()}


def ratios(figures: object, name: str = "") -> Iterator[tuple[str, float, str]]:
    """Yield the ratios in a nest of figures: their names, values, and promises of their own."""
    if isinstance(figures, list):
        for each in figures:
            yield each["what"], each["ratio"], each["promised"]
    elif isinstance(figures, dict):
        for key, value in figures.items():
            if key == "figures" or isinstance(value, dict):
                yield from ratios(value, f"{name} {key}".strip() if key != "figures" else name)
            elif isinstance(value, int | float) and ("/" in key.replace("clips/s", "") or "ratio" in f"{name} {key}"):
                promised = next((text for part, text in PROMISED.items() if part in key), "none stated")
                yield f"{name} {key}".strip(), value, promised


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--minutes", type=float, default=20, help="for each bench, at most")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    for peer, bench in PEERS.items():
        if bench in options.only and importlib.util.find_spec(peer) is None:
            print(f"{peer} is not installed: {bench} runs without it; pip install -r tests/bench/requirements.txt")
    found = {}
    for name in options.only:
        print(f"\n{name}", flush=True)
        found[name] = run(name, options.minutes)
        for what, value, promised in ratios(found[name]):
            print(f"  {what:<72} {value:6.2f}   promised: {promised}", flush=True)
        if isinstance(found[name], str):
            print(f"  {found[name]}")
        elif "printed" in found[name]:
            print(*(f"  {line}" for line in found[name]["printed"].splitlines()), sep="\n")
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
