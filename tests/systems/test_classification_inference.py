"""A saved classifier: what it refuses, what it says of files, and where it says that the evidence is."""

import csv
import shutil
import warnings
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from making import tone, write_wav
from toned import read_tones, write_tones

from avlib import media
from avlib.datasets.classification import AGES, Example, Labels, Recording
from avlib.errors import CheckpointError, DatasetError, MediaError, ParameterError
from avlib.models.classifiers import AudioClassifier, Config
from avlib.systems import classification as system
from avlib.systems.classification import data
from avlib.systems.classification.data import CARD, Card
from avlib.systems.classification.inference import Classifier, contributions, occlusion

LABELS = Labels(("high", "low"))
HASHES = {"train": "aa", "valid": "bb", "test": "cc"}
RATE = 16000


def built(task="classification", backbone="whisper-base", **settings):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*normalised over time.*")  # tests of the models are about that
        return AudioClassifier(backbone, task=task, small=True, seconds=0.5, **settings).eval()


@pytest.fixture(scope="module")
def model():
    return built(word="film", num_words=2)


@pytest.fixture(scope="module")
def settings():
    return system.changed(system.tiny, {"seconds": 0.5, "pad": "full", "word": "film"})


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones") / "nested", speakers=2)


def probabilities(prediction):
    return prediction.probabilities.numpy()


def card(labels=LABELS, **known):
    return Card(labels.names, labels.task, 0.5, **known)


@pytest.fixture
def folder(tmp_path, model, settings):
    path = tmp_path / "saved"
    card(
        words=("one", "two"), ages=AGES, target="label", statistics={"mean": 0.5}, splits=HASHES,
        settings=asdict(settings),
    ).save(model, path)  # fmt: skip
    return path


@pytest.fixture
def classifier(folder):
    return Classifier.load(folder, device="cpu")


@pytest.fixture
def plain(tmp_path):
    """One that is told nothing."""
    return Classifier(built(), Card(("high", "low"), "classification", 0.5))


def test_a_model_that_is_being_trained_answers_without_dropout_and_stays_as_it_was(table):
    model = built(dropout=0.5)
    asked = Classifier(model, Card(("high", "low"), "classification", 0.5))
    wanted = probabilities(asked.predict(table.parent.parent, hop=0))
    model.train()
    asked = Classifier(model, Card(("high", "low"), "classification", 0.5))
    assert np.array_equal(probabilities(asked.predict(table.parent.parent, hop=0)), wanted)
    assert model.training


# Saved and loaded


def test_row_21_a_saved_model_carries_what_its_answers_mean(folder, model, settings):
    found = Classifier.load(folder, device="cpu")
    card = found.card
    assert card.names == ("high", "low") and card.words == ("one", "two") and card.ages == AGES
    assert (card.seconds, card.crop, card.target, card.splits) == (0.5, "start", "label", HASHES)
    assert card.statistics == {"mean": 0.5} and card.settings["model"]["word"] == "film"
    waveform = torch.randn(1, 6000)
    assert torch.equal(found.model(waveform, word=torch.tensor([1])), model(waveform, word=torch.tensor([1])))
    assert not found.model.training


def test_what_is_loaded_can_be_saved_again(classifier, tmp_path):
    classifier.save(tmp_path / "again")
    classifier.save(tmp_path / "again")  # in place of the first
    assert Card.read(tmp_path / "again") == classifier.card


def test_names_in_any_script_survive(tmp_path):
    card(Labels(("비정상", "정상"))).save(built(), tmp_path / "saved")
    assert Classifier.load(tmp_path / "saved").card.names == ("비정상", "정상")


def test_what_agrees_is_accepted_and_the_training_may_differ(folder, settings):
    other = system.changed(settings, {"learning_rate": 1e-5, "loss": "focal", "clips_seed": 5, "freeze": "all"})
    Classifier.load(folder, labels=LABELS, settings=other, splits=SimpleNamespace(hashes=HASHES))


