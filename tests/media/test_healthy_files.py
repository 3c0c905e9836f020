"""Healthy files of forty kinds, as programs write them: all are read, with the right length and content."""

import struct
import uuid

import av
import numpy as np
import pytest
import soundfile
import torch
from making import numbers, write_container
from PIL import Image

from avlib import media
from avlib.errors import MediaError

RATE, SECONDS = 16000, 3


def chirp(rate: int = RATE) -> np.ndarray:
    time = np.arange(SECONDS * rate) / rate
    return 0.4 * np.sin(2 * np.pi * (200 + 150 * time) * time)


def same(path, rate: int = RATE, error: float = 1e-3, longer: int = 0, late: int = 0) -> None:
    """The file is the chirp: its samples to `error` (rms), at most so many longer and later, by its codec."""
    read, expected = media.read_audio(path, rate).numpy(), chirp(rate)
    assert 0 <= len(read) - len(expected) <= longer
    inner = slice(rate // 2, 5 * rate // 2)
    lag = max(range(late + 1), key=lambda lag: float(read[inner][lag:] @ expected[inner][: rate * 2 - lag]))
    difference = read[inner][lag:] - expected[inner][: rate * 2 - lag]
    assert np.sqrt(np.mean(difference**2)) < error
    assert media.probe(path).seconds == pytest.approx(len(read) / rate, abs=0.05)


SUBTYPES = {"PCM_16": 1e-4, "PCM_24": 1e-6, "PCM_32": 1e-6, "FLOAT": 1e-6, "DOUBLE": 1e-6, "PCM_U8": 0.01, "ULAW": 0.02,
            "ALAW": 0.02, "IMA_ADPCM": 0.01, "MS_ADPCM": 0.01, "GSM610": 0.1}  # fmt: skip


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_wav_of_every_codec(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", chirp(), RATE, subtype)
    same(tmp_path / "a.wav", error=SUBTYPES[subtype], longer=1100)  # a block of ADPCM


@pytest.mark.parametrize(
    ("name", "options"),
    [("wavex.wav", {"format": "WAVEX"}), ("rf64.wav", {"format": "RF64"}), ("a.w64", {}), ("a.aiff", {}), ("a.au", {}),
     ("a.caf", {}), ("a.flac", {}), ("24.flac", {"subtype": "PCM_24"})],
)  # fmt: skip
def test_lossless_files(tmp_path, name, options):
    soundfile.write(tmp_path / name, chirp(), RATE, **({"subtype": "PCM_16"} | options))
    same(tmp_path / name, error=1e-4)


@pytest.mark.parametrize(
    ("name", "options"), [("a.opus", {"format": "OGG", "subtype": "OPUS"}), ("a.ogg", {}), ("a.mp3", {})]
)
def test_lossy_files(tmp_path, name, options):
    # FFmpeg ends the vorbis that libsndfile wrote 256 samples too early or too late
    soundfile.write(tmp_path / name, np.pad(chirp(), (0, 256 * (name == "a.ogg"))), RATE, **options)
    same(tmp_path / name, error=0.02, longer=512 * (name == "a.ogg"))


def wav(path, data: bytes, *, byte_rate=2 * RATE, size=None, bits=16, valid=16):
    """A wav with whatever in its header."""
    code = 1 if bits == valid else 0xFFFE
    form = struct.pack("<HHIIHH", code, 1, RATE, byte_rate, bits // 8, bits)
    if bits != valid:
        form = form[:-2] + struct.pack("<HHHI", bits, 22, valid, 4)
        form += uuid.UUID("00000001-0000-0010-8000-00aa00389b71").bytes_le
    size = len(data) if size is None else size
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    path.write_bytes(b"RIFF" + struct.pack("<I", min(size + len(head), 0xFFFFFFFF)) + head + data)
    return path


def pcm(bits: int) -> bytes:
    return (chirp() * 2 ** (bits - 1)).astype(f"<i{bits // 8}").tobytes()


@pytest.mark.parametrize("byte_rate", [0, 7777, 7777777])
def test_wav_with_a_wrong_byte_rate(tmp_path, byte_rate):
    same(wav(tmp_path / "a.wav", pcm(16), byte_rate=byte_rate), error=1e-4)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFF00, 0xFFFFFFFF])
def test_wav_written_to_a_pipe(tmp_path, size):
    """By sox, arecord, ffmpeg and others."""
    same(wav(tmp_path / "a.wav", pcm(16), size=size), error=1e-4)


@pytest.mark.parametrize(("bits", "valid"), [(32, 24), (32, 16), (16, 12)])
def test_wav_with_fewer_valid_bits(tmp_path, bits, valid):
    same(wav(tmp_path / "a.wav", pcm(bits), byte_rate=bits // 8 * RATE, bits=bits, valid=valid), error=1e-3)


def cover(folder) -> bytes:
    """A JPEG of noise, in which anything may be taken for the begin of a frame."""
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cover.jpg", icc_profile=noise.tobytes()[:70000])
    return (folder / "cover.jpg").read_bytes()


def ape(picture: bytes, header: bool) -> bytes:
    """An APEv2 tag with a title and a cover."""
    items = struct.pack("<II", 1, 0) + b"Title\0x"
    items += struct.pack("<II", 10 + len(picture), 2) + b"Cover Art (Front)\0cover.jpg\0" + picture
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, len(items) + 32, 2, flags) + bytes(8)
        for flags in (0xA0 << 24, header << 31)
    ]
    return ends[0] * header + items + ends[1]


def mp3(path, *, counted: bool):
    """With or without the tag that counts its frames."""
    with av.open(str(path), "w", options={} if counted else {"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(chirp(44100)[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        resampler = av.AudioResampler(stream.format, stream.layout, 44100, stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
    return path


@pytest.mark.parametrize("tags", ["none", "id3v1", "ape", "ape with header", "ape and id3v1"])
@pytest.mark.parametrize("counted", [True, False])
def test_mp3_with_tags_at_its_end(tmp_path, counted, tags):
    path = mp3(tmp_path / "a.mp3", counted=counted)
    content, plain = path.read_bytes(), media.read_audio(path, 44100)
    tail = ape(cover(tmp_path), "header" in tags) if "ape" in tags else b""
    path.write_bytes(content + tail + (b"TAG" + bytes(125) if "id3v1" in tags else b""))
    assert torch.equal(media.read_audio(path, 44100), plain)
    same(path, 44100, error=0.02, longer=0 if counted else 3 * 1152, late=0 if counted else 1200)
    path.write_bytes(b"ID3\3\0\0\0\0\0\x0aPRIV" + bytes(6) + path.read_bytes())
    assert torch.equal(media.read_audio(path, 44100), plain)


def test_mp3s_put_together(tmp_path):
    path = mp3(tmp_path / "a.mp3", counted=True)
    once = media.read_audio(path)
    path.write_bytes(path.read_bytes() * 2)
    twice = media.read_audio(path)
    assert len(twice) == pytest.approx(2 * SECONDS * RATE, abs=0.1 * RATE)
    inner = slice(RATE // 2, 5 * RATE // 2)
    assert torch.equal(twice[inner], once[inner])
    differences = [(twice[shift:][inner] - once[inner]).square().mean().sqrt() for shift in range(48000, 49700)]
    assert min(differences) < 0.02


@pytest.mark.parametrize(
    ("name", "video", "audio", "options"),
    [
        ("fragmented.mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("dash.mp4", "libx264", "aac", {"movflags": "dash+frag_keyframe+default_base_moof"}),
        ("faststart.mp4", "libx264", "libopus", {"movflags": "faststart"}),
        ("live.mkv", "libx264", "aac", {"live": "1"}),
        ("a.mkv", "mpeg4", "flac", {}),
        ("live.webm", "libvpx", "libopus", {"live": "1"}),
        ("clusters.webm", "libvpx-vp9", "libopus", {"cluster_time_limit": "500"}),
        ("a.m2ts", "libx264", "ac3", {}),
        ("a.avi", "mpeg4", "pcm_s16le", {}),
    ],
)
def test_pictures_and_sound_of_other_programs(tmp_path, name, video, audio, options):
    write_container(tmp_path / "source.mkv", video, audio, SECONDS)
    with av.open(str(tmp_path / "source.mkv")) as source, av.open(str(tmp_path / name), "w", options=options) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    info = media.probe(tmp_path / name)
    assert info.video.frames == 25 * SECONDS and info.seconds == pytest.approx(SECONDS, abs=0.2)
    clip = media.read_clip(tmp_path / name, lambda count, rate: range(count), sample_rate=48000)
    assert numbers(clip.frames) == list(range(25 * SECONDS))
    assert len(clip.waveform) == pytest.approx(48000 * SECONDS, abs=0.1 * 48000)
    time = torch.arange(SECONDS * 48000, dtype=torch.float64) / 48000
    expected = (0.5 * torch.sin(2 * torch.pi * (200 + 100 * time) * time)).float()
    inner, shown = slice(24000, 120000), round(clip.video_start * 48000)  # what the encoder put before it
    lags = [lag for lag in range(shown - 48, shown + 49)]
    errors = [(clip.waveform[24000 + lag : 120000 + lag] - expected[inner]).square().mean().sqrt() for lag in lags]
    assert min(errors) < 0.05


def test_a_cover_is_no_video(tmp_path):
    write_container(tmp_path / "source.mkv", "mpeg4", "flac", SECONDS)
    with av.open(str(tmp_path / "source.mkv")) as source, av.open(str(tmp_path / "a.flac"), "w") as target:
        sound = target.add_stream_from_template(source.streams.audio[0])
        picture = target.add_stream("mjpeg", rate=1)
        picture.width = picture.height = 64
        picture.pix_fmt, picture.disposition = "yuvj420p", av.stream.Disposition.attached_pic
        shown = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        target.mux([*picture.encode(shown), *picture.encode(None)])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = sound
                target.mux(packet)
    info = media.probe(tmp_path / "a.flac")
    assert info.video is None and info.seconds == pytest.approx(SECONDS, abs=0.1)
    assert len(media.read_audio(tmp_path / "a.flac")) == pytest.approx(SECONDS * RATE, abs=1024)
    with pytest.raises(MediaError, match="no video stream"):
        media.read_frames(tmp_path / "a.flac", [0])
