"""A picture of the boxes of a video, to look at before a mouth is put into them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ... import media
from ...cache import publishing
from ...errors import ParameterError, check_whole
from .boxes import Track
from .dubbing import boxes_at_ticks

_WIDTH, _ROW = 320, 4  # pixels of a picture; pictures in a row
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # one for each face, then again


def preview(video: str | Path, tracks: Sequence[Track], path: str | Path, count: int = 12) -> None:
    """Write a PNG with at most `count` pictures of a video, evenly spaced, and the numbered boxes of each face.

    A picture in which no face has a box says "no face". For `tracks` see `detect_boxes` and `read_boxes`.
    """
    from PIL import Image, ImageDraw, ImageFont

    check_whole("count", count, 1)
    if Path(path).suffix.lower() != ".png":
        raise ParameterError("preview", str(path), "a .png file")
    steady = media.SteadyVideo(video)
    tracks = [boxes_at_ticks(steady, track) for track in tracks]
    chosen = [tick * len(steady) // min(count, len(steady)) for tick in range(min(count, len(steady)))]
    scale = _WIDTH / steady.size[1]
    height, columns = max(24, round(steady.size[0] * scale)), min(_ROW, len(chosen))
    sheet = Image.new("RGB", (columns * _WIDTH, -(-len(chosen) // columns) * height))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for place, (tick, picture) in enumerate(zip(chosen, steady.pictures(chosen), strict=True)):
        x, y = place % columns * _WIDTH, place // columns * height
        sheet.paste(Image.fromarray(picture.numpy()).resize((_WIDTH, height)), (x, y))
        labels = [(x + 4, y + 2, f"{tick / 25:.2f} s", "black")]
        found = [(number, track[tick]) for number, track in enumerate(tracks) if track[tick]]
        for number, box in found:
            left, top, right, bottom = (min(max(edge * scale, 0.0), end - 1) for edge, end in zip(
                box, (_WIDTH, height) * 2, strict=True))  # fmt: skip
            colour = _COLOURS[number % len(_COLOURS)]
            draw.rectangle((x + left, y + top, x + max(left, right), y + max(top, bottom)), outline=colour, width=3)
            labels.append((x + left + 4, y + max(bottom - 24, top), f"{number}", colour))
        if not found:
            labels.append((x + _WIDTH // 2 - 30, y + height // 2 - 10, "no face", "#a00000"))
        for left, top, text, colour in labels:
            draw.rectangle(draw.textbbox((left, top), text, font=font), fill=colour)
            draw.text((left, top), text, fill="white", font=font)
    with publishing(Path(path)) as unfinished:
        sheet.save(unfinished)