def test_what_a_training_leaves_is_loaded_by_its_settings_and_parts(table, settings):
    how = {"data.data": str(table), "test_size": 0.5, "valid_size": 0.0, "epochs": 1, "batch_size": 4}
    settings = system.changed(settings, how)
    trained, own = system.trained(settings, device="cpu", progress=False), system.parts(settings, progress=False)
    found = Classifier.load(trained.folder, labels=own.labels, settings=settings, splits=own.splits, device="cpu")
    expected = system.predict(trained.model, own.test)
    answers = found.predict(own.test.recordings, hop=0)
    assert torch.allclose(answers.probabilities, expected.probabilities, atol=1e-5) and answers.paths == expected.paths
    assert found.card.statistics["clips"] == len(own.train) and found.card.words == ("one", "two")
    seeds = (system.changed(settings, {"split_seed": seed}) for seed in range(1, 20))
    others = (system.parts(each, progress=False).splits for each in seeds)
    other = next(splits for splits in others if splits.test != own.splits.test)
    with pytest.raises(CheckpointError, match="other clips in train and test"):
        Classifier.load(trained.folder, splits=other)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (Labels(("low", "high")), "for classification of high, low; expected classification of low, high"),
        (Labels(("high", "low", "mid")), "low, mid"),
        (Labels(("a", "b")), "expected classification of a, b"),
        (Labels((), "regression"), "expected regression"),
    ],
)
def test_a_checkpoint_for_other_labels_is_refused(folder, labels, found):
    with pytest.raises(CheckpointError, match=found):
        Classifier.load(folder, labels=labels)


@pytest.mark.parametrize(
    "other",
    [
        {"seconds": 1.0},
        {"backbone": "resnet50"},
        {"word": "heads"},
        {"word": ""},
        {"target": "age"},
        {"words": ["one"]},
    ],
)
def test_other_settings_are_refused_and_named(folder, settings, other):
    with pytest.raises(CheckpointError, match=f"other settings: {next(iter(other))} "):
        Classifier.load(folder, settings=system.changed(settings, other))


def test_a_card_that_does_not_say_its_settings_agrees_with_none(folder, model):
    card(words=("one", "two")).save(model, folder)
    with pytest.raises(CheckpointError, match="other settings: backbone unknown for 'resnet50'"):
        Classifier.load(folder, settings={"model": {"backbone": "resnet50"}})
    assert Classifier.load(folder, settings={"loss": {"loss": "focal"}})


@pytest.mark.parametrize("name", [each.name for each in fields(Config)])
def test_every_setting_of_a_model_has_to_agree_unless_it_is_of_the_training(folder, name):
    own = asdict(Config(backbone="whisper-base", small=True, word="film", standardize=True))
    other = {"model": {name: "another"}}
    if name in ("dropout", "freeze"):  # of the training alone
        assert Classifier.load(folder, settings=other)
        return
    with pytest.raises(CheckpointError, match=f"other settings: {name} {own[name]!r} for 'another'"):
        Classifier.load(folder, settings=other)


def test_other_parts_of_the_clips_are_refused_and_named(folder):
    with pytest.raises(CheckpointError, match="other clips in test"):
        Classifier.load(folder, splits=HASHES | {"test": "dd"})
    card().save(built(), folder)  # none are known
    with pytest.raises(CheckpointError, match="train and valid and test"):
        Classifier.load(folder, splits=HASHES)


def test_weights_of_another_model_are_refused(folder, tmp_path, model):
    three = built(num_outputs=3, word="film", num_words=2)
    three.save(tmp_path / "three")
    shutil.copytree(tmp_path / "three", folder, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match="outputs: 3 and 2"):
        Classifier.load(folder)
    with pytest.raises(CheckpointError, match="words: 2 and 3"):
        card(words=tuple("abc")).save(built(word="film", num_words=2), tmp_path / "new")
    with pytest.raises(CheckpointError, match="task"):
        card().save(built("regression"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("[1]", "no card"),
        ('{"format": "avlib classifier 0"}', "no card"),
        ('{"format": "avlib classifier 1", "names": [], "more": 1}', "lacks .*task.* has .*more"),
    ],
)
def test_a_card_that_is_missing_or_damaged_is_refused(folder, content, found):
    (folder / CARD).unlink()
    if content is not None:
        (folder / CARD).write_text(content)
    with pytest.raises(CheckpointError, match=found):
        Classifier.load(folder)


