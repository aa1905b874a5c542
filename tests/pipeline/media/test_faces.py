from __future__ import annotations

import sys

import numpy as np
import pytest

from pipeline.errors import CannotRun, InputError
from pipeline.media.crop_box import crop_around
from pipeline.media.faces import DlibDetector, Face, FaceDetector, choose_face, load_detector
from tests.media_files import face_picture, smooth_picture


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return load_detector("dlib")


@pytest.mark.parametrize(
    ("size", "height", "centre"),
    [(256, 0.6, (0.5, 0.5)), (512, 0.5, (0.4, 0.55)), (128, 0.6, (0.5, 0.5)), (512, 0.12, (0.7, 0.7))],
)
def test_a_box_spans_the_face_from_cheek_to_cheek_and_to_the_chin(
    detector: FaceDetector, size: int, height: float, centre: tuple[float, float]
) -> None:
    (face,) = detector.detect(face_picture(size, height, centre))
    tall = height * size
    x, y = centre[0] * size, centre[1] * size
    # Within 15% of the face's height, the largest residual of the calibration.
    cheeks, hairline, chin = 0.365 * tall, 0.45 * tall, 0.5 * tall
    assert face.box == pytest.approx((x - cheeks, y - hairline, x + cheeks, y + chin), abs=0.15 * tall)


def test_the_published_crop_frames_the_head_with_a_margin(detector: FaceDetector) -> None:
    picture = face_picture(512, 0.3, (0.5, 0.5))
    crop = crop_around(detector.detect(picture)[0].box, (512, 512), "audio")
    x0, y0, x1, y1 = crop.valid
    assert crop.width == crop.height
    # Hair (its top is 0.62 of the face's height above the middle), ears and chin are inside.
    assert y0 < 256 - 0.62 * 0.3 * 512 and y1 > 256 + 0.5 * 0.3 * 512
    assert x0 < 256 - 0.43 * 0.3 * 512 and x1 > 256 + 0.43 * 0.3 * 512


def test_a_mirrored_picture_gives_the_mirrored_box(detector: FaceDetector) -> None:
    picture = face_picture(256, 0.5, (0.4, 0.55))
    (face,), (mirrored,) = detector.detect(picture), detector.detect(np.ascontiguousarray(picture[:, ::-1]))
    x1, y1, x2, y2 = face.box
    assert mirrored.box == pytest.approx((256 - x2, y1, 256 - x1, y2), abs=4)


def test_two_faces_are_both_seen_and_the_larger_is_chosen(detector: FaceDetector) -> None:
    picture = np.concatenate([face_picture(256, 0.4), face_picture(256, 0.7)], axis=1)
    faces = detector.detect(picture)
    assert len(faces) == 2
    assert faces[0].score >= faces[1].score
    x1, _, x2, _ = choose_face(faces, "largest").box
    assert 256 < x1 < x2 < 512


def test_a_small_face_is_found_where_there_is_no_large_one(detector: FaceDetector) -> None:
    picture = face_picture(900, 0.09, (0.25, 0.3))
    assert detector.detect(picture, small=False) == []
    (face,) = detector.detect(picture)
    assert sum(face.box[::2]) / 2 == pytest.approx(225, abs=15)


@pytest.mark.parametrize("shape", [(64, 48), (480, 640), (1, 300), (3, 3)])
def test_pictures_without_a_face_give_none(detector: FaceDetector, shape: tuple[int, int]) -> None:
    assert detector.detect(smooth_picture(0, shape[1], shape[0]), small=False) == []


def test_detection_is_repeatable(detector: FaceDetector) -> None:
    picture = face_picture(200)
    assert detector.detect(picture) == detector.detect(picture) == DlibDetector().detect(picture)


def test_choose_face_takes_the_largest_or_the_surest() -> None:
    sure, large = Face((0, 0, 10, 10), 2.0), Face((0, 0, 30, 30), 1.0)
    assert choose_face([sure, large], "largest") is large
    assert choose_face([sure, large], "first") is sure


@pytest.mark.parametrize("which", ["largest", "first"])
def test_no_face_is_an_input_error_that_says_what_to_do(which: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_face([], which)  # type: ignore[arg-type]
    assert "crop=false" in caught.value.hint


def test_a_missing_s3fd_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "face_alignment", None)  # as on a machine without the extra
    with pytest.raises(CannotRun, match=r"face-alignment.*imtalker\[s3fd\].*detector=dlib"):
        load_detector("s3fd")
