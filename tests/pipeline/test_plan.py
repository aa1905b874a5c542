"""What is planned: which rows are made, which are done already, and what they share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.reader import Manifest, read_manifest
from pipeline.config import InputLimits, RenderResources, Resources, RunSettings, VideoSettings
from pipeline.errors import ErrorKind, ErrorRecord, Retry
from pipeline.inputs.fetch import UNKNOWN
from pipeline.ledger import Ledger, Record
from pipeline.plan import REDONE, Plan, make_plan, problem_fingerprint
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import ItemTask
from tests.s3_server import S3Server

INFO = TalkerInfo("imtalker-tiny", 1, 64, 25, "random", {"renderer": "a" * 64, "generator": "b" * 64})
VIDEO = {"uri": "videos/x.mp4", "frames": 50, "duration_s": 2.0}


class Case:
    """Inputs in a folder, a manifest over them, and the ledger of their runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(Store(str(folder / "run"), {}))
        for name in ("a.png", "b.png", "a.wav", "b.wav", "d.mp4", "p.npy", "c.npy", "g.npy"):
            self.write(name, name)

    def write(self, name: str, content: str) -> None:
        (self.folder / name).write_text(content)

    def manifest(self, *rows: Mapping[str, Any], settings: RunSettings | None = None) -> Manifest:
        names = dict.fromkeys(name for row in rows for name in row)
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        pq.write_table(table, self.folder / "manifest.parquet")
        default = settings.motion_from if settings else None
        return read_manifest(str(self.folder / "manifest.parquet"), motion_from=default)

    def plan(
        self,
        *rows: Mapping[str, Any],
        settings: RunSettings | None = None,
        info: TalkerInfo = INFO,
        limit: int | None = None,
        retry: Retry | None = None,
    ) -> Plan:
        manifest = self.manifest(*rows, settings=settings)
        plan = make_plan(manifest, settings or RunSettings(), info, self.ledger, limit=limit, retry=retry)
        places = [*(i.index for i in plan.items), *(r.index for r, _ in plan.invalid), *plan.done, *plan.skipped]
        assert sorted(places) == list(range(len(rows)))  # every row is in exactly one place
        return plan

    def run(self, *rows: Mapping[str, Any], fails: ErrorKind | None = None, **options: Any) -> Plan:
        """Plan, and record every planned item as ok or as failed."""
        plan = self.plan(*rows, **options)
        for item in plan.items:
            item.error = ErrorRecord(fails, "crop", "found no face", "give another") if fails else None
            item.video = None if fails else VIDEO
            self.ledger.write(Record.of(item, options.get("settings") or RunSettings(), INFO))
        return plan


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


ROW = {"id": "one", "image": "a.png", "audio": "a.wav"}
DRIVEN = {"id": "two", "image": "b.png", "driver": "d.mp4"}
BOTH = {"id": "three", "image": "a.png", "audio": "b.wav", "driver": "d.mp4", "motion_from": "driver"}
POSED = {"id": "four", "image": "a.png", "audio": "a.wav", "pose": "p.npy", "camera": "c.npy", "gaze": "g.npy"}


def one(plan: Plan) -> ItemTask:
    (item,) = plan.items
    return item


def test_every_mode_becomes_an_item_with_its_inputs(case: Case) -> None:
    plan = case.plan(ROW, DRIVEN, BOTH, POSED)
    first, second, third, fourth = plan.items
    assert [item.key for item in plan.items] == ["one", "two", "three", "four"]
    assert [item.mode for item in plan.items] == ["audio", "driver", "driver", "audio"]
    assert first.portrait.uri == str(case.folder / "a.png")
    assert first.audio is not None and first.audio.uri == str(case.folder / "a.wav")
    assert first.audio.needs_features
    assert first.driver is None
    assert second.audio is None
    assert second.driver is not None and second.driver.kind == "driver"
    assert third.audio is not None and not third.audio.needs_features
    assert third.flags == ["lips_not_from_audio"]
    assert first.flags == second.flags == fourth.flags == []
    assert [fourth.pose, fourth.camera, fourth.gaze] == [str(case.folder / f"{n}.npy") for n in "pcg"]
    assert set(fourth.identities) == {"image", "audio", "pose", "camera", "gaze"}
    assert all(fourth.identities.values())
    assert plan.summary() == {
        "to_make": 4,
        "to_copy": 0,
        "already_done": 0,
        "invalid": 0,
        "skipped": 0,
        # a.png framed for audio and for a driver, b.png for a driver.
        "portraits": 3,
        "recordings": 2,
        "drivers": 1,
    }


def test_a_driver_that_gives_nothing_is_not_an_input(case: Case) -> None:
    row = {**POSED, "driver": "absent.mp4", "motion_from": "audio"}
    item = one(case.plan(row))
    assert item.driver is None
    assert "driver" not in item.identities


