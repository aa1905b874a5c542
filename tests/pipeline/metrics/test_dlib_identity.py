"""Which frames are looked at, and what is made of the distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InputLimits
from pipeline.media.image import load_image
from pipeline.metrics.catalogue import Level
from pipeline.metrics.dlib_identity import DlibMeter, dlib_descriptor

DEMO = Path(__file__).parents[3] / "manifests" / "demo"


def looks(frames: int, level: Level, person: dict[int, float | None]) -> tuple[DlibMeter, list[int]]:
    """A meter that has seen a clip whose frames are grey levels 0, 1, ...: at a distance of 0.3, or ``person``'s."""
    seen: list[int] = []

    def describe(picture: np.ndarray) -> np.ndarray | None:
        index = int(picture[0, 0, 0]) + 256 * int(picture[0, 0, 1])
        seen.append(index)
        distance = person.get(index, 0.3)
        return None if distance is None else np.array([0.5 + distance, 0.5])

    meter = DlibMeter(describe, np.array([0.5, 0.5]), frames, level)
    clip = np.zeros((frames, 2, 2, 3), np.uint8)
    clip[..., 0], clip[..., 1] = (part[:, None, None] for part in (np.arange(frames) % 256, np.arange(frames) // 256))
    for start in range(0, frames, 7):
        meter.add(clip[start : start + 7])
    return meter, seen


@pytest.mark.parametrize(
    ("frames", "level", "expected"),
    [(1, "basic", [0]), (60, "basic", [30]), (600, "basic", [125, 375]), (60, "full", [12, 37]), (9, "full", [4])],
)
def test_every_item_is_looked_at_and_long_ones_more_often(frames: int, level: Level, expected: list[int]) -> None:
    meter, seen = looks(frames, level, {})
    assert seen == expected
    assert meter.values(None)["dlib_distance"] == pytest.approx(0.3)


def test_mean_and_worst_are_of_the_faces_that_were_found() -> None:
    found = looks(100, "full", {12: 0.1, 37: None, 62: 0.8})[0].values(None)
    assert found["dlib_distance"] == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert found["dlib_distance_worst"] == pytest.approx(0.8)
    assert found["dlib_faces_missed"] == 1


def test_without_any_face_only_that_is_told() -> None:
    assert looks(40, "basic", {20: None})[0].values(None) == {"dlib_faces_missed": 1}


def test_the_real_network_tells_two_people_apart() -> None:
    pytest.importorskip("face_recognition_models", reason="the extra identity is not installed")
    describe = dlib_descriptor()
    assert describe is not None
    ana, mei = (load_image(DEMO / name, InputLimits()) for name in ("ana.png", "mei.webp"))
    of_ana, of_mei, of_ana_darker = (describe(picture) for picture in (ana, mei, ana // 4 * 3))
    assert of_ana is not None and of_mei is not None and of_ana_darker is not None
    assert np.linalg.norm(of_ana - of_ana_darker) < 0.5 * np.linalg.norm(of_ana - of_mei)
    assert describe(np.full((256, 256, 3), 90, np.uint8)) is None
