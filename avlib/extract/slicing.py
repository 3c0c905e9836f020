"""Slices of a long sound, cut in its pauses.

Source: prophesier/diff-svc (`infer_tools/slicer.py`), in steps of 10 ms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import check_number, check_whole
from .pitch import Sound, block_levels

_PAUSE, _REACH, _WINDOW = 30, 50, 2  # blocks of 10 ms: shortest pause, farthest cut from its ends, RMS


class Slice(NamedTuple):
    """Samples `start` to `stop` (exclusive); `silent` is a pause."""

    start: int
    stop: int
    silent: bool


def slices(
    waveform: Sound, rate: int, *, threshold: float | int = -40.0, shortest: float | int = 5.0,
    longest: float | int | None = None,
) -> list[Slice]:  # fmt: skip
    """Cut a sound in its pauses, as diff-svc does before a conversion; slices have no gaps, from 0 to the end.

    A pause is 300 ms or more below the threshold. It is cut at the quietest 20 ms within 500 ms of its ends, and in the
    middle of it at most. A pause less than `shortest` after the one before is not cut, and neither is such a sound.

    Args:
        waveform: `(samples,)`, mono, in [-1, 1], or its pieces.
        threshold: dB of full scale.
        shortest: seconds of sound between two pauses.
        longest: seconds; sound without a pause is cut at its quietest 20 ms in the second half of them. None leaves it
            whole, as published.
    """
    check_whole("rate", rate, 1000)
    check_number("threshold", threshold, -120, 0)
    check_number("shortest", shortest, 0, 3600)
    if longest is not None:
        check_number("longest", longest, 0.5, 86400)
    block = rate // 100
    peaks, rms, samples = block_levels(waveform, block)
    if not samples:
        return []
    quiet = peaks < 10 ** (threshold / 20)
    loudness = np.convolve(rms**2, np.ones(_WINDOW), "same")
    changes = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(int)))
    places, end = [], 0
    for first, last in changes.reshape(-1, 2).tolist() if samples > shortest * rate else []:
        if last - first < _PAUSE:
            continue
        reach = min(_REACH, (last - first) // 2)
        left = first + int(loudness[first : first + reach].argmin()) if first else 0
        right = last - reach + int(loudness[last - reach : last].argmin()) if last < len(quiet) else last
        if places and (left - end) * block < shortest * rate and last < len(quiet):
            continue
        places += [(end, left, False), (left, right, True)]
        end = right
    places.append((end, len(quiet), False))
    parts = []
    for start, stop, silent in places:
        limit = max(1, int(longest * 100)) if longest is not None and not silent else len(quiet)
        while stop - start > limit:
            cut = start + limit // 2 + 1 + int(loudness[start + limit // 2 + 1 : start + limit + 1].argmin())
            parts.append((start, cut, False))
            start = cut
        parts.append((start, stop, silent or bool(quiet[start:stop].all())))
    return [Slice(start * block, min(stop * block, samples), silent) for start, stop, silent in parts if stop > start]
