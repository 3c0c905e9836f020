"""Who speaks: age, and what is the speaker's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .given import check_number, check_whole, dice

# Half years while much changes, then whole ones.
AGES = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 9.0, 10.0)
YOUNGEST, OLDEST = 2.0, 16.0  # years; at the older age the vocal tract is a grown-up's

# How far one speaker is from the mean of the age.
_TRACT, _F0, _PACE, _FORMANTS = 0.04, 0.10, 0.12, 0.03


@dataclass(frozen=True)
class Speaker:
    """Who speaks. Age is heard: an older child has a longer vocal tract, a lower voice and quicker speech.
    `Speaker(seed, age=...)` is, for the same seed, the same one at another age.

    Args:
        seed: which one; any whole number that is not negative.
        age: in years, from 2 to 16; one of `AGES`, drawn from the seed, where it is not given.
        tract: how much higher the formants are than a grown-up's, from 0.8 to 1.6; by age where it is not given:
            1.35 - 0.025 (age - 2), within 4 %.
        f0: the mean pitch in Hz, from 60 to 500; by age where it is not given: 330 - 9 (age - 2), within 10 %.
        pace: how much longer the phones are than a grown-up's, from 0.5 to 2; by age where it is not given:
            1.3 - 0.02 (age - 2), within 12 %.

    Raises:
        ParameterError: one of them is of the wrong type or out of range.
    """

    seed: int = 0
    age: float | int | None = None
    tract: float | int | None = None
    f0: float | int | None = None
    pace: float | int | None = None

    def __post_init__(self):
        check_whole("seed", self.seed, 0)
        object.__setattr__(self, "seed", int(self.seed))
        first, *draws = dice("speaker", self.seed).random(4).tolist()
        if self.age is None:
            object.__setattr__(self, "age", AGES[int(first * len(AGES))])
        _set(self, "age", None, YOUNGEST, OLDEST)
        since = self.age - YOUNGEST
        ranges = {
            "tract": (1.35 - 0.025 * since, _TRACT, 0.8, 1.6),
            "f0": (330 - 9 * since, _F0, 60.0, 500.0),
            "pace": (1.3 - 0.02 * since, _PACE, 0.5, 2.0),
        }
        for (name, (mean, spread, lowest, highest)), draw in zip(ranges.items(), draws, strict=True):
            _set(self, name, mean * (1 + spread * (2 * draw - 1)), lowest, highest)

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"s{self.seed}"

    @cached_property
    def _voice(self) -> tuple[np.ndarray, float, float]:
        """The speaker's own factors of F1 to F3 `(3,)`, breath (against a voice of 1), and tilt (Hz)."""
        draws = dice("voice", self.seed).random(5)
        return 1 + _FORMANTS * (2 * draws[:3] - 1), float(0.02 + 0.08 * draws[3]), float(2000 * 2 ** draws[4])


def _set(speaker: Speaker, name: str, drawn: float | None, lowest: float, highest: float) -> None:
    """Take what is given or else what is drawn."""
    given = getattr(speaker, name)
    if given is not None:
        check_number(name, given, lowest, highest)
    object.__setattr__(speaker, name, drawn if given is None else float(given))
