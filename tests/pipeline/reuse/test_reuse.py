"""What a change redoes: the plan says it stage by stage, and the run does exactly that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imtalker.checkpoints import save_generator, save_renderer
from imtalker.presets import PRESETS, build_seeded
from pipeline.config import CacheSettings, RunSettings
from pipeline.ledger import Ledger
from pipeline.media.verify import measure_video
from pipeline.plan import Plan, make_plan
from pipeline.reuse import fingerprint, stage_facts
from pipeline.run import load_manifest, prepare
from pipeline.storage import Store
from pipeline.summary import RunSummary
from tests.pipeline.test_run import AUDIO_ROW, DRIVER_ROW
from tests.runs import TINY, demo, results, run_manifest, write_manifest
from tests.s3_server import S3Server

CACHED = ("crop", "features", "motion")


def plan_of(manifest: str, output: str | Path, settings: RunSettings = TINY) -> Plan:
    ledger = Ledger(Store(str(output), settings.storage_options))
    return make_plan(load_manifest(manifest, settings), settings, prepare(settings), ledger)


def planned_and_run(manifest: str, output: str | Path, settings: RunSettings = TINY) -> tuple[Plan, RunSummary]:
    """The plan of a run, then the run, which does what the plan says."""
    plan = plan_of(manifest, output, settings)
    stages = plan.forecast.stages
    summary = run_manifest(manifest, output, settings)
    assert summary.computed == {name: stage.compute for name, stage in stages.items() if stage.compute}
    assert (summary.reused, summary.copied) == (stages["render"].reuse, len(plan.copies))
    dropped = {name: stages[name].drop for name in CACHED if stages[name].drop}
    assert summary.cache.dropped == dropped
    assert all(sum(stage.why.values()) == stage.compute for stage in stages.values())
    assert summary.failed == 0
    return plan, summary


def why(plan: Plan) -> dict[str, dict[str, int]]:
    return {name: dict(stage.why) for name, stage in plan.forecast.stages.items() if stage.why}


def reused(plan: Plan) -> dict[str, int]:
    return {name: stage.reuse for name, stage in plan.forecast.stages.items() if stage.reuse}


def changed(**changes: Any) -> RunSettings:
    return RunSettings.model_validate(TINY.model_dump() | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one item of each mode."""
    folder = tmp_path_factory.mktemp("reuse")
    manifest = write_manifest(folder, [AUDIO_ROW, DRIVER_ROW])
    plan, _ = planned_and_run(manifest, folder / "out")
    first = "first time"
    assert why(plan) == {"crop": {first: 3}, "features": {first: 4}, "motion": {first: 1}, "render": {first: 2}}
    return folder


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> tuple[str, Path]:
    """The manifest and a copy of the output, to be changed."""
    shutil.copytree(finished / "out", tmp_path / "out")
    return str(finished / "manifest.parquet"), tmp_path / "out"


def test_nothing_changed(again: tuple[str, Path]) -> None:
    plan, summary = planned_and_run(*again)
    assert (reused(plan), why(plan), summary.ok) == ({"render": 2}, {}, 2)


@pytest.mark.parametrize(
    ("change", "reasons", "reuse"),
    [
        (
            {"video": {"crf": 30}},
            {"render": {"setting video.crf changed": 2}},
            {"crop": 3, "features": 3, "motion": 1},
        ),
        (
            {"cfg_scale": 1.5},
            {name: {"setting cfg_scale changed": 1} for name in ("motion", "render")},
            {"crop": 1, "features": 2, "render": 1},
        ),
        (
            {"seed": 7, "nfe": 4},
            {name: {"setting nfe, setting seed changed": 1} for name in ("motion", "render")},
            {"crop": 1, "features": 2, "render": 1},
        ),
        (
            {"crop": False},
            {name: {"setting crop changed": n} for name, n in zip((*CACHED, "render"), (2, 2, 1, 2), strict=True)},
            {"crop": 1, "features": 2},
        ),
        (
            {"items_in_flight": 2},
            {name: {"setting items_in_flight changed": 1} for name in ("features", "motion", "render")},
            {"crop": 1, "features": 1, "render": 1},
        ),
        (
            {"precision": "bfloat16"},
            {"render": {"setting precision changed": 2}},
            {"crop": 3, "features": 3, "motion": 1},
        ),
    ],
    ids=["crf", "guidance", "seed", "crop", "items_in_flight", "precision"],
)
def test_a_setting_redoes_what_it_shapes(
    again: tuple[str, Path], change: dict[str, Any], reasons: dict[str, Any], reuse: dict[str, int]
) -> None:
    plan, _ = planned_and_run(*again, changed(**change))
    assert why(plan) == reasons
    assert reused(plan) == reuse


