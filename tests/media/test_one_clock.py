"""Sound and pictures on one clock: a beep and a flash of one moment come back at one moment."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from making import SIZE, tone, write_wav

from avlib import media
from avlib.datasets import audiotoken, cav_mae
from avlib.datasets.cav_mae.items import Reading
from avlib.errors import MediaError

RATE = 48000
FLASHES = (1.0, 1.6)  # seconds at which a beep and a flash of 40 ms begin


def beep_and_flash(path, video, audio, late=0.0, jump=0.0, pace=1.0):
    """The stamps of the sound are `late`, after 1.3 s once more by `jump`, and `pace` times as far apart."""
    time = np.arange(3 * RATE) / RATE
    on = sum((start <= time) & (time < start + 0.04) for start in FLASHES)
    samples = np.tile(0.5 * on * np.sin(2 * np.pi * 1000 * time), (2, 1)).astype(np.float32)
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream(video, rate=25), container.add_stream(audio, rate=RATE, layout="stereo")
        pictures.width = pictures.height = SIZE
        pictures.pix_fmt, pictures.bit_rate, sound.bit_rate = "yuv420p", 2_000_000, 128_000
        resampler = av.AudioResampler(sound.format, sound.layout, RATE, sound.frame_size or 1024)
        packets = []

        def keep(made):
            for packet in made:
                if packet.size:  # the last one of some encoders is empty
                    seconds = float(packet.pts * packet.time_base)
                    shift = late + jump * (seconds > 1.3) + (pace - 1) * seconds if packet.stream is sound else 0.0
                    packet.pts += round(shift / packet.time_base)
                    packet.dts += round(shift / packet.time_base)
                    packets.append(packet)

        for number in range(75):
            picture = np.full((SIZE, SIZE, 3), 255 * on[number * RATE // 25], np.uint8)
            keep(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            piece = np.ascontiguousarray(samples[:, number * RATE // 25 : (number + 1) * RATE // 25])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, number * RATE // 25, Fraction(1, RATE)
            keep(packet for out in resampler.resample(frame) for packet in sound.encode(out))
        keep(packet for out in [*resampler.resample(None), None] for packet in sound.encode(out))
        keep(pictures.encode(None))
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def moments(clip: media.Clip) -> tuple[list[float], list[float]]:
    """When beeps and flashes begin, in seconds."""
    loud = (clip.waveform.abs() > 0.2).nonzero()[:, 0] / clip.sample_rate
    beeps = loud[torch.cat([torch.tensor([True]), loud.diff() > 0.1])]
    white = clip.frames.float().mean((1, 2, 3)) > 128
    begins = [index for index in range(1, len(white)) if white[index] and not white[index - 1]]
    return beeps.tolist(), [clip.frame_times[index] for index in begins]


def read(path, **options):
    return media.read_clip(path, lambda count, rate: range(count), sample_rate=RATE, **options)


CONTAINERS = [
    ("a.mp4", "libx264", "aac"),
    ("a.mov", "libx264", "pcm_s16le"),
    ("a.mkv", "libx264", "aac"),
    ("a.webm", "libvpx", "libopus"),
    ("a.flv", "flv", "libmp3lame"),
    ("a.ts", "mpeg2video", "mp2"),
    ("a.mpg", "mpeg1video", "mp2"),
    ("a.wmv", "wmv2", "wmav2"),
]


@pytest.mark.parametrize("late", [0.0, 0.5])
@pytest.mark.parametrize(("name", "video", "audio"), CONTAINERS)
def test_a_late_sound_stays_late(tmp_path, name, video, audio, late):
    clip = read(beep_and_flash(tmp_path / name, video, audio, late=late))
    beeps, flashes = moments(clip)
    # an encoder's warm-up before zero may move the file's beginning, and sound and pictures alike
    begin = flashes[0] - FLASHES[0]
    assert 0 <= begin < 0.05 and flashes == pytest.approx([time + begin for time in FLASHES], abs=1e-3)
    assert beeps == pytest.approx([time + late + begin for time in FLASHES], abs=8e-3)  # opus: 6.5 ms of warm-up
    assert clip.video_start == pytest.approx(begin, abs=1e-3) and not clip.audio_gaps
    assert late - 0.03 <= clip.audio_start <= late + 0.09  # the decoder of wmv drops its first 43 ms
    silent = round(clip.audio_start * RATE)
    assert not clip.waveform[:silent].any()


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [("a.mp4", "libx264", "aac"), ("a.mkv", "libx264", "aac"), ("a.ts", "mpeg2video", "mp2")],
)
def test_published_pipelines_begin_with_the_first_sample(tmp_path, name, video, audio):
    path = beep_and_flash(tmp_path / name, video, audio, late=0.5, jump=1.0)
    clip = read(path, align=False)
    assert torch.equal(clip.waveform, media.read_audio(path, RATE))
    beeps, flashes = moments(clip)
    assert flashes == pytest.approx(FLASHES, abs=1e-3)
    assert beeps == pytest.approx(FLASHES, abs=0.025)  # with what the encoder put before
    assert clip.audio_start == pytest.approx(0.5, abs=0.025)  # told all the same
    ((begin, length),) = clip.audio_gaps
    assert begin == pytest.approx(1.8, abs=0.05) and length == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [("a.mp4", "libx264", "aac"), ("a.mkv", "libx264", "pcm_s16le"), ("a.flv", "flv", "libmp3lame")],
)
def test_a_gap_in_the_sound_is_silence(tmp_path, name, video, audio):
    path = beep_and_flash(tmp_path / name, video, audio, jump=1.0)
    clip = read(path)
    beeps, flashes = moments(clip)
    assert [beep - flash for beep, flash in zip(beeps, flashes, strict=True)] == pytest.approx([0.0, 1.0], abs=3e-3)
    ((begin, length),) = clip.audio_gaps
    assert begin == pytest.approx(1.3, abs=0.05) and length == pytest.approx(1.0, abs=2e-3)
    inner = slice(round((begin + 0.01) * RATE), round((begin + 0.99) * RATE))
    assert not clip.waveform[inner].any() and len(clip.waveform) == pytest.approx(4 * RATE, abs=0.06 * RATE)
    assert len(media.read_audio(path, RATE)) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    part = media.read_audio(path, RATE, start=2.45, seconds=0.3, align=True)
    assert torch.equal(part, media.read_audio(path, RATE, align=True)[round(2.45 * RATE) :][: round(0.3 * RATE)])
    assert len(read(path, seconds=2.0).waveform) == 2 * RATE


@pytest.mark.parametrize("pace", [0.9, 1.1])
def test_a_sound_of_another_pace_keeps_up(tmp_path, pace):
    clip = read(beep_and_flash(tmp_path / "a.mkv", "libx264", "pcm_s16le", pace=pace))
    beeps, flashes = moments(clip)
    assert flashes == pytest.approx(FLASHES)
    assert [beeps[0], beeps[-1]] == pytest.approx([pace * time for time in FLASHES], abs=0.06)
    assert len(clip.waveform) == pytest.approx(3 * pace * RATE, abs=0.06 * RATE)


def test_absurd_time_stamps_are_refused(tmp_path):
    path = beep_and_flash(tmp_path / "a.mkv", "libx264", "pcm_s16le", jump=5000.0)
    with pytest.raises(MediaError, match=r"its sound pauses for 5000 s.*at most 600 s\. .*align=False"):
        read(path)
    assert len(read(path, align=False).waveform) == pytest.approx(3 * RATE, abs=RATE / 50)
    assert len(read(path, seconds=2.5).waveform) == 2.5 * RATE


def test_sound_alone_is_on_its_own_clock(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    assert torch.equal(media.read_audio(path, align=True), media.read_audio(path))


def test_data_sets_are_on_one_clock_or_published(tmp_path):
    path = beep_and_flash(tmp_path / "a.mp4", "libx264", "aac", late=0.5)

    def first_beep(waveform):
        return int((waveform.abs() > 0.2).nonzero()[0]) / 16000

    item = cav_mae.ClipItem((), path)
    for align, beep in ((True, 1.5), (False, 1.0)):
        waveform, _ = item.read([5], Reading(align=align))
        alone, _ = item.read([], Reading(align=align))
        assert first_beep(waveform) == pytest.approx(beep, abs=0.03) and torch.equal(waveform, alone)
        options = {"seconds": 0.5, "image_size": (32, 32), "window": beep - 0.1, "frame": 1.02, "align": align}
        sample = audiotoken.AudioTokenDataset([audiotoken.Clip("a", path)], **options)[0]
        assert first_beep(sample.waveform) == pytest.approx(0.1, abs=0.03) and sample.image.mean() > 0.5
        (clip,) = audiotoken.extract_audio([audiotoken.Clip("a", path)], tmp_path / str(align), align=align).clips
        assert first_beep(media.read_audio(clip.wav)) == pytest.approx(beep, abs=0.03)
