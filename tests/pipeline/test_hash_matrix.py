"""What must not change a frame: neighbours, order, workers, lost tasks, kills, resuming, and cutting into parts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.config import RunSettings
from pipeline.execute import Context, Executor, in_process
from pipeline.machines.cluster import connected
from pipeline.on_ray import on_ray
from pipeline.stages.base import Stage
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.summary import RunSummary
from pipeline.tasks import ItemTask
from tests.pipeline.test_run import with_stage
from tests.runs import demo, results, run_manifest, write_manifest
from tests.s3_server import S3Server

OpenExecutor = Callable[[Context], AbstractContextManager[Executor]]

ROWS: list[dict[str, Any]] = [
    {"id": "spoken", "image": demo("ana.png"), "audio": demo("english.wav")},
    {"id": "again", "image": demo("mei.webp"), "audio": demo("english.wav"), "seed": 5},
    {"id": "driven", "image": demo("ana.png"), "driver": demo("driver.mp4")},
]
NEIGHBOURS: list[dict[str, Any]] = [
    {"id": "neighbour", "image": demo("kofi.jpg"), "audio": demo("french.m4a"), "seed": 1},
    {"id": "broken", "image": demo("ana.png"), "audio": "nowhere.wav"},
]

SAME = ("status", "frames", "frames_sha256", "sha256", "seed")


def settings(split_seconds: float | None = None, actors: int = 1, encoders: int = 1) -> RunSettings:
    """Ten frames an item in closed segments of four, batches of three; in parts, of four and six."""
    return RunSettings.model_validate(
        {
            "model": "imtalker-tiny",
            "max_seconds": 0.4,
            "batch_size": 3,
            # Signatures differ from run to run; the bytes of unsigned files are compared, too.
            "label": "none",
            "items_in_flight": 2,
            "video": {"segment_seconds": 0.16},
            "resources": {
                "crop": {"num_cpus": 0.5},
                "features": {"threads": 1, "num_cpus": 0.5},
                "motion": {"threads": 1, "num_cpus": 0.5},
                # The thread count of a stage is part of its numerics.
                "render": {
                    "threads": 1,
                    "num_cpus": 1,
                    "actors": actors,
                    "encoders": encoders,
                    "split_seconds": split_seconds,
                },
            },
        }
    )


PARTS = 0.32


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(num_cpus=4, num_gpus=0):
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    """Each item alone, in an output of its own, in one process and in one go."""
    found = {}
    for row in ROWS:
        folder = tmp_path_factory.mktemp("alone")
        run_manifest(write_manifest(folder, [row]), folder / "out", settings())
        found |= outcome(folder / "out")
    assert {status for status, *_ in found.values()} == {"ok"}
    assert len({sha256 for _, _, sha256, *_ in found.values()}) == len(ROWS)
    return found


def outcome(output: Path) -> dict[str, tuple[Any, ...]]:
    known = {row["id"] for row in ROWS}
    return {id: tuple(row[name] for name in SAME) for id, row in results(output).items() if id in known}


def record(output: Path, id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "items" / f"{id}.json").read_text())
    return found


def parts_of(output: Path, id: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = record(output, id)["video"].get("parts", [])
    return parts


def assert_nothing_is_left(output: Path) -> None:
    assert not list((output / "cache").rglob("*.zip"))
    assert {path.stem for path in (output / "videos").iterdir()} == {
        id for id, row in results(output).items() if row["status"] == "ok"
    }


@pytest.mark.parametrize("split_seconds", [None, 0.16], ids=["whole", "parts"])
def test_neighbours_order_and_parts_change_no_frame(
    tmp_path: Path, expected: dict[str, tuple[Any, ...]], split_seconds: float | None
) -> None:
    manifest = write_manifest(tmp_path, [*NEIGHBOURS, *reversed(ROWS)])
    summary = run_manifest(manifest, tmp_path / "out", settings(split_seconds, encoders=2))
    assert (summary.ok, summary.failed) == (4, 1)
    assert outcome(tmp_path / "out") == expected
    assert summary.computed["render"] == 4, "an item counts once, in however many parts"
    for row in ROWS:
        count = {None: 0, 0.16: 3}[split_seconds]
        assert len(parts_of(tmp_path / "out", row["id"])) == count
    assert_nothing_is_left(tmp_path / "out")


class LosingParts:
    """Loses every item's second part, once or for ever, as Ray does with what an actor had in hand when it died."""

    def __init__(self, inner: Executor, for_ever: bool) -> None:
        self.inner, self.for_ever = inner, for_ever
        self.placement, self.beside = inner.placement, inner.beside

    def run(
        self, tasks: Sequence[Any], stages: Sequence[type[Stage[Any]]], *, alone: bool = False
    ) -> Generator[Any, None, None]:
        for task in self.inner.run(tasks, stages, alone=alone):
            lost = isinstance(task, ItemTask) and task.part and task.part.index == 1
            if not lost or (alone and not self.for_ever):
                yield task


@contextmanager
def losing(context: Context, *, for_ever: bool = False) -> Iterator[Executor]:
    with in_process(context) as executor:
        yield LosingParts(executor, for_ever)


def test_a_lost_part_is_tried_again_and_then_fails_its_item_once(
    tmp_path: Path, expected: dict[str, tuple[Any, ...]]
) -> None:
    manifest = write_manifest(tmp_path, ROWS)

    @contextmanager
    def for_ever(context: Context) -> Iterator[Executor]:
        with losing(context, for_ever=True) as executor:
            yield executor

    summary = run_manifest(manifest, tmp_path / "out", settings(PARTS), executor=for_ever)
    assert (summary.rows, summary.failed, summary.errors) == (3, 3, {"infrastructure": 3})
    assert {row["error_stage"] for row in results(tmp_path / "out").values()} == {"render"}
    assert not (tmp_path / "out" / "videos").exists()
    assert not list((tmp_path / "out" / "cache").rglob("*.zip"))
    # A lost part is found again when its item is tried alone.
    assert run_manifest(manifest, tmp_path / "out", settings(PARTS), executor=losing).ok == 3
    assert outcome(tmp_path / "out") == expected
    assert_nothing_is_left(tmp_path / "out")


