"""The same run on a real Ray: worker processes, pinned GPUs, and a worker that is killed."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.data.block import BlockStats

from pipeline.config import RenderResources, Resources, RunSettings, VideoSettings
from pipeline.errors import CannotRun
from pipeline.execute import Context, in_process
from pipeline.locks.cell import open_cell
from pipeline.locks.lease import KEY, Lease
from pipeline.machines.cluster import connected
from pipeline.on_ray import OnRay, on_ray
from pipeline.provenance.verify import verify
from pipeline.run import prepare
from pipeline.stages.base import Stage
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.summary import RunSummary
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetTask, ItemTask
from tests.commands import imtalker
from tests.pipeline.test_run import AUDIO_ROW, BOTH_ROW, DRIVER_ROW, broken_rows
from tests.runs import TINY, demo, results, run_manifest, write_manifest
from tests.s3_server import S3Server

ROWS = [AUDIO_ROW, DRIVER_ROW]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray with more processors than there are and two GPUs that exist by name only."""
    with connected(num_cpus=4, num_gpus=2):
        yield


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (output / "items").glob("*.json")]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """Good rows around broken ones; enough good ones to keep two renderers busy."""
    folder = tmp_path_factory.mktemp("ray")
    portraits = [demo("ana.png"), demo("mei.webp"), demo("kofi.jpg")]
    more = [{"id": f"more-{i}", "image": p, "audio": demo("french.m4a"), "seed": i} for i, p in enumerate(portraits)]
    rows = [AUDIO_ROW, *broken_rows(folder), BOTH_ROW, DRIVER_ROW, *more]
    return folder, run_manifest(write_manifest(folder, rows), folder / "out", executor=on_ray)


def test_good_items_are_made_and_broken_ones_are_named(mixed: tuple[Path, RunSummary]) -> None:
    folder, summary = mixed
    assert (summary.rows, summary.ok, summary.failed, summary.exit_code) == (11, 6, 5, 3)
    assert summary.errors == {"input": 5}
    rows = results(folder / "out")
    assert [row["status"] for row in rows.values()] == ["ok"] + 5 * ["failed"] + 5 * ["ok"]
    assert all(Path(row["video"]).is_file() for row in rows.values() if row["status"] == "ok")
    assert {row["error_stage"] for row in rows.values()} == {None, "plan", "crop", "features"}


def test_every_renderer_signs_with_the_runs_own_certificate(mixed: tuple[Path, RunSummary]) -> None:
    folder, summary = mixed
    made = [record for record in records(folder / "out") if record["status"] == "ok"]
    assert summary.signature is not None and summary.signature["untrusted"]
    assert {record["video"]["signature"]["certificate_sha256"] for record in made} == {
        summary.signature["certificate_sha256"]
    }
    found = [verify(record["video"]["uri"], TINY) for record in made]
    assert {(one.state, one.made["run"]) for one in found} == {("unchanged", summary.signature["run"])}
    assert sorted(one.made["item"] for one in found) == sorted(record["id"] for record in made)


def test_each_asset_is_made_once(mixed: tuple[Path, RunSummary]) -> None:
    _, summary = mixed
    # Six cropped pictures: three portraits, two of them also under the rule of driven items, none for broken ones;
    # and the driver that was looked at.
    assert summary.computed["crop"] == 5 + 1
    # Their codes, two recordings with features (a third gives its sound only), one driver.
    assert summary.computed["features"] == 5 + 2 + 1
    assert summary.computed["render"] == 6


