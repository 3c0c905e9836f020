"""Reading: what comes out is what was put in, at the right place, whatever the container says."""

import numpy as np
import pytest
import torch
from making import SIZE, numbered, numbers, tone, write_clip, write_container, write_pictures, write_wav

from avlib import media
from avlib.errors import MediaError, ParameterError
from avlib.media.container import scan


def every(count, rate):
    return range(count)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def test_probe_says_what_is_in_the_file(clip):
    info = media.probe(clip)
    assert (info.audio.codec, info.audio.sample_rate, info.audio.channels) == ("aac", 44100, 2)
    assert (info.video.codec, info.video.width, info.video.height) == ("h264", SIZE, SIZE)
    assert (info.video.frames, info.video.header_frames, info.video.frame_rate) == (50, 50, 25.0)
    assert info.video.constant_rate and info.video.rotation == 0
    assert info.audio.seconds == pytest.approx(2.0, abs=0.05) and info.video.seconds == pytest.approx(2.0)


def test_frames_by_index_come_in_the_order_asked_for(clip):
    wanted = [49, 0, 7, 7, 30]
    frames = media.read_frames(clip, wanted)
    assert frames.shape == (5, 3, SIZE, SIZE) and frames.dtype == torch.uint8
    assert numbers(frames) == wanted


def test_frames_by_time_are_those_on_the_screen(clip):
    assert numbers(media.read_frames(clip, times=[0.0, 0.039, 0.041, 1.0, 1.999])) == [0, 0, 1, 25, 49]


def test_frames_by_time_after_a_seek_equal_those_without(tmp_path):
    path = write_clip(tmp_path / "long.mp4", frames=250)
    times = [9.5, 8.2]  # the key frame before 8.2 s is not the first of the file
    assert torch.equal(media.read_frames(path, times=times), media.read_frames(path, times=[0.0, *times])[1:])


def test_iterating_gives_all_frames_with_their_times(clip):
    times, frames = zip(*media.iterate_frames(clip), strict=True)
    assert numbers(torch.stack(frames)) == list(range(50))
    assert times == pytest.approx([k / 25 for k in range(50)])


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 192000])
def test_resampling_keeps_the_tone(tmp_path, rate):
    path = write_wav(tmp_path / "tone.wav", tone(1.0, rate, 440.0), rate)
    waveform = media.read_audio(path)
    expected = tone(1.0, 16000, 440.0)[0]
    assert waveform.dtype == torch.float32 and abs(len(waveform) - 16000) <= 16
    inner = slice(800, 15000)  # the resampling filter needs samples on both sides
    assert (waveform[inner] - expected[inner]).abs().max() < 1e-3


def test_no_resampling_changes_nothing(tmp_path):
    samples = torch.rand(1, 5000) - 0.5
    path = write_wav(tmp_path / "noise.wav", samples, 11025)
    assert torch.equal(media.read_audio(path, None), samples[0])


def test_channels_are_averaged_or_chosen(tmp_path):
    samples = torch.rand(6, 8000) - 0.5  # 5.1
    path = write_wav(tmp_path / "surround.wav", samples, 48000)
    assert media.probe(path).audio.channels == 6
    torch.testing.assert_close(media.read_audio(path, None), samples.mean(dim=0))
    for channel in range(6):
        assert torch.equal(media.read_audio(path, None, channel=channel), samples[channel])
    with pytest.raises(ParameterError, match="channel: 6; expected 0 to 5"):
        media.read_audio(path, channel=6)


def test_a_part_of_the_sound_is_the_part_of_the_whole(tmp_path):
    path = write_wav(tmp_path / "noise.wav", torch.rand(2, 44100 * 6) - 0.5, 44100)
    whole = media.read_audio(path)
    for start, seconds in [(0.0, 1.5), (0.4, 2.0), (3.3, 2.0), (5.5, 9.0)]:
        part = media.read_audio(path, start=start, seconds=seconds)
        first = round(start * 16000)
        torch.testing.assert_close(part, whole[first : first + round(seconds * 16000)], atol=1e-6, rtol=0)


