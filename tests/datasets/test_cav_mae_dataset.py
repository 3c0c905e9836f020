"""Items to tensors: equal to the published loader's steps, reproducible anywhere, and nothing is pretended."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from conftest import ROOT
from making import numbered, tone
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as T

from avlib import media
from avlib.datasets import cav_mae
from avlib.datasets.sampling import BalancedSampler
from avlib.datasets.sources import split
from avlib.errors import DatasetError, MediaError, ParameterError, TooShortError

# torch warns of more workers than cores, and there may be one only
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

TINY = {"target_length": 96, "image_size": 32, "total_frames": 4}
ALL = cav_mae.Augmentation(0.5, 0.1, 48, 40, noise=True, roll=True)
LOUD = 5.081 / 4.4849  # what 0 becomes


def extracted(folder: Path, name: str, labels=(), seconds=10.0, frames=10, mode="RGB", seed=0) -> cav_mae.ExtractedItem:
    """A clip in the published layout with random content; the pictures are not square."""
    dice = np.random.default_rng([seed, *name.encode()])
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", 0.1 * dice.standard_normal(round(seconds * 16000)) + 0.05, 16000)
    for frame in range(frames):
        (folder / f"frame_{frame}").mkdir(exist_ok=True)
        pixels = dice.integers(0, 256, (24, 30) if mode == "L" else (24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((300, 240)).save(folder / f"frame_{frame}" / f"{name}.jpg")
    return cav_mae.ExtractedItem(tuple(labels), name, folder / f"{name}.wav", folder)


def load(item) -> torch.Tensor:
    waveform = torch.from_numpy(soundfile.read(item.wav, dtype="float32")[0])[None]
    return waveform - waveform.mean()


def published_fbank(waveform, length=1024):
    fbank = torchaudio.compliance.kaldi.fbank(
        waveform, htk_compat=True, sample_frequency=16000, use_energy=False, window_type="hanning",
        num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip
    missing = length - len(fbank)
    fbank = torch.nn.ZeroPad2d((0, 0, 0, missing))(fbank) if missing > 0 else fbank[:length]
    return (fbank + 5.081) / 4.4849


def published_image(path, size=224):
    mean, std = [0.4850, 0.4560, 0.4060], [0.2290, 0.2240, 0.2250]
    steps = [T.Resize(size, T.InterpolationMode.BICUBIC), T.CenterCrop(size), T.ToTensor(), T.Normalize(mean, std)]
    return T.Compose(steps)(Image.open(path).convert("RGB"))


def close(ours, published):
    torch.testing.assert_close(ours, published, atol=2e-5, rtol=1e-5)


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Six short clips in two folders, with one, several or no labels."""
    folder = tmp_path_factory.mktemp("extracted")
    labels = [("a",), ("b",), ("a", "b"), ("c",), (), ("a",)]
    return [
        extracted(folder / f"part{i % 2}", f"clip{i}", labels[i], seconds=0.9 + 0.05 * i, frames=4, seed=i)
        for i in range(6)
    ]


# What one item is


@pytest.mark.parametrize("seconds", [10.0, 3.0, 11.5])
def test_evaluation_gives_the_published_input(tmp_path, seconds):
    item = extracted(tmp_path, "x.y", ["b"], seconds)
    table = cav_mae.LabelTable(("/m/a", "/m/b"), ("a", "b"))
    dataset = cav_mae.CAVMAEDataset([item], table)
    fbank, image, labels = dataset[0]
    assert fbank.shape == (1024, 128) and image.shape == (3, 224, 224) and labels.tolist() == [0, 1]
    close(fbank, published_fbank(load(item)))
    close(image, published_image(item.picture(5)))
    close(dataset.at_frame(9)[0].image, published_image(item.picture(9)))
    assert same(dataset[0], dataset[-1]) and len(dataset) == 1
    with pytest.raises(IndexError):
        dataset[1]


@pytest.mark.parametrize(("total", "frame", "seen"), [(10, None, 5), (4, None, 2), (1, None, 0), (10, 7, 7), (4, 3, 3)])
def test_evaluation_sees_the_middle_frame_or_the_one_asked_for(tmp_path, total, frame, seen):
    item = extracted(tmp_path, "x", frames=total)
    dataset = cav_mae.CAVMAEDataset([item], frame=frame, total_frames=total)
    close(dataset[0].image, published_image(item.picture(seen)))


