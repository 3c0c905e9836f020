"""The command `avlib unit2av`: manifests, training and inference, with the arguments of the published scripts."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import checkpoints
from ...cache import publishing
from ...datasets.unit2av import manifest
from ...errors import ParameterError
from ...models.face_renderer import REFERENCES
from ...models.unit_vocoder import Config, UnitVocoder
from ...settings import changed
from .. import trained_by
from .inference import PREDICT, infer
from .settings import Settings, full
from .stages import __name__ as STAGES_MODULE
from .stages import stages

_EPILOG = """\
A voice and a face belong to a person: speak with them only with their consent. Every file that is written says
"synthetic" in its metadata.
"""


def unit2av_command(arguments: list[str]) -> int:
    """Run `avlib unit2av`."""
    about = "Speech and a talking face from units."
    parser = argparse.ArgumentParser("avlib unit2av", description=about, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    option = commands.add_parser("manifest", help="pair files of units with their sounds").add_argument
    option("--audio_root", "--audio-root", required=True, metavar="DIR", help="with a folder for each speaker")
    option("--unit_root", "--unit-root", required=True, metavar="DIR", help="with <name>_preprocessed.pt")
    option("--output_file", "--output-file", required=True, metavar="FILE", help="JSON, a pair in each line")
    train = commands.add_parser("train", help="as the published script; in general: avlib train unit2av")
    train.add_argument("values", nargs="*", metavar="NAME=VALUE", help="settings, as behind -p of `avlib train`")
    option = train.add_argument
    option("-p", dest="more", action="append", default=[], metavar="NAME=VALUE", help="the same")
    option("--config", required=True, metavar="FILE", help="a published config.json, which names the manifests")
    folder = {"required": True, "metavar": "DIR", "help": "for g_<steps>, g_best and config.json"}
    option("--checkpoint_path", "--checkpoint-path", **folder)
    option("--validation_interval", "--validation-interval", type=int, default=5000, metavar="STEPS")
    option("--training_steps", "--training-steps", type=int, default=500_000, metavar="STEPS")
    option("--checkpoint_interval", "--checkpoint-interval", type=int, default=50_000, metavar="STEPS")
    _add_infer(commands.add_parser("infer", help="speak units, and let a face say them", epilog=_EPILOG).add_argument)
    given = vars(parser.parse_args(arguments))
    return {"manifest": _manifest, "train": _train, "infer": _infer}[given.pop("command")](**given)


def _manifest(**given: str) -> int:
    made = manifest(**given)
    print(made)
    for reason, paths in made.skipped.items():
        print(f"{reason}:", *paths, sep="\n  ", file=sys.stderr)
    return 0


def _train(
    values: list[str], more: list[str], config: str, checkpoint_path: str, validation_interval: int,
    training_steps: int, checkpoint_interval: int,
) -> int:  # fmt: skip
    steps = {"steps": training_steps, "evaluate_every": validation_interval, "save_every": checkpoint_interval}
    given = dict(value.split("=", 1) for value in (*values, *more) if "=" in value)
    settings = published_settings(config, steps, given)
    for path in train_published(settings, Path(checkpoint_path), checkpoint_interval):
        print(path)
    shutil.copyfile(config, Path(checkpoint_path) / "config.json")
    return 0


def published_settings(config: str | Path, steps: Mapping[str, int], given: Mapping[str, str]) -> Settings:
    """Return settings of the published training, all losses at once from random weights, from its config.json."""
    values = checkpoints.read_config(config)
    for name in ("input_training_file", "input_validation_file"):
        if not isinstance(values.get(name), str):
            raise ParameterError(name, "missing", f"a manifest, in {config}", "Make one: avlib unit2av manifest.")
    names = {"learning_rate": "learning_rate", "batch_size": "batch_size", "seed": "seed", "lr_decay": "gamma"}
    how = {own: values[name] for name, own in names.items() if name in values} | dict(steps)
    if {"adam_b1", "adam_b2"} <= values.keys():
        how["betas"] = (values["adam_b1"], values["adam_b2"])
    wanted = {f"adversarial.training.{name}": value for name, value in how.items()}
    wanted |= {"stage": "adversarial", "adversarial.begin": "random"}
    wanted |= {"vocoder.duration_weight": values.get("dur_prediction_weight", 1.0)}
    wanted |= {"data.data": values["input_training_file"], "data.validation": values["input_validation_file"]}
    if "segment_size" in values:
        wanted["data.segment"] = values["segment_size"] // 320
    made = replace(full, vocoder=replace(full.vocoder, network=Config.of(values)))
    return changed(made, wanted, given)


def train_published(settings: Settings, folder: Path, every: int, **how: Any) -> list[Path]:
    """Train; write g_<steps> whenever a checkpoint is due, and g_best at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = stages["adversarial"]

    def write(name: str, vocoder: nn.Module) -> None:
        state = {key: value.cpu() for key, value in vocoder.state_dict().items()}
        with publishing(folder / name) as unfinished, unfinished.open("wb") as file:
            torch.save({"generator": state}, file)

    def build(settings: Settings, **how: Any) -> nn.Module:
        model = stage.build(settings, **how)

        def save(path: Path) -> None:  # the loop calls it for each checkpoint, whose path ends in its step
            checkpoints.save(path, model.state_dict(), {"model": type(model).__name__})
            step = int(path.name.rpartition("-")[2])
            if step % every == 0 or step == settings.adversarial.training.steps:
                write(f"g_{step:08d}", model["generator"])

        model.save = save
        return model

    trained = trained_by({**stages, "adversarial": replace(stage, build=build)}, STAGES_MODULE)
    write("g_best", UnitVocoder.from_checkpoint(trained(settings, **how).folder, weight_norm=True))
    return sorted(folder.glob("g_*"))


