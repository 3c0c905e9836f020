"""The words of the corpus, and what each of their phones is made of, as a grown-up would say it.

Formants of vowels are the means of men by Peterson & Barney, "Control Methods Used in a Study of the Vowels", JASA 24
(1952), table II, rounded to 10 Hz; those of consonants are chosen by ear and by spectrogram around the usual
descriptions of English (r has a low third formant, w a low second one, velars have the second near the third, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

Formants = tuple[float | int, float | int, float | int]  # F1, F2, F3 in Hz


@dataclass(frozen=True)
class Part:
    """A steady part of a phone; the parts melt into each other.

    share: of the phone's duration.
    voice, breath: how loud the larynx and the air from it sound, both through the formants. A vowel's voice is 1.
    hiss: how loud the noise is that is made in the mouth; centre, width: of its spectrum, in Hz.
    zero: where the open nose takes energy away, in Hz; None when it is shut.
    """

    share: float | int
    formants: Formants
    voice: float | int = 0.0
    breath: float | int = 0.0
    hiss: float | int = 0.0
    centre: float | int = 0.0
    width: float | int = 0.0
    zero: float | int | None = None


@dataclass(frozen=True)
class Phone:
    """A sound of speech: its usual duration in seconds, and its parts."""

    seconds: float
    parts: tuple[Part, ...]


def _vowel(*formants: Formants, seconds: float = 0.2) -> Phone:
    return Phone(seconds, tuple(Part(1 / len(formants), target, voice=1) for target in formants))


def _glide(formants: Formants, voice: float) -> Phone:
    return Phone(0.13, (Part(1, formants, voice=voice),))


def _nasal(formants: Formants) -> Phone:
    return Phone(0.11, (Part(1, formants, voice=0.7, zero=480),))


def _fricative(formants: Formants, hiss: float, centre: int, width: int) -> Phone:
    return Phone(0.13, (Part(1, formants, hiss=hiss, centre=centre, width=width),))


def _stop(formants: Formants, voiced: bool, hiss: float, centre: int, width: int) -> Phone:
    """A closure, a burst, and what follows until the vowel: breath, or the voice at once."""
    closure = Part(0.5, formants, voice=0.12 if voiced else 0)
    burst = Part(0.18, formants, hiss=hiss, centre=centre, width=width, voice=0.15 if voiced else 0)
    after = Part(0.32, formants, voice=0.6) if voiced else Part(0.32, formants, breath=0.1)
    return Phone(0.12, (closure, burst, after))


PHONES = {
    "iy": _vowel((270, 2290, 3010)),
    "ih": _vowel((390, 1990, 2550), seconds=0.17),
    "ae": _vowel((660, 1720, 2410)),
    "ah": _vowel((640, 1190, 2390), seconds=0.17),
    "aa": _vowel((730, 1090, 2440)),
    "uw": _vowel((300, 870, 2240)),
    "ey": _vowel((500, 1850, 2500), (350, 2150, 2750), seconds=0.22),
    "w": _glide((300, 620, 2250), 0.8),
    "r": _glide((330, 1100, 1500), 0.8),
    "l": _glide((350, 1250, 2900), 0.8),
    "m": _nasal((450, 1050, 2150)),
    "n": _nasal((450, 1650, 2650)),
    "ng": _nasal((450, 2150, 2650)),
    "s": _fricative((320, 1500, 2600), 0.22, 5000, 800),
    "sh": _fricative((320, 1850, 2500), 0.26, 2750, 600),
    "f": _fricative((320, 1000, 2150), 0.05, 5500, 4000),
    "th": _fricative((320, 1350, 2550), 0.06, 5000, 3000),
    "p": _stop((300, 850, 2150), False, 0.16, 700, 700),
    "t": _stop((300, 1750, 2700), False, 0.28, 3900, 1200),
    "k": _stop((300, 2000, 2400), False, 0.28, 1900, 350),
    "d": _stop((280, 1750, 2700), True, 0.22, 3900, 1200),
    "g": _stop((280, 2000, 2400), True, 0.22, 1900, 350),
}

# Two words that differ in one phone: who takes the one phone for the other, in either word, says the other word.
PAIRS = (
    ("ring", "wing"),
    ("key", "tea"),
    ("sip", "ship"),
    ("thumb", "sum"),
    ("gate", "date"),
    ("fan", "pan"),
    ("moon", "noon"),
    ("lock", "rock"),
)

WORDS = {
    "ring": ("r", "ih", "ng"),
    "wing": ("w", "ih", "ng"),
    "key": ("k", "iy"),
    "tea": ("t", "iy"),
    "sip": ("s", "ih", "p"),
    "ship": ("sh", "ih", "p"),
    "fan": ("f", "ae", "n"),
    "pan": ("p", "ae", "n"),
    "thumb": ("th", "ah", "m"),
    "sum": ("s", "ah", "m"),
    "lock": ("l", "aa", "k"),
    "rock": ("r", "aa", "k"),
    "moon": ("m", "uw", "n"),
    "noon": ("n", "uw", "n"),
    "gate": ("g", "ey", "t"),
    "date": ("d", "ey", "t"),
}

PARTNER = {word: other for pair in PAIRS for word, other in (pair, pair[::-1])}