def test_evaluation_goes_down_to_the_next_frame_that_there_is(tmp_path):
    item = extracted(tmp_path, "x", frames=6)
    item.picture(5).unlink()
    item.picture(0).unlink()
    dataset = cav_mae.CAVMAEDataset([item])
    close(dataset[0].image, published_image(item.picture(4)))
    close(dataset.at_frame(9)[0].image, published_image(item.picture(4)))
    with pytest.raises(MediaError, match=r"x: has none of the frames \[0\]"):
        dataset.at_frame(0)[0]


def test_training_draws_evenly_among_the_frames_that_there_are(tmp_path):
    item = extracted(tmp_path, "x", frames=5, seconds=0.1)
    item.picture(3).unlink()
    images = {frame: published_image(item.picture(frame), 32) for frame in (0, 1, 2, 4)}
    settings = {"target_length": 8, "image_size": 32, "total_frames": 12}  # 5 .. 11 never were
    dataset = cav_mae.CAVMAEDataset([item], None, cav_mae.Augmentation(), **settings)
    seen = []
    for epoch in range(400):
        dataset.set_epoch(epoch)
        image = dataset[0].image
        seen += [frame for frame in images if torch.allclose(image, images[frame], atol=1e-4)]
    assert len(seen) == 400 and min(seen.count(frame) for frame in images) > 60


def test_mixup_mixes_sound_image_and_labels_of_the_partner(tmp_path):
    # In two folders: the published loader looks for the partner's image in the first one's.
    items = [extracted(tmp_path / "1", "x", ["a"], 10.0), extracted(tmp_path / "2", "y", ["b"], 8.0)]
    augment = cav_mae.Augmentation(mixup=1.0)
    dataset = cav_mae.CAVMAEDataset(items, None, augment, total_frames=1)
    waves, images = [load(item) for item in items], [published_image(item.picture(0)) for item in items]
    partners = set()
    for epoch in range(6):
        dataset.set_epoch(epoch)
        for first in (0, 1):
            fbank, image, labels = dataset[first]
            assert labels.sum() == pytest.approx(1)
            share, second = float(labels[first]), 1 - first
            if share == 1:  # its own partner
                second = first
            else:
                partners.add(first)
            other = torch.zeros_like(waves[first])
            length = min(other.shape[1], waves[second].shape[1])
            other[:, :length] = waves[second][:, :length]
            mixed = share * waves[first] + (1 - share) * other
            torch.testing.assert_close(fbank, published_fbank(mixed - mixed.mean()), atol=2e-3, rtol=1e-3)
            torch.testing.assert_close(image, share * images[first] + (1 - share) * images[second])
    assert partners == {0, 1}


def test_shares_are_drawn_from_the_published_beta(items):
    dataset = cav_mae.CAVMAEDataset(items[:2], None, cav_mae.Augmentation(mixup=0.5), **TINY).prepared(1, False)
    drawn = []
    for epoch in range(400):
        dataset.set_epoch(epoch)
        drawn += [float(dataset[index].labels[index]) for index in (0, 1)]
    shares = torch.tensor([share for share in drawn if share < 1])
    assert len(shares) == pytest.approx(800 * 0.5 / 2, abs=50)  # half are mixed, half of those with themselves
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.std() == pytest.approx((1 / (4 * 21)) ** 0.5, abs=0.02)  # the variance of Beta(10, 10)


def test_smoothed_labels_of_mixed_items(items):
    dataset = cav_mae.CAVMAEDataset(items, None, cav_mae.Augmentation(mixup=1.0, label_smoothing=0.1), **TINY)
    for epoch in range(5):
        dataset.set_epoch(epoch)
        labels = dataset[2].labels  # has a and b; whoever the partner is, what both have stays at 0.9
        assert labels.max() <= 0.9 + 1e-6 and labels.min() >= 0.1 / 3 - 1e-6
        if labels[2] < 0.1:  # partner without c
            assert (labels[:2] > 0.3).all()


