"""Clips to a window of sound and one picture: what the tables say, where windows lie, and what is refused."""

import csv
import gc
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import recording
from making import numbered, numbers, tone, write_clip, write_container, write_pictures, write_wav
from PIL import Image
from torch.utils.data import DataLoader

from avlib import media
from avlib.clips import KINDS, Scene
from avlib.datasets import audiotoken
from avlib.datasets.audiotoken import AudioTokenDataset, Clip, read_clips, scene_clips, select
from avlib.datasets.audiotoken import table as tables
from avlib.errors import CacheError, DatasetError, MediaError, ParameterError, TooShortError
from avlib.features import beats_fbank

# torch warns of more workers than cores, and there may be one only
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

RATE = 16000
KEEP, DROP = "-_gaZzFfzDQ", "3YOH4c9HXpo"  # ids of YouTube, which may begin with anything
SMALL = {"image_size": (32, 64)}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write_csv(path: Path, *rows: tuple) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def published(folder: Path) -> tuple[Path, Path]:
    """The two clips that the repository brings along, both of the part to train on, and its kind of table."""
    names = (f"{KEEP}_517000_527000", f"{DROP}_290000_300000")
    touch(folder, *(f"video/{name}.mp4" for name in names), *(f"audio/{name}.wav" for name in names))
    rows = (DROP, "train", "dog barking, far"), (KEEP, "train", "bell"), ("not_here_00", "test", "rain")
    return folder, write_csv(folder / "vggsound.csv", ("ytid", "set", "class"), *rows)


def ramp(path: Path, seconds: float, rate: int = RATE, channels: int = 1) -> Path:
    """A wav whose sample k is k / 2^20 at its own rate: the value says where it comes from."""
    samples = torch.arange(round(seconds * rate)).float() / 2**20
    return write_wav(path, samples.expand(channels, -1), rate)


def place(waveform: torch.Tensor) -> int:
    """Which sample of a `ramp` comes first."""
    return round(float(waveform[0]) * 2**20)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """10 s at 10 Hz, whose pictures carry their numbers, with 44.1 kHz stereo."""
    return write_clip(tmp_path_factory.mktemp("video") / "clip.mp4", frames=100, rate=10.0)


def shown(image: torch.Tensor) -> int:
    """Which picture of `write_clip` an image is."""
    return numbers(((image + 1) * 127.5).round()[None])[0]


# The table


def test_the_published_layout(tmp_path):
    folder, table = published(tmp_path)
    clips = read_clips(str(folder) + "/", csv=table)
    assert [(clip.ytid, clip.label, clip.split) for clip in clips] == [
        (KEEP, "bell", "train"),
        (DROP, "dog barking, far", "train"),
    ]
    assert clips[0].path == folder / "video" / f"{KEEP}_517000_527000.mp4"
    assert clips[0].wav == folder / "audio" / f"{KEEP}_517000_527000.wav"
    assert read_clips(folder, csv=table) == clips == select(clips) == select(clips, "train")
    without = read_clips(folder)
    assert [(clip.ytid, clip.label, clip.split) for clip in without] == [(KEEP, "", ""), (DROP, "", "")]


def test_an_empty_part_says_how_many_there_are(tmp_path):
    clips = read_clips(*published(tmp_path))
    with pytest.raises(DatasetError, match=r"2 clips found, 2 labelled, 0 in set test; .* set: train: 2\.") as caught:
        select(clips, "test")
    assert "excluded" not in str(caught.value)
    filters = touch(tmp_path, "all.txt") / "all.txt"
    filters.write_text(f"{KEEP}\n{DROP}\n")
    with pytest.raises(DatasetError, match="2 clips found, 2 labelled, 2 in set train, 2 excluded"):
        select(clips, "train", exclude=[filters])
    with pytest.raises(DatasetError, match="0 clips found, 0 labelled, 0 in set any"):
        select([])


def test_either_of_both_files_is_enough(tmp_path):
    touch(tmp_path, "video/both.mp4", "audio/both.wav", "video/seen.MKV", "audio/heard.flac", "video/notes.txt")
    found = {clip.name: (clip.path is not None, clip.wav is not None) for clip in read_clips(tmp_path)}
    assert found == {"both": (True, True), "seen": (True, False), "heard": (False, True)}
    touch(tmp_path / "alone", "audio/x.wav")
    (clip,) = read_clips(tmp_path / "alone")
    assert clip.label == "" and clip.path is None


