"""A trained conversion as one folder that describes itself.

`Project.save` writes `model.safetensors` and `config.json`, the diffusion model with its range; `encoder/`, the
recogniser that makes the units, unless they come of published weights; and `project.json`: encoder, singers and their
pitch, sampler. Names of projects lie in the cache, apart from the trainings: a name costs no training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import cache, checkpoints, training
from ...errors import CheckpointError, ParameterError, check_choice, did_you_mean
from ...extract.units import ContentEncoder, content_encoder, recognizer_encoder
from ...features.singing import SVC_HERTZ, SVC_HOP, SVC_MELS, SVC_N_FFT, SVC_SAMPLE_RATE
from ...models.diffusion_svc import DiffusionSVC
from ...models.nsf_hifigan import NSFHiFiGAN
from ...models.recognizer import Recognizer
from ...models.source_filter import SourceFilterVocoder

FILE = "project.json"
Shares = str | Mapping[str, float | int]  # of singers: one of them, or several


class Voice(NamedTuple):
    """The pitch of a singer in the training data, in Hz: median, and the range of all but one in a hundred frames."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, sung: Float[Tensor, " frames"]) -> Voice:
        return cls(*sung.float().quantile(torch.tensor([0.5, 0.005, 0.995])).tolist())


@dataclass(frozen=True)
class Project:
    """All that turns a song into one of a trained singer."""

    model: nn.Module  # the diffusion model
    encoder: Any  # of content units, a ContentEncoder
    vocoder: Any = field(default_factory=SourceFilterVocoder)  # makes sound of mel and pitch
    encoder_path: str = ""  # its published weights; "": a recogniser's or k-means', which are saved with the project
    voices: Mapping[str, Voice] = field(default_factory=dict)  # singers in the order of the model's table, or one
    sampler: str = "unipc"  # by default, as the next
    steps: int = 20
    mark: str = ""  # what the model is known by

    def __post_init__(self):
        if self.encoder.width != self.model.config.unit_size:
            found, expected = f"units {self.encoder.width} wide", f"{self.model.config.unit_size}, as the model takes"
            raise CheckpointError("encoder", found, expected, "Name the one with which the model was trained.")
        if self.model.config.singers not in (0, len(self.voices)):
            found = f"{len(self.voices)} singers, for a model of {self.model.config.singers}"
            raise CheckpointError("voices", found, "one for each row of its table")

    def to(self, device: torch.device) -> Project:
        self.model.to(device).eval()
        self.vocoder.to(device).eval()
        if isinstance(self.encoder, ContentEncoder):
            self.encoder.network.to(device)
            self.encoder.device = device
        return self

    def weights(self, singer: Shares) -> tuple[Float[Tensor, " singers"] | None, str]:
        """Return shares of the singers, whose sum is 1, and a name; None if the model has one singer."""
        names = list(self.voices)
        shares = {singer or next(iter(names), ""): 1.0} if isinstance(singer, str) else dict(singer)
        for each in shares:
            if each not in names and (names or each):
                expected = f"one of {', '.join(names)}" if names else '"": the model has one, without a name'
                raise ParameterError("singer", repr(each), expected, did_you_mean(each, names))
        total = sum(shares.values())
        if not total > 0 or min(shares.values()) < 0:
            raise ParameterError("singer", f"{shares}", "shares of 0 or more, not all 0")
        name = "+".join(each if len(shares) == 1 else f"{each}={share:g}" for each, share in shares.items())
        if not self.model.config.singers:
            return None, name
        return torch.tensor([shares.get(each, 0.0) / total for each in names]), name

    def voice(self, singer: Shares) -> Voice | None:
        """Return the pitch of a singer, or a mix of those of several; None if it is not known."""
        weights, _ = self.weights(singer)
        if not self.voices:
            return None
        table = torch.tensor(list(self.voices.values())).log2()
        return Voice(*(2 ** (table[:1] if weights is None else weights[:, None] * table).sum(dim=0)).tolist())

    def save(self, folder: str | Path) -> None:
        """Write a folder for `load`."""
        folder = Path(folder)
        self.model.save(folder)
        if not self.encoder_path:
            network = self.encoder.network
            getattr(network, "network", network).save(folder / "encoder")
        facts = {
            "sampler": self.sampler, "steps": self.steps,
            "encoder": self.encoder.name, "encoder_path": self.encoder_path,
            "voices": {name: voice._asdict() for name, voice in self.voices.items()},
        }  # fmt: skip
        (folder / FILE).write_text(json.dumps(facts, indent=2) + "\n")


