"""How hard a word is to say, and what that makes of a clip's weight.

A normal pronunciation of a hard word and an abnormal one of an easy word say most about a speaker.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ParameterError

# The scores between which weights go from one end to the other, as in the notes' README.
EASIEST, HARDEST = 2, 11

# Hangul in canonical decomposition: a syllable is an initial, a vowel and perhaps a final, each a character.
_VOWELS = re.compile("[\u1161-\u1175]")
_FINALS = re.compile("[\u11a8-\u11c2]")  # a cluster is one character
_TENSE = re.compile("[\u1101\u1104\u1108\u110a\u110d]")  # initials: as a final, each is said plain
_ASPIRATED = re.compile("[\u110e-\u1111]")  # ch, k, t, p, as initials for the same reason
# Those of the standard language, which counts oe and wi among the simple vowels.
_DIPHTHONGS = re.compile("[\u1163\u1164\u1167\u1168\u116a\u116b\u116d\u116f\u1170\u1172\u1174]")
_LIQUID = re.compile("[\u1105\u11af-\u11b6]")  # r or l, alone or first of a final cluster

# What is one sound in most English words, however many letters it has; a final e after a consonant is silent.
_SOUNDS = re.compile(r"tch|dge|[cpst]h|wh|ck|ng|qu|x|[aeiou]+[wy]?|y|([b-df-hj-np-tv-z])\1?")
_SILENT_E = re.compile(r"(?<=[aeiouy][b-df-hj-np-tvz])e$")


def word_difficulty(
    word: str,
    table: Mapping[str, float | int] | None = None,
    phonemes: Sequence[str] | None = None,
    rare: Collection[str] = (),
) -> float:
    """How hard a word is: what the table says, else by a rule.

    Korean: syllables + 2 x final consonants + tense + aspirated + diphthongs + 1 if there is a liquid. Any other
    alphabet: how many phonemes, which is guessed from English spelling where they are not given; a rule of thumb, and
    a table is better. 1 more for a rare word.

    Args:
        word: as it is written.
        table: scores by word, which win.
        phonemes: of the word, one by one; not used for Hangul.
        rare: words that are seldom heard.

    Raises:
        ParameterError: neither Hangul nor letters from a to z, and no phonemes.
    """
    if table is not None and word in table:
        return float(table[word])
    text = unicodedata.normalize("NFD", word.strip().lower())
    if _VOWELS.search(text):
        weights = {_VOWELS: 1, _FINALS: 2, _TENSE: 1, _ASPIRATED: 1, _DIPHTHONGS: 1}
        score = sum(weight * len(pattern.findall(text)) for pattern, weight in weights.items())
        score += bool(_LIQUID.search(text))
    elif phonemes is not None:
        score = len(phonemes)
    else:
        letters = _SILENT_E.sub("", re.sub(r"[^a-z]", "", text))
        sounds = [match[0] for match in _SOUNDS.finditer(letters)]
        score = len(sounds) + sum(sound in ("x", "qu") for sound in sounds)  # ks, kw
        if not score:
            raise ParameterError("word", repr(word), "Hangul, letters from a to z, or phonemes", "Give a table.")
    return float(score + (word in rare))


def difficulty_weights(
    difficulty: Float[Tensor, " batch"] | Int[Tensor, " batch"] | Sequence[float | int],
    labels: Int[Tensor, " batch"] | Sequence[int],
    strength: float | int = 1.0,
    lowest: float | int = EASIEST,
    highest: float | int = HARDEST,
) -> Float[Tensor, " batch"]:
    """A weight for each clip: 1 + s (d - 1/2) if it is normal, 1 - s (d - 1/2) if not; s: `strength`.

    d is the difficulty of its word, from 0 at `lowest` to 1 at `highest`; what is beyond stays at the ends.

    Args:
        difficulty: `(batch,)`, of each clip's word; see `word_difficulty`.
        labels: `(batch,)`, 0 normal, 1 abnormal.
        strength: 0 weighs all alike; with 1, weights are from 0.5 to 1.5.
        lowest: the score of the easiest words.
        highest: that of the hardest.

    Returns:
        `(batch,)`, float32 (float64 if `difficulty` is that), on the device of the labels.

    Raises:
        ParameterError: labels other than 0 and 1, not as many of both, a `strength` outside 0 to 2 (a weight would be
            negative), `lowest` not below `highest`, or a difficulty that is NaN.
    """
    labels = torch.as_tensor(labels)
    difficulty = torch.as_tensor(difficulty).to(labels.device)
    difficulty = difficulty.to(torch.promote_types(difficulty.dtype, torch.float32))
    if not 0 <= strength <= 2:
        raise ParameterError("strength", f"{strength}", "0 to 2")
    if not lowest < highest:
        raise ParameterError("lowest, highest", f"{lowest}, {highest}", "the first below the second")
    if difficulty.shape != labels.shape or difficulty.isnan().any():
        raise ParameterError("difficulty", f"{difficulty.tolist()[:5]}", f"a number for each of {len(labels)} clips")
    if not ((labels == 0) | (labels == 1)).all():
        raise ParameterError("labels", "other values than 0 and 1", "0 for normal, 1 for abnormal")
    away = ((difficulty - lowest) / (highest - lowest)).clamp(0, 1) - 0.5
    return 1 + strength * away * (1 - 2 * labels)
