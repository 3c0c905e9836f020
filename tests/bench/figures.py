"""Figures of merit beside loops over scikit-learn's functions: the same numbers, and what they cost.

    .venv/bin/python tests/bench/figures.py

Each pair runs in one process and in turn; medians of CPU time are compared. Writes JSON with --json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from beats import in_turn
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from avlib import metrics


def main() -> None:
    """Print ratios, and how far both are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dice = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(1000, 100, generator=dice), torch.rand(1000, 100, generator=dice) < 0.1
    truth, guess = (torch.randint(4, (400,), generator=dice) for _ in range(2))
    speakers, draws = np.arange(400) // 10, 100

    def precision() -> float:
        columns = zip(labels.T.numpy(), scores.T.numpy(), strict=True)
        return float(np.mean([average_precision_score(true, score) for true, score in columns]))

    def interval() -> float:
        chosen, found = np.random.default_rng(0), []
        for _ in range(draws):
            rows = np.concatenate([np.flatnonzero(speakers == each) for each in chosen.integers(0, 40, 40)])
            found.append(balanced_accuracy_score(truth.numpy()[rows], guess.numpy()[rows]))
        return float(np.quantile(found, 0.025))

    ways = {
        "mAP of 100 classes": (lambda: metrics.mean_average_precision(scores, labels.float()), precision),
        "interval of UAR, 100 draws": (
            lambda: metrics.bootstrap_interval(metrics.balanced_accuracy, speakers, guess, truth, draws=draws).low,
            interval,
        ),
    }
    figures = {}
    for name, (ours, theirs) in ways.items():
        spent = in_turn({"ours": ours, "theirs": theirs}, options.rounds)
        figures[f"{name}: scikit-learn / avlib"] = round(spent["theirs"][1] / spent["ours"][1], 2)
        figures[f"{name}: difference"] = abs(float(ours()) - theirs())
    print(*(f"{name:<56} {value:.3g}" for name, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