def test_a_killed_process_leaves_no_old_card_beside_new_weights(folder, model, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "publishing", killed)  # of the card; weights have their own
    with pytest.raises(KeyboardInterrupt):
        card(words=("one", "two")).save(model, folder)
    with pytest.raises(CheckpointError, match="No such file"):
        Classifier.load(folder)


# Answers for files


def test_files_folders_tables_and_recordings_give_the_models_probabilities(classifier, table):
    recordings, _ = read_tones(table)
    found = classifier.predict(table, hop=0)
    with torch.no_grad():
        for row, recording in enumerate(recordings):
            waveform = media.read_audio(recording.path)[:8000]
            padded = torch.nn.functional.pad(waveform, (0, 8000 - len(waveform)))[None]
            word = torch.tensor([("one", "two").index(recording.word)])
            logits = classifier.model(padded, torch.tensor([len(waveform)]), word=word)
            assert probabilities(found)[row] == pytest.approx(logits.softmax(dim=1)[0].numpy(), abs=1e-5)
            assert found.labels[row] == ("high", "low")[int(logits.argmax())]
    assert found.paths == tuple(str(recording.path) for recording in recordings)
    assert np.array_equal(probabilities(classifier.predict(recordings, hop=0)), probabilities(found))
    first = [recording for recording in recordings if recording.word == "one"]
    in_folder = classifier.predict(table.parent.parent, word="one", hop=0)
    places = [in_folder.paths.index(str(recording.path)) for recording in first]
    assert probabilities(in_folder)[places] == pytest.approx(
        probabilities(found)[[recordings.index(r) for r in first]], abs=1e-5
    )
    one = classifier.predict(first[0].path, word="one", hop=0)
    assert probabilities(one) == pytest.approx(probabilities(in_folder)[places[:1]], abs=1e-5) and len(one) == 1


def test_a_long_clip_is_heard_in_windows(plain, tmp_path):
    waveform = torch.cat([tone(0.5, RATE, 300), tone(0.7, RATE, 3000)], dim=1)
    path = write_wav(tmp_path / "long.wav", waveform, RATE)
    found = plain.predict(path)
    assert len(found.windows[0].starts) == 4 and found.seconds.tolist() == pytest.approx([1.2])
    with torch.no_grad():
        rows = [plain.model(waveform[:, first : first + 8000]).softmax(dim=1) for first in (0, 4000, 8000, 11200)]
        assert probabilities(found)[0] == pytest.approx(torch.cat(rows).mean(dim=0).numpy(), abs=1e-5)
        assert probabilities(plain.predict(path, hop=0))[0] == pytest.approx(rows[0][0].numpy(), abs=1e-5)
    assert torch.allclose(found.window_probabilities(), torch.cat(rows), atol=1e-5)
    assert found.windows[0].starts.tolist() == [0, 4000, 8000, 11200]


def test_without_windows_the_part_is_heard_that_training_would_have_taken(tmp_path):
    waveform = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) / 10
    path, net = write_wav(tmp_path / "long.wav", waveform, RATE), built()
    centre = Classifier(net, Card(("a", "b"), "classification", 0.5, "centre")).predict(path, hop=0)
    with torch.no_grad():
        assert probabilities(centre)[0] == pytest.approx(
            net(waveform[:, 4000:12000]).softmax(dim=1)[0].numpy(), abs=1e-5
        )


def test_a_regression_gives_numbers(tmp_path):
    path, net = write_wav(tmp_path / "a.wav", tone(0.5, RATE), RATE), built("regression")
    found = Classifier(net, Card((), "regression", 0.5)).predict(path)
    with torch.no_grad():
        assert found.labels[0] == pytest.approx(float(net(tone(0.5, RATE))), abs=1e-5)
    assert list(found.columns) == ["path", "seconds", "windows", "prediction"]


def test_words_that_the_model_does_not_know_or_need(classifier, plain, table):
    paths = [recording.path for recording in read_tones(table)[0]][:2]
    with pytest.raises(ParameterError, match=r"'ones' is none of the 2 .*Did you mean 'one'"):
        classifier.predict(paths, word="ones")
    with pytest.raises(ParameterError, match=r"word: none for .*one, two"):
        classifier.predict(paths)
    with pytest.raises(ParameterError, match="word: 3; expected one, or one for each of 2"):
        classifier.predict(paths, word=["one"] * 3)
    with pytest.raises(ParameterError, match="'ones' is none"):
        classifier.predict(paths, word=["one", "ones"], on_error="skip")
    each = classifier.predict(paths, word=["one", "two"])
    alone = [classifier.predict(path, word=word) for path, word in zip(paths, ("one", "two"), strict=True)]
    assert probabilities(each) == pytest.approx(np.concatenate([probabilities(found) for found in alone]), abs=1e-5)
    assert len(plain.predict(paths, word="whatever")) == 2


