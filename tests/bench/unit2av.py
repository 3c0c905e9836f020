"""The unit vocoder beside transformers' SeamlessM4TCodeHifiGan, which is the same network: CPU time and difference.

    .venv/bin/python tests/bench/unit2av.py

Both speak the same units with predicted durations, with the same random weights of published size, in one process and
in turn; medians of CPU seconds on one thread are compared. Writes JSON with --json.
"""

import argparse
import json
from pathlib import Path

import torch
from beats import in_turn
from transformers import SeamlessM4TConfig
from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TCodeHifiGan

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


@torch.no_grad()
def main() -> None:
    """Print medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--units", type=int, nargs="+", default=[50, 204])
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
    print(*(f"{name:<48} {value}" for name, value in figures.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