def test_any_folder_is_labelled_by_its_sub_folders(tmp_path):
    touch(tmp_path, "dog/deep/1.mp4", "dog/deep/1.wav", "cat/1.webm", "2.mp3", ".hidden/3.wav", "video/4.mp4")
    found = [(clip.name, clip.label, clip.ytid, str(clip)) for clip in read_clips(tmp_path)]
    assert sorted(found) == [
        ("1", "cat", "", str(tmp_path / "cat/1.webm")),
        ("1", "dog", "", str(tmp_path / "dog/deep/1.mp4")),
        ("2", "", "", str(tmp_path / "2.mp3")),
        ("4", "video", "", str(tmp_path / "video/4.mp4")),
    ]
    (one,) = read_clips(tmp_path / "2.mp3")
    assert one == Clip("2", wav=tmp_path / "2.mp3")


def test_vggsounds_own_table_and_one_by_names(tmp_path):
    touch(tmp_path, f"{KEEP}_000361.mp4", "b/other.wav")
    own = tmp_path / "own.csv"
    own.write_text(f'{KEEP},361,"dog barking, far",test\nzzzzzzzzzzz,5,bell,train\n')
    clips = {clip.name: clip for clip in read_clips(tmp_path, csv=own)}
    assert (clips[f"{KEEP}_000361"].label, clips[f"{KEEP}_000361"].split) == ("dog barking, far", "test")
    assert (clips["other"].label, clips["other"].split) == ("b", "")  # not in the table: what the folder says
    by_name = write_csv(tmp_path / "names.csv", ("split", "name", "label", "more"), ("val", "other", "hum", "1"))
    clips = {clip.name: clip for clip in read_clips(tmp_path, csv=by_name)}
    assert (clips["other"].label, clips["other"].split, clips["other"].ytid) == ("hum", "val", "")
    assert clips[f"{KEEP}_000361"].ytid == ""  # 11 characters only where the table asks for them


def test_a_table_of_paths(tmp_path):
    rows = ("path", "wav", "label", "split", "caption"), ("a/x, 1.mp4", "", "dog", "train", "a dog"), ("", "/y.wav")
    first, second = read_clips(write_csv(tmp_path / "table.csv", *rows))
    assert first == Clip("x, 1", tmp_path / "a/x, 1.mp4", None, "dog", "train", "a dog")
    assert second == Clip("y", None, Path("/y.wav"))
    (sound,) = read_clips(write_csv(tmp_path / "sounds.csv", ("name", "path"), ("me", "z.flac")))
    assert sound == Clip("me", None, tmp_path / "z.flac")


def test_filters_are_plain_text(tmp_path):
    clips = read_clips(*published(tmp_path))
    plain = tmp_path / "low_quality.txt"
    plain.write_bytes(f"\ufeff# of low quality\r\n\r\n  {DROP} \r\nunknown\r\n".encode())
    assert [clip.ytid for clip in select(clips, "train", exclude=[plain])] == [KEEP]
    plain.write_text(f"{KEEP}_517000_527000\n")  # by the whole name
    assert [clip.ytid for clip in select(clips, exclude=[plain])] == [DROP]


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("opened"),)


@pytest.mark.parametrize(("name", "protocol"), [("low_quality_videos.pkl", 0), ("a.pickle", 4), ("renamed.txt", 4)])
def test_a_pickled_list_is_never_opened(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(), protocol))
    with pytest.raises(DatasetError, match=rf"{name}: is a pickled list; expected plain text\. Write the ids"):
        select([Clip("a")], exclude=[tmp_path / name])
    assert not (tmp_path / "opened").exists()