def _add_infer(option) -> None:
    option("--in-unit-path", "--input_file", "--input-file", dest="units", required=True, metavar="FILE",
           help="units, .txt or .pt; or sound, for a model that was trained with an extractor")  # fmt: skip
    option("--unit2av-path", "--checkpoint", dest="model", required=True, metavar="PATH",
           help="unit_av_renderer.pt, g_<steps>, or the folder of a training")  # fmt: skip
    option("--out-vid-path", "--output_folder", "--output-folder", "--out", dest="out", default="spoken",
           metavar="PATH", help="a .mp4 or .wav file, or a folder (default: %(default)s)")  # fmt: skip
    option("--in-vid-path", dest="video", metavar="FILE", help="whose face says it; without one sound alone is made")
    option("--in-bbox-path", dest="boxes", metavar="FILE", help="boxes of its face, JSON or pickle (default: detect)")
    option("--tgt-lang", dest="language", default="en", metavar="LANG", help="in a container (default: %(default)s)")
    option("--config", metavar="FILE", help="a published config.json (default: as the weights say)")
    option("--renderer", metavar="PATH", help="of faces (default: that of the container)")
    option("--speaker", metavar="FILE", help="a voice or a vector (default: of the units' file, else of the video)")
    option("--encoder", metavar="FILE", help="weights that make a vector of a voice (default: Resemblyzer's)")
    option("--unit-offset", type=int, default=0, help="number of the first unit in the file; 4 for fairseq's indices")
    option("--durations", dest="predict", default="auto", help=f"predict them: {', '.join(PREDICT)} (default: auto)")
    option("--total", metavar="N|video", help='units of the speech, or "video" for the length of the video')
    option("--face", type=int, default=0, metavar="N", help="which of several, from 0")
    option("--missing", default="keep", help='pictures without a face: "keep" (default) or "fill"')
    option("--reference", help=f"that the mouth is drawn from: {', '.join(REFERENCES)} (default: as trained)")
    option("--feather", type=float, default=0.0, help="share of a face that fades in from its edge")
    option("--preview", metavar="PNG", help="write pictures of the video with the boxes")
    option("--detector", default="auto", help="of faces: auto, mtcnn, opencv")
    option("--device", default="auto", help='"auto", "cpu", "cuda" or "mps"')


def _infer(units: str, model: str, out: str, total: str | None, **given) -> int:
    if total not in (None, "video"):
        if not total.isdecimal():
            raise ParameterError("--total", total, 'a number of units, or "video"')
        total = int(total)
    made = infer(units, model, out, total=total, progress=sys.stderr.isatty(), **given)
    for note in made.notes:
        print(f"{note[0].upper()}{note[1:]}.", file=sys.stderr)
    print(made.path)
    return 0