def test_a_word_of_the_table_that_training_did_not_have(classifier, table):
    recordings = read_tones(table)[0][:3]
    recordings[1] = replace(recordings[1], word="three")
    with pytest.raises(DatasetError, match="'three' is none of the 2"):
        classifier.predict(recordings)
    found = classifier.predict(recordings, on_error="skip")
    assert len(found) == 2 and "'three'" in found.report
    assert len(classifier.predict(recordings, word="two")) == 3  # what is given wins


def test_ages_that_the_model_needs(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(0.5, RATE), RATE)
    net = built(age="film", num_ages=len(AGES))
    torch.nn.init.normal_(net.films["age"].table.weight)
    told = Classifier(net, Card(("a", "b"), "classification", 0.5, ages=AGES))
    with pytest.raises(ParameterError, match="age: none"):
        told.predict(path)
    for on_error in ("raise", "skip"):
        with pytest.raises(ParameterError, match="99 years"):
            told.predict([path, path], age=[AGES[2], 99], on_error=on_error)
    with pytest.raises(DatasetError, match="99 years"):
        told.predict(Recording(path, "", age=99.0))
    with torch.no_grad():
        expected = net(tone(0.5, RATE), age=torch.tensor([2])).softmax(dim=1)[0]
    assert probabilities(told.predict(path, age=AGES[2]))[0] == pytest.approx(expected.numpy(), abs=1e-5)
    assert np.array_equal(
        probabilities(told.predict(Recording(path, "", age=AGES[2]))),
        probabilities(told.predict(path, age=AGES[2])),
    )


# Bad input


@pytest.mark.parametrize(
    "backbone", ["whisper-base", "wav2vec2-base", "wav2vec2-large-lv60", "hubert-base", "resnet50", "ast", "beats"]
)
def test_a_clip_of_a_tenth_of_a_second_with_every_backbone(tmp_path, backbone):
    path = write_wav(tmp_path / "short.wav", tone(0.1, RATE), RATE)
    short = Classifier(built(backbone=backbone), Card(("a", "b"), "classification", 0.5))
    found = short.predict(path)
    assert probabilities(found).sum() == pytest.approx(1) and found.seconds.tolist() == pytest.approx([0.1])
    evidence = short.evidence(path)
    assert evidence.method == "contributions" and evidence.times[-1] >= 0.1
    assert np.isfinite(short.evidence(path, method="occlusion", width=0.05).values).all()


def test_stereo_is_its_mean_and_8_khz_is_resampled(plain, tmp_path):
    left, right = tone(0.5, RATE, 300), tone(0.5, RATE, 500)
    both = write_wav(tmp_path / "stereo.wav", torch.cat([left, right]), RATE)
    mono = write_wav(tmp_path / "mono.wav", (left + right) / 2, RATE)
    assert probabilities(plain.predict(both)) == pytest.approx(probabilities(plain.predict(mono)), abs=1e-5)
    low = write_wav(tmp_path / "low.wav", tone(0.5, 8000, 300), 8000)
    high = write_wav(tmp_path / "high.wav", tone(0.5, RATE, 300), RATE)
    found = plain.predict([low, high])
    assert found.seconds.tolist() == pytest.approx([0.5, 0.5], abs=0.002)
    assert probabilities(found)[0] == pytest.approx(probabilities(found)[1], abs=0.02)


def test_silence_has_an_answer(plain, tmp_path):
    path = write_wav(tmp_path / "silence.wav", torch.zeros(1, 8000), RATE)
    assert np.isfinite(probabilities(plain.predict(path))).all()
    assert np.abs(plain.evidence(path, method="occlusion").values).max() < 1e-4  # nothing there to be silenced


