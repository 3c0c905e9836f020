"""Files that cannot be used: each is refused by name, with what was found and what to do."""

import pytest
import torch
from making import numbered, tone, write_clip, write_wav

from avlib import media
from avlib.errors import MediaError


def rule(count, rate):
    return [0, count - 1]


def refused(path, match):
    """Every way of reading refuses the file with the same reason, and names it."""
    for read in (
        media.probe,
        media.read_audio,
        lambda p: media.read_frames(p, [0]),
        lambda p: media.read_clip(p, rule),
    ):
        with pytest.raises(MediaError, match=match) as caught:
            read(path)
        shown = str(path).replace("\0", r"\x00")
        assert shown in str(caught.value) and caught.value.advice


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.mp4", "no such file")


def test_folder(tmp_path):
    refused(tmp_path, "is an empty folder")
    (tmp_path / "clip.mp4").touch()
    refused(tmp_path, "is a folder")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    refused(path, "is empty")


def test_text_under_a_video_name(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("shopping list: mp4 player\n" * 100)
    refused(path, "cannot be decoded")


def test_file_that_lost_its_index(tmp_path):
    # Cut where the index would come: mp4s that are not made for streaming end with it.
    path = write_clip(tmp_path / "clip.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov")])
    refused(path, "cannot be decoded")


def test_file_that_lost_its_end(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=250)
    content = path.read_bytes()  # the index comes first: nothing is missing until the data runs out
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"ends at .* expected 10\.\d+ s as its header says.*truncated"):
        media.read_clip(path, rule)
    with pytest.raises(MediaError, match="truncated"):
        media.read_audio(path)
    assert len(media.read_audio(path, seconds=2.0)) == 32000  # what is there can be used on demand
    assert media.read_clip(path, rule, seconds=2.0).frame_indices == [0, 49]


def test_wav_that_lost_its_end(tmp_path):
    path = write_wav(tmp_path / "sound.wav", tone(4.0, 16000), 16000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"ends at 2\.00 s; expected 4\.00 s as its header says.*truncated"):
        media.read_audio(path)
    assert len(media.read_audio(path, seconds=1.0)) == 16000
    start = content.index(b"data") + 4
    path.write_bytes(content[:start] + b"\xff" * 4 + content[start + 4 :])  # as written to a pipe: length unknown
    assert len(media.read_audio(path)) == 64000


def test_noise_within_the_file(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 8
    content[start : len(content) - 8] = bytes(len(content) - 8 - start)
    path.write_bytes(content)
    with pytest.raises(MediaError):
        media.read_clip(path, rule)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers(tmp_path, value):
    samples = tone(2.0, 16000)
    samples[0, 8000] = value
    path = write_wav(tmp_path / "nan.wav", samples, 16000)
    with pytest.raises(MediaError, match=r"not a number at 0\.500 s"):
        media.read_audio(path)
    assert media.read_audio(path, seconds=0.4).isfinite().all()


def test_silence_is_sound(tmp_path):
    path = write_wav(tmp_path / "silence.wav", torch.zeros(2, 44100), 44100)
    waveform = media.read_audio(path)
    assert len(waveform) == pytest.approx(16000, abs=16) and not waveform.any()


def test_sound_without_samples(tmp_path):
    path = write_wav(tmp_path / "nothing.wav", torch.zeros(1, 0), 16000)
    with pytest.raises(MediaError, match=r"no sound samples|cannot be decoded|no audio"):
        media.read_audio(path)


def test_twenty_milliseconds(tmp_path):
    path = tmp_path / "short.mp4"
    media.write_video(path, [numbered(3)], 50.0, tone(0.02, 16000), 16000)
    clip = media.read_clip(path, rule)
    assert clip.frame_count == 1 and 0 < len(clip.waveform) < 2 * 1024
