"""What tracing costs, beside torchlens, torchinfo and torch.export where they are installed.

    .venv/bin/pip install -r tests/bench/requirements.txt
    .venv/bin/python tests/bench/shapes.py

Each tool runs in turn with the plain forward, and pairs are compared: the median of their ratios is printed, of CPU
time. Models are of full size with random weights. Then: how long a trace with formulas takes beside torch.export with
all sizes automatic, how long a fake trace of Whisper large takes, with how much
memory, and how long each case of the formula suite takes. Writes JSON with --json.
"""

import argparse
import gc
import importlib.util
import json
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from avlib import shapes

sys.path.insert(0, str(Path(__file__).parents[1] / "shapes"))

Made = tuple[torch.nn.Module, dict[str, torch.Tensor]]


def vit() -> Made:
    """ViT-B/16, one picture."""
    import timm

    return timm.create_model("vit_base_patch16_224"), {"x": torch.randn(1, 3, 224, 224)}


def whisper_encoder() -> Made:
    """The encoder of Whisper base, 30 s."""
    from transformers import WhisperConfig, WhisperModel

    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
    config = WhisperConfig(d_model=512, encoder_layers=6, decoder_layers=1, encoder_ffn_dim=2048, **heads)
    return WhisperModel(config).encoder, {"input_features": torch.randn(1, 80, 3000)}


def hubert() -> Made:
    """HuBERT base, 10 s."""
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig()), {"input_values": torch.randn(1, 160_000)}


MODELS: dict[str, Callable[[], Made]] = {
    "ViT-B/16": vit,
    "Whisper base encoder": whisper_encoder,
    "HuBERT base": hubert,
}


def tools() -> dict[str, Callable]:
    """Ours, and those that are installed."""
    found = {"avlib": lambda model, inputs: shapes.trace(model, kwargs=inputs)}
    if importlib.util.find_spec("torchlens"):
        import torchlens

        found["torchlens"] = lambda model, inputs: torchlens.trace(model, (), inputs, save=None)
    if importlib.util.find_spec("torchinfo"):
        import torchinfo

        columns = ("input_size", "output_size", "num_params", "mult_adds")
        found["torchinfo"] = lambda model, inputs: torchinfo.summary(
            model, input_data=inputs, col_names=columns, verbose=0
        )
    return found


def spent(do: Callable[[], object]) -> float:
    """CPU seconds."""
    gc.collect()
    begun = time.process_time()
    do()
    return time.process_time() - begun


def overhead(make: Callable[[], Made], pairs: int) -> dict[str, float]:
    """The median of the ratios of each tool to the plain forward right before or after it."""
    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    results = {}
    with torch.no_grad():
        for name, tool in {"plain": lambda model, inputs: model(**inputs), **tools()}.items():
            model(**inputs)
            tool(model, inputs)  # whatever is imported or built the first time
            ratios = []
            for i in range(pairs if name in ("plain", "avlib") else max(3, pairs // 3)):
                order = [lambda: model(**inputs), lambda tool=tool: tool(model, inputs)]
                times = [spent(do) for do in (order if i % 2 else order[::-1])]
                plain, traced = times if i % 2 else times[::-1]
                ratios.append(traced / plain)
            results[name] = round(median(ratios), 3)
    return results


NAMED = {"ViT-B/16": {"x": "B 3 H W"}, "Whisper base encoder": {"input_features": "B 80 T"}}
NAMED["HuBERT base"] = {"input_values": "B T"}


def formulas(name: str, turns: int) -> dict[str, object]:
    """CPU seconds of a trace with named sizes, and of torch.export with all sizes automatic, in turn."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model.eval()
    times: dict[str, list[float]] = {"avlib": [], "torch.export": []}
    failed = ""
    with torch.no_grad():
        for _ in range(turns):
            times["avlib"].append(spent(lambda: shapes.trace(model, kwargs=inputs, dims=NAMED[name])))
            axes = {key: dict.fromkeys(range(x.dim()), torch.export.Dim.AUTO) for key, x in inputs.items()}
            try:
                times["torch.export"].append(
                    spent(lambda axes=axes: torch.export.export(model, (), inputs, dynamic_shapes=axes))
                )
            except Exception as error:  # its own limits are part of the comparison
                failed = f"failed: {type(error).__name__}"
                break
    found = {tool: round(median(spans), 2) for tool, spans in times.items() if spans}
    return found | ({"torch.export": failed} if failed else {})


LARGE = """
import resource, time, torch
from transformers import WhisperConfig, WhisperModel
from avlib import shapes
from avlib.shapes import fake, tracing
WhisperModel
config = WhisperConfig(d_model=1280, encoder_layers=32, decoder_layers=32, encoder_attention_heads=20,
    decoder_attention_heads=20, encoder_ffn_dim=5120, decoder_ffn_dim=5120, num_mel_bins=128, vocab_size=51866)
mel, ids = torch.randn(1, 128, 3000), torch.ones(1, 20).long()
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, begun = memory(), time.process_time()
with torch.no_grad():
    t = shapes.trace_build(lambda: WhisperModel(config).eval(), mel, decoder_input_ids=ids)
print(round(time.process_time() - begun, 2), round(memory() - before, 1), t.parameters, len(t.rows))
"""


def large() -> dict[str, float]:
    """Whisper large without values, in a process of its own."""
    out = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True).stdout.split()
    names = ("build and trace (CPU s)", "memory (MiB)", "parameters", "rows")
    return dict(zip(names, map(float, out), strict=True))


def suite() -> dict[str, dict[str, float | str]]:
    """CPU seconds of each case of the formula suite, and what has no formula."""
    from formula_cases import CASES

    results = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        random.seed(0)
        with torch.no_grad():
            fn = case.build()
            inputs = case.inputs(**case.sizes)
            begun = time.process_time()
            trace = shapes.trace(fn, kwargs={**inputs, **case.options}, dims=case.dims)
            seconds = time.process_time() - begun
        sizes = [f for row in trace.rows for info in (*row.inputs, *row.outputs) for f in info.formulas]
        formula = ", ".join(info.formula for info in trace.rows[0].outputs)
        results[name] = {"CPU s": round(seconds, 2), "rows": len(trace), "?": sizes.count(None), "output": formula}
    return results


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", choices=["overhead", "formulas", "large", "suite"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    figures: dict[str, dict] = {}
    if options.only in (None, "overhead"):
        figures["ratio to the plain forward"] = {name: overhead(make, options.pairs) for name, make in MODELS.items()}
        missing = [tool for tool in ("torchinfo", "torchlens") if not importlib.util.find_spec(tool)]
        if missing:
            print(f"skipped, since not installed: {', '.join(missing)} (see tests/bench/requirements.txt)")
    if options.only in (None, "formulas"):
        figures["with formulas (CPU s)"] = {name: formulas(name, 3) for name in MODELS}
    if options.only in (None, "large"):
        figures["Whisper large, fake"] = large()
    if options.only in (None, "suite"):
        figures["formulas"] = suite()
    for title, table in figures.items():
        print(title, *(f"  {name:<36} {value}" for name, value in table.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
