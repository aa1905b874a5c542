from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from imtalker.avatars.speech.texts import LANGUAGES, Line, Split, split_of, voices
from imtalker.training.avatar_pictures import HELD_OUT_IDENTITIES
from manifests.ids import is_valid
from pipeline.avatars.recipes import ClipRecipe, PortraitRecipe, Script, draw_script, identity_seeds

LINE = Line("Hello.", "en", "en-us+f2", 170, 50)
PERSON = PortraitRecipe(3, "full", 64)
CLIP = ClipRecipe(0, PERSON, LINE, 1)


def test_the_same_seed_gives_the_same_script_and_another_seed_another_one() -> None:
    first, again, other = (draw_script(identities=3, clips=4, size=64, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert {p.identity_seed for p in first.portraits}.isdisjoint(p.identity_seed for p in other.portraits)
    assert {c.performance_seed for c in first.clips}.isdisjoint(c.performance_seed for c in other.clips)


def test_more_clips_are_the_same_ones_and_further_ones() -> None:
    few, many = (draw_script(identities=3, clips=clips, size=64, seed=1) for clips in (4, 30))
    assert many.clips[:4] == few.clips
    assert identity_seeds(40, seed=1, split=Split.TRAIN)[:3] == [p.identity_seed for p in few.portraits]


@pytest.mark.parametrize("identities", [1, 4, 6, 7])
def test_everyone_speaks_every_language_about_as_often(identities: int) -> None:
    script = draw_script(identities=identities, clips=identities * 36, size=64, seed=1)
    spoken = [(clip.portrait, clip.line.language) for clip in script.clips]
    assert {spoken.count(pair) for pair in product(script.portraits, LANGUAGES)} == {6}


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_people_sentences_and_voices_are_of_the_split(split: Any) -> None:
    script = draw_script(identities=50, clips=60, size=64, seed=5, split=split, languages=["de", "en", "de"])
    assert {p.identity_seed < HELD_OUT_IDENTITIES for p in script.portraits} == {split == "held-out"}
    assert {split_of(clip.line.text) for clip in script.clips} == {Split(split)}
    assert {clip.line.language for clip in script.clips} == {"de", "en"}
    assert all(clip.line.voice in voices(clip.line.language, Split(split)) for clip in script.clips)


def test_every_identity_of_a_split_can_be_had() -> None:
    drawn = identity_seeds(HELD_OUT_IDENTITIES, seed=1, split=Split.HELD_OUT)
    assert sorted(drawn) == list(range(HELD_OUT_IDENTITIES))


def test_names_are_names_of_files_and_differ() -> None:
    script = draw_script(identities=20, clips=100, size=64, seed=3)
    names = [recipe.name for recipe in (*script.portraits, *script.clips)]
    assert all(map(is_valid, names))
    assert len({name.casefold() for name in names}) == 120


def test_a_name_that_leaves_the_folder_is_refused() -> None:
    for language in ("../en", "en/us", "", "e" * 128, "é"):
        with pytest.raises(ValueError, match="expected a language that can be part of a file's name"):
            replace(CLIP, line=replace(LINE, language=language or "\n"))


def test_repeated_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found repeated: full-3$"):
        Script((PERSON, replace(PERSON, size=32)), ())
    with pytest.raises(ValueError, match=r"found repeated: full-3-en-00000$"):
        Script((PERSON,), (CLIP, replace(CLIP, performance_seed=2)))


def test_a_recipe_tells_everything_that_shapes_a_clip() -> None:
    lines = [
        replace(LINE, **change)
        for change in ({"text": "x"}, {"language": "de"}, {"voice": "en"}, {"rate": 1}, {"pitch": 1})
    ]
    people = [replace(PERSON, **change) for change in ({"identity_seed": 4}, {"world": "narrow"}, {"size": 32})]
    others = [
        *(replace(CLIP, line=line) for line in lines),
        *(replace(CLIP, portrait=person) for person in people),
        replace(CLIP, performance_seed=2),
        replace(CLIP, number=1),
    ]
    assert len({clip.as_json() for clip in (CLIP, *others)}) == 11
    assert replace(CLIP).as_json() == CLIP.as_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identities": 0}, "at least one identity"),
        ({"clips": 0}, "at least one identity and one clip"),
        ({"size": 14}, "even size of at least 16"),
        ({"size": 65}, "even size of at least 16"),
        ({"languages": ["xx"]}, "expected a language out of"),
        ({"identities": 10_001, "split": "held-out"}, "at most 10000 identities of the split held-out"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_script(**{"identities": 1, "clips": 1, "size": 64, "seed": 1} | change)