def test_bands_are_masked_before_normalisation(items):
    plain = cav_mae.CAVMAEDataset(items, **TINY)[0].fbank
    dataset = cav_mae.CAVMAEDataset(items, None, cav_mae.Augmentation(freq_mask=48, time_mask=40), **TINY)
    seen = []
    for epoch in range(20):
        dataset.set_epoch(epoch)
        fbank = dataset[0].fbank
        changed = fbank != plain
        torch.testing.assert_close(fbank[changed], torch.full_like(fbank[changed], LOUD))
        frames, mels = changed[:88].all(1), changed[:88].all(0)  # 88 of them are filled
        assert torch.equal(changed[:88], frames[:, None] | mels[None])
        seen.append((int(frames.sum()), int(mels.sum())))
    assert max(t for t, _ in seen) < 40 and max(m for _, m in seen) < 48 and len(set(seen)) > 10


def test_noise_and_roll_come_after_normalisation(items):
    plain = cav_mae.CAVMAEDataset(items, **TINY)[0].fbank
    rolled = cav_mae.CAVMAEDataset(items, None, cav_mae.Augmentation(roll=True), **TINY)[0].fbank
    assert any(torch.equal(rolled, plain.roll(shift, 0)) for shift in range(96)) and not torch.equal(rolled, plain)
    added = cav_mae.CAVMAEDataset(items, None, cav_mae.Augmentation(noise=True), **TINY)[0].fbank - plain
    assert added.min() > -1e-5 and 0 < added.max() < 0.1


def test_published_settings():
    pretraining, fine_tuning = cav_mae.PRETRAINING, cav_mae.FINE_TUNING
    assert pretraining == cav_mae.Augmentation(0, 0, 0, 0, True, True)
    assert fine_tuning == cav_mae.Augmentation(0.5, 0.1, 48, 192, True, True)


def test_defaults_suffice(tmp_path):
    # The published loader's conf must have freqm and timem, or it dies while it prints them.
    assert len(cav_mae.CAVMAEDataset([extracted(tmp_path, "x", frames=6)], None, cav_mae.Augmentation())[0]) == 3


def test_grey_pictures_are_pictures(tmp_path):
    item = extracted(tmp_path, "x", mode="L")
    image = cav_mae.CAVMAEDataset([item])[0].image
    close(image, published_image(item.picture(5)))
    assert image.std() > 0.1  # not a constant


# Reproducible


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_any_number_of_workers_gives_the_same(items, start):
    dataset = cav_mae.CAVMAEDataset(items, None, ALL, seed=3, **TINY)
    loader = DataLoader(dataset, 2, num_workers=2, multiprocessing_context=start, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):  # persistent workers hear of the epoch too
        dataset.set_epoch(epoch)
        alone = [dataset[index] for index in range(6)]
        batches = list(loader)
        assert all(
            same([torch.stack(part) for part in zip(*alone[2 * i : 2 * i + 2], strict=True)], batches[i])
            for i in range(3)
        )
        epochs.append(alone)
    assert same(epochs[0][0], epochs[2][0])
    assert not any(same(one, other) for one, other in zip(epochs[0], epochs[1], strict=True))


def test_a_seed_an_index_and_a_copy(items):
    one, other = (cav_mae.CAVMAEDataset(items, None, ALL, seed=seed, **TINY) for seed in (0, 1))
    assert not same(one[0], other[0])
    assert same(one[(0, 0)], one[0]) and not same(one[(0, 1)], one[0])
    copy = pickle.loads(pickle.dumps(one))
    assert same(copy[3], one[3])
    one.set_epoch(1)
    assert not same(copy[3], one[3])


TWO_PROCESSES = """
import pickle, sys, torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler
from avlib.datasets import cav_mae
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
dataset = pickle.load(open(f"{folder}/dataset", "rb"))
dataset.set_epoch(1)
plain = DistributedSampler(dataset, shuffle=True)
plain.set_epoch(1)
batches = list(DataLoader(dataset, 2, sampler=plain, num_workers=rank, collate_fn=dataset.collate))
torch.save((list(plain), batches, dataset.report()), f"{folder}/rank{rank}")
dist.destroy_process_group()
"""


def test_two_processes_share_an_epoch(items, tmp_path):
    missing = cav_mae.ExtractedItem((), "gone", Path("gone.wav"), items[0].video_path)
    dataset = cav_mae.CAVMAEDataset([*items, missing], None, ALL, on_error="skip", **TINY)
    (tmp_path / "dataset").write_bytes(pickle.dumps(dataset))
    command = [sys.executable, "-c", TWO_PROCESSES]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=ROOT) for rank in (0, 1)]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    dataset.set_epoch(1)
    seen, reports = set(), []
    for rank in (0, 1):
        order, batches, report = torch.load(tmp_path / f"rank{rank}", weights_only=False)
        expected = [dataset[index] for index in order]
        expected = [torch.stack(part) for part in zip(*[item for item in expected if item], strict=True)]
        got = [torch.cat(part) for part in zip(*batches, strict=True)]
        assert same(got, expected)
        reports.append(report)
        seen |= set(order)
    assert seen == set(range(7))
    assert any("1 of 7 items left out" in report and "gone" in report for report in reports)