def test_an_empty_folder_and_a_missing_file_are_refused(plain, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no sound")
    for nothing in (tmp_path / "empty", []):
        with pytest.raises(DatasetError, match="no sound"):
            plain.predict(nothing)
    with pytest.raises(DatasetError, match="no such file"):
        plain.predict(tmp_path / "missing.wav")
    with pytest.raises(ParameterError, match="files: none is named"):
        plain.predict("")


def test_evidence_is_of_one_recording(plain, table):
    for several in (table, table.parent):
        with pytest.raises(ParameterError, match=r"file: 8 recordings in .*; expected one. .*predict"):
            plain.evidence(several)


def test_an_unreadable_file_among_good_ones_raises_or_is_reported(plain, tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.3, RATE), RATE)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    write_wav(tmp_path / "c.wav", tone(0.4, RATE), RATE)
    with pytest.raises(MediaError, match=r"b\.wav"):
        plain.predict(tmp_path)
    found = plain.predict(tmp_path, on_error="skip")
    assert [path[-5:] for path in found.paths] == ["a.wav", "c.wav"] and len(probabilities(found)) == 2
    assert found.report.startswith("1 of 3 items left out") and "b.wav" in found._repr_html_()
    listed = plain.predict([tmp_path / "a.wav", "zz.wav"], on_error="skip")
    assert len(listed.paths) == 1 and listed.report.startswith("1 of 2 items left out") and "zz.wav" in listed.report
    for nothing in ("b.wav", "zz.wav"):
        with pytest.raises(DatasetError, match="none can be used"):
            plain.predict(tmp_path / nothing, on_error="skip")
    with pytest.raises(ParameterError, match="on_error"):
        plain.predict(tmp_path, on_error="ignore")


def test_a_missing_file_of_a_table_is_reported_too(plain, table, tmp_path):
    lines = table.read_text().splitlines()
    shutil.copytree(table.parent, tmp_path / "copy")
    (tmp_path / "copy" / "more.csv").write_text(
        "\n".join(["path", *(line.split(",")[0] for line in lines[1:]), "no.wav"])
    )
    found = plain.predict(tmp_path / "copy" / "more.csv", on_error="skip")
    assert len(found) == len(lines) - 1 and "no.wav" in found.report


# Tables and vectors


def test_a_table_is_written_and_shown(plain, table, tmp_path):
    found = plain.predict(table)
    found.to_csv(tmp_path / "answers.csv")
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["prediction"] for row in rows] == found.labels
    assert [float(row["p(low)"]) for row in rows] == pytest.approx(probabilities(found)[:, 1].tolist())
    assert found._repr_html_().count("<tr>") == 1 + len(found) and "<pre>" not in found._repr_html_()


def test_embeddings_are_the_models_and_are_exported(plain, table, tmp_path):
    path = read_tones(table)[0][0].path
    found = plain.predict([path], hop=0)
    waveform = media.read_audio(path)[None, :8000]
    with torch.no_grad():
        net = plain.model
        padded = torch.nn.functional.pad(waveform, (0, 8000 - waveform.shape[1]))
        expected = net.read(net.features(padded, torch.tensor([waveform.shape[1]]))).embedding
    assert torch.allclose(found.embeddings, expected, atol=1e-4)
    found.save_embeddings(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["embeddings"], found.embeddings) and arrays["paths"].tolist() == [str(path)]


# Evidence


@pytest.mark.parametrize("backbone", ["whisper-base", "resnet50", "beats"])
def test_contributions_add_up_to_the_score(tmp_path, backbone):
    path, net = write_wav(tmp_path / "a.wav", tone(0.4, RATE), RATE), built(backbone=backbone, num_outputs=3)
    found = Classifier(net, Card(("a", "b", "c"), "classification", 0.5)).evidence(path, label="b")
    padded = torch.nn.functional.pad(tone(0.4, RATE), (0, 1600))
    with torch.no_grad():
        logits = net(padded, torch.tensor([6400]))[0]
    assert found.score == pytest.approx(float(logits[1] - (logits[0] + logits[2]) / 2), abs=1e-4)
    assert found.values.sum() + found.rest == pytest.approx(found.score)
    assert found.label == "b" and found.seconds == 0.4 and found.method == "contributions"
    assert found.times.shape == (found.values.shape[1] + 1,) and found.hertz.shape == (found.values.shape[0] + 1,)
    assert found.hertz[0] == 0 and found.hertz[-1] == pytest.approx(8000)


