"""The notebooks are tests: each is in form, runs whole, on clips of many sorts, and its verdicts are the known ones."""

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT, recording
from making import numbered, published_files, tone, write_clip
from notebook_form import verify_form
from PIL import Image
from toned import write_tones

from avlib import errors, media, workbook
from avlib.clips import song
from avlib.models.audiotoken import AudioTokenEmbedder
from avlib.systems import classification, svc
from avlib.workbook import answers

NOTEBOOKS = {notebook.number: notebook.path for notebook in workbook.discover()}

# What the claims of each notebook come to, in order. A change here is a finding: say why in the commit.
VERDICTS = {
    "00": "holds",
    "01": "holds when, holds, holds when, holds when",
    "11": """does not hold, holds, holds, holds when, holds, holds when, holds, does not hold, holds, holds when, holds,
    holds, holds, holds, holds""",
    "12": """holds, holds, does not hold, does not hold, holds, holds, holds, holds, holds, holds when, holds, holds,
    holds when, holds, holds, holds, holds, holds""",
    "13": """holds, holds, holds when, holds when, holds when, holds, holds, holds, holds when, does not hold, holds,
    holds, holds, holds when, holds""",
    "14": "holds, holds, holds when, holds when, holds when, holds, holds",
    "15": "does not hold",
    "21": "holds when, holds, holds, holds when",
    "22": "holds, holds when, holds, holds when, holds when",
    "23": "holds, does not hold, does not hold",
    "24": "holds when, does not hold, does not hold, does not hold",
    "25": "does not hold, does not hold, holds when",
    "31": """holds, holds, holds when, holds, holds when, holds when, holds, holds when, holds when, holds,
    does not hold, holds when, holds when, holds, holds when, holds, holds when, holds, holds when, holds""",
    "32": "holds, holds, holds when, holds when, holds when, holds, holds when, holds when",
    "33": "holds, does not hold, holds, holds when, holds, holds when, holds when, holds when",
    "34": "holds when, does not hold, holds when",
    "35": "holds when, holds, holds",
    "41": "holds, holds, holds when",
    "42": "holds, holds, holds, holds, holds, holds when, holds when",
    "43": "does not hold, holds, does not hold, holds when, holds when",
    "44": """does not hold, holds, holds, holds, holds when, holds, holds, does not hold, holds when, does not hold,
    holds when, does not hold, does not hold, holds, holds, holds, does not hold, does not hold, does not hold,
    holds when, does not hold, holds when""",
    "45": "holds when, holds, holds",
    "51": "holds, holds, holds",
    "52": "holds when, holds, holds, holds when, holds, holds, holds when",
    "53": "holds, holds when, holds when, holds, holds, holds, holds when",
    "54": "holds when, holds when",
    "55": "holds, holds, holds when, holds when, holds when, holds when, holds when",
}
# Of what the models of these have learned, by the training that is the default. With shorter ones claims may come out
# otherwise, and others are not made of your own clips.
LEARNED = {
    "14": slice(3, 5),
    "35": slice(2, 3),
    "54": slice(0, 1),
}
# Trainings of a few steps on a few clips, which the notebooks of a row share through the cache of the session. In full
# they take minutes: `env/test --long` does that.
SCENES = {"clips": 512, "held_out": 128, "fine_tuning.steps": 6}
PAIRS = {"clips": 128, "held_out": 32, "inference_steps": 4}
SONGS = {"recognizer.voices": 8, "recognizer.steps": 10, "data.phrases": 6, "held_out": 4}
TALKS = {"recognizer.voices": 8, "recognizer.training.steps": 10, "data.talks": 12}
FEW = TALKS | {"data.held_out": 2, "face.talks": 4, "face.heads": 4, "face.rows": 2}
WORDS = {"speakers": 8, "test_size": 0.5, "valid_size": 0.25}
SHORT = {
    "13": {"steps": 24, "comparison_steps": 4, "tuning_steps": 6, "settings": SCENES},
    "14": {"steps": 24, "settings": SCENES},
    "15": {"steps": 24, "settings": SCENES},
    "23": {"steps": 30, "earlier_steps": 30, "comparison_steps": 2, "settings": PAIRS},
    "24": {"steps": 30, "settings": PAIRS},
    "25": {"steps": 30, "settings": PAIRS},
    "33": {"steps": 20, "comparison_steps": 4, "seeds": 1, "folds": 2},
    "34": {"steps": 2, "settings": {"speakers": 4, "test_size": 0.5}},
    "35": {"steps": 4},
    "41": {"phrases": 6, "settings": SONGS},
    "43": {"steps": 4, "earlier_steps": 10, "comparison_steps": 2, "settings": SONGS},
    "44": {"steps": 4, "settings": SONGS},
    "45": {"steps": 4, "settings": SONGS},
    "51": {"talks": 6, "settings": TALKS},
    "53": {"steps": 2, "earlier_steps": 10, "adversarial_steps": 2, "pitch_steps": 2, "face_steps": 2, "settings": FEW},
    "54": {"steps": 2, "talks": 2, "settings": FEW},
    "55": {"steps": 4, "settings": TALKS},
}
LONG = pytest.mark.long  # what only `env/test --long` runs