def test_parts_travel_through_object_storage(
    tmp_path: Path, expected: dict[str, tuple[Any, ...]], s3: S3Server
) -> None:
    bucket, kept = s3.bucket(), settings(PARTS).model_copy(update={"storage_options": s3.storage_options})
    stored: list[str] = []
    put_file = Store.put_file

    def noted(store: Store, local: Path, key: str) -> None:
        stored.append(key)
        put_file(store, local, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put_file", noted)
        assert run_manifest(write_manifest(tmp_path, ROWS[:1]), f"s3://{bucket}/out", kept).ok == 1
    assert len([key for key in stored if key.startswith("cache/parts/")]) == 2, "each part is one whole object"
    keys = s3.keys(bucket)
    assert "out/videos/spoken.mp4" in keys
    assert not [key for key in keys if "/parts/" in key]
    record = json.loads(Store(f"s3://{bucket}/out", s3.storage_options).get_bytes("items/spoken.json"))
    assert (record["video"]["frames_sha256"], record["video"]["sha256"]) == expected["spoken"][2:4]


class Killed(BaseException):
    """The end of a run's process."""


class WatchedRender(RenderStage):
    """Notes what is rendered; the process ends before the fourth part."""

    rendered: ClassVar[list[tuple[str, int]]] = []
    killed_at: ClassVar[int | None] = 3

    def _render_range(self, task: ItemTask, first: int, *rest: Any) -> float:
        if len(WatchedRender.rendered) == WatchedRender.killed_at:
            raise Killed
        WatchedRender.rendered.append((task.key, first))
        return super()._render_range(task, first, *rest)


@contextmanager
def watched(context: Context) -> Iterator[Executor]:
    with in_process(context) as executor:
        yield with_stage(executor, RenderStage, WatchedRender)


def test_a_run_that_goes_on_takes_the_parts_that_are_there(
    tmp_path: Path, expected: dict[str, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest(tmp_path, ROWS)
    monkeypatch.setattr(WatchedRender, "rendered", [])
    with pytest.raises(Killed):
        run_manifest(manifest, tmp_path / "out", settings(PARTS), executor=watched)
    assert len(WatchedRender.rendered) == 3
    assert len(list((tmp_path / "out" / "cache" / "parts").iterdir())) == 1, "of the item that was in hand"
    monkeypatch.setattr(WatchedRender, "killed_at", None)
    assert run_manifest(manifest, tmp_path / "out", settings(PARTS), executor=watched).ok == 3
    assert len(WatchedRender.rendered) == len(set(WatchedRender.rendered)) == 6, "each part once in both runs"
    assert outcome(tmp_path / "out") == expected
    assert_nothing_is_left(tmp_path / "out")


class DyingRender(RenderStage):
    """Dies with its process over the first part that it is given, once in a run."""

    def process(self, task: ItemTask) -> None:
        if task.part is not None and task.part.index == 1:
            try:
                os.close(os.open(f"{self.store.root}/died", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        super().process(task)


@contextmanager
def dying(context: Context) -> Iterator[Executor]:
    with on_ray(context) as executor:
        yield with_stage(executor, RenderStage, DyingRender)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
def test_workers_and_their_deaths_change_no_frame(tmp_path: Path, expected: dict[str, tuple[Any, ...]]) -> None:
    """Two renderers on Ray share the parts; one of them is killed over a part."""
    rows = [*reversed(ROWS), NEIGHBOURS[1]]
    chosen = settings(0.16, actors=2, encoders=2)
    summary = run_manifest(write_manifest(tmp_path, rows), tmp_path / "out", chosen, executor=dying)
    assert (tmp_path / "out" / "died").exists()
    assert (summary.ok, summary.failed) == (3, 1)
    assert outcome(tmp_path / "out") == expected
    pids = {part["pid"] for row in ROWS for part in parts_of(tmp_path / "out", row["id"])}
    assert len(pids) >= 2, "any of the renderers takes any part"
    assert os.getpid() not in pids
    assert_nothing_is_left(tmp_path / "out")


def run_again_and_again(manifest: str, output: Path, chosen: RunSettings, executor: OpenExecutor) -> RunSummary:
    """One row more each time."""
    for limit in (1, 2):
        run_manifest(manifest, output, chosen, executor=executor, limit=limit)
    return run_manifest(manifest, output, chosen, executor=executor)


FULL = list(product((None, PARTS, 0.16), (1, 2, 3), (False, True), (False, True)))


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("split_seconds", "actors", "backwards", "resumed"), FULL)
def test_the_full_matrix(
    tmp_path: Path,
    expected: dict[str, tuple[Any, ...]],
    split_seconds: float | None,
    actors: int,
    backwards: bool,
    resumed: bool,
) -> None:
    rows = [*ROWS, NEIGHBOURS[0]]
    manifest = write_manifest(tmp_path, rows[::-1] if backwards else rows)
    chosen = settings(split_seconds, actors, encoders=actors)
    run = run_again_and_again if resumed else run_manifest
    summary = run(manifest, tmp_path / "out", chosen, executor=dying)
    assert summary.ok == 4
    assert outcome(tmp_path / "out") == expected
    assert_nothing_is_left(tmp_path / "out")
