"""Conversion of songs of any length to another voice.

    a file -> pitch of the whole (`analyse`) -> units of parts -> mel of pieces -> sound of pieces -> a file

Memory does not grow with the song, apart from some numbers for each frame. The length of a piece follows from the free
memory and decides nothing: pitch and units are computed on a fixed grid, noise and phase follow from the position, and
the context of a piece is long enough.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ... import cache, extract, media, training
from ...datasets.sources import SOUND_SUFFIXES
from ...errors import AvlibError, ParameterError, TooShortError, check_choice, check_whole
from ...features import SVC_HOP, SVC_SAMPLE_RATE, mel2ph, svc_units
from ...models.diffusion_svc import HIGHEST
from ...models.samplers import SAMPLERS
from ...progress import seconds_bar
from ...workers import POLICIES
from . import pieces
from .project import Project, Shares, Voice, load

Source = str | Path | Tensor

UNIT = 882  # samples of a unit at 44.1 kHz
UNITS_AT_ONCE, UNITS_AROUND = 1000, 100  # that are encoded together: 20 s, and 2 s of context on each side
_FRAMES_AT_ONCE = 4096  # whose pitch is found together
_FRAMES_AROUND = math.ceil(extract.CONTEXT * SVC_SAMPLE_RATE / SVC_HOP)
_SMOOTH = 8  # frames on each side of the loudness contour: 0.2 s
_MOST_GAIN = 1000.0  # 60 dB
_PEAK = 0.99


class Analysis(NamedTuple):
    """Pitch and level of a song, for each frame of 512 samples at 44.1 kHz, the last one filled up with silence."""

    samples: int
    hertz: Float[Tensor, " frames"]  # continuous through unvoiced frames; 0 if nothing is voiced
    voiced: Bool[Tensor, " frames"]
    energy: Float[Tensor, " frames"]  # mean square


class Conversion(NamedTuple):
    """A converted song.

    waveform: `(samples,)` at 44.1 kHz, as many as the source has at that rate; None if it is in a file.
    """

    waveform: Float[Tensor, " samples"] | None
    path: Path | None  # of the file; None if there is none
    source: Analysis  # pitch and level of the source
    hertz: Float[Tensor, " frames"]  # the pitch that is sung
    key: float  # semitones from the source to it
    remarks: tuple[str, ...]  # in words, on what makes the result doubtful


def convert(
    source: Source | Sequence[Source], project: Project | str | Path, *, key: float | int | str = 0,
    singer: Shares = "", out: str | Path = "", sampler: str = "", steps: int = 0, seed: int = 0,
    loudness: str = "contour", pitch: str = "autocorrelation", length: int = 0, on_error: str = "raise",
    device: torch.device | str | None = None, progress: bool = True,
) -> Conversion | list[Conversion]:  # fmt: skip
    """Convert a song, or several, to the voice of a trained singer.

    Args:
        source: an isolated voice: a file of any format and rate, whose channels are averaged, or a waveform
            `(samples,)` at 44.1 kHz; or several.
        key: semitones up; "median" moves the median pitch to that of the singer.
        singer: a name, or shares of several, whose sum is made 1; "" takes the first one.
        out: a `.wav` file, or a folder for `NAME-SINGER.wav`; with "" the sound is returned. A file appears whole or
            not at all. It is kept if it is of the same source, model and values, so that a batch that was killed goes
            on.
        sampler, steps: of `DiffusionSVC.sample`; "" and 0 take those of the project.
        loudness: "contour" gives the sound the source's level over 0.2 s, by at most 60 dB; "model" leaves it.
        length: most frames of a piece; 0: as the free memory allows.
        on_error: "raise", or "skip" for sources that cannot be used, with a warning.

    Raises:
        MediaError: a file cannot be read; TooShortError: shorter than 20 ms.
        ParameterError: a value out of range, an unknown singer, or key "median" where nothing is voiced.
        CheckpointError: the project cannot be used.
    """
    check_choice("loudness", loudness, ("contour", "model"))
    check_choice("on_error", on_error, POLICIES)
    check_choice("pitch", pitch, extract.METHODS)
    key, device = _checked_key(key), training.chosen_device(device)
    project = (project if isinstance(project, Project) else load(project)).to(device)
    sampling = {"sampler": sampler or project.sampler, "steps": steps or project.steps, "seed": seed}
    check_choice("sampler", sampling["sampler"], SAMPLERS)  # before any source, not once for each
    check_whole("steps", sampling["steps"], 2, project.model.config.timesteps)
    single = isinstance(source, str | Path | Tensor)
    sources, made = [source] if single else list(source), []
    for one, path in zip(sources, _outputs(sources, out, project.weights(singer)[1]), strict=True):
        try:
            how = {"loudness": loudness, "pitch": pitch, "length": length, "progress": progress, **sampling}
            made.append(_converted(one, path, project, key, singer, **how))
        except AvlibError as error:
            if on_error == "raise":
                raise
            warnings.warn(f"{error} It is left out.", stacklevel=2)
            continue
        for remark in made[-1].remarks:
            warnings.warn(f"{_name(one)}: {remark}", stacklevel=2)
    return made[0] if single and made else made


def _converted(
    source: Source, path: Path | None, project: Project, key: Any, singer: Shares, *, loudness: str, pitch: str,
    length: int, progress: bool, **sampling: Any,
) -> Conversion:  # fmt: skip
    song, voice = analyse(source, pitch, progress=progress), project.voice(singer)
    key = _semitones(key, song, voice)
    weights, name = project.weights(singer)
    hertz = song.hertz * 2 ** (key / 12)
    sounds = _sung(source, project, song, hertz, weights, length, progress, **sampling)
    if loudness == "contour":
        sounds = matched(sounds, song.energy)
    waveform = None
    if path is None:
        waveform = torch.cat(list(sounds)).flatten()[: song.samples]
    else:
        facts = {"source": _mark(source), "model": project.mark, "singer": name, "key": key, "pitch": pitch}
        _write(path, sounds, song.samples, facts | {"loudness": loudness, **sampling})
    return Conversion(waveform, path, song, hertz, key, tuple(_remarks(hertz, song.voiced, voice, name)))


def analyse(source: Source, method: str = "autocorrelation", *, progress: bool = False) -> Analysis:
    """Find the pitch and level of a song of any length."""
    count = 0

    def counted() -> Iterator[Tensor]:
        nonlocal count
        for part in _parts(source):
            count += len(part)
            yield part

    level = extract.sound_level(counted(), SVC_SAMPLE_RATE)
    if count < UNIT:
        found = f"{count / SVC_SAMPLE_RATE:.4f} s of sound"
        raise TooShortError(_name(source), found, "at least 0.02 s, one content unit", "Give a longer sound.")
    hertz, voiced, energy = [], [], []
    with seconds_bar("pitch", count / SVC_SAMPLE_RATE, progress) as bar:
        for rows, begin, end in pieces.with_context(rows_of(source, SVC_HOP, _FRAMES_AT_ONCE), _FRAMES_AROUND):
            found = extract.pitch(rows.flatten(), SVC_SAMPLE_RATE, SVC_HOP, method, level=level)
            hertz.append(found.hertz[begin:end])
            voiced.append(found.voiced[begin:end])
            energy.append(rows[begin:end].square().mean(dim=1))
            bar.update((end - begin) * SVC_HOP / SVC_SAMPLE_RATE)
    known = torch.cat(voiced)
    return Analysis(count, extract.fill_unvoiced(torch.cat(hertz), known), known, torch.cat(energy))


def rows_of(source: Source, width: int, most: int) -> Iterator[Tensor]:
    """Yield the samples of a sound in rows `(rows, width)`, so many at a time; zeros fill up the last one."""
    waiting, count = [], 0
    for part in _parts(source):
        waiting.append(part)
        count += len(part)
        while count >= most * width:
            whole = torch.cat(waiting)
            yield whole[: most * width].view(most, width)
            waiting, count = [whole[most * width :]], count - most * width
    if count:
        yield F.pad(torch.cat(waiting), (0, -count % width)).view(-1, width)


def _parts(source: Source) -> Iterator[Tensor]:
    if isinstance(source, Tensor):
        yield from source.split(1 << 16)
    else:
        yield from map(torch.from_numpy, media.iterate_audio(source, SVC_SAMPLE_RATE))


def _name(source: Source) -> str:
    return "source" if isinstance(source, Tensor) else str(source)


def _checked_key(key: float | int | str) -> float | str:
    """The key as a number, or "median"."""
    try:
        if key == "median" or math.isfinite(float(key)):
            return key if key == "median" else float(key)
    except ValueError:
        pass
    raise ParameterError("key", repr(key), 'semitones, or "median"')


def _semitones(key: float | str, song: Analysis, voice: Voice | None) -> float:
    if key != "median":
        return key
    if voice is None:
        raise ParameterError("key", '"median", but the model does not know that of its singer', "semitones")
    if not song.voiced.any():
        raise ParameterError("key", '"median" for a source in which nothing is voiced', "semitones")
    return 12 * math.log2(voice.median / float(song.hertz[song.voiced].median()))


def _remarks(hertz: Tensor, voiced: Tensor, voice: Voice | None, singer: str) -> Iterator[str]:
    sung = hertz[voiced]
    if not len(sung):
        yield "Nothing in it is voiced, so nothing is sung: it becomes a whisper, or silence."
        return
    if voice:
        for outside, side, end in ((sung > voice.high, "above", sung.max()), (sung < voice.low, "below", sung.min())):
            if (share := float(outside.float().mean())) > 0.02:
                yield (
                    f"{share:.0%} of what is sung, as far as {end:.0f} Hz, lies {side} the range that was learned of "
                    f"{singer}, {voice.low:.0f} to {voice.high:.0f} Hz. Expect a strange voice, or change the key."
                )
    if bool((sung > HIGHEST).any()):
        share = float((sung > HIGHEST).float().mean())
        yield f"{share:.1%} of what is sung is above {HIGHEST} Hz, which the network takes for {HIGHEST} Hz."


class _Units:
    """Content units of a song, read from it in order, as they are needed.

    They are encoded on a grid that nothing but the song decides.
    """

    def __init__(self, source: Source, encoder: Any):
        self.parts = pieces.with_context(rows_of(source, UNIT, UNITS_AT_ONCE), UNITS_AROUND)
        self.encoder, self.first, self.held = encoder, 0, torch.empty(0, encoder.width)

    def __call__(self, first: int, last: int) -> Float[Tensor, "units values"]:
        """Return units from one to another; those before `first` are forgotten."""
        while self.first + len(self.held) < last:
            rows, begin, end = next(self.parts)
            found = self.encoder(rows.flatten(), SVC_SAMPLE_RATE)[begin:end]
            self.held = torch.cat([self.held, found.cpu()])
        self.held, self.first = self.held[first - self.first :], first
        return self.held[: last - first]


def _sung(
    source: Source, project: Project, song: Analysis, hertz: Tensor, weights: Tensor | None, length: int,
    progress: bool, *, seed: int, **sampling: Any,
) -> Iterator[Tensor]:  # fmt: skip
    """The sound of a song in rows of 512 samples, one part after another."""
    model, vocoder, frames = project.model, project.vocoder, len(hertz)
    device, seconds = next(model.parameters()).device, frames * SVC_HOP / SVC_SAMPLE_RATE
    ids, units = mel2ph(frames, svc_units(frames * SVC_HOP)), _Units(source, project.encoder)
    singers = None if weights is None else weights[None].to(device)
    length = length or pieces.piece_length(model, pieces.free_memory(device))
    count = len(pieces.pieces(frames, length, 0))

    def condition(first: int, last: int) -> Tensor:
        before = int(ids[first]) - 1
        parts = units(before, int(ids[last - 1])), hertz[first:last], ids[first:last] - before
        return model.encode(*(part[None].to(device) for part in parts), singers=singers)

    def noise(first: int, last: int) -> Tensor:
        return pieces.mel_noise(first, last, seed)

    with seconds_bar("singing", seconds, progress) as bar:
        sampling["progress"] = lambda _, evaluations: bar.update(seconds / count / evaluations)
        mels = pieces.sampled(model, condition, frames, length=length, noise=noise, seed=seed, **sampling)
        for sound in pieces.vocoded(vocoder, mels, hertz, song.voiced, seed):
            yield sound.cpu()


def matched(sounds: Iterable[Tensor], energy: Float[Tensor, " frames"]) -> Iterator[Tensor]:
    """Give a sound in rows (frames, 512) the level over 0.2 s that mean squares say, and peaks below 1."""
    window, at = torch.hann_window(2 * _SMOOTH + 3)[None, None, 1:-1], 0

    def smooth(values: Tensor) -> Tensor:
        return F.conv1d(values[None, None], window, padding=_SMOOTH)[0, 0]

    for rows, begin, end in pieces.with_context(sounds, 2 * _SMOOTH):
        wanted = smooth(energy[at - begin : at - begin + len(rows)])
        gain = (wanted / smooth(rows.square().mean(dim=1)).clamp(min=1e-12)).sqrt().clamp(max=_MOST_GAIN)
        peaks = F.max_pool1d(rows.abs().amax(dim=1)[None], 3, stride=1, padding=1)[0]
        gain = torch.minimum(gain, _PEAK / peaks.clamp(min=1e-6))
        gains = F.interpolate(gain[None, None], scale_factor=float(SVC_HOP), mode="linear")[0, 0]
        yield (rows * gains.view_as(rows))[begin:end]
        at += end - begin


def _outputs(sources: Sequence[Source], out: str | Path, singer: str) -> list[Path | None]:
    if not str(out):
        return [None] * len(sources)
    out = Path(out)
    if out.suffix.lower() in SOUND_SUFFIXES:
        if out.suffix.lower() != ".wav" or len(sources) > 1:
            raise ParameterError("out", f"{out} for {len(sources)} sources", "a .wav file for one, or a folder")
        paths = [out]
    else:
        voice = "".join(letter if letter.isalnum() or letter in "-_.=" else "+" for letter in singer) or "converted"
        paths = [out / f"{Path(_name(source)).stem}-{voice}.wav" for source in sources]
    if len(set(paths)) < len(paths):
        raise ParameterError("source", "several of the same name", "different names", "Convert them one at a time.")
    return [cache.output(path, source) for path, source in zip(paths, sources, strict=True)]


def _mark(source: Source) -> list:
    if isinstance(source, Tensor):
        return [len(source), float(source.double().square().sum())]
    facts = Path(source).stat()
    return [Path(source).name, facts.st_size, facts.st_mtime_ns]


def _write(path: Path, sounds: Iterator[Tensor], samples: int, facts: Mapping[str, Any]) -> None:
    """Write so many samples, unless the file is there with the same facts."""
    import psutil
    import soundfile

    comment = json.dumps(facts)
    if path.exists() and facts["model"]:
        try:
            with soundfile.SoundFile(path) as file:
                if file.comment == comment and len(file) == samples:
                    return
        except soundfile.LibsndfileError:
            pass  # something else, which is replaced
    for left in path.parent.glob(f".unfinished-*-{path.name}"):
        owner = int(left.name.split("-")[1])
        if owner == os.getpid() or not psutil.pid_exists(owner):  # it was killed
            left.unlink()

    def cut() -> Iterator[Tensor]:
        left = samples
        for rows in sounds:
            yield rows.flatten()[:left]
            left -= rows.numel()

    tags = {"title": f"{facts['singer'] or 'a trained voice'} (synthetic)", "comment": comment, "software": "avlib"}
    with cache.publishing(path) as unfinished:
        media.write_wav(unfinished, cut(), SVC_SAMPLE_RATE, tags)
