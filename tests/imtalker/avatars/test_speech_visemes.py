from __future__ import annotations

from collections import Counter

import pytest

from imtalker.avatars.speech.visemes import REST, Closure, visemes

# Every symbol that 300 sentences in six languages and eleven accents brought up.
_SEEN = """
    a a- aɪ aʊ aː b d dz dʒ e e- eə eɪ eʊ eː f h i iə iʊ iː j k l m n n̩ o oɪ oʊ oː p pf r s ss t ts tʃ u uː v w x y
    y- yː z æ ç ð ø øː ŋ œ œ̃ õ ũ ɐ ɐ̃ ɐ̃ʊ̃ ɑ ɑ̃ ɑː ɒ ɔ ɔ̃ ɔø ɔɪ ɔː ɔːɹ ə ə- əl əʊ ɚ ɛ ɛ̃ ɛː ɜ ɜː ɡ ɣ ɨ ɪ ɪɹ ɲ ɹ ɾ ʁ ʃ ʉ
    ʉɹ ʉː ʊ ʊɹ ʌ ʌɹ ʌʉ ʍ ʎ ʒ ʔ ʝ β θ ᵻ
"""


@pytest.mark.parametrize("symbol", _SEEN.split())
def test_sounds_of_many_languages_are_known_and_in_range(symbol: str) -> None:
    unknown: Counter[str] = Counter()
    for sound in visemes(symbol, unknown):
        assert 0 <= sound.opening <= 1
        assert -1 <= sound.width <= 1
        assert 0 <= sound.rounding <= 1
        assert 0 <= sound.jaw <= 1
        assert 0 < sound.lips <= 1
        assert 0 < sound.shape <= 1
    assert not unknown


@pytest.mark.parametrize("symbol", ["p", "b", "m", "pː", "m̩"])
def test_bilabials_close(symbol: str) -> None:
    (sound,) = visemes(symbol)
    assert sound.opening == 0
    assert sound.closure is Closure.LIPS


@pytest.mark.parametrize("symbol", ["f", "v"])
def test_labiodentals_nearly_close(symbol: str) -> None:
    (sound,) = visemes(symbol)
    assert 0 < sound.opening <= 0.1
    assert sound.closure is Closure.TEETH


def test_vowels_are_ordered_as_in_the_chart() -> None:
    opening = {letter: visemes(letter)[0].opening for letter in "iɪeɛæ"}
    assert list(opening.values()) == sorted(opening.values())
    assert visemes("i")[0].width > 0.5 > visemes("ə")[0].width > visemes("u")[0].width
    assert visemes("u")[0].rounding > 0.8 > visemes("ɔ")[0].rounding > 0.3 > visemes("a")[0].rounding
    assert visemes("a")[0].jaw > 0.8 > visemes("i")[0].jaw


def test_diphthongs_and_affricates_are_several_sounds() -> None:
    assert visemes("aʊ") == (visemes("a")[0], visemes("ʊ")[0])
    assert [sound.closure for sound in visemes("pf")] == [Closure.LIPS, Closure.TEETH]
    assert visemes("uː")[0].share > visemes("u")[0].share


def test_a_pause_and_a_lone_mark_are_rest() -> None:
    assert visemes("") == visemes("ˈ") == (REST,)


def test_marks_do_not_move_the_lips() -> None:
    unknown: Counter[str] = Counter()
    assert visemes("ɔ̃", unknown) == visemes("ɔ")
    assert visemes("tʰ", unknown) == visemes("t")
    assert visemes("ç", unknown) == visemes("ʝ")
    assert not unknown


def test_unknown_letters_are_counted_and_take_the_shape_of_their_plain_letter() -> None:
    unknown: Counter[str] = Counter()
    assert visemes("ᵬ", unknown) == visemes("b")
    assert len(visemes("あ", unknown)) == 1
    visemes("あ", unknown)
    assert unknown == {"ᵬ": 1, "あ": 2}