def test_rows_that_can_not_be_done_say_why(case: Case) -> None:
    plan = case.plan(
        ROW,
        {"id": "x", "image": "a.png"},
        {"id": "y", "audio": "a.wav"},
        {**ROW, "id": "../up"},
        {**ROW, "id": "ONE"},
        {**BOTH, "motion_from": None},
    )
    assert [item.key for item in plan.items] == ["one"]
    errors = {row.index: error for row, error in plan.invalid}
    assert sorted(errors) == [1, 2, 3, 4, 5]
    assert {error.kind for error in errors.values()} == {"input"}
    assert {error.stage for error in errors.values()} == {"plan"}
    assert all(error.hint for error in errors.values())
    assert "expected audio or driver" in errors[1].message
    assert "already taken by row 0" in errors[4].message
    keys = {row.index: row.key for row, _ in plan.invalid}
    assert keys == {1: "x", 2: "y", 3: "_invalid/3", 4: "_invalid/4", 5: "three"}


def test_what_was_told_of_a_row_is_not_told_again(case: Case) -> None:
    rows: list[dict[str, Any]] = [{"id": "x", "image": "a.png"}, {**ROW, "id": "../up"}]
    plan = case.plan(*rows)
    assert plan.told == set()
    for row, error in plan.invalid:
        record = Record(id=row.id, index=row.index, status="failed", error=error, request=problem_fingerprint(error))
        case.ledger.write(record, key=row.key)
    assert case.plan(*rows).told == {0, 1}
    # Another problem of the same row.
    plan = case.plan({"id": "x", "audio": "a.wav"}, rows[1])
    assert (len(plan.invalid), plan.told) == (2, {1})


def test_the_runs_choice_of_motion_counts_where_the_row_is_silent(case: Case) -> None:
    row = {**BOTH, "motion_from": None}
    assert one(case.plan(row, settings=RunSettings(motion_from="driver"))).mode == "driver"
    (_, error), *_ = case.plan(row, settings=RunSettings(motion_from="audio")).invalid
    assert "pose" in error.message


def test_assets_are_shared_whatever_names_them(case: Case) -> None:
    plan = case.plan(ROW, {**ROW, "id": "again", "seed": 7}, {**BOTH, "audio": "a.wav"})
    assert plan.summary()["recordings"] == 1
    first, second, third = plan.items
    assert first.audio is second.audio is third.audio
    assert first.portrait is second.portrait
    # Only its sound is needed in one place, its features in another: it is one asset with features.
    assert third.audio is not None and third.audio.needs_features
    backwards = case.plan({**BOTH, "audio": "a.wav"}, ROW)
    assert backwards.items[0].audio is not None and backwards.items[0].audio.needs_features


def test_a_portrait_is_another_asset_for_another_crop(case: Case) -> None:
    driven = {**DRIVEN, "image": "a.png"}
    rows: list[dict[str, Any]] = [ROW, {**ROW, "id": "b", "crop": False}, driven, {**DRIVEN, "id": "c", "crop": False}]
    portraits = [item.portrait for item in case.plan(*rows).items]
    assert [(p.crop, p.crop_rule) for p in portraits[:3]] == [(True, "audio"), (False, "audio"), (True, "video")]
    assert len({p.key for p in portraits[:3]}) == 3
    assert portraits[3] is not portraits[1]  # another picture
    fixed = case.plan(*rows[::2], settings=RunSettings(crop_rule="app"))
    assert {item.portrait.crop_rule for item in fixed.items} == {"app"}
    assert fixed.summary()["portraits"] == 1


def test_a_thousand_portraits_with_twenty_recordings(case: Case) -> None:
    for number in range(1000):
        case.write(f"{number}.png", "x")
    for number in range(20):
        case.write(f"{number}.wav", "x")
    rows = [{"image": f"{p}.png", "audio": f"{a}.wav"} for p in range(1000) for a in range(20)]
    manifest = case.manifest(*rows)
    started = time.monotonic()
    plan = make_plan(manifest, RunSettings(), INFO, case.ledger)
    assert time.monotonic() - started < 30  # seconds on a busy machine; without sharing of the work it takes minutes
    assert len(plan.items) == 20_000
    assert len(plan.assets) == 1020
    assert plan.summary()["portraits"] == 1000
    assert plan.summary()["recordings"] == 20


def test_beyond_the_limit_rows_are_skipped(case: Case) -> None:
    plan = case.plan(ROW, DRIVEN, {"id": "x", "image": "a.png"}, BOTH, limit=1)
    assert [item.key for item in plan.items] == ["one"]
    assert plan.skipped == {1: "limit", 2: "limit", 3: "limit"}
    assert plan.invalid == []
    assert len(plan.assets) == 2
    assert case.plan(ROW, DRIVEN, limit=0).skipped == {0: "limit", 1: "limit"}
    assert case.plan(ROW, DRIVEN, limit=9).skipped == {}