def test_stages_run_in_processes_of_their_own_with_their_own_gpus(mixed: tuple[Path, RunSummary]) -> None:
    made = [record for record in records(mixed[0] / "out") if record["status"] == "ok"]
    workers = [record["workers"] for record in made]
    pids = {stage: {w[stage]["pid"] for w in workers} for stage in ("crop", "features", "motion", "render")}
    assert os.getpid() not in set.union(*pids.values())
    assert not pids["motion"] & pids["render"]
    assert not pids["crop"] & pids["features"]
    assert {w["crop"]["gpus"] for w in workers} == {""}
    gpus = {(w["render"]["pid"], w["render"]["gpus"]) for w in workers}
    assert len(gpus) == 2, "two GPUs make two renderers"
    assert {gpu for _, gpu in gpus} == {"0", "1"}


def test_frames_do_not_depend_on_who_made_them(tmp_path: Path) -> None:
    """One process, one item at a time; more workers, batches of items, segments side by side: the same bytes.

    Signatures, which no two runs share, are left out.
    """
    portraits = [demo("ana.png"), demo("mei.webp")]
    more = [{"id": f"{i}", "image": portraits[i % 2], "audio": demo("french.m4a"), "seed": i} for i in range(6)]
    manifest = write_manifest(tmp_path, [DRIVER_ROW, AUDIO_ROW, *more])
    # The thread count of a stage is part of its numerics, so both runs state it.
    one = {stage: {"threads": 1} for stage in ("features", "motion", "render")}
    many = {stage: {"threads": 1, "actors": 2, "num_gpus": 0.5} for stage in ("features", "render")}
    many["render"]["encoders"] = 3
    made = []
    for name, executor, resources in (("here", in_process, one), ("there", on_ray, {**one, **many})):
        changes = {
            "resources": Resources.model_validate(resources),
            "video": VideoSettings(segment_seconds=0.16),
            "items_in_flight": 3,
            "label": "none",
        }
        run_manifest(manifest, tmp_path / name, TINY.model_copy(update=changes), executor=executor)
        rows = results(tmp_path / name)
        made.append({id: (row["status"], row["frames_sha256"], row["sha256"]) for id, row in rows.items()})
        assert len(records(tmp_path / name)) == 8
    assert made[0] == made[1]
    assert len(set(made[0].values())) == 8
    assert {status for status, *_ in made[0].values()} == {"ok"}


class MeetingStage(Stage[AssetTask]):
    """Each task waits for another one in the same worker."""

    name = "render"
    task_type = AssetTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int, encoders: int) -> None:
        super().__init__(settings, info, output, threads)
        self.meeting = threading.Barrier(2)

    def process(self, task: AssetTask) -> None:
        self.meeting.wait(20)


def test_a_renderer_on_a_gpu_has_several_items_in_hand(tmp_path: Path) -> None:
    resources = Resources(render=RenderResources(actors=1, num_gpus=0.5, encoders=1))
    executor = OnRay(Context(TINY.model_copy(update={"resources": resources}), prepare(TINY), str(tmp_path)))
    tasks = [AssetTask(key=str(i), kind="portrait", uri="") for i in range(2)]
    assert [task.error for task in executor.run(tasks, [MeetingStage])] == [None, None]


class NothingStage(Stage[AssetTask]):
    """Tells who had the task."""

    name = "render"
    task_type = AssetTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int, encoders: int) -> None:
        super().__init__(settings, info, output, threads)

    def process(self, task: AssetTask) -> None:
        pass


def test_actors_are_started_anew_after_so_many_items_and_rays_books_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.on_ray._ITEMS_PER_ACTOR", 4)
    resources = Resources(render=RenderResources(actors=1, num_gpus=0, encoders=1))
    executor = OnRay(Context(TINY.model_copy(update={"resources": resources}), prepare(TINY), str(tmp_path)))
    tasks = [AssetTask(key=str(i), kind="portrait", uri="") for i in range(13)]
    came: list[AssetTask] = []
    books: list[int] = []
    for task in executor.run(tasks, [NothingStage]):
        came.append(task)
        books.append(rays_books())
    rounds = [came[start : start + 4] for start in range(0, 13, 4)]
    assert [{int(task.key) for task in some} for some in rounds] == [{*range(4)}, {*range(4, 8)}, {*range(8, 12)}, {12}]
    actors = [{task.workers["render"].pid for task in some} for some in rounds]
    assert [len(pids) for pids in actors] == [1] * 4
    assert len(set.union(*actors)) == 4
    assert max(books) <= 16, "those of four tasks before and after the stage, and of the four before them; all are 26"


