"""Checks of a file's own sizes and checksums against its bytes."""

from __future__ import annotations

import math
import mmap
import zlib
from pathlib import Path
from typing import Any

from ..errors import MediaError

_PIPED = 0x7FFFF000  # this size or a larger one is written for sound of unknown length
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# Elements of Matroska that hold others (segment, cluster, block group), and those that may stand in them.
_MASTERS = ("18538067", "1f43b675", "a0")
_ELEMENTS = " 1a45dfa3 114d9b74 1549a966 1654ae6b 1c53bb6b 1941a469 1043a770 1254c367 ec bf "
_ELEMENTS += "e7 a7 ab a3 af 5854 a1 9b fb fa a4 75a2 75a1 8e fd c8 "


def declared_size(path: str | Path) -> int | float:
    """Bytes that a file should have, by its own sizes; infinite where it has no end, 0 where it does not say.

    Raises:
        MediaError: a checksum is wrong, or something stands where none of the format's parts can.
    """
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk = _boxes if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") else _WALKS.get(data[:4])
        try:
            return walk(data) if walk else 0
        except IndexError:  # cut within a header
            return math.inf
        except ValueError as damage:
            found, expected = f"is damaged at byte {damage} of {len(data)}", "what its own sizes and checksums say"
            raise MediaError(path, found, expected, "Fetch it again.") from None


def opening(path: str | Path) -> dict[str, Any]:
    """Arguments of `av.open`, with which it takes neither tags at the end nor spare bits for sound."""
    options, how = {"protocol_whitelist": "file,subfile", "err_detect": "crccheck"}, {}
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, end = 0, _sound_end(data)
        form = data.find(b"fmt ", 12, 4096)
        code, channels, bits, valid, inner = (_little(data, form + at, 2) for at in (8, 10, 22, 26, 32))
        integers = form > 0 and data[8:12] == b"WAVE" and (code, inner) == (0xFFFE, 1)
        if integers and bits in (16, 24, 32) and valid < bits:
            start, end = data.find(b"data", form, 8192) + 8, min(end, _riff(data) or end)
            how = {"format": f"s{bits}le"}
            options |= {"sample_rate": f"{_little(data, form + 12, 4)}", "ch_layout": f"{channels}c"}
        part = "" if (start, end) == (0, len(data)) else f"subfile,,start,{start},end,{end},,:"
    return how | {"file": part + str(Path(path).absolute()), "options": options}  # `a:b.mp4` would be a protocol


def _sound_end(data: mmap.mmap) -> int:
    """The place where the tags at the end of an mp3 or aac begin."""
    end = len(data)
    while end > 160 and (data[:3] == b"ID3" or data[0] == 0xFF):
        if data[end - 128 : end - 125] == b"TAG":
            end -= 128
        elif data[end - 32 : end - 24] == b"APETAGEX":
            end -= max(32, _little(data, end - 20, 4)) + 32 * (data[end - 9] >> 7)
        else:
            return end
    return len(data)


def _little(data: mmap.mmap, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "little")


def _riff(data: mmap.mmap) -> int | float:
    """Walk over the chunks of a wav up to its samples, or of an avi."""
    declared, large, at = _little(data, 4, 4) + 8, 0, 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], _little(data, at + 4, 4)
        if name == b"ds64":
            large = _little(data, at + 16, 8)
        if name == b"data" and data[8:12] == b"WAVE":
            length = large or (length if length < _PIPED else 0)
            return at + 8 + length if length else 0
        if data[8:12] == b"AVI " and at < declared and not name.strip(b" ").isalnum():
            raise ValueError(at)
        at += 12 if name in (b"LIST", b"RIFF") else 8 + length + length % 2
    return max(at, declared) if 8 < declared < _PIPED and data[8:12] == b"AVI " else 0


def _boxes(data: mmap.mmap) -> int | float:
    """Walk over the outermost boxes of an mp4."""
    at = 0
    while at + 8 <= len(data):
        large = data[at : at + 4] == b"\0\0\0\1"
        length = int.from_bytes(data[at + 8 : at + 16] if large else data[at : at + 4], "big")
        if length < 8 or not data[at + 4 : at + 8].isalnum():  # up to the end, or what is no box
            return 0
        at += length
    return at


def _ogg(data: mmap.mmap) -> int | float:
    """Walk over the pages of an ogg, each with a checksum."""
    at = flags = 0
    while at < len(data):
        flags, count = data[at + 5], data[at + 26]
        end = at + 27 + count + sum(data[at + 27 : at + 27 + count])
        page = data[at : at + 22] + bytes(4) + data[at + 26 : end]
        checksum = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        if end > len(data):
            return math.inf
        if page[:4] != b"OggS" or checksum.to_bytes(4, "big").translate(_MIRRORED) != data[at + 22 : at + 26]:
            raise ValueError(at)
        at = end
    return at if flags & 4 else math.inf  # the mark of the last page


def _matroska(data: mmap.mmap) -> int | float:
    """Walk over the elements of an mkv or webm, down to its blocks."""
    at, ends = 0, []
    while at < len(data):
        begin, width = at, 9 - data[at].bit_length()
        name, at = data[at : at + width].hex(), at + width
        width = 9 - data[at].bit_length()
        unknown = (1 << 7 * width) - 1
        length, at = int.from_bytes(data[at : at + width], "big") & unknown, at + width
        if name in _MASTERS:
            ends += [at + length] * (length < unknown)
        elif f" {name} " in _ELEMENTS and length < unknown:
            at += length
        else:
            raise ValueError(begin)
        while ends and at >= ends[-1]:
            if at > ends.pop():
                raise ValueError(begin)
    return max([at, *ends])


_WALKS = {b"RIFF": _riff, b"RF64": _riff, b"OggS": _ogg, b"\x1a\x45\xdf\xa3": _matroska}
_WALKS[b"riff"] = lambda data: _little(data, 16, 8)  # w64
