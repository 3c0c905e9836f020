"""A backbone with one head: a classifier or a regressor of sounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checkpoints
from ...errors import CheckpointError, ParameterError
from ...features.lengths import Moments, all_hold, check_lengths, check_sound, valid_mask, without_padding
from .backbones import FAMILIES, Features
from .config import ResolvedConfig
from .published import load_backbone

# Of a mel row, whose values are from about -1 to 1.5: a row that is always the same, as above the highest frequency of
# a telephone, is not amplified.
_LEAST_DEVIATION = 0.05

Numbers = Int[Tensor, " clips"]  # of words or ages, or lengths
ByName = Mapping[str, Int[Tensor, " batch"]]  # numbers of "word" and "age"
Pooled = Float[Tensor, "batch width"]
Frames = Float[Tensor, "batch frames width"]
Mask = Bool[Tensor, "batch frames"]  # True = valid


def word_keys(count: int) -> Float[Tensor, " count"]:
    """Return the README's keys of words: `2 j / (count - 1) - 1`, to three decimals."""
    if count == 1:
        return torch.zeros(1)
    return torch.tensor([round(2 * j / (count - 1) - 1, 3) for j in range(count)])


def age_values(count: int, momentum: float | int = 1.0) -> Float[Tensor, " count"]:
    """Return the README's values of ages: `i / (count - 1)` times the momentum."""
    return torch.tensor([i / max(1, count - 1) * momentum for i in range(count)])


class Rows(nn.Module):
    """Rows under a spectrogram: from the bottom the word's, the age's, the age again."""

    def __init__(self, config: ResolvedConfig):
        super().__init__()
        self.config = config
        self.register_buffer("word_keys", config.word_scale * word_keys(config.num_words), persistent=False)
        self.register_buffer("age_values", age_values(config.num_ages, config.age_momentum), persistent=False)

    def forward(self, values: Float[Tensor, "batch mels columns"], numbers: ByName) -> Float[Tensor, "batch rows _"]:
        rows = []
        if self.config.fill_rows:
            rows.append(self.age_values[numbers["age"]][:, None].expand(-1, self.config.fill_rows))
        scales = {"age": self.config.age_momentum, "word": self.config.word_scale}
        for name, keys in (("age", self.age_values), ("word", self.word_keys)):
            kind = self.config.conditions.get(name)
            if kind == "row":
                rows.append(keys[numbers[name]][:, None])
            elif kind == "one_hot_rows":
                rows.append(scales[name] * F.one_hot(numbers[name], self.config.count(name)))
        if not rows:
            return values
        below = torch.cat([row.to(values) for row in rows], dim=1)  # (B, rows)
        return torch.cat([values, below[..., None].expand(-1, -1, values.shape[-1])], dim=1)


class Film(nn.Module):
    """Feature-wise linear modulation (Perez et al., 2018): `(1 + scale) x + shift`."""

    def __init__(self, count: int, width: int, condition_width: int):
        super().__init__()
        self.table, self.terms_of = nn.Embedding(count, condition_width), nn.Linear(condition_width, 2 * width)

    def terms(self, number: Int[Tensor, " batch"]) -> tuple[Pooled, Pooled]:
        scale, shift = self.terms_of(self.table(number)).chunk(2, dim=1)
        return 1 + scale, shift

    def forward(self, x: Pooled, number: Int[Tensor, " batch"]) -> Pooled:
        scale, shift = self.terms(number)
        return scale * x + shift


class Joined(nn.Module):
    """Learned vectors beside the features, and a layer with GELU over both.

    Without that layer a vector could only shift the logits: in a linear head no word could turn the meaning of a sound
    around.
    """

    def __init__(self, width: int, counts: Mapping[str, int], condition_width: int):
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(count, condition_width) for name, count in counts.items()})
        self.mix = nn.Linear(width + len(counts) * condition_width, width)

    def forward(self, x: Pooled, numbers: ByName) -> Pooled:
        vectors = [table(numbers[name]) for name, table in self.tables.items()]
        return F.gelu(self.mix(torch.cat([x, *vectors], dim=1)))


class Heads(nn.Module):
    """An output layer for each word or age, with weights `(count, outputs, width)`."""

    def __init__(self, count: int, width: int, outputs: int):
        super().__init__()
        bound = width**-0.5  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(count, outputs, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, outputs).uniform_(-bound, bound))

    def forward(self, x: Pooled, number: Int[Tensor, " batch"]) -> Float[Tensor, "batch outputs"]:
        return torch.einsum("bow,bw->bo", self.weight[number], x) + self.bias[number]


