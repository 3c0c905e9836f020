"""Unit2AV: CPU time of speech and faces, and memory of long input.

    .venv/bin/python tests/bench/unit2av.py

The unit vocoder and transformers' SeamlessM4TCodeHifiGan, which is the same network, speak the same units with
predicted durations, with the same random weights of published size; the face renderer draws pictures of which all or
two thirds have a face. Each pair runs in one process and in turn; medians of CPU seconds on one thread are compared.
With --minutes, `infer` writes a video of one minute and one of so many, with narrow networks: peaks of resident memory
are compared. Writes JSON with --json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from beats import in_turn
from transformers import SeamlessM4TConfig
from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TCodeHifiGan

from avlib.models.face_renderer import FaceRenderer, render
from avlib.models.unit_vocoder import UnitVocoder

NAMES = {"dict": "unit_embedding", "spkr": "speaker_embedding", "ups": "hifi_gan.upsampler"}
NAMES |= {name: f"hifi_gan.{name}" for name in ("conv_pre", "resblocks", "conv_post")}


def theirs(model: UnitVocoder) -> SeamlessM4TCodeHifiGan:
    """The same weights in transformers' network; its language embedding is empty."""
    config = SeamlessM4TConfig(
        unit_hifi_gan_vocab_size=1000,
        unit_embed_dim=128,
        lang_embed_dim=0,
        spkr_embed_dim=128,
        vocoder_num_langs=1,
        vocoder_num_spkrs=1,
    )
    network = SeamlessM4TCodeHifiGan(config).eval()
    network.speaker_embedding = torch.nn.Linear(256, 128)
    state = {}
    for name, tensor in model.state_dict().items():
        first, _, rest = name.partition(".")
        state[f"{NAMES.get(first, first)}.{rest.replace('.0.', '.') if first == 'dur_predictor' else rest}"] = tensor
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["language_embedding.weight"], [])
    return network


def faces(rounds: int, count: int = 60) -> dict[str, float]:
    """Pictures with and without faces, drawn by networks of published size."""
    renderer, pictures = FaceRenderer().eval(), torch.randint(0, 256, (count, 144, 176, 3), dtype=torch.uint8)
    units, box = torch.randint(0, 1000, (2 * count,)), (40.0, 20.0, 136.0, 116.0)
    spent = in_turn(
        {
            "all": lambda: render(renderer, pictures, [box] * count, units),
            "two thirds": lambda: render(renderer, pictures, [box if k % 3 else None for k in range(count)], units),
        },
        rounds,
    )
    cpu = {name: seconds for name, (_, seconds) in spent.items()}
    return {
        "faces: CPU ms for a picture": round(1000 * cpu["all"] / count, 1),
        "faces: all / two thirds": round(cpu["all"] / cpu["two thirds"], 2),
    }


MEMORY = """
import re, sys, torch
from avlib import media
from avlib.models import face_renderer, unit_vocoder
from avlib.models.durations import DurationConfig
from avlib.systems.unit2av.inference import Speech, infer
minutes, folder = int(sys.argv[1]), sys.argv[2]
sizes = {"upsample_initial_channel": 32, "dur_predictor_params": DurationConfig(8, 8)}
vocoder = unit_vocoder.UnitVocoder(unit_vocoder.Config(40, 8, 16, **sizes)).eval()
face = face_renderer.FaceRenderer(face_renderer.Config(40, (4,) * 5 + (8,), (4,) * 6, 8, 4)).eval()
boxes = [(40, 20, 136, 116) if k % 3 else None for k in range(1500 * minutes)]
units = torch.arange(3000 * minutes) // 2 % 40
infer(units, Speech(vocoder, face), f"{folder}/out.mp4", video=f"{folder}/{minutes}.mp4", boxes=boxes,
      speaker=torch.ones(256), progress=False)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def memory(minutes: int) -> dict[str, float]:
    """Peak resident memory of a long video beside that of a minute."""
    from avlib import media

    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, minutes):
            still = torch.randint(0, 256, (3, 144, 176), dtype=torch.uint8)
            media.write_video(f"{folder}/{count}.mp4", (still for _ in range(1500 * count)), 25.0)
            command = [sys.executable, "-c", MEMORY, str(count), folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
            peaks[count] = int(done.stdout) / 1024
    return {
        "memory: MiB of a minute": round(peaks[1]),
        f"memory: {minutes} minutes / one": round(peaks[minutes] / peaks[1], 3),
    }


@torch.no_grad()
def main() -> None:
    """Print medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--units", type=int, nargs="+", default=[50, 204])
    parser.add_argument("--minutes", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = UnitVocoder().eval()
    kept, language = UnitVocoder().eval(), torch.zeros(1, 1, dtype=torch.int64)  # `kept` computes its weights each time
    kept.load_state_dict(model.state_dict())
    model.remove_weight_norm()
    other, figures = theirs(model), {}
    for count in options.units:
        units, speaker = torch.randint(0, 1000, (1, count)), torch.randn(1, 256)
        out, (expected, _) = model(units, speaker, predict_durations=True), other(units, speaker[:, None], language)
        spent = in_turn(
            {
                "avlib": lambda units=units, speaker=speaker: model(units, speaker, predict_durations=True),
                "with weight norm": lambda units=units, speaker=speaker: kept(units, speaker, predict_durations=True),
                "transformers": lambda units=units, speaker=speaker: other(units, speaker[:, None], language),
            },
            options.rounds,
        )
        cpu = {name: seconds for name, (_, seconds) in spent.items()}
        figures |= {
            f"{count} units: seconds of speech": round(int(out.lengths) / 16000, 2),
            f"{count} units: CPU s per s of speech": round(cpu["avlib"] / (int(out.lengths) / 16000), 3),
            f"{count} units: avlib / transformers": round(cpu["avlib"] / cpu["transformers"], 3),
            f"{count} units: with weight norm / transformers": round(cpu["with weight norm"] / cpu["transformers"], 3),
            f"{count} units: largest difference": float((out.waveform[:, 0] - expected).abs().max()),
        }
    figures |= faces(options.rounds)
    figures |= memory(options.minutes) if options.minutes else {}
    print(*(f"{name:<48} {value}" for name, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