def clip(waveform):
    return Example(waveform, len(waveform))


class Loud(torch.nn.Module):
    """Class 1 is as loud as the clip is between 0.2 and 0.3 s, above 2 kHz."""

    def __init__(self, outputs=2):
        super().__init__()
        self.outputs = outputs
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        self.config, self.needs, self.min_samples = {"seconds": 0.5}, (), 1

    def features(self, waveform, lengths):
        return SimpleNamespace(values=waveform)

    def read(self, features):
        spectrum = torch.fft.rfft(features.values[:, 3200:4800])  # bins of 10 Hz
        loud = spectrum[:, 200:].abs().square().mean(dim=1)
        columns = [torch.zeros_like(loud)] * (self.outputs - 1) + [loud]
        return SimpleNamespace(logits=torch.stack(columns, dim=1), embedding=features.values[:, :4])


def test_occlusion_finds_when_and_at_which_frequencies():
    noise = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    how = {"width": 0.05, "bands": 4}
    found = occlusion(Loud(), clip(noise), 8000, LABELS, 1, **how)
    middles = (found.times[1:] + found.times[:-1]) / 2
    inside = (middles > 0.2) & (middles < 0.3)
    assert found.values.shape == (4, 20) and found.hertz[1] < 2000 < found.hertz[3]
    high = found.values[3]
    assert high[inside].min() > 0.05 * found.score and np.abs(high[(middles < 0.15) | (middles > 0.35)]).max() < 1e-3
    assert np.abs(found.values[0]).max() < 0.02 * high.max()
    assert found.label == "low" and np.isnan(found.rest) and found.method == "occlusion"
    # what speaks for one of two classes speaks as much against the other
    other = occlusion(Loud(), clip(noise), 8000, LABELS, 0, **how)
    assert other.values == pytest.approx(-found.values) and other.score == pytest.approx(-found.score)
    number = occlusion(Loud(1), clip(noise), 8000, Labels((), "regression"), **how)
    assert number.values == pytest.approx(found.values) and number.label == ""


def test_silencing_everything_is_silence_and_nothing_is_the_clip():
    noise = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    seen = []

    class Noting(Loud):
        def features(self, waveform, lengths):
            seen.extend(zip(waveform, lengths.tolist(), strict=True))
            return super().features(waveform, lengths)

    occlusion(Noting(), clip(noise), 8000, LABELS, 1, width=0.6, steps=1)
    (whole, length), (silent, same) = seen
    assert torch.equal(whole[:4000], noise) and length == same == 4000
    assert silent.abs().max() < 1e-3 and whole.abs().max() > 0.1


def test_the_way_is_chosen_by_what_the_model_allows(plain, tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(0.4, RATE), RATE)
    bent = Classifier(built(pooling="attention"), plain.card)
    assert plain.evidence(path).method == "contributions" and bent.evidence(path).method == "occlusion"
    assert bent.evidence(path, width=0.1, bands=2).values.shape == (2, 8)
    with pytest.raises(ParameterError, match="pooling"):
        bent.evidence(path, method="contributions")
    with pytest.raises(ParameterError, match="width, bands: given for contributions"):
        plain.evidence(path, width=0.1, bands=2)
    with pytest.raises(TypeError, match="widht"):
        bent.evidence(path, widht=0.1)
    with pytest.raises(ParameterError, match="method"):
        plain.evidence(path, method="guess")
    with pytest.raises(ParameterError, match="high, low"):
        plain.evidence(path, label="middle")
    for wrong in ({"width": 0.001}, {"bands": 0}, {"steps": 0}):
        with pytest.raises(ParameterError):
            plain.evidence(path, method="occlusion", **wrong)


def test_by_default_evidence_is_for_the_class_that_is_named(plain, tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(0.4, RATE), RATE)
    assert plain.evidence(path).label == plain.predict(path).labels[0] and plain.evidence(path).score > 0
    sound = clip(media.read_audio(path))
    assert contributions(plain.model, sound, 8000, LABELS, 0).score == pytest.approx(
        -contributions(plain.model, sound, 8000, LABELS, 1).score
    )