def test_tables_that_are_refused(tmp_path):
    folder, _ = published(tmp_path / "layout")
    header = ("ytid", "set", "class")
    (tmp_path / "bytes.csv").write_bytes(b"ytid,set,class\n\xff\xfe\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    touch(tmp_path / "twice", "a.mp4", "a.mkv"), (tmp_path / "empty").mkdir()
    for refused, message in (
        (lambda: read_clips(tmp_path / "none"), "none: no such file"),
        (lambda: read_clips(folder, csv=tmp_path / "none.csv"), "none.csv: no such file"),
        (lambda: read_clips(tmp_path / "empty"), "empty: nothing in it; expected clips"),
        (lambda: read_clips(tmp_path / "bytes.txt"), "is no clip and no table"),
        (lambda: read_clips(folder, csv=tmp_path / "bytes.csv"), "is no text"),
        (lambda: read_clips(tmp_path / "twice"), r"a\.mp4: the same clip as .*a\.mkv"),
        (lambda: read_clips(folder, csv=write_csv(tmp_path / "1.csv", ("id", "class"))), "first line is 'id,class'"),
        (lambda: read_clips(folder, csv=write_csv(tmp_path / "2.csv", ("ytid", "class"))), "no column set in"),
        (
            lambda: read_clips(folder, csv=write_csv(tmp_path / "3.csv", header, (KEEP, "train", "dog", "far"))),
            r"line 2: 4 cells; expected 3, as the header\. Quote",
        ),
        (
            lambda: read_clips(folder, csv=write_csv(tmp_path / "4.csv", header, (KEEP, "a", "x"), (KEEP, "b", "x"))),
            f"line 3: {KEEP} is 'x' in set 'a' and 'x' in set 'b'",
        ),
        (lambda: read_clips(write_csv(tmp_path / "5.csv", header, (KEEP, "a", "b"))), "no column `path` or `wav`"),
        (lambda: read_clips(write_csv(tmp_path / "6.csv", ("path", "label"), ("", "a"))), "line 2: neither path nor"),
        (lambda: read_clips(write_csv(tmp_path / "7.csv", ("path",))), "nothing in it; expected some rows"),
        (lambda: select([Clip("a")], exclude=[tmp_path / "none.txt"]), "none.txt: no such file"),
        (lambda: select([Clip("a")], exclude=[tmp_path / "bytes.txt"]), r"is no text \(.*expected one id in each line"),
    ):
        with pytest.raises(DatasetError, match=message):
            refused()


# Sound


def test_windows_reach_every_start_and_no_further(tmp_path):
    clip = Clip("ramp", wav=ramp(tmp_path / "ramp.wav", 0.5))
    dataset = AudioTokenDataset([clip], seconds=0.4995, images=False)  # 8 samples of room: 9 places
    starts = set()
    for epoch in range(120):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        assert sample.waveform.shape == (7992,) and sample.length == 7992
        assert place(sample.waveform) == round(sample.start * RATE)
        starts.add(place(sample.waveform))
    assert starts == set(range(9))


def test_the_published_windows_begin_at_whole_seconds_but_the_last(tmp_path):
    clip = Clip("ramp", wav=ramp(tmp_path / "ramp.wav", 10.0078))
    for seconds, expected in ((5, {0, 1, 2, 3, 4}), (8.5, {0, 1}), (10, {0})):
        dataset = AudioTokenDataset([clip], seconds=seconds, images=False, window="published")
        starts = set()
        for epoch in range(25):
            dataset.set_epoch(epoch)
            starts.add(dataset[0].start)
        assert starts == expected


def test_a_window_where_it_is_wanted(tmp_path):
    clip = Clip("ramp", wav=ramp(tmp_path / "ramp.wav", 3))
    middle = AudioTokenDataset([clip], seconds=1, images=False, window="middle")[0]
    assert place(middle.waveform) == RATE and middle.start == 1.0
    late = AudioTokenDataset([clip], seconds=1, images=False, window=2.5)[0]
    assert place(late.waveform) == 40000 and late.length == 8000 and not late.waveform[8000:].any()
    with pytest.raises(MediaError, match=r"ramp\.wav: its sound ends at 3\.00 s; expected a window at 3\.0 s"):
        _ = AudioTokenDataset([clip], seconds=1, images=False, window=3.0)[0]
    whole = AudioTokenDataset([clip], seconds=None, images=False)[0]
    assert whole.waveform.shape == (48000,) and whole.length == 48000 and whole.start == 0


def test_a_short_clip_is_followed_by_zeros_or_repeated(tmp_path):
    clip = Clip("ramp", wav=ramp(tmp_path / "ramp.wav", 0.3))
    own = torch.arange(4800) / 2**20
    padded = AudioTokenDataset([clip], seconds=1, images=False)[0]
    assert padded.length == 4800 and torch.equal(padded.waveform[:4800], own) and not padded.waveform[4800:].any()
    assert padded.notes == ("0.300 s of sound, then zeros",)
    tiled = AudioTokenDataset([clip], seconds=1, images=False, tile=True)[0]
    assert tiled.length == 16000 and torch.equal(tiled.waveform, own.repeat(4)[:16000])
    assert tiled.notes == ("repeated from 0.300 s to 1 s",)


@pytest.mark.parametrize("seconds", [1.2, 7.0])
def test_published_tiling(tmp_path, seconds):
    clip = Clip("ramp", wav=ramp(tmp_path / "ramp.wav", seconds))
    dataset = AudioTokenDataset([clip], seconds=5, images=False, window="published", tile=True, seed=3)
    repeated = torch.from_numpy(np.tile(np.arange(round(seconds * RATE)) / 2**20, 10)[: 10 * RATE]).float()
    starts = set()
    for epoch in range(30):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        first = int(sample.start)
        assert torch.equal(sample.waveform, repeated[first * RATE : (first + 5) * RATE])
        starts.add(first)
    assert starts == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("rate", "channels", "notes"),
    [
        (16000, 1, ()),
        (8000, 1, ("resampled from 8000 Hz to 16000 Hz",)),
        (44100, 2, ("resampled from 44100 Hz to 16000 Hz", "2 channels averaged")),
        (48000, 6, ("resampled from 48000 Hz to 16000 Hz", "6 channels averaged")),
    ],
)
def test_any_rate_and_channels_become_16_khz_mono_and_it_is_said(tmp_path, rate, channels, notes):
    quiet = torch.ones(channels, 1) / torch.arange(1, channels + 1)[:, None]
    clip = Clip("tone", wav=write_wav(tmp_path / "tone.wav", tone(2, rate).expand(channels, -1) * quiet, rate))
    sample = AudioTokenDataset([clip], seconds=1, images=False, window=0.5)[0]
    assert sample.notes == notes
    expected = tone(2, RATE)[0, 8000:24000] * quiet.mean()
    assert (sample.waveform - expected).abs().max() < 2e-3
    first = AudioTokenDataset([clip], seconds=1, images=False, window=0.5, channel=0)[0]
    assert (first.waveform - tone(2, RATE)[0, 8000:24000]).abs().max() < 2e-3
    assert channels == 1 or first.notes[-1] == f"channel 0 of {channels} taken"


