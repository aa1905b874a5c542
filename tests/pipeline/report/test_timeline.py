"""Busy and waiting workers over time, from intervals that are known."""

from __future__ import annotations

import pytest

from pipeline.report.timeline import timeline
from tests.pipeline.report.outputs import record


def test_busy_and_waiting_are_what_the_intervals_say() -> None:
    found = timeline(
        [
            record("a", {"crop": (1, 0, 10), "render": (2, 20, 40)}),
            record("b", {"crop": (1, 15, 20), "render": (3, 20, 80)}),
            # Two items in hand at once are one busy worker.
            record("c", {"render": (2, 30, 50)}),
        ]
    )
    assert found is not None
    crop, render = found.stages
    assert (found.started, found.seconds) == (0, 80)
    assert (crop.stage, crop.workers, crop.busy_s, crop.waiting_s) == ("crop", 1, 15, 5)
    assert (render.workers, render.busy_s, render.waiting_s) == (2, 90, 0)
    width = found.edges[1]
    assert sum(crop.busy) * width == pytest.approx(15, rel=1e-3)
    assert crop.busy[:10] == [1.0] * 10
    assert crop.waiting[10:15] == [1.0] * 5
    assert (render.busy[19], render.busy[25], render.busy[60]) == (0.0, 2.0, 1.0)


def test_a_file_that_many_items_share_counts_once() -> None:
    found = timeline([record(str(n), {"crop": (1, 5, 8)}) for n in range(9)])
    assert found is not None
    assert found.stages[0].busy_s == 3


def test_only_the_last_run_counts_and_copies_do_not() -> None:
    found = timeline(
        [
            record("new", {"render": (1, 1000, 1001)}, fence=4),
            record("old", {"render": (1, 0, 1)}, fence=3),
            record("copy", {"render": (1, 5, 6)}, fence=5, copied_from="old"),
        ]
    )
    assert found is not None
    assert (found.started, found.seconds) == (1000, 1)
    assert timeline([record("nothing", {})]) is None
