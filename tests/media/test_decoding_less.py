"""Chosen pictures are those of decoding everything, bit for bit, though only what they need is decoded."""

import av
import numpy as np
import pytest

from avlib import media
from avlib.media import container as container_module
from avlib.media.video import _Plan

COUNT = 60
# fmt: off
KINDS = {
    "one group": ("libx264", "mp4", {}),
    "groups": ("libx264", "mp4", {"g": "12"}),
    "open groups": ("libx264", "mp4", {"g": "12", "x264-params": "open-gop=1"}),
    "gradual refresh": ("libx264", "mp4", {"g": "12", "x264-params": "intra-refresh=1"}),
    "start codes": ("libx264", "ts", {"g": "12"}),
    "milliseconds": ("libx264", "mkv", {"g": "12"}),
    "HEVC": ("libx265", "mp4", {"g": "12", "preset": "ultrafast", "x265-params": "log-level=none:pools=1"}),
    "MPEG-4": ("mpeg4", "mp4", {"g": "12"}),
}
# fmt: on


@pytest.fixture(scope="module", params=KINDS)
def video(request, tmp_path_factory):
    """A file with moving noise, and all its pictures."""
    codec, suffix, options = KINDS[request.param]
    path = tmp_path_factory.mktemp("videos") / f"a.{suffix}"
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec} here")
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, (number, 2 * number), (0, 1)), format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open(str(path)) as file:
        whole = [frame.to_ndarray(format="rgb24", threads=1) for frame in file.decode(video=0)]
    assert len(whole) == COUNT
    return request.param, path, whole


def test_the_same_pictures(video):
    _, path, whole = video
    draws = np.random.default_rng(1)
    for indices in ([0], [COUNT - 1], [11], [12], [13, 12], list(range(COUNT)), *draws.integers(0, COUNT, (8, 3))):
        wanted = [int(index) for index in indices]
        found = media.read_frames(path, lambda count, rate, wanted=wanted: wanted)
        for picture, index in zip(found.permute(0, 2, 3, 1).numpy(), wanted, strict=True):
            assert np.array_equal(picture, whole[index]), (indices, index)


def test_less_is_decoded(video):
    """Of groups one; else all up to the picture: key frames of open groups and gradual refreshes are no beginning."""
    name, path, _ = video
    with container_module.opened(path) as file:
        stream = file.streams.video[0]
        packets = container_module.scan(file, [stream])[stream.index].packets
        plan = _Plan.of(stream, [40], packets)
    assert len(packets) == COUNT
    if name == "MPEG-4":
        assert plan is None
    elif name in ("one group", "open groups", "gradual refresh"):
        assert len(plan.needed) > 36
    else:
        assert 1 <= len(plan.needed) <= 12 + 8  # a group, with pictures around its end


def test_unknown_times_are_decoded_whole(video):
    _, path, _ = video
    with container_module.opened(path) as file:
        stream = file.streams.video[0]
        for packets in ([], [(None, True), (1, False)], [(1, True), (1, False)]):
            assert _Plan.of(stream, [0], packets) is None