def test_a_long_clip_is_read_in_part(tmp_path, monkeypatch):
    clip = Clip("long", wav=ramp(tmp_path / "long.wav", 65))
    asked = []
    read = media.read_audio
    monkeypatch.setattr(media, "read_audio", lambda *args, **kwargs: asked.append(kwargs) or read(*args, **kwargs))
    dataset = AudioTokenDataset([clip], seconds=2, images=False)
    for epoch in range(5):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        assert sample.length == 32000 and place(sample.waveform) == pytest.approx(sample.start * RATE, abs=1)
    assert {call["seconds"] for call in asked} == {2}
    last = AudioTokenDataset([clip], seconds=2, images=False, window=63.5)[0]
    assert last.length == 32000 and place(last.waveform) == 63 * RATE and last.start == 63.0  # as far as it goes


def test_silence_is_used_and_said(tmp_path):
    clip = Clip("silence", wav=write_wav(tmp_path / "silence.wav", torch.zeros(1, RATE), RATE))
    sample = AudioTokenDataset([clip], seconds=1, images=False)[0]
    assert sample.notes == ("digital silence",) and sample.length == RATE


# Pictures


def test_sound_and_picture_of_a_video(video):
    dataset = AudioTokenDataset([Clip("clip", video)], seconds=2, **SMALL)
    seen = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        assert sample.image.shape == (3, 32, 64) and sample.image.dtype == torch.float32
        assert -1 <= sample.image.min() < -0.9 and sample.image.max() <= 1
        number = shown(sample.image)
        assert sample.start - 0.1 <= number / 10 <= sample.start + 2
        whole = media.read_audio(video)
        first = round(sample.start * RATE)
        assert torch.equal(sample.waveform, whole[first : first + 32000])
        assert sample.notes == ("resampled from 44100 Hz to 16000 Hz", "2 channels averaged")
        seen.add(number)
    assert len(seen) > 6


@pytest.mark.parametrize(("frame", "expected"), [("middle", 50), (3.25, 32), (0, 0), (9.99, 99)])
def test_a_chosen_picture(video, frame, expected):
    dataset = AudioTokenDataset([Clip("clip", video)], seconds=2, window="middle", frame=frame, **SMALL)
    assert shown(dataset[0].image) == expected


def test_the_published_choice_of_pictures(video):
    # 100 pictures are 10 in a second; from 9 to 10 s the integers are 90 to 100, of which there is no number 100.
    dataset = AudioTokenDataset([Clip("clip", video)], seconds=1, window=9.0, frame="published", **SMALL)
    seen = set()
    for epoch in range(30):
        dataset.set_epoch(epoch)
        seen.add(shown(dataset[0].image))
    assert seen <= set(range(90, 100)) and 99 in seen and len(seen) > 6


