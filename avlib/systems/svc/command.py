"""The command `avlib convert`."""

from __future__ import annotations

import argparse
import sys
import warnings

from ...errors import ParameterError
from ...extract import METHODS
from ...models.samplers import SAMPLERS
from .conversion import convert
from .project import load

_EPILOG = """\
A voice belongs to a person: convert to it only with their consent. Every file that is written says "synthetic" in its
metadata. A batch that was stopped goes on where it was. The exit code is 2 if a source could not be used.
"""


def convert_command(arguments: list[str]) -> int:
    """Run `avlib convert`."""
    about = "Convert songs of any length to the voice of a trained singer. A source is an isolated voice."
    parser = argparse.ArgumentParser("avlib convert", description=about, epilog=_EPILOG)
    option = parser.add_argument
    option("sources", nargs="+", metavar="SOURCE", help="sound or video files")
    option("--model", required=True, metavar="NAME|FOLDER", help="a project, its folder, or a published .ckpt")
    option("--which", default="latest", help='of several models in that folder, "latest" (default) or "best"')
    option("--key", default="0", help='semitones, such as +3 or -12, or "median": to that of the singer')
    option("--singer", default="", help="a name, or shares: A=0.3,B=0.7 (default: the first)")
    option("--out", default="converted", metavar="DIR", help="a folder (default: %(default)s), or a .wav file")
    option("--sampler", default="", help=f"{', '.join(SAMPLERS)} (default: that of the project)")
    option("--steps", type=int, default=0, help="of the sampler (default: those of the project)")
    option("--seed", type=int, default=0, help="of the noise")
    option("--loudness", default="contour", help='"contour" (default): that of the source; or "model"')
    option("--encoder", default="", help="of units, for a published model: hubert-soft, contentvec, ...")
    option("--encoder-path", default="", metavar="PATH", help="its weights")
    option("--vocoder", default="", metavar="FOLDER", help="an NSF-HiFiGAN (default: a source-filter vocoder)")
    option("--pitch", default="autocorrelation", help=f"how it is found: {', '.join(METHODS)} (default: %(default)s)")
    option("--device", default="auto", help='"auto", "cpu", "cuda" or "mps"')
    given = vars(parser.parse_intermixed_args(arguments))
    device, sources, singer = given["device"], given.pop("sources"), given["singer"]
    loading = {name: given.pop(name) for name in ("model", "which", "encoder", "encoder_path", "vocoder", "device")}
    if "=" in singer:
        try:
            given["singer"] = {name.strip(): float(x) for name, x in (each.split("=") for each in singer.split(","))}
        except ValueError:
            raise ParameterError("--singer", singer, "a name, or A=0.3,B=0.7") from None
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
        how = {"device": device, "on_error": "skip", "progress": sys.stderr.isatty()}
        made = convert(sources, load(**loading), **given, **how)
    print(*(each.path for each in made), sep="\n")
    return 0 if len(made) == len(sources) else 2
