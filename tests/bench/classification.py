"""What the small classifier learns, for several seeds: the figures that a notebook or a note states. Minutes for each.

    .venv/bin/python tests/bench/classification.py 0 1 2 > classification.json

Trains, for each seed, the model that notebooks use, on its own division of the speakers, and one for each way to tell
the word, all with the full number of steps; or takes them from the cache. Measures UAR on speakers that no training
heard. Prints JSON, with CPU seconds; a model from the cache has those of reading it.
"""

import argparse
import json
import sys
import time

from avlib import metrics
from avlib.systems import classification

WAYS = {
    "nothing": {"word": ""},
    "row": {"word": "row"},
    "row x 10": {"word": "row", "word_scale": 10.0},
    "one-hot rows": {"word": "one_hot_rows"},
    "embedding": {"word": "embedding"},
    "FiLM": {"word": "film"},
    "heads": {"word": "heads"},
}


def learned(settings: classification.Settings) -> dict[str, float]:
    """A training, and what came of it."""
    begun = time.process_time()
    model, history, _ = classification.trained(settings, progress=False)
    seconds = time.process_time() - begun
    own = classification.parts(settings, progress=False)
    found = classification.predict(model, own.test, progress=False)
    baselines = classification.baseline_predictions(own.train, own.test)
    row = {"UAR": metrics.balanced_accuracy(found.predicted, found.targets)}
    row |= {name: metrics.balanced_accuracy(each.predicted, each.targets) for name, each in baselines.items()}
    row |= {"steps": history.rows[-1]["step"], "loss": history.rows[-1]["loss"], "CPU seconds": seconds}
    return {name: round(value, 3) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--epochs", type=int, default=classification.tiny.epochs, help="fewer, to try it out")
    given = parser.parse_args()
    found = {}
    for seed in given.seeds:
        base = classification.changed(classification.tiny, {"seed": seed, "epochs": given.epochs})
        for name, changes in {"the model": {}, **WAYS}.items():
            found.setdefault(name, {})[seed] = row = learned(classification.changed(base, changes))
            print(f"seed {seed}, {name}: {row}", file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":  # rendering starts processes, which import this file
    main()
