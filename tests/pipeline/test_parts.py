"""Cutting a long item into parts, and what comes of the parts that come back."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import pytest

from pipeline.config import RenderResources, Resources, RunSettings, VideoSettings
from pipeline.errors import ErrorRecord
from pipeline.machines.resources import Placement, Pool
from pipeline.parts import Joining, gathered, part_ranges, split
from pipeline.retry import Retries
from pipeline.stages.base import Stage
from pipeline.stages.join import JoinStage
from pipeline.stages.render import RenderStage
from pipeline.tasks import AssetTask, ItemTask, Worker

FPS = 25


def settings(split_seconds: float | None) -> RunSettings:
    return RunSettings(
        video=VideoSettings(segment_seconds=0.4),
        resources=Resources(render=RenderResources(split_seconds=split_seconds)),
    )


def item(frames: int | None, key: str = "long") -> ItemTask:
    portrait = AssetTask(key="portrait", kind="portrait", uri="a.png")
    task = ItemTask(key=key, index=0, mode="audio", portrait=portrait, cfg_scale=3.0, nfe=10, request="r")
    task.frames = frames
    task.seconds = {"motion": 2.0}
    return task


@pytest.mark.parametrize("frames", [1, 250, 251, 7500, 7501, 89_999, 90_000])
@pytest.mark.parametrize("most", [100, 250, 400, 7500])
@pytest.mark.parametrize("segment", [250, 75])
def test_parts_are_whole_segments_that_cover_the_item(frames: int, most: int, segment: int) -> None:
    ranges = part_ranges(frames, most, segment)
    assert [first for first, _ in ranges] == [0, *(first + count for first, count in ranges[:-1])]
    assert sum(count for _, count in ranges) == frames
    assert all(first % segment == 0 for first, _ in ranges)
    assert all(0 < count <= max(most, segment) for _, count in ranges)
    # As equal as segments allow, but for what the last one is short of.
    segments = [-(-count // segment) for _, count in ranges]
    assert max(segments) - min(segments) <= 1
    assert len(ranges) == ceil(ceil(frames / segment) / max(most // segment, 1)), "no more than it takes"


def test_short_failed_and_undivided_items_go_on_whole() -> None:
    failed = item(1000)
    failed.error = ErrorRecord("model", "motion", "no", "")
    for task, seconds in ((item(20), 0.8), (item(1000), None), (failed, 0.8), (item(None), 0.8), (item(9), 0.01)):
        (same,) = split(task, settings(seconds), FPS)
        assert same is task
    assert RunSettings().resources.render.split_seconds == 300, "an item of five minutes is not divided"


def test_a_long_item_goes_on_in_parts_that_share_nothing() -> None:
    tasks = split(item(55), settings(0.8), FPS)
    parts = [task.part for task in tasks if task.part]
    assert [(part.index, part.count, part.first, part.frames) for part in parts] == [
        (0, 3, 0, 20),
        (1, 3, 20, 20),
        (2, 3, 40, 15),
    ]
    tasks[0].seconds["render"] = 1.0
    assert tasks[1].seconds == {"motion": 2.0}


def rendered(key: str = "long", seconds: float = 0.8) -> list[ItemTask]:
    tasks = split(item(55, key), settings(seconds), FPS)
    for task in tasks:
        assert task.part is not None
        task.part.key = f"cache/parts/{task.part.index}.zip"
        task.seconds["render"] = 1.0 + task.part.index
        moment = 100.0 - task.part.index
        task.workers["render"] = Worker(pid=task.part.index, node="n", gpus="", started_at=moment, ended_at=moment + 1)
    return tasks


def test_what_the_parts_took_is_added_up() -> None:
    tasks = rendered()
    tasks[1].flag("smaller_batches")
    tasks[2].retries["render"] = Retries(count=2, first=5.0, last=6.0, message="busy")
    tasks[0].retries["render"] = Retries(count=1, first=4.0, last=4.0, message="slow")
    whole = gathered([tasks[2], tasks[0], tasks[1]])
    assert (whole.key, whole.part, whole.error) == ("long", None, None)
    assert [part.key for part in whole.parts] == [f"cache/parts/{i}.zip" for i in range(3)]
    assert [part.worker.pid for part in whole.parts if part.worker] == [0, 1, 2]
    assert whole.seconds == {"motion": 2.0, "render": 6.0}
    assert whole.workers["render"].started_at == 98.0
    assert whole.flags == ["smaller_batches"]
    assert whole.retries["render"] == Retries(count=3, first=4.0, last=6.0, message="busy")


def test_an_item_fails_with_its_first_part_that_did() -> None:
    tasks = rendered()
    for index in (2, 1):
        tasks[index].error = ErrorRecord("model", "render", f"part {index}", "")
    whole = gathered(tasks)
    assert whole.error is not None and whole.error.message == "part 1"
    assert whole.workers["render"].pid == 1, "the worker that it failed on"


@dataclass
class Joined:
    """A joining that is done when somebody waits for it."""

    task: ItemTask
    dies: bool
    waited: bool = False

    def done(self) -> bool:
        return self.waited

    def wait(self) -> None:
        self.waited = True

    def result(self) -> ItemTask | None:
        return None if self.dies else self.task


@dataclass
class Rows:
    """An executor that gives what it was made with."""

    rows: list[ItemTask]
    dying: str = ""
    joins: list[Joined] = field(default_factory=list)
    most: int = 0
    placement: Placement = field(default_factory=lambda: {"render": Pool(2, 1, 0, 1)})

    def run(self, tasks: Any, stages: Any, *, alone: bool = False) -> Generator[Any, None, None]:
        yield from self.rows

    def beside(self, stage: type[Stage[Any]], task: Any, *, alone: bool = False) -> Any:
        assert stage is JoinStage
        self.joins.append(Joined(task, task.key == self.dying))
        self.most = max(self.most, sum(not join.waited for join in self.joins))
        return self.joins[-1]


def joined(inner: Rows) -> tuple[list[str], list[ItemTask]]:
    heard: list[ItemTask] = []
    stages: Sequence[type[Stage[ItemTask]]] = (RenderStage,)
    found = [task.key for task in Joining(inner, JoinStage, heard.append).run([], stages)]
    return found, heard


def test_items_come_out_once_when_all_their_parts_are_back() -> None:
    parts = [task for key in ("a", "b", "c", "d") for task in rendered(key)]
    found, heard = joined(Rows([*parts[1:], item(5, "short"), parts[0]]))
    assert sorted(found) == ["a", "b", "c", "d", "short"]
    assert found[0] == "short", "others don't wait for it"
    assert len(heard) == 12


def test_as_many_items_are_joined_at_a_time_as_there_are_renderers() -> None:
    inner = Rows([task for key in "abcdef" for task in rendered(key)])
    found, _ = joined(inner)
    assert sorted(found) == list("abcdef")
    assert inner.most == 2


def test_an_item_that_misses_a_part_or_whose_joining_was_lost_does_not_come_out() -> None:
    inner = Rows([*rendered("a")[1:], *rendered("b"), *rendered("c")], dying="b")
    found, _ = joined(inner)
    assert found == ["c"]
    assert [join.task.key for join in inner.joins] == ["b", "c"]
