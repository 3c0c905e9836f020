"""Videos with new mouths: the right picture at every moment, sound as long as pictures, and said to be synthetic."""

import av
import pytest
import torch
from making import numbered, numbers, tone, write_pictures

from avlib import media
from avlib.datasets.unit2av import Dubbed, dub
from avlib.errors import MediaError, ParameterError
from avlib.models.face_renderer import Config, FaceRenderer, render

NARROW = Config(40, (4, 4, 4, 4, 4, 8), (4, 4, 4, 4, 4, 4), 8, 4)
BOX = (8.0, 8.0, 40.0, 40.0)


@pytest.fixture(scope="module")
def renderer():
    torch.manual_seed(0)
    return FaceRenderer(NARROW).eval()


def sound(units):
    return tone(units / 50, 16000)[0]


def ends(path):
    info = media.probe(path)
    return info.video.start + info.video.seconds, info.audio.start + info.audio.seconds


@pytest.mark.parametrize("rate", [12.0, 24000 / 1001, 25.0, 30.0])
@pytest.mark.parametrize("units", [51, 98])
def test_sound_and_picture_end_together(tmp_path, renderer, rate, units):
    media.write_video(tmp_path / "in.mp4", (numbered(k) for k in range(round(rate))), rate)  # a second
    count = round(rate)
    made = dub(renderer, tmp_path / "in.mp4", [None] * count, torch.zeros(units).long(), tmp_path / "out.mp4",
               sound(units), progress=False)  # fmt: skip
    frames = media.read_frames(tmp_path / "out.mp4", lambda count, rate: range(count))
    forth = [k for tick in range(25) for k in [max(i for i in range(count) if i / rate <= tick / 25 + 1e-3)]]
    expected = (forth + forth[-2::-1] + forth[1:])[: units // 2]
    assert numbers(frames) == expected  # each moment shows what the video showed then
    assert media.probe(tmp_path / "out.mp4").video.frame_rate == 25
    picture_end, sound_end = ends(tmp_path / "out.mp4")
    assert abs(picture_end - sound_end) <= 0.04 and picture_end == pytest.approx(units // 2 / 25)
    assert abs(len(media.read_audio(tmp_path / "out.mp4")) / 16000 - units // 2 / 25) <= 0.04
    assert isinstance(made, Dubbed) and (made.frames, made.new_mouths) == (units // 2, 0)
    assert any("to and fro" in note for note in made.notes) == (units > 51)


def test_a_variable_rate_and_boxes_of_its_own_pictures(tmp_path, renderer):
    path = write_pictures(tmp_path / "phone.mp4", [0, 40, 100, 400, 900, 1300], codec="libx264")
    boxes = [None, None, None, (8, 4, 40, 30), None, None]  # picture 3 is on the screen from 0.4 to 0.9 s
    made = dub(renderer, path, boxes, torch.zeros(64).long(), tmp_path / "out.mp4", sound(64), progress=False)
    frames = media.read_frames(tmp_path / "out.mp4", range(32))
    shown = [max(i for i, t in enumerate([0, 0.04, 0.1, 0.4, 0.9, 1.3]) if t <= k / 25 + 1e-3) for k in range(32)]
    assert numbers(frames[[k for k in range(32) if shown[k] != 3]]) == [i for i in shown if i != 3]
    assert made.new_mouths == shown.count(3) == 13
    assert any("19 of 32 pictures have no face" in note for note in made.notes)


def test_pictures_are_those_of_render(tmp_path, renderer):
    """An odd size; the file differs from the tensor by its codec alone."""
    count, units = 21, torch.arange(40)
    pictures = torch.stack([torch.from_numpy(numbered(k, 51, 67)) for k in range(count)])
    media.write_video(tmp_path / "in.mp4", iter(pictures.numpy()), 25.0)
    boxes = [BOX if k % 3 else None for k in range(count)]
    how = {"reference": "still", "feather": 0.1}
    dub(renderer, tmp_path / "in.mp4", boxes, units, tmp_path / "out.mp4", progress=False, **how)
    source = torch.stack(list(media.SteadyVideo(tmp_path / "in.mp4").pictures()))
    expected = render(renderer, source, boxes, units, **how)
    found = media.read_frames(tmp_path / "out.mp4", range(20)).permute(0, 2, 3, 1)
    assert found.shape == (20, 52, 68, 3)  # made even, as the codec wants
    assert (found.int() - expected.int()).abs().float().mean() < 2.5
    assert media.probe(tmp_path / "out.mp4").audio is None


def test_one_picture(tmp_path, renderer):
    media.write_video(tmp_path / "one.mp4", [numbered(5)], 25.0)
    made = dub(
        renderer, tmp_path / "one.mp4", [None], torch.zeros(9).long(), tmp_path / "out.mp4", sound(9), progress=False
    )
    assert made.frames == 4 and numbers(media.read_frames(tmp_path / "out.mp4", range(4))) == [5] * 4


def test_it_says_that_it_is_synthetic(tmp_path, renderer):
    media.write_video(tmp_path / "in.mp4", map(numbered, range(4)), 25.0)
    dub(
        renderer, tmp_path / "in.mp4", [None] * 4, torch.zeros(8).long(), tmp_path / "out.mp4", sound(8), progress=False
    )
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "synthetic" in container.metadata["title"] and "synthetic" in container.metadata["comment"]


def test_what_is_refused_leaves_no_file(tmp_path, renderer):
    media.write_video(tmp_path / "in.mp4", map(numbered, range(10)), 25.0)
    given = {"boxes": [BOX] * 10, "units": torch.zeros(20).long(), "waveform": sound(20)}
    for change, error, words in [
        ({"boxes": [BOX] * 9}, ParameterError, "boxes: 9 boxes; expected 10, one for each picture of .*in.mp4"),
        ({"boxes": [None] * 10, "missing": "fill"}, ParameterError, "boxes: no face in 10 pictures of 64 x 64"),
        ({"waveform": sound(26)}, ParameterError, "waveform: 0.520 s at 16000 Hz; expected 0.400 s"),
        ({"units": torch.zeros(1).long()}, ParameterError, "units: 1; expected at least 2"),
        ({"units": torch.full((20,), 40)}, ParameterError, "units: 40 at position 0"),
        ({"video": tmp_path / "none.mp4"}, MediaError, "no such file"),
    ]:
        wanted = {"video": tmp_path / "in.mp4", **given, **change}
        with pytest.raises(error, match=words):
            dub(renderer, path=tmp_path / "out.mp4", progress=False, **wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
