"""One frame of each video, whatever the videos are like."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.report.pictures import take_pictures
from pipeline.report.source import read_source
from tests.pipeline.report.outputs import BLUE, failed_row, ok_row, write_output


def test_a_picture_is_the_middle_of_the_video_and_small(tmp_path: Path) -> None:
    write_output(tmp_path, [failed_row("bad"), ok_row("good")], videos=True)
    found = take_pictures(read_source(str(tmp_path)), [1, 0, 1], 60)
    assert (found.asked, list(found.by_row), found.failed) == (1, [1], {})
    kind, _, data = found.by_row[1].partition(",")
    assert kind == "data:image/jpeg;base64"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert image.shape == (48, 64, 3)
    assert np.abs(image.mean(axis=(0, 1)) - BLUE).max() < 25


def test_videos_that_are_broken_or_gone_fail_alone(tmp_path: Path) -> None:
    write_output(tmp_path, [ok_row("good"), ok_row("broken"), ok_row("gone")], videos=True)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"\0" * 4000)
    (tmp_path / "videos" / "gone.mp4").unlink()
    found = take_pictures(read_source(str(tmp_path)), [1, 2, 0], 60)
    assert list(found.by_row) == [0]
    assert set(found.failed) == {1, 2}
    assert found.out_of_time == 0


def test_without_time_there_are_no_pictures_and_no_error(tmp_path: Path) -> None:
    write_output(tmp_path, [ok_row("a"), ok_row("b")], videos=True)
    found = take_pictures(read_source(str(tmp_path)), [0, 1], 0.0)
    assert (found.by_row, found.failed, found.out_of_time) == ({}, {}, 2)
