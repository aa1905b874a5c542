from __future__ import annotations

import re
from itertools import islice

import pytest

from imtalker.avatars.speech.grammars import GRAMMARS
from imtalker.avatars.speech.texts import LANGUAGES, Split, lines, sentences, split_of, voices


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_slot_has_fillers_and_every_filler_a_slot(language: str) -> None:
    grammar = GRAMMARS[language]
    assert set(re.findall(r"\{(\w+)\}", " ".join(grammar.patterns))) == set(grammar.fillers)
    assert all(part for parts in (grammar.patterns, *grammar.fillers.values()) for part in parts)


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_many_different_and_of_their_split(language: str, split: Split) -> None:
    made = list(islice(sentences(language, seed=1, split=split), 300))
    assert len(set(made)) == 300
    assert all(split_of(text) is split for text in made)
    assert all(re.match(r"[¿¡]?[^\W\da-z]", text) and text[-1] in ".?!" and "{" not in text for text in made)


def test_a_seed_selects_the_order() -> None:
    first, again, other = (list(islice(sentences("en", seed=seed, split=Split.TRAIN), 5)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_grammar_ends_when_it_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRAMMARS["it"].fillers, "who", ("Ugo",))
    small = type(GRAMMARS["it"])(("{who}.",), {"who": ("Ugo", "Ada", "Ivo")})
    monkeypatch.setitem(GRAMMARS, "it", small)
    made = {text for split in Split for text in sentences("it", seed=1, split=split)}
    assert made == {"Ugo.", "Ada.", "Ivo."}
    with pytest.raises(ValueError, match=r"expected 9 lines, found sentences for \d: it is used up"):
        lines(9, seed=1, languages=("it",))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_voice_is_in_both_splits(language: str) -> None:
    train, held_out = (set(voices(language, split)) for split in Split)
    assert len(train) >= 10
    assert len(held_out) >= 3
    assert not {voice.partition("+")[2] for voice in train} & {voice.partition("+")[2] for voice in held_out}


def test_lines_take_the_languages_in_turn_and_stay_in_their_splits() -> None:
    made = lines(60, seed=5, voice_split=Split.HELD_OUT)
    assert made == lines(60, seed=5, voice_split=Split.HELD_OUT)
    assert [line.language for line in made] == list(LANGUAGES) * 10
    assert all(line.voice in voices(line.language, Split.HELD_OUT) for line in made)
    assert all(split_of(line.text) is Split.TRAIN for line in made)
    assert all(130 <= line.rate <= 215 and 30 <= line.pitch <= 70 for line in made)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a language out of en, de, .*, found 'xx'"):
        voices("xx", Split.TRAIN)
    with pytest.raises(ValueError, match="found 'xx'"):
        next(sentences("xx", seed=1, split=Split.TRAIN))
