"""The built-in speech: words by speakers of different age, pronounced normally or not, in noise, with their truth.

    words and phones -> `Spoken(word, speaker, pronunciation, seed, snr)` -> its `truth`, its `sound()`
    `corpus(words, speakers, takes)` -> many of them, balanced -> `render` -> wav files and their table

The voice is a formant synthesiser of our own, the words are our own, and nobody's recordings are in it. It is as
simple as it can be while age, formants and pitch are what they are in speech; it is not a child's voice.
"""

from .corpus import COLUMNS, SNR_RANGE, corpus, render
from .listening import can_say, say
from .phones import PAIRS, PARTNER, PHONES, WORDS, Part, Phone
from .speaker import AGES, Speaker
from .spoken import DEFAULT_SNR, PRONUNCIATIONS, Spoken, Truth
from .voice import SAMPLE_RATE, Tracks

__all__ = [
    "AGES",
    "COLUMNS",
    "DEFAULT_SNR",
    "PAIRS",
    "PARTNER",
    "PHONES",
    "PRONUNCIATIONS",
    "SAMPLE_RATE",
    "SNR_RANGE",
    "WORDS",
    "Part",
    "Phone",
    "Speaker",
    "Spoken",
    "Tracks",
    "Truth",
    "can_say",
    "corpus",
    "render",
    "say",
]
