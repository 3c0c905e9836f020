"""Songs as diff-svc takes them: one signal, aligned pieces, batches; what is cached, refused and left out."""

import shutil

import numpy as np
import pytest
import torch
from making import write_wav
from torch import nn

from avlib import features, media
from avlib.clips import song
from avlib.datasets import svc
from avlib.datasets.sampling import LengthBuckets
from avlib.datasets.svc import Data, Piece, Source, SVCDataset
from avlib.datasets.voices import Voices
from avlib.errors import DatasetError, MediaError, ParameterError, TooShortError
from avlib.extract.units import ContentEncoder


class Loudness(nn.Module):
    """Two values for each unit; counts its calls, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, sound):
        self.calls.append(sound[0])
        units = sound[:, : sound.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        return torch.stack([units.mean(2), units.square().mean(2)], dim=2)


@pytest.fixture
def encoder():
    return ContentEncoder("loudness", Loudness(), 2, pad=None)


def voice(seconds, hertz=220.0, rate=44100):
    """A steady voice: ten harmonics."""
    times = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return sum(0.2 / k * torch.sin(2 * torch.pi * hertz * k * times) for k in range(1, 11)).float()


@pytest.fixture
def folder(tmp_path):
    """Two singers with two files each, of different lengths, rates and channels."""
    for number, (singer, seconds, rate, channels) in enumerate(
        [("ann", 1.0, 44100, 1), ("ann", 1.3, 48000, 2), ("bob", 0.8, 44100, 1), ("bob", 2.0, 32000, 1)]
    ):
        (tmp_path / singer).mkdir(exist_ok=True)
        sound = voice(seconds, 200.0 + 20 * number, rate)
        write_wav(tmp_path / singer / f"{number}.wav", torch.stack([sound, 0.5 * sound])[:channels], rate)
    return tmp_path


def split(folder, encoder, **data):
    return svc.split_songs(Data(**{"data": str(folder), "held_out": 0, "crop": 0} | data), encoder, progress=False)


# Files


def test_a_folder_a_file_and_a_table_are_listed(folder, tmp_path):
    found = svc.read_sources(str(folder))
    assert [(source.path.name, source.singer) for source in found] == [
        ("0.wav", "ann"), ("1.wav", "ann"), ("2.wav", "bob"), ("3.wav", "bob"),
    ]  # fmt: skip
    assert {source.singer for source in svc.read_sources(str(folder), ["bob"])} == {"bob"}
    assert {source.singer for source in svc.read_sources(str(folder / "bob"))} == {"bob"}
    assert svc.read_sources(str(folder / "bob/2.wav")) == [Source(folder / "bob/2.wav", "2")]
    (tmp_path / "list.csv").write_text("singer,path\ncy,ann/0.wav\n")
    assert svc.read_sources(str(tmp_path / "list.csv")) == [Source(tmp_path / "ann/0.wav", "cy")]


@pytest.mark.parametrize(
    ("content", "singers", "message"),
    [("path,name\na.wav,x\n", [], "expected path and singer"), ("path,singer\na.wav,x\n", ["y"], "no sound of y")],
)
def test_lists_that_cannot_be_used(tmp_path, content, singers, message):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        svc.read_sources(str(tmp_path / "list.csv"), singers)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no sound files"):
        svc.read_sources(str(tmp_path / "empty"))


def test_mel_pitch_and_units_come_of_one_signal(folder, encoder):
    path = folder / "ann/1.wav"  # its second channel is quieter
    (piece,) = svc.prepared(Source(path, "ann"), Data(), encoder)
    mono = media.read_audio(path, 44100)
    torch.testing.assert_close(piece.mel, features.svc_log_mel(mono[None])[0])
    assert len(piece.mel) == len(mono) // 512 and len(piece.units) == svc.features.svc_units(len(mono), 44100)
    assert torch.equal(piece.mel2ph, features.mel2ph(len(piece.mel), len(piece.units)))
    inside = piece.voiced[5:-5]
    assert inside.all() and piece.hertz[5:-5].sub(220).abs().max() < 0.5
    power = encoder.network.calls[0].square().mean()  # of sound at 16 kHz
    torch.testing.assert_close(power, mono.square().mean(), rtol=0.01, atol=0)


def test_a_song_is_cut_in_its_pauses_and_silence_is_left_out(tmp_path, encoder):
    parts = [voice(5.5), torch.zeros(44100), voice(5.2, 180.0), torch.zeros(22050), voice(0.1)]
    media.write_wav(tmp_path / "song.wav", torch.cat(parts), 44100)
    pieces = svc.prepared(Source(tmp_path / "song.wav", ""), Data(), encoder)
    medians = [round(float(piece.hertz[piece.voiced].median())) for piece in pieces]
    assert medians[:2] == [220, 180] and all(len(piece.mel) > 5 * 86 for piece in pieces[:2])
    assert sum(len(piece.mel) for piece in pieces) < 12.2 * 86.2
    halves = svc.prepared(Source(tmp_path / "song.wav", ""), Data(longest=3.0), encoder)
    assert len(halves) > len(pieces) and max(len(piece.mel) for piece in halves) <= 3.02 * 86.2


def test_it_is_computed_once_wherever_the_file_lies(folder, encoder, monkeypatch):
    monkeypatch.setenv("AVLIB_CACHE", str(folder / "cache"))  # other tests prepare the same sounds
    first = split(folder, encoder)
    calls = len(encoder.network.calls)
    shutil.copytree(folder / "ann", folder / "moved/ann")
    again = split(folder / "moved", ContentEncoder("loudness", encoder.network, 2, pad=None))
    assert len(encoder.network.calls) == calls == 4
    assert all(torch.equal(a, b) for a, b in zip(first.train[1][:5], again.train[1][:5], strict=True))
    split(folder / "moved", encoder, pitch="pyin")
    assert len(encoder.network.calls) > calls, "another method is computed anew"


def test_unusable_files_are_refused_or_left_out_and_counted(folder, encoder):
    media.write_wav(folder / "ann/silent.wav", torch.zeros(44100), 44100)
    media.write_wav(folder / "ann/short.wav", voice(0.05), 44100)
    media.write_wav(folder / "bob/noise.wav", 0.3 * torch.rand(44100) - 0.15, 44100)
    (folder / "bob/text.wav").write_text("no sound")
    for name, error, message in (
        ("ann/silent", MediaError, "is silent"), ("ann/short", TooShortError, "0.050 s"),
        ("bob/noise", MediaError, "voiced"), ("bob/text", MediaError, "text.wav"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            svc.prepared(Source(folder / f"{name}.wav", ""), Data(), encoder)
    with pytest.raises(MediaError):
        split(folder, encoder)
    train, held_out = split(folder, encoder, on_error="skip")
    assert len(train) == 4 and held_out is None
    assert "4 of 8" in train.report() and "is silent" in train.report()


def test_a_narrow_file_is_said(tmp_path, encoder):
    media.write_wav(tmp_path / "a.wav", voice(1.0, rate=8000), 8000)
    train, _ = split(tmp_path, encoder)
    assert "8000 Hz" in train.report() and float(train[0].mel[9:-9, 100:].max()) < -4


def test_the_users_pieces_are_divided_by_singer(folder, encoder):
    for number in range(8):
        shutil.copy(folder / "ann/0.wav", folder / f"ann/copy{number}.wav")
    train, held_out = split(folder, encoder, held_out=5)
    assert (len(train), len(held_out)) == (10, 2) and train.singers == ("ann", "bob")


def test_few_bins_are_means_of_neighbours(folder, encoder):
    fine, coarse = (split(folder, encoder, mels=mels).train[0].mel for mels in (128, 32))
    torch.testing.assert_close(coarse[:, 3], fine[:, 12:16].mean(1))


# Batches


def piece(frames, units, seed=0):
    dice = torch.Generator().manual_seed(seed + 1000 * frames)
    mel = torch.rand(frames, 4, generator=dice) - 3
    numbers = features.mel2ph(frames, units)
    return Piece(mel, 100 + mel[:, 0], mel[:, 0] > -2.5, torch.rand(units, 3, generator=dice), numbers, seed % 2)


PIECES = [piece(50, 29, 0), piece(31, 18, 1), piece(80, 46, 2)]


def test_items_are_aligned_and_then_padded():
    batch = SVCDataset.collate(PIECES)
    assert batch.lengths.tolist() == [50, 31, 80] and batch.unit_lengths.tolist() == [29, 18, 46]
    assert batch.singers.tolist() == [0, 1, 0]
    for row, one in enumerate(PIECES):
        frames, units = len(one.mel), len(one.units)
        for name, end in (("mel", frames), ("hertz", frames), ("voiced", frames), ("mel2ph", frames), ("units", units)):
            padded = getattr(batch, name)[row]
            assert torch.equal(padded[:end], getattr(one, name)), name
            assert (padded[end:] == (features.SVC_FLOOR if name == "mel" else 0)).all(), name
    assert torch.equal(batch.mask, batch.mel2ph > 0)


def test_a_crop_keeps_the_units_of_its_frames():
    one = PIECES[2]
    for start in (0, 7, 40):
        part = one.part(start, 40)
        assert torch.equal(part.mel, one.mel[start : start + 40])
        assert torch.equal(part.units[part.mel2ph - 1], one.units[one.mel2ph - 1][start : start + 40])
        assert part.mel2ph[0] == 1 and part.mel2ph[-1] == len(part.units)


def test_crops_follow_from_seed_epoch_and_index():
    dataset = SVCDataset(PIECES, ("a", "b"), crop=30)
    starts = [float(dataset[2].mel[0, 0])]
    for epoch in (1, 0):
        dataset.set_epoch(epoch)
        starts.append(float(dataset[2].mel[0, 0]))
    assert starts[0] == starts[2] != starts[1] and dataset.lengths == [30, 30, 30]
    assert len(SVCDataset(PIECES, ("a", "b"), crop=64)[0].mel) == 50, "a shorter piece is whole"


def test_buckets_hold_similar_lengths():
    lengths = np.random.default_rng(0).integers(100, 1200, 203).tolist()
    sampler = LengthBuckets(lengths, 8, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert sorted(orders[0]) == list(range(203)) and orders[0] == orders[2] != orders[1]

    assert sorted(LengthBuckets([5, 6, 7], 8)) == [0, 0, 0, 1, 1, 1, 2, 2], "fewer than a batch come again"

    def padding(order):
        batches = [[lengths[i] for i in order[b : b + 8]] for b in range(0, 200, 8)]
        return 1 - sum(map(sum, batches)) / sum(8 * max(batch) for batch in batches)

    assert padding(orders[0]) < 0.12 < 0.35 < padding(range(203))


# Labelled sound


def test_a_label_is_that_of_the_frame_in_the_middle_of_its_unit():
    one = song.Song("mira", seconds=2.0)
    labels = svc.labels_of(one.truth, "vowels", 100)
    for unit in (0, 13, 50, 99):
        frame = int((unit + 0.5) * 0.02 * 44100 / 512)
        assert labels[unit] == one.truth.vowels[frame]
    singers = svc.labels_of(one.by("otto").truth, "singers", 100)
    assert set(singers.tolist()) == {svc.UNKNOWN, 1}


def test_windows_of_labelled_sound():
    voices = svc.labelled_voices("vowels", 1, 1, 5, 40)
    item = voices[0]
    assert item.waveform.shape == (40 * 320,) and item.labels.shape == (40,) and item.waveform.abs().max() <= 1
    batch = Voices.collate([item, type(item)(item.waveform[:6400], item.labels[:20])])
    assert batch.waveform[1, 6400:].eq(0).all() and batch.labels[1, 20:].eq(svc.UNKNOWN).all()
    assert svc.classes("vowels")[1] == "a" and svc.classes("singers") == svc.SINGERS


def test_settings_are_checked():
    for name, value in (("mels", 100), ("longest", 0), ("pitch", "ear"), ("on_error", "ask")):
        with pytest.raises(ParameterError, match=name):
            Data(**{name: value})
