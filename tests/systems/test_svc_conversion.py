"""Conversion: pieces equal the whole, lengths and loudness are the source's, files are whole or absent."""

import json
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from making import write_wav

from avlib import errors, extract, media
from avlib.__main__ import main
from avlib.extract.units import recognizer_encoder
from avlib.features import harmonics, mel2ph, svc_log_mel
from avlib.models.diffusion_svc import Config, DiffusionSVC
from avlib.models.nsf_hifigan import Config as NSFConfig
from avlib.models.nsf_hifigan import NSFHiFiGAN
from avlib.models.recognizer import Config as RecognizerConfig
from avlib.models.recognizer import Recognizer
from avlib.models.source_filter import SourceFilterVocoder
from avlib.systems.svc import conversion, pieces
from avlib.systems.svc.conversion import convert
from avlib.systems.svc.project import Project, Voice, give_name, load

RATE, HOP = 44100, 512
VOICES = {"Ada": Voice(220.0, 110.0, 440.0), "Bo": Voice(330.0, 165.0, 660.0)}


class Loudness:
    """Units that are the mean amplitudes of 20 ms and of what is around them, 16 wide."""

    width = 16

    def __call__(self, waveform, rate):
        assert rate == RATE
        count = -(-len(waveform) * 16000 // rate) // 320
        padded = torch.nn.functional.pad(waveform, (882, max(0, 882 * (count + 1) - len(waveform))))
        levels = padded.abs().unfold(0, 3 * 882, 882)[:count].mean(dim=1)
        return (40 * levels[:, None] * torch.arange(1, 17)).sin()


def random_model(predicts="x0", **sizes):
    """A small network that reaches 15 frames, and whose output is not zero."""
    sizes = {"channels": 32, "condition_size": 32, "layers": 4} | sizes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DiffusionSVC(Config(unit_size=16, predicts=predicts, **sizes))
        torch.nn.init.normal_(model.denoise_fn.output_projection.weight, std=0.05)
    return model.eval()


def project(**options):
    return Project(random_model(singers=2), Loudness(), SourceFilterVocoder(), voices=VOICES, steps=2, **options)


class Singer(torch.nn.Module):
    """In place of a network: the mel of ten harmonics of the pitch that it is given."""

    config, receptive_field = Config(unit_size=16, channels=32, layers=4), 15

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, units, hertz, mel2ph, singers=None):
        return hertz[:, None]

    def sample(self, condition, *, progress=lambda *_: None, **how):
        amplitudes = (0.2 / torch.arange(1, 11)).expand(1, condition.shape[2], 10)
        progress(1, 1)
        return svc_log_mel(harmonics(condition[:, 0], amplitudes, RATE, HOP))


def sung(seconds, hertz=220.0, rate=RATE):
    """Ten harmonics of a pitch, constant or `(samples,)`."""
    turns = torch.cumsum(torch.as_tensor(hertz, dtype=torch.float64).expand(round(seconds * rate)) / rate, 0)
    return sum(0.2 / k * torch.sin(2 * torch.pi * k * turns) for k in range(1, 11)).float()


def decibels(waveform):
    return 10 * float(waveform.detach().double().square().mean().clamp(min=1e-20).log10())


# Pieces


@pytest.mark.parametrize(("frames", "length", "context"), [(1, 10, 5), (10, 10, 5), (11, 10, 3), (1000, 64, 31)])
def test_pieces_follow_each_other_with_context(frames, length, context):
    found = pieces.pieces(frames, length, context)
    assert [number for piece in found for number in range(piece.start, piece.stop)] == list(range(frames))
    assert max(piece.stop - piece.start for piece in found) <= length
    for piece in found:
        assert (piece.first, piece.last) == (max(0, piece.start - context), min(frames, piece.stop + context))


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [4, 1, 1, 4], [3, 3, 3, 1]])
@pytest.mark.parametrize("context", [0, 1, 3, 20])
def test_a_stream_with_context_is_the_stream(sizes, context):
    rows, given = torch.arange(10), []
    for part, begin, end in pieces.with_context(rows.split(sizes), context):
        first = int(part[begin])
        assert begin == min(context, first) and part.tolist() == list(range(first - begin, first - begin + len(part)))
        assert len(part) - end == min(context, 10 - first - (end - begin))  # on the right too
        given += part[begin:end].tolist()
    assert given == rows.tolist()
    assert not list(pieces.with_context([], 3))


