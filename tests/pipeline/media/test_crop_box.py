from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.media.crop_box import CropBox, CropRule, crop_around, crop_box, cut
from tests.media_files import smooth_picture

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "imtalker" / "crop_rules.json").read_text()
)


@pytest.mark.parametrize("rule", ["audio", "video", "app"])
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_published_crops_are_reproduced(case: dict[str, Any], rule: CropRule) -> None:
    size = (case["image_width"], case["image_height"])
    boxes = [tuple(box) for box in case["boxes"]]
    expected = case[f"{rule}_rule"]
    if expected == "error: no face":
        with pytest.raises(InputError, match="expected a face"):
            crop_box(boxes, size, rule)
    elif expected == "resize whole picture":
        assert crop_box(boxes, size, rule) == CropBox(0, 0, *size, size)
    else:
        crop = crop_box(boxes, size, rule)
        assert (crop.x0, crop.y0, crop.width, crop.height) == tuple(
            expected[k] for k in ("x0", "y0", "width", "height")
        )
        assert crop.valid == tuple(expected["valid"][k] for k in ("x0", "y0", "x1", "y1"))


def test_there_are_fifteen_published_cases() -> None:
    assert len(CASES) == 15


def test_the_error_without_a_face_says_what_to_do() -> None:
    with pytest.raises(InputError) as caught:
        crop_box([], (640, 480), "audio")
    assert "crop=false" in caught.value.hint


@pytest.mark.parametrize("rule", ["audio", "video", "app"])
def test_a_box_outside_the_picture_is_an_input_error(rule: CropRule) -> None:
    if rule == "app":  # shifts the square inside
        assert crop_around((1000, 1000, 1100, 1100), (640, 480), rule).width == 160
    else:
        with pytest.raises(InputError, match="inside the 640x480 picture"):
            crop_around((1000, 1000, 1100, 1100), (640, 480), rule)


def test_cut_takes_the_pixels_of_the_box() -> None:
    picture = smooth_picture(0)
    assert np.array_equal(cut(picture, CropBox(5, 7, 20, 30, (64, 48))), picture[7:37, 5:25])


def test_cut_is_black_outside_the_picture() -> None:
    picture = np.full((48, 64, 3), 200, np.uint8)
    out = cut(picture, CropBox(-10, 40, 30, 30, (64, 48)))
    assert out.shape == (30, 30, 3)
    assert (out[:8, 10:] == 200).all()
    assert out.sum() == 200 * 8 * 20 * 3