def test_pictures_are_fitted_as_pillow_does(tmp_path):
    dice = np.random.default_rng(0)
    coarse = dice.integers(0, 256, (9, 16, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(coarse).resize((160, 90), Image.Resampling.BILINEAR))
    path = tmp_path / "wide.mp4"
    media.write_video(path, [picture] * 10, 10.0, tone(1, RATE), RATE)
    stored = Image.fromarray(media.read_frames(path, [5])[0].permute(1, 2, 0).numpy())
    for crop, box in ((False, (0, 0, 160, 90)), (True, (35, 0, 125, 90))):
        expected = np.array(stored.crop(box).resize((512, 320), Image.Resampling.BICUBIC)) / 127.5 - 1
        sample = AudioTokenDataset([Clip("wide", path)], seconds=1, frame=0.55, crop=crop)[0]
        assert sample.image.shape == (3, 320, 512)
        assert np.abs(sample.image.permute(1, 2, 0).numpy() - expected).max() < 1e-6


def test_pictures_that_end_before_the_sound(tmp_path):
    path = tmp_path / "short.mp4"
    media.write_video(path, map(numbered, range(20)), 10.0, tone(6, RATE), RATE)
    dataset = AudioTokenDataset([Clip("short", path)], seconds=1, **SMALL)
    for epoch in range(10):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        assert sample.start <= 1 and not any("pictures end" in note for note in sample.notes)
    late = AudioTokenDataset([Clip("short", path)], seconds=1, window=4.0, **SMALL)[0]
    assert shown(late.image) == 19 and "its pictures end at 2.00 s: the last one is shown" in late.notes


def test_a_wav_beside_the_video_is_what_is_heard(video, tmp_path):
    clip = Clip("both", video, ramp(tmp_path / "ramp.wav", 10))
    sample = AudioTokenDataset([clip], seconds=1, window=3.0, frame="middle", **SMALL)[0]
    assert place(sample.waveform) == 48000 and shown(sample.image) == 35 and sample.notes == ()


def test_without_pictures_no_video_is_needed(tmp_path):
    clip = Clip("heard", wav=ramp(tmp_path / "heard.wav", 1))
    dataset = AudioTokenDataset([clip], seconds=1, images=False)
    assert dataset[0].image is None and dataset.collate([dataset[0]]).image is None
    with pytest.raises(MediaError, match=r"heard\.wav: no video beside the sound; .* images=False"):
        _ = AudioTokenDataset([clip], seconds=1)[0]


@pytest.mark.parametrize(
    ("name", "video_codec", "audio_codec"),
    [
        ("a.avi", "mpeg4", "libmp3lame"),
        ("a.mkv", "libx264", "aac"),
        ("a.mpg", "mpeg2video", "mp2"),
        ("a.webm", "libvpx", "libopus"),
    ],
)
def test_the_last_picture_of_any_container(tmp_path, name, video_codec, audio_codec):
    path = write_container(tmp_path / name, video_codec, audio_codec, 2)
    sample = AudioTokenDataset([Clip("a", path)], seconds=1, window=1.0, frame=30.0, **SMALL)[0]
    assert shown(sample.image) == 49 and "the last one is shown" in sample.notes[-1]


def test_a_video_of_one_picture(tmp_path):
    picture = write_pictures(tmp_path / "one.mp4", [0])
    clip = Clip("one", picture, ramp(tmp_path / "one.wav", 2))
    for frame in ("random", "middle", "published"):
        assert shown(AudioTokenDataset([clip], seconds=1, frame=frame, **SMALL)[0].image) == 0


@pytest.mark.parametrize("name", ["00W1lcxW-WU_40.000.mp4", "KlsG1EnBEjc_000361.mp4"])
def test_real_recordings(name):
    path = recording(name)
    (clip,) = read_clips(path)
    sample = AudioTokenDataset([clip])[0]
    assert sample.waveform.shape == (80000,) and sample.length == 80000 and sample.waveform.abs().max() > 0.01
    assert sample.image.shape == (3, 320, 512) and sample.image.std() > 0.1
    assert sample.notes == ("resampled from 44100 Hz to 16000 Hz", "2 channels averaged")


# Batches, chance, and what cannot be used


def same(first: audiotoken.Sample, second: audiotoken.Sample) -> bool:
    pictures = first.image is second.image or torch.equal(first.image, second.image)
    return pictures and torch.equal(first.waveform, second.waveform) and first[4:] == second[4:]


def test_items_follow_from_seed_epoch_and_index():
    clips = scene_clips(6, seconds=1.5)
    one, other = (AudioTokenDataset(clips, seconds=0.5, **SMALL) for _ in range(2))
    in_order, backwards = [one[i] for i in range(6)], [other[i] for i in reversed(range(6))][::-1]
    assert all(map(same, in_order, backwards)) and same(one[-1], in_order[5])
    one.set_epoch(1)
    assert not any(map(same, in_order, [one[i] for i in range(6)]))
    one.set_epoch(0)
    assert all(map(same, in_order, [one[i] for i in range(6)]))
    assert AudioTokenDataset(clips, seconds=0.5, seed=1, **SMALL)[0].start != in_order[0].start
    gc.collect()  # decoders that errors of other tests hold on to have threads, which a forked process lacks
    loader = DataLoader(one, batch_size=4, num_workers=2, collate_fn=one.collate)
    batch = next(iter(loader))
    assert torch.equal(batch.waveform, torch.stack([sample.waveform for sample in in_order[:4]]))
    assert torch.equal(batch.image, torch.stack([sample.image for sample in in_order[:4]]))
    assert batch.start == [sample.start for sample in in_order[:4]] and batch.label == list(KINDS[:4])
    with pytest.raises(IndexError):
        _ = one[6]


def test_a_batch_of_clips_of_their_own_lengths(tmp_path):
    clips = [Clip(f"{n}", wav=ramp(tmp_path / f"{n}.wav", n / 4), label="x") for n in (2, 1, 3)]
    dataset = AudioTokenDataset(clips, seconds=None, images=False)
    batch = dataset.collate([dataset[0], None, dataset[1], dataset[2]])
    assert batch.waveform.shape == (3, 12000) and batch.lengths.tolist() == [8000, 4000, 12000]
    assert not batch.waveform[1, 4000:].any() and batch.waveform[1, 3999] == 3999 / 2**20
    assert batch.name == ["2", "1", "3"] and batch.label == ["x"] * 3
    none = AudioTokenDataset(clips, seconds=1, **SMALL).collate([None])
    assert none.waveform.shape == (0, 16000) and none.image.shape == (0, 3, 32, 64) and none.name == []
    assert none.lengths.shape == (0,) and none.lengths.dtype == torch.int64


def test_a_scene_and_a_file_come_in_one_batch(video):
    clips = [*scene_clips(1, seconds=1.0), Clip("clip", video, caption="a picture with a number")]
    dataset = AudioTokenDataset(clips, seconds=1.0, prompt="a photo of {}", **SMALL)
    batch = dataset.batch()
    assert batch.fbank.shape == (2, 98, 128) and torch.equal(batch.fbank, beats_fbank(batch.waveform))
    assert (batch.classes[0] >= 0).all() and batch.classes[1].tolist() == [-1, -1, -1]
    assert batch.prompt == [f"a photo of {clip.caption}" for clip in clips]
    stock = AudioTokenDataset(clips, seconds=1.0, moments=2, **SMALL)
    held = stock.prepared(1, False)
    for sample, fresh in zip(held.batch(), stock.batch(), strict=True):
        assert torch.equal(sample, fresh) if torch.is_tensor(sample) else sample == fresh
    middle = AudioTokenDataset(clips, seconds=1.0, moments=2, window="middle", **SMALL)[1]
    expected = AudioTokenDataset(clips, seconds=1.0, window="middle", frame=5.25, **SMALL)[1]
    assert (middle.waveform - expected.waveform).abs().max() <= 2**-16
    assert torch.equal(middle.image, expected.image)
    with pytest.raises(TooShortError, match=r"ball 0: 1\.00 s; expected 2 s, the window"):
        _ = AudioTokenDataset(clips, seconds=2.0, moments=1, **SMALL)[0]


def broken(folder: Path, video: Path) -> dict[str, tuple[Clip, str]]:
    """Clips that cannot be used, and what is said of each."""
    content = video.read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "text.mp4").write_text("no clip")
    (folder / "empty.wav").touch()
    media.write_video(folder / "mute.mp4", map(numbered, range(10)), 10.0)
    samples = tone(1, RATE)
    samples[0, 8000] = torch.nan
    return {
        "missing": (Clip("a", folder / "gone.mp4"), r"gone\.mp4: no such file"),
        "truncated": (Clip("b", folder / "cut.mp4"), r"cut\.mp4: cannot be decoded"),
        "no clip": (Clip("c", folder / "text.mp4"), r"text\.mp4: cannot be decoded"),
        "empty": (Clip("d", wav=folder / "empty.wav"), r"empty\.wav: is empty"),
        "mute": (Clip("e", folder / "mute.mp4"), r"mute\.mp4: no audio stream \(streams: video h264\)"),
        "NaN": (Clip("f", video, write_wav(folder / "nan.wav", samples, RATE)), r"nan\.wav: .* not a number at 0\.5"),
        "blip": (Clip("g", video, ramp(folder / "blip.wav", 0.02)), r"its sound has 320 samples .* at least 400"),
        "no files": (Clip("h"), "h: neither a video nor a sound"),
        "no picture": (Clip("i", ramp(folder / "sound.wav", 1)), r"sound\.wav: no video stream"),
    }


