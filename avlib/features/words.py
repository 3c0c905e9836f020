"""Difficulty of words, from their spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from ..errors import ParameterError

# Hangul in canonical decomposition: a syllable is an initial, a vowel and perhaps a final, each a character.
_VOWELS = re.compile("[\u1161-\u1175]")
_COUNTED = {
    _VOWELS: 1,
    re.compile("[\u11a8-\u11c2]"): 2,  # finals; a cluster is one character
    re.compile("[\u1101\u1104\u1108\u110a\u110d]"): 1,  # tense initials; as a final, each is said plain
    re.compile("[\u110e-\u1111]"): 1,  # aspirated initials: ch, k, t, p
    # diphthongs of the standard language, which counts oe and wi among the simple vowels
    re.compile("[\u1163\u1164\u1167\u1168\u116a\u116b\u116d\u116f\u1170\u1172\u1174]"): 1,
}
_LIQUID = re.compile("[\u1105\u11af-\u11b6]")  # r or l, alone or first of a final cluster

# What is one sound in most English words, however many letters it has; a final e after a consonant is silent.
_SOUNDS = re.compile(r"tch|dge|[cpst]h|wh|ck|ng|qu|x|[aeiou]+[wy]?|y|([b-df-hj-np-tv-z])\1?")
_SILENT_E = re.compile(r"(?<=[aeiouy][b-df-hj-np-tvz])e$")


def word_difficulty(word: str, table: Mapping[str, float | int] | None = None) -> float:
    """Score a word's difficulty by a table of scores or a rule.

    Korean: syllables + 2 x final consonants + tense + aspirated + diphthongs + 1 if there is a liquid. Else the number
    of phonemes, guessed from English spelling.
    """
    if table is not None and word in table:
        return float(table[word])
    text = unicodedata.normalize("NFD", word.strip().lower())
    if _VOWELS.search(text):
        score = sum(weight * len(pattern.findall(text)) for pattern, weight in _COUNTED.items())
        return float(score + bool(_LIQUID.search(text)))
    letters = _SILENT_E.sub("", re.sub(r"[^a-z]", "", text))
    sounds = [match[0] for match in _SOUNDS.finditer(letters)]
    if not sounds:
        raise ParameterError("word", repr(word), "Hangul, or letters from a to z", "Give a table.")
    return float(len(sounds) + sum(sound in ("x", "qu") for sound in sounds))  # ks, kw