def test_noise_follows_from_the_position():
    whole = pieces.noise_at(0, 1000, 8, seed=3)
    assert torch.equal(pieces.noise_at(200, 777, 8, seed=3), whole[200:777])
    assert abs(float(whole.mean())) < 0.05 and abs(float(whole.std()) - 1) < 0.05
    assert len(whole.unique()) > 7990 and not torch.equal(whole, pieces.noise_at(0, 1000, 8, seed=4))


@pytest.mark.parametrize(
    ("sampler", "steps", "predicts"),
    [("unipc", 5, "x0"), ("plms", 20, "x0"), ("ddim", 40, "x0"), ("dpm++", 8, "noise")],
)
def test_pieces_of_a_mel_equal_the_whole_outside_fades(sampler, steps, predicts):
    model, frames = random_model(predicts), 400
    condition = torch.randn(1, 32, frames, generator=torch.Generator().manual_seed(1))

    def given(first, last):
        return condition[:, :, first:last]

    how = {"sampler": sampler, "steps": steps}
    whole = model.sample(condition, noise=pieces.mel_noise(0, frames), **how)[0]
    parts = list(pieces.sampled(model, given, frames, length=90, **how))
    difference = (torch.cat(parts) - whole).abs().amax(dim=1) / whole.std().clamp(min=1)
    fades = torch.zeros(frames, dtype=torch.bool)
    for start in np.cumsum([len(part) for part in parts])[:-1]:
        fades[start : start + pieces.FADE] = True
    assert len(parts) == 5 and float(difference[~fades].max()) < 1e-4
    assert float(difference[fades].max()) < 1e-3  # two pieces that agree
    alone = torch.cat(list(pieces.sampled(model, given, frames, length=90, context=0, **how)))
    assert float((alone - whole).abs().max()) > 0.05  # what the context is for


def test_a_piece_fades_into_the_next():
    """Where two pieces disagree, the sound moves from one to the other in `FADE` frames."""

    class Counting(Singer):
        calls = 0

        def sample(self, condition, **how):
            self.calls += 1
            return torch.full((1, condition.shape[2], 128), float(self.calls))

    mel = torch.cat(list(pieces.sampled(Counting(), lambda a, b: torch.zeros(1, 1, b - a), 200, length=100)))
    assert mel[:100].eq(1).all() and mel[100 + pieces.FADE :].eq(2).all()
    fade = mel[100 : 100 + pieces.FADE, 0]
    assert torch.allclose(fade, 1 + torch.arange(1, 17) / 17)


def small_nsf():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"upsample_initial_channel": 64, "resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1, 3),)}
        return NSFHiFiGAN(NSFConfig(**sizes)).eval()


@pytest.mark.parametrize("vocoder", [SourceFilterVocoder(), small_nsf()], ids=["source-filter", "nsf"])
def test_pieces_of_a_sound_equal_the_whole(vocoder):
    hertz = 220 * 2 ** (torch.sin(torch.arange(300) / 7) / 6)
    hertz[120:] *= 1.5  # a leap at a seam
    voiced = torch.rand(300, generator=torch.Generator().manual_seed(0)) > 0.1
    mel = svc_log_mel(sung(300 * HOP / RATE))[:300]
    whole = torch.cat(list(pieces.vocoded(vocoder, [mel], hertz, voiced)))
    parts = list(pieces.vocoded(vocoder, mel.split(40), hertz, voiced))
    size = float(whole.std())
    assert len(parts) > 3 and size > 1e-3
    assert float((torch.cat(parts) - whole).abs().max()) < 1e-4 * size