def test_what_cannot_be_used_is_refused_or_left_out(tmp_path, video):
    cases = broken(tmp_path, video)
    clips = [Clip("good", video), *(clip for clip, _ in cases.values())]
    strict = AudioTokenDataset(clips, seconds=0.5, **SMALL)
    for index, (_, message) in enumerate(cases.values(), start=1):
        with pytest.raises((MediaError, DatasetError), match=message):
            _ = strict[index]
    lenient = AudioTokenDataset(clips, seconds=0.5, on_error="skip", **SMALL)
    batch = lenient.collate([lenient[index] for index in range(len(clips))])
    assert batch.name == ["good"]
    report = lenient.report()
    assert report.startswith(f"{len(cases)} of {len(clips)} items left out\n") and len(lenient.skipped()) == len(cases)
    assert all(re.search(message, report) for _, message in cases.values())
    kept = AudioTokenDataset(clips, seconds=0.5, on_error="skip", **SMALL).usable(jobs=1, progress=False)
    assert len(kept) == 1 and kept.report() == report and kept[0].name == "good"
    with pytest.raises(DatasetError, match="none can be used"):
        AudioTokenDataset(clips[1:], seconds=0.5, on_error="skip", **SMALL).usable(jobs=1, progress=False)


def test_workers_tell_what_they_left_out(tmp_path, video):
    clips = [Clip("good", video), Clip("gone", tmp_path / "gone.mp4")]
    dataset = AudioTokenDataset(clips, seconds=0.5, on_error="skip", images=False)
    gc.collect()  # decoders that errors of other tests hold on to have threads, which a forked process lacks
    (batch,) = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=dataset.collate)
    assert batch.name == ["good"] and dataset.report().startswith("1 of 2 items left out\n  MediaError: ")


