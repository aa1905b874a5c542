"""What the mouth aims for in each sound, and how firmly.

Vowels follow from their place in the IPA chart (height, backness, rounding), consonants from place and manner, so every
language that espeak-ng writes in IPA is covered.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum

from imtalker.avatars.speech.utterance import PAUSE


class Closure(Enum):
    """What the lips must reach whatever the neighbours: nothing, contact, or the lower lip at the teeth."""

    NONE = "none"
    LIPS = "lips"
    TEETH = "teeth"


@dataclass(frozen=True)
class Viseme:
    """Where the mouth goes in one sound.

    ``opening`` 0..1, ``width`` -1..1, ``rounding`` 0..1 and ``jaw`` 0..1 are the columns of an avatar's state. The
    weights 0..1 say how far the sound insists on its value against its neighbours' (``lips`` weighs opening and jaw,
    ``shape`` width and rounding): an /s/ insists on a high jaw and takes the rounding of the vowel that follows.
    ``share`` is its part of the time of a symbol with several sounds. ``bursts`` marks voiceless plosives, whose
    closure lies before their time.
    """

    opening: float
    width: float
    rounding: float
    jaw: float
    lips: float
    shape: float
    closure: Closure = Closure.NONE
    bursts: bool = False
    share: float = 1.0


REST = Viseme(opening=0.0, width=0.0, rounding=0.0, jaw=0.0, lips=0.7, shape=0.2)

# Height 0 (close) .. 1 (open), backness 0 (front) .. 1 (back), rounding 0..1, after the IPA chart.
_VOWELS: dict[str, tuple[float, float, float]] = {
    "i": (0.05, 0.0, 0.0), "y": (0.05, 0.0, 1.0), "ɨ": (0.1, 0.5, 0.0), "ʉ": (0.1, 0.5, 1.0),
    "ɯ": (0.1, 1.0, 0.0), "u": (0.05, 1.0, 1.0), "ɪ": (0.2, 0.15, 0.0), "ʏ": (0.2, 0.2, 0.9),
    "ʊ": (0.2, 0.9, 0.8), "e": (0.35, 0.0, 0.0), "ø": (0.35, 0.0, 0.9), "ɘ": (0.35, 0.5, 0.0),
    "ɵ": (0.35, 0.5, 0.8), "ɤ": (0.35, 1.0, 0.0), "o": (0.4, 1.0, 0.9), "ə": (0.4, 0.5, 0.0),
    "ɚ": (0.4, 0.5, 0.25), "ɛ": (0.6, 0.0, 0.0), "œ": (0.6, 0.0, 0.7), "ɜ": (0.55, 0.5, 0.1),
    "ɝ": (0.5, 0.5, 0.25), "ɞ": (0.6, 0.5, 0.6), "ʌ": (0.65, 0.8, 0.0), "ɔ": (0.65, 1.0, 0.7),
    "æ": (0.8, 0.0, 0.0), "ɐ": (0.75, 0.5, 0.0), "a": (1.0, 0.3, 0.0), "ɶ": (1.0, 0.1, 0.5),
    "ɑ": (0.95, 1.0, 0.0), "ɒ": (0.9, 1.0, 0.4), "ᵻ": (0.2, 0.4, 0.0),
}  # fmt: skip
_REDUCED = frozenset("əɚɐᵻɪʊ")

# Contact is imposed, so these need not pull hard.
_BILABIAL = Viseme(0.0, 0.0, 0.0, 0.12, lips=0.35, shape=0.1, closure=Closure.LIPS)
_CONSONANTS: tuple[tuple[str, Viseme], ...] = (
    ("mbɓʙ", _BILABIAL),
    ("p", replace(_BILABIAL, bursts=True)),
    ("βɸ", Viseme(0.1, 0.0, 0.1, 0.15, lips=0.9, shape=0.15)),
    ("fvɱʋⱱ", Viseme(0.08, 0.1, 0.0, 0.1, lips=0.5, shape=0.3, closure=Closure.TEETH)),
    ("wʍɥ", Viseme(0.16, -0.6, 0.95, 0.18, lips=0.8, shape=0.9)),
    ("θð", Viseme(0.24, 0.15, 0.0, 0.2, lips=0.6, shape=0.25)),
    ("tʈ", Viseme(0.2, 0.1, 0.0, 0.15, lips=0.55, shape=0.15, bursts=True)),
    ("dɖɗnɳ", Viseme(0.22, 0.1, 0.0, 0.18, lips=0.5, shape=0.15)),
    ("lɫɭɬɮɺɾɽr", Viseme(0.28, 0.1, 0.0, 0.25, lips=0.4, shape=0.15)),
    ("szɕʑ", Viseme(0.16, 0.3, 0.0, 0.08, lips=0.7, shape=0.3)),
    ("ʃʒʂʐɧ", Viseme(0.22, -0.3, 0.6, 0.12, lips=0.7, shape=0.6)),
    ("ɹɻ", Viseme(0.22, -0.2, 0.4, 0.22, lips=0.45, shape=0.4)),
    ("jʝçɲʎ", Viseme(0.2, 0.35, 0.0, 0.15, lips=0.45, shape=0.35)),
    ("cɟ", Viseme(0.2, 0.3, 0.0, 0.15, lips=0.45, shape=0.3)),
    ("kq", Viseme(0.28, 0.0, 0.0, 0.28, lips=0.3, shape=0.08, bursts=True)),
    ("gɡɢɠŋɴxɣɰχʁʀ", Viseme(0.28, 0.0, 0.0, 0.28, lips=0.3, shape=0.08)),
    ("hɦʔħʕʜʢʡ", Viseme(0.35, 0.0, 0.0, 0.35, lips=0.08, shape=0.03)),
)

_LONG = frozenset("ːˑ")
# Diacritics, tie bars, stress, tones, aspiration: they move the tongue, the pitch or the breath, not the lips.
_SILENT_CATEGORIES = frozenset({"Mn", "Lm", "Sk", "Nd", "No", "Pd", "Po", "Pc"})
# Vowels last longer than the consonants and glides they share a symbol with.
_VOWEL_SHARE, _LONG_SHARE = 1.5, 1.6
_UNKNOWN = Viseme(0.3, 0.0, 0.0, 0.3, lips=0.25, shape=0.05)


def _vowel(letter: str) -> Viseme:
    height, backness, rounding = _VOWELS[letter]
    firmness = 0.55 if letter in _REDUCED else 0.75
    return Viseme(
        # Rounding narrows the opening between the lips, not the jaw.
        opening=(0.22 + 0.68 * height) * (1.0 - 0.35 * rounding),
        width=(0.75 - 0.65 * height) * (1.0 - backness) * (1.0 - rounding) - 0.6 * rounding,
        rounding=rounding * (1.0 - 0.25 * height),
        jaw=0.12 + 0.78 * height,
        lips=firmness,
        shape=0.9 * firmness + 0.1 * rounding,
        share=_VOWEL_SHARE,
    )


_LETTERS: dict[str, Viseme] = {letter: viseme for letters, viseme in _CONSONANTS for letter in letters}
_LETTERS |= {letter: _vowel(letter) for letter in _VOWELS}


LETTERS: tuple[str, ...] = tuple(_LETTERS)
"""The letters of the IPA that have a viseme of their own."""


def letter_of(symbol: str) -> str | None:
    """The first letter of ``symbol`` that is in `LETTERS`; None for a pause."""
    return next(
        (letter for letter in unicodedata.normalize("NFD", symbol.replace("ç", "ʝ")) if letter in _LETTERS), None
    )


def visemes(symbol: str, unknown: Counter[str] | None = None) -> tuple[Viseme, ...]:
    """The sounds of ``symbol``, an IPA phoneme of espeak-ng: one, or several for diphthongs and affricates.

    Marks that don't move the lips are skipped. A letter outside the table takes its viseme from the plain letter in its
    Unicode name (``ᶑ``, "d with hook and tail", is a ``d``), else a slightly open mouth that gives way to its
    neighbours; such letters are counted in ``unknown``. ``""``, and a symbol of nothing but marks, is a pause.
    """
    if symbol == PAUSE:
        return (REST,)
    sounds: list[Viseme] = []
    # Decomposed, ç would lose its place at the palate.
    for letter in unicodedata.normalize("NFD", symbol.replace("ç", "ʝ")):
        if letter in _LONG:
            if sounds:
                sounds[-1] = replace(sounds[-1], share=sounds[-1].share * _LONG_SHARE)
        elif letter in _LETTERS:
            sounds.append(_LETTERS[letter])
        elif unicodedata.category(letter) not in _SILENT_CATEGORIES:
            if unknown is not None:
                unknown[letter] += 1
            sounds.append(_LETTERS.get(_plain_letter(letter), _UNKNOWN))
    return tuple(sounds) or (REST,)


def _plain_letter(letter: str) -> str:
    """``k`` for ``LATIN SMALL LETTER K WITH HOOK`` and for ``LATIN CAPITAL LETTER K``; "" without such a name."""
    name = unicodedata.name(letter, "").split(" WITH ")[0]
    last = name.rpartition(" ")[2]
    return last.lower() if name.startswith("LATIN ") and len(last) == 1 else ""