def run(number, folder, **parameters):
    """Run a notebook with short trainings; it must pass, with the known verdicts whatever the clip."""
    return run_with(SHORT.get(number, {}) | parameters, number, folder)


def run_with(parameters, number, folder):
    """Run a notebook with these parameters alone; settings may be given as a dict."""
    if isinstance(how := parameters.get("settings"), dict):
        (folder / "short.json").write_text(json.dumps(how))
        parameters = parameters | {"settings": str(folder / "short.json")}
    result = workbook.run_one(with_wrong_answers(number, folder), parameters, folder / f"{number}.ipynb")
    assert result.state == "passed", f"{result.message}\n{result.source}\n{result.traceback}"
    verdicts = [claim["verdict"] for claim in result.claims]
    expected = known(number)
    if {"steps", "data", "checkpoint"} & set(parameters):
        verdicts, expected = not_learned(number, verdicts), not_learned(number, expected)
    assert len(verdicts) == len(expected), verdicts
    for verdict, start in zip(verdicts, expected, strict=True):
        assert verdict.startswith(start), verdicts
    return result


# After the last cell: wrong answers to every exercise, of wrong types and of wrong values.
WRONG = """
from avlib.workbook.exercises import Exercise
asked = [each for each in globals().copy().values() if isinstance(each, Exercise)]
wrong_answers = None, "no such word", -1e9, 10**9, [], (-7, -7), {}
for each in asked:
    messages = [each.problem(wrong) for wrong in wrong_answers]
    assert all(messages), (each.question, messages)
    assert any("does not fit the question" not in message for message in messages), (each.question, messages)
print(f"{len({id(each) for each in asked})} exercises explain wrong answers")
"""


def with_wrong_answers(number, folder):
    """A copy of a notebook that at its end answers every exercise wrongly."""
    content = nbformat.read(NOTEBOOKS[number], as_version=4)
    content.cells.append(nbformat.v4.new_code_cell(WRONG))
    copied = folder / "asked" / NOTEBOOKS[number].relative_to(ROOT / "notebooks")
    copied.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, copied)
    return copied


def known(number):
    return [verdict.strip() for verdict in VERDICTS[number].split(",")]


def not_learned(number, claims):
    """All but what a model has learned."""
    learned = LEARNED.get(number, slice(0, 0))
    after = len(known(number)) - learned.stop
    return claims[: learned.start] + claims[len(claims) - after :]


def assert_as_in_answers(claims):
    """Each verdict is one that answers.md has there."""
    written = answers.recorded()
    for place, verdict in answers.verdicts(claims).items():
        kinds = [set(re.findall(r"holds when|does not hold|holds", text)) for text in (verdict, written[place])]
        assert kinds[0] <= kinds[1], f"{place}: answers.md says {written[place]!r}, the notebook {verdict!r}"


