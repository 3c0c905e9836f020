"""What batches and fused attention do for BEATs: the time for each clip, at the published size.

    .venv/bin/python tests/bench/beats.py

Eight clips of mixed length, one at a time and in batches of clips of similar length that are padded to their longest;
then the same network with scaled_dot_product_attention and with an explicit softmax, on clips of several lengths. Both
ways run in one process, in turn, on the same model and input; medians are compared. Writes JSON with --json.
"""

import argparse
import json
import random
import time
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from torch.nn import functional as F

from avlib.models.beats import BEATs, length_buckets

SECONDS = [1.0, 1.7, 2.3, 3.3, 4.1, 5.0, 8.0, 10.0]


def explicit_attention(query, key, value, bias=None, dropout_p=0.0):
    """What `scaled_dot_product_attention` computes, step by step."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return F.dropout((scores + bias).softmax(dim=-1), dropout_p) @ value


def timed(run) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_turn(ways: dict, rounds: int) -> dict[str, tuple[float, float]]:
    """Medians of wall and CPU seconds of each way; a first round warms up. Which goes first changes."""
    spent = {name: [] for name in ways}
    for index in range(rounds + 1):
        for name in sorted(ways, reverse=index % 2 == 1):
            spent[name].append(timed(ways[name]))
    return {name: tuple(map(median, zip(*times[1:], strict=True))) for name, times in spent.items()}


def batched(model: BEATs, clips: list[torch.Tensor], waste: float) -> list[torch.Tensor]:
    """Features of each clip, from padded batches."""
    found = [None] * len(clips)
    for rows in length_buckets([len(clip) for clip in clips], waste):
        lengths = torch.tensor([len(clips[row]) for row in rows])
        waveform = torch.nn.utils.rnn.pad_sequence([clips[row] for row in rows], batch_first=True)
        features, mask = model.features(waveform, lengths=lengths), model.token_mask(waveform.shape[1], lengths)
        for row, values, valid in zip(rows, features, mask, strict=True):
            found[row] = values[valid]
    return found


@torch.no_grad()
def main() -> None:
    """Print medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waste", type=float, default=0.1, help="share of padding in a batch, at most")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = BEATs().eval()
    clips = [0.1 * torch.randn(int(16000 * seconds)) for seconds in SECONDS]
    random.Random(0).shuffle(clips)  # as they come
    found = {
        "alone": [model.features(clip[None])[0] for clip in clips],
        "in batches": batched(model, clips, options.waste),
    }
    ways = {
        "alone": lambda: [model.features(clip[None]) for clip in clips],
        "in batches": lambda: batched(model, clips, options.waste),
    }
    spent = in_turn(ways, options.rounds)
    figures = {
        "threads": torch.get_num_threads(),
        "batches (rows)": str([len(rows) for rows in length_buckets([len(clip) for clip in clips], options.waste)]),
        "alone (s a clip)": round(spent["alone"][0] / len(clips), 3),
        "in batches (s a clip)": round(spent["in batches"][0] / len(clips), 3),
        "alone / in batches": round(spent["alone"][0] / spent["in batches"][0], 2),
        "alone / in batches, CPU time": round(spent["alone"][1] / spent["in batches"][1], 2),
        "largest difference": max(float((a - b).abs().max()) for a, b in zip(*found.values(), strict=True)),
    }
    for seconds, rows in ((1.0, 8), (3.3, 1), (10.0, 1), (10.0, 2)):
        waveform = 0.1 * torch.randn(rows, int(16000 * seconds))
        explicit = mock.patch("torch.nn.functional.scaled_dot_product_attention", explicit_attention)

        def fused(waveform=waveform) -> torch.Tensor:
            return model.features(waveform)

        def plain(waveform=waveform, explicit=explicit) -> torch.Tensor:
            with explicit:
                return model.features(waveform)

        spent = in_turn({"fused": fused, "plain": plain}, options.rounds)
        name = f"{rows} x {seconds} s"
        figures |= {
            f"{name}: fused (s a clip)": round(spent["fused"][0] / rows, 3),
            f"{name}: explicit / fused": round(spent["plain"][0] / spent["fused"][0], 2),
            f"{name}: the same, CPU time": round(spent["plain"][1] / spent["fused"][1], 2),
            f"{name}: largest difference": float((fused() - plain()).abs().max()),
        }
    print(*(f"{name:<34} {value}" for name, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
