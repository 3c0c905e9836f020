"""The command `avlib unit2av`: manifests, training and inference, with the arguments of the published scripts."""

from __future__ import annotations

import argparse
import sys

from ...datasets.unit2av import manifest
from ...errors import ParameterError
from ...models.face_renderer import REFERENCES
from .inference import PREDICT, infer

_EPILOG = """\
A voice and a face belong to a person: speak with them only with their consent. Every file that is written says
"synthetic" in its metadata.
"""


def unit2av_command(arguments: list[str]) -> int | list[str]:
    """Run `avlib unit2av`, or return the arguments of the command that does the same."""
    parser = argparse.ArgumentParser(
        "avlib unit2av", description="Speech and a talking face from units.", epilog=_EPILOG
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    option = commands.add_parser("manifest", help="pair files of units with their sounds").add_argument
    option("--audio_root", "--audio-root", required=True, metavar="DIR", help="with a folder for each speaker")
    option("--unit_root", "--unit-root", required=True, metavar="DIR", help="with <name>_preprocessed.pt")
    option("--output_file", "--output-file", required=True, metavar="FILE", help="JSON, a pair in each line")
    _add_infer(commands.add_parser("infer", help="speak units, and let a face say them", epilog=_EPILOG).add_argument)
    given = vars(parser.parse_args(arguments))
    return {"manifest": _manifest, "infer": _infer}[given.pop("command")](**given)


def _manifest(**given: str) -> int:
    made = manifest(**given)
    print(made)
    for reason, paths in made.skipped.items():
        print(f"{reason}:", *paths, sep="\n  ", file=sys.stderr)
    return 0


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
