"""Loading from mp4: ten frames against decoding everything, and clips per second of two data sets by workers.

    .venv/bin/python tests/bench/loading.py

Clips of noise that moves are written first, with sound. Ten frames are those of CAV-MAE, of a 720p clip of ten seconds,
as one group of pictures and with a key frame each second. The data sets read clips of 320 x 240 as for a training,
with 0, 1 and 2 workers, in turn; beside them stands decoding the same files and keeping nothing. Writes JSON with
--json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from media import decode
from torch.utils.data import DataLoader

from avlib import media
from avlib.datasets.audiotoken import AudioTokenDataset, read_clips
from avlib.datasets.cav_mae import CAVMAEDataset, read_items
from avlib.features import cav_mae_frame_indices


def write_clip(path: Path, size: tuple[int, int], seconds: float, group: int = 250, seed: int = 0) -> Path:
    """Write a clip of moving noise at 25 Hz, with a tone at 16 kHz."""
    noise = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    noise, count = noise.repeat(8, 0).repeat(8, 1), round(25 * seconds)
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=25, options={"g": str(group), "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = file.add_stream("aac", rate=16000, layout="mono")
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, (3 * number, 5 * number), (0, 1)), format="rgb24")
            frame.pts = number
            file.mux(video.encode(frame))
        file.mux(video.encode())
        tone = (0.3 * np.sin(np.arange(16000 * seconds) / 9)).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode())
    return path


def ten_frames(path: Path, rounds: int) -> dict[str, float]:
    """CPU milliseconds of ten frames, and of decoding the pictures of a file, in turn."""

    def all_frames() -> None:
        with av.open(str(path)) as file:
            file.streams.video[0].thread_type = "AUTO"
            for _ in file.decode(video=0):
                pass

    ways = {"all": all_frames, "ten": lambda: media.read_frames(path, cav_mae_frame_indices)}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            spent[name].append(1000 * (time.process_time() - begun))
    cost = {name: median(times[1:]) for name, times in spent.items()}  # the first round warms up
    return {
        "decoding all pictures (ms)": round(cost["all"], 1),
        "ten frames (ms)": round(cost["ten"], 1),
        "ten frames / decoding all": round(cost["ten"] / cost["all"], 2),
    }


def clips_per_second(folder: Path, rounds: int) -> dict[str, float]:
    """Of two data sets with 0, 1 and 2 workers, beside decoding alone."""
    paths = sorted(folder.glob("*.mp4"))
    datasets = {
        "CAV-MAE": CAVMAEDataset(read_items(folder)),
        "AudioToken": AudioTokenDataset(read_clips(folder), image_size=(256, 256)),
    }
    ways = {"decoding alone": lambda: [decode(path) for path in paths]}
    for name, dataset in datasets.items():
        for workers in (0, 1, 2):
            loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=dataset.collate)
            ways[f"{name}, {workers} workers"] = lambda loader=loader: [None for _ in loader]
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - begun)
    rate = {name: len(paths) / median(times[1:]) for name, times in spent.items()}
    figures = {f"{name} (clips/s)": round(value, 1) for name, value in rate.items()}
    ratios = {f"{name} / decoding alone": value / rate["decoding alone"] for name, value in list(rate.items())[1:]}
    return figures | {name: round(value, 2) for name, value in ratios.items()}


def main() -> None:
    """Print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as large:
        for name, group in {"one group": 250, "a key frame each second": 25}.items():
            path = write_clip(Path(large) / "large.mp4", (1280, 720), 10.0, group)
            figures |= {f"720p, {name}: {key}": value for key, value in ten_frames(path, options.rounds).items()}
        for number in range(options.clips):
            write_clip(Path(folder) / f"{number}.mp4", (320, 240), options.seconds, seed=number)
        figures |= clips_per_second(Path(folder), max(1, options.rounds // 2))
    print(*(f"{name:<60} {value}" for name, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
