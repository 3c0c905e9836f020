"""Inference: pieces equal the whole, sound and picture end together, files are whole or absent and say "synthetic"."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from making import numbered, tone, write_pictures, write_wav

from avlib import media
from avlib.__main__ import main
from avlib.datasets.unit2av import boxes as boxes_module
from avlib.datasets.unit2av import write_boxes, write_units
from avlib.datasets.unit2av.preview import preview
from avlib.errors import AvlibError, CacheError, CheckpointError, DatasetError, MediaError, ParameterError
from avlib.extract.discrete import fit_units
from avlib.extract.speakers import voice_statistics
from avlib.extract.units import recognizer_encoder
from avlib.models.durations import DurationConfig, scale_durations
from avlib.models.face_renderer import Config as FaceConfig
from avlib.models.face_renderer import FaceRenderer
from avlib.models.recognizer import Config as RecognizerConfig
from avlib.models.recognizer import Recognizer
from avlib.models.speaker_encoder import SpeakerEncoder
from avlib.models.unit_source import Config as SourceConfig
from avlib.models.unit_source import UnitSource
from avlib.models.unit_vocoder import Config, UnitVocoder
from avlib.systems.unit2av.command import published_settings
from avlib.systems.unit2av.inference import Speech, at_full_rate, infer, load, speak, speaker_vector

K = 40
NARROW = Config(K, 8, 16, upsample_initial_channel=32, dur_predictor_params=DurationConfig(8, 10))
FACE = FaceConfig(K, (4, 4, 4, 4, 4, 8), (4, 4, 4, 4, 4, 4), 8, 4)
BOX = (8.0, 8.0, 40.0, 40.0)
QUIET = {"progress": False}


def lively(seed=0):
    """A narrow vocoder whose sound is loud and whose durations differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UnitVocoder(NARROW)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight_g"):
                parameter *= 2.5 if name.startswith(("ups", "conv_p")) else 1.5
        model.dur_predictor.proj.weight *= 1.5
        model.dur_predictor.proj.bias += 0.5
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vocoder():
    return lively()


@pytest.fixture(scope="module")
def speech(vocoder):
    torch.manual_seed(0)
    return Speech(vocoder, FaceRenderer(FACE).eval(), step="12step")


@pytest.fixture(scope="module")
def container(tmp_path_factory, speech):
    """The published layout: a vocoder for each language, with weight norm, and a face renderer."""
    path = tmp_path_factory.mktemp("weights") / "unit_av_renderer.pt"
    audio = {"en": speech.vocoder.state_dict(), "es": lively(1).state_dict()}
    torch.save({"audio": audio, "video": speech.renderer.state_dict()}, path)
    return path


def units_of(count, runs=False, seed=0):
    """Units, each other than the one before; with `runs`, of 1 to 3 repeats."""
    generator = torch.Generator().manual_seed(seed)
    units = torch.randint(1, K, (count,), generator=generator).cumsum(0) % K
    return units.repeat_interleave(torch.randint(1, 4, (count,), generator=generator))[:count] if runs else units


SPEAKER = torch.randn(256, generator=torch.Generator().manual_seed(3))


def voice(path, seconds=2.0):
    """Sound in whose place a voice would be."""
    return write_wav(path, tone(seconds, 16000, 150.0), 16000)


def clip(path, frames=25, rate=25.0, sound=True, side=64):
    waveform = tone(frames / rate, 16000) if sound else None
    media.write_video(path, (numbered(k, side, side) for k in range(frames)), rate, waveform, 16000)
    return path


# Sound


