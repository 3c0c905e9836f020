"""A video file with a new sound, and mouths that follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor

from ... import media
from ...cache import publishing
from ...errors import ParameterError
from ...features import check_boxes, face_places, ping_pong
from ...features.units import UNIT_RATE
from ...models.face_renderer import FaceRenderer, Reference, render_frames
from .boxes import Track

SYNTHETIC = {"title": "synthetic speech and face", "comment": "synthetic: made from speech units by avlib"}
_RATE = UNIT_RATE / 2  # pictures in a second


@dataclass(frozen=True)
class Dubbed:
    """Pictures that were written, how many have a new mouth, and what was changed in the video, in words."""

    frames: int
    new_mouths: int
    notes: list[str]


def dub(
    renderer: FaceRenderer, video: str | Path | media.SteadyVideo, boxes: Sequence, units: Int[Tensor, " units"],
    path: str | Path, waveform: Float[Tensor, " samples"] | None = None, sample_rate: int = 16000, *,
    missing: str = "keep", reference: Reference = None, feather: float | int = 0.0, progress: bool = True,
) -> Dubbed:  # fmt: skip
    """Write a video whose mouths and sound follow units, picture by picture; its length takes no memory.

    Pictures are brought to 25 Hz by their times. If the units last longer than the video, it goes on backwards, then
    forwards, and so on; if they are shorter, it ends with them. The metadata say that it is synthetic.

    Args:
        video: any file that FFmpeg reads, or one at 25 Hz; its sound is not used.
        boxes: one for each picture of the file, or for each at 25 Hz; see `read_boxes`.
        path: the mp4 to write.
        waveform: `(samples,)`, as long as the units to a picture; None writes no sound.
        missing: for pictures without a face, "keep" or "fill".
        reference, feather: see `avlib.models.face_renderer.render_frames`.
    """
    from ...progress import Bar

    wanted = len(units) // 2
    if not wanted:
        raise ParameterError("units", f"{len(units)}", "at least 2, which are one picture")
    if waveform is not None and abs(len(waveform) / sample_rate - len(units) / UNIT_RATE) > 1 / _RATE:
        found = f"{len(waveform) / sample_rate:.3f} s at {sample_rate} Hz"
        raise ParameterError("waveform", found, f"{len(units) / UNIT_RATE:.3f} s, as its {len(units)} units last")
    steady = video if isinstance(video, media.SteadyVideo) else media.SteadyVideo(video, _RATE)
    order = ping_pong(len(steady), wanted)
    places = face_places(boxes_at_ticks(steady, boxes), *steady.size, missing)
    places = [places[tick] for tick in order]
    rendered = render_frames(renderer, steady.pictures(order), places, units, reference=reference, feather=feather)
    with publishing(Path(path)) as unfinished:
        bar = Bar(rendered, desc="rendering", total=wanted, unit="frame", disable=not progress)
        sound = None if waveform is None else waveform[None]
        media.write_video(unfinished, (picture.numpy() for picture in bar), _RATE, sound, sample_rate, SYNTHETIC)
    found = sum(place is not None for place in places)
    return Dubbed(wanted, found, list(_notes(steady, wanted, found)))


def boxes_at_ticks(video: media.SteadyVideo, boxes: Sequence) -> Track:
    """Return the box at each tick, from one for each picture of the file, or for each tick; no other number will do."""
    if len(boxes) == len(video.times):
        boxes = [boxes[source] for source in video.sources]
    elif len(boxes) != len(video):
        expected = f"{len(video.times)}, one for each picture of {video.path}"
        raise ParameterError("boxes", f"{len(boxes)} boxes", expected, "Give null for a picture without a face.")
    return check_boxes(boxes)


def _notes(steady: media.SteadyVideo, wanted: int, found: int) -> Iterator[str]:
    if steady.sources != list(range(len(steady.times))):
        yield f"{len(steady.times)} pictures were brought to {len(steady)} at {_RATE:g} Hz, by their times"
    if wanted > len(steady):
        yield f"the video lasts {len(steady) / _RATE:.2f} s, its new sound {wanted / _RATE:.2f} s: it goes to and fro"
    elif wanted < len(steady):
        yield f"the video is cut from {len(steady) / _RATE:.2f} s to {wanted / _RATE:.2f} s, where its new sound ends"
    if found < wanted:
        yield f"{wanted - found} of {wanted} pictures have no face and are left as they are"
