"""Figures on held-out phrases: conversions from sound alone beside the true parallels, judged by other recognisers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import soxr
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ... import extract
from ...clips.song import VOWELS, Song
from ...datasets import svc
from ...datasets.svc import Batch, SVCDataset
from ...datasets.voices import Voices
from ...features import SVC_SAMPLE_RATE, svc_log_mel
from ...models.diffusion_svc import DiffusionSVC
from ...models.recognizer import Recognizer
from ...settings import changed
from .. import Figure, Report, device_of
from .conversion import convert
from .project import Project, load
from .settings import Settings, tiny
from .stages import split, trained, voices

JUDGE_SEEDS = {"vowels": 101, "singers": 102}  # of voices, melodies and weights: never those of the units
_LOST = 100.0  # cents from the truth beyond which a frame's pitch is lost

Sound = Float[Tensor, " samples"]


class Judges(NamedTuple):
    """Recognisers of vowels and of singers, of other voices, melodies and random weights than that of the units."""

    vowels: Recognizer
    singers: Recognizer


class Scores(NamedTuple):
    """One phrase each in `(phrases,)`, and one sung frame or unit each in the others.

    distance: mean absolute difference of the log10 mel to the true parallel's in sung frames; apart: of the source's.
    vowels, singer: whether the judge names the right vowel, and the wanted singer.
    cents: from the true pitch, where it is found; lost: whether a sung frame is called unvoiced, or is further away.
    """

    distance: Float[Tensor, " phrases"]
    apart: Float[Tensor, " phrases"]
    vowels: Bool[Tensor, " vowel_units"]
    singer: Bool[Tensor, " sung_units"]
    cents: Float[Tensor, " found"]
    lost: Bool[Tensor, " sung"]

    @property
    def ratio(self) -> float:
        """Distance to the true parallel over that between the singers; the source unchanged has 1."""
        return float(self.distance.mean() / self.apart.mean())

    @property
    def nearer(self) -> Bool[Tensor, " phrases"]:
        """True for a phrase that is nearer to the true parallel than the source is."""
        return self.distance < self.apart

    def figures(self) -> dict[str, float]:
        shares = {name: float(getattr(self, name).float().mean()) for name in ("nearer", "vowels", "singer", "lost")}
        lost, cents = shares.pop("lost"), float(self.cents.square().mean().sqrt())
        return {"ratio": self.ratio, **shares, "cents RMS": cents, "lost": lost}


def judges(settings: Settings = tiny, **how: Any) -> Judges:
    """Return the two judges, trained once, on less than the recogniser of the units: they need not be as good."""
    own = settings.recognizer if settings.diffusion.encoder == "recognizer" else tiny.recognizer

    def one(target: str, most: int, **values: int) -> Recognizer:
        values |= {"target": target, "voice_seed": JUDGE_SEEDS[target], "seed": JUDGE_SEEDS[target]}
        chosen = changed(own, values | {"steps": min(most, own.training.steps)})
        return trained(replace(tiny, stage="recognizer", recognizer=chosen), **how).model.cpu()

    phrases = min(8, own.voices * own.phrases)
    return Judges(one("vowels", 250, voices=min(12, own.voices)), one("singers", 120, phrases=phrases))


def held_out_songs(settings: Settings, singer: str) -> list[Song]:
    """Return the built-in phrases of a singer that are not trained on."""
    return svc.melodies(settings.data, singer, held_out=True)


def sound_of(song: Song) -> Sound:
    """Render a song as float32."""
    return torch.from_numpy(song.sound()).float()


def converted(project: Project, sounds: Sequence[Sound], singer: str, **how: Any) -> list[Sound]:
    """Convert sounds from nothing but their samples; see `convert`, also for `how`. Its remarks are not shown."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return [convert(sound, project, singer=singer, progress=False, **how).waveform for sound in sounds]


@torch.no_grad()
def generated(
    model: DiffusionSVC, pieces: Sequence[svc.Piece], singer: int | None = None, steps: int = 10
) -> list[Float[Tensor, "frames mels"]]:
    """Return log10 mels of pieces as a singer's, None: each piece's own, in one batch."""
    batch = SVCDataset.collate([p if singer is None else p._replace(singer=singer) for p in pieces])
    batch = Batch(*(tensor.to(device_of(model)) for tensor in batch))
    singers = batch.singers if model.config.singers else None
    condition = model.encode(batch.units, batch.hertz, batch.mel2ph, batch.lengths, singers)
    mels = model.sample(condition, steps, "unipc", lengths=batch.lengths, seed=0).cpu()
    return [mel[: len(piece.mel)] for mel, piece in zip(mels, pieces, strict=True)]


