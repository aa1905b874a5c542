"""Which columns are numbers to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.report.columns import VIDEO_RATE, Column, numeric_columns
from tests.pipeline.report.outputs import ok_row, source_of


def test_every_column_of_numbers_is_found_and_what_was_asked_for_is_not(tmp_path: Path) -> None:
    rows = [ok_row("a", seed=1, nfe=10, render_s=1.5), ok_row("b", seed=2, nfe=10, render_s=2.5)]
    mine = {"rating": [1.0, float("nan")], "words": ["x", "y"], "empty": [None, None], "whole": [3, None]}
    found = dict(numeric_columns(source_of(tmp_path, rows, mine)))
    names = {column.name: column.group for column in found}
    assert names == {
        "duration_s": "files",
        "size_bytes": "files",
        VIDEO_RATE: "files",
        "attempts": "files",
        "render_s": "speed",
        "rating": "yours",
        "whole": "yours",
    }
    values = {column.name: value for column, value in found.items()}
    assert values[VIDEO_RATE].tolist() == [200.0, 200.0]
    assert np.isnan(values["whole"]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "unit", "better"),
    [
        ("render_s", "s", None),
        (VIDEO_RATE, "kbit/s", None),
        ("size_bytes", "bytes", None),
        ("psnr_db", "dB", "higher"),
        ("identity_distance", "", "lower"),
        ("lag_frames", "frames", None),
        ("flicker", "grey levels", "lower"),
        ("lip_lag_frames", "frames", None),
        ("lip_range", "face heights", "higher"),
    ],
)
def test_units_and_directions_are_the_catalogues_or_follow_from_names(name: str, unit: str, better: str | None) -> None:
    column = Column(name, "quality")
    assert (column.unit, column.better) == (unit, better)
