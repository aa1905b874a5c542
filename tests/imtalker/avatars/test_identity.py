"""Identities are functions of their seed."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from imtalker.avatars import draw_identity
from imtalker.avatars.identity import BACKGROUNDS, CLOTHES, FACIAL_HAIR, GLASSES, HAIR_STYLES


def test_a_seed_gives_one_identity() -> None:
    assert draw_identity(7) == draw_identity(7)
    assert draw_identity(7) != draw_identity(8)
    assert draw_identity(7, "narrow") == draw_identity(7, "narrow")


def test_draws_are_the_same_on_every_machine() -> None:
    identity = draw_identity(2024)
    assert (identity.hair_style, identity.clothes, identity.background) == (9, 4, 4)
    assert identity.eye_size == pytest.approx(0.1304050810170351, abs=1e-12)


def test_the_full_world_has_every_kind() -> None:
    people = [asdict(draw_identity(seed)) for seed in range(400)]
    for field, names in {
        "hair_style": HAIR_STYLES,
        "glasses": GLASSES,
        "facial_hair": FACIAL_HAIR,
        "clothes": CLOTHES,
        "background": BACKGROUNDS,
    }.items():
        assert {person[field] for person in people} == set(range(len(names)))


def test_the_narrow_world_is_plain() -> None:
    people = [draw_identity(seed, "narrow") for seed in range(100)]
    assert len({p.hair_style for p in people}) == 3
    assert {(p.glasses, p.facial_hair, p.background, p.clothes) for p in people} == {(0, 0, 0, 0)}
    assert len({p.skin for p in people}) == 100


def test_colours_are_colours() -> None:
    for seed in range(50):
        colours = [value for value in asdict(draw_identity(seed)).values() if isinstance(value, tuple)]
        assert len(colours) == 9
        assert all(0 <= channel <= 1 for colour in colours for channel in colour)


def test_an_unknown_world_is_refused() -> None:
    with pytest.raises(ValueError, match="one of full, narrow, found 'wide'"):
        draw_identity(1, "wide")  # type: ignore[arg-type]