def load(
    model: str | Path, *, which: str = "latest", encoder: str = "", encoder_path: str | Path = "",
    vocoder: str | Path = "", device: torch.device | str | None = None,
) -> Project:  # fmt: skip
    """Load a trained model by name or folder.

    Args:
        model: a folder that a training wrote (`avlib train svc --out`), or one that has such folders in it; the name
            of a trained project (`-p project=`); or the published file `model_ckpt_steps_*.ckpt`, or its folder.
        which: of several, the "latest", or the "best" by the loss on held-out pieces.
        encoder: of units, see `content_encoder`; "" takes that of the training. Published weights need "hubert-soft".
        vocoder: the folder of an NSF-HiFiGAN; without it a source-filter vocoder sings.

    Raises:
        CheckpointError: nothing of that name, or its parts do not fit.
    """
    check_choice("which", which, ("latest", "best"))
    path = _found(model, which)
    facts: dict[str, Any] = checkpoints.read_config(path / FILE) if (path / FILE).exists() else {}
    network = DiffusionSVC.from_checkpoint(path)
    encoder, encoder_path = encoder or facts.get("encoder", ""), str(encoder_path or facts.get("encoder_path", ""))
    if not encoder:
        advice = 'Give encoder="hubert-soft" and encoder_path=, the file of its weights.'
        raise CheckpointError(path, "does not say which encoder its units are of", "one that is named", advice)
    weights = encoder_path or path / "encoder"
    if encoder == "recognizer":
        extracted = recognizer_encoder(Recognizer.from_checkpoint(weights))
    else:
        extracted = content_encoder(encoder, weights, width=network.config.unit_size)
    sung = vocoder_of(vocoder)
    mark = [str(path), max(file.stat().st_mtime_ns for file in [path, *path.glob("*")]), str(vocoder), encoder_path]
    voices = {name: Voice(**values) for name, values in facts.get("voices", {}).items()}
    made = Project(
        network, extracted, sung, encoder_path, voices,
        facts.get("sampler", "plms"), facts.get("steps", 100), json.dumps(mark),
    )  # fmt: skip
    return made.to(training.chosen_device(device))


def vocoder_of(folder: str | Path = "") -> NSFHiFiGAN | SourceFilterVocoder:
    """Return the vocoder in a folder, for mels as they are here; without one a source-filter vocoder."""
    if not folder:
        return SourceFilterVocoder()
    sung, (low, high) = NSFHiFiGAN.from_checkpoint(folder), SVC_HERTZ
    sizes = {"hop_size": SVC_HOP, "n_fft": SVC_N_FFT, "num_mels": SVC_MELS}
    sung.require(sampling_rate=SVC_SAMPLE_RATE, fmin=low, fmax=high, **sizes)
    return sung


def give_name(project: str, folder: Path) -> None:
    """Let the name of a project find a trained folder too."""
    file = _names(project)
    with cache.locked(file):
        folders = [each for each in named(project) if each != folder]
        with cache.publishing(file) as unfinished:
            unfinished.write_text(json.dumps([str(each) for each in (*folders, folder)]))


def named(project: str) -> list[Path]:
    """Return the folders of that name."""
    file = _names(project)
    return [Path(each) for each in json.loads(file.read_text())] if file.exists() else []


def _names(project: str) -> Path:
    return cache.folder("projects") / f"{hashlib.sha256(project.encode()).hexdigest()[:16]}.json"


def _found(model: str | Path, which: str) -> Path:
    path = Path(model)
    if path.is_file() or (path / FILE).exists():
        return path
    if path.is_dir():
        published = sorted(path.glob("*.ckpt"), key=lambda file: int("0" + "".join(filter(str.isdigit, file.stem))))
        if published:
            return published[-1]
        found = [file.parent for file in path.glob(f"*/{FILE}")]
    else:
        found = [folder for folder in named(str(model)) if (folder / FILE).exists()]
    if not found:
        what = "has no trained model in it" if path.is_dir() else "is neither a folder nor a trained project"
        advice = "Train one: avlib train svc --data songs/ -p project=NAME, or --out FOLDER."
        raise CheckpointError(model, what, f"{FILE} and its weights, or a published .ckpt", advice)
    return max(found, key=lambda folder: _score(folder) if which == "best" else (folder / FILE).stat().st_mtime_ns)


def _score(folder: Path) -> float:
    """Minus the lowest loss on held-out pieces that a training noted."""
    history = folder / "history.json"
    rows = json.loads(history.read_text()) if history.exists() else []
    return -min((row["held-out loss"] for row in rows if "held-out loss" in row), default=float("inf"))
