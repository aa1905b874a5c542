"""Which items come first, and the reasons given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.report.columns import Column
from pipeline.report.worst import Ranking
from tests.pipeline.report.outputs import failed_row, ok_row, source_of

SHARPNESS = Column("sharpness", "quality")


def test_worst_first_with_every_reason_and_nothing_of_items_that_failed(tmp_path: Path) -> None:
    rows = [ok_row(f"i{n}") for n in range(40)]
    rows[3]["flags"] = ["frozen"]
    rows[5]["flags"] = ["lips_not_from_audio"]
    rows[7] |= {"attempts": 3}
    rows[9] = failed_row("i9", flags=["frozen"])
    values = np.linspace(0.9, 1.1, 40)
    values[11], values[9] = 90.0, 90.0
    values[3] = -0.5
    ranking = Ranking(source_of(tmp_path, rows), [(SHARPNESS, values)])
    worst = ranking.worst(10)
    assert [one.row for one in worst] == [3, 11, 7]
    assert worst[0].reasons[0].startswith("sharpness -0.5: ")
    assert worst[0].reasons[1] == "flag frozen"
    assert "above the median 1" in worst[1].reasons[0]
    assert worst[2].reasons == ["tried again 2 times"]
    assert worst[1].points == 20
    assert ranking.suspects == 3


def test_speed_and_a_users_numbers_are_no_reason(tmp_path: Path) -> None:
    rows = [ok_row(f"i{n}") for n in range(20)]
    values = np.array([1.0 + n / 100 for n in range(19)] + [900.0])
    columns = [(Column("render_s", "speed"), values), (Column("rating", "yours"), values)]
    assert Ranking(source_of(tmp_path, rows), columns).worst(10) == []
