"""What reading a clip costs, as ratios: against decoding its streams alone, and against OpenCV's seek per frame.

    .venv/bin/pip install -r tests/bench/requirements.txt
    .venv/bin/python tests/bench/media.py [VIDEO ...]

Without a video a clip of 720p is written. OpenCV's part is left out where it is not installed.
All ways run in one process, in turn, and medians of CPU time are compared. Writes what it prints as JSON with --json.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import av

from avlib import media
from avlib.features import cav_mae_fbank, cav_mae_frame_indices


def decode(path: Path) -> None:
    """Decode sound and pictures once, and keep nothing."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.thread_type = "AUTO"
        for packet in container.demux(video, audio):
            packet.decode()


def prepare(path: Path) -> None:
    """Ten frames and the fbank."""
    cav_mae_fbank(media.read_clip(path, cav_mae_frame_indices).waveform)


def frames(path: Path) -> list:
    """Ten frames alone, as avlib reads them."""
    return list(media.read_frames(path, cav_mae_frame_indices))


def seek(path: Path) -> list:
    """Ten frames alone, with a seek for each, as the published script reads them."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    taken = []
    for index in range(10):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index * (min(count, int(rate * 10)) / 10)) - 1)
        read, picture = capture.read()
        assert read
        taken.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return taken


def compare(path: Path, rounds: int) -> dict[str, float]:
    """Medians of CPU milliseconds, and the ratios that are promised."""
    ways, opencv = [decode, prepare, frames], importlib.util.find_spec("cv2") is not None
    beside = {}
    if opencv:
        ways.append(seek)
        pairs = zip(frames(path), seek(path), strict=True)
        beside["frames equal OpenCV's"] = all((our.permute(1, 2, 0).numpy() == their).all() for our, their in pairs)
    spent: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for _ in range(rounds + 1):
        for way in ways:
            begun = time.process_time()
            way(path)
            spent[way.__name__].append(1000 * (time.process_time() - begun))
    cost = {name: median(times[1:]) for name, times in spent.items()}  # the first round warms up
    return {
        **{f"{name} (ms)": round(value, 1) for name, value in cost.items()},
        "prepare / decode": round(cost["prepare"] / cost["decode"], 2),
        "prepare - decode (ms)": round(cost["prepare"] - cost["decode"], 1),
        **({"seek / frames": round(cost["seek"] / cost["frames"], 2)} if opencv else {}),
        **beside,
    }


def main() -> None:
    """Print a table for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.videos:
            from loading import write_clip

            options.videos = [write_clip(Path(folder) / "720p.mp4", (1280, 720), 10.0)]
        results = {path.name: compare(path, options.rounds) for path in options.videos}
    for name, figures in results.items():
        print(name, *(f"  {figure:<24} {value}" for figure, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