def refusal(number, **parameters):
    """Run the cells of a notebook here, without a kernel, until one refuses the parameters; return the message."""
    passed = "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in parameters.items())
    namespace = {"In": [""]}
    with torch.enable_grad():  # which some cells switch off for good
        for cell in nbformat.read(NOTEBOOKS[number], as_version=4).cells:
            sources = [cell.source] * (cell.cell_type == "code")
            for source in [*sources, passed] if "parameters" in cell.metadata.get("tags", []) else sources:
                namespace["In"].append(source)
                try:
                    exec(source, namespace)
                except errors.AvlibError as error:
                    return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was refused")


def test_all_are_there():
    assert set(NOTEBOOKS) == set(VERDICTS)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_form(number):
    assert verify_form(NOTEBOOKS[number]) == []


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_runs_on_the_built_in_clips(number, tmp_path):
    result = run(number, tmp_path, out_dir=str(tmp_path / "files"))
    assert_as_in_answers(not_learned(number, result.claims) if number in SHORT else result.claims)
    text = (tmp_path / f"{number}.ipynb").read_text()
    assert "Warning" not in text, "a reader would see a warning"
    exercises = sum("exercise" in cell.metadata.get("tags", []) for cell in nbformat.reads(text, 4).cells)
    assert f"{exercises} exercises explain wrong answers" in text
    if number == "01":
        assert_same_drawing(tmp_path / "files/overview.svg", ROOT / "notebooks/overview.svg")


@LONG
@pytest.mark.parametrize("number", SHORT)
def test_learns_with_its_defaults(number, tmp_path):
    result = run_with({}, number, tmp_path)
    if number == "13":
        learned = {figure["name"]: figure["value"] for figure in result.measured}
        assert min(learned[f"R@1 {way}"] for way in ("audio -> image", "image -> audio")) > 0.25  # the kind: 0.125
        assert learned["kind right"] > 0.8  # chance: 0.125
        assert learned["image error"] < 0.5 and learned["audio error"] < 0.95  # each patch's own mean: 0.995
    assert_as_in_answers(result.claims)


def assert_same_drawing(drawn, kept):
    """Equal texts, lines and boxes; pictures and the waveform up to rounding."""
    image, path = r"data:image/png;base64,([^\"]+)", r'<path d="(M1 [^"]+)"'
    parts = []
    for file in (drawn, kept):
        text = file.read_text()
        pictures = [np.asarray(Image.open(BytesIO(b64decode(found))), float) for found in re.findall(image, text)]
        wave = np.array([float(number) for number in re.findall(r"[\d.]+", re.search(path, text)[1])])
        parts.append((re.sub(path, "", re.sub(image, "", text)), [*pictures, wave]))
    (text, values), (kept_text, kept_values) = parts
    assert text == kept_text
    assert len(values) == 5
    for ours, theirs in zip(values, kept_values, strict=True):
        assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 3


def silent(path):
    media.write_video(path, map(numbered, range(40)), 10.0, torch.zeros(2, 44100 * 4), 44100)


def short(path):
    media.write_video(path, [numbered(1)], 25.0, tone(0.1, 8000), 8000)


def mono(path):
    media.write_video(path, map(numbered, range(75)), 29.97, tone(2.5, 22050), 22050)


def large_and_odd(path):
    frames = (np.full((721, 405, 3), 3 * index, np.uint8) for index in range(30))
    media.write_video(path, frames, 60.0, tone(0.5, 96000, channels=2), 96000)


def sound_alone(path):
    media.write_wav(path.with_suffix(".wav"), tone(0.4, 8000), 8000)
    return path.with_suffix(".wav")


