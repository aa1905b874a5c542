"""What to say and by which voice: a corpus of sentences without end, with parts that are never trained on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from imtalker.avatars.speech.grammars import GRAMMARS
from imtalker.seeded import raw_stream

LANGUAGES = tuple(GRAMMARS)

_ACCENTS = {
    "en": ("en-us", "en", "en-gb-x-rp", "en-gb-scotland"),
    "de": ("de",),
    "fr": ("fr", "fr-be"),
    "es": ("es", "es-419"),
    "it": ("it",),
    "pt": ("pt", "pt-br"),
}
_VARIANTS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
_HELD_OUT_VARIANTS = frozenset({"f4", "m3", "m7"})
# One sentence in so many is held out.
_HELD_OUT_SENTENCES = 8
# More draws than this without a new sentence: the grammar is used up.
_PATIENCE = 2000
_RATES = (130, 215)
_PITCHES = (30, 70)


class Split(Enum):
    TRAIN = "train"
    HELD_OUT = "held-out"


@dataclass(frozen=True)
class Line:
    """A sentence and how to speak it: the arguments of :func:`imtalker.avatars.speech.espeak.speak`."""

    text: str
    language: str
    voice: str
    rate: int
    pitch: int


def voices(language: str, split: Split) -> tuple[str, ...]:
    """The voices of a language: its accents in each variant (``"en-us+f2"``). No variant is in both splits.

    Raises ValueError for a language that is not in :data:`LANGUAGES`.
    """
    _check(language)
    held_out = split is Split.HELD_OUT
    return tuple(
        f"{accent}+{variant}"
        for accent in _ACCENTS[language]
        for variant in _VARIANTS
        if (variant in _HELD_OUT_VARIANTS) == held_out
    )


def sentences(language: str, *, seed: int, split: Split) -> Iterator[str]:
    """Different sentences in an order that ``seed`` selects, until the language's grammar is used up.

    The hash of a sentence decides its split, so that no seed leaks a held-out sentence into training. Raises ValueError
    for a language that is not in :data:`LANGUAGES`.
    """
    _check(language)
    grammar = GRAMMARS[language]
    seen: set[str] = set()
    draws = _draws(f"sentences/{language}", seed)
    failures = 0
    while failures < _PATIENCE:
        pattern = grammar.patterns[next(draws) % len(grammar.patterns)]
        text = re.sub(r"\{(\w+)\}", lambda slot: _pick(grammar.fillers[slot[1]], draws), pattern)
        text = re.sub(r"(?:^[¿¡]?|[.?!] [¿¡]?)\w", lambda start: start[0].upper(), text)
        if text in seen or split_of(text) is not split:
            failures += 1
            continue
        seen.add(text)
        failures = 0
        yield text


def split_of(text: str) -> Split:
    held_out = hashlib.sha256(text.encode()).digest()[0] % _HELD_OUT_SENTENCES == 0
    return Split.HELD_OUT if held_out else Split.TRAIN


def lines(
    count: int,
    *,
    seed: int,
    sentence_split: Split = Split.TRAIN,
    voice_split: Split = Split.TRAIN,
    languages: tuple[str, ...] = LANGUAGES,
) -> list[Line]:
    """``count`` lines, the languages in turn, each with a voice, 130..215 words a minute and a pitch of 30..70.

    Raises ValueError for an unknown language, and where a language has fewer sentences.
    """
    sources = {language: sentences(language, seed=seed, split=sentence_split) for language in languages}
    draws = _draws("lines", seed)
    made = []
    for index in range(count):
        language = languages[index % len(languages)]
        text = next(sources[language], None)
        if text is None:
            raise ValueError(f"expected {count} lines, found sentences for {index}: {language} is used up")
        voice = _pick(voices(language, voice_split), draws)
        rate, pitch = (low + next(draws) % (high - low + 1) for low, high in (_RATES, _PITCHES))
        made.append(Line(text, language, voice, rate, pitch))
    return made


def _check(language: str) -> None:
    if language not in GRAMMARS:
        raise ValueError(f"expected a language out of {', '.join(LANGUAGES)}, found {language!r}")


def _pick(choices: tuple[str, ...], draws: Iterator[int]) -> str:
    return choices[next(draws) % len(choices)]


def _draws(name: str, seed: int) -> Iterator[int]:
    """Numbers without end, the same on every machine."""
    block = 0
    while True:
        yield from raw_stream(f"{name}/{block}", 256, seed).tolist()
        block += 1
