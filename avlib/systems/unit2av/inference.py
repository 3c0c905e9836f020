"""Speech, and a face that says it, from units of any number.

    units -> durations, where repeats were removed -> sound in pieces -> wav
                                                   -> pictures of a video with new mouths -> mp4

Memory grows by the units, the boxes and, for a video, its sound: 4 MB for a minute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ... import checkpoints, media, training
from ...cache import output, publishing
from ...datasets.sources import SOUND_SUFFIXES, VIDEO_SUFFIXES
from ...datasets.unit2av import SYNTHETIC, boxes_at_ticks, detect_boxes, dub, read_boxes, read_units
from ...datasets.unit2av.preview import preview as write_preview
from ...errors import CheckpointError, DatasetError, ParameterError, check_choice, check_whole
from ...extract import speakers
from ...extract.discrete import UnitExtractor
from ...features import SAMPLE_RATE, face_places
from ...features.units import UNIT_RATE, check_units, deduplicate, run_lengths
from ...models.face_renderer import FaceRenderer
from ...models.speaker_encoder import SpeakerEncoder
from ...models.unit_source import UnitSource
from ...models.unit_speech import UnitSpeech
from ...models.unit_vocoder import UnitVocoder
from ...progress import seconds_bar

Vector = Float[Tensor, " width"]
Embedder = Callable[[Float[Tensor, " samples"]], Vector]

Units = Int[Tensor, " units"]

PIECE = 500  # units that are spoken at once: 10 s
PREDICT = ("auto", "on", "off")
_ENDING = "_preprocessed"  # of published files of units


@dataclass(frozen=True)
class Speech:
    """All that speaks units."""

    vocoder: UnitSpeech  # or a UnitSource
    renderer: FaceRenderer | None = None  # of mouths; None: sound alone
    extractor: Callable[[Tensor, int], Tensor] | None = None  # makes units of sound; None: not trained with one
    embedder: Embedder | None = None  # makes a speaker vector of 16 kHz sound; None: an installed Resemblyzer
    step: str = "unknown_step"  # of the training, as in the name of the file

    def __post_init__(self):
        count, face = self.vocoder.config.num_embeddings, self.renderer
        few = face is not None and face.config.num_embeddings < count
        if few or getattr(self.extractor, "vocabulary", 0) > count:
            name, other = ("renderer", face.config.num_embeddings) if few else ("extractor", self.extractor.vocabulary)
            raise CheckpointError(name, f"has {other} units", f"{count}, as the vocoder", "Give parts of one training.")


class Inferred(NamedTuple):
    """A file that was made, the units that are spoken in it, seconds of sound, and remarks in words."""

    path: Path
    units: Int[Tensor, " units"]
    seconds: float
    notes: list[str]


# Models


def load(
    model: str | Path, language: str = "en", *, config: str | Path | None = None, renderer: str | Path | None = None,
    encoder: str | Path | None = None, device: torch.device | str | None = None,
) -> Speech:  # fmt: skip
    """Load what speaks units.

    Args:
        model: the published container with a vocoder for each language and a face renderer; `g_00050000`; a bare file;
            a folder with such files, of which `g_best` or the last one is taken; or a folder of a trained vocoder.
        language: of the container's vocoder.
        config: a published config.json. None: that beside a `g_` file, else as the file's shapes say.
        renderer: of faces, a file or folder. None: the container's, if it has one.
        encoder: of speakers, a file. None: that of the training, else Resemblyzer's where it is installed.
        device: None or "auto" takes a GPU if there is one.

    Raises:
        CheckpointError: a file cannot be read or does not fit; the language is missing, and those there are listed.
    """
    path, device = _weights_of(Path(model)), training.chosen_device(device)
    beside = path.with_name("config.json")
    if config is None and path.name.startswith("g_") and beside.exists():
        config = beside
    if path.is_dir() and _kind(path) == "UnitSource":
        vocoder = UnitSource.from_checkpoint(path)
    else:
        vocoder = UnitVocoder.from_checkpoint(path, language, config)
    K, face = vocoder.config.num_embeddings, None
    if renderer is None and path.is_file():
        content = checkpoints.contents(path)
        renderer = path if isinstance(content, dict) and "video" in content else None
        del content
    if renderer is not None:
        face = FaceRenderer.from_checkpoint(renderer)
        if face.config.num_embeddings < K:
            face = FaceRenderer.from_checkpoint(renderer, K)  # further rows are copies of its last
        face.to(device)
    digits = re.search(r"\d+", path.name) if path.is_file() else None
    step = f"{int(digits[0])}step" if digits else "unknown_step"
    extract, embed = _of_training(path)
    embed = SpeakerEncoder.from_checkpoint(encoder).embed if encoder else embed
    return Speech(vocoder.to(device), face, extract, embed, step)


def _of_training(path: Path) -> tuple[UnitExtractor | None, Embedder | None]:
    """The extractor of units and of speaker vectors of the training that wrote a folder."""
    if not (path / "settings.json").exists():
        return None, None
    extract = UnitExtractor.from_checkpoint(path / "units") if (path / "units").exists() else None
    settings = checkpoints.read_config(path / "settings.json")
    known = checkpoints.read_config(path / "speaker.json") if (path / "speaker.json").exists() else {}
    given = settings.get("vocoder", {}).get("speaker", "auto")
    embed, kind = speakers.embedder("statistics" if known.get("speaker") == "statistics" else given)
    if kind != known.get("speaker", kind):
        found = "was trained with vectors of a speaker encoder, which is not there"
        raise CheckpointError(path, found, "Resemblyzer's weights", "Install it as the README says.")
    if kind != "statistics":
        return extract, embed
    return extract, lambda waveform: embed(waveform[: 60 * SAMPLE_RATE])  # more needs memory, and tells no more


def _kind(folder: Path) -> str:
    file = folder / checkpoints.CONFIG
    return str(checkpoints.read_config(file).get("model", "")) if file.exists() else ""


def _weights_of(path: Path) -> Path:
    """The file, or the folder of `save`."""
    if not path.is_dir() or (path / checkpoints.WEIGHTS).exists():
        if path.is_dir() and _kind(path) == "FaceRenderer":
            raise CheckpointError(path, "is a face renderer", "a vocoder", "Give it as renderer= (--renderer).")
        return path
    found = sorted(file for file in path.glob("g_*") if file.is_file())
    if not found:
        advice = "Give the file, or the folder of a training."
        raise CheckpointError(path, "has no vocoder in it", f"g_<steps>, or {checkpoints.WEIGHTS}", advice)
    return next((file for file in found if file.name == "g_best"), found[-1])


def speaker_vector(source: str | Path | Tensor, embedder: Embedder | None = None, width: int = 256) -> Vector:
    """Return a speaker vector `(256,)`.

    The source is a vector of any number of axes; a .pt file of one, or with it under "spkr"; a .npy file; or sound or
    video of a voice, for which Resemblyzer's weights are the default embedder where it is installed.

    Raises:
        ParameterError: no vector, another width, NaN, infinity or zeros, or silence.
        MediaError: no sound.
        DatasetError, CheckpointError: a file that cannot be read; no weights for sound.
    """
    path = Path("tensor") if isinstance(source, Tensor) else Path(source)
    if isinstance(source, Tensor):
        found: object = source
    elif path.suffix.lower() in (".pt", ".pth"):
        found = checkpoints.contents(path)
        found = found.get("spkr") if isinstance(found, dict) else found
    elif path.suffix.lower() == ".npy":
        try:
            found = torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, TypeError) as error:
            found = f"cannot be read ({error})"
            raise DatasetError(path, found, "an array of numbers", "Nothing in it ran.") from error
    else:
        embed = embedder or SpeakerEncoder.from_checkpoint().embed
        found = embed(media.read_audio(path, SAMPLE_RATE))
    name = "speaker" if isinstance(source, Tensor) else source
    if not isinstance(found, Tensor) or found.numel() != width or width not in found.shape:
        shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else "no vector"
        raise ParameterError(name, shape, f"one vector, ({width},) or (1, 1, {width})", "Embed the voice again.")
    vector = found.detach().flatten().float().cpu()
    if not vector.isfinite().all() or not vector.any():
        expected = "finite numbers that are not all 0"
        raise ParameterError(name, "a vector of NaN, infinity or zeros", expected, "Embed the voice again.")
    return vector


# Sound


@torch.no_grad()
def at_full_rate(
    vocoder: UnitSpeech, units: Units, predict: str = "auto", total: int | None = None
) -> Int[Tensor, " repeated"]:
    """Return units with repeats, 50 a second.

    With `predict` "on" repeats are removed and new ones predicted, for translated units, `total` in all (see
    `UnitVocoder`); "off" takes the units as they are; "auto" is "on" if no unit is repeated.
    """
    check_choice("predict", predict, PREDICT)
    _, lengths = run_lengths(units)
    if predict == "off" or (predict == "auto" and int(lengths.max()) > 1):
        if total is not None:
            found = f"{total}, for units at full rate" if predict == "auto" else f"{total} without predicted durations"
            raise ParameterError("total", found, "none", 'Predict durations: predict="on" (--durations on).')
        return units
    units = deduplicate(units).to(vocoder.spkr.weight.device)
    return units.repeat_interleave(vocoder.predict_durations(units[None], total=total)[0]).cpu()


def speak(
    vocoder: UnitSpeech, units: Units, speaker: Vector, predict: str = "auto", total: int | None = None,
    piece: int = PIECE,
) -> Iterator[Float[Tensor, " samples"]]:  # fmt: skip
    """Yield speech in pieces of so many units, which together equal the whole to 1e-5; see `at_full_rate`."""
    units, device = at_full_rate(vocoder, units, predict, total), vocoder.spkr.weight.device
    for waveform in vocoder.pieces(units.to(device), speaker.to(device), piece):
        yield waveform.cpu()


# Files


def infer(
    units: str | Path | Tensor, model: Speech | str | Path, out: str | Path, *, video: str | Path | None = None,
    boxes: str | Path | Sequence | None = None, face: int = 0, speaker: str | Path | Tensor | None = None,
    language: str = "en", unit_offset: int = 0, predict: str = "auto", total: int | str | None = None,
    missing: str = "keep", reference: str | None = None, feather: float | int = 0.0,
    preview: str | Path | None = None, detector: str = "auto", progress: bool = True, **loading: Any,
) -> Inferred:  # fmt: skip
    """Write speech from units, or a video whose mouth says it. What is written says that it is synthetic.

    Args:
        units: a file of `read_units`, or `(n,)`; or sound or video, for a model that was trained with an extractor.
        model: as `load` returns it, or what that takes.
        out: a .wav file, or .mp4 with a video; or a folder, for `<name>_<steps>step.wav` as published. A file appears
            whole or not at all.
        video: whose face is to say it. Longer speech lets it go to and fro; shorter speech ends it.
        boxes: a file of `read_boxes`, or a box for each picture of the video; None looks for faces by a detector.
        face: which of several, from 0.
        speaker: see `speaker_vector`. None takes the vector in the file of units, else the sound of the video.
        total: units of the speech, where durations are predicted (see `at_full_rate`); "video" makes it as long as
            the video.
        missing, reference, feather: see `dub`.
        preview: a .png to write, with pictures of the video and the boxes of its faces.
        language, loading: of `load`; unit_offset: of `read_units`; detector: of `detect_boxes`.

    Raises:
        ParameterError: a value out of range; no speaker, boxes or renderer where they are needed.
        DatasetError, MediaError, CheckpointError: a file that cannot be used.
        CacheError: the file cannot be written.
    """
    speech = model if isinstance(model, Speech) else load(model, language, **loading)
    path = _output(Path(out), units, video, boxes, speaker, step=speech.step)
    vocoder, notes = speech.vocoder.eval(), []
    given, vector = _units(units, speech, unit_offset)
    vector = _speaker(speaker, vector, video, units, speech)
    steady = None
    if video is not None:
        if speech.renderer is None:
            advice = "Give a renderer= (--renderer), or the published container; or leave the video out."
            raise ParameterError("video", f"{video}, for a model without a face renderer", "one with it", advice)
        steady = media.SteadyVideo(video)
        boxes, tracks = _boxes(video, boxes, face, detector)
        boxes = boxes_at_ticks(steady, boxes)
        face_places(boxes, *steady.size, missing)  # refuses before anything is spoken
        if preview is not None:
            write_preview(video, tracks, preview)
    elif total == "video" or preview is not None:
        raise ParameterError("video", "none", 'one, for total="video" and for a preview')
    spoken = at_full_rate(vocoder, given, predict, _total(total, steady, given))
    if len(spoken) != len(given):
        notes.append(f"{len(deduplicate(given))} units without repeats became {len(spoken)} by predicted durations")
    sounds = _shown(speak(vocoder, spoken, vector, "off"), len(spoken), progress)
    if steady is None:
        tags = {"title": "synthetic speech", "comment": SYNTHETIC["comment"], "software": "avlib"}
        with publishing(path) as unfinished:
            media.write_wav(unfinished, sounds, SAMPLE_RATE, tags)
    else:
        waveform, at = torch.empty(len(spoken) * vocoder.config.code_hop_size), 0
        for sound in sounds:
            waveform[at : at + len(sound)] = sound
            at += len(sound)
        how = {"missing": missing, "reference": reference, "feather": feather, "progress": progress}
        notes += dub(speech.renderer, steady, boxes, spoken, path, waveform, SAMPLE_RATE, **how).notes
    return Inferred(path, spoken, len(spoken) / UNIT_RATE, notes)


def _shown(sounds: Iterator[Tensor], units: int, progress: bool) -> Iterator[Tensor]:
    with seconds_bar("speaking", units / UNIT_RATE, progress) as bar:
        for sound in sounds:
            yield sound
            bar.update(len(sound) / SAMPLE_RATE)


def _output(out: Path, units: object, video: object, *given: object, step: str) -> Path:
    """The file to write, in a folder that exists."""
    suffix = ".wav" if video is None else ".mp4"
    if out.suffix.lower() in SOUND_SUFFIXES | VIDEO_SUFFIXES:
        if out.suffix.lower() != suffix:
            kind = "sound alone" if video is None else "a video"
            raise ParameterError("out", f"{out}, for {kind}", f"a {suffix} file, or a folder")
        path = out
    else:
        stem = "units" if isinstance(units, Tensor) else Path(units).stem.removesuffix(_ENDING)
        path = out / f"{stem}_{step}{suffix}"
    return output(path, units, video, *given)


def _units(source: str | Path | Tensor, speech: Speech, offset: int) -> tuple[Tensor, Tensor | None]:
    """Units, and the speaker of their file or None."""
    K = speech.vocoder.config.num_embeddings
    if not isinstance(source, Tensor):
        if Path(source).suffix.lower() not in SOUND_SUFFIXES | VIDEO_SUFFIXES:
            return read_units(source, offset, K)
        if speech.extractor is None:
            advice = "Extract units with the model that made those of the training."
            raise ParameterError("units", f"{source}, for a model without an extractor", "a .txt or .pt file", advice)
        source, offset = speech.extractor(media.read_audio(source, SAMPLE_RATE, align=True), SAMPLE_RATE), 0
    if source.is_floating_point() or source.ndim != 1 or not len(source):
        found = f"{source.dtype} of shape {tuple(source.shape)}"
        raise ParameterError("units", found, "whole numbers, (n,), 1 or more")
    units = source.long().cpu() - offset
    check_units(units, K)
    return units, None


def _speaker(given: Any, found: Tensor | None, video: Any, units: Any, speech: Speech) -> Tensor:
    """The speaker vector: as given, that of the units' file, or of the voice in the video or sound."""
    width = speech.vocoder.config.embedder_dim
    heard = video if video is not None else units
    is_media = not isinstance(heard, Tensor) and Path(heard).suffix.lower() in SOUND_SUFFIXES | VIDEO_SUFFIXES
    if given is None:
        given = found
    if given is None and is_media and media.probe(heard).audio is not None:
        given = heard
    if given is None:
        where = f"{heard} has no sound" if is_media else "the units' file has none"
        expected = "a recording of the voice, or a vector of 256 numbers"
        raise ParameterError("speaker", f"none given, and {where}", expected, "Give it as speaker= (--speaker FILE).")
    return speaker_vector(given, speech.embedder, width)


def _boxes(video: str | Path, boxes: Any, face: int, detector: str) -> tuple[Sequence, list[Sequence]]:
    """The boxes of the face, and those of all faces."""
    if boxes is None:
        tracks = detect_boxes(video, detector)
        if not tracks:
            raise ParameterError("boxes", f"no face was found in {video}", "a face", "Give boxes in a JSON file.")
        check_whole("face", face, 0, len(tracks) - 1)
        return tracks[face], tracks
    boxes = read_boxes(boxes, face) if isinstance(boxes, str | Path) else boxes
    return boxes, [boxes]


def _total(total: int | str | None, video: media.SteadyVideo | None, units: Tensor) -> int | None:
    """Units of the speech."""
    if isinstance(total, str):
        check_choice("total", total, ("video",))
        total, runs = 2 * len(video), len(deduplicate(units))
        if total < runs:
            found, expected = f"{total} units, as long as {video.path}", f"at least {runs}, one for each run"
            raise ParameterError("total", found, expected, "Leave it out: it goes to and fro.")
    return total