@pytest.mark.parametrize(
    ("stage", "made"),
    [
        ("crop", {"crop": 3, "features": 2, "motion": 1, "render": 2}),
        ("features", {"features": 4, "motion": 1, "render": 2}),
        ("motion", {"motion": 1, "render": 1}),
        ("render", {"render": 2}),
    ],
)
def test_another_version_of_a_stage_redoes_it_and_what_follows(
    again: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, stage: str, made: dict[str, int]
) -> None:
    newer = {**stage_facts.STAGE_VERSIONS, stage: 99}
    for module in (stage_facts, fingerprint):
        monkeypatch.setattr(module, "STAGE_VERSIONS", newer)
    monkeypatch.setattr("pipeline.plan.STAGE_VERSIONS", newer)
    plan, _ = planned_and_run(*again)
    assert why(plan) == {name: {f"version of {stage} changed": count} for name, count in made.items()}


def test_another_id_recomputes_nothing_and_its_record_is_its_own(again: tuple[str, Path], tmp_path: Path) -> None:
    _, output = again
    manifest = write_manifest(tmp_path, [{**AUDIO_ROW, "id": "renamed", "seed": None}, DRIVER_ROW])
    plan, summary = planned_and_run(manifest, output)
    assert (plan.summary()["to_copy"], summary.computed, summary.ok, summary.reused) == (1, {}, 2, 2)
    old, new = (json.loads((output / "items" / f"{id}.json").read_text()) for id in ("spoken", "renamed"))
    video = output / "videos" / "renamed.mp4"
    assert (new["id"], new["copied_from"], new["computed"], new["seconds"]) == ("renamed", "spoken", [], {})
    assert new["video"]["frames_sha256"] == old["video"]["frames_sha256"]
    assert (new["fingerprint"], new["seed"]) == (old["fingerprint"], old["seed"])
    assert new["request"] == json.loads((output / "items" / "renamed.json").read_text())["request"]
    assert (new["video"]["uri"], new["video"]["size"]) == (str(video), video.stat().st_size)
    assert new["video"]["sha256"] == fingerprint_of(video) != old["video"]["sha256"]
    measure = measure_video(video, TINY.limits)
    assert measure.frames == new["video"]["frames"] == 10
    assert results(output)["renamed"]["reused"]
    assert planned_and_run(manifest, output)[1].copied == 0


