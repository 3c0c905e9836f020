"""Odd but healthy files are read right; what is no media is refused by name, never with another exception."""

import errno
import os
import struct
from pathlib import Path

import av
import pytest
import torch
from making import numbered, numbers, tone, write_clip, write_container, write_pictures, write_wav
from test_bad_files import refused

from avlib import media
from avlib.errors import MediaError

ONE = 1 << 16  # of a display matrix, in fixed point


def every(count, rate):
    return range(count)


@pytest.mark.parametrize("channels", [7, 8, 9, 16, 24])
def test_many_channels_of_a_wav(tmp_path, channels):
    samples = torch.rand(channels, 4000) - 0.5
    path = write_wav(tmp_path / "wide.wav", samples, 16000)
    assert media.probe(path).audio.channels == channels
    torch.testing.assert_close(media.read_audio(path, None), samples.mean(dim=0))
    assert torch.equal(media.read_audio(path, None, channel=channels - 1), samples[-1])
    assert len(media.read_audio(path, 8000, start=0.1, seconds=0.1)) == 800


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [("a.flac", "flac", "7.1"), ("a.m4a", "alac", "7.1(wide)"), ("a.mka", "libopus", "7.1"), ("a.tta", "tta", "16C")],
)
def test_many_planes_of_a_codec(tmp_path, name, codec, layout):
    """Channel k is a sine of 200 + 50 k Hz; decoders give it in as many planes."""
    path, rate = tmp_path / name, 48000
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="hexadecagonal" if layout == "16C" else layout)
        count, time = stream.layout.nb_channels, torch.arange(3 * rate) / rate
        samples = torch.stack([0.3 * torch.sin(2 * torch.pi * (200 + 50 * k) * time) for k in range(count)])
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).contiguous().numpy(), "flt", stream.layout.name)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, stream.layout, rate, stream.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    inner, whole = slice(3000, 90000), media.read_audio(path, None)
    assert (whole - samples.mean(dim=0))[inner].abs().max() < 0.01
    read = media.read_audio(path, None, channel=count - 1)
    assert (read - samples[-1])[inner].abs().max() < 0.02
    assert torch.equal(media.read_audio(path, None, start=2.5, seconds=0.2), whole[120000:129600])


