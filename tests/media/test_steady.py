"""Videos at a constant rate: what is on the screen at each tick, forwards and backwards."""

import numpy as np
import pytest
import torch
from making import numbered, numbers, write_container, write_pictures

from avlib import media
from avlib.errors import MediaError, ParameterError
from avlib.media import steady


def shown(video, order=None):
    return numbers(torch.stack([picture.permute(2, 0, 1) for picture in video.pictures(order)]))


def at_ticks(times, end, rate=25):
    """By plain counting: the last picture that begins by the time of each tick."""
    return [max(i for i, time in enumerate(times) if time <= k / rate + 1e-3) for k in range(round(end * rate))]


@pytest.mark.parametrize("rate", [12.0, 24000 / 1001, 25.0, 30.0])
def test_constant_rates(tmp_path, rate):
    media.write_video(tmp_path / "clip.mp4", map(numbered, range(40)), rate)
    video = media.SteadyVideo(tmp_path / "clip.mp4")
    expected = at_ticks([k / rate for k in range(40)], 40 / rate)
    assert shown(video) == video.sources == expected
    assert len(video) == round(40 / rate * 25) and len(video.times) == 40
    assert video.size == (64, 64)


def test_a_variable_rate_and_a_rotation(tmp_path):
    ticks = [0, 40, 100, 400, 900, 1300]
    path = write_pictures(tmp_path / "phone.mp4", ticks, rotation=90)
    video = media.SteadyVideo(path)
    assert video.sources[:33] == at_ticks([tick / 1000 for tick in ticks], 1.32)
    assert video.size == (64, 32) and next(video.pictures([0])).shape == (64, 32, 3)
    assert set(video.sources[33:]) <= {5}


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")])
def test_backwards_and_to_and_fro(tmp_path, monkeypatch, name, codec):
    path = write_container(tmp_path / name, codec, "libopus" if name.endswith("webm") else "aac")
    monkeypatch.setattr(steady, "_BLOCK", 3 * 64 * 64 * 7)  # seven pictures at a time
    video = media.SteadyVideo(path)
    order = [*range(120, 150), *range(148, -1, -1), *range(1, 60), 149, 0, 149]
    assert shown(video) == list(range(150))
    assert shown(video, order) == order


def test_a_seek_that_goes_astray(tmp_path, monkeypatch):
    path = write_container(tmp_path / "a.mp4", "libx264", "aac")
    video = media.SteadyVideo(path)
    monkeypatch.setattr(steady, "PREROLL", -3)  # beyond the wanted picture
    assert shown(video, [60, 59, 58, 90]) == [60, 59, 58, 90]


def test_one_picture_and_none(tmp_path):
    media.write_video(tmp_path / "one.mp4", [numbered(3)], 25.0)
    video = media.SteadyVideo(tmp_path / "one.mp4")
    assert video.sources == [0] and shown(video, [0, 0, 0]) == [3, 3, 3]
    media.write_wav(tmp_path / "a.wav", torch.zeros(1600), 16000)
    with pytest.raises(MediaError, match="no video stream"):
        media.SteadyVideo(tmp_path / "a.wav")
    with pytest.raises(ParameterError, match="frame_rate: 0"):
        media.SteadyVideo(tmp_path / "one.mp4", 0.0)


def test_a_truncated_video_is_refused_before_it_is_used(tmp_path):
    frames = [np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8) for k in range(60)]
    media.write_video(tmp_path / "clip.mp4", frames, 25.0)
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError):
        media.SteadyVideo(tmp_path / "cut.mp4")
