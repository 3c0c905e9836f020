"""Figures on held-out words and speakers: speech from units beside the true sound, judged by other recognisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...clips.heads import UNIT, WORDS, Talk
from ...datasets.unit2av.dataset import Piece, piece_of_talk, sound_of
from ...datasets.unit2av.dataset import talks as talks_of
from ...datasets.voices import UNKNOWN, Voices
from ...extract import pitch
from ...extract.discrete import UnitExtractor
from ...features.spectrograms import SAMPLE_RATE, VOCODER_HOP, VOCODER_N_FFT, spectrogram_filters, vocoder_log_mel
from ...features.units import deduplicate, run_lengths
from ...models.durations import kept_runs
from ...models.face_renderer import FaceRenderer
from ...models.lip_sync import LipSync
from ...models.recognizer import Recognizer
from ...models.unit_speech import UnitSpeech
from ...settings import changed
from .. import Figure, Report, device_of
from .faces import mouth_scores, new_talks
from .settings import Settings, tiny
from .stages import embedder, extractor, split, trained, voices

JUDGE_SEEDS = {"words": 101, "phones": 102, "speakers": 103}  # of talks and weights: never those of the units
NEW_SPEAKERS = range(90_000, 90_006)  # whom no training has
_LAGS = (40, 267)  # samples of a period: 60 to 400 Hz
_SPAN = 400  # samples that are compared with those a period later


class Judges(NamedTuple):
    """Recognisers of words, phones and the built-in speakers, of other talks and weights than that of the units."""

    words: Recognizer
    phones: Recognizer
    speakers: Recognizer


class Scores(NamedTuple):
    """Figures of speech against the talks that it repeats.

    words: whether the judge names the right one of all words; phones: the right phone of a unit that is not silence;
    speakers: the right one of the built-in speakers, in each talk.
    same: whether a unit is the same when extracted again; edits: of its runs, per run.
    periodicity: greatest correlation of 25 ms with those a period later, in voiced units.
    semitones: distance from the true pitch in these, where any is found.
    """

    words: Bool[Tensor, " words"]
    phones: Bool[Tensor, " spoken_units"]
    speakers: Bool[Tensor, " talks"]
    same: Bool[Tensor, " units"]
    edits: Float[Tensor, " talks"]
    periodicity: Float[Tensor, " voiced_units"]
    semitones: Float[Tensor, " found_units"]

    def figures(self) -> dict[str, float]:
        """All figures by name."""
        names = {"words": "words", "phones": "phones", "speakers": "speakers", "units same": "same", "edits": "edits"}
        found = {name: float(getattr(self, own).float().mean()) for name, own in names.items()}
        found["periodicity"] = float(self.periodicity.mean())
        return found | {"within a semitone": float((self.semitones < 1).float().mean())}


def judges(settings: Settings = tiny, **how: Any) -> Judges:
    """Return the judges, trained once. They know all words, the held-out ones too, and never heard these talks."""
    base = settings.recognizer if settings.recognizer.encoder == "recognizer" else tiny.recognizer

    def one(target: str, seed: int) -> Recognizer:
        values = {"target": target, "words": "all", "talks": 2 * base.talks, "seed": seed, "training.seed": seed}
        own = changed(base, values)
        return trained(replace(tiny, stage="recognizer", recognizer=own, data=settings.data), **how).model.cpu()

    return Judges(*(one(*each) for each in JUDGE_SEEDS.items()))


def held_out(settings: Settings = tiny, new_speakers: bool = False) -> list[Talk]:
    """Return the talks of held-out words, by the speakers of the training or by new ones."""
    return talks_of(settings.data, held_out=True, **({"speakers": NEW_SPEAKERS} if new_speakers else {}))


def pieces_of(talks: Sequence[Talk], settings: Settings = tiny, **how: Any) -> list[Piece]:
    """Return talks as a data set has them: units, speaker vector, waveform."""
    extract, embed = extractor(settings, **how), embedder(settings)
    return [piece_of_talk(talk, extract, embed) for talk in talks]


@torch.no_grad()
def spoken(model: UnitSpeech, pieces: Sequence[Piece]) -> list[Float[Tensor, " _"]]:
    """Return pieces as a vocoder speaks them, from units at full rate and the speaker vector."""
    device = device_of(model)
    return [model(p.units[None].to(device), p.speaker.to(device)).waveform[0, 0].cpu() for p in pieces]


@torch.no_grad()
def scored(sounds: Sequence[Tensor], talks: Sequence[Talk], judging: Judges, extract: UnitExtractor) -> Scores:
    """Score speech at 16 kHz, in time with the talks that it repeats, against the truth; `extract` made its units."""
    rows = [_scored(sound, talk, judging, extract) for sound, talk in zip(sounds, talks, strict=True)]
    return Scores(*(torch.cat([torch.atleast_1d(each) for each in column]) for column in zip(*rows, strict=True)))


def _scored(sound: Tensor, talk: Talk, judging: Judges, extract: UnitExtractor) -> tuple[Tensor, ...]:
    from torchaudio.functional import edit_distance

    truth, count = talk.truth, len(sound) // UNIT
    words, phones, speakers = (judge(sound[None])[0].log_softmax(1) for judge in judging)  # (U, classes)
    true = torch.from_numpy(truth.units)[:count]
    times = (torch.arange(count) + 0.5) * (UNIT / SAMPLE_RATE)
    spans = [(times >= a) & (times < b) for a, b in zip(truth.word_starts, truth.word_ends, strict=True)]
    named = torch.stack([words[span].mean(0).argmax() for span in spans])
    said = torch.stack(spans).any(0)
    known = judging.speakers.classes.index(truth.speaker) if truth.speaker in judging.speakers.classes else -1
    again, before = (extract(each, SAMPLE_RATE) for each in (sound, sound_of(talk)))
    before = before[:count]
    edits = edit_distance(deduplicate(again).tolist(), deduplicate(before).tolist()) / len(deduplicate(before))
    voiced, track = torch.from_numpy(truth.voiced)[:count], pitch(sound, SAMPLE_RATE, hop_length=UNIT)
    semitones = 12 * (track.hertz / torch.from_numpy(truth.hertz)[:count]).log2().abs()
    return (
        named == torch.tensor([list(WORDS).index(word) for word in truth.words]),
        (phones.argmax(1) == true)[true > 0],
        speakers[said].mean(0).argmax() == known,
        again == before,
        torch.tensor(edits),
        periodicity(sound)[voiced],
        semitones[voiced & track.voiced],
    )


def periodicity(sound: Float[Tensor, " samples"]) -> Float[Tensor, " units"]:
    """Return the greatest correlation of 25 ms around each unit with those a period of 60 to 400 Hz later."""
    low, high = _LAGS
    edge = (_SPAN + high - UNIT) // 2 + 1
    frames = F.pad(sound, (edge, edge)).unfold(0, _SPAN + high, UNIT)[: len(sound) // UNIT]  # (U, 667)
    now, later = frames[:, None, :_SPAN], frames.unfold(1, _SPAN, 1)[:, low:]  # (U, 1, 400), (U, lags, 400)
    power = (now.square().sum(2) * later.square().sum(2)).sqrt()
    return ((now * later).sum(2) / power.clamp(min=1e-9)).amax(1)


def griffin_lim(mel: Float[Tensor, "mels frames"], samples: int, seed: int = 0) -> Float[Tensor, " samples"]:
    """Return a waveform of a log-mel by 60 iterations of Griffin and Lim, which learns nothing; for comparison."""
    from torchaudio.functional import griffinlim

    filters = spectrogram_filters("whisper", len(mel), VOCODER_N_FFT).float()
    linear = (torch.linalg.pinv(filters) @ mel.exp()).clamp(min=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        window, size, length = torch.hann_window(VOCODER_N_FFT), VOCODER_N_FFT, (mel.shape[1] - 1) * VOCODER_HOP
        sound = griffinlim(linear[None], window, size, VOCODER_HOP, size, 1.0, 60, 0.99, length, True)[0]
    return F.pad(sound, (VOCODER_HOP // 2, samples))[:samples]  # the mel's frames are centred half a hop later


# Durations


@torch.no_grad()
def duration_errors(model: UnitSpeech, train: Sequence[Piece], held_out: Sequence[Piece]) -> dict[str, float]:
    """Return mean errors of predicted durations, in units of 20 ms, beside those of each unit's mean duration.

    The first and last run of a piece do not count.
    """
    counts, sums = torch.zeros(2, model.config.num_embeddings, dtype=torch.float64)
    for piece in train:
        places, durations = kept_runs(piece.units)
        counts += torch.bincount(piece.units[places], minlength=len(counts))
        sums += torch.bincount(piece.units[places], durations.double(), minlength=len(sums))
    means = torch.where(counts > 0, sums / counts.clamp(min=1), sums.sum() / counts.sum())
    errors, plain = [], []
    for piece in held_out:
        units, durations = run_lengths(piece.units)
        found = model.predict_durations(units[None].to(device_of(model)))[0].cpu()
        errors.append((found - durations)[1:-1].abs().float())
        plain.append((means[units].round() - durations)[1:-1].abs().float())
    return {"predicted": float(torch.cat(errors).mean()), "mean of the unit": float(torch.cat(plain).mean())}


# Assessment


def assess(model: nn.Module, settings: Settings, **how: Any) -> Report:
    """Return figures on sound that the model was not trained on, beside those of the truth or of a trivial guess.

    - a recogniser: the share of right units of other voices;
    - a vocoder of the built-in talks: scores of held-out words, and errors of durations;
    - of other data: mel L1 on held-out recordings;
    - a face renderer: how its mouths follow the sound, in new words, voices and heads.

    `how` stands for device= and progress=.
    """
    if isinstance(model, Recognizer):
        other = changed(settings, {"recognizer.seed": settings.recognizer.seed + 1})
        batch = Voices.collate(list(voices(other)))
        with torch.no_grad():
            right = (model.cpu()(batch.waveform).argmax(2) == batch.labels)[batch.labels != UNKNOWN]
        return Report({"units right": Figure(float(right.float().mean()), 1 / len(model.classes), "chance")})
    if isinstance(model, LipSync):
        return Report({}, "The lip-sync expert only helps to train faces; its accuracy is in the history.")
    if isinstance(model, FaceRenderer):
        return _assessed_mouths(model, settings, **how)
    train, validation = split(settings, **how)
    if settings.data.data:
        mels = [vocoder_log_mel(piece.waveform) for piece in validation.pieces]
        plain = torch.cat([vocoder_log_mel(piece.waveform) for piece in train.pieces], 1).mean(1, keepdim=True)
        made = [vocoder_log_mel(sound) for sound in spoken(model, validation.pieces)]
        off, trivial = (
            float(torch.cat([(one - true).abs().flatten() for one, true in zip(each, mels, strict=True)]).mean())
            for each in (made, [plain] * len(mels))
        )
        figures = {"mel L1": Figure(off, trivial, "the mean spectrum")}
        return Report(figures, validation.counts("held out"))
    talks, judging, extract = held_out(settings), judges(settings, **how), extractor(settings, **how)
    sounds = (spoken(model, validation.pieces), [piece.waveform for piece in validation.pieces])
    found, true = (scored(each, talks, judging, extract).figures() for each in sounds)
    figures = {name: Figure(value, true[name], "the true sound") for name, value in found.items()}
    if model.dur_predictor:
        errors = duration_errors(model, train.pieces, validation.pieces)
        figures["duration error"] = Figure(*errors.values(), "each unit's mean duration")
    return Report(figures, f"{len(talks)} talks of held-out words, by known speakers.")


def _assessed_mouths(model: FaceRenderer, settings: Settings, **how: Any) -> Report:
    talks, extract = new_talks(settings), extractor(settings, **how)
    own = mouth_scores(model, extract, talks)
    dubbed = mouth_scores(model, extract, talks, [*talks[1:], talks[0]], "still")
    figures = {
        "opening, own video": Figure(own.follows, 0.0, "a mouth that is still"),
        "opening, dubbed": Figure(dubbed.follows, dubbed.copies, "agreement with the old mouth"),
    }
    return Report(figures, f"{len(talks)} talks of new words, voices and heads; dubbed with a still reference.")