@pytest.mark.parametrize(
    "matrix", [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0),
               (0, -1, -1, 0), (0, 0, 0, 0)]
)  # fmt: skip
def test_every_display_matrix(tmp_path, matrix):
    """A pixel at (x, y) is shown at (a x + c y, b x + d y), moved so that all are inside; zeros say nothing."""
    path = write_pictures(tmp_path / "turned.mp4", [0, 40], rotation=90)
    content = path.read_bytes()
    start = content.index(b"tkhd") + 44
    a, b, c, d = matrix
    fixed = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:start] + bytes(36) + content[start + 36 :])
    (stored,) = media.read_frames(path, [1])
    path.write_bytes(content[:start] + fixed + content[start + 36 :])
    (shown,) = media.read_frames(path, [1])
    _, height, width = stored.shape
    if not any(matrix):
        a = d = 1
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    columns, rows = a * x + c * y, b * x + d * y
    expected = torch.zeros((3, width, height) if b else (3, height, width), dtype=torch.uint8)
    expected[:, rows - rows.min(), columns - columns.min()] = stored
    assert torch.equal(shown, expected)
    video = media.probe(path).video
    again = torch.rot90(stored, video.rotation // 90, (1, 2))
    assert torch.equal(again.flip(2) if video.flipped else again, shown)
    assert (video.height, video.width) == shown.shape[1:]


def wav_with_tag(path: Path, raw: bytes) -> Path:
    content = write_wav(path, tone(0.5, 16000), 16000, "PCM_16").read_bytes()
    listed = b"INFOINAM" + struct.pack("<I", len(raw)) + raw + bytes(len(raw) % 2)
    content += b"LIST" + struct.pack("<I", len(listed)) + listed
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    return path


@pytest.mark.parametrize(
    ("text", "encoding"), [("종소리", "cp949"), ("Köln, déjà", "latin-1"), ("鐘の音", "shift-jis"), ("鐘", "utf-16")]
)
def test_tags_in_any_encoding(tmp_path, text, encoding):
    path = wav_with_tag(tmp_path / "a.wav", text.encode(encoding))
    assert media.probe(path).audio.sample_rate == 16000 and len(media.read_audio(path)) == 8000


def bare_h264(path: Path, sizes: list[int]) -> Path:
    content = b""
    for size in sizes:
        with av.open(str(path), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for number in range(10):
                picture = av.VideoFrame.from_ndarray(numbered(number, size, size), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        content += path.read_bytes()
    path.write_bytes(content)
    return path


def test_a_bare_h264_stream(tmp_path):
    path = bare_h264(tmp_path / "bare.h264", [64])
    video = media.probe(path).video
    assert (video.frames, video.constant_rate) == (10, True) and video.seconds == pytest.approx(0.4)
    assert numbers(media.read_frames(path, every)) == list(range(10))
    assert numbers(media.read_clip(path, every, audio="silence").frames) == list(range(10))
    assert media.SteadyVideo(path).sources == list(range(10))


def test_a_resolution_that_changes(tmp_path):
    path = bare_h264(tmp_path / "changing.h264", [64, 128])
    assert media.read_frames(path, [0, 9]).shape[2] == 64 and media.read_frames(path, [12]).shape[2] == 128
    for read in (lambda: media.read_frames(path, [0, 12]), lambda: media.SteadyVideo(path)):
        with pytest.raises(MediaError, match="change their size: 64 x 64, then 128 x 128; expected one size"):
            read()


def test_codecs_that_ffmpeg_does_not_know(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(0.5, 16000), 16000, "PCM_16")
    content = bytearray(path.read_bytes())
    start = content.index(b"fmt ") + 8
    content[start : start + 2] = b"\x77\x66"
    path.write_bytes(content)
    for read in (media.probe, media.read_audio):
        with pytest.raises(MediaError, match=r"audio is in a format that FFmpeg .* does not know; expected a format"):
            read(path)
    with pytest.raises(MediaError, match=r"no video stream \(streams: audio unknown\)"):
        media.read_frames(path, [0])
    path = write_container(tmp_path / "a.mkv", "libx264", "aac", seconds=1)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/QQQ"))
    with pytest.raises(MediaError, match="video is in a format"):
        media.read_clip(path, every)
    assert len(media.read_audio(path)) >= 16000


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.srt", "1\n00:00:00,000 --> 00:00:02,000\nHello\n", "no (audio or video|audio|video) stream"),
        ("a.txt", "shopping list\n" * 50, "is text"),
        ("a.nfo", "shopping list\n" * 50, "is text"),
        ("a.m3u8", "#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.ts\n#EXT-X-ENDLIST\n", "."),
        ("a.html", "<html>404</html>", "cannot be decoded"),
    ],
)
def test_text(tmp_path, name, text, match):
    (tmp_path / name).write_text(text)
    refused(tmp_path / name, match)


def test_names_that_no_file_can_have(tmp_path):
    refused(tmp_path / ("a" * 5000 + ".mp4"), "cannot be opened")
    refused(tmp_path / "a\0.mp4", "cannot be opened")
    refused(write_clip(tmp_path / "a.mp4", frames=2) / "b.mp4", "no such file")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "a device or a pipe")


def test_without_permission(tmp_path, monkeypatch):
    # root may read everything: what anyone else would be told
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    refused(tmp_path / "locked" / "a.mp4", r"cannot be opened \(Permission denied\)")
    monkeypatch.undo()
    path = write_clip(tmp_path / "a.mp4", frames=2)

    def refuses(*_, **__):
        raise av.error.PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(av, "open", refuses)
    with pytest.raises(MediaError, match="cannot be opened"):
        media.probe(path)