class MeanPooling(nn.Module):
    """The mean of valid frames."""

    def __init__(self, width: int):
        super().__init__()
        self.out_width = width

    def forward(self, frames: Frames, mask: Mask) -> Pooled:
        return (frames * self.weights(mask).to(frames)[..., None]).sum(dim=1)

    @staticmethod
    def weights(mask: Mask) -> Float[Tensor, "batch frames"]:
        """Weight of each frame: 1 over the number of valid ones, or 0."""
        return mask / mask.sum(dim=1, keepdim=True)


class AttentivePooling(nn.Module):
    """Attentive statistics: mean and standard deviation of valid frames, weighted by a learned attention.

    Source: Okabe et al., "Attentive Statistics Pooling for Deep Speaker Embedding", Interspeech 2018.
    """

    def __init__(self, width: int, hidden: int = 64):
        super().__init__()
        self.out_width = 2 * width
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, frames: Frames, mask: Mask) -> Float[Tensor, "batch both"]:
        score = self.score(frames).squeeze(-1).masked_fill(~mask, -math.inf)
        weights = score.softmax(dim=1)[..., None]  # (B, N, 1)
        frames = frames.masked_fill(~mask[..., None], 0)
        mean = (weights * frames).sum(dim=1)
        variance = (weights * (frames - mean[:, None]).square()).sum(dim=1)
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)  # the root has no slope at 0


class LayerSum(nn.Module):
    """A sum of layers, weighted by a softmax of learned scores (SUPERB, 2021)."""

    def __init__(self, layers: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))

    def forward(self, states: list[Frames]) -> Frames:
        return sum(weight * state for weight, state in zip(self.scores.softmax(dim=0), states, strict=True))


class Output(NamedTuple):
    """Output of a classifier."""

    logits: Float[Tensor, "batch ..."]  # (B, num_outputs); of a regressor (B,)
    embedding: Float[Tensor, "batch projected"]  # after the projection
    frames: Frames  # of the backbone, by time and then by band
    mask: Mask


class Contributions(NamedTuple):
    """Share of each frame in each logit, and the rest; their sum is the logits."""

    values: Float[Tensor, "batch outputs bands times"]  # low bands first, 0 in the padding
    constant: Float[Tensor, "batch outputs"]  # logits without any sound


