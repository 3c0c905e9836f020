"""Figures on held-out phrases: conversions from sound alone beside the true parallels, judged by other recognisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import soxr
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ... import extract
from ...clips.song import VOWELS, Song
from ...datasets import svc
from ...datasets.svc import SVCDataset
from ...features import SVC_MELS, SVC_SAMPLE_RATE, log10_to_ln, svc_log_mel
from ...models.diffusion_svc import DiffusionSVC
from ...models.recognizer import Recognizer
from ...models.source_filter import SourceFilterVocoder
from ...settings import changed
from .. import device_of
from .settings import Settings, tiny
from .stages import encoding, trained

JUDGE_SEEDS = {"vowels": 101, "singers": 102}  # of voices, melodies and weights: never those of the units
SAMPLING = {"sampler": "unipc", "steps": 10}
_LOST = 100.0  # cents from the truth beyond which a frame's pitch is lost


class Judges(NamedTuple):
    """Recognisers of vowels and of singers, of other voices, melodies and random weights than that of the units."""

    vowels: Recognizer
    singers: Recognizer


class Scores(NamedTuple):
    """One phrase each in `(phrases,)`, and one voiced or sung frame or unit each in the others.

    distance: mean absolute difference of the log10 mel to the true parallel's; apart: of the source's.
    vowels, singer: whether the judge names the right vowel, and the wanted singer.
    cents: from the true pitch, where it is found; lost: whether a voiced frame is called unvoiced, or is further away.
    """

    distance: Float[Tensor, " phrases"]
    apart: Float[Tensor, " phrases"]
    vowels: Bool[Tensor, " vowel_units"]
    singer: Bool[Tensor, " sung_units"]
    cents: Float[Tensor, " found"]
    lost: Bool[Tensor, " voiced"]

    @property
    def ratio(self) -> float:
        """Distance to the true parallel over that between the singers; the source unchanged has 1."""
        return float(self.distance.mean() / self.apart.mean())

    @property
    def nearer(self) -> Bool[Tensor, " phrases"]:
        """True for a phrase that is nearer to the true parallel than the source is."""
        return self.distance < self.apart

    def figures(self) -> dict[str, float]:
        """All figures by name."""
        return {
            "ratio": self.ratio,
            "nearer": float(self.nearer.float().mean()),
            "vowels": float(self.vowels.float().mean()),
            "singer": float(self.singer.float().mean()),
            "cents RMS": float(self.cents.square().mean().sqrt()),
            "lost": float(self.lost.float().mean()),
        }


def judges(settings: Settings = tiny, **how: Any) -> Judges:
    """Return the two judges, trained once."""

    def one(target: str) -> Recognizer:
        seed, fewer = JUDGE_SEEDS[target], {"phrases": 12, "steps": 150} if target == "singers" else {}
        values = {"target": target, "voice_seed": seed, "seed": seed} | fewer
        return trained(changed(replace(tiny, stage="recognizer"), {"recognizer": values}), **how).model.cpu()

    return Judges(one("vowels"), one("singers"))


def held_out_songs(settings: Settings, singer: str) -> list[Song]:
    """Return the built-in phrases of a singer that are not trained on."""
    return svc.melodies(settings.data, singer, held_out=True)


def sound_of(song: Song) -> Float[Tensor, " samples"]:
    """Render a song as float32."""
    return torch.from_numpy(song.sound()).float()


@torch.no_grad()
def converted(
    model: DiffusionSVC,
    settings: Settings,
    sounds: Sequence[Float[Tensor, " samples"]],
    singer: int | None,
    *,
    sampler: str = SAMPLING["sampler"],
    steps: int = SAMPLING["steps"],
    seed: int = 0,
) -> list[Float[Tensor, " samples"]]:
    """Convert short sounds from nothing but their samples, in one batch, with the source-filter vocoder.

    For songs of any length see `convert`.

    Args:
        model: in evaluation mode.
        settings: of its training, which name the encoder.
        sounds: mono, 44.1 kHz.
        singer: number of the wanted singer; None for a model of one.
        sampler: see `DiffusionSVC.sample`.
        steps: of the sampler.
        seed: of the noise.
    """
    device, encoder = device_of(model), encoding(settings, device=device_of(model), progress=False)
    pieces = [svc.cut(sound, settings.data.pitch, encoder) for sound in sounds]
    batch = SVCDataset.collate(pieces)
    units, hertz, numbers, lengths = (
        each.to(device) for each in (batch.units, batch.hertz, batch.mel2ph, batch.lengths)
    )
    wanted = None if not model.config.singers else torch.full_like(lengths, singer)
    condition = model.encode(units, hertz, numbers, lengths, wanted)
    mels = model.sample(condition, steps, sampler, lengths=lengths, seed=seed).cpu()
    return [vocoded(mel[: len(piece.mel)], piece, len(s)) for mel, piece, s in zip(mels, pieces, sounds, strict=True)]


@torch.no_grad()
def vocoded(mel: Float[Tensor, "frames mels"], piece: svc.Piece, samples: int) -> Float[Tensor, " samples"]:
    """Return the sound of a log10 mel with the pitch of a piece; fewer bins than 128 are repeated."""
    mel = mel.repeat_interleave(SVC_MELS // mel.shape[1], dim=1)
    sound = SourceFilterVocoder()(log10_to_ln(mel).T[None], piece.hertz[None], piece.voiced[None])[0, 0]
    return torch.nn.functional.pad(sound, (0, samples - len(sound)))


@torch.no_grad()
def scored(sounds: Sequence[Float[Tensor, " samples"]], songs: Sequence[Song], target: str, judging: Judges) -> Scores:
    """Score conversions against the truth.

    Args:
        sounds: conversions of the songs.
        songs: the sources.
        target: singer to whom they were converted.
        judging: see `judges`.
    """
    rows = [_scored(sound, song, target, judging) for sound, song in zip(sounds, songs, strict=True)]
    return Scores(*(torch.stack(c) if c[0].ndim == 0 else torch.cat(c) for c in map(list, zip(*rows, strict=True))))


def _scored(sound: Tensor, song: Song, target: str, judging: Judges) -> Scores:
    parallel = song.by(target)
    mel, source, true = (svc_log_mel(each[None])[0] for each in (sound, sound_of(song), sound_of(parallel)))
    low = torch.from_numpy(soxr.resample(sound.numpy(), SVC_SAMPLE_RATE, svc.SAMPLE_RATE))[None]
    logits = [judge(low)[0] for judge in judging]
    labels, wanted = (svc.labels_of(parallel.truth, name, len(logits[0])) for name in ("vowels", "singers"))
    vowel, sung = (labels > 0) & (labels <= len(VOWELS)), wanted != svc.UNKNOWN
    found = extract.pitch(sound, SVC_SAMPLE_RATE)
    true_hertz, voiced = (torch.from_numpy(each) for each in (parallel.truth.hertz, parallel.truth.voiced))
    cents = 1200 * (found.hertz.double() / true_hertz).log2()
    lost = ~found.voiced | (cents.abs() > _LOST)
    return Scores(
        (mel - true).abs().mean(),
        (source - true).abs().mean(),
        (logits[0].argmax(1) == labels)[vowel],
        (logits[1].argmax(1) == wanted)[sung],
        cents[voiced & ~lost].float(),
        lost[voiced],
    )
