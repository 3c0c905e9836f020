"""Recordings to waveforms of one length: channels, rates, crops, padding, and what is refused or left out."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import recording
from making import tone, write_clip, write_wav
from torch.utils.data import DataLoader

from avlib import media
from avlib.clips.speech import corpus, render
from avlib.datasets import classification
from avlib.datasets.classification import ClassificationDataset, Labels, Recording, read_recordings, statistics
from avlib.errors import DatasetError, MediaError, ParameterError, ShapeError
from avlib.features import whisper_log_mel

# torch warns of more workers than cores, and there may be one only
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

RATE = 16000
LABELS = Labels(("no", "yes"))


def ramp(path: Path, seconds: float, rate: int = RATE) -> Path:
    """A wav whose sample k is (k + 1) / 2^20: the value says where it comes from, and none is 0."""
    return write_wav(path, (torch.arange(round(seconds * rate)) + 1).float()[None] / 2**20, rate)


def place(waveform: torch.Tensor) -> int:
    """Which sample of a `ramp` comes first."""
    return round(float(waveform[0]) * 2**20) - 1


def ramps(folder: Path, *seconds: float, target: str = "yes") -> list[Recording]:
    return [Recording(ramp(folder / f"{i}.wav", length), target) for i, length in enumerate(seconds)]


# The sound


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_row_2_channels_are_averaged_which_is_the_same_before_and_after_resampling(tmp_path, rate):
    both = tone(1.0, rate, channels=2)
    stereo = write_wav(tmp_path / "stereo.wav", both, rate)
    mono = write_wav(tmp_path / "mono.wav", both.mean(dim=0, keepdim=True), rate)
    dataset = ClassificationDataset([Recording(stereo, "yes"), Recording(mono, "no")], LABELS, seconds=1.5)
    after, before = dataset[0], dataset[1]
    assert after.length == before.length == RATE and after.waveform.shape == (24000,)
    assert torch.allclose(after.waveform, before.waveform, atol=1e-6)
    expected = tone(1.0, RATE, channels=2).mean(dim=0)  # the same sines, sampled at 16 kHz
    inside = slice(400, -400)  # beyond the ends a resampler knows nothing
    assert (after.waveform[:RATE] - expected)[inside].abs().max() < 2e-3


@pytest.mark.parametrize(("seconds", "samples"), [(3, 48000), (0.75, 12000), (2.5, 40000)])
def test_row_3_a_clip_is_cut_or_padded_with_zeros_to_a_number_of_seconds(tmp_path, seconds, samples):
    dataset = ClassificationDataset(ramps(tmp_path, 1.0, 5.0), LABELS, seconds=seconds)
    short, long = dataset[0], dataset[1]
    assert dataset.samples == samples == len(short.waveform) == len(long.waveform)
    assert (short.length, long.length) == (min(RATE, samples), samples)
    assert place(short.waveform) == place(long.waveform) == 0 and long.waveform.all()
    assert short.waveform[: short.length].all() and not short.waveform[short.length :].any()


def test_row_3_crops_from_the_start_the_centre_and_anywhere(tmp_path):
    clips = ramps(tmp_path, 5.0, 1.0)
    assert place(ClassificationDataset(clips, LABELS, crop="centre")[0].waveform) == (80000 - 48000) // 2
    dataset = ClassificationDataset(clips, LABELS, crop="random", seed=3)
    starts = []
    for epoch in range(60):
        dataset.set_epoch(epoch)
        long, short = dataset[0], dataset[1]
        assert long.length == 48000 and (short.length, place(short.waveform)) == (RATE, 0)
        starts.append(place(long.waveform))
    assert 0 <= min(starts) < 3200 and 32000 >= max(starts) > 28800 and len(set(starts)) > 50
    dataset.set_epoch(7)
    assert place(dataset[0].waveform) == starts[7]  # it follows from seed and epoch
    other = ClassificationDataset(clips, LABELS, crop="random", seed=4)
    other.set_epoch(7)
    assert place(other[0].waveform) != starts[7]


def test_a_long_clip_is_read_only_where_it_is_heard(tmp_path, monkeypatch):
    read = []
    original = media.read_audio
    monkeypatch.setattr(
        media, "read_audio", lambda path, rate, **span: read.append(span["seconds"]) or original(path, rate, **span)
    )
    clips = ramps(tmp_path, 70.0)
    for crop in ("start", "centre", "random"):
        assert ClassificationDataset(clips, LABELS, crop=crop)[0].length == 48000
    assert read == [3.0, 3.0, 3.0]
    assert place(ClassificationDataset(clips, LABELS, crop="centre")[0].waveform) == (1120000 - 48000) // 2


# The numbers beside it


def test_row_35_batches_carry_word_and_age_as_integers(tmp_path):
    rows = [("yes", "key", 4.4), ("no", "tea", None), ("yes", "", 10.0)]
    clips = [
        Recording(ramp(tmp_path / f"{i}.wav", 0.5), target, word, age) for i, (target, word, age) in enumerate(rows)
    ]
    dataset = ClassificationDataset(clips, LABELS, words=["tea", "key"])
    (batch,) = DataLoader(dataset, 3, collate_fn=dataset.collate)
    assert batch.waveform.shape == (3, 48000) and batch.waveform.dtype == torch.float32
    expected = {"length": [8000] * 3, "target": [1, 0, 1], "word": [1, 0, -1], "age": [5, -1, 13], "index": [0, 1, 2]}
    for name, values in expected.items():
        assert getattr(batch, name).dtype == torch.int64 and getattr(batch, name).tolist() == values
    found = (dataset.targets, dataset.word_numbers)  # known without reading a sound
    assert [column.tolist() for column in found] == [[1, 0, 1], [1, 0, -1]]
    plain = ClassificationDataset(clips, LABELS, ages=())
    assert plain.word_numbers.tolist() == [example.age for example in plain] == [-1, -1, -1]
    assert [example.age for example in ClassificationDataset(clips[:2], LABELS, ages=[3, 4, 5])] == [1, -1]


def test_a_regression_has_float_targets(tmp_path):
    clips = [Recording(ramp(tmp_path / f"{i}.wav", 0.5), target) for i, target in enumerate(["1.5", "-2"])]
    dataset = ClassificationDataset(clips, Labels.of(clips, "regression"))
    batch = dataset.collate([dataset[0], dataset[1]])
    assert batch.target.dtype == torch.float32 and batch.target.tolist() == dataset.targets.tolist() == [1.5, -2.0]
    assert dataset.collate([]).target.dtype == torch.float32 and dataset.collate([]).waveform.shape == (0, 48000)


def test_clips_without_labels_can_be_heard(tmp_path):
    dataset = ClassificationDataset([Recording(ramp(tmp_path / "a.wav", 0.1), "")], None)
    assert (
        dataset[0].target == -1 and dataset[0].length == 1600 and dataset.collate([dataset[0]]).target.tolist() == [-1]
    )


def test_words_unseen_in_training_are_refused_or_left_out(tmp_path):
    clips = [Recording(ramp(tmp_path / f"{i}.wav", 0.5), "yes", word) for i, word in enumerate(["key", "rakes", "tea"])]
    with pytest.raises(DatasetError, match=r"1.wav: its word 'rakes' is none of the 2"):
        ClassificationDataset(clips, LABELS, words=["key", "tea"])
    assert len(ClassificationDataset(clips, LABELS)) == 3  # whoever asks for no words hears any
    dataset = ClassificationDataset(clips, LABELS, words=["key", "tea"], on_error="skip")
    assert dataset[1] is None and dataset.collate([dataset[i] for i in range(3)]).index.tolist() == [0, 2]
    left = dataset.prepared(1, False)
    assert left.word_numbers.tolist() == [0, 1] and [clip.word for clip in left.recordings] == ["key", "tea"]
    assert "1 of 3 items left out" in left.report() and "rakes" in left.report()


def test_an_unknown_target_or_an_age_beyond_the_list_is_refused(tmp_path):
    path = ramp(tmp_path / "a.wav", 0.5)
    with pytest.raises(DatasetError, match="target 'perhaps'; expected one of no, yes"):
        ClassificationDataset([Recording(path, "perhaps")], LABELS)
    with pytest.raises(DatasetError, match=r"a.wav: its age, 35 years, is beyond those listed; .* `ages`, or none"):
        ClassificationDataset([Recording(path, "yes", age=35.0)], LABELS)
    assert ClassificationDataset([Recording(path, "yes", age=35.0)], LABELS, ages=())[0].age == -1


# Files that cannot be used


def test_missing_unreadable_and_truncated_files_are_refused_or_left_out(tmp_path):
    clips = ramps(tmp_path, 0.5, 0.5)
    (tmp_path / "noise.wav").write_bytes(np.random.default_rng(0).bytes(4000))
    write_clip(tmp_path / "film.mp4")
    whole = (tmp_path / "film.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    bad = [Recording(tmp_path / name, "no") for name in ("nowhere.wav", "noise.wav", "cut.mp4")]
    for clip in bad:
        for crop in ("start", "centre", "random"):
            with pytest.raises(MediaError, match=clip.path.name):
                ClassificationDataset([clip], LABELS, crop=crop)[0]
    for crop in ("start", "random"):
        dataset = ClassificationDataset([clips[0], *bad, clips[1]], LABELS, crop=crop, on_error="skip")
        assert [example is None for example in dataset] == [False, True, True, True, False]
        for kept in (dataset.usable(1, False), dataset.prepared(1, False)):
            assert kept.recordings == clips and "3 of 5 items left out" in kept.report()
    with pytest.raises(DatasetError, match="none can be used"):
        ClassificationDataset(bad, LABELS, on_error="skip").prepared(1, False)


def test_the_sound_of_a_video_is_heard(tmp_path):
    film = write_clip(tmp_path / "film.mp4")  # 2 s; the codec of the sound fills up its last frame
    assert 32000 <= ClassificationDataset([Recording(film, "no")], LABELS)[0].length < 32000 + 1024


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("seconds", {"seconds": 0}),
        ("seconds", {"seconds": math.inf}),
        ("crop", {"crop": "end"}),
        ("seed", {"seed": -1}),
        ("on_error", {"on_error": "ignore"}),
    ],
)
def test_wrong_parameters_are_refused(name, wrong):
    with pytest.raises(ParameterError, match=f"^{name}: "):
        ClassificationDataset([Recording(Path("a.wav"), "yes")], LABELS, **wrong)


def test_a_data_set_of_nothing_is_refused():
    with pytest.raises(DatasetError, match="items: none"):
        ClassificationDataset([], LABELS)


# In memory


@pytest.mark.parametrize("crop", ["start", "centre", "random"])
def test_items_in_memory_are_the_same(tmp_path, monkeypatch, crop):
    monkeypatch.setattr(classification.dataset, "_WHOLE", 4.0)
    clips = ramps(tmp_path, 3.9, 5.0, 0.5)
    fine = (torch.arange(RATE * 3) / 2**15).sin()[None]
    clips.append(Recording(write_wav(tmp_path / "16.wav", fine, RATE, "PCM_16"), "no"))
    clips.append(Recording(write_wav(tmp_path / "8k.wav", fine[:, :RATE], 8000, "PCM_16"), "no"))
    dataset = ClassificationDataset(clips, LABELS, seconds=1.5, crop=crop)
    held = dataset.prepared(1, False)
    assert held.prepared() is held and held.usable() is held
    for epoch in (0, 5):
        dataset.set_epoch(epoch)
        for example, other in zip(dataset, held, strict=True):
            assert torch.equal(example.waveform, other.waveform) and example[1:] == other[1:]
    kinds = [sound.dtype if len(sound) else None for sound in held.memory["sounds"]]
    floats = torch.float32
    assert kinds == [floats, None if crop == "random" else floats, floats, torch.int16, floats]


def test_it_is_the_same_in_other_processes():
    spoken = corpus(2, 2, 1)
    clips = read_recordings(render(spoken, jobs=1, progress=False))
    dataset = ClassificationDataset(clips, Labels.of(clips), seconds=0.3, crop="random", words=("ring", "wing"))
    dataset.set_epoch(2)
    loader = DataLoader(dataset, 2, collate_fn=dataset.collate, num_workers=1)
    held = dataset.prepared(1, False)
    for batch, start in zip(loader, range(0, len(clips), 2), strict=True):
        expected = held.collate([held[start], held[start + 1]])
        assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))
    ages = [clips[index].age for index in range(len(clips))]
    assert [dataset.ages[example.age] for example in held] == ages


def test_real_recordings_of_eight_phrases(tmp_path):
    folder = recording("speech")
    names = sorted(path.name for path in folder.glob("*.wav"))
    lines = ["path,label", *(f"{folder / name},{name.split('_')[0].lower()}" for name in names)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    clips = read_recordings(tmp_path / "table.csv")
    labels = Labels.of(clips)
    assert labels.names == ("front", "rear", "side") and len(clips) == 8
    held = ClassificationDataset(clips, labels).prepared(1, False)
    assert sorted(held.targets.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert all(8000 < example.length < 48000 and example.waveform.abs().max() > 0.01 for example in held)


# Statistics


def test_statistics_are_those_of_all_valid_values(tmp_path):
    clips = ramps(tmp_path, *(0.4, 1.0, 2.0, 0.7, 1.1) * 4)  # more than are heard at once
    dataset = ClassificationDataset(clips, LABELS, seconds=1.0)

    def features(waveform, lengths):
        return whisper_log_mel(waveform), lengths // 160

    values, seconds = [], []
    for example in dataset:
        values.append(whisper_log_mel(example.waveform)[:, : example.length // 160].double().flatten())
        seconds.append(example.length / RATE)
    values = torch.cat(values).numpy()
    found = statistics(dataset, features)
    assert found.mean == pytest.approx(values.mean(), rel=1e-6)
    assert found.std == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert (found.minimum, found.maximum) == (values.min(), values.max()) and found.clips == 20
    for share, quantile in found.seconds.items():
        assert quantile == pytest.approx(np.quantile(seconds, share))
    whole = statistics(dataset.prepared(1, False), lambda waveform, lengths: (waveform, None))
    padded = torch.stack([example.waveform for example in dataset]).double()
    assert list(whole[:4]) == pytest.approx(
        [each().item() for each in (padded.mean, padded.std, padded.min, padded.max)]
    )


def test_statistics_leave_out_what_cannot_be_used(tmp_path):
    missing = [Recording(tmp_path / f"nowhere {number}.wav", "no") for number in range(16)]
    clips = [*missing, *ramps(tmp_path, 1.0)]  # the first batch has nothing
    dataset = ClassificationDataset(clips, LABELS, on_error="skip")
    found = statistics(dataset, lambda waveform, lengths: (waveform, lengths))
    assert found.clips == 1 and found.maximum == RATE / 2**20 and found.minimum == 1 / 2**20
    with pytest.raises(DatasetError, match="none can be used"):
        statistics(ClassificationDataset(clips[:1], LABELS, on_error="skip"), lambda *given: given)
    with pytest.raises(ShapeError, match="lengths up to 16000"):
        statistics(ClassificationDataset(clips[-1:], LABELS), lambda waveform, lengths: (waveform[:, :100], lengths))
