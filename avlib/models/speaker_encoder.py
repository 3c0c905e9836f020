"""A voice as a vector: the encoder of Real-Time-Voice-Cloning, which Unit2AV takes.

    waveform (samples,), 16 kHz -> at least -30 dB -> power mel, 100 frames a second -> partials (P, 160, 40), half
    overlapping -> LSTM, linear, ReLU, length 1: (P, 256) -> mean, length 1: (256,)

Source: Wan et al., "Generalized End-to-End Loss for Speaker Verification", ICASSP 2018, and the encoder's code
(CorentinJ/Real-Time-Voice-Cloning, `encoder`).
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoints
from ..errors import CheckpointError, ParameterError, ShapeError
from ..features import check_sound
from ..features.spectrograms import SPEAKER_MELS, WHISPER_HOP, speaker_mel

QUIETEST = -30.0  # dB of the mean square
PARTIAL, STEP = 160, 80  # frames of a partial, and from one to the next
_AT_ONCE = 60  # partials, so that memory does not grow with the sound: about 50 s
_EDGE = 2  # frames that the end of a waveform changes


class SpeakerEncoder(nn.Module):
    """LSTM from mel to a vector of length 1; 1,423,618 parameters.

    `similarity_weight` and `similarity_bias` belong to its training and are unused, as published.
    """

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(SPEAKER_MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.similarity_weight, self.similarity_bias = (nn.Parameter(torch.tensor([x])) for x in (10.0, -5.0))

    def forward(self, mels: Float[Tensor, "partials frames mels"]) -> Float[Tensor, "partials width"]:
        """Return the vector of each partial, of length 1 or, if nothing is above zero, 0."""
        _, (hidden, _) = self.lstm(mels)
        vectors = F.relu(self.linear(hidden[-1]))  # (P, 256)
        return vectors / (vectors.norm(dim=1, keepdim=True) + 1e-5)

    @torch.no_grad()
    def embed(self, waveform: Float[Tensor, " samples"]) -> Float[Tensor, " width"]:
        """Return the vector `(256,)` of a voice, of length 1.

        Where webrtcvad is installed, the published code leaves out long pauses first; here nothing is left out.

        Args:
            waveform: 16 kHz, mono, in [-1, 1]; less than 1.6 s is padded with zeros, and digital silence is refused.
        """
        if waveform.ndim != 1 or not len(waveform):
            raise ShapeError("waveform", f"{tuple(waveform.shape)}", "(samples,), one or more", "Mix channels down.")
        check_sound(waveform)
        waveform = raise_volume(waveform)
        starts = partial_starts(len(waveform))
        missing = (starts[-1] + PARTIAL) * WHISPER_HOP - len(waveform)
        waveform, vectors = F.pad(waveform, (0, max(0, missing))), []
        for some in (starts[first : first + _AT_ONCE] for first in range(0, len(starts), _AT_ONCE)):
            begin = max(0, some[0] - _EDGE)
            sound = waveform[begin * WHISPER_HOP : (some[-1] + PARTIAL + _EDGE) * WHISPER_HOP]
            mel = speaker_mel(sound).to(self.linear.weight)  # (frames, 40)
            partials = torch.stack([mel[start - begin : start - begin + PARTIAL] for start in some])  # (P, 160, 40)
            vectors.append(self(partials))
        return F.normalize(torch.cat(vectors).mean(dim=0), dim=0)

    @classmethod
    def from_checkpoint(cls, path: Path | str | None = None) -> SpeakerEncoder:
        """Build an encoder, in evaluation mode, from published weights.

        Args:
            path: `encoder.pt` of AV2AV, Resemblyzer's `pretrained.pt`, or a bare file. None: that of the installed
                Resemblyzer, which is read and not imported; refused where there is none.
        """
        path = path or installed_checkpoint()
        if path is None:
            advice = "pip install --no-deps Resemblyzer==0.1.4 (Apache-2.0) brings weights; or give a path."
            raise CheckpointError("speaker encoder", "no file given", "a file of weights", advice)
        model = cls()
        checkpoints.load(model, path, checkpoints.read(path).tensors)
        return model.eval()


def installed_checkpoint() -> Path | None:
    """Path of Resemblyzer's weights, or None where it is not installed; nothing of it is imported."""
    spec = find_spec("resemblyzer")
    folders = spec.submodule_search_locations or [] if spec else []
    return next((file for folder in folders if (file := Path(folder) / "pretrained.pt").is_file()), None)


def raise_volume(waveform: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Raise quiet sound to a mean square of -30 dB; louder sound stays, and digital silence is refused."""
    power = float(waveform.float().square().mean())
    if power == 0:
        raise ParameterError("waveform", "digital silence", "speech", "Give a recording with a voice.")
    return waveform * max(1.0, 10 ** ((QUIETEST - 10 * math.log10(power)) / 20))


def partial_starts(samples: int) -> list[int]:
    """First frame of each partial; the last is left out if less than 75 % of it is sound, unless it is the only one."""
    frames = math.ceil((samples + 1) / WHISPER_HOP)
    starts = list(range(0, max(1, frames - PARTIAL + STEP + 1), STEP))
    covered = (samples / WHISPER_HOP - starts[-1]) / PARTIAL
    return starts[:-1] if covered < 0.75 and len(starts) > 1 else starts
