"""Damaged files of ten formats: refused where a container or codec can tell, never with another exception.

Nothing can tell where only the payload of a format without checksums differs: then its length is right all the same.
"""

import random

import av
import numpy as np
import pytest
import soundfile
import torch
from making import write_clip, write_container

from avlib import media
from avlib.errors import MediaError

RATE, SECONDS = 16000, 4
PICTURES = ("mp4", "mkv", "webm", "avi")
CHECKSUMS = ("flac", "ogg", "opus")  # over all bytes
FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a", *PICTURES)
KINDS = ("cut", "flip", "zero", "drop", "noise", "nip")


def chirp() -> np.ndarray:
    time = np.arange(SECONDS * RATE) / RATE
    return (0.4 * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One file of each format, and what it holds."""
    folder, files = tmp_path_factory.mktemp("whole"), {}
    for name in FORMATS[:5]:
        options = {"format": "OGG", "subtype": "OPUS"} if name == "opus" else {}
        soundfile.write(folder / f"a.{name}", chirp(), RATE, **options)
    with av.open(str(folder / "a.m4a"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(chirp()[None], "fltp", "mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, stream.layout, RATE, stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
    write_clip(folder / "a.mp4", frames=25 * SECONDS)
    write_container(folder / "a.mkv", "libx264", "aac", SECONDS)
    write_container(folder / "a.webm", "libvpx", "libopus", SECONDS)
    write_container(folder / "a.avi", "mpeg4", "libmp3lame", SECONDS)
    for name in FORMATS:
        files[name] = ((folder / f"a.{name}").read_bytes(), *read(folder / f"a.{name}"))
    return files


def read(path) -> tuple[torch.Tensor, torch.Tensor | None]:
    if path.suffix[1:] not in PICTURES:
        return media.read_audio(path), None
    clip = media.read_clip(path, lambda count, rate: range(count))
    return clip.waveform, clip.frames


def damaged(content: bytes, kind: str, dice: random.Random) -> bytes:
    """Cut off 5 to 90 percent, or up to 3; or change one bit, or up to 2,000 bytes, or leave out some."""
    size, at = len(content), dice.randrange(len(content) // 20, len(content))
    if kind in ("cut", "nip"):
        return content[: dice.randrange(size // 10, size * 95 // 100) if kind == "cut" else size - size // 40]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]
    length = min(dice.choice([1, 50, 200, 2000]), size - at)
    middle = {"zero": bytes(length), "drop": b"", "noise": dice.randbytes(length)}[kind]
    return content[:at] + middle + content[at + length :]


def check(name: str, whole: dict, each: int, folder) -> None:
    content, waveform, frames = whole[name]
    assert len(waveform) == pytest.approx(SECONDS * RATE, abs=0.1 * RATE)
    path, refused = folder / f"damaged.{name}", 0
    for number in range(each):
        kind = KINDS[number % len(KINDS)]
        path.write_bytes(damaged(content, kind, random.Random(f"{name} {number}")))
        try:
            sound, pictures = read(path)
        except MediaError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            case = f"{name}, {kind}, number {number}"
            assert kind not in ("cut", "nip"), f"{case}: it lost its end"
            assert len(sound) == len(waveform), case
            assert name not in CHECKSUMS or torch.equal(sound, waveform), case
            assert frames is None or len(pictures) == len(frames), case
    assert refused >= each // 3


@pytest.mark.parametrize("name", FORMATS)
def test_sixty_damaged_files(whole, name, tmp_path):
    check(name, whole, 6, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_two_hundred_and_twenty_damaged_files(whole, name, tmp_path):
    check(name, whole, 22, tmp_path)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "ogg"])  # of which half has no whole page
def test_half_a_file_is_told_and_used_on_demand(whole, name, tmp_path):
    content, waveform, _ = whole[name]
    path = tmp_path / f"half.{name}"
    path.write_bytes(content[: len(content) // 2 + len(content) % 2])
    for use in (read, media.SteadyVideo) if name in PICTURES else (read,):
        with pytest.raises(
            MediaError, match=r"ends at [0-2]\.\d\d s; expected .*truncated|is damaged|cannot be decoded"
        ):
            use(path)
    assert media.probe(path).seconds < 0.75 * SECONDS
    torch.testing.assert_close(media.read_audio(path, seconds=0.8), waveform[: round(0.8 * RATE)], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["a.aiff", "a.w64", "rf64.wav", "a.au", "a.mov", "a.wmv"])
def test_other_formats_that_lost_their_end(name, tmp_path):
    path = tmp_path / name
    if name in ("a.mov", "a.wmv"):
        write_container(path, "mpeg4", "pcm_s16le" if name == "a.mov" else "wmav2", SECONDS)
        assert len(media.read_audio(path)) == pytest.approx(SECONDS * RATE, abs=0.1 * RATE)
    else:
        soundfile.write(path, chirp(), RATE, "PCM_16", format="RF64" if name == "rf64.wav" else None)
        assert (media.read_audio(path) - torch.from_numpy(chirp())).abs().max() < 1e-4
    share = 0.5 if name == "a.wmv" else 0.98
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    with pytest.raises(MediaError):
        media.read_audio(path)


def test_a_word_that_lost_three_quarters(tmp_path):
    path = tmp_path / "word.wav"
    soundfile.write(path, chirp()[: round(0.6 * RATE)], RATE)
    path.write_bytes(path.read_bytes()[: 44 + round(0.15 * RATE) * 2])
    with pytest.raises(MediaError, match=r"ends at 0\.15 s; expected 0\.6\d s as its header says"):
        media.read_audio(path)