@pytest.fixture(scope="module")
def source():
    """The other vocoder, narrow too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UnitSource(SourceConfig(K, 8, 256, 16, 2, 8, 8, dur_predictor_params=DurationConfig(8, 10)))
    with torch.no_grad():
        model.dur_predictor.proj.bias += 0.9
    return model.eval().requires_grad_(False)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["vocoder", "source"])
def test_pieces_equal_the_whole(kind, request):
    model, units, runs = request.getfixturevalue(kind), units_of(130), units_of(130, runs=True)
    for given, how, piece in [
        (runs, {}, 37), (units[:12], {"predict": "off"}, 1), (units, {}, 100), (runs, {"predict": "on"}, 50),
        (units, {"total": 400}, 77),
    ]:  # fmt: skip
        predicted = (given is units and not how.get("predict")) or how.get("predict") == "on"
        alone = torch.unique_consecutive(given) if predicted else given
        out = model(alone[None], SPEAKER, predict_durations=predicted, total=how.get("total"))
        pieces = list(speak(model, given, SPEAKER, piece=piece, **how))
        made = torch.cat(pieces)
        assert len(made) == int(out.lengths) == 320 * how.get("total", out.units.shape[1])
        assert float((made - out.waveform[0, 0]).abs().max()) < 1e-5 < float(made.std())
        assert max(map(len, pieces)) <= 320 * piece
        assert torch.equal(at_full_rate(model, given, **how), out.units[0])


def test_gradients_stay_on_while_pieces_are_taken(vocoder):
    for _ in speak(vocoder, units_of(20), SPEAKER, "off", piece=10):
        with torch.enable_grad():
            pass
    with torch.enable_grad():
        next(speak(vocoder, units_of(20), SPEAKER, "off"))
        assert torch.is_grad_enabled()


def test_durations_are_predicted_where_nothing_repeats(vocoder):
    units = units_of(30)
    predicted = at_full_rate(vocoder, units)
    assert len(predicted) > 30 and torch.equal(torch.unique_consecutive(predicted), units)
    twice = units.repeat_interleave(2)
    assert torch.equal(at_full_rate(vocoder, twice), twice) and torch.equal(at_full_rate(vocoder, units, "off"), units)
    assert torch.equal(at_full_rate(vocoder, twice, "on"), predicted)
    durations = vocoder.predict_durations(units[None])[0]
    assert torch.equal(at_full_rate(vocoder, units, total=77), units.repeat_interleave(scale_durations(durations, 77)))
    for given, how, words in [
        (twice, {"total": 100}, "total: 100, for units at full rate"),
        (units, {"total": 100, "predict": "off"}, "without predicted durations"),
        (units, {"total": 29}, "total: 29; expected at least 30"),
        (units, {"predict": "maybe"}, "predict: "),
    ]:
        with pytest.raises(ParameterError, match=words):
            at_full_rate(vocoder, given, **how)


def test_a_file_of_sound(tmp_path, speech):
    """204 units are 65,280 samples; the speaker is that of the file; the name is as published."""
    units = units_of(204, runs=True)
    write_units(tmp_path / "113_003_0012_preprocessed.pt", units, SPEAKER)
    made = infer(tmp_path / "113_003_0012_preprocessed.pt", speech, tmp_path / "out", **QUIET)
    assert made.path == tmp_path / "out" / "113_003_0012_12step.wav" and made.seconds == 4.08 and not made.notes
    found, rate = soundfile.read(made.path, dtype="float32")
    with torch.no_grad():
        expected = speech.vocoder(units[None], SPEAKER).waveform[0, 0]
    assert (len(found), rate) == (65280, 16000)
    assert float((torch.from_numpy(found) - expected.clamp(-1, 1)).abs().max()) < 1e-4
    with soundfile.SoundFile(made.path) as file:
        assert "synthetic" in file.title and "synthetic" in file.comment
    with av.open(str(made.path)) as container:
        assert "synthetic" in container.metadata["title"]
    (tmp_path / "units.txt").write_text("1 2 3\n4")
    made = infer(tmp_path / "units.txt", speech, tmp_path / "new.wav", speaker=SPEAKER, **QUIET)
    assert "4 units without repeats became" in made.notes[0] and media.probe(made.path).audio.seconds == made.seconds


def test_speaker_vectors(tmp_path):
    torch.save({"spkr": SPEAKER.view(1, 1, 256), "code": torch.zeros(1, 4).long()}, tmp_path / "made.pt")
    torch.save(SPEAKER[None], tmp_path / "bare.pt")
    np.save(tmp_path / "made.npy", SPEAKER.double().numpy())
    for each in (SPEAKER, SPEAKER[None], SPEAKER[None, None], tmp_path / "made.pt", tmp_path / "bare.pt",
                 str(tmp_path / "made.npy")):  # fmt: skip
        assert torch.equal(speaker_vector(each), SPEAKER)
    embed = SpeakerEncoder().eval().embed
    heard = speaker_vector(voice(tmp_path / "voice.wav"), embed)
    assert torch.allclose(heard, embed(media.read_audio(tmp_path / "voice.wav")))
    assert torch.allclose(heard, speaker_vector(clip(tmp_path / "clip.mp4", 50), lambda x: heard + 0 * x.sum()))
    write_wav(tmp_path / "silence.wav", torch.zeros(1, 16000), 16000)
    np.save(tmp_path / "code.npy", np.array([os.system], dtype=object))
    torch.save({"code": torch.zeros(1, 4).long()}, tmp_path / "none.pt")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    for wrong, error, words in [
        (SPEAKER * float("nan"), ParameterError, "NaN"),
        (torch.zeros(256), ParameterError, "zeros"),
        (torch.zeros(255), ParameterError, r"shape \(255,\)"),
        (torch.ones(2, 256), ParameterError, r"shape \(2, 256\)"),
        (tmp_path / "silence.wav", ParameterError, "silence"),
        (tmp_path / "none.pt", ParameterError, "no vector"),
        (tmp_path / "code.npy", DatasetError, "code.npy"),
        (tmp_path / "evil.pt", CheckpointError, "evil.pt"),
        (tmp_path / "missing.wav", MediaError, "no such file"),
    ]:
        with pytest.raises(error, match=words):
            speaker_vector(wrong, embed)
    assert not (tmp_path / "ran").exists()


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


# Faces


def ends(path):
    info = media.probe(path)
    return info.video.start + info.video.seconds, info.audio.start + info.audio.seconds


@pytest.mark.parametrize(("rate", "units"), [(12.0, 51), (24000 / 1001, 99), (30.0, 101), (25.0, 1 + 2 * 48), (0, 65)])
def test_sound_and_picture_end_together(tmp_path, speech, rate, units):
    path = tmp_path / "in.mp4"
    if rate:
        clip(path, round(rate), rate, side=32)  # a second; the units last longer, up to twice as long
    else:
        write_pictures(path, [0, 40, 100, 400, 900, 1300])
    count = round(rate) or 6
    boxes = [BOX] * count
    made = infer(units_of(units, runs=True), speech, tmp_path / "out.mp4", video=path, boxes=boxes, speaker=SPEAKER,
                 **QUIET)  # fmt: skip
    picture, sound = ends(made.path)
    assert abs(picture - sound) <= 0.04 and abs(sound - units / 50) <= 0.04
    assert media.probe(made.path).video.frame_rate == 25 and made.seconds == units / 50
    with av.open(str(made.path)) as container:
        assert "synthetic" in container.metadata["title"] and "synthetic" in container.metadata["comment"]


def test_as_long_as_the_video(tmp_path, speech):
    """Translated units, whose durations are predicted, fill the video."""
    path = clip(tmp_path / "in.mp4", 40, 30.0)
    made = infer(units_of(30), speech, tmp_path / "out.mp4", video=path, boxes=[None] * 40, total="video",
                 speaker=SPEAKER, **QUIET)  # fmt: skip
    assert len(made.units) == 66 and abs(ends(made.path)[0] - 40 / 30) <= 0.04  # 33 pictures at 25 Hz
    assert abs(ends(made.path)[0] - ends(made.path)[1]) <= 0.04
    assert "30 units without repeats became 66" in made.notes[0] and "33 of 33 pictures have no face" in made.notes[2]
    with pytest.raises(ParameterError, match=r"total: 66 units, as long as .*in.mp4; expected at least 67"):
        infer(units_of(67), speech, tmp_path / "x.mp4", video=path, boxes=[None] * 40, total="video",
              speaker=SPEAKER, **QUIET)  # fmt: skip


def test_boxes_are_honoured(tmp_path, speech):
    """Only the named face of the file of boxes changes, in pictures where it has a box."""
    path = clip(tmp_path / "in.mp4", 10)
    write_boxes(tmp_path / "two.json", [[None] * 10, [BOX] * 5 + [None] * 5])
    made = infer(units_of(20, runs=True), speech, tmp_path / "out.mp4", video=path, boxes=tmp_path / "two.json", face=1,
                 speaker=SPEAKER, preview=tmp_path / "sheet.png", **QUIET)  # fmt: skip
    old, new = (media.read_frames(each, range(10)).int() for each in (path, made.path))
    changed = (new - old).abs().float().mean(1)  # (10, 64, 64)
    outside = changed.clone()
    outside[:, 4:44, 4:44] = 0
    assert float(changed[:5, 8:40, 8:40].mean()) > 20 > 10 * float(outside.mean())
    assert float(changed[5:].mean()) < 2 and (tmp_path / "sheet.png").exists()
    with pytest.raises(ParameterError, match="face: 2"):
        infer(units_of(20), speech, tmp_path / "x.mp4", video=path, boxes=tmp_path / "two.json", face=2,
              speaker=SPEAKER, **QUIET)  # fmt: skip


def test_faces_are_found_where_no_boxes_are_given(tmp_path, speech, monkeypatch):
    path = clip(tmp_path / "in.mp4", 6)
    how = {"video": path, "speaker": SPEAKER, **QUIET}
    monkeypatch.setattr(boxes_module, "_mtcnn", nothing)
    monkeypatch.setattr(boxes_module, "_opencv", nothing)
    with pytest.raises(ParameterError, match=r"no detector of faces is installed.*\[\[x1, y1, x2, y2\], null.*pip"):
        infer(units_of(12), speech, tmp_path / "x.mp4", **how)
    monkeypatch.setattr(boxes_module, "_detector", lambda name: lambda picture: [BOX, (44.0, 0.0, 60.0, 20.0)])
    made = infer(units_of(12, runs=True), speech, tmp_path / "out.mp4", face=1, **how)
    assert not [note for note in made.notes if "no face" in note]
    monkeypatch.setattr(boxes_module, "_detector", lambda name: lambda picture: [])
    with pytest.raises(ParameterError, match="no face was found"):
        infer(units_of(12), speech, tmp_path / "x.mp4", **how)


def nothing():
    raise ImportError


def test_the_preview_shows_the_boxes(tmp_path):
    from PIL import Image

    path = clip(tmp_path / "in.mp4", 8)
    preview(path, [[BOX] * 4 + [None] * 4, [None] * 4 + [(50, 50, 90, 90)] + [None] * 3], tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    assert sheet.shape == (2 * 320, 4 * 320, 3)
    edges = [(sheet[y : y + 320, x : x + 320] == (0, 114, 178)).all(2) for y in (0, 320) for x in range(0, 1280, 320)]
    assert [bool(edge[100:190, 40:43].all()) for edge in edges] == [True] * 4 + [False] * 4  # 8 of 64 is 40 of 320
    red = [(sheet[y : y + 320, x : x + 320] == (160, 0, 0)).all(2).any() for y in (0, 320) for x in range(0, 1280, 320)]
    assert red == [False] * 5 + [True] * 3  # "no face"
    with pytest.raises(ParameterError, match="preview"):
        preview(path, [[BOX] * 8], tmp_path / "sheet.mp3")
    with pytest.raises(ParameterError, match="7 boxes; expected 8"):
        preview(path, [[BOX] * 7], tmp_path / "x.png")


def test_a_video_of_odd_size_and_one_picture(tmp_path, speech):
    write_pictures(tmp_path / "small.mkv", [0, 40, 80], codec="ffv1")
    media.write_video(tmp_path / "one.mp4", [numbered(5)], 25.0)
    for path, count in ((tmp_path / "small.mkv", 3), (tmp_path / "one.mp4", 1)):
        for missing, feather in (("keep", 0.0), ("fill", 0.2)):
            made = infer(units_of(9, runs=True), speech, tmp_path / "out.mp4", video=path, boxes=[BOX] * count,
                         speaker=SPEAKER, missing=missing, feather=feather, **QUIET)  # fmt: skip
            assert len(media.SteadyVideo(made.path)) == 4


# What is refused


def test_what_is_refused_leaves_no_file(tmp_path, speech, container, unchecked):
    path, mute = clip(tmp_path / "in.mp4", 10), clip(tmp_path / "mute.mp4", 10, sound=False)
    files = {"beyond.txt": "1 2\n3 40", "negative.txt": "1 -2", "empty.txt": "", "words.txt": "1 two"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    write_units(tmp_path / "fairseq.pt", units_of(20) + 4)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    there = set(tmp_path.iterdir())
    good = {"units": units_of(20, runs=True), "model": speech, "out": tmp_path / "out.mp4", "video": path,
            "boxes": [BOX] * 10, "speaker": SPEAKER}  # fmt: skip
    for change, error, words in [
        ({"units": tmp_path / "beyond.txt"}, ParameterError, "units: 40 at line 2 of .*beyond.txt.*0 to 39.*K = 40"),
        ({"units": tmp_path / "negative.txt"}, ParameterError, "units: -2 at line 1"),
        ({"units": tmp_path / "empty.txt"}, DatasetError, "empty.txt: no units"),
        ({"units": tmp_path / "words.txt"}, DatasetError, "'two' in line 1"),
        ({"units": tmp_path / "fairseq.pt"}, ParameterError, "unit_offset=4"),
        ({"units": tmp_path / "evil.pt"}, DatasetError, "nothing in it was executed"),
        ({"units": tmp_path / "none.txt"}, DatasetError, "none.txt"),
        ({"units": torch.zeros(0).long()}, ParameterError, "units"),
        ({"units": torch.tensor([40])}, ParameterError, "units: 40 at position 0"),
        ({"units": path}, ParameterError, "without an extractor"),
        ({"units": torch.tensor([3]), "predict": "off"}, ParameterError, "units: 1; expected at least 2"),
        ({"speaker": torch.full((256,), torch.nan)}, ParameterError, "speaker: a vector of NaN"),
        ({"speaker": torch.zeros(256)}, ParameterError, "speaker: a vector of NaN, infinity or zeros"),
        (
            {"speaker": None, "video": mute},
            ParameterError,
            "none given, and .*mute.mp4 has no sound.*--speaker",
        ),
        ({"boxes": [BOX] * 9}, ParameterError, "boxes: 9 boxes; expected 10"),
        ({"boxes": []}, ParameterError, "boxes: 0 boxes; expected 10"),
        ({"boxes": [(1, 2, 3)] * 10}, ParameterError, r"boxes\[0\]: .* four finite numbers"),
        ({"boxes": [None] * 10, "missing": "fill"}, ParameterError, "no face in 10 pictures"),
        ({"boxes": [(70, 70, 90, 90)] * 10, "missing": "fill"}, ParameterError, "no face in 10 pictures"),
        ({"boxes": tmp_path / "evil.pkl"}, DatasetError, "nothing in it was executed"),
        ({"boxes": tmp_path / "none.json"}, DatasetError, "none.json"),
        ({"missing": "skip"}, ParameterError, "missing: 'skip'"),
        ({"reference": "smae"}, ParameterError, "Did you mean 'same'"),
        ({"feather": 0.9}, ParameterError, "feather: 0.9"),
        ({"total": "length"}, ParameterError, "total: 'length'"),
        ({"predict": "yes"}, ParameterError, "predict: 'yes'"),
        ({"video": tmp_path / "none.mp4"}, MediaError, "no such file"),
        ({"video": tmp_path / "words.txt"}, MediaError, "words.txt"),
        ({"video": None}, ParameterError, "out: .*out.mp4, for sound alone; expected a .wav file"),
        ({"out": tmp_path / "out.wav"}, ParameterError, "out: .*out.wav, for a video; expected a .mp4 file"),
        ({"out": path}, ParameterError, "in.mp4, which is read"),
        ({"out": tmp_path / "empty.txt" / "x.mp4"}, CacheError, "empty.txt"),
        ({"model": replace(speech, renderer=None)}, ParameterError, "a model without a face renderer.*--renderer"),
        (
            {"model": container, "language": "ko"},
            CheckpointError,
            "audio has no 'ko'; expected one of those there: en, es",
        ),
        ({"model": tmp_path / "none.pt"}, CheckpointError, "none.pt"),
        ({"model": tmp_path / "evil.pt"}, CheckpointError, "evil.pt"),
        ({"model": tmp_path}, CheckpointError, "has no vocoder in it"),
    ]:
        with pytest.raises(error, match=words) as caught:
            infer(**{**good, **change}, **QUIET)
        assert isinstance(caught.value, AvlibError) and set(tmp_path.iterdir()) == there, change
    assert not Path("ran").exists()
    infer(**{**good, "boxes": [(70, 70, 90, 90)] * 10}, **QUIET)  # outside the picture is no face
    infer(**{**good, "units": tmp_path / "fairseq.pt", "unit_offset": 4}, **QUIET)


# Weights


def test_weights_of_every_kind(tmp_path, container, speech, source):
    """The container, a g_ file, a bare file, a folder of such, and a folder of `save` speak alike."""
    state, units = speech.vocoder.state_dict(), units_of(20, runs=True)
    folder = tmp_path / "training"
    folder.mkdir()
    torch.save({"generator": lively(1).state_dict()}, folder / "g_00000100")
    torch.save({"generator": state}, folder / "g_00000200")
    torch.save(state, tmp_path / "bare.pt")
    lively().save(tmp_path / "saved")
    speech.renderer.save(tmp_path / "face")
    expected = torch.cat(list(speak(speech.vocoder, units, SPEAKER)))
    for path, step in [(container, "unknown_step"), (folder, "200step"), (folder / "g_00000200", "200step"),
                       (tmp_path / "bare.pt", "unknown_step"), (tmp_path / "saved", "unknown_step")]:  # fmt: skip
        found = load(path)
        assert torch.allclose(torch.cat(list(speak(found.vocoder, units, SPEAKER))), expected, atol=1e-5)
        assert found.step == step and (found.renderer is None) == (path != container)
    spanish = torch.cat(list(speak(load(container, "es").vocoder, units, SPEAKER)))
    assert float((spanish - expected).abs().max()) > 0.01
    torch.save({"generator": lively(1).state_dict()}, folder / "g_best")
    best = torch.cat(list(speak(load(folder).vocoder, units, SPEAKER)))
    assert torch.allclose(best, spanish, atol=1e-5)
    assert load(folder, renderer=tmp_path / "face").renderer.config == FACE
    source.save(tmp_path / "source")
    assert isinstance(load(tmp_path / "source").vocoder, UnitSource)
    with pytest.raises(CheckpointError, match="is a face renderer"):
        load(tmp_path / "face")


def test_the_folder_of_a_training_speaks_sound(tmp_path, vocoder):
    """Its extractor makes the units, and what made its speaker vectors hears the voice."""
    torch.manual_seed(0)
    sound = sum(tone(1.0, 16000, 140.0 * k)[0] / k for k in range(1, 6)) / 3
    encoder = recognizer_encoder(Recognizer(RecognizerConfig(tuple("abc"), width=8, layers=1)).eval(), hidden=True)
    extractor = fit_units(encoder, [(sound + 0.1 * torch.randn(16000), 16000)], 8)
    vocoder.save(tmp_path / "made")
    extractor.save(tmp_path / "made" / "units")
    (tmp_path / "made" / "settings.json").write_text(json.dumps({"vocoder": {"speaker": "statistics"}}))
    write_wav(tmp_path / "voice.wav", sound[None], 16000)
    made = infer(tmp_path / "voice.wav", tmp_path / "made", tmp_path / "new.wav", predict="off", **QUIET)
    heard = media.read_audio(tmp_path / "voice.wav")
    assert torch.equal(made.units, extractor(heard, 16000)) and len(made.units) == 50
    expected = vocoder(made.units[None], voice_statistics(heard)).waveform[0, 0].clamp(-1, 1)
    assert float((media.read_audio(made.path) - expected).abs().max()) < 1e-4


def test_more_units_than_the_face_was_trained_with(tmp_path, speech):
    speech.vocoder.save(tmp_path / "voice")
    small = FaceRenderer(replace(FACE, num_embeddings=30))
    small.save(tmp_path / "face")
    table = load(tmp_path / "voice", renderer=tmp_path / "face").renderer.unit_embed.weight
    assert len(table) == K and torch.equal(table[29], table[39])


def test_published_sizes(tmp_path):
    """The container with the published names and shapes speaks, and draws."""
    path = Path(os.environ.get("AVLIB_REFERENCE", ROOT.parent / "shared" / "reference")) / "unit2av_keys.json"
    if not path.exists():
        pytest.skip(f"no key lists {path}; set AVLIB_REFERENCE to the folder that has them")
    known = json.loads(path.read_text())

    def drawn(shapes):
        return {
            name: torch.tensor(0) if name.endswith("batches_tracked") else torch.full(shape, 0.02).abs()
            for name, shape in shapes.items()
        }

    torch.save({"audio": {"en": drawn(known["generator"])}, "video": drawn(known["face_renderer"])}, tmp_path / "c.pt")
    media.write_video(tmp_path / "one.mp4", [numbered(5)], 25.0)
    made = infer(torch.tensor([999, 999, 5, 5]), tmp_path / "c.pt", tmp_path / "out.mp4", video=tmp_path / "one.mp4",
                 boxes=[BOX], speaker=SPEAKER, **QUIET)  # fmt: skip
    assert made.path.exists() and len(made.units) == 4


# Commands


def words_of(command, **given):
    return ["unit2av", command, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def run(command, **given):
    assert main(words_of(command, **given)) == 0


def test_the_commands_of_the_notes(tmp_path, container, speech, capsys):
    for name in ("113_003_0012", "114_003_0001", "115_003_0001"):
        (tmp_path / "sounds" / name[:3]).mkdir(parents=True)
        (tmp_path / "units").mkdir(exist_ok=True)
        voice(tmp_path / "sounds" / name[:3] / f"{name}.wav")
        write_units(tmp_path / "units" / f"{name}_preprocessed.pt", units_of(100, runs=True), SPEAKER)
    (tmp_path / "sounds" / "115" / "115_003_0001.wav").unlink()
    run("manifest", audio_root=tmp_path / "sounds", unit_root=tmp_path / "units", output_file=tmp_path / "train.txt")
    shown = capsys.readouterr()
    assert "2 pairs; 1 without sound" in shown.out and "115_003_0001" in shown.err
    assert len((tmp_path / "train.txt").read_text().splitlines()) == 2

    torch.save({"generator": speech.vocoder.state_dict()}, tmp_path / "g_00050000")
    config = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(NARROW).items()}
    config["dur_predictor_params"] = vars(NARROW.dur_predictor_params)
    (tmp_path / "config.json").write_text(json.dumps(config, default=list))
    run("infer", checkpoint=tmp_path / "g_00050000", config=tmp_path / "config.json", output_folder=tmp_path / "spoken",
        input_file=tmp_path / "units" / "113_003_0012_preprocessed.pt")  # fmt: skip
    wav = tmp_path / "spoken" / "113_003_0012_50000step.wav"
    assert capsys.readouterr().out.strip() == str(wav) and soundfile.info(wav).frames == 32000

    (tmp_path / "units.txt").write_text(" ".join(map(str, units_of(30).tolist())))
    write_boxes(tmp_path / "boxes.json", [[BOX] * 9 + [None]])
    video, out = clip(tmp_path / "in.mp4", 10), tmp_path / "out.mp4"
    speaker = tmp_path / "units" / "113_003_0012_preprocessed.pt"
    command = words_of("infer", in_unit_path=tmp_path / "units.txt", in_vid_path=video, out_vid_path=out, tgt_lang="es",
                       in_bbox_path=tmp_path / "boxes.json", unit2av_path=container, speaker=speaker)  # fmt: skip
    command = [word.replace("_", "-") if word.startswith("--") else word for word in command]
    assert main([*command, "--total", "80", "--feather", "0.1", "--reference", "still"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(out) and "30 units without repeats became 80" in shown.err
    assert "to and fro" in shown.err and abs(ends(out)[0] - 1.6) < 0.02
    for wrong, message in [
        (["--tgt-lang", "ko"], "audio has no 'ko'; expected one of those there: en, es"),
        (["--total", "long"], "--total: long; expected a number of units"),
        (["--durations", "off", "--total", "9"], "total: 9 without predicted durations"),
        (["--in-bbox-path", str(tmp_path / "none.json")], "none.json"),
    ]:
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["unit2av", "infer", "--help"])
    assert "consent" in capsys.readouterr().out


def test_training_with_the_published_arguments(tmp_path, capsys):
    """Equal manifests warn; g_ files are written whenever a checkpoint is due, and speak."""
    for name in ("113_003_0001", "113_003_0002"):
        (tmp_path / "sounds" / "113").mkdir(parents=True, exist_ok=True)
        voice(tmp_path / "sounds" / "113" / f"{name}.wav", 1.0)
        (tmp_path / "units").mkdir(exist_ok=True)
        write_units(tmp_path / "units" / f"{name}_preprocessed.pt", units_of(50, runs=True), SPEAKER)
    train, config = tmp_path / "train.txt", tmp_path / "config.json"
    run("manifest", audio_root=tmp_path / "sounds", unit_root=tmp_path / "units", output_file=train)
    values = json.loads(json.dumps(vars(NARROW), default=vars))
    values |= {"batch_size": 2, "learning_rate": 1e-3, "adam_b1": 0.8, "adam_b2": 0.99, "lr_decay": 0.9,
               "seed": 3, "segment_size": 3200, "input_training_file": str(train),
               "input_validation_file": str(train)}  # fmt: skip
    config.write_text(json.dumps(values))
    command = words_of("train", config=config, checkpoint_path=tmp_path / "made", validation_interval=1,
                       training_steps=4, checkpoint_interval=2)  # fmt: skip
    sizes = [
        "periods=[2]",
        "period_channels=[4]",
        "scales=1",
        "scale_channels=[8,16,16,16,16,16,16]",
        "-p",
        "workers=0",
    ]
    with pytest.warns(UserWarning, match="2 of 2 validation pairs are in the training manifest"):
        assert main([*command, *sizes]) == 0
    names = ["config.json", "g_00000002", "g_00000004", "g_best"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == names
    state = torch.load(tmp_path / "made" / "g_00000002", weights_only=True)["generator"]
    assert "conv_pre.weight_g" in state and len(state) == len(lively().state_dict())
    settings = published_settings(config, {"steps": 4, "evaluate_every": 1, "save_every": 2}, {})
    how = settings.adversarial.training
    assert (how.betas, how.gamma, how.learning_rate, how.seed, how.batch_size) == ((0.8, 0.99), 0.9, 1e-3, 3, 2)
    assert how.rate(5, epoch=2) == pytest.approx(0.81) and settings.data.segment == 10
    capsys.readouterr()
    run("infer", checkpoint=tmp_path / "made" / "g_00000004", config=config, output_folder=tmp_path,
        input_file=tmp_path / "units" / "113_003_0001_preprocessed.pt")  # fmt: skip
    assert capsys.readouterr().out.strip() == str(tmp_path / "113_003_0001_4step.wav")
    config.write_text(json.dumps({name: value for name, value in values.items() if name != "input_training_file"}))
    assert main(command) == 2 and "input_training_file: missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command[:4])
    assert "required: --checkpoint_path" in capsys.readouterr().err


# Long input

RUN = """
import re, sys, torch
sys.path[:0] = [{tests!r}, {tests!r} + "/systems"]
import test_unit2av_inference as tests
units = torch.arange({units}) // {repeats} % tests.K
how = {{"video": {video!r}, "boxes": {boxes!r}}} if {video!r} else {{}}
torch.manual_seed(0)
speech = tests.Speech(tests.lively(), tests.FaceRenderer(tests.FACE).eval())
tests.infer(units, speech, {out!r}, speaker=tests.SPEAKER, progress=False, **how)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.long
@pytest.mark.parametrize("face", [False, True])
def test_memory_does_not_grow_with_the_input(tmp_path, face):
    """Ten minutes need at most 1.3 times what one minute needs."""
    peaks = []
    for minutes in (1, 10):
        out, video = tmp_path / f"out{minutes}.{'mp4' if face else 'wav'}", tmp_path / f"in{minutes}.mp4"
        if face:
            media.write_video(video, (numbered(k % 256, 120, 160) for k in range(1500 * minutes)), 25.0)
            write_boxes(video.with_suffix(".json"), [[BOX if k % 3 else None for k in range(1500 * minutes)]])
        code = RUN.format(
            tests=str(ROOT / "tests"), units=3000 * minutes if face else 1500 * minutes, repeats=2 if face else 1,
            video=str(video) if face else "", boxes=str(video.with_suffix(".json")), out=str(out),
        )  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, text=True, check=True)
        peaks.append(int(done.stdout))
    print(peaks)
    assert peaks[1] < 1.3 * peaks[0]
