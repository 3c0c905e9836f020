"""A backbone with one head: a classifier or a regressor of sounds."""

from __future__ import annotations

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
from ...features import Moments, check_finite, check_lengths, valid_mask, without_padding
from .backbones import FAMILIES, Features
from .config import ResolvedConfig
from .layers import AttentivePooling, Film, Heads, Joined, LayerSum, MeanPooling, Rows, check_numbers

# Of a mel row, whose values are from about -1 to 1.5: a row that is always the same, as above the highest frequency of
# a telephone, is not amplified.
_LEAST_DEVIATION = 0.05


class Output(NamedTuple):
    """Output of a classifier.

    logits: `(B, num_outputs)`; of a regressor `(B,)`.
    embedding: `(B, P)`, after the projection.
    frames: `(B, N, d)` of the backbone, by time and then by band.
    mask: `(B, N)`, True = valid.
    """

    logits: Float[Tensor, "batch ..."]
    embedding: Float[Tensor, "batch projected"]
    frames: Float[Tensor, "batch frames width"]
    mask: Bool[Tensor, "batch frames"]


class Contributions(NamedTuple):
    """Share of each frame in each logit, and the rest; their sum is the logits.

    values: `(B, outputs, bands, times)`, low bands first, 0 in the padding.
    constant: `(B, outputs)`, logits without any sound.
    """

    values: Float[Tensor, "batch outputs bands times"]
    constant: Float[Tensor, "batch outputs"]