def test_the_length_of_a_piece_follows_from_free_memory():
    published, small = DiffusionSVC(Config()), random_model()
    lengths = [pieces.piece_length(published, free) for free in (0, 10**9, 10**10)]
    assert lengths[0] == 4 * pieces.FADE < lengths[1] < lengths[2] == pieces.LONGEST
    assert pieces.piece_length(small, 10**8) > pieces.piece_length(published, 10**8)
    assert 0.5 < (lengths[1] + 332) * 180e3 / 10**9 * 4 < 1  # a frame took 110 to 160 kB when it was measured
    assert pieces.free_memory(torch.device("cpu")) > 2**20


# The source


@pytest.mark.parametrize("samples", [882, 2205, 8820, 40 * HOP - 1, 40 * HOP, 40 * HOP + 1, 50001])
def test_the_result_has_the_length_of_the_source(samples):
    made = convert(sung(2)[:samples], project(), length=64, progress=False)
    assert made.waveform.shape == (samples,) and made.waveform.isfinite().all()
    assert len(made.hertz) == len(made.source.hertz) == -(-samples // HOP)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (48000, 2), (44100, 2), (22050, 1)])
def test_any_rate_and_number_of_channels(tmp_path, rate, channels):
    """Channels are averaged; the result has the samples of the same time at 44.1 kHz, rounded up."""
    one = 0.3 * sung(1.03, rate=rate)
    several = torch.stack([one, 0 * one])[:channels] if channels == 2 else one[None]
    made = convert(write_wav(tmp_path / "x.wav", several, rate), project(), progress=False)
    assert len(made.waveform) == -(-len(one) * RATE // rate)
    assert abs(float(made.source.hertz.median()) / 220 - 1) < 0.002
    assert abs(decibels(made.waveform) - decibels(one / channels)) < 0.5


def test_pitch_in_parts_is_that_of_the_whole(monkeypatch):
    monkeypatch.setattr(conversion, "_FRAMES_AT_ONCE", 150)
    sound = sung(8, 200 * 2 ** (torch.sin(torch.arange(8 * RATE) / 9000) / 2))
    sound[2 * RATE : 3 * RATE] = 0
    sound[4 * RATE :] *= 0.2
    found, whole = conversion.analyse(sound), extract.pitch(sound[: len(sound) // HOP * HOP], RATE)
    assert torch.equal(found.voiced[: len(whole)], whole.voiced)
    assert float((found.hertz[: len(whole)] / whole.hertz).log2().abs().max()) * 1200 < 1
    assert abs(float(found.energy.mean() * HOP * len(found.energy) / sound.square().sum()) - 1) < 1e-4


def test_units_in_parts_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(conversion, "UNITS_AT_ONCE", 70)
    sound = sung(5.005) * torch.linspace(0, 1, round(5.005 * RATE))
    whole, units = Loudness()(sound, RATE), conversion._Units(sound, Loudness())
    for first, last in [(0, 30), (10, 11), (25, 200), (190, len(whole))]:
        assert torch.allclose(units(first, last), whole[first:last], atol=1e-5)
    assert len(units.held) < 100  # what is no longer needed is forgotten


def test_the_condition_is_that_of_the_whole_song():
    seen, song = [], project()
    encode = song.model.encode

    def spy(units, hertz, ids, singers=None):
        seen.append(encode(units, hertz, ids, singers=singers))
        return seen[-1]

    song.model.encode = spy
    sound = sung(3, 200 * 2 ** (torch.sin(torch.arange(3 * RATE) / 9000) / 2))
    made = convert(sound, song, key=5, singer={"Ada": 3, "Bo": 1}, length=100, progress=False)
    frames = len(made.hertz)
    padded = torch.nn.functional.pad(sound, (0, frames * HOP - len(sound)))
    units = Loudness()(padded, RATE)
    hertz = made.source.hertz * 2 ** (5 / 12)
    whole = encode(units[None], hertz[None], mel2ph(frames, len(units))[None], singers=torch.tensor([[0.75, 0.25]]))
    for part, piece in zip(seen, pieces.pieces(frames, 100, pieces.context_of(song.model)), strict=True):
        assert torch.allclose(part, whole[:, :, piece.first : piece.last], atol=1e-5)


# The result


@pytest.mark.parametrize("length", [64, 100])
def test_the_length_of_a_piece_changes_nothing(length):
    sound = sung(4, 200 * 2 ** (torch.sin(torch.arange(4 * RATE) / 9000) / 2))
    whole, parts = (convert(sound, project(), length=size, progress=False).waveform for size in (2000, length))
    assert float((whole - parts).abs().max()) < 1e-3 * float(whole.abs().max())


def test_a_seed_decides_the_noise():
    made = [convert(sung(0.5), project(), seed=seed, progress=False).waveform for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.allclose(made[0], made[2], atol=1e-3)


def test_loudness_is_that_of_the_source():
    envelope = 0.05 + 0.4 * torch.sin(torch.arange(4 * RATE) * torch.pi / RATE / 2).square()
    sound = sung(4) * envelope
    made, free = (convert(sound, project(), loudness=how, progress=False).waveform for how in ("contour", "model"))
    assert abs(decibels(made) - decibels(sound)) < 0.5
    pairs = zip(made.split(8820), sound.split(8820), strict=True)
    assert max(abs(decibels(a) - decibels(b)) for a, b in pairs) < 1.5
    assert np.ptp([decibels(part) for part in free.split(8820)]) < 8 < np.ptp([decibels(p) for p in sound.split(8820)])


def test_peaks_stay_below_full_scale():
    rows = torch.zeros(60, HOP)
    rows[:, ::64] = 1.0  # clicks: a high peak for its level
    loud = torch.cat(list(conversion.matched(rows.split(7), torch.full((60,), 0.5))))
    assert float(loud.abs().max()) <= 0.9901
    quiet = torch.cat(list(conversion.matched(rows.split(7), torch.full((60,), 1e-4))))
    assert torch.allclose(quiet.square().mean(dim=1), torch.full((60,), 1e-4), rtol=1e-3)
    assert not torch.cat(list(conversion.matched([rows], torch.zeros(60)))).any()


def test_a_steady_tone_does_not_drift_and_a_glide_has_no_steps():
    steady = Project(Singer(), Loudness(), voices=VOICES, steps=2)
    hertz = torch.full((30 * RATE,), 220.0)
    hertz[10 * RATE : 20 * RATE] = 220 * 2 ** (torch.arange(10 * RATE) / RATE / 10)
    hertz[20 * RATE :] = 440.0
    made, whole = (convert(sung(30, hertz), steady, length=size, progress=False) for size in (64, 3000))
    found, unchunked = (extract.pitch(each.waveform, RATE) for each in (made, whole))
    wanted = made.source.hertz[: len(found)]
    for part in (slice(20, 840), slice(1760, 2560)):
        cents = 1200 * (found.hertz[part] / wanted[part].median()).log2()
        assert found.voiced[part].all() and float(cents.abs().max()) < 5
    steps = 1200 * (found.hertz / unchunked.hertz).log2().abs()
    assert float(steps[10:-10].max()) < 10


def test_silence_stays_silent():
    with pytest.warns(UserWarning, match="Nothing in it is voiced"):
        made = convert(torch.zeros(20000), project(), progress=False)
    assert not made.waveform.any() and not made.source.voiced.any() and not made.hertz.any()


def test_a_whisper_becomes_one():
    noise = 0.01 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="whisper"):
        made = convert(noise, project(), progress=False)
    assert abs(decibels(made.waveform) - decibels(noise)) < 1
    with pytest.raises(errors.ParameterError, match="nothing is voiced"):
        convert(noise, project(), key="median", progress=False)


def test_notes_outside_the_trained_range_are_said():
    with pytest.warns(UserWarning, match="100% of what is sung, as far as 880 Hz, lies above .* Ada, 110 to 440 Hz"):
        made = convert(sung(1), Project(Singer(), Loudness(), voices=VOICES), key="+24", progress=False)
    assert abs(extract.pitch(made.waveform, RATE).median / 880 - 1) < 0.01  # and it is sung as asked, not at 1 Hz
    with pytest.warns(UserWarning) as noted:
        made = convert(sung(1, 1250.0), project(), progress=False)
    assert "above 1100 Hz" in str(noted[-1].message) and len(made.remarks) == 2
    assert abs(float(made.hertz.median()) - 1250) < 5


def test_key_to_the_median_of_a_singer():
    made = convert(sung(1, 200.0), project(), singer="Bo", key="median", progress=False)
    assert abs(made.key - 12 * np.log2(330 / 200)) < 0.05 and abs(float(made.hertz.median()) - 330) < 1
    mixed = convert(sung(1, 200.0), project(), singer={"Ada": 1, "Bo": 1}, key="median", progress=False)
    assert abs(float(mixed.hertz.median()) - np.sqrt(220 * 330)) < 1


def test_bad_values_are_named(tmp_path):
    song, how = sung(0.3), {"progress": False}
    for wrong, message in (
        ({"singer": "Adda"}, "singer: 'Adda'; expected one of Ada, Bo. Did you mean 'Ada'"),
        ({"singer": {"Ada": 0}}, "shares"),
        ({"key": "high"}, "key: 'high'"),
        ({"key": float("nan")}, "key: nan"),
        ({"loudness": "loud"}, "loudness"),
        ({"sampler": "euler"}, "sampler"),
        ({"steps": -1}, "steps"),
        ({"out": tmp_path / "x.mp3"}, "out: .* a .wav file"),
    ):
        with pytest.raises(errors.ParameterError, match=message):
            convert(song, project(), **wrong, **how)
    with pytest.raises(errors.TooShortError, match=r"0.0113 s of sound; expected at least 0.02 s"):
        convert(song[:500], project(), **how)
    with pytest.raises(errors.MediaError, match="no such file"):
        convert(tmp_path / "nothing.wav", project(), **how)
    (tmp_path / "file").touch()
    with pytest.raises(errors.CacheError, match="a folder that can be written"):
        convert(song, project(), out=tmp_path / "file" / "new", **how)
    (tmp_path / "file").unlink()
    song[9000] = float("nan")
    with pytest.raises(errors.MediaError, match=r"not a number at 0\.204 s"):
        convert(write_wav(tmp_path / "nan.wav", song[None], RATE), project(), out=tmp_path, **how)
    with pytest.raises(errors.CheckpointError, match="16, as the model takes"):
        Project(random_model(), type("Wide", (Loudness,), {"width": 256})(), voices=VOICES)
    assert [path.name for path in tmp_path.iterdir()] == ["nan.wav"]


# Files


def test_a_file_says_that_it_is_synthetic(tmp_path):
    source = write_wav(tmp_path / "song.wav", sung(0.7)[None], RATE)
    made = convert(source, project(mark="m"), out=tmp_path / "new", singer="Bo", key=2, progress=False)
    assert made.path == tmp_path / "new" / "song-Bo.wav" and made.waveform is None
    with soundfile.SoundFile(made.path) as file:
        assert "synthetic" in file.title and (file.samplerate, file.channels, file.subtype) == (RATE, 1, "PCM_16")
        assert json.loads(file.comment)["key"] == 2 and len(file) == made.source.samples == len(sung(0.7))
    with av.open(str(made.path)) as container:  # as other programs read it
        assert "synthetic" in container.metadata["title"]
    with pytest.raises(errors.ParameterError, match="which is read"):
        convert(source, project(), out=source, progress=False)


def test_a_batch_goes_on_where_it_was(tmp_path):
    sources = [write_wav(tmp_path / f"{name}.wav", sung(0.3)[None], RATE) for name in "abc"]
    how = {"out": tmp_path / "new", "progress": False}
    first = convert(sources[:1], project(mark="m"), **how)[0].path
    first.touch()
    os.utime(first, ns=(10**18, 10**18))
    (tmp_path / "bad.wav").write_text("no sound")
    with pytest.warns(UserWarning, match="bad.wav: cannot be decoded .* left out"):
        made = convert([*sources, tmp_path / "bad.wav"], project(mark="m"), on_error="skip", **how)
    assert [each.path.name for each in made] == ["a-Ada.wav", "b-Ada.wav", "c-Ada.wav"]
    assert first.stat().st_mtime_ns == 10**18  # kept
    convert(sources[0], project(mark="another model"), **how)
    assert first.stat().st_mtime_ns != 10**18
    (tmp_path / "other").mkdir()
    twin = write_wav(tmp_path / "other" / "a.wav", sung(0.3)[None], RATE)
    with pytest.raises(errors.ParameterError, match="several of the same name"):
        convert([sources[0], twin], project(), **how)


RUN = """
import resource, sys, torch
sys.path[:0] = [{tests!r}, {here!r}]
import test_svc_conversion as tests
sound = {sound}
made = tests.convert(sound, tests.project(mark="m"), out={out!r}, length={length}, steps={steps}, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def in_a_process(**values):
    here = str(ROOT / "tests")
    code = RUN.format(tests=here, here=here + "/systems", **values)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)


def test_a_kill_leaves_no_half_file(tmp_path):
    source = write_wav(tmp_path / "song.wav", sung(20)[None], RATE)
    folder, deadline = tmp_path / "new", time.monotonic() + 120
    with in_a_process(sound=repr(str(source)), out=str(folder), length=64, steps=40) as process:
        while not any(path.stat().st_size > 4e4 for path in folder.glob(".unfinished-*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert [path.name.startswith(".unfinished-") for path in folder.iterdir()] == [True]
    made = convert(source, project(), out=folder, progress=False)
    assert list(folder.iterdir()) == [made.path] and soundfile.info(made.path).frames == 20 * RATE


@pytest.mark.long
def test_memory_does_not_grow_with_the_song(tmp_path):
    """Ten minutes need at most 1.3 times what one minute needs."""
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        glide = sung(60, 200 * 2 ** (torch.sin(torch.arange(60 * RATE) / 90000) / 2))
        with soundfile.SoundFile(path, "w", RATE, 1) as file:
            for _ in range(minutes):
                file.write(glide.numpy())
        with in_a_process(sound=repr(str(path)), out=str(tmp_path / "new"), length=0, steps=2) as process:
            peaks.append(int(process.communicate()[0]))
        assert process.returncode == 0
    assert soundfile.info(tmp_path / "new" / "10-Ada.wav").frames == 600 * RATE
    assert peaks[1] < 1.3 * peaks[0]


def test_nothing_larger_than_a_piece_is_made(tmp_path):
    sizes = []

    class Watched(Singer):
        def sample(self, condition, **how):
            sizes.append(condition.shape[2])
            return super().sample(condition, **how)

    watched = Project(Watched(), Loudness(), voices=VOICES, steps=2)
    path = write_wav(tmp_path / "song.wav", sung(12)[None], RATE)
    convert(path, watched, out=tmp_path / "new.wav", length=100, progress=False)
    assert len(sizes) == 11 and max(sizes) <= 100 + 2 * pieces.context_of(Singer())
    assert media.read_audio(tmp_path / "new.wav", RATE).shape == (12 * RATE,)


# Projects


def saved(folder, **options):
    """A project with a recogniser, in a folder."""
    recogniser = Recognizer(RecognizerConfig(tuple("abcdefghijklmnop"), width=8, layers=1))
    made = Project(random_model(singers=2), recognizer_encoder(recogniser), voices=VOICES, steps=3, **options)
    made.save(folder)
    return made


def test_a_project_is_read_as_it_was_written(tmp_path):
    made, found = saved(tmp_path / "mine"), load(tmp_path / "mine")
    assert (found.steps, found.sampler, found.voices) == (3, "unipc", VOICES) and found.mark
    one, other = (convert(sung(1), each, singer="Bo", progress=False).waveform for each in (made, found))
    assert torch.equal(one, other)


def test_projects_have_names(tmp_path, cache):
    older, newer = (cache / "trained" / f"svc-diffusion-{number}" / "result" for number in "12")
    for number, folder in enumerate((older, newer)):
        folder.parent.mkdir(parents=True)
        saved(folder)
        give_name("a voice", folder)
        rows = [{"step": 1}, {"step": 2, "held-out loss": 0.1 + number}]
        (folder / "history.json").write_text(json.dumps(rows))
        os.utime(folder / "project.json", ns=(10**18 + number, 10**18 + number))
    assert str(newer) in load("a voice").mark and str(older) in load("a voice", which="best").mark
    with pytest.raises(errors.CheckpointError, match="another voice: is neither a folder nor a trained project"):
        load("another voice")
    saved(tmp_path / "many" / "1")
    assert str(tmp_path / "many" / "1") in load(tmp_path / "many").mark
    (tmp_path / "none").mkdir()
    with pytest.raises(errors.CheckpointError, match="has no trained model in it"):
        load(tmp_path / "none")
    with pytest.raises(errors.ParameterError, match="which"):
        load("a voice", which="worst")


def test_published_weights_need_an_encoder(tmp_path):
    names = {f"model.{name}": tensor for name, tensor in random_model().state_dict().items()}
    torch.save({"state_dict": names, "epoch": 1}, tmp_path / "model_ckpt_steps_1.ckpt")
    with pytest.raises(errors.CheckpointError):
        load(tmp_path)


def test_the_command_converts_a_batch(tmp_path, capsys):
    saved(tmp_path / "model")
    (tmp_path / "bad.wav").write_text("no sound")
    sources = [str(write_wav(tmp_path / f"{name}.wav", 0.3 * sung(0.3)[None], RATE)) for name in "ab"]
    command = ["convert", *sources, "--model", str(tmp_path / "model"), "--out", str(tmp_path / "new"), "--steps", "2"]
    assert main([*command, "--key", "+2", "--singer", "Ada=1,Bo=3"]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == [str(tmp_path / "new" / f"{name}-Ada=1+Bo=3.wav") for name in "ab"]
    assert main([*command, str(tmp_path / "bad.wav"), "--key", "-30"]) == 2
    shown = capsys.readouterr()
    assert "bad.wav: cannot be decoded" in shown.err and "below the range that was learned of Ada" in shown.err
    assert "Traceback" not in shown.err and len(shown.out.split()) == 2
    for wrong, message in (
        (["--singer", "C"], "ParameterError: singer: 'C'; expected one of Ada, Bo."),
        (["--key", "high"], "ParameterError: key: 'high'; expected semitones"),
        (["--sampler", "euler"], "ParameterError: sampler: 'euler'"),
        (["--steps", "1"], "ParameterError: steps: 1"),
        (["--pitch", "ear"], "ParameterError: pitch: 'ear'"),
        (["--singer", "Ada=x"], "ParameterError: --singer: Ada=x; expected a name, or A=0.3,B=0.7."),
        (["--model", str(tmp_path / "none")], "CheckpointError: "),
        (["--device", "tpu"], 'ParameterError: device: "tpu" is not available'),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert "consent" in capsys.readouterr().out