def rays_books() -> int:
    """Blocks that Ray Data remembers in this process."""
    gc.collect()
    return sum(isinstance(thing, BlockStats) for thing in gc.get_objects())


def test_nvenc_where_there_is_none_stops_the_run_in_one_line(tmp_path: Path) -> None:
    resources = Resources(render=RenderResources(num_gpus=0))
    settings = TINY.model_copy(update={"video": VideoSettings(encoder="nvenc"), "resources": resources})
    executor = OnRay(Context(settings, prepare(settings), str(tmp_path)))
    portrait = AssetTask(key="portrait", kind="portrait", uri="")
    task = ItemTask(key="a", index=0, mode="audio", portrait=portrait, cfg_scale=3, nfe=10, request="")
    with pytest.raises(CannotRun) as caught:
        list(executor.run([task], [RenderStage]))
    assert "\n" not in str(caught.value)
    assert "video.encoder: nvenc doesn't work on" in str(caught.value)
    assert str(caught.value).endswith("use video.encoder: libx264")


def test_workers_of_a_run_that_was_replaced_commit_nothing_more(tmp_path: Path) -> None:
    rows = [{"id": f"item-{i}", "image": demo("ana.png"), "audio": demo("english.wav"), "seed": i} for i in range(6)]
    output, finished, replaced = tmp_path / "out", threading.Event(), threading.Event()
    successor = Lease(open_cell(Store(str(output), {}), KEY), clock=lambda: time.time() + 100)

    def replace_after_the_first_commit() -> None:
        while not finished.wait(0.02):
            if records_so_far(output):
                successor.take()
                replaced.set()
                return

    def run_of_its_own() -> subprocess.CompletedProcess[str]:
        """A run in its own process, on this cluster; its workers end with it."""
        address = ray.get_runtime_context().gcs_address
        return imtalker("run", "--config", str(job), "--address", address)

    settings = TINY.model_dump() | {"max_seconds": 1, "resources": {"render": {"actors": 1, "num_gpus": 1}}}
    job = tmp_path / "job.yaml"
    job.write_text(
        json.dumps({"manifest": write_manifest(tmp_path, rows), "output": str(output), "settings": settings})
    )
    other = threading.Thread(target=replace_after_the_first_commit)
    other.start()
    try:
        first = run_of_its_own()
    finally:
        finished.set()
        other.join()
    assert replaced.is_set(), first.stderr
    assert first.returncode == 1
    assert "another run has taken it over" in " ".join(first.stderr.split())
    # An item may have been on its way past its last look at the lease.
    assert 1 <= len(records(output)) <= 3
    assert {record["fence"] for record in records(output)} == {1}
    assert not (output / "results.parquet").exists()
    successor.release()
    second = run_of_its_own()
    assert second.returncode == 0, second.stderr
    assert {record["status"] for record in records(output)} == {"ok"}
    assert len(records(output)) == 6
    assert {record["fence"] for record in records(output)} == {1, 3}


def test_a_killed_renderer_loses_nothing(tmp_path: Path) -> None:
    rows = [{"id": f"item-{i}", "image": demo("ana.png"), "audio": demo("english.wav"), "seed": i} for i in range(8)]
    output, killed = tmp_path / "out", []
    finished = threading.Event()

    def kill_after_the_first_commit() -> None:
        while not finished.wait(0.05):
            for record in records_so_far(output):
                pid = record["workers"]["render"]["pid"]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return

    killer = threading.Thread(target=kill_after_the_first_commit)
    killer.start()
    one = RunSettings(**TINY.model_dump() | {"max_seconds": 1.0, "resources": {"render": {"actors": 1, "num_gpus": 1}}})
    try:
        summary = run_manifest(write_manifest(tmp_path, rows), output, one, executor=on_ray)
    finally:
        finished.set()
        killer.join()
    assert len(killed) == 1
    assert (summary.ok, summary.failed) == (8, 0)
    by_whom = [record["workers"]["render"]["pid"] for record in records(output)]
    assert set(by_whom) - set(killed), "somebody else went on"
    assert by_whom.count(killed[0]) < 8, "it was killed before the last commit"


