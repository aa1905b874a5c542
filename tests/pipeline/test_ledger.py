"""Records come back as they were written, and become rows of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.accounting.price import Price
from pipeline.accounting.usage import Share
from pipeline.config import RunSettings
from pipeline.errors import CannotRun, ErrorRecord
from pipeline.ledger import Ledger, Record
from pipeline.metrics.catalogue import METRICS
from pipeline.records.index import RecordIndex
from pipeline.records.row import RESULTS_SCHEMA, results_row
from pipeline.status import read_status
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetTask, Input, ItemTask, Worker
from tests.s3_server import S3Server

INFO = TalkerInfo("imtalker-tiny", 1, 64, 25, "random", {"renderer": "a" * 64})
WORKER = Worker(pid=7, node="n", gpus="0", gpu="NVIDIA L4", threads=2, started_at=1_800_000_000.0)
CPU, GPU = Share(cpus=2, gpus=0, items_at_once=1), Share(cpus=1, gpus=0.5, items_at_once=1)


def task(**changes: Any) -> ItemTask:
    portrait = AssetTask(
        key="p", kind="portrait", uri="a.png", faces_seen=2, seconds={"crop": 1.0, "features": 0.5}, computed=["crop"]
    )
    audio = AssetTask(key="s", kind="audio", uri="a.wav", seconds={"crop": 0.1, "features": 2.0}, computed=["features"])
    values: dict[str, Any] = {
        "key": "one",
        "index": 3,
        "mode": "audio",
        "portrait": portrait,
        "audio": audio,
        "cfg_scale": 3.0,
        "nfe": 10,
        "seed": 2**63 - 1,
        "request": "r" * 64,
        "settings": {"crop": None},
        "consent": "form 7",
        "fingerprint": "f" * 64,
        "seconds": {"motion": 1.5, "render": 4.9},
        "workers": {"render": WORKER},
        "computed": ["motion", "render"],
        "inputs": {"image": Input(uri="a.png", size=5, sha256="c" * 64)},
        "identities": {"image": "5:1.0", "audio": None},
        "video": {
            "signature": {"signed_by": "throw-away"},
            "uri": "s3://bucket/run/videos/one.mp4",
            "frames": 50,
            "duration_s": 2.0,
            "size": 12345,
            "sha256": "d" * 64,
            "frames_sha256": "e" * 64,
            "has_audio": True,
            "render_s": 4.0,
            "encode_s": 1.0,
            "peak_memory_bytes": 10**9,
        },
    }
    return ItemTask(**{**values, **changes})


def ok(**changes: Any) -> Record:
    return Record.of(task(**changes), RunSettings(), INFO)


def failed(**changes: Any) -> Record:
    return ok(error=ErrorRecord("input", "crop", "no face in a.png", "crop: false", "trace"), **changes)


@pytest.fixture(params=["local", "s3"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    if request.param == "local":
        return Ledger(Store(str(tmp_path / "run"), {}))
    s3: S3Server = request.getfixturevalue("s3")
    return Ledger(Store(f"s3://{s3.bucket()}/run", s3.storage_options))


def test_a_record_holds_what_the_item_and_its_assets_went_through() -> None:
    record = ok()
    assert record.status == "ok"
    assert record.seconds == {"crop": 1.1, "features": 2.5, "motion": 1.5, "render": 4.9}
    assert record.computed == ["crop", "features", "motion", "render"]
    assert record.workers == {"render": WORKER}
    assert (record.id, record.index, record.seed, record.faces_seen) == ("one", 3, 2**63 - 1, 2)
    assert record.weights_sha256 == INFO.weights_sha256
    assert record.finished_at is not None and record.finished_at.endswith("+00:00")


def test_a_failed_item_has_no_video_whatever_was_made_of_it() -> None:
    record = failed()
    assert record.status == "failed"
    assert record.video is None
    assert record.error is not None and record.error.kind == "input"


def test_making_a_record_leaves_the_task_alone() -> None:
    item = task()
    before = item.model_dump_json()
    Record.of(item, RunSettings(), INFO)
    assert item.model_dump_json() == before


def test_records_come_back_as_they_were(ledger: Ledger) -> None:
    one, two = ok(), failed(key="two")
    ledger.write(one)
    ledger.write(two)
    assert ledger.read(["two", "absent", "one"]) == {"one": one, "two": two}
    assert ledger.read([]) == {}
    assert json.loads(ledger.store.get_bytes("items/one.json"))["seed"] == 2**63 - 1


def test_a_newer_record_replaces_the_older(ledger: Ledger) -> None:
    ledger.write(failed())
    ledger.write(ok())
    assert ledger.read(["one"])["one"].status == "ok"


def test_ids_that_other_ids_begin_with_are_told_apart(ledger: Ledger) -> None:
    for key in ("a", "a.json", "a.mp4", "A-1", "CON"):
        ledger.write(ok(key=key))
    assert set(ledger.read(["a", "a.json", "a.mp4", "A-1", "CON", "a."])) == {"a", "a.json", "a.mp4", "A-1", "CON"}


def test_rows_without_a_usable_id_have_records_too(ledger: Ledger) -> None:
    error = ErrorRecord("input", "plan", "bad id", "another")
    ledger.write(Record(id="../../etc/passwd", index=5, status="failed", error=error), key="_invalid/5")
    ledger.write(ok())
    assert {key: record.id for key, record in RecordIndex(ledger.store).records()} == {
        "_invalid/5": "../../etc/passwd",
        "one": "one",
    }
    assert ledger.read(["../../etc/passwd", "one"]).keys() == {"one"}
    with pytest.raises(CannotRun):
        ledger.write(Record(id="../../etc/passwd", index=5, status="failed", error=error))


def test_records_of_other_versions(ledger: Ledger) -> None:
    newer = {**json.loads(ok().model_dump_json()), "something_new": {"a": 1}}
    older = {"id": "two", "index": 0, "status": "ok"}
    ledger.store.put_bytes("items/one.json", json.dumps(newer).encode())
    ledger.store.put_bytes("items/two.json", json.dumps(older).encode())
    ledger.store.put_bytes("items/three.json", b"not a record")
    ledger.store.put_bytes("items/four.json", b"")
    assert set(ledger.read(["one", "two", "three", "four"])) == {"one", "two"}


def test_every_results_column_is_filled_from_a_good_record() -> None:
    shares = {"crop": CPU, "features": CPU, "motion": GPU, "render": GPU}
    values = {metric.name: number for number, metric in enumerate(METRICS)}
    record = ok(shares=shares, metrics=values)
    row = results_row(record, reused=False, price=Price(gpu_hour=3.6, cpu_hour=0.36))
    assert {name: row[name] for name in values} == values
    assert list(row) == RESULTS_SCHEMA.names
    assert {name for name, value in row.items() if value is None} == {
        # the manifest's own, which the table's maker fills in
        "image",
        "audio",
        "driver",
        "language",
        # and what only a failed item has
        "error_kind",
        "error_stage",
        "error_message",
        "error_hint",
        "error_trace",
        "first_error_at",
        "last_error_at",
    }
    assert row["render_fps"] == 12.5  # 50 frames in 4 s
    assert row["real_time_factor"] == 5.0  # 10 s of work for 2 s of video
    assert (row["frames"], row["duration_s"], row["size_bytes"], row["crop_s"]) == (50, 2.0, 12345, 1.1)
    assert (row["worker_node"], row["worker_gpu"], row["started_at"]) == ("n", "NVIDIA L4", "2027-01-15T08:00:00+00:00")
    # Two CPUs for the 3.6 s of crop and features; a CPU and half a GPU for the 6.4 s of motion and render.
    assert (row["cpu_s"], row["gpu_s"], row["motion_gpu_s"], row["crop_cpu_s"]) == (13.6, 3.2, 0.75, 2.2)
    assert row["cost"] == pytest.approx((13.6 * 0.36 + 3.2 * 3.6) / 3600, abs=1e-6)
    assert row["reused"] is False
    assert results_row(ok(), reused=True)["reused"] is True


def test_a_failed_row_says_what_happened_and_claims_nothing() -> None:
    row = results_row(failed(), reused=False)
    assert (row["error_kind"], row["error_stage"]) == ("input", "crop")
    assert (row["error_message"], row["error_hint"], row["error_trace"]) == ("no face in a.png", "crop: false", "trace")
    for name in ("video", "frames", "duration_s", "sha256", "render_fps", "real_time_factor"):
        assert row[name] is None


def test_the_status_of_an_output_counts_its_records(ledger: Ledger) -> None:
    options = {"s3": dict(ledger.store.fs.storage_options)} if ledger.store.uri.startswith("s3://") else {}
    with pytest.raises(CannotRun, match="holds no records"):
        read_status(ledger.store.uri, options)
    for key in ("one", "two"):
        ledger.write(ok(key=key))
    ledger.write(failed(key="three"))
    status = read_status(ledger.store.uri, options)
    assert (status["items"], status["ok"], status["failed"]) == (3, 2, 1)
    assert status["failed_by_kind"] == {"input": 1}
    assert (status["frames"], status["video_seconds"]) == (100, 4.0)
    assert status["finished"] is False
    ledger.store.put_bytes("results.parquet", b"")
    assert read_status(ledger.store.uri, options)["finished"] is True


def test_an_item_that_failed_early_keeps_what_is_known_of_its_files() -> None:
    error = ErrorRecord("input", "crop", "no face", "another picture")
    there, other = (WORKER.model_copy(update={"node": node}) for node in ("there", "other"))
    failed = AssetTask(
        key="p", kind="portrait", uri="a.png", input=Input(uri="a.png", size=3, sha256="f" * 64), error=error
    )
    failed.workers["crop"] = there
    driver = AssetTask(key="d", kind="driver", uri="d.mp4", workers={"crop": other})
    record = Record.of(
        task(portrait=failed, audio=None, driver=driver, inputs={}, error=error, gaze="g.npy"), RunSettings(), INFO
    )
    assert record.uris == {"image": "a.png", "driver": "d.mp4", "gaze": "g.npy"}
    assert record.inputs == {"image": failed.input}
    assert results_row(record, reused=False)["worker_node"] == "there"