def fingerprint_of(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", ["deleted", "other"])
def test_a_video_that_is_not_what_its_record_says_is_made_again(
    again: tuple[str, Path], tmp_path: Path, damage: str
) -> None:
    _, output = again
    video = output / "videos" / "spoken.mp4"
    if damage == "deleted":
        video.unlink()
    else:
        video.write_bytes((output / "videos" / "driven.mp4").read_bytes())
    manifest = write_manifest(tmp_path, [{**AUDIO_ROW, "id": "renamed"}, DRIVER_ROW])
    summary = run_manifest(manifest, output)
    assert (summary.ok, summary.copied, summary.computed) == (2, 0, {"render": 1})
    assert json.loads((output / "items" / "renamed.json").read_text())["copied_from"] is None


def test_moved_and_doubled_files_are_known_by_their_content(again: tuple[str, Path], tmp_path: Path) -> None:
    """New names are looked into; then both are one, and what they shape is there."""
    _, output = again
    for name in ("ana.png", "english.wav"):
        shutil.copy(demo(name), tmp_path / name)
    moved = {**AUDIO_ROW, "id": "moved", "image": str(tmp_path / "ana.png"), "audio": str(tmp_path / "english.wav")}
    manifest = write_manifest(tmp_path, [moved, DRIVER_ROW])
    plan = plan_of(manifest, output)
    assert plan.forecast.stages["crop"].compute == 1, "never seen under this name"
    assert run_manifest(manifest, output).computed == {"render": 1}
    # By now every name has been read.
    doubled = write_manifest(
        tmp_path, [{**AUDIO_ROW, "id": "a", "seed": 5}, {**moved, "id": "b", "seed": 6}], "doubled.parquet"
    )
    plan, _ = planned_and_run(doubled, output)
    assert (plan.summary()["portraits"], plan.summary()["recordings"], reused(plan)) == (
        1,
        1,
        {"crop": 1, "features": 2},
    )
    record = json.loads((output / "items" / "b.json").read_text())
    assert record["uris"]["image"] == record["inputs"]["image"]["uri"] == str(tmp_path / "ana.png")


def test_another_input_redoes_its_own_alone(tmp_path: Path) -> None:
    portrait = tmp_path / "portrait.png"
    shutil.copy(demo("ana.png"), portrait)
    manifest = write_manifest(tmp_path, [{**AUDIO_ROW, "image": str(portrait)}, DRIVER_ROW])
    planned_and_run(manifest, tmp_path / "out")
    shutil.copy(demo("kofi.jpg"), portrait)
    plan, _ = planned_and_run(manifest, tmp_path / "out")
    assert why(plan)["crop"] == {"input image changed": 1}
    assert reused(plan) == {"features": 1, "render": 1}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[dict[str, Path]]:
    renderer, generator = build_seeded(PRESETS["imtalker-tiny"])
    save_renderer(renderer, tmp_path / "renderer.safetensors")
    save_generator(generator, tmp_path / "generator.safetensors")
    yield {name: tmp_path / f"{name}.safetensors" for name in ("renderer", "generator")}


def test_other_weights_redo_what_their_networks_make(tmp_path: Path, files: dict[str, Path]) -> None:
    settings = changed(model="imtalker", weights={name: str(path) for name, path in files.items()}, download=False)
    manifest = write_manifest(tmp_path, [AUDIO_ROW, DRIVER_ROW])
    planned_and_run(manifest, tmp_path / "out", settings)
    _, generator = build_seeded(PRESETS["imtalker-tiny"])
    generator.fmt.decoder.linear.weight.data.mul_(1.01)
    save_generator(generator, files["generator"])
    plan, summary = planned_and_run(manifest, tmp_path / "out", settings)
    assert (summary.copied, summary.reused) == (1, 1), "a driver's motion needs no generator"
    assert why(plan) == {name: {"weights of generator changed": 1} for name in ("motion", "render")}
    renderer, _ = build_seeded(PRESETS["imtalker-tiny"])
    next(renderer.parameters()).data.mul_(1.01)
    save_renderer(renderer, files["renderer"])
    plan, _ = planned_and_run(manifest, tmp_path / "out", settings)
    assert set(why(plan)) == {"features", "motion", "render"}
    assert reused(plan)["crop"] == 3


def test_a_result_that_left_the_cache_is_made_again(again: tuple[str, Path]) -> None:
    manifest, output = again
    shutil.rmtree(output / "cache" / "features")
    plan, _ = planned_and_run(manifest, output, changed(video={"crf": 30}))
    assert why(plan)["features"] == {"not in the cache": 3}, "the motion is there: its recording need not be heard"
    assert reused(plan) == {"crop": 3, "motion": 1}


def test_without_a_cache_nothing_stays(again: tuple[str, Path]) -> None:
    manifest, output = again
    plan, summary = planned_and_run(manifest, output, changed(cfg_scale=1.5, cache={"keep": False}))
    assert {name: plan.forecast.stages[name].drop for name in CACHED} == {"crop": 3, "features": 4, "motion": 2}
    assert summary.cache.files == 0
    assert not (output / "cache").exists()
    plan, _ = planned_and_run(manifest, output, changed(video={"crf": 30}))
    assert why(plan)["crop"] == {"not in the cache": 3}


def test_over_the_limit_what_was_used_last_stays(again: tuple[str, Path]) -> None:
    manifest, output = again
    before = {path for path in (output / "cache").rglob("*.npz")}
    _, summary = planned_and_run(manifest, output, changed(cfg_scale=1.5))
    new = {path for path in (output / "cache").rglob("*.npz")} - before
    assert len(new) == 1
    limit = summary.cache.size_bytes - 1
    _, summary = planned_and_run(manifest, output, changed(cfg_scale=1.5, cache={"max_bytes": limit}))
    assert sum(summary.cache.dropped.values()) == 1
    assert summary.cache.size_bytes <= limit
    left = {path for path in (output / "cache").rglob("*.npz")}
    assert new <= left
    kept = json.loads((output / "run.json").read_text())["summary"]["cache"]
    assert (kept["files"], kept["size_bytes"]) == (len(left), sum(path.stat().st_size for path in left))


def test_in_an_object_store(tmp_path: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    settings = changed(storage_options=s3.storage_options)
    planned_and_run(write_manifest(tmp_path, [AUDIO_ROW]), f"s3://{bucket}/out", settings)
    assert len(s3.keys(bucket, "out/cache/")) == 4 + 1
    renamed = write_manifest(tmp_path, [{**AUDIO_ROW, "id": "renamed"}, {**AUDIO_ROW, "id": "new", "seed": 1}])
    off = settings.model_copy(update={"cache": CacheSettings(keep=False)})
    plan, _ = planned_and_run(renamed, f"s3://{bucket}/out", off)
    assert (plan.summary()["to_copy"], reused(plan)) == (1, {"crop": 1, "features": 2, "render": 1})
    assert s3.keys(bucket, "out/cache/") == set()
    assert s3.keys(bucket, "out/videos/") == {f"out/videos/{id}.mp4" for id in ("spoken", "renamed", "new")}