# One notebook after another, so that a row reads a few sorts; all that reads them is tested below tests/media.
ODD = [
    ("21", mono, {}),
    ("24", silent, {"seconds": 0.3}),
    ("25", sound_alone, {}),
    ("34", silent, {"time_mask": 60}),
]
ODD_TOO = [
    *(("11", make, {}) for make in (silent, short, mono)),
    *((number, make, {}) for number in ("14", "15") for make in (silent, short)),
    *(("21", make, {}) for make in (silent, short, large_and_odd)),
    ("24", mono, {"seconds": 0.3}),
    ("25", silent, {}),
    *(("31", make, {"seconds": 0.5}) for make in (silent, short)),
    ("34", short, {"time_mask": 60}),
    ("41", short, {}),
    *(("41", make, {"seconds": 20, "singer": "otto", "method": "pyin"}) for make in (silent, mono, large_and_odd)),
    *(("45", make, {}) for make in (silent, short, mono)),
]


@pytest.mark.parametrize(("number", "make", "how"), [*ODD, *(pytest.param(*each, marks=LONG) for each in ODD_TOO)])
def test_runs_on_any_clip(number, make, how, tmp_path):
    clip = tmp_path / "종, 100%d.mp4"
    run(number, tmp_path, clip=str(make(clip) or clip), **how)


# 21, 22, 31, 32 and 35 run on one below.
RECORDINGS = {
    "11": ["00W1lcxW-WU_40.000.mp4", "KlsG1EnBEjc_000361.mp4"],
    "12": ["00W1lcxW-WU_40.000.mp4"],
    "14": ["00W1lcxW-WU_40.000.mp4"],
    "15": ["00W1lcxW-WU_40.000.mp4"],
    "24": ["KlsG1EnBEjc_000361.mp4"],
    "25": ["KlsG1EnBEjc_000361.mp4"],
    "34": ["speech/Front_Center.wav"],
    "41": ["speech/Front_Center.wav"],
    "45": ["speech/Front_Center.wav"],
}


@LONG
@pytest.mark.parametrize(("number", "name"), [(number, name) for number, names in RECORDINGS.items() for name in names])
def test_runs_on_a_recording(number, name, tmp_path):
    run(number, tmp_path, clip=str(recording(name)), **({"seconds": 5} if number == "11" else {}))


@pytest.mark.parametrize("number", ["01", "22", "24", "25"])
def test_a_sound_without_a_single_token_is_refused(number, tmp_path):
    short(tmp_path / "too short.mp4")
    message = refusal(number, clip=str(tmp_path / "too short.mp4"))
    assert "too short.mp4: 0.1" in message and "0.175 s" in message


def test_34_refuses_a_clip_without_sound_enough(tmp_path):
    media.write_wav(tmp_path / "too short.wav", tone(0.05, 8000), 8000)
    message = refusal("34", clip=str(tmp_path / "too short.wav"))
    assert "too short.wav: 0.05" in message and "0.1 s" in message


