"""What the small AudioToken learns, for several seeds: the figures that a notebook or a note states. Five minutes each.

    .venv/bin/python tests/bench/audiotoken.py 0 1 2

Trains all stages of each seed, or takes them from the cache, and measures on held-out scenes that no setting was chosen
by: how often the kind predicted from images of captions, of audio, and of the audio of other scenes is right; with
the published loss, and with the cosine term, which uses labels. Prints CPU seconds beside them.
"""

import argparse
import time

from avlib.systems import audiotoken

VARIANTS = {"published loss": {}, "with the cosine term": {"cosine_loss": True, "lambda_c": 0.1}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="+")
    for seed in parser.parse_args().seeds:
        for name, changes in VARIANTS.items():
            settings = audiotoken.changed(audiotoken.tiny, {"seed": seed} | changes)
            begun = time.process_time()
            model = audiotoken.trained(settings, progress=False).model
            trained = time.process_time() - begun
            print(f"seed {seed}, {name}: trained in {trained:.0f} s of CPU, or read from the cache", flush=True)
            for figure, value in audiotoken.evaluate(model, settings).items():
                print(f"    {figure:30} {value}", flush=True)


if __name__ == "__main__":  # rendering starts processes, which import this file
    main()
