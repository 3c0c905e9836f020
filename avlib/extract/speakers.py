"""Vectors of 256 values that say who speaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ParameterError, TooShortError
from ..features import SAMPLE_RATE, check_sound, vocoder_log_mel
from ..models.speaker_encoder import SpeakerEncoder, installed_checkpoint
from .pitch import pitch

WIDTH = 256
_SHORTEST = 1600  # samples
_QUIET = 4.0  # natural logarithms below the loudest frame, beyond which a frame is not voice


def voice_statistics(waveform: Float[Tensor, " samples"]) -> Float[Tensor, " 256"]:
    """Timbre and pitch of a voice at 16 kHz: means and deviations of its log-mel, and where its pitch lies.

    They stand in for a trained speaker encoder. 80 means and 80 deviations over the louder frames, relative to their
    loudness; then the tenth, middle and ninetieth hundredth of log2 of the pitch, 32 times each, so that they count.
    """
    check_sound(waveform)
    if len(waveform) < _SHORTEST:
        raise TooShortError("waveform", f"{len(waveform)} samples", f"at least {_SHORTEST}", "Take more of that voice.")
    mel = vocoder_log_mel(waveform[None])[0]  # (80, frames)
    loudness = mel.mean(dim=0)
    loud = mel[:, loudness > loudness.max() - _QUIET]
    track = pitch(waveform, SAMPLE_RATE, hop_length=320)
    if not track.voiced.any():
        raise ParameterError("waveform", "no voice in it", "speech", "Take another part, or another file.")
    octaves = (track.hertz[track.voiced].double() / 150).log2()
    places = octaves.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).repeat_interleave(32)
    means = (loud.mean(dim=1) - loud.mean()) / 2
    return torch.cat([means, loud.std(dim=1, correction=0) - 1, 2 * places]).float()


def embedder(speaker: str = "auto") -> tuple[Callable[[Float[Tensor, " samples"]], Float[Tensor, " 256"]], str]:
    """Return a function from a waveform at 16 kHz to its speaker vector, and the name of what makes it.

    Args:
        speaker: "statistics", see `voice_statistics`; a file of weights of the GE2E encoder; or "auto": the weights
            that Resemblyzer brings where it is installed, else "statistics".
    """
    path = installed_checkpoint() if speaker == "auto" else None if speaker == "statistics" else Path(speaker)
    if path is None:
        return voice_statistics, "statistics"
    return SpeakerEncoder.from_checkpoint(path).embed, "encoder"