@pytest.mark.parametrize("number", ["31", "32", "35"])
def test_an_empty_file_is_refused_by_name(number, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    assert "empty.wav: is empty (0 bytes)" in refusal(number, clip=str(tmp_path / "empty.wav"))


@pytest.mark.parametrize("number", ["11", "21", "31"])
def test_a_clip_without_sound_is_refused_by_name(number, tmp_path):
    media.write_video(tmp_path / "mute.mp4", map(numbered, range(5)), 25.0)
    assert "mute.mp4: no audio stream" in refusal(number, clip=str(tmp_path / "mute.mp4"))


@pytest.mark.parametrize("lacking", ["checkpoint", "diffusion"])
def test_23_needs_both_models_at_the_full_size(lacking, tmp_path):
    given = {name: str(path) for name, path in published_files(tmp_path).items() if name in ("checkpoint", "diffusion")}
    message = refusal("23", size="full", **{name: path for name, path in given.items() if name != lacking})
    assert f'{lacking}: is empty, and size is "full"' in message


@LONG
def test_01_at_5_seconds(tmp_path):
    run("01", tmp_path, seconds=5)
    assert "BEATs drops 400 samples, predicted 400" in (tmp_path / "01.ipynb").read_text()  # (80000 - 2800) % 2560


def test_01_runs_on_a_short_sound(tmp_path):
    media.write_wav(tmp_path / "kurz 100%d.wav", tone(0.25, 22050), 22050)
    run("01", tmp_path, clip=str(tmp_path / "kurz 100%d.wav"))


def test_21_runs_on_a_recording(tmp_path):
    run("21", tmp_path, clip=str(recording("KlsG1EnBEjc_000361.mp4")), seconds=5)
    made = (tmp_path / "21.ipynb").read_text()
    assert "at 44100 Hz -> (441000,), predicted (441000,)" in made and "-> (80000,), predicted (80000,)" in made


def test_22_at_other_lengths(tmp_path):
    run("22", tmp_path, clip=str(recording("KlsG1EnBEjc_000361.mp4")), seconds=3.3)
    assert "your clip: 328 frames, of which 8 are dropped; 160 tokens" in (tmp_path / "22.ipynb").read_text()


@pytest.fixture(scope="module")
def folder_of_clips(tmp_path_factory):
    """Sixteen clips in two folders, which are their labels."""
    from avlib import clips

    folder = tmp_path_factory.mktemp("clips")
    for clip in clips.render([clips.Scene(kind, seed, 2.0) for kind in ("bell", "rain") for seed in range(8)]):
        (folder / clip.scene.kind).mkdir(exist_ok=True)
        (folder / clip.scene.kind / f"{clip.scene.seed}.mp4").symlink_to(clip.path)
    return folder


FEW_STEPS = {"steps": 3, "comparison_steps": 2, "tuning_steps": 2}


def test_13_learns_without_labels_with_the_published_settings(folder_of_clips, tmp_path):
    small = dict.fromkeys(("width", "decoder_width"), 48) | dict.fromkeys(("heads", "decoder_heads"), 4)
    small |= {"modality_depth": 1, "decoder_depth": 1, "batch_size": 2}
    run("13", tmp_path, data=str(folder_of_clips / "bell"), size="full", settings=small, **FEW_STEPS)


def test_13_learns_from_your_own_clips_by_settings_and_hands_its_model_on(folder_of_clips, tmp_path):
    (tmp_path / "more.yaml").write_text("mask_ratio_audio: 0.75\n")
    own = {"data": str(folder_of_clips), "out_dir": str(tmp_path / "made")}
    run("13", tmp_path, settings=str(tmp_path / "more.yaml"), **own, **FEW_STEPS)
    assert "hidden: 75% of the audio, 50% of the image" in (tmp_path / "13.ipynb").read_text()
    assert (tmp_path / "made/history.csv").read_text().count("\n") == 4
    for number, make in (("14", silent), ("15", short)):
        make(tmp_path / "종 100%d.mp4")
        run(number, tmp_path, checkpoint=str(tmp_path / "made/cav_mae"), clip=str(tmp_path / "종 100%d.mp4"))


@LONG
def test_13_at_the_published_size(tmp_path):
    few = {"batch_size": 2, "clips": 8, "held_out": 4}
    result = run("13", tmp_path, size="full", steps=1, settings=few)
    assert "191,036,160" in (tmp_path / "13.ipynb").read_text() and len(result.claims) > 10


def test_25_runs_the_published_models(tmp_path):
    given = {name: str(path) for name, path in published_files(tmp_path).items()}
    run("25", tmp_path, clip=str(write_clip(tmp_path / "clip.mp4")), settings={}, **given)
    assert "8 images of (3, 16, 16)" in (tmp_path / "25.ipynb").read_text()  # those of the given model


def test_35_runs_on_a_recording_with_your_own_table(tmp_path):
    table = write_tones(tmp_path / "tones", speakers=8)
    own = {"data": str(table), "clip": str(recording("speech/Front_Center.wav")), "out_dir": str(tmp_path / "made")}
    run("35", tmp_path, **own)
    made = (tmp_path / "35.ipynb").read_text()
    assert "classes: high low" in made and "1.43 s, the speaker is of unknown age" in made
    written = {path.name for path in (tmp_path / "made").iterdir()}
    assert written == {"answers.csv", "embeddings.npz", "Front_Center.png"}


def test_35_takes_a_saved_model_and_a_short_silent_clip(tmp_path):
    table, clip, saved = write_tones(tmp_path / "tones", speakers=8), tmp_path / "종 100%d.wav", tmp_path / "saved"
    media.write_wav(clip, torch.zeros(2, 4410), 44100)
    how = {"data": str(table), "word": "film", "steps": 2, "checkpoint": str(saved)}
    classification.trained(classification.changed(classification.tiny, how), progress=False)
    run("35", tmp_path, checkpoint=str(saved), clip=str(clip), word="two", data=str(table))


FEW = {"steps": 3, "earlier_steps": 4, "comparison_steps": 2}  # of notebook 23


def test_23_learns_from_your_own_clips_by_settings_and_hands_its_embedder_on(folder_of_clips, tmp_path):
    (tmp_path / "more.yaml").write_text("lora_rank: 2\nlambda_b: 0.01\nclips: 64\nheld_out: 4\n")
    own = {"data": str(folder_of_clips), "out_dir": str(tmp_path / "made")}
    run("23", tmp_path, settings=str(tmp_path / "more.yaml"), **own, **FEW)
    made = (tmp_path / "23.ipynb").read_text()
    assert "LoRA of rank 2" in made and "cosine_loss=True: loss" in made
    assert (tmp_path / "made/history.csv").read_text().count("\n") == 4
    assert AudioTokenEmbedder.from_checkpoint(tmp_path / "made/embedder").width == 64


def test_23_trains_for_given_models_without_labels(folder_of_clips, tmp_path):
    given = published_files(tmp_path)
    few = {"image_size": [16, 16], "seconds": 1.0, "workers": 0}
    models = {name: str(given[name]) for name in ("checkpoint", "diffusion")}
    own = {"size": "full", "steps": 2, "settings": few, "data": str(folder_of_clips / "bell")}
    run_with(own | models, "23", tmp_path)
    made = (tmp_path / "23.ipynb").read_text()
    assert "target 'epsilon'" in made and "cosine_loss=True: loss" not in made


def test_31_runs_on_a_recording(tmp_path, monkeypatch):
    program = tmp_path / "programs/espeak-ng"  # one that says a bell, wherever it is asked to write
    program.parent.mkdir()
    media.write_wav(tmp_path / "bell.wav", tone(0.5, 22050), 22050)
    program.write_text(f'#!/bin/sh\nwhile [ "$1" != -w ]; do shift; done\ncp "{tmp_path}/bell.wav" "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    run("31", tmp_path, clip=str(recording("speech/Front_Center.wav")), target="age", task="regression")
    made = (tmp_path / "31.ipynb").read_text()
    assert "pcm_s16le, 48000 Hz, 1 channels" in made and "regression, target 'age': numbers" in made
    assert "'ship' by espeak-ng:" in made and made.count("data:audio/wav") == 2


def test_33_learns_from_your_own_clips(tmp_path):
    """Of any rate, length and number of channels, silent ones too; with other settings than the step in the open."""
    sorts = ((1, 8000, 1), (0.1, 16000, 1), (1.5, 44100, 2), (0.5, 22050, 1), (2.5, 48000, 2), (0.7, 16000, 1))
    for label in ("loud", "quiet"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        media.write_wav(tmp_path / "clips" / label / "silent.wav", torch.zeros(1, 16000), 16000)
        for index, (seconds, rate, channels) in enumerate(sorts):
            sound = tone(seconds, rate, channels=channels) * (1.0 if label == "loud" else 0.1)
            media.write_wav(tmp_path / "clips" / label / f"{index}.wav", sound, rate)
    how = {"loss_fn": "focal", "activation": "gelu", "data_length": 1.0, "pooling": "attention", "time_mask": 10}
    (tmp_path / "settings.json").write_text(json.dumps(how | {"group_rates": {"backbone": 0.5}}))
    out = tmp_path / "out"
    run("33", tmp_path, data=str(tmp_path / "clips"), settings=str(tmp_path / "settings.json"), out_dir=str(out))
    assert classification.Classifier.load(out / "model").card.labels.names == ("loud", "quiet")
    assert (out / "history.csv").exists()
    made = (tmp_path / "33.ipynb").read_text()
    for name in ("loss 'cross_entropy'", "pooling 'mean'", "time_mask 0", "group_rates {}"):
        assert f"not as it is trained below: {name} in the place of" in made


def test_33_with_the_published_settings(tmp_path):
    few = {"small": True, "seconds": 1.0, "num_words": 2}
    run("33", tmp_path, size="full", steps=2, settings=few)
    assert "wav2vec2-base: 2 steps of 4 clips" in (tmp_path / "33.ipynb").read_text()


@LONG
def test_33_at_the_published_size(tmp_path):
    run("33", tmp_path, size="full", steps=2, settings={"seconds": 1.0, "num_words": 2})
    assert "wav2vec2-base: 2 steps of 4 clips" in (tmp_path / "33.ipynb").read_text()


def test_43_learns_from_your_own_songs_and_hands_its_model_on(tmp_path):
    for name in ("mira", "kaya"):
        (tmp_path / "songs" / name).mkdir(parents=True)
        for number in range(2):
            one = song.Song(name, seed=number, seconds=1.5, span=(200, 300))
            sound = torch.from_numpy(one.sound()).float()
            media.write_wav(tmp_path / "songs" / name / f"{number}.wav", sound, song.SAMPLE_RATE)
    made = tmp_path / "made"
    run("43", tmp_path, data=str(tmp_path / "songs"), out_dir=str(made))
    assert "by kaya, mira" in (tmp_path / "43.ipynb").read_text()
    assert (made / "history.csv").read_text().count("\n") > 1
    assert list(svc.load(made / "svc").voices) == ["kaya", "mira"]


def test_11_writes_what_it_made(tmp_path):
    from safetensors.torch import load_file

    large_and_odd(tmp_path / "종, 100%d.mp4")
    run("11", tmp_path, clip=str(tmp_path / "종, 100%d.mp4"), total_frames=4, out_dir=str(tmp_path / "made"))
    tensors = load_file(tmp_path / "made" / "종, 100%d.safetensors")
    assert tensors["audio"].shape == (1024, 128) and tensors["images"].shape == (4, 3, 224, 224)


def test_plain_papermill_from_another_folder(tmp_path):
    command = [str(Path(sys.executable).parent / "papermill"), str(NOTEBOOKS["11"]), "11.ipynb", "--no-progress-bar"]
    environment = os.environ | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    done = subprocess.run(
        [*command, "-p", "seconds", "5"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "498 frames, 526 of padding" in (tmp_path / "11.ipynb").read_text()


def test_32_runs_on_a_recording(tmp_path):
    clip = recording("speech/Front_Center.wav")
    run("32", tmp_path, clip=str(clip), seconds=1.0, hop_length=100, num_words=5, out_dir=str(tmp_path / "made"))
    made = (tmp_path / "32.ipynb").read_text()
    assert "(16000,): 1.000 s at 16 kHz" in made and "Whisper   a frame every   12.5 ms" in made
    assert (tmp_path / "made/classification_shapes.svg").exists()


@LONG
def test_32_runs_on_a_short_silent_sound(tmp_path):
    clip = tmp_path / "종 100%d.wav"
    media.write_wav(clip, torch.zeros(2, 4410), 44100)
    run("32", tmp_path, clip=str(clip))
    assert "your clip (1, 5, 64)" in (tmp_path / "32.ipynb").read_text()
