"""What short clips save: Whisper base on as many positions as 3 s have, against padding to 30 s as published.

    .venv/bin/python tests/bench/classifiers.py

Both ways run in one process, in turn, on the same encoder (random weights) and clips, from the waveform to the hidden
states; medians are compared. Then the CPU seconds of a training step of each small backbone. Writes JSON with --json.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from avlib.features import whisper_log_mel
from avlib.models.classifiers import BACKBONES, AudioClassifier, encode_whisper

SECONDS, PADDED = 3, 30
FIRST_OF_FAMILY = ("whisper-base", "resnet50", "wav2vec2-base", "hubert-base", "ast", "beats")


@torch.no_grad()
def short_against_padded(rounds: int, batch: int) -> dict[str, float]:
    """Medians of both ways, in seconds, and their ratio."""
    encoder = AudioClassifier("whisper-base").eval().backbone.network
    clips = 0.1 * torch.randn(batch, SECONDS * 16000)
    padded = torch.nn.functional.pad(clips, (0, (PADDED - SECONDS) * 16000))
    ways = {
        "150 positions (s)": lambda: encode_whisper(encoder, whisper_log_mel(clips)),
        "1500 positions (s)": lambda: encoder(whisper_log_mel(padded)).last_hidden_state,
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - begun)
    short, long = (median(times[1:]) for times in spent.values())  # the first warms up
    return {"150 positions (s)": round(short, 4), "1500 positions (s)": round(long, 4), "ratio": round(long / short, 2)}


def training_step(backbone: str, seconds: float, rounds: int, batch: int = 32) -> dict[str, float]:
    """CPU seconds of the features, and of forward, backward and update, of a small backbone."""
    model = AudioClassifier(backbone, small=True, seconds=seconds, masked=BACKBONES[backbone].norm != "group").train()
    optimizer = torch.optim.AdamW(model.parameters())
    clips, target = 0.1 * torch.randn(batch, round(seconds * 16000)), torch.randint(2, (batch,))
    lengths = torch.randint(8000, clips.shape[1] + 1, (batch,))
    features, steps = [], []
    for _ in range(rounds + 1):
        begun = time.process_time()
        given = model.features(clips, lengths)
        between = time.process_time()
        loss = torch.nn.functional.cross_entropy(model.read(given).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        features.append(between - begun)
        steps.append(time.process_time() - between)
    return {"features (CPU s)": round(median(features[1:]), 3), "step (CPU s)": round(median(steps[1:]), 3)}


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict = {"threads": torch.get_num_threads(), "batch": options.batch}
    figures["Whisper base, clips of 3 s"] = short_against_padded(options.rounds, options.batch)
    for backbone in FIRST_OF_FAMILY:
        for seconds in (1.2, 3.0):
            name = f"small {backbone}, step of 32 clips of {seconds} s"
            figures[name] = training_step(backbone, seconds, options.rounds)
    print(*(f"{name:<50} {value}" for name, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
