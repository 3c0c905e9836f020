"""Source-filter vocoder: harmonics of the pitch and noise, shaped by the mel. Nothing in it is trained.

    ln mel, pitch -> amplitudes of harmonics and magnitudes of noise between them, whose mel it is (`split`)
                  -> sum of sines + filtered noise

Source and filter are Fant's model of speech (1960), harmonics plus noise its form in Stylianou, IEEE TSAP 2001. The
amplitudes are those whose mel, of the same filters and window as the input's, comes closest to the input: the
multiplicative updates of Lee and Seung ("Algorithms for Non-negative Matrix Factorization", NeurIPS 2000), with the mel
of a sine as dictionary.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ParameterError, ShapeError
from ..features.harmonics import harmonics, phases
from ..features.lengths import all_hold
from ..features.singing import SVC_HERTZ, SVC_HOP, SVC_MELS, SVC_N_FFT, SVC_POWER_FLOOR, SVC_SAMPLE_RATE, _filters

LOUDEST = 5.0  # of ln mel, so that any input gives finite sound
LOWEST, HIGHEST = 20.0, SVC_HERTZ[1]  # Hz, of harmonics
# Share of noise in the amplitude of voiced sound, linear between these frequencies: a voice with little breath.
BREATH = ((0.0, 0.02), (2000.0, 0.05), (4000.0, 0.15), (8000.0, 0.5), (12000.0, 0.9), (16000.0, 1.0))
STEPS = 8  # updates of the amplitudes
BANDS = 24  # of noise
NOISIEST, AROUND = 0.08, 41  # noise of voiced sound is at most this share of the highest of so many mel bins
SPREAD = 0.3  # share of the noise found between resolved harmonics that is not noise
# 2 pi times the variance of the window in seconds squared, per hop in seconds: from Hz in a frame to a glide's width.
_GLIDE = 2 * math.pi * (1 / 12 - 1 / (2 * math.pi**2)) * SVC_N_FFT**2 / SVC_SAMPLE_RATE / SVC_HOP
_WIDTH = 8  # mel bins that a sine reaches
_GRID = 4  # frequencies in each bin of the transform at which the mel of a sine is known

Track = Float[Tensor, "batch frames"]
Voiced = Bool[Tensor, "batch frames"]


class SourceFilterVocoder(nn.Module):
    """Vocoder without weights, for ln mel as NSF-HiFiGAN takes it.

    `context` counts the frames that a piece of a longer sound needs on each side, so that its middle is that of the
    whole.
    """

    description = (
        "Source-filter synthesis: harmonics of the pitch and noise, shaped by the mel. It has no weights and was not "
        "trained; consonants and breath are coarser than those of a neural vocoder."
    )
    sample_rate, hop_length, mels, context = SVC_SAMPLE_RATE, SVC_HOP, SVC_MELS, 5

    def __init__(self):
        super().__init__()
        filters = torch.from_numpy(_filters()).float()  # (128, 1025)
        centres = (filters * torch.arange(filters.shape[1])).sum(1) / filters.sum(1)  # (128,) in bins
        first, reach = _mel_of_sines(filters)
        shares = _interpolated(centres * self.sample_rate / SVC_N_FFT, *torch.tensor(BREATH).T)
        # Noise is linear over bands of mel bins.
        away = torch.arange(self.mels)[:, None] - torch.linspace(0, self.mels - 1, BANDS)
        bands = (1 - away.abs() * (BANDS - 1) / (self.mels - 1)).clamp(min=0)
        found = {"sums": filters.sum(1), "centres": centres, "first": first, "reach": reach}
        for name, buffer in (found | {"shares": shares, "bands": bands}).items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(
        self,
        mel: Float[Tensor, "batch mels frames"], f0: Track, voiced: Voiced | None = None,
        noise: bool | Float[Tensor, "batch samples"] = True, generator: torch.Generator | None = None,
        phase: float | int | Float[Tensor, " batch"] = 0.0,
    ) -> Float[Tensor, "batch 1 samples"]:  # fmt: skip
        """Sound whose mel is `mel` and whose pitch is `f0`, `(B, 1, 512 T)`.

        Args:
            mel: ln mel; at most its floor of -11.51 is silence.
            f0: Hz at `(k + 0.5) * 512` samples. Continuous through unvoiced frames, or 0 there.
            voiced: True = voiced; None: where `f0` is above 0.
            noise: False leaves it out; a tensor of unit variance is taken as it is, so that pieces of a longer sound
                can share it.
            phase: turns of the fundamental at sample 0; those of `phases` for a piece of a longer sound.
        """
        self._check(mel, f0, f0 if voiced is None else voiced)
        voiced = f0 > 0 if voiced is None else voiced & (f0 > 0)
        hertz = continuous(f0)
        magnitudes = mel.clamp(max=LOUDEST).exp().transpose(1, 2)  # (B, T, 128)
        magnitudes = (magnitudes - 1.001 * SVC_POWER_FLOOR).clamp(min=0)
        amplitudes, rest = self.split(magnitudes, hertz, voiced)
        sound = harmonics(hertz, amplitudes, self.sample_rate, self.hop_length, phase)
        if noise is True:
            on = generator.device if generator else mel.device
            noise = torch.randn(len(mel), mel.shape[2] * self.hop_length, generator=generator, device=on)
        if noise is not False:
            sound = sound + self._filtered(noise.to(mel), rest)
        return sound[:, None]

    def phases(self, f0: Track) -> Track:
        """Turns of the fundamental at the start of each frame, for the `phase` of a piece that begins there."""
        return phases(continuous(f0), self.sample_rate, self.hop_length)

    def split(
        self, magnitudes: Float[Tensor, "batch frames mels"], hertz: Track, voiced: Voiced
    ) -> tuple[Float[Tensor, "batch frames harmonics"], Float[Tensor, "batch frames mels"]]:
        """Split a mel into amplitudes of the harmonics of `hertz` and the magnitudes of noise between them.

        Both are fitted at once. Noise is smooth over bands, so that what lies between resolved harmonics decides it;
        where none are resolved, it keeps its share of `breath`. Unvoiced frames are noise throughout.
        """
        bin_width = self.sample_rate / SVC_N_FFT
        numbers = torch.arange(1, int(HIGHEST / max(float(hertz.amin()), LOWEST)) + 1, device=hertz.device)
        pitches = hertz[..., None] * numbers  # (B, T, K)
        place = (pitches / bin_width * _GRID).round().long().clamp(max=len(self.first) - 1)
        mels = (self.first[place][..., None] + torch.arange(_WIDTH, device=hertz.device)).flatten(2)  # (B, T, K * 8)
        # A gliding sine is wider in frequency and lower: of a Gaussian window of the same length, by this factor.
        glide = torch.gradient(F.pad(hertz, (1, 1), mode="replicate"), dim=1)[0][:, 1:-1] * _GLIDE
        wider = (1 + (glide[..., None] * numbers).square()) ** 0.25  # (B, T, K)
        wider = wider.clamp(max=2)  # a jump of the pitch is no glide
        reach = (self.reach[place] * (wider * (voiced[..., None] & (pitches <= HIGHEST)))[..., None]).flatten(2)
        total = reach.unflatten(2, (-1, _WIDTH)).sum(3).clamp(min=1e-9)  # (B, T, K)

        def gathered(track: Tensor) -> Tensor:
            return (reach * track.gather(2, mels)).unflatten(2, (-1, _WIDTH)).sum(3) / total

        shares = torch.where(voiced[..., None], self.shares, 1.0)  # (B, T, 128)
        amplitudes = gathered(magnitudes * (1 - shares.square()).sqrt()) / total
        bands = ((magnitudes * shares) @ self.bands) / self.bands.sum(0)
        # A network's mel may be blurred: so much noise between harmonics would hide them.
        most = F.max_pool1d(magnitudes, AROUND, 1, AROUND // 2) * (2 * self.shares).clamp(min=NOISIEST)
        for _ in range(STEPS):
            noise = (bands @ self.bands.T).minimum(most)
            found = torch.zeros_like(magnitudes).scatter_add(2, mels, reach * amplitudes.repeat_interleave(_WIDTH, 2))
            ratio = magnitudes / (found.square() + noise.square()).sqrt().clamp(min=1e-9)
            amplitudes = amplitudes * gathered(ratio)
            bands = bands * ((ratio @ self.bands) / self.bands.sum(0))
        # What vibrato spreads between harmonics was taken for noise, and will be there again.
        noise = noise * (1 - SPREAD * (1 - self.shares) ** 3)
        return amplitudes, torch.where(voiced[..., None], noise, magnitudes)

    def _filtered(self, noise: Tensor, magnitudes: Tensor) -> Tensor:
        """Noise `(B, samples)` with the given mel."""
        # Frame k is centred at (k + 0.5) * hop, torch's frames at multiples of it. Three more on each side reach in.
        edge = self.hop_length * 5 // 2
        gains = (magnitudes / self.sums).clamp(min=1e-12).log()  # (B, T, 128)
        bins = torch.arange(SVC_N_FFT // 2 + 1, device=noise.device, dtype=noise.dtype)
        gains = _interpolated(bins, self.centres, gains).exp() * (bins <= HIGHEST * SVC_N_FFT / self.sample_rate)
        window = torch.hann_window(SVC_N_FFT, device=noise.device, dtype=noise.dtype)
        # Of a complex Gaussian the mean magnitude is sqrt(pi) / 2 of the root of its mean square.
        gains = F.pad(gains.transpose(1, 2), (3, 3), mode="replicate") / (math.sqrt(math.pi) / 2 * window.norm())
        options = {"n_fft": SVC_N_FFT, "hop_length": self.hop_length, "window": window}
        transform = torch.stft(F.pad(noise, (edge, edge)), **options, pad_mode="constant", return_complex=True)
        return torch.istft(transform * gains, **options, length=noise.shape[1] + 2 * edge)[:, edge:-edge]

    def _check(self, mel: Tensor, f0: Tensor, voiced: Tensor) -> None:
        if mel.shape[1] != self.mels or not f0.shape == voiced.shape == (len(mel), mel.shape[2]):
            found = f"shapes {tuple(mel.shape)}, {tuple(f0.shape)}, {tuple(voiced.shape)}"
            raise ShapeError("mel, f0, voiced", found, f"(batch, {self.mels}, frames) and twice (batch, frames)")
        if not all_hold(mel.isfinite()) or not all_hold(f0.isfinite() & (f0 >= 0)):
            raise ParameterError("mel, f0", "NaN, infinite values or a negative pitch", "ln mel, and Hz or 0")


def continuous(f0: Track) -> Track:
    """Pitch with zeros replaced by the last value before them, else the first one after."""
    at = torch.arange(f0.shape[1], device=f0.device).expand_as(f0)
    before = torch.where(f0 > 0, at, -1).cummax(1).values
    first = (f0 > 0).int().argmax(1, keepdim=True)
    filled = f0.gather(1, torch.where(before < 0, first, before))
    return torch.where(filled > 0, filled, 100.0)  # of a row without any pitch


def _mel_of_sines(filters: Tensor) -> tuple[Tensor, Tensor]:
    """Mel of a sine of amplitude 1 at each frequency of a fine grid: the first of the bins it reaches, and these."""
    bins = torch.arange(filters.shape[1])
    grid = torch.arange((filters.shape[1] - 1) * _GRID + 1) / _GRID
    distance = (grid[:, None] - bins).abs()  # (frequencies, bins)
    near = torch.where((distance - 1).abs() < 1e-3, 0.5, torch.sinc(distance) / (1 - distance.square()))
    # A Hann window's sum is half its length, and a sine has half its amplitude at either frequency.
    mel = (near.abs() * (distance < 8) * (SVC_N_FFT / 4)) @ filters.T
    first = mel.unfold(1, _WIDTH, 1).sum(2).argmax(1)
    return first, mel.gather(1, first[:, None] + torch.arange(_WIDTH))


def _interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Values `(..., places)` at other places, linear between and constant beyond."""
    right = torch.searchsorted(places.contiguous(), at.contiguous()).clamp(1, len(places) - 1)
    share = ((at - places[right - 1]) / (places[right] - places[right - 1])).clamp(0, 1)
    return torch.lerp(values[..., right - 1], values[..., right], share)
