"""The sound of videos to wav files, so that it is decoded once and not in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ... import cache, media
from ...errors import AvlibError, CacheError, DatasetError, MediaError, check_choice
from ...workers import POLICIES, describe, each
from ..sources import SAMPLE_RATE
from .table import Clip


class Extracted(NamedTuple):
    """The table with the files in it, why clips were left out, and how many of how many that were, as a text."""

    clips: list[Clip]
    skipped: list[AvlibError]
    report: str


def extract_audio(
    clips: Sequence[Clip],
    folder: str | Path,
    *,
    channel: int | None = None,
    jobs: int | None = None,
    on_error: str = "raise",
    progress: bool = True,
) -> Extracted:
    """Write the sound of every clip that has no wav as `folder/name.wav`: 16 kHz, mono, 16 bit.

    What is there already is left as it is, so that an interrupted run goes on. `folder` is the `audio` of the published
    layout if the videos lie in its `video`.

    Args:
        clips: from `read_clips`.
        folder: created when it does not exist.
        channel: None averages those of a sound, 0 takes the first.
        jobs: how many processes work at once; `avlib.workers.each` says more.
        on_error: "raise", or "skip" to leave clips without usable sound out, and tell so in the result.
        progress: whether a progress bar is shown.

    Raises:
        MediaError: a clip without sound, or a broken one.
        DatasetError: two clips of one name.
        CacheError: the folder cannot be written.
    """
    check_choice("on_error", on_error, POLICIES)
    for clip in clips:
        if clip.wav is None and clip.path is None:
            raise DatasetError(clip, "no video to take the sound of", "a clip on disk")
    missing = [clip for clip in clips if clip.wav is None]
    folder = Path(folder)
    if len({clip.name.casefold() for clip in missing}) < len(missing):  # some file systems take Dog and dog for one
        raise DatasetError(folder, "two clips of one name", "a name for each", "Extract them to two folders.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(folder, str(error), "a folder that can be written", "Give another folder.") from error
    task = partial(_extract, folder=folder, channel=channel, on_error=on_error)
    done = list(each(task, missing, jobs=jobs, progress=progress, doing="extracting"))
    skipped = [outcome for outcome in done if not isinstance(outcome, Clip)]
    written = {clip.name: outcome for clip, outcome in zip(missing, done, strict=True)}
    table = [clip if clip.wav else written[clip.name] for clip in clips]
    kept = [clip for clip in table if isinstance(clip, Clip)]
    return Extracted(kept, skipped, describe(skipped, len(clips)))


def _extract(clip: Clip, *, folder: Path, channel: int | None, on_error: str) -> Clip | AvlibError:
    target = folder / f"{clip.name}.wav"
    try:
        if not target.exists():
            waveform = media.read_audio(clip.path, SAMPLE_RATE, channel=channel)
            with cache.publishing(target) as unfinished:
                media.write_wav(unfinished, waveform, SAMPLE_RATE)
    except MediaError as error:
        if on_error == "raise":
            raise
        return error
    return replace(clip, wav=target)
