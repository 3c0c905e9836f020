"""Ratios of singing-voice conversion: batches, cached projections, and samplers. No weights, no content encoder.

    .venv/bin/python tests/bench/svc.py

Each pair runs in one process, in turn, on the same input; medians are compared, beside what is promised. Weights are
random: speed does not depend on them. Writes JSON with --json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from avlib.models.diffusion_svc import Config, DiffusionSVC
from avlib.systems.svc import tiny


def compare(rounds: int, **ways: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Medians of wall and CPU seconds of each way, in turn; the first round warms up."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(median(column) for column in zip(*times[1:], strict=True)) for name, times in spent.items()}


def network(config: Config) -> DiffusionSVC:
    """A model whose last layer, zero at first, answers something."""
    torch.manual_seed(0)
    model = DiffusionSVC(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.denoise_fn.output_projection.weight, std=0.02)
    return model


def condition_of(model: DiffusionSVC, batch: int, frames: int) -> torch.Tensor:
    """A random condition."""
    return torch.randn(batch, model.config.condition_size, frames)


def batches(rounds: int, frames: int, promised: str) -> tuple[str, dict, str]:
    """Eight conversions at once, and one after another, by the tiny model."""
    model = network(tiny.diffusion.network)
    condition, noise = condition_of(model, 8, frames), torch.randn(8, 1, model.config.mels, frames)
    lengths = torch.linspace(0.7, 1.0, 8).mul(frames).long()

    def one(i: int) -> torch.Tensor:
        length = int(lengths[i])
        return model.sample(condition[i : i + 1, :, :length], 5, "unipc", noise=noise[i : i + 1, :, :, :length])

    ways = compare(
        rounds,
        together=lambda: model.sample(condition, 5, "unipc", noise=noise, lengths=lengths),
        apart=lambda: [one(i) for i in range(8)],
    )
    return f"tiny, 8 items of {int(lengths[0])} to {frames} frames: apart / together", ways, promised


def projections(rounds: int, config: Config, name: str, frames: int) -> tuple[str, dict, str]:
    """One evaluation with the projections of the condition from a cache, and without."""
    model = network(config)
    condition, x = condition_of(model, 1, frames), torch.randn(1, 1, config.mels, frames)
    cache, t = model.project(condition), torch.tensor([500])
    ways = compare(
        rounds, cached=lambda: model.denoise(x, t, condition, cache=cache), anew=lambda: model.denoise(x, t, condition)
    )
    return f"{name}, one evaluation of {frames} frames: anew / cached", ways, "at least 1.08"


def samplers(rounds: int, frames: int) -> tuple[str, dict, str]:
    """PLMS with the published speed-up of 10, and 20 steps of UniPC, by the full network."""
    model = network(Config())
    condition = condition_of(model, 1, frames)
    ways = compare(
        rounds,
        unipc=lambda: model.sample(condition, 20, "unipc", seed=0),
        plms=lambda: model.sample(condition, 100, "plms", seed=0),
    )
    return f"full network, {frames} frames: PLMS, 101 evaluations / UniPC, 20 steps", ways, "at least 4"


def main() -> None:
    """Print each ratio beside its promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [
        batches(options.rounds, 128, "at least 1.5"),
        batches(options.rounds, 512, "nothing: long items keep a processor busy alone"),
        projections(5 * options.rounds, tiny.diffusion.network, "tiny", 256),
        projections(options.rounds, Config(), "full network", 256),
        samplers(max(1, options.rounds // 3), 64),
    ]
    figures = []
    for what, ways, promised in rows:
        fast, slow = ways.values()
        ratio, ratio_cpu = slow[0] / fast[0], slow[1] / fast[1]
        print(f"{what:68} {ratio:5.2f} (CPU {ratio_cpu:.2f}); promised: {promised}", flush=True)
        figures.append({"what": what, "ratio": ratio, "CPU": ratio_cpu, "promised": promised, "seconds": ways})
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "figures": figures}, indent=2))


if __name__ == "__main__":
    main()
