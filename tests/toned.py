"""Recordings made for tests of classifiers: tones with what is known of them in a table."""

import csv
from pathlib import Path

import torch
from making import tone, write_wav

from avlib.datasets.classification import Labels, Recording, read_recordings

COLUMNS = ("path", "label", "word", "age", "speaker")
HERTZ = {"low": 300.0, "high": 2400.0}


def write_tones(folder: Path, speakers: int = 4, words: tuple = ("one", "two"), takes: int = 1) -> Path:
    """A low and a high tone for each speaker and word, of 0.3 to 0.6 s, with some noise; the path of their table."""
    folder.mkdir(parents=True, exist_ok=True)
    dice, rows = torch.Generator().manual_seed(0), []
    for speaker in range(speakers):
        for word in words:
            for label, hertz in HERTZ.items():
                for take in range(takes):
                    name = f"{word}-{label}-{speaker}-{take}.wav"
                    sound = tone(0.3 + 0.3 * float(torch.rand((), generator=dice)), 16000, hertz)
                    sound = sound + 0.02 * torch.randn(sound.shape, generator=dice)
                    write_wav(folder / name, sound, 16000)
                    rows.append((name, label, word, 3.0 + speaker, f"s{speaker}"))
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder / "table.csv"


def read_tones(table: Path, task: str = "classification", target: str = "label") -> tuple[list[Recording], Labels]:
    recordings = read_recordings(table, target)
    return recordings, Labels.of(recordings, task)
