"""Stages that compute several tasks together: one task's fault is nobody else's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RunSettings
from pipeline.errors import ErrorRecord, InputError
from pipeline.stages.base import COLUMN
from pipeline.stages.batched import BatchedStage
from pipeline.talker import Arrays, TalkerInfo
from pipeline.tasks import AssetTask


class Doubling(BatchedStage[AssetTask, int]):
    """Doubles the number in a task's URI."""

    name = "motion"
    task_type = AssetTask

    def __init__(self, output: Path) -> None:
        super().__init__(RunSettings(), TalkerInfo("none", 1, 64, 25, "random"), str(output), threads=1)
        self.batches: list[list[int]] = []
        self.finished: list[str] = []

    def begin(self, task: AssetTask) -> int | None:
        if task.uri == "unreadable":
            raise InputError("can't be read")
        return None if task.uri == "cached" else int(task.uri)

    def compute(self, works: Sequence[int]) -> list[Arrays]:
        self.batches.append(list(works))
        time.sleep(0.02)
        if 13 in works:
            raise RuntimeError("13 can't be doubled")
        return [{"value": np.array(2 * work)} for work in works]

    def end(self, task: AssetTask, work: int, found: Arrays) -> None:
        if work == 99:
            raise OSError("no room for 99")
        task.facts["value"] = int(found["value"])

    def finish(self, task: AssetTask) -> None:
        self.finished.append(task.key)


@pytest.fixture
def stage(tmp_path: Path) -> Doubling:
    return Doubling(tmp_path)


def tasks(*uris: str) -> list[AssetTask]:
    return [AssetTask(key=f"task {i}", kind="audio", uri=uri) for i, uri in enumerate(uris)]


def test_all_are_computed_in_one_batch_and_come_back_in_order(stage: Doubling) -> None:
    done = stage.run_all(tasks("1", "cached", "2", "3"))
    assert stage.batches == [[1, 2, 3]]
    assert [task.facts.get("value") for task in done] == [2, None, 4, 6]
    assert stage.finished == ["task 0", "task 1", "task 2", "task 3"]


def test_each_failure_stays_with_its_task(stage: Doubling) -> None:
    given = tasks("1", "unreadable", "13", "99", "4")
    given.append(AssetTask(key="old", kind="audio", uri="5", error=ErrorRecord("input", "crop", "no face", "")))
    done = stage.run_all(given)
    assert [task.facts.get("value") for task in done] == [2, None, None, None, 8, None]
    errors = {task.key: (task.error.kind, task.error.stage) for task in done if task.error}
    assert errors["task 1"] == ("input", "motion")
    assert errors["task 2"][1] == errors["task 3"][1] == "motion"
    assert "13 can't be doubled" in done[2].error.message
    assert errors["old"] == ("input", "crop")
    assert len(errors) == 4
    # Once together, then each alone, to see whose fault it was.
    assert stage.batches == [[1, 13, 99, 4], [1], [13], [99], [4]]
    assert stage.finished == [task.key for task in given]


def test_the_time_of_a_batch_is_shared_out(stage: Doubling) -> None:
    started = time.perf_counter()
    done = stage.run_all(tasks("1", "2", "3", "4", "cached"))
    elapsed = time.perf_counter() - started
    seconds = [task.seconds["motion"] for task in done]
    assert min(seconds[:4]) >= 0.02 / 4
    assert sum(seconds) <= elapsed + 0.001, "nobody is charged for the whole batch"


def test_a_task_alone_takes_the_same_way(stage: Doubling) -> None:
    assert stage.run(tasks("21")[0]).facts["value"] == 42
    assert stage.run(tasks("13")[0]).error is not None


def test_nothing_to_compute_computes_nothing(stage: Doubling) -> None:
    stage.run_all(tasks("cached", "unreadable", "cached"))
    assert stage.batches == []


def test_rays_batches_are_batches(stage: Doubling) -> None:
    rows = [task.model_dump_json() for task in tasks("7", "8")]
    back = stage({COLUMN: rows})[COLUMN]
    assert [AssetTask.model_validate_json(row).facts["value"] for row in back] == [14, 16]
    assert stage.batches == [[7, 8]]
