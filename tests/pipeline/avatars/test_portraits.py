from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from imtalker.avatars import draw_identity, render
from pipeline.avatars.portraits import draw_portrait, portrait_recipe, portrait_state, save_portrait
from tests.pipeline.avatars.recorded import PEOPLE, SIZE


def test_the_file_holds_the_picture_and_its_recipe(tmp_path: Path) -> None:
    for person in PEOPLE:
        save_portrait(tmp_path / "a", person)
        with Image.open(tmp_path / "a") as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))
            pixels = np.array(image)
        identity = draw_identity(person.identity_seed, person.world)
        exact = render(identity, portrait_state(person.identity_seed), SIZE, device="cpu").image[0].permute(1, 2, 0)
        assert np.abs(pixels / 255 - exact.numpy()).max() <= 0.5 / 255 + 1e-5
        assert portrait_recipe(tmp_path / "a") == person.as_json()


def test_people_differ_in_looks_and_pose() -> None:
    one, other = draw_portrait(PEOPLE[0]), draw_portrait(replace(PEOPLE[0], identity_seed=4))
    assert np.abs(one.astype(int) - other).mean() > 5
    assert not portrait_state(3).values.equal(portrait_state(4).values)


def test_portraits_are_nearly_frontal_with_open_eyes() -> None:
    for seed in range(50):
        state = portrait_state(seed)
        assert max(abs(float(state[name])) for name in ("yaw", "pitch", "roll")) <= 0.16
        assert float(state["blink"]) == float(state["mouth_open"]) == 0


def test_other_files_have_no_recipe(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    for name in ("plain.png", "broken.png", "none.png"):
        assert portrait_recipe(tmp_path / name) is None