class AudioClassifier(nn.Module):
    """A classifier or regressor of sounds, with random weights at first.

        waveform -> `features` -> rows of conditions -> backbone -> (weighted sum of layers) -> mean over valid frames
              -> (FiLM) -> (embedding, GELU) -> projection, P -> (activation) -> output, or heads

    Arguments are those of `Config` and `ResolvedConfig`.
    """

    def __init__(self, backbone: str = "whisper-base", num_outputs: int | None = None, **settings: object):
        super().__init__()
        config = ResolvedConfig(backbone=backbone, num_outputs=num_outputs, **settings)
        self.settings, self.needs = config, config.needs  # inputs of `read` besides features
        self.backbone = FAMILIES[config.facts.family](config)
        self.min_samples = self.backbone.min_samples  # of the shortest clip; a shorter one is padded with zeros
        if config.standardize:
            self.register_buffer("mel_mean", torch.zeros(config.n_mels))
            self.register_buffer("mel_std", torch.ones(config.n_mels))
        self.rows = Rows(config)
        self.layer_sum = LayerSum(self.backbone.num_states) if config.layer_sum else None
        pooling = MeanPooling if config.pooling == "mean" else AttentivePooling
        self.pooling = pooling(self.backbone.width)
        width = self.pooling.out_width

        def counts(wanted: str) -> dict[str, int]:
            return {name: config.count(name) for name, kind in config.conditions.items() if kind == wanted}

        films, joined, heads = map(counts, ("film", "embedding", "heads"))
        self.films = nn.ModuleDict({name: Film(n, width, config.condition_width) for name, n in films.items()})
        self.joined = Joined(width, joined, config.condition_width) if joined else None
        self.projection = nn.Linear(width, config.projection)
        self.activation = {"": nn.Identity, "gelu": nn.GELU, "relu": nn.ReLU}[config.activation]()
        self.dropout = nn.Dropout(config.dropout)
        outputs = config.num_outputs
        self.heads = nn.ModuleDict({name: Heads(n, config.projection, outputs) for name, n in heads.items()})
        self.classifier = None if self.heads else nn.Linear(config.projection, outputs)
        for module in self._frozen():
            module.requires_grad_(False)

    @property
    def config(self) -> dict:
        """All settings by name, from which the class makes the same model."""
        return asdict(self.settings)

    @torch.no_grad()
    def features(self, waveform: Float[Tensor, "batch samples"], lengths: Numbers | None = None) -> Features:
        """Return the backbone's input; SpecAugment comes between this and `read`.

        It is spectrograms `(B, n_mels, T)`, still without rows of conditions, or normalised waveforms `(B, samples)`.
        `lengths` are valid samples, and come back in columns; what stands beyond is taken for zeros. None: all.
        """
        if not isinstance(waveform, Tensor):
            check_sound(waveform)  # says what it is
        batch, samples = waveform.shape
        check_lengths(lengths, waveform.shape)
        if lengths is None:
            lengths = torch.full((batch,), samples)
        lengths = lengths.to(waveform.device, torch.int64)
        waveform = without_padding(waveform, lengths)
        check_sound(waveform)
        waveform = F.pad(waveform, (0, max(0, self.min_samples - samples)))
        values, lengths = self.backbone.features(waveform, lengths.clamp(min=self.min_samples))
        if self.settings.min_max:
            padding = ~valid_mask(lengths, values.shape[-1])[:, None] & self.settings.masked
            low = values.masked_fill(padding, torch.inf).amin(dim=(1, 2), keepdim=True)
            high = values.masked_fill(padding, -torch.inf).amax(dim=(1, 2), keepdim=True)
            # A clip that is the same everywhere becomes 0.
            values = (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
        if self.settings.standardize:
            values = (values - self.mel_mean[:, None].to(values)) / self.mel_std[:, None].to(values)
        return Features(values, lengths)

    @torch.no_grad()
    def standardize(self, clips: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure mean and deviation of each mel row for `features`; they are saved with the weights.

        `clips` are batches of waveforms `(B, samples)` and their lengths `(B,)`.
        """
        if not self.settings.standardize:
            raise ParameterError("standardize", "False", "True", "Make the model with standardize=True.")
        self.mel_mean.zero_()
        self.mel_std.fill_(1)
        moments = Moments()
        for waveform, lengths in clips:
            values, columns = self.features(waveform.to(self.mel_mean.device), lengths)
            moments.add(values.movedim(1, 2)[valid_mask(columns, values.shape[-1])])  # (columns of all clips, mels)
        if not moments.count:
            raise ParameterError("clips", "none", "at least one")
        self.mel_mean.copy_(moments.mean)
        self.mel_std.copy_(moments.std().clamp(min=_LEAST_DEVIATION))

    def read(self, features: Features, *, word: Numbers | None = None, age: Numbers | None = None) -> Output:
        """Compute logits, embeddings and frames of features, augmented or not.

        Rows of conditions are added here, so that no mask hides them. `word` and `age` are the numbers of each clip,
        where a condition needs them.
        """
        values, lengths = features
        numbers = self._numbers(word, age, values)
        values = values.to(self.projection.weight.dtype)
        if self.settings.facts.rows:
            values = self.rows(values, numbers)  # (B, rows, T)
        if not self.settings.masked:
            lengths = torch.full_like(lengths, values.shape[-1])
        states, mask = self.backbone.encode(Features(values, lengths))
        frames = self.layer_sum(states) if self.layer_sum else states[-1]  # (B, N, d)
        pooled = self.pooling(frames, mask)  # (B, d)
        for name, film in self.films.items():
            pooled = film(pooled, numbers[name])
        if self.joined:
            pooled = self.joined(pooled, numbers)
        embedding = self.activation(self.projection(pooled))  # (B, P)
        logits = self._outputs(self.dropout(embedding), numbers)
        return Output(logits.squeeze(1) if self.settings.task == "regression" else logits, embedding, frames, mask)

    def forward(
        self, waveform: Float[Tensor, "batch samples"], lengths: Numbers | None = None, *, word: Numbers | None = None,
        age: Numbers | None = None,
    ) -> Float[Tensor, "batch ..."]:  # fmt: skip
        """Logits `(B, num_outputs)`, of a regressor `(B,)`; see `features` and `read`."""
        return self.read(self.features(waveform, lengths), word=word, age=age).logits

    @property
    def nonlinear(self) -> tuple[str, ...]:
        """Settings that make the head non-linear; none for a linear one."""
        config = self.settings
        bent = {"pooling": config.pooling != "mean", "activation": config.activation, "conditions": self.joined}
        return tuple(name for name, is_bent in bent.items() if is_bent)

    @torch.no_grad()
    def contributions(
        self, features: Features, *, word: Numbers | None = None, age: Numbers | None = None
    ) -> Contributions:
        """Split each logit of a linear head exactly into shares of frames.

        A frame of a transformer has attended to the others, and one of a ResNet has seen its surroundings: these are
        shares of the answer, not of the cause. An attentive pooling, an activation or an embedded condition is refused.
        """
        config = self.settings
        for name in self.nonlinear:
            found = f"{getattr(config, name)!r}: no linear head"
            expected = 'pooling="mean", no activation and no embedded condition'
            raise ParameterError(name, found, expected, "Occlude parts of the clip instead.")
        output = self.read(features, word=word, age=age)
        numbers = self._numbers(word, age, output.frames)
        shares = output.frames * self.pooling.weights(output.mask).to(output.frames)[..., None]  # (B, N, d)
        shift = torch.zeros_like(shares[:, 0])
        for name, film in self.films.items():
            scale, added = film.terms(numbers[name])
            shares, shift = shares * scale[:, None], scale * shift + added
        constant = self._outputs(self.projection(shift), numbers)  # (B, C): without any sound
        batch, frames, _ = shares.shape
        parts = F.linear(shares, self.projection.weight).flatten(0, 1)  # (B * N, P)
        repeated = {name: number.repeat_interleave(frames) for name, number in numbers.items()}
        values = self._outputs(parts, repeated) - self._outputs(torch.zeros_like(parts), repeated)  # (B * N, C)
        bands = self.backbone.bands
        return Contributions(values.reshape(batch, frames // bands, bands, -1).permute(0, 3, 2, 1), constant)

    def train(self, mode: bool = True) -> AudioClassifier:
        """Set the mode; frozen parts stay in evaluation, without dropout and with fixed statistics."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def load_backbone(self, source: Path | str) -> None:
        load_backbone(self.backbone, source)

    def save(self, folder: Path | str) -> None:
        content = {"model": type(self).__name__, "settings": self.config}
        checkpoints.save(Path(folder), self.state_dict(), content)

    @classmethod
    def from_checkpoint(cls, folder: Path | str) -> AudioClassifier:
        """Build a model from a folder that `save` wrote. Every parameter must fit."""
        tensors, content = checkpoints.read(folder)
        settings = content.get("settings")
        if content.get("model") != cls.__name__ or not isinstance(settings, Mapping):
            seems = f"The file seems to be {checkpoints.seems_to_be(tensors)}."
            raise CheckpointError(folder, "has no settings of an AudioClassifier", "a folder that `save` wrote", seems)
        try:
            model = cls(**settings)
        except (ParameterError, TypeError) as error:
            raise CheckpointError(folder, f"its settings: {error}", "those of an AudioClassifier") from error
        checkpoints.load(model, folder, tensors)
        return model

    def _outputs(self, embedding: Tensor, numbers: Mapping[str, Tensor]) -> Float[Tensor, "batch outputs"]:
        """Logits of the one output layer, or the sum over the heads of all conditions."""
        if self.classifier is not None:
            return self.classifier(embedding)
        return sum(head(embedding, numbers[name]) for name, head in self.heads.items())

    def _numbers(self, word: Tensor | None, age: Tensor | None, clips: Tensor) -> dict[str, Int[Tensor, " batch"]]:
        """The numbers that conditions need, checked, on the device of the clips."""
        found, batch, given = {}, len(clips), {"word": word, "age": age}
        for name in self.needs:
            numbers, count = given[name], self.settings.count(name)
            if numbers is None:
                kind = self.settings.conditions.get(name, "rows that no mel bin fills")
                advice = f"Hand over {name}=, a number from 0 to {count - 1} for each clip."
                raise ParameterError(name, "not given", f"the {name} of each clip, for {kind!r}", advice)
            if numbers.shape != (batch,):
                raise ParameterError(name, f"shape {tuple(numbers.shape)}", f"({batch},), one number for each clip")
            found[name] = numbers = numbers.to(clips.device)
            if not all_hold((numbers >= 0) & (numbers < count)):
                wrong = numbers[(numbers < 0) | (numbers >= count)].unique().tolist()
                advice = f"-1 stands for an unknown one. Leave these clips out, or set num_{name}s."
                raise ParameterError(name, f"{wrong}", f"numbers from 0 to {count - 1}", advice)
        return found

    def _frozen(self) -> list[nn.Module]:
        freeze = self.settings.freeze
        if freeze == "":
            return []
        if freeze == "all":
            return [self.backbone]
        first, layers = self.backbone.parts()
        return first if freeze == "features" else [*first, *layers[:freeze]]