def mel_ratio(mels: Sequence[Tensor], sources: Sequence[svc.Piece], parallels: Sequence[svc.Piece]) -> float:
    """Return the distance of mels to those of the true parallels in voiced frames, over that of the sources."""
    distances = [
        sum(float((one - true.mel)[true.voiced].abs().mean()) for one, true in zip(each, parallels, strict=True))
        for each in (mels, [source.mel for source in sources])
    ]
    return distances[0] / distances[1]


@torch.no_grad()
def scored(sounds: Sequence[Sound], songs: Sequence[Song], target: str, judging: Judges) -> Scores:
    """Score conversions against the truth."""
    rows = [_scored(sound, song, target, judging) for sound, song in zip(sounds, songs, strict=True)]
    return Scores(*(torch.stack(c) if c[0].ndim == 0 else torch.cat(c) for c in map(list, zip(*rows, strict=True))))


def _scored(sound: Tensor, song: Song, target: str, judging: Judges) -> Scores:
    parallel = song.by(target)
    mel, source, true = (svc_log_mel(each[None])[0] for each in (sound, sound_of(song), sound_of(parallel)))
    low = torch.from_numpy(soxr.resample(sound.numpy(), SVC_SAMPLE_RATE, svc.SAMPLE_RATE))[None]
    logits = [judge(low)[0] for judge in judging]
    labels, wanted = (svc.labels_of(parallel.truth, name, len(logits[0])) for name in ("vowels", "singers"))
    vowel, known = (labels > 0) & (labels <= len(VOWELS)), wanted != svc.UNKNOWN
    found = extract.pitch(sound, SVC_SAMPLE_RATE)
    cents = 1200 * (found.hertz / torch.from_numpy(parallel.truth.hertz)).log2()
    sung = torch.from_numpy(parallel.truth.sung)  # frames
    lost = ~found.voiced | (cents.abs() > _LOST)
    return Scores(
        (mel - true)[sung].abs().mean(),
        (source - true)[sung].abs().mean(),
        (logits[0].argmax(1) == labels)[vowel],
        (logits[1].argmax(1) == wanted)[known],
        cents[sung & ~lost].float(),
        lost[sung],
    )


def assess(model: nn.Module, settings: Settings, **how: Any) -> Report:
    """Return figures on sound that the model was not trained on, beside those of the truth or of a trivial guess.

    - a recogniser: the share of right units of other voices;
    - a model of the two built-in singers: the scores of conversions of the first one's held-out phrases;
    - another model: the distance of held-out pieces, drawn again from their units and pitch, to themselves.

    `how` stands for device= and progress=.
    """
    if isinstance(model, Recognizer):
        batch = Voices.collate([each for each in voices(settings, seed=JUDGE_SEEDS["vowels"])])
        with torch.no_grad():
            right = model.cpu()(batch.waveform).argmax(2) == batch.labels
        share = Figure(float(right[batch.labels != svc.UNKNOWN].float().mean()), 1 / len(model.classes), "chance")
        return Report({"units right": share})
    train, held_out = split(settings, **how)
    if settings.data.data or not held_out or len(train.singers) < 2 or settings.diffusion.encoder == "none":
        if not held_out:
            return Report({}, "No piece was held out.")
        mels = generated(model.eval(), held_out.pieces)
        plain = torch.cat([piece.mel for piece in train.pieces]).mean(dim=0)
        off, trivial = (
            float(torch.cat([(each - p.mel).abs() for each, p in zip(guess, held_out.pieces, strict=True)]).mean())
            for guess in (mels, [plain] * len(mels))
        )
        figures = {"distance of log10 mel": Figure(off, trivial, "the mean spectrum")}
        return Report(figures, held_out.counts("held out"))
    source, target = train.singers[:2]
    songs, judging = held_out_songs(settings, source), judges(settings, **how)
    made = converted(load(trained(settings, **how).folder), list(map(sound_of, songs)), target)
    parallels = [sound_of(song.by(target)) for song in songs]
    found, true = (scored(sounds, songs, target, judging).figures() for sounds in (made, parallels))
    figures = {name: Figure(value, true[name], "the true parallel") for name, value in found.items()}
    figures["ratio"] = Figure(found["ratio"], 1.0, "the source unchanged")
    return Report(figures, f"{len(songs)} phrases of {source}, converted to {target} from sound alone.")
