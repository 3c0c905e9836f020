"""Built-in speech: words by speakers of different age, in noise.

    words and phones -> `Spoken(word, speaker, pronunciation, seed, snr)` -> its `truth`, its `sound()`
    `corpus(words, speakers, takes)` -> many of them, balanced -> `render` -> wav files and their table

The voice is our own formant synthesiser; no recordings are in it. Age, formants and pitch are those of speech, but it
is not a child's voice.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float

from ..errors import ParameterError, check_choice, check_number, check_whole
from .rendering import place, publish_sound, render_missing, write_table
from .sound import dice
from .spoken import AGES, PAIRS, PARTNER, PHONES, PRONUNCIATIONS, SNR_LIMITS, WORDS, Speaker, Spoken
from .voice import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "AGES", "COLUMNS", "PAIRS", "PARTNER", "PHONES", "PRONUNCIATIONS", "SAMPLE_RATE", "SNR_RANGE", "WORDS", "Speaker",
    "Spoken", "corpus", "espeak", "has_espeak", "render",
]  # fmt: skip

SNR_RANGE = (0.0, 20.0)  # dB, from clips that no model always gets right to easy ones
COLUMNS = ("path", "label", "word", "age", "speaker", "snr", "seconds")


def corpus(
    words: int | Sequence[str] = 8, speakers: int = 48, takes: int = 2, *, abnormal: float | int = 0.5,
    snr: float | int | Sequence[float | int] = SNR_RANGE, ages: Sequence[float | int] = AGES, seed: int = 0,
) -> list[Spoken]:  # fmt: skip
    """Every word by every speaker, `takes` times, a share of them abnormal; speaker by speaker.

    The words are whole pairs, and each word of a pair has the same number of abnormal takes, by the same speakers:
    without the word, the label cannot be told, whatever the share. With two takes and half of them abnormal, every
    speaker says every word once in each way.

    Args:
        words: their number, in the order of `PAIRS` (later pairs are harder to tell apart in noise), or the words; both
            of each pair.
        speakers: their number; ages take turns. More speakers only add clips at the end.
        abnormal: the share of abnormal ones, from 0 to 1, within one clip of each word; 0.5 is balanced.
        snr: in dB, as in `Spoken`: of all clips, or a range from which each clip's is drawn.
    """
    words = _checked_words(words)
    check_whole("speakers", speakers, 1)
    check_whole("takes", takes, 1)
    check_number("abnormal", abnormal, 0.0, 1.0)
    check_whole("seed", seed, 0)
    if not len(ages):
        raise ParameterError("ages", "none", "at least one age in years", "Leave it out for 14 from 2 to 10.")
    turns = sorted(range(len(ages)), key=dice("ages", seed).random(len(ages)).tolist().__getitem__)
    # The abnormal ones have the same places in the row of takes for both words of a pair.
    starts = {word: dice("turn", seed, *sorted((word, PARTNER[word]))).random() for word in words}
    lowest, highest = _checked_range(snr)
    noise = dice("snr", seed)
    spoken = []
    for i in range(speakers):
        speaker = Speaker(int(seed) * 100_000 + i, ages[turns[i % len(ages)]])
        for word in words:
            for j in range(i * takes, (i + 1) * takes):
                before, after = (math.floor(abnormal * count + starts[word]) for count in (j, j + 1))
                take = int(seed) * 100_000_000 + len(spoken)
                level = lowest if lowest == highest else lowest + (highest - lowest) * noise.random()
                spoken.append(Spoken(word, speaker, PRONUNCIATIONS[after - before], take, level))
    return spoken


def render(spoken: Iterable[Spoken], jobs: int | None = None, progress: bool = True) -> Path:
    """Render spoken words to 16 kHz, 16-bit mono wav files with their truth; for `jobs` see `avlib.workers.each`.

    Those in the cache are kept. Returns the table, a CSV file in the cache with a row of `COLUMNS` for each of them, in
    their order: the label is "normal" or "abnormal", the age in years, the snr in dB, inf without noise.
    """
    spoken = list(spoken)
    if not spoken:
        raise ParameterError("spoken", "nothing", "at least one spoken word", "Give what `corpus` returns.")
    names = [f"{one.word}-{one.pronunciation}-{one.speaker.name}-{one.seed}" for one in spoken]
    paths = [place("speech", name, astuple(one), ".wav") for name, one in zip(names, spoken, strict=True)]
    render_missing(_render, paths, spoken, jobs, progress)
    facts = [(one.pronunciation, one.word, one.speaker.age, one.speaker.name, one.snr, one.seconds) for one in spoken]
    return write_table("speech", COLUMNS, [[path, *row] for path, row in zip(paths, facts, strict=True)])


def _checked_words(words: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str):
        words = (words,)
    if not isinstance(words, Sequence):
        if isinstance(words, bool) or not isinstance(words, int) or words not in range(2, len(WORDS) + 1, 2):
            expected = f"an even number from 2 to {len(WORDS)}, or the words"
            raise ParameterError("words", f"{words!r}", expected, "Both words of each pair are needed.")
        return tuple(word for pair in PAIRS for word in pair)[:words]
    for word in words:
        check_choice("words", word, tuple(WORDS))
        if PARTNER[word] not in words:
            found = f"{word!r} without {PARTNER[word]!r}"
            raise ParameterError("words", found, "both words of each pair", f"Add {PARTNER[word]!r}.")
    if not words or len(set(words)) < len(words):
        raise ParameterError("words", f"{list(words)!r}", "some words, each once", "Leave it out for all.")
    return tuple(words)


def _checked_range(snr: float | int | Sequence[float | int]) -> tuple[float | int, float | int]:
    if not isinstance(snr, Sequence):
        return snr, snr
    if len(snr) != 2:
        expected = "a number of dB, or the lowest and the highest"
        raise ParameterError("snr", f"{snr!r}", expected, f"Leave it out for {SNR_RANGE[0]:g} to {SNR_RANGE[1]:g} dB.")
    check_number("snr", snr[0], *SNR_LIMITS)
    check_number("snr", snr[1], float(snr[0]), SNR_LIMITS[1])
    return snr[0], snr[1]


def _render(missing: tuple[Path, Spoken]) -> None:
    path, one = missing
    title = f"{one.word} ({one.pronunciation}) by {one.speaker.name} (synthetic)"
    publish_sound(path, one.truth.to_dict(), one.sound, SAMPLE_RATE, title)


def has_espeak() -> bool:
    """True if espeak-ng is installed."""
    return shutil.which("espeak-ng") is not None


def espeak(word: str, pronunciation: str = "normal") -> tuple[Float[Tensor, "1 samples"], int]:
    """Synthesise a word, or its partner if "abnormal", with espeak-ng, at 16 kHz: `view.play(*espeak("ring"))`.

    A ParameterError says that espeak-ng is missing or fails.
    """
    check_choice("word", word, tuple(WORDS))
    check_choice("pronunciation", pronunciation, PRONUNCIATIONS)
    program = shutil.which("espeak-ng")
    if program is None:
        advice = "Install it (apt install espeak-ng), or play Spoken(...).sound()."
        raise ParameterError("espeak-ng", "is not on this machine", "the program on the PATH", advice)
    from .. import media

    spoken = word if pronunciation == "normal" else PARTNER[word]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        options = ["-v", "en-us", "-p", "70", "-s", "130", "-w", str(path)]
        done = subprocess.run([program, *options, "--", spoken], capture_output=True, text=True, check=False)  # noqa: S603 - no shell; the word is one of ours
        if done.returncode or not path.exists():
            reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise ParameterError("espeak-ng", f"failed: {reason}", 'its voice "en-us"', "Install it again.")
        return media.read_audio(path, SAMPLE_RATE)[None], SAMPLE_RATE