class AudioClassifier(nn.Module):
    """A classifier or regressor of sounds, with random weights at first.

        waveform -> `features` -> rows of conditions -> backbone -> (weighted sum of layers) -> mean over valid frames
              -> (FiLM) -> (embedding, GELU) -> projection, P -> (activation) -> output, or heads

    Args:
        backbone: one of `BACKBONES`.
        num_outputs: classes; None is 2, or 1 for a regression.
        task: "classification" or "regression".
        settings: all others of `Config` and `ResolvedConfig`, by name.

    Raises:
        ParameterError: see `ResolvedConfig`; or there is no such setting.
    """

    def __init__(
        self,
        backbone: str = "whisper-base",
        num_outputs: int | None = None,
        task: str = "classification",
        **settings: object,
    ):
        super().__init__()
        config = ResolvedConfig(backbone=backbone, num_outputs=num_outputs, task=task, **settings)
        self.settings = config
        self.backbone = FAMILIES[config.facts.family](config)
        if config.standardize:
            self.register_buffer("mel_mean", torch.zeros(config.n_mels))
            self.register_buffer("mel_std", torch.ones(config.n_mels))
        self.rows = Rows(config)
        self.layer_sum = LayerSum(self.backbone.num_states) if config.layer_sum else None
        pooling = MeanPooling if config.pooling == "mean" else AttentivePooling
        self.pooling = pooling(self.backbone.width)
        width = self.pooling.out_width
        films, joined, heads = (
            {name: config.count(name) for name, kind in config.conditions.items() if kind == wanted}
            for wanted in ("film", "embedding", "heads")
        )
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
        """All settings, as a plain dict from which the class makes the same model."""
        return asdict(self.settings)

    @property
    def needs(self) -> tuple[str, ...]:
        """Inputs of `read` besides features, of "word" and "age"."""
        return self.settings.needs

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip; a shorter one is padded with zeros to that."""
        return self.backbone.min_samples

    @torch.no_grad()
    def features(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " clips"] | None = None
    ) -> Features:
        """Return the backbone's input; SpecAugment comes between this and `read`.

        Args:
            waveform: `(B, samples)`, mono, 16 kHz.
            lengths: valid samples of right-padded rows; what stands beyond is taken for zeros. None: all.

        Returns:
            Spectrograms `(B, n_mels, T)`, still without rows of conditions, or normalised waveforms `(B, samples)`; and
            the lengths in their columns or samples.

        Raises:
            TooShortError: a clip without a sample.
            ParameterError: samples that are not finite, or lengths that do not fit.
        """
        batch, samples = waveform.shape
        check_lengths(lengths, waveform.shape)
        if lengths is None:
            lengths = torch.full((batch,), samples)
        lengths = lengths.to(waveform.device, torch.int64)
        waveform = without_padding(waveform, lengths)
        check_finite(waveform)
        waveform = F.pad(waveform, (0, max(0, self.min_samples - samples)))
        values, lengths = self.backbone.features(waveform, lengths.clamp(min=self.min_samples))
        if self.settings.min_max:
            values = _min_max(values, lengths if self.settings.masked else None)
        if self.settings.standardize:
            values = (values - self.mel_mean[:, None].to(values)) / self.mel_std[:, None].to(values)
        return Features(values, lengths)

    @torch.no_grad()
    def standardize(self, clips: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure mean and deviation of each mel row for `features`.

        They are saved with the weights. `clips` are batches of waveforms `(B, samples)` and their lengths `(B,)`.

        Raises:
            ParameterError: the model was made without `standardize`, or there are no clips.
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

    def read(
        self,
        features: Features,
        *,
        word: Int[Tensor, " clips"] | None = None,
        age: Int[Tensor, " clips"] | None = None,
    ) -> Output:
        """Compute logits, embeddings and frames of features, augmented or not.

        Rows of conditions are added here, so that no mask hides them. `word` and `age` are the numbers of each clip,
        where a condition needs them.

        Raises:
            ParameterError: a condition lacks its numbers, or one is out of range.
        """
        values, lengths = features
        numbers = check_numbers({"word": word, "age": age}, self.settings, len(values), values.device)
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
        self,
        waveform: Float[Tensor, "batch samples"],
        lengths: Int[Tensor, " clips"] | None = None,
        *,
        word: Int[Tensor, " clips"] | None = None,
        age: Int[Tensor, " clips"] | None = None,
    ) -> Float[Tensor, "batch ..."]:
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
        self,
        features: Features,
        *,
        word: Int[Tensor, " clips"] | None = None,
        age: Int[Tensor, " clips"] | None = None,
    ) -> Contributions:
        """Split each logit of a linear head exactly into shares of frames.

        A frame of a transformer has attended to the others, and one of a ResNet has seen its surroundings: these are
            shares of
        the answer, not of the cause.

        Raises:
            ParameterError: the head is not linear: attentive pooling, an activation, or an embedded condition.
        """
        config = self.settings
        for name in self.nonlinear:
            found = f"{getattr(config, name)!r}: no linear head"
            expected = 'pooling="mean", no activation and no embedded condition'
            raise ParameterError(name, found, expected, "Occlude parts of the clip instead.")
        output = self.read(features, word=word, age=age)
        numbers = check_numbers({"word": word, "age": age}, config, len(output.frames), output.frames.device)
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
        """Load published weights of the backbone; see `published.load_backbone`."""
        from .published import load_backbone

        load_backbone(self.backbone, source)

    def save(self, folder: Path | str) -> None:
        """Write weights and settings for `from_checkpoint`; see `checkpoints.save`."""
        content = {"model": type(self).__name__, "settings": self.config}
        checkpoints.save(Path(folder), self.state_dict(), content)

    @classmethod
    def from_checkpoint(cls, folder: Path | str) -> AudioClassifier:
        """Build a model from a folder that `save` wrote. Every parameter must fit.

        Raises:
            CheckpointError: no such folder, no settings of an `AudioClassifier` in it, or weights that do not fit them.
        """
        tensors, content = checkpoints.read(folder)
        settings = content.get("settings")
        if content.get("model") != cls.__name__ or not isinstance(settings, Mapping):
            seems = f"The file seems to be {checkpoints.seems_to_be(tensors)}."
            raise CheckpointError(folder, "has no settings of an AudioClassifier", "a folder that `save` wrote", seems)
        try:
            settings = dict(settings)
            model = cls(**settings | settings.pop("conditions", {}))  # a table of their own in older files
        except (ParameterError, TypeError) as error:
            raise CheckpointError(folder, f"its settings: {error}", "those of an AudioClassifier") from error
        checkpoints.load(model, folder, tensors)
        return model

    def _outputs(self, embedding: Tensor, numbers: Mapping[str, Tensor]) -> Float[Tensor, "batch outputs"]:
        """Logits of the one output layer, or the sum over the heads of all conditions."""
        if self.classifier is not None:
            return self.classifier(embedding)
        return sum(head(embedding, numbers[name]) for name, head in self.heads.items())

    def _frozen(self) -> list[nn.Module]:
        freeze = self.settings.freeze
        if freeze == "":
            return []
        if freeze == "all":
            return [self.backbone]
        first, layers = self.backbone.parts()
        return first if freeze == "features" else [*first, *layers[:freeze]]


def _min_max(
    values: Float[Tensor, "batch mels columns"], lengths: Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch mels columns"]:
    """Scale each clip's valid columns to 0 to 1; a clip that is the same everywhere becomes 0."""
    low = high = values
    if lengths is not None:
        padding = ~valid_mask(lengths, values.shape[-1])[:, None]
        low, high = values.masked_fill(padding, torch.inf), values.masked_fill(padding, -torch.inf)
    low, high = low.amin(dim=(1, 2), keepdim=True), high.amax(dim=(1, 2), keepdim=True)
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