def test_beyond_the_limit_what_is_ok_stays_ok(case: Case) -> None:
    case.run(ROW, DRIVEN, BOTH)
    case.ledger.write(Record(id="two", index=1, status="failed", error=ErrorRecord("input", "crop", "m", "h")))
    case.write("b.wav", "changed")
    plan = case.plan(ROW, DRIVEN, BOTH, {**ROW, "id": "new"}, limit=0)
    assert list(plan.done) == [0]
    assert plan.skipped == {1: "limit", 2: "limit", 3: "limit"}


def test_what_is_done_is_not_made_again(case: Case) -> None:
    first = case.run(ROW, DRIVEN, BOTH, POSED)
    assert len(first.items) == 4
    second = case.plan(ROW, DRIVEN, BOTH, POSED)
    assert (second.items, second.assets) == ([], {})
    assert second.done == dict.fromkeys(range(4))
    assert second.summary()["already_done"] == 4


def test_done_rows_are_found_wherever_the_manifest_has_them(case: Case) -> None:
    case.run(ROW, DRIVEN)
    plan = case.plan({**ROW, "id": "new"}, DRIVEN, ROW)
    assert list(plan.done) == [1, 2]
    assert one(plan).key == "new"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"cfg_scale": 2.0},
        {"nfe": 20},
        {"crop": False},
        {"crop_rule": "app"},
        {"face": "first"},
        {"max_seconds": 1.0},
        {"batch_size": 8},
        {"precision": "bfloat16"},
        {"compile": True},
        {"items_in_flight": 2},
        {"video": VideoSettings(crf=30)},
        {"video": VideoSettings(encoder="nvenc")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_setting_makes_the_item_again(case: Case, change: dict[str, Any]) -> None:
    case.run(ROW)
    settings = RunSettings(**change)
    assert one(case.run(ROW, settings=settings)).key == "one"
    assert list(case.plan(ROW, settings=settings).done) == [0]
    assert one(case.plan(ROW)).key == "one"


@pytest.mark.parametrize(
    "change",
    [
        {"progress_seconds": 5.0},
        {"download": False},
        {"device": "cpu"},
        {"limits": InputLimits(max_file_bytes=5)},
        {"resources": Resources(render=RenderResources(actors=3, encoders=2))},
        {"storage_options": {"s3": {"key": "k"}}},
        {"driver_face": "unchecked"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_that_shapes_no_audio_driven_frame_changes_nothing(case: Case, change: dict[str, Any]) -> None:
    case.run(ROW)
    assert list(case.plan(ROW, settings=RunSettings(**change)).done) == [0]


def test_motion_settings_do_not_shape_what_a_driver_moves(case: Case) -> None:
    case.run(DRIVEN, BOTH)
    settings = RunSettings(cfg_scale=1.0, nfe=30, seed=7)
    row_settings = {"cfg_scale": 2.0, "nfe": 5, "seed": 1}
    assert list(case.plan({**DRIVEN, **row_settings}, {**BOTH, **row_settings}, settings=settings).done) == [0, 1]
    posed = {**BOTH, "pose": "p.npy"}
    assert list(case.plan(DRIVEN, posed).done) == [0, 1]
    assert len(case.plan(DRIVEN, BOTH, settings=RunSettings(driver_face="unchecked")).items) == 2


@pytest.mark.parametrize("column", [{"seed": 7}, {"cfg_scale": 2.5}, {"nfe": 11}, {"crop": False}, {"pose": "p.npy"}])
def test_a_changed_column_makes_the_item_again(case: Case, column: dict[str, Any]) -> None:
    case.run(ROW)
    assert one(case.plan({**ROW, **column})).key == "one"


def test_saying_what_is_so_anyway_changes_nothing(case: Case) -> None:
    case.run(ROW)
    assert list(case.plan({**ROW, "cfg_scale": 3.0, "nfe": 10, "crop": True}).done) == [0]
    # The run's seed and the item's own are different things.
    assert one(case.plan({**ROW, "seed": 42})).seed == 42


def test_the_users_own_columns_change_nothing(case: Case) -> None:
    case.run({**ROW, "speaker": "Ann"})
    assert list(case.plan({**ROW, "speaker": "Bob", "take": 3, "language": "de"}).done) == [0]


@pytest.mark.parametrize(
    "info",
    [
        TalkerInfo("imtalker", 1, 64, 25, "random", INFO.weights_sha256),
        TalkerInfo("imtalker-tiny", 2, 64, 25, "random", INFO.weights_sha256),
        TalkerInfo("imtalker-tiny", 1, 64, 25, "random", {**INFO.weights_sha256, "renderer": "c" * 64}),
    ],
    ids=["model", "version", "weights"],
)
def test_another_model_makes_everything_again(case: Case, info: TalkerInfo) -> None:
    case.run(ROW, DRIVEN)
    assert len(case.plan(ROW, DRIVEN, info=info).items) == 2


@pytest.mark.parametrize("name", ["a.png", "a.wav", "p.npy", "c.npy", "g.npy"])
def test_a_changed_input_makes_the_item_again(case: Case, name: str) -> None:
    case.run(POSED, DRIVEN)
    case.write(name, "longer than it was")
    assert one(case.plan(POSED, DRIVEN)).key == "four"


def test_same_identity_is_carried_and_shapes_no_frame(case: Case) -> None:
    plain, denied, said = (
        one(case.plan(row)) for row in (DRIVEN, DRIVEN | {"same_identity": False}, DRIVEN | {"same_identity": "true"})
    )
    assert [item.same_identity for item in (plain, denied, said)] == [False, False, True]
    assert plain.request == denied.request != said.request
    assert plain.settings == said.settings
    assert said.self_reenactment
    sound = one(case.plan(ROW | {"same_identity": True}))
    assert sound.same_identity and not sound.self_reenactment


@pytest.mark.parametrize("kind", ["infrastructure", "bug"])
def test_what_failed_for_no_fault_of_its_own_is_tried_again(case: Case, kind: ErrorKind) -> None:
    case.run(ROW, fails=kind)
    assert one(case.plan(ROW)).key == "one"


@pytest.mark.parametrize("kind", ["input", "model", "quality"])
def test_what_would_fail_again_is_not_tried_until_something_changes(case: Case, kind: ErrorKind) -> None:
    case.run(ROW, fails=kind)
    plan = case.plan(ROW)
    assert plan.items == []
    assert plan.done == {0: kind}
    assert one(case.plan(ROW, settings=RunSettings(crop=False))).key == "one"
    case.write("a.png", "another portrait")
    assert one(case.plan(ROW)).key == "one"


@pytest.mark.parametrize("kind", get_args(ErrorKind))
def test_failures_are_tried_again_on_demand(case: Case, kind: ErrorKind) -> None:
    case.run(ROW, fails=kind)
    case.run(DRIVEN)
    if kind not in REDONE:
        assert case.plan(ROW, DRIVEN).done == {0: kind, 1: None}
        for other in {*get_args(ErrorKind)} - {kind}:
            assert case.plan(ROW, DRIVEN, retry=other).done == {0: kind, 1: None}
    case.run(ROW, fails=kind, retry=kind)
    for retry in (kind, "failed"):
        plan = case.plan(ROW, DRIVEN, retry=retry)
        assert one(plan).key == "one"
        assert plan.done == {1: None}


def test_a_retry_of_one_kind_leaves_out_none_that_is_tried_anyway(case: Case) -> None:
    case.run(ROW, fails="infrastructure")
    assert one(case.plan(ROW, retry="input")).key == "one"


def test_a_missing_input_is_tried_again_when_it_appears(case: Case) -> None:
    (case.folder / "a.wav").unlink()
    first = one(case.run(ROW, fails="input"))
    assert first.identities["audio"] is None
    assert list(case.plan(ROW).done) == [0]
    case.write("a.wav", "here now")
    assert one(case.plan(ROW)).key == "one"


def test_inputs_that_can_not_be_looked_up_are_never_taken_for_unchanged(case: Case) -> None:
    row = {**ROW, "image": "http://127.0.0.1:1/a.png"}
    assert one(case.run(row)).identities["image"] == UNKNOWN
    assert one(case.plan(row)).key == "one"


def test_a_record_that_can_not_be_read_is_none(case: Case) -> None:
    case.run(ROW, DRIVEN)
    case.ledger.store.put_bytes("items/one.json", b'{"id": "one"')
    plan = case.plan(ROW, DRIVEN)
    assert one(plan).key == "one"
    assert list(plan.done) == [1]


def test_inputs_and_records_in_an_object_store(case: Case, s3: S3Server) -> None:
    bucket = s3.bucket()
    for name in ("a.png", "a.wav"):
        s3.client.put_object(Bucket=bucket, Key=f"media/{name}", Body=name.encode())
    settings = RunSettings(storage_options=s3.storage_options)
    case.ledger = Ledger(Store(f"s3://{bucket}/run", s3.storage_options))
    row = {"id": "one", "image": f"s3://{bucket}/media/a.png", "audio": f"s3://{bucket}/media/a.wav"}
    assert len(case.run(row, settings=settings).items) == 1
    assert list(case.plan(row, settings=settings).done) == [0]
    s3.client.put_object(Bucket=bucket, Key="media/a.wav", Body=b"changed")
    assert one(case.plan(row, settings=settings)).key == "one"
