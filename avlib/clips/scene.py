"""One scene: its truth, its sound, and its picture at any moment."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import Field

from ..errors import ParameterError, check_number, check_whole
from ..settings import Number, Share, settings
from . import sound
from .backdrop import Backdrop
from .drawing import Canvas, hue_colour
from .kinds import BY_NAME, KINDS

Times = Sequence[float | int] | np.ndarray
LONGEST = 30  # seconds
_LEAD = 4.0  # seconds by which the rhythm starts early, so that its effects are under way when the clip begins
_ATTRIBUTES = ("position", "size", "hue", "rate")


@dataclass(frozen=True)
class Truth:
    """The truth of a scene, independent of picture size and sample rate.

    kind, seed, seconds: of the scene.
    position, size, hue, rate: the four attributes in [0, 1]: left to right, small to large, dark blue to yellow,
        slow to quick.
    """

    kind: str
    seed: int
    seconds: float
    position: float
    size: float
    hue: float
    rate: float
    pitch: float  # the lowest note in Hz, by the size
    decay: float  # seconds in which a note falls to 1/e, by the hue. Its brightness rises with it
    tempo: float  # onsets per second on average, by the rate
    onsets: tuple[float, ...]  # seconds at which a sound starts and the picture shows its cause; rising
    loudness: tuple[float, ...]  # of each onset, in [0.6, 1]
    pitches: tuple[float, ...]  # of each onset, in Hz

    def to_dict(self) -> dict:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@settings
class Scene:
    """An audio-visual scene with known truth, decided at once and rendered on demand.

    `dataclasses.replace(scene, hue=0.9)` is the same scene with one thing changed.
    """

    kind: Literal[KINDS]
    seed: Annotated[int, Field(ge=0)] = 0  # number of the scene
    seconds: Annotated[Number, Field(gt=0, le=LONGEST)] = 10.0  # duration. A longer scene continues a shorter one
    position: Share | None = None  # from left to right, in [0, 1]; without it, drawn from the seed
    size: Share | None = None  # from small (high) to large (low); likewise
    hue: Share | None = None  # from dark blue (dull and short) to yellow (bright and long); likewise
    rate: Share | None = None  # from slow to quick; likewise

    def __post_init__(self):
        object.__setattr__(self, "seconds", float(self.seconds))
        for name, draw in zip(_ATTRIBUTES, self._dice("attributes").random(4).tolist(), strict=True):
            given = getattr(self, name)
            object.__setattr__(self, name, draw if given is None else float(given))

    @property
    def tempo(self) -> float:
        """Onsets per second on average, from 1 to 4."""
        return 4.0**self.rate

    @property
    def pitch(self) -> float:
        """The lowest note in Hz; the largest is two octaves below the smallest."""
        return 4.0 ** (1 - self.size) * BY_NAME[self.kind].lowest

    @property
    def decay(self) -> float:
        """Seconds in which a note falls to 1/e."""
        short, long = BY_NAME[self.kind].decay
        return short * (long / short) ** self.hue

    @property
    def scale(self) -> float:
        """Scale of the sounding thing in the picture, from 0.5 to 1."""
        return 0.5 + 0.5 * self.size

    @property
    def facing(self) -> int:
        """1 to the right, -1 to the left; always towards the middle."""
        return 1 if self.position < 0.5 else -1

    @property
    def colour(self) -> tuple[float, float, float]:
        """Red, green and blue of the sounding thing, in [0, 1]."""
        return hue_colour(self.hue)

    @cached_property
    def beats(self) -> tuple[list[float], list[float], list[float]]:
        """Time (s), loudness and pitch (Hz) of every onset.

        They reach from before the clip to after the longest one. The longer the wait, the harder the strike.
        """
        kind = BY_NAME[self.kind]
        count = int(6 + 2 * _LEAD + LONGEST) * 5
        waits, steps = self._dice("beats").random((2, count)).tolist()
        rests = ((1 + kind.looseness * (wait - 0.5)) / self.tempo for wait in waits)
        times = [round((time - _LEAD) * sound.GRID) / sound.GRID for time in accumulate(rests)]
        pitches = [self.pitch * kind.steps[int(step * len(kind.steps))] for step in steps]
        return times, [0.6 + 0.4 * wait for wait in waits], pitches

    def since(self, time: float) -> tuple[int, float, float]:
        """Number of the last onset, seconds since it, and seconds until the next."""
        times = self.beats[0]
        last = bisect_right(times, time) - 1
        return last, time - times[last], times[last + 1] - time

    def around(self, time: float, before: float, after: float) -> list[tuple[int, float]]:
        """Number and age (s, negative: in the future) of onsets around `time`."""
        times = self.beats[0]
        first, end = bisect_right(times, time - before), bisect_right(times, time + after)
        return [(number, time - times[number]) for number in range(first, end)]

    @cached_property
    def truth(self) -> Truth:
        beats = [beat for beat in zip(*self.beats, strict=True) if 0 <= beat[0] < self.seconds]
        onsets, loudness, pitches = zip(*beats, strict=True) if beats else ((), (), ())
        drawn = {name: getattr(self, name) for name in _ATTRIBUTES}
        return Truth(
            self.kind, self.seed, self.seconds, **drawn, pitch=self.pitch, decay=self.decay, tempo=self.tempo,
            onsets=onsets, loudness=loudness, pitches=pitches,
        )  # fmt: skip

    def sound(self, sample_rate: int = 48000) -> Float32[np.ndarray, "2 samples"]:
        """Render the sound of the whole scene, left and right, in [-1, 1) on the grid of 16-bit files, 1/32768.

        The rate is from 8,000 to 192,000 Hz. A lower one only lacks the high frequencies.
        """
        check_whole("sample_rate", sample_rate, 8000, 192000)
        truth, kind = self.truth, BY_NAME[self.kind]
        notes = {
            pitch: kind.note(self, pitch, self._dice("noise"), sample_rate)
            for pitch in sorted({*truth.pitches, self.pitch})
        }
        # The level is drawn, so that it tells neither the kind nor an attribute; it is set at one rate for all rates.
        model = notes[self.pitch] if sample_rate == 16000 else kind.note(self, self.pitch, self._dice("noise"), 16000)
        dice = self._dice("levels")
        level = 0.035 * 2 ** dice.random() / math.sqrt(0.65 * self.tempo * float(np.sum(model * model)) / 16000)
        level = min(level, 0.6 / float(np.abs(model).max()))
        samples = round(self.seconds * sample_rate)
        waveform = sound.place([notes[p] for p in truth.pitches], truth.onsets, truth.loudness, samples, sample_rate)
        stereo = sound.room(level * waveform, self.position, sample_rate)
        stereo += (0.002 + 0.004 * dice.random()) * sound.bed(self._dice("bed"), self.seconds, sample_rate)
        return (np.rint(np.clip(stereo * 32768, -32768, 32767)) / 32768).astype(np.float32)

    def frame(self, time: float | int, size: tuple[int, int] = (256, 256)) -> UInt8[np.ndarray, "height width 3"]:
        """Render the picture at one moment, RGB.

        `time` is in seconds from the start, `size` height and width in pixels, each from 16 to 4,096.
        """
        check_number("time", time, 0.0, self.seconds)
        if not isinstance(size, Sequence) or len(size) != 2:
            raise ParameterError("size", f"{size!r}", "two whole numbers, height and width", "Give size=(256, 256).")
        for side in size:
            check_whole("size", side, 16, 4096)
        canvas = _still(self, (int(size[0]), int(size[1]))).copy()
        self._backdrop.move(canvas, time)
        BY_NAME[self.kind].draw(canvas, self, float(time))
        return canvas.array()

    def frames(self, times: Times, size: tuple[int, int] = (256, 256)) -> UInt8[np.ndarray, "moments height width 3"]:
        """Render the pictures at several moments; see `frame`."""
        return np.stack([self.frame(float(time), size) for time in times])

    @cached_property
    def _backdrop(self) -> Backdrop:
        return Backdrop(self._dice("backdrop"))

    def _dice(self, purpose: str) -> np.random.Generator:
        return sound.dice(self.kind, self.seed, purpose)


def scenes(count: int, seed: int = 0, seconds: float | int = 10.0, kinds: Sequence[str] = KINDS) -> list[Scene]:
    """Make `count` different scenes, the kinds in turn.

    A longer list begins with a shorter one; lists of different seeds have no scene in common.
    """
    check_whole("count", count, 0)
    check_whole("seed", seed, 0)
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not kinds:
        raise ParameterError("kinds", "no kind is given", f"some of {', '.join(KINDS)}", "Leave it out for all eight.")
    return [Scene(kinds[i % len(kinds)], int(seed) * 1_000_000 + i, seconds) for i in range(count)]


@lru_cache(maxsize=4)
def _still(scene: Scene, size: tuple[int, int]) -> Canvas:
    return scene._backdrop.still(size)