def test_a_whole_clip_must_be_long_enough_for_the_model(tmp_path):
    clip = Clip("blip", wav=ramp(tmp_path / "blip.wav", 0.1))
    with pytest.raises(TooShortError, match=r"1600 samples at 16000 Hz; expected at least 2800, which is 0\.175 s"):
        _ = AudioTokenDataset([clip], seconds=None, images=False)[0]
    assert AudioTokenDataset([clip], seconds=1, images=False)[0].length == 1600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.1}, "seconds: 0.1; expected at least 0.175 s"),
        ({"seconds": float("nan")}, "seconds: nan"),
        ({"seconds": float("inf")}, "seconds: inf"),
        ({"seconds": 11, "window": "published"}, "seconds: 11; expected at most 10"),
        ({"seconds": None, "window": "published"}, "seconds: None; expected at most 10"),
        ({"image_size": (0, 5)}, "image_size"),
        ({"window": "first"}, "window: 'first'"),
        ({"window": -1}, "window: -1"),
        ({"frame": "last"}, "frame: 'last'"),
        ({"frame": -0.5}, "frame: -0.5"),
        ({"channel": -1}, "channel: -1"),
        ({"seed": -1}, "seed: -1"),
        ({"on_error": "ignore"}, "on_error: 'ignore'"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        AudioTokenDataset([Clip("a")], **options)


def test_more_that_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="items: none"):
        AudioTokenDataset([])
    skipping = AudioTokenDataset(scene_clips(1, seconds=1), seconds=1, channel=2, on_error="skip", **SMALL)
    with pytest.raises(ParameterError, match="channel: 2; expected 0 to 1"):
        _ = skipping[0]  # wrong for all: not left out
    with pytest.raises(ParameterError, match="count"):
        scene_clips(-1)


# Extracting sound


def test_extracted_sound_is_what_the_video_has(tmp_path, video):
    clips = [Clip("clip", video, label="x"), Clip("heard", wav=tmp_path / "heard.wav")]
    done = audiotoken.extract_audio(clips, tmp_path / "new" / "audio", jobs=1, progress=False)
    target = tmp_path / "new" / "audio" / "clip.wav"
    assert done.clips == [Clip("clip", video, target, "x"), clips[1]] and done.skipped == []
    assert (media.read_audio(target, None) - media.read_audio(video)).abs().max() <= 2**-15
    made = target.stat().st_mtime_ns
    again = audiotoken.extract_audio(clips, tmp_path / "new" / "audio", jobs=1, progress=False)
    assert again.clips == done.clips and target.stat().st_mtime_ns == made