def test_uneven_intervals(tmp_path):
    path = write_pictures(tmp_path / "phone.mp4", [0, 40, 100, 400, 900, 1300])
    info = media.probe(path).video
    assert not info.constant_rate and info.frames == 6
    assert numbers(media.read_frames(path, times=[0.0, 0.05, 0.1, 0.5, 0.95, 1.29, 1.3])) == [0, 1, 2, 3, 4, 4, 5]
    assert numbers(media.read_frames(path, [5, 2])) == [5, 2]


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_picture_that_lies_on_its_side_is_turned_upright(tmp_path, rotation):
    lying = write_pictures(tmp_path / "lying.mp4", [0, 40])
    turned = write_pictures(tmp_path / "turned.mp4", [0, 40], rotation=rotation)
    before, after = media.read_frames(lying, [1]), media.read_frames(turned, [1])
    assert torch.equal(after, torch.rot90(before, rotation // 90, (2, 3)))
    assert media.probe(turned).video.height == after.shape[2]
    assert media.probe(turned).video.width == after.shape[3]


def test_hidden_frames_are_not_counted(tmp_path):
    # Ten pictures before time zero: an edit list hides them, the header counts them, as in many phone recordings.
    path = write_pictures(tmp_path / "edited.mp4", [40 * k - 400 for k in range(40)])
    info = media.probe(path).video
    assert (info.header_frames, info.frames) == (40, 30)
    assert numbers(media.read_frames(path, [0, 29])) == [10, 39]
    with pytest.raises(MediaError, match="only 30 frames"):
        media.read_frames(path, [30])


def test_container_longer_than_its_streams(tmp_path):
    path = tmp_path / "long.mp4"
    media.write_video(path, map(numbered, range(25)), 25.0, tone(3.0, 16000), 16000)
    info = media.probe(path)
    assert info.seconds == pytest.approx(3.0, abs=0.1) and info.video.seconds == pytest.approx(1.0)
    clip = media.read_clip(path, every)
    assert clip.frame_count == 25 and len(clip.waveform) == pytest.approx(48000, abs=1024)


def test_clip_reads_both_at_once(clip):
    read = media.read_clip(clip, lambda count, rate: [0, count - 1, 3])
    assert (read.frame_count, read.frame_rate, read.sample_rate) == (50, 25.0, 16000)
    assert numbers(read.frames) == read.frame_indices == [0, 49, 3]
    assert read.frame_times == pytest.approx([0.0, 1.96, 0.12])
    assert torch.equal(read.waveform, media.read_audio(clip))


def test_clip_uses_only_the_first_seconds(clip):
    read = media.read_clip(clip, every, seconds=1.0)
    assert numbers(read.frames) == list(range(25)) and len(read.waveform) == 16000


def test_clip_chooses_again_when_fewer_frames_come_than_packets(clip, monkeypatch):
    def counts_too_many(*args):
        spans = scan(*args)
        spans[0].times.extend([2.0, 2.04, 2.08])
        return spans

    monkeypatch.setattr("avlib.media.video.scan", counts_too_many)
    read = media.read_clip(clip, lambda count, rate: [count - 1])
    assert read.frame_indices == numbers(read.frames) == [49]


def test_clip_without_sound(tmp_path):
    path = tmp_path / "mute.mp4"
    media.write_video(path, map(numbered, range(25)), 25.0)
    with pytest.raises(MediaError, match=r'no audio stream \(streams: video h264\).*audio="silence"'):
        media.read_clip(path, every)
    silent = media.read_clip(path, every, audio="silence")
    assert silent.waveform.shape == (16000,) and not silent.waveform.any()
    with pytest.raises(ParameterError, match="sample_rate: 0; expected 1 or more"):
        media.read_clip(path, every, sample_rate=0, audio="silence")


def test_the_cover_picture_of_a_song_is_no_video(tmp_path):
    path = write_wav(tmp_path / "song.wav", tone(0.5, 16000), 16000)
    with pytest.raises(MediaError, match=r"no video stream \(streams: audio pcm_f32le\)"):
        media.read_frames(path, [0])
    assert media.probe(path).video is None


def test_names_that_mean_something_to_ffmpeg(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ["-i.mp4", "a b.mp4", "종소리.mp4", "100%d.mp4", "http:x.mp4", "#1.mp4"]:
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert media.probe(name).video.frames == 50
        assert len(media.read_audio(name)) == len(media.read_audio(clip))


def test_reading_the_end_of_an_hour_decodes_only_the_end(tmp_path):
    ramp = torch.linspace(-0.5, 0.5, 8000 * 3600)[None]
    path = write_wav(tmp_path / "hour.wav", ramp, 8000, "PCM_16")
    end = media.read_audio(path, None, start=3599.0)
    torch.testing.assert_close(end, ramp[0, -8000:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither or both"),
        ({"indices": [1], "times": [1.0]}, "neither or both"),
        ({"indices": []}, "one or more numbers"),
        ({"indices": [-1]}, "one or more numbers"),
        ({"times": [float("nan")]}, "one or more numbers"),
    ],
)
def test_frames_that_cannot_be_meant(clip, arguments, message):
    with pytest.raises(ParameterError, match=message):
        media.read_frames(clip, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"seconds": 0.0}, {"seconds": -1.0}, {"start": -1.0}, {"start": float("nan")}, {"sample_rate": 0}]
)
def test_sound_that_cannot_be_meant(clip, arguments):
    with pytest.raises(ParameterError, match=next(iter(arguments))):
        media.read_audio(clip, **arguments)


@pytest.mark.parametrize("arguments", [{"seconds": 0.0}, {"audio": "zeros"}, {"channel": 2}, {"sample_rate": -1}])
def test_clip_that_cannot_be_meant(clip, arguments):
    with pytest.raises(ParameterError, match=next(iter(arguments))):
        media.read_clip(clip, every, **arguments)


def test_times_beyond_the_end(clip):
    with pytest.raises(MediaError, match=r"pictures end at 2\.00 s; expected a picture at 2\.5 s"):
        media.read_frames(clip, times=[0.5, 2.5])
    with pytest.raises(MediaError, match=r"no sound after 7\.0 s"):
        media.read_audio(clip, start=7.0)


def test_written_metadata_can_be_read_by_others(tmp_path):
    import av
    import soundfile

    video = write_clip(tmp_path / "clip.mp4", frames=5, metadata={"comment": "synthetic", "title": "종"})
    with av.open(str(video)) as container:
        assert container.metadata["comment"] == "synthetic" and container.metadata["title"] == "종"
    media.write_wav(tmp_path / "a.wav", tone(0.1, 16000)[0], 16000, {"comment": "synthetic"})
    with soundfile.SoundFile(tmp_path / "a.wav") as file:
        assert file.comment == "synthetic" and file.subtype == "PCM_16"


def test_odd_sizes_are_written_whole(tmp_path):
    path = tmp_path / "odd.mp4"
    picture = np.full((63, 97, 3), 200, np.uint8)
    media.write_video(path, [picture] * 3, 30.0)
    frames = media.read_frames(path, [0, 2])
    assert frames.shape == (2, 3, 64, 98) and (frames.float() - 200).abs().max() < 4


def test_writing_refuses_what_is_no_picture(tmp_path):
    path = tmp_path / "x.mp4"
    with pytest.raises(ParameterError, match="frames: none"):
        media.write_video(path, [], 25.0)
    with pytest.raises(ParameterError, match="float64 of shape"):
        media.write_video(path, [np.zeros((8, 8, 3))], 25.0)
    with pytest.raises(ParameterError, match=r"frames\[1\]"):
        media.write_video(path, [numbered(0), numbered(0, 32)], 25.0)
    with pytest.raises(OSError, match="No such file"):
        media.write_video(tmp_path / "none" / "x.mp4", [numbered(0)], 25.0)


@pytest.mark.parametrize("frames", [1, 2, 5, 50])
def test_clip_begins_as_its_sound_alone_does(tmp_path, frames):
    # Encoders put a warm-up before time zero; whoever skips it gets another beginning.
    path = tmp_path / "clip.mp4"
    media.write_video(path, map(numbered, range(frames)), 25.0, tone(frames / 25 + 0.06, 8000), 8000)
    assert torch.equal(media.read_clip(path, every).waveform, media.read_audio(path))


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [
        ("a.mkv", "libx264", "aac"),
        ("a.mov", "libx264", "pcm_s24le"),
        ("a.avi", "mpeg4", "libmp3lame"),
        ("a.ts", "mpeg2video", "mp2"),
        ("a.mpg", "mpeg1video", "mp2"),
        ("a.webm", "libvpx", "libopus"),
        ("a.flv", "flv", "aac"),
        ("a.wmv", "wmv2", "wmav2"),
    ],
)
def test_other_containers(tmp_path, name, video, audio):
    path = write_container(tmp_path / name, video, audio)
    info = media.probe(path)
    assert info.video.frames == 150 and info.video.frame_rate == pytest.approx(25, rel=1e-3)
    assert numbers(media.read_frames(path, [0, 77, 149])) == [0, 77, 149]
    times = [time for time, _ in media.iterate_frames(path)]
    assert numbers(media.read_frames(path, times=[times[3] + 0.01, times[120] + 0.03])) == [3, 120]
    whole = media.read_audio(path)
    assert len(whole) == pytest.approx(16000 * 6, abs=3000)
    assert torch.equal(media.read_audio(path, start=3.25, seconds=1.0), whole[52000:68000])
    clip = media.read_clip(path, every, seconds=2.0)
    assert len(clip.waveform) == 32000 and numbers(clip.frames) == list(range(len(clip.frames)))
    assert len(clip.frames) in (49, 50)  # some containers begin with a pause of a fraction of a frame


@pytest.mark.parametrize(("name", "video", "audio"), [("a.mp4", "libx264", "aac"), ("a.ts", "mpeg2video", "mp2")])
def test_far_into_a_file_it_is_sought(tmp_path, name, video, audio):
    path = write_container(tmp_path / name, video, audio, seconds=70)
    times = [time for time, _ in media.iterate_frames(path)]
    near, far = 1000, 1700  # at 40 s and 68 s; the pictures count modulo 256
    assert numbers(media.read_frames(path, times=[times[near] + 0.01])) == [near % 256]
    assert numbers(media.read_frames(path, times=[times[far] + 0.01, times[far + 9] + 0.01])) == [164, 173]
    whole, part = media.read_audio(path), media.read_audio(path, start=65.5, seconds=1.0)
    first = round(65.5 * 16000)
    shifts = range(-16, 17)  # a millisecond
    errors = [(part - whole[first + shift : first + shift + 16000]).abs().max() for shift in shifts]
    assert min(errors) < 0.02