# The whole data set


def test_statistics_are_those_of_all_spectrograms(items):
    dataset = cav_mae.CAVMAEDataset(items, None, ALL, **TINY)
    everything = torch.stack([published_fbank(load(item), 96) * 4.4849 - 5.081 for item in items]).double()
    mean, std = dataset.statistics(jobs=1, progress=False)
    assert mean == pytest.approx(float(everything.mean()), rel=1e-6)
    assert std == pytest.approx(float(everything.std()), rel=1e-6)
    own = cav_mae.CAVMAEDataset(items, mean=mean, std=std, **TINY)
    normalised = torch.stack([own[index].fbank for index in range(6)])
    assert normalised.mean() == pytest.approx(0, abs=1e-5) and normalised.std() == pytest.approx(1, abs=1e-5)
    assert dataset.prepared(1, progress=False).statistics(progress=False) == pytest.approx((mean, std))


def test_statistics_show_their_progress(items, capfd):
    cav_mae.CAVMAEDataset(items, **TINY).statistics(jobs=1)
    assert "measuring" in capfd.readouterr().err


@pytest.mark.parametrize("jobs", [1, 2])
def test_in_memory_it_is_the_same(items, jobs):
    items = [*items, *cav_mae.scene_items(2, seconds=0.5)]
    items[1].picture(2).rename(items[1].picture(2).with_suffix(".away"))
    try:
        for augment in (None, cav_mae.PRETRAINING, ALL)[-1 if jobs == 2 else 0 :]:
            dataset = cav_mae.CAVMAEDataset(items, None, augment, **TINY)
            memory = dataset.prepared(jobs, progress=False)
            for epoch in (0, 1):
                dataset.set_epoch(epoch)
                memory.set_epoch(epoch)
                assert all(same(dataset[index], memory[index]) for index in range(8))
    finally:
        items[1].picture(2).with_suffix(".away").rename(items[1].picture(2))


# What cannot be used


def silent_clip(path):
    media.write_video(path, map(numbered, range(25)), 25.0)
    return cav_mae.ClipItem(("a",), path)


def sounding_clip(path, seconds=1.0):
    media.write_video(path, map(numbered, range(25)), 25.0, tone(seconds, 16000), 16000)
    return cav_mae.ClipItem(("a",), path)


def broken(kind, folder):
    """An item that cannot be used, and what is to be said about it."""
    if kind == "wav missing":
        item = extracted(folder, "bad", ["a"], frames=4)
        item.wav.unlink()
        return item, MediaError, r"bad\.wav: no such file"
    if kind == "pictures missing":
        return extracted(folder, "bad", ["a"], frames=0), MediaError, "bad: has none of the frames"
    if kind == "picture broken":
        item = extracted(folder, "bad", ["a"], frames=4)
        for frame in range(4):
            item.picture(frame).write_bytes(item.picture(frame).read_bytes()[:200])
        return item, MediaError, r"bad\.jpg: cannot be decoded"
    if kind == "under 25 ms":
        return extracted(folder, "bad", ["a"], 0.024, 4), TooShortError, "bad: its sound has 384 samples.*at least 400"
    return silent_clip(folder / "bad.mp4"), MediaError, r"bad\.mp4: no audio stream"