def test_extracting_what_has_no_sound(tmp_path, video):
    media.write_video(tmp_path / "mute.mp4", map(numbered, range(10)), 10.0)
    clips = [Clip("mute", tmp_path / "mute.mp4"), Clip("clip", video)]
    options = {"jobs": 1, "progress": False}
    with pytest.raises(MediaError, match="no audio stream"):
        audiotoken.extract_audio(clips, tmp_path / "audio", **options)
    done = audiotoken.extract_audio(clips, tmp_path / "audio", on_error="skip", **options)
    assert [clip.name for clip in done.clips] == ["clip"] and done.report.startswith("1 of 2 items left out")
    (tmp_path / "file").touch()
    for refused, error, message in (
        (lambda: audiotoken.extract_audio(clips, tmp_path, on_error="stop"), ParameterError, "on_error"),
        (lambda: audiotoken.extract_audio([*clips, Clip("Clip", video)], tmp_path), DatasetError, "two clips of one"),
        (lambda: audiotoken.extract_audio([Clip("x")], tmp_path), DatasetError, "x: no video to take the sound of"),
        (lambda: audiotoken.extract_audio(clips, tmp_path / "file"), CacheError, "file: .*expected a folder"),
    ):
        with pytest.raises(error, match=message):
            refused()


# Built-in scenes


def test_scenes_are_rows_with_sound_picture_and_words():
    clips = scene_clips(16, seed=2, seconds=2, split="train")
    assert [clip.label for clip in clips] == [*KINDS, *KINDS] and {clip.split for clip in clips} == {"train"}
    assert scene_clips(3, seed=2, seconds=2, split="train") == clips[:3]
    clip = clips[9]
    sample = AudioTokenDataset([clip], seconds=1, window=0.5, frame=0.75, **SMALL)[0]
    assert torch.equal(sample.waveform, torch.from_numpy(clip.scene.sound(RATE)).mean(0)[8000:24000])
    picture = torch.from_numpy(clip.scene.frame(0.75, (32, 64))).permute(2, 0, 1)
    assert torch.equal(sample.image, picture / 127.5 - 1) and sample.prompt == clip.caption
    assert sample.notes == ("2 channels averaged",) and sample.label == "bell"


def test_captions_name_what_a_frame_shows():
    drawn = {"position": 0.9, "size": 0.2, "hue": 0.0}
    for kind, expected in (
        ("ball", "a small blue ball"),
        ("rain", "a small blue bowl in the rain"),
        ("string", "a small blue lute with a string"),
    ):
        truth = Scene(kind, **drawn).truth
        assert tables.caption(truth) == expected
        assert tables.caption(truth, place=True) == f"{expected} on the right"
    edges = Scene("bird", position=0.0, size=1.0, hue=1.0).truth
    assert tables.attributes(edges) == {"kind": "bird", "size": "large", "colour": "yellow", "place": "on the left"}
    hues = np.linspace(0, 1, 81)
    colours = [tables.attributes(Scene("bell", hue=float(hue)).truth)["colour"] for hue in hues]
    assert [colours[index] for index in (0, 20, 40, 60, 80)] == list(tables.COLOURS)  # where the ramp has them
    assert list(dict.fromkeys(colours)) == list(tables.COLOURS)  # and in its order


def test_scenes_are_drawn_in_one_place_before_one_backdrop():
    scenes = [clip.scene for clip in scene_clips(17)]
    size = (32, 32)
    left, right = (replace(scenes[0], position=place) for place in (0.1, 0.9))
    assert np.array_equal(left.frame(0.0, size), right.frame(0.0, size))  # what a mono sound cannot tell
    ball, other = scenes[0].frame(0.0, size), scenes[16].frame(0.0, size)  # balls of two colours
    assert np.array_equal(ball[:, :4], other[:, :4]) and not np.array_equal(ball, other)
    small, large = (replace(scenes[0], size=value).frame(0.0, size) for value in (0.0, 1.0))
    assert not np.array_equal(small, large)
    assert np.array_equal(scenes[1].sound(16000), Scene(scenes[1].kind, 1).sound(16000))


def test_every_caption_is_of_the_vocabulary():
    words = audiotoken.vocabulary()
    assert len(words) == 25 and words == sorted(set(words)) and set(KINDS) <= set(words)
    said = [tables.caption(clip.scene.truth, place=True).split() for clip in scene_clips(400)]
    assert {word for caption in said for word in caption} == set(words)
    assert max(map(len, said)) == 10
    every = {tables.phrase(k, s, c) for k in KINDS for s in tables.SIZES for c in tables.COLOURS}
    assert len(every) == 80 and {clip.caption for clip in scene_clips(400)} <= every
