"""An item that is rendered again comes out the same, or the answer says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import cli
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.item.rerun import Rerun, rerun, rerun_text
from pipeline.progress import RunProgress
from pipeline.stages import STAGE_VERSIONS
from tests.runs import TINY, demo, run_manifest, write_manifest


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with inputs of its own, whose settings are not the defaults."""
    folder = tmp_path_factory.mktemp("again")
    for name in ("ana.png", "english.wav", "driver.mp4"):
        shutil.copy(demo(name), folder / name)
    rows = [
        {"id": "spoken", "image": "ana.png", "audio": "english.wav", "cfg_scale": 2.0, "seed": 5},
        {"id": "both", "image": "ana.png", "audio": "english.wav", "driver": "driver.mp4", "motion_from": "driver"},
        {"id": "gone", "image": "nobody.png", "audio": "english.wav"},
    ]
    changes = {"batch_size": 3, "nfe": 6, "label": "cn", "producer": "Studio", "max_seconds": 0.2}
    settings = RunSettings.model_validate(TINY.model_dump() | changes)
    run_manifest(write_manifest(folder, rows), folder / "out", settings)
    return folder


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """A copy of its output, to be changed."""
    return shutil.copytree(finished / "out", tmp_path / "out")


def made_again(output: Path, id: str, settings: RunSettings | None = None) -> Rerun:
    with RunProgress(Console(quiet=True), 60) as progress:
        return rerun(str(output), id, settings, progress)


def change_record(output: Path, id: str, **changes: Any) -> None:
    path = output / "items" / f"{id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_command_says_that_an_item_comes_out_the_same(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*")}
    found = CliRunner().invoke(cli.app, ["reproduce", str(finished / "out"), "spoken", "--json"])
    assert found.exit_code == 0, found.output
    facts = json.loads(found.stdout)
    record = json.loads((finished / "out" / "items" / "spoken.json").read_text())
    assert facts["same"] is True
    assert facts["frames_sha256"] == facts["found_sha256"] == record["video"]["frames_sha256"]
    assert facts["decoded_sha256"] == facts["found_decoded_sha256"] is not None
    assert (facts["reasons"], facts["notes"]) == ([], [])
    after = {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*")}
    assert after == before, "the output is only read"


def test_without_its_video_the_record_decides(again: Path) -> None:
    (again / "videos" / "both.mp4").unlink()
    found = made_again(again, "both")
    assert found.same and found.reasons == ()
    assert found.notes == ("the video in the output is gone or damaged: only the record is compared",)
    assert rerun_text(found).startswith("both: the same frames\n")


def test_an_input_that_changed_is_named(finished: Path, again: Path) -> None:
    original = (finished / "english.wav").read_bytes()
    try:
        shutil.copy(demo("french.m4a"), finished / "english.wav")
        found = made_again(again, "spoken")
    finally:
        (finished / "english.wav").write_bytes(original)
    assert not found.same and found.found_sha256 is not None
    assert [reason.split(":")[0] for reason in found.reasons] == ["input audio changed"]
    assert "OTHER frames" in rerun_text(found)


def test_a_record_and_a_video_that_do_not_tell_the_truth_are_found_out(again: Path) -> None:
    shutil.copy(again / "videos" / "both.mp4", again / "videos" / "spoken.mp4")
    record = json.loads((again / "items" / "spoken.json").read_text())
    change_record(again, "spoken", video=record["video"] | {"frames_sha256": "0" * 64}, versions={"render": 0})
    found = CliRunner().invoke(cli.app, ["reproduce", str(again), "spoken"])
    assert found.exit_code == 1
    assert "OTHER frames" in found.stdout
    assert f"the code of render changed: version 0 then, {STAGE_VERSIONS['render']} now" in found.stdout
    assert "NOT as the video in the output" in found.stdout


def test_an_item_that_fails_this_time_is_not_the_same(finished: Path, again: Path) -> None:
    change_record(again, "spoken", uris={"image": str(finished / "nobody.png"), "audio": demo("english.wav")})
    found = made_again(again, "spoken")
    assert (found.same, found.found_sha256) == (False, None)
    assert found.reasons[0].startswith("it failed this time: input error in crop")


def test_items_that_were_not_made_can_not_be_made_again(finished: Path) -> None:
    with pytest.raises(CannotRun, match=r"gone: expected an item of .* found it is failed"):
        made_again(finished / "out", "gone")
    with pytest.raises(CannotRun, match=r"nobody: expected an item of .* found no record of it"):
        made_again(finished / "out", "nobody")


def test_ways_to_get_at_things_are_those_given(finished: Path) -> None:
    settings = RunSettings(limits={"max_file_bytes": 10})
    found = made_again(finished / "out", "spoken", settings)
    assert not found.same and "10 bytes" in found.reasons[0]