KINDS = ["wav missing", "pictures missing", "picture broken", "under 25 ms", "no sound"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("augment", [None, ALL], ids=["evaluation", "training"])
def test_what_cannot_be_used_is_refused_or_left_out(items, tmp_path, kind, augment):
    bad, error, match = broken(kind, tmp_path)
    table = cav_mae.LabelTable.of(items)
    everything = [*items[:2], bad, *items[2:]]
    with pytest.raises(error, match=match) as caught:
        cav_mae.CAVMAEDataset(everything, table, augment, **TINY)[2]
    assert caught.value.advice

    dataset = cav_mae.CAVMAEDataset(everything, table, augment, on_error="skip", **TINY)
    batches = list(DataLoader(dataset, 3, collate_fn=dataset.collate))
    assert [len(batch.fbank) for batch in batches] == [2, 3, 1]
    for batch in batches:
        values = batch.fbank.flatten(1).std(1)
        assert (values > 0.1).all() and (batch.image.flatten(1).std(1) > 0.1).all()  # none is a constant
    (reason,) = dataset.skipped()
    assert type(reason) is error and dataset.report().startswith("1 of 7 items left out")


def test_workers_tell_what_they_left_out(items, tmp_path):
    sounding, silent = sounding_clip(tmp_path / "good.mp4"), silent_clip(tmp_path / "bad.mp4")
    gone = cav_mae.ExtractedItem(("a",), "gone", tmp_path / "gone.wav", items[0].video_path)
    everything, table = [silent, *items[:3], sounding, gone], cav_mae.LabelTable.of(items)
    dataset = cav_mae.CAVMAEDataset(everything, table, on_error="skip", **TINY)
    workers = {"num_workers": 2, "multiprocessing_context": "fork"}
    batches = list(DataLoader(dataset, 1, collate_fn=dataset.collate, **workers))
    assert [len(batch.fbank) for batch in batches] == [0, 1, 1, 1, 1, 0]
    assert [part.shape[1:] for part in batches[0]] == [part.shape[1:] for part in batches[1]]
    assert dataset.report().splitlines()[0] == "2 of 6 items left out"
    assert "bad.mp4: no audio stream" in dataset.report() and "has none of the frames" in dataset.report()

    loading = iter(DataLoader(cav_mae.CAVMAEDataset(everything, table, **TINY), 1, **workers))
    with pytest.raises(MediaError, match=r"(?s)bad\.mp4: no audio stream.*Give a clip with sound"):
        next(loading)  # in its own class, from another process
    loading._shutdown_workers()  # now; else when the error is forgotten, in the middle of another test


def test_only_the_usable_ones_are_kept(items, tmp_path):
    gone = cav_mae.ExtractedItem(("a",), "gone", tmp_path / "gone.wav", tmp_path)
    settings = {"table": cav_mae.LabelTable.of(items), **TINY}
    dataset = cav_mae.CAVMAEDataset([gone, *items], on_error="skip", **settings)
    for kept in (dataset.usable(1, progress=False), dataset.prepared(1, progress=False)):
        assert kept.items == items and same(kept[0], cav_mae.CAVMAEDataset(items, **settings)[0])
        assert kept.report().startswith("1 of 7 items left out\n  MediaError: gone")
        assert kept.usable(1, progress=False).report() == kept.report()
    assert dataset.statistics(1, progress=False) == pytest.approx(kept.statistics(1, progress=False))
    strict = cav_mae.CAVMAEDataset([gone, *items], **settings)
    for survey in (strict.usable, strict.prepared, strict.statistics):
        with pytest.raises(MediaError, match="gone"):
            survey(1, progress=False)
    with pytest.raises(DatasetError, match=r"none can be used.*1 of 1 items left out"):
        cav_mae.CAVMAEDataset([gone], on_error="skip", **TINY).usable(1, progress=False)


def test_processes_find_out_what_is_usable(items, tmp_path):
    gone = cav_mae.ExtractedItem(("a",), "gone", tmp_path / "gone.wav", tmp_path)
    settings = {"table": cav_mae.LabelTable.of(items), **TINY}
    kept = cav_mae.CAVMAEDataset([*items, gone], on_error="skip", **settings).usable(2, progress=False)
    assert kept.items == items and kept.report().startswith("1 of 7 items left out\n  MediaError: gone")
    with pytest.raises(MediaError, match="gone") as caught:
        cav_mae.CAVMAEDataset([*items, gone], **settings).usable(2, progress=False)
    assert "worker process" not in str(caught.value)  # as if there were one process


def test_an_unknown_label_is_named_at_once(items):
    table = cav_mae.LabelTable(("a", "b"), ("a", "b"))
    with pytest.raises(DatasetError, match="clip3: unknown label 'c'; expected a mid or a name of the 2"):
        cav_mae.CAVMAEDataset(items, table, **TINY)
    dataset = cav_mae.CAVMAEDataset(items, table, on_error="skip", **TINY)
    assert dataset[3] is None and dataset[2] is not None
    assert "1 of 6 items left out\n  DatasetError: clip3: unknown label 'c'" in dataset.report()


def test_a_partner_that_cannot_be_used_is_no_partner(items, tmp_path):
    gone = cav_mae.ExtractedItem(("a",), "gone", tmp_path / "gone.wav", tmp_path)
    augment, table = cav_mae.Augmentation(mixup=1.0), cav_mae.LabelTable.of(items)
    strict = cav_mae.CAVMAEDataset([items[0], gone], table, augment, **TINY)
    with pytest.raises(MediaError, match="gone"):
        for epoch in range(20):
            strict.set_epoch(epoch)
            strict[0]
    lenient, again = (
        cav_mae.CAVMAEDataset([items[0], gone, items[1]], table, augment, on_error="skip", **TINY) for _ in range(2)
    )
    assert again[1] is None  # known from the start here, found out later there: the draws are the same
    for epoch in range(10):
        lenient.set_epoch(epoch)
        again.set_epoch(epoch)
        assert same(lenient[0], again[0])
    assert len(lenient.skipped()) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"frame": 10}, "frame: 10; expected 0 to 9"),
        ({"total_frames": 0}, "total_frames"),
        ({"std": 0.0}, "std: 0.0"),
        ({"on_error": "zeros"}, "'zeros'; expected one of 'raise', 'skip'"),
        ({"augmentation": cav_mae.Augmentation(time_mask=193), "target_length": 192}, "time_mask: 193"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_cannot_be(items, options, match):
    with pytest.raises(ParameterError, match=match):
        cav_mae.CAVMAEDataset(items, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mixup": 1.5}, "mixup: 1.5; expected 0 to 1"),
        ({"label_smoothing": 1.0}, "smoothing"),
        ({"freq_mask": -1}, "freq_mask"),
    ],
)
def test_augmentation_that_cannot_be(options, match):
    with pytest.raises(ParameterError, match=match):
        cav_mae.Augmentation(**options)


