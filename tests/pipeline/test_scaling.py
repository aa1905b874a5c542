"""The simulation of more GPUs: its arithmetic, and who makes what on a real Ray."""

from __future__ import annotations

import pytest

from pipeline.bench.scaling import ITEMS, RENDERERS, measure_scaling, scaling, work_of
from pipeline.tasks import AssetTask, Worker


def task(key: str, pid: int, began: float, ended: float) -> AssetTask:
    worker = Worker(pid=pid, node="n", gpus="0")
    facts = {"work_s": ended - began, "span": (began, ended)}
    return AssetTask(key=key, kind="audio", uri="", facts=facts, workers={"render": worker})


def test_two_renderers_without_a_gap_are_twice_as_fast() -> None:
    found = scaling(2, [task("a", 1, 0, 10), task("b", 2, 0, 6), task("c", 2, 6, 10)])
    assert (found.work_s, found.makespan_s, found.of_linear, found.shares) == (20, 10, 1.0, (2, 1))
    row = found.row()
    assert (row.name, row.rate, row.ratio) == ("scaling, 2 renderers", 2.0, 1.0)


def test_a_renderer_that_stands_still_shows() -> None:
    assert scaling(2, [task("a", 1, 0, 10), task("b", 2, 5, 10)]).of_linear == 0.75
    assert scaling(4, [task("a", 1, 0, 10)]).of_linear == 0.25


def test_the_work_is_what_was_asked_for_longest_first() -> None:
    works = work_of(160, 24.0)
    assert sum(works) == pytest.approx(24.0)
    assert works == sorted(works, reverse=True)
    assert works[0] / works[-1] == pytest.approx(5)
    assert works[0] == pytest.approx(24 / 160 * 5 / 3)


@pytest.mark.long
@pytest.mark.parametrize("renderers", RENDERERS)
def test_every_renderer_gets_its_part(renderers: int) -> None:
    found = measure_scaling(renderers)
    assert sum(found.shares) == ITEMS
    assert len(found.shares) == renderers
    assert min(found.shares) >= 0.8 * ITEMS / renderers
