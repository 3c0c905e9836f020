"""The words by espeak-ng, where it is on the machine: clearer to the ear, and nothing but that."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float

from ...errors import ParameterError, check_choice
from .given import check_whole
from .phones import PARTNER, WORDS
from .spoken import PRONUNCIATIONS
from .voice import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor


def can_say() -> bool:
    """Whether espeak-ng is on this machine."""
    return shutil.which("espeak-ng") is not None


def say(
    word: str, pronunciation: str = "normal", *, voice: str = "en-us", pitch: int = 70, pace: int = 130
) -> tuple[Float[Tensor, "1 samples"], int]:
    """A word as espeak-ng says it, for `view.play(*say("ring"))`; where the program is missing, `can_say` is False.

    Args:
        word: one of `WORDS`.
        pronunciation: "normal", or "abnormal" for the partner of the word.
        voice: a voice of espeak-ng, with or without a variant ("en-us+f4").
        pitch: from 0 to 99.
        pace: words in a minute, from 80 to 450.

    Returns:
        float32 `(1, samples)`, and their rate: 16 kHz.

    Raises:
        ParameterError: espeak-ng is not there or refuses, or a parameter is out of range.
    """
    check_choice("word", word, tuple(WORDS))
    check_choice("pronunciation", pronunciation, PRONUNCIATIONS)
    check_whole("pitch", pitch, 0)
    check_whole("pace", pace, 80)
    program = shutil.which("espeak-ng")
    if program is None:
        advice = "Install it (apt install espeak-ng), or listen to Spoken(...).sound(), which needs nothing."
        raise ParameterError("espeak-ng", "is not on this machine", "the program on the PATH", advice)
    from ... import media

    said = word if pronunciation == "normal" else PARTNER[word]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        options = ["-v", voice, "-p", str(pitch), "-s", str(pace), "-w", str(path)]
        done = subprocess.run([program, *options, "--", said], capture_output=True, text=True, check=False)  # noqa: S603 - no shell; the word is one of ours
        if done.returncode or not path.exists():
            reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise ParameterError("espeak-ng", f"failed: {reason}", "a voice that it has", "Try voice='en'.")
        return media.read_audio(path, SAMPLE_RATE)[None], SAMPLE_RATE
