"""Claims: a task whose worker dies is tried once more, alone; a run that dies over it doesn't start with it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.execute import through
from pipeline.locks.claims import FOLDER, Claims, claim
from pipeline.machines.resources import Placement
from pipeline.stages.base import Stage
from pipeline.stages.features import FeaturesStage
from pipeline.storage import Store
from pipeline.tasks import AssetTask
from tests.counted_store import CountedStore


class Workers:
    """An executor whose workers die of some tasks, and take with them what they had in hand; or all of the run."""

    placement: Placement = {}  # noqa: RUF012  (the protocol's)

    def __init__(self, store: Store, poison: set[str], *, dies_alone: Callable[[], None] = lambda: None) -> None:
        self.store, self.poison, self.dies_alone = store, poison, dies_alone
        self.tried: list[tuple[str, bool]] = []

    def run(
        self, tasks: Sequence[Any], stages: Sequence[type[Stage[Any]]], *, alone: bool = False
    ) -> Generator[Any, None, None]:
        self.tried += [(task.key, alone) for task in tasks]
        if alone:
            for task in tasks:
                claim(self.store, task, "render")
                if task.key not in self.poison:
                    yield task
                else:
                    self.dies_alone()
        elif self.poison.isdisjoint(task.key for task in tasks):
            yield from tasks
        else:
            yield tasks[0]


def tasks(*keys: str) -> list[AssetTask]:
    return [AssetTask(key=key, kind="portrait", uri="") for key in keys]


def send(
    store: Store, workers: Workers, *keys: str, say: Callable[[str], None] = lambda text: None
) -> tuple[list[str], list[str]]:
    """Keys that came back, and keys that got lost for good and were recorded."""
    claims, back = Claims(store, "item"), list[str]()
    gone = [
        task.key
        for task in through(tasks(*keys), [FeaturesStage], workers, lambda task: back.append(task.key), claims, say)
    ]
    for key in gone:
        claims.release(key)
    return back, gone


def test_a_poisonous_task_is_tried_twice_and_takes_nobody_with_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path), {})
    workers, said = Workers(store, {"b"}), list[str]()
    assert send(store, workers, "a", "b", "c", say=said.append) == (["a", "c"], ["b"])
    assert said == ["2 were lost with their workers, and are tried again, each by itself"]
    assert workers.tried == [("a", False), ("b", False), ("c", False), ("b", True), ("c", True)]
    assert store.list(FOLDER) == set(), "nothing is left of it"


def test_an_attempt_that_died_with_its_worker_is_counted(tmp_path: Path) -> None:
    store, back = Store(str(tmp_path), {}), list[AssetTask]()
    workers = Workers(store, {"b"})
    gone = through(tasks("a", "b", "c"), [FeaturesStage], workers, back.append, Claims(store, "item"), print)
    counted = {task.key: {stage: retries.count for stage, retries in task.retries.items()} for task in [*back, *gone]}
    assert counted == {"a": {}, "b": {"features": 1}, "c": {"features": 1}}
    assert "worker died" in gone[0].retries["features"].message


def test_a_healthy_run_stores_no_claim(tmp_path: Path) -> None:
    store = CountedStore(str(tmp_path))
    assert send(store, Workers(store, set()), *"abcdefgh")[0] == list("abcdefgh")
    assert dict(store.calls) == {"list": 1}


def test_a_task_that_the_run_died_over_fails_at_its_third_claim(tmp_path: Path) -> None:
    store = Store(str(tmp_path), {})

    class MachineGoneError(Exception):
        pass

    def die() -> None:
        raise MachineGoneError

    with pytest.raises(MachineGoneError):
        send(store, Workers(store, {"b"}, dies_alone=die), "a", "b", "c")
    assert Claims(store, "item").left() == {"b"}, "nobody had begun with its neighbour"
    assert Claims(store, "asset").left() == set()

    restarted = Workers(store, {"b"}, dies_alone=die)
    assert send(store, restarted, "b", "c") == (["c"], ["b"])
    assert ("b", True) not in restarted.tried and ("b", False) not in restarted.tried
    # It has a record now; a run that is told to makes it again.
    assert send(store, Workers(store, set()), "b") == (["b"], [])


def test_a_claim_says_where_and_when_it_was_made(tmp_path: Path) -> None:
    store = Store(str(tmp_path), {})
    (task,) = Claims(store, "item").marked(tasks("x.y-1"))
    claim(store, task, "render")
    assert json.loads(store.get_bytes(f"{FOLDER}/item-x.y-1.json"))["stage"] == "render"
    assert Claims(store, "item").left() == {"x.y-1"}
    Claims(store, "item").release("x.y-1")
    assert Claims(store, "item").left() == set()