def records_so_far(output: Path) -> list[dict[str, Any]]:
    return records(output) if (output / "items").is_dir() else []


def test_a_run_that_cannot_be_placed_says_what_is_short() -> None:
    settings = TINY.model_copy(update={"resources": Resources(render=RenderResources(actors=3, num_gpus=1))})
    with pytest.raises(CannotRun, match=r"motion and render need .* GPU, but there are 2"):
        OnRay(Context(settings, prepare(TINY), "/nowhere"))


def test_weights_that_do_not_load_stop_the_run_with_their_name(tmp_path: Path) -> None:
    bad = tmp_path / "renderer.ckpt"
    bad.write_bytes(b"not a checkpoint")
    settings = RunSettings(
        model="imtalker",
        weights={"renderer": str(bad), "generator": str(bad), "wav2vec2": str(tmp_path)},
        download=False,
    )
    manifest = write_manifest(tmp_path, [AUDIO_ROW])
    (tmp_path / "model.safetensors").write_bytes(b"nor this")
    with pytest.raises(CannotRun, match=r"renderer\.ckpt"):
        run_manifest(manifest, tmp_path / "out", settings, executor=on_ray)


def test_everything_in_object_storage(tmp_path: Path, s3: S3Server) -> None:
    """Manifest and inputs are read from a bucket, by relative names; videos, records and table are written to it."""
    bucket = s3.bucket()
    store = Store(f"s3://{bucket}/in", s3.storage_options)
    for name in ("ana.png", "english.wav", "kofi.jpg", "driver.mp4"):
        store.put_file(Path(demo(name)), name)
    rows = [{**row, **{c: Path(row[c]).name for c in ("image", "audio", "driver") if c in row}} for row in ROWS]
    store.put_file(
        Path(write_manifest(tmp_path, [*rows, {"image": "nowhere.png", "audio": "english.wav"}])), "m.parquet"
    )
    # The thread count of a stage is part of its numerics.
    resources = Resources.model_validate({stage: {"threads": 1} for stage in ("features", "motion", "render")})
    settings = TINY.model_copy(update={"storage_options": s3.storage_options, "resources": resources})
    output = f"s3://{bucket}/out"
    summary = run_manifest(f"s3://{bucket}/in/m.parquet", output, settings, executor=on_ray)
    assert (summary.ok, summary.failed) == (2, 1)
    keys = {key for key in s3.keys(bucket) if key.startswith("out/") and "/cache/" not in key}
    videos = {f"out/videos/{row['id']}.mp4" for row in ROWS}
    assert videos < keys
    assert {"out/results.parquet", "out/run.json"} < keys
    assert len([key for key in keys if key.startswith("out/items/") and "/_index/" not in key]) == 3
    # The same frames as on a local disk.
    run_manifest(write_manifest(tmp_path, ROWS), tmp_path / "out", settings)
    for row in ROWS:
        there = json.loads(Store(output, s3.storage_options).get_bytes(f"items/{row['id']}.json"))
        here = json.loads((tmp_path / "out" / "items" / f"{row['id']}.json").read_text())
        assert there["video"]["frames_sha256"] == here["video"]["frames_sha256"]
    again = run_manifest(f"s3://{bucket}/in/m.parquet", output, settings, executor=on_ray)
    assert (again.ok, again.reused, again.computed) == (2, 2, {})
