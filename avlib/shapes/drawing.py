"""Small pictures as text: PNG written by hand, curves as SVG, and how wide a line of text will be."""

from __future__ import annotations

import base64
import math
import struct
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache

from .palette import AUDIO
from .rows import Picture

LEVELS = 16  # colours of a picture: four bits each
MONO = 0.603  # advance of the widest usual monospaced font, in its size

# Eight colours between dark and light, and seven from blue over grey to red: the maps that palette names.
_MAGMA = ("000004", "231151", "5f187f", "982d80", "d3436e", "f8765c", "febb81", "fcfdbf")
_SIGNED = ("053061", "2166ac", "67a9cf", "f7f7f7", "ef8a62", "b2182b", "67001f")

# Advances of DejaVu Sans, the widest of the usual fonts, in thousandths of its size; bold ones are at most 1.12 of it.
_ADVANCES = {
    **dict.fromkeys("ijlI'|", 340),
    **dict.fromkeys("ft.,:;()[]/\\! ", 430),
    **dict.fromkeys("rs-*", 535),
    **dict.fromkeys("mwMW%@", 1000),
    **dict.fromkeys("+=<>~#_&^ABCDEGHKNOPQRTUVXYZ", 840),
}


def text_width(text: str, size: float | int, mono: bool = False, bold: bool = False) -> float:
    """How wide a line is at most, in the unit of `size`, in whichever usual font it is set."""
    total = 0.0
    for sign in text:
        if unicodedata.combining(sign):
            continue
        if unicodedata.east_asian_width(sign) in "WF":
            total += 1
        elif mono:
            total += MONO
        else:
            total += _ADVANCES.get(sign, 640 if sign.isascii() else 1000) / 1000
    return total * size * (1.12 if bold and not mono else 1)


def png(picture: Picture) -> bytes:
    """A picture as a PNG of 16 colours, one pixel for each value.

    Values on both sides of zero are blue below it and red above, others dark to light.
    """
    height, width = picture.size
    signed = picture.low < 0 < picture.high and picture.kind in ("matrix", "feature maps")
    scale = _signed_levels(picture.low, picture.high) if signed else bytes(value * LEVELS >> 8 for value in range(256))
    raw = bytearray()
    for row in picture.values:
        levels = row.translate(scale) + b"\0" * (width % 2)
        raw.append(0)  # no filter
        raw += bytes(left << 4 | right for left, right in zip(levels[::2], levels[1::2], strict=True))
    colours = _colours(_SIGNED if signed else _MAGMA)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0))
        + _chunk(b"PLTE", colours)
        + _chunk(b"IDAT", zlib.compress(bytes(raw), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _signed_levels(low: float | int, high: float | int) -> bytes:
    """For each of 256 values the colour, such that zero has the one in the middle."""
    reach = max(-low, high)
    values = (low + (high - low) * value / 255 for value in range(256))
    return bytes(min(LEVELS - 1, int((value / reach + 1) / 2 * LEVELS)) for value in values)


@cache
def _colours(anchors: Sequence[str]) -> bytes:
    """The palette of a PNG: as many colours as there are levels, between the anchors."""
    found = bytearray()
    for level in range(LEVELS):
        place = level / (LEVELS - 1) * (len(anchors) - 1)
        left = min(int(place), len(anchors) - 2)
        ends = (bytes.fromhex(anchors[left]), bytes.fromhex(anchors[left + 1]))
        found += bytes(round(a + (b - a) * (place - left)) for a, b in zip(*ends, strict=True))
    return bytes(found)


def curve(values: Sequence[int], width: int = 128, height: int = 32) -> str:
    """Values from 0 to 255 as a line, inline SVG."""
    step = width / max(1, len(values) - 1)
    points = " ".join(f"{i * step:.0f},{height - 1 - v * (height - 2) / 255:.0f}" for i, v in enumerate(values))
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f'<polyline points="{points}" fill="none" stroke="{AUDIO}" stroke-width="1.2"/></svg>'
    )


def image(picture: Picture) -> str:
    """A picture as HTML that stands by itself, with its range in words."""
    height, width = picture.size
    if not height or not width:
        return ""
    span = f"{picture.low:.3g} to {picture.high:.3g}" if math.isfinite(picture.low) else "no finite value"
    if picture.kind == "curve":
        return f'<span title="{picture.kind}, {span}">{curve(picture.values[0])}</span>'
    shown = max(24, min(64, 2 * height)), max(24, min(128, 2 * width))
    data = base64.b64encode(png(picture)).decode()
    return (
        f'<img alt="{picture.kind}, {span}" title="{picture.kind}, {span}" width="{shown[1]}" height="{shown[0]}" '
        f'style="image-rendering:pixelated" src="data:image/png;base64,{data}">'
    )