def test_no_items():
    with pytest.raises(DatasetError, match="items: none"):
        cav_mae.CAVMAEDataset([])


# Balance and splits


def test_weights_are_the_published_ones(items):
    counts = {"a": 3, "b": 2, "c": 1}
    expected = [sum(1000 / (counts[label] + 0.01) for label in item.labels) for item in items]
    table = cav_mae.LabelTable.of(items)
    assert cav_mae.balanced_weights(items, table).tolist() == pytest.approx(expected)
    assert expected[4] == 0


def test_balanced_draws_see_rare_classes_as_often():
    weights = cav_mae.balanced_weights(
        [cav_mae.ClipItem((label,), Path(f"{i}.mp4")) for i, label in enumerate(["rare"] * 5 + ["common"] * 995)],
        cav_mae.LabelTable(("rare", "common"), ("rare", "common")),
    )
    sampler = BalancedSampler(weights, seed=1)
    pairs = list(sampler)
    assert len(pairs) == len(sampler) == 1000 and len(set(pairs)) == 1000  # no item is augmented alike twice
    assert sum(index < 5 for index, _ in pairs) == pytest.approx(500, abs=60)
    assert list(sampler) == pairs
    sampler.set_epoch(1)
    assert list(sampler) != pairs


def test_a_balanced_loader(items):
    dataset = cav_mae.CAVMAEDataset(items, None, ALL, **TINY)
    sampler = BalancedSampler(cav_mae.balanced_weights(items, dataset.table))
    batches = list(DataLoader(dataset, 3, sampler=sampler))
    assert len(batches) == 2 and all((batch.labels.max(1).values > 0.2).all() for batch in batches)  # none unlabelled


def test_balance_needs_labels():
    with pytest.raises(DatasetError, match="no item weighs anything"):
        BalancedSampler(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ParameterError, match="weights"):
        BalancedSampler(torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_a_split_is_by_seed_and_in_proportion():
    items = cav_mae.scene_items(80, seconds=1.0)
    train, held_out = split(items, 16, seed=0)
    assert len(train) == 64 and len(held_out) == 16 and not set(train) & set(held_out)
    assert all([item.labels for item in held_out].count((kind,)) == 2 for kind in {item.scene.kind for item in items})
    assert split(items, 16, seed=0) == (train, held_out) != split(items, 16, seed=1)
    assert split(items, 0) == (items, []) and split(items, 80) == ([], items)
    with pytest.raises(ParameterError, match="held_out: 81"):
        split(items, 81)
