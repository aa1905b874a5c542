"""Busy and waiting workers over time, from intervals that are known."""

from __future__ import annotations

import json

import pytest

from pipeline.accounting.timeline import Timeline, timeline


def test_busy_and_waiting_are_what_the_intervals_say() -> None:
    found = timeline(
        {
            ("crop", "n", 1): [0, 10, 15, 20],
            # Two items in hand at once are one busy worker.
            ("render", "n", 2): [20, 40, 30, 50],
            ("render", "n", 3): [20, 80],
        }
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


def test_workers_of_the_same_number_on_two_machines_are_two() -> None:
    found = timeline({("motion", "a", 1): [0, 4], ("motion", "b", 1): [0, 4, 6, 8]})
    assert found is not None
    assert (found.stages[0].workers, found.stages[0].busy_s, found.stages[0].waiting_s) == (2, 10, 2)


def test_it_is_the_same_after_a_way_through_json() -> None:
    found = timeline({("crop", "n", 1): [1, 2]})
    assert found is not None
    assert Timeline.of_dict(json.loads(json.dumps(found.as_dict()))) == found
    assert timeline({}) is None
